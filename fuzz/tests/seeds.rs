//! Every seed, without a fuzzer; and that seeds lead where they are meant to.

use std::fs;
use std::path::{Path, PathBuf};

use bindery_fuzz::commands::{self, Step};
use bindery_fuzz::input::{Input, Output};
use bindery_fuzz::{
    config_walk, device_io, device_option, dsm, engine, guest, guest_tables, overlay_path,
    platform, security, spdm_messages, spdm_sessions, trace_decode, words,
};
use uapi::{COMMANDS, Errno};

#[test]
fn seeds_run() {
    type Target = (&'static str, fn(&[u8]));
    let targets: [Target; 15] = [
        ("commands", commands::run),
        ("config_walk", config_walk::run),
        ("device_io", device_io::run),
        ("device_option", device_option::run),
        ("dsm", dsm::run),
        ("engine", engine::run),
        ("guest", guest::run),
        ("guest_tables", guest_tables::run),
        ("overlay_path", overlay_path::run),
        ("platform", platform::run),
        ("spdm_messages", spdm_messages::run),
        ("spdm_sessions", spdm_sessions::run),
        ("tdisp", security::run),
        ("trace_decode", trace_decode::run),
        ("words", words::run),
    ];
    for (target, run) in targets {
        let seeds = seeds(target);
        assert!(!seeds.is_empty(), "{target} has no seed");
        for seed in seeds {
            println!("{}", seed.display());
            run(&fs::read(seed).unwrap());
        }
    }
}

/// The commands of a seed are those that a client would issue, so they succeed.
#[test]
fn command_seeds_go_deep() {
    for seed in seeds("commands") {
        let answers = commands::answers(&fs::read(&seed).unwrap());
        let refused = answers.iter().filter_map(|(step, answer)| Some(told(step, answer.err()?)));
        let refused: Vec<String> = refused.collect();
        let expected: &[&str] = if seed.ends_with("seed-two-contexts") {
            &["VFIO_DEVICE_BIND_IOMMUFD EPERM", "Raw EINVAL", "Raw ENOTTY"]
        } else {
            &[]
        };
        assert_eq!(refused, expected, "{}", seed.display());
    }
}

/// The first access comes before there are tables, the last when its page is gone.
#[test]
fn guests_tables_of_a_seed_lead_somewhere() {
    for seed in seeds("guest_tables") {
        let done = guest_tables::accesses(&fs::read(seed).unwrap());
        assert_eq!(done, [false, true, true, false]);
    }
}

#[test]
fn steps_are_read_as_they_were_written() {
    for seed in seeds("commands") {
        let bytes = fs::read(seed).unwrap();
        let mut input = Input::new(&bytes);
        let mut out = Output::default();
        while !input.is_empty() {
            Step::decode(&mut input).encode(&mut out);
        }
        assert_eq!(out.into_bytes(), bytes);
    }
}

fn told(step: &Step, errno: Errno) -> String {
    match step {
        Step::Command { row, .. } => format!("{} {errno}", COMMANDS[usize::from(*row)].name),
        Step::Raw { .. } => format!("Raw {errno}"),
        other => format!("{other:?} {errno}"),
    }
}

fn seeds(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let seed = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("seed-");
    let mut seeds: Vec<_> = files.filter(seed).collect();
    seeds.sort();
    seeds
}
