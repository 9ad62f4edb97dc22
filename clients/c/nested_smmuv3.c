/* A guest's own page tables on an IOMMU of Arm's: what it says of itself, a stream table entry behind a vIOMMU, DMA through
 * stage 1 and the client's page table, commands and events by the guest's stream ID, and an end in any order.
 *
 * usage: nested_smmuv3, on platforms/smmuv3.toml */
#include "dma_engine.h"

struct hw_info { uint32_t size, flags, dev_id, data_len; uint64_t data_uptr; uint32_t out_data_type; uint8_t out_max_pasid_log2, reserved[3]; uint64_t out_capabilities; };
struct hw_info_smmuv3 { uint32_t flags, reserved, idr[6], iidr, aidr; };
struct hwpt_alloc { uint32_t size, flags, dev_id, pt_id, out_hwpt_id, reserved, data_type, data_len; uint64_t data_uptr; uint32_t fault_id, reserved2; };
struct viommu_alloc { uint32_t size, flags, type, dev_id, hwpt_id, out_viommu_id, data_len, reserved; uint64_t data_uptr; };
struct vdevice_alloc { uint32_t size, viommu_id, dev_id, out_vdevice_id; uint64_t virt_id; };
struct veventq_alloc { uint32_t size, flags, viommu_id, type, depth, out_veventq_id, out_veventq_fd, reserved; };
struct invalidate { uint32_t size, hwpt_id; uint64_t data_uptr; uint32_t data_type, entry_len, entry_num, reserved; };
struct destroy { uint32_t size, id; };
struct event { uint32_t flags, sequence; uint64_t words[4]; };

enum { DESTROY = 0x3b80, HWPT_ALLOC = 0x3b89, GET_HW_INFO = 0x3b8a, INVALIDATE = 0x3b8d, VIOMMU_ALLOC = 0x3b90, VDEVICE_ALLOC = 0x3b91, VEVENTQ_ALLOC = 0x3b93 };
enum { NEST_PARENT = 1, SMMUV3_INFO = 2, SMMUV3_STE = 2, SMMUV3 = 1, NOT_MAPPED = 3, PERMISSION = 4 };
enum { F_TRANSLATION = 0x10, F_ACCESS = 0x12, F_PERMISSION = 0x13, STREAM = 0x108, SOON_MS = 5000 };

/* Entries of the guest's tables: of stage 1, AArch64. */
static const uint64_t table_entry = 3, page_entry = 3 | 1 << 6 | 1 << 10, block_entry = 1 | 1 << 6 | 1 << 10, read_only = 1 << 7, accessed = 1 << 10;
/* The stream table entry: valid, stage 1. The context descriptor: valid, AArch64, faults recorded, 48 bits, no upper half. */
static const uint64_t ste_stage_1 = 1 | 5 << 1, ste_abort = 1;
static const uint64_t descriptor = 1ull << 31 | 1ull << 41 | 1ull << 45 | 1ull << 46 | 5ull << 32 | 1ull << 30 | 16;

/* The guest's memory: the descriptor and tables first, then pages; and where the guest has it. */
enum { PAGES = 1024, DESCRIPTOR = 0, LEVEL_0 = 1, LEVEL_1 = 2, LEVEL_2 = 3, LEVEL_3 = 4, FIRST_PAGE = 16 };
static const uint64_t gpa = 0x40000000, small = 0x7f0000000000, large = 0x7f0000200000;
static char *guest;
static uint32_t viommu;

static uint64_t *entry(int table, int index) {
    return (uint64_t *)(guest + table * PAGE) + index;
}

static uint64_t guest_page(int number) {
    return gpa + (uint64_t)number * PAGE;
}

static void describe(void) {
    struct hw_info_smmuv3 smmu = {0};
    struct hw_info ask = {.size = sizeof ask, .dev_id = device_id, .data_len = sizeof smmu, .data_uptr = (uintptr_t)&smmu};
    must(!ioctl(iommu, GET_HW_INFO, &ask), "GET_HW_INFO");
    must(ask.out_data_type == SMMUV3_INFO && ask.data_len == sizeof smmu, "its type");
    must((smmu.idr[0] & 3) == 3 && (smmu.idr[5] & 7) == 5, "two stages, 48 bits");
}

