//! Eventfds of the client, and the one who waits for them on behalf of devices.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use iommufd::Signal;
use vfio::{NotWatched, Watch, Watching};

/// An eventfd's count.
#[derive(Default)]
pub(crate) struct Eventfd {
    count: AtomicU64,
}

impl Eventfd {
    fn take_count(&self) -> u64 {
        self.count.swap(0, Ordering::Relaxed)
    }
}

impl Signal for Eventfd {
    fn signal(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Watches eventfds: [`serve`](Self::serve) is what a thread would do meanwhile.
#[derive(Default)]
pub(crate) struct Watcher {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    eventfds: Vec<Weak<Eventfd>>,
    watches: Vec<WatchEntry>,
    next: u64,
}

struct WatchEntry {
    number: u64,
    eventfd: Arc<Eventfd>,
    then: Arc<dyn Fn() + Send + Sync>,
}

impl Watcher {
    /// An eventfd that can be watched.
    pub(crate) fn eventfd(&self) -> Arc<Eventfd> {
        let eventfd = Arc::new(Eventfd::default());
        lock(&self.state).eventfds.push(Arc::downgrade(&eventfd));
        eventfd
    }

    /// Calls what waits for eventfds that were signalled.
    pub(crate) fn serve(&self) {
        let ready: Vec<_> = lock(&self.state)
            .watches
            .iter()
            .filter(|watch| watch.eventfd.take_count() > 0)
            .map(|watch| Arc::clone(&watch.then))
            .collect();
        for then in ready {
            then();
        }
    }

    /// Checks that no eventfd is held or watched any more.
    pub(crate) fn check_unused(&self) {
        let state = lock(&self.state);
        assert!(state.watches.is_empty(), "an eventfd is watched for a closed file");
        let held = state.eventfds.iter().filter(|eventfd| eventfd.strong_count() > 0).count();
        assert_eq!(held, 0, "eventfds are held after everything was closed");
    }
}

impl Watch for Watcher {
    fn watch(
        &self,
        signal: Arc<dyn Signal>,
        then: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Box<dyn Watching>, NotWatched> {
        let mut state = lock(&self.state);
        let wanted = Arc::as_ptr(&signal).cast::<()>();
        let all = state.eventfds.iter().filter_map(Weak::upgrade);
        let eventfd = all.into_iter().find(|one| Arc::as_ptr(one).cast::<()>() == wanted);
        let eventfd = eventfd.ok_or(NotWatched)?;
        state.next += 1;
        let number = state.next;
        state.watches.push(WatchEntry { number, eventfd, then: Arc::from(then) });
        Ok(Box::new(Ticket { number, state: Arc::clone(&self.state) }))
    }
}

struct Ticket {
    number: u64,
    state: Arc<Mutex<State>>,
}

impl Watching for Ticket {}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        let at = state.watches.iter().position(|watch| watch.number == self.number);
        let ended = at.map(|at| state.watches.swap_remove(at));
        drop(state);
        drop(ended);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
