//! Where the ledger's items are, in memory or in a table, and how they are written.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::time::Instant;

use super::dynamodb::Table;
use super::item::{
    Change, Condition, EXPIRES, Item, RECORD, TURN, TURN_UNTIL, Value, Write, Written,
};
use super::memory::Memory;
use crate::aws::Aws;
use crate::clock::Clock;
use crate::error::Error;

/// How long is waited, in all, for other invocations that write the same item at the same time.
const CONTENTION: Duration = Duration::from_secs(3);

/// Where the items are.
#[derive(Debug)]
pub(super) enum Store {
    Memory(Memory),
    Table(Table),
}

/// The guard's memory.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(super) store: Store,
    pub(super) keep: TimeDelta,
    pub(super) clock: Clock,
}

impl Ledger {
    /// A ledger in a DynamoDB table, whose items are kept for so long after the last write.
    pub(crate) fn in_table(aws: &Aws, name: &str, keep: TimeDelta, clock: Clock) -> Ledger {
        let store = Store::Table(Table::of(aws, name));
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

    /// Writes one item. `None`: its condition does not hold.
    pub(super) async fn write(&self, write: Write) -> Result<Option<Item>, Error> {
        let id = write.id.clone();
        let write = self.lasting(write);
        match self.patiently(|| self.store.write(write.clone())).await? {
            Written::Yes(item) => Ok(Some(item)),
            Written::No(_) => Ok(None),
            Written::Contended => Err(Error::Busy { what: id }),
        }
    }

    /// Every write puts off the end of its item.
    pub(super) fn lasting(&self, mut write: Write) -> Write {
        let expires = (self.clock.now() + self.keep).timestamp();
        write
            .changes
            .push(Change::Set(EXPIRES, Value::Number(expires)));
        write
    }

    /// Writes again, for a while, as long as another writer is at it.
    pub(super) async fn patiently<F: Future<Output = Result<Written, Error>>>(
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
    pub(super) async fn write(&self, write: Write) -> Result<Written, Error> {
        match self {
            Store::Memory(memory) => Ok(memory.write(&[write])),
            Store::Table(table) => table.write(write).await,
        }
    }

    pub(super) async fn write_both(
        &self,
        writes: [Write; 2],
        token: &str,
    ) -> Result<Written, Error> {
        match self {
            Store::Memory(memory) => Ok(memory.write(&writes)),
            Store::Table(table) => table.write_both(writes, token).await,
        }
    }

    pub(super) async fn read(&self, id: &str) -> Result<Item, Error> {
        match self {
            Store::Memory(memory) => Ok(memory.read(id)),
            Store::Table(table) => table.read(id).await,
        }
    }

    pub(super) async fn read_many(
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
