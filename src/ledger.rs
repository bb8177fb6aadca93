//! The ledger: what was done about an image already, and how many discards were begun this hour.
//!
//! It makes the same event twice, and two triggers of one image, harmless; it makes the limit on discards
//! exact over all concurrent invocations; and it tells an image that somebody brought back from one that
//! was never discarded. It is a memory, never a source of truth about an image: that is EC2 alone.
//!
//! An image has one item. Whoever deals with the image has its turn, and all that is written meanwhile is
//! written on condition that the turn still is one's own. Three more kinds of items count an hour's discards,
//! collect what is to be told of in the next digest, and say where the next sweep goes on and what it has to end.

mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::aws::Table;
use crate::clock::Clock;
use crate::discard::{Action, CLOCKS_DIFFER};
use crate::error::Error;
use crate::escape::quoted;
use crate::event::{Registration, Sweep};
use crate::expectation::Source;
use crate::ids::AmiId;
use crate::record::{Outcome, Record, Refusal, SCHEMA};
use crate::verdict::Verdict;
use memory::Memory;

/// How long is waited, in all, for other invocations that write the same item at the same time.
const CONTENTION: Duration = Duration::from_secs(3);

/// A turn outlasts its invocation by this, as clocks differ.
const TURN_SLACK: TimeDelta = TimeDelta::seconds(5);

/// The longest that an invocation can last (Lambda Developer Guide, "Lambda quotas": 15 minutes), and some more, because
/// clocks differ. A lease that ends later, or whose end cannot be read, is broken.
const LONGEST_TURN: TimeDelta = TimeDelta::minutes(17);

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

const TURN: &str = "turn";
const TURN_UNTIL: &str = "turn_until_ms";
const PLACE: &str = "place";
const ATTEMPTED_AT: &str = "attempted_at_ms";
const DOUBTED: &str = "doubted";
const COMPLETED: &str = "completed";
const DISCARD: &str = "discard";
const TOLD: &str = "told";
const TOLD_AT: &str = "told_at_ms";
const RECORD: &str = "record";
const BEGUN: &str = "begun";
const FIRST_OVER: &str = "first_over";
const DISCARDS: &str = "discards";
/// Says that the set of discards was emptied by the guard: without this, a set that is missing is lost.
const EMPTIED: &str = "emptied";
const HELD: &str = "held";
/// How many alerts of held images an hour has sent, and the image whose alert was the first over the number.
const ALERTED: &str = "alerted";
const FIRST_OVER_ALERTS: &str = "first_over_alerts";
/// The hour among whose alerts an image's last alert is counted, and what it said.
const ALERTED_AS: &str = "alerted_as";
/// Set while the next digest is to report what was found last.
const WAITS: &str = "waits";
const SINCE: &str = "since_ms";
/// Of the list of all images, in pages of the size that it has now: for another list it is another name.
const CURSOR: &str = "cursor";
/// The images that a sweep began to deal with, and did not end.
const BEGUN_WITH: &str = "begun_with";
/// Those with which it came to an end, until people are told of it.
const ENDED_WITH: &str = "ended_with";
const EXPIRES: &str = "expires";

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
    fn name(&self) -> &'static str {
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

/// Where the items are.
#[derive(Debug)]
enum Store {
    Memory(Memory),
    Table(Table),
}

/// What the ledger knows of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// When a discard was attempted that was carried out, or may have been: nothing since has shown that the
    /// image stood through it.
    pub attempted: Option<DateTime<Utc>>,
    /// Whether the item has marks of such a discard, but no time of it that can be read.
    pub undated: bool,
    /// The attributes that cannot be read, and what is wrong with each. Nothing is discarded while there are any, and
    /// they are left as they are.
    unreadable: BTreeMap<&'static str, String>,
    /// The last discard that was begun.
    pub discard: Option<Discard>,
    /// The hour in whose number of discards it is counted.
    place: OnceLock<String>,
    /// The hour in whose number of alerts its last alert is counted, and what that said.
    alerted_as: Option<String>,
    /// Whether the next digest is to report what was found last.
    waits: bool,
    /// What people were told last, and when.
    told: Option<(String, DateTime<Utc>)>,
    /// The last record: JSON, which few ask for.
    last: Option<String>,
}

/// A discard that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discard {
    /// Whether the guard saw it through to the end.
    pub completed: bool,
    /// Whether people were told that it may not have succeeded.
    pub doubted: bool,
    /// Its record, as JSON, with all that is needed to rebuild the image.
    pub record: serde_json::Value,
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
    fn read(item: &Item, now: DateTime<Utc>) -> Entry {
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

    /// Whether the image was discarded, or may have been.
    pub(crate) fn may_have_been_discarded(&self) -> bool {
        self.attempted.is_some() || self.undated
    }

    /// What of the item cannot be read, if anything.
    pub(crate) fn unreadable(&self) -> Option<String> {
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

    /// Whether a discard of the image was ever begun: no image is marked before.
    pub(crate) fn was_begun(&self) -> bool {
        self.place.get().is_some()
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

/// The right to deal with an image, that one invocation has at a time.
#[derive(Debug)]
pub(crate) struct Turn {
    image: AmiId,
    place: String,
    id: String,
    token: String,
    ended: AtomicBool,
    /// What the ledger knew of the image when the turn began.
    pub(crate) entry: Entry,
}

impl Turn {
    /// Whether an alert that reports this may wait for the digest: it was not reported before, and it is neither about a
    /// discard that happens or failed nor about one whose end is not known.
    pub(crate) fn may_wait_for_digest(&self, record: &Record, now: DateTime<Utc>) -> bool {
        record.outcome.is_none()
            && self.entry.unfinished().is_none()
            && !self.entry.was_told(&record.gist(), now)
    }
}

/// The right to sweep the images of an account, that one invocation has at a time.
#[derive(Debug)]
pub(crate) struct SweepTurn {
    id: String,
    token: String,
    /// When the first sweep began: of an image that was registered since, the guard should have heard.
    pub(crate) since: DateTime<Utc>,
    /// Where the last sweep stopped; `None` if that was at the end.
    pub(crate) cursor: Option<String>,
    /// The time of the sweep that was completed last.
    pub(crate) last: Option<DateTime<Utc>>,
    /// The images that this sweep or an earlier one began to deal with, and did not end, and when each was registered.
    pub(crate) begun_with: Vec<(AmiId, DateTime<Utc>)>,
    /// The images with which an earlier attempt came to an end, and of which it told nobody.
    pub(crate) ended_with: Vec<AmiId>,
}

/// Whether a discard has a place among its hour's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It has: it may go on.
    Kept,
    /// The hour, this one, has no more.
    Full(Hour),
}

/// An hour (UTC), such as `2026-11-23T22`.
pub(crate) type Hour = String;

/// The note of a discard that is about to be carried out.
#[derive(Debug)]
pub(crate) struct Note<'a> {
    /// What the image was registered from: its root snapshot, or its bundle in S3.
    pub(crate) source: Option<&'a str>,
    /// When it was announced.
    pub(crate) at: DateTime<Utc>,
}

/// What the ledger keeps of what people were told.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// This, just now.
    Now(String),
    /// This, in the next digest.
    InDigest(String),
    /// Nothing new: they know.
    AsBefore,
    /// Nothing that need be known the next time.
    Nothing,
}

/// The guard's memory.
#[derive(Debug)]
pub(crate) struct Ledger {
    store: Store,
    keep: TimeDelta,
    clock: Clock,
}

impl Ledger {
    /// A ledger in a DynamoDB table, whose items are kept for so long after the last write.
    pub(crate) fn in_table(table: Table, keep: TimeDelta, clock: Clock) -> Ledger {
        let store = Store::Table(table);
        Ledger { store, keep, clock }
    }

    /// A ledger that ends with the process.
    pub(crate) fn in_memory(clock: Clock) -> Ledger {
        Ledger {
            store: Store::Memory(Memory::default()),
            keep: TimeDelta::days(1),
            clock,
        }
    }

    /// Begins to deal with an image. `until`: when the invocation is over, and another may take the turn.
    ///
    /// # Errors
    /// [`Error::Busy`] if another invocation has its turn; another [`Error`] if the ledger can not be
    /// reached.
    pub(crate) async fn begin(
        &self,
        registration: &Registration,
        until: DateTime<Utc>,
    ) -> Result<Turn, Error> {
        let image = registration.image_id.clone();
        let place = of_place(registration.account.as_str(), &registration.region);
        let id = format!("{place}#{image}");
        let (token, item) = self.take_turn(&id, image.as_str(), until).await?;
        Ok(Turn {
            entry: Entry::read(&item, self.clock.now()),
            image,
            place,
            id,
            token,
            ended: AtomicBool::new(false),
        })
    }

