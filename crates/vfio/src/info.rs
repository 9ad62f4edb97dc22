//! GET_INFO, GET_REGION_INFO and GET_IRQ_INFO: what a device is made of.
//!
//! Capabilities follow the struct where there is room; where there is none, the answer says how much is
//! needed and the caller asks again. Takes no lock. Source: [uapi/vfio.h].

use std::mem::offset_of;

use iommufd::Resource;
use pci::Bar;
use uapi::vfio::{
    DeviceInfo, InfoCapHeader, IrqInfo, RegionInfo, RegionInfoCapSparseMmap, RegionSparseMmapArea,
    device_flags, irq_flags, irq_index, region_capability, region_flags, region_index,
};
use zerocopy::IntoBytes;

use crate::argument::Argument;
use crate::command::Bound;
use crate::map;
use crate::{Device, Refusal, region};

/// `VFIO_DEVICE_GET_INFO`: counts regions and interrupts.
///
/// # Errors
/// [`Refusal::Unreachable`], [`Refusal::Argsz`] – the argument (`EFAULT`, `EINVAL`).
pub(crate) fn device_info(bound: &Bound<'_>, argument: &Argument<'_>) -> Result<u32, Refusal> {
    let asked: DeviceInfo = argument.read(offset_of!(DeviceInfo, cap_offset))?;
    let reset = if bound.device.can_reset() { device_flags::RESET } else { 0 };
    let info = DeviceInfo {
        argsz: asked.argsz,
        flags: device_flags::PCI | reset,
        num_regions: region_index::COUNT,
        num_irqs: irq_index::COUNT,
        cap_offset: 0,
        pad: 0,
    };
    let bytes = info.as_bytes();
    argument.write_at(0, &bytes[..bytes.len().min(asked.argsz as usize)])?;
    Ok(0)
}

/// `VFIO_DEVICE_GET_REGION_INFO`: says where a region lies and what may be done with it.
///
/// # Errors
/// - [`Refusal::Unreachable`], [`Refusal::Argsz`] – the argument (`EFAULT`, `EINVAL`).
/// - [`Refusal::NoSuchRegion`] – past the last, or VGA, which no device here has (`EINVAL`).
/// - [`Refusal::Iommufd`] – no memory for the capabilities (`ENOMEM`).
pub(crate) fn region_info(bound: &Bound<'_>, argument: &Argument<'_>) -> Result<u32, Refusal> {
    let mut info: RegionInfo = argument.read(size_of::<RegionInfo>())?;
    let mut capabilities = Capabilities::default();
    (info.size, info.flags) = match info.index {
        region_index::BAR0..=region_index::BAR5 => {
            bar_info(bound.device, info.index as usize, &mut capabilities)
        }
        region_index::ROM => (0, 0),
        region_index::CONFIG => {
            (u64::from(bound.device.facts().config_size), region_flags::READ | region_flags::WRITE)
        }
        index => return Err(Refusal::NoSuchRegion { index: u64::from(index) }),
    };
    info.offset = region::position_of(info.index);
    info.cap_offset = 0;
    let bytes = capabilities.bytes;
    if !bytes.is_empty() {
        bound.admit(Resource::Buffer)?;
        info.flags |= region_flags::CAPS;
        let needed = size_of::<RegionInfo>() + bytes.len();
        if (info.argsz as usize) < needed {
            info.argsz = u32::try_from(needed).unwrap_or(u32::MAX);
        } else {
            argument.write_at(size_of::<RegionInfo>(), &bytes)?;
            info.cap_offset = size_of_u32::<RegionInfo>();
        }
    }
    argument.write_at(0, info.as_bytes())?;
    Ok(0)
}

