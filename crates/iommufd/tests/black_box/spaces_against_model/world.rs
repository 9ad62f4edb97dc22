//! A program's address spaces and all that uses them, for real and in the model.

use std::sync::Arc;

use iommufd::Device;
use iommufd::mock::MockMachine;
use models::{Access, Spaces, Table, Target, Why};
use pci::Dma;
use uapi::iommufd::{
    IoasAllowIovas, IoasCopy, IoasIovaRanges, IommuOption, map_flags, option, option_op,
};
use uapi::{CommandId, Errno};

use super::steps::{Spot, Step};
use super::{
    ARRAY, DEVICES, IOVA, IOVA_STRIDE, IOVA_UNITS, SCRATCH, SPACES, UNIT, VA, VA_STRIDE, VA_UNITS,
};
use crate::support::test_command::{Long, op};
use crate::support::{Client, FIRST, MEMORY_END, PAGE, Platform};

/// The page tables of a space: one for each kind of device.
const PLAIN: (u32, Table) = (0, Table { smallest_page: 4096, aperture: (0, (1 << 48) - 1) });
const MOCK: (u32, Table) = (1, Table { smallest_page: 2048, aperture: (1 << 24, (1 << 31) - 1) });
/// What a device that is attached keeps free.
const MSI: (u64, u64) = (0xfee0_0000, 0xfeef_ffff);

/// Software that uses a space.
#[derive(Clone, Copy)]
struct User {
    fd: i32,
    space: usize,
}

pub(super) struct World {
    pub(super) client: Client,
    pub(super) devices: [Arc<Device>; DEVICES],
    spaces: [u32; SPACES],
    attached: [Option<usize>; DEVICES],
    mocks: Vec<(u32, usize)>,
    users: [User; 2],
    /// Whose, and which number.
    pins: Vec<(usize, u32)>,
    pub(super) model: Spaces,
    /// What is in its memory.
    memory: Vec<u8>,
    /// Where that begins, its addresses, its ranges, and what is copied.
    va: u64,
    iova: u64,
    array: u64,
    scratch: u64,
}

type Answer = Result<u64, Errno>;
type Modelled = Result<u64, Why>;

impl World {
    /// A program with nothing but what steps are about.
    pub(super) fn new() -> Self {
        Self::of(Client::open_mock(&MockMachine::new()), 0)
    }

    /// What a thread of a program has for itself alone.
    pub(super) fn of(client: Client, thread: u64) -> Self {
        let platform = Platform::new();
        let single = platform.bind(&client);
        let other = Device::bind(&client.ctx, &platform.pair[0]).unwrap();
        let spaces = [client.ioas(), client.ioas()];
        Self::with(client, thread, [single, other], spaces)
    }

    fn with(
        client: Client,
        thread: u64,
        devices: [Arc<Device>; DEVICES],
        spaces: [u32; SPACES],
    ) -> Self {
        let mut model = Spaces::new(SPACES, (FIRST, MEMORY_END));
        let users = [0, 1].map(|user| {
            let pins = user == 0;
            let fd = client.create_access(spaces[user], pins.into()).unwrap();
            model.add_software(user, user, pins).unwrap();
            User { fd, space: user }
        });
        let va = VA + thread * VA_STRIDE;
        let words = (va..va + VA_UNITS * UNIT).step_by(8);
        let memory: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
        client.memory.write(va, &memory).unwrap();
        Self {
            client,
            devices,
            spaces,
            attached: [None; DEVICES],
            mocks: Vec::new(),
            users,
            pins: Vec::new(),
            model,
            memory,
            va,
            iova: IOVA,
            array: ARRAY + thread * VA_STRIDE,
            scratch: SCRATCH + thread * VA_STRIDE,
        }
    }

    /// What a thread has that shares address spaces with others, each with a device: a window of addresses of its own.
    pub(super) fn in_window(
        client: Client,
        thread: u64,
        devices: &[Arc<Device>; DEVICES],
        spaces: [u32; SPACES],
    ) -> Self {
        let mut world = Self::with(client, thread, devices.clone(), spaces);
        world.iova += thread * IOVA_STRIDE;
        for device in 0..DEVICES {
            world.enter(device, false).unwrap();
            world.attached[device] = Some(device);
        }
        world
    }

