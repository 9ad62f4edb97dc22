//! The window that a vIOMMU of the mock has where the client gives data.

use std::sync::Arc;

use iommufd::mock::MockMachine;
use iommufd::{Resource, WINDOWS_BYTES};
use uapi::iommufd::ViommuAlloc;
use uapi::{CommandId, Errno};

use crate::support::mock_nest::{AT as DATA, HARDWARE};
use crate::support::{Client, MockNest, PAGE, RunningOut};

const NOWHERE: u64 = 8;
const IN: u32 = 0xbeef;

struct World {
    client: Client,
    device: u32,
    parent: u32,
}

impl World {
    fn new() -> Self {
        Self::of(MockNest::new())
    }

    fn of(nest: MockNest) -> Self {
        let MockNest { client, device, parent, .. } = nest;
        Self { client, device, parent }
    }

    fn viommu(&self, data_uptr: u64, data_len: u32) -> Result<u32, Errno> {
        self.client.memory.write(DATA, &[IN.to_ne_bytes(), [0xff; 4]].concat()).unwrap();
        let (dev_id, hwpt_id) = (self.device, self.parent);
        let argument = ViommuAlloc {
            r#type: HARDWARE,
            dev_id,
            hwpt_id,
            data_uptr,
            data_len,
            ..ViommuAlloc::default()
        };
        self.client.call(CommandId::ViommuAlloc, argument).map(|answer| answer.out_viommu_id)
    }

    /// What the client was told: the word, the offset and the length.
    fn told(&self) -> (u32, u64, u64) {
        let mut bytes = [0; 24];
        self.client.memory.read(DATA, &mut bytes).unwrap();
        let long = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        (u32::from_ne_bytes(bytes[4..8].try_into().unwrap()), long(8), long(16))
    }
}

#[test]
fn a_window_begins_with_what_the_client_gave_and_goes_with_its_viommu() {
    let world = World::new();
    let first = world.viommu(DATA, 24).unwrap();
    let (word, offset, length) = world.told();
    assert_eq!((word, offset, length), (IN, PAGE, 2 * PAGE));
    let bytes = world.client.window(offset).unwrap();
    assert_eq!((bytes.len() as u64, &bytes[..4]), (length, &IN.to_ne_bytes()[..]));
    assert!(bytes[4..].iter().all(|byte| *byte == 0));
    assert!(world.client.ctx.has_window(offset, length));
    let second = world.viommu(DATA, 24).unwrap();
    assert_eq!(world.told().1, 3 * PAGE);
    assert_eq!(world.client.destroy(first), Ok(()));
    assert!(!world.client.ctx.has_window(offset, length));
    world.viommu(DATA, 24).unwrap();
    assert_eq!(world.told().1, PAGE, "the lowest that is free");
    assert_eq!(world.client.destroy(second), Ok(()));
}

#[test]
fn a_viommu_stays_while_its_window_is_mapped() {
    let world = World::new();
    let viommu = world.viommu(DATA, 24).unwrap();
    world.client.map_window(Some(PAGE));
    assert_eq!(world.client.destroy(viommu), Err(Errno::EBUSY));
    world.client.map_window(None);
    assert_eq!(world.client.destroy(viommu), Ok(()));
}

#[test]
fn data_are_refused_in_order_and_leave_no_window() {
    let world = World::new();
    let refused = [(DATA, 7), (DATA, 25), (NOWHERE, 7), (NOWHERE, 24)]
        .map(|(at, length)| world.viommu(at, length).unwrap_err());
    assert_eq!(refused, [Errno::EINVAL, Errno::EINVAL, Errno::EINVAL, Errno::EFAULT]);
    world.client.memory.write(DATA, &[0; 24]).unwrap();
    world.viommu(DATA, 8).unwrap();
    assert_eq!(world.told(), (IN, 0, 0), "only what the client has is written");
    world.viommu(DATA, 24).unwrap();
    assert_eq!(world.told().1, 3 * PAGE, "only the first that was had is taken");
}

#[test]
fn windows_end() {
    let world = World::new();
    let count = (WINDOWS_BYTES / PAGE - 1) / 2;
    let made = (0..count).filter(|_| world.viommu(DATA, 24).is_ok()).count();
    assert_eq!(made as u64, count);
    assert_eq!(world.viommu(DATA, 24), Err(Errno::ENOMEM));
    assert!(world.viommu(DATA, 0).is_ok());
}

#[test]
fn a_viommu_with_a_window_runs_out_step_by_step() {
    let quota = RunningOut::new();
    let machine = MockMachine::under(Arc::clone(&quota) as _);
    let world = World::of(MockNest::of(Client::open_mock(&machine)));
    let before = world.client.ctx.counts();
    for (nth, resource) in (1..).zip([Resource::Object, Resource::Buffer]) {
        quota.at(nth);
        assert_eq!(world.viommu(DATA, 24), Err(Errno::ENOMEM), "{resource:?}");
        assert_eq!(quota.call_off(), Some(resource));
        assert_eq!(world.client.ctx.counts(), before, "{resource:?}");
        assert!(!world.client.ctx.has_window(PAGE, 2 * PAGE), "{resource:?}");
    }
    quota.at(3);
    world.viommu(DATA, 24).unwrap();
    assert_eq!((quota.call_off(), world.told().1), (None, PAGE));
}
