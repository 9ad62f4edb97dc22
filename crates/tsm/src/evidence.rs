//! What the host reads of a device that is connected: certificates, measurements, reports.
//!
//! A guest asks for the same through [`Registry::request`]; this is the administrator's way, who needs no TDI. Takes
//! [`rank::TsmRegistry`](sync::rank::TsmRegistry), then [`rank::Dsm`](sync::rank::Dsm), each for a look; holds nothing while
//! the device is spoken to. Source: the generic-netlink family `pci-tsm` as posted in March 2026.

use pci::Address;
use tdisp::Nonce;
use tdisp::exchange::NONCE_BYTES;

use crate::line::{Call, Record, Turn};
use crate::registry::Found;
use crate::{EvidenceObject, Refusal, Registry};

impl Registry {
    /// The evidence about a function: that of its device, and the report of its interface where it is locked. With a
    /// nonce, the device measures itself afresh, and signs over it. Waits for the exchange slot.
    ///
    /// # Errors
    /// - [`Refusal::NotConnected`] – no TSM context (`EINVAL`).
    /// - [`Refusal::NoObject`] – a nonce, and no session to ask in (`ENODATA`).
    /// - what the device answers, or that it does not.
    pub fn evidence(
        &self,
        function: Address,
        nonce: Option<[u8; NONCE_BYTES]>,
    ) -> Result<Vec<EvidenceObject>, Refusal> {
        let not_connected = Refusal::NotConnected { function };
        let Found { line, facts, faults } = self.find(function).ok_or(not_connected)?;
        let call = Call { function, operation: "evidence", urgent: false, cancel: None, faults };
        let settle = |record: &Record| record.admits(function).is_none().then_some(not_connected);
        let mut claimed = match line.claim(&call, settle, |_| {}) {
            Turn::Ours(claimed) => claimed,
            Turn::Settled(refusal) => return Err(refusal),
            Turn::Ended => return Err(not_connected),
        };
        let nonce = nonce.map(Nonce);
        let shown = claimed.session.evidence(&facts, nonce, &mut claimed.exchange);
        let tdi = claimed.session.record(&facts);
        claimed.finish(|record| {
            if let Some(place) = record.places.get_mut(&function) {
                place.tdi = tdi;
            }
        });
        shown.map_err(|failure| failure.refusal)
    }
}
