//! One open `/dev/vfio/vfio` where type1 is VFIO's own (`vfio_iommu_type1`), and not an iommufd.
//!
//! A container lives as long as its file or a group in it. It has no IOMMU until a client that has put a group into it
//! asks for one, and none again when the last group leaves: then all that was mapped is gone.
//!
//! Commands take their *turn*: who has it holds what the container has, and no lock. `inner` is `CONTAINER`, held for
//! as long as it takes to get that and to give it back. Source: [uapi/vfio.h]; order of checks as in Linux 7.3.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use iommufd::{Context, ContextSettings, HostSpace, Iommu, Limits, Quota, Tvm};
use sync::{Mutex, WaitQueue, rank};
use uapi::vfio::{api, extension};
use uapi::{CommandId, Errno, FileKind, Profile};

use crate::argument::Argument;
use crate::type1::{Type1, Version};
use crate::{Caller, Group, Refusal};

/// An address space that devices of groups share.
pub struct Container {
    profile: Profile,
    room: Room,
    /// `None` while somebody has the turn.
    inner: Mutex<rank::Container, Option<Inner>>,
    passed: WaitQueue,
}

/// How what is mapped into is made.
enum Room {
    Plain,
    Under(Arc<dyn Quota>),
}

#[derive(Default)]
struct Inner {
    groups: Vec<Arc<Group>>,
    type1: Option<Type1>,
}

/// What a container has, for whoever has the turn.
struct Turn<'a> {
    container: &'a Container,
    inner: Inner,
}

impl Container {
    /// A container without groups.
    pub fn new(profile: Profile) -> Arc<Self> {
        Self::new_under(profile, Arc::new(Limits::default()))
    }

    /// As [`new`](Self::new), with room for as much as `quota` says.
    pub fn new_under(profile: Profile, quota: Arc<dyn Quota>) -> Arc<Self> {
        Self::with_room(profile, Room::Under(quota))
    }

    /// As [`new`](Self::new), with plain maps in place of page tables ([`Context::open_plain`]).
    pub fn new_plain(profile: Profile) -> Arc<Self> {
        Self::with_room(profile, Room::Plain)
    }

    fn with_room(profile: Profile, room: Room) -> Arc<Self> {
        let inner = Mutex::new(Some(Inner::default()));
        Arc::new(Self { profile, room, inner, passed: WaitQueue::new() })
    }

    /// Runs the command `request`, with what `argument` is or points to in the caller's memory.
    ///
    /// # Errors
    /// `EINVAL` for all but `VFIO_GET_API_VERSION`, `VFIO_CHECK_EXTENSION` and `VFIO_SET_IOMMU` while the container has
    /// no IOMMU, and then `ENOTTY` for a command that does not exist; else the command's, as told at its handler.
    pub fn ioctl(&self, caller: &dyn Caller, request: u32, argument: u64) -> Result<u32, Errno> {
        let argument = Argument { caller, at: argument };
        self.run(request, &argument).map_err(argument.refused())
    }

    /// Puts a group into the container: what is mapped is for its devices too.
    ///
    /// # Errors
    /// - [`Refusal::GroupClaimed`] – a device of it is bound to an iommufd still (`EPERM`).
    /// - as [`Type1::admit`], where the container has an IOMMU.
    pub(crate) fn attach(&self, group: &Arc<Group>) -> Result<(), Refusal> {
        let mut turn = self.take_turn();
        if group.devices().iter().any(|device| device.endpoint().group().is_claimed()) {
            return Err(Refusal::GroupClaimed);
        }
        if let Some(type1) = &mut turn.type1 {
            type1.admit(&iommus(group))?;
        }
        turn.groups.push(Arc::clone(group));
        Ok(())
    }

    /// Takes a group out. With the last one all that is mapped goes.
    pub(crate) fn detach(&self, group: &Arc<Group>) {
        let mut turn = self.take_turn();
        turn.groups.retain(|other| !Arc::ptr_eq(other, group));
        let type1 = if turn.groups.is_empty() { turn.type1.take() } else { None };
        if let Some(type1) = type1 {
            type1.close();
        }
    }

