//! The object table of a context: ids, who uses an object, and the order of teardown.
//!
//! Ids are the lowest free from 1 and shared by all types. An object is reserved ([`ReservedId`]), built,
//! and published last; until then lookups miss it. Each has two counts:
//!
//! | count | held by | until |
//! |---|---|---|
//! | `users` | the table (1); objects built on it; attachments; the binder of a device; a lookup | they go. More than the table's own refuses removal (`EBUSY`) |
//! | `in_flight` | the object's life (1); a lookup | the lookup is dropped, which is soon. Removal waits for it |
//!
//! A *tombstone* is an id whose object was ended by somebody other than the client: lookups miss it and it
//! is given out no more, so an id never names two objects that a client cannot tell apart.
//!
//! Takes OBJECTS, a leaf, and holds it in no call out of this file. Knows no type of object and ends
//! none: what it takes out of the table, the caller ends. Source: [uapi/iommufd.h]; v7.3 `main.c`.

mod header;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::sync::Arc;

use sync::{Contents, Mutex, Named, rank};

use crate::{Limits, Quota, Refusal, Resource};

pub use header::{Headed, Header, Held, release_kept};

/// The largest id.
const ID_MAX: u32 = i32::MAX.cast_unsigned();

/// The table. `O` is the sum of all object types.
pub struct Registry<O> {
    quota: Arc<dyn Quota>,
    slots: Mutex<rank::Objects, Slots<O>>,
}

struct Slots<O> {
    by_id: BTreeMap<u32, Slot<O>>,
    /// Free ids below `unused`.
    free: BTreeSet<u32>,
    /// The lowest id that was never given out.
    unused: u32,
}

enum Slot<O> {
    /// Given to an object that nobody can see yet.
    Reserved,
    Published(O),
    /// Being removed: no new lookup finds it, so removal waits for those that did and no longer.
    Leaving(O),
    Tombstone,
}

/// What becomes of an id once its object is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// It can be given out again.
    Free,
    /// It is used up until the context closes.
    Tombstone,
}

impl<O: Headed + Clone> Registry<O> {
    /// An empty table, with room for as many objects as the usual limits allow.
    pub fn new() -> Self {
        Self::under(Arc::new(Limits::default()))
    }

    /// An empty table, with room for as many objects as `quota` says.
    pub fn under(quota: Arc<dyn Quota>) -> Self {
        let slots = Slots { by_id: BTreeMap::new(), free: BTreeSet::new(), unused: 1 };
        let slots = Mutex::with_contents(slots).named("objects", || "iommufd".to_owned());
        Self { quota, slots }
    }

