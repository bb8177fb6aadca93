//! The guard: what every job works with. Each job has a file of its own: [`handler`] takes what Lambda hands over,
//! [`registration`] follows one image, [`evaluation`] judges and plans, [`discard`] takes an image away, [`closing`] tells
//! people and keeps the record. Beside these: [`digest`], [`audit`], [`preview`], [`self_test`] and [`settling`].

pub mod audit;
mod closing;
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

/// Stands for a time that EC2 does not tell, as that of an image that is disabled.
pub(crate) const UNKNOWN: DateTime<Utc> = DateTime::UNIX_EPOCH;

type Journal = dyn Fn(&Delivery, Line<'_>) + Send + Sync;

/// The guard: what it was told, and what it works with.
pub struct Guard {
    pub(crate) config: Config,
    pub(crate) policy: Policy,
    pub(crate) aws: Aws,
    pub(crate) ledger: Ledger,
    /// The program that reads disks, in a process of its own (see [`disk::contained`]).
    pub(crate) reader: Reader,
    pub(crate) disk_turn: tokio::sync::Mutex<()>,
    pub(crate) journal: Box<Journal>,
    pub(crate) notifier: Notifier,
    pub(crate) way_back: WayBack,
}

/// A registration that is being dealt with.
pub(crate) struct RegistrationContext<'a> {
    pub(crate) registration: &'a Registration,
    pub(crate) delivery: &'a Delivery,
    /// The right to deal with it, and what the ledger knows; or why the ledger could not be reached.
    pub(crate) lease: Result<Lease, Error>,
}

impl Guard {
    /// A guard. `reader` is a program that, started with [`disk::contained::ARGUMENT`], reads a disk: as a rule
    /// the one that runs. `journal` is given each record once, when it is complete, also that of an event that
    /// must come again; each failure; and at the end of each invocation what it did in all.
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

    /// What time it is.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.aws.clock().now()
    }

    /// A deadline by the clock on the wall.
    pub(crate) fn ends(&self, deadline: Deadline) -> DateTime<Utc> {
        self.now() + deadline.saturating_duration_since(Instant::now())
    }

    /// Tells the log why a delivery failed, with the ids of event and image as far as they are known.
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
        (self.journal)(delivery, Line::Failure(failure));
        error
    }

    /// What asks the sources of one image.
    pub(crate) fn collector(&self) -> Collector<'_> {
        Collector {
            lookups: Lookups::single(self.aws.clone()),
            policy: &self.policy,
            disk: self.policy.disk,
            reader: &self.reader,
            disk_turn: &self.disk_turn,
        }
    }

    /// The registration of an image that EC2 lists.
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

    /// The Recycle Bin rule that discarded images depend on. Disabled ones depend on none.
    pub(crate) fn recycle_bin_rule(&self) -> Option<&str> {
        let rule = self.config.recycle_bin_rule.as_deref();
        rule.filter(|_| self.policy.action != DiscardAction::Disable)
    }

    /// Gives a complete record to the journal.
    pub(crate) fn journal(&self, delivery: &Delivery, record: Record) -> Record {
        self.write(delivery, Line::Record(&record));
        record
    }

    /// Gives a line to the journal.
    pub(crate) fn write(&self, delivery: &Delivery, line: Line<'_>) {
        (self.journal)(delivery, line);
    }

    pub(crate) fn name<'a>(&'a self, registration: &'a Registration) -> ImageName<'a> {
        ImageName::new(registration, self.config.topic())
    }
}
