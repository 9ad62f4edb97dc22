/* Links a device file with a virtual machine as VMMs do, on a platform that wants one (tests/releases.rs), and sees when
 * a TDI can be bound. Prints "no KVM" where there is none to use.
 *
 * usage: vms */
#include "tdi.h"

enum { KVM_CREATE_VM = 0xae01, KVM_CREATE_DEVICE = 0xc00caee0, KVM_SET_DEVICE_ATTR = 0x4018aee1, KVM_DEVICE_VFIO = 4, VFIO_FILE = 1, ADD = 1, DEL = 2 };
struct kvm_device { uint32_t type; int32_t fd; uint32_t flags; };
struct kvm_attribute { uint32_t flags, group; uint64_t attribute, address; };

static int kvm, kvm_vfio;

static int new_vm(void) {
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    must(vm >= 0, "KVM_CREATE_VM");
    return vm;
}

static void tell(uint64_t what, int32_t file) {
    struct kvm_attribute attribute = {0, VFIO_FILE, what, (uintptr_t)&file};
    must(!ioctl(kvm_vfio, KVM_SET_DEVICE_ATTR, &attribute), "KVM_SET_DEVICE_ATTR");
}

/* Opens the virtual function, lets `link` happen to its file, and binds its TDI, which answers `expected`. */
static void bind_after(void (*link)(int), int expected, const char *what) {
    must((iommu = open("/dev/iommu", O_RDWR | O_CLOEXEC)) >= 0, "open /dev/iommu");
    must((device = open("/dev/vfio/devices/vfio1", O_RDWR | O_CLOEXEC)) >= 0, "open the device");
    link(device);
    answers(tsm_op(TSM_BIND, prepare(device, 0x10)), expected, what);
    close(device);
    close(iommu);
}

static void not_linked(int file) { (void)file; }
static void linked(int file) { tell(ADD, file); }
static void unlinked(int file) { tell(ADD, file), tell(DEL, file); }

int main(void) {
    kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0) {
        printf("no KVM\n");
        return 0;
    }
    connect_tsm("b1d0:01:00.0");
    int vm = new_vm();
    struct kvm_device made = {KVM_DEVICE_VFIO, 0, 0};
    must(!ioctl(vm, KVM_CREATE_DEVICE, &made), "KVM_CREATE_DEVICE");
    kvm_vfio = made.fd;
    bind_after(not_linked, ENODEV, "bind without a VM");
    bind_after(linked, 0, "bind with a VM");
    int copy = dup(vm);
    bind_after(linked, 0, "bind with a VM of two descriptors");
    bind_after(unlinked, ENODEV, "bind after the file was taken away");
    int second = new_vm();
    bind_after(linked, ENODEV, "bind where the process has two VMs");
    close(second);
    bind_after(linked, 0, "bind when one of them is gone");
    close(vm);
    close(copy);
    printf("ok\n");
    return 0;
}
