//! Files of events: page faults that a client answers, and what a guest hears of its devices.

use uapi::iommufd::{FaultAlloc, HwptAlloc, hwpt_flags};
use uapi::{CommandId, Errno};

use crate::support::mock_nest::AT;
use crate::support::test_command::{Word, op};
use crate::support::{Client, MockNest};

const GUEST_ID: u32 = 0x99;
const FAULT: u64 = 40;
const ANSWER: u64 = 8;
const EVENT: u64 = 12;

struct World {
    nest: MockNest,
    viommu: u32,
}

impl World {
    fn new() -> Self {
        let nest = MockNest::new();
        let viommu = nest.viommu();
        nest.client.vdevice(viommu, nest.device, GUEST_ID.into()).unwrap();
        Self { nest, viommu }
    }

    fn client(&self) -> &Client {
        &self.nest.client
    }

    /// Attaches the device to a page table behind the vIOMMU, with a fault queue if there is one.
    fn attach_nested(&self, faults: Option<u32>) {
        let argument = HwptAlloc {
            flags: if faults.is_some() { hwpt_flags::FAULT_ID_VALID } else { 0 },
            fault_id: faults.unwrap_or(0),
            dev_id: self.nest.device,
            pt_id: self.viommu,
            ..HwptAlloc::default()
        };
        let table = self.client().nested_as(argument).unwrap();
        self.nest.attach(table).unwrap();
    }

    fn fault(&self) {
        let fields = [Word(16, self.nest.device), Word(20, 1), Word(24, 2), Word(28, 3)];
        self.client().test(op::TRIGGER_IOPF, 0, &fields).unwrap();
    }

    fn word(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.client().memory.read(AT + at, &mut bytes).unwrap();
        u32::from_ne_bytes(bytes)
    }

    fn answer(&self, cookie: u32, code: u32) -> Result<u64, Errno> {
        let words = [cookie, code].map(u32::to_ne_bytes).concat();
        self.client().memory.write(AT, &words).unwrap();
        self.client().event_file().write(self.client(), AT, ANSWER)
    }

    fn queue(&self, depth: u32) -> Result<u32, Errno> {
        self.client().event_queue(self.viommu, depth)
    }
}

#[test]
fn faults_are_read_whole_and_answered_once() {
    let world = World::new();
    let queue = world.client().call(CommandId::FaultQueueAlloc, FaultAlloc::default()).unwrap();
    world.attach_nested(Some(queue.out_fault_id));
    let file = world.client().event_file();
    let read = |count| file.read(world.client(), AT, count);
    assert_eq!((read(FAULT), file.is_readable()), (Ok(0), false));
    world.fault();
    world.fault();
    assert!(file.is_readable());
    assert_eq!([read(0), read(FAULT - 1)], [Err(Errno::EINVAL), Err(Errno::ESPIPE)]);
    assert_eq!(file.read(world.client(), 0, FAULT), Err(Errno::EFAULT));
    assert_eq!(read(3 * FAULT), Ok(2 * FAULT));
    assert_eq!([4, 8, 12, 16, 36].map(|at| world.word(at)), [world.nest.device, 1, 2, 3, 1]);
    assert_eq!(world.word(FAULT + 36), 2, "the second cookie");
    assert_eq!([world.answer(1, 2), world.answer(3, 0)], [Err(Errno::EINVAL); 2]);
    assert_eq!([world.answer(1, 0), world.answer(1, 0)], [Ok(ANSWER), Err(Errno::EINVAL)]);
    world.nest.attach(world.nest.ioas).unwrap();
    assert_eq!(world.answer(2, 0), Err(Errno::EINVAL), "answered as the device left");
}

#[test]
fn a_queue_goes_after_its_file_and_its_page_tables() {
    let world = World::new();
    let queue = world.client().call(CommandId::FaultQueueAlloc, FaultAlloc::default()).unwrap();
    assert_eq!(world.client().destroy(queue.out_fault_id), Err(Errno::EBUSY));
    world.client().event_file().release();
    world.client().event_file().release();
    assert_eq!(world.client().destroy(queue.out_fault_id), Ok(()));
}

#[test]
fn events_are_numbered_and_lost_ones_told() {
    let world = World::new();
    assert_eq!([world.queue(0), world.queue((1 << 19) + 1)], [Err(Errno::EINVAL); 2]);
    let queue = world.queue(2).unwrap();
    assert_eq!(world.queue(2), Err(Errno::EEXIST));
    assert_eq!(world.nest.event(), Err(Errno::ENOENT), "not behind the vIOMMU yet");
    world.attach_nested(None);
    let file = world.client().event_file();
    let read = |count| file.read(world.client(), AT, count);
    assert_eq!([read(7), read(8)], [Err(Errno::EINVAL), Ok(0)]);
    (0..3).for_each(|_| world.nest.event().unwrap());
    assert_eq!(read(8), Err(Errno::EINVAL));
    assert_eq!(read(64), Ok(2 * EVENT + 8));
    assert_eq!([0, 4, 8, 12, 16, 20].map(|at| world.word(at)), [0, 0, GUEST_ID, 0, 1, GUEST_ID]);
    assert_eq!([24, 28].map(|at| world.word(at)), [1, 2], "what was lost");
    assert_eq!(
        (file.is_readable(), file.write(world.client(), AT, 8)),
        (false, Err(Errno::EINVAL))
    );
    assert_eq!(world.client().destroy(queue), Err(Errno::EBUSY));
    file.release();
    assert_eq!(world.client().destroy(queue), Ok(()));
    assert_eq!(world.nest.event(), Err(Errno::EOPNOTSUPP), "no queue");
}
