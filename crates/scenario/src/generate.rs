//! Scenarios that nobody wrote: every pair and every triple of calls of the TSM lifecycle, each call a thread, from a
//! start where the TDI is bound and one where it is not. Pairs with a slow device too.
//!
//! The order of threads means nothing, so of those that differ in it alone there is one. The names are stable: what is
//! generated is the same on every machine, in the same order. Takes no lock.

use crate::file::Setting;
use crate::script::{Step, Threads};
use crate::words::{Call, Verb};
use crate::{Scenario, Verdict};

/// How many threads there are, each with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Two.
    Pairs,
    /// Three.
    Triples,
}

/// The calls of the TSM lifecycle about one device.
pub const CALLS: [Verb; 11] = [
    Verb::TsmBind,
    Verb::TsmUnbind,
    Verb::TsmLock,
    Verb::TsmRun,
    Verb::DestroyVdevice,
    Verb::VdeviceAlloc,
    Verb::CloseVfio,
    Verb::CloseIommu,
    Verb::TsmDisconnect,
    Verb::Remove,
    Verb::Reset,
];

/// All of them.
pub fn scenarios(width: Width) -> Vec<Scenario> {
    let starts = match width {
        Width::Pairs => &STARTS[..],
        Width::Triples => &STARTS[..2],
    };
    let sets = sets(width);
    starts.iter().flat_map(|start| sets.iter().map(|calls| start.scenario(calls))).collect()
}

/// What the threads find.
struct Start {
    name: &'static str,
    is_bound: bool,
    /// The device answers a bind and an unbind some time later: before or after the deadline.
    is_slow: bool,
}

const STARTS: [Start; 4] = [
    Start { name: "unbound", is_bound: false, is_slow: false },
    Start { name: "bound", is_bound: true, is_slow: false },
    Start { name: "unbound, slow", is_bound: false, is_slow: true },
    Start { name: "bound, slow", is_bound: true, is_slow: true },
];

/// Every choice of so many calls, the same one several times too.
fn sets(width: Width) -> Vec<Vec<Verb>> {
    let mut sets: Vec<Vec<usize>> = vec![Vec::new()];
    let threads = match width {
        Width::Pairs => 2,
        Width::Triples => 3,
    };
    for _ in 0..threads {
        let longer = |set: &Vec<usize>| {
            let from = set.last().copied().unwrap_or(0);
            (from..CALLS.len()).map(|next| [set.as_slice(), &[next]].concat()).collect::<Vec<_>>()
        };
        sets = sets.iter().flat_map(longer).collect();
    }
    sets.into_iter().map(|set| set.into_iter().map(|index| CALLS[index]).collect()).collect()
}

impl Start {
    fn scenario(&self, calls: &[Verb]) -> Scenario {
        let step = |verb: &Verb| Step::new(Call { verb: *verb, number: 0 }, None);
        let threads: Threads = calls.iter().map(|verb| vec![step(verb)]).collect();
        let names: Vec<String> = threads.iter().map(|steps| steps[0].to_string()).collect();
        let slow = || Setting { value: "slow".to_owned(), at: 0..0 };
        let settings = ["bind", "unbind"].into_iter().map(|key| (key.to_owned(), slow()));
        Scenario {
            title: format!("{}: {}", self.name, names.join(" | ")),
            settings: settings.filter(|_| self.is_slow).collect(),
            setup: if self.is_bound { vec![step(&Verb::TsmBind)] } else { Vec::new() },
            expect: Verdict::Safe,
            ..Scenario::of(threads)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_is_one_of_each_choice_and_each_reads_back() {
        let count = CALLS.len();
        let pairs = scenarios(Width::Pairs);
        assert_eq!(pairs.len(), 4 * count * (count + 1) / 2);
        let triples = scenarios(Width::Triples);
        assert_eq!(triples.len(), 2 * count * (count + 1) * (count + 2) / 6);
        let titles: BTreeSet<_> = triples.iter().map(|one| one.title.clone()).collect();
        assert_eq!(titles.len(), triples.len());
        for scenario in pairs {
            let text = scenario.to_string();
            let again = Scenario::parse("generated.toml", &text).unwrap();
            assert_eq!(again.title, scenario.title);
            assert_eq!(again.to_string(), text);
        }
    }
}
