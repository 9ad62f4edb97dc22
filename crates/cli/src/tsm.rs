//! `bindery tsm`: connecting devices of a running instance to its TSM, how their TDIs stand, and faults
//! on demand.

use std::env;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use supervisor::control::{self, AskError, TsmCounts, TsmOrder, TsmRow, TsmStatus};
use tsm::VmId;

use crate::exit;
use crate::ls::headline;
use crate::terminal::{Style, Tone, columns, or_dash, print, print_json};

/// Connect devices of a running instance to its TSM, and see how their TDIs stand.
///
/// Within a run of Bindery that run is meant, unless --pid names another; elsewhere the only one of
/// yours.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Connect a function to a TSM, as `echo tsm0 > tsm/connect` in sysfs does.
    Connect {
        /// The function, such as b1d0:01:00.0
        function: String,
        /// The TSM, such as tsm0 [default: the only one]
        tsm: Option<String>,
        #[command(flatten)]
        instance: Instance,
    },
    /// Disconnect a function from its TSM, as `echo tsm0 > tsm/disconnect` in sysfs does.
    Disconnect {
        /// The function, such as b1d0:01:00.0
        function: String,
        /// The TSM, such as tsm0 [default: the one it is connected to]
        tsm: Option<String>,
        #[command(flatten)]
        instance: Instance,
    },
    /// Show each function's TDI as the host, the TSM and the device see it.
    ///
    /// Of every running instance of yours, unless --pid names one.
    Status {
        #[command(flatten)]
        instance: Instance,
        /// Print JSON: an array of instances
        #[arg(long)]
        json: bool,
    },
    /// Let something go wrong with a function's security manager.
    ///
    /// A fault is OPERATION=KIND, and may end in *TIMES. Operations: connect, disconnect, probe, bind, lock,
    /// report, start, stop, state, unbind. Kinds: slow:MS, silent, busy:TIMES, error-before-commit,
    /// error-after-commit, null (of bind), refused (of unbind). Faults add up.
    Fault {
        /// The function, such as b1d0:01:00.0
        function: String,
        /// Such as bind=slow:500; none takes all faults of the function away
        fault: String,
        #[command(flatten)]
        instance: Instance,
    },
}

/// Which instance is meant.
#[derive(Clone, Copy, Debug, Args)]
struct Instance {
    /// Ask this process; bindery ls shows them
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
}

impl Instance {
    fn chosen(self) -> Option<u32> {
        chosen(self.pid)
    }
}

/// The instance that is named, or else the one within which we run.
pub(crate) fn chosen(pid: Option<u32>) -> Option<u32> {
    let around = || {
        let pid = env::var("BINDERY").ok()?.parse().ok()?;
        control::instances().iter().any(|listing| listing.pid == pid).then_some(pid)
    };
    pid.or_else(around)
}

pub(crate) fn run(arguments: Arguments) -> ExitCode {
    match arguments.command {
        Command::Connect { function, tsm, instance } => {
            let about = format!("connect {function}");
            order(instance, &about, TsmOrder::Connect { function, tsm })
        }
        Command::Disconnect { function, tsm, instance } => {
            let about = format!("disconnect {function}");
            order(instance, &about, TsmOrder::Disconnect { function, tsm })
        }
        Command::Fault { function, fault, instance } => {
            let about = format!("fault {function}");
            order(instance, &about, TsmOrder::Fault { function, fault })
        }
        Command::Status { instance, json } => status(instance.pid, json),
    }
}

fn order(instance: Instance, about: &str, order: TsmOrder) -> ExitCode {
    match control::order(instance.chosen(), order) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ AskError::Refused(_)) => {
            eprintln!("bindery: {about}: {error}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bindery: {error}");
            ExitCode::from(exit::OURS)
        }
    }
}

