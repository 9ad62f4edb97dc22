//! `IOMMU_GET_HW_INFO`.

use uapi::iommufd::{HwInfo, hw_capabilities, hw_info_flags, hw_info_type};
use uapi::{CommandId, Errno};

use crate::support::{Client, Platform, READ_ONLY, plain};

#[test]
fn a_plain_iommu_says_what_it_can_do_and_nothing_else() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ask = HwInfo { dev_id: device.id(), out_data_type: 9, ..HwInfo::default() };
    let answer = client.call(CommandId::GetHwInfo, ask).unwrap();
    let expected = HwInfo {
        size: 40,
        out_data_type: hw_info_type::NONE,
        out_capabilities: hw_capabilities::DIRTY_TRACKING | hw_capabilities::PCI_ATS_NOT_SUPPORTED,
        ..ask
    };
    assert_eq!(answer, expected);
}

#[test]
fn without_dirty_tracking_there_is_no_capability() {
    let mut geometry = plain();
    geometry.dirty_tracking = false;
    geometry.max_pasid_log2 = 20;
    let client = Client::open();
    let device = Platform::behind(geometry).bind(&client);
    let ask = HwInfo { dev_id: device.id(), ..HwInfo::default() };
    let answer = client.call(CommandId::GetHwInfo, ask).unwrap();
    let none = hw_capabilities::PCI_ATS_NOT_SUPPORTED;
    assert_eq!((answer.out_capabilities, answer.out_max_pasid_log2), (none, 20));
}

#[test]
fn refuses_in_the_kernels_order() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let get = |ask: HwInfo| client.call(CommandId::GetHwInfo, ask).map(|_| ());
    let ask = HwInfo { dev_id: 9, data_len: 8, ..HwInfo::default() };
    assert_eq!(get(HwInfo { flags: 2, ..ask }), Err(Errno::EOPNOTSUPP));
    assert_eq!(get(HwInfo { reserved: [0, 1, 0], ..ask }), Err(Errno::EOPNOTSUPP));
    assert_eq!(get(ask), Err(Errno::ENOENT));
    assert_eq!(get(HwInfo { dev_id: device.id(), ..ask }), Err(Errno::EFAULT));
}

#[test]
fn the_buffer_is_cleared() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let (at, length) = (0x10_0000, 9000);
    client.memory.write(at, &[0xaa; 9001]).unwrap();
    let ask = HwInfo {
        flags: hw_info_flags::INPUT_TYPE,
        dev_id: device.id(),
        data_len: length,
        data_uptr: at,
        ..HwInfo::default()
    };
    let answer = client.call(CommandId::GetHwInfo, ask).unwrap();
    assert_eq!(answer.data_len, 0);
    let mut bytes = [0; 9001];
    client.memory.read(at, &mut bytes).unwrap();
    assert!(bytes[..9000].iter().all(|byte| *byte == 0));
    assert_eq!(bytes[9000], 0xaa);
    for data_uptr in [READ_ONLY.start - 4096, u64::MAX - 5000] {
        let answer = client.call(CommandId::GetHwInfo, HwInfo { data_uptr, ..ask });
        assert_eq!(answer, Err(Errno::EFAULT));
    }
}
