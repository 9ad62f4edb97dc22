//! A BAR that is lent as a dma-buf, mapped while it is taken back: once the device decodes no memory, or is closed, no DMA
//! reaches it, in whatever order the calls came.

use std::fmt;
use std::sync::Arc;

use explore::Model;
use iommufd::{
    Caller, Context, ContextSettings, DmaBuf, FileFault, Signal, Source, Tvm, Unreachable,
};
use mem::Pages;
use pci::regs::{command, header};
use pci::{Bar, BarKind, Dma};
use sync::{Mutex, rank};
use uapi::iommufd::{IoasAlloc, IoasMapFile, IoasUnmap, map_flags};
use uapi::vfio::{AttachIommufdPt, BindIommufd, feature_flags, feature_id, region_index};
use uapi::{Command, CommandId, Errno, Profile};
use vfio::{BarPages, DeviceFile, Settings};
use zerocopy::IntoBytes;

use crate::argument::{self, Argument};
use crate::bare::{self, Bare};
use crate::exhaustive::{Outcome, every_interleaving};

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Map,
    DecodeOff,
    Close,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Map => "map",
            Self::DecodeOff => "decode off",
            Self::Close => "close",
        })
    }
}

const CALLS: [Call; 3] = [Call::Map, Call::DecodeOff, Call::Close];
const IOVA: u64 = 0x10_0000;
const PAGE: u64 = 0x1000;
/// What the first IOAS of a context with one device is called.
const IOAS: u32 = 2;

struct World {
    context: Arc<Context>,
    file: Arc<DeviceFile>,
    /// What the other end of the DMA goes through.
    dma: Arc<iommufd::Device>,
    lent: Mutex<rank::Objects, Option<Arc<DmaBuf>>>,
    open: Mutex<rank::Objects, bool>,
}

impl World {
    fn new() -> Self {
        let bar = Bar {
            size: PAGE,
            kind: BarKind::Memory32 { prefetchable: false },
            mappable: vec![(0, PAGE)],
            msix_table: None,
        };
        let device = bare::device(Bare::new(Some((bar, Box::new(|| {})))), Settings::default());
        let settings = ContextSettings { profile: Profile::Linux73, tvm: Tvm::Implicit };
        let context = Context::open_plain(settings);
        let mut pages = BarPages::default();
        pages[0] = Some(Arc::new(Pages::anonymous(0x1000).unwrap()));
        let file = DeviceFile::open(&device, pages).unwrap();
        let bind = BindIommufd { argsz: 16, ..BindIommufd::default() };
        let (lent, open) = (Mutex::new(None), Mutex::new(true));
        let caller =
            Program { context: &context, lent: &lent, argument: Argument::new(bind.as_bytes()) };
        let request = Command::of(CommandId::DeviceBindIommufd).request;
        file.ioctl(&caller, request, argument::AT).unwrap();
        let dma = file.iommufd().unwrap();
        let world = Self { context, file, dma, lent, open };
        let ioas = IoasAlloc { size: 12, ..IoasAlloc::default() };
        world.iommu(CommandId::IoasAlloc, ioas.as_bytes()).unwrap();
        let attach = AttachIommufdPt { argsz: 12, pt_id: IOAS, ..AttachIommufdPt::default() };
        world.device(CommandId::DeviceAttachIommufdPt, attach.as_bytes()).unwrap();
        let words = [40, feature_flags::GET | feature_id::DMA_BUF, 0, 0, 0, 1, 0, 0, 0x1000, 0];
        world.device(CommandId::DeviceFeature, words.as_bytes()).unwrap();
        world
    }

    fn program(&self, argument: &[u8]) -> Program<'_> {
        Program { context: &self.context, lent: &self.lent, argument: Argument::new(argument) }
    }

    fn device(&self, id: CommandId, argument: &[u8]) -> Result<(), Errno> {
        let request = Command::of(id).request;
        self.file.ioctl(&self.program(argument), request, argument::AT).map(|_| ())
    }

    fn iommu(&self, id: CommandId, argument: &[u8]) -> Result<(), Errno> {
        let request = Command::of(id).request;
        self.context.ioctl(&self.program(argument), request, argument::AT).map(|_| ())
    }

    fn map(&self) -> Result<(), Errno> {
        let map = IoasMapFile {
            size: 40,
            flags: map_flags::FIXED_IOVA | map_flags::WRITEABLE | map_flags::READABLE,
            ioas_id: IOAS,
            fd: 0,
            start: 0,
            length: PAGE,
            iova: IOVA,
        };
        self.iommu(CommandId::IoasMapFile, map.as_bytes())
    }

    fn set_command(&self, value: u16) -> Result<(), Errno> {
        let position = vfio::REGION_BASE
            + (u64::from(region_index::CONFIG) << vfio::REGION_SHIFT)
            + u64::from(header::COMMAND);
        let program = self.program(&value.to_le_bytes());
        self.file.write(&program, argument::AT, 2, position).map(|_| ())
    }

    fn is_reached(&self) -> bool {
        self.dma.read(IOVA, &mut [0; 4]).is_ok()
    }

    fn call(&self, call: Call) -> Outcome {
        let answer = match call {
            Call::Map => return Outcome(self.map()),
            Call::DecodeOff => self.set_command(0),
            Call::Close => self.close(),
        };
        if answer.is_ok() {
            assert!(!self.is_reached(), "DMA after {call}");
        }
        Outcome(answer)
    }

    fn close(&self) -> Result<(), Errno> {
        if !std::mem::replace(&mut *self.open.lock(), false) {
            return Err(Errno::EBADF);
        }
        self.file.release();
        Ok(())
    }

    fn check_end(&self) {
        if *self.open.lock() {
            self.set_command(command::MEMORY).unwrap();
            let unmap = IoasUnmap { size: 24, ioas_id: IOAS, iova: 0, length: u64::MAX };
            self.iommu(CommandId::IoasUnmap, unmap.as_bytes()).unwrap();
            self.map().unwrap();
            assert!(self.is_reached(), "lent again");
            self.close().unwrap();
        }
        assert!(!self.is_reached());
        assert!(self.map().is_err(), "taken back for good");
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
fn every_two_calls_and_with_a_map_three_are_safe_in_all_interleavings() {
    for (index, one) in CALLS.iter().enumerate() {
        for two in &CALLS[index..] {
            every_interleaving(Shipped, &[*one, *two], &"lent");
            every_interleaving(Shipped, &[Call::Map, *one, *two], &"lent");
        }
    }
}

/// The program as one command sees it.
struct Program<'w> {
    context: &'w Arc<Context>,
    lent: &'w Mutex<rank::Objects, Option<Arc<DmaBuf>>>,
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
        unreachable!("only the dma-buf is mapped")
    }

    fn file_memory(&self, _: i32) -> Result<Arc<dyn Source>, FileFault> {
        Err(FileFault::Closed)
    }

    fn eventfd(&self, _: i32) -> Result<Arc<dyn Signal>, FileFault> {
        Err(FileFault::Closed)
    }

    fn install_dma_buf(&self, buffer: &Arc<DmaBuf>, _: u32) -> Result<i32, Errno> {
        *self.lent.lock() = Some(Arc::clone(buffer));
        Ok(0)
    }

    fn dma_buf(&self, _: i32) -> Result<Arc<DmaBuf>, FileFault> {
        self.lent.lock().clone().ok_or(FileFault::Closed)
    }

    fn iommufd(&self, _: i32) -> Result<Arc<Context>, FileFault> {
        assert!(self.context.get_file(), "the program holds it open");
        Ok(Arc::clone(self.context))
    }
}

impl vfio::Caller for Program<'_> {}
