//! A machine and a client on it, and what must hold of the two.
//!
//! The machine has a TEE-IO function with a virtual function, and a pair in one iommu_group.

use std::sync::{Arc, OnceLock, Weak};

use iommufd::{Context, Counts, PinFault};
use mem::Pages;
use pci::{Address, DmaFault, Function, Interrupt, Notices};
use supervisor::machine::{Assignable, Machine};
use supervisor::platform::Platform;
use supervisor::{Call, Left, Observer, OpenFile, Thread};
use uapi::iommufd::IoasMapFile;
use uapi::vfio::{AttachIommufdPt, BindIommufd};
use uapi::{Command, CommandId, Errno, FileKind, Profile};
use vfio::{BarPages, DeviceFile, DeviceState, Watch};
use zerocopy::FromBytes;

use crate::arena::{Access, Allowed, Arena, Ledger};
use crate::client::{Client, File, MEMORY_BASE};
use crate::eventfd::Watcher;
use crate::mapped::Mapped;

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
    contexts: Vec<Known>,
    /// Which of them each device was last bound to.
    bound: [usize; DEVICES],
}

/// A context that was opened, and what it should have mapped.
struct Known {
    context: Weak<Context>,
    mapped: Mapped,
}

impl Known {
    /// What the context holds, if it is open still.
    fn counts(&self) -> Option<Counts> {
        let context = self.context.upgrade().filter(|context| context.get_file())?;
        let counts = context.counts();
        context.put_file();
        Some(counts)
    }
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
        Self { machine, client, watcher, ledger, contexts: Vec::new(), bound: [0; DEVICES] }
    }

    /// Opens a file as `fd`, in place of what was open there.
    pub(crate) fn open(&mut self, fd: usize, kind: Kind) {
        self.close(fd);
        let file = match kind {
            Kind::Iommufd(profile) => {
                let context = Context::open(profile);
                let known = Known { context: Arc::downgrade(&context), mapped: Mapped::default() };
                self.contexts.push(known);
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
        &mut self,
        fd: usize,
        request: u32,
        argument: u64,
    ) -> Option<Result<u32, Errno>> {
        let sent: Struct = self.client.memory.peek(argument);
        let answer = match self.client.files[fd].as_ref()? {
            File::Iommufd(context) => context.ioctl(&self.client, request, argument),
            File::Device(file, _) => file.ioctl(&self.client, request, argument),
            File::Eventfd(_) | File::Memory(_) => return None,
        };
        let returned: Struct = self.client.memory.peek(argument);
        match &self.client.files[fd] {
            Some(File::Iommufd(context)) => {
                let index = self.index_of(context);
                self.follow_context(index, request, (&sent, &returned), answer);
            }
            Some(File::Device(file, _)) if answer.is_ok() => {
                let device = self.machine.devices.iter();
                let device = device.map(|device| &device.vfio);
                let index = device.into_iter().position(|one| Arc::ptr_eq(one, file.device()));
                let index = index.expect("a file of one of our devices");
                self.follow_device(index, request, &sent, &returned);
            }
            _ => {}
        }
        Some(answer)
    }

    fn index_of(&self, context: &Arc<Context>) -> usize {
        let context = Arc::downgrade(context);
        let index = self.contexts.iter().position(|known| known.context.ptr_eq(&context));
        index.expect("every context was noted when it was opened")
    }

    /// Keeps the book of a context's mappings.
    fn follow_context(
        &mut self,
        index: usize,
        request: u32,
        (sent, returned): (&Struct, &Struct),
        answer: Result<u32, Errno>,
    ) {
        let Some(row) = uapi::lookup(FileKind::Iommufd, Profile::Rfc, request) else { return };
        let mapped = &mut self.contexts[index].mapped;
        match (row.id, answer) {
            // The work may be done where only the answer could not be written.
            (CommandId::IoasMap | CommandId::IoasMapFile | CommandId::IoasUnmap, Err(errno))
                if errno == Errno::EFAULT =>
            {
                mapped.lose_track();
            }
            (CommandId::IoasUnmap, answer) => mapped.unmap(&as_struct(sent), answer),
            (_, Err(_)) => {}
            (CommandId::IoasMap, Ok(_)) => mapped.map(&as_struct(returned), &self.client.memory),
            (CommandId::IoasMapFile, Ok(_)) => {
                let map: IoasMapFile = as_struct(returned);
                let fd = usize::try_from(map.fd).expect("it was taken");
                let memory = match &self.client.files[fd] {
                    Some(File::Memory(memory)) => Some(memory),
                    _ => None,
                };
                mapped.map_file(&map, memory);
            }
            (CommandId::Destroy, Ok(_)) => mapped.destroy(&as_struct(sent)),
            (CommandId::HwptAlloc, Ok(_)) => mapped.table(&as_struct(returned)),
            (_, Ok(_)) => {}
        }
    }

    /// Follows which context, and which page table of it, a device's DMA goes through.
    fn follow_device(&mut self, device: usize, request: u32, sent: &Struct, returned: &Struct) {
        let row = uapi::lookup(FileKind::VfioDevice, Profile::Rfc, request);
        match row.map(|row| row.id) {
            Some(CommandId::DeviceBindIommufd) => {
                let bind: BindIommufd = as_struct(sent);
                let fd = usize::try_from(bind.iommufd).expect("it was taken");
                if let Some(File::Iommufd(context)) = &self.client.files[fd] {
                    self.bound[device] = self.index_of(context);
                }
            }
            Some(CommandId::DeviceAttachIommufdPt) => {
                let (asked, got): (AttachIommufdPt, AttachIommufdPt) =
                    (as_struct(sent), as_struct(returned));
                self.contexts[self.bound[device]].mapped.attach(asked.pt_id, got.pt_id);
            }
            _ => {}
        }
    }

    /// The device file that `fd` is open on.
    pub(crate) fn device_file(&self, fd: impl Into<usize>) -> Option<&Arc<DeviceFile>> {
        match self.client.files[fd.into()].as_ref()? {
            File::Device(file, _) => Some(file),
            File::Iommufd(_) | File::Eventfd(_) | File::Memory(_) => None,
        }
    }

    /// Lets a device work. It must reach no memory but what is mapped for it.
    pub(crate) fn step(&self, index: usize, budget_bytes: usize) {
        let Assignable { function, vfio, .. } = &self.machine.devices[index];
        let allowed = match vfio.state() {
            DeviceState::Attached { page_table_id, .. } => {
                let mapped = &self.contexts[self.bound[index]].mapped;
                mapped.reach(page_table_id).map_or(Allowed::Anywhere, Allowed::To)
            }
            DeviceState::Free | DeviceState::Open { .. } | DeviceState::Bound { .. } => {
                Allowed::Nowhere
            }
        };
        self.ledger.allow_dma(allowed);
        function.step(budget_bytes);
        self.ledger.allow_dma(Allowed::Nowhere);
    }

    /// Checks that the contexts hold mapped what was mapped, and pinned what they say is pinned.
    pub(crate) fn check_memory(&self) {
        let mut pinned_bytes = 0;
        for known in &self.contexts {
            let Some(counts) = known.counts() else { continue };
            pinned_bytes += counts.pinned_bytes;
            if let Some(expected) = known.mapped.count() {
                assert_eq!((counts.areas, counts.mapped_bytes), expected, "areas and bytes mapped");
            }
        }
        assert_eq!(self.ledger.pinned_bytes(), pinned_bytes, "bytes pinned, and told to be pinned");
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
        let alive = self.contexts.iter().filter(|known| known.context.strong_count() > 0).count();
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
    pub(crate) fn bind(&mut self, fd: usize, iommufd: usize) {
        let iommufd = u32::try_from(iommufd).expect("a descriptor");
        self.must(fd, CommandId::DeviceBindIommufd, &[16, 0, iommufd, 0]);
    }

    /// Runs a command that has to succeed, on a struct of `words`; gives the struct's third word.
    pub(crate) fn must(&mut self, fd: usize, id: CommandId, words: &[u32]) -> u32 {
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

/// As many bytes as the structs have that are looked at.
type Struct = [u8; 48];

fn as_struct<T: FromBytes>(bytes: &Struct) -> T {
    T::read_from_prefix(bytes).map(|(value, _)| value).expect("it is no longer than 48 bytes")
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
