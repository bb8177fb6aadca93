//! What the ledger knows about an image: its item, read defensively, and the conclusions from it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use super::item::{
    ALERTED_AS, ATTEMPTED_AT, COMPLETED, DISCARD, DOUBTED, Item, PLACE, RECORD, TOLD, TOLD_AT,
    Value, WAITS,
};
use crate::escape::quoted;
use crate::expectation::Source;
use crate::plan::{Action, CLOCKS_DIFFER, History};
use crate::record::stored::{StoredRecord, StoredStatement};
use crate::record::{Record, Refusal, SCHEMA};
use crate::verdict::Verdict;

/// Largest record that the ledger stores, in bytes. An item has two records, and must stay below 400 kB (DynamoDB
/// Developer Guide, "Quotas").
const LARGEST_RECORD: usize = 180_000;

/// Earliest valid time, because no guard ran before: 2020-01-01, in milliseconds.
const EARLIEST_MS: i64 = 1_577_836_800_000;

/// How long an identical alert for the same image is suppressed.
const REMEMBERED: TimeDelta = TimeDelta::hours(24);

/// How long a discard that EC2 refused is not attempted again. A duplicate of its event arrives sooner, because the
/// queue returns it after six minutes. A person who fixes the cause and sends the event again takes longer.
const REFUSED: TimeDelta = TimeDelta::minutes(10);

/// Two events of an image are of the same registration if their times are less than this apart.
const ONE_REGISTRATION: TimeDelta = TimeDelta::hours(1);

/// What the ledger knows about an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When a discard was attempted that was carried out, or may have been. Since then, nothing has shown that the
    /// image survived it.
    pub(crate) attempted: Option<DateTime<Utc>>,
    /// Whether the item has signs of such a discard, but no readable time.
    pub(crate) undated: bool,
    /// Attributes that cannot be read, each with what is wrong. While there are any, the guard discards nothing and
    /// leaves them as they are.
    pub(super) unreadable: BTreeMap<&'static str, String>,
    /// The last discard that was begun.
    pub(crate) discard: Option<Discard>,
    /// The hour in whose number of discards the image is counted.
    pub(super) place: OnceLock<String>,
    /// The hour in whose number of alerts the last alert is counted, followed by that alert's deduplication key.
    pub(super) alerted_as: Option<String>,
    /// Whether the next digest must report the last finding.
    pub(super) waits: bool,
    /// Deduplication key of the last alert, and when it was sent.
    pub(super) told: Option<(String, DateTime<Utc>)>,
    /// The last record.
    pub(crate) last: Option<StoredRecord>,
}

/// A discard that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Discard {
    /// Whether the guard saw the discard completed.
    pub(crate) completed: bool,
    /// Whether an alert said that the discard may have failed.
    pub(crate) doubted: bool,
    /// The discard's record, with everything that is needed to rebuild the image.
    pub(crate) record: StoredRecord,
}

impl Discard {
    /// The action that was begun: to deregister the image, or to disable it.
    pub(crate) fn action(&self) -> Action {
        match self.record.action.as_deref() {
            Some("disable") => Action::Disable,
            _ => Action::Deregister,
        }
    }
}

/// Reads the attributes of an item. An attribute that is not as the guard writes it is noted. It never counts as
/// absent.
struct Reader<'a> {
    item: &'a Item,
    now: DateTime<Utc>,
    unreadable: BTreeMap<&'static str, String>,
}

