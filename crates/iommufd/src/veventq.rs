//! The VEVENTQ object: what a vIOMMU tells its guest, and `IOMMU_VEVENTQ_ALLOC`.
//!
//! Every event has a number, those that find the queue full too: of them a marker at its end tells the last. A gap in
//! the numbers is what remains of a marker that a later event took the place of.
//!
//! Takes OBJECTS, a leaf. Source: [uapi/iommufd.h]; v7.3 `eventq.c`.

use std::collections::VecDeque;
use std::sync::Arc;

use sync::{Mutex, rank};
use uapi::Errno;
use uapi::iommufd::{VeventHeader, VeventqAlloc, vevent_flags, veventq_type};
use zerocopy::IntoBytes;

use crate::dispatch::Exchange;
use crate::event_file::{Bell, EventFile, Queue};
use crate::object::{Kind, Object, Pending};
use crate::registry::{Headed, Header};
use crate::viommu::Viommu;
use crate::{Caller, Context, Refusal};

/// Events of one type, of one vIOMMU.
pub(crate) struct Veventq {
    header: Header,
    /// The queue is a user of it until destroyed.
    viommu: Arc<Viommu>,
    veventq_type: u32,
    /// Events that it holds at most, markers aside.
    depth: usize,
    events: Mutex<rank::Objects, Events>,
    bell: Bell,
}

#[derive(Default)]
struct Events {
    items: VecDeque<Item>,
    /// Items that are no markers.
    held: usize,
    /// The number of the next.
    next: u32,
}

/// What a reader gets: an event, or without data the marker of those that were lost.
struct Item {
    sequence: u32,
    data: Option<Vec<u8>>,
}

/// Most events that a client may ask room for.
const DEPTH_MOST: u32 = 1 << 19;
const SEQUENCE_MASK: u32 = 0x7fff_ffff;
const HEADER_BYTES: u64 = size_of::<VeventHeader>() as u64;

/// Makes an event queue, and opens its file: `IOMMU_VEVENTQ_ALLOC`. Whether the vIOMMU has events of the type is not
/// asked.
///
/// # Errors
/// There is neither then. In this order:
/// - [`Refusal::UnknownFlags`], [`Refusal::ReservedField`], [`Refusal::Unsupported`] (`EOPNOTSUPP`): type 0.
/// - [`Refusal::QueueDepth`] (`EINVAL`)
/// - [`Refusal::NoObject`] (`ENOENT`): the vIOMMU.
/// - [`Refusal::OutOfIds`], [`Refusal::Exhausted`] (`ENOMEM`)
/// - [`Refusal::VeventqExists`] (`EEXIST`)
/// - [`Refusal::Unreachable`] (`EFAULT`), [`Refusal::NoDescriptor`] (`EMFILE`)
pub(crate) fn alloc(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let mut argument: VeventqAlloc = exchange.argument();
    exchange.refuse_flags(argument.flags, 0)?;
    exchange.refuse_reserved(argument.reserved)?;
    if argument.r#type == veventq_type::DEFAULT {
        return Err(Refusal::Unsupported { feature: "events of that type" });
    }
    let depth = argument.veventq_depth;
    if !(1..=DEPTH_MOST).contains(&depth) {
        return Err(Refusal::QueueDepth { depth });
    }
    let pending = {
        let viommu = ctx.get::<Viommu>(argument.viommu_id)?;
        let queue = |header| Veventq::new(header, &viommu, argument.r#type, depth);
        Pending::build(ctx, |header| Ok(queue(header)))?
    };
    pending.viommu.take_queue(pending.veventq_type, &pending)?;
    argument.out_veventq_id = pending.header().id();
    let file = EventFile::new(ctx, Queue::Vevents(Arc::clone(&pending)));
    file.give(exchange.caller(), |fd| {
        argument.out_veventq_fd = fd;
        exchange.rewrite(&argument)
    })?;
    pending.publish();
    Ok(())
}

impl Veventq {
    fn new(header: Header, viommu: &Arc<Viommu>, veventq_type: u32, depth: u32) -> Self {
        viommu.header().add_user();
        Self {
            header,
            viommu: Arc::clone(viommu),
            veventq_type,
            depth: depth as usize,
            events: Mutex::new(Events::default()),
            bell: Bell::default(),
        }
    }

    /// Takes an event in, or notes that it was lost.
    pub(crate) fn report(&self, data: &[u8]) {
        self.events.lock().push(self.depth, data);
        self.bell.ring();
    }

