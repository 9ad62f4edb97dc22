//! The checks, in the order in which `bindery run` would stumble over them.
//!
//! Where possible each tries the very thing that a run does, in a child of its own.

use std::fs::{self, File};
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use host::process::{Forked, fork};
use host::seccomp::{Instruction, code, verdict};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, WaitOptions, pidfd_getfd, pidfd_open, waitpid,
};
use rustix::thread::{CapabilitySet, capabilities, set_no_new_privs};

use super::Check;

/// Linux 5.19: a listener whose calls only a fatal signal interrupts.
const KERNEL_NEEDED: (u32, u32) = (5, 19);
/// Linux 6.11: a mapping is looked up without reading the list of all.
const KERNEL_PROCMAP_QUERY: (u32, u32) = (6, 11);

/// Everything there is to look at.
pub(super) fn all() -> Vec<Check> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut checks = vec![kernel(&release)];
    checks.extend(listener());
    checks.extend(child());
    checks.extend([mappings(&release), yama()]);
    checks.extend([inotify_on_memfd(), inotify_limits(), sealing(), privileges(), real_devices()]);
    checks.extend(wsl());
    checks
}

fn kernel(release: &str) -> Check {
    const NAME: &str = "kernel";
    let (major, minor) = KERNEL_NEEDED;
    match version(release) {
        Some(version) if version < KERNEL_NEEDED => Check::fail(
            NAME,
            format!("Linux {release} is too old"),
            format!("use Linux {major}.{minor} or newer (any current distribution or CI image)"),
        ),
        _ => Check::ok(NAME, format!("Linux {release} ({major}.{minor} or newer is needed)")),
    }
}

/// Major and minor number of a release such as `6.18.1-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|byte: char| !byte.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// What a child exits with where it got a listener that wakes synchronously.
const LISTENER: i32 = 200;
/// Where it got a listener that does not.
const LISTENER_WITHOUT_SYNC: i32 = 201;

/// Takes a seccomp listener in a child, as every run does. The filter lets everything pass.
fn listener() -> Vec<Check> {
    const NAME: &str = "seccomp listener";
    const SYNC: &str = "synchronous wake";
    let status = in_child(|| match take_listener() {
        Ok(listener) => match listener.wake_synchronously() {
            Ok(()) => LISTENER,
            Err(_) => LISTENER_WITHOUT_SYNC,
        },
        Err(error) => error.raw_os_error().unwrap_or(1),
    });
    let granted = Check::ok(NAME, "granted: system calls can be served");
    match status {
        Ok(LISTENER) => vec![granted, Check::ok(SYNC, "available")],
        Ok(LISTENER_WITHOUT_SYNC) => {
            let slower = "not available: each served call takes about a quarter longer";
            vec![granted, Check::note(SYNC, slower, "use Linux 6.6 or newer")]
        }
        Ok(errno) => {
            let errno = Errno::from_raw_os_error(errno);
            vec![Check::fail(
                NAME,
                format!("refused: {}", plain(errno.into())),
                listener_remedy(errno),
            )]
        }
        Err(error) => {
            vec![Check::fail(NAME, format!("cannot try: {error}"), "free some memory or processes")]
        }
    }
}

fn take_listener() -> io::Result<host::notify::Listener> {
    if !may_administrate() {
        set_no_new_privs(true)?;
    }
    let allow =
        Instruction { code: code::RETURN, skip_if: 0, skip_else: 0, operand: verdict::ALLOW };
    host::seccomp::install(&[allow])
}

fn listener_remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::BUSY => {
            "another listener is on this process already: a container manager that intercepts system \
             calls (LXD), another supervisor, or WSL2 with networkingMode=mirrored (set NAT in \
             .wslconfig)"
        }
        Errno::INVAL => {
            "the kernel lacks it: gVisor (use runc or a virtual machine), or Linux before 5.19"
        }
        Errno::PERM | Errno::NOSYS => {
            "a sandbox forbids seccomp(2): use Docker's default profile (20.10 or newer), or \
             --security-opt seccomp=unconfined"
        }
        _ => "try outside of any container or sandbox",
    }
}

/// Looks into a child as a run looks into its program.
fn child() -> Vec<Check> {
    match Child::start() {
        Ok(child) => vec![memory_of(&child), files_of(&child)],
        Err(error) => {
            let found = format!("cannot start a child to look at: {error}");
            vec![Check::fail("program's memory", found, "free some memory or processes")]
        }
    }
}

