//! Counting, within bounds: each kind of event by what tells it apart, and the first few of a kind.
//!
//! Takes no lock; whoever owns a [`Findings`] guards it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use pci::{Address, DmaFault, DmaFaultReason, Interrupt};
use tdisp::Breach;
use tsm::{Binding, Counters};
use uapi::{Errno, Profile};

use super::report::{
    CallRow, FailureRow, FaultAt, FaultRow, LeftRow, ObjectRow, Report, TdiErrorRow, TdiLeftRow,
    TsmCounts, UnheardRow, Unlisted,
};
use crate::observer::{Call, Left, OpenFile, command_on};

/// Distinct calls that are counted one by one. The command table is far smaller; what else may come
/// is request numbers that no command has.
const CALLS_MAX: usize = 256;
/// Faults of one function and reason that are kept with their addresses.
const FAULTS_KEPT: usize = 4;
/// Pairs of function and interrupt that are counted one by one.
const INTERRUPTS_MAX: usize = 256;
/// Files whose leftovers are kept one by one.
const LEFT_MAX: usize = 64;

/// What was seen of a run so far.
#[derive(Debug)]
pub(crate) struct Findings {
    profile: Profile,
    calls: BTreeMap<Cow<'static, str>, CallTally>,
    faults: BTreeMap<(Address, DmaFaultReason), FaultTally>,
    unheard: BTreeMap<(Address, Interrupt), u64>,
    left: Vec<LeftRow>,
    /// A program closed a file before it had ended what it made there. One that exits may leave that
    /// to the kernel.
    leaked: bool,
    open_at_exit: BTreeMap<String, u64>,
    dma_bytes: u64,
    /// By function and cause, of which there are few.
    tdi_errors: BTreeMap<(Address, String), u64>,
    tdis_left: Vec<TdiLeftRow>,
    tsm: TsmCounts,
    unlisted: Unlisted,
}

#[derive(Debug, Default)]
struct CallTally {
    count: u64,
    failed: BTreeMap<Errno, u64>,
}

#[derive(Debug, Default)]
struct FaultTally {
    count: u64,
    first: Vec<FaultAt>,
}

impl Findings {
    pub(crate) fn new(profile: Profile) -> Self {
        Self {
            profile,
            calls: BTreeMap::new(),
            faults: BTreeMap::new(),
            unheard: BTreeMap::new(),
            left: Vec::new(),
            leaked: false,
            open_at_exit: BTreeMap::new(),
            dma_bytes: 0,
            tdi_errors: BTreeMap::new(),
            tdis_left: Vec::new(),
            tsm: TsmCounts::default(),
            unlisted: Unlisted::default(),
        }
    }

    pub(crate) fn call(&mut self, call: &Call<'_>, answer: Result<u64, Errno>) {
        let name = name_of(call, self.profile);
        if self.calls.len() >= CALLS_MAX && !self.calls.contains_key(&name) {
            self.unlisted.calls += 1;
            return;
        }
        let tally = self.calls.entry(name).or_default();
        tally.count += 1;
        if let Err(errno) = answer {
            *tally.failed.entry(errno).or_default() += 1;
        }
    }

    pub(crate) fn dma(&mut self, length_bytes: u64) {
        self.dma_bytes = self.dma_bytes.saturating_add(length_bytes);
    }

    pub(crate) fn dma_fault(&mut self, function: Address, fault: &DmaFault) {
        let tally = self.faults.entry((function, fault.reason)).or_default();
        tally.count += 1;
        if tally.first.len() < FAULTS_KEPT {
            tally.first.push(FaultAt { access: fault.access.to_string(), iova: fault.iova });
        }
    }

    pub(crate) fn interrupt_unheard(&mut self, function: Address, interrupt: Interrupt) {
        let key = (function, interrupt);
        if self.unheard.len() >= INTERRUPTS_MAX && !self.unheard.contains_key(&key) {
            self.unlisted.interrupts_unheard += 1;
            return;
        }
        *self.unheard.entry(key).or_default() += 1;
    }

