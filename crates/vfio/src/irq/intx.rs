//! The interrupt pin.
//!
//! A level: it is heard once, masks itself, and is heard again when unmasked while still asserted. While
//! the client has INTx disabled it is not heard and cannot be unmasked. The function's own disable bit is
//! left clear, so that the level stays known.
//!
//! Everything here runs under the `IRQ` lock and leaves signals to [`After`].

use pci::Interrupt;

use super::{Active, After, Pin, Table, Trigger};
use crate::{Refusal, Watching};

/// The pin, once it is set up.
pub(super) struct Intx {
    trigger: Option<Trigger>,
    masked: bool,
    unmask: Unmask,
}

/// Whether an eventfd unmasks the pin.
enum Unmask {
    /// None does.
    Absent,
    /// One is being handed to the watcher.
    Registering(u64),
    /// One does.
    Watched(u64, Box<dyn Watching>),
}

impl Table {
    /// Whether the pin is set up.
    pub(crate) fn has_intx(&self) -> bool {
        matches!(self.active, Active::Intx(_))
    }

    /// Sets the pin up, heard by `trigger`. Nothing else is set up.
    pub(crate) fn enable_intx(&mut self, trigger: Option<Trigger>, pin: Pin, after: &mut After) {
        assert!(self.is_idle(), "one kind of interrupt at a time");
        self.active =
            Active::Intx(Intx { trigger, masked: self.intx_disabled, unmask: Unmask::Absent });
        self.deliver(pin, after);
    }

    /// Changes who hears the pin.
    pub(crate) fn swap_intx(&mut self, trigger: Option<Trigger>, after: &mut After) {
        if let Some(intx) = self.intx() {
            after.let_go.extend(std::mem::replace(&mut intx.trigger, trigger));
        }
    }

    /// Ends the pin's set-up; says whether there was one.
    pub(crate) fn disable_intx(&mut self, after: &mut After) -> bool {
        if !self.has_intx() {
            return false;
        }
        if let Active::Intx(intx) = std::mem::take(&mut self.active) {
            intx.let_go(after);
        }
        true
    }

    /// Signals the eventfd as if the pin had been heard.
    pub(crate) fn fire_intx(&mut self, after: &mut After) {
        if let Some(intx) = self.intx() {
            after.fire.extend(intx.trigger.clone());
        }
    }

    /// Masks the pin.
    pub(crate) fn mask_intx(&mut self) {
        if let Some(intx) = self.intx() {
            intx.masked = true;
        }
    }

    /// Unmasks the pin. If it is still asserted it is heard again instead and stays masked.
    pub(crate) fn unmask_intx(&mut self, pin: Pin, after: &mut After) {
        let disabled = self.intx_disabled;
        let Some(intx) = self.intx() else { return };
        if !intx.masked || disabled {
            return;
        }
        intx.masked = pin == Pin::Asserted;
        if intx.masked {
            after.fire.extend(intx.trigger.clone());
        }
    }

    /// Takes the client's INTx disable bit.
    pub(crate) fn set_intx_disabled(&mut self, disabled: bool, pin: Pin, after: &mut After) {
        self.intx_disabled = disabled;
        if disabled {
            self.mask_intx();
        } else {
            self.unmask_intx(pin, after);
        }
    }

    /// Reserves the place of the unmask eventfd and returns the registration's name.
    ///
    /// # Errors
    /// - [`Refusal::InterruptState`] – the pin is not set up (`EINVAL`).
    /// - [`Refusal::AlreadyWatched`] – one is registered (`EBUSY`).
    pub(crate) fn reserve_unmask(&mut self) -> Result<u64, Refusal> {
        let not_set_up = Refusal::InterruptState { index: uapi::vfio::irq_index::INTX };
        let name = self.registrations + 1;
        let intx = self.intx().ok_or(not_set_up)?;
        match intx.unmask {
            Unmask::Absent => {
                intx.unmask = Unmask::Registering(name);
                self.registrations = name;
                Ok(name)
            }
            Unmask::Registering(_) | Unmask::Watched(..) => Err(Refusal::AlreadyWatched),
        }
    }

    /// Ends a reservation: with a watch, or with none because the watcher refused.
    pub(crate) fn publish_unmask(
        &mut self,
        name: u64,
        watching: Option<Box<dyn Watching>>,
        after: &mut After,
    ) {
        match self.intx() {
            Some(intx) if matches!(intx.unmask, Unmask::Registering(known) if known == name) => {
                intx.unmask = watching.map_or(Unmask::Absent, |w| Unmask::Watched(name, w));
            }
            Some(_) | None => after.unwatch = watching,
        }
    }

    /// Removes the unmask eventfd.
    pub(crate) fn drop_unmask(&mut self, after: &mut After) {
        if let Some(intx) = self.intx() {
            intx.drop_unmask(after);
        }
    }

    /// The unmask eventfd of this registration was signalled.
    pub(crate) fn unmask_requested(&mut self, name: u64, pin: Pin, after: &mut After) {
        let current = self.intx().is_some_and(|intx| match intx.unmask {
            Unmask::Registering(known) | Unmask::Watched(known, _) => known == name,
            Unmask::Absent => false,
        });
        if current {
            self.unmask_intx(pin, after);
        }
    }

    /// Lets the pin be heard if it is asserted and may be.
    pub(super) fn deliver(&mut self, pin: Pin, after: &mut After) {
        if pin == Pin::Low || self.intx_disabled {
            return;
        }
        let heard = match &mut self.active {
            Active::Intx(intx) if intx.masked => return,
            Active::Intx(intx) => {
                intx.masked = true;
                after.fire.extend(intx.trigger.clone());
                intx.trigger.is_some()
            }
            Active::None | Active::Message(_) => false,
        };
        if !heard {
            self.unheard += 1;
            after.unheard = Some(Interrupt::Intx);
        }
    }

    fn intx(&mut self) -> Option<&mut Intx> {
        match &mut self.active {
            Active::Intx(intx) => Some(intx),
            Active::None | Active::Message(_) => None,
        }
    }
}

impl Intx {
    pub(super) fn let_go(mut self, after: &mut After) {
        self.drop_unmask(after);
        after.let_go.extend(self.trigger);
    }

    fn drop_unmask(&mut self, after: &mut After) {
        if let Unmask::Watched(_, watching) = std::mem::replace(&mut self.unmask, Unmask::Absent) {
            after.unwatch = Some(watching);
        }
    }
}
