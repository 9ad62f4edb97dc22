//! SET_IRQS, and how interrupts are heard.

use std::sync::Arc;

use pci::Interrupt;
use uapi::vfio::{irq_index, irq_set};
use uapi::{CommandId, Errno};
use vfio::{Settings, TdiErrorEvent};

use crate::support::{
    Irqs, Session, Shape, Stand, TABLE_AT, VECTORS, Watcher, config_position, fds,
};

const INTX: u32 = irq_index::INTX;
const MSI: u32 = irq_index::MSI;
const MSIX: u32 = irq_index::MSIX;
const ERR: u32 = irq_index::ERR;
const REQ: u32 = irq_index::REQ;

const TRIGGER: u32 = irq_set::ACTION_TRIGGER;
const MASK: u32 = irq_set::ACTION_MASK;
const UNMASK: u32 = irq_set::ACTION_UNMASK;
const NONE: u32 = irq_set::DATA_NONE;
const BOOL: u32 = irq_set::DATA_BOOL;
const EVENTFD: u32 = irq_set::DATA_EVENTFD;

fn irqs(index: u32, flags: u32, start: u32, count: u32, data: &[u8]) -> Irqs<'_> {
    Irqs { index, flags, start, count, data }
}

/// Sets eventfds from `start` on.
fn hear(session: &Session, index: u32, start: u32, list: &[i32]) -> Result<u32, Errno> {
    let count = u32::try_from(list.len()).unwrap();
    session.set_irqs(irqs(index, TRIGGER | EVENTFD, start, count, &fds(list)))
}

fn end(session: &Session, index: u32) -> Result<u32, Errno> {
    session.set_irqs(irqs(index, TRIGGER | NONE, 0, 0, &[]))
}

fn real_msix(stand: &Stand) -> (bool, Vec<bool>) {
    let enabled = stand.function.real_config().msix().unwrap().enabled;
    let armed = (0..usize::from(VECTORS)).map(|vector| {
        let control = usize::try_from(TABLE_AT).unwrap() + vector * 16 + 12;
        let entry = stand.function.bar_bytes(0, control - 12, 16);
        let is_programmed = entry.iter().any(|&byte| byte != 0);
        is_programmed && entry[12] & 1 == 0
    });
    (enabled, armed.collect())
}

