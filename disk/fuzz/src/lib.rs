//! Fuzzing of the disk's readers: what the targets share.
//!
//! An input is a list of patches to an image of the corpus, which [`disk::inspect`] then reads.

mod base;
mod memory;
#[path = "../../corpus/packed.rs"]
mod packed;
mod patches;
mod sums;

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, OnceLock};

use disk::{BlockSource, Inspection};

pub use base::Aim;
use base::{Base, Patched};
use patches::Patches;

/// How many blocks may be read, as in the product.
const MOST_BLOCKS: u64 = 256;

/// Where other crates are known to panic, or to take as much memory as a disk tells them to; in the product that ends a
/// child process. For each there is a case in `regressions`.
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

/// What reading a disk came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Read(Inspection),
    /// And where: `crate-0.1.0/src/file.rs:205`.
    Panicked(String),
    /// It took more memory than a child may, and where.
    TookTooMuch(String),
}

thread_local! {
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Reads it; a panic is an outcome as others are.
pub(crate) fn outcome(source: impl BlockSource + 'static) -> Outcome {
    let read = AssertUnwindSafe(|| disk::inspect(source, MOST_BLOCKS));
    match memory::measured(|| panic::catch_unwind(read)) {
        (_, Some(place)) => Outcome::TookTooMuch(short(place.trim_start_matches("at "))),
        (Err(_), None) => {
            let place = PLACE.with_borrow_mut(Option::take);
            Outcome::Panicked(place.unwrap_or_default())
        }
        (Ok(inspection), None) => Outcome::Read(inspection),
    }
}

/// A place in a crate without the folder of all crates, and without the column: `crate-0.1.0/src/file.rs:205`.
fn short(place: &str) -> String {
    let place = match place.split_once("/registry/src/") {
        Some((_, crates)) => crates.split_once('/').map_or(crates, |(_, file)| file),
        None => place,
    };
    let mut parts = place.splitn(3, ':');
    let (file, line) = (parts.next(), parts.next());
    format!("{}:{}", file.unwrap_or_default(), line.unwrap_or_default())
}

static BASES: OnceLock<Vec<Arc<Base>>> = OnceLock::new();

/// Prepares a target: the images it uses, and what of them it is about.
pub fn prepare(names: &[&str], aim: Aim) {
    // Instead of libfuzzer's, which ends the process.
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        if !place.contains("/registry/src/") {
            eprintln!("{info}");
        }
        PLACE.set(Some(short(&place)));
    }));
    let base = |name: &&str| {
        let base = Base::new(name, aim);
        eprintln!("{name}: {} places", base.spots.len());
        base
    };
    BASES.get_or_init(|| names.iter().map(base).collect());
}

/// Runs one input. With `GUARD_FUZZ_PATCHES`, which names a file, writes its patches there, as few of them as have
/// the same outcome.
pub fn run(input: &[u8]) {
    let bases = BASES.get().expect("prepared");
    let (base, patches) = Patches::decode(bases, input);
    if let Some(path) = std::env::var_os("GUARD_FUZZ_PATCHES") {
        // At once, as an input may be one that does not end.
        std::fs::write(&path, patches.write(base)).expect("a file");
        let (patches, outcome) = fewest(base, patches);
        eprintln!("{outcome:?}");
        std::fs::write(&path, patches.write(base)).expect("a file");
        return;
    }
    let outcome = outcome(Patched::new(base, &patches, None));
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
        let (patches, _) = fewest(base, patches);
        std::fs::write(path, patches.write(base)).expect("a file");
    }
}

/// Leaves away what the outcome does not need.
fn fewest(base: &Arc<Base>, mut patches: Patches) -> (Patches, Outcome) {
    let outcome_of = |patches: &Patches| outcome(Patched::new(base, patches, None));
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
