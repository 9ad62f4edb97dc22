//! The states that were seen, shared by all workers.
//!
//! With each state is kept what was skipped there: the moves that slept, as bits, or how many preemptions had
//! been used up. A state is worth visiting again if less is skipped now.
//!
//! Locks one shard at a time, a leaf.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::fingerprint::Fingerprint;

/// States seen.
pub(crate) struct Seen {
    shards: Vec<Mutex<Shard>>,
    states: AtomicUsize,
}

type Shard = HashMap<[u64; 2], u32, BuildHasherDefault<Verbatim>>;

/// What is known of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// Nobody was here.
    New,
    /// Everything that is to be tried here was, or will be.
    Covered,
    /// The moves of these bits were left out so far and are not to be left out now.
    Again(u32),
}

impl Seen {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, states: AtomicUsize::new(0) }
    }

    /// Visits a state with the moves of `asleep` left out.
    pub(crate) fn visit(&self, state: Fingerprint, asleep: u32) -> Visit {
        self.with(state, asleep, |left_out| {
            let again = *left_out & !asleep;
            *left_out &= asleep;
            if again == 0 { Visit::Covered } else { Visit::Again(again) }
        })
    }

    /// Visits a state after so many preemptions.
    pub(crate) fn visit_within(&self, state: Fingerprint, preemptions: u32) -> Visit {
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

    /// What the states take up, about.
    pub(crate) fn bytes(&self) -> usize {
        self.states() * BYTES_A_STATE
    }

    fn with(&self, state: Fingerprint, value: u32, known: impl Fn(&mut u32) -> Visit) -> Visit {
        let key = state.halves();
        let shard = &self.shards[usize::from(key[1].to_le_bytes()[7]) % SHARDS];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = shard.get_mut(&key) {
            return known(value);
        }
        shard.insert(key, value);
        drop(shard);
        self.states.fetch_add(1, Relaxed);
        Visit::New
    }
}

const SHARDS: usize = 64;
/// Key, value and control byte, in a table that is between 7/16 and 7/8 full.
const BYTES_A_STATE: usize = 25 * 8 * 3 / (7 * 2);

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
}
