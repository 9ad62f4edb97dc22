//! The memory of a process as something that can be pinned.
//!
//! An [`AddressSpace`] is an open `/proc/PID/mem` and `/proc/PID/maps`. Both belong to the address space
//! and not to the process or its number: after an exec or exit they answer nothing, and DMA faults. A
//! pin checks that every page is mapped and may be used so; it then follows addresses, where the
//! kernel would hold pages, but for shared memory whose process has ended ([`crate::kept_memory`]). No copy can raise a
//! signal, and none takes a lock of ours.
//!
//! Source: proc_pid_mem(5).

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use host::mappings::{Lookup, Mapping, Mappings};
use iommufd::{MemoryGone, PageIdentity, PinAccess, PinFault, Pinned, Source};

use crate::files::Files;
use crate::kept_memory::Kept;
use crate::process::{Identity, Process};

/// The memory of one process, between two execs.
#[derive(Debug)]
pub(crate) struct AddressSpace {
    bytes: File,
    mappings: Mappings,
    kept: Kept,
}

impl AddressSpace {
    /// Opens the memory of `pid` as it is now.
    ///
    /// # Errors
    /// `EACCES` – it may not be traced; `ENOENT` – it is gone.
    pub(crate) fn open(pid: i32) -> io::Result<Self> {
        let bytes = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
        Ok(Self { bytes, mappings: Mappings::open(pid)?, kept: Kept::default() })
    }
}

impl AddressSpace {
    /// Reads at an address. [`ErrorKind::UnexpectedEof`]: the address space has ended.
    pub(crate) fn read_bytes(&self, at: u64, into: &mut [u8]) -> Result<(), ErrorKind> {
        self.bytes.read_exact_at(into, at).map_err(|error| error.kind())
    }

    /// Writes at an address. [`ErrorKind::WriteZero`]: the address space has ended.
    pub(crate) fn write_bytes(&self, at: u64, from: &[u8]) -> Result<(), ErrorKind> {
        self.bytes.write_all_at(from, at).map_err(|error| error.kind())
    }

    /// The page at an address: of the file that is mapped there, where processes share it, else of this address space.
    pub(crate) fn page_at(&self, at: u64) -> Option<PageIdentity> {
        let Ok(Lookup::Mapped(mapping)) = self.mappings.at(at) else { return None };
        if !mapping.shared {
            let own = std::ptr::from_ref(self).addr() as u64;
            return Some(PageIdentity { object: (u64::MAX, own), offset: at });
        }
        let (major, minor) = mapping.device;
        let device = rustix::fs::makedev(major, minor);
        let offset = mapping.file_offset + (at - mapping.start);
        Some(PageIdentity { object: (device, mapping.inode), offset })
    }
}

/// A process's memory, whatever it executes.
pub(crate) struct ProcessMemory {
    pub(crate) process: Arc<Process>,
    /// Where our device files are looked up; `None` where their mappings may be pinned as any other.
    pub(crate) refused: Option<Arc<Files>>,
}

impl fmt::Debug for ProcessMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory of process {}", self.process.pid())
    }
}

impl Source for ProcessMemory {
    fn pin(&self, at: u64, length: u64, access: PinAccess) -> Result<Arc<dyn Pinned>, PinFault> {
        let unmapped = |_| PinFault::Unmapped;
        let space = self.process.address_space().map_err(unmapped)?;
        let (space, around) = match self.check(&space, at, length, access) {
            Ok(around) => (space, around),
            Err(Flaw::Fault(fault)) => return Err(fault),
            Err(Flaw::SpaceGone) => {
                let space = self.process.address_space_after(&space).map_err(unmapped)?;
                let around = self.check(&space, at, length, access).map_err(Flaw::fault)?;
                (space, around)
            }
        };
        let kept = around.and_then(|mapping| {
            let kept = space.kept.memory(&space, self.process.pid(), mapping)?;
            Some(kept as Arc<dyn Pinned>)
        });
        Ok(kept.unwrap_or(space))
    }
}

