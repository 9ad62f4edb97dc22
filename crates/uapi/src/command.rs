//! The one table of commands: every ioctl of iommufd and VFIO in Linux 7.3, a row each.
//!
//! Dispatch, seccomp filters, traces, fuzz targets and tests read [`COMMANDS`]; there is no second
//! list. A row that is not served is a hole: `/dev/iommu` answers `EFAULT` where the size cannot be
//! read, else `ENOTTY`, and checks no size. Takes no lock. Deliberately absent: handlers, and the
//! commands of other architectures (sPAPR TCE, EEH).
//!
//! Numbers of one file may mean another command on another file: `0x3b71` is
//! `VFIO_DEVICE_PCI_HOT_RESET` on a device and `VFIO_IOMMU_MAP_DMA` on a container. `/dev/iommu`
//! also takes a container's commands: its own numbers start at `0x3b80`, and for those below it a
//! dispatcher looks under [`FileKind::VfioContainer`].

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
    /// The least `size` or `argsz` accepted, in bytes: the struct's end in its first version. Flags
    /// may ask for more. 0 where there is no struct.
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
    /// The first word is `size`: unreadable `EFAULT`, less than `min_size` `EINVAL`. More than the
    /// struct has is accepted where the rest is zero, else `E2BIG`. Less is filled up with zeros.
    Extensible,
    /// As [`Extensible`](Self::Extensible), and the first word is `argsz`.
    ExtensibleArgsz,
    /// The first word is `argsz`: `min_size` bytes are read before it is looked at (unreadable
    /// `EFAULT`), less than `min_size` is `EINVAL`, any more is accepted.
    Argsz,
    /// The argument points to something without a size: a file descriptor, a string, an id.
    Pointer,
    /// The argument is itself the value.
    Value,
    /// The argument is not looked at.
    None,
}

