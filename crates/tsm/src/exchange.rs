//! What one call says to a device while it owns the exchange slot.
//!
//! An [`Exchange`] has one deadline for all of its messages, armed when the first of them is not
//! answered at once. A wait ends with the answer, with the deadline, or because somebody gave the
//! call up; the latter two abort the transport. An answer that comes after that is dropped: a
//! [`Reply`] knows the claim of the slot and the message that it belongs to.
//!
//! Takes [`rank::Dsm`] to leave and to find an answer; holds nothing while the
//! transport is called.

use std::fmt;
use std::sync::Arc;

use sync::{Deadline, Guard, Named, rank};
use tdisp::exchange::ErrorResponse;
use tdisp::payload::{self, ProtocolId};
use tdisp::{ErrorCode, Header};

use crate::fault::{Board, Kind, Operation};
use crate::line::{Answer, Line, Record};
use crate::{Failure, Refusal, Transport};

/// Bytes of an ERROR response with its protocol id.
const ERROR_BYTES_MAX: usize = 32;

/// A call's turn to speak to a device.
pub struct Exchange<'a> {
    line: &'a Arc<Line>,
    transport: Arc<dyn Transport>,
    patience: Patience,
    /// Which claim of the slot this is.
    claim: u64,
    /// The last message, from 1.
    message: u64,
    /// Whether the call may be given up.
    may_give_up: bool,
    /// Whether the last message that was due an answer got none.
    pub(crate) stalled: bool,
    /// Whether a message was given up at its deadline.
    pub(crate) timed_out: bool,
    faults: Option<Arc<Board>>,
    /// The operation that goes on, and what is left of what strikes it.
    striking: Option<(Operation, Option<Kind>)>,
    struck: bool,
}

/// How long a call waits: until one of its deadlines has fired.
#[derive(Debug)]
pub(crate) struct Patience {
    /// For this exchange, once a message waits.
    pub(crate) exchange_ms: u64,
    exchange: Option<Deadline>,
    /// For the whole call, where it waited for the slot.
    pub(crate) call: Option<Deadline>,
}

/// What is put around payloads on their way to a device: nothing, or a session.
pub trait Way {
    /// Takes a payload to the device, by as many messages as it needs, and brings the answer back.
    ///
    /// # Errors
    /// A [`Failure`]; of unknown effect where the device may have got the payload.
    fn carry(&mut self, payload: &[u8], exchange: &mut Exchange<'_>) -> Result<Vec<u8>, Failure>;
}

/// Payloads go as they are.
#[derive(Clone, Copy, Debug)]
pub struct Bare;

impl Way for Bare {
    fn carry(&mut self, payload: &[u8], exchange: &mut Exchange<'_>) -> Result<Vec<u8>, Failure> {
        exchange.send(payload)
    }
}

/// The way back for one answer.
#[derive(Clone)]
pub struct Reply {
    line: Arc<Line>,
    claim: u64,
    message: u64,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(
        line: &'a Arc<Line>,
        transport: Arc<dyn Transport>,
        claim: u64,
        patience: Patience,
    ) -> Self {
        Self {
            line,
            transport,
            patience,
            claim,
            message: 0,
            may_give_up: false,
            stalled: false,
            timed_out: false,
            faults: None,
            striking: None,
            struck: false,
        }
    }

