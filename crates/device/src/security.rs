//! A device's security manager (DSM): its TDISP interfaces (TDIs) and the keys of its IDE streams.
//!
//! [`Manager`] answers data objects of SPDM, and in its sessions requests of TDISP and IDE_KM, about the
//! functions of one device, each an [`Interface`]: a physical function, its virtual functions, several physical functions. A function
//! acts on its own state, which changes together with what breaks it; the manager's record follows
//! in the order of events, and every change is told to those who [`watch`](Manager::watch).
//!
//! # Policies
//! Where public texts of TDISP are silent, these hold besides those of [`tdisp`]:
//!
//! | policy | what is done |
//! |---|---|
//! | `flr-while-locked` | [`Settings::flr_while_locked`]: a function-level reset unlocks, or is a breach |
//! | `physical-reset` | a reset of the physical function is one of its virtual functions, as it disables them |
//! | `conventional-reset` | every interface of the device is unlocked, all keys and sessions are lost |
//! | `unchanged-writes` | a write that leaves a register as it was is no breach, to a BAR neither |
//! | `untrusted-dma` | DMA without the T bit goes on in every state but `ERROR` |
//! | `error` | no DMA at all, memory reads as all ones, writes to memory are dropped, no interrupt |
//! | `stop-scrubs` | STOP resets registers and memory of BAR 0; MSI-X and config space are the host's |
//! | `key-streams` | streams have any number; as many have keys at once as IDE has streams |
//! | `doe-objects` | a mailbox answers discovery, CMA and secured CMA; every other object ends in Error |
//! | `clear-payloads` | TDISP and IDE_KM are answered in a session only, in the clear by ERROR |
//! | `doe-claimed` | a mailbox that the TSM has is Busy and takes nothing, Abort neither |
//! | `session-keys` | the end of a session is a breach of what was locked in it and keeps the keys |
//! | `session-silence` | a session ends that has received nothing for twice its heartbeat period, at most half a period later |
//!
//! # Locks
//! Three locks of rank [`sync::rank::DeviceSecurity`], never two at once, each held for the length of a look.
//! Requests take turns;
//! who has the turn holds no lock while it waits for a function, so a slow STOP delays other requests
//! and nobody else. A breach never waits for the turn: who has it records what happened before
//! giving it back. Watchers are called with no lock held and no turn, in the order of the changes,
//! by one thread at a time.
//!
//! # Deliberately absent
//! Keys and certificates: whoever builds the device makes its [`Equipment`]. Clocks: whoever has one gives
//! it by [`Manager::keep_time`], and the thread that ends silent sessions, [`Manager::tend`]. Sources of
//! random bytes.

mod desk;
mod hardware;
mod interface;
mod silence;
mod turn;

use std::fmt;
use std::sync::Arc;

use pci::Reset;
use sync::{Mutex, WaitQueue, rank};
use tdisp::payload::{self, ProtocolId};
use tdisp::{Breach, Dsm, FunctionReset, RESPONSE_BYTES_MIN, RequestNumbering, SessionId, State};

use self::desk::Desk;
pub use self::desk::{Equip, Equipment};
use self::hardware::{Hardware, OnePort};
pub use self::interface::{Alarm, Event, Interface, Part, Raised, Terms};
use self::silence::Silence;
use self::turn::{Core, Record};

/// Interfaces that a device has at most: a physical function and 63 virtual ones.
pub const TDIS_MAX: usize = 64;
/// IDE streams that have keys at once.
const STREAMS: usize = 4;
/// The device's one port.
const PORT: u8 = 0;

/// Policies of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What a function-level reset does to an interface that is not unlocked.
    pub flr_while_locked: FunctionReset,
    /// How CAPABILITIES numbers requests.
    pub numbering: RequestNumbering,
}

/// Where nonces come from.
pub trait Entropy: Send + Sync {
    /// Fills `bytes` with random bytes that nobody can guess; false where there are none.
    fn fill(&self, bytes: &mut [u8]) -> bool;
}

/// A change of an interface's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TdiChange {
    /// The function.
    pub requester_id: u16,
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
    /// The breach that took it to `ERROR`, if that is where it is.
    pub cause: Option<Breach>,
}

/// Hears of changes.
pub type Watcher = Arc<dyn Fn(TdiChange) + Send + Sync>;

/// The security manager of one device.
pub struct Manager {
    settings: Settings,
    entropy: Arc<dyn Entropy>,
    seats: Vec<Seat>,
    record: Mutex<rank::DeviceSecurity, Record>,
    /// Woken when the turn is given back.
    turn_free: WaitQueue,
    desk: Desk,
    silence: Silence,
}

