//! The TSM's side: requests about one interface, and what their answers must be.
//!
//! Holds no state of the interface: what a TSM believes of it is the TSM's own. Takes no lock.

use thiserror::Error;

use crate::exchange::{ErrorResponse, GetReport, ReportPortion};
use crate::{
    Body, EncodeFault, ErrorCode, Header, InterfaceId, MessageType, PeerFault, Reader, RequestBody,
    VERSION_1_0, encode,
};

/// Speaks about one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requester {
    interface: InterfaceId,
}

/// A request that was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The DSM answered ERROR.
    #[error("the device answers {code} ({data:#x})")]
    Error {
        /// Why.
        code: ErrorCode,
        /// More about it.
        data: u32,
    },
    /// The answer is not one to this request. What the request did is unknown.
    #[error(transparent)]
    Fault(#[from] PeerFault),
}

impl Requester {
    /// Speaks about `interface`.
    pub const fn new(interface: InterfaceId) -> Self {
        Self { interface }
    }

    /// What it speaks about.
    pub const fn interface(&self) -> InterfaceId {
        self.interface
    }

    /// Writes a request and returns its length in bytes.
    ///
    /// # Errors
    /// [`EncodeFault`].
    pub fn request<'a, B: RequestBody<'a>>(
        &self,
        request: &B,
        into: &mut [u8],
    ) -> Result<usize, EncodeFault> {
        encode(self.interface, request, into)
    }

    /// Reads the response to a request of type `B`.
    ///
    /// # Errors
    /// - [`Refused::Error`] – the DSM refused the request; the interface is as it was.
    /// - [`Refused::Fault`] – another version, interface or type, or not the response's layout.
    pub fn response<'a, 'r, B: RequestBody<'a>>(
        &self,
        response: &'r [u8],
    ) -> Result<B::Response<'r>, Refused> {
        let header = Header::of(response)?;
        self.check(header)?;
        if header.message_type == MessageType::ERROR {
            let ErrorResponse { code, data, .. } = body(response)?;
            return Err(Refused::Error { code, data });
        }
        let (expected, found) = (<B::Response<'r> as Body<'r>>::TYPE, header.message_type);
        if found != expected {
            return Err(PeerFault::UnexpectedType { expected, found }.into());
        }
        Ok(body(response)?)
    }

    fn check(&self, header: Header) -> Result<(), PeerFault> {
        let Header { version, interface, .. } = header;
        if version != VERSION_1_0 {
            return Err(PeerFault::UnexpectedVersion { expected: VERSION_1_0, found: version });
        }
        if interface != self.interface {
            let (expected, found) = (self.interface.bits(), interface.bits());
            return Err(PeerFault::UnexpectedInterface { expected, found });
        }
        Ok(())
    }
}

fn body<'r, B: Body<'r>>(message: &'r [u8]) -> Result<B, PeerFault> {
    Reader::all(B::TYPE.name().unwrap_or("TDISP message"), message, |reader| {
        Header::read(reader)?;
        B::read(reader)
    })
}

/// Puts a report together from its portions.
///
/// ```
/// # use bindery_tdisp::{PeerFault, ReportAssembly, exchange::ReportPortion};
/// let mut report = [0; 4096];
/// let mut assembly = ReportAssembly::new(&mut report);
/// while let Some(asked) = assembly.next(2) {
///     let rest = &b"bytes"[asked.offset.into()..];
///     let portion = &rest[..rest.len().min(asked.length.into())];
///     let remainder = u16::try_from(rest.len() - portion.len()).unwrap();
///     assembly.take(ReportPortion { remainder, portion })?;
/// }
/// assert_eq!(assembly.report(), Some(&b"bytes"[..]));
/// # Ok::<(), PeerFault>(())
/// ```
#[derive(Debug)]
pub struct ReportAssembly<'b> {
    into: &'b mut [u8],
    filled: usize,
    asked: GetReport,
    /// Bytes of the whole, once a portion has told.
    total: Option<usize>,
}

impl<'b> ReportAssembly<'b> {
    /// Puts the report into `into`; no report is longer than 65535 bytes.
    pub const fn new(into: &'b mut [u8]) -> Self {
        Self { into, filled: 0, asked: GetReport { offset: 0, length: 0 }, total: None }
    }

