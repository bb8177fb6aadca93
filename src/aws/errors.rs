//! Classification of the SDK's errors. No other module decides what such an error means.

use std::time::Duration;

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};

use super::connections;
use crate::error::Error;

/// Error codes of EC2, SNS and DynamoDB for a throttled request.
pub(super) const THROTTLED: [&str; 10] = [
    "EC2ThrottledException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "Throttled",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "TooManyRequestsException",
];

/// Transient errors that the SDK does not treat as such, with the documents that describe them.
const TRANSIENT: [&str; 4] = [
    // Another caller is tagging the same resource (EC2 API reference, "Error codes").
    "ConcurrentTagAccess",
    // (EC2 API reference, "Error codes")
    "ServerInternal",
    // AWS KMS throttles SNS (SNS API reference, "Publish").
    "KMSThrottling",
    // (DynamoDB Developer Guide, "Error handling with DynamoDB")
    "TransactionInProgressException",
];

/// Why an image was not deregistered or disabled, as far as the guard knows.
#[derive(Debug)]
pub(crate) struct CallFailure {
    /// What went wrong.
    pub(crate) error: Error,
    /// Whether EC2 may have carried out the call nevertheless.
    pub(crate) may_have_acted: bool,
}

/// Error for an answer that lacks something on which a decision depends.
pub(crate) fn lacking(call: &'static str, resource: &str, what: &str) -> Error {
    Error::Unavailable {
        call,
        resource: resource.to_owned(),
        message: format!("the answer lacks {what}"),
    }
}

/// Error for a call that did not answer within its time limit.
pub(crate) fn no_answer_in(call: &'static str, resource: &str, limit: Duration) -> Error {
    Error::Unavailable {
        call,
        resource: resource.to_owned(),
        message: format!("no answer within {} seconds", limit.as_secs()),
    }
}

pub(super) fn is_one_of(codes: &[&str], code: Option<&str>) -> bool {
    code.is_some_and(|code| codes.contains(&code))
}

/// Whether a request that failed may have taken effect nevertheless. Only an answer in which EC2 refuses the request
/// rules that out. If a request fails on its way, the SDK does not report whether it was sent.
pub(super) fn may_have_acted<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    match error {
        SdkError::ConstructionFailure(_) => false,
        SdkError::ServiceError(refusal) => {
            let server_failed = refusal.raw().status().is_server_error();
            let throttled = refusal
                .err()
                .code()
                .is_some_and(|code| THROTTLED.contains(&code));
            server_failed && !throttled
        }
        _ => true,
    }
}

/// An error followed by its causes. If credentials are missing, the outermost error says nothing useful.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut said: Vec<String> = Vec::new();
    for cause in causes.take(10) {
        let text = cause.to_string();
        if said.last() != Some(&text) {
            said.push(text);
        }
    }
    cut_after(500, &said.join(": "))
}

