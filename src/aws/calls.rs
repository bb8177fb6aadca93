//! Helpers for calls that are paginated, name ids, take long, or must not be repeated.

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

/// Largest page size that DescribeImages, DescribeSnapshots, DescribeVolumes and DescribeInstances all accept (EC2 API
/// reference).
pub(super) const MOST_IN_A_PAGE: i32 = 500;

/// Largest number of values in a filter (EC2 API reference, "Filter").
pub(crate) const MOST_VALUES: usize = 200;

/// Time limit for DescribeImageReferences, and for a search among the images of all accounts. Reports say that such a
/// search takes 8 to 50 seconds.
pub(crate) const SLOW: Duration = Duration::from_secs(25);

/// A page of a list as EC2 returned it: its items and the token of the next page.
type ListPage<T> = (Option<Vec<T>>, Option<String>);

/// All items of a paginated list. A page may be empty and still have a token, so the last page is the one without a
/// token (EC2 API reference, "Query requests").
///
/// # Errors
/// [`Error`] if a page fails, lacks its list, or leads back to an earlier one.
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
        // Boxed because the SDK's futures are large.
        let (items, next) = Box::pin(page(token.clone())).await?;
        all.extend(present_list(call, resource, items)?);
        match non_empty(next) {
            None => return Ok(all),
            Some(next) if !seen.insert(next.clone()) => {
                return Err(Error::Unavailable {
                    call,
                    resource: resource.to_owned(),
                    message: "the answer is incomplete: a page leads back to an earlier one".into(),
                });
            }
            next => token = next,
        }
    }
}

/// The items with these ids. `all` is EC2's answer to a request that names the ids. It is the complete list if it has
/// no token. A single unknown id fails the whole call with one of the `unknown` codes. `listed` then requests the items
/// through a filter, which leaves unknown ids out.
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
        // Boxed because the SDK's futures are large.
        Ok(_) | Err(_) => Box::pin(listed()).await,
    }
}

/// Configuration for calls that may legitimately take long. One attempt may use the time of the whole call, [`SLOW`].
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
