//! A container's commands on a context, and `IOMMU_VFIO_IOAS`.

use pci::{Dma, DmaAccess, DmaFault, DmaFaultReason};
use uapi::iommufd::{VfioIoas, vfio_ioas_op};
use uapi::vfio::{
    IommuType1DmaMap, IommuType1DmaUnmap, IommuType1Info, dma_map_flags, dma_unmap_flags, extension,
};
use uapi::{Command, CommandId, Errno};

use crate::support::{Client, PAGE, PAGE_BYTES, Platform};

const VA: u64 = 0x10_0000;
const READ_WRITE: u32 = dma_map_flags::READ | dma_map_flags::WRITE;

/// A context that a group has taken as its container.
fn with_group() -> Client {
    let client = Client::open();
    client.ctx.ensure_compat_ioas().unwrap();
    client
}

fn value(client: &Client, id: CommandId, value: u64) -> Result<u32, Errno> {
    client.ctx.ioctl(client, Command::of(id).request, value)
}

fn vfio_ioas(client: &Client, op: u16, ioas_id: u32) -> Result<u32, Errno> {
    let argument = VfioIoas { op, ioas_id, ..VfioIoas::default() };
    client.call(CommandId::VfioIoas, argument).map(|answer| answer.ioas_id)
}

fn map(client: &Client, flags: u32, iova: u64, vaddr: u64, size: u64) -> Result<(), Errno> {
    let argument = IommuType1DmaMap { flags, iova, vaddr, size, ..IommuType1DmaMap::default() };
    client.call(CommandId::IommuMapDma, argument).map(|_| ())
}

fn unmap(client: &Client, flags: u32, iova: u64, size: u64) -> Result<u64, Errno> {
    let argument = IommuType1DmaUnmap { flags, iova, size, ..IommuType1DmaUnmap::default() };
    client.call(CommandId::IommuUnmapDma, argument).map(|answer| answer.size)
}

/// `size` as it stands in the struct after a command.
fn size_now(client: &Client) -> u64 {
    client.struct_now::<IommuType1DmaUnmap>().size
}

#[test]
fn the_first_group_brings_an_ioas_along_and_a_client_may_name_another() {
    let client = Client::open();
    assert_eq!(vfio_ioas(&client, vfio_ioas_op::GET, 0), Err(Errno::ENODEV));
    assert_eq!(vfio_ioas(&client, vfio_ioas_op::SET, 9), Err(Errno::ENOENT));
    assert_eq!(vfio_ioas(&client, 3, 0), Err(Errno::EOPNOTSUPP));
    let reserved = VfioIoas { reserved: 1, ..VfioIoas::default() };
    assert_eq!(client.call(CommandId::VfioIoas, reserved).unwrap_err(), Errno::EOPNOTSUPP);
    client.ctx.ensure_compat_ioas().unwrap();
    client.ctx.ensure_compat_ioas().unwrap();
    assert_eq!(vfio_ioas(&client, vfio_ioas_op::GET, 0), Ok(1), "made once");
    let own = client.ioas();
    vfio_ioas(&client, vfio_ioas_op::SET, own).unwrap();
    assert_eq!(client.ctx.compat_ioas_id().unwrap(), own);
    vfio_ioas(&client, vfio_ioas_op::CLEAR, 0).unwrap();
    assert_eq!(vfio_ioas(&client, vfio_ioas_op::GET, 0), Err(Errno::ENODEV));
    vfio_ioas(&client, vfio_ioas_op::SET, own).unwrap();
    client.destroy(own).unwrap();
    assert_eq!(own, client.ioas(), "the id names another object now");
    assert_eq!(vfio_ioas(&client, vfio_ioas_op::GET, 0), Err(Errno::ENODEV));
    client.ctx.ensure_compat_ioas().unwrap();
    assert_eq!(vfio_ioas(&client, vfio_ioas_op::GET, 0), Ok(own + 1));
}

