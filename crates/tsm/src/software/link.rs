//! What the TSM puts around payloads: nothing, or an SPDM session.
//!
//! A [`Link`] is a connection's [`Way`]. [`Secure`] has the requester, and what the device has shown
//! of itself: its evidence. Every exchange of a session is counted by both sides, so one that was
//! given up ends the session: policy `session-renewed`. Takes no lock.

use std::sync::Arc;

use spdm::Frame;
use spdm::algorithm::{Aead, Group, Suite, Version};
use spdm::certificate::Trust;
use spdm::crypto::{Crypto, CryptoFault};
use spdm::flow::{self, Broken, Plan};
use spdm::message::{Block, CapabilityFlags, Limits, Measurements, OPERATION_ALL, VendorDefined};
use spdm::requester::{Ask, Config, Outcome, Requester};
use tdisp::Nonce;

use super::evidence::Object;
use crate::{Entropy, Exchange, Failure, FunctionFacts, ObjectKind, Refusal, Secured, Way};

/// The slot with the chain that a device is known by.
const SLOT: u8 = 0;
/// The longest message that is received in one piece, in bytes.
const TRANSFER_BYTES_MAX: u32 = 4608;
/// The longest message that is received in chunks, in bytes.
const MESSAGE_BYTES_MAX: u32 = 0x1_0000;
/// Records under one key, after which the next key is taken.
const RECORDS_PER_KEY: u32 = 1 << 20;
/// Heartbeats under one key, likewise.
const HEARTBEATS_PER_KEY: u32 = 32;

/// What the TSM needs to speak SPDM.
#[derive(Clone)]
pub struct Security {
    /// Who computes.
    pub crypto: &'static dyn Crypto,
    /// Who says what a device must show.
    pub authority: Arc<dyn Authority>,
}

/// Who says what a device must show to be connected.
pub trait Authority: Send + Sync {
    /// The policy for the device whose security manager is in this function. Called with no lock
    /// held, whenever a session is made.
    fn policy(&self, dsm: &FunctionFacts) -> Policy;
}

/// What a device must show.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Whose certificates are trusted.
    pub trust: Trust,
    /// Measurements that must be as they are here; `None` where they are taken as they come.
    pub measurements: Option<Vec<Block>>,
    /// Whether the device is challenged before the session, which proves no more than the session
    /// does.
    pub challenge: bool,
}

/// What is around the payloads of a connection.
pub(super) enum Link {
    /// Nothing.
    Bare,
    /// A session.
    Secure(Box<Secure>),
}

impl Link {
    pub(super) fn new(
        dsm: &FunctionFacts,
        security: Option<&Security>,
        entropy: &Arc<dyn Entropy>,
    ) -> Self {
        security.map_or(Self::Bare, |security| {
            Self::Secure(Box::new(Secure::new(*dsm, security.clone(), entropy)))
        })
    }

    /// Makes sure who the device is, where that is asked for.
    ///
    /// # Errors
    /// [`Failure`] without effect.
    pub(super) fn open(&mut self, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        match self {
            Self::Bare => Ok(()),
            Self::Secure(secure) => secure.establish(None, exchange),
        }
    }

    /// Ends the session, as far as the device answers.
    pub(super) fn close(&mut self, exchange: &mut Exchange<'_>) {
        if let Self::Secure(secure) = self {
            secure.end(exchange);
        }
    }

    /// Says that somebody is here, or takes the next keys.
    ///
    /// # Errors
    /// [`Failure`] without effect on any TDI.
    pub(super) fn tend(&mut self, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        match self {
            Self::Bare => Ok(()),
            Self::Secure(secure) => secure.tend(exchange),
        }
    }

    pub(super) fn tend_after_ms(&self) -> Option<u64> {
        let Self::Secure(secure) = self else { return None };
        secure.secured()?;
        (secure.heartbeat_s != 0).then_some(u64::from(secure.heartbeat_s) * 1000 / 2)
    }

    pub(super) fn secured(&self) -> Option<Secured> {
        let Self::Secure(secure) = self else { return None };
        secure.secured()
    }

    /// Whether the session was made anew since this was asked last: what was locked in the one before
    /// is not any more.
    pub(super) fn take_renewed(&mut self) -> bool {
        let Self::Secure(secure) = self else { return false };
        std::mem::take(&mut secure.renewed)
    }

    /// The device's evidence.
    pub(super) fn objects(&self) -> &[Object] {
        match self {
            Self::Bare => &[],
            Self::Secure(secure) => &secure.objects,
        }
    }

    /// Makes an object of the device's evidence afresh: policy `regen-device`.
    ///
    /// # Errors
    /// [`Refusal::NoObject`] without a session, else [`Failure`] without effect on any TDI.
    pub(super) fn regenerate(
        &mut self,
        kind: ObjectKind,
        nonce: Option<Nonce>,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        let Self::Secure(secure) = self else {
            return Err(Failure::refused(Refusal::NoObject { kind }));
        };
        let made = match kind {
            ObjectKind::Measurement => secure.measure(nonce, exchange),
            ObjectKind::Certificate => secure.fetch_chain(exchange),
            ObjectKind::Vca | ObjectKind::InterfaceReport => Ok(()),
        };
        made.map_err(|failure| Failure::refused(failure.refusal))
    }
}

