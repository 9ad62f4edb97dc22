//! Config space as a client sees it.

use pci::regs::{
    CONVENTIONAL_SIZE, cap_id, command, doe, express, ext_id, header, msi, msix, pm, status,
};
use pci::walk;
use proptest::prelude::*;
use uapi::Errno;
use uapi::vfio::{irq_index, irq_set};
use vfio::{Doe, Settings, VirtualFunction};

use crate::support::{
    ARGUMENT, Irqs, MEMORY, MEMORY_SIZE, Session, Shape, Stand, config_position, fds, position,
};

/// All of config space.
fn dump(session: &Session) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    assert_eq!(session.read(config_position(0), &mut bytes), Ok(4096));
    bytes
}

fn read_from(dump: &[u8], offset: u16, into: &mut [u8]) {
    let at = usize::from(offset);
    into.copy_from_slice(&dump[at..at + into.len()]);
}

pub(crate) fn find(session: &Session, id: u8) -> u16 {
    let dump = dump(session);
    let found = walk::capabilities(|offset, into| read_from(&dump, offset, into));
    found.iter().find(|capability| capability.id == id).unwrap().offset
}

fn virtual_function() -> Stand {
    let virtual_function = VirtualFunction { vendor_id: 0x1234, device_id: 0x5679 };
    let settings = Settings { virtual_function: Some(virtual_function), ..Settings::default() };
    Stand::shaped(Shape { virtual_function: true, ..Shape::default() }, settings)
}

#[test]
fn hidden_capabilities_leave_the_chains() {
    let stand = Stand::new();
    let session = stand.bound();
    let real = stand.function.real_config();
    let before = walk::extended_capabilities(|offset, into| real.read(offset, into));
    let ids = |list: &[walk::ExtendedCapability]| -> Vec<u16> {
        list.iter().map(|capability| capability.id).collect()
    };
    let secured = [ext_id::DOE, ext_id::AER, ext_id::DOE, ext_id::DSN, ext_id::PASID, ext_id::IDE];
    assert_eq!(ids(&before), secured);
    let dump = dump(&session);
    let after = walk::extended_capabilities(|offset, into| read_from(&dump, offset, into));
    assert_eq!(ids(&after), [0, ext_id::AER, ext_id::DSN], "the first leaves its link behind");
    assert_eq!(after[0].version, 0);
    assert_eq!(after[1].offset, before[1].offset);
    let shown = walk::capabilities(|offset, into| read_from(&dump, offset, into));
    let shown: Vec<u8> = shown.iter().map(|capability| capability.id).collect();
    let all = [cap_id::PM, cap_id::VENDOR, cap_id::MSI, cap_id::EXPRESS, cap_id::MSIX];
    assert_eq!(shown, all);
    session.close();
}

#[test]
fn an_exposed_mailbox_is_in_the_chain_and_each_access_reaches_it_once() {
    let settings = Settings { doe: Doe::Exposed, ..Settings::default() };
    let stand = Stand::shaped(Shape::default(), settings);
    let session = stand.bound();
    let dump = dump(&session);
    let shown = walk::extended_capabilities(|offset, into| read_from(&dump, offset, into));
    let ids: Vec<u16> = shown.iter().map(|capability| capability.id).collect();
    assert_eq!(ids, [ext_id::DOE, ext_id::AER, ext_id::DOE, ext_id::DSN]);
    assert_eq!(shown[0].version, 2);
    for mailbox in [shown[0].offset, shown[2].offset] {
        stand.function.config_accesses();
        session.set_config(mailbox + doe::WRITE_MAILBOX, &[1, 2, 3, 4]);
        session.set_config(mailbox + doe::READ_MAILBOX, &[0; 4]);
        session.config_dword(mailbox + doe::READ_MAILBOX);
        session.config_dword(mailbox + doe::STATUS);
        let (write, read) = (mailbox + doe::WRITE_MAILBOX, mailbox + doe::READ_MAILBOX);
        let expected = [
            format!("write {write:#x} 4"),
            format!("write {read:#x} 4"),
            format!("read {read:#x} 4"),
            format!("read {:#x} 4", mailbox + doe::STATUS),
        ];
        assert_eq!(stand.function.config_accesses(), expected);
        session.set_config(mailbox, &[0; 4]);
        assert!(stand.function.config_accesses().is_empty(), "its header is the host's");
    }
    session.close();
}

