//! One function as vfio-pci drives it: what outlives its open files.
//!
//! Owns the function, the table of interrupts, and under the `MEMORY` lock what a bound file changes:
//! virtual config space, power, low power. Who is bound stands in the [`DeviceSet`]. What is done to
//! the hardware stands in `enable.rs` and `reset.rs`, and needs the device's turn.

use std::fmt;
use std::sync::{Arc, Weak};

use iommufd::Endpoint;
use mem::Pages;
use pci::regs::BAR_COUNT;
use pci::{Address, Function};
use sync::{Mutex, Named, WaitQueue, rank};

use crate::config::VirtualConfig;
use crate::dma_buf::Lent;
use crate::enable::POWER_D3HOT;
use crate::facts::Facts;
use crate::hardware::Saved;
use crate::ioeventfd::Ioeventfds;
use crate::irq::{HostInterrupt, Router, Trigger};
use crate::turn::Purpose;
use crate::{DeviceSet, Group, Settings, TdiErrorEvent};

/// A function that clients can be assigned.
pub struct Device {
    function: Arc<dyn Function>,
    endpoint: Arc<Endpoint>,
    set: Arc<DeviceSet>,
    settings: Settings,
    facts: Facts,
    group: Arc<Group>,
    irqs: Arc<Router>,
    memory: Mutex<rank::Memory, Memory>,
    turn_passed: WaitQueue,
}

/// The memory of an open file at the offsets of the BARs: what mapped areas of a BAR are shared through.
pub type BarPages = [Option<Arc<Pages>>; BAR_COUNT];

/// How far a device is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// No file is open.
    Free,
    /// Files are open, none is bound.
    Open {
        /// How many.
        files: u32,
    },
    /// A file is bound to an iommufd; DMA is blocked.
    Bound {
        /// The id of the device object.
        device_id: u32,
    },
    /// DMA goes through a page table.
    Attached {
        /// The id of the device object.
        device_id: u32,
        /// The id of the page table.
        page_table_id: u32,
    },
}

/// What the `MEMORY` lock guards.
pub(crate) struct Memory {
    /// Who may touch the hardware; see `turn.rs`.
    pub(crate) turn: Option<Purpose>,
    /// Present while a file is bound, but for the moments of enabling and disabling.
    pub(crate) config: Option<VirtualConfig>,
    /// Registers as they were before the device was enabled.
    pub(crate) original: Option<Saved>,
    /// The power state, as the control register numbers them.
    pub(crate) power: u16,
    /// Registers as they were before D3hot.
    pub(crate) asleep: Option<Saved>,
    pub(crate) low_power: LowPower,
    /// Eventfds that write to a BAR.
    pub(crate) ioeventfds: Ioeventfds,
    /// Dma-bufs of its BARs.
    pub(crate) lent: Lent,
    /// Of a physical function: what a client has to know to use its VFs.
    pub(crate) token: Option<VfToken>,
    /// Of a physical function: how many of its virtual ones are open that need the token.
    pub(crate) token_users: u32,
    /// Of a virtual function that vfio-pci made: the physical one.
    pub(crate) physical: Weak<Device>,
    /// Whose token it uses while it is open.
    pub(crate) uses_token_of: Option<Arc<Device>>,
    /// What backs the BARs while no file does.
    pub(crate) parking: Option<BarPages>,
}

/// The 16 bytes of a VF token.
pub(crate) type VfToken = [u8; 16];

/// Whether the client lets the device sleep.
pub(crate) enum LowPower {
    Off,
    /// Until told otherwise; accesses wake it for their duration.
    Engaged,
    /// Until the first access, which the eventfd then announces.
    WakesWith(Trigger),
}

