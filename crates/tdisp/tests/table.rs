//! Every cell of the table of an interface, over the wire: what each event answers in each state, where
//! it leads, and what the device hears of it.

#[expect(dead_code, reason = "the table needs no other function and no raw bytes")]
mod rig;

use bindery_tdisp::exchange::{GetCapabilities, GetReport, GetState, GetVersion, LockInterface};
use bindery_tdisp::{Breach, DeviceRefusal, LockFlags, Nonce, Refused, Settings, State};

use rig::{OTHER, PF, Rig, US};

/// What happens: an event of the table, in one of the ways that there are.
type Deed = fn(&mut Rig, Nonce) -> Result<(), Refused>;

/// A row: the deed, and for `CONFIG_UNLOCKED`, `CONFIG_LOCKED`, `RUN` and `ERROR` what is answered and
/// where it leads.
type Row = (&'static str, Deed, [(&'static str, State); 4]);

const OK: &str = "";
const STATE: &str = "INVALID_INTERFACE_STATE";
const REQUEST: &str = "INVALID_REQUEST";
const CONFIG: &str = "INVALID_DEVICE_CONFIGURATION";
const ENTROPY: &str = "INSUFFICIENT_ENTROPY";
const NONCE: &str = "INVALID_NONCE";
const U: State = State::Unlocked;
const L: State = State::Locked;
const R: State = State::Run;
const E: State = State::Error;

#[rustfmt::skip]
const ROWS: [Row; 24] = [
    ("GET_VERSION",             |rig, _| rig.ask(US, PF, GetVersion, |_| ()),  [(OK, U), (OK, L), (OK, R), (OK, E)]),
    ("GET_CAPABILITIES",        |rig, _| rig.ask(US, PF, GetCapabilities::default(), drop), [(OK, U), (OK, L), (OK, R), (OK, E)]),
    ("GET_STATE",               |rig, _| rig.ask(US, PF, GetState, drop),      [(OK, U), (OK, L), (OK, R), (OK, E)]),
    ("GET_STATE elsewhere",     |rig, _| rig.ask(OTHER, PF, GetState, drop),   [(OK, U), (OK, L), (OK, R), (OK, E)]),
    ("LOCK",                    |rig, _| lock(rig, LockInterface::default()),  [(OK, L), (STATE, L), (STATE, R), (STATE, E)]),
    ("LOCK elsewhere",          |rig, _| rig.ask(OTHER, PF, LockInterface::default(), drop), [(OK, L), (STATE, L), (STATE, R), (STATE, E)]),
    ("LOCK without keys",       |rig, _| refusing(rig, DeviceRefusal::InsecureStream), [(REQUEST, U), (STATE, L), (STATE, R), (STATE, E)]),
    ("LOCK, flag not offered",  |rig, _| rig.lock(PF, LockFlags(0x8000)).map(drop), [(REQUEST, U), (STATE, L), (STATE, R), (STATE, E)]),
    ("LOCK, offset in a page",  |rig, _| lock(rig, HALF_A_PAGE),               [(REQUEST, U), (STATE, L), (STATE, R), (STATE, E)]),
    ("LOCK, not set up",        |rig, _| refusing(rig, DeviceRefusal::Misconfigured), [(CONFIG, U), (STATE, L), (STATE, R), (STATE, E)]),
    ("LOCK without entropy",    |rig, _| dry(rig),                             [(ENTROPY, U), (STATE, L), (STATE, R), (STATE, E)]),
    ("REPORT",                  |rig, _| report(rig, 0),                       [(STATE, U), (OK, L), (OK, R), (STATE, E)]),
    ("REPORT past the end",     |rig, _| report(rig, 0xffff),                  [(STATE, U), (REQUEST, L), (REQUEST, R), (STATE, E)]),
    ("START",                   |rig, nonce| rig.start(US, PF, nonce),         [(STATE, U), (OK, R), (STATE, R), (STATE, E)]),
    ("START, wrong nonce",      |rig, _| rig.start(US, PF, Nonce([0xee; 32])), [(STATE, U), (NONCE, L), (STATE, R), (STATE, E)]),
    ("START, nonce of zeros",   |rig, _| rig.start(US, PF, Nonce([0; 32])),    [(STATE, U), (NONCE, L), (STATE, R), (STATE, E)]),
    ("START elsewhere",         |rig, nonce| rig.start(OTHER, PF, nonce),      [(STATE, U), (NONCE, L), (STATE, R), (STATE, E)]),
    ("STOP",                    |rig, _| rig.stop(PF),                         [(OK, U), (OK, U), (OK, U), (OK, U)]),
    ("breach",                  |rig, _| breach(rig, Breach::MemoryCleared),   [(OK, U), (OK, E), (OK, E), (OK, E)]),
    ("the session's end",       |rig, _| breach(rig, Breach::SessionEnded(US)), [(OK, U), (OK, E), (OK, E), (OK, E)]),
    ("another session's end",   |rig, _| breach(rig, Breach::SessionEnded(OTHER)), [(OK, U), (OK, L), (OK, R), (OK, E)]),
    ("the stream insecure",     |rig, _| breach(rig, Breach::StreamInsecure(0)), [(OK, U), (OK, E), (OK, E), (OK, E)]),
    ("another stream insecure", |rig, _| breach(rig, Breach::StreamInsecure(1)), [(OK, U), (OK, L), (OK, R), (OK, E)]),
    ("reset",                   |rig, _| { rig.dsm.reset_function(PF); Ok(()) }, [(OK, U), (OK, U), (OK, U), (OK, U)]),
];

