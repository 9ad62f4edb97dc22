/* What the C clients share that bind a TDI by IOMMU_VDEVICE_TSM_OP, in the profile rfc. */
#include "dma_engine.h"

enum { HWPT_ALLOC = 0x3b89, VIOMMU_ALLOC = 0x3b90, VDEVICE_ALLOC = 0x3b91, TSM_OP = 0x3b95, TSM_REQ = 0x3b96, NEST_PARENT = 1, NO_TSM = 1, TSM_BIND = 1, TSM_UNBIND = 2, SET_TDI_STATE = 2, CCA = 1, UNLOCKED = 0, LOCKED = 1, RUN = 2 };
struct hwpt_alloc { uint32_t size, flags, dev_id, pt_id, out_hwpt_id, reserved, data_type, data_len; uint64_t data_uptr; uint32_t fault_id, reserved2; };
struct viommu_alloc { uint32_t size, flags, type, dev_id, hwpt_id, out_viommu_id, data_len, reserved; uint64_t data_uptr; };
struct vdevice_alloc { uint32_t size, viommu_id, dev_id, out_vdevice_id; uint64_t virt_id; };
struct tsm_op { uint32_t size, type, flags, vdevice_id; };
struct tsm_request { uint32_t size, vdevice_id, op, tvm_arch, req_len, resp_len; uint64_t req_uptr, resp_uptr, tsm_code; };

__attribute__((unused)) static void connect_tsm(const char *function) {
    char path[128];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/tsm/connect", function);
    int fd = open(path, O_WRONLY);
    must(fd >= 0 && write(fd, "tsm0\n", 5) == 5, path);
    close(fd);
}

/* Makes a vdevice for a bound device, over a page table of its own. Returns its id. */
__attribute__((unused)) static uint32_t make_vdevice(uint32_t dev_id, uint64_t virt_id) {
    struct ioas_alloc alloc = {sizeof alloc, 0, 0};
    must(!ioctl(iommu, IOAS_ALLOC, &alloc), "IOAS_ALLOC");
    struct hwpt_alloc hwpt = {.size = sizeof hwpt, .flags = NEST_PARENT, .dev_id = dev_id, .pt_id = alloc.out_ioas_id};
    must(!ioctl(iommu, HWPT_ALLOC, &hwpt), "HWPT_ALLOC");
    struct viommu_alloc viommu = {.size = sizeof viommu, .type = NO_TSM, .dev_id = dev_id, .hwpt_id = hwpt.out_hwpt_id};
    must(!ioctl(iommu, VIOMMU_ALLOC, &viommu), "VIOMMU_ALLOC");
    struct vdevice_alloc made = {sizeof made, viommu.out_viommu_id, dev_id, 0, virt_id};
    must(!ioctl(iommu, VDEVICE_ALLOC, &made), "VDEVICE_ALLOC");
    return made.out_vdevice_id;
}

/* Binds the device's file to the one iommufd, and makes a vdevice for it. Returns its id. */
__attribute__((unused)) static uint32_t prepare(int file, uint64_t virt_id) {
    struct bind bind = {sizeof bind, 0, iommu, 0};
    must(!ioctl(file, BIND, &bind), "BIND");
    return make_vdevice(bind.out_devid, virt_id);
}

__attribute__((unused)) static int tsm_op(uint32_t type, uint32_t id) {
    struct tsm_op op = {sizeof op, type, 0, id};
    return ioctl(iommu, TSM_OP, &op);
}


/* SET_TDI_STATE, as a CCA guest asks for it. */
__attribute__((unused)) static int set_tdi_state(uint32_t id, uint32_t state) {
    struct tsm_request request = {sizeof request, id, SET_TDI_STATE, CCA, sizeof state, 0, (uintptr_t)&state, 0, 0};
    return ioctl(iommu, TSM_REQ, &request);
}
