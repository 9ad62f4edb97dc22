//! The report: findings in the shape in which they are written down, as JSON or for people.
//!
//! `docs/report.md` describes the JSON. Takes no lock.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

/// Everything there is to tell of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// Raised when a field changes its meaning or goes away.
    pub schema: u32,
    /// The program and its arguments.
    pub program: Vec<String>,
    /// How the program ended: 128+n on a signal.
    pub exit_status: u8,
    /// Whether there are no findings.
    pub clean: bool,
    /// Calls served, by name.
    pub calls: Vec<CallRow>,
    /// Bytes that devices moved.
    pub dma_bytes: u64,
    /// What the TSM did.
    pub tsm: TsmCounts,
    /// TDIs that went to ERROR.
    pub tdi_errors: Vec<TdiErrorRow>,
    /// TDIs that were bound or quarantined when all files were released.
    pub tdis_left: Vec<TdiLeftRow>,
    /// DMA accesses refused.
    pub dma_faults: Vec<FaultRow>,
    /// Interrupts that nobody had asked for.
    pub interrupts_unheard: Vec<UnheardRow>,
    /// What files held when they were released.
    pub left: Vec<LeftRow>,
    /// Files that the program's end closed, by path.
    pub open_at_exit: BTreeMap<String, u64>,
    /// What came in too many kinds to be listed.
    pub unlisted: Unlisted,
}

/// One kind of call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CallRow {
    pub name: String,
    pub count: u64,
    pub failed: Vec<FailureRow>,
}

/// How often a call failed with one error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FailureRow {
    pub errno: &'static str,
    pub count: u64,
}

/// Calls of the TSM that reached its backend, and how some of them ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct TsmCounts {
    pub binds: u64,
    pub unbinds: u64,
    pub binds_refused: u64,
    pub cancelled: u64,
    pub timed_out: u64,
    pub quarantined: u64,
}

/// How often a function's TDI went to ERROR for one cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TdiErrorRow {
    pub function: String,
    pub cause: String,
    pub count: u64,
}

/// A TDI that somebody left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TdiLeftRow {
    pub function: String,
    pub binding: String,
}

/// DMA faults of one function for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FaultRow {
    pub function: String,
    pub reason: String,
    pub count: u64,
    /// The first few.
    pub first: Vec<FaultAt>,
}

/// One DMA fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FaultAt {
    pub access: String,
    pub iova: u64,
}

/// One interrupt that was not heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct UnheardRow {
    pub function: String,
    pub interrupt: String,
    pub count: u64,
}

/// What one file held when it was released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LeftRow {
    pub file: String,
    /// The process that had opened it.
    pub opener: i32,
    /// `close`, or `exit` where the program's end closed it.
    pub when: &'static str,
    pub objects: Vec<ObjectRow>,
    pub maps: u64,
    pub mapped_bytes: u64,
}

/// Objects of one type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ObjectRow {
    pub r#type: &'static str,
    pub count: u64,
}

/// Counts of what is missing from the lists above.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Unlisted {
    pub calls: u64,
    pub interrupts_unheard: u64,
    pub left: u64,
}

impl Report {
    /// The version of the JSON.
    pub(crate) const SCHEMA: u32 = 1;

    /// The report for people: a line or two a finding, each beginning with our name.
    pub(crate) fn summary(&self) -> String {
        let mut lines = vec![self.headline()];
        lines.extend(self.dma_faults.iter().map(fault_line));
        lines.extend(self.tdi_errors.iter().map(|row| {
            let TdiErrorRow { function, cause, count } = row;
            format!("  {function}: TDI went to ERROR {} ({cause})", times(*count))
        }));
        lines.extend(self.tdis_left.iter().map(|row| {
            let TdiLeftRow { function, binding } = row;
            format!("  {function}: TDI left {binding}")
        }));
        if self.tsm.binds != self.tsm.unbinds {
            let TsmCounts { binds, unbinds, .. } = self.tsm;
            let (binds, unbinds) = (plural(binds, "bind"), plural(unbinds, "unbind"));
            lines.push(format!("  TSM: {binds}, {unbinds}"));
        }
        lines.extend(self.interrupts_unheard.iter().map(|row| {
            let UnheardRow { function, interrupt, count } = row;
            format!("  {function}: {interrupt} fired {} with no handler", times(*count))
        }));
        lines.extend(self.left.iter().map(left_line));
        let unlisted = self.unlisted.interrupts_unheard + self.unlisted.left;
        if unlisted > 0 {
            lines.push(format!("  and {unlisted} more that are not listed"));
        }
        lines.iter().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "bindery: {line}");
            text
        })
    }

    fn headline(&self) -> String {
        let calls = self.calls.iter().map(|row| row.count).sum::<u64>() + self.unlisted.calls;
        let failed: u64 =
            self.calls.iter().flat_map(|row| &row.failed).map(|failure| failure.count).sum();
        let calls = format!("{calls} calls served, {failed} of them refused");
        if self.clean { format!("{calls}; no findings") } else { format!("findings ({calls}):") }
    }
}

