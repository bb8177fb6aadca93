//! The quotas of an hour: how many discards were begun in it, and how many alerts were sent.

use chrono::{DateTime, Utc};

use super::entry::json;
use super::item::{
    ALERTED, ALERTED_AS, BEGUN, Change, Condition, DISCARD, FIRST_OVER, FIRST_OVER_ALERTS, PLACE,
    Value, Write, Written, unreadable,
};
use super::lease::{Turn, busy};
use super::store::{Ledger, Store};
use crate::error::Error;
use crate::record::Record;

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

impl Ledger {
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

pub(super) fn hour(time: DateTime<Utc>) -> Hour {
    time.format("%Y-%m-%dT%H").to_string()
}
