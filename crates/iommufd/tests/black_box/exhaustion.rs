//! Every step of every command that can run out of something does so once: what is refused leaves all as it was, and the
//! command then succeeds as if nothing had been.

use std::collections::BTreeSet;
use std::sync::Arc;

use iommufd::mock::MockMachine;
use iommufd::{Device, Hardware, Resource};
use proptest::prelude::*;
use uapi::iommufd::{
    HwInfo, HwptAlloc, HwptGetDirtyBitmap, HwptSetDirtyTracking, HwptVtdS1, IoasAllowIovas,
    IoasChangeProcess, IoasCopy, IoasIovaRanges, IommuOption, IovaRange, VfioIoas,
    dirty_tracking_flags, hwpt_data, hwpt_flags, map_flags, option, option_op, vfio_ioas_op,
    viommu_type,
};
use uapi::vfio::{IommuType1DmaMap, IommuType1DmaUnmap, dma_map_flags};
use uapi::{Command, CommandId, Errno, FileKind};
use zerocopy::{FromZeros, IntoBytes};

use crate::support::client::{FILE, READ_WRITE};
use crate::support::test_command::{Long, op};
use crate::support::{Client, PAGE, Platform, RunningOut, plain};

const VA: u64 = 0x10_0000;
const IOVA: u64 = 0x100_0000;
/// Where arrays and bitmaps are.
const ARRAY: u64 = 0x20_0000;

/// What a command works on: an address space with three areas and a page table that logs writes, and one with a device.
struct World {
    quota: Arc<RunningOut>,
    client: Client,
    /// Attached to `second`.
    _attached: Arc<Device>,
    device: Arc<Device>,
    first: u32,
    second: u32,
    hwpt: u32,
    viommu: u32,
}

impl World {
    fn new() -> Self {
        let quota = RunningOut::new();
        let client = Client::open_under(Arc::clone(&quota) as _);
        let platform = Platform::new();
        let (device, [attached, _]) = (platform.bind(&client), platform.bind_pair(&client));
        let (first, second) = (client.ioas(), client.ioas());
        for page in 0..3 {
            client.map_at(first, IOVA + page * PAGE, VA + 2 * page * PAGE, PAGE).unwrap();
        }
        let hwpt = client.hwpt(device.id(), first, hwpt_flags::DIRTY_TRACKING).unwrap();
        attached.attach(second).unwrap();
        let viommu =
            client.viommu(viommu_type::ARM_SMMUV3, device.id(), client.nest_parent(device.id()));
        Self {
            quota,
            viommu: viommu.unwrap(),
            client,
            _attached: attached,
            device,
            first,
            second,
            hwpt,
        }
    }

    /// All that a client can tell of it.
    fn state(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let client = &self.client;
        let option = IommuOption {
            option_id: option::HUGE_PAGES,
            op: option_op::GET,
            object_id: self.first,
            ..IommuOption::default()
        };
        let large = client.call(CommandId::IommuOption, option).unwrap().val64;
        let next_id = client.ioas();
        client.destroy(next_id).unwrap();
        let ranges = [self.first, self.second].map(|ioas| client.ranges(ioas));
        let pinned = (client.memory.pinned(), client.file.pinned());
        (client.ctx.counts(), pinned, ranges, large, next_id)
    }

