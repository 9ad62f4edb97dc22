//! One request, and what its answer is worth.
//!
//! An ERROR response means that nothing was done. An answer that the protocol does not allow means
//! that nobody knows. BUSY is asked again until the exchange's deadline: policy `busy-again`.

use tdisp::ide_km;
use tdisp::payload::{self, ProtocolId};
use tdisp::{EncodeFault, ErrorCode, PeerFault, Refused, RequestBody, Requester};
use zeroize::Zeroizing;

use crate::fault::Operation;
use crate::{Exchange, Failure, Refusal, Way};

/// Room for every request that is sent here: KEY_PROG is the longest.
const REQUEST_BYTES_MAX: usize = 128;
/// Between a BUSY and the next try.
const BUSY_PAUSE_MS: u64 = 10;

/// One call's turn, and what the connection puts around payloads.
pub(super) struct Dialogue<'d, 'e> {
    exchange: &'d mut Exchange<'e>,
    way: &'d mut dyn Way,
}

impl<'d, 'e> Dialogue<'d, 'e> {
    pub(super) fn new(exchange: &'d mut Exchange<'e>, way: &'d mut dyn Way) -> Self {
        Self { exchange, way }
    }

    /// Asks about an interface; `read` takes what it needs of the response.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn ask<'b, B: RequestBody<'b>, T>(
        &mut self,
        operation: Operation,
        requester: Requester,
        request: &B,
        read: impl FnOnce(B::Response<'_>) -> T,
    ) -> Result<T, Failure> {
        let payload = compose(ProtocolId::TDISP, |into| requester.request(request, into))?;
        loop {
            let answer = self.exchange.ask(operation, &payload, self.way)?;
            let message = split(ProtocolId::TDISP, &answer)?;
            match requester.response::<B>(message) {
                Ok(response) => return Ok(read(response)),
                Err(Refused::Error { code: ErrorCode::BUSY, .. }) => {
                    self.exchange.pause(BUSY_PAUSE_MS)?;
                }
                Err(Refused::Error { code, data }) => {
                    return Err(Failure::refused(Refusal::Device { code, data }));
                }
                Err(Refused::Fault(fault)) => return Err(Failure::unknown(Refusal::Peer(fault))),
            }
        }
    }

    /// Asks about keys.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn ask_keys<T>(
        &mut self,
        operation: Operation,
        request: &ide_km::Request,
        read: impl FnOnce(ide_km::Response<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let payload = compose(ProtocolId::IDE_KM, |into| request.encode(into))?;
        let answer = self.exchange.ask(operation, &payload, self.way)?;
        let message = split(ProtocolId::IDE_KM, &answer)?;
        read(ide_km::Response::decode(message).map_err(peer)?)
    }

    /// Whether a fault struck the last message that was asked.
    pub(super) fn was_struck(&self) -> bool {
        self.exchange.was_struck()
    }
}

/// An answer that the protocol does not allow.
pub(super) const fn peer(fault: PeerFault) -> Failure {
    Failure::unknown(Refusal::Peer(fault))
}

fn compose(
    protocol: ProtocolId,
    write: impl FnOnce(&mut [u8]) -> Result<usize, EncodeFault>,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut payload = Zeroizing::new(vec![0; REQUEST_BYTES_MAX]);
    let length = payload::join(protocol, &mut payload, write);
    let too_long = Refusal::NoRoom { needed: REQUEST_BYTES_MAX, room: 0 };
    payload.truncate(length.map_err(|_| Failure::refused(too_long))?);
    Ok(payload)
}

fn split(expected: ProtocolId, answer: &[u8]) -> Result<&[u8], Failure> {
    let (found, message) = payload::split(answer).map_err(peer)?;
    if found != expected {
        return Err(peer(PeerFault::UnknownValue {
            message: "PCI-SIG payload",
            field: "protocol id",
            value: found.0.into(),
        }));
    }
    Ok(message)
}
