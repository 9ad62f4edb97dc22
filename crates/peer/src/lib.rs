//! SPDM, IDE_KM and TDISP for people who write firmware: what goes over a socket, what stands in a
//! capture, and both in words.
//!
//! [`capture`] is a file of data objects, [`key_log`] the secrets that open the records in it,
//! [`overhear`] somebody who reads along and says what was said and whether it holds. [`socket`] carries
//! objects as spdm-emu and QEMU do; [`bring_up`] is what a TSM does with a device, against any device, and
//! [`validate`] tries the rules on it;
//! [`evidence`] is judged without any device.
//!
//! Deliberately absent: the protocols themselves, which are in `spdm` and `tdisp`.

#![forbid(unsafe_code)]

pub mod bring_up;
pub mod capture;
pub mod evidence;
pub mod key_log;
pub mod mailbox_link;
pub mod noted_secrets;
pub mod overhear;
pub mod socket;
pub mod validate;
