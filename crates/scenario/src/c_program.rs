//! A scenario as a C program: threads, system calls, and an order of them as delays.
//!
//! The program makes the calls that the explored threads make, on the machine that it runs on. What it cannot do is
//! to interrupt a call at a step inside it: its order is one of the calls' begins, each at the step of the schedule
//! at which it began, so many milliseconds a step. It prints what each call answered and compares that with what
//! may be answered. `run.c` is the same in every program; `pieces` has what depends on the calls. Takes no lock.

mod data;
mod pieces;
mod remarks;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use explore::Event;
use uapi::{CommandId, Header, Profile};

use self::pieces::{Part, Piece, text};
use crate::file::Scenario;
use crate::script::{Step, Threads};
use crate::words::Call;

/// What the program is made from.
pub struct Source<'s> {
    /// The scenario, with the threads that the program is to have.
    pub scenario: &'s Scenario,
    /// When each call begins, by thread and call, in steps; none: as soon as it can.
    pub order: BTreeMap<(usize, usize), usize>,
    /// The command that makes the program.
    pub command: &'s str,
}

/// A call that a C program cannot make.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call} has no form in C: {reason}")]
pub struct NoForm {
    /// The call.
    pub call: Call,
    /// Its bytes in the text that it comes from.
    pub at: Range<usize>,
    /// Why.
    pub reason: String,
}

/// The text of the program.
///
/// # Errors
/// The first call that has no form.
pub fn c_program(source: &Source<'_>) -> Result<String, NoForm> {
    let scenario = source.scenario;
    let profile = profile(scenario);
    let mut calls: Vec<Piece> = Vec::new();
    for step in steps(scenario) {
        let piece = piece(step, profile)?;
        if !calls.iter().any(|known| known.name == piece.name) {
            calls.push(piece);
        }
    }
    let parts = parts(scenario, &calls);
    let mut program = remarks::comment(source, profile, &parts);
    program += &definitions(scenario, profile, &parts, &calls);
    program += include_str!("c_program/open.c");
    for part in &parts {
        program += &part_text(*part, &parts, scenario);
    }
    program += &set_up(&parts);
    program += "\n/* ---- The calls ------------------------------------------------------------------------------ */\n";
    calls.iter().for_each(|call| program += call.text());
    program += &data::tables(source);
    program += include_str!("c_program/run.c");
    Ok(program)
}

/// When each call of a tale began, by thread and call, in steps. Calls that never began come last.
pub fn order(threads: &Threads, tale: &[Event]) -> BTreeMap<(usize, usize), usize> {
    let mut order = BTreeMap::new();
    let mut step = 0;
    let mut next: BTreeMap<usize, usize> = BTreeMap::new();
    let mut waiting: BTreeSet<usize> = BTreeSet::new();
    for event in tale {
        let Some(thread) = event.thread else {
            step += usize::from(event.is_step);
            continue;
        };
        if event.what.starts_with("--> ") {
            waiting.insert(thread);
        } else if event.is_step {
            if waiting.remove(&thread) {
                let call = next.entry(thread).or_default();
                order.insert((thread, *call), step);
                *call += 1;
            }
            step += 1;
        }
    }
    for (thread, steps) in threads.iter().enumerate() {
        (0..steps.len()).for_each(|call| {
            order.entry((thread, call)).or_insert(step);
        });
    }
    order
}

fn profile(scenario: &Scenario) -> Profile {
    let chosen = scenario.settings.get("uapi");
    chosen.and_then(|setting| Profile::from_name(&setting.value)).unwrap_or_default()
}

fn steps(scenario: &Scenario) -> impl Iterator<Item = &Step> {
    scenario.setup.iter().chain(scenario.threads.iter().flatten())
}

fn piece(step: &Step, profile: Profile) -> Result<Piece, NoForm> {
    let no_form = |reason: String| NoForm { call: step.call, at: step.at.clone(), reason };
    let piece = pieces::call(step.call.verb, profile == Profile::Rfc2025_05)
        .map_err(|reason| no_form(reason.to_owned()))?;
    let excerpt = Header::of(profile).excerpt(piece.commands, piece.constants);
    match excerpt.missing() {
        Some(missing) => Err(no_form(format!("profile {profile} has no {missing}"))),
        None => Ok(piece),
    }
}

/// What has to be set up, in order.
fn parts(scenario: &Scenario, calls: &[Piece]) -> Vec<Part> {
    let value = |key: &str| scenario.settings.get(key).map(|setting| setting.value.as_str());
    let is_needed = |part: &Part| {
        *part == Part::Files
            || calls.iter().any(|call| call.parts.contains(part))
            || *part == Part::Vm && value("tvm") == Some("kvm")
            || *part == Part::Tsm && value("viommu") == Some("realm")
    };
    Part::ALL.into_iter().filter(is_needed).collect()
}

