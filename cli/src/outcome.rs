//! Result of a command: its exit code, or the reason why it stopped.

use std::io;

use ami_billing_guard::verdict::Verdict;

/// Exit code of the program, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything asked for is known, and nothing is wrong.
    Good = 0,
    /// An AMI is not billed as expected, a policy has faults or does not pass its tests, or a deployed stack does not
    /// work.
    Mismatch = 1,
    /// The command line, or a file that it names, is invalid.
    Usage = 2,
    /// Something could not be determined.
    Unknown = 3,
}

impl Outcome {
    /// The outcome of a verdict. An unknown is neither a mismatch nor a success.
    pub(crate) fn of(verdict: Verdict) -> Outcome {
        match verdict {
            Verdict::Verified | Verdict::Exempt | Verdict::Ignored => Outcome::Good,
            Verdict::Mismatch(_) => Outcome::Mismatch,
            Verdict::Conflict | Verdict::Unverifiable | Verdict::Gone | Verdict::Failed => {
                Outcome::Unknown
            }
        }
    }

    /// The outcome of both. A mismatch takes precedence over an unknown.
    pub(crate) fn and(self, other: Outcome) -> Outcome {
        match (self, other) {
            (Outcome::Mismatch, _) | (_, Outcome::Mismatch) => Outcome::Mismatch,
            (Outcome::Good, other) => other,
            (own, _) => own,
        }
    }
}

/// The reason why a command stopped early.
#[derive(Debug)]
pub(crate) enum CliError {
    /// The command line, or a file that it names, is invalid.
    Usage(String),
    /// Something could not be determined.
    Unknown(String),
    /// The result could not be written.
    Output(io::Error),
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> CliError {
        CliError::Output(error)
    }
}

impl From<ami_billing_guard::Error> for CliError {
    fn from(error: ami_billing_guard::Error) -> CliError {
        CliError::Unknown(error.to_string())
    }
}
