//! The memory behind the mapped part of BAR 0 (descriptors, status blocks and the data window), and behind BAR 4.
//!
//! Clients write it at any moment. What is read is copied; nothing read twice is trusted to be the
//! same. As long as no pages are under the BAR it reads as zero and forgets what is written.

use std::sync::Arc;

use mem::Pages;
use pci::DmaFault;

use super::descriptor::{DESCRIPTOR_SIZE, Job};
use super::regs::{self, access, bar0, reason, status, status_state};

/// The pages under a BAR, if there are any.
pub(super) struct BarMemory {
    /// The first byte that is memory; what is before has effects.
    first: u64,
    size: u64,
    pages: Option<Arc<Pages>>,
}

/// How a descriptor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Done,
    Fault(DmaFault),
    Aborted,
    Invalid(u32),
}

impl BarMemory {
    /// A BAR of `size` bytes that is memory from its byte `first` on, with no pages yet.
    pub(super) fn new(first: u64, size: u64) -> Self {
        Self { first, size, pages: None }
    }

    /// Puts other pages under the BAR.
    pub(super) fn back(&mut self, pages: Arc<Pages>) {
        self.pages = Some(pages);
    }

    /// Zeroes everything.
    pub(super) fn clear(&self) {
        self.fill(0);
    }

    /// Sets every byte.
    pub(super) fn fill(&self, byte: u8) {
        let Some(pages) = &self.pages else { return };
        let start = to_usize(self.first);
        let length = pages.len().min(to_usize(self.size)).saturating_sub(start);
        // Pages that are too short or read-only keep what they hold.
        let _ = pages.checked_fill(start, length, byte);
    }

    /// Reads bytes at an offset in the BAR.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) {
        let pages = self.pages.as_ref();
        if pages.and_then(|pages| pages.checked_read(to_usize(offset), into)).is_none() {
            into.fill(0);
        }
    }

    /// Writes bytes at an offset in the BAR.
    pub(super) fn write(&self, offset: u64, from: &[u8]) {
        if let Some(pages) = &self.pages {
            // Pages that are too short forget what does not fit.
            let _ = pages.checked_write(to_usize(offset), from);
        }
    }

    /// Copies the descriptor of a slot and understands the copy, with the flags that the engine knows.
    pub(super) fn job(&self, slot: u32, flags: u32) -> Job {
        let mut bytes = [0; DESCRIPTOR_SIZE];
        self.read(bar0::DESCRIPTORS + u64::from(slot) * regs::descriptor::SIZE, &mut bytes);
        Job::parse(slot, &bytes, flags)
    }

    /// Shows that a job waits or runs.
    pub(super) fn show_progress(&self, job: &Job, state: u32) {
        self.show(job, state, reason::NONE, None);
    }

    /// Shows how a job ended.
    pub(super) fn show_end(&self, job: &Job, end: End) {
        match end {
            End::Done => self.show(job, status_state::DONE, reason::NONE, None),
            End::Fault(fault) => {
                self.show(job, status_state::FAULT, fault_reason(fault.reason), Some(&fault))
            }
            End::Aborted => self.show(job, status_state::ABORTED, reason::NONE, None),
            End::Invalid(reason) => self.show(job, status_state::INVALID, reason, None),
        }
    }

    /// Writes a status block, its state last, so that a client that sees the state sees the rest.
    fn show(&self, job: &Job, state: u32, reason: u32, fault: Option<&DmaFault>) {
        let block = bar0::STATUS_BLOCKS + u64::from(job.slot) * status::SIZE;
        let access = match fault.map(|fault| fault.access) {
            None => access::NONE,
            Some(pci::DmaAccess::Read) => access::READ,
            Some(pci::DmaAccess::Write) => access::WRITE,
        };
        let fault_address = fault.map_or(0, |fault| fault.iova);
        self.write(block + status::REASON, &reason.to_le_bytes());
        self.write(block + status::FAULT_ADDRESS, &fault_address.to_le_bytes());
        self.write(block + status::FAULT_ACCESS, &access.to_le_bytes());
        self.write(block + status::BYTES_DONE, &job.done.to_le_bytes());
        self.write(block + status::COOKIE, &job.cookie.to_le_bytes());
        if let Some(pages) = &self.pages {
            let _ = pages.checked_store_u32(to_usize(block + status::STATE), state.to_le());
        }
    }
}

fn fault_reason(fault: pci::DmaFaultReason) -> u32 {
    match fault {
        pci::DmaFaultReason::BusMasterOff => reason::BUS_MASTER_OFF,
        pci::DmaFaultReason::NotAttached => reason::NOT_ATTACHED,
        pci::DmaFaultReason::NotMapped => reason::NOT_MAPPED,
        pci::DmaFaultReason::Permission => reason::PERMISSION,
        pci::DmaFaultReason::BadTable => reason::BAD_TABLE,
        pci::DmaFaultReason::MemoryGone => reason::MEMORY_GONE,
        pci::DmaFaultReason::TdiNotInRun => reason::TDI_NOT_IN_RUN,
        pci::DmaFaultReason::TdiInError => reason::TDI_IN_ERROR,
    }
}

/// An offset in BAR 0, which is far below what any `usize` holds; beyond that, nowhere.
fn to_usize(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
