//! What all commands have in common, by a loop over the command table.

use std::sync::Arc;

use iommufd::Device;
use uapi::iommufd::viommu_type;
use uapi::{Command, CommandId, Errno, FileKind, Layout, Profile};

use crate::support::{Client, MEMORY_BYTES, Platform};

/// A client with the objects that a command's fields can name.
struct Fixture {
    client: Client,
    /// It has no vdevice; another device has one.
    device: Arc<Device>,
    ioas: u32,
    hwpt: u32,
    viommu: u32,
    vdevice: u32,
}

impl Fixture {
    fn new(profile: Profile) -> Self {
        let client = Client::open_as(profile);
        let platform = Platform::new();
        let (device, [other, _]) = (platform.bind(&client), platform.bind_pair(&client));
        let ioas = client.ioas();
        let hwpt = client.nest_parent(device.id());
        let viommu = client.viommu(viommu_type::ARM_SMMUV3, device.id(), hwpt).unwrap();
        let vdevice = client.vdevice(viommu, other.id(), 1).unwrap();
        Self { client, device, ioas, hwpt, viommu, vdevice }
    }

    /// A struct whose ids name objects that exist and are in use by nothing; all else is zero.
    fn plausible(&self, layout: &Layout) -> Vec<u8> {
        let mut bytes = vec![0; layout.size];
        for field in layout.fields {
            let id = match field.name {
                "ioas_id" | "pt_id" | "id" => self.ioas,
                "hwpt_id" => self.hwpt,
                "viommu_id" => self.viommu,
                "vdevice_id" => self.vdevice,
                "dev_id" => self.device.id(),
                "type" => viommu_type::ARM_SMMUV3,
                _ => continue,
            };
            bytes[field.offset..field.offset + 4].copy_from_slice(&id.to_ne_bytes());
        }
        bytes
    }

    /// Runs a command on `bytes`, with `size` in their first word, at `at`.
    fn run_at(&self, at: u64, request: u32, bytes: &[u8], size: usize) -> Result<u32, Errno> {
        let mut bytes = bytes.to_vec();
        bytes[..4].copy_from_slice(&u32::try_from(size).unwrap().to_ne_bytes());
        self.client.memory.write(at, &bytes).unwrap();
        self.client.ctx.ioctl(&self.client, request, at)
    }

    fn run(&self, request: u32, bytes: &[u8], size: usize) -> Result<u32, Errno> {
        self.run_at(SOMEWHERE, request, bytes, size)
    }
}

const SOMEWHERE: u64 = 0x10_0000;
const END: u64 = 0x1000 + MEMORY_BYTES;

fn rows(profile: Profile) -> impl Iterator<Item = &'static Command> {
    uapi::COMMANDS
        .iter()
        .filter(move |row| row.file == FileKind::Iommufd && row.profiles.contains(profile))
}

/// Every command that is served, with a profile that has it: Linux 7.3 where it does.
fn served() -> impl Iterator<Item = (Profile, &'static Command, &'static Layout)> {
    let rows = uapi::COMMANDS.iter().filter(|row| row.file == FileKind::Iommufd && row.served);
    rows.map(|row| {
        let has_it = |profile: &&Profile| row.profiles.contains(**profile);
        let profile = [Profile::Linux73].iter().chain(Profile::ALL).find(has_it).unwrap();
        (*profile, row, row.argument.unwrap())
    })
}

#[test]
fn the_commands_of_this_crate_are_served() {
    let served_in =
        |profile| rows(profile).filter(|row| row.served).map(|row| row.id).collect::<Vec<_>>();
    let always = [
        CommandId::Destroy,
        CommandId::IoasAlloc,
        CommandId::IoasAllowIovas,
        CommandId::IoasCopy,
        CommandId::IoasIovaRanges,
        CommandId::IoasMap,
        CommandId::IoasUnmap,
        CommandId::IommuOption,
        CommandId::VfioIoas,
        CommandId::HwptAlloc,
        CommandId::GetHwInfo,
        CommandId::HwptSetDirtyTracking,
        CommandId::HwptGetDirtyBitmap,
        CommandId::HwptInvalidate,
        CommandId::FaultQueueAlloc,
        CommandId::IoasMapFile,
        CommandId::ViommuAlloc,
        CommandId::VdeviceAlloc,
        CommandId::IoasChangeProcess,
        CommandId::VeventqAlloc,
    ];
    let more: &[(Profile, &[CommandId])] = &[
        (Profile::Linux73, &[CommandId::HwQueueAlloc, CommandId::IoasNoiommuGetPa]),
        (
            Profile::Rfc,
            &[CommandId::HwQueueAlloc, CommandId::VdeviceTsmOp, CommandId::VdeviceTsmReq],
        ),
        (
            Profile::RfcV5_2026_05,
            &[CommandId::HwQueueAlloc, CommandId::VdeviceTsmOp, CommandId::VdeviceTsmReqV5],
        ),
        (Profile::RfcV7_2026_10, &[CommandId::HwQueueAlloc, CommandId::VdeviceTsmReq]),
        (Profile::Rfc2025_05, &[CommandId::VdeviceTsmGuestRequest]),
    ];
    assert_eq!(more.len(), Profile::ALL.len());
    for (profile, more) in more {
        assert_eq!(served_in(*profile), [&always[..], more].concat(), "{profile}");
    }
}