    /// Sends a request, payload with protocol id, by `way`, and returns the answer. `operation` is
    /// what it belongs to. Faults on demand strike payloads, not what `way` makes of them.
    ///
    /// # Errors
    /// What `way` says, and what a fault on demand does: [`Refusal::TimedOut`],
    /// [`Refusal::Cancelled`] and others.
    pub fn ask(
        &mut self,
        operation: Operation,
        request: &[u8],
        way: &mut dyn Way,
    ) -> Result<Vec<u8>, Failure> {
        let strikes = self.strike(operation);
        self.struck = strikes.is_some();
        match strikes {
            None | Some(Kind::NullBind) => way.carry(request, self),
            Some(Kind::Slow { ms }) => {
                let answer = way.carry(request, self)?;
                self.pause(ms)?;
                Ok(answer)
            }
            Some(Kind::Silent) => {
                self.message += 1;
                self.wait(self.message)
            }
            Some(Kind::Busy { times }) => {
                if let Some((_, left)) = &mut self.striking {
                    *left = times.checked_sub(2).map(|more| Kind::Busy { times: more + 1 });
                }
                match busy(request) {
                    Some(answer) if times > 0 => Ok(answer),
                    Some(_) | None => way.carry(request, self),
                }
            }
            Some(Kind::ErrorBefore) => Err(Failure::refused(INJECTED)),
            Some(Kind::ErrorAfter) => {
                way.carry(request, self)?;
                Err(Failure::unknown(INJECTED))
            }
            Some(Kind::Refused) => Err(Failure::refused(Refusal::Device {
                code: ErrorCode::INVALID_INTERFACE_STATE,
                data: 0,
            })),
        }
    }

    /// Waits `ms` milliseconds, before something is asked again.
    ///
    /// # Errors
    /// [`Refusal::TimedOut`], [`Refusal::Cancelled`], of unknown effect.
    pub fn pause(&mut self, ms: u64) -> Result<(), Failure> {
        let due = self.line.timers().arm(ms, self.line.changed());
        let due = due.named("pause", || self.line.name());
        self.sleep(|_| due.fired()).map(drop)
    }

    /// What strikes a bind as a whole, not its first message.
    pub(crate) fn strike_bind(&mut self) -> Option<BindFault> {
        let kind = self.strike(Operation::Bind);
        let whole = match kind {
            Some(Kind::NullBind) => Some(BindFault::Null),
            Some(Kind::ErrorAfter) => Some(BindFault::ErrorAfter),
            Some(
                Kind::Slow { .. }
                | Kind::Silent
                | Kind::Busy { .. }
                | Kind::ErrorBefore
                | Kind::Refused,
            )
            | None => None,
        };
        if whole.is_none() {
            self.striking = Some((Operation::Bind, kind));
        }
        whole
    }

    /// Whether a fault struck the last message that was asked.
    pub(crate) const fn was_struck(&self) -> bool {
        self.struck
    }

    /// Whether a message was sent or meant to be.
    pub(crate) const fn has_begun(&self) -> bool {
        self.message > 0
    }

    /// The messages that follow are about a function with these faults.
    pub(crate) fn turn_to(&mut self, faults: Option<Arc<Board>>) {
        self.faults = faults;
        self.striking = None;
    }

    /// Lets the call be given up, or not any more.
    pub(crate) fn set_may_give_up(&mut self, may_give_up: bool) {
        self.may_give_up = may_give_up;
    }

    /// The call has a deadline already.
    pub(crate) fn limit(&mut self, call: Option<Deadline>) {
        if call.is_some() {
            self.patience.call = call;
        }
    }

    /// Gives what follows a deadline of its own.
    pub(crate) fn begin_again(&mut self, exchange_ms: u64) {
        self.patience = Patience::new(exchange_ms, self.patience.call.take());
    }

    /// What strikes the next message; an operation that begins asks the function's faults.
    fn strike(&mut self, operation: Operation) -> Option<Kind> {
        if self.striking.is_none_or(|(current, _)| current != operation) {
            let kind = self.faults.as_ref().and_then(|faults| faults.strike(operation));
            self.striking = Some((operation, kind));
        }
        self.striking.as_mut().and_then(|(_, kind)| kind.take())
    }

    /// Sends one message and returns what answers it.
    ///
    /// # Errors
    /// A [`Failure`] of unknown effect: [`Refusal::TimedOut`], [`Refusal::Cancelled`].
    pub fn send(&mut self, request: &[u8]) -> Result<Vec<u8>, Failure> {
        self.message += 1;
        let message = self.message;
        let reply = Reply { line: Arc::clone(self.line), claim: self.claim, message };
        match self.transport.submit(request, reply) {
            Some(answer) => {
                self.stalled = false;
                Ok(answer)
            }
            None => self.wait(message),
        }
    }

