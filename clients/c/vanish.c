/* Takes memory away while the DMA engine (docs/dma-engine.md) writes to it, then shows that the engine still works with other memory.
 * Prints how the interrupted work ended: "done", or "fault REASON".
 *
 * usage: vanish HOW     truncate: a mapped memfd is truncated         unmap: munmap           exit: the mapping process exits
 *                       truncate-file: as truncate, given by MAP_FILE  punch: a hole is punched  punch-file: in a sealed file, MAP_FILE
 *                       protect: mprotect(PROT_NONE)                   exec: the mapping process execs
 *                       exit-shared: as exit, and others share the memory */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct bind { uint32_t argsz, flags; int32_t iommufd; uint32_t out_devid; };
struct ioas_alloc { uint32_t size, flags, out_ioas_id; };
struct attach { uint32_t argsz, flags, pt_id; };
struct map { uint32_t size, flags, ioas_id, reserved; uint64_t user_va, length, iova; };
struct map_file { uint32_t size, flags, ioas_id; int32_t fd; uint64_t start, length, iova; };
struct unmap { uint32_t size, ioas_id; uint64_t iova, length; };
struct region_info { uint32_t argsz, flags, index, cap_offset; uint64_t size, offset; };

enum { IOAS_ALLOC = 0x3b81, IOAS_MAP = 0x3b85, IOAS_UNMAP = 0x3b86, IOAS_MAP_FILE = 0x3b8f, REGION_INFO = 0x3b6c, BIND = 0x3b76, ATTACH = 0x3b77 };
enum { MAP_FLAGS = 7 /* fixed, read, write */, BAR0 = 0, CONFIG = 7, COMMAND = 4, MEMORY_AND_MASTER = 6 };
enum { DESCRIPTORS = 0x1000, STATUS = 0x1800, CONTROL = 0x20, DOORBELL = 0x28, FILL = 3, COPY = 2, PAGE = 4096 };
enum { PENDING = 1, RUNNING = 2, DONE = 3, FAULT = 4 };

struct descriptor { uint32_t operation, flags, vector, length; uint64_t source, destination, pattern; uint32_t window, reserved0; uint64_t cookie, reserved1; };
struct status { uint32_t state, reason; uint64_t fault_address; uint32_t fault_access, bytes_done; uint64_t cookie; };

static const uint64_t length = 256 << 20, iova = 0x100000000, other_iova = 0x200000000;
static int iommu, device, memfd = -1;
static uint32_t ioas;
static uint64_t bar0;
static volatile struct descriptor *descriptors;
static volatile struct status *statuses;
static char *memory;

static void must(int holds, const char *what) {
    if (holds)
        return;
    perror(what);
    exit(1);
}

static uint64_t region(uint32_t index) {
    struct region_info info = {sizeof info, 0, index, 0, 0, 0};
    must(!ioctl(device, REGION_INFO, &info), "GET_REGION_INFO");
    return info.offset;
}

static void set_register(uint64_t offset, uint32_t value) {
    must(pwrite(device, &value, sizeof value, bar0 + offset) == sizeof value, "register write");
}

static void assign(void) {
    const char *path = getenv("BINDERY_CDEV");
    must((device = open(path ? path : "/dev/vfio/devices/vfio0", O_RDWR)) >= 0, "open the device");
    must((iommu = open("/dev/iommu", O_RDWR)) >= 0, "open /dev/iommu");
    struct bind bind = {sizeof bind, 0, iommu, 0};
    must(!ioctl(device, BIND, &bind), "BIND");
    struct ioas_alloc alloc = {sizeof alloc, 0, 0};
    must(!ioctl(iommu, IOAS_ALLOC, &alloc), "IOAS_ALLOC");
    ioas = alloc.out_ioas_id;
    struct attach attach = {sizeof attach, 0, ioas};
    must(!ioctl(device, ATTACH, &attach), "ATTACH");
    bar0 = region(BAR0);
    uint16_t command = MEMORY_AND_MASTER;
    must(pwrite(device, &command, sizeof command, region(CONFIG) + COMMAND) == sizeof command, "COMMAND");
    char *page = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, device, bar0 + DESCRIPTORS);
    must(page != MAP_FAILED, "mmap of BAR 0");
    descriptors = (void *)page;
    statuses = (void *)(page + STATUS - DESCRIPTORS);
    set_register(CONTROL, 1);
}