    /// What devices of its groups are bound to.
    ///
    /// # Errors
    /// [`Refusal::NoContainerIommu`] (`EINVAL`).
    pub(crate) fn space(&self) -> Result<Arc<HostSpace>, Refusal> {
        let turn = self.take_turn();
        let type1 = turn.type1.as_ref().ok_or(Refusal::NoContainerIommu)?;
        Ok(Arc::clone(type1.space()))
    }

    fn run(&self, request: u32, argument: &Argument<'_>) -> Result<u32, Refusal> {
        let command = uapi::lookup(FileKind::VfioContainer, self.profile, request);
        let command = command.map(|command| command.id);
        if command == Some(CommandId::GetApiVersion) {
            return Ok(api::VERSION);
        }
        let mut turn = self.take_turn();
        match command {
            Some(CommandId::CheckExtension) => {
                return Ok(check_extension(argument.at, turn.type1.is_some()));
            }
            Some(CommandId::SetIommu) => return turn.set_iommu(argument.at),
            _ => {}
        }
        let type1 = turn.type1.as_mut().ok_or(Refusal::NoContainerIommu)?;
        match command {
            Some(CommandId::IommuGetInfo) => type1.info(argument),
            Some(CommandId::IommuMapDma) => type1.map_dma(argument),
            Some(CommandId::IommuUnmapDma) => type1.unmap_dma(argument),
            Some(CommandId::IommuDirtyPages) => type1.dirty_pages(argument),
            _ => Err(Refusal::NoSuchCommand { request }),
        }
    }

    fn open(&self) -> Arc<Context> {
        let settings = ContextSettings { profile: self.profile, tvm: Tvm::Implicit };
        match &self.room {
            Room::Plain => Context::open_plain(settings),
            Room::Under(quota) => Context::open_under(settings, Arc::clone(quota)),
        }
    }

    fn take_turn(&self) -> Turn<'_> {
        let inner = self.inner.lock();
        let mut inner = self.passed.wait_while(inner, |inner| inner.is_none());
        let inner = inner.take().unwrap_or_default();
        Turn { container: self, inner }
    }
}

impl Turn<'_> {
    /// `VFIO_SET_IOMMU`: type1 of version 1 or 2.
    ///
    /// # Errors
    /// - [`Refusal::ContainerNotReady`] – no group, or an IOMMU already (`EINVAL`).
    /// - [`Refusal::NotAnIommu`] (`EINVAL`), [`Refusal::NoSuchIommu`] (`ENODEV`)
    /// - as [`Type1::admit`].
    fn set_iommu(&mut self, asked: u64) -> Result<u32, Refusal> {
        if self.groups.is_empty() || self.type1.is_some() {
            return Err(Refusal::ContainerNotReady);
        }
        let version = match asked {
            extension::TYPE1_IOMMU => Version::One,
            extension::TYPE1V2_IOMMU => Version::Two,
            extension::UNMAP_ALL => return Err(Refusal::NotAnIommu { asked }),
            _ => return Err(Refusal::NoSuchIommu { asked }),
        };
        let mut type1 = Type1::new(self.container.open(), version)?;
        let admitted = self.groups.iter().try_for_each(|group| type1.admit(&iommus(group)));
        if let Err(refusal) = admitted {
            type1.close();
            return Err(refusal);
        }
        self.type1 = Some(type1);
        Ok(0)
    }
}

impl Deref for Turn<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Turn<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.container.inner.lock() = Some(std::mem::take(&mut self.inner));
        self.container.passed.wake_all();
    }
}

/// `VFIO_CHECK_EXTENSION`: 1 for what is served. The last two are an IOMMU's.
fn check_extension(asked: u64, has_iommu: bool) -> u32 {
    match asked {
        extension::TYPE1_IOMMU | extension::TYPE1V2_IOMMU | extension::UNMAP_ALL => 1,
        // An IOMMU that is not coherent is not admitted.
        extension::UPDATE_VADDR | extension::DMA_CC_IOMMU => u32::from(has_iommu),
        _ => 0,
    }
}

/// The IOMMUs in front of a group's devices.
fn iommus(group: &Group) -> Vec<Arc<Iommu>> {
    let mut iommus: Vec<Arc<Iommu>> = Vec::new();
    for device in group.devices() {
        let iommu = device.endpoint().iommu();
        if !iommus.iter().any(|other| Arc::ptr_eq(other, iommu)) {
            iommus.push(Arc::clone(iommu));
        }
    }
    iommus
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container").finish_non_exhaustive()
    }
}
