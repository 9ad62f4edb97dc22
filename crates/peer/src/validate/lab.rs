//! Where a rule is tried: a connection that can be well-behaved, by a requester, or not, byte by byte.

use spdm::algorithm::Selected;
use spdm::flow::{self, Broken, Link};
use spdm::key_schedule::Side;
use spdm::message::{Code, Digests, ErrorCode, Header, VendorDefined};
use spdm::requester::{Ask, Outcome, Requester, Step};
use spdm::{Error, Frame};
use tdisp::exchange::{GetState, LockInterface, LockInterfaceResponse, Nonce, StopInterface};
use tdisp::ide_km::{
    self, Direction, KEY_BYTES, KeyId, KeyKind, KeyMaterial, KeyStatus, SubStream,
};
use tdisp::payload::{self, ProtocolId};
use tdisp::{ErrorCode as TdiErrorCode, InterfaceId, LockFlags, Refused, RequestBody, State};

use super::{Stop, Subject, fail};
use crate::mailbox_link::{LinkFault, Objects};

/// A connection on which a rule is tried.
pub struct Lab<'a> {
    pub(super) subject: Subject,
    make: &'a dyn Fn() -> Requester,
    requester: Requester,
    wire: Wire<'a>,
    /// Keys that were programmed and not stopped.
    keys: Vec<KeyId>,
    /// Whether the interface may be in another state than `CONFIG_UNLOCKED`.
    touched: bool,
}

/// The link, with a record of what went over it.
struct Wire<'a> {
    objects: &'a mut dyn Objects,
    log: Vec<(Side, Vec<u8>)>,
}

/// An answer in the clear.
pub(super) struct Clear {
    pub(super) header: Header,
    pub(super) bytes: Vec<u8>,
}

impl Link for Wire<'_> {
    type Fault = LinkFault;

    fn exchange(&mut self, frame: &Frame) -> Result<Frame, LinkFault> {
        let answer = self.object(frame.to_object()?)?;
        Ok(Frame::from_object(&answer)?)
    }

    fn wait(&mut self, time_us: u64) -> Result<(), LinkFault> {
        self.objects.wait(time_us);
        Ok(())
    }
}

impl Wire<'_> {
    fn object(&mut self, object: Vec<u8>) -> Result<Vec<u8>, LinkFault> {
        self.log.push((Side::Requester, object.clone()));
        let answer = self.objects.object(object)?;
        self.log.push((Side::Responder, answer.clone()));
        Ok(answer)
    }
}

impl<'a> Lab<'a> {
    pub(super) fn new(
        subject: Subject,
        make: &'a dyn Fn() -> Requester,
        objects: &'a mut dyn Objects,
    ) -> Self {
        let wire = Wire { objects, log: Vec::new() };
        Self { subject, make, requester: make(), wire, keys: Vec::new(), touched: false }
    }

    /// Takes down what a rule left behind, as far as the device lets it. Gives what went over the link
    /// before.
    pub(super) fn leave(mut self) -> Vec<(Side, Vec<u8>)> {
        let log = std::mem::take(&mut self.wire.log);
        if self.requester.session().is_none() && (self.touched || !self.keys.is_empty()) {
            let _ = self.session();
        }
        if self.requester.session().is_some() {
            if self.touched
                && let Some(interface) = self.subject.interface
            {
                let tdi = tdisp::Requester::new(interface);
                let _ = self.tdi(&tdi, &StopInterface);
            }
            for key in std::mem::take(&mut self.keys) {
                let _ = self.keys(&ide_km::Request::SetStop(key));
            }
            let _ = self.ask(&Ask::EndSession);
        }
        log
    }

    /// Begins anew: VERSION, CAPABILITIES, ALGORITHMS.
    pub(super) fn connect(&mut self) -> Result<Selected, Stop> {
        self.requester = (self.make)();
        let Outcome::Connected(selected) = self.ask(&Ask::Connect)? else {
            return fail("no connection");
        };
        Ok(selected)
    }

    /// Begins anew, and fetches the chain of slot 0.
    pub(super) fn connect_to_chain(&mut self) -> Result<(Selected, Digests, Vec<u8>), Stop> {
        let selected = self.connect()?;
        let Outcome::Digests(digests) = self.ask(&Ask::Digests)? else {
            return fail("no DIGESTS");
        };
        let Outcome::Certificate(chain) = self.ask(&Ask::Certificate { slot: 0 })? else {
            return fail("no chain");
        };
        Ok((selected, digests, chain))
    }

