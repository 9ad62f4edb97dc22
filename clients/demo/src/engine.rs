//! The DMA engine as a driver sees it: as much of its datasheet as copying memory needs.

use vfio_bindings::bindings::vfio::VFIO_PCI_BAR0_REGION_INDEX;
use vfio_ioctls::VfioDevice;

use crate::memory::Mapping;

/// PCI vendor ID.
pub(crate) const VENDOR: u16 = 0x1234;
/// PCI device ID.
pub(crate) const DEVICE: u16 = 0xb1d0;

/// Registers in the first page of BAR 0, 32 bits each: trapped, never mapped.
mod register {
    pub(super) const CONTROL: u64 = 0x020;
    pub(super) const DOORBELL: u64 = 0x028;
    pub(super) const INTERRUPT_CAUSE: u64 = 0x030;
    pub(super) const COMPLETED: u64 = 0x040;
    pub(super) const SCRATCH: u64 = 0x050;
}

/// CONTROL: work on what is queued.
const ENABLE: u32 = 1 << 0;
/// INTERRUPT_CAUSE: a descriptor is done. Written, it is acknowledged.
const CAUSE_DONE: u32 = 1 << 0;
/// Written to SCRATCH, to be gone after a reset.
const MARK: u32 = 0x600d_f00d;

/// The descriptor that the client uses is the first, and so is its status block.
const SLOT: u32 = 0;
/// Where its descriptor lies in BAR 0.
const DESCRIPTOR: u64 = 0x1000;
/// Where its status block lies in BAR 0: state, reason, address, access, bytes done.
const STATUS_BLOCK: u64 = 0x1800;
/// Offset of the count of bytes done in a status block.
const BYTES_DONE: u64 = 0x14;

/// The operation: source address to destination address.
const COPY: u32 = 2;
/// The flag: raise the interrupt at the end.
const INTERRUPT: u32 = 1 << 0;
/// The flag: trusted DMA (T=1), which only an interface in RUN may do.
const TRUSTED: u32 = 1 << 1;
/// The state of a descriptor that ended well.
const DONE: u32 = 3;

/// In whose name the engine moves memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The host's.
    Plain,
    /// The confidential guest's.
    Trusted,
}

/// A DMA engine's BAR 0.
pub(crate) struct Engine<'a> {
    device: &'a VfioDevice,
    mapped: &'a [(u64, Mapping)],
}

impl<'a> Engine<'a> {
    /// `mapped` holds the mapped areas of BAR 0 by offset; what lies outside is read and written.
    pub(crate) fn new(device: &'a VfioDevice, mapped: &'a [(u64, Mapping)]) -> Self {
        Self { device, mapped }
    }

    /// Fills in a descriptor and rings the doorbell.
    pub(crate) fn start_copy(
        &self,
        trust: Trust,
        source: u64,
        destination: u64,
        length_bytes: u32,
        vector: u16,
    ) {
        let flags = match trust {
            Trust::Plain => INTERRUPT,
            Trust::Trusted => INTERRUPT | TRUSTED,
        };
        let mut descriptor = [0; 64];
        for (at, word) in [COPY, flags, u32::from(vector), length_bytes].iter().enumerate() {
            descriptor[4 * at..][..4].copy_from_slice(&word.to_le_bytes());
        }
        descriptor[0x10..0x18].copy_from_slice(&source.to_le_bytes());
        descriptor[0x18..0x20].copy_from_slice(&destination.to_le_bytes());
        self.write(DESCRIPTOR, &descriptor);
        self.write(register::SCRATCH, &MARK.to_le_bytes());
        self.write(register::CONTROL, &ENABLE.to_le_bytes());
        self.write(register::DOORBELL, &SLOT.to_le_bytes());
    }

    /// Takes note of the interrupt: a cause left set would raise the pin once MSI-X is off.
    pub(crate) fn acknowledge(&self) {
        self.write(register::INTERRUPT_CAUSE, &CAUSE_DONE.to_le_bytes());
    }

    /// Whether the descriptor ended well, having moved `length_bytes`.
    pub(crate) fn is_done(&self, length_bytes: u32) -> bool {
        self.read(STATUS_BLOCK) == DONE && self.read(STATUS_BLOCK + BYTES_DONE) == length_bytes
    }

    /// The status block in words.
    pub(crate) fn status(&self) -> String {
        let states = ["idle", "pending", "running", "done", "fault", "aborted", "invalid"];
        let state = self.read(STATUS_BLOCK);
        let name = usize::try_from(state).ok().and_then(|at| states.get(at)).unwrap_or(&"unknown");
        let reason = self.read(STATUS_BLOCK + 4);
        let address = u64::from(self.read(STATUS_BLOCK + 8))
            | u64::from(self.read(STATUS_BLOCK + 12)) << u32::BITS;
        let bytes_done = self.read(STATUS_BLOCK + BYTES_DONE);
        format!("{name} (reason {reason}, address {address:#x}, {bytes_done} bytes done)")
    }

    /// The registers that a used engine has changed and a reset one has not.
    pub(crate) fn changed_by_use(&self) -> [(&'static str, u32); 4] {
        [
            ("CONTROL", self.read(register::CONTROL)),
            ("COMPLETED", self.read(register::COMPLETED)),
            ("SCRATCH", self.read(register::SCRATCH)),
            ("the status block", self.read(STATUS_BLOCK)),
        ]
    }

    fn read(&self, offset: u64) -> u32 {
        if let Some((mapping, at)) = self.mapping_of(offset, 4) {
            return mapping.read_u32(at);
        }
        let mut bytes = [0; 4];
        self.device.region_read(VFIO_PCI_BAR0_REGION_INDEX, &mut bytes, offset);
        u32::from_le_bytes(bytes)
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        if let Some((mapping, at)) = self.mapping_of(offset, bytes.len()) {
            mapping.write(at, bytes);
        } else {
            self.device.region_write(VFIO_PCI_BAR0_REGION_INDEX, bytes, offset);
        }
    }

    /// The mapping that holds `length` bytes from `offset` of the BAR on, and where in it.
    fn mapping_of(&self, offset: u64, length: usize) -> Option<(&Mapping, usize)> {
        self.mapped.iter().find_map(|(start, mapping)| {
            let at = usize::try_from(offset.checked_sub(*start)?).ok()?;
            (at + length <= mapping.length()).then_some((mapping, at))
        })
    }
}
