//! What the ledger knows of an image: its item, read with care, and what follows from it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Deserialize;

use super::item::{
    ALERTED_AS, ATTEMPTED_AT, COMPLETED, DISCARD, DOUBTED, Item, PLACE, RECORD, TOLD, TOLD_AT,
    Value, WAITS,
};
use crate::escape::quoted;
use crate::expectation::Source;
use crate::plan::{Action, CLOCKS_DIFFER, History};
use crate::record::{Record, Refusal, SCHEMA};
use crate::verdict::Verdict;

/// The largest record that the ledger keeps, in bytes. An item has two of them, and must stay below 400 kB (DynamoDB
/// Developer Guide, "Quotas").
const LARGEST_RECORD: usize = 180_000;

/// No guard ran before: a time that is earlier is wrong. 2020-01-01, in milliseconds.
const EARLIEST_MS: i64 = 1_577_836_800_000;

/// For so long people are not told the same again of an image.
const REMEMBERED: TimeDelta = TimeDelta::hours(24);

/// For so long a discard that EC2 refused is not tried again: a duplicate of its event comes sooner (the queue brings it
/// back after six minutes), and somebody who mended what made EC2 refuse it, and sends the event again, later.
const REFUSED: TimeDelta = TimeDelta::minutes(10);

/// Two events of an image that tell of times less apart are of the same registration.
const ONE_REGISTRATION: TimeDelta = TimeDelta::hours(1);

/// What the ledger knows of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When a discard was attempted that was carried out, or may have been: nothing since has shown that the
    /// image stood through it.
    pub(crate) attempted: Option<DateTime<Utc>>,
    /// Whether the item has marks of such a discard, but no time of it that can be read.
    pub(crate) undated: bool,
    /// The attributes that cannot be read, and what is wrong with each. Nothing is discarded while there are any, and
    /// they are left as they are.
    pub(super) unreadable: BTreeMap<&'static str, String>,
    /// The last discard that was begun.
    pub(crate) discard: Option<Discard>,
    /// The hour in whose number of discards it is counted.
    pub(super) place: OnceLock<String>,
    /// The hour in whose number of alerts its last alert is counted, and what that said.
    pub(super) alerted_as: Option<String>,
    /// Whether the next digest is to report what was found last.
    pub(super) waits: bool,
    /// What people were told last, and when.
    pub(super) told: Option<(String, DateTime<Utc>)>,
    /// The last record: JSON, which few ask for.
    pub(super) last: Option<String>,
}

/// A discard that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Discard {
    /// Whether the guard saw it through to the end.
    pub(crate) completed: bool,
    /// Whether people were told that it may not have succeeded.
    pub(crate) doubted: bool,
    /// Its record, as JSON, with all that is needed to rebuild the image.
    pub(crate) record: serde_json::Value,
}

impl Discard {
    /// Whether it was to deregister the image, or to disable it.
    pub(crate) fn deed(&self) -> Action {
        match self.record.get("action").and_then(|action| action.as_str()) {
            Some("disable") => Action::Disable,
            _ => Action::Deregister,
        }
    }
}

/// What the ledger itself reads of a record.
#[derive(Deserialize)]
struct Head {
    schema: u32,
    outcome: Option<String>,
}

/// Reads the attributes of an item. What is not as the guard writes it is noted, never taken for absent.
struct Reader<'a> {
    item: &'a Item,
    now: DateTime<Utc>,
    unreadable: BTreeMap<&'static str, String>,
}

