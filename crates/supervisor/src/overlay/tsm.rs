//! What sysfs has of TSMs, and of functions that can be connected to one.
//!
//! A function's files come and go with what the TSM core says of it: [`TsmFiles::refresh`] makes the
//! names agree, and is called after everything that may change it. Connecting and disconnecting wait for
//! a device, and do so with no lock held.
//!
//! A stream that a device uses is a link in its host bridge's directory, which follows likewise.
//!
//! Locks: `shown`, then, one after the other, those of the TSM core and that of `Names`. What
//! attributes show takes those of the TSM core, for it is shown with `Names` locked.
//! Source: Linux 7.3, Documentation/ABI/testing/sysfs-bus-pci and sysfs-class-tsm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pci::Address;
use tsm::{Attributes, Refusal, Registry};
use uapi::Errno;

use super::sysfs::{self, fixed, link_to, live, power, read_write, write_only};
use super::tree::Entry;
use super::writable::Uevent;
use super::{Attribute, Names};
use crate::machine::{Machine, Streams};

const CLASS: &str = "/sys/class/tsm";
/// The platform device behind a TSM.
const PLATFORM: &str = "/sys/devices/platform/bindery-tsm";
const PLATFORM_BUS: &str = "/sys/bus/platform";

/// The files of a machine's functions that have to do with its TSMs.
pub(super) struct TsmFiles {
    names: Weak<Names>,
    tsm: Arc<Registry>,
    /// Each function's directory.
    directories: BTreeMap<Address, String>,
    streams: Arc<Streams>,
    /// What there is. Held from a look at the TSM core until the names agree.
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    files: BTreeMap<Address, BTreeSet<TsmFile>>,
    /// Links, by path, and where they lead.
    streams: BTreeMap<String, String>,
}

/// A file of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TsmFile {
    Connect,
    Disconnect,
    Dsm,
    Bound,
    Authenticated,
}

impl TsmFiles {
    /// Those of the functions in `directories`. There are none before the first
    /// [`refresh`](Self::refresh).
    pub(super) fn new(
        names: &Arc<Names>,
        machine: &Machine,
        directories: &BTreeMap<Address, String>,
    ) -> Arc<Self> {
        Arc::new(Self {
            names: Arc::downgrade(names),
            tsm: Arc::clone(&machine.tsm),
            directories: directories.clone(),
            streams: Arc::clone(&machine.streams),
            shown: Mutex::default(),
        })
    }

    /// The TSMs themselves.
    pub(super) fn class(&self) -> Vec<(String, Entry)> {
        let numbers = self.tsm.tsms();
        if numbers.is_empty() {
            return Vec::new();
        }
        let mut entries = platform_device();
        entries.extend(numbers.into_iter().flat_map(class_device));
        entries
    }

    /// Makes the names agree with the TSM core.
    pub(super) fn refresh(self: &Arc<Self>) {
        let Some(names) = self.names.upgrade() else { return };
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for (&function, directory) in &self.directories {
            let wanted = self.tsm.attributes(function).map(|now| TsmFile::of(&now));
            let wanted = wanted.unwrap_or_default();
            let there = shown.files.entry(function).or_default();
            let path = |file: &TsmFile| format!("{directory}/{}", file.name());
            names.remove(there.difference(&wanted).map(path));
            if wanted.is_empty() && !there.is_empty() {
                names.remove([format!("{directory}/tsm")]);
            }
            let missing = wanted.difference(there);
            names.put(missing.map(|file| (path(file), self.entry(function, *file))));
            *there = wanted;
        }
        let wanted = self.stream_links();
        let there = &shown.streams;
        let gone = there.iter().filter(|(path, device)| wanted.get(*path) != Some(*device));
        names.remove(gone.map(|(path, _)| path.clone()));
        let missing = wanted.iter().filter(|(path, device)| there.get(*path) != Some(*device));
        names.put(missing.map(|(path, device)| {
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            (path.clone(), link_to(directory, device))
        }));
        shown.streams = wanted;
    }

    fn stream_links(&self) -> BTreeMap<String, String> {
        let registered = self.streams.registered().into_iter();
        let link = registered.filter_map(|stream| {
            let path = format!("{}/{}", sysfs::root_bus(stream.host_bridge), stream.name);
            Some((path, self.directories.get(&stream.endpoint)?.clone()))
        });
        link.collect()
    }

    /// What a write of `written` to the function's `tsm/connect` does. Waits for the device.
    ///
    /// # Errors
    /// As [`Registry::connect`].
    pub(super) fn connect(
        self: &Arc<Self>,
        function: Address,
        written: &[u8],
    ) -> Result<(), Refusal> {
        let connected = self.tsm.connect(function, written);
        self.refresh();
        connected
    }

