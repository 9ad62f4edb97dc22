//! DMA_BUF: a BAR lent as a file, for other devices to reach by DMA.
//!
//! A device remembers what it lent under `MEMORY`, and is asked for it while its BARs can be reached only: not while memory
//! decoding is off, in D3hot, in low power, during a reset, or after the last close. Whoever changes one of these owns the
//! turn, which tells whether anything is lent, so that nothing is looked for where nothing is. What was taken back comes
//! back for new mappings only.
//!
//! The bytes are those of the pages that clients may map. Registers are reached by no DMA: it is refused as by memory that
//! is gone. Takes `MEMORY`, and the locks of `iommufd` with none held. Source: [uapi/vfio.h]; order of checks from v7.3
//! `vfio_pci_dmabuf.c`.

use std::sync::{Arc, Weak};

use iommufd::{DmaBuf, MemoryGone, Pinned, Resource};
use mem::Pages;
use pci::regs::header;
use pci::{Bar, BarKind};
use uapi::vfio::{Feature, FeatureDmaBuf, RegionDmaRange, feature_flags};
use zerocopy::{FromZeros, IntoBytes};

use crate::argument::Argument;
use crate::command::Bound;
use crate::device::{LowPower, Memory};
use crate::facts::Config;
use crate::feature::check;
use crate::map::{PAGE_SIZE, areas};
use crate::turn::Turn;
use crate::{Device, Refusal};

/// Lends ranges of a BAR, and returns the descriptor of the file.
///
/// # Errors
/// In this order; nothing is lent then:
/// - as [`check`] (`EINVAL`), [`Refusal::Unreachable`] (`EFAULT`)
/// - [`Refusal::NoRanges`], [`Refusal::Flags`] (`EINVAL`)
/// - [`Refusal::NoSuchBar`] (`ENODEV`)
/// - [`Refusal::TooManyRanges`] (`ENOMEM`), [`Refusal::Iommufd`] (`ENOMEM`), [`Refusal::Unreachable`] (`EFAULT`)
/// - [`Refusal::DmaRange`] – a range is empty or not in whole pages, or all are longer than can be (`EINVAL`).
/// - [`Refusal::NotMemory`] (`EINVAL`)
/// - [`Refusal::PastTop`] (`EOVERFLOW`), [`Refusal::DmaRange`] – past the BAR's end (`EINVAL`), by range.
/// - [`Refusal::NotInstalled`] – as the caller's side says (`EMFILE`, `ENOMEM`).
pub(crate) fn export(
    bound: &Bound<'_>,
    argument: &Argument<'_>,
    asked: Feature,
) -> Result<u32, Refusal> {
    if !check(asked, feature_flags::GET, size_of::<FeatureDmaBuf>())? {
        return Ok(0);
    }
    let mut wanted = FeatureDmaBuf::new_zeroed();
    argument.read_at(size_of::<Feature>(), wanted.as_mut_bytes())?;
    if wanted.nr_ranges == 0 {
        return Err(Refusal::NoRanges);
    }
    if wanted.flags != 0 {
        return Err(Refusal::Flags { flags: wanted.flags });
    }
    let index = wanted.region_index as usize;
    let bar = bound.device.function().bar(index);
    let bar = bar.ok_or(Refusal::NoSuchBar { index: wanted.region_index })?;
    let ranges = read_ranges(bound, argument, wanted.nr_ranges)?;
    let length = total_length(&ranges)?;
    check_inside(bound.device, index, bar, &ranges)?;
    bound.admit(Resource::Buffer)?;
    let buffer = match (ranges.as_slice(), &bound.file.pages()[index]) {
        ([range], Some(pages)) => {
            let areas = areas(bar).collect();
            let bytes = BarBytes { pages: Arc::clone(pages), offset: range.offset, areas };
            DmaBuf::of_range(length, Arc::new(bytes))
        }
        ([_], None) => DmaBuf::of_range(length, Arc::new(Registers)),
        _ => DmaBuf::of_ranges(length),
    };
    bound.device.lend(&buffer);
    let installed = argument.caller.install_dma_buf(&buffer, wanted.open_flags);
    let fd = installed.map_err(|errno| Refusal::NotInstalled { errno })?;
    Ok(fd.cast_unsigned())
}

/// Bytes of a list of ranges that a kernel allocates at most.
const LIST_MAX: usize = 4 << 20;

fn read_ranges(
    bound: &Bound<'_>,
    argument: &Argument<'_>,
    count: u32,
) -> Result<Vec<RegionDmaRange>, Refusal> {
    let length = (count as usize).saturating_mul(size_of::<RegionDmaRange>());
    if length > LIST_MAX {
        return Err(Refusal::TooManyRanges { count });
    }
    bound.admit(Resource::Buffer)?;
    let mut ranges = vec![RegionDmaRange::new_zeroed(); count as usize];
    let at = size_of::<Feature>() + size_of::<FeatureDmaBuf>();
    argument.read_at(at, ranges.as_mut_slice().as_mut_bytes())?;
    Ok(ranges)
}

/// The bit of a length that the kernel keeps to itself.
const LENGTH_END: u64 = 1 << 63;

