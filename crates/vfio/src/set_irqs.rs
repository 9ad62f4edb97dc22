//! SET_IRQS: sets up, masks and fires interrupts.
//!
//! In three steps: the argument is checked and copied; eventfds are imported, with no lock held; the rules of
//! the interrupt kind are applied. Whoever sets interrupts up owns the device's turn, so that the table and
//! the function's registers agree; the table itself is changed under `IRQ`. Source: [uapi/vfio.h].

use std::sync::Arc;

use iommufd::Resource;
use uapi::vfio::{IrqSet, irq_index, irq_set};

use crate::argument::Argument;
use crate::command::Bound;
use crate::hardware::{self, DecodeAfter};
use crate::irq::{HostInterrupt, MessageKind, Router, Table, Trigger, VectorRules};
use crate::{Device, Refusal, Watch};

/// `VFIO_DEVICE_SET_IRQS`. Returns 0, or how many vectors there are if more were asked for (then nothing is set
/// up).
///
/// # Errors
/// In this order:
/// - [`Refusal::Unreachable`], [`Refusal::Argsz`], [`Refusal::NoSuchInterrupt`], [`Refusal::Flags`],
///   [`Refusal::VectorRange`] – the argument (`EFAULT`, `EINVAL`).
/// - [`Refusal::Iommufd`] – no memory for the data (`ENOMEM`); [`Refusal::Unreachable`] – the data (`EFAULT`).
/// - [`Refusal::InterruptAction`] – not exactly one action, or one that the kind does not take (`ENOTTY`).
/// - [`Refusal::InterruptState`], [`Refusal::VectorFixed`] (`EINVAL`), [`Refusal::VectorsExhausted`] (`ENOSPC`),
///   [`Refusal::NoVectors`] (`ERANGE`), [`Refusal::AlreadyWatched`] (`EBUSY`).
/// - [`Refusal::Iommufd`] – no memory for a vector (`ENOMEM`).
/// - [`Refusal::ClosedFd`], [`Refusal::NotEventfd`] – an eventfd (`EBADF`, `EINVAL`).
pub(crate) fn set_irqs(bound: &Bound<'_>, argument: &Argument<'_>) -> Result<u32, Refusal> {
    let asked: IrqSet = argument.read(size_of::<IrqSet>())?;
    let present = check(bound.device, &asked)?;
    let request = Request {
        device: bound.device,
        index: asked.index,
        flags: asked.flags,
        start: asked.start,
        count: asked.count,
        present,
        data: Data::copy(&asked, bound, argument)?,
    };
    match (asked.index, asked.flags & irq_set::ACTION_TYPE_MASK) {
        (irq_index::INTX, irq_set::ACTION_TRIGGER) => request.trigger_intx(),
        (irq_index::INTX, irq_set::ACTION_MASK) => request.mask_intx(),
        (irq_index::INTX, irq_set::ACTION_UNMASK) => request.unmask_intx(),
        (irq_index::MSI, irq_set::ACTION_TRIGGER) => request.trigger_messages(MessageKind::Msi),
        (irq_index::MSIX, irq_set::ACTION_TRIGGER) => request.trigger_messages(MessageKind::Msix),
        (irq_index::ERR, irq_set::ACTION_TRIGGER) => request.trigger_host(HostInterrupt::Error),
        (irq_index::REQ, irq_set::ACTION_TRIGGER) => request.trigger_host(HostInterrupt::Request),
        _ => Err(request.no_action()),
    }
}

/// Checks the range and the kind of data; returns how many vectors there are.
fn check(device: &Device, asked: &IrqSet) -> Result<u32, Refusal> {
    let IrqSet { index, start, count, flags, .. } = *asked;
    let present = device.vector_count(index)?;
    let range = Refusal::VectorRange { index, start, count, present };
    let known = irq_set::DATA_TYPE_MASK | irq_set::ACTION_TYPE_MASK;
    if flags & !known != 0 {
        return Err(Refusal::Flags { flags });
    }
    if start >= present || start.checked_add(count).is_none_or(|end| end > present) {
        return Err(range);
    }
    let size = match flags & irq_set::DATA_TYPE_MASK {
        irq_set::DATA_NONE => 0,
        irq_set::DATA_BOOL => size_of::<u8>(),
        irq_set::DATA_EVENTFD => size_of::<i32>(),
        _ => return Err(Refusal::Flags { flags }),
    };
    let least = size_of::<IrqSet>() as u64 + u64::from(count) * size as u64;
    if u64::from(asked.argsz) < least {
        let least = u32::try_from(least).unwrap_or(u32::MAX);
        return Err(Refusal::Argsz { given: asked.argsz, least });
    }
    Ok(present)
}

