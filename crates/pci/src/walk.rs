//! Walking the two capability chains of any config space.
//!
//! [`capabilities`] and [`extended_capabilities`] read through a function, so that they serve a
//! [`ConfigSpace`](crate::ConfigSpace), a [`Function`](crate::Function) and a plain dump alike. The
//! bytes may say anything: a chain ends at the first offset that is out of place or seen before.
//!
//! Each capability comes with the length that vfio-pci gives it, which decides what a user of the
//! device sees: a capability without a length is hidden. Takes no lock.
//!
//! Source: the set shown and hidden, and lengths, from Linux's vfio-pci and [uapi/pci_regs.h].

use crate::regs::{
    CONFIG_SIZE, CONVENTIONAL_SIZE, FIRST_CAPABILITY, acs, aer, ari, cap_id, dsn, express, ext_id,
    header, msi, msix, pm, sriov, status,
};

/// A capability of the first 256 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// What it is: one of [`cap_id`], or unknown.
    pub id: u8,
    /// Where it begins.
    pub offset: u16,
    /// Bytes as vfio-pci counts them; `None` where it hides the capability from users.
    pub length: Option<u16>,
}

/// A capability of the bytes from 256 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedCapability {
    /// What it is: one of [`ext_id`], or unknown.
    pub id: u16,
    /// The version of its layout, 0..16.
    pub version: u8,
    /// Where it begins.
    pub offset: u16,
    /// Bytes as vfio-pci counts them; `None` where it hides the capability from users.
    pub length: Option<u16>,
}

/// Lists the capabilities in the order of their chain.
pub fn capabilities(read: impl Fn(u16, &mut [u8])) -> Vec<Capability> {
    let config = Reader(read);
    let mut found: Vec<Capability> = Vec::new();
    if config.word(header::STATUS) & status::CAPABILITIES == 0 {
        return found;
    }
    let mut next = config.byte(header::CAPABILITIES_POINTER);
    loop {
        let offset = u16::from(next) & !3;
        let seen = found.iter().any(|capability| capability.offset == offset);
        if offset < FIRST_CAPABILITY || seen {
            return found;
        }
        let id = config.byte(offset);
        if id == u8::MAX {
            return found;
        }
        let length = config.capability_length(id, offset);
        found.push(Capability { id, offset, length });
        next = config.byte(offset + 1);
    }
}

/// Lists the extended capabilities in the order of their chain.
pub fn extended_capabilities(read: impl Fn(u16, &mut [u8])) -> Vec<ExtendedCapability> {
    let config = Reader(read);
    let mut found: Vec<ExtendedCapability> = Vec::new();
    let mut offset = CONVENTIONAL_SIZE;
    loop {
        let first = config.dword(offset);
        if first == 0 || first == u32::MAX {
            return found;
        }
        let [id_low, id_high, ..] = first.to_le_bytes();
        let id = u16::from_le_bytes([id_low, id_high]);
        let [version, ..] = (first >> VERSION_SHIFT & VERSION).to_le_bytes();
        let length = config.extended_length(id, offset);
        found.push(ExtendedCapability { id, version, offset, length });
        let [low, high, ..] = (first >> NEXT_SHIFT & NEXT).to_le_bytes();
        offset = u16::from_le_bytes([low, high]);
        let seen = found.iter().any(|capability| capability.offset == offset);
        if offset < CONVENTIONAL_SIZE || seen {
            return found;
        }
    }
}

/// Extended capability header: version, bits 19:16.
pub(crate) const VERSION_SHIFT: u32 = 16;
const VERSION: u32 = 0xf;
/// Extended capability header: offset of the next, bits 31:20, a multiple of four.
pub(crate) const NEXT_SHIFT: u32 = 20;
const NEXT: u32 = 0xffc;

const VPD_LENGTH: u16 = 8;
const AGP_LENGTH: u16 = 12;
const AF_LENGTH: u16 = 6;
const PCIX_LENGTHS: [u16; 2] = [8, 24];
const HT_LENGTHS: [u16; 2] = [28, 24];
const SATA_LENGTHS: [u16; 2] = [8, 16];
const POWER_BUDGET_LENGTH: u16 = 16;
const ATS_LENGTH: u16 = 8;
const MULTICAST_LENGTH: u16 = 40;
const PRI_LENGTH: u16 = 16;
const LTR_LENGTH: u16 = 8;

/// Config space behind a function that reads it.
struct Reader<F>(F);

impl<F: Fn(u16, &mut [u8])> Reader<F> {
    fn byte(&self, offset: u16) -> u8 {
        let [low, _] = self.word(offset).to_le_bytes();
        low
    }

    fn word(&self, offset: u16) -> u16 {
        let [a, b, ..] = self.dword(offset).to_le_bytes();
        u16::from_le_bytes([a, b])
    }

    /// Four bytes; those beyond the end read as zero.
    fn dword(&self, offset: u16) -> u32 {
        let mut bytes = [0; 4];
        let inside = usize::from(CONFIG_SIZE.saturating_sub(offset)).min(bytes.len());
        if let Some(part) = bytes.get_mut(..inside).filter(|part| !part.is_empty()) {
            (self.0)(offset, part);
        }
        u32::from_le_bytes(bytes)
    }

