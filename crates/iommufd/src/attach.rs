//! What a device is attached to: a page table by its id, or an IOAS, which then lends or makes one.
//!
//! A page table made for an attachment is built, and so the IOAS's memory pinned, with no lock held; then the
//! IOAS lock is taken to look once more whether somebody was quicker, and to attach. So a group of devices
//! attached one after the other to one IOAS shares one page table.
//!
//! Locks: IOAS, GROUP, IOPT_IOVA. Source: [uapi/iommufd.h]; v7.3 `iommufd_device_auto_get_domain()`.

use std::sync::Arc;

use crate::group::{PasidMode, PasidRefusal, Released};
use crate::hwpt::{Hwpt, Purpose};
use crate::ioas::Ioas;
use crate::object::{Object, Pending};
use crate::registry::{Headed, Held};
use crate::{Device, Refusal, Resource};

impl Device {
    /// Attaches the device to page table or IOAS `pt_id`, or, if it is attached, moves all attached devices of
    /// its group there. Returns the id of the page table used. When it returns, no DMA goes through the
    /// former page table any more.
    ///
    /// # Errors
    /// All is as before then. In this order:
    /// - [`Refusal::NoObject`] (`ENOENT`): no such id.
    /// - [`Refusal::Exhausted`] (`ENOMEM`)
    /// - [`Refusal::OtherType`] (`EINVAL`): neither page table nor IOAS.
    /// - [`Refusal::NoObject`] (`ENOENT`): the device is ending.
    /// - [`Refusal::AttachedElsewhere`] (`EINVAL`): another device of the group uses another page table.
    /// - [`Refusal::ReservedMapped`] (`EADDRINUSE`): an area lies where a device's reserved spans are.
    /// - [`Refusal::Incompatible`] (`EINVAL`): the page table is not for this device's IOMMU.
    /// - an IOAS only: [`Refusal::PageSize`] (`EINVAL`), [`Refusal::MisalignedArea`],
    ///   [`Refusal::ReservedMapped`] (`EADDRINUSE`), [`Refusal::Pin`] (`EFAULT`, `EINVAL`, `ENOMEM`),
    ///   [`Refusal::OutOfIds`] (`ENOMEM`).
    ///
    /// Takes IOAS, GROUP, IOPT_IOVA; holds none while it pins memory or waits for DMA. [uapi/vfio.h]
    pub fn attach(self: &Arc<Self>, pt_id: u32) -> Result<u32, Refusal> {
        let target = self.context().get_any(pt_id)?;
        self.context().quota().admit(Resource::Attachment, 1)?;
        match &*target {
            Object::Hwpt(hwpt) => {
                self.attach_to_table(hwpt, || ())?;
                Ok(pt_id)
            }
            Object::Ioas(ioas) => self.attach_to_ioas(ioas),
            Object::Access(_)
            | Object::Device(_)
            | Object::Fault(_)
            | Object::HwQueue(_)
            | Object::MockDevice(_)
            | Object::Vdevice(_)
            | Object::Veventq(_)
            | Object::Viommu(_) => Err(Refusal::OtherType { id: pt_id }),
        }
    }

    /// Takes the device off its page table; nothing happens where it has none. When this returns its DMA
    /// has ended and faults. A page table made for the attachment goes with its last device.
    ///
    /// Takes GROUP, IOPT_IOVA; holds none while it waits for DMA.
    pub fn detach(self: &Arc<Self>) {
        if let Some(released) = self.endpoint().group().detach(self) {
            released.settle(self.context());
        }
    }

    /// Attaches the device by `pasid` to page table `pt_id`, or moves it there with all devices of its group that are
    /// attached by it.
    ///
    /// # Errors
    /// All is as before then. In this order: [`Refusal::NoObject`] (`ENOENT`), [`Refusal::Exhausted`] (`ENOMEM`),
    /// [`Refusal::OtherType`] (`EINVAL`); then `EBUSY`, `EINVAL`, `ENOENT`, `EOPNOTSUPP` as
    /// `Group::attach_pasid`. An IOAS is always refused at last: what is made for an attachment is not for PASIDs.
    ///
    /// Takes GROUP; holds none while it waits for DMA. [uapi/vfio.h]
    pub fn attach_pasid(
        self: &Arc<Self>,
        pasid: u32,
        pt_id: u32,
        mode: PasidMode,
    ) -> Result<u32, Refusal> {
        self.attach_pasid_if(pasid, pt_id, mode, || Ok(()))
    }

