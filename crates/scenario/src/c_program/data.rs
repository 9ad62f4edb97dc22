//! The tables of the program: who makes which call when, and what it may answer.
//!
//! Takes no lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use uapi::{Errno, Profile};

use super::{Source, pieces, profile, steps};
use crate::script::{Outcome, Step};

/// The tables, and the numbers that `run.c` wants.
pub(super) fn tables(source: &Source<'_>) -> String {
    let scenario = source.scenario;
    let profile = profile(scenario);
    let expected: Vec<_> = steps(scenario).filter_map(|step| step.expected.as_ref()).collect();
    let most = expected.iter().map(|expected| expected.len()).max().unwrap_or(0).max(1);
    let calls = scenario.threads.iter().map(Vec::len).max().unwrap_or(0) + 1;
    let slots = source.order.values().max().unwrap_or(&0) + 1;
    let threads = scenario.threads.len();
    let mut text = format!(
        "{}\nenum {{ THREADS = {threads}, CALLS = {calls}, SLOTS = {slots} }};\n",
        pieces::text("call").replace("@MOST@", &most.to_string())
    );
    let nowhere = BTreeMap::new();
    text += "\nstatic const struct call set_up_calls[] = {\n";
    for (index, step) in scenario.setup.iter().enumerate() {
        text += &row("\t", step, (0, index), &nowhere, profile);
    }
    text += "\t{ .name = NULL },\n};\n\nstatic const struct call threads[THREADS][CALLS] = {\n";
    for (thread, steps) in scenario.threads.iter().enumerate() {
        text += "\t{\n";
        for (index, step) in steps.iter().enumerate() {
            text += &row("\t\t", step, (thread, index), &source.order, profile);
        }
        text += "\t},\n";
    }
    text += "};\n";
    text + &names(expected.into_iter().flatten())
}

fn row(
    indent: &str,
    step: &Step,
    place: (usize, usize),
    order: &BTreeMap<(usize, usize), usize>,
    profile: Profile,
) -> String {
    let function = pieces::call(step.call.verb, profile == Profile::Rfc2025_05)
        .map_or("", |piece| piece.function());
    let slot = order.get(&place).copied().unwrap_or(0);
    let mut row = format!(
        "{indent}{{ .name = \"{}\", .make = {function}, .device = {}, .slot = {slot}",
        step.call, step.call.number
    );
    if let Some(expected) = step.expected.as_ref().filter(|expected| !expected.is_empty()) {
        let numbers: Vec<_> = expected.iter().map(number).collect();
        let _ = write!(
            row,
            ",\n{indent}  .expected = {{ {} }}, .expected_count = {}",
            numbers.join(", "),
            numbers.len()
        );
    }
    row + " },\n"
}

/// An outcome as the program compares it: by the name that `errno.h` has, where it has one.
fn number(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok => "0".to_owned(),
        Outcome::Refused(errno) if errno.raw() <= LAST_OF_ERRNO_H => errno.name().to_owned(),
        Outcome::Refused(errno) => errno.raw().to_string(),
    }
}

/// Linux has errnos for itself above.
const LAST_OF_ERRNO_H: i32 = 133;

/// What outcomes are called: those that are expected, and what these calls answer else.
fn names<'o>(expected: impl Iterator<Item = &'o Outcome>) -> String {
    let usual = USUAL.iter().map(|errno| Outcome::Refused(*errno));
    let all: BTreeSet<_> = usual.chain([Outcome::Ok]).chain(expected.copied()).collect();
    let mut text =
        "\nstatic const struct {\n\tint error;\n\tconst char *name;\n} names[] = {\n".to_owned();
    for outcome in all {
        let _ = writeln!(text, "\t{{ {}, \"{outcome}\" }},", number(&outcome));
    }
    text + "};\n\n"
}

const USUAL: [Errno; 16] = [
    Errno::EPERM,
    Errno::ENOENT,
    Errno::EINTR,
    Errno::EIO,
    Errno::ENXIO,
    Errno::EBADF,
    Errno::ENOMEM,
    Errno::EACCES,
    Errno::EFAULT,
    Errno::EBUSY,
    Errno::EEXIST,
    Errno::ENODEV,
    Errno::EINVAL,
    Errno::ENOTTY,
    Errno::EOPNOTSUPP,
    Errno::ETIMEDOUT,
];