#[test]
fn a_struct_shorter_than_its_first_version_is_invalid() {
    for (profile, row, layout) in served() {
        let fixture = Fixture::new(profile);
        let bytes = fixture.plausible(layout);
        for size in 0..row.min_size as usize {
            assert_eq!(fixture.run(row.request, &bytes, size), Err(Errno::EINVAL), "{}", row.name);
        }
    }
}

#[test]
fn longer_structs_answer_alike_if_the_rest_is_zero() {
    for (profile, row, layout) in served() {
        let exact = Fixture::new(profile);
        let bytes = exact.plausible(layout);
        let expected = exact.run(row.request, &bytes, layout.size);
        assert!(!matches!(expected, Err(Errno::E2BIG | Errno::ENOTTY | Errno::EFAULT)));
        for size in [row.min_size as usize, layout.size + 1, layout.size + 8, 3 * 4096 + 5] {
            let fixture = Fixture::new(profile);
            let mut longer = bytes.clone();
            longer.resize(size.max(layout.size), 0);
            assert_eq!(fixture.run(row.request, &longer, size), expected, "{} {size}", row.name);
        }
    }
}

#[test]
fn what_is_not_zero_past_the_struct_is_too_big() {
    for (profile, row, layout) in served() {
        let fixture = Fixture::new(profile);
        let before = fixture.client.ctx.counts();
        for (size, dirty) in [
            (layout.size + 1, layout.size),
            (layout.size + 64, layout.size),
            (layout.size + 64, layout.size + 63),
            (3 * 4096 + 5, 3 * 4096 + 4),
            (3 * 4096 + 5, 4096 + layout.size),
        ] {
            let mut bytes = fixture.plausible(layout);
            bytes.resize(size, 0);
            bytes[dirty] = 1;
            let answer = fixture.run(row.request, &bytes, size);
            assert_eq!(answer, Err(Errno::E2BIG), "{} {size} {dirty}", row.name);
        }
        assert_eq!(fixture.client.ctx.counts(), before, "{} did nothing", row.name);
    }
}

#[test]
fn a_struct_that_cannot_be_read_is_a_fault() {
    for (profile, row, layout) in served() {
        let fixture = Fixture::new(profile);
        let bytes = fixture.plausible(layout);
        let request = row.request;
        for at in [0, END - 3, END, u64::MAX - 2, u64::MAX] {
            let answer = fixture.client.ctx.ioctl(&fixture.client, request, at);
            assert_eq!(answer, Err(Errno::EFAULT), "{} at {at:#x}", row.name);
        }
        let cut = |at: u64| &bytes[..usize::try_from(END - at).unwrap().min(bytes.len())];
        // The size can be read, the struct's last byte cannot.
        let at = END - layout.size as u64 + 1;
        let answer = fixture.run_at(at, request, cut(at), layout.size);
        assert_eq!(answer, Err(Errno::EFAULT), "{} struct", row.name);
        // The size is judged before that.
        let answer = fixture.run_at(END - 4, request, cut(END - 4), row.min_size as usize - 1);
        assert_eq!(answer, Err(Errno::EINVAL), "{} short", row.name);
        // All of the struct can be read, what it says lies past it cannot.
        let at = END - layout.size as u64;
        let answer = fixture.run_at(at, request, &bytes, layout.size + 1);
        assert_eq!(answer, Err(Errno::EFAULT), "{} tail", row.name);
        let mut long = bytes.clone();
        long.resize(5000, 0);
        let answer = fixture.run_at(END - 5000, request, &long, 1 << 31);
        assert_eq!(answer, Err(Errno::EFAULT), "{} long tail", row.name);
    }
}

#[test]
fn a_tail_is_judged_from_its_first_byte_on() {
    let row = Command::of(CommandId::IoasMap);
    let fixture = Fixture::new(Profile::Linux73);
    let mut bytes = fixture.plausible(row.argument.unwrap());
    bytes.push(1);
    let at = END - bytes.len() as u64;
    assert_eq!(fixture.run_at(at, row.request, &bytes, 4096), Err(Errno::E2BIG));
}

