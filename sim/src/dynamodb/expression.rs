//! Values and expressions of the ledger's requests. They use a `#name` for each attribute and a `:name` for each value.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value as Json, json};

use super::refusals::{invalid, unknown};
use crate::refusal::Refusal;
use crate::world::Item;

/// Maximum length of an expression, in bytes. "The maximum length of any expression string is 4 KB."
const LONGEST: usize = 4096;

/// Upper bound of numbers, exclusive. They have at most 38 significant digits.
const NUMBERS_END: u128 = 10_u128.pow(38);

/// A value that a request may have. Items that a test puts into the world may have others.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum Value {
    #[serde(rename = "S")]
    Text(String),
    #[serde(rename = "N", deserialize_with = "number", serialize_with = "digits")]
    Number(i128),
    #[serde(rename = "SS", deserialize_with = "texts")]
    Texts(BTreeSet<String>),
}

fn number<'de, D: Deserializer<'de>>(json: D) -> Result<i128, D::Error> {
    let text = String::deserialize(json)?;
    let number = text.parse().ok().filter(is_in_range);
    number.ok_or_else(|| D::Error::custom(format!("{text} is not an integer of at most 38 digits")))
}

fn is_in_range(number: &i128) -> bool {
    number.unsigned_abs() < NUMBERS_END
}

fn digits<S: Serializer>(number: &i128, json: S) -> Result<S::Ok, S::Error> {
    json.collect_str(number)
}

fn texts<'de, D: Deserializer<'de>>(json: D) -> Result<BTreeSet<String>, D::Error> {
    let texts = Vec::<String>::deserialize(json)?;
    let set: BTreeSet<String> = texts.iter().cloned().collect();
    if set.is_empty() || set.len() < texts.len() {
        return Err(D::Error::custom("a set is empty or contains duplicates"));
    }
    Ok(set)
}

/// Reads an attribute of an item, or `None` if it has a type that no request has.
fn stored(attribute: &Json) -> Result<Option<Value>, Refusal> {
    let known = |kind: &&str| attribute.get(kind).is_some();
    if !["S", "N", "SS"].iter().any(known) {
        return Ok(None);
    }
    let value = Value::deserialize(attribute);
    value
        .map(Some)
        .map_err(|error| unknown(format!("{attribute}: {error}")))
}

/// The size of an item in bytes (Developer Guide, "DynamoDB item sizes and formats").
pub(super) fn size(item: &Item) -> usize {
    let sizes = item.iter().map(|(name, attribute)| {
        name.len()
            + match stored(attribute) {
                Ok(Some(Value::Text(text))) => text.len(),
                // "Approximately (1 byte per two significant digits) + (1 byte)", and one more if the number is
                // negative.
                Ok(Some(Value::Number(number))) => {
                    let digits = number.unsigned_abs().to_string();
                    let significant = digits.trim_end_matches('0').len();
                    significant.div_ceil(2) + 1 + usize::from(number < 0)
                }
                Ok(Some(Value::Texts(texts))) => texts.iter().map(String::len).sum(),
                // Only tests write such values, and no test depends on their size.
                Ok(None) | Err(_) => attribute.to_string().len(),
            }
    });
    sizes.sum()
}

/// `ExpressionAttributeNames` and `ExpressionAttributeValues` of a request, with the rules for their use.
#[derive(Debug)]
pub(super) struct Placeholders {
    names: BTreeMap<String, String>,
    values: BTreeMap<String, Value>,
    /// The placeholders that expressions have used.
    used: BTreeSet<String>,
}

impl Placeholders {
    pub(super) fn new(
        names: Option<BTreeMap<String, String>>,
        values: Option<BTreeMap<String, Value>>,
    ) -> Result<Placeholders, Refusal> {
        if names.as_ref().is_some_and(BTreeMap::is_empty) {
            return Err(invalid("ExpressionAttributeNames must not be empty"));
        }
        if values.as_ref().is_some_and(BTreeMap::is_empty) {
            return Err(invalid("ExpressionAttributeValues must not be empty"));
        }
        Ok(Placeholders {
            names: names.unwrap_or_default(),
            values: values.unwrap_or_default(),
            used: BTreeSet::new(),
        })
    }