    /// Reserves the lowest free id.
    ///
    /// # Errors
    /// [`Refusal::OutOfIds`], [`Refusal::Exhausted`] (`ENOMEM`).
    pub fn reserve(&self) -> Result<ReservedId<'_, O>, Refusal> {
        let (id, held) = {
            let mut slots = self.slots.lock();
            (slots.allocate()?, slots.by_id.len())
        };
        let reserved = ReservedId { registry: self, id, published: false };
        self.quota.admit(Resource::Object, held as u64)?;
        Ok(reserved)
    }

    /// Holds object `id` if `pick` takes it: `pick` sees the object and returns what to hold of it.
    ///
    /// # Errors
    /// [`Refusal::NoObject`] (`ENOENT`): no such id, not published, refused by `pick`, on its way out.
    pub fn get<T: Headed>(
        &self,
        id: u32,
        pick: impl FnOnce(&O) -> Option<T>,
    ) -> Result<Held<T>, Refusal> {
        let slots = self.slots.lock();
        let object = match slots.by_id.get(&id) {
            Some(Slot::Published(object)) => pick(object),
            Some(Slot::Reserved | Slot::Leaving(_) | Slot::Tombstone) | None => None,
        };
        object.and_then(Held::try_new).ok_or(Refusal::NoObject { id })
    }

    /// Says whether [`get`](Self::get) would find object `id` now, without holding it.
    ///
    /// # Errors
    /// [`Refusal::NoObject`] (`ENOENT`).
    pub fn check(&self, id: u32, is_kind: impl FnOnce(&O) -> bool) -> Result<(), Refusal> {
        match self.slots.lock().by_id.get(&id) {
            Some(Slot::Published(object)) if is_kind(object) => Ok(()),
            _ => Err(Refusal::NoObject { id }),
        }
    }

    /// Takes an object without users out of the table and waits until no lookup holds it. The caller
    /// ends it. Its id is free at once.
    ///
    /// # Errors
    /// - [`Refusal::NoObject`] (`ENOENT`)
    /// - [`Refusal::Busy`] (`EBUSY`): it has users beside the table.
    pub fn take(&self, id: u32) -> Result<O, Refusal> {
        let object = self.slots.lock().take(id)?;
        object.header().wait_idle();
        Ok(object)
    }

    /// Drops a user of `object` and takes it out as [`take`](Self::take) does if that was the last beside
    /// the table.
    pub fn drop_user_and_take(&self, object: &O) -> Option<O> {
        let header = object.header();
        let mut slots = self.slots.lock();
        header.drop_user();
        let taken = slots.take(header.id()).ok();
        drop(slots);
        if let Some(object) = &taken {
            object.header().wait_idle();
        }
        taken
    }

    /// Lets no new lookup find `object`, waits until none holds it, drops the caller's user, which must be
    /// the last beside the table, and takes it out. Nothing can refuse this. The caller ends the object.
    pub fn remove(&self, object: &O, afterwards: Afterwards) {
        let header = object.header();
        self.slots.lock().by_id.insert(header.id(), Slot::Leaving(object.clone()));
        header.wait_idle();
        let mut slots = self.slots.lock();
        header.drop_user();
        let alone = header.users.dec_if_one();
        assert!(alone, "object {} is removed while it has users", header.id());
        match afterwards {
            Afterwards::Free => slots.free(header.id()),
            Afterwards::Tombstone => slots.bury(header.id()),
        }
    }

    /// Takes out the first object with an id of at least `from` that has no users beside the table. For
    /// closing, when no command runs.
    pub fn take_leaf(&self, from: u32) -> Option<O> {
        let mut slots = self.slots.lock();
        let leaf = slots.by_id.range(from..).find_map(|(id, slot)| match slot {
            Slot::Published(object) if object.header().users.dec_if_one() => Some(*id),
            Slot::Published(_) | Slot::Reserved | Slot::Leaving(_) | Slot::Tombstone => None,
        })?;
        let object = slots.remove_published(leaf)?;
        drop(slots);
        object.header().wait_idle();
        Some(object)
    }

    /// All published objects, ascending by id.
    pub fn published(&self) -> Vec<O> {
        let slots = self.slots.lock();
        let published = slots.by_id.values().filter_map(|slot| match slot {
            Slot::Published(object) => Some(object.clone()),
            Slot::Reserved | Slot::Leaving(_) | Slot::Tombstone => None,
        });
        published.collect()
    }

    /// Whether no id is given out: to no object, to none being built, and to no tombstone.
    pub fn is_unused(&self) -> bool {
        self.slots.lock().by_id.is_empty()
    }

    /// How many ids are tombstones.
    pub fn tombstones(&self) -> usize {
        let slots = self.slots.lock();
        slots.by_id.values().filter(|slot| matches!(slot, Slot::Tombstone)).count()
    }
}

impl<O: Headed + Clone> Default for Registry<O> {
    fn default() -> Self {
        Self::new()
    }
}

impl<O: Headed> Contents for Slots<O> {
    /// Ids below `unused` that are not given out are free.
    fn contents(&self, into: &mut dyn Hasher) {
        into.write_u32(self.unused);
        for (id, slot) in &self.by_id {
            let (stage, object) = match slot {
                Slot::Reserved => (0, None),
                Slot::Published(object) => (1, Some(object)),
                Slot::Leaving(object) => (2, Some(object)),
                Slot::Tombstone => (3, None),
            };
            into.write_u32(*id);
            into.write_u8(stage);
            if let Some(object) = object {
                into.write_u64(object.header().identity());
                object.facts(into);
            }
        }
    }
}

impl<O: Headed> Slots<O> {
    fn allocate(&mut self) -> Result<u32, Refusal> {
        let id = match self.free.pop_first() {
            Some(id) => id,
            None if self.unused > ID_MAX => return Err(Refusal::OutOfIds),
            None => {
                self.unused += 1;
                self.unused - 1
            }
        };
        self.by_id.insert(id, Slot::Reserved);
        Ok(id)
    }

    fn take(&mut self, id: u32) -> Result<O, Refusal> {
        let Some(Slot::Published(object) | Slot::Leaving(object)) = self.by_id.get(&id) else {
            return Err(Refusal::NoObject { id });
        };
        let users = &object.header().users;
        if !users.dec_if_one() {
            return Err(Refusal::Busy { id, users: users.read() });
        }
        self.remove_published(id).ok_or(Refusal::NoObject { id })
    }

    fn remove_published(&mut self, id: u32) -> Option<O> {
        self.free.insert(id);
        match self.by_id.remove(&id)? {
            Slot::Published(object) => Some(object),
            Slot::Reserved | Slot::Leaving(_) | Slot::Tombstone => None,
        }
    }

    fn free(&mut self, id: u32) {
        self.by_id.remove(&id);
        self.free.insert(id);
    }

    fn bury(&mut self, id: u32) {
        self.by_id.insert(id, Slot::Tombstone);
    }
}

/// An id reserved for an object that nobody can see yet. Dropping it gives the id back.
#[must_use = "an id that is not published is given back when dropped"]
pub struct ReservedId<'r, O: Headed + Clone> {
    registry: &'r Registry<O>,
    id: u32,
    published: bool,
}

