//! What the PCI/TSM core is told of each function, read from its config space.
//!
//! Takes no lock. A virtual function's own config space says of TEE-IO, IDE and DOE what hardware
//! says there; its place and its physical function come from the platform.

use pci::regs::{cap_id, express, ext_id};
use pci::{Address, Function, walk};
use tsm::FunctionFacts;

/// The facts of a function; `physical_function` is present for a virtual one.
pub(super) fn of(function: &dyn Function, physical_function: Option<Address>) -> FunctionFacts {
    let read = |offset: u16, into: &mut [u8]| function.config_read(offset, into);
    let express = walk::capabilities(read).into_iter().find(|found| found.id == cap_id::EXPRESS);
    let express = express.map(|found| found.offset);
    let kind = express.map(|at| {
        word(function, at + express::CAPABILITIES) >> express::TYPE_SHIFT & express::TYPE
    });
    let capabilities = express.map_or(0, |at| dword(function, at + express::DEVCAP));
    let extended = walk::extended_capabilities(read);
    let has = |id| extended.iter().any(|found| found.id == id);
    let address = function.address();
    FunctionFacts {
        address,
        requester_id: requester_id(address),
        physical_function,
        endpoint: matches!(
            kind,
            Some(express::TYPE_ENDPOINT | express::TYPE_UPSTREAM | express::TYPE_INTEGRATED)
        ),
        tee_io: capabilities & express::TEE_IO != 0,
        ide: has(ext_id::IDE),
        secure_mailbox: has(ext_id::DOE),
    }
}

/// Bus, device and function number, as on the wire.
pub(super) fn requester_id(address: Address) -> u16 {
    u16::from_be_bytes([address.bus, address.devfn()])
}

fn word(function: &dyn Function, offset: u16) -> u16 {
    let mut bytes = [0; 2];
    function.config_read(offset, &mut bytes);
    u16::from_le_bytes(bytes)
}

fn dword(function: &dyn Function, offset: u16) -> u32 {
    let mut bytes = [0; 4];
    function.config_read(offset, &mut bytes);
    u32::from_le_bytes(bytes)
}
