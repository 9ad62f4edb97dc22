//! The address of a function: `dddd:bb:dd.f`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Domain, bus, device and function number. Prints as Linux prints it, `b1d0:01:00.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The PCI domain (segment).
    pub domain: u16,
    /// The bus number.
    pub bus: u8,
    device: u8,
    function: u8,
}

impl Address {
    /// `None` where `device` is over 31 or `function` over 7.
    pub const fn new(domain: u16, bus: u8, device: u8, function: u8) -> Option<Self> {
        if device > 31 || function > 7 {
            return None;
        }
        Some(Self { domain, bus, device, function })
    }

    /// The device number, 0..32.
    pub const fn device(self) -> u8 {
        self.device
    }

    /// The function number, 0..8.
    pub const fn function(self) -> u8 {
        self.function
    }

    /// Device and function as the kernel's ABI packs them.
    pub const fn devfn(self) -> u8 {
        self.device << 3 | self.function
    }

    /// The requester ID: bus and devfn.
    pub const fn requester_id(self) -> u16 {
        (self.bus as u16) << 8 | self.devfn() as u16
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.device, self.function)
    }
}

/// A text that is not a PCI address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{text:?} is not a PCI address; expected dddd:bb:dd.f in hexadecimal, such as b1d0:01:00.0"
)]
pub struct BadAddress {
    /// What was given.
    pub text: String,
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        parse(text).ok_or_else(|| BadAddress { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<Address> {
    let (domain, rest) = text.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    Address::new(
        u16::try_from(digits(domain, 4)?).ok()?,
        u8::try_from(digits(bus, 2)?).ok()?,
        u8::try_from(digits(device, 2)?).ok()?,
        u8::try_from(digits(function, 1)?).ok()?,
    )
}

/// Exactly `count` hexadecimal digits.
fn digits(text: &str, count: usize) -> Option<u32> {
    let plain = text.len() == count && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if plain { u32::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses_as_linux_does() {
        let address = Address::new(0xb1d0, 1, 2, 3).unwrap();
        assert_eq!(address.to_string(), "b1d0:01:02.3");
        assert_eq!("b1d0:01:02.3".parse(), Ok(address));
        assert_eq!(address.devfn(), 0x13);
        assert_eq!(address.requester_id(), 0x113);
    }

    #[test]
    fn refuses_what_is_not_an_address() {
        for text in ["", "01:00.0", "b1d0:01:20.0", "b1d0:01:00.8", "b1d0:01:00", "+1d0:01:00.0"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