static int try_page_table(uint32_t flags, uint32_t on, const uint64_t *ste, uint32_t *id) {
    struct hwpt_alloc alloc = {.size = sizeof alloc, .flags = flags, .dev_id = device_id, .pt_id = on};
    if (ste)
        alloc.data_type = SMMUV3_STE, alloc.data_len = 16, alloc.data_uptr = (uintptr_t)ste;
    int answer = ioctl(iommu, HWPT_ALLOC, &alloc);
    *id = alloc.out_hwpt_id;
    return answer;
}

static uint32_t page_table(uint32_t flags, uint32_t on, const uint64_t *ste) {
    uint32_t id;
    must(!try_page_table(flags, on, ste, &id), "HWPT_ALLOC");
    return id;
}

static int try_attach(uint32_t table) {
    struct attach attach = {sizeof attach, 0, table};
    return ioctl(device, ATTACH, &attach);
}

static int end_object(uint32_t id) {
    struct destroy destroy = {sizeof destroy, id};
    return ioctl(iommu, DESTROY, &destroy);
}

static void fill_tables(void) {
    *entry(DESCRIPTOR, 0) = descriptor;
    *entry(DESCRIPTOR, 1) = guest_page(LEVEL_0);
    *entry(LEVEL_0, small >> 39 & 511) = guest_page(LEVEL_1) | table_entry;
    *entry(LEVEL_1, small >> 30 & 511) = guest_page(LEVEL_2) | table_entry;
    *entry(LEVEL_2, 0) = guest_page(LEVEL_3) | table_entry;
    /* Two megabytes at 0x40200000, of the guest's four. */
    *entry(LEVEL_2, 1) = (gpa + 0x200000) | block_entry;
    *entry(LEVEL_3, 0) = guest_page(FIRST_PAGE) | page_entry;
    *entry(LEVEL_3, 1) = guest_page(FIRST_PAGE + 1) | page_entry | read_only;
    *entry(LEVEL_3, 2) = guest_page(FIRST_PAGE + 2) | (page_entry & ~accessed);
}

static void ends(struct descriptor what, uint32_t reason, uint64_t at, const char *name) {
    start(0, what);
    uint32_t state = end(0);
    volatile struct status *s = &statuses[0];
    if (reason ? state == FAULT && s->reason == reason && s->fault_address == at : state == DONE)
        return;
    fprintf(stderr, "%s: state %u reason %u address %#lx\n", name, state, s->reason, (unsigned long)s->fault_address);
    exit(1);
}

static struct descriptor fill(uint64_t at, uint32_t length) {
    return (struct descriptor){.operation = FILL, .length = length, .pattern = 0x7777777777777777, .destination = at};
}

static void dma(void) {
    memset(guest + (FIRST_PAGE + 1) * PAGE, 0x5a, PAGE);
    ends((struct descriptor){.operation = COPY, .length = PAGE, .source = small + PAGE, .destination = small}, 0, 0, "4 KiB pages");
    must(guest[FIRST_PAGE * PAGE] == 0x5a && guest[(FIRST_PAGE + 1) * PAGE - 1] == 0x5a, "the page arrived");
    ends((struct descriptor){.operation = COPY, .length = 0x200000 - PAGE, .source = large, .destination = large + PAGE}, 0, 0, "2 MiB");
    ends(fill(large + 0x1ff000, 64), 0, 0, "2 MiB");
    must(guest[0x3ff000] == 0x77, "the end of 2 MiB");
}

/* What the guest is told next: the event, its own stream ID, and the address. */
static void told(int queue, uint32_t sequence, uint64_t id, uint64_t at) {
    struct pollfd waiting = {queue, POLLIN, 0};
    must(poll(&waiting, 1, SOON_MS) == 1, "an event");
    struct event event;
    must(read(queue, &event, sizeof event) == sizeof event, "read of an event");
    must(event.flags == 0 && event.sequence == sequence, "its header");
    must((event.words[0] & 0xff) == id && event.words[0] >> 32 == STREAM && event.words[2] == at, "its record");
}

