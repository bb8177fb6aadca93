//! The child process for this crate's own tests. Otherwise the guard or `ami-guard` starts itself as the child.

use std::process::ExitCode;

fn main() -> ExitCode {
    disk::contained::run_child(std::env::args().skip(2))
}
