//! One open `/dev/vfio/devices/vfioN`.
//!
//! A file begins unbound and then answers everything but BIND with `EINVAL`; once bound it stays so until its
//! last close. Commands, reads and writes on it are counted, and [`DeviceFile::release`] waits for them.

use std::sync::Arc;

use iommufd::{Caller, Vm};
use sync::{Mutex, Refcount, WaitQueue, rank};
use uapi::Errno;

use crate::argument::Argument;
use crate::device::BarPages;
use crate::set::FileId;
use crate::{CloseOrder, Device, MapRequest, Refusal, command, map, region};

/// One open file of a device.
pub struct DeviceFile {
    device: Arc<Device>,
    pages: BarPages,
    id: FileId,
    /// The VM that the client linked the file with. Its rank is that of a leaf here.
    vm: Mutex<rank::Memory, Option<Arc<dyn Vm>>>,
    /// One until the last close.
    open: Refcount,
    /// What runs on the file, and one for the file itself.
    running: Refcount,
    idle: WaitQueue,
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
        let id = device.set().open(device.address())?;
        let device = device.clone();
        Ok(Arc::new(Self {
            device,
            pages,
            id,
            vm: Mutex::new(None),
            open: Refcount::new(1),
            running: Refcount::new(1),
            idle: WaitQueue::new(),
        }))
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
        self.run(|| command::run(self, request, &argument))
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
    }

    /// The last close. Cancels a TSM command that runs for the device, waits for what runs on the file, then takes a
    /// bound device apart in the order that its settings name. Cannot fail, and does not wait for a device longer
    /// than its TSM does.
    ///
    /// The front end begins nothing on the file any more; if it does, that answers `EINVAL`.
    ///
    /// Takes the locks of `vfio` and `iommufd` one after the other and holds none while it waits.
    pub fn release(&self) {
        self.open.dec_if_one();
        if self.running.dec_and_test() {
            self.idle.wake_all();
        }
        let (device, address) = (&self.device, self.device.address());
        if let Some(iommufd) = device.set().bound(address, self.id) {
            match device.settings().close_order {
                CloseOrder::UnbindFirst => iommufd.begin_end(),
                CloseOrder::Linux73 => iommufd.cancel(),
            }
        }
        self.idle.wait_zero(&self.running);
        if let Some(iommufd) = device.set().take(address, self.id) {
            take_apart(device, &iommufd);
            device.set().free(address);
        }
        self.link_vm(None);
        device.set().close(address);
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

    /// Runs something that release has to wait for.
    fn run<T>(&self, what: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Errno> {
        if !self.running.inc_not_zero() {
            return Err(Refusal::NotBound.errno());
        }
        // What came before may run still, so the count alone does not keep others from beginning.
        let result = if self.open.read() == 0 { Err(Refusal::NotBound) } else { what() };
        if self.running.dec_and_test() {
            self.idle.wake_all();
        }
        result.map_err(|refusal| refusal.errno())
    }
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
