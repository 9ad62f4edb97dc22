//! DMA of a bound device: where it goes, and where exactly it stops.

use pci::{Dma, DmaAccess, DmaFault, DmaFaultReason};
use uapi::iommufd::map_flags;

use crate::support::{Client, PAGE, PAGE_BYTES, Platform};

const VA: u64 = 0x10_0000;
const FIXED: u32 = map_flags::FIXED_IOVA;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 251).to_le_bytes()[0]).collect()
}

#[test]
fn bytes_cross_areas_and_pieces() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    // Neighbours to the device, far apart and in another order in memory.
    client.map_at(ioas, 0x1000, VA + 0x10_0000, 2 * PAGE).unwrap();
    device.attach(ioas).unwrap();
    client.map_at(ioas, 0x3000, VA, 40 * PAGE).unwrap();
    let sent = pattern(30 * PAGE_BYTES + 17);
    device.write(0x1ff5, &sent).unwrap();
    let mut back = vec![0; sent.len()];
    device.read(0x1ff5, &mut back).unwrap();
    assert_eq!(back, sent);
    let mut head = vec![0; 0x100b];
    client.memory.read(VA + 0x10_0ff5, &mut head).unwrap();
    assert_eq!(head, sent[..head.len()]);
    let mut rest = vec![0; sent.len() - head.len()];
    client.memory.read(VA, &mut rest).unwrap();
    assert_eq!(rest, sent[head.len()..]);
}

#[test]
fn a_fault_names_the_first_byte_refused_and_is_told_once() {
    let client = Client::open();
    let platform = Platform::new();
    let device = platform.bind(&client);
    let ioas = client.ioas();
    let fault = |iova, access, reason| DmaFault { iova, access, reason };
    let mut expected = Vec::new();
    let mut expect = |answer: Result<(), DmaFault>, fault: DmaFault| {
        assert_eq!(answer, Err(fault));
        expected.push((platform.single.address(), fault));
    };
    let mut bytes = [0; 0x3000];
    let unattached = fault(0x10, DmaAccess::Write, DmaFaultReason::NotAttached);
    expect(device.write(0x10, &bytes), unattached);
    device.attach(ioas).unwrap();
    client.map(ioas, FIXED | map_flags::READABLE, 0x1000, VA, PAGE).unwrap();
    client.map(ioas, FIXED | map_flags::WRITEABLE, 0x2000, VA, PAGE).unwrap();
    let hole = fault(0xfff, DmaAccess::Read, DmaFaultReason::NotMapped);
    expect(device.read(0xfff, &mut bytes[..1]), hole);
    let write_only = fault(0x2000, DmaAccess::Read, DmaFaultReason::Permission);
    expect(device.read(0x1800, &mut bytes), write_only);
    let read_only = fault(0x1fff, DmaAccess::Write, DmaFaultReason::Permission);
    expect(device.write(0x1fff, &bytes[..1]), read_only);
    let past = fault(0x3000, DmaAccess::Write, DmaFaultReason::NotMapped);
    expect(device.write(0x2ffe, &bytes[..3]), past);
    let top = fault(u64::MAX, DmaAccess::Write, DmaFaultReason::NotMapped);
    expect(device.write(u64::MAX, &bytes[..2]), top);
    assert_eq!(platform.heard.faults(), expected);
    let faults = client.ctx.counts().dma_faults;
    assert_eq!(faults[&DmaFaultReason::NotMapped], 3);
    assert_eq!(faults[&DmaFaultReason::Permission], 2);
    assert_eq!(faults[&DmaFaultReason::NotAttached], 1);
}

#[test]
fn an_access_that_passes_the_top_faults_at_zero() {
    let mut geometry = crate::support::plain();
    geometry.aperture = span::Span::WHOLE;
    let client = Client::open();
    let device = Platform::behind(geometry).bind(&client);
    let ioas = client.ioas();
    device.attach(ioas).unwrap();
    client.map_at(ioas, u64::MAX - 0xfff, VA, PAGE).unwrap();
    device.write(u64::MAX - 1, &[1, 2]).unwrap();
    let fault = device.write(u64::MAX - 1, &[3, 4, 5]).unwrap_err();
    assert_eq!((fault.iova, fault.reason), (0, DmaFaultReason::NotMapped));
}

#[test]
fn no_byte_is_no_access() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    device.write(0xdead, &[]).unwrap();
}

#[test]
fn memory_that_its_owner_took_away_faults_at_its_first_page() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    device.attach(ioas).unwrap();
    client.map_at(ioas, 0x8000, VA, 8 * PAGE).unwrap();
    client.memory.take_away(VA + 3 * PAGE..VA + 4 * PAGE);
    let fault = device.write(0x8800, &[9; 6 * PAGE_BYTES]).unwrap_err();
    let expected =
        DmaFault { iova: 0xb000, access: DmaAccess::Write, reason: DmaFaultReason::MemoryGone };
    assert_eq!(fault, expected);
    let mut written = [0; 1];
    client.memory.read(VA + 3 * PAGE - 1, &mut written).unwrap();
    assert_eq!(written, [9]);
    device.write(0xc000, &[1; 64]).unwrap();
    assert_eq!(device.write(0xb123, &[1]).unwrap_err().iova, 0xb123);
}

#[test]
fn what_is_unmapped_detached_or_ended_faults() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    client.map_at(ioas, 0x1000, VA, PAGE).unwrap();
    let write = || device.write(0x1000, &[1]).map_err(|fault| fault.reason);
    device.attach(ioas).unwrap();
    assert_eq!(write(), Ok(()));
    client.unmap_all(ioas).unwrap();
    assert_eq!(write(), Err(DmaFaultReason::NotMapped));
    device.detach();
    assert_eq!(write(), Err(DmaFaultReason::NotAttached));
    device.end();
    assert_eq!(write(), Err(DmaFaultReason::NotAttached));
}