    /// Takes the turn that an item has: the token by which it is one's own, and the item.
    async fn take_turn(
        &self,
        id: &str,
        what: &str,
        until: DateTime<Utc>,
    ) -> Result<(String, Item), Error> {
        let token = self.clock.token();
        let written = self.write(Write {
            id: id.to_owned(),
            if_any: vec![
                Condition::Absent(TURN_UNTIL),
                Condition::Below(TURN_UNTIL, self.clock.now().timestamp_millis()),
                // An attempt of this very call, whose answer was lost.
                Condition::Is(TURN, token.as_str().into()),
            ],
            changes: vec![
                Change::Set(TURN, token.as_str().into()),
                Change::Set(TURN_UNTIL, ms(until + TURN_SLACK)),
            ],
        });
        match written.await? {
            // An answer without what was just written is no answer: it would forget what was done.
            Some(item) if item.get(TURN) != Some(&token.as_str().into()) => {
                Err(Error::Unavailable {
                    call: "dynamodb:UpdateItem",
                    resource: id.to_owned(),
                    message: "the answer does not have the item".into(),
                })
            }
            Some(item) => Ok((token, item)),
            None => Err(Error::Busy { what: what.into() }),
        }
    }

    /// Gives a lease that is broken an end: one whose end cannot be read, or that ends later than any invocation can
    /// last. Nothing is taken over here. The lease then ends when its holder, if there is one, is certain to have ended,
    /// and whoever asks after that has the turn. Whether it was broken.
    async fn repair_lease(&self, id: &str) -> Result<bool, Error> {
        let item = self.store.read(id).await?;
        let latest = self.clock.now() + LONGEST_TURN;
        match item.get(TURN_UNTIL) {
            None => return Ok(false),
            Some(Value::Number(until)) if *until <= latest.timestamp_millis() => return Ok(false),
            Some(_) => {}
        }
        let unchanged = match item.get(TURN) {
            None => vec![Condition::Absent(TURN)],
            Some(Value::Text(token)) => vec![Condition::Is(TURN, token.as_str().into())],
            // Of no invocation.
            Some(_) => Vec::new(),
        };
        let written = self.write(Write {
            id: id.to_owned(),
            if_any: unchanged,
            changes: vec![Change::Set(TURN_UNTIL, ms(latest))],
        });
        let repaired = written.await?.is_some();
        if repaired {
            tracing::warn!(
                "the lease of {id} in the ledger had no end that can be right: it ends at {}",
                latest.to_rfc3339_opts(SecondsFormat::Secs, true)
            );
        }
        Ok(repaired)
    }

    /// As [`Ledger::repair_lease`], of an image that another invocation seems to deal with.
    pub(crate) async fn repair_turn(&self, registration: &Registration) {
        self.try_to_repair(&item_of(registration)).await;
    }

    /// As [`Ledger::repair_lease`]. What fails is tried again when the event comes back.
    async fn try_to_repair(&self, id: &str) {
        if let Err(error) = self.repair_lease(id).await {
            tracing::warn!("whether the lease of {id} is broken is not known: {error}");
        }
    }

    /// What is known of an image, for somebody who only looks: a turn in which nothing can be written.
    ///
    /// # Errors
    /// [`Error`], if the ledger can not be reached.
    pub(crate) async fn look(&self, registration: &Registration) -> Result<Turn, Error> {
        let image = registration.image_id.clone();
        let place = of_place(registration.account.as_str(), &registration.region);
        let id = format!("{place}#{image}");
        Ok(Turn {
            entry: Entry::read(&self.store.read(&id).await?, self.clock.now()),
            image,
            place,
            id,
            // Nobody's: whatever would be written with it is refused.
            token: self.clock.token(),
            ended: AtomicBool::new(true),
        })
    }

    /// Counts a discard among the hour's of `now`, and keeps its record so far, with all that is needed to
    /// rebuild the image. A discard that is tried again in the same hour is counted once.
    ///
    /// # Errors
    /// [`Error`], if the ledger can not be reached, or others are at it for too long.
    pub(crate) async fn reserve(
        &self,
        turn: &Turn,
        most: u32,
        record: &Record,
        now: DateTime<Utc>,
    ) -> Result<Place, Error> {
        let hour = hour(now);
        if most == 0 {
            return Ok(Place::Full(hour));
        }
        if turn.entry.place.get() == Some(&hour) {
            return Ok(Place::Kept);
        }
        let place = self.of_turn(
            turn,
            vec![
                Change::Set(PLACE, hour.as_str().into()),
                Change::Set(DISCARD, json(record)),
            ],
        );
        // A counter that exists has counted one at least. One without such a number is damaged.
        let mut free = vec![Condition::NoItem];
        if most > 1 {
            free.push(Condition::Within(BEGUN, 1, i64::from(most) - 1));
        }
        let count = Write {
            id: of_hour(&turn.place, &hour),
            if_any: free,
            changes: vec![Change::Add(BEGUN, 1)],
        };
        let counter = count.id.clone();
        let both = [self.lasting(place), self.lasting(count)];
        // One for all attempts: whichever takes effect, it counts once.
        let token = self.clock.token();
        let written = self.patiently(|| self.store.write_both(both.clone(), &token));
        match written.await? {
            Written::Yes(_) => {
                turn.entry.place.set(hour).ok();
                Ok(Place::Kept)
            }
            Written::No(0) => Err(busy(&turn.image)),
            Written::No(_) => match self.store.read(&counter).await?.get(BEGUN) {
                Some(Value::Number(begun)) if *begun >= most.into() => Ok(Place::Full(hour)),
                _ => Err(unreadable(
                    &counter,
                    "begun is not the number of the hour's discards",
                )),
            },
            Written::Contended => Err(Error::Busy {
                what: format!("the limit of discards in {hour}"),
            }),
        }
    }

    /// Whether this image is the first one for which this hour had no place. Asked again, it still is.
    ///
    /// # Errors
    /// [`Error`], if the ledger can not be reached.
    pub(crate) async fn is_first_over_limit(
        &self,
        turn: &Turn,
        hour: &Hour,
    ) -> Result<bool, Error> {
        self.is_first(turn, hour, FIRST_OVER).await
    }

    /// Whether this image is the first one whose alert is over the number of this hour's alerts. Asked again, it still is.
    ///
    /// # Errors
    /// [`Error`], if the ledger cannot be reached.
    pub(crate) async fn is_first_over_alerts(
        &self,
        turn: &Turn,
        hour: &Hour,
    ) -> Result<bool, Error> {
        self.is_first(turn, hour, FIRST_OVER_ALERTS).await
    }

    async fn is_first(
        &self,
        turn: &Turn,
        hour: &Hour,
        attribute: &'static str,
    ) -> Result<bool, Error> {
        let written = self.write(Write {
            id: alerts_of_hour(&turn.place, hour),
            if_any: vec![
                Condition::Absent(attribute),
                Condition::Is(attribute, turn.image.as_str().into()),
            ],
            changes: vec![Change::Set(attribute, turn.image.as_str().into())],
        });
        Ok(written.await?.is_some())
    }

    /// Counts an alert that announces no discard among the alerts of the hour of `now`. The same alert that is tried again
    /// in the same hour is counted once. A ledger in memory counts none: a digest may never come to this process, so that
    /// every alert is sent at once.
    ///
    /// # Errors
    /// [`Error`], if the ledger cannot be reached, or if others write to it for too long.
    pub(crate) async fn reserve_alert(
        &self,
        turn: &Turn,
        most: u32,
        dedup_key: &str,
        now: DateTime<Utc>,
    ) -> Result<Place, Error> {
        if matches!(self.store, Store::Memory(_)) {
            return Ok(Place::Kept);
        }
        let hour = hour(now);
        if most == 0 {
            return Ok(Place::Full(hour));
        }
        let alerted_as = format!("{hour} {dedup_key}");
        if turn.entry.alerted_as.as_ref() == Some(&alerted_as) {
            return Ok(Place::Kept);
        }
        let changes = vec![Change::Set(ALERTED_AS, Value::Text(alerted_as))];
        let count = Write {
            id: alerts_of_hour(&turn.place, &hour),
            if_any: vec![
                Condition::Absent(ALERTED),
                Condition::Below(ALERTED, most.into()),
            ],
            changes: vec![Change::Add(ALERTED, 1)],
        };
        let both = [
            self.lasting(self.of_turn(turn, changes)),
            self.lasting(count),
        ];
        let token = self.clock.token();
        let written = self.patiently(|| self.store.write_both(both.clone(), &token));
        match written.await? {
            Written::Yes(_) => Ok(Place::Kept),
            Written::No(0) => Err(busy(&turn.image)),
            Written::No(_) => Ok(Place::Full(hour)),
            Written::Contended => Err(Error::Busy {
                what: format!("the number of alerts in {hour}"),
            }),
        }
    }