/// What came after the struct, one item a vector.
enum Data {
    None,
    Bools(Vec<bool>),
    Eventfds(Vec<Eventfd>),
}

/// A descriptor and what it leads to.
struct Eventfd {
    fd: i32,
    /// `None` for a negative descriptor.
    trigger: Result<Option<Trigger>, Refusal>,
}

impl Data {
    /// Copies the data and imports its eventfds, up to the first that does not serve: none after that is ever
    /// looked at.
    fn copy(asked: &IrqSet, bound: &Bound<'_>, argument: &Argument<'_>) -> Result<Self, Refusal> {
        let count = asked.count as usize;
        let at = size_of::<IrqSet>();
        let copies = asked.flags & irq_set::DATA_NONE == 0 && count > 0;
        if copies {
            bound.admit(Resource::Buffer)?;
        }
        match asked.flags & irq_set::DATA_TYPE_MASK {
            irq_set::DATA_BOOL => {
                let mut bytes = vec![0; count];
                argument.read_at(at, &mut bytes)?;
                Ok(Self::Bools(bytes.into_iter().map(|byte| byte != 0).collect()))
            }
            irq_set::DATA_EVENTFD => {
                let mut bytes = vec![0; count * size_of::<i32>()];
                argument.read_at(at, &mut bytes)?;
                let mut eventfds = Vec::with_capacity(count);
                for fd in bytes.as_chunks().0.iter().copied().map(i32::from_le_bytes) {
                    let trigger = import(asked, bound, argument, fd);
                    let failed = trigger.is_err();
                    eventfds.push(Eventfd { fd, trigger });
                    if failed {
                        break;
                    }
                }
                Ok(Self::Eventfds(eventfds))
            }
            _ => Ok(Self::None),
        }
    }
}

fn import(
    asked: &IrqSet,
    bound: &Bound<'_>,
    argument: &Argument<'_>,
    fd: i32,
) -> Result<Option<Trigger>, Refusal> {
    if fd < 0 {
        return Ok(None);
    }
    match (asked.index, asked.flags & irq_set::ACTION_TYPE_MASK) {
        // The host's own are there already.
        (irq_index::ERR | irq_index::REQ, _) => {}
        (_, irq_set::ACTION_UNMASK) => bound.admit(Resource::Watch)?,
        _ => bound.admit(Resource::Interrupt)?,
    }
    argument.caller.eventfd(fd).map(Some).map_err(|fault| Refusal::of_eventfd(fd, fault))
}

/// A request that passed the checks common to all kinds.
struct Request<'a> {
    device: &'a Arc<Device>,
    index: u32,
    flags: u32,
    start: u32,
    count: u32,
    present: u32,
    data: Data,
}

