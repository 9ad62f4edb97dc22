//! The supervisor's process: builds the machine, starts the program, serves it, and waits for the tree
//! to end.
//!
//! Threads: listeners, a worker for each function, the clock, one that tends the TSM's sessions, one that watches closes (with helpers where
//! a release is slow), one that watches the guard, one that answers `bindery ls`; the first thread
//! reaps. Takes no lock.

use std::backtrace::Backtrace;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{self, exit};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use host::signal::Mask;
use iommufd::Hardware;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, getrlimit, setpgid, setrlimit, wait,
};

use crate::closes::Closes;
use crate::control::{Control, Running};
use crate::descendants;
use crate::eventfds::Eventfds;
use crate::files::Files;
use crate::filter::{self, Offsets};
use crate::front_end::FrontEnd;
use crate::guard;
use crate::link::{Link, Message};
use crate::listener::Listeners;
use crate::machine::Machine;
use crate::overlay::Overlay;
use crate::platform::P2pMap;
use crate::process::Tasks;
use crate::requests::event_file;
use crate::run::{ExitStatus, OUR_FAILURE, Options, RunError, become_reaper};
use crate::start::{Start, Starting};
use crate::vms::Vms;
use crate::watch::Watcher;
use crate::workers;

/// Serves until the tree has ended, tells the guard, and exits.
pub(crate) fn supervise(options: Options, link: Link, mask: Mask) -> ! {
    die_with_a_line_on_panic();
    let link = Arc::new(link);
    let status = match Supervisor::begin(options, &link, mask) {
        Ok(supervisor) => supervisor.serve(),
        Err(error) => {
            say(&error.to_string());
            descendants::kill_all();
            error.status()
        }
    };
    link.send(Message::Ended(status.0), None);
    exit(status.0.into())
}

struct Supervisor {
    link: Arc<Link>,
    front: Arc<FrontEnd>,
    program: Pid,
    _control: Option<Control>,
}

impl Supervisor {
    /// Builds everything and starts the program.
    fn begin(options: Options, link: &Arc<Link>, mask: Mask) -> Result<Self, RunError> {
        become_reaper()?;
        let Options { platform, program, environment, observer } = options;
        let eventfds = Arc::new(Eventfds::new());
        let watcher = Arc::new(Watcher::new(Arc::clone(&eventfds)));
        let watched = Machine::build_watched(&platform, Arc::clone(&observer), Some(watcher));
        let machine = Arc::new(watched);
        let overlay = Overlay::new(&machine).map_err(|error| RunError::Machine(Box::new(error)))?;
        let closes = Closes::new().map_err(system("inotify"))?;
        let environment = environment_of(&machine, environment);
        let offsets = if machine.mock.is_some() { Offsets::All } else { Offsets::Devices };
        let event_numbers = event_file::numbers();
        // Every `read` costs more where its descriptor is looked at.
        let has_events = platform.settings.hardware != Hardware::Plain;
        let event_files = has_events.then_some(&event_numbers);
        let filter = filter::program(eventfds.mode(), offsets, event_files);
        let start = Start { program: &program, environment: &environment, mask, filter: &filter };
        let Starting { pid, listener, link: exec } = start.begin()?;
        link.send(Message::Started(pid), Some(listener.as_fd()));
        leave_the_foreground();
        // Slower without, and without any other difference.
        let _ = listener.wake_synchronously();
        let front = Arc::new(FrontEnd {
            listener,
            overlay,
            observer,
            profile: platform.settings.uapi,
            refuses_device_memory: platform.settings.p2p_map == P2pMap::Linux73,
            files: Arc::new(Files::default()),
            closes,
            tasks: Tasks::default(),
            eventfds,
            vms: Vms::default(),
            directories_out: AtomicBool::new(false),
            locked_memory: Arc::default(),
            event_numbers,
            machine,
        });
        // Before anybody listens to the program, which from then on gets through its exec and may ask.
        let control = listen_for_questions(&front, &program);
        start_threads(&front, link).map_err(system("starting a thread"))?;
        crate::start::finish(&exec)
            .map_err(|cause| RunError::NotExecuted { program: program[0].clone(), cause })?;
        Ok(Self { link: Arc::clone(link), front, program: pid, _control: control })
    }