impl Device {
    /// A device that nobody has opened. It joins `set`.
    ///
    /// # Panics
    /// If `set` has a device with that address already.
    pub fn new(
        function: Arc<dyn Function>,
        endpoint: Arc<Endpoint>,
        set: Arc<DeviceSet>,
        settings: Settings,
    ) -> Arc<Self> {
        let facts = Facts::of(&*function, &settings);
        let address = function.address();
        let name = || name(address);
        let irqs = Router::new(&function, endpoint.notices().clone());
        let group = settings.group.clone();
        let group = group.unwrap_or_else(|| Group::new(endpoint.group().number()));
        let device = Arc::new(Self {
            function,
            endpoint,
            set,
            settings,
            facts,
            group,
            irqs: Arc::new(irqs),
            memory: Mutex::new(Memory::new()).named("memory", name),
            turn_passed: WaitQueue::new().named("turn_passed", name),
        });
        device.set.join(device.address(), Arc::downgrade(&device));
        device.group.join(Arc::downgrade(&device));
        device
    }

    /// Where the function sits.
    pub fn address(&self) -> Address {
        self.function.address()
    }

    /// How far the device is in use. Takes `DEVICE_SET`, then a lock of `iommufd`.
    pub fn state(&self) -> DeviceState {
        self.set.state(self.address())
    }

    /// Says that the host wants the device back (the REQ interrupt), and whether anybody hears it. A host
    /// that waits says it again every ten seconds. Takes `IRQ`.
    pub fn request_release(&self) -> bool {
        self.irqs.with(|table, after| table.fire_host(HostInterrupt::Request, after))
    }

    /// Says that the device met an error (the ERR interrupt), and whether anybody hears it. Takes `IRQ`.
    pub fn signal_error(&self) -> bool {
        self.irqs.with(|table, after| table.fire_host(HostInterrupt::Error, after))
    }

    /// Says that the device's TDI went to its error state, by the interrupt that `event` names, and whether anybody
    /// hears it. Takes `IRQ`.
    pub fn tdi_error(&self, event: TdiErrorEvent) -> bool {
        match event {
            TdiErrorEvent::Err => self.signal_error(),
            TdiErrorEvent::Req => self.request_release(),
            TdiErrorEvent::None => false,
        }
    }

    /// Lets no file open the device any more: it is being removed. Takes `DEVICE_SET`.
    pub fn withdraw(&self) {
        self.set.withdraw(self.address());
    }

    /// Lets files open the device again: it is back. Takes `DEVICE_SET`.
    pub fn readmit(&self) {
        self.set.readmit(self.address());
    }

    /// Its group, as VFIO hands it out.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Interrupts that nobody had asked for, since the device was made. Takes `IRQ`.
    pub fn unheard_interrupts(&self) -> u64 {
        self.irqs.with(|table, _| table.unheard())
    }

    /// Whether no file may open it: it is being removed. Takes `DEVICE_SET`.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.set.is_withdrawn(self.address())
    }

    /// Whether the device can be reset alone.
    pub(crate) fn can_reset(&self) -> bool {
        self.facts.function_reset()
    }

    pub(crate) fn function(&self) -> &dyn Function {
        &*self.function
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    pub(crate) fn set(&self) -> &Arc<DeviceSet> {
        &self.set
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    pub(crate) fn irqs(&self) -> &Arc<Router> {
        &self.irqs
    }

    pub(crate) fn memory(&self) -> &Mutex<rank::Memory, Memory> {
        &self.memory
    }

    pub(crate) fn turn_passed(&self) -> &WaitQueue {
        &self.turn_passed
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.set.leave(self.function.address());
    }
}

/// What a device is called in timelines.
pub(crate) fn name(address: Address) -> String {
    format!("vfio-{address}")
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.function.address();
        f.debug_struct("Device").field("address", &address).finish_non_exhaustive()
    }
}

impl Memory {
    /// Whether the client's device decodes memory.
    pub(crate) fn decodes_memory(&self) -> bool {
        self.power < POWER_D3HOT && self.config.as_ref().is_some_and(VirtualConfig::decodes_memory)
    }

    fn new() -> Self {
        Self {
            turn: None,
            config: None,
            original: None,
            power: 0,
            asleep: None,
            low_power: LowPower::Off,
            ioeventfds: Ioeventfds::default(),
            lent: Lent::default(),
            token: None,
            token_users: 0,
            physical: Weak::new(),
            uses_token_of: None,
            parking: None,
        }
    }
}
