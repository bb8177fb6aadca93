//! The self-test. The deployed function checks what it depends on, changes nothing, and reports the results.
//!
//! It is requested by invoking the function with `{"self-test": true}`. With `"alert": true` in addition, an alert that
//! is marked as a test is sent as well.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::aws::{ImageName, ImagesBy, RuleStatus, SLOW, Tried, no_answer_in};
use crate::config::Mode;
use crate::ec2::Image;
use crate::error::Error;
use crate::guard::Guard;
use crate::ids::{AccountId, AmiId};
use crate::invocation::{Delivery, answer_by};
use crate::marks::{DISCARD_TAG, DISCARD_VALUE, is_marked};
use crate::notify;
use crate::policy::Asked;
use crate::sources::disk as evidence;

/// The request for a self-test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    #[serde(rename = "self-test")]
    asked: bool,
    /// Whether to send an alert.
    #[serde(default)]
    alert: bool,
}

/// Reads the request for a self-test. `None` if the input is something else.
///
/// # Errors
/// [`Error::MalformedEvent`] if the request has anything other than what is accepted.
pub(crate) fn order(input: &Value) -> Option<Result<Order, Error>> {
    input.get("self-test")?;
    let accepted = "Accepted: {\"self-test\": true}, and optionally \"alert\": true or false";
    Some(match Order::deserialize(input) {
        Ok(order) if order.asked => Ok(order),
        Ok(_) => Err(Error::MalformedEvent(format!(
            "\"self-test\" is not true. {accepted}"
        ))),
        Err(error) => Err(Error::MalformedEvent(format!(
            "cannot parse the self-test: {error}. {accepted}"
        ))),
    })
}

/// The result of a self-test.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Always `true`, which distinguishes a report from a record.
    #[serde(rename = "self-test")]
    pub self_test: bool,
    /// Whether no check failed.
    pub ok: bool,
    /// Version of the guard.
    pub version: &'static str,
    /// Mode of the guard, which is `enforce` or `observe`.
    pub mode: &'static str,
    /// The policy that is in force.
    pub policy: PolicyInForce,
    /// The checks, with their results.
    pub checks: Vec<Check>,
}

/// The policy that is in force.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyInForce {
    /// Path of its file. Null for the built-in policy.
    pub path: Option<String>,
    /// SHA-256 of the file, as `sha256sum` prints it. Null if there is no file, or if it can no longer be read.
    pub sha256: Option<String>,
    /// Number of rules that say what images are expected to be billed as.
    pub expect_rules: usize,
    /// Number of rules that exempt images.
    pub exempt_rules: usize,
    /// Action of a discard, which is `deregister`, `disable` or `none`.
    pub action: &'static str,
    /// Largest number of discards in an hour.
    pub max_per_hour: u32,
}

/// A check, with its result.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Name of the check. It is one of:
    ///
    /// - `alert-topic`, `chat-topic`, `ledger`, `recycle-bin-rule`, `disk`, `alert`, `chat` or `time`
    /// - the name of a permission
    /// - a look-up, for example `look-up:image`
    pub check: String,
    /// The result.
    pub state: State,
    /// What was found, as a sentence.
    pub found: String,
    /// Duration of the check in milliseconds. Null if it was not measured.
    pub took_ms: Option<u64>,
}

/// Result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Ok,
    /// As it should be, but slow. The guard works, and may have to wait for it.
    Slow,
    /// Not as it should be. The guard cannot do its work.
    Failed,
    /// Unknown, for the reason that is given.
    Unknown,
}

fn check(check: impl Into<String>, state: State, found: impl Into<String>) -> Check {
    Check {
        check: check.into(),
        state,
        found: found.into(),
        took_ms: None,
    }
}

/// Duration from which a call counts as slow. EC2, SNS and DynamoDB usually answer within a second. The SDK gives up an
/// attempt after five seconds.
const USUAL: Duration = Duration::from_secs(2);

/// Duration from which a look-up that may legitimately take long counts as slow. What waits for it gives up after
/// [`SLOW`].
const LONG: Duration = Duration::from_secs(10);

