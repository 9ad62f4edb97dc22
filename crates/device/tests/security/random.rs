//! Any requests and deeds, against a slow model of the table.

use bindery_device as device;

use device::dma_engine::regs::{flag, operation, status_state};
use device::security::Settings;
use pci::regs::{command, header, msix, sriov};
use pci::{Function, Reset};
use proptest::prelude::*;
use tdisp::exchange::{GetState, LockInterface, StartInterface};
use tdisp::transition::outcome;
use tdisp::{ErrorCode, Event, FunctionReset, LockFlags, Nonce, Outcome, State};

use crate::rig::{BAR0, IDS, Job, RAM, Ram, Rig, SESSION, STREAM};

#[derive(Clone, Copy, Debug)]
enum Deed {
    Lock { function: usize, msix: bool, pages: bool },
    Start { function: usize, right: bool },
    Stop { function: usize },
    Report { function: usize },
    Command { function: usize, bits: u16 },
    Bar { moved: bool },
    Sriov { control: u16 },
    Msix { function: usize, on: bool },
    Reset { function: usize, kind: Reset },
    SetUp { function: usize },
    GiveKeys,
    LoseKeys,
    EndSession,
    Trusted { function: usize },
}

fn deed() -> impl Strategy<Value = Deed> {
    let function = 0usize..3;
    let commands = vec![0, command::MEMORY, command::BUS_MASTER, BOTH];
    let controls = vec![0, sriov::VF_ENABLE, sriov::VF_ENABLE | sriov::VF_MEMORY];
    prop_oneof![
        6 => (function.clone(), any::<bool>(), prop::bool::weighted(0.9))
            .prop_map(|(function, msix, pages)| Deed::Lock { function, msix, pages }),
        5 => (function.clone(), prop::bool::weighted(0.8))
            .prop_map(|(function, right)| Deed::Start { function, right }),
        2 => function.clone().prop_map(|function| Deed::Stop { function }),
        1 => function.clone().prop_map(|function| Deed::Report { function }),
        2 => (function.clone(), prop::sample::select(commands))
            .prop_map(|(function, bits)| Deed::Command { function, bits }),
        1 => any::<bool>().prop_map(|moved| Deed::Bar { moved }),
        1 => prop::sample::select(controls).prop_map(|control| Deed::Sriov { control }),
        1 => (function.clone(), any::<bool>())
            .prop_map(|(function, on)| Deed::Msix { function, on }),
        1 => (function.clone(), prop::sample::select(vec![Reset::Function, Reset::Bus]))
            .prop_map(|(function, kind)| Deed::Reset { function, kind }),
        5 => function.clone().prop_map(|function| Deed::SetUp { function }),
        2 => Just(Deed::GiveKeys),
        1 => Just(Deed::LoseKeys),
        1 => Just(Deed::EndSession),
        3 => function.prop_map(|function| Deed::Trusted { function }),
    ]
}

const BOTH: u16 = command::MEMORY | command::BUS_MASTER;
const ALL: u16 = sriov::VF_ENABLE | sriov::VF_MEMORY;
/// Where else BAR 0 may be.
const ELSEWHERE: u64 = 0xd000_0000;

/// What a function is, as a reader of the tables would keep it on paper.
#[derive(Clone, Copy, Debug)]
struct Model {
    state: State,
    nonce: Option<Nonce>,
    msix_locked: bool,
    command: u16,
    msix: bool,
}

#[derive(Debug)]
struct World {
    functions: [Model; 3],
    bar0: u64,
    /// Zero after a reset, which also takes the places of BARs.
    sriov: u16,
    placed: bool,
    keys: bool,
    policy: FunctionReset,
}

impl World {
    fn new(policy: FunctionReset) -> Self {
        let function = Model {
            state: State::Unlocked,
            nonce: None,
            msix_locked: false,
            command: BOTH,
            msix: false,
        };
        let mut functions = [function; 3];
        functions[1].command = command::BUS_MASTER;
        functions[2].command = command::BUS_MASTER;
        Self { functions, bar0: BAR0, sriov: ALL, placed: true, keys: true, policy }
    }

