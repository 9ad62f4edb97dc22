//! What a process has mapped, asked one address at a time.
//!
//! [`Mappings`] is an open `/proc/PID/maps`. It belongs to the address space, not to the process
//! number: after an exec or exit it answers [`Lookup::Gone`]. Takes no lock.
//! Source: [uapi/fs.h] `PROCMAP_QUERY` (Linux 6.11); proc_pid_maps(5) where the kernel is older.

#![expect(unsafe_code, reason = "UNSAFETY: an ioctl whose argument is a struct the kernel fills")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// An address space's list of mappings.
#[derive(Debug)]
pub struct Mappings {
    file: File,
    process: i32,
    text_only: AtomicBool,
}

/// A run of addresses mapped alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// May be read.
    pub readable: bool,
    /// May be written.
    pub writable: bool,
    /// Writes are seen by others who map the same.
    pub shared: bool,
    /// Where in the file `start` lies, in bytes.
    pub file_offset: u64,
    /// Inode number of the file; 0 for none.
    pub inode: u64,
    /// The file's device.
    pub device: (u32, u32),
}

/// What lies at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// A mapping that covers it.
    Mapped(Mapping),
    /// Nothing.
    Unmapped,
    /// The address space has ended.
    Gone,
}

impl Mappings {
    /// Opens the list of `process`.
    ///
    /// # Errors
    /// `ENOENT` or `ESRCH` – no such process; `EACCES` – it may not be traced.
    pub fn open(process: i32) -> io::Result<Self> {
        let file = File::open(format!("/proc/{process}/maps"))?;
        Ok(Self { file, process, text_only: AtomicBool::new(false) })
    }

    /// What lies at `address`.
    ///
    /// # Errors
    /// Whatever reading proc may answer beyond [`Lookup`].
    pub fn at(&self, address: u64) -> io::Result<Lookup> {
        if !self.text_only.load(Ordering::Relaxed) {
            match self.query(address) {
                Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {
                    self.text_only.store(true, Ordering::Relaxed);
                }
                answer => return answer,
            }
        }
        self.search_text(address)
    }

    /// All of them, as they are one after another; none once the address space has ended.
    ///
    /// # Errors
    /// Whatever reading proc may answer beyond its end.
    pub fn all(&self) -> io::Result<Vec<Mapping>> {
        Ok(self.text()?.lines().filter_map(parse).collect())
    }

    fn query(&self, address: u64) -> io::Result<Lookup> {
        let mut query =
            Query { size: size_of::<Query>() as u64, query_address: address, ..Query::default() };
        // SAFETY: `query` is a live struct of the size it states, with no name or build ID wanted, so
        // that the kernel writes nowhere else.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), PROCMAP_QUERY, &raw mut query) };
        if result == 0 {
            return Ok(Lookup::Mapped(query.mapping()));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(Lookup::Unmapped),
            Some(libc::ESRCH) => Ok(Lookup::Gone),
            _ => Err(error),
        }
    }

    /// As [`query`](Self::query) by reading the list as text. The process is named by number here.
    fn search_text(&self, address: u64) -> io::Result<Lookup> {
        let text = self.text()?;
        if text.is_empty() {
            return Ok(Lookup::Gone);
        }
        let covering =
            text.lines().filter_map(parse).find(|m| m.start <= address && address < m.end);
        Ok(covering.map_or(Lookup::Unmapped, Lookup::Mapped))
    }

    /// The list as text; empty once the address space has ended.
    fn text(&self) -> io::Result<String> {
        match std::fs::read_to_string(format!("/proc/{}/maps", self.process)) {
            Err(error)
                if error.raw_os_error() == Some(libc::ESRCH)
                    || error.kind() == io::ErrorKind::NotFound =>
            {
                Ok(String::new())
            }
            text => text,
        }
    }
}

/// `struct procmap_query`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Query {
    size: u64,
    query_flags: u64,
    query_address: u64,
    start: u64,
    end: u64,
    flags: u64,
    page_bytes: u64,
    file_offset: u64,
    inode: u64,
    device_major: u32,
    device_minor: u32,
    name_size: u32,
    build_id_size: u32,
    name_address: u64,
    build_id_address: u64,
}

const _: () = assert!(size_of::<Query>() == 104);

/// `_IOWR('f', 17, struct procmap_query)`.
const PROCMAP_QUERY: libc::Ioctl = 0xc068_6611;
const READABLE: u64 = 1;
const WRITABLE: u64 = 2;
const SHARED: u64 = 8;

impl Query {
    fn mapping(&self) -> Mapping {
        Mapping {
            start: self.start,
            end: self.end,
            readable: self.flags & READABLE != 0,
            writable: self.flags & WRITABLE != 0,
            shared: self.flags & SHARED != 0,
            file_offset: self.file_offset,
            inode: self.inode,
            device: (self.device_major, self.device_minor),
        }
    }
}

/// One line: `start-end perms offset major:minor inode path`.
fn parse(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?.as_bytes();
    let file_offset = hex(fields.next()?)?;
    let (major, minor) = fields.next()?.split_once(':')?;
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        readable: permissions.first() == Some(&b'r'),
        writable: permissions.get(1) == Some(&b'w'),
        shared: permissions.get(3) == Some(&b's'),
        file_offset,
        inode: fields.next()?.parse().ok()?,
        device: (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_and_text_agree() {
        let mappings = Mappings::open(std::process::id().cast_signed()).unwrap();
        let local = 0_u64;
        for address in [&raw const local as u64, query_and_text_agree as *const () as u64] {
            let text = mappings.search_text(address).unwrap();
            assert!(matches!(text, Lookup::Mapped(m) if m.readable && m.start <= address));
            assert_eq!(mappings.at(address).unwrap(), text);
        }
        assert_eq!(mappings.at(16).unwrap(), Lookup::Unmapped);
        assert_eq!(mappings.search_text(16).unwrap(), Lookup::Unmapped);
        assert!(
            mappings.all().unwrap().iter().any(|mapping| mapping.start <= &raw const local as u64)
        );
    }

    #[test]
    fn says_when_the_process_has_ended() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let mappings = Mappings::open(child.id().cast_signed()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(mappings.at(16).unwrap(), Lookup::Gone);
    }

    #[test]
    fn parses_a_line() {
        let mapping = parse("7f00-8000 rw-s 00001000 00:01 4242   /memfd:x (deleted)").unwrap();
        assert_eq!((mapping.start, mapping.end, mapping.file_offset), (0x7f00, 0x8000, 0x1000));
        assert!(mapping.readable && mapping.writable && mapping.shared);
        assert_eq!((mapping.device, mapping.inode), ((0, 1), 4242));
        assert_eq!(parse("nonsense"), None);
    }
}
