//! Attachments by PASID: a device's transactions that carry one go through a page table of their own.
//!
//! Each PASID of a group has one page table, as the group has one for transactions without. No model of a device here
//! sends a PASID, so nothing is translated through these; who is attached to what, and what keeps what alive, is as in
//! the kernel. Under the group's lock. Source: [uapi/iommufd.h]; order of checks from v7.3 `device.c`, `iommu.c`.

use std::sync::Arc;

use thiserror::Error;

use super::{Attachment, Group, Released, State};
use crate::hwpt::Hwpt;
use crate::registry::Headed;
use crate::{Device, Refusal};

/// What a call wants of a PASID that is attached already, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasidMode {
    /// It is not to be attached.
    Attach,
    /// It is to be attached.
    Replace,
    /// Either will do.
    Any,
}

/// Why a PASID cannot be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PasidRefusal {
    /// It is attached (`EBUSY`).
    #[error("PASID {pasid} is attached")]
    Attached {
        /// The PASID.
        pasid: u32,
    },
    /// It is not attached (`EINVAL`).
    #[error("PASID {pasid} is not attached")]
    Unattached {
        /// The PASID.
        pasid: u32,
    },
    /// The page table was not made for PASIDs, or that without a PASID was not (`EINVAL`).
    #[error("page table {hwpt} was not made to be used with PASIDs")]
    TableWithout {
        /// The page table.
        hwpt: u32,
    },
    /// An address space, whose automatic page tables are never for PASIDs (`EINVAL`).
    #[error("an address space cannot be attached by PASID")]
    AddressSpace,
    /// The device has fewer, or it is 0 (`EINVAL`).
    #[error("PASID {pasid} is out of range")]
    OutOfRange {
        /// The PASID.
        pasid: u32,
    },
}

impl Group {
    /// Attaches `device` by `pasid` to `hwpt`, which the caller holds; if it is attached, moves it there with all devices of
    /// the group that are. `enable` is what the hardware says to it.
    ///
    /// # Errors
    /// All is as before then. In this order:
    /// - [`Refusal::NoObject`] (`ENOENT`): the device is ending.
    /// - [`PasidRefusal::Attached`] (`EBUSY`), [`PasidRefusal::Unattached`] (`EINVAL`): as `mode` says.
    /// - [`Refusal::AttachedElsewhere`] (`EINVAL`): another device of the group is, to another page table.
    /// - [`PasidRefusal::TableWithout`] (`EINVAL`)
    /// - [`Refusal::Unsupported`] (`EOPNOTSUPP`): the IOMMU has no PASIDs.
    /// - [`PasidRefusal::OutOfRange`] (`EINVAL`)
    /// - [`Refusal::NotBehind`] (`ENOENT`), [`Refusal::Incompatible`] (`EINVAL`), and what `enable` returns.
    ///
    /// Takes GROUP.
    pub(crate) fn attach_pasid(
        &self,
        device: &Arc<Device>,
        pasid: u32,
        hwpt: &Arc<Hwpt>,
        mode: PasidMode,
        enable: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<Option<Released>, Refusal> {
        let mut state = self.state.lock();
        state.check_not_ending(device)?;
        state.check_pasid_mode(device, pasid, mode)?;
        let known = state.pasids.get(&pasid);
        let moves = known.is_some_and(|attachment| attachment.has(device));
        if moves && known.is_some_and(|attachment| Arc::ptr_eq(&attachment.hwpt, hwpt)) {
            return Ok(None);
        }
        if let Some(attachment) = known.filter(|_| !moves) {
            attachment.check_same(hwpt, self.number)?;
        } else {
            state.check_takes_pasid(device, pasid, hwpt)?;
            enable()?;
        }
        let attachment = state
            .pasids
            .entry(pasid)
            .or_insert_with(|| Attachment { hwpt: Arc::clone(hwpt), devices: Vec::new() });
        if moves {
            return Ok(Some(attachment.move_users(hwpt)));
        }
        hwpt.header().add_user();
        device.header().add_user();
        attachment.devices.push(Arc::clone(device));
        Ok(None)
    }

    /// Takes `device` off the page table of `pasid`, if it has one.
    pub(crate) fn detach_pasid(&self, device: &Arc<Device>, pasid: u32) -> Option<Released> {
        let mut state = self.state.lock();
        let attachment = state.pasids.get_mut(&pasid).filter(|other| other.has(device))?;
        attachment.devices.retain(|other| !Arc::ptr_eq(other, device));
        device.header().drop_user();
        let hwpt = Arc::clone(&attachment.hwpt);
        if attachment.devices.is_empty() {
            state.pasids.remove(&pasid);
        }
        Some(Released { hwpt, users: 1 })
    }

    /// The page table that a device is attached to by `pasid`.
    pub(crate) fn table_of_pasid(&self, device: &Arc<Device>, pasid: u32) -> Option<Arc<Hwpt>> {
        let state = self.state.lock();
        let attachment = state.pasids.get(&pasid).filter(|other| other.has(device))?;
        Some(Arc::clone(&attachment.hwpt))
    }

    /// The lowest PASID that `device` is attached by.
    pub(crate) fn first_pasid(&self, device: &Arc<Device>) -> Option<u32> {
        let state = self.state.lock();
        let mut attached = state.pasids.iter().filter(|(_, attachment)| attachment.has(device));
        attached.next().map(|(pasid, _)| *pasid)
    }

    /// Says whether `device` may be attached by `pasid`, as far as it is attached or not.
    ///
    /// # Errors
    /// The first three of [`attach_pasid`](Self::attach_pasid).
    pub(crate) fn check_pasid(
        &self,
        device: &Arc<Device>,
        pasid: u32,
        mode: PasidMode,
    ) -> Result<(), Refusal> {
        let state = self.state.lock();
        state.check_not_ending(device)?;
        state.check_pasid_mode(device, pasid, mode)
    }
}

impl State {
    fn check_pasid_mode(
        &self,
        device: &Arc<Device>,
        pasid: u32,
        mode: PasidMode,
    ) -> Result<(), Refusal> {
        let is_attached = self.pasids.get(&pasid).is_some_and(|attachment| attachment.has(device));
        match mode {
            PasidMode::Attach if is_attached => Err(PasidRefusal::Attached { pasid }.into()),
            PasidMode::Replace if !is_attached => Err(PasidRefusal::Unattached { pasid }.into()),
            PasidMode::Attach | PasidMode::Replace | PasidMode::Any => Ok(()),
        }
    }

