//! `BatchGetItem`: many items in one call, or as many as it comes to.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::items::{how_to_read, of_the_world, shown};
use super::request::{Request, key_alone, malformed};
use super::value::{read_attributes, weight};
use super::{invalid, table, throttled};
use crate::refusal::Refusal;
use crate::world::World;

/// "As many as 100 items" in one call.
const MOST_KEYS: usize = 100;

/// "A single operation can retrieve up to 16 MB of data."
const LARGEST_BATCH: usize = 16 << 20;

/// The items come in the order of their keys, not in that of the request: in DynamoDB they come in any. What
/// could not be read for its size, or for [`World::items_per_batch`], comes back in `UnprocessedKeys` with the
/// parameters that it came with. A key without an item is in neither.
pub(super) fn get(world: &mut World, request: &Request) -> Result<Json, Refusal> {
    request.check_known(&["RequestItems"])?;
    let tables = request.object("RequestItems")?;
    let Some(tables) = tables.filter(|tables| !tables.is_empty()) else {
        return Err(invalid(
            "1 validation error detected: Value at 'requestItems' failed to satisfy constraint: Member must \
             have length greater than or equal to 1",
        ));
    };
    check_numbers(tables)?;
    let (mut responses, mut unprocessed) = (Map::new(), Map::new());
    let most = world.items_per_batch.unwrap_or(MOST_KEYS);
    let (mut read, mut size) = (0, 0);
    for (name, members) in tables {
        let Json::Object(members) = members else {
            return Err(malformed("RequestItems"));
        };
        let request = Request::new(members);
        request.check_known(&[
            "Keys",
            "ConsistentRead",
            "ProjectionExpression",
            "ExpressionAttributeNames",
        ])?;
        let projection = how_to_read(&request)?;
        let table = table(world, name)?;
        let mut keys = BTreeMap::new();
        for key in request.list("Keys")? {
            let Json::Object(attributes) = key else {
                return Err(malformed("Keys"));
            };
            let id = key_alone(table, &read_attributes(attributes)?)?;
            if keys.insert(id, key).is_some() {
                return Err(invalid("Provided list of item keys contains duplicates"));
            }
        }
        let (mut found, mut left) = (Vec::new(), Vec::new());
        for (id, key) in keys {
            let item = table.items.get(&id).map(of_the_world).transpose()?;
            size += item.as_ref().map_or(0, weight);
            if read == most || size > LARGEST_BATCH {
                left.push(key);
                continue;
            }
            read += 1;
            found.extend(item.map(|item| shown(item, projection.as_ref())));
        }
        responses.insert(name.clone(), json!(found));
        if !left.is_empty() {
            let mut again = members.clone();
            again.insert("Keys".to_owned(), json!(left));
            unprocessed.insert(name.clone(), Json::Object(again));
        }
    }
    if read == 0 {
        // "If none of the items can be processed due to insufficient provisioned throughput on all of the
        // tables in the request, then BatchGetItem returns a ProvisionedThroughputExceededException."
        return Err(throttled());
    }
    Ok(json!({"Responses": responses, "UnprocessedKeys": unprocessed}))
}

