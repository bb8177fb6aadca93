//! ext4, its elders and its journal.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: disk_fuzz::prepare(&["ext4-old-features", "ext3-without-extents", "ext4-small-blocks", "ext4-inline-data", "ext4-crash"], disk_fuzz::Aim::FileSystem),
    |input: &[u8]| disk_fuzz::run(input)
);