    /// What a command does that is not about to fail; `None` where it is told elsewhere, or is not known here.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a test asks which are missing")]
    fn run(&self, id: CommandId) -> Option<Result<(), Errno>> {
        let (client, first, second) = (&self.client, self.first, self.second);
        let dev_id = self.device.id();
        Some(match id {
            CommandId::Destroy => client.destroy(self.hwpt),
            CommandId::IoasAlloc => {
                let argument = uapi::iommufd::IoasAlloc::default();
                client.call(id, argument).map(|_| ())
            }
            CommandId::IoasAllowIovas => {
                let ranges = [(0, PAGE - 1), (IOVA, IOVA + 16 * PAGE - 1)];
                let ranges = ranges.map(|(start, last)| IovaRange { start, last });
                client.memory.write(ARRAY, ranges.as_bytes()).unwrap();
                let argument = IoasAllowIovas {
                    ioas_id: first,
                    num_iovas: 2,
                    allowed_iovas: ARRAY,
                    ..IoasAllowIovas::default()
                };
                client.call(id, argument).map(|_| ())
            }
            CommandId::IoasCopy => {
                let argument = IoasCopy {
                    flags: READ_WRITE | map_flags::FIXED_IOVA,
                    dst_ioas_id: second,
                    src_ioas_id: first,
                    length: 3 * PAGE,
                    dst_iova: IOVA,
                    src_iova: IOVA,
                    ..IoasCopy::default()
                };
                client.call(id, argument).map(|_| ())
            }
            CommandId::IoasIovaRanges => {
                let argument = IoasIovaRanges {
                    ioas_id: first,
                    num_iovas: 8,
                    allowed_iovas: ARRAY,
                    ..IoasIovaRanges::default()
                };
                client.call(id, argument).map(|_| ())
            }
            CommandId::IoasMap => client.map_anywhere(second, VA, 2 * PAGE).map(|_| ()),
            CommandId::IoasMapFile => {
                client.map_file(second, FILE, [0, 2 * PAGE, IOVA]).map(|_| ())
            }
            CommandId::IoasUnmap => client.unmap(first, IOVA, 2 * PAGE).map(|_| ()),
            CommandId::IommuOption => {
                let argument = IommuOption {
                    option_id: option::HUGE_PAGES,
                    op: option_op::SET,
                    object_id: second,
                    ..IommuOption::default()
                };
                client.call(id, argument).map(|_| ())
            }
            CommandId::VfioIoas => {
                let argument =
                    VfioIoas { ioas_id: first, op: vfio_ioas_op::SET, ..VfioIoas::default() };
                client.call(id, argument).map(|_| ())
            }
            CommandId::HwptAlloc => {
                client.hwpt(dev_id, first, hwpt_flags::DIRTY_TRACKING).map(|_| ())
            }
            CommandId::GetHwInfo => {
                client.call(id, HwInfo { dev_id, ..HwInfo::default() }).map(|_| ())
            }
            CommandId::HwptSetDirtyTracking => {
                let flags = dirty_tracking_flags::ENABLE;
                let argument = HwptSetDirtyTracking {
                    flags,
                    hwpt_id: self.hwpt,
                    ..HwptSetDirtyTracking::default()
                };
                client.call(id, argument).map(|_| ())
            }
            CommandId::HwptGetDirtyBitmap => {
                let argument = HwptGetDirtyBitmap {
                    hwpt_id: self.hwpt,
                    iova: IOVA,
                    length: 2 * PAGE,
                    page_size: PAGE,
                    data: ARRAY,
                    ..HwptGetDirtyBitmap::default()
                };
                client.call(id, argument).map(|_| ())
            }
            CommandId::ViommuAlloc => {
                let parent = client.nest_parent(dev_id);
                client.viommu(viommu_type::ARM_SMMUV3, dev_id, parent).map(|_| ())
            }
            CommandId::VdeviceAlloc => client.vdevice(self.viommu, dev_id, 1).map(|_| ()),
            CommandId::IoasChangeProcess => {
                client.unmap_all(first).unwrap();
                client.call(id, IoasChangeProcess::default()).map(|_| ())
            }
            CommandId::IommuMapDma => {
                self.compat();
                let argument = IommuType1DmaMap {
                    flags: dma_map_flags::READ,
                    vaddr: VA,
                    iova: IOVA,
                    size: PAGE,
                    ..IommuType1DmaMap::default()
                };
                client.call(id, argument).map(|_| ())
            }
            CommandId::IommuUnmapDma => {
                self.compat();
                let argument = IommuType1DmaUnmap {
                    iova: IOVA + PAGE,
                    size: PAGE,
                    ..IommuType1DmaUnmap::default()
                };
                client.call(id, argument).map(|_| ())
            }
            _ => return None,
        })
    }

    /// Makes the second address space the container's.
    fn compat(&self) {
        let argument =
            VfioIoas { ioas_id: self.second, op: vfio_ioas_op::SET, ..VfioIoas::default() };
        self.client.call(CommandId::VfioIoas, argument).unwrap();
    }
}

