//! MBR and GPT.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: disk_fuzz::prepare(&["mbr-logical", "gpt-first-damaged", "gpt-no-second"], disk_fuzz::Aim::Tables),
    |input: &[u8]| disk_fuzz::run(input)
);
