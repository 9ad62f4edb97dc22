//! An eventfd that writes to a BAR, and every two or three of: its signal, its registration, its end, the close of the file.
//!
//! No write is done once the call that ended it has returned, none once the file is closed, and nothing is left watched.

use std::fmt;
use std::sync::Arc;

use explore::Model;
use iommufd::{Caller, Context, ContextSettings, FileFault, Signal, Source, Tvm, Unreachable};
use pci::{Bar, BarKind};
use sync::{Mutex, rank};
use uapi::vfio::{BindIommufd, Ioeventfd, ioeventfd_flags};
use uapi::{Command, CommandId, Errno, Profile};
use vfio::{BarPages, DeviceFile, NotWatched, Settings, Watch, Watching};
use zerocopy::IntoBytes;

use crate::argument::{self, Argument};
use crate::bare::{self, Bare};
use crate::exhaustive::{Outcome, every_interleaving};

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Register,
    Signal,
    TakeBack,
    Close,
}

const CALLS: [Call; 4] = [Call::Register, Call::Signal, Call::TakeBack, Call::Close];

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Register => "register",
            Self::Signal => "signal",
            Self::TakeBack => "take back",
            Self::Close => "close",
        })
    }
}

/// The eventfd's watches, and what its writes met.
#[derive(Default)]
struct Eventfd {
    watches: Mutex<rank::Objects, Vec<Option<Arc<Then>>>>,
    writes: Mutex<rank::Function, Writes>,
}

type Then = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Writes {
    running: u32,
    /// The file is closed.
    closed: bool,
}

impl Eventfd {
    /// A write of two steps, so that others may come in between.
    fn written(&self) {
        let mut writes = self.writes.lock();
        assert!(!writes.closed, "a write after the close");
        writes.running += 1;
        drop(writes);
        self.writes.lock().running -= 1;
    }

    fn signal(&self) {
        let watches: Vec<_> = self.watches.lock().iter().flatten().cloned().collect();
        for then in watches {
            then();
        }
    }

    fn watched(&self) -> usize {
        self.watches.lock().iter().flatten().count()
    }
}

struct Watcher(Arc<Eventfd>);

impl Watch for Watcher {
    fn watch(&self, _: Arc<dyn Signal>, then: Then) -> Result<Box<dyn Watching>, NotWatched> {
        let mut watches = self.0.watches.lock();
        watches.push(Some(Arc::new(then)));
        Ok(Box::new(Watched { eventfd: Arc::clone(&self.0), place: watches.len() - 1 }))
    }
}

struct Watched {
    eventfd: Arc<Eventfd>,
    place: usize,
}

impl Watching for Watched {}

impl Drop for Watched {
    fn drop(&mut self) {
        let then = self.eventfd.watches.lock()[self.place].take();
        drop(then);
    }
}

struct World {
    eventfd: Arc<Eventfd>,
    context: Arc<Context>,
    file: Arc<DeviceFile>,
    open: Mutex<rank::Objects, bool>,
}

impl World {
    fn new() -> Self {
        let eventfd = Arc::new(Eventfd::default());
        let bar = Bar {
            size: 4096,
            kind: BarKind::Memory32 { prefetchable: false },
            mappable: Vec::new(),
            msix_table: None,
        };
        let hears = Arc::clone(&eventfd);
        let function = Bare::new(Some((bar, Box::new(move || hears.written()))));
        let watcher = Arc::new(Watcher(Arc::clone(&eventfd)));
        let settings = Settings { watch: Some(watcher), ..Settings::default() };
        let device = bare::device(function, settings);
        let settings = ContextSettings { profile: Profile::Linux73, tvm: Tvm::Implicit };
        let context = Context::open_plain(settings);
        let file = DeviceFile::open(&device, BarPages::default()).unwrap();
        let world = Self { eventfd, context, file, open: Mutex::new(true) };
        let bind = BindIommufd { argsz: 16, ..BindIommufd::default() };
        world.run(CommandId::DeviceBindIommufd, bind.as_bytes()).unwrap();
        world.ask(0).unwrap();
        world
    }

