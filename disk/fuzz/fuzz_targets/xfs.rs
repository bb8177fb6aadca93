//! XFS and its log.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: disk_fuzz::prepare(&["xfs-v4-no-ftype", "xfs-wide-folders", "xfs-before-bigtime", "xfs-crash"], disk_fuzz::Aim::FileSystem),
    |input: &[u8]| disk_fuzz::run(input)
);
