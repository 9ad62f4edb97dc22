//! Open files of a program as memory that can be pinned.
//!
//! A memfd that is sealed against shrinking is mapped and touched directly. Other files of shared
//! memory are mapped too, but each copy is a system call, which fails where a touch would raise SIGBUS.
//! Files of any other kind cannot be pinned, as in Linux. Mappings are shared between the pins of one
//! source. One lock, a leaf.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use iommufd::{MemoryGone, PageIdentity, PinAccess, PinFault, Pinned, Source};
use mem::{Pages, Window};
use rustix::fs::{Mode, OFlags, SealFlags, fcntl_get_seals, fstat, open};

/// An open file.
pub(crate) struct FileMemory {
    file: OwnedFd,
    mapped: Mutex<Option<Arc<Mapped>>>,
}

/// A mapping of the file from its first byte.
struct Mapped {
    bytes: Bytes,
    writable: bool,
    /// Device and inode of the file.
    identity: (u64, u64),
}

enum Bytes {
    Lasting(Pages),
    Fleeting(Window),
}

impl FileMemory {
    pub(crate) fn new(file: OwnedFd) -> Self {
        Self { file, mapped: Mutex::new(None) }
    }

    /// The file from its start to `end` at least, for this access.
    fn map(&self, end: u64, writable: bool) -> Result<Arc<Mapped>, PinFault> {
        // Only shared memory has seals to tell of, and only shared memory can be pinned.
        let seals = fcntl_get_seals(&self.file).map_err(|_| PinFault::FileRange)?;
        let stat = fstat(&self.file).map_err(|_| PinFault::FileRange)?;
        let length = u64::try_from(stat.st_size).map_err(|_| PinFault::FileRange)?;
        if end > length {
            return Err(PinFault::FileRange);
        }
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*mapped
            && known.length() >= end
            && (known.writable || !writable)
        {
            return Ok(Arc::clone(known));
        }
        let bytes = self.map_new(length, writable, seals)?;
        let identity = (stat.st_dev, stat.st_ino);
        let new = Arc::new(Mapped { bytes, writable, identity });
        *mapped = Some(Arc::clone(&new));
        Ok(new)
    }

    fn map_new(&self, length: u64, writable: bool, seals: SealFlags) -> Result<Bytes, PinFault> {
        let length = usize::try_from(length).map_err(|_| PinFault::Limit)?;
        // The program's descriptor may be read-only where the kernel would pin for writing all the same.
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.file));
        let flags = if writable { OFlags::RDWR } else { OFlags::RDONLY };
        let own = open(path, flags | OFlags::CLOEXEC, Mode::empty());
        let file = own.as_ref().map_or(self.file.as_fd(), AsFd::as_fd);
        if seals.contains(SealFlags::SHRINK)
            && let Ok(pages) = Pages::of_sealed_file(file, 0, length, writable)
        {
            return Ok(Bytes::Lasting(pages));
        }
        let window = Window::map(file, 0, length, writable).map_err(|error| {
            if error.raw_os_error() == Some(libc::ENOMEM) {
                PinFault::Limit
            } else {
                PinFault::FileRange
            }
        })?;
        Ok(Bytes::Fleeting(window))
    }
}

impl Source for FileMemory {
    fn pin(&self, at: u64, length: u64, access: PinAccess) -> Result<Arc<dyn Pinned>, PinFault> {
        let end = at.checked_add(length).ok_or(PinFault::FileRange)?;
        let mapped = self.map(end, access == PinAccess::Write)?;
        Ok(mapped)
    }

    fn is_file(&self) -> bool {
        true
    }
}

impl Mapped {
    fn length(&self) -> u64 {
        match &self.bytes {
            Bytes::Lasting(pages) => pages.len() as u64,
            Bytes::Fleeting(window) => window.len() as u64,
        }
    }
}

/// All of it: where a pin ends, the area that leads here does too.
impl Pinned for Mapped {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MemoryGone> {
        let offset = usize::try_from(at).map_err(|_| MemoryGone)?;
        match &self.bytes {
            Bytes::Lasting(pages) => pages.checked_read(offset, into).ok_or(MemoryGone),
            Bytes::Fleeting(window) => window.read(offset, into).map_err(|_| MemoryGone),
        }
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), MemoryGone> {
        let offset = usize::try_from(at).map_err(|_| MemoryGone)?;
        match &self.bytes {
            Bytes::Lasting(pages) => pages.checked_write(offset, from).ok_or(MemoryGone),
            Bytes::Fleeting(window) => window.write(offset, from).map_err(|_| MemoryGone),
        }
    }

    fn page(&self, at: u64) -> Option<PageIdentity> {
        Some(PageIdentity { object: self.identity, offset: at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};

    fn memfd(length: u64) -> OwnedFd {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("test", flags).unwrap();
        ftruncate(&file, length).unwrap();
        file
    }

    #[test]
    fn sealed_file_is_touched_directly_and_a_hole_reads_as_zeros() {
        let file = memfd(8192);
        fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        let own = file.try_clone().unwrap();
        let memory = FileMemory::new(file);
        let pinned = memory.pin(4096, 4096, PinAccess::Write).unwrap();
        pinned.write(4097, &[9; 3]).unwrap();
        let mut seen = [0; 5];
        rustix::io::pread(&own, &mut seen, 4096).unwrap();
        assert_eq!(seen, [0, 9, 9, 9, 0]);
        let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&own, punch, 4096, 4096).unwrap();
        pinned.read(4096, &mut seen).unwrap();
        assert_eq!(seen, [0; 5]);
        let lasting = memory.mapped.lock().unwrap();
        assert!(matches!(lasting.as_ref().unwrap().bytes, Bytes::Lasting(_)));
    }

    #[test]
    fn truncated_file_is_gone_and_not_a_signal() {
        let file = memfd(8192);
        let own = file.try_clone().unwrap();
        let memory = FileMemory::new(file);
        let pinned = memory.pin(4096, 4096, PinAccess::Write).unwrap();
        pinned.write(4096, &[1; 8]).unwrap();
        ftruncate(&own, 4096).unwrap();
        assert_eq!(pinned.write(4096, &[1; 8]), Err(MemoryGone));
        assert_eq!(pinned.read(4096, &mut [0; 8]), Err(MemoryGone));
        assert_eq!(memory.pin(4096, 1, PinAccess::Read).err(), Some(PinFault::FileRange));
    }

    #[test]
    fn other_kinds_of_file_cannot_be_pinned() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let memory = FileMemory::new(file.into());
        assert_eq!(memory.pin(0, 4096, PinAccess::Read).err(), Some(PinFault::FileRange));
    }
}
