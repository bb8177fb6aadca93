//! Single items: reading, writing and scanning.

use serde_json::{Map, Value as Json, json};

use super::expression::{Condition, Placeholders, Projection, Update};
use super::request::{Request, key_alone, key_of_item};
use super::value::{Attributes, LARGEST_ITEM, read_attributes, weight, write_attributes};
use super::{failed, invalid, table};
use crate::refusal::Refusal;
use crate::world::{Item, Table, World};

/// "A single Scan operation reads up to the maximum number of items set (if using the Limit parameter) or a
/// maximum of 1 MB of data."
const LARGEST_PAGE: usize = 1 << 20;

/// One write: a request of its own, or an operation of a transaction.
#[derive(Debug, Clone)]
pub(super) struct Write {
    table: String,
    deed: Deed,
    condition: Option<Condition>,
    /// Whether a failed condition tells the item that failed it.
    tells_item: bool,
}

/// What is written.
#[derive(Debug, Clone)]
enum Deed {
    Put(Attributes),
    Update(Attributes, Update),
    Delete(Attributes),
    /// Nothing: the condition is all.
    Check(Attributes),
}

/// The kinds of writes, by their names in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Put,
    Update,
    Delete,
    ConditionCheck,
}

/// An item before and after a write that may take effect.
#[derive(Debug, Clone)]
pub(super) struct Change {
    table: String,
    id: String,
    before: Option<Attributes>,
    after: Option<Attributes>,
}

impl Write {
    /// Reads a write; `more` are the parameters that it may have beside those of its kind.
    pub(super) fn read(kind: Kind, request: &Request, more: &[&str]) -> Result<Write, Refusal> {
        let mut known = vec![
            "TableName",
            "ConditionExpression",
            "ExpressionAttributeNames",
            "ExpressionAttributeValues",
            "ReturnValuesOnConditionCheckFailure",
        ];
        known.extend(match kind {
            Kind::Put => ["Item"].as_slice(),
            Kind::Update => ["Key", "UpdateExpression"].as_slice(),
            Kind::Delete | Kind::ConditionCheck => ["Key"].as_slice(),
        });
        known.extend(more);
        request.check_known(&known)?;
        let table = request.required("TableName")?.to_owned();
        let mut placeholders = request.placeholders()?;
        let condition = request.condition("ConditionExpression", &mut placeholders)?;
        let deed = deed(kind, request, &mut placeholders)?;
        placeholders.check_all_used()?;
        let tells = request.one_of("ReturnValuesOnConditionCheckFailure", &["NONE", "ALL_OLD"])?;
        Ok(Write {
            table,
            deed,
            condition,
            tells_item: tells == "ALL_OLD",
        })
    }

    /// The table and the key of the item that is written.
    pub(super) fn target(&self, world: &World) -> Result<(String, String), Refusal> {
        let table = table(world, &self.table)?;
        let id = match &self.deed {
            Deed::Put(item) => key_of_item(table, item)?,
            Deed::Update(key, update) => {
                let id = key_alone(table, key)?;
                check_key_untouched(table, update)?;
                id
            }
            Deed::Delete(key) | Deed::Check(key) => key_alone(table, key)?,
        };
        Ok((self.table.clone(), id))
    }

    /// What the write would change. It changes nothing yet.
    pub(super) fn change(&self, world: &World) -> Result<Change, Refusal> {
        let (name, id) = self.target(world)?;
        let before = match table(world, &name)?.items.get(&id) {
            Some(item) => Some(of_the_world(item)?),
            None => None,
        };
        let holds = self
            .condition
            .as_ref()
            .is_none_or(|condition| condition.holds(before.as_ref().unwrap_or(&Attributes::new())));
        if !holds {
            return Err(self.condition_failed(before.as_ref()));
        }
        let after = match &self.deed {
            Deed::Put(item) => Some(item.clone()),
            Deed::Update(key, update) => {
                let after = update.apply(before.as_ref().unwrap_or(key))?;
                check_size(&after, "Item size to update has exceeded")?;
                Some(after)
            }
            Deed::Delete(_) => None,
            Deed::Check(_) => before.clone(),
        };
        Ok(Change {
            table: name,
            id,
            before,
            after,
        })
    }

