//! The state machine of an interface, as data: what each event does in each state.
//!
//! Takes no decision of its own: whether a nonce is right or a stream secure is part of the event.
//! Source: tee-io-validator cases 3-7 and Cerberus; the column of `ERROR` from the rule that only
//! STOP leaves it.

use core::fmt;

use crate::ErrorCode;
use Outcome::{Go, Refuse, Stay};
use State::{Error, Locked, Run, Unlocked};

/// The state of an interface, with its number on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// `CONFIG_UNLOCKED`: the host may set the interface up.
    #[default]
    Unlocked = 0,
    /// `CONFIG_LOCKED`: the configuration holds, the guest may judge it.
    Locked = 1,
    /// `RUN`: trusted by the guest.
    Run = 2,
    /// `ERROR`: the configuration did not hold.
    Error = 3,
}

impl State {
    /// All, by number.
    pub const ALL: [Self; 4] = [Unlocked, Locked, Run, Error];

    /// The name in the protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Unlocked => "CONFIG_UNLOCKED",
            Locked => "CONFIG_LOCKED",
            Run => "RUN",
            Error => "ERROR",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happens to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// GET_VERSION, GET_CAPABILITIES or GET_DEVICE_INTERFACE_STATE.
    Ask,
    /// LOCK_INTERFACE_REQUEST, and nothing speaks against it.
    Lock,
    /// LOCK_INTERFACE_REQUEST for a stream without keys, or with a field that makes no sense.
    LockWrongly,
    /// LOCK_INTERFACE_REQUEST, and the device is not set up for it.
    LockMisconfigured,
    /// LOCK_INTERFACE_REQUEST, and no nonce can be made.
    LockWithoutEntropy,
    /// GET_DEVICE_INTERFACE_REPORT.
    Report,
    /// START_INTERFACE_REQUEST with the nonce of LOCK.
    Start,
    /// START_INTERFACE_REQUEST with any other nonce.
    StartWrongNonce,
    /// STOP_INTERFACE_REQUEST.
    Stop,
    /// The configuration did not hold.
    Breach,
    /// A reset that takes the interface back to where it began.
    Reset,
}

/// What an event does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, and the state stays.
    Stay,
    /// It is done, and this is the state now, which may be the one that was.
    Go(State),
    /// It is refused, and the state stays.
    Refuse(ErrorCode),
}

const STATE: Outcome = Refuse(ErrorCode::INVALID_INTERFACE_STATE);
const REQUEST: Outcome = Refuse(ErrorCode::INVALID_REQUEST);
const CONFIG: Outcome = Refuse(ErrorCode::INVALID_DEVICE_CONFIGURATION);
const ENTROPY: Outcome = Refuse(ErrorCode::INSUFFICIENT_ENTROPY);
const NONCE: Outcome = Refuse(ErrorCode::INVALID_NONCE);

/// Every event in every state; the columns are [`State::ALL`].
#[rustfmt::skip]
pub const TABLE: [(Event, [Outcome; 4]); 11] = [
    //                           UNLOCKED      LOCKED        RUN           ERROR
    (Event::Ask,                [Stay,         Stay,         Stay,         Stay]),
    (Event::Lock,               [Go(Locked),   STATE,        STATE,        STATE]),
    (Event::LockWrongly,        [REQUEST,      STATE,        STATE,        STATE]),
    (Event::LockMisconfigured,  [CONFIG,       STATE,        STATE,        STATE]),
    (Event::LockWithoutEntropy, [ENTROPY,      STATE,        STATE,        STATE]),
    (Event::Report,             [STATE,        Stay,         Stay,         STATE]),
    (Event::Start,              [STATE,        Go(Run),      STATE,        STATE]),
    (Event::StartWrongNonce,    [STATE,        NONCE,        STATE,        STATE]),
    (Event::Stop,               [Go(Unlocked), Go(Unlocked), Go(Unlocked), Go(Unlocked)]),
    (Event::Breach,             [Stay,         Go(Error),    Go(Error),    Stay]),
    (Event::Reset,              [Go(Unlocked), Go(Unlocked), Go(Unlocked), Go(Unlocked)]),
];

/// What `event` does in `state`.
pub const fn outcome(state: State, event: Event) -> Outcome {
    TABLE[event as usize].1[state as usize]
}

const _: () = {
    let mut row = 0;
    while row < TABLE.len() {
        assert!(TABLE[row].0 as usize == row, "rows stand in the order of Event");
        row += 1;
    }
    assert!(TABLE.len() == Event::Reset as usize + 1, "every event has a row");
};

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;

    use super::*;

    const GRID: &str = "\
Ask                | stays                        | stays                        | stays                        | stays
Lock               | CONFIG_LOCKED                | INVALID_INTERFACE_STATE      | INVALID_INTERFACE_STATE      | INVALID_INTERFACE_STATE
LockWrongly        | INVALID_REQUEST              | INVALID_INTERFACE_STATE      | INVALID_INTERFACE_STATE      | INVALID_INTERFACE_STATE
LockMisconfigured  | INVALID_DEVICE_CONFIGURATION | INVALID_INTERFACE_STATE      | INVALID_INTERFACE_STATE      | INVALID_INTERFACE_STATE
LockWithoutEntropy | INSUFFICIENT_ENTROPY         | INVALID_INTERFACE_STATE      | INVALID_INTERFACE_STATE      | INVALID_INTERFACE_STATE
Report             | INVALID_INTERFACE_STATE      | stays                        | stays                        | INVALID_INTERFACE_STATE
Start              | INVALID_INTERFACE_STATE      | RUN                          | INVALID_INTERFACE_STATE      | INVALID_INTERFACE_STATE
StartWrongNonce    | INVALID_INTERFACE_STATE      | INVALID_NONCE                | INVALID_INTERFACE_STATE      | INVALID_INTERFACE_STATE
Stop               | CONFIG_UNLOCKED              | CONFIG_UNLOCKED              | CONFIG_UNLOCKED              | CONFIG_UNLOCKED
Breach             | stays                        | ERROR                        | ERROR                        | stays
Reset              | CONFIG_UNLOCKED              | CONFIG_UNLOCKED              | CONFIG_UNLOCKED              | CONFIG_UNLOCKED
";

    /// The grid is the contract: a change of it must be seen by whoever reads the change.
    #[test]
    fn every_event_in_every_state() {
        let mut grid = String::new();
        for (event, _) in TABLE {
            let cells = State::ALL.map(|state| match outcome(state, event) {
                Stay => String::from("stays"),
                Go(next) => format!("{next}"),
                Refuse(code) => format!("{code}"),
            });
            let cells = cells.map(|cell| format!("{cell:28}")).join(" | ");
            grid += &format!("{:18} | {}\n", format!("{event:?}"), cells.trim_end());
        }
        assert_eq!(grid, GRID, "\n{grid}");
    }

    #[test]
    fn only_stop_and_reset_leave_error() {
        let leaving = TABLE
            .into_iter()
            .filter(|(event, _)| matches!(outcome(Error, *event), Go(next) if next != Error));
        assert!(leaving.map(|(event, _)| event).eq([Event::Stop, Event::Reset]));
    }
}
