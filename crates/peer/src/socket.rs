//! DOE objects over TCP, framed as spdm-emu frames them: its tools, and QEMU's `spdm_port=`, speak so.
//!
//! A frame is twelve bytes, command, transport and length in big-endian words, and a payload. Each
//! frame is written at once, without delay; acknowledgements are asked for at once before each read, as
//! a peer that writes a frame in pieces else waits 40 ms for each. Takes no lock.
//!
//! Source: the frames of spdm-emu, as they were seen.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use rustix::net::sockopt;
use thiserror::Error;

/// The port that such tools take.
pub const PORT: u16 = 2323;
/// The most bytes of a payload that are taken: any DOE object.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

const HEADER_BYTES: usize = 12;

/// What a frame asks, as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command(pub u32);

impl Command {
    /// The payload is an object.
    pub const NORMAL: Self = Self(0x0001);
    /// Somebody looks whether anyone listens.
    pub const TEST: Self = Self(0xdead);
    /// The connection ends, and the next one goes on with what was.
    pub const CONTINUE: Self = Self(0xfffd);
    /// The responder is to end.
    pub const SHUTDOWN: Self = Self(0xfffe);
    /// The answer to a command that nobody knows.
    pub const UNKNOWN: Self = Self(0xffff);
}

/// What payloads are of, as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport(pub u32);

impl Transport {
    /// Whole DOE objects.
    pub const PCI_DOE: Self = Self(2);
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it asks.
    pub command: Command,
    /// What the payload is of.
    pub transport: Transport,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Message {
    /// A DOE object.
    pub fn object(object: Vec<u8>) -> Self {
        Self { command: Command::NORMAL, transport: Transport::PCI_DOE, payload: object }
    }

    fn bare(command: Command) -> Self {
        Self { command, transport: Transport::PCI_DOE, payload: Vec::new() }
    }

    /// The answer of a responder to TEST.
    fn hello() -> Self {
        Self { payload: b"Server Hello!\0".to_vec(), ..Self::bare(Command::TEST) }
    }
}

/// Why nothing came over a socket.
#[derive(Debug, Error)]
pub enum SocketFault {
    /// Nobody is there.
    #[error("nobody answers at {address}: {error}")]
    NoPeer {
        /// Where.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// The peer closed the connection.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer said nothing for so long.
    #[error("the peer says nothing for {} s", .after.as_secs_f32())]
    Silent {
        /// How long was waited.
        after: Duration,
    },
    /// A frame that says something else than an object.
    #[error("the peer answers command {:#06x} of transport {}", .command.0, .transport.0)]
    NoObject {
        /// The command.
        command: Command,
        /// The transport.
        transport: Transport,
    },
    /// A frame longer than any object.
    #[error("a frame of {bytes} bytes, at most {PAYLOAD_BYTES_MAX} are taken")]
    Oversized {
        /// Its bytes.
        bytes: usize,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
}

/// A connection to the other side.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    patience: Option<Duration>,
    /// Something went wrong: nobody knows where the next frame would begin.
    broken: bool,
    /// A whole frame has come.
    heard: bool,
}

impl Connection {
    /// Connects to a responder; `patience` is how long an answer may take.
    ///
    /// # Errors
    /// [`SocketFault::NoPeer`].
    pub fn to(address: &str, patience: Duration) -> Result<Self, SocketFault> {
        let connected = address.to_socket_addrs().and_then(|mut found| {
            let nothing = io::Error::new(io::ErrorKind::InvalidInput, "no address");
            TcpStream::connect_timeout(&found.next().ok_or(nothing)?, patience)
        });
        let opened = connected.and_then(|stream| Self::over(stream, Some(patience)));
        opened.map_err(|error| SocketFault::NoPeer { address: address.to_owned(), error })
    }

