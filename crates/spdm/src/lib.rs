//! SPDM 1.2 and 1.3: how a host and a device authenticate each other's messages and keep them secret.
//!
//! [`message`] is the wire: every message as a value. [`key_schedule`] makes keys of a shared secret,
//! [`secured`] makes records with them, [`signed_message`] is what a device signs. Cryptography is
//! behind [`crypto::Crypto`], with two providers; each endpoint is given its own, nothing is global.
//!
//! Needs an allocator, not std. Takes no lock and does no IO. Deliberately absent: pre-shared keys,
//! mutual authentication, post-quantum algorithms, sockets and clocks.
//!
//! # Policies
//!
//! What the texts leave open, or where this crate does less than they allow, has a name:
//!
//! | policy | what is done |
//! |---|---|
//! | `reserved-fields` | written as zero, ignored when read |
//! | `suite-pairs` | P-256 goes with SHA-256, P-384 with SHA-384; other pairs are never selected |
//! | `padding` | up to three zero bytes may follow a message; anything else is refused |
//! | `random-padding` | random bytes inside of a record are ignored when read, never written |
//! | `one-guess` | a record that does not open ends its direction of the session |
//! | `opaque-format` | the general format (OpaqueDataFmt1) only, at most 1024 bytes |
//! | `error-extended-data` | at most 32 bytes |
//!
//! Sources: [DSP0274], [DSP0277]; sessions of spdm-emu, whose known answers are in `tests/data`.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod algorithm;
pub mod crypto;
mod fault;
pub mod key_schedule;
pub mod message;
pub mod secured;
mod signing;
pub mod wire;

pub use fault::{Blame, Error, PeerFault, Refusal};
pub use signing::{Purpose, signed_message};
