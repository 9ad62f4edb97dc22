//! Intel VT-d, second stage, four levels. Source: Intel VT-d specification 9.8, "Second-Stage
//! Translation Structures".

use super::Format;
use crate::Permission;

/// Intel VT-d's second stage, as a context entry or a nesting parent points at it.
#[derive(Clone, Copy, Debug)]
pub struct VtdSecondStage;

impl Format for VtdSecondStage {
    const OUTPUT_BITS: u32 = 52;

    fn table(address: u64, _level: u32) -> u64 {
        READ | WRITE | address
    }

    fn leaf(output: u64, permission: Permission, level: u32) -> u64 {
        let size = if level == 0 { 0 } else { PAGE_SIZE };
        let read = if permission.allows(Permission::READ) { READ } else { 0 };
        let write = if permission.allows(Permission::WRITE) { WRITE } else { 0 };
        read | write | size | output
    }
}

const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
/// In a table above level 0: this is a leaf.
const PAGE_SIZE: u64 = 1 << 7;
