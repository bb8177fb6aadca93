//! What os-release says.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: disk_fuzz::prepare(&["ext4-old-features"], disk_fuzz::Aim::OsRelease),
    |input: &[u8]| disk_fuzz::run(input)
);
