//! What a reader of the headers would not expect of a device's file, and clients have come to rely on: [uapi/vfio.h],
//! v7.3 `vfio_pci_intrs.c`, `vfio_pci_config.c`, `vfio_main.c`, `device_cdev.c`.
//!
//! | Fact | Also shown in |
//! |---|---|
//! | closing the iommufd frees nothing while a device is bound | `close` |
//! | the page table that is attached is told, in place of the address space asked for | `bind` |
//! | SET_IRQS answers how many vectors there could be | `interrupts` |
//! | ending what is not set up is invalid, the second time too | `interrupts` |
//! | every device has an interrupt for errors, it says | `infos` |
//! | capabilities that a client would see on the host are not there | `config_space` |
//! | a physical function's token is set by a BIND that fails | |
//! | ATTACH of a PASID whose answer cannot be written takes the device off its page table | `bind` |

use std::sync::Arc;

use iommufd::{Context, Geometry, Group, Iommu};
use pci::Address;
use uapi::iommufd::{Destroy, HwptAlloc, IoasAlloc, IoasMap, hwpt_flags};
use uapi::vfio::{
    BindIommufd, DetachIommufdPt, IrqInfo, attach_flags, bind_flags, detach_flags, irq_index,
    irq_set,
};
use uapi::{Command, CommandId, Errno, Profile};
use vfio::{DeviceSet, DeviceState, Settings, VirtualFunction};

use crate::support::{
    ADDRESS, ARGUMENT, Client, Fake, Irqs, MEMORY, READ_ONLY, Session, Shape, Stand, VECTORS,
    bind_argument, fds, iommu,
};

const TRIGGER: u32 = irq_set::ACTION_TRIGGER;

fn ioas(session: &Session) -> u32 {
    let mut ioas = IoasAlloc { size: 12, ..Default::default() };
    assert_eq!(session.iommu_call(CommandId::IoasAlloc, &mut ioas), Ok(0));
    ioas.out_ioas_id
}

fn destroy(session: &Session, id: u32) -> Result<u32, Errno> {
    session.iommu_call(CommandId::Destroy, &mut Destroy { size: 8, id })
}

/// Trace C.
#[test]
fn a_closed_iommufd_lives_until_the_device_is_closed() {
    let stand = Stand::new();
    let session = stand.bound();
    assert_eq!((session.device_id, ioas(&session)), (1, 2));
    let mut hwpt = HwptAlloc { size: 24, dev_id: 1, pt_id: 2, ..HwptAlloc::default() };
    assert_eq!(session.iommu_call(CommandId::HwptAlloc, &mut hwpt), Ok(0));
    assert_eq!((hwpt.out_hwpt_id, session.attach(3)), (3, Ok(3)));
    let map = IoasMap { size: 40, flags: 7, ioas_id: 2, ..IoasMap::default() };
    let mut map = IoasMap { user_va: MEMORY, length: 0x1000, ..map };
    assert_eq!(session.iommu_call(CommandId::IoasMap, &mut map), Ok(0));
    let Session { file, context, .. } = session;
    context.put_file();
    let left = context.counts();
    assert_eq!((left.devices, left.hwpts, left.ioases, left.pinned_bytes), (1, 1, 1, 0x1000));
    assert_eq!(
        stand.device.state(),
        DeviceState::Attached { device_id: 1, page_table_id: 3 },
        "nothing has changed"
    );
    assert!(context.is_open());
    file.release();
    assert!(!context.is_open());
    assert_eq!(context.counts().devices, 0);
    assert_eq!(stand.device.state(), DeviceState::Free);
}

/// Trace D.
#[test]
fn the_page_table_of_an_address_space_goes_with_its_last_device() {
    let stand = Stand::new();
    let session = stand.bound();
    assert_eq!((session.device_id, ioas(&session)), (1, 2));
    assert_eq!(session.attach(2), Ok(3));
    assert_eq!(destroy(&session, 3), Err(Errno::EBUSY));
    let mut detach = DetachIommufdPt { argsz: 8, ..Default::default() };
    assert_eq!(session.call(CommandId::DeviceDetachIommufdPt, &mut detach), Ok(0));
    assert_eq!(destroy(&session, 3), Err(Errno::ENOENT));
    assert_eq!(session.attach(3), Err(Errno::ENOENT));
    assert_eq!(ioas(&session), 3);
    session.close();
}

#[test]
fn too_many_vectors_are_answered_with_how_many_there_are() {
    let most = VECTORS;
    let settings = Settings { vector_limit: most - 1, ..Settings::default() };
    let stand = Stand::shaped(Shape::default(), settings);
    let mut session = stand.bound();
    let (list, _) = session.client.open_eventfds(usize::from(most));
    let data = fds(&list);
    let flags = TRIGGER | irq_set::DATA_EVENTFD;
    let irqs = Irqs { index: irq_index::MSIX, flags, start: 0, count: most.into(), data: &data };
    assert_eq!(session.set_irqs(irqs), Ok(u32::from(most) - 1));
    session.close();
}

