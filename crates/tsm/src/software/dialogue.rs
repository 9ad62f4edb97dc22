//! One request, and what its answer is worth.
//!
//! An ERROR response means that nothing was done. An answer that the protocol does not allow means
//! that nobody knows. BUSY is asked again until the exchange's deadline: policy `busy-again`.

use tdisp::ide_km;
use tdisp::payload::{self, ProtocolId};
use tdisp::{EncodeFault, ErrorCode, PeerFault, Refused, RequestBody, Requester};

use crate::fault::Operation;
use crate::{Exchange, Failure, Refusal};

/// Room for every request that is sent here: KEY_PROG is the longest.
const REQUEST_BYTES_MAX: usize = 128;
/// Between a BUSY and the next try.
const BUSY_PAUSE_MS: u64 = 10;

/// Asks about an interface; `read` takes what it needs of the response.
///
/// # Errors
/// [`Failure`].
pub(super) fn ask<'b, B: RequestBody<'b>, T>(
    exchange: &mut Exchange<'_>,
    operation: Operation,
    requester: Requester,
    request: &B,
    read: impl FnOnce(B::Response<'_>) -> T,
) -> Result<T, Failure> {
    let payload = compose(ProtocolId::TDISP, |into| requester.request(request, into))?;
    loop {
        let answer = exchange.ask(operation, &payload)?;
        let message = split(ProtocolId::TDISP, &answer)?;
        match requester.response::<B>(message) {
            Ok(response) => return Ok(read(response)),
            Err(Refused::Error { code: ErrorCode::BUSY, .. }) => exchange.pause(BUSY_PAUSE_MS)?,
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
    exchange: &mut Exchange<'_>,
    operation: Operation,
    request: &ide_km::Request,
    read: impl FnOnce(ide_km::Response<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let payload = compose(ProtocolId::IDE_KM, |into| request.encode(into))?;
    let answer = exchange.ask(operation, &payload)?;
    let message = split(ProtocolId::IDE_KM, &answer)?;
    read(ide_km::Response::decode(message).map_err(peer)?)
}

/// An answer that the protocol does not allow.
pub(super) const fn peer(fault: PeerFault) -> Failure {
    Failure::unknown(Refusal::Peer(fault))
}

fn compose(
    protocol: ProtocolId,
    write: impl FnOnce(&mut [u8]) -> Result<usize, EncodeFault>,
) -> Result<Vec<u8>, Failure> {
    let mut payload = vec![0; REQUEST_BYTES_MAX];
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
