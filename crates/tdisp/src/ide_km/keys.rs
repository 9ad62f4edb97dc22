//! A device's side of IDE_KM: which keys its ports have.
//!
//! Keeps for each key whether it is programmed and whether it is in use, not the key. A stream is
//! secure while each direction and sub-stream has a key in use.

use thiserror::Error;

use super::{Direction, KeyId, KeyStatus, Request, Response, SubStream, object};
use crate::{EncodeFault, PeerFault, Reader};

/// The first value of an IV. tee-io-validator 2.5 has any other refused.
const IV_FIRST: u64 = 1;
/// Bytes of what answers a request that changes something.
const ACK_BYTES: usize = 7;
/// Sets, directions and sub-streams of a stream.
const KEYS: usize = 2 * 2 * 3;

/// The keys of at most `STREAMS` streams.
#[derive(Debug)]
pub struct KeyTable<const STREAMS: usize> {
    streams: [Option<Stream>; STREAMS],
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    port: u8,
    stream: u8,
    programmed: [bool; KEYS],
    used: [bool; KEYS],
}

/// A response, and what the request took away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyAnswer {
    /// Bytes of the response.
    pub length: usize,
    /// The stream that was secure and is so no more: [`crate::Breach::StreamInsecure`].
    pub lost_stream: Option<u8>,
}

/// What the table asks of the device about its ports.
pub trait Port {
    /// The highest index of a port.
    fn port_max(&self) -> u8;

    /// Where a port is.
    fn location(&self, port: u8) -> PortLocation;

    /// The registers of a port's IDE extended capability, from its second dword on.
    fn registers(&self, port: u8) -> &[u8];

    /// Whether a stream of this number is set up at the port.
    fn has_stream(&self, port: u8, stream: u8) -> bool;
}

/// Where a port is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortLocation {
    /// Device and function number.
    pub devfn: u8,
    /// The bus.
    pub bus: u8,
    /// The segment: 0 where the device knows none.
    pub segment: u8,
}

