//! What sysfs shows of a function's TSM context.
//!
//! Takes [`rank::TsmRegistry`](sync::rank::TsmRegistry), then [`rank::Dsm`](sync::rank::Dsm), one
//! after the other. Source: Linux 7.3, `pci_tsm_attr_group`, `pci_tsm_auth_attr_group`.

use std::sync::Arc;

use pci::Address;

use crate::connect::name;
use crate::line::Line;
use crate::{Binding, Registry};

/// The attributes of a function that has a `tsm/` directory. Texts end in a newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// `tsm/connect`, where the function has it.
    pub connect: Option<String>,
    /// Whether the function has `tsm/disconnect`.
    pub disconnect: bool,
    /// `tsm/dsm`, where the function has it.
    pub dsm: Option<String>,
    /// `tsm/bound`, where the function has it.
    pub bound: Option<String>,
    /// `authenticated`, beside the directory: the TSM's name while it has a session with a device that has
    /// proven who it is.
    pub authenticated: String,
}

impl Registry {
    /// What sysfs shows of a function; `None` where there is no `tsm/` directory.
    pub fn attributes(&self, function: Address) -> Option<Attributes> {
        let (facts, line) = {
            let table = self.table();
            let entry = table.functions.get(&function).filter(|entry| entry.present)?;
            if table.tsms.is_empty() {
                return None;
            }
            (entry.facts, entry.line.clone().filter(|_| entry.connected))
        };
        let connectable = facts.is_connectable();
        if !connectable && line.is_none() {
            return None;
        }
        let tee_dsm = line.as_ref().is_some_and(|line| line.dsm.tee_io);
        let tsm = shown(line.as_ref().map(|line| name(line.tsm)));
        let secured = line.as_ref().filter(|line| line.lock().secured().is_some());
        let authenticated = shown(secured.map(|line| name(line.tsm)));
        let dsm = || shown(line.as_ref().map(|line| line.dsm.address.to_string()));
        let bound = || shown(line.as_ref().and_then(|line| bound(line, function)));
        Some(Attributes {
            connect: connectable.then_some(tsm),
            disconnect: connectable,
            dsm: (connectable || tee_dsm).then(dsm),
            bound: (connectable && facts.tee_io || tee_dsm).then(bound),
            authenticated,
        })
    }
}

/// The TSM's name, where a TDI is bound: not while the bind is in flight.
fn bound(line: &Arc<Line>, function: Address) -> Option<String> {
    let binding = line.lock().places.get(&function).map(|place| place.binding);
    let is_bound = matches!(binding, Some(Binding::Bound { .. } | Binding::Unknown));
    is_bound.then(|| name(line.tsm))
}

fn shown(text: Option<String>) -> String {
    text.unwrap_or_default() + "\n"
}
