//! The engine as an interface of TDISP: what LOCK reports, and what requests do to it.

use std::sync::Weak;

use pci::regs::{command, ext_id, header, ide, msix};
use pci::{ConfigSpace, PowerState, Virtualization, walk};
use tdisp::report::{self, Extent, FirstPage, InterfaceInfo, MemoryBar};
use tdisp::{Breach, DeviceRefusal, REPORT_BYTES_MAX, State};

use super::DmaEngine;
use super::mailbox::Sent;
use super::regs::{self, bar2};
use crate::security::{Alarm, Event, Interface, Part, Terms};

impl Interface for DmaEngine {
    fn requester_id(&self) -> u16 {
        u16::from_le_bytes([self.address.devfn(), self.address.bus])
    }

    fn is_virtual(&self) -> bool {
        self.is_virtual
    }

    fn state(&self) -> State {
        self.state.lock().security.state()
    }

    fn attach(&self, alarm: Weak<dyn Alarm>) {
        self.state.lock().security.alarm = Some(alarm);
    }

    fn lock(
        &self,
        terms: Terms,
        part: Option<Part>,
        report: &mut [u8; REPORT_BYTES_MAX],
    ) -> Result<usize, DeviceRefusal> {
        let mut state = self.state.lock();
        let decodes = match &part {
            Some(Part { of, index }) => of.enabled && of.memory_enabled && *index < of.count,
            None => state.config.memory_enabled(),
        };
        let masters = state.config.word(header::COMMAND) & command::BUS_MASTER != 0;
        let awake = state.config.power_state() == PowerState::D0;
        let open = state.security.state() == State::Unlocked;
        if !(decodes && masters && awake && open) {
            return Err(DeviceRefusal::Misconfigured);
        }
        let bars = self.memory_bars(&state.config, part);
        let function = report::Function {
            bars: &bars,
            info: InterfaceInfo::DMA_WITHOUT_PASID,
            msix_control: state.config.msix_control().unwrap_or(0),
            ..report::Function::default()
        };
        let length = report::describe(&function, &terms.parameters, FirstPage::Address, report)
            .map_err(|_| DeviceRefusal::Misconfigured)?;
        state.security.lock(terms);
        Ok(length)
    }

    fn start(&self) -> bool {
        self.state.lock().security.start()
    }

    fn stop(&self) {
        if self.state() == State::Unlocked {
            return;
        }
        self.interrupt(|state| {
            if state.security.unlock() {
                state.reset(None);
            }
        });
    }

    fn breach(&self, breach: Breach) {
        let broke = self.state.lock().security.breach(breach);
        if broke {
            self.fall_silent();
        }
    }

    fn take_events(&self) -> Vec<Event> {
        self.state.lock().security.take_events()
    }

    fn virtualization(&self) -> Option<(Virtualization, u64)> {
        let state = self.state.lock();
        Some((state.config.virtualization()?, state.security.vf_changes))
    }

    fn claim_mailbox(&self, claimed: bool) {
        let mut state = self.state.lock();
        let state = &mut *state;
        if let Some(mailbox) = &mut state.mailbox {
            mailbox.claim(claimed, &mut state.config);
        }
    }

    fn ide_registers(&self) -> Vec<u8> {
        let state = self.state.lock();
        let read = |offset, into: &mut [u8]| state.config.read(offset, into);
        let capabilities = walk::extended_capabilities(read);
        let found = capabilities.iter().find(|capability| capability.id == ext_id::IDE);
        let Some(at) = found.map(|capability| capability.offset) else { return Vec::new() };
        let mut registers = vec![0; ide_bytes(&state.config, at)];
        state.config.read(at + ide::CAPABILITY, &mut registers);
        registers
    }
}

impl DmaEngine {
    /// Has an object answered that came through the mailbox. Without a security manager it is not served.
    pub(super) fn answer(&self, sent: &Sent) {
        let alarm = self.state.lock().security.alarm.clone();
        let manager = alarm.and_then(|alarm| alarm.upgrade());
        let answer = manager.and_then(|manager| manager.object(&sent.object));
        let mut state = self.state.lock();
        let state = &mut *state;
        if let Some(mailbox) = &mut state.mailbox {
            mailbox.bring(sent, answer, &mut state.config);
        }
    }

    /// The memory BARs where they are now.
    fn memory_bars(&self, config: &ConfigSpace, part: Option<Part>) -> Vec<MemoryBar> {
        let bars = self.bars.iter().enumerate();
        bars.filter_map(|(index, bar)| {
            let bar = bar.as_ref()?;
            let address = match &part {
                Some(Part { of, index: part }) => of.bar_address(index, bar.size, *part),
                None => config.bar_address(index),
            };
            let extent =
                |offset, length| (index == bar2::INDEX).then_some(Extent { offset, length });
            Some(MemoryBar {
                number: u8::try_from(index).ok()?,
                address: address?,
                length: bar.size,
                msix_table: extent(bar2::TABLE, u64::from(regs::MSIX_VECTORS) * msix::ENTRY_SIZE),
                msix_pba: extent(bar2::PENDING, PENDING_BYTES),
                non_tee: false,
            })
        })
        .collect()
    }

    /// Virtual functions, given by index, by requester ID.
    pub(super) fn by_requester_id(&self, parts: Vec<(u16, Breach)>) -> Vec<(u16, Breach)> {
        let Some((of, _)) = self.virtualization() else { return Vec::new() };
        let named = |(index, breach)| (of.requester_id(self.requester_id(), index), breach);
        parts.into_iter().map(named).collect()
    }
}

/// Bytes of the MSI-X pending bits.
const PENDING_BYTES: u64 = 8;

/// Bytes of the IDE capability at `at` behind its header: control, and the stream blocks.
fn ide_bytes(config: &ConfigSpace, at: u16) -> usize {
    let capability = config.dword(at + ide::CAPABILITY);
    let streams = (capability >> ide::SELECTIVE_COUNT_SHIFT & 0xff) + 1;
    let associations = config.dword(at + ide::STREAMS + ide::STREAM_CAPABILITY) & 0xf;
    let block = u32::from(ide::STREAM_LENGTH) + associations * u32::from(ide::ASSOCIATION_LENGTH);
    let bytes = u32::from(ide::STREAMS - ide::CAPABILITY) + streams * block;
    usize::try_from(bytes).unwrap_or(0)
}
