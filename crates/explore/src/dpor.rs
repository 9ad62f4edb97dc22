//! Dynamic partial-order reduction with source sets and sleep sets: every order of the steps that do not
//! commute is run once. Knows nothing of states, so that it can check the search that does.
//!
//! After each new step it looks for *races*: earlier steps of others that the new one conflicts with and that
//! nothing between orders before it. Where the race could go the other way, a thread that leads there is
//! tried too. A deadline may be disarmed before it ever fires and so never race, hence firing is tried in
//! every state where it is possible; sleep sets remove what is the same.
//!
//! An execution that is cut short by a violation shows no races of what would have followed. So the verdicts
//! agree, and on safe scripts the ends; the violations of one script need not.
//!
//! Source: Abdulla, Aronis, Jonsson, Sagonas: "Optimal dynamic partial order reduction", POPL 2014.

use std::sync::Arc;

use crate::Settings;
use crate::execution::{Execution, Stage, Status};
use crate::footprint::Footprint;
use crate::frame::Tried;
use crate::model::{Model, Script};
use crate::moves::{Move, Point};
use crate::pool::{Limit, Pool};
use crate::tally::{Found, Nondeterminism, Tally};
use crate::violation::{Violation, ViolationKind};

/// Explores everything on this thread.
pub(crate) fn search<M: Model>(
    model: &Arc<M>,
    script: &Arc<Script<M::Call>>,
    settings: &Settings,
    pool: &Pool,
) -> Tally<M::Outcome> {
    let stage = Stage::new(model, script, settings);
    let mut search = Dpor { stage, settings, path: Vec::new(), tally: Tally::new() };
    loop {
        let before = search.tally.counts;
        search.execute();
        pool.report(1, &before, &search.tally.counts, 0.0, 0.0);
        if search.tally.found.len() >= settings.violations_max {
            pool.stop_at(Limit::Violations);
        }
        if search.tally.nondeterminism.is_some() || pool.is_stopped() {
            break;
        }
        if !search.backtrack() {
            break;
        }
    }
    search.tally
}

struct Dpor<'a, M: Model> {
    stage: Stage<M>,
    settings: &'a Settings,
    path: Vec<Node>,
    tally: Tally<M::Outcome>,
}

/// A state on the path and the step that the path takes there.
struct Node {
    enabled: Vec<Move>,
    /// Moves still to be tried.
    todo: Vec<Move>,
    tried: Vec<Tried>,
    asleep: Vec<Tried>,
    chosen: Move,
    point: Option<Point>,
    footprint: Arc<Footprint>,
    /// The steps of the path that come before this one in every equivalent order.
    before: Places,
}

/// A set of places on the path.
#[derive(Clone, Default)]
struct Places(Vec<u64>);

enum End {
    Complete,
    /// Every move that is left leads to what was run in another order.
    Asleep,
    Violated(Violation),
}

