//! BIND, ATTACH and DETACH.

use std::sync::{Arc, mpsc};
use std::thread;

use iommufd::Context;
use pci::Address;
use uapi::iommufd::{HwptAlloc, IoasAlloc};
use uapi::vfio::{AttachIommufdPt, BindIommufd, DetachIommufdPt, bind_flags};
use uapi::{Command, CommandId, Errno, Profile};
use vfio::{DeviceState, Settings};

use crate::support::{ARGUMENT, Client, MEMORY, READ_ONLY, Session, Shape, Stand, bind_argument};

const BIND: CommandId = CommandId::DeviceBindIommufd;

fn client() -> (Client, Arc<Context>, i32) {
    let context = Context::open(Profile::default());
    let mut client = Client::new();
    let iommufd = client.open_iommufd(&context);
    (client, context, iommufd)
}

#[test]
fn both_sizes_of_the_argument_bind() {
    let stand = Stand::new();
    for argsz in [16, 24, 64] {
        let file = stand.open();
        assert_eq!(stand.device.state(), DeviceState::Open { files: 1 });
        let (client, context, iommufd) = client();
        client.put(ARGUMENT, &[0; 64]);
        let mut bind = BindIommufd { argsz, ..bind_argument(iommufd) };
        assert_eq!(client.call(&file, BIND, &mut bind), Ok(0));
        assert_eq!(bind.out_devid, 1);
        assert_eq!(bind.argsz, argsz);
        assert_eq!(stand.device.state(), DeviceState::Bound { device_id: 1 });
        file.release();
        assert_eq!(stand.device.state(), DeviceState::Free);
        context.put_file();
        assert_eq!(context.counts().devices, 0);
    }
}

#[test]
fn the_order_of_checks() {
    let stand = Stand::new();
    let file = stand.open();
    let (mut client, context, iommufd) = client();
    let other = client.open_other();
    let request = Command::of(BIND).request;
    let wrong_everywhere = BindIommufd { argsz: 25, flags: 4, iommufd: -1, ..Default::default() };

    assert_eq!(file.ioctl(&client, request, MEMORY - 1), Err(Errno::EFAULT));
    let mut bind = BindIommufd { argsz: 15, ..wrong_everywhere };
    assert_eq!(client.call(&file, BIND, &mut bind), Err(Errno::EINVAL));
    client.put(ARGUMENT + 24, &[1]);
    let mut bind = wrong_everywhere;
    assert_eq!(client.call(&file, BIND, &mut bind), Err(Errno::E2BIG));
    client.put(ARGUMENT + 24, &[0]);
    for (flags, iommufd) in [(0, -1), (2, iommufd), (4, iommufd)] {
        let mut bind = BindIommufd { flags, ..bind_argument(iommufd) };
        assert_eq!(client.call(&file, BIND, &mut bind), Err(Errno::EINVAL));
    }
    for (fd, errno) in [(99, Errno::EBADF), (other, Errno::EBADFD)] {
        assert_eq!(client.call(&file, BIND, &mut bind_argument(fd)), Err(errno));
    }
    assert_eq!(stand.device.state(), DeviceState::Open { files: 1 });
    assert_eq!(client.call(&file, BIND, &mut bind_argument(iommufd)), Ok(0));

    // Bound: the file comes before its descriptor, the descriptor before the device.
    assert_eq!(client.call(&file, BIND, &mut bind_argument(99)), Err(Errno::EINVAL));
    let second = stand.open();
    assert_eq!(client.call(&second, BIND, &mut bind_argument(99)), Err(Errno::EBADF));
    assert_eq!(client.call(&second, BIND, &mut bind_argument(iommufd)), Err(Errno::EINVAL));
    file.release();
    assert_eq!(client.call(&second, BIND, &mut bind_argument(iommufd)), Ok(0));
    second.release();
    context.put_file();
}

#[test]
fn a_tail_that_cannot_be_read_faults() {
    let stand = Stand::new();
    let file = stand.open();
    let (client, context, iommufd) = client();
    let at = READ_ONLY + 0x1000 - 32;
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&40_u32.to_le_bytes());
    bytes[8..12].copy_from_slice(&iommufd.to_le_bytes());
    client.put(at, &bytes);
    let request = Command::of(BIND).request;
    assert_eq!(file.ioctl(&client, request, at), Err(Errno::EFAULT));
    file.release();
    context.put_file();
}

