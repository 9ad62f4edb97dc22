//! Reads and writes of device regions. VFIO serves each piece of a vector on its own, so a vector ends
//! where a piece was moved short. Source: pread(2), preadv(2); [vfio.h].

use uapi::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::{Reply, Request, Target, recorded};
use crate::files::Object;
use crate::filter::ATTRIBUTE_WRITE_BYTES;
use crate::observer::Call;
use crate::overlay::Attribute;
use crate::reach::Touch;

/// Most pieces of a vector: `IOV_MAX`.
const PIECES_MOST: u64 = 1024;
/// Most bytes of one call: `MAX_RW_COUNT`.
const BYTES_MOST: u64 = 0x7fff_f000;
/// The one flag that files with plain reads and writes take: `RWF_HIPRI`.
const HIGH_PRIORITY: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

/// A piece of the program's memory (`struct iovec`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes)]
#[repr(C)]
struct Piece {
    at: u64,
    length: u64,
}

pub(super) fn pread(request: &Request<'_>, fd: i32, at: u64, length: u64, offset: u64) -> Reply {
    transfer(request, fd, Direction::Read, offset, || Ok(vec![Piece { at, length }]))
}

pub(super) fn pwrite(request: &Request<'_>, fd: i32, at: u64, length: u64, offset: u64) -> Reply {
    transfer(request, fd, Direction::Write, offset, || Ok(vec![Piece { at, length }]))
}

/// `preadv` and `preadv2`.
pub(super) fn preadv(
    request: &Request<'_>,
    fd: i32,
    vector: u64,
    count: u64,
    offset: u64,
    flags: u32,
) -> Reply {
    transfer(request, fd, Direction::Read, offset, || read_vector(request, vector, count, flags))
}

/// `pwritev` and `pwritev2`.
pub(super) fn pwritev(
    request: &Request<'_>,
    fd: i32,
    vector: u64,
    count: u64,
    offset: u64,
    flags: u32,
) -> Reply {
    transfer(request, fd, Direction::Write, offset, || read_vector(request, vector, count, flags))
}

/// Moves every piece, until one is moved short or fails.
fn transfer(
    request: &Request<'_>,
    fd: i32,
    direction: Direction,
    offset: u64,
    pieces: impl FnOnce() -> Result<Vec<Piece>, Errno>,
) -> Reply {
    let Some(target) = request.target(fd) else { return Reply::Continue };
    let allowed = match direction {
        Direction::Read => target.file.access.read,
        Direction::Write => target.file.access.write,
    };
    let number = match target.file.object {
        Object::Attribute(ref attribute) => {
            return attribute_transfer(request, &**attribute, direction, offset, pieces);
        }
        _ if !allowed => return Reply::Error(Errno::EBADF),
        Object::Events(_) => return Reply::Error(Errno::ESPIPE),
        Object::Iommufd(_)
        | Object::Group(_)
        | Object::Container(_)
        | Object::Access(_)
        | Object::DmaBuf(_) => {
            return Reply::Error(Errno::EINVAL);
        }
        Object::Vfio { number, .. } => number,
    };
    let pieces = match pieces() {
        Ok(pieces) => pieces,
        Err(errno) => return Reply::Error(errno),
    };
    request.complete_closes(Touch::Device(number));
    let mut moved = 0;
    for piece in pieces {
        let length = piece.length.min(BYTES_MOST - moved);
        let piece = Piece { length, ..piece };
        match transfer_piece(request, &target, direction, piece, offset + moved) {
            Ok(count) => {
                moved += count;
                if count < length {
                    break;
                }
            }
            Err(errno) if moved == 0 => return Reply::Error(errno),
            Err(_) => break,
        }
    }
    Reply::Value(moved)
}

/// Reads or writes the first piece of an attribute that says how things are when it is read. Others are as they were when
/// they were opened, which the kernel serves.
fn attribute_transfer(
    request: &Request<'_>,
    attribute: &dyn Attribute,
    direction: Direction,
    offset: u64,
    pieces: impl FnOnce() -> Result<Vec<Piece>, Errno>,
) -> Reply {
    let Some(text) = attribute.read() else { return Reply::Continue };
    let piece = match pieces() {
        Ok(pieces) => pieces.first().copied().unwrap_or_default(),
        Err(errno) => return Reply::Error(errno),
    };
    let length = usize::try_from(piece.length).unwrap_or(usize::MAX);
    match direction {
        Direction::Read => {
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            let rest = text.as_bytes().get(from..).unwrap_or_default();
            let bytes = &rest[..rest.len().min(length)];
            request.give(piece.at, bytes).map(|()| bytes.len() as u64).into()
        }
        Direction::Write => {
            let mut buffer = [0; *ATTRIBUTE_WRITE_BYTES.end() as usize];
            let Some(bytes) = buffer.get_mut(..length) else { return Reply::Error(Errno::EINVAL) };
            if host::memory::read(request.call.thread, piece.at, bytes) != length {
                return Reply::Error(Errno::EFAULT);
            }
            attribute.write(bytes).map(|count| count as u64).into()
        }
    }
}

fn transfer_piece(
    request: &Request<'_>,
    target: &Target,
    direction: Direction,
    piece: Piece,
    offset: u64,
) -> Result<u64, Errno> {
    let Object::Vfio { file: device, .. } = &target.file.object else { return Err(Errno::EINVAL) };
    let _running = target.file.begin().ok_or(Errno::EBADF)?;
    let client = request.client(&target.task, piece.at);
    let Piece { at, length: count } = piece;
    let answer = match direction {
        Direction::Read => device.read(&client, at, count, offset),
        Direction::Write => device.write(&client, at, count, offset),
    };
    let (sent, returned) = recorded(&client);
    let (fd, file) = (target.fd, &target.file.told);
    let call = match direction {
        Direction::Read => Call::Read { fd, file, offset, count, bytes: &returned },
        Direction::Write => Call::Write { fd, file, offset, count, bytes: &sent },
    };
    request.front.observer.call(request.caller(&target.task), &call, answer);
    answer
}

/// Copies and checks a vector, in the kernel's order.
fn read_vector(
    request: &Request<'_>,
    at: u64,
    count: u64,
    flags: u32,
) -> Result<Vec<Piece>, Errno> {
    if count > PIECES_MOST {
        return Err(Errno::EINVAL);
    }
    let mut pieces = vec![Piece::default(); usize::try_from(count).map_err(|_| Errno::EINVAL)?];
    let bytes = pieces.as_mut_slice().as_mut_bytes();
    if host::memory::read(request.call.thread, at, bytes) != bytes.len() {
        return Err(Errno::EFAULT);
    }
    if pieces.iter().any(|piece| i64::try_from(piece.length).is_err()) {
        return Err(Errno::EINVAL);
    }
    if flags & !HIGH_PRIORITY != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(pieces)
}