impl<O: Headed + Clone> ReservedId<'_, O> {
    /// The id.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Makes `object`, whose header has this id, visible. Cannot fail.
    pub fn publish(mut self, object: O) {
        assert_eq!(object.header().id(), self.id, "an object is published under its own id");
        self.registry.slots.lock().by_id.insert(self.id, Slot::Published(object));
        self.published = true;
    }
}

impl<O: Headed + Clone> Drop for ReservedId<'_, O> {
    fn drop(&mut self) {
        if !self.published {
            self.registry.slots.lock().free(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(Header);

    impl Headed for Thing {
        fn header(&self) -> &Header {
            &self.0
        }
    }

    type Things = Registry<Arc<Thing>>;

    fn publish(things: &Things) -> Arc<Thing> {
        let id = things.reserve().unwrap();
        let thing = Arc::new(Thing(Header::new("thing", id.id())));
        id.publish(Arc::clone(&thing));
        thing
    }

    fn get(things: &Things, id: u32) -> Result<Held<Arc<Thing>>, Refusal> {
        things.get(id, |thing| Some(Arc::clone(thing)))
    }

    #[test]
    fn what_is_reserved_is_not_found_and_given_back_if_not_published() {
        let things = Things::new();
        let (one, two) = (things.reserve().unwrap(), things.reserve().unwrap());
        assert_eq!((one.id(), two.id()), (1, 2));
        assert_eq!(get(&things, 1).err(), Some(Refusal::NoObject { id: 1 }));
        assert!(things.take(1).is_err());
        drop(one);
        assert_eq!(publish(&things).0.id(), 1);
        assert!(get(&things, 1).is_ok());
        assert!(things.get(1, |_| None::<Arc<Thing>>).is_err());
    }

    #[test]
    fn users_and_lookups_refuse_removal() {
        let things = Things::new();
        let thing = publish(&things);
        let held = get(&things, 1).unwrap();
        assert_eq!(things.take(1).err(), Some(Refusal::Busy { id: 1, users: 2 }));
        drop(held);
        thing.0.add_user();
        assert_eq!(things.take(1).err(), Some(Refusal::Busy { id: 1, users: 2 }));
        thing.0.drop_user();
        assert!(things.take(1).is_ok());
        assert_eq!(things.take(1).err(), Some(Refusal::NoObject { id: 1 }));
    }

    #[test]
    fn the_last_user_beside_the_table_takes_the_object_along() {
        let things = Things::new();
        let thing = publish(&things);
        thing.0.add_user();
        thing.0.add_user();
        assert!(things.drop_user_and_take(&thing).is_none());
        assert!(things.drop_user_and_take(&thing).is_some());
        assert!(get(&things, 1).is_err());
    }

    #[test]
    fn a_tombstone_is_never_given_out_again() {
        let things = Things::new();
        let (first, second) = (publish(&things), publish(&things));
        first.0.add_user();
        second.0.add_user();
        things.remove(&first, Afterwards::Tombstone);
        things.remove(&second, Afterwards::Free);
        assert_eq!(things.tombstones(), 1);
        assert_eq!(get(&things, 1).err(), Some(Refusal::NoObject { id: 1 }));
        assert_eq!(things.take(1).err(), Some(Refusal::NoObject { id: 1 }));
        assert_eq!([publish(&things).0.id(), publish(&things).0.id()], [2, 3]);
        assert_eq!(things.published().len(), 2);
    }

    #[test]
    fn removal_waits_for_lookups_and_lets_no_new_one_in() {
        let things = Things::new();
        let thing = publish(&things);
        thing.0.add_user();
        let held = get(&things, 1).unwrap();
        std::thread::scope(|scope| {
            let held = held;
            let removal = scope.spawn(|| things.remove(&thing, Afterwards::Free));
            for _ in 0..1_000_000 {
                if get(&things, 1).is_err() {
                    break;
                }
                std::thread::yield_now();
            }
            assert!(get(&things, 1).is_err());
            assert!(!removal.is_finished());
            assert_eq!(things.take(1).err(), Some(Refusal::Busy { id: 1, users: 3 }));
            drop(held);
            removal.join().unwrap();
        });
        assert_eq!(things.published().len(), 0);
    }

    #[test]
    fn a_hold_that_is_kept_lasts_until_it_is_given_back() {
        let things = Things::new();
        let thing = publish(&things);
        let kept = get(&things, 1).unwrap().keep();
        assert_eq!(things.take(1).err(), Some(Refusal::Busy { id: 1, users: 2 }));
        release_kept(&kept);
        drop((kept, things.take(1).unwrap()));
        assert_eq!(Arc::strong_count(&thing), 1);
    }

    #[test]
    fn leaves_are_taken_in_ascending_order() {
        let things = Things::new();
        let (first, _, _) = (publish(&things), publish(&things), publish(&things));
        first.0.add_user();
        let taken = |from| things.take_leaf(from).map(|thing| thing.0.id());
        assert_eq!([taken(1), taken(3), taken(1)], [Some(2), Some(3), None]);
        first.0.drop_user();
        assert_eq!(taken(1), Some(1));
    }
}
