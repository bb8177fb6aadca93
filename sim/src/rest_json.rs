//! Shared code of the services with the `restJson1` protocol: the EBS direct APIs and the Recycle Bin.

use serde_json::Value as Json;

use crate::refusal::Refusal;
use crate::reply::Reply;

/// A reply with a JSON document.
pub(crate) fn document(request_id: &str, document: &Json) -> Reply {
    let body = document.to_string();
    reply(request_id, 200, "application/json", Vec::new(), body.into())
}

/// The reply to a refused call.
pub(crate) fn refused(request_id: &str, refusal: Refusal) -> Reply {
    let mut error = refusal.details;
    error.insert("Message".to_owned(), refusal.message.into());
    let headers = vec![("x-amzn-errortype", refusal.code)];
    let body = Json::Object(error).to_string();
    let content_type = "application/json";
    reply(
        request_id,
        refusal.status,
        content_type,
        headers,
        body.into(),
    )
}

/// A reply of any content type, with the request id.
pub(crate) fn reply(
    request_id: &str,
    status: u16,
    content_type: &'static str,
    mut headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
) -> Reply {
    headers.push(("x-amzn-requestid", request_id.to_owned()));
    Reply {
        status,
        content_type,
        headers,
        body: body.into(),
    }
}

/// A refusal with the status that its code has in the API's model.
pub(crate) fn refusal(code: impl Into<String>, message: impl Into<String>) -> Refusal {
    let refusal = Refusal::new(code, message);
    let status = match refusal.code.as_str() {
        "ServiceQuotaExceededException" => 402,
        "AccessDeniedException" => 403,
        "ResourceNotFoundException" | "UnknownOperationException" => 404,
        "InternalServerException" => 500,
        _ => 400,
    };
    refusal.with_status(status)
}

/// An internal error of the service.
pub(crate) fn failed() -> Refusal {
    failed_with("An internal error has occurred.")
}

/// An internal error with its cause, so that a test with a wrong path shows the reason.
pub(crate) fn failed_with(message: impl Into<String>) -> Refusal {
    refusal("InternalServerException", message)
}