    /// Lets an event happen; what a request is answered.
    fn happen(&mut self, function: usize, event: Event) -> Result<(), ErrorCode> {
        let model = &mut self.functions[function];
        match outcome(model.state, event) {
            Outcome::Refuse(code) => Err(code),
            Outcome::Stay => Ok(()),
            Outcome::Go(next) => {
                model.state = next;
                if next != State::Locked {
                    model.nonce = None;
                }
                Ok(())
            }
        }
    }

    fn breach(&mut self, function: usize) {
        self.happen(function, Event::Breach).unwrap();
    }

    fn lock_event(&self, function: usize, pages: bool) -> Event {
        let model = &self.functions[function];
        let decodes = match function {
            0 => model.command & command::MEMORY != 0 && self.placed,
            _ => self.sriov == ALL,
        };
        if !pages || !self.keys {
            Event::LockWrongly
        } else if !decodes || model.command & command::BUS_MASTER == 0 {
            Event::LockMisconfigured
        } else {
            Event::Lock
        }
    }

    fn set_command(&mut self, function: usize, bits: u16) {
        let bits = if function == 0 { bits } else { bits & command::BUS_MASTER };
        if self.functions[function].command & !bits != 0 {
            self.breach(function);
        }
        self.functions[function].command = bits;
    }

    fn set_bar(&mut self, address: u64) {
        if self.bar0 != address {
            self.breach(0);
        }
        self.bar0 = address;
    }

    fn set_sriov(&mut self, control: u16) {
        // Memory that is not enabled cannot be lost, and a VF that is off is not fixed.
        if self.sriov & !control & ALL != 0 {
            self.breach(1);
            self.breach(2);
        }
        self.sriov = control;
    }

    fn reset(&mut self, function: usize, kind: Reset) {
        let reached = match (function, kind) {
            (0, _) => 0..3,
            (virtual_function, _) => virtual_function..virtual_function + 1,
        };
        for function in reached {
            let event = match (kind, self.policy) {
                (Reset::Function, FunctionReset::Breaches) => Event::Breach,
                (Reset::Function | Reset::Bus, _) => Event::Reset,
            };
            self.happen(function, event).unwrap();
        }
        self.functions[function].command = 0;
        self.functions[function].msix = false;
        if function == 0 {
            (self.sriov, self.bar0, self.placed) = (0, 0, false);
            self.keys &= kind == Reset::Function;
        }
    }
}

struct Bench {
    rig: Rig,
    world: World,
}

