/* A TDI's life in the words of one profile: how it is bound, locked, asked for its report, run, stopped and unbound. The including program
 * has `iommu`, `device`, `vdevice` and, where the profile binds so, `realm`. Every call answers as ioctl does.
 *
 * bindery-uapi.h is printed by `bindery uapi --header PROFILE`, and says in a macro which profile it is. */
#include "bindery-uapi.h"

#ifdef BINDERY_UAPI_LINUX_7_3
enum { HAS_TSM = 0, BINDS_AT_ALLOC = 0 };
#elif defined(BINDERY_UAPI_RFC_V7_2026_10)
enum { HAS_TSM = 1, BINDS_AT_ALLOC = 1 };
#else
enum { HAS_TSM = 1, BINDS_AT_ALLOC = 0 };
#endif

enum { UNLOCKED = 0, LOCKED = 1, RUN = 2 };

/* ---- bind and unbind --------------------------------------------------------------------------------------- */

#ifdef IOMMU_VDEVICE_TSM_OP
static int tsm_op(__u32 type) {
    struct iommu_vdevice_tsm_op op = {.size = sizeof op, .type = type, .vdevice_id = vdevice};
    return ioctl(iommu, IOMMU_VDEVICE_TSM_OP, &op);
}
static int bind_tdi(void) { return tsm_op(IOMMU_VDEVICE_TSM_BIND); }
static int unbind_tdi(void) { return tsm_op(IOMMU_VDEVICE_TSM_UNBIND); }
#elif defined(VFIO_DEVICE_TSM_BIND)
static int bind_tdi(void) {
    struct vfio_pci_tsm_bind bind = {.argsz = sizeof bind, .vdevice_id = vdevice};
    return ioctl(device, VFIO_DEVICE_TSM_BIND, &bind);
}
static int unbind_tdi(void) {
    struct vfio_pci_tsm_unbind unbind = {.argsz = sizeof unbind};
    return ioctl(device, VFIO_DEVICE_TSM_UNBIND, &unbind);
}
#else /* IOMMU_VDEVICE_ALLOC binds and IOMMU_DESTROY unbinds, or there is no TSM */
static int bind_tdi(void) { return errno = ENOTTY, -1; }
static int unbind_tdi(void) { return errno = ENOTTY, -1; }
#endif

/* ---- a guest's requests ------------------------------------------------------------------------------------ */

#ifdef BINDERY_UAPI_RFC_V5_2026_05
static int request(__u32 scope, const void *bytes, __u32 length, void *answer, __u32 room) {
    struct iommu_vdevice_tsm_req req = {.size = sizeof req, .vdevice_id = vdevice, .scope = scope, .req_len = length, .resp_len = room, .req_uptr = (uintptr_t)bytes, .resp_uptr = (uintptr_t)answer};
    return ioctl(iommu, IOMMU_VDEVICE_TSM_REQ, &req);
}
static int set_state(__u32 state) { return request(IOMMU_VDEVICE_TSM_REQ_PCI_STATE_CHANGE, &state, sizeof state, 0, 0); }
/* The report's length is all that this profile tells. */
static int report(void) {
    __u32 state_and_length[2] = {0, 0};
    int left = request(IOMMU_VDEVICE_TSM_REQ_PCI_INFO, 0, 0, state_and_length, sizeof state_and_length);
    return left < 0 ? left : state_and_length[1] ? 0 : (errno = ENODATA, -1);
}
#elif defined(IOMMU_VDEVICE_TSM_REQ)
enum { INTERFACE_REPORT = 3 };
static int request(__u32 op, const void *bytes, __u32 length, void *answer, __u32 room) {
    struct iommu_vdevice_tsm_req req = {.size = sizeof req, .vdevice_id = vdevice, .op = op, .tvm_arch = IOMMU_VDEVICE_TSM_TVM_ARCH_CCA, .req_len = length, .resp_len = room, .req_uptr = (uintptr_t)bytes, .resp_uptr = (uintptr_t)answer};
    return ioctl(iommu, IOMMU_VDEVICE_TSM_REQ, &req);
}
static int set_state(__u32 state) { return request(TSM_REQ_SET_TDI_STATE, &state, sizeof state, 0, 0); }
/* The report's length, then the report: the residue says that all of it came. */
static int report(void) {
    struct { __u32 type, reserved; __u64 offset; } read = {INTERFACE_REPORT, 0, 0};
    __u32 type = INTERFACE_REPORT, length = 0;
    char bytes[4096];
    int left = request(TSM_REQ_OBJECT_INFO, &type, sizeof type, &length, sizeof length);
    if (left >= 0)
        left = request(TSM_REQ_READ_OBJECT, &read, sizeof read, bytes, sizeof bytes);
    return left < 0 ? left : length && left == (int)(sizeof bytes - length) ? 0 : (errno = ENODATA, -1);
}
#elif defined(IOMMU_VDEVICE_TSM_GUEST_REQUEST)
/* What a TDX host asks for. */
enum { REQUEST_LOCK = 1, REQUEST_START = 2, REQUEST_GET_STATE = 3, REQUEST_STOP = 4 };
static int request(__u32 type, void *answer, __u32 room) {
    struct iommu_vdevice_tsm_guest_request req = {.size = sizeof req, .vdevice_id = vdevice, .type = type, .resp_len = room, .resp_uptr = (uintptr_t)answer};
    return ioctl(iommu, IOMMU_VDEVICE_TSM_GUEST_REQUEST, &req);
}
static int set_state(__u32 state) { return request(state == LOCKED ? REQUEST_LOCK : state == RUN ? REQUEST_START : REQUEST_STOP, 0, 0); }
/* This profile tells the state only. */
static int report(void) {
    __u32 state = 0;
    return request(REQUEST_GET_STATE, &state, sizeof state) ? -1 : state == LOCKED ? 0 : (errno = ENODATA, -1);
}
#else
static int set_state(__u32 state) { return (void)state, errno = ENOTTY, -1; }
static int report(void) { return errno = ENOTTY, -1; }
#endif
