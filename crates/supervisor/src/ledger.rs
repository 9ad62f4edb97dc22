//! What a run holds now: objects and memory of each `/dev/iommu`, TDIs as host, TSM and device see them,
//! keys, open files, and what is under way.
//!
//! A ledger is a value in one canonical form: rows in order, nothing that only ever grows. Two of one run
//! are equal where the run holds the same, so that whoever takes something down can compare before
//! with after. Takes, one after the other, locks of `iommufd`, `vfio`, `tsm`, the devices' security
//! managers and the table of files.

use std::collections::BTreeMap;
use std::sync::Arc;

use device::security::Manager;
use iommufd::Counts;
use pci::Address;
use serde::{Deserialize, Serialize};
use tsm::{Binding, ConnectionView, ObjectView, State, TdiView};

use crate::files::{File, Files};
use crate::machine::{Assignable, Machine};
use crate::observer::OpenFile;

/// What a run holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Every context, closed ones that bound devices keep alive included, in the order of opening.
    pub contexts: Vec<ContextRow>,
    /// Every security manager of a device, by address.
    pub managers: Vec<ManagerRow>,
    /// Every function that is there and takes part in TEE-IO, by address.
    pub tdis: Vec<TdiRow>,
    /// Every open file, in the order of opening.
    pub files: Vec<FileRow>,
    /// Commands that are served now: on one of them, and writes of attributes whose writer may be dead.
    pub serving: usize,
}

/// One open of `/dev/iommu`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextRow {
    /// Which open of this run it was, from 1.
    pub file: u64,
    /// The process that opened it.
    pub opener: i32,
    /// Objects by type, `tombstone` for ids that are used up; no entry for none.
    pub objects: BTreeMap<String, usize>,
    /// Mappings in all address spaces.
    pub mappings: u64,
    /// Bytes of those.
    pub mapped_bytes: u64,
    /// Bytes of those whose memory is pinned.
    pub pinned_bytes: u64,
}

/// The security manager of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerRow {
    /// The function with the security manager.
    pub function: String,
    /// The TSM it is connected to.
    pub tsm: Option<String>,
    /// What that TSM's backend calls itself.
    pub backend: Option<String>,
    /// IDE keys in use, as the TSM counts.
    pub keys: usize,
    /// IDE keys in use, as the device counts.
    pub device_keys: Option<usize>,
    /// IDE keys of the root port above it, for all devices behind that; `None` where there is none.
    pub port_keys: Option<usize>,
    /// SPDM sessions, as the TSM counts.
    pub sessions: usize,
    /// SPDM sessions, as the device counts.
    pub device_sessions: Option<usize>,
    /// Calls that wait for its exchange slot.
    pub waiting: usize,
    /// What the exchange in flight is for, and which function.
    pub exchange: Option<String>,
}

/// A TDI, or a function that could be one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TdiRow {
    /// The function.
    pub function: String,
    /// The host's view: `unbound`, `binding`, `bound`, `unknown`, `quarantined`.
    pub host: String,
    /// The TSM's view: the state that the device told it last.
    pub tsm: Option<String>,
    /// The device's own view.
    pub device: Option<String>,
    /// The VM that has it.
    pub vm: Option<u64>,
    /// Its number in the guest.
    pub guest_id: Option<u64>,
    /// Private mappings of its memory.
    pub mappings: usize,
    /// The evidence that is held of it.
    pub evidence: Vec<String>,
}

/// An open file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRow {
    /// Which open of this run it was, from 1.
    pub file: u64,
    /// Where it was opened.
    pub path: String,
    /// The process that opened it.
    pub opener: i32,
    /// Commands that run on it.
    pub commands: usize,
}

impl Ledger {
    /// What `files` and `machine` hold. `present` says whether a function is there now.
    pub(crate) fn of(
        machine: &Machine,
        files: &Files,
        present: impl Fn(&Assignable) -> bool,
    ) -> Self {
        // First: what has ended by now shows in all the rest.
        let serving = files.serving();
        let connections = machine.tsm.ledger();
        let tee = machine.devices.iter().filter(|device| device.tee && present(device));
        let open: Vec<_> = files.all().into_iter().map(|(_, file)| FileRow::of(&file)).collect();
        Self {
            contexts: contexts(files),
            managers: managers(machine, &connections),
            tdis: tee.map(|device| tdi(machine, &connections, device)).collect(),
            serving,
            files: open,
        }
    }
}

fn contexts(files: &Files) -> Vec<ContextRow> {
    files
        .contexts()
        .iter()
        .map(|(told, context)| ContextRow::of(told.serial, told.opener, &context.counts()))
        .collect()
}