#[test]
fn an_id_that_cannot_be_written_undoes_the_bind() {
    let stand = Stand::new();
    let file = stand.open();
    let (client, context, iommufd) = client();
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&16_u32.to_le_bytes());
    bytes[8..12].copy_from_slice(&iommufd.to_le_bytes());
    client.put(READ_ONLY, &bytes);
    stand.function.events();
    let request = Command::of(BIND).request;
    assert_eq!(file.ioctl(&client, request, READ_ONLY), Err(Errno::EFAULT));
    assert_eq!(
        stand.function.events(),
        ["reset function", "connect", "start", "stop", "disconnect", "reset function"]
    );
    assert_eq!(context.counts().devices, 0);
    assert_eq!(stand.device.state(), DeviceState::Open { files: 1 });
    assert_eq!(client.call(&file, BIND, &mut bind_argument(iommufd)), Ok(0));
    file.release();
    context.put_file();
}

#[test]
fn two_devices_of_a_group_share_a_context_and_no_other() {
    let stand = Stand::new();
    let sibling = stand.neighbour(Address::new(0xb1d0, 2, 0, 1).unwrap(), true);
    let session = stand.bound();
    let (client, context, stranger) = client();
    let file = sibling.open();
    assert_eq!(client.call(&file, BIND, &mut bind_argument(stranger)), Err(Errno::EPERM));
    assert_eq!(sibling.device.state(), DeviceState::Open { files: 1 });
    let mut bind = bind_argument(session.iommufd);
    assert_eq!(session.client.call(&file, BIND, &mut bind), Ok(0));
    assert_eq!((session.device_id, bind.out_devid), (1, 2));
    file.release();
    session.close();
    context.put_file();
}

#[test]
fn tokens() {
    let token_at = ARGUMENT + 0x100;
    let with_token = |iommufd, at| BindIommufd {
        argsz: 24,
        flags: bind_flags::TOKEN,
        token_uuid_ptr: at,
        ..bind_argument(iommufd)
    };
    let plain = (Shape::default(), Settings::default());
    let physical = (Shape { physical_function: true, ..Shape::default() }, Settings::default());
    let virtual_function = vfio::VirtualFunction { vendor_id: 0x1234, device_id: 0x5679 };
    let of_platform = (
        Shape { virtual_function: true, pin: false, ..Shape::default() },
        Settings { virtual_function: Some(virtual_function), ..Settings::default() },
    );
    let expectations =
        [(plain, Err(Errno::EINVAL)), (of_platform, Err(Errno::EINVAL)), (physical, Ok(0))];
    for ((shape, settings), expected) in expectations {
        let stand = Stand::shaped(shape, settings);
        let file = stand.open();
        let (client, context, iommufd) = client();
        // The token is read before anybody asks whether one is taken, and before the descriptor is.
        let mut bind = with_token(99, 0);
        assert_eq!(client.call(&file, BIND, &mut bind), Err(Errno::EFAULT));
        let mut bind = BindIommufd { argsz: 16, ..with_token(99, token_at) };
        assert_eq!(client.call(&file, BIND, &mut bind), Err(Errno::EFAULT));
        let mut bind = with_token(iommufd, token_at);
        assert_eq!(client.call(&file, BIND, &mut bind), expected, "{shape:?}");
        file.release();
        context.put_file();
    }
}

fn ioas(session: &Session) -> u32 {
    let mut ioas = IoasAlloc { size: 12, ..Default::default() };
    assert_eq!(session.iommu_call(CommandId::IoasAlloc, &mut ioas), Ok(0));
    ioas.out_ioas_id
}

fn page_table(session: &Session, pt_id: u32) -> u32 {
    let mut hwpt = HwptAlloc { size: 24, dev_id: session.device_id, pt_id, ..HwptAlloc::default() };
    assert_eq!(session.iommu_call(CommandId::HwptAlloc, &mut hwpt), Ok(0));
    hwpt.out_hwpt_id
}

#[test]
fn attach_replaces_and_detach_is_idempotent() {
    let stand = Stand::new();
    let session = stand.bound();
    let (ioas, other) = (ioas(&session), ioas(&session));
    let table = page_table(&session, ioas);
    assert_eq!(session.attach(table), Ok(table));
    let attached = DeviceState::Attached { device_id: 1, page_table_id: table };
    assert_eq!(stand.device.state(), attached);
    let automatic = session.attach(other).unwrap();
    assert!(automatic != other, "the page table used is told, not the IOAS");
    for size in [8, 12, 64] {
        let mut detach = DetachIommufdPt { argsz: size, ..Default::default() };
        assert_eq!(session.call(CommandId::DeviceDetachIommufdPt, &mut detach), Ok(0));
        assert_eq!(stand.device.state(), DeviceState::Bound { device_id: 1 });
    }
    assert_eq!(session.attach(automatic), Err(Errno::ENOENT), "it went with its last device");
    session.close();
}

