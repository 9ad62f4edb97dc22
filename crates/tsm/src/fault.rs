//! Faults on demand: what goes wrong, with which operation, how often.
//!
//! Text form, as platform files and the command line have it: `OPERATION=KIND[:NUMBER][*TIMES]`,
//! such as `bind=slow:500`, `lock=busy:2*1`, `unbind=refused`.
//!
//! A fault strikes the first message that an operation has for the device; `null` and
//! `error-after-commit` strike a bind as a whole. Takes the leaf
//! [`rank::TsmFaults`], and only where a function has faults.

use std::fmt;
use std::str::FromStr;

use sync::{Mutex, rank};
use thiserror::Error;

/// One fault of one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What it strikes.
    pub on: Operation,
    /// What happens.
    pub kind: Kind,
    /// How many operations it strikes; `None`: all until it is taken away.
    pub times: Option<u32>,
}

/// What a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The answer is late by so many milliseconds.
    Slow {
        /// How late.
        ms: u64,
    },
    /// There is no answer; the device did not get the request.
    Silent,
    /// The device answers BUSY so many times.
    Busy {
        /// How often.
        times: u32,
    },
    /// An error, and nothing was done.
    ErrorBefore,
    /// An error, and it was done.
    ErrorAfter,
    /// The bind says yes and binds nothing.
    NullBind,
    /// The unbind is refused.
    Refused,
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// What a device is asked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Operation {
            $($(#[$doc])* $name,)*
        }

        impl Operation {
            /// All.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in the text form.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

operations! {
    /// Keys, at connect.
    Connect = "connect";
    /// The end of keys, at disconnect.
    Disconnect = "disconnect";
    /// What a function is asked when it joins a connection.
    Probe = "probe";
    /// What bind asks.
    Bind = "bind";
    /// LOCK.
    Lock = "lock";
    /// The interface report.
    Report = "report";
    /// START.
    Start = "start";
    /// STOP on the guest's demand.
    Stop = "stop";
    /// GET_STATE on the guest's demand.
    State = "state";
    /// STOP at unbind.
    Unbind = "unbind";
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.on, self.kind)?;
        self.times.map_or(Ok(()), |times| write!(f, "*{times}"))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow { ms } => write!(f, "slow:{ms}"),
            Self::Silent => f.write_str("silent"),
            Self::Busy { times } => write!(f, "busy:{times}"),
            Self::ErrorBefore => f.write_str("error-before-commit"),
            Self::ErrorAfter => f.write_str("error-after-commit"),
            Self::NullBind => f.write_str("null"),
            Self::Refused => f.write_str("refused"),
        }
    }
}

/// A text that is no fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{text:?} is no fault; expected OPERATION=KIND, such as bind=slow:500, unbind=refused or \
     lock=busy:2*1; operations: {}; kinds: slow:MS, silent, busy:N, error-before-commit, \
     error-after-commit, null (of bind), refused (of unbind)",
    Operation::ALL.iter().map(|operation| operation.name()).collect::<Vec<_>>().join(", ")
)]
pub struct BadFault {
    /// What was given.
    pub text: String,
}

impl FromStr for Fault {
    type Err = BadFault;

    fn from_str(text: &str) -> Result<Self, BadFault> {
        parse(text).ok_or_else(|| BadFault { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<Fault> {
    let (on, rest) = text.split_once('=')?;
    let on = *Operation::ALL.iter().find(|operation| operation.name() == on)?;
    let (kind, times) = match rest.split_once('*') {
        Some((kind, times)) => (kind, Some(number(times)?)),
        None => (rest, None),
    };
    let kind = match kind.split_once(':') {
        Some(("slow", ms)) => Kind::Slow { ms: number(ms)? },
        Some(("busy", times)) => Kind::Busy { times: number(times)? },
        Some(_) => return None,
        None => match kind {
            "silent" => Kind::Silent,
            "error-before-commit" => Kind::ErrorBefore,
            "error-after-commit" => Kind::ErrorAfter,
            "null" if on == Operation::Bind => Kind::NullBind,
            "refused" if on == Operation::Unbind => Kind::Refused,
            _ => return None,
        },
    };
    Some(Fault { on, kind, times })
}

/// Plain digits: no sign, no space, and not zero, with which a fault would be none.
fn number<T: FromStr + Default + PartialEq>(text: &str) -> Option<T> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_plain)?;
    if number == T::default() { None } else { Some(number) }
}

/// The faults of one function. Shared with the exchanges that run about it.
#[derive(Debug, Default)]
pub(crate) struct Board {
    faults: Mutex<rank::TsmFaults, Vec<Fault>>,
}

impl Board {
    pub(crate) fn add(&self, fault: Fault) {
        self.faults.lock().push(fault);
    }

    /// What strikes an operation that begins, which uses it up by one.
    pub(crate) fn strike(&self, operation: Operation) -> Option<Kind> {
        let mut faults = self.faults.lock();
        let index = faults.iter().position(|f| f.on == operation && f.times != Some(0))?;
        let fault = faults.get_mut(index)?;
        if let Some(times) = &mut fault.times {
            *times -= 1;
        }
        Some(fault.kind)
    }

    pub(crate) fn list(&self) -> Vec<Fault> {
        self.faults.lock().iter().filter(|fault| fault.times != Some(0)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_they_are_written() {
        for text in [
            "bind=slow:500",
            "bind=silent",
            "unbind=refused",
            "bind=error-after-commit",
            "start=error-before-commit*2",
            "bind=null",
            "lock=busy:2*1",
        ] {
            assert_eq!(text.parse::<Fault>().map(|fault| fault.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn other_texts_are_not() {
        for text in [
            "",
            "bind",
            "bind=",
            "bind=slow",
            "bind=slow:",
            "bind=slow:-1",
            "bind=slow:+1",
            "lock=null",
            "bind=refused",
            "bind=silent:1",
            "bind=silent*",
            "bind=silent*0",
            "bind=slow:0",
            "lock=busy:0",
            "fly=silent",
            "bind=slow:99999999999999999999999",
        ] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_fault_strikes_as_often_as_it_says() {
        let board = Board::default();
        board.add("bind=silent*2".parse().unwrap());
        board.add("bind=slow:7".parse().unwrap());
        assert_eq!(board.strike(Operation::Lock), None);
        assert_eq!(board.strike(Operation::Bind), Some(Kind::Silent));
        assert_eq!(board.strike(Operation::Bind), Some(Kind::Silent));
        for _ in 0..3 {
            assert_eq!(board.strike(Operation::Bind), Some(Kind::Slow { ms: 7 }));
        }
        assert_eq!(board.list().len(), 1);
    }
}