/// The device's mailboxes are somebody's; dropping it gives them back.
#[derive(Debug)]
#[must_use = "the mailboxes are given back when the claim is dropped"]
pub struct MailboxClaim {
    manager: Arc<Manager>,
}

impl Drop for MailboxClaim {
    fn drop(&mut self) {
        for seat in &self.manager.seats {
            seat.interface.claim_mailbox(false);
        }
    }
}

/// An interface in its place.
struct Seat {
    interface: Arc<dyn Interface>,
    /// Where it is a virtual function: whose, and which.
    place: Option<Place>,
}

#[derive(Clone, Copy)]
struct Place {
    /// The seat of the physical function.
    physical: usize,
    index: u16,
}

impl Manager {
    /// The manager of a device with these functions, all unlocked, without keys. From now on they
    /// tell it what happens to them. Functions beyond [`TDIS_MAX`], and a second one with the same
    /// requester ID, have no interface.
    pub fn new(
        settings: Settings,
        interfaces: Vec<Arc<dyn Interface>>,
        entropy: Arc<dyn Entropy>,
    ) -> Arc<Self> {
        let mut dsm = Dsm::new(tdisp::Settings {
            numbering: settings.numbering,
            function_reset: settings.flr_while_locked,
            ..tdisp::Settings::default()
        });
        let mut kept: Vec<Arc<dyn Interface>> = Vec::new();
        for interface in interfaces {
            if dsm.add(interface.requester_id()).is_ok() {
                kept.push(interface);
            }
        }
        let places: Vec<_> = kept.iter().map(|one| place_of(one.as_ref(), &kept)).collect();
        let seats = kept.into_iter().zip(places);
        let seats = seats.map(|(interface, place)| Seat { interface, place }).collect();
        let manager = Arc::new(Self {
            settings,
            entropy,
            seats,
            record: Mutex::new(Record::new(dsm)),
            turn_free: WaitQueue::new(),
            desk: Desk::new(),
            silence: Silence::new(),
        });
        for seat in &manager.seats {
            let alarm: Arc<dyn Alarm> = manager.clone();
            seat.interface.attach(Arc::downgrade(&alarm));
        }
        manager
    }

    /// Answers a payload of a VENDOR_DEFINED message, the protocol id first, and returns the
    /// response's length in bytes. `None`: there is no answer, as the protocol is not known, IDE_KM
    /// has none, or `into` has less than [`RESPONSE_BYTES_MIN`] bytes and one.
    ///
    /// Waits its turn, and for a function's DMA where STOP does. Not to be called from within DMA.
    pub fn respond(&self, session: SessionId, request: &[u8], into: &mut [u8]) -> Option<usize> {
        let (protocol, message) = payload::split(request).ok()?;
        if into.len() <= RESPONSE_BYTES_MIN {
            return None;
        }
        let mut core = self.take_turn();
        let (first, rest) = into.split_first_mut()?;
        *first = protocol.0;
        let length = match protocol {
            ProtocolId::TDISP => self.tdisp(&mut core, session, message, rest),
            ProtocolId::IDE_KM => self.ide_km(&mut core, message, rest),
            ProtocolId(_) => None,
        };
        self.give_back(core);
        Some(length? + 1)
    }

    /// Lets `watcher` hear every change from now on. It is called with no lock held; it must not
    /// wait for the device.
    pub fn watch(&self, watcher: Watcher) {
        self.record.lock().watchers.push(watcher);
    }

    /// The state of a function's interface, as the function acts on it.
    pub fn state(&self, requester_id: u16) -> Option<State> {
        self.seat(requester_id).map(|seat| seat.interface.state())
    }

    /// Functions with an interface, by requester ID.
    pub fn functions(&self) -> impl Iterator<Item = u16> {
        self.seats.iter().map(|seat| seat.interface.requester_id())
    }

    /// Key slots in use, as of the last request.
    pub fn keys(&self) -> usize {
        self.record.lock().key_count
    }

    /// Loses all keys: a breach of every interface that is locked or runs. Waits its turn.
    pub fn lose_keys(&self) {
        let mut core = self.take_turn();
        self.drop_keys(&mut core);
        self.give_back(core);
    }

    /// Takes the data object exchange mailboxes of the device, which show Busy until the claim is dropped.
    /// What a client had written to them, or not yet read, is gone.
    pub fn claim_mailbox(self: &Arc<Self>) -> MailboxClaim {
        for seat in &self.seats {
            seat.interface.claim_mailbox(true);
        }
        MailboxClaim { manager: Arc::clone(self) }
    }