    fn condition_failed(&self, item: Option<&Attributes>) -> Refusal {
        let refusal = Refusal::new(
            "ConditionalCheckFailedException",
            "The conditional request failed",
        );
        match item {
            Some(item) if self.tells_item => {
                refusal.with_detail("Item", json!(write_attributes(item)))
            }
            _ => refusal,
        }
    }

    /// What an update changes.
    fn updated(&self) -> Projection {
        Projection::of(match &self.deed {
            Deed::Update(_, update) => update.paths().cloned().collect(),
            _ => Vec::new(),
        })
    }
}

impl Change {
    /// Lets the change take effect.
    pub(super) fn commit(&self, world: &mut World) {
        let Some(table) = world.tables.get_mut(&self.table) else {
            return;
        };
        match &self.after {
            Some(item) => table.items.insert(self.id.clone(), write_attributes(item)),
            None => table.items.remove(&self.id),
        };
    }
}

fn deed(kind: Kind, request: &Request, placeholders: &mut Placeholders) -> Result<Deed, Refusal> {
    Ok(match kind {
        Kind::Put => {
            let item = request.attributes("Item")?;
            check_size(&item, "Item size has exceeded")?;
            Deed::Put(item)
        }
        Kind::Update => {
            let update = match request.text("UpdateExpression")? {
                Some(text) => Update::parse(text, placeholders)?,
                None => Update::default(),
            };
            Deed::Update(request.attributes("Key")?, update)
        }
        Kind::Delete => Deed::Delete(request.attributes("Key")?),
        Kind::ConditionCheck => {
            request.required("ConditionExpression")?;
            Deed::Check(request.attributes("Key")?)
        }
    })
}

fn check_key_untouched(table: &Table, update: &Update) -> Result<(), Refusal> {
    if update.paths().any(|path| path.attribute() == table.key) {
        return Err(invalid(format!(
            "One or more parameter values were invalid: Cannot update attribute {}. This attribute is part \
             of the key",
            table.key
        )));
    }
    Ok(())
}

fn check_size(item: &Attributes, what: &str) -> Result<(), Refusal> {
    if weight(item) > LARGEST_ITEM {
        return Err(invalid(format!("{what} the maximum allowed size")));
    }
    Ok(())
}

/// An item that a test put into the world may be anything.
pub(super) fn of_the_world(item: &Item) -> Result<Attributes, Refusal> {
    read_attributes(item).map_err(|refusal| Refusal {
        message: format!("The world has an item that can not be: {}", refusal.message),
        ..failed()
    })
}

/// An answer with attributes in it, unless there are none to tell of.
fn answer(name: &str, attributes: Option<Attributes>) -> Json {
    let mut answer = Map::new();
    if let Some(attributes) = attributes.filter(|attributes| !attributes.is_empty()) {
        answer.insert(name.to_owned(), json!(write_attributes(&attributes)));
    }
    Json::Object(answer)
}

/// Every read is consistent, whether `ConsistentRead` asks for it or not.
pub(super) fn get(world: &mut World, request: &Request) -> Result<Json, Refusal> {
    request.check_known(&[
        "TableName",
        "Key",
        "ConsistentRead",
        "ProjectionExpression",
        "ExpressionAttributeNames",
    ])?;
    let name = request.required("TableName")?;
    let projection = how_to_read(request)?;
    let key = request.attributes("Key")?;
    let table = table(world, name)?;
    let Some(item) = table.items.get(&key_alone(table, &key)?) else {
        return Ok(json!({}));
    };
    // Unlike an item that is not there, one without any of the attributes is an empty item.
    Ok(json!({"Item": shown(of_the_world(item)?, projection.as_ref())}))
}

/// What to show of an item that is read by its key.
pub(super) fn how_to_read(request: &Request) -> Result<Option<Projection>, Refusal> {
    request.flag("ConsistentRead")?;
    let mut placeholders = request.placeholders()?;
    let projection = request.projection(&mut placeholders)?;
    placeholders.check_all_used()?;
    Ok(projection)
}

