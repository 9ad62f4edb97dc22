//! A program's open group, its container and its devices, and every pair of calls that open and end them.
//!
//! When nothing runs: a device that is open works; a device is had through its group or through its own file, never
//! both; a group is open exactly while its file is, or, with VFIO's own container, a device of it. At the end nothing is
//! left, in whatever order it was closed.

use std::fmt;
use std::sync::Arc;

use explore::Model;
use iommufd::{Caller, Context, ContextSettings, FileFault, Signal, Source, Tvm, Unreachable};
use sync::{Mutex, rank};
use uapi::vfio::{BindIommufd, extension};
use uapi::{Command, CommandId, Errno, Profile};
use vfio::{BarPages, Container, Device, DeviceFile, DeviceState, GroupFile, Refusal, Settings};
use zerocopy::IntoBytes;

use crate::argument::{self, Argument};
use crate::bare::{self, ADDRESS, Bare};
use crate::exhaustive::{Outcome, every_interleaving};

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    OpenGroup,
    GetDevice,
    UnsetContainer,
    CloseGroup,
    CloseDevice,
    BindAlone,
    CloseAlone,
}

const CALLS: [Call; 7] = [
    Call::OpenGroup,
    Call::GetDevice,
    Call::UnsetContainer,
    Call::CloseGroup,
    Call::CloseDevice,
    Call::BindAlone,
    Call::CloseAlone,
];

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenGroup => "open group",
            Self::GetDevice => "get device",
            Self::UnsetContainer => "unset container",
            Self::CloseGroup => "close group",
            Self::CloseDevice => "close device",
            Self::BindAlone => "bind alone",
            Self::CloseAlone => "close alone",
        })
    }
}

/// What stands behind `/dev/vfio/vfio`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Iommufd,
    Type1,
}

/// How far the program has come when threads begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Nothing,
    ContainerSet,
    DeviceOpen,
}

#[derive(Clone, Copy, Debug)]
struct Start {
    behind: Behind,
    stage: Stage,
}

/// Descriptors of the program, by what they are; `None` where closed.
struct World {
    behind: Behind,
    device: Arc<Device>,
    context: Arc<Context>,
    container: Arc<Container>,
    group: Mutex<rank::Objects, Option<Arc<GroupFile>>>,
    given: Mutex<rank::Objects, Option<Arc<DeviceFile>>>,
    alone: Mutex<rank::Objects, Option<Arc<DeviceFile>>>,
}

impl World {
    fn new(start: Start) -> Self {
        let device = bare::device(Bare::new(None), Settings::default());
        let settings = ContextSettings { profile: Profile::Linux73, tvm: Tvm::Implicit };
        let alone = DeviceFile::open(&device, BarPages::default()).unwrap();
        let world = Self {
            behind: start.behind,
            device,
            context: Context::open_plain(settings),
            container: Container::new_plain(Profile::Linux73),
            group: Mutex::new(None),
            given: Mutex::new(None),
            alone: Mutex::new(Some(alone)),
        };
        if start.stage != Stage::Nothing {
            world.open_group().unwrap();
            world.of_group(CommandId::GroupSetContainer, &CONTAINER.to_le_bytes()).unwrap();
            world.set_iommu().unwrap();
        }
        if start.stage == Stage::DeviceOpen {
            world.get_device().unwrap();
        }
        world
    }

    fn call(&self, call: Call) -> Outcome {
        Outcome(match call {
            Call::OpenGroup => self.open_group(),
            Call::GetDevice => self.get_device(),
            Call::UnsetContainer => self.of_group(CommandId::GroupUnsetContainer, &[]),
            Call::CloseGroup => close(&self.group, |group| group.release()),
            Call::CloseDevice => close(&self.given, |file| file.release()),
            Call::BindAlone => self.bind_alone(),
            Call::CloseAlone => close(&self.alone, |file| file.release()),
        })
    }

    fn open_group(&self) -> Result<(), Errno> {
        let file =
            GroupFile::open(self.device.group()).map_err(|refusal: Refusal| refusal.errno())?;
        let before = self.group.lock().replace(file);
        assert!(before.is_none(), "a group is open twice");
        Ok(())
    }

    fn set_iommu(&self) -> Result<(), Errno> {
        let (request, version) =
            (Command::of(CommandId::SetIommu).request, extension::TYPE1V2_IOMMU);
        let caller = Program::of(self, &[]);
        match self.behind {
            Behind::Iommufd => self.context.ioctl(&caller, request, version),
            Behind::Type1 => self.container.ioctl(&caller, request, version),
        }
        .map(|_| ())
    }

    fn get_device(&self) -> Result<(), Errno> {
        self.of_group(CommandId::GroupGetDeviceFd, format!("{ADDRESS}\0").as_bytes())
    }

    fn of_group(&self, id: CommandId, argument: &[u8]) -> Result<(), Errno> {
        let group = self.group.lock().clone().ok_or(Errno::EBADF)?;
        let caller = Program::of(self, argument);
        group.ioctl(&caller, Command::of(id).request, argument::AT).map(|_| ())
    }