    /// Ends a turn by leaving the image, with this record, to the next digest: both or neither.
    ///
    /// # Errors
    /// [`Error`], if the ledger can not be reached, or has no room for more.
    pub(crate) async fn leave_to_digest(&self, turn: &Turn, record: &Record) -> Result<(), Error> {
        let told = Told::InDigest(record.gist());
        let both = [
            self.lasting(self.of_turn(turn, closing(turn, record, told, self.clock.now()))),
            self.lasting(Write {
                id: held_in(&turn.place),
                if_any: Vec::new(),
                changes: vec![Change::Include(HELD, waiting_in(turn))],
            }),
        ];
        let token = self.clock.token();
        let written = self.patiently(|| self.store.write_both(both.clone(), &token));
        match written.await? {
            Written::Yes(_) => {
                turn.ended.store(true, Ordering::Relaxed);
                Ok(())
            }
            Written::No(_) | Written::Contended => Err(busy(&turn.image)),
        }
    }

    /// Notes that the image is about to be discarded: from here on it may be gone, and an image that stands
    /// nevertheless may have been brought back, as may one that is registered later from the same source.
    ///
    /// # Errors
    /// [`Error`], if this could not be noted: then do not.
    pub(crate) async fn attempt(
        &self,
        turn: &Turn,
        note: &Note<'_>,
        record: &Record,
    ) -> Result<(), Error> {
        if let Some(write) = of_source(
            turn,
            note,
            Change::Include(DISCARDS, dated(note.at, &turn.image)),
        ) {
            self.write(write).await?;
        }
        self.in_turn(
            turn,
            vec![
                Change::Set(ATTEMPTED_AT, ms(note.at)),
                Change::Set(DISCARD, json(record)),
                Change::Remove(DOUBTED),
                // A second mark, so that the loss of one attribute does not hide that there was a discard.
                Change::Set(COMPLETED, Value::Number(0)),
            ],
        )
        .await
    }

    /// Notes what came of a discard that did not succeed. `stands`: the image was seen to stand after it, and
    /// whoever takes it away later, it is not the guard. Otherwise the attempt is remembered, and that people
    /// were told that it may have failed.
    ///
    /// # Errors
    /// [`Error`], if this could not be noted: the image then passes for one that may have been discarded.
    pub(crate) async fn doubt(
        &self,
        turn: &Turn,
        note: &Note<'_>,
        stands: bool,
    ) -> Result<(), Error> {
        if !stands {
            let changes = vec![Change::Set(DOUBTED, Value::Number(1))];
            return self.in_turn(turn, changes).await;
        }
        let own = [dated(note.at, &turn.image)].into();
        if let Some(mut write) = of_source(turn, note, Change::Exclude(DISCARDS, own)) {
            write.changes.push(Change::Set(EMPTIED, Value::Number(1)));
            self.write(write).await?;
        }
        let changes = vec![Change::Remove(ATTEMPTED_AT), Change::Remove(COMPLETED)];
        self.in_turn(turn, changes).await
    }

    /// When the first image was discarded, or may have been, that was registered from the same source, but for
    /// the image whose turn it is.
    ///
    /// # Errors
    /// [`Error`], if the ledger can not be reached; [`Error::NotPossible`], if what it has cannot be read.
    pub(crate) async fn first_discard_of(
        &self,
        turn: &Turn,
        source: &str,
    ) -> Result<Option<DateTime<Utc>>, Error> {
        let id = format!("{}#{source}", turn.place);
        let item = self.store.read(&id).await?;
        if !item.is_empty() && !item.contains_key(DISCARDS) && !item.contains_key(EMPTIED) {
            return Err(unreadable(&id, "discards is missing"));
        }
        let latest = self.clock.now() + CLOCKS_DIFFER;
        let mut first = None;
        for text in texts(&id, &item, DISCARDS)? {
            match read_dated(text) {
                Some((_, at)) if at > latest => {
                    let what = format!("discards has {}, which lies in the future", quoted(text));
                    return Err(unreadable(&id, &what));
                }
                Some((image, _)) if image == turn.image => {}
                Some((_, at)) => first = Some(first.map_or(at, |first| at.min(first))),
                None => {
                    let what = format!(
                        "discards has {}; accepted are a time and an AMI id",
                        quoted(text)
                    );
                    return Err(unreadable(&id, &what));
                }
            }
        }
        Ok(first)
    }

    /// Ends a turn: keeps the record, what people were told, and what came of a discard.
    ///
    /// # Errors
    /// [`Error`], if this could not be noted. The turn ends by itself.
    pub(crate) async fn end(&self, turn: &Turn, record: &Record, told: Told) -> Result<(), Error> {
        turn.ended.store(true, Ordering::Relaxed);
        self.in_turn(turn, closing(turn, record, told, self.clock.now()))
            .await
    }

    /// Ends a turn, if it has not ended, in which nothing came to an end: the event comes again.
    pub(crate) async fn give_back(&self, turn: &Turn) {
        if turn.ended.load(Ordering::Relaxed) {
            return;
        }
        let changes = vec![Change::Set(TURN_UNTIL, Value::Number(0))];
        if let Err(error) = self.in_turn(turn, changes).await {
            tracing::warn!("the turn of {} ends by itself: {error}", turn.image);
        }
    }

    /// The images that wait for the next digest, each with the notes by which they were left to it.
    ///
    /// # Errors
    /// [`Error`], if the ledger can not be reached.
    pub(crate) async fn waiting_for_digest(
        &self,
        account: &str,
        region: &str,
    ) -> Result<BTreeMap<String, BTreeSet<String>>, Error> {
        let id = held_in(&of_place(account, region));
        let item = self.store.read(&id).await?;
        let mut waiting: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for note in texts(&id, &item, HELD)? {
            let image = note.split(' ').next().unwrap_or(note);
            let notes = waiting.entry(image.to_owned()).or_default();
            notes.insert(note.to_owned());
        }
        Ok(waiting)
    }

    /// What is known of an image that waits for the next digest.
    ///
    /// # Errors
    /// [`Error`], if the ledger can not be reached.
    pub(crate) async fn entry(
        &self,
        account: &str,
        region: &str,
        image: &str,
    ) -> Result<Entry, Error> {
        let id = format!("{}#{image}", of_place(account, region));
        Ok(Entry::read(&self.store.read(&id).await?, self.clock.now()))
    }

    /// Notes that a digest told people of what was left to it by these notes, one at least. An image that was left to it
    /// meanwhile has another note, and waits for the next one.
    ///
    /// # Errors
    /// [`Error`], if this could not be noted: they are told of again.
    pub(crate) async fn digested(
        &self,
        account: &str,
        region: &str,
        notes: BTreeSet<String>,
    ) -> Result<(), Error> {
        let written = self.write(Write {
            id: held_in(&of_place(account, region)),
            if_any: Vec::new(),
            changes: vec![Change::Exclude(HELD, notes)],
        });
        written.await.map(drop)
    }

    /// Begins a sweep. `until`: when the invocation is over, and another may take the turn.
    ///
    /// # Errors
    /// As [`Ledger::begin`].
    pub(crate) async fn begin_sweep(
        &self,
        sweep: &Sweep,
        until: DateTime<Utc>,
    ) -> Result<SweepTurn, Error> {
        let place = of_place(sweep.account.as_str(), &sweep.region);
        let id = format!("sweep#{place}");
        let (token, item) = match self.take_turn(&id, "the sweep", until).await {
            Err(busy @ Error::Busy { .. }) => {
                self.try_to_repair(&id).await;
                return Err(busy);
            }
            taken => taken?,
        };
        let time = |name: &str| match item.get(name) {
            Some(Value::Number(ms)) => DateTime::from_timestamp_millis(*ms),
            _ => None,
        };
        // From a time that is yet to come on, no event would ever be missed.
        let since = time(SINCE).filter(|since| *since <= self.clock.now() + CLOCKS_DIFFER);
        let turn = SweepTurn {
            id,
            token,
            since: since.unwrap_or_else(|| self.clock.now()),
            cursor: match item.get(CURSOR) {
                Some(Value::Text(cursor)) => Some(cursor.clone()),
                _ => None,
            },
            last: time(TOLD_AT),
            begun_with: followed(&item, BEGUN_WITH, read_dated),
            ended_with: followed(&item, ENDED_WITH, |id| id.parse().ok()),
        };
        if since.is_none() {
            let changes = vec![Change::Set(SINCE, ms(turn.since))];
            self.in_sweep(&turn, changes).await?;
        }
        Ok(turn)
    }

