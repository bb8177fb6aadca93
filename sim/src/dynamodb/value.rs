//! Attribute values: what an item is made of.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use super::invalid;
use crate::refusal::Refusal;
use crate::world::Item;

/// "The maximum item size in DynamoDB is 400 KB, which includes both attribute name binary length (UTF-8
/// length) and attribute value lengths" (Developer Guide, "Quotas").
pub(super) const LARGEST_ITEM: usize = 400 * 1024;

/// "DynamoDB supports nested attributes up to 32 levels deep."
const DEEPEST: usize = 32;

/// Numbers have at most 38 significant digits; here all digits of an integer count.
const NUMBERS_END: u128 = 10_u128.pow(38);

/// The attributes of an item, or of a map in it.
pub(super) type Attributes = BTreeMap<String, Value>;

/// The types that are simulated: binary values, their sets and sets of numbers are not, and neither is a
/// number with a fraction or an exponent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    S(String),
    N(i128),
    Bool(bool),
    Null,
    L(Vec<Value>),
    M(Attributes),
    Ss(BTreeSet<String>),
}

impl Value {
    /// Reads `{"S": "…"}` and the like.
    pub(super) fn read(json: &Json) -> Result<Value, Refusal> {
        read_at(json, 0)
    }

    /// Writes what [`Value::read`] reads.
    pub(super) fn write(&self) -> Json {
        match self {
            Value::S(text) => json!({"S": text}),
            Value::N(number) => json!({"N": number.to_string()}),
            Value::Bool(bool) => json!({"BOOL": bool}),
            Value::Null => json!({"NULL": true}),
            Value::L(list) => json!({"L": list.iter().map(Value::write).collect::<Vec<_>>()}),
            Value::M(map) => json!({"M": write_attributes(map)}),
            Value::Ss(set) => json!({"SS": set}),
        }
    }

    /// The type's name in requests and answers.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Value::S(_) => "S",
            Value::N(_) => "N",
            Value::Bool(_) => "BOOL",
            Value::Null => "NULL",
            Value::L(_) => "L",
            Value::M(_) => "M",
            Value::Ss(_) => "SS",
        }
    }

    /// The order of two texts or two numbers; nothing else has one. Texts are ordered by their UTF-8 bytes.
    pub(super) fn order(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::S(one), Value::S(other)) => Some(one.cmp(other)),
            (Value::N(one), Value::N(other)) => Some(one.cmp(other)),
            _ => None,
        }
    }

    /// What the function `size` gives, if it knows the type. That a text is measured in UTF-16 code units is
    /// what others have seen; the documentation says "the length of the string".
    pub(super) fn size(&self) -> Option<usize> {
        match self {
            Value::S(text) => Some(text.encode_utf16().count()),
            Value::L(list) => Some(list.len()),
            Value::M(map) => Some(map.len()),
            Value::Ss(set) => Some(set.len()),
            Value::N(_) | Value::Bool(_) | Value::Null => None,
        }
    }

    /// The sum of two numbers, or with `subtract` their difference.
    pub(super) fn sum(&self, other: &Value, subtract: bool) -> Result<Value, Refusal> {
        let (Value::N(one), Value::N(other)) = (self, other) else {
            return Err(wrong_type());
        };
        let sum = if subtract {
            one.checked_sub(*other)
        } else {
            one.checked_add(*other)
        };
        in_range(sum).map(Value::N)
    }

    /// What the value takes of an item's size (Developer Guide, "DynamoDB item sizes and formats").
    fn weight(&self) -> usize {
        match self {
            Value::S(text) => text.len(),
            // "Approximately (1 byte per two significant digits) + (1 byte)".
            Value::N(number) => number.unsigned_abs().to_string().len().div_ceil(2) + 1,
            Value::Bool(_) | Value::Null => 1,
            Value::L(list) => 3 + list.iter().map(|value| value.weight() + 1).sum::<usize>(),
            Value::M(map) => 3 + weight(map) + map.len(),
            Value::Ss(set) => set.iter().map(String::len).sum(),
        }
    }
}

