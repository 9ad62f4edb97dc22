/* What each call is: the generator takes the text between two lines that begin with //@. */
//@ tsm_bind

static int tsm_bind(struct device *device)
{
	struct iommu_vdevice_tsm_op op = {
		.size = sizeof(op), .type = IOMMU_VDEVICE_TSM_BIND, .vdevice_id = device->vdevice,
	};

	return answer(ioctl(iommu, IOMMU_VDEVICE_TSM_OP, &op));
}
//@ tsm_unbind

static int tsm_unbind(struct device *device)
{
	struct iommu_vdevice_tsm_op op = {
		.size = sizeof(op), .type = IOMMU_VDEVICE_TSM_UNBIND, .vdevice_id = device->vdevice,
	};

	return answer(ioctl(iommu, IOMMU_VDEVICE_TSM_OP, &op));
}
//@ tsm_bind_by_vfio

static int tsm_bind(struct device *device)
{
	struct vfio_pci_tsm_bind bind = { .argsz = sizeof(bind), .vdevice_id = device->vdevice };

	return answer(ioctl(device->vfio, VFIO_DEVICE_TSM_BIND, &bind));
}
//@ tsm_unbind_by_vfio

static int tsm_unbind(struct device *device)
{
	struct vfio_pci_tsm_unbind unbind = { .argsz = sizeof(unbind) };

	return answer(ioctl(device->vfio, VFIO_DEVICE_TSM_UNBIND, &unbind));
}
//@ tsm_lock

/* SET_TDI_STATE to LOCKED, as a guest asks for it. */
static int tsm_lock(struct device *device)
{
	__u32 locked = 1;
	struct iommu_vdevice_tsm_req request = {
		.size = sizeof(request), .vdevice_id = device->vdevice, .op = TSM_REQ_SET_TDI_STATE,
		.tvm_arch = IOMMU_VDEVICE_TSM_TVM_ARCH_CCA,
		.req_len = sizeof(locked), .req_uptr = (__u64)(size_t)&locked,
	};

	return answer(ioctl(iommu, IOMMU_VDEVICE_TSM_REQ, &request));
}
//@ tsm_run

/* SET_TDI_STATE to RUN, as a guest asks for it. */
static int tsm_run(struct device *device)
{
	__u32 run = 2;
	struct iommu_vdevice_tsm_req request = {
		.size = sizeof(request), .vdevice_id = device->vdevice, .op = TSM_REQ_SET_TDI_STATE,
		.tvm_arch = IOMMU_VDEVICE_TSM_TVM_ARCH_CCA,
		.req_len = sizeof(run), .req_uptr = (__u64)(size_t)&run,
	};

	return answer(ioctl(iommu, IOMMU_VDEVICE_TSM_REQ, &request));
}
//@ destroy_vdevice

static int destroy_vdevice(struct device *device)
{
	return destroy(device->vdevice);
}
//@ destroy_viommu

static int destroy_viommu(struct device *device)
{
	return destroy(device->viommu);
}
//@ vdevice_alloc

/* Another one; the first one's id stays what calls name. */
static int vdevice_alloc(struct device *device)
{
	__u32 id;

	return alloc_vdevice(device, &id);
}
//@ ioas_alloc

static int ioas_alloc(struct device *unused)
{
	struct iommu_ioas_alloc alloc = { .size = sizeof(alloc) };

	(void)unused;
	return answer(ioctl(iommu, IOMMU_IOAS_ALLOC, &alloc));
}
//@ close_vfio

static int close_vfio(struct device *device)
{
	return answer(close(device->vfio));
}
//@ close_iommu

static int close_iommu(struct device *unused)
{
	(void)unused;
	return answer(close(iommu));
}
//@ close_vm

static int close_vm(struct device *unused)
{
	int error = answer(close(vm));

	(void)unused;
	close(vm_device);
	return error;
}
//@ tsm_connect

static int tsm_connect(struct device *device)
{
	return write_attribute(device, "connect");
}
//@ tsm_disconnect

static int tsm_disconnect(struct device *device)
{
	return write_attribute(device, "disconnect");
}
//@ reset

static int reset(struct device *device)
{
	return answer(ioctl(device->vfio, VFIO_DEVICE_RESET));
}
//@ clear_bus_master

static int clear_bus_master(struct device *device)
{
	return change_command(device, 0, PCI_COMMAND_MASTER);
}
//@ attach

static int attach(struct device *device)
{
	struct vfio_device_attach_iommufd_pt attach = { .argsz = sizeof(attach), .pt_id = ioas };

	return answer(ioctl(device->vfio, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach));
}
//@ detach

static int detach(struct device *device)
{
	struct vfio_device_detach_iommufd_pt detach = { .argsz = sizeof(detach) };

	return answer(ioctl(device->vfio, VFIO_DEVICE_DETACH_IOMMUFD_PT, &detach));
}
//@ map

static int map(struct device *unused)
{
	struct iommu_ioas_map map = {
		.size = sizeof(map),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE,
		.ioas_id = ioas, .user_va = (__u64)(size_t)page, .length = PAGE_BYTES, .iova = IOVA,
	};

	(void)unused;
	return answer(ioctl(iommu, IOMMU_IOAS_MAP, &map));
}
//@ unmap

static int unmap(struct device *unused)
{
	struct iommu_ioas_unmap unmap = {
		.size = sizeof(unmap), .ioas_id = ioas, .iova = IOVA, .length = PAGE_BYTES,
	};

	(void)unused;
	return answer(ioctl(iommu, IOMMU_IOAS_UNMAP, &unmap));
}
//@ call

struct call {
	const char *name;
	int (*make)(struct device *device);
	unsigned int device;
	unsigned int slot;
	int expected[@MOST@];	/* error numbers, 0 for none */
	int expected_count;	/* 0: any */
};
