//! Runs `bindery_fuzz::platform`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bindery_fuzz::platform::run(bytes));
