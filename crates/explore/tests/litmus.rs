//! Small programs whose interleavings can be counted by hand.

use std::sync::Arc;

use bindery_explore::{
    Act, Program, Reduction, Report, Script, Settings, Verdict, ViolationKind, explore,
};
use sync::{Deadline, Life, Mutex, Rank, Refcount, Timers, WaitQueue};

/// A rank whose order nobody asserts: what goes wrong is for the explorer to find.
enum Free {}

impl Rank for Free {
    const ORDER: u8 = 1;
    const NAME: &'static str = "lock";
    const ASSERTED: bool = false;
}

type Lock<T> = Mutex<Free, T>;
type Found<W> = Report<Act<W>, bindery_explore::Done>;

const ALL_REDUCTIONS: [Reduction; 5] = [
    Reduction::None,
    Reduction::Sleep,
    Reduction::States,
    Reduction::StatesAndSleep,
    Reduction::Dpor,
];

fn everything(reduction: Reduction) -> Settings {
    Settings { preemptions: Vec::new(), reduction, workers: 1, ..Settings::default() }
}

fn run<W: 'static>(
    program: &Arc<Program<W>>,
    threads: &[&[Act<W>]],
    settings: &Settings,
) -> Found<W> {
    let script = Script::new(threads.iter().map(|calls| calls.to_vec()));
    explore(program, &script, settings, &mut |_| {}).unwrap()
}

fn complete<W: 'static>(
    program: &Arc<Program<W>>,
    threads: &[&[Act<W>]],
    reduction: Reduction,
) -> u64 {
    let report = run(program, threads, &everything(reduction));
    assert!(matches!(report.verdict, Verdict::Safe), "{}", report.verdict);
    report.counts.complete
}

fn violation<W: 'static>(report: &Found<W>) -> ViolationKind {
    match &report.verdict {
        Verdict::Counterexample(found) => found.violation.kind,
        other @ (Verdict::Safe | Verdict::SafeUpTo { .. }) => panic!("{other}"),
    }
}

const ADD: Act<Lock<u32>> = Act::new("add", |lock| *lock.lock() += 1);

#[test]
fn locked_additions_have_as_many_orders_as_permutations() {
    let program = Program::new(|| Lock::new(0), |lock| assert_eq!(*lock.lock(), 3));
    let threads: &[&[_]] = &[&[ADD], &[ADD], &[ADD]];
    assert_eq!(complete(&program, threads, Reduction::None), 6);
    assert_eq!(complete(&program, threads, Reduction::Sleep), 6);
    assert_eq!(complete(&program, threads, Reduction::Dpor), 6);
}

#[test]
fn what_contents_say_joins_states() {
    struct Sum(u64);
    impl sync::Contents for Sum {
        fn contents(&self, into: &mut dyn std::hash::Hasher) {
            into.write_u64(self.0);
        }
    }
    const TELL: Act<Mutex<Free, Sum>> = Act::new("add", |lock| lock.lock().0 += 1);
    let open = Program::new(|| Mutex::with_contents(Sum(0)), |_| ());
    let report = run(&open, &[&[TELL], &[TELL], &[TELL]], &everything(Reduction::States));
    // One for each set of threads that have added.
    assert_eq!(report.counts.states, (1 << 3) - 1);
    assert_eq!(report.finals.len(), 1);

    let closed = Program::new(|| Lock::new(0), |_| ());
    let acts: &[&[_]] = &[&[ADD], &[ADD], &[ADD]];
    let report = run(&closed, acts, &everything(Reduction::States));
    // One for each order in which a set has.
    assert_eq!(report.counts.states, 1 + 3 + 3 * 2);
    assert_eq!(report.finals.len(), 6);
}

