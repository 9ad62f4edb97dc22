//! Commands of a guest that drop what hardware caches: what each may hold.
//!
//! Takes no lock. Source: the SMMUv3 architecture, 4; bits that are a guest's from v7.3 `arm-smmu-v3-iommufd.c`.

/// Judges a command, whose device is one that `knows_stream` knows.
///
/// There are substreams where `has_substreams`; ranges are not known, so that their fields must be zero.
pub(super) fn is_allowed(
    words: [u64; 2],
    has_substreams: bool,
    knows_stream: impl FnOnce(u32) -> bool,
) -> bool {
    let [first, second] = words;
    let substream = |bits| if has_substreams { bits } else { 0 };
    let (allowed_first, allowed_second, names_stream) = match first & OPCODE {
        opcode::TLBI_NSNH_ALL => (0, 0, false),
        opcode::TLBI_NH_VA => (ASID | VMID, LEAF | PAGE, false),
        opcode::TLBI_NH_VAA => (VMID, LEAF | PAGE, false),
        opcode::TLBI_NH_ASID => (ASID | VMID, 0, false),
        opcode::TLBI_NH_ALL => (VMID, 0, false),
        opcode::ATC_INV if second & ATC_SIZE <= ATC_SIZE_ALL => {
            (STREAM | substream(SUBSTREAM_VALID | SUBSTREAM | GLOBAL), ATC_SIZE | PAGE, true)
        }
        opcode::CFGI_CD => (STREAM | substream(SUBSTREAM), LEAF, true),
        opcode::CFGI_CD_ALL => (STREAM, 0, true),
        _ => return false,
    };
    let is_whole = first & !(OPCODE | allowed_first) == 0 && second & !allowed_second == 0;
    let stream = u32::try_from(first >> STREAM_SHIFT);
    is_whole && (!names_stream || stream.is_ok_and(knows_stream))
}

/// Commands, by the first byte.
mod opcode {
    pub(super) const CFGI_CD: u64 = 0x05;
    pub(super) const CFGI_CD_ALL: u64 = 0x06;
    pub(super) const TLBI_NH_ALL: u64 = 0x10;
    pub(super) const TLBI_NH_ASID: u64 = 0x11;
    pub(super) const TLBI_NH_VA: u64 = 0x12;
    pub(super) const TLBI_NH_VAA: u64 = 0x13;
    pub(super) const TLBI_NSNH_ALL: u64 = 0x30;
    pub(super) const ATC_INV: u64 = 0x40;
}

// Fields of the first word.
const OPCODE: u64 = 0xff;
const GLOBAL: u64 = 1 << 9;
const SUBSTREAM_VALID: u64 = 1 << 11;
const SUBSTREAM: u64 = 0xf_ffff << 12;
const VMID: u64 = 0xffff << 32;
const ASID: u64 = 0xffff << 48;
const STREAM_SHIFT: u32 = 32;
const STREAM: u64 = 0xffff_ffff << STREAM_SHIFT;

// Fields of the second word.
const LEAF: u64 = 1 << 0;
const ATC_SIZE: u64 = 0x3f;
/// Everything; more is not known.
const ATC_SIZE_ALL: u64 = 52;
const PAGE: u64 = !0xfff;
