/* A guest's own page tables on an IOMMU of Intel's: what it says of itself, a first stage nested in a page table of the
 * client's, DMA through both, what the guest changes meanwhile, and a fault queue of it.
 *
 * usage: nested_vtd, on platforms/vtd.toml */
#include "dma_engine.h"

struct hw_info { uint32_t size, flags, dev_id, data_len; uint64_t data_uptr; uint32_t out_data_type; uint8_t out_max_pasid_log2, reserved[3]; uint64_t out_capabilities; };
struct hw_info_vtd { uint32_t flags, reserved; uint64_t cap_reg, ecap_reg; };
struct hwpt_alloc { uint32_t size, flags, dev_id, pt_id, out_hwpt_id, reserved, data_type, data_len; uint64_t data_uptr; uint32_t fault_id, reserved2; };
struct vtd_s1 { uint64_t flags, pgtbl_addr; uint32_t addr_width, reserved; };
struct hwpt_invalidate { uint32_t size, hwpt_id; uint64_t data_uptr; uint32_t data_type, entry_len, entry_num, reserved; };
struct vtd_s1_invalidate { uint64_t addr, npages; uint32_t flags, reserved; };
struct fault_alloc { uint32_t size, flags, out_fault_id, out_fault_fd; };

enum { HWPT_ALLOC = 0x3b89, GET_HW_INFO = 0x3b8a, HWPT_INVALIDATE = 0x3b8d, FAULT_QUEUE_ALLOC = 0x3b8e };
enum { NEST_PARENT = 1, FAULT_ID_VALID = 4, VTD = 1, VTD_S1 = 1, FOUR_LEVELS = 48, NOT_MAPPED = 3, PERMISSION = 4, BAD_TABLE = 8 };
enum { PRESENT = 1, WRITE = 2, USER = 4, ALL = PRESENT | WRITE | USER, ACCESSED = 0x20, DIRTY = 0x40, LARGE = 0x80, ENTRIES = 512 };

/* The guest's memory: tables first, then pages; and where the guest has it. */
enum { PAGES = 1024, ROOT = 0, LEVEL_3 = 1, LEVEL_2 = 2, LEVEL_1 = 3, FIRST_PAGE = 16 };
static const uint64_t gpa = 0x40000000, small = 0x7f0000000000, large = 0x7f0000200000;
static char *guest;

static uint64_t *entry(int table, int index) {
    return (uint64_t *)(guest + table * PAGE) + index;
}

static void describe(void) {
    struct hw_info_vtd vtd = {0};
    struct hw_info ask = {.size = sizeof ask, .dev_id = device_id, .data_len = sizeof vtd, .data_uptr = (uintptr_t)&vtd};
    must(!ioctl(iommu, GET_HW_INFO, &ask), "GET_HW_INFO");
    must(ask.out_data_type == VTD && ask.data_len == sizeof vtd && ask.out_max_pasid_log2 == 20, "its type");
    must((vtd.cap_reg >> 16 & 0x3f) == 47 && (vtd.ecap_reg >> 26 & 1), "48 bits, nested translation");
}

static uint32_t page_table(uint32_t flags, uint32_t on, const struct vtd_s1 *stage, uint32_t faults) {
    struct hwpt_alloc alloc = {.size = sizeof alloc, .flags = flags, .dev_id = device_id, .pt_id = on, .fault_id = faults};
    if (stage)
        alloc.data_type = VTD_S1, alloc.data_len = sizeof *stage, alloc.data_uptr = (uintptr_t)stage;
    must(!ioctl(iommu, HWPT_ALLOC, &alloc), "HWPT_ALLOC");
    return alloc.out_hwpt_id;
}

static int try_attach(uint32_t table) {
    struct attach attach = {sizeof attach, 0, table};
    return ioctl(device, ATTACH, &attach);
}

