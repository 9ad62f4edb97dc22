//! Requests of a guest, of any architecture, with any payload, about a bound interface.
//!
//! No more is answered than there is room for, no more is taken than was sent, and when all is unbound the
//! device is unlocked and one unbind has followed the bind.

use std::sync::Arc;

use supervisor::machine::Machine;
use supervisor::platform::Platform;
use tdisp::State;
use tsm::{Arch, Cancel, GuestRequest, Memory, Op, Unreachable, VmId};

use crate::input::{Input, Output};
use crate::rig::Deaf;

/// Requests of one input.
const ASKED_MAX: usize = 64;
/// The guest's number of the device.
const GUEST_ID: u64 = 0x20;
/// Architectures, by the byte that names one.
pub const ARCHS: [Arch; 3] = [Arch::Cca, Arch::Sev, Arch::Tdx];
/// Operations, by the byte that names one.
pub const OPS: [Op; 11] = [
    Op::ValidateMmio,
    Op::SetTdiState,
    Op::SevEnableDma,
    Op::SevDisableDma,
    Op::ReadObject,
    Op::RegenObject,
    Op::ObjectInfo,
    Op::GetState,
    Op::Scope(0),
    Op::Scope(1),
    Op::Scope(2),
];

/// Asks what `bytes` say.
pub fn run(bytes: &[u8]) {
    let machine = Machine::build(&Platform::default(), Arc::new(Deaf));
    let (registry, device) = (&machine.tsm, &machine.devices[0]);
    let function = device.address;
    enable(device.function.as_ref());
    registry.connect(function, b"tsm0").expect("a healthy device");
    let cancel = Cancel::new();
    registry.bind(function, VmId(1), GUEST_ID, &cancel).expect("nobody else has it");
    let mut input = Input::new(bytes);
    for _ in 0..ASKED_MAX {
        if input.is_empty() {
            break;
        }
        let asked = Asked::decode(&mut input);
        let request = GuestRequest {
            arch: ARCHS[usize::from(asked.arch) % ARCHS.len()],
            op: OPS[usize::from(asked.op) % OPS.len()],
            request: &asked.payload,
            response_room: asked.room.into(),
        };
        if let Ok(answer) = registry.request(function, &request, &Page, &cancel) {
            assert!(answer.bytes.len() <= usize::from(asked.room), "{request:?}");
            assert!(answer.consumed as usize <= asked.payload.len(), "{request:?}");
        }
    }
    registry.unbind(function);
    let manager = device.security.as_ref().expect("a TEE device");
    let requester_id = u16::from(function.bus) << 8 | u16::from(function.devfn());
    assert_eq!(manager.state(requester_id), Some(State::Unlocked));
    let counters = registry.counters();
    assert_eq!((counters.binds, counters.unbinds), (1, 1));
}

/// What LOCK wants.
fn enable(function: &dyn pci::Function) {
    let both = pci::regs::command::MEMORY | pci::regs::command::BUS_MASTER;
    function.config_write(pci::regs::header::COMMAND, &both.to_le_bytes());
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Which of [`ARCHS`].
    pub arch: u8,
    /// Which of [`OPS`].
    pub op: u8,
    /// Bytes of room for the answer.
    pub room: u16,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Asked {
    fn decode(input: &mut Input<'_>) -> Self {
        Self { arch: input.byte(), op: input.byte(), room: input.word(), payload: input.counted() }
    }

    /// The bytes that are read as this request.
    pub fn encode(&self, out: &mut Output) {
        out.put(&[self.arch, self.op]);
        out.put(&self.room.to_le_bytes());
        out.counted(&self.payload);
    }
}

/// A client with one page of memory at 4 KiB.
struct Page;

impl Memory for Page {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), Unreachable> {
        if !(0x1000..0x1f00).contains(&at) {
            return Err(Unreachable);
        }
        into.fill(7);
        Ok(())
    }
}
