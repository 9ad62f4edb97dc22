//! What a function's config space says once and for all: where its capabilities lie and what they
//! can do.
//!
//! Read when a device is made, so that commands need not walk chains. Takes no lock.

use pci::regs::{
    CONFIG_SIZE, CONVENTIONAL_SIZE, cap_id, express, ext_id, header, msi, msix, pm, sriov,
};
use pci::{Function, walk};

use crate::{Doe, Settings};

/// The unchanging part of a function's config space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Bytes of config space: 256 or 4096.
    pub(crate) config_size: u16,
    /// The interrupt pin that clients see; 0 is none.
    pub(crate) interrupt_pin: u8,
    /// What a VF shows as its IDs; also says that it is a VF.
    pub(crate) virtual_function: Option<crate::VirtualFunction>,
    /// Of the physical function of VFs: where its SR-IOV capability begins.
    pub(crate) sriov: Option<u16>,
    /// Whether clients see DOE capabilities.
    pub(crate) shows_doe: bool,
    /// Power management.
    pub(crate) pm: Option<Pm>,
    /// PCI Express.
    pub(crate) express: Option<Express>,
    /// Advanced features.
    pub(crate) af: Option<Af>,
    /// MSI.
    pub(crate) msi: Option<Msi>,
    /// MSI-X.
    pub(crate) msix: Option<Msix>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pm {
    /// Where the capability begins.
    pub(crate) at: u16,
    /// Whether going from D3hot to D0 resets the function.
    pub(crate) soft_reset: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Express {
    pub(crate) at: u16,
    /// Whether the registers of version 2 are there.
    pub(crate) version_2: bool,
    /// Whether the function can be reset on its own.
    pub(crate) flr: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Af {
    pub(crate) at: u16,
    pub(crate) flr: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Msi {
    pub(crate) at: u16,
    pub(crate) vectors: u16,
    /// Where the message data register lies, from the start of the capability.
    pub(crate) data_at: u16,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Msix {
    pub(crate) at: u16,
    pub(crate) vectors: u16,
    /// The BAR that holds the table.
    pub(crate) bar: usize,
    /// Where the table begins in that BAR, in bytes.
    pub(crate) table_at: u64,
}

/// AF: capability bits, 8 bits, from the start of the capability.
const AF_CAPABILITIES: u16 = 0x03;
/// AF: function-level reset.
const AF_FLR: u8 = 1 << 1;

impl Facts {
    /// Reads a function's config space.
    pub(crate) fn of(function: &dyn Function, settings: &Settings) -> Self {
        let config = Config(function);
        let mut facts = Self {
            config_size: CONVENTIONAL_SIZE,
            interrupt_pin: config.byte(header::INTERRUPT_PIN),
            virtual_function: settings.virtual_function,
            sriov: None,
            shows_doe: settings.doe == Doe::Exposed,
            pm: None,
            express: None,
            af: None,
            msi: None,
            msix: None,
        };
        for capability in walk::capabilities(|offset, into| function.config_read(offset, into)) {
            facts.note(&config, capability.id, capability.offset);
        }
        if facts.express.is_some() && config.dword(CONVENTIONAL_SIZE) != u32::MAX {
            facts.config_size = CONFIG_SIZE;
            facts.sriov = find_sriov(&config);
        }
        if facts.virtual_function.is_some() {
            facts.interrupt_pin = 0;
        }
        facts
    }

    /// Whether a reset of this function alone is possible.
    pub(crate) fn function_reset(&self) -> bool {
        self.express.is_some_and(|express| express.flr)
            || self.af.is_some_and(|af| af.flr)
            || self.pm.is_some_and(|pm| pm.soft_reset)
    }

    fn note(&mut self, config: &Config<'_>, id: u8, at: u16) {
        match id {
            cap_id::PM => {
                let control = config.word(at + pm::CONTROL);
                self.pm = Some(Pm { at, soft_reset: control & pm::NO_SOFT_RESET == 0 });
            }
            cap_id::EXPRESS => {
                let version = config.word(at + express::CAPABILITIES) & express::VERSION;
                let flr = config.dword(at + express::DEVCAP) & express::FLR_CAPABLE != 0;
                let version_2 = version >= express::VERSION_2;
                self.express = Some(Express { at, version_2, flr });
            }
            cap_id::AF => {
                let flr = config.byte(at + AF_CAPABILITIES) & AF_FLR != 0;
                self.af = Some(Af { at, flr });
            }
            cap_id::MSI => {
                let control = config.word(at + msi::CONTROL);
                let lg2 = (control >> msi::CAPABLE_SHIFT & msi::COUNT_LG2).min(msi::COUNT_LG2_MAX);
                let wide = control & msi::ADDRESS_64 != 0;
                let data_at = if wide { msi::DATA_64 } else { msi::DATA_32 };
                self.msi = Some(Msi { at, vectors: 1 << lg2, data_at });
            }
            cap_id::MSIX => {
                let table = config.dword(at + msix::TABLE);
                self.msix = Some(Msix {
                    at,
                    vectors: (config.word(at + msix::CONTROL) & msix::TABLE_SIZE) + 1,
                    bar: (table & msix::BAR_INDEX) as usize,
                    table_at: u64::from(table & !msix::BAR_INDEX),
                });
            }
            _ => {}
        }
    }
}

impl Msix {
    /// Bytes of the table.
    pub(crate) fn table_size(&self) -> u64 {
        u64::from(self.vectors) * msix::ENTRY_SIZE
    }
}

/// The SR-IOV capability of a function that can have VFs.
fn find_sriov(config: &Config<'_>) -> Option<u16> {
    walk::extended_capabilities(|offset, into| config.0.config_read(offset, into))
        .iter()
        .filter(|capability| capability.id == ext_id::SRIOV)
        .map(|capability| capability.offset)
        .find(|at| config.word(at.saturating_add(sriov::TOTAL_VFS)) != 0)
}

/// Config space of a function, register by register. Bytes beyond the end read as zero.
pub(crate) struct Config<'a>(pub(crate) &'a dyn Function);

impl Config<'_> {
    pub(crate) fn byte(&self, offset: u16) -> u8 {
        self.read::<1>(offset)[0]
    }

    pub(crate) fn word(&self, offset: u16) -> u16 {
        u16::from_le_bytes(self.read(offset))
    }

    pub(crate) fn dword(&self, offset: u16) -> u32 {
        u32::from_le_bytes(self.read(offset))
    }

    pub(crate) fn set_word(&self, offset: u16, value: u16) {
        self.0.config_write(offset, &value.to_le_bytes());
    }

    pub(crate) fn set_dword(&self, offset: u16, value: u32) {
        self.0.config_write(offset, &value.to_le_bytes());
    }

    fn read<const N: usize>(&self, offset: u16) -> [u8; N] {
        let mut bytes = [0; N];
        if usize::from(offset) + N <= usize::from(CONFIG_SIZE) {
            self.0.config_read(offset, &mut bytes);
        }
        bytes
    }
}
