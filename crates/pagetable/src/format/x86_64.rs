//! x86-64 paging, as IOMMUs walk it in the first stage. Source: Intel SDM volume 3, 5.5 "4-level
//! paging and 5-level paging"; VT-d specification 9.7; AMD I/O virtualization specification, "v2".
//!
//! Every page that is present can be read: an area that may only be written becomes readable too.
//! Nothing can be executed.

use super::Format;
use crate::Permission;

/// The first stage of Intel VT-d, and AMD's format v2.
#[derive(Clone, Copy, Debug)]
pub struct X86FirstStage;

impl Format for X86FirstStage {
    const OUTPUT_BITS: u32 = 52;

    fn table(address: u64, _level: u32) -> u64 {
        PRESENT | WRITABLE | USER | ACCESSED | address
    }

    fn leaf(output: u64, permission: Permission, level: u32) -> u64 {
        let size = if level == 0 { 0 } else { PAGE_SIZE };
        let write = if permission.allows(Permission::WRITE) { WRITABLE | DIRTY } else { 0 };
        PRESENT | USER | ACCESSED | write | size | NO_EXECUTE | output
    }
}

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
/// Requests without privilege may use it: DMA is such a request.
const USER: u64 = 1 << 2;
/// Set from the start, so that hardware need not.
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// In a table above level 0: this is a leaf.
const PAGE_SIZE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
