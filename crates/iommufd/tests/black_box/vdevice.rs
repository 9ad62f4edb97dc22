//! vIOMMUs and vdevices as objects: who refuses what in which order, and how each end meets each other.

use std::sync::Arc;
use std::sync::mpsc::channel;

use iommufd::{ContextSettings, Device, Tvm, Vm};
use sync::rank;
use tsm::VmId;
use uapi::iommufd::{VdeviceAlloc, ViommuAlloc, hwpt_flags, viommu_type};
use uapi::{Command, CommandId, Errno, Profile};

use crate::support::{BeforeLock, Client, Platform, READ_ONLY, plain};

const SMMU: u32 = viommu_type::ARM_SMMUV3;
const REALM: u32 = viommu_type::ARM_REALM_SMMUV3;

/// A client with a device, a page table to nest in, and a vIOMMU over that.
struct Fixture {
    client: Client,
    platform: Platform,
    device: Arc<Device>,
    hwpt: u32,
    viommu: u32,
}

impl Fixture {
    fn new() -> Self {
        let client = Client::open();
        let platform = Platform::new();
        let device = platform.bind(&client);
        let hwpt = client.nest_parent(device.id());
        let viommu = client.viommu(SMMU, device.id(), hwpt).unwrap();
        Self { client, platform, device, hwpt, viommu }
    }

    fn vdevice(&self, virt_id: u64) -> Result<u32, Errno> {
        self.client.vdevice(self.viommu, self.device.id(), virt_id)
    }
}

/// Each field is mended in turn; what is wrong first is refused first.
#[test]
fn a_viommu_is_refused_in_the_kernels_order() {
    let Fixture { client, device, hwpt, .. } = Fixture::new();
    let plain_table = client.hwpt(device.id(), client.ioas(), 0).unwrap();
    let mut argument = ViommuAlloc {
        flags: 1,
        dev_id: 99,
        hwpt_id: 99,
        data_len: 8,
        reserved: 7,
        ..ViommuAlloc::default()
    };
    let asked = |argument: ViommuAlloc| client.call(CommandId::ViommuAlloc, argument).err();
    assert_eq!(asked(argument), Some(Errno::EOPNOTSUPP));
    argument.flags = 0;
    assert_eq!(asked(argument), Some(Errno::EOPNOTSUPP));
    argument.r#type = viommu_type::TEGRA241_CMDQV;
    assert_eq!(asked(argument), Some(Errno::ENOENT));
    argument.dev_id = hwpt;
    assert_eq!(asked(argument), Some(Errno::ENOENT));
    argument.dev_id = device.id();
    assert_eq!(asked(argument), Some(Errno::EOPNOTSUPP), "the type, before the page table");
    argument.r#type = SMMU;
    assert_eq!(asked(argument), Some(Errno::ENOENT));
    argument.hwpt_id = device.id();
    assert_eq!(asked(argument), Some(Errno::ENOENT));
    argument.hwpt_id = plain_table;
    assert_eq!(asked(argument), Some(Errno::EINVAL));
    argument.hwpt_id = hwpt;
    assert_eq!(asked(argument), Some(Errno::EINVAL));
    argument.data_len = 0;
    assert_eq!(asked(argument), None, "the reserved field is not looked at");
}

#[test]
fn types_of_viommus_are_the_profiles() {
    for &profile in Profile::ALL {
        let client = Client::open_as(profile);
        let device = Platform::new().bind(&client);
        let hwpt = client.nest_parent(device.id());
        let has = |r#type| client.viommu(r#type, device.id(), hwpt).map(drop);
        assert_eq!(has(SMMU), Ok(()), "{profile}");
        let realm = if profile == Profile::Linux73 { Err(Errno::EOPNOTSUPP) } else { Ok(()) };
        assert_eq!(has(REALM), realm, "{profile}");
        for none in [0, 2, 4, u32::MAX] {
            assert_eq!(has(none), Err(Errno::EOPNOTSUPP), "{profile} {none}");
        }
    }
}

struct Known(u64);

impl Vm for Known {
    fn id(&self) -> VmId {
        VmId(self.0)
    }
}

