//! A function whose DMA and interrupts are told to an observer on their way.
//!
//! The machine puts it around a function before it hands the function out; all else passes through.
//! Takes no lock.

use std::sync::Arc;

use mem::Pages;
use pci::{
    Address, Bar, Dma, DmaAccess, DmaFault, Function, HostSide, Interrupt, Interrupts, Progress,
    Reset,
};

use crate::observer::Observer;

/// A function, watched.
pub struct Tap {
    function: Arc<dyn Function>,
    observer: Arc<dyn Observer>,
}

impl Tap {
    /// Tells `observer` what `function` does.
    pub fn new(function: Arc<dyn Function>, observer: Arc<dyn Observer>) -> Arc<Self> {
        Arc::new(Self { function, observer })
    }
}

impl Function for Tap {
    fn address(&self) -> Address {
        self.function.address()
    }

    fn config_read(&self, offset: u16, into: &mut [u8]) {
        self.function.config_read(offset, into);
    }

    fn config_write(&self, offset: u16, from: &[u8]) {
        self.function.config_write(offset, from);
    }

    fn bar(&self, index: usize) -> Option<&Bar> {
        self.function.bar(index)
    }

    fn bar_read(&self, index: usize, offset: u64, into: &mut [u8]) {
        self.function.bar_read(index, offset, into);
    }

    fn bar_write(&self, index: usize, offset: u64, from: &[u8]) {
        self.function.bar_write(index, offset, from);
    }

    fn back_bar(&self, index: usize, pages: Arc<Pages>) {
        self.function.back_bar(index, pages);
    }

    fn connect(&self, host: HostSide) {
        let wire = Arc::new(Wire {
            address: self.function.address(),
            host,
            observer: self.observer.clone(),
        });
        self.function.connect(HostSide { dma: wire.clone(), interrupts: wire });
    }

    fn disconnect(&self) {
        self.function.disconnect();
    }

    fn stop(&self) {
        self.function.stop();
    }

    fn start(&self) {
        self.function.start();
    }

    fn reset(&self, kind: Reset) {
        self.function.reset(kind);
    }

    fn step(&self, budget_bytes: usize) -> Progress {
        self.function.step(budget_bytes)
    }

    fn set_waker(&self, waker: Arc<dyn Fn() + Send + Sync>) {
        self.function.set_waker(waker);
    }
}

/// The host side, watched.
struct Wire {
    address: Address,
    host: HostSide,
    observer: Arc<dyn Observer>,
}

impl Dma for Wire {
    fn read(&self, iova: u64, into: &mut [u8]) -> Result<(), DmaFault> {
        self.host.dma.read(iova, into)?;
        self.observer.dma(self.address, DmaAccess::Read, iova, into.len() as u64);
        Ok(())
    }

    fn write(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault> {
        self.host.dma.write(iova, from)?;
        self.observer.dma(self.address, DmaAccess::Write, iova, from.len() as u64);
        Ok(())
    }

    fn read_trusted(&self, iova: u64, into: &mut [u8]) -> Result<(), DmaFault> {
        self.host.dma.read_trusted(iova, into)?;
        self.observer.trusted_dma(self.address, DmaAccess::Read, iova, into.len() as u64);
        Ok(())
    }

    fn write_trusted(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault> {
        self.host.dma.write_trusted(iova, from)?;
        self.observer.trusted_dma(self.address, DmaAccess::Write, iova, from.len() as u64);
        Ok(())
    }

    fn refused(&self, fault: &DmaFault) {
        self.host.dma.refused(fault);
    }
}

impl Interrupts for Wire {
    fn msix(&self, vector: u16) {
        self.observer.interrupt(self.address, Interrupt::Msix(vector));
        self.host.interrupts.msix(vector);
    }

    fn msi(&self, vector: u16) {
        self.observer.interrupt(self.address, Interrupt::Msi(vector));
        self.host.interrupts.msi(vector);
    }

    fn intx(&self, asserted: bool) {
        if asserted {
            self.observer.interrupt(self.address, Interrupt::Intx);
        }
        self.host.interrupts.intx(asserted);
    }
}