    fn resolve(&self, space: usize, spot: Spot) -> u64 {
        match spot {
            Spot::At(at) => at - IOVA + self.iova,
            Spot::Area(nth, delta) => {
                let areas = self.model.areas(space);
                let area = areas.get(nth).or(areas.last());
                area.map_or(self.iova, |(first, _)| first.wrapping_add_signed(delta))
            }
        }
    }

    pub(super) fn take(&mut self, step: &Step) -> (Answer, Modelled) {
        match *step {
            Step::Map { space, target, memory, length, access } => {
                let own = memory < VA + VA_UNITS * UNIT;
                let memory = if own { memory - VA + self.va } else { memory };
                self.map(space, target, (memory, length), access)
            }
            Step::Copy { from, to, length, access } => self.copy(from, to, length, access),
            Step::Unmap { space, spot, length } => {
                let start = self.resolve(space, spot);
                let real = self.client.unmap(self.spaces[space], start, length);
                (real, self.model.unmap(space, start, length))
            }
            Step::UnmapAll { space } => {
                let real = self.client.unmap_all(self.spaces[space]);
                (real, Ok(self.model.unmap_all(space)))
            }
            Step::Allow { space, ref ranges } => self.allow(space, ranges),
            Step::Ranges { space, room } => self.ranges(space, room),
            Step::Reserve { space, start, length } => {
                let fields = [Long(16, start), Long(24, length)];
                let real = self.client.test(op::ADD_RESERVED, self.spaces[space], &fields);
                (real.map(|_| 0), self.model.reserve(space, start, length).map(|()| 0))
            }
            Step::LargePages { space, on } => self.large_pages(space, on),
            Step::Attach { device, space } => self.attach(device, space),
            Step::Detach { device } => {
                self.devices[device].detach();
                self.leave(device);
                (Ok(0), Ok(0))
            }
            Step::MakeMock { space } => self.make_mock(space),
            Step::EndMock { nth } => self.end_mock(nth),
            Step::Pin { user, spot, length, write } => self.pin(user, spot, length, write),
            Step::Unpin { nth } => self.unpin(nth),
            Step::CopyBySoftware { user, spot, length, write } => {
                self.copy_by_software(user, spot, length, write)
            }
            Step::MoveSoftware { user, space } => {
                let User { fd, space: from } = self.users[user];
                let real = self.client.access_replace(fd, self.spaces[space]);
                let modelled = self.model.move_software(from, space, user);
                if modelled.is_ok() {
                    self.users[user].space = space;
                }
                (real.map(|()| 0), modelled.map(|()| 0))
            }
            Step::Dma { device, spot, write } => self.dma(device, spot, write),
        }
    }

    fn map(
        &mut self,
        space: usize,
        target: Option<Spot>,
        memory: (u64, u64),
        access: Access,
    ) -> (Answer, Modelled) {
        let (flags, iova, target) = self.target(space, target, access);
        let real = self.client.map(self.spaces[space], flags, iova, memory.0, memory.1);
        (real, self.model.map(space, target, memory, access))
    }

    fn copy(
        &mut self,
        (from_space, from): (usize, Spot),
        (space, target): (usize, Option<Spot>),
        length: u64,
        access: Access,
    ) -> (Answer, Modelled) {
        let from = self.resolve(from_space, from);
        let (flags, dst_iova, target) = self.target(space, target, access);
        let argument = IoasCopy {
            flags,
            dst_ioas_id: self.spaces[space],
            src_ioas_id: self.spaces[from_space],
            length,
            dst_iova,
            src_iova: from,
            ..IoasCopy::default()
        };
        let real = self.client.call(CommandId::IoasCopy, argument).map(|answer| answer.dst_iova);
        (real, self.model.copy((from_space, from), length, (space, target), access))
    }

    fn target(&self, space: usize, target: Option<Spot>, access: Access) -> (u32, u64, Target) {
        let read = if access.read { map_flags::READABLE } else { 0 };
        let write = if access.write { map_flags::WRITEABLE } else { 0 };
        match target.map(|spot| self.resolve(space, spot)) {
            Some(at) => (read | write | map_flags::FIXED_IOVA, at, Target::Fixed(at)),
            None => (read | write, 0, Target::Chosen),
        }
    }

    fn allow(&mut self, space: usize, ranges: &[(u64, u64)]) -> (Answer, Modelled) {
        for (index, (start, last)) in (0..).zip(ranges) {
            let bytes = [start.to_ne_bytes(), last.to_ne_bytes()].concat();
            self.client.memory.write(self.array + index * 16, &bytes).unwrap();
        }
        let argument = IoasAllowIovas {
            ioas_id: self.spaces[space],
            num_iovas: u32::try_from(ranges.len()).unwrap(),
            allowed_iovas: self.array,
            ..IoasAllowIovas::default()
        };
        let real = self.client.call(CommandId::IoasAllowIovas, argument);
        (real.map(|_| 0), self.model.allow(space, ranges).map(|()| 0))
    }

