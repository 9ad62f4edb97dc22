//! Runs `bindery_fuzz::spdm_sessions`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bindery_fuzz::spdm_sessions::run(bytes));
