//! What the supervisor tells the guard, and that each knows when the other has died.
//!
//! A socket pair that keeps message boundaries. Its end of file is the death of the other side, so
//! no other process may hold it: both ends close on exec. Takes no lock.

use std::io;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::Pid;

/// One end.
#[derive(Debug)]
pub(crate) struct Link(OwnedFd);

/// News of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Its process is there; the listener of its filter comes along.
    Started(Pid),
    /// It was stopped.
    Stopped,
    /// It goes on.
    Continued,
    /// It could not be executed; the errno.
    NotExecuted(i32),
    /// It could not be put under the filter; the errno.
    NotFiltered(i32),
    /// The tree has ended, or never began: the status to exit with.
    Ended(u8),
}

/// What was received.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) message: Message,
    /// A file that came along.
    pub(crate) file: Option<OwnedFd>,
}

const BYTES: usize = 8;

impl Link {
    /// Two ends.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let kind = SocketType::SEQPACKET;
        let (one, other) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    /// Sends a message, and a file with it. Where the other side is gone the message is too: its
    /// death is seen elsewhere.
    pub(crate) fn send(&self, message: Message, file: Option<BorrowedFd<'_>>) {
        let bytes = message.encode();
        let files = file.map(|file| [file]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if let Some(files) = &files {
            ancillary.push(SendAncillaryMessage::ScmRights(files));
        }
        let _ = sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL);
    }

    /// Waits for a message; `None` where the other side is gone.
    pub(crate) fn receive(&self) -> Option<Received> {
        let mut bytes = [0; BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(&mut bytes)];
        let received = loop {
            match recvmsg(&self.0, into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.ok()?,
            }
        };
        let file = ancillary.drain().find_map(|part| match part {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            // Nothing else is ever sent, nor asked for.
            RecvAncillaryMessage::ScmCredentials(_) | _ => None,
        });
        let message = Message::decode(bytes).filter(|_| received.bytes == BYTES)?;
        Some(Received { message, file })
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Message {
    fn encode(self) -> [u8; BYTES] {
        let (tag, value) = match self {
            Self::Started(pid) => (1, pid.as_raw_nonzero().get()),
            Self::Stopped => (2, 0),
            Self::Continued => (3, 0),
            Self::NotExecuted(errno) => (4, errno),
            Self::NotFiltered(errno) => (5, errno),
            Self::Ended(status) => (6, i32::from(status)),
        };
        ((u64::from(value.cast_unsigned()) << 32) | tag).to_le_bytes()
    }

    fn decode(bytes: [u8; BYTES]) -> Option<Self> {
        let [tag, _, _, _, value @ ..] = bytes;
        let value = i32::from_le_bytes(value);
        Some(match tag {
            1 => Self::Started(Pid::from_raw(value)?),
            2 => Self::Stopped,
            3 => Self::Continued,
            4 => Self::NotExecuted(value),
            5 => Self::NotFiltered(value),
            6 => Self::Ended(u8::try_from(value).ok()?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_with_their_file_and_then_the_end_is_seen() {
        let (one, other) = Link::pair().unwrap();
        let pid = Pid::from_raw(4711).unwrap();
        let messages = [
            Message::Started(pid),
            Message::Stopped,
            Message::Continued,
            Message::NotExecuted(2),
            Message::NotFiltered(16),
            Message::Ended(143),
        ];
        for message in messages {
            one.send(message, None);
        }
        one.send(Message::Stopped, Some(other.as_fd()));
        drop(one);
        for message in messages {
            assert_eq!(other.receive().unwrap().message, message);
        }
        assert!(other.receive().unwrap().file.is_some());
        assert!(other.receive().is_none());
    }
}
