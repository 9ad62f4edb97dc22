//! Taking a function into use when a file is bound, out of use when it is closed, and its power states.
//!
//! Everything here waits for the function, so no lock is held; the device's turn is.

use std::sync::Arc;

use iommufd::{ResetGuard, Resource};
use mem::Pages;
use pci::regs::{command, pm};
use pci::{Function, HostSide};

use crate::config::VirtualConfig;
use crate::device::{BarPages, LowPower};
use crate::hardware::{self, DecodeAfter, Saved};
use crate::turn::Turn;
use crate::{Device, Refusal};

impl Device {
    /// Takes the function into use: reset, decoding, bus master off, its BARs backed by `pages`, its DMA
    /// through `iommufd`.
    ///
    /// # Errors
    /// [`Refusal::OutOfMemory`] – nothing was done (`ENOMEM`).
    ///
    /// Takes `MEMORY`; holds it while no function is waited for.
    pub(crate) fn enable(
        &self,
        iommufd: &Arc<iommufd::Device>,
        pages: &BarPages,
    ) -> Result<(), Refusal> {
        let _unbound = keep_unbound(iommufd);
        let turn = self.take_turn();
        self.prepare_parking(iommufd, pages)?;
        let (function, facts) = (self.function(), self.facts());
        hardware::set_power_state(function, facts, POWER_D0);
        hardware::clear_bus_master(function);
        let original = Saved::of_client(function, facts);
        back_bars(function, pages);
        let was_reset = self.reset_afresh(iommufd);
        let decode = hardware::decode_bits(function);
        let usable = |command| command & !command::INTX_DISABLE | decode;
        original.clone().with_command(usable).restore(function);
        let config = VirtualConfig::new(function, *facts);
        let mut memory = self.memory().lock();
        memory.config = Some(config);
        memory.original = Some(original);
        memory.power = POWER_D0;
        drop(memory);
        let dma: Arc<dyn pci::Dma> = iommufd.clone();
        function.connect(HostSide { dma, interrupts: Arc::new(self.irqs().line()) });
        function.start();
        self.use_token();
        drop(turn);
        if let Some(guard) = was_reset {
            guard.done();
        }
        Ok(())
    }

    /// Takes the function out of use: no DMA begins and none runs when this returns, nobody hears its
    /// interrupts, its registers are as they were before [`enable`](Self::enable). Cannot fail.
    ///
    /// A TDI that is bound still, because the order of close is Linux 7.3's, takes that as hardware would.
    pub(crate) fn disable(&self, iommufd: &iommufd::Device) {
        let turn = self.take_turn();
        let (function, facts) = (self.function(), self.facts());
        let mut memory = self.memory().lock();
        let low_power = std::mem::replace(&mut memory.low_power, LowPower::Off);
        let config = memory.config.take();
        let original = memory.original.take();
        let asleep = memory.asleep.take();
        let parking = memory.parking.clone();
        let lent = std::mem::take(&mut memory.lent);
        memory.power = POWER_D0;
        let (ioeventfds, writes_run) = memory.ioeventfds.end_all();
        drop(memory);
        drop((low_power, config, asleep, ioeventfds));
        lent.buffers().iter().for_each(|buffer| buffer.settle(true));
        if writes_run {
            self.wait_for_ioeventfds();
        }
        function.stop();
        hardware::set_power_state(function, facts, POWER_D0);
        hardware::clear_bus_master(function);
        if let Some(kind) = self.irqs().with(|table, _| table.message_kind()) {
            hardware::disable_messages(function, facts, kind);
        }
        self.irqs().with(|table, after| table.clear(after));
        function.disconnect();
        drop(self.reset_afresh(iommufd));
        if let Some(original) = original {
            original.restore(function);
        }
        back_bars(function, &parking.unwrap_or_default());
        self.drop_token_user();
        drop(turn);
    }

    /// Puts the device in another power state. The caller owns the turn.
    pub(crate) fn set_power_state(&self, turn: &Turn<'_>, state: u16) {
        let (function, facts) = (turn.device().function(), turn.device().facts());
        let before = self.memory().lock().power;
        if state == before {
            return;
        }
        if state == POWER_D3HOT {
            turn.take_lent_back();
            let saved = Saved::of(function, facts);
            self.memory().lock().asleep = Some(saved);
        }
        hardware::set_power_state(function, facts, state);
        let mut memory = self.memory().lock();
        memory.power = state;
        let asleep = if before == POWER_D3HOT { memory.asleep.take() } else { None };
        drop(memory);
        let resets = facts.pm.is_some_and(|pm| pm.soft_reset);
        if let Some(saved) = asleep.filter(|_| resets) {
            self.put_back(turn, &saved);
        }
        turn.settle_lent();
    }

    /// Restores registers that the function lost, and its message interrupts. The caller owns the turn.
    pub(crate) fn put_back(&self, turn: &Turn<'_>, saved: &Saved) {
        let (function, facts) = (turn.device().function(), turn.device().facts());
        saved.restore(function);
        if let Some(armed) = self.irqs().with(|table, _| table.armed()) {
            hardware::enable_messages(function, facts, &armed, DecodeAfter::AsBefore);
        }
    }

    /// Allocates what will back the BARs once the file is closed, as closing cannot fail.
    fn prepare_parking(&self, iommufd: &iommufd::Device, pages: &BarPages) -> Result<(), Refusal> {
        if self.memory().lock().parking.is_some() {
            return Ok(());
        }
        iommufd.admit(Resource::BarPages)?;
        let mut parking = BarPages::default();
        for (parked, backed) in parking.iter_mut().zip(pages) {
            if let Some(backed) = backed {
                let pages = Pages::anonymous(backed.len()).map_err(|_| Refusal::OutOfMemory)?;
                *parked = Some(Arc::new(pages));
            }
        }
        self.memory().lock().parking = Some(parking);
        Ok(())
    }
}

/// Power state D0, as the control register numbers them.
pub(crate) const POWER_D0: u16 = 0;
/// Power state D3hot.
pub(crate) const POWER_D3HOT: u16 = pm::D3HOT;

/// Keeps a device that was just made without a TDI. A client may have guessed its id, and have bound one already.
fn keep_unbound(iommufd: &iommufd::Device) -> Option<ResetGuard<'_>> {
    let again = |_| {
        iommufd.cancel_and_unbind();
        iommufd.begin_reset()
    };
    iommufd.begin_reset().or_else(again).ok()
}

fn back_bars(function: &dyn Function, pages: &BarPages) {
    for (index, pages) in pages.iter().enumerate() {
        if let Some(pages) = pages {
            function.back_bar(index, pages.clone());
        }
    }
}
