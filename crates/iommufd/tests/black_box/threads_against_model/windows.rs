//! Two threads with disjoint windows of one address space, while a third attaches and detaches a second device.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use iommufd::Device;
use iommufd::mock::MockMachine;
use models::{AddressSpace, Outcome, Place};
use pci::Dma;
use proptest::collection::vec;
use proptest::prelude::*;
use uapi::Errno;

use super::{IOVA, STEPS, THREADS, VA, rounds};
use crate::support::{Client, PAGE, Platform, Start};

/// Pages of a window.
const PAGES: u64 = 16;
/// Pages of memory that a window can be mapped to.
const MEMORY_PAGES: u64 = 2 * PAGES;
/// Mapped for good: an address below all windows, and memory above theirs.
const ANCHOR: u64 = IOVA - PAGE;
const ANCHOR_VA: u64 = VA + THREADS as u64 * MEMORY_PAGES * PAGE;

/// Places are in pages from where the window, or its memory, begins.
#[derive(Clone, Copy, Debug)]
enum Step {
    Map { at: u64, memory: u64, pages: u64 },
    Unmap { at: u64, pages: u64 },
    Read { at: u64 },
    Write { at: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let inside = || (0..PAGES).prop_flat_map(|at| (Just(at), 1..=(PAGES - at).min(5)));
    let wide = (0..PAGES).prop_flat_map(|at| (Just(at), 1..=PAGES - at));
    prop_oneof![
        4 => (inside(), 0..PAGES)
            .prop_map(|((at, pages), memory)| Step::Map { at, memory, pages }),
        3 => wide.prop_map(|(at, pages)| Step::Unmap { at, pages }),
        2 => (0..PAGES).prop_map(|at| Step::Read { at }),
        2 => (0..PAGES).prop_map(|at| Step::Write { at }),
    ]
}

/// What one thread has for itself.
struct Window {
    client: Client,
    device: Arc<Device>,
    ioas: u32,
    iova: u64,
    va: u64,
    /// Addresses in it begin at 0.
    model: AddressSpace,
    /// The first word of each page.
    memory: Vec<u64>,
    /// The word written last.
    word: u64,
}

impl Window {
    fn new(client: &Client, device: &Arc<Device>, ioas: u32, thread: u64) -> Self {
        let va = VA + thread * MEMORY_PAGES * PAGE;
        let memory: Vec<u64> = (0..MEMORY_PAGES).map(|page| va + page * PAGE).collect();
        for at in &memory {
            client.memory.write(*at, &at.to_ne_bytes()).unwrap();
        }
        Self {
            client: client.thread(thread + 1),
            device: Arc::clone(device),
            ioas,
            iova: IOVA + thread * PAGES * PAGE,
            va,
            model: AddressSpace::new(PAGE),
            memory,
            word: va,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Map { at, memory, pages } => {
                let (at, va, length) = (at * PAGE, self.va + memory * PAGE, pages * PAGE);
                let real = self.client.map_at(self.ioas, self.iova + at, va, length);
                let modelled = expected(self.model.map(Place::At(at), va, length));
                assert_eq!(real, modelled.map(|at| self.iova + at), "{step:?}");
            }
            Step::Unmap { at, pages } => {
                let real = self.client.unmap(self.ioas, self.iova + at * PAGE, pages * PAGE);
                assert_eq!(real, expected(self.model.unmap(at * PAGE, pages * PAGE)), "{step:?}");
            }
            Step::Read { at } => self.check_reaches(&self.device, at),
            Step::Write { at } => {
                self.word += 1;
                let word = self.word.to_ne_bytes();
                let real = self.device.write(self.iova + at * PAGE, &word).is_ok();
                let page = self.page_at(at);
                assert_eq!(real, page.is_some(), "{step:?}");
                if let Some(page) = page {
                    self.memory[page] = self.word;
                }
            }
        }
    }

    /// Which page of the window's memory is mapped there.
    fn page_at(&self, at: u64) -> Option<usize> {
        let va = self.model.translate(at * PAGE)?;
        Some(usize::try_from((va - self.va) / PAGE).unwrap())
    }

    fn check_reaches(&self, device: &Device, at: u64) {
        let mut found = [0; 8];
        let reached = device.read(self.iova + at * PAGE, &mut found).ok();
        let reached = reached.map(|()| u64::from_ne_bytes(found));
        assert_eq!(reached, self.page_at(at).map(|page| self.memory[page]), "page {at}");
    }