static void faults(int queue) {
    struct pollfd waiting = {queue, POLLIN, 0};
    must(poll(&waiting, 1, 0) == 0, "nothing is told of DMA that goes through");
    ends(fill(small + PAGE, 8), PERMISSION, small + PAGE, "a read-only page");
    told(queue, 0, F_PERMISSION, small + PAGE);
    ends(fill(small + 3 * PAGE, 8), NOT_MAPPED, small + 3 * PAGE, "a hole");
    told(queue, 1, F_TRANSLATION, small + 3 * PAGE);
    start(0, fill(small + 2 * PAGE, 8));
    must(end(0) == FAULT, "a page that was never accessed");
    told(queue, 2, F_ACCESS, small + 2 * PAGE);
}

static void commands(void) {
    *entry(LEVEL_3, 0) = guest_page(FIRST_PAGE + 3) | page_entry;
    uint64_t stream = (uint64_t)STREAM << 32, batch[3][2] = {{0x12, small | 1}, {0x06 | stream, 0}, {0x30, 0}};
    struct invalidate drop = {sizeof drop, viommu, (uintptr_t)batch, SMMUV3, 16, 3, 0};
    must(!ioctl(iommu, INVALIDATE, &drop) && drop.entry_num == 3, "HWPT_INVALIDATE");
    ends(fill(small, 8), 0, 0, "the new page");
    must(guest[(FIRST_PAGE + 3) * PAGE] == 0x77, "the new page was written");
    batch[1][0] = 0x06 | 7ull << 32;
    drop.entry_num = 3;
    answers(ioctl(iommu, INVALIDATE, &drop), EIO, "a stream that is not the guest's");
    must(drop.entry_num == 1, "the first was done");
}

int main(void) {
    assign();
    describe();
    guest = memory(PAGES * PAGE);
    uint32_t parent = page_table(NEST_PARENT, ioas, 0), refused;
    map(guest, PAGES * PAGE, gpa, MAP_ALL);
    fill_tables();
    uint64_t ste[2] = {ste_stage_1 | gpa, 0}, abort[2] = {ste_abort, 0}, bad[2] = {ste_stage_1 | 1ull << 56, 0};
    struct viommu_alloc alloc = {.size = sizeof alloc, .type = SMMUV3, .dev_id = device_id, .hwpt_id = parent};
    must(!ioctl(iommu, VIOMMU_ALLOC, &alloc), "VIOMMU_ALLOC");
    viommu = alloc.out_viommu_id;
    answers(try_page_table(0, viommu, bad, &refused), EIO, "a bit that is the host's");
    uint32_t nested = page_table(0, viommu, ste);
    answers(try_attach(nested), ENOENT, "no vdevice yet");
    struct vdevice_alloc vdevice = {sizeof vdevice, viommu, device_id, 0, STREAM};
    must(!ioctl(iommu, VDEVICE_ALLOC, &vdevice), "VDEVICE_ALLOC");
    struct veventq_alloc events = {.size = sizeof events, .viommu_id = viommu, .type = SMMUV3, .depth = 8};
    must(!ioctl(iommu, VEVENTQ_ALLOC, &events), "VEVENTQ_ALLOC");
    int queue = events.out_veventq_fd;
    must(!try_attach(nested), "attach");
    dma();
    faults(queue);
    commands();

    must(!try_attach(page_table(0, viommu, abort)), "a stream that is stopped");
    ends(fill(small, 8), PERMISSION, small, "DMA of a stopped stream");
    must(!try_attach(nested), "attach again");
    answers(end_object(viommu), EBUSY, "a vIOMMU in use");
    must(!munmap((void *)descriptors, PAGE) && !close(device), "close the device first");
    answers(end_object(vdevice.out_vdevice_id), ENOENT, "its vdevice went with it");
    answers(end_object(events.out_veventq_id), EBUSY, "an open event file");
    must(!close(queue) && !end_object(events.out_veventq_id), "its end");
    must(!end_object(nested), "the nested page table");
    puts("ok");
}
