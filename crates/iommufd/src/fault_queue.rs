//! The FAULT object: page faults of devices that a client answers, and `IOMMU_FAULT_QUEUE_ALLOC`.
//!
//! A fault waits in the order of arrival until it is read; then it has a cookie, by which the client answers it. When a
//! device leaves the page table that it faulted on, its faults are answered for the client. Each fault is a group of its
//! own here: no device model sends several that belong together.
//!
//! Takes OBJECTS, a leaf. Source: [uapi/iommufd.h]; v7.3 `eventq.c`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sync::{Mutex, rank};
use uapi::Errno;
use uapi::iommufd::{FaultAlloc, HwptPageResponse, HwptPgfault, page_response};
use zerocopy::{FromZeros, IntoBytes};

use crate::dispatch::Exchange;
use crate::event_file::{Bell, EventFile, Queue};
use crate::object::{Kind, Object, Pending};
use crate::registry::{Headed, Header};
use crate::{Caller, Context, Refusal, Resource};

/// Page faults on their way to a client, and those that it has yet to answer.
pub(crate) struct FaultQueue {
    header: Header,
    faults: Mutex<rank::Objects, Faults>,
    bell: Bell,
}

#[derive(Default)]
struct Faults {
    /// Not read yet.
    waiting: VecDeque<HwptPgfault>,
    /// Read, by their cookies.
    read: BTreeMap<u32, HwptPgfault>,
}

const RECORD_BYTES: u64 = size_of::<HwptPgfault>() as u64;
const ANSWER_BYTES: u64 = size_of::<HwptPageResponse>() as u64;
const FIRST_COOKIE: u32 = 1;

/// Makes a fault queue, and opens its file: `IOMMU_FAULT_QUEUE_ALLOC`.
///
/// # Errors
/// There is neither then. In this order:
/// - [`Refusal::UnknownFlags`] (`EOPNOTSUPP`): any flag.
/// - [`Refusal::OutOfIds`], [`Refusal::Exhausted`] (`ENOMEM`)
/// - [`Refusal::Unreachable`] (`EFAULT`), [`Refusal::NoDescriptor`] (`EMFILE`)
pub(crate) fn alloc(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let mut argument: FaultAlloc = exchange.argument();
    exchange.refuse_flags(argument.flags, 0)?;
    let pending = Pending::build(ctx, |header| {
        Ok(FaultQueue { header, faults: Mutex::new(Faults::default()), bell: Bell::default() })
    })?;
    argument.out_fault_id = pending.header().id();
    let file = EventFile::new(ctx, Queue::Faults(Arc::clone(&pending)));
    file.give(exchange.caller(), |fd| {
        argument.out_fault_fd = fd;
        exchange.rewrite(&argument)
    })?;
    pending.publish();
    Ok(())
}

impl FaultQueue {
    /// Takes a fault in; one too many is dropped.
    pub(crate) fn report(&self, ctx: &Context, fault: HwptPgfault) {
        {
            let mut faults = self.faults.lock();
            let held = faults.waiting.len() + faults.read.len() + 1;
            if ctx.quota().admit(Resource::Event, held as u64).is_err() {
                return;
            }
            faults.waiting.push_back(fault);
        }
        self.bell.ring();
    }

    /// Forgets the faults of a device that left. Called with locks held: the bell is not rung.
    pub(crate) fn forget(&self, device: u32) {
        let mut faults = self.faults.lock();
        faults.waiting.retain(|fault| fault.dev_id != device);
        faults.read.retain(|_, fault| fault.dev_id != device);
    }

    pub(crate) fn read(&self, caller: &dyn Caller, at: u64, count: u64) -> Result<u64, Errno> {
        if !count.is_multiple_of(RECORD_BYTES) {
            return Err(Errno::ESPIPE);
        }
        let mut done = 0;
        loop {
            let room = count - done;
            let fault = match self.faults.lock().take(room) {
                Take::Nothing => return Ok(done),
                Take::NoRoom if done > 0 => return Ok(done),
                Take::NoRoom => return Err(Errno::EINVAL),
                Take::Fault(fault) => fault,
            };
            if caller.write(at.wrapping_add(done), fault.as_bytes()).is_err() {
                self.faults.lock().put_back(fault.cookie);
                return if done > 0 { Ok(done) } else { Err(Errno::EFAULT) };
            }
            done += RECORD_BYTES;
        }
    }

    pub(crate) fn answer(&self, caller: &dyn Caller, at: u64, count: u64) -> Result<u64, Errno> {
        if !count.is_multiple_of(ANSWER_BYTES) {
            return Err(Errno::ESPIPE);
        }
        let mut done = 0;
        while done < count {
            match self.answer_one(caller, at.wrapping_add(done)) {
                Ok(()) => done += ANSWER_BYTES,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn answer_one(&self, caller: &dyn Caller, at: u64) -> Result<(), Errno> {
        let mut answer = HwptPageResponse::new_zeroed();
        caller.read(at, answer.as_mut_bytes()).map_err(|_| Errno::EFAULT)?;
        if ![page_response::SUCCESS, page_response::INVALID].contains(&answer.code) {
            return Err(Errno::EINVAL);
        }
        let answered = self.faults.lock().read.remove(&answer.cookie);
        answered.map(drop).ok_or(Errno::EINVAL)
    }

    pub(crate) fn is_readable(&self) -> bool {
        !self.faults.lock().waiting.is_empty()
    }

    pub(crate) const fn bell(&self) -> &Bell {
        &self.bell
    }
}

/// What a reader gets next.
enum Take {
    Nothing,
    NoRoom,
    Fault(HwptPgfault),
}

impl Faults {
    fn take(&mut self, room: u64) -> Take {
        if self.waiting.is_empty() {
            return Take::Nothing;
        }
        if room < RECORD_BYTES {
            return Take::NoRoom;
        }
        let Some(mut fault) = self.waiting.pop_front() else { return Take::Nothing };
        fault.cookie = self.free_cookie();
        self.read.insert(fault.cookie, fault);
        Take::Fault(fault)
    }

    /// The lowest cookie that no fault has.
    fn free_cookie(&self) -> u32 {
        let mut taken = self.read.keys().copied();
        (FIRST_COOKIE..).find(|cookie| taken.next() != Some(*cookie)).unwrap_or(u32::MAX)
    }

    /// Lets a fault that could not be told be the next again.
    fn put_back(&mut self, cookie: u32) {
        if let Some(fault) = self.read.remove(&cookie) {
            self.waiting.push_front(fault);
        }
    }
}

impl Headed for FaultQueue {
    fn header(&self) -> &Header {
        &self.header
    }
}

impl Kind for FaultQueue {
    const NAME: &'static str = "fault";

    fn wrap(this: Arc<Self>) -> Object {
        Object::Fault(this)
    }

    fn pick(object: &Object) -> Option<Arc<Self>> {
        if let Object::Fault(faults) = object { Some(Arc::clone(faults)) } else { None }
    }

    fn destroy(&self, _: &Context) {
        self.header.end();
    }
}
