//! The functions that a bus reset takes along, and who holds each of them.
//!
//! A [`DeviceSet`] is the one place that says which open file a device is bound through. Its lock is
//! rank `DeviceSet`; it is held for look-ups and changes of this table only, never while a device, an
//! iommufd or a client's memory is touched.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use pci::Address;
use sync::{Contents, Mutex, Named, WaitQueue, rank};

use crate::{Device, DeviceState, Refusal};

/// Functions that reset together: those of one bus.
pub struct DeviceSet {
    bus_reset: bool,
    members: Mutex<rank::DeviceSet, Members>,
    /// Wakes whoever waits for a device that is being bound or closed.
    settled: WaitQueue,
}

#[derive(Default)]
struct Members {
    by_address: BTreeMap<Address, Member>,
    files: u64,
}

struct Member {
    device: Weak<Device>,
    withdrawn: bool,
    opens: u32,
    holder: Holder,
}

/// Who holds a device.
enum Holder {
    /// Nobody.
    Nobody,
    /// A file is being bound to it; the context knows the device once there is an iommufd.
    Opening { iommufd: Option<Arc<iommufd::Device>> },
    /// A file is bound to it.
    Bound { file: FileId, iommufd: Arc<iommufd::Device> },
    /// The file that was bound to it is being closed.
    Closing { iommufd: Arc<iommufd::Device> },
}

/// Tells open files of a set apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId(u64);

impl Contents for Members {
    fn contents(&self, mut into: &mut dyn Hasher) {
        into.write_u64(self.files);
        for (address, member) in &self.by_address {
            (address, member.withdrawn, member.opens).hash(&mut into);
            let (stage, file, iommufd) = match &member.holder {
                Holder::Nobody => (0, None, None),
                Holder::Opening { iommufd } => (1, None, iommufd.as_ref()),
                Holder::Bound { file, iommufd } => (2, Some(file.0), Some(iommufd)),
                Holder::Closing { iommufd } => (3, None, Some(iommufd)),
            };
            (stage, file).hash(&mut into);
            if let Some(iommufd) = iommufd {
                iommufd.contents(into);
            }
        }
    }
}

impl DeviceSet {
    /// An empty set. `bus_reset` says whether the functions sit below a bridge that can reset its bus;
    /// without it, hot resets answer `ENODEV`.
    pub fn new(bus_reset: bool) -> Arc<Self> {
        let name = || "set".to_owned();
        let members = Mutex::with_contents(Members::default()).named("members", name);
        Arc::new(Self { bus_reset, members, settled: WaitQueue::new().named("settled", name) })
    }

    /// Whether all functions can be reset together.
    pub(crate) fn bus_reset(&self) -> bool {
        self.bus_reset
    }

    /// Adds a device.
    ///
    /// # Panics
    /// If a device with that address is in the set already.
    pub(crate) fn join(&self, address: Address, device: Weak<Device>) {
        let member = Member { device, withdrawn: false, opens: 0, holder: Holder::Nobody };
        let before = self.members.lock().by_address.insert(address, member);
        assert!(before.is_none(), "{address} is in the set twice");
    }

    /// Removes a device that nobody holds any more.
    pub(crate) fn leave(&self, address: Address) {
        let member = self.members.lock().by_address.remove(&address);
        drop(member);
    }

    /// The devices of the set, by address.
    pub(crate) fn devices(&self) -> Vec<Arc<Device>> {
        let members = self.members.lock();
        members.by_address.values().filter_map(|member| member.device.upgrade()).collect()
    }

    /// What the table says of a device, and iommufd, which is asked after the lock is given back.
    pub(crate) fn state(&self, address: Address) -> DeviceState {
        let members = self.members.lock();
        let Some(member) = members.by_address.get(&address) else { return DeviceState::Free };
        let iommufd = match &member.holder {
            Holder::Bound { iommufd, .. } => Arc::clone(iommufd),
            Holder::Opening { .. } | Holder::Closing { .. } => {
                return DeviceState::Open { files: member.opens.max(1) };
            }
            Holder::Nobody if member.opens > 0 => return DeviceState::Open { files: member.opens },
            Holder::Nobody => return DeviceState::Free,
        };
        drop(members);
        let device_id = iommufd.id();
        match iommufd.page_table_id() {
            Some(page_table_id) => DeviceState::Attached { device_id, page_table_id },
            None => DeviceState::Bound { device_id },
        }
    }

    /// Lets no file open the device any more.
    pub(crate) fn withdraw(&self, address: Address) {
        if let Some(member) = self.members.lock().by_address.get_mut(&address) {
            member.withdrawn = true;
        }
    }

    /// Whether no file may open the device.
    pub(crate) fn is_withdrawn(&self, address: Address) -> bool {
        self.members.lock().by_address.get(&address).is_none_or(|member| member.withdrawn)
    }

    /// Ends [`withdraw`](Self::withdraw).
    pub(crate) fn readmit(&self, address: Address) {
        if let Some(member) = self.members.lock().by_address.get_mut(&address) {
            member.withdrawn = false;
        }
    }