impl Bench {
    fn take(&mut self, deed: Deed) {
        let Self { rig, world } = self;
        match deed {
            Deed::Lock { function, msix, pages } => {
                let event = world.lock_event(function, pages);
                let flags = if msix { LockFlags::LOCK_MSIX } else { LockFlags::default() };
                let answer = rig.lock(
                    function,
                    &LockInterface {
                        flags,
                        default_stream: STREAM,
                        mmio_reporting_offset: if pages { 0x1000 } else { 1 },
                        ..LockInterface::default()
                    },
                );
                assert_eq!(answer.map(drop), world.happen(function, event));
                if let Ok(nonce) = answer {
                    world.functions[function].nonce = Some(nonce);
                    world.functions[function].msix_locked = msix;
                }
            }
            Deed::Start { function, right } => {
                let nonce = world.functions[function].nonce.filter(|_| right);
                let event = if nonce.is_some() { Event::Start } else { Event::StartWrongNonce };
                let nonce = nonce.unwrap_or(Nonce([0xee; 32]));
                let answer = rig.ask(SESSION, IDS[function], &StartInterface { nonce }, drop);
                assert_eq!(answer, world.happen(function, event));
            }
            Deed::Stop { function } => {
                assert_eq!(rig.stop(function), world.happen(function, Event::Stop));
            }
            Deed::Report { function } => {
                let answer = rig.report(function).map(drop);
                assert_eq!(answer, world.happen(function, Event::Report));
            }
            Deed::Command { function, bits } => {
                rig.set_command(function, bits);
                world.set_command(function, bits);
            }
            Deed::Bar { moved } => {
                let address = if moved { ELSEWHERE } else { BAR0 };
                let low = u32::try_from(address).unwrap();
                rig.engines[0].config_write(header::BAR0, &low.to_le_bytes());
                world.set_bar(address);
                // With BAR 2 at zero nothing overlaps once BAR 0 is elsewhere.
                world.placed = true;
            }
            Deed::Sriov { control } => {
                // Without addresses virtual functions overlap themselves.
                if world.sriov != 0 || control == 0 {
                    rig.set_sriov(control);
                    world.set_sriov(control);
                }
            }
            Deed::Msix { function, on } => {
                rig.set_msix_control(function, if on { msix::ENABLE } else { 0 });
                let model = &mut world.functions[function];
                if model.msix != on && model.msix_locked {
                    world.breach(function);
                }
                world.functions[function].msix = on;
            }
            Deed::Reset { function, kind } => {
                rig.engines[function].reset(kind);
                world.reset(function, kind);
            }
            Deed::SetUp { function } => {
                rig.set_up(function);
                if function == 0 {
                    world.set_bar(BAR0);
                    world.placed = true;
                    world.set_sriov(ALL);
                }
                world.set_command(function, BOTH);
            }
            Deed::GiveKeys => {
                rig.give_keys(STREAM);
                world.keys = true;
            }
            Deed::LoseKeys => {
                rig.manager.lose_keys();
                (0..3).for_each(|function| world.breach(function));
                world.keys = false;
            }
            Deed::EndSession => {
                rig.manager.session_ended(SESSION);
                (0..3).for_each(|function| world.breach(function));
            }
            Deed::Trusted { function } => self.try_trusted(function),
        }
    }

    /// Trusted DMA is done in RUN only. Whether the engine is on is no matter of the model.
    fn try_trusted(&self, function: usize) {
        let Self { rig, world } = self;
        rig.ram.accesses();
        let (operation, flags) = (operation::FILL, flag::TRUSTED);
        rig.write(function, device::dma_engine::regs::register::CONTROL, 1);
        rig.submit(function, Job { operation, flags, length: 8, source: 0, destination: RAM });
        rig.run(function);
        let runs = world.functions[function].state == State::Run;
        assert_eq!(!rig.ram.accesses().is_empty(), runs);
        assert_eq!(rig.status(function).0 == status_state::DONE, runs);
        // Zeroes what was written where ones should be.
        if world.functions[function].state == State::Error {
            rig.pages[function].fill(0x1000, 0xf000, u8::MAX);
        }
    }

    fn check(&self) {
        for (function, model) in self.world.functions.iter().enumerate() {
            assert_eq!(self.rig.state(function), model.state, "function {function}");
            let ones = self.rig.read(function, 0) == u32::MAX;
            assert_eq!(ones, model.state == State::Error, "function {function}");
        }
        let mut told = self.rig.changes();
        told.retain(|change| change.from == change.to);
        assert_eq!(told, []);
        let answer = self.rig.ask(SESSION, 0x0103, &GetState, drop);
        assert_eq!(answer, Err(ErrorCode::INVALID_INTERFACE));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever is asked and done in whatever order, the device is where the table says.
    #[test]
    fn any_requests_and_deeds_follow_the_table(
        breaches in any::<bool>(),
        deeds in prop::collection::vec(deed(), 1..60),
    ) {
        let policy = if breaches { FunctionReset::Breaches } else { FunctionReset::Unlocks };
        let settings = Settings { flr_while_locked: policy, ..Settings::default() };
        let mut bench =
            Bench { rig: Rig::with(settings, Ram::new(None)), world: World::new(policy) };
        for deed in deeds {
            bench.take(deed);
            bench.check();
        }
    }
}
