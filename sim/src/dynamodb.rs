//! The actions of DynamoDB that the ledger calls: GetItem, BatchGetItem, UpdateItem, and TransactWriteItems of updates.
//!
//! Only expressions in the ledger's form are accepted. Anything else is refused with a `ValidationException` that names
//! it, and is never ignored. `sim/tests/dynamodb.rs` compares all of this with an independent DynamoDB.

mod actions;
mod expression;
mod refusals;

use serde_json::{Map, Value as Json};

use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::world::World;
pub(crate) use refusals::{conflicting, failed, throttled};

/// Prefix of the header `X-Amz-Target`. The action follows it.
pub(crate) const TARGET: &str = "DynamoDB_20120810.";

pub(crate) fn call(world: &mut World, action: &str, body: &str) -> Result<Json, Refusal> {
    let act = match action {
        "GetItem" => actions::get,
        "BatchGetItem" => actions::batch_get,
        "UpdateItem" => actions::update,
        "TransactWriteItems" => actions::transact,
        _ => {
            return Err(Refusal::new(
                "UnknownOperationException",
                format!("sim does not know the operation {action}."),
            ));
        }
    };
    let request = serde_json::from_str(body);
    let not_json = || Refusal::new("SerializationException", "The body is not JSON");
    act(world, request.map_err(|_| not_json())?)
}

pub(crate) fn reply(request_id: &str, result: Result<Json, Refusal>) -> Reply {
    let (status, body) = match result {
        Ok(answer) => (200, answer),
        Err(refusal) => (refusal.status, Json::Object(error(refusal))),
    };
    Reply {
        status,
        content_type: "application/x-amz-json-1.0",
        // A JSON answer has no other place for the request id.
        headers: vec![("x-amzn-requestid", request_id.to_owned())],
        body: body.to_string().into(),
    }
}

/// The error document. The key of its message is `message` or `Message`, depending on the error.
fn error(refusal: Refusal) -> Map<String, Json> {
    let (namespace, sentence) = match refusal.code.as_str() {
        "ValidationException" => ("com.amazon.coral.validate", "message"),
        "AccessDeniedException" | "SerializationException" | "UnknownOperationException" => {
            ("com.amazon.coral.service", "Message")
        }
        "ThrottlingException" => ("com.amazon.coral.availability", "message"),
        "TransactionCanceledException" | "IdempotentParameterMismatchException" => {
            ("com.amazonaws.dynamodb.v20120810", "Message")
        }
        _ => ("com.amazonaws.dynamodb.v20120810", "message"),
    };
    let mut error = refusal.details;
    let code = format!("{namespace}#{}", refusal.code);
    error.insert("__type".to_owned(), code.into());
    error.insert(sentence.to_owned(), refusal.message.into());
    error
}

/// `AccessDeniedException`, in IAM's wording for an identity without the permission. A transaction needs the
/// permissions for its writes.
pub(crate) fn denied(world: &World, action: &str, body: &str) -> Refusal {
    let World {
        account, region, ..
    } = world;
    let body: Json = serde_json::from_str(body).unwrap_or_default();
    let action = match action {
        "TransactWriteItems" => "UpdateItem",
        action => action,
    };
    let on = match named_tables(&body).first() {
        Some(name) => {
            format!(" on resource: arn:aws:dynamodb:{region}:{account}:table/{name}")
        }
        None => String::new(),
    };
    Refusal::new(
        "AccessDeniedException",
        format!(
            "User: {} is not authorized to perform: dynamodb:{action}{on} because no identity-based \
             policy allows the dynamodb:{action} action",
            world.caller_arn()
        ),
    )
}

/// The table names in a request, for the log of calls. Several names, in a transaction or a batch, are separated by
/// commas.
pub(crate) fn table_names(body: &str) -> Option<String> {
    let body: Json = serde_json::from_str(body).ok()?;
    Some(named_tables(&body).join(",")).filter(|names| !names.is_empty())
}

fn named_tables(body: &Json) -> Vec<&str> {
    let batch = body.get("RequestItems").and_then(Json::as_object);
    let batch = batch.into_iter().flatten().map(|(name, _)| name.as_str());
    let writes = body.get("TransactItems").and_then(Json::as_array);
    let writes = writes.into_iter().flatten();
    let writes = writes.filter_map(|write| write.get("Update")?.get("TableName")?.as_str());
    let one = body.get("TableName").and_then(Json::as_str);
    let mut names: Vec<&str> = one.into_iter().chain(batch).chain(writes).collect();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TABLE: &str = "ami-billing-guard";

    #[test]
    fn errors_have_their_namespaces_and_call_their_sentences_as_dynamodb_does() {
        let dynamodb = "com.amazonaws.dynamodb.v20120810";
        for (code, namespace, sentence) in [
            (
                "ValidationException",
                "com.amazon.coral.validate",
                "message",
            ),
            (
                "AccessDeniedException",
                "com.amazon.coral.service",
                "Message",
            ),
            ("ConditionalCheckFailedException", dynamodb, "message"),
            ("TransactionCanceledException", dynamodb, "Message"),
        ] {
            let error = Json::Object(error(Refusal::new(code, "no")));
            let kind = format!("{namespace}#{code}");
            assert_eq!(error, json!({"__type": kind, sentence: "no"}));
        }
    }

    #[test]
    fn denials_and_the_log_name_permission_and_tables() {
        let one = json!({ "TableName": TABLE });
        let batch = json!({"RequestItems": {TABLE: {"Keys": []}}});
        let transaction = json!({"TransactItems": [{ "Update": one }, { "Update": one }]});
        for (action, body, permission) in [
            ("GetItem", one, "GetItem"),
            ("BatchGetItem", batch, "BatchGetItem"),
            ("TransactWriteItems", transaction, "UpdateItem"),
        ] {
            let body = body.to_string();
            assert_eq!(table_names(&body).as_deref(), Some(TABLE));
            let refusal = denied(&World::default(), action, &body);
            assert!(refusal.message.contains(&format!(
                "not authorized to perform: dynamodb:{permission} on resource: \
                 arn:aws:dynamodb:eu-west-1:123456789012:table/{TABLE} because"
            )));
        }
        assert_eq!(table_names("{"), None);
    }
}
