//! The kernel's test interface of iommufd, `IOMMU_TEST_CMD`: mock devices, and looks at what the engine did.
//!
//! Served by contexts of a platform whose IOMMU is the mock ([`Context::open_mock`]) and by no other. What it
//! answers comes from the engine: where an address leads is asked of the map that DMA uses, how often a page is
//! pinned is counted over the areas and accesses that hold memory. Pages are told apart by what backs them, as a process sees
//! it, not by a frame of RAM.
//!
//! Takes no lock that its parts do not name. Source: v7.3 `iommufd_test.h`, `selftest.c`.

mod access;
mod cache;
mod device;
mod dma_buf;
mod event;
mod invalidate;
mod look;
mod machine;
mod page_table;
mod pins;
mod window;

use std::sync::Arc;

use uapi::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::address_space::Mirror;
use crate::dispatch::Exchange;
use crate::ioas::Ioas;
use crate::{Context, PasidMode, Refusal};

pub use access::AccessFile;
pub(crate) use cache::Cache;
pub(crate) use device::MockDevice;
pub(crate) use invalidate::{invalidate_devices, invalidate_table};
pub use machine::MockMachine;
pub(crate) use page_table::{describe_hardware, iotlb_of, shape_of};
pub use pins::Charged;
pub(crate) use window::open_window;

/// The request: number 0xa0 without direction or size.
pub(crate) const REQUEST: u32 = 0x3ba0;
/// Bytes that a caller's struct has at least.
pub(crate) const BYTES_MIN: u32 = 68;
/// Bytes of the struct.
pub(crate) const BYTES: u32 = 72;

const _: () = assert!(size_of::<TestCommand>() == BYTES as usize);

/// The type of its vIOMMUs.
pub(crate) const VIOMMU_TYPE: u32 = 0xdead_beef;

/// The type of its hardware queues.
pub(crate) const HW_QUEUE_TYPE: u32 = 0xdead_beef;

/// Says whether a vIOMMU of the mock can have a hardware queue of this index.
///
/// # Errors
/// `EINVAL` for an index that it has not, `EEXIST` for one that is taken, `EIO` where the queue below is not there.
pub(crate) fn check_hw_queue(index: u32, is_taken: impl Fn(u32) -> bool) -> Result<(), Refusal> {
    const QUEUES: u32 = 2;
    if index >= QUEUES {
        return Err(failure("no such hardware queue", Errno::EINVAL));
    }
    if is_taken(index) {
        return Err(failure("the hardware queue is taken", Errno::EEXIST));
    }
    if index.checked_sub(1).is_some_and(|below| !is_taken(below)) {
        return Err(failure("no queue below", Errno::EIO));
    }
    Ok(())
}

/// `struct iommu_test_cmd`. What `fields` mean depends on `op`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes)]
#[repr(C)]
pub(crate) struct TestCommand {
    size: u32,
    op: u32,
    id: u32,
    reserved: u32,
    fields: [u32; 12],
    last: u32,
    padding: u32,
}

impl TestCommand {
    /// The field of 8 bytes from word `index` of the union on.
    fn long(&self, index: usize) -> u64 {
        u64::from(self.fields[index]) | u64::from(self.fields[index + 1]) << 32
    }
}

/// Operations by their numbers.
mod op {
    pub(super) const ADD_RESERVED: u32 = 1;
    pub(super) const MOCK_DOMAIN: u32 = 2;
    pub(super) const MD_CHECK_MAP: u32 = 3;
    pub(super) const MD_CHECK_REFS: u32 = 4;
    pub(super) const CREATE_ACCESS: u32 = 5;
    pub(super) const DESTROY_ACCESS_PAGES: u32 = 6;
    pub(super) const ACCESS_PAGES: u32 = 7;
    pub(super) const ACCESS_RW: u32 = 8;
    pub(super) const SET_TEMP_MEMORY_LIMIT: u32 = 9;
    pub(super) const MOCK_DOMAIN_REPLACE: u32 = 10;
    pub(super) const ACCESS_REPLACE_IOAS: u32 = 11;
    pub(super) const MOCK_DOMAIN_FLAGS: u32 = 12;
    pub(super) const DIRTY: u32 = 13;
    pub(super) const MD_CHECK_IOTLB: u32 = 14;
    pub(super) const TRIGGER_IOPF: u32 = 15;
    pub(super) const DEV_CHECK_CACHE: u32 = 16;
    pub(super) const TRIGGER_VEVENT: u32 = 17;
    pub(super) const PASID_ATTACH: u32 = 18;
    pub(super) const PASID_REPLACE: u32 = 19;
    pub(super) const PASID_DETACH: u32 = 20;
    pub(super) const PASID_CHECK_HWPT: u32 = 21;
    pub(super) const DMABUF_GET: u32 = 22;
    pub(super) const DMABUF_REVOKE: u32 = 23;
}

