//! `TransactWriteItems`: all writes or none.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::invalid;
use super::items::{Change, Kind, Write};
use super::request::Request;
use crate::refusal::Refusal;
use crate::world::World;

/// "Up to 100 items" in one transaction.
const MOST_WRITES: usize = 100;

pub(super) fn write(world: &mut World, request: &Request) -> Result<Json, Refusal> {
    request.check_known(&["TransactItems", "ClientRequestToken"])?;
    let operations = request.list("TransactItems")?;
    let token = request.text("ClientRequestToken")?;
    if let Some(first) = token.and_then(|token| world.transactions.get(token)) {
        // "If the token is the same and the request is, too, the transaction is performed once", for ten
        // minutes; here for ever.
        return if first.as_slice() == operations {
            Ok(json!({}))
        } else {
            Err(Refusal::new(
                "IdempotentParameterMismatchException",
                "The client request token was used with other parameters",
            ))
        };
    }
    let writes = operations.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    check(world, &writes)?;
    let changes: Vec<Result<Change, Refusal>> =
        writes.iter().map(|write| write.change(world)).collect();
    if changes.iter().any(Result::is_err) {
        return Err(cancelled(changes.iter().map(reason).collect()));
    }
    for change in changes.iter().flatten() {
        change.commit(world);
    }
    if let Some(token) = token {
        world
            .transactions
            .insert(token.to_owned(), operations.to_vec());
    }
    Ok(json!({}))
}

/// One of `{"Put": …}`, `{"Update": …}`, `{"Delete": …}`, `{"ConditionCheck": …}`.
fn read(operation: &Json) -> Result<Write, Refusal> {
    let one_alone =
        || invalid("TransactItems can only contain one of Check, Put, Update or Delete");
    let mut members = operation.as_object().into_iter().flatten();
    let (Some((kind, members)), None) = (members.next(), members.next()) else {
        return Err(one_alone());
    };
    let kind = match kind.as_str() {
        "Put" => Kind::Put,
        "Update" => Kind::Update,
        "Delete" => Kind::Delete,
        "ConditionCheck" => Kind::ConditionCheck,
        _ => return Err(one_alone()),
    };
    let Json::Object(members) = members else {
        return Err(one_alone());
    };
    let request = Request::new(members);
    if kind == Kind::Update {
        request.required("UpdateExpression")?;
    }
    Write::read(kind, &request, &[])
}

/// Refuses the whole request if there are too many writes, none, two of one item, or one of a table that is
/// not there: that this does not cancel the transaction instead is a guess.
fn check(world: &World, writes: &[Write]) -> Result<(), Refusal> {
    if !(1..=MOST_WRITES).contains(&writes.len()) {
        return Err(invalid(format!(
            "1 validation error detected: Value at 'transactItems' failed to satisfy constraint: Member \
             must have length between 1 and {MOST_WRITES}"
        )));
    }
    let mut targets = BTreeSet::new();
    for write in writes {
        if !targets.insert(write.target(world)?) {
            return Err(invalid(
                "Transaction request cannot include multiple operations on one item",
            ));
        }
    }
    Ok(())
}

/// What became of one write of a transaction that is cancelled.
fn reason(change: &Result<Change, Refusal>) -> Json {
    let Err(refusal) = change else {
        return none();
    };
    let code = match refusal.code.as_str() {
        "ConditionalCheckFailedException" => "ConditionalCheckFailed",
        "ValidationException" => "ValidationError",
        other => other,
    };
    let mut reason = refusal.details.clone();
    reason.insert("Code".to_owned(), code.into());
    reason.insert("Message".to_owned(), refusal.message.as_str().into());
    Json::Object(reason)
}

/// The reason of a write that would have been done.
fn none() -> Json {
    json!({"Code": "None"})
}

/// The transaction is cancelled for these reasons, of which each write has one.
fn cancelled(reasons: Vec<Json>) -> Refusal {
    let codes: Vec<&str> = reasons
        .iter()
        .filter_map(|reason| reason.get("Code")?.as_str())
        .collect();
    Refusal::new(
        "TransactionCanceledException",
        format!(
            "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
            codes.join(", ")
        ),
    )
    .with_detail("CancellationReasons", Json::Array(reasons))
}

