//! Makes a counterexample smaller: fewer threads, fewer calls, then the order that is easiest to follow.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Model, Script};
use crate::search::search;
use crate::settings::{Budget, Settings};
use crate::tally::{Found, Nondeterminism};

/// A script and what is wrong with it.
pub(crate) type Shrunk<C> = (Arc<Script<C>>, Found);

/// The smallest script that this finds with a violation of the same kind, and its best order. A script that
/// needs more preemptions than `found` is not smaller.
pub(crate) fn shrink<M: Model>(
    model: &Arc<M>,
    script: &Arc<Script<M::Call>>,
    settings: &Settings,
    found: &Found,
) -> Result<Shrunk<M::Call>, Nondeterminism> {
    let mut best = (Arc::clone(script), found.clone());
    let mut progressed = true;
    while progressed {
        progressed = false;
        for smaller in smaller_scripts(&best.0) {
            let smaller = Arc::new(smaller);
            if let Some(found) = violates(model, &smaller, settings, &best.1)? {
                best = (smaller, found);
                progressed = true;
                break;
            }
        }
    }
    if let Some(found) = violates(model, &best.0, settings, &best.1)?
        && found.ease() < best.1.ease()
    {
        best.1 = found;
    }
    Ok(best)
}

/// Scripts with a thread less, then those with a call less.
fn smaller_scripts<C: Clone>(script: &Script<C>) -> Vec<Script<C>> {
    let mut smaller = Vec::new();
    let threads = script.threads.len();
    for thread in (0..threads).filter(|_| threads > 1) {
        let mut without = script.clone();
        without.threads.remove(thread);
        smaller.push(without);
    }
    for (thread, calls) in script.threads.iter().enumerate().filter(|(_, calls)| calls.len() > 1) {
        for call in 0..calls.len() {
            let mut without = script.clone();
            without.threads[thread].remove(call);
            smaller.push(without);
        }
    }
    smaller
}

/// Looks for a violation of the kind of `like` within as many preemptions.
fn violates<M: Model>(
    model: &Arc<M>,
    script: &Arc<Script<M::Call>>,
    settings: &Settings,
    like: &Found,
) -> Result<Option<Found>, Nondeterminism> {
    for bound in 0..=like.preemptions {
        let budget = Budget { time: PROBE, ..settings.budget };
        let (tally, _) = search(model, script, settings, Some(bound), budget, &mut |_| {})?;
        let same = tally.found.iter().filter(|found| found.violation.kind == like.violation.kind);
        if let Some(found) = same.min_by_key(|found| found.ease()) {
            return Ok(Some(found.clone()));
        }
    }
    Ok(None)
}

/// What one smaller script may take.
const PROBE: Duration = Duration::from_secs(2);
