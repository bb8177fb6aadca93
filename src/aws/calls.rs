//! How calls are made that give pages, name ids, or must not be repeated or hurried.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};

use super::connections;
use super::convert::{non_empty, present_list};
use super::errors::{classify, is_one_of};
use crate::error::Error;

/// The most items of a page of images, snapshots, volumes and instances that all of these take (EC2 API reference).
pub(super) const MOST_IN_A_PAGE: i32 = 500;

/// The most values of a filter (EC2 API reference, "Filter").
pub(crate) const MOST_VALUES: usize = 200;

/// What DescribeImageReferences, and a search among everybody's images, may take. Reports have 8 to 50 seconds for the
/// latter.
pub(crate) const SLOW: Duration = Duration::from_secs(25);

/// A page of a list as it came: its items, and the token of the next one.
pub(super) type ListPage<T> = (Option<Vec<T>>, Option<String>);

/// All pages of a list. A page may be empty and have a token, so the last one is the one without (EC2 API reference,
/// "Query requests").
pub(super) async fn all_pages<T, F>(
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

/// What EC2 shows of these ids: `all` is its answer to them, and that is the whole list, if there is no token. One id
/// that is not known fails the whole call, with an `unknown` code; what is `listed` with a filter leaves it out.
pub(super) async fn by_id<T, E, F>(
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

/// For calls that may rightly take long: no limit of an attempt but that of whoever waits for all of it.
pub(super) fn slowly() -> aws_sdk_ec2::config::Builder {
    let limits = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(2))
        .operation_attempt_timeout(SLOW)
        .operation_timeout(SLOW);
    aws_sdk_ec2::config::Builder::new().timeout_config(limits.build())
}

pub(super) fn in_one_attempt() -> aws_sdk_ec2::config::Builder {
    aws_sdk_ec2::config::Builder::new()
        .retry_config(RetryConfig::disabled())
        .interceptor(connections::OnItsOwn)
}