/// An item, or the part of it that was asked for, as an answer has it.
pub(super) fn shown(item: Attributes, projection: Option<&Projection>) -> Item {
    write_attributes(&match projection {
        Some(projection) => projection.apply(&item),
        None => item,
    })
}

pub(super) fn put(world: &mut World, request: &Request) -> Result<Json, Refusal> {
    put_or_delete(world, request, Kind::Put)
}

pub(super) fn delete(world: &mut World, request: &Request) -> Result<Json, Refusal> {
    put_or_delete(world, request, Kind::Delete)
}

fn put_or_delete(world: &mut World, request: &Request, kind: Kind) -> Result<Json, Refusal> {
    let write = Write::read(kind, request, &["ReturnValues"])?;
    let shown = request.one_of("ReturnValues", &["NONE", "ALL_OLD"])?;
    let change = write.change(world)?;
    change.commit(world);
    Ok(answer(
        "Attributes",
        change.before.filter(|_| shown == "ALL_OLD"),
    ))
}

pub(super) fn update(world: &mut World, request: &Request) -> Result<Json, Refusal> {
    let write = Write::read(Kind::Update, request, &["ReturnValues"])?;
    let shown = request.one_of(
        "ReturnValues",
        &["NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW"],
    )?;
    let change = write.change(world)?;
    change.commit(world);
    let shown = match shown {
        "ALL_OLD" => change.before,
        "UPDATED_OLD" => change.before.map(|item| write.updated().apply(&item)),
        "ALL_NEW" => change.after,
        "UPDATED_NEW" => change.after.map(|item| write.updated().apply(&item)),
        _ => None,
    };
    Ok(answer("Attributes", shown))
}