    /// Refuses the request if any placeholder is unused.
    pub(super) fn check_all_used(&self) -> Result<(), Refusal> {
        let mut all = self.names.keys().chain(self.values.keys());
        match all.find(|key| !self.used.contains(*key)) {
            None => Ok(()),
            Some(key) => Err(invalid(format!("{key} is unused in expressions"))),
        }
    }

    /// The attribute that a `#name` stands for.
    fn name(&mut self, key: &str) -> Result<String, Refusal> {
        if !key.starts_with('#') {
            return Err(unknown(format!("the attribute {key} without a #name")));
        }
        self.used.insert(key.to_owned());
        let name = self.names.get(key).cloned();
        name.ok_or_else(|| invalid(format!("{key} is not defined")))
    }

    fn value(&mut self, key: &str) -> Result<Value, Refusal> {
        if !key.starts_with(':') {
            return Err(unknown(format!("the value {key} without a :name")));
        }
        self.used.insert(key.to_owned());
        let value = self.values.get(key).cloned();
        value.ok_or_else(|| invalid(format!("{key} is not defined")))
    }

    fn number(&mut self, key: &str) -> Result<i128, Refusal> {
        match self.value(key)? {
            Value::Number(number) => Ok(number),
            _ => Err(unknown(format!("an order of anything but numbers: {key}"))),
        }
    }
}

/// An expression with spaces between its words and symbols.
fn spaced(text: &str) -> Result<String, Refusal> {
    if text.trim().is_empty() {
        return Err(invalid("The expression can not be empty;"));
    }
    if text.len() > LONGEST {
        return Err(invalid(
            "Expression size has exceeded the maximum allowed size",
        ));
    }
    let symbols = ["(", ")", ",", "="].into_iter();
    Ok(symbols.fold(text.to_owned(), |text, symbol| {
        text.replace(symbol, &format!(" {symbol} "))
    }))
}

fn not_the_ledgers(term: &[&str]) -> Refusal {
    unknown(format!("the expression \"{}\"", term.join(" ")))
}

/// Terms of which at least one must hold.
#[derive(Debug)]
pub(super) struct Condition(Vec<(String, Test)>);

#[derive(Debug)]
enum Test {
    NotExists,
    Is(Value),
    Below(i128),
    Between(i128, i128),
}

impl Condition {
    pub(super) fn parse(text: &str, with: &mut Placeholders) -> Result<Condition, Refusal> {
        let mut terms = Vec::new();
        let spaced = spaced(text)?;
        let tokens: Vec<&str> = spaced.split_whitespace().collect();
        for term in tokens.split(|token| *token == "OR") {
            terms.push(match *term {
                ["attribute_not_exists", "(", name, ")"] => (with.name(name)?, Test::NotExists),
                [name, "=", value] => (with.name(name)?, Test::Is(with.value(value)?)),
                [name, "<", bound] => (with.name(name)?, Test::Below(with.number(bound)?)),
                [name, "BETWEEN", least, "AND", most] => {
                    let name = with.name(name)?;
                    let (least, most) = (with.number(least)?, with.number(most)?);
                    if most < least {
                        return Err(invalid(
                            "The BETWEEN operator requires upper bound to be greater than or equal to lower bound",
                        ));
                    }
                    (name, Test::Between(least, most))
                }
                _ => return Err(not_the_ledgers(term)),
            });
        }
        Ok(Condition(terms))
    }

