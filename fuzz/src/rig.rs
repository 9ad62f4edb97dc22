//! A machine and a client on it, and what must hold of the two.
//!
//! The machine has a TEE-IO function with a virtual function, and a pair in one iommu_group.

use std::sync::{Arc, OnceLock, Weak};

use iommufd::{Context, PinFault};
use mem::Pages;
use pci::{Address, DmaFault, Function, Interrupt, Notices};
use supervisor::machine::{Assignable, Machine};
use supervisor::platform::Platform;
use supervisor::{Call, Left, Observer, OpenFile, Thread};
use uapi::{Command, CommandId, Errno, Profile};
use vfio::{BarPages, DeviceFile, DeviceState, Watch};

use crate::arena::{Access, Arena, Ledger};
use crate::client::{Client, File, MEMORY_BASE};
use crate::eventfd::Watcher;

/// How many devices the machine has.
pub(crate) const DEVICES: usize = 4;

const PLATFORM: &str = r#"
[[function]]
address = "b1d0:00:01.0"
model = "root-port"
secondary_bus = 1
[[function]]
address = "b1d0:01:00.0"
model = "dma-engine"
tee = true
vfs = 1
[[function]]
address = "b1d0:00:02.0"
model = "root-port"
secondary_bus = 2
[[function]]
address = "b1d0:02:00.0"
model = "dma-engine"
group = "pair"
[[function]]
address = "b1d0:02:00.1"
model = "dma-engine"
group = "pair"
"#;

/// A machine with its client.
pub(crate) struct Rig {
    pub(crate) machine: Machine,
    pub(crate) client: Client,
    pub(crate) watcher: Arc<Watcher>,
    ledger: Arc<Ledger>,
    contexts: Vec<Weak<Context>>,
}

/// What can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `/dev/iommu`, with the commands of a profile.
    Iommufd(Profile),
    /// `/dev/vfio/devices/vfioN`.
    Device(usize),
    /// An eventfd.
    Eventfd,
    /// A memfd of sixteen pages.
    Memory,
}

impl Rig {
    pub(crate) fn new() -> Self {
        static PARSED: OnceLock<Platform> = OnceLock::new();
        let platform = PARSED.get_or_init(|| {
            Platform::parse("rig", PLATFORM).unwrap_or_else(|error| panic!("{error}"))
        });
        let watcher = Arc::new(Watcher::default());
        let watch: Arc<dyn Watch> = Arc::clone(&watcher) as _;
        let machine = Machine::build_watched(platform, Arc::new(Deaf), Some(watch));
        assert_eq!(machine.devices.len(), DEVICES);
        let ledger = Arc::new(Ledger::default());
        let client = Client::new(&ledger);
        Self { machine, client, watcher, ledger, contexts: Vec::new() }
    }

    /// Opens a file as `fd`, in place of what was open there.
    pub(crate) fn open(&mut self, fd: usize, kind: Kind) {
        self.close(fd);
        let file = match kind {
            Kind::Iommufd(profile) => {
                let context = Context::open(profile);
                self.contexts.push(Arc::downgrade(&context));
                File::Iommufd(context)
            }
            Kind::Device(index) => {
                let device = &self.machine.devices[index];
                let pages = bar_pages(&*device.function);
                let file = DeviceFile::open(&device.vfio, pages.clone());
                File::Device(file.expect("no device was withdrawn"), pages)
            }
            Kind::Eventfd => File::Eventfd(self.watcher.eventfd()),
            Kind::Memory => File::Memory(Arena::new(0, PinFault::FileRange, &self.ledger)),
        };
        self.client.files[fd] = Some(file);
    }

    /// Closes `fd`, if it is open.
    pub(crate) fn close(&mut self, fd: usize) {
        match self.client.files[fd].take() {
            Some(File::Iommufd(context)) => context.put_file(),
            Some(File::Device(file, _)) => file.release(),
            Some(File::Eventfd(_) | File::Memory(_)) | None => {}
        }
    }

    /// Runs a command. `None` if `fd` takes none.
    pub(crate) fn ioctl(
        &self,
        fd: usize,
        request: u32,
        argument: u64,
    ) -> Option<Result<u32, Errno>> {
        match self.client.files[fd].as_ref()? {
            File::Iommufd(context) => Some(context.ioctl(&self.client, request, argument)),
            File::Device(file, _) => Some(file.ioctl(&self.client, request, argument)),
            File::Eventfd(_) | File::Memory(_) => None,
        }
    }

