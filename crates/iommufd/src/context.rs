//! An open `/dev/iommu`.
//!
//! Owns the object table and the reader epoch of all DMA through it. Lives until the last *file reference*
//! is put: the front end holds one for the open file, each bound device another, so that closing the file
//! under a bound device ends nothing.
//!
//! Takes OBJECTS, a leaf, for its ledger. Knows nothing of descriptors. Source: [uapi/iommufd.h].

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use pagetable::Readers;
use pci::DmaFaultReason;
use sync::{Epoch, Mutex, Named, Refcount, rank};
use tsm::VmId;
use uapi::{Errno, Profile};

use crate::flat_map::FlatMap;
use crate::in_flight::{InFlight, Stay, Visitors};
use crate::ioas::Ioas;
use crate::iova_map::{IovaMap, Left};
use crate::mock::MockMachine;
use crate::object::Object;
use crate::paged_map::PagedMap;
use crate::registry::{Headed, Registry};
use crate::window::Windows;
use crate::{Caller, Counts, Limits, PageSet, Quota, Source, dispatch};

/// What a context is opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextSettings {
    /// Which commands there are.
    pub profile: Profile,
    /// Whose TDIs are bound where no VM is linked.
    pub tvm: Tvm,
}

/// What stands for the VM where a device's file is linked with none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tvm {
    /// The context itself: each is a VM of its own.
    #[default]
    Implicit,
    /// Nothing: what needs a VM is refused.
    Kvm,
}

/// One open `/dev/iommu`.
pub struct Context {
    settings: ContextSettings,
    quota: Arc<dyn Quota>,
    files: Refcount,
    registry: Registry<Object>,
    /// Entered by each DMA access for as long as it uses a translation.
    dma: InFlight,
    ledger: Mutex<rank::Objects, Ledger>,
    /// The IOAS that a container's commands are about. Not held.
    compat: Mutex<rank::Objects, Weak<Ioas>>,
    /// What drivers let the client map of the file.
    windows: Windows,
    /// What serves the kernel's test interface, where the platform's IOMMU is the mock.
    mock: Option<Arc<MockMachine>>,
}

#[derive(Default)]
struct Ledger {
    dma_faults: BTreeMap<DmaFaultReason, u64>,
    invalidations: u64,
    left_at_close: Option<Counts>,
    /// Whether the client wants pinned pages charged to its process.
    charges_process: bool,
    /// The VM that stands for the context, once it is needed.
    implicit_vm: Option<VmId>,
}

impl Context {
    /// Opens `/dev/iommu` with the commands of `profile`. The caller holds one file reference.
    pub fn open(profile: Profile) -> Arc<Self> {
        Self::open_with(ContextSettings { profile, tvm: Tvm::Implicit })
    }

    /// Opens `/dev/iommu`. The caller holds one file reference.
    pub fn open_with(settings: ContextSettings) -> Arc<Self> {
        Self::open_under(settings, Arc::new(Limits::default()))
    }

    /// As [`open_with`](Self::open_with), with room for as much as `quota` says.
    pub fn open_under(settings: ContextSettings, quota: Arc<dyn Quota>) -> Arc<Self> {
        Self::open_counting(settings, InFlight::Announced(Readers::new()), quota, None)
    }

    /// As [`open_with`](Self::open_with), on a platform whose IOMMU is the kernel's mock: with its test interface.
    pub fn open_mock(settings: ContextSettings, machine: &Arc<MockMachine>) -> Arc<Self> {
        let in_flight = InFlight::Announced(Readers::new());
        let quota = Arc::clone(machine.quota());
        let ctx = Self::open_counting(settings, in_flight, quota, Some(Arc::clone(machine)));
        machine.opened(&ctx);
        ctx
    }

    /// As [`open_with`](Self::open_with), with plain maps in place of page tables: slower, and every step that threads
    /// can meet at is one of `sync`'s, which an explorer of interleavings sees.
    pub fn open_plain(settings: ContextSettings) -> Arc<Self> {
        let in_flight = InFlight::Counted(Box::new(Epoch::new().named("dma", name)));
        Self::open_counting(settings, in_flight, Arc::new(Limits::default()), None)
    }

