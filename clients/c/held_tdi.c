/* Binds the TDI of the function whose device file is in BINDERY_CDEV and holds it. Prints "bound"; then "asked" when the host wants the
 * device back (the REQ interrupt); ends when its standard input does.
 *
 * usage: held_tdi */
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "rfc.h"

/* Of a vIOMMU without data. */
enum { PLAIN_VIOMMU = 1, TEN_SECONDS_MS = 10000 };

static void must(int holds, const char *what) {
    if (holds)
        return;
    perror(what);
    exit(1);
}

static void say(const char *what) {
    puts(what);
    fflush(stdout);
}

int main(void) {
    int device = open(getenv("BINDERY_CDEV"), O_RDWR | O_CLOEXEC), iommu = open("/dev/iommu", O_RDWR | O_CLOEXEC);
    must(device >= 0 && iommu >= 0, "open");
    struct vfio_device_bind_iommufd bind = {.argsz = sizeof bind, .iommufd = iommu};
    static const char token[16] = "held_tdi's token";
    const char *physical_path = getenv("BINDERY_PF_CDEV");
    if (physical_path) {
        bind.flags = VFIO_DEVICE_BIND_FLAG_TOKEN;
        bind.token_uuid_ptr = (uintptr_t)token;
        int physical = open(physical_path, O_RDWR | O_CLOEXEC);
        must(physical >= 0 && !ioctl(physical, VFIO_DEVICE_BIND_IOMMUFD, &bind) && !close(physical), "BIND of the physical function");
    }
    must(!ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind), "BIND");

    struct iommu_ioas_alloc ioas = {.size = sizeof ioas};
    must(!ioctl(iommu, IOMMU_IOAS_ALLOC, &ioas), "IOAS_ALLOC");
    struct iommu_hwpt_alloc hwpt = {
        .size = sizeof hwpt, .flags = IOMMU_HWPT_ALLOC_NEST_PARENT, .dev_id = bind.out_devid, .pt_id = ioas.out_ioas_id};
    must(!ioctl(iommu, IOMMU_HWPT_ALLOC, &hwpt), "HWPT_ALLOC");
    struct iommu_viommu_alloc viommu = {
        .size = sizeof viommu, .type = PLAIN_VIOMMU, .dev_id = bind.out_devid, .hwpt_id = hwpt.out_hwpt_id};
    must(!ioctl(iommu, IOMMU_VIOMMU_ALLOC, &viommu), "VIOMMU_ALLOC");
    struct iommu_vdevice_alloc vdevice = {
        .size = sizeof vdevice, .viommu_id = viommu.out_viommu_id, .dev_id = bind.out_devid, .virt_id = 8};
    must(!ioctl(iommu, IOMMU_VDEVICE_ALLOC, &vdevice), "VDEVICE_ALLOC");
    struct iommu_vdevice_tsm_op op = {.size = sizeof op, .type = IOMMU_VDEVICE_TSM_BIND, .vdevice_id = vdevice.out_vdevice_id};
    must(!ioctl(iommu, IOMMU_VDEVICE_TSM_OP, &op), "TSM_OP");

    int asked = eventfd(0, EFD_CLOEXEC);
    char set[sizeof(struct vfio_irq_set) + sizeof asked];
    struct vfio_irq_set header = {
        .argsz = sizeof set, .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, .index = VFIO_PCI_REQ_IRQ_INDEX, .count = 1};
    memcpy(set, &header, sizeof header);
    memcpy(set + sizeof header, &asked, sizeof asked);
    must(!ioctl(device, VFIO_DEVICE_SET_IRQS, set), "SET_IRQS");
    say("bound");

    struct pollfd ahead[] = {{.fd = asked, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    must(poll(ahead, 2, TEN_SECONDS_MS) > 0, "poll");
    if (ahead[0].revents)
        say("asked");
    char end;
    must(read(0, &end, 1) >= 0, "read");
    return 0;
}
