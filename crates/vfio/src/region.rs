//! Reads and writes of a device file: which region a file position means, and access to it.
//!
//! # Errors of reads and writes
//! - [`Refusal::NoSuchRegion`] – no region at that position, or VGA, which no device here has (`EINVAL`).
//! - [`Refusal::OutsideConfig`] – passes the end of config space (`EFAULT`).
//! - [`Refusal::OutsideRegion`] – begins past the end of a BAR; a BAR that does not exist, and the ROM, have
//!   length 0 (`EINVAL`). What passes the end of a BAR is cut off there.
//! - [`Refusal::ReadOnlyRegion`] – a write to the ROM (`EINVAL`).
//! - [`Refusal::NotDecoded`] – memory decoding is off, or the device is in D3hot (`EIO`).
//! - [`Refusal::Unreachable`] – the caller's memory (`EFAULT`), also where it is met halfway. What precedes it
//!   has then been accessed: of a write, every access before the first byte that cannot be read; of a
//!   read, up to 4 KiB further than the caller's memory goes.
//!
//! Locks: `MEMORY` for config space and for the question whether memory is decoded, never while the caller's
//! memory is copied, and not while a BAR is accessed.

use std::sync::Arc;

use pci::regs::{BAR_COUNT, header};
use pci::{Bar, BarKind};
use uapi::vfio::region_index;

use crate::argument::Argument;
use crate::config::{Effects, chunk_length};
use crate::reset::FunctionChange;
use crate::{Device, PolicyEvent, Refusal};

/// Where regions begin in a device file. So high that a position alone tells device IO from other file IO.
pub const REGION_BASE: u64 = 1 << 62;
/// Region `index` begins at [`REGION_BASE`]` + (index << REGION_SHIFT)`.
pub const REGION_SHIFT: u32 = 40;

/// What lies at a file position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Region {
    Bar(usize),
    Rom,
    Config,
}

/// The file position where a region begins.
pub(crate) fn position_of(index: u32) -> u64 {
    REGION_BASE + (u64::from(index) << REGION_SHIFT)
}

/// The region at a file position, and the offset in it.
///
/// # Errors
/// [`Refusal::NoSuchRegion`] (`EINVAL`).
pub(crate) fn locate(position: u64) -> Result<(Region, u64), Refusal> {
    let from_base = position.checked_sub(REGION_BASE);
    let index = from_base.map_or(u64::MAX, |position| position >> REGION_SHIFT);
    let offset = position & ((1 << REGION_SHIFT) - 1);
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    let region = match number {
        region_index::BAR0..=region_index::BAR5 => Region::Bar(number as usize),
        region_index::ROM => Region::Rom,
        region_index::CONFIG => Region::Config,
        _ => return Err(Refusal::NoSuchRegion { index }),
    };
    Ok((region, offset))
}

/// Reads `count` bytes at `position` to the caller's memory; returns how many.
pub(crate) fn read(
    device: &Device,
    memory: &Argument<'_>,
    count: u64,
    position: u64,
) -> Result<u64, Refusal> {
    let Some(count) = limited(count) else { return Ok(0) };
    let (region, offset) = locate(position)?;
    let decodes = device.wake();
    match region {
        Region::Config => read_config(device, memory, offset, count),
        Region::Rom => Err(Refusal::OutsideRegion { region: region_index::ROM, offset }),
        Region::Bar(index) => {
            let access = BarAccess::new(device, index, offset, count, decodes)?;
            access.read(memory)
        }
    }
}

/// Writes `count` bytes from the caller's memory at `position`; returns how many.
pub(crate) fn write(
    device: &Arc<Device>,
    memory: &Argument<'_>,
    count: u64,
    position: u64,
) -> Result<u64, Refusal> {
    let Some(count) = limited(count) else { return Ok(0) };
    let (region, offset) = locate(position)?;
    let decodes = device.wake();
    match region {
        Region::Config => write_config(device, memory, offset, count),
        Region::Rom => Err(Refusal::ReadOnlyRegion { region: region_index::ROM }),
        Region::Bar(index) => {
            let access = BarAccess::new(device, index, offset, count, decodes)?;
            access.write(memory)
        }
    }
}

