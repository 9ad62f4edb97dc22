//! The orders, what must hold after each, and what is told of it.

use std::fmt;
use std::fs::File;

use serde_json::Value;

use crate::bystander::undisturbed;
use crate::session::{DEVICE, Session};
use crate::shape::{Policy, Runs, Shape};

/// The client's orders, and what people call them.
pub(crate) const ORDERS: &[(&str, &str)] = &[
    ("vfio", "close(vfio) first"),
    ("vdevice", "DESTROY(vdevice) first"),
    ("viommu", "DESTROY(viommu) first"),
    ("unbind", "TSM unbind first"),
    ("iommu", "close(iommu) first"),
    ("elsewhere", "last descriptors in another process"),
    ("vm", "close of the VM first"),
    ("kill", "SIGKILL"),
    ("disconnect", "TSM disconnect"),
    ("vf", "VF removal"),
    ("reset", "VFIO_DEVICE_RESET"),
    ("bus-master", "client clears bus master"),
];

/// The client's status where the machine was too busy for a bind to be in flight.
const MOMENT_PASSED: i32 = 3;
/// No step may take longer, whatever the device does.
const BOUND_MS: u64 = 2000;
/// A silent device is waited for at least half the exchange timeout, 500 ms, and a slow one as long. An end
/// that takes less in all has waited for none, however busy the machine is.
const WAIT_MIN_MS: u64 = 450;
/// Where a client's end of the work begins.
const END: &str = "--";

/// What the TDI was doing when the end began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// There is none.
    Absent,
    /// In RUN.
    Settled,
    /// Being bound by a slow device.
    Slow,
    /// Being bound by a device that does not answer any more.
    Silent,
}

impl Moment {
    fn faults(self) -> &'static [&'static str] {
        match self {
            Self::Absent | Self::Settled => &[],
            Self::Slow => &["bind=slow:700"],
            Self::Silent => &["bind=silent", "unbind=silent", "probe=silent"],
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "none",
            Self::Settled => "in RUN",
            Self::Slow => "slow bind in flight",
            Self::Silent => "silent bind in flight",
        })
    }
}

/// What came of one order.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) order: &'static str,
    pub(crate) moment: Moment,
    pub(crate) policy: String,
    pub(crate) shape: String,
    /// Each step of the end, and what it answered.
    pub(crate) answers: String,
    pub(crate) binds: u64,
    pub(crate) unbinds: u64,
    /// Whether a device was waited for.
    pub(crate) waits: &'static str,
    /// How the host sees the TDI before anything is put right.
    pub(crate) after: String,
}

/// Runs the orders of a policy.
pub(crate) fn run_all(shape: &Shape, policy: &Policy) -> Vec<Row> {
    let mut session = Session::start(shape, policy);
    let before = session.ledger();
    assert!(is_empty(&before), "{before:#}");
    let mut rows = Vec::new();
    for moment in moments(shape, policy) {
        for &(order, _) in ORDERS {
            if is_run(order, shape, policy) {
                let what = format!("{order}, {moment}, {shape}, {policy}");
                let attempt = || run(&mut session, &before, order, moment, shape, policy);
                let (row, longest) = undisturbed(&what, attempt);
                assert!(longest <= BOUND_MS, "{what}: a step took {longest} ms: {row:?}");
                rows.push(row);
            }
        }
    }
    session.end();
    rows
}

fn moments(shape: &Shape, policy: &Policy) -> Vec<Moment> {
    match policy.runs {
        _ if !shape.has_tsm() => vec![Moment::Absent],
        Runs::Everything | Runs::Only(_) => vec![Moment::Settled, Moment::Slow, Moment::Silent],
        Runs::Settled => vec![Moment::Settled],
    }
}

fn is_run(order: &str, shape: &Shape, policy: &Policy) -> bool {
    const OF_A_TSM: [&str; 2] = ["unbind", "disconnect"];
    let wanted = match policy.runs {
        Runs::Everything | Runs::Settled => true,
        Runs::Only(only) => order == only,
    };
    wanted && (order != "vm" || has_kvm()) && (shape.has_tsm() || !OF_A_TSM.contains(&order))
}

