/* Takes a TDI to RUN, lets it do trusted DMA, and breaks what LOCK fixed. Says which interrupt of the host it hears then:
 * "err", "req" or "none".
 *
 * usage: breach */
#include "tdi.h"

enum { TRUSTED = 2 };

int main(void) {
    connect_tsm("b1d0:01:00.0");
    setenv("BINDERY_CDEV", "/dev/vfio/devices/vfio1", 1);
    assign();
    uint32_t vdevice = make_vdevice(device_id, 0x10);
    int error = event(), request = event();
    must(!set_irqs(ERR, DATA_EVENTFD | TRIGGER, 0, 1, &error), "SET_IRQS of ERR");
    must(!set_irqs(REQ, DATA_EVENTFD | TRIGGER, 0, 1, &request), "SET_IRQS of REQ");
    answers(tsm_op(TSM_BIND, vdevice), 0, "bind");
    answers(set_tdi_state(vdevice, LOCKED), 0, "LOCK");
    answers(set_tdi_state(vdevice, RUN), 0, "RUN");
    char *pages = memory(PAGE);
    map(pages, PAGE, 0x100000000, MAP_ALL);
    set_register(CONTROL, 1);
    start(0, (struct descriptor){.operation = FILL, .flags = TRUSTED, .length = PAGE, .destination = 0x100000000, .pattern = 0x4242424242424242});
    must(end(0) == DONE && pages[100] == 0x42, "trusted DMA");
    must(!signals(error, 0) && !signals(request, 0), "nobody is told of nothing");
    set_command(2);
    int erred = signals(error, 0) == 1, asked = signals(request, 0) == 1;
    printf("%s\n", erred ? asked ? "both" : "err" : asked ? "req" : "none");
    answers(tsm_op(TSM_UNBIND, vdevice), 0, "unbind");
    return 0;
}