#[test]
fn a_confidential_guests_viommu_needs_a_vm_where_the_platform_insists() {
    let settings = ContextSettings { profile: Profile::Rfc, tvm: Tvm::Kvm };
    let client = Client::open_with(settings);
    let platform = Platform::new();
    let device = platform.bind(&client);
    let hwpt = client.nest_parent(device.id());
    assert_eq!(client.viommu(REALM, device.id(), hwpt), Err(Errno::EINVAL));
    assert!(client.viommu(SMMU, device.id(), hwpt).is_ok());
    let vm: Arc<dyn Vm> = Arc::new(Known(1));
    let linked = Device::bind_for(&client.ctx, &platform.pair[0], Some(Arc::clone(&vm))).unwrap();
    let viommu = client.viommu(REALM, linked.id(), hwpt).unwrap();
    linked.end();
    assert_eq!(Arc::strong_count(&linked), 1);
    drop(linked);
    assert_eq!(Arc::strong_count(&vm), 2, "the vIOMMU keeps the VM");
    client.destroy(viommu).unwrap();
    assert_eq!(Arc::strong_count(&vm), 1);
}

#[test]
fn a_viommu_that_cannot_be_told_of_is_not_there() {
    let Fixture { client, device, hwpt, viommu, .. } = Fixture::new();
    let argument = ViommuAlloc {
        size: 40,
        r#type: SMMU,
        dev_id: device.id(),
        hwpt_id: hwpt,
        ..ViommuAlloc::default()
    };
    let mut unwritable = client.thread(0);
    unwritable.at = READ_ONLY.start;
    unwritable.put(&argument, 40);
    let request = Command::of(CommandId::ViommuAlloc).request;
    assert_eq!(client.ctx.ioctl(&client, request, unwritable.at), Err(Errno::EFAULT));
    assert_eq!(client.ctx.counts().viommus, 1);
    client.destroy(viommu).unwrap();
    client.destroy(hwpt).unwrap();
}

#[test]
fn a_vdevice_is_refused_in_the_kernels_order() {
    let Fixture { client, platform, device, hwpt, viommu } = Fixture::new();
    let elsewhere = Platform::behind(plain()).bind_pair(&client);
    assert_eq!(client.vdevice(hwpt, 99, 1), Err(Errno::ENOENT), "no vIOMMU");
    assert_eq!(client.vdevice(viommu, 99, 1), Err(Errno::ENOENT));
    assert_eq!(client.vdevice(viommu, hwpt, 1), Err(Errno::ENOENT), "no device");
    let [foreign, _] = &elsewhere;
    foreign.begin_end();
    assert_eq!(client.vdevice(viommu, foreign.id(), 1), Err(Errno::EINVAL), "another IOMMU");
    let [first, second] = platform.bind_pair(&client);
    let vdevice = client.vdevice(viommu, device.id(), 1).unwrap();
    first.begin_end();
    assert_eq!(client.vdevice(viommu, first.id(), 1), Err(Errno::ENOENT), "ending");
    assert_eq!(client.vdevice(viommu, device.id(), 2), Err(Errno::EEXIST), "has one");
    assert_eq!(client.vdevice(viommu, second.id(), 1), Err(Errno::EEXIST), "number taken");
    for virt_id in [0, u64::MAX] {
        let other = client.vdevice(viommu, second.id(), virt_id).unwrap();
        client.destroy(other).unwrap();
    }
    client.destroy(vdevice).unwrap();
    let again = client.vdevice(viommu, second.id(), 1).unwrap();
    assert_eq!(again, vdevice, "the number and the id are free again");
}

#[test]
fn a_vdevice_that_cannot_be_told_of_is_taken_back() {
    let fixture = Fixture::new();
    let argument = VdeviceAlloc {
        size: 24,
        viommu_id: fixture.viommu,
        dev_id: fixture.device.id(),
        virt_id: 5,
        ..VdeviceAlloc::default()
    };
    let mut unwritable = fixture.client.thread(0);
    unwritable.at = READ_ONLY.start;
    unwritable.put(&argument, 24);
    let request = Command::of(CommandId::VdeviceAlloc).request;
    let answer = fixture.client.ctx.ioctl(&unwritable, request, unwritable.at);
    assert_eq!(answer, Err(Errno::EFAULT));
    let counts = fixture.client.ctx.counts();
    assert_eq!((counts.vdevices, counts.tombstones), (0, 0));
    fixture.client.destroy(fixture.vdevice(5).unwrap()).unwrap();
}

