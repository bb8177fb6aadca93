//! An item of the ledger: its attributes, and what is written to it on which conditions.

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
/// Says that the set of discards was emptied by the guard: without this, a set that is missing is lost.
pub(super) const EMPTIED: &str = "emptied";
pub(super) const HELD: &str = "held";
/// How many alerts of held images an hour has sent, and the image whose alert was the first over the number.
pub(super) const ALERTED: &str = "alerted";
pub(super) const FIRST_OVER_ALERTS: &str = "first_over_alerts";
/// The hour among whose alerts an image's last alert is counted, and what it said.
pub(super) const ALERTED_AS: &str = "alerted_as";
/// Set while the next digest is to report what was found last.
pub(super) const WAITS: &str = "waits";
pub(super) const SINCE: &str = "since_ms";
/// Of the list of all images, in pages of the size that it has now: for another list it is another name.
pub(super) const CURSOR: &str = "cursor";
/// The images that a sweep began to deal with, and did not end.
pub(super) const BEGUN_WITH: &str = "begun_with";
/// Those with which it came to an end, until people are told of it.
pub(super) const ENDED_WITH: &str = "ended_with";
pub(super) const EXPIRES: &str = "expires";

/// An attribute of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// A set of texts, never empty.
    Set(BTreeSet<String>),
    /// Something that the guard never writes: another type, or a number that it cannot hold.
    Foreign,
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

/// An item, by the names of its attributes.
pub(crate) type Item = BTreeMap<String, Value>;

/// What an item must be for a write to take effect.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    /// It has no such attribute.
    Absent(&'static str),
    /// The attribute is this.
    Is(&'static str, Value),
    /// The attribute is a number below this.
    Below(&'static str, i64),
    /// The attribute is a number from this to that, both included.
    Within(&'static str, i64, i64),
    /// There is no such item at all.
    NoItem,
}

/// What a write does to an item.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Sets an attribute.
    Set(&'static str, Value),
    /// Takes an attribute away.
    Remove(&'static str),
    /// Adds to a number, that is 0 where there is none.
    Add(&'static str, i64),
    /// Puts a text into a set.
    Include(&'static str, String),
    /// Takes texts, one at least, out of a set.
    Exclude(&'static str, BTreeSet<String>),
}

impl Change {
    /// The attribute that it changes.
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

/// A write to one item, that comes to be by it if it is not there.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// The item.
    pub(crate) id: String,
    /// It takes effect if any of these holds, or if there are none.
    pub(crate) if_any: Vec<Condition>,
    /// What it does.
    pub(crate) changes: Vec<Change>,
}

/// What became of one write, or of two that take effect together or not at all.
#[derive(Clone, Debug)]
pub(crate) enum Written {
    /// It took effect. After a single write: the item as it is now.
    Yes(Item),
    /// The condition of this write (0 is the first) did not hold.
    No(usize),
    /// Another writer was at it.
    Contended,
}

/// Where an image's items are: its account and Region.
pub(super) fn of_place(account: &str, region: &str) -> String {
    format!("{account}#{region}")
}

/// The id of an image's item.
pub(crate) fn item_of(registration: &Registration) -> String {
    let place = of_place(registration.account.as_str(), &registration.region);
    format!("{place}#{}", registration.image_id)
}

/// The texts of a set, none if there is none.
///
/// # Errors
/// [`Error::NotPossible`] if it is not a set.
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

/// An item of the ledger is not as the guard writes it. No later try reads more.
pub(super) fn unreadable(id: &str, what: &str) -> Error {
    Error::NotPossible {
        resource: format!("the ledger's item {id}"),
        code: "UnreadableItem",
        message: what.to_owned(),
    }
}

/// An image and a time of it, as sets have them.
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
