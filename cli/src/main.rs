//! `ami-guard`, the operator's command line.
//!
//! Standard output carries the result alone; what goes on, and what went wrong, is told on standard error.

mod inspect;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use disk::contained;

/// What the program ends with, for scripts. Another number is 2: the command line was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// What was asked is found out.
    Found = 0,
    /// It could not be found out.
    Unknown = 3,
}

/// The operator's side of ami-billing-guard.
#[derive(Parser)]
#[command(name = "ami-guard", version, about, after_help = EXIT_CODES)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes:\n  0  found out\n  2  the command line was not understood\n  3  could not be found out";

#[derive(Subcommand)]
enum Command {
    /// Tell what operating system is on a disk, and what an AMI made of it may bill
    Inspect(inspect::Arguments),
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(contained::ARGUMENT) {
        return contained::run_child(arguments);
    }
    run(std::env::args_os())
}

// A command waits for one thing at a time.
#[tokio::main(flavor = "current_thread")]
async fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Ends the program if there is nothing to run: with help, the version, or what was not understood.
    let command_line = CommandLine::parse_from(arguments);
    let done = match command_line.command {
        Command::Inspect(arguments) => inspect::run(arguments).await,
    };
    let (text, outcome) = match done {
        Ok(done) => done,
        Err(why) => {
            // Nobody may be there to read it.
            let _ = writeln!(io::stderr(), "ami-guard: {why}");
            return ExitCode::from(Outcome::Unknown as u8);
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads the result may stop before its end.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let _ = writeln!(
                io::stderr(),
                "ami-guard: the result can not be written: {error}"
            );
            ExitCode::from(Outcome::Unknown as u8)
        }
        _ => ExitCode::from(outcome as u8),
    }
}