fn definitions(scenario: &Scenario, profile: Profile, parts: &[Part], calls: &[Piece]) -> String {
    let pieces: Vec<Piece> =
        parts.iter().map(|part| part.piece()).chain(calls.iter().copied()).collect();
    let commands: Vec<CommandId> =
        pieces.iter().flat_map(|piece| piece.commands).copied().collect();
    let mut constants: Vec<&str> =
        pieces.iter().flat_map(|piece| piece.constants).copied().collect();
    if parts.contains(&Part::Vdevices) {
        constants.push(viommu_type(scenario));
    }
    let excerpt = Header::of(profile).excerpt(&commands, &constants);
    let numbers = steps(scenario).map(|step| step.call.number);
    let devices = numbers.max().unwrap_or(0) + 1;
    let kvm = if parts.contains(&Part::Vm) { "#include <linux/kvm.h>\n" } else { "" };
    let mmap = if parts.contains(&Part::Page) { "#include <sys/mman.h>\n" } else { "" };
    let needs = remarks::needs(parts);
    format!(
        "#define _GNU_SOURCE\n#include <errno.h>\n#include <fcntl.h>\n#include <linux/ioctl.h>\n{kvm}\
         #include <linux/types.h>\n#include <pthread.h>\n#include <stddef.h>\n#include <stdio.h>\n\
         #include <stdlib.h>\n#include <string.h>\n#include <sys/ioctl.h>\n{mmap}#include <time.h>\n\
         #include <unistd.h>\n\nenum {{ DEVICES = {devices} }};\n\n{needs}\n\
         /* ---- From `bindery uapi --header {profile}`: neither <linux/iommufd.h> nor <linux/vfio.h> is\n\
         \u{20}*      needed, of whichever version they are ---- */\n\n{excerpt}\n"
    )
}

/// The vIOMMU that the scenario has.
fn viommu_type(scenario: &Scenario) -> &'static str {
    match scenario.settings.get("viommu").map(|setting| setting.value.as_str()) {
        Some("realm") => "IOMMU_VIOMMU_TYPE_ARM_REALM_SMMUV3",
        _ => "IOMMU_VIOMMU_TYPE_ARM_SMMUV3",
    }
}

fn part_text(part: Part, parts: &[Part], scenario: &Scenario) -> String {
    let link = if parts.contains(&Part::Vm) { text("link") } else { "" };
    part.piece().text().replace("@LINK@\n", link).replace("@TYPE@", viommu_type(scenario))
}

fn set_up(parts: &[Part]) -> String {
    let lines = |indent: &str, line: fn(&Piece) -> &'static str| -> String {
        let lines = parts.iter().map(|part| line(&part.piece())).filter(|line| !line.is_empty());
        lines.map(|line| format!("{indent}{line}\n")).collect()
    };
    let once = lines("\t", |piece| piece.once);
    let each = lines("\t\t", |piece| piece.each);
    let has = |part: &Part, text: &'static str| if parts.contains(part) { text } else { "" };
    let vm = has(&Part::Vm, "\tclose(vm_device);\n\tclose(vm);\n");
    let vdevices = has(
        &Part::Vdevices,
        "\tfor (unsigned int n = 0; n < DEVICES; n++) {\n\t\tdestroy(devices[n].viommu);\n\
         \t\tdestroy(devices[n].parent);\n\t}\n",
    );
    format!(
        "\nstatic void set_up(void)\n{{\n{once}\
         \tfor (unsigned int n = 0; n < DEVICES; n++) {{\n{each}\t}}\n}}\n\
         \n/* What the calls have closed and destroyed is gone already. */\nstatic void tear_down(void)\n{{\n\
         \tfor (unsigned int n = 0; n < DEVICES; n++)\n\t\tclose(devices[n].vfio);\n\
         {vdevices}\tdestroy(ioas);\n\tclose(iommu);\n{vm}}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script;

    fn event(thread: Option<usize>, what: &str, is_step: bool) -> Event {
        Event { thread, what: what.to_owned(), at: None, is_step }
    }

    #[test]
    fn a_call_begins_at_its_first_step() {
        let threads = script::parse("map; unmap | close vfio0; close iommu").unwrap();
        let tale = [
            event(Some(0), "--> map ioas", false),
            event(Some(1), "--> close vfio0", false),
            event(Some(1), "lock A", true),
            event(Some(1), "unlock A", false),
            event(None, "fire Deadline", true),
            event(Some(0), "lock B", true),
            event(Some(0), "<-- map ioas = ok", false),
            event(Some(0), "--> unmap ioas", false),
            event(Some(1), "lock C", true),
            event(Some(0), "lock D", true),
        ];
        let order = order(&threads, &tale);
        let slots = [((0, 0), 2), ((0, 1), 4), ((1, 0), 0), ((1, 1), 5)];
        assert_eq!(order, BTreeMap::from(slots), "what never began comes last");
    }

    #[test]
    fn the_program_has_what_its_calls_need_and_no_more() {
        let program = |line: &str| {
            let scenario = Scenario::of(script::parse(line).unwrap());
            let order = BTreeMap::new();
            c_program(&Source { scenario: &scenario, order, command: "bindery" }).unwrap()
        };
        let map = program("map -> ok, EEXIST | unmap");
        assert!(map.contains(".expected = { 0, EEXIST }, .expected_count = 2"), "{map}");
        assert!(map.contains("#define IOMMU_IOAS_UNMAP "), "{map}");
        for absent in ["tsm", "kvm", "VIOMMU", "pread", "@"] {
            assert!(!map.contains(absent), "{absent}\n{map}");
        }
        let bind = program("tsm_bind vdev1 | close vm");
        for there in
            ["enum { DEVICES = 2 };", "<linux/kvm.h>", "KVM_DEV_VFIO_FILE_ADD", "connect_tsm"]
        {
            assert!(bind.contains(there), "{there}\n{bind}");
        }
    }
}
