//! A state without a world: what all objects hold and where all threads stand, moved by what steps are known to
//! do, and moved back. Takes no lock.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use sync::hook::{Kind, ObjectId};

use crate::Steps;
use crate::effect::{ArmedAt, Effect, Standing};
use crate::fingerprint::Fingerprint;
use crate::moves::{Move, Point};
use crate::picture::{Numbers, Object, Picture, Thread};
use crate::places::Places;

/// A state.
pub(crate) struct Sketch<'a> {
    places: &'a Places,
    clock: Option<Steps>,
    objects: HashMap<ObjectId, Object, BuildHasherDefault<Numbers>>,
    shared: Fingerprint,
    threads: Vec<Standing>,
    /// By deadline.
    armed: Vec<ArmedAt>,
}

/// A move made, and what undoes it.
pub(crate) struct Made<'a> {
    pub(crate) made: Move,
    pub(crate) point: Option<Point>,
    effect: &'a Effect,
    /// Where its thread stood.
    stood: Option<Standing>,
    /// Threads that it woke, as bits.
    woke: u64,
}

impl<'a> Sketch<'a> {
    /// The state of an execution.
    pub(crate) fn of(picture: &Picture, places: &'a Places, clock: Option<Steps>) -> Self {
        let threads = picture.threads.iter().enumerate();
        let armed = picture.armed.iter();
        Self {
            places,
            clock,
            objects: picture.objects.clone(),
            shared: picture.shared,
            threads: threads.map(|(index, thread)| standing(places, index, thread)).collect(),
            armed: armed
                .map(|(deadline, armed)| ArmedAt { deadline: *deadline, wakes: armed.wakes() })
                .collect(),
        }
    }

    /// What all objects hold.
    pub(crate) const fn shared(&self) -> Fingerprint {
        self.shared
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.threads.iter().fold(self.shared, |state, standing| {
            state.with(self.places.get(standing.place).shares[usize::from(standing.woken)])
        })
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.threads.iter().all(|standing| self.places.get(standing.place).thread.pending.is_none())
    }

    /// Whether a thread is being ended by a panic, which the others may notice.
    pub(crate) fn is_unwinding(&self) -> bool {
        self.threads.iter().any(|standing| self.places.get(standing.place).thread.unwinds)
    }

    /// What could happen next, in order.
    pub(crate) fn enabled(&self, into: &mut Vec<Move>) {
        for (index, standing) in self.threads.iter().enumerate() {
            if self.is_able(*standing) {
                into.push(Move::Thread(index));
            }
        }
        for armed in self.armed.iter().filter(|_| self.clock.is_some()) {
            let heard = self.clock == Some(Steps::Every)
                || self.threads.iter().any(|standing| self.hears(*standing, armed));
            if heard {
                into.push(Move::Fire(armed.deadline));
            }
        }
    }

    /// With what a move begins.
    pub(crate) fn point(&self, next: Move) -> Option<Point> {
        match next {
            Move::Thread(thread) => {
                let standing = self.threads[thread];
                self.places.get(standing.place).thread.pending.as_ref().map(Point::of)
            }
            Move::Fire(deadline) => Some(Point::firing(deadline)),
        }
    }

    /// From where a move begins, and whether the thread was woken.
    pub(crate) fn origin(&self, next: Move) -> Standing {
        match next {
            Move::Thread(thread) => self.threads[thread],
            Move::Fire(deadline) => {
                Standing { place: self.places.of_deadline(deadline), woken: false }
            }
        }
    }

    /// What a move would do, if that is known.
    pub(crate) fn foresee(&self, next: Move) -> Option<&'a Effect> {
        let origin = self.origin(next);
        self.places.get(origin.place).effect(|effect| {
            effect.was_woken == origin.woken
                && effect
                    .changes
                    .iter()
                    .all(|change| self.objects.get(&change.object) == change.before.as_ref())
        })
    }

    /// Makes a move that does this.
    pub(crate) fn apply(&mut self, next: Move, effect: &'a Effect) -> Made<'a> {
        let point = self.point(next);
        for change in &effect.changes {
            match change.after {
                Some(after) => self.objects.insert(change.object, after),
                None => self.objects.remove(&change.object),
            };
        }
        self.shared = self.shared.with(effect.difference);
        let mut stood = None;
        if let (Move::Thread(thread), Some(now)) = (next, effect.thread) {
            stood = Some(std::mem::replace(&mut self.threads[thread], now));
        }
        let woke = self.wake(next, effect);
        for armed in &effect.armed {
            self.arm(*armed);
        }
        for disarmed in &effect.disarmed {
            self.disarm(*disarmed);
        }
        Made { made: next, point, effect, stood, woke }
    }

    /// Takes back the move that was made last.
    pub(crate) fn undo(&mut self, last: &Made<'a>) {
        let effect = last.effect;
        for disarmed in &effect.disarmed {
            self.arm(*disarmed);
        }
        for armed in &effect.armed {
            self.disarm(*armed);
        }
        for thread in 0..self.threads.len() {
            if last.woke >> thread & 1 == 1 {
                self.threads[thread].woken = false;
            }
        }
        if let (Move::Thread(thread), Some(stood)) = (last.made, last.stood) {
            self.threads[thread] = stood;
        }
        self.shared = self.shared.without(effect.difference);
        for change in &effect.changes {
            match change.before {
                Some(before) => self.objects.insert(change.object, before),
                None => self.objects.remove(&change.object),
            };
        }
    }

    /// Wakes the others that wait on the queues of `effect`.
    fn wake(&mut self, next: Move, effect: &Effect) -> u64 {
        let mut woke = 0;
        if effect.wakes.is_empty() {
            return woke;
        }
        for (index, standing) in self.threads.iter_mut().enumerate() {
            let waits = self.places.get(standing.place).thread.waits;
            let hears = waits.is_some_and(|(queue, _)| effect.wakes.contains(&queue));
            if hears && !standing.woken && next != Move::Thread(index) {
                standing.woken = true;
                woke |= 1 << index;
            }
        }
        woke
    }

    fn arm(&mut self, armed: ArmedAt) {
        let place = self.armed.partition_point(|other| other.deadline < armed.deadline);
        self.armed.insert(place, armed);
    }

    fn disarm(&mut self, armed: ArmedAt) {
        self.armed.retain(|other| other.deadline != armed.deadline);
    }

    fn is_able(&self, standing: Standing) -> bool {
        let Some(pending) = &self.places.get(standing.place).thread.pending else { return false };
        match pending.kind {
            Kind::Acquire => {
                self.objects.get(&pending.object).is_none_or(|mutex| mutex.holder.is_none())
            }
            Kind::Sleep => standing.woken,
            Kind::Release
            | Kind::Count(_)
            | Kind::WaitCheck
            | Kind::Wake
            | Kind::Use
            | Kind::End
            | Kind::EpochEnter
            | Kind::EpochLeave
            | Kind::EpochFlip
            | Kind::Arm
            | Kind::Disarm
            | Kind::Fire
            | Kind::Fired => true,
        }
    }

    fn hears(&self, standing: Standing, armed: &ArmedAt) -> bool {
        let thread = &self.places.get(standing.place).thread;
        thread.hears(standing.woken, armed.deadline, armed.wakes)
    }
}

impl Made<'_> {
    pub(crate) fn effect(&self) -> &Effect {
        self.effect
    }
}

/// Where a thread of an execution stands.
pub(crate) fn standing(places: &Places, index: usize, thread: &Thread) -> Standing {
    let woken = thread.waits.is_some_and(|(_, woken)| woken);
    Standing { place: places.of_thread(index, thread), woken }
}
