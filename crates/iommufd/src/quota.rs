//! What commands use up, and who says how much of it there is.
//!
//! Every step of a command that can run out of something asks first. A refusal leaves all as it was, and the client reads
//! `ENOMEM`. So what bounds a client is also where failures can be put, one step at a time, to see that this holds.
//! Takes no lock.

use thiserror::Error;

use crate::Refusal;

/// Something that a command uses up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// An open `/dev/iommu`.
    Context,
    /// An object of a context.
    Object,
    /// An area of an address space.
    Area,
    /// A range that an address space keeps free.
    ReservedRange,
    /// A range in which an address space chooses addresses.
    AllowedRange,
    /// A page table that mirrors an address space.
    Mirror,
    /// What notes the pages written through a page table.
    WrittenPages,
    /// The link between a device and a page table.
    Attachment,
    /// A software user of an address space.
    Access,
    /// A range that such a user pins.
    AccessPin,
    /// Pages of one area, to be pinned together.
    Pages,
    /// A page fault that its queue holds.
    Event,
    /// A vector that an eventfd is to hear.
    Interrupt,
    /// An eventfd that a device is to hear.
    Watch,
    /// What backs a device's BARs while nobody has it open.
    BarPages,
    /// Memory for the length of one command.
    Buffer,
}

/// There is no more of it (`ENOMEM`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no more: {0:?}")]
pub struct Exhausted(pub Resource);

/// Says how much there is.
pub trait Quota: Send + Sync {
    /// Whether one more of `resource` may be had, where there are `held` with it: in the same context or address space;
    /// of what lasts no longer than a command, 1.
    ///
    /// Called with locks held: takes none but leaves of its own, and waits for nothing.
    ///
    /// # Errors
    /// [`Exhausted`].
    fn admit(&self, resource: Resource, held: u64) -> Result<(), Exhausted>;
}

/// Limits of a client, far above what a VMM needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Objects of a context.
    pub objects: u64,
    /// Areas of an address space.
    pub areas: u64,
    /// Ranges of other kinds that an address space keeps: reserved, allowed, pinned by software.
    pub ranges: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { objects: 1 << 16, areas: 1 << 24, ranges: 1 << 16 }
    }
}

impl Quota for Limits {
    fn admit(&self, resource: Resource, held: u64) -> Result<(), Exhausted> {
        let most = match resource {
            Resource::Object => self.objects,
            Resource::Area => self.areas,
            Resource::ReservedRange
            | Resource::AllowedRange
            | Resource::Access
            | Resource::Event
            | Resource::AccessPin => self.ranges,
            // Bounded by the objects that they are of, or by the memory that there is.
            Resource::Context
            | Resource::Mirror
            | Resource::WrittenPages
            | Resource::Attachment
            | Resource::Pages
            | Resource::Interrupt
            | Resource::Watch
            | Resource::BarPages
            | Resource::Buffer => u64::MAX,
        };
        if held > most { Err(Exhausted(resource)) } else { Ok(()) }
    }
}

impl From<Exhausted> for Refusal {
    fn from(Exhausted(resource): Exhausted) -> Self {
        Self::Exhausted { resource }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_there_is_may_be_had_and_no_more() {
        let limits = Limits { objects: 2, areas: 3, ranges: 1 };
        assert_eq!(limits.admit(Resource::Object, 2), Ok(()));
        assert_eq!(limits.admit(Resource::Object, 3), Err(Exhausted(Resource::Object)));
        assert_eq!(limits.admit(Resource::Area, 3), Ok(()));
        assert_eq!(limits.admit(Resource::Area, 4), Err(Exhausted(Resource::Area)));
        assert_eq!(limits.admit(Resource::AccessPin, 2), Err(Exhausted(Resource::AccessPin)));
        assert_eq!(limits.admit(Resource::Buffer, u64::MAX), Ok(()));
    }
}
