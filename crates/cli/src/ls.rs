//! `bindery ls`: what there is to assign, and who has it.

mod ledger;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use supervisor::Platform;
use supervisor::control::{self, FunctionRow, Listing, Owner};

use crate::exit;
use crate::terminal::{Style, Tone, columns, or_dash, print, print_json};

/// List the devices of running instances, or of a platform.
///
/// Shows each function's address, model, IOMMU group, what it can do as a TEE device, its driver,
/// its VFIO device, and the process that has it open. Where no `bindery run` of yours is running, or
/// with --platform, shows the platform that the next one would have.
///
/// With --ledger, shows what running instances hold instead: objects and memory by context, keys,
/// TDIs as host, TSM and device see them, open files. Of one instance it is the same, byte for byte,
/// whenever the instance holds the same.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Show the platform of this file
    #[arg(long, value_name = "FILE")]
    platform: Option<PathBuf>,
    /// Show what running instances hold; releases under way are waited for
    #[arg(long, conflicts_with = "platform")]
    ledger: bool,
    /// With --ledger: only of the instance of this process
    #[arg(long, value_name = "PID", requires = "ledger")]
    pid: Option<u32>,
    /// Print JSON: {"instances": […], "platform": […] or null}; with --ledger {"instances": […]}
    #[arg(long)]
    json: bool,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Everything {
    instances: Vec<Listing>,
    platform: Option<Vec<FunctionRow>>,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if arguments.ledger {
        return ledger::run(arguments.pid, arguments.json);
    }
    let instances = if arguments.platform.is_none() { control::instances() } else { Vec::new() };
    let platform = match &arguments.platform {
        Some(file) => Platform::read(file).map(Some),
        None if instances.is_empty() => Ok(Some(Platform::default())),
        None => Ok(None),
    };
    let platform = match platform {
        Ok(platform) => platform.as_ref().map(supervisor::function_rows),
        Err(error) => {
            eprintln!("bindery: {error}");
            return ExitCode::from(exit::OURS);
        }
    };
    let everything = Everything { instances, platform };
    if arguments.json {
        print_json(&everything);
    } else {
        print(&text(&everything, arguments.platform.is_some()));
    }
    ExitCode::SUCCESS
}

fn text(everything: &Everything, named: bool) -> String {
    let style = Style::of_stdout();
    let mut text = String::new();
    for Listing { pid, program, functions } in &everything.instances {
        text += &format!("{}\n{}\n", headline(style, *pid, program), table(functions));
    }
    if let Some(rows) = &everything.platform {
        if !named {
            text += "No bindery run of yours is running. The default platform:\n\n";
        }
        text += &table(rows);
    }
    text
}

/// Names an instance: its process, and the beginning of what it runs.
pub(crate) fn headline(style: Style, pid: u32, program: &str) -> String {
    const PROGRAM_CHARS: usize = 60;
    let mut words = program.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = words.char_indices().nth(PROGRAM_CHARS) {
        words.replace_range(end.., "…");
    }
    style.paint(Tone::Bold, format!("bindery run (process {pid}): {words}"))
}

/// Functions in columns.
pub(crate) fn table(rows: &[FunctionRow]) -> String {
    let header = ["ADDRESS", "MODEL", "GROUP", "TEE", "DRIVER", "VFIO", "OWNER"];
    columns(header, rows.iter().map(cells))
}

fn cells(row: &FunctionRow) -> [String; 7] {
    let owner = |Owner { pid, program }: &Owner| format!("{pid} ({program})");
    [
        row.address.clone(),
        row.model.clone(),
        or_dash(row.group.map(|group| group.to_string()).as_ref()),
        row.tee.clone(),
        or_dash(row.driver.as_ref()),
        or_dash(row.vfio.as_ref()),
        or_dash(row.owner.as_ref().map(owner).as_ref()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(address: &str, owner: Option<Owner>) -> FunctionRow {
        FunctionRow {
            address: address.to_owned(),
            model: "dma-engine".to_owned(),
            group: Some(1),
            tee: "-".to_owned(),
            driver: Some("vfio-pci".to_owned()),
            vfio: owner.as_ref().map(|_| "vfio0".to_owned()),
            owner,
        }
    }

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let owner = Owner { pid: 41, program: "vmm".to_owned() };
        let expected = "\
ADDRESS       MODEL       GROUP  TEE  DRIVER    VFIO   OWNER
b1d0:01:00.0  dma-engine  1      -    vfio-pci  vfio0  41 (vmm)
b1d0:02:00.0  dma-engine  1      -    vfio-pci  -      -
";
        assert_eq!(table(&[row("b1d0:01:00.0", Some(owner)), row("b1d0:02:00.0", None)]), expected);
    }
}
