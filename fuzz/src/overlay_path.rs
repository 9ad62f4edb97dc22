//! Paths of any bytes, asked of the overlay in every way there is, over a machine that has nothing itself.
//!
//! The answers to one path must agree: whether it is ours, what it is, whether it can be opened.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use supervisor::machine::Machine;
use supervisor::overlay::{Opened, Overlay};
use supervisor::platform::Platform;
use uapi::Errno;

use crate::input::{Input, Output};
use crate::rig::Deaf;

/// Questions of one input.
const QUESTIONS_MAX: usize = 64;
/// More than any attribute has.
const CONTENT_MAX: u64 = 1 << 16;

/// Asks what `bytes` say.
///
/// An overlay is dear, so one serves until a write has changed it.
pub fn run(bytes: &[u8]) {
    static OVERLAY: Mutex<Option<Overlay>> = Mutex::new(None);
    let mut kept = OVERLAY.lock().unwrap_or_else(PoisonError::into_inner);
    let overlay = kept.take().unwrap_or_else(build);
    let mut input = Input::new(bytes);
    let mut written = false;
    for _ in 0..QUESTIONS_MAX {
        if input.is_empty() {
            break;
        }
        written |= ask(&overlay, &Question::decode(&mut input));
    }
    if !written {
        *kept = Some(overlay);
    }
}

fn build() -> Overlay {
    let machine = Machine::build(&Platform::default(), Arc::new(Deaf));
    Overlay::over(Path::new("/nonexistent"), &machine).expect("an overlay")
}

/// What is asked of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The flags of `open`, and the mode of `access` in the lowest byte.
    pub flags: u32,
    /// The path, up to any zero byte; a slash is put before it.
    pub path: Vec<u8>,
    /// What is written, if it turns out to be an attribute that takes writes.
    pub written: Vec<u8>,
}

/// Asks of one path; says whether a write was taken.
fn ask(overlay: &Overlay, question: &Question) -> bool {
    let end = question.path.iter().position(|byte| *byte == 0).unwrap_or(question.path.len());
    let path = [b"/", &question.path[..end]].concat();
    let metadata = overlay.metadata(&path, true);
    let link = overlay.metadata(&path, false);
    let text = overlay.readlink(&path);
    let access = overlay.access(&path, question.flags & 0xff);
    assert_eq!(metadata.is_none(), access.is_none(), "stat and access of {question:?}");
    assert_eq!(link.is_none(), text.is_none(), "lstat and readlink of {question:?}");
    if let (Some(Ok(link)), Some(text)) = (&link, &text) {
        const TYPE: u32 = 0o170_000;
        const LINK: u32 = 0o120_000;
        assert_eq!(link.mode & TYPE == LINK, text.is_ok(), "type and text of {question:?}");
    }
    for errno in [
        metadata.as_ref().and_then(|found| found.as_ref().err()),
        link.as_ref().and_then(|found| found.as_ref().err()),
        text.as_ref().and_then(|found| found.as_ref().err()),
        access.as_ref().and_then(|found| found.as_ref().err()),
    ] {
        assert!(errno.is_none_or(|errno| PATH_ERRORS.contains(errno)), "{errno:?}: {question:?}");
    }
    open(overlay, question, &path)
}

/// Opens the path, and writes where that leads to an attribute that is written.
fn open(overlay: &Overlay, question: &Question, path: &[u8]) -> bool {
    match overlay.open(path, u64::from(question.flags)) {
        Opened::NotOurs | Opened::Node(_) => {}
        Opened::Refused(errno) => {
            assert!(PATH_ERRORS.contains(&errno), "{errno}: {question:?}");
        }
        Opened::File(file) => {
            let mut content = Vec::new();
            // Directories, and what was opened for its path only, cannot be read.
            let read = File::from(file).take(CONTENT_MAX).read_to_end(&mut content);
            assert!(read.map_or(0, |length| length as u64) < CONTENT_MAX, "{question:?}");
        }
        Opened::Attribute { attribute, .. } => match attribute.write(&question.written) {
            Ok(taken) => {
                assert!(taken <= question.written.len(), "{question:?}");
                return true;
            }
            Err(errno) => assert!(WRITE_ERRORS.contains(&errno), "{errno}: {question:?}"),
        },
    }
    false
}

const PATH_ERRORS: &[Errno] = &[
    Errno::EACCES,
    Errno::EEXIST,
    Errno::EINVAL,
    Errno::EISDIR,
    Errno::ELOOP,
    Errno::ENAMETOOLONG,
    Errno::ENOENT,
    Errno::ENOTDIR,
    Errno::EOPNOTSUPP,
];

const WRITE_ERRORS: &[Errno] = &[
    Errno::EBUSY,
    Errno::EEXIST,
    Errno::EINVAL,
    Errno::EIO,
    Errno::ENODEV,
    Errno::ENOENT,
    Errno::ENOTTY,
    Errno::EPERM,
    Errno::ERANGE,
];

impl Question {
    /// The next question of an input.
    pub fn decode(input: &mut Input<'_>) -> Self {
        Self { flags: input.dword(), path: input.counted(), written: input.counted() }
    }

    /// The bytes that [`decode`](Self::decode) takes for this question.
    pub fn encode(&self, out: &mut Output) {
        out.put(&self.flags.to_le_bytes());
        out.counted(&self.path);
        out.counted(&self.written);
    }
}
