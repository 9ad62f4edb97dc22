//! The states that were seen, shared by all workers.
//!
//! With each state is kept what was skipped there: the moves that slept, as bits, or how many preemptions had
//! been used up. A state is worth visiting again if less is skipped now.
//!
//! Seventeen bytes a place, and places an eighth more than states at least: what bounds an exploration is memory.
//!
//! Locks one shard at a time, a leaf.

use std::hash::Hasher;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::fingerprint::Fingerprint;

/// States seen.
pub(crate) struct Seen {
    shards: Vec<Mutex<Shard>>,
    states: AtomicUsize,
    places: AtomicUsize,
}

/// A table in which a state is at the first free place from where it belongs. Nothing is ever taken out.
struct Shard {
    keys: Box<[[u64; 2]]>,
    /// What is kept with each; [`FREE`] where there is no state.
    marks: Box<[u8]>,
    used: usize,
}

/// What is known of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// Nobody was here.
    New,
    /// Everything that is to be tried here was, or will be.
    Covered,
    /// The moves of these bits were left out so far and are not to be left out now.
    Again(u8),
}

/// So many moves of a state can be left out, at most.
pub(crate) const MOVES_MAX: usize = 7;

impl Seen {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::of(FIRST_PLACES))).collect();
        let places = AtomicUsize::new(SHARDS * FIRST_PLACES);
        Self { shards, states: AtomicUsize::new(0), places }
    }

    /// Visits a state with the moves of `asleep`, [`MOVES_MAX`] bits, left out.
    pub(crate) fn visit(&self, state: Fingerprint, asleep: u8) -> Visit {
        self.with(state, asleep, |left_out| {
            let again = *left_out & !asleep;
            *left_out &= asleep;
            if again == 0 { Visit::Covered } else { Visit::Again(again) }
        })
    }

    /// Visits a state after so many preemptions.
    pub(crate) fn visit_within(&self, state: Fingerprint, preemptions: u32) -> Visit {
        let Some(preemptions) = u8::try_from(preemptions).ok().filter(|it| *it != FREE) else {
            return Visit::New;
        };
        self.with(state, preemptions, |fewest| {
            if *fewest <= preemptions {
                return Visit::Covered;
            }
            *fewest = preemptions;
            Visit::New
        })
    }

    pub(crate) fn states(&self) -> usize {
        self.states.load(Relaxed)
    }

    /// What the states take up.
    pub(crate) fn bytes(&self) -> usize {
        self.places.load(Relaxed) * BYTES_A_PLACE
    }

    fn with(&self, state: Fingerprint, mark: u8, known: impl Fn(&mut u8) -> Visit) -> Visit {
        let key = state.halves();
        let shard = &self.shards[usize::from(key[1].to_le_bytes()[7]) % SHARDS];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        match shard.find(key) {
            Ok(mark) => return known(mark),
            Err(place) => shard.put(place, key, mark),
        }
        let added = shard.grow_if_full();
        drop(shard);
        self.states.fetch_add(1, Relaxed);
        self.places.fetch_add(added, Relaxed);
        Visit::New
    }
}

impl Shard {
    fn of(places: usize) -> Self {
        let keys = vec![[0; 2]; places].into_boxed_slice();
        Self { keys, marks: vec![FREE; places].into_boxed_slice(), used: 0 }
    }

    /// What is kept with a state, or the place for it.
    fn find(&mut self, key: [u64; 2]) -> Result<&mut u8, usize> {
        let places = self.keys.len();
        let mut place = belongs(key, places);
        while self.marks[place] != FREE {
            if self.keys[place] == key {
                return Ok(&mut self.marks[place]);
            }
            place = if place + 1 == places { 0 } else { place + 1 };
        }
        Err(place)
    }

    fn put(&mut self, place: usize, key: [u64; 2], mark: u8) {
        (self.keys[place], self.marks[place]) = (key, mark);
        self.used += 1;
    }

    /// Returns how many places were added.
    fn grow_if_full(&mut self) -> usize {
        let before = self.keys.len();
        if self.used * 8 < before * 7 {
            return 0;
        }
        let mut larger = Self::of(before + before / 4);
        for (key, mark) in self.keys.iter().zip(&self.marks).filter(|(_, mark)| **mark != FREE) {
            if let Err(place) = larger.find(*key) {
                larger.put(place, *key, *mark);
            }
        }
        *self = larger;
        self.keys.len() - before
    }
}

/// Where among so many places a state belongs.
fn belongs([high, _]: [u64; 2], places: usize) -> usize {
    let place = (u128::from(high) * places as u128) >> 64;
    usize::try_from(place).unwrap_or_default()
}

/// No mark: neither seven bits nor a number of preemptions that anybody explores.
const FREE: u8 = u8::MAX;
const SHARDS: usize = 256;
const FIRST_PLACES: usize = 64;
const BYTES_A_PLACE: usize = size_of::<[u64; 2]>() + 1;

/// Fingerprints need no hashing.
#[derive(Default)]
pub(crate) struct Verbatim(u64);

impl Hasher for Verbatim {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks_exact(8) {
            self.0 = chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_visited_again_for_what_was_left_out() {
        let seen = Seen::new();
        let state = Fingerprint::of(&1);
        assert_eq!(seen.visit(state, 0b110), Visit::New);
        assert_eq!(seen.visit(state, 0b111), Visit::Covered);
        assert_eq!(seen.visit(state, 0b010), Visit::Again(0b100));
        assert_eq!(seen.visit(state, 0b010), Visit::Covered);
        assert_eq!(seen.visit(state, 0), Visit::Again(0b010));
        assert_eq!(seen.states(), 1);
    }

    #[test]
    fn fewer_preemptions_are_a_reason_to_come_back() {
        let seen = Seen::new();
        let state = Fingerprint::of(&1);
        let visits = [2, 2, 3, 1, 1].map(|preemptions| seen.visit_within(state, preemptions));
        use Visit::{Covered, New};
        assert_eq!(visits, [New, Covered, Covered, New, Covered]);
    }

    #[test]
    fn states_stay_when_the_table_grows() {
        const STATES: u8 = 200;
        let seen = Seen::new();
        let states =
            || (0..u32::from(STATES) * 500).map(|number| (Fingerprint::of(&number), number % 128));
        for (state, mark) in states() {
            assert_eq!(seen.visit(state, mark.to_le_bytes()[0]), Visit::New);
        }
        for (state, mark) in states() {
            assert_eq!(seen.visit(state, mark.to_le_bytes()[0]), Visit::Covered);
        }
        assert_eq!(seen.states(), usize::from(STATES) * 500);
        assert!(seen.bytes() < seen.states() * 25, "{} bytes", seen.bytes());
    }

    #[test]
    fn preemptions_that_cannot_be_kept_are_never_covered() {
        let seen = Seen::new();
        let visits = [255, 255, 1000].map(|many| seen.visit_within(Fingerprint::of(&1), many));
        assert_eq!(visits, [Visit::New; 3]);
    }
}
