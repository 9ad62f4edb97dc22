//! Rules of SPDM, IDE_KM and TDISP turned on a device: each is broken on purpose, or asked for, and the
//! device's answer judged.
//!
//! [`rules`] are the table. [`run`] takes one after the other, each in a connection of its own, and gives
//! a [`Finding`]: what was exercised and held is PASS; what the device does not offer is NOT APPLICABLE,
//! never PASS; where public texts leave the answer open, what the device does is told as POLICY. Whatever
//! a rule leaves behind (an interface that is locked, keys, a session) is taken down before the next.
//!
//! Takes no lock. Deliberately absent: what a requester must do; what needs a reset of the device.

mod interface_rules;
mod lab;
mod link_rules;
mod message_rules;
mod session_rules;

use spdm::key_schedule::Side;
use spdm::requester::Requester;
use tdisp::InterfaceId;

use crate::mailbox_link::{LinkFault, Objects};
pub use lab::Lab;

/// A rule, and how it is tried.
pub struct Rule {
    /// Its name, for `--only` and reports.
    pub id: &'static str,
    /// What it says.
    pub says: &'static str,
    /// Where it stands.
    pub source: &'static str,
    check: fn(&mut Lab<'_>) -> Result<(), Stop>,
}

/// All rules, in the order in which they are tried.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    [message_rules::RULES, session_rules::RULES, link_rules::RULES, interface_rules::RULES]
        .into_iter()
        .flatten()
}

/// What came of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was exercised, and holds.
    Pass,
    /// It was exercised, and does not.
    Fail(String),
    /// It could not be exercised: the device does not offer what it is about, or nothing was named.
    NotApplicable(String),
    /// Public texts leave it open; this is what the device does.
    Policy(String),
}

/// A rule with what came of it.
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// What came of it.
    pub verdict: Verdict,
    /// The objects that went over the link while it was tried, in order.
    pub objects: Vec<(Side, Vec<u8>)>,
}

/// What the rules are tried on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject {
    /// An interface that may be locked, run and stopped.
    pub interface: Option<InterfaceId>,
    /// The stream of the device's link that gets keys.
    pub stream: u8,
    /// The port of that stream.
    pub port: u8,
}

/// Tries a rule. `requester` makes one that has not spoken.
///
/// # Errors
/// [`LinkFault`] where the peer is gone; nothing is known of the rule then.
pub fn run(
    rule: &'static Rule,
    subject: Subject,
    requester: &dyn Fn() -> Requester,
    objects: &mut dyn Objects,
) -> Result<Finding, LinkFault> {
    let mut lab = Lab::new(subject, requester, objects);
    let checked = (rule.check)(&mut lab);
    let objects = lab.leave();
    let verdict = match checked {
        Ok(()) => Verdict::Pass,
        Err(Stop::Fail(how)) => Verdict::Fail(how),
        Err(Stop::NotApplicable(why)) => Verdict::NotApplicable(why),
        Err(Stop::Policy(what)) => Verdict::Policy(what),
        Err(Stop::Gone(fault)) => return Err(fault),
    };
    Ok(Finding { rule, verdict, objects })
}

/// Why a check ended before its end.
enum Stop {
    Fail(String),
    NotApplicable(String),
    Policy(String),
    Gone(LinkFault),
}

impl From<LinkFault> for Stop {
    fn from(fault: LinkFault) -> Self {
        // An answer that is no object is the peer's doing; all else is the link's.
        match fault {
            LinkFault::Object(fault) => Self::Fail(fault.to_string()),
            other @ (LinkFault::Socket(_) | LinkFault::TooLong(_) | LinkFault::Capture(_)) => {
                Self::Gone(other)
            }
        }
    }
}

/// Ends a check because the device broke the rule.
fn fail<T>(how: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Fail(how.into()))
}
