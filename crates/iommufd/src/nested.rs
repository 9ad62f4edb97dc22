//! Nested page tables: a guest's own translations, on top of what a parent shows.
//!
//! Made over a page table that others can be nested in, or behind a vIOMMU over one; a nested page table is a user of
//! that. Attached to one, a device keeps its reserved spans in the parent's address space. One behind a vIOMMU takes a
//! device only while the device has a vdevice there: by its number the guest's faults and commands name it.
//!
//! Takes no lock itself. Source: [uapi/iommufd.h]; order of checks from v7.3 `hw_pagetable.c`.

use std::sync::Arc;

use uapi::iommufd::{HwptAlloc, hwpt_flags};

use crate::dispatch::Exchange;
use crate::fault_queue::FaultQueue;
use crate::hardware::{GuestTable, UserData};
use crate::hwpt::Hwpt;
use crate::object::Pending;
use crate::registry::{Headed, Header};
use crate::viommu::Viommu;
use crate::{Context, Iommu, Refusal};

/// What a nested page table has of its own.
pub(crate) struct Nested {
    over: Over,
    table: GuestTable,
}

/// What it is nested in. The page table is a user of it until destroyed.
pub(crate) enum Over {
    Table(Arc<Hwpt>),
    Viommu(Arc<Viommu>),
}

/// Builds a nested page table for devices behind `iommu`, as a client asks.
///
/// # Errors
/// In this order:
/// - over a page table [`Refusal::UnknownFlags`], [`Refusal::Unsupported`] (`EOPNOTSUPP`): no data, or the IOMMU nests
///   none; then [`Refusal::NoNestParent`] (`EINVAL`).
/// - behind a vIOMMU [`Refusal::OtherIommu`] (`EINVAL`); then as above (`EOPNOTSUPP`).
/// - [`Refusal::OutOfIds`] (`ENOMEM`)
/// - the hardware's about the data.
pub(crate) fn build<'c>(
    ctx: &'c Context,
    exchange: &Exchange<'_>,
    iommu: &Arc<Iommu>,
    argument: &HwptAlloc,
    over: Over,
    faults: Option<Arc<FaultQueue>>,
) -> Result<Pending<'c, Hwpt>, Refusal> {
    over.check_iommu(iommu)?;
    exchange.refuse_flags(argument.flags, FLAGS)?;
    let nests = match &over {
        Over::Table(_) => iommu.hardware().nests_in_tables(),
        Over::Viommu(viommu) => viommu.iommu().hardware().nests_behind_viommus(),
    };
    if argument.data_type == 0 || !nests {
        return Err(Refusal::Unsupported { feature: "nested page tables" });
    }
    over.check_nests()?;
    let data = UserData::of(exchange, argument);
    let table = iommu.hardware().nest(iommu.geometry(), &data, argument.flags)?;
    Pending::build(ctx, |header| {
        over.header().add_user();
        let nested = Nested { over, table };
        Ok(Hwpt::nested_in(header, nested, iommu, argument.flags, faults))
    })
}

const FLAGS: u32 = hwpt_flags::FAULT_ID_VALID | hwpt_flags::PASID;

impl Nested {
    /// The page table at the bottom.
    pub(crate) fn parent(&self) -> &Arc<Hwpt> {
        self.over.table()
    }

    /// The vIOMMU that it is behind.
    pub(crate) const fn viommu(&self) -> Option<&Arc<Viommu>> {
        match &self.over {
            Over::Table(_) => None,
            Over::Viommu(viommu) => Some(viommu),
        }
    }

    /// What its hardware has of it.
    pub(crate) const fn table(&self) -> &GuestTable {
        &self.table
    }

    /// Lets go of what it is nested in.
    pub(crate) fn leave(&self) {
        self.over.header().drop_user();
    }
}

impl Over {
    fn table(&self) -> &Arc<Hwpt> {
        match self {
            Self::Table(hwpt) => hwpt,
            Self::Viommu(viommu) => viommu.hwpt(),
        }
    }

    fn header(&self) -> &Header {
        match self {
            Self::Table(hwpt) => hwpt.header(),
            Self::Viommu(viommu) => viommu.header(),
        }
    }

    fn check_iommu(&self, iommu: &Arc<Iommu>) -> Result<(), Refusal> {
        match self {
            Self::Table(_) => Ok(()),
            Self::Viommu(viommu) => viommu.check_same_iommu(iommu),
        }
    }

    fn check_nests(&self) -> Result<(), Refusal> {
        let hwpt = self.table();
        if hwpt.is_nest_parent() {
            return Ok(());
        }
        Err(Refusal::NoNestParent { hwpt: hwpt.header().id() })
    }
}
