//! Findings: what went wrong while a program was served, counted as it happens and told at its end.
//!
//! [`Reports`] is the observer of every run: it hands what it is told to the trace, if there is one,
//! counts it in [`Findings`], and when the tree has ended prints the summary, writes the JSON report
//! and settles the exit status. A program that misbehaves may do so millions of times, so everything
//! kept is bounded: counts by kind, the first few of each. One lock, a leaf; no call is made under it
//! but the trace's write.

mod report;
mod tally;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pci::{Address, DmaAccess, DmaFault, Interrupt, Notices};
use tdisp::{Breach, State};
use thiserror::Error;
use uapi::{Errno, Profile};
use vfio::PolicyEvent;

use crate::observer::{Call, Left, Observer, OpenFile, Thread};

use crate::trace::Trace;

use report::Report;
use tally::Findings;
pub(crate) use tally::{interrupt_name, name_of};

/// What to tell, and where.
#[derive(Debug, Default)]
pub struct ReportOptions {
    /// Which numbers mean which command.
    pub profile: Profile,
    /// A line for every call.
    pub trace: Option<TraceTo>,
    /// The report as JSON goes to this file.
    pub report: Option<PathBuf>,
    /// The exit status of a program that succeeded and yet left findings.
    pub error_exitcode: Option<u8>,
    /// The program and its arguments, for the report.
    pub program: Vec<String>,
}

/// Where the trace goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceTo {
    /// Our standard error, with the summary after it.
    Stderr,
    /// A file, emptied first.
    File(PathBuf),
}

/// Tells people what a program did and what went wrong.
pub struct Reports {
    options: ReportOptions,
    trace: Option<Trace>,
    report: Option<Mutex<File>>,
    findings: Mutex<Findings>,
}

/// A file that reports go to cannot be written.
#[derive(Debug, Error)]
#[error("cannot write {what} to {}: {cause}", .path.display())]
pub struct Unwritable {
    /// `the trace` or `the report`.
    pub what: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub cause: io::Error,
}

impl Reports {
    /// Opens the files that `options` names, so that a wrong path shows before the program starts.
    ///
    /// # Errors
    /// [`Unwritable`].
    pub fn new(options: ReportOptions) -> Result<Self, Unwritable> {
        let open = |what, path: &PathBuf| {
            File::create(path).map_err(|cause| Unwritable { what, path: path.clone(), cause })
        };
        let trace = match &options.trace {
            None => None,
            Some(TraceTo::Stderr) => Some(Trace::new(io::stderr(), options.profile)),
            Some(TraceTo::File(path)) => {
                Some(Trace::new(open("the trace", path)?, options.profile))
            }
        };
        let report = options.report.as_ref().map(|path| open("the report", path)).transpose()?;
        Ok(Self {
            findings: Mutex::new(Findings::new(options.profile)),
            trace,
            report: report.map(Mutex::new),
            options,
        })
    }

    fn findings(&self) -> MutexGuard<'_, Findings> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the JSON report, if one was asked for. The program's exit status is not made to depend
    /// on a disk that filled up: that is said on stderr.
    fn write_report(&self, report: &Report) {
        let Some(file) = &self.report else { return };
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let written = serde_json::to_writer_pretty(&mut *file, report)
            .map_err(io::Error::from)
            .and_then(|()| file.write_all(b"\n"));
        if let Err(error) = written {
            eprintln!("bindery: cannot write the report: {error}");
        }
    }
}

impl Notices for Reports {
    fn dma_fault(&self, function: Address, fault: &DmaFault) {
        self.findings().dma_fault(function, fault);
        if let Some(trace) = &self.trace {
            trace.dma_fault(function, fault);
        }
    }

    fn interrupt_unheard(&self, function: Address, interrupt: Interrupt) {
        self.findings().interrupt_unheard(function, interrupt);
        if let Some(trace) = &self.trace {
            trace.interrupt_unheard(function, interrupt);
        }
    }
}

impl Observer for Reports {
    fn wants_bytes(&self) -> bool {
        self.trace.is_some()
    }

    fn call(&self, thread: Thread, call: &Call<'_>, answer: Result<u64, Errno>) {
        self.findings().call(call, answer);
        if let Some(trace) = &self.trace {
            trace.call(thread, call, answer);
        }
    }

    fn released(&self, file: &OpenFile, left: &Left) {
        self.findings().released(file, left);
        if let Some(trace) = &self.trace {
            trace.released(file, left);
        }
    }

    fn interrupt(&self, function: Address, interrupt: Interrupt) {
        if let Some(trace) = &self.trace {
            trace.interrupt(function, interrupt);
        }
    }

    fn trusted_dma(&self, function: Address, access: DmaAccess, iova: u64, length_bytes: u64) {
        self.findings().dma(length_bytes);
        if let Some(trace) = &self.trace {
            trace.trusted_dma(function, access, iova, length_bytes);
        }
    }

    fn tsm(&self, function: Address, notice: &tsm::Notice) {
        if let Some(trace) = &self.trace {
            trace.tsm(function, notice);
        }
    }

    fn tdi(&self, function: Address, from: State, to: State, cause: Option<Breach>) {
        if to == State::Error && from != to {
            self.findings().tdi_error(function, cause);
        }
        if let Some(trace) = &self.trace {
            trace.tdi(function, from, to, cause);
        }
    }

    fn policy(&self, function: Address, event: PolicyEvent) {
        if let Some(trace) = &self.trace {
            trace.policy(function, event);
        }
    }

    fn tdis_ended(&self, counters: &tsm::Counters, left: &[(Address, tsm::Binding)]) {
        self.findings().tdis_ended(counters, left);
    }

    fn dma(&self, _function: Address, _access: DmaAccess, _iova: u64, length_bytes: u64) {
        self.findings().dma(length_bytes);
    }

    /// Prints the summary where there is something to say or something was asked for, writes the
    /// report, and turns success into `error_exitcode` where there are findings.
    fn finished(&self, status: u8) -> u8 {
        let report = self.findings().report(&self.options.program, status);
        let asked = self.trace.is_some() || self.report.is_some();
        if asked || !report.clean {
            eprint!("{}", report.summary());
        }
        self.write_report(&report);
        match self.options.error_exitcode {
            Some(code) if status == 0 && !report.clean => code,
            Some(_) | None => status,
        }
    }
}