/// `VFIO_DEVICE_GET_IRQ_INFO`: counts the vectors of an interrupt kind. None is an answer too.
///
/// # Errors
/// - [`Refusal::Unreachable`], [`Refusal::Argsz`] – the argument (`EFAULT`, `EINVAL`).
/// - [`Refusal::NoSuchInterrupt`] (`EINVAL`).
pub(crate) fn irq_info(bound: &Bound<'_>, argument: &Argument<'_>) -> Result<u32, Refusal> {
    let mut info: IrqInfo = argument.read(size_of::<IrqInfo>())?;
    info.count = bound.device.vector_count(info.index)?;
    info.flags = irq_flags::EVENTFD
        | match info.index {
            irq_index::INTX => irq_flags::MASKABLE | irq_flags::AUTOMASKED,
            irq_index::MSIX if bound.device.settings().dynamic_msix => 0,
            _ => irq_flags::NORESIZE,
        };
    argument.write_at(0, info.as_bytes())?;
    Ok(0)
}

impl Device {
    /// How many vectors an interrupt kind has.
    ///
    /// # Errors
    /// [`Refusal::NoSuchInterrupt`] (`EINVAL`).
    pub(crate) fn vector_count(&self, index: u32) -> Result<u32, Refusal> {
        let facts = self.facts();
        Ok(match index {
            irq_index::INTX => u32::from(facts.interrupt_pin != 0),
            irq_index::MSI => facts.msi.map_or(0, |msi| u32::from(msi.vectors)),
            irq_index::MSIX => facts.msix.map_or(0, |msix| u32::from(msix.vectors)),
            irq_index::ERR | irq_index::REQ => 1,
            index => return Err(Refusal::NoSuchInterrupt { index }),
        })
    }
}

/// Size and flags of a BAR; 0 and none for one that does not exist.
fn bar_info(device: &Device, index: usize, capabilities: &mut Capabilities) -> (u64, u32) {
    let Some(bar) = device.function().bar(index) else { return (0, 0) };
    let flags = region_flags::READ | region_flags::WRITE;
    if !map::is_mappable(bar) {
        return (bar.size, flags);
    }
    capabilities.add_areas(bar);
    if device.facts().msix.is_some_and(|msix| msix.bar == index) {
        capabilities.add(region_capability::MSIX_MAPPABLE, &[]);
    }
    (bar.size, flags | region_flags::MMAP)
}

/// A chain of capabilities that follows [`RegionInfo`].
#[derive(Default)]
struct Capabilities {
    bytes: Vec<u8>,
    /// Where the last one begins.
    last: usize,
}

impl Capabilities {
    /// Says which areas can be mapped, unless all of the BAR can.
    fn add_areas(&mut self, bar: &Bar) {
        let areas: Vec<(u64, u64)> = map::areas(bar).collect();
        if areas == [(0, bar.size)] {
            return;
        }
        let list = RegionInfoCapSparseMmap {
            nr_areas: u32::try_from(areas.len()).unwrap_or(u32::MAX),
            ..RegionInfoCapSparseMmap::default()
        };
        let mut body = list.as_bytes()[size_of::<InfoCapHeader>()..].to_vec();
        for (offset, size) in areas {
            body.extend(RegionSparseMmapArea { offset, size }.as_bytes());
        }
        self.add(region_capability::SPARSE_MMAP, &body);
    }

    /// Adds a capability and links the one before to it.
    fn add(&mut self, id: u16, body: &[u8]) {
        let begin = self.bytes.len();
        if begin > 0 {
            let offset = size_of_u32::<RegionInfo>() + u32::try_from(begin).unwrap_or(u32::MAX);
            let next = self.last + offset_of!(InfoCapHeader, next);
            self.bytes[next..next + 4].copy_from_slice(&offset.to_le_bytes());
        }
        self.last = begin;
        self.bytes.extend(InfoCapHeader { id, version: 1, next: 0 }.as_bytes());
        self.bytes.extend(body);
    }
}

/// Bytes of an ABI struct, as the ABI counts them.
const fn size_of_u32<T>() -> u32 {
    let size = size_of::<T>();
    assert!(size < 0x1_0000);
    #[expect(clippy::cast_possible_truncation, reason = "asserted on the line before")]
    {
        size as u32
    }
}