#[test]
fn ends_of_config_space() {
    let stand = Stand::new();
    let session = stand.bound();
    let mut bytes = [0; 8];
    for (offset, count) in [(4096, 1), (4095, 2), (4092, 8), ((1 << 40) - 4, 4)] {
        let at = config_position(offset);
        assert_eq!(session.read(at, &mut bytes[..count]), Err(Errno::EFAULT));
        assert_eq!(session.write(at, &bytes[..count]), Err(Errno::EFAULT));
    }
    assert_eq!(session.read(config_position(4092), &mut bytes[..4]), Ok(4));
    let unreachable = session.file.read(&session.client, 0, 4, config_position(0));
    assert_eq!(unreachable, Err(Errno::EFAULT));
    session.close();
}

#[test]
fn a_write_that_faults_halfway_has_begun() {
    let stand = Stand::new();
    let session = stand.bound();
    let end = MEMORY + MEMORY_SIZE as u64;
    session.client.put(end - 4, &[0xff; 4]);
    let from = config_position(u64::from(header::BAR0) + 8);
    let written = session.file.write(&session.client, end - 4, 8, from);
    assert_eq!(written, Err(Errno::EFAULT));
    assert_eq!(session.config_dword(header::BAR0 + 8), 0xffff_f000);
    assert_eq!(session.config_dword(header::BAR0 + 12), 0);
    session.close();
}

#[test]
fn bars_size_and_keep_what_is_written() {
    let stand = Stand::new();
    let session = stand.bound();
    assert_eq!(session.config_dword(header::BAR0), 0x4000_000c, "the real address, to begin with");
    for (index, sized) in [
        (0, 0xffff_c00c),
        (1, u32::MAX),
        (2, 0xffff_f000),
        (3, 0xffff_ff00),
        (4, 0xffff_ffe1),
        (5, 0),
    ] {
        let at = header::BAR0 + 4 * index;
        session.set_config(at, &[0xff; 4]);
        assert_eq!(session.config_dword(at), sized, "BAR {index}");
        session.set_config(at, &0x1234_5678_u32.to_le_bytes());
        let flags = if index == 0 { 0xc } else { u32::from(index == 4) };
        let mask = if index == 1 { u32::MAX } else { sized & !0xf };
        let expected = 0x1234_5678 & (mask | if index == 4 { sized & !3 } else { 0 }) | flags;
        assert_eq!(session.config_dword(at), expected, "BAR {index}");
    }
    session.set_config(header::EXPANSION_ROM, &[0xff; 4]);
    assert_eq!(session.config_dword(header::EXPANSION_ROM), 0, "there is no ROM");
    assert_eq!(stand.function.real_config().dword(header::BAR0), 0x4000_000c, "not for the client");
    session.close();
}

#[test]
fn command_and_status() {
    let stand = Stand::new();
    let session = stand.bound();
    let decode = command::IO | command::MEMORY;
    assert_eq!(session.config_word(header::COMMAND), decode, "decoding, and no bus master");
    let all = decode | command::BUS_MASTER | command::INTX_DISABLE | command::PARITY;
    session.set_config(header::COMMAND, &all.to_le_bytes());
    assert_eq!(session.config_word(header::COMMAND), all);
    let real = stand.function.real_config().word(header::COMMAND);
    assert_eq!(real, all & !command::INTX_DISABLE, "INTx disable is ours");
    let before = session.config_word(header::STATUS);
    assert!(before & status::CAPABILITIES != 0);
    session.set_config(header::STATUS, &[0xff; 2]);
    session.set_config(header::COMMAND, &[0xff; 4]);
    assert_eq!(session.config_word(header::STATUS), before);
    session.set_config(header::INTERRUPT_LINE, &[5, 9]);
    assert_eq!(session.config_word(header::INTERRUPT_LINE), 0x0105, "the pin is read-only");
    assert_eq!(stand.function.real_config().byte(header::INTERRUPT_LINE), 0);
    session.close();
}

/// Error bits clear when one is written: a write beside them must not write back what was read.
#[test]
fn a_write_beside_error_bits_leaves_them() {
    let stand = Stand::new();
    let session = stand.bound();
    stand.function.raise_status(status::ERRORS);
    session.set_config(header::COMMAND, &[2, 0, 0, 0]);
    assert_eq!(session.config_word(header::STATUS) & status::ERRORS, status::ERRORS);
    session.close();
}

#[test]
fn a_virtual_function_looks_whole() {
    let stand = virtual_function();
    let session = stand.bound();
    assert_eq!(stand.function.real_config().dword(0), u32::MAX);
    assert_eq!(session.config_dword(0), 0x5679_1234);
    assert!(session.config_word(header::COMMAND) & command::MEMORY != 0);
    assert_eq!(session.config::<1>(u64::from(header::INTERRUPT_PIN)), [0]);
    session.set_config(header::BAR0, &[0xff; 8]);
    assert_eq!(session.config_dword(header::BAR0), 0xffff_c00c);
    session.set_config(header::COMMAND, &0_u16.to_le_bytes());
    assert_eq!(session.read(position(0, 0), &mut [0; 4]), Ok(4), "it always decodes");
    session.close();
}