/// What was refused, step by step, until `act` had none left. Each time all must be as before, and `act` succeed after.
fn sweep(make: impl Fn() -> World, act: impl Fn(&World) -> Result<(), Errno>) -> Vec<Resource> {
    let mut refused = Vec::new();
    loop {
        let world = make();
        let before = world.state();
        world.quota.at(refused.len() as u64 + 1);
        let answer = act(&world);
        let Some(resource) = world.quota.call_off() else {
            assert_eq!(answer, Ok(()), "after {refused:?}");
            return refused;
        };
        assert_eq!(answer, Err(Errno::ENOMEM), "{refused:?}, then {resource:?}");
        assert_eq!(world.state(), before, "{refused:?}, then {resource:?}");
        assert_eq!(act(&world), Ok(()), "{refused:?}, then {resource:?}");
        refused.push(resource);
    }
}

#[test]
fn each_step_of_each_command_is_refused_once() {
    use Resource::{
        AllowedRange, Area, Buffer, Mirror, Object, Pages, ReservedRange, WrittenPages,
    };
    let steps: &[(CommandId, &[Resource])] = &[
        (CommandId::Destroy, &[]),
        (CommandId::IoasAlloc, &[Object]),
        (CommandId::IoasAllowIovas, &[AllowedRange, AllowedRange]),
        (CommandId::IoasCopy, &[Area]),
        (CommandId::IoasIovaRanges, &[Buffer]),
        (CommandId::IoasMap, &[Area, Pages]),
        (CommandId::IoasMapFile, &[Area, Pages]),
        (CommandId::IoasUnmap, &[]),
        (CommandId::IommuOption, &[]),
        (CommandId::VfioIoas, &[]),
        (CommandId::HwptAlloc, &[Object, WrittenPages, Mirror, ReservedRange]),
        (CommandId::GetHwInfo, &[Buffer]),
        (CommandId::HwptSetDirtyTracking, &[]),
        (CommandId::HwptGetDirtyBitmap, &[Buffer]),
        (CommandId::VdeviceAlloc, &[Object]),
        (CommandId::IoasChangeProcess, &[]),
    ];
    for (id, expected) in steps {
        let refused = sweep(World::new, |world| world.run(*id).unwrap());
        assert_eq!(refused, *expected, "{}", Command::of(*id).name);
    }
}

#[test]
fn a_page_table_that_cannot_pin_all_pins_nothing() {
    let unpinned = || {
        let world = World::new();
        world.client.destroy(world.hwpt).unwrap();
        world
    };
    let build = |world: &World| world.client.hwpt(world.device.id(), world.first, 0).map(|_| ());
    let refused = sweep(unpinned, build);
    use Resource::{Mirror, Object, Pages, ReservedRange};
    assert_eq!(refused, [Object, Mirror, ReservedRange, Pages, Pages, Pages]);
    let attach = |world: &World| {
        world.device.attach(world.first).map(|_| ()).map_err(|refusal| refusal.errno())
    };
    let refused = sweep(unpinned, attach);
    let wanted = [Resource::Attachment, Object, Mirror, ReservedRange, Pages, Pages, Pages];
    assert_eq!(refused, [&wanted[..], &[ReservedRange]].concat());
}

#[test]
fn a_replacement_that_is_refused_leaves_the_old_attachment() {
    let attached = || {
        let world = World::new();
        world.device.attach(world.second).unwrap();
        world
    };
    let replace = |world: &World| {
        world.device.attach(world.hwpt).map(|_| ()).map_err(|refusal| refusal.errno())
    };
    assert_eq!(sweep(attached, replace), [Resource::Attachment, Resource::ReservedRange]);
}

#[test]
fn a_container_runs_out_as_an_iommufd_does() {
    for id in [CommandId::IommuMapDma, CommandId::IommuUnmapDma] {
        let cut = || {
            let world = World::new();
            let no_large = IommuOption {
                option_id: option::HUGE_PAGES,
                op: option_op::SET,
                object_id: world.second,
                ..IommuOption::default()
            };
            world.client.call(CommandId::IommuOption, no_large).unwrap();
            if id == CommandId::IommuUnmapDma {
                world.client.map_at(world.second, IOVA, VA, 3 * PAGE).unwrap();
            }
            world.compat();
            world
        };
        let world = cut();
        let before = world.state();
        world.quota.at(1);
        assert_eq!(world.run(id), Some(Err(Errno::ENOMEM)));
        assert_eq!(world.quota.call_off(), Some(Resource::Area));
        assert_eq!(world.state(), before);
        assert_eq!(world.run(id), Some(Ok(())));
    }
}