    fn open_counting(
        settings: ContextSettings,
        dma: InFlight,
        quota: Arc<dyn Quota>,
        mock: Option<Arc<MockMachine>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            files: Refcount::new(1).named("files", name),
            registry: Registry::under(Arc::clone(&quota)),
            quota,
            dma,
            ledger: Mutex::new(Ledger::default()).named("ledger", name),
            compat: Mutex::new(Weak::new()).named("compat", name),
            windows: Windows::default(),
            mock,
        })
    }

    /// Runs the command `request` on the struct at `argument` in the caller's memory.
    ///
    /// The caller holds a file reference until this returns. Takes no lock while it reads or writes the
    /// caller's memory.
    ///
    /// # Errors
    /// The command's, as told at its handler; before those `ENOTTY`, `EFAULT`, `EINVAL`, `E2BIG` in the order
    /// that the kernel's dispatcher has. [uapi/iommufd.h]
    pub fn ioctl(
        self: &Arc<Self>,
        caller: &dyn Caller,
        request: u32,
        argument: u64,
    ) -> Result<u32, Errno> {
        match dispatch::run(self, caller, request, argument) {
            Ok(answer) => Ok(answer),
            Err(refusal) => {
                caller.refused(&refusal);
                Err(refusal.errno())
            }
        }
    }

    /// Takes a file reference. `false` if the last was put already.
    #[must_use = "without a reference the context may close at any time"]
    pub fn get_file(&self) -> bool {
        self.files.inc_not_zero()
    }

    /// Puts a file reference. The last one destroys all objects: those without users, ascending by id,
    /// again and again until none is left. No command runs then, and no device is bound.
    pub fn put_file(&self) {
        if self.files.dec_and_test() {
            self.close();
        }
    }

    /// Gives up the TSM commands that run on the context, and refuses those that begin later (`EINTR`): no
    /// descriptor of its file is open any more, or its program is gone. What a device's own file asks for is
    /// given up too if it runs now, and not refused later. Returns at once, and waits for nobody.
    ///
    /// Takes OBJECTS; called with no lock held.
    pub fn cancel_commands(&self) {
        for object in self.registry.published() {
            if let Object::Device(device) = object {
                device.close_gate();
            }
        }
    }

    /// Whether somebody holds a file reference: objects can be made, and found.
    pub fn is_open(&self) -> bool {
        self.files.read() > 0
    }

    /// What the context holds. Once it is closed: what it held when it was.
    pub fn counts(&self) -> Counts {
        let left = self.ledger.lock().left_at_close.clone();
        left.unwrap_or_else(|| self.count())
    }

    /// Which commands there are.
    pub(crate) const fn profile(&self) -> Profile {
        self.settings.profile
    }

    /// Who says how much there is of what commands use up.
    pub(crate) const fn quota(&self) -> &Arc<dyn Quota> {
        &self.quota
    }

    /// What serves the kernel's test interface, if anything does.
    pub(crate) const fn mock(&self) -> Option<&Arc<MockMachine>> {
        self.mock.as_ref()
    }

    /// What drivers let the client map of the file.
    pub(crate) const fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Whether bytes of the file are exactly a window that a client may map.
    ///
    /// Takes OBJECTS.
    pub fn has_window(&self, offset: u64, length: u64) -> bool {
        self.windows.has(offset, length)
    }

    /// Memory as one command of `caller` maps it.
    pub(crate) fn mapped_by(
        &self,
        caller: &dyn Caller,
        memory: Arc<dyn Source>,
    ) -> Arc<dyn Source> {
        let memory = if caller.may_lock_memory() {
            memory
        } else {
            caller.charged(memory, self.charges_process())
        };
        match self.mock {
            Some(_) => PageSet::new(memory, caller, self.charges_process()),
            None => memory,
        }
    }

    /// What stands for the VM where none is linked.
    pub(crate) const fn tvm(&self) -> Tvm {
        self.settings.tvm
    }

    /// The VM that stands for the context.
    pub(crate) fn implicit_vm(&self, tsm: &tsm::Registry) -> VmId {
        let known = self.ledger.lock().implicit_vm;
        known.unwrap_or_else(|| {
            let fresh = tsm.new_vm();
            *self.ledger.lock().implicit_vm.get_or_insert(fresh)
        })
    }

    /// The IOAS that a container's commands are about, if it is there still.
    pub(crate) fn compat(&self) -> Weak<Ioas> {
        self.compat.lock().clone()
    }

    /// Makes `ioas` the one that a container's commands are about.
    pub(crate) fn set_compat(&self, ioas: Weak<Ioas>) {
        let before = std::mem::replace(&mut *self.compat.lock(), ioas);
        drop(before);
    }

    /// As [`set_compat`](Self::set_compat), if it is `seen` still; says whether it was.
    pub(crate) fn replace_compat(&self, seen: &Weak<Ioas>, ioas: Weak<Ioas>) -> bool {
        let mut compat = self.compat.lock();
        if !Weak::ptr_eq(&compat, seen) {
            return false;
        }
        let before = std::mem::replace(&mut *compat, ioas);
        drop(compat);
        drop(before);
        true
    }

    pub(crate) const fn registry(&self) -> &Registry<Object> {
        &self.registry
    }

    /// An empty map for an address space. Plain where explored, or where we have no addresses for page tables.
    pub(crate) fn new_map(&self) -> Arc<dyn IovaMap> {
        let paged = match &self.dma {
            InFlight::Announced(readers) => PagedMap::new(readers).ok(),
            InFlight::Counted(_) => None,
        };
        match paged {
            Some(paged) => Arc::new(paged),
            None => Arc::new(FlatMap::new()),
        }
    }

    /// Whether the client wants pinned pages charged to its process, and not to its user.
    pub(crate) fn charges_process(&self) -> bool {
        self.ledger.lock().charges_process
    }

    /// Says whether pinned pages are charged to the client's process, and not to its user: a context that is opened as a
    /// VFIO container begins so.
    pub fn charge_process(&self, process: bool) {
        self.ledger.lock().charges_process = process;
    }

    /// How its DMA in flight is counted.
    pub(crate) const fn in_flight(&self) -> &InFlight {
        &self.dma
    }

    /// Begins a DMA access of the device that `visitors` are of: translations stay usable until the result is dropped.
    pub(crate) fn enter_dma<'a>(&'a self, visitors: &'a Visitors) -> Stay<'a> {
        self.dma.enter(visitors)
    }

    /// Returns when every DMA access that had begun before has ended. Called with no lock held.
    pub(crate) fn outwait_dma(&self) {
        self.dma.outwait();
    }

    /// Lets go of what changes of `map` left, once no DMA uses it. Called with no lock held.
    pub(crate) fn let_go(&self, map: &dyn IovaMap, left: Left) {
        if left.reachable {
            self.outwait_dma();
        }
        map.reclaim(left);
    }

    pub(crate) fn count_invalidations(&self, done: u32) {
        if done > 0 {
            self.ledger.lock().invalidations += u64::from(done);
        }
    }

    pub(crate) fn count_dma_fault(&self, reason: DmaFaultReason) {
        *self.ledger.lock().dma_faults.entry(reason).or_default() += 1;
    }

    fn close(&self) {
        let left = self.count();
        self.ledger.lock().left_at_close = Some(left);
        let mut from = 1;
        let mut progress = false;
        loop {
            if let Some(object) = self.registry.take_leaf(from) {
                from = object.header().id() + 1;
                object.destroy(self);
                progress = true;
            } else if progress {
                (from, progress) = (1, false);
            } else {
                break;
            }
        }
        assert!(self.registry.published().is_empty(), "an object outlives its context");
    }

    fn count(&self) -> Counts {
        let (dma_faults, invalidations) = {
            let ledger = self.ledger.lock();
            (ledger.dma_faults.clone(), ledger.invalidations)
        };
        let mut counts = Counts {
            tombstones: self.registry.tombstones(),
            dma_faults,
            invalidations,
            ..Counts::default()
        };
        for object in self.registry.published() {
            match object {
                // What it is attached to is counted.
                Object::Access(_) => {}
                // No device uses what is left of them.
                Object::Fault(_) | Object::HwQueue(_) | Object::Veventq(_) => {}
                Object::Device(_) => counts.devices += 1,
                Object::Hwpt(_) => counts.hwpts += 1,
                // Its device is counted.
                Object::MockDevice(_) => {}
                Object::Vdevice(_) => counts.vdevices += 1,
                Object::Viommu(_) => counts.viommus += 1,
                Object::Ioas(ioas) => {
                    let usage = ioas.usage();
                    counts.ioases += 1;
                    counts.areas += usage.areas;
                    counts.mapped_bytes = saturating_sum(counts.mapped_bytes, usage.mapped_bytes);
                    counts.pinned_bytes = saturating_sum(counts.pinned_bytes, usage.pinned_bytes);
                }
            }
        }
        counts
    }
}

fn saturating_sum(bytes: u64, more: u128) -> u64 {
    u64::try_from(more).map_or(u64::MAX, |more| bytes.saturating_add(more))
}

/// What a context is called in timelines.
fn name() -> String {
    "iommufd".to_owned()
}
