//! sim's DynamoDB beside one that others wrote, and beside what DynamoDB's documentation says.
//!
//! `SIM_DYNAMODB_OPERATIONS` is the number of random operations that both are given.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use chrono::TimeDelta;
use dynoxide::Database;
use dynoxide::errors::DynoxideError;
use fastrand::Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sim::{Sim, World};

/// The table of the default world.
const TABLE: &str = "ami-billing-guard";

/// How many random operations there are in all, and in one world.
const OPERATIONS: u64 = 2_000;
const IN_A_WORLD: u64 = 100;

/// sim and the other DynamoDB, with the same table.
struct Both {
    sim: Sim,
    connection: BufReader<TcpStream>,
    other: Database,
}

impl Both {
    async fn new() -> Both {
        let sim = Sim::start(World::default()).await.unwrap();
        let connection = TcpStream::connect(sim.endpoint().replace("http://", "")).unwrap();
        connection.set_nodelay(true).unwrap();
        let other = Database::memory().unwrap();
        let table = json!({
            "TableName": TABLE,
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
            "BillingMode": "PAY_PER_REQUEST",
        });
        give(&table, |table| other.create_table(table)).unwrap();
        Both {
            sim,
            connection: BufReader::new(connection),
            other,
        }
    }

    /// What sim answers: the status and the document.
    fn ask_sim(&mut self, action: &str, request: &Value) -> (u16, Value) {
        let body = request.to_string();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: sim\r\ncontent-type: application/x-amz-json-1.0\r\n\
             x-amz-target: DynamoDB_20120810.{action}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let stream = self.connection.get_mut();
        stream.write_all((head + &body).as_bytes()).unwrap();
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.connection.read_line(&mut line).unwrap();
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest[..3].parse().unwrap();
            }
            if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.connection.read_exact(&mut body).unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    fn ask_other(&self, action: &str, request: &Value) -> (u16, Value) {
        let answer = match action {
            "GetItem" => give(request, |request| self.other.get_item(request)),
            "BatchGetItem" => give(request, |request| self.other.batch_get_item(request)),
            "UpdateItem" => give(request, |request| self.other.update_item(request)),
            _ => give(request, |request| self.other.transact_write_items(request)),
        };
        match answer {
            Ok(answer) => (200, answer),
            Err(error) => {
                let document = serde_json::from_str(&error.to_json()).unwrap();
                (error.status_code(), document)
            }
        }
    }

    /// What both answer, which has to be the same.
    fn ask(&mut self, action: &str, request: &Value) -> Value {
        let sim = comparable(self.ask_sim(action, request));
        let other = comparable(self.ask_other(action, request));
        assert_eq!(sim, other, "sim, and the other, upon {action} {request:#}");
        sim
    }

    /// Puts an item into both tables, whatever is in it.
    fn put(&mut self, item: &Value) {
        let id = item["id"]["S"].as_str().unwrap().to_owned();
        let put = json!({"TableName": TABLE, "Item": item});
        give(&put, |put| self.other.put_item(put)).unwrap();
        let item = serde_json::from_value(item.clone()).unwrap();
        let mut world = self.sim.world();
        world.tables.get_mut(TABLE).unwrap().items.insert(id, item);
    }

    fn assert_same_items(&self) {
        let scan = json!({"TableName": TABLE, "ConsistentRead": true});
        let scanned = give(&scan, |scan| self.other.scan(scan)).unwrap();
        let scanned = comparable((200, json!({"Responses": {TABLE: scanned["Items"]}})));
        let items: Vec<_> = self.sim.world().tables[TABLE]
            .items
            .values()
            .cloned()
            .collect();
        assert_eq!(
            comparable((200, json!({"Responses": {TABLE: items}}))),
            scanned
        );
    }
}

fn give<R: DeserializeOwned, A: Serialize>(
    request: &Value,
    act: impl FnOnce(R) -> Result<A, DynoxideError>,
) -> Result<Value, DynoxideError> {
    let request = serde_json::from_value(request.clone())
        .map_err(|error| DynoxideError::ValidationException(error.to_string()))?;
    Ok(serde_json::to_value(act(request)?).unwrap())
}