/// Writes a value to a BAR, inside it and not to the MSI-X table, by the widest accesses that are aligned.
pub(crate) fn write_value(device: &Device, index: usize, offset: u64, value: &[u8]) {
    let Some(bar) = device.function().bar(index) else { return };
    let access = BarAccess { device, index, bar, offset, count: value.len() as u64 };
    for piece in access.pieces(0, value.len()).filter(|piece| !piece.is_table) {
        let bytes = &value[piece.begin..piece.begin + piece.length];
        device.function().bar_write(index, piece.offset, bytes);
    }
}

/// As many bytes as one call moves at most; `None` for none.
fn limited(count: u64) -> Option<u64> {
    const COUNT_MAX: u64 = 0x7fff_f000;
    (count > 0).then_some(count.min(COUNT_MAX))
}

fn read_config(
    device: &Device,
    memory: &Argument<'_>,
    offset: u64,
    count: u64,
) -> Result<u64, Refusal> {
    let (offset, length) = config_range(device, offset, count)?;
    let mut bytes = vec![0; length];
    let guarded = device.memory().lock();
    let config = guarded.config.as_ref().ok_or(Refusal::NotBound)?;
    config.read(device.function(), offset, &mut bytes);
    drop(guarded);
    memory.write_at(0, &bytes)?;
    Ok(count)
}

fn write_config(
    device: &Arc<Device>,
    memory: &Argument<'_>,
    offset: u64,
    count: u64,
) -> Result<u64, Refusal> {
    let (offset, length) = config_range(device, offset, count)?;
    let mut bytes = vec![0; length];
    let readable = memory.caller.read_prefix(memory.at, &mut bytes);
    let mut turn = device.take_turn();
    let mut done = 0;
    while done < length {
        let at = usize::from(offset) + done;
        let chunk = chunk_length(at, length - done);
        if done + chunk > readable {
            return Err(Refusal::Unreachable);
        }
        let at = u16::try_from(at).map_err(|_| Refusal::NotBound)?;
        let keep = if at <= header::COMMAND { device.command_bits_to_keep() } else { 0 };
        let mut guarded = device.memory().lock();
        let config = guarded.config.as_mut().ok_or(Refusal::NotBound)?;
        let effects = config.write(device.function(), at, &bytes[done..done + chunk], keep);
        drop(guarded);
        if at <= header::COMMAND && usize::from(header::COMMAND - at) < chunk {
            turn.settle_lent();
        }
        if let Some(change) = device.carry_out(&effects) {
            drop(turn);
            device.change_from_config(change);
            turn = device.take_turn();
        }
        done += chunk;
    }
    Ok(count)
}

/// Checks an access to config space; returns its offset and length.
fn config_range(device: &Device, offset: u64, count: u64) -> Result<(u16, usize), Refusal> {
    let size = u64::from(device.facts().config_size);
    let outside = Refusal::OutsideConfig { offset, count };
    let fits = offset.checked_add(count).is_some_and(|end| end <= size);
    match (u16::try_from(offset), usize::try_from(count)) {
        (Ok(offset), Ok(count)) if fits => Ok((offset, count)),
        _ => Err(outside),
    }
}

impl Device {
    /// Wakes the device from low power for an access; says whether it decodes memory.
    pub(crate) fn wake(&self) -> bool {
        let mut memory = self.memory().lock();
        let wakeup = memory.low_power.wake();
        let decodes = memory.decodes_memory();
        drop(memory);
        if let Some(wakeup) = wakeup {
            wakeup.signal();
        }
        decodes
    }

    /// Does what a write to config space asked for; what may meet a TDI is left to be done once the turn was passed
    /// on. The caller owns the turn.
    fn carry_out(&self, effects: &Effects) -> Option<FunctionChange> {
        for write in &effects.hardware {
            self.function().config_write(write.offset, write.bytes());
        }
        if let Some(disabled) = effects.intx_disabled {
            self.irqs().with_pin(|table, pin, after| table.set_intx_disabled(disabled, pin, after));
        }
        if effects.kept != 0 {
            self.tell(PolicyEvent::CommandKept(effects.kept));
        }
        if effects.reset {
            return Some(FunctionChange::Reset);
        }
        effects.power.map(FunctionChange::Power)
    }
}

/// A checked access to a BAR.
struct BarAccess<'a> {
    device: &'a Device,
    index: usize,
    bar: &'a Bar,
    offset: u64,
    count: u64,
}

/// Bytes that are copied from or to the caller together.
const COPY_MAX: usize = 4096;
/// What the MSI-X table reads as.
const TABLE_BYTE: u8 = 0xff;

