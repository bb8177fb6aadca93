//! Shared code of the services with the `awsQuery` protocol: SNS and STS.

use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::xml::Xml;

/// The answer or the error document of the service with this namespace.
pub(crate) fn reply(
    namespace: &str,
    action: &str,
    request_id: &str,
    result: Result<Xml, Refusal>,
) -> Reply {
    match result {
        Ok(content) => Reply::xml(
            200,
            Xml::document(&format!("{action}Response"), Some(namespace), |xml| {
                xml.element(&format!("{action}Result"), |xml| xml.include(&content));
                xml.element("ResponseMetadata", |xml| xml.text("RequestId", request_id));
            }),
        ),
        Err(refusal) => Reply::xml(
            refusal.status,
            Xml::document("ErrorResponse", Some(namespace), |xml| {
                xml.element("Error", |xml| {
                    let fault = if refusal.status < 500 {
                        "Sender"
                    } else {
                        "Receiver"
                    };
                    xml.text("Type", fault);
                    xml.text("Code", &refusal.code);
                    xml.text("Message", &refusal.message);
                });
                xml.text("RequestId", request_id);
            }),
        ),
    }
}

/// Too many requests.
pub(crate) fn throttled() -> Refusal {
    Refusal::new("Throttling", "Rate exceeded")
}
