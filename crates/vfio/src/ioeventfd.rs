//! `VFIO_DEVICE_IOEVENTFD`: eventfds that write a value to a BAR when they are signalled.
//!
//! A registration is one value at one place. It stands in a list under `MEMORY` from the command that asks for it
//! to the one that takes it back, or to the close of the file. Its write is done by whoever watches eventfds, with no lock
//! held, as each write to a BAR; meanwhile the entry is marked, and who ends it waits for the mark to go. So no
//! write comes after the end.
//!
//! Deliberately absent: a write that is done before the `write` of the eventfd returns, as the kernel's. Source:
//! [uapi/vfio.h]; the order of checks is that of v7.3 `vfio_pci_rdwr.c`.

use std::mem::offset_of;
use std::sync::{Arc, Weak};

use iommufd::Resource;
use pci::BarKind;
use pci::regs::BAR_COUNT;
use uapi::vfio::{Ioeventfd, ioeventfd_flags, region_index};

use crate::argument::Argument;
use crate::command::Bound;
use crate::irq::Trigger;
use crate::region::{self, Region};
use crate::{Device, Refusal, Watching};

/// How many a device has at most, as in Linux.
const IOEVENTFDS_MAX: usize = 1000;
/// The descriptor that takes a registration back.
const TAKE_BACK: i32 = -1;

/// `VFIO_DEVICE_IOEVENTFD`: from now on a signal of the eventfd writes the value, or with descriptor -1 it does
/// no more.
///
/// # Errors
/// In this order:
/// - [`Refusal::Unreachable`], [`Refusal::Argsz`] – the argument (`EFAULT`, `EINVAL`).
/// - [`Refusal::Flags`], [`Refusal::NegativeFd`] – not one width, a descriptor below -1 (`EINVAL`).
/// - [`Refusal::NotBar`], [`Refusal::OutsideRegion`], [`Refusal::OverMsixTable`] – the place (`EINVAL`).
/// - [`Refusal::NoIoeventfd`] – nothing to take back (`ENODEV`); [`Refusal::IoeventfdExists`] (`EEXIST`).
/// - [`Refusal::IoeventfdsExhausted`] (`ENOSPC`).
/// - [`Refusal::Iommufd`] – no memory for it (`ENOMEM`).
/// - [`Refusal::ClosedFd`], [`Refusal::NotEventfd`] (`EBADF`, `EINVAL`).
/// - [`Refusal::OutOfMemory`] – nobody watches it (`ENOMEM`).
///
/// Takes `MEMORY`; taking back waits for a write that is on its way.
pub(crate) fn ioeventfd(bound: &Bound<'_>, argument: &Argument<'_>) -> Result<u32, Refusal> {
    let least = offset_of!(Ioeventfd, reserved);
    let asked: Ioeventfd = argument.read(least)?;
    let width = asked.flags & ioeventfd_flags::SIZE_MASK;
    if width != asked.flags || !width.is_power_of_two() {
        return Err(Refusal::Flags { flags: asked.flags });
    }
    if asked.fd < TAKE_BACK {
        return Err(Refusal::NegativeFd { fd: asked.fd });
    }
    let write = Write::check(bound.device, &asked, width as usize)?;
    if asked.fd == TAKE_BACK {
        bound.device.take_back(write)?;
        return Ok(0);
    }
    // Looked up before the list is locked, and judged after.
    let signal = argument.caller.eventfd(asked.fd);
    let admitted = bound.admit(Resource::Watch);
    let mut memory = bound.device.memory().lock();
    memory.ioeventfds.admit(write)?;
    admitted?;
    let signal = signal.map_err(|fault| Refusal::of_eventfd(asked.fd, fault))?;
    let name = memory.ioeventfds.enter(write);
    drop(memory);
    bound.device.publish(name, watch(bound.device, name, write, signal))
}

/// A value, and where it is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Write {
    bar: usize,
    offset: u64,
    data: u64,
    /// In bytes: 1, 2, 4 or 8.
    width: usize,
}

impl Write {
    fn check(device: &Device, asked: &Ioeventfd, width: usize) -> Result<Self, Refusal> {
        let Ok((Region::Bar(bar), offset)) = region::locate(asked.offset) else {
            return Err(Refusal::NotBar { position: asked.offset });
        };
        assert!(bar < BAR_COUNT, "locate knows six BARs");
        let size = device.function().bar(bar).map_or(0, |bar| bar.size);
        let end = offset + width as u64;
        if end > size {
            let region = region_index::BAR0 + u32::try_from(bar).unwrap_or(0);
            return Err(Refusal::OutsideRegion { region, offset });
        }
        let table = device.facts().msix.filter(|msix| msix.bar == bar);
        if table.is_some_and(|msix| {
            end > msix.table_at && offset < msix.table_at.saturating_add(msix.table_size())
        }) {
            return Err(Refusal::OverMsixTable { offset });
        }
        Ok(Self { bar, offset, data: asked.data, width })
    }

    /// Writes the value, by the widest accesses that are aligned.
    fn reach(self, device: &Device) {
        let bytes = self.data.to_le_bytes();
        region::write_value(device, self.bar, self.offset, &bytes[..self.width]);
    }
}

/// The registrations of a device that a client has open.
#[derive(Default)]
pub(crate) struct Ioeventfds {
    entries: Vec<Entry>,
    /// How many there were, and so the last one's name.
    registrations: u64,
}

