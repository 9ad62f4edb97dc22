//! Many small programs, explored in every way: all ways agree on what can happen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use bindery_explore::{
    Model, Reduction, Replay, Report, Script, Settings, Steps, Verdict, ViolationKind, explore,
};
use proptest::prelude::*;
use sync::{Contents, Life, Mutex, Rank, Refcount, Timers, WaitQueue};

enum Free {}

impl Rank for Free {
    const ORDER: u8 = 1;
    const NAME: &'static str = "lock";
    const ASSERTED: bool = false;
}

/// One of each primitive.
struct World {
    open: Mutex<Free, Number>,
    closed: Mutex<Free, u64>,
    users: Refcount,
    idle: WaitQueue,
    life: Life,
    timers: Timers,
    tick: Arc<WaitQueue>,
}

struct Number(u64);

impl Contents for Number {
    fn contents(&self, into: &mut dyn Hasher) {
        into.write_u64(self.0);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    AddOpen,
    AddClosed,
    /// Takes both locks.
    Move,
    /// Takes both the other way round.
    MoveBack,
    Look,
    Get,
    Put,
    AwaitIdle,
    AwaitOpen,
    AwaitTick,
    Use,
    LookAndUse,
    End,
}

const CALLS: [Call; 13] = [
    Call::AddOpen,
    Call::AddClosed,
    Call::Move,
    Call::MoveBack,
    Call::Look,
    Call::Get,
    Call::Put,
    Call::AwaitIdle,
    Call::AwaitOpen,
    Call::AwaitTick,
    Call::Use,
    Call::LookAndUse,
    Call::End,
];

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

struct Everything;

impl Model for Everything {
    type World = World;
    type Call = Call;
    type Outcome = u64;

    fn setup(&self) -> World {
        World {
            open: Mutex::with_contents(Number(0)),
            closed: Mutex::new(0),
            users: Refcount::new(1),
            idle: WaitQueue::new(),
            life: Life::new(),
            timers: Timers::new(|| {}),
            tick: Arc::new(WaitQueue::new()),
        }
    }

    fn call(&self, world: &World, call: &Call) -> u64 {
        match call {
            Call::AddOpen => {
                let mut number = world.open.lock();
                number.0 += 1;
                drop(number);
                world.idle.wake_all();
            }
            Call::AddClosed => *world.closed.lock() += 1,
            Call::Move => {
                let mut open = world.open.lock();
                let mut closed = world.closed.lock();
                open.0 += 1;
                *closed += open.0;
            }
            Call::MoveBack => {
                let closed = world.closed.lock();
                world.open.lock().0 += *closed;
            }
            Call::Look => {
                let first = world.open.lock().0;
                return first * 100 + *world.closed.lock();
            }
            Call::Get => return u64::from(world.users.inc_not_zero()),
            Call::Put => {
                if world.users.dec_if_one() {
                    world.idle.wake_all();
                    return 1;
                }
                return u64::from(world.users.dec_not_last());
            }
            Call::AwaitIdle => world.idle.wait_zero(&world.users),
            Call::AwaitOpen => {
                return world.idle.wait_while(world.open.lock(), |number| number.0 == 0).0;
            }
            Call::AwaitTick => {
                let deadline = world.timers.arm(5, &world.tick);
                let early = deadline.fired();
                let closed = world.closed.lock();
                let closed =
                    world.tick.wait_while(closed, |closed| *closed == 0 && !deadline.fired());
                return *closed * 2 + u64::from(early);
            }
            Call::Use => world.life.check(),
            Call::LookAndUse => {
                let seen = world.open.lock().0;
                world.life.check();
                return seen;
            }
            Call::End => {
                let used = world.open.lock().0;
                if used > 0 {
                    world.life.end();
                }
                return used;
            }
        }
        0
    }

