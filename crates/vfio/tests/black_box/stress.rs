//! Several threads at once. Debug builds assert the lock order on the way.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use pci::regs::{express, header};
use uapi::vfio::{DeviceInfo, irq_index, irq_set};
use uapi::{Command, CommandId, Errno};
use vfio::DeviceState;

use crate::support::{
    ARGUMENT, Client, Irqs, Session, Stand, bind_argument, config_position, fds, position,
};

const ROUNDS: usize = 150;

/// A client of its own on the same open file, as another thread of the program is.
fn another(session: &Session) -> (Session, i32) {
    let mut client = Client::new();
    let iommufd = client.open_iommufd(&session.context);
    let (fd, _) = client.open_eventfd();
    let (file, context) = (session.file.clone(), session.context.clone());
    (Session { client, file, context, iommufd, device_id: session.device_id }, fd)
}

#[test]
fn commands_accesses_and_interrupts_on_one_file() {
    let stand = Stand::new();
    let session = stand.bound();
    let host = stand.function.host().unwrap();
    thread::scope(|scope| {
        let (interrupts, fd) = another(&session);
        scope.spawn(move || {
            let data = fds(&[fd]);
            let set = irq_set::ACTION_TRIGGER | irq_set::DATA_EVENTFD;
            let end = irq_set::ACTION_TRIGGER | irq_set::DATA_NONE;
            for index in [irq_index::MSIX, irq_index::INTX, irq_index::MSI].repeat(ROUNDS) {
                let irqs = Irqs { index, flags: set, start: 0, count: 1, data: &data };
                assert_eq!(interrupts.set_irqs(irqs), Ok(0));
                let irqs = Irqs { index, flags: end, start: 0, count: 0, data: &[] };
                assert_eq!(interrupts.set_irqs(irqs), Ok(0));
            }
        });
        for _ in 0..2 {
            let (resets, _) = another(&session);
            scope.spawn(move || {
                let reset = Command::of(CommandId::DeviceReset).request;
                for _ in 0..ROUNDS {
                    let result = resets.file.ioctl(&resets.client, reset, 0);
                    assert!(matches!(result, Ok(0) | Err(Errno::EAGAIN)), "{result:?}");
                }
            });
        }
        let (configs, _) = another(&session);
        scope.spawn(move || {
            let devctl = (0x40..0x100)
                .step_by(4)
                .find(|&at| configs.config::<1>(at) == [pci::regs::cap_id::EXPRESS])
                .map(|at| at + u64::from(express::DEVCTL))
                .unwrap();
            for round in 0..ROUNDS {
                let command = if round % 2 == 0 { 0x402_u16 } else { 0x006 };
                configs.set_config(header::COMMAND, &command.to_le_bytes());
                let flr = express::INITIATE_FLR.to_le_bytes();
                assert_eq!(configs.write(config_position(devctl), &flr), Ok(2));
            }
        });
        let (accesses, _) = another(&session);
        scope.spawn(move || {
            let mut bytes = [0; 32];
            for _ in 0..ROUNDS {
                let result = accesses.read(position(0, 0x1000), &mut bytes);
                assert!(matches!(result, Ok(32) | Err(Errno::EIO)), "{result:?}");
                let mut info = DeviceInfo { argsz: 24, ..Default::default() };
                assert_eq!(accesses.call(CommandId::DeviceGetInfo, &mut info), Ok(0));
            }
        });
        let function = stand.function.clone();
        scope.spawn(move || {
            for vector in 0..ROUNDS {
                function.pull_pin(vector % 3 == 0);
                host.interrupts.msix(u16::try_from(vector % 9).unwrap());
                host.interrupts.msi(0);
            }
        });
    });
    session.close();
    assert_eq!(stand.device.state(), DeviceState::Free);
}

#[test]
fn one_of_many_binds() {
    let stand = Stand::new();
    let session = stand.bound();
    session.file.release();
    thread::scope(|scope| {
        for _ in 0..3 {
            let (session, _) = another(&session);
            let stand = &stand;
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let file = stand.open();
                    let mut bind = bind_argument(session.iommufd);
                    let bound = session.client.call(&file, CommandId::DeviceBindIommufd, &mut bind);
                    assert!(matches!(bound, Ok(0) | Err(Errno::EINVAL)), "{bound:?}");
                    let result = file.read(&session.client, ARGUMENT, 4, config_position(0));
                    assert_eq!(result.is_ok(), bound.is_ok());
                    file.release();
                }
            });
        }
    });
    assert_eq!(stand.device.state(), DeviceState::Free);
    assert_eq!(session.context.counts().devices, 0);
    session.context.put_file();
}

#[test]
fn release_waits_for_what_runs() {
    let stand = Stand::new();
    let session = stand.bound();
    let (reader, _) = another(&session);
    let (come, has_come) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let (released, is_released) = mpsc::channel();
    stand.function.hold_next_read((come, may_go));
    stand.function.events();
    thread::scope(|scope| {
        scope.spawn(move || {
            assert_eq!(reader.read(position(2, 0), &mut [0; 8]), Ok(8));
        });
        has_come.recv().unwrap();
        let file = session.file.clone();
        scope.spawn(move || {
            file.release();
            released.send(()).unwrap();
        });
        let early = is_released.recv_timeout(Duration::from_millis(50)).is_ok();
        let meanwhile = stand.function.events();
        go.send(()).unwrap();
        assert!(!early, "a read is running");
        assert!(meanwhile.is_empty());
        is_released.recv().unwrap();
    });
    assert_eq!(stand.function.events(), ["stop", "disconnect", "reset function"]);
    session.context.put_file();
}
