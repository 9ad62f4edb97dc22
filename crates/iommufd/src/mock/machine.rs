//! What all contexts of a mock platform share: its IOMMU, and who has what open.
//!
//! `contexts` is OBJECTS, a leaf.

use std::sync::{Arc, Weak};

use pci::{Address, DmaFault, Interrupt, Notices};
use span::Span;
use sync::{Mutex, rank};

use crate::{Context, Geometry, Group, Hardware, Iommu, Limits, Quota};

/// The mock platform behind all its contexts.
pub struct MockMachine {
    iommus: [Arc<Iommu>; 4],
    quota: Arc<dyn Quota>,
    state: Mutex<rank::Objects, State>,
}

#[derive(Default)]
struct State {
    contexts: Vec<Weak<Context>>,
    /// Devices made so far: each has an address and a group of its own.
    devices: u32,
}

/// Flags of a mock device.
pub(super) mod device_flags {
    /// Its IOMMU logs no written pages.
    pub(in super::super) const NO_DIRTY: u32 = 1 << 0;
    /// It has PASIDs.
    pub(in super::super) const PASID: u32 = 1 << 2;
    pub(in super::super) const KNOWN: u32 = NO_DIRTY | PASID;
}

/// The first and the last address that the mock's page tables translate.
const APERTURE: (u64, u64) = (1 << 24, (1 << 31) - 1);
/// Bytes of its smallest page: half of the client's.
pub(super) const PAGE_BYTES: u64 = 2048;
/// PASIDs have so many bits.
const PASID_BITS: u8 = 20;

impl MockMachine {
    /// A machine on which nothing is open.
    pub fn new() -> Arc<Self> {
        Self::under(Arc::new(Limits::default()))
    }

    /// As [`new`](Self::new), whose contexts have room for as much as `quota` says.
    pub fn under(quota: Arc<dyn Quota>) -> Arc<Self> {
        let iommus = [(true, 0), (false, 0), (true, PASID_BITS), (false, PASID_BITS)];
        let iommus = iommus.map(|(dirty_tracking, max_pasid_log2)| {
            Iommu::of(
                Hardware::Mock,
                Geometry {
                    aperture: Span::from_ends(APERTURE.0, APERTURE.1).unwrap_or(Span::WHOLE),
                    reserved: Vec::new(),
                    page_sizes: !(PAGE_BYTES - 1),
                    dirty_tracking,
                    cache_coherent: true,
                    msi_isolated: true,
                    max_pasid_log2,
                },
            )
        });
        Arc::new(Self { iommus, quota, state: Mutex::new(State::default()) })
    }

    /// Who says how much there is of what contexts use up.
    pub fn quota(&self) -> &Arc<dyn Quota> {
        &self.quota
    }

    /// Remembers a context, and forgets those that are gone.
    pub(crate) fn opened(&self, ctx: &Arc<Context>) {
        let mut state = self.state.lock();
        state.contexts.retain(|context| context.strong_count() > 0);
        state.contexts.push(Arc::downgrade(ctx));
    }

    /// Every context that lives.
    pub(super) fn contexts(&self) -> Vec<Arc<Context>> {
        self.state.lock().contexts.iter().filter_map(Weak::upgrade).collect()
    }

    /// The IOMMU in front of devices with these flags.
    pub(super) fn iommu(&self, flags: u32) -> &Arc<Iommu> {
        let no_dirty = usize::from(flags & device_flags::NO_DIRTY != 0);
        let pasid = usize::from(flags & device_flags::PASID != 0);
        &self.iommus[no_dirty + 2 * pasid]
    }

    /// A place for one more device, in a group of its own.
    pub(super) fn place(&self) -> (Address, Arc<Group>) {
        let number = {
            let mut state = self.state.lock();
            state.devices = state.devices.wrapping_add(1);
            state.devices
        };
        let [bus, slot, ..] = number.to_be_bytes().map(|byte| byte & 0x1f);
        let address = Address::new(DOMAIN, bus, slot, 0);
        // Every number of bus and slot up to 31 has an address.
        let address = address.unwrap_or_else(|| unreachable!("bus {bus}, slot {slot}"));
        (address, Group::new(FIRST_GROUP.wrapping_add(number)))
    }
}

/// Mock devices are in a domain and in groups that no machine has.
const DOMAIN: u16 = 0xffff;
const FIRST_GROUP: u32 = 1 << 30;

/// Nothing goes wrong with a mock device but what a test asks about.
pub(super) struct Unheard;

impl Notices for Unheard {
    fn dma_fault(&self, _: Address, _: &DmaFault) {}

    fn interrupt_unheard(&self, _: Address, _: Interrupt) {}
}