#[test]
fn what_commutes_is_run_in_one_order() {
    let program = Program::new(|| Refcount::new(1), |count| assert_eq!(count.read(), 5));
    const RAISE: Act<Refcount> = Act::new("raise", Refcount::inc);
    let threads: &[&[_]] = &[&[RAISE, RAISE], &[RAISE, RAISE]];
    assert_eq!(complete(&program, threads, Reduction::None), 6, "4 over 2");
    assert_eq!(complete(&program, threads, Reduction::Sleep), 1);
    assert_eq!(complete(&program, threads, Reduction::Dpor), 1);
    let report = run(&program, threads, &everything(Reduction::States));
    assert_eq!(report.counts.states, 3 * 3 - 1, "how far each has come, but for the end");
}

#[test]
fn looks_at_what_a_lock_guards_commute() {
    let program = Program::new(|| Lock::new(7), |_| ());
    const LOOK: Act<Lock<u32>> = Act::new("look", |lock| assert_eq!(*lock.lock(), 7));
    let threads: &[&[_]] = &[&[LOOK], &[LOOK], &[LOOK]];
    assert_eq!(complete(&program, threads, Reduction::None), 6);
    assert_eq!(complete(&program, threads, Reduction::Sleep), 1);
    assert_eq!(complete(&program, threads, Reduction::Dpor), 1);
}

struct Pair {
    left: Lock<u32>,
    right: Lock<u32>,
}

fn pair() -> Pair {
    Pair { left: Lock::new(0), right: Lock::new(0) }
}

const LEFT_FIRST: Act<Pair> = Act::new("left, right", |pair| {
    let mut left = pair.left.lock();
    *pair.right.lock() += 1;
    *left += 1;
});

const RIGHT_FIRST: Act<Pair> = Act::new("right, left", |pair| {
    let mut right = pair.right.lock();
    *pair.left.lock() += 1;
    *right += 1;
});

#[test]
fn two_locks_in_one_order_are_safe() {
    let program = Program::new(pair, |pair| assert_eq!(*pair.left.lock(), 2));
    for reduction in ALL_REDUCTIONS {
        // Whoever has the outer lock has both.
        let complete = complete(&program, &[&[LEFT_FIRST], &[LEFT_FIRST]], reduction);
        assert_eq!(complete, 2, "{reduction:?}");
    }
}

#[test]
fn two_locks_in_two_orders_deadlock_after_one_preemption() {
    let program = Program::new(pair, |_| ());
    for reduction in ALL_REDUCTIONS {
        let report = run(&program, &[&[LEFT_FIRST], &[RIGHT_FIRST]], &everything(reduction));
        assert_eq!(violation(&report), ViolationKind::Deadlock, "{reduction:?}");
    }
    let report = run(&program, &[&[LEFT_FIRST], &[RIGHT_FIRST]], &Settings::default());
    let Verdict::Counterexample(found) = report.verdict else { panic!("{}", report.verdict) };
    assert_eq!((found.preemptions, found.schedule.steps()), (1, 2));
    let message = found.violation.message;
    assert_eq!(message, "T0 wants lock#2 held by T1; T1 wants lock#1 held by T0");
}

#[test]
fn a_flag_set_after_its_message_is_never_seen_before_it() {
    struct Mail {
        message: Lock<u32>,
        sent: Lock<bool>,
    }
    const SEND: Act<Mail> = Act::new("send", |mail| {
        *mail.message.lock() = 1;
        *mail.sent.lock() = true;
    });
    const SEND_EARLY: Act<Mail> = Act::new("send early", |mail| {
        *mail.sent.lock() = true;
        *mail.message.lock() = 1;
    });
    const RECEIVE: Act<Mail> = Act::new("receive", |mail| {
        if *mail.sent.lock() {
            assert_eq!(*mail.message.lock(), 1);
        }
    });
    let mail = || Mail { message: Lock::new(0), sent: Lock::new(false) };
    let program = Program::new(mail, |_| ());
    // The receiver looks before the first, between, or after both; only in the last case again.
    assert_eq!(complete(&program, &[&[SEND], &[RECEIVE]], Reduction::None), 3);
    assert_eq!(complete(&program, &[&[SEND], &[RECEIVE]], Reduction::Sleep), 2);
    assert_eq!(complete(&program, &[&[SEND], &[RECEIVE]], Reduction::Dpor), 2);
    for reduction in ALL_REDUCTIONS {
        let report = run(&program, &[&[SEND_EARLY], &[RECEIVE]], &everything(reduction));
        assert_eq!(violation(&report), ViolationKind::Panic, "{reduction:?}");
    }
}

