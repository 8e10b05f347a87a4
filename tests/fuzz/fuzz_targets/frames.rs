#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidestream_dev_broker::fuzz::frames(data));
