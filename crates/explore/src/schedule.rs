//! An order of steps as text: to be read, kept, and run again.
//!
//! ```text
//! # schedule 1
//! # threads: bind | close
//! # violation: deadlock: T0 wants Group#3 held by T1; …
//! T0 lock Group#3
//! T1 lock Group#4
//! clock fire Deadline#T0.0.2
//! ```
//!
//! A line for each step: whose, and with what operation it began. Lines that begin with `#` and empty lines are
//! remarks, except that the first line must name the format. A run that does something else at a step has
//! changed since, and the step is told.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::execution::{Execution, Stage, Status};
use crate::model::{Model, Script};
use crate::moves::{Move, Who};
use crate::names::Names;
use crate::picture::Event;
use crate::settings::Settings;
use crate::tally::Found;
use crate::violation::Violation;

/// An order of steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    remarks: Vec<String>,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    who: Who,
    what: String,
}

/// What a schedule led to.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// What went wrong, if something did.
    pub violation: Option<Violation>,
    /// What happened, in order.
    pub tale: Vec<Event>,
    /// What the objects in it are called.
    pub names: Names,
}

/// Why a text is not a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct BadSchedule {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

/// The program does something else than it did when the schedule was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("step {step} was `{expected}`; now {found}")]
pub struct Diverged {
    /// The step, from 1.
    pub step: usize,
    /// What the schedule says.
    pub expected: String,
    /// What the program does.
    pub found: String,
}

impl Schedule {
    pub(crate) fn of<C: fmt::Display>(script: &Script<C>, found: &Found) -> Self {
        let steps = found.path.iter().map(|(made, point)| Step {
            who: Who::from(*made),
            what: point.map_or_else(String::new, |point| point.to_string()),
        });
        let violation = found.violation.to_string().replace('\n', " ");
        let remarks = vec![format!("threads: {script}"), format!("violation: {violation}")];
        Self { remarks, steps: steps.collect() }
    }

    /// The number of steps.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// Runs `script` in this order. What the schedule leaves open goes on with the first thread that can.
    ///
    /// # Errors
    /// [`Diverged`] – a step is not what it was.
    pub fn replay<M: Model>(
        &self,
        model: &Arc<M>,
        script: &Script<M::Call>,
        settings: &Settings,
    ) -> Result<Replayed, Diverged> {
        let mut stage = Stage::new(model, &Arc::new(script.clone()), settings);
        let mut execution = match stage.begin(true) {
            Ok(execution) => execution,
            Err(violation) => {
                let (tale, names) = Default::default();
                return Ok(Replayed { violation: Some(violation), tale, names });
            }
        };
        let roles = stage.roles(&execution);
        let violation = self.follow(&stage, &mut execution, settings.steps_max);
        let violation = violation.map(|violation| match violation {
            None => stage.check(&execution),
            some => some,
        });
        let tale = stage.take_tale();
        let names = stage.take_names(&roles, &tale);
        stage.end(execution);
        Ok(Replayed { violation: violation?, tale, names })
    }

    fn follow<M: Model>(
        &self,
        stage: &Stage<M>,
        execution: &mut Execution<M>,
        steps_max: usize,
    ) -> Result<Option<Violation>, Diverged> {
        for index in 0..steps_max {
            let step = self.steps.get(index);
            let enabled = match (stage.status(execution), step) {
                (Status::Open(enabled), _) => enabled,
                (Status::Violated(violation), None) => return Ok(Some(violation)),
                (Status::Ended, None) => return Ok(None),
                (Status::Violated(violation), Some(step)) => {
                    return Err(step.diverged(index, format!("there is a violation: {violation}")));
                }
                (Status::Ended, Some(step)) => {
                    return Err(step.diverged(index, "every thread has ended".to_owned()));
                }
            };
            let next = match step {
                Some(step) => step.pick(index, stage, &enabled)?,
                None => enabled[0],
            };
            stage.make(execution, next);
        }
        Ok(None)
    }
}

impl Step {
    fn pick<M: Model>(
        &self,
        index: usize,
        stage: &Stage<M>,
        enabled: &[Move],
    ) -> Result<Move, Diverged> {
        let what = |next: &Move| stage.point(*next).map(|point| point.to_string());
        let mut own = enabled.iter().filter(|next| Who::from(**next) == self.who);
        let same = own.clone().find(|next| what(next).as_deref() == Some(&*self.what));
        same.copied().ok_or_else(|| {
            let found = match own.next().and_then(what) {
                Some(what) => format!("{} does `{what}`", self.who),
                None => format!("{} cannot go on", self.who),
            };
            self.diverged(index, found)
        })
    }

    fn diverged(&self, index: usize, found: String) -> Diverged {
        Diverged { step: index + 1, expected: self.to_string(), found }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.who, self.what)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FORMAT}")?;
        self.remarks.iter().try_for_each(|remark| writeln!(f, "# {remark}"))?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl FromStr for Schedule {
    type Err = BadSchedule;

    fn from_str(text: &str) -> Result<Self, BadSchedule> {
        let mut schedule = Self { remarks: Vec::new(), steps: Vec::new() };
        let mut lines = text.lines().map(str::trim).enumerate();
        if lines.next().is_none_or(|(_, first)| first != FORMAT) {
            let problem = format!("a schedule begins with `{FORMAT}`");
            return Err(BadSchedule { line: 1, problem });
        }
        for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
            if let Some(remark) = line.strip_prefix('#') {
                schedule.remarks.push(remark.trim().to_owned());
                continue;
            }
            let step = line.split_once(' ').and_then(|(who, what)| {
                Some(Step { who: who.parse().ok()?, what: what.trim().to_owned() })
            });
            let problem = || format!("`{line}` is not `T0 OPERATION` or `clock OPERATION`");
            let line = index + 1;
            schedule.steps.push(step.ok_or_else(|| BadSchedule { line, problem: problem() })?);
        }
        Ok(schedule)
    }
}

const FORMAT: &str = "# schedule 1";
