//! What the mock's hardware keeps of a guest's translations: an IOTLB of a nested page table, a cache of a device.
//!
//! A lookup fills neither: each entry holds what it was made with until a guest has it dropped. `entries` is OBJECTS, a
//! leaf.

use sync::{Mutex, rank};
use uapi::Errno;

use super::failure;
use crate::Refusal;

/// A few entries.
pub(crate) struct Cache {
    entries: Mutex<rank::Objects, [u32; Self::ENTRIES]>,
}

/// Flags of an entry that says what to drop.
mod drop_flags {
    /// All entries, whichever is named.
    pub(super) const ALL: u32 = 1 << 0;
}

/// What a dropped entry holds.
const DROPPED: u32 = 0;
/// What each entry of a device's cache holds at first.
const OF_DEVICE: u32 = 0x00ba_ddad;

impl Cache {
    const ENTRIES: usize = 4;

    /// A cache whose entries all hold `value`.
    pub(super) fn filled_with(value: u32) -> Self {
        Self { entries: Mutex::new([value; Self::ENTRIES]) }
    }

    /// That of a device.
    pub(crate) fn of_device() -> Self {
        Self::filled_with(OF_DEVICE)
    }

    /// Says whether entry `index` holds `value`.
    ///
    /// # Errors
    /// `EINVAL`, also where there is no such entry.
    pub(super) fn check(&self, index: u32, value: u32) -> Result<(), Refusal> {
        let entries = *self.entries.lock();
        match entries.get(index as usize) {
            Some(found) if *found == value => Ok(()),
            _ => Err(failure("the cache holds something else", Errno::EINVAL)),
        }
    }

    /// Drops entry `index`, or all if the flags say so.
    ///
    /// # Errors
    /// `EINVAL` where there is no such entry.
    pub(super) fn drop_entry(&self, flags: u32, index: u32) -> Result<(), Refusal> {
        let mut entries = self.entries.lock();
        if flags & drop_flags::ALL != 0 {
            *entries = [DROPPED; Self::ENTRIES];
            return Ok(());
        }
        let entry = entries.get_mut(index as usize);
        *entry.ok_or(failure("the cache has no such entry", Errno::EINVAL))? = DROPPED;
        Ok(())
    }
}

/// # Errors
/// `EOPNOTSUPP` for flags that mean nothing.
pub(super) fn refuse_flags(flags: u32) -> Result<(), Refusal> {
    if flags & !drop_flags::ALL == 0 {
        return Ok(());
    }
    Err(failure("unknown flags of an invalidation", Errno::EOPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_dropped_alone_or_with_all() {
        let cache = Cache::filled_with(7);
        cache.drop_entry(0, 1).unwrap();
        let held =
            |value| (0..5).map(|index| cache.check(index, value).is_ok()).collect::<Vec<_>>();
        assert_eq!(held(7), [true, false, true, true, false]);
        assert_eq!(held(DROPPED), [false, true, false, false, false]);
        assert!(cache.drop_entry(0, 4).is_err());
        cache.drop_entry(drop_flags::ALL, 4).unwrap();
        assert_eq!(held(DROPPED), [true, true, true, true, false]);
    }

    #[test]
    fn only_one_flag_means_something() {
        let errno = |flags| refuse_flags(flags).err().map(|refusal| refusal.errno());
        assert_eq!(
            [0, 1, 2, 3].map(errno),
            [None, None, Some(Errno::EOPNOTSUPP), Some(Errno::EOPNOTSUPP)]
        );
    }
}
