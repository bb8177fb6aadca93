//! A record as it was stored, read defensively. Any version of the guard may have written it.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Actual, Expected, Rebuild, Record, Refusal, SCHEMA};

/// A record that was stored as JSON. A member that is missing, or that this version cannot read, is absent. See
/// [`Record`] for the members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoredRecord {
    pub(crate) schema: Option<u32>,
    pub(crate) image_id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) snapshot_id: Option<String>,
    pub(crate) registered_by: Option<String>,
    pub(crate) registered_at: Option<String>,
    pub(crate) event_id: Option<String>,
    pub(crate) verdict: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) actual: Option<Actual>,
    pub(crate) expected: Option<Expected>,
    pub(crate) evidence: Vec<StoredStatement>,
    pub(crate) action: Option<String>,
    pub(crate) outcome: Option<String>,
    pub(crate) refusal: Option<Refusal>,
    pub(crate) held_by: Vec<String>,
    pub(crate) undo: Option<String>,
    pub(crate) fix: Vec<String>,
    pub(crate) rebuild: Option<Rebuild>,
    /// Names of the members that this version cannot read.
    pub(crate) unreadable: Vec<&'static str>,
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
    /// Reads a record. `None` if it is not a record of a schema that this version knows. Also `None` if its outcome
    /// cannot be read, because a discard that was carried out must not count as not carried out.
    pub(crate) fn read(json: &str) -> Option<StoredRecord> {
        let record = StoredRecord::of_members(serde_json::from_str(json).ok()?);
        let known = record.schema.is_some_and(|schema| schema <= SCHEMA);
        (known && !record.unreadable.contains(&"outcome")).then_some(record)
    }

    /// The stored form of a record.
    pub(crate) fn of(record: &Record) -> StoredRecord {
        match serde_json::json!(record) {
            Value::Object(members) => StoredRecord::of_members(members),
            _ => StoredRecord::default(),
        }
    }

    fn of_members(members: Map<String, Value>) -> StoredRecord {
        let mut reader = Reader {
            members,
            unreadable: Vec::new(),
        };
        StoredRecord {
            schema: reader.member("schema"),
            image_id: reader.member("image_id"),
            name: reader.member("name"),
            snapshot_id: reader.member("snapshot_id"),
            registered_by: reader.member("registered_by"),
            registered_at: reader.member("registered_at"),
            event_id: reader.member("event_id"),
            verdict: reader.member("verdict"),
            kind: reader.member("kind"),
            reason: reader.member("reason"),
            actual: reader.member("actual"),
            expected: reader.member("expected"),
            evidence: reader.member("evidence").unwrap_or_default(),
            action: reader.member("action"),
            outcome: reader.member("outcome"),
            refusal: reader.member("refusal"),
            held_by: reader.member("held_by").unwrap_or_default(),
            undo: reader.member("undo"),
            fix: reader.member("fix").unwrap_or_default(),
            rebuild: reader.member("rebuild"),
            unreadable: reader.unreadable,
        }
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

/// Reads the members of a record.
struct Reader {
    members: Map<String, Value>,
    unreadable: Vec<&'static str>,
}

impl Reader {
    fn member<T: DeserializeOwned>(&mut self, name: &'static str) -> Option<T> {
        let member = self.members.remove(name)?;
        let read = serde_json::from_value::<Option<T>>(member);
        read.unwrap_or_else(|_| {
            self.unreadable.push(name);
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_cannot_be_read_makes_no_other_unreadable() {
        let read = StoredRecord::read(
            r#"{"schema": 1, "image_id": "ami-1", "name": 7, "verdict": "mismatch", "actual": "Windows",
                "expected": {"platform": ["Windows"], "source": "a-later-one"}, "evidence": [{"source": "disk"}],
                "refusal": "a-later-one", "held_by": ["limit"], "rebuild": 7, "later": true}"#,
        );
        let expected = StoredRecord {
            schema: Some(1),
            image_id: Some("ami-1".into()),
            verdict: Some("mismatch".into()),
            held_by: vec!["limit".into()],
            unreadable: vec![
                "name", "actual", "expected", "evidence", "refusal", "rebuild",
            ],
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
            "[1]",
            "[1, null]",
            "{}",
            r#"{"schema": "1"}"#,
            r#"{"schema": 2}"#,
            r#"{"schema": 1, "outcome": 7}"#,
        ] {
            assert_eq!(StoredRecord::read(json), None, "{json}");
        }
    }
}
