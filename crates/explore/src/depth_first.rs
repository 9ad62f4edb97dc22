//! Depth-first search: repeats the path so far, takes a move that was not tried there, and goes on to the end or
//! to a state that was seen.

use crate::course::Course;
use crate::execution::{Answer, Status};
use crate::frame::{Frame, Tried};
use crate::moves::Move;
use crate::outlook::Outlook;
use crate::pool::{Limit, Pool, Unit};
use crate::seen::{MOVES_MAX, Visit};
use crate::settings::{Replay, Settings};
use crate::tally::{Counts, Found, Nondeterminism, Tally};
use crate::violation::{Violation, ViolationKind};

/// What one search leaves out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// More preemptions than this, if there is a bound. Excludes `sleeps`: of two orders that are the same,
    /// the one that is kept may have more preemptions than the one that is not.
    pub(crate) preemptions: Option<u32>,
    /// States that were seen.
    pub(crate) caches: bool,
    /// Orders that commute to one that is tried.
    pub(crate) sleeps: bool,
}

/// A worker's search.
pub(crate) struct Search<'a, C: Course> {
    course: C,
    plan: Plan,
    settings: &'a Settings,
    pool: &'a Pool,
    path: Vec<Frame>,
    /// Frames below belong to whoever gave us the unit of work.
    base: usize,
    tally: Tally<C::Outcome>,
    /// What was reported of it.
    reported: Counts,
    share_done: f64,
    paths: u64,
    paths_reported: u64,
    /// New states found.
    new_states: u64,
    outlook: Outlook,
}

/// Why a path went no further.
enum End {
    /// Nothing new lies ahead.
    Pruned,
    Complete,
    Violated(Violation),
}