struct Entry {
    name: u64,
    write: Write,
    /// None while the eventfd is being handed to the watcher.
    watching: Option<Box<dyn Watching>>,
    /// How many threads do the write.
    running: u32,
    /// Taken back, and still here only because the write is being done.
    ended: bool,
}

impl Ioeventfds {
    /// Ends all, for the close of the file; says whether a write is being done.
    pub(crate) fn end_all(&mut self) -> (Vec<Box<dyn Watching>>, bool) {
        (self.end(|_| true), self.any_runs())
    }

    fn admit(&self, write: Write) -> Result<(), Refusal> {
        if self.standing().any(|entry| entry.write == write) {
            return Err(Refusal::IoeventfdExists);
        }
        if self.standing().count() >= IOEVENTFDS_MAX {
            return Err(Refusal::IoeventfdsExhausted);
        }
        Ok(())
    }

    /// Enters a write that no eventfd leads to yet; returns its name.
    fn enter(&mut self, write: Write) -> u64 {
        self.registrations += 1;
        let name = self.registrations;
        self.entries.push(Entry { name, write, watching: None, running: 0, ended: false });
        name
    }

    fn standing(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !entry.ended)
    }

    fn entry(&mut self, name: u64) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.name == name)
    }

    /// Ends the entries chosen; returns what is to be let go of with no lock held.
    fn end(&mut self, chosen: impl Fn(&Entry) -> bool) -> Vec<Box<dyn Watching>> {
        let mut let_go = Vec::new();
        for entry in self.entries.iter_mut().filter(|entry| chosen(entry)) {
            entry.ended = true;
            let_go.extend(entry.watching.take());
        }
        self.forget_ended();
        let_go
    }

    /// A write of entry `name` is done.
    fn end_write(&mut self, name: u64) {
        if let Some(entry) = self.entry(name) {
            entry.running -= 1;
        }
        self.forget_ended();
    }

    fn forget_ended(&mut self) {
        self.entries.retain(|entry| !entry.ended || entry.running > 0);
    }

    fn runs(&self, name: u64) -> bool {
        self.entries.iter().any(|entry| entry.name == name && entry.running > 0)
    }

    fn any_runs(&self) -> bool {
        self.entries.iter().any(|entry| entry.running > 0)
    }
}

/// Has the eventfd watched for the entry `name`.
fn watch(
    device: &Arc<Device>,
    name: u64,
    write: Write,
    signal: Trigger,
) -> Result<Box<dyn Watching>, Refusal> {
    let Some(watch) = device.settings().watch.as_ref() else { return Err(Refusal::OutOfMemory) };
    let device: Weak<Device> = Arc::downgrade(device);
    let signalled = move || {
        if let Some(device) = device.upgrade() {
            device.signalled(name, write);
        }
    };
    watch.watch(signal, Box::new(signalled)).map_err(|_| Refusal::OutOfMemory)
}

impl Device {
    /// Waits until no eventfd's write is being done. All were ended, so none begins.
    pub(crate) fn wait_for_ioeventfds(&self) {
        let memory = self.memory().lock();
        drop(self.turn_passed().wait_while(memory, |memory| memory.ioeventfds.any_runs()));
    }

    fn take_back(&self, write: Write) -> Result<(), Refusal> {
        let mut memory = self.memory().lock();
        let name = memory.ioeventfds.standing().find(|entry| entry.write == write);
        let name = name.map(|entry| entry.name).ok_or(Refusal::NoIoeventfd)?;
        let let_go = memory.ioeventfds.end(|entry| entry.name == name);
        let memory = self.turn_passed().wait_while(memory, |memory| memory.ioeventfds.runs(name));
        drop(memory);
        drop(let_go);
        Ok(())
    }

    /// Completes a registration, or ends it where its eventfd does not serve.
    fn publish(
        &self,
        name: u64,
        watching: Result<Box<dyn Watching>, Refusal>,
    ) -> Result<u32, Refusal> {
        let mut memory = self.memory().lock();
        let (watching, result) = match watching {
            Ok(watching) => (Some(watching), Ok(0)),
            Err(refusal) => (None, Err(refusal)),
        };
        let let_go = match memory.ioeventfds.entry(name).filter(|entry| !entry.ended) {
            Some(entry) if watching.is_some() => {
                entry.watching = watching;
                Vec::new()
            }
            Some(_) => memory.ioeventfds.end(|entry| entry.name == name),
            // Taken back meanwhile, or the file is closed.
            None => watching.into_iter().collect(),
        };
        drop(memory);
        drop(let_go);
        result
    }

    /// The eventfd of entry `name` was signalled.
    fn signalled(&self, name: u64, write: Write) {
        if !self.begin_write(name, write.bar) {
            return;
        }
        write.reach(self);
        self.memory().lock().ioeventfds.end_write(name);
        self.turn_passed().wake_all();
    }

    /// Marks the entry, if it stands and its BAR is decoded.
    fn begin_write(&self, name: u64, bar: usize) -> bool {
        let mut memory = self.memory().lock();
        let is_memory = self.function().bar(bar).is_some_and(|bar| bar.kind != BarKind::Io);
        let reachable = !is_memory || memory.decodes_memory();
        let entry = memory.ioeventfds.entry(name).filter(|entry| !entry.ended);
        let Some(entry) = entry.filter(|_| reachable) else { return false };
        entry.running += 1;
        true
    }
}
