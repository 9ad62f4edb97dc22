//! Arm's long descriptors, stage 2, 4 KiB granule, as an SMMU walks them. Source: Arm ARM, D8.3
//! "Translation table descriptor formats".
//!
//! The lowest level, ours 0, is Arm's level 3: its leaves are spelled differently.

use super::Format;
use crate::Permission;

/// Stage 2 of VMSAv8-64 with four levels from Arm's level 0.
#[derive(Clone, Copy, Debug)]
pub struct ArmLpaeStage2;

impl Format for ArmLpaeStage2 {
    const OUTPUT_BITS: u32 = 48;

    fn table(address: u64, _level: u32) -> u64 {
        VALID | TABLE_OR_PAGE | address
    }

    fn leaf(output: u64, permission: Permission, level: u32) -> u64 {
        let kind = if level == 0 { VALID | TABLE_OR_PAGE } else { VALID };
        let read = if permission.allows(Permission::READ) { S2AP_READ } else { 0 };
        let write = if permission.allows(Permission::WRITE) { S2AP_WRITE } else { 0 };
        kind | read
            | write
            | NORMAL_WRITE_BACK
            | INNER_SHAREABLE
            | ACCESS_FLAG
            | NO_EXECUTE
            | output
    }
}

const VALID: u64 = 1 << 0;
/// Above the lowest level a table, in it a page; without it a block.
const TABLE_OR_PAGE: u64 = 1 << 1;
const NORMAL_WRITE_BACK: u64 = 0b1111 << 2;
const S2AP_READ: u64 = 1 << 6;
const S2AP_WRITE: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 0b11 << 8;
const ACCESS_FLAG: u64 = 1 << 10;
const NO_EXECUTE: u64 = 0b10 << 53;
