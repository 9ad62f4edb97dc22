//! How a depth-first search gets from state to state: by running each path from its beginning, or by what is
//! known of the steps.

use std::sync::Arc;

use crate::execution::{Answer, Execution, Stage, Status};
use crate::fingerprint::Fingerprint;
use crate::footprint::Footprint;
use crate::frame::Frame;
use crate::model::Model;
use crate::moves::{Move, Point};
use crate::tally::Nondeterminism;
use crate::violation::Violation;

/// A state that can be moved along a path and back.
pub(crate) trait Course {
    type Outcome;

    /// Goes to the state that `path` leads to. The violation, if set-up has one.
    fn go_to(&mut self, path: &[Frame]) -> Result<Option<Violation>, Nondeterminism>;

    fn status(&mut self) -> Result<Status, Nondeterminism>;

    /// With what a move begins.
    fn point(&self, next: Move) -> Option<Point>;

    /// Makes a move that is possible and returns what it touched.
    fn make(&mut self, next: Move) -> Result<Arc<Footprint>, Nondeterminism>;

    /// The state.
    fn fingerprint(&self) -> Fingerprint;

    /// What all objects hold.
    fn shared(&self) -> Fingerprint;

    /// The model's check, once every thread has ended.
    fn check(&mut self) -> Result<Option<Violation>, Nondeterminism>;

    /// Nothing more is asked of this path. What calls answered that was not told before.
    fn leave(&mut self) -> Vec<Answer<Self::Outcome>>;

    /// Nothing more is asked at all. What calls answered that was not told before.
    fn close(&mut self) -> Vec<Answer<Self::Outcome>>;

    /// Executions and steps so far.
    fn work(&self) -> Work;
}

/// What a search has run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    pub(crate) executions: u64,
    pub(crate) steps: u64,
}

/// Runs every path from its beginning.
pub(crate) struct Replayed<M: Model> {
    stage: Stage<M>,
    execution: Option<Execution<M>>,
    work: Work,
}

impl<M: Model> Replayed<M> {
    pub(crate) fn new(stage: Stage<M>) -> Self {
        Self { stage, execution: None, work: Work::default() }
    }

    fn execution(&self) -> &Execution<M> {
        self.execution.as_ref().expect("a path is begun before it is followed")
    }
}

impl<M: Model> Course for Replayed<M> {
    type Outcome = M::Outcome;

    fn go_to(&mut self, path: &[Frame]) -> Result<Option<Violation>, Nondeterminism> {
        self.work.executions += 1;
        match self.stage.begin(false) {
            Ok(execution) => self.execution = Some(execution),
            Err(violation) => return Ok(Some(violation)),
        }
        for (step, frame) in path.iter().enumerate() {
            let point = self.point(frame.chosen);
            if frame.point != point {
                return Err(Nondeterminism::at(step, frame.chosen, frame.point, point));
            }
            self.make(frame.chosen)?;
        }
        Ok(None)
    }

    fn status(&mut self) -> Result<Status, Nondeterminism> {
        Ok(self.stage.status(self.execution()))
    }

    fn point(&self, next: Move) -> Option<Point> {
        self.stage.point(next)
    }

    fn make(&mut self, next: Move) -> Result<Arc<Footprint>, Nondeterminism> {
        self.work.steps += 1;
        let execution = self.execution.as_mut().expect("a path is begun before it is followed");
        self.stage.make(execution, next);
        Ok(Arc::new(self.stage.footprint()))
    }

    fn fingerprint(&self) -> Fingerprint {
        self.stage.fingerprint()
    }

    fn shared(&self) -> Fingerprint {
        self.stage.shared()
    }

    fn check(&mut self) -> Result<Option<Violation>, Nondeterminism> {
        Ok(self.stage.check(self.execution()))
    }

    fn leave(&mut self) -> Vec<Answer<M::Outcome>> {
        let execution = self.execution.take();
        execution.map_or_else(Vec::new, |execution| self.stage.end(execution))
    }

    fn close(&mut self) -> Vec<Answer<M::Outcome>> {
        self.leave()
    }

    fn work(&self) -> Work {
        self.work
    }
}
