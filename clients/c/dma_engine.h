/* What the C clients here share: an assigned DMA engine (docs/dma-engine.md) as `assign` leaves it, and ways to use it.
 * Every function ends the program with a message where the unexpected happens. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct bind { uint32_t argsz, flags; int32_t iommufd; uint32_t out_devid; };
struct ioas_alloc { uint32_t size, flags, out_ioas_id; };
struct attach { uint32_t argsz, flags, pt_id; };
struct map { uint32_t size, flags, ioas_id, reserved; uint64_t user_va, length, iova; };
struct region_info { uint32_t argsz, flags, index, cap_offset; uint64_t size, offset; };
struct irq_info { uint32_t argsz, flags, index, count; };
struct irq_set { uint32_t argsz, flags, index, start, count; int32_t fds[4]; };

enum { IOAS_ALLOC = 0x3b81, IOAS_MAP = 0x3b85, REGION_INFO = 0x3b6c, IRQ_INFO = 0x3b6d, SET_IRQS = 0x3b6e, RESET = 0x3b6f, BIND = 0x3b76, ATTACH = 0x3b77 };
enum { MAP_FIXED_IOVA = 1, MAP_WRITE = 2, MAP_READ = 4, MAP_ALL = MAP_FIXED_IOVA | MAP_WRITE | MAP_READ };
enum { BAR0 = 0, BAR2 = 2, CONFIG = 7, COMMAND = 4, MEMORY_AND_MASTER = 6, INTX_DISABLE = 0x400 };
enum { DATA_NONE = 1, DATA_BOOL = 2, DATA_EVENTFD = 4, MASK = 8, UNMASK = 16, TRIGGER = 32, INTX = 0, MSI = 1, MSIX = 2, ERR = 3, REQ = 4 };
enum { DESCRIPTORS = 0x1000, STATUS = 0x1800, WINDOW = 0x2000, CONTROL = 0x20, DOORBELL = 0x28, CAUSE = 0x30, SCRATCH = 0x50, PAGE = 4096 };
enum { NOP = 1, COPY = 2, FILL = 3, INTERRUPT = 1, RUNNING = 2, DONE = 3, FAULT = 4 };

struct descriptor { uint32_t operation, flags, vector, length; uint64_t source, destination, pattern; uint32_t window, reserved0; uint64_t cookie, reserved1; };
struct status { uint32_t state, reason; uint64_t fault_address; uint32_t fault_access, bytes_done; uint64_t cookie; };

static int iommu, device;
static uint32_t ioas, device_id;
static uint64_t bar0, config;
static volatile struct descriptor *descriptors;
static volatile struct status *statuses;

__attribute__((unused)) static void must(int holds, const char *what) {
    if (holds)
        return;
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

/* `call` must have failed with `expected`; an `expected` of 0 means that it must have returned 0. */
__attribute__((unused)) static void answers(long call, int expected, const char *what) {
    int got = call < 0 ? errno : call ? -(int)call : 0;
    if (got == expected)
        return;
    fprintf(stderr, "%s: %d (%s), not %d (%s)\n", what, got, strerror(got), expected, strerror(expected));
    exit(1);
}

__attribute__((unused)) static const char *cdev(void) {
    const char *path = getenv("BINDERY_CDEV");
    return path ? path : "/dev/vfio/devices/vfio0";
}

__attribute__((unused)) static uint64_t region(uint32_t index) {
    struct region_info info = {sizeof info, 0, index, 0, 0, 0};
    must(!ioctl(device, REGION_INFO, &info), "GET_REGION_INFO");
    return info.offset;
}

__attribute__((unused)) static void set_register(uint64_t offset, uint32_t value) {
    must(pwrite(device, &value, sizeof value, bar0 + offset) == sizeof value, "register write");
}

__attribute__((unused)) static uint16_t command(void) {
    uint16_t value;
    must(pread(device, &value, sizeof value, config + COMMAND) == sizeof value, "read of COMMAND");
    return value;
}

__attribute__((unused)) static void set_command(uint16_t value) {
    must(pwrite(device, &value, sizeof value, config + COMMAND) == sizeof value, "write of COMMAND");
}

/* Opens, binds, attaches an IOAS of its own, lets the engine work. */
__attribute__((unused)) static void assign(void) {
    must((device = open(cdev(), O_RDWR | O_CLOEXEC)) >= 0, "open the device");
    must((iommu = open("/dev/iommu", O_RDWR | O_CLOEXEC)) >= 0, "open /dev/iommu");
    struct bind bind = {sizeof bind, 0, iommu, 0};
    must(!ioctl(device, BIND, &bind), "BIND");
    device_id = bind.out_devid;
    struct ioas_alloc alloc = {sizeof alloc, 0, 0};
    must(!ioctl(iommu, IOAS_ALLOC, &alloc), "IOAS_ALLOC");
    ioas = alloc.out_ioas_id;
    struct attach attach = {sizeof attach, 0, ioas};
    must(!ioctl(device, ATTACH, &attach), "ATTACH");
    bar0 = region(BAR0);
    config = region(CONFIG);
    set_command(MEMORY_AND_MASTER);
    char *page = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, device, bar0 + DESCRIPTORS);
    must(page != MAP_FAILED, "mmap of BAR 0");
    descriptors = (void *)page;
    statuses = (void *)(page + STATUS - DESCRIPTORS);
    set_register(CONTROL, 1);
}

__attribute__((unused)) static char *memory(uint64_t bytes) {
    char *at = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(at != MAP_FAILED, "mmap");
    return at;
}

__attribute__((unused)) static int try_map(void *at, uint64_t bytes, uint64_t to, uint32_t flags) {
    struct map map = {sizeof map, flags, ioas, 0, (uintptr_t)at, bytes, to};
    return ioctl(iommu, IOAS_MAP, &map);
}

__attribute__((unused)) static void map(void *at, uint64_t bytes, uint64_t to, uint32_t flags) {
    must(!try_map(at, bytes, to, flags), "IOAS_MAP");
}

__attribute__((unused)) static void start(uint32_t slot, struct descriptor what) {
    descriptors[slot] = what;
    set_register(DOORBELL, slot);
}

/* The state in which the slot's work ended. */
__attribute__((unused)) static uint32_t end(uint32_t slot) {
    for (int tenths_ms = 0; tenths_ms < 200000; tenths_ms++) {
        uint32_t state = statuses[slot].state;
        if (state > RUNNING)
            return state;
        nanosleep(&(struct timespec){0, 100000}, 0);
    }
    fprintf(stderr, "the engine hangs\n");
    exit(1);
}

/* An eventfd that nobody waits for by read. */
__attribute__((unused)) static int event(void) {
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    must(fd >= 0, "eventfd");
    return fd;
}

/* How often it was signalled since last asked; waits up to `ms` for the first. */
__attribute__((unused)) static uint64_t signals(int fd, int ms) {
    uint64_t count = 0;
    struct pollfd waiting = {fd, POLLIN, 0};
    if (poll(&waiting, 1, ms) == 1)
        must(read(fd, &count, sizeof count) == sizeof count, "read of an eventfd");
    return count;
}

/* SET_IRQS with as many of `fds` as `count` says. */
__attribute__((unused)) static int set_irqs(uint32_t index, uint32_t flags, uint32_t first, uint32_t count, const int *fds) {
    struct irq_set set = {20 + (fds ? 4 * count : 0), flags, index, first, count, {0}};
    if (fds)
        memcpy(set.fds, fds, 4 * count);
    return ioctl(device, SET_IRQS, &set);
}
