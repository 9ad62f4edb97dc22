/* Times single calls from inside the client and prints one line a measure: NAME p50_ns p90_ns.
 *
 * usage: client MEASURE...   measures: map_fixed map_auto irq_info bar read4k write4k getppid fstat open stat write5
 * With `noop` as the first argument, the ioctls go to a supervisor that answers everything with 0. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct bind { uint32_t argsz, flags; int32_t iommufd; uint32_t out_devid; };
struct ioas_alloc { uint32_t size, flags, out_ioas_id; };
struct attach { uint32_t argsz, flags, pt_id; };
struct map { uint32_t size, flags, ioas_id, reserved; uint64_t user_va, length, iova; };
struct unmap { uint32_t size, ioas_id; uint64_t iova, length; };
struct irq_info { uint32_t argsz, flags, index, count; };
struct region_info { uint32_t argsz, flags, index, cap_offset; uint64_t size, offset; };
struct sparse { struct region_info info; uint16_t id, version; uint32_t next, nr_areas, reserved; uint64_t area_offset, area_size; char more[256]; };

enum { IOAS_ALLOC = 0x3b81, IOAS_MAP = 0x3b85, IOAS_UNMAP = 0x3b86, REGION_INFO = 0x3b6c, IRQ_INFO = 0x3b6d, BIND = 0x3b76, ATTACH = 0x3b77 };
enum { MAP_FIXED_IOVA = 1, MAP_WRITE = 2, MAP_READ = 4 };
enum { PAGE = 4096, FILE_PAGES = 64, WARMUP = 500 };

static int iommu = 0, device = 0, noop;
static uint32_t ioas = 1;
static char *page;

static void fail(const char *what) { perror(what); exit(1); }
static void must(int answer, const char *what) { if (answer < 0) fail(what); }

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Runs `call` `count` times in batches of `batch`, prints the median and the ninth decile of a single one. */
static void measure(const char *name, int count, int batch, void (*call)(void), void (*undo)(void)) {
    uint64_t *ns = malloc(sizeof *ns * count);
    for (int i = -WARMUP / batch; i < count; i++) {
        uint64_t start = now();
        for (int k = 0; k < batch; k++)
            call();
        uint64_t spent = now() - start;
        if (undo)
            undo();
        if (i >= 0)
            ns[i] = spent;
    }
    qsort(ns, count, sizeof *ns, ascending);
    printf("%s %.1f %.1f\n", name, (double)ns[count / 2] / batch, (double)ns[count * 9 / 10] / batch);
    free(ns);
}

static void map(uint32_t flags) {
    struct map m = {sizeof m, flags | MAP_WRITE | MAP_READ, ioas, 0, (uintptr_t)page, PAGE, 0x100000};
    must(ioctl(iommu, IOAS_MAP, &m), "IOAS_MAP");
}
static void map_fixed(void) { map(MAP_FIXED_IOVA); }
static void map_auto(void) { map(0); }
static void unmap_all(void) {
    struct unmap u = {sizeof u, ioas, 0, UINT64_MAX};
    must(ioctl(iommu, IOAS_UNMAP, &u), "IOAS_UNMAP");
}
static void irq_info(void) {
    struct irq_info i = {sizeof i, 0, 2, 0};
    must(ioctl(device, IRQ_INFO, &i), "GET_IRQ_INFO");
}

static volatile uint32_t *bar, *plain;
static void bar_access(void) { *bar = *bar + 1; }
static void plain_access(void) { *plain = *plain + 1; }

static int file;
static char block[PAGE];
static void read4k(void) { must(pread(file, block, PAGE, 0), "pread"); }
static void write4k(void) { must(pwrite(file, block, PAGE, 0), "pwrite"); }
/* Sequential, as programs read and write: one seek back every FILE_PAGES calls. */
static int at_page;
static void rewind_at_end(void) {
    if (at_page++ % FILE_PAGES == 0)
        lseek(file, 0, SEEK_SET);
}
static void sread4k(void) { rewind_at_end(); must(read(file, block, PAGE) == PAGE ? 0 : -1, "read"); }
static void swrite4k(void) { rewind_at_end(); must(write(file, block, PAGE) == PAGE ? 0 : -1, "write"); }
static void ppid(void) { syscall(SYS_getppid); }
static void fstat_file(void) { struct stat s; must(fstat(file, &s), "fstat"); }
static void stat_path(void) { struct stat s; must(stat("/etc/passwd", &s), "stat"); }
static void open_path(void) { int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC); must(fd, "open"); close(fd); }
static void write5(void) { must(write(file, "12345", 5), "write"); }
static void write8(void) { must(write(file, "12345678", 8), "write"); }

