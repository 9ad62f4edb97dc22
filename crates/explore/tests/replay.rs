//! A schedule is kept as text, leads to the same again, and notices a program that has changed.

use std::cell::Cell;
use std::sync::Arc;

use bindery_explore::{
    Act, BadSchedule, Counterexample, Model, Program, Replay, Schedule, Script, Settings, Verdict,
    explore,
};
use sync::{Mutex, Named, Rank};

enum Free {}

impl Rank for Free {
    const ORDER: u8 = 1;
    const NAME: &'static str = "lock";
    const ASSERTED: bool = false;
}

struct Pair {
    left: Mutex<Free, u32>,
    right: Mutex<Free, u32>,
}

const FORTH: Act<Pair> = Act::new("forth", |pair| {
    let mut left = pair.left.lock();
    *pair.right.lock() += 1;
    *left += 1;
});
const BACK: Act<Pair> = Act::new("back", |pair| {
    let mut right = pair.right.lock();
    *pair.left.lock() += 1;
    *right += 1;
});

fn program() -> Arc<Program<Pair>> {
    Program::new(|| Pair { left: Mutex::new(0), right: Mutex::new(0) }, |_| ())
}

fn deadlock() -> Counterexample<Act<Pair>> {
    let script = Script::new([vec![FORTH], vec![BACK]]);
    // Of two counterexamples of one length, several workers may meet either first.
    let settings = Settings { workers: 1, ..Settings::default() };
    let report = explore(&program(), &script, &settings, &mut |_| {}).unwrap();
    let Verdict::Counterexample(found) = report.verdict else { panic!("{}", report.verdict) };
    *found
}

#[test]
fn a_schedule_reads_as_it_was_written_and_leads_to_the_same() {
    let found = deadlock();
    let text = found.schedule.to_string();
    let expected = "# schedule 1\n\
                    # threads: forth | back\n\
                    # violation: deadlock: T0 wants lock#2 held by T1; T1 wants lock#1 held by T0\n\
                    T0 lock lock#1\n\
                    T1 lock lock#2\n";
    assert_eq!(text, expected);
    let schedule: Schedule = text.parse().unwrap();
    assert_eq!(schedule, found.schedule);
    let again = schedule.replay(&program(), &found.script, &Settings::default()).unwrap();
    assert_eq!(again.violation, Some(found.violation));
    let steps: Vec<_> =
        again.tale.iter().map(|event| (event.thread, event.what.as_str())).collect();
    let forth = [(Some(0), "--> forth"), (Some(1), "--> back")];
    assert_eq!(steps[..2], forth, "threads are brought to their first step");
    assert_eq!(steps[2..], [(Some(0), "lock lock#1"), (Some(1), "lock lock#2")]);
}

#[test]
fn names_are_for_people_and_no_part_of_states_or_schedules() {
    let named = Program::new(
        || {
            let of = |owner: &'static str| move || owner.to_owned();
            let left = Mutex::new(0).named("lock", of("left"));
            Pair { left, right: Mutex::new(0).named("", of("right")) }
        },
        |_| (),
    );
    let found = deadlock();
    let again = found.schedule.replay(&named, &found.script, &Settings::default()).unwrap();
    let violation = again.violation.expect("the order leads to the same");
    assert_eq!(violation, found.violation);
    let said = "T0 wants right held by T1; T1 wants left.lock held by T0";
    assert_eq!(again.names.apply(&violation.message), said);

    let safe = Script::new([vec![FORTH, FORTH], vec![FORTH]]);
    let settings = Settings { workers: 1, ..Settings::default() };
    let ends = |program: &Arc<Program<Pair>>| {
        let report = explore(program, &safe, &settings, &mut |_| {}).unwrap();
        assert!(matches!(report.verdict, Verdict::Safe));
        (report.counts, report.finals)
    };
    assert_eq!(ends(&named), ends(&program()));
}

#[test]
fn a_changed_program_is_noticed() {
    let found = deadlock();
    let script = Script::new([vec![BACK], vec![FORTH]]);
    let diverged = found.schedule.replay(&program(), &script, &Settings::default()).unwrap_err();
    let message = "step 1 was `T0 lock lock#1`; now T0 does `lock lock#2`";
    assert_eq!(diverged.to_string(), message);

    let script = Script::new([vec![FORTH], vec![FORTH]]);
    let diverged = found.schedule.replay(&program(), &script, &Settings::default()).unwrap_err();
    assert_eq!(diverged.to_string(), "step 2 was `T1 lock lock#2`; now T1 cannot go on");
}

#[test]
fn what_a_schedule_leaves_open_goes_on() {
    let nothing: Schedule = "# schedule 1\n\n# only this\n".parse().unwrap();
    let script = Script::new([vec![FORTH], vec![BACK]]);
    let replayed = nothing.replay(&program(), &script, &Settings::default()).unwrap();
    assert_eq!(replayed.violation, None);
    assert!(replayed.tale.iter().any(|event| event.what == "<-- back = done"));
}

#[test]
fn what_is_no_schedule_is_refused_with_its_line() {
    let refusal = |text: &str| text.parse::<Schedule>().unwrap_err().to_string();
    assert_eq!(refusal(""), "line 1: a schedule begins with `# schedule 1`");
    assert_eq!(refusal("# schedule 2\n"), "line 1: a schedule begins with `# schedule 1`");
    let lines = ["Tx lock a", "T0", "0 lock a", "clocks fire a"];
    for line in lines {
        let BadSchedule { line: at, problem } =
            format!("# schedule 1\n\n{line}\n").parse::<Schedule>().unwrap_err();
        assert_eq!(at, 3);
        assert!(problem.starts_with(&format!("`{line}` is not")), "{problem}");
    }
}

/// Does something else each time.
struct Moody;

thread_local! {
    static RUNS: Cell<u32> = const { Cell::new(0) };
}

impl Model for Moody {
    type World = Pair;
    type Call = &'static str;
    type Outcome = u32;

    fn setup(&self) -> Pair {
        RUNS.set(RUNS.get() + 1);
        Pair { left: Mutex::new(0), right: Mutex::new(0) }
    }

    fn call(&self, pair: &Pair, _: &&'static str) -> u32 {
        let lock = if RUNS.get() % 3 == 2 { &pair.left } else { &pair.right };
        *lock.lock() += 1;
        *pair.left.lock()
    }

    fn check(&self, _: &Pair) {}
}

#[test]
fn code_that_is_not_deterministic_is_told_with_its_step() {
    let script = Script::new([vec!["one"], vec!["two"]]);
    for (replay, now) in
        [(Replay::Full, "lock lock#1"), (Replay::Unknown, "lock lock#2, to another end")]
    {
        RUNS.set(0);
        let settings = Settings { preemptions: vec![], workers: 1, replay, ..Settings::default() };
        let told = explore(&Arc::new(Moody), &script, &settings, &mut |_| {}).unwrap_err();
        assert_eq!(told.step, 1);
        assert_eq!((told.before.as_str(), told.now.as_str()), ("lock lock#2", now));
    }
}