const HALF_A_PAGE: LockInterface = LockInterface {
    flags: LockFlags(0),
    default_stream: 0,
    mmio_reporting_offset: 0x800,
    p2p_address_mask: 0,
};

#[test]
fn every_cell() {
    for (name, deed, cells) in ROWS {
        for (before, (expected, after)) in State::ALL.into_iter().zip(cells) {
            let (mut rig, nonce) = brought(before);
            let told = match deed(&mut rig, nonce) {
                Ok(()) => String::new(),
                Err(Refused::Error { code, .. }) => code.to_string(),
                Err(other) => panic!("{name} in {before}: {other:?}"),
            };
            let change = rig.change.take();
            assert_eq!((told.as_str(), rig.state(PF)), (expected, after), "{name} in {before}");
            assert!(
                change.is_none_or(|change| change.to == after && expected.is_empty()),
                "{name}"
            );
        }
    }
}

/// What is refused leaves nothing behind: what would have led on before still does, and nothing else.
#[test]
fn what_is_refused_leaves_nothing_behind() {
    for (name, deed, cells) in ROWS {
        for (before, (expected, _)) in State::ALL.into_iter().zip(cells) {
            if expected.is_empty() {
                continue;
            }
            let (mut rig, nonce) = brought(before);
            assert!(deed(&mut rig, nonce).is_err());
            (rig.device.refuses, rig.device.dry) = (None, false);
            let started = rig.start(US, PF, nonce);
            assert_eq!(started.is_ok(), before == State::Locked, "{name} in {before}");
            rig.stop(PF).unwrap();
            let fresh = rig.lock(PF, LockFlags::default()).unwrap();
            assert_ne!(fresh, nonce, "{name} in {before}");
            assert!(rig.start(US, PF, nonce).is_err(), "the nonce of before: {name} in {before}");
            rig.start(US, PF, fresh).unwrap();
        }
    }
}

/// An interface in a state, and the nonce that it gave on the way.
fn brought(state: State) -> (Rig, Nonce) {
    let mut rig = Rig::new(Settings::default());
    let mut nonce = Nonce([0x55; 32]);
    if state != State::Unlocked {
        nonce = rig.lock(PF, LockFlags::default()).unwrap();
    }
    if state == State::Run {
        rig.start(US, PF, nonce).unwrap();
    }
    if state == State::Error {
        rig.dsm.breach(PF, Breach::BarWritten).unwrap();
    }
    assert_eq!(rig.state(PF), state);
    (rig, nonce)
}

fn lock(rig: &mut Rig, body: LockInterface) -> Result<(), Refused> {
    rig.ask(US, PF, body, drop)
}

fn refusing(rig: &mut Rig, refusal: DeviceRefusal) -> Result<(), Refused> {
    rig.device.refuses = Some(refusal);
    lock(rig, LockInterface::default())
}

fn dry(rig: &mut Rig) -> Result<(), Refused> {
    rig.device.dry = true;
    lock(rig, LockInterface::default())
}

fn report(rig: &mut Rig, offset: u16) -> Result<(), Refused> {
    rig.ask(US, PF, GetReport { offset, length: 16 }, |_| ())
}

fn breach(rig: &mut Rig, breach: Breach) -> Result<(), Refused> {
    rig.dsm.breach(PF, breach);
    Ok(())
}
