//! The programs that black-box tests run, and as whom.

#![expect(dead_code, reason = "each test target uses its own part of this module")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// The command under test.
pub(crate) const BINDERY: &str = env!("CARGO_BIN_EXE_bindery");

const C_CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../clients/c");
/// Nobody: the user that tests run as when they want no privileges.
pub(crate) const NOBODY: &str = "65534";

/// `bindery run` with `options`; the program and its arguments follow.
pub(crate) fn run(options: &[&str]) -> Command {
    let mut command = Command::new(BINDERY);
    command.arg("run").args(options).arg("--");
    command
}

/// A directory of the test's own that every user can read, gone with this value.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes a fresh directory.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("bindery-test-{}-{count}", std::process::id()));
        fs::create_dir(&path).expect("a fresh directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("it is ours");
        Self(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Compiles a C client into it.
    pub(crate) fn c_client(&self, name: &str, flags: &[&str]) -> PathBuf {
        let program = self.0.join(name);
        let source = Path::new(C_CLIENTS).join(format!("{name}.c"));
        let output = Command::new("cc")
            .args(["-O1", "-Wall", "-Werror", "-pthread", "-o"])
            .arg(&program)
            .arg(source)
            .args(flags)
            .output()
            .expect("a C compiler is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        program
    }

    /// `bindery run` with VFIO's own type1 behind `/dev/vfio/vfio`; the program and its arguments follow.
    pub(crate) fn run_with_type1(&self) -> Command {
        let path =
            self.platform("vfio_container = \"iommufd\"", "vfio_container = \"vfio_iommu_type1\"");
        run(&["--platform", path.to_str().expect("a path in plain text")])
    }

    /// The default platform's file with `now` where it says `before`.
    pub(crate) fn platform(&self, before: &str, now: &str) -> PathBuf {
        let default = supervisor::DEFAULT_TOML;
        let own = default.replace(before, now);
        assert_ne!(own, default, "the default platform says {before}");
        let path = self.0.join("platform.toml");
        fs::write(&path, own).expect("the platform file is written");
        path
    }

    /// Copies the command under test into it, where every user may run it.
    pub(crate) fn bindery(&self) -> PathBuf {
        let copy = self.0.join("bindery");
        fs::copy(BINDERY, &copy).expect("the command can be copied");
        copy
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `program` as a user without any capability: as root through setpriv, else as we are.
pub(crate) fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
        .args(["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"])
        .arg(program)
        .env_remove("XDG_RUNTIME_DIR")
        .env("HOME", "/");
    command
}

/// Whether the test itself has root's powers.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether `program` is in the PATH.
pub(crate) fn installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    })
}

/// Runs to the end; panics with both outputs unless it exits 0. Returns what it printed.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", told(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Status and both outputs, for a failure message.
pub(crate) fn told(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
