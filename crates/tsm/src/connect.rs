//! Connect and disconnect, and functions that come and go.
//!
//! Connect publishes a connection that is being made first, so that everybody else finds the
//! function taken, and makes its other functions its own when the device has answered. Disconnect marks
//! the connection dead, gives up the command that runs, waits for the slot, unbinds in reverse
//! order, lets the TSM take its keys back, and removes it. All of a disconnect has one deadline:
//! once the device was silent for that long, what is left is said but not waited for.
//!
//! Takes [`rank::TsmRegistry`](sync::rank::TsmRegistry) and [`rank::Dsm`](sync::rank::Dsm), never
//! both at once. Deliberately absent: switches (a security manager in an upstream port).
//! Source: Linux 7.3, `pci_tsm_connect`, `pci_tsm_disconnect`.

use std::collections::BTreeSet;
use std::sync::Arc;

use pci::Address;

use crate::bind::{Told, Unbound, unbind_now};
use crate::line::{Call, Claimed, Line, Place, Record, Turn};
use crate::registry::Found;
use crate::{Counters, Failure, FunctionFacts, Notice, Refusal, Registry, Secured};

/// What precedes the number in a TSM's name.
const NAME_PREFIX: &[u8] = b"tsm";

impl Registry {
    /// Connects a function to a TSM: a write of `tsmN` to `tsm/connect`. What follows the number is
    /// ignored.
    ///
    /// # Errors
    /// In this order:
    /// - [`Refusal::Absent`] – the function has no such attribute (`ENOENT`).
    /// - [`Refusal::BadName`] – not `tsm` and a number (`EINVAL`).
    /// - [`Refusal::AlreadyConnected`] – it has a TSM context, or is being connected (`EBUSY`).
    /// - [`Refusal::NoSuchTsm`], [`Refusal::NotLink`], and [`Refusal::NoMailbox`] where the TSM does
    ///   not accept the device (`ENXIO`).
    /// - [`Refusal::Cancelled`] – it was disconnected or removed meanwhile (`EINTR`).
    /// - [`Refusal::Certificate`], [`Refusal::Measurement`] – the device is not what the TSM trusts
    ///   (`EKEYREJECTED`).
    /// - What the device answers; the function is then as it was.
    pub fn connect(&self, function: Address, written: &[u8]) -> Result<(), Refusal> {
        let Found { line, facts, faults } = self.reserve(function, written)?;
        let opened = line.backend.open(&facts);
        let Ok(opened) = opened else {
            self.withdraw(&line);
            return Err(Refusal::NoMailbox { function });
        };
        let mut claimed = line.opened(opened, faults);
        if let Err(failure) = claimed.session.connect(&mut claimed.exchange) {
            return Err(self.abandon(claimed, failure));
        }
        let places = self.gather(&mut claimed, facts);
        let (secured, tend_after_ms) = claimed.finish(|record| {
            let places = places.iter().map(|facts| (facts.address, Place::new(*facts)));
            record.places.extend(places);
            (record.secured(), record.tend_after_ms())
        });
        let mut told = Told::new();
        if let Some(Secured { session, .. }) = secured {
            told.push((function, Notice::Secured { session }));
        }
        told.push((function, Notice::Connected { tsm: line.tsm }));
        self.tell(&told);
        if let Some(after_ms) = tend_after_ms {
            self.care.plan(line.timers(), &line, after_ms);
        }
        Ok(())
    }

    /// Disconnects a function: a write of the TSM's name to `tsm/disconnect`, with or without a
    /// newline. Returns within twice the exchange timeout.
    ///
    /// # Errors
    /// In this order:
    /// - [`Refusal::Absent`] – the function has no such attribute (`ENOENT`).
    /// - [`Refusal::NothingToDisconnect`] – it has no TSM context (`ENXIO`).
    /// - [`Refusal::BadName`] – another TSM is connected (`EINVAL`).
    pub fn disconnect(&self, function: Address, written: &[u8]) -> Result<(), Refusal> {
        let nothing = Refusal::NothingToDisconnect { function };
        let line = self.table().connectable(function)?.line.clone().ok_or(nothing)?;
        if written.strip_suffix(b"\n").unwrap_or(written) != name(line.tsm).as_bytes() {
            return Err(Refusal::BadName);
        }
        if self.tear_down_all(&[line]) { Ok(()) } else { Err(nothing) }
    }