/// Measures a check. Marks it as slow if it took longer than `usual`.
async fn timed(usual: Duration, work: impl Future<Output = Check>) -> Check {
    let since = Instant::now();
    // Boxed because the SDK's futures are large.
    let mut check = Box::pin(work).await;
    let took = since.elapsed();
    check.took_ms = u64::try_from(took.as_millis()).ok();
    if took > usual && check.state == State::Ok {
        check.state = State::Slow;
        check.found = format!(
            "{}; it took {:.1} seconds, and usually takes at most {}",
            check.found,
            took.as_secs_f64(),
            usual.as_secs()
        );
    }
    check
}

/// Checks what the guard depends on, and sends an alert if the request wants one. Changes nothing. What EC2 would allow
/// is asked with `DryRun`.
pub(crate) async fn test_itself(guard: &Guard, order: Order, delivery: &Delivery) -> Report {
    let mut checks = Vec::new();
    let work = Box::pin(look_at_everything(guard, order, &mut checks));
    if tokio::time::timeout_at(answer_by(delivery.deadline), work)
        .await
        .is_err()
    {
        checks.push(check(
            "time",
            State::Failed,
            "no time was left for the other checks",
        ));
    }
    for failed in checks.iter().filter(|check| check.state == State::Failed) {
        tracing::error!(
            error_type = "SelfTest",
            check = failed.check,
            "{}",
            failed.found
        );
    }
    let ok = checks.iter().all(|check| check.state != State::Failed);
    tracing::info!(ok, "the self-test is over");
    let file = guard.config.policy_path.as_ref();
    let text = file.and_then(|path| std::fs::read(path).ok());
    Report {
        self_test: true,
        ok,
        version: env!("CARGO_PKG_VERSION"),
        mode: guard.config.mode.word(),
        policy: PolicyInForce {
            path: guard.config.policy_path.clone(),
            sha256: text.map(|text| hexadecimal(&Sha256::digest(text))),
            expect_rules: guard.policy.expect.len(),
            exempt_rules: guard.policy.exempt.len(),
            action: guard.policy.action.name(),
            max_per_hour: guard.policy.max_per_hour,
        },
        checks,
    }
}

async fn look_at_everything(guard: &Guard, order: Order, checks: &mut Vec<Check>) {
    let topic = check_topic(guard, "alert-topic", guard.config.topic());
    checks.push(timed(USUAL, topic).await);
    if let Some(topic) = &guard.config.chat_topic {
        let topic = check_topic(guard, "chat-topic", topic);
        checks.push(timed(USUAL, topic).await);
    }
    checks.push(timed(USUAL, check_ledger(guard)).await);
    if let Some(rule) = guard.recycle_bin_rule() {
        let rule = check_recycle_bin_rule(guard, rule);
        checks.push(timed(USUAL, rule).await);
    }
    let image = check_permissions(guard, checks).await;
    let own = image.as_ref().and_then(|image| {
        let id = image.id.parse().ok()?;
        Some((image, id))
    });
    match own {
        Some((image, id)) => checks.extend(check_look_ups(guard, image, &id).await),
        None => checks.push(check(
            REFERENCES,
            State::Unknown,
            "not tried: the account has no image of its own to try it on",
        )),
    }
    if guard.policy.disk != Asked::Never {
        checks.push(timed(LONG, check_disk(guard, image)).await);
    }
    if order.alert {
        let scope = &guard.config.scope;
        let message = notify::test(
            scope.account.as_ref().map(AccountId::as_str),
            scope.region.as_deref(),
            guard.config.mode.word(),
            guard.runbook(),
        );
        let told = |name: &str, published: Result<(), Error>| match published {
            Ok(()) => check(name, State::Ok, "sent. Check that it arrives"),
            Err(error) => check(name, State::Failed, error.to_string()),
        };
        let published = guard.notifier.publish(&message).await;
        checks.push(told("alert", published));
        for (channel, sent) in guard.notifier.send_copies(&message).await {
            checks.push(told(channel, sent));
        }
    }
}

async fn check_topic(guard: &Guard, name: &str, topic: &str) -> Check {
    match guard.aws.confirmed_subscriptions(topic).await {
        Ok(0) => check(
            name,
            State::Failed,
            format!("{topic} has no confirmed subscription, so alerts reach no one"),
        ),
        Ok(number) => check(
            name,
            State::Ok,
            format!("confirmed subscriptions of {topic}: {number}"),
        ),
        Err(error) => check(name, State::Failed, error.to_string()),
    }
}

