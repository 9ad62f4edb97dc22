/* VFIO's own type1, command by command: refusals in its order, whole entries, bitmaps, memory that moves. */
#include "dma_engine.h"

enum { CHECK_EXTENSION = 0x3b65, SET_IOMMU, SET_CONTAINER = 0x3b68, UNSET_CONTAINER, GET_DEVICE_FD };
enum { GET_INFO = 0x3b70, MAP_DMA, UNMAP_DMA, DIRTY_PAGES = 0x3b75 };
enum { TYPE1 = 1, TYPE1v2 = 3, DMA_CC = 4, UPDATE_VADDR = 10, READ = 1, WRITE = 2, VADDR = 4, GET_BITMAP = 1, ALL = 2, START = 1, STOP = 2, LOG = 4 };

struct dma_map { uint32_t argsz, flags; uint64_t vaddr, iova, size; };
struct dma_unmap { uint32_t argsz, flags; uint64_t iova, size, page, bitmap_size, bitmap; };
struct dirty { uint32_t argsz, flags; uint64_t iova, size, page, bitmap_size, bitmap; };

static int container, group;
static char *pages;

static int map_dma(uint32_t flags, uint64_t iova, void *at, uint64_t size) {
    struct dma_map m = { .argsz = sizeof m, .flags = flags, .vaddr = (uintptr_t)at, .iova = iova, .size = size };
    return ioctl(container, MAP_DMA, &m);
}

static uint64_t unmapped;

static int unmap_dma(uint32_t flags, uint64_t iova, uint64_t size) {
    struct dma_unmap u = { .argsz = 24, .flags = flags, .iova = iova, .size = size };
    int answer = ioctl(container, UNMAP_DMA, &u);
    unmapped = u.size;
    return answer;
}

static void unmaps(uint32_t flags, uint64_t iova, uint64_t size, uint64_t bytes, const char *what) {
    answers(unmap_dma(flags, iova, size), 0, what);
    must(unmapped == bytes, what);
}

static int dirty_pages(uint32_t flags, uint64_t iova, uint64_t size, void *bitmap, uint64_t bytes) {
    struct dirty d = { .argsz = sizeof d, .flags = flags, .iova = iova, .size = size, .page = PAGE, .bitmap_size = bytes, .bitmap = (uintptr_t)bitmap };
    return ioctl(container, DIRTY_PAGES, &d);
}

static void begin(long version) {
    char path[64], link[256] = "";
    must(readlink("/sys/bus/pci/devices/b1d0:02:00.0/iommu_group", link, sizeof link - 1) > 0, "the link to the group");
    snprintf(path, sizeof path, "/dev/vfio/%.20s", strrchr(link, '/') + 1);
    container = open("/dev/vfio/vfio", O_RDWR);
    group = open(path, O_RDWR);
    must(container >= 0 && group >= 0, "a group and a container");
    answers(ioctl(container, CHECK_EXTENSION, UPDATE_VADDR), 0, "nothing can move without an IOMMU");
    must(!ioctl(group, SET_CONTAINER, &container), "SET_CONTAINER");
    answers(ioctl(container, 0x3bff, NULL), EINVAL, "any command without an IOMMU");
    must(!ioctl(container, SET_IOMMU, version), "SET_IOMMU");
    must(ioctl(container, CHECK_EXTENSION, UPDATE_VADDR) == 1 && ioctl(container, CHECK_EXTENSION, DMA_CC) == 1, "an IOMMU's extensions");
    answers(ioctl(container, 0x3bff, NULL), ENOTTY, "no command");
}

static void finish(void) {
    close(container);
    close(group);
}

static void refusals(void) {
    begin(TYPE1v2);
    struct dma_map m = { .argsz = 31, .flags = READ, .vaddr = (uintptr_t)pages, .iova = 0, .size = PAGE };
    answers(ioctl(container, MAP_DMA, NULL), EFAULT, "map nothing");
    answers(ioctl(container, MAP_DMA, &m), EINVAL, "a short struct");
    answers(map_dma(8, 0, pages, PAGE), EINVAL, "an unknown flag");
    answers(map_dma(READ, 0, pages, 0), EINVAL, "an empty range");
    answers(map_dma(READ, -(uint64_t)PAGE, pages, 2 * PAGE), EOVERFLOW, "past the top");
    answers(map_dma(READ, 0, (void *)-(uintptr_t)PAGE, 2 * PAGE), EOVERFLOW, "memory past the top");
    answers(map_dma(0, 0, pages, PAGE), EINVAL, "no rights");
    answers(map_dma(READ | VADDR, 0, pages, PAGE), EINVAL, "rights and a move");
    answers(map_dma(READ, 1, pages, PAGE), EINVAL, "an unaligned address");
    answers(map_dma(READ, 0, pages + 1, PAGE), EINVAL, "unaligned memory");
    answers(map_dma(VADDR, 0, pages, PAGE), ENOENT, "a move of nothing");
    answers(map_dma(READ, 0xfee00000, pages, PAGE), EINVAL, "where interrupts go");
    answers(map_dma(READ, 1ULL << 48, pages, PAGE), EINVAL, "past the IOMMU's end");
    answers(map_dma(READ, 0, (void *)PAGE, PAGE), EFAULT, "memory that is not there");
    answers(unmap_dma(8, 0, PAGE), EINVAL, "unmap: an unknown flag");
    answers(unmap_dma(GET_BITMAP | ALL, 0, 0), EINVAL, "a bitmap of all");
    answers(unmap_dma(0, 1, PAGE), EINVAL, "unmap: unaligned");
    answers(unmap_dma(ALL, 0, PAGE), EINVAL, "all, and a range");
    answers(unmap_dma(0, 0, 0), EINVAL, "unmap: empty");
    answers(unmap_dma(0, -(uint64_t)PAGE, 2 * PAGE), EOVERFLOW, "unmap: past the top");
    unmaps(0, 0, PAGE, 0, "nothing there is a success");
    unmaps(ALL, 0, 0, 0, "nor anywhere");
    finish();
}

