//! The lines to a TSM's own software and to devices.
//!
//! A [`Backend`] is a TSM; it opens a [`Session`] for each device that it is connected to. A
//! session's methods run while their caller owns the device's exchange slot and no lock is held, so
//! a session is never entered twice at once. It reaches the device through the
//! [`Exchange`] that it is lent: whatever waits, waits there.
//!
//! Takes no lock.

use std::sync::Arc;

use pci::Address;
use sync::Contents;
use tdisp::exchange::NONCE_BYTES;
use tdisp::ide_km::{KeyId, KeyMaterial};
use tdisp::{Nonce, State};

use crate::exchange::{Exchange, Reply};
use crate::{GuestRequest, GuestResponse, Memory, ObjectKind, ObjectView, Refusal};

/// A TSM.
pub trait Backend: Send + Sync {
    /// What reports call it.
    fn name(&self) -> &str;

    /// Whether it speaks for the host side of a link. One that does not cannot be connected.
    fn is_link(&self) -> bool {
        true
    }

    /// Accepts a device by the function that has its security manager, or does not: the driver's
    /// probe. Says nothing to the device.
    ///
    /// # Errors
    /// A [`Refusal`]; whoever connects sees `ENXIO`, whatever it is.
    fn open(&self, dsm: &FunctionFacts) -> Result<Opened, Refusal>;
}

/// A device that a TSM accepts.
pub struct Opened {
    /// The TSM's side of the connection.
    pub session: Box<dyn Session>,
    /// The way to the device's security manager.
    pub transport: Arc<dyn Transport>,
}

/// One device as its TSM has it.
pub trait Session: Send {
    /// Sets the connection up: sessions, keys.
    ///
    /// # Errors
    /// [`Failure`]. [`disconnect`](Self::disconnect) follows.
    fn connect(&mut self, exchange: &mut Exchange<'_>) -> Result<(), Failure>;

    /// Takes the connection down, as far as the device answers.
    fn disconnect(&mut self, exchange: &mut Exchange<'_>);

    /// Accepts a function of the device, so that it can be bound later.
    ///
    /// # Errors
    /// [`Failure`]; the function then gets no context.
    fn probe(
        &mut self,
        function: &FunctionFacts,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure>;

    /// Forgets a function that is not bound.
    fn forget(&mut self, function: &FunctionFacts);

    /// Makes the TDI of a function. Answers its state; `None` where nothing was bound after all.
    ///
    /// # Errors
    /// [`Failure`]. Where its effect is unknown, [`unbind`](Self::unbind) follows.
    fn bind(
        &mut self,
        function: &FunctionFacts,
        guest_id: u64,
        exchange: &mut Exchange<'_>,
    ) -> Result<Option<State>, Failure>;

    /// Takes the TDI's mappings away, stops it, and forgets it, whatever the device answers.
    ///
    /// # Errors
    /// [`Failure`] where it is not known to be unlocked.
    fn unbind(
        &mut self,
        function: &FunctionFacts,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure>;

    /// Makes sure that the device has an interface unlocked that no TDI stands for: after a reset,
    /// or an unbind without an answer.
    ///
    /// # Errors
    /// [`Failure`] where that is not known.
    fn settle(
        &mut self,
        function: &FunctionFacts,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure>;

    /// Does what a guest asks about its TDI.
    ///
    /// # Errors
    /// [`Failure`].
    fn request(
        &mut self,
        function: &FunctionFacts,
        request: &GuestRequest<'_>,
        memory: &dyn Memory,
        exchange: &mut Exchange<'_>,
    ) -> Result<GuestResponse, Failure>;

    /// The device was seen to have changed the state of an interface on its own.
    fn observe(&mut self, function: Address, state: State);

    /// What it holds of a function.
    fn record(&self, function: &FunctionFacts) -> TdiRecord;

    /// Functions of which it does not know any more in which state they are, though nothing was said about
    /// them: since this was asked last.
    fn take_lost(&mut self) -> Vec<Address> {
        Vec::new()
    }

    /// What the device has shown of itself, and the report of this function's interface where it is locked. With a
    /// nonce, measurements are taken afresh and signed over it first.
    ///
    /// # Errors
    /// [`Failure`] without effect on any TDI.
    fn evidence(
        &mut self,
        function: &FunctionFacts,
        nonce: Option<Nonce>,
        exchange: &mut Exchange<'_>,
    ) -> Result<Vec<EvidenceObject>, Failure> {
        let _ = (function, nonce, exchange);
        Ok(Vec::new())
    }

    /// Keys in use.
    fn keys(&self) -> usize;

    /// The session with the device beneath all this; `None` where nothing authenticates it.
    fn secured(&self) -> Option<Secured> {
        None
    }

    /// In how many milliseconds [`tend`](Self::tend) is to be called, counted from now; `None` where
    /// it never is.
    fn tend_after_ms(&self) -> Option<u64> {
        None
    }

    /// Does what keeps the connection alive while nobody uses it.
    ///
    /// # Errors
    /// [`Failure`].
    fn tend(&mut self, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        let _ = exchange;
        Ok(())
    }

    /// All that it holds and that may differ, if it can say so. Functions, settings, and what is the same in
    /// every run are left out.
    fn as_contents(&self) -> Option<&dyn Contents> {
        None
    }
}

/// A session with a device that has proven who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secured {
    /// The numbers of the session in SPDM, the requester's in the low half.
    pub session: u32,
    /// How often it was made anew on this connection, because an exchange was given up.
    pub renewals: u32,
    /// How often its keys were replaced by the next.
    pub key_updates: u32,
}

/// An object of evidence, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceObject {
    /// What it is.
    pub kind: ObjectKind,
    /// Which making of it this is, from 1.
    pub generation: u64,
    /// What it was made over, where that was asked for.
    pub nonce: Option<[u8; NONCE_BYTES]>,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What a TSM holds of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TdiRecord {
    /// The state that the device told last; `None` where it is unknown or there is no TDI.
    pub state: Option<State>,
    /// Private mappings of its memory.
    pub mappings: usize,
    /// Whether the guest had its trusted DMA enabled, where that is a step of its own.
    pub trusted_dma: bool,
    /// Evidence.
    pub objects: Vec<ObjectView>,
}

/// A step that was not done, or may not have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub refusal: Refusal,
    /// What it left.
    pub effect: Effect,
}

/// What a failed step left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: all is as it was.
    None,
    /// It may have been done.
    Unknown,
}

impl Failure {
    /// A step that was not done.
    pub const fn refused(refusal: Refusal) -> Self {
        Self { refusal, effect: Effect::None }
    }

    /// Whether the step may have been done.
    pub fn is_unknown(self) -> bool {
        self.effect == Effect::Unknown
    }

    /// A step that may have been done.
    pub const fn unknown(refusal: Refusal) -> Self {
        Self { refusal, effect: Effect::Unknown }
    }
}

/// The way to one device's security manager. It carries either the payloads of PCI-SIG's messages,
/// whose first byte is the protocol ([`tdisp::payload`]), or data objects ([`spdm::doe`]), as the
/// backend does that it was made for.
pub trait Transport: Send + Sync {
    /// Sends a request. Called with no lock held; at most one is outstanding.
    ///
    /// Answers with `Some` where the answer is there at once, else the answer comes through `reply`,
    /// from any thread that holds no lock: before this returns, later, or never.
    fn submit(&self, request: &[u8], reply: Reply) -> Option<Vec<u8>>;

    /// Gives up what was submitted: it is not to be answered any more. Called with no lock held.
    fn abort(&self);
}

/// How devices are reached.
pub trait Links: Send + Sync {
    /// The way to the security manager of a function; `None` where there is none.
    fn transport(&self, function: Address) -> Option<Arc<dyn Transport>>;

    /// The host's part of the IDE stream between a function and its root port; `None` where nothing
    /// of it is the TSM's to do.
    fn stream(&self, function: Address) -> Option<Arc<dyn Stream>> {
        let _ = function;
        None
    }
}

/// An end of an IDE stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The device's.
    Endpoint,
    /// The host's.
    RootPort,
}

/// The host's part of one IDE stream: the registers of both ends, and the root port's keys. Called
/// with no lock held; nothing here waits for the device.
pub trait Stream: Send + Sync {
    /// Takes a selective stream at both ends and enters who uses it and its number, which is the
    /// first from `wanted` on that the root port has for nobody else. It is not enabled.
    ///
    /// # Errors
    /// [`Refusal::NoStream`] (`EBUSY`) where an end has none left.
    fn allocate(&self, wanted: u8) -> Result<u8, Refusal>;

