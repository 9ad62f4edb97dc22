//! The files through which a program finds its devices, laid over the machine's own: `/dev/iommu`,
//! `/dev/vfio/`, and what sysfs says of the functions, the driver and the groups.
//!
//! Names live in a tree in memory, so that most questions cost no system call; a program that lists a
//! directory gets a real one (`mirror`). What is not in the tree is not ours, and the kernel answers.
//! Attributes are read from the function when they are opened. `docs/platform.md` lists them.
//!
//! Takes one lock, `Names::state`, which holds tree and mirror together; no attribute is read or
//! written with it held that takes it again. Deliberately absent: what the machine has only for real
//! (it is listed in merged directories as it stood when first looked at), creating, removing and
//! renaming in sysfs, and `mmap` of `resourceN`.

mod driver;
mod fault_injection;
mod function;
mod group;
mod ids;
mod mirror;
mod node;
mod sysfs;
mod tree;
mod tsm;
mod vfs;
mod writable;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::tsm::Refusal;
use pci::Address;
use rustix::fs::{Access, Mode, OFlags};
use thiserror::Error;
use uapi::Errno;

use crate::machine::Machine;
use mirror::Mirror;
pub use node::Node;
use tree::{AttributeFile, Directory, Elsewhere, Entry, Ground, LastLink, Walk};
use tsm::TsmFiles;

/// The overlay of one machine.
pub struct Overlay {
    names: Arc<Names>,
    tsm: Arc<TsmFiles>,
    /// Whether the program may do what permission bits deny, as root may.
    root: bool,
}

/// What opening a path gives.
pub enum Opened {
    /// The path is the machine's: let the kernel open it.
    NotOurs,
    /// It is ours, and cannot be opened so.
    Refused(Errno),
    /// A device node: open the device.
    Node(Node),
    /// A directory, or an attribute that is only read: hand this to the program.
    File(OwnedFd),
    /// An attribute that can be written: hand `content` to the program, and its writes to `attribute`.
    Attribute {
        /// What takes the writes.
        attribute: Arc<dyn Attribute>,
        /// Opened as the program asked; holds what reading gives. Writes to it fail (`EPERM`).
        content: OwnedFd,
    },
}

/// Takes writes to a sysfs attribute.
pub trait Attribute: Send + Sync {
    /// One `write` call. Returns how many bytes were taken: all. May block where Linux does.
    ///
    /// # Errors
    /// Those of the kernel's attribute, in its order.
    fn write(&self, bytes: &[u8]) -> Result<usize, Errno>;

    /// What reading gives at this moment, where that is not what it gave when the file was opened.
    fn read(&self) -> Option<String> {
        None
    }
}

/// What `stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// File type and permission bits (`st_mode`).
    pub mode: u32,
    /// Major and minor number of a device node, else zeros.
    pub device_number: (u32, u32),
    /// Bytes.
    pub size: u64,
    /// The file system's own device, as `st_dev` packs it. An open directory tells the same.
    pub dev: u64,
    /// The inode. An open directory tells the same.
    pub ino: u64,
    /// Links to it.
    pub nlink: u64,
    /// Its owner: the user who runs Bindery.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When it was changed: seconds since 1970.
    pub mtime_s: i64,
}

/// Why there is no overlay.
#[derive(Debug, Error)]
#[error(
    "no private directory for the view of sysfs, neither in XDG_RUNTIME_DIR nor in {place}: {error}"
)]
pub struct OverlayError {
    place: String,
    error: io::Error,
}

impl Overlay {
    /// The overlay of `machine`, over the file systems of this machine.
    ///
    /// # Errors
    /// [`OverlayError`]: there is nowhere to keep a private directory.
    pub fn new(machine: &Machine) -> Result<Self, OverlayError> {
        Self::over(Path::new("/"), machine)
    }

