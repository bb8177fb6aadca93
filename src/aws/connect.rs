//! Clients for AWS, with their retries and time limits.

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

use super::interceptors::{Counters, Counting, TruncationCheck, is_whole_document};
use super::{connections, endpoints};
use crate::CallStats;
use crate::clock::Clock;
use crate::config::{ConfigError, check_variables};

/// Clients for EC2, EBS, the Recycle Bin, SNS and SQS. Its SDK configuration also serves the clients for DynamoDB and
/// STS.
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

/// The SDK's defaults, with the guard's retries and time limits.
fn sdk_defaults(clock: Clock) -> ConfigLoader {
    let loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(connections::client())
        .sleep_impl(TokioSleep::new())
        .time_source(clock)
        .retry_config(
            // Three attempts, with pauses of about three seconds in total at most. The queue retries whatever lasts
            // longer.
            RetryConfig::standard()
                .with_max_attempts(3)
                .with_initial_backoff(Duration::from_millis(250))
                .with_max_backoff(Duration::from_secs(2)),
        )
        .timeout_config(
            // EC2 usually answers these calls within a second or two. Three attempts fit several times into an
            // invocation of 60 seconds.
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(2))
                .operation_attempt_timeout(Duration::from_secs(5))
                .operation_timeout(Duration::from_secs(15))
                .build(),
        );
    // Appears in the user agent, and therefore in CloudTrail.
    match AppName::new("ami-billing-guard") {
        Ok(name) => loader.app_name(name),
        Err(_) => loader,
    }
}

/// The SDK settings for a simulator.
fn simulated(clock: Clock, region: &str) -> ConfigLoader {
    let credentials = Credentials::new("testing", "testing", None, None, "simulator");
    sdk_defaults(clock)
        .region(Region::new(region.to_owned()))
        .credentials_provider(credentials)
}

impl Aws {
    /// Connects with the endpoints, Region and credentials that the SDK finds itself.
    ///
    /// # Errors
    /// [`ConfigError`] if an SDK variable is not UTF-8, or a configured endpoint is not a URL.
    pub async fn connect() -> Result<Aws, ConfigError> {
        Aws::connect_as(None, None).await
    }

    /// As [`Aws::connect`], with this profile of the shared configuration or in this Region.
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
            // A profile that the caller names takes precedence over the environment, as in the AWS CLI.
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

    /// Connects to a simulator on loopback, with test credentials that are valid nowhere else.
    pub async fn connect_to_simulator(endpoint: &str, region: &str) -> Aws {
        let clock = Clock::SYSTEM;
        let loader = simulated(clock, region).endpoint_url(endpoint);
        Aws::of(&loader.load().await, clock)
    }

    /// Connects to a simulator in this process, through this HTTP client and with this clock.
    pub async fn in_process(client: SharedHttpClient, region: &str, clock: Clock) -> Aws {
        let loader = simulated(clock, region).endpoint_url("http://simulator.invalid");
        let loader = loader.http_client(connections::around(client));
        Aws::of(&loader.load().await, clock)
    }

    /// The clock that the clients use.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    pub(super) fn of(config: &SdkConfig, clock: Clock) -> Aws {
        let counters = Arc::new(Counters::default());
        let ec2 = aws_sdk_ec2::config::Builder::from(config)
            .interceptor(TruncationCheck(is_whole_document))
            .interceptor(Counting(Arc::clone(&counters)))
            .build();
        let ebs = aws_sdk_ebs::config::Builder::from(config)
            .interceptor(Counting(Arc::clone(&counters)))
            .build();
        let rbin = aws_sdk_rbin::config::Builder::from(config)
            .interceptor(Counting(Arc::clone(&counters)))
            .build();
        let sns = aws_sdk_sns::config::Builder::from(config)
            // With a connection of its own, an alert is sent twice only if the SDK makes a second attempt.
            .interceptor(connections::OnItsOwn)
            .interceptor(TruncationCheck(is_whole_document))
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

    /// SDK configuration for the clients of further services.
    pub fn sdk_config(&self) -> &SdkConfig {
        &self.config
    }

    /// Interceptor that counts a client's calls.
    pub(crate) fn counting(&self) -> Counting {
        Counting(Arc::clone(&self.counters))
    }

    /// Calls since the last time this was read. Resets the counters.
    pub fn tally(&self) -> CallStats {
        let taken = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        CallStats {
            calls: taken(&self.counters.calls),
            throttles: taken(&self.counters.throttles),
            alerts: taken(&self.counters.alerts),
        }
    }
}
