//! The registry: as NTFS, but only the hive is patched.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: disk_fuzz::prepare(&["windows2016-core", "windows2022-sql-web-and-express", "windows-hive-is-dirty"], disk_fuzz::Aim::Hive),
    |input: &[u8]| disk_fuzz::run(input)
);
