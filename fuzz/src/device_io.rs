//! Reads and writes of a device that is bound and attached: config space, registers, power, resets.
//!
//! What a client sees of the device's IDs never changes, and what it sees of capabilities is a chain
//! that ends.

use pci::regs::{CONFIG_SIZE, CONVENTIONAL_SIZE, header};
use uapi::vfio::region_index;
use uapi::{Command, CommandId, Errno, Profile};
use vfio::{REGION_BASE, REGION_SHIFT};

use crate::client::MEMORY_BASE;
use crate::config_walk::check_chains;
use crate::input::{Input, Output};
use crate::rig::{DEVICES, Kind, Rig};

const IOMMUFD: usize = 0;
const DEVICE: usize = 1;
const EVENTFD: usize = 2;
/// Accesses of one input.
const ACCESSES_MAX: usize = 256;
/// What the client maps, at the addresses that it has itself.
const MAPPED_LENGTH: u32 = 0x1_0000;
/// Where data for the device, and config space, are copied.
const BUFFER: u64 = MEMORY_BASE + 0x8000;

/// Does the accesses that `bytes` say; the first byte says to which device.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut rig = Rig::new();
    let device = input.choice(DEVICES);
    assign(&mut rig, device);
    let ids = config_space(&rig);
    for _ in 0..ACCESSES_MAX {
        if input.is_empty() {
            break;
        }
        let access = Access::decode(&mut input);
        take(&mut rig, device, &access);
        rig.watcher.serve();
        let now = config_space(&rig);
        let id_bytes = usize::from(header::VENDOR_ID)..usize::from(header::COMMAND);
        assert_eq!(now[id_bytes.clone()], ids[id_bytes], "after {access:?}");
        check_chains(&now);
        check_plain_walk(&now);
    }
    rig.finish();
}

/// An access, or work of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads `count` bytes.
    Read {
        /// The region.
        region: u8,
        /// The offset in it.
        offset: u32,
        /// Bytes.
        count: u16,
    },
    /// Writes bytes.
    Write {
        /// The region.
        region: u8,
        /// The offset in it.
        offset: u32,
        /// What is written.
        bytes: Vec<u8>,
    },
    /// The device works.
    Work,
    /// Turns all MSI-X vectors on, heard by one eventfd, or off.
    Msix {
        /// How many, from 0 on; none turns MSI-X off.
        vectors: u8,
    },
    /// `VFIO_DEVICE_RESET`.
    Reset,
}

fn assign(rig: &mut Rig, device: usize) {
    rig.open(IOMMUFD, Kind::Iommufd(Profile::Rfc));
    rig.open(DEVICE, Kind::Device(device));
    rig.open(EVENTFD, Kind::Eventfd);
    rig.bind(DEVICE, IOMMUFD);
    let ioas = rig.must(IOMMUFD, CommandId::IoasAlloc, &[12, 0, 0]);
    let flags = uapi::iommufd::map_flags::FIXED_IOVA
        | uapi::iommufd::map_flags::READABLE
        | uapi::iommufd::map_flags::WRITEABLE;
    let base = MEMORY_BASE as u32;
    let map = [40, flags, ioas, 0, base, 0, MAPPED_LENGTH, 0, base, 0];
    rig.must(IOMMUFD, CommandId::IoasMap, &map);
    rig.must(DEVICE, CommandId::DeviceAttachIommufdPt, &[12, 0, ioas]);
}

