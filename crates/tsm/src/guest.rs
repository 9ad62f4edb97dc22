//! What a VMM asks of a TSM on behalf of its guest.
//!
//! Takes no lock. Sources: IOMMU_VDEVICE_TSM_REQ as posted in June 2026 (operations, architectures),
//! the arm64 uAPI `rmi-da.h` of the same tree (payloads), the RFC's v5 (scopes).

use std::fmt;

use tdisp::exchange::NONCE_BYTES;

/// A request, as it came.
#[derive(Clone, Copy, Debug)]
pub struct GuestRequest<'a> {
    /// Whose payloads these are.
    pub arch: Arch,
    /// What is asked.
    pub op: Op,
    /// The payload.
    pub request: &'a [u8],
    /// Bytes of room for the answer.
    pub response_room: u32,
}

/// REGEN_OBJECT, u32 type, u32 reserved, u64 flags, u64 pointer: a nonce is at the pointer.
pub(crate) const REGEN_WITH_NONCE: u64 = 1 << 0;

impl GuestRequest<'_> {
    /// The client's memory that it points to, if it does: where, and how many bytes. To read it may take as long
    /// as the client likes, so it is read before the request is passed on.
    pub fn points_to(&self) -> Option<(u64, usize)> {
        let is_regen = self.op == Op::RegenObject;
        let fields = self.request.get(8..24).filter(|_| is_regen)?;
        let (flags, pointer) = fields.split_first_chunk()?;
        let pointer = pointer.first_chunk()?;
        let has_nonce = u64::from_le_bytes(*flags) == REGEN_WITH_NONCE;
        has_nonce.then_some((u64::from_le_bytes(*pointer), NONCE_BYTES))
    }
}

/// What a request got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestResponse {
    /// The answer, at most as long as there was room.
    pub bytes: Vec<u8>,
    /// Bytes of the request that were used.
    pub consumed: u32,
    /// The TSM's own code: zero where it has nothing to add.
    pub code: u64,
}

/// A confidential-computing architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arch {
    /// Arm CCA.
    Cca,
    /// AMD SEV-TIO.
    Sev,
    /// Intel TDX Connect.
    Tdx,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// VALIDATE_MMIO: maps device memory as the guest's own.
    ValidateMmio,
    /// SET_TDI_STATE: locks, runs or unlocks the TDI.
    SetTdiState,
    /// SEV_ENABLE_DMA: lets the TDI reach the guest's private memory.
    SevEnableDma,
    /// SEV_DISABLE_DMA: ends that.
    SevDisableDma,
    /// READ_OBJECT: a part of an evidence object.
    ReadObject,
    /// REGEN_OBJECT: makes an evidence object afresh.
    RegenObject,
    /// OBJECT_INFO: bytes of an evidence object.
    ObjectInfo,
    /// The TDI's state, asked of the device: TDX's host request GET_STATE.
    GetState,
    /// A request by scope, as in the RFC's v5.
    Scope(u32),
}

impl Op {
    /// SCOPE_INFO: what the TDI is.
    pub const SCOPE_INFO: u32 = 0;
    /// SCOPE_STATE_CHANGE.
    pub const SCOPE_STATE_CHANGE: u32 = 1;
}

/// A kind of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum ObjectKind {
    /// SPDM version, capabilities and algorithms.
    Vca = 0,
    /// The certificate chain.
    Certificate = 1,
    /// Measurements.
    Measurement = 2,
    /// The interface report.
    InterfaceReport = 3,
}

impl ObjectKind {
    /// All, by number.
    pub const ALL: [Self; 4] =
        [Self::Vca, Self::Certificate, Self::Measurement, Self::InterfaceReport];

    /// The kind of a number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vca => "VCA",
            Self::Certificate => "CERT",
            Self::Measurement => "MEASUREMENT",
            Self::InterfaceReport => "INTERFACE_REPORT",
        })
    }
}

/// A virtual machine, told from every other that ever was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmId(pub u64);

impl VmId {
    /// The bit of those that stand for a client which has no VM.
    pub const IMPLICIT: u64 = 1 << 63;
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number) = self;
        if number & Self::IMPLICIT == 0 {
            write!(f, "VM {number}")
        } else {
            write!(f, "implicit VM {}", number & !Self::IMPLICIT)
        }
    }
}

/// The memory of the client that asks. It is read while the device's turn is owned, so reading does not wait:
/// what [`GuestRequest::points_to`] is read before.
pub trait Memory {
    /// Copies from it, whole or not at all.
    ///
    /// # Errors
    /// [`Unreachable`] (`EFAULT`) where a byte cannot be read.
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), Unreachable>;
}

/// The client's memory could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable;