fn check_numbers(tables: &Map<String, Json>) -> Result<(), Refusal> {
    let mut total = 0;
    for (name, members) in tables {
        let Some(keys) = members.get("Keys").and_then(Json::as_array) else {
            continue;
        };
        total += keys.len();
        let wrong = match keys.len() {
            0 => "greater than or equal to 1",
            1..=MOST_KEYS => continue,
            _ => "less than or equal to 100",
        };
        return Err(invalid(format!(
            "1 validation error detected: Value at 'requestItems.{name}.member.keys' failed to satisfy \
             constraint: Member must have length {wrong}"
        )));
    }
    if total > MOST_KEYS {
        return Err(invalid(
            "Too many items requested for the BatchGetItem call",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TABLE, act, words};
    use super::*;
    use crate::world::Table;

    fn key(id: &str) -> Json {
        json!({"id": {"S": id}})
    }

    fn keys(ids: &[&str]) -> Json {
        json!({"Keys": ids.iter().map(|id| key(id)).collect::<Vec<_>>()})
    }

    fn batch(world: &mut World, tables: Json) -> Result<Json, Json> {
        act(world, "BatchGetItem", json!({"RequestItems": tables}))
    }

    fn world(ids: &[&str]) -> World {
        let mut world = World::default();
        for id in ids {
            let item = json!({"id": {"S": id}, "n": {"N": "1"}});
            act(&mut world, "PutItem", json!({"Item": item})).unwrap();
        }
        world
    }

    #[test]
    fn items_come_in_an_order_of_their_own_and_a_key_without_an_item_is_passed_over() {
        let mut world = world(&["a", "b", "c"]);
        world.tables.insert("other".into(), Table::new("key"));
        let mut asked = keys(&["c", "nothing", "a"]);
        asked["ProjectionExpression"] = "#key".into();
        asked["ExpressionAttributeNames"] = json!({"#key": "id"});
        asked["ConsistentRead"] = true.into();
        let other = json!({"Keys": [{"key": {"S": "a"}}]});
        let answer = batch(&mut world, json!({TABLE: asked, "other": other}));
        assert_eq!(
            answer.unwrap(),
            json!({
                "Responses": {TABLE: [key("a"), key("c")], "other": []},
                "UnprocessedKeys": {},
            })
        );
    }

    #[test]
    fn what_was_not_read_comes_back_as_it_was_asked_for() {
        let mut world = world(&["a", "b", "c"]);
        world.items_per_batch = Some(2);
        let mut asked = keys(&["a", "b", "c"]);
        asked["ProjectionExpression"] = "id".into();
        let answer = batch(&mut world, json!({TABLE: asked})).unwrap();
        assert_eq!(answer["Responses"], json!({TABLE: [key("a"), key("b")]}));
        let left = answer["UnprocessedKeys"].clone();
        assert_eq!(
            left,
            json!({TABLE: {"Keys": [key("c")], "ProjectionExpression": "id"}})
        );
        let answer = batch(&mut world, left).unwrap();
        assert_eq!(answer["Responses"], json!({TABLE: [key("c")]}));
        assert_eq!(answer["UnprocessedKeys"], json!({}));
        world.items_per_batch = Some(0);
        let error = batch(&mut world, json!({TABLE: keys(&["a"])})).unwrap_err();
        assert_eq!(words(&error).0, "ProvisionedThroughputExceededException");
    }

    #[test]
    fn a_batch_has_at_most_16_megabytes() {
        let mut world = World::default();
        let text = "x".repeat(300 * 1024);
        let ids: Vec<String> = (100..200).map(|n| n.to_string()).collect();
        for id in &ids {
            let item = json!({"id": {"S": id}, "text": {"S": text}});
            act(&mut world, "PutItem", json!({"Item": item})).unwrap();
        }
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let answer = batch(&mut world, json!({TABLE: keys(&ids)})).unwrap();
        // The API reference has 52 items of this size in a batch; it counts megabytes in its own way.
        let (read, left) = (&answer["Responses"], &answer["UnprocessedKeys"]);
        assert_eq!(read[TABLE].as_array().unwrap().len(), 54);
        assert_eq!(left[TABLE]["Keys"].as_array().unwrap().len(), 46);
    }

    #[test]
    fn batches_that_can_not_be_are_refused() {
        let many: Vec<String> = (0..101).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let half = keys(&many[..51]);
        let mut world = world(&[]);
        world.tables.insert("other".into(), Table::new("id"));
        for (tables, code, expected) in [
            (json!({}), "ValidationException", "at 'requestItems' failed"),
            (
                json!({TABLE: keys(&many)}),
                "ValidationException",
                "at 'requestItems.ami-billing-guard.member.keys' failed to satisfy constraint: Member must \
                 have length less than or equal to 100",
            ),
            (
                json!({TABLE: keys(&[])}),
                "ValidationException",
                "greater than or equal to 1",
            ),
            (
                json!({TABLE: half, "other": half}),
                "ValidationException",
                "Too many items requested for the BatchGetItem call",
            ),
            (
                json!({TABLE: keys(&["a", "a"])}),
                "ValidationException",
                "Provided list of item keys contains duplicates",
            ),
            (
                json!({TABLE: {"Keys": [{"no": {"S": "a"}}]}}),
                "ValidationException",
                "does not match the schema",
            ),
            (
                json!({TABLE: {"ConsistentRead": true}}),
                "ValidationException",
                "The parameter 'Keys' is required",
            ),
            (
                json!({TABLE: {"Keys": [key("a")], "AttributesToGet": ["id"]}}),
                "ValidationException",
                "AttributesToGet",
            ),
            (json!({TABLE: []}), "SerializationException", "RequestItems"),
            (
                json!({"no-such-table": keys(&["a"])}),
                "ResourceNotFoundException",
                "Requested resource not found",
            ),
        ] {
            let error = batch(&mut world, tables).unwrap_err();
            assert_eq!(words(&error).0, code, "{error}");
            assert!(words(&error).1.contains(expected), "{error}");
        }
    }
}