struct Sleepers {
    done: Lock<bool>,
    queue: WaitQueue,
}

const WAIT: Act<Sleepers> = Act::new("wait", |sleepers| {
    drop(sleepers.queue.wait_while(sleepers.done.lock(), |done| !*done));
});
const WAKE: Act<Sleepers> = Act::new("set and wake", |sleepers| {
    *sleepers.done.lock() = true;
    sleepers.queue.wake_all();
});
const WAKE_EARLY: Act<Sleepers> = Act::new("wake and set", |sleepers| {
    sleepers.queue.wake_all();
    *sleepers.done.lock() = true;
});

fn sleepers() -> Sleepers {
    Sleepers { done: Lock::new(false), queue: WaitQueue::new() }
}

#[test]
fn a_wake_up_before_the_change_is_lost() {
    let program = Program::new(sleepers, |_| ());
    for reduction in ALL_REDUCTIONS {
        let report = run(&program, &[&[WAIT], &[WAKE]], &everything(reduction));
        assert!(matches!(report.verdict, Verdict::Safe), "{reduction:?}: {}", report.verdict);
        let report = run(&program, &[&[WAIT], &[WAKE_EARLY]], &everything(reduction));
        assert_eq!(violation(&report), ViolationKind::Deadlock, "{reduction:?}");
    }
    let report = run(&program, &[&[WAIT], &[WAKE_EARLY]], &Settings::default());
    let Verdict::Counterexample(found) = report.verdict else { panic!("{}", report.verdict) };
    assert_eq!(found.violation.message, "T0 sleeps on WaitQueue#2 and nobody wakes it");
}

struct Shared {
    users: Refcount,
    life: Life,
    used: Lock<u32>,
}

fn shared() -> Shared {
    Shared { users: Refcount::new(2), life: Life::new(), used: Lock::new(0) }
}

const PUT: Act<Shared> = Act::new("put", |shared| {
    if shared.users.dec_and_test() {
        shared.life.end();
    }
});
const USE_AND_PUT: Act<Shared> = Act::new("use and put", |shared| {
    shared.life.check();
    if shared.users.dec_and_test() {
        shared.life.end();
    }
});
const PUT_AND_USE: Act<Shared> = Act::new("put and use", |shared| {
    if shared.users.dec_and_test() {
        return shared.life.end();
    }
    shared.life.check();
});
/// The use follows the release of a lock in what would be one step.
const LOOK_AND_USE: Act<Shared> = Act::new("look and use", |shared| {
    *shared.used.lock() += 1;
    shared.life.check();
});
const LOOK_AND_END: Act<Shared> = Act::new("look and end", |shared| {
    if *shared.used.lock() > 0 {
        shared.life.end();
    }
});

#[test]
fn a_use_after_the_last_put_is_found() {
    let program = Program::new(shared, |_| ());
    for reduction in ALL_REDUCTIONS {
        let report = run(&program, &[&[USE_AND_PUT], &[USE_AND_PUT]], &everything(reduction));
        assert!(matches!(report.verdict, Verdict::Safe), "{reduction:?}: {}", report.verdict);
        for thread in [PUT_AND_USE, LOOK_AND_USE] {
            let other = if thread.name() == "put and use" { PUT } else { LOOK_AND_END };
            let report = run(&program, &[&[thread], &[other]], &everything(reduction));
            assert_eq!(violation(&report), ViolationKind::UseAfterEnd, "{reduction:?}");
        }
    }
}

struct Table {
    forks: Vec<Lock<u32>>,
}

impl Table {
    fn eat(&self, first: usize, second: usize) {
        let mut one = self.forks[first].lock();
        let mut other = self.forks[second].lock();
        *one += 1;
        *other += 1;
    }
}

