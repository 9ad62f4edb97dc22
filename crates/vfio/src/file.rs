//! One open `/dev/vfio/devices/vfioN`.
//!
//! A file begins unbound and then answers everything but BIND with `EINVAL`; once bound it stays so until its
//! last close. Commands, reads and writes on it are counted, and [`DeviceFile::release`] waits for them.

use std::sync::Arc;

use iommufd::Vm;
use sync::{Mutex, Named, rank};
use uapi::Errno;

use crate::argument::Argument;
use crate::bind::Claim;
use crate::device::{BarPages, name};
use crate::group::{Backing, Change};
use crate::in_use::InUse;
use crate::set::FileId;
use crate::{Caller, CloseOrder, Device, Group, MapRequest, Refusal, command, map, region};

/// One open file of a device.
pub struct DeviceFile {
    device: Arc<Device>,
    pages: BarPages,
    id: FileId,
    /// The VM that the client linked the file with. Its rank is that of a leaf here.
    vm: Mutex<rank::Memory, Option<Arc<dyn Vm>>>,
    origin: Origin,
    in_use: InUse,
}

/// How a file came to be.
enum Origin {
    /// Its own node was opened.
    Node,
    /// A group gave it. Where the device keeps the group's file, that group.
    Group { kept: Option<Arc<Group>> },
}

impl DeviceFile {
    /// Opens the device. Any number of files may be open; one of them can be bound.
    ///
    /// `pages` is what the client will map at the BARs' offsets; the function works in it from BIND to the
    /// last close.
    ///
    /// # Errors
    /// [`Refusal::Withdrawn`] – the device is being removed (`ENODEV`).
    ///
    /// Takes `DEVICE_SET`.
    pub fn open(device: &Arc<Device>, pages: BarPages) -> Result<Arc<Self>, Refusal> {
        Self::open_as(device, pages, Origin::Node).map(Arc::new)
    }

    /// Opens the device through its group, whose turn the caller has: binds it to what the group translates through,
    /// enables it and attaches it. A file of the device that the group gave before is being closed, and waited for.
    ///
    /// # Errors
    /// Nothing is open then. In this order:
    /// - [`Refusal::Withdrawn`] – the device is being removed (`ENODEV`).
    /// - [`Refusal::NoContainerIommu`] – the container has no IOMMU (`EINVAL`).
    /// - [`Refusal::Iommufd`] – the context refuses to bind.
    /// - [`Refusal::OutOfMemory`] (`ENOMEM`).
    /// - [`Refusal::Iommufd`] – it refuses to attach; a context without compatibility IOAS (`ENODEV`).
    pub(crate) fn open_in_group(
        device: &Arc<Device>,
        pages: BarPages,
        group: &Arc<Group>,
        change: &Change<'_>,
        backing: &Backing,
    ) -> Result<Arc<Self>, Refusal> {
        let kept = match backing {
            Backing::Iommufd(_) => None,
            Backing::Container(_) => Some(Arc::clone(group)),
        };
        let keeps = kept.is_some();
        let file = Self::open_as(device, pages, Origin::Group { kept })?;
        if let Err(refusal) = file.bind_in_group(group.vm(), backing) {
            device.set().close(device.address());
            return Err(refusal);
        }
        if keeps {
            change.keep();
        }
        Ok(Arc::new(file))
    }

    fn open_as(device: &Arc<Device>, pages: BarPages, origin: Origin) -> Result<Self, Refusal> {
        let id = device.set().open(device.address())?;
        let name = || name(device.address());
        let (vm, in_use) = (Mutex::with_contents(None).named("vm", name), InUse::new(name));
        let device = device.clone();
        Ok(Self { device, pages, id, vm, origin, in_use })
    }

    fn bind_in_group(&self, vm: Option<Arc<dyn Vm>>, backing: &Backing) -> Result<(), Refusal> {
        let device = &self.device;
        let claim = Claim::after_close(device)?;
        let iommufd = match backing {
            Backing::Iommufd(context) => {
                iommufd::Device::bind_for(context.context(), device.endpoint(), vm)?
            }
            Backing::Container(container) => container.space()?.bind(device.endpoint(), vm)?,
        };
        device.set().note_opening(device.address(), &iommufd);
        if let Err(refusal) = device.enable(&iommufd, &self.pages) {
            iommufd.begin_end();
            iommufd.end();
            return Err(refusal);
        }
        if let Err(refusal) = attach(&iommufd, backing) {
            take_apart(device, &iommufd);
            return Err(refusal);
        }
        claim.publish(self, iommufd);
        Ok(())
    }

    /// The device that was opened.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Links the file with a VM, or with none. What it is linked with at BIND holds for the device until the last
    /// close; a later change does not reach it. The one linked before is let go of with no lock held.
    ///
    /// Takes `MEMORY`.
    pub fn link_vm(&self, vm: Option<Arc<dyn Vm>>) {
        let before = std::mem::replace(&mut *self.vm.lock(), vm);
        drop(before);
    }

    /// Runs the command `request` on what `argument` points to in the caller's memory, and returns what the
    /// client gets: 0, or the number of vectors there are where SET_IRQS asked for more.
    ///
    /// No lock is held while the caller's memory is read or written.
    ///
    /// # Errors
    /// Before BIND succeeded on this file: `EINVAL` for every other command, known or not. After: `ENOTTY` for a
    /// command that does not exist or is not served; else the command's, as told at its handler.
    pub fn ioctl(
        self: &Arc<Self>,
        caller: &dyn Caller,
        request: u32,
        argument: u64,
    ) -> Result<u32, Errno> {
        let argument = Argument { caller, at: argument };
        self.run(|| command::run(self, request, &argument)).map_err(argument.refused())
    }