/// Finds the command that `request` means on a file of this kind, in this profile. Rows that are
/// not served are found too. [`None`] means `ENOTTY`.
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
    ($( $file:ident ($module:ident) { $(
        $(#[$note:meta])*
        $number:literal $name:ident $id:ident $wait:ident $service:ident $profiles:ident
            $rule:ident $(($argument:ident ..= $last:ident))?;
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
                profiles: profiles::$profiles,
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

/// Where rows and constants exist, in the words of the tables.
pub(crate) mod profiles {
    use super::{Profile, Profiles};

    pub(crate) const ALL: Profiles = Profiles::ALL;
    pub(crate) const NONE: Profiles = Profiles::NONE;
    pub(crate) const LINUX_73: Profiles = Profiles::of(&[Profile::Linux73]);
    pub(crate) const RFC_2025: Profiles = Profiles::of(&[Profile::Rfc2025_05]);
    pub(crate) const NOT_2025: Profiles = Profiles::except(&[Profile::Rfc2025_05]);
    pub(crate) const TSM_OP: Profiles = Profiles::of(&[Profile::Rfc, Profile::RfcV5_2026_05]);
    pub(crate) const TSM_REQ: Profiles = Profiles::of(&[Profile::Rfc, Profile::RfcV7_2026_10]);
    pub(crate) const TSM_REQ_V5: Profiles = Profiles::of(&[Profile::RfcV5_2026_05]);
    pub(crate) const REALM: Profiles = Profiles::except(&[Profile::Linux73]);
}

commands! {
    // number, kernel name, id, waits?, served?, profiles
    //     size rule (struct ..= last field of its first version)
    Iommufd (iommufd) {
        /// Waits until no running command holds the object; a vdevice also unbinds.
        0x80 IOMMU_DESTROY Destroy waits served ALL
            Extensible(Destroy ..= id);
        0x81 IOMMU_IOAS_ALLOC IoasAlloc quick served ALL
            Extensible(IoasAlloc ..= out_ioas_id);
        0x82 IOMMU_IOAS_ALLOW_IOVAS IoasAllowIovas quick served ALL
            Extensible(IoasAllowIovas ..= allowed_iovas);
        0x83 IOMMU_IOAS_COPY IoasCopy quick served ALL
            Extensible(IoasCopy ..= src_iova);
        0x84 IOMMU_IOAS_IOVA_RANGES IoasIovaRanges quick served ALL
            Extensible(IoasIovaRanges ..= out_iova_alignment);
        /// Pinning asks no device and no other thread. It may touch the caller's memory, and waits
        /// for that no longer than reading the argument did.
        0x85 IOMMU_IOAS_MAP IoasMap quick served ALL
            Extensible(IoasMap ..= iova);
        /// Returns after the DMA that uses the mapping.
        0x86 IOMMU_IOAS_UNMAP IoasUnmap waits served ALL
            Extensible(IoasUnmap ..= length);
        0x87 IOMMU_OPTION IommuOption quick served ALL
            Extensible(IommuOption ..= val64);
        0x88 IOMMU_VFIO_IOAS VfioIoas quick served ALL
            Extensible(VfioIoas ..= reserved);
        /// Attaches for a moment, hence may detach.
        0x89 IOMMU_HWPT_ALLOC HwptAlloc waits served ALL
            Extensible(HwptAlloc ..= reserved);
        0x8a IOMMU_GET_HW_INFO GetHwInfo quick served ALL
            Extensible(HwInfo ..= reserved);
        /// Returns after the DMA that began untracked.
        0x8b IOMMU_HWPT_SET_DIRTY_TRACKING HwptSetDirtyTracking waits served ALL
            Extensible(HwptSetDirtyTracking ..= reserved);
        /// Returns after the DMA that marks what is being read.
        0x8c IOMMU_HWPT_GET_DIRTY_BITMAP HwptGetDirtyBitmap waits served ALL
            Extensible(HwptGetDirtyBitmap ..= data);
        /// Returns after the DMA that uses what is dropped.
        0x8d IOMMU_HWPT_INVALIDATE HwptInvalidate waits served ALL
            Extensible(HwptInvalidate ..= reserved);
        0x8e IOMMU_FAULT_QUEUE_ALLOC FaultQueueAlloc quick served ALL
            Extensible(FaultAlloc ..= out_fault_fd);
        0x8f IOMMU_IOAS_MAP_FILE IoasMapFile quick served ALL
            Extensible(IoasMapFile ..= iova);
        0x90 IOMMU_VIOMMU_ALLOC ViommuAlloc waits served ALL
            Extensible(ViommuAlloc ..= out_viommu_id);
        /// Where the profile binds here, waits for the device.
        0x91 IOMMU_VDEVICE_ALLOC VdeviceAlloc waits served ALL
            Extensible(VdeviceAlloc ..= virt_id);
        /// Takes every address space of the context.
        0x92 IOMMU_IOAS_CHANGE_PROCESS IoasChangeProcess waits served ALL
            Extensible(IoasChangeProcess ..= reserved);
        0x93 IOMMU_VEVENTQ_ALLOC VeventqAlloc waits served ALL
            Extensible(VeventqAlloc ..= out_veventq_fd);
        0x94 IOMMU_HW_QUEUE_ALLOC HwQueueAlloc waits served NOT_2025
            Extensible(HwQueueAlloc ..= length);
        0x94 IOMMU_VDEVICE_TSM_GUEST_REQUEST VdeviceTsmGuestRequest waits served RFC_2025
            Extensible(TsmGuestRequest ..= resp_uptr);
        0x95 IOMMU_IOAS_NOIOMMU_GET_PA IoasNoiommuGetPa quick served LINUX_73
            Extensible(IoasNoiommuGetPa ..= out_phys);
        0x95 IOMMU_VDEVICE_TSM_OP VdeviceTsmOp waits served TSM_OP
            Extensible(TsmOp ..= vdevice_id);
        0x96 IOMMU_VDEVICE_TSM_REQ VdeviceTsmReq waits served TSM_REQ
            Extensible(TsmReq ..= tsm_code);
        /// In the layout of v5.
        0x96 IOMMU_VDEVICE_TSM_REQ VdeviceTsmReqV5 waits served TSM_REQ_V5
            Extensible(TsmReqV5 ..= resp_uptr);
        /// Only in kernels built for testing: in no profile, so that no lookup finds it.
        0xa0 IOMMU_TEST_CMD TestCmd waits hole NONE
            Extensible(TestCmd ..= last);
    }
    VfioDevice (vfio) {
        0x6b VFIO_DEVICE_GET_INFO DeviceGetInfo quick served ALL
            Argsz(DeviceInfo ..= num_irqs);
        0x6c VFIO_DEVICE_GET_REGION_INFO DeviceGetRegionInfo quick served ALL
            Argsz(RegionInfo ..= offset);
        0x6d VFIO_DEVICE_GET_IRQ_INFO DeviceGetIrqInfo quick served ALL
            Argsz(IrqInfo ..= count);
        /// `argsz` must also cover the data that `flags` and `count` ask for (`EINVAL`).
        0x6e VFIO_DEVICE_SET_IRQS DeviceSetIrqs quick served ALL
            Argsz(IrqSet ..= count);
        0x6f VFIO_DEVICE_RESET DeviceReset waits served ALL
            None;
        /// `argsz` must also cover the devices listed (`ENOSPC`).
        0x70 VFIO_DEVICE_GET_PCI_HOT_RESET_INFO DeviceGetPciHotResetInfo quick served ALL
            Argsz(HotResetInfo ..= count);
        0x71 VFIO_DEVICE_PCI_HOT_RESET DevicePciHotReset waits served ALL
            Argsz(HotReset ..= count);
        0x72 VFIO_DEVICE_QUERY_GFX_PLANE DeviceQueryGfxPlane quick hole ALL
            Argsz(GfxPlaneInfo ..= region_index);
        0x73 VFIO_DEVICE_GET_GFX_DMABUF DeviceGetGfxDmabuf quick hole ALL
            Pointer;
        0x74 VFIO_DEVICE_IOEVENTFD DeviceIoeventfd waits served ALL
            Argsz(Ioeventfd ..= fd);
        /// `argsz` must also cover the feature's data (`EINVAL`). Some features stop or wake the
        /// device.
        0x75 VFIO_DEVICE_FEATURE DeviceFeature waits served ALL
            Argsz(Feature ..= flags);
        /// 24 bytes with a token; `argsz` 16 is its first version.
        0x76 VFIO_DEVICE_BIND_IOMMUFD DeviceBindIommufd waits served ALL
            ExtensibleArgsz(BindIommufd ..= out_devid);
        /// 16 bytes where `flags` say PASID (`EINVAL`).
        0x77 VFIO_DEVICE_ATTACH_IOMMUFD_PT DeviceAttachIommufdPt waits served ALL
            Argsz(AttachIommufdPt ..= pt_id);
        /// 12 bytes where `flags` say PASID (`EINVAL`).
        0x78 VFIO_DEVICE_DETACH_IOMMUFD_PT DeviceDetachIommufdPt waits served ALL
            Argsz(DetachIommufdPt ..= flags);
        0x7a VFIO_DEVICE_TSM_BIND DeviceTsmBind waits served RFC_2025
            Argsz(TsmBind ..= vdevice_id);
        0x7b VFIO_DEVICE_TSM_UNBIND DeviceTsmUnbind waits served RFC_2025
            Argsz(TsmUnbind ..= flags);
    }
    VfioGroup (vfio) {
        0x67 VFIO_GROUP_GET_STATUS GroupGetStatus quick served ALL
            Argsz(GroupStatus ..= flags);
        0x68 VFIO_GROUP_SET_CONTAINER GroupSetContainer waits served ALL
            Pointer;
        0x69 VFIO_GROUP_UNSET_CONTAINER GroupUnsetContainer waits served ALL
            None;
        /// Binds and attaches.
        0x6a VFIO_GROUP_GET_DEVICE_FD GroupGetDeviceFd waits served ALL
            Pointer;
    }
    VfioContainer (vfio) {
        0x64 VFIO_GET_API_VERSION GetApiVersion quick served ALL
            None;
        0x65 VFIO_CHECK_EXTENSION CheckExtension quick served ALL
            Value;
        0x66 VFIO_SET_IOMMU SetIommu waits served ALL
            Value;
        0x70 VFIO_IOMMU_GET_INFO IommuGetInfo quick served ALL
            Argsz(IommuType1Info ..= iova_pgsizes);
        0x71 VFIO_IOMMU_MAP_DMA IommuMapDma waits served ALL
            Argsz(IommuType1DmaMap ..= size);
        0x72 VFIO_IOMMU_UNMAP_DMA IommuUnmapDma waits served ALL
            Argsz(IommuType1DmaUnmap ..= size);
        /// Only where the kernel's own type1 serves the container; `/dev/iommu` does not have it.
        0x75 VFIO_IOMMU_DIRTY_PAGES IommuDirtyPages waits served ALL
            Argsz(IommuType1DirtyBitmap ..= flags);
    }
    MigrationData (vfio) {
        0x79 VFIO_MIG_GET_PRECOPY_INFO MigGetPrecopyInfo quick hole ALL
            Argsz(PrecopyInfo ..= dirty_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_stand_at_their_id() {
        assert!(COMMANDS.is_sorted_by_key(|row| (row.file, row.request)));
        for row in COMMANDS {
            assert_eq!(Command::of(row.id).id, row.id, "{}", row.name);
        }
    }

    #[test]
    fn a_number_names_one_command_in_a_profile() {
        for row in COMMANDS {
            for &profile in Profile::ALL {
                let alike = COMMANDS.iter().filter(|other| {
                    other.file == row.file
                        && other.request == row.request
                        && other.profiles.contains(profile)
                });
                let found = lookup(row.file, profile, row.request).map(|found| found.id);
                match alike.collect::<Vec<_>>()[..] {
                    [] => assert_eq!(found, None, "{} in {profile}", row.name),
                    [only] => assert_eq!(found, Some(only.id), "{} in {profile}", row.name),
                    _ => panic!("{} is ambiguous in {profile}", row.name),
                }
            }
        }
    }

    #[test]
    fn only_the_exact_number_on_the_right_file_is_found() {
        let rows = [(FileKind::Iommufd, 0x3b80..=0x3b96), (FileKind::VfioDevice, 0x3b6b..=0x3b78)];
        for (file, numbers) in rows {
            for request in (0..=0xffff_u32).chain([0x4018_3b85, 0x8000_3b85, 0xc000_3b6b, u32::MAX])
            {
                let found = lookup(file, Profile::Rfc, request).is_some();
                assert_eq!(found, numbers.contains(&request), "{request:#x} on {file:?}");
            }
        }
    }

    #[test]
    fn numbers_that_profiles_dispute() {
        use CommandId::*;
        // From 0x3b94 on.
        let expected = [
            (Profile::Rfc, [Some(HwQueueAlloc), Some(VdeviceTsmOp), Some(VdeviceTsmReq)]),
            (Profile::Linux73, [Some(HwQueueAlloc), Some(IoasNoiommuGetPa), None]),
            (
                Profile::RfcV5_2026_05,
                [Some(HwQueueAlloc), Some(VdeviceTsmOp), Some(VdeviceTsmReqV5)],
            ),
            (Profile::RfcV7_2026_10, [Some(HwQueueAlloc), None, Some(VdeviceTsmReq)]),
            (Profile::Rfc2025_05, [Some(VdeviceTsmGuestRequest), None, None]),
        ];
        assert_eq!(expected.map(|(profile, _)| profile), Profile::ALL);
        for (profile, ids) in expected {
            let found = |request| lookup(FileKind::Iommufd, profile, request).map(|row| row.id);
            assert_eq!([0x3b94, 0x3b95, 0x3b96].map(found), ids, "{profile}");
            assert_eq!(found(0x3ba0), None, "{profile}");
        }
        for request in [0x3b7a, 0x3b7b] {
            let has = |profile: &Profile| lookup(FileKind::VfioDevice, *profile, request).is_some();
            let holders: Vec<_> = Profile::ALL.iter().copied().filter(has).collect();
            assert_eq!(holders, [Profile::Rfc2025_05], "{request:#x}");
        }
    }

    #[test]
    fn what_is_served() {
        use CommandId::*;
        let served = COMMANDS.iter().filter(|row| row.served);
        for row in served.clone() {
            let sized = ![SizeRule::None, SizeRule::Value, SizeRule::Pointer].contains(&row.rule);
            assert_eq!(row.argument.is_some(), sized, "{}", row.name);
        }
        let partly: Vec<_> =
            served.clone().filter(|row| row.profiles != Profiles::ALL).map(|row| row.id).collect();
        let of_iommufd = [
            HwQueueAlloc,
            VdeviceTsmGuestRequest,
            IoasNoiommuGetPa,
            VdeviceTsmOp,
            VdeviceTsmReq,
            VdeviceTsmReqV5,
        ];
        assert_eq!(partly, [&of_iommufd[..], &[DeviceTsmBind, DeviceTsmUnbind]].concat());
        let quick: Vec<_> = served.filter(|row| !row.may_wait).map(|row| row.id).collect();
        // Those that a listener answers with no other behind it: each must keep its promise.
        let promised = [
            IoasAlloc,
            IoasAllowIovas,
            IoasCopy,
            IoasIovaRanges,
            IoasMap,
            IommuOption,
            VfioIoas,
            GetHwInfo,
            FaultQueueAlloc,
            IoasMapFile,
            IoasNoiommuGetPa,
            DeviceGetInfo,
            DeviceGetRegionInfo,
            DeviceGetIrqInfo,
            DeviceSetIrqs,
            DeviceGetPciHotResetInfo,
            GroupGetStatus,
            GetApiVersion,
            CheckExtension,
            IommuGetInfo,
        ];
        assert_eq!(quick, promised);
    }

    #[test]
    fn numbers_have_the_common_base() {
        for row in COMMANDS {
            assert_eq!(row.request & !0xff, 0x3b00, "{}", row.name);
            let of_iommufd = row.file == FileKind::Iommufd;
            assert_eq!(row.request >= 0x3b80, of_iommufd, "{}", row.name);
        }
    }

    #[test]
    fn sizes_agree_with_structs_and_rules() {
        for row in COMMANDS {
            assert!(row.min_size <= row.size, "{}", row.name);
            let sized = match row.rule {
                SizeRule::Extensible => Some("size"),
                SizeRule::ExtensibleArgsz | SizeRule::Argsz => Some("argsz"),
                SizeRule::Pointer | SizeRule::Value | SizeRule::None => None,
            };
            assert_eq!(row.argument.map(|layout| layout.fields[0].name), sized, "{}", row.name);
            assert_eq!(row.size as usize, row.argument.map_or(0, |layout| layout.size));
            // The size and something else: nothing else is worth sending.
            assert_eq!(row.min_size >= 8, sized.is_some(), "{}", row.name);
            let ends = |layout: &Layout| {
                layout.fields.iter().any(|f| f.offset + f.size == row.min_size as usize)
            };
            assert!(row.argument.is_none_or(ends), "{} ends inside a field", row.name);
        }
    }

    #[test]
    fn least_sizes_are_those_of_linux() {
        let expect = |id: CommandId, min_size, size| {
            let row = Command::of(id);
            assert_eq!((row.min_size, row.size), (min_size, size), "{}", row.name);
        };
        // Those whose struct has grown since its first version.
        expect(CommandId::HwptAlloc, 24, 48);
        expect(CommandId::GetHwInfo, 32, 40);
        expect(CommandId::ViommuAlloc, 24, 40);
        expect(CommandId::VeventqAlloc, 28, 32);
        expect(CommandId::TestCmd, 68, 72);
        expect(CommandId::DeviceGetInfo, 16, 24);
        expect(CommandId::DeviceIoeventfd, 28, 32);
        expect(CommandId::DeviceBindIommufd, 16, 24);
        expect(CommandId::DeviceAttachIommufdPt, 12, 16);
        expect(CommandId::DeviceDetachIommufdPt, 8, 12);
        expect(CommandId::IommuGetInfo, 16, 24);
        let grown = COMMANDS.iter().filter(|row| {
            row.rule == SizeRule::Extensible
                && row.min_size < row.size
                && row.id != CommandId::TestCmd
        });
        assert_eq!(grown.count(), 4);
    }

    #[test]
    fn every_number_of_the_kernel_has_its_row() {
        let in_linux_73 = |file| {
            let rows = COMMANDS
                .iter()
                .filter(move |row| row.file == file && row.profiles.contains(Profile::Linux73));
            rows.map(|row| row.request).collect::<Vec<_>>()
        };
        assert!(in_linux_73(FileKind::Iommufd).into_iter().eq(0x3b80..=0x3b95));
        assert!(in_linux_73(FileKind::VfioDevice).into_iter().eq(0x3b6b..=0x3b78));
        assert!(in_linux_73(FileKind::VfioGroup).into_iter().eq(0x3b67..=0x3b6a));
    }
}
