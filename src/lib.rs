//! ami-billing-guard checks every AMI that is registered: is it billed as what it is? If it is not, the guard discards it,
//! reversibly, and tells people how to create it correctly.
//!
//! An event takes one way through the code:
//!
//! | step | what happens | where |
//! | --- | --- | --- |
//! | event → registration | Reads what was registered, or why the event is ignored. | `event` |
//! | → observation | Asks EC2 what the image is billed as. | `ec2`, `aws` |
//! | → expectation | Works out what it should be billed as, and which source says so. | `expectation`, `policy`, `sources` |
//! | → verdict | Compares both. Pure: [`judge`]. | `verdict`, `billing` |
//! | → plan | Decides what to do, and lists every reason not to. Pure: [`fn@plan`]. | `plan` |
//! | → outcome | Reserves, tags, alerts, deregisters or disables, and looks again. | `guard::discard`, `ledger` |
//! | → record | Writes the log line, the alert and the answer. | `record`, `notify`, `telemetry` |
//!
//! [`Guard`] is what all of this works with. Each of its jobs is a file in `guard`. Beside an event's way, [`audit`] takes
//! all images of an account along it, and [`cases`] takes described ones.
//!
//! A module imports only from the floors below its own. A test reads this table, from the top floor down:
//!
//! | floor | modules | what they do |
//! | --- | --- | --- |
//! | 11 | `guard` | the jobs: handler, registration, evaluation, discard, closing, digest, audit, preview, self-test |
//! | 10 | `notify` | messages to people and programs, and who sends them |
//! | 9 | `ledger`, `findings`, `telemetry` | what is remembered, what an audit found, logs and metrics |
//! | 8 | `record`, `cases` | the account of one registration, and what fixes it; described images |
//! | 7 | `plan`, `sources`, `way_back` | the decision to discard; lineage and disk; the Recycle Bin rule |
//! | 6 | `verdict`, `aws` | the comparison; every call to AWS |
//! | 5 | `expectation`, `config` | evidence and how it ranks; settings |
//! | 4 | `policy` | the policy file |
//! | 3 | `event`, `marks` | EventBridge's events; the tags of a discard |
//! | 2 | `ec2`, `ids`, `invocation` | EC2's answers as plain values; ids; the delivery and its time |
//! | 1 | `billing`, `error`, `escape`, `clock` | platforms and billing codes; errors; text from outside; the time |

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

pub use aws::{Aws, BroughtBack, CallStats, QueueDepth, RuleStatus, classify};
pub use clock::Clock;
pub use error::Error;
pub use guard::handler::Answer;
pub use guard::{Guard, audit, declaration, self_test};
pub use invocation::{Deadline, Delivery};
pub use plan::plan;
pub use verdict::judge;
