//! A PCI function as host software meets it, and what the host lends the function.
//!
//! [`Function`] is the hardware side of the line: config space, BARs, reset, and `step`, which does a
//! bounded piece of work. [`Dma`], [`Interrupts`] and [`Notices`] are the host side: how a function
//! reaches memory, how it is heard, and where its misfortunes are reported. Whoever assigns the
//! function implements the host side; the emulated devices implement the hardware side.
//!
//! Takes no lock. A function calls the host side with none of its own locks held.

use std::fmt;
use std::sync::Arc;

use mem::Pages;
use thiserror::Error;

use crate::Address;

/// One emulated PCI function.
pub trait Function: Send + Sync {
    /// Where the function sits.
    fn address(&self) -> Address;

    /// Reads config space as hardware shows it. `offset..offset + into.len()` lies inside 4096 bytes.
    fn config_read(&self, offset: u16, into: &mut [u8]);

    /// Writes config space as hardware takes it: read-only bits are kept, BARs size.
    fn config_write(&self, offset: u16, from: &[u8]);

    /// What BAR `index` (0..6) is; `None` where the function has none, or where it is the upper
    /// half of a 64-bit BAR.
    fn bar(&self, index: usize) -> Option<&Bar>;

    /// Reads registers of a BAR: 1, 2, 4 or 8 bytes, naturally aligned, inside the BAR.
    fn bar_read(&self, index: usize, offset: u64, into: &mut [u8]);

    /// Writes registers of a BAR, shaped as for [`bar_read`](Self::bar_read).
    fn bar_write(&self, index: usize, offset: u64, from: &[u8]);

    /// Puts `pages` under the mapped areas of a BAR. They cover the whole BAR; what the old pages
    /// held is not carried over. The function keeps them until the next call.
    fn back_bar(&self, index: usize, pages: Arc<Pages>);

    /// Joins the function to the host that drives it. Until then DMA answers
    /// [`DmaFaultReason::NotAttached`] and interrupts are lost.
    fn connect(&self, host: HostSide);

    /// Parts the function from its host. Returns when none of its DMA is running.
    fn disconnect(&self);

    /// Lets no new DMA begin and returns when none is running: at most one step of 64 KiB later.
    fn stop(&self);

    /// Ends [`stop`](Self::stop).
    fn start(&self);

    /// Resets the function as hardware would. Ends running work first.
    fn reset(&self, kind: Reset);

    /// Does at most `budget_bytes` of pending work. Called by the function's one worker.
    fn step(&self, budget_bytes: usize) -> Progress;

    /// Sets what a doorbell calls to get [`step`](Self::step) called.
    fn set_waker(&self, waker: Arc<dyn Fn() + Send + Sync>);
}

/// What the host lends a function.
#[derive(Clone)]
pub struct HostSide {
    /// The way to memory.
    pub dma: Arc<dyn Dma>,
    /// The way to be heard.
    pub interrupts: Arc<dyn Interrupts>,
}

/// What a BAR decodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// The address space and width.
    pub kind: BarKind,
    /// Bytes decoded: a power of two.
    pub size: u64,
    /// Areas (offset and length in bytes, whole pages) without side effects, which a client may map.
    /// All else is a register and reached only by reads and writes.
    pub mappable: Vec<(u64, u64)>,
    /// Where the MSI-X table lies, if it is in this BAR (offset and length in bytes).
    pub msix_table: Option<(u64, u64)>,
}

/// The address space and width of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// Memory anywhere; takes two BARs.
    Memory64 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
}

/// How deep a reset goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// Function-level reset: this function only.
    Function,
    /// The bus was reset: every function on it is reset likewise.
    Bus,
}

/// What is left after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing: sleep until the waker is called.
    Idle,
    /// Work: call `step` again.
    More,
}

/// DMA as one function does it, through whatever its IOMMU maps.
pub trait Dma: Send + Sync {
    /// Reads memory at an I/O virtual address. At most 64 KiB a call.
    ///
    /// # Errors
    /// The first byte that cannot be read, and why. Bytes before it may have been read.
    fn read(&self, iova: u64, into: &mut [u8]) -> Result<(), DmaFault>;

    /// Writes memory at an I/O virtual address. At most 64 KiB a call.
    ///
    /// # Errors
    /// The first byte that cannot be written, and why. Bytes before it may have been written.
    fn write(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault>;

    /// Reads memory of a confidential guest: a request with the T bit, which TDISP lets a function
    /// send in `RUN` only. As [`read`](Self::read) where the way to memory knows no difference.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    fn read_trusted(&self, iova: u64, into: &mut [u8]) -> Result<(), DmaFault> {
        self.read(iova, into)
    }

    /// Writes memory of a confidential guest, as for [`read_trusted`](Self::read_trusted).
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    fn write_trusted(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault> {
        self.write(iova, from)
    }

    /// Hears of an access that the function's own security refused, so that it never came here:
    /// [`DmaFaultReason::TdiNotInRun`] or [`DmaFaultReason::TdiInError`].
    fn refused(&self, _fault: &DmaFault) {}
}

/// An access that the IOMMU or memory refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("DMA {access} at iova {iova:#x}: {reason}")]
pub struct DmaFault {
    /// The first byte refused.
    pub iova: u64,
    /// What was tried.
    pub access: DmaAccess,
    /// Why it was refused.
    pub reason: DmaFaultReason,
}

/// The direction of a DMA access, seen from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaAccess {
    /// Memory to device.
    Read,
    /// Device to memory.
    Write,
}

impl fmt::Display for DmaAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// Why a DMA access was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum DmaFaultReason {
    /// The function's bus master enable is clear.
    #[error("bus master is off")]
    BusMasterOff,
    /// The function is attached to no page table.
    #[error("attached to no page table")]
    NotAttached,
    /// Nothing is mapped there.
    #[error("not mapped")]
    NotMapped,
    /// Mapped, but not for this direction.
    #[error("permission")]
    Permission,
    /// A guest's table on the way has an entry that its IOMMU does not understand.
    #[error("bad entry in a guest's page table")]
    BadTable,
    /// Mapped, but the memory behind it is gone (truncated, unmapped, its process exited).
    #[error("memory behind it is gone")]
    MemoryGone,
    /// A trusted access, and the function's interface (TDI) does not run.
    #[error("trusted DMA outside RUN")]
    TdiNotInRun,
    /// The function's interface (TDI) is in `ERROR`, so that it does no DMA.
    #[error("TDI in ERROR")]
    TdiInError,
}

/// How a function signals its driver. Called after the data it announces is visible.
pub trait Interrupts: Send + Sync {
    /// MSI-X vector `vector` fires.
    fn msix(&self, vector: u16);
    /// MSI vector `vector` fires.
    fn msi(&self, vector: u16);
    /// The INTx pin changes level. The host reads the level itself, in the Status register; so each fall is told
    /// before the next rise.
    fn intx(&self, asserted: bool);
}

/// Where what went wrong with a function is told to people.
pub trait Notices: Send + Sync {
    /// A DMA access was refused.
    fn dma_fault(&self, function: Address, fault: &DmaFault);
    /// An interrupt fired that nobody had asked for.
    fn interrupt_unheard(&self, function: Address, interrupt: Interrupt);
}

/// An interrupt, named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interrupt {
    /// The pin.
    Intx,
    /// An MSI vector.
    Msi(u16),
    /// An MSI-X vector.
    Msix(u16),
}
