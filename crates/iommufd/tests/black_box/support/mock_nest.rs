//! A mock device, a page table that others can be nested in, and what a guest is given of them.

use iommufd::mock::MockMachine;
use uapi::iommufd::{HwptAlloc, VeventqAlloc, hwpt_flags};
use uapi::{CommandId, Errno};

use super::Client;
use super::test_command::{Word, op};

/// The mock's type of a nested page table's data.
pub(crate) const TABLE_DATA: u32 = 0xdead;
/// Its type of vIOMMUs, hardware queues and entries to be dropped.
pub(crate) const HARDWARE: u32 = 0xdead_beef;
/// Its type of events.
pub(crate) const EVENTS: u32 = 0xbeef_beef;
/// Where a client keeps what commands point to.
pub(crate) const AT: u64 = 0x20_0000;

/// A client with a mock device on an address space, and a page table of that to nest others in.
pub(crate) struct MockNest {
    pub(crate) client: Client,
    /// What test commands name the device by, and what others do.
    pub(crate) mock: u32,
    pub(crate) device: u32,
    pub(crate) ioas: u32,
    /// The page table that the device goes through at first.
    pub(crate) automatic: u32,
    pub(crate) parent: u32,
}

impl MockNest {
    pub(crate) fn new() -> Self {
        Self::of(Client::open_mock(&MockMachine::new()))
    }

    pub(crate) fn of(client: Client) -> Self {
        let ioas = client.ioas();
        let [mock, automatic, device] = client.mock_device(ioas).unwrap();
        let parent = client.hwpt(device, ioas, hwpt_flags::NEST_PARENT).unwrap();
        Self { client, mock, device, ioas, automatic, parent }
    }

    pub(crate) fn viommu(&self) -> u32 {
        self.client.viommu(HARDWARE, self.device, self.parent).unwrap()
    }

    /// Moves the device to a page table or address space.
    pub(crate) fn attach(&self, table: u32) -> Result<(), Errno> {
        let fields = [Word(16, table)];
        self.client.test(op::MOCK_DOMAIN_REPLACE, self.mock, &fields).map(|_| ())
    }

    /// Has the guest told of an event.
    pub(crate) fn event(&self) -> Result<(), Errno> {
        self.client.test(op::TRIGGER_VEVENT, 0, &[Word(16, self.device)]).map(|_| ())
    }
}

impl Client {
    /// A page table of the mock's, in another or behind a vIOMMU.
    pub(crate) fn nested(&self, dev_id: u32, pt_id: u32) -> Result<u32, Errno> {
        self.nested_as(HwptAlloc { dev_id, pt_id, ..HwptAlloc::default() })
    }

    /// As [`nested`](Self::nested), with what else is asked.
    pub(crate) fn nested_as(&self, asked: HwptAlloc) -> Result<u32, Errno> {
        let argument = HwptAlloc { data_type: TABLE_DATA, data_len: 4, data_uptr: AT, ..asked };
        self.call(CommandId::HwptAlloc, argument).map(|answer| answer.out_hwpt_id)
    }

    /// A queue of a vIOMMU's events, with room for so many.
    pub(crate) fn event_queue(&self, viommu_id: u32, veventq_depth: u32) -> Result<u32, Errno> {
        let argument =
            VeventqAlloc { viommu_id, r#type: EVENTS, veventq_depth, ..VeventqAlloc::default() };
        self.call(CommandId::VeventqAlloc, argument).map(|answer| answer.out_veventq_id)
    }
}
