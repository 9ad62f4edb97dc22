//! The ACCESS object: a user of an address space in software, as a mediated device is in the kernel.
//!
//! An access is attached to one address space at a time and is a user of it. It copies from and to what is mapped there,
//! and pins ranges: a pin keeps memory until it is given back, or until an area that it touches is unmapped, which takes
//! it away. An access holds its context's file, so that the context outlives it.
//!
//! `attached` is ACCESS, held in no call out of this file. No lock is held while memory is pinned, or copied from or to.
//! Source: v7.3 `iommufd_access_*()`, `device.c`.

use std::sync::Arc;

use span::Span;
use sync::{Mutex, rank};
use thiserror::Error;

use crate::address_space::{AccessName, Parts, Piece, PinnedPart};
use crate::in_flight::Visitors;
use crate::ioas::Ioas;
use crate::object::{Kind, Object, Pending};
use crate::registry::{Afterwards, Headed, Header};
use crate::{Context, Pinned, Quota, Refusal};

/// A software user of an address space.
pub(crate) struct Access {
    header: Header,
    /// Whether it pins, and so needs whole pages.
    pins: bool,
    attached: Mutex<rank::Access, Attached>,
    visitors: Visitors,
}

#[derive(Default)]
struct Attached {
    /// Which address space, and its name there. The access is a user of it.
    to: Option<(Arc<Ioas>, AccessName)>,
    /// The number of the next pin.
    next: u32,
}

/// Which way bytes go.
pub(crate) enum Transfer<'b> {
    /// From what is mapped.
    Read(&'b mut [u8]),
    /// To what is mapped.
    Write(&'b [u8]),
}

/// What an access cannot have. Carries what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AccessRefusal {
    /// No pin has this number (`ENOENT`).
    #[error("the access has no pin {number}")]
    NoPin {
        /// The number.
        number: u32,
    },
    /// It is attached to no address space (`ENOENT`).
    #[error("the access is attached to no address space")]
    NotAttached,
    /// What is mapped there was not mapped for that (`EPERM`).
    #[error("what is mapped at {iova:#x} was not mapped for that")]
    NotGranted {
        /// Where.
        iova: u64,
    },
    /// The area cannot be cut while an access has pinned part of it (`EINVAL`).
    #[error("an access has pinned part of area {mapped}")]
    PinnedArea {
        /// The area.
        mapped: Span,
    },
}

impl Access {
    /// Makes an access on address space `ioas_id`; with `pins` it can pin, and all that is mapped there are whole pages.
    /// The caller is its creator, who ends it.
    ///
    /// # Errors
    /// There is no access then. In this order:
    /// - [`Refusal::OutOfIds`] (`ENOMEM`)
    /// - [`Refusal::NoObject`] (`ENOENT`): the address space.
    /// - [`Refusal::MisalignedArea`] (`EADDRINUSE`)
    pub(crate) fn create(
        ctx: &Arc<Context>,
        ioas_id: u32,
        pins: bool,
    ) -> Result<Arc<Self>, Refusal> {
        let pending = Pending::build(ctx, |header| {
            let attached = Mutex::new(Attached::default());
            Ok(Self { header, pins, attached, visitors: Visitors::default() })
        })?;
        let to = pending.attach(ctx, ioas_id)?;
        pending.attached.lock().to = Some(to);
        // Whoever made it could not be told if the context closed under it.
        assert!(ctx.get_file(), "a command runs on the context");
        pending.header.add_user();
        Ok(pending.publish())
    }

    /// Ends the access for its creator. What it pinned is given back.
    pub(crate) fn end(self: &Arc<Self>, ctx: &Context) {
        ctx.registry().remove(&Object::Access(Arc::clone(self)), Afterwards::Free);
        self.destroy(ctx);
        ctx.put_file();
    }

    /// Moves the access to another address space. What it pinned in the former is given back.
    ///
    /// # Errors
    /// All is as before then. In this order:
    /// - [`AccessRefusal::NotAttached`] (`ENOENT`)
    /// - [`Refusal::NoObject`] (`ENOENT`): the address space.
    /// - [`Refusal::MisalignedArea`] (`EADDRINUSE`)
    pub(crate) fn replace(&self, ctx: &Context, ioas_id: u32) -> Result<(), Refusal> {
        let (former, _) = self.place()?;
        if former.header().id() == ioas_id {
            return Ok(());
        }
        let to = self.attach(ctx, ioas_id)?;
        let former = self.attached.lock().to.replace(to);
        leave(ctx, former);
        Ok(())
    }

