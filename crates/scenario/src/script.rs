//! Threads of calls, and the one-line form of them: `tsm_bind vdev0; tsm_unbind vdev0 | close vfio0`.
//!
//! A `|` begins another thread, a `;` another call, `->` lists the outcomes that a call may have:
//! `destroy vdev0 -> ok, EBUSY`. Takes no lock.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use thiserror::Error;
use uapi::Errno;

use crate::words::{Call, WordError};

/// A call, and what it may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The call.
    pub call: Call,
    /// The outcomes that are expected; `None` where any is.
    pub expected: Option<BTreeSet<Outcome>>,
    /// Its bytes in the text that it comes from.
    pub at: Range<usize>,
}

/// What a call answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It is done.
    Ok,
    /// It is refused.
    Refused(Errno),
}

/// What each thread does, in order.
pub type Threads = Vec<Vec<Step>>;

/// Threads that a scenario can have.
pub const THREADS_MAX: usize = 4;
/// Calls that a thread can make.
pub const CALLS_MAX: usize = 16;

/// A script that cannot be understood, and which bytes of it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{cause}")]
pub struct ScriptError {
    /// The bytes.
    pub at: Range<usize>,
    /// Why.
    pub cause: ScriptFault,
}

/// Why a script cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScriptFault {
    /// A call.
    #[error(transparent)]
    Word(#[from] WordError),
    /// No outcome has this name.
    #[error("there is no outcome {0:?}: an outcome is ok or the name of an errno")]
    Outcome(String),
    /// A thread without calls.
    #[error("a thread makes no call here")]
    Empty,
    /// More threads than can be.
    #[error("{0} threads, where at most {THREADS_MAX} can be")]
    Threads(usize),
    /// More calls than can be.
    #[error("{0} calls in a thread, where at most {CALLS_MAX} can be")]
    Calls(usize),
}

/// Reads the one-line form.
///
/// # Errors
/// [`ScriptError`].
pub fn parse(line: &str) -> Result<Threads, ScriptError> {
    let mut threads = Threads::new();
    for (at, thread) in pieces(line, 0, '|') {
        let mut steps = Vec::new();
        for (at, step) in pieces(thread, at, ';') {
            if !step.trim().is_empty() {
                steps.push(Step::parse_at(step, at)?);
            }
        }
        let here = at..at + thread.len();
        if steps.is_empty() {
            return Err(ScriptError { at: here, cause: ScriptFault::Empty });
        }
        if steps.len() > CALLS_MAX {
            return Err(ScriptError { at: here, cause: ScriptFault::Calls(steps.len()) });
        }
        threads.push(steps);
    }
    if threads.len() > THREADS_MAX {
        let cause = ScriptFault::Threads(threads.len());
        return Err(ScriptError { at: 0..line.len(), cause });
    }
    Ok(threads)
}

/// The one-line form of `threads`.
pub fn line(threads: &Threads) -> String {
    let thread =
        |steps: &Vec<Step>| steps.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    threads.iter().map(thread).collect::<Vec<_>>().join(" | ")
}

impl Step {
    /// Reads one step.
    ///
    /// # Errors
    /// [`ScriptError`].
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        Self::parse_at(text, 0)
    }

    /// A step that no text says.
    pub const fn new(call: Call, expected: Option<BTreeSet<Outcome>>) -> Self {
        Self { call, expected, at: 0..0 }
    }

    fn parse_at(text: &str, at: usize) -> Result<Self, ScriptError> {
        let (call, outcomes) = match text.split_once("->") {
            Some((call, outcomes)) => (call, Some(outcomes)),
            None => (text, None),
        };
        let fail = |part: &str, offset: usize, cause: ScriptFault| {
            let lead = part.len() - part.trim_start().len();
            let start = at + offset + lead;
            ScriptError { at: start..start + part.trim().len(), cause }
        };
        let parsed = Call::parse(call).map_err(|error| fail(call, 0, error.into()))?;
        let expected = outcomes.map(|outcomes| {
            let offset = call.len() + "->".len();
            pieces(outcomes, offset, ',')
                .map(|(offset, name)| {
                    let outcome = Outcome::parse(name.trim());
                    outcome.ok_or_else(|| {
                        fail(name, offset, ScriptFault::Outcome(name.trim().to_owned()))
                    })
                })
                .collect::<Result<BTreeSet<_>, _>>()
        });
        let lead = text.len() - text.trim_start().len();
        let at = at + lead..at + lead + text.trim().len();
        Ok(Self { call: parsed, expected: expected.transpose()?, at })
    }
}

impl Outcome {
    /// Reads `ok` or the name of an errno.
    pub fn parse(name: &str) -> Option<Self> {
        if name == "ok" {
            return Some(Self::Ok);
        }
        let errno = Errno::ALL.iter().find(|errno| errno.name() == name)?;
        Some(Self::Refused(*errno))
    }
}

impl From<Result<u32, Errno>> for Outcome {
    fn from(answer: Result<u32, Errno>) -> Self {
        match answer {
            Ok(_) => Self::Ok,
            Err(errno) => Self::Refused(errno),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Refused(errno) => f.write_str(errno.name()),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.call)?;
        let Some(expected) = &self.expected else { return Ok(()) };
        let names: Vec<_> = expected.iter().map(ToString::to_string).collect();
        write!(f, " -> {}", names.join(", "))
    }
}

/// The parts between separators, with the place of each.
fn pieces(text: &str, at: usize, separator: char) -> impl Iterator<Item = (usize, &str)> {
    let mut next = at;
    text.split(separator).map(move |piece| {
        let here = next;
        next += piece.len() + separator.len_utf8();
        (here, piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back_as_it_prints() {
        let text = "tsm_bind vdev0; tsm_unbind vdev0 | destroy vdev0 -> ok, EBUSY | close vfio0";
        let threads = parse(text).unwrap();
        assert_eq!(threads.len(), 3);
        assert_eq!(line(&threads), text);
        assert_eq!(parse(" close vfio0 ; | tsm_disconnect ;").unwrap().len(), 2);
    }

    #[test]
    fn mistakes_have_a_place() {
        let at = |text: &str| {
            let error = parse(text).unwrap_err();
            text[error.at].to_owned()
        };
        assert_eq!(at("close vfio0 | bind vdev0 | map"), "bind vdev0");
        assert_eq!(at("close vfio0 -> ok, EFOO"), "EFOO");
        assert_eq!(at("close vfio0 | ; | map"), " ; ");
        assert_eq!(parse("map|map|map|map|map").unwrap_err().cause, ScriptFault::Threads(5));
        assert_eq!(parse(&"map;".repeat(17)).unwrap_err().cause, ScriptFault::Calls(17));
    }
}
