//! Runs `bindery_fuzz::dsm`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bindery_fuzz::dsm::run(bytes));
