//! Where BARs lie in the machine's memory, and what sysfs says of it.
//!
//! Takes no lock. No program reaches a BAR by its address; the addresses are there to be looked at.

use device::root_port::RootPort;
use pci::regs::{BAR_COUNT, header, sriov};
use pci::{Bar, BarKind, Function};

/// A range that a function decodes, with Linux's flags for it. All zeros: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The first address.
    pub start: u64,
    /// The last address.
    pub last: u64,
    /// Kind and properties, `IORESOURCE_…` of Linux.
    pub flags: u64,
}

impl Resource {
    /// No resource.
    pub const NONE: Self = Self { start: 0, last: 0, flags: 0 };
}

/// Lines of an endpoint's `resource`: six BARs, the ROM, six BARs of virtual functions.
pub(super) const RESOURCE_LINES: usize = 13;
/// Lines of a bridge's `resource` beyond those: its windows.
pub(super) const BRIDGE_WINDOW_LINES: usize = 4;
/// The line of those that is the window for memory.
pub(super) const MEMORY_WINDOW: usize = 1;
/// The line of the first BAR of virtual functions.
const VF_LINE: usize = 7;

/// Flags of a resource. [linux/ioport.h]
mod flag {
    pub(super) const IO: u64 = 0x100;
    pub(super) const MEMORY: u64 = 0x200;
    pub(super) const PREFETCH: u64 = 0x2000;
    pub(super) const SIZE_ALIGNED: u64 = 0x4_0000;
    pub(super) const MEMORY_64: u64 = 0x10_0000;
}

/// Memory that is given to BARs.
pub(super) struct MemorySpace {
    next: u64,
    window: u64,
}

/// Where the memory of PCI devices is on many machines: below the interrupt controllers.
const FIRST: u64 = 0xc000_0000;
const END: u64 = 0xfec0_0000;
/// Windows of a bridge begin and end at multiples of this.
const WINDOW_BYTES: u64 = 1 << 20;

impl MemorySpace {
    pub(super) fn new() -> Self {
        Self { next: FIRST, window: FIRST }
    }

    /// Begins what is behind one bridge.
    pub(super) fn open_window(&mut self) {
        self.next = self.next.next_multiple_of(WINDOW_BYTES);
        self.window = self.next;
    }

    /// Ends what is behind one bridge; what the bridge must forward, if anything.
    pub(super) fn close_window(&mut self) -> Option<Resource> {
        self.next = self.next.next_multiple_of(WINDOW_BYTES);
        let (start, end) = (self.window, self.next);
        (end > start).then_some(Resource { start, last: end - 1, flags: flag::MEMORY })
    }

    /// Gives a function's BARs addresses and writes them into it.
    pub(super) fn place(&mut self, function: &dyn Function) -> Vec<Resource> {
        let mut resources = vec![Resource::NONE; RESOURCE_LINES];
        for (index, register) in (0..BAR_COUNT).zip((header::BAR0..).step_by(4)) {
            let Some(bar) = function.bar(index) else { continue };
            let Some(start) = self.take(bar.size, bar.size) else { continue };
            write_bar(function, register, bar, start);
            resources[index] = resource(bar, start, bar.size);
        }
        resources
    }

    /// Gives the BARs of `count` virtual functions addresses and writes them into the physical one,
    /// whose SR-IOV capability is at `at`; gives what each virtual function decodes.
    pub(super) fn place_vfs(
        &mut self,
        physical: &dyn Function,
        first: &dyn Function,
        at: u16,
        count: u16,
        resources: &mut [Resource],
    ) -> Vec<Vec<Resource>> {
        let mut parts = vec![vec![Resource::NONE; RESOURCE_LINES]; usize::from(count)];
        for (index, register) in (0..BAR_COUNT).zip((at + sriov::VF_BAR0..).step_by(4)) {
            let Some(bar) = first.bar(index) else { continue };
            let whole = bar.size * u64::from(count);
            let Some(start) = self.take(whole, bar.size) else { continue };
            write_bar(physical, register, bar, start);
            resources[VF_LINE + index] = resource(bar, start, whole);
            for (part, offset) in parts.iter_mut().zip((0..).step_by(step(bar.size))) {
                part[index] = resource(bar, start + offset, bar.size);
            }
        }
        parts
    }

    /// `None` where memory is used up: the BAR then has no address, as on a machine.
    fn take(&mut self, size: u64, alignment: u64) -> Option<u64> {
        let start = self.next.checked_next_multiple_of(alignment)?;
        let end = start.checked_add(size).filter(|end| *end <= END)?;
        self.next = end;
        Some(start)
    }
}

/// Lets a bridge forward memory.
pub(super) fn forward(port: &RootPort, window: &Resource) {
    // The registers hold the upper 12 of 32 address bits in their upper 12.
    let register = |address: u64| u16::try_from(address >> 16 & 0xfff0).unwrap_or_default();
    port.config_write(header::MEMORY_BASE, &register(window.start).to_le_bytes());
    port.config_write(header::MEMORY_LIMIT, &register(window.last).to_le_bytes());
}

fn write_bar(function: &dyn Function, register: u16, bar: &Bar, start: u64) {
    let bytes = start.to_le_bytes();
    function.config_write(register, &bytes[..4]);
    if let BarKind::Memory64 { .. } = bar.kind {
        function.config_write(register + 4, &bytes[4..]);
    }
}

fn resource(bar: &Bar, start: u64, size: u64) -> Resource {
    // Linux keeps the low bits of the register in the flags.
    let prefetch = |on: bool| if on { flag::PREFETCH | 0x8 } else { 0 };
    let flags = match bar.kind {
        BarKind::Io => flag::IO | 0x1,
        BarKind::Memory32 { prefetchable } => flag::MEMORY | prefetch(prefetchable),
        BarKind::Memory64 { prefetchable } => {
            flag::MEMORY | flag::MEMORY_64 | 0x4 | prefetch(prefetchable)
        }
    };
    Resource { start, last: start + size - 1, flags: flags | flag::SIZE_ALIGNED }
}

fn step(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_once_and_ends() {
        let mut memory = MemorySpace::new();
        assert_eq!(memory.close_window(), None, "a bridge with nothing behind forwards nothing");
        assert_eq!(memory.take(0x1000, 0x1000), Some(FIRST));
        assert_eq!(memory.take(0x10000, 0x10000), Some(FIRST + 0x10000), "aligned to its size");
        let window = memory.close_window().unwrap();
        assert_eq!((window.start, window.last), (FIRST, FIRST + WINDOW_BYTES - 1));
        memory.open_window();
        assert_eq!(memory.take(END - FIRST, 1 << 20), None);
        let rest = END - FIRST - WINDOW_BYTES;
        assert_eq!(memory.take(rest, 1 << 20), Some(FIRST + WINDOW_BYTES));
        assert_eq!(memory.take(1, 1), None);
        assert_eq!(memory.take(u64::MAX, 1 << 63), None);
    }
}