fn total_length(ranges: &[RegionDmaRange]) -> Result<u64, Refusal> {
    let mut total: u64 = 0;
    for &RegionDmaRange { offset, length } in ranges {
        let refusal = Refusal::DmaRange { offset, length };
        if length == 0 || !offset.is_multiple_of(PAGE_SIZE) || !length.is_multiple_of(PAGE_SIZE) {
            return Err(refusal);
        }
        total = total.checked_add(length).ok_or(refusal)?;
    }
    match ranges.last() {
        Some(&RegionDmaRange { offset, length }) if total >= LENGTH_END => {
            Err(Refusal::DmaRange { offset, length })
        }
        _ => Ok(total),
    }
}

fn check_inside(
    device: &Device,
    index: usize,
    bar: &Bar,
    ranges: &[RegionDmaRange],
) -> Result<(), Refusal> {
    if bar.kind == BarKind::Io {
        return Err(Refusal::NotMemory);
    }
    let start = address(device, index, bar);
    for &RegionDmaRange { offset, length } in ranges {
        let end = start.checked_add(offset).and_then(|first| first.checked_add(length));
        let end = end.ok_or(Refusal::PastTop { start: offset, length })?;
        if end - start > bar.size {
            return Err(Refusal::DmaRange { offset, length });
        }
    }
    Ok(())
}

/// Where the function decodes the BAR.
fn address(device: &Device, index: usize, bar: &Bar) -> u64 {
    let config = Config(device.function());
    let dword = |index: usize| {
        let at = u16::try_from(4 * index).unwrap_or(0);
        u64::from(config.dword(header::BAR0 + at))
    };
    let upper = if matches!(bar.kind, BarKind::Memory64 { .. }) { dword(index + 1) } else { 0 };
    upper << 32 | dword(index) & !MEMORY_BAR_FLAGS
}

/// What a memory BAR's register holds beside its address.
const MEMORY_BAR_FLAGS: u64 = 0xf;

/// The pages of one range of a BAR.
struct BarBytes {
    pages: Arc<Pages>,
    /// Where the range begins in the BAR.
    offset: u64,
    /// Where the BAR has memory: offset and length in bytes.
    areas: Vec<(u64, u64)>,
}

impl BarBytes {
    /// Where bytes of the range lie in the pages.
    fn place(&self, at: u64, length: usize) -> Result<usize, MemoryGone> {
        let start = self.offset.checked_add(at).ok_or(MemoryGone)?;
        let end = start.checked_add(length as u64).ok_or(MemoryGone)?;
        let mut areas = self.areas.iter();
        if areas.any(|&(first, length)| first <= start && end - first <= length) {
            return usize::try_from(start).map_err(|_| MemoryGone);
        }
        Err(MemoryGone)
    }
}

impl Pinned for BarBytes {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MemoryGone> {
        self.pages.checked_read(self.place(at, into.len())?, into).ok_or(MemoryGone)
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), MemoryGone> {
        self.pages.checked_write(self.place(at, from.len())?, from).ok_or(MemoryGone)
    }
}

/// A BAR without memory.
struct Registers;

impl Pinned for Registers {
    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), MemoryGone> {
        Err(MemoryGone)
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), MemoryGone> {
        Err(MemoryGone)
    }
}

/// What a device lent. Those that nobody has any more are forgotten when it lends again.
#[derive(Default)]
pub(crate) struct Lent(Vec<Weak<DmaBuf>>);

impl Lent {
    /// Whether anybody may have anything of it.
    pub(crate) fn is_any(&self) -> bool {
        !self.0.is_empty()
    }

    /// What is still had.
    pub(crate) fn buffers(&self) -> Vec<Arc<DmaBuf>> {
        self.0.iter().filter_map(Weak::upgrade).collect()
    }

    fn add(&mut self, buffer: &Arc<DmaBuf>) {
        self.0.retain(|lent| lent.strong_count() > 0);
        self.0.push(Arc::downgrade(buffer));
    }
}

impl Memory {
    /// Whether what the device lent can be reached.
    fn lends(&self) -> bool {
        matches!(self.low_power, LowPower::Off) && self.decodes_memory()
    }
}

impl Device {
    fn lend(&self, buffer: &Arc<DmaBuf>) {
        let turn = self.take_turn();
        let mut memory = self.memory().lock();
        memory.lent.add(buffer);
        let lends = memory.lends();
        drop(memory);
        buffer.settle(!lends);
        drop(turn);
    }

    /// Takes back or lends again what the device lent, once low power was entered or left. The caller owns no turn.
    pub(crate) fn settle_lent(&self) {
        self.take_turn().settle_lent();
    }
}

impl Turn<'_> {
    /// Takes back what the device lent: when this returns no DMA reaches it.
    pub(crate) fn take_lent_back(&self) {
        if self.is_lending() {
            let lent = self.device().memory().lock().lent.buffers();
            lent.iter().for_each(|buffer| buffer.settle(true));
        }
    }

    /// Lends again what the device lent, or takes it back, as its memory can be reached or not.
    pub(crate) fn settle_lent(&self) {
        if self.is_lending() {
            let memory = self.device().memory().lock();
            let (lent, lends) = (memory.lent.buffers(), memory.lends());
            drop(memory);
            lent.iter().for_each(|buffer| buffer.settle(!lends));
        }
    }
}