impl<'a, C: Course> Search<'a, C>
where
    C::Outcome: Ord,
{
    pub(crate) fn new(course: C, plan: Plan, settings: &'a Settings, pool: &'a Pool) -> Self {
        Self {
            course,
            plan,
            settings,
            pool,
            path: Vec::new(),
            base: 0,
            tally: Tally::new(),
            reported: Counts::default(),
            share_done: 0.0,
            paths: 0,
            paths_reported: 0,
            new_states: 0,
            outlook: Outlook::default(),
        }
    }

    /// Works until the pool has no more work.
    pub(crate) fn run(mut self) -> Tally<C::Outcome> {
        while let Some(unit) = self.pool.take() {
            self.explore(unit);
            self.report();
            self.pool.finish();
        }
        let answers = self.course.close();
        self.note_outcomes(answers);
        self.tally
    }

    fn explore(&mut self, unit: Unit) {
        self.base = unit.path.len().saturating_sub(1);
        self.path = unit.path;
        if let Some(first) = self.path.last_mut() {
            first.began = self.new_states;
        }
        loop {
            self.follow_one();
            self.share_done += self.path.last().map_or(1.0, |frame| frame.share);
            self.paths += 1;
            if self.settings.replay == Replay::Full || self.paths.is_multiple_of(REPORT_EVERY) {
                self.report();
            }
            if self.tally.found.len() >= self.settings.violations_max {
                self.pool.stop_at(Limit::Violations);
            }
            // A call may have panicked and its unwinding be stuck: then this OS thread is of no more use.
            if self.tally.nondeterminism.is_some() || std::thread::panicking() {
                self.pool.stop();
            }
            if self.pool.is_stopped() || !self.backtrack() {
                return;
            }
            if self.pool.is_hungry() {
                self.give_away();
            }
        }
    }

    fn report(&mut self) {
        let ahead = if self.plan.caches { self.outlook.ahead(&self.path) } else { 0.0 };
        let share = std::mem::take(&mut self.share_done);
        let paths = self.paths - std::mem::replace(&mut self.paths_reported, self.paths);
        self.pool.report(paths, &self.reported, &self.tally.counts, share, ahead);
        self.reported = self.tally.counts;
    }

    /// Follows one path to where it shows nothing new.
    fn follow_one(&mut self) {
        let end = self.finish_path();
        let work = self.course.work();
        let counts = &mut self.tally.counts;
        (counts.executions, counts.steps) = (work.executions, work.steps);
        counts.depth = counts.depth.max(self.path.len());
        match end {
            Ok(End::Pruned | End::Complete) => {}
            Ok(End::Violated(violation)) => {
                self.tally.found.push(Found::of(violation, &self.path));
            }
            Err(nondeterminism) => self.tally.nondeterminism = Some(nondeterminism),
        }
        let answers = self.course.leave();
        self.note_outcomes(answers);
    }

    /// Makes the moves of the path, the last of them for the first time, and goes on.
    fn finish_path(&mut self) -> Result<End, Nondeterminism> {
        let before = self.path.len().saturating_sub(1);
        if let Some(violation) = self.course.go_to(&self.path[..before])? {
            self.path.clear();
            return Ok(End::Violated(violation));
        }
        if let Some(last) = self.path.last_mut() {
            last.point = self.course.point(last.chosen);
            last.footprint = self.course.make(last.chosen)?;
        }
        match self.advance()? {
            End::Complete => self.complete(),
            end @ (End::Pruned | End::Violated(_)) => Ok(end),
        }
    }

    /// Goes on from the end of the path, choosing the first move each time.
    fn advance(&mut self) -> Result<End, Nondeterminism> {
        loop {
            let enabled = match self.course.status()? {
                Status::Ended => return Ok(End::Complete),
                Status::Violated(violation) => return Ok(End::Violated(violation)),
                Status::Open(_) if self.path.len() >= self.settings.steps_max => {
                    return Ok(End::Violated(endless(self.path.len())));
                }
                Status::Open(enabled) => enabled,
            };
            let Some(mut frame) = self.next_frame(enabled) else { return Ok(End::Pruned) };
            frame.point = self.course.point(frame.chosen);
            frame.footprint = self.course.make(frame.chosen)?;
            self.path.push(frame);
        }
    }

    /// What is to be tried in the state that the path has come to, if anything.
    fn next_frame(&mut self, enabled: Vec<Move>) -> Option<Frame> {
        let last = self.path.last();
        let previous = last.map(|frame| frame.chosen);
        let previous_able = previous.is_some_and(|previous| enabled.contains(&previous));
        let preemptions = last.map_or(0, Frame::preemptions_after);
        let asleep = match last {
            Some(frame) if self.plan.sleeps => frame.asleep_after(),
            Some(_) | None => Vec::new(),
        };
        let visit = self.visit(&enabled, &asleep, previous.filter(|_| previous_able), preemptions);
        self.new_states += u64::from(visit == Visit::New);
        let mut todo = enabled.clone();
        match visit {
            Visit::Covered => return None,
            Visit::New => todo.retain(|next| {
                // What cannot be noted as left out is not left out.
                !is_asleep(&asleep, *next) || self.plan.caches && bit(&enabled, *next) == 0
            }),
            Visit::Again(bits) => todo.retain(|next| bits & bit(&enabled, *next) != 0),
        }
        if previous_able && self.plan.preemptions.is_some_and(|bound| preemptions >= bound) {
            let before = todo.len();
            todo.retain(|next| Some(*next) == previous);
            self.tally.cut |= todo.len() < before;
        }
        // Taken from the end: going on with the same thread comes first, then threads in order.
        todo.sort_by_key(|next| std::cmp::Reverse((Some(*next) != previous, *next)));
        let count = todo.len();
        let chosen = todo.pop()?;
        let share = self.path.last().map_or(1.0, |frame| frame.share) / count as f64;
        Some(Frame {
            asleep,
            tried: Vec::new(),
            todo,
            chosen,
            point: None,
            footprint: Default::default(),
            previous,
            previous_able,
            preemptions,
            share,
            began: self.new_states,
        })
    }

    fn visit(
        &self,
        enabled: &[Move],
        asleep: &[Tried],
        able_previous: Option<Move>,
        preemptions: u32,
    ) -> Visit {
        if !self.plan.caches {
            return Visit::New;
        }
        let state = self.course.fingerprint();
        if self.plan.preemptions.is_some() {
            // Going on with the thread that ran is free, so the states differ by who that was.
            return self.pool.seen().visit_within(state.then(&able_previous), preemptions);
        }
        let mask = asleep.iter().fold(0, |mask, tried| mask | bit(enabled, tried.made));
        self.pool.seen().visit(state, mask)
    }

    fn complete(&mut self) -> Result<End, Nondeterminism> {
        self.tally.counts.complete += 1;
        self.tally.finals.insert(self.course.shared());
        Ok(match self.course.check()? {
            Some(violation) => End::Violated(violation),
            None => End::Complete,
        })
    }

    fn note_outcomes(&mut self, answers: Vec<Answer<C::Outcome>>) {
        for answer in answers {
            let known = self.tally.outcomes.entry((answer.thread, answer.call)).or_default();
            if !known.contains(&answer.outcome) {
                known.insert(answer.outcome);
            }
        }
    }

    /// Goes back to the last state where something is left to try.
    fn backtrack(&mut self) -> bool {
        while self.path.len() > self.base {
            let depth = self.path.len() - 1;
            let frame = &mut self.path[depth];
            if !frame.tried.is_empty() {
                self.outlook.note(depth, self.new_states - frame.began);
            }
            if frame.advance() {
                frame.began = self.new_states;
                return true;
            }
            self.path.pop();
        }
        false
    }

    /// Gives the first state with something left to try to whoever has nothing to do.
    fn give_away(&mut self) {
        let own = self.base..self.path.len().saturating_sub(1);
        let Some(at) = own.into_iter().find(|at| !self.path[*at].todo.is_empty()) else { return };
        let mut path = self.path[..=at].to_vec();
        for frame in &mut path[..at] {
            frame.todo.clear();
        }
        self.path[at].todo.clear();
        if path[at].advance() {
            self.pool.give(Unit { path });
        }
    }
}

fn is_asleep(asleep: &[Tried], next: Move) -> bool {
    asleep.iter().any(|tried| tried.made == next)
}

/// The bit of a move: its place among those that can be made in the state, which are ordered.
fn bit(enabled: &[Move], next: Move) -> u8 {
    let place = enabled.iter().position(|other| *other == next);
    // The few beyond never count as asleep, which is always right.
    place.filter(|place| *place < MOVES_MAX).map_or(0, |place| 1 << place)
}

/// Paths between reports, where most take no execution.
const REPORT_EVERY: u64 = 256;

fn endless(steps: usize) -> Violation {
    let message = format!("not over after {steps} steps");
    Violation { kind: ViolationKind::Endless, message }
}