static void whole_entries(void) {
    begin(TYPE1v2);
    answers(map_dma(READ | WRITE, 0x10000, pages, 4 * PAGE), 0, "map");
    answers(map_dma(READ, 0x13000, pages, PAGE), EEXIST, "map in it");
    answers(unmap_dma(0, 0x11000, PAGE), EINVAL, "version 2 cuts nothing");
    answers(unmap_dma(0, 0x10000, PAGE), EINVAL, "nor at its beginning");
    answers(unmap_dma(0, 0x13000, 2 * PAGE), EINVAL, "nor at its end");
    answers(map_dma(READ, 0x20000, pages, PAGE), 0, "map another");
    unmaps(0, 0, 0x100000, 5 * PAGE, "both at once");
    finish();
    begin(TYPE1);
    answers(map_dma(READ | WRITE, 0x10000, pages, 4 * PAGE), 0, "map");
    unmaps(0, 0x11000, PAGE, 0, "version 1 leaves what begins before");
    unmaps(0, 0xf000, 2 * PAGE, 4 * PAGE, "and takes all of what begins inside");
    answers(dirty_pages(START, 0, 0, NULL, 0), EACCES, "version 1 logs nothing");
    answers(map_dma(READ, 0x10000, pages, PAGE), 0, "map");
    must(!ioctl(group, UNSET_CONTAINER) && !ioctl(group, SET_CONTAINER, &container), "out and in");
    must(!ioctl(container, SET_IOMMU, TYPE1v2), "it may be another version now");
    answers(map_dma(READ, 0x10000, pages, PAGE), 0, "what was mapped went with the last group");
    finish();
}

static void what_it_tells(void) {
    struct { uint32_t argsz, flags; uint64_t sizes; uint32_t capabilities, pad; uint8_t rest[256]; } info = { .argsz = 24 };
    begin(TYPE1v2);
    answers(map_dma(READ, 0, pages, PAGE), 0, "map");
    answers(ioctl(container, GET_INFO, &info), 0, "GET_INFO");
    must(info.argsz == 24 + 32 + 16 + 16 + 2 * 16 && info.flags == 3 && !info.capabilities, "what is needed");
    must(info.sizes == (1ULL << 12 | 1ULL << 21 | 1ULL << 30), "page sizes");
    answers(ioctl(container, GET_INFO, &info), 0, "GET_INFO again");
    must(info.capabilities == 24, "the chain");
    uint16_t *one = (void *)&info.rest[0], *two = (void *)&info.rest[32], *three = (void *)&info.rest[48];
    must(one[0] == 2 && *(uint32_t *)&one[2] == 56 && two[0] == 3 && *(uint32_t *)&two[2] == 72 && three[0] == 1 && !*(uint32_t *)&three[2], "migration, entries left, ranges");
    must(*(uint32_t *)&two[4] == 65534, "one entry is taken");
    uint64_t *ranges = (void *)&info.rest[64];
    must(*(uint32_t *)&three[4] == 2 && ranges[0] == 0 && ranges[1] == 0xfedfffff && ranges[2] == 0xfef00000 && ranges[3] == (1ULL << 48) - 1, "the ranges");
    finish();
}

