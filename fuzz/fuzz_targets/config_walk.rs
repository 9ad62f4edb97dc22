//! Runs `bindery_fuzz::config_walk`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bindery_fuzz::config_walk::run(bytes));
