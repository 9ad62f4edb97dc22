//! What data says of itself decides which states are the same. Data that says nothing, or that declines to, is
//! known by its history and never makes two states one that differ; data that leaves something out is found out
//! by the searches that look at no state.

use std::fmt;
use std::hash::Hasher;
use std::marker::PhantomData;
use std::sync::Arc;

use bindery_explore::{
    Model, Reduction, Replay, Script, Settings, Verdict, ViolationKind, explore,
};
use sync::{Contents, Mutex, Rank};

enum Free {}

impl Rank for Free {
    const ORDER: u8 = 1;
    const NAME: &'static str = "lock";
    const ASSERTED: bool = false;
}

/// Who wrote last, told in one of four ways.
struct Last<H> {
    writer: u8,
    how: PhantomData<H>,
}

trait How: Send + Sync + 'static {
    const NAME: &'static str;
    fn mutex(last: Last<Self>) -> Mutex<Free, Last<Self>>
    where
        Self: Sized;
}

enum Silent {}
enum Honest {}
enum Declining {}
enum Lying {}

impl How for Silent {
    const NAME: &'static str = "silent";
    fn mutex(last: Last<Self>) -> Mutex<Free, Last<Self>> {
        Mutex::new(last)
    }
}

impl How for Honest {
    const NAME: &'static str = "honest";
    fn mutex(last: Last<Self>) -> Mutex<Free, Last<Self>> {
        Mutex::with_contents(last)
    }
}

impl Contents for Last<Honest> {
    fn contents(&self, into: &mut dyn Hasher) {
        into.write_u8(self.writer);
    }
}

impl How for Declining {
    const NAME: &'static str = "declining";
    fn mutex(last: Last<Self>) -> Mutex<Free, Last<Self>> {
        Mutex::with_contents(last)
    }
}

impl Contents for Last<Declining> {
    fn contents(&self, _: &mut dyn Hasher) {}

    fn is_told(&self) -> bool {
        false
    }
}

impl How for Lying {
    const NAME: &'static str = "lying";
    fn mutex(last: Last<Self>) -> Mutex<Free, Last<Self>> {
        Mutex::with_contents(last)
    }
}

impl Contents for Last<Lying> {
    fn contents(&self, _: &mut dyn Hasher) {}
}

/// Two threads write; the second is to be the last.
struct Race<H>(PhantomData<H>);

#[derive(Clone, Copy)]
struct Write(u8);

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "write {}", self.0)
    }
}

impl<H: How> Model for Race<H> {
    type World = Mutex<Free, Last<H>>;
    type Call = Write;
    type Outcome = u8;

    fn setup(&self) -> Self::World {
        H::mutex(Last { writer: 0, how: PhantomData })
    }

    fn call(&self, last: &Self::World, call: &Write) -> u8 {
        last.lock().writer = call.0;
        0
    }

    fn check(&self, last: &Self::World) {
        assert_eq!(last.lock().writer, 2);
    }
}

/// Whether the order is found in which the first thread writes last.
fn finds<H: How>(reduction: Reduction, replay: Replay) -> bool {
    let script = Script::new([vec![Write(1)], vec![Write(2)]]);
    let settings =
        Settings { preemptions: Vec::new(), reduction, replay, workers: 1, ..Settings::default() };
    let report = explore(&Arc::new(Race::<H>(PhantomData)), &script, &settings, &mut |_| {});
    match report.unwrap().verdict {
        Verdict::Counterexample(found) => found.violation.kind == ViolationKind::Check,
        Verdict::Safe => false,
        Verdict::SafeUpTo { .. } => panic!("{}: two steps are explored to the end", H::NAME),
    }
}

fn every_way<H: How>() -> [bool; 5] {
    use Reduction::{Dpor, None, States, StatesAndSleep};
    [
        finds::<H>(None, Replay::Full),
        finds::<H>(Dpor, Replay::Full),
        finds::<H>(States, Replay::Full),
        finds::<H>(StatesAndSleep, Replay::Full),
        finds::<H>(StatesAndSleep, Replay::Unknown),
    ]
}

#[test]
fn what_is_not_told_makes_no_states_the_same() {
    assert_eq!(every_way::<Honest>(), [true; 5]);
    assert_eq!(every_way::<Silent>(), [true; 5]);
    assert_eq!(every_way::<Declining>(), [true; 5]);
}

#[test]
fn searches_that_look_at_no_state_find_out_who_leaves_something_out() {
    let [plain, dpor, .., known_steps] = every_way::<Lying>();
    assert!(plain && dpor);
    assert!(!known_steps, "nothing is left for the other ways to find out");
}
