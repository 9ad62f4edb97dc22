//! Which pages were written, as VFIO's own type1 tells: all that are mapped, for it cannot know better.
//!
//! Takes no lock.

use uapi::vfio::{
    Bitmap as AskedBitmap, IommuType1DirtyBitmap, IommuType1DirtyBitmapGet, IommuType1DmaUnmap,
    dirty_pages_flags,
};
use zerocopy::{FromZeros, IntoBytes};

use super::{Type1, Version, span_of};
use crate::Refusal;
use crate::argument::Argument;

/// Bytes of the largest bitmap.
pub(super) const BITMAP_BYTES_MOST: u64 = 1 << 28;
/// Above the highest address of a program.
const ADDRESS_END: u64 = 0x7fff_ffff_f000;
const WORD_BITS: u64 = 64;
const WORD_BYTES: u64 = 8;

/// Where a client wants a bit a page.
pub(super) struct Bitmap {
    /// Bytes of a page.
    pub(super) page: u64,
    at: u64,
}

impl Bitmap {
    /// The one behind an unmapping of `size` bytes.
    ///
    /// # Errors
    /// [`Refusal::Argsz`] (`EINVAL`), [`Refusal::Unreachable`] (`EFAULT`), [`Refusal::BitmapSize`] (`EINVAL`).
    pub(super) fn of_unmap(
        argument: &Argument<'_>,
        argsz: u32,
        size: u64,
    ) -> Result<Self, Refusal> {
        let head = size_of::<IommuType1DmaUnmap>();
        let least = head + size_of::<AskedBitmap>();
        if (argsz as usize) < least {
            let least = u32::try_from(least).unwrap_or(u32::MAX);
            return Err(Refusal::Argsz { given: argsz, least });
        }
        let mut asked = AskedBitmap::new_zeroed();
        argument.read_at(head, asked.as_mut_bytes())?;
        Self::new(asked.pgsize, asked.size, asked.data, size)
    }

    /// Of `size` bytes of the address space.
    fn new(page: u64, bytes: u64, at: u64, size: u64) -> Result<Self, Refusal> {
        let reaches = at.checked_add(bytes).is_some_and(|end| end <= ADDRESS_END);
        let pages = if page == 0 { 0 } else { size >> page.trailing_zeros() };
        let needed = pages.div_ceil(WORD_BITS) * WORD_BYTES;
        if !reaches || pages == 0 || bytes == 0 || bytes > BITMAP_BYTES_MOST || bytes < needed {
            return Err(Refusal::BitmapSize { bytes, pages });
        }
        Ok(Self { page, at })
    }

    /// Sets the bits of an entry, in a bitmap that begins at address `base`. Bits of the first word that lie below the
    /// entry stay; those above it in the last word are cleared.
    ///
    /// # Errors
    /// [`Refusal::Unreachable`] (`EFAULT`).
    pub(super) fn mark(
        &self,
        argument: &Argument<'_>,
        base: u64,
        iova: u64,
        length: u64,
    ) -> Result<(), Refusal> {
        let first = (iova.wrapping_sub(base)) / self.page;
        let mut bits = length / self.page;
        let mut at = self.at.wrapping_add(first / WORD_BITS * WORD_BYTES);
        let mut below = first % WORD_BITS;
        while bits > 0 {
            let mut word = 0;
            if below > 0 {
                let mut bytes = 0_u64.to_le_bytes();
                argument.caller.read(at, &mut bytes)?;
                word = u64::from_le_bytes(bytes) & ((1 << below) - 1);
            }
            let now = bits.min(WORD_BITS - below);
            word |= (u64::MAX >> (WORD_BITS - now)) << below;
            argument.caller.write(at, &word.to_le_bytes())?;
            bits -= now;
            below = 0;
            at = at.wrapping_add(WORD_BYTES);
        }
        Ok(())
    }
}

impl Type1 {
    /// `VFIO_IOMMU_DIRTY_PAGES`: begins to log, ends it, or tells which pages of a range were written.
    ///
    /// # Errors
    /// In this order:
    /// - [`Refusal::NoLogOfVersionOne`] (`EACCES`)
    /// - [`Refusal::Unreachable`], [`Refusal::Argsz`], [`Refusal::Flags`] – the argument (`EFAULT`, `EINVAL`).
    /// - GET: as [`Type1::tell_written`].
    pub(crate) fn dirty_pages(&mut self, argument: &Argument<'_>) -> Result<u32, Refusal> {
        if self.version == Version::One {
            return Err(Refusal::NoLogOfVersionOne);
        }
        let asked: IommuType1DirtyBitmap = argument.read(size_of::<IommuType1DirtyBitmap>())?;
        match asked.flags {
            dirty_pages_flags::START => self.logs = true,
            dirty_pages_flags::STOP => self.logs = false,
            dirty_pages_flags::GET_BITMAP => self.tell_written(argument, asked.argsz)?,
            flags => return Err(Refusal::Flags { flags }),
        }
        Ok(0)
    }

    /// # Errors
    /// In this order:
    /// - [`Refusal::Argsz`] (`EINVAL`), [`Refusal::Unreachable`] (`EFAULT`)
    /// - [`Refusal::EmptyRange`] (`EINVAL`), [`Refusal::PastTop`] (`EOVERFLOW`)
    /// - [`Refusal::BitmapSize`], [`Refusal::NoLog`], [`Refusal::Misaligned`], [`Refusal::EntryBisected`] (`EINVAL`)
    /// - [`Refusal::Unreachable`] – the bitmap (`EFAULT`).
    fn tell_written(&self, argument: &Argument<'_>, argsz: u32) -> Result<(), Refusal> {
        let head = size_of::<IommuType1DirtyBitmap>();
        let least = head + size_of::<IommuType1DirtyBitmapGet>();
        if (argsz as usize) < least {
            let least = u32::try_from(least).unwrap_or(u32::MAX);
            return Err(Refusal::Argsz { given: argsz, least });
        }
        let mut asked = IommuType1DirtyBitmapGet::new_zeroed();
        argument.read_at(head, asked.as_mut_bytes())?;
        if asked.size == 0 {
            return Err(Refusal::EmptyRange);
        }
        let range = span_of(asked.iova, asked.size)?;
        let (page, bytes, at) = (asked.bitmap_pgsize, asked.bitmap_size, asked.bitmap_data);
        let bitmap = Bitmap::new(page, bytes, at, asked.size)?;
        if page != self.page() || !self.logs {
            return Err(Refusal::NoLog);
        }
        self.check_aligned(asked.iova | asked.size)?;
        self.check_not_bisected(range)?;
        for (iova, entry) in self.overlapping(range) {
            bitmap.mark(argument, range.start(), iova, entry.length)?;
        }
        Ok(())
    }
}
