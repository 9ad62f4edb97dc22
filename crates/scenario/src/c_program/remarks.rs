//! What the program says of itself: what it does, how it is built, what it needs.
//!
//! Takes no lock.

use std::fmt::Write;

use uapi::Profile;

use super::Source;
use super::pieces::Part;
use crate::file::Scenario;

/// The comment that the program begins with.
pub(super) fn comment(source: &Source<'_>, profile: Profile, parts: &[Part]) -> String {
    let scenario = source.scenario;
    let mut text = format!("{}\n\nMade by `{}`:\n\n", scenario.title, source.command);
    text.extend(scenario.to_string().lines().map(|line| format!("\t{line}\n")));
    text += if source.order.is_empty() { RACE } else { ORDER };
    text += "\nBuild: cc -Wall -Wextra -pthread -o program program.c\n";
    let is_usual = profile == Profile::default();
    let uapi = if is_usual { String::new() } else { format!("--uapi {profile} ") };
    let platform = platform(scenario);
    let option = if platform.is_empty() { "" } else { "--platform platform.toml " };
    let _ = writeln!(text, "Run:   bindery run {uapi}{option}-- ./program");
    let _ = writeln!(text, "   or, on a kernel that can do it: ./program /dev/vfio/devices/vfio0");
    if !platform.is_empty() {
        text += "\nwith the platform of the lines below, whose faults strike the set-up too:\n";
        text += "sed -n 's/^ [*] | //p' program.c > platform.toml\n\n";
        text.extend(platform.lines().map(|line| format!("{PLATFORM_LINE}{line}\n")));
    }
    let _ = write!(text, "\n{}", needed(parts));
    text += "\nExits with 0 if every call answered what is expected, with 1 if one did not or has not returned,\n\
             with 2 if nothing could be set up.\n";
    let lines =
        text.lines().map(|line| format!(" * {}", harmless(line)).trim_end().to_owned() + "\n");
    format!(
        "/* SPDX-License-Identifier: Apache-2.0 OR MIT */\n/*\n{} */\n",
        lines.collect::<String>()
    )
}

const ORDER: &str = "
Each call begins at its slot: the step of the counterexample at which it began, times 10 ms (-d MS). What
happens inside of a call cannot be delayed from here; a small -d and many rounds (-n ROUNDS) get near.
";
const RACE: &str = "
The threads begin at once, -n ROUNDS times.
";

/// The text of the macro with what is needed.
pub(super) fn needs(parts: &[Part]) -> String {
    let lines = needed(parts);
    let lines: Vec<_> = lines.lines().map(|line| format!("\t\"{line}\\n\"")).collect();
    format!("#define NEEDS \\\n{}\n", lines.join(" \\\n"))
}

fn needed(parts: &[Part]) -> String {
    let mut text =
        "Needs /dev/iommu, and devices that are bound to vfio-pci: DEVICE is the file of one,\n\
                    /dev/vfio/devices/vfioN.\n"
            .to_owned();
    for (part, line) in [
        (Part::Tsm, "Needs a TSM (tsm0) that the first device can be connected with, or is.\n"),
        (
            Part::Vdevices,
            "Needs an IOMMU that can nest; build with -DVIOMMU_TYPE=N for the type that it has.\n",
        ),
        (Part::Vm, "Needs /dev/kvm.\n"),
    ] {
        text += if parts.contains(&part) { line } else { "" };
    }
    text + "Without such a machine: bindery run -- PROGRAM\n"
}

/// The platform file that Bindery needs for the scenario's settings; empty where that is the default one.
fn platform(scenario: &Scenario) -> String {
    let mut settings = String::new();
    let mut faults = String::new();
    for (key, setting) in &scenario.settings {
        let value = &setting.value;
        match key.as_str() {
            // An option, and what the program asks for itself.
            "uapi" | "viommu" => {}
            "clock" if value == "stopped" => {
                let _ = writeln!(settings, "exchange_timeout_ms = {NEVER_MS}");
            }
            "clock" => {}
            "bind" | "unbind" if value == "ok" => {}
            "bind" | "unbind" => {
                // As platform files call it.
                let fault = match value.as_str() {
                    "slow" => "slow:100",
                    "error-before" => "error-before-commit",
                    other => other,
                };
                for function in 0..=2 {
                    let _ = write!(
                        faults,
                        "\n[[fault]]\nfunction = \"b1d0:01:00.{function}\"\nfault = \"{key}={fault}\"\n"
                    );
                }
            }
            _ => {
                let _ = writeln!(settings, "{key} = \"{value}\"");
            }
        }
    }
    if settings.is_empty() && faults.is_empty() {
        return settings;
    }
    let settings = if settings.is_empty() { settings } else { format!("[settings]\n{settings}\n") };
    settings + FUNCTIONS + &faults
}

/// Where no deadline fires: longer than the program waits.
const NEVER_MS: u32 = 60_000;
/// How a line of the platform file begins in the comment.
const PLATFORM_LINE: &str = "| ";
/// The device of the default platform that scenarios are about.
const FUNCTIONS: &str = r#"[[function]]
address = "b1d0:00:01.0"
model = "root-port"
secondary_bus = 0x01

[[function]]
address = "b1d0:01:00.0"
model = "dma-engine"
tee = true
vfs = 2
"#;

/// Text that neither ends nor nests a comment.
fn harmless(line: &str) -> String {
    line.replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?").replace("??", "? ?")
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn no_title_ends_the_comment() {
        for text in ["*/", "/*/", "**//", "*/*/", "/*", "??/", "????"] {
            let harmless = harmless(text);
            assert!(!harmless.contains("*/") && !harmless.contains("/*"), "{harmless}");
            assert!(!harmless.contains("??"), "{harmless}");
        }
    }
}