    /// Begins anew, and ends in a session.
    pub(super) fn session(&mut self) -> Result<(), Stop> {
        self.connect_to_chain()?;
        self.ask(&Ask::Session { slot: 0, summary: 0 })?;
        Ok(())
    }

    /// An exchange, which must succeed.
    pub(super) fn ask(&mut self, ask: &Ask) -> Result<Outcome, Stop> {
        match self.try_ask(ask)? {
            Ok(outcome) => Ok(outcome),
            Err(Error::Refused(spdm::Refusal::Unsupported)) => {
                Err(Stop::NotApplicable("the device has not the capability".into()))
            }
            Err(error) => fail(format!("{}: {error}", name(ask))),
        }
    }

    /// An exchange, and what came of it.
    pub(super) fn try_ask(&mut self, ask: &Ask) -> Result<Result<Outcome, Error>, Stop> {
        match flow::run(&mut self.requester, &mut self.wire, ask) {
            Ok(outcome) => Ok(Ok(outcome)),
            Err(Broken::Exchange(error)) => Ok(Err(error)),
            Err(Broken::Link(fault)) => Err(fault.into()),
        }
    }

    /// The frame that an exchange begins with, for one who sends it in his own way.
    pub(super) fn frame(&mut self, ask: Ask) -> Result<Frame, Stop> {
        self.requester.ask(ask).or_else(|error| fail(error.to_string()))
    }

    /// Sends a frame as it is, past the requester.
    pub(super) fn send(&mut self, frame: &Frame) -> Result<Frame, Stop> {
        Ok(self.wire.exchange(frame)?)
    }

    /// Gives an answer to the requester, which must accept it.
    pub(super) fn accept(&mut self, answer: &Frame) -> Result<(), Stop> {
        self.requester.receive(answer).map(drop).or_else(|error| fail(error.to_string()))
    }

    /// Gives an answer to the requester, which must have something more to send.
    pub(super) fn next(&mut self, answer: &Frame) -> Result<Frame, Stop> {
        match self.requester.receive(answer) {
            Ok(Step::Send(frame) | Step::Wait { then: frame, .. }) => Ok(frame),
            Ok(Step::Done(outcome)) => fail(format!("{outcome:?} too early")),
            Err(error) => fail(error.to_string()),
        }
    }

    /// Says something in the clear, and hears the answer.
    pub(super) fn say(&mut self, message: &[u8]) -> Result<Clear, Stop> {
        match self.send(&Frame::Clear(message.to_vec()))? {
            Frame::Clear(bytes) => {
                let header = Header::of(&bytes).or_else(|fault| fail(fault.to_string()))?;
                Ok(Clear { header, bytes })
            }
            Frame::Secured(_) => fail("the answer to a message in the clear is a record"),
        }
    }

    /// Says something in the clear that must be refused so.
    pub(super) fn refused(&mut self, message: &[u8], allowed: &[ErrorCode]) -> Result<(), Stop> {
        let answer = self.say(message)?;
        refusal(&answer, allowed)
    }

    /// Asks in a vendor-defined message of PCI-SIG's. `None` where the answer is ERROR of SPDM.
    pub(super) fn vendor(&mut self, payload: Vec<u8>) -> Result<Option<Vec<u8>>, Stop> {
        match self.try_ask(&Ask::VendorDefined(VendorDefined::pci_sig(payload)))? {
            Ok(Outcome::VendorDefined(answer)) => Ok(Some(answer.payload.to_vec())),
            Ok(other) => fail(format!("{other:?} instead of a vendor-defined answer")),
            Err(Error::Said { .. }) => Ok(None),
            Err(error) => fail(error.to_string()),
        }
    }

    /// Asks in IDE_KM. `None` where the answer is ERROR of SPDM.
    pub(super) fn keys(&mut self, request: &ide_km::Request) -> Result<Option<Vec<u8>>, Stop> {
        let mut message = [0; MESSAGE_BYTES];
        let written = payload::join(ProtocolId::IDE_KM, &mut message, |into| request.encode(into));
        let length = written.or_else(|fault| fail(fault.to_string()))?;
        self.protocol(ProtocolId::IDE_KM, message[..length].to_vec())
    }

