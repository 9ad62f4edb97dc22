//! Who hears which interrupt of a device, and delivery.
//!
//! A [`Router`] takes what a function signals through its [`Line`]. It finds the eventfd under the
//! `IRQ` lock and signals it after, so a signal never meets a lock. Eventfds taken out of the table are
//! let go of after the lock too, as that may close a file.
//!
//! | file | says |
//! |---|---|
//! | `irq/intx.rs` | the pin: a level that masks itself when it is heard |
//! | `irq/message.rs` | MSI and MSI-X vectors |
//! | this one | delivery, and the two interrupts that the host itself raises |
//!
//! The level of the pin is the function's own, read from its Status register under the lock whenever it
//! matters: what the function says of it arrives later. The function tells each fall before the next rise.
//!
//! Deliberately absent: what a client may ask for and when (`set_irqs.rs`), and the function's other registers
//! (`hardware.rs`).

mod intx;
mod message;

use std::sync::{Arc, Weak};

use iommufd::Signal;
use pci::regs::{header, status};
use pci::{Address, Function, Interrupt, Interrupts, Notices};
use sync::{Mutex, Named, rank};

use crate::Watching;
use crate::device::name;
use crate::facts::Config;
use intx::Intx;
use message::Vectors;
pub(crate) use message::{Armed, MessageKind, VectorRules};

/// An eventfd that hears an interrupt.
pub(crate) type Trigger = Arc<dyn Signal>;

/// The way from a function's interrupts to eventfds.
pub(crate) struct Router {
    address: Address,
    /// Weak, as a function that is connected holds its line.
    function: Weak<dyn Function>,
    notices: Arc<dyn Notices>,
    table: Mutex<rank::Irq, Table>,
}

/// What a function signals into from BIND to close. What is on its way then and arrives later is nobody's: not
/// the next client's, and not an interrupt that nobody heard.
pub(crate) struct Line {
    router: Arc<Router>,
    session: u64,
}

/// Who hears what.
#[derive(Default)]
pub(crate) struct Table {
    /// How often all was forgotten.
    session: u64,
    active: Active,
    /// The client's INTx disable.
    intx_disabled: bool,
    error: Option<Trigger>,
    request: Option<Trigger>,
    unheard: u64,
    /// Unmask eventfds registered so far. Each has its number as name, so that a callback which comes too
    /// late is told apart.
    registrations: u64,
}

/// The one kind of interrupt that is set up.
#[derive(Default)]
enum Active {
    #[default]
    None,
    Intx(Intx),
    Message(Vectors),
}

/// An interrupt that the host raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostInterrupt {
    /// The device met an error.
    Error,
    /// The host wants the device back.
    Request,
}

/// The level of the pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pin {
    Low,
    Asserted,
}

impl Pin {
    /// What the Status register says, whether or not the pin may move.
    fn of(function: &dyn Function) -> Self {
        let pending = Config(function).word(header::STATUS) & status::INTERRUPT != 0;
        if pending { Self::Asserted } else { Self::Low }
    }
}

/// What is left to do once the lock is released.
#[derive(Default)]
pub(crate) struct After {
    fire: Vec<Trigger>,
    let_go: Vec<Trigger>,
    unwatch: Option<Box<dyn Watching>>,
    unheard: Option<Interrupt>,
}

impl Router {
    pub(crate) fn new(function: &Arc<dyn Function>, notices: Arc<dyn Notices>) -> Self {
        let address = function.address();
        let function = Arc::downgrade(function);
        let table = Mutex::new(Table::default()).named("irq", || name(address));
        Self { address, function, notices, table }
    }

    /// Changes or asks the table, then does what the change left to do.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Table, &mut After) -> T) -> T {
        let mut after = After::default();
        let result = change(&mut self.table.lock(), &mut after);
        if let Some(interrupt) = after.unheard.take() {
            self.notices.interrupt_unheard(self.address, interrupt);
        }
        after.run();
        result
    }

    /// The same for a change that depends on the level of the pin, which is read under the lock.
    pub(crate) fn with_pin<T>(&self, change: impl FnOnce(&mut Table, Pin, &mut After) -> T) -> T {
        let function = self.function.upgrade();
        self.with(|table, after| {
            let pin = function.as_deref().map_or(Pin::Low, Pin::of);
            change(table, pin, after)
        })
    }

    /// The way in until the table is cleared.
    pub(crate) fn line(self: &Arc<Self>) -> Line {
        let session = self.table.lock().session;
        Line { router: Arc::clone(self), session }
    }

    fn message(&self, session: u64, kind: MessageKind, vector: u16) {
        let mut table = self.table.lock();
        if table.session != session {
            return;
        }
        let trigger = table.vector(kind, vector);
        if trigger.is_none() {
            table.unheard += 1;
        }
        drop(table);
        match trigger {
            Some(trigger) => trigger.signal(),
            None => self.notices.interrupt_unheard(self.address, kind.interrupt(vector)),
        }
    }
}

impl Interrupts for Line {
    fn msix(&self, vector: u16) {
        self.router.message(self.session, MessageKind::Msix, vector);
    }

    fn msi(&self, vector: u16) {
        self.router.message(self.session, MessageKind::Msi, vector);
    }

    fn intx(&self, asserted: bool) {
        if !asserted {
            return;
        }
        self.router.with_pin(|table, pin, after| {
            if table.session == self.session {
                table.deliver(pin, after);
            }
        });
    }
}

impl Table {
    /// Interrupts that nobody heard.
    pub(crate) fn unheard(&self) -> u64 {
        self.unheard
    }

    /// Whether no kind of interrupt but those of the host is set up.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.active, Active::None)
    }

    /// Forgets every eventfd, and what was signalled before.
    pub(crate) fn clear(&mut self, after: &mut After) {
        match std::mem::take(&mut self.active) {
            Active::None => {}
            Active::Intx(intx) => intx.let_go(after),
            Active::Message(vectors) => vectors.let_go(after),
        }
        self.session += 1;
        self.intx_disabled = false;
        after.let_go.extend(self.error.take());
        after.let_go.extend(self.request.take());
    }

    /// Sets who hears an interrupt of the host.
    pub(crate) fn set_host(
        &mut self,
        which: HostInterrupt,
        trigger: Option<Trigger>,
        after: &mut After,
    ) {
        after.let_go.extend(std::mem::replace(self.host(which), trigger));
    }

    /// Lets nobody hear an interrupt of the host; says whether anybody did.
    pub(crate) fn drop_host(&mut self, which: HostInterrupt, after: &mut After) -> bool {
        let before = self.host(which).take();
        let heard = before.is_some();
        after.let_go.extend(before);
        heard
    }

    /// Signals an interrupt of the host; says whether anybody hears it.
    pub(crate) fn fire_host(&mut self, which: HostInterrupt, after: &mut After) -> bool {
        let trigger = self.host(which).clone();
        let heard = trigger.is_some();
        after.fire.extend(trigger);
        heard
    }

    fn host(&mut self, which: HostInterrupt) -> &mut Option<Trigger> {
        match which {
            HostInterrupt::Error => &mut self.error,
            HostInterrupt::Request => &mut self.request,
        }
    }
}

impl After {
    fn run(self) {
        for trigger in &self.fire {
            trigger.signal();
        }
        drop(self);
    }
}
