//! Objects with the kernel's two counts, and the table that holds them.
//!
//! `users` decides who may destroy; `wait_count` says who still works with the object. Named after
//! `struct iommufd_object`; the functions say which of the kernel's they stand for.

use std::sync::{Arc, Weak};

use sync::{Guard, Life, Mutex, Named, Rank, Refcount, WaitQueue};

use crate::rules::Rules;
use crate::{Refused, World};

/// An object: a device or a vdevice.
pub(crate) struct Object {
    pub(crate) id: usize,
    /// Never the same twice, as ids may be.
    pub(crate) serial: u32,
    life: Life,
    pub(crate) users: Refcount,
    wait_count: Refcount,
    idle: WaitQueue,
    pub(crate) body: Body,
}

/// What is different about the types.
pub(crate) enum Body {
    /// `struct iommufd_device`.
    Device(Mutex<GroupLock, Group>),
    /// `struct iommufd_vdevice`.
    Vdevice(Mutex<VdeviceLock, Vdevice>),
    /// `struct iommufd_ioas`: takes an id, and is linked with nothing.
    AddressSpace,
}

/// `igroup->lock`.
pub(crate) enum GroupLock {}

impl Rank for GroupLock {
    const ORDER: u8 = 20;
    const NAME: &'static str = "igroup->lock";
    const ASSERTED: bool = false;
}

/// `vdev->mutex`.
pub(crate) enum VdeviceLock {}

impl Rank for VdeviceLock {
    const ORDER: u8 = 30;
    const NAME: &'static str = "vdev->mutex";
    const ASSERTED: bool = false;
}

/// What the group's lock guards.
#[derive(Default)]
pub(crate) struct Group {
    pub(crate) vdevice: Option<Weak<Object>>,
    pub(crate) destroying: bool,
    pub(crate) bound: bool,
}

/// What the vdevice's lock guards.
#[derive(Default)]
pub(crate) struct Vdevice {
    pub(crate) device: Option<Weak<Object>>,
    pub(crate) bound: bool,
}

impl Body {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Device(_) => "device",
            Self::Vdevice(_) => "vdevice",
            Self::AddressSpace => "ioas",
        }
    }
}

impl Object {
    fn new(id: usize, serial: u32, body: Body) -> Arc<Self> {
        let kind = body.kind();
        // Set-up makes one of each.
        let name = || if serial < 2 { kind.to_owned() } else { format!("{kind}{serial}") };
        Arc::new(Self {
            id,
            serial,
            life: Life::new().named("", name),
            users: Refcount::new(1).named("users", name),
            wait_count: Refcount::new(1).named("wait_cnt", name),
            idle: WaitQueue::new().named("wait", name),
            body,
        })
    }

    /// The lock of a device's group, as somebody with a pointer to the device takes it.
    #[track_caller]
    pub(crate) fn lock_group(&self) -> Guard<'_, GroupLock, Group> {
        let Body::Device(group) = &self.body else { unreachable!("only a device has a group") };
        self.life.check();
        let guard = group.lock();
        self.life.check();
        guard
    }

    /// The lock of a vdevice.
    #[track_caller]
    pub(crate) fn lock_vdevice(&self) -> Guard<'_, VdeviceLock, Vdevice> {
        let Body::Vdevice(vdevice) = &self.body else { unreachable!("only a vdevice has that") };
        self.life.check();
        let guard = vdevice.lock();
        self.life.check();
        guard
    }

    pub(crate) fn add_user(&self) {
        self.life.check();
        self.users.inc();
    }

    pub(crate) fn drop_user(&self) {
        self.life.check();
        let last = self.users.dec_and_test();
        assert!(!last, "the last user of an object is the table's");
    }

    /// Where the kernel frees it.
    pub(crate) fn end(&self) {
        self.life.end();
    }

    pub(crate) fn is_device(&self) -> bool {
        matches!(self.body, Body::Device(_))
    }

    pub(crate) fn is_vdevice(&self) -> bool {
        matches!(self.body, Body::Vdevice(_))
    }
}

/// `ictx->objects`.
pub(crate) struct Table {
    slots: Mutex<TableLock, Slots>,
    pub(crate) rules: Rules,
}

/// `xa_lock`.
pub(crate) enum TableLock {}

impl Rank for TableLock {
    const ORDER: u8 = 50;
    const NAME: &'static str = "xa_lock";
    const ASSERTED: bool = false;
}

#[derive(Default)]
struct Slots {
    by_id: Vec<Slot>,
    /// All that ever were: what a stale pointer leads to.
    ever: Vec<Arc<Object>>,
    /// Ids of vdevices that their device took along: the program has them still.
    taken: Vec<usize>,
}

#[derive(Clone, Default)]
enum Slot {
    #[default]
    Free,
    /// Given out and not visible: being made, or a tombstone.
    Reserved,
    Published(Arc<Object>),
}

/// How an object is taken out: the flags of `iommufd_object_remove()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal<'a> {
    /// As `IOMMU_DESTROY` does: not while somebody holds it.
    Asked(usize),
    /// As the object's owner does, who gives up his user: after all that hold it have let go.
    Owned(&'a Arc<Object>, Afterwards),
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl Eq for Object {}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.body.kind(), self.id)
    }
}

/// What becomes of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Afterwards {
    Free,
    Tombstone,
}