/// Why a test command fails: in a test, a check that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a test command fails: {what}")]
pub struct TestFailure {
    what: &'static str,
    errno: Errno,
}

impl TestFailure {
    pub(crate) const fn errno(self) -> Errno {
        self.errno
    }
}

const fn failure(what: &'static str, errno: Errno) -> Refusal {
    Refusal::Test(TestFailure { what, errno })
}

/// Runs a test command and returns what its system call does: 0, or a new descriptor.
///
/// # Errors
/// Those of the operation, as v7.3 has them; `EOPNOTSUPP` for one that there is not.
pub(crate) fn run(
    ctx: &Arc<Context>,
    machine: &Arc<MockMachine>,
    exchange: &Exchange<'_>,
) -> Result<u32, Refusal> {
    let argument: TestCommand = exchange.argument();
    let done = match argument.op {
        op::DMABUF_GET => return dma_buf::create(ctx, exchange, &argument),
        op::DMABUF_REVOKE => dma_buf::set_revoked(exchange, &argument),
        op::ADD_RESERVED => add_reserved(ctx, &argument),
        op::MOCK_DOMAIN => device::make(ctx, machine, exchange, argument, 0),
        op::MOCK_DOMAIN_FLAGS => device::make(ctx, machine, exchange, argument, argument.fields[3]),
        op::MOCK_DOMAIN_REPLACE => device::replace(ctx, exchange, argument),
        op::MD_CHECK_MAP => look::check_map(ctx, exchange, &argument),
        op::MD_CHECK_REFS => look::check_pins(machine, exchange, &argument),
        op::CREATE_ACCESS => access::create(ctx, exchange, argument),
        op::DESTROY_ACCESS_PAGES => access::unpin(exchange, &argument),
        op::ACCESS_PAGES => access::pin(exchange, argument),
        op::ACCESS_RW => access::copy(exchange, &argument),
        op::ACCESS_REPLACE_IOAS => access::replace(exchange, &argument),
        op::SET_TEMP_MEMORY_LIMIT => set_batch_bytes(&argument),
        op::DIRTY => look::mark_written(ctx, exchange, argument),
        op::MD_CHECK_IOTLB => look::check_iotlb(ctx, &argument),
        op::TRIGGER_IOPF => event::fault(ctx, &argument),
        op::TRIGGER_VEVENT => event::tell_guest(ctx, &argument),
        op::DEV_CHECK_CACHE => device::check_cache(ctx, &argument),
        op::PASID_ATTACH => device::attach_pasid(ctx, exchange, argument, PasidMode::Attach),
        op::PASID_REPLACE => device::attach_pasid(ctx, exchange, argument, PasidMode::Replace),
        op::PASID_DETACH => device::detach_pasid(ctx, &argument),
        op::PASID_CHECK_HWPT => device::check_pasid(ctx, &argument),
        _ => Err(failure("no such operation", Errno::EOPNOTSUPP)),
    };
    done.map(|()| 0)
}

/// Keeps addresses of an IOAS from being mapped for as long as it lives.
fn add_reserved(ctx: &Context, argument: &TestCommand) -> Result<(), Refusal> {
    let (start, length) = (argument.long(0), argument.long(2));
    if length == 0 {
        return Err(Refusal::Empty);
    }
    let span = span::Span::new(start, length).ok_or(Refusal::PastTop { start, length })?;
    let ioas = ctx.get::<Ioas>(argument.id)?;
    // No page table ever has this name, so nobody releases it.
    let owner = crate::reservations::Owner::PageTable(Mirror(u64::MAX));
    ioas.space.lock().reserve(owner, std::iter::once(span))
}

/// How much the kernel takes in hand at once. Nothing here is cut into batches, so there is nothing to set.
const fn set_batch_bytes(argument: &TestCommand) -> Result<(), Refusal> {
    const BYTES_LEAST: u32 = 12;
    if argument.fields[0] < BYTES_LEAST {
        return Err(failure("too small a limit", Errno::EINVAL));
    }
    Ok(())
}
