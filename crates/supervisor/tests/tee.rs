//! The TSM of a machine and its devices' security managers, joined as a run joins them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bindery_supervisor::Call;
use bindery_supervisor::machine::{Assignable, Machine};
use bindery_supervisor::platform::Platform;
use bindery_supervisor::{Left, Observer, OpenFile, Thread};
use pci::regs::{command, header};
use pci::{Address, DmaFault, Interrupt, Notices};
use tdisp::{Breach, State};
use tsm::{Arch, Binding, Cancel, GuestRequest, Memory, Op, Unreachable, VmId};
use uapi::Errno;

/// Keeps what it is told, a line each.
#[derive(Default)]
struct Ears(Mutex<Vec<String>>);

impl Ears {
    fn say(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    fn heard(&self, line: &str) -> bool {
        self.0.lock().unwrap().iter().any(|heard| heard == line)
    }
}

impl Notices for Ears {
    fn dma_fault(&self, _: Address, _: &DmaFault) {}
    fn interrupt_unheard(&self, _: Address, _: Interrupt) {}
}

impl Observer for Ears {
    fn call(&self, _: Thread, _: &Call<'_>, _: Result<u64, Errno>) {}
    fn released(&self, _: &OpenFile, _: &Left) {}

    fn tsm(&self, function: Address, notice: &tsm::Notice) {
        self.say(format!("tsm {function} {notice}"));
    }

    fn tdi(&self, function: Address, from: State, to: State, cause: Option<Breach>) {
        let cause = cause.map_or(String::new(), |cause| format!(": {cause}"));
        self.say(format!("tdi {function} {from} -> {to}{cause}"));
    }
}

struct NoMemory;

impl Memory for NoMemory {
    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), Unreachable> {
        Err(Unreachable)
    }
}

struct Rig {
    machine: Machine,
    ears: Arc<Ears>,
}

const VF: usize = 1;
const VM: VmId = VmId(1);

impl Rig {
    /// The default platform, with more in its file.
    fn new(more: &str) -> Self {
        Self::of(&format!("{}\n{more}", bindery_supervisor::DEFAULT_TOML))
    }

    fn of(text: &str) -> Self {
        let platform = Platform::parse("test.toml", text).unwrap();
        let ears = Arc::new(Ears::default());
        let machine = Machine::build_watched(&platform, Arc::<Ears>::clone(&ears), None);
        machine.clock.start().unwrap();
        let pf = machine.devices[0].address;
        machine.tsm.connect(pf, b"tsm0\n").unwrap();
        Self { machine, ears }
    }

    fn vf(&self) -> &Assignable {
        &self.machine.devices[VF]
    }

    fn bind(&self) -> Result<(), tsm::Refusal> {
        self.machine.tsm.bind(self.vf().address, VM, 0x100, &Cancel::new())
    }

    fn set_state(&self, state: u32) -> Result<(), tsm::Refusal> {
        let bytes = state.to_le_bytes();
        let request = GuestRequest {
            arch: Arch::Cca,
            op: Op::SetTdiState,
            request: &bytes,
            response_room: 0,
        };
        let function = self.vf().address;
        self.machine.tsm.request(function, &request, &NoMemory, &Cancel::new()).map(drop)
    }

    fn write_command(&self, value: u16) {
        self.vf().function.config_write(header::COMMAND, &value.to_le_bytes());
    }

