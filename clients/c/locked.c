/* Maps more memory than a process may lock. Without CAP_IPC_LOCK that is refused, whole, and what is unmapped makes room.
 *
 * usage: locked limited|free [drop]    what is expected; whether to drop CAP_IPC_LOCK first */
#include "dma_engine.h"
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>

enum { LIMIT = 16 * PAGE, IOAS_UNMAP = 0x3b86, OPTION = 0x3b87, RLIMIT_MODE = 0, SET = 0 };
enum { SECOND = 0x1000000, THIRD = 0x2000000 };

struct unmap { uint32_t size, ioas_id; uint64_t iova, length; };
struct option { uint32_t size, option_id; uint16_t op, reserved; uint32_t object_id; uint64_t value; };

static void drop_lock(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    must(!syscall(SYS_capget, &header, data), "capget");
    data[0].effective &= ~(1u << CAP_IPC_LOCK);
    must(!syscall(SYS_capset, &header, data), "capset");
}

static void unmap(uint64_t iova, uint64_t length) {
    struct unmap argument = {sizeof argument, ioas, iova, length};
    must(!ioctl(iommu, IOAS_UNMAP, &argument), "IOAS_UNMAP");
}

static void works(char *pages) {
    start(0, (struct descriptor){.operation = FILL, .length = 8, .destination = 0, .pattern = 0x5a5a5a5a5a5a5a5a});
    must(end(0) == DONE && pages[0] == 0x5a, "the engine still writes");
    pages[0] = 0;
}

/* Every address space that a device sees counts; one that none sees does not. */
static void by_user(int expected) {
    char *pages = memory(32 * PAGE);
    map(pages, 12 * PAGE, 0, MAP_ALL);
    answers(try_map(pages + 12 * PAGE, 5 * PAGE, SECOND, MAP_ALL), expected, "five pages more than the limit has room for");
    if (expected) {
        map(pages + 12 * PAGE, 4 * PAGE, SECOND, MAP_ALL);
        answers(try_map(pages, PAGE, THIRD, MAP_ALL), expected, "a page more");
        works(pages);
    }
    unmap(SECOND, (expected ? 4 : 5) * PAGE);
    map(pages + 12 * PAGE, 4 * PAGE, SECOND, MAP_ALL);

    struct ioas_alloc alloc = {sizeof alloc, 0, 0};
    must(!ioctl(iommu, IOAS_ALLOC, &alloc), "IOAS_ALLOC");
    uint32_t first = ioas;
    ioas = alloc.out_ioas_id;
    map(pages, 8 * PAGE, 0, MAP_ALL);
    map(pages + 8 * PAGE, 16 * PAGE, THIRD, MAP_ALL);
    struct attach attach = {sizeof attach, 0, ioas};
    answers(ioctl(device, ATTACH, &attach), expected, "ATTACH of more than may be locked");
    works(pages);
    if (expected)
        ioas = first;
}

/* Two mappings of a page are locked twice; what the process itself locks counts too. */
static void by_process(int expected) {
    struct option option = {sizeof option, RLIMIT_MODE, SET, 0, 0, 1};
    must(!munmap((void *)descriptors, PAGE), "munmap of BAR 0");
    close(device);
    close(iommu);
    must((iommu = open("/dev/iommu", O_RDWR | O_CLOEXEC)) >= 0, "open /dev/iommu");
    must(!ioctl(iommu, OPTION, &option), "OPTION of RLIMIT_MODE");
    must((device = open(cdev(), O_RDWR | O_CLOEXEC)) >= 0, "open the device");
    struct bind bind = {sizeof bind, 0, iommu, 0};
    must(!ioctl(device, BIND, &bind), "BIND");
    struct ioas_alloc alloc = {sizeof alloc, 0, 0};
    must(!ioctl(iommu, IOAS_ALLOC, &alloc), "IOAS_ALLOC");
    struct attach attach = {sizeof attach, 0, ioas = alloc.out_ioas_id};
    must(!ioctl(device, ATTACH, &attach), "ATTACH");
    char *pages = memory(16 * PAGE);
    must(!mlock(pages, 8 * PAGE), "mlock");
    map(pages, 4 * PAGE, 0, MAP_ALL);
    map(pages, 4 * PAGE, SECOND, MAP_ALL);
    answers(try_map(pages, PAGE, THIRD, MAP_ALL), expected, "a page more than the process may lock");
    must(!munlock(pages, 8 * PAGE), "munlock");
    map(pages, PAGE, THIRD + PAGE, MAP_ALL);
}

int main(int argc, char **argv) {
    must(argc > 1, "usage: locked limited|free [drop]");
    int expected = strcmp(argv[1], "limited") ? 0 : ENOMEM, drops = argc > 2;
    struct rlimit limit;
    must(!getrlimit(RLIMIT_MEMLOCK, &limit), "getrlimit");
    limit.rlim_cur = LIMIT;
    must(!setrlimit(RLIMIT_MEMLOCK, &limit), "setrlimit");
    if (drops)
        drop_lock();
    assign();
    by_user(expected);
    if (drops)
        by_process(expected);
    printf("done\n");
    return 0;
}