    /// As [`new`](Self::new), over what is in another directory as if that were `/`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn over(root: &Path, machine: &Machine) -> Result<Self, OverlayError> {
        let mirror = Mirror::create(root).map_err(|error| OverlayError {
            place: std::env::temp_dir().display().to_string(),
            error,
        })?;
        let names = Names::new(mirror);
        let tsm = sysfs::fill(&names, machine);
        names.lock().tree.survey("/", &|path| root.join(path.trim_start_matches('/')).is_dir());
        Ok(Self { names, tsm, root: rustix::process::geteuid().is_root() })
    }

    /// Opens a path with the flags of `open`. The path is absolute; the caller has put the program's
    /// working directory, or what [`path_of_directory`](Self::path_of_directory) says of an open
    /// one, before a relative path.
    pub fn open(&self, path: &[u8], flags: u64) -> Opened {
        let bits = u32::try_from(flags & u64::from(u32::MAX)).unwrap_or_default();
        let flags = installable(OFlags::from_bits_retain(bits));
        let stay =
            flags.contains(OFlags::NOFOLLOW) || flags.contains(OFlags::CREATE | OFlags::EXCL);
        let last = if stay { LastLink::Stay } else { LastLink::Follow };
        let state = &mut *self.names.lock();
        let opened = match seek(&state.tree, path, last) {
            Sought::NotOurs => return Opened::NotOurs,
            Sought::Refused(errno) => Err(errno),
            Sought::Machines(path) => open_machines(&state.mirror.machine(&path), flags),
            Sought::Ours(path, entry) => {
                open_ours(&state.tree, &mut state.mirror, &path, entry, flags)
            }
        };
        opened.unwrap_or_else(Opened::Refused)
    }

    /// What `stat` (`follow`) or `lstat` tells of a path; `None` where it is the machine's.
    pub fn metadata(&self, path: &[u8], follow: bool) -> Option<Result<Metadata, Errno>> {
        let state = &mut *self.names.lock();
        let last = if follow { LastLink::Follow } else { LastLink::Stay };
        let metadata = match seek(&state.tree, path, last) {
            Sought::NotOurs => return None,
            Sought::Refused(errno) => return Some(Err(errno)),
            Sought::Machines(path) => {
                let path = state.mirror.machine(&path);
                let found = if follow { path.metadata() } else { path.symlink_metadata() };
                found.map(|found| describe(&found))
            }
            Sought::Ours(path, entry) => {
                let image = state.mirror.metadata(&state.tree, &path);
                image.map(|image| describe_as(entry, &image))
            }
        };
        Some(metadata.map_err(|error| errno(&error)))
    }

    /// The text of a link; `None` where the path is the machine's.
    ///
    /// The inner error is `EINVAL` where the path is no link.
    pub fn readlink(&self, path: &[u8]) -> Option<Result<Vec<u8>, Errno>> {
        let state = self.names.lock();
        match seek(&state.tree, path, LastLink::Stay) {
            Sought::NotOurs => None,
            Sought::Refused(errno) => Some(Err(errno)),
            Sought::Machines(path) => {
                let text = std::fs::read_link(state.mirror.machine(&path));
                let bytes = |text: PathBuf| text.into_os_string().into_vec();
                Some(text.map(bytes).map_err(|error| errno(&error)))
            }
            Sought::Ours(_, Entry::Link(text)) => Some(Ok(text.clone().into_bytes())),
            Sought::Ours(_, Entry::Directory(_) | Entry::Attribute(_) | Entry::Node(_)) => {
                Some(Err(Errno::EINVAL))
            }
        }
    }

    /// What `access` answers for the mode (`R_OK`, `W_OK`, `X_OK`); `None` where the path is the
    /// machine's.
    pub fn access(&self, path: &[u8], mode: u32) -> Option<Result<(), Errno>> {
        let state = self.names.lock();
        let entry = match seek(&state.tree, path, LastLink::Follow) {
            Sought::NotOurs => return None,
            Sought::Refused(errno) => return Some(Err(errno)),
            Sought::Machines(path) => {
                let mode = Access::from_bits_retain(mode);
                let answer = rustix::fs::access(state.mirror.machine(&path), mode);
                return Some(answer.map_err(|error| errno(&error.into())));
            }
            Sought::Ours(_, entry) => entry,
        };
        let owner = mode_of(entry) >> 6 & 0o7;
        // Root may read and write anything, and execute what anyone may.
        let allowed = if self.root { owner | 0o6 } else { owner };
        Some(if mode & !0o7 != 0 {
            Err(Errno::EINVAL)
        } else if mode & !allowed != 0 {
            Err(Errno::EACCES)
        } else {
            Ok(())
        })
    }

    /// The path that relative paths from an open directory begin with, by the path that
    /// `/proc/PID/fd/N` or `/proc/PID/cwd` gives of it; `None` where nothing of ours is below.
    pub fn path_of_directory(&self, real: &Path) -> Option<PathBuf> {
        let state = self.names.lock();
        if let Ok(below) = real.strip_prefix(state.mirror.root()) {
            return Some(Path::new("/").join(below));
        }
        // A program can enter the machine's own directory where the overlay has names too.
        let shared = real.to_str().and_then(|path| state.tree.directory(path));
        shared.filter(|shared| shared.ground() != Ground::Ours).map(|_| real.to_owned())
    }

    /// Connects a function to a TSM, as a write of `written` to its `tsm/connect` does. Waits for the device.
    ///
    /// # Errors
    /// As [`Registry::connect`](::tsm::Registry::connect).
    pub fn connect(&self, function: Address, written: &[u8]) -> Result<(), Refusal> {
        self.tsm.connect(function, written)
    }

    /// Disconnects a function, as a write of `written` to its `tsm/disconnect` does. Waits for the device.
    ///
    /// # Errors
    /// As [`Registry::disconnect`](::tsm::Registry::disconnect).
    pub fn disconnect(&self, function: Address, written: &[u8]) -> Result<(), Refusal> {
        self.tsm.disconnect(function, written)
    }

    /// Removes the private directory: for the end of a process that does not drop what it has. What
    /// needs the directory fails from then on.
    pub fn close(&self) {
        self.names.lock().mirror.remove_all();
    }
}

