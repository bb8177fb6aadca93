//! The part of Amazon SQS that the guard needs: the visibility of a received message.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::world::World;

/// Prefix of the header `X-Amz-Target`. The action follows it.
pub(crate) const TARGET: &str = "AmazonSQS.";

/// The longest visibility timeout in seconds: twelve hours (SQS API reference, "ChangeMessageVisibility").
const LONGEST: i64 = 43_200;

type Params = BTreeMap<String, String>;

/// Executes a call.
pub(crate) fn call(world: &mut World, action: &str, body: &str) -> Result<(), Refusal> {
    if action != "ChangeMessageVisibility" {
        return Err(Refusal::new(
            "UnknownOperationException",
            format!("The operation {action} does not exist, or is not simulated."),
        ));
    }
    let Ok(Json::Object(request)) = serde_json::from_str(body) else {
        return Err(Refusal::new(
            "SerializationException",
            "The body is not a JSON object",
        ));
    };
    change_visibility(world, &request)
}

fn change_visibility(world: &mut World, request: &Map<String, Json>) -> Result<(), Refusal> {
    let known = ["QueueUrl", "ReceiptHandle", "VisibilityTimeout"];
    if let Some(other) = request.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(Refusal::new(
            "SerializationException",
            format!("{other} is not a parameter of this action"),
        ));
    }
    let text = |name: &str| {
        let value = request.get(name).and_then(Json::as_str);
        value.ok_or_else(|| missing(name))
    };
    let queue = world
        .queues
        .get_mut(text("QueueUrl")?)
        .ok_or_else(|| Refusal::new("QueueDoesNotExist", "The specified queue does not exist."))?;
    let handle = text("ReceiptHandle")?;
    if handle.is_empty() {
        return Err(Refusal::new(
            "ReceiptHandleIsInvalid",
            "The input receipt handle \"\" is not a valid receipt handle.",
        ));
    }
    let timeout = request.get("VisibilityTimeout");
    let timeout = timeout.ok_or_else(|| missing("VisibilityTimeout"))?;
    let seconds = timeout.as_i64().filter(|it| (0..=LONGEST).contains(it));
    let seconds = seconds.and_then(|it| u32::try_from(it).ok());
    let seconds = seconds.ok_or_else(|| {
        Refusal::new(
            "InvalidParameterValueException",
            format!(
                "Value {timeout} for parameter VisibilityTimeout is invalid. Reason: Must be between 0 and {LONGEST}, \
                 if provided."
            ),
        )
    })?;
    queue.hidden.insert(handle.to_owned(), seconds);
    Ok(())
}

fn missing(name: &str) -> Refusal {
    Refusal::new(
        "MissingRequiredParameterException",
        format!("The request must contain the parameter {name}."),
    )
}

/// The parameters of a request by name, for the log of calls.
pub(crate) fn params(body: &str) -> Params {
    let document: Json = serde_json::from_str(body).unwrap_or_default();
    let members = document.as_object().into_iter().flatten();
    let params = members.map(|(name, value)| {
        let text = value.as_str().map(str::to_owned);
        (name.clone(), text.unwrap_or_else(|| value.to_string()))
    });
    params.collect()
}

/// The reply to a call. The reply of an action without a result has no body at all.
pub(crate) fn reply(request_id: &str, result: Result<(), Refusal>) -> Reply {
    let mut headers = vec![("x-amzn-requestid", request_id.to_owned())];
    let (status, body) = match result {
        Ok(()) => (200, String::new()),
        Err(refusal) => {
            headers.push(("x-amzn-query-error", query_error(&refusal)));
            (refusal.status, error(&refusal).to_string())
        }
    };
    Reply {
        status,
        content_type: "application/x-amz-json-1.0",
        headers,
        body: body.into(),
    }
}

fn error(refusal: &Refusal) -> Json {
    let namespace = match refusal.code.as_str() {
        "AccessDeniedException"
        | "InternalFailure"
        | "InvalidParameterValueException"
        | "MissingRequiredParameterException"
        | "SerializationException"
        | "UnknownOperationException"
        | "UnrecognizedClientException" => "com.amazon.coral.service",
        _ => "com.amazonaws.sqs",
    };
    json!({ "__type": format!("{namespace}#{}", refusal.code), "message": refusal.message })
}

