//! The guard, and what all its jobs share. The main jobs are:
//!
//! - [`handler`] takes the input from Lambda.
//! - [`registration`] processes one image.
//! - [`evaluation`] judges an image and plans what to do.
//! - [`discard`] discards an image.
//! - [`closing`] sends the alert and stores the record.
//!
//! The others are [`digest`], [`audit`], [`declaration`], [`preview`], [`self_test`] and [`settling`].

pub mod audit;
mod closing;
pub mod declaration;
mod digest;
mod discard;
mod evaluation;
pub(crate) mod handler;
mod preview;
mod registration;
pub mod self_test;
mod settling;

use chrono::{DateTime, TimeDelta, Utc};
use disk::contained::Reader;
use tokio::time::Instant;

use crate::aws::{Aws, ImageName};
use crate::config::Config;
use crate::error::Error;
use crate::event::Registration;
use crate::ids::{AccountId, AmiId};
use crate::invocation::{Deadline, Delivery};
use crate::ledger::{Lease, Ledger};
use crate::notify::Notifier;
use crate::policy::{DiscardAction, Policy};
use crate::record::Record;
use crate::sources::Collector;
use crate::sources::batch::Lookups;
use crate::telemetry::{Failure, Line};
use crate::way_back::WayBack;

/// Placeholder for an unknown creation time, for example that of a disabled image.
pub(crate) const UNKNOWN: DateTime<Utc> = DateTime::UNIX_EPOCH;

type Journal = dyn Fn(&Delivery, Line<'_>) + Send + Sync;

/// The guard, with its settings and everything that it works with.
pub struct Guard {
    pub(crate) config: Config,
    pub(crate) policy: Policy,
    pub(crate) aws: Aws,
    pub(crate) ledger: Ledger,
    /// Program that reads disks in a separate process (see [`disk::contained`]).
    pub(crate) reader: Reader,
    pub(crate) disk_turn: tokio::sync::Mutex<()>,
    journal: Box<Journal>,
    pub(crate) notifier: Notifier,
    pub(crate) way_back: WayBack,
}

/// A registration that is being processed.
pub(crate) struct RegistrationContext<'a> {
    pub(crate) registration: &'a Registration,
    pub(crate) delivery: &'a Delivery,
    /// Lease of the image, with what the ledger knows about it. The error says why the ledger could not be reached.
    pub(crate) lease: Result<Lease, Error>,
}

impl Guard {
    /// URL or file name of the runbook, to which alerts refer.
    pub(crate) fn runbook(&self) -> Option<&str> {
        self.config.runbook_url.as_deref()
    }

    /// Creates a guard.
    ///
    /// `reader` is a program that reads a disk when it is started with [`disk::contained::ARGUMENT`]. It is usually the
    /// running program itself.
    ///
    /// `journal` receives each complete record once, including that of an event that must be delivered again. It also
    /// receives each failure, the result of each audit, and each invocation's call statistics at the end.
    pub fn new(
        config: Config,
        policy: Policy,
        aws: Aws,
        reader: Reader,
        journal: impl Fn(&Delivery, Line<'_>) + Send + Sync + 'static,
    ) -> Guard {
        let clock = aws.clock();
        let ledger = match &config.ledger_table {
            Some(name) => {
                let keep = TimeDelta::days(config.ledger_days.into());
                Ledger::in_table(&aws, name, keep, clock)
            }
            None => Ledger::in_memory(clock),
        };
        let notifier = Notifier::new(&config, aws.clone());
        Guard {
            config,
            policy,
            aws,
            ledger,
            notifier,
            reader,
            disk_turn: tokio::sync::Mutex::default(),
            journal: Box::new(journal),
            way_back: WayBack::default(),
        }
    }

    /// The current time.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.aws.clock().now()
    }

    /// Wall-clock time of a deadline.
    pub(crate) fn ends(&self, deadline: Deadline) -> DateTime<Utc> {
        self.now() + deadline.saturating_duration_since(Instant::now())
    }

    /// Logs why a delivery failed, with the ids of the event and the image if they are known. Returns the error.
    pub(crate) fn failed(
        &self,
        delivery: &Delivery,
        event_id: Option<&str>,
        image_id: Option<&str>,
        error: Error,
    ) -> Error {
        let failure = Failure {
            event_id,
            image_id,
            error_type: error.error_type(),
            message: &error.with_retry(),
            needs_a_person: error.needs_a_person(),
        };
        self.write(delivery, Line::Failure(failure));
        error
    }

    /// Collector that queries the sources about one image.
    pub(crate) fn collector(&self) -> Collector<'_> {
        Collector {
            lookups: Lookups::single(self.aws.clone()),
            policy: &self.policy,
            disk: self.policy.disk,
            reader: &self.reader,
            disk_turn: &self.disk_turn,
        }
    }

    /// Registration of an image that EC2 lists. Without `created`, its time is [`UNKNOWN`].
    pub(crate) fn listed(
        &self,
        id: AmiId,
        account: &AccountId,
        created: Option<DateTime<Utc>>,
    ) -> Registration {
        let region = self.aws.region().unwrap_or_default();
        let time = created.unwrap_or(UNKNOWN);
        Registration::without_event(id, account.clone(), region, "audit", time)
    }

    /// Id of the Recycle Bin rule on which discarded images depend. `None` if none is configured, or if the policy
    /// disables images, because these do not depend on a rule.
    pub(crate) fn recycle_bin_rule(&self) -> Option<&str> {
        let rule = self.config.recycle_bin_rule.as_deref();
        rule.filter(|_| self.policy.action != DiscardAction::Disable)
    }

    /// Writes a complete record to the journal, and returns it.
    pub(crate) fn journal(&self, delivery: &Delivery, record: Record) -> Record {
        self.write(delivery, Line::Record(&record));
        record
    }

    /// Writes a line to the journal.
    pub(crate) fn write(&self, delivery: &Delivery, line: Line<'_>) {
        (self.journal)(delivery, line);
    }

    pub(crate) fn name<'a>(&'a self, registration: &'a Registration) -> ImageName<'a> {
        ImageName::new(registration, self.config.topic())
    }
}
