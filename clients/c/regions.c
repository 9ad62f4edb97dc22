/* Device regions by every positioned read and write, whole, in part and not at all; and by mmap.
 *
 * usage: regions */
#define _GNU_SOURCE
#include "dma_engine.h"
#include <sys/uio.h>

static char *hole; /* a page nobody may touch, right behind one that everybody may */

/* `call` must have moved exactly `bytes`. */
static void moved(ssize_t call, ssize_t bytes, const char *what) {
    if (call == bytes)
        return;
    fprintf(stderr, "%s: %zd (%s), not %zd\n", what, call, call < 0 ? strerror(errno) : "", bytes);
    exit(1);
}

static void of_config(void) {
    uint8_t all[4096], parts[4096];
    moved(pread(device, all, sizeof all, config), sizeof all, "config by pread");
    struct iovec iov[3] = {{parts, 2}, {parts + 2, 0}, {parts + 2, 6}};
    moved(preadv(device, iov, 3, config), 8, "config by preadv");
    must(!memcmp(all, parts, 8), "preadv reads what pread reads");
    memset(parts, 0, sizeof parts);
    moved(preadv2(device, iov, 3, config, 0), 8, "config by preadv2");
    must(!memcmp(all, parts, 8), "preadv2 reads what pread reads");

    uint8_t line = 0x2a, latency = 0x40;
    struct iovec out[2] = {{&line, 1}, {&latency, 1}};
    moved(pwritev(device, out, 2, config + 0xc), 2, "config by pwritev");
    moved(pread(device, parts, 2, config + 0xc), 2, "config by pread");
    must(parts[0] == 0x2a && parts[1] == 0, "pwritev wrote; PCI Express has no latency timer");
    line = 0x15;
    moved(pwritev2(device, out, 2, config + 0xc, 0), 2, "config by pwritev2");
    moved(pread(device, parts, 2, config + 0xc), 2, "config by pread");
    must(parts[0] == 0x15, "pwritev2 wrote");

    moved(pread(device, parts, 0, config), 0, "no bytes");
    answers(pread(device, parts, 4, config + 4096), EFAULT, "behind config");
    answers(pread(device, parts, 8, config + 4092), EFAULT, "beyond config");
    answers(pread(device, parts, 4, bar0 + (10ull << 40)), EINVAL, "no such region");
    answers(pread(device, hole, 4, config), EFAULT, "into a hole");
    answers(pwrite(device, hole, 1, config + 0xc), EFAULT, "from a hole");
    struct iovec half[2] = {{parts, 4}, {hole, 4}};
    moved(preadv(device, half, 2, config), 4, "a hole in the second part");
    answers(preadv(device, (void *)hole, 1, config), EFAULT, "an iovec in a hole");
    static struct iovec many[IOV_MAX + 1];
    moved(preadv(device, many, IOV_MAX, config), 0, "as many parts as there may be");
    answers(preadv(device, many, IOV_MAX + 1, config), EINVAL, "too many parts");
}

static void of_bar(void) {
    uint64_t in[2] = {0x0123456789abcdef, 0xfedcba9876543210}, out[2] = {0};
    uint64_t window = bar0 + WINDOW, length = 0x10000;
    struct iovec from[2] = {{in, 12}, {(char *)in + 12, 4}}, to[2] = {{out, 4}, {(char *)out + 4, 12}};
    moved(pwritev(device, from, 2, window), 16, "BAR by pwritev");
    moved(preadv(device, to, 2, window), 16, "BAR by preadv");
    must(!memcmp(in, out, sizeof in), "preadv reads what pwritev wrote");
    memset(out, 0, sizeof out);
    moved(pwritev2(device, from, 2, window + 64, 0), 16, "BAR by pwritev2");
    moved(preadv2(device, to, 2, window + 64, 0), 16, "BAR by preadv2");
    must(!memcmp(in, out, sizeof in), "preadv2 reads what pwritev2 wrote");

    moved(pread(device, out, 16, bar0 + length - 4), 4, "clipped at the end");
    answers(pread(device, out, 4, bar0 + length), EINVAL, "behind the BAR");
    answers(pread(device, out, 4, region(1)), EINVAL, "a BAR that is not there");
    answers(pread(device, out, 4, region(6)), EINVAL, "no ROM");
    answers(pread(device, out, 4, bar0 + (8ull << 40)), EINVAL, "no VGA");
    answers(pread(device, hole - 8, 16, window), EFAULT, "partly into a hole");
    answers(pwrite(device, hole - 8, 16, window + 128), EFAULT, "partly from a hole");
    struct iovec half[2] = {{in, 8}, {hole, 8}};
    moved(pwritev(device, half, 2, window + 256), 8, "a hole in the second part");

    uint32_t scratch[2] = {7, 0};
    set_register(SCRATCH, 7);
    set_command(command() & ~2);
    answers(pread(device, out, 4, bar0 + SCRATCH), EIO, "memory decode is off: read");
    answers(pwrite(device, scratch, 4, bar0 + SCRATCH), EIO, "memory decode is off: write");
    set_command(MEMORY_AND_MASTER);
    moved(pread(device, &scratch[1], 4, bar0 + SCRATCH), 4, "memory decode is on again");
    must(scratch[1] == 7, "the register kept its value");
    uint32_t table;
    moved(pread(device, &table, 4, region(BAR2)), 4, "MSI-X table");
    must(table == UINT32_MAX, "the MSI-X table reads ones");
}

static void refused_map(uint64_t offset, uint64_t length, int flags, const char *what) {
    errno = 0;
    must(mmap(0, length, PROT_READ | PROT_WRITE, flags, device, offset) == MAP_FAILED && errno == EINVAL, what);
}

static void by_mmap(void) {
    uint64_t in = 0x5555aaaa5555aaaa, out;
    volatile uint64_t *page = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, device, bar0 + WINDOW);
    must(page != MAP_FAILED, "mmap of the window");
    moved(pwrite(device, &in, 8, bar0 + WINDOW), 8, "pwrite");
    must(page[0] == in, "the mapping sees pwrite");
    page[1] = ~in;
    moved(pread(device, &out, 8, bar0 + WINDOW + 8), 8, "pread");
    must(out == ~in, "pread sees the mapping");

    refused_map(bar0 + WINDOW, PAGE, MAP_PRIVATE, "a private mapping");
    refused_map(bar0 + 0xf000, 2 * PAGE, MAP_SHARED, "beyond the BAR");
    refused_map(bar0 + 0x10000, PAGE, MAP_SHARED, "behind the BAR");
    refused_map(bar0, PAGE, MAP_SHARED, "a page of registers");
    refused_map(config, PAGE, MAP_SHARED, "config space");
    refused_map(region(6), PAGE, MAP_SHARED, "the ROM");
    refused_map(region(1), PAGE, MAP_SHARED, "a BAR that is not there");
    refused_map(bar0 + WINDOW + 1, PAGE, MAP_SHARED, "half a page");
}

int main(void) {
    char byte[64];
    must((device = open(cdev(), O_RDWR)) >= 0, "open");
    answers(pread(device, byte, 4, (1ull << 62) + (7ull << 40)), EINVAL, "read before BIND");
    answers(ioctl(device, RESET), EINVAL, "RESET before BIND");
    refused_map(1ull << 62, PAGE, MAP_SHARED, "mmap before BIND");
    close(device);
    assign();
    hole = memory(2 * PAGE) + PAGE;
    must(!mprotect(hole, PAGE, PROT_NONE), "mprotect");
    of_config();
    of_bar();
    by_mmap();
    printf("ok\n");
    return 0;
}