    /// What a write of `written` to the function's `tsm/disconnect` does. Waits for the device.
    ///
    /// # Errors
    /// As [`Registry::disconnect`].
    pub(super) fn disconnect(
        self: &Arc<Self>,
        function: Address,
        written: &[u8],
    ) -> Result<(), Refusal> {
        let disconnected = self.tsm.disconnect(function, written);
        self.refresh();
        disconnected
    }

    /// The function goes away: it is unbound and forgotten. Waits for the device.
    pub(super) fn leave(self: &Arc<Self>, function: Address) {
        self.tsm.remove(function);
        self.refresh();
    }

    /// The function is there again. Waits for the device.
    pub(super) fn arrive(self: &Arc<Self>, function: Address) {
        self.tsm.arrive(function);
        self.refresh();
    }

    fn entry(self: &Arc<Self>, function: Address, file: TsmFile) -> Entry {
        let tsm = Arc::clone(&self.tsm);
        // The context may go before the name does; then there is nothing to tell.
        let show = move || {
            let now = tsm.attributes(function);
            now.and_then(|now| file.text(now)).unwrap_or_else(|| "\n".to_owned())
        };
        let store = |write: Write| Arc::new(Store { files: Arc::downgrade(self), function, write });
        match file {
            TsmFile::Connect => read_write(show, store(TsmFiles::connect)),
            TsmFile::Disconnect => write_only(store(TsmFiles::disconnect)),
            TsmFile::Dsm | TsmFile::Bound | TsmFile::Authenticated => live(show),
        }
    }
}

impl TsmFile {
    /// Those that a function with such attributes has.
    fn of(attributes: &Attributes) -> BTreeSet<Self> {
        let Attributes { connect, disconnect, dsm, bound, authenticated: _ } = attributes;
        let there = [
            (Self::Connect, connect.is_some()),
            (Self::Disconnect, *disconnect),
            (Self::Dsm, dsm.is_some()),
            (Self::Bound, bound.is_some()),
            (Self::Authenticated, true),
        ];
        there.into_iter().filter(|(_, there)| *there).map(|(file, _)| file).collect()
    }

    /// Its path in the function's directory.
    const fn name(self) -> &'static str {
        match self {
            Self::Connect => "tsm/connect",
            Self::Disconnect => "tsm/disconnect",
            Self::Dsm => "tsm/dsm",
            Self::Bound => "tsm/bound",
            Self::Authenticated => "authenticated",
        }
    }

    /// What reading it gives.
    fn text(self, attributes: Attributes) -> Option<String> {
        match self {
            Self::Connect => attributes.connect,
            Self::Disconnect => None,
            Self::Dsm => attributes.dsm,
            Self::Bound => attributes.bound,
            Self::Authenticated => Some(attributes.authenticated),
        }
    }
}

/// What a write does.
type Write = fn(&Arc<TsmFiles>, Address, &[u8]) -> Result<(), Refusal>;

/// `tsm/connect` or `tsm/disconnect` of a function.
struct Store {
    files: Weak<TsmFiles>,
    function: Address,
    write: Write,
}

impl Attribute for Store {
    /// # Errors
    /// Those of [`TsmFiles::connect`] and [`TsmFiles::disconnect`].
    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let files = self.files.upgrade().ok_or(Errno::ENODEV)?;
        (self.write)(&files, self.function, bytes).map_err(|refusal| refusal.errno())?;
        Ok(bytes.len())
    }
}

fn platform_device() -> Vec<(String, Entry)> {
    let name = PLATFORM.rsplit_once('/').map_or(PLATFORM, |(_, name)| name);
    let modalias = format!("platform:{name}");
    let mut entries = vec![
        (
            format!("{PLATFORM_BUS}/devices/{name}"),
            link_to(&format!("{PLATFORM_BUS}/devices"), PLATFORM),
        ),
        (format!("{PLATFORM}/subsystem"), link_to(PLATFORM, PLATFORM_BUS)),
        (format!("{PLATFORM}/modalias"), fixed(0o444, &format!("{modalias}\n"))),
        (format!("{PLATFORM}/uevent"), uevent(&format!("MODALIAS={modalias}\n"))),
    ];
    entries.extend(power(PLATFORM));
    entries
}

fn class_device(number: u32) -> Vec<(String, Entry)> {
    // Between a device and one of a class stands a directory with the name of the class.
    let device = format!("{PLATFORM}/tsm/tsm{number}");
    let mut entries = vec![
        (format!("{CLASS}/tsm{number}"), link_to(CLASS, &device)),
        (format!("{device}/subsystem"), link_to(&device, CLASS)),
        (format!("{device}/device"), link_to(&device, PLATFORM)),
        (format!("{device}/uevent"), uevent("")),
    ];
    entries.extend(power(&device));
    entries
}

fn uevent(text: &str) -> Entry {
    let text = text.to_owned();
    read_write(move || text.clone(), Arc::new(Uevent))
}
