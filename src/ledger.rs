//! The ledger: what was done about an image already, and how many discards were begun this hour.
//!
//! It makes the same event twice, and two triggers of one image, harmless; it makes the limit on discards
//! exact over all concurrent invocations; and it tells an image that somebody brought back from one that
//! was never discarded. It is a memory, never a source of truth about an image: that is EC2 alone.
//!
//! An image has one item. Whoever deals with the image has its turn, and all that is written meanwhile is
//! written on condition that the turn still is one's own. Three more kinds of items count an hour's discards,
//! collect what is to be told of in the next digest, and say where the next sweep goes on and what it has to end.

mod audit;
mod dynamodb;
mod entry;
mod item;
mod lease;
mod memory;
mod quota;
mod store;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::escape::quoted;
use crate::ids::AmiId;
use crate::plan::CLOCKS_DIFFER;
use crate::record::{Outcome, Record};
use crate::verdict::Verdict;
pub(crate) use audit::SweepTurn;
pub(crate) use entry::Discard;
use entry::{Entry, json};
pub(crate) use item::item_of;
use item::{
    ATTEMPTED_AT, COMPLETED, Change, DISCARD, DISCARDS, DOUBTED, EMPTIED, HELD, RECORD, TOLD,
    TOLD_AT, TURN_UNTIL, Value, WAITS, Write, Written, dated, ms, of_place, read_dated, texts,
    unreadable,
};
pub(crate) use lease::Turn;
use lease::busy;
pub(crate) use quota::{Hour, Place};
pub(crate) use store::Ledger;

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

impl Ledger {
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
}

/// The item of the images that wait for a digest.
fn held_in(place: &str) -> String {
    format!("{HELD}#{place}")
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

/// The note by which an image is left to the digest in a turn.
fn waiting_in(turn: &Turn) -> String {
    format!("{} {}", turn.image, turn.token)
}