/// An answer, with sets and items in an order, and of an error what clients go by: the status, the type, and the codes of a
/// cancelled transaction. The sentence counts where it is always the same.
fn comparable((status, mut document): (u16, Value)) -> Value {
    let Some(kind) = document.get("__type") else {
        sort(&mut document);
        return json!({"status": status, "answer": document});
    };
    let kind = kind.as_str().unwrap().rsplit('#').next().unwrap();
    let sentence = ["message", "Message"]
        .iter()
        .find_map(|key| document.get(key));
    let sentence = sentence.filter(|_| {
        [
            "ConditionalCheckFailedException",
            "TransactionCanceledException",
        ]
        .contains(&kind)
    });
    let reasons = document["CancellationReasons"].as_array();
    let codes: Vec<&Value> = reasons
        .into_iter()
        .flatten()
        .map(|it| &it["Code"])
        .collect();
    json!({"status": status, "error": kind, "sentence": sentence, "codes": codes})
}

fn sort(json: &mut Value) {
    match json {
        Value::Object(members) => members.values_mut().for_each(sort),
        Value::Array(list) => {
            list.iter_mut().for_each(sort);
            // Only lists of items and sets: the tests have no list with more than one value.
            list.sort_by_key(Value::to_string);
        }
        _ => {}
    }
}

fn key(id: &str) -> Value {
    json!({"id": {"S": id}})
}

/// A request as the ledger's table sends it: each attribute and each value by a placeholder.
#[derive(Default)]
struct Terms {
    names: Map<String, Value>,
    values: Map<String, Value>,
}

impl Terms {
    fn name(&mut self, name: &str) -> String {
        self.names.insert(format!("#{name}"), name.into());
        format!("#{name}")
    }

    fn value(&mut self, value: Value) -> String {
        let placeholder = format!(":v{}", self.values.len());
        self.values.insert(placeholder.clone(), value);
        placeholder
    }

    fn condition(&mut self, rng: &mut Rng) -> String {
        let name = self.name(rng.choice(["id", "begun", "held", "turn", "name"]).unwrap());
        match rng.u8(..7) {
            0..3 => format!("attribute_not_exists({name})"),
            3..5 => format!("{name} = {}", self.value(value(rng))),
            5 => format!("{name} < {}", self.value(number(rng))),
            _ => {
                let least = rng.i64(-3..2);
                let [least, most] = [least, least + rng.i64(0..3)];
                let [least, most] = [least, most].map(|it| json!({"N": it.to_string()}));
                format!(
                    "{name} BETWEEN {} AND {}",
                    self.value(least),
                    self.value(most)
                )
            }
        }
    }

    /// A kind of change, and the change.
    fn change(&mut self, rng: &mut Rng, name: &str) -> (&'static str, String) {
        let name = self.name(name);
        match rng.u8(..19) {
            0..8 => ("SET", format!("{name} = {}", self.value(value(rng)))),
            8..11 => ("REMOVE", name),
            11..14 => ("ADD", format!("{name} {}", self.value(number(rng)))),
            14..16 => ("ADD", format!("{name} {}", self.value(set(rng)))),
            _ => ("DELETE", format!("{name} {}", self.value(set(rng)))),
        }
    }
}

fn number(rng: &mut Rng) -> Value {
    let number = match rng.u8(..20) {
        0 => i64::MAX.to_string(),
        1 => i64::MIN.to_string(),
        2 => "+007".to_owned(),
        3 => "-0".to_owned(),
        _ => rng.i64(-2..4).to_string(),
    };
    json!({ "N": number })
}

fn set(rng: &mut Rng) -> Value {
    let number = rng.usize(1..4);
    json!({"SS": rng.choose_multiple(["a", "b", "c", "d", ""], number)})
}

fn value(rng: &mut Rng) -> Value {
    match rng.u8(..3) {
        0 => json!({"S": rng.choice(["", "a", "b", "caf\u{e9} \"x\""])}),
        1 => number(rng),
        _ => set(rng),
    }
}

fn id(rng: &mut Rng) -> &'static str {
    rng.choice(["a", "b", "c", "d"]).unwrap()
}

