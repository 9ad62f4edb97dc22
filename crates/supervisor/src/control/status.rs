//! How TSMs and TDIs stand, as `bindery tsm status` and the TEE column of `bindery ls` show it.
//!
//! Takes what the ledger takes of `tsm` and of the devices.

use tsm::{Binding, ConnectionView, Counters, State};

use super::question::{TsmCounts, TsmRow, TsmStatus};
use crate::ledger;
use crate::machine::{Assignable, Machine};

/// How a machine's TSMs and TDIs stand. `present` says whether a function is there now.
pub(super) fn of(machine: &Machine, present: impl Fn(&Assignable) -> bool) -> TsmStatus {
    let connections = machine.tsm.ledger();
    let tee = machine.devices.iter().filter(|device| device.tee && present(device));
    TsmStatus {
        tsms: machine.tsm.tsms().into_iter().map(name).collect(),
        functions: tee.map(|device| row(machine, &connections, device)).collect(),
        counts: counts(&machine.tsm.counters()),
        ..TsmStatus::default()
    }
}

fn row(machine: &Machine, connections: &[ConnectionView], device: &Assignable) -> TsmRow {
    let address = device.address;
    let has_it = |connection: &&ConnectionView| {
        connection.dsm == address || connection.tdis.iter().any(|tdi| tdi.function == address)
    };
    let connection = connections.iter().find(has_it);
    let own = connection.filter(|connection| connection.dsm == address);
    let tdi = ledger::tdi(machine, connections, device);
    TsmRow {
        dsm: connection.map(|connection| connection.dsm.to_string()),
        connected_to: connection.map(|connection| name(connection.tsm)),
        keys: own.map(|connection| connection.keys),
        exchange: own.and_then(exchange),
        faults: machine.tsm.faults(address).iter().map(ToString::to_string).collect(),
        advice: advice(machine.tsm.binding(address), device, connection),
        tdi,
    }
}

/// What a security manager is asked now.
fn exchange(connection: &ConnectionView) -> Option<String> {
    let (operation, function) = connection.running?;
    let waiting = match connection.waiting {
        0 => String::new(),
        1 => "; 1 call waits".to_owned(),
        several => format!("; {several} calls wait"),
    };
    Some(format!("{operation} {function}{waiting}"))
}

fn advice(
    binding: Binding,
    device: &Assignable,
    connection: Option<&ConnectionView>,
) -> Option<String> {
    let address = device.address;
    let in_error = device.tdi_state() == Some(State::Error);
    match binding {
        Binding::Quarantined => Some(match connection {
            Some(connection) => format!(
                "what the device holds of it is not known; reset it, or: bindery tsm disconnect {}",
                connection.dsm
            ),
            None => format!("what the device holds of it is not known; reset {address}"),
        }),
        Binding::Unknown => Some("an exchange was given up; unbind it".to_owned()),
        Binding::Bound { .. } if in_error => Some("it broke its lock; unbind it".to_owned()),
        Binding::Bound { .. } | Binding::Binding => None,
        Binding::Unbound if in_error => {
            Some("it broke its lock, and nobody has it; reset it".to_owned())
        }
        Binding::Unbound => None,
    }
}

/// How a function stands as a TEE device, in a word or two.
pub(super) fn tee(machine: &Machine, device: &Assignable) -> String {
    let tdi = |state: State| {
        let short = state.name().trim_start_matches("CONFIG_");
        format!("tdi {short}")
    };
    let state = device.tdi_state();
    match machine.tsm.binding(device.address) {
        _ if !device.tee => "-".to_owned(),
        Binding::Quarantined => "quarantined".to_owned(),
        Binding::Binding => "tdi binding".to_owned(),
        Binding::Unknown => "tdi unknown".to_owned(),
        Binding::Bound { state: seen } => tdi(state.unwrap_or(seen)),
        Binding::Unbound if state == Some(State::Error) => tdi(State::Error),
        Binding::Unbound if is_connected(machine, device) => "connected".to_owned(),
        Binding::Unbound => "capable".to_owned(),
    }
}

fn is_connected(machine: &Machine, device: &Assignable) -> bool {
    let attributes = machine.tsm.attributes(device.address);
    let dsm = attributes.and_then(|now| now.dsm);
    dsm.is_some_and(|dsm| !dsm.trim().is_empty())
}

fn name(tsm: u32) -> String {
    format!("tsm{tsm}")
}

fn counts(counters: &Counters) -> TsmCounts {
    let Counters { binds, unbinds, binds_refused, cancelled, timed_out, quarantined } = *counters;
    TsmCounts { binds, unbinds, binds_refused, cancelled, timed_out, quarantined }
}
