//! NTFS.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: disk_fuzz::prepare(&["windows2016-core", "windows-many-files", "windows-hive-in-pieces", "windows2022-sql-web-and-express"], disk_fuzz::Aim::FileSystem),
    |input: &[u8]| disk_fuzz::run(input)
);
