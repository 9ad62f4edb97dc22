//! The last close.

use std::sync::Arc;

use iommufd::Context;
use pci::regs::{command, header};
use uapi::iommufd::{IoasAlloc, IoasMap};
use uapi::vfio::{irq_index, irq_set};
use uapi::{CommandId, Errno, Profile};
use vfio::{CloseOrder, DeviceState, Settings};

use crate::support::{ARGUMENT, Client, Irqs, MEMORY, Session, Shape, Stand, bind_argument, fds};

/// Maps a page at IOVA 0 and attaches.
fn attach_with_a_page(session: &Session) {
    let mut ioas = IoasAlloc { size: 12, ..Default::default() };
    assert_eq!(session.iommu_call(CommandId::IoasAlloc, &mut ioas), Ok(0));
    let mut map = IoasMap {
        size: 40,
        flags: 7,
        ioas_id: ioas.out_ioas_id,
        user_va: MEMORY,
        length: 0x1000,
        ..IoasMap::default()
    };
    assert_eq!(session.iommu_call(CommandId::IoasMap, &mut map), Ok(0));
    session.attach(ioas.out_ioas_id).unwrap();
}

#[test]
fn in_both_orders_nothing_is_detached_under_running_dma() {
    for close_order in [CloseOrder::UnbindFirst, CloseOrder::Linux73] {
        let settings = Settings { close_order, ..Settings::default() };
        let stand = Stand::shaped(Shape::default(), settings);
        let session = stand.bound();
        attach_with_a_page(&session);
        stand.function.events();
        let Session { file, context, .. } = session;
        context.put_file();
        file.release();
        assert_eq!(
            stand.function.events(),
            ["stop, attached", "disconnect", "reset function"],
            "{close_order:?}"
        );
        let left = context.counts();
        assert_eq!((left.devices, left.areas), (0, 1), "an IOAS outlives the device");
        assert_eq!(stand.device.state(), DeviceState::Free);
    }
}

#[test]
fn the_function_is_as_it_was() {
    let stand = Stand::new();
    let before = stand.function.real_config();
    let mut session = stand.bound();
    let (fd, heard) = session.client.open_eventfd();
    let data = fds(&[fd]);
    let trigger = irq_set::ACTION_TRIGGER | irq_set::DATA_EVENTFD;
    let irqs = Irqs { index: irq_index::MSIX, flags: trigger, start: 0, count: 1, data: &data };
    assert_eq!(session.set_irqs(irqs), Ok(0));
    session.set_config(header::COMMAND, &0x0106_u16.to_le_bytes());
    session.set_config(header::BAR0, &[0xff; 4]);
    session.set_config(header::INTERRUPT_LINE, &[9]);
    assert!(stand.function.real_config().bus_master());
    let mine = stand.function.backing(0).unwrap();
    session.close();
    assert!(stand.function.real_config() == before);
    assert!(stand.function.host().is_none());
    assert!(!Arc::ptr_eq(&mine, &stand.function.backing(0).unwrap()));
    assert!(!stand.device.request_release());
    assert_eq!(heard.taken(), 0);
    assert_eq!(Arc::strong_count(&heard), 1, "only the test has it still");
}

#[test]
fn bus_master_is_off_at_open_and_after_close() {
    let stand = Stand::new();
    let on = command::BUS_MASTER | command::MEMORY;
    pci::Function::config_write(&*stand.function, header::COMMAND, &on.to_le_bytes());
    let session = stand.bound();
    assert!(!stand.function.real_config().bus_master());
    assert!(stand.function.real_config().memory_enabled());
    session.set_config(header::COMMAND, &on.to_le_bytes());
    assert!(stand.function.real_config().bus_master());
    session.close();
    assert!(!stand.function.real_config().bus_master());
}

#[test]
fn a_file_that_was_never_bound_closes_without_touching_the_function() {
    let stand = Stand::new();
    let bound = stand.bound();
    stand.function.events();
    let file = stand.open();
    file.release();
    assert!(stand.function.events().is_empty());
    assert_eq!(stand.device.state(), DeviceState::Bound { device_id: 1 });
    bound.close();
}

#[test]
fn nothing_begins_on_a_closed_file() {
    let stand = Stand::new();
    let session = stand.bound();
    let Session { file, client, context, iommufd, .. } = session;
    file.release();
    let mut bind = bind_argument(iommufd);
    let result = client.call(&file, CommandId::DeviceBindIommufd, &mut bind);
    assert_eq!(result, Err(Errno::EINVAL));
    assert_eq!(file.read(&client, ARGUMENT, 4, vfio::REGION_BASE), Err(Errno::EINVAL));
    context.put_file();
    assert_eq!(stand.device.state(), DeviceState::Free);
}

#[test]
fn close_open_and_bind_in_a_row() {
    let stand = Stand::new();
    for _ in 0..200 {
        let context = Context::open(Profile::default());
        let mut client = Client::new();
        let iommufd = client.open_iommufd(&context);
        let session = Session::bind_to(stand.open(), client, context, iommufd);
        attach_with_a_page(&session);
        session.close();
    }
}
