//! Sequences of a client of the kernel's test interface, in the making.

use bindery_fuzz::client::MEMORY_BASE;
use bindery_fuzz::input::Output;
use bindery_fuzz::mock_commands::{Step, code_of};
use uapi::CommandId;
use uapi::iommufd::{
    Destroy, HwptAlloc, IoasAlloc, IoasMap, IoasMapFile, IoasUnmap, TestCmd, VdeviceAlloc,
    ViommuAlloc, hwpt_flags, map_flags, test_op,
};
use zerocopy::{Immutable, IntoBytes};

use crate::write;

/// Ids in the order in which a fresh context gives them: an IOAS, a mock device on it, that device's own, its page
/// table. What a client makes next has [`NEXT`].
pub(crate) const IOAS: u32 = 1;
pub(crate) const MOCK: u32 = 2;
pub(crate) const DEVICE: u32 = 3;
pub(crate) const TABLE: u32 = 4;
pub(crate) const NEXT: u32 = 5;
/// Files in the order in which they are given.
pub(crate) const FILE: i32 = 3;
pub(crate) const ACCESS: u32 = 100;
pub(crate) const BUFFER: u32 = 200;
/// What is mapped: at the first address that the mock's page tables translate.
pub(crate) const IOVA: u64 = 1 << 24;
pub(crate) const VA: u64 = MEMORY_BASE + 0x1000;
pub(crate) const LENGTH: u64 = 0x4000;
/// Where a client keeps what commands point to.
pub(crate) const DATA: u64 = MEMORY_BASE;
pub(crate) const BOTH: u32 = map_flags::READABLE | map_flags::WRITEABLE;
/// The mock's types of data, of vIOMMUs, entries and hardware queues, of events.
pub(crate) const TABLE_DATA: u32 = 0xdead;
pub(crate) const HARDWARE: u32 = 0xdead_beef;
pub(crate) const EVENTS: u32 = 0xbeef_beef;
pub(crate) const GUEST_ID: u32 = 9;

/// Steps on the first context, in the making.
#[derive(Default)]
pub(crate) struct Sequence {
    /// As the first step, if it were a [`Step::RunOut`].
    runs_out_at: u8,
    steps: Vec<Step>,
}

impl Sequence {
    /// A sequence in which the step runs out that asks this question.
    pub(crate) fn that_runs_out_at(question: u8) -> Self {
        Self { runs_out_at: question, steps: Vec::new() }
    }

    pub(crate) fn then(&mut self, step: Step) -> &mut Self {
        self.steps.push(step);
        self
    }

    pub(crate) fn call(
        &mut self,
        id: CommandId,
        argument: &(impl IntoBytes + Immutable),
    ) -> &mut Self {
        let words = argument.as_bytes().chunks_exact(4).skip(1);
        let words = words.map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        let words = words.map(|word| {
            code_of(word).unwrap_or_else(|| panic!("{id:?}: no code stands for {word:#x}"))
        });
        self.then(Step::Command { context: 0, id, words: words.collect() })
    }

    /// A test command, and fields by the words of its union that they begin at.
    pub(crate) fn test<const N: usize>(
        &mut self,
        op: u32,
        id: u32,
        fields: [(usize, u64); N],
    ) -> &mut Self {
        let mut words = [0_u32; 12];
        for (at, value) in fields {
            words[at] = u32::try_from(value).expect("all that lies above is zero");
        }
        let pair = |at: usize| u64::from(words[at]) | u64::from(words[at + 1]) << u32::BITS;
        let words = [0, 2, 4, 6, 8, 10].map(pair);
        self.call(CommandId::TestCmd, &TestCmd { op, id, words, ..TestCmd::default() })
    }

    pub(crate) fn ioas(&mut self) -> &mut Self {
        self.call(CommandId::IoasAlloc, &IoasAlloc::default())
    }

