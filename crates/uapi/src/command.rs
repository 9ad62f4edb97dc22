//! The one table of commands: every ioctl of iommufd and VFIO in Linux 7.3, a row each.
//!
//! Dispatch, seccomp filters, traces, fuzz targets and tests read [`COMMANDS`]; there is no second list.
//! A row that is not served is a hole: `/dev/iommu` answers `EFAULT` where the size cannot be read, else
//! `ENOTTY`, and checks no size. Takes no lock. Deliberately absent: handlers, and the commands of
//! other architectures (sPAPR TCE, EEH).
//!
//! Numbers of one file may mean another command on another file: `0x3b71` is `VFIO_DEVICE_PCI_HOT_RESET` on a
//! device and `VFIO_IOMMU_MAP_DMA` on a container. `/dev/iommu` also takes a container's commands: its
//! own numbers start at `0x3b80`, and for those below it a dispatcher looks under
//! [`FileKind::VfioContainer`].

use crate::profile::{Profile, Profiles};
use crate::{Layout, iommufd, vfio};

/// What there is to know about a command before it is run.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// The number that `ioctl` takes.
    pub request: u32,
    /// The macro's name in the kernel's headers.
    pub name: &'static str,
    /// Which row this is.
    pub id: CommandId,
    /// The kind of file that answers it.
    pub file: FileKind,
    /// The struct that the argument points to; `None` where there is none.
    pub argument: Option<&'static Layout>,
    /// Bytes of the struct as Linux 7.3 knows it, without a trailing array; 0 where there is none.
    pub size: u32,
    /// The least `size` or `argsz` accepted, in bytes: the struct's end in its first version. Flags may ask
    /// for more. 0 where there is no struct.
    pub min_size: u32,
    /// What is asked of the size that a caller states.
    pub rule: SizeRule,
    /// Whether it can wait for a device, for running commands or for DMA under way.
    pub may_wait: bool,
    /// Whether anything answers it.
    pub served: bool,
    /// Where it exists.
    pub profiles: Profiles,
}

/// A kind of open file that has commands of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// `/dev/iommu`.
    Iommufd,
    /// `/dev/vfio/devices/vfioN`, or a device opened through its group.
    VfioDevice,
    /// `/dev/vfio/N`.
    VfioGroup,
    /// `/dev/vfio/vfio`.
    VfioContainer,
    /// The data stream of a migration.
    MigrationData,
}

/// What a command asks of its argument's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeRule {
    /// The first word is `size`: unreadable `EFAULT`, less than `min_size` `EINVAL`. More than the struct has is
    /// accepted where the rest is zero, else `E2BIG`. Less is filled up with zeros.
    Extensible,
    /// As [`Extensible`](Self::Extensible), and the first word is `argsz`.
    ExtensibleArgsz,
    /// The first word is `argsz`: `min_size` bytes are read before it is looked at (unreadable `EFAULT`), less than
    /// `min_size` is `EINVAL`, any more is accepted.
    Argsz,
    /// The argument points to something without a size: a file descriptor, a string, an id.
    Pointer,
    /// The argument is itself the value.
    Value,
    /// The argument is not looked at.
    None,
}

/// Finds the command that `request` means on a file of this kind, in this profile. Rows that are not
/// served are found too. [`None`] means `ENOTTY`.
pub fn lookup(file: FileKind, profile: Profile, request: u32) -> Option<&'static Command> {
    let first = COMMANDS.partition_point(|row| (row.file, row.request) < (file, request));
    COMMANDS[first..]
        .iter()
        .take_while(|row| row.file == file && row.request == request)
        .find(|row| row.profiles.contains(profile))
}

impl Command {
    /// The command of this id.
    pub fn of(id: CommandId) -> &'static Self {
        &COMMANDS[id as usize]
    }
}

/// What all request numbers begin with: `_IO(';', 0)`.
const BASE: u32 = 0x3b00;