    /// A function goes away: its VF is disabled, or it is unplugged. Its TDI is unbound and its
    /// context dropped; a function with a security manager is disconnected. Returns within twice the
    /// exchange timeout.
    pub fn remove(&self, function: Address) {
        if let Some(entry) = self.table().functions.get_mut(&function) {
            entry.present = false;
        }
        let Some(Found { line, facts, faults }) = self.find(function) else { return };
        if line.dsm.address == function {
            self.tear_down_all(&[line]);
            return;
        }
        line.evict(function);
        let call = Call { function, operation: "remove", urgent: true, cancel: None, faults };
        let settle = |record: &Record| (!record.places.contains_key(&function)).then_some(());
        let mut is_bound = false;
        let begin = |record: &mut Record| {
            let place = record.places.get(&function);
            is_bound = place.is_some_and(|place| place.binding.is_bound());
        };
        let mut told = Told::new();
        if let Turn::Ours(mut claimed) = line.claim(&call, settle, begin) {
            let unbound = leave(&mut claimed, &facts, is_bound, &mut told);
            self.table().part(function);
            claimed.finish(|record| {
                if let Some(unbound) = unbound {
                    unbound.note(record);
                }
                record.places.remove(&function);
            });
        }
        self.tell(&told);
    }

    /// A function is there, or there again. Where the security manager of its slot is connected, it
    /// gets a context. Waits for the exchange slot.
    pub fn arrive(&self, function: Address) {
        let Some((line, facts)) = self.table().welcome(function) else { return };
        let call = Call { function, operation: "probe", urgent: false, cancel: None, faults: None };
        let there = |record: &Record| {
            record.places.contains_key(&function) || record.admits(line.dsm.address).is_none()
        };
        let settle = |record: &Record| there(record).then_some(());
        let Turn::Ours(mut claimed) = line.claim(&call, settle, |_| {}) else { return };
        let faults = self.faults_of(&[function]).pop();
        claimed.exchange.turn_to(faults.flatten());
        let joins = probe(&mut claimed, &facts) && self.table().join(function, &line);
        claimed.finish(|record| {
            if joins {
                record.places.insert(function, Place::new(facts));
            }
        });
    }

    /// Disconnects connections, in the order given. Says whether any was not over yet.
    pub(crate) fn tear_down_all(&self, lines: &[Arc<Line>]) -> bool {
        lines.iter().for_each(|line| line.kill());
        // Each alone is bounded; of several, the slow ones share what one may take.
        let budget = |line: &Arc<Line>| (lines.len() > 1).then(|| line.arm_call());
        let budgets: Vec<_> = lines.iter().map(budget).collect();
        let mut any = false;
        for (line, budget) in lines.iter().zip(budgets) {
            let (function, mut functions) = (line.dsm.address, Vec::new());
            let call = Call {
                function,
                operation: "disconnect",
                urgent: true,
                cancel: None,
                faults: None,
            };
            let begin = |record: &mut Record| functions = record.reverse_walk();
            let turn = line.claim(&call, |_| None::<()>, begin);
            let Turn::Ours(mut claimed) = turn else { continue };
            claimed.exchange.limit(budget);
            let (unbound, told) = self.tear_down(&mut claimed, &functions);
            let counters = claimed.finish(|record| {
                unbound.into_iter().for_each(|unbound| unbound.note(record));
                record.end();
                record.counters
            });
            self.table().part_all(line, &counters);
            self.tell(&told);
            any = true;
        }
        any
    }

    fn tear_down(
        &self,
        claimed: &mut Claimed<'_>,
        functions: &[(FunctionFacts, bool)],
    ) -> (Vec<Unbound>, Told) {
        let mut told = Told::new();
        let mut unbound = Vec::new();
        let addresses: Vec<_> = functions.iter().map(|(facts, _)| facts.address).collect();
        // The function with the security manager is the last of them.
        for ((facts, is_bound), faults) in functions.iter().zip(self.faults_of(&addresses)) {
            claimed.exchange.turn_to(faults);
            unbound.extend(leave(claimed, facts, *is_bound, &mut told));
        }
        claimed.session.disconnect(&mut claimed.exchange);
        told.push((claimed.line.dsm.address, Notice::Disconnected { tsm: claimed.line.tsm }));
        (unbound, told)
    }

