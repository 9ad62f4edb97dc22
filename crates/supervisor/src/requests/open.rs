//! Opening: device files, and what the overlay lends. Source: open(2), openat2(2).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use iommufd::{Context, ContextSettings, Resource, WINDOWS_BYTES};
use mem::Pages;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use uapi::{Errno, FileKind};
use vfio::{BarPages, Container, DeviceFile, GroupFile, REGION_BASE, REGION_SHIFT};
use zerocopy::{FromBytes, IntoBytes};

use super::path::{goes_down, overlay_path};
use super::{Reply, Request, proc_file};
use crate::closes::Release;
use crate::fail_nth;
use crate::files::{Access, Object};
use crate::front_end::{FrontEnd, errno};
use crate::observer::{Call, OpenFile, Thread};
use crate::overlay::{Attribute, Node, Opened};
use crate::platform::VfioContainer;
use crate::process::Identity;
use crate::reach::{Place, Touch};

/// Regions that fit in a device file: its length follows.
const REGIONS_MOST: u64 = 16;
/// Length of a device file.
pub(super) const DEVICE_FILE_BYTES: u64 = REGION_BASE + (REGIONS_MOST << REGION_SHIFT);

/// `open`, `creat` and `openat`.
pub(super) fn open(request: &Request<'_>, directory: i32, address: u64, flags: u64) -> Reply {
    let bits = i32::try_from(flags & 0x7fff_ffff).unwrap_or(0).cast_unsigned();
    let flags = OFlags::from_bits_retain(bits);
    let Some(path) = overlay_path(request, directory, address) else {
        return proc_file::open(request, address, flags).unwrap_or(Reply::Continue);
    };
    match request.front.overlay.open(&path, u64::from(bits)) {
        Opened::NotOurs => Reply::Continue,
        Opened::Refused(errno) => Reply::Error(errno),
        Opened::File(file) => {
            request.front.hand_out_directory();
            install(request, &file, flags).into()
        }
        Opened::Node(node) => {
            let path = String::from_utf8_lossy(&path).into_owned();
            open_node(request, path, node, flags).into()
        }
        Opened::Attribute { attribute, content } => {
            let path = String::from_utf8_lossy(&path).into_owned();
            open_attribute(request, path, attribute, &content, flags).into()
        }
    }
}

/// `openat2`.
pub(super) fn open_how(
    request: &Request<'_>,
    directory: i32,
    address: u64,
    how: u64,
    size: u64,
) -> Reply {
    /// `struct open_how`.
    #[derive(Default, FromBytes, IntoBytes)]
    #[repr(C)]
    struct How {
        flags: u64,
        mode: u64,
        resolve: u64,
    }
    /// Resolutions in which an absolute path or a `..` means another file: `RESOLVE_BENEATH`,
    /// `RESOLVE_IN_ROOT`.
    const ANOTHER_ROOT: u64 = 0x08 | 0x10;
    /// Resolutions that openat2(2) knows; the kernel refuses others before it looks at the path.
    const KNOWN: u64 = 0x3f;
    let mut value = How::default();
    let whole = size >= size_of::<How>() as u64
        && host::memory::read(request.call.thread, how, value.as_mut_bytes()) == size_of::<How>();
    let from_root = value.resolve & ANOTHER_ROOT == 0;
    if !whole || value.resolve & !KNOWN != 0 || !(from_root || goes_down(request, address)) {
        return Reply::Continue;
    }
    open(request, directory, address, value.flags)
}

fn open_node(request: &Request<'_>, path: String, node: Node, flags: OFlags) -> Result<u64, Errno> {
    let front = request.front;
    let process = front.tasks.task(request.call.thread).map(|task| task.process().pid());
    let caller = Thread { process: process.unwrap_or(0), id: request.call.thread };
    let opened = make_node(request, path.clone(), node, flags, caller.process);
    let (told, answer) = match opened {
        Ok((told, fd)) => (Some(told), Ok(fd)),
        Err(errno) => (None, Err(errno)),
    };
    let call = Call::Open { path: &path, file: told.as_ref() };
    front.observer.call(caller, &call, answer);
    answer
}

