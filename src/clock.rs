//! The current time, and random numbers. The function uses the machine's, and tests use their own.
//!
//! Only the wall clock is here. Durations and waits use tokio's clock ([`tokio::time`]), which tests can stop as well.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

use aws_smithy_async::time::TimeSource;
use chrono::{DateTime, Utc};

/// Gives the current time, and numbers that cannot be predicted.
#[derive(Clone, Copy)]
pub struct Clock {
    now: fn() -> DateTime<Utc>,
    random: fn() -> u64,
}

impl Clock {
    /// The machine's clock. It is read each time, so that it is right at once after Lambda froze the process.
    pub const SYSTEM: Clock = Clock::new(wall_clock, chance);

    /// A clock that calls these functions.
    pub const fn new(now: fn() -> DateTime<Utc>, random: fn() -> u64) -> Clock {
        Clock { now, random }
    }

    /// The current time.
    pub fn now(&self) -> DateTime<Utc> {
        (self.now)()
    }

    /// A unique token of 32 hexadecimal digits.
    pub(crate) fn token(&self) -> String {
        format!("{:016x}{:016x}", (self.random)(), (self.random)())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that asks the machine"
)]
fn wall_clock() -> DateTime<Utc> {
    Utc::now()
}

/// A random number that the operating system seeds. Two functions that start at the same moment get different numbers.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that asks the machine"
)]
fn chance() -> u64 {
    RandomState::new().hash_one(std::time::Instant::now())
}

/// The SDK uses the same clock for signatures, the expiry of credentials, and the throughput of bodies.
impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        Clock::now(self).into()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Clock({})", self.now())
    }
}