/// An update of an item. As with every write of the ledger, one attribute is always set.
fn update(rng: &mut Rng, id: &str) -> Value {
    let mut terms = Terms::default();
    let how_many = rng.usize(1..4);
    let names = rng.choose_multiple(["begun", "held", "turn", "name"], how_many);
    let mut sections: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for name in names {
        let (kind, change) = terms.change(rng, name);
        sections.entry(kind).or_default().push(change);
    }
    let expires = [terms.name("expires"), terms.value(number(rng))].join(" = ");
    sections.entry("SET").or_default().push(expires);
    let sections = sections.into_iter();
    let sections: Vec<_> = sections
        .map(|(kind, all)| format!("{kind} {}", all.join(", ")))
        .collect();
    let mut request = json!({
        "TableName": TABLE,
        "Key": key(id),
        "UpdateExpression": sections.join(" "),
    });
    let conditions: Vec<_> = (0..rng.usize(..3)).map(|_| terms.condition(rng)).collect();
    if !conditions.is_empty() {
        request["ConditionExpression"] = conditions.join(" OR ").into();
    }
    if rng.u8(..60) == 0 {
        request["TableName"] = "no-such-table".into();
    }
    request["ExpressionAttributeNames"] = terms.names.into();
    request["ExpressionAttributeValues"] = terms.values.into();
    request
}

