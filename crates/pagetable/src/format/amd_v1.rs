//! AMD's own I/O page tables, v1. Source: AMD I/O virtualization technology specification 48882,
//! 2.2.3 "I/O Page Tables for Host Translations".
//!
//! A word says which level it leads to, so a leaf is a word that leads to level 0, and levels are
//! counted from 1. Permissions of all words on the way are combined.

use super::Format;
use crate::Permission;

/// AMD's host translation.
#[derive(Clone, Copy, Debug)]
pub struct AmdV1;

impl Format for AmdV1 {
    const OUTPUT_BITS: u32 = 52;

    fn table(address: u64, level: u32) -> u64 {
        // A table of our level 0 is one of AMD's level 1.
        PRESENT | READ | WRITE | u64::from(level) << NEXT_LEVEL_SHIFT | address
    }

    fn leaf(output: u64, permission: Permission, _level: u32) -> u64 {
        let read = if permission.allows(Permission::READ) { READ } else { 0 };
        let write = if permission.allows(Permission::WRITE) { WRITE } else { 0 };
        PRESENT | FORCE_COHERENT | read | write | output
    }
}

const PRESENT: u64 = 1 << 0;
const NEXT_LEVEL_SHIFT: u32 = 9;
/// Snoops caches whatever the device asks for.
const FORCE_COHERENT: u64 = 1 << 60;
const READ: u64 = 1 << 61;
const WRITE: u64 = 1 << 62;
