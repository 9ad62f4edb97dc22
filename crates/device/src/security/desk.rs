//! The responder of a device: what its mailboxes, and the TSM's way in bulk, are answered by.
//!
//! One exchange at a time; whoever has the responder holds no lock while it computes, so that a slow
//! signature delays other exchanges and nobody else. PCI-SIG's messages in a session go to the
//! [`Manager`]; in the clear there is no TDISP and no IDE_KM. The lock is of rank
//! [`sync::rank::DeviceSecurity`], never together with another of the manager's.

use spdm::doe::{self, Protocol};
use spdm::message::{Block, STANDARD_PCI_SIG, VENDOR_PCI_SIG, VendorDefined};
use spdm::responder::Responder;
use spdm::{Frame, secured};
use sync::{Guard, Mutex, WaitQueue, rank};
use tdisp::SessionId;

use super::Manager;

/// The longest answer of TDISP or IDE_KM, in bytes. A report comes in portions.
const ANSWER_BYTES: usize = 4096;

/// What a device shows of itself in SPDM.
pub struct Equipment {
    /// Who answers, with the device's certificates.
    pub responder: Responder,
    /// What runs on the device, ascending by index.
    pub measurements: Vec<Block>,
}

/// Makes a device's [`Equipment`] when it is first spoken to; `None` where it cannot be made, and then no
/// object of SPDM is answered.
pub type Equip = Box<dyn Fn() -> Option<Equipment> + Send + Sync>;

/// Who has the responder.
pub(super) struct Desk {
    inner: Mutex<rank::DeviceSecurity, Inner>,
    free: WaitQueue,
}

struct Inner {
    state: State,
    /// The device was reset: whoever takes it next ends all sessions.
    reset: bool,
}

enum State {
    /// No object of SPDM is answered.
    Bare,
    /// Nobody has spoken to it yet.
    Unmade(Equip),
    Idle(Box<Equipment>),
    /// Somebody has it.
    Away,
}

impl Desk {
    pub(super) fn new() -> Self {
        let inner = Inner { state: State::Bare, reset: false };
        Self { inner: Mutex::new(inner), free: WaitQueue::new() }
    }

    fn equip(&self, equip: Equip) {
        self.inner.lock().state = State::Unmade(equip);
    }

    /// Ends all sessions, without waiting for an exchange that runs.
    pub(super) fn reset(&self) {
        self.inner.lock().reset = true;
    }

    /// Sessions that are established.
    fn sessions(&self) -> usize {
        let inner = self.idle();
        match &inner.state {
            State::Idle(equipment) if !inner.reset => equipment.responder.sessions().count(),
            State::Idle(_) | State::Bare | State::Unmade(_) | State::Away => 0,
        }
    }

    /// Waits until it is free, and takes it. The flag: it was reset meanwhile.
    fn take(&self) -> Option<(Box<Equipment>, bool)> {
        let mut inner = self.idle();
        match std::mem::replace(&mut inner.state, State::Away) {
            State::Idle(equipment) => Some((equipment, std::mem::take(&mut inner.reset))),
            State::Unmade(equip) => {
                inner.reset = false;
                drop(inner);
                let made = equip();
                if made.is_none() {
                    self.give_back(State::Bare);
                }
                made.map(|made| (Box::new(made), false))
            }
            State::Bare | State::Away => {
                inner.state = State::Bare;
                None
            }
        }
    }

    fn give_back(&self, state: State) {
        self.inner.lock().state = state;
        self.free.wake_all();
    }

    fn idle(&self) -> Guard<'_, rank::DeviceSecurity, Inner> {
        let away = |inner: &Inner| matches!(inner.state, State::Away);
        self.free.wait_while(self.inner.lock(), away)
    }
}

impl Manager {
    /// Gives the device its certificates and measurements. Before that it answers discovery alone.
    pub fn equip(&self, equip: Equip) {
        self.desk.equip(equip);
    }

    /// Answers a data object: discovery, a message of SPDM, or a record. `None`: the object is none,
    /// or of a kind that is not served.
    ///
    /// Waits its turn, and for a function's DMA where STOP does. Not to be called from within DMA.
    pub fn exchange(&self, object: &[u8]) -> Option<Vec<u8>> {
        let (protocol, payload) = doe::read(object).ok()?;
        if protocol == Protocol::Discovery {
            return doe::discover(payload).ok().map(|answer| answer.to_vec());
        }
        let frame = Frame::from_object(object).ok()?;
        let used = match &frame {
            Frame::Clear(_) => None,
            Frame::Secured(record) => secured::SessionId::of_record(record).ok(),
        };
        let answer = self.with_responder(|responder, face| {
            let answer = responder.handle(face, &frame);
            self.silence.note(used, responder);
            answer
        });
        answer?.to_object().ok()
    }

    /// Ends sessions for a reason of the device's own. Waits for an exchange that runs.
    pub(super) fn end_sessions(&self, is_over: impl Fn(secured::SessionId) -> bool) {
        self.with_responder(|responder, face| {
            end_those(responder, face, is_over);
            self.silence.note(None, responder);
        });
    }

    /// Waits until the responder is free; lets nobody else have it while `speak` runs. `None` where there
    /// is none.
    fn with_responder<T>(
        &self,
        speak: impl FnOnce(&mut Responder, &mut Face<'_>) -> T,
    ) -> Option<T> {
        let (mut equipment, reset) = self.desk.take()?;
        let Equipment { responder, measurements } = &mut *equipment;
        let face = &mut Face { manager: self, measurements };
        if reset {
            end_those(responder, face, |_| true);
        }
        let spoken = speak(responder, face);
        self.desk.give_back(State::Idle(equipment));
        Some(spoken)
    }

    /// SPDM sessions that are established. Waits for an exchange that runs.
    pub fn sessions(&self) -> usize {
        self.desk.sessions()
    }
}

fn end_those(
    responder: &mut Responder,
    face: &mut Face<'_>,
    is_over: impl Fn(secured::SessionId) -> bool,
) {
    let over: Vec<_> = responder.sessions().filter(|session| is_over(*session)).collect();
    over.into_iter().for_each(|session| responder.end_session(face, session));
}

/// The device as its responder sees it.
struct Face<'a> {
    manager: &'a Manager,
    measurements: &'a [Block],
}

impl spdm::responder::Device for Face<'_> {
    fn measurements(&mut self) -> Vec<Block> {
        self.measurements.to_vec()
    }

    fn vendor_defined(
        &mut self,
        session: Option<secured::SessionId>,
        message: &VendorDefined,
    ) -> Option<VendorDefined> {
        let session = SessionId(session?.joined());
        if message.standard != STANDARD_PCI_SIG || message.vendor != VENDOR_PCI_SIG.to_le_bytes() {
            return None;
        }
        let mut answer = vec![0; ANSWER_BYTES];
        let length = self.manager.respond(session, &message.payload, &mut answer)?;
        answer.truncate(length);
        Some(VendorDefined::pci_sig(answer))
    }

    fn session_ended(&mut self, session: secured::SessionId) {
        self.manager.session_ended(SessionId(session.joined()));
    }
}