impl Reader<'_> {
    /// Notes that an attribute is not what is accepted.
    fn wrong(&mut self, name: &'static str, accepted: &str) {
        let found = match self.item.get(name) {
            None => "missing".to_owned(),
            Some(Value::Text(text)) => quoted(text),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Set(_)) => "a set of texts".to_owned(),
            Some(Value::Foreign) => "of a type or size that the guard does not write".to_owned(),
        };
        let why = format!("{name} is {found}; accepted is {accepted}");
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

    /// Whether a flag is set; `None` if there is none that can be read.
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

    /// A record of a schema that this version knows, and whether it is that of a discard that was done.
    fn record(&mut self, name: &'static str) -> Option<(String, bool)> {
        let text = self.text(name)?;
        match serde_json::from_str::<Head>(&text) {
            Ok(head) if head.schema <= SCHEMA => {
                Some((text, head.outcome.as_deref() == Some("done")))
            }
            _ => {
                let accepted = format!("a record of schema {SCHEMA} or earlier, as JSON");
                self.wrong(name, &accepted);
                None
            }
        }
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
        // Neither has a part in a discard.
        let alerted_as = match item.get(ALERTED_AS) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let waits = item.contains_key(WAITS);
        let (discard, last) = (reader.record(DISCARD), reader.record(RECORD));
        // The note of a discard has its time and `completed`: one of the two says enough.
        let has = |name: &str| item.contains_key(name);
        let is_done =
            |record: &Option<(String, bool)>| record.as_ref().is_some_and(|(_, done)| *done);
        let marks = has(COMPLETED) || has(DOUBTED) || is_done(&discard) || is_done(&last);
        if marks && !has(ATTEMPTED_AT) {
            reader.wrong(
                ATTEMPTED_AT,
                "the time of the discard, of which the item has other marks",
            );
        }
        let discard = discard.and_then(|(record, _)| serde_json::from_str(&record).ok());
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
            last: last.map(|(record, _)| record),
        }
    }

    /// What a plan looks at.
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

    /// What of the item cannot be read, if anything.
    fn unreadable(&self) -> Option<String> {
        let all: Vec<&str> = self.unreadable.values().map(String::as_str).collect();
        Some(all.join("; ")).filter(|all| !all.is_empty())
    }

    /// The verdict, and why, by which another event of the same registration, that said who registered the image,
    /// has shown that nothing is wrong with it: `exempt`, or `verified` by what says the same now.
    pub(crate) fn cleared(&self, record: &Record) -> Option<(Verdict, String)> {
        let last = self.last()?;
        let text = |key: &str| last.get(key)?.as_str();
        let verdict = match text("verdict")? {
            "exempt" => Verdict::Exempt,
            "verified" => Verdict::Verified,
            _ => return None,
        };
        text("registered_by")?;
        let at = DateTime::parse_from_rfc3339(text("registered_at")?).ok()?;
        let apart = (at.to_utc() - record.registered_at?).abs();
        let said = last.get("evidence").and_then(serde_json::Value::as_array)?;
        // A rule of the policy may have asked who it was; of all others, nobody says anything new.
        let news = record.evidence.iter().any(|statement| {
            let now = serde_json::json!(statement);
            let same = |then: &serde_json::Value| {
                then.get("source") == now.get("source") && then.get("says") == now.get("says")
            };
            statement.source != Source::Policy
                && statement.state == "spoke"
                && !said.iter().any(same)
        });
        let same = apart < ONE_REGISTRATION
            && last.get("actual") == Some(&serde_json::json!(record.actual))
            && (verdict == Verdict::Exempt || !news);
        same.then(|| (verdict, text("reason").unwrap_or_default().to_owned()))
    }

    /// Why EC2 refused the last discard, if it did.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        Refusal::deserialize(self.last()?.get("refusal")?).ok()
    }

    /// The last record, as JSON.
    pub(crate) fn last(&self) -> Option<serde_json::Value> {
        serde_json::from_str(self.last.as_ref()?).ok()
    }

    /// The last record, if the next digest is to report it: one that needs a person, and that no alert has reported.
    pub(crate) fn for_digest(&self) -> Option<serde_json::Value> {
        let last = self.last()?;
        let is = |key: &str, wanted: &[&str]| {
            let word = last.get(key).and_then(serde_json::Value::as_str);
            word.is_some_and(|word| wanted.contains(&word))
        };
        let held_by = last.get("held_by").and_then(serde_json::Value::as_array);
        let by_limit = held_by.is_some_and(|held_by| held_by.iter().any(|it| it == "limit"));
        let waits = by_limit || (self.waits && is("action", &["hold", "alert"]));
        waits.then_some(last)
    }

    /// The discard whose end the guard did not see.
    pub(crate) fn unfinished(&self) -> Option<&Discard> {
        let discard = self.discard.as_ref();
        discard.filter(|discard| self.may_have_been_discarded() && !discard.completed)
    }

    /// Whether people were told a short while ago that this is wrong with the image, whatever was done about it.
    pub(crate) fn is_known(&self, record: &Record, now: DateTime<Utc>) -> bool {
        self.told
            .as_ref()
            .is_some_and(|(gist, at)| record.is_about_the_same(gist) && now - at < REMEMBERED)
    }

    /// Whether EC2 refused this very discard a short while ago, and people were told: a discard that was done or
    /// failed is not kept as told.
    pub(crate) fn was_refused(&self, planned: &Record, now: DateTime<Utc>) -> bool {
        let gist = planned.gist();
        self.told
            .as_ref()
            .is_some_and(|(told, at)| *told == gist && now - at < REFUSED)
    }

    /// Whether people were told just this of the image a short while ago.
    pub(crate) fn was_told(&self, gist: &str, now: DateTime<Utc>) -> bool {
        self.told
            .as_ref()
            .is_some_and(|(told, at)| told == gist && now - at < REMEMBERED)
    }
}

/// A record as the ledger keeps it. If it is too large, what is only for people is left out, which the log has.
pub(super) fn json(record: &Record) -> Value {
    let whole = serde_json::json!(record).to_string();
    if whole.len() <= LARGEST_RECORD {
        return Value::Text(whole);
    }
    let mut brief = record.clone();
    let cut = "left out because the record is too large for the ledger: see the log";
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