impl Way for Link {
    fn carry(&mut self, payload: &[u8], exchange: &mut Exchange<'_>) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Bare => exchange.send(payload),
            Self::Secure(secure) => secure.carry(payload, exchange),
        }
    }
}

/// A connection with SPDM beneath.
pub(super) struct Secure {
    dsm: FunctionFacts,
    security: Security,
    entropy: Arc<dyn Entropy>,
    requester: Requester,
    policy: Policy,
    objects: Vec<Object>,
    heartbeat_s: u8,
    /// Records and heartbeats under the keys that there are.
    records: u32,
    heartbeats: u32,
    renewals: u32,
    key_updates: u32,
    renewed: bool,
    /// A requester before this one may have left the device a session.
    left: bool,
}

impl Secure {
    fn new(dsm: FunctionFacts, security: Security, entropy: &Arc<dyn Entropy>) -> Self {
        let policy = security.authority.policy(&dsm);
        let requester = requester(&security, &policy, entropy);
        Self {
            dsm,
            security,
            entropy: Arc::clone(entropy),
            requester,
            policy,
            objects: Vec::new(),
            heartbeat_s: 0,
            records: 0,
            heartbeats: 0,
            renewals: 0,
            key_updates: 0,
            renewed: false,
            left: false,
        }
    }

    fn secured(&self) -> Option<Secured> {
        let session = self.requester.session()?.joined();
        let Self { renewals, key_updates, .. } = *self;
        Some(Secured { session, renewals, key_updates })
    }

    /// From VERSION to measurements in a session, all as the policy wants it.
    fn establish(
        &mut self,
        nonce: Option<Nonce>,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        let plan = Plan {
            slot: SLOT,
            challenge: self.policy.challenge,
            nonce: nonce.map(|nonce| nonce.0),
        };
        let established = flow::establish(&mut self.requester, &mut Objects(exchange), &plan);
        // Its answer to the first questions says that it has begun anew.
        self.left &= self.requester.vca().is_none();
        let established = established.map_err(|broken| Failure::refused(refusal(&broken)))?;
        (self.records, self.heartbeats) = (0, 0);
        self.heartbeat_s = established.heartbeat_s;
        if let Err(refusal) = self.judge(&established.measurements) {
            self.end(exchange);
            return Err(Failure::refused(refusal));
        }
        let vca = self.requester.vca().unwrap_or_default().to_vec();
        self.keep(ObjectKind::Vca, vca, None);
        self.keep(ObjectKind::Certificate, established.chain, None);
        self.keep_measurements(nonce);
        Ok(())
    }

    /// A session where there is none: policy `session-renewed`.
    fn renew(&mut self, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        self.policy = self.security.authority.policy(&self.dsm);
        self.replace_requester();
        self.renewed = true;
        self.establish(None, exchange)?;
        self.renewals += 1;
        Ok(())
    }

    fn carry(&mut self, payload: &[u8], exchange: &mut Exchange<'_>) -> Result<Vec<u8>, Failure> {
        self.prepare(exchange).map_err(|failure| Failure::refused(failure.refusal))?;
        let ask = Ask::VendorDefined(VendorDefined::pci_sig(payload.to_vec()));
        let Outcome::VendorDefined(answer) = self.run(&ask, exchange)? else {
            return Err(UNASKED);
        };
        Ok(answer.payload.to_vec())
    }

    /// A session, with keys that are not worn out.
    fn prepare(&mut self, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        if self.requester.session().is_none() {
            self.renew(exchange)?;
        }
        if self.records >= RECORDS_PER_KEY {
            self.update_keys(exchange)?;
        }
        Ok(())
    }

    fn tend(&mut self, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        if self.requester.session().is_none() {
            return Ok(());
        }
        if self.heartbeats >= HEARTBEATS_PER_KEY {
            return self.update_keys(exchange);
        }
        self.heartbeats += 1;
        self.run(&Ask::Heartbeat, exchange).map(drop)
    }

    fn update_keys(&mut self, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        self.run(&Ask::UpdateKeys { both: true }, exchange)?;
        (self.records, self.heartbeats) = (0, 0);
        self.key_updates += 1;
        Ok(())
    }

    fn measure(
        &mut self,
        nonce: Option<Nonce>,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        self.prepare(exchange)?;
        let (operation, signed_by) = (OPERATION_ALL, Some(SLOT));
        let ask = Ask::Measurements { operation, signed_by, nonce: nonce.map(|nonce| nonce.0) };
        let Outcome::Measurements(_) = self.run(&ask, exchange)? else { return Err(UNASKED) };
        self.keep_measurements(nonce);
        Ok(())
    }

