//! The IDE stream of a device: its registers at both ends, a key for each sub-stream and direction.
//!
//! The order is that of \[PCIe\] 6.33: numbers into both ends, keys into both ends, keys into use,
//! then the endpoint is enabled, then the root port. The end goes backwards. Keys are made, sent and
//! forgotten.

use std::sync::Arc;

use tdisp::PeerFault;
use tdisp::ide_km::{
    Direction, KEY_BYTES, KeyId, KeyKind, KeyMaterial, KeyStatus, Request, Response, SubStream,
};
use zeroize::Zeroizing;

use super::dialogue::{Dialogue, peer};
use crate::fault::Operation;
use crate::{End, Entropy, Failure, Refusal, Stream};

/// The port of an endpoint.
const PORT: u8 = 0;
/// The first value of an IV.
const IV_FIRST: u64 = 1;

/// The keys of one stream.
pub(super) struct Keys {
    stream: u8,
    /// The host's part, once it is taken.
    host: Option<Arc<dyn Stream>>,
    programmed: Vec<KeyId>,
}

impl Keys {
    pub(super) const fn new(stream: u8) -> Self {
        Self { stream, host: None, programmed: Vec::new() }
    }

    /// Keys that the device has.
    pub(super) const fn in_use(&self) -> usize {
        self.programmed.len()
    }

    /// The stream's number.
    pub(super) const fn stream(&self) -> u8 {
        self.stream
    }

    /// Gives both ends a key for each sub-stream and direction, has them use these, and enables the
    /// stream.
    ///
    /// # Errors
    /// [`Failure`]; [`take_down`](Self::take_down) takes back what was done.
    pub(super) fn set_up(
        &mut self,
        host: Option<Arc<dyn Stream>>,
        entropy: &dyn Entropy,
        dialogue: &mut Dialogue<'_, '_>,
    ) -> Result<(), Failure> {
        dialogue.ask_keys(Operation::Connect, &Request::Query { port: PORT }, |response| {
            let ours = matches!(response, Response::QueryResp { port: PORT, .. });
            if ours { Ok(()) } else { Err(unexpected(&response)) }
        })?;
        if let Some(host) = &host {
            self.stream = host.allocate(self.stream).map_err(Failure::refused)?;
        }
        self.host = host;
        for key in self.all() {
            self.program(key, entropy, dialogue)?;
        }
        for key in self.all() {
            dialogue.ask_keys(Operation::Connect, &Request::SetGo(key), |r| acked(key, &r))?;
            if let Some(host) = &self.host {
                host.go(mirrored(key));
            }
        }
        if let Some(host) = &self.host {
            host.enable(End::Endpoint, self.stream, true);
            host.enable(End::RootPort, self.stream, true);
        }
        Ok(())
    }

    /// Disables the stream, has both ends use its keys no more, the device as far as it answers, and
    /// forgets them.
    pub(super) fn take_down(&mut self, dialogue: &mut Dialogue<'_, '_>) {
        let host = self.host.take();
        if let Some(host) = &host {
            host.enable(End::RootPort, self.stream, false);
            host.enable(End::Endpoint, self.stream, false);
        }
        for key in std::mem::take(&mut self.programmed) {
            let stop = Request::SetStop(key);
            // Nothing hangs on the answer: the keys are gone from this side either way.
            let _ = dialogue.ask_keys(Operation::Disconnect, &stop, |r| acked(key, &r));
            if let Some(host) = &host {
                host.stop(mirrored(key));
            }
        }
        if let Some(host) = &host {
            host.release(self.stream);
        }
    }

    fn program(
        &mut self,
        key: KeyId,
        entropy: &dyn Entropy,
        dialogue: &mut Dialogue<'_, '_>,
    ) -> Result<(), Failure> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        entropy.fill(&mut *bytes);
        let material = KeyMaterial::new(*bytes, IV_FIRST);
        let request = Request::KeyProg { key, material: material.clone() };
        // Counted before the answer: what may be there is taken back.
        self.programmed.push(key);
        let status =
            dialogue.ask_keys(Operation::Connect, &request, |response| match response {
                Response::KeyProgAck { key: told, status } if told == key => Ok(status),
                Response::QueryResp { .. }
                | Response::KeyProgAck { .. }
                | Response::GoStopAck(_) => Err(unexpected(&response)),
            })?;
        if status != KeyStatus::SUCCESS {
            return Err(Failure::refused(Refusal::Key { status: status.0 }));
        }
        if let Some(host) = &self.host {
            host.program(mirrored(key), &material);
        }
        Ok(())
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

/// The key as the other end sees it: what one sends with, the other receives with.
fn mirrored(key: KeyId) -> KeyId {
    let direction = match key.kind.direction() {
        Direction::Receive => Direction::Transmit,
        Direction::Transmit => Direction::Receive,
    };
    let sub_stream = key.kind.sub_stream().unwrap_or(SubStream::Posted);
    KeyId { kind: KeyKind::new(key.kind.set(), direction, sub_stream), ..key }
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
