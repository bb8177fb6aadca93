//! `ami-guard`, the operator's command line.
//!
//! Standard output carries only the result. Progress and errors go to standard error.

mod account;
mod audit;
mod check;
mod confirm;
mod doctor;
mod expect;
mod explain;
mod files;
mod formats;
mod init;
mod inspect;
mod outcome;
mod policy;
mod replay;
mod report;
mod reserved;
mod restore;
mod show;
mod suggest;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use anstream::AutoStream;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use disk::contained;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use outcome::{CliError, Outcome};
use show::{note, tell};

/// Standard output. After a write error, the rest of the result is dropped and the command continues. Its exit code
/// still shows what it finds.
struct Output<W> {
    out: W,
    /// The write error, after which nothing is written.
    failed: Option<io::Error>,
}

impl<W: Write> Output<W> {
    fn to(out: W) -> Output<W> {
        Output { out, failed: None }
    }

    /// Calls `act` with the output, unless a write failed before.
    fn unless_failed(&mut self, act: impl FnOnce(&mut W) -> io::Result<()>) {
        if self.failed.is_none() {
            self.failed = act(&mut self.out).err();
        }
    }

    /// The outcome of a command, given what it found. A reader that stops early is not an error. Any other lost result,
    /// on a full disk for instance, is [`Outcome::Unknown`].
    fn end(mut self, outcome: Outcome) -> Outcome {
        self.unless_failed(|out| out.flush());
        match self.failed {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => {
                let why = format!("the result cannot be written: {error}");
                outcome.and(tell(&why, Outcome::Unknown))
            }
            _ => outcome,
        }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unless_failed(|out| out.write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_failed(|out| out.flush());
        Ok(())
    }
}

/// The operator's side of ami-billing-guard: what AMIs are billed as, and what is expected.
#[derive(Parser)]
#[command(name = "ami-guard", version, after_help = EXIT_CODES)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  everything could be determined, and is as expected
  1  a mismatch was found
  2  the command line, or a file that it names, is not valid
  3  something could not be determined, or the result could not be written";

#[derive(Subcommand)]
enum Command {
    /// Check whether AMIs are billed as expected, with the evidence, and what the guard would do
    Check(check::Arguments),
    /// Show what every source expects an AMI to be billed as, and which one decides
    Explain(explain::Arguments),
    /// Set the tag that declares what an AMI is expected to be billed as
    Expect(expect::Arguments),
    /// Write a policy, cases that test it, and a CI workflow
    Init(init::Arguments),
    /// Show which operating system is on a disk, and what an AMI made of it may be billed as
    Inspect(inspect::Arguments),
    /// Check a policy file, test it with described AMIs, print its JSON Schema, or suggest rules from an audit
    Policy(policy::Arguments),
    /// Judge registrations again, from EventBridge's events or CloudTrail's log files
    Replay(replay::Arguments),
    /// Restore a discarded AMI
    Restore(restore::Arguments),
    /// Judge every AMI of the account
    Audit(audit::Arguments),
    /// Check whether a deployed stack works
    Doctor(doctor::Arguments),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print a man page
    Man {
        /// The command, such as check or policy test; by default ami-guard itself
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    let first = std::env::args_os().nth(1);
    if first.is_some_and(|argument| argument == contained::ARGUMENT) {
        return contained::run_child(std::env::args().skip(2));
    }
    if std::process::id() == 1 {
        end_on_signals();
    }
    run(std::env::args_os())
}

/// Ends the program on Ctrl-C and SIGTERM, with the exit code that a shell gives for them. Usually the kernel does
/// this. For the first process of a container it does not, so that process must handle the signals.
/// (pid_namespaces(7).)
fn end_on_signals() {
    match Signals::new([SIGINT, SIGTERM]) {
        Ok(mut signals) => {
            std::thread::spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    std::process::exit(128 + signal);
                }
            });
        }
        Err(error) => note(&format!("Ctrl-C cannot end this program: {error}")),
    }
}

// One thread is enough, because a command waits for one thing at a time.
#[tokio::main(flavor = "current_thread")]
async fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Ends the program if there is nothing to run: for help, the version, and unrecognised arguments.
    let command_line = CommandLine::parse_from(arguments);
    if let Err(why) = reader_limits(|name| std::env::var_os(name)) {
        return ExitCode::from(tell(&why, Outcome::Usage) as u8);
    }
    // Colours are written only to a terminal that supports them.
    let mut out = Output::to(AutoStream::auto(io::stdout()));
    let done = match command_line.command {
        Command::Check(arguments) => check::run(arguments, &mut out).await,
        Command::Explain(arguments) => explain::run(arguments, &mut out).await,
        Command::Expect(arguments) => expect::run(arguments, &mut out).await,
        Command::Init(arguments) => init::run(&arguments, &mut out),
        Command::Inspect(arguments) => inspect::run(arguments, &mut out).await,
        Command::Policy(arguments) => policy::run(arguments, &mut out).await,
        Command::Replay(arguments) => replay::run(arguments, &mut out).await,
        Command::Restore(arguments) => restore::run(arguments, &mut out).await,
        Command::Audit(arguments) => audit::run(arguments, &mut out).await,
        Command::Doctor(arguments) => doctor::run(arguments, &mut out).await,
        Command::Completions { shell } => completions(shell, &mut out),
        Command::Man { command } => man(&command, &mut out),
    };
    let outcome = match done {
        Ok(outcome) => outcome,
        Err(CliError::Usage(why)) => tell(&why, Outcome::Usage),
        Err(CliError::Unknown(why)) => tell(&why, Outcome::Unknown),
        Err(CliError::Output(error)) => {
            let why = format!("the result cannot be written: {error}");
            tell(&why, Outcome::Unknown)
        }
    };
    ExitCode::from(out.end(outcome) as u8)
}

/// Reads the environment variable that permits reading disks where a limit cannot be set.
///
/// # Errors
/// The reason why its value is not accepted. In Lambda, the limits protect the guard from the disk's author.
fn reader_limits(variable: impl Fn(&str) -> Option<OsString>) -> Result<(), String> {
    let name = contained::UNLIMITED;
    let value = variable(name).unwrap_or_default();
    match value.to_str() {
        Some("" | "0") => Ok(()),
        Some("1") if variable("AWS_LAMBDA_FUNCTION_NAME").is_some() => Err(format!(
            "{name}=1 is not accepted in Lambda (AWS_LAMBDA_FUNCTION_NAME is set). Disks are read only with limits \
             there"
        )),
        Some("1") => {
            contained::allow_missing_limits();
            Ok(())
        }
        _ => Err(format!(
            "{name}={value:?} is not accepted. Accepted: 1 or 0"
        )),
    }
}

/// Writes the man page of a command.
fn man(command: &[String], out: &mut dyn Write) -> Result<Outcome, CliError> {
    let mut page = CommandLine::command();
    page.build();
    for name in command {
        let Some(found) = page.find_subcommand(name) else {
            let names: Vec<&str> = page.get_subcommands().map(|it| it.get_name()).collect();
            return Err(CliError::Usage(format!(
                "there is no command {name:?}. Accepted: {}",
                names.join(", ")
            )));
        };
        page = found.clone();
    }
    clap_mangen::Man::new(page).render(out)?;
    Ok(Outcome::Good)
}

fn completions(shell: Shell, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "ami-guard", &mut script);
    out.write_all(&script)?;
    Ok(Outcome::Good)
}