/// The code of the same error in SQS's older protocol (Smithy 2.0, "AWS query compatible" trait). The SDKs use this
/// code.
fn query_error(refusal: &Refusal) -> String {
    let code = match refusal.code.as_str() {
        "QueueDoesNotExist" => "AWS.SimpleQueueService.NonExistentQueue",
        "AccessDeniedException" => "AccessDenied",
        "InvalidParameterValueException" => "InvalidParameterValue",
        "MissingRequiredParameterException" => "MissingParameter",
        "UnrecognizedClientException" => "InvalidClientTokenId",
        code => code,
    };
    let fault = match refusal.status < 500 {
        true => "Sender",
        false => "Receiver",
    };
    format!("{code};{fault}")
}

/// Too many requests.
pub(crate) fn throttled() -> Refusal {
    Refusal::new(
        "RequestThrottled",
        "The request was denied due to request throttling.",
    )
}

/// An internal error of the service.
pub(crate) fn failed() -> Refusal {
    Refusal::new("InternalFailure", "An internal error has occurred").with_status(500)
}

/// `AccessDeniedException`, in IAM's wording for an identity without the permission. SQS writes the action in lower
/// case.
pub(crate) fn denied(world: &World, action: &str, params: &Params) -> Refusal {
    let World {
        account, region, ..
    } = world;
    let action = format!("sqs:{}", action.to_ascii_lowercase());
    let url = params.get("QueueUrl").map_or("", String::as_str);
    let name = url.rsplit('/').next().unwrap_or_default();
    Refusal::new(
        "AccessDeniedException",
        format!(
            "User: {} is not authorized to perform: {action} on resource: arn:aws:sqs:{region}:{account}:{name} because \
             no identity-based policy allows the {action} action",
            world.caller_arn()
        ),
    )
    .with_status(403)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Queue;

    fn change(world: &mut World, request: &Json) -> Result<(), Refusal> {
        call(world, "ChangeMessageVisibility", &request.to_string())
    }

    fn request(seconds: i64) -> Json {
        json!({ "QueueUrl": Queue::URL, "ReceiptHandle": "receipt", "VisibilityTimeout": seconds })
    }

    #[test]
    fn a_queue_notes_for_how_long_a_message_is_hidden() {
        let mut world = World::default();
        for seconds in [0, 43_200, 6_301] {
            change(&mut world, &request(seconds)).unwrap();
        }
        let hidden = &world.queues[Queue::URL].hidden;
        assert_eq!(*hidden, BTreeMap::from([("receipt".to_owned(), 6_301)]));
    }

    #[test]
    fn what_sqs_does_not_take_is_refused_with_its_two_codes() {
        let change_one = |name: &str, value: Json| {
            let mut changed = request(10);
            changed[name] = value;
            changed
        };
        for (refused, code, older) in [
            (
                change_one(
                    "QueueUrl",
                    json!("https://sqs.eu-west-1.amazonaws.com/1/other"),
                ),
                "com.amazonaws.sqs#QueueDoesNotExist",
                "AWS.SimpleQueueService.NonExistentQueue;Sender",
            ),
            (
                change_one("ReceiptHandle", json!("")),
                "com.amazonaws.sqs#ReceiptHandleIsInvalid",
                "ReceiptHandleIsInvalid;Sender",
            ),
            (
                request(43_201),
                "com.amazon.coral.service#InvalidParameterValueException",
                "InvalidParameterValue;Sender",
            ),
            (
                request(-1),
                "com.amazon.coral.service#InvalidParameterValueException",
                "InvalidParameterValue;Sender",
            ),
            (
                json!({ "QueueUrl": Queue::URL }),
                "com.amazon.coral.service#MissingRequiredParameterException",
                "MissingParameter;Sender",
            ),
            (
                change_one("Visibility", json!(1)),
                "com.amazon.coral.service#SerializationException",
                "SerializationException;Sender",
            ),
        ] {
            let mut world = World::default();
            let reply = reply("1", change(&mut world, &refused));
            assert_eq!(reply.status, 400);
            let document: Json = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!(document["__type"], code);
            assert_eq!(reply.headers[1], ("x-amzn-query-error", older.to_owned()));
            assert!(world.queues[Queue::URL].hidden.is_empty());
        }
    }

    #[test]
    fn a_denial_names_permission_and_queue() {
        let params = params(&request(10).to_string());
        let refusal = denied(&World::default(), "ChangeMessageVisibility", &params);
        assert!(refusal.message.contains(
            "sqs:changemessagevisibility on resource: arn:aws:sqs:eu-west-1:123456789012:ami-billing-guard because"
        ));
        assert_eq!(query_error(&refusal), "AccessDenied;Sender");
        assert_eq!(query_error(&failed()), "InternalFailure;Receiver");
    }
}
