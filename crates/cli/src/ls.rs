//! `bindery ls`: what there is to assign, and who has it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use supervisor::Platform;
use supervisor::control::{self, FunctionRow, Listing, Owner};

use crate::exit;
use crate::terminal::{Style, Tone, print, print_json};

/// List the devices of running instances, or of a platform.
///
/// Shows each function's address, model, IOMMU group, what it can do as a TEE device, its driver,
/// its VFIO device, and the process that has it open. Where no `bindery run` of yours is running, or
/// with --platform, shows the platform that the next one would have.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Show the platform of this file
    #[arg(long, value_name = "FILE")]
    platform: Option<PathBuf>,
    /// Print JSON: {"instances": […], "platform": […] or null}
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
        let headline = format!("bindery run (process {pid}): {program}");
        text += &format!("{}\n{}\n", style.paint(Tone::Bold, headline), table(functions));
    }
    if let Some(rows) = &everything.platform {
        if !named {
            text += "No bindery run of yours is running. The default platform:\n\n";
        }
        text += &table(rows);
    }
    text
}

/// Functions in columns.
pub(crate) fn table(rows: &[FunctionRow]) -> String {
    let header = ["ADDRESS", "MODEL", "GROUP", "TEE", "DRIVER", "VFIO", "OWNER"].map(str::to_owned);
    let lines: Vec<_> = [header].into_iter().chain(rows.iter().map(cells)).collect();
    let mut widths = [0; 7];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let padded = |line: &[String; 7]| {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    lines.iter().map(padded).collect()
}

fn cells(row: &FunctionRow) -> [String; 7] {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let owner = |Owner { pid, program }: &Owner| format!("{pid} ({program})");
    [
        row.address.clone(),
        row.model.clone(),
        or_dash(&row.group.map(|group| group.to_string())),
        row.tee.clone(),
        or_dash(&row.driver),
        or_dash(&row.vfio),
        or_dash(&row.owner.as_ref().map(owner)),
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
