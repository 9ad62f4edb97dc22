//! A quota that runs out at the nth question, once.

use std::sync::Arc;

use iommufd::{Exhausted, Quota, Resource};
use sync::{Mutex, rank};

#[derive(Default)]
pub(crate) struct RunningOut {
    /// A leaf: quotas are asked with locks held.
    state: Mutex<rank::Objects, State>,
}

#[derive(Default)]
struct State {
    /// Questions until the one that is refused.
    left: Option<u64>,
    refused: Option<Resource>,
}

impl RunningOut {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::default()) })
    }

    /// Refuses the nth question from now on, counted from 1.
    pub(crate) fn at(&self, nth: u64) {
        *self.state.lock() = State { left: Some(nth), refused: None };
    }

    /// Refuses nothing any more, and tells what was refused.
    pub(crate) fn call_off(&self) -> Option<Resource> {
        std::mem::take(&mut *self.state.lock()).refused
    }
}

impl Quota for RunningOut {
    fn admit(&self, resource: Resource, _: u64) -> Result<(), Exhausted> {
        let mut state = self.state.lock();
        match &mut state.left {
            None => Ok(()),
            Some(left) if *left > 1 => {
                *left -= 1;
                Ok(())
            }
            Some(_) => {
                *state = State { left: None, refused: Some(resource) };
                Err(Exhausted(resource))
            }
        }
    }
}
