//! Settings of a context and of its address spaces: `IOMMU_OPTION`.
//!
//! Takes OBJECTS or IOPT_IOVA, one at a time. Source: [uapi/iommufd.h]; order of checks from v7.3 `main.c`, `ioas.c`.

use std::sync::Arc;

use uapi::iommufd::{IommuOption, option, option_op};

use crate::dispatch::Exchange;
use crate::ioas::Ioas;
use crate::{Context, Refusal};

/// Gets or sets a setting.
///
/// # Errors
/// In this order:
/// - [`Refusal::ReservedField`], [`Refusal::NoSuchOperation`] (`EOPNOTSUPP`): the option.
/// - as [`limits`] or [`large_pages`].
/// - [`Refusal::Unreachable`] (`EFAULT`): the answer cannot be written.
pub(crate) fn option(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let mut argument: IommuOption = exchange.argument();
    exchange.refuse_reserved(argument.reserved.into())?;
    match argument.option_id {
        option::RLIMIT_MODE => limits(ctx, exchange, &mut argument)?,
        option::HUGE_PAGES => large_pages(ctx, &mut argument)?,
        op => return Err(Refusal::NoSuchOperation { op }),
    }
    exchange.respond(&argument)
}

/// Whom pinned pages are charged to: the user (0) or the process (1). Nothing is charged here, so that this is only
/// remembered.
///
/// # Errors
/// - [`Refusal::NoSuchOperation`] (`EOPNOTSUPP`): of an object; neither GET nor SET.
/// - SET: [`Refusal::NotPrivileged`] (`EPERM`), [`Refusal::ContextInUse`] (`EBUSY`), [`Refusal::OptionValue`]
///   (`EINVAL`).
fn limits(
    ctx: &Context,
    exchange: &Exchange<'_>,
    argument: &mut IommuOption,
) -> Result<(), Refusal> {
    if argument.object_id != 0 {
        return Err(Refusal::NoSuchOperation { op: argument.option_id });
    }
    match argument.op {
        option_op::GET => argument.val64 = ctx.charges_process().into(),
        option_op::SET => {
            if !exchange.caller().may_raise_limits() {
                return Err(Refusal::NotPrivileged);
            }
            if !ctx.registry().is_unused() {
                return Err(Refusal::ContextInUse);
            }
            ctx.charge_process(flag(argument.val64)?);
        }
        op => return Err(Refusal::NoSuchOperation { op: op.into() }),
    }
    Ok(())
}

/// Whether page tables of an address space may have leaves larger than the client's pages.
///
/// # Errors
/// - [`Refusal::NoObject`] (`ENOENT`)
/// - SET: as [`Ioas::disable_large_pages`] (`EINVAL`, `EADDRINUSE`), [`Refusal::OptionValue`] (`EINVAL`).
/// - [`Refusal::NoSuchOperation`] (`EOPNOTSUPP`): neither GET nor SET.
fn large_pages(ctx: &Context, argument: &mut IommuOption) -> Result<(), Refusal> {
    let ioas = ctx.get::<Ioas>(argument.object_id)?;
    match argument.op {
        option_op::GET => argument.val64 = ioas.large_pages().into(),
        option_op::SET if flag(argument.val64)? => ioas.space.lock().enable_large_pages(),
        option_op::SET => ioas.disable_large_pages()?,
        op => return Err(Refusal::NoSuchOperation { op: op.into() }),
    }
    Ok(())
}

const fn flag(value: u64) -> Result<bool, Refusal> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Refusal::OptionValue { value }),
    }
}
