/* Maps a guest's memory as a VMM does, and takes it away again; says how long each step took.
 *
 * usage: client SHAPE    shapes: sections (50 pieces), shifted (the same, off by a page from what large leaves need),
 *                        pieces (2 MiB at a time)
 * After each step a line NAME ns count, then a line on standard input lets it go on. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

struct bind { uint32_t argsz, flags; int32_t iommufd; uint32_t out_devid; };
struct ioas_alloc { uint32_t size, flags, out_ioas_id; };
struct attach { uint32_t argsz, flags, pt_id; };
struct map { uint32_t size, flags, ioas_id, reserved; uint64_t user_va, length, iova; };
struct unmap { uint32_t size, ioas_id; uint64_t iova, length; };

enum { IOAS_ALLOC = 0x3b81, IOAS_MAP = 0x3b85, IOAS_UNMAP = 0x3b86, BIND = 0x3b76, ATTACH = 0x3b77 };
enum { FIXED_READ_WRITE = 7, PAGE = 4096, SMALL_SECTIONS = 48, ROUNDS = 5 };
#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define BYTES (64 * GIB)

static int iommu, device;
static uint32_t ioas;
static char *memory;

static void must(int answer, const char *what) {
    if (answer < 0) {
        perror(what);
        exit(1);
    }
}

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void told(const char *name, uint64_t ns, int count) {
    char line[16];
    printf("%s %llu %d\n", name, (unsigned long long)ns, count);
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        exit(1);
}

static int map(uint64_t offset, uint64_t iova, uint64_t length) {
    struct map m = {sizeof m, FIXED_READ_WRITE, ioas, 0, (uintptr_t)memory + offset, length, iova};
    must(ioctl(iommu, IOAS_MAP, &m), "IOAS_MAP");
    return 1;
}

/* RAM below and above 4 GiB, and small sections of 2 MiB between, as of ROMs and devices. */
static int map_sections(uint64_t shift) {
    int count = map(0, shift, 2 * GIB);
    for (int i = 0; i < SMALL_SECTIONS; i++)
        count += map(2 * GIB + i * 2 * MIB, 0xc0000000ull + i * 8 * MIB + shift, 2 * MIB);
    uint64_t done = 2 * GIB + SMALL_SECTIONS * 2 * MIB;
    return count + map(done, 4 * GIB + shift, BYTES - done);
}

static int map_pieces(void) {
    int count = 0;
    for (uint64_t at = 0; at < BYTES; at += 2 * MIB)
        count += map(at, 4 * GIB + at, 2 * MIB);
    return count;
}

static void unmap_all(void) {
    struct unmap u = {sizeof u, ioas, 0, UINT64_MAX};
    must(ioctl(iommu, IOAS_UNMAP, &u), "IOAS_UNMAP");
    if (u.length != BYTES)
        exit(1);
}

int main(int argc, char **argv) {
    const char *shape = argc > 1 ? argv[1] : "";
    char *all = mmap(0, BYTES + GIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED)
        must(-1, "mmap");
    memory = (char *)(((uintptr_t)all + GIB - 1) & ~(GIB - 1));
    must(device = open("/dev/vfio/devices/vfio0", O_RDWR | O_CLOEXEC), "open cdev");
    must(iommu = open("/dev/iommu", O_RDWR | O_CLOEXEC), "open /dev/iommu");
    struct bind b = {sizeof b, 0, iommu, 0};
    must(ioctl(device, BIND, &b), "BIND");
    struct ioas_alloc a = {sizeof a, 0, 0};
    must(ioctl(iommu, IOAS_ALLOC, &a), "IOAS_ALLOC");
    ioas = a.out_ioas_id;
    struct attach t = {sizeof t, 0, ioas};
    must(ioctl(device, ATTACH, &t), "ATTACH");
    told("attached", 0, 0);
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = now();
        int count = !strcmp(shape, "pieces") ? map_pieces() : map_sections(strcmp(shape, "shifted") ? 0 : PAGE);
        told("mapped", now() - start, count);
        start = now();
        unmap_all();
        told("unmapped", now() - start, 1);
    }
    return 0;
}
