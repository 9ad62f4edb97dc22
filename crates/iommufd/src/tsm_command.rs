//! The TSM commands on a vdevice: binding its TDI, and what its guest asks of the TSM.
//!
//! No released kernel has them; each profile has those of one published series, see the command table.
//!
//! A command looks whether the vdevice exists, reads the guest's request and what that points to, and only then holds the vdevice,
//! lets it go before anything is written back, and holds no lock in between: who ends the device waits for the TSM,
//! which can be cancelled, and never for the client's memory. So a vdevice can end while its request is read;
//! then the command is refused as if it had come later.
//!
//! **An answer that cannot be written.** The request was done, and the command says `EFAULT`. What only reads
//! can be asked again and nothing is lost. Of what changes a state the client learns by asking for the
//! state; nothing is undone, since a guest may have seen it already.
//!
//! Takes OBJECTS. Source: [tsm-rfc-v5], [tsm-rfc-v7], [tsm-rfc-2025-05]. What is ours, where these say nothing:
//! the order of id, operation and lengths; the limits of lengths.

use std::sync::Arc;

use tsm::{Arch, GuestRequest, GuestResponse, Op, State};
use uapi::iommufd::{
    TsmGuestRequest, TsmOp, TsmReq, TsmReqV5, tsm_op, tsm_request, tsm_scope, tvm_arch,
};

use crate::dispatch::Exchange;
use crate::tdi::Origin;
use crate::vdevice::Vdevice;
use crate::{Caller, Context, PAGE_SIZE, Refusal};

/// Binds or unbinds the TDI of a vdevice: `IOMMU_VDEVICE_TSM_OP`. Waits for the device. Binding again, to the
/// same VM and under the same number, does nothing; so does unbinding what is not bound.
///
/// # Errors
/// In this order:
/// - [`Refusal::UnknownFlags`] (`EOPNOTSUPP`): any flag.
/// - [`Refusal::NoObject`] (`ENOENT`)
/// - [`Refusal::NoVm`] (`ENODEV`), for unbinding too.
/// - [`Refusal::UnknownOperation`] (`EINVAL`)
/// - [`Refusal::NoTsm`] (`EOPNOTSUPP`)
/// - binding: [`Refusal::Resetting`] (`EBUSY`), [`Refusal::Tsm`] as [`tsm::Registry::bind`].
pub(crate) fn op(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let argument: TsmOp = exchange.argument();
    exchange.refuse_flags(argument.flags, 0)?;
    let vdevice = ctx.get::<Vdevice>(argument.vdevice_id)?;
    vdevice.check_vm()?;
    match argument.r#type {
        tsm_op::BIND => vdevice.bind(Origin::Iommufd),
        tsm_op::UNBIND => vdevice.unbind(),
        value => Err(Refusal::UnknownOperation { field: "type", value }),
    }
}

