//! A record as it was stored, read defensively. Any version of the guard may have written it.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Actual, Expected, Rebuild, Record, Refusal, SCHEMA};

/// A record that was stored as JSON. A member that is missing, or that this version cannot read, is absent, and makes no
/// other member unreadable. See [`Record`] for the members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct StoredRecord {
    #[serde(deserialize_with = "lenient")]
    pub(crate) schema: Option<u32>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) image_id: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) name: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) snapshot_id: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) registered_by: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) registered_at: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) event_id: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) verdict: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) kind: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) reason: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) actual: Option<Actual>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) expected: Option<Expected>,
    /// `None` if a statement cannot be read, because the others are then not all that was said.
    #[serde(deserialize_with = "lenient")]
    pub(crate) evidence: Option<Vec<StoredStatement>>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) action: Option<String>,
    /// The only member that must be readable. A discard that was carried out must never count as not carried out.
    pub(crate) outcome: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) refusal: Option<Refusal>,
    #[serde(deserialize_with = "texts")]
    pub(crate) held_by: Vec<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) undo: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) fix: Vec<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) rebuild: Option<Rebuild>,
}

/// What a source said.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct StoredStatement {
    pub(crate) source: String,
    pub(crate) state: String,
    pub(crate) says: Vec<String>,
    #[serde(default)]
    pub(crate) product_codes: Option<BTreeSet<String>>,
    pub(crate) detail: String,
}

impl StoredRecord {
    /// Reads a record. `None` if it is not a record of a schema that this version knows.
    pub(crate) fn read(json: &str) -> Option<StoredRecord> {
        let record: StoredRecord = serde_json::from_str(json).ok()?;
        record.schema.filter(|schema| *schema <= SCHEMA)?;
        Some(record)
    }

    /// A record as it is read after it was stored.
    pub(crate) fn of(record: &Record) -> StoredRecord {
        serde_json::from_value(serde_json::json!(record)).unwrap_or_default()
    }

    /// Verdict and kind in one word (`mismatch/wrong`).
    pub(crate) fn label(&self) -> Option<String> {
        let verdict = self.verdict.as_ref()?;
        Some(match &self.kind {
            Some(kind) => format!("{verdict}/{kind}"),
            None => verdict.clone(),
        })
    }

    /// Whether this interlock held the discard. `interlock` is its name.
    pub(crate) fn is_held_by(&self, interlock: &str) -> bool {
        self.held_by.iter().any(|it| it == interlock)
    }
}

/// Reads a member. One of another form counts as missing.
fn lenient<'de, T: DeserializeOwned + Default, D: Deserializer<'de>>(
    member: D,
) -> Result<T, D::Error> {
    Ok(T::deserialize(Value::deserialize(member)?).unwrap_or_default())
}

/// Reads a list of texts. Leaves out what is not a text.
fn texts<'de, D: Deserializer<'de>>(member: D) -> Result<Vec<String>, D::Error> {
    let Value::Array(members) = Value::deserialize(member)? else {
        return Ok(Vec::new());
    };
    let text = |member| match member {
        Value::String(text) => Some(text),
        _ => None,
    };
    Ok(members.into_iter().filter_map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_cannot_be_read_makes_no_other_unreadable() {
        let read = StoredRecord::read(
            r#"{"schema": 1, "image_id": "ami-1", "name": 7, "verdict": "mismatch", "actual": "Windows",
                "expected": {"platform": ["Windows"], "source": "a-later-one"}, "evidence": [{"source": "disk"}],
                "refusal": "a-later-one", "held_by": ["limit", 7], "rebuild": [], "later": true}"#,
        );
        let expected = StoredRecord {
            schema: Some(1),
            image_id: Some("ami-1".into()),
            verdict: Some("mismatch".into()),
            held_by: vec!["limit".into()],
            ..StoredRecord::default()
        };
        assert_eq!(read, Some(expected));
    }

    #[test]
    fn what_is_not_a_record_of_a_known_schema_is_not_read() {
        for json in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"schema": "1"}"#,
            r#"{"schema": 2}"#,
            r#"{"schema": 1, "outcome": 7}"#,
            r#"{"schema": 1, "schema": 1}"#,
        ] {
            assert_eq!(StoredRecord::read(json), None, "{json}");
        }
    }
}