macro_rules! commands {
    ($( $file:ident { $(
        $(#[$note:meta])*
        $number:literal $name:ident $id:ident $rule:ident $(($module:ident::$argument:ident ..= $last:ident))?
            $wait:ident $service:ident $profiles:expr;
    )* } )*) => {
        /// A row of [`COMMANDS`], by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum CommandId {
            $($(
                #[doc = concat!("`", stringify!($name), "`, ", stringify!($number), ".")]
                $(#[$note])*
                $id,
            )*)*
        }

        /// Every command, by file and number.
        pub const COMMANDS: &[Command] = &[$($(
            Command {
                request: BASE | $number,
                name: stringify!($name),
                id: CommandId::$id,
                file: FileKind::$file,
                argument: argument!($(&$module::$argument::LAYOUT)?),
                size: bytes(argument_size!($(size_of::<$module::$argument>())?)),
                min_size: bytes(argument_size!($(
                    std::mem::offset_of!($module::$argument, $last)
                        + $crate::abi::size_of_field(|from: &$module::$argument| &from.$last)
                )?)),
                rule: SizeRule::$rule,
                may_wait: waits!($wait),
                served: served!($service),
                profiles: $profiles,
            },
        )*)*];
    };
}

macro_rules! argument {
    () => {
        None
    };
    ($layout:expr) => {
        Some($layout)
    };
}

macro_rules! argument_size {
    () => {
        0
    };
    ($size:expr) => {
        $size
    };
}

macro_rules! waits {
    (waits) => {
        true
    };
    (quick) => {
        false
    };
}

macro_rules! served {
    (served) => {
        true
    };
    (hole) => {
        false
    };
}

#[expect(clippy::cast_possible_truncation, reason = "asserted on the line before")]
const fn bytes(size: usize) -> u32 {
    assert!(size <= 0xffff);
    size as u32
}

const ALL: Profiles = Profiles::ALL;

commands! {
    // nr, kernel name, id, size rule (struct ..= last field of its first version), waits?, served?, profiles
    Iommufd {
        /// Waits until no running command holds the object; a vdevice also unbinds.
        0x80 IOMMU_DESTROY Destroy Extensible(iommufd::Destroy ..= id) waits served ALL;
        0x81 IOMMU_IOAS_ALLOC IoasAlloc Extensible(iommufd::IoasAlloc ..= out_ioas_id) quick served ALL;
        0x82 IOMMU_IOAS_ALLOW_IOVAS IoasAllowIovas Extensible(iommufd::IoasAllowIovas ..= allowed_iovas) quick hole ALL;
        0x83 IOMMU_IOAS_COPY IoasCopy Extensible(iommufd::IoasCopy ..= src_iova) quick hole ALL;
        0x84 IOMMU_IOAS_IOVA_RANGES IoasIovaRanges Extensible(iommufd::IoasIovaRanges ..= out_iova_alignment) quick served ALL;
        /// Pinning copies nothing and asks no device; where it touches the caller's memory it waits no
        /// longer than any copy from it does.
        0x85 IOMMU_IOAS_MAP IoasMap Extensible(iommufd::IoasMap ..= iova) quick served ALL;
        /// Returns after the DMA that uses the mapping.
        0x86 IOMMU_IOAS_UNMAP IoasUnmap Extensible(iommufd::IoasUnmap ..= length) waits served ALL;
        0x87 IOMMU_OPTION IommuOption Extensible(iommufd::IommuOption ..= val64) quick hole ALL;
        0x88 IOMMU_VFIO_IOAS VfioIoas Extensible(iommufd::VfioIoas ..= reserved) quick hole ALL;
        /// Attaches for a moment, hence may detach.
        0x89 IOMMU_HWPT_ALLOC HwptAlloc Extensible(iommufd::HwptAlloc ..= reserved) waits served ALL;
        0x8a IOMMU_GET_HW_INFO GetHwInfo Extensible(iommufd::HwInfo ..= reserved) quick served ALL;
        /// Returns after the DMA that began untracked.
        0x8b IOMMU_HWPT_SET_DIRTY_TRACKING HwptSetDirtyTracking Extensible(iommufd::HwptSetDirtyTracking ..= reserved) waits hole ALL;
        /// Returns after the DMA that marks what is being read.
        0x8c IOMMU_HWPT_GET_DIRTY_BITMAP HwptGetDirtyBitmap Extensible(iommufd::HwptGetDirtyBitmap ..= data) waits hole ALL;
        /// Returns after the DMA that uses what is dropped.
        0x8d IOMMU_HWPT_INVALIDATE HwptInvalidate Extensible(iommufd::HwptInvalidate ..= reserved) waits hole ALL;
        0x8e IOMMU_FAULT_QUEUE_ALLOC FaultQueueAlloc Extensible(iommufd::FaultAlloc ..= out_fault_fd) quick hole ALL;
        0x8f IOMMU_IOAS_MAP_FILE IoasMapFile Extensible(iommufd::IoasMapFile ..= iova) quick served ALL;
        0x90 IOMMU_VIOMMU_ALLOC ViommuAlloc Extensible(iommufd::ViommuAlloc ..= out_viommu_id) waits hole ALL;
        /// Where the profile binds here, waits for the device.
        0x91 IOMMU_VDEVICE_ALLOC VdeviceAlloc Extensible(iommufd::VdeviceAlloc ..= virt_id) waits hole ALL;
        /// Takes every address space of the context.
        0x92 IOMMU_IOAS_CHANGE_PROCESS IoasChangeProcess Extensible(iommufd::IoasChangeProcess ..= reserved) waits hole ALL;
        0x93 IOMMU_VEVENTQ_ALLOC VeventqAlloc Extensible(iommufd::VeventqAlloc ..= out_veventq_fd) waits hole ALL;
        0x94 IOMMU_HW_QUEUE_ALLOC HwQueueAlloc Extensible(iommufd::HwQueueAlloc ..= length) waits hole Profiles::except(&[Profile::Rfc2025_05]);
        0x94 IOMMU_VDEVICE_GUEST_REQUEST VdeviceGuestRequest Extensible(iommufd::GuestRequest ..= resp_uptr) waits hole Profiles::of(&[Profile::Rfc2025_05]);
        0x95 IOMMU_IOAS_NOIOMMU_GET_PA IoasNoiommuGetPa Extensible(iommufd::IoasNoiommuGetPa ..= out_phys) quick hole Profiles::of(&[Profile::Linux73]);
        0x95 IOMMU_VDEVICE_TSM_OP VdeviceTsmOp Extensible(iommufd::TsmOp ..= vdevice_id) waits hole Profiles::of(&[Profile::Rfc, Profile::RfcV5_2026_05]);
        0x96 IOMMU_VDEVICE_TSM_REQ VdeviceTsmReq Extensible(iommufd::TsmReq ..= tsm_code) waits hole Profiles::of(&[Profile::Rfc, Profile::RfcV7_2026_10]);
        /// In the layout of v5.
        0x96 IOMMU_VDEVICE_TSM_REQ VdeviceTsmReqV5 Extensible(iommufd::TsmReqV5 ..= resp_uptr) waits hole Profiles::of(&[Profile::RfcV5_2026_05]);
        /// Only in kernels built for testing: in no profile, so that no lookup finds it.
        0xa0 IOMMU_TEST_CMD TestCmd Extensible(iommufd::TestCmd ..= last) waits hole Profiles::NONE;
    }
    VfioDevice {
        0x6b VFIO_DEVICE_GET_INFO DeviceGetInfo Argsz(vfio::DeviceInfo ..= num_irqs) quick served ALL;
        0x6c VFIO_DEVICE_GET_REGION_INFO DeviceGetRegionInfo Argsz(vfio::RegionInfo ..= offset) quick served ALL;
        0x6d VFIO_DEVICE_GET_IRQ_INFO DeviceGetIrqInfo Argsz(vfio::IrqInfo ..= count) quick served ALL;
        /// `argsz` must also cover the data that `flags` and `count` ask for (`EINVAL`).
        0x6e VFIO_DEVICE_SET_IRQS DeviceSetIrqs Argsz(vfio::IrqSet ..= count) quick served ALL;
        0x6f VFIO_DEVICE_RESET DeviceReset None waits served ALL;
        /// `argsz` must also cover the devices listed (`ENOSPC`).
        0x70 VFIO_DEVICE_GET_PCI_HOT_RESET_INFO DeviceGetPciHotResetInfo Argsz(vfio::HotResetInfo ..= count) quick served ALL;
        0x71 VFIO_DEVICE_PCI_HOT_RESET DevicePciHotReset Argsz(vfio::HotReset ..= count) waits served ALL;
        0x72 VFIO_DEVICE_QUERY_GFX_PLANE DeviceQueryGfxPlane Argsz(vfio::GfxPlaneInfo ..= region_index) quick hole ALL;
        0x73 VFIO_DEVICE_GET_GFX_DMABUF DeviceGetGfxDmabuf Pointer quick hole ALL;
        0x74 VFIO_DEVICE_IOEVENTFD DeviceIoeventfd Argsz(vfio::Ioeventfd ..= fd) quick hole ALL;
        /// `argsz` must also cover the feature's data (`EINVAL`). Some features stop or wake the device.
        0x75 VFIO_DEVICE_FEATURE DeviceFeature Argsz(vfio::Feature ..= flags) waits served ALL;
        /// 24 bytes with a token; `argsz` 16 is its first version.
        0x76 VFIO_DEVICE_BIND_IOMMUFD DeviceBindIommufd ExtensibleArgsz(vfio::BindIommufd ..= out_devid) waits served ALL;
        /// 16 bytes where `flags` say PASID (`EINVAL`).
        0x77 VFIO_DEVICE_ATTACH_IOMMUFD_PT DeviceAttachIommufdPt Argsz(vfio::AttachIommufdPt ..= pt_id) waits served ALL;
        /// 12 bytes where `flags` say PASID (`EINVAL`).
        0x78 VFIO_DEVICE_DETACH_IOMMUFD_PT DeviceDetachIommufdPt Argsz(vfio::DetachIommufdPt ..= flags) waits served ALL;
        0x7a VFIO_DEVICE_TSM_BIND DeviceTsmBind Argsz(vfio::TsmBind ..= vdevice_id) waits hole Profiles::of(&[Profile::Rfc2025_05]);
        0x7b VFIO_DEVICE_TSM_UNBIND DeviceTsmUnbind Argsz(vfio::TsmUnbind ..= flags) waits hole Profiles::of(&[Profile::Rfc2025_05]);
    }
    VfioGroup {
        0x67 VFIO_GROUP_GET_STATUS GroupGetStatus Argsz(vfio::GroupStatus ..= flags) quick hole ALL;
        0x68 VFIO_GROUP_SET_CONTAINER GroupSetContainer Pointer quick hole ALL;
        0x69 VFIO_GROUP_UNSET_CONTAINER GroupUnsetContainer None waits hole ALL;
        /// Binds and attaches.
        0x6a VFIO_GROUP_GET_DEVICE_FD GroupGetDeviceFd Pointer waits hole ALL;
    }
    VfioContainer {
        0x64 VFIO_GET_API_VERSION GetApiVersion None quick hole ALL;
        0x65 VFIO_CHECK_EXTENSION CheckExtension Value quick hole ALL;
        0x66 VFIO_SET_IOMMU SetIommu Value quick hole ALL;
        0x70 VFIO_IOMMU_GET_INFO IommuGetInfo Argsz(vfio::IommuType1Info ..= iova_pgsizes) quick hole ALL;
        0x71 VFIO_IOMMU_MAP_DMA IommuMapDma Argsz(vfio::IommuType1DmaMap ..= size) quick hole ALL;
        0x72 VFIO_IOMMU_UNMAP_DMA IommuUnmapDma Argsz(vfio::IommuType1DmaUnmap ..= size) waits hole ALL;
        /// Only where the kernel's own type1 serves the container; `/dev/iommu` does not have it.
        0x75 VFIO_IOMMU_DIRTY_PAGES IommuDirtyPages Argsz(vfio::IommuType1DirtyBitmap ..= flags) waits hole ALL;
    }
    MigrationData {
        0x79 VFIO_MIG_GET_PRECOPY_INFO MigGetPrecopyInfo Argsz(vfio::PrecopyInfo ..= dirty_bytes) quick hole ALL;
    }
}