static void map(char *at, uint64_t bytes, uint64_t to) {
    struct map map = {sizeof map, MAP_FLAGS, ioas, 0, (uintptr_t)at, bytes, to};
    must(!ioctl(iommu, IOAS_MAP, &map), "IOAS_MAP");
}

static void start(uint32_t slot, uint32_t operation, uint64_t source, uint64_t destination, uint32_t bytes) {
    volatile struct descriptor *d = &descriptors[slot];
    d->operation = operation, d->flags = 0, d->vector = 0, d->length = bytes, d->source = source, d->destination = destination;
    d->pattern = 0x5a5a5a5a5a5a5a5a;
    set_register(DOORBELL, slot);
}

static uint32_t end(uint32_t slot) {
    for (int tenths_ms = 0; tenths_ms < 200000; tenths_ms++) {
        uint32_t state = statuses[slot].state;
        if (state > RUNNING)
            return state;
        nanosleep(&(struct timespec){0, 100000}, 0);
    }
    fprintf(stderr, "the engine hangs\n");
    exit(1);
}

static void wait_running(void) {
    while (statuses[0].state <= RUNNING && statuses[0].bytes_done == 0)
        ;
}

/* Maps from a child, which then ends as `how` says once the engine runs. */
static void by_child(const char *how) {
    int ready[2], go[2];
    char byte = 'x';
    must(!pipe(ready) && !pipe(go), "pipe");
    pid_t child = fork();
    if (!child) {
        map(memory, length, iova);
        must(write(ready[1], &byte, 1) == 1 && read(go[0], &byte, 1) == 1, "pipe");
        if (!strcmp(how, "exec"))
            execl("/bin/true", "true", (char *)0);
        _exit(0);
    }
    must(read(ready[0], &byte, 1) == 1, "child");
    start(0, FILL, 0, iova, length);
    wait_running();
    must(write(go[1], &byte, 1) == 1, "pipe");
    must(waitpid(child, 0, 0) == child, "waitpid");
}

static void by_parent(const char *how) {
    int as_file = strstr(how, "-file") != 0;
    if (as_file) {
        struct map_file map = {sizeof map, MAP_FLAGS, ioas, memfd, 0, length, iova};
        must(!ioctl(iommu, IOAS_MAP_FILE, &map), "IOAS_MAP_FILE");
    } else {
        map(memory, length, iova);
    }
    start(0, FILL, 0, iova, length);
    wait_running();
    if (!strncmp(how, "truncate", 8))
        must(!ftruncate(memfd, 0), "ftruncate");
    else if (!strncmp(how, "punch", 5))
        must(!fallocate(memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, length), "fallocate");
    else if (!strcmp(how, "unmap"))
        must(!munmap(memory, length), "munmap");
    else if (!strcmp(how, "protect"))
        must(!mprotect(memory, length, PROT_NONE), "mprotect");
    else
        must(0, how);
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "unmap";
    assign();
    if (!strncmp(how, "truncate", 8) || !strncmp(how, "punch", 5)) {
        must((memfd = memfd_create("memory", MFD_ALLOW_SEALING)) >= 0, "memfd_create");
        must(!ftruncate(memfd, length), "ftruncate");
        if (!strcmp(how, "punch-file"))
            must(!fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK), "F_ADD_SEALS");
        memory = mmap(0, length, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    } else {
        int sharing = strcmp(how, "exit-shared") ? MAP_PRIVATE : MAP_SHARED;
        memory = mmap(0, length, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS, -1, 0);
    }
    must(memory != MAP_FAILED, "mmap");
    if (!strncmp(how, "exit", 4) || !strcmp(how, "exec"))
        by_child(how);
    else
        by_parent(how);
    int is_done = end(0) == DONE;
    if (is_done && !strcmp(how, "exit-shared"))
        must(memory[0] == 0x5a && memory[length - 1] == 0x5a, "what the engine wrote");
    if (is_done)
        printf("done\n");
    else
        printf("fault %u\n", statuses[0].reason);

    char *pages = mmap(0, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(pages != MAP_FAILED, "mmap");
    memset(pages, 0x77, PAGE);
    map(pages, 2 * PAGE, other_iova);
    start(1, COPY, other_iova, other_iova + PAGE, PAGE);
    must(end(1) == DONE && !memcmp(pages, pages + PAGE, PAGE), "a copy afterwards");
    struct unmap all = {sizeof all, ioas, 0, UINT64_MAX};
    must(!ioctl(iommu, IOAS_UNMAP, &all) && all.length == length + 2 * PAGE, "IOAS_UNMAP of all");
    return 0;
}