    /// Waits until no process of the tree is left and everything is released.
    fn serve(self) -> ExitStatus {
        let mut status = OUR_FAILURE;
        loop {
            match wait(WaitOptions::UNTRACED | WaitOptions::CONTINUED) {
                Ok(Some((pid, _))) if pid != self.program => {}
                Ok(Some((_, change))) if change.stopped() => self.link.send(Message::Stopped, None),
                Ok(Some((_, change))) if change.continued() => {
                    self.link.send(Message::Continued, None);
                }
                Ok(Some((_, change))) => status = exit_status(change.as_raw()),
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                // No child is left; orphans would be our children.
                Err(_) => break,
            }
        }
        self.front.release_all();
        self.front.overlay.close();
        let machine = &self.front.machine;
        self.front.observer.tdis_ended(&machine.tsm.counters(), &machine.tdis_in_use());
        ExitStatus(self.front.observer.finished(status.0))
    }
}

fn start_threads(front: &Arc<FrontEnd>, link: &Arc<Link>) -> io::Result<()> {
    front.machine.clock.start()?;
    for device in &front.machine.devices {
        workers::start(Arc::clone(&device.function))?;
    }
    for device in front.machine.devices.iter().filter(|device| device.address.function() == 0) {
        let Some(manager) = device.security.clone() else { continue };
        thread::Builder::new()
            .name("sessions".to_owned())
            .spawn(move || while manager.tend() {})?;
    }
    let tsm = Arc::clone(&front.machine.tsm);
    thread::Builder::new().name("tsm".to_owned()).spawn(move || while tsm.tend() {})?;
    let closes = Arc::clone(front);
    thread::Builder::new().name("closes".to_owned()).spawn(move || closes.watch_closes())?;
    let link = Arc::clone(link);
    thread::Builder::new().name("guard watch".to_owned()).spawn(move || outlive_no_guard(&link))?;
    Listeners::start(Arc::clone(front)).map(drop)
}

/// Ends the tree and this process when the guard has died.
fn outlive_no_guard(link: &Link) -> ! {
    // The guard says nothing; what can be received is its end.
    while link.receive().is_some() {}
    loop {
        // The first thread reaps, and exits when all are gone.
        descendants::kill_children();
        thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// What its program is told: where the first device is, and that it is supervised.
fn environment_of(
    machine: &Machine,
    added: Vec<(OsString, OsString)>,
) -> Vec<(OsString, OsString)> {
    let mut environment = vec![("BINDERY".into(), process::id().to_string().into())];
    if let Some(first) = machine.devices.iter().find(|device| device.bound_at_start) {
        environment.push(("BINDERY_BDF".into(), first.address.to_string().into()));
        let node = format!("/dev/vfio/devices/vfio{}", first.vfio_index);
        environment.push(("BINDERY_CDEV".into(), node.into()));
    }
    environment.extend(added);
    environment
}

/// Leaves the terminal's foreground, whose signals are for the program, and takes as many files as may
/// be. It stays in the session: the kernel schedules a session's processes as one, and those that wake
/// each other all the time belong together.
fn leave_the_foreground() {
    // A write to a terminal from the background is not to stop us.
    let _ = Mask::of(&[guard::FORWARDED, &[Signal::TTOU, Signal::TTIN]].concat()).apply();
    // Cannot fail: a new process may have a group of its own.
    let _ = setpgid(None, None);
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn listen_for_questions(front: &Arc<FrontEnd>, program: &[OsString]) -> Option<Control> {
    let words: Vec<_> = program.iter().map(|word| word.to_string_lossy()).collect();
    let program = words.join(" ");
    let running = Running { front: Arc::clone(front), program };
    // Without a socket only those who ask miss something.
    Control::serve(running).ok()
}

/// 0..=255 as the program exited, 128+n where signal n ended it.
fn exit_status(raw: i32) -> ExitStatus {
    const SIGNALLED: i32 = 128;
    let status = process::ExitStatus::from_raw(raw);
    let number = status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal));
    number.and_then(|number| u8::try_from(number).ok()).map_or(OUR_FAILURE, ExitStatus)
}

/// A thread that panics would leave a call waiting for ever; the guard ends the tree instead.
fn die_with_a_line_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        // Empty unless RUST_BACKTRACE asks for it.
        say(&format!("internal error: {info}\n{}", Backtrace::capture()));
        process::abort();
    }));
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |cause| RunError::System { what, cause }
}

fn say(text: &str) {
    // Nobody may be listening.
    let _ = writeln!(io::stderr(), "bindery: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_a_shells() {
        assert_eq!(exit_status(0), ExitStatus(0));
        assert_eq!(exit_status(3 << 8), ExitStatus(3));
        assert_eq!(exit_status(15), ExitStatus(143));
        assert_eq!(exit_status(9 | 0x80), ExitStatus(137));
    }
}