/// Another transaction is at work on the item of the last one of so many writes.
pub(super) fn conflicting(writes: usize) -> Refusal {
    let mut reasons = vec![none(); writes.saturating_sub(1)];
    reasons.push(json!({
        "Code": "TransactionConflict",
        "Message": "Transaction is ongoing for the item",
    }));
    cancelled(reasons)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TABLE, act, item, words};
    use super::*;

    fn put(id: &str) -> Json {
        json!({"Put": {
            "TableName": TABLE,
            "Item": {"id": {"S": id}, "state": {"S": "reserved"}},
            "ConditionExpression": "attribute_not_exists(id)",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }})
    }

    fn count(limit: &str) -> Json {
        json!({"Update": {
            "TableName": TABLE,
            "Key": {"id": {"S": "hour"}},
            "UpdateExpression": "ADD discards :one",
            "ConditionExpression": "attribute_not_exists(discards) OR discards < :limit",
            "ExpressionAttributeValues": {":one": {"N": "1"}, ":limit": {"N": limit}},
        }})
    }

    fn delete(id: &str) -> Json {
        json!({"Delete": {"TableName": TABLE, "Key": {"id": {"S": id}}}})
    }

    fn check(id: &str, condition: &str) -> Json {
        json!({"ConditionCheck": {
            "TableName": TABLE,
            "Key": {"id": {"S": id}},
            "ConditionExpression": condition,
        }})
    }

    fn transact(world: &mut World, operations: &[Json]) -> Result<Json, Json> {
        act(
            world,
            "TransactWriteItems",
            json!({"TransactItems": operations}),
        )
    }

    #[test]
    fn a_transaction_does_all_or_nothing_and_says_why() {
        let mut world = World::default();
        assert_eq!(transact(&mut world, &[put("a"), count("1")]), Ok(json!({})));
        assert_eq!(item(&world, "hour").unwrap()["discards"], json!({"N": "1"}));

        let before = world.tables.clone();
        let error = transact(&mut world, &[put("b"), count("1"), put("a")]).unwrap_err();
        assert_eq!(
            error,
            json!({
                "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
                "Message": "Transaction cancelled, please refer cancellation reasons for specific reasons \
                            [None, ConditionalCheckFailed, ConditionalCheckFailed]",
                "CancellationReasons": [
                    {"Code": "None"},
                    {
                        "Code": "ConditionalCheckFailed",
                        "Message": "The conditional request failed",
                    },
                    {
                        "Code": "ConditionalCheckFailed",
                        "Message": "The conditional request failed",
                        "Item": {"id": {"S": "a"}, "state": {"S": "reserved"}},
                    },
                ],
            })
        );
        assert_eq!(world.tables, before);

        let all_kinds = [
            put("b"),
            count("2"),
            delete("a"),
            check("c", "attribute_not_exists(id)"),
        ];
        assert_eq!(transact(&mut world, &all_kinds), Ok(json!({})));
        let left: Vec<&String> = world.tables[TABLE].items.keys().collect();
        assert_eq!(left, ["b", "hour"]);
    }

    #[test]
    fn an_update_that_its_item_does_not_allow_cancels_the_transaction() {
        let mut world = World::default();
        let update = json!({"Update": {
            "TableName": TABLE,
            "Key": {"id": {"S": "b"}},
            "UpdateExpression": "SET a = nothing",
        }});
        let error = transact(&mut world, &[put("a"), update]).unwrap_err();
        assert_eq!(words(&error).0, "TransactionCanceledException");
        assert_eq!(error["CancellationReasons"][1]["Code"], "ValidationError");
        assert!(world.tables[TABLE].items.is_empty());
    }

    #[test]
    fn a_repeated_token_is_one_transaction() {
        let mut world = World::default();
        let with_token = |operation: Json, token: &str| {
            let operations = [operation];
            json!({"TransactItems": operations, "ClientRequestToken": token})
        };
        let mut call = |body: Json| act(&mut world, "TransactWriteItems", body);
        assert_eq!(call(with_token(put("a"), "one")), Ok(json!({})));
        assert_eq!(call(with_token(put("a"), "one")), Ok(json!({})));
        let error = call(with_token(put("b"), "one")).unwrap_err();
        assert_eq!(words(&error).0, "IdempotentParameterMismatchException");
        // What did not take effect may be tried again.
        let error = call(with_token(put("a"), "two")).unwrap_err();
        assert_eq!(words(&error).0, "TransactionCanceledException");
        assert_eq!(call(with_token(delete("a"), "three")), Ok(json!({})));
        assert_eq!(call(with_token(put("a"), "two")), Ok(json!({})));
    }

    #[test]
    fn transactions_that_can_not_be_are_refused_as_a_whole() {
        let put_and_delete = json!({"Put": put("a")["Put"], "Delete": delete("b")["Delete"]});
        let elsewhere = json!({"Delete": {"TableName": "other", "Key": {"id": {"S": "a"}}}});
        let without_expression = json!({"Update": {"TableName": TABLE, "Key": {"id": {"S": "a"}}}});
        let too_many: Vec<Json> = (0..101).map(|n| delete(&n.to_string())).collect();
        for (operations, code, expected) in [
            (
                vec![put("a"), delete("a")],
                "ValidationException",
                "Transaction request cannot include multiple operations on one item",
            ),
            (
                vec![check("a", "attribute_exists(id)"), put("a")],
                "ValidationException",
                "Transaction request cannot include multiple operations on one item",
            ),
            (vec![], "ValidationException", "between 1 and 100"),
            (too_many, "ValidationException", "between 1 and 100"),
            (
                vec![put_and_delete],
                "ValidationException",
                "can only contain one of",
            ),
            (
                vec![json!({"Get": {}})],
                "ValidationException",
                "can only contain one of",
            ),
            (
                vec![check("a", "id = :undefined")],
                "ValidationException",
                "Invalid ConditionExpression",
            ),
            (
                vec![without_expression],
                "ValidationException",
                "The parameter 'UpdateExpression' is required",
            ),
            (
                vec![put("a"), elsewhere],
                "ResourceNotFoundException",
                "Requested resource not found",
            ),
        ] {
            let mut world = World::default();
            let error = transact(&mut world, &operations).unwrap_err();
            assert_eq!(words(&error).0, code, "{error}");
            assert!(words(&error).1.contains(expected), "{error}");
            assert!(world.tables[TABLE].items.is_empty());
        }
    }

    #[test]
    fn a_conflict_is_the_last_writes() {
        let error = Json::Object(super::super::error(conflicting(2)));
        assert_eq!(
            error["CancellationReasons"],
            json!([
                {"Code": "None"},
                {"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"},
            ])
        );
    }
}