    /// The device file that `fd` is open on.
    pub(crate) fn device_file(&self, fd: impl Into<usize>) -> Option<&Arc<DeviceFile>> {
        match self.client.files[fd.into()].as_ref()? {
            File::Device(file, _) => Some(file),
            File::Iommufd(_) | File::Eventfd(_) | File::Memory(_) => None,
        }
    }

    /// Lets a device work. It must not reach memory unless it is attached.
    pub(crate) fn step(&self, index: usize, budget_bytes: usize) {
        let Assignable { function, vfio, .. } = &self.machine.devices[index];
        let attached = matches!(vfio.state(), DeviceState::Attached { .. });
        self.ledger.allow_dma(attached);
        function.step(budget_bytes);
        self.ledger.allow_dma(false);
    }

    /// Checks that what the contexts say is pinned is what is pinned.
    pub(crate) fn check_pins(&self) {
        let contexts = self.contexts.iter().filter_map(Weak::upgrade);
        let open = contexts.filter(|context| context.get_file());
        let told: u64 = open
            .map(|context| {
                let told = context.counts().pinned_bytes;
                context.put_file();
                told
            })
            .sum();
        assert_eq!(self.ledger.pinned_bytes(), told, "bytes pinned, and told to be pinned");
    }

    /// Closes everything and checks that nothing is left of it.
    pub(crate) fn finish(mut self) {
        self.close_all();
        self.bind_all();
        self.close_all();
    }

    fn close_all(&mut self) {
        for fd in 0..self.client.files.len() {
            self.close(fd);
            self.watcher.serve();
        }
        assert_eq!(self.ledger.pinned_bytes(), 0, "bytes pinned for a closed file");
        let alive = self.contexts.iter().filter(|context| context.strong_count() > 0).count();
        assert_eq!(alive, 0, "contexts alive after everything was closed");
        self.watcher.check_unused();
        for device in &self.machine.devices {
            assert_eq!(device.vfio.state(), DeviceState::Free, "{}", device.address);
        }
    }

    /// Binds every device to a new context: nothing that was done before may stand in the way.
    fn bind_all(&mut self) {
        let iommufd = self.client.files.len() - 1;
        self.open(iommufd, Kind::Iommufd(Profile::Rfc));
        self.client.memory.protect_all(Access::ALL);
        for index in 0..DEVICES {
            self.open(index, Kind::Device(index));
            self.bind(index, iommufd);
        }
    }

    /// Binds a device's file to a context's.
    pub(crate) fn bind(&self, fd: usize, iommufd: usize) {
        let iommufd = u32::try_from(iommufd).expect("a descriptor");
        self.must(fd, CommandId::DeviceBindIommufd, &[16, 0, iommufd, 0]);
    }

    /// Runs a command that has to succeed, on a struct of `words`; gives the struct's third word.
    pub(crate) fn must(&self, fd: usize, id: CommandId, words: &[u32]) -> u32 {
        const THIRD_WORD: u64 = 8;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.client.memory.poke(0, &bytes);
        let answer = self.ioctl(fd, Command::of(id).request, MEMORY_BASE);
        assert_eq!(answer, Some(Ok(0)), "{id:?}");
        let mut third = [0; 4];
        self.client.memory.read_prefix(MEMORY_BASE + THIRD_WORD, &mut third);
        u32::from_le_bytes(third)
    }
}

/// Memory for the BARs that clients may map.
fn bar_pages(function: &dyn Function) -> BarPages {
    std::array::from_fn(|index| {
        let bar = function.bar(index).filter(|bar| !bar.mappable.is_empty())?;
        let length = usize::try_from(bar.size).ok()?;
        Some(Arc::new(Pages::anonymous(length).expect("memory for a BAR")))
    })
}

/// Nobody to tell.
pub struct Deaf;

impl Notices for Deaf {
    fn dma_fault(&self, _: Address, _: &DmaFault) {}

    fn interrupt_unheard(&self, _: Address, _: Interrupt) {}
}

impl Observer for Deaf {
    fn call(&self, _: Thread, _: &Call<'_>, _: Result<u64, Errno>) {}

    fn released(&self, _: &OpenFile, _: &Left) {}
}