impl<M: Model> Dpor<'_, M> {
    fn execute(&mut self) {
        self.tally.counts.executions += 1;
        let mut execution = match self.stage.begin(false) {
            Ok(execution) => execution,
            Err(violation) => return self.tally.found.push(Found::of(violation, &[])),
        };
        match self.repeat(&mut execution) {
            Ok(()) => self.go_on(&mut execution),
            Err(nondeterminism) => self.tally.nondeterminism = Some(nondeterminism),
        }
        self.tally.counts.depth = self.tally.counts.depth.max(self.path.len());
        for answer in self.stage.end(execution) {
            let call = (answer.thread, answer.call);
            self.tally.outcomes.entry(call).or_default().insert(answer.outcome);
        }
    }

    fn go_on(&mut self, execution: &mut Execution<M>) {
        let end = self.advance(execution);
        let violation = match end {
            End::Asleep => None,
            End::Violated(violation) => Some(violation),
            End::Complete => {
                self.tally.counts.complete += 1;
                self.tally.finals.insert(self.stage.shared());
                self.stage.check(execution)
            }
        };
        if let Some(violation) = violation {
            let path = self.path.iter().map(|node| (node.chosen, node.point)).collect();
            self.tally.found.push(Found { violation, path, preemptions: self.preemptions() });
        }
    }

    /// Makes the moves of the path again, the last of them for the first time.
    fn repeat(&mut self, execution: &mut Execution<M>) -> Result<(), Nondeterminism> {
        for place in 0..self.path.len() {
            let node = &self.path[place];
            let point = self.stage.point(node.chosen);
            if node.point.is_some() && node.point != point {
                return Err(Nondeterminism::at(place, node.chosen, node.point, point));
            }
            self.make(execution, place, point);
        }
        Ok(())
    }

    fn advance(&mut self, execution: &mut Execution<M>) -> End {
        loop {
            let enabled = match self.stage.status(execution) {
                Status::Ended => return End::Complete,
                Status::Violated(violation) => return End::Violated(violation),
                Status::Open(_) if self.path.len() >= self.settings.steps_max => {
                    let message = format!("not over after {} steps", self.path.len());
                    return End::Violated(Violation { kind: ViolationKind::Endless, message });
                }
                Status::Open(enabled) => enabled,
            };
            let Some(node) = self.next_node(enabled) else { return End::Asleep };
            let point = self.stage.point(node.chosen);
            self.path.push(node);
            self.make(execution, self.path.len() - 1, point);
        }
    }

    /// Makes the chosen move of a place on the path and, if that is new there, looks for its races.
    fn make(&mut self, execution: &mut Execution<M>, place: usize, point: Option<Point>) {
        self.stage.make(execution, self.path[place].chosen);
        self.tally.counts.steps += 1;
        if place + 1 == self.path.len() {
            let node = &mut self.path[place];
            (node.point, node.footprint) = (point, Arc::new(self.stage.footprint()));
            self.order(place);
        }
    }

    fn next_node(&self, enabled: Vec<Move>) -> Option<Node> {
        let last = self.path.last();
        let asleep = last.map_or_else(Vec::new, Node::asleep_after);
        let awake = |next: &&Move| asleep.iter().all(|tried| tried.made != **next);
        let same =
            enabled.iter().filter(awake).find(|next| last.map(|last| last.chosen) == Some(**next));
        let chosen = *same.or_else(|| enabled.iter().find(awake))?;
        let fires = enabled.iter().filter(|next| matches!(next, Move::Fire(_)) && **next != chosen);
        Some(Node {
            todo: fires.copied().collect(),
            enabled,
            tried: Vec::new(),
            asleep,
            chosen,
            point: None,
            footprint: Arc::default(),
            before: Places::default(),
        })
    }

    /// Finds what comes before the last step in every equivalent order, and the races on the way.
    fn order(&mut self, last: usize) {
        let races = self.races(last);
        let node = &self.path[last];
        let mut before = Places::default();
        for place in (0..last).rev() {
            let earlier = &self.path[place];
            let comes_first = earlier.chosen == node.chosen
                || earlier.footprint.conflicts(&node.footprint)
                || node.footprint.locks_after(&earlier.footprint);
            if comes_first && !before.contains(place) {
                before.join(&earlier.before);
                before.insert(place);
            }
        }
        self.path[last].before = before;
        for place in races {
            self.reverse(place, last);
        }
    }

    /// The steps that the last one might have overtaken. While somebody had a lock that it takes it could not
    /// go on: it might have overtaken the taking of that, whatever was done under the lock.
    fn races(&self, last: usize) -> Vec<usize> {
        let node = &self.path[last];
        let woken = node.point.is_some_and(|point| point.is_woken());
        let mut before = Places::default();
        let mut races = Vec::new();
        let mut held = Vec::new();
        for place in (0..last).rev() {
            let earlier = &self.path[place];
            let same = earlier.chosen == node.chosen;
            if !same {
                held.extend(node.footprint.given_back_by(&earlier.footprint));
                held.retain(|mutex| !earlier.footprint.locks(*mutex));
            }
            let conflicts = || earlier.footprint.conflicts(&node.footprint);
            if before.contains(place) || !same && (!held.is_empty() || !conflicts()) {
                continue;
            }
            // Whoever was woken cannot have gone on before that, unless he had been woken before.
            if !same && (!woken || earlier.enabled.contains(&node.chosen)) {
                races.push(place);
            }
            before.join(&earlier.before);
            before.insert(place);
        }
        races
    }

    /// Sees to it that the race between the steps at `first` and `last` is also run the other way round.
    fn reverse(&mut self, first: usize, last: usize) {
        let between = (first + 1..last).filter(|place| !self.path[*place].before.contains(first));
        let detour: Vec<usize> = between.chain([last]).collect();
        let mut initials: Vec<Move> = Vec::new();
        for (index, place) in detour.iter().enumerate() {
            let node = &self.path[*place];
            let first_of_its_own =
                detour[..index].iter().all(|other| self.path[*other].chosen != node.chosen);
            let unordered = detour[..index].iter().all(|other| !node.before.contains(*other));
            if first_of_its_own && unordered {
                initials.push(node.chosen);
            }
        }
        let own = self.path[last].chosen;
        let node = &mut self.path[first];
        if initials.iter().any(|initial| node.has(*initial)) {
            return;
        }
        initials.retain(|initial| node.enabled.contains(initial));
        match initials.first() {
            Some(_) if initials.contains(&own) => node.todo.push(own),
            Some(initial) => node.todo.push(*initial),
            None => {
                let others = node.enabled.iter().copied().filter(|next| !node.has(*next));
                let others: Vec<Move> = others.collect();
                node.todo.extend(others);
            }
        }
    }

    fn backtrack(&mut self) -> bool {
        while let Some(node) = self.path.last_mut() {
            if node.try_next() {
                return true;
            }
            self.path.pop();
        }
        false
    }

    fn preemptions(&self) -> u32 {
        let pairs = self.path.windows(2);
        let preempts = |pair: &&[Node]| {
            pair[0].chosen != pair[1].chosen && pair[1].enabled.contains(&pair[0].chosen)
        };
        u32::try_from(pairs.filter(preempts).count()).unwrap_or(u32::MAX)
    }
}

impl Node {
    fn has(&self, next: Move) -> bool {
        self.chosen == next
            || self.todo.contains(&next)
            || self.tried.iter().any(|tried| tried.made == next)
    }

    fn asleep_after(&self) -> Vec<Tried> {
        let skipped = self.asleep.iter().chain(&self.tried);
        let commutes = |tried: &&Tried| !tried.footprint.conflicts(&self.footprint);
        skipped.filter(commutes).cloned().collect()
    }

    fn try_next(&mut self) -> bool {
        let footprint = std::mem::take(&mut self.footprint);
        self.tried.push(Tried { made: self.chosen, footprint });
        while let Some(next) = self.todo.pop() {
            if self.asleep.iter().all(|tried| tried.made != next) {
                self.chosen = next;
                self.point = None;
                return true;
            }
        }
        false
    }
}

impl Places {
    fn contains(&self, place: usize) -> bool {
        self.0.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    fn insert(&mut self, place: usize) {
        if self.0.len() <= place / 64 {
            self.0.resize(place / 64 + 1, 0);
        }
        self.0[place / 64] |= 1 << (place % 64);
    }

    fn join(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word |= other;
        }
    }
}
