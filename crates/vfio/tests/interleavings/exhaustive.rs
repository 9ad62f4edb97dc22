//! A few calls, each on a thread of its own, in every order that they can take.

use std::fmt;
use std::sync::Arc;

use explore::{Model, Script, Settings, Verdict, explore};
use uapi::Errno;

/// What a call answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Outcome(pub(crate) Result<(), Errno>);

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.map_or_else(Errno::name, |()| "ok"))
    }
}

/// Fails where an interleaving breaks what must hold, or where there are too many to see them all.
pub(crate) fn every_interleaving<M: Model>(model: M, calls: &[M::Call], start: &dyn fmt::Debug) {
    let settings = Settings { preemptions: Vec::new(), ..Settings::default() };
    let script = Script::new(calls.iter().map(|call| vec![call.clone()]));
    let report = explore(&Arc::new(model), &script, &settings, &mut |_| {}).unwrap();
    if let Verdict::Counterexample(found) = &report.verdict {
        panic!("{start:?}: {script}: {}\n{}", found.violation, found.schedule);
    }
    println!("{start:?}: {script}: {}: {} executions", report.verdict, report.counts.executions);
    assert!(matches!(report.verdict, Verdict::Safe), "few enough to see them all");
}
