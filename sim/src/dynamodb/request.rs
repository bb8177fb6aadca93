//! Reading the members of a request, or of one operation of a transaction.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::expression::{Condition, Placeholders, Projection};
use super::invalid;
use super::value::{Attributes, read_attributes};
use crate::refusal::Refusal;
use crate::world::Table;

/// "The partition key value can be up to 2048 bytes."
const LONGEST_KEY: usize = 2048;

/// The members of a JSON object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    members: &'a Map<String, Json>,
}

impl<'a> Request<'a> {
    pub(super) fn new(members: &'a Map<String, Json>) -> Request<'a> {
        Request { members }
    }

    /// Refuses a request with a member that is not among these: to ignore it would be to lie.
    pub(super) fn check_known(&self, known: &[&str]) -> Result<(), Refusal> {
        match self
            .members
            .keys()
            .find(|name| !known.contains(&name.as_str()))
        {
            None => Ok(()),
            Some(unknown) => Err(invalid(format!(
                "The parameter {unknown} does not exist, or is not simulated."
            ))),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        self.member(name, Json::as_str)
    }

    pub(super) fn required(&self, name: &str) -> Result<&'a str, Refusal> {
        self.text(name)?.ok_or_else(|| missing(name))
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        Ok(self.member(name, Json::as_bool)?.unwrap_or(false))
    }

    /// A number of things, at least one.
    pub(super) fn count(&self, name: &str) -> Result<Option<usize>, Refusal> {
        match self.member(name, Json::as_i64)? {
            None => Ok(None),
            Some(number) => match usize::try_from(number) {
                Ok(count) if count > 0 => Ok(Some(count)),
                _ => Err(invalid(format!(
                    "1 validation error detected: Value '{number}' at '{}' failed to satisfy constraint: \
                     Member must have value greater than or equal to 1",
                    name.to_lowercase()
                ))),
            },
        }
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<&'a Map<String, Json>>, Refusal> {
        self.member(name, Json::as_object)
    }

    pub(super) fn list(&self, name: &str) -> Result<&'a [Json], Refusal> {
        let list = self.member(name, Json::as_array)?;
        Ok(list.ok_or_else(|| missing(name))?.as_slice())
    }

    /// One of the words that the parameter allows; the first one if it is absent.
    pub(super) fn one_of(
        &self,
        name: &str,
        words: &[&'static str],
    ) -> Result<&'static str, Refusal> {
        let given = self.text(name)?;
        let found = match given {
            None => words.first(),
            Some(given) => words.iter().find(|word| **word == given),
        };
        found.copied().ok_or_else(|| {
            invalid(format!(
                "1 validation error detected: Value '{}' at '{name}' failed to satisfy constraint: Member \
                 must satisfy enum value set: [{}]",
                given.unwrap_or_default(),
                words.join(", ")
            ))
        })
    }

    /// A key or an item.
    pub(super) fn attributes(&self, name: &str) -> Result<Attributes, Refusal> {
        read_attributes(self.object(name)?.ok_or_else(|| missing(name))?)
    }

    /// `ExpressionAttributeNames` and `ExpressionAttributeValues`.
    pub(super) fn placeholders(&self) -> Result<Placeholders, Refusal> {
        let mut names = BTreeMap::new();
        for (placeholder, name) in self.named("ExpressionAttributeNames", '#')? {
            let name = name
                .as_str()
                .ok_or_else(|| malformed("ExpressionAttributeNames"))?;
            names.insert(placeholder.clone(), name.to_owned());
        }
        let values = read_attributes(self.named("ExpressionAttributeValues", ':')?)?;
        Ok(Placeholders::new(names, values))
    }

    /// A map whose keys begin with `mark`.
    fn named(
        &self,
        name: &str,
        mark: char,
    ) -> Result<impl Iterator<Item = (&'a String, &'a Json)>, Refusal> {
        let map = self.object(name)?;
        if map.is_some_and(Map::is_empty) {
            return Err(invalid(format!("{name} must not be empty")));
        }
        match map.and_then(|map| map.keys().find(|key| !key.starts_with(mark))) {
            None => Ok(map.into_iter().flatten()),
            Some(key) => Err(invalid(format!(
                "{name} contains invalid key: Syntax error; key: \"{key}\""
            ))),
        }
    }

    /// `ConditionExpression` or `FilterExpression`.
    pub(super) fn condition(
        &self,
        parameter: &'static str,
        placeholders: &mut Placeholders,
    ) -> Result<Option<Condition>, Refusal> {
        match self.text(parameter)? {
            None => Ok(None),
            Some(text) => Condition::parse(parameter, text, placeholders).map(Some),
        }
    }

    /// `ProjectionExpression`.
    pub(super) fn projection(
        &self,
        placeholders: &mut Placeholders,
    ) -> Result<Option<Projection>, Refusal> {
        match self.text("ProjectionExpression")? {
            None => Ok(None),
            Some(text) => Projection::parse(text, placeholders).map(Some),
        }
    }

    fn member<T>(
        &self,
        name: &str,
        read: impl FnOnce(&'a Json) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        match self.members.get(name) {
            None => Ok(None),
            Some(json) => read(json).map(Some).ok_or_else(|| malformed(name)),
        }
    }
}

/// The value of the table's key in `Key` of a request, that has to have it and nothing else.
pub(super) fn key_alone(table: &Table, key: &Attributes) -> Result<String, Refusal> {
    match (key.len(), key.get(&table.key)) {
        (1, Some(super::value::Value::S(id))) => check_key(table, id),
        _ => Err(invalid(
            "The provided key element does not match the schema",
        )),
    }
}

/// The value of the table's key in an item.
pub(super) fn key_of_item(table: &Table, item: &Attributes) -> Result<String, Refusal> {
    let wrong = "One or more parameter values were invalid";
    match item.get(&table.key) {
        Some(super::value::Value::S(id)) => check_key(table, id),
        Some(other) => Err(invalid(format!(
            "{wrong}: Type mismatch for key {} expected: S actual: {}",
            table.key,
            other.type_name()
        ))),
        None => Err(invalid(format!(
            "{wrong}: Missing the key {} in the item",
            table.key
        ))),
    }
}

fn check_key(table: &Table, id: &str) -> Result<String, Refusal> {
    if id.is_empty() {
        return Err(invalid(format!(
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot \
             contain an empty string value. Key: {}",
            table.key
        )));
    }
    if id.len() > LONGEST_KEY {
        return Err(invalid(format!(
            "One or more parameter values were invalid: Size of hashkey has exceeded the maximum size \
             limit of{LONGEST_KEY} bytes"
        )));
    }
    Ok(id.to_owned())
}

fn missing(name: &str) -> Refusal {
    invalid(format!(
        "The parameter '{name}' is required but was not present in the request"
    ))
}

pub(super) fn malformed(name: &str) -> Refusal {
    Refusal::new(
        "SerializationException",
        format!("{name} is not of the type that it has to be"),
    )
}