    fn capability_length(&self, id: u8, at: u16) -> Option<u16> {
        Some(match id {
            cap_id::PM => pm::LENGTH,
            cap_id::AGP => AGP_LENGTH,
            cap_id::VPD => VPD_LENGTH,
            cap_id::MSI => msi_length(self.word(at + msi::CONTROL)),
            cap_id::PCIX => {
                // Version 0 has no ECC registers. Bridges do not occur behind VFIO.
                let version = self.word(at + 2) >> 12 & 3;
                PCIX_LENGTHS[usize::from(version != 0)]
            }
            cap_id::HT => {
                let short = self.byte(at + 3) & 0xe0 != 0;
                HT_LENGTHS[usize::from(short)]
            }
            cap_id::VENDOR => u16::from(self.byte(at + 2)),
            cap_id::EXPRESS => express_length(self.word(at + express::CAPABILITIES)),
            cap_id::MSIX => msix::LENGTH,
            cap_id::SATA => {
                let inline = self.byte(at + 4) & 0xf == 0xf;
                SATA_LENGTHS[usize::from(inline)]
            }
            cap_id::AF => AF_LENGTH,
            _ => return None,
        })
    }

    fn extended_length(&self, id: u16, at: u16) -> Option<u16> {
        Some(match id {
            ext_id::AER => aer::LENGTH,
            ext_id::VC | ext_id::VC9 | ext_id::MFVC => self.virtual_channel_length(at),
            ext_id::DSN => dsn::LENGTH,
            ext_id::POWER_BUDGET => POWER_BUDGET_LENGTH,
            ext_id::VENDOR | ext_id::DVSEC => self.word(at + 6) >> 4,
            ext_id::ACS => self.acs_length(at),
            ext_id::ARI => ari::LENGTH,
            ext_id::ATS => ATS_LENGTH,
            ext_id::SRIOV => sriov::LENGTH,
            ext_id::MULTICAST => MULTICAST_LENGTH,
            ext_id::PRI => PRI_LENGTH,
            ext_id::REBAR => 4 + 8 * u16::from(self.byte(at + 8) >> 5),
            ext_id::DPA => 16 + u16::from(self.byte(at + 4) & 0x1f) + 1,
            ext_id::TPH => self.tph_length(at),
            ext_id::LTR => LTR_LENGTH,
            _ => return None,
        })
    }

    fn acs_length(&self, at: u16) -> u16 {
        if self.word(at + acs::CAPABILITY) & acs::EGRESS_CONTROL == 0 {
            return acs::LENGTH;
        }
        let bits = match u16::from(self.byte(at + acs::EGRESS_BITS)) {
            0 => 256,
            bits => bits,
        };
        acs::LENGTH + bits.div_ceil(32) * 4
    }

    fn tph_length(&self, at: u16) -> u16 {
        const IN_CAPABILITY: u32 = 0x200;
        let requester = self.dword(at + 4);
        if requester & 0x600 != IN_CAPABILITY {
            return 12;
        }
        let [low, high, ..] = (requester >> 16 & 0x7ff).to_le_bytes();
        let entries = u16::from_le_bytes([low, high]) + 1;
        12 + (entries * 2).next_multiple_of(4)
    }

    /// The capability up to its last arbitration table.
    fn virtual_channel_length(&self, at: u16) -> u16 {
        let port = self.dword(at + 4);
        let channels = (port & 7) as u16 + 1;
        let table_at = (self.dword(at + 8) >> 24) as u16 * 16;
        let entry_bits = 1 << (port >> 10 & 3);
        let mut length = 0x10 + channels * 12;
        if table_at != 0 {
            let phases = arbitration_phases(self.dword(at + 8) >> 1 & 7, [32, 64, 128, 0, 0]);
            length = length.max(table_at + phases * 4 / 8);
        }
        for channel in 0..channels {
            let resource = self.dword(at + 0x10 + 12 * channel);
            let table_at = (resource >> 24) as u16 * 16;
            let phases = arbitration_phases(resource >> 1 & 0x1f, [32, 64, 128, 128, 256]);
            if table_at != 0 {
                length = length.max(table_at + phases * entry_bits / 8);
            }
        }
        length
    }
}

/// The most phases that a bit map of arbitration schemes offers.
fn arbitration_phases(schemes: u32, phases: [u16; 5]) -> u16 {
    let offered = phases.into_iter().enumerate().filter(|(bit, _)| schemes >> bit & 1 != 0);
    offered.map(|(_, phases)| phases).max().unwrap_or(0)
}

fn msi_length(control: u16) -> u16 {
    let address = if control & msi::ADDRESS_64 != 0 { 4 } else { 0 };
    let masks = if control & msi::MASKABLE != 0 { 10 } else { 0 };
    10 + address + masks
}

fn express_length(capabilities: u16) -> u16 {
    let linkless = capabilities >> express::TYPE_SHIFT & express::TYPE == express::TYPE_INTEGRATED;
    match (capabilities & express::VERSION <= 1, linkless) {
        (true, true) => 0x0c,
        (true, false) => 0x14,
        (false, true) => 0x2c,
        (false, false) => 0x34,
    }
}
