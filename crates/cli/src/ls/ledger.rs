//! `bindery ls --ledger`: what running instances hold.

use std::process::ExitCode;

use serde::Serialize;
use supervisor::control::{self, Accounts};
use supervisor::ledger::{ContextRow, FileRow, Ledger, ManagerRow, TdiRow};

use super::headline;
use crate::exit;
use crate::terminal::{Style, columns, or_dash, print, print_json};

/// What is printed as JSON.
#[derive(Serialize)]
struct Everything {
    instances: Vec<Accounts>,
}

/// Prints the ledger of every running instance, or of one.
pub(super) fn run(pid: Option<u32>, json: bool) -> ExitCode {
    let instances = match pid.map(control::ledger) {
        None => control::ledgers(),
        Some(Ok(accounts)) => vec![accounts],
        Some(Err(error)) => {
            eprintln!("bindery: {error}");
            return ExitCode::from(exit::OURS);
        }
    };
    if json {
        print_json(&Everything { instances });
    } else if instances.is_empty() {
        print("No bindery run of yours is running.\n");
    } else {
        let style = Style::of_stdout();
        let texts = instances.iter().map(|Accounts { pid, program, ledger }| {
            format!("{}\n{}", headline(style, *pid, program), text(ledger))
        });
        print(&texts.collect::<Vec<_>>().join("\n"));
    }
    ExitCode::SUCCESS
}

fn text(ledger: &Ledger) -> String {
    let Ledger { contexts, managers, tdis, files, serving } = ledger;
    let mut text = String::new();
    let mut section = |name: &str, table: String, any: bool| {
        text += &if any { format!("{name}\n{table}") } else { format!("{name}: none\n") };
    };
    section("contexts", contexts_table(contexts), !contexts.is_empty());
    section("security managers", managers_table(managers), !managers.is_empty());
    section("TDIs", tdis_table(tdis), !tdis.is_empty());
    section("open files", files_table(files), !files.is_empty());
    text + &format!("commands being served: {serving}\n")
}

fn contexts_table(rows: &[ContextRow]) -> String {
    let header = ["FILE", "OPENER", "MAPPINGS", "MAPPED BYTES", "PINNED BYTES", "OBJECTS"];
    let objects = |row: &ContextRow| {
        let texts = row.objects.iter().map(|(name, count)| format!("{count} {name}"));
        texts.collect::<Vec<_>>().join(", ")
    };
    let cells = |row: &ContextRow| {
        [
            row.file.to_string(),
            row.opener.to_string(),
            row.mappings.to_string(),
            row.mapped_bytes.to_string(),
            row.pinned_bytes.to_string(),
            or_dash(Some(objects(row)).filter(|text| !text.is_empty()).as_ref()),
        ]
    };
    columns(header, rows.iter().map(cells))
}

fn managers_table(rows: &[ManagerRow]) -> String {
    let header = [
        "FUNCTION",
        "TSM",
        "SESSIONS",
        "DEVICE'S SESSIONS",
        "KEYS",
        "DEVICE'S KEYS",
        "ROOT PORT'S KEYS",
        "WAITING",
        "EXCHANGE",
    ];
    let count = |count: Option<usize>| or_dash(count.map(|count| count.to_string()).as_ref());
    let cells = |row: &ManagerRow| {
        [
            row.function.clone(),
            or_dash(row.tsm.as_ref()),
            row.sessions.to_string(),
            count(row.device_sessions),
            row.keys.to_string(),
            count(row.device_keys),
            count(row.port_keys),
            row.waiting.to_string(),
            or_dash(row.exchange.as_ref()),
        ]
    };
    columns(header, rows.iter().map(cells))
}

fn tdis_table(rows: &[TdiRow]) -> String {
    let header = [
        "FUNCTION",
        "HOST",
        "TSM'S VIEW",
        "DEVICE'S VIEW",
        "VM",
        "GUEST ID",
        "MAPPINGS",
        "EVIDENCE",
    ];
    let cells = |row: &TdiRow| {
        let evidence = Some(row.evidence.join(", ")).filter(|text| !text.is_empty());
        [
            row.function.clone(),
            row.host.clone(),
            or_dash(row.tsm.as_ref()),
            or_dash(row.device.as_ref()),
            or_dash(row.vm.map(|vm| vm.to_string()).as_ref()),
            or_dash(row.guest_id.map(|id| format!("{id:#x}")).as_ref()),
            row.mappings.to_string(),
            or_dash(evidence.as_ref()),
        ]
    };
    columns(header, rows.iter().map(cells))
}

fn files_table(rows: &[FileRow]) -> String {
    let cells = |row: &FileRow| {
        [row.file.to_string(), row.opener.to_string(), row.commands.to_string(), row.path.clone()]
    };
    columns(["FILE", "OPENER", "COMMANDS", "PATH"], rows.iter().map(cells))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_held_is_shown_and_what_is_not_is_none() {
        let context = ContextRow {
            file: 1,
            opener: 41,
            objects: BTreeMap::from([("ioas".to_owned(), 1), ("vdevice".to_owned(), 2)]),
            mappings: 3,
            mapped_bytes: 12288,
            pinned_bytes: 4096,
        };
        let ledger = Ledger { contexts: vec![context], ..Ledger::default() };
        let expected = "\
contexts
FILE  OPENER  MAPPINGS  MAPPED BYTES  PINNED BYTES  OBJECTS
1     41      3         12288         4096          1 ioas, 2 vdevice
security managers: none
TDIs: none
open files: none
commands being served: 0
";
        assert_eq!(text(&ledger), expected);
    }
}
