//! Moves along paths by what is known of the steps, and runs what is not.
//!
//! The state is a [`Sketch`]. A step whose [`Effect`] is not known yet is run: an execution is brought to the
//! state, which must be the one that the sketch is of, and what the step does is learned. So the code runs about
//! as often as there are different steps, and not as often as there are states. The end of all threads is
//! checked in an execution wherever the objects hold what they did in no end before.
//!
//! Now and then an execution is brought to a state only to see that it is the one. Takes no lock.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::course::{Course, Work};
use crate::effect::Effect;
use crate::execution::{Answer, Execution, Stage, Status};
use crate::fingerprint::Fingerprint;
use crate::footprint::Footprint;
use crate::frame::Frame;
use crate::model::Model;
use crate::moves::{Move, Point};
use crate::places::Places;
use crate::sketch::{Made, Sketch, standing};
use crate::tally::Nondeterminism;
use crate::violation::Violation;

/// A state and the way to it.
pub(crate) struct Learned<'a, M: Model> {
    stage: Stage<M>,
    places: &'a Places,
    sketch: Option<Sketch<'a>>,
    made: Vec<Made<'a>>,
    /// An execution that has come some way along the path, if it has not left it.
    execution: Option<Follower<M>>,
    checked: BTreeSet<Fingerprint>,
    answers: Vec<Answer<M::Outcome>>,
    work: Work,
    left: u64,
}

struct Follower<M: Model> {
    execution: Execution<M>,
    made: usize,
    /// It has gone where the path does not lead.
    strayed: bool,
}

impl<'a, M: Model> Learned<'a, M> {
    pub(crate) fn new(stage: Stage<M>, places: &'a Places) -> Self {
        Self {
            stage,
            places,
            sketch: None,
            made: Vec::new(),
            execution: None,
            checked: BTreeSet::new(),
            answers: Vec::new(),
            work: Work::default(),
            left: 0,
        }
    }