#[test]
fn what_needs_an_ioas_looks_for_it_after_the_argument() {
    let client = Client::open();
    assert_eq!(value(&client, CommandId::GetApiVersion, 0), Ok(0));
    for asked in [extension::TYPE1_IOMMU, extension::TYPE1V2_IOMMU, extension::UNMAP_ALL] {
        assert_eq!(value(&client, CommandId::CheckExtension, asked), Ok(1), "{asked}");
    }
    for asked in [0, 2, extension::TYPE1_NESTING_IOMMU, 7, extension::NOIOMMU_IOMMU, 10, u64::MAX] {
        assert_eq!(value(&client, CommandId::CheckExtension, asked), Ok(0), "{asked}");
        assert_eq!(value(&client, CommandId::SetIommu, asked), Err(Errno::EINVAL), "{asked}");
    }
    let coherent = extension::DMA_CC_IOMMU;
    assert_eq!(value(&client, CommandId::CheckExtension, coherent), Err(Errno::ENODEV));
    assert_eq!(value(&client, CommandId::SetIommu, extension::TYPE1_IOMMU), Err(Errno::ENODEV));
    let info = client.call(CommandId::IommuGetInfo, IommuType1Info::default());
    assert_eq!(info.unwrap_err(), Errno::ENODEV);
    assert_eq!(map(&client, 4, 0, VA, PAGE), Err(Errno::EINVAL));
    assert_eq!(map(&client, READ_WRITE, 0, VA, PAGE), Err(Errno::ENODEV));
    for flags in [dma_unmap_flags::GET_DIRTY_BITMAP, dma_unmap_flags::VADDR] {
        assert_eq!(unmap(&client, flags, 0, PAGE), Err(Errno::EINVAL));
    }
    assert_eq!(unmap(&client, 0, 0, PAGE), Err(Errno::ENODEV));
    for id in [CommandId::IommuMapDma, CommandId::IommuUnmapDma, CommandId::IommuGetInfo] {
        assert_eq!(value(&client, id, 0), Err(Errno::EFAULT), "{id:?}");
        client.put(&IommuType1DmaMap::default(), 15);
        assert_eq!(value(&client, id, client.at), Err(Errno::EINVAL), "{id:?}");
    }
    // Type1 on a context keeps no log, and so reads no argument.
    assert_eq!(value(&client, CommandId::IommuDirtyPages, 0), Err(Errno::ENOTTY));
    client.ctx.ensure_compat_ioas().unwrap();
    assert_eq!(value(&client, CommandId::CheckExtension, coherent), Ok(1));
    assert_eq!(value(&client, CommandId::SetIommu, extension::TYPE1V2_IOMMU), Ok(0));
    assert_eq!(value(&client, CommandId::SetIommu, extension::TYPE1V2_IOMMU), Ok(0));
}

#[test]
fn version_two_unmaps_whole_areas_and_says_how_much() {
    let client = with_group();
    map(&client, READ_WRITE, 0x1000, VA, PAGE).unwrap();
    map(&client, 0, 0x2000, VA, 2 * PAGE).unwrap();
    assert_eq!(map(&client, READ_WRITE, 0x3000, VA, PAGE), Err(Errno::EEXIST));
    assert_eq!(map(&client, READ_WRITE, 0, u64::MAX, 2), Err(Errno::EOVERFLOW));
    assert_eq!(map(&client, READ_WRITE, u64::MAX, VA, PAGE), Err(Errno::EOVERFLOW));
    assert_eq!(map(&client, READ_WRITE, 0, VA, 0), Err(Errno::EINVAL));
    assert_eq!(unmap(&client, 0, 0x1000, 0), Err(Errno::EINVAL));
    assert_eq!(unmap(&client, 0, u64::MAX - 1, PAGE), Err(Errno::EOVERFLOW));
    assert_eq!(size_now(&client), 0, "written where the range is no range, too");
    assert_eq!(unmap(&client, 0, 0x1000, 2 * PAGE), Err(Errno::ENOENT));
    assert_eq!(size_now(&client), PAGE, "the area below is gone, and that is told");
    assert_eq!(unmap(&client, 0, 0x1000, PAGE), Ok(0), "nothing there is a success");
    assert_eq!(unmap(&client, 0, 0, 0x10_0000), Ok(2 * PAGE));
    assert_eq!(unmap(&client, dma_unmap_flags::ALL, 1, 0), Err(Errno::EINVAL));
    map(&client, READ_WRITE, 0x5000, VA, PAGE).unwrap();
    assert_eq!(unmap(&client, dma_unmap_flags::ALL, 0, 0), Ok(PAGE));
    assert_eq!(unmap(&client, dma_unmap_flags::ALL, 0, 0), Ok(0));
}

#[test]
fn version_one_unmaps_any_part_and_dma_reaches_the_rest() {
    let client = with_group();
    assert_eq!(value(&client, CommandId::SetIommu, extension::TYPE1_IOMMU), Ok(0));
    let device = Platform::new().bind(&client);
    device.attach(client.ctx.compat_ioas_id().unwrap()).unwrap();
    map(&client, READ_WRITE, 0x10_0000, VA, 8 * PAGE).unwrap();
    let bytes: Vec<u8> = (0..8 * PAGE_BYTES).map(|at| (at / 512).to_le_bytes()[0]).collect();
    client.memory.write(VA, &bytes).unwrap();
    assert_eq!(unmap(&client, 0, 0x10_2000, 3 * PAGE), Ok(3 * PAGE));
    for page in [0, 1, 5, 6, 7] {
        let mut seen = vec![0; PAGE_BYTES];
        device.read(0x10_0000 + page * PAGE, &mut seen).unwrap();
        let from = usize::try_from(page).unwrap() * PAGE_BYTES;
        assert_eq!(seen, bytes[from..from + PAGE_BYTES], "page {page}");
    }
    let gone = |iova| {
        let fault = DmaFault { iova, access: DmaAccess::Read, reason: DmaFaultReason::NotMapped };
        assert_eq!(device.read(iova, &mut [0]), Err(fault));
    };
    gone(0x10_2000);
    gone(0x10_4fff);
    assert_eq!(unmap(&client, 0, 0x10_0800, PAGE), Err(Errno::EINVAL), "no whole page");
    assert_eq!(unmap(&client, 0, 0, 0x10_1000), Ok(PAGE), "from address 0 on");
    assert_eq!(unmap(&client, dma_unmap_flags::ALL, 0, 0), Ok(4 * PAGE));
    assert_eq!(client.ctx.counts().pinned_bytes, 0);
    device.end();
}

