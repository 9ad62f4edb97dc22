//! Eventfds that a program signals and a device hears: `VFIO_IRQ_SET_ACTION_UNMASK`, `VFIO_DEVICE_IOEVENTFD`.
//!
//! One thread waits for all of them, from the first watch to the end of the run. What it calls is short and waits for
//! no client. One lock, a leaf: what each eventfd leads to.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use iommufd::Signal;
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};
use vfio::{NotWatched, Watch, Watching};

use crate::eventfds::{self, Eventfds};

/// Watches eventfds that came through [`Eventfds`].
pub(crate) struct Watcher {
    eventfds: Arc<Eventfds>,
    hub: Mutex<Option<Arc<Hub>>>,
}

type Then = Box<dyn Fn() + Send + Sync>;

impl Watcher {
    /// Watches nothing yet, and has no thread.
    pub(crate) fn new(eventfds: Arc<Eventfds>) -> Self {
        Self { eventfds, hub: Mutex::default() }
    }

    fn hub(&self) -> io::Result<Arc<Hub>> {
        let mut hub = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hub) = &*hub {
            return Ok(Arc::clone(hub));
        }
        let begun = Hub::begin()?;
        *hub = Some(Arc::clone(&begun));
        Ok(begun)
    }
}

impl Watch for Watcher {
    fn watch(&self, signal: Arc<dyn Signal>, then: Then) -> Result<Box<dyn Watching>, NotWatched> {
        let file = self.eventfds.file_of(&signal).ok_or(NotWatched)?;
        let hub = self.hub().map_err(|_| NotWatched)?;
        let watched = hub.add(file, then).map_err(|_| NotWatched)?;
        Ok(Box::new(watched))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let hub = self.hub.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(hub) = hub {
            let _ = rustix::io::write(&hub.end, &1_u64.to_ne_bytes());
        }
    }
}

/// What the thread waits for.
struct Hub {
    epoll: OwnedFd,
    /// Signalled when the thread is to end.
    end: OwnedFd,
    sources: Mutex<Sources>,
}

#[derive(Default)]
struct Sources {
    names: u64,
    /// By the eventfd's number in the kernel: one eventfd may lead to several things, and be known by several
    /// descriptors, and its count is there once.
    by_eventfd: HashMap<u64, Source>,
}

struct Source {
    file: Arc<OwnedFd>,
    leads_to: Vec<(u64, Arc<Then>)>,
}

/// The name under which the thread knows its end. The kernel numbers eventfds from 0 by ints.
const END: u64 = u64::MAX;
/// Eventfds that are looked at together.
const BATCH: usize = 64;

impl Hub {
    fn begin() -> io::Result<Arc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let end = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &end, epoll::EventData::new_u64(END), epoll::EventFlags::IN)?;
        let hub = Arc::new(Self { epoll, end, sources: Mutex::default() });
        let waits = Arc::clone(&hub);
        thread::Builder::new().name("eventfds".to_owned()).spawn(move || waits.run())?;
        Ok(hub)
    }

    fn add(self: &Arc<Self>, file: Arc<OwnedFd>, then: Then) -> io::Result<Watched> {
        let id = eventfds::id_of(&file).ok_or(io::ErrorKind::Unsupported)?;
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if !sources.by_eventfd.contains_key(&id) {
            epoll::add(&self.epoll, &file, epoll::EventData::new_u64(id), epoll::EventFlags::IN)?;
        }
        sources.names += 1;
        let name = sources.names;
        let source = sources.by_eventfd.entry(id);
        let source = source.or_insert_with(|| Source { file, leads_to: Vec::new() });
        source.leads_to.push((name, Arc::new(then)));
        Ok(Watched { hub: Arc::clone(self), id, name })
    }

    fn run(&self) {
        let mut ready = Vec::with_capacity(BATCH);
        loop {
            ready.clear();
            if epoll::wait(&self.epoll, spare_capacity(&mut ready), None).is_err() {
                continue;
            }
            for event in &ready {
                match event.data.u64() {
                    END => return,
                    id => self.signalled(id),
                }
            }
        }
    }

    fn signalled(&self, id: u64) {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(source) = sources.by_eventfd.get(&id) else { return };
        // Somebody else may take the count first, and then a blocking file would hold us.
        let mut count = [0; 8];
        if !take(&source.file, &mut count) || u64::from_ne_bytes(count) == 0 {
            return;
        }
        let then: Vec<_> = source.leads_to.iter().map(|(_, then)| Arc::clone(then)).collect();
        drop(sources);
        for then in then {
            then();
        }
    }
}

