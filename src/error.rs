//! What keeps the guard from answering. Each of these goes back to Lambda, so that the queue brings
//! the event again and in the end keeps it in the dead-letter queue.
//!
//! Is the image gone? After an error from a discard, or from telling what came of one, it may be, and people
//! were told before. After every other error the guard did not take it away; at most it bears the guard's
//! tags.

use thiserror::Error;

/// Why a registration could not be judged, or not be dealt with to the end, this time.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// The input claims to be what it is not. Trying again does not help: a person must look.
    #[error("malformed event: {0}")]
    MalformedEvent(String),
    /// The image, or what was just done to it, can not be seen yet.
    #[error("EC2 does not show yet what is true of {image} ({why})")]
    NotVisibleYet {
        /// The image.
        image: String,
        /// What EC2 said.
        why: String,
    },
    /// The image is so young that its tags may still be on their way.
    #[error(
        "{image} is {age_seconds} s old and is judged when it is {settle_seconds} s old (GUARD_SETTLE_SECONDS)"
    )]
    NotSettled {
        /// The image.
        image: String,
        /// Its age.
        age_seconds: i64,
        /// The age from which it is judged.
        settle_seconds: u64,
    },
    /// Another invocation is at it: the same event, or another one of the same image.
    #[error("another invocation is dealing with {what}")]
    Busy {
        /// The image, or the item of the ledger.
        what: String,
    },
    /// A discard is held, or an image unverifiable, only because something could not be found out, or because the Recycle
    /// Bin rule is not active yet. A held one is told of, if the policy wants mismatches told.
    #[error("{image} waits until this is over: {why}")]
    NotFoundOut {
        /// The image.
        image: String,
        /// What is not known or not ready, and why.
        why: String,
    },
    /// What is to be done about the image depends on who registered it, and this event does not say; another may.
    #[error(
        "what is to be done about {image} depends on who registered it, and this event does not say: CloudTrail's may \
         yet come"
    )]
    IdentityMayCome {
        /// The image.
        image: String,
    },
    /// The invocation's time is nearly over.
    #[error("no time left in this invocation for {image}: {doing}")]
    OutOfTime {
        /// The image, or the event.
        image: String,
        /// What there was no time for, and what is known of the image.
        doing: String,
    },
    /// AWS said no, and a permission would turn it into a yes.
    #[error("access denied: {permission} on {resource} is missing: {message}")]
    AccessDenied {
        /// The IAM action (`ec2:DescribeImages`).
        permission: &'static str,
        /// The resource on which it is missing.
        resource: String,
        /// What AWS said.
        message: String,
    },
    /// AWS said no, for good.
    #[error("{call} on {resource} was refused: {code}: {message}")]
    Refused {
        /// The IAM action of the call.
        call: &'static str,
        /// What it was about.
        resource: String,
        /// AWS's error code.
        code: String,
        /// What AWS said.
        message: String,
    },
    /// What was asked for cannot be done, and AWS did not refuse it: it was not asked to do it.
    #[error("{resource}: {code}: {message}")]
    NotPossible {
        /// What it was about.
        resource: String,
        /// What kind of reason: `NoTopic`, `NoRootSnapshot`, `NotAvailable`, `NotInRecycleBin`, `NotForImages`,
        /// `InvalidAMIID.NotFound`, `UnreadableItem`.
        code: &'static str,
        /// Why not.
        message: String,
    },
    /// No answer, or one that a later try may turn into a better one: throttled, 5xx, network.
    #[error("{call} on {resource} did not get through: {message}")]
    Unavailable {
        /// The IAM action of the call.
        call: &'static str,
        /// What it was about.
        resource: String,
        /// What went wrong.
        message: String,
    },
}

impl Error {
    /// The stable name of this kind of error, for Lambda's `errorType`, logs and metrics.
    pub fn error_type(&self) -> &'static str {
        match self {
            Error::MalformedEvent(_) => "MalformedEvent",
            Error::NotVisibleYet { .. } => "NotVisibleYet",
            Error::NotSettled { .. } => "NotSettled",
            Error::Busy { .. } => "Busy",
            Error::NotFoundOut { .. } => "NotFoundOut",
            Error::IdentityMayCome { .. } => "IdentityMayCome",
            Error::OutOfTime { .. } => "OutOfTime",
            Error::AccessDenied { .. } => "AccessDenied",
            // Programs know both by one name.
            Error::Refused { .. } | Error::NotPossible { .. } => "Refused",
            Error::Unavailable { .. } => "Unavailable",
        }
    }

    /// Whether trying again does not help by itself.
    pub fn needs_a_person(&self) -> bool {
        match self {
            Error::MalformedEvent(_)
            | Error::AccessDenied { .. }
            | Error::Refused { .. }
            | Error::NotPossible { .. } => true,
            Error::NotVisibleYet { .. }
            | Error::NotSettled { .. }
            | Error::Busy { .. }
            | Error::NotFoundOut { .. }
            | Error::IdentityMayCome { .. }
            | Error::OutOfTime { .. }
            | Error::Unavailable { .. } => false,
        }
    }

    /// The message as the function logs and returns it: it says that the queue brings the event back, if nobody has to do
    /// anything for that to help. On the command line no queue does.
    pub fn with_retry(&self) -> String {
        match self {
            Error::NotVisibleYet { .. }
            | Error::NotSettled { .. }
            | Error::Busy { .. }
            | Error::NotFoundOut { .. }
            | Error::IdentityMayCome { .. }
            | Error::OutOfTime { .. } => format!("{self}; the event will be tried again"),
            Error::MalformedEvent(_)
            | Error::AccessDenied { .. }
            | Error::Refused { .. }
            | Error::NotPossible { .. }
            | Error::Unavailable { .. } => self.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_only_the_function_says_that_an_event_will_be_tried_again() {
        let busy = Error::Busy {
            what: "ami-1".into(),
        };
        assert_eq!(busy.to_string(), "another invocation is dealing with ami-1");
        assert_eq!(
            busy.with_retry(),
            "another invocation is dealing with ami-1; the event will be tried again"
        );
        let malformed = Error::MalformedEvent("no id".into());
        assert_eq!(malformed.with_retry(), malformed.to_string());
    }

    #[test]
    fn regression_what_nobody_refused_does_not_say_that_it_was() {
        let error = Error::NotPossible {
            resource: "ami-1".into(),
            code: "NotInRecycleBin",
            message: "it is not there".into(),
        };
        assert_eq!(error.to_string(), "ami-1: NotInRecycleBin: it is not there");
        assert_eq!(
            (error.error_type(), error.needs_a_person()),
            ("Refused", true)
        );
    }
}