    fn sketch(&self) -> &Sketch<'a> {
        self.sketch.as_ref().expect("a path is begun before it is followed")
    }

    fn sketch_mut(&mut self) -> &mut Sketch<'a> {
        self.sketch.as_mut().expect("a path is begun before it is followed")
    }

    fn undo(&mut self) {
        let Some(last) = self.made.pop() else { return };
        self.sketch_mut().undo(&last);
        let made = self.made.len();
        if let Some(follower) = &mut self.execution {
            follower.strayed |= follower.made > made;
        }
    }

    /// An execution at its beginning.
    fn begin(&mut self) -> Result<(), Violation> {
        self.end();
        self.work.executions += 1;
        let execution = self.stage.begin(false)?;
        self.execution = Some(Follower { execution, made: 0, strayed: false });
        Ok(())
    }

    fn end(&mut self) {
        if let Some(follower) = self.execution.take() {
            self.answers.extend(self.stage.end(follower.execution));
        }
    }

    /// Brings an execution to the state.
    fn follow(&mut self) -> Result<(), Nondeterminism> {
        let strayed = self.execution.as_ref().is_none_or(|follower| follower.strayed);
        if strayed {
            let begun = self.begin();
            begun.map_err(|violation| Nondeterminism::in_setup(&violation))?;
        }
        let Some(follower) = &mut self.execution else { return Ok(()) };
        while let Some(next) = self.made.get(follower.made) {
            let point = self.stage.point(next.made);
            if point != next.point {
                return Err(Nondeterminism::at(follower.made, next.made, next.point, point));
            }
            self.stage.make(&mut follower.execution, next.made);
            follower.made += 1;
        }
        let here = self.stage.fingerprint();
        match self.made.last() {
            Some(last) if here != self.sketch().fingerprint() => {
                Err(Nondeterminism::otherwise(self.made.len(), last.made, last.point))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Runs a move and keeps what it does.
    fn learn(&mut self, next: Move) -> Result<&'a Effect, Nondeterminism> {
        self.follow()?;
        let origin = self.sketch().origin(next);
        let Some(follower) = &mut self.execution else { unreachable!("it has just followed") };
        let runtime = self.stage.runtime();
        runtime.record();
        self.stage.make(&mut follower.execution, next);
        let mut recording = runtime.take_recording();
        follower.made += 1;
        let thread = match next {
            Move::Thread(index) => {
                Some(runtime.look(|now| standing(self.places, index, &now.threads[index])))
            }
            Move::Fire(_) => None,
        };
        let (changes, difference) = runtime.look(|now| recording.changes(now));
        let effect = Effect {
            changes,
            difference,
            was_woken: origin.woken,
            thread,
            wakes: recording.wakes,
            armed: recording.armed,
            disarmed: recording.disarmed,
            footprint: Arc::new(runtime.footprint()),
            violation: follower.execution.violation(),
        };
        self.work.steps += 1;
        Ok(self.places.get(origin.place).learn(effect))
    }
}

impl<M: Model> Course for Learned<'_, M> {
    type Outcome = M::Outcome;

    fn go_to(&mut self, path: &[Frame]) -> Result<Option<Violation>, Nondeterminism> {
        if self.sketch.is_none() {
            if let Err(violation) = self.begin() {
                return Ok(Some(violation));
            }
            let runtime = self.stage.runtime();
            let sketch = runtime.look(|now| Sketch::of(now, self.places, runtime.clock()));
            self.sketch = Some(sketch);
        }
        let same = self.made.iter().zip(path).take_while(|(made, frame)| made.made == frame.chosen);
        let same = same.count();
        while self.made.len() > same {
            self.undo();
        }
        for frame in &path[same..] {
            self.make(frame.chosen)?;
        }
        if self.left.is_multiple_of(LOOK_EVERY) {
            self.follow()?;
        }
        Ok(None)
    }

    fn status(&mut self) -> Result<Status, Nondeterminism> {
        if let Some(violation) = self.made.last().and_then(|last| last.effect().violation.clone()) {
            return Ok(Status::Violated(violation));
        }
        if self.sketch().has_ended() {
            return Ok(Status::Ended);
        }
        let mut enabled = Vec::new();
        self.sketch().enabled(&mut enabled);
        if !enabled.is_empty() {
            return Ok(Status::Open(enabled));
        }
        self.follow()?;
        let Some(follower) = &self.execution else { unreachable!("it has just followed") };
        Ok(self.stage.status(&follower.execution))
    }

    fn point(&self, next: Move) -> Option<Point> {
        self.sketch().point(next)
    }

    fn make(&mut self, next: Move) -> Result<Arc<Footprint>, Nondeterminism> {
        let known = if self.sketch().is_unwinding() { None } else { self.sketch().foresee(next) };
        let effect = match known {
            Some(effect) => effect,
            None => self.learn(next)?,
        };
        let made = self.sketch_mut().apply(next, effect);
        self.made.push(made);
        Ok(Arc::clone(&effect.footprint))
    }

    fn fingerprint(&self) -> Fingerprint {
        self.sketch().fingerprint()
    }

    fn shared(&self) -> Fingerprint {
        self.sketch().shared()
    }

    fn check(&mut self) -> Result<Option<Violation>, Nondeterminism> {
        if !self.checked.insert(self.shared()) {
            return Ok(None);
        }
        self.follow()?;
        let Some(follower) = &mut self.execution else { unreachable!("it has just followed") };
        follower.strayed = true;
        Ok(self.stage.check(&follower.execution))
    }

    fn leave(&mut self) -> Vec<Answer<M::Outcome>> {
        self.left += 1;
        std::mem::take(&mut self.answers)
    }

    fn close(&mut self) -> Vec<Answer<M::Outcome>> {
        self.end();
        std::mem::take(&mut self.answers)
    }

    fn work(&self) -> Work {
        self.work
    }
}

/// Paths between looks whether the state is the one that an execution comes to.
const LOOK_EVERY: u64 = 1 << 13;
