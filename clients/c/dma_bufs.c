/* One device's DMA to another's BAR, through a dma-buf of it, until the BAR's owner takes it away: by COMMAND, by RESET, by
 * its last close, by the death of the process that had it. A descriptor of the dma-buf may live longer.
 *
 * usage: dma_bufs */
#define _GNU_SOURCE
#include "dma_engine.h"
#include <signal.h>
#include <sys/wait.h>

struct feature { uint32_t argsz, flags, region_index, open_flags, buf_flags, nr_ranges; uint64_t ranges[2][2]; };
struct map_file { uint32_t size, flags, ioas_id; int32_t fd; uint64_t start, length, iova; };
struct unmap { uint32_t size, ioas_id; uint64_t iova, length; };

enum { FEATURE = 0x3b75, IOAS_UNMAP = 0x3b86, IOAS_MAP_FILE = 0x3b8f, GET_DMA_BUF = 1 << 16 | 11, PROBE_DMA_BUF = 1 << 18 | 11 };
enum { MEMORY = 0x100000, PEER = 0x200000, BYTES = 64 };

static char *bytes;
static int lender; /* the device whose BAR is lent */
static uint64_t lender_bar0, lender_config;
static volatile uint64_t *window; /* of its BAR, where that is memory */

static void open_lender(void) {
    must((lender = open("/dev/vfio/devices/vfio3", O_RDWR | O_CLOEXEC)) >= 0, "open the lender");
    struct bind bind = {sizeof bind, 0, iommu, 0};
    must(!ioctl(lender, BIND, &bind), "BIND of the lender");
    struct region_info info = {sizeof info, 0, BAR0, 0, 0, 0};
    must(!ioctl(lender, REGION_INFO, &info), "GET_REGION_INFO");
    lender_bar0 = info.offset;
    info = (struct region_info){sizeof info, 0, CONFIG, 0, 0, 0};
    must(!ioctl(lender, REGION_INFO, &info), "GET_REGION_INFO");
    lender_config = info.offset;
    window = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, lender, lender_bar0 + WINDOW);
    must(window != MAP_FAILED, "mmap of the lender's window");
}

static void close_lender(void) {
    munmap((void *)window, PAGE);
    close(lender);
}

static void lender_decodes(int on) {
    uint16_t value = on ? 2 : 0;
    must(pwrite(lender, &value, sizeof value, lender_config + COMMAND) == sizeof value, "COMMAND");
}

static int lend(uint32_t open_flags, uint64_t offset, uint64_t length) {
    struct feature feature = {40, GET_DMA_BUF, BAR0, open_flags, 0, 1, {{offset, length}, {0}}};
    return ioctl(lender, FEATURE, &feature);
}

static int map_lent(int fd, uint64_t start, uint64_t length) {
    struct map_file map = {sizeof map, MAP_ALL, ioas, fd, start, length, PEER};
    return ioctl(iommu, IOAS_MAP_FILE, &map);
}

static void unmap_lent(void) {
    struct unmap unmap = {sizeof unmap, ioas, PEER, PAGE};
    must(!ioctl(iommu, IOAS_UNMAP, &unmap), "IOAS_UNMAP");
}

/* Whether the engine can write what is in memory to the lent page. */
static int reaches(void) {
    static uint64_t turn;
    *(uint64_t *)bytes = ++turn;
    start(0, (struct descriptor){.operation = COPY, .length = BYTES, .source = MEMORY, .destination = PEER});
    return end(0) == DONE;
}

static void is_reached(const char *when) {
    must(reaches() && *window == *(uint64_t *)bytes, when);
}

static void is_not_reached(const char *when) {
    must(!reaches(), when);
}

static void is_asked_for(void) {
    struct feature probe = {8, PROBE_DMA_BUF, 0, 0, 0, 0, {{0}}};
    answers(ioctl(lender, FEATURE, &probe), 0, "PROBE");
    answers(lend(0, WINDOW + 1, PAGE), EINVAL, "half a page");
    answers(lend(0, 0x10000, PAGE), EINVAL, "behind the BAR");
    int fd = lend(O_RDWR | O_CLOEXEC, WINDOW, PAGE);
    must(fd > 2 && fcntl(fd, F_GETFD) == FD_CLOEXEC && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR, "a closing file");
    int other = lend(O_RDONLY, WINDOW, PAGE);
    must(other > fd && fcntl(other, F_GETFD) == 0 && (fcntl(other, F_GETFL) & O_ACCMODE) == O_RDONLY, "a file");
    close(other);
    close(fd);
    struct feature two = {56, GET_DMA_BUF, BAR0, 0, 0, 2, {{WINDOW, PAGE}, {WINDOW, PAGE}}};
    must((fd = ioctl(lender, FEATURE, &two)) >= 0, "two ranges");
    answers(map_lent(fd, 0, PAGE), EOPNOTSUPP, "two ranges in an address space");
    close(fd);
}

static void follows_the_lender(void) {
    int fd = lend(O_RDWR | O_CLOEXEC, WINDOW, PAGE);
    answers(map_lent(fd, 0, PAGE + 1), EINVAL, "more than there is");
    answers(map_lent(fd, 0, PAGE), 0, "MAP_FILE");
    is_reached("lent");
    lender_decodes(0);
    is_not_reached("while memory decode is off");
    answers(map_lent(fd, 0, PAGE), ENODEV, "while memory decode is off");
    lender_decodes(1);
    is_not_reached("what was mapped does not come back");
    unmap_lent();
    answers(map_lent(fd, 0, PAGE), 0, "mapped again");
    is_reached("mapped again");
    answers(ioctl(lender, RESET), 0, "RESET");
    is_not_reached("after RESET");
    unmap_lent();
    answers(map_lent(fd, 0, PAGE), 0, "mapped after RESET");
    int copy = dup(fd);
    close(fd);
    close(copy);
    is_reached("mapped, and no file is left");
    unmap_lent();
}

static void outlives_the_lender(void) {
    int fd = lend(O_RDWR | O_CLOEXEC, WINDOW, PAGE), copy = dup(fd);
    answers(map_lent(fd, 0, PAGE), 0, "MAP_FILE");
    close(fd);
    close_lender();
    is_not_reached("after the lender's last close");
    unmap_lent();
    answers(map_lent(copy, 0, PAGE), ENODEV, "after the lender's last close");
    open_lender();
    answers(map_lent(copy, 0, PAGE), ENODEV, "of a file before");
    close(copy);
}

/* A child has the lender and lends; what it mapped in our address space ends with it. */
static void ends_with_its_process(void) {
    int said[2];
    char byte;
    must(!pipe(said), "pipe");
    close_lender();
    pid_t child = fork();
    if (!child) {
        open_lender();
        int fd = lend(O_RDWR, WINDOW, PAGE);
        must(!map_lent(fd, 0, PAGE), "MAP_FILE of the child");
        must(write(said[1], "", 1) == 1, "write");
        pause();
    }
    must(read(said[0], &byte, 1) == 1, "read");
    must(reaches(), "lent by a child");
    kill(child, SIGKILL);
    must(waitpid(child, 0, 0) == child, "waitpid");
    open_lender();
    is_not_reached("after the child's death");
    unmap_lent();
}

int main(void) {
    assign();
    open_lender();
    bytes = memory(PAGE);
    map(bytes, PAGE, MEMORY, MAP_ALL);
    is_asked_for();
    follows_the_lender();
    outlives_the_lender();
    ends_with_its_process();
    printf("ok\n");
    return 0;
}
