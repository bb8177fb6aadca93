//! The child alone, for this crate's own tests: the guard and `ami-guard` are theirs.

use std::process::ExitCode;

fn main() -> ExitCode {
    disk::contained::run_child(std::env::args().skip(2))
}
