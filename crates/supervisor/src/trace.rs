//! The trace: a line for every call served and everything that devices did, in the manner of strace.
//!
//! ```text
//! [pid 4711] IOMMU_IOAS_ALLOC(3</dev/iommu>, flags=0) = 0 {out_ioas_id=1}
//! [pid 4711] pwrite(4</dev/vfio/devices/vfio0>, config+0x4, 2, 0x0006) = 2
//! --- DMA fault: b1d0:01:00.0 read iova 0x1000: not mapped
//! --- TSM: b1d0:01:00.1 unbound
//! --- TDI: b1d0:01:00.1 RUN -> ERROR: bus master enable cleared
//! +++ /dev/iommu closed (opened by 4711)
//! ```
//!
//! Calls are decoded by `uapi`'s layouts and constants alone: a command added there is decoded here.
//! One lock, a leaf, which keeps lines whole.

mod call;
mod names;
mod tap;

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use pci::{Address, DmaAccess, DmaFault, Interrupt};
use tdisp::{Breach, State};
use uapi::{Errno, Profile};
use vfio::PolicyEvent;

use crate::findings::interrupt_name;
use crate::observer::{Call, Left, OpenFile, Thread};

pub use tap::Tap;

/// Writes lines to one place.
pub(crate) struct Trace {
    profile: Profile,
    /// `None` once a write failed: a trace with holes would mislead.
    to: Mutex<Option<Box<dyn Write + Send>>>,
}

impl Trace {
    /// Each line reaches `to` in one write.
    pub(crate) fn new(to: impl Write + Send + 'static, profile: Profile) -> Self {
        Self { profile, to: Mutex::new(Some(Box::new(to))) }
    }

    pub(crate) fn call(&self, thread: Thread, call: &Call<'_>, answer: Result<u64, Errno>) {
        let line = call::Line { call, answer, profile: self.profile };
        self.line(format_args!("[pid {}] {line}", thread.id));
    }

    pub(crate) fn dma_fault(&self, function: Address, fault: &DmaFault) {
        let DmaFault { iova, access, reason } = fault;
        self.line(format_args!("--- DMA fault: {function} {access} iova {iova:#x}: {reason}"));
    }

    pub(crate) fn interrupt(&self, function: Address, interrupt: Interrupt) {
        self.line(format_args!("--- interrupt: {function} {}", interrupt_name(interrupt)));
    }

    pub(crate) fn interrupt_unheard(&self, function: Address, interrupt: Interrupt) {
        let name = interrupt_name(interrupt);
        self.line(format_args!("--- interrupt with no handler: {function} {name}"));
    }

    pub(crate) fn trusted_dma(
        &self,
        function: Address,
        access: DmaAccess,
        iova: u64,
        length_bytes: u64,
    ) {
        self.line(format_args!(
            "--- DMA T=1: {function} {access} iova {iova:#x}, {length_bytes} bytes"
        ));
    }

    pub(crate) fn tsm(&self, function: Address, notice: &tsm::Notice) {
        self.line(format_args!("--- TSM: {function} {notice}"));
    }

    pub(crate) fn tdi(&self, function: Address, from: State, to: State, cause: Option<Breach>) {
        match cause {
            Some(cause) => self.line(format_args!("--- TDI: {function} {from} -> {to}: {cause}")),
            None => self.line(format_args!("--- TDI: {function} {from} -> {to}")),
        }
    }

    pub(crate) fn policy(&self, function: Address, event: PolicyEvent) {
        self.line(format_args!("--- policy: {function} {event}"));
    }

    pub(crate) fn released(&self, file: &OpenFile, left: &Left) {
        let OpenFile { path, opener, .. } = file;
        let when = if left.at_exit { "closed by exit" } else { "closed" };
        self.line(format_args!("+++ {path} {when} (opened by {opener}){}", LeftIn(left)));
    }

    fn line(&self, text: fmt::Arguments<'_>) {
        let line = format!("{text}\n");
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = to.as_mut() else { return };
        if let Err(error) = open.write_all(line.as_bytes()) {
            *to = None;
            // Where it is stderr itself that is gone, there is nobody left to tell.
            let _ = writeln!(io::stderr(), "bindery: the trace ends here: {error}");
        }
    }
}

struct LeftIn<'a>(&'a Left);

impl fmt::Display for LeftIn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Left { objects, maps, mapped_bytes, .. } = self.0;
        let mut separator = ", left: ";
        for (kind, count) in objects {
            write!(f, "{separator}{kind}={count}")?;
            separator = ", ";
        }
        if *maps > 0 {
            write!(f, "{separator}maps={maps} mapped_bytes={mapped_bytes:#x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pci::DmaFaultReason;
    use uapi::FileKind;

    use super::*;

    /// What was written, shared with the test.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn function() -> Address {
        Address::new(0xb1d0, 1, 0, 0).unwrap()
    }

    #[test]
    fn events_are_a_line_each() {
        let page = Page::default();
        let trace = Trace::new(page.clone(), Profile::Linux73);
        let reason = DmaFaultReason::NotMapped;
        trace.dma_fault(function(), &DmaFault { iova: 0x1000, access: DmaAccess::Read, reason });
        trace.interrupt(function(), Interrupt::Msix(1));
        trace.trusted_dma(function(), DmaAccess::Write, 0x2000, 64);
        trace.tsm(function(), &tsm::Notice::Unbound);
        trace.tdi(function(), State::Run, State::Error, Some(Breach::BusMasterCleared));
        trace.tdi(function(), State::Error, State::Unlocked, None);
        trace.policy(function(), PolicyEvent::ResetRefused(vfio::ResetCause::Command));
        let path = "/dev/iommu".to_owned();
        let file = OpenFile { serial: 1, kind: FileKind::Iommufd, path, opener: 41 };
        let left =
            Left { objects: vec![("ioas", 1)], maps: 2, mapped_bytes: 0x2000, at_exit: true };
        trace.released(&file, &left);
        trace.released(&file, &Left::default());
        let expected = "\
--- DMA fault: b1d0:01:00.0 read iova 0x1000: not mapped
--- interrupt: b1d0:01:00.0 MSI-X vector 1
--- DMA T=1: b1d0:01:00.0 write iova 0x2000, 64 bytes
--- TSM: b1d0:01:00.0 unbound
--- TDI: b1d0:01:00.0 RUN -> ERROR: bus master enable cleared
--- TDI: b1d0:01:00.0 ERROR -> CONFIG_UNLOCKED
--- policy: b1d0:01:00.0 RESET refused: the TDI is bound
+++ /dev/iommu closed by exit (opened by 41), left: ioas=1, maps=2 mapped_bytes=0x2000
+++ /dev/iommu closed (opened by 41)
";
        assert_eq!(page.text(), expected);
    }
}