impl<'a> BarAccess<'a> {
    fn new(
        device: &'a Device,
        index: usize,
        offset: u64,
        count: u64,
        decodes: bool,
    ) -> Result<Self, Refusal> {
        assert!(index < BAR_COUNT, "locate knows six BARs");
        let region = region_index::BAR0 + u32::try_from(index).unwrap_or(0);
        let bar = device.function().bar(index).filter(|bar| offset < bar.size);
        let bar = bar.ok_or(Refusal::OutsideRegion { region, offset })?;
        if bar.kind != BarKind::Io && !decodes {
            return Err(Refusal::NotDecoded);
        }
        Ok(Self { device, index, bar, offset, count: count.min(bar.size - offset) })
    }

    fn read(&self, memory: &Argument<'_>) -> Result<u64, Refusal> {
        let mut buffer = [0; COPY_MAX];
        let mut done = 0;
        while done < self.count {
            let chunk = &mut buffer[..self.copy_length(done)];
            for piece in self.pieces(done, chunk.len()) {
                let bytes = &mut chunk[piece.begin..piece.begin + piece.length];
                if piece.is_table {
                    bytes.fill(TABLE_BYTE);
                } else {
                    self.device.function().bar_read(self.index, piece.offset, bytes);
                }
            }
            memory.write_at(usize::try_from(done).map_err(|_| Refusal::Unreachable)?, chunk)?;
            done += chunk.len() as u64;
        }
        Ok(self.count)
    }

    fn write(&self, memory: &Argument<'_>) -> Result<u64, Refusal> {
        let mut buffer = [0; COPY_MAX];
        let mut done = 0;
        while done < self.count {
            let chunk = &mut buffer[..self.copy_length(done)];
            let from = memory.at.checked_add(done).ok_or(Refusal::Unreachable)?;
            let readable = memory.caller.read_prefix(from, chunk);
            for piece in self.pieces(done, chunk.len()) {
                let end = piece.begin + piece.length;
                if end > readable {
                    return Err(Refusal::Unreachable);
                }
                if !piece.is_table {
                    let bytes = &chunk[piece.begin..end];
                    self.device.function().bar_write(self.index, piece.offset, bytes);
                }
            }
            done += chunk.len() as u64;
        }
        Ok(self.count)
    }

    fn copy_length(&self, done: u64) -> usize {
        usize::try_from(self.count - done).map_or(COPY_MAX, |left| left.min(COPY_MAX))
    }

    /// Splits a chunk into naturally aligned accesses and bytes of the MSI-X table.
    fn pieces(&self, done: u64, length: usize) -> impl Iterator<Item = Piece> + use<> {
        let start = self.offset + done;
        let table = self.table();
        let width_max = if self.bar.kind == BarKind::Io { 4 } else { 8 };
        let mut begin = 0;
        std::iter::from_fn(move || {
            let offset = start + begin as u64;
            let left = (length - begin) as u64;
            let (length, is_table) = match table {
                _ if left == 0 => return None,
                Some((first, end)) if (first..end).contains(&offset) => {
                    (left.min(end - offset), true)
                }
                Some((first, _)) if offset < first => {
                    (width(offset, left.min(first - offset), width_max), false)
                }
                Some(_) | None => (width(offset, left, width_max), false),
            };
            let length = usize::try_from(length).ok()?;
            let piece = Piece { begin, length, offset, is_table };
            begin += length;
            Some(piece)
        })
    }

    /// Where the MSI-X table lies in this BAR.
    fn table(&self) -> Option<(u64, u64)> {
        let msix = self.device.facts().msix.filter(|msix| msix.bar == self.index)?;
        Some((msix.table_at, msix.table_at.saturating_add(msix.table_size())))
    }
}

/// A part of a chunk.
struct Piece {
    /// Where it begins in the chunk.
    begin: usize,
    length: usize,
    /// Where it begins in the BAR.
    offset: u64,
    /// Whether it is part of the MSI-X table, which the host keeps to itself.
    is_table: bool,
}

/// The widest aligned access at `offset` with `left` bytes to go.
fn width(offset: u64, left: u64, width_max: u64) -> u64 {
    [8, 4, 2]
        .into_iter()
        .find(|&width| width <= width_max && width <= left && offset.is_multiple_of(width))
        .unwrap_or(1)
}
