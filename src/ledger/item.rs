//! An item of the ledger: its attributes, and the conditional writes to it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SecondsFormat, Utc};

use crate::error::Error;
use crate::event::Registration;
use crate::ids::AmiId;

pub(super) const TURN: &str = "turn";
pub(super) const TURN_UNTIL: &str = "turn_until_ms";
pub(super) const PLACE: &str = "place";
pub(super) const ATTEMPTED_AT: &str = "attempted_at_ms";
pub(super) const DOUBTED: &str = "doubted";
pub(super) const COMPLETED: &str = "completed";
pub(super) const DISCARD: &str = "discard";
pub(super) const TOLD: &str = "told";
pub(super) const TOLD_AT: &str = "told_at_ms";
pub(super) const RECORD: &str = "record";
pub(super) const BEGUN: &str = "begun";
pub(super) const FIRST_OVER: &str = "first_over";
pub(super) const DISCARDS: &str = "discards";
/// Says that the guard emptied the set of discards. Without this mark, a missing set counts as lost.
pub(super) const EMPTIED: &str = "emptied";
pub(super) const HELD: &str = "held";
/// Number of alerts in an hour that announce no discard. `first_over_alerts` is the first image whose alert exceeded
/// the limit.
pub(super) const ALERTED: &str = "alerted";
pub(super) const FIRST_OVER_ALERTS: &str = "first_over_alerts";
/// The hour in whose number of alerts an image's last alert is counted, followed by that alert's deduplication key.
pub(super) const ALERTED_AS: &str = "alerted_as";
/// Set while the next digest must report the last finding.
pub(super) const WAITS: &str = "waits";
pub(super) const SINCE: &str = "since_ms";
/// Pagination cursor of the image listing. Rename this key if the page size or the listing changes.
pub(super) const CURSOR: &str = "cursor";
/// Images that an audit began to process and did not finish.
pub(super) const BEGUN_WITH: &str = "begun_with";
/// Images that an audit finished, until they are reported.
pub(super) const ENDED_WITH: &str = "ended_with";
pub(super) const EXPIRES: &str = "expires";

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// A set of texts, never empty.
    Set(BTreeSet<String>),
    /// A value that the guard never writes: another type, or a number that does not fit into [`Value::Number`].
    Foreign,
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

/// An item: its attributes, by name.
pub(crate) type Item = BTreeMap<String, Value>;

/// What must be true of an item for a write to take effect.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    /// The attribute does not exist.
    Absent(&'static str),
    /// The attribute has this value.
    Is(&'static str, Value),
    /// The attribute is a number below this one.
    Below(&'static str, i64),
    /// The attribute is a number between these two, both included.
    Within(&'static str, i64, i64),
    /// The item does not exist.
    NoItem,
}

/// What a write changes in an item.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Sets an attribute.
    Set(&'static str, Value),
    /// Removes an attribute.
    Remove(&'static str),
    /// Adds to a number, which starts at 0 if it does not exist.
    Add(&'static str, i64),
    /// Adds a text to a set.
    Include(&'static str, String),
    /// Removes texts from a set. There must be at least one.
    Exclude(&'static str, BTreeSet<String>),
}

impl Change {
    /// Name of the attribute that it changes.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Change::Set(name, _)
            | Change::Remove(name)
            | Change::Add(name, _)
            | Change::Include(name, _)
            | Change::Exclude(name, _) => name,
        }
    }
}

/// An upsert of a single item.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// Id of the item.
    pub(crate) id: String,
    /// The write takes effect if any of these conditions holds, or if there are none.
    pub(crate) if_any: Vec<Condition>,
    /// The changes to make.
    pub(crate) changes: Vec<Change>,
}

/// Result of one write, or of two writes that take effect together or not at all.
#[derive(Clone, Debug)]
pub(crate) enum Written {
    /// It took effect. After a single write, this is the new item.
    Yes(Item),
    /// The condition of this write did not hold. The first write is 0.
    No(usize),
    /// Lost to a concurrent write.
    Contended,
}

/// Prefix of the ids of an image's items: its account and Region.
pub(super) fn of_place(account: &str, region: &str) -> String {
    format!("{account}#{region}")
}

/// Id of an image's item.
pub(crate) fn item_of(registration: &Registration) -> String {
    let place = of_place(registration.account.as_str(), &registration.region);
    format!("{place}#{}", registration.image_id)
}

/// The texts of a set. None if the attribute does not exist.
///
/// # Errors
/// [`Error::NotPossible`] if the attribute is not a set.
pub(super) fn texts<'a>(
    id: &str,
    item: &'a Item,
    name: &str,
) -> Result<impl Iterator<Item = &'a str> + use<'a>, Error> {
    let set = match item.get(name) {
        None => None,
        Some(Value::Set(texts)) => Some(texts),
        Some(_) => return Err(unreadable(id, &format!("{name} is not a set of texts"))),
    };
    Ok(set.into_iter().flatten().map(String::as_str))
}

/// Error for an item that is not as the guard writes it. Retrying does not help.
pub(super) fn unreadable(id: &str, what: &str) -> Error {
    Error::NotPossible {
        resource: format!("the ledger's item {id}"),
        code: "UnreadableItem",
        message: what.to_owned(),
    }
}

/// An image with a time, in the form that sets store.
pub(super) fn dated(at: DateTime<Utc>, image: &AmiId) -> String {
    let at = at.to_rfc3339_opts(SecondsFormat::Millis, true);
    format!("{at} {image}")
}

pub(super) fn read_dated(text: &str) -> Option<(AmiId, DateTime<Utc>)> {
    let (at, image) = text.split_once(' ')?;
    let at = DateTime::parse_from_rfc3339(at).ok()?;
    Some((image.parse().ok()?, at.to_utc()))
}

pub(super) fn ms(time: DateTime<Utc>) -> Value {
    Value::Number(time.timestamp_millis())
}
