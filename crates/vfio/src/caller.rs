//! What VFIO's files ask of a program beside what contexts do: groups, containers, and a place for a file.
//!
//! Takes no lock.

use std::sync::Arc;

use iommufd::{FileFault, Source};
use uapi::Errno;

use crate::device::BarPages;
use crate::{Container, Device, DeviceFile, Group, Refusal};

/// The thread that issued a command on a file of VFIO's.
pub trait Caller: iommufd::Caller {
    /// The group behind an open `/dev/vfio/GROUP` of the caller's. A program that has none need not say more.
    ///
    /// # Errors
    /// [`FileFault::Closed`] (`EBADF`), [`FileFault::OtherKind`] (`EINVAL`).
    fn group(&self, _fd: i32) -> Result<Arc<Group>, FileFault> {
        Err(FileFault::OtherKind)
    }

    /// The container behind an open `/dev/vfio/vfio` of the caller's, where type1 is VFIO's own.
    ///
    /// # Errors
    /// [`FileFault::Closed`] (`EBADF`), [`FileFault::OtherKind`].
    fn container(&self, _fd: i32) -> Result<Arc<Container>, FileFault> {
        Err(FileFault::OtherKind)
    }

    /// The caller's address space, as [`memory`](iommufd::Caller::memory), where mapped BARs can be pinned too.
    fn memory_with_devices(&self) -> Arc<dyn Source> {
        self.memory()
    }

    /// Gives the caller an open file of `device`, and returns its descriptor. Where it has one through the device's
    /// group, that is the file, opened again; else `open` opens it on the memory that backs its BARs.
    ///
    /// # Errors
    /// What `open` refuses, and `EMFILE` or `ENOMEM` where there is no room for a descriptor. Then nothing is open.
    fn install_device(
        &self,
        _device: &Arc<Device>,
        _open: &mut dyn FnMut(BarPages) -> Result<Arc<DeviceFile>, Refusal>,
    ) -> Result<u32, Errno> {
        Err(Errno::EMFILE)
    }
}
