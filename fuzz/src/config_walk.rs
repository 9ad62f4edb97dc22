//! The walkers of capability chains, on config space of any bytes.

use pci::regs::{CONFIG_SIZE, CONVENTIONAL_SIZE};
use pci::walk::{capabilities, extended_capabilities};

/// Walks both chains of `bytes`, which are filled up with zeros.
pub fn run(bytes: &[u8]) {
    let mut space = [0; CONFIG_SIZE as usize];
    let length = bytes.len().min(space.len());
    space[..length].copy_from_slice(&bytes[..length]);
    check_chains(&space);
}

/// Walks both chains and checks what is found.
pub fn check_chains(space: &[u8; CONFIG_SIZE as usize]) {
    let read = |offset: u16, into: &mut [u8]| {
        let offset = usize::from(offset);
        into.copy_from_slice(&space[offset..offset + into.len()]);
    };
    let first = capabilities(read);
    for (index, found) in first.iter().enumerate() {
        assert!(found.offset < CONVENTIONAL_SIZE && found.offset.is_multiple_of(4), "{found:?}");
        assert!(first[..index].iter().all(|other| other.offset != found.offset), "{found:?} twice");
    }
    let second = extended_capabilities(read);
    for (index, found) in second.iter().enumerate() {
        assert!((CONVENTIONAL_SIZE..CONFIG_SIZE).contains(&found.offset), "{found:?}");
        assert!(
            second[..index].iter().all(|other| other.offset != found.offset),
            "{found:?} twice"
        );
    }
}
