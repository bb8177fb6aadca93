//! The actions of DynamoDB, and what they share: how a request is denied, refused and answered.

mod batches;
mod expression;
mod items;
mod request;
mod transactions;
mod value;

use serde_json::{Map, Value as Json, json};

use crate::refusal::Refusal;
use crate::server::Reply;
use crate::world::{Table, World};
use request::Request;

/// What the header `X-Amz-Target` begins with; the action follows.
pub(crate) const TARGET: &str = "DynamoDB_20120810.";

pub(crate) fn call(world: &mut World, action: &str, body: &str) -> Result<Json, Refusal> {
    let act: fn(&mut World, &Request) -> Result<Json, Refusal> = match action {
        "GetItem" => items::get,
        "BatchGetItem" => batches::get,
        "PutItem" => items::put,
        "UpdateItem" => items::update,
        "DeleteItem" => items::delete,
        "Scan" => items::scan,
        "TransactWriteItems" => transactions::write,
        "DescribeTable" => describe_table,
        _ => {
            return Err(Refusal::new(
                "UnknownOperationException",
                format!("The operation {action} does not exist, or is not simulated."),
            ));
        }
    };
    let Ok(Json::Object(members)) = serde_json::from_str(body) else {
        return Err(Refusal::new(
            "SerializationException",
            "The body is not a JSON object",
        ));
    };
    act(world, &Request::new(&members))
}

pub(crate) fn reply(request_id: &str, result: Result<Json, Refusal>) -> Reply {
    let (status, body) = match result {
        Ok(answer) => (200, answer),
        Err(refusal) => (refusal.status, Json::Object(error(refusal))),
    };
    Reply {
        status,
        content_type: "application/x-amz-json-1.0",
        // A JSON answer has no other place for it.
        headers: vec![("x-amzn-requestid", request_id.to_owned())],
        body: body.to_string().into(),
    }
}

/// The error document. Whether its sentence is called `message` or `Message` differs from error to error.
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

/// Too many requests for the table.
pub(crate) fn throttled() -> Refusal {
    Refusal::new(
        "ProvisionedThroughputExceededException",
        "The level of configured provisioned throughput for the table was exceeded. Consider increasing \
         your provisioning level with the UpdateTable API.",
    )
}

/// Something went wrong on the other side.
pub(crate) fn failed() -> Refusal {
    Refusal::new("InternalServerError", "Internal server error").with_status(500)
}

/// A transaction is at work on an item: a transaction that wants the same one is cancelled, and a single
/// call is refused.
pub(crate) fn conflicting(action: &str, body: &str) -> Refusal {
    let body: Json = serde_json::from_str(body).unwrap_or_default();
    match body.get("TransactItems").and_then(Json::as_array) {
        Some(operations) if action == "TransactWriteItems" => {
            transactions::conflicting(operations.len())
        }
        _ => Refusal::new(
            "TransactionConflictException",
            "Transaction is ongoing for the item",
        ),
    }
}

/// `AccessDeniedException`, in the words that IAM has for an identity without the permission. A transaction
/// needs the permissions of its operations; the first one is denied.
pub(crate) fn denied(world: &World, action: &str, body: &str) -> Refusal {
    let World {
        account, region, ..
    } = world;
    let body: Json = serde_json::from_str(body).unwrap_or_default();
    let operation = operations(&body).into_iter().next();
    let action = match operation {
        Some(("ConditionCheck", _)) => "ConditionCheckItem".to_owned(),
        Some((kind, _)) => format!("{kind}Item"),
        None => action.to_owned(),
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

/// The names of the tables of a request, those of a transaction or a batch with commas between; for the log of
/// calls.
pub(crate) fn table_names(body: &str) -> Option<String> {
    let body: Json = serde_json::from_str(body).ok()?;
    Some(named_tables(&body).join(",")).filter(|names| !names.is_empty())
}

fn named_tables(body: &Json) -> Vec<&str> {
    let batch = body.get("RequestItems").and_then(Json::as_object);
    let operations = operations(body);
    let of_operations = operations.iter().map(|(_, operation)| *operation);
    let mut names: Vec<&str> = std::iter::once(body)
        .chain(of_operations)
        .filter_map(table_name)
        .chain(batch.into_iter().flatten().map(|(name, _)| name.as_str()))
        .collect();
    names.dedup();
    names
}

fn table_name(request: &Json) -> Option<&str> {
    request.get("TableName")?.as_str()
}

/// The operations of a transaction with their kinds, `Put` and so on.
fn operations(body: &Json) -> Vec<(&str, &Json)> {
    let items = body.get("TransactItems").and_then(Json::as_array);
    items
        .into_iter()
        .flatten()
        .filter_map(Json::as_object)
        .flatten()
        .map(|(kind, operation)| (kind.as_str(), operation))
        .collect()
}

/// A request that can not be served as it is.
fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new("ValidationException", message)
}

fn not_found(message: impl Into<String>) -> Refusal {
    Refusal::new("ResourceNotFoundException", message)
}

fn table<'w>(world: &'w World, name: &str) -> Result<&'w Table, Refusal> {
    world
        .tables
        .get(name)
        .ok_or_else(|| not_found("Requested resource not found"))
}