/// Trace B without nested page tables.
#[test]
fn each_object_keeps_what_it_is_built_on() {
    let Fixture { client, device, hwpt, viommu, .. } = Fixture::new();
    let vdevice = client.vdevice(viommu, device.id(), 1).unwrap();
    assert_eq!(client.destroy(viommu), Err(Errno::EBUSY));
    assert_eq!(client.destroy(hwpt), Err(Errno::EBUSY));
    assert_eq!(client.hwpt(device.id(), viommu, 0), Err(Errno::EOPNOTSUPP));
    assert_eq!(client.hwpt(device.id(), vdevice, 0), Err(Errno::EINVAL));
    for id in [viommu, vdevice] {
        assert_eq!(device.attach(id).map_err(|refusal| refusal.errno()), Err(Errno::EINVAL));
    }
    device.end();
    assert_eq!(client.destroy(vdevice), Err(Errno::ENOENT));
    client.destroy(viommu).unwrap();
    client.destroy(hwpt).unwrap();
    let counts = client.ctx.counts();
    assert_eq!((counts.objects(), counts.tombstones), (1, 1));
    let ids: Vec<_> = (0..6).map(|_| client.ioas()).collect();
    assert!(!ids.contains(&vdevice), "{vdevice} in {ids:?}");
}

#[test]
fn a_vdevice_can_go_first_and_its_id_comes_back() {
    let fixture = Fixture::new();
    let vdevice = fixture.vdevice(1).unwrap();
    fixture.client.destroy(vdevice).unwrap();
    assert_eq!(fixture.client.destroy(vdevice), Err(Errno::ENOENT));
    assert_eq!(fixture.vdevice(2), Ok(vdevice));
    fixture.device.begin_end();
    fixture.device.begin_end();
    assert_eq!(fixture.client.destroy(vdevice), Err(Errno::ENOENT));
    assert_eq!(fixture.vdevice(3), Err(Errno::ENOENT));
    fixture.device.end();
    assert_eq!(fixture.client.ctx.counts().tombstones, 1);
    fixture.client.destroy(fixture.viommu).unwrap();
    fixture.client.destroy(fixture.hwpt).unwrap();
    fixture.client.ctx.put_file();
    let left = fixture.client.ctx.counts();
    assert_eq!((left.ioases, left.objects(), left.tombstones), (1, 1, 1));
}

/// The device begins to end after its vdevice was linked to it, and before that is published.
#[test]
fn a_vdevice_is_not_published_on_a_device_that_is_ending() {
    let fixture = Fixture::new();
    let (device, ioas) = (Arc::clone(&fixture.device), fixture.client.ioas());
    let (go, wait_go) = channel();
    let (gone, wait_gone) = channel();
    let made = std::thread::scope(|scope| {
        let ending = Arc::clone(&device);
        scope.spawn(move || {
            wait_go.recv().unwrap();
            ending.begin_end();
            gone.send(()).unwrap();
        });
        let begin_end = move || {
            go.send(()).unwrap();
            while device.attach(ioas).is_ok() {
                std::thread::yield_now();
            }
        };
        BeforeLock::<rank::Group>::run_before(2, begin_end, || fixture.vdevice(1))
    });
    assert_eq!(made, Err(Errno::ENOENT));
    wait_gone.recv().unwrap();
    fixture.device.end();
    let counts = fixture.client.ctx.counts();
    assert_eq!((counts.vdevices, counts.tombstones), (0, 0));
    fixture.client.destroy(fixture.viommu).unwrap();
}

#[test]
fn closing_ends_a_viommu_before_what_it_is_over() {
    let Fixture { client, device, viommu, .. } = Fixture::new();
    client.vdevice(viommu, device.id(), 1).unwrap();
    client.ctx.put_file();
    assert_eq!(client.ctx.counts().vdevices, 1, "the device keeps the context open");
    device.end();
    assert_eq!(Arc::strong_count(&device), 1, "nobody remembers it");
    let left = client.ctx.counts();
    assert_eq!((left.viommus, left.vdevices, left.hwpts, left.tombstones), (1, 0, 1, 1));
}

#[test]
fn a_page_table_of_another_iommu_carries_no_viommu() {
    let client = Client::open();
    let mut narrow = plain();
    narrow.page_sizes = 1 << 12;
    let (wide, narrow) = (Platform::new().bind(&client), Platform::behind(narrow).bind(&client));
    let hwpt = client.nest_parent(wide.id());
    assert_eq!(client.viommu(SMMU, narrow.id(), hwpt), Err(Errno::EINVAL));
    let nested = client.hwpt(wide.id(), hwpt, hwpt_flags::NEST_PARENT);
    assert_eq!(nested, Err(Errno::EOPNOTSUPP));
}
