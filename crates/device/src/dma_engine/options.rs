//! Setting a DMA engine's options from text, `key=value`, as platform files and command lines give
//! them.

use thiserror::Error;

use super::regs::bar4;
use super::{Bar0Mapping, Bar0Width, Config};
use crate::Key;

/// The keys that [`Config::set`] knows.
pub const KEYS: &[Key] = &[
    Key { name: "bar0", values: "32 or 64", summary: "address bits of BAR 0 (default 64)" },
    Key {
        name: "bar0_mapping",
        values: "sparse or none",
        summary: "whether clients may map the memory in BAR 0 (default sparse)",
    },
    Key {
        name: "bar4",
        values: "a power of two from 0x1000 to 0x40000000",
        summary: "bytes of a BAR of plain memory, which may be mapped whole (default no such BAR)",
    },
    Key { name: "tee", values: "on or off", summary: "TEE-IO with DOE and IDE (default off)" },
    Key { name: "serial", values: "a number", summary: "device serial number (default none)" },
    Key { name: "vendor", values: "0x0001 to 0xfffe", summary: "vendor ID (default 0x1234)" },
    Key { name: "device", values: "0x0000 to 0xffff", summary: "device ID (default 0xb1d0)" },
];

/// An option that cannot be set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadOption {
    /// No such key.
    #[error("unknown key {key:?}; known are {}", names())]
    UnknownKey {
        /// What was given.
        key: String,
    },
    /// A value that the key does not take.
    #[error("{key} cannot be {value:?}; allowed: {allowed}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

impl Config {
    /// Sets one option from text.
    ///
    /// # Errors
    /// [`BadOption`]; the configuration is as before.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), BadOption> {
        let Some(known) = KEYS.iter().find(|known| known.name == key) else {
            return Err(BadOption::UnknownKey { key: key.to_owned() });
        };
        self.take(known.name, value).ok_or_else(|| BadOption::BadValue {
            key: known.name,
            value: value.to_owned(),
            allowed: known.values,
        })
    }

    fn take(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "bar0" => {
                self.bar0 = match value {
                    "32" => Bar0Width::Bits32,
                    "64" => Bar0Width::Bits64,
                    _ => return None,
                }
            }
            "bar0_mapping" => {
                self.bar0_mapping = match value {
                    "sparse" => Bar0Mapping::Sparse,
                    "none" => Bar0Mapping::None,
                    _ => return None,
                }
            }
            "bar4" => {
                let sizes = bar4::SIZE_MIN..=bar4::SIZE_MAX;
                let size = number(value)?;
                self.bar4_bytes =
                    Some(size).filter(|size| size.is_power_of_two() && sizes.contains(size));
                self.bar4_bytes?;
            }
            "tee" => {
                self.tee = match value {
                    "on" => true,
                    "off" => false,
                    _ => return None,
                }
            }
            "serial" => self.serial = Some(number(value)?),
            "vendor" => {
                let id = u16::try_from(number(value)?).ok();
                self.vendor_id = id.filter(|id| (1..u16::MAX).contains(id))?;
            }
            "device" => self.device_id = u16::try_from(number(value)?).ok()?,
            _ => return None,
        }
        Some(())
    }
}

/// A number in decimal or, after 0x, in hexadecimal.
fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if plain { u64::from_str_radix(digits, radix).ok() } else { None }
}

fn names() -> String {
    KEYS.iter().map(|key| key.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new("b1d0:01:00.0".parse().unwrap())
    }

    #[test]
    fn takes_what_the_keys_allow() {
        for (key, value) in [
            ("bar0", "32"),
            ("bar0", "64"),
            ("bar0_mapping", "none"),
            ("bar0_mapping", "sparse"),
            ("bar4", "0x1000"),
            ("bar4", "1073741824"),
            ("tee", "on"),
            ("tee", "off"),
            ("serial", "0x1122334455667788"),
            ("vendor", "0x1b36"),
            ("device", "17"),
        ] {
            assert_eq!(config().set(key, value), Ok(()), "{key}={value}");
        }
        let mut set = config();
        set.set("serial", "0x10").unwrap();
        set.set("tee", "on").unwrap();
        assert_eq!(set, Config { serial: Some(16), tee: true, ..config() });
    }

    #[test]
    fn refuses_with_what_is_allowed() {
        for (key, value) in [
            ("bar0", "16"),
            ("bar0_mapping", "all"),
            ("bar4", "0x800"),
            ("bar4", "0x1800"),
            ("bar4", "0x80000000"),
            ("tee", "yes"),
            ("serial", "-1"),
            ("serial", "0x"),
            ("serial", "0x+1"),
            ("vendor", "0xffff"),
            ("vendor", "0"),
            ("device", "0x10000"),
        ] {
            let refused = config().set(key, value).unwrap_err().to_string();
            let allowed = KEYS.iter().find(|known| known.name == key).unwrap().values;
            assert!(refused.contains(allowed), "{refused}");
        }
        let unknown = config().set("color", "red").unwrap_err().to_string();
        assert!(KEYS.iter().all(|key| unknown.contains(key.name)), "{unknown}");
    }
}
