//! Runs `bindery_fuzz::trace_decode`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bindery_fuzz::trace_decode::run(bytes));
