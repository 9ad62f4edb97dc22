//! Shared memory that outlives the process which mapped it.
//!
//! The kernel pins pages, and those of shared memory stay what other processes see when the one that mapped them for DMA
//! has ended. So for each shared mapping that is pinned the file behind it is opened by way of `/proc/PID/map_files`, and
//! kept as long as something is pinned in it. While the address space lives it is the one that is read and written;
//! afterwards the file is. Private memory ends with its process. Where opening is forbidden (it takes `CAP_SYS_ADMIN` or
//! `CAP_CHECKPOINT_RESTORE`), so does shared memory.
//!
//! One lock, a leaf. Source: proc_pid_map_files(5).

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use host::mappings::Mapping;
use iommufd::{MemoryGone, PageIdentity, Pinned};
use mem::Window;
use vfio::REGION_BASE;

use crate::memory::AddressSpace;

/// A shared mapping, and the address space that it is in.
pub(crate) struct KeptMemory {
    space: Arc<AddressSpace>,
    mapping: Mapping,
    file: File,
    /// The file's bytes, once the address space is gone; `None` where they cannot be mapped.
    window: OnceLock<Option<Window>>,
}

/// The mappings of an address space that are kept.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    mappings: Mutex<Vec<Weak<KeptMemory>>>,
    /// Whether files behind mappings may not be opened.
    forbidden: AtomicBool,
}

impl Kept {
    /// The memory of a mapping of process `pid`, from now on kept; `None` where it cannot be: it is private, is of a device
    /// file, or may not be opened.
    pub(crate) fn memory(
        &self,
        space: &Arc<AddressSpace>,
        pid: i32,
        mapping: Mapping,
    ) -> Option<Arc<KeptMemory>> {
        // Device files are watched for their last close, and another open would get in its way.
        let is_device = mapping.file_offset >= REGION_BASE;
        if !mapping.shared || is_device || self.forbidden.load(Ordering::Relaxed) {
            return None;
        }
        let mut kept = self.mappings.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|memory| memory.strong_count() > 0);
        let same = kept.iter().filter_map(Weak::upgrade).find(|memory| memory.mapping == mapping);
        if same.is_some() {
            return same;
        }
        let Mapping { start, end, writable, .. } = mapping;
        let path = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
        let file = match OpenOptions::new().read(true).write(writable).open(path) {
            Ok(file) => file,
            Err(error) => {
                let forbidden = error.kind() == ErrorKind::PermissionDenied;
                self.forbidden.fetch_or(forbidden, Ordering::Relaxed);
                return None;
            }
        };
        let window = OnceLock::new();
        let memory = Arc::new(KeptMemory { space: Arc::clone(space), mapping, file, window });
        kept.push(Arc::downgrade(&memory));
        Some(memory)
    }
}

impl KeptMemory {
    /// The file's bytes, and where in them the byte at `at` of the address space is.
    fn behind(&self, at: u64) -> Result<(&Window, usize), MemoryGone> {
        let Mapping { start, end, writable, file_offset, .. } = self.mapping;
        let map = || {
            let length = usize::try_from(end - start).ok()?;
            Window::map(self.file.as_fd(), file_offset, length, writable).ok()
        };
        let window = self.window.get_or_init(map).as_ref().ok_or(MemoryGone)?;
        let offset = at.checked_sub(start).and_then(|offset| usize::try_from(offset).ok());
        Ok((window, offset.ok_or(MemoryGone)?))
    }
}

impl Pinned for KeptMemory {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MemoryGone> {
        match self.space.read_bytes(at, into) {
            Err(ErrorKind::UnexpectedEof) => {
                let (window, offset) = self.behind(at)?;
                window.read(offset, into).map_err(|_| MemoryGone)
            }
            answer => answer.map_err(|_| MemoryGone),
        }
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), MemoryGone> {
        match self.space.write_bytes(at, from) {
            Err(ErrorKind::WriteZero) => {
                let (window, offset) = self.behind(at)?;
                window.write(offset, from).map_err(|_| MemoryGone)
            }
            answer => answer.map_err(|_| MemoryGone),
        }
    }

    fn page(&self, at: u64) -> Option<PageIdentity> {
        self.space.page_at(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::mappings::{Lookup, Mappings};
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    /// A shared mapping of this process, and where it is.
    fn shared() -> (Window, Mapping) {
        let memfd = memfd_create("shared", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memfd, 0x5000).unwrap();
        let window = Window::map(memfd.as_fd(), 0, 0x5000, true).unwrap();
        let inode = rustix::fs::fstat(&memfd).unwrap().st_ino;
        let text = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = text
            .lines()
            .find(|line| line.split_ascii_whitespace().nth(4) == Some(&inode.to_string()));
        let start = u64::from_str_radix(line.unwrap().split('-').next().unwrap(), 16).unwrap();
        let mappings = Mappings::open(std::process::id().cast_signed()).unwrap();
        let Ok(Lookup::Mapped(mapping)) = mappings.at(start) else { panic!("{start:#x}") };
        (window, mapping)
    }

    #[test]
    fn shared_mappings_are_kept_once_and_let_go() {
        let pid = std::process::id().cast_signed();
        let space = Arc::new(AddressSpace::open(pid).unwrap());
        let kept = Kept::default();
        let (window, mapping) = shared();
        let memory = kept.memory(&space, pid, mapping);
        if !rustix::process::geteuid().is_root() {
            assert!(memory.is_none() && kept.forbidden.into_inner());
            return;
        }
        let memory = memory.unwrap();
        let again = kept.memory(&space, pid, mapping).unwrap();
        assert!(Arc::ptr_eq(&memory, &again));
        memory.write(mapping.start + 0x1ffe, b"word").unwrap();
        let mut read = [0; 4];
        window.read(0x1ffe, &mut read).unwrap();
        assert_eq!(&read, b"word");
        let (behind, offset) = memory.behind(mapping.start + 0x1ffe).unwrap();
        behind.read(offset, &mut read).unwrap();
        assert_eq!((&read, offset), (b"word", 0x1ffe));
        drop((memory, again));
        assert!(kept.mappings.lock().unwrap().iter().all(|memory| memory.strong_count() == 0));
        let private = Mapping { shared: false, ..mapping };
        assert!(kept.memory(&space, pid, private).is_none());
        let device = Mapping { file_offset: REGION_BASE, ..mapping };
        assert!(kept.memory(&space, pid, device).is_none());
    }
}