    /// Sends a payload, and gives what the answer of the same protocol carries.
    pub(super) fn protocol(
        &mut self,
        protocol: ProtocolId,
        payload: Vec<u8>,
    ) -> Result<Option<Vec<u8>>, Stop> {
        let Some(answer) = self.vendor(payload)? else { return Ok(None) };
        match payload::split(&answer) {
            Ok((found, inside)) if found == protocol => Ok(Some(inside.to_vec())),
            Ok((found, _)) => fail(format!("an answer of protocol {}", found.0)),
            Err(fault) => fail(fault.to_string()),
        }
    }

    /// Asks in TDISP, and gives the bytes of the answer.
    pub(super) fn tdi<'r, B: RequestBody<'r>>(
        &mut self,
        tdi: &tdisp::Requester,
        request: &B,
    ) -> Result<Vec<u8>, Stop> {
        self.tdi_bytes(&tdi_message(tdi, request)?)
    }

    /// Says something in TDISP, byte by byte.
    pub(super) fn tdi_bytes(&mut self, message: &[u8]) -> Result<Vec<u8>, Stop> {
        let payload = [&[ProtocolId::TDISP.0], message].concat();
        let answer = self.protocol(ProtocolId::TDISP, payload)?;
        answer.ok_or_else(|| Stop::Fail("ERROR of SPDM, not of TDISP".into()))
    }

    /// Asks for what must be refused so.
    pub(super) fn tdi_refused(
        &mut self,
        tdi: &tdisp::Requester,
        message: &[u8],
        allowed: &[TdiErrorCode],
    ) -> Result<(), Stop> {
        let answer = self.tdi_bytes(message)?;
        match refusal_of(tdi, &answer)? {
            Some(code) if allowed.contains(&code) => Ok(()),
            Some(code) => fail(format!("refused with {code}, not {allowed:?}")),
            None => fail("not refused"),
        }
    }

    /// A session with an interface to speak about.
    pub(super) fn interface(&mut self) -> Result<tdisp::Requester, Stop> {
        let interface = self.named()?;
        self.session()?;
        Ok(tdisp::Requester::new(interface))
    }

    /// The interface that was named for the rules.
    pub(super) fn named(&self) -> Result<InterfaceId, Stop> {
        let why = || Stop::NotApplicable("no interface was named".into());
        self.subject.interface.ok_or_else(why)
    }

    /// A session with an interface whose link has keys.
    pub(super) fn ready_interface(&mut self) -> Result<tdisp::Requester, Stop> {
        let tdi = self.interface()?;
        self.set_keys()?;
        Ok(tdi)
    }

    /// As [`ready_interface`](Self::ready_interface), and it is locked.
    pub(super) fn locked_interface(&mut self) -> Result<(tdisp::Requester, Nonce), Stop> {
        let tdi = self.ready_interface()?;
        let nonce = self.lock(&tdi)?;
        Ok((tdi, nonce))
    }

    /// Locks the interface.
    pub(super) fn lock(&mut self, tdi: &tdisp::Requester) -> Result<Nonce, Stop> {
        let request = self.lock_request();
        self.touched = true;
        let answer = self.tdi(tdi, &request)?;
        match tdi.response::<LockInterface>(&answer) {
            Ok(LockInterfaceResponse { nonce }) => Ok(nonce),
            Err(refused) => fail(format!("LOCK: {refused}")),
        }
    }

    /// How the interface is locked.
    pub(super) fn lock_request(&self) -> LockInterface {
        LockInterface {
            flags: LockFlags::NO_FW_UPDATE,
            default_stream: self.subject.stream,
            mmio_reporting_offset: 0,
            p2p_address_mask: 0,
        }
    }

    /// Says that the interface may be in another state from now on.
    pub(super) fn touch(&mut self) {
        self.touched = true;
    }

    /// The interface must be in `expected`.
    pub(super) fn state(&mut self, tdi: &tdisp::Requester, expected: State) -> Result<(), Stop> {
        let found = self.state_found(tdi)?;
        if found == expected {
            Ok(())
        } else {
            fail(format!("the interface is in {found}, not in {expected}"))
        }
    }

