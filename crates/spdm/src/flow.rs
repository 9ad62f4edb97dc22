//! Whole exchanges over any way to a peer.
//!
//! A [`Link`] carries a frame there and an answer back; [`run`] takes one exchange over it to its end,
//! [`establish`] all of them that lead to a session with a device that is trusted. What a link waits
//! for, and when it gives up, is its own affair; an exchange that it gave up ends the session, for
//! nobody knows which records the peer has counted. Takes no lock and does no IO.

use alloc::vec::Vec;

use thiserror::Error;

use crate::algorithm::Selected;
use crate::endpoint::Frame;
use crate::fault::Error;
use crate::message::{ErrorCode, Measurements, OPERATION_ALL};
use crate::requester::{Ask, Outcome, Requester, Step};
use crate::secured::SessionId;

/// Between an answer of Busy and the next try, in microseconds.
const BUSY_PAUSE_US: u64 = 10_000;

/// A way to a peer.
pub trait Link {
    /// Why it gave an exchange up.
    type Fault;

    /// Carries a frame to the peer, and its answer back.
    ///
    /// # Errors
    /// The link's own.
    fn exchange(&mut self, frame: &Frame) -> Result<Frame, Self::Fault>;

    /// Waits before something is asked again.
    ///
    /// # Errors
    /// The link's own.
    fn wait(&mut self, time_us: u64) -> Result<(), Self::Fault>;
}

/// Why an exchange came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Broken<F> {
    /// What was sent, or asked, is wrong.
    #[error(transparent)]
    Exchange(#[from] Error),
    /// The link gave up.
    #[error("the link gave up")]
    Link(F),
}

/// Takes an exchange to its end. What the peer is too busy for is asked again.
///
/// # Errors
/// [`Broken::Exchange`] as [`Requester::ask`] and [`Requester::receive`]; [`Broken::Link`], after
/// which there is no session any more.
pub fn run<L: Link>(
    requester: &mut Requester,
    link: &mut L,
    ask: &Ask,
) -> Result<Outcome, Broken<L::Fault>> {
    loop {
        match run_once(requester, link, ask) {
            Err(Broken::Exchange(Error::Said { code: ErrorCode::BUSY, .. })) => {
                link.wait(BUSY_PAUSE_US).map_err(Broken::Link)?;
            }
            done => return done,
        }
    }
}

fn run_once<L: Link>(
    requester: &mut Requester,
    link: &mut L,
    ask: &Ask,
) -> Result<Outcome, Broken<L::Fault>> {
    let mut frame = requester.ask(ask.clone())?;
    loop {
        let answer = link.exchange(&frame).map_err(|fault| lost(requester, fault))?;
        match requester.receive(&answer)? {
            Step::Send(next) => frame = next,
            Step::Wait { time_us, then } => {
                link.wait(time_us).map_err(|fault| lost(requester, fault))?;
                frame = then;
            }
            Step::Done(outcome) => return Ok(outcome),
        }
    }
}

fn lost<F>(requester: &mut Requester, fault: F) -> Broken<F> {
    requester.abandon();
    Broken::Link(fault)
}

/// What is asked on the way to a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The slot with the device's chain.
    pub slot: u8,
    /// Whether the device proves before the session, by CHALLENGE, that it has the chain's key.
    pub challenge: bool,
    /// Random bytes for the signature over measurements; drawn where there are none.
    pub nonce: Option<[u8; 32]>,
}

/// A session, and what the device showed of itself on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// What was negotiated.
    pub selected: Selected,
    /// The session's numbers.
    pub id: SessionId,
    /// The longest time between two messages, in seconds; 0: no heartbeat.
    pub heartbeat_s: u8,
    /// The bytes of the slot, which are trusted.
    pub chain: Vec<u8>,
    /// All measurements, signed and taken in the session.
    pub measurements: Measurements,
}

/// From VERSION to measurements in a session.
///
/// # Errors
/// As [`run`]. A peer that answers with another outcome than was asked for is refused by then.
pub fn establish<L: Link>(
    requester: &mut Requester,
    link: &mut L,
    plan: &Plan,
) -> Result<Established, Broken<L::Fault>> {
    let slot = plan.slot;
    let Outcome::Connected(selected) = run(requester, link, &Ask::Connect)? else {
        return Err(mixed_up());
    };
    run(requester, link, &Ask::Digests)?;
    let Outcome::Certificate(chain) = run(requester, link, &Ask::Certificate { slot })? else {
        return Err(mixed_up());
    };
    if plan.challenge {
        run(requester, link, &Ask::Challenge { slot, summary: 0 })?;
    }
    let asked = Ask::Session { slot, summary: 0 };
    let Outcome::Established { id, heartbeat_s, .. } = run(requester, link, &asked)? else {
        return Err(mixed_up());
    };
    let operation = OPERATION_ALL;
    let asked = Ask::Measurements { operation, signed_by: Some(slot), nonce: plan.nonce };
    let Outcome::Measurements(measurements) = run(requester, link, &asked)? else {
        return Err(mixed_up());
    };
    Ok(Established { selected, id, heartbeat_s, chain, measurements })
}

/// Each question has one kind of answer, so this is a fault of this crate's.
fn mixed_up<F>() -> Broken<F> {
    Broken::Exchange(crate::Refusal::WrongState.into())
}