fn fault_line(row: &FaultRow) -> String {
    let FaultRow { function, reason, count, first } = row;
    let mut places: Vec<_> =
        first.iter().map(|at| format!("{} {:#x}", at.access, at.iova)).collect();
    if *count > first.len() as u64 {
        places.push("…".to_owned());
    }
    format!("  {function}: {} ({reason}): {}", plural(*count, "DMA fault"), places.join(", "))
}

fn left_line(row: &LeftRow) -> String {
    let LeftRow { file, opener, when, objects, maps, mapped_bytes } = row;
    let mut held: Vec<_> =
        objects.iter().map(|object| format!("{} {}", object.count, object.r#type)).collect();
    if *maps > 0 {
        held.push(format!("{} ({mapped_bytes:#x} bytes)", plural(*maps, "map")));
    }
    format!("  {file} (opened by {opener}): left at {when}: {}", held.join(", "))
}

fn plural(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            schema: Report::SCHEMA,
            program: vec!["vmm".to_owned(), "-x".to_owned()],
            exit_status: 0,
            clean: false,
            calls: vec![CallRow {
                name: "IOMMU_IOAS_MAP".to_owned(),
                count: 3,
                failed: vec![FailureRow { errno: "EINVAL", count: 1 }],
            }],
            dma_bytes: 4096,
            tsm: TsmCounts { binds: 2, unbinds: 1, timed_out: 1, ..TsmCounts::default() },
            tdi_errors: vec![TdiErrorRow {
                function: "b1d0:01:00.1".to_owned(),
                cause: "bus master enable cleared".to_owned(),
                count: 1,
            }],
            tdis_left: vec![TdiLeftRow {
                function: "b1d0:01:00.1".to_owned(),
                binding: "quarantined".to_owned(),
            }],
            dma_faults: vec![FaultRow {
                function: "b1d0:01:00.0".to_owned(),
                reason: "not mapped".to_owned(),
                count: 9,
                first: vec![FaultAt { access: "read".to_owned(), iova: 0x1000 }],
            }],
            interrupts_unheard: vec![UnheardRow {
                function: "b1d0:01:00.0".to_owned(),
                interrupt: "MSI-X vector 1".to_owned(),
                count: 1,
            }],
            left: vec![LeftRow {
                file: "/dev/iommu".to_owned(),
                opener: 41,
                when: "close",
                objects: vec![ObjectRow { r#type: "ioas", count: 1 }],
                maps: 2,
                mapped_bytes: 0x3000,
            }],
            open_at_exit: BTreeMap::from([("/dev/iommu".to_owned(), 1)]),
            unlisted: Unlisted::default(),
        }
    }

    #[test]
    fn summary_says_each_finding_in_a_line() {
        let expected = "\
bindery: findings (3 calls served, 1 of them refused):
bindery:   b1d0:01:00.0: 9 DMA faults (not mapped): read 0x1000, …
bindery:   b1d0:01:00.1: TDI went to ERROR once (bus master enable cleared)
bindery:   b1d0:01:00.1: TDI left quarantined
bindery:   TSM: 2 binds, 1 unbind
bindery:   b1d0:01:00.0: MSI-X vector 1 fired once with no handler
bindery:   /dev/iommu (opened by 41): left at close: 1 ioas, 2 maps (0x3000 bytes)
";
        assert_eq!(report().summary(), expected);
    }

    /// The schema that `docs/report.md` promises.
    #[test]
    fn json_keeps_its_shape() {
        let expected = serde_json::json!({
            "schema": 1,
            "program": ["vmm", "-x"],
            "exit_status": 0,
            "clean": false,
            "calls": [{
                "name": "IOMMU_IOAS_MAP",
                "count": 3,
                "failed": [{"errno": "EINVAL", "count": 1}],
            }],
            "dma_bytes": 4096,
            "tsm": {
                "binds": 2,
                "unbinds": 1,
                "binds_refused": 0,
                "cancelled": 0,
                "timed_out": 1,
                "quarantined": 0,
            },
            "tdi_errors": [{
                "function": "b1d0:01:00.1",
                "cause": "bus master enable cleared",
                "count": 1,
            }],
            "tdis_left": [{"function": "b1d0:01:00.1", "binding": "quarantined"}],
            "dma_faults": [{
                "function": "b1d0:01:00.0",
                "reason": "not mapped",
                "count": 9,
                "first": [{"access": "read", "iova": 4096}],
            }],
            "interrupts_unheard": [{
                "function": "b1d0:01:00.0",
                "interrupt": "MSI-X vector 1",
                "count": 1,
            }],
            "left": [{
                "file": "/dev/iommu",
                "opener": 41,
                "when": "close",
                "objects": [{"type": "ioas", "count": 1}],
                "maps": 2,
                "mapped_bytes": 12288,
            }],
            "open_at_exit": {"/dev/iommu": 1},
            "unlisted": {"calls": 0, "interrupts_unheard": 0, "left": 0},
        });
        assert_eq!(serde_json::to_value(report()).unwrap(), expected);
    }
}