/// Passes a guest's request to the TSM and its answer back: `IOMMU_VDEVICE_TSM_REQ`. Returns how many bytes of
/// room the answer left; if there was no room for one, how many bytes of the request were not used. The
/// TSM's code is written whatever the outcome. Waits for the device.
///
/// # Errors
/// In this order:
/// - [`Refusal::NoObject`] (`ENOENT`)
/// - [`Refusal::UnknownOperation`] (`EINVAL`): the architecture, then the operation; one of SEV's with another
///   architecture too.
/// - [`Refusal::TooMuch`] (`E2BIG`): the request, then the room for the answer.
/// - [`Refusal::Unreachable`] (`EFAULT`): the request.
/// - [`Refusal::NoObject`] (`ENOENT`): the vdevice ended meanwhile.
/// - [`Refusal::NoTsm`] (`EOPNOTSUPP`)
/// - [`Refusal::Tsm`]: as [`tsm::Registry::request`]; `ENXIO` where it is not bound.
/// - [`Refusal::Unreachable`] (`EFAULT`): the answer cannot be written; the request was done.
/// - [`Refusal::Unreachable`] (`EFAULT`), in place of any of these: the code cannot be written.
pub(crate) fn request(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<u32, Refusal> {
    let mut argument: TsmReq = exchange.argument();
    let buffers = Buffers {
        request: Buffer { at: argument.req_uptr, length: argument.req_len },
        response: Buffer { at: argument.resp_uptr, length: argument.resp_len },
    };
    let answer = ask(ctx, exchange.caller(), argument.vdevice_id, &buffers, || {
        let arch = architecture(argument.tvm_arch)?;
        Ok((arch, operation(argument.op, arch)?))
    });
    argument.tsm_code = match &answer {
        Ok(answer) => answer.code,
        Err(Refusal::Tsm(refusal)) => refusal.tsm_code(),
        Err(_) => 0,
    };
    let left = answer.and_then(|answer| buffers.deliver(exchange.caller(), &answer));
    exchange.respond(&argument)?;
    left
}

/// Passes a guest's request of a scope to the TSM: `IOMMU_VDEVICE_TSM_REQ` as in v5 of its series. Returns
/// what [`request`] does. Waits for the device.
///
/// # Errors
/// In this order:
/// - [`Refusal::ReservedField`] (`EOPNOTSUPP`)
/// - as [`request`], with a scope in place of architecture and operation, and no code. The scopes for
///   debugging are refused by the TSM core (`EINVAL`).
pub(crate) fn request_v5(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<u32, Refusal> {
    let argument: TsmReqV5 = exchange.argument();
    exchange.refuse_reserved(argument.reserved)?;
    let buffers = Buffers {
        request: Buffer { at: argument.req_uptr, length: argument.req_len },
        response: Buffer { at: argument.resp_uptr, length: argument.resp_len },
    };
    let answer =
        ask(ctx, exchange.caller(), argument.vdevice_id, &buffers, || match argument.scope {
            scope @ tsm_scope::INFO..=tsm_scope::DEBUG_WRITE => Ok((Arch::Cca, Op::Scope(scope))),
            value => Err(Refusal::UnknownOperation { field: "scope", value }),
        })?;
    buffers.deliver(exchange.caller(), &answer)
}

/// Asks the TSM for what a TDX host can ask: `IOMMU_VDEVICE_TSM_GUEST_REQUEST`. The type says what; its further
/// information and the request are not looked at, since none of the types needs any. `resp_len` comes back
/// as the bytes written. Waits for the device.
///
/// # Errors
/// In this order:
/// - [`Refusal::NoObject`] (`ENOENT`)
/// - [`Refusal::UnknownOperation`] (`EINVAL`): the type.
/// - [`Refusal::TooMuch`] (`E2BIG`): the room for the answer.
/// - [`Refusal::NoTsm`] (`EOPNOTSUPP`)
/// - [`Refusal::NotBound`] (`ENOENT`)
/// - [`Refusal::Tsm`]: as [`tsm::Registry::request`].
/// - [`Refusal::Unreachable`] (`EFAULT`): the answer, then the struct; the request was done.
pub(crate) fn guest_request(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let mut argument: TsmGuestRequest = exchange.argument();
    let vdevice = argument.vdevice_id;
    let buffers = Buffers {
        request: Buffer { at: 0, length: 0 },
        response: Buffer { at: argument.resp_uptr, length: argument.resp_len },
    };
    ctx.check::<Vdevice>(vdevice)?;
    let (op, payload) = host_request(argument.r#type)?;
    buffers.check()?;
    let request =
        GuestRequest { arch: Arch::Tdx, op, request: &payload, response_room: argument.resp_len };
    let answer = match pass(ctx, exchange.caller(), vdevice, &request) {
        Err(Refusal::Tsm(tsm::Refusal::NotBound { .. })) => {
            return Err(Refusal::NotBound { vdevice });
        }
        answer => answer?,
    };
    argument.resp_len -= buffers.deliver(exchange.caller(), &answer)?.min(argument.resp_len);
    exchange.respond(&argument)
}

/// Pages of a guest's request at most: room for the longest message of SPDM.
const REQUEST_PAGES_MAX: u64 = 16;

/// Pages of room for an answer at most: the largest evidence object has 16 MiB.
const RESPONSE_PAGES_MAX: u64 = 4096;

/// Memory of the client's.
struct Buffer {
    at: u64,
    length: u32,
}

impl Buffer {
    fn check(&self, pages_max: u64) -> Result<(), Refusal> {
        let most = u32::try_from(pages_max * PAGE_SIZE).unwrap_or(u32::MAX);
        if self.length > most {
            return Err(Refusal::TooMuch { length: self.length, most });
        }
        Ok(())
    }
}

/// Where a guest's request is, and where its answer goes.
struct Buffers {
    request: Buffer,
    response: Buffer,
}

impl Buffers {
    /// # Errors
    /// [`Refusal::TooMuch`] (`E2BIG`).
    fn check(&self) -> Result<(), Refusal> {
        self.request.check(REQUEST_PAGES_MAX)?;
        self.response.check(RESPONSE_PAGES_MAX)
    }

    /// # Errors
    /// [`Refusal::TooMuch`] (`E2BIG`), [`Refusal::Unreachable`] (`EFAULT`).
    fn read_request(&self, caller: &dyn Caller) -> Result<Vec<u8>, Refusal> {
        self.check()?;
        let mut bytes = vec![0; self.request.length as usize];
        caller.read(self.request.at, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes the answer and returns what is left over: room for it, or, if there was none, bytes of the
    /// request.
    ///
    /// # Errors
    /// [`Refusal::Unreachable`] (`EFAULT`).
    fn deliver(&self, caller: &dyn Caller, answer: &GuestResponse) -> Result<u32, Refusal> {
        if self.response.length == 0 {
            return Ok(self.request.length.saturating_sub(answer.consumed));
        }
        if !answer.bytes.is_empty() {
            caller.write(self.response.at, &answer.bytes)?;
        }
        let written = u32::try_from(answer.bytes.len()).unwrap_or(u32::MAX);
        Ok(self.response.length.saturating_sub(written))
    }
}

/// Judges a request, reads it and passes it on. `decode` is asked once the vdevice is seen to exist.
fn ask(
    ctx: &Context,
    caller: &dyn Caller,
    vdevice_id: u32,
    buffers: &Buffers,
    decode: impl FnOnce() -> Result<(Arch, Op), Refusal>,
) -> Result<GuestResponse, Refusal> {
    ctx.check::<Vdevice>(vdevice_id)?;
    let (arch, op) = decode()?;
    let request = buffers.read_request(caller)?;
    let response_room = buffers.response.length;
    pass(ctx, caller, vdevice_id, &GuestRequest { arch, op, request: &request, response_room })
}

/// Reads what a request points to, then passes it on, holding the vdevice.
fn pass(
    ctx: &Context,
    caller: &dyn Caller,
    vdevice_id: u32,
    request: &GuestRequest<'_>,
) -> Result<GuestResponse, Refusal> {
    let pointed_to = PointedTo::by(request, caller);
    let vdevice = ctx.get::<Vdevice>(vdevice_id)?;
    let (tsm, function) = vdevice.tsm()?;
    let cancel = vdevice.device().gate().enter(Origin::Iommufd)?;
    Ok(tsm.request(function, request, &pointed_to, &cancel)?)
}

/// What a request points to in the client's memory, as it was before anybody could wait for the request.
struct PointedTo {
    at: u64,
    /// `None` where there is nothing, or it cannot be read.
    bytes: Option<Vec<u8>>,
}

impl PointedTo {
    fn by(request: &GuestRequest<'_>, caller: &dyn Caller) -> Self {
        let (at, length) = request.points_to().unwrap_or_default();
        let mut bytes = vec![0; length];
        let is_read = caller.read(at, &mut bytes).is_ok();
        Self { at, bytes: is_read.then_some(bytes) }
    }
}

impl tsm::Memory for PointedTo {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), tsm::Unreachable> {
        let bytes = self.bytes.as_ref().filter(|bytes| at == self.at && bytes.len() == into.len());
        into.copy_from_slice(bytes.ok_or(tsm::Unreachable)?);
        Ok(())
    }
}

fn architecture(value: u32) -> Result<Arch, Refusal> {
    match value {
        tvm_arch::CCA => Ok(Arch::Cca),
        tvm_arch::SEV => Ok(Arch::Sev),
        tvm_arch::TDX => Ok(Arch::Tdx),
        value => Err(Refusal::UnknownOperation { field: "tvm_arch", value }),
    }
}

fn operation(value: u32, arch: Arch) -> Result<Op, Refusal> {
    match value {
        tsm_request::VALIDATE_MMIO => Ok(Op::ValidateMmio),
        tsm_request::SET_TDI_STATE => Ok(Op::SetTdiState),
        tsm_request::SEV_ENABLE_DMA if arch == Arch::Sev => Ok(Op::SevEnableDma),
        tsm_request::SEV_DISABLE_DMA if arch == Arch::Sev => Ok(Op::SevDisableDma),
        tsm_request::READ_OBJECT => Ok(Op::ReadObject),
        tsm_request::REGEN_OBJECT => Ok(Op::RegenObject),
        tsm_request::OBJECT_INFO => Ok(Op::ObjectInfo),
        value => Err(Refusal::UnknownOperation { field: "op", value }),
    }
}

/// What a TDX host asks for by a type of the series of 2025-05, and the payload that says so.
fn host_request(value: u32) -> Result<(Op, Vec<u8>), Refusal> {
    const BIND: u32 = 1;
    const START: u32 = 2;
    const GET_STATE: u32 = 3;
    const STOP: u32 = 4;
    let set = |state: State| Ok((Op::SetTdiState, u32::from(state as u8).to_le_bytes().to_vec()));
    match value {
        BIND => set(State::Locked),
        START => set(State::Run),
        GET_STATE => Ok((Op::GetState, Vec::new())),
        STOP => set(State::Unlocked),
        value => Err(Refusal::UnknownOperation { field: "type", value }),
    }
}