    pub(crate) fn tdi_error(&mut self, function: Address, cause: Option<Breach>) {
        // A session has a number of its own each time.
        let cause = match cause {
            Some(Breach::SessionEnded(_)) => "SPDM session ended".to_owned(),
            Some(cause) => cause.to_string(),
            None => "no cause told".to_owned(),
        };
        *self.tdi_errors.entry((function, cause)).or_default() += 1;
    }

    pub(crate) fn tdis_ended(&mut self, counters: &Counters, left: &[(Address, Binding)]) {
        let Counters { binds, unbinds, binds_refused, cancelled, timed_out, quarantined } =
            *counters;
        self.tsm = TsmCounts { binds, unbinds, binds_refused, cancelled, timed_out, quarantined };
        self.tdis_left = left
            .iter()
            .map(|(function, binding)| TdiLeftRow {
                function: function.to_string(),
                binding: binding.to_string(),
            })
            .collect();
    }

    pub(crate) fn released(&mut self, file: &OpenFile, left: &Left) {
        if left.at_exit {
            *self.open_at_exit.entry(file.path.clone()).or_default() += 1;
        }
        if left.objects.is_empty() && left.maps == 0 {
            return;
        }
        self.leaked |= !left.at_exit;
        if self.left.len() >= LEFT_MAX {
            self.unlisted.left += 1;
            return;
        }
        self.left.push(LeftRow {
            file: file.path.clone(),
            opener: file.opener,
            when: if left.at_exit { "exit" } else { "close" },
            objects: left
                .objects
                .iter()
                .map(|(kind, count)| ObjectRow { r#type: kind, count: *count })
                .collect(),
            maps: left.maps,
            mapped_bytes: left.mapped_bytes,
        });
    }

    /// What there is to tell of a program that ended with `exit_status`.
    pub(crate) fn report(&self, program: &[String], exit_status: u8) -> Report {
        let unheard = self.unheard.iter().map(|((function, interrupt), count)| UnheardRow {
            function: function.to_string(),
            interrupt: interrupt_name(*interrupt),
            count: *count,
        });
        Report {
            schema: Report::SCHEMA,
            program: program.to_vec(),
            exit_status,
            clean: self.is_clean(),
            calls: self.calls.iter().map(call_row).collect(),
            dma_bytes: self.dma_bytes,
            tsm: self.tsm.clone(),
            tdi_errors: self.tdi_errors.iter().map(tdi_error_row).collect(),
            tdis_left: self.tdis_left.clone(),
            dma_faults: self.faults.iter().map(fault_row).collect(),
            interrupts_unheard: unheard.collect(),
            left: self.left.clone(),
            open_at_exit: self.open_at_exit.clone(),
            unlisted: self.unlisted.clone(),
        }
    }

    fn is_clean(&self) -> bool {
        self.faults.is_empty()
            && self.unheard.is_empty()
            && !self.leaked
            && self.tdi_errors.is_empty()
            && self.tdis_left.is_empty()
            && self.tsm.binds == self.tsm.unbinds
    }
}

/// What a call is counted under, and printed as.
pub(crate) fn name_of(call: &Call<'_>, profile: Profile) -> Cow<'static, str> {
    match call {
        Call::Open { .. } => "open".into(),
        Call::Ioctl { file, request, .. } => match command_on(file.kind, profile, *request) {
            Some(command) => command.name.into(),
            None => format!("ioctl {request:#x}").into(),
        },
        Call::Read { .. } => "pread".into(),
        Call::Write { .. } => "pwrite".into(),
        Call::Map { .. } => "mmap".into(),
    }
}

/// An interrupt in a few words.
pub(crate) fn interrupt_name(interrupt: Interrupt) -> String {
    match interrupt {
        Interrupt::Intx => "INTx".to_owned(),
        Interrupt::Msi(vector) => format!("MSI vector {vector}"),
        Interrupt::Msix(vector) => format!("MSI-X vector {vector}"),
    }
}

fn call_row((name, tally): (&Cow<'static, str>, &CallTally)) -> CallRow {
    let failed = tally.failed.iter();
    CallRow {
        name: name.to_string(),
        count: tally.count,
        failed: failed
            .map(|(errno, count)| FailureRow { errno: errno.name(), count: *count })
            .collect(),
    }
}

fn tdi_error_row(((function, cause), count): (&(Address, String), &u64)) -> TdiErrorRow {
    TdiErrorRow { function: function.to_string(), cause: cause.clone(), count: *count }
}

fn fault_row(((function, reason), tally): (&(Address, DmaFaultReason), &FaultTally)) -> FaultRow {
    FaultRow {
        function: function.to_string(),
        reason: reason.to_string(),
        count: tally.count,
        first: tally.first.clone(),
    }
}

#[cfg(test)]
mod tests {
    use pci::DmaAccess;
    use uapi::FileKind;

    use super::*;

    fn function() -> Address {
        Address::new(0xb1d0, 1, 0, 0).unwrap()
    }

    fn file() -> OpenFile {
        OpenFile { serial: 1, kind: FileKind::Iommufd, path: "/dev/iommu".to_owned(), opener: 7 }
    }

    #[test]
    fn a_storm_is_counted_and_not_kept() {
        let mut findings = Findings::new(Profile::Linux73);
        for iova in 0..100_000 {
            let reason = DmaFaultReason::NotMapped;
            let fault = DmaFault { iova, access: DmaAccess::Write, reason };
            findings.dma_fault(function(), &fault);
        }
        for vector in 0..2048 {
            findings.interrupt_unheard(function(), Interrupt::Msix(vector));
        }
        for request in 0..10_000 {
            let file = file();
            let call =
                Call::Ioctl { fd: 3, file: &file, request, argument: 0, sent: &[], returned: &[] };
            findings.call(&call, Err(Errno::ENOTTY));
        }
        for _ in 0..1000 {
            findings.released(&file(), &Left { maps: 1, ..Left::default() });
        }
        let report = findings.report(&[], 0);
        assert_eq!(report.dma_faults[0].count, 100_000);
        assert_eq!(report.dma_faults[0].first.len(), FAULTS_KEPT);
        assert_eq!(report.interrupts_unheard.len(), INTERRUPTS_MAX);
        assert_eq!(report.unlisted.interrupts_unheard, 2048 - INTERRUPTS_MAX as u64);
        assert_eq!(report.calls.len(), CALLS_MAX);
        assert_eq!(report.unlisted.calls, 10_000 - CALLS_MAX as u64);
        assert_eq!(report.left.len(), LEFT_MAX);
        assert_eq!(report.unlisted.left, 1000 - LEFT_MAX as u64);
    }

    #[test]
    fn a_tdi_in_error_or_left_bound_is_a_finding() {
        let mut findings = Findings::new(Profile::Rfc);
        let counters = Counters { binds: 2, unbinds: 2, ..Counters::default() };
        findings.tdis_ended(&counters, &[]);
        assert!(findings.report(&[], 0).clean);
        findings.tdis_ended(&counters, &[(function(), Binding::Quarantined)]);
        assert!(!findings.report(&[], 0).clean, "quarantined");
        findings.tdis_ended(&Counters { unbinds: 1, ..counters }, &[]);
        assert!(!findings.report(&[], 0).clean, "a bind without its unbind");
        findings.tdis_ended(&counters, &[]);
        findings.tdi_error(function(), Some(Breach::MemoryCleared));
        findings.tdi_error(function(), Some(Breach::MemoryCleared));
        let report = findings.report(&[], 0);
        assert!(!report.clean);
        assert_eq!(report.tdi_errors.len(), 1);
        assert_eq!((report.tdi_errors[0].count, report.tsm.binds), (2, 2));
    }

    #[test]
    fn failed_calls_and_files_open_at_exit_are_no_findings() {
        let mut findings = Findings::new(Profile::Linux73);
        findings.call(&Call::Open { path: "/dev/iommu", file: None }, Err(Errno::EMFILE));
        findings.released(&file(), &Left { at_exit: true, ..Left::default() });
        findings.released(&file(), &Left { at_exit: true, maps: 1, ..Left::default() });
        let report = findings.report(&[], 0);
        assert!(report.clean);
        assert_eq!(report.left.len(), 1, "listed all the same");
        assert_eq!(report.open_at_exit["/dev/iommu"], 2);
        assert_eq!(report.calls[0].failed[0].errno, "EMFILE");
        findings.released(&file(), &Left { maps: 1, ..Left::default() });
        assert!(!findings.report(&[], 0).clean, "a map left at close");
    }
}
