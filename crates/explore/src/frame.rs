//! A state on the path that a depth-first search is on: what was tried there and what is left.

use std::sync::Arc;

use crate::footprint::Footprint;
use crate::moves::{Move, Point};

/// A state on the path.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// Moves that lead nowhere new from here: another order of the same steps is or was tried.
    pub(crate) asleep: Vec<Tried>,
    /// Moves tried before `chosen`.
    pub(crate) tried: Vec<Tried>,
    /// Moves to try after `chosen`, last first.
    pub(crate) todo: Vec<Move>,
    /// The move that the path takes.
    pub(crate) chosen: Move,
    /// With what it begins: another operation there means that the explored code is not deterministic.
    pub(crate) point: Option<Point>,
    /// What `chosen` touched; known once it was made.
    pub(crate) footprint: Arc<Footprint>,
    /// The move before.
    pub(crate) previous: Option<Move>,
    /// Whether the thread of that move could have gone on.
    pub(crate) previous_able: bool,
    /// Preemptions on the path to here.
    pub(crate) preemptions: u32,
    /// The share of all work that each move from here is guessed to be.
    pub(crate) share: f64,
    /// New states that the worker had found when `chosen` became that.
    pub(crate) began: u64,
}

/// A move and what it touched.
#[derive(Clone, Debug)]
pub(crate) struct Tried {
    pub(crate) made: Move,
    pub(crate) footprint: Arc<Footprint>,
}

impl Frame {
    /// Preemptions on the path after `chosen`.
    pub(crate) fn preemptions_after(&self) -> u32 {
        let preempts = self.previous_able && self.previous != Some(self.chosen);
        self.preemptions + u32::from(preempts)
    }

    /// What sleeps after `chosen`: what slept or was tried here and commutes with it.
    pub(crate) fn asleep_after(&self) -> Vec<Tried> {
        let skipped = self.asleep.iter().chain(&self.tried);
        let commutes = |tried: &&Tried| {
            tried.made != self.chosen && !tried.footprint.conflicts(&self.footprint)
        };
        skipped.filter(commutes).cloned().collect()
    }

    /// Goes on to the next move, if one is left.
    pub(crate) fn advance(&mut self) -> bool {
        let Some(next) = self.todo.pop() else { return false };
        let footprint = std::mem::take(&mut self.footprint);
        self.tried.push(Tried { made: self.chosen, footprint });
        self.chosen = next;
        self.point = None;
        true
    }
}
