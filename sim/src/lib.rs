//! The AWS APIs that ami-billing-guard calls, served on loopback or in the same process, for its tests and its demonstration.
//!
//! One port speaks EC2's protocol (`ec2Query`, 2016-11-15), SNS's and STS's (`awsQuery`, 2010-03-31 and
//! 2011-06-15), DynamoDB's and SQS's (AWS JSON 1.0, 2012-08-10 and 2012-11-05), that of the EBS direct APIs
//! (`restJson1`, 2019-11-02) and that of the Recycle Bin (`restJson1`, 2021-06-15), so the real SDKs, boto3 and the `aws`
//! command line can be pointed at it. What exists is a plain value, [`World`], that a test fills, changes and reads; every request is logged as a [`Call`]; a [`Fault`] disturbs
//! calls in the ways in which life does.
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
//! # What it is faithful to
//! - `RegisterImage` derives platform details and usage operation from the metadata of the root snapshot,
//!   and loses them where the metadata is missing: see [`SnapshotBilling`].
//! - Names of parameters and elements are those of the services' API models; error codes and statuses are
//!   theirs as well, and most of the sentences.
//! - Eventual consistency: late visibility of new images ([`Image::invisible_for`]), and the three phases
//!   after a deregistration ([`Lingering`]).
//! - Lineage: images, snapshots, volumes and instances say what they came from; what belongs to other
//!   accounts is hidden as EC2 hides it, and so are their tags; a terminated instance has no volumes.
//! - Deregistering: only by the owner, not if protected or managed by AWS Backup; the Recycle Bin keeps what
//!   the tag pair of an available rule names; snapshots stay unless `DeleteAssociatedSnapshots` says otherwise.
//! - Regions: a request is about the one that it was signed for, which has resources of its own; one that the
//!   account has not opted in to refuses everything.
//! - The limits that a client can run into: 50 tags, the lengths of keys and values, the form of ids and names,
//!   the sizes of pages, 200 values in all filters of a call, SNS's rules for subjects, for `MessageStructure`
//!   and for the size of a message.
//! - Pages: a token is good for its action, for ever, and a page is what there is when it is asked for. Worlds of
//!   100,000 images are paged, and asked for 200 of anything, in milliseconds.
//! - DynamoDB's conditional writes, of which one that is repeated after a lost answer meets its own effect;
//!   transactions, of which one that is repeated with its `ClientRequestToken` within ten minutes does not; items of
//!   400 KB. `sim/tests/dynamodb.rs` gives random operations to sim and to a DynamoDB that others wrote.
//! - EBS's blocks of 512 KiB, read from a raw image file ([`Snapshot::of_disk`]): only written ones are listed,
//!   in pages that may be short or empty; tokens are good for one snapshot and one block, and expire; a block
//!   comes with its checksum; calls do not wait for each other, and are throttled ([`Ebs`]).
//!
//! # Where the truth is not known
//! Each is marked where it is decided: the error code of a deregistration that protection forbids, what
//! `ListImagesInRecycleBin` says of an id that is not in the bin, the codes of a restore that can not be, that
//! of `BillingProducts` without the right to set them, that of `DescribeSnapshotAttribute` for a snapshot of
//! another account, whether `Windows` finds the Reserved Instances of `Windows (Amazon VPC)`, whether 200 is
//! the most values of a call (here, as EC2's error says) or of one filter (as the user guide says), whether ids
//! count as a filter where calls are throttled (here: no), the state in which a deregistered image is still
//! listed for a while (here: as it was), whether a table that is not there, or a wrong key, refuses a transaction of
//! DynamoDB (here) or cancels it; of EBS the
//! codes for a snapshot that is public, another account's or not completed, whether a new listing ends the
//! tokens of earlier ones (here: no), whether listing needs the KMS key (here: no, only reading does), and how
//! many calls it lets through at once (here: those of one second); of SQS the status of a denial. [`FaultKind::Refuse`] can play any other
//! answer.
//!
//! # What it does not do
//! It checks no signature and no permission ([`FaultKind::AccessDenied`] plays IAM), sends no message
//! to anybody, makes no events, and has no quotas but those on an account's calls of the EBS direct APIs, and
//! of EC2 if a test wants them ([`Throttling`]); that on the reads of one snapshot is [`FaultKind::Throttle`]'s to play. Images and snapshots are complete at
//! once. `DryRun` is answered before the request is looked at. An instance-store image can not be registered.
//! Volumes are tagged only as they are made. Launch permissions of organizations are kept, and give nobody
//! anything.
//! SQS holds no messages: a queue notes for how long a receipt handle was hidden, whatever the handle.
//! Of DynamoDB there is what the ledger calls. Tables have no sort key and no index, all reads are consistent, and
//! nothing expires. Transactions consist of updates. Expressions are those of the ledger, with each name and value by a
//! placeholder. Values are texts, integers of 38 digits and sets of texts. sim refuses anything else, and names it.
//!
//! # What went over the wire
//! With `SIM_RECORD=FILE` in the environment, requests and answers are appended to that file, each kind of them once, for
//! whoever compares them with AWS's API models (`tests/sim/test_api_models.py`).
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