    fn wait(&mut self, message: u64) -> Result<Vec<u8>, Failure> {
        let mut record = self.sleep(|record| record.has_answer(message))?;
        let answer = record.take_answer();
        drop(record);
        self.stalled = false;
        answer.ok_or(Failure::unknown(Refusal::TimedOut))
    }

    /// Sleeps until `done`, the deadline, or until the call is given up.
    fn sleep(
        &mut self,
        done: impl Fn(&Record) -> bool,
    ) -> Result<Guard<'a, rank::Dsm, Record>, Failure> {
        self.patience.arm(self.line);
        let mut outcome = Ok(());
        let (patience, may_give_up) = (&self.patience, self.may_give_up);
        let must_wait = |record: &Record| {
            if done(record) {
                return false;
            }
            if may_give_up && record.is_given_up() {
                outcome = Err(Refusal::Cancelled);
            } else if patience.is_over() {
                outcome = Err(Refusal::TimedOut);
            }
            outcome.is_ok()
        };
        let record = self.line.changed().wait_while(self.line.lock(), must_wait);
        match outcome {
            Ok(()) => Ok(record),
            Err(refusal) => {
                drop(record);
                Err(self.give_up(refusal))
            }
        }
    }

    fn give_up(&mut self, refusal: Refusal) -> Failure {
        if refusal == Refusal::TimedOut {
            self.timed_out = true;
            self.stalled = true;
        }
        self.transport.abort();
        Failure::unknown(refusal)
    }
}

impl Patience {
    /// `exchange_ms` milliseconds from the first message that waits, and `call`.
    pub(crate) const fn new(exchange_ms: u64, call: Option<Deadline>) -> Self {
        Self { exchange_ms, exchange: None, call }
    }

    fn arm(&mut self, line: &Line) {
        if self.exchange.is_none() {
            let deadline = line.timers().arm(self.exchange_ms, line.changed());
            self.exchange = Some(deadline.named("exchange_deadline", || line.name()));
        }
    }

    fn is_over(&self) -> bool {
        [&self.exchange, &self.call].into_iter().flatten().any(Deadline::fired)
    }
}

impl Reply {
    /// Delivers the answer. Hold no lock. An answer that nobody waits for any more is dropped.
    pub fn deliver(self, answer: Vec<u8>) {
        self.leave(answer, None);
    }

    /// Delivers the answer `after_ms` milliseconds from now. Hold no lock. Returns at once and
    /// needs no thread.
    pub fn deliver_after(self, answer: Vec<u8>, after_ms: u64) {
        let due = self.line.timers().arm(after_ms, self.line.changed());
        let due = due.named("answer_due", || self.line.name());
        self.leave(answer, Some(due));
    }

    fn leave(self, bytes: Vec<u8>, due: Option<Deadline>) {
        let answer = Answer { message: self.message, bytes, due };
        if self.line.lock().leave_answer(self.claim, answer) {
            self.line.changed().wake_all();
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { claim, message, .. } = self;
        f.debug_struct("Reply")
            .field("claim", claim)
            .field("message", message)
            .finish_non_exhaustive()
    }
}

/// A fault of a bind as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BindFault {
    /// It says yes and binds nothing.
    Null,
    /// It is done, and fails.
    ErrorAfter,
}

/// What a fault on demand looks like.
pub(crate) const INJECTED: Refusal = Refusal::Device { code: ErrorCode::UNSPECIFIED, data: 0 };

/// ERROR with BUSY to a request of TDISP; other protocols have no such answer.
fn busy(request: &[u8]) -> Option<Vec<u8>> {
    let (protocol, message) = payload::split(request).ok()?;
    let header = Header::of(message).ok().filter(|_| protocol == ProtocolId::TDISP)?;
    let error = ErrorResponse { code: ErrorCode::BUSY, data: 0, extended: &[] };
    let mut answer = vec![0; ERROR_BYTES_MAX];
    let length =
        payload::join(protocol, &mut answer, |rest| tdisp::encode(header.interface, &error, rest));
    answer.truncate(length.ok()?);
    Some(answer)
}
