//! Runs `bindery_fuzz::overlay_path`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bindery_fuzz::overlay_path::run(bytes));
