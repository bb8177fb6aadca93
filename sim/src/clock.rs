//! The simulator's clock. It follows the machine's clock, or tokio's clock on a thread with virtual time.

use std::cell::Cell;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

thread_local! {
    /// On a thread with virtual time, the time at which it was set, and tokio's instant then.
    static BEGUN: Cell<Option<(DateTime<Utc>, Instant)>> = const { Cell::new(None) };
}

/// The current time.
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

/// Makes this thread's time virtual, from this time on. It advances with tokio's clock, in the runtime of this thread
/// only.
pub fn set(time: DateTime<Utc>) {
    BEGUN.set(Some((time, Instant::now())));
}

/// Returns this thread to the machine's time.
pub fn reset() {
    BEGUN.set(None);
}

/// Whether this thread's time is virtual.
pub fn is_virtual() -> bool {
    BEGUN.get().is_some()
}
