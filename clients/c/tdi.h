/* What the C clients share that bind a TDI by IOMMU_VDEVICE_TSM_OP, in the profile rfc. */
#include "dma_engine.h"

enum { HWPT_ALLOC = 0x3b89, VIOMMU_ALLOC = 0x3b90, VDEVICE_ALLOC = 0x3b91, TSM_OP = 0x3b95, NEST_PARENT = 1, NO_TSM = 1, TSM_BIND = 1, TSM_UNBIND = 2 };
struct hwpt_alloc { uint32_t size, flags, dev_id, pt_id, out_hwpt_id, reserved, data_type, data_len; uint64_t data_uptr; uint32_t fault_id, reserved2; };
struct viommu_alloc { uint32_t size, flags, type, dev_id, hwpt_id, out_viommu_id, data_len, reserved; uint64_t data_uptr; };
struct vdevice_alloc { uint32_t size, viommu_id, dev_id, out_vdevice_id; uint64_t virt_id; };
struct tsm_op { uint32_t size, type, flags, vdevice_id; };

__attribute__((unused)) static void connect_tsm(const char *function) {
    char path[128];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/tsm/connect", function);
    int fd = open(path, O_WRONLY);
    must(fd >= 0 && write(fd, "tsm0\n", 5) == 5, path);
    close(fd);
}

/* Binds the device's file to the one iommufd, and makes a vdevice for it. Returns its id. */
__attribute__((unused)) static uint32_t prepare(int file, uint64_t virt_id) {
    struct bind bind = {sizeof bind, 0, iommu, 0};
    must(!ioctl(file, BIND, &bind), "BIND");
    struct ioas_alloc alloc = {sizeof alloc, 0, 0};
    must(!ioctl(iommu, IOAS_ALLOC, &alloc), "IOAS_ALLOC");
    struct hwpt_alloc hwpt = {.size = sizeof hwpt, .flags = NEST_PARENT, .dev_id = bind.out_devid, .pt_id = alloc.out_ioas_id};
    must(!ioctl(iommu, HWPT_ALLOC, &hwpt), "HWPT_ALLOC");
    struct viommu_alloc viommu = {.size = sizeof viommu, .type = NO_TSM, .dev_id = bind.out_devid, .hwpt_id = hwpt.out_hwpt_id};
    must(!ioctl(iommu, VIOMMU_ALLOC, &viommu), "VIOMMU_ALLOC");
    struct vdevice_alloc made = {sizeof made, viommu.out_viommu_id, bind.out_devid, 0, virt_id};
    must(!ioctl(iommu, VDEVICE_ALLOC, &made), "VDEVICE_ALLOC");
    return made.out_vdevice_id;
}

__attribute__((unused)) static int tsm_op(uint32_t type, uint32_t id) {
    struct tsm_op op = {sizeof op, type, 0, id};
    return ioctl(iommu, TSM_OP, &op);
}

