//! What a TSM does with a device, against any device: a session, keys for its link, and an interface from
//! `CONFIG_UNLOCKED` to `RUN` and back.
//!
//! Each stage is told as it ends. The first that fails ends the flow; what was set up stays as it is, as
//! it is the peer that is looked at. Takes no lock.

use spdm::flow::{self, Broken, Established, Link, Plan};
use spdm::message::VendorDefined;
use spdm::requester::{Ask, Outcome, Requester};
use tdisp::exchange::{
    Capabilities, GetCapabilities, GetState, GetVersion, LockInterface, Nonce, StartInterface,
    StopInterface,
};
use tdisp::ide_km::{
    self, Direction, KEY_BYTES, KeyId, KeyKind, KeyMaterial, KeyStatus, PortLocation, SubStream,
};
use tdisp::payload::{self, ProtocolId};
use tdisp::{EncodeFault, InterfaceId, PeerFault, ReportAssembly, RequestBody, State};
use thiserror::Error;

/// What is asked of a device.
#[derive(Clone, Debug)]
pub struct Tour {
    /// How its session is made.
    pub session: Plan,
    /// Whether its link gets keys, and takes them back.
    pub keys: Option<Stream>,
    /// The interface that is locked, run and stopped.
    pub interface: Option<InterfaceId>,
    /// How it is locked.
    pub lock: LockInterface,
    /// Bytes of the report asked for at a time.
    pub portion_bytes: u16,
}

/// The stream that gets keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Its number.
    pub stream: u8,
    /// The port.
    pub port: u8,
    /// The key, which this flow uses for all sub-streams: no link is encrypted with it.
    pub key: [u8; KEY_BYTES],
}

/// What a stage brought.
#[derive(Clone, Debug)]
pub enum Stage {
    /// There is a session.
    Session(Box<Established>),
    /// Where the port is, and how many bytes of registers it shows.
    Port(PortLocation, usize),
    /// So many keys are in use.
    KeysGo(usize),
    /// The versions of TDISP that the device speaks.
    Versions(Vec<u8>),
    /// What it is capable of.
    Capabilities(Capabilities),
    /// The interface is in this state.
    State(State),
    /// It is locked.
    Locked,
    /// The report, whole.
    Report(Vec<u8>),
    /// It runs.
    Started,
    /// It is stopped.
    Stopped,
    /// So many keys are taken back.
    KeysStop(usize),
    /// The session is over.
    Ended,
}

