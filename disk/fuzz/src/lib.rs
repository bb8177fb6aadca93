//! Shared code of the fuzz targets for the disk readers.
//!
//! An input is a list of patches to an image of the corpus, which [`disk::inspect`] then reads.

mod base;
mod image;
mod input;
mod memory;
mod outcome;
#[path = "../../corpus/packed.rs"]
mod packed;
mod patches;
mod sums;

use std::sync::{Arc, OnceLock};

pub use base::Aim;
use base::Base;
use image::Image;
use outcome::{MOST_BLOCKS, Outcome, note_panics, outcome};
use patches::{Patched, Patches};

/// Places where other crates are known to panic, or to allocate as much memory as the disk tells them to. In the
/// product, either ends only a child process. `regressions` holds a case for each.
const KNOWN: &[&str] = &[
    // Called by ntfs.
    "byteorder-1.5.0/src/lib.rs:2129",
    "ext4-view-1.0.0/src/dir_block.rs:134",
    "ntfs-0.4.0/src/error.rs:236",
    "ntfs-0.4.0/src/index_entry.rs:194",
    "ntfs-0.4.0/src/index_entry.rs:205",
    "ntfs-0.4.0/src/index_record.rs:69",
    "ntfs-0.4.0/src/index_record.rs:156",
    "ntfs-0.4.0/src/record.rs:104",
    "ntfs-0.4.0/src/structured_values/index_root.rs:95",
];

static BASES: OnceLock<Vec<Base>> = OnceLock::new();

/// Prepares a target: reads the images `names`, and finds the parts of them that `aim` selects.
pub fn prepare(names: &[&str], aim: Aim) {
    note_panics();
    let base = |name: &&str| {
        let base = Base::new(name, aim);
        eprintln!("{name}: {} places", base.spots.len());
        base
    };
    BASES.get_or_init(|| names.iter().map(base).collect());
}

/// Runs one input. Aborts on an outcome that is not known.
///
/// Two environment variables change this. If `GUARD_FUZZ_PATCHES` names a file, the input's patches are written there,
/// reduced to those that the outcome needs. If `GUARD_FUZZ_COLLECT` names a folder, it collects such patches for each
/// unknown outcome instead of aborting.
pub fn run(input: &[u8]) {
    let bases = BASES.get().expect("prepared");
    let (base, patches) = input::decode(bases, input);
    let image = &base.image;
    if let Some(path) = std::env::var_os("GUARD_FUZZ_PATCHES") {
        // Written first, because the input may make the reader loop forever.
        std::fs::write(&path, patches.write(image)).expect("a file");
        let (patches, outcome) = fewest(image, patches);
        eprintln!("{outcome:?}");
        std::fs::write(&path, patches.write(image)).expect("a file");
        return;
    }
    let outcome = outcome(Patched::new(image, &patches, None));
    let is_fine = match &outcome {
        Outcome::Read(inspection) => inspection.blocks_read <= MOST_BLOCKS,
        Outcome::Panicked(place) | Outcome::TookTooMuch(place) => KNOWN.contains(&place.as_str()),
    };
    if is_fine {
        return;
    }
    eprintln!("{outcome:?}");
    let Some(folder) = std::env::var_os("GUARD_FUZZ_COLLECT") else {
        std::process::abort();
    };
    let name = format!("{outcome:?}").replace(|letter: char| !letter.is_alphanumeric(), "-");
    let path = std::path::Path::new(&folder).join(format!("{name}.patches"));
    if !path.exists() {
        let (patches, _) = fewest(image, patches);
        std::fs::write(path, patches.write(image)).expect("a file");
    }
}

/// Removes the patches that the outcome does not need.
fn fewest(image: &Arc<Image>, mut patches: Patches) -> (Patches, Outcome) {
    let outcome_of = |patches: &Patches| outcome(Patched::new(image, patches, None));
    let wanted = outcome_of(&patches);
    let mut step = patches.bytes.len();
    while step > 0 {
        let all: Vec<u64> = patches.bytes.keys().copied().collect();
        for some in all.chunks(step) {
            let mut fewer = patches.clone();
            fewer.bytes.retain(|at, _| !some.contains(at));
            if outcome_of(&fewer) == wanted {
                patches = fewer;
            }
        }
        step /= 2;
    }
    let whole = Patches {
        size: None,
        ..patches.clone()
    };
    if outcome_of(&whole) == wanted {
        patches = whole;
    }
    (patches, wanted)
}
