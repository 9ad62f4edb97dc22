//! What guests ask: payloads, and what becomes of them.
//!
//! Source: arm64 uAPI `rmi-da.h` of the CCA tree for payloads; where another architecture's is not
//! public, CCA's is taken: policies in [`super`].

use tdisp::exchange::NONCE_BYTES;
use tdisp::{Nonce, State};

use super::Dialect;
use super::dialogue::Dialogue;
use super::interface::Interface;
use super::link::Link;
use super::mmio::Wanted;
use crate::fault::Operation;
use crate::guest::REGEN_WITH_NONCE;
use crate::{
    Arch, Exchange, Failure, GuestRequest, GuestResponse, Memory, ObjectKind, Op, Refusal,
};

/// SET_TDI_STATE of SEV: START; any other value is STOP.
const SEV_RUN: u8 = 1;

/// What SET_TDI_STATE wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Unlocked,
    Locked,
    Run,
}

/// Does what a guest asks.
///
/// # Errors
/// [`Refusal::OtherArch`] first, then by operation.
pub(super) fn serve(
    interface: &mut Interface,
    link: &mut Link,
    request: &GuestRequest<'_>,
    memory: &dyn Memory,
    exchange: &mut Exchange<'_>,
) -> Result<GuestResponse, Failure> {
    let request = &of_own_arch(interface.dialect(), request);
    admit(interface, request).map_err(Failure::refused)?;
    match request.op {
        Op::SetTdiState | Op::Scope(Op::SCOPE_STATE_CHANGE) => {
            set_state(interface, request, &mut Dialogue::new(exchange, link))
        }
        Op::GetState => {
            let dialogue = &mut Dialogue::new(exchange, link);
            let state = interface.ask_state(Operation::State, dialogue)?;
            answer(request, 0, &(state as u32).to_le_bytes()).map_err(Failure::refused)
        }
        Op::RegenObject => regenerate(interface, link, request, memory, exchange),
        Op::ValidateMmio => validate(interface, request).map_err(Failure::refused),
        Op::SevEnableDma | Op::SevDisableDma => {
            let enabled = request.op == Op::SevEnableDma;
            interface.set_dma(enabled).map_err(Failure::refused)?;
            Ok(done(request.request.len()))
        }
        Op::ReadObject => read(interface, link, request).map_err(Failure::refused),
        Op::ObjectInfo => describe(interface, link, request).map_err(Failure::refused),
        Op::Scope(_) => info(interface, request).map_err(Failure::refused),
    }
}

/// Scopes came before architectures: what is asked by scope is meant for whatever TSM there is.
fn of_own_arch<'r>(dialect: Dialect, request: &GuestRequest<'r>) -> GuestRequest<'r> {
    let arch = match (request.op, dialect) {
        (Op::Scope(_), Dialect::Cca) => Arch::Cca,
        (Op::Scope(_), Dialect::Sev) => Arch::Sev,
        (Op::Scope(_), Dialect::Tdx) => Arch::Tdx,
        _ => request.arch,
    };
    GuestRequest { arch, ..*request }
}

/// Whether the TSM takes the request at all, in the state that it believes in.
fn admit(interface: &Interface, request: &GuestRequest<'_>) -> Result<(), Refusal> {
    let GuestRequest { arch, op, .. } = *request;
    let own = match interface.dialect() {
        Dialect::Any => true,
        Dialect::Cca => arch == Arch::Cca,
        Dialect::Sev => arch == Arch::Sev,
        Dialect::Tdx => arch == Arch::Tdx,
    };
    let of_sev = matches!(op, Op::SevEnableDma | Op::SevDisableDma);
    if !own || of_sev && arch != Arch::Sev {
        return Err(Refusal::OtherArch { arch, op });
    }
    if let Op::Scope(scope) = op
        && scope > Op::SCOPE_STATE_CHANGE
    {
        return Err(Refusal::Field { op, field: "scope", value: scope.into() });
    }
    let settles = matches!(op, Op::SetTdiState | Op::Scope(Op::SCOPE_STATE_CHANGE) | Op::GetState);
    if interface.state().is_none() && !settles {
        return Err(Refusal::StateUnknown);
    }
    Ok(())
}

fn set_state(
    interface: &mut Interface,
    request: &GuestRequest<'_>,
    dialogue: &mut Dialogue<'_, '_>,
) -> Result<GuestResponse, Failure> {
    let (target, consumed) = target(request).map_err(Failure::refused)?;
    if interface.state().is_none() && target != Target::Unlocked {
        return Err(Failure::refused(Refusal::StateUnknown));
    }
    match target {
        Target::Unlocked => interface.stop(Operation::Stop, dialogue)?,
        Target::Locked => interface.lock(dialogue)?,
        Target::Run => interface.start(dialogue)?,
    }
    Ok(done(consumed))
}

fn target(request: &GuestRequest<'_>) -> Result<(Target, usize), Refusal> {
    if request.arch == Arch::Sev {
        let [value] = take::<1>(request)?;
        return Ok((if value == SEV_RUN { Target::Run } else { Target::Unlocked }, 1));
    }
    let value = u32_at::<4>(&take(request)?, 0);
    let target = match State::ALL.into_iter().find(|state| *state as u32 == value) {
        Some(State::Unlocked) => Target::Unlocked,
        Some(State::Locked) => Target::Locked,
        Some(State::Run) => Target::Run,
        Some(State::Error) | None => return Err(field(request, "state", value.into())),
    };
    Ok((target, 4))
}