    /// Counts an open file.
    ///
    /// # Errors
    /// [`Refusal::Withdrawn`] – the device is being removed (`ENODEV`).
    pub(crate) fn open(&self, address: Address) -> Result<FileId, Refusal> {
        let mut members = self.members.lock();
        members.files += 1;
        let id = FileId(members.files);
        let member = members.by_address.get_mut(&address).ok_or(Refusal::Withdrawn)?;
        if member.withdrawn {
            return Err(Refusal::Withdrawn);
        }
        member.opens += 1;
        Ok(id)
    }

    /// Ends [`open`](Self::open).
    pub(crate) fn close(&self, address: Address) {
        if let Some(member) = self.members.lock().by_address.get_mut(&address) {
            assert!(member.opens > 0, "{address} closed more often than opened");
            member.opens -= 1;
        }
    }

    /// Keeps a device for the file that is about to be bound to it. Waits, with no lock held, for a BIND or a
    /// close of another file that is under way.
    ///
    /// # Errors
    /// [`Refusal::DeviceBound`] – another file has it (`EINVAL`).
    pub(crate) fn claim(&self, address: Address) -> Result<(), Refusal> {
        let members = self.members.lock();
        let mut members = self.settled.wait_while(members, |members| {
            let holder = members.by_address.get(&address).map(|member| &member.holder);
            matches!(holder, Some(Holder::Opening { .. } | Holder::Closing { .. }))
        });
        let member = members.by_address.get_mut(&address).ok_or(Refusal::Withdrawn)?;
        match member.holder {
            Holder::Nobody => {
                member.holder = Holder::Opening { iommufd: None };
                Ok(())
            }
            Holder::Opening { .. } | Holder::Bound { .. } | Holder::Closing { .. } => {
                Err(Refusal::DeviceBound)
            }
        }
    }

    /// As [`claim`](Self::claim), for a group that gives the device anew: the file that it gave before is being closed,
    /// and waited for.
    ///
    /// # Errors
    /// [`Refusal::Withdrawn`] – there is no such device (`ENODEV`).
    pub(crate) fn claim_after_close(&self, address: Address) -> Result<(), Refusal> {
        let members = self.members.lock();
        let mut members = self.settled.wait_while(members, |members| {
            let holder = members.by_address.get(&address).map(|member| &member.holder);
            !matches!(holder, Some(Holder::Nobody) | None)
        });
        let member = members.by_address.get_mut(&address).ok_or(Refusal::Withdrawn)?;
        member.holder = Holder::Opening { iommufd: None };
        Ok(())
    }

    /// Notes what the context made for the file that claimed the device.
    pub(crate) fn note_opening(&self, address: Address, iommufd: &Arc<iommufd::Device>) {
        self.replace(address, Holder::Opening { iommufd: Some(Arc::clone(iommufd)) });
    }

    /// What a file holds the device with, or is about to, or still does.
    pub(crate) fn holder(&self, address: Address) -> Option<Arc<iommufd::Device>> {
        let members = self.members.lock();
        match &members.by_address.get(&address)?.holder {
            Holder::Nobody => None,
            Holder::Opening { iommufd } => iommufd.clone(),
            Holder::Bound { iommufd, .. } | Holder::Closing { iommufd } => Some(iommufd.clone()),
        }
    }

    /// Lets the file that claimed the device use it.
    pub(crate) fn publish(&self, address: Address, file: FileId, iommufd: Arc<iommufd::Device>) {
        self.replace(address, Holder::Bound { file, iommufd });
    }

    /// Gives a device back that was claimed or taken out.
    pub(crate) fn free(&self, address: Address) {
        self.replace(address, Holder::Nobody);
    }

    /// What the file is bound with, if it is bound.
    pub(crate) fn bound(&self, address: Address, file: FileId) -> Option<Arc<iommufd::Device>> {
        let members = self.members.lock();
        match &members.by_address.get(&address)?.holder {
            Holder::Bound { file: holder, iommufd } if *holder == file => Some(iommufd.clone()),
            Holder::Nobody
            | Holder::Opening { .. }
            | Holder::Bound { .. }
            | Holder::Closing { .. } => None,
        }
    }

    /// Whether the file is bound to its device.
    pub(crate) fn is_bound(&self, address: Address, file: FileId) -> bool {
        let members = self.members.lock();
        members.by_address.get(&address).is_some_and(|member| match &member.holder {
            Holder::Bound { file: holder, .. } => *holder == file,
            Holder::Nobody | Holder::Opening { .. } | Holder::Closing { .. } => false,
        })
    }

    /// Takes from the file what it is bound with; nobody can claim the device until it is freed.
    pub(crate) fn take(&self, address: Address, file: FileId) -> Option<Arc<iommufd::Device>> {
        let iommufd = self.bound(address, file)?;
        self.replace(address, Holder::Closing { iommufd: Arc::clone(&iommufd) });
        Some(iommufd)
    }

    /// Sets the holder. What the one before held is let go of with no lock held.
    fn replace(&self, address: Address, holder: Holder) {
        let mut members = self.members.lock();
        let member = members.by_address.get_mut(&address);
        let before = member.map(|member| std::mem::replace(&mut member.holder, holder));
        drop(members);
        drop(before);
        self.settled.wake_all();
    }
}
