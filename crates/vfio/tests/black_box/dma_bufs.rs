//! BARs as dma-bufs: lent, mapped for other devices, taken back.

use std::sync::Arc;

use iommufd::Context;
use mem::Pages;
use pci::regs::{cap_id, command, header, pm};
use uapi::iommufd::{IoasAlloc, IoasCopy, IoasMapFile, IoasUnmap, map_flags};
use uapi::vfio::{feature_flags, feature_id};
use uapi::{Command, CommandId, Errno};
use vfio::{DeviceFile, Settings};
use zerocopy::IntoBytes;

use crate::config_space::find;
use crate::support::{ARGUMENT, Client, Session, Shape, Stand, config_position};

const IOVA: u64 = 0x100_0000;
const PAGE: u64 = 0x1000;
/// A page of BAR 0 that is memory.
const MEMORY_AT: u64 = 0x1000;
/// Where registers begin in BAR 0.
const REGISTERS_AT: u64 = 0;
const SET: u32 = feature_flags::SET;

/// Two devices of one client: the first lends, the second reaches.
struct Pair {
    lender: Stand,
    other: Stand,
    pages: Arc<Pages>,
    session: Session,
    second: Arc<DeviceFile>,
    ioas: u32,
}

impl Pair {
    fn new() -> Self {
        Self::shaped(Shape::default())
    }

    fn shaped(shape: Shape) -> Self {
        let lender = Stand::shaped(shape, Settings::default());
        let address = pci::Address::new(0xb1d0, 3, 0, 0).unwrap();
        let other = lender.neighbour(address, false);
        let pages = lender.bar_pages();
        let shown = pages[0].clone().unwrap();
        let session = Session::bind(DeviceFile::open(&lender.device, pages).unwrap());
        let Session { client, file, context, iommufd, device_id } = session;
        let second = Session::bind_to(other.open(), client, context, iommufd);
        let mut ioas = IoasAlloc { size: 12, ..Default::default() };
        second.iommu_call(CommandId::IoasAlloc, &mut ioas).unwrap();
        let ioas = ioas.out_ioas_id;
        second.attach(ioas).unwrap();
        let Session { client, file: second, context, .. } = second;
        second_is_master(&second, &client);
        let session = Session { client, file, context, iommufd, device_id };
        Self { lender, other, pages: shown, session, second, ioas }
    }

    fn feature(&self, flags: u32, data: &[u8]) -> Result<u32, Errno> {
        let argsz = 8 + u32::try_from(data.len()).unwrap();
        let mut bytes = [argsz.to_le_bytes(), flags.to_le_bytes()].concat();
        bytes.extend(data);
        self.session.call_bytes(CommandId::DeviceFeature, &mut bytes)
    }

    /// Lends ranges of BAR 0.
    fn lend(&self, ranges: &[(u64, u64)]) -> u32 {
        let count = u32::try_from(ranges.len()).unwrap();
        let mut data: Vec<u8> =
            [0, 0, 0, count].iter().flat_map(|w: &u32| w.to_le_bytes()).collect();
        for (offset, length) in ranges {
            data.extend([offset.to_le_bytes(), length.to_le_bytes()].concat());
        }
        self.feature(feature_flags::GET | feature_id::DMA_BUF, &data).unwrap()
    }

    fn map(&self, fd: u32, start: u64, length: u64) -> Result<u32, Errno> {
        self.map_in(&self.session.context, self.ioas, fd, [start, length])
    }

    fn map_in(
        &self,
        context: &Arc<Context>,
        ioas_id: u32,
        fd: u32,
        [start, length]: [u64; 2],
    ) -> Result<u32, Errno> {
        let map = IoasMapFile {
            size: 40,
            flags: map_flags::FIXED_IOVA | map_flags::WRITEABLE | map_flags::READABLE,
            ioas_id,
            fd: fd.cast_signed(),
            start,
            length,
            iova: IOVA,
        };
        let client = &self.session.client;
        client.put(ARGUMENT, map.as_bytes());
        context.ioctl(client, Command::of(CommandId::IoasMapFile).request, ARGUMENT)
    }

    /// Maps the same again, at another address.
    fn copy(&self, to: u64) -> Result<u32, Errno> {
        let mut copy = IoasCopy {
            size: 40,
            flags: map_flags::FIXED_IOVA | map_flags::WRITEABLE | map_flags::READABLE,
            dst_ioas_id: self.ioas,
            src_ioas_id: self.ioas,
            length: PAGE,
            dst_iova: to,
            src_iova: IOVA,
        };
        self.session.iommu_call(CommandId::IoasCopy, &mut copy)
    }

    fn unmap(&self, length: u64) -> Result<u32, Errno> {
        let mut unmap = IoasUnmap { size: 24, ioas_id: self.ioas, iova: IOVA, length };
        self.session.iommu_call(CommandId::IoasUnmap, &mut unmap)
    }

