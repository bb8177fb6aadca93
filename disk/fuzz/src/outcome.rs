//! Outcome of reading a disk, including panics and too much memory.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};

use disk::{BlockSource, Inspection};

use crate::memory;

/// Maximum number of blocks read, as in the product.
pub(crate) const MOST_BLOCKS: u64 = 256;

/// Outcome of reading a disk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Read(Inspection),
    /// The reader panicked here: `crate-0.1.0/src/file.rs:205`.
    Panicked(String),
    /// The reader took more memory than a child process may, here.
    TookTooMuch(String),
}

thread_local! {
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Reads a disk. A panic is an outcome, not an error.
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

/// Shortens a source location to `crate-0.1.0/src/file.rs:205`: removes the registry's folder and the column.
fn short(place: &str) -> String {
    let place = match place.split_once("/registry/src/") {
        Some((_, crates)) => crates.split_once('/').map_or(crates, |(_, file)| file),
        None => place,
    };
    let mut parts = place.splitn(3, ':');
    let (file, line) = (parts.next(), parts.next());
    format!("{}:{}", file.unwrap_or_default(), line.unwrap_or_default())
}

/// Installs a hook that records where a panic occurs. It replaces libfuzzer's hook, which ends the process.
pub(crate) fn note_panics() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        if !place.contains("/registry/src/") {
            eprintln!("{info}");
        }
        PLACE.set(Some(short(&place)));
    }));
}
