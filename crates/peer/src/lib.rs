//! SPDM, IDE_KM and TDISP for people who write firmware: what goes over a socket, what stands in a
//! capture, and both in words.
//!
//! [`capture`] is a file of data objects, [`key_log`] the secrets that open the records in it,
//! [`overhear`] somebody who reads along and says what was said and whether it holds.
//!
//! Takes no lock. Deliberately absent: the protocols themselves, which are in `spdm` and `tdisp`.

#![forbid(unsafe_code)]

pub mod capture;
pub mod key_log;
pub mod overhear;
