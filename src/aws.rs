//! The place that names the SDK (the ledger alone names DynamoDB's): calls to EC2, SNS and the Recycle Bin, in `snapshot` to EBS, in `queue` to SQS, their answers as the guard's own types, and the one decision which of the SDK's errors means what.

mod account;
mod connections;
mod dry_run;
mod endpoints;
mod queue;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
    FinalizerInterceptorContextRef,
};
use aws_sdk_ec2::config::{ConfigBag, Credentials, Intercept, RuntimeComponents};
use aws_sdk_ec2::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::describe_images::builders::DescribeImagesFluentBuilder;
use aws_sdk_ec2::primitives::DateTime as SdkTime;
use aws_sdk_ec2::types as ec2;
use aws_sdk_sns::operation::publish::builders::PublishFluentBuilder;
use aws_sdk_sns::types::MessageAttributeValue;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use xmlparser::{ElementEnd, Token};

use crate::clock::Clock;
use crate::config::{ConfigError, check_variables};
use crate::ec2::{Attachment, Image, Instance, PUBLISHERS, Snapshot, Volume, is_same_device};
use crate::error::Error;
use crate::event::Registration;
use crate::ids::AmiId;
pub use account::BroughtBack;
pub(crate) use account::{Page, patiently};
pub(crate) use dry_run::{ON_AN_IMAGE, Tried};
pub(crate) use snapshot::{KMS, SnapshotBlocks};

/// EC2, EBS, SNS, SQS, the Recycle Bin and DynamoDB.
#[derive(Clone, Debug)]
pub struct Aws {
    config: SdkConfig,
    ebs: aws_sdk_ebs::Client,
    ec2: aws_sdk_ec2::Client,
    rbin: aws_sdk_rbin::Client,
    sns: aws_sdk_sns::Client,
    sqs: aws_sdk_sqs::Client,
    clock: Clock,
    counters: Arc<Counters>,
}

/// What went out to AWS, since it was counted last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests, those that were repeated too.
    pub calls: u64,
    /// Answers that said that there were too many.
    pub throttles: u64,
    /// Alerts that the topic took.
    pub alerts: u64,
}

impl Tally {
    /// Adds what went out elsewhere.
    pub fn add(&mut self, other: Tally) {
        self.calls += other.calls;
        self.throttles += other.throttles;
        self.alerts += other.alerts;
    }
}

#[derive(Debug, Default)]
struct Counters {
    calls: AtomicU64,
    throttles: AtomicU64,
    alerts: AtomicU64,
}

/// What EC2, SNS and DynamoDB call a request that was one too many.
const THROTTLED: [&str; 10] = [
    "EC2ThrottledException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "Throttled",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "TooManyRequestsException",
];

/// What IAM calls the call that is made most.
const DESCRIBE_IMAGES: &str = "ec2:DescribeImages";

/// What EC2 calls the id of an image that it does not know, or not any more.
const UNKNOWN_IMAGE: [&str; 2] = ["InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"];

/// What DescribeImageReferences, and a search among everybody's images, may take. Reports have 8 to 50 seconds for the
/// latter.
pub(crate) const SLOW: Duration = Duration::from_secs(25);

/// The most items of a page of images, snapshots, volumes and instances that all of these take (EC2 API reference).
const MOST_IN_A_PAGE: i32 = 500;

/// The most values of a filter (EC2 API reference, "Filter").
pub(crate) const MOST_VALUES: usize = 200;

/// The pauses before CreateTags is sent again, jittered, while others tag the same image: their writes take a moment.
const TAGGING: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];

/// Errors that pass by themselves, which the SDK does not know as such, with where they are documented.
const TRANSIENT: [&str; 4] = [
    // Others tag the same resource at the moment (EC2 API reference, "Error codes").
    "ConcurrentTagAccess",
    // (EC2 API reference, "Error codes")
    "ServerInternal",
    // The key's service throttles SNS (SNS API reference, "Publish").
    "KMSThrottling",
    // (DynamoDB Developer Guide, "Error handling with DynamoDB")
    "TransactionInProgressException",
];

/// What DescribeImages answered about one id.
#[derive(Clone, Debug)]
pub(crate) enum Described {
    /// The image, `available`.
    Available(Box<Image>),
    /// The image, in a state in which it is not there any more.
    Gone(String),
    /// The image, disabled.
    Disabled,
    /// The image, in a state that says that its registration failed.
    Failed(String),
    /// The image, in a state that passes (or that is new to us).
    Underway(String),
    /// HTTP 200 with no image: deregistered a short while ago, or not visible yet.
    NoImage,
    /// `InvalidAMIID.NotFound`: not visible yet, or deregistered long ago.
    NotFound,
}

/// How images are looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ImagesBy {
    /// The account's, by the snapshot of the root device.
    OwnOn,
    /// Those of Amazon and of the AWS Marketplace, by the snapshot of the root device. It may take long.
    PublishedOn,
    /// The account's, by the image that they were copied from.
    CopiedOf,
    /// Anybody's, by the id.
    Id,
}

/// The status of a Recycle Bin retention rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleStatus {
    /// It keeps what matches it.
    Available,
    /// It does not keep anything yet.
    Pending,
}

/// Why an image was not taken away, as far as is known.
#[derive(Debug)]
pub(crate) struct NotTaken {
    /// What went wrong.
    pub(crate) error: Error,
    /// Whether EC2 may have done it all the same.
    pub(crate) may_have_acted: bool,
}

/// The SDK's own defaults, with the guard's retries and time limits.
fn sdk_defaults(clock: Clock) -> ConfigLoader {
    let loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(connections::client())
        .sleep_impl(TokioSleep::new())
        .time_source(clock)
        .retry_config(
            // Three attempts, at most about three seconds of pauses: whatever lasts longer is the
            // queue's to retry.
            RetryConfig::standard()
                .with_max_attempts(3)
                .with_initial_backoff(Duration::from_millis(250))
                .with_max_backoff(Duration::from_secs(2)),
        )
        .timeout_config(
            // EC2 answers these calls within a second or two as a rule; three attempts fit an
            // invocation of 60 seconds several times over.
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(2))
                .operation_attempt_timeout(Duration::from_secs(5))
                .operation_timeout(Duration::from_secs(15))
                .build(),
        );
    // Appears in the user agent, and so in CloudTrail.
    match AppName::new("ami-billing-guard") {
        Ok(name) => loader.app_name(name),
        Err(_) => loader,
    }
}

/// The settings of whoever speaks to a simulator.
fn simulated(clock: Clock, region: &str) -> ConfigLoader {
    let credentials = Credentials::new("testing", "testing", None, None, "simulator");
    sdk_defaults(clock)
        .region(Region::new(region.to_owned()))
        .credentials_provider(credentials)
}

impl Aws {
    /// EC2 and SNS with the endpoints, Region and credentials that the SDK finds by itself.
    ///
    /// # Errors
    /// [`ConfigError`] if a variable of the SDK is not UTF-8, or an endpoint that is configured is not a URL.
    pub async fn connect() -> Result<Aws, ConfigError> {
        Aws::connect_as(None, None).await
    }

    /// As [`Aws::connect`], with this profile of the shared configuration, or in this Region.
    ///
    /// # Errors
    /// As [`Aws::connect`].
    pub async fn connect_as(
        profile: Option<&str>,
        region: Option<&str>,
    ) -> Result<Aws, ConfigError> {
        check_variables(std::env::vars_os())?;
        let clock = Clock::SYSTEM;
        let mut loader = sdk_defaults(clock);
        if let Some(profile) = profile {
            // A profile that is named goes before what the environment says, as on the AWS command line.
            let credentials = ProfileFileCredentialsProvider::builder().profile_name(profile);
            let of_profile = ProfileFileRegionProvider::builder().profile_name(profile);
            let of_profile = RegionProviderChain::first_try(of_profile.build());
            loader = loader
                .profile_name(profile)
                .credentials_provider(credentials.build())
                .region(of_profile.or_default_provider());
        }
        if let Some(region) = region {
            loader = loader.region(Region::new(region.to_owned()));
        }
        let config = loader.load().await;
        endpoints::check(&config)?;
        Ok(Aws::of(&config, clock))
    }