    /// Compares all of the window: what each device reaches, what memory holds, and how often it is pinned.
    fn check(&self, devices: &[&Device]) {
        for (at, device) in (0..PAGES).flat_map(|at| devices.iter().map(move |device| (at, device)))
        {
            self.check_reaches(device, at);
        }
        for (index, word) in self.memory.iter().enumerate() {
            let va = self.va + index as u64 * PAGE;
            let mut found = [0; 8];
            self.client.memory.read(va, &mut found).unwrap();
            assert_eq!(u64::from_ne_bytes(found), *word, "memory at {va:#x}");
            let pins = (0..PAGES).filter(|at| self.page_at(*at) == Some(index)).count();
            let pins = u32::try_from(pins).unwrap();
            assert_eq!(self.client.check_refs(va, PAGE, pins), Ok(()), "{va:#x}: {pins} pins");
        }
    }
}

fn expected(outcome: Outcome) -> Result<u64, Errno> {
    match outcome {
        Outcome::Value(value) => Ok(value),
        Outcome::Exists => Err(Errno::EEXIST),
        Outcome::Invalid => Err(Errno::EINVAL),
        Outcome::Missing => Err(Errno::ENOENT),
    }
}

/// Attaches `device`, to the address space and to a page table of its own in turn, and detaches it; at least once, and until
/// `stop`. While it is attached it reaches what is mapped for good, and otherwise nothing.
fn come_and_go(client: &Client, device: &Arc<Device>, ioas: u32, stop: &AtomicBool) {
    let reaches = || device.read(ANCHOR, &mut [0; 8]).is_ok();
    for turn in 0.. {
        let own = (turn % 2 == 1).then(|| client.hwpt(device.id(), ioas, 0).unwrap());
        device.attach(own.unwrap_or(ioas)).unwrap();
        assert!(reaches());
        device.detach();
        assert!(!reaches());
        if let Some(own) = own {
            client.destroy(own).unwrap();
        }
        if stop.load(SeqCst) {
            return;
        }
    }
}

fn run(steps: &[Vec<Step>; THREADS], third: bool) {
    let client = Client::open_mock(&MockMachine::new());
    let platform = Platform::new();
    let device = platform.bind(&client);
    let second = Device::bind(&client.ctx, &platform.pair[0]).unwrap();
    let ioas = client.ioas();
    device.attach(ioas).unwrap();
    client.map_at(ioas, ANCHOR, ANCHOR_VA, PAGE).unwrap();
    let mut windows = [0, 1].map(|thread| Window::new(&client, &device, ioas, thread));
    let stop = AtomicBool::new(!third);
    let start = Start::of(THREADS);
    std::thread::scope(|scope| {
        let start = &start;
        let others = client.thread(THREADS as u64 + 1);
        let (second, stop) = (&second, &stop);
        scope.spawn(move || third.then(|| come_and_go(&others, second, ioas, stop)));
        let threads = windows.iter_mut().zip(steps).map(|(window, steps)| {
            scope.spawn(move || {
                start.wait();
                steps.iter().for_each(|step| window.take(*step));
            })
        });
        let ends: Vec<_> = threads.collect::<Vec<_>>().into_iter().map(|end| end.join()).collect();
        stop.store(true, SeqCst);
        ends.into_iter().for_each(|end| end.unwrap());
    });
    let mapped = windows.iter().map(|window| window.model.mapped()).sum::<u64>() + PAGE;
    let counts = client.ctx.counts();
    assert_eq!([counts.mapped_bytes, counts.pinned_bytes], [mapped; 2]);
    second.attach(ioas).unwrap();
    windows.iter().for_each(|window| window.check(&[&device, &second]));
    [&device, &second].into_iter().for_each(Device::end);
    client.ctx.put_file();
    assert_eq!(client.memory.pinned(), []);
}

fn in_rounds(third: bool) {
    let steps = || vec(step(), STEPS / 2..STEPS);
    let outcome = rounds().run(&[steps(), steps()], |steps| {
        run(&steps, third);
        Ok(())
    });
    outcome.unwrap_or_else(|difference| panic!("{difference}"));
}

#[test]
fn of_two_windows() {
    in_rounds(false);
}

#[test]
fn of_two_windows_while_a_device_comes_and_goes() {
    in_rounds(true);
}