    fn check_takes_pasid(
        &self,
        device: &Device,
        pasid: u32,
        hwpt: &Arc<Hwpt>,
    ) -> Result<(), Refusal> {
        let without = self.attachment.as_ref().map(|attachment| &attachment.hwpt);
        for table in [Some(hwpt), without].into_iter().flatten() {
            if !table.takes_pasids() {
                return Err(PasidRefusal::TableWithout { hwpt: table.header().id() }.into());
            }
        }
        let iommu = device.endpoint().iommu();
        let bits = u32::from(iommu.geometry().max_pasid_log2);
        if !iommu.has_pasids() {
            return Err(Refusal::Unsupported { feature: "PASIDs" });
        }
        if pasid == 0 || pasid >> bits != 0 {
            return Err(PasidRefusal::OutOfRange { pasid }.into());
        }
        self.check_behind(device, hwpt)?;
        hwpt.check_suits(iommu)
    }

    /// Says whether transactions without a PASID may go through `hwpt`.
    ///
    /// # Errors
    /// [`PasidRefusal::TableWithout`] (`EINVAL`): PASIDs are attached, and it was not made for them.
    pub(super) fn check_beside_pasids(&self, hwpt: &Hwpt) -> Result<(), Refusal> {
        if self.pasids.is_empty() || hwpt.takes_pasids() {
            return Ok(());
        }
        Err(PasidRefusal::TableWithout { hwpt: hwpt.header().id() }.into())
    }
}

impl Attachment {
    /// Has all devices be users of `hwpt` instead.
    fn move_users(&mut self, hwpt: &Arc<Hwpt>) -> Released {
        for _ in &self.devices {
            hwpt.header().add_user();
        }
        let old = std::mem::replace(&mut self.hwpt, Arc::clone(hwpt));
        Released { hwpt: old, users: self.devices.len() }
    }
}
