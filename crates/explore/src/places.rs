//! The places that threads come to, and what their steps from there do. Shared by all workers of a search, so
//! that each step is run by one of them.
//!
//! A place is where a thread is about to go on and all that it has seen since its call began. It is named by a
//! number and stays; steps are added to it as they are learned. Readers take no lock; one lock, a leaf, guards
//! the way from a place to its number.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::{Mutex, OnceLock, PoisonError};

use sync::hook::ObjectId;

use crate::effect::Effect;
use crate::fingerprint::Fingerprint;
use crate::picture::Thread;
use crate::seen::Verbatim;

/// The number of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PlaceId(u32);

/// The places of one search.
pub(crate) struct Places {
    chunks: [OnceLock<Box<[OnceLock<Place>]>>; CHUNKS],
    numbers: Mutex<HashMap<[u64; 2], u32, BuildHasherDefault<Verbatim>>>,
}

/// A place.
pub(crate) struct Place {
    /// The thread there; for a deadline that may fire, one that has nothing to do.
    pub(crate) thread: Thread,
    /// What the thread adds to the state: before its queue was woken, and after.
    pub(crate) shares: [Fingerprint; 2],
    effects: OnceLock<Box<Learned>>,
}

struct Learned {
    effect: Effect,
    next: OnceLock<Box<Learned>>,
}

impl Places {
    pub(crate) fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS], numbers: Mutex::default() }
    }

    /// The place of a thread.
    pub(crate) fn of_thread(&self, index: usize, thread: &Thread) -> PlaceId {
        self.number(thread.place(index), || Place {
            thread: thread.clone(),
            shares: [false, true].map(|woken| thread.share(index, woken)),
            effects: OnceLock::new(),
        })
    }

    /// Where a deadline is armed.
    pub(crate) fn of_deadline(&self, deadline: ObjectId) -> PlaceId {
        self.number(Fingerprint::of(&("deadline", deadline)), || Place {
            thread: Thread::default(),
            shares: Default::default(),
            effects: OnceLock::new(),
        })
    }

    pub(crate) fn get(&self, place: PlaceId) -> &Place {
        let (chunk, index) = spot(place.0);
        let found = self.chunks[chunk].get().and_then(|chunk| chunk[index].get());
        found.expect("a place is there before its number is told")
    }

    fn number(&self, key: Fingerprint, place: impl FnOnce() -> Place) -> PlaceId {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        let number = *numbers.entry(key.halves()).or_insert_with(|| {
            let (chunk, index) = spot(next);
            let chunk = self.chunks[chunk]
                .get_or_init(|| (0..FIRST_CHUNK << chunk).map(|_| OnceLock::new()).collect());
            chunk[index].get_or_init(place);
            next
        });
        PlaceId(number)
    }
}

impl Place {
    /// What the step from here did where things were as `fits` says.
    pub(crate) fn effect(&self, fits: impl Fn(&Effect) -> bool) -> Option<&Effect> {
        let mut next = self.effects.get();
        while let Some(learned) = next {
            if fits(&learned.effect) {
                return Some(&learned.effect);
            }
            next = learned.next.get();
        }
        None
    }

    /// Keeps what the step from here did. Another worker may have learned the same meanwhile; both stay.
    pub(crate) fn learn(&self, effect: Effect) -> &Effect {
        let mut slot = &self.effects;
        let mut learned = Box::new(Learned { effect, next: OnceLock::new() });
        loop {
            match slot.set(learned) {
                Ok(()) => break,
                Err(back) => learned = back,
            }
            slot = &slot.get().expect("it was taken").next;
        }
        &slot.get().expect("it was set").effect
    }
}

/// In which chunk a number is, and where there.
const fn spot(number: u32) -> (usize, usize) {
    let number = number as usize + FIRST_CHUNK;
    let chunk = (number.ilog2() - FIRST_CHUNK.ilog2()) as usize;
    (chunk, number - (FIRST_CHUNK << chunk))
}

/// Places of the first chunk; each further one has twice as many.
const FIRST_CHUNK: usize = 256;
const CHUNKS: usize = 25;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lie_side_by_side() {
        let mut spots = (0..2000).map(spot);
        assert_eq!(spots.next(), Some((0, 0)));
        let mut last = (0, 0);
        for spot in spots {
            let follows = spot == (last.0, last.1 + 1)
                || spot == (last.0 + 1, 0) && last.1 + 1 == FIRST_CHUNK << last.0;
            assert!(follows, "{spot:?} after {last:?}");
            last = spot;
        }
        assert_eq!(spot(u32::MAX).0, CHUNKS - 1);
    }

    #[test]
    fn a_place_keeps_its_number() {
        let places = Places::new();
        let threads: Vec<Thread> = (0..1000)
            .map(|seen| Thread { seen: Fingerprint::of(&seen), ..Thread::default() })
            .collect();
        let numbers: Vec<PlaceId> =
            threads.iter().map(|thread| places.of_thread(0, thread)).collect();
        for (thread, number) in threads.iter().zip(numbers) {
            assert_eq!(places.of_thread(0, thread), number);
            assert_eq!(places.get(number).thread.seen, thread.seen);
            assert_ne!(places.of_thread(1, thread), number);
        }
    }
}