/// An operand that an item holds is of a type that the operator or function does not take.
pub(super) fn wrong_type() -> Refusal {
    invalid("An operand in the update expression has an incorrect data type")
}

/// The size of an item, or of the attributes of a map.
pub(super) fn weight(attributes: &Attributes) -> usize {
    attributes
        .iter()
        .map(|(name, value)| name.len() + value.weight())
        .sum()
}

/// Reads `{"name": {"S": "…"}, …}`.
pub(super) fn read_attributes<'a>(
    json: impl IntoIterator<Item = (&'a String, &'a Json)>,
) -> Result<Attributes, Refusal> {
    json.into_iter()
        .map(|(name, value)| Ok((name.clone(), Value::read(value)?)))
        .collect()
}

/// Writes what [`read_attributes`] reads.
pub(super) fn write_attributes(attributes: &Attributes) -> Item {
    attributes
        .iter()
        .map(|(name, value)| (name.clone(), value.write()))
        .collect()
}

fn read_at(json: &Json, depth: usize) -> Result<Value, Refusal> {
    if depth > DEEPEST {
        return Err(invalid(
            "Nesting Levels have exceeded supported limits: Attributes depth limit exceeded",
        ));
    }
    let Json::Object(given) = json else {
        return Err(malformed());
    };
    let mut types = given.iter();
    let Some((type_name, content)) = types.next() else {
        return Err(invalid(
            "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes",
        ));
    };
    if types.next().is_some() {
        return Err(invalid(
            "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the \
             supported datatypes",
        ));
    }
    match (type_name.as_str(), content) {
        ("S", Json::String(text)) => Ok(Value::S(text.clone())),
        ("N", Json::String(number)) => read_number(number).map(Value::N),
        ("BOOL", Json::Bool(bool)) => Ok(Value::Bool(*bool)),
        ("NULL", Json::Bool(true)) => Ok(Value::Null),
        ("NULL", Json::Bool(false)) => Err(invalid(
            "One or more parameter values were invalid: Null attribute value types must have the value of \
             true",
        )),
        ("L", Json::Array(list)) => Ok(Value::L(
            list.iter()
                .map(|value| read_at(value, depth + 1))
                .collect::<Result<_, _>>()?,
        )),
        ("M", Json::Object(map)) => read_map(map, depth),
        ("SS", Json::Array(members)) => read_set(members),
        ("B" | "BS" | "NS", _) => Err(invalid(format!(
            "Values of the type {type_name} are not simulated."
        ))),
        _ => Err(malformed()),
    }
}

fn read_map(map: &Map<String, Json>, depth: usize) -> Result<Value, Refusal> {
    let attributes = map
        .iter()
        .map(|(name, value)| Ok((name.clone(), read_at(value, depth + 1)?)))
        .collect::<Result<_, Refusal>>()?;
    Ok(Value::M(attributes))
}

fn read_set(members: &[Json]) -> Result<Value, Refusal> {
    let texts: Vec<&str> = members
        .iter()
        .map(|member| member.as_str().ok_or_else(malformed))
        .collect::<Result<_, _>>()?;
    let set: BTreeSet<String> = texts.iter().map(|&text| text.to_owned()).collect();
    if set.is_empty() {
        return Err(invalid(
            "One or more parameter values were invalid: An string set  may not be empty",
        ));
    }
    if set.len() < texts.len() {
        return Err(invalid(format!(
            "One or more parameter values were invalid: Input collection [{}] contains duplicates.",
            texts.join(", ")
        )));
    }
    Ok(Value::Ss(set))
}

fn read_number(text: &str) -> Result<i128, Refusal> {
    match text.parse::<i128>() {
        Ok(number) => in_range(Some(number)),
        Err(_) if text.parse::<f64>().is_ok_and(f64::is_finite) => Err(invalid(format!(
            "Only integers of at most 38 digits are simulated, and {text} is none."
        ))),
        Err(_) if text.is_empty() => Err(invalid(
            "The parameter cannot be converted to a numeric value",
        )),
        Err(_) => Err(invalid(format!(
            "The parameter cannot be converted to a numeric value: {text}"
        ))),
    }
}

