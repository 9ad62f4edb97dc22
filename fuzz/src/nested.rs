//! A device behind an IOMMU whose stage a guest fills, over a page table that shows some of a client's memory.
//!
//! Whatever the guest's tables say, DMA stays in what the parent shows, ends, and names a byte of its own where it is
//! refused; when all is closed nothing is pinned or alive.

use std::sync::Arc;

use iommufd::{Context, Device, Endpoint, Geometry, Group, Hardware, Iommu};
use pci::{Address, Dma, DmaFault, Interrupt, Notices};
use span::Span;
use uapi::iommufd::{HwptAlloc, IoasAlloc, IoasMap, hwpt_flags, map_flags};
use uapi::{Command, CommandId, Errno, Profile};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::arena::{Access, Allowed, Ledger, PAGE_SIZE, Reach};
use crate::client::{Client, MEMORY_BASE};
use crate::input::Input;

/// Pages from the first that the parent shows, at guest-physical address 0; the others are the client's own.
pub(crate) const SHOWN: usize = 12;
/// Where a command's data lies.
pub(crate) const DATA: u64 = MEMORY_BASE + 0xe000;
const STRUCTS: u64 = MEMORY_BASE + 0xf000;
/// Bytes of one access at most.
const BUFFER: usize = 3 * PAGE_SIZE;

struct Unheard;

impl Notices for Unheard {
    fn dma_fault(&self, _: Address, _: &DmaFault) {}

    fn interrupt_unheard(&self, _: Address, _: Interrupt) {}
}

/// A client with the device, and the page table that a guest's are nested in.
pub(crate) struct Nested {
    ledger: Arc<Ledger>,
    pub(crate) client: Client,
    context: Arc<Context>,
    pub(crate) device: Arc<Device>,
    pub(crate) parent: u32,
}

impl Nested {
    /// On hardware with addresses of so many bits, its page sizes and features.
    pub(crate) fn new(hardware: Hardware, bits: u32, geometry: Geometry, flags: u32) -> Self {
        let aperture = Span::from_ends(0, (1 << bits) - 1).expect("0 is first");
        let geometry = Geometry { aperture, ..geometry };
        let ledger = Arc::new(Ledger::default());
        let mut client = Client::new(&ledger);
        client.takes_events = true;
        let memory = Arc::clone(&client.memory);
        let shown = Reach { memory, range: 0..SHOWN * PAGE_SIZE, read: true, write: true };
        ledger.allow_dma(Allowed::To(vec![shown]));
        let context = Context::open(Profile::Linux73);
        let address = Address::new(0xb1d0, 1, 0, 0).expect("an address");
        let iommu = Iommu::of(hardware, geometry);
        let endpoint = Endpoint::new(address, Group::new(1), iommu, Arc::new(Unheard));
        let device = Device::bind(&context, &endpoint).expect("a device alone in its group");
        let mut nested = Self { ledger, client, context, device, parent: 0 };
        nested.parent = nested.show(hwpt_flags::NEST_PARENT | flags);
        nested
    }

    /// Makes the page table that the guest's are nested in.
    fn show(&self, flags: u32) -> u32 {
        let ioas = self.call(CommandId::IoasAlloc, IoasAlloc::default()).expect("an IOAS");
        let map = IoasMap {
            flags: map_flags::FIXED_IOVA | map_flags::READABLE | map_flags::WRITEABLE,
            ioas_id: ioas.out_ioas_id,
            user_va: MEMORY_BASE,
            length: (SHOWN * PAGE_SIZE) as u64,
            ..IoasMap::default()
        };
        self.call(CommandId::IoasMap, map).expect("a mapping");
        let parent = HwptAlloc {
            flags,
            dev_id: self.device.id(),
            pt_id: ioas.out_ioas_id,
            ..HwptAlloc::default()
        };
        self.call(CommandId::HwptAlloc, parent).expect("a page table").out_hwpt_id
    }

    /// Runs a command.
    pub(crate) fn call<T: IntoBytes + FromBytes + Immutable>(
        &self,
        id: CommandId,
        argument: T,
    ) -> Result<T, Errno> {
        let at = (STRUCTS - MEMORY_BASE) as usize;
        self.client.memory.poke(at, argument.as_bytes());
        self.client.memory.poke(at, &(size_of::<T>() as u32).to_ne_bytes());
        self.context.ioctl(&self.client, Command::of(id).request, STRUCTS)?;
        let bytes = self.client.memory.peek::<256>(STRUCTS);
        Ok(T::read_from_prefix(&bytes).expect("structs are smaller").0)
    }

    /// Takes a page of what is shown away, or gives it back.
    pub(crate) fn protect(&self, input: &mut Input<'_>) {
        let byte = input.byte();
        let gone = byte & 0x80 != 0;
        let page = usize::from(byte & 0x7f) % SHOWN;
        self.client.memory.protect(page, Access { gone, ..Access::ALL });
    }

    /// An access where the input says; whether it was done.
    pub(crate) fn access(&self, input: &mut Input<'_>) -> bool {
        let (how, offset) = (input.byte(), input.word());
        let through: [u8; 3] = input.array();
        let parts = through.iter().flat_map(|byte| [byte & 0x0f, byte >> 4]).take(5);
        let iova = parts.fold(0, |iova, part| iova << 9 | index_of(part)) << 12;
        let iova = if how & 2 != 0 { !0 << 57 | iova } else { iova } | u64::from(offset & 0xfff);
        let length = usize::from(how >> 2) * BUFFER / 63;
        let mut buffer = [0; BUFFER];
        let bytes = &mut buffer[..length];
        let answer = match how & 1 {
            0 => self.device.read(iova, bytes),
            _ => self.device.write(iova, bytes),
        };
        if let Err(fault) = answer {
            let index = fault.iova.wrapping_sub(iova);
            assert!(index < length as u64, "{fault:?} of {length} bytes at {iova:#x}");
        }
        answer.is_ok()
    }

    pub(crate) fn finish(self) {
        let Self { ledger, client, context, device, .. } = self;
        client.memory.protect_all(Access::ALL);
        device.end();
        drop(device);
        context.put_file();
        // It names memory, which names the ledger.
        ledger.allow_dma(Allowed::Nowhere);
        assert_eq!(ledger.pinned_bytes(), 0, "bytes pinned for a closed file");
        assert_eq!(Arc::strong_count(&context), 1, "somebody has the context");
    }
}

/// Entries of tables that are used: the first, the last, and a few between.
pub(crate) fn index_of(part: u8) -> u64 {
    match part & 0x0f {
        15 => 511,
        14 => 256,
        part => u64::from(part & 3),
    }
}