impl ContextRow {
    fn of(file: u64, opener: i32, counts: &Counts) -> Self {
        let objects = [
            ("device", counts.devices),
            ("hwpt", counts.hwpts),
            ("ioas", counts.ioases),
            ("tombstone", counts.tombstones),
            ("vdevice", counts.vdevices),
            ("viommu", counts.viommus),
        ];
        let objects = objects.into_iter().filter(|(_, count)| *count > 0);
        Self {
            file,
            opener,
            objects: objects.map(|(name, count)| (name.to_owned(), count)).collect(),
            mappings: counts.areas,
            mapped_bytes: counts.mapped_bytes,
            pinned_bytes: counts.pinned_bytes,
        }
    }
}

impl FileRow {
    fn of(file: &File) -> Self {
        let OpenFile { serial, ref path, opener, .. } = file.told;
        Self { file: serial, path: path.clone(), opener, commands: file.commands() }
    }
}

/// Every security manager, connected or not.
fn managers(machine: &Machine, connections: &[ConnectionView]) -> Vec<ManagerRow> {
    let mut rows: BTreeMap<Address, ManagerRow> = BTreeMap::new();
    let mut seen: Vec<&Arc<Manager>> = Vec::new();
    for device in &machine.devices {
        let Some(manager) = &device.security else { continue };
        // Its functions are in order of address: the first is the one that speaks for it.
        if seen.iter().all(|known| !Arc::ptr_eq(known, manager)) {
            seen.push(manager);
            let row = ManagerRow::unconnected(machine, device.address, Some(manager));
            rows.insert(device.address, row);
        }
    }
    for connection in connections {
        let row = rows.entry(connection.dsm);
        row.or_insert_with(|| ManagerRow::unconnected(machine, connection.dsm, None))
            .connect(connection);
    }
    rows.into_values().collect()
}

impl ManagerRow {
    fn unconnected(machine: &Machine, function: Address, device: Option<&Manager>) -> Self {
        let above = machine.bridges.iter().find(|bridge| bridge.leads_to(function));
        let port_keys = above.map(|bridge| bridge.port.keys());
        let device_keys = device.map(Manager::keys);
        let device_sessions = device.map(Manager::sessions);
        Self {
            function: function.to_string(),
            tsm: None,
            backend: None,
            keys: 0,
            device_keys,
            port_keys,
            sessions: 0,
            device_sessions,
            waiting: 0,
            exchange: None,
        }
    }

    fn connect(&mut self, connection: &ConnectionView) {
        self.tsm = Some(format!("tsm{}", connection.tsm));
        self.backend = Some(connection.backend.clone());
        self.keys = connection.keys;
        self.sessions = usize::from(connection.secured.is_some());
        self.waiting = connection.waiting;
        self.exchange =
            connection.running.map(|(operation, function)| format!("{operation} {function}"));
    }
}

/// The three views of one function's TDI.
pub(crate) fn tdi(
    machine: &Machine,
    connections: &[ConnectionView],
    device: &Assignable,
) -> TdiRow {
    let views = connections.iter().flat_map(|connection| &connection.tdis);
    let view = views.into_iter().find(|view| view.function == device.address);
    let name = |state: State| state.name().to_owned();
    TdiRow {
        function: device.address.to_string(),
        // Who left a connection may be in quarantine still.
        host: binding_name(machine.tsm.binding(device.address)).to_owned(),
        tsm: view.and_then(|view| view.tsm).map(name),
        device: device.tdi_state().map(name),
        vm: view.and_then(|view| view.vm).map(|vm| vm.0),
        guest_id: view.and_then(|view| view.guest_id),
        mappings: view.map_or(0, |view| view.mappings),
        evidence: view.map(TdiRow::evidence).unwrap_or_default(),
    }
}

impl TdiRow {
    fn evidence(view: &TdiView) -> Vec<String> {
        let text = |object: &ObjectView| {
            let ObjectView { kind, generation, length, has_nonce } = object;
            let nonce = if *has_nonce { ", nonce" } else { "" };
            format!("{kind} {generation} ({length} bytes{nonce})")
        };
        view.objects.iter().map(text).collect()
    }
}

fn binding_name(binding: Binding) -> &'static str {
    match binding {
        Binding::Unbound => "unbound",
        Binding::Binding => "binding",
        Binding::Bound { .. } => "bound",
        Binding::Unknown => "unknown",
        Binding::Quarantined => "quarantined",
    }
}
