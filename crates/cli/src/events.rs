//! What happens in a run, as a line of JSON each: how `bindery demo` gets to see both sides.
//!
//! The client's steps and the supervisor's observations go down the same pipe, from different
//! processes: a line is one write, which a pipe keeps whole. Each carries `CLOCK_MONOTONIC`, which
//! all processes read alike. Takes no lock.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};

use demo::Timed;
use pci::{Address, DmaAccess, DmaFault, Interrupt, Notices};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use supervisor::{Call, Left, Observer, OpenFile, Reports, Thread};
use tdisp::{Breach, State};
use tsm::{Binding, Counters, Notice};
use uapi::{Errno, Profile};
use vfio::PolicyEvent;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// The client did a step.
    Step {
        /// The step, with the client's own time.
        done: Timed,
    },
    /// A file of ours was opened.
    Opened {
        /// Where.
        path: String,
    },
    /// A command was answered.
    Command {
        /// Its name in the kernel's headers.
        name: String,
        /// The error, where it was refused.
        errno: Option<String>,
        /// The struct after the answer: each field as people read it.
        fields: BTreeMap<String, String>,
    },
    /// A function moved data.
    Dma {
        /// Which.
        function: String,
        /// To the device rather than from it.
        read: bool,
        /// How much.
        length_bytes: u64,
    },
    /// A function raised an interrupt.
    Interrupt {
        /// Which.
        function: String,
        /// The MSI-X vector; `None` for another kind.
        vector: Option<u16>,
    },
    /// The TSM's core tells of a function.
    Tsm {
        /// Which.
        function: String,
        /// What, in words.
        text: String,
        /// The host's view of the TDI from here on, where it changes.
        host: Option<String>,
        /// The TSM's view from here on, where it changes.
        tsm: Option<String>,
    },
    /// A device's interface changed its state.
    Tdi {
        /// Which.
        function: String,
        /// The state before.
        from: String,
        /// The state now: the device's view.
        to: String,
        /// The breach that it is due to.
        cause: Option<String>,
    },
    /// Something went wrong, in words.
    Trouble {
        /// What.
        text: String,
    },
    /// A file was released.
    Released {
        /// Where it had been opened.
        path: String,
        /// Whether it held nothing any more.
        clean: bool,
    },
}

/// An event and when it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamped {
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub at_ns: u64,
    #[serde(flatten)]
    pub event: Event,
}

/// Where events are written.
#[derive(Debug)]
pub(crate) struct EventStream(File);

impl EventStream {
    /// Opens a descriptor that this process inherited.
    ///
    /// # Errors
    /// Where there is none, or it cannot be written.
    pub(crate) fn open(fd: u32) -> io::Result<Self> {
        OpenOptions::new().write(true).open(format!("/proc/self/fd/{fd}")).map(Self)
    }

    /// Writes one event. Where the reader is gone nobody misses it.
    pub(crate) fn tell(&self, event: Event) {
        let Ok(mut line) = serde_json::to_vec(&Stamped { at_ns: now_ns(), event }) else { return };
        line.push(b'\n');
        let _ = (&self.0).write_all(&line);
    }
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The usual observer, and beside it a stream.
pub(crate) struct Told {
    reports: Reports,
    stream: EventStream,
    profile: Profile,
}

impl Told {
    pub(crate) fn new(reports: Reports, stream: EventStream, profile: Profile) -> Self {
        Self { reports, stream, profile }
    }

    fn command(
        &self,
        file: &OpenFile,
        request: u32,
        bytes: &[u8],
        answer: Result<u64, Errno>,
    ) -> Option<Event> {
        let command = uapi::lookup(file.kind, self.profile, request)?;
        let fields = command.argument.map(|layout| {
            let named = |(field, value): (&uapi::Field, u64)| {
                (field.name.to_owned(), field.show(value).to_string())
            };
            layout.fields_of(bytes).map(named).collect()
        });
        Some(Event::Command {
            name: command.name.to_owned(),
            errno: answer.err().map(|errno| errno.name().to_owned()),
            fields: fields.unwrap_or_default(),
        })
    }
}

impl Notices for Told {
    fn dma_fault(&self, function: Address, fault: &DmaFault) {
        self.stream.tell(Event::Trouble { text: format!("{function}: {fault}") });
        self.reports.dma_fault(function, fault);
    }

    fn interrupt_unheard(&self, function: Address, interrupt: Interrupt) {
        let text = format!("{function}: {interrupt:?} fired with no handler");
        self.stream.tell(Event::Trouble { text });
        self.reports.interrupt_unheard(function, interrupt);
    }
}

impl Observer for Told {
    fn wants_bytes(&self) -> bool {
        true
    }