    pub(crate) fn read(&self, caller: &dyn Caller, at: u64, count: u64) -> Result<u64, Errno> {
        if count < HEADER_BYTES {
            return Err(Errno::EINVAL);
        }
        let mut done = 0;
        loop {
            let item = match self.events.lock().take(count - done) {
                Take::Nothing => return Ok(done),
                Take::NoRoom if done > 0 => return Ok(done),
                Take::NoRoom => return Err(Errno::EINVAL),
                Take::Item(item) => item,
            };
            let bytes = item.bytes();
            if caller.write(at.wrapping_add(done), &bytes).is_err() {
                self.events.lock().put_back(item);
                return if done > 0 { Ok(done) } else { Err(Errno::EFAULT) };
            }
            done += bytes.len() as u64;
        }
    }

    pub(crate) fn is_readable(&self) -> bool {
        !self.events.lock().items.is_empty()
    }

    pub(crate) const fn bell(&self) -> &Bell {
        &self.bell
    }
}

/// What a reader gets next.
enum Take {
    Nothing,
    NoRoom,
    Item(Item),
}

impl Events {
    fn push(&mut self, depth: usize, data: &[u8]) {
        let sequence = self.next;
        self.next = sequence.wrapping_add(1) & SEQUENCE_MASK;
        self.items.pop_back_if(|last| last.data.is_none());
        let data = (self.held < depth).then(|| data.to_vec());
        self.held += usize::from(data.is_some());
        self.items.push_back(Item { sequence, data });
    }

    fn take(&mut self, room: u64) -> Take {
        let Some(first) = self.items.front() else { return Take::Nothing };
        if first.length() > room {
            return Take::NoRoom;
        }
        let Some(item) = self.items.pop_front() else { return Take::Nothing };
        self.held -= usize::from(item.data.is_some());
        Take::Item(item)
    }

    /// Lets an item that could not be told be the next again; not a marker with something behind it.
    fn put_back(&mut self, item: Item) {
        if item.data.is_some() || self.items.is_empty() {
            self.held += usize::from(item.data.is_some());
            self.items.push_front(item);
        }
    }
}

impl Item {
    fn length(&self) -> u64 {
        HEADER_BYTES + self.data.as_ref().map_or(0, |data| data.len() as u64)
    }

    fn bytes(&self) -> Vec<u8> {
        let flags = if self.data.is_none() { vevent_flags::LOST_EVENTS } else { 0 };
        let header = VeventHeader { flags, sequence: self.sequence };
        let data = self.data.as_deref().unwrap_or_default();
        [header.as_bytes(), data].concat()
    }
}

impl Headed for Veventq {
    fn header(&self) -> &Header {
        &self.header
    }
}

impl Kind for Veventq {
    const NAME: &'static str = "veventq";

    fn wrap(this: Arc<Self>) -> Object {
        Object::Veventq(this)
    }

    fn pick(object: &Object) -> Option<Arc<Self>> {
        if let Object::Veventq(vevents) = object { Some(Arc::clone(vevents)) } else { None }
    }

    /// Leaves the vIOMMU, which then can have another of the type.
    fn destroy(&self, _: &Context) {
        self.viommu.free_queue(self.veventq_type, self);
        self.viommu.header().drop_user();
        self.header.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sequence numbers of all items, those of markers negative.
    fn told(events: &mut Events) -> Vec<i64> {
        let items = std::iter::from_fn(|| match events.take(u64::MAX) {
            Take::Item(item) => Some(item),
            Take::Nothing | Take::NoRoom => None,
        });
        let number = |item: Item| {
            let sequence = i64::from(item.sequence);
            if item.data.is_some() { sequence } else { -sequence }
        };
        items.map(number).collect()
    }

    #[test]
    fn what_does_not_fit_is_told_by_one_marker() {
        let mut events = Events::default();
        (0..4).for_each(|_| events.push(2, &[1]));
        assert_eq!(told(&mut events), [0, 1, -3]);
        events.push(2, &[1]);
        assert_eq!(told(&mut events), [4]);
    }

    #[test]
    fn a_marker_at_the_end_goes_with_the_next_event() {
        let mut events = Events::default();
        (0..3).for_each(|_| events.push(1, &[1]));
        assert!(matches!(events.take(u64::MAX), Take::Item(Item { sequence: 0, .. })));
        events.push(1, &[1]);
        assert_eq!(told(&mut events), [3]);
    }

    #[test]
    fn what_could_not_be_told_comes_again_but_for_a_marker_before_others() {
        let mut events = Events::default();
        events.push(1, &[1]);
        let Take::Item(item) = events.take(9) else { panic!("an event") };
        events.put_back(item);
        assert!(matches!(events.take(8), Take::NoRoom));
        events.put_back(Item { sequence: 9, data: None });
        assert_eq!(told(&mut events), [0]);
    }
}
