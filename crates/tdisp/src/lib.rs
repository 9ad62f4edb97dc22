//! TDISP and IDE_KM: what a TSM and a device's security manager (DSM) say to each other.
//!
//! The device side is [`Dsm`], a table of [`Tdi`] state machines, with [`ide_km::KeyTable`] for the
//! keys of the link. The host side is [`Requester`], which builds requests and judges answers. Both
//! are values: bytes in, bytes out. [`transition::TABLE`] is the state machine as data,
//! [`exchange`] has a file for each request with its response, [`report`] is what a locked
//! interface says of itself, [`payload`] tells the two protocols apart.
//!
//! Needs neither std nor an allocator. Takes no lock and does no IO. Deliberately absent: sessions
//! and their secrets (an SPDM session is a number here), sockets, clocks, sources of random bytes
//! and devices; [`Device`] is the line to the last two, where [`StandIn`] can stand.
//!
//! # Policies
//!
//! The text of TDISP is not public. Layouts and numbers come from the headers of libspdm; where
//! public sources disagree or say nothing, what is done here is a policy, and each has a name:
//!
//! | policy | what is done | else |
//! |---|---|---|
//! | `reserved-fields` | written as zero, ignored when read | – |
//! | `check-order` | header, type, length, version, interface, state, contents, device | – |
//! | `flr-while-locked` | [`FunctionReset::Unlocks`] | [`FunctionReset::Breaches`] |
//! | `conventional-reset` | every state goes to `CONFIG_UNLOCKED` | – |
//! | `reset-in-error` | a reset that unlocks ends `ERROR` as well | with `Breaches`, `ERROR` stays |
//! | `foreign-session` | START in another session than LOCK: `INVALID_NONCE`, stays locked | – |
//! | `stop-session` | STOP is taken from every session | – |
//! | `session-end` | interfaces that were locked in it go to `ERROR`, if [`Dsm::session_ended`] is called | – |
//! | `unclaimed-lock-flags` | LOCK with a flag that the DSM does not claim: `INVALID_REQUEST` | – |
//! | `reporting-offset` | must be whole pages: `INVALID_REQUEST` | – |
//! | `request-numbering` | [`RequestNumbering::From80`] | `From81`, `Both` |
//! | `first-page` | [`FirstPage::Address`] | [`FirstPage::Number`] |
//! | `unlocked-msix` | pages of MSI-X that LOCK left open are reported as non-TEE memory | – |
//! | `range-id` | the number of the BAR | – |
//! | `report-offset` | at or past the end of the report, or length 0: `INVALID_REQUEST` | – |
//! | `segment` | a valid segment must be 0, else `INVALID_INTERFACE` | – |
//! | `version-interface` | `GET_VERSION` and `GET_CAPABILITIES` too want a known interface | – |
//! | `p2p-stream-config` | the byte that newer headers add is read where it is sent | – |
//! | `key-set-go` | a key that was never programmed: refused without an answer of IDE_KM | – |
//!
//! Sources: [pci_tdisp.h] and [pci_idekm.h] of libspdm; the test cases of tee-io-validator; the
//! responders of Project Cerberus and spdm-emu.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod dsm;
pub mod exchange;
pub mod ide_km;
mod interface;
mod message;
pub mod payload;
pub mod report;
mod requester;
pub mod stand_in;
mod tdi;
pub mod transition;
mod wire;

pub use dsm::{Answer, Change, Device, DeviceRefusal, Dsm, Full, RESPONSE_BYTES_MIN, Settings};
pub use exchange::{ErrorCode, LockFlags, Nonce, RequestNumbering};
pub use interface::InterfaceId;
pub use message::{
    Body, HEADER_BYTES, Header, MessageType, Request, RequestBody, Response, VERSION_1_0, encode,
};
pub use report::FirstPage;
pub use requester::{Refused, ReportAssembly, Requester};
pub use stand_in::StandIn;
pub use tdi::{Breach, FunctionReset, REPORT_BYTES_MAX, SessionId, Tdi};
pub use transition::{Event, Outcome, State};
pub use wire::{EncodeFault, PeerFault, Reader, Writer};
