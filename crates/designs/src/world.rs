//! A context with one device and its vdevice, the files that hold them, and the calls on those.

use std::fmt;
use std::sync::Arc;

use sync::{Life, Mutex, Rank};

use crate::link::Link;
use crate::object::{Afterwards, Body, Group, IDS, Object, Removal, Table, lock};
use crate::rules::Rules;
use crate::tsm::Tsm;

/// A context and what is around it.
pub struct World {
    pub(crate) table: Table,
    pub(crate) tsm: Tsm,
    pub(crate) link: Box<dyn Link>,
    files: Mutex<FilesLock, Files>,
    life: Life,
    device: usize,
    vdevice: usize,
}

/// A call that a scenario makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// TSM bind of the vdevice.
    TsmBind,
    /// TSM unbind of the vdevice.
    TsmUnbind,
    /// `IOMMU_DESTROY` of the vdevice's id.
    DestroyVdevice,
    /// `IOMMU_VDEVICE_ALLOC` for the device.
    VdeviceAlloc,
    /// `IOMMU_IOAS_ALLOC`, which takes the lowest free id.
    IoasAlloc,
    /// `close()` of the VFIO device file.
    CloseVfio,
    /// `close()` of `/dev/iommu`.
    CloseIommu,
    /// The TSM driver is unloaded.
    TsmUnregister,
}

/// What a call answers.
pub type Outcome = Result<(), Refused>;

/// An error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refused {
    /// The file is closed.
    EBADF,
    /// In use.
    EBUSY,
    /// There is one already.
    EEXIST,
    /// No such object.
    ENOENT,
    /// Not bound, or no TSM.
    ENXIO,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The table of open files.
enum FilesLock {}

impl Rank for FilesLock {
    const ORDER: u8 = 60;
    const NAME: &'static str = "files";
    const ASSERTED: bool = false;
}

struct Files {
    iommu_open: bool,
    /// The VFIO file, with the device that it is bound with.
    vfio: Option<Arc<Object>>,
    /// Who keeps the context alive: the open file, the bound device, running commands.
    references: u32,
}

impl World {
    pub(crate) fn open(link: Box<dyn Link>, rules: Rules) -> Arc<Self> {
        let table = Table::new(rules);
        let device = table.reserve(Body::Device(lock(Group::default())));
        device.add_user();
        table.publish(&device);
        let files = Files { iommu_open: true, vfio: Some(Arc::clone(&device)), references: 2 };
        let mut world = Self {
            table,
            tsm: Tsm::new(),
            link,
            files: lock(files),
            life: Life::new(),
            device: device.id,
            vdevice: 0,
        };
        world.vdevice = world.vdevice_alloc().expect("a new device has no vdevice");
        Arc::new(world)
    }

    /// Makes a call.
    ///
    /// # Errors
    /// What the kernel would answer.
    pub fn call(&self, call: Call) -> Outcome {
        match call {
            Call::TsmBind => {
                self.command(|| self.with_vdevice(|vdevice| self.link.bind(self, vdevice)))
            }
            Call::TsmUnbind => {
                self.command(|| self.with_vdevice(|vdevice| self.link.unbind(self, vdevice)))
            }
            Call::DestroyVdevice => self.command(|| self.remove(Removal::Asked(self.vdevice))),
            Call::VdeviceAlloc => self.command(|| self.vdevice_alloc().map(|_| ())),
            Call::IoasAlloc => self.command(|| {
                let made = self.table.reserve(Body::AddressSpace);
                self.table.publish(&made);
                Ok(())
            }),
            Call::CloseVfio => self.close_vfio(),
            Call::CloseIommu => self.close_iommu(),
            Call::TsmUnregister => {
                self.link.unregister(self);
                Ok(())
            }
        }
    }

    /// Closes what is open and looks whether anything is left.
    ///
    /// # Panics
    /// If something is.
    pub fn finish(&self) {
        // Closed already is as good.
        let _ = self.close_vfio();
        let _ = self.close_iommu();
        self.tsm.check_ended();
    }

    fn vdevice_alloc(&self) -> Result<usize, Refused> {
        let device = self.table.get(self.device, true)?;
        self.link.make(self, &device)
    }

    fn with_vdevice(
        &self,
        command: impl FnOnce(&Arc<Object>) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let vdevice = self.table.get(self.vdevice, false)?;
        let result = command(&vdevice);
        self.table.put(&vdevice);
        result
    }

    /// Runs a command on the open `/dev/iommu`: `fget()` and `fput()` around it.
    fn command(&self, command: impl FnOnce() -> Outcome) -> Outcome {
        {
            let mut files = self.files.lock();
            if !files.iommu_open {
                return Err(Refused::EBADF);
            }
            files.references += 1;
        }
        let outcome = command();
        self.put_file();
        outcome
    }

    /// `vfio_df_device_last_close()`.
    fn close_vfio(&self) -> Outcome {
        let device = self.files.lock().vfio.take().ok_or(Refused::EBADF)?;
        let removed = self.remove(Removal::Owned(&device, Afterwards::Free));
        assert!(removed.is_ok(), "WARN_ON: VFIO cannot let its device go");
        self.put_file();
        Ok(())
    }

    fn close_iommu(&self) -> Outcome {
        {
            let mut files = self.files.lock();
            if !files.iommu_open {
                return Err(Refused::EBADF);
            }
            files.iommu_open = false;
        }
        self.put_file();
        Ok(())
    }

    fn put_file(&self) {
        let last = {
            let mut files = self.files.lock();
            files.references -= 1;
            files.references == 0
        };
        if last {
            self.release();
        }
    }

    /// `iommufd_fops_release()`.
    fn release(&self) {
        loop {
            let (mut seen, mut progress) = (false, false);
            for id in 1..IDS {
                let Some(object) = self.table.published(id) else { continue };
                seen = true;
                if object.users.dec_if_one() {
                    progress = true;
                    self.table.forget(id);
                    self.destroy(&object);
                }
            }
            if !seen {
                break;
            }
            assert!(progress, "WARN_ON: objects are left when /dev/iommu is closed");
        }
        self.life.end();
    }
}
