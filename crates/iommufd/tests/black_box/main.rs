//! `/dev/iommu` from outside: commands as a client issues them, devices as VFIO drives them.
//!
//! The client's memory, its files and the ear for faults each take a lock that lies outside all others
//! whenever they are called. In debug builds that fails if any lock is held, so each test here also shows
//! that none is held while memory is pinned, unpinned, read, written, or a fault is reported.

#![forbid(unsafe_code)]

extern crate bindery_iommufd as iommufd;

mod accesses;
mod against_model;
mod attach;
mod bind;
mod choices;
mod close;
mod compat;
mod concurrent;
mod copy;
mod destroy;
mod dirty;
mod dma;
mod dma_bufs;
mod errnos;
mod events;
mod exhaustion;
mod files;
mod hw_info;
mod hw_queue;
mod hwpt_alloc;
mod id_traces;
mod ioas;
mod map;
mod meanwhile;
mod nested;
mod pasid;
mod physical;
mod pin_failures;
mod pins_against_model;
mod scheduling_points;
mod smmuv3;
mod spaces_against_model;
mod support;
mod surprises;
mod table;
mod test_errnos;
mod threads_against_model;
#[expect(clippy::disallowed_types, reason = "what is bounded is measured by the wall's clock")]
mod tsm_ends;
mod tsm_op;
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an end that might wait for ever is watched from outside"
)]
mod tsm_request;
#[expect(clippy::disallowed_types, reason = "what is bounded is measured by the wall's clock")]
mod tsm_stress;
mod unmap;
mod vdevice;
mod vtd;
mod windows;
