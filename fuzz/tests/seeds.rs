//! Every seed, without a fuzzer; and that seeds lead where they are meant to.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bindery_fuzz::commands::{self, Step};
use bindery_fuzz::input::{Input, Output};
use bindery_fuzz::{
    config_walk, device_io, device_option, dsm, engine, guest, guest_streams, guest_tables,
    mock_commands, overlay_path, platform, security, spdm_messages, spdm_sessions, trace_decode,
    words,
};
use uapi::iommufd::test_op;
use uapi::{COMMANDS, Command, CommandId, Errno, FileKind, Profile};

#[test]
fn seeds_run() {
    type Target = (&'static str, fn(&[u8]));
    let targets: [Target; 17] = [
        ("commands", commands::run),
        ("config_walk", config_walk::run),
        ("device_io", device_io::run),
        ("device_option", device_option::run),
        ("dsm", dsm::run),
        ("engine", engine::run),
        ("guest", guest::run),
        ("guest_streams", guest_streams::run),
        ("guest_tables", guest_tables::run),
        ("mock_commands", mock_commands::run),
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

/// What is refused in a seed is meant to be; and each command, each operation of tests succeeds in one of them.
#[test]
fn seeds_of_the_test_interface_reach_every_family() {
    use mock_commands::Step;
    let mut done = BTreeSet::new();
    for seed in seeds("mock_commands") {
        let answers = mock_commands::answers(&fs::read(&seed).unwrap());
        let mut refused = Vec::new();
        for (step, answer) in answers {
            let what = match &step {
                Step::Command { id: CommandId::TestCmd, words, .. } => format!("op {}", words[0]),
                Step::Command { id, .. } => Command::of(*id).name.to_owned(),
                Step::Transfer { .. } => "transfer".to_owned(),
                other => format!("{other:?}"),
            };
            match answer {
                Ok(_) => {
                    done.insert(what);
                }
                Err(errno) => refused.push(format!("{what} {errno}")),
            }
        }
        let name = seed.file_name().unwrap().to_str().unwrap().trim_start_matches("seed-");
        assert_eq!(refused, refused_in(name), "{name}");
    }
    let missing: Vec<_> = served().filter(|what| !done.contains(what)).collect();
    // It tells no address, ever.
    assert_eq!(missing, ["IOMMU_IOAS_NOIOMMU_GET_PA"]);
    assert!(done.contains("transfer"));
}

/// What a seed of the test interface asks for in vain.
fn refused_in(name: &str) -> &'static [&'static str] {
    match name {
        "addresses" => &[
            "IOMMU_IOAS_NOIOMMU_GET_PA ENOENT",
            "IOMMU_IOAS_NOIOMMU_GET_PA EOPNOTSUPP",
            "IOMMU_IOAS_NOIOMMU_GET_PA EINVAL",
            "IOMMU_IOAS_NOIOMMU_GET_PA EPERM",
        ],
        "buffers" => &["IOMMU_IOAS_MAP_FILE ENODEV"],
        "events" => &["IOMMU_DESTROY EBUSY", "op 17 EOPNOTSUPP"],
        "faults" => &["IOMMU_DESTROY EBUSY"],
        "hardware-queues" => &["IOMMU_DESTROY EBUSY", "IOMMU_IOAS_UNMAP EBUSY"],
        "locked-memory" => &["IOMMU_IOAS_MAP ENOMEM", "IOMMU_IOAS_MAP_FILE ENOMEM"],
        "pasids" => &["op 19 ENOMEM"],
        "running-out" => &[
            "IOMMU_IOAS_ALLOC ENOMEM",
            "IOMMU_IOAS_MAP ENOMEM",
            "IOMMU_HWPT_ALLOC ENOMEM",
            "IOMMU_IOAS_MAP ENOMEM",
            "IOMMU_HWPT_ALLOC ENOMEM",
            "IOMMU_HWPT_ALLOC ENOMEM",
        ],
        "windows" => &["MapWindow { context: 0, page: 1, pages: 1 } EINVAL", "IOMMU_DESTROY EBUSY"],
        _ => &[],
    }
}

/// What a context of the test interface serves, by the names above.
fn served() -> impl Iterator<Item = String> {
    let of_contexts = COMMANDS.iter().filter(|row| match row.file {
        FileKind::Iommufd => row.served && row.profiles.contains(Profile::Linux73),
        FileKind::VfioContainer => row.id != CommandId::IommuDirtyPages,
        _ => false,
    });
    let operations = test_op::ADD_RESERVED..=test_op::DMABUF_REVOKE;
    let operations = operations.map(|op| format!("op {op}"));
    of_contexts.map(|row| row.name.to_owned()).chain(operations)
}

/// The first access comes before there are tables, the last when its page is gone.
#[test]
fn guests_tables_of_a_seed_lead_somewhere() {
    for seed in seeds("guest_tables") {
        let done = guest_tables::accesses(&fs::read(seed).unwrap());
        assert_eq!(done, [false, true, true, false]);
    }
}

/// Likewise; the first is stopped for want of a descriptor, of which the guest hears.
#[test]
fn guests_streams_of_a_seed_lead_somewhere() {
    for seed in seeds("guest_streams") {
        let done = guest_streams::accesses(&fs::read(seed).unwrap());
        assert_eq!(done, [false, true, true, true, false]);
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
    for seed in seeds("mock_commands") {
        let bytes = fs::read(seed).unwrap();
        let mut input = Input::new(&bytes);
        let mut out = Output::default();
        out.put(&[input.byte()]);
        while !input.is_empty() {
            mock_commands::Step::decode(&mut input).encode(&mut out);
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
