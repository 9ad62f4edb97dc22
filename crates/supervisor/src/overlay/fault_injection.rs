//! The switches of the kernel's fault injection in debugfs, which its test programs set before they ask for failures.
//!
//! They are remembered and change nothing: which steps fail is asked for thread by thread ([`crate::fail_nth`]), and
//! none is exempt. One lock a switch, a leaf. Source: Documentation/fault-injection/fault-injection.rst.

use std::sync::{Arc, Mutex, PoisonError};

use uapi::Errno;

use super::Attribute;
use super::sysfs::read_write;
use super::tree::Entry;

const DEBUGFS: &str = "/sys/kernel/debug";
/// What can fail, and its switches with what they say at first.
const SWITCHES: &[(&str, &[(&str, &str)])] = &[
    ("failslab", &[("ignore-gfp-wait", "Y"), ("verbose", "2")]),
    ("fail_page_alloc", &[("ignore-gfp-wait", "Y"), ("ignore-gfp-highmem", "Y"), ("verbose", "2")]),
];

/// All switches.
pub(super) fn switches() -> Vec<(String, Entry)> {
    let names = SWITCHES.iter().flat_map(|(what, switches)| {
        switches.iter().map(move |(name, value)| {
            let switch = Arc::new(Switch(Mutex::new((*value).to_owned())));
            let shown = Arc::clone(&switch);
            (format!("{DEBUGFS}/{what}/{name}"), read_write(move || shown.show(), switch))
        })
    });
    names.collect()
}

/// Remembers what was written.
struct Switch(Mutex<String>);

impl Switch {
    fn show(&self) -> String {
        format!("{}\n", self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Attribute for Switch {
    /// # Errors
    /// `EINVAL` for what is neither a number nor `Y` or `N`.
    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let text = std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?.trim_end();
        if !matches!(text, "Y" | "N" | "y" | "n") && text.parse::<u32>().is_err() {
            return Err(Errno::EINVAL);
        }
        text.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(bytes.len())
    }
}
