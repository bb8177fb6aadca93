//! The actions: reads of one or several items, and writes of one or several items.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json, json};

use super::expression::{Condition, Placeholders, Update, Value, projection, size};
use super::refusals::{cancelled, invalid, throttled, unknown};
use crate::clock;
use crate::refusal::Refusal;
use crate::world::{Item, Table, World};

/// Maximum size of an item, in bytes. "The maximum item size in DynamoDB is 400 KB, which includes both attribute name
/// binary length (UTF-8 length) and attribute value lengths" (Developer Guide, "Quotas").
const LARGEST_ITEM: usize = 400 * 1024;

/// Maximum length of a key, in bytes. "The partition key value can be up to 2048 bytes."
const LONGEST_KEY: usize = 2048;

/// Maximum number of items: "As many as 100 items" in a BatchGetItem, "up to 100 items" in a transaction.
const MOST_ITEMS: usize = 100;

/// Maximum size of a batch, in bytes. "A single operation can retrieve up to 16 MB of data."
const LARGEST_BATCH: usize = 16 << 20;

/// How long a `ClientRequestToken` is kept: "valid for 10 minutes after the first request that uses it is completed".
const TOKENS_LAST: TimeDelta = TimeDelta::minutes(10);

type Key = BTreeMap<String, Value>;
type Names = Option<BTreeMap<String, String>>;
type Values = Option<BTreeMap<String, Value>>;

/// Parses a request, or a part of one. Refuses parameters that `T` does not have.
fn read<T: DeserializeOwned>(json: Json) -> Result<T, Refusal> {
    serde_json::from_value(json).map_err(|error| unknown(format!("this request: {error}")))
}

fn table<'w>(world: &'w World, name: &str) -> Result<&'w Table, Refusal> {
    let table = world.tables.get(name);
    table.ok_or_else(|| Refusal::new("ResourceNotFoundException", "Requested resource not found"))
}

