//! Storage of the ledger's items, in memory or in a table, and the writes to it.

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
use crate::invocation::Backoff;

/// Total time to wait for other invocations that write the same item.
const CONTENTION: Duration = Duration::from_secs(3);

/// Where the items are stored.
#[derive(Debug)]
pub(super) enum Store {
    Memory(Memory),
    Table(Table),
}

/// What the guard remembers from one event to the next.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(super) store: Store,
    pub(super) keep: TimeDelta,
    pub(super) clock: Clock,
}

impl Ledger {
    /// A ledger in a DynamoDB table. Its items are kept for `keep` after their last write.
    pub(crate) fn in_table(aws: &Aws, name: &str, keep: TimeDelta, clock: Clock) -> Ledger {
        let store = Store::Table(Table::of(aws, name));
        Ledger { store, keep, clock }
    }

    /// A ledger in memory, which ends with the process.
    pub(crate) fn in_memory(clock: Clock) -> Ledger {
        Ledger {
            store: Store::Memory(Memory::default()),
            keep: TimeDelta::days(1),
            clock,
        }
    }

    /// How long an item is kept after its last write.
    pub(crate) fn keep(&self) -> TimeDelta {
        self.keep
    }

    /// Checks that the ledger can be read and written. The write takes no effect, because its condition never holds.
    ///
    /// # Errors
    /// [`Error`] if it cannot be read or written.
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

    /// Writes one item. `None` if its condition does not hold.
    pub(super) async fn write(&self, write: Write) -> Result<Option<Item>, Error> {
        let id = write.id.clone();
        let write = self.lasting(write);
        match self.retry(|| self.store.write(write.clone())).await? {
            Written::Yes(item) => Ok(Some(item)),
            Written::No(_) => Ok(None),
            Written::Contended => Err(Error::Busy { what: id }),
        }
    }

    /// Writes two items, both or neither. All attempts share a token, so that a write that adds takes effect once.
    pub(super) async fn write_both(&self, writes: [Write; 2]) -> Result<Written, Error> {
        let both = writes.map(|write| self.lasting(write));
        let token = self.clock.token();
        self.retry(|| self.store.write_both(both.clone(), &token))
            .await
    }

    /// Adds the new expiry time to a write. Every write postpones the expiry of its item.
    fn lasting(&self, mut write: Write) -> Write {
        let expires = (self.clock.now() + self.keep).timestamp();
        write
            .changes
            .push(Change::Set(EXPIRES, Value::Number(expires)));
        write
    }

    /// Retries a write that loses to concurrent writes, with jittered back-off for at most [`CONTENTION`].
    async fn retry<F: Future<Output = Result<Written, Error>>>(
        &self,
        mut write: impl FnMut() -> F,
    ) -> Result<Written, Error> {
        let until = Instant::now() + CONTENTION;
        let mut backoff = Backoff::new(Duration::from_millis(30), Duration::from_millis(450));
        loop {
            // Boxed because the SDK's futures are large.
            match Box::pin(write()).await? {
                Written::Contended if backoff.pause_until(until).await => {}
                written => return Ok(written),
            }
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