    /// Tells that an SPDM session ended. Waits its turn.
    pub fn session_ended(&self, session: SessionId) {
        let core = self.take_turn();
        for seat in &self.seats {
            seat.interface.breach(Breach::SessionEnded(session));
        }
        self.give_back(core);
    }

    fn tdisp(
        &self,
        core: &mut Core,
        session: SessionId,
        request: &[u8],
        into: &mut [u8],
    ) -> Option<usize> {
        let mut again = true;
        loop {
            let mut hardware = Hardware {
                seats: &self.seats,
                keys: &core.keys,
                entropy: self.entropy.as_ref(),
                settings: &self.settings,
                session,
                overtaken: false,
            };
            let answer = core.dsm.respond(session, request, &mut hardware, into).ok()?;
            if hardware.overtaken && again {
                // Once recorded, what happened refuses the request.
                again = false;
                self.record_events(core);
                continue;
            }
            if let Some(change) = answer.change {
                self.tell(change, None);
            }
            return Some(answer.length);
        }
    }

    fn ide_km(&self, core: &mut Core, request: &[u8], into: &mut [u8]) -> Option<usize> {
        let answer = core.keys.respond(request, &OnePort::of(&self.seats), into).ok()?;
        if let Some(stream) = answer.lost_stream {
            for seat in &self.seats {
                seat.interface.breach(Breach::StreamInsecure(stream));
            }
        }
        Some(answer.length)
    }

    fn drop_keys(&self, core: &mut Core) {
        core.keys.clear();
        for seat in &self.seats {
            let tdi = core.dsm.tdi(seat.interface.requester_id());
            if let Some(parameters) = tdi.and_then(|tdi| tdi.parameters()) {
                seat.interface.breach(Breach::StreamInsecure(parameters.default_stream));
            }
        }
    }

    fn seat(&self, requester_id: u16) -> Option<&Seat> {
        self.seats.iter().find(|seat| seat.interface.requester_id() == requester_id)
    }

    /// What a reset of a physical function does to the others of the device.
    fn reset_others(&self, seat: usize, kind: Reset) {
        for (index, other) in self.seats.iter().enumerate() {
            let is_part = other.place.is_some_and(|place| place.physical == seat);
            let unlocks = match kind {
                Reset::Bus => index != seat,
                Reset::Function => {
                    is_part && self.settings.flr_while_locked == FunctionReset::Unlocks
                }
            };
            if unlocks {
                other.interface.stop();
            } else if is_part {
                other.interface.breach(Breach::FunctionReset);
            }
        }
    }
}

impl Alarm for Manager {
    /// Acts on other functions of the device at once, and records what happened, unless a request
    /// has the turn, which then records it.
    fn raised(&self, requester_id: u16, raised: Raised) {
        for (virtual_function, breach) in raised.virtual_functions {
            if let Some(seat) = self.seat(virtual_function) {
                seat.interface.breach(breach);
            }
        }
        let is_physical = |seat: &Seat| {
            seat.interface.requester_id() == requester_id && !seat.interface.is_virtual()
        };
        let physical = self.seats.iter().position(is_physical);
        let mut keys_lost = false;
        if let (Some(seat), Some(kind)) = (physical, raised.reset) {
            self.reset_others(seat, kind);
            keys_lost = kind == Reset::Bus;
        }
        if keys_lost {
            self.desk.reset();
        }
        self.note(keys_lost);
    }

    fn object(&self, object: &[u8]) -> Option<Vec<u8>> {
        self.exchange(object)
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states = self.seats.iter().map(|seat| {
            (format!("{:#06x}", seat.interface.requester_id()), seat.interface.state())
        });
        f.debug_map().entries(states).finish()
    }
}

/// Whose virtual function `interface` is: the physical function whose numbering hits it, the nearest
/// where several do.
fn place_of(interface: &dyn Interface, among: &[Arc<dyn Interface>]) -> Option<Place> {
    if !interface.is_virtual() {
        return None;
    }
    let own = interface.requester_id();
    let hits = among.iter().enumerate().filter_map(|(physical, other)| {
        let (of, _) = other.virtualization().filter(|_| !other.is_virtual())?;
        let distance = own.checked_sub(other.requester_id())?.checked_sub(of.first_offset)?;
        let index = distance.checked_div(of.stride).unwrap_or(0);
        let hit = of.requester_id(other.requester_id(), index) == own;
        hit.then_some((distance, Place { physical, index }))
    });
    hits.min_by_key(|(distance, _)| *distance).map(|(_, place)| place)
}