    fn ranges(&self, space: usize, room: u32) -> (Answer, Modelled) {
        let argument = IoasIovaRanges {
            ioas_id: self.spaces[space],
            num_iovas: room,
            allowed_iovas: self.array,
            ..IoasIovaRanges::default()
        };
        let real = self.client.call(CommandId::IoasIovaRanges, argument).map(|_| 0);
        let answer: IoasIovaRanges = self.client.struct_now();
        let ranges = self.model.ranges(space);
        assert_eq!(answer.num_iovas as usize, ranges.len());
        assert_eq!(answer.out_iova_alignment, self.model.alignment(space));
        for (index, range) in (0..u64::from(room)).zip(&ranges) {
            let mut ends = [0; 16];
            self.client.memory.read(self.array + index * 16, &mut ends).unwrap();
            let told = ends.as_chunks().0.iter().copied().map(u64::from_ne_bytes);
            assert_eq!(told.collect::<Vec<_>>(), [range.0, range.1]);
        }
        let fits = ranges.len() <= room as usize;
        (real, if fits { Ok(0) } else { Err(Why::MessageSize) })
    }

    fn large_pages(&mut self, space: usize, on: bool) -> (Answer, Modelled) {
        let argument = IommuOption {
            option_id: option::HUGE_PAGES,
            op: option_op::SET,
            object_id: self.spaces[space],
            val64: on.into(),
            ..IommuOption::default()
        };
        let real = self.client.call(CommandId::IommuOption, argument);
        (real.map(|_| 0), self.model.set_large_pages(space, on).map(|()| 0))
    }

    fn attach(&mut self, device: usize, space: usize) -> (Answer, Modelled) {
        let real = self.devices[device].attach(self.spaces[space]);
        let real = real.map(|_| 0).map_err(|refusal| refusal.errno());
        if self.attached[device] == Some(space) {
            return (real, Ok(0));
        }
        let modelled = self.enter(space, self.attached[device].is_some());
        if modelled.is_ok() {
            self.leave(device);
            self.attached[device] = Some(space);
        }
        (real, modelled.map(|()| 0))
    }

    /// A device comes to a space, in the model: from elsewhere, or from nowhere.
    fn enter(&mut self, space: usize, from_elsewhere: bool) -> Result<(), Why> {
        let (name, table) = PLAIN;
        let model = &mut self.model;
        let there = model.has_table(space, name);
        if there {
            return model.add_device_range(space, MSI);
        }
        // One that comes from elsewhere comes to a page table that is made before.
        if from_elsewhere {
            model.add_table(space, name, table)?;
            return model
                .add_device_range(space, MSI)
                .inspect_err(|_| model.remove_table(space, name));
        }
        model.add_device_range(space, MSI)?;
        model.add_table(space, name, table).inspect_err(|_| model.remove_device_range(space, MSI))
    }

    /// The device is no longer where it was, in the model.
    fn leave(&mut self, device: usize) {
        let Some(space) = self.attached[device].take() else { return };
        self.model.remove_device_range(space, MSI);
        if !self.attached.contains(&Some(space)) {
            self.model.remove_table(space, PLAIN.0);
        }
    }

    fn make_mock(&mut self, space: usize) -> (Answer, Modelled) {
        let real = self.client.mock_device(self.spaces[space]);
        let (name, table) = MOCK;
        let there = self.model.has_table(space, name);
        let modelled = if there { Ok(()) } else { self.model.add_table(space, name, table) };
        if let Ok([stdev, ..]) = real {
            self.mocks.push((stdev, space));
        }
        (real.map(|_| 0), modelled.map(|()| 0))
    }

    fn end_mock(&mut self, nth: usize) -> (Answer, Modelled) {
        if nth >= self.mocks.len() {
            return (Ok(0), Ok(0));
        }
        let (stdev, space) = self.mocks.remove(nth);
        let real = self.client.destroy(stdev);
        if self.mocks.iter().all(|(_, other)| *other != space) {
            self.model.remove_table(space, MOCK.0);
        }
        (real.map(|()| 0), Ok(0))
    }