    pub(super) fn holds(&self, item: Option<&Item>) -> Result<bool, Refusal> {
        for (name, test) in &self.0 {
            let attribute = item.and_then(|item| item.get(name));
            let value = attribute.map(stored).transpose()?.flatten();
            let holds = match (test, &value) {
                (Test::NotExists, _) => attribute.is_none(),
                (Test::Is(other), Some(value)) => value == other,
                (Test::Below(bound), Some(Value::Number(number))) => number < bound,
                (Test::Between(least, most), Some(Value::Number(number))) => {
                    (least..=most).contains(&number)
                }
                _ => false,
            };
            if holds {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Changes by attribute.
#[derive(Debug)]
pub(super) struct Update(BTreeMap<String, Change>);

#[derive(Debug)]
enum Change {
    Set(Value),
    Remove,
    Add(Value),
    Delete(BTreeSet<String>),
}

impl Update {
    pub(super) fn parse(text: &str, with: &mut Placeholders) -> Result<Update, Refusal> {
        let spaced = spaced(text)?;
        let tokens: Vec<&str> = spaced.split_whitespace().collect();
        let begins = |token: &str| ["SET", "REMOVE", "ADD", "DELETE"].contains(&token);
        let (mut sections, mut changes) = (BTreeSet::new(), BTreeMap::new());
        for tokens in tokens.chunk_by(|_, next| !begins(next)) {
            let [section, terms @ ..] = tokens else {
                continue;
            };
            if !sections.insert(*section) {
                return Err(invalid(format!("There are two {section} sections")));
            }
            for term in terms.split(|token| *token == ",") {
                let (name, change) = match (*section, term) {
                    ("SET", [name, "=", value]) => (name, Change::Set(with.value(value)?)),
                    ("REMOVE", [name]) => (name, Change::Remove),
                    ("ADD", [name, value]) => match with.value(value)? {
                        Value::Text(_) => return Err(invalid("ADD does not take a text")),
                        value => (name, Change::Add(value)),
                    },
                    ("DELETE", [name, value]) => match with.value(value)? {
                        Value::Texts(texts) => (name, Change::Delete(texts)),
                        _ => return Err(invalid("DELETE takes a set")),
                    },
                    _ => return Err(not_the_ledgers(tokens)),
                };
                if changes.insert(with.name(name)?, change).is_some() {
                    return Err(invalid(format!(
                        "Two document paths overlap with each other: {name}"
                    )));
                }
            }
        }
        Ok(Update(changes))
    }

    pub(super) fn changes(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether the update only removes values.
    pub(super) fn only_removes(&self) -> bool {
        let mut changes = self.0.values();
        changes.all(|change| matches!(change, Change::Remove | Change::Delete(_)))
    }

    pub(super) fn apply(&self, item: &mut Item) -> Result<(), Refusal> {
        for (name, change) in &self.0 {
            let old = item.get(name);
            let new = match (change, old.map(stored).transpose()?.flatten()) {
                (Change::Remove, _) => None,
                (Change::Set(value), _) => Some(value.clone()),
                (Change::Add(value), _) if old.is_none() => Some(value.clone()),
                (Change::Delete(_), _) if old.is_none() => None,
                (Change::Add(Value::Number(more)), Some(Value::Number(number))) => {
                    let sum = Some(number + more).filter(is_in_range).map(Value::Number);
                    Some(sum.ok_or_else(|| unknown("a sum of more than 38 digits"))?)
                }
                (Change::Add(Value::Texts(more)), Some(Value::Texts(texts))) => {
                    Some(Value::Texts(&texts | more))
                }
                (Change::Delete(fewer), Some(Value::Texts(texts))) => {
                    // DynamoDB has no empty sets.
                    Some(&texts - fewer)
                        .filter(|left| !left.is_empty())
                        .map(Value::Texts)
                }
                _ => {
                    return Err(invalid(
                        "An operand in the update expression has an incorrect data type",
                    ));
                }
            };
            match new {
                Some(value) => item.insert(name.clone(), json!(value)),
                None => item.remove(name),
            };
        }
        Ok(())
    }
}

/// The attributes of a ProjectionExpression.
pub(super) fn projection(text: &str, with: &mut Placeholders) -> Result<BTreeSet<String>, Refusal> {
    let mut names = BTreeSet::new();
    for term in text.split(',') {
        if !names.insert(with.name(term.trim())?) {
            return Err(invalid("Two document paths overlap with each other"));
        }
    }
    Ok(names)
}
