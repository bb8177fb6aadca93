//! The only module that uses the AWS SDK, apart from the ledger's DynamoDB table. It makes the calls, converts their
//! answers to the guard's own types, and decides what each SDK error means.

mod account;
mod calls;
mod connect;
mod connections;
mod convert;
mod dry_run;
mod ebs;
mod endpoints;
mod errors;
mod images;
mod interceptors;
mod origins;
mod queue;
mod recycle_bin;
mod sns;

pub use account::BroughtBack;
pub(crate) use account::{Page, retry};
pub(crate) use calls::{MOST_VALUES, SLOW};
pub use connect::Aws;
pub(crate) use convert::Described;
pub(crate) use dry_run::{ON_AN_IMAGE, Tried};
pub(crate) use ebs::{KMS, SnapshotBlocks};
pub use errors::classify;
pub(crate) use errors::{CallFailure, lacking, no_answer_in};
pub(crate) use images::{ImageName, ImagesBy};
pub use interceptors::CallStats;
pub(crate) use interceptors::TruncationCheck;
pub use queue::QueueDepth;
pub use recycle_bin::RuleStatus;
