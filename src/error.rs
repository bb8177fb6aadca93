//! What keeps the guard from answering. Each of these errors is returned to Lambda. The queue then delivers the event
//! again, and finally moves it to the dead-letter queue.
//!
//! Is the image gone? It may be after an error from a discard, or from reporting the result of one. People were alerted
//! before that. After every other error, the guard did not deregister or disable the image. At most, the image has the
//! guard's tags.

use thiserror::Error;

/// Why a registration could not be judged, or not be processed to the end, this time.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// The input is not what it claims to be. Retrying does not help, and a person must look.
    #[error("malformed event: {0}")]
    MalformedEvent(String),
    /// EC2 does not yet show the image, or a change that was just made to it.
    #[error("EC2 does not show the current state of {image} yet: {why}")]
    NotVisibleYet {
        /// The image.
        image: String,
        /// What EC2 said.
        why: String,
    },
    /// The image is so young that its tags may not be set yet.
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
    /// Another invocation is processing the same event, or another event of the same image.
    #[error("another invocation is processing {what}")]
    Busy {
        /// The image, or the item of the ledger.
        what: String,
    },
    /// A discard is held, or an image unverifiable, only because of something transient. Something could not be
    /// determined, or the Recycle Bin rule is not active yet. An alert reports a held discard if the policy reports
    /// mismatches.
    #[error("{image} cannot be decided yet: {why}")]
    NotFoundOut {
        /// The image.
        image: String,
        /// What is unknown or not ready, and why.
        why: String,
    },
    /// What to do about the image depends on who registered it. This event does not say, and another one may.
    #[error(
        "what to do about {image} depends on who registered it. This event does not say who, and CloudTrail's may \
         still arrive"
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
        /// What there was no time for, and what is known about the image.
        doing: String,
    },
    /// AWS refused the call because a permission is missing.
    #[error("access denied: {permission} on {resource} is missing: {message}")]
    AccessDenied {
        /// The IAM action (`ec2:DescribeImages`).
        permission: &'static str,
        /// The resource on which it is missing.
        resource: String,
        /// What AWS said.
        message: String,
    },
    /// AWS refused the call permanently.
    #[error("{call} on {resource} was refused: {code}: {message}")]
    Refused {
        /// The IAM action of the call.
        call: &'static str,
        /// What the call was about.
        resource: String,
        /// AWS's error code.
        code: String,
        /// What AWS said.
        message: String,
    },
    /// The request cannot be carried out. AWS did not refuse it, because no call was made for it.
    #[error("{resource}: {code}: {message}")]
    NotPossible {
        /// What the request was about.
        resource: String,
        /// Kind of reason: `NoTopic`, `NoRootSnapshot`, `NotAvailable`, `NotInRecycleBin`, `NotForImages`,
        /// `InvalidAMIID.NotFound`, `UnreadableItem`.
        code: &'static str,
        /// The reason.
        message: String,
    },
    /// No answer, or one that a retry may improve: throttled, 5xx, network.
    #[error("{call} on {resource} failed: {message}")]
    Unavailable {
        /// The IAM action of the call.
        call: &'static str,
        /// What the call was about.
        resource: String,
        /// What went wrong.
        message: String,
    },
}

impl Error {
    /// Stable name of this kind of error, for Lambda's `errorType`, logs and metrics.
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
            // Programs know both by the same name.
            Error::Refused { .. } | Error::NotPossible { .. } => "Refused",
            Error::Unavailable { .. } => "Unavailable",
        }
    }

    /// Whether a retry alone does not help.
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

    /// The message that the function logs and returns. If waiting helps, it adds that the event will be tried again,
    /// except to [`Error::Unavailable`]. On the command line, there is no queue to deliver the event again.
    pub fn with_retry(&self) -> String {
        match self {
            Error::NotVisibleYet { .. }
            | Error::NotSettled { .. }
            | Error::Busy { .. }
            | Error::NotFoundOut { .. }
            | Error::IdentityMayCome { .. }
            | Error::OutOfTime { .. } => format!("{self}; the event will be retried"),
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
        assert_eq!(busy.to_string(), "another invocation is processing ami-1");
        assert_eq!(
            busy.with_retry(),
            "another invocation is processing ami-1; the event will be retried"
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