/// In the order of the keys, where DynamoDB has that of their hashes. As in life, a page that the limit ended
/// has a `LastEvaluatedKey` even if nothing follows.
pub(super) fn scan(world: &mut World, request: &Request) -> Result<Json, Refusal> {
    request.check_known(&[
        "TableName",
        "ConsistentRead",
        "Limit",
        "ExclusiveStartKey",
        "FilterExpression",
        "ProjectionExpression",
        "ExpressionAttributeNames",
        "ExpressionAttributeValues",
    ])?;
    let name = request.required("TableName")?;
    request.flag("ConsistentRead")?;
    let limit = request.count("Limit")?.unwrap_or(usize::MAX);
    let mut placeholders = request.placeholders()?;
    let filter = request.condition("FilterExpression", &mut placeholders)?;
    let projection = request.projection(&mut placeholders)?;
    placeholders.check_all_used()?;
    let table = table(world, name)?;
    let after = match request.object("ExclusiveStartKey")? {
        Some(key) => key_alone(table, &read_attributes(key)?)
            .map_err(|_| invalid("The provided starting key is invalid"))?,
        // No key is empty, so all come after it.
        None => String::new(),
    };
    let (mut found, mut scanned, mut read, mut last) = (Vec::new(), 0, 0, None);
    for (id, item) in table.items.iter().filter(|(id, _)| **id > after) {
        let item = of_the_world(item)?;
        scanned += 1;
        read += weight(&item);
        if filter.as_ref().is_none_or(|filter| filter.holds(&item)) {
            found.push(shown(item, projection.as_ref()));
        }
        if scanned == limit || read >= LARGEST_PAGE {
            last = Some(id);
            break;
        }
    }
    let mut answer = json!({"Items": found, "Count": found.len(), "ScannedCount": scanned});
    if let (Some(id), Some(answer)) = (last, answer.as_object_mut()) {
        answer.insert(
            "LastEvaluatedKey".to_owned(),
            json!({table.key.as_str(): {"S": id}}),
        );
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TABLE, act, item, words};
    use super::*;

    fn world() -> World {
        let mut world = World::default();
        let stored = json!({"id": {"S": "a"}, "n": {"N": "1"}, "m": {"M": {"x": {"N": "1"}}}});
        act(&mut world, "PutItem", json!({"Item": stored})).unwrap();
        world
    }

    fn key(id: &str) -> Json {
        json!({"id": {"S": id}})
    }

    #[test]
    fn an_item_is_read_as_it_was_written() {
        let mut world = world();
        let answer = act(
            &mut world,
            "GetItem",
            json!({"Key": key("a"), "ConsistentRead": true}),
        );
        assert_eq!(answer.unwrap()["Item"]["n"], json!({"N": "1"}));
        let answer = act(&mut world, "GetItem", json!({"Key": key("b")}));
        assert_eq!(answer.unwrap(), json!({}));
        let projected = |expression: &str| {
            json!({
                "Key": key("a"),
                "ProjectionExpression": expression,
                "ExpressionAttributeNames": {"#x": "x"},
            })
        };
        let answer = act(&mut world, "GetItem", projected("m.#x, id")).unwrap();
        assert_eq!(
            answer["Item"],
            json!({"id": {"S": "a"}, "m": {"M": {"x": {"N": "1"}}}})
        );
        let answer = act(&mut world, "GetItem", projected("m.y.#x")).unwrap();
        assert_eq!(answer, json!({"Item": {}}));
    }

    #[test]
    fn a_conditional_put_writes_once() {
        let mut world = World::default();
        let put = |n: &str, tells: &str| {
            json!({
                "Item": {"id": {"S": "a"}, "n": {"N": n}},
                "ConditionExpression": "attribute_not_exists(id)",
                "ReturnValuesOnConditionCheckFailure": tells,
            })
        };
        assert_eq!(
            act(&mut world, "PutItem", put("1", "NONE")).unwrap(),
            json!({})
        );
        let error = act(&mut world, "PutItem", put("2", "NONE")).unwrap_err();
        assert_eq!(
            error,
            json!({
                "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
                "message": "The conditional request failed",
            })
        );
        let error = act(&mut world, "PutItem", put("2", "ALL_OLD")).unwrap_err();
        assert_eq!(error["Item"], json!({"id": {"S": "a"}, "n": {"N": "1"}}));
        assert_eq!(item(&world, "a").unwrap()["n"], json!({"N": "1"}));
    }

    #[test]
    fn put_and_delete_return_what_was_there() {
        let mut world = world();
        let put = json!({"Item": key("a"), "ReturnValues": "ALL_OLD"});
        let answer = act(&mut world, "PutItem", put.clone()).unwrap();
        assert_eq!(answer["Attributes"]["n"], json!({"N": "1"}));
        assert_eq!(item(&world, "a"), Some(key("a")));
        let delete = json!({"Key": key("a"), "ReturnValues": "ALL_OLD"});
        for expected in [json!({"Attributes": key("a")}), json!({})] {
            assert_eq!(
                act(&mut world, "DeleteItem", delete.clone()).unwrap(),
                expected
            );
            assert_eq!(item(&world, "a"), None);
        }
        assert_eq!(act(&mut world, "PutItem", put).unwrap(), json!({}));
    }

    #[test]
    fn a_counter_counts_up_to_its_limit() {
        let mut world = World::default();
        let count = json!({
            "Key": key("hour"),
            "UpdateExpression": "ADD discards :one SET ends = if_not_exists(ends, :ends)",
            "ConditionExpression": "attribute_not_exists(discards) OR discards < :limit",
            "ExpressionAttributeValues": {
                ":one": {"N": "1"}, ":limit": {"N": "2"}, ":ends": {"N": "3600"},
            },
            "ReturnValues": "UPDATED_NEW",
        });
        for expected in ["1", "2"] {
            let answer = act(&mut world, "UpdateItem", count.clone()).unwrap();
            assert_eq!(
                answer["Attributes"],
                json!({"discards": {"N": expected}, "ends": {"N": "3600"}})
            );
        }
        let error = act(&mut world, "UpdateItem", count).unwrap_err();
        assert_eq!(words(&error).0, "ConditionalCheckFailedException");
        assert_eq!(item(&world, "hour").unwrap()["discards"], json!({"N": "2"}));
    }

    #[test]
    fn an_update_returns_what_it_is_asked_for() {
        for (asked, expected) in [
            ("NONE", json!({})),
            (
                "ALL_OLD",
                json!({"Attributes": {"id": {"S": "a"}, "n": {"N": "1"}, "m": {"M": {"x": {"N": "1"}}}}}),
            ),
            (
                "UPDATED_OLD",
                json!({"Attributes": {"m": {"M": {"x": {"N": "1"}}}}}),
            ),
            (
                "ALL_NEW",
                json!({"Attributes": {
                    "id": {"S": "a"}, "n": {"N": "1"}, "m": {"M": {"x": {"N": "6"}}}, "new": {"N": "5"},
                }}),
            ),
            (
                "UPDATED_NEW",
                json!({"Attributes": {"m": {"M": {"x": {"N": "6"}}}, "new": {"N": "5"}}}),
            ),
        ] {
            let update = json!({
                "Key": key("a"),
                "UpdateExpression": "SET m.x = m.x + :five, #new = :five",
                "ExpressionAttributeNames": {"#new": "new"},
                "ExpressionAttributeValues": {":five": {"N": "5"}},
                "ReturnValues": asked,
            });
            let answer = act(&mut world(), "UpdateItem", update).unwrap();
            assert_eq!(answer, expected, "{asked}");
        }
        let mut world = World::default();
        let nothing = json!({"Key": key("b"), "ReturnValues": "ALL_OLD"});
        assert_eq!(act(&mut world, "UpdateItem", nothing).unwrap(), json!({}));
        assert_eq!(item(&world, "b"), Some(key("b")));
    }

    #[test]
    fn an_item_may_have_400_kilobytes_and_no_more() {
        let of_size = |size: usize| json!({"id": {"S": "a"}, "x": {"S": "x".repeat(size)}});
        // The names, the key's value, and the text.
        let most = LARGEST_ITEM - 2 - 1 - 1;
        let mut world = World::default();
        act(&mut world, "PutItem", json!({"Item": of_size(most)})).unwrap();
        let error = act(&mut world, "PutItem", json!({"Item": of_size(most + 1)})).unwrap_err();
        assert_eq!(
            words(&error),
            (
                "ValidationException",
                "Item size has exceeded the maximum allowed size"
            )
        );
        let update = json!({
            "Key": key("a"),
            "UpdateExpression": "SET y = :y",
            "ExpressionAttributeValues": {":y": {"S": "y"}},
        });
        let error = act(&mut world, "UpdateItem", update).unwrap_err();
        assert_eq!(
            words(&error).1,
            "Item size to update has exceeded the maximum allowed size"
        );
    }

    #[test]
    fn writes_that_can_not_be_are_refused_and_change_nothing() {
        let update = |expression: &str| {
            json!({
                "Key": key("a"),
                "UpdateExpression": expression,
                "ExpressionAttributeValues": {":v": {"S": "v"}},
            })
        };
        for (action, body, expected) in [
            ("PutItem", json!({}), "The parameter 'Item' is required"),
            (
                "PutItem",
                json!({"Item": {"n": {"N": "1"}}}),
                "Missing the key id in the item",
            ),
            (
                "PutItem",
                json!({"Item": {"id": {"N": "1"}}}),
                "Type mismatch for key id expected: S actual: N",
            ),
            (
                "PutItem",
                json!({"Item": key("")}),
                "empty string value. Key: id",
            ),
            (
                "PutItem",
                json!({"Item": key(&"k".repeat(2049))}),
                "Size of hashkey",
            ),
            (
                "PutItem",
                json!({"Item": key("a"), "ReturnValues": "ALL_NEW"}),
                "Value 'ALL_NEW' at 'ReturnValues'",
            ),
            (
                "PutItem",
                json!({"Item": key("a"), "Expected": {}}),
                "The parameter Expected",
            ),
            (
                "PutItem",
                json!({"Item": key("a"), "ExpressionAttributeValues": {":v": {"S": "v"}}}),
                "unused in expressions: keys: {:v}",
            ),
            (
                "PutItem",
                json!({"Item": key("a"), "ExpressionAttributeValues": {}}),
                "ExpressionAttributeValues must not be empty",
            ),
            (
                "PutItem",
                json!({"Item": key("a"), "ExpressionAttributeNames": {"n": "n"}}),
                "ExpressionAttributeNames contains invalid key: Syntax error; key: \"n\"",
            ),
            (
                "DeleteItem",
                json!({"Key": {"id": {"S": "a"}, "n": {"N": "1"}}}),
                "The provided key element does not match the schema",
            ),
            (
                "UpdateItem",
                update("SET id = :v"),
                "Cannot update attribute id. This attribute is part of the key",
            ),
            ("UpdateItem", update("SET a = b"), "unused in expressions"),
            (
                "UpdateItem",
                update("SET a = nothing, b = :v"),
                "does not exist in the item",
            ),
        ] {
            let mut world = world();
            let error = act(&mut world, action, body.clone()).unwrap_err();
            let (code, sentence) = words(&error);
            assert_eq!(code, "ValidationException", "{body}");
            assert!(sentence.contains(expected), "{body}: {sentence}");
            assert_eq!(world.tables, self::world().tables);
        }
    }

    #[test]
    fn an_item_that_a_test_wrote_wrongly_is_told_of() {
        let mut world = World::default();
        let table = world.tables.get_mut(TABLE).unwrap();
        let wrong = Item::from([("id".to_owned(), json!("a"))]);
        table.items.insert("a".to_owned(), wrong);
        let error = act(&mut world, "GetItem", json!({"Key": key("a")})).unwrap_err();
        assert_eq!(words(&error).0, "InternalServerError");
        assert!(words(&error).1.contains("can not be"));
    }

    fn with_items(number: usize, size: usize) -> World {
        let mut world = World::default();
        for n in 0..number {
            let item = json!({
                "id": {"S": format!("item-{n}")}, "n": {"N": n.to_string()}, "x": {"S": "x".repeat(size)},
            });
            act(&mut world, "PutItem", json!({"Item": item})).unwrap();
        }
        world
    }

    /// The ids on each page of a scan.
    fn pages(world: &mut World, mut body: Json) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        loop {
            let answer = act(world, "Scan", body.clone()).unwrap();
            let items = answer["Items"].as_array().unwrap();
            assert_eq!(answer["Count"], items.len());
            let id = |item: &Json| item["id"]["S"].as_str().unwrap().to_owned();
            pages.push(items.iter().map(id).collect());
            match answer.get("LastEvaluatedKey") {
                None => return pages,
                Some(key) => body["ExclusiveStartKey"] = key.clone(),
            }
        }
    }

    #[test]
    fn a_scan_comes_in_pages_of_which_the_last_may_be_empty() {
        let mut world = with_items(4, 1);
        let all = ["item-0", "item-1", "item-2", "item-3"];
        assert_eq!(pages(&mut world, json!({})), [all.to_vec()]);
        assert_eq!(
            pages(&mut world, json!({"Limit": 3})),
            [all[..3].to_vec(), all[3..].to_vec()]
        );
        assert_eq!(
            pages(&mut world, json!({"Limit": 2})),
            [all[..2].to_vec(), all[2..].to_vec(), vec![]]
        );
    }

    #[test]
    fn a_page_has_no_more_than_a_megabyte() {
        let found = pages(&mut with_items(7, 300_000), json!({}));
        let lengths: Vec<usize> = found.iter().map(Vec::len).collect();
        assert_eq!(lengths, [4, 3]);
    }

    #[test]
    fn a_filter_is_applied_after_the_limit() {
        let filtered = json!({
            "Limit": 3,
            "FilterExpression": "n > :one",
            "ProjectionExpression": "id",
            "ExpressionAttributeValues": {":one": {"N": "1"}},
        });
        let mut world = with_items(4, 1);
        let answer = act(&mut world, "Scan", filtered).unwrap();
        assert_eq!(
            answer,
            json!({
                "Items": [key("item-2")],
                "Count": 1,
                "ScannedCount": 3,
                "LastEvaluatedKey": key("item-2"),
            })
        );
        for (body, expected) in [
            (json!({"Limit": 0}), "Value '0' at 'limit'"),
            (
                json!({"ExclusiveStartKey": {"n": {"N": "1"}}}),
                "The provided starting key is invalid",
            ),
            (json!({"TotalSegments": 2}), "The parameter TotalSegments"),
        ] {
            let error = act(&mut world, "Scan", body).unwrap_err();
            assert!(words(&error).1.contains(expected), "{error}");
        }
    }
}