    /// Notes that a sweep begins to deal with an image: whatever cuts it off, it is looked at again, also when EC2 lists
    /// it no more.
    ///
    /// # Errors
    /// [`Error`], if this could not be noted.
    pub(crate) async fn begin_with(
        &self,
        turn: &SweepTurn,
        image: &AmiId,
        created: DateTime<Utc>,
    ) -> Result<(), Error> {
        let change = Change::Include(BEGUN_WITH, dated(created, image));
        self.in_sweep(turn, vec![change]).await
    }

    /// Notes that a sweep came to an end with an image, of which it has yet to tell.
    pub(crate) async fn end_with(&self, turn: &SweepTurn, image: &AmiId, created: DateTime<Utc>) {
        let changes = vec![
            Change::Exclude(BEGUN_WITH, [dated(created, image)].into()),
            Change::Include(ENDED_WITH, image.to_string()),
        ];
        self.no_more_with(turn, image, changes).await;
    }

    /// Notes that a sweep leaves an image that it began to deal with to the list of all.
    pub(crate) async fn leave(&self, turn: &SweepTurn, image: &AmiId, created: DateTime<Utc>) {
        let change = Change::Exclude(BEGUN_WITH, [dated(created, image)].into());
        self.no_more_with(turn, image, vec![change]).await;
    }

    async fn no_more_with(&self, turn: &SweepTurn, image: &AmiId, changes: Vec<Change>) {
        if let Err(error) = self.in_sweep(turn, changes).await {
            tracing::warn!("the next sweep looks at {image} once more: {error}");
        }
    }

    /// Ends a sweep of which people know what they are to know. `cursor`: where the next one goes on; `None`: at the
    /// beginning.
    ///
    /// # Errors
    /// [`Error`], if this could not be noted: people are told again.
    pub(crate) async fn end_sweep(
        &self,
        turn: &SweepTurn,
        sweep: &Sweep,
        cursor: Option<&str>,
    ) -> Result<(), Error> {
        let changes = vec![
            Change::Set(TURN_UNTIL, Value::Number(0)),
            Change::Set(TOLD_AT, ms(sweep.time)),
            Change::Remove(ENDED_WITH),
            match cursor {
                Some(cursor) => Change::Set(CURSOR, cursor.into()),
                None => Change::Remove(CURSOR),
            },
        ];
        self.in_sweep(turn, changes).await
    }

    /// Ends the turn of a sweep that came to no end, or of one that was told of before.
    pub(crate) async fn give_back_sweep(&self, turn: &SweepTurn) {
        let changes = vec![Change::Set(TURN_UNTIL, Value::Number(0))];
        if let Err(error) = self.in_sweep(turn, changes).await {
            tracing::warn!("the turn of the sweep ends by itself: {error}");
        }
    }

    async fn in_sweep(&self, turn: &SweepTurn, changes: Vec<Change>) -> Result<(), Error> {
        let written = self.write(Write {
            id: turn.id.clone(),
            if_any: vec![Condition::Is(TURN, turn.token.as_str().into())],
            changes,
        });
        match written.await? {
            Some(_) => Ok(()),
            None => Err(Error::Busy {
                what: "the sweep".into(),
            }),
        }
    }

    /// The last records of these images, as far as there are any, by the images. One that can not be read is an empty
    /// one: the image is known.
    ///
    /// # Errors
    /// [`Error`], if the ledger can not be reached.
    pub(crate) async fn last_records<T: DeserializeOwned + Default>(
        &self,
        account: &str,
        region: &str,
        images: impl Iterator<Item = &AmiId>,
    ) -> Result<BTreeMap<AmiId, T>, Error> {
        let place = of_place(account, region);
        let images: BTreeMap<String, &AmiId> = images
            .map(|image| (format!("{place}#{image}"), image))
            .collect();
        let ids: Vec<String> = images.keys().cloned().collect();
        let items = self.store.read_many(&ids, RECORD).await?;
        let records = items.iter().filter_map(|(id, item)| {
            let record = match item.get(RECORD)? {
                Value::Text(record) => serde_json::from_str(record).unwrap_or_default(),
                Value::Number(_) | Value::Set(_) | Value::Foreign => T::default(),
            };
            Some(((*images.get(id)?).clone(), record))
        });
        Ok(records.collect())
    }

    /// How long an image is remembered after what was written of it last.
    pub(crate) fn keep(&self) -> TimeDelta {
        self.keep
    }

    /// Whether the ledger can be read and written. What is written takes no effect: its condition never holds.
    ///
    /// # Errors
    /// [`Error`], if it can not.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        let id = "self-test";
        self.store.read(id).await?;
        self.store.read_many(&[id.to_owned()], RECORD).await?;
        let never = Write {
            id: id.to_owned(),
            if_any: vec![Condition::Is(TURN, self.clock.token().as_str().into())],
            changes: vec![Change::Set(TURN_UNTIL, Value::Number(0))],
        };
        self.store.write(never).await.map(drop)
    }

    fn of_turn(&self, turn: &Turn, changes: Vec<Change>) -> Write {
        Write {
            id: turn.id.clone(),
            if_any: vec![Condition::Is(TURN, turn.token.as_str().into())],
            changes,
        }
    }

    async fn in_turn(&self, turn: &Turn, changes: Vec<Change>) -> Result<(), Error> {
        match self.write(self.of_turn(turn, changes)).await? {
            Some(_) => Ok(()),
            None => Err(busy(&turn.image)),
        }
    }

    /// Writes one item. `None`: its condition does not hold.
    async fn write(&self, write: Write) -> Result<Option<Item>, Error> {
        let id = write.id.clone();
        let write = self.lasting(write);
        match self.patiently(|| self.store.write(write.clone())).await? {
            Written::Yes(item) => Ok(Some(item)),
            Written::No(_) => Ok(None),
            Written::Contended => Err(Error::Busy { what: id }),
        }
    }

    /// Every write puts off the end of its item.
    fn lasting(&self, mut write: Write) -> Write {
        let expires = (self.clock.now() + self.keep).timestamp();
        write
            .changes
            .push(Change::Set(EXPIRES, Value::Number(expires)));
        write
    }

    /// Writes again, for a while, as long as another writer is at it.
    async fn patiently<F: Future<Output = Result<Written, Error>>>(
        &self,
        mut write: impl FnMut() -> F,
    ) -> Result<Written, Error> {
        let until = Instant::now() + CONTENTION;
        let mut pause = Duration::from_millis(20);
        loop {
            // Boxed: the SDK's futures are large.
            match Box::pin(write()).await? {
                Written::Contended if Instant::now() + pause < until => {}
                written => return Ok(written),
            }
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(Duration::from_millis(300));
        }
    }
}

impl Store {
    async fn write(&self, write: Write) -> Result<Written, Error> {
        match self {
            Store::Memory(memory) => Ok(memory.write(&[write])),
            Store::Table(table) => table.write(write).await,
        }
    }

    async fn write_both(&self, writes: [Write; 2], token: &str) -> Result<Written, Error> {
        match self {
            Store::Memory(memory) => Ok(memory.write(&writes)),
            Store::Table(table) => table.write_both(writes, token).await,
        }
    }

    async fn read(&self, id: &str) -> Result<Item, Error> {
        match self {
            Store::Memory(memory) => Ok(memory.read(id)),
            Store::Table(table) => table.read(id).await,
        }
    }

    async fn read_many(
        &self,
        ids: &[String],
        attribute: &str,
    ) -> Result<BTreeMap<String, Item>, Error> {
        match self {
            Store::Memory(memory) => Ok(memory.read_many(ids)),
            Store::Table(table) => table.read_many(ids, attribute).await,
        }
    }
}

/// Where an image's items are: its account and Region.
fn of_place(account: &str, region: &str) -> String {
    format!("{account}#{region}")
}

/// The id of an image's item.
pub(crate) fn item_of(registration: &Registration) -> String {
    let place = of_place(registration.account.as_str(), &registration.region);
    format!("{place}#{}", registration.image_id)
}

/// The item of the images that wait for a digest.
fn held_in(place: &str) -> String {
    format!("{HELD}#{place}")
}

/// The item of an hour's number of discards.
fn of_hour(place: &str, hour: &Hour) -> String {
    format!("hour#{place}#{hour}")
}

