//! The goals, and how far they are met.

use crate::measure::{Samples, quantile};

/// What is demanded of a workload.
pub(crate) enum Demand {
    /// At least so many times as fast as a contender, in three rounds of four.
    Faster(&'static str, f64),
    /// As [`Demand::Faster`] than a program that is not part of this bench. What it takes is derived: a
    /// contender's time here, divided by how many times faster than that contender it was where both
    /// ran.
    FasterThanDerived { program: &'static str, through: &'static str, transfer: f64, times: f64 },
    /// At most so many times the time of a contender, in three rounds of four.
    Within(&'static str, f64),
    /// At most so many nanoseconds, or bytes, in three rounds of four.
    AtMost(f64),
    /// At most so many times the figure of another workload of ours.
    WithinWorkload(&'static str, f64),
    /// At most [`GROWTH`] times the figure of the same with few areas, or [`MISSES`] times a load that waits for memory as
    /// large as the leaves are, whichever is more.
    Grows { from: &'static str, load: &'static str },
}

const GROWTH: f64 = 3.0;
const MISSES: f64 = 1.3;

use Demand::{AtMost, Faster, FasterThanDerived, Grows, Within, WithinWorkload};

pub(crate) struct Goal {
    pub(crate) id: &'static str,
    pub(crate) workload: &'static str,
    pub(crate) demand: Demand,
    /// Whether to fall far short fails a run with `--gates`: only what no busy machine hides.
    pub(crate) gate: bool,
}

const fn goal(id: &'static str, workload: &'static str, demand: Demand) -> Goal {
    Goal { id, workload, demand, gate: false }
}

const fn gate(id: &'static str, workload: &'static str, demand: Demand) -> Goal {
    Goal { id, workload, demand, gate: true }
}

const fn spdk(transfer: f64, times: f64) -> Demand {
    FasterThanDerived { program: "SPDK", through: "BTreeMap", transfer, times }
}

const fn generic_pt(transfer: f64, times: f64) -> Demand {
    FasterThanDerived { program: "generic_pt", through: "BTreeMap", transfer, times }
}

const OURS: &str = "bindery";

/// Transfers are a BTreeMap's time over the program's, where both were measured side by side on
/// another machine (Xeon, 2.1 GHz): the quotients stand in the order of that table's figures.
pub(crate) const GOALS: &[Goal] = &[
    goal("G1", "RAM-heavy", Faster("vm-memory", 20.0)),
    goal("G1", "RAM-heavy", spdk(16.0 / 5.0, 2.5)),
    goal("G1", "RAM-heavy, dependent", AtMost(6.0)),
    goal("G1", "uniform over 50", Faster("vm-memory", 10.0)),
    goal("G1", "uniform over 50", Faster("BTreeMap", 4.0)),
    goal("G1", "uniform over 50", spdk(33.0 / 8.6, 1.3)),
    gate("G2", "1M, 64 B", Faster("BTreeMap", 45.0)),
    gate("G2", "1M, 64 B", Faster("rangemap", 45.0)),
    gate("G2", "1M, 64 B", Faster("nodit", 45.0)),
    gate("G2", "1M, 64 B", Faster("vm-memory", 90.0)),
    goal("G2", "1M, 64 B", spdk(454.0 / 17.0, 2.0)),
    goal("G2", "1M, 64 B", generic_pt(454.0 / 75.0, 9.0)),
    goal("G2", "1M, 64 B", Within("flat floor", 1.25)),
    goal("G2", "1M, 64 B, dependent", Within("flat floor", 1.25)),
    goal("G2", "1M, 64 B, dependent", spdk(542.0 / 42.0, 1.0)),
    gate("G3", "1M, 64 B-64 KiB", Faster("BTreeMap", 35.0)),
    gate("G3", "1M, 64 B-64 KiB", Faster("rangemap", 35.0)),
    gate("G3", "1M, 64 B-64 KiB", Faster("nodit", 35.0)),
    gate("G3", "1M, 64 B-64 KiB", Faster("vm-memory", 55.0)),
    goal("G3", "1M, 64 B-64 KiB", spdk(1148.0 / 49.0, 2.0)),
    goal("G3", "1M, 64 B-64 KiB", generic_pt(1148.0 / 184.0, 8.0)),
    goal("G3", "1M, 64 B-64 KiB", Within("flat floor", 1.25)),
    gate("G4", "churn", Faster("BTreeMap", 20.0)),
    gate("G4", "churn", Faster("rangemap", 20.0)),
    gate("G4", "churn", Faster("vm-memory", 30.0)),
    goal("G4", "churn", generic_pt(901.0 / 190.0, 4.0)),
    goal("G4", "churn", spdk(901.0 / 35.0, 1.0 / 1.25)),
    goal("G4", "churn, each unmap waited for", Faster("BTreeMap", 1.5)),
    goal("G5", "mixed 4K-2M", Faster("BTreeMap", 3.0)),
    goal("G5", "mixed 4K-2M", Faster("nodit", 3.0)),
    goal("G5", "mixed 4K-2M", Faster("vm-memory", 7.0)),
    goal("G5", "mixed 4K-2M", generic_pt(308.0 / 544.0, 5.0)),
    goal("G5", "mixed 4K-2M", spdk(308.0 / 867.0, 8.0)),
    goal("G6", "unmap 64 GiB", AtMost(500_000.0)),
    gate("G6", "unmap 64 GiB", Faster("BTreeMap", 350.0)),
    gate("G6", "unmap 64 GiB", Faster("vm-memory", 350.0)),
    goal("G6", "unmap 64 GiB", generic_pt(185.0 / 25.5, 50.0)),
    goal("G6", "unmap 64 GiB", spdk(185.0 / 15.6, 30.0)),
    gate("G6", "map 64 GiB in order", Faster("BTreeMap", 17.0)),
    goal("G6", "map 64 GiB in order", generic_pt(265.0 / 51.5, 3.0)),
    gate("G7", "bytes an area, 1M", AtMost(8.5)),
    gate("G7", "bytes, empty", AtMost(16384.0)),
    goal("G7", "bytes, 50 sections", AtMost(262_144.0)),
    goal("G8", "automatic IOVA, p99", AtMost(500.0)),
    gate("G8", "automatic IOVA", Faster("BTreeMap walk", 50_000.0)),
    goal("G8", "automatic IOVA, holes do not suit, p99", AtMost(500.0)),
    goal("G9", "mark 4K, hot", Faster("vm-memory", 3.0)),
    gate("G9", "mark 64K, hot", Faster("vm-memory", 16.0)),
    goal("G9", "read all dirty again", AtMost(350_000.0)),
    gate("G9", "read all dirty again", Faster("vm-memory", 6.0)),
    goal("G9", "read 1 % in runs of 256K", AtMost(60_000.0)),
    gate("G9", "read 1 % in runs of 256K", Faster("vm-memory", 33.0)),
    goal("G9", "read clean", AtMost(1000.0)),
    gate("G9", "read clean", Faster("vm-memory", 800.0)),
    goal("G10", "2 readers", WithinWorkload("1 reader", 1.0 / 1.9)),
    goal("G10", "2 readers", Faster("RwLock<bindery>", 10.0)),
    goal("G10", "2 readers", Faster("RwLock<BTreeMap>", 28.0)),
    goal("G10", "2 readers", Faster("RwLock<vm-memory>", 45.0)),
    goal("G10", "2 readers, 10k unmaps/s", WithinWorkload("2 readers", 1.05)),
    goal("G10", "1 reader, 10k unmaps/s", WithinWorkload("1 reader", 1.05)),
    goal("G10", "1 reader, 1 writer", Faster("RwLock<bindery>", 10.0)),
    goal("G10", "1 reader, 1 writer", Faster("RwLock<BTreeMap>", 28.0)),
    goal("G10", "p99 of an unmap beside 1 reader", AtMost(15_000.0)),
    goal("G14", "16.7M: unmap", Grows { from: "1k: unmap", load: "16.7M: chase" }),
    goal("G14", "16.7M: map", Grows { from: "1k: map", load: "16.7M: chase" }),
    goal("G14", "16.7M: place", Grows { from: "1k: place", load: "16.7M: chase" }),
    goal("G14", "16.7M: clean read", Grows { from: "1k: clean read", load: "16.7M: chase" }),
];

/// One line of the table of goals.
pub(crate) struct Verdict {
    pub(crate) demanded: String,
    pub(crate) found: String,
    pub(crate) met: bool,
    /// Whether it is not even so far short that the machine can be no excuse: for a ratio, 1.5.
    pub(crate) passes_gate: bool,
}

/// What a ratio must reach for the gate.
const GATE: f64 = 1.5;

/// `None` where the workload was not measured.
pub(crate) fn judge(goal: &Goal, samples: &Samples) -> Option<Verdict> {
    let ours = samples.of(goal.workload, OURS);
    if ours.is_empty() {
        return None;
    }
    let times = |contender: &str, ratios: &[f64], demanded: f64| Verdict {
        demanded: format!("{demanded:.3}x of {contender}").replace(".000", ""),
        found: format!(
            "{:.1} ({:.1}-{:.1})",
            quantile(ratios, 0.25),
            quantile(ratios, 0.5),
            quantile(ratios, 0.75)
        ),
        met: quantile(ratios, 0.25) >= demanded,
        passes_gate: quantile(ratios, 0.25) >= GATE,
    };
    let within = |what: &str, ratios: &[f64], demanded: f64| Verdict {
        demanded: format!("at most {demanded:.2} of {what}"),
        found: format!(
            "{:.2} ({:.2}-{:.2})",
            quantile(ratios, 0.75),
            quantile(ratios, 0.5),
            quantile(ratios, 0.25)
        ),
        met: quantile(ratios, 0.75) <= demanded,
        passes_gate: quantile(ratios, 0.75) <= demanded,
    };
    Some(match goal.demand {
        Faster(contender, demanded) => {
            times(contender, &samples.ratios(goal.workload, contender, OURS), demanded)
        }
        FasterThanDerived { program, through, transfer, times: demanded } => {
            let ratios = samples.ratios(goal.workload, through, OURS);
            let derived: Vec<f64> = ratios.iter().map(|ratio| ratio / transfer).collect();
            times(&format!("{program} (derived)"), &derived, demanded)
        }
        Within(contender, demanded) => {
            within(contender, &samples.ratios(goal.workload, OURS, contender), demanded)
        }
        WithinWorkload(other, demanded) => {
            let others = samples.of(other, OURS);
            let ratios: Vec<f64> =
                ours.iter().zip(others).map(|(ours, other)| ours / other).collect();
            within(other, &ratios, demanded)
        }
        Grows { from, load } => {
            let (few, loads) = (samples.of(from, OURS), samples.of(load, "dependent load"));
            let limits = few.iter().zip(loads).map(|(few, load)| (GROWTH * few).max(MISSES * load));
            let shares: Vec<f64> =
                ours.iter().zip(limits).map(|(ours, limit)| ours / limit).collect();
            let limit = format!("{GROWTH}x of {from} or {MISSES}x of a load");
            Verdict { demanded: limit.clone(), ..within(&limit, &shares, 1.0) }
        }
        AtMost(demanded) => Verdict {
            demanded: format!("at most {demanded}"),
            found: format!("{:.1} (median {:.1})", quantile(ours, 0.75), quantile(ours, 0.5)),
            met: quantile(ours, 0.75) <= demanded,
            passes_gate: quantile(ours, 0.75) <= demanded,
        },
    })
}
