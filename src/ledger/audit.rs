//! What the ledger keeps of sweeps: where the next one goes on, and what it has to end.

use chrono::{DateTime, Utc};

use super::item::{
    BEGUN_WITH, CURSOR, Change, Condition, ENDED_WITH, Item, SINCE, TOLD_AT, TURN, TURN_UNTIL,
    Value, Write, dated, ms, of_place, read_dated,
};
use super::store::Ledger;
use crate::error::Error;
use crate::escape::quoted;
use crate::event::Sweep;
use crate::ids::AmiId;
use crate::plan::CLOCKS_DIFFER;

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

impl Ledger {
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