static void assign(void) {
    if (noop || device)
        return;
    const char *path = getenv("BINDERY_CDEV");
    must(device = open(path ? path : "/dev/vfio/devices/vfio0", O_RDWR | O_CLOEXEC), "open cdev");
    must(iommu = open("/dev/iommu", O_RDWR | O_CLOEXEC), "open /dev/iommu");
    struct bind b = {sizeof b, 0, iommu, 0};
    must(ioctl(device, BIND, &b), "BIND");
    struct ioas_alloc a = {sizeof a, 0, 0};
    must(ioctl(iommu, IOAS_ALLOC, &a), "IOAS_ALLOC");
    ioas = a.out_ioas_id;
    struct attach t = {sizeof t, 0, ioas};
    must(ioctl(device, ATTACH, &t), "ATTACH");
}

static void map_bar(void) {
    struct sparse s = {.info = {.argsz = sizeof s, .index = 0}};
    must(ioctl(device, REGION_INFO, &s), "GET_REGION_INFO");
    if (!s.info.cap_offset || s.id != 1 || !s.nr_areas) {
        fprintf(stderr, "BAR 0 has no sparse areas\n");
        exit(1);
    }
    bar = mmap(0, s.area_size, PROT_READ | PROT_WRITE, MAP_SHARED, device, s.info.offset + s.area_offset);
    plain = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (bar == MAP_FAILED || plain == MAP_FAILED)
        fail("mmap");
}

int main(int argc, char **argv) {
    int first = 1;
    if (argc > 1 && !strcmp(argv[1], "noop"))
        noop = first++;
    page = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    char name[] = "/tmp/bindery-bench-XXXXXX";
    must(file = mkstemp(name), "mkstemp");
    unlink(name);
    for (int i = 0; i < FILE_PAGES; i++)
        must(pwrite(file, block, PAGE, (off_t)i * PAGE), "pwrite");
    for (int i = first; i < argc; i++) {
        const char *m = argv[i];
        if (!strcmp(m, "map_fixed")) { assign(); measure(m, 4000, 1, map_fixed, noop ? 0 : unmap_all); }
        else if (!strcmp(m, "map_auto")) { assign(); measure(m, 4000, 1, map_auto, noop ? 0 : unmap_all); }
        else if (!strcmp(m, "irq_info")) { assign(); measure(m, 4000, 1, irq_info, 0); }
        else if (!strcmp(m, "bar")) { assign(); map_bar(); measure("bar", 400, 10000, bar_access, 0); measure("memory", 400, 10000, plain_access, 0); }
        else if (!strcmp(m, "pread4k")) measure(m, 400, 100, read4k, 0);
        else if (!strcmp(m, "pwrite4k")) measure(m, 400, 100, write4k, 0);
        else if (!strcmp(m, "read4k")) measure(m, 400, 100, sread4k, 0);
        else if (!strcmp(m, "write4k")) measure(m, 400, 100, swrite4k, 0);
        else if (!strcmp(m, "getppid")) measure(m, 400, 1000, ppid, 0);
        else if (!strcmp(m, "fstat")) measure(m, 1000, 10, fstat_file, 0);
        else if (!strcmp(m, "stat")) measure(m, 1000, 10, stat_path, 0);
        else if (!strcmp(m, "open")) measure(m, 1000, 10, open_path, 0);
        else if (!strcmp(m, "write5")) measure(m, 1000, 10, write5, 0);
        else if (!strcmp(m, "write8")) measure(m, 1000, 10, write8, 0);
        else { fprintf(stderr, "unknown measure %s\n", m); return 2; }
    }
    if (noop)
        ioctl(0, IOAS_MAP, 0);
    return 0;
}
