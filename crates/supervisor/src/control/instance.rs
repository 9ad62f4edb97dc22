//! The answers of a run.
//!
//! Takes, one after the other, locks of the overlay and of what it lists.

use std::process;
use std::sync::Arc;

use pci::Address;
use tdisp::exchange::NONCE_BYTES;
use tsm::Refusal;
use uapi::Errno;

use super::question::{Accounts, EvidenceRow, Listing, Refused, TsmOrder, TsmStatus};
use super::{Instance, rows, status};
use crate::front_end::FrontEnd;
use crate::ledger::Ledger;
use crate::machine::Assignable;
use crate::reach::Touch;

/// A run that answers questions.
pub(crate) struct Running {
    pub(crate) front: Arc<FrontEnd>,
    /// What it runs, with arguments.
    pub(crate) program: String,
}

impl Running {
    /// Whether sysfs has a link of this name in the function's directory.
    fn has_link(&self, path: &str) -> bool {
        self.front.overlay.readlink(path.as_bytes()).is_some_and(|found| found.is_ok())
    }

    fn is_present(&self, device: &Assignable) -> bool {
        self.has_link(&format!("/sys/bus/pci/devices/{}", device.address))
    }

    fn is_bound(&self, device: &Assignable) -> bool {
        self.has_link(&format!("/sys/bus/pci/devices/{}/driver", device.address))
    }

    fn function(&self, text: &str) -> Result<Address, Refused> {
        let address = text.parse().ok();
        let known = |address: &Address| {
            self.front.machine.devices.iter().any(|device| device.address == *address)
        };
        let missing = || format!("no function {text:?}; bindery ls lists them");
        address.filter(known).ok_or_else(|| Refused::new(Some(Errno::ENOENT), missing()))
    }

    /// The TSM that is meant where none is named: the one that the function has, or the only one.
    fn tsm_of(&self, function: Address) -> Result<String, Refused> {
        let tsm = &self.front.machine.tsm;
        let connected = tsm.attributes(function).and_then(|now| now.connect);
        if let Some(name) =
            connected.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
        {
            return Ok(name);
        }
        match tsm.tsms()[..] {
            [only] => Ok(format!("tsm{only}")),
            [] => Err(Refused::new(Some(Errno::ENXIO), "there is no TSM")),
            ref several => {
                let names: Vec<_> = several.iter().map(|number| format!("tsm{number}")).collect();
                Err(Refused::new(None, format!("which TSM? There are {}", names.join(", "))))
            }
        }
    }
}

impl Instance for Running {
    fn listing(&self) -> Listing {
        let files = &self.front.files;
        let functions = rows::rows(
            &self.front.machine,
            |device| self.is_present(device),
            |device| self.is_bound(device),
            |device| files.opener_of(device),
        );
        Listing { pid: process::id(), program: self.program.clone(), functions }
    }

    fn accounts(&self) -> Accounts {
        // What has been closed is not held any more, even where nobody has looked since.
        self.front.complete_closes(Touch::All, || ());
        let present = |device: &Assignable| self.is_present(device);
        let ledger = Ledger::of(&self.front.machine, &self.front.files, present);
        Accounts { pid: process::id(), program: self.program.clone(), ledger }
    }

    fn tsm_status(&self) -> TsmStatus {
        let status = status::of(&self.front.machine, |device| self.is_present(device));
        TsmStatus { pid: process::id(), program: self.program.clone(), ..status }
    }

    fn obey(&self, order: &TsmOrder) -> Result<(), Refused> {
        let told = |name: &Option<String>, function| match name {
            Some(name) => Ok(name.clone()),
            None => self.tsm_of(function),
        };
        let refused = |refusal: Refusal| Refused::new(Some(refusal.errno()), refusal);
        match order {
            TsmOrder::Connect { function, tsm } => {
                let function = self.function(function)?;
                let name = told(tsm, function)?;
                self.front.overlay.connect(function, name.as_bytes()).map_err(refused)
            }
            TsmOrder::Disconnect { function, tsm } => {
                let function = self.function(function)?;
                let name = told(tsm, function)?;
                self.front.overlay.disconnect(function, name.as_bytes()).map_err(refused)
            }
            TsmOrder::Fault { function, fault } => self.set_fault(self.function(function)?, fault),
        }
    }

    fn evidence(&self, function: &str, nonce: Option<&str>) -> Result<Vec<EvidenceRow>, Refused> {
        let function = self.function(function)?;
        let nonce = nonce.map(nonce_of).transpose()?;
        let refused = |refusal: Refusal| Refused::new(Some(refusal.errno()), refusal);
        let objects = self.front.machine.tsm.evidence(function, nonce).map_err(refused)?;
        let rows = objects.into_iter().map(|object| EvidenceRow {
            kind: object.kind.to_string(),
            generation: object.generation,
            nonce: object.nonce.map(|nonce| hex(&nonce)),
            bytes: hex(&object.bytes),
        });
        Ok(rows.collect())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn nonce_of(text: &str) -> Result<[u8; NONCE_BYTES], Refused> {
    let digits = text.as_bytes().chunks_exact(2);
    let bytes: Option<Vec<u8>> = digits
        .map(|pair| {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()
        })
        .collect();
    let whole = bytes.filter(|_| text.len() == 2 * NONCE_BYTES);
    let nonce = whole.and_then(|bytes| <[u8; NONCE_BYTES]>::try_from(bytes).ok());
    let reason = || format!("a nonce is {NONCE_BYTES} bytes in hexadecimal, not {text:?}");
    nonce.ok_or_else(|| Refused::new(Some(Errno::EINVAL), reason()))
}

impl Running {
    fn set_fault(&self, function: Address, fault: &str) -> Result<(), Refused> {
        let (tsm, devices) = (&self.front.machine.tsm, &self.front.machine.devices);
        if !devices.iter().any(|device| device.address == function && device.tee) {
            let text = format!("{function} takes no part in TEE-IO: no fault can befall its TDI");
            return Err(Refused::new(None, text));
        }
        if fault == "none" {
            tsm.clear_faults(function);
        } else {
            let fault = fault.parse::<tsm::fault::Fault>();
            tsm.set_fault(function, fault.map_err(|error| Refused::new(None, error))?);
        }
        Ok(())
    }
}