/// VALIDATE_MMIO: u64 gpa_base, u64 gpa_top, u64 pa_base.
fn validate(
    interface: &mut Interface,
    request: &GuestRequest<'_>,
) -> Result<GuestResponse, Refusal> {
    let fields = take::<24>(request)?;
    interface.map(Wanted {
        guest_base: u64_at(&fields, 0),
        guest_top: u64_at(&fields, 8),
        host_base: u64_at(&fields, 16),
    })?;
    Ok(done(fields.len()))
}

/// OBJECT_INFO: u32 type. Answers u32 bytes.
fn describe(
    interface: &Interface,
    link: &Link,
    request: &GuestRequest<'_>,
) -> Result<GuestResponse, Refusal> {
    let fields = take::<4>(request)?;
    let bytes = interface.evidence.bytes(kind(request, u32_at(&fields, 0))?, link.objects())?;
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    answer(request, fields.len(), &length.to_le_bytes())
}

/// READ_OBJECT: u32 type, u32 reserved, u64 offset. Answers as much from there as there is room for.
fn read(
    interface: &Interface,
    link: &Link,
    request: &GuestRequest<'_>,
) -> Result<GuestResponse, Refusal> {
    let fields = take::<16>(request)?;
    let kind = kind(request, u32_at(&fields, 0))?;
    reserved(request, u32_at(&fields, 4))?;
    let offset = u64_at(&fields, 8);
    let bytes = interface.evidence.bytes(kind, link.objects())?;
    let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
    let rest = rest.ok_or(Refusal::PastEnd { offset, length: bytes.len() })?;
    let room = usize::try_from(request.response_room).unwrap_or(usize::MAX);
    let part = rest.get(..room).unwrap_or(rest);
    answer(request, fields.len(), part)
}

/// REGEN_OBJECT: u32 type, u32 reserved, u64 flags, u64 pointer to a nonce.
fn regenerate(
    interface: &mut Interface,
    link: &mut Link,
    request: &GuestRequest<'_>,
    memory: &dyn Memory,
    exchange: &mut Exchange<'_>,
) -> Result<GuestResponse, Failure> {
    let fields = take::<24>(request).map_err(Failure::refused)?;
    let kind = kind(request, u32_at(&fields, 0)).map_err(Failure::refused)?;
    reserved(request, u32_at(&fields, 4)).map_err(Failure::refused)?;
    let nonce = match u64_at(&fields, 8) {
        0 => None,
        REGEN_WITH_NONCE => {
            let mut nonce = [0; NONCE_BYTES];
            let read = memory.read(u64_at(&fields, 16), &mut nonce);
            read.map_err(|_| Failure::refused(Refusal::Unreachable))?;
            Some(Nonce(nonce))
        }
        flags => return Err(Failure::refused(field(request, "flags", flags))),
    };
    match kind {
        ObjectKind::InterfaceReport => {
            interface.fetch_report(nonce, &mut Dialogue::new(exchange, link))?;
        }
        ObjectKind::Vca | ObjectKind::Certificate | ObjectKind::Measurement => {
            link.regenerate(kind, nonce, exchange)?;
        }
    }
    Ok(done(fields.len()))
}

/// Scope INFO: u32 state, u32 bytes of the report.
fn info(interface: &Interface, request: &GuestRequest<'_>) -> Result<GuestResponse, Refusal> {
    let state = interface.state().ok_or(Refusal::StateUnknown)?;
    let report = interface.evidence.report().map_or(0, <[u8]>::len);
    let report = u32::try_from(report).unwrap_or(u32::MAX);
    let mut bytes = (state as u32).to_le_bytes().to_vec();
    bytes.extend(report.to_le_bytes());
    answer(request, request.request.len(), &bytes)
}

fn kind(request: &GuestRequest<'_>, number: u32) -> Result<ObjectKind, Refusal> {
    ObjectKind::from_number(number).ok_or(field(request, "object type", number.into()))
}

fn reserved(request: &GuestRequest<'_>, value: u32) -> Result<(), Refusal> {
    if value == 0 { Ok(()) } else { Err(field(request, "reserved", value.into())) }
}

const fn field(request: &GuestRequest<'_>, field: &'static str, value: u64) -> Refusal {
    Refusal::Field { op: request.op, field, value }
}

/// The fields of a request, which may be longer.
fn take<const N: usize>(request: &GuestRequest<'_>) -> Result<[u8; N], Refusal> {
    let (op, length) = (request.op, request.request.len());
    let first = request.request.first_chunk();
    first.copied().ok_or(Refusal::Short { op, needed: N, length })
}

fn u32_at<const N: usize>(fields: &[u8; N], at: usize) -> u32 {
    fields[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_at<const N: usize>(fields: &[u8; N], at: usize) -> u64 {
    fields[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn done(consumed: usize) -> GuestResponse {
    let consumed = u32::try_from(consumed).unwrap_or(u32::MAX);
    GuestResponse { bytes: Vec::new(), consumed, code: 0 }
}

fn answer(
    request: &GuestRequest<'_>,
    consumed: usize,
    bytes: &[u8],
) -> Result<GuestResponse, Refusal> {
    let (needed, room) = (bytes.len(), request.response_room);
    if u32::try_from(needed).is_ok_and(|needed| needed <= room) {
        return Ok(GuestResponse { bytes: bytes.to_vec(), ..done(consumed) });
    }
    Err(Refusal::NoRoom { needed, room })
}