#[test]
fn accesses_run_out_step_by_step() {
    use Resource::{Access, AccessPin, Buffer, Object, Pages};
    let quota = RunningOut::new();
    let client = Client::open_mock(&MockMachine::under(Arc::clone(&quota) as _));
    let ioas = client.ioas();
    client.map_at(ioas, IOVA, VA, PAGE).unwrap();
    client.map_at(ioas, IOVA + PAGE, VA + 2 * PAGE, PAGE).unwrap();
    let fd = client.create_access(ioas, 1).unwrap();
    type Act<'a> = (&'a [Resource], &'a dyn Fn() -> Result<(), Errno>);
    let acts: &[Act<'_>] = &[
        (&[Object, Access, Buffer], &|| {
            client.create_access(ioas, 1).map(|fd| client.access_file(fd).unwrap().release())
        }),
        (&[AccessPin, Pages, Pages], &|| {
            let number = client.access_pin(fd, 0, [IOVA, 2 * PAGE, 0])?;
            client.access_unpin(fd, number)
        }),
        (&[Buffer, Pages, Pages], &|| client.access_copy(fd, 0, [IOVA, 2 * PAGE, ARRAY])),
        (&[Resource::ReservedRange], &|| {
            let fields = [Long(16, 0), Long(24, PAGE)];
            client.test(op::ADD_RESERVED, ioas, &fields).map(|_| ())
        }),
    ];
    for (expected, act) in acts {
        for (nth, resource) in (1..).zip(*expected) {
            let state = || (client.ctx.counts(), client.memory.pinned(), client.ranges(ioas));
            let before = state();
            quota.at(nth);
            assert_eq!(act(), Err(Errno::ENOMEM), "{resource:?}");
            assert_eq!(quota.call_off(), Some(*resource));
            assert_eq!(state(), before, "{resource:?}");
        }
        quota.at(expected.len() as u64 + 1);
        assert_eq!(act(), Ok(()));
        assert_eq!(quota.call_off(), None);
    }
}

#[test]
fn commands_of_a_guest_run_out_of_memory_before_any_is_judged() {
    let quota = RunningOut::new();
    let client = Client::open_under(Arc::clone(&quota) as _);
    let device = Platform::of(Hardware::Smmuv3, plain()).bind(&client);
    let parent = client.nest_parent(device.id());
    let hwpt_id = client.viommu(viommu_type::ARM_SMMUV3, device.id(), parent).unwrap();
    client.memory.write(ARRAY, &[0x30; 1]).unwrap();
    client.memory.write(ARRAY + 1, &[0; 15]).unwrap();
    let asked = uapi::iommufd::HwptInvalidate {
        hwpt_id,
        data_uptr: ARRAY,
        data_type: uapi::iommufd::invalidate_data::VIOMMU_ARM_SMMUV3,
        entry_len: 16,
        entry_num: 1,
        ..Default::default()
    };
    let act = || client.call(CommandId::HwptInvalidate, asked).map(|answer| answer.entry_num);
    quota.at(1);
    assert_eq!(act(), Err(Errno::ENOMEM));
    assert_eq!(quota.call_off(), Some(Resource::Buffer));
    quota.at(2);
    assert_eq!(act(), Ok(1));
    assert_eq!(quota.call_off(), None);
}