fn in_range(number: Option<i128>) -> Result<i128, Refusal> {
    number
        .filter(|number| number.unsigned_abs() < NUMBERS_END)
        .ok_or_else(|| invalid("Attempting to store more than 38 significant digits in a Number"))
}

/// JSON that is no attribute value at all.
fn malformed() -> Refusal {
    Refusal::new(
        "SerializationException",
        "Start of structure or map found where not expected",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_they_were_read() {
        for json in [
            json!({"S": ""}),
            json!({"S": "caf\u{e9} \"quoted\""}),
            json!({"N": "-42"}),
            json!({"N": "99999999999999999999999999999999999999"}),
            json!({"BOOL": false}),
            json!({"NULL": true}),
            json!({"SS": ["a", "b"]}),
            json!({"L": [{"S": "a"}, {"L": []}]}),
            json!({"M": {"a": {"M": {}}, "b": {"N": "1"}}}),
        ] {
            assert_eq!(Value::read(&json).unwrap().write(), json);
        }
    }

    #[test]
    fn equal_numbers_are_one_number_however_they_are_written() {
        assert_eq!(
            Value::read(&json!({"N": "+007"})).unwrap().write(),
            json!({"N": "7"})
        );
        assert_eq!(Value::read(&json!({"N": "-0"})).unwrap(), Value::N(0));
    }

    #[test]
    fn values_that_can_not_be_are_refused() {
        let mut deep = json!({"S": "x"});
        for _ in 0..=DEEPEST {
            deep = json!({"L": [deep]});
        }
        for (json, code, words) in [
            (json!({}), "ValidationException", "is empty"),
            (
                json!({"S": "a", "N": "1"}),
                "ValidationException",
                "more than one datatypes",
            ),
            (
                json!({"N": "one"}),
                "ValidationException",
                "numeric value: one",
            ),
            (json!({"N": ""}), "ValidationException", "numeric value"),
            (json!({"N": "1.5"}), "ValidationException", "Only integers"),
            (
                json!({"N": "100000000000000000000000000000000000000"}),
                "ValidationException",
                "38 significant digits",
            ),
            (
                json!({"NULL": false}),
                "ValidationException",
                "value of true",
            ),
            (json!({"SS": []}), "ValidationException", "may not be empty"),
            (
                json!({"SS": ["a", "a"]}),
                "ValidationException",
                "[a, a] contains duplicates",
            ),
            (json!({"B": "AA=="}), "ValidationException", "not simulated"),
            (deep, "ValidationException", "Nesting Levels"),
            (json!({"S": 1}), "SerializationException", ""),
            (json!({"X": "a"}), "SerializationException", ""),
            (json!("a"), "SerializationException", ""),
        ] {
            let refusal = Value::read(&json).unwrap_err();
            assert_eq!(refusal.code, code, "{json}");
            assert!(refusal.message.contains(words), "{json}: {refusal}");
        }
    }

    #[test]
    fn an_item_weighs_what_the_documentation_says() {
        for (json, expected) in [
            (json!({"S": "caf\u{e9}"}), 5),
            (json!({"N": "0"}), 2),
            (json!({"N": "-12345"}), 4),
            (json!({"NULL": true}), 1),
            (json!({"SS": ["ab", "c"]}), 3),
            (json!({"L": [{"S": "ab"}, {"BOOL": true}]}), 3 + 3 + 2),
            (json!({"M": {"key": {"S": "ab"}}}), 3 + 3 + 2 + 1),
        ] {
            let attributes = Attributes::from([("id".to_owned(), Value::read(&json).unwrap())]);
            assert_eq!(weight(&attributes), 2 + expected, "{json}");
        }
    }

    #[test]
    fn sums_are_exact_to_the_38th_digit_and_refused_beyond() {
        let most = Value::N((NUMBERS_END - 1) as i128);
        let one = Value::N(1);
        assert!(most.sum(&one, false).is_err());
        let less = most.sum(&one, true).unwrap();
        assert_eq!(less.sum(&one, false).unwrap(), most);
        assert!(one.sum(&Value::Null, false).is_err());
    }
}
