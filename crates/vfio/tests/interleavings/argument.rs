//! The memory of a program of which only one argument is ever looked at.

use std::cell::RefCell;

/// Where the argument lies.
pub(crate) const AT: u64 = 0x1000;

/// The argument of one command.
pub(crate) struct Argument(RefCell<Vec<u8>>);

impl Argument {
    /// `bytes`, and zeros where a command reads further.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len().max(24), 0);
        Self(RefCell::new(bytes))
    }

    /// As [`Caller::read_prefix`](iommufd::Caller::read_prefix).
    pub(crate) fn read_prefix(&self, at: u64, into: &mut [u8]) -> usize {
        let bytes = self.0.borrow();
        let from = usize::try_from(at - AT).unwrap().min(bytes.len());
        let length = into.len().min(bytes.len() - from);
        into[..length].copy_from_slice(&bytes[from..from + length]);
        length
    }

    /// As [`Caller::write`](iommufd::Caller::write).
    pub(crate) fn write(&self, at: u64, from: &[u8]) {
        let to = usize::try_from(at - AT).unwrap();
        self.0.borrow_mut()[to..to + from.len()].copy_from_slice(from);
    }
}