/// Whether there are virtual machines to close.
pub(crate) fn has_kvm() -> bool {
    File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

/// Runs one order: what came of it, and milliseconds of its longest step. `None` where the bind was not yet in
/// flight when the end began, or not any more.
fn run(
    session: &mut Session,
    before: &Value,
    order: &'static str,
    moment: Moment,
    shape: &Shape,
    policy: &Policy,
) -> Option<(Row, u64)> {
    let what = format!("{order}, {moment}, {shape}, {policy}");
    let function = if order == "vf" { "b1d0:01:00.1" } else { DEVICE };
    if shape.has_tsm() {
        session.connect();
    }
    let connected = session.ledger();
    for fault in moment.faults() {
        session.fault(function, fault);
    }
    let counted = session.counts();
    let in_flight = match moment {
        Moment::Absent | Moment::Settled => "",
        Moment::Slow | Moment::Silent => " inflight",
    };
    let arguments = shape.arguments();
    let files = if order == "vf" {
        "TDI_CDEV=/dev/vfio/devices/vfio1 TDI_PF_CDEV=/dev/vfio/devices/vfio0"
    } else {
        "TDI_CDEV=/dev/vfio/devices/vfio0"
    };
    let (lines, status) = session.tell(&format!("{files} \"$TDI\" {order}{arguments}{in_flight}"));
    let did_bind = || session.counts().binds > counted.binds;
    if status == MOMENT_PASSED || status == 0 && !in_flight.is_empty() && !did_bind() {
        session.restore();
        return None;
    }
    assert_eq!(status, 0, "{what}:\n{}", lines.join("\n"));
    let steps: Vec<Step> =
        lines.iter().skip_while(|line| *line != END).skip(1).map(Step::of).collect();

    let left = session.ledger();
    let after = host_view(&left, function);
    assert!(is_empty(&left), "{what}: left is\n{left:#}");
    // What else an order changes is in its nature: the connection, the function, a quarantine.
    if after == "unbound" && order != "disconnect" {
        assert_eq!(connected, left, "{what}: connected and left");
    }
    let now = session.counts();
    let (binds, unbinds) = (now.binds - counted.binds, now.unbinds - counted.unbinds);
    assert_eq!(binds, unbinds, "{what}: binds and unbinds\n{}", lines.join("\n"));
    session.restore();
    let restored = session.ledger();
    assert_eq!(*before, restored, "{what}: before and after");

    let longest = steps.iter().filter(|step| step.name != IN_ALL).map(|step| step.ms).max();
    let longest = longest.unwrap_or(0);
    let counts = |step: &&Step| step.name == IN_ALL || step.is_again();
    let in_all: u64 = steps.iter().filter(counts).map(|step| step.ms).sum();
    let row = Row {
        order,
        moment,
        policy: policy.deciding(order),
        shape: shape.to_string(),
        answers: answers(&steps, order),
        binds,
        unbinds,
        waits: if in_all < WAIT_MIN_MS { "no" } else { "≤ 2 s" },
        after,
    };
    Some((row, longest))
}

struct Step {
    name: String,
    answer: String,
    ms: u64,
}

impl Step {
    fn of(line: &String) -> Self {
        let mut columns = line.split('\t');
        let mut next = || columns.next().unwrap_or_else(|| panic!("no step: {line}")).to_owned();
        let (name, answer, ms) = (next(), next(), next());
        Self { name, answer, ms: ms.parse().unwrap_or_else(|_| panic!("no time: {line}")) }
    }
}

/// The client's measure of its whole end.
const IN_ALL: &str = "in all";
/// Steps that go on beside the others.
const BESIDE: [&str; 2] = ["bind", "sriov_numvfs = 0"];

impl Step {
    fn is_beside(&self) -> bool {
        BESIDE.contains(&self.name.as_str())
    }

    /// Whether it shows that the device can be had again.
    fn is_again(&self) -> bool {
        self.name.ends_with(" again")
    }
}

/// Step by step; what went on beside the others comes last, since nobody knows when it ends.
fn answers(steps: &[Step], order: &str) -> String {
    let again: Vec<_> = steps.iter().filter(|step| step.is_again()).collect();
    assert!(again.iter().all(|step| step.answer == "0"), "it cannot be had again");
    assert_eq!(
        again.is_empty(),
        order == "vf",
        "a virtual function that is gone cannot be had again"
    );
    let rest = steps.iter().filter(|step| !step.is_again() && step.name != IN_ALL);
    let (beside, mut told): (Vec<_>, Vec<_>) = rest.partition(|step| step.is_beside());
    told.extend(
        BESIDE.iter().flat_map(|name| beside.iter().filter(move |step| step.name == *name)),
    );
    let told: Vec<_> = told.iter().map(|step| format!("{} {}", step.name, step.answer)).collect();
    if told.is_empty() { "none: nobody is left to ask".to_owned() } else { told.join(", ") }
}

/// Whether nothing of any client is left, and nothing bound.
pub(crate) fn is_empty(ledger: &Value) -> bool {
    let none = |name: &str| ledger[name].as_array().is_some_and(Vec::is_empty);
    let bound = |row: &Value| row["host"] != "unbound" && row["host"] != "quarantined";
    let tdis = ledger["tdis"].as_array().expect("an array");
    let managers = ledger["managers"].as_array().expect("an array");
    none("contexts")
        && none("files")
        && ledger["serving"] == 0
        && !tdis.iter().any(bound)
        && managers.iter().all(|row| row["exchange"].is_null() && row["waiting"] == 0)
}

/// How the host sees a function's TDI.
fn host_view(ledger: &Value, function: &str) -> String {
    let tdis = ledger["tdis"].as_array().expect("an array");
    let row = tdis.iter().find(|row| row["function"] == function);
    row.map_or("gone", |row| row["host"].as_str().expect("a word")).to_owned()
}
