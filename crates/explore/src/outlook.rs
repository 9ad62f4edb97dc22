//! A guess at how many states are still ahead of a search.
//!
//! Where states are left once, the first move from a state leads to most of what lies beyond it and the others
//! find mostly what was seen. So what the untried moves on the path will find is guessed from what such later
//! moves found at the same depth. Deep ones are done first; for depths from which nothing is known yet the
//! nearest deeper one stands in, and the guess rises when better is known. Takes no lock.

use crate::frame::Frame;

/// What later moves found, by depth.
#[derive(Debug, Default)]
pub(crate) struct Outlook(Vec<Found>);

#[derive(Clone, Copy, Debug, Default)]
struct Found {
    states: u64,
    moves: u64,
}

impl Outlook {
    /// Notes that a move at `depth`, which was not the first there, has led to so many new states.
    pub(crate) fn note(&mut self, depth: usize, states: u64) {
        if self.0.len() <= depth {
            self.0.resize(depth + 1, Found::default());
        }
        let found = &mut self.0[depth];
        found.states += states;
        found.moves += 1;
    }

    /// How many states the untried moves of a path may find.
    pub(crate) fn ahead(&self, path: &[Frame]) -> f64 {
        let mut each = 0.0;
        let mut ahead = 0.0;
        for (depth, frame) in path.iter().enumerate().rev() {
            if let Some(found) = self.0.get(depth).filter(|found| found.moves > 0) {
                each = found.states as f64 / found.moves as f64;
            }
            ahead += frame.todo.len() as f64 * each;
        }
        ahead
    }
}
