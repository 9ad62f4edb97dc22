//! GET_INFO, GET_REGION_INFO, GET_IRQ_INFO and what may be mapped.

use uapi::vfio::{DeviceInfo, IrqInfo, RegionInfo, irq_index, region_index};
use uapi::{CommandId, Errno};
use vfio::{MapRequest, Settings, VirtualFunction};

use crate::support::{ARGUMENT, Session, Shape, Stand, position};

const REGION: CommandId = CommandId::DeviceGetRegionInfo;

fn region(session: &Session, index: u32, argsz: u32) -> Result<(RegionInfo, Vec<u8>), Errno> {
    let mut info = RegionInfo { argsz, index, ..RegionInfo::default() };
    session.client.put(ARGUMENT, &[0xaa; 256]);
    session.call(REGION, &mut info)?;
    let mut behind = vec![0; 128];
    session.client.get(ARGUMENT + 32, &mut behind);
    Ok((info, behind))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().unwrap())
}

fn quad(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().unwrap())
}

#[test]
fn device_info_in_both_sizes() {
    let stand = Stand::new();
    let session = stand.bound();
    for argsz in [16, 20, 24, 100] {
        let mut info = DeviceInfo { argsz, cap_offset: 0x55, pad: 0x66, ..Default::default() };
        assert_eq!(session.call(CommandId::DeviceGetInfo, &mut info), Ok(0));
        assert_eq!((info.argsz, info.flags), (argsz, 3), "PCI and RESET");
        assert_eq!((info.num_regions, info.num_irqs), (9, 5));
        assert_eq!(info.cap_offset, if argsz >= 20 { 0 } else { 0x55 });
        assert_eq!(info.pad, if argsz >= 24 { 0 } else { 0x66 });
    }
    session.close();

    let stand = Stand::shaped(
        Shape { function_level_reset: false, ..Shape::default() },
        Settings::default(),
    );
    let session = stand.bound();
    let mut info = DeviceInfo { argsz: 24, ..Default::default() };
    assert_eq!(session.call(CommandId::DeviceGetInfo, &mut info), Ok(0));
    assert_eq!(info.flags, 2, "PCI, and no RESET");
    session.close();
}

#[test]
fn regions() {
    let stand = Stand::new();
    let session = stand.bound();
    for (index, size, flags) in [
        (0, 0x4000, 0xf),
        (1, 0, 0),
        (2, 0x1000, 7),
        (3, 0x100, 3),
        (4, 0x20, 3),
        (5, 0, 0),
        (region_index::ROM, 0, 0),
        (region_index::CONFIG, 4096, 3),
    ] {
        let (info, _) = region(&session, index, 32).unwrap();
        assert_eq!((info.size, info.flags), (size, flags), "region {index}");
        assert_eq!(info.offset, position(index, 0));
    }
    for index in [region_index::VGA, 9, 0x1_0000, u32::MAX] {
        assert_eq!(region(&session, index, 32).map(|_| ()), Err(Errno::EINVAL));
    }
    session.close();
}

#[test]
fn region_capabilities_come_when_there_is_room() {
    let stand = Stand::new();
    let session = stand.bound();
    let needed = 32 + 16 + 16 + 8;
    for argsz in [32, 33, needed - 1] {
        let (info, behind) = region(&session, 0, argsz).unwrap();
        assert_eq!((info.argsz, info.cap_offset), (needed, 0));
        assert!(behind.iter().all(|&byte| byte == 0xaa), "nothing is written past the struct");
    }
    let (info, behind) = region(&session, 0, needed).unwrap();
    assert_eq!((info.argsz, info.cap_offset), (needed, 32));
    // Sparse areas, version 1, joined into one; then the bare MSI-X capability; then what was there.
    assert_eq!((word(&behind, 0), word(&behind, 4)), (0x0001_0001, 64));
    assert_eq!((word(&behind, 8), word(&behind, 12)), (1, 0));
    assert_eq!((quad(&behind, 16), quad(&behind, 24)), (0x1000, 0x2000));
    assert_eq!((word(&behind, 32), word(&behind, 36)), (0x0001_0003, 0));
    assert_eq!(behind[40], 0xaa);
    // A BAR that can be mapped whole has no list.
    let (info, _) = region(&session, 2, 32).unwrap();
    assert_eq!((info.argsz, info.cap_offset), (32, 0));
    session.close();
}