/// The text, cut after `most` characters. A text that was cut says so.
fn cut_after(most: usize, text: &str) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{} (cut here)", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Classifies an SDK error. A server error (5xx), a throttled request (429) and a request timeout (408) are transient,
/// whatever their code. Any other error with an unknown code is final.
pub fn classify<E: ProvideErrorMetadata>(
    call: &'static str,
    resource: impl Into<String>,
    error: &SdkError<E, HttpResponse>,
) -> Error {
    let resource = resource.into();
    let unavailable = |message: String| Error::Unavailable {
        call,
        resource: resource.clone(),
        message,
    };
    match error {
        SdkError::ServiceError(refusal) => {
            let code = refusal.err().code().unwrap_or_default();
            // An encoded authorisation message can be thousands of characters long.
            let message = cut_after(1000, refusal.err().message().unwrap_or("no message"));
            let passing = matches!(refusal.raw().status().as_u16(), 408 | 429 | 500..);
            match code {
                _ if passing => unavailable(format!("{code}: {message}")),
                // EC2, SNS and the other services use different codes for a denial.
                "UnauthorizedOperation"
                | "AuthorizationError"
                | "AccessDenied"
                | "AccessDeniedException" => Error::AccessDenied {
                    permission: call,
                    resource,
                    message,
                },
                // An error without a code has a body that is not the service's.
                "" => unavailable(format!("an error without a code: {message}")),
                code if THROTTLED.contains(&code) || TRANSIENT.contains(&code) => {
                    unavailable(format!("{code}: {message}"))
                }
                // Codes for credentials that are about to be renewed.
                "RequestExpired"
                | "ExpiredToken"
                | "ExpiredTokenException"
                | "InvalidClientTokenId"
                | "UnrecognizedClientException" => unavailable(format!("{code}: {message}")),
                // The image was visible a moment ago, so not all of EC2 sees it yet.
                "InvalidAMIID.NotFound" => unavailable(format!("{code}: {message}")),
                _ => Error::Refused {
                    call,
                    resource,
                    code: code.to_owned(),
                    message,
                },
            }
        }
        SdkError::TimeoutError(_) => unavailable("timed out".into()),
        SdkError::DispatchFailure(failure) => {
            let cause = failure.as_connector_error().map_or_else(
                || "the request was not sent".to_owned(),
                |error| with_causes(error),
            );
            unavailable(cause)
        }
        SdkError::ResponseError(_) => unavailable(format!(
            "the answer could not be read: it is broken, or longer than {} MiB",
            connections::MOST_OF_AN_ANSWER >> 20
        )),
        _ => unavailable("the request could not be made".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::error::ErrorMetadata;

    fn classified(status: u16, code: &str) -> &'static str {
        let metadata = ErrorMetadata::builder().code(code).message("m").build();
        let response = HttpResponse::new(status.try_into().unwrap(), "".into());
        let error = SdkError::service_error(metadata, response);
        classify("ec2:DeregisterImage", "*", &error).error_type()
    }

    #[test]
    fn an_error_means_one_thing_wherever_it_occurs() {
        for (status, code, meaning) in [
            (403, "UnauthorizedOperation", "AccessDenied"),
            (403, "AuthorizationError", "AccessDenied"),
            (400, "AccessDenied", "AccessDenied"),
            (503, "RequestLimitExceeded", "Unavailable"),
            (400, "Throttling", "Unavailable"),
            (400, "EC2ThrottledException", "Unavailable"),
            (500, "InternalError", "Unavailable"),
            (400, "ExpiredToken", "Unavailable"),
            (400, "InvalidAMIID.NotFound", "Unavailable"),
            (400, "ConcurrentTagAccess", "Unavailable"),
            (400, "KMSThrottling", "Unavailable"),
            (400, "", "Unavailable"),
            (400, "InvalidParameterValue", "Refused"),
            (400, "AuthFailure", "Refused"),
            (400, "TagLimitExceeded", "Refused"),
        ] {
            assert_eq!(classified(status, code), meaning, "{status} {code}");
        }
    }

    #[test]
    fn only_a_request_that_ec2_refused_is_known_to_have_done_nothing() {
        let answered = |status: u16, code: &str| {
            let metadata = ErrorMetadata::builder().code(code).build();
            let response = HttpResponse::new(status.try_into().unwrap(), "".into());
            may_have_acted(&SdkError::service_error(metadata, response))
        };
        assert!(!answered(400, "AuthFailure"));
        assert!(!answered(403, "UnauthorizedOperation"));
        assert!(!answered(503, "RequestLimitExceeded"));
        assert!(answered(500, "InternalError"));
        assert!(answered(503, "Unavailable"));
        let unanswered: SdkError<ErrorMetadata, HttpResponse> = SdkError::timeout_error("slow");
        assert!(may_have_acted(&unanswered));
    }

    #[test]
    fn regression_a_code_that_is_not_known_is_not_final_when_the_status_says_that_it_may_pass() {
        for (status, code) in [
            (503, "ServiceUnavailableException"),
            (500, "InternalServerError"),
            (429, "RequestThrottledException"),
            (408, "RequestTimeout"),
        ] {
            assert_eq!(classified(status, code), "Unavailable", "{status} {code}");
        }
    }
}