    /// The state of the interface.
    pub(super) fn state_found(&mut self, tdi: &tdisp::Requester) -> Result<State, Stop> {
        let answer = self.tdi(tdi, &GetState)?;
        let told =
            tdi.response::<GetState>(&answer).or_else(|refused| fail(refused.to_string()))?;
        State::try_from(told).or_else(|fault| fail(fault.to_string()))
    }

    /// A key for each direction and sub-stream, in use.
    pub(super) fn set_keys(&mut self) -> Result<(), Stop> {
        for key in self.all_keys() {
            if self.program(key)? != KeyStatus::SUCCESS {
                return fail("a key of the stream is not taken");
            }
        }
        for key in self.all_keys() {
            self.acked(&ide_km::Request::SetGo(key), key)?;
        }
        Ok(())
    }

    /// Programs a key, and gives what KP_ACK says.
    pub(super) fn program(&mut self, key: KeyId) -> Result<KeyStatus, Stop> {
        let material = KeyMaterial::new(KEY, 1);
        self.keys.push(key);
        let Some(answer) = self.keys(&ide_km::Request::KeyProg { key, material })? else {
            return fail("ERROR instead of KP_ACK");
        };
        match ide_km::Response::decode(&answer) {
            Ok(ide_km::Response::KeyProgAck { key: found, status }) if found == key => Ok(status),
            Ok(other) => fail(format!("{other:?} instead of KP_ACK for that key")),
            Err(fault) => fail(fault.to_string()),
        }
    }

    /// Asks for what K_GOSTOP_ACK answers.
    pub(super) fn acked(&mut self, request: &ide_km::Request, key: KeyId) -> Result<(), Stop> {
        let Some(answer) = self.keys(request)? else {
            return fail("ERROR instead of K_GOSTOP_ACK");
        };
        match ide_km::Response::decode(&answer) {
            Ok(ide_km::Response::GoStopAck(found)) if found == key => Ok(()),
            Ok(other) => fail(format!("{other:?} instead of K_GOSTOP_ACK for that key")),
            Err(fault) => fail(fault.to_string()),
        }
    }

    /// The keys of the stream.
    pub(super) fn all_keys(&self) -> Vec<KeyId> {
        let Subject { stream, port, .. } = self.subject;
        let kinds = SubStream::ALL.into_iter().flat_map(|sub_stream| {
            Direction::ALL.map(|direction| KeyKind::new(false, direction, sub_stream))
        });
        kinds.map(|kind| KeyId { stream, kind, port }).collect()
    }
}

/// The longest message of IDE_KM or TDISP that is sent.
const MESSAGE_BYTES: usize = 128;
/// No link is encrypted with it.
const KEY: [u8; KEY_BYTES] = [0x5a; KEY_BYTES];

/// The bytes of a request of TDISP.
pub(super) fn tdi_message<'r, B: RequestBody<'r>>(
    tdi: &tdisp::Requester,
    request: &B,
) -> Result<Vec<u8>, Stop> {
    let mut message = [0; MESSAGE_BYTES];
    let written = tdi.request(request, &mut message);
    let length = written.or_else(|fault| fail(fault.to_string()))?;
    Ok(message[..length].to_vec())
}

/// The code of an answer that is a refusal.
pub(super) fn refusal_of(
    tdi: &tdisp::Requester,
    answer: &[u8],
) -> Result<Option<TdiErrorCode>, Stop> {
    // Any request will do: it is asked whether the answer is a refusal.
    match tdi.response::<GetState>(answer) {
        Err(Refused::Error { code, .. }) => Ok(Some(code)),
        Err(Refused::Fault(tdisp::PeerFault::UnexpectedType { .. })) | Ok(_) => Ok(None),
        Err(Refused::Fault(fault)) => fail(fault.to_string()),
    }
}

/// The answer must be ERROR with one of `allowed`.
pub(super) fn refusal(answer: &Clear, allowed: &[ErrorCode]) -> Result<(), Stop> {
    let Header { code, parameter1, .. } = answer.header;
    let found = ErrorCode(parameter1);
    match code {
        Code::ERROR if allowed.contains(&found) => Ok(()),
        Code::ERROR => fail(format!("ERROR {found}, not {allowed:?}")),
        other => fail(format!("{other} instead of ERROR")),
    }
}

fn name(ask: &Ask) -> String {
    let text = format!("{ask:?}");
    text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}