    fn call(&self, thread: Thread, call: &Call<'_>, answer: Result<u64, Errno>) {
        let event = match *call {
            Call::Open { path, .. } if answer.is_ok() => {
                Some(Event::Opened { path: path.to_owned() })
            }
            Call::Ioctl { file, request, sent, returned, .. } => {
                let bytes = if returned.is_empty() { sent } else { returned };
                self.command(file, request, bytes, answer)
            }
            Call::Open { .. } | Call::Read { .. } | Call::Write { .. } | Call::Map { .. } => None,
        };
        if let Some(event) = event {
            self.stream.tell(event);
        }
        self.reports.call(thread, call, answer);
    }

    fn released(&self, file: &OpenFile, left: &Left) {
        let clean = left.objects.is_empty() && left.maps == 0;
        self.stream.tell(Event::Released { path: file.path.clone(), clean });
        self.reports.released(file, left);
    }

    fn dma(&self, function: Address, access: DmaAccess, iova: u64, length_bytes: u64) {
        let read = access == DmaAccess::Read;
        self.stream.tell(Event::Dma { function: function.to_string(), read, length_bytes });
        self.reports.dma(function, access, iova, length_bytes);
    }

    fn tsm(&self, function: Address, notice: &Notice) {
        let (host, tsm) = views(notice);
        let (function_name, text) = (function.to_string(), notice.to_string());
        self.stream.tell(Event::Tsm { function: function_name, text, host, tsm });
        self.reports.tsm(function, notice);
    }

    fn tdi(&self, function: Address, from: State, to: State, cause: Option<Breach>) {
        self.stream.tell(Event::Tdi {
            function: function.to_string(),
            from: from.name().to_owned(),
            to: to.name().to_owned(),
            cause: cause.map(|cause| cause.to_string()),
        });
        self.reports.tdi(function, from, to, cause);
    }

    fn policy(&self, function: Address, event: PolicyEvent) {
        self.reports.policy(function, event);
    }

    fn tdis_ended(&self, counters: &Counters, left: &[(Address, Binding)]) {
        self.reports.tdis_ended(counters, left);
    }

    fn interrupt(&self, function: Address, interrupt: Interrupt) {
        let vector = match interrupt {
            Interrupt::Msix(vector) => Some(vector),
            Interrupt::Intx | Interrupt::Msi(_) => None,
        };
        self.stream.tell(Event::Interrupt { function: function.to_string(), vector });
        self.reports.interrupt(function, interrupt);
    }

    fn finished(&self, status: u8) -> u8 {
        self.reports.finished(status)
    }
}

/// What a notice says of the host's and of the TSM's view of a TDI.
fn views(notice: &Notice) -> (Option<String>, Option<String>) {
    let host = |word: &str| Some(word.to_owned());
    match notice {
        Notice::Bound { .. } => (host("bound"), host(State::Unlocked.name())),
        Notice::Unbound | Notice::QuarantineEnded => (host("unbound"), host("-")),
        Notice::Quarantined { .. } => (host("quarantined"), None),
        Notice::StateChanged { to, .. } => {
            (None, Some(to.map_or("unknown", State::name).to_owned()))
        }
        Notice::Connected { .. }
        | Notice::ConnectFailed { .. }
        | Notice::Secured { .. }
        | Notice::SessionLost { .. }
        | Notice::SessionRenewed { .. }
        | Notice::Disconnected { .. }
        | Notice::BindFailed { .. }
        | Notice::Locked
        | Notice::Runs
        | Notice::Cancelled { .. }
        | Notice::TimedOut { .. }
        | Notice::RequestRefused { .. }
        | Notice::MappingsDropped { .. } => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use demo::Step;

    use super::*;

    #[test]
    fn events_survive_the_pipe() {
        let done = Timed { at_ns: 7, round: 1, step: Step::Bound { id: 2 } };
        let fields = BTreeMap::from([("iova".to_owned(), "0x1000".to_owned())]);
        let name = "IOMMU_IOAS_MAP".to_owned();
        for event in [
            Event::Step { done },
            Event::Command { name, errno: Some("EINVAL".to_owned()), fields },
            Event::Released { path: "/dev/iommu".to_owned(), clean: true },
        ] {
            let stamped = Stamped { at_ns: 8, event };
            let line = serde_json::to_string(&stamped).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Stamped>(&line).unwrap(), stamped);
        }
    }
}