    /// What it can be locked with.
    fn enable(&self) {
        self.write_command(command::MEMORY | command::BUS_MASTER);
    }
}

#[test]
fn a_tdi_goes_through_its_states_and_everybody_agrees() {
    let rig = Rig::new("");
    let (tsm, vf) = (&rig.machine.tsm, rig.vf().address);
    assert_eq!(tsm.tsms(), [0]);
    let shown = tsm.attributes(vf).unwrap();
    assert_eq!(shown.dsm.as_deref(), Some("b1d0:01:00.0\n"));
    rig.enable();
    rig.bind().unwrap();
    assert_eq!(rig.vf().tdi_state(), Some(State::Unlocked));
    for (number, state) in [(1, State::Locked), (2, State::Run), (0, State::Unlocked)] {
        rig.set_state(number).unwrap();
        assert_eq!(rig.vf().tdi_state(), Some(state));
        assert_eq!(tsm.binding(vf), Binding::Bound { state });
    }
    assert!(rig.ears.heard("tdi b1d0:01:00.1 CONFIG_LOCKED -> RUN"));
    tsm.unbind(vf);
    assert_eq!(tsm.binding(vf), Binding::Unbound);
    tsm.disconnect(rig.machine.devices[0].address, b"tsm0\n").unwrap();
    let counters = tsm.counters();
    assert_eq!((counters.binds, counters.unbinds), (1, 1));
    assert_eq!(rig.vf().security.as_ref().unwrap().keys(), 0);
    assert_eq!(rig.machine.tdis_in_use(), []);
}

#[test]
fn a_breach_is_told_and_ended_by_unbind() {
    let rig = Rig::new("");
    rig.enable();
    rig.bind().unwrap();
    rig.set_state(1).unwrap();
    rig.set_state(2).unwrap();
    rig.write_command(command::MEMORY);
    assert_eq!(rig.vf().tdi_state(), Some(State::Error));
    assert!(rig.ears.heard("tdi b1d0:01:00.1 RUN -> ERROR: bus master enable cleared"));
    let vf = rig.vf().address;
    assert_eq!(rig.machine.tsm.binding(vf), Binding::Bound { state: State::Error });
    rig.machine.tsm.unbind(rig.vf().address);
    assert_eq!(rig.vf().tdi_state(), Some(State::Unlocked));
    assert_eq!(rig.machine.tdis_in_use(), []);
}

#[test]
fn a_reset_that_reaches_a_tdi_is_known() {
    for (policy, state) in [("unlocked", State::Unlocked), ("error", State::Error)] {
        let text = bindery_supervisor::DEFAULT_TOML;
        let default = "flr_while_locked = \"unlocked\"";
        assert!(text.contains(default));
        let text = text.replace(default, &format!("flr_while_locked = \"{policy}\""));
        let rig = Rig::of(&text);
        rig.enable();
        rig.bind().unwrap();
        rig.set_state(1).unwrap();
        rig.vf().function.reset(pci::Reset::Function);
        assert_eq!(rig.vf().tdi_state(), Some(state));
        assert_eq!(rig.machine.tsm.binding(rig.vf().address), Binding::Bound { state });
    }
}

#[test]
fn faults_of_the_platform_strike_and_a_silent_device_is_given_up() {
    let rig = Rig::new(
        "[[fault]]\nfunction = \"b1d0:01:00.1\"\nfault = \"bind=silent*1\"\n\
         [[fault]]\nfunction = \"b1d0:01:00.1\"\nfault = \"unbind=silent*1\"\n",
    );
    let begun = Instant::now();
    let refusal = rig.bind().unwrap_err();
    assert_eq!(refusal.errno(), Errno::ETIMEDOUT);
    let took = begun.elapsed();
    let second = Duration::from_secs(1);
    assert!(took >= second - Duration::from_millis(2), "{took:?}");
    assert!(took <= 2 * second, "{took:?}");
    let counters = rig.machine.tsm.counters();
    assert_eq!((counters.binds, counters.unbinds, counters.quarantined), (1, 1, 1));
    let vf = rig.vf().address;
    assert_eq!(rig.machine.tdis_in_use(), [(vf, Binding::Quarantined)]);
    assert_eq!(rig.bind().unwrap_err().errno(), Errno::EBUSY);
}

#[test]
fn a_session_ends_with_the_next_connection() {
    let rig = Rig::new("");
    let pf = rig.machine.devices[0].address;
    rig.machine.tsm.disconnect(pf, b"tsm0\n").unwrap();
    rig.machine.tsm.connect(pf, b"tsm0\n").unwrap();
    rig.enable();
    rig.bind().unwrap();
    rig.set_state(1).unwrap();
    assert_eq!(rig.vf().tdi_state(), Some(State::Locked));
}