#[test]
fn ending_message_interrupts_twice_is_invalid() {
    let stand = Stand::new();
    let mut session = stand.bound();
    for index in [irq_index::MSI, irq_index::MSIX] {
        let (fd, _) = session.client.open_eventfd();
        let data = fds(&[fd]);
        let flags = TRIGGER | irq_set::DATA_EVENTFD;
        let begin = Irqs { index, flags, start: 0, count: 1, data: &data };
        assert_eq!(session.set_irqs(begin), Ok(0));
        let end = Irqs { flags: TRIGGER | irq_set::DATA_NONE, count: 0, data: &[], ..begin };
        assert_eq!(session.set_irqs(end), Ok(0));
        assert_eq!(session.set_irqs(end), Err(Errno::EINVAL));
    }
    session.close();
}

#[test]
fn even_a_device_that_is_not_express_has_an_interrupt_for_errors() {
    let none = Shape { pin: false, msi: false, msix: false, ..Shape::default() };
    for shape in [Shape::default(), none] {
        let stand = Stand::shaped(shape, Settings::default());
        let session = stand.bound();
        let mut info = IrqInfo { argsz: 16, index: irq_index::ERR, ..Default::default() };
        assert_eq!(session.call(CommandId::DeviceGetIrqInfo, &mut info), Ok(0));
        assert_eq!(info.count, 1);
        session.close();
    }
}

const RIGHT: [u8; 16] = [7; 16];
const WRONG: [u8; 16] = [8; 16];

/// Binds with a token.
fn bind_with(stand: &Stand, token: [u8; 16], fd: Option<i32>) -> Result<(), Errno> {
    let context = Context::open(Profile::default());
    let mut client = Client::new();
    let iommufd = client.open_iommufd(&context);
    let token_at = ARGUMENT + 0x100;
    client.put(token_at, &token);
    let mut bind = BindIommufd {
        argsz: 24,
        flags: bind_flags::TOKEN,
        token_uuid_ptr: token_at,
        ..bind_argument(fd.unwrap_or(iommufd))
    };
    let file = stand.open();
    let answer = client.call(&file, CommandId::DeviceBindIommufd, &mut bind);
    file.release();
    context.put_file();
    answer.map(drop)
}

#[test]
fn a_bind_that_fails_sets_the_token_all_the_same() {
    const CLOSED: i32 = 99;
    let physical = Shape { physical_function: true, ..Shape::default() };
    let physical = Stand::shaped(physical, Settings::default());
    let made_by = VirtualFunction { vendor_id: 0x1234, device_id: 0x5679 };
    let settings = Settings { virtual_function: Some(made_by), ..Settings::default() };
    let shape = Shape { virtual_function: true, ..Shape::default() };
    let function = Fake::new(Address::new(0xb1d0, 2, 0, 1).unwrap(), shape);
    let set = Arc::clone(&physical.set);
    let virtual_function =
        Stand::in_set(function, settings, set, Group::new(12), physical.iommu.clone());
    virtual_function.device.set_physical_function(Some(&physical.device));
    assert_eq!(bind_with(&virtual_function, RIGHT, None), Err(Errno::EACCES));
    assert_eq!(bind_with(&physical, RIGHT, Some(CLOSED)), Err(Errno::EBADF));
    assert_eq!(bind_with(&virtual_function, WRONG, None), Err(Errno::EACCES));
    assert_eq!(bind_with(&virtual_function, RIGHT, None), Ok(()));
    assert_eq!(bind_with(&physical, WRONG, Some(CLOSED)), Err(Errno::EBADF));
    assert_eq!(bind_with(&virtual_function, RIGHT, None), Err(Errno::EACCES), "replaced");
}

/// The page table of what bears no PASID goes, though the call was for a PASID; that one's stays.
#[test]
fn an_answer_for_a_pasid_that_cannot_be_written_detaches_what_has_no_pasid() {
    let pasids = Geometry { max_pasid_log2: 8, ..iommu().geometry().clone() };
    let function = Fake::new(ADDRESS, Shape::default());
    let (set, group) = (DeviceSet::new(true), Group::new(7));
    let stand = Stand::in_set(function, Settings::default(), set, group, Iommu::new(pasids));
    let session = stand.bound();
    let mut hwpt = HwptAlloc {
        size: 24,
        flags: hwpt_flags::PASID,
        dev_id: session.device_id,
        pt_id: ioas(&session),
        ..HwptAlloc::default()
    };
    assert_eq!(session.iommu_call(CommandId::HwptAlloc, &mut hwpt), Ok(0));
    let table = hwpt.out_hwpt_id;
    assert_eq!(session.attach(table), Ok(table));
    // argsz, flags, page table, PASID
    let words = [16, attach_flags::PASID, table, 5];
    let bytes: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    session.client.put(READ_ONLY, &bytes);
    let request = Command::of(CommandId::DeviceAttachIommufdPt).request;
    let answer = session.file.ioctl(&session.client, request, READ_ONLY);
    assert_eq!(answer, Err(Errno::EFAULT));
    assert_eq!(stand.device.state(), DeviceState::Bound { device_id: 1 });
    assert_eq!(destroy(&session, table), Err(Errno::EBUSY), "the PASID is attached");
    let mut detach = DetachIommufdPt { argsz: 12, flags: detach_flags::PASID, pasid: 5 };
    assert_eq!(session.call(CommandId::DeviceDetachIommufdPt, &mut detach), Ok(0));
    assert_eq!(destroy(&session, table), Ok(0));
    session.close();
}
