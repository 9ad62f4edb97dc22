//! Runs `bindery_fuzz::guest_streams`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bindery_fuzz::guest_streams::run(bytes));
