//! Hourly limits: how many discards were begun in an hour, and how many alerts were sent.

use chrono::{DateTime, Utc};

use super::entry::json;
use super::item::{
    ALERTED, ALERTED_AS, BEGUN, Change, Condition, DISCARD, FIRST_OVER, FIRST_OVER_ALERTS, PLACE,
    Value, Write, Written, unreadable,
};
use super::lease::{Lease, busy};
use super::store::{Ledger, Store};
use crate::error::Error;
use crate::record::Record;

/// Whether a discard or an alert is within the limit of its hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reservation {
    /// It is counted within the limit, and may go on.
    Kept,
    /// The limit of this hour is reached.
    Full(Hour),
}

/// An hour (UTC), such as `2026-11-23T22`.
pub(crate) type Hour = String;

impl Ledger {
    /// Counts a discard in the hour of `now`, if fewer than `most` are counted. Also stores its record so far, with
    /// everything that is needed to rebuild the image. A discard that is retried in the same hour is counted once.
    ///
    /// # Errors
    /// [`Error`] if the ledger cannot be reached, its counter cannot be read, or other invocations write to it for too
    /// long.
    pub(crate) async fn reserve(
        &self,
        lease: &Lease,
        most: u32,
        record: &Record,
        now: DateTime<Utc>,
    ) -> Result<Reservation, Error> {
        let hour = hour(now);
        if most == 0 {
            return Ok(Reservation::Full(hour));
        }
        if lease.entry.place.get() == Some(&hour) {
            return Ok(Reservation::Kept);
        }
        let place = self.of_lease(
            lease,
            vec![
                Change::Set(PLACE, hour.as_str().into()),
                Change::Set(DISCARD, json(record)),
            ],
        );
        // An existing counter is at least one. A counter without such a number is damaged.
        let mut free = vec![Condition::NoItem];
        if most > 1 {
            free.push(Condition::Within(BEGUN, 1, i64::from(most) - 1));
        }
        let count = Write {
            id: of_hour(&lease.place, &hour),
            if_any: free,
            changes: vec![Change::Add(BEGUN, 1)],
        };
        let counter = count.id.clone();
        match self.write_both([place, count]).await? {
            Written::Yes(_) => {
                lease.entry.place.set(hour).ok();
                Ok(Reservation::Kept)
            }
            Written::No(0) => Err(busy(&lease.image)),
            Written::No(_) => match self.store.read(&counter).await?.get(BEGUN) {
                Some(Value::Number(begun)) if *begun >= most.into() => Ok(Reservation::Full(hour)),
                _ => Err(unreadable(
                    &counter,
                    "begun is not the number of discards of the hour",
                )),
            },
            Written::Contended => Err(Error::Busy {
                what: format!("the number of discards in {hour}"),
            }),
        }
    }

    /// Whether this image is the first one over the hour's limit of discards. Repeated calls give the same answer.
    ///
    /// # Errors
    /// [`Error`] if the ledger cannot be reached.
    pub(crate) async fn is_first_over_limit(
        &self,
        lease: &Lease,
        hour: &Hour,
    ) -> Result<bool, Error> {
        self.is_first(lease, hour, FIRST_OVER).await
    }

    /// Whether this image's alert is the first one over the hour's limit of alerts. Repeated calls give the same
    /// answer.
    ///
    /// # Errors
    /// [`Error`] if the ledger cannot be reached.
    pub(crate) async fn is_first_over_alerts(
        &self,
        lease: &Lease,
        hour: &Hour,
    ) -> Result<bool, Error> {
        self.is_first(lease, hour, FIRST_OVER_ALERTS).await
    }

    async fn is_first(
        &self,
        lease: &Lease,
        hour: &Hour,
        attribute: &'static str,
    ) -> Result<bool, Error> {
        let written = self.write(Write {
            id: alerts_of_hour(&lease.place, hour),
            if_any: vec![
                Condition::Absent(attribute),
                Condition::Is(attribute, lease.image.as_str().into()),
            ],
            changes: vec![Change::Set(attribute, lease.image.as_str().into())],
        });
        Ok(written.await?.is_some())
    }

    /// Counts an alert that announces no discard in the hour of `now`, if fewer than `most` are counted. The same alert
    /// that is retried in the same hour is counted once. A ledger in memory counts none, because a digest may never
    /// reach its process. Every alert is then sent at once.
    ///
    /// # Errors
    /// [`Error`] if the ledger cannot be reached, or other invocations write to it for too long.
    pub(crate) async fn reserve_alert(
        &self,
        lease: &Lease,
        most: u32,
        dedup_key: &str,
        now: DateTime<Utc>,
    ) -> Result<Reservation, Error> {
        if matches!(self.store, Store::Memory(_)) {
            return Ok(Reservation::Kept);
        }
        let hour = hour(now);
        if most == 0 {
            return Ok(Reservation::Full(hour));
        }
        let alerted_as = format!("{hour} {dedup_key}");
        if lease.entry.alerted_as.as_ref() == Some(&alerted_as) {
            return Ok(Reservation::Kept);
        }
        let changes = vec![Change::Set(ALERTED_AS, Value::Text(alerted_as))];
        let count = Write {
            id: alerts_of_hour(&lease.place, &hour),
            if_any: vec![
                Condition::Absent(ALERTED),
                Condition::Below(ALERTED, most.into()),
            ],
            changes: vec![Change::Add(ALERTED, 1)],
        };
        let alert = self.of_lease(lease, changes);
        match self.write_both([alert, count]).await? {
            Written::Yes(_) => Ok(Reservation::Kept),
            Written::No(0) => Err(busy(&lease.image)),
            Written::No(_) => Ok(Reservation::Full(hour)),
            Written::Contended => Err(Error::Busy {
                what: format!("the number of alerts in {hour}"),
            }),
        }
    }
}

/// Id of the item that counts an hour's discards.
fn of_hour(place: &str, hour: &Hour) -> String {
    format!("hour#{place}#{hour}")
}

/// Id of the item about an hour's alerts. It has their number, and for each limit the image that was reported as the
/// first one over it. It is separate from the counter of discards, which counts as damaged without a number.
fn alerts_of_hour(place: &str, hour: &Hour) -> String {
    format!("alerts#{place}#{hour}")
}

pub(super) fn hour(time: DateTime<Utc>) -> Hour {
    time.format("%Y-%m-%dT%H").to_string()
}