/// The value of a key, which must consist of the table's key attribute only.
fn id<'k>(table: &Table, key: &'k Key) -> Result<&'k str, Refusal> {
    match key.get(&table.key) {
        Some(Value::Text(id)) if key.len() == 1 && (1..=LONGEST_KEY).contains(&id.len()) => Ok(id),
        Some(Value::Text(_)) if key.len() == 1 => Err(invalid(format!(
            "One or more parameter values were invalid: a key is empty, or longer than {LONGEST_KEY} bytes"
        ))),
        _ => Err(invalid(
            "The provided key element does not match the schema",
        )),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct GetItem {
    table_name: String,
    key: Key,
    // All reads are consistent.
    _consistent_read: Option<bool>,
}

pub(super) fn get(world: &mut World, request: Json) -> Result<Json, Refusal> {
    let request: GetItem = read(request)?;
    let table = table(world, &request.table_name)?;
    Ok(match table.items.get(id(table, &request.key)?) {
        Some(item) => json!({ "Item": item }),
        None => json!({}),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct BatchGetItem {
    request_items: BTreeMap<String, Map<String, Json>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct KeysAndAttributes {
    keys: Vec<Key>,
    _consistent_read: Option<bool>,
    projection_expression: Option<String>,
    expression_attribute_names: Names,
}

/// Returns the items in the order of their keys. DynamoDB returns them in any order.
///
/// `UnprocessedKeys` has the keys that exceed the size limit or [`World::items_per_batch`], with the request's other
/// parameters. A key without an item is in neither list.
pub(super) fn batch_get(world: &mut World, request: Json) -> Result<Json, Refusal> {
    let BatchGetItem { request_items } = read(request)?;
    let mut tables = request_items.into_iter();
    let (Some((name, mut asked)), None) = (tables.next(), tables.next()) else {
        return Err(unknown("a batch of anything but one table"));
    };
    let request: KeysAndAttributes = read(asked.clone().into())?;
    check_number(request.keys.len())?;
    let mut with = Placeholders::new(request.expression_attribute_names, None)?;
    let shown = match request.projection_expression {
        Some(text) => Some(projection(&text, &mut with)?),
        None => None,
    };
    with.check_all_used()?;

    let table = table(world, &name)?;
    let mut ids = BTreeSet::new();
    for key in &request.keys {
        if !ids.insert(id(table, key)?) {
            return Err(invalid("Provided list of item keys contains duplicates"));
        }
    }
    let most = world.items_per_batch.unwrap_or(MOST_ITEMS);
    let (mut found, mut left, mut read, mut bytes) = (Vec::new(), Vec::new(), 0, 0);
    for id in ids {
        let item = table.items.get(id);
        bytes += item.map_or(0, size);
        if read == most || bytes > LARGEST_BATCH {
            left.push(json!({table.key.as_str(): {"S": id}}));
            continue;
        }
        read += 1;
        found.extend(item.map(|item| {
            let mut item = item.clone();
            item.retain(|name, _| shown.as_ref().is_none_or(|shown| shown.contains(name)));
            item
        }));
    }
    if read == 0 {
        // "If none of the items can be processed due to insufficient provisioned throughput on all of the tables in the
        // request, then BatchGetItem returns a ProvisionedThroughputExceededException."
        return Err(throttled());
    }
    let mut unprocessed = Map::new();
    if !left.is_empty() {
        asked.insert("Keys".to_owned(), left.into());
        unprocessed.insert(name.clone(), asked.into());
    }
    Ok(json!({"Responses": {name: found}, "UnprocessedKeys": unprocessed}))
}

fn check_number(items: usize) -> Result<(), Refusal> {
    if (1..=MOST_ITEMS).contains(&items) {
        return Ok(());
    }
    Err(invalid(format!(
        "1 validation error detected: Member must have length between 1 and {MOST_ITEMS}"
    )))
}

/// An update of one item: a separate request, or an operation of a transaction.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct UpdateItem {
    table_name: String,
    key: Key,
    update_expression: String,
    condition_expression: Option<String>,
    expression_attribute_names: Names,
    expression_attribute_values: Values,
    return_values: Option<ReturnValues>,
}

#[derive(Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ReturnValues {
    None,
    AllNew,
}

/// An update with parsed expressions.
struct Write {
    table: String,
    id: String,
    condition: Option<Condition>,
    update: Update,
}

impl Write {
    fn read(world: &World, request: UpdateItem) -> Result<Write, Refusal> {
        let mut with = Placeholders::new(
            request.expression_attribute_names,
            request.expression_attribute_values,
        )?;
        let update = Update::parse(&request.update_expression, &mut with)?;
        let condition = match request.condition_expression {
            Some(text) => Some(Condition::parse(&text, &mut with)?),
            None => None,
        };
        with.check_all_used()?;
        let table = table(world, &request.table_name)?;
        if update.changes(&table.key) {
            return Err(invalid(format!(
                "One or more parameter values were invalid: Cannot update attribute {}. This attribute is part of the key",
                table.key
            )));
        }
        Ok(Write {
            id: id(table, &request.key)?.to_owned(),
            table: request.table_name,
            condition,
            update,
        })
    }

    /// The item after the update. Changes nothing yet.
    fn outcome(&self, world: &World) -> Result<Item, Refusal> {
        let table = table(world, &self.table)?;
        let before = table.items.get(&self.id);
        if let Some(condition) = &self.condition
            && !condition.holds(before)?
        {
            return Err(Refusal::new(
                "ConditionalCheckFailedException",
                "The conditional request failed",
            ));
        }
        if before.is_none() && self.update.only_removes() {
            // DynamoDB creates no item here, but its documentation does not say so.
            return Err(unknown("an update that only removes, of no item"));
        }
        let new = || Item::from([(table.key.clone(), json!({"S": self.id}))]);
        let mut item = before.cloned().unwrap_or_else(new);
        self.update.apply(&mut item)?;
        if size(&item) > LARGEST_ITEM {
            return Err(invalid(
                "Item size to update has exceeded the maximum allowed size",
            ));
        }
        Ok(item)
    }

    fn commit(self, world: &mut World, item: Item) {
        if let Some(table) = world.tables.get_mut(&self.table) {
            table.items.insert(self.id, item);
        }
    }
}

pub(super) fn update(world: &mut World, request: Json) -> Result<Json, Refusal> {
    let mut request: UpdateItem = read(request)?;
    let returned = request.return_values.take();
    let write = Write::read(world, request)?;
    let item = write.outcome(world)?;
    let answer = match returned {
        Some(ReturnValues::AllNew) => json!({ "Attributes": item }),
        Some(ReturnValues::None) | None => json!({}),
    };
    write.commit(world, item);
    Ok(answer)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct TransactWriteItems {
    transact_items: Vec<Json>,
    client_request_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Operation {
    update: UpdateItem,
}

pub(super) fn transact(world: &mut World, request: Json) -> Result<Json, Refusal> {
    let request: TransactWriteItems = read(request)?;
    let operations = request.transact_items;
    check_number(operations.len())?;
    let token = request.client_request_token;
    if token.as_deref() == Some("") {
        return Err(invalid("The ClientRequestToken is empty"));
    }
    let now = clock::now();
    if let Some((at, first)) = token.as_ref().and_then(|it| world.transactions.get(it))
        && now - *at < TOKENS_LAST
    {
        return if *first == operations {
            Ok(json!({}))
        } else {
            Err(Refusal::new(
                "IdempotentParameterMismatchException",
                "The client request token was used with other parameters",
            ))
        };
    }
    let (mut writes, mut outcomes) = (Vec::new(), Vec::new());
    for operation in &operations {
        let Operation { update } = read(operation.clone())?;
        if update.return_values.is_some() {
            return Err(unknown("ReturnValues in a transaction"));
        }
        let write = Write::read(world, update)?;
        let same = |other: &Write| (&other.table, &other.id) == (&write.table, &write.id);
        if writes.iter().any(same) {
            return Err(invalid(
                "Transaction request cannot include multiple operations on one item",
            ));
        }
        outcomes.push(write.outcome(world));
        writes.push(write);
    }
    if outcomes.iter().any(Result::is_err) {
        let reasons = outcomes.iter().map(|outcome| outcome.as_ref().err());
        return Err(cancelled(reasons.collect()));
    }
    for (write, outcome) in writes.into_iter().zip(outcomes) {
        write.commit(world, outcome?);
    }
    if let Some(token) = token {
        world.transactions.insert(token, (now, operations));
    }
    Ok(json!({}))
}
