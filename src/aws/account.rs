//! Account-wide calls: the images page by page, the Regions, the Reserved Instances, and restoring an image.

use std::time::Duration;

use aws_config::Region;
use aws_sdk_ec2::error::ProvideErrorMetadata;
use tokio::time::Instant;

use super::connect::Aws;
use super::convert::{Described, filter, identified, non_empty, present_list, time};
use super::errors::classify;
use super::interceptors::Counting;
use crate::ec2::ReservedInstances;
use crate::error::Error;
use crate::ids::{AccountId, AmiId};
use crate::invocation::Backoff;

/// Retry budget for bulk calls on transient errors. EC2's largest request token bucket refills in much less time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A page of the account's images.
#[derive(Debug)]
pub(crate) struct Page {
    /// The images, available or not.
    pub(crate) images: Vec<(AmiId, Described)>,
    /// Pagination token of the next page, if there is one.
    pub(crate) next: Option<String>,
}

/// How an image became launchable when the caller asked to restore it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BroughtBack {
    /// It was in the Recycle Bin and was restored from there.
    FromRecycleBin,
    /// It was disabled and was enabled again.
    Enabled,
    /// It was available already.
    WasThere,
}

impl Aws {
    /// GetCallerIdentity: the account of the current credentials. Needs no permission.
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    pub async fn account(&self) -> Result<AccountId, Error> {
        let call = "sts:GetCallerIdentity";
        let config = aws_sdk_sts::config::Builder::from(&self.config)
            .interceptor(Counting(self.counters.clone()))
            .build();
        let sts = aws_sdk_sts::Client::from_conf(config);
        let answer = sts.get_caller_identity().send().await;
        let answer = answer.map_err(|error| classify(call, "*", &error))?;
        let account = answer.account.unwrap_or_default();
        account.parse().map_err(|message| Error::Unavailable {
            call,
            resource: "*".into(),
            message,
        })
    }

    /// Clients for the same account in another Region.
    pub fn in_region(&self, region: &str) -> Aws {
        let region = Region::new(region.to_owned());
        Aws::of(&self.config.to_builder().region(region).build(), self.clock)
    }

    /// DescribeRegions: names of the Regions that the account has enabled, sorted.
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    pub async fn regions(&self) -> Result<Vec<String>, Error> {
        let answer = self.ec2.describe_regions().send().await;
        let answer = answer.map_err(|error| classify("ec2:DescribeRegions", "*", &error))?;
        let regions = answer.regions.into_iter().flatten();
        let mut names: Vec<String> = regions.filter_map(|region| region.region_name).collect();
        names.sort();
        Ok(names)
    }

    /// DescribeImages: a page of the account's own images, including those that cannot be launched. `most` is the page
    /// size, from 5 to 1,000 (EC2 API reference, "DescribeImages").
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    pub(crate) async fn list_images(&self, most: i32, token: Option<&str>) -> Result<Page, Error> {
        let answer = self
            .ec2
            .describe_images()
            .owners("self")
            .include_deprecated(true)
            .include_disabled(true)
            .max_results(most)
            .set_next_token(token.map(str::to_owned))
            .send()
            .await
            .map_err(|error| classify("ec2:DescribeImages", "*", &error))?;
        Ok(Page {
            images: identified(present_list("ec2:DescribeImages", "*", answer.images)?),
            next: non_empty(answer.next_token),
        })
    }

    /// DescribeReservedInstances: the account's active Reserved Instances in this Region.
    ///
    /// # Errors
    /// [`Error`] if there is no answer.
    pub async fn reserved_instances(&self) -> Result<Vec<ReservedInstances>, Error> {
        let request = self.ec2.describe_reserved_instances();
        let answer = request.filters(filter("state", &["active"])).send().await;
        let answer =
            answer.map_err(|error| classify("ec2:DescribeReservedInstances", "*", &error))?;
        let reserved = answer.reserved_instances.into_iter().flatten();
        Ok(reserved
            .filter_map(|reserved| {
                Some(ReservedInstances {
                    id: reserved.reserved_instances_id?,
                    instance_type: reserved.instance_type?.as_str().to_owned(),
                    count: reserved.instance_count.unwrap_or_default(),
                    platform: reserved.product_description?.as_str().to_owned(),
                    zone: non_empty(reserved.availability_zone),
                    ends: reserved.end.and_then(time),
                })
            })
            .collect())
    }

    /// RestoreImageFromRecycleBin or EnableImage: makes a discarded image launchable again, and returns how. Leaves an
    /// image that is available already unchanged. With `rehearse`, changes nothing at all.
    ///
    /// # Errors
    /// [`Error`] if there is no such image, its registration failed or is under way, or EC2 does not restore it.
    pub async fn bring_back(&self, id: &AmiId, rehearse: bool) -> Result<BroughtBack, Error> {
        let not_possible = |code: &'static str, message: String| Error::NotPossible {
            resource: id.to_string(),
            code,
            message,
        };
        match self.describe_image(id).await? {
            Described::Available(_) => return Ok(BroughtBack::WasThere),
            Described::Disabled => {
                if !rehearse {
                    let answer = self.ec2.enable_image().image_id(id.as_str()).send().await;
                    answer.map_err(|error| classify("ec2:EnableImage", id.as_str(), &error))?;
                }
                return Ok(BroughtBack::Enabled);
            }
            Described::Failed(why) => return Err(not_possible("NotAvailable", why)),
            Described::Underway(why) => return Err(not_possible("NotAvailable", why)),
            Described::Gone(_) | Described::NoImage | Described::NotFound => {}
        }
        if self.recycle_bin(id).await?.is_none() {
            let message = "it does not exist, and is not in the Recycle Bin of this account and Region. If the guard \
                           discarded it, the alert has the command that registers it again from its snapshots";
            return Err(not_possible("NotInRecycleBin", message.into()));
        }
        if !rehearse {
            let request = self.ec2.restore_image_from_recycle_bin();
            let answer = request.image_id(id.as_str()).send().await;
            answer.map_err(|error| match error.code() {
                Some("InvalidAMIID.NotFound") => not_possible(
                    "InvalidAMIID.NotFound",
                    "it is no longer in the Recycle Bin".into(),
                ),
                _ => classify("ec2:RestoreImageFromRecycleBin", id.as_str(), &error),
            })?;
        }
        Ok(BroughtBack::FromRecycleBin)
    }
}

/// Retries a call on transient errors, with jittered back-off for at most a minute. Work that takes minutes must
/// not fail because of a throttled request.
pub(crate) async fn retry<T, F: Future<Output = Result<T, Error>>>(
    mut call: impl FnMut() -> F,
) -> Result<T, Error> {
    let until = Instant::now() + PATIENCE;
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(4));
    loop {
        match call().await {
            Err(error) if !error.needs_a_person() && backoff.pause_until(until).await => {}
            answer => return answer,
        }
    }
}
