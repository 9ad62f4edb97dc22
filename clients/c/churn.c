/* Closes, opens and binds a device COUNT times in a row: nothing but close() comes between a release and the next BIND.
 * Every other round the iommufd is a new one too. Prints the first failure and exits 1, or prints the count and exits 0.
 *
 * usage: churn COUNT */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct bind { uint32_t argsz, flags; int32_t iommufd; uint32_t out_devid; };
enum { BIND = 0x3b76 };

static int failed(const char *what, long round) {
    fprintf(stderr, "round %ld: %s: %s\n", round, what, strerror(errno));
    return 1;
}

int main(int argc, char **argv) {
    long count = argc > 1 ? atol(argv[1]) : 1000;
    const char *path = getenv("BINDERY_CDEV");
    int iommu = -1;
    for (long round = 0; round < count; round++) {
        if (round % 2 == 0) {
            if (iommu >= 0)
                close(iommu);
            iommu = open("/dev/iommu", O_RDWR | O_CLOEXEC);
            if (iommu < 0)
                return failed("open /dev/iommu", round);
        }
        int device = open(path ? path : "/dev/vfio/devices/vfio0", O_RDWR | O_CLOEXEC);
        if (device < 0)
            return failed("open the device", round);
        struct bind bind = {sizeof bind, 0, iommu, 0};
        if (ioctl(device, BIND, &bind))
            return failed("BIND", round);
        close(device);
    }
    printf("%ld rounds\n", count);
    return 0;
}
