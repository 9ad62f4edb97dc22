//! Copies between this process and another, by address.
//!
//! Takes no lock. A copy ends at the first page that may not be touched, at a page boundary on the
//! other side. Source: process_vm_readv(2).

#![expect(unsafe_code, reason = "UNSAFETY: process_vm_* read or fill the local slice we pass")]

use std::io;

/// Smallest page of every supported architecture.
const PAGE_BYTES: u64 = 4096;
/// Pieces in one system call: enough for 64 KiB.
const PIECES: usize = 16;

/// Copies from `address` of the process that `thread` is in; returns how many leading bytes could be read.
pub fn read(thread: i32, address: u64, into: &mut [u8]) -> usize {
    let mut done = 0;
    while done < into.len() {
        let Some(at) = address.checked_add(done as u64) else { break };
        let wanted = &mut into[done..];
        let local = libc::iovec { iov_base: wanted.as_mut_ptr().cast(), iov_len: wanted.len() };
        let mut pieces = [NOTHING; PIECES];
        let (count, bytes) = cut(at, wanted.len(), &mut pieces);
        // SAFETY: `local` is exactly the live, exclusive slice `wanted`, and the kernel writes at most
        // `bytes <= wanted.len()` there. The remote addresses are the other process's affair.
        let copied = unsafe {
            libc::process_vm_readv(thread, &raw const local, 1, pieces.as_ptr(), count, 0)
        };
        let Ok(copied) = usize::try_from(copied) else { break };
        done += copied;
        if copied < bytes {
            break;
        }
    }
    done
}

/// Copies to `address` of the process that `thread` is in; returns how many leading bytes could be written.
pub fn write(thread: i32, address: u64, from: &[u8]) -> usize {
    let mut done = 0;
    while done < from.len() {
        let Some(at) = address.checked_add(done as u64) else { break };
        let wanted = &from[done..];
        let local =
            libc::iovec { iov_base: wanted.as_ptr().cast_mut().cast(), iov_len: wanted.len() };
        let mut pieces = [NOTHING; PIECES];
        let (count, bytes) = cut(at, wanted.len(), &mut pieces);
        // SAFETY: `local` is exactly the live slice `wanted`, which the kernel only reads.
        let copied = unsafe {
            libc::process_vm_writev(thread, &raw const local, 1, pieces.as_ptr(), count, 0)
        };
        let Ok(copied) = usize::try_from(copied) else { break };
        done += copied;
        if copied < bytes {
            break;
        }
    }
    done
}

/// Tells why [`read`] cannot reach a process at all, by reading nothing from it.
///
/// # Errors
/// `EPERM` – it may not be traced; `ESRCH` – it is gone; `ENOSYS` – the kernel lacks the call.
pub fn reachable(process: i32) -> io::Result<()> {
    let nothing = NOTHING;
    // SAFETY: both vectors have no bytes.
    let result =
        unsafe { libc::process_vm_readv(process, &raw const nothing, 1, &raw const nothing, 1, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

const NOTHING: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// Cuts `length` bytes at `at` at page boundaries: the kernel counts partial copies by whole piece, so
/// only so does a copy stop at the first bad page and not before it. Returns how many pieces there are,
/// and the bytes in them.
fn cut(at: u64, length: usize, pieces: &mut [libc::iovec; PIECES]) -> (u64, usize) {
    let (mut count, mut bytes) = (0, 0);
    for piece in pieces {
        if bytes == length {
            break;
        }
        let start = at.wrapping_add(bytes as u64);
        let room = usize::try_from(PAGE_BYTES - start % PAGE_BYTES).unwrap_or(usize::MAX);
        let take = room.min(length - bytes);
        piece.iov_base = std::ptr::without_provenance_mut(usize::try_from(start).unwrap_or(0));
        piece.iov_len = take;
        bytes += take;
        count += 1;
    }
    (count, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};

    fn me() -> i32 {
        std::process::id().cast_signed()
    }

    /// Two pages of which only the first can be touched.
    fn half_mapped() -> u64 {
        // SAFETY: a new mapping whose address the kernel chooses.
        let area = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                8192,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }
        .unwrap();
        // SAFETY: the second page of that mapping, to which no reference exists.
        unsafe { mprotect(area.byte_add(4096), 4096, MprotectFlags::empty()) }.unwrap();
        area as u64
    }

    #[test]
    fn copies_what_lies_before_a_bad_page() {
        let area = half_mapped();
        let address = area + 4096 - 10;
        assert_eq!(write(me(), address, &[7; 40]), 10);
        let mut bytes = [0; 40];
        assert_eq!(read(me(), address, &mut bytes), 10);
        assert_eq!((&bytes[..10], &bytes[10..]), (&[7; 10][..], &[0; 30][..]));
        assert_eq!(read(me(), area + 4096, &mut bytes), 0);
        assert_eq!(read(me(), u64::MAX - 3, &mut bytes), 0);
    }

    #[test]
    fn copies_more_than_one_call_takes() {
        let source: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
        let mut copy = vec![0; source.len()];
        assert_eq!(read(me(), source.as_ptr() as u64, &mut copy), source.len());
        assert_eq!(source, copy);
        reachable(me()).unwrap();
    }
}
