//! Random bytes, from the kernel. Takes no lock. Source: getrandom(2).

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

/// The kernel's random bytes, for the TSM and for devices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelEntropy;

impl tsm::Entropy for KernelEntropy {
    /// # Panics
    /// Where the kernel has none to give. Keys that can be guessed are worse than an end.
    fn fill(&self, into: &mut [u8]) {
        assert!(fill(into), "the kernel gives no random bytes");
    }
}

impl device::security::Entropy for KernelEntropy {
    fn fill(&self, bytes: &mut [u8]) -> bool {
        fill(bytes)
    }
}

fn fill(bytes: &mut [u8]) -> bool {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match getrandom(rest, GetRandomFlags::empty()) {
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_filled() {
        let mut ever = [0_u8; 600];
        for _ in 0..8 {
            let mut bytes = [0; 600];
            assert!(fill(&mut bytes));
            ever.iter_mut().zip(bytes).for_each(|(ever, byte)| *ever |= byte);
        }
        // Each is zero eight times once in 2^64 runs.
        assert!(ever.iter().all(|byte| *byte != 0));
        assert!(fill(&mut []));
    }
}
