//! What time it is here: the machine's, or on a thread whose time is virtual, one that goes as tokio's does there.

use std::cell::Cell;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

thread_local! {
    /// What time it was, and when that was, on a thread whose time is virtual.
    static BEGUN: Cell<Option<(DateTime<Utc>, Instant)>> = const { Cell::new(None) };
}

/// What time it is.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that asks the machine"
)]
pub fn now() -> DateTime<Utc> {
    match BEGUN.get() {
        Some((time, begun)) => {
            let passed = TimeDelta::from_std(begun.elapsed()).unwrap_or(TimeDelta::MAX);
            time + passed
        }
        None => Utc::now(),
    }
}

/// On this thread it is this time, and goes on as tokio's time does: in the runtime of this thread, and only there.
pub fn set(time: DateTime<Utc>) {
    BEGUN.set(Some((time, Instant::now())));
}

/// On this thread it is what it is on the machine.
pub fn reset() {
    BEGUN.set(None);
}

/// Whether this thread's time is virtual.
pub fn is_virtual() -> bool {
    BEGUN.get().is_some()
}