#[test]
fn validation() {
    let stand = Stand::new();
    let mut session = stand.bound();
    let (fd, _) = session.client.open_eventfd();
    let (one, closed, negative) = (fds(&[fd]), fds(&[99]), fds(&[-2]));
    let cases: &[(&str, Irqs<'_>, Errno)] = &[
        ("no such index", irqs(5, TRIGGER | NONE, 0, 0, &[]), Errno::EINVAL),
        ("index at the top", irqs(u32::MAX, TRIGGER | NONE, 0, 0, &[]), Errno::EINVAL),
        ("range overflows", irqs(MSIX, TRIGGER | NONE, 1, u32::MAX, &[]), Errno::EINVAL),
        ("range overflows by one", irqs(MSIX, TRIGGER | NONE, 2, u32::MAX - 1, &[]), Errno::EINVAL),
        ("unknown flag", irqs(MSIX, TRIGGER | NONE | 64, 0, 1, &[]), Errno::EINVAL),
        ("start past the end", irqs(MSIX, TRIGGER | NONE, 8, 0, &[]), Errno::EINVAL),
        ("end past the end", irqs(MSIX, TRIGGER | NONE, 7, 2, &[]), Errno::EINVAL),
        ("no data kind", irqs(MSIX, TRIGGER, 0, 1, &[]), Errno::EINVAL),
        ("two data kinds", irqs(MSIX, TRIGGER | NONE | BOOL, 0, 1, &[1]), Errno::EINVAL),
        ("too little data", irqs(MSIX, TRIGGER | EVENTFD, 0, 2, &one), Errno::EINVAL),
        ("no action", irqs(MSIX, NONE, 0, 1, &[]), Errno::ENOTTY),
        ("two actions", irqs(MSIX, NONE | TRIGGER | MASK, 0, 1, &[]), Errno::ENOTTY),
        ("range before action", irqs(MSIX, NONE, 8, 1, &[]), Errno::EINVAL),
        ("mask MSI-X", irqs(MSIX, MASK | NONE, 0, 1, &[]), Errno::ENOTTY),
        ("unmask MSI-X", irqs(MSIX, UNMASK | NONE, 0, 1, &[]), Errno::ENOTTY),
        ("mask MSI", irqs(MSI, MASK | NONE, 0, 1, &[]), Errno::ENOTTY),
        ("mask ERR", irqs(ERR, MASK | NONE, 0, 1, &[]), Errno::ENOTTY),
        ("unmask REQ", irqs(REQ, UNMASK | NONE, 0, 1, &[]), Errno::ENOTTY),
        ("end MSI-X that is not", irqs(MSIX, TRIGGER | NONE, 0, 0, &[]), Errno::EINVAL),
        ("end MSI that is not", irqs(MSI, TRIGGER | NONE, 0, 0, &[]), Errno::EINVAL),
        ("end INTx that is not", irqs(INTX, TRIGGER | NONE, 0, 0, &[]), Errno::EINVAL),
        ("fire MSI-X that is not", irqs(MSIX, TRIGGER | NONE, 0, 1, &[]), Errno::EINVAL),
        ("fire INTx that is not", irqs(INTX, TRIGGER | BOOL, 0, 1, &[1]), Errno::EINVAL),
        ("mask INTx that is not", irqs(INTX, MASK | NONE, 0, 1, &[]), Errno::EINVAL),
        ("unmask INTx that is not", irqs(INTX, UNMASK | EVENTFD, 0, 1, &one), Errno::EINVAL),
        ("no vectors", irqs(MSIX, TRIGGER | EVENTFD, 0, 0, &[]), Errno::ERANGE),
        ("closed eventfd", irqs(MSIX, TRIGGER | EVENTFD, 0, 1, &closed), Errno::EBADF),
        ("fire ERR unset", irqs(ERR, TRIGGER | NONE, 0, 1, &[]), Errno::EINVAL),
        ("end REQ unset", irqs(REQ, TRIGGER | NONE, 0, 0, &[]), Errno::EINVAL),
        ("no ERR, bool", irqs(ERR, TRIGGER | BOOL, 0, 0, &[]), Errno::EINVAL),
        ("no ERR, eventfd", irqs(ERR, TRIGGER | EVENTFD, 0, 0, &[]), Errno::EINVAL),
        ("ERR of -2", irqs(ERR, TRIGGER | EVENTFD, 0, 1, &negative), Errno::EINVAL),
        ("second ERR", irqs(ERR, TRIGGER | NONE, 1, 0, &[]), Errno::EINVAL),
    ];
    for (what, asked, errno) in cases {
        assert_eq!(session.set_irqs(*asked), Err(*errno), "{what}");
    }
    let mut short = irqs(MSIX, TRIGGER | EVENTFD, 0, 1, &one).bytes();
    short[0] = 23;
    assert_eq!(session.call_bytes(CommandId::DeviceSetIrqs, &mut short), Err(Errno::EINVAL));
    assert_eq!(real_msix(&stand), (false, vec![false; 8]), "nothing was set up");
    session.close();
}

#[test]
fn an_index_without_vectors_takes_nothing() {
    let shape = Shape { pin: false, msi: false, msix: false, ..Shape::default() };
    let stand = Stand::shaped(shape, Settings::default());
    let session = stand.bound();
    for index in [INTX, MSI, MSIX] {
        for flags in [TRIGGER | NONE, MASK | NONE, NONE] {
            let result = session.set_irqs(irqs(index, flags, 0, 0, &[]));
            assert_eq!(result, Err(Errno::EINVAL), "{index}");
        }
    }
    session.close();
}

#[test]
fn data_that_cannot_be_read_faults() {
    let stand = Stand::new();
    let session = stand.bound();
    let end = crate::support::MEMORY + crate::support::MEMORY_SIZE as u64;
    let bytes = irqs(MSIX, TRIGGER | EVENTFD, 0, 2, &fds(&[-1, -1])).bytes();
    session.client.put(end - 24, &bytes[..24]);
    let request = uapi::Command::of(CommandId::DeviceSetIrqs).request;
    let result = session.file.ioctl(&session.client, request, end - 24);
    assert_eq!(result, Err(Errno::EFAULT));
    session.close();
}

#[test]
fn msix_vectors_are_heard() {
    let stand = Stand::new();
    let mut session = stand.bound();
    let (list, heard) = session.client.open_eventfds(4);
    assert_eq!(hear(&session, MSIX, 0, &[list[0], -1, list[2]]), Ok(0));
    let armed = |vectors: &[usize]| (0..8).map(|vector| vectors.contains(&vector)).collect();
    assert_eq!(real_msix(&stand), (true, armed(&[0, 2])));
    let host = stand.function.host().unwrap();
    host.interrupts.msix(0);
    host.interrupts.msix(2);
    host.interrupts.msix(2);
    assert_eq!([heard[0].taken(), heard[2].taken()], [1, 2]);
    host.interrupts.msix(1);
    host.interrupts.msix(7);
    host.interrupts.msi(0);
    let unheard = [Interrupt::Msix(1), Interrupt::Msix(7), Interrupt::Msi(0)];
    assert_eq!(stand.heard.unheard(), unheard);
    assert_eq!(stand.device.unheard_interrupts(), 3);

    // Vectors change one by one and grow past what was allocated first.
    assert_eq!(hear(&session, MSIX, 5, &[list[1]]), Ok(0));
    assert_eq!(hear(&session, MSIX, 0, &[-1]), Ok(0));
    assert_eq!(real_msix(&stand), (true, armed(&[2, 5])));
    host.interrupts.msix(5);
    assert_eq!(heard[1].taken(), 1);

    // Loopback: unset vectors are passed over.
    assert_eq!(session.set_irqs(irqs(MSIX, TRIGGER | NONE, 0, 8, &[])), Ok(0));
    assert_eq!([heard[0].taken(), heard[1].taken(), heard[2].taken()], [0, 1, 1]);
    assert_eq!(session.set_irqs(irqs(MSIX, TRIGGER | BOOL, 1, 2, &[1, 0])), Ok(0));
    assert_eq!(session.set_irqs(irqs(MSIX, TRIGGER | BOOL, 2, 1, &[9])), Ok(0));
    assert_eq!([heard[1].taken(), heard[2].taken()], [0, 1]);

    assert_eq!(end(&session, MSIX), Ok(0));
    assert!(!real_msix(&stand).0);
    assert_eq!(end(&session, MSIX), Err(Errno::EINVAL), "ending it twice");
    assert_eq!(Arc::strong_count(&heard[2]), 2, "the client and the test");
    session.close();
}

#[test]
fn a_bad_eventfd_undoes_what_the_call_set() {
    let stand = Stand::new();
    let mut session = stand.bound();
    let (list, heard) = session.client.open_eventfds(4);
    let other = session.client.open_other();
    assert_eq!(hear(&session, MSIX, 0, &[list[0], 99]), Err(Errno::EBADF));
    assert_eq!(end(&session, MSIX), Err(Errno::EINVAL), "nothing is set up");
    assert_eq!(hear(&session, MSIX, 0, &list), Ok(0));
    assert_eq!(hear(&session, MSIX, 0, &[list[3], other, list[0]]), Err(Errno::EINVAL));
    let host = stand.function.host().unwrap();
    for vector in 0..4 {
        host.interrupts.msix(vector);
    }
    let counts: Vec<u64> = heard.iter().map(|heard| heard.taken()).collect();
    assert_eq!(counts, [0, 0, 1, 1], "those reached are cleared, the others as they were");
    assert_eq!(real_msix(&stand).1[..4], [false, false, true, true]);
    session.close();
}

#[test]
fn vectors_run_out() {
    let settings = Settings { vector_limit: 3, ..Settings::default() };
    let stand = Stand::shaped(Shape::default(), settings);
    let mut session = stand.bound();
    let (list, _) = session.client.open_eventfds(4);
    for index in [MSI, MSIX] {
        assert_eq!(hear(&session, index, 0, &list), Ok(3), "as many as there are, none set up");
        assert_eq!(end(&session, index), Err(Errno::EINVAL));
    }
    assert_eq!(hear(&session, MSIX, 2, &list[..1]), Ok(0));
    assert_eq!(hear(&session, MSIX, 3, &list[..1]), Err(Errno::ENOSPC));
    session.close();
}

#[test]
fn a_fixed_number_of_vectors_stays() {
    let settings = Settings { dynamic_msix: false, ..Settings::default() };
    let stand = Stand::shaped(Shape::default(), settings);
    let mut session = stand.bound();
    let (list, _) = session.client.open_eventfds(4);
    for index in [MSI, MSIX] {
        assert_eq!(hear(&session, index, 0, &list[..2]), Ok(0));
        assert_eq!(hear(&session, index, 1, &list[..2]), Err(Errno::EINVAL));
        assert_eq!(hear(&session, index, 2, &[-1]), Ok(0), "no vector is asked for");
        assert_eq!(hear(&session, index, 2, &[99]), Err(Errno::EINVAL), "before the descriptor");
        assert_eq!(end(&session, index), Ok(0));
    }
    session.close();
}

#[test]
fn msi_vectors_are_heard() {
    let stand = Stand::new();
    let mut session = stand.bound();
    let (list, heard) = session.client.open_eventfds(2);
    assert_eq!(hear(&session, MSI, 0, &list), Ok(0));
    let host = stand.function.host().unwrap();
    host.interrupts.msi(1);
    host.interrupts.msix(1);
    assert_eq!([heard[0].taken(), heard[1].taken()], [0, 1]);
    assert_eq!(stand.heard.unheard(), [Interrupt::Msix(1)]);
    for index in [INTX, MSIX] {
        assert_eq!(hear(&session, index, 0, &list[..1]), Err(Errno::EINVAL), "one kind at a time");
        assert_eq!(end(&session, index), Err(Errno::EINVAL));
    }
    assert_eq!(end(&session, MSI), Ok(0));
    assert!(!stand.function.real_config().msi().unwrap().enabled);
    session.close();
}

#[test]
fn the_pin_masks_itself_and_is_heard_again() {
    let stand = Stand::new();
    let mut session = stand.bound();
    let (fd, heard) = session.client.open_eventfd();
    stand.function.pull_pin(true);
    assert_eq!(stand.heard.unheard(), [Interrupt::Intx]);
    assert_eq!(hear(&session, INTX, 0, &[fd]), Ok(0));
    assert_eq!(heard.taken(), 1, "a level that is there already");
    stand.function.pull_pin(false);
    stand.function.pull_pin(true);
    assert_eq!(heard.taken(), 0, "masked since it was heard");
    let unmask = irqs(INTX, UNMASK | NONE, 0, 1, &[]);
    assert_eq!(session.set_irqs(unmask), Ok(0));
    assert_eq!(heard.taken(), 1, "still asserted");
    stand.function.pull_pin(false);
    assert_eq!(session.set_irqs(unmask), Ok(0));
    assert_eq!(heard.taken(), 0);
    stand.function.pull_pin(true);
    assert_eq!(heard.taken(), 1);
    stand.function.pull_pin(false);
    assert_eq!(session.set_irqs(unmask), Ok(0));

    assert_eq!(session.set_irqs(irqs(INTX, MASK | BOOL, 0, 1, &[1])), Ok(0));
    stand.function.pull_pin(true);
    assert_eq!(heard.taken(), 0);
    assert_eq!(session.set_irqs(irqs(INTX, UNMASK | BOOL, 0, 1, &[0])), Ok(0));
    assert_eq!(heard.taken(), 0);
    assert_eq!(session.set_irqs(irqs(INTX, UNMASK | BOOL, 0, 1, &[1])), Ok(0));
    assert_eq!(heard.taken(), 1);

    let loopback = irqs(INTX, TRIGGER | NONE, 0, 1, &[]);
    assert_eq!(session.set_irqs(loopback), Ok(0));
    assert_eq!(session.set_irqs(irqs(INTX, TRIGGER | BOOL, 0, 1, &[0])), Ok(0));
    assert_eq!(heard.taken(), 1);
    assert_eq!(hear(&session, INTX, 0, &[-1]), Ok(0), "set up, and heard by nobody");
    assert_eq!(session.set_irqs(loopback), Ok(0));
    assert_eq!(heard.taken(), 0);
    let mask_by_eventfd = irqs(INTX, MASK | EVENTFD, 0, 1, &[0; 4]);
    assert_eq!(session.set_irqs(mask_by_eventfd), Err(Errno::ENOTTY));
    assert_eq!(end(&session, INTX), Ok(0));
    assert_eq!(end(&session, INTX), Err(Errno::EINVAL));
    session.close();
}

/// The function tells of a change of its pin from its worker, which may be late.
#[test]
fn the_level_of_the_pin_is_read_where_it_matters() {
    let stand = Stand::new();
    let mut session = stand.bound();
    let (fd, heard) = session.client.open_eventfd();
    assert_eq!(hear(&session, INTX, 0, &[fd]), Ok(0));
    stand.function.pull_pin(true);
    assert_eq!(heard.taken(), 1);
    let unmask = irqs(INTX, UNMASK | NONE, 0, 1, &[]);
    stand.function.set_pin(false);
    assert_eq!(session.set_irqs(unmask), Ok(0));
    assert_eq!(heard.taken(), 0, "it fell, though nobody said so yet");
    let host = stand.function.host().unwrap();
    host.interrupts.intx(true);
    assert_eq!(heard.taken(), 0, "a rise that is over");
    host.interrupts.intx(false);
    stand.function.pull_pin(true);
    assert_eq!(heard.taken(), 1);
    stand.function.pull_pin(false);
    stand.function.set_pin(true);
    assert_eq!(session.set_irqs(unmask), Ok(0));
    assert_eq!(heard.taken(), 1, "it rose, though nobody said so yet");
    host.interrupts.intx(true);
    assert_eq!(heard.taken(), 0, "the same rise");
    session.close();
}

#[test]
fn intx_disable_holds_the_pin_back() {
    let stand = Stand::new();
    let mut session = stand.bound();
    let (fd, heard) = session.client.open_eventfd();
    assert_eq!(hear(&session, INTX, 0, &[fd]), Ok(0));
    let command = session.config_word(4);
    session.set_config(4, &(command | 1 << 10).to_le_bytes());
    stand.function.pull_pin(true);
    assert_eq!(session.set_irqs(irqs(INTX, UNMASK | NONE, 0, 1, &[])), Ok(0));
    assert_eq!(heard.taken(), 0);
    session.set_config(4, &command.to_le_bytes());
    assert_eq!(heard.taken(), 1);
    assert!(stand.heard.unheard().is_empty());
    session.close();
}

#[test]
fn an_eventfd_unmasks_the_pin() {
    let watcher = Watcher::default();
    let settings = Settings { watch: Some(Arc::new(watcher.clone())), ..Settings::default() };
    let stand = Stand::shaped(Shape::default(), settings);
    let mut session = stand.bound();
    let (list, heard) = session.client.open_eventfds(2);
    let other = session.client.open_other();
    assert_eq!(hear(&session, INTX, 0, &list[..1]), Ok(0));
    let unmask_by = |fd: i32| session.set_irqs(irqs(INTX, UNMASK | EVENTFD, 0, 1, &fds(&[fd])));
    assert_eq!(unmask_by(99), Err(Errno::EBADF));
    assert_eq!(unmask_by(other), Err(Errno::EINVAL));
    assert_eq!(unmask_by(list[1]), Ok(0));
    assert_eq!(unmask_by(list[1]), Err(Errno::EBUSY));
    assert_eq!(unmask_by(99), Err(Errno::EBADF), "the descriptor first");
    assert_eq!(watcher.count(), 1);
    stand.function.pull_pin(true);
    assert_eq!(heard[0].taken(), 1);
    watcher.signal_first();
    assert_eq!(heard[0].taken(), 1, "heard again");
    let late = watcher.callbacks();
    assert_eq!(unmask_by(-1), Ok(0));
    assert_eq!(watcher.count(), 0);
    late[0]();
    assert_eq!(heard[0].taken(), 0, "a registration that ended unmasks nothing");
    assert_eq!(unmask_by(list[1]), Ok(0));
    late[0]();
    assert_eq!(heard[0].taken(), 0, "nor in the name of the next");
    assert_eq!(end(&session, INTX), Ok(0));
    assert_eq!(watcher.count(), 0);
    assert_eq!(hear(&session, INTX, 0, &list[..1]), Ok(0));
    assert_eq!(unmask_by(list[1]), Ok(0));
    stand.function.pull_pin(false);
    stand.function.pull_pin(true);
    heard[0].taken();
    late[0]();
    assert_eq!(heard[0].taken(), 0, "nor once the pin was set up anew");
    session.close();
    assert_eq!(watcher.count(), 0, "close ends the watch");
}

#[test]
fn a_pin_left_asserted_is_not_the_next_clients() {
    let stand = Stand::new();
    let session = stand.bound();
    stand.function.pull_pin(true);
    session.close();
    let mut session = stand.bound();
    let (fd, heard) = session.client.open_eventfd();
    assert_eq!(hear(&session, INTX, 0, &[fd]), Ok(0));
    assert_eq!(heard.taken(), 0);
    stand.function.pull_pin(true);
    assert_eq!(heard.taken(), 1);
    session.close();
}

#[test]
fn without_a_watcher_no_eventfd_unmasks() {
    let stand = Stand::new();
    let mut session = stand.bound();
    let (fd, _) = session.client.open_eventfd();
    assert_eq!(hear(&session, INTX, 0, &[fd]), Ok(0));
    let asked = irqs(INTX, UNMASK | EVENTFD, 0, 1, &[0; 4]);
    assert_eq!(session.set_irqs(asked), Err(Errno::ENOTTY));
    session.close();
}

#[test]
fn the_hosts_own_interrupts() {
    let stand = Stand::new();
    let mut session = stand.bound();
    let raise_of = |index| {
        if index == ERR { vfio::Device::signal_error } else { vfio::Device::request_release }
    };
    for index in [ERR, REQ] {
        let raise = raise_of(index);
        let (list, heard) = session.client.open_eventfds(2);
        assert!(!raise(&stand.device), "nobody hears it");
        assert_eq!(hear(&session, index, 0, &list[..1]), Ok(0));
        assert_eq!(hear(&session, index, 0, &list[1..]), Ok(0), "replaces");
        assert!(raise(&stand.device));
        assert_eq!(session.set_irqs(irqs(index, TRIGGER | NONE, 0, 1, &[])), Ok(0));
        assert_eq!(session.set_irqs(irqs(index, TRIGGER | BOOL, 0, 1, &[1])), Ok(0));
        assert_eq!(session.set_irqs(irqs(index, TRIGGER | BOOL, 0, 1, &[0])), Ok(0));
        assert_eq!([heard[0].taken(), heard[1].taken()], [0, 3]);
        assert_eq!(session.set_irqs(irqs(index, TRIGGER | NONE, 0, 0, &[])), Ok(0));
        assert!(!raise(&stand.device));
        assert_eq!(hear(&session, index, 0, &list[..1]), Ok(0));
        assert_eq!(hear(&session, index, 0, &[-1]), Ok(0));
        assert_eq!(hear(&session, index, 0, &[99]), Err(Errno::EBADF));
        assert!(!raise(&stand.device));
    }
    session.close();
}

#[test]
fn a_tdi_in_error_is_told_as_the_setting_says() {
    let stand = Stand::new();
    let mut session = stand.bound();
    let (list, heard) = session.client.open_eventfds(2);
    assert!(!stand.device.tdi_error(TdiErrorEvent::Err), "nobody hears it");
    assert_eq!(hear(&session, ERR, 0, &list[..1]), Ok(0));
    assert_eq!(hear(&session, REQ, 0, &list[1..]), Ok(0));
    for (event, expected) in
        [(TdiErrorEvent::Err, [1, 0]), (TdiErrorEvent::Req, [0, 1]), (TdiErrorEvent::None, [0, 0])]
    {
        assert_eq!(stand.device.tdi_error(event), expected != [0, 0], "{event:?}");
        assert_eq!([heard[0].taken(), heard[1].taken()], expected, "{event:?}");
    }
    session.close();
}

#[test]
fn setting_up_msix_does_not_need_decoding() {
    let stand = Stand::new();
    let mut session = stand.bound();
    let (fd, _) = session.client.open_eventfd();
    assert_eq!(session.write(config_position(4), &[0, 0]), Ok(2));
    assert_eq!(hear(&session, MSIX, 0, &[fd]), Ok(0));
    assert!(real_msix(&stand).1[0]);
    assert!(!stand.function.real_config().memory_enabled());
    session.close();
}

/// What was heard in an earlier set-up is masked in the next, so that it stays pending in the function.
#[test]
fn fewer_vectors_leave_none_of_the_earlier_ones_unmasked() {
    let stand = Stand::new();
    let mut session = stand.bound();
    let (list, _) = session.client.open_eventfds(4);
    assert_eq!(hear(&session, MSIX, 0, &list), Ok(0));
    assert_eq!(end(&session, MSIX), Ok(0));
    assert_eq!(hear(&session, MSIX, 0, &list[..1]), Ok(0));
    let (enabled, armed) = real_msix(&stand);
    assert!(enabled);
    assert_eq!(armed, [true, false, false, false, false, false, false, false]);
    session.close();
}

/// A function may be about to signal when its file is closed.
#[test]
fn a_signal_that_comes_after_the_close_is_nobodys() {
    let stand = Stand::new();
    let session = stand.bound();
    let late = stand.function.host().unwrap().interrupts;
    session.close();
    let before = stand.device.unheard_interrupts();
    late.msix(0);
    let mut session = stand.bound();
    let (fd, heard) = session.client.open_eventfd();
    assert_eq!(hear(&session, MSIX, 0, &[fd]), Ok(0));
    late.msix(0);
    assert_eq!(end(&session, MSIX), Ok(0));
    assert_eq!(hear(&session, INTX, 0, &[fd]), Ok(0));
    stand.function.set_pin(true);
    late.intx(true);
    assert_eq!((heard.taken(), stand.device.unheard_interrupts()), (0, before));
    stand.function.pull_pin(true);
    assert_eq!(heard.taken(), 1);
    session.close();
}