#[test]
fn a_guests_page_table_runs_out_step_by_step() {
    let quota = RunningOut::new();
    let client = Client::open_under(Arc::clone(&quota) as _);
    let device = Platform::of(Hardware::Vtd, plain()).bind(&client);
    let parent = client.nest_parent(device.id());
    let stage = HwptVtdS1 { addr_width: 48, ..HwptVtdS1::new_zeroed() };
    client.memory.write(ARRAY, stage.as_bytes()).unwrap();
    let asked = HwptAlloc {
        dev_id: device.id(),
        pt_id: parent,
        data_type: hwpt_data::VTD_S1,
        data_len: 24,
        data_uptr: ARRAY,
        ..HwptAlloc::default()
    };
    let nest = || client.call(CommandId::HwptAlloc, asked).map(|answer| answer.out_hwpt_id);
    let described = HwInfo { dev_id: device.id(), ..HwInfo::default() };
    let describe = || client.call(CommandId::GetHwInfo, described).map(|answer| answer.data_len);
    let attach = |table| device.attach(table).map_err(|refusal| refusal.errno());
    let nested = nest().unwrap();
    type Act<'a> = (&'a [Resource], &'a dyn Fn() -> Result<u32, Errno>);
    let acts: &[Act<'_>] = &[
        (&[Resource::Object], &nest),
        (&[Resource::Buffer], &describe),
        (&[Resource::Attachment, Resource::ReservedRange], &|| attach(nested)),
    ];
    for (expected, act) in acts {
        let mut refused = Vec::new();
        loop {
            let before = (client.ctx.counts(), device.page_table_id());
            quota.at(refused.len() as u64 + 1);
            let answer = act();
            let Some(resource) = quota.call_off() else {
                assert!(answer.is_ok());
                break;
            };
            assert_eq!(answer, Err(Errno::ENOMEM), "{resource:?}");
            assert_eq!((client.ctx.counts(), device.page_table_id()), before, "{resource:?}");
            refused.push(resource);
        }
        assert_eq!(refused, *expected);
    }
}

#[test]
fn served_commands_have_their_steps_told() {
    // The former want a nested page table or a file of events, the latter a TSM and its VM.
    const ELSEWHERE: &[CommandId] = &[
        CommandId::HwptInvalidate,
        CommandId::FaultQueueAlloc,
        CommandId::VeventqAlloc,
        CommandId::HwQueueAlloc,
        CommandId::IoasNoiommuGetPa,
        CommandId::VdeviceTsmOp,
        CommandId::VdeviceTsmReq,
        CommandId::VdeviceTsmReqV5,
        CommandId::VdeviceTsmGuestRequest,
    ];
    let rows = uapi::COMMANDS.iter().filter(|row| row.file == FileKind::Iommufd && row.served);
    let told = |id| World::new().run(id).is_some();
    let untold: BTreeSet<_> = rows
        .filter(|row| !ELSEWHERE.contains(&row.id) && !told(row.id))
        .map(|row| row.name)
        .collect();
    assert_eq!(untold, BTreeSet::new());
}

proptest! {
    /// Commands in any order, each refused at some step first: nothing is left of the refusal.
    #[test]
    fn refused_commands_in_any_order_leave_nothing(
        commands in proptest::collection::vec((0..COMMANDS.len(), 1_u64..8), 1..12),
    ) {
        let world = World::new();
        for (command, nth) in commands {
            let id = COMMANDS[command];
            let before = world.state();
            world.quota.at(nth);
            let answer = world.run(id).unwrap();
            let refused = world.quota.call_off();
            if refused.is_some() {
                prop_assert_eq!(answer, Err(Errno::ENOMEM), "{:?}", id);
            }
            if answer.is_err() && !CHANGE_ANYWAY.contains(&id) {
                prop_assert_eq!(world.state(), before, "{:?} refused {:?}", id, refused);
            }
        }
    }
}

/// Commands for sequences: those whose run is one command.
const COMMANDS: &[CommandId] = &[
    CommandId::IoasAlloc,
    CommandId::IoasAllowIovas,
    CommandId::IoasCopy,
    CommandId::IoasIovaRanges,
    CommandId::IoasMap,
    CommandId::IoasMapFile,
    CommandId::IoasUnmap,
    CommandId::IommuOption,
    CommandId::HwptAlloc,
    CommandId::GetHwInfo,
    CommandId::HwptGetDirtyBitmap,
    CommandId::VdeviceAlloc,
];
/// `IOMMU_IOAS_UNMAP` takes the areas away that lie below the one that refuses.
const CHANGE_ANYWAY: &[CommandId] = &[CommandId::IoasUnmap];