    fn fetch_chain(&mut self, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        self.prepare(exchange)?;
        let Outcome::Certificate(chain) = self.run(&Ask::Certificate { slot: SLOT }, exchange)?
        else {
            return Err(UNASKED);
        };
        self.keep(ObjectKind::Certificate, chain, None);
        Ok(())
    }

    fn end(&mut self, exchange: &mut Exchange<'_>) {
        // Nothing hangs on the answers: the keys are gone from this side either way.
        if self.requester.session().is_some() {
            let _ = self.run(&Ask::EndSession, exchange);
        }
        self.replace_requester();
        if std::mem::take(&mut self.left) {
            // Nobody here has its keys any more, so the device is asked to begin anew.
            let _ = self.run(&Ask::Connect, exchange);
            self.replace_requester();
        }
        self.objects.clear();
    }

    fn replace_requester(&mut self) {
        self.left |= self.requester.has_begun_session();
        self.requester = requester(&self.security, &self.policy, &self.entropy);
    }

    fn run(&mut self, ask: &Ask, exchange: &mut Exchange<'_>) -> Result<Outcome, Failure> {
        self.records = self.records.saturating_add(1);
        let ran = flow::run(&mut self.requester, &mut Objects(exchange), ask);
        let goes_on = self.requester.session().is_some();
        ran.map_err(|broken| match broken {
            Broken::Link(failure) => failure,
            Broken::Exchange(error) => {
                let refusal = Refusal::from(&error);
                // A refusal that no key protects may be anybody's.
                let told = matches!(error, spdm::Error::Said { .. }) && goes_on;
                let unsent = error.blame() != spdm::Blame::Peer;
                if told || unsent { Failure::refused(refusal) } else { Failure::unknown(refusal) }
            }
        })
    }

    fn judge(&self, shown: &Measurements) -> Result<(), Refusal> {
        let expected = self.policy.measurements.as_deref().unwrap_or_default();
        match expected.iter().find(|block| !shown.blocks.contains(block)) {
            Some(block) => Err(Refusal::Measurement { index: block.index }),
            None => Ok(()),
        }
    }

    fn keep_measurements(&mut self, nonce: Option<Nonce>) {
        let signed = self.requester.signed_measurements().unwrap_or_default().to_vec();
        self.keep(ObjectKind::Measurement, signed, nonce);
    }

    fn keep(&mut self, kind: ObjectKind, bytes: Vec<u8>, nonce: Option<Nonce>) {
        let before = self.objects.iter().position(|object| object.kind == kind);
        let generation = before.map_or(0, |at| self.objects.swap_remove(at).generation) + 1;
        self.objects.push(Object { kind, generation, nonce, bytes });
        self.objects.sort_by_key(|object| object.kind);
    }
}

/// The exchange's messages as data objects.
struct Objects<'x, 'e>(&'x mut Exchange<'e>);

impl flow::Link for Objects<'_, '_> {
    type Fault = Failure;

    fn exchange(&mut self, frame: &Frame) -> Result<Frame, Failure> {
        let object = frame.to_object();
        let object = object.map_err(|fault| Failure::refused(Refusal::SpdmStep(fault)))?;
        let answer = self.0.send(&object)?;
        Frame::from_object(&answer).map_err(|fault| Failure::unknown(Refusal::Spdm(fault)))
    }

    fn wait(&mut self, time_us: u64) -> Result<(), Failure> {
        self.0.pause(time_us.div_ceil(1000))
    }
}

/// Random bytes of the TSM's.
struct Drawn(Arc<dyn Entropy>);

impl spdm::crypto::Entropy for Drawn {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), CryptoFault> {
        self.0.fill(bytes);
        Ok(())
    }
}

fn requester(security: &Security, policy: &Policy, entropy: &Arc<dyn Entropy>) -> Requester {
    let flags = CapabilityFlags::CERTIFICATE
        | CapabilityFlags::CHALLENGE
        | CapabilityFlags::ENCRYPT
        | CapabilityFlags::MAC
        | CapabilityFlags::KEY_EXCHANGE
        | CapabilityFlags::HEARTBEAT
        | CapabilityFlags::KEY_UPDATE
        | CapabilityFlags::CHUNK;
    let config = Config {
        versions: Version::ALL.to_vec(),
        limits: Limits {
            timeout_exponent: 0,
            flags,
            transfer_bytes_max: TRANSFER_BYTES_MAX,
            message_bytes_max: MESSAGE_BYTES_MAX,
        },
        suites: Suite::ALL.to_vec(),
        groups: Group::ALL.to_vec(),
        aeads: Aead::ALL.to_vec(),
        trust: policy.trust.clone(),
    };
    Requester::new(security.crypto, Box::new(Drawn(Arc::clone(entropy))), config)
}

fn refusal(broken: &Broken<Failure>) -> Refusal {
    match broken {
        Broken::Exchange(error) => error.into(),
        Broken::Link(failure) => failure.refusal,
    }
}

/// The outcome of another exchange, which [`flow::run`] does not give.
const UNASKED: Failure = Failure::unknown(Refusal::SpdmStep(spdm::Refusal::WrongState));