    /// The Region, if one is known.
    pub fn region(&self) -> Option<&str> {
        self.config.region().map(Region::as_ref)
    }

    /// AWS as a simulator on loopback serves it, with credentials that open nothing else.
    pub async fn connect_to_simulator(endpoint: &str, region: &str) -> Aws {
        let clock = Clock::SYSTEM;
        let loader = simulated(clock, region).endpoint_url(endpoint);
        Aws::of(&loader.load().await, clock)
    }

    /// AWS as a simulator in this process answers for it, through this HTTP client and at the time that this clock says.
    pub async fn in_process(client: SharedHttpClient, region: &str, clock: Clock) -> Aws {
        let loader = simulated(clock, region).endpoint_url("http://simulator.invalid");
        let loader = loader.http_client(connections::around(client));
        Aws::of(&loader.load().await, clock)
    }

    /// The clock that it goes by.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    fn of(config: &SdkConfig, clock: Clock) -> Aws {
        let counters = Arc::new(Counters::default());
        let ec2 = aws_sdk_ec2::config::Builder::from(config)
            .interceptor(Whole(is_whole_document))
            .interceptor(Counting(Arc::clone(&counters)))
            .build();
        let rbin = aws_sdk_rbin::config::Builder::from(config)
            .interceptor(Counting(Arc::clone(&counters)))
            .build();
        let sns = aws_sdk_sns::config::Builder::from(config)
            // An alert is sent twice only if an attempt is made twice.
            .interceptor(connections::OnItsOwn)
            .interceptor(Whole(is_whole_document))
            .interceptor(Counting(Arc::clone(&counters)))
            .build();
        let sqs = aws_sdk_sqs::config::Builder::from(config)
            .interceptor(Counting(Arc::clone(&counters)))
            .build();
        Aws {
            config: config.clone(),
            ebs: snapshot::client(config, Counting(Arc::clone(&counters))),
            ec2: aws_sdk_ec2::Client::from_conf(ec2),
            rbin: aws_sdk_rbin::Client::from_conf(rbin),
            sns: aws_sdk_sns::Client::from_conf(sns),
            sqs: aws_sdk_sqs::Client::from_conf(sqs),
            clock,
            counters,
        }
    }

    /// What clients of further services are made with.
    pub(crate) fn sdk_config(&self) -> &SdkConfig {
        &self.config
    }

    /// What counts the calls of a client.
    pub(crate) fn counting(&self) -> Counting {
        Counting(Arc::clone(&self.counters))
    }

    /// What went out since this was asked last.
    pub fn tally(&self) -> Tally {
        let taken = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        Tally {
            calls: taken(&self.counters.calls),
            throttles: taken(&self.counters.throttles),
            alerts: taken(&self.counters.alerts),
        }
    }

    /// DescribeImages for one id, disabled images too.
    ///
    /// # Errors
    /// [`Error`], if there is no answer to judge by.
    pub(crate) async fn describe_image(&self, id: &AmiId) -> Result<Described, Error> {
        let answer = self
            .ec2
            .describe_images()
            .image_ids(id.as_str())
            .include_disabled(true)
            .send()
            .await;
        let images = match answer {
            Ok(answer) => present_list(DESCRIBE_IMAGES, "*", answer.images)?,
            Err(error) => {
                return match error.code() {
                    Some("InvalidAMIID.NotFound") => Ok(Described::NotFound),
                    Some("InvalidAMIID.Unavailable") => {
                        Ok(Described::Gone("EC2 says InvalidAMIID.Unavailable".into()))
                    }
                    // DescribeImages knows no resource in IAM.
                    _ => Err(classify(DESCRIBE_IMAGES, "*", &error)),
                };
            }
        };
        let image = images
            .into_iter()
            .find(|image| image.image_id.as_deref() == Some(id.as_str()));
        Ok(image.map_or(Described::NoImage, described))
    }

    /// DescribeImages for some of the account's images at once, disabled ones too. Those that EC2 does not show are left
    /// out: nothing is known of them.
    ///
    /// # Errors
    /// [`Error`], if there is no answer.
    pub(crate) async fn describe_own_images(
        &self,
        ids: &[&str],
    ) -> Result<Vec<(AmiId, Described)>, Error> {
        let mut images = Vec::new();
        for ids in ids.chunks(MOST_VALUES) {
            let all = self.ec2.describe_images().include_disabled(true);
            let all = all.set_image_ids(Some(strings(ids))).send().await;
            let all = all.map(|answer| (answer.images, answer.next_token));
            let own = || {
                self.pages_of_images(|| {
                    let request = self.ec2.describe_images().owners("self");
                    let request = request.include_deprecated(true).include_disabled(true);
                    let request = request.max_results(MOST_IN_A_PAGE);
                    request.filters(filter("image-id", ids))
                })
            };
            images.extend(by_id(DESCRIBE_IMAGES, ids, &UNKNOWN_IMAGE, all, own).await?);
        }
        Ok(identified(images))
    }

    /// DescribeImages: the root snapshot of an image.
    ///
    /// # Errors
    /// [`Error`], if there is no such image, none that is available, or none with such a snapshot.
    pub async fn root_snapshot(&self, id: &AmiId) -> Result<String, Error> {
        let none = |code: &'static str, message: String| Error::NotPossible {
            resource: id.to_string(),
            code,
            message,
        };
        let missing =
            || "there is no such AMI in this Region, or this account may not see it".into();
        match self.describe_image(id).await? {
            Described::Available(image) => image.root_snapshot.ok_or_else(|| {
                none(
                    "NoRootSnapshot",
                    "EC2 names no snapshot of its root device".into(),
                )
            }),
            Described::NoImage | Described::NotFound => {
                Err(none("InvalidAMIID.NotFound", missing()))
            }
            Described::Disabled => Err(none("NotAvailable", "it is disabled".into())),
            Described::Gone(why) | Described::Failed(why) | Described::Underway(why) => {
                Err(none("NotAvailable", why))
            }
        }
    }

    /// DescribeImages: every available image that is found by these ids (of images or snapshots), deprecated ones too; of
    /// copies also those that are under way or disabled.
    /// Found by a snapshot, it may have it elsewhere than at its root. Found by its own id, it may be anybody's.
    ///
    /// # Errors
    /// [`Error`], if there is no answer.
    pub(crate) async fn images(&self, by: ImagesBy, ids: &[&str]) -> Result<Vec<Image>, Error> {
        const ON: &str = "block-device-mapping.snapshot-id";
        let request = || {
            let request = self.ec2.describe_images().include_deprecated(true);
            // EC2 advises against requests without pages, but takes none where ids are named.
            request.max_results(MOST_IN_A_PAGE)
        };
        let found = match by {
            // The parameter is fast for `self` alone, and slow for account ids and aliases (ansible issues 24886 and
            // 34385, aws-cli issue 4794): those are filters.
            ImagesBy::OwnOn => {
                let request = || request().owners("self").filters(filter(ON, ids));
                self.pages_of_images(request).await?
            }
            ImagesBy::PublishedOn => {
                let publishers = filter("owner-alias", &PUBLISHERS);
                let request = || {
                    let request = request().filters(publishers.clone());
                    request.filters(filter(ON, ids))
                };
                self.pages_of_images(request).await?
            }
            // A copy that is under way, or disabled, was made from it all the same.
            ImagesBy::CopiedOf => {
                let request = || {
                    let request = request().owners("self").include_disabled(true);
                    request.filters(filter("source-image-id", ids))
                };
                self.pages_of_images(request).await?
            }
            ImagesBy::Id => {
                let named = || self.ec2.describe_images().include_deprecated(true);
                let all = named().set_image_ids(Some(strings(ids))).send().await;
                let all = all.map(|answer| (answer.images, answer.next_token));
                let unknown = UNKNOWN_IMAGE;
                let own = || async {
                    let own = || request().owners("self").filters(filter("image-id", ids));
                    let mut found = self.pages_of_images(own).await?;
                    // Others' are asked for one by one, as a search among everybody's images is slow.
                    for id in ids {
                        if found.iter().any(|it| it.image_id.as_deref() == Some(id)) {
                            continue;
                        }
                        match named().image_ids(*id).send().await {
                            Ok(answer) => {
                                found.extend(present_list(DESCRIBE_IMAGES, id, answer.images)?);
                            }
                            Err(error) if is_one_of(&unknown, error.code()) => {}
                            Err(error) => return Err(classify(DESCRIBE_IMAGES, "*", &error)),
                        }
                    }
                    Ok(found)
                };
                by_id(DESCRIBE_IMAGES, ids, &unknown, all, own).await?
            }
        };
        if found.iter().any(|it| it.image_id.is_none()) {
            return Err(lacking(DESCRIBE_IMAGES, "*", "the id of an image"));
        }
        use ec2::ImageState::{Available, Deregistered, Error as InError, Failed, Invalid};
        let no_copy = [Failed, InError, Invalid, Deregistered];
        let counts = |state: Option<&ec2::ImageState>| match by {
            ImagesBy::CopiedOf => state.is_none_or(|state| !no_copy.contains(state)),
            _ => state.is_none_or(|state| state == &Available),
        };
        let available = found.into_iter().filter(|it| counts(it.state.as_ref()));
        let mut available: Vec<Image> = available.map(observed).collect();
        // In whatever order EC2 lists them, the same is said of them.
        available.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(available)
    }

    /// All pages of a request for images.
    async fn pages_of_images(
        &self,
        request: impl Fn() -> DescribeImagesFluentBuilder,
    ) -> Result<Vec<ec2::Image>, Error> {
        let call = DESCRIBE_IMAGES;
        all_pages(call, "*", |token| {
            let request = request().set_next_token(token).customize();
            // Whoever waits for it says how long: a search among everybody's images may take long.
            let request = request.config_override(slowly());
            async move {
                let answer = request.send().await;
                let answer = answer.map_err(|error| classify(call, "*", &error))?;
                Ok((answer.images, answer.next_token))
            }
        })
        .await
    }

    /// DescribeSnapshots for one id. `None` if EC2 shows no such snapshot.
    ///
    /// # Errors
    /// [`Error`], if there is no answer.
    pub(crate) async fn describe_snapshot(&self, id: &str) -> Result<Option<Snapshot>, Error> {
        let snapshots = self.snapshots(&[id]).await?;
        Ok(snapshots.into_iter().find(|snapshot| snapshot.id == id))
    }

    /// DescribeSnapshots for these ids; those that EC2 does not show are left out.
    ///
    /// # Errors
    /// [`Error`], if there is no answer.
    pub(crate) async fn snapshots(&self, ids: &[&str]) -> Result<Vec<Snapshot>, Error> {
        let call = "ec2:DescribeSnapshots";
        let unknown = ["InvalidSnapshot.NotFound"];
        let all = self.ec2.describe_snapshots();
        let all = all.set_snapshot_ids(Some(strings(ids))).send().await;
        let all = all.map(|answer| (answer.snapshots, answer.next_token));
        let own = || async {
            let own = all_pages(call, "*", |token| {
                let request = self.ec2.describe_snapshots().owner_ids("self");
                let request = request.filters(filter("snapshot-id", ids));
                let request = request.max_results(MOST_IN_A_PAGE).set_next_token(token);
                async move {
                    let answer = request.send().await;
                    let answer = answer.map_err(|error| classify(call, "*", &error))?;
                    Ok((answer.snapshots, answer.next_token))
                }
            });
            let mut found = own.await?;
            // Others' are asked for one by one: a search among everybody's snapshots takes minutes (cartography issue
            // 793).
            for id in ids {
                if found.iter().any(|it| it.snapshot_id.as_deref() == Some(id)) {
                    continue;
                }
                match self.ec2.describe_snapshots().snapshot_ids(*id).send().await {
                    Ok(answer) => found.extend(present_list(call, id, answer.snapshots)?),
                    Err(error) if is_one_of(&unknown, error.code()) => {}
                    Err(error) => return Err(classify(call, "*", &error)),
                }
            }
            Ok(found)
        };
        let snapshots = by_id(call, ids, &unknown, all, own).await?;
        if snapshots.iter().any(|it| it.snapshot_id.is_none()) {
            return Err(lacking(call, "*", "the id of a snapshot"));
        }
        let snapshots = snapshots.into_iter();
        Ok(snapshots
            .filter_map(|snapshot| {
                let lacks = [
                    ("its owner", snapshot.owner_id.is_none()),
                    (
                        "its volume",
                        non_empty(snapshot.volume_id.clone()).is_none(),
                    ),
                    ("when it was started", snapshot.start_time.is_none()),
                ];
                Some(Snapshot {
                    lacks: first_of(lacks),
                    id: snapshot.snapshot_id?,
                    owner: snapshot.owner_id,
                    // What EC2 writes where it knows of no volume.
                    volume: non_empty(snapshot.volume_id).filter(|id| id != "vol-ffffffff"),
                    description: non_empty(snapshot.description),
                    started: snapshot.start_time.and_then(time),
                    completed: snapshot.completion_time.and_then(time),
                    archived: snapshot.storage_tier == Some(ec2::StorageTier::Archive),
                    outpost: non_empty(snapshot.outpost_arn),
                    kms_key: non_empty(snapshot.kms_key_id),
                    tags: tags(snapshot.tags),
                })
            })
            .collect())
    }

    /// DescribeSnapshotAttribute: the snapshot's product codes.
    ///
    /// # Errors
    /// [`Error`], if there is no answer.
    pub(crate) async fn snapshot_product_codes(&self, id: &str) -> Result<BTreeSet<String>, Error> {
        let answer = self
            .ec2
            .describe_snapshot_attribute()
            .snapshot_id(id)
            .attribute(ec2::SnapshotAttributeName::ProductCodes)
            .send()
            .await
            .map_err(|error| classify("ec2:DescribeSnapshotAttribute", id, &error))?;
        let codes = present_list("ec2:DescribeSnapshotAttribute", id, answer.product_codes)?;
        Ok(product_codes(Some(codes)))
    }

    /// DescribeSnapshotAttribute: whether everybody may use the snapshot. DescribeSnapshots does not say so.
    ///
    /// # Errors
    /// [`Error`], if there is no answer.
    pub(crate) async fn snapshot_is_public(&self, id: &str) -> Result<bool, Error> {
        let answer = self
            .ec2
            .describe_snapshot_attribute()
            .snapshot_id(id)
            .attribute(ec2::SnapshotAttributeName::CreateVolumePermission)
            .send()
            .await
            .map_err(|error| classify("ec2:DescribeSnapshotAttribute", id, &error))?;
        let mut permissions = answer.create_volume_permissions.into_iter().flatten();
        Ok(permissions.any(|it| it.group == Some(ec2::PermissionGroup::All)))
    }

    /// DescribeVolumes for these ids; those that there are not are left out.
    ///
    /// # Errors
    /// [`Error`], if there is no answer.
    pub(crate) async fn volumes(&self, ids: &[&str]) -> Result<Vec<Volume>, Error> {
        let call = "ec2:DescribeVolumes";
        // Also those that a service manages, which EC2 leaves out where the account hides them.
        let request = || self.ec2.describe_volumes().include_managed_resources(true);
        let all = request().set_volume_ids(Some(strings(ids))).send().await;
        let all = all.map(|answer| (answer.volumes, answer.next_token));
        let listed = || {
            all_pages(call, "*", |token| {
                let request = request().filters(filter("volume-id", ids));
                let request = request.max_results(MOST_IN_A_PAGE).set_next_token(token);
                async move {
                    let answer = request.send().await;
                    let answer = answer.map_err(|error| classify(call, "*", &error))?;
                    Ok((answer.volumes, answer.next_token))
                }
            })
        };
        let volumes = by_id(call, ids, &["InvalidVolume.NotFound"], all, listed).await?;
        if volumes.iter().any(|it| it.volume_id.is_none()) {
            return Err(lacking(call, "*", "the id of a volume"));
        }
        let volumes = volumes.into_iter();
        Ok(volumes
            .filter_map(|volume| {
                let attached = volume.attachments.iter().flatten();
                let in_part = |it: &ec2::VolumeAttachment| {
                    it.instance_id.is_none() || it.device.is_none() || it.attach_time.is_none()
                };
                let lacks = [
                    ("what it is attached to", volume.attachments.is_none()),
                    ("how it is attached", attached.into_iter().any(in_part)),
                    (
                        "what it was made from",
                        volume.snapshot_id.is_none() && volume.source_volume_id.is_none(),
                    ),
                ];
                let attachments = volume.attachments.into_iter().flatten();
                let attachments = attachments.filter_map(|attachment| {
                    Some(Attachment {
                        instance: attachment.instance_id?,
                        device: attachment.device?,
                        since: attachment.attach_time.and_then(time),
                    })
                });
                Some(Volume {
                    lacks: first_of(lacks),
                    attachments: attachments.collect(),
                    id: volume.volume_id?,
                    snapshot: non_empty(volume.snapshot_id),
                    copied_from: non_empty(volume.source_volume_id),
                    created: volume.create_time.and_then(time),
                })
            })
            .collect())
    }

    /// DescribeInstances for these ids; those that there are not are left out.
    ///
    /// # Errors
    /// [`Error`], if there is no answer.
    pub(crate) async fn instances(&self, ids: &[&str]) -> Result<Vec<Instance>, Error> {
        let call = "ec2:DescribeInstances";
        // Also those that a service manages, which EC2 leaves out where the account hides them.
        let request = || {
            self.ec2
                .describe_instances()
                .include_managed_resources(true)
        };
        let all = request().set_instance_ids(Some(strings(ids))).send().await;
        let all = all.map(|answer| (answer.reservations, answer.next_token));
        let listed = || {
            all_pages(call, "*", |token| {
                let request = request().filters(filter("instance-id", ids));
                let request = request.max_results(MOST_IN_A_PAGE).set_next_token(token);
                async move {
                    let answer = request.send().await;
                    let answer = answer.map_err(|error| classify(call, "*", &error))?;
                    Ok((answer.reservations, answer.next_token))
                }
            })
        };
        let unknown = ["InvalidInstanceID.NotFound"];
        let reservations = by_id(call, ids, &unknown, all, listed).await?;
        let whole = |it: &ec2::Reservation| {
            let instances = it.instances.as_ref();
            instances.is_some_and(|all| all.iter().all(|it| it.instance_id.is_some()))
        };
        if !reservations.iter().all(whole) {
            return Err(lacking(call, "*", "an instance, or its id"));
        }
        let reservations = reservations.into_iter();
        Ok(reservations
            .flat_map(|reservation| {
                let owner = reservation.owner_id;
                let instances = reservation.instances.into_iter().flatten();
                instances.filter_map(move |instance| {
                    let lacks = [
                        ("its owner", owner.is_none()),
                        ("its state", instance.state.is_none()),
                        ("its root device", instance.root_device_name.is_none()),
                        (
                            "how it is billed",
                            instance.platform_details.is_none()
                                || instance.usage_operation.is_none(),
                        ),
                    ];
                    Some(Instance {
                        lacks: first_of(lacks),
                        id: instance.instance_id?,
                        owner: owner.clone(),
                        image: non_empty(instance.image_id),
                        state: instance
                            .state
                            .and_then(|state| state.name)
                            .map(|name| name.as_str().to_owned()),
                        root_device: instance.root_device_name,
                        platform_details: instance.platform_details,
                        usage_operation: instance.usage_operation,
                        usage_operation_updated: instance
                            .usage_operation_update_time
                            .and_then(time),
                    })
                })
            })
            .collect())
    }

    /// What refers to an image in this account and Region, as ARNs. DescribeImageReferences: instances that are not
    /// terminated, launch templates (of the newest versions of each), SSM parameters, Image Builder recipes (EC2 User
    /// Guide, "Identify your resources referencing specified AMIs"). DescribeImages: the account's images that were
    /// copied from it.
    ///
    /// # Errors
    /// [`Error`], if there is no answer.
    pub(crate) async fn image_references(
        &self,
        image: &ImageName<'_>,
    ) -> Result<Vec<String>, Error> {
        let copied = [image.id.as_str()];
        let (referring, copies) = tokio::join!(
            Box::pin(self.referring_resources(image.id)),
            tokio::time::timeout(SLOW, Box::pin(self.images(ImagesBy::CopiedOf, &copied)))
        );
        let mut arns = referring?;
        let copies =
            copies.unwrap_or_else(|_| Err(no_answer_in(DESCRIBE_IMAGES, image.id.as_str(), SLOW)));
        for copy in copies? {
            // A copy of an image with the same id in another Region.
            let region = copy.source_image_region.as_deref();
            if region.is_none_or(|region| region == image.region) {
                arns.push(image.arn_of(&copy.id));
            }
        }
        Ok(arns)
    }

    async fn referring_resources(&self, id: &AmiId) -> Result<Vec<String>, Error> {
        use ec2::ImageReferenceResourceType::{
            Ec2Instance, Ec2LaunchTemplate, ImageBuilderContainerRecipe, ImageBuilderImageRecipe,
            SsmParameter,
        };
        let call = "ec2:DescribeImageReferences";
        let of = |kind| ec2::ResourceTypeRequest::builder().resource_type(kind);
        // By itself EC2 would also name instances that are terminated.
        let states = ["pending", "running", "shutting-down", "stopping", "stopped"];
        let alive = ec2::ResourceTypeOption::builder()
            .option_name(ec2::ImageReferenceOptionName::StateName)
            .set_option_values(Some(strings(&states)))
            .build();
        // By name, as the role's permissions are made for these: `IncludeAllResourceTypes` would need others on the day
        // on which AWS adds a type.
        let kinds = [
            of(Ec2Instance).resource_type_options(alive).build(),
            of(Ec2LaunchTemplate).build(),
            of(SsmParameter).build(),
            of(ImageBuilderImageRecipe).build(),
            of(ImageBuilderContainerRecipe).build(),
        ];
        let pages = all_pages(call, id.as_str(), |token| {
            let request = self.ec2.describe_image_references();
            let request = request.image_ids(id.as_str()).set_next_token(token);
            let request = request.set_resource_types(Some(kinds.to_vec()));
            // EC2 asks the other services in the caller's name before it answers.
            let request = request.customize().config_override(slowly());
            async move {
                let answer = request.send().await;
                let answer = answer.map_err(|error| classify(call, "*", &error))?;
                Ok((answer.image_references, answer.next_token))
            }
        });
        let references = match tokio::time::timeout(SLOW, pages).await {
            Ok(references) => references?,
            Err(_) => return Err(no_answer_in(call, id.as_str(), SLOW)),
        };
        let arns = references.into_iter().map(|reference| {
            let arn = non_empty(reference.arn);
            arn.unwrap_or_else(|| "a resource that EC2 does not name".into())
        });
        Ok(arns.collect())
    }

    /// DescribeImageAttribute: who may launch instances from an image, each as ModifyImageAttribute takes it.
    ///
    /// # Errors
    /// [`Error`], if there is no answer.
    pub(crate) async fn launch_permissions(
        &self,
        image: &ImageName<'_>,
    ) -> Result<Vec<Value>, Error> {
        let answer = self
            .ec2
            .describe_image_attribute()
            .image_id(image.id.as_str())
            .attribute(ec2::ImageAttributeName::LaunchPermission)
            .send()
            .await
            .map_err(|error| classify("ec2:DescribeImageAttribute", image.arn(), &error))?;
        let call = "ec2:DescribeImageAttribute";
        let permissions = present_list(call, &image.arn(), answer.launch_permissions)?;
        permissions
            .into_iter()
            .map(|permission| {
                let permission = present(json!({
                    "Group": permission.group.map(|group| group.as_str().to_owned()),
                    "UserId": permission.user_id,
                    "OrganizationArn": permission.organization_arn,
                    "OrganizationalUnitArn": permission.organizational_unit_arn,
                }));
                match permission.as_object().is_some_and(|it| !it.is_empty()) {
                    true => Ok(permission),
                    // A kind that is new: whom it names is not known.
                    false => Err(Error::Unavailable {
                        call: "ec2:DescribeImageAttribute",
                        resource: image.arn(),
                        message: "the answer has a launch permission of an unknown kind".into(),
                    }),
                }
            })
            .collect()
    }

    /// GetTopicAttributes: how many confirmed subscriptions a topic has.
    ///
    /// # Errors
    /// [`Error`], if there is no answer.
    pub(crate) async fn confirmed_subscriptions(&self, topic: &str) -> Result<u64, Error> {
        let call = "sns:GetTopicAttributes";
        let answer = self
            .sns
            .get_topic_attributes()
            .topic_arn(topic)
            .send()
            .await
            .map_err(|error| classify(call, topic, &error))?;
        let attributes = answer.attributes.unwrap_or_default();
        let confirmed = attributes.get("SubscriptionsConfirmed");
        confirmed
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| Error::Unavailable {
                call,
                resource: topic.to_owned(),
                message: "the answer does not say how many subscriptions are confirmed".into(),
            })
    }

    /// CreateTags on an image.
    ///
    /// # Errors
    /// [`Error`]: then none of the tags, or all, were written.
    pub(crate) async fn tag_image(
        &self,
        image: &ImageName<'_>,
        tags: &[(&str, String)],
    ) -> Result<(), Error> {
        let tags: Vec<ec2::Tag> = tags
            .iter()
            .map(|(key, value)| ec2::Tag::builder().key(*key).value(value).build())
            .collect();
        let mut pauses = TAGGING.iter();
        loop {
            let request = self.ec2.create_tags().resources(image.id.as_str());
            let answer = request.set_tags(Some(tags.clone())).send().await;
            match (answer, pauses.next()) {
                (Ok(_), _) => return Ok(()),
                // The SDK does not send it again.
                (Err(error), Some(pause)) if error.code() == Some("ConcurrentTagAccess") => {
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                }
                (Err(error), _) => return Err(classify("ec2:CreateTags", image.arn(), &error)),
            }
        }
    }

    /// DeregisterImage, in one attempt. The image's snapshots stay.
    ///
    /// # Errors
    /// [`NotTaken`], which says whether the image may be gone all the same.
    pub(crate) async fn deregister_image(&self, image: &ImageName<'_>) -> Result<(), NotTaken> {
        let answer = self
            .ec2
            .deregister_image()
            .image_id(image.id.as_str())
            // The default, said aloud: a snapshot is never deleted.
            .delete_associated_snapshots(false)
            .customize()
            .config_override(in_one_attempt())
            .send()
            .await;
        let answer = answer.map(|answer| answer.r#return);
        taken("ec2:DeregisterImage", image, answer)
    }

    /// DisableImage, in one attempt.
    ///
    /// # Errors
    /// As [`Aws::deregister_image`].
    pub(crate) async fn disable_image(&self, image: &ImageName<'_>) -> Result<(), NotTaken> {
        let answer = self
            .ec2
            .disable_image()
            .image_id(image.id.as_str())
            .customize()
            .config_override(in_one_attempt())
            .send()
            .await;
        let answer = answer.map(|answer| answer.r#return);
        taken("ec2:DisableImage", image, answer)
    }

    /// ListImagesInRecycleBin for one id: `None` if it is not there, else until when it is
    /// (`None` inside if EC2 does not say).
    ///
    /// # Errors
    /// [`Error`], if there is no answer.
    #[allow(clippy::option_option)]
    pub(crate) async fn recycle_bin(
        &self,
        id: &AmiId,
    ) -> Result<Option<Option<DateTime<Utc>>>, Error> {
        let answer = self
            .ec2
            .list_images_in_recycle_bin()
            .image_ids(id.as_str())
            .send()
            .await;
        let images = match answer {
            Ok(answer) => present_list("ec2:ListImagesInRecycleBin", "*", answer.images)?,
            // Asked for an id that is not there, EC2 may as well say so.
            Err(error) if is_one_of(&UNKNOWN_IMAGE, error.code()) => Vec::new(),
            Err(error) => return Err(classify("ec2:ListImagesInRecycleBin", "*", &error)),
        };
        let image = images
            .iter()
            .find(|image| image.image_id() == Some(id.as_str()));
        Ok(image.map(|image| time(*image.recycle_bin_exit_time()?)))
    }

    /// GetRule: the status of a retention rule for images.
    ///
    /// # Errors
    /// [`Error`], if there is no answer, or the rule does not keep images at all.
    pub(crate) async fn recycle_bin_rule(&self, id: &str) -> Result<RuleStatus, Error> {
        use aws_sdk_rbin::types::{ResourceType, RuleStatus as Status};
        let call = "rbin:GetRule";
        let rule = self
            .rbin
            .get_rule()
            .identifier(id)
            .send()
            .await
            .map_err(|error| classify(call, id, &error))?;
        let unclear = |message: String| Error::Unavailable {
            call,
            resource: id.to_owned(),
            message,
        };
        match (rule.resource_type, rule.status) {
            (Some(ResourceType::Ec2Image), Some(Status::Available)) => Ok(RuleStatus::Available),
            (Some(ResourceType::Ec2Image), Some(Status::Pending)) => Ok(RuleStatus::Pending),
            (Some(ResourceType::Ec2Image), status) => {
                let status = status.as_ref().map_or("none", Status::as_str);
                Err(unclear(format!("the status of the rule is {status}")))
            }
            (Some(other), _) => Err(Error::NotPossible {
                resource: id.to_owned(),
                code: "NotForImages",
                message: format!("this Recycle Bin rule keeps {other}, not EC2_IMAGE"),
            }),
            (None, _) => Err(unclear(
                "the answer does not say what the rule keeps".into(),
            )),
        }
    }

    /// Publishes an alert: a subject, and a body for each protocol, as SNS's JSON has them.
    ///
    /// # Errors
    /// [`Error`]: then nobody may have been told.
    pub(crate) async fn publish(
        &self,
        topic: &str,
        subject: &str,
        bodies: &str,
        attributes: &[(&'static str, String)],
    ) -> Result<(), Error> {
        let alert = self.publication(topic, attributes);
        let alert = alert
            .subject(subject)
            .message_structure("json")
            .message(bodies);
        let answer = alert.send().await;
        let answer = answer.map_err(|error| classify("sns:Publish", topic, &error))?;
        // Nothing less says that SNS took it.
        if non_empty(answer.message_id).is_none() {
            return Err(lacking("sns:Publish", topic, "a message id"));
        }
        self.counters.alerts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Publishes a notification to a topic that chat applications listen to.
    ///
    /// # Errors
    /// [`Error`]: then it may not be in any chat.
    pub(crate) async fn publish_to_chat(
        &self,
        topic: &str,
        notification: &str,
        attributes: &[(&'static str, String)],
    ) -> Result<(), Error> {
        let notification = self.publication(topic, attributes).message(notification);
        let answer = notification.send().await;
        answer.map_err(|error| classify("sns:Publish", topic, &error))?;
        Ok(())
    }

    /// What both have in common: the topic, and what subscriptions can filter by.
    fn publication(
        &self,
        topic: &str,
        attributes: &[(&'static str, String)],
    ) -> PublishFluentBuilder {
        let attributes = attributes.iter().filter_map(|(name, value)| {
            let value = MessageAttributeValue::builder()
                .data_type("String")
                .string_value(value)
                .build()
                // What is missing is none of these two.
                .ok()?;
            Some(((*name).to_owned(), value))
        });
        self.sns
            .publish()
            .topic_arn(topic)
            .set_message_attributes(Some(attributes.collect()))
    }
}

/// Refuses an answer that is not whole, as this says of its body. The SDK reads as far as it can and takes what it has
/// for all there is: an image whose platform details, tags or protection did not arrive would pass for one that has
/// none.
#[derive(Debug)]
pub(crate) struct Whole(pub(crate) fn(&[u8]) -> bool);

impl Intercept for Whole {
    fn name(&self) -> &'static str {
        "Whole"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // What could not be read, or is an error, is tried again as such.
        if context.output_or_error().is_err() {
            return Ok(());
        }
        let response = context.response();
        let whole = response.body().bytes().is_some_and(self.0);
        // What is in an error besides its code decides nothing.
        if response.status().is_success() && !whole {
            return Err("the answer is not whole".into());
        }
        Ok(())
    }
}

/// Counts what goes out, each attempt, and what comes back as too much.
#[derive(Clone, Debug)]
pub(crate) struct Counting(Arc<Counters>);

impl Intercept for Counting {
    fn name(&self) -> &'static str {
        "Counting"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if context.response().is_some_and(is_throttled) {
            self.0.throttles.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Whether an answer says that there were too many requests. Before it is read, its code is but a word in it, and
/// each protocol has another place for that.
fn is_throttled(response: &HttpResponse) -> bool {
    if response.status().is_success() {
        return false;
    }
    let body = response.body().bytes().unwrap_or_default();
    let body = String::from_utf8_lossy(body);
    let says =
        |code: &&str| body.contains(&format!(">{code}<")) || body.contains(&format!("{code}\""));
    response.status().as_u16() == 429 || THROTTLED.iter().any(says)
}

/// Whether every element of an XML document is closed, and nothing in it is broken.
fn is_whole_document(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let mut open = 0_usize;
    let mut elements = 0_usize;
    for token in xmlparser::Tokenizer::from(text) {
        match token {
            Ok(Token::ElementStart { .. }) => {
                open += 1;
                elements += 1;
            }
            Ok(Token::ElementEnd {
                end: ElementEnd::Close(..) | ElementEnd::Empty,
                ..
            }) => match open.checked_sub(1) {
                Some(left) => open = left,
                None => return false,
            },
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    elements > 0 && open == 0
}

/// An image with what its ARN is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ImageName<'a> {
    /// The id.
    pub(crate) id: &'a AmiId,
    /// The Region.
    pub(crate) region: &'a str,
    /// The partition (`aws`, `aws-cn`, `aws-us-gov`).
    pub(crate) partition: &'a str,
}

impl<'a> ImageName<'a> {
    /// The image of a registration; its partition is that of the alert topic.
    pub(crate) fn new(registration: &'a Registration, topic: &'a str) -> ImageName<'a> {
        ImageName::of(&registration.image_id, &registration.region, topic)
    }

    /// An image of this Region; its partition is that of the topic.
    pub(crate) fn of(id: &'a AmiId, region: &'a str, topic: &'a str) -> ImageName<'a> {
        ImageName {
            id,
            region,
            partition: topic.split(':').nth(1).unwrap_or("aws"),
        }
    }

    /// The ARN, as IAM policies name it: an image's has no account.
    pub(crate) fn arn(&self) -> String {
        self.arn_of(self.id.as_str())
    }

    /// The ARN of another image of the same Region.
    fn arn_of(&self, id: &str) -> String {
        format!("arn:{}:ec2:{}::image/{id}", self.partition, self.region)
    }
}

fn described(image: ec2::Image) -> Described {
    let state = match &image.state {
        Some(state) => state.as_str().to_owned(),
        None => return Described::Underway("EC2 does not say the image's state".into()),
    };
    let said = format!("the image's state is {state}");
    match image.state {
        Some(ec2::ImageState::Available) => Described::Available(Box::new(observed(image))),
        Some(ec2::ImageState::Deregistered) => Described::Gone(said),
        Some(ec2::ImageState::Disabled) => Described::Disabled,
        Some(ec2::ImageState::Failed | ec2::ImageState::Error | ec2::ImageState::Invalid) => {
            Described::Failed(match image.state_reason.and_then(|reason| reason.message) {
                Some(message) => format!("{said}: {}", crate::escape::quoted(&message)),
                None => said,
            })
        }
        _ => Described::Underway(said),
    }
}

fn observed(image: ec2::Image) -> Image {
    let request = request(&image);
    let is_on_ebs = image.root_device_type != Some(ec2::DeviceType::InstanceStore);
    let missing = [
        ("its state", image.state.is_none()),
        ("its owner", image.owner_id.is_none()),
        ("its disks", image.block_device_mappings.is_none()),
    ];
    let mappings = image.block_device_mappings.unwrap_or_default();
    let root_device = root_mapping(image.root_device_name.as_deref(), mappings);
    let root_snapshot = root_device.and_then(|device| non_empty(device.snapshot_id));
    let no_root = is_on_ebs && root_snapshot.is_none();
    Image {
        lacks: first_of(missing).or(no_root.then_some("its root snapshot")),
        id: image.image_id.unwrap_or_default(),
        platform_details: image.platform_details,
        usage_operation: image.usage_operation,
        name: image.name,
        description: non_empty(image.description),
        architecture: image
            .architecture
            .map(|architecture| architecture.as_str().to_owned()),
        owner: image.owner_id,
        owner_alias: image.image_owner_alias,
        created: image
            .creation_date
            .and_then(|date| DateTime::parse_from_rfc3339(&date).ok())
            .map(|date| date.to_utc()),
        tags: tags(image.tags),
        root_snapshot,
        root_device_type: image.root_device_type.map(|kind| kind.as_str().to_owned()),
        product_codes: product_codes(image.product_codes),
        source_instance: non_empty(image.source_instance_id),
        source_image: non_empty(image.source_image_id),
        source_image_region: non_empty(image.source_image_region),
        deregistration_protection: image.deregistration_protection,
        deprecated_at: image
            .deprecation_time
            .and_then(|date| DateTime::parse_from_rfc3339(&date).ok())
            .map(|date| date.to_utc()),
        request,
    }
}

/// What RegisterImage takes to make such an image again, but for its tags: every member of the request that
/// DescribeImages shows. It shows neither `UefiData` nor `BillingProducts`.
/// (EC2 API reference, "RegisterImage", "Image".)
fn request(image: &ec2::Image) -> Value {
    let mappings = image.block_device_mappings.iter().flatten().map(|mapping| {
        let ebs = mapping.ebs.as_ref().map(|ebs| {
            present(json!({
                // Whether it is encrypted is the snapshot's to say: the two together are refused.
                "SnapshotId": ebs.snapshot_id,
                "Encrypted": if ebs.snapshot_id.is_none() { ebs.encrypted } else { None },
                "VolumeSize": ebs.volume_size,
                "VolumeType": ebs.volume_type.as_ref().map(ec2::VolumeType::as_str),
                "Iops": ebs.iops.filter(|_| has_iops(ebs)),
                "Throughput": ebs.throughput.filter(|_| has_throughput(ebs)),
                "OutpostArn": ebs.outpost_arn,
                "EbsCardIndex": ebs.ebs_card_index,
                "DeleteOnTermination": ebs.delete_on_termination,
            }))
        });
        present(json!({
            "DeviceName": mapping.device_name,
            "VirtualName": mapping.virtual_name,
            "NoDevice": mapping.no_device,
            "Ebs": ebs,
        }))
    });
    let mappings: Vec<Value> = mappings.collect();
    let bundle = image.root_device_type == Some(ec2::DeviceType::InstanceStore);
    present(json!({
        "Name": image.name,
        "Description": image.description.as_ref().filter(|text| !text.is_empty()),
        "Architecture": image.architecture.as_ref().map(ec2::ArchitectureValues::as_str),
        // Of an image with a root snapshot, this only repeats owner and name.
        "ImageLocation": image.image_location.as_ref().filter(|_| bundle),
        "RootDeviceName": image.root_device_name.as_ref().filter(|_| !bundle),
        "BlockDeviceMappings": (!mappings.is_empty()).then_some(mappings),
        "VirtualizationType": image.virtualization_type.as_ref().map(ec2::VirtualizationType::as_str),
        "KernelId": image.kernel_id,
        "RamdiskId": image.ramdisk_id,
        "BootMode": image.boot_mode.as_ref().map(ec2::BootModeValues::as_str),
        "EnaSupport": image.ena_support,
        "SriovNetSupport": image.sriov_net_support,
        "TpmSupport": image.tpm_support.as_ref().map(ec2::TpmSupportValues::as_str),
        "ImdsSupport": image.imds_support.as_ref().map(ec2::ImdsSupportValues::as_str),
    }))
}

/// Whether RegisterImage takes `Iops` for a volume of this type. DescribeImages also shows the baseline of a gp2 volume.
/// (EC2 API reference, "EbsBlockDevice".)
fn has_iops(ebs: &ec2::EbsBlockDevice) -> bool {
    use ec2::VolumeType::{Gp3, Io1, Io2};
    matches!(ebs.volume_type, Some(Gp3 | Io1 | Io2))
}

/// Whether RegisterImage takes `Throughput` for a volume of this type: "valid only for gp3 volumes".
/// (EC2 API reference, "EbsBlockDevice".)
fn has_throughput(ebs: &ec2::EbsBlockDevice) -> bool {
    matches!(ebs.volume_type, Some(ec2::VolumeType::Gp3))
}

/// An object without the members that are null.
fn present(mut object: Value) -> Value {
    if let Some(members) = object.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    object
}

/// The mapping of the root device. In some images the mapping names the disk and RootDeviceName its
/// first partition (`/dev/sda`, `/dev/sda1`), or the reverse.
fn root_mapping(
    root: Option<&str>,
    mappings: Vec<ec2::BlockDeviceMapping>,
) -> Option<ec2::EbsBlockDevice> {
    let root = root?;
    let position = |same: fn(&str, &str) -> bool| {
        mappings.iter().position(|mapping| {
            let device = mapping.device_name.as_deref();
            device.is_some_and(|device| same(device, root))
        })
    };
    let at = position(|device, root| device == root).or_else(|| position(is_same_device))?;
    mappings.into_iter().nth(at)?.ebs
}

/// A page of a list as it came: its items, and the token of the next one.
type ListPage<T> = (Option<Vec<T>>, Option<String>);

/// All pages of a list. A page may be empty and have a token, so the last one is the one without (EC2 API reference,
/// "Query requests").
async fn all_pages<T, F>(
    call: &'static str,
    resource: &str,
    page: impl Fn(Option<String>) -> F,
) -> Result<Vec<T>, Error>
where
    F: Future<Output = Result<ListPage<T>, Error>>,
{
    let mut all = Vec::new();
    let mut token = None;
    let mut seen = BTreeSet::new();
    loop {
        // Boxed: the SDK's futures are large.
        let (items, next) = Box::pin(page(token.clone())).await?;
        all.extend(present_list(call, resource, items)?);
        match non_empty(next) {
            None => return Ok(all),
            Some(next) if !seen.insert(next.clone()) => {
                return Err(Error::Unavailable {
                    call,
                    resource: resource.to_owned(),
                    message: "the answer is not whole: a page leads back to an earlier one".into(),
                });
            }
            next => token = next,
        }
    }
}

/// Images by their ids, as far as they have one that is well-formed.
fn identified(images: Vec<ec2::Image>) -> Vec<(AmiId, Described)> {
    let images = images.into_iter();
    let identified = images.filter_map(|image| {
        let id = image.image_id.as_deref()?.parse().ok()?;
        Some((id, described(image)))
    });
    identified.collect()
}

/// What EC2 shows of these ids: `all` is its answer to them, and that is the whole list, if there is no token. One id
/// that is not known fails the whole call, with an `unknown` code; what is `listed` with a filter leaves it out.
async fn by_id<T, E, F>(
    call: &'static str,
    ids: &[&str],
    unknown: &[&str],
    all: Result<ListPage<T>, SdkError<E, HttpResponse>>,
    listed: impl FnOnce() -> F,
) -> Result<Vec<T>, Error>
where
    E: ProvideErrorMetadata,
    F: Future<Output = Result<Vec<T>, Error>>,
{
    match all {
        Ok((items, token)) if non_empty(token.clone()).is_none() => present_list(call, "*", items),
        Err(error) if !is_one_of(unknown, error.code()) => Err(classify(call, "*", &error)),
        Err(_) if ids.len() == 1 => Ok(Vec::new()),
        // Boxed: the SDK's futures are large.
        Ok(_) | Err(_) => Box::pin(listed()).await,
    }
}

/// A list that an answer must have. EC2 says of nothing that there is nothing, by an empty list; an answer without one says
/// nothing at all.
fn present_list<T>(
    call: &'static str,
    resource: &str,
    list: Option<Vec<T>>,
) -> Result<Vec<T>, Error> {
    list.ok_or_else(|| lacking(call, resource, "its list"))
}

/// That an answer does not have what decides.
pub(crate) fn lacking(call: &'static str, resource: &str, what: &str) -> Error {
    Error::Unavailable {
        call,
        resource: resource.to_owned(),
        message: format!("the answer lacks {what}"),
    }
}

/// That a call did not answer in the time that it had.
pub(crate) fn no_answer_in(call: &'static str, resource: &str, limit: Duration) -> Error {
    Error::Unavailable {
        call,
        resource: resource.to_owned(),
        message: format!("no answer within {} seconds", limit.as_secs()),
    }
}

/// For calls that may rightly take long: no limit of an attempt but that of whoever waits for all of it.
fn slowly() -> aws_sdk_ec2::config::Builder {
    let limits = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(2))
        .operation_attempt_timeout(SLOW)
        .operation_timeout(SLOW);
    aws_sdk_ec2::config::Builder::new().timeout_config(limits.build())
}

/// What is there, if it says anything.
fn non_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// The first of these that holds.
fn first_of<const N: usize>(all: [(&'static str, bool); N]) -> Option<&'static str> {
    let mut all = all.into_iter();
    all.find_map(|(what, holds)| holds.then_some(what))
}

fn tags(tags: Option<Vec<ec2::Tag>>) -> BTreeMap<String, String> {
    tags.into_iter()
        .flatten()
        .filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())))
        .collect()
}

fn product_codes(codes: Option<Vec<ec2::ProductCode>>) -> BTreeSet<String> {
    codes
        .into_iter()
        .flatten()
        .filter_map(|code| code.product_code_id)
        .collect()
}

fn filter(name: &str, values: &[&str]) -> ec2::Filter {
    ec2::Filter::builder()
        .name(name)
        .set_values(Some(strings(values)))
        .build()
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn time(time: SdkTime) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.secs(), time.subsec_nanos())
}

fn is_one_of(codes: &[&str], code: Option<&str>) -> bool {
    code.is_some_and(|code| codes.contains(&code))
}

fn in_one_attempt() -> aws_sdk_ec2::config::Builder {
    aws_sdk_ec2::config::Builder::new()
        .retry_config(RetryConfig::disabled())
        .interceptor(connections::OnItsOwn)
}

/// Whether EC2 says that it took an image away: its `return`, which is `true` if it did.
fn taken<E: ProvideErrorMetadata>(
    call: &'static str,
    image: &ImageName<'_>,
    answer: Result<Option<bool>, SdkError<E, HttpResponse>>,
) -> Result<(), NotTaken> {
    let said = match answer {
        Ok(Some(true)) => return Ok(()),
        Ok(Some(false)) => "EC2 answers that it did not do it",
        Ok(None) => "the answer lacks whether it was done",
        Err(error) => {
            return Err(NotTaken {
                may_have_acted: may_have_acted(&error),
                error: classify(call, image.arn(), &error),
            });
        }
    };
    // Whether it is true shows when the image is looked at again.
    Err(NotTaken {
        error: Error::Unavailable {
            call,
            resource: image.arn(),
            message: said.into(),
        },
        may_have_acted: true,
    })
}

/// Whether a request may have taken effect that no good answer came to: EC2 did not say that it did not do it. (Of one
/// that failed on its way the SDK does not say whether it was sent.)
fn may_have_acted<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    match error {
        SdkError::ConstructionFailure(_) => false,
        SdkError::ServiceError(refusal) => {
            let server_failed = refusal.raw().status().is_server_error();
            let throttled = refusal
                .err()
                .code()
                .is_some_and(|code| THROTTLED.contains(&code));
            server_failed && !throttled
        }
        _ => true,
    }
}

/// An error and what it comes from: of missing credentials, the first in the chain says nothing.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut said: Vec<String> = Vec::new();
    for cause in causes.take(10) {
        let text = cause.to_string();
        if said.last() != Some(&text) {
            said.push(text);
        }
    }
    cut_after(500, &said.join(": "))
}

/// A text of at most so many characters. One that is longer says that it was cut.
fn cut_after(most: usize, text: &str) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{} (cut here)", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Which error of the SDK means what. Whatever its code, a server's error (5xx) may pass, and so may
/// a request that was too many (429) or too slow (408); another code that is not known is final.
pub(crate) fn classify<E: ProvideErrorMetadata>(
    call: &'static str,
    resource: impl Into<String>,
    error: &SdkError<E, HttpResponse>,
) -> Error {
    let resource = resource.into();
    let unavailable = |message: String| Error::Unavailable {
        call,
        resource: resource.clone(),
        message,
    };
    match error {
        SdkError::ServiceError(refusal) => {
            let code = refusal.err().code().unwrap_or_default();
            // An encoded authorisation message can be thousands of characters long.
            let message = cut_after(1000, refusal.err().message().unwrap_or("no message"));
            let passing = matches!(refusal.raw().status().as_u16(), 408 | 429 | 500..);
            match code {
                _ if passing => unavailable(format!("{code}: {message}")),
                // EC2's, SNS's and the other services' words for the same thing.
                "UnauthorizedOperation"
                | "AuthorizationError"
                | "AccessDenied"
                | "AccessDeniedException" => Error::AccessDenied {
                    permission: call,
                    resource,
                    message,
                },
                // No code: the body was not the service's.
                "" => unavailable(format!("an error without a code: {message}")),
                code if THROTTLED.contains(&code) || TRANSIENT.contains(&code) => {
                    unavailable(format!("{code}: {message}"))
                }
                // What is said of credentials that are about to be renewed.
                "RequestExpired"
                | "ExpiredToken"
                | "ExpiredTokenException"
                | "InvalidClientTokenId"
                | "UnrecognizedClientException" => unavailable(format!("{code}: {message}")),
                // Of an image that was seen a moment ago: EC2 does not see it everywhere yet.
                "InvalidAMIID.NotFound" => unavailable(format!("{code}: {message}")),
                _ => Error::Refused {
                    call,
                    resource,
                    code: code.to_owned(),
                    message,
                },
            }
        }
        SdkError::TimeoutError(_) => unavailable("timed out".into()),
        SdkError::DispatchFailure(failure) => {
            let cause = failure.as_connector_error().map_or_else(
                || "the request was not sent".to_owned(),
                |error| with_causes(error),
            );
            unavailable(cause)
        }
        SdkError::ResponseError(_) => unavailable(format!(
            "the answer could not be read: it is broken, or longer than {} MiB",
            connections::MOST_OF_AN_ANSWER >> 20
        )),
        _ => unavailable("the request could not be made".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::error::ErrorMetadata;

    fn classified(status: u16, code: &str) -> &'static str {
        let metadata = ErrorMetadata::builder().code(code).message("m").build();
        let response = HttpResponse::new(status.try_into().unwrap(), "".into());
        let error = SdkError::service_error(metadata, response);
        classify("ec2:DeregisterImage", "*", &error).error_type()
    }

    #[test]
    fn a_document_that_ends_early_or_is_broken_is_not_whole() {
        let whole = "<?xml version=\"1.0\"?>\n<a b=\"c\"><d/><e>f &amp; g</e></a>";
        assert!(is_whole_document(whole.as_bytes()));
        for end in 0..whole.len() {
            assert!(!is_whole_document(&whole.as_bytes()[..end]), "{end}");
        }
        for broken in ["<a></a></a>", "<a>\u{1}</a>", "text", "<a", "<a><b></a>"] {
            assert!(!is_whole_document(broken.as_bytes()), "{broken}");
        }
        assert!(!is_whole_document(b"<a>\xff</a>"));
    }

    #[test]
    fn an_error_means_one_thing_wherever_it_occurs() {
        for (status, code, meaning) in [
            (403, "UnauthorizedOperation", "AccessDenied"),
            (403, "AuthorizationError", "AccessDenied"),
            (400, "AccessDenied", "AccessDenied"),
            (503, "RequestLimitExceeded", "Unavailable"),
            (400, "Throttling", "Unavailable"),
            (400, "EC2ThrottledException", "Unavailable"),
            (500, "InternalError", "Unavailable"),
            (400, "ExpiredToken", "Unavailable"),
            (400, "InvalidAMIID.NotFound", "Unavailable"),
            (400, "ConcurrentTagAccess", "Unavailable"),
            (400, "KMSThrottling", "Unavailable"),
            (400, "", "Unavailable"),
            (400, "InvalidParameterValue", "Refused"),
            (400, "AuthFailure", "Refused"),
            (400, "TagLimitExceeded", "Refused"),
        ] {
            assert_eq!(classified(status, code), meaning, "{status} {code}");
        }
    }

    #[test]
    fn only_a_request_that_ec2_refused_is_known_to_have_done_nothing() {
        let answered = |status: u16, code: &str| {
            let metadata = ErrorMetadata::builder().code(code).build();
            let response = HttpResponse::new(status.try_into().unwrap(), "".into());
            may_have_acted(&SdkError::service_error(metadata, response))
        };
        assert!(!answered(400, "AuthFailure"));
        assert!(!answered(403, "UnauthorizedOperation"));
        assert!(!answered(503, "RequestLimitExceeded"));
        assert!(answered(500, "InternalError"));
        assert!(answered(503, "Unavailable"));
        let unanswered: SdkError<ErrorMetadata, HttpResponse> = SdkError::timeout_error("slow");
        assert!(may_have_acted(&unanswered));
    }

    #[test]
    fn regression_a_code_that_is_not_known_is_not_final_when_the_status_says_that_it_may_pass() {
        for (status, code) in [
            (503, "ServiceUnavailableException"),
            (500, "InternalServerError"),
            (429, "RequestThrottledException"),
            (408, "RequestTimeout"),
        ] {
            assert_eq!(classified(status, code), "Unavailable", "{status} {code}");
        }
    }
}
