/* Assigns a device and works with it until killed. Prints a line when the device is bound.
 *
 * usage: abandon */
#include "dma_engine.h"

int main(void) {
    assign();
    printf("bound\n");
    fflush(stdout);
    const uint64_t length = 1 << 20;
    char *pages = memory(length);
    int fd = event();
    for (uint64_t round = 0;; round++) {
        uint64_t at = 0x100000000 + round * length;
        map(pages, length, at, MAP_ALL);
        must(!set_irqs(MSIX, DATA_EVENTFD | TRIGGER, 0, 1, &fd), "SET_IRQS");
        start(0, (struct descriptor){.operation = FILL, .flags = INTERRUPT, .length = length, .destination = at});
        must(end(0) == DONE, "FILL");
        must(signals(fd, 5000) > 0, "interrupt");
        must(!set_irqs(MSIX, DATA_NONE | TRIGGER, 0, 0, 0), "SET_IRQS");
    }
}