#[test]
fn what_is_cut_while_a_device_is_attached_is_pinned_all_the_same() {
    let client = with_group();
    assert_eq!(value(&client, CommandId::SetIommu, extension::TYPE1_IOMMU), Ok(0));
    map(&client, READ_WRITE, 0x10_0000, VA, 8 * PAGE).unwrap();
    let device = Platform::new().bind(&client);
    let other = client.thread(1);
    client.memory.during_next_pin(move || {
        assert_eq!(unmap(&other, 0, 0x10_2000, 3 * PAGE), Ok(3 * PAGE));
    });
    device.attach(client.ctx.compat_ioas_id().unwrap()).unwrap();
    for page in [0, 1, 5, 6, 7] {
        assert_eq!(device.read(0x10_0000 + page * PAGE, &mut [0; 8]), Ok(()), "page {page}");
    }
    assert_eq!(client.ctx.counts().pinned_bytes, 5 * PAGE);
    assert_eq!(client.memory.pinned(), [(VA, 2 * PAGE), (VA + 5 * PAGE, 3 * PAGE)]);
    device.end();
}

#[test]
fn version_one_is_chosen_before_anything_is_mapped() {
    let client = with_group();
    let device = Platform::new().bind(&client);
    map(&client, READ_WRITE, 0x1000, VA, PAGE).unwrap();
    device.attach(client.ctx.compat_ioas_id().unwrap()).unwrap();
    assert_eq!(value(&client, CommandId::SetIommu, extension::TYPE1_IOMMU), Err(Errno::EINVAL));
    unmap(&client, dma_unmap_flags::ALL, 0, 0).unwrap();
    assert_eq!(value(&client, CommandId::SetIommu, extension::TYPE1_IOMMU), Ok(0));
    device.end();
    let other = with_group();
    map(&other, READ_WRITE, 0x1001, VA, 8).unwrap();
    assert_eq!(value(&other, CommandId::SetIommu, extension::TYPE1_IOMMU), Err(Errno::EADDRINUSE));
}

#[test]
fn info_is_as_long_as_its_chain() {
    /// Bytes of the struct, of the number of mappings left with what pads it, of the head of the ranges, of two.
    const WHOLE: u32 = 24 + 16 + 16 + 2 * 16;
    let client = with_group();
    let device = Platform::new().bind(&client);
    device.attach(client.ctx.compat_ioas_id().unwrap()).unwrap();
    let ask = |argsz: u32| {
        client.memory.write(client.at, &[0xa5; 256]).unwrap();
        client.memory.write(client.at, &argsz.to_ne_bytes()).unwrap();
        value(&client, CommandId::IommuGetInfo, client.at).unwrap();
        client.struct_now::<IommuType1Info>()
    };
    let word = |offset: u64| {
        let mut bytes = [0; 8];
        client.memory.read(client.at + offset, &mut bytes).unwrap();
        u64::from_ne_bytes(bytes)
    };
    let untouched = u64::from_ne_bytes([0xa5; 8]);
    let info = ask(WHOLE);
    assert_eq!((info.argsz, info.flags, info.cap_offset), (WHOLE, 3, 24));
    assert_eq!(info.iova_pgsizes, 1 << 30 | 1 << 21 | 1 << 12);
    assert_eq!(word(24), 3 | 1 << 16 | 40 << 32, "DMA_AVAIL, and what is next");
    assert_eq!(word(32) & 0xffff_ffff, 0xffff_ffff);
    assert_eq!(word(40), 1 | 1 << 16, "IOVA_RANGE, the last");
    assert_eq!([word(56), word(64)], [0, 0xfedf_ffff]);
    assert_eq!([word(72), word(80)], [0xfef0_0000, (1 << 48) - 1]);
    let short = ask(WHOLE - 1);
    assert_eq!((short.argsz, short.cap_offset), (WHOLE, 0));
    assert_eq!(word(24) & 0xffff, 3, "what fits is written all the same");
    assert_eq!(word(40), untouched);
    let first = ask(16);
    assert_eq!(first.argsz, WHOLE);
    assert_eq!(word(16), untouched, "no more than the caller has");
    device.end();
}
