//! What a command comes to: what it ends with, or why it stopped.

use std::io;

use ami_billing_guard::verdict::Verdict;

/// What the program ends with, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// What was asked is found out, and nothing is wrong.
    Good = 0,
    /// An AMI does not bill what it should, or a policy is not what it should be.
    Mismatch = 1,
    /// The command line, or a file that it names, was not understood.
    Usage = 2,
    /// Something could not be found out.
    Unknown = 3,
}

impl Outcome {
    /// What a verdict is to a script. Not knowing is no mismatch, and no success.
    pub(crate) fn of(verdict: Verdict) -> Outcome {
        match verdict {
            Verdict::Verified | Verdict::Exempt | Verdict::Ignored => Outcome::Good,
            Verdict::Mismatch(_) => Outcome::Mismatch,
            Verdict::Conflict | Verdict::Unverifiable | Verdict::Gone | Verdict::Failed => {
                Outcome::Unknown
            }
        }
    }

    /// Of both: a mismatch goes before what is not known.
    pub(crate) fn and(self, other: Outcome) -> Outcome {
        match (self, other) {
            (Outcome::Mismatch, _) | (_, Outcome::Mismatch) => Outcome::Mismatch,
            (Outcome::Good, other) => other,
            (own, _) => own,
        }
    }
}

/// Why a command stopped before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The command line, or a file that it names, was not understood.
    Usage(String),
    /// Something could not be found out.
    Unknown(String),
    /// The result could not be written.
    Output(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Output(error)
    }
}

impl From<ami_billing_guard::Error> for Stop {
    fn from(error: ami_billing_guard::Error) -> Stop {
        Stop::Unknown(error.to_string())
    }
}