/// An operation. Some are transactions that were given before.
fn operation(rng: &mut Rng, before: &[(&'static str, Value)]) -> (&'static str, Value) {
    match rng.u8(..20) {
        0..8 => {
            let id = id(rng);
            let mut request = update(rng, id);
            if rng.bool() {
                request["ReturnValues"] = "ALL_NEW".into();
            }
            ("UpdateItem", request)
        }
        8..13 => {
            let ids = match rng.u8(..20) {
                0 => vec!["a", "a"],
                _ => rng.choose_multiple(["a", "b", "c", "d"], 2),
            };
            let items: Vec<_> = ids
                .iter()
                .map(|id| json!({"Update": update(rng, id)}))
                .collect();
            let mut request = json!({ "TransactItems": items });
            match rng.u8(..10) {
                0 => {}
                1 => request["ClientRequestToken"] = rng.choice(["one", "two"]).into(),
                _ => request["ClientRequestToken"] = format!("{:032x}", rng.u128(..)).into(),
            }
            ("TransactWriteItems", request)
        }
        13..16 => {
            let again = rng.choice(before);
            again.cloned().unwrap_or_else(|| operation(rng, &[]))
        }
        16..18 => {
            let key = key(id(rng));
            (
                "GetItem",
                json!({"TableName": TABLE, "Key": key, "ConsistentRead": true}),
            )
        }
        _ => {
            let mut ids = rng.choose_multiple(["a", "b", "c", "nothing", "d"], 3);
            if rng.u8(..20) == 0 {
                ids.push(ids[0]);
            }
            let name = rng.choice(["begun", "held", "turn", "name"]).unwrap();
            let keys: Vec<Value> = ids.into_iter().map(key).collect();
            let asked = json!({
                "Keys": keys,
                "ProjectionExpression": "#id, #it",
                "ExpressionAttributeNames": {"#id": "id", "#it": name},
            });
            ("BatchGetItem", json!({"RequestItems": {TABLE: asked}}))
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn random_operations_have_the_answers_that_another_dynamodb_gives() {
    let variable = std::env::var("SIM_DYNAMODB_OPERATIONS");
    let operations = variable.map_or(OPERATIONS, |number| number.parse().unwrap());
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for seed in 0..operations.div_ceil(IN_A_WORLD) {
        let (mut rng, mut both) = (Rng::with_seed(seed), Both::new().await);
        let mut before = Vec::new();
        for _ in 0..IN_A_WORLD {
            if rng.u8(..20) == 0 {
                // Nothing that the guard writes, but that a test may put there.
                let foreign = [
                    json!({"BOOL": true}),
                    json!({"NULL": true}),
                    json!({"L": []}),
                ];
                let foreign = rng.choice(foreign);
                let known =
                    rng.choice([json!({"S": "a"}), json!({"N": "1"}), json!({"SS": ["a"]})]);
                both.put(&json!({"id": {"S": id(&mut rng)}, "begun": foreign, "turn": known}));
            }
            let (action, request) = operation(&mut rng, &before);
            let answer = both.ask(action, &request);
            let outcome = answer["error"].as_str().unwrap_or("answered");
            *seen.entry(format!("{action}: {outcome}")).or_default() += 1;
            if action == "TransactWriteItems" {
                before.push((action, request));
            }
        }
        both.assert_same_items();
    }
    println!("{seen:#?}");
    let expected = [
        "BatchGetItem: ValidationException",
        "BatchGetItem: answered",
        "GetItem: answered",
        "TransactWriteItems: IdempotentParameterMismatchException",
        "TransactWriteItems: ResourceNotFoundException",
        "TransactWriteItems: TransactionCanceledException",
        "TransactWriteItems: ValidationException",
        "TransactWriteItems: answered",
        "UpdateItem: ConditionalCheckFailedException",
        "UpdateItem: ResourceNotFoundException",
        "UpdateItem: ValidationException",
        "UpdateItem: answered",
    ];
    assert_eq!(
        seen.keys().map(String::as_str).collect::<Vec<_>>(),
        expected
    );
}

/// `SET #a = :a` on the item `a`, if it is below `:n`.
fn valid() -> Value {
    json!({
        "TableName": TABLE,
        "Key": key("a"),
        "UpdateExpression": "SET #a = :a",
        "ConditionExpression": "#a < :n",
        "ExpressionAttributeNames": {"#a": "begun"},
        "ExpressionAttributeValues": {":a": {"N": "1"}, ":n": {"N": "1"}},
    })
}

/// [`valid`] with other members.
fn with(members: Value) -> Value {
    let mut request = valid();
    let members = members.as_object().unwrap().clone();
    request.as_object_mut().unwrap().extend(members);
    request
}

fn values(a: Value) -> Value {
    json!({"ExpressionAttributeValues": {":a": a, ":n": {"N": "1"}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_dynamodb_refuses_is_refused() {
    let mut both = Both::new().await;
    both.put(&json!({"id": {"S": "a"}, "begun": {"N": "0"}}));
    let n = json!({"N": "1"});
    let three = json!({":a": n, ":n": n, ":m": {"N": "0"}});
    let deleting = json!({"UpdateExpression": "DELETE #a :a"});
    let adding = json!({
        "UpdateExpression": "ADD #a :a",
        "ExpressionAttributeValues": {":a": {"S": "a"}, ":n": n},
    });
    for members in [
        json!({"TableName": "no-such-table"}),
        json!({"Key": {"begun": {"S": "a"}}}),
        json!({"Key": {"id": {"N": "1"}}}),
        json!({"Key": {"id": {"S": "a"}, "begun": {"S": "a"}}}),
        json!({"Key": key("")}),
        json!({"Key": key(&"k".repeat(2049))}),
        json!({"UpdateExpression": ""}),
        json!({"UpdateExpression": "SET #a"}),
        json!({"UpdateExpression": "SET #a = :undefined"}),
        json!({"UpdateExpression": "SET #undefined = :a"}),
        json!({"UpdateExpression": "SET #a = :a, #a = :n"}),
        json!({"UpdateExpression": "SET #a = :a REMOVE #a"}),
        json!({"UpdateExpression": "SET #a = :a SET #a = :n"}),
        json!({"ConditionExpression": ""}),
        json!({"ConditionExpression": "#a < :n OR"}),
        json!({"ConditionExpression": "#a BETWEEN :n AND :m", "ExpressionAttributeValues": three}),
        json!({"ExpressionAttributeNames": {}}),
        json!({
            "UpdateExpression": "SET #k = :a",
            "ExpressionAttributeNames": {"#a": "begun", "#k": "id"},
        }),
        json!({"ExpressionAttributeNames": {"#a": "begun", "#unused": "b"}}),
        json!({"ExpressionAttributeValues": {}}),
        json!({"ExpressionAttributeValues": three}),
        json!({"ReturnValues": "NEW"}),
        values(json!({"SS": []})),
        values(json!({"SS": ["a", "a"]})),
        values(json!({"N": "one"})),
        values(json!({"N": "9".repeat(39)})),
        values(json!({"N": "1", "S": "a"})),
        values(json!({})),
        deleting,
        adding,
    ] {
        let answer = both.ask("UpdateItem", &with(members.clone()));
        assert_eq!(answer["status"], 400, "{members}");
        assert_ne!(
            answer["error"], "ConditionalCheckFailedException",
            "{members}"
        );
    }
    // The ledger's requests have values unless they only remove.
    let nothing = json!({
        "TableName": TABLE,
        "Key": key("a"),
        "UpdateExpression": "REMOVE #a",
        "ExpressionAttributeNames": {"#a": "begun"},
        "ExpressionAttributeValues": {},
    });
    assert_eq!(
        both.ask("UpdateItem", &nothing)["error"],
        "ValidationException"
    );

    let update = |id: &str| json!({"Update": with(json!({"Key": key(id)}))});
    let many: Vec<Value> = (0..101).map(|n| update(&n.to_string())).collect();
    for updates in [vec![], many, vec![update("a"), update("a")]] {
        let answer = both.ask("TransactWriteItems", &json!({"TransactItems": updates}));
        assert_eq!(answer["error"], "ValidationException");
    }
    let many: Vec<Value> = (0..101).map(|n| key(&n.to_string())).collect();
    for keys in [
        vec![],
        many,
        vec![key("a"), key("a")],
        vec![json!({"no": {"S": "a"}})],
    ] {
        let request = json!({"RequestItems": {TABLE: {"Keys": keys}}});
        assert_eq!(
            both.ask("BatchGetItem", &request)["error"],
            "ValidationException"
        );
    }
    let request = json!({"RequestItems": {"no-such-table": {"Keys": [key("a")]}}});
    assert_eq!(
        both.ask("BatchGetItem", &request)["error"],
        "ResourceNotFoundException"
    );
    both.assert_same_items();
    assert_eq!(both.ask("UpdateItem", &valid())["status"], 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_sim_does_not_know_is_refused_by_name() {
    let mut both = Both::new().await;
    both.put(&json!({"id": {"S": "a"}, "begun": {"N": "0"}}));
    for (members, named) in [
        (
            json!({"UpdateExpression": "SET begun = :a"}),
            "begun without",
        ),
        (
            json!({"UpdateExpression": "SET #a = #a + :a"}),
            "#a = #a + :a",
        ),
        (
            json!({"UpdateExpression": "SET #a = if_not_exists(#a, :a)"}),
            "if_not_exists",
        ),
        (json!({"UpdateExpression": "set #a = :a"}), "set #a"),
        (json!({"ConditionExpression": "#a > :n"}), "#a > :n"),
        (json!({"ConditionExpression": "#a <= :n"}), "#a < = :n"),
        (json!({"ConditionExpression": "#a < :n AND #a < :n"}), "AND"),
        (
            json!({"ConditionExpression": "attribute_exists(#a)"}),
            "attribute_exists",
        ),
        (json!({"ReturnValues": "UPDATED_NEW"}), "UPDATED_NEW"),
        (
            json!({"ReturnConsumedCapacity": "TOTAL"}),
            "ReturnConsumedCapacity",
        ),
        (values(json!({"BOOL": true})), "BOOL"),
        (values(json!({"N": "1.5"})), "1.5"),
        (
            json!({"ExpressionAttributeValues": {":a": {"N": "1"}, ":n": {"S": "1"}}}),
            "order",
        ),
        (
            json!({"Key": key("b"), "UpdateExpression": "REMOVE #a",
                "ConditionExpression": "attribute_not_exists(#a)",
                "ExpressionAttributeValues": null}),
            "only removes",
        ),
    ] {
        let (status, error) = both.ask_sim("UpdateItem", &with(members));
        assert_eq!(status, 400);
        let sentence = error["message"].as_str().unwrap();
        assert!(sentence.starts_with("sim does not know"), "{sentence}");
        assert!(sentence.contains(named), "{sentence}");
    }
    let one = json!({"Keys": [key("a")]});
    let put = json!({"TableName": TABLE, "Item": key("b")});
    let with_values = json!({"Update": with(json!({"ReturnValues": "NONE"}))});
    for (action, request) in [
        ("PutItem", put.clone()),
        (
            "GetItem",
            json!({"TableName": TABLE, "Key": key("a"), "AttributesToGet": ["id"]}),
        ),
        (
            "BatchGetItem",
            json!({"RequestItems": {TABLE: one, "other": one}}),
        ),
        (
            "TransactWriteItems",
            json!({"TransactItems": [{ "Put": put }]}),
        ),
        (
            "TransactWriteItems",
            json!({"TransactItems": [with_values]}),
        ),
    ] {
        let (status, error) = both.ask_sim(action, &request);
        assert_eq!(status, 400);
        assert!(error.to_string().contains("sim does not know"), "{error}");
    }
    let items = &both.sim.world().tables[TABLE].items;
    assert_eq!(
        json!(items),
        json!({"a": {"id": {"S": "a"}, "begun": {"N": "0"}}})
    );
}

/// "A client request token is valid for 10 minutes after the first request that uses it is completed." It is part of the
/// world, and a copy of the world knows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_token_lasts_ten_minutes() {
    let mut both = Both::new().await;
    let adding = |number: &str| {
        json!({
            "ClientRequestToken": "token",
            "TransactItems": [{"Update": {
                "TableName": TABLE,
                "Key": key("a"),
                "UpdateExpression": "ADD #a :a",
                "ExpressionAttributeNames": {"#a": "begun"},
                "ExpressionAttributeValues": {":a": {"N": number}},
            }}],
        })
    };
    let begun = |both: &Both| both.sim.world().tables[TABLE].items["a"]["begun"]["N"].clone();
    let age = |both: &Both, seconds: i64| {
        let mut world = both.sim.world();
        world.transactions.get_mut("token").unwrap().0 -= TimeDelta::seconds(seconds);
    };
    for _ in 0..2 {
        both.ask("TransactWriteItems", &adding("1"));
    }
    let other = both.ask("TransactWriteItems", &adding("2"));
    assert_eq!(other["error"], "IdempotentParameterMismatchException");
    age(&both, 590);
    let mut copy = Both::new().await;
    *copy.sim.world() = both.sim.world().clone();
    for both in [&mut both, &mut copy] {
        both.ask_sim("TransactWriteItems", &adding("1"));
        assert_eq!(begun(both), "1");
        age(both, 10);
        both.ask_sim("TransactWriteItems", &adding("2"));
        assert_eq!(begun(both), "3");
    }
}

/// "The maximum item size in DynamoDB is 400 KB", names and all.
///
/// The text is there before: the other DynamoDB also limits what one request carries, which is not documented.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_item_has_at_most_400_kilobytes() {
    // The names, the key, and the values but the text and the number.
    let rest = "idaturnbegunheld".len() + "abc".len();
    let mut both = Both::new().await;
    for (number, bytes) in [("0", 1), ("7", 2), ("12345", 4), ("12300", 3), ("-123", 4)] {
        let most = 400 * 1024 - rest - bytes;
        for (length, status) in [(most, 200), (most + 1, 400)] {
            let update = json!({
                "TableName": TABLE,
                "Key": key("a"),
                "UpdateExpression": "SET #b = :b, #c = :c",
                "ExpressionAttributeNames": {"#b": "begun", "#c": "held"},
                "ExpressionAttributeValues": {":b": {"N": number}, ":c": {"SS": ["ab", "c"]}},
            });
            let transaction = json!({"TransactItems": [{ "Update": update }]});
            for (action, request) in [("UpdateItem", update), ("TransactWriteItems", transaction)] {
                both.put(&json!({"id": {"S": "a"}, "turn": {"S": "x".repeat(length)}}));
                let answer = both.ask(action, &request);
                assert_eq!(answer["status"], status, "{number}");
            }
        }
    }
}

/// "A single operation can retrieve up to 16 MB of data", fewer items if the throughput is spent. The rest comes back as it
/// was asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_a_batch_leaves_out_comes_back_as_it_was_asked_for() {
    let mut both = Both::new().await;
    let ids: Vec<String> = (100..200).map(|n| n.to_string()).collect();
    for id in &ids {
        let text = "x".repeat(300 * 1024);
        both.put(&json!({"id": {"S": id}, "text": {"S": text}}));
    }
    let keys: Vec<Value> = ids.iter().map(|id| key(id)).collect();
    let mut asked = json!({"RequestItems": {TABLE: {
        "Keys": keys,
        "ProjectionExpression": "#id",
        "ExpressionAttributeNames": {"#id": "id"},
    }}});
    // The API reference has 52 items of this size in a batch. It counts megabytes in its own way.
    for (limit, found) in [(None, 54), (Some(2), 2), (None, 44)] {
        both.sim.world().items_per_batch = limit;
        let (_, answer) = both.ask_sim("BatchGetItem", &asked);
        let items = answer["Responses"][TABLE].as_array().unwrap();
        assert_eq!(items.len(), found);
        assert_eq!(items[0].as_object().unwrap().len(), 1);
        asked = json!({"RequestItems": answer["UnprocessedKeys"]});
    }
    assert_eq!(asked, json!({"RequestItems": {}}));
    both.sim.world().items_per_batch = Some(0);
    let none = json!({"RequestItems": {TABLE: {"Keys": [key("100")]}}});
    let (_, error) = both.ask_sim("BatchGetItem", &none);
    let kind = error["__type"].as_str().unwrap();
    assert!(kind.ends_with("#ProvisionedThroughputExceededException"));
}
