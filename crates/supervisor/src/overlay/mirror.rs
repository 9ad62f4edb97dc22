//! Real directories in the image of the tree, for programs that list a directory: what they then
//! hold is an ordinary open directory, and everything they do with it the kernel serves.
//!
//! The mirror lies in a private directory of its own and is filled only as far as programs look.
//! A directory that the machine has too is filled with links to the machine's entries, so that both
//! show. A directory that an earlier run left behind is found by its lock, which nobody holds.
//!
//! Takes no lock but that file lock; whoever owns the mirror guards it.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::tree::{Directory, Entry, Ground, LastLink, Walk};

/// Directories of this name, with the process and a number after it, are mirrors.
const NAME: &str = "bindery-overlay-";
/// Inside: the image of `/`.
const ROOT: &str = "root";
/// Inside: content on its way into the image.
const FRESH: &str = "fresh";

/// A directory tree on disk that shows a [`Directory`] tree.
pub(super) struct Mirror {
    /// The private directory.
    top: PathBuf,
    /// The image of `/` in it.
    root: PathBuf,
    /// Where the machine's own files are: `/`, but in tests.
    machine: PathBuf,
    /// Held locked for as long as the mirror is in use.
    _lock: File,
    /// Directories whose entries are all there.
    listed: BTreeSet<String>,
    /// What was last written to attributes' files.
    written: BTreeMap<String, Vec<u8>>,
    /// Whether mirrors that earlier runs left were looked for.
    swept: bool,
}

impl Mirror {
    /// An empty mirror in `$XDG_RUNTIME_DIR` or, where that does not serve, the directory for
    /// temporary files.
    pub(super) fn create(machine: &Path) -> io::Result<Self> {
        let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        if let Some(runtime) = runtime.filter(|path| path.is_absolute())
            && let Ok(mirror) = Self::create_in(&runtime, machine)
        {
            return Ok(mirror);
        }
        Self::create_in(&env::temp_dir(), machine)
    }

