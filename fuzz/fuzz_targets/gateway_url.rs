#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lab::fuzz::gateway_url(data));