static void written_pages(void) {
    uint64_t bits[4] = { 0 };
    begin(TYPE1v2);
    answers(map_dma(READ | WRITE, 0x2000, pages, 3 * PAGE), 0, "map");
    answers(map_dma(READ | WRITE, 0x46000, pages, PAGE), 0, "map another");
    answers(dirty_pages(LOG, 0, 80 * PAGE, bits, sizeof bits), EINVAL, "no log yet");
    answers(dirty_pages(0, 0, 0, NULL, 0), EINVAL, "no operation");
    answers(dirty_pages(START | STOP, 0, 0, NULL, 0), EINVAL, "two");
    answers(dirty_pages(START, 0, 0, NULL, 0), 0, "begin to log");
    answers(dirty_pages(START, 0, 0, NULL, 0), 0, "twice");
    answers(dirty_pages(LOG, 0, 0, bits, sizeof bits), EINVAL, "an empty range");
    answers(dirty_pages(LOG, -(uint64_t)PAGE, 2 * PAGE, bits, sizeof bits), EOVERFLOW, "past the top");
    answers(dirty_pages(LOG, 0, 80 * PAGE, bits, 8), EINVAL, "a bitmap that is too short");
    answers(dirty_pages(LOG, 0, 3 * PAGE, bits, sizeof bits), EINVAL, "a part of an entry");
    answers(dirty_pages(LOG, 0, 80 * PAGE, NULL, 16), EFAULT, "no bitmap");
    bits[0] = 1;
    bits[1] = ~0ULL;
    answers(dirty_pages(LOG, 0, 80 * PAGE, bits, sizeof bits), 0, "tell");
    must(bits[0] == (7 << 2 | 1), "all of an entry, and what was below it stays");
    must(bits[1] == (1 << 6 | 63), "so in the second word");
    struct dma_unmap u = { .argsz = sizeof u, .flags = GET_BITMAP, .iova = 0x2000, .size = 3 * PAGE, .page = PAGE, .bitmap_size = 8, .bitmap = (uintptr_t)bits };
    u.argsz = 47;
    answers(ioctl(container, UNMAP_DMA, &u), EINVAL, "no room for the bitmap's place");
    u.argsz = sizeof u;
    u.page = 2 * PAGE;
    answers(ioctl(container, UNMAP_DMA, &u), EINVAL, "pages of another size");
    u.page = PAGE;
    bits[0] = 0;
    answers(ioctl(container, UNMAP_DMA, &u), 0, "unmap and tell");
    must(bits[0] == 7 && u.size == 3 * PAGE, "three pages");
    answers(dirty_pages(STOP, 0, 0, NULL, 0), 0, "end the log");
    u.iova = 0x46000, u.size = PAGE;
    answers(ioctl(container, UNMAP_DMA, &u), EINVAL, "no log any more");
    finish();
}

/* The device copies within the entry, whose memory is elsewhere the second time. */
static void memory_moves(void) {
    begin(TYPE1v2);
    device = ioctl(group, GET_DEVICE_FD, "b1d0:02:00.0");
    must(device >= 0, "a device");
    char *other = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint16_t command = MEMORY_AND_MASTER;
    uint32_t enable = 1, slot = 0;
    must(pwrite(device, &command, 2, (1ULL << 62) + (7ULL << 40) + COMMAND) == 2, "memory and bus master");
    answers(map_dma(READ | WRITE, 0x10000, pages, 2 * PAGE), 0, "map");
    for (int round = 0; round < 2; round++) {
        char *here = round ? other : pages;
        memset(here, 'a' + round, PAGE);
        memset(here + PAGE, 0, PAGE);
        struct descriptor d = { .operation = COPY, .length = PAGE, .source = 0x10000, .destination = 0x10000 + PAGE };
        struct status s = { 0 };
        must(pwrite(device, &d, sizeof d, (1ULL << 62) + DESCRIPTORS) == sizeof d, "a descriptor");
        must(pwrite(device, &enable, 4, (1ULL << 62) + CONTROL) == 4 && pwrite(device, &slot, 4, (1ULL << 62) + DOORBELL) == 4, "the doorbell");
        for (int tries = 0; s.state <= RUNNING && tries < 10000; tries++) {
            must(pread(device, &s, sizeof s, (1ULL << 62) + STATUS) == sizeof s, "the status");
            usleep(1000);
        }
        must(s.state == DONE && !memcmp(here, here + PAGE, PAGE), round ? "a copy where the memory is now" : "a copy");
        if (round)
            break;
        answers(map_dma(VADDR, 0x10000, other, 2 * PAGE), EINVAL, "a move that was not announced");
        unmaps(VADDR, 0x10000, 2 * PAGE, 2 * PAGE, "announce it");
        answers(unmap_dma(VADDR, 0x10000, 2 * PAGE), EINVAL, "twice");
        answers(map_dma(VADDR, 0x10000, other, PAGE), EINVAL, "a part of it");
        answers(map_dma(VADDR, 0x10000, other, 2 * PAGE), 0, "move it");
        uint32_t acknowledge = 1;
        must(pwrite(device, &acknowledge, 4, (1ULL << 62) + CAUSE) == 4, "acknowledge");
    }
    close(device);
    finish();
}

/* A container holds 65535 entries and no more. */
static void entries_end(void) {
    begin(TYPE1v2);
    for (uint64_t count = 0; count < 65535; count++)
        must(!map_dma(READ, (count + 1) * PAGE, pages, PAGE), "an entry");
    answers(map_dma(READ, 0, pages, PAGE), ENOSPC, "one too many");
    unmaps(0, PAGE, PAGE, PAGE, "one less");
    answers(map_dma(READ, 0, pages, PAGE), 0, "and another");
    unmaps(ALL, 0, 0, 65535ULL * PAGE, "all");
    finish();
}

int main(void) {
    pages = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(pages != MAP_FAILED, "memory");
    refusals();
    whole_entries();
    what_it_tells();
    written_pages();
    memory_moves();
    entries_end();
    puts("type1: ok");
    return 0;
}
