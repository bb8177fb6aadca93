//! The JSON Schema of the policy file, from the tables by which the file is read.
//!
//! The schema accepts every policy that the reader accepts. It does not refuse all that the reader refuses. It does not
//! know whether a glob can match, for example.

use serde_json::{Map, Value, json};

use super::read::{EXEMPT, EXPECT, RuleKind, SECTIONS, STRANGE, VERSION, match_keys};
use super::values::{Attribute, Policy, Word};
use crate::billing::{ACCEPTED_PLATFORMS, Platform, platform_pattern, regex_escaped};

/// JSON Schema (draft 2020-12) of the policy file. TOML values are taken as the JSON values of the same kind.
pub fn schema() -> Value {
    let default = Policy::default();
    let sections = SECTIONS.iter().map(|section| {
        let keys = section.keys.iter();
        let keys = keys.map(|key| (key.name, described(key.about, (key.schema)(&default))));
        (section.name, described(section.about, table(keys)))
    });
    let version = [(
        VERSION,
        described("The version of the format.", json!({ "const": 1 })),
    )];
    let rules = [&EXPECT, &EXEMPT].map(|kind| {
        let rules = json!({ "type": "array", "items": rule(kind) });
        (kind.name, described(kind.about, rules))
    });
    let mut schema = table(version.into_iter().chain(sections).chain(rules));
    let more = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Policy of ami-billing-guard",
        "required": [VERSION],
        "$defs": definitions(),
    });
    add(&mut schema, more);
    schema
}

/// A table with these keys and no others.
fn table<'a>(keys: impl Iterator<Item = (&'a str, Value)>) -> Value {
    let keys: Map<String, Value> = keys.map(|(key, schema)| (key.to_owned(), schema)).collect();
    json!({ "type": "object", "properties": keys, "additionalProperties": false })
}

/// Puts a sentence before the description of a schema.
fn described(about: &str, mut schema: Value) -> Value {
    let own = schema
        .get("description")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let text = format!("{about}{own}");
    add(&mut schema, json!({ "description": text }));
    schema
}

/// Adds the members of an object to another one.
fn add(schema: &mut Value, more: Value) {
    if let (Value::Object(schema), Value::Object(more)) = (schema, more) {
        schema.extend(more);
    }
}

/// A rule: at least one key says which AMIs it matches, and at least one what it says about them.
fn rule(kind: &RuleKind) -> Value {
    let one_of = |keys: &mut dyn Iterator<Item = &'static str>| {
        let keys: Vec<Value> = keys.map(|key| json!({ "required": [key] })).collect();
        json!({ "anyOf": keys })
    };
    // An exemption matches by both keys of product codes, which mean the same there.
    let codes = (!kind.says(PRODUCT_CODES)).then_some(PRODUCT_CODES);
    let matched = match_keys().chain(codes);
    let keys = matched.clone().map(|key| (key, match_key(key)));
    let says = kind.says.iter();
    let says = says.map(|key| (key.name, described(key.about, key.accepts.schema())));
    let mut rule = table(keys.chain(says));
    let needs = one_of(&mut kind.needs.iter().copied());
    add(
        &mut rule,
        json!({ "allOf": [one_of(&mut matched.into_iter()), needs] }),
    );
    let more = match codes {
        Some(codes) => json!({ "not": { "required": [PRODUCT_CODE, codes] } }),
        None => json!({ "dependentRequired": { "disk": ["platform"] } }),
    };
    add(&mut rule, more);
    rule
}

const PRODUCT_CODE: &str = "product_code";
const PRODUCT_CODES: &str = "product_codes";

fn match_key(key: &str) -> Value {
    let tags = |of| {
        described(
            &format!("The AMIs whose {of} has these tags: keys, and a glob for each value."),
            json!({
                "type": "object",
                "minProperties": 1,
                "propertyNames": { "minLength": 1 },
                "additionalProperties": { "$ref": "#/$defs/glob" },
            }),
        )
    };
    match key {
        "tag" => tags("image"),
        "snapshot_tag" => tags("root snapshot"),
        PRODUCT_CODE | PRODUCT_CODES => described(
            "The AMIs that have one of these product codes.",
            json!({ "$ref": "#/$defs/product_codes", "minItems": 1 }),
        ),
        _ => {
            let about = Attribute::WORDS.iter().zip(Attribute::MEANINGS);
            let mut about = about.filter(|((word, _), _)| *word == key);
            let about = about.next().map_or("", |(_, about)| about.trim());
            described(about, json!({ "$ref": "#/$defs/glob" }))
        }
    }
}

fn definitions() -> Value {
    let list = |of: &str, least: usize| json!({ "type": "array", "items": { "$ref": of }, "minItems": least });
    let strange = STRANGE.map(|(sign, _)| regex_escaped(sign));
    let names: Vec<&str> = Platform::codes().chain(Platform::details()).collect();
    json!({
        "glob": {
            "description": "* stands for any text (also slashes), ? for one character, [ab] or [a-z] for one of these, \
                            [!ab] for any other than these, [[] for a bracket.",
            "type": "string",
            "minLength": 1,
            // Each bracket that opens a range is closed.
            "pattern": r"^(?:[^\[]|\[(?:![\s\S]|[^!])[^\]]*\])*$",
            "not": { "pattern": format!("^ | $|{}", strange.join("|")) },
        },
        "platform": {
            "description": format!("Accepted: {ACCEPTED_PLATFORMS}. Letter case does not matter."),
            "type": "string",
            "anyOf": [{ "enum": names }, { "pattern": platform_pattern() }],
        },
        "platforms": { "anyOf": [{ "$ref": "#/$defs/platform" }, list("#/$defs/platform", 1)] },
        "product_code": {
            "description": "A product code as DescribeImages shows it in ProductCodes.",
            "type": "string",
            "pattern": "^[A-Za-z0-9]{4,64}$",
        },
        "product_codes": { "anyOf": [{ "$ref": "#/$defs/product_code" }, list("#/$defs/product_code", 0)] },
    })
}
