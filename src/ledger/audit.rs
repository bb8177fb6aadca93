//! What the ledger keeps about audits: where the next one continues, and what it has to finish.

use chrono::{DateTime, Utc};

use super::item::{
    BEGUN_WITH, CURSOR, Change, Condition, ENDED_WITH, Item, SINCE, TOLD_AT, TURN, TURN_UNTIL,
    Value, Write, dated, ms, of_place, read_dated,
};
use super::store::Ledger;
use crate::error::Error;
use crate::escape::quoted;
use crate::event::Audit;
use crate::ids::AmiId;
use crate::plan::CLOCKS_DIFFER;

/// Lease for auditing an account's images. One invocation has it at a time.
#[derive(Debug)]
pub(crate) struct AuditLease {
    id: String,
    token: String,
    /// When the first audit began. The guard should have received an event for every image that was registered since
    /// then.
    pub(crate) since: DateTime<Utc>,
    /// Pagination cursor at which the last audit stopped. `None` if it reached the end.
    pub(crate) cursor: Option<String>,
    /// Time of the last completed audit.
    pub(crate) last: Option<DateTime<Utc>>,
    /// Images that this audit or an earlier one began to process and did not finish, each with its registration time.
    pub(crate) begun_with: Vec<(AmiId, DateTime<Utc>)>,
    /// Images that an earlier attempt finished but did not report.
    pub(crate) ended_with: Vec<AmiId>,
}

impl Ledger {
    /// Begins an audit by taking its lease. `until` is when the invocation is over and another one may take the lease.
    ///
    /// # Errors
    /// As [`Ledger::begin`].
    pub(crate) async fn begin_audit(
        &self,
        audit: &Audit,
        until: DateTime<Utc>,
    ) -> Result<AuditLease, Error> {
        let place = of_place(audit.account.as_str(), &audit.region);
        let id = format!("audit#{place}");
        let (token, item) = match self.take_lease(&id, "the audit", until).await {
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
        // If this time were in the future, no event would ever count as missed.
        let since = time(SINCE).filter(|since| *since <= self.clock.now() + CLOCKS_DIFFER);
        let lease = AuditLease {
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
            let changes = vec![Change::Set(SINCE, ms(lease.since))];
            self.in_audit(&lease, changes).await?;
        }
        Ok(lease)
    }

    /// Notes that an audit begins to process an image. If the audit is interrupted, the next one looks at the image
    /// again, even if EC2 no longer lists it.
    ///
    /// # Errors
    /// [`Error`] if the note could not be written.
    pub(crate) async fn begin_with(
        &self,
        lease: &AuditLease,
        image: &AmiId,
        created: DateTime<Utc>,
    ) -> Result<(), Error> {
        let change = Change::Include(BEGUN_WITH, dated(created, image));
        self.in_audit(lease, vec![change]).await
    }

    /// Notes that an audit has finished an image, which it has yet to report.
    pub(crate) async fn end_with(&self, lease: &AuditLease, image: &AmiId, created: DateTime<Utc>) {
        let changes = vec![
            Change::Exclude(BEGUN_WITH, [dated(created, image)].into()),
            Change::Include(ENDED_WITH, image.to_string()),
        ];
        self.no_more_with(lease, image, changes).await;
    }

    /// Notes that an audit leaves an image that it began to process to the listing of all images.
    pub(crate) async fn leave(&self, lease: &AuditLease, image: &AmiId, created: DateTime<Utc>) {
        let change = Change::Exclude(BEGUN_WITH, [dated(created, image)].into());
        self.no_more_with(lease, image, vec![change]).await;
    }

    async fn no_more_with(&self, lease: &AuditLease, image: &AmiId, changes: Vec<Change>) {
        if let Err(error) = self.in_audit(lease, changes).await {
            tracing::warn!("the next audit examines {image} again: {error}");
        }
    }

    /// Ends an audit whose findings were reported. `cursor` is where the next one continues. `None` means at the
    /// beginning.
    ///
    /// # Errors
    /// [`Error`] if this could not be written. The findings are then reported again.
    pub(crate) async fn end_audit(
        &self,
        lease: &AuditLease,
        audit: &Audit,
        cursor: Option<&str>,
    ) -> Result<(), Error> {
        let changes = vec![
            Change::Set(TURN_UNTIL, Value::Number(0)),
            Change::Set(TOLD_AT, ms(audit.time)),
            Change::Remove(ENDED_WITH),
            match cursor {
                Some(cursor) => Change::Set(CURSOR, cursor.into()),
                None => Change::Remove(CURSOR),
            },
        ];
        self.in_audit(lease, changes).await
    }

    /// Releases the lease of an audit that did not finish, or whose findings were already reported.
    pub(crate) async fn release_audit(&self, lease: &AuditLease) {
        let changes = vec![Change::Set(TURN_UNTIL, Value::Number(0))];
        if let Err(error) = self.in_audit(lease, changes).await {
            tracing::warn!(
                "could not release the lease of the audit, which now has to expire: {error}"
            );
        }
    }

    async fn in_audit(&self, lease: &AuditLease, changes: Vec<Change>) -> Result<(), Error> {
        let written = self.write(Write {
            id: lease.id.clone(),
            if_any: vec![Condition::Is(TURN, lease.token.as_str().into())],
            changes,
        });
        match written.await? {
            Some(_) => Ok(()),
            None => Err(Error::Busy {
                what: "the audit".into(),
            }),
        }
    }
}

/// Members of a set that an audit follows up. Leaves out members that it cannot read. Such a member is not the
/// registration of an image, and the listing has all other images.
fn followed<T>(item: &Item, name: &str, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let members = match item.get(name) {
        Some(Value::Set(texts)) => texts.iter().map(|text| (text, read(text))).collect(),
        _ => Vec::new(),
    };
    let mut followed = Vec::new();
    for (text, member) in members {
        match member {
            Some(member) => followed.push(member),
            None => tracing::warn!(
                "the audit's {name} in the ledger has an unreadable member, {}",
                quoted(text)
            ),
        }
    }
    followed
}
