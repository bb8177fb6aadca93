//! The result of a check.

use ami_billing_guard::Error;
use serde::Serialize;

/// State of what a check looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// The guard works, but a person should look at this.
    Warning,
    /// The guard does not work as deployed.
    Failed,
    /// Could not be determined.
    Unknown,
}

impl State {
    /// The word that stands for it in the output.
    pub(super) fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Failed => "failed",
            State::Unknown => "unknown",
        }
    }
}

/// A check, with its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// Name of the check, for programs.
    pub(super) check: &'static str,
    /// The stack, trail, topic, rule or queue.
    pub(super) looked_at: String,
    pub(super) state: State,
    /// What was found, as a sentence.
    pub(super) found: String,
    /// What a person should do. `None` if nothing has to be done.
    pub(super) to_do: Option<String>,
}

/// What a check looks at. Each method ends the check with a result.
pub(super) struct Subject {
    check: &'static str,
    looked_at: String,
}

impl Subject {
    pub(super) fn new(check: &'static str, looked_at: impl Into<String>) -> Subject {
        Subject {
            check,
            looked_at: looked_at.into(),
        }
    }

    fn is(self, state: State, found: impl Into<String>, to_do: Option<String>) -> Finding {
        Finding {
            check: self.check,
            looked_at: self.looked_at,
            state,
            found: found.into(),
            to_do,
        }
    }

    pub(super) fn ok(self, found: impl Into<String>) -> Finding {
        self.is(State::Ok, found, None)
    }

    pub(super) fn warning(self, found: impl Into<String>, to_do: impl Into<String>) -> Finding {
        self.is(State::Warning, found, Some(to_do.into()))
    }

    pub(super) fn failed(self, found: impl Into<String>, to_do: impl Into<String>) -> Finding {
        self.is(State::Failed, found, Some(to_do.into()))
    }

    pub(super) fn unknown(self, found: impl Into<String>, to_do: impl Into<String>) -> Finding {
        self.is(State::Unknown, found, Some(to_do.into()))
    }

    /// For something that the stack's outputs do not name.
    pub(super) fn not_in_the_outputs(self, output: &str) -> Finding {
        self.unknown(
            format!("the stack has no output {output}, because it was deployed from another version of the template"),
            "Deploy the stack again from this version, and run doctor again.",
        )
    }

    /// For a call that did not answer.
    pub(super) fn not_known(self, error: &Error) -> Finding {
        let to_do = match error {
            Error::AccessDenied { permission, .. } => {
                format!(
                    "Allow {permission} to the credentials that you run doctor with, and run doctor again."
                )
            }
            Error::Refused { .. } | Error::NotPossible { .. } => {
                "Fix what the error says, and run doctor again.".into()
            }
            _ => "Run doctor again.".into(),
        };
        self.unknown(error.to_string(), to_do)
    }
}

/// Whether AWS answered that there is no such topic, rule, queue or function.
pub(super) fn does_not_exist(error: &Error) -> bool {
    const CODES: [&str; 5] = [
        "NotFound",
        "NotFoundException",
        "ResourceNotFoundException",
        "AWS.SimpleQueueService.NonExistentQueue",
        "QueueDoesNotExist",
    ];
    matches!(error, Error::Refused { code, .. } if CODES.contains(&code.as_str()))
}
