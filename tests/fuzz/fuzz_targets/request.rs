#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidestream::control::fuzz::request(data));