impl Reader<'_> {
    /// Notes that an attribute does not have an accepted value.
    fn wrong(&mut self, name: &'static str, accepted: &str) {
        let found = match self.item.get(name) {
            None => "missing".to_owned(),
            Some(Value::Text(text)) => quoted(text),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Set(_)) => "a set of texts".to_owned(),
            Some(Value::Foreign) => "of a type or size that the guard does not write".to_owned(),
        };
        let why = format!("{name} is {found}. Accepted: {accepted}");
        self.unreadable.insert(name, why);
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        match self.item.get(name) {
            None => None,
            Some(Value::Text(text)) if !text.is_empty() => Some(text.clone()),
            Some(_) => {
                self.wrong(name, "a text");
                None
            }
        }
    }

    fn time(&mut self, name: &'static str) -> Option<DateTime<Utc>> {
        let latest = (self.now + CLOCKS_DIFFER).timestamp_millis();
        match self.item.get(name) {
            None => None,
            Some(Value::Number(ms)) if (EARLIEST_MS..=latest).contains(ms) => {
                DateTime::from_timestamp_millis(*ms)
            }
            Some(_) => {
                let now = self.now.to_rfc3339_opts(SecondsFormat::Secs, true);
                let accepted = format!(
                    "a time in milliseconds since 1970, not in the future (this function's clock says {now})"
                );
                self.wrong(name, &accepted);
                None
            }
        }
    }

    /// Whether a flag is set. `None` if there is no readable flag.
    fn flag(&mut self, name: &'static str) -> Option<bool> {
        match self.item.get(name) {
            None => None,
            Some(Value::Number(0)) => Some(false),
            Some(Value::Number(1)) => Some(true),
            Some(_) => {
                self.wrong(name, "0 or 1");
                None
            }
        }
    }

    /// A record of a schema that this version knows.
    fn record(&mut self, name: &'static str) -> Option<StoredRecord> {
        let record = StoredRecord::read(&self.text(name)?);
        if record.is_none() {
            let accepted = format!("a record of schema {SCHEMA} or earlier, as JSON");
            self.wrong(name, &accepted);
        }
        record
    }
}

impl Entry {
    pub(super) fn read(item: &Item, now: DateTime<Utc>) -> Entry {
        let mut reader = Reader {
            item,
            now,
            unreadable: BTreeMap::new(),
        };
        let (attempted, told_at) = (reader.time(ATTEMPTED_AT), reader.time(TOLD_AT));
        let (completed, doubted) = (reader.flag(COMPLETED), reader.flag(DOUBTED));
        let (place, told) = (reader.text(PLACE), reader.text(TOLD));
        // Neither of these affects a discard.
        let alerted_as = match item.get(ALERTED_AS) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let waits = item.contains_key(WAITS);
        let (discard, last) = (reader.record(DISCARD), reader.record(RECORD));
        // A noted discard has both its time and `completed`. Either one is enough to detect it.
        let has = |name: &str| item.contains_key(name);
        let is_done = |record: &StoredRecord| record.outcome.as_deref() == Some("done");
        let marks = has(COMPLETED)
            || has(DOUBTED)
            || discard.as_ref().is_some_and(is_done)
            || last.as_ref().is_some_and(is_done);
        if marks && !has(ATTEMPTED_AT) {
            reader.wrong(
                ATTEMPTED_AT,
                "the time of the discard that other attributes show",
            );
        }
        Entry {
            attempted,
            undated: attempted.is_none() && (marks || has(ATTEMPTED_AT)),
            unreadable: reader.unreadable,
            discard: discard.map(|record| Discard {
                completed: completed == Some(true),
                doubted: doubted == Some(true),
                record,
            }),
            place: place.map(OnceLock::from).unwrap_or_default(),
            alerted_as,
            waits,
            told: told.zip(told_at),
            last,
        }
    }

    /// The part of the entry that a plan depends on.
    pub(crate) fn history(&self) -> History {
        History {
            attempted: self.may_have_been_discarded(),
            begun: self.place.get().is_some(),
            unreadable: self.unreadable(),
        }
    }

    /// Whether the image was discarded, or may have been.
    fn may_have_been_discarded(&self) -> bool {
        self.attempted.is_some() || self.undated
    }

    /// What cannot be read in the item. `None` if all of it can be read.
    fn unreadable(&self) -> Option<String> {
        let all: Vec<&str> = self.unreadable.values().map(String::as_str).collect();
        Some(all.join("; ")).filter(|all| !all.is_empty())
    }

