//! Runs `bindery_fuzz::mock_commands`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bindery_fuzz::mock_commands::run(bytes));
