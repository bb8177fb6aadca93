//! What reading a disk comes to, a panic and too much memory among it.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};

use disk::{BlockSource, Inspection};

use crate::memory;

/// How many blocks may be read, as in the product.
pub(crate) const MOST_BLOCKS: u64 = 256;

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

/// Notes where a panic is, instead of libfuzzer's hook, which ends the process.
pub(crate) fn note_panics() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        if !place.contains("/registry/src/") {
            eprintln!("{info}");
        }
        PLACE.set(Some(short(&place)));
    }));
}