    /// Reads from the device: `count` bytes at file position `position` to `to` in the caller's memory.
    /// Returns how many bytes were read: fewer than asked where a BAR ends.
    ///
    /// # Errors
    /// - `EINVAL`: not bound; no region there; past the end of a BAR.
    /// - `EFAULT`: passes the end of config space; the caller's memory cannot be reached, all or in part.
    /// - `EIO`: the device does not decode memory.
    ///
    /// Takes `DEVICE_SET`, `MEMORY`; holds neither while a BAR or the caller's memory is accessed.
    pub fn read(
        &self,
        caller: &dyn Caller,
        to: u64,
        count: u64,
        position: u64,
    ) -> Result<u64, Errno> {
        let memory = Argument { caller, at: to };
        self.run(|| {
            self.check_bound()?;
            region::read(&self.device, &memory, count, position)
        })
        .map_err(memory.refused())
    }

    /// Writes to the device, shaped as [`read`](Self::read). Returns how many bytes were written. A write to
    /// config space waits for a reset that runs, and for one that it begins.
    ///
    /// # Errors
    /// As [`read`](Self::read); also `EINVAL` for the ROM. Where the caller's memory ends halfway, what precedes was
    /// written.
    ///
    /// Takes `DEVICE_SET`, `MEMORY`, `IRQ`; holds none while a BAR or the caller's memory is accessed.
    pub fn write(
        &self,
        caller: &dyn Caller,
        from: u64,
        count: u64,
        position: u64,
    ) -> Result<u64, Errno> {
        let memory = Argument { caller, at: from };
        self.run(|| {
            self.check_bound()?;
            region::write(&self.device, &memory, count, position)
        })
        .map_err(memory.refused())
    }

    /// Says whether `length` bytes at file offset `offset` may be mapped.
    ///
    /// # Errors
    /// `EINVAL`: not bound; private; not wholly inside an area of a BAR that can be mapped.
    ///
    /// Takes `DEVICE_SET`.
    pub fn mmap(&self, offset: u64, length: u64, request: MapRequest) -> Result<(), Errno> {
        self.run(|| {
            self.check_bound()?;
            map::check(&self.device, offset, length, request)
        })
        .map_err(|refusal| refusal.errno())
    }

    /// The last close. Cancels a TSM command that runs for the device, waits for what runs on the file, then takes a
    /// bound device apart in the order that its settings name. Cannot fail, and does not wait for a device longer
    /// than its TSM does.
    ///
    /// The front end begins nothing on the file any more; if it does, that answers `EINVAL`.
    ///
    /// Takes the locks of `vfio` and `iommufd` one after the other and holds none while it waits.
    pub fn release(&self) {
        self.in_use.shut();
        let (device, address) = (&self.device, self.device.address());
        if let Some(iommufd) = device.set().bound(address, self.id) {
            match device.settings().close_order {
                CloseOrder::UnbindFirst => iommufd.begin_end(),
                CloseOrder::Linux73 => iommufd.cancel(),
            }
        }
        self.in_use.outwait();
        if let Some(iommufd) = device.set().take(address, self.id) {
            take_apart(device, &iommufd);
            device.set().free(address);
            if !self.is_of_group() {
                device.group().unblock();
            }
        }
        self.link_vm(None);
        device.set().close(address);
        if let Origin::Group { kept: Some(group) } = &self.origin {
            group.let_go();
        }
    }

    /// What the file is bound with, if it is. Takes `DEVICE_SET`.
    pub fn iommufd(&self) -> Option<Arc<iommufd::Device>> {
        self.bound().ok()
    }

    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// The VM that the file is linked with.
    pub(crate) fn vm(&self) -> Option<Arc<dyn Vm>> {
        self.vm.lock().clone()
    }

    pub(crate) fn pages(&self) -> &BarPages {
        &self.pages
    }

    /// # Errors
    /// [`Refusal::NotBound`] (`EINVAL`).
    pub(crate) fn check_bound(&self) -> Result<(), Refusal> {
        let bound = self.device.set().is_bound(self.device.address(), self.id);
        if bound { Ok(()) } else { Err(Refusal::NotBound) }
    }

    /// What the file is bound with.
    ///
    /// # Errors
    /// [`Refusal::NotBound`] (`EINVAL`).
    pub(crate) fn bound(&self) -> Result<Arc<iommufd::Device>, Refusal> {
        let bound = self.device.set().bound(self.device.address(), self.id);
        bound.ok_or(Refusal::NotBound)
    }

    /// Whether the device's group gave it.
    pub fn is_of_group(&self) -> bool {
        matches!(self.origin, Origin::Group { .. })
    }

    /// Runs something that release has to wait for.
    fn run<T>(&self, what: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
        self.in_use.run(what).unwrap_or(Err(Refusal::NotBound))
    }
}

/// Lets the device's DMA through what its group translates through.
fn attach(iommufd: &Arc<iommufd::Device>, backing: &Backing) -> Result<(), Refusal> {
    match backing {
        Backing::Iommufd(context) => {
            iommufd.attach(context.context().compat_ioas_id()?)?;
        }
        Backing::Container(container) => container.space()?.attach(iommufd)?,
    }
    Ok(())
}

/// Ends the bond between a device and its iommufd, and disables the device.
pub(crate) fn take_apart(device: &Device, iommufd: &Arc<iommufd::Device>) {
    match device.settings().close_order {
        CloseOrder::UnbindFirst => {
            iommufd.begin_end();
            device.disable(iommufd);
        }
        CloseOrder::Linux73 => {
            device.disable(iommufd);
            iommufd.begin_end();
        }
    }
    iommufd.end();
}
