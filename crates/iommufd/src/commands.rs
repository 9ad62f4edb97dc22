//! Which function runs which command, and `IOMMU_DESTROY`, which is about any object.
//!
//! The numbers, structs and sizes are `uapi`'s; a row that is not here is a hole. Takes no lock itself.

use std::sync::Arc;

use uapi::CommandId;
use uapi::iommufd::Destroy;

use crate::dispatch::Exchange;
use crate::{Context, Refusal, hw_info, hwpt, ioas, mapping};

/// Runs a command whose struct has been read and judged.
pub(crate) type Handler = fn(&Arc<Context>, &Exchange<'_>) -> Result<(), Refusal>;

/// The function for a command; `None` where we have none.
pub(crate) fn handler(id: CommandId) -> Option<Handler> {
    HANDLERS.iter().find(|(other, _)| *other == id).map(|(_, handler)| *handler)
}

const HANDLERS: &[(CommandId, Handler)] = &[
    (CommandId::IoasMap, mapping::map),
    (CommandId::IoasUnmap, mapping::unmap),
    (CommandId::IoasMapFile, mapping::map_file),
    (CommandId::Destroy, destroy),
    (CommandId::IoasAlloc, ioas::alloc),
    (CommandId::IoasIovaRanges, ioas::iova_ranges),
    (CommandId::HwptAlloc, hwpt::alloc),
    (CommandId::GetHwInfo, hw_info::get),
];

/// Ends an object: `IOMMU_DESTROY`. Its id is free afterwards.
///
/// # Errors
/// - [`Refusal::NoObject`] (`ENOENT`)
/// - [`Refusal::Busy`] (`EBUSY`): something uses it. A device always has its binder.
fn destroy(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let argument: Destroy = exchange.argument();
    let object = ctx.registry().take(argument.id)?;
    object.destroy(ctx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use uapi::FileKind;

    use super::*;

    #[test]
    fn served_rows_and_handlers_are_the_same() {
        for row in uapi::COMMANDS.iter().filter(|row| row.file == FileKind::Iommufd) {
            assert_eq!(handler(row.id).is_some(), row.served, "{}", row.name);
        }
    }
}
