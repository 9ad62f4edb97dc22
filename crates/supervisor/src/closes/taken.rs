//! What the kernel's events say of watched files: which are closed for good.

use std::collections::{HashMap, HashSet};

use rustix::fs::inotify::ReadFlags;

use super::Watch;
use super::elsewhere::open_somewhere;
use crate::process::Identity;

/// What a buffer of events said.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) closed: Vec<Identity>,
    /// There may be more events queued.
    pub(super) more: bool,
}

impl Taken {
    pub(super) fn note(
        &mut self,
        watches: &mut HashMap<i32, Watch>,
        number: i32,
        events: ReadFlags,
    ) {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.note_lost_events(watches);
            return;
        }
        let Some(watch) = watches.get_mut(&number) else { return };
        if events.contains(ReadFlags::OPEN) {
            watch.opened_again = true;
        }
        if !events.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::CLOSE_NOWRITE) {
            return;
        }
        if watch.holds > 0 {
            watch.closed_meanwhile = true;
            return;
        }
        if watch.opened_again && open_somewhere(&HashSet::from([watch.identity])).len() == 1 {
            return;
        }
        self.closed.push(watch.identity);
        watches.remove(&number);
    }

    /// Events were dropped: looks for every file, and closes those that nobody has.
    fn note_lost_events(&mut self, watches: &mut HashMap<i32, Watch>) {
        let all = watches.values().map(|watch| watch.identity).collect();
        let open = open_somewhere(&all);
        watches.retain(|_, watch| {
            // What happened to it in the lost events is not known.
            watch.opened_again = true;
            let stays = open.contains(&watch.identity);
            if !stays {
                self.closed.push(watch.identity);
            }
            stays
        });
    }
}