/// The item of what an hour's alerts report: how many there were, and of which image they said that it is the first one over
/// a limit. Not the same as the counter of discards, which is damaged if it has no number of them.
fn alerts_of_hour(place: &str, hour: &Hour) -> String {
    format!("alerts#{place}#{hour}")
}

/// What the end of a turn changes. An attribute that could not be read is left as it is: what it says may be the only
/// sign of a discard, and a later version may be able to read it.
fn closing(turn: &Turn, record: &Record, told: Told, now: DateTime<Utc>) -> Vec<Change> {
    let mut changes = vec![
        Change::Set(RECORD, json(record)),
        Change::Set(TURN_UNTIL, Value::Number(0)),
    ];
    match told {
        Told::Now(gist) => changes.extend([
            Change::Set(TOLD, Value::Text(gist)),
            Change::Set(TOLD_AT, ms(now)),
            Change::Remove(WAITS),
        ]),
        Told::InDigest(gist) => changes.extend([
            Change::Set(TOLD, Value::Text(gist)),
            Change::Set(TOLD_AT, ms(now)),
            Change::Set(WAITS, Value::Number(1)),
        ]),
        Told::AsBefore => {}
        Told::Nothing => changes.extend([
            Change::Remove(TOLD),
            Change::Remove(TOLD_AT),
            Change::Remove(WAITS),
        ]),
    }
    if record.action.is_discard() && record.outcome == Some(Outcome::Done) {
        changes.extend([
            Change::Set(COMPLETED, Value::Number(1)),
            Change::Remove(DOUBTED),
        ]);
        // Of an image that was gone already, the record from before the discard says more.
        if record.verdict != Verdict::Gone {
            changes.push(Change::Set(DISCARD, json(record)));
        }
    }
    changes.retain(|change| !turn.entry.unreadable.contains_key(change.name()));
    changes
}

/// A write to the item of what an image was registered from.
fn of_source(turn: &Turn, note: &Note<'_>, change: Change) -> Option<Write> {
    Some(Write {
        id: format!("{}#{}", turn.place, note.source?),
        if_any: Vec::new(),
        changes: vec![change],
    })
}

/// The texts of a set, none if there is none.
///
/// # Errors
/// [`Error::NotPossible`] if it is not a set.
fn texts<'a>(
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

/// The members of a set that a sweep follows up. It leaves out what it cannot read: that follows from no image's
/// registration, and the list of all images has the others.
fn followed<T>(item: &Item, name: &str, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let members = match item.get(name) {
        Some(Value::Set(texts)) => texts.iter().map(|text| (text, read(text))).collect(),
        _ => Vec::new(),
    };
    let mut followed = Vec::new();
    for (text, member) in members {
        match member {
            Some(member) => followed.push(member),
            None => tracing::warn!("the sweep's {name} in the ledger has {}", quoted(text)),
        }
    }
    followed
}

/// An item of the ledger is not as the guard writes it. No later try reads more.
fn unreadable(id: &str, what: &str) -> Error {
    Error::NotPossible {
        resource: format!("the ledger's item {id}"),
        code: "UnreadableItem",
        message: what.to_owned(),
    }
}

/// An image and a time of it, as sets have them.
fn dated(at: DateTime<Utc>, image: &AmiId) -> String {
    let at = at.to_rfc3339_opts(SecondsFormat::Millis, true);
    format!("{at} {image}")
}

fn read_dated(text: &str) -> Option<(AmiId, DateTime<Utc>)> {
    let (at, image) = text.split_once(' ')?;
    let at = DateTime::parse_from_rfc3339(at).ok()?;
    Some((image.parse().ok()?, at.to_utc()))
}

fn hour(time: DateTime<Utc>) -> Hour {
    time.format("%Y-%m-%dT%H").to_string()
}

/// The note by which an image is left to the digest in a turn.
fn waiting_in(turn: &Turn) -> String {
    format!("{} {}", turn.image, turn.token)
}

fn busy(image: &AmiId) -> Error {
    Error::Busy {
        what: image.to_string(),
    }
}

