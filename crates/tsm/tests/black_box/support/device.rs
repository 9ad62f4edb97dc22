//! A device with a security manager: TDISP by [`tdisp::Dsm`], IDE_KM by [`tdisp::ide_km::KeyTable`].

use std::sync::{Arc, Mutex as StdMutex};

use sync::Mutex;
use tdisp::ide_km::KeyTable;
use tdisp::payload::{self, ProtocolId};
use tdisp::report::{Extent, MemoryBar};
use tdisp::{Breach, Dsm, Header, MessageType, SessionId, Settings, StandIn, State};
use tsm::{Reply, Transport};

use super::Outermost;

/// A device, and the way to it.
pub(crate) struct Device {
    alone: Mutex<Outermost, ()>,
    inner: StdMutex<Inner>,
}

/// How a device answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// Before `submit` returns.
    AtOnce,
    /// Before `submit` returns, by the reply.
    ByReply,
    /// So many milliseconds later.
    After(u64),
    /// From another thread, some time.
    ByThread,
    /// Not at all, and does nothing.
    Never,
    /// Not at all, but does what it was asked.
    DoesNotTell,
    /// With bytes that mean nothing.
    Nonsense,
}

struct Inner {
    dsm: Dsm<8>,
    keys: KeyTable<2>,
    hardware: StandIn,
    answers: Answers,
    /// What it answers this type of message instead.
    exception: Option<(MessageType, Answers)>,
    log: Vec<String>,
    aborts: usize,
    /// Replies that it owes.
    owed: Vec<(Reply, Vec<u8>)>,
}

impl Device {
    /// A device with interfaces of these functions.
    pub(crate) fn new(functions: &[u16]) -> Arc<Self> {
        let mut dsm = Dsm::new(Settings::default());
        for function in functions {
            dsm.add(*function).unwrap();
        }
        let inner = Inner {
            dsm,
            keys: KeyTable::new(),
            hardware: hardware(),
            answers: Answers::AtOnce,
            exception: None,
            log: Vec::new(),
            aborts: 0,
            owed: Vec::new(),
        };
        Arc::new(Self { alone: Mutex::new(()), inner: StdMutex::new(inner) })
    }

    pub(crate) fn answers(&self, answers: Answers) {
        let mut inner = self.inner.lock().unwrap();
        (inner.answers, inner.exception) = (answers, None);
    }

    /// From now on this type of message is answered otherwise.
    pub(crate) fn except(&self, message: MessageType, answers: Answers) {
        self.inner.lock().unwrap().exception = Some((message, answers));
    }

    /// Its own view of an interface.
    pub(crate) fn state(&self, function: u16) -> State {
        self.inner.lock().unwrap().dsm.tdi(function).unwrap().state()
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.inner.lock().unwrap().keys.is_secure(0, 0)
    }

    pub(crate) fn breach(&self, function: u16) {
        self.inner.lock().unwrap().dsm.breach(function, Breach::BarWritten).unwrap();
    }

    pub(crate) fn reset(&self, function: u16) {
        self.inner.lock().unwrap().dsm.reset_function(function);
    }

    /// What it was asked since the last call.
    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.lock().unwrap().log)
    }

    /// How often it was asked something with this name since the log was taken.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.inner.lock().unwrap().log.iter().filter(|line| line.starts_with(name)).count()
    }

    pub(crate) fn aborts(&self) -> usize {
        self.inner.lock().unwrap().aborts
    }

    /// Answers a payload at once.
    pub(crate) fn respond(&self, payload: &[u8]) -> Vec<u8> {
        let (protocol, message) = payload::split(payload).unwrap();
        let mut inner = self.inner.lock().unwrap();
        inner.note(protocol, message);
        inner.answer(payload)
    }

    /// The SPDM session ended.
    pub(crate) fn end_session(&self) {
        self.inner.lock().unwrap().dsm.session_ended(SessionId(1), |_| {});
    }

    /// Gives all answers that it owes.
    pub(crate) fn pay(&self) {
        let owed = std::mem::take(&mut self.inner.lock().unwrap().owed);
        for (reply, answer) in owed {
            reply.deliver(answer);
        }
    }
}

impl Transport for Device {
    fn submit(&self, request: &[u8], reply: Reply) -> Option<Vec<u8>> {
        drop(self.alone.lock());
        let (protocol, message) = payload::split(request).unwrap();
        let (answer, how) = {
            let mut inner = self.inner.lock().unwrap();
            inner.note(protocol, message);
            let how = inner.how(protocol, message);
            if how == Answers::Never {
                return None;
            }
            (inner.answer(request), how)
        };
        match how {
            Answers::AtOnce => return Some(answer),
            Answers::Nonsense => return Some(vec![protocol.0, 0xff, 0xff]),
            Answers::ByReply => reply.deliver(answer),
            Answers::After(ms) => reply.deliver_after(answer, ms),
            Answers::ByThread => drop(std::thread::spawn(move || reply.deliver(answer))),
            Answers::Never => {}
            Answers::DoesNotTell => self.inner.lock().unwrap().owed.push((reply, answer)),
        }
        None
    }

    fn abort(&self) {
        drop(self.alone.lock());
        self.inner.lock().unwrap().aborts += 1;
    }
}

impl Inner {
    fn note(&mut self, protocol: ProtocolId, message: &[u8]) {
        self.log.push(match protocol {
            ProtocolId::TDISP => {
                let header = Header::of(message).unwrap();
                format!("{} {}", header.message_type, header.interface)
            }
            _ => {
                let name = ["QUERY", "", "KEY_PROG", "", "K_SET_GO", "K_SET_STOP"];
                name[usize::from(message[0])].to_owned()
            }
        });
    }

    fn how(&self, protocol: ProtocolId, message: &[u8]) -> Answers {
        let kind = Header::of(message).map(|header| header.message_type);
        match self.exception {
            Some((except, how)) if protocol == ProtocolId::TDISP && kind == Ok(except) => how,
            _ => self.answers,
        }
    }

    /// Each answer has a nonce of its own to draw.
    fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        let mut answer = vec![0; 256];
        let Self { dsm, keys, hardware, .. } = self;
        hardware.nonce.0 = hardware.nonce.0.map(|byte| byte.wrapping_add(1));
        let length = hardware.respond(dsm, keys, request, &mut answer).unwrap();
        answer.truncate(length);
        answer
    }
}

/// A BAR with tables of MSI-X, and much to tell.
fn hardware() -> StandIn {
    let plain = StandIn::default();
    let bar = MemoryBar {
        msix_table: Some(Extent { offset: 0x2000, length: 0x800 }),
        msix_pba: Some(Extent { offset: 0x3000, length: 0x10 }),
        ..plain.bar
    };
    StandIn { bar, device_specific: &[7; 200], ..plain }
}
