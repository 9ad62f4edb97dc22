//! SPDM 1.2 and 1.3: how a host and a device authenticate each other's messages and keep them secret.
//!
//! [`requester::Requester`] is the host's side, [`responder::Responder`] the device's: frames in,
//! frames out. Below them, [`message`] is the wire: every message as a value. [`key_schedule`] makes keys of a shared secret,
//! [`secured`] makes records with them, [`signed_message`] is what a device signs, and
//! [`certificate`] says whose signature is worth something. Cryptography is
//! behind [`crypto::Crypto`], with two providers; each endpoint is given its own, nothing is global.
//!
//! Needs an allocator, not std. Takes no lock and does no IO. Deliberately absent: pre-shared keys,
//! mutual authentication, handshakes in the clear, post-quantum algorithms, sockets and clocks.
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
//! | `complete-negotiation` | without a suite, a curve, a cipher and the key schedule in common, there is no connection |
//! | `restart` | GET_VERSION ends all sessions; it is not taken inside of one |
//! | `refused-handshake` | any refusal before FINISH_RSP ends the session |
//! | `refused-in-session` | a refusal under the session's keys leaves it, one in the clear ends it |
//! | `unverified-keys` | after KEY_UPDATE the new keys are proven before anything else is answered |
//! | `summary` | the summary of what is trusted is that of all measurements |
//! | `void-challenge` | GET_MEASUREMENTS and KEY_EXCHANGE make void what CHALLENGE_AUTH would sign |
//! | `capabilities` | a request that one side is not capable of is answered as one that there is not |
//! | `chunks` | a message in chunks is longer than what fits at once; any other request drops it |
//! | `shown-root` | without roots of the caller's, the root in the chain is accepted |
//!
//! Sources: \[DSP0274\], \[DSP0277\]; sessions of spdm-emu, whose known answers are in `tests/data`.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod algorithm;
pub mod certificate;
mod chunks;
pub mod crypto;
mod der;
pub mod doe;
mod endpoint;
mod fault;
pub mod flow;
pub mod issue;
pub mod key_schedule;
pub mod message;
pub mod requester;
pub mod responder;
pub mod secured;
mod signing;
pub mod wire;

pub use endpoint::Frame;
pub use fault::{Blame, Error, PeerFault, Refusal};
pub use signing::{Purpose, signed_message};
