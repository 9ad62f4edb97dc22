//! `--device` options of any text, added to the platform there is by default.

use std::sync::OnceLock;

use supervisor::platform::Platform;

use crate::platform::{check_mistake, check_platform};

/// Reads `bytes` as one option a line.
pub fn run(bytes: &[u8]) {
    static DEFAULT: OnceLock<Platform> = OnceLock::new();
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut platform = DEFAULT.get_or_init(Platform::default).clone();
    let before = platform.functions.len();
    for option in text.split('\n') {
        if let Err(error) = platform.add_device(option) {
            check_mistake(&error, "--device", option);
        }
    }
    if platform.functions.len() > before {
        check_platform(&platform);
    }
}