    /// Pins `length` bytes from `iova` on, to be read or written. Returns the pin's number and the parts of areas there.
    ///
    /// # Errors
    /// Nothing is pinned then. In this order:
    /// - [`Refusal::Empty`] (`EINVAL`), [`Refusal::PastTop`] (`EOVERFLOW`)
    /// - [`AccessRefusal::NotAttached`] (`ENOENT`)
    /// - for each area [`Refusal::Misaligned`] (`EINVAL`), [`AccessRefusal::NotGranted`] (`EPERM`),
    ///   [`DmaBufRefusal::NotForSoftware`](crate::DmaBufRefusal::NotForSoftware) (`EINVAL`), [`Refusal::Pin`] (`EFAULT`,
    ///   `EINVAL`, `ENOMEM`); [`Refusal::NotCovered`] (`ENOENT`)
    pub(crate) fn pin(
        &self,
        iova: u64,
        length: u64,
        write: bool,
    ) -> Result<(u32, Vec<PinnedPart>), Refusal> {
        let asked = span_of(iova, length)?;
        let (ioas, name) = self.place()?;
        let number = self.next_number();
        let begun = ioas.space.lock().begin_pin(name, number, asked, write);
        let Parts { pieces, refusal } = begun.inspect_err(|_| self.take_back(number))?;
        let pinned: Result<Vec<_>, _> =
            pieces.into_iter().map(|piece| pin_part(piece, ioas.quota())).collect();
        let pinned = match refusal {
            None => pinned,
            Some(refusal) => pinned.and(Err(refusal)),
        };
        let parts = match pinned {
            Ok(parts) => parts,
            Err(refusal) => {
                // Gone, where the area was unmapped meanwhile.
                let left = ioas.space.lock().unpin(name, number);
                drop(left);
                self.take_back(number);
                return Err(refusal);
            }
        };
        let finished = ioas.space.lock().finish_pin(name, number, parts.clone());
        match finished {
            Ok(()) => Ok((number, parts)),
            Err(unwanted) => {
                drop(unwanted);
                Err(Refusal::NotCovered { asked, iova })
            }
        }
    }

    /// Gives a pin back.
    ///
    /// # Errors
    /// [`AccessRefusal::NoPin`] (`ENOENT`), also where an area that it touched was unmapped;
    /// [`AccessRefusal::NotAttached`] (`ENOENT`).
    pub(crate) fn unpin(&self, number: u32) -> Result<(), Refusal> {
        let (ioas, name) = self.place()?;
        let left = ioas.space.lock().unpin(name, number)?;
        ioas.map.reclaim(left);
        Ok(())
    }

    /// Copies between `bytes` and what is mapped from `iova` on. An area whose memory is not there is pinned for as long
    /// as that takes. Unmapping waits for it, as it does for DMA.
    ///
    /// # Errors
    /// Some of the bytes may have been copied. In this order:
    /// - [`Refusal::Empty`] (`EINVAL`), [`Refusal::PastTop`] (`EOVERFLOW`)
    /// - [`AccessRefusal::NotAttached`] (`ENOENT`)
    /// - for each area [`AccessRefusal::NotGranted`] (`EPERM`),
    ///   [`DmaBufRefusal::NotForSoftware`](crate::DmaBufRefusal::NotForSoftware) (`EINVAL`), [`Refusal::Pin`] (`EFAULT`,
    ///   `EINVAL`, `ENOMEM`), [`Refusal::Unreachable`] (`EFAULT`); [`Refusal::NotCovered`] (`ENOENT`)
    pub(crate) fn copy(
        &self,
        ctx: &Context,
        iova: u64,
        transfer: &mut Transfer<'_>,
    ) -> Result<(), Refusal> {
        let asked = span_of(iova, transfer.length() as u64)?;
        let (ioas, name) = self.place()?;
        let _stay = ctx.enter_dma(&self.visitors);
        let Parts { pieces, refusal } =
            ioas.space.lock().reach(name, asked, transfer.is_write())?;
        let mut done = 0;
        for piece in pieces {
            let part = pin_part(piece, ioas.quota())?;
            let length = usize::try_from(part.length).unwrap_or(usize::MAX);
            transfer.copy(&*part.memory, part.at, done, length)?;
            done += length;
        }
        refusal.map_or(Ok(()), Err)
    }