#[test]
fn refusals_of_attach_and_detach() {
    let stand = Stand::new();
    let session = stand.bound();
    let ioas = ioas(&session);
    let attach = AttachIommufdPt { argsz: 16, pt_id: ioas, ..Default::default() };
    for (argument, errno) in [
        (AttachIommufdPt { argsz: 11, ..attach }, Errno::EINVAL),
        (AttachIommufdPt { flags: 2, ..attach }, Errno::EINVAL),
        // A PASID wants a longer struct, and never an address space.
        (AttachIommufdPt { argsz: 12, flags: 1, pt_id: 77, ..attach }, Errno::EINVAL),
        (AttachIommufdPt { flags: 1, pt_id: 77, ..attach }, Errno::ENOENT),
        (AttachIommufdPt { flags: 1, pasid: 1, ..attach }, Errno::EINVAL),
        (AttachIommufdPt { pt_id: 77, ..attach }, Errno::ENOENT),
        (AttachIommufdPt { pt_id: session.device_id, ..attach }, Errno::EINVAL),
    ] {
        let mut sent = argument;
        let result = session.call(CommandId::DeviceAttachIommufdPt, &mut sent);
        assert_eq!(result, Err(errno), "{argument:?}");
        assert_eq!(sent, argument, "nothing is written back");
    }
    for (argsz, flags, expected) in
        [(12, 1, Ok(0)), (8, 1, Err(Errno::EINVAL)), (12, 2, Err(Errno::EINVAL))]
    {
        let mut detach = DetachIommufdPt { argsz, flags, pasid: 1 };
        let result = session.call(CommandId::DeviceDetachIommufdPt, &mut detach);
        assert_eq!(result, expected, "argsz {argsz}, flags {flags}");
    }
    session.close();
}

#[test]
fn an_id_that_cannot_be_written_detaches() {
    let stand = Stand::new();
    let session = stand.bound();
    let ioas = ioas(&session);
    let words = [12, 0, ioas];
    let bytes: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    session.client.put(READ_ONLY, &bytes);
    let request = Command::of(CommandId::DeviceAttachIommufdPt).request;
    let result = session.file.ioctl(&session.client, request, READ_ONLY);
    assert_eq!(result, Err(Errno::EFAULT));
    assert_eq!(stand.device.state(), DeviceState::Bound { device_id: 1 });
    assert_eq!(session.context.counts().hwpts, 0);
    session.close();
}

#[test]
fn a_withdrawn_device_cannot_be_opened() {
    let stand = Stand::new();
    let session = stand.bound();
    stand.device.withdraw();
    let refused = vfio::DeviceFile::open(&stand.device, stand.bar_pages()).map(|_| ());
    assert_eq!(refused.map_err(|refusal| refusal.errno()), Err(Errno::ENODEV));
    assert_eq!(session.config_word(0), 0x1234, "who has it open keeps it");
    session.close();
    assert_eq!(stand.device.state(), DeviceState::Free);
}

/// Two files bind at a time. The first fails in the end: then the second does not.
#[test]
fn a_bind_waits_for_another_that_is_not_done() {
    let stand = Stand::new();
    let (first, second) = (stand.open(), stand.open());
    let (client, context, iommufd) = client();
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&16_u32.to_le_bytes());
    bytes[8..12].copy_from_slice(&iommufd.to_le_bytes());
    client.put(READ_ONLY, &bytes);
    let request = Command::of(BIND).request;
    let (come, has_come) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    stand.function.hold_next_reset((come, may_go));
    thread::scope(|scope| {
        // Dropped if the test fails, which lets the other threads end.
        let go = go;
        let fails = scope.spawn(|| first.ioctl(&client, request, READ_ONLY));
        has_come.recv().unwrap();
        let waits = scope.spawn(|| client.call(&second, BIND, &mut bind_argument(iommufd)));
        for _ in 0..1000 {
            thread::yield_now();
        }
        go.send(()).unwrap();
        assert_eq!(fails.join().unwrap(), Err(Errno::EFAULT));
        assert_eq!(waits.join().unwrap(), Ok(0));
    });
    second.release();
    first.release();
    context.put_file();
}

#[test]
fn a_device_that_its_sibling_takes_along_says_where_it_is() {
    let stand = Stand::new();
    let sibling = stand.neighbour(Address::new(0xb1d0, 2, 0, 1).unwrap(), true);
    let session = stand.bound();
    let file = sibling.open();
    let mut bind = bind_argument(session.iommufd);
    assert_eq!(session.client.call(&file, BIND, &mut bind), Ok(0));
    let ioas = ioas(&session);
    let shared = session.attach(ioas).unwrap();
    let mut attach = AttachIommufdPt { argsz: 12, pt_id: shared, ..Default::default() };
    assert_eq!(session.client.call(&file, CommandId::DeviceAttachIommufdPt, &mut attach), Ok(0));
    let other = page_table(&session, ioas);
    assert_eq!(session.attach(other), Ok(other));
    let attached = DeviceState::Attached { device_id: bind.out_devid, page_table_id: other };
    assert_eq!(sibling.device.state(), attached);
    file.release();
    session.close();
}
