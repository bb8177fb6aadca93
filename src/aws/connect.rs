//! The connection to AWS: which clients there are, with which retries and time limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_sdk_ec2::config::Credentials;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::interceptors::{Counters, Counting, Whole, is_whole_document};
use super::{connections, endpoints};
use crate::Tally;
use crate::clock::Clock;
use crate::config::{ConfigError, check_variables};

/// EC2, EBS, SNS, SQS, the Recycle Bin and DynamoDB.
#[derive(Clone, Debug)]
pub struct Aws {
    pub(super) config: SdkConfig,
    pub(super) ebs: aws_sdk_ebs::Client,
    pub(super) ec2: aws_sdk_ec2::Client,
    pub(super) rbin: aws_sdk_rbin::Client,
    pub(super) sns: aws_sdk_sns::Client,
    pub(super) sqs: aws_sdk_sqs::Client,
    pub(super) clock: Clock,
    pub(super) counters: Arc<Counters>,
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

    pub(super) fn of(config: &SdkConfig, clock: Clock) -> Aws {
        let counters = Arc::new(Counters::default());
        let ec2 = aws_sdk_ec2::config::Builder::from(config)
            .interceptor(Whole(is_whole_document))
            .interceptor(Counting(Arc::clone(&counters)))
            .build();
        let ebs = aws_sdk_ebs::config::Builder::from(config)
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
            ebs: aws_sdk_ebs::Client::from_conf(ebs),
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
}
