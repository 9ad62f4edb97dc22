/* Throws pseudo-random calls at both kinds of file: any command number, sizes, structs and pointers good and bad, device reads, writes and
 * maps anywhere, closes in between. Errors are fine; what must not happen is a hang or a signal. Ends with a proper bind and use.
 *
 * usage: nonsense SEED COUNT */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

struct bind { uint32_t argsz, flags; int32_t iommufd; uint32_t out_devid; };
struct ioas_alloc { uint32_t size, flags, out_ioas_id; };
struct attach { uint32_t argsz, flags, pt_id; };
struct irq_info { uint32_t argsz, flags, index, count; };
enum { IOAS_ALLOC = 0x3b81, IRQ_INFO = 0x3b6d, BIND = 0x3b76, ATTACH = 0x3b77, PAGE = 4096 };
#define REGION_BASE (1ull << 62)
#define REGION_SHIFT 40

static uint64_t state;
static uint64_t any(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
}
static uint64_t below(uint64_t limit) { return any() % limit; }

/* Small numbers mostly: ids, flags, indexes and counts are. */
static uint64_t number(void) {
    switch (below(8)) {
    case 0: return any();
    case 1: return 1ull << below(64);
    case 2: return -(int64_t)below(16);
    case 3: return below(4) * PAGE;
    default: return below(16);
    }
}

static int iommu = -1, device = -1, event = -1;
static char *page, *sealed_page;

static const char *device_path(void) {
    const char *path = getenv("BINDERY_CDEV");
    return path ? path : "/dev/vfio/devices/vfio0";
}

static void reopen(void) {
    if (iommu < 0 || !below(3)) {
        close(iommu);
        iommu = open("/dev/iommu", O_RDWR | O_CLOEXEC);
    }
    if (device < 0 || !below(3)) {
        close(device);
        device = open(device_path(), O_RDWR | O_CLOEXEC);
    }
    struct bind bind = {sizeof bind, 0, iommu, 0};
    ioctl(device, BIND, &bind);
    struct ioas_alloc alloc = {sizeof alloc, 0, 0};
    ioctl(iommu, IOAS_ALLOC, &alloc);
    struct attach attach = {sizeof attach, 0, alloc.out_ioas_id};
    ioctl(device, ATTACH, &attach);
}

/* A struct of numbers, at the end of a page that nothing follows or elsewhere; or no struct at all. */
static void *argument(void) {
    uint32_t size = below(3) ? (uint32_t)below(13) * 4 : (uint32_t)number();
    uint32_t words[32];
    for (int i = 0; i < 32; i++)
        words[i] = (uint32_t)number();
    words[0] = size;
    if (!below(3))
        words[2 + below(3)] = below(2) ? iommu : event;
    switch (below(10)) {
    case 0: return 0;
    case 1: return (void *)number();
    case 2: return sealed_page;
    case 3: {
        uint32_t room = 4 * (uint32_t)below(33);
        memcpy(page + PAGE - room, words, room);
        return page + PAGE - room;
    }
    default:
        if (below(2)) /* pointers inside the struct */
            *(uint64_t *)(words + 2 + 2 * below(4)) = (uintptr_t)(page + below(PAGE));
        memcpy(page, words, sizeof words);
        return page;
    }
}

static void one(void) {
    int fd = below(2) ? iommu : device;
    off_t offset = (off_t)(REGION_BASE + (below(12) << REGION_SHIFT) + (below(4) ? below(0x1200) : number()));
    struct iovec parts[3] = {{page, below(64)}, {page + PAGE - 8, below(32)}, {(void *)number(), below(8)}};
    switch (below(16)) {
    case 0: reopen(); break;
    case 1: (void)!pread(device, page, below(PAGE), offset); break;
    case 2: (void)!pwrite(device, page, below(16), offset); break;
    case 3: (void)!preadv(device, parts, (int)below(5), offset); break;
    case 4: (void)!pwritev(device, parts, (int)below(4), offset); break;
    case 5: (void)!pread(device, (void *)number(), below(64), offset); break;
    case 6: {
        size_t length = below(8) * PAGE;
        void *map = mmap(0, length, (int)below(8), below(4) ? MAP_SHARED : MAP_PRIVATE, fd, (off_t)((uint64_t)offset & ~(PAGE - 1ull)));
        if (map != MAP_FAILED)
            munmap(map, length);
        break;
    }
    case 7: ioctl(fd, (uint32_t)any(), argument()); break;
    default: ioctl(fd, 0x3b00 | (below(6) ? (below(2) ? 0x80 + below(24) : 0x64 + below(24)) : below(256)), argument()); break;
    }
}

int main(int argc, char **argv) {
    state = argc > 1 ? strtoull(argv[1], 0, 0) * 2654435769u + 1 : 1;
    long count = argc > 2 ? atol(argv[2]) : 10000;
    page = mmap(0, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sealed_page = mmap(0, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + PAGE, PAGE);
    event = eventfd(0, EFD_CLOEXEC);
    alarm(300);
    for (long i = 0; i < count; i++)
        one();

    close(device), close(iommu);
    device = open(device_path(), O_RDWR), iommu = open("/dev/iommu", O_RDWR);
    struct bind bind = {sizeof bind, 0, iommu, 0};
    struct irq_info irq = {sizeof irq, 0, 2, 0};
    if (ioctl(device, BIND, &bind) || ioctl(device, IRQ_INFO, &irq) || !irq.count) {
        perror("a proper bind afterwards");
        return 1;
    }
    printf("%ld calls\n", count);
    return 0;
}
