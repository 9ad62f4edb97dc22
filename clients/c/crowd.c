// Binds many TDIs at once, each at a device that takes its time, and meanwhile asks for other things: they must not wait.
// Usage: crowd COUNT. Uses vfio0 to vfio(COUNT + 1): the last two answer at once. Prints the microseconds of what was asked meanwhile.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define NUMBER(n) (0x3b00 | (n))
#define MEANWHILE 20
#define MOST 128

struct destroy { uint32_t size, id; };
struct ioas_alloc { uint32_t size, flags, out; };
struct hwpt_alloc { uint32_t size, flags, dev, pt, out, reserved, type, length; uint64_t data; uint32_t fault, reserved2; };
struct viommu_alloc { uint32_t size, flags, type, dev, hwpt, out, length, reserved; uint64_t data; };
struct vdevice_alloc { uint32_t size, viommu, dev, out; uint64_t virt_id; };
struct tsm_op { uint32_t size, type, flags, vdevice; };
struct bind { uint32_t argsz, flags; int32_t iommufd; uint32_t out; uint64_t token; };
struct attach { uint32_t argsz, flags, pt, pasid; };

static int iommu;
static uint32_t vdevices[MOST];
static pthread_barrier_t all_there;

static int command(int fd, unsigned number, void *argument) { return ioctl(fd, NUMBER(number), argument); }

static void need(int answer, const char *what) {
    if (answer < 0) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static int open_device(int number) {
    char path[64];
    snprintf(path, sizeof path, "/dev/vfio/devices/vfio%d", number);
    return open(path, O_RDWR);
}

static void connect_tsm(int number) {
    char path[96];
    snprintf(path, sizeof path, "/sys/class/vfio-dev/vfio%d/device/tsm/connect", number);
    int file = open(path, O_WRONLY);
    need(file, path);
    need((int)write(file, "tsm0", 4), "connect");
    close(file);
}

static uint32_t make_vdevice(int number, uint32_t ioas) {
    connect_tsm(number);
    int device = open_device(number);
    need(device, "open");
    struct bind bind = {.argsz = sizeof bind, .iommufd = iommu};
    need(command(device, 0x76, &bind), "bind the device");
    struct hwpt_alloc hwpt = {.size = sizeof hwpt, .flags = 1, .dev = bind.out, .pt = ioas};
    need(command(iommu, 0x89, &hwpt), "make a page table");
    struct attach attach = {.argsz = 12, .pt = hwpt.out};
    need(command(device, 0x77, &attach), "attach");
    struct viommu_alloc viommu = {.size = sizeof viommu, .type = 1, .dev = bind.out, .hwpt = hwpt.out};
    need(command(iommu, 0x90, &viommu), "make a vIOMMU");
    struct vdevice_alloc vdevice = {.size = sizeof vdevice, .viommu = viommu.out, .dev = bind.out, .virt_id = 8};
    need(command(iommu, 0x91, &vdevice), "make a vdevice");
    return vdevice.out;
}

static int operate(uint32_t type, uint32_t vdevice) {
    struct tsm_op op = {.size = sizeof op, .type = type, .vdevice = vdevice};
    return command(iommu, 0x95, &op);
}

static void *bind_one(void *vdevice) {
    pthread_barrier_wait(&all_there);
    need(operate(1, *(uint32_t *)vdevice), "bind the TDI");
    return NULL;
}

static long now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000L + now.tv_nsec / 1000;
}

static int ascending(const void *a, const void *b) { return (*(const long *)a > *(const long *)b) - (*(const long *)a < *(const long *)b); }

static void report(const char *what, long *took, int count) {
    qsort(took, (size_t)count, sizeof *took, ascending);
    printf("%s median_us=%ld max_us=%ld\n", what, took[count / 2], took[count - 1]);
}

int main(int argc, char **argv) {
    int count = argc > 1 ? atoi(argv[1]) : 0;
    pthread_t threads[MOST];
    long opens[MEANWHILE], unbinds[MEANWHILE], destroys[1];
    if (count < 1 || count > MOST - 2) return 2;
    iommu = open("/dev/iommu", O_RDWR);
    need(iommu, "open /dev/iommu");
    struct ioas_alloc ioas = {.size = sizeof ioas};
    need(command(iommu, 0x81, &ioas), "make an IOAS");
    for (int number = 0; number < count + 2; number++) vdevices[number] = make_vdevice(number, ioas.out);
    pthread_barrier_init(&all_there, NULL, (unsigned)count + 1);
    for (int number = 0; number < count; number++)
        if (pthread_create(&threads[number], NULL, bind_one, &vdevices[number])) return 1;
    pthread_barrier_wait(&all_there);
    usleep(300000);
    uint32_t other = vdevices[count], last = vdevices[count + 1];
    for (int round = 0; round < MEANWHILE; round++) {
        long begun = now_us();
        int file = open_device(count);
        need(file, "open meanwhile");
        opens[round] = now_us() - begun;
        close(file);
        need(operate(1, other), "bind meanwhile");
        begun = now_us();
        need(operate(2, other), "unbind meanwhile");
        unbinds[round] = now_us() - begun;
    }
    need(operate(1, last), "bind meanwhile");
    struct destroy destroy = {.size = sizeof destroy, .id = last};
    long begun = now_us();
    need(command(iommu, 0x80, &destroy), "destroy meanwhile");
    destroys[0] = now_us() - begun;
    begun = now_us();
    for (int number = 0; number < count; number++) pthread_join(threads[number], NULL);
    printf("in_flight_us=%ld\n", now_us() - begun);
    report("open", opens, MEANWHILE);
    report("unbind", unbinds, MEANWHILE);
    report("destroy", destroys, 1);
    return 0;
}