    /// Maps a page of memory anew.
    fn map_again(&self, fd: u32) -> Result<u32, Errno> {
        let _ = self.unmap(PAGE);
        self.map(fd, 0, PAGE)
    }

    /// Whether the other device reaches the memory: what it writes is in the BAR.
    fn reaches(&self, iova: u64, bar_at: u64) -> bool {
        let dma = self.other.function.host().unwrap().dma;
        let bar_at = usize::try_from(bar_at).unwrap();
        let before = self.pages.load_u32(bar_at);
        let (asked, mut read) = (before.wrapping_add(1).to_le_bytes(), [0; 4]);
        if dma.write(iova, &asked).is_err() {
            assert_eq!(self.pages.load_u32(bar_at), before);
            assert!(dma.read(iova, &mut read).is_err());
            return false;
        }
        dma.read(iova, &mut read).unwrap();
        assert_eq!((read, self.pages.load_u32(bar_at).to_le_bytes()), (asked, asked));
        true
    }

    /// Whether a page that is lent and mapped is reached.
    fn is_reached(&self) -> bool {
        self.reaches(IOVA + 8, MEMORY_AT + 8)
    }

    fn set_command(&self, value: u16) {
        self.session.set_config(header::COMMAND, &value.to_le_bytes());
    }

    fn set_power(&self, state: u16) {
        let at = find(&self.session, cap_id::PM);
        self.session.set_config(at + pm::CONTROL, &state.to_le_bytes());
    }

    fn close(self) {
        self.session.file.release();
        self.second.release();
        self.session.context.put_file();
    }
}

fn second_is_master(file: &Arc<DeviceFile>, client: &Client) {
    let at = ARGUMENT + 0x1000;
    client.put(at, &(command::MEMORY | command::BUS_MASTER).to_le_bytes());
    let position = config_position(u64::from(header::COMMAND));
    assert_eq!(file.write(client, at, 2, position), Ok(2));
}

#[test]
fn another_device_reaches_a_bars_memory_and_no_registers() {
    let pair = Pair::new();
    let fd = pair.lend(&[(REGISTERS_AT, 0x4000)]);
    assert_eq!(pair.map(fd, 0, 0x4000 + 1), Err(Errno::EINVAL));
    assert_eq!(pair.map(fd, 0, 0x4000), Ok(0));
    pair.lender.function.accesses();
    for (at, reached) in [(0, false), (0x1000, true), (0x2ffc, true), (0x3000, false)] {
        assert_eq!(pair.reaches(IOVA + at, at), reached, "{at:#x}");
    }
    assert_eq!(pair.lender.function.accesses(), [""; 0], "no register was touched");
    pair.unmap(0x4000).unwrap();
    let fd = pair.lend(&[(MEMORY_AT, 2 * PAGE)]);
    pair.map(fd, PAGE, PAGE).unwrap();
    assert!(pair.reaches(IOVA, MEMORY_AT + PAGE));
    pair.close();
}

#[test]
fn several_ranges_are_lent_and_not_mapped() {
    let pair = Pair::new();
    let fd = pair.lend(&[(0, PAGE), (PAGE, PAGE)]);
    assert_eq!(pair.map(fd, 0, 2 * PAGE + 1), Err(Errno::EINVAL));
    assert_eq!(pair.map(fd, 0, 2 * PAGE), Err(Errno::EOPNOTSUPP));
    pair.set_command(0);
    assert_eq!(pair.map(fd, 0, 2 * PAGE), Err(Errno::ENODEV), "that it is taken back comes first");
    pair.close();
}

#[test]
fn it_is_taken_back_while_memory_is_not_decoded() {
    let pair = Pair::new();
    let fd = pair.lend(&[(MEMORY_AT, PAGE)]);
    pair.map(fd, 0, PAGE).unwrap();
    pair.set_command(command::MEMORY | command::BUS_MASTER);
    assert!(pair.is_reached(), "nothing changed");
    pair.set_command(0);
    assert!(!pair.is_reached());
    assert_eq!(pair.map_again(fd), Err(Errno::ENODEV));
    let second = pair.lend(&[(MEMORY_AT, PAGE)]);
    assert_eq!(pair.map_again(second), Err(Errno::ENODEV), "lent while memory is not decoded");
    pair.set_command(command::MEMORY);
    for fd in [fd, second] {
        assert_eq!(pair.map_again(fd), Ok(0));
        assert!(pair.is_reached());
    }
    pair.close();
}