fn memory_of(child: &Child) -> Check {
    const NAME: &str = "program's memory";
    let pid = child.pid.as_raw_nonzero().get();
    let opened = File::open(format!("/proc/{pid}/mem")).map(drop);
    match host::memory::reachable(pid).and(opened) {
        Ok(()) => Check::ok(NAME, "a child's memory can be read and written"),
        Err(error) => Check::fail(
            NAME,
            format!("a child's memory cannot be reached: {}", plain(error)),
            "allow tracing of one's own children: sysctl kernel.yama.ptrace_scope=1; in a container, \
             allow process_vm_readv (--cap-add SYS_PTRACE)",
        ),
    }
}

fn files_of(child: &Child) -> Check {
    const NAME: &str = "program's eventfds";
    let copied = pidfd_open(child.pid, PidfdFlags::empty())
        .and_then(|child_fd| pidfd_getfd(child_fd, child.file, PidfdGetfdFlags::empty()));
    match copied {
        Ok(_) => Check::ok(NAME, "a child's files can be copied (pidfd_getfd)"),
        Err(errno) => Check::note(
            NAME,
            format!(
                "pidfd_getfd is refused ({}): the program's eventfds are made for it instead, which \
                 works, but not for eventfds that it is handed from outside",
                plain(errno.into())
            ),
            "--cap-add SYS_PTRACE, if that matters",
        ),
    }
}

fn mappings(release: &str) -> Check {
    const NAME: &str = "PROCMAP_QUERY";
    if version(release).is_none_or(|version| version < KERNEL_PROCMAP_QUERY) {
        let found =
            "not available: mapping memory for DMA reads /proc/PID/maps, which takes longer";
        return Check::note(NAME, found, "use Linux 6.11 or newer, if that matters");
    }
    Check::ok(NAME, "available")
}

fn yama() -> Check {
    const NAME: &str = "Yama";
    const REMEDY: &str = "sysctl kernel.yama.ptrace_scope=1";
    match read_number("/proc/sys/kernel/yama/ptrace_scope") {
        None => Check::ok(NAME, "not in this kernel"),
        Some(scope @ 0..=1) => {
            Check::ok(NAME, format!("ptrace_scope {scope}: descendants may be looked into"))
        }
        Some(2) if holds(CapabilitySet::SYS_PTRACE) => {
            Check::ok(NAME, "ptrace_scope 2, and this user has CAP_SYS_PTRACE")
        }
        Some(2) => {
            Check::fail(NAME, "ptrace_scope 2: only CAP_SYS_PTRACE may look into a program", REMEDY)
        }
        Some(scope) => {
            let remedy =
                "boot with kernel.yama.ptrace_scope=1; scope 3 cannot be lowered while running";
            Check::fail(
                NAME,
                format!("ptrace_scope {scope}: nobody may look into a program"),
                remedy,
            )
        }
    }
}

/// Sees a memfd's last close, as a run sees a device file's.
fn inotify_on_memfd() -> Check {
    const NAME: &str = "last close";
    match close_is_seen() {
        Ok(true) => Check::ok(NAME, "inotify reports the last close of a memfd"),
        Ok(false) => {
            let found = "inotify does not report the last close of a memfd";
            Check::fail(NAME, found, "use a Linux kernel rather than an emulation of one")
        }
        Err(error) => Check::fail(
            NAME,
            format!("inotify cannot be used: {}", plain(error)),
            "raise the limits: sysctl fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=65536",
        ),
    }
}

