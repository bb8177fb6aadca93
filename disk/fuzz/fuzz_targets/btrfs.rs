//! btrfs.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: disk_fuzz::prepare(&["btrfs-plain", "btrfs-zstd", "btrfs-at", "btrfs-crash"], disk_fuzz::Aim::FileSystem),
    |input: &[u8]| disk_fuzz::run(input)
);