    fn pin(&mut self, user: usize, spot: Spot, length: u64, write: bool) -> (Answer, Modelled) {
        let User { fd, space } = self.users[user];
        let start = self.resolve(space, spot);
        let real = self.client.access_pin(fd, write.into(), [start, length, 0]);
        if user != 0 {
            // It said that it would not pin.
            assert_eq!(real, Err(Errno::EOPNOTSUPP));
            return (Ok(0), Ok(0));
        }
        let number = real.unwrap_or(u32::MAX);
        let modelled = self.model.pin((space, user), number, (start, length), write);
        if real.is_ok() {
            self.pins.push((user, number));
        }
        (real.map(|_| 0), modelled.map(|()| 0))
    }

    fn unpin(&mut self, nth: usize) -> (Answer, Modelled) {
        if nth >= self.pins.len() {
            return (Ok(0), Ok(0));
        }
        let (user, number) = self.pins.remove(nth);
        let User { fd, space } = self.users[user];
        let real = self.client.access_unpin(fd, number);
        (real.map(|()| 0), self.model.unpin((space, user), number).map(|()| 0))
    }

    fn copy_by_software(
        &mut self,
        user: usize,
        spot: Spot,
        length: u64,
        write: bool,
    ) -> (Answer, Modelled) {
        let User { fd, space } = self.users[user];
        let start = self.resolve(space, spot);
        let filled = vec![if write { 0x5a } else { 0 }; usize::try_from(length).unwrap()];
        self.client.memory.write(self.scratch, &filled).unwrap();
        let real = self.client.access_copy(fd, write.into(), [start, length, self.scratch]);
        let modelled = self.model.copy_by_software(space, (start, length), write);
        if real.is_ok() {
            for offset in (0..length).step_by(512) {
                let right = Access { read: !write, write };
                let memory = self.model.translate(space, start + offset, right).unwrap();
                let [mut there, mut copied] = [[0; 8]; 2];
                self.client.memory.read(memory, &mut there).unwrap();
                self.client.memory.read(self.scratch + offset, &mut copied).unwrap();
                assert_eq!(there, copied, "{offset:#x} from {start:#x}");
            }
        }
        if write {
            self.client.memory.write(self.va, &self.memory).unwrap();
        }
        (real.map(|()| 0), modelled.map(|()| 0))
    }

    /// An access by a device: it is answered by the memory that the model says, or not at all.
    fn dma(&self, device: usize, spot: Spot, write: bool) -> (Answer, Modelled) {
        let Some(space) = self.attached[device] else { return (Ok(0), Ok(0)) };
        let iova = self.resolve(space, spot);
        let leads_to = self.model.translate(space, iova, Access { read: !write, write });
        let memory = &self.client.memory;
        let mut bytes = [0x77; 8];
        let reached = match write {
            true => self.devices[device].write(iova, &bytes).is_ok(),
            false => self.devices[device].read(iova, &mut bytes).is_ok(),
        };
        assert_eq!(reached, leads_to.is_some(), "DMA at {iova:#x}");
        if let Some(at) = leads_to {
            let mut there = [0; 8];
            memory.read(at, &mut there).unwrap();
            assert_eq!(there, bytes, "DMA at {iova:#x}");
            if write {
                memory.write(self.va, &self.memory).unwrap();
            }
        }
        (Ok(0), Ok(0))
    }

    /// Compares all that the two sides have.
    pub(super) fn check(&self) {
        for page in (self.va / PAGE)..(self.va + VA_UNITS * UNIT) / PAGE {
            let pins = u32::try_from(self.model.pins(page)).unwrap();
            let checked = self.client.check_refs(page * PAGE, PAGE, pins);
            assert_eq!(checked, Ok(()), "page {page:#x} is not pinned {pins} times");
        }
        for space in 0..SPACES {
            let (_, alignment) = self.client.ranges(self.spaces[space]);
            assert_eq!(alignment, self.model.alignment(space));
        }
        for device in 0..DEVICES {
            for page in 0..IOVA_UNITS / 4 {
                let _ = self.dma(device, Spot::At(IOVA + page * PAGE), false);
            }
        }
    }

    pub(super) fn end_users(&self) {
        for user in self.users {
            self.client.access_file(user.fd).unwrap().release();
        }
    }

    pub(super) fn end(self) {
        self.end_users();
        self.devices.iter().for_each(Device::end);
        self.client.ctx.put_file();
        assert_eq!(self.client.memory.pinned(), []);
    }
}