    /// Gives the root port a key; `key` names it as the root port sees it.
    fn program(&self, key: KeyId, material: &KeyMaterial);

    /// Has the root port use a key.
    fn go(&self, key: KeyId);

    /// Has the root port use a key no more, and forget it.
    fn stop(&self, key: KeyId);

    /// Enables the stream at one end, or not any more.
    fn enable(&self, end: End, stream: u8, enabled: bool);

    /// Gives the stream back at both ends.
    fn release(&self, stream: u8);
}

/// Where random bytes come from.
pub trait Entropy: Send + Sync {
    /// Fills `into` with bytes that nobody can predict.
    fn fill(&self, into: &mut [u8]);
}

/// What is known of a function from its config space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionFacts {
    /// Where it sits.
    pub address: Address,
    /// Bus, device and function number. The segment is 0 on the wire.
    pub requester_id: u16,
    /// The physical function, where this is a virtual one.
    pub physical_function: Option<Address>,
    /// It is a PCIe endpoint, upstream port or root complex integrated endpoint.
    pub endpoint: bool,
    /// TEE-IO: Device Capabilities bit 30.
    pub tee_io: bool,
    /// It has usable IDE.
    pub ide: bool,
    /// It has a mailbox for its security manager: DOE with CMA and secured CMA.
    pub secure_mailbox: bool,
}

impl FunctionFacts {
    /// Whether it may be connected to a TSM: `pf0-capable`.
    pub fn is_connectable(&self) -> bool {
        self.physical_function.is_none()
            && self.endpoint
            && self.address.function() == 0
            && (self.ide || self.tee_io)
    }

    /// The physical function behind it, or itself.
    pub fn physical(&self) -> Address {
        self.physical_function.unwrap_or(self.address)
    }

    /// Whether `dsm`, function 0 of a slot, may be the security manager of this function.
    pub(crate) fn is_of_slot(&self, dsm: Address) -> bool {
        let physical = self.physical();
        (physical.domain, physical.bus, physical.device()) == (dsm.domain, dsm.bus, dsm.device())
    }

    /// Where it stands in the order in which the functions of a slot are walked.
    pub(crate) fn walk_order(&self) -> (u8, bool, Address) {
        (self.physical().function(), self.physical_function.is_some(), self.address)
    }
}
