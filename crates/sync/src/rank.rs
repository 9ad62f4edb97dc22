//! The order of locks: a marker type a rank, and the assertion that keeps threads to it.
//!
//! A thread takes locks in ascending [`Rank::ORDER`] and no two of one rank. Locks of the TSM chain
//! are taken only where no lock of another chain is held. The crate documentation draws the tree.
//!
//! The held ranks are a small per-thread list from which a release removes its own entry, so that
//! locks may be released in any order. Only debug builds keep it.

use std::cell::Cell;

/// A place in the lock order.
pub trait Rank {
    /// Locks are taken in ascending order.
    const ORDER: u8;
    /// What messages call it.
    const NAME: &'static str;
    /// The chain it belongs to.
    const CHAIN: Chain = Chain::Host;
    /// Whether the order is asserted. Not for locks that are there to be taken in the wrong order.
    const ASSERTED: bool = true;
}

/// Locks that may be held together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Device files, contexts and address spaces, and leaves.
    Host,
    /// The TSM's. Not taken while any lock of another chain is held: what is done under them may
    /// concern a device, and nobody waits for a device with a lock.
    Tsm,
}

macro_rules! ranks {
    ($($order:literal $name:ident in $chain:ident: $doc:literal;)+) => {
        $(
            #[doc = $doc]
            #[derive(Clone, Copy, Debug)]
            pub enum $name {}

            impl Rank for $name {
                const ORDER: u8 = $order;
                const NAME: &'static str = stringify!($name);
                const CHAIN: Chain = Chain::$chain;
            }
        )+

        #[cfg(test)]
        const ORDERS: &[u8] = &[$($order),+];
    };
}

ranks! {
    4 VfioGroup in Host: "Who has a VFIO group open, and what its devices are to translate through.";
    6 Container in Host: "A VFIO container's groups and mappings, unless somebody works on them.";
    10 DeviceSet in Host: "The functions of a device file's bus that reset together.";
    20 Memory in Host: "Whether a function's memory decoding is on and its BARs are mapped.";
    30 Irq in Host: "Which eventfd hears which interrupt of a function.";
    40 IoasCreation in Host: "The list of address spaces of a context.";
    50 Ioas in Host: "One address space's list of page tables.";
    60 Group in Host: "One IOMMU group's attachments and its owner.";
    70 EventQ in Host: "One event queue.";
    80 Access in Host: "One in-kernel user of an address space.";
    90 IoptDomains in Host: "Which page tables mirror an address space's map.";
    100 IoptIova in Host: "An address space's areas, reserved and allowed spans.";
    110 Pages in Host: "One pinned range of memory.";
    120 TsmRegistry in Tsm: "The table from function to TSM connection.";
    125 Dsm in Tsm: "Who owns a device security manager's exchange slot.";
    126 TsmCare in Tsm: "When which connection is tended: a leaf of its chain.";
    127 TsmFaults in Tsm: "The faults on demand of one function: a leaf of its chain.";
    128 DeviceSecurity in Host: "Who has the turn of an emulated device's security manager.";
    130 Function in Host: "A device model's registers.";
    140 Objects in Host: "A context's table from id to object: a leaf.";
    150 Grace in Host: "Who waits for an epoch's readers: inside `Epoch` only.";
}

/// The locks of one coroutine, put aside while another runs on its thread.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    count: usize,
    locks: [Place; HELD_MAX],
    /// Reader sections of epochs entered and not left.
    epochs: u32,
}

#[derive(Clone, Copy)]
struct Place {
    order: u8,
    name: &'static str,
    chain: Chain,
}

/// Asserts that this thread may take a lock of rank `R` now. Debug builds only.
#[track_caller]
pub(crate) fn assert_may_take<R: Rank>() {
    if !cfg!(debug_assertions) || !R::ASSERTED {
        return;
    }
    let held = HELD.get();
    for lock in &held.locks[..held.count] {
        assert!(
            lock.order < R::ORDER,
            "lock order: {} ({}) asked for under {} ({})",
            R::NAME,
            R::ORDER,
            lock.name,
            lock.order
        );
        assert!(
            R::CHAIN != Chain::Tsm || lock.chain == Chain::Tsm,
            "lock order: {} of the TSM chain asked for under {}",
            R::NAME,
            lock.name
        );
    }
}

/// Notes that this thread has taken a lock of rank `R`.
pub(crate) fn taken<R: Rank>() {
    if !cfg!(debug_assertions) || !R::ASSERTED {
        return;
    }
    let mut held = HELD.get();
    assert!(held.count < HELD_MAX, "more ranks held than exist");
    held.locks[held.count] = Place { order: R::ORDER, name: R::NAME, chain: R::CHAIN };
    held.count += 1;
    HELD.set(held);
}

/// Notes that this thread has given back its lock of rank `R`.
pub(crate) fn released<R: Rank>() {
    if !cfg!(debug_assertions) || !R::ASSERTED {
        return;
    }
    let mut held = HELD.get();
    let locks = &held.locks[..held.count];
    if let Some(index) = locks.iter().position(|lock| lock.order == R::ORDER) {
        held.count -= 1;
        held.locks[index] = held.locks[held.count];
        HELD.set(held);
    }
}

/// Notes that this thread has entered an epoch as a reader.
pub(crate) fn entered_epoch() {
    if cfg!(debug_assertions) {
        let held = HELD.get();
        HELD.set(Held { epochs: held.epochs + 1, ..held });
    }
}

/// Notes that this thread has left an epoch.
pub(crate) fn left_epoch() {
    if cfg!(debug_assertions) {
        let held = HELD.get();
        HELD.set(Held { epochs: held.epochs.saturating_sub(1), ..held });
    }
}

/// Asserts that this thread is no epoch's reader: it would wait for itself. Debug builds only.
#[track_caller]
pub(crate) fn assert_outside_epochs() {
    if cfg!(debug_assertions) {
        assert!(HELD.get().epochs == 0, "a reader of an epoch waits for an epoch's readers");
    }
}

/// Empties this thread's list and returns it, where there is one.
pub(crate) fn put_aside() -> Option<Held> {
    cfg!(debug_assertions).then(|| HELD.replace(NONE))
}

/// Restores what [`put_aside`] returned.
pub(crate) fn take_up(held: Option<Held>) {
    held.into_iter().for_each(|held| HELD.set(held));
}

/// Ranks ascend strictly, so there are never more entries than ranks; some room for those that
/// other crates define.
const HELD_MAX: usize = 24;

const NONE: Held = Held {
    count: 0,
    locks: [Place { order: 0, name: "", chain: Chain::Host }; HELD_MAX],
    epochs: 0,
};

thread_local! {
    static HELD: Cell<Held> = const { Cell::new(NONE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_listed_outermost_first() {
        assert!(ORDERS.is_sorted_by(|outer, inner| outer < inner));
        assert!(ORDERS.len() <= HELD_MAX);
    }
}