    fn create_in(place: &Path, machine: &Path) -> io::Result<Self> {
        for number in 0..=u16::MAX {
            let top = place.join(format!("{NAME}{}-{number}", std::process::id()));
            match private_directory(&top) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            // Between the two steps another run may have taken the directory for a left one.
            let Some(lock) = lock(&top) else { continue };
            let root = top.join(ROOT);
            DirBuilder::new().mode(0o755).create(&root)?;
            return Ok(Self {
                top,
                root,
                machine: machine.to_owned(),
                _lock: lock,
                listed: BTreeSet::new(),
                written: BTreeMap::new(),
                swept: false,
            });
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Where the image of a path is.
    pub(super) fn image(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The image of `/`.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where what the machine has at a path is.
    pub(super) fn machine(&self, path: &str) -> PathBuf {
        self.machine.join(path.trim_start_matches('/'))
    }

    /// Opens the image of what stands at `path`.
    pub(super) fn open(
        &mut self,
        tree: &Directory,
        path: &str,
        entry: &Entry,
        flags: OFlags,
    ) -> io::Result<OwnedFd> {
        self.list_above(tree, path)?;
        if let Entry::Directory(_) = entry {
            self.list(tree, path)?;
        }
        Ok(rustix::fs::open(self.image(path), flags | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// What the system says of the image of what stands at `path`.
    pub(super) fn metadata(&mut self, tree: &Directory, path: &str) -> io::Result<Metadata> {
        self.list_above(tree, path)?;
        fs::symlink_metadata(self.image(path))
    }

    /// Writes an attribute's content into its image. The file stays the same one while its content
    /// does, for there are programs that compare what they looked at with what they opened.
    pub(super) fn refresh(
        &mut self,
        tree: &Directory,
        path: &str,
        mode: u32,
        content: Vec<u8>,
    ) -> io::Result<()> {
        self.list_above(tree, path)?;
        let image = self.image(path);
        let earlier = self.written.get(path);
        if earlier == Some(&content) {
            return Ok(());
        }
        if earlier.is_none() {
            fs::set_permissions(&image, Permissions::from_mode(0o600))?;
            fs::write(&image, &content)?;
            fs::set_permissions(&image, Permissions::from_mode(mode))?;
        } else {
            let fresh = self.top.join(FRESH);
            fs::write(&fresh, &content)?;
            fs::set_permissions(&fresh, Permissions::from_mode(mode))?;
            fs::rename(&fresh, &image)?;
        }
        self.written.insert(path.to_owned(), content);
        Ok(())
    }

    /// Follows the tree in which an entry was put at `path`, with directories above it.
    pub(super) fn put(&mut self, path: &str, entry: &Entry) -> io::Result<()> {
        for (end, _) in path.match_indices('/').skip(1) {
            if self.is_listed_in(&path[..end]) {
                directory(&self.image(&path[..end]))?;
            }
        }
        if self.is_listed_in(path) { self.make(path, entry) } else { Ok(()) }
    }

    /// Whether the directory that `path` is in has all its entries.
    fn is_listed_in(&self, path: &str) -> bool {
        path.rsplit_once('/').is_some_and(|(above, _)| self.listed.contains(above))
    }

    /// Follows the tree from which `path` was taken.
    pub(super) fn remove(&mut self, path: &str) -> io::Result<()> {
        let below = format!("{path}/");
        self.listed.retain(|listed| listed != path && !listed.starts_with(&below));
        self.written.retain(|written, _| written != path && !written.starts_with(&below));
        let image = self.image(path);
        match fs::symlink_metadata(&image) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(image),
            Ok(_) => fs::remove_file(image),
            Err(_) => Ok(()),
        }
    }

    /// Removes everything from the disk.
    pub(super) fn remove_all(&mut self) {
        // What cannot be removed is found by the next run.
        let _left_behind = fs::remove_dir_all(&self.top);
    }

    /// Fills the directories on the way to `path`.
    fn list_above(&mut self, tree: &Directory, path: &str) -> io::Result<()> {
        if !std::mem::replace(&mut self.swept, true) {
            self.sweep();
        }
        let ends = path.char_indices().filter(|(_, c)| *c == '/').map(|(at, _)| at);
        for end in ends {
            self.list(tree, &path[..end])?;
        }
        Ok(())
    }

    /// Fills one directory, whose own image exists. The root's path is empty.
    fn list(&mut self, tree: &Directory, path: &str) -> io::Result<()> {
        if self.listed.contains(path) {
            return Ok(());
        }
        let directory = tree.directory(path).ok_or(io::ErrorKind::NotADirectory)?;
        for (name, entry) in directory.entries() {
            self.make(&format!("{path}/{name}"), entry)?;
        }
        self.listed.insert(path.to_owned());
        if directory.ground() == Ground::Merged {
            self.show_machine(tree, path, directory)?;
        }
        Ok(())
    }

    /// Makes the image of one entry.
    fn make(&self, path: &str, entry: &Entry) -> io::Result<()> {
        let image = self.image(path);
        match entry {
            Entry::Directory(_) => directory(&image),
            Entry::Link(text) => symlink(text, image),
            Entry::Attribute(file) => empty_file(&image, file.mode),
            Entry::Node(node) => empty_file(&image, node.mode()),
        }
    }

    /// Adds links to what the machine has in a directory: with the machine's text where it has a
    /// relative link itself, else by the full path.
    fn show_machine(&mut self, tree: &Directory, path: &str, ours: &Directory) -> io::Result<()> {
        let real = self.machine(path);
        let Ok(entries) = fs::read_dir(&real) else { return Ok(()) };
        let mut passed = BTreeSet::new();
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| ours.get(name).is_some()) {
                continue;
            }
            let text = fs::read_link(entry.path()).ok().filter(|text| text.is_relative());
            if let Some(text) = text.as_ref().and_then(|text| text.to_str()) {
                let target = format!("{path}/{text}");
                if let Walk::Elsewhere(end) = tree.walk(target.as_bytes(), LastLink::Stay) {
                    passed.insert(end.at);
                }
            }
            let image = self.image(path).join(&name);
            match symlink(text.unwrap_or_else(|| real.join(&name)), image) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        // A relative link leads through the mirror to where the mirror ends; it must go on there.
        for at in passed {
            self.list_above(tree, &at)?;
            self.list(tree, at.trim_end_matches('/'))?;
        }
        Ok(())
    }

    /// Removes mirrors in the same place that nobody uses.
    fn sweep(&self) {
        let Some(place) = self.top.parent() else { return };
        let Ok(entries) = fs::read_dir(place) else { return };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            let path = entry.path();
            let mirror = name.to_str().is_some_and(|name| name.starts_with(NAME));
            // One in use is locked; another user's cannot be opened, and is left alone either way.
            if mirror && path != self.top && lock(&path).is_some() {
                let _gone_either_way = fs::remove_dir_all(&path);
            }
        }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.remove_all();
    }
}

/// A directory, if there is none.
fn directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Locks a directory of ours; `None` where someone else has, or where it is gone.
fn lock(directory: &Path) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(directory, flags, Mode::empty()).ok()?);
    let opened = file.metadata().ok()?;
    let own = rustix::process::geteuid().as_raw() == opened.uid();
    // Its owner may have removed it meanwhile, and made another.
    let is_opened = |there: Metadata| (there.dev(), there.ino()) == (opened.dev(), opened.ino());
    let is_there = || fs::symlink_metadata(directory).is_ok_and(is_opened);
    (own && file.try_lock().is_ok() && is_there()).then_some(file)
}

fn empty_file(path: &Path, mode: u32) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    // The mode above went through the umask.
    file.set_permissions(Permissions::from_mode(mode))
}

/// A file of its own for one open of a writable attribute: what reading gives is fixed, and writing
/// fails (`EPERM`) where the front end does not take the write.
pub(super) fn snapshot(content: &[u8], mode: u32, flags: OFlags) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let memory = rustix::fs::memfd_create(
        "bindery-attribute",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    let mut file = File::from(memory);
    file.write_all(content)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let opened = rustix::fs::open(again, flags | OFlags::CLOEXEC, Mode::empty())?;
    // Who watches for its close must be able to read it.
    file.set_permissions(Permissions::from_mode(mode | 0o400))?;
    Ok(opened)
}