impl Request<'_> {
    fn no_action(&self) -> Refusal {
        Refusal::InterruptAction { index: self.index, flags: self.flags }
    }

    fn wrong_state(&self) -> Refusal {
        Refusal::InterruptState { index: self.index }
    }

    fn is_disable(&self) -> bool {
        self.count == 0 && matches!(self.data, Data::None)
    }

    /// # Errors
    /// [`Refusal::VectorRange`] – not exactly the one there is (`EINVAL`).
    fn check_single(&self) -> Result<(), Refusal> {
        if self.start == 0 && self.count == 1 {
            return Ok(());
        }
        let &Self { index, start, count, present, .. } = self;
        Err(Refusal::VectorRange { index, start, count, present })
    }

    fn trigger_intx(self) -> Result<u32, Refusal> {
        let _turn = self.device.take_turn();
        let irqs = self.device.irqs();
        if self.is_disable() && irqs.with(|table, after| table.disable_intx(after)) {
            return Ok(0);
        }
        let (is_set_up, is_idle) = irqs.with(|table, _| (table.has_intx(), table.is_idle()));
        if !is_set_up && !is_idle {
            return Err(self.wrong_state());
        }
        self.check_single()?;
        match self.data {
            Data::Eventfds(eventfds) => {
                let trigger = single(eventfds)?;
                irqs.with_pin(|table, pin, after| match is_set_up {
                    true => table.swap_intx(trigger, after),
                    false => table.enable_intx(trigger, pin, after),
                });
            }
            Data::None | Data::Bools(_) if !is_set_up => {
                return Err(Refusal::InterruptState { index: self.index });
            }
            Data::Bools(bools) if bools == [false] => {}
            Data::None | Data::Bools(_) => irqs.with(|table, after| table.fire_intx(after)),
        }
        Ok(0)
    }

    fn mask_intx(self) -> Result<u32, Refusal> {
        self.check_intx()?;
        match &self.data {
            Data::Eventfds(_) => return Err(self.no_action()),
            Data::Bools(bools) if bools == &[false] => {}
            Data::None | Data::Bools(_) => self.device.irqs().with(|table, _| table.mask_intx()),
        }
        Ok(0)
    }

    fn unmask_intx(self) -> Result<u32, Refusal> {
        self.check_intx()?;
        let irqs = self.device.irqs();
        match self.data {
            Data::Eventfds(_) if self.device.settings().watch.is_none() => {
                return Err(self.no_action());
            }
            Data::Eventfds(eventfds) => {
                let watch = self.device.settings().watch.as_ref();
                match (single(eventfds)?, watch) {
                    (Some(signal), Some(watch)) => register_unmask(irqs, signal, &**watch)?,
                    _ => irqs.with(|table, after| table.drop_unmask(after)),
                }
            }
            Data::Bools(bools) if bools == [false] => {}
            Data::None | Data::Bools(_) => irqs.with_pin(Table::unmask_intx),
        }
        Ok(0)
    }

    /// # Errors
    /// [`Refusal::InterruptState`] – the pin is not set up; [`Refusal::VectorRange`] (both `EINVAL`).
    fn check_intx(&self) -> Result<(), Refusal> {
        if !self.device.irqs().with(|table, _| table.has_intx()) {
            return Err(self.wrong_state());
        }
        self.check_single()
    }

    fn trigger_messages(self, kind: MessageKind) -> Result<u32, Refusal> {
        let _turn = self.device.take_turn();
        let irqs = self.device.irqs();
        let (now, is_idle) = irqs.with(|table, _| (table.message_kind(), table.is_idle()));
        let is_active = now == Some(kind);
        if is_active && self.is_disable() {
            self.device.disable_messages(kind);
            return Ok(0);
        }
        if !is_active && !is_idle {
            return Err(self.wrong_state());
        }
        match self.data {
            Data::Eventfds(_) if is_active => self.set_vectors(kind).map(|()| 0),
            Data::Eventfds(_) => self.enable_messages(kind),
            Data::None | Data::Bools(_) if !is_active => Err(self.wrong_state()),
            Data::None | Data::Bools(_) => {
                self.fire_vectors();
                Ok(0)
            }
        }
    }

    /// Allocates vectors `0..start + count` and sets those named; all or nothing.
    fn enable_messages(self, kind: MessageKind) -> Result<u32, Refusal> {
        let wanted = self.start + self.count;
        let limit = u32::from(self.device.settings().vector_limit);
        if wanted == 0 {
            return Err(Refusal::NoVectors);
        }
        if limit == 0 {
            return Err(Refusal::VectorsExhausted { vector: 0 });
        }
        if wanted > limit {
            return Ok(limit);
        }
        let device = self.device;
        let count = u16::try_from(wanted).map_err(|_| Refusal::NoVectors)?;
        device.irqs().with(|table, _| table.enable_messages(kind, count));
        if let Err(refusal) = self.apply_vectors(kind) {
            device.irqs().with(|table, after| table.disable_messages(after));
            return Err(refusal);
        }
        if kind == MessageKind::Msi {
            device.note_msi(Some(hardware::msi_count_lg2(usize::from(count))));
        }
        if let Some(armed) = device.irqs().with(|table, _| table.armed()) {
            device.with_decode_rule(|after| {
                hardware::enable_messages(device.function(), device.facts(), &armed, after);
            });
        }
        Ok(0)
    }

    /// Changes vectors that are set up, or adds some.
    fn set_vectors(self, kind: MessageKind) -> Result<(), Refusal> {
        let (device, count) = (self.device, self.count as usize);
        let first = u16::try_from(self.start).map_err(|_| Refusal::NoVectors)?;
        let result = self.apply_vectors(kind);
        let armed = device.irqs().with(|table, _| table.armed_among(first, count));
        if let Some(armed) = armed {
            device.with_decode_rule(|after| {
                hardware::update_messages(device.function(), device.facts(), &armed, after);
            });
        }
        result
    }

    fn apply_vectors(self, kind: MessageKind) -> Result<(), Refusal> {
        let Data::Eventfds(eventfds) = self.data else { return Ok(()) };
        let first = u16::try_from(self.start).map_err(|_| Refusal::NoVectors)?;
        let triggers = eventfds.into_iter().map(|eventfd| eventfd.trigger).collect();
        let settings = self.device.settings();
        let grows = kind == MessageKind::Msix && settings.dynamic_msix;
        let rules = VectorRules { grows, limit: settings.vector_limit };
        self.device.irqs().with(|table, after| table.set_vectors(first, triggers, rules, after))
    }

    fn fire_vectors(&self) {
        let range = self.start..self.start + self.count;
        let chosen = |offset: usize| match &self.data {
            Data::Bools(bools) => bools.get(offset).copied().unwrap_or(false),
            Data::None | Data::Eventfds(_) => true,
        };
        self.device.irqs().with(|table, after| {
            for (offset, vector) in range.enumerate() {
                if let (true, Ok(vector)) = (chosen(offset), u16::try_from(vector)) {
                    table.fire_vector(vector, after);
                }
            }
        });
    }

    fn trigger_host(self, which: HostInterrupt) -> Result<u32, Refusal> {
        let &Self { index, start, count, present, .. } = &self;
        let range = Refusal::VectorRange { index, start, count, present };
        if start != 0 || count > 1 {
            return Err(range);
        }
        let irqs = self.device.irqs();
        match self.data {
            Data::None if count == 0 => {
                let heard = irqs.with(|table, after| table.drop_host(which, after));
                if heard { Ok(0) } else { Err(Refusal::InterruptState { index }) }
            }
            Data::None => {
                let heard = irqs.with(|table, after| table.fire_host(which, after));
                if heard { Ok(0) } else { Err(Refusal::InterruptState { index }) }
            }
            Data::Bools(_) | Data::Eventfds(_) if count == 0 => Err(range),
            Data::Bools(bools) => {
                if bools == [true] {
                    irqs.with(|table, after| table.fire_host(which, after));
                }
                Ok(0)
            }
            Data::Eventfds(eventfds) => {
                if let [Eventfd { fd: ..-1, .. }] = eventfds.as_slice() {
                    return Err(Refusal::NegativeFd { fd: eventfds[0].fd });
                }
                let trigger = single(eventfds)?;
                irqs.with(|table, after| table.set_host(which, trigger, after));
                Ok(0)
            }
        }
    }
}