/// Why a range cannot be pinned.
enum Flaw {
    Fault(PinFault),
    SpaceGone,
}

impl Flaw {
    fn fault(self) -> PinFault {
        match self {
            Self::Fault(fault) => fault,
            Self::SpaceGone => PinFault::Unmapped,
        }
    }
}

impl ProcessMemory {
    /// Checks that all of `length` bytes at `at` are mapped and allow the access. Gives the mapping, if it is one.
    fn check(
        &self,
        space: &AddressSpace,
        at: u64,
        length: u64,
        access: PinAccess,
    ) -> Result<Option<Mapping>, Flaw> {
        let unmapped = Flaw::Fault(PinFault::Unmapped);
        let Some(end) = at.checked_add(length) else { return Err(unmapped) };
        let (mut next, mut around) = (at, None);
        while next < end {
            let mapping = match space.mappings.at(next) {
                Ok(Lookup::Mapped(mapping)) => mapping,
                Ok(Lookup::Gone) => return Err(Flaw::SpaceGone),
                Ok(Lookup::Unmapped) | Err(_) => return Err(unmapped),
            };
            let allowed = match access {
                PinAccess::Read => mapping.readable,
                PinAccess::Write => mapping.writable,
            };
            if !allowed {
                return Err(unmapped);
            }
            if self.is_device_memory(&mapping) {
                return Err(Flaw::Fault(PinFault::DeviceMemory));
            }
            around = (next == at).then_some(mapping);
            next = mapping.end;
        }
        Ok(around)
    }

    fn is_device_memory(&self, mapping: &Mapping) -> bool {
        let Some(files) = self.refused.as_ref().filter(|_| mapping.shared) else { return false };
        let (major, minor) = mapping.device;
        let device = rustix::fs::makedev(major, minor);
        files.find(Identity { device, inode: mapping.inode }).is_some()
    }
}

/// All of it: where a pin ends, the area that leads here does too.
impl Pinned for AddressSpace {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MemoryGone> {
        self.read_bytes(at, into).map_err(|_| MemoryGone)
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), MemoryGone> {
        self.write_bytes(at, from).map_err(|_| MemoryGone)
    }

    fn page(&self, at: u64) -> Option<PageIdentity> {
        self.page_at(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Tasks;

    fn own_memory() -> ProcessMemory {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let task = Tasks::default().task(thread).unwrap();
        ProcessMemory { process: Arc::clone(task.process()), refused: None }
    }

    #[test]
    fn pins_what_is_mapped_and_nothing_else() {
        let memory = own_memory();
        let bytes = vec![0_u8; 3 << 20];
        let at = bytes.as_ptr() as u64;
        let pinned = memory.pin(at, bytes.len() as u64, PinAccess::Write).unwrap();
        pinned.write(at + 4090, &[7; 12]).unwrap();
        let mut copy = [0; 14];
        pinned.read(at + 4089, &mut copy).unwrap();
        assert_eq!(copy, [0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0]);
        assert_eq!(pinned.read(1, &mut [0; 2]), Err(MemoryGone), "nothing is mapped there");
        let fault = |at, length, access| memory.pin(at, length, access).err();
        assert_eq!(fault(0, 4096, PinAccess::Read), Some(PinFault::Unmapped));
        assert_eq!(fault(u64::MAX - 4095, 4096, PinAccess::Read), Some(PinFault::Unmapped));
        let code = pins_what_is_mapped_and_nothing_else as *const () as u64 & !4095;
        assert_eq!(fault(code, 4096, PinAccess::Read), None);
        assert_eq!(fault(code, 4096, PinAccess::Write), Some(PinFault::Unmapped));
    }

    #[test]
    fn memory_of_a_process_that_ended_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id().cast_signed();
        let space = AddressSpace::open(pid).unwrap();
        let text = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let at = u64::from_str_radix(text.split('-').next().unwrap(), 16).unwrap();
        space.read(at, &mut [0; 4]).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(space.read(at, &mut [0; 4]), Err(MemoryGone));
        assert_eq!(space.write(at, &[0; 4]), Err(MemoryGone));
    }
}
