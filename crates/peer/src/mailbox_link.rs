//! The way from a requester to a device behind a socket, which can be written down as it is gone.

use std::io::Write;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spdm::Frame;
use spdm::flow::Link;
use thiserror::Error;

use crate::capture;
use crate::socket::{Connection, SocketFault};

/// Where a capture of a conversation goes.
pub type Capture = capture::Writer<Box<dyn Write + Send>>;

/// Why a frame came to nothing.
#[derive(Debug, Error)]
pub enum LinkFault {
    /// The socket.
    #[error(transparent)]
    Socket(#[from] SocketFault),
    /// What came is no frame.
    #[error("what the peer answers is no object of SPDM: {0}")]
    Object(#[from] spdm::PeerFault),
    /// What was to be sent does not fit into an object.
    #[error(transparent)]
    TooLong(#[from] spdm::Refusal),
    /// It could not be written down.
    #[error("the capture cannot be written: {0}")]
    Capture(#[from] std::io::Error),
}

/// A device's mailbox, wherever it is.
pub trait Objects {
    /// Carries an object there and the answer back.
    ///
    /// # Errors
    /// [`LinkFault::Socket`], [`LinkFault::Capture`].
    fn object(&mut self, object: Vec<u8>) -> Result<Vec<u8>, LinkFault>;

    /// Waits before something is asked again.
    fn wait(&mut self, time_us: u64);
}

/// A device's mailbox behind a socket.
pub struct MailboxLink {
    connection: Connection,
    capture: Option<Capture>,
    /// What is tried and did not answer is not asked for longer.
    wait_max: Duration,
    /// Objects sent.
    pub sent: usize,
}

impl MailboxLink {
    /// Speaks over `connection`, and writes every object into `capture`.
    pub fn new(connection: Connection, capture: Option<Capture>) -> Self {
        Self { connection, capture, wait_max: Duration::from_secs(10), sent: 0 }
    }

    /// Whether the peer has answered at all.
    pub const fn has_heard(&self) -> bool {
        self.connection.has_heard()
    }

    /// Ends the conversation so that the responder goes on.
    pub fn part(self) {
        self.connection.part();
    }

    fn note(&mut self, object: &[u8]) -> Result<(), LinkFault> {
        let Some(capture) = &mut self.capture else { return Ok(()) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(capture.packet(now, object)?)
    }
}

impl Objects for MailboxLink {
    fn object(&mut self, object: Vec<u8>) -> Result<Vec<u8>, LinkFault> {
        self.note(&object)?;
        self.sent += 1;
        let answer = self.connection.exchange(object)?;
        self.note(&answer)?;
        Ok(answer)
    }

    fn wait(&mut self, time_us: u64) {
        thread::sleep(Duration::from_micros(time_us).min(self.wait_max));
    }
}

impl Link for MailboxLink {
    type Fault = LinkFault;

    fn exchange(&mut self, frame: &Frame) -> Result<Frame, LinkFault> {
        let answer = self.object(frame.to_object()?)?;
        Ok(Frame::from_object(&answer)?)
    }

    fn wait(&mut self, time_us: u64) -> Result<(), LinkFault> {
        Objects::wait(self, time_us);
        Ok(())
    }
}
