//! The window of a vIOMMU of the mock, which a client asks for by its data.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::failure;
use crate::hardware::UserData;
use crate::window::Window;
use crate::{Caller, Context, Refusal, Resource};

/// `struct iommu_viommu_selftest`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes)]
#[repr(C)]
struct ViommuData {
    in_data: u32,
    out_data: u32,
    out_mmap_offset: u64,
    out_mmap_length: u64,
}

/// Bytes that a client's data have at least.
const BYTES_MIN: u32 = 8;
/// Two pages.
const WINDOW_BYTES: usize = 0x2000;

/// Opens a window whose first word is what the client gave, and tells the client where.
///
/// # Errors
/// There is none then.
/// - As [`UserData::read`] (`EINVAL`, `EFAULT`)
/// - [`Refusal::Exhausted`], [`Refusal::NoWindowFree`] (`ENOMEM`), or why the file has no memory for it.
/// - [`Refusal::Unreachable`] (`EFAULT`)
pub(crate) fn open_window(
    ctx: &Context,
    caller: &dyn Caller,
    data: &UserData<'_>,
) -> Result<Window, Refusal> {
    let mut told: ViommuData = data.read(BYTES_MIN)?;
    ctx.quota().admit(Resource::Buffer, 1)?;
    let window = ctx.windows().take(WINDOW_BYTES as u64)?;
    told.out_data = told.in_data;
    (told.out_mmap_offset, told.out_mmap_length) = (window.offset, window.length);
    let mut bytes = vec![0; WINDOW_BYTES];
    bytes[..size_of::<u32>()].copy_from_slice(told.in_data.as_bytes());
    let filled = caller.fill_window(ctx, window.offset, &bytes);
    let filled = filled.map_err(|errno| failure("a window without memory", errno));
    match filled.and_then(|()| data.write(&told)) {
        Ok(()) => Ok(window),
        Err(refusal) => {
            ctx.windows().free(&window);
            Err(refusal)
        }
    }
}