async fn check_ledger(guard: &Guard) -> Check {
    match (guard.ledger.check().await, &guard.config.ledger_table) {
        (Err(error), _) => check("ledger", State::Failed, error.to_string()),
        (Ok(()), Some(table)) => check(
            "ledger",
            State::Ok,
            format!("{table} can be read and written"),
        ),
        (Ok(()), None) => check(
            "ledger",
            match guard.config.mode {
                Mode::Enforce => State::Failed,
                Mode::Observe => State::Ok,
            },
            "GUARD_LEDGER_TABLE is not set. The ledger is in memory, and is lost when the process ends",
        ),
    }
}

async fn check_recycle_bin_rule(guard: &Guard, rule: &str) -> Check {
    let (state, found) = match guard.aws.recycle_bin_rule(rule).await {
        Ok(RuleStatus::Available) => (State::Ok, format!("{rule} is available")),
        Ok(RuleStatus::Pending) => (
            State::Unknown,
            format!(
                "{rule} is pending, and the guard holds discards until it is available. The first rule of a Region \
                 takes up to 30 minutes"
            ),
        ),
        Err(error) if error.needs_a_person() => (State::Failed, error.to_string()),
        Err(error) => (State::Unknown, error.to_string()),
    };
    check("recycle-bin-rule", state, found)
}

/// Makes the look-ups that judging and discarding an image need. They are concurrent, as they are for a discard.
async fn check_look_ups(guard: &Guard, image: &Image, id: &AmiId) -> Vec<Check> {
    let region = guard.config.scope.region.as_deref().unwrap_or_default();
    let name = ImageName::of(id, region, guard.config.topic());
    let snapshot = image.root_snapshot.as_deref();
    let on: Vec<&str> = snapshot.into_iter().collect();
    let found = |what: &str, number: usize| format!("{what}: {number}");
    let seen = async {
        let described = guard.aws.describe_image(id).await;
        looked_up(
            "look-up:image",
            described.map(|_| format!("looked up {id}")),
        )
    };
    let root_snapshot = async {
        let Some(snapshot) = snapshot else {
            let why = "not tried: the image has no root snapshot";
            return check("look-up:root-snapshot", State::Unknown, why);
        };
        let seen = guard.aws.describe_snapshot(snapshot).await;
        let seen = seen.map(|_| format!("looked up {snapshot}"));
        looked_up("look-up:root-snapshot", seen)
    };
    let images = async |name, by| {
        if on.is_empty() {
            return check(
                name,
                State::Unknown,
                "not tried: the image has no root snapshot",
            );
        }
        let images = guard.aws.images(by, &on);
        let images = match tokio::time::timeout(SLOW, images).await {
            Ok(images) => images,
            Err(_) => Err(no_answer_in("ec2:DescribeImages", "*", SLOW)),
        };
        let what = "images on the same root snapshot";
        looked_up(name, images.map(|images| found(what, images.len())))
    };
    let references = async {
        let references = guard.aws.image_references(&name).await;
        let what = format!("references to {id}");
        looked_up(REFERENCES, references.map(|all| found(&what, all.len())))
    };
    let (seen, root_snapshot, own, published, references) = tokio::join!(
        timed(USUAL, seen),
        timed(USUAL, root_snapshot),
        timed(USUAL, images("look-up:own-images", ImagesBy::OwnOn)),
        timed(
            LONG,
            images("look-up:published-images", ImagesBy::PublishedOn)
        ),
        timed(LONG, references),
    );
    vec![seen, root_snapshot, own, published, references]
}