fn status(pid: Option<u32>, json: bool) -> ExitCode {
    let mut all = control::statuses();
    if let Some(pid) = pid {
        all.retain(|status| status.pid == pid);
        if all.is_empty() {
            let error = AskError::NotRunning { pid, running: control::instances() };
            eprintln!("bindery: {error}");
            return ExitCode::from(exit::OURS);
        }
    }
    if json {
        print_json(&all);
    } else if all.is_empty() {
        print("No bindery run of yours is running.\n");
    } else {
        print(&all.iter().map(text).collect::<Vec<_>>().join("\n"));
    }
    ExitCode::SUCCESS
}

fn text(status: &TsmStatus) -> String {
    let style = Style::of_stdout();
    let headline = headline(style, status.pid, &status.program);
    let mut text = format!("{headline}\n{}", table(&status.functions));
    for row in &status.functions {
        let function = &row.tdi.function;
        let line = |what: &str, said: &str| format!("{function}: {what}{said}\n");
        text.extend(row.exchange.iter().map(|exchange| line("in flight: ", exchange)));
        text.extend(row.faults.iter().map(|fault| line("fault on demand: ", fault)));
        text.extend(
            row.advice
                .iter()
                .map(|advice| style.paint(Tone::Yellow, line("", advice).trim_end()) + "\n"),
        );
    }
    text + &counts(&status.counts)
}

/// Functions with the three views side by side.
fn table(rows: &[TsmRow]) -> String {
    let header = ["FUNCTION", "DSM", "TSM", "KEYS", "HOST", "TSM'S VIEW", "DEVICE'S VIEW", "VM"];
    let cells = |row: &TsmRow| {
        let vm = row.tdi.vm.map(|vm| VmId(vm).to_string().replace("VM ", ""));
        [
            row.tdi.function.clone(),
            or_dash(row.dsm.as_ref()),
            or_dash(row.connected_to.as_ref()),
            or_dash(row.keys.map(|keys| keys.to_string()).as_ref()),
            row.tdi.host.clone(),
            or_dash(row.tdi.tsm.as_ref()),
            or_dash(row.tdi.device.as_ref()),
            or_dash(vm.as_ref()),
        ]
    };
    columns(header, rows.iter().map(cells))
}

/// What was done, where anything was.
fn counts(counts: &TsmCounts) -> String {
    if *counts == TsmCounts::default() {
        return String::new();
    }
    let TsmCounts { binds, unbinds, binds_refused, cancelled, timed_out, quarantined } = counts;
    format!(
        "so far: {binds} bound, {unbinds} unbound, {binds_refused} refused, {cancelled} given up, \
         {timed_out} not answered in time, {quarantined} quarantined\n"
    )
}

#[cfg(test)]
mod tests {
    use supervisor::ledger::TdiRow;

    use super::*;

    #[test]
    fn views_stand_side_by_side() {
        let tdi = |function: &str, host: &str, device: &str| TdiRow {
            function: function.to_owned(),
            host: host.to_owned(),
            tsm: (host == "bound").then(|| "RUN".to_owned()),
            device: Some(device.to_owned()),
            vm: (host == "bound").then_some(1),
            guest_id: None,
            mappings: 0,
            evidence: Vec::new(),
        };
        let row = |tdi: TdiRow, keys| TsmRow {
            dsm: Some("b1d0:01:00.0".to_owned()),
            connected_to: Some("tsm0".to_owned()),
            keys,
            exchange: None,
            tdi,
            faults: Vec::new(),
            advice: None,
        };
        let rows = [
            row(tdi("b1d0:01:00.0", "unbound", "CONFIG_UNLOCKED"), Some(6)),
            row(tdi("b1d0:01:00.1", "bound", "ERROR"), None),
        ];
        let expected = "\
FUNCTION      DSM           TSM   KEYS  HOST     TSM'S VIEW  DEVICE'S VIEW    VM
b1d0:01:00.0  b1d0:01:00.0  tsm0  6     unbound  -           CONFIG_UNLOCKED  -
b1d0:01:00.1  b1d0:01:00.0  tsm0  -     bound    RUN         ERROR            1
";
        assert_eq!(table(&rows), expected);
    }
}