    /// As [`attach_pasid`](Self::attach_pasid), where the hardware has something to say.
    pub(crate) fn attach_pasid_if(
        self: &Arc<Self>,
        pasid: u32,
        pt_id: u32,
        mode: PasidMode,
        enable: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<u32, Refusal> {
        let target = self.context().get_any(pt_id)?;
        self.context().quota().admit(Resource::Attachment, 1)?;
        let group = self.endpoint().group();
        let hwpt = match &*target {
            Object::Hwpt(hwpt) => hwpt,
            Object::Ioas(_) => {
                group.check_pasid(self, pasid, mode)?;
                return Err(PasidRefusal::AddressSpace.into());
            }
            Object::Access(_)
            | Object::Device(_)
            | Object::Fault(_)
            | Object::HwQueue(_)
            | Object::MockDevice(_)
            | Object::Vdevice(_)
            | Object::Veventq(_)
            | Object::Viommu(_) => return Err(Refusal::OtherType { id: pt_id }),
        };
        if let Some(released) = group.attach_pasid(self, pasid, hwpt, mode, enable)? {
            released.settle(self.context());
        }
        Ok(pt_id)
    }

    /// Takes the device off the page table of `pasid`; nothing happens where it has none.
    ///
    /// Takes GROUP; holds none while it waits for DMA.
    pub fn detach_pasid(self: &Arc<Self>, pasid: u32) {
        if let Some(released) = self.endpoint().group().detach_pasid(self, pasid) {
            released.settle(self.context());
        }
    }

    /// Takes the device off the page tables of all its PASIDs, in their order.
    pub(crate) fn detach_pasids(self: &Arc<Self>) {
        if !self.endpoint().iommu().has_pasids() {
            return;
        }
        while let Some(pasid) = self.endpoint().group().first_pasid(self) {
            self.detach_pasid(pasid);
        }
    }

    fn attach_to_table(
        self: &Arc<Self>,
        hwpt: &Arc<Hwpt>,
        seal: impl FnOnce(),
    ) -> Result<(), Refusal> {
        if let Some(released) = self.endpoint().group().attach(self, hwpt, seal)? {
            released.settle(self.context());
        }
        Ok(())
    }

    fn attach_to_ioas(self: &Arc<Self>, ioas: &Arc<Ioas>) -> Result<u32, Refusal> {
        let borrowed = self.borrow_table(&ioas.tables.lock())?;
        if let Some(borrowed) = borrowed {
            return Ok(borrowed.settle(self));
        }
        self.endpoint().group().check_attach(self, ioas)?;
        let iommu = self.endpoint().iommu();
        let pending = Hwpt::build(self.context(), ioas, iommu, Purpose::Attachment)?;
        Ok(self.borrow_or_take(ioas, pending)?.settle(self))
    }

    /// Attaches to the oldest automatic page table that suits. Under the IOAS lock.
    fn borrow_table(self: &Arc<Self>, tables: &[Arc<Hwpt>]) -> Result<Option<Attached>, Refusal> {
        for hwpt in tables.iter().filter(|hwpt| hwpt.is_automatic()) {
            let Some(hwpt) = Held::try_new(Arc::clone(hwpt)) else { continue };
            match self.endpoint().group().attach(self, &hwpt, || ()) {
                Ok(released) => return Ok(Some(Attached { id: hwpt.header().id(), released })),
                Err(refusal) if refusal.errno() == uapi::Errno::EINVAL => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(None)
    }

    /// Attaches to an automatic page table that appeared meanwhile, or to `own`, which then appears.
    fn borrow_or_take(
        self: &Arc<Self>,
        ioas: &Ioas,
        own: Pending<'_, Hwpt>,
    ) -> Result<Attached, Refusal> {
        let hwpt = Arc::clone(&own);
        // Outlives the lock: what is not published takes it when dropped.
        let mut own = Some(own);
        let mut tables = ioas.tables.lock();
        if let Some(borrowed) = self.borrow_table(&tables)? {
            return Ok(borrowed);
        }
        let publish = || drop(own.take().map(Pending::publish));
        let released = self.endpoint().group().attach(self, &hwpt, publish)?;
        tables.push(Arc::clone(&hwpt));
        Ok(Attached { id: hwpt.header().id(), released })
    }
}

/// An attachment made, and what it may have replaced.
struct Attached {
    id: u32,
    released: Option<Released>,
}

impl Attached {
    /// Settles what was replaced, with no lock held, and returns the page table's id.
    fn settle(self, device: &Device) -> u32 {
        if let Some(released) = self.released {
            released.settle(device.context());
        }
        self.id
    }
}