/// Commands that have flags.
const KNOWN_FLAGS: &[(CommandId, u32)] = &[
    (CommandId::IoasMap, 0b111),
    (CommandId::IoasMapFile, 0b111),
    (CommandId::HwptAlloc, 0b1111),
    (CommandId::GetHwInfo, 0b1),
    (CommandId::IoasCopy, 0b111),
    (CommandId::HwptSetDirtyTracking, 0b1),
    (CommandId::HwptGetDirtyBitmap, 0b1),
];

#[test]
fn each_unknown_flag_is_unsupported() {
    for (profile, row, layout) in served() {
        let Some(field) = layout.field("flags") else { continue };
        let known = KNOWN_FLAGS.iter().find(|(id, _)| *id == row.id).map_or(0, |(_, known)| *known);
        let fixture = Fixture::new(profile);
        for bit in (0..32).map(|bit| 1_u32 << bit).filter(|bit| bit & known == 0) {
            let mut bytes = fixture.plausible(layout);
            bytes[field.offset..field.offset + 4].copy_from_slice(&bit.to_ne_bytes());
            let answer = fixture.run(row.request, &bytes, layout.size);
            assert_eq!(answer, Err(Errno::EOPNOTSUPP), "{} {bit:#x}", row.name);
        }
    }
}

/// Commands whose reserved field nobody looks at.
const UNCHECKED_RESERVED: &[CommandId] = &[CommandId::ViommuAlloc, CommandId::HwptSetDirtyTracking];

#[test]
fn each_reserved_byte_is_unsupported() {
    for (profile, row, layout) in served() {
        if UNCHECKED_RESERVED.contains(&row.id) {
            continue;
        }
        let reserved = layout.fields.iter().filter(|field| field.is_reserved());
        for field in reserved.filter(|field| field.name != "__reserved2") {
            let fixture = Fixture::new(profile);
            for offset in field.offset..field.offset + field.size {
                let mut bytes = fixture.plausible(layout);
                bytes[offset] = 1;
                let answer = fixture.run(row.request, &bytes, layout.size);
                assert_eq!(answer, Err(Errno::EOPNOTSUPP), "{} {offset}", row.name);
            }
        }
    }
}

#[test]
fn direction_size_and_type_bits_belong_to_the_number() {
    for (profile, row, layout) in served() {
        let fixture = Fixture::new(profile);
        let bytes = fixture.plausible(layout);
        for wrong in [1 << 30, 2 << 30, 40 << 16, 1 << 8, 0xff00] {
            let request = row.request ^ wrong;
            let answer = fixture.run(request, &bytes, layout.size);
            assert_eq!(answer, Err(Errno::ENOTTY), "{} {request:#x}", row.name);
            let answer = fixture.client.ctx.ioctl(&fixture.client, request, 0);
            assert_eq!(answer, Err(Errno::EFAULT), "{} {request:#x}", row.name);
        }
    }
}

#[test]
fn a_hole_reads_the_size_and_judges_nothing() {
    for &profile in Profile::ALL {
        let fixture = Fixture::new(profile);
        for row in rows(profile).filter(|row| !row.served) {
            let answer = fixture.client.ctx.ioctl(&fixture.client, row.request, 0);
            assert_eq!(answer, Err(Errno::EFAULT), "{} {profile}", row.name);
            // Four bytes that say nothing sensible, and nothing after them.
            let answer = fixture.run_at(END - 4, row.request, &[0; 4], 1);
            assert_eq!(answer, Err(Errno::ENOTTY), "{} {profile}", row.name);
        }
    }
}

#[test]
fn numbers_outside_the_table_touch_no_memory() {
    let fixture = Fixture::new(Profile::Linux73);
    let is_containers = |number: &u32| {
        uapi::lookup(FileKind::VfioContainer, Profile::Linux73, 0x3b00 | number).is_some()
    };
    for number in (0..0x80).chain(0x96..=0xff).filter(|number| !is_containers(number)) {
        let answer = fixture.client.ctx.ioctl(&fixture.client, 0x3b00 | number, 0);
        assert_eq!(answer, Err(Errno::ENOTTY), "{number:#x}");
    }
    // The table of this profile is one longer.
    let fixture = Fixture::new(Profile::Rfc);
    let last = |number: u32| fixture.client.ctx.ioctl(&fixture.client, 0x3b00 | number, 0);
    assert_eq!((last(0x96), last(0x97)), (Err(Errno::EFAULT), Err(Errno::ENOTTY)));
}
