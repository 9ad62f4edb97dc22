/* Binds and unbinds the first device's TDI COUNT times and prints the nanoseconds of one cycle.
 *
 * usage: client COUNT */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

struct ioas_alloc { uint32_t size, flags, out; };
struct hwpt_alloc { uint32_t size, flags, dev, pt, out, reserved, type, length; uint64_t data; uint32_t fault, reserved2; };
struct viommu_alloc { uint32_t size, flags, type, dev, hwpt, out, length, reserved; uint64_t data; };
struct vdevice_alloc { uint32_t size, viommu, dev, out; uint64_t virt_id; };
struct tsm_op { uint32_t size, type, flags, vdevice; };
struct bind { uint32_t argsz, flags; int32_t iommufd; uint32_t out; uint64_t token; };

enum { IOAS_ALLOC = 0x3b81, HWPT_ALLOC = 0x3b89, VIOMMU_ALLOC = 0x3b90, VDEVICE_ALLOC = 0x3b91, TSM_OP = 0x3b95, BIND = 0x3b76 };
enum { NEST_PARENT = 1, ARM_SMMUV3 = 1, TSM_BIND = 1, TSM_UNBIND = 2, WARMUP = 100 };

static void need(int answer, const char *what) {
    if (answer < 0) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

int main(int argc, char **argv) {
    int count = argc > 1 ? atoi(argv[1]) : 1000;
    int iommu = open("/dev/iommu", O_RDWR), device = open(getenv("BINDERY_CDEV"), O_RDWR);
    need(iommu, "/dev/iommu");
    need(device, "the device");
    char path[128];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/tsm/connect", getenv("BINDERY_BDF"));
    int connect = open(path, O_WRONLY);
    need(connect, path);
    need((int)write(connect, "tsm0", 4), "connect");
    close(connect);
    struct bind bind = {.argsz = 16, .iommufd = iommu};
    need(ioctl(device, BIND, &bind), "bind the device");
    struct ioas_alloc ioas = {.size = sizeof ioas};
    need(ioctl(iommu, IOAS_ALLOC, &ioas), "make an IOAS");
    struct hwpt_alloc hwpt = {.size = sizeof hwpt, .flags = NEST_PARENT, .dev = bind.out, .pt = ioas.out};
    need(ioctl(iommu, HWPT_ALLOC, &hwpt), "make a page table");
    struct viommu_alloc viommu = {.size = sizeof viommu, .type = ARM_SMMUV3, .dev = bind.out, .hwpt = hwpt.out};
    need(ioctl(iommu, VIOMMU_ALLOC, &viommu), "make a vIOMMU");
    struct vdevice_alloc vdevice = {.size = sizeof vdevice, .viommu = viommu.out, .dev = bind.out, .virt_id = 0x20};
    need(ioctl(iommu, VDEVICE_ALLOC, &vdevice), "make a vdevice");
    struct tsm_op op = {.size = sizeof op, .vdevice = vdevice.out};
    uint64_t start = 0;
    for (int i = -WARMUP; i < count; i++) {
        if (i == 0)
            start = now();
        op.type = TSM_BIND;
        need(ioctl(iommu, TSM_OP, &op), "bind the TDI");
        op.type = TSM_UNBIND;
        need(ioctl(iommu, TSM_OP, &op), "unbind the TDI");
    }
    printf("%.1f\n", (double)(now() - start) / count);
    return 0;
}
