//! `[[fault]]` entries: what goes wrong with a function's TDI, on demand.
//!
//! Takes no lock.

use pci::Address;
use tsm::fault::Fault;

use super::fields::{Fields, Read};
use super::functions::{self, FunctionEntry};
use super::mistake;

/// One fault of one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultEntry {
    /// The function, which the platform has.
    pub function: Address,
    /// What goes wrong.
    pub fault: Fault,
}

const KEYS: &[&str] = &["function", "fault"];

/// Reads one entry about one of `functions`.
pub(super) fn read(mut fields: Fields<'_>, functions: &[FunctionEntry]) -> Read<FaultEntry> {
    fields.allow(KEYS, &[])?;
    let said = fields.need("function")?;
    let (text, place) = fields.as_text("function", &said.value)?;
    let Ok(function) = text.parse() else {
        return Err(fields.mistake(place, mistake::Fault::NotAnAddress { text }));
    };
    let Some(entry) = functions.iter().find(|entry| functions::covers(entry, function)) else {
        let fault = mistake::Fault::NoSuchFunction { address: function };
        return Err(fields.mistake(place, fault));
    };
    if !entry.model.is_tee() {
        return Err(fields.mistake(place, mistake::Fault::NoTdi { address: function }));
    }
    let said = fields.need("fault")?;
    let (text, place) = fields.as_text("fault", &said.value)?;
    match text.parse() {
        Ok(fault) => Ok(FaultEntry { function, fault }),
        Err(bad) => Err(fields.mistake(place, mistake::Fault::NotAFault(bad))),
    }
}
