//! Platform files of any text.
//!
//! What is refused is told with a place that is in the text; what is taken can be built and shown.

use std::sync::Arc;

use supervisor::machine::Machine;
use supervisor::platform::{Platform, PlatformError};

use crate::rig::Deaf;

/// Reads `bytes` as a platform file.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Platform::parse("fuzz.toml", text) {
        Ok(platform) => check_platform(&platform),
        Err(error) => check_mistake(&error, "fuzz.toml", text),
    }
}

/// Builds the machine that a platform describes.
pub(crate) fn check_platform(platform: &Platform) {
    let machine = Machine::build(platform, Arc::new(Deaf));
    let addresses: Vec<_> = machine.devices.iter().map(|device| device.address).collect();
    assert!(addresses.is_sorted_by(|one, next| one < next), "{addresses:?}");
}

/// Checks that an error tells of a mistake and where it is.
pub(crate) fn check_mistake(error: &PlatformError, name: &str, text: &str) {
    let PlatformError::Mistake(mistake) = error else { panic!("{error:?}") };
    let (line, column) = (mistake.line(), mistake.column());
    let lines: Vec<&str> = text.split('\n').collect();
    assert!((1..=lines.len()).contains(&line), "line {line} of {}", lines.len());
    let width = lines[line - 1].chars().count();
    assert!((1..=width + 1).contains(&column), "column {column} of {width} in line {line}");
    let shown = error.to_string();
    assert!(shown.starts_with(&format!("{name}:{line}:{column}: ")), "{shown}");
}
