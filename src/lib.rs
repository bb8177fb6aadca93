//! ami-billing-guard: every AMI that is registered gets the question "does it bill for what it is?"
//! answered; one that does not is discarded, reversibly, and people are told how to make it right.
//!
//! One way through the house, a module a room:
//!
//! | step | what it is | where |
//! | --- | --- | --- |
//! | event → registration | what was registered, or why the event is ignored | [`event`] |
//! | → observation | what EC2 says it bills | [`ec2`] |
//! | → expectation | what it should bill, and who says so | [`expectation`], [`policy`], [`sources`] |
//! | → verdict | [`judge`]: pure | [`verdict`], [`billing`] |
//! | → plan | [`fn@plan`]: pure; every reason not to discard | [`mod@plan`] |
//! | → outcome | reserve, tag, alert, deregister or disable, look again | `procedure`, `ledger`, `way_back` |
//! | → record | log line, alert and answer | [`record`], `notify`, [`telemetry`] |
//!
//! Beside the way: [`sweep`] takes all images of an account along it, [`cases`] described ones; `settling` hides the
//! message of an image that is too young; `clock` says what time it is. Below all of it: [`ids`], [`escape`] (text from
//! outside), [`marks`] (the tags of a discard) and `invocation` (how an event came, and the time there is).
//!
//! [`Guard`] is that way in code. `aws` alone knows the SDK; [`billing`] knows nobody.

mod aws;
pub mod billing;
pub mod cases;
mod clock;
pub mod config;
pub mod ec2;
mod error;
pub mod escape;
pub mod event;
pub mod expectation;
mod findings;
mod guard;
pub mod ids;
mod invocation;
mod ledger;
pub mod marks;
mod notify;
pub mod plan;
pub mod policy;
pub mod record;
pub mod sources;
pub mod telemetry;
pub mod verdict;
mod way_back;

pub use aws::{Aws, BroughtBack, Tally};
pub use clock::Clock;
pub use error::Error;
pub use guard::handler::Answer;
pub use guard::{Guard, audit, self_test};
pub use invocation::{Deadline, Delivery};
pub use plan::plan;
pub use verdict::judge;
