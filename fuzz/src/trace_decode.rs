//! The trace, for calls whose bytes are anything: each call is one line of printable text.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::OnceLock;

use supervisor::{Call, Observer, OpenFile, ReportOptions, Reports, Thread, TraceTo};
use uapi::{COMMANDS, Errno, FileKind, Profile};

use crate::input::{Input, Output};

/// Calls of one input.
const CALLS_MAX: usize = 64;

/// Traces the calls that `bytes` say; the first byte says in which profile.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let profile = Profile::ALL[input.choice(Profile::ALL.len())];
    let trace = Some(TraceTo::File(page()));
    let reports = Reports::new(ReportOptions { profile, trace, ..ReportOptions::default() });
    let reports = reports.expect("the page can be written");
    let mut count = 0;
    while !input.is_empty() && count < CALLS_MAX {
        Told::decode(&mut input).tell(&reports);
        count += 1;
    }
    drop(reports);
    let text = fs::read_to_string(page()).expect("a trace is text");
    assert_eq!(text.lines().count(), count, "{text}");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}

/// A file without a name.
fn page() -> PathBuf {
    static PAGE: OnceLock<File> = OnceLock::new();
    let page = PAGE.get_or_init(|| {
        // Where there is a file system in memory, a line costs little.
        let memory = PathBuf::from("/dev/shm");
        let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let path = folder.join(format!("bindery-fuzz-{}", std::process::id()));
        let open = OpenOptions::new().write(true).create_new(true).open(&path);
        let page = open.expect("a temporary file");
        fs::remove_file(&path).expect("our own file goes away");
        page
    });
    PathBuf::from(format!("/proc/self/fd/{}", page.as_raw_fd()))
}

/// A call and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What was called: an open, a command, a read, a write or a mapping.
    pub call: u8,
    /// Index in [`COMMANDS`] of a command, which says the kind of file too.
    pub row: u8,
    /// Where it is not zero: the command's number instead of the row's.
    pub request: u32,
    /// 0 for success, else an error number.
    pub errno: u8,
    /// Offset or argument.
    pub offset: u64,
    /// Bytes asked for.
    pub count: u64,
    /// What was sent, read or written; a path.
    pub sent: Vec<u8>,
    /// The struct as it is after the command.
    pub returned: Vec<u8>,
}

impl Told {
    fn tell(&self, reports: &Reports) {
        let row = COMMANDS[usize::from(self.row) % COMMANDS.len()];
        let path = match row.file {
            FileKind::Iommufd => "/dev/iommu",
            FileKind::VfioDevice => "/dev/vfio/devices/vfio0",
            FileKind::VfioGroup | FileKind::VfioContainer | FileKind::MigrationData => {
                "/dev/vfio/1"
            }
        };
        let file = OpenFile { serial: 1, kind: row.file, path: path.to_owned(), opener: 2 };
        let (file, fd, offset, count, bytes) = (&file, 3, self.offset, self.count, &*self.sent);
        let path = String::from_utf8_lossy(&self.sent);
        let request = if self.request == 0 { row.request } else { self.request };
        let call = match self.call % 5 {
            0 => Call::Ioctl {
                fd,
                file,
                request,
                argument: offset,
                sent: bytes,
                returned: &self.returned,
            },
            1 => Call::Open { path: &path, file: Some(file) },
            2 => Call::Read { fd, file, offset, count, bytes },
            3 => Call::Write { fd, file, offset, count, bytes },
            _ => Call::Map { fd, file, offset, length: count },
        };
        let answer = Errno::from_raw(self.errno.into()).map_or(Ok(count), Err);
        reports.call(Thread { process: 4, id: 5 }, &call, answer);
    }

    /// The next call of an input.
    pub fn decode(input: &mut Input<'_>) -> Self {
        Self {
            call: input.byte(),
            row: input.byte(),
            request: input.dword(),
            errno: input.byte(),
            offset: input.qword(),
            count: input.qword(),
            sent: input.counted(),
            returned: input.counted(),
        }
    }

    /// The bytes that [`decode`](Self::decode) takes for this call.
    pub fn encode(&self, out: &mut Output) {
        out.put(&[self.call, self.row]);
        out.put(&self.request.to_le_bytes());
        out.put(&[self.errno]);
        out.put(&self.offset.to_le_bytes());
        out.put(&self.count.to_le_bytes());
        out.counted(&self.sent);
        out.counted(&self.returned);
    }
}
