//! The ledger: what the guard has already done about an image, and how many discards it began this hour.
//!
//! It makes duplicate events, and two triggers for one image, harmless. It makes the hourly limit on discards exact
//! across all concurrent invocations. It distinguishes an image that was restored from one that was never discarded.
//! The ledger is never a source of truth about an image, because only EC2 is.
//!
//! Each image has one item. The invocation that processes the image holds its lease. Every write to the item is
//! conditional on that lease. Other items hold:
//!
//! - the number of discards of an hour
//! - the number of alerts of an hour
//! - the discards of images that were registered from the same source
//! - the images that wait for the next digest
//! - where the next audit continues, and what it has to finish

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

use crate::error::Error;
use crate::escape::quoted;
use crate::ids::AmiId;
use crate::plan::CLOCKS_DIFFER;
use crate::record::stored::StoredRecord;
use crate::record::{Outcome, Record};
use crate::verdict::Verdict;
pub(crate) use audit::AuditLease;
pub(crate) use entry::Discard;
use entry::{Entry, json};
pub(crate) use item::item_of;
use item::{
    ATTEMPTED_AT, COMPLETED, Change, DISCARD, DISCARDS, DOUBTED, EMPTIED, HELD, RECORD, TOLD,
    TOLD_AT, TURN_UNTIL, Value, WAITS, Write, Written, dated, ms, of_place, read_dated, texts,
    unreadable,
};
pub(crate) use lease::Lease;
use lease::busy;
pub(crate) use quota::{Hour, Reservation};
pub(crate) use store::Ledger;

/// What the ledger notes about a discard that is about to be carried out.
#[derive(Debug)]
pub(crate) struct Note<'a> {
    /// What the image was registered from: its root snapshot, or its bundle in S3.
    pub(crate) source: Option<&'a str>,
    /// When the discard was announced.
    pub(crate) at: DateTime<Utc>,
}

/// Notification state that the ledger keeps about an image.
#[derive(Clone, Debug)]
pub(crate) enum NotificationState {
    /// An alert with this deduplication key was sent just now.
    Now(String),
    /// The next digest reports the image, with this deduplication key.
    InDigest(String),
    /// No new alert was needed. The earlier state stays.
    AsBefore,
    /// Nothing was sent that suppresses a later alert. The earlier state is removed.
    Nothing,
}

impl Ledger {
    /// Ends a lease and leaves the image, with this record, to the next digest. Writes both items or neither.
    ///
    /// # Errors
    /// [`Error`] if the ledger cannot be reached or has no room for more. [`Error::Busy`] if another invocation has the
    /// lease or writes at the same time.
    pub(crate) async fn leave_to_digest(
        &self,
        lease: &Lease,
        record: &Record,
    ) -> Result<(), Error> {
        let told = NotificationState::InDigest(record.dedup_key());
        let end = self.of_lease(lease, closing(lease, record, told, self.clock.now()));
        let held = Write {
            id: held_in(&lease.place),
            if_any: Vec::new(),
            changes: vec![Change::Include(HELD, waiting_in(lease))],
        };
        match self.write_both([end, held]).await? {
            Written::Yes(_) => {
                lease.ended.store(true, Ordering::Relaxed);
                Ok(())
            }
            Written::No(_) | Written::Contended => Err(busy(&lease.image)),
        }
    }

    /// Notes that the guard is about to discard the image. From here on the image may be gone. If it exists later, it
    /// may have been restored. An image that is registered later from the same source may be the discarded one,
    /// registered again.
    ///
    /// # Errors
    /// [`Error`] if the note could not be written. The caller must then not discard the image.
    pub(crate) async fn record_attempt(
        &self,
        lease: &Lease,
        note: &Note<'_>,
        record: &Record,
    ) -> Result<(), Error> {
        if let Some(write) = of_source(
            lease,
            note,
            Change::Include(DISCARDS, dated(note.at, &lease.image)),
        ) {
            self.write(write).await?;
        }
        self.in_lease(
            lease,
            vec![
                Change::Set(ATTEMPTED_AT, ms(note.at)),
                Change::Set(DISCARD, json(record)),
                Change::Remove(DOUBTED),
                // A second mark, so that the loss of one attribute does not hide the discard.
                Change::Set(COMPLETED, Value::Number(0)),
            ],
        )
        .await
    }

    /// Notes the result of a discard that did not succeed.
    ///
    /// If `stands`, the image was seen to exist afterwards. The attempt is then removed, because a later disappearance
    /// is not the guard's doing. Otherwise the attempt stays, with a note that an alert said that it may have
    /// failed.
    ///
    /// # Errors
    /// [`Error`] if the note could not be written. The image then counts as one that may have been discarded.
    pub(crate) async fn mark_uncertain(
        &self,
        lease: &Lease,
        note: &Note<'_>,
        stands: bool,
    ) -> Result<(), Error> {
        if !stands {
            let changes = vec![Change::Set(DOUBTED, Value::Number(1))];
            return self.in_lease(lease, changes).await;
        }
        let own = [dated(note.at, &lease.image)].into();
        if let Some(mut write) = of_source(lease, note, Change::Exclude(DISCARDS, own)) {
            write.changes.push(Change::Set(EMPTIED, Value::Number(1)));
            self.write(write).await?;
        }
        let changes = vec![Change::Remove(ATTEMPTED_AT), Change::Remove(COMPLETED)];
        self.in_lease(lease, changes).await
    }

