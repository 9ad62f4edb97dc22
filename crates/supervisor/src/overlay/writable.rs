//! Attributes of a function that can be written, but for the driver's.
//!
//! Each answers with the kernel's error numbers in the kernel's order. Where a write has nothing to
//! change here, only the value that is so already is taken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use pci::Address;
use uapi::Errno;

use super::Attribute;
use super::driver::VfioPci;

/// `reset`: "1" resets the function alone.
pub(super) struct ResetFunction {
    driver: Weak<VfioPci>,
    address: Address,
}

impl ResetFunction {
    pub(super) fn new(driver: &Arc<VfioPci>, address: Address) -> Arc<Self> {
        Arc::new(Self { driver: Arc::downgrade(driver), address })
    }
}

impl Attribute for ResetFunction {
    /// # Errors
    /// `EINVAL` for anything but 1; `EBUSY` while a program has the function open, or a
    /// virtual function of it, where Linux would reset it under the program's hands.
    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        if number(bytes)? != 1 {
            return Err(Errno::EINVAL);
        }
        let driver = self.driver.upgrade().ok_or(Errno::ENODEV)?;
        driver.reset(self.address)?;
        Ok(bytes.len())
    }
}

/// `enable`: whether the function decodes memory.
pub(super) struct Enable {
    driver: Weak<VfioPci>,
    address: Address,
}

impl Enable {
    pub(super) fn new(driver: &Arc<VfioPci>, address: Address) -> Arc<Self> {
        Arc::new(Self { driver: Arc::downgrade(driver), address })
    }

    pub(super) fn show(&self) -> String {
        let driver = self.driver.upgrade();
        let on = driver.is_some_and(|driver| driver.is_enabled(self.address));
        format!("{}\n", u8::from(on))
    }
}

impl Attribute for Enable {
    /// # Errors
    /// `EINVAL` for what is no number; `EBUSY` while a driver has the function; `EIO` for disabling
    /// one that is not enabled.
    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let on = number(bytes)? != 0;
        let driver = self.driver.upgrade().ok_or(Errno::ENODEV)?;
        driver.enable(self.address, on)?;
        Ok(bytes.len())
    }
}

/// `d3cold_allowed`: remembered; no function is ever put to D3cold.
pub(super) struct D3Cold {
    allowed: AtomicBool,
}

impl D3Cold {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { allowed: AtomicBool::new(true) })
    }

    pub(super) fn show(&self) -> String {
        format!("{}\n", u8::from(self.allowed.load(Ordering::Relaxed)))
    }
}

impl Attribute for D3Cold {
    /// # Errors
    /// `EINVAL` for what is no number.
    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        self.allowed.store(number(bytes)? != 0, Ordering::Relaxed);
        Ok(bytes.len())
    }
}

/// `msi_bus`: MSI is allowed, always.
pub(super) struct MsiBus;

impl Attribute for MsiBus {
    /// # Errors
    /// `EINVAL` for what is no number; `EPERM` for 0: MSI cannot be forbidden here.
    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        if number(bytes)? == 0 { Err(Errno::EPERM) } else { Ok(bytes.len()) }
    }
}

/// `uevent`: takes an action; nobody listens.
pub(super) struct Uevent;

const ACTIONS: &[&str] =
    &["add", "remove", "change", "move", "online", "offline", "bind", "unbind"];

impl Attribute for Uevent {
    /// # Errors
    /// `EINVAL` for what is no action.
    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let action = word(bytes)?.split(' ').next().unwrap_or_default();
        if ACTIONS.contains(&action) { Ok(bytes.len()) } else { Err(Errno::EINVAL) }
    }
}

/// What was written, as text without the newline at its end.
///
/// # Errors
/// `EINVAL` where it is no text.
pub(super) fn word(bytes: &[u8]) -> Result<&str, Errno> {
    let text = std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
    Ok(text.strip_suffix('\n').unwrap_or(text))
}

/// A number as the kernel reads one: decimal, `0x` or octal with a leading zero, with a `+` or
/// without, one newline allowed at the end.
///
/// # Errors
/// `EINVAL` where it is none, `ERANGE` where it is too large.
pub(super) fn number(bytes: &[u8]) -> Result<u64, Errno> {
    let text = word(bytes)?;
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(Errno::EINVAL);
    }
    u64::from_str_radix(digits, radix).map_err(|_| Errno::ERANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_the_kernel_reads_them() {
        for (text, value) in [
            ("1", Ok(1)),
            ("1\n", Ok(1)),
            ("+1\n", Ok(1)),
            ("0x1f", Ok(0x1f)),
            ("010", Ok(8)),
            ("0", Ok(0)),
            ("", Err(Errno::EINVAL)),
            ("\n", Err(Errno::EINVAL)),
            ("1\n\n", Err(Errno::EINVAL)),
            (" 1", Err(Errno::EINVAL)),
            ("-1", Err(Errno::EINVAL)),
            ("09", Err(Errno::EINVAL)),
            ("99999999999999999999", Err(Errno::ERANGE)),
        ] {
            assert_eq!(number(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn an_action_is_one_of_the_kernels() {
        assert_eq!(Uevent.write(b"add\n"), Ok(4));
        assert_eq!(Uevent.write(b"dance"), Err(Errno::EINVAL));
        assert_eq!(Uevent.write(b"\xff"), Err(Errno::EINVAL));
    }
}