/// Where a path leads, and who answers for it.
enum Sought<'t> {
    /// The kernel does.
    NotOurs,
    /// We do: to nothing.
    Refused(Errno),
    /// We do, for the kernel cannot follow the way there: to what the machine has at this path.
    Machines(String),
    /// We do.
    Ours(String, &'t Entry),
}

fn seek<'t>(tree: &'t Directory, path: &[u8], last: LastLink) -> Sought<'t> {
    match tree.walk(path, last) {
        Walk::Found(path, entry) => Sought::Ours(path, entry),
        Walk::Refused(errno) => Sought::Refused(errno),
        Walk::Elsewhere(Elsewhere { at, rest, strayed }) => {
            let at_machines = tree.directory(&at).is_some_and(|end| end.ground() != Ground::Ours);
            if strayed && at_machines {
                Sought::Machines(format!("{at}/{rest}"))
            } else {
                Sought::NotOurs
            }
        }
    }
}

/// Opens what is the machine's for a program that came there through names of ours: a directory, or
/// what anyone may read. All else is left to the kernel, for the program may have fewer rights than we.
fn open_machines(path: &Path, flags: OFlags) -> Result<Opened, Errno> {
    const ANYONE_READS: u32 = 0o004;
    let reads = (flags & OFlags::RWMODE) == OFlags::RDONLY && !flags.contains(OFlags::CREATE);
    let open = path.metadata().is_ok_and(|found| found.mode() & ANYONE_READS != 0);
    if !reads || !open {
        return Ok(Opened::NotOurs);
    }
    let opened = rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty());
    opened.map(Opened::File).map_err(|error| errno(&error.into()))
}

/// What of a program's flags an open of ours has too.
const KEPT: OFlags = OFlags::RWMODE.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW);

/// `flags` as a program can be given such a file: the kernel installs no `O_PATH` file in another process, so
/// what is asked for as one is opened to read.
fn installable(flags: OFlags) -> OFlags {
    match flags.contains(OFlags::PATH) {
        true => flags & (OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC),
        false => flags,
    }
}

/// Opens what is ours. The order of refusals is Linux's.
fn open_ours(
    tree: &Directory,
    mirror: &mut Mirror,
    path: &str,
    entry: &Entry,
    flags: OFlags,
) -> Result<Opened, Errno> {
    // Of an attribute, the image holds what it says now.
    let mut image = || {
        if let Entry::Attribute(file) = entry {
            mirror.refresh(tree, path, file.mode, (file.show)())?;
        }
        mirror.open(tree, path, entry, flags & KEPT).map(Opened::File)
    };
    let mut image = || image().map_err(|error| errno(&error));
    if flags.contains(OFlags::CREATE | OFlags::EXCL) {
        return Err(Errno::EEXIST);
    }
    let reads_only = flags & OFlags::RWMODE == OFlags::RDONLY;
    match entry {
        Entry::Directory(_) if flags.contains(OFlags::TMPFILE) => Err(Errno::EOPNOTSUPP),
        Entry::Directory(_) if !reads_only || flags.contains(OFlags::CREATE) => Err(Errno::EISDIR),
        Entry::Directory(_) => image(),
        _ if flags.contains(OFlags::DIRECTORY) => Err(Errno::ENOTDIR),
        Entry::Link(_) => Err(Errno::ELOOP),
        Entry::Node(node) => Ok(Opened::Node(*node)),
        Entry::Attribute(file) => match open_to_write(file, flags)? {
            Some(opened) => Ok(opened),
            None => image(),
        },
    }
}