    fn run(&self, id: CommandId, argument: &[u8]) -> Result<(), Errno> {
        let caller = Program { world: self, argument: Argument::new(argument) };
        self.file.ioctl(&caller, Command::of(id).request, argument::AT).map(|_| ())
    }

    fn ask(&self, fd: i32) -> Result<(), Errno> {
        let asked = Ioeventfd {
            argsz: 32,
            flags: ioeventfd_flags::BITS_32,
            offset: vfio::REGION_BASE + 0x10,
            data: 1,
            fd,
            reserved: 0,
        };
        self.run(CommandId::DeviceIoeventfd, asked.as_bytes())
    }

    fn call(&self, call: Call) -> Outcome {
        Outcome(match call {
            Call::Register => self.ask(0),
            Call::Signal => {
                self.eventfd.signal();
                Ok(())
            }
            Call::TakeBack => self.ask(-1),
            Call::Close => self.close(),
        })
    }

    fn close(&self) -> Result<(), Errno> {
        if !std::mem::replace(&mut *self.open.lock(), false) {
            return Err(Errno::EBADF);
        }
        self.file.release();
        let mut writes = self.eventfd.writes.lock();
        assert_eq!(writes.running, 0, "a write is on its way after the close");
        writes.closed = true;
        Ok(())
    }

    fn check_end(&self) {
        let open = *self.open.lock();
        if open {
            // The write stands or it does not, and what one call answered the next knows.
            let stands = self.ask(0) == Err(Errno::EEXIST);
            assert!(stands || self.eventfd.watched() == 1, "registered, and not watched");
            assert_eq!(self.ask(-1), Ok(()));
            assert_eq!(self.ask(-1), Err(Errno::ENODEV));
            self.close().unwrap();
        }
        assert_eq!(self.eventfd.watched(), 0, "watched for nothing");
        self.eventfd.signal();
        self.context.put_file();
    }
}

struct Shipped;

impl Model for Shipped {
    type World = World;
    type Call = Call;
    type Outcome = Outcome;

    fn setup(&self) -> World {
        World::new()
    }

    fn call(&self, world: &World, call: &Call) -> Outcome {
        world.call(*call)
    }

    fn check(&self, world: &World) {
        world.check_end();
    }
}

#[test]
fn every_two_and_three_calls_are_safe_in_all_interleavings() {
    for (index, one) in CALLS.iter().enumerate() {
        for (second, two) in CALLS.iter().enumerate().skip(index) {
            every_interleaving(Shipped, &[*one, *two], &"bound");
            for three in &CALLS[second..] {
                every_interleaving(Shipped, &[*one, *two, *three], &"bound");
            }
        }
    }
}

/// The program as one command sees it.
struct Program<'w> {
    world: &'w World,
    argument: Argument,
}

impl Caller for Program<'_> {
    fn read_prefix(&self, at: u64, into: &mut [u8]) -> usize {
        self.argument.read_prefix(at, into)
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), Unreachable> {
        self.argument.write(at, from);
        Ok(())
    }

    fn memory(&self) -> Arc<dyn Source> {
        unreachable!("nothing is mapped")
    }

    fn file_memory(&self, _: i32) -> Result<Arc<dyn Source>, FileFault> {
        Err(FileFault::Closed)
    }

    fn eventfd(&self, _: i32) -> Result<Arc<dyn Signal>, FileFault> {
        Ok(Arc::new(Silent))
    }

    fn iommufd(&self, _: i32) -> Result<Arc<Context>, FileFault> {
        assert!(self.world.context.get_file(), "the program holds it open");
        Ok(Arc::clone(&self.world.context))
    }
}

impl vfio::Caller for Program<'_> {}

struct Silent;

impl Signal for Silent {
    fn signal(&self) {}
}