    /// The place of an area, counted from the lowest; `None` if there are fewer.
    ///
    /// # Errors
    /// [`AccessRefusal::NotAttached`] (`ENOENT`).
    pub(crate) fn nth_area(&self, number: usize) -> Result<Option<Span>, Refusal> {
        let (ioas, _) = self.place()?;
        Ok(ioas.space.lock().nth_area(number))
    }

    /// Whether it can pin.
    pub(crate) const fn pins(&self) -> bool {
        self.pins
    }

    fn attach(&self, ctx: &Context, ioas_id: u32) -> Result<(Arc<Ioas>, AccessName), Refusal> {
        let ioas = ctx.get::<Ioas>(ioas_id)?;
        let name = ioas.space.lock().attach_access(self.pins)?;
        ioas.header().add_user();
        Ok((Arc::clone(&ioas), name))
    }

    fn place(&self) -> Result<(Arc<Ioas>, AccessName), Refusal> {
        self.attached.lock().to.clone().ok_or_else(|| AccessRefusal::NotAttached.into())
    }

    /// Gives back the number of a pin that came to nothing, if no later one was taken.
    fn take_back(&self, number: u32) {
        let mut attached = self.attached.lock();
        if attached.next == number.wrapping_add(1) {
            attached.next = number;
        }
    }

    fn next_number(&self) -> u32 {
        let mut attached = self.attached.lock();
        let number = attached.next;
        attached.next = number.wrapping_add(1);
        number
    }
}

impl Transfer<'_> {
    fn length(&self) -> usize {
        match self {
            Self::Read(into) => into.len(),
            Self::Write(from) => from.len(),
        }
    }

    const fn is_write(&self) -> bool {
        matches!(self, Self::Write(_))
    }

    /// Copies `length` of its bytes from `done` on, from or to `at`.
    fn copy(
        &mut self,
        memory: &dyn Pinned,
        at: u64,
        done: usize,
        length: usize,
    ) -> Result<(), Refusal> {
        let bytes = done..done.saturating_add(length);
        let copied = match self {
            Self::Read(into) => into.get_mut(bytes).map(|into| memory.read(at, into)),
            Self::Write(from) => from.get(bytes).map(|from| memory.write(at, from)),
        };
        match copied {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => Err(Refusal::Unreachable),
        }
    }
}

/// The memory of a part of an area: what is there, or pinned now. Called with no lock held.
pub(crate) fn pin_part(piece: Piece, quota: &dyn Quota) -> Result<PinnedPart, Refusal> {
    let Piece { area, memory } = piece;
    let memory = match memory {
        Some(memory) => memory,
        None => area.pin(quota)?,
    };
    let (at, length) = (area.at(), area.length());
    Ok(PinnedPart { source: area.source, at, length, memory })
}

/// Takes an access off an address space, as one of its users. Called with no lock held.
fn leave(ctx: &Context, former: Option<(Arc<Ioas>, AccessName)>) {
    if let Some((ioas, name)) = former {
        let left = ioas.space.lock().detach_access(name);
        ctx.let_go(&*ioas.map, left);
        ioas.header().drop_user();
    }
}

fn span_of(iova: u64, length: u64) -> Result<Span, Refusal> {
    if length == 0 {
        return Err(Refusal::Empty);
    }
    Span::new(iova, length).ok_or(Refusal::PastTop { start: iova, length })
}

impl Headed for Access {
    fn header(&self) -> &Header {
        &self.header
    }
}

impl Kind for Access {
    const NAME: &'static str = "access";

    fn wrap(this: Arc<Self>) -> Object {
        Object::Access(this)
    }

    fn pick(object: &Object) -> Option<Arc<Self>> {
        if let Object::Access(access) = object { Some(Arc::clone(access)) } else { None }
    }

    /// Leaves its address space, and gives back what it pinned there.
    fn destroy(&self, ctx: &Context) {
        let former = self.attached.lock().to.take();
        leave(ctx, former);
        self.header.end();
    }
}