static void fill_tables(void) {
    *entry(ROOT, small >> 39 & 511) = (gpa + LEVEL_3 * PAGE) | ALL;
    *entry(LEVEL_3, small >> 30 & 511) = (gpa + LEVEL_2 * PAGE) | ALL;
    *entry(LEVEL_2, 0) = (gpa + LEVEL_1 * PAGE) | ALL;
    /* Two megabytes at 0x40200000, of the guest's four. */
    *entry(LEVEL_2, 1) = (gpa + 0x200000) | ALL | LARGE;
    *entry(LEVEL_1, 0) = (gpa + FIRST_PAGE * PAGE) | ALL;
    *entry(LEVEL_1, 1) = (gpa + (FIRST_PAGE + 1) * PAGE) | PRESENT | USER;
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

static void dma(void) {
    memset(guest + (FIRST_PAGE + 1) * PAGE, 0x5a, PAGE);
    ends((struct descriptor){.operation = COPY, .length = PAGE, .source = small + PAGE, .destination = small}, 0, 0, "4 KiB pages");
    must(guest[FIRST_PAGE * PAGE] == 0x5a && guest[(FIRST_PAGE + 1) * PAGE - 1] == 0x5a, "the page arrived");
    must((*entry(LEVEL_1, 0) & (ACCESSED | DIRTY)) == (ACCESSED | DIRTY), "marked as written");
    must((*entry(LEVEL_1, 1) & (ACCESSED | DIRTY)) == ACCESSED, "marked as read");
    ends((struct descriptor){.operation = COPY, .length = 0x200000 - PAGE, .source = large, .destination = large + PAGE}, 0, 0, "2 MiB");
    ends((struct descriptor){.operation = FILL, .length = 64, .pattern = 0x1111111111111111, .destination = large + 0x1ff000}, 0, 0, "2 MiB");
    must(guest[0x3ff000] == 0x11, "the end of 2 MiB");
    ends((struct descriptor){.operation = FILL, .length = 16, .destination = small + PAGE - 8}, PERMISSION, small + PAGE, "a read-only page");
    ends((struct descriptor){.operation = FILL, .length = 8, .destination = small + 2 * PAGE}, NOT_MAPPED, small + 2 * PAGE, "a hole");
}

static void changes(uint32_t nested) {
    *entry(LEVEL_1, 0) = (gpa + (FIRST_PAGE + 2) * PAGE) | ALL;
    struct vtd_s1_invalidate entries[2] = {{small, 1, 1, 0}, {0, -1, 0, 0}};
    struct hwpt_invalidate drop = {sizeof drop, nested, (uintptr_t)entries, 0, sizeof *entries, 2, 0};
    must(!ioctl(iommu, HWPT_INVALIDATE, &drop) && drop.entry_num == 2, "HWPT_INVALIDATE");
    ends((struct descriptor){.operation = FILL, .length = 8, .pattern = 0x7777777777777777, .destination = small}, 0, 0, "the new page");
    must(guest[(FIRST_PAGE + 2) * PAGE] == 0x77, "the new page was written");
    *entry(LEVEL_2, 0) |= 1ull << 51;
    ends((struct descriptor){.operation = FILL, .length = 8, .destination = small}, NOT_MAPPED, small, "a table where there is no memory");
    *entry(ROOT, small >> 39 & 511) |= LARGE;
    ends((struct descriptor){.operation = FILL, .length = 8, .destination = small}, BAD_TABLE, small, "a page of 512 GiB");
}

/* Nobody faults here in a way that a client is asked about: reading answers 0 at once, as in the kernel. */
static void fault_queue(uint32_t parent, const struct vtd_s1 *stage) {
    struct fault_alloc alloc = {.size = sizeof alloc};
    must(!ioctl(iommu, FAULT_QUEUE_ALLOC, &alloc), "FAULT_QUEUE_ALLOC");
    must(!try_attach(page_table(FAULT_ID_VALID, parent, stage, alloc.out_fault_id)), "attach with a fault queue");
    char record[40];
    int queue = alloc.out_fault_fd;
    must(read(queue, record, sizeof record) == 0, "an empty queue");
    answers(read(queue, record, 39), ESPIPE, "part of a record");
    must(!close(queue), "close");
}

int main(void) {
    assign();
    describe();
    guest = memory(PAGES * PAGE);
    uint32_t parent = page_table(NEST_PARENT, ioas, 0, 0);
    map(guest, PAGES * PAGE, gpa, MAP_ALL);
    fill_tables();
    struct vtd_s1 stage = {0, gpa + ROOT * PAGE, FOUR_LEVELS, 0}, five = {0, gpa, 57, 0};
    uint32_t nested = page_table(0, parent, &stage, 0);
    answers(try_attach(page_table(0, parent, &five, 0)), EINVAL, "five levels");
    must(!try_attach(nested), "attach");
    dma();
    changes(nested);
    fault_queue(parent, &stage);
    puts("ok");
}