/// Opens an attribute, if the program means to write it. sysfs asks the permission bits of everyone
/// together, and asks them of root too.
fn open_to_write(file: &AttributeFile, flags: OFlags) -> Result<Option<Opened>, Errno> {
    let access = flags & OFlags::RWMODE;
    let writes = access != OFlags::RDONLY;
    let reads = access != OFlags::WRONLY;
    if reads && file.mode & 0o444 == 0 || writes && file.mode & 0o222 == 0 {
        return Err(Errno::EACCES);
    }
    let Some(attribute) = file.store.as_ref().filter(|_| writes) else { return Ok(None) };
    let content = if reads { (file.show)() } else { Vec::new() };
    let content = mirror::snapshot(&content, file.mode, access).map_err(|error| errno(&error))?;
    Ok(Some(Opened::Attribute { attribute: Arc::clone(attribute), content }))
}

/// `st_mode` of an entry.
fn mode_of(entry: &Entry) -> u32 {
    const DIRECTORY: u32 = 0o040_000;
    const LINK: u32 = 0o120_000;
    const REGULAR: u32 = 0o100_000;
    const CHARACTER: u32 = 0o020_000;
    match entry {
        Entry::Directory(_) => DIRECTORY | 0o755,
        Entry::Link(_) => LINK | 0o777,
        Entry::Attribute(file) => REGULAR | file.mode,
        Entry::Node(node) => CHARACTER | node.mode(),
    }
}

fn describe_as(entry: &Entry, image: &std::fs::Metadata) -> Metadata {
    let size = match entry {
        Entry::Directory(_) | Entry::Node(_) => 0,
        Entry::Link(text) => text.len() as u64,
        Entry::Attribute(file) => file.size,
    };
    let device_number = match entry {
        Entry::Node(node) => node.device_number(),
        Entry::Directory(_) | Entry::Link(_) | Entry::Attribute(_) => (0, 0),
    };
    let nlink = match entry {
        // Its image may not be filled yet.
        Entry::Directory(directory) if directory.ground() == Ground::Ours => {
            let below = directory.entries();
            2 + below.filter(|(_, entry)| matches!(entry, Entry::Directory(_))).count() as u64
        }
        Entry::Directory(_) | Entry::Link(_) | Entry::Attribute(_) | Entry::Node(_) => {
            image.nlink()
        }
    };
    Metadata { mode: mode_of(entry), device_number, size, nlink, ..describe(image) }
}

fn describe(found: &std::fs::Metadata) -> Metadata {
    let number = found.rdev();
    Metadata {
        mode: found.mode(),
        device_number: (rustix::fs::major(number), rustix::fs::minor(number)),
        size: found.size(),
        dev: found.dev(),
        ino: found.ino(),
        nlink: found.nlink(),
        uid: found.uid(),
        gid: found.gid(),
        mtime_s: found.mtime(),
    }
}

/// What the system refused us, passed on.
fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().and_then(Errno::from_raw).unwrap_or(Errno::EIO)
}

/// The tree and its mirror, kept in step.
struct Names {
    state: Mutex<State>,
}

struct State {
    tree: Directory,
    mirror: Mirror,
}

impl Names {
    fn new(mirror: Mirror) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { tree: Directory::default(), mirror }) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds entries.
    fn put(&self, entries: impl IntoIterator<Item = (String, Entry)>) {
        let state = &mut *self.lock();
        for (path, entry) in entries {
            // Where the disk is full the name is there all the same, only not in listings.
            let _unlisted = state.mirror.put(&path, &entry);
            state.tree.put(&path, entry);
        }
    }

    /// Takes entries away.
    fn remove(&self, paths: impl IntoIterator<Item = String>) {
        drop(self.take(paths));
    }

    /// Takes entries away, and gives what there was.
    fn take(&self, paths: impl IntoIterator<Item = String>) -> Vec<(String, Entry)> {
        let state = &mut *self.lock();
        let mut taken = Vec::new();
        for path in paths {
            let _left_listed = state.mirror.remove(&path);
            if let Some(entry) = state.tree.remove(&path) {
                taken.push((path, entry));
            }
        }
        taken
    }
}