    fn bind_alone(&self) -> Result<(), Errno> {
        let file = self.alone.lock().clone().ok_or(Errno::EBADF)?;
        let argument = BindIommufd { argsz: 16, iommufd: IOMMUFD, ..BindIommufd::default() };
        let caller = Program::of(self, argument.as_bytes());
        let request = Command::of(CommandId::DeviceBindIommufd).request;
        file.ioctl(&caller, request, argument::AT).map(|_| ())
    }

    fn check_quiet(&self) {
        let given = self.given.lock().clone();
        let alone = self.alone.lock().clone();
        let is_bound = |file: &Option<Arc<DeviceFile>>| {
            file.as_ref().is_some_and(|file| file.iommufd().is_some())
        };
        assert_eq!(given.is_some(), is_bound(&given), "what a group gave is bound");
        let file_open = self.group.lock().is_some();
        assert!(!(is_bound(&alone) && file_open), "had through its group and alone");
        let kept = self.behind == Behind::Type1 && given.is_some();
        assert_eq!(self.device.group().is_open(), file_open || kept, "whether the group is open");
        let holder = if is_bound(&alone) || given.is_some() { 1 } else { 0 };
        let bound = !matches!(self.device.state(), DeviceState::Free | DeviceState::Open { .. });
        assert_eq!(holder == 1, bound, "whether the device is bound");
    }

    fn check_end(&self) {
        for call in [Call::CloseGroup, Call::CloseDevice, Call::CloseAlone] {
            self.call(call);
        }
        assert_eq!(self.device.state(), DeviceState::Free);
        assert!(!self.device.group().is_open());
        assert!(self.device.group().iommufd().is_none(), "a container is left");
        self.context.put_file();
        assert!(!self.context.is_open(), "somebody keeps the context open");
        // What was closed can be had again, all of it.
        let again = Start { behind: Behind::Type1, stage: Stage::Nothing };
        let fresh = GroupFile::open(self.device.group()).unwrap();
        let world = World { group: Mutex::new(Some(fresh)), ..World::new(again) };
        let world = World { device: Arc::clone(&self.device), ..world };
        let container = CONTAINER.to_le_bytes();
        assert_eq!(world.of_group(CommandId::GroupSetContainer, &container), Ok(()));
        assert_eq!(world.set_iommu(), Ok(()));
        assert_eq!(world.get_device(), Ok(()));
        for call in [Call::CloseGroup, Call::CloseDevice] {
            assert_eq!(world.call(call), Outcome(Ok(())));
        }
        assert!(!self.device.group().is_open());
    }
}

/// Closes a descriptor: what it named is released by whoever closed it.
fn close<T>(
    slot: &Mutex<rank::Objects, Option<Arc<T>>>,
    release: impl FnOnce(&T),
) -> Result<(), Errno> {
    let file = slot.lock().take().ok_or(Errno::EBADF)?;
    release(&file);
    Ok(())
}

struct Shipped(Start);

impl Model for Shipped {
    type World = World;
    type Call = Call;
    type Outcome = Outcome;

    fn setup(&self) -> World {
        World::new(self.0)
    }

    fn call(&self, world: &World, call: &Call) -> Outcome {
        world.call(*call)
    }

    fn check(&self, world: &World) {
        world.check_quiet();
        world.check_end();
    }
}

#[test]
fn every_pair_on_a_group_is_safe_in_all_interleavings() {
    for behind in [Behind::Iommufd, Behind::Type1] {
        for stage in [Stage::Nothing, Stage::ContainerSet, Stage::DeviceOpen] {
            let start = Start { behind, stage };
            for (index, one) in CALLS.iter().enumerate() {
                for other in &CALLS[index..] {
                    every_interleaving(Shipped(start), &[*one, *other], &start);
                }
            }
        }
    }
}

/// Descriptors that the program's structs name.
const CONTAINER: i32 = 4;
const IOMMUFD: i32 = 3;

/// The program as one command sees it.
struct Program<'w> {
    world: &'w World,
    argument: Argument,
}

impl<'w> Program<'w> {
    fn of(world: &'w World, argument: &[u8]) -> Self {
        Self { world, argument: Argument::new(argument) }
    }
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
        Err(FileFault::Closed)
    }

    fn iommufd(&self, _: i32) -> Result<Arc<Context>, FileFault> {
        assert!(self.world.context.get_file(), "the program holds it open");
        Ok(Arc::clone(&self.world.context))
    }
}

impl vfio::Caller for Program<'_> {
    fn container(&self, _: i32) -> Result<Arc<Container>, FileFault> {
        match self.world.behind {
            Behind::Iommufd => Err(FileFault::OtherKind),
            Behind::Type1 => Ok(Arc::clone(&self.world.container)),
        }
    }

    fn install_device(
        &self,
        _: &Arc<Device>,
        open: &mut dyn FnMut(BarPages) -> Result<Arc<DeviceFile>, Refusal>,
    ) -> Result<u32, Errno> {
        if self.world.given.lock().is_some() {
            return Ok(0);
        }
        let file = open(BarPages::default()).map_err(|refusal| refusal.errno())?;
        let before = self.world.given.lock().replace(file);
        assert!(before.is_none(), "a group gives one device at a time");
        Ok(0)
    }
}