    /// The verdict and reason by which another event of the same registration cleared this image. That event named who
    /// registered the image. Its verdict was `exempt`, or `verified` by sources that say the same now.
    pub(crate) fn cleared(&self, record: &Record) -> Option<(Verdict, String)> {
        let last = self.last.as_ref()?;
        let verdict = match last.verdict.as_deref()? {
            "exempt" => Verdict::Exempt,
            "verified" => Verdict::Verified,
            _ => return None,
        };
        last.registered_by.as_ref()?;
        let at = DateTime::parse_from_rfc3339(last.registered_at.as_ref()?).ok()?;
        let apart = (at.to_utc() - record.registered_at?).abs();
        if last.unreadable.contains(&"evidence") || last.unreadable.contains(&"actual") {
            return None;
        }
        // A policy rule may depend on who registered the image. No other source may say anything new.
        let news = record.evidence.iter().any(|statement| {
            let same = |then: &StoredStatement| {
                then.source == statement.source.name() && then.says == statement.says
            };
            statement.source != Source::Policy
                && statement.state == "found"
                && !last.evidence.iter().any(same)
        });
        let same = apart < ONE_REGISTRATION
            && last.actual == record.actual
            && (verdict == Verdict::Exempt || !news);
        same.then(|| (verdict, last.reason.clone().unwrap_or_default()))
    }

    /// Why EC2 refused the last discard, if it did.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.last.as_ref()?.refusal
    }

    /// The last record, if the next digest must report it. Such a record needs a person, and no alert has reported it.
    pub(crate) fn for_digest(&self) -> Option<&StoredRecord> {
        self.last.as_ref().filter(|last| {
            let needs_a_person = matches!(last.action.as_deref(), Some("hold" | "alert"));
            // An extra line is better than an image that is never reported.
            let in_doubt = ["held_by", "action"]
                .iter()
                .any(|it| last.unreadable.contains(it));
            last.is_held_by("limit") || (self.waits && needs_a_person) || in_doubt
        })
    }

    /// The discard that the guard has not seen completed.
    pub(crate) fn unfinished(&self) -> Option<&Discard> {
        let discard = self.discard.as_ref();
        discard.filter(|discard| self.may_have_been_discarded() && !discard.completed)
    }

    /// Whether an alert less than [`REMEMBERED`] ago reported the same fault of the image, whatever was done about it.
    pub(crate) fn is_known(&self, record: &Record, now: DateTime<Utc>) -> bool {
        self.told.as_ref().is_some_and(|(dedup_key, at)| {
            record.is_about_the_same(dedup_key) && now - at < REMEMBERED
        })
    }

    /// Whether EC2 refused this very discard less than [`REFUSED`] ago, and an alert said so. The ledger does not keep the
    /// deduplication key of a discard that was completed or failed.
    pub(crate) fn was_refused(&self, planned: &Record, now: DateTime<Utc>) -> bool {
        let dedup_key = planned.dedup_key();
        self.told
            .as_ref()
            .is_some_and(|(told, at)| *told == dedup_key && now - at < REFUSED)
    }

    /// Whether an alert with exactly this deduplication key was sent for the image less than [`REMEMBERED`] ago.
    pub(crate) fn was_told(&self, dedup_key: &str, now: DateTime<Utc>) -> bool {
        self.told
            .as_ref()
            .is_some_and(|(told, at)| told == dedup_key && now - at < REMEMBERED)
    }
}

/// A record in the form that the ledger stores. If it is too large, parts that only people read are left out. The log
/// has them.
pub(super) fn json(record: &Record) -> Value {
    let whole = serde_json::json!(record).to_string();
    if whole.len() <= LARGEST_RECORD {
        return Value::Text(whole);
    }
    let mut brief = record.clone();
    let cut = "left out, because the record is too large for the ledger. See the log";
    brief.fix = vec![cut.to_owned()];
    brief.references.truncate(1);
    for text in brief.error.iter_mut().chain(&mut brief.before) {
        *text = text.chars().take(1_000).collect();
    }
    for statement in &mut brief.evidence {
        statement.detail = statement.detail.chars().take(1_000).collect();
    }
    Value::Text(serde_json::json!(brief).to_string())
}