#[test]
fn interrupts_and_their_counts() {
    let infos = |shape, settings| {
        let stand = Stand::shaped(shape, settings);
        let session = stand.bound();
        let infos: Vec<(u32, u32)> = (0..5)
            .map(|index| {
                let mut info = IrqInfo { argsz: 16, index, ..Default::default() };
                assert_eq!(session.call(CommandId::DeviceGetIrqInfo, &mut info), Ok(0));
                (info.count, info.flags)
            })
            .collect();
        for index in [5, u32::MAX] {
            let mut info = IrqInfo { argsz: 16, index, ..Default::default() };
            let result = session.call(CommandId::DeviceGetIrqInfo, &mut info);
            assert_eq!(result, Err(Errno::EINVAL));
        }
        session.close();
        infos
    };
    let all = infos(Shape::default(), Settings::default());
    assert_eq!(all, [(1, 7), (4, 9), (8, 1), (1, 9), (1, 9)]);
    let fixed = Settings { dynamic_msix: false, ..Settings::default() };
    assert_eq!(infos(Shape::default(), fixed)[irq_index::MSIX as usize], (8, 9));
    let none = Shape { pin: false, msi: false, msix: false, ..Shape::default() };
    let none = infos(none, Settings::default());
    assert_eq!(none, [(0, 7), (0, 9), (0, 1), (1, 9), (1, 9)], "none is an answer");
    let virtual_function = VirtualFunction { vendor_id: 1, device_id: 2 };
    let settings = Settings { virtual_function: Some(virtual_function), ..Settings::default() };
    let shape = Shape { virtual_function: true, ..Shape::default() };
    assert_eq!(infos(shape, settings)[0].0, 0, "a VF has no pin, whatever it says");
}

#[test]
fn what_may_be_mapped() {
    let stand = Stand::new();
    let session = stand.bound();
    let shared = MapRequest { shared: true, read: true, write: true, exec: false };
    let may = |region, offset, length, request| {
        session.file.mmap(position(region, offset), length, request)
    };
    for (region, offset, length) in
        [(0, 0x1000, 0x1000), (0, 0x1000, 0x2000), (0, 0x2000, 1), (2, 0, 0x1000), (2, 0, 0x800)]
    {
        assert_eq!(may(region, offset, length, shared), Ok(()), "{region} {offset:#x}");
    }
    for (region, offset, length) in [
        (0, 0, 0x1000),
        (0, 0x800, 0x1000),
        (0, 0x1000, 0x2001),
        (0, 0x3000, 0x1000),
        (0, 0x1000, 0),
        (0, 0x1000, u64::MAX),
        (1, 0, 0x1000),
        (2, 0x1000, 0x1000),
        (3, 0, 0x100),
        (4, 0, 0x1000),
        (region_index::ROM, 0, 0x1000),
        (region_index::CONFIG, 0, 0x1000),
        (region_index::VGA, 0, 0x1000),
        (9, 0, 0x1000),
    ] {
        assert_eq!(may(region, offset, length, shared), Err(Errno::EINVAL), "{region} {offset:#x}");
    }
    let private = MapRequest { shared: false, ..shared };
    assert_eq!(may(2, 0, 0x1000, private), Err(Errno::EINVAL));
    assert_eq!(session.file.mmap(0x1000, 0x1000, shared), Err(Errno::EINVAL));
    assert_eq!(session.file.mmap(u64::MAX - 0xfff, 0x1000, shared), Err(Errno::EINVAL));
    session.close();
}
