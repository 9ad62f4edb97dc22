//! GET_VERSION and VERSION: always sent as version 1.0.

use alloc::vec::Vec;

use super::{Code, Header, Message, Shape};
use crate::algorithm::Version;
use crate::fault::PeerFault;
use crate::wire::{Reader, Writer};

/// The version in the header of both messages.
pub const VERSION_1_0: u8 = 0x10;

/// Asks which versions are spoken, and ends whatever was agreed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetVersion;

impl Message for GetVersion {
    const CODE: Code = Code::GET_VERSION;
    const NAME: &'static str = "GET_VERSION";

    fn version(_: &Shape) -> u8 {
        VERSION_1_0
    }

    fn write(&self, _: &mut Writer, _: &Shape) {}

    fn read(_: Header, _: &mut Reader<'_>, _: &Shape) -> Result<Self, PeerFault> {
        Ok(Self)
    }
}

/// Lists the versions that are spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionResponse {
    /// Each version: major in bits 15:12, minor in 11:8, update and alpha number below.
    pub entries: Vec<u16>,
}

impl VersionResponse {
    /// The list with `versions`.
    pub fn of(versions: &[Version]) -> Self {
        Self { entries: versions.iter().map(|version| u16::from(version.wire()) << 8).collect() }
    }

    /// The best version of `ours` that is in the list; later ones are passed over.
    pub fn best(&self, ours: &[Version]) -> Option<Version> {
        let spoken = |version: &&Version| {
            self.entries.iter().any(|entry| entry.to_be_bytes()[0] == version.wire())
        };
        ours.iter().filter(spoken).max().copied()
    }
}

impl Message for VersionResponse {
    const CODE: Code = Code::VERSION;
    const NAME: &'static str = "VERSION";

    fn version(_: &Shape) -> u8 {
        VERSION_1_0
    }

    fn write(&self, w: &mut Writer, _: &Shape) {
        w.reserved(1);
        w.count_u8(self.entries.len());
        self.entries.iter().for_each(|&entry| w.u16(entry));
    }

    fn read(_: Header, r: &mut Reader<'_>, _: &Shape) -> Result<Self, PeerFault> {
        r.reserved(1)?;
        let count = r.u8()?;
        let entries = (0..count).map(|_| r.u16()).collect::<Result<_, _>>()?;
        Ok(Self { entries })
    }
}