#[test]
fn it_is_taken_back_wherever_it_was_mapped() {
    const COPY: u64 = IOVA + 0x10_0000;
    let pair = Pair::new();
    let fd = pair.lend(&[(MEMORY_AT, PAGE)]);
    pair.map(fd, 0, PAGE).unwrap();
    pair.copy(COPY).unwrap();
    assert!(pair.is_reached() && pair.reaches(COPY, MEMORY_AT));
    // Another address space of another context, by the same client.
    let third = pair.lender.neighbour(pci::Address::new(0xb1d0, 4, 0, 0).unwrap(), false);
    let other = third.bound();
    let mut ioas = IoasAlloc { size: 12, ..Default::default() };
    other.iommu_call(CommandId::IoasAlloc, &mut ioas).unwrap();
    other.attach(ioas.out_ioas_id).unwrap();
    pair.map_in(&other.context, ioas.out_ioas_id, fd, [0, PAGE]).unwrap();
    let dma = third.function.host().unwrap().dma;
    assert!(dma.read(IOVA, &mut [0; 4]).is_ok());
    pair.set_command(0);
    assert!(!pair.is_reached() && !pair.reaches(COPY, MEMORY_AT));
    assert!(dma.read(IOVA, &mut [0; 4]).is_err());
    other.close();
    pair.close();
}

#[test]
fn what_was_mapped_before_does_not_come_back() {
    let pair = Pair::new();
    let fd = pair.lend(&[(MEMORY_AT, PAGE)]);
    pair.map(fd, 0, PAGE).unwrap();
    pair.set_command(0);
    pair.set_command(command::MEMORY);
    assert!(!pair.is_reached());
    assert_eq!(pair.map(fd, 0, PAGE), Err(Errno::EEXIST), "the area is there");
    assert_eq!(pair.map_again(fd), Ok(0));
    assert!(pair.is_reached());
    pair.close();
}

#[test]
fn resets_take_it_back_and_lend_it_again() {
    let pair = Pair::new();
    let fd = pair.lend(&[(MEMORY_AT, PAGE)]);
    let hot_reset = [12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (id, argument) in
        [(CommandId::DeviceReset, &[0; 12]), (CommandId::DevicePciHotReset, &hot_reset)]
    {
        pair.map_again(fd).unwrap();
        assert!(pair.is_reached());
        assert_eq!(pair.session.call_bytes(id, &mut argument.clone()), Ok(0));
        pair.set_command(command::MEMORY);
        second_is_master(&pair.second, &pair.session.client);
        assert!(!pair.is_reached(), "{id:?}");
        assert_eq!(pair.map_again(fd), Ok(0), "{id:?}");
        assert!(pair.is_reached(), "{id:?}");
    }
    pair.close();
}

#[test]
fn power_states_take_it_back() {
    let pair = Pair::shaped(Shape { soft_reset: true, ..Shape::default() });
    let fd = pair.lend(&[(MEMORY_AT, PAGE)]);
    pair.map(fd, 0, PAGE).unwrap();
    pair.set_power(pm::D3HOT);
    assert!(!pair.is_reached());
    assert_eq!(pair.map_again(fd), Err(Errno::ENODEV));
    pair.set_power(0);
    assert_eq!(pair.map_again(fd), Ok(0));
    assert!(pair.is_reached());
    pair.close();
}

#[test]
fn low_power_takes_it_back() {
    let pair = Pair::new();
    let fd = pair.lend(&[(MEMORY_AT, PAGE)]);
    pair.map(fd, 0, PAGE).unwrap();
    assert_eq!(pair.feature(SET | feature_id::LOW_POWER_ENTRY, &[]), Ok(0));
    assert!(!pair.is_reached());
    assert_eq!(pair.map_again(fd), Err(Errno::ENODEV));
    assert_eq!(pair.feature(SET | feature_id::LOW_POWER_EXIT, &[]), Ok(0));
    assert_eq!(pair.map_again(fd), Ok(0));
    assert!(pair.is_reached());
    pair.close();
}

#[test]
fn it_outlives_the_device_and_leads_nowhere() {
    let pair = Pair::new();
    let fd = pair.lend(&[(MEMORY_AT, PAGE)]);
    pair.map(fd, 0, PAGE).unwrap();
    pair.session.file.release();
    assert!(!pair.is_reached());
    assert_eq!(pair.map_again(fd), Err(Errno::ENODEV));
    let again = pair.lender.bound();
    assert_eq!(pair.map_again(fd), Err(Errno::ENODEV), "another file's is another");
    again.close();
    pair.second.release();
    pair.session.context.put_file();
}

#[test]
fn its_mapping_outlives_its_file_and_follows_the_device() {
    let pair = Pair::new();
    let fd = pair.lend(&[(MEMORY_AT, PAGE)]);
    pair.map(fd, 0, PAGE).unwrap();
    pair.session.client.close_dma_buf(fd);
    assert!(pair.is_reached());
    assert_eq!(pair.map_again(fd), Err(Errno::EBADF));
    let fd = pair.lend(&[(MEMORY_AT, PAGE)]);
    pair.map(fd, 0, PAGE).unwrap();
    pair.session.client.close_dma_buf(fd);
    pair.set_command(0);
    assert!(!pair.is_reached());
    pair.close();
}