/// Reads the disk of the image's root snapshot.
async fn check_disk(guard: &Guard, image: Option<Image>) -> Check {
    if let Err(why) = guard.reader.check(evidence::TIME).await {
        return check("disk", State::Failed, why);
    }
    let Some(snapshot) = image.and_then(|image| image.root_snapshot) else {
        let why = "not tried: the account has no image of its own whose disk the guard could read";
        return check("disk", State::Unknown, why);
    };
    if let (Ok(Some(seen)), Some(account)) = (
        guard.aws.describe_snapshot(&snapshot).await,
        &guard.config.scope.account,
    ) && seen.owner.as_deref() != Some(account.as_str())
    {
        let why = format!("not tried: {snapshot} belongs to another account");
        return check("disk", State::Unknown, why);
    }
    match evidence::look_at(
        &guard.aws,
        &guard.reader,
        guard.policy.disk_max_blocks,
        &snapshot,
    )
    .await
    {
        Ok(found) => check("disk", State::Ok, found),
        Err(Error::AccessDenied {
            permission: crate::aws::KMS,
            message,
            ..
        }) => check(
            "disk",
            State::Unknown,
            format!("{snapshot} is encrypted with a key that the guard may not use: {message}"),
        ),
        Err(error) if error.needs_a_person() => check("disk", State::Failed, error.to_string()),
        Err(error) => check("disk", State::Unknown, error.to_string()),
    }
}

/// Asks EC2 what the guard may do. Permissions for an image are tried on one of the account's own images. One with the
/// guard's mark is preferred, because the template's role can discard no other. Returns that image.
async fn check_permissions(guard: &Guard, checks: &mut Vec<Check>) -> Option<Image> {
    let images = match guard
        .aws
        .own_images(&format!("tag:{DISCARD_TAG}"), DISCARD_VALUE)
        .await
    {
        Ok(marked) if marked.is_empty() => guard.aws.own_images("state", "available").await,
        images => images,
    };
    let image = match images {
        Ok(images) => {
            checks.push(check("ec2:DescribeImages", State::Ok, "allowed"));
            images.into_iter().next()
        }
        Err(error) => {
            checks.push(check(
                "ec2:DescribeImages",
                State::Failed,
                error.to_string(),
            ));
            None
        }
    };
    for (permission, tried) in guard.aws.try_to_look().await {
        checks.push(of_permission(permission, "*", &tried));
    }
    let own = image.as_ref().and_then(|image| {
        let id = image.id.parse().ok()?;
        Some((image, id))
    });
    let Some((image, id)) = own else {
        for permission in crate::aws::ON_AN_IMAGE {
            let why = "not tried: the account has no image of its own to try it on";
            checks.push(check(permission, State::Unknown, why));
        }
        return None;
    };
    let region = guard.config.scope.region.as_deref().unwrap_or_default();
    let name = ImageName::of(&id, region, guard.config.topic());
    let snapshot = image.root_snapshot.as_deref();
    for (permission, tried) in guard.aws.try_on_image(&name, snapshot).await {
        checks.push(match (permission, &tried) {
            ("ec2:DeregisterImage" | "ec2:DisableImage", Tried::Allowed) if !is_marked(image) => check(
                permission,
                State::Ok,
                format!("allowed on {id}, although it does not have the guard's mark. The role allows more than the \
                         template's"),
            ),
            ("ec2:DeregisterImage" | "ec2:DisableImage", Tried::Denied(_)) if !is_marked(image) => check(
                permission,
                State::Unknown,
                format!("denied on {id} as intended, because it does not have the guard's mark. Only an image with the \
                         mark can show whether the guard may discard it"),
            ),
            _ => of_permission(permission, id.as_str(), &tried),
        });
    }
    Some(image.clone())
}

/// Check for what refers to an image. It is named after the first permission that it needs.
const REFERENCES: &str = "ec2:DescribeImageReferences";

fn looked_up(name: &str, answer: Result<String, Error>) -> Check {
    match answer {
        Ok(found) => check(name, State::Ok, found),
        Err(error) if error.needs_a_person() => check(name, State::Failed, error.to_string()),
        Err(error) => check(name, State::Unknown, error.to_string()),
    }
}

fn of_permission(permission: &str, resource: &str, tried: &Tried) -> Check {
    match tried {
        Tried::Allowed => check(permission, State::Ok, format!("allowed on {resource}")),
        Tried::Denied(message) => check(
            permission,
            State::Failed,
            format!("missing on {resource}: {message}"),
        ),
        Tried::Unknown(why) => check(
            permission,
            State::Unknown,
            format!("could not be determined on {resource}: {why}"),
        ),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
