#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidestream::state::fuzz::position(data));
