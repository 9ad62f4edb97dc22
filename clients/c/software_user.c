/* Pins memory as software in the kernel does, by IOMMU_TEST_CMD on the mock platform: what it costs shows in /proc/PID/status, it lasts until
 * the file of the access is closed for the last time, and any step of a command fails on demand (/proc/PID/task/TID/fail-nth). Prints "done". */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

struct ioas_alloc { uint32_t size, flags, out_ioas_id; };
struct destroy { uint32_t size, id; };
struct map { uint32_t size, flags, ioas_id, reserved; uint64_t user_va, length, iova; };
struct test { uint32_t size, op, id, reserved, words[14]; };

enum { DESTROY = 0x3b80, IOAS_ALLOC = 0x3b81, IOAS_MAP = 0x3b85, TEST = 0x3ba0 };
enum { MAP_FLAGS = 7 /* fixed, read, write */, CREATE_ACCESS = 5, ACCESS_PAGES = 7, NEEDS_PIN = 1, PAGE = 4096, PAGES_KB = 8 };

static const uint64_t iova = 0x1000000;
static int iommu;

static void must(int holds, const char *what) {
    if (holds)
        return;
    perror(what);
    exit(1);
}

static int fails(int result, int number) { return result == -1 && errno == number; }

static int alloc(uint32_t *id) {
    struct ioas_alloc alloc = {sizeof alloc, 0, 0};
    int result = ioctl(iommu, IOAS_ALLOC, &alloc);
    *id = alloc.out_ioas_id;
    return result;
}

static int destroy(uint32_t id) {
    struct destroy destroy = {sizeof destroy, id};
    return ioctl(iommu, DESTROY, &destroy);
}

static int create_access(uint32_t ioas) {
    struct test create = {sizeof create, CREATE_ACCESS, ioas, 0, {0, NEEDS_PIN}};
    return ioctl(iommu, TEST, &create) ? -1 : (int)create.words[0];
}

/* Of our own status, in KiB. */
static long told(const char *name) {
    char line[200], path[64];
    long value = -1;
    snprintf(path, sizeof path, "/proc/%d/status", getpid());
    FILE *status = fopen(path, "r");
    must(status != 0, path);
    while (fgets(line, sizeof line, status))
        if (!strncmp(line, name, strlen(name)))
            value = strtol(line + strlen(name), 0, 10);
    fclose(status);
    return value;
}

static void pin_and_close(void) {
    uint32_t ioas;
    must(!alloc(&ioas), "IOAS_ALLOC");
    char *memory = mmap(0, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(memory != MAP_FAILED, "mmap");
    struct map map = {sizeof map, MAP_FLAGS, ioas, 0, (uintptr_t)memory, 2 * PAGE, iova};
    must(!ioctl(iommu, IOAS_MAP, &map), "IOAS_MAP");
    long before = told("VmPin:");
    int access = create_access(ioas);
    must(access >= 0, "CREATE_ACCESS");
    must(fails(ioctl(access, TEST, &map), ENOTTY), "an ioctl on an access");
    struct test pin = {sizeof pin, ACCESS_PAGES, access, 0, {0}};
    memcpy(&pin.words[2], &iova, 8);
    memcpy(&pin.words[4], &(uint64_t){2 * PAGE}, 8);
    memcpy(&pin.words[6], &(uint64_t){(uintptr_t)memory}, 8);
    must(!ioctl(iommu, TEST, &pin), "ACCESS_PAGES");
    must(told("VmPin:") == before + PAGES_KB, "VmPin while pinned");
    must(fails(destroy(ioas), EBUSY), "DESTROY under an access");
    int copy = dup(access);
    must(!close(access) && told("VmPin:") == before + PAGES_KB, "a close that is not the last");
    pin.id = iommu;
    must(fails(ioctl(iommu, TEST, &pin), EBADFD), "a file that is no access");
    must(!close(copy) && told("VmPin:") == before, "the last close");
    must(!destroy(ioas), "DESTROY");
}

static int fail_nth;

static void must_say(const char *text) {
    char said[8] = {0};
    must(pread(fail_nth, said, sizeof said, 0) == (ssize_t)strlen(text) && !strcmp(said, text), text);
}

static void ask(const char *text) { must(pwrite(fail_nth, text, strlen(text), 0) == (ssize_t)strlen(text), text); }

static void run_out(void) {
    char path[64];
    uint32_t ioas, again;
    must(opendir("/sys/kernel/debug/") != 0, "debugfs");
    int slab = open("/sys/kernel/debug/failslab/ignore-gfp-wait", O_WRONLY);
    must(slab >= 0 && write(slab, "N", 1) == 1 && !close(slab), "failslab");
    snprintf(path, sizeof path, "/proc/self/task/%d/fail-nth", getpid());
    must((fail_nth = open(path, O_RDWR)) >= 0, path);
    must_say("0\n");
    ask("1");
    must_say("1\n");
    must(fails(alloc(&ioas), ENOMEM), "IOAS_ALLOC that fails");
    must_say("0\n");
    must(!alloc(&ioas), "IOAS_ALLOC");
    ask("12");
    must(!alloc(&again) && again == ioas + 1, "IOAS_ALLOC that does not fail yet");
    must_say("11\n");
    ask("2");
    must(create_access(ioas) == -1 && errno == ENOMEM, "CREATE_ACCESS that fails");
    must_say("0\n");
    must(fails(pwrite(fail_nth, "x", 1, 0), EINVAL), "no number");
    must(!destroy(ioas) && !destroy(again), "DESTROY: nobody uses them");
    ask("1");
    must(fails(open("/dev/iommu", O_RDWR), ENOMEM), "open that fails");
    must(!close(fail_nth), "close");
}

int main(void) {
    must((iommu = open("/dev/iommu", O_RDWR)) >= 0, "open /dev/iommu");
    pin_and_close();
    run_out();
    printf("done\n");
    return 0;
}