/// The one eventfd of a request for one vector.
fn single(eventfds: Vec<Eventfd>) -> Result<Option<Trigger>, Refusal> {
    eventfds.into_iter().next().map_or(Ok(None), |eventfd| eventfd.trigger)
}

/// Has an eventfd watched that unmasks the pin.
fn register_unmask(irqs: &Arc<Router>, signal: Trigger, watch: &dyn Watch) -> Result<(), Refusal> {
    let name = irqs.with(|table, _| table.reserve_unmask())?;
    let router = Arc::downgrade(irqs);
    let unmask = move || {
        if let Some(router) = router.upgrade() {
            router.with_pin(|table, pin, after| table.unmask_requested(name, pin, after));
        }
    };
    let watching = watch.watch(signal, Box::new(unmask)).ok();
    let failed = watching.is_none();
    irqs.with(|table, after| table.publish_unmask(name, watching, after));
    if failed { Err(Refusal::OutOfMemory) } else { Ok(()) }
}

impl Device {
    /// Runs what may turn memory decoding on, with the rule for turning it off again: not where a TDI is bound, and
    /// meanwhile none is (`EBUSY`). The caller owns the turn.
    fn with_decode_rule(&self, reach: impl FnOnce(DecodeAfter)) {
        let holder = self.holder();
        let guard = match &holder {
            Some(iommufd) if !hardware::decodes_memory(self.function()) => {
                Some(iommufd.begin_reset())
            }
            Some(_) | None => None,
        };
        let keeps_on = matches!(guard, Some(Err(_)));
        reach(if keeps_on { DecodeAfter::LeftOn } else { DecodeAfter::AsBefore });
    }

    /// Ends the set-up of messages. The caller owns the turn.
    fn disable_messages(&self, kind: MessageKind) {
        hardware::disable_messages(self.function(), self.facts(), kind);
        self.irqs().with(|table, after| table.disable_messages(after));
        if kind == MessageKind::Msi {
            self.note_msi(None);
        }
    }

    /// Tells virtual config space how far MSI is set up.
    fn note_msi(&self, count_lg2: Option<u16>) {
        if let Some(config) = self.memory().lock().config.as_mut() {
            config.set_msi(count_lg2);
        }
    }
}