const PHILOSOPHERS: [Act<Table>; 3] = [
    Act::new("eat 0", |table| table.eat(0, 1)),
    Act::new("eat 1", |table| table.eat(1, 2)),
    Act::new("eat 2", |table| table.eat(2, 0)),
];
const ORDERLY: Act<Table> = Act::new("eat 2 in order", |table| table.eat(0, 2));

#[test]
fn philosophers_starve_unless_one_reaches_the_other_way() {
    let set_table = || Table { forks: (0..3).map(|_| Lock::new(0)).collect() };
    let program = Program::new(set_table, |table| assert_eq!(*table.forks[0].lock(), 2));
    let [one, two, three] = PHILOSOPHERS;
    for reduction in ALL_REDUCTIONS {
        let threads: &[&[_]] = &[&[one], &[two], &[three]];
        let report = run(&program, threads, &everything(reduction));
        assert_eq!(violation(&report), ViolationKind::Deadlock, "{reduction:?}");
        let threads: &[&[_]] = &[&[one], &[two], &[ORDERLY]];
        let report = run(&program, threads, &everything(reduction));
        assert!(matches!(report.verdict, Verdict::Safe), "{reduction:?}: {}", report.verdict);
    }
    let threads: &[&[_]] = &[&[one], &[two], &[three]];
    let report = run(&program, threads, &Settings::default());
    let Verdict::Counterexample(found) = report.verdict else { panic!("{}", report.verdict) };
    // Who was not interrupted waits for the fork of one who was.
    assert_eq!((found.preemptions, found.schedule.steps()), (1, 3));
}

struct Slow {
    timers: Timers,
    queue: Arc<WaitQueue>,
    answered: Lock<bool>,
}

fn slow() -> Slow {
    let timers = Timers::new(|| {});
    Slow { timers, queue: Arc::new(WaitQueue::new()), answered: Lock::new(false) }
}

impl Slow {
    /// Waits for an answer or the deadline; says which came.
    fn await_answer(&self) -> bool {
        let deadline: Deadline = self.timers.arm(1_000, &self.queue);
        let answered = self.answered.lock();
        *self.queue.wait_while(answered, |answered| !*answered && !deadline.fired())
    }
}

const ASK: Act<Slow> = Act::new("ask", |slow| {
    slow.await_answer();
});
const INSIST: Act<Slow> = Act::new("insist", |slow| assert!(slow.await_answer(), "no answer"));
const ANSWER: Act<Slow> = Act::new("answer", |slow| {
    *slow.answered.lock() = true;
    slow.queue.wake_all();
});

fn asking() -> Arc<Program<Slow>> {
    Program::new(slow, |slow| {
        slow.await_answer();
    })
}

#[test]
fn a_deadline_may_fire_at_any_moment_while_it_is_armed() {
    for reduction in ALL_REDUCTIONS {
        let safe: [&[&[_]]; 2] = [&[&[ASK]], &[&[ASK], &[ANSWER]]];
        for threads in safe {
            let report = run(&asking(), threads, &everything(reduction));
            assert!(matches!(report.verdict, Verdict::Safe), "{reduction:?}: {}", report.verdict);
        }
        let report = run(&asking(), &[&[INSIST], &[ANSWER]], &everything(reduction));
        assert_eq!(violation(&report), ViolationKind::Panic, "{reduction:?}");
    }
}

#[test]
fn where_no_deadline_fires_whoever_needs_one_waits_for_ever() {
    for reduction in ALL_REDUCTIONS {
        let settings = Settings { deadlines: false, ..everything(reduction) };
        let report = run(&asking(), &[&[ASK]], &settings);
        assert_eq!(violation(&report), ViolationKind::Deadlock, "{reduction:?}");
        let report = run(&asking(), &[&[INSIST], &[ANSWER]], &settings);
        assert!(matches!(report.verdict, Verdict::Safe), "{reduction:?}: {}", report.verdict);
    }
}
