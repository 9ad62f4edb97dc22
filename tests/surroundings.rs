//! Where `bindery run` has to work: in a container's seccomp filter, without a runtime directory,
//! without standard files, in a directory that nobody can write, with few descriptors; with no privileges.

mod programs;

use std::path::Path;
use std::process::Command;

use libtest_mimic::{Arguments, Trial};
use programs::{BINDERY, Scratch, installed, is_root, succeed, told, unprivileged};

/// Uses an ioctl's file, a sysfs attribute and a device node.
const LOOK: &str = "test -c /dev/iommu && test -c \"$BINDERY_CDEV\" && \
                    cat /sys/bus/pci/devices/$BINDERY_BDF/vendor";

fn main() {
    let arguments = Arguments::from_args();
    let trials: [(&'static str, fn()); 6] = [
        ("nobody_where_eventfds_cannot_be_copied", nobody_where_eventfds_cannot_be_copied),
        ("no_runtime_directory", no_runtime_directory),
        ("no_temporary_directory", no_temporary_directory),
        ("no_standard_files", no_standard_files),
        ("read_only_working_directory", read_only_working_directory),
        ("few_descriptors", few_descriptors),
    ];
    let mut trials: Vec<_> = trials
        .into_iter()
        .map(|(name, test)| {
            trial(name, test)
                .with_ignored_flag(is_root() && !installed("setpriv"))
                .with_kind("needs setpriv")
        })
        .collect();
    trials.push(trial("where_eventfds_cannot_be_copied", where_eventfds_cannot_be_copied));
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial(name: &str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

fn where_eventfds_cannot_be_copied() {
    let scratch = Scratch::new();
    let interrupts = scratch.c_client("interrupts", &[]);
    let denied = scratch.c_client("denied", &[]);
    let printed = succeed(Command::new(denied).args([BINDERY, "run", "--"]).arg(interrupts));
    assert_eq!(printed, "ok\n");
}

fn nobody_where_eventfds_cannot_be_copied() {
    let scratch = Scratch::new();
    let bindery = scratch.bindery();
    let interrupts = scratch.c_client("interrupts", &[]);
    let denied = scratch.c_client("denied", &[]);
    let client = [Path::new("run"), Path::new("--"), &interrupts];
    let printed = succeed(unprivileged(&denied).arg(&bindery).args(client));
    assert_eq!(printed, "ok\n");
    let demo = succeed(
        unprivileged(&denied).arg(&bindery).args(["run", "--"]).arg(&bindery).arg("demo-client"),
    );
    assert!(demo.contains("take MSI-X vector"), "{demo}");
}

/// `bindery run` by a shell that first does `first`, by an unprivileged user; the program looks around.
fn looks(first: &str, change: impl FnOnce(&mut Command)) {
    let scratch = Scratch::new();
    let seen = scratch.path().join("seen");
    let script = format!("{first} \"$0\" run -- sh -c '{LOOK} >\"$0\"' \"$1\"");
    let mut command = unprivileged(Path::new("/bin/sh"));
    command.args(["-c", &script]).arg(scratch.bindery()).arg(&seen);
    change(&mut command);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", told(&output));
    assert_eq!(std::fs::read_to_string(seen).unwrap(), "0x1234\n", "{command:?}");
}

fn no_runtime_directory() {
    looks("", |command| {
        command.env_remove("XDG_RUNTIME_DIR").env_remove("TMPDIR");
    });
    for place in ["/nonexistent", "/proc", "/dev/null", "relative", ""] {
        looks("", |command| {
            command.env("XDG_RUNTIME_DIR", place);
        });
    }
}

/// Neither place can be had: one line that names both, and our own exit status.
fn no_temporary_directory() {
    let scratch = Scratch::new();
    let mut command = unprivileged(&scratch.bindery());
    command
        .args(["run", "--", "true"])
        .env("XDG_RUNTIME_DIR", "/proc")
        .env("TMPDIR", "/nonexistent");
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{error}");
    assert!(error.lines().count() == 1 && error.contains("/nonexistent"), "{error}");
}

fn no_standard_files() {
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        looks(&format!("exec {closed};"), |_| ());
    }
}

fn read_only_working_directory() {
    for place in ["/proc", "/sys", "/"] {
        looks("", |command| {
            command.current_dir(place);
        });
    }
}

fn few_descriptors() {
    let scratch = Scratch::new();
    let interrupts = scratch.c_client("interrupts", &[]);
    let script = "ulimit -n 64; exec \"$0\" run -- \"$1\"";
    let mut command = unprivileged(Path::new("/bin/sh"));
    command.args(["-c", script]).arg(scratch.bindery()).arg(interrupts);
    assert_eq!(succeed(&mut command), "ok\n");
}
