//! A simulator of the AWS APIs that ami-billing-guard calls, for its tests and its demonstration. It serves them on
//! loopback or in the same process.
//!
//! One port serves these protocols, so that the real SDKs, boto3 and the `aws` command line can use it:
//!
//! - EC2: `ec2Query`, 2016-11-15
//! - SNS and STS: `awsQuery`, 2010-03-31 and 2011-06-15
//! - DynamoDB and SQS: AWS JSON 1.0, 2012-08-10 and 2012-11-05
//! - EBS direct APIs: `restJson1`, 2019-11-02
//! - Recycle Bin: `restJson1`, 2021-06-15
//!
//! The simulated account is a plain value, [`World`], that a test fills, changes and reads. Every request is logged as
//! a [`Call`]. A [`Fault`] disturbs calls in the ways in which AWS and networks do.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use sim::{Fault, FaultKind, Image, Sim, World};
//!
//! let mut world = World::default();
//! world.add_image(Image::new("ami-0123456789abcdef0"));
//! let sim = Sim::start(world).await?;
//! sim.inject(Fault::nth("DescribeImages", 1, FaultKind::Throttle));
//! // … point an SDK at sim.endpoint(), let it work, then look:
//! assert!(sim.calls().iter().all(|call| call.action != "DeregisterImage"));
//! assert!(sim.world().images.contains_key("ami-0123456789abcdef0"));
//! # Ok(()) }
//! ```
//!
//! # What is simulated faithfully
//! - Registration: `RegisterImage` derives platform details and usage operation from the metadata of the root snapshot.
//!   It loses them if the metadata is missing: see [`SnapshotBilling`].
//! - Names: parameters and elements have the names of the services' API models. So have error codes and statuses, and
//!   most of the messages.
//! - Eventual consistency: new images appear late ([`Image::invisible_for`]), and a deregistration has three phases
//!   ([`Lingering`]).
//! - Lineage: images, snapshots, volumes and instances record their origin. Other accounts' resources and tags are
//!   hidden as in EC2. A terminated instance has no volumes.
//! - Deregistration: only the owner can deregister an image, and only if it is not protected or managed by AWS Backup.
//!   The Recycle Bin keeps images with the tag pair of an available rule. Snapshots stay, unless
//!   `DeleteAssociatedSnapshots` is set.
//! - Regions: a request applies to the Region that it was signed for, which has its own resources. A Region that the
//!   account has not opted in to refuses everything.
//! - Limits that a client can meet: 50 tags, the lengths of keys and values, and the format of ids and names. Also page
//!   sizes, and 200 values in all filters of a call. For SNS, these are the rules for subjects, `MessageStructure` and message
//!   sizes.
//! - Pages: a token is valid for its action, without expiry. A page contains what exists when it is requested. In
//!   worlds of 100,000 images, a page or a request for 200 resources of any kind takes milliseconds.
//! - DynamoDB: a conditional write that is repeated after a lost answer meets its own effect. A transaction that is
//!   repeated with its `ClientRequestToken` within ten minutes does not. Items have up to 400 KB.
//!   `sim/tests/dynamodb.rs` sends random operations to the simulator and to an independent DynamoDB.
//! - EBS: blocks of 512 KiB are read from a raw image file ([`Snapshot::of_disk`]). Only written blocks are listed, in
//!   pages that may be short or empty. Tokens are valid for one snapshot and one block, and expire. A block has its
//!   checksum. Calls do not wait for each other, and are throttled ([`Ebs`]).
//!
//! # Where AWS's behaviour is not known
//! Each is marked at its place in the code. [`FaultKind::Refuse`] can return any other answer.
//!
//! - The error code of a deregistration that protection prevents.
//! - The result of `ListImagesInRecycleBin` for an id that is not in the bin.
//! - The error codes of a restore that is not possible.
//! - The error code of `BillingProducts` without the right to set them.
//! - The error code of `DescribeSnapshotAttribute` for another account's snapshot.
//! - Whether `Windows` finds the Reserved Instances of `Windows (Amazon VPC)`.
//! - Whether 200 is the maximum number of values of a call or of one filter. EC2's error message says a call, as is the
//!   case here. The user guide says one filter.
//! - Whether ids count as a filter where calls are throttled. Here they do not.
//! - The state in which a deregistered image is still listed for a while. Here it is the state before.
//! - Whether a missing table or a wrong key refuses a transaction of DynamoDB, as here, or cancels it.
//! - EBS: the error codes for a snapshot that is public, another account's or not completed.
//! - EBS: whether a new listing ends the tokens of earlier ones. Here it does not.
//! - EBS: whether listing needs the KMS key. Here only reading does.
//! - EBS: how many calls it accepts at once. Here it accepts those of one second.
//! - SQS: the status of a denial.
//!
//! # What is not simulated
//! - Signatures and permissions are not checked. [`FaultKind::AccessDenied`] stands in for IAM.
//! - No messages are sent, and no events are created.
//! - The only quotas are those on an account's calls of the EBS direct APIs, and of EC2 if a test sets them
//!   ([`Throttling`]). [`FaultKind::Throttle`] stands in for the quota on reads of one snapshot.
//! - Images and snapshots are complete at once.
//! - `DryRun` is answered before the request is checked.
//! - Instance-store images cannot be registered.
//! - Volumes can be tagged only when they are created.
//! - Launch permissions of organizations are stored, but have no effect.
//! - SQS holds no messages. A queue records for how long a receipt handle was hidden, and accepts any handle.
//! - DynamoDB has only what the ledger uses. Tables have no sort key and no index, all reads are consistent, and
//!   nothing expires. Transactions consist of updates. Expressions are those of the ledger, with a placeholder for each
//!   name and value. Values are texts, integers of 38 digits and sets of texts. Anything else is refused with a message
//!   that names it.
//!
//! # Recording
//! With the environment variable `SIM_RECORD=FILE`, requests and answers are appended to that file, each kind of them
//! once. `tests/sim/test_api_models.py` compares them with AWS's API models.
//!
//! # The actions
//! EC2: `RegisterImage`, `DescribeImages`, `DeregisterImage`, `DisableImage`, `EnableImage`,
//! `DescribeImageAttribute` and `ModifyImageAttribute` (launch permissions), `ListImagesInRecycleBin`,
//! `RestoreImageFromRecycleBin`, `DescribeImageReferences`, `CreateTags`, `DeleteTags`, `CreateVolume`,
//! `DescribeVolumes`, `CreateSnapshot`, `DescribeSnapshots`, `DescribeSnapshotAttribute`,
//! `DescribeInstances`, `DescribeRegions`, `DescribeReservedInstances`.
//! SNS: `Publish`, `GetTopicAttributes`.
//! STS: `GetCallerIdentity`.
//! DynamoDB: `GetItem`, `BatchGetItem`, `UpdateItem`, `TransactWriteItems`.
//! EBS: `ListSnapshotBlocks`, `GetSnapshotBlock`.
//! Rbin: `GetRule`.
//! SQS: `ChangeMessageVisibility`.

pub mod clock;
mod connection;
mod dispatch;
mod dynamodb;
mod ebs;
mod ec2;
mod fault;
mod form;
mod handler;
mod limit;
mod population;
mod query;
mod rbin;
mod recording;
mod refusal;
mod reply;
mod rest_json;
mod server;
mod sns;
mod sqs;
mod state;
mod sts;
mod wire;
mod without;
mod world;
mod xml;

pub use fault::{Answer, Call, Calls, Fault, FaultKind, Service};
pub use limit::Limit;
pub use server::Sim;
pub use world::{
    AttachedVolume, BinnedImage, BlockDevice, Deregistered, Ebs, Image, Index, Instance, Invisible,
    Item, Lingering, Message, MessageAttribute, Queue, RecycleBinRule, Reference, Region,
    ReservedInstances, Snapshot, SnapshotBilling, Table, Throttling, Topic, Volume, World,
};