    fn check(&self, world: &World) {
        assert!(world.open.lock().0 < 100);
    }
}

/// What can happen: which kinds of violation, or else what the calls answer.
#[derive(Debug, PartialEq, Eq)]
enum Verdicts {
    Wrong,
    Fine(BTreeMap<(usize, usize), BTreeSet<u64>>),
}

fn explored(script: &Script<Call>, settings: &Settings) -> Report<Call, u64> {
    explore(&Arc::new(Everything), script, settings, &mut |_| {}).unwrap()
}

fn verdicts(report: &Report<Call, u64>) -> Verdicts {
    match &report.verdict {
        Verdict::Safe => Verdicts::Fine(report.outcomes.clone()),
        Verdict::Counterexample(_) => Verdicts::Wrong,
        Verdict::SafeUpTo { .. } => panic!("{}", report.verdict),
    }
}

fn all(reduction: Reduction, steps: Steps, workers: usize) -> Settings {
    let preemptions = Vec::new();
    Settings { preemptions, reduction, steps, workers, shrink: false, ..Settings::default() }
}

fn scripts() -> impl Strategy<Value = Script<Call>> {
    let thread = prop::collection::vec(prop::sample::select(CALLS.to_vec()), 1..=2);
    prop::collection::vec(thread, 2..=3)
        .prop_filter("small enough for every interleaving", |threads| {
            threads.iter().map(Vec::len).sum::<usize>() <= 3
        })
        .prop_map(Script::new)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_way_of_exploring_agrees(script in scripts()) {
        let plain = all(Reduction::None, Steps::Reduced, 1);
        let plain = explored(&script, &Settings { replay: Replay::Full, ..plain });
        for reduction in [
            Reduction::None,
            Reduction::Sleep,
            Reduction::States,
            Reduction::StatesAndSleep,
            Reduction::Dpor,
        ] {
            let settings = all(reduction, Steps::Reduced, 1);
            let reduced = explored(&script, &settings);
            let full = explored(&script, &Settings { replay: Replay::Full, ..settings });
            prop_assert_eq!(verdicts(&reduced), verdicts(&full), "{:?}: {}", reduction, &script);
            prop_assert_eq!(reduced.counts.states, full.counts.states, "{:?}: {}", reduction, &script);
            prop_assert_eq!(reduced.counts.complete, full.counts.complete);
            prop_assert_eq!(verdicts(&reduced), verdicts(&plain), "{:?}: {}", reduction, &script);
            if verdicts(&plain) != Verdicts::Wrong {
                prop_assert_eq!(&reduced.finals, &plain.finals, "{:?}: {}", reduction, &script);
            }
        }
        if script.calls() == 2 {
            let every = explored(&script, &all(Reduction::States, Steps::Every, 1));
            prop_assert_eq!(verdicts(&every), verdicts(&plain), "each step: {}", &script);
        }
        let shared = explored(&script, &all(Reduction::StatesAndSleep, Steps::Reduced, 3));
        prop_assert_eq!(verdicts(&shared), verdicts(&plain), "three workers: {}", &script);
        let bounds = explored(&script, &Settings { shrink: false, ..Settings::default() });
        prop_assert_eq!(
            matches!(bounds.verdict, Verdict::Safe),
            matches!(plain.verdict, Verdict::Safe),
            "bound by bound: {}", &script
        );
    }
}

#[test]
fn a_counterexample_is_shrunk_to_what_it_needs() {
    use Call::{AddClosed, Get, Look, Move, MoveBack};
    let script = Script::new([vec![Look, Move, Get], vec![AddClosed], vec![MoveBack, Look]]);
    let report = explored(&script, &Settings::default());
    let Verdict::Counterexample(found) = report.verdict else { panic!("{}", report.verdict) };
    assert_eq!(found.violation.kind, ViolationKind::Deadlock);
    assert_eq!(found.script.threads, [vec![Move], vec![MoveBack]]);
    assert_eq!((found.preemptions, found.schedule.steps()), (1, 2));
}
