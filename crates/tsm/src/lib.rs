//! The PCI/TSM core: connect, bind, guest requests, unbind.
//!
//! The idea: a device's security manager (DSM) is spoken to by one call at a time, which owns the
//! device's *exchange slot* and holds no lock. Everything else (who is bound, who waits, who is to
//! give up) is a record behind a lock that is held for a look. So a slow device delays those who
//! want the same device and nobody else, and whoever waits can be told to stop.
//!
//! | type | is |
//! |---|---|
//! | [`Registry`] | the functions of a machine, its TSMs, the connections between them |
//! | [`Backend`], [`Session`] | a TSM, and one device as it has it; [`software`] is one |
//! | [`Exchange`], [`Way`] | what one call says to a device, with one deadline, and what is put around it |
//! | [`Transport`], [`Reply`] | how payloads reach a device and come back |
//! | [`Cancel`] | a request to give a command up |
//! | [`fault`] | what goes wrong on demand |
//!
//! # Locks
//!
//! Never two at once; under no lock of another crate.
//! ```text
//! TSM_REGISTRY     function -> connection; numbers of TSMs
//! DSM              one connection: who owns its slot, how its functions stand, an answer that came
//! TSM_CARE         when which connection is tended
//! TSM_FAULTS       the faults on demand of one function
//! ```
//! None is held while a device, a backend, the client's memory or [`Notices`] is called.
//!
//! # Promises
//!
//! - Each backend bind that was done, or may have been, is followed by exactly one backend unbind,
//!   whatever either answers.
//! - [`Registry::unbind`], [`disconnect`](Registry::disconnect), [`remove`](Registry::remove) and
//!   [`unregister`](Registry::unregister) cannot fail and return within twice
//!   [`Settings::exchange_timeout_ms`], from a device that never answers too. Once a device was silent
//!   for the whole timeout, what is left to say to it gets an eighth of it.
//! - A TDI whose unbind was not answered is quarantined, not called unbound.
//! - Private mappings of a TDI are gone before STOP is sent.
//!
//! # Deliberately absent
//!
//! Ioctls, files, processes, threads, clocks (deadlines are [`sync::Timers`]'), devices.

#![forbid(unsafe_code)]

mod attributes;
mod backend;
mod bind;
mod cancel;
mod care;
mod connect;
mod evidence;
mod exchange;
pub mod fault;
mod guest;
mod ledger;
mod line;
mod notices;
mod refusal;
mod registry;
pub mod software;

pub use tdisp::State;

pub use attributes::Attributes;
pub use backend::{
    Backend, Effect, End, Entropy, EvidenceObject, Failure, FunctionFacts, Links, Opened, Secured,
    Session, Stream, TdiRecord, Transport,
};
pub use cancel::Cancel;
pub use exchange::{Bare, Exchange, Reply, Way};
pub use guest::{Arch, GuestRequest, GuestResponse, Memory, ObjectKind, Op, Unreachable, VmId};
pub use ledger::{Binding, ConnectionView, Counters, ObjectView, TdiView};
pub use notices::{Notice, Notices, Untold};
pub use refusal::{Distrust, Refusal};
pub use registry::{Registry, Settings};