/// A record as the ledger keeps it. If it is too large, what is only for people is left out, which the log has.
fn json(record: &Record) -> Value {
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

fn ms(time: DateTime<Utc>) -> Value {
    Value::Number(time.timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::ops::Deref;

    use crate::aws::Aws;
    use crate::event::{Ignored, RegisteredBy};
    use sim::{Fault, FaultKind, Sim, World};

    const TABLE: &str = "ami-billing-guard";
    /// What time it is where the simulator is.
    const CLOCK: Clock = Clock::new(sim::clock::now, || fastrand::u64(..));

    fn registration(image: &str) -> Registration {
        Registration {
            image_id: image.parse().unwrap(),
            account: "123456789012".parse().unwrap(),
            region: "eu-west-1".into(),
            event_id: "e".into(),
            time: CLOCK.now(),
            registered_by: RegisteredBy::Unknown,
            billing_products: BTreeSet::new(),
            by_packer: false,
        }
    }

    fn image(number: u32) -> Registration {
        registration(&format!("ami-0a1b2c3d4e5f{number:05x}"))
    }

    fn soon() -> DateTime<Utc> {
        CLOCK.now() + TimeDelta::seconds(60)
    }

    /// The time of every discard here, and when virtual time begins: the real hour could end within a test.
    fn noon() -> DateTime<Utc> {
        "2026-11-23T12:00:00Z".parse().unwrap()
    }

    /// A moment from which on a turn that ends then is over.
    fn long_ago() -> DateTime<Utc> {
        CLOCK.now() - TimeDelta::seconds(60)
    }

    fn record(action: Action, outcome: Option<Outcome>) -> Record {
        let mut record = Record::ignored(Ignored {
            event_id: None,
            account: None,
            region: None,
            reason: "r".into(),
        });
        record.action = action;
        record.outcome = outcome;
        record
    }

    fn note(source: Option<&str>) -> Note<'_> {
        Note {
            source,
            at: CLOCK.now(),
        }
    }

    fn planned() -> Record {
        record(Action::Deregister, Some(Outcome::Planned))
    }

    async fn table_at(endpoint: &str) -> Ledger {
        let aws = Aws::connect_to_simulator(endpoint, "eu-west-1").await;
        Ledger::in_table(aws.table(TABLE), TimeDelta::days(365), CLOCK)
    }

    /// A simulated table, and time that is virtual for as long as it is there.
    struct Bench(Sim);

    impl Bench {
        async fn new() -> (Bench, Ledger) {
            sim::clock::set(noon());
            let sim = Sim::in_process(World::default());
            let aws = Aws::in_process(sim.client(), "eu-west-1", CLOCK).await;
            let ledger = Ledger::in_table(aws.table(TABLE), TimeDelta::days(365), CLOCK);
            (Bench(sim), ledger)
        }
    }

    impl Deref for Bench {
        type Target = Sim;

        fn deref(&self) -> &Sim {
            &self.0
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            sim::clock::reset();
        }
    }

    /// Both kinds of ledger: what holds of one holds of the other. Where the tests in Python run these, the
    /// table is moto's, and time is the machine's.
    async fn both() -> (Option<Bench>, [Ledger; 2]) {
        let (bench, table) = match std::env::var("LEDGER_TEST_ENDPOINT") {
            Ok(endpoint) => {
                tokio::time::resume();
                (None, table_at(&endpoint).await)
            }
            Err(_) => {
                let (bench, table) = Bench::new().await;
                (Some(bench), table)
            }
        };
        (bench, [table, Ledger::in_memory(CLOCK)])
    }

    async fn is_busy(ledger: &Ledger, registration: &Registration) -> bool {
        matches!(
            ledger.begin(registration, soon()).await,
            Err(Error::Busy { .. })
        )
    }

    #[tokio::test(start_paused = true)]
    async fn one_invocation_at_a_time_has_the_turn_of_an_image() {
        let (_bench, ledgers) = both().await;
        for ledger in ledgers {
            let turn = ledger.begin(&image(1), soon()).await.unwrap();
            assert!(is_busy(&ledger, &image(1)).await);
            assert!(
                !is_busy(&ledger, &image(2)).await,
                "another image's turn is another"
            );
            ledger.give_back(&turn).await;
            let turn = ledger.begin(&image(1), soon()).await.unwrap();
            let verified = record(Action::None, None);
            ledger.end(&turn, &verified, Told::Nothing).await.unwrap();
            ledger.begin(&image(1), soon()).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_nobody_ended_ends_by_itself_and_its_holder_can_write_no_more() {
        let (_bench, ledgers) = both().await;
        for ledger in ledgers {
            let late = ledger.begin(&image(1), long_ago()).await.unwrap();
            let turn = ledger.begin(&image(1), soon()).await.unwrap();
            assert!(ledger.reserve(&late, 10, &planned(), noon()).await.is_err());
            assert!(
                ledger
                    .attempt(&late, &note(None), &planned())
                    .await
                    .is_err()
            );
            assert!(ledger.doubt(&late, &note(None), true).await.is_err());
            assert!(ledger.end(&late, &planned(), Told::Nothing).await.is_err());
            ledger.give_back(&late).await;
            assert!(
                is_busy(&ledger, &image(1)).await,
                "nor give back what is another's"
            );
            ledger
                .attempt(&turn, &note(None), &planned())
                .await
                .unwrap();
        }
    }

    /// Its holder, if there is one, can do and write what it could: another one begins only when that one has ended.
    #[tokio::test(start_paused = true)]
    async fn regression_a_lease_whose_end_is_broken_ends_when_no_invocation_can_last_longer() {
        let (_bench, ledgers) = both().await;
        let year_3000 = Value::Number(32_503_680_000_000);
        let broken = [
            year_3000,
            "soon".into(),
            Value::Set(["1".to_owned()].into()),
        ];
        for ledger in ledgers {
            for (n, end) in broken.iter().enumerate() {
                let image = image(100 + n as u32);
                let id = item_of(&image);
                let turn = ledger.begin(&image, soon()).await.unwrap();
                let set = |end: Value| Write {
                    id: id.clone(),
                    if_any: Vec::new(),
                    changes: vec![Change::Set(TURN_UNTIL, end)],
                };
                ledger.write(set(end.clone())).await.unwrap();
                assert!(is_busy(&ledger, &image).await);
                let earliest = CLOCK.now() + TimeDelta::minutes(15);
                ledger.repair_turn(&image).await;
                assert!(is_busy(&ledger, &image).await, "{end:?}: two at once");
                let item = ledger.store.read(&id).await.unwrap();
                let Some(Value::Number(until)) = item.get(TURN_UNTIL) else {
                    panic!("{item:?}");
                };
                let until = DateTime::from_timestamp_millis(*until).unwrap();
                assert!(
                    until > earliest && until <= CLOCK.now() + LONGEST_TURN,
                    "{until}"
                );
                // A second look leaves it as it is.
                ledger.repair_turn(&image).await;
                assert_eq!(ledger.store.read(&id).await.unwrap(), item);
                // The holder can write, and end its turn.
                ledger.end(&turn, &planned(), Told::Nothing).await.unwrap();
                let turn = ledger.begin(&image, soon()).await.unwrap();
                // Once it is over, another has it.
                ledger.write(set(ms(long_ago()))).await.unwrap();
                ledger.begin(&image, soon()).await.unwrap();
                assert!(ledger.end(&turn, &planned(), Told::Nothing).await.is_err());
            }
            let image = image(200);
            ledger.begin(&image, soon()).await.unwrap();
            let before = ledger.store.read(&item_of(&image)).await.unwrap();
            ledger.repair_turn(&image).await;
            let after = ledger.store.read(&item_of(&image)).await.unwrap();
            assert_eq!(before, after, "a lease that is right stays");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn regression_a_counter_that_has_lost_its_number_counts_nothing() {
        let (_bench, ledgers) = both().await;
        for ledger in ledgers {
            let first = ledger.begin(&image(1), soon()).await.unwrap();
            ledger.reserve(&first, 5, &planned(), noon()).await.unwrap();
            let id = "hour#123456789012#eu-west-1#2026-11-23T12";
            for damage in [
                Change::Remove(BEGUN),
                Change::Set(BEGUN, "1".into()),
                Change::Set(BEGUN, Value::Number(0)),
                Change::Set(BEGUN, Value::Number(-9)),
                Change::Set(BEGUN, Value::Set(["1".to_owned()].into())),
            ] {
                let write = Write {
                    id: id.to_owned(),
                    if_any: Vec::new(),
                    changes: vec![damage.clone()],
                };
                ledger.write(write).await.unwrap();
                let turn = ledger.begin(&image(2), soon()).await.unwrap();
                let error = ledger.reserve(&turn, 5, &planned(), noon()).await;
                let error = error.unwrap_err().to_string();
                assert!(
                    error.contains("UnreadableItem: begun"),
                    "{damage:?}: {error}"
                );
                ledger.give_back(&turn).await;
            }
            let write = Write {
                id: id.to_owned(),
                if_any: Vec::new(),
                changes: vec![Change::Set(BEGUN, Value::Number(i64::MAX))],
            };
            ledger.write(write).await.unwrap();
            let turn = ledger.begin(&image(2), soon()).await.unwrap();
            let place = ledger.reserve(&turn, 5, &planned(), noon()).await.unwrap();
            assert_eq!(place, Place::Full(hour(noon())));
        }
    }

    /// 50 tags with keys and values as long as they can be, of characters of four bytes or such as JSON escapes, a hundred
    /// block devices, a thousand accounts that may use the image, and all sentences that are long.
    #[tokio::test(start_paused = true)]
    async fn regression_the_largest_record_that_there_can_be_fits_into_its_item() {
        let (_bench, ledgers) = both().await;
        let tag = |n: usize| {
            let (key, value) = ("\u{1f980}".repeat(125), "\u{1f980}\"".repeat(128));
            serde_json::json!({ "Key": format!("{n:03}{key}"), "Value": value })
        };
        let device = |n: usize| {
            serde_json::json!({ "DeviceName": format!("/dev/xvd{n}"), "Ebs": {
                "DeleteOnTermination": true, "SnapshotId": format!("snap-{n:017x}"), "VolumeSize": 16384,
                "VolumeType": "gp3", "Iops": 16000, "Throughput": 1000, "Encrypted": true,
            } })
        };
        let permission = |n: usize| serde_json::json!({ "UserId": format!("{n:012}") });
        let rebuild = crate::record::Rebuild {
            register_image: serde_json::json!({
                "Name": "n".repeat(128),
                "Description": "d".repeat(255),
                "BlockDeviceMappings": (0..100).map(device).collect::<Vec<_>>(),
                "TagSpecifications": [{ "ResourceType": "image", "Tags": (0..50).map(tag).collect::<Vec<_>>() }],
            }),
            launch_permissions: (0..1000).map(permission).collect(),
            deprecate_at: None,
            deregistration_protection: None,
        };
        let mut largest = planned();
        largest.rebuild = Some(rebuild.clone());
        largest.fix = vec!["'\\''".repeat(30_000), "x".repeat(100_000)];
        largest.references = vec!["arn:".repeat(500); 101];
        largest.error = Some("e".repeat(100_000));
        let done = Record {
            outcome: Some(Outcome::Done),
            ..largest.clone()
        };
        for ledger in ledgers {
            let turn = ledger.begin(&image(1), soon()).await.unwrap();
            ledger.reserve(&turn, 5, &largest, noon()).await.unwrap();
            ledger.attempt(&turn, &note(None), &largest).await.unwrap();
            ledger
                .end(&turn, &done, Told::Now("g".repeat(5_000)))
                .await
                .unwrap();
            let item = ledger.store.read(&item_of(&image(1))).await.unwrap();
            let size = |value: &Value| match value {
                Value::Text(text) => text.len(),
                _ => 21,
            };
            let bytes: usize = item
                .iter()
                .map(|(name, value)| name.len() + size(value))
                .sum();
            println!("the largest item has {bytes} bytes");
            assert!(bytes < 400 * 1024, "{bytes}");
            // All that it takes to register the image again is there.
            let turn = ledger.look(&image(1)).await.unwrap();
            let kept = turn.entry.discard.unwrap().record;
            assert_eq!(kept.get("rebuild"), Some(&serde_json::json!(rebuild)));
            assert_eq!(turn.entry.unreadable, BTreeMap::new());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_is_exact_however_many_are_at_it_at_once() {
        let (_bench, ledgers) = both().await;
        for ledger in ledgers {
            let ledger = std::sync::Arc::new(ledger);
            let mut tasks = tokio::task::JoinSet::new();
            for number in 0..60 {
                let ledger = std::sync::Arc::clone(&ledger);
                tasks.spawn(async move {
                    let turn = ledger.begin(&image(number), soon()).await.unwrap();
                    ledger.reserve(&turn, 10, &planned(), noon()).await.unwrap()
                });
            }
            let places = tasks.join_all().await;
            let kept = places.iter().filter(|place| **place == Place::Kept);
            assert_eq!(kept.count(), 10);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_discard_that_is_tried_again_takes_no_second_place() {
        let (_bench, ledgers) = both().await;
        for ledger in ledgers {
            for _ in 0..3 {
                let turn = ledger.begin(&image(1), soon()).await.unwrap();
                let place = ledger.reserve(&turn, 2, &planned(), noon()).await.unwrap();
                assert_eq!(place, Place::Kept);
                ledger.give_back(&turn).await;
            }
            for (number, place) in [(2, true), (3, false)] {
                let turn = ledger.begin(&image(number), soon()).await.unwrap();
                let given = ledger.reserve(&turn, 2, &planned(), noon()).await.unwrap();
                assert_eq!(given == Place::Kept, place);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_hour_has_places_of_its_own_and_a_discard_tried_again_takes_one_of_them() {
        let (_bench, ledgers) = both().await;
        for ledger in ledgers {
            let last_moment = noon() + TimeDelta::minutes(60) - TimeDelta::milliseconds(1);
            let next_hour = noon() + TimeDelta::minutes(60);
            let place = |number, now| {
                let ledger = &ledger;
                async move {
                    let turn = ledger.begin(&image(number), soon()).await.unwrap();
                    let place = ledger.reserve(&turn, 1, &planned(), now).await.unwrap();
                    ledger.give_back(&turn).await;
                    place
                }
            };
            let full = |hour: &str| Place::Full(hour.to_owned());
            assert_eq!(place(1, noon()).await, Place::Kept);
            assert_eq!(place(2, last_moment).await, full("2026-11-23T12"));
            assert_eq!(place(1, next_hour).await, Place::Kept);
            assert_eq!(place(2, next_hour).await, full("2026-11-23T13"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_of_nothing_lets_nothing_through() {
        let (_bench, ledgers) = both().await;
        for ledger in ledgers {
            let turn = ledger.begin(&image(1), soon()).await.unwrap();
            let place = ledger.reserve(&turn, 0, &planned(), noon()).await.unwrap();
            assert!(matches!(place, Place::Full(_)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_image_of_an_hour_is_the_first_over_the_limit_and_stays_it() {
        let (_bench, ledgers) = both().await;
        for ledger in ledgers {
            let one = ledger.begin(&image(1), soon()).await.unwrap();
            let other = ledger.begin(&image(2), soon()).await.unwrap();
            let hour = "2026-11-23T22".to_owned();
            assert!(ledger.is_first_over_limit(&one, &hour).await.unwrap());
            assert!(!ledger.is_first_over_limit(&other, &hour).await.unwrap());
            assert!(ledger.is_first_over_limit(&one, &hour).await.unwrap());
            let next = "2026-11-23T23".to_owned();
            assert!(ledger.is_first_over_limit(&other, &next).await.unwrap());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn regression_an_hour_that_began_with_a_limit_of_nothing_is_not_damaged() {
        let (_bench, ledgers) = both().await;
        for ledger in ledgers {
            let turn = ledger.begin(&image(1), soon()).await.unwrap();
            let place = ledger.reserve(&turn, 0, &planned(), noon()).await.unwrap();
            let Place::Full(hour) = place else {
                panic!("{place:?}")
            };
            assert!(ledger.is_first_over_limit(&turn, &hour).await.unwrap());
            // The policy is changed within the hour.
            for (number, place) in [(1, Place::Kept), (2, Place::Full(hour))] {
                let turn = match number {
                    1 => &turn,
                    _ => &ledger.begin(&image(number), soon()).await.unwrap(),
                };
                let given = ledger.reserve(turn, 1, &planned(), noon()).await;
                assert_eq!(given.unwrap(), place);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn regression_an_image_that_is_left_to_the_digest_while_that_is_sent_waits_for_the_next()
    {
        let place = ("123456789012", "eu-west-1");
        let (_bench, ledgers) = both().await;
        for ledger in ledgers {
            let leave = async || {
                let turn = ledger.begin(&image(1), soon()).await.unwrap();
                let held = record(Action::Hold, None);
                ledger.leave_to_digest(&turn, &held).await.unwrap();
            };
            let waiting = || async { ledger.waiting_for_digest(place.0, place.1).await.unwrap() };
            leave().await;
            let told = waiting().await.into_values().flatten().collect();
            leave().await;
            ledger.digested(place.0, place.1, told).await.unwrap();
            let id = image(1).image_id.to_string();
            assert_eq!(waiting().await.into_keys().collect::<Vec<_>>(), [id]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_image_waits_for_the_digest_once_and_until_it_was_told_of() {
        let place = ("123456789012", "eu-west-1");
        let (_bench, ledgers) = both().await;
        for ledger in ledgers {
            let waiting = || async {
                let waiting = ledger.waiting_for_digest(place.0, place.1).await.unwrap();
                waiting.into_keys().collect::<BTreeSet<String>>()
            };
            let notes_of = async |image: &str| {
                let waiting = ledger.waiting_for_digest(place.0, place.1).await.unwrap();
                waiting[image].clone()
            };
            assert!(waiting().await.is_empty());
            for number in [1, 2, 1] {
                let turn = ledger.begin(&image(number), soon()).await.unwrap();
                let held = record(Action::Hold, None);
                ledger.leave_to_digest(&turn, &held).await.unwrap();
            }
            let for_digest = async |image: &str| {
                let entry = ledger.entry(place.0, place.1, image).await.unwrap();
                entry.for_digest().map(|record| record["action"].clone())
            };
            let [one, two] = [1, 2].map(|number| image(number).image_id.to_string());
            assert_eq!(waiting().await, BTreeSet::from([one.clone(), two.clone()]));
            assert_eq!(for_digest(&one).await, Some("hold".into()));
            ledger
                .digested(place.0, place.1, notes_of(&one).await)
                .await
                .unwrap();
            assert_eq!(waiting().await, BTreeSet::from([two.clone()]));
            ledger
                .digested(place.0, place.1, notes_of(&two).await)
                .await
                .unwrap();
            assert!(waiting().await.is_empty());
            // What an alert of its own reports meanwhile, or what is right, no digest does.
            for told in [Told::Now("b".into()), Told::Nothing] {
                let held = record(Action::Hold, None);
                let turn = ledger.begin(&image(3), soon()).await.unwrap();
                ledger.leave_to_digest(&turn, &held).await.unwrap();
                let three = image(3).image_id.to_string();
                assert_eq!(for_digest(&three).await, Some("hold".into()));
                let turn = ledger.begin(&image(3), soon()).await.unwrap();
                ledger.end(&turn, &held, told).await.unwrap();
                assert_eq!(for_digest(&three).await, None);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_alert_is_counted_once_in_its_hour_and_one_has_room_for_so_many() {
        let (_bench, ledger) = Bench::new().await;
        let reserve = async |number: u32, said: &str, now| {
            let turn = ledger.begin(&image(number), soon()).await.unwrap();
            let place = ledger.reserve_alert(&turn, 2, said, now).await.unwrap();
            ledger.give_back(&turn).await;
            place
        };
        let full = Place::Full("2026-11-23T12".into());
        let later = noon() + TimeDelta::hours(1);
        for (number, said, now, place) in [
            (1, "a", noon(), &Place::Kept),
            (1, "a", noon(), &Place::Kept),
            (1, "b", noon(), &Place::Kept),
            (2, "a", noon(), &full),
            // The last alert of the image is the one that is counted.
            (1, "b", noon(), &Place::Kept),
            (2, "a", later, &Place::Kept),
            (1, "b", later, &Place::Kept),
            (3, "b", later, &Place::Full("2026-11-23T13".into())),
        ] {
            assert_eq!(reserve(number, said, now).await, *place, "{number} {said}");
        }
        let memory = Ledger::in_memory(CLOCK);
        for number in 1..=3 {
            let turn = memory.begin(&image(number), soon()).await.unwrap();
            let place = memory.reserve_alert(&turn, 0, "a", noon()).await.unwrap();
            assert_eq!(place, Place::Kept, "no digest may come");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_told_is_remembered_for_a_day_or_until_there_is_nothing_to_tell() {
        let (_bench, ledgers) = both().await;
        for ledger in ledgers {
            let hold = record(Action::Hold, None);
            let turn = ledger.begin(&image(1), soon()).await.unwrap();
            ledger
                .end(&turn, &hold, Told::Now("a".into()))
                .await
                .unwrap();
            let turn = ledger.begin(&image(1), soon()).await.unwrap();
            let told = |gist, hours| {
                let then = CLOCK.now() + TimeDelta::hours(hours);
                turn.entry.was_told(gist, then)
            };
            assert!(told("a", 0) && told("a", 23));
            assert!(!told("b", 0) && !told("a", 25));
            ledger.end(&turn, &hold, Told::AsBefore).await.unwrap();
            let turn = ledger.begin(&image(1), soon()).await.unwrap();
            assert!(turn.entry.was_told("a", CLOCK.now()));
            ledger.end(&turn, &hold, Told::Nothing).await.unwrap();
            let turn = ledger.begin(&image(1), soon()).await.unwrap();
            assert!(!turn.entry.was_told("a", CLOCK.now()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_is_remembered_unless_the_image_was_seen_to_stand_after_it() {
        let (_bench, ledgers) = both().await;
        for ledger in ledgers {
            let begin = async || ledger.begin(&image(1), soon()).await.unwrap();
            let note = note(None);
            let turn = begin().await;
            assert_eq!(turn.entry, Entry::default());
            ledger.reserve(&turn, 1, &planned(), noon()).await.unwrap();
            ledger.give_back(&turn).await;

            let turn = begin().await;
            assert!(turn.entry.was_begun());
            assert_eq!(
                (turn.entry.attempted, turn.entry.unfinished()),
                (None, None)
            );
            ledger.attempt(&turn, &note, &planned()).await.unwrap();
            ledger.give_back(&turn).await;

            let turn = begin().await;
            assert!(turn.entry.attempted.is_some());
            assert_eq!(
                turn.entry.unfinished().unwrap().record["outcome"],
                "planned"
            );
            ledger.doubt(&turn, &note, true).await.unwrap();
            ledger.give_back(&turn).await;

            let turn = begin().await;
            assert_eq!(turn.entry.attempted, None);
            assert_eq!(turn.entry.unfinished(), None);
            ledger.attempt(&turn, &note, &planned()).await.unwrap();
            ledger.doubt(&turn, &note, false).await.unwrap();
            ledger.give_back(&turn).await;

            let turn = begin().await;
            assert!(turn.entry.attempted.is_some());
            ledger.attempt(&turn, &note, &planned()).await.unwrap();
            let done = record(Action::Disable, Some(Outcome::Done));
            ledger.end(&turn, &done, Told::Nothing).await.unwrap();

            let turn = begin().await;
            assert!(turn.entry.attempted.is_some());
            assert_eq!(turn.entry.unfinished(), None);
            // What comes later does not overwrite what is known of the discard.
            let later = record(Action::None, None);
            ledger.end(&turn, &later, Told::Nothing).await.unwrap();
            let discard = begin().await.entry.discard.unwrap();
            assert_eq!(
                (discard.completed, &discard.record["outcome"]),
                (true, &"done".into())
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_discard_is_remembered_of_the_snapshot_too_for_what_is_registered_from_it_later() {
        let snapshot = "snap-0a1b2c3d4e5f60001";
        let noted = |minutes| Note {
            source: Some(snapshot),
            at: CLOCK.now() - TimeDelta::minutes(minutes),
        };
        let (_bench, ledgers) = both().await;
        for ledger in ledgers {
            let mut turns = Vec::new();
            for number in 1..=3 {
                turns.push(ledger.begin(&image(number), soon()).await.unwrap());
            }
            let [one, two, three] = turns.as_slice() else {
                unreachable!()
            };
            let discarded = async |turn| {
                let at = ledger.first_discard_of(turn, snapshot).await.unwrap();
                at.map(|at| (CLOCK.now() - at).num_minutes())
            };
            assert_eq!(discarded(three).await, None);
            let (early, late) = (noted(9), noted(5));
            ledger.attempt(two, &late, &planned()).await.unwrap();
            ledger.attempt(one, &early, &planned()).await.unwrap();
            assert_eq!(discarded(three).await, Some(9), "the first counts");
            assert_eq!(
                discarded(one).await,
                Some(5),
                "its own it knows from its entry"
            );
            // Whoever takes its own back leaves the other's.
            ledger.doubt(one, &early, true).await.unwrap();
            assert_eq!(discarded(three).await, Some(5));
            ledger.doubt(two, &late, false).await.unwrap();
            assert_eq!(discarded(three).await, Some(5), "what may be gone counts");
            ledger.doubt(two, &late, true).await.unwrap();
            assert_eq!(discarded(three).await, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_sweep_began_is_known_until_it_ended_and_was_told_of() {
        let (_bench, ledgers) = both().await;
        for ledger in ledgers {
            let sweep = Sweep {
                event_id: "e".into(),
                account: "123456789012".parse().unwrap(),
                region: "eu-west-1".into(),
                time: noon(),
            };
            let begin = async || {
                let turn = ledger.begin_sweep(&sweep, soon()).await.unwrap();
                (turn.begun_with.len(), turn.ended_with.len(), turn)
            };
            let ids = [1, 2, 3].map(|number| image(number).image_id);
            let (begun, ended, turn) = begin().await;
            assert_eq!((begun, ended, turn.last), (0, 0, None));
            for id in &ids {
                // To the nanosecond; it is kept to the millisecond.
                let created = noon() + TimeDelta::nanoseconds(1);
                ledger.begin_with(&turn, id, created).await.unwrap();
            }
            ledger.give_back_sweep(&turn).await;

            let (begun, ended, turn) = begin().await;
            assert_eq!((begun, ended), (3, 0));
            let of_first = turn.begun_with.first().unwrap();
            assert_eq!(*of_first, (ids[0].clone(), noon()));
            ledger.end_with(&turn, &ids[0], noon()).await;
            ledger.leave(&turn, &ids[1], noon()).await;
            ledger.give_back_sweep(&turn).await;

            let (begun, ended, turn) = begin().await;
            assert_eq!((begun, ended), (1, 1));
            ledger.end_with(&turn, &ids[2], noon()).await;
            ledger
                .end_sweep(&turn, &sweep, Some("there"))
                .await
                .unwrap();

            let (begun, ended, turn) = begin().await;
            assert_eq!((begun, ended, turn.last), (0, 0, Some(noon())));
            assert_eq!(turn.cursor.as_deref(), Some("there"));
            let late = ledger.begin_sweep(&sweep, soon()).await;
            assert!(late.is_err(), "one at a time");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_item_of_the_table_expires_some_day() {
        let (sim, ledger) = Bench::new().await;
        let turn = ledger.begin(&image(1), soon()).await.unwrap();
        ledger.reserve(&turn, 1, &planned(), noon()).await.unwrap();
        let hour = "2026-11-23T22".to_owned();
        ledger.is_first_over_limit(&turn, &hour).await.unwrap();
        ledger.leave_to_digest(&turn, &planned()).await.unwrap();
        ledger
            .attempt(&turn, &note(Some("snap-1")), &planned())
            .await
            .unwrap();
        let world = sim.world();
        let items = &world.tables[TABLE].items;
        assert_eq!(items.len(), 5);
        let in_a_year = (CLOCK.now() + TimeDelta::days(365)).timestamp();
        for (id, item) in items {
            let item = serde_json::json!(item);
            let expires: i64 = item["expires"]["N"].as_str().unwrap().parse().unwrap();
            assert!((in_a_year - expires).abs() < 60, "{id}: {item}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_writer_at_the_same_time_is_waited_for_and_not_for_ever() {
        let (sim, ledger) = Bench::new().await;
        for action in ["UpdateItem", "TransactWriteItems"] {
            for n in 1..=2 {
                sim.inject(Fault::nth(action, n, FaultKind::TransactionConflict));
            }
        }
        let turn = ledger.begin(&image(1), soon()).await.unwrap();
        let place = ledger.reserve(&turn, 1, &planned(), noon()).await.unwrap();
        assert_eq!(place, Place::Kept);

        let turn = ledger.begin(&image(2), soon()).await.unwrap();
        let always = Fault::always("TransactWriteItems", FaultKind::TransactionConflict);
        sim.inject(always);
        let error = ledger
            .reserve(&turn, 2, &planned(), noon())
            .await
            .unwrap_err();
        assert_eq!(error.error_type(), "Busy");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_was_lost_does_not_shut_its_own_invocation_out() {
        for fault in [FaultKind::ResetAfter, FaultKind::CutBody] {
            let (sim, ledger) = Bench::new().await;
            for action in ["UpdateItem", "TransactWriteItems"] {
                sim.inject(Fault::nth(action, 1, fault.clone()));
            }
            let turn = ledger.begin(&image(1), soon()).await.unwrap();
            let place = ledger.reserve(&turn, 1, &planned(), noon()).await.unwrap();
            assert_eq!(place, Place::Kept, "{fault:?}");
            sim.inject(Fault::nth("UpdateItem", 1, fault.clone()));
            ledger.end(&turn, &planned(), Told::Nothing).await.unwrap();
            // Counted once.
            let turn = ledger.begin(&image(2), soon()).await.unwrap();
            assert_eq!(
                ledger.reserve(&turn, 2, &planned(), noon()).await.unwrap(),
                Place::Kept
            );
        }
    }
}