fn close_is_seen() -> io::Result<bool> {
    let memfd = memfd_create("bindery-doctor", MemfdFlags::CLOEXEC)?;
    let path = format!("/proc/self/fd/{}", memfd.as_raw_fd());
    let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let close = WatchFlags::CLOSE_WRITE | WatchFlags::CLOSE_NOWRITE;
    inotify::add_watch(&queue, path.as_str(), close)?;
    drop(File::options().read(true).write(true).open(path)?);
    let mut buffer = [MaybeUninit::uninit(); 1024];
    match inotify::Reader::new(&queue, &mut buffer).next() {
        Ok(event) => Ok(event.events().contains(ReadFlags::CLOSE_WRITE)),
        Err(Errno::AGAIN) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Runs at once, each with one inotify instance, below which a machine is cramped.
const INSTANCES_COMFORTABLE: u64 = 64;

fn inotify_limits() -> Check {
    const NAME: &str = "inotify limits";
    let limit = |name: &str| read_number(&format!("/proc/sys/fs/inotify/{name}"));
    match (limit("max_user_instances"), limit("max_user_watches")) {
        (Some(instances), Some(watches)) => {
            let found = format!(
                "{instances} instances (one a run), {watches} watches (one an open file) for this user"
            );
            if instances < INSTANCES_COMFORTABLE {
                return Check::note(NAME, found, "sysctl fs.inotify.max_user_instances=512");
            }
            Check::ok(NAME, found)
        }
        _ => Check::note(NAME, "cannot be read in /proc/sys/fs/inotify", None),
    }
}

fn sealing() -> Check {
    const NAME: &str = "memfd seals";
    match sealed() {
        Ok(true) => Check::ok(NAME, "a program cannot shrink a device's memory"),
        Ok(false) | Err(_) => {
            let found = "memfd_create or its seals do not work";
            Check::fail(NAME, found, "allow memfd_create in the container's seccomp profile")
        }
    }
}

fn sealed() -> io::Result<bool> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = memfd_create("bindery-doctor", flags)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW;
    fcntl_add_seals(&memfd, seals)?;
    Ok(fcntl_get_seals(&memfd)?.contains(seals))
}

fn privileges() -> Check {
    const NAME: &str = "privileges";
    if may_administrate() {
        return Check::ok(NAME, "CAP_SYS_ADMIN: sudo and setuid programs work inside a run");
    }
    Check::note(
        NAME,
        "none, and none are needed; sudo and setuid programs gain nothing inside a run (no_new_privs)",
        "if a program needs root, run bindery itself with sudo",
    )
}

fn real_devices() -> Check {
    const NAME: &str = "real devices";
    let real: Vec<_> = ["/dev/iommu", "/dev/vfio/devices", "/dev/vfio/vfio"]
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .collect();
    if real.is_empty() {
        return Check::ok(NAME, "this machine has no /dev/iommu and no /dev/vfio of its own");
    }
    let found = format!("inside a run, {} of this machine are hidden by ours", real.join(" and "));
    Check::note(NAME, found, "to use the real ones, run the program without bindery")
}

/// Says what is special in the Windows Subsystem for Linux, where this is it.
fn wsl() -> Option<Check> {
    let version = fs::read_to_string("/proc/version").ok()?.to_lowercase();
    version.contains("microsoft").then(|| {
        Check::note(
            "WSL2",
            "this is WSL2; with networkingMode=mirrored it takes the one seccomp listener for itself",
            "keep networkingMode=NAT in .wslconfig",
        )
    })
}

/// A child that does nothing until it is dropped.
struct Child {
    pid: Pid,
    /// A descriptor that is open in it.
    file: i32,
    /// Its closing ends the child.
    leash: Option<OwnedFd>,
}

impl Child {
    fn start() -> io::Result<Self> {
        let (mut reader, writer) = io::pipe()?;
        match fork()? {
            Forked::Child => {
                drop(writer);
                // Returns when the parent has closed the other end.
                let _ = reader.read(&mut [0]);
                std::process::exit(0)
            }
            Forked::Parent(pid) => {
                Ok(Self { pid, file: reader.as_fd().as_raw_fd(), leash: Some(writer.into()) })
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.leash = None;
        // It exits by itself; waiting only keeps it from staying a zombie.
        let _ = waitpid(Some(self.pid), WaitOptions::empty());
    }
}

/// Runs `work` in a child and returns what it exits with.
fn in_child(work: impl FnOnce() -> i32) -> io::Result<i32> {
    match fork()? {
        Forked::Child => std::process::exit(work()),
        Forked::Parent(pid) => {
            let ended = waitpid(Some(pid), WaitOptions::empty())?;
            let status = ended.and_then(|(_, status)| status.exit_status());
            status.ok_or_else(|| io::Error::other("the child was killed"))
        }
    }
}

fn may_administrate() -> bool {
    holds(CapabilitySet::SYS_ADMIN)
}

fn holds(capability: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|held| held.effective.contains(capability))
}

fn read_number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The kernel's text without the number that Rust adds.
fn plain(error: io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.clone(), |(reason, _)| reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.18.44-fc-v509"), Some((6, 18)));
        assert_eq!(version("5.19.0"), Some((5, 19)));
        assert_eq!(version("6.1-rc1"), Some((6, 1)));
        assert_eq!(version("plan9"), None);
    }

    #[test]
    fn an_old_kernel_fails_and_a_strange_one_does_not() {
        use super::super::Verdict;
        assert_eq!(kernel("5.18.9").verdict, Verdict::Fail);
        assert_eq!(kernel("5.19").verdict, Verdict::Ok);
        assert_eq!(kernel("10.0.1").verdict, Verdict::Ok);
        assert_eq!(kernel("custom").verdict, Verdict::Ok);
    }

    #[test]
    fn this_machine_seals_and_sees_closes() {
        assert!(sealed().unwrap());
        assert!(close_is_seen().unwrap());
    }
}