    /// The checks of connect, and the connection that is to be made, published.
    fn reserve(&self, function: Address, written: &[u8]) -> Result<Found, Refusal> {
        let mut table = self.table();
        table.connectable(function)?;
        let tsm = number(written).ok_or(Refusal::BadName)?;
        let backend = table.tsms.get(&tsm).cloned();
        let entry = table.functions.get_mut(&function).ok_or(Refusal::Absent { function })?;
        if let Some(line) = &entry.line {
            return Err(Refusal::AlreadyConnected { function, tsm: line.tsm });
        }
        let backend = backend.ok_or(Refusal::NoSuchTsm { tsm })?;
        if !backend.is_link() {
            return Err(Refusal::NotLink { tsm });
        }
        let line = self.new_line(tsm, entry.facts, backend);
        entry.line = Some(Arc::clone(&line));
        Ok(Found { line, facts: entry.facts, faults: entry.faults.clone() })
    }

    /// Probes the functions that come into a connection with `dsm`, and makes it their context and its own. A
    /// function that arrives meanwhile is probed too; one that arrives later finds that it has to wait its turn.
    fn gather(&self, claimed: &mut Claimed<'_>, dsm: FunctionFacts) -> Vec<FunctionFacts> {
        claimed.line.lock().places.insert(dsm.address, Place::new(dsm));
        let mut seen = BTreeSet::from([dsm.address]);
        let mut places = vec![dsm];
        loop {
            let fresh = {
                let mut table = self.table();
                let mut fresh = if dsm.tee_io { table.dependents(dsm.address) } else { Vec::new() };
                fresh.retain(|facts| seen.insert(facts.address));
                if fresh.is_empty() {
                    places.retain(|place| table.join(place.address, claimed.line));
                    return places;
                }
                fresh
            };
            places.extend(fresh.into_iter().filter(|facts| probe(claimed, facts)));
        }
    }

    /// Takes back what connect did, as far as it came.
    fn abandon(&self, mut claimed: Claimed<'_>, failure: Failure) -> Refusal {
        let function = claimed.line.dsm.address;
        claimed.begin_follow_up();
        claimed.session.disconnect(&mut claimed.exchange);
        let mut told = Told::new();
        if failure.refusal == Refusal::TimedOut {
            told.push((function, Notice::TimedOut { operation: "connect" }));
        } else if failure.refusal == Refusal::Cancelled {
            told.push((function, Notice::Cancelled { operation: "connect" }));
        } else {
            told.push((function, Notice::ConnectFailed { refusal: failure.refusal }));
        }
        let line = Arc::clone(claimed.line);
        let counters = claimed.finish(|record| {
            record.counters.cancelled += u64::from(failure.refusal == Refusal::Cancelled);
            record.end();
            record.counters
        });
        self.table().part_all(&line, &counters);
        self.tell(&told);
        failure.refusal
    }

    /// Removes a connection that nobody claimed.
    fn withdraw(&self, line: &Arc<Line>) {
        line.lock().end();
        line.changed().wake_all();
        self.table().part_all(line, &Counters::default());
    }
}

/// Unbinds a function if it is bound, and forgets it.
fn leave(
    claimed: &mut Claimed<'_>,
    facts: &FunctionFacts,
    is_bound: bool,
    told: &mut Told,
) -> Option<Unbound> {
    let unbound = is_bound.then(|| unbind_now(claimed, facts, told));
    claimed.session.forget(facts);
    unbound
}

fn probe(claimed: &mut Claimed<'_>, facts: &FunctionFacts) -> bool {
    claimed.session.probe(facts, &mut claimed.exchange).is_ok()
}

/// What a TSM is called.
pub(crate) fn name(tsm: u32) -> String {
    format!("tsm{tsm}")
}

/// The number in `tsmN`, as scanf reads it: what follows is ignored.
fn number(written: &[u8]) -> Option<u32> {
    let digits = written.strip_prefix(NAME_PREFIX)?;
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(digits.get(..length)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn names_are_read_as_scanf_does() {
        for (written, expected) in [
            (&b"tsm0"[..], Some(0)),
            (b"tsm0\n", Some(0)),
            (b"tsm0foo", Some(0)),
            (b"tsm12", Some(12)),
            (b"tsm", None),
            (b"", None),
            (b"0", None),
            (b" tsm0", None),
            (b"tsm99999999999", None),
            (b"tsm\xff", None),
        ] {
            assert_eq!(number(written), expected, "{written:?}");
        }
    }
}
