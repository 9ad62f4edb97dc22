//! Runs `bindery_fuzz::guest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bindery_fuzz::guest::run(bytes));
