#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidestream_core::task::fuzz::metadata(data));