/// Why the flow ended early.
#[derive(Debug, Error)]
pub enum Fault<F> {
    /// SPDM, or the way to the peer.
    #[error(transparent)]
    Session(#[from] Broken<F>),
    /// An answer of IDE_KM or TDISP.
    #[error(transparent)]
    Answer(#[from] PeerFault),
    /// The device refused a request of TDISP.
    #[error("TDISP: {0}")]
    Refused(#[from] tdisp::Refused),
    /// The device did not take a key.
    #[error("KP_ACK says {}", .status.0)]
    Key {
        /// What it says.
        status: KeyStatus,
    },
    /// An answer that is one, but to something else.
    #[error("the answer to {to} is to something else")]
    Other {
        /// The request.
        to: &'static str,
    },
    /// The interface is in another state than it was brought to.
    #[error("the interface is in {found}, not in {expected}")]
    State {
        /// Where it was brought to.
        expected: State,
        /// Where it is.
        found: State,
    },
    /// A request did not fit into its message.
    #[error(transparent)]
    Encode(#[from] EncodeFault),
}

/// Takes the tour; `told` hears each stage.
///
/// # Errors
/// [`Fault`].
pub fn take<L: Link>(
    requester: &mut Requester,
    link: &mut L,
    tour: &Tour,
    told: &mut dyn FnMut(Stage),
) -> Result<(), Fault<L::Fault>> {
    let established = flow::establish(requester, link, &tour.session)?;
    told(Stage::Session(Box::new(established)));
    let mut guide = Guide { requester, link };
    if let Some(stream) = &tour.keys {
        guide.set_keys(stream, told)?;
    }
    if let Some(interface) = tour.interface {
        guide.run_interface(interface, tour, told)?;
    }
    if let Some(stream) = &tour.keys {
        guide.stop_keys(stream, told)?;
    }
    guide.ask(&Ask::EndSession)?;
    told(Stage::Ended);
    Ok(())
}

/// The longest answer of IDE_KM or TDISP that is expected.
const MESSAGE_BYTES: usize = 4096;

struct Guide<'a, L: Link> {
    requester: &'a mut Requester,
    link: &'a mut L,
}

impl<L: Link> Guide<'_, L> {
    fn set_keys(
        &mut self,
        stream: &Stream,
        told: &mut dyn FnMut(Stage),
    ) -> Result<(), Fault<L::Fault>> {
        use ide_km::{Request, Response};
        let port = stream.port;
        let answer = self.keys(&Request::Query { port })?;
        match Response::decode(&answer)? {
            Response::QueryResp { port: found, location, registers, .. } if found == port => {
                told(Stage::Port(location, registers.len()));
            }
            Response::QueryResp { .. } | Response::KeyProgAck { .. } | Response::GoStopAck(_) => {
                return Err(Fault::Other { to: "QUERY" });
            }
        }
        let keys = all_keys(stream);
        for key in keys {
            let material = KeyMaterial::new(stream.key, IV_FIRST);
            let answer = self.keys(&Request::KeyProg { key, material })?;
            match Response::decode(&answer)? {
                Response::KeyProgAck { key: found, status } if found == key => {
                    if status != KeyStatus::SUCCESS {
                        return Err(Fault::Key { status });
                    }
                }
                Response::QueryResp { .. }
                | Response::KeyProgAck { .. }
                | Response::GoStopAck(_) => {
                    return Err(Fault::Other { to: "KEY_PROG" });
                }
            }
        }
        for key in keys {
            self.acked(&Request::SetGo(key), key, "K_SET_GO")?;
        }
        told(Stage::KeysGo(keys.len()));
        Ok(())
    }

    fn stop_keys(
        &mut self,
        stream: &Stream,
        told: &mut dyn FnMut(Stage),
    ) -> Result<(), Fault<L::Fault>> {
        let keys = all_keys(stream);
        for key in keys {
            self.acked(&ide_km::Request::SetStop(key), key, "K_SET_STOP")?;
        }
        told(Stage::KeysStop(keys.len()));
        Ok(())
    }

    fn acked(
        &mut self,
        request: &ide_km::Request,
        key: KeyId,
        to: &'static str,
    ) -> Result<(), Fault<L::Fault>> {
        let answer = self.keys(request)?;
        if ide_km::Response::decode(&answer)? == ide_km::Response::GoStopAck(key) {
            Ok(())
        } else {
            Err(Fault::Other { to })
        }
    }

    fn run_interface(
        &mut self,
        interface: InterfaceId,
        tour: &Tour,
        told: &mut dyn FnMut(Stage),
    ) -> Result<(), Fault<L::Fault>> {
        let tdi = tdisp::Requester::new(interface);
        let answer = self.interface(tdi, &GetVersion)?;
        told(Stage::Versions(tdi.response::<GetVersion>(&answer)?.entries.to_vec()));
        let ask = GetCapabilities { tsm_caps: 0 };
        let answer = self.interface(tdi, &ask)?;
        told(Stage::Capabilities(tdi.response::<GetCapabilities>(&answer)?));
        self.expect(tdi, State::Unlocked, told)?;
        let answer = self.interface(tdi, &tour.lock)?;
        let nonce: Nonce = tdi.response::<LockInterface>(&answer)?.nonce;
        told(Stage::Locked);
        self.expect(tdi, State::Locked, told)?;
        told(Stage::Report(self.report(tdi, tour.portion_bytes)?));
        let answer = self.interface(tdi, &StartInterface { nonce })?;
        tdi.response::<StartInterface>(&answer)?;
        told(Stage::Started);
        self.expect(tdi, State::Run, told)?;
        let answer = self.interface(tdi, &StopInterface)?;
        tdi.response::<StopInterface>(&answer)?;
        told(Stage::Stopped);
        self.expect(tdi, State::Unlocked, told)
    }

    fn expect(
        &mut self,
        tdi: tdisp::Requester,
        expected: State,
        told: &mut dyn FnMut(Stage),
    ) -> Result<(), Fault<L::Fault>> {
        let answer = self.interface(tdi, &GetState)?;
        let found = State::try_from(tdi.response::<GetState>(&answer)?)?;
        told(Stage::State(found));
        if found == expected { Ok(()) } else { Err(Fault::State { expected, found }) }
    }

    fn report(
        &mut self,
        tdi: tdisp::Requester,
        portion_bytes: u16,
    ) -> Result<Vec<u8>, Fault<L::Fault>> {
        let mut room = vec![0; usize::from(u16::MAX)];
        let mut assembly = ReportAssembly::new(&mut room);
        while let Some(ask) = assembly.next(portion_bytes) {
            let answer = self.interface(tdi, &ask)?;
            assembly.take(tdi.response::<tdisp::exchange::GetReport>(&answer)?)?;
        }
        let whole = assembly.report().map(<[u8]>::to_vec);
        whole.ok_or(Fault::Other { to: "GET_DEVICE_INTERFACE_REPORT" })
    }

    fn interface<'a, B: RequestBody<'a>>(
        &mut self,
        tdi: tdisp::Requester,
        request: &B,
    ) -> Result<Vec<u8>, Fault<L::Fault>> {
        self.vendor(ProtocolId::TDISP, |into| tdi.request(request, into))
    }

    fn keys(&mut self, request: &ide_km::Request) -> Result<Vec<u8>, Fault<L::Fault>> {
        self.vendor(ProtocolId::IDE_KM, |into| request.encode(into))
    }

    /// Asks in a vendor-defined message, and gives the answer of the same protocol.
    fn vendor(
        &mut self,
        protocol: ProtocolId,
        write: impl FnOnce(&mut [u8]) -> Result<usize, EncodeFault>,
    ) -> Result<Vec<u8>, Fault<L::Fault>> {
        let mut message = [0; MESSAGE_BYTES];
        let length = payload::join(protocol, &mut message, write)?;
        let request = VendorDefined::pci_sig(message[..length].to_vec());
        let Outcome::VendorDefined(answer) = self.ask(&Ask::VendorDefined(request))? else {
            return Err(Fault::Other { to: "VENDOR_DEFINED_REQUEST" });
        };
        match payload::split(&answer.payload)? {
            (found, inside) if found == protocol => Ok(inside.to_vec()),
            _ => Err(Fault::Other { to: "VENDOR_DEFINED_REQUEST" }),
        }
    }

    fn ask(&mut self, ask: &Ask) -> Result<Outcome, Fault<L::Fault>> {
        Ok(flow::run(self.requester, self.link, ask)?)
    }
}

/// The first value of an IV.
const IV_FIRST: u64 = 1;

fn all_keys(stream: &Stream) -> [KeyId; 6] {
    let mut keys = [KeyId { stream: stream.stream, kind: KeyKind(0), port: stream.port }; 6];
    let kinds = SubStream::ALL.into_iter().flat_map(|sub_stream| {
        Direction::ALL.map(|direction| KeyKind::new(false, direction, sub_stream))
    });
    keys.iter_mut().zip(kinds).for_each(|(key, kind)| key.kind = kind);
    keys
}