    /// Time of the first certain or possible discard of an image that was registered from the same source. Ignores the
    /// image to which the lease belongs.
    ///
    /// # Errors
    /// [`Error`] if the ledger cannot be reached. [`Error::NotPossible`] if its item cannot be read.
    pub(crate) async fn first_discard_of(
        &self,
        lease: &Lease,
        source: &str,
    ) -> Result<Option<DateTime<Utc>>, Error> {
        let id = format!("{}#{source}", lease.place);
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
                Some((image, _)) if image == lease.image => {}
                Some((_, at)) => first = Some(first.map_or(at, |first| at.min(first))),
                None => {
                    let what = format!(
                        "discards has {}. Accepted: a time and an AMI id",
                        quoted(text)
                    );
                    return Err(unreadable(&id, &what));
                }
            }
        }
        Ok(first)
    }

    /// Ends a lease. Stores the record, the notification state and the result of a discard.
    ///
    /// # Errors
    /// [`Error`] if this could not be written. The lease then ends when its time is over.
    pub(crate) async fn end(
        &self,
        lease: &Lease,
        record: &Record,
        told: NotificationState,
    ) -> Result<(), Error> {
        lease.ended.store(true, Ordering::Relaxed);
        self.in_lease(lease, closing(lease, record, told, self.clock.now()))
            .await
    }

    /// The images that wait for the next digest, each with the notes by which they were left to it.
    ///
    /// # Errors
    /// [`Error`] if the ledger cannot be reached. [`Error::NotPossible`] if its item cannot be read.
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

    /// What the ledger knows about an image that waits for the next digest.
    ///
    /// # Errors
    /// [`Error`] if the ledger cannot be reached.
    pub(crate) async fn entry(
        &self,
        account: &str,
        region: &str,
        image: &str,
    ) -> Result<Entry, Error> {
        let id = format!("{}#{image}", of_place(account, region));
        Ok(Entry::read(&self.store.read(&id).await?, self.clock.now()))
    }

    /// Removes the notes of images that a digest has reported. There must be at least one note. An image that was left
    /// to the digest meanwhile has another note, and waits for the next digest.
    ///
    /// # Errors
    /// [`Error`] if this could not be written. The next digest then reports the images again.
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

    /// The last records of these images, by image. Leaves out images without a record. A record that cannot be read
    /// becomes the default value, because the image is known nevertheless.
    ///
    /// # Errors
    /// [`Error`] if the ledger cannot be reached.
    pub(crate) async fn last_records<T: From<StoredRecord> + Default>(
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
                Value::Text(record) => StoredRecord::read(record).map(T::from).unwrap_or_default(),
                Value::Number(_) | Value::Set(_) | Value::Foreign => T::default(),
            };
            Some(((*images.get(id)?).clone(), record))
        });
        Ok(records.collect())
    }
}

/// Id of the item with the images that wait for a digest.
fn held_in(place: &str) -> String {
    format!("{HELD}#{place}")
}

/// The changes that end a lease. An unreadable attribute stays as it is. It may be the only sign of a discard, and a
/// later version may be able to read it.
fn closing(
    lease: &Lease,
    record: &Record,
    told: NotificationState,
    now: DateTime<Utc>,
) -> Vec<Change> {
    let mut changes = vec![
        Change::Set(RECORD, json(record)),
        Change::Set(TURN_UNTIL, Value::Number(0)),
    ];
    match told {
        NotificationState::Now(dedup_key) => changes.extend([
            Change::Set(TOLD, Value::Text(dedup_key)),
            Change::Set(TOLD_AT, ms(now)),
            Change::Remove(WAITS),
        ]),
        NotificationState::InDigest(dedup_key) => changes.extend([
            Change::Set(TOLD, Value::Text(dedup_key)),
            Change::Set(TOLD_AT, ms(now)),
            Change::Set(WAITS, Value::Number(1)),
        ]),
        NotificationState::AsBefore => {}
        NotificationState::Nothing => changes.extend([
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
        // If the image was already gone, the record from before the discard says more.
        if record.verdict != Verdict::Gone {
            changes.push(Change::Set(DISCARD, json(record)));
        }
    }
    changes.retain(|change| !lease.entry.unreadable.contains_key(change.name()));
    changes
}

/// A write to the item of the source that an image was registered from. `None` if the source is unknown.
fn of_source(lease: &Lease, note: &Note<'_>, change: Change) -> Option<Write> {
    Some(Write {
        id: format!("{}#{}", lease.place, note.source?),
        if_any: Vec::new(),
        changes: vec![change],
    })
}

/// The note by which the holder of a lease leaves an image to the digest.
fn waiting_in(lease: &Lease) -> String {
    format!("{} {}", lease.image, lease.token)
}
