//! Sessions whose heartbeat does not come, on a clock that stands until it is told to go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use spdm::flow::{self, Plan};
use spdm::message::ErrorCode;
use spdm::requester::{Ask, Requester};
use spdm::{Error, Frame};
use sync::Timers;
use tdisp::exchange::{GetState, LockInterface};
use tdisp::{Breach, State};

use crate::mailbox::{Client, host, payload, with_heartbeat};
use crate::rig::{Rig, STREAM};

const PERIOD_S: u8 = 10;
const PERIOD_MS: u64 = 10_000;
/// How often the device looks: half a period.
const LOOK_MS: u64 = PERIOD_MS / 2;

/// A rig with a clock, a requester in a session, and function 0 locked in it.
struct Timed {
    rig: Arc<Rig>,
    timers: Timers,
    now_ms: u64,
    host: Requester,
    keeper: Option<JoinHandle<()>>,
}

impl Timed {
    fn new(heartbeat_s: u8) -> Self {
        let rig = Arc::new(with_heartbeat(heartbeat_s));
        let timers = Timers::new(|| {});
        rig.manager.keep_time(timers.clone());
        rig.give_keys(STREAM);
        let mut host = host();
        flow::establish(&mut host, &mut Client::new(&rig), &Plan::default()).unwrap();
        let manager = rig.manager.clone();
        let keeper = Some(thread::spawn(move || while manager.tend() {}));
        timers.fire_due(0);
        let mut timed = Self { rig, timers, now_ms: 0, host, keeper };
        let lock = LockInterface { default_stream: STREAM, ..LockInterface::default() };
        timed.ask(&Ask::VendorDefined(payload(&lock)));
        assert_eq!(timed.rig.state(0), State::Locked);
        timed
    }

    fn ask(&mut self, ask: &Ask) {
        flow::run(&mut self.host, &mut Client::new(&self.rig), ask).unwrap();
    }

    /// Lets time pass, in steps in which one look is due.
    fn pass(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while self.now_ms < until_ms {
            self.now_ms = (self.now_ms + LOOK_MS).min(until_ms);
            self.timers.fire_due(self.now_ms);
            // Dates the next look, once it is armed.
            wait_until(|| self.timers.next_due() == Some(0) || self.rig.manager.sessions() == 0);
            self.timers.fire_due(self.now_ms);
        }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.rig.manager.end_tending();
        if let Some(keeper) = self.keeper.take() {
            keeper.join().unwrap();
        }
    }
}

fn wait_until(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not come");
        thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn a_session_that_is_silent_for_two_periods_ends_and_what_it_locked_breaks() {
    let mut timed = Timed::new(PERIOD_S);
    let session = tdisp::SessionId(timed.host.session().unwrap().joined());
    timed.pass(2 * PERIOD_MS);
    assert_eq!((timed.rig.manager.sessions(), timed.rig.state(0)), (1, State::Locked));
    timed.rig.changes();
    timed.pass(LOOK_MS);
    assert_eq!((timed.rig.manager.sessions(), timed.rig.state(0)), (0, State::Error));
    let [change] = timed.rig.changes()[..] else { panic!("one change") };
    assert_eq!(change.cause, Some(Breach::SessionEnded(session)));
    let ended = flow::run(&mut timed.host, &mut Client::new(&timed.rig), &Ask::Heartbeat);
    let code = ErrorCode::INVALID_SESSION;
    assert_eq!(ended, Err(Error::Said { code, data: 0 }.into()));
}

#[test]
fn any_record_keeps_a_session() {
    let mut timed = Timed::new(PERIOD_S);
    for ask in [Ask::Heartbeat, Ask::VendorDefined(payload(&GetState)), Ask::Digests] {
        for _ in 0..3 {
            timed.pass(2 * PERIOD_MS);
            timed.ask(&ask);
        }
    }
    assert_eq!((timed.rig.manager.sessions(), timed.rig.state(0)), (1, State::Locked));
    timed.ask(&Ask::EndSession);
    wait_until(|| timed.timers.next_due().is_none());
}

/// What is not of the session does not keep it: a message in the clear, another's record.
#[test]
fn others_do_not_keep_a_session() {
    use spdm::flow::Link;
    let mut timed = Timed::new(PERIOD_S);
    for _ in 0..5 {
        timed.pass(LOOK_MS);
        let mut client = Client::new(&timed.rig);
        for frame in [Frame::Clear(vec![0x13, 0x81, 0, 0]), Frame::Secured(vec![7; 28])] {
            assert!(matches!(client.exchange(&frame), Ok(Frame::Clear(_))));
        }
    }
    assert_eq!(timed.rig.manager.sessions(), 0);
}

#[test]
fn without_a_heartbeat_a_session_lasts() {
    let timed = Timed::new(0);
    assert_eq!(timed.timers.next_due(), None);
    timed.timers.fire_due(u64::MAX);
    assert_eq!(timed.rig.manager.sessions(), 1);
}

/// Exchanges run while looks fall due: a session that is used is never ended.
#[test]
fn looks_and_exchanges_at_once() {
    /// Of two records in a row, each may come at either end of its step.
    const STEP_MS: u64 = 900;
    let mut timed = Timed::new(1);
    let allowed_ms = Arc::new(AtomicU64::new(0));
    let passed_ms = Arc::new(AtomicU64::new(0));
    let clock = {
        let (timers, allowed, passed) =
            (timed.timers.clone(), Arc::clone(&allowed_ms), Arc::clone(&passed_ms));
        thread::spawn(move || {
            for now_ms in 1.. {
                while now_ms > allowed.load(SeqCst) {
                    thread::yield_now();
                }
                if allowed.load(SeqCst) == u64::MAX {
                    return;
                }
                timers.fire_due(now_ms);
                passed.store(now_ms, SeqCst);
            }
        })
    };
    for step in 1..=200 {
        allowed_ms.store(step * STEP_MS, SeqCst);
        timed.ask(&Ask::Heartbeat);
        wait_until(|| passed_ms.load(SeqCst) == step * STEP_MS);
    }
    allowed_ms.store(u64::MAX, SeqCst);
    clock.join().unwrap();
    assert_eq!(timed.rig.state(0), State::Locked);
}
