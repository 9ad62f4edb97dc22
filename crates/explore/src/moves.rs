//! The moves of an execution and the words for them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use sync::hook::{CountOperation, Kind, ObjectId, Operation};

use crate::runtime::maker;

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Move {
    /// A thread takes a step.
    Thread(usize),
    /// A deadline fires.
    Fire(ObjectId),
}

/// The operation with which a step begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    kind: Kind,
    object: ObjectId,
    name: &'static str,
}

impl Point {
    pub(crate) fn of(operation: &Operation) -> Self {
        Self { kind: operation.kind, object: operation.object, name: operation.name }
    }

    /// Whether it goes on after a wake-up, which cannot happen before that.
    pub(crate) fn is_woken(&self) -> bool {
        self.kind == Kind::Sleep
    }

    pub(crate) fn firing(deadline: ObjectId) -> Self {
        Self { kind: Kind::Fire, object: deadline, name: "Deadline" }
    }
}

impl Hash for Point {
    /// The name follows from the object.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.kind, self.object).hash(state);
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", verb(self.kind), object_name(self.name, self.object))
    }
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thread(thread) => write!(f, "T{thread}"),
            Self::Fire(_) => f.write_str(CLOCK),
        }
    }
}

/// Whose move it is, in a schedule file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Thread(usize),
    Clock,
}

impl From<Move> for Who {
    fn from(from: Move) -> Self {
        match from {
            Move::Thread(thread) => Self::Thread(thread),
            Move::Fire(_) => Self::Clock,
        }
    }
}

impl FromStr for Who {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        if word == CLOCK {
            return Ok(Self::Clock);
        }
        let number = word.strip_prefix('T').ok_or(())?;
        number.parse().map(Self::Thread).map_err(|_| ())
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thread(thread) => write!(f, "T{thread}"),
            Self::Clock => f.write_str(CLOCK),
        }
    }
}

const CLOCK: &str = "clock";

/// What an object is called: its kind, and which of those that its maker made. The third of set-up's is
/// `Group#3`; the first that thread 1 made in its third call is `Refcount#T1.2.1`.
pub(crate) fn object_name(name: &str, object: ObjectId) -> String {
    match maker(object) {
        (Some(thread), call, number) => format!("{name}#T{thread}.{call}.{number}"),
        (None, _, number) => format!("{name}#{number}"),
    }
}

fn verb(kind: Kind) -> &'static str {
    match kind {
        Kind::Acquire => "lock",
        Kind::Release => "unlock",
        Kind::Count(CountOperation::Inc) => "inc",
        Kind::Count(CountOperation::IncNotZero) => "inc_not_zero",
        Kind::Count(CountOperation::DecAndTest) => "dec_and_test",
        Kind::Count(CountOperation::DecIfOne) => "dec_if_one",
        Kind::Count(CountOperation::DecNotLast) => "dec_not_last",
        Kind::Count(CountOperation::Read) => "read",
        Kind::WaitCheck => "check",
        Kind::Sleep => "sleep on",
        Kind::Wake => "wake",
        Kind::Use => "use",
        Kind::End => "end",
        Kind::EpochEnter => "enter",
        Kind::EpochLeave => "leave",
        Kind::EpochFlip => "flip",
        Kind::Arm => "arm",
        Kind::Disarm => "disarm",
        Kind::Fire => "fire",
        Kind::Fired => "fired?",
    }
}