impl Table {
    pub(crate) fn new(rules: Rules) -> Self {
        let slots = Slots { by_id: vec![Slot::Free; IDS], ever: Vec::new(), taken: Vec::new() };
        Self { slots: lock(slots), rules }
    }

    /// `iommufd_object_alloc()`: an object that lookups miss still.
    pub(crate) fn reserve(&self, body: Body) -> Arc<Object> {
        let mut slots = self.slots.lock();
        let free = |slot: &Slot| matches!(slot, Slot::Free);
        let id = slots.by_id.iter().skip(1).position(free).expect("few objects are made") + 1;
        assert!(
            !slots.taken.contains(&id),
            "I5: an id that the program still has names another object"
        );
        slots.by_id[id] = Slot::Reserved;
        let serial = u32::try_from(slots.ever.len()).expect("few objects are made");
        let object = Object::new(id, serial, body);
        slots.ever.push(Arc::clone(&object));
        object
    }

    /// `iommufd_object_finalize()`.
    pub(crate) fn publish(&self, object: &Arc<Object>) {
        self.slots.lock().by_id[object.id] = Slot::Published(Arc::clone(object));
    }

    /// `iommufd_get_object()`.
    pub(crate) fn get(&self, id: usize, device: bool) -> Result<Arc<Object>, Refused> {
        let slots = self.slots.lock();
        let Some(Slot::Published(object)) = slots.by_id.get(id) else {
            return Err(Refused::ENOENT);
        };
        let is_right = if device { object.is_device() } else { object.is_vdevice() };
        if !is_right || !object.users.inc_not_zero() {
            return Err(Refused::ENOENT);
        }
        if !object.wait_count.inc_not_zero() {
            object.drop_user();
            return Err(Refused::ENOENT);
        }
        Ok(Arc::clone(object))
    }

    /// `iommufd_put_object()`.
    pub(crate) fn put(&self, object: &Object) {
        if self.rules.users_first {
            object.drop_user();
            self.let_go(object);
        } else {
            self.let_go(object);
            object.drop_user();
        }
    }

    fn let_go(&self, object: &Object) {
        if object.wait_count.dec_and_test() && self.rules.wake {
            object.idle.wake_all();
        }
    }

    /// What is published under an id.
    pub(crate) fn published(&self, id: usize) -> Option<Arc<Object>> {
        match self.slots.lock().by_id.get(id) {
            Some(Slot::Published(object)) => Some(Arc::clone(object)),
            Some(Slot::Free | Slot::Reserved) | None => None,
        }
    }

    /// Takes an id out for the context's end: `iommufd_fops_release()`.
    pub(crate) fn forget(&self, id: usize) {
        self.slots.lock().by_id[id] = Slot::Free;
    }
}

/// Ids are below.
pub(crate) const IDS: usize = 8;

impl World {
    /// `iommufd_object_remove()`: takes an object out of the table and destroys it.
    pub(crate) fn remove(&self, removal: Removal<'_>) -> Result<(), Refused> {
        let table = &self.table;
        let (id, owned, afterwards) = match removal {
            Removal::Asked(id) => (id, None, Afterwards::Free),
            Removal::Owned(object, afterwards) => (object.id, Some(object), afterwards),
        };
        if let Some(object) = owned {
            self.outwait(object);
        }
        let object = {
            let mut slots = table.slots.lock();
            if let Some(object) = owned {
                object.drop_user();
            }
            let found = match slots.by_id.get(id) {
                Some(Slot::Published(found)) => Arc::clone(found),
                Some(Slot::Free | Slot::Reserved) | None => {
                    assert!(owned.is_none(), "WARN_ON: an object to remove is gone from its id");
                    return Err(Refused::ENOENT);
                }
            };
            if let Some(object) = owned {
                assert!(Arc::ptr_eq(object, &found), "WARN_ON: an id leads to another object");
            }
            if !found.users.dec_if_one() {
                assert!(owned.is_none(), "WARN_ON: the kernel's own removal got EBUSY");
                return Err(Refused::EBUSY);
            }
            if owned.is_some() && found.is_vdevice() {
                slots.taken.push(id);
            }
            slots.by_id[id] = match afterwards {
                Afterwards::Free => Slot::Free,
                Afterwards::Tombstone => Slot::Reserved,
            };
            found
        };
        if owned.is_none() {
            self.outwait(&object);
        }
        self.destroy(&object);
        Ok(())
    }

    /// Gives up the object's own hold and waits for the others: `iommufd_object_dec_wait()`.
    fn outwait(&self, object: &Arc<Object>) {
        if object.wait_count.dec_and_test() {
            return;
        }
        if object.is_device() {
            self.link.before_device_end(self, object);
        }
        if self.table.rules.wait_count {
            object.idle.wait_zero(&object.wait_count);
        }
    }

    /// The type's `destroy` and the `kfree()` after it.
    pub(crate) fn destroy(&self, object: &Arc<Object>) {
        if object.is_device() {
            self.link.device_end(self, object);
            if self.link.releases() {
                self.tsm.release();
            }
        } else if object.is_vdevice() {
            self.link.vdevice_end(self, object);
        }
        object.end();
    }
}

/// A lock, called by its rank.
pub(crate) fn lock<R: Rank, T>(value: T) -> Mutex<R, T> {
    Mutex::new(value).named("", || R::NAME.to_owned())
}

/// What a pointer leads to, whether or not it still may.
pub(crate) fn follow(pointer: &Weak<Object>) -> Arc<Object> {
    pointer.upgrade().expect("the table keeps all that ever were")
}