/// Makes the open file of a device node and installs it.
fn make_node(
    request: &Request<'_>,
    path: String,
    node: Node,
    flags: OFlags,
    opener: i32,
) -> Result<(OpenFile, u64), Errno> {
    let front = request.front;
    request.complete_closes(match node {
        Node::Iommu => Touch::Nothing,
        Node::Vfio(number) => Touch::Device(number),
        Node::Container => Touch::Nothing,
        Node::Group(number) => match front.machine.member_of(number) {
            Some(device) => Touch::Neighbours(Place::of(device)),
            None => Touch::Nothing,
        },
    });
    // Only the mock's vIOMMUs have windows.
    let windows_bytes = front.machine.mock.as_ref().map_or(0, |_| WINDOWS_BYTES);
    let (kind, name, length) = match node {
        Node::Iommu => (FileKind::Iommufd, "iommufd", windows_bytes),
        Node::Vfio(_) => (FileKind::VfioDevice, "vfio", DEVICE_FILE_BYTES),
        Node::Container => match front.machine.settings.vfio_container {
            VfioContainer::Iommufd => (FileKind::Iommufd, "vfio-container", windows_bytes),
            VfioContainer::Type1 => (FileKind::VfioContainer, "vfio-container", 0),
        },
        Node::Group(_) => (FileKind::VfioGroup, "vfio-group", 0),
    };
    if let Some(mock) = front.machine.mock.as_ref().filter(|_| kind == FileKind::Iommufd) {
        let _serving = fail_nth::serve(request.call.thread);
        mock.quota().admit(Resource::Context, 1).map_err(|_| Errno::ENOMEM)?;
    }
    let memfd = sealed_memfd(name, length)?;
    let theirs = described_again(&memfd, flags)?;
    let identity = Identity::of(memfd.as_fd()).map_err(kernels)?;
    let object = match node {
        Node::Iommu => Object::Iommufd(open_context(front)),
        Node::Container => match front.machine.settings.vfio_container {
            VfioContainer::Iommufd => {
                let context = open_context(front);
                context.charge_process(true);
                Object::Iommufd(context)
            }
            VfioContainer::Type1 => Object::Container(Container::new(front.profile)),
        },
        Node::Group(number) => {
            let member = front.machine.member_of(number).ok_or(Errno::ENXIO)?;
            let file = GroupFile::open(member.vfio.group()).map_err(|refusal| refusal.errno())?;
            Object::Group(file)
        }
        Node::Vfio(number) => {
            let device = front.machine.devices.get(number).ok_or(Errno::ENXIO)?;
            let pages = bar_pages(device.function.as_ref(), &memfd)?;
            let file = DeviceFile::open(&device.vfio, pages).map_err(|refusal| refusal.errno())?;
            Object::Vfio { number, file }
        }
    };
    let told = OpenFile { serial: front.files.next_serial(), kind, path, opener };
    let watched = front.closes.watch(memfd.as_fd(), identity);
    front.files.insert(identity, told.clone(), object, Access::of(flags), Some(memfd));
    if let Err(error) = watched {
        front.release(identity);
        return Err(errno(&error));
    }
    // Where this fails our copy is the last, and its close releases the file.
    let fd = install(request, &theirs, flags)?;
    Ok((told, fd))
}

fn open_context(front: &FrontEnd) -> Arc<Context> {
    let tvm = front.machine.settings.tvm;
    let settings = ContextSettings { profile: front.profile, tvm };
    match &front.machine.mock {
        Some(machine) => Context::open_mock(settings, machine),
        None => Context::open_with(settings),
    }
}

pub(super) fn open_attribute(
    request: &Request<'_>,
    path: String,
    attribute: Arc<dyn Attribute>,
    content: &OwnedFd,
    flags: OFlags,
) -> Result<u64, Errno> {
    let front = request.front;
    let identity = Identity::of(content.as_fd()).map_err(kernels)?;
    let opener = request.call.thread;
    // Attributes have no commands; the kind is never asked for.
    let kind = FileKind::Iommufd;
    let told = OpenFile { serial: front.files.next_serial(), kind, path, opener };
    front.closes.watch(content.as_fd(), identity).map_err(|error| errno(&error))?;
    front.files.insert(identity, told, Object::Attribute(attribute), Access::of(flags), None);
    install(request, content, flags)
}

/// A memfd of this length that nobody can make longer or shorter.
pub(super) fn sealed_memfd(name: &str, length: u64) -> Result<OwnedFd, Errno> {
    let make = || {
        let memfd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&memfd, length)?;
        fcntl_add_seals(&memfd, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(memfd)
    };
    make().map_err(kernels)
}

/// Another open description of the same file, with the program's access.
pub(super) fn described_again(memfd: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", memfd.as_raw_fd());
    let kept = flags & (OFlags::RWMODE | OFlags::NONBLOCK);
    rustix::fs::open(path, kept | OFlags::CLOEXEC, Mode::empty()).map_err(kernels)
}

/// The file's memory at the offsets of the BARs that a program may map.
pub(super) fn bar_pages(function: &dyn pci::Function, memfd: &OwnedFd) -> Result<BarPages, Errno> {
    let mut pages = BarPages::default();
    for (index, slot) in pages.iter_mut().enumerate() {
        let Some(bar) = function.bar(index).filter(|bar| !bar.mappable.is_empty()) else {
            continue;
        };
        let offset = REGION_BASE + ((index as u64) << REGION_SHIFT);
        let length = usize::try_from(bar.size).map_err(|_| Errno::ENOMEM)?;
        let mapped = Pages::of_sealed_file(memfd.as_fd(), offset, length, true);
        *slot = Some(Arc::new(mapped.map_err(|_| Errno::ENOMEM)?));
    }
    Ok(pages)
}

fn install(request: &Request<'_>, file: &OwnedFd, flags: OFlags) -> Result<u64, Errno> {
    let cloexec = flags.contains(OFlags::CLOEXEC);
    let installed = request.front.listener.install(request.call.id, file.as_fd(), cloexec);
    installed.map(|fd| u64::from(fd.cast_unsigned())).map_err(|error| errno(&error))
}

pub(super) fn kernels(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error()).unwrap_or(Errno::EIO)
}