fn describe_table(world: &mut World, request: &Request) -> Result<Json, Refusal> {
    request.check_known(&["TableName"])?;
    let name = request.required("TableName")?;
    let Some(table) = world.tables.get(name) else {
        return Err(not_found(format!(
            "Requested resource not found: Table: {name} not found"
        )));
    };
    let World {
        account, region, ..
    } = &*world;
    Ok(json!({"Table": {
        "TableName": name,
        "TableArn": format!("arn:aws:dynamodb:{region}:{account}:table/{name}"),
        "TableStatus": "ACTIVE",
        "KeySchema": [{"AttributeName": table.key, "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": table.key, "AttributeType": "S"}],
        "ItemCount": table.items.len(),
    }}))
}

/// What the unit tests of the actions share.
#[cfg(test)]
mod testing {
    use super::*;

    /// The table of the default world.
    pub(super) const TABLE: &str = "ami-billing-guard";

    /// Makes a call about the default table, and gives the answer or the error document.
    pub(super) fn act(world: &mut World, action: &str, mut body: Json) -> Result<Json, Json> {
        let names_tables_itself = matches!(action, "TransactWriteItems" | "BatchGetItem");
        if !names_tables_itself && body.get("TableName").is_none() {
            body["TableName"] = TABLE.into();
        }
        call(world, action, &body.to_string()).map_err(|refusal| Json::Object(error(refusal)))
    }

    /// The item of this id in the default table.
    pub(super) fn item(world: &World, id: &str) -> Option<Json> {
        world.tables[TABLE].items.get(id).map(|item| json!(item))
    }

    /// The code and the sentence of an error document.
    pub(super) fn words(error: &Json) -> (&str, &str) {
        let code = error["__type"].as_str().unwrap();
        let sentence = error.get("message").or_else(|| error.get("Message"));
        (
            code.split('#').next_back().unwrap(),
            sentence.unwrap().as_str().unwrap(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{TABLE, act, words};
    use super::*;

    #[test]
    fn errors_have_their_namespaces_and_call_their_sentences_as_dynamodb_does() {
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
            (
                "ConditionalCheckFailedException",
                "com.amazonaws.dynamodb.v20120810",
                "message",
            ),
            (
                "TransactionCanceledException",
                "com.amazonaws.dynamodb.v20120810",
                "Message",
            ),
        ] {
            let error = Json::Object(error(Refusal::new(code, "no")));
            assert_eq!(
                error,
                json!({"__type": format!("{namespace}#{code}"), sentence: "no"})
            );
        }
    }

    #[test]
    fn a_denial_names_permission_and_table() {
        let world = World::default();
        let arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/ami-billing-guard";
        let put = json!({"TableName": TABLE});
        let transaction = json!({"TransactItems": [{"ConditionCheck": {"TableName": TABLE}}]});
        let batch = json!({"RequestItems": {TABLE: {"Keys": []}}});
        for (action, body, denied_action) in [
            ("PutItem", put, "PutItem"),
            ("BatchGetItem", batch, "BatchGetItem"),
            ("TransactWriteItems", transaction, "ConditionCheckItem"),
        ] {
            let refusal = denied(&world, action, &body.to_string());
            assert!(refusal.message.contains(&format!(
                "not authorized to perform: dynamodb:{denied_action} on resource: {arn} because"
            )));
        }
    }

    #[test]
    fn a_call_is_logged_with_its_tables() {
        assert_eq!(
            table_names(&json!({"TableName": TABLE}).to_string()).as_deref(),
            Some(TABLE)
        );
        let body = json!({"TransactItems": [
            {"Put": {"TableName": "one"}},
            {"Update": {"TableName": "one"}},
            {"Delete": {"TableName": "two"}},
        ]});
        assert_eq!(table_names(&body.to_string()).as_deref(), Some("one,two"));
        let body = json!({"RequestItems": {"one": {"Keys": []}, "two": {"Keys": []}}});
        assert_eq!(table_names(&body.to_string()).as_deref(), Some("one,two"));
        assert_eq!(table_names("{"), None);
    }

    #[test]
    fn a_table_is_described() {
        let mut world = World::default();
        let answer = act(&mut world, "DescribeTable", json!({})).unwrap();
        assert_eq!(answer["Table"]["TableStatus"], "ACTIVE");
        assert_eq!(answer["Table"]["KeySchema"][0]["AttributeName"], "id");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let mut world = World::default();
        for (action, body, expected) in [
            ("Query", "{}", "UnknownOperationException"),
            ("GetItem", "", "SerializationException"),
            ("GetItem", "[]", "SerializationException"),
            ("GetItem", "{\"TableName\": 1}", "SerializationException"),
            ("GetItem", "{}", "ValidationException"),
            (
                "GetItem",
                "{\"TableName\": \"ami-billing-guard\"}",
                "ValidationException",
            ),
            (
                "GetItem",
                "{\"AttributesToGet\": [\"id\"]}",
                "ValidationException",
            ),
        ] {
            let refusal = call(&mut world, action, body).unwrap_err();
            assert_eq!(refusal.code, expected, "{action} {body}");
        }
        for action in ["GetItem", "DeleteItem", "Scan", "DescribeTable"] {
            let mut body = json!({"TableName": "no-such-table"});
            if action.ends_with("Item") {
                body["Key"] = json!({"id": {"S": "a"}});
            }
            let error = act(&mut world, action, body).unwrap_err();
            assert_eq!(words(&error).0, "ResourceNotFoundException", "{action}");
        }
    }
}
