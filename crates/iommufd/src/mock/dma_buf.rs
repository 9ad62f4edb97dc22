//! Buffers of no device in particular, to be mapped through their files and revoked.
//!
//! Takes IOPT_IOVA of one address space at a time.

use uapi::Errno;

use super::{TestCommand, failure};
use crate::dispatch::Exchange;
use crate::dma_buf::DmaBuf;
use crate::{Context, FileFault, PAGE_SIZE, Refusal, Resource};

/// Bytes of a buffer at most.
const BYTES_MOST: u32 = 2 << 20;

/// Makes a buffer, of whole pages, and returns the descriptor of its file.
///
/// # Errors
/// `EINVAL` for no length or too great a one; [`Refusal::Exhausted`] (`ENOMEM`); `ENOMEM` where the client can have no more
/// files. There is no buffer then, and no descriptor.
pub(super) fn create(
    ctx: &Context,
    exchange: &Exchange<'_>,
    argument: &TestCommand,
) -> Result<u32, Refusal> {
    let [length, open_flags, ..] = argument.fields;
    if length == 0 || length > BYTES_MOST {
        return Err(failure("no such length of a buffer", Errno::EINVAL));
    }
    ctx.quota().admit(Resource::Buffer, 1)?;
    let buffer = DmaBuf::new(u64::from(length).next_multiple_of(PAGE_SIZE));
    let installed = exchange.caller().install_dma_buf(&buffer, open_flags);
    let fd = installed.map_err(|_| failure("no descriptor", Errno::ENOMEM))?;
    Ok(fd.cast_unsigned())
}

/// Takes a buffer back, or lends it again. Either way what is mapped of it leads nowhere any more, for good: when this
/// returns no DMA reaches it.
///
/// # Errors
/// `EBADF` for no open file, `EINVAL` for one that is no buffer's.
pub(super) fn set_revoked(exchange: &Exchange<'_>, argument: &TestCommand) -> Result<(), Refusal> {
    let [fd, revoked, ..] = argument.fields;
    let buffer = exchange.caller().dma_buf(fd.cast_signed()).map_err(|fault| match fault {
        FileFault::Closed => Refusal::BadFd { fd: fd.cast_signed() },
        FileFault::OtherKind => failure("no buffer's file", Errno::EINVAL),
    })?;
    buffer.set_revoked(revoked != 0);
    Ok(())
}