    /// Speaks over a connected stream.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn over(stream: TcpStream, patience: Option<Duration>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(patience)?;
        Ok(Self { stream, patience, broken: false, heard: false })
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// [`SocketFault::Oversized`], [`SocketFault::Closed`], [`SocketFault::Broken`].
    pub fn send(&mut self, message: &Message) -> Result<(), SocketFault> {
        let bytes = message.payload.len();
        let length = u32::try_from(bytes).map_err(|_| SocketFault::Oversized { bytes })?;
        let mut frame = Vec::with_capacity(HEADER_BYTES + bytes);
        for word in [message.command.0, message.transport.0, length] {
            frame.extend(word.to_be_bytes());
        }
        frame.extend(&message.payload);
        self.stream.write_all(&frame).map_err(|error| self.fault(error))
    }

    /// Waits for the next frame. `None` where the peer closed the connection between two.
    ///
    /// # Errors
    /// [`SocketFault`], but [`NoPeer`](SocketFault::NoPeer) and [`NoObject`](SocketFault::NoObject).
    pub fn receive(&mut self) -> Result<Option<Message>, SocketFault> {
        let mut header = [0; HEADER_BYTES];
        if self.fill(&mut header)? == 0 {
            return Ok(None);
        }
        let word = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let bytes = word(8) as usize;
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(SocketFault::Oversized { bytes });
        }
        let mut payload = vec![0; bytes];
        if bytes > 0 && self.fill(&mut payload)? == 0 {
            return Err(SocketFault::Closed);
        }
        Ok(Some(Message { command: Command(word(0)), transport: Transport(word(4)), payload }))
    }

    /// Sends an object and waits for the one that answers it.
    ///
    /// # Errors
    /// [`SocketFault`].
    pub fn exchange(&mut self, object: Vec<u8>) -> Result<Vec<u8>, SocketFault> {
        let sent = self.send(&Message::object(object));
        let answer = sent.and_then(|()| self.receive()?.ok_or(SocketFault::Closed));
        self.broken |= answer.is_err();
        let Message { command, transport, payload } = answer?;
        self.heard = true;
        if command != Command::NORMAL {
            return Err(SocketFault::NoObject { command, transport });
        }
        Ok(payload)
    }

    /// Whether an object was ever answered by a whole frame: without one there is no peer.
    pub const fn has_heard(&self) -> bool {
        self.heard
    }

    /// Tells the responder that the connection ends and it need not. Whoever did not answer is not waited for
    /// again.
    pub fn part(mut self) {
        if self.broken {
            return;
        }
        // Whoever is gone by now need not be told.
        let _ = self.send(&Message::bare(Command::CONTINUE)).and_then(|()| self.receive());
    }

    /// Fills `into`; 0 where the stream ends before its first byte.
    fn fill(&mut self, into: &mut [u8]) -> Result<usize, SocketFault> {
        let mut filled = 0;
        while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            // Where it cannot be asked for, frames that come in pieces are slow, and no more.
            let _ = sockopt::set_tcp_quickack(&self.stream, true);
            match self.stream.read(rest) {
                Ok(0) if filled == 0 => return Ok(0),
                Ok(0) => return Err(SocketFault::Closed),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.fault(error)),
            }
        }
        Ok(filled)
    }

    fn fault(&self, error: io::Error) -> SocketFault {
        let kind = error.kind();
        if matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            SocketFault::Silent { after: self.patience.unwrap_or_default() }
        } else if matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) {
            SocketFault::Closed
        } else {
            SocketFault::Broken(error)
        }
    }
}

/// Who answers objects.
pub trait Mailbox {
    /// The object that answers `object`, or none.
    fn answer(&mut self, object: &[u8]) -> Option<Vec<u8>>;
}

/// Serves one connection after the other until one asks to shut down.
///
/// A connection that breaks, says what no frame is, or asks what nobody knows is ended, and the next one
/// served; `lost` hears why.
///
/// # Errors
/// Those of the listener.
pub fn serve(
    listener: &TcpListener,
    mailbox: &mut dyn Mailbox,
    lost: &mut dyn FnMut(&SocketFault),
) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        let mut connection = Connection::over(stream, None)?;
        match converse(&mut connection, mailbox) {
            Ok(Parting::Shutdown) => return Ok(()),
            Ok(Parting::Continue) => {}
            Err(fault) => lost(&fault),
        }
    }
}

enum Parting {
    Continue,
    Shutdown,
}