fn take(rig: &mut Rig, device: usize, access: &Access) {
    let Some(file) = rig.device_file(DEVICE).cloned() else { return };
    let at = |region: u8, offset: u32| {
        REGION_BASE + (u64::from(region) << REGION_SHIFT) + u64::from(offset)
    };
    let answer = match access {
        Access::Read { region, offset, count } => {
            file.read(&rig.client, BUFFER, u64::from(*count), at(*region, *offset))
        }
        Access::Write { region, offset, bytes } => {
            rig.client.memory.poke((BUFFER - MEMORY_BASE) as usize, bytes);
            file.write(&rig.client, BUFFER, bytes.len() as u64, at(*region, *offset))
        }
        Access::Work => {
            rig.step(device, 1 << 16);
            Ok(0)
        }
        Access::Msix { vectors } => {
            set_msix(rig, *vectors);
            Ok(0)
        }
        Access::Reset => {
            let reset = Command::of(CommandId::DeviceReset).request;
            rig.ioctl(DEVICE, reset, 0).map_or(Ok(0), |answer| answer.map(u64::from))
        }
    };
    if let Err(errno) = answer {
        let plausible = [Errno::EINVAL, Errno::EFAULT, Errno::EIO].contains(&errno);
        assert!(plausible, "{errno} for {access:?}");
    }
}

/// Asks for vectors; the kernel may refuse, as where MSI-X is on with fewer.
fn set_msix(rig: &mut Rig, vectors: u8) {
    use uapi::vfio::{irq_index, irq_set};
    let count = u32::from(vectors);
    let data = if count > 0 { irq_set::DATA_EVENTFD } else { irq_set::DATA_NONE };
    let flags = data | irq_set::ACTION_TRIGGER;
    let mut words = vec![20 + 4 * count, flags, irq_index::MSIX, 0, count];
    words.extend((0..count).map(|_| EVENTFD as u32));
    let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    rig.client.memory.poke(0, &bytes);
    let request = Command::of(CommandId::DeviceSetIrqs).request;
    let _refused_or_not = rig.ioctl(DEVICE, request, MEMORY_BASE);
}

/// Config space as the client reads it.
fn config_space(rig: &Rig) -> [u8; CONFIG_SIZE as usize] {
    let file = rig.device_file(DEVICE).expect("the device's file stays open");
    let position = REGION_BASE + (u64::from(region_index::CONFIG) << REGION_SHIFT);
    let read = file.read(&rig.client, BUFFER, u64::from(CONFIG_SIZE), position);
    assert_eq!(read, Ok(u64::from(CONFIG_SIZE)));
    let mut space = [0; CONFIG_SIZE as usize];
    rig.client.memory.read_prefix(BUFFER, &mut space);
    space
}

/// Follows both chains as a trusting driver does, which never looks back.
fn check_plain_walk(space: &[u8; CONFIG_SIZE as usize]) {
    let mut next = usize::from(space[usize::from(header::CAPABILITIES_POINTER)]);
    let mut left = CONVENTIONAL_SIZE / 4;
    while next != 0 {
        left = left.checked_sub(1).expect("the capability chain ends");
        next = usize::from(space[next + 1]);
    }
    let mut next = usize::from(CONVENTIONAL_SIZE);
    let mut left = (CONFIG_SIZE - CONVENTIONAL_SIZE) / 4;
    while next != 0 {
        left = left.checked_sub(1).expect("the extended chain ends");
        next = usize::from(u16::from_le_bytes([space[next + 2], space[next + 3]]) >> 4);
    }
}

impl Access {
    /// The next access of an input.
    pub fn decode(input: &mut Input<'_>) -> Self {
        match input.choice(5) {
            0 => Self::Read { region: input.byte(), offset: input.dword(), count: input.word() },
            1 => {
                Self::Write { region: input.byte(), offset: input.dword(), bytes: input.counted() }
            }
            2 => Self::Work,
            3 => Self::Msix { vectors: input.byte() },
            _ => Self::Reset,
        }
    }

    /// The bytes that [`decode`](Self::decode) takes for this access.
    pub fn encode(&self, out: &mut Output) {
        match self {
            Self::Read { region, offset, count } => {
                out.put(&[0, *region]);
                out.put(&offset.to_le_bytes());
                out.put(&count.to_le_bytes());
            }
            Self::Write { region, offset, bytes } => {
                out.put(&[1, *region]);
                out.put(&offset.to_le_bytes());
                out.counted(bytes);
            }
            Self::Work => out.put(&[2]),
            Self::Msix { vectors } => out.put(&[3, *vectors]),
            Self::Reset => out.put(&[4]),
        }
    }
}