    /// The next request, for at most `length_max` bytes; `None` where the report is whole.
    pub fn next(&mut self, length_max: u16) -> Option<GetReport> {
        if self.total == Some(self.filled) {
            return None;
        }
        let offset = u16::try_from(self.filled).ok()?;
        self.asked = GetReport { offset, length: length_max };
        Some(self.asked)
    }

    /// Takes the answer to the last request.
    ///
    /// # Errors
    /// [`PeerFault::UnexpectedPortion`] where it is empty, longer than was asked, more than there
    /// is room for, or says another length of the whole than before.
    pub fn take(&mut self, answer: ReportPortion<'_>) -> Result<(), PeerFault> {
        let ReportPortion { remainder, portion } = answer;
        let GetReport { offset, length } = self.asked;
        let fault = PeerFault::UnexpectedPortion {
            offset,
            asked: length,
            portion: portion.len(),
            remainder,
        };
        let end = self.filled.saturating_add(portion.len());
        let total = end.saturating_add(remainder.into());
        let agrees = self.total.is_none_or(|before| before == total);
        let fits = total <= self.into.len() && total <= usize::from(u16::MAX);
        if portion.is_empty() || portion.len() > length.into() || !agrees || !fits {
            return Err(fault);
        }
        self.into.get_mut(self.filled..end).ok_or(fault)?.copy_from_slice(portion);
        self.filled = end;
        self.total = Some(total);
        Ok(())
    }

    /// The report, once it is whole.
    pub fn report(self) -> Option<&'b [u8]> {
        if self.total != Some(self.filled) {
            return None;
        }
        self.into.get(..self.filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{GetState, InterfaceState};

    const US: InterfaceId = InterfaceId::new(0x0100);

    fn state(message: &[u8]) -> Result<InterfaceState, Refused> {
        Requester::new(US).response::<GetState>(message)
    }

    #[test]
    fn judges_what_answers() {
        let mut message = [0; 24];
        let length = encode(US, &InterfaceState(2), &mut message).unwrap();
        assert_eq!(state(&message[..length]), Ok(InterfaceState(2)));
        let long = PeerFault::Trailing { message: "DEVICE_INTERFACE_STATE", left: 1 };
        assert_eq!(state(&message[..=length]), Err(long.into()));
        message[0] = 0x11;
        let fault = PeerFault::UnexpectedVersion { expected: VERSION_1_0, found: 0x11 };
        assert_eq!(state(&message[..length]), Err(fault.into()));
        let length = encode(InterfaceId::new(1), &InterfaceState(2), &mut message).unwrap();
        let fault = PeerFault::UnexpectedInterface { expected: 0x100, found: 1 };
        assert_eq!(state(&message[..length]), Err(fault.into()));
        let length = encode(US, &GetState, &mut message).unwrap();
        let fault = PeerFault::UnexpectedType {
            expected: MessageType::DEVICE_INTERFACE_STATE,
            found: MessageType::GET_DEVICE_INTERFACE_STATE,
        };
        assert_eq!(state(&message[..length]), Err(fault.into()));
        let error = ErrorResponse { code: ErrorCode::BUSY, data: 3, extended: &[] };
        let length = encode(US, &error, &mut message).unwrap();
        let refused = Refused::Error { code: ErrorCode::BUSY, data: 3 };
        assert_eq!(state(&message[..length]), Err(refused));
    }

    #[test]
    fn portions_must_agree() {
        let mut into = [0; 8];
        let mut assembly = ReportAssembly::new(&mut into);
        let mut take = |remainder, portion: &[u8], length| {
            let asked = assembly.next(length);
            (asked.map(|a| a.offset), assembly.take(ReportPortion { remainder, portion }).is_ok())
        };
        assert_eq!(take(3, &[], 4), (Some(0), false), "empty");
        assert_eq!(take(3, &[1, 2, 3], 2), (Some(0), false), "longer than asked");
        assert_eq!(take(7, &[1, 2], 4), (Some(0), false), "longer than the room");
        assert_eq!(take(3, &[1, 2], 4), (Some(0), true));
        assert_eq!(take(2, &[3, 4], 4), (Some(2), false), "longer than before");
        assert_eq!(take(1, &[3, 4], 4), (Some(2), true));
        assert_eq!(take(0, &[5], 4), (Some(4), true));
        assert_eq!(take(0, &[6], 4), (None, false), "after the end");
        assert_eq!(assembly.report(), Some(&[1, 2, 3, 4, 5][..]));
        assert_eq!(ReportAssembly::new(&mut into).report(), None);
    }
}