#[test]
fn power_states() {
    let stand = Stand::new();
    let session = stand.bound();
    let at = find(&session, cap_id::PM);
    let control = session.config_word(at + pm::CONTROL);
    for state in [1_u16, 2] {
        session.set_config(at + pm::CONTROL, &(control | state).to_le_bytes());
        assert_eq!(session.config_word(at + pm::CONTROL), control, "there is no D{state}");
    }
    session.set_config(at + pm::CONTROL, &(control | pm::D3HOT | 0x8100).to_le_bytes());
    assert_eq!(session.config_word(at + pm::CONTROL), control | pm::D3HOT, "PME# is not ours");
    assert_eq!(session.read(position(0, 0), &mut [0; 4]), Err(Errno::EIO));
    session.set_config(at + pm::CONTROL, &control.to_le_bytes());
    assert_eq!(session.read(position(0, 0), &mut [0; 4]), Ok(4));
    assert_eq!(session.config_word(at + pm::CAPABILITIES) & 0xf800, 0);
    session.close();
}

#[test]
fn express_control() {
    let stand = Stand::new();
    let session = stand.bound();
    let at = find(&session, cap_id::EXPRESS);
    let (devctl, before) = (at + express::DEVCTL, session.config_word(at + express::DEVCTL));
    let real = || stand.function.real_config().word(devctl);
    let payload = real() & express::PAYLOAD;
    // The largest payload is virtual; the largest read request never falls below the real payload.
    let asked = before & !(express::PAYLOAD | express::READ_REQUEST) | 5 << 5 | 4 << 12;
    session.set_config(devctl, &asked.to_le_bytes());
    assert_eq!(session.config_word(devctl), asked);
    assert_eq!(real() & express::PAYLOAD, payload);
    assert_eq!(real() & express::READ_REQUEST, 4 << 12);
    stand.function.events();
    session.set_config(devctl, &(asked | express::INITIATE_FLR).to_le_bytes());
    assert_eq!(stand.function.events(), ["reset function"]);
    assert_eq!(session.config_word(devctl), asked, "the bit reads as zero");
    assert_eq!(real() & express::READ_REQUEST, 4 << 12, "a reset keeps what the host set");
    let link = session.config_word(at + express::LNKCTL);
    session.set_config(at + express::LNKCTL, &(!link).to_le_bytes());
    assert_eq!(session.config_word(at + express::LNKCTL), link, "the rest is read-only");
    session.close();

    let shape = Shape { function_level_reset: false, ..Shape::default() };
    let stand = Stand::shaped(shape, Settings::default());
    let session = stand.bound();
    stand.function.events();
    session.set_config(devctl, &express::INITIATE_FLR.to_le_bytes());
    assert!(stand.function.events().is_empty());
    assert_eq!(session.config_word(devctl) & express::INITIATE_FLR, 0);
    session.close();
}

#[test]
fn message_capabilities() {
    let stand = Stand::new();
    let mut session = stand.bound();
    let (msi_at, msix_at) = (find(&session, cap_id::MSI), find(&session, cap_id::MSIX));
    let control = session.config_word(msi_at + msi::CONTROL);
    session.set_config(msi_at + msi::CONTROL, &(control | msi::ENABLE).to_le_bytes());
    assert_eq!(session.config_word(msi_at + msi::CONTROL), control, "not before SET_IRQS");
    let many = control | 2 << msi::ENABLED_SHIFT;
    session.set_config(msi_at + msi::CONTROL, &many.to_le_bytes());
    assert_eq!(session.config_word(msi_at + msi::CONTROL), control, "nor more than one vector");
    session.set_config(msi_at + msi::ADDRESS, &[0x11; 10]);
    assert_eq!(session.config_dword(msi_at + msi::ADDRESS), 0x1111_1111);
    assert_eq!(stand.function.real_config().dword(msi_at + msi::ADDRESS), 0, "ours");
    session.set_config(msi_at + msi::MASK_64, &[0x3, 0, 0, 0]);
    assert_eq!(stand.function.real_config().msi().unwrap().masked, 3, "the function's");

    let (list, _) = session.client.open_eventfds(3);
    let data = fds(&list);
    let flags = irq_set::ACTION_TRIGGER | irq_set::DATA_EVENTFD;
    let irqs = Irqs { index: irq_index::MSI, flags, start: 0, count: 3, data: &data };
    assert_eq!(session.set_irqs(irqs), Ok(0));
    let real = stand.function.real_config().msi().unwrap();
    assert_eq!((real.enabled, real.vectors), (true, 4));
    let asked = control | msi::ENABLE | 7 << msi::ENABLED_SHIFT;
    session.set_config(msi_at + msi::CONTROL, &asked.to_le_bytes());
    let capped = control | msi::ENABLE | 2 << msi::ENABLED_SHIFT;
    assert_eq!(session.config_word(msi_at + msi::CONTROL), capped);
    session.set_config(msi_at + msi::CONTROL, &control.to_le_bytes());
    assert!(!stand.function.real_config().msi().unwrap().enabled);

    let before = session.config_word(msix_at + msix::CONTROL);
    session.set_config(msix_at + msix::CONTROL, &[0xff; 2]);
    assert_eq!(session.config_word(msix_at + msix::CONTROL), before, "wholly read-only");
    session.close();
}

