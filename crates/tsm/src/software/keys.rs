//! The IDE keys of a device's stream: QUERY, six KEY_PROG, six K_SET_GO; K_SET_STOP at the end.
//!
//! Keys are made, sent and forgotten. The root port's half of the stream is not modelled.

use tdisp::PeerFault;
use tdisp::ide_km::{
    Direction, KEY_BYTES, KeyId, KeyKind, KeyMaterial, KeyStatus, Request, Response, SubStream,
};

use super::dialogue::{ask_keys, peer};
use crate::fault::Operation;
use crate::{Entropy, Exchange, Failure, Refusal};

/// The port of an endpoint.
const PORT: u8 = 0;
/// The first value of an IV.
const IV_FIRST: u64 = 1;

/// The keys of one stream.
#[derive(Debug)]
pub(super) struct Keys {
    stream: u8,
    programmed: Vec<KeyId>,
}

impl Keys {
    pub(super) const fn new(stream: u8) -> Self {
        Self { stream, programmed: Vec::new() }
    }

    /// Keys that the device has.
    pub(super) const fn in_use(&self) -> usize {
        self.programmed.len()
    }

    /// Gives the device a key for each sub-stream and direction, and has it use them.
    ///
    /// # Errors
    /// [`Failure`]; [`take_down`](Self::take_down) takes back what was done.
    pub(super) fn set_up(
        &mut self,
        entropy: &dyn Entropy,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        ask_keys(exchange, Operation::Connect, &Request::Query { port: PORT }, |response| {
            let ours = matches!(response, Response::QueryResp { port: PORT, .. });
            if ours { Ok(()) } else { Err(unexpected(&response)) }
        })?;
        for key in self.all() {
            let mut bytes = [0; KEY_BYTES];
            entropy.fill(&mut bytes);
            let request = Request::KeyProg { key, material: KeyMaterial::new(bytes, IV_FIRST) };
            // Counted before the answer: what may be there is taken back.
            self.programmed.push(key);
            let status =
                ask_keys(exchange, Operation::Connect, &request, |response| match response {
                    Response::KeyProgAck { key: told, status } if told == key => Ok(status),
                    Response::QueryResp { .. }
                    | Response::KeyProgAck { .. }
                    | Response::GoStopAck(_) => Err(unexpected(&response)),
                })?;
            if status != KeyStatus::SUCCESS {
                return Err(Failure::refused(Refusal::Key { status: status.0 }));
            }
        }
        for key in self.all() {
            ask_keys(exchange, Operation::Connect, &Request::SetGo(key), |r| acked(key, &r))?;
        }
        Ok(())
    }

    /// Has the device use them no more, as far as it answers, and forgets them.
    pub(super) fn take_down(&mut self, exchange: &mut Exchange<'_>) {
        for key in std::mem::take(&mut self.programmed) {
            let stop = Request::SetStop(key);
            // Nothing hangs on the answer: the keys are gone from this side either way.
            let _ = ask_keys(exchange, Operation::Disconnect, &stop, |r| acked(key, &r));
        }
    }

    fn all(&self) -> [KeyId; 6] {
        let key = |direction, sub_stream| KeyId {
            stream: self.stream,
            kind: KeyKind::new(false, direction, sub_stream),
            port: PORT,
        };
        let [rx, tx] = Direction::ALL;
        let [posted, non_posted, completion] = SubStream::ALL;
        [
            key(rx, posted),
            key(tx, posted),
            key(rx, non_posted),
            key(tx, non_posted),
            key(rx, completion),
            key(tx, completion),
        ]
    }
}

fn acked(key: KeyId, response: &Response<'_>) -> Result<(), Failure> {
    if *response == Response::GoStopAck(key) { Ok(()) } else { Err(unexpected(response)) }
}

/// An answer to another request, or about another key.
fn unexpected(response: &Response<'_>) -> Failure {
    let (field, value) = match response {
        Response::QueryResp { port, .. } => ("QUERY_RESP port", *port),
        Response::KeyProgAck { key, .. } => ("KP_ACK key", key.kind.0),
        Response::GoStopAck(key) => ("K_SET_GOSTOP_ACK key", key.kind.0),
    };
    peer(PeerFault::UnknownValue { message: "IDE_KM response", field, value: value.into() })
}