/// A message for which IDE_KM has no answer; SPDM answers ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoAnswer {
    /// It is no request, or of the wrong length.
    #[error(transparent)]
    Malformed(#[from] PeerFault),
    /// There is no such port.
    #[error("port {port} asked for, {port_max} is the last")]
    NoPort {
        /// The port asked for.
        port: u8,
        /// The last port.
        port_max: u8,
    },
    /// The key to be used was never programmed: policy `key-set-go`.
    #[error("key {:#04x} of stream {} at port {} is not programmed", key.kind.0, key.stream, key.port)]
    NotProgrammed {
        /// The key.
        key: KeyId,
    },
    /// The answer cannot be written.
    #[error(transparent)]
    NoRoom(#[from] EncodeFault),
}

impl<const STREAMS: usize> KeyTable<STREAMS> {
    /// A table without keys.
    pub const fn new() -> Self {
        Self { streams: [None; STREAMS] }
    }

    /// Answers `request` and writes the response to `into`.
    ///
    /// # Errors
    /// [`NoAnswer`]; the request then did nothing.
    pub fn respond(
        &mut self,
        request: &[u8],
        ports: &impl Port,
        into: &mut [u8],
    ) -> Result<KeyAnswer, NoAnswer> {
        if into.len() < ACK_BYTES {
            return Err(EncodeFault::NoRoom { needed: ACK_BYTES, room: into.len() }.into());
        }
        let mut lost_stream = None;
        let response = match Request::decode(request) {
            Ok(Request::Query { port }) => {
                check_port(port, ports)?;
                let (location, port_max) = (ports.location(port), ports.port_max());
                let registers = ports.registers(port);
                Response::QueryResp { port, location, port_max, registers }
            }
            Ok(Request::KeyProg { key, material }) => {
                let status = self.program(key, material.iv(), ports);
                Response::KeyProgAck { key, status }
            }
            Ok(Request::SetGo(key)) => {
                self.set_go(key, ports)?;
                Response::GoStopAck(key)
            }
            Ok(Request::SetStop(key)) => {
                let was_secure = self.is_secure(key.port, key.stream);
                self.set_stop(key, ports)?;
                if was_secure && !self.is_secure(key.port, key.stream) {
                    lost_stream = Some(key.stream);
                }
                Response::GoStopAck(key)
            }
            Err(fault) => {
                let key = key_of_misshaped(request).ok_or(fault)?;
                Response::KeyProgAck { key, status: KeyStatus::INCORRECT_LENGTH }
            }
        };
        Ok(KeyAnswer { length: response.encode(into)?, lost_stream })
    }

    /// Forgets all keys, as a conventional reset or the end of the session does.
    pub fn clear(&mut self) {
        self.streams = [None; STREAMS];
    }

    /// How many keys are programmed.
    pub fn keys(&self) -> usize {
        let programmed = |stream: &Stream| stream.programmed.iter().filter(|one| **one).count();
        self.streams.iter().flatten().map(programmed).sum()
    }

    /// Whether each direction and sub-stream of the stream has a key in use.
    pub fn is_secure(&self, port: u8, stream: u8) -> bool {
        let mut streams = self.streams.iter().flatten();
        streams.any(|s| s.port == port && s.stream == stream && s.is_secure())
    }

    fn program(&mut self, key: KeyId, iv: u64, ports: &impl Port) -> KeyStatus {
        if key.port > ports.port_max() {
            return KeyStatus::UNSUPPORTED_PORT;
        }
        let Some(index) = key.index().filter(|_| iv == IV_FIRST) else {
            return KeyStatus::UNSUPPORTED_VALUE;
        };
        if !ports.has_stream(key.port, key.stream) {
            return KeyStatus::UNSUPPORTED_VALUE;
        }
        let Some(programmed) = self.stream_or_new(key).and_then(|s| s.programmed.get_mut(index))
        else {
            return KeyStatus::UNSPECIFIED;
        };
        *programmed = true;
        KeyStatus::SUCCESS
    }

    fn set_go(&mut self, key: KeyId, ports: &impl Port) -> Result<(), NoAnswer> {
        check_port(key.port, ports)?;
        let not_programmed = NoAnswer::NotProgrammed { key };
        let index = key.index().ok_or(not_programmed)?;
        let stream = self.stream(key).ok_or(not_programmed)?;
        if stream.programmed.get(index) != Some(&true) {
            return Err(not_programmed);
        }
        if let Some(used) = stream.used.get_mut(index) {
            *used = true;
        }
        Ok(())
    }

    fn set_stop(&mut self, key: KeyId, ports: &impl Port) -> Result<(), NoAnswer> {
        check_port(key.port, ports)?;
        if let (Some(index), Some(stream)) = (key.index(), self.stream(key)) {
            for flags in [&mut stream.programmed, &mut stream.used] {
                if let Some(flag) = flags.get_mut(index) {
                    *flag = false;
                }
            }
        }
        Ok(())
    }

    fn stream(&mut self, key: KeyId) -> Option<&mut Stream> {
        let mut streams = self.streams.iter_mut().flatten();
        streams.find(|s| s.port == key.port && s.stream == key.stream)
    }

    /// The stream of a key; where it has none yet, in the place of one that has no key left.
    fn stream_or_new(&mut self, key: KeyId) -> Option<&mut Stream> {
        if self.stream(key).is_none() {
            let empty =
                |place: &&mut Option<Stream>| place.is_none_or(|s| !s.programmed.contains(&true));
            let (port, stream) = (key.port, key.stream);
            *self.streams.iter_mut().find(empty)? =
                Some(Stream { port, stream, programmed: [false; KEYS], used: [false; KEYS] });
        }
        self.stream(key)
    }
}

impl<const STREAMS: usize> Default for KeyTable<STREAMS> {
    fn default() -> Self {
        Self::new()
    }
}

impl Stream {
    fn is_secure(&self) -> bool {
        let used = |index: usize| self.used.get(index) == Some(&true);
        Direction::ALL.into_iter().all(|direction| {
            SubStream::ALL
                .into_iter()
                .all(|sub| [false, true].into_iter().any(|set| used(index(set, direction, sub))))
        })
    }
}

impl KeyId {
    fn index(self) -> Option<usize> {
        let sub_stream = self.kind.sub_stream()?;
        Some(index(self.kind.set(), self.kind.direction(), sub_stream))
    }
}

fn index(set: bool, direction: Direction, sub_stream: SubStream) -> usize {
    let transmit = direction == Direction::Transmit;
    usize::from(set) * 6 + usize::from(transmit) * 3 + usize::from(sub_stream as u8)
}

fn check_port(port: u8, ports: &impl Port) -> Result<(), NoAnswer> {
    let port_max = ports.port_max();
    if port > port_max {
        return Err(NoAnswer::NoPort { port, port_max });
    }
    Ok(())
}

/// What a KEY_PROG of the wrong length is about, where it says so.
fn key_of_misshaped(request: &[u8]) -> Option<KeyId> {
    let key = Reader::all("KEY_PROG", request, |reader| {
        let object = reader.u8()?;
        let (key, _) = KeyId::read(reader)?;
        reader.rest();
        Ok((object, key))
    });
    key.ok().filter(|(object, _)| *object == object::KEY_PROG).map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::super::{KeyKind, KeyMaterial};
    use super::*;

    struct OnePort;

    impl Port for OnePort {
        fn port_max(&self) -> u8 {
            0
        }

        fn location(&self, _: u8) -> PortLocation {
            PortLocation { devfn: 8, bus: 1, segment: 0 }
        }

        fn registers(&self, _: u8) -> &[u8] {
            &[1, 2, 3, 4]
        }

        fn has_stream(&self, _: u8, stream: u8) -> bool {
            stream < 3
        }
    }

    type Table = KeyTable<2>;

    fn ask(table: &mut Table, request: Request) -> Result<Vec<u8>, NoAnswer> {
        let mut message = [0; 64];
        let length = request.encode(&mut message).unwrap();
        ask_bytes(table, &message[..length])
    }

    fn ask_bytes(table: &mut Table, request: &[u8]) -> Result<Vec<u8>, NoAnswer> {
        let mut answer = [0; 64];
        let length = table.respond(request, &OnePort, &mut answer)?.length;
        Ok(answer[..length].to_vec())
    }

    fn program(table: &mut Table, key: KeyId, iv: u64) -> KeyStatus {
        let material = KeyMaterial::new([7; 32], iv);
        let answer = ask(table, Request::KeyProg { key, material }).unwrap();
        match Response::decode(&answer) {
            Ok(Response::KeyProgAck { key: told, status }) if told == key => status,
            other => panic!("{other:?}"),
        }
    }

    fn keys(stream: u8, set: bool) -> impl Iterator<Item = KeyId> {
        let subs = SubStream::ALL.into_iter();
        subs.flat_map(move |sub| {
            let kinds = Direction::ALL.map(|direction| KeyKind::new(set, direction, sub));
            kinds.map(|kind| KeyId { stream, kind, port: 0 })
        })
    }

    #[test]
    fn a_stream_is_secure_once_six_keys_are_used() {
        let mut table = Table::new();
        for (count, key) in keys(2, false).enumerate() {
            assert!(!table.is_secure(0, 2), "{count} keys");
            assert_eq!(program(&mut table, key, 1), KeyStatus::SUCCESS);
            assert!(!table.is_secure(0, 2));
            let answer = ask(&mut table, Request::SetGo(key)).unwrap();
            assert_eq!(Response::decode(&answer), Ok(Response::GoStopAck(key)));
        }
        assert!(table.is_secure(0, 2));
        assert_eq!(table.keys(), 6);
        assert!(!table.is_secure(0, 1));
        for key in keys(2, true) {
            program(&mut table, key, 1);
            ask(&mut table, Request::SetGo(key)).unwrap();
        }
        for key in keys(2, false) {
            ask(&mut table, Request::SetStop(key)).unwrap();
            assert!(table.is_secure(0, 2), "the other set is in use");
        }
        let (mut message, mut answer) = ([0; 64], [0; 64]);
        let stop = Request::SetStop(keys(2, true).next().unwrap()).encode(&mut message).unwrap();
        let mut lost =
            || table.respond(&message[..stop], &OnePort, &mut answer).unwrap().lost_stream;
        assert_eq!((lost(), lost()), (Some(2), None));
        assert!(!table.is_secure(0, 2));
    }

    #[test]
    fn each_wrong_key_has_its_status() {
        let mut table = Table::new();
        let key = keys(1, false).next().unwrap();
        assert_eq!(program(&mut table, KeyId { port: 1, ..key }, 9), KeyStatus::UNSUPPORTED_PORT);
        assert_eq!(program(&mut table, key, 0), KeyStatus::UNSUPPORTED_VALUE);
        assert_eq!(
            program(&mut table, KeyId { stream: 3, ..key }, 1),
            KeyStatus::UNSUPPORTED_VALUE
        );
        for sub in 3..=15 {
            let key = KeyId { kind: KeyKind(sub << 4), ..key };
            assert_eq!(program(&mut table, key, 1), KeyStatus::UNSUPPORTED_VALUE);
        }
        let ack = |status| Ok([3, 0, 0, 1, status, 0, 0].to_vec());
        for length in (8..=40).step_by(4).chain([7, 46, 48, 52]) {
            let mut message = [0; 64];
            message[0] = 2;
            message[3] = 1;
            assert_eq!(ask_bytes(&mut table, &message[..length]), ack(1), "{length}");
        }
        assert!(ask_bytes(&mut table, &[2, 0, 0, 1]).is_err());
    }

    #[test]
    fn what_was_never_programmed_is_not_used() {
        let mut table = Table::new();
        let key = keys(1, false).next().unwrap();
        let refused = Err(NoAnswer::NotProgrammed { key });
        assert_eq!(ask(&mut table, Request::SetGo(key)), refused);
        assert_eq!(program(&mut table, key, 1), KeyStatus::SUCCESS);
        assert!(ask(&mut table, Request::SetGo(key)).is_ok());
        table.clear();
        assert_eq!(table.keys(), 0);
        assert_eq!(ask(&mut table, Request::SetGo(key)), refused);
    }

    #[test]
    fn streams_without_keys_make_room() {
        let mut table = Table::new();
        let key = |stream| keys(stream, false).next().unwrap();
        assert_eq!(program(&mut table, key(0), 1), KeyStatus::SUCCESS);
        assert_eq!(program(&mut table, key(1), 1), KeyStatus::SUCCESS);
        assert_eq!(program(&mut table, key(2), 1), KeyStatus::UNSPECIFIED);
        ask(&mut table, Request::SetStop(key(0))).unwrap();
        assert_eq!(program(&mut table, key(2), 1), KeyStatus::SUCCESS);
    }

    #[test]
    fn a_query_tells_where_the_port_is() {
        let mut table = Table::new();
        let answer = ask(&mut table, Request::Query { port: 0 });
        assert_eq!(answer, Ok([1, 0, 0, 8, 1, 0, 0, 1, 2, 3, 4].to_vec()));
        let refused = Err(NoAnswer::NoPort { port: 1, port_max: 0 });
        assert_eq!(ask(&mut table, Request::Query { port: 1 }), refused);
    }
}
