/* DMA that is refused, as the device's status tells it: a mapping of one direction used in the other, a hole, no bus
 * master; and a function-level reset by config space under a long copy.
 *
 * usage: faults */
#include "dma_engine.h"

enum { READ = 1, WRITE = 2, BUS_MASTER_OFF = 1, NOT_MAPPED = 3, PERMISSION = 4, IDLE = 0 };
enum { CAPABILITIES = 0x34, PCI_EXPRESS = 0x10, DEVICE_CONTROL = 8, FLR = 0x8000 };

static const uint64_t read_only = 0x10000, write_only = 0x20000, both = 0x30000;

static void refused(struct descriptor what, uint32_t reason, uint32_t access, uint64_t at, const char *name) {
    start(3, what);
    uint32_t state = end(3);
    volatile struct status *s = &statuses[3];
    if (state == FAULT && s->reason == reason && s->fault_access == access && s->fault_address == at)
        return;
    fprintf(stderr, "%s: state %u reason %u access %u address %#lx\n", name, state, s->reason, s->fault_access, (unsigned long)s->fault_address);
    exit(1);
}

static void permissions(void) {
    char *pages = memory(3 * PAGE);
    memset(pages, 0x11, 3 * PAGE);
    map(pages, PAGE, read_only, MAP_FIXED_IOVA | MAP_READ);
    map(pages + PAGE, PAGE, write_only, MAP_FIXED_IOVA | MAP_WRITE);
    map(pages + 2 * PAGE, PAGE, both, MAP_ALL);
    refused((struct descriptor){.operation = FILL, .length = 64, .destination = read_only + 8}, PERMISSION, WRITE, read_only + 8, "write to read-only");
    must(pages[8] == 0x11, "nothing was written");
    refused((struct descriptor){.operation = COPY, .length = 64, .source = write_only, .destination = both}, PERMISSION, READ, write_only, "read of write-only");
    refused((struct descriptor){.operation = FILL, .length = 2 * PAGE, .destination = both}, NOT_MAPPED, WRITE, both + PAGE, "off the end");
    refused((struct descriptor){.operation = COPY, .length = 8, .source = 0x5000000, .destination = both}, NOT_MAPPED, READ, 0x5000000, "a hole");
    set_command(MEMORY_AND_MASTER & 2);
    refused((struct descriptor){.operation = FILL, .length = 8, .destination = both}, BUS_MASTER_OFF, WRITE, both, "no bus master");
    set_command(MEMORY_AND_MASTER);
    start(4, (struct descriptor){.operation = COPY, .length = 64, .source = read_only, .destination = both});
    must(end(4) == DONE, "the allowed direction");
}

static uint64_t express(void) {
    uint8_t at, header[2];
    must(pread(device, &at, 1, config + CAPABILITIES) == 1, "config");
    for (; at; at = header[1]) {
        must(pread(device, header, 2, config + at) == 2, "config");
        if (header[0] == PCI_EXPRESS)
            return config + at;
    }
    errno = 0;
    must(0, "no PCI Express capability");
    return 0;
}

static void reset_under_copy(void) {
    const uint64_t length = 128 << 20, from = 0x100000000, to = 0x200000000;
    char *pages = memory(2 * length);
    map(pages, length, from, MAP_ALL), map(pages + length, length, to, MAP_ALL);
    start(0, (struct descriptor){.operation = COPY, .length = length, .source = from, .destination = to});
    while (statuses[0].state <= RUNNING && !statuses[0].bytes_done)
        ;
    must(statuses[0].state == RUNNING, "the copy runs");
    uint64_t control_at = express() + DEVICE_CONTROL;
    uint16_t control;
    must(pread(device, &control, 2, control_at) == 2, "device control");
    control |= FLR;
    must(pwrite(device, &control, 2, control_at) == 2, "FLR");
    /* No DMA after the reset returned: what the source holds now never arrives. */
    memset(pages, 0x33, length);
    nanosleep(&(struct timespec){0, 20000000}, 0);
    must(!memchr(pages + length, 0x33, length), "DMA after the reset");
    set_command(MEMORY_AND_MASTER);
    must(statuses[0].state == IDLE && !descriptors[0].operation, "memory of BAR 0 is zeroed");
    set_register(CONTROL, 1);
    start(1, (struct descriptor){.operation = COPY, .length = PAGE, .source = from, .destination = to});
    must(end(1) == DONE && pages[length] == 0x33, "a copy after the reset");
}

int main(void) {
    assign();
    permissions();
    reset_under_copy();
    printf("ok\n");
    return 0;
}