    /// An IOAS and a mock device on it.
    pub(crate) fn device(&mut self) -> &mut Self {
        self.ioas().test(test_op::MOCK_DOMAIN, IOAS, [])
    }

    pub(crate) fn map(&mut self) -> &mut Self {
        let flags = BOTH | map_flags::FIXED_IOVA;
        let (user_va, length, iova) = (VA, LENGTH, IOVA);
        let map = IoasMap { flags, ioas_id: IOAS, user_va, length, iova, ..IoasMap::default() };
        self.call(CommandId::IoasMap, &map)
    }

    pub(crate) fn map_file(&mut self, fd: i32, flags: u32) -> &mut Self {
        let (length, iova) = (0x2000, if flags & map_flags::FIXED_IOVA == 0 { 0 } else { IOVA });
        let map = IoasMapFile { flags, ioas_id: IOAS, fd, length, iova, ..IoasMapFile::default() };
        self.call(CommandId::IoasMapFile, &map)
    }

    pub(crate) fn unmap_all(&mut self, ioas_id: u32) -> &mut Self {
        let unmap = IoasUnmap { ioas_id, length: u64::MAX, ..IoasUnmap::default() };
        self.call(CommandId::IoasUnmap, &unmap)
    }

    pub(crate) fn destroy(&mut self, id: u32) -> &mut Self {
        self.call(CommandId::Destroy, &Destroy { id, ..Destroy::default() })
    }

    pub(crate) fn table(&mut self, flags: u32) -> &mut Self {
        let table = HwptAlloc { flags, dev_id: DEVICE, pt_id: IOAS, ..HwptAlloc::default() };
        self.call(CommandId::HwptAlloc, &table)
    }

    pub(crate) fn replace(&mut self, table: u32) -> &mut Self {
        self.test(test_op::MOCK_DOMAIN_REPLACE, MOCK, [(0, table.into())])
    }

    /// A guest's page table, nested in another or behind a vIOMMU.
    pub(crate) fn nested(&mut self, pt_id: u32, fault_id: u32) -> &mut Self {
        let table = HwptAlloc {
            flags: if fault_id == 0 { 0 } else { hwpt_flags::FAULT_ID_VALID },
            dev_id: DEVICE,
            pt_id,
            data_type: TABLE_DATA,
            data_len: 4,
            data_uptr: DATA,
            fault_id,
            ..HwptAlloc::default()
        };
        self.call(CommandId::HwptAlloc, &table)
    }

    /// A vIOMMU over page table [`NEXT`], with as many bytes of data, and the device behind it: the two ids after that.
    pub(crate) fn guest(&mut self, data_len: u32) -> &mut Self {
        let viommu = ViommuAlloc {
            r#type: HARDWARE,
            dev_id: DEVICE,
            hwpt_id: NEXT,
            data_len,
            data_uptr: if data_len == 0 { 0 } else { DATA },
            ..ViommuAlloc::default()
        };
        let vdevice = VdeviceAlloc {
            viommu_id: NEXT + 1,
            dev_id: DEVICE,
            virt_id: GUEST_ID.into(),
            ..VdeviceAlloc::default()
        };
        self.device()
            .table(hwpt_flags::NEST_PARENT)
            .call(CommandId::ViommuAlloc, &viommu)
            .call(CommandId::VdeviceAlloc, &vdevice)
    }

    pub(crate) fn poke(&mut self, words: &[u32]) -> &mut Self {
        self.then(Step::Poke { at: 0, bytes: words.as_bytes().to_vec() })
    }

    pub(crate) fn read_events(&mut self, count: u16) -> &mut Self {
        self.then(Step::Transfer { index: 0, write: false, at: 0, count })
    }

    pub(crate) fn save(&mut self, name: &str) {
        let mut out = Output::default();
        out.put(&[self.runs_out_at]);
        self.steps.iter().for_each(|step| step.encode(&mut out));
        write("mock_commands", name, &out.into_bytes());
    }
}
