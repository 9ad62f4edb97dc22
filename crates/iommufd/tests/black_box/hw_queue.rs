//! Hardware queues of the mock, lent to a guest.

use uapi::iommufd::HwQueueAlloc;
use uapi::{CommandId, Errno};

use crate::support::mock_nest::HARDWARE;
use crate::support::{Client, MockNest, PAGE};

const TYPE: u32 = HARDWARE;
const VA: u64 = 0x10_0000;
const IOVA: u64 = 0x100_0000;

struct World {
    client: Client,
    ioas: u32,
    viommu: u32,
}

impl World {
    fn new() -> Self {
        let nest = MockNest::new();
        let viommu = nest.viommu();
        Self { client: nest.client, ioas: nest.ioas, viommu }
    }

    fn queue_of(&self, r#type: u32, index: u32, ring: (u64, u64)) -> Result<u32, Errno> {
        let (nesting_parent_iova, length) = ring;
        let viommu_id = self.viommu;
        let argument = HwQueueAlloc {
            viommu_id,
            r#type,
            index,
            nesting_parent_iova,
            length,
            ..HwQueueAlloc::default()
        };
        self.client.call(CommandId::HwQueueAlloc, argument).map(|answer| answer.out_hw_queue_id)
    }

    fn queue(&self, index: u32) -> Result<u32, Errno> {
        self.queue_of(TYPE, index, (IOVA + PAGE / 2, PAGE / 2))
    }
}

#[test]
fn creation_is_refused_in_order() {
    let world = World::new();
    assert_eq!(world.queue_of(0, 0, (IOVA, 0)), Err(Errno::EOPNOTSUPP));
    assert_eq!(world.queue_of(TYPE + 1, 0, (IOVA, 0)), Err(Errno::EINVAL));
    assert_eq!(world.queue_of(TYPE + 1, 0, (u64::MAX, PAGE)), Err(Errno::EOVERFLOW));
    assert_eq!(world.queue_of(TYPE + 1, 0, (IOVA, PAGE)), Err(Errno::EOPNOTSUPP));
    assert_eq!(world.queue(2), Err(Errno::ENOENT), "not mapped");
    world.client.map_at(world.ioas, IOVA, VA, PAGE).unwrap();
    world.client.map_at(world.ioas, IOVA + PAGE, VA + PAGE, PAGE).unwrap();
    assert_eq!(world.queue_of(TYPE, 0, (IOVA, 2 * PAGE)), Err(Errno::EFAULT), "two areas");
    assert_eq!(world.queue(2), Err(Errno::EINVAL));
    assert_eq!(world.queue(1), Err(Errno::EIO), "the first is not there");
    world.queue(0).unwrap();
    assert_eq!(world.queue(0), Err(Errno::EEXIST));
}

#[test]
fn a_ring_stays_mapped_and_a_queue_stays_while_another_depends_on_it() {
    let world = World::new();
    world.client.map_at(world.ioas, IOVA, VA, PAGE).unwrap();
    world.client.map_at(world.ioas, IOVA + PAGE, VA + PAGE, PAGE).unwrap();
    let (first, second) = (world.queue(0).unwrap(), world.queue(1).unwrap());
    assert_eq!(world.client.unmap(world.ioas, IOVA, PAGE), Err(Errno::EBUSY));
    assert_eq!(world.client.unmap(world.ioas, IOVA + PAGE, PAGE), Ok(PAGE));
    assert_eq!(world.client.destroy(world.viommu), Err(Errno::EBUSY));
    assert_eq!(world.client.destroy(first), Err(Errno::EBUSY));
    assert_eq!(world.client.destroy(second), Ok(()));
    assert_eq!(world.client.unmap(world.ioas, IOVA, PAGE), Err(Errno::EBUSY));
    assert_eq!(world.client.destroy(first), Ok(()));
    assert_eq!(world.client.unmap(world.ioas, IOVA, PAGE), Ok(PAGE));
    assert_eq!(world.client.destroy(world.viommu), Ok(()));
}
