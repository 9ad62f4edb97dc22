/* What is set up, a part each: the generator takes the text between two lines that begin with //@. */
//@ tsm

#define TSM "tsm0\n"

static int write_attribute(const struct device *device, const char *name)
{
	char path[128];
	int fd, error;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/tsm/%s", device->address, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	error = answer(write(fd, TSM, strlen(TSM)));
	close(fd);
	return error;
}

/* It may be connected already, or be a virtual function of one that is. */
static void connect_tsm(void)
{
	errno = write_attribute(&devices[0], "connect");
	must(errno == 0 || errno == EBUSY || errno == ENOENT, "write tsm0 to tsm/connect");
}
//@ vm

#ifndef KVM_DEV_VFIO_FILE
#define KVM_DEV_VFIO_FILE 1
#define KVM_DEV_VFIO_FILE_ADD 1
#endif

static int vm = -1, vm_device = -1;

static void make_vm(void)
{
	struct kvm_create_device create = { .type = KVM_DEV_TYPE_VFIO };
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), made;

	must(kvm >= 0, "open /dev/kvm");
	made = ioctl(kvm, KVM_CREATE_VM, 0);
	must(made >= 0, "KVM_CREATE_VM");
	must(ioctl(made, KVM_CREATE_DEVICE, &create) == 0, "KVM_CREATE_DEVICE");
	vm = fcntl(made, F_DUPFD_CLOEXEC, 100);
	vm_device = fcntl(create.fd, F_DUPFD_CLOEXEC, 100);
	must(vm >= 0 && vm_device >= 0, "keep the VM's files");
	close(made);
	close(create.fd);
	close(kvm);
}
//@ files

static __u32 ioas;

static int destroy(__u32 id)
{
	struct iommu_destroy destroy = { .size = sizeof(destroy), .id = id };

	return answer(ioctl(iommu, IOMMU_DESTROY, &destroy));
}

static void open_iommu(void)
{
	struct iommu_ioas_alloc alloc = { .size = sizeof(alloc) };

	iommu = open_apart("/dev/iommu");
	must(ioctl(iommu, IOMMU_IOAS_ALLOC, &alloc) == 0, "IOMMU_IOAS_ALLOC");
	ioas = alloc.out_ioas_id;
}

static void bind_device(struct device *device)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind), .iommufd = iommu };

	device->vfio = open_apart(device->path);
@LINK@
	must(ioctl(device->vfio, VFIO_DEVICE_BIND_IOMMUFD, &bind) == 0, "VFIO_DEVICE_BIND_IOMMUFD");
	device->id = bind.out_devid;
}
//@ link
	struct kvm_device_attr add = {
		.group = KVM_DEV_VFIO_FILE,
		.attr = KVM_DEV_VFIO_FILE_ADD,
		.addr = (__u64)(size_t)&device->vfio,
	};
	must(ioctl(vm_device, KVM_SET_DEVICE_ATTR, &add) == 0, "KVM_DEV_VFIO_FILE_ADD");
//@ config

enum { PCI_COMMAND = 4, PCI_COMMAND_MEMORY = 2, PCI_COMMAND_MASTER = 4 };

static int change_command(const struct device *device, __u16 set, __u16 clear)
{
	struct vfio_region_info config = {
		.argsz = sizeof(config), .index = VFIO_PCI_CONFIG_REGION_INDEX,
	};
	__u16 command;

	if (ioctl(device->vfio, VFIO_DEVICE_GET_REGION_INFO, &config) ||
	    pread(device->vfio, &command, 2, config.offset + PCI_COMMAND) < 0)
		return errno;
	command = (command & ~clear) | set;
	return answer(pwrite(device->vfio, &command, 2, config.offset + PCI_COMMAND));
}

static void enable(const struct device *device)
{
	errno = change_command(device, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0);
	must(errno == 0, "write the command register");
}
//@ vdevices

/* Which vIOMMU the reader's IOMMU has, and under which id a guest knows the first device. */
#ifndef VIOMMU_TYPE
#define VIOMMU_TYPE @TYPE@
#endif
enum { GUEST_ID = 0x100 };

static int alloc_vdevice(const struct device *device, __u32 *id)
{
	struct iommu_vdevice_alloc alloc = {
		.size = sizeof(alloc), .viommu_id = device->viommu, .dev_id = device->id,
		.virt_id = GUEST_ID + (__u64)(device - devices),
	};
	int error = answer(ioctl(iommu, IOMMU_VDEVICE_ALLOC, &alloc));

	*id = alloc.out_vdevice_id;
	return error;
}

static void make_vdevice(struct device *device)
{
	struct iommu_hwpt_alloc parent = {
		.size = sizeof(parent), .flags = IOMMU_HWPT_ALLOC_NEST_PARENT,
		.dev_id = device->id, .pt_id = ioas,
	};
	struct iommu_viommu_alloc viommu = {
		.size = sizeof(viommu), .type = VIOMMU_TYPE, .dev_id = device->id,
	};

	must(ioctl(iommu, IOMMU_HWPT_ALLOC, &parent) == 0, "IOMMU_HWPT_ALLOC of a nesting parent");
	viommu.hwpt_id = device->parent = parent.out_hwpt_id;
	must(ioctl(iommu, IOMMU_VIOMMU_ALLOC, &viommu) == 0, "IOMMU_VIOMMU_ALLOC");
	device->viommu = viommu.out_viommu_id;
	errno = alloc_vdevice(device, &device->vdevice);
	must(errno == 0, "IOMMU_VDEVICE_ALLOC");
}
//@ page

enum { PAGE_BYTES = 4096, IOVA = 0x100000 };

static void *page;

static void make_page(void)
{
	if (page)
		return;
	page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(page != MAP_FAILED, "mmap a page");
}