fn converse(
    connection: &mut Connection,
    mailbox: &mut dyn Mailbox,
) -> Result<Parting, SocketFault> {
    while let Some(message) = connection.receive()? {
        match message.command {
            Command::NORMAL if message.transport == Transport::PCI_DOE => {
                let Some(answer) = mailbox.answer(&message.payload) else {
                    return Ok(Parting::Continue);
                };
                connection.send(&Message::object(answer))?;
            }
            Command::TEST => connection.send(&Message::hello())?,
            Command::CONTINUE => {
                connection.send(&Message::bare(Command::CONTINUE))?;
                return Ok(Parting::Continue);
            }
            Command::SHUTDOWN => {
                connection.send(&Message::bare(Command::SHUTDOWN))?;
                return Ok(Parting::Shutdown);
            }
            command => {
                connection.send(&Message::bare(Command::UNKNOWN))?;
                return Err(SocketFault::NoObject { command, transport: message.transport });
            }
        }
    }
    Ok(Parting::Continue)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::thread;

    use super::*;

    /// Answers with the object turned around, and not at all to an empty one.
    struct Mirror;

    impl Mailbox for Mirror {
        fn answer(&mut self, object: &[u8]) -> Option<Vec<u8>> {
            (!object.is_empty()).then(|| object.iter().rev().copied().collect())
        }
    }

    fn served(client: impl FnOnce(SocketAddr)) -> Vec<String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut told = Vec::new();
            serve(&listener, &mut Mirror, &mut |fault| told.push(fault.to_string())).unwrap();
            told
        });
        client(address);
        let mut last = connection(address);
        last.send(&Message::bare(Command::SHUTDOWN)).unwrap();
        assert_eq!(last.receive().unwrap(), Some(Message::bare(Command::SHUTDOWN)));
        server.join().unwrap()
    }

    fn connection(address: SocketAddr) -> Connection {
        Connection::to(&address.to_string(), Duration::from_secs(10)).unwrap()
    }

    #[test]
    fn objects_go_there_and_back_over_several_connections() {
        let told = served(|address| {
            let mut first = connection(address);
            first
                .send(&Message { payload: b"Client Hello!\0".to_vec(), ..Message::hello() })
                .unwrap();
            assert_eq!(first.receive().unwrap(), Some(Message::hello()));
            assert_eq!(first.exchange(vec![1, 2, 3]).unwrap(), [3, 2, 1]);
            first.part();
            let mut second = connection(address);
            assert_eq!(second.exchange(vec![7; 100_000]).unwrap(), [7; 100_000]);
            drop(second);
            assert!(matches!(connection(address).exchange(vec![]), Err(SocketFault::Closed)));
        });
        assert_eq!(told, [""; 0]);
    }

    #[test]
    fn nonsense_ends_a_connection_and_no_more() {
        let told = served(|address| {
            let mut unknown = connection(address);
            unknown.send(&Message::bare(Command(0x8001))).unwrap();
            assert_eq!(unknown.receive().unwrap(), Some(Message::bare(Command::UNKNOWN)));
            assert!(unknown.receive().unwrap().is_none());
            let mut long = connection(address);
            long.stream.write_all(&[0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0, 0, 0]).unwrap();
            assert!(matches!(long.receive(), Ok(None) | Err(SocketFault::Closed)));
            let mut cut = connection(address);
            cut.stream.write_all(&[0, 0, 0, 1, 0]).unwrap();
        });
        assert_eq!(told.len(), 3, "{told:?}");
    }

    #[test]
    fn patience_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut waiting = Connection::to(&address, Duration::from_millis(20)).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        assert!(matches!(waiting.exchange(vec![1]), Err(SocketFault::Silent { .. })));
        assert!(!waiting.has_heard());
        // Who did not answer is not asked whether the connection may end.
        waiting.part();
        let mut sent = Vec::new();
        theirs.read_to_end(&mut sent).unwrap();
        assert_eq!(sent.len(), HEADER_BYTES + 1);
        drop(listener);
        let nobody = Connection::to(&address, Duration::from_secs(1));
        assert!(matches!(nobody, Err(SocketFault::NoPeer { .. })));
    }
}