/// Bytes that a client may change, or that may change by themselves when it writes elsewhere.
fn may_change(session: &Session) -> Vec<bool> {
    let mut may = vec![false; 4096];
    let mut mark = |at: u16, length: u16| {
        may[usize::from(at)..usize::from(at + length)].fill(true);
    };
    for (at, length) in [
        (header::COMMAND, 2),
        (header::CACHE_LINE_SIZE, 2),
        (header::BIST, 1),
        (header::BAR0, 24),
        (header::INTERRUPT_LINE, 1),
        (find(session, cap_id::PM) + pm::CONTROL, 2),
        (find(session, cap_id::VENDOR) + 2, 6),
        (find(session, cap_id::MSI) + msi::CONTROL, 1),
        (find(session, cap_id::MSI) + msi::ADDRESS, 20),
        (find(session, cap_id::EXPRESS) + express::DEVCTL, 2),
        (find(session, cap_id::EXPRESS) + express::DEVCTL2, 2),
    ] {
        mark(at, length);
    }
    let dump = dump(session);
    let extended = walk::extended_capabilities(|offset, into| read_from(&dump, offset, into));
    let aer = extended.iter().find(|capability| capability.id == ext_id::AER).unwrap();
    mark(aer.offset + 4, 24);
    // What is in no capability is the function's, and so may anything be.
    let owned = walk::capabilities(|offset, into| read_from(&dump, offset, into));
    let mut raw = vec![true; 4096];
    raw[..0x40].fill(false);
    raw[usize::from(CONVENTIONAL_SIZE)..][..4].fill(false);
    let extents = owned.iter().map(|capability| (capability.offset, capability.length));
    let extents = extents
        .chain(extended.iter().skip(1).map(|capability| (capability.offset, capability.length)));
    for (at, length) in extents {
        raw[usize::from(at)..usize::from(at + length.unwrap())].fill(false);
    }
    may.iter().zip(&raw).map(|(&may, &raw)| may || raw).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any writes anywhere: nothing panics, and what is read-only stays.
    #[test]
    fn read_only_bytes_never_change(
        writes in prop::collection::vec(
            (prop_oneof![0_u64..0x100, 0_u64..0x1010], prop::collection::vec(any::<u8>(), 0..64)),
            1..20,
        )
    ) {
        let stand = Stand::new();
        let session = stand.bound();
        let may = may_change(&session);
        let before = dump(&session);
        for (offset, bytes) in writes {
            let length = bytes.len() as u64;
            let fits = offset + length <= 4096 || length == 0;
            let expected = if fits { Ok(length) } else { Err(Errno::EFAULT) };
            prop_assert_eq!(session.write(config_position(offset), &bytes), expected);
        }
        let after = dump(&session);
        for (at, may) in may.iter().enumerate() {
            prop_assert!(*may || before[at] == after[at], "byte {:#x}", at);
        }
        session.close();
    }

    /// Reading in any pieces gives the same as reading at once.
    #[test]
    fn pieces_make_the_whole(offset in 0_u64..4096, length in 0_u64..64) {
        let stand = Stand::new();
        let session = stand.bound();
        let whole = dump(&session);
        let length = length.min(4096 - offset);
        let mut piece = vec![0; usize::try_from(length).unwrap()];
        prop_assert_eq!(session.read(config_position(offset), &mut piece), Ok(length));
        let at = usize::try_from(offset).unwrap();
        prop_assert_eq!(&piece[..], &whole[at..at + piece.len()]);
        session.close();
    }
}

#[test]
fn a_count_of_zero_reads_nothing() {
    let stand = Stand::new();
    let session = stand.bound();
    for at in [config_position(0), config_position(8192)] {
        assert_eq!(session.file.read(&session.client, ARGUMENT, 0, at), Ok(0));
    }
    session.close();
}
