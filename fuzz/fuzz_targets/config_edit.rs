#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lab::fuzz::config_edit(data));
