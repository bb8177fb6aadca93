//! What time it is, and chance: the machine's in the function, a test's in tests.
//!
//! Only the wall clock is here. How long something takes, and how long somebody waits, is tokio's to say
//! ([`tokio::time`]), which tests can stop as well.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

use aws_smithy_async::time::TimeSource;
use chrono::{DateTime, Utc};

/// Says what time it is, and gives numbers that nobody can foretell.
#[derive(Clone, Copy)]
pub struct Clock {
    now: fn() -> DateTime<Utc>,
    random: fn() -> u64,
}

impl Clock {
    /// The machine's. It is asked anew each time, so that it is right at once after Lambda froze the process.
    pub const SYSTEM: Clock = Clock::new(wall_clock, chance);

    /// A clock that asks these.
    pub const fn new(now: fn() -> DateTime<Utc>, random: fn() -> u64) -> Clock {
        Clock { now, random }
    }

    /// What time it is.
    pub fn now(&self) -> DateTime<Utc> {
        (self.now)()
    }

    /// A token that nobody else has: 32 hexadecimal digits.
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

/// Of the operating system's making: two functions that start at the same moment have different numbers.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that asks the machine"
)]
fn chance() -> u64 {
    RandomState::new().hash_one(std::time::Instant::now())
}

/// The SDK asks the same clock: for signatures, the expiry of credentials, and how fast bodies come.
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
