//! Runs `bindery_fuzz::device_option`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bindery_fuzz::device_option::run(bytes));