/// A running watch.
struct Watched {
    hub: Arc<Hub>,
    id: u64,
    name: u64,
}

impl Watching for Watched {}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut sources = self.hub.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(source) = sources.by_eventfd.get_mut(&self.id) else { return };
        let at = source.leads_to.iter().position(|(name, _)| *name == self.name);
        let let_go = at.map(|at| source.leads_to.swap_remove(at));
        if source.leads_to.is_empty() {
            let _ = epoll::delete(&self.hub.epoll, &source.file);
            sources.by_eventfd.remove(&self.id);
        }
        drop(sources);
        drop(let_go);
    }
}

fn take(file: &OwnedFd, count: &mut [u8; 8]) -> bool {
    use rustix::io::{ReadWriteFlags, preadv2};
    let buffers = &mut [io::IoSliceMut::new(count)];
    // Position -1 means "where the file stands", which is all that an eventfd knows.
    let taken = preadv2(file, buffers, u64::MAX, ReadWriteFlags::NOWAIT);
    taken == Ok(8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Task, Tasks};
    use std::os::fd::AsRawFd;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn each_count_is_taken_and_told_until_the_watch_ends() {
        let eventfds = Arc::new(Eventfds::new());
        let file = eventfd(1, EventfdFlags::CLOEXEC).unwrap();
        let task = task();
        let signal = eventfds.import(&task, file.as_raw_fd()).ok().unwrap();
        let watcher = Watcher::new(eventfds);
        let (told, hears) = mpsc::channel();
        let then = Box::new(move || told.send(()).unwrap());
        let watching = watcher.watch(signal, then).unwrap();
        let patience = Duration::from_secs(10);
        hears.recv_timeout(patience).unwrap();
        rustix::io::write(&file, &3_u64.to_ne_bytes()).unwrap();
        hears.recv_timeout(patience).unwrap();
        drop(watching);
        // With the watch goes its end of the channel.
        assert_eq!(hears.recv_timeout(patience), Err(mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn one_eventfd_leads_to_several_things_by_several_descriptors() {
        let eventfds = Arc::new(Eventfds::new());
        let file = eventfds.make(0, 0).unwrap();
        let again = rustix::io::dup(&*file).unwrap();
        let task = task();
        let watcher = Watcher::new(Arc::clone(&eventfds));
        let (told, hears) = mpsc::channel();
        let watch = |fd: i32, name: u32| {
            let told = told.clone();
            let signal = eventfds.import(&task, fd).ok().unwrap();
            watcher.watch(signal, Box::new(move || told.send(name).unwrap())).unwrap()
        };
        let first = watch(file.as_raw_fd(), 1);
        let second = watch(again.as_raw_fd(), 2);
        let third = watch(file.as_raw_fd(), 3);
        let signal = || rustix::io::write(&*file, &1_u64.to_ne_bytes()).unwrap();
        let hear = |count: usize| {
            let mut heard = Vec::new();
            for _ in 0..count {
                heard.push(hears.recv_timeout(Duration::from_secs(10)).unwrap());
            }
            heard.sort_unstable();
            heard
        };
        signal();
        assert_eq!(hear(3), [1, 2, 3]);
        drop(first);
        signal();
        assert_eq!(hear(2), [2, 3], "whose descriptor came first is no matter");
        drop((second, third));
        signal();
        let mut count = [0; 8];
        assert!(take(&file, &mut count) && count[0] == 1, "nobody else takes it any more");
    }

    fn task() -> Arc<Task> {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        Tasks::default().task(thread).unwrap()
    }
}
