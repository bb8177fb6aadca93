//! EventBridge JSON → [`Registration`], or the reason why there is nothing to judge.
//!
//! Two kinds of event report a new AMI. One is the CloudTrail record of `RegisterImage`. The other is the "EC2 AMI
//! State Change" event with State `available` (Amazon EC2 User Guide, "Monitor AMI events using Amazon EventBridge").
//! It also covers CreateImage, CopyImage and restores. Tags in an event are never read, because a tag that was set is
//! on the image.

use std::collections::BTreeSet;

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;
use crate::escape::quoted;
use crate::ids::{AccountId, AmiId};

/// An AMI that came into existence, as an event reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The new image.
    pub image_id: AmiId,
    /// The account in which it was registered.
    pub account: AccountId,
    /// The Region in which it was registered.
    pub region: String,
    /// EventBridge's id of the event, the same for each delivery of it.
    pub event_id: String,
    /// When it was registered.
    pub time: DateTime<Utc>,
    /// Who registered it, if the event says so.
    pub registered_by: RegisteredBy,
    /// The billing product codes (`bp-…`) that the request asked for. Only accounts that AWS has authorised may do so
    /// (EC2 API reference, "RegisterImage").
    pub billing_products: BTreeSet<String>,
    /// Whether Packer made the request, according to the user agent.
    pub by_packer: bool,
}

impl Registration {
    /// A registration that no event reported. Only the image and its creation time are known. `by` takes the place of
    /// the event's id.
    pub(crate) fn without_event(
        image_id: AmiId,
        account: AccountId,
        region: &str,
        by: &str,
        time: DateTime<Utc>,
    ) -> Registration {
        Registration {
            image_id,
            account,
            region: region.to_owned(),
            event_id: by.to_owned(),
            time,
            registered_by: RegisteredBy::Unknown,
            billing_products: Default::default(),
            by_packer: false,
        }
    }
}

/// Who registered an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisteredBy {
    /// CloudTrail's `userIdentity`.
    Identity {
        /// The caller's ARN, or another name of the caller. At most 2,048 characters.
        caller: String,
        /// The AWS service that made the call on behalf of another caller (`drs.amazonaws.com`). At most 2,048
        /// characters.
        service: Option<String>,
    },
    /// The event does not say. A state change never does.
    Unknown,
}

/// What an event means to the guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A successful registration.
    Registration(Registration),
    /// The template's hourly rule: time for a digest.
    Digest(Digest),
    /// The template's schedule: time for an audit.
    Audit(Audit),
    /// Anything else.
    Ignored(Ignored),
}

/// An event that requests the digest of the images that were over an hourly limit. (EventBridge User Guide, "Creating a
/// rule that runs on a schedule".)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// EventBridge's id of the event.
    pub event_id: String,
    /// The account.
    pub account: AccountId,
    /// The Region.
    pub region: String,
}

/// An event that requests an audit of all images. The template's schedule generates it. (EventBridge Scheduler User
/// Guide, "Adding context attributes".)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// EventBridge Scheduler's id of its attempt to deliver the event.
    pub event_id: String,
    /// The account.
    pub account: AccountId,
    /// The Region.
    pub region: String,
    /// The time for which it was scheduled, the same for each delivery of it.
    pub time: DateTime<Utc>,
}

/// An event that is not a successful registration in this account and Region, with what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// EventBridge's id of the event.
    pub event_id: Option<String>,
    /// The account that the event came from.
    pub account: Option<String>,
    /// The Region that the event came from.
    pub region: Option<String>,
    /// Why it is ignored.
    pub reason: String,
}

/// Whose events the guard accepts. A member that is `None` accepts any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The account (`GUARD_ACCOUNT_ID`).
    pub account: Option<AccountId>,
    /// The Region (`AWS_REGION`).
    pub region: Option<String>,
}

/// The few members of a CloudTrail record that the guard reads. `aws_lambda_events` has such a type, but it lacks
/// `errorCode`, and requires members that real records often lack.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ApiCall {
    event_name: String,
    error_code: Option<String>,
    error_message: Option<String>,
    aws_region: Option<String>,
    recipient_account_id: Option<String>,
    #[serde(rename = "sourceIPAddress")]
    source_ip_address: Option<String>,
    user_agent: Option<String>,
    user_identity: Option<UserIdentity>,
    #[serde(default)]
    session_credential_from_console: Value,
    #[serde(default)]
    request_parameters: Value,
    response_elements: Option<ResponseElements>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UserIdentity {
    r#type: Option<String>,
    arn: Option<String>,
    principal_id: Option<String>,
    invoked_by: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResponseElements {
    image_id: Option<String>,
}

/// `detail` of "EC2 AMI State Change".
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StateChange {
    image_id: Option<String>,
    state: Option<String>,
}

/// Id of an event for the log, even if the rest cannot be read as an event.
pub(crate) fn id_of(event: &Value) -> Option<String> {
    event.get("id").and_then(Value::as_str).map(shortened)
}

/// Parses one event.
///
/// # Errors
/// [`Error::MalformedEvent`] if the input is not an EventBridge event. Also if it claims to be a successful
/// registration and lacks something that is needed.
pub fn parse(event: Value, scope: &Scope) -> Result<Incoming, Error> {
    let event: EventBridgeEvent<Value> = serde_json::from_value(event)
        .map_err(|error| malformed(format!("not an EventBridge event: {error}")))?;
    let ignored = |reason: String| {
        Ok(Incoming::Ignored(Ignored {
            event_id: event.id.as_deref().map(shortened),
            account: event.account.as_deref().map(shortened),
            region: event.region.as_deref().map(shortened),
            reason,
        }))
    };
    let elsewhere = |what: &str, given: &Option<String>, meant: Option<&str>| match (given, meant) {
        (Some(given), Some(meant)) if given != meant => Some(format!(
            "the event is from {what} {}, and this guard is for {meant}",
            quoted(given)
        )),
        _ => None,
    };
    if let Some(reason) = elsewhere(
        "account",
        &event.account,
        scope.account.as_ref().map(AccountId::as_str),
    )
    .or_else(|| elsewhere("Region", &event.region, scope.region.as_deref()))
    {
        return ignored(reason);
    }

    let (image_id, registered_by, billing_products, by_packer) = match tells(&event)? {
        Tells::Registered {
            image_id,
            by,
            billing_products,
            by_packer,
        } => (image_id, by, billing_products, by_packer),
        Tells::OfTheHour => {
            let (event_id, account, region) = address(&event)?;
            return Ok(Incoming::Digest(Digest {
                event_id,
                account,
                region,
            }));
        }
        Tells::OfTheSchedule => {
            let (event_id, account, region) = address(&event)?;
            return Ok(Incoming::Audit(Audit {
                event_id,
                account,
                region,
                time: needed("a time", event.time)?,
            }));
        }
        Tells::OfSomethingElse(what) => return ignored(what),
    };

    let image_id = needed("an image id", image_id.filter(|id| !id.is_empty()))?
        .parse()
        .map_err(malformed)?;
    let (event_id, account, region) = address(&event)?;
    Ok(Incoming::Registration(Registration {
        image_id,
        account,
        region,
        event_id,
        time: needed("a time", event.time)?,
        registered_by,
        billing_products,
        by_packer,
    }))
}

/// Id, account and Region of an event.
fn address(event: &EventBridgeEvent<Value>) -> Result<(String, AccountId, String), Error> {
    let text = |what: &str, value: &Option<String>| {
        needed(what, value.clone().filter(|value| !value.is_empty()))
    };
    let account = text("an account", &event.account)?;
    Ok((
        name_of("event id", text("an event id", &event.id)?)?,
        account.parse().map_err(malformed)?,
        name_of("Region", text("a Region", &event.region)?)?,
    ))
}

fn needed<T>(what: &str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| malformed(format!("the event lacks {what}")))
}

/// What an event reports, wherever it comes from.
enum Tells {
    Registered {
        image_id: Option<String>,
        by: RegisteredBy,
        billing_products: BTreeSet<String>,
        by_packer: bool,
    },
    OfTheHour,
    OfTheSchedule,
    OfSomethingElse(String),
}

fn tells(event: &EventBridgeEvent<Value>) -> Result<Tells, Error> {
    match (event.source.as_str(), event.detail_type.as_str()) {
        ("aws.ec2", "AWS API Call via CloudTrail") => api_call_tells(event),
        ("aws.ec2", "EC2 AMI State Change") => state_change_tells(event),
        ("aws.events", "Scheduled Event") => Ok(Tells::OfTheHour),
        ("ami-billing-guard", "Audit") => Ok(Tells::OfTheSchedule),
        (source, detail_type) => Ok(Tells::OfSomethingElse(format!(
            "the event is {} from {}, not a registration",
            quoted(detail_type),
            quoted(source)
        ))),
    }
}

fn api_call_tells(event: &EventBridgeEvent<Value>) -> Result<Tells, Error> {
    let name = event.detail.get("eventName").and_then(Value::as_str);
    if let Some(name) = name.filter(|name| *name != "RegisterImage") {
        let what = format!("the call was {}, not RegisterImage", quoted(name));
        return Ok(Tells::OfSomethingElse(what));
    }
    let call = ApiCall::deserialize(&event.detail)
        .map_err(|error| malformed(format!("cannot parse the CloudTrail record: {error}")))?;
    if let Some(code) = &call.error_code {
        return Ok(Tells::OfSomethingElse(format!(
            "{} did not register anything: {} {}",
            call.event_name,
            quoted(code),
            quoted(call.error_message.as_deref().unwrap_or_default())
        )));
    }
    let inside_and_outside = [
        (
            "recipientAccountId",
            &call.recipient_account_id,
            &event.account,
        ),
        ("awsRegion", &call.aws_region, &event.region),
    ];
    for (what, inside, outside) in inside_and_outside {
        if inside.is_some() && inside != outside {
            return Err(malformed(format!(
                "the CloudTrail record's {what} differs from that of the event around it"
            )));
        }
    }
    if call.response_elements.is_none() {
        return Err(malformed(
            "the CloudTrail record has neither responseElements nor errorCode, so it does not name the image"
                .into(),
        ));
    }
    // `[APN/1.0 HashiCorp/1.0 Packer/1.11.2 (+https://www.packer.io/; …) aws-sdk-go/…]`
    let agent = call.user_agent.unwrap_or_default();
    Ok(Tells::Registered {
        by_packer: agent.to_ascii_lowercase().contains("packer/"),
        image_id: call.response_elements.and_then(|answer| answer.image_id),
        by: identity(
            call.user_identity,
            call.source_ip_address,
            is_true(&call.session_credential_from_console),
        ),
        billing_products: billing_products(&call.request_parameters),
    })
}

fn state_change_tells(event: &EventBridgeEvent<Value>) -> Result<Tells, Error> {
    let change = StateChange::deserialize(&event.detail)
        .map_err(|error| malformed(format!("cannot parse the state change: {error}")))?;
    match change.state.as_deref() {
        Some("available") => Ok(Tells::Registered {
            image_id: change.image_id,
            by: RegisteredBy::Unknown,
            billing_products: BTreeSet::new(),
            by_packer: false,
        }),
        Some(state) => Ok(Tells::OfSomethingElse(format!(
            "the image's state is {}",
            quoted(state)
        ))),
        None => Err(malformed("the state change has no State".into())),
    }
}

/// The `bp-…` codes that a request names, 16 at most. No public record shows how CloudTrail writes this list. Other
/// lists of EC2 come as `{"items": [{"billingProduct": …}]}`. Everything below the key is therefore searched for texts
/// that can only be codes.
fn billing_products(request: &Value) -> BTreeSet<String> {
    const MOST: usize = 16;
    let keys = ["billingProducts", "billingProductSet", "billingProduct"];
    let mut values: Vec<&Value> = keys.iter().filter_map(|key| request.get(key)).collect();
    let mut codes = BTreeSet::new();
    while let Some(value) = values.pop()
        && codes.len() < MOST
    {
        match value {
            Value::String(text) if is_billing_product(text) => {
                codes.insert(text.clone());
            }
            Value::Array(items) => values.extend(items),
            Value::Object(members) => values.extend(members.values()),
            _ => {}
        }
    }
    codes
}

fn is_billing_product(text: &str) -> bool {
    text.strip_prefix("bp-").is_some_and(|digits| {
        matches!(digits.len(), 1..=17) && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

/// Whether a member of a record is true. CloudTrail writes `"true"`.
fn is_true(value: &Value) -> bool {
    *value == Value::Bool(true) || value.as_str() == Some("true")
}

fn malformed(what: String) -> Error {
    Error::MalformedEvent(what)
}

/// Checks a Region or an event id. It becomes part of ARNs, commands and a tag, so only the characters of such names
/// are accepted.
fn name_of(what: &str, name: String) -> Result<String, Error> {
    let fits = name.len() <= 64
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fits {
        Ok(name)
    } else {
        Err(malformed(format!(
            "{} is not a valid {what}. Accepted: at most 64 letters, digits and hyphens",
            quoted(&name)
        )))
    }
}

/// Who made the call.
///
/// If an AWS service made it, CloudTrail gives the service's name as `invokedBy` and as the source address
/// (`drs.amazonaws.com`, `AWS Internal/3`). It also gives the type `AWSService`. A service that acts in an account uses
/// its service-linked role (CloudTrail User Guide, "CloudTrail userIdentity element" and "CloudTrail record contents").
/// One of these signs is enough, because mistaking a service for a person could end a failover.
///
/// The console is a person's tool, not a service. Its calls have `invokedBy: signin.amazonaws.com`, or
/// `sessionCredentialFromConsole` and the address `AWS Internal` (cloud-custodian, issue 5461).
fn identity(
    user: Option<UserIdentity>,
    source_address: Option<String>,
    from_console: bool,
) -> RegisteredBy {
    let Some(user) = user else {
        return RegisteredBy::Unknown;
    };
    let is_service = |name: &String| name != CONSOLE;
    let from_console = from_console || user.invoked_by.as_deref() == Some(CONSOLE);
    let by_address = source_address.filter(|address| {
        (address.ends_with(".amazonaws.com") && is_service(address))
            || (address.starts_with("AWS Internal") && !from_console)
    });
    let by_type = user.r#type.filter(|r#type| r#type == "AWSService");
    let arn = user.arn.or(user.principal_id);
    let by_role = arn.clone().filter(|arn| is_of_service_role(arn));
    let by_name = user.invoked_by.filter(is_service);
    let by_name = by_name.filter(|name| !(from_console && name.starts_with("AWS Internal")));
    let service = by_name.or(by_address).or(by_role).or(by_type);
    match arn.or_else(|| service.clone()) {
        Some(caller) => RegisteredBy::Identity {
            caller: shortened(&caller),
            service: service.as_deref().map(shortened),
        },
        None => RegisteredBy::Unknown,
    }
}

/// Whether an ARN is of a service-linked role, or of a session of one. The session's name proves nothing, because the
/// caller who assumes a role chooses it. A user or a group may have any name (IAM User Guide, "IAM identifiers").
fn is_of_service_role(arn: &str) -> bool {
    let resource = arn.splitn(6, ':').nth(5).unwrap_or_default();
    resource.starts_with("assumed-role/AWSServiceRoleFor")
        || resource.starts_with("role/aws-service-role/")
}

/// The name under which the console makes a person's calls.
pub(crate) const CONSOLE: &str = "signin.amazonaws.com";

/// Cuts a text to 2,048 characters, the length of the longest ARN (IAM). A longer text is not an ARN, and must not fill
/// an alert.
fn shortened(text: &str) -> String {
    text.chars().take(2048).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn registration() -> Value {
        json!({
            "version": "0", "id": "7bf73129-1428-4cd3-a780-95db273d1602",
            "detail-type": "AWS API Call via CloudTrail", "source": "aws.ec2",
            "account": "123456789012", "region": "eu-west-1", "time": "2026-11-20T10:00:00Z",
            "resources": [],
            "detail": {
                "eventSource": "ec2.amazonaws.com", "eventName": "RegisterImage",
                "awsRegion": "eu-west-1", "recipientAccountId": "123456789012",
                "sourceIPAddress": "198.51.100.7",
                "userIdentity": { "type": "IAMUser", "arn": "arn:aws:iam::123456789012:user/builder" },
                "requestParameters": { "name": "base" },
                "responseElements": { "imageId": "ami-0a1b2c3d4e5f60001" }
            }
        })
    }

    fn state_change(state: &str) -> Value {
        json!({
            "version": "0", "id": "e1", "detail-type": "EC2 AMI State Change", "source": "aws.ec2",
            "account": "123456789012", "region": "eu-west-1", "time": "2026-11-20T10:00:00Z",
            "resources": ["arn:aws:ec2:eu-west-1::image/ami-0a1b2c3d4e5f60001"],
            "detail": { "RequestId": "r", "ImageId": "ami-0a1b2c3d4e5f60001", "State": state, "ErrorMessage": "" }
        })
    }

    fn with(pointer: &str, value: Value) -> Value {
        let mut event = registration();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        event
            .pointer_mut(parent)
            .and_then(Value::as_object_mut)
            .unwrap()
            .insert(key.into(), value);
        event
    }

    fn here() -> Scope {
        Scope {
            account: Some("123456789012".parse().unwrap()),
            region: Some("eu-west-1".into()),
        }
    }

    fn ignored_because(event: Value, part: &str) {
        match parse(event, &here()) {
            Ok(Incoming::Ignored(ignored)) => {
                assert!(ignored.reason.contains(part), "{}", ignored.reason)
            }
            other => panic!("{other:?}"),
        }
    }

    fn malformed_because(event: Value, part: &str) {
        match parse(event, &here()) {
            Err(Error::MalformedEvent(why)) => assert!(why.contains(part), "{why}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_register_image_call_is_a_registration() {
        let Ok(Incoming::Registration(found)) = parse(registration(), &here()) else {
            panic!()
        };
        assert_eq!(found.image_id.as_str(), "ami-0a1b2c3d4e5f60001");
        assert_eq!(found.account.as_str(), "123456789012");
        assert_eq!(found.region, "eu-west-1");
        assert_eq!(found.event_id, "7bf73129-1428-4cd3-a780-95db273d1602");
        assert_eq!(found.time.to_rfc3339(), "2026-11-20T10:00:00+00:00");
        assert_eq!(
            found.registered_by,
            RegisteredBy::Identity {
                caller: "arn:aws:iam::123456789012:user/builder".into(),
                service: None
            }
        );
    }

    #[test]
    fn an_image_that_became_available_is_a_registration_by_nobody_known() {
        let Ok(Incoming::Registration(found)) = parse(state_change("available"), &here()) else {
            panic!()
        };
        assert_eq!(found.image_id.as_str(), "ami-0a1b2c3d4e5f60001");
        assert_eq!(found.registered_by, RegisteredBy::Unknown);
    }

    #[test]
    fn other_states_are_ignored() {
        for state in ["failed", "deregistered", "disabled", "pending"] {
            ignored_because(state_change(state), state);
        }
    }

    #[test]
    fn failed_calls_and_dry_runs_are_ignored() {
        for code in [
            "Client.DryRunOperation",
            "Client.InvalidSnapshot.NotFound",
            "Server.InternalError",
        ] {
            let mut event = with("/detail/errorCode", json!(code));
            event["detail"]["responseElements"] = Value::Null;
            ignored_because(event, code);
        }
    }

    #[test]
    fn other_calls_are_ignored() {
        for call in [
            "CreateImage",
            "CopyImage",
            "DeregisterImage",
            "ModifyImageAttribute",
        ] {
            ignored_because(with("/detail/eventName", json!(call)), call);
        }
    }

    #[test]
    fn events_of_other_accounts_and_regions_are_ignored() {
        ignored_because(with("/account", json!("210987654321")), "account");
        ignored_because(with("/region", json!("us-east-1")), "Region");
    }

    #[test]
    fn events_of_other_kinds_are_ignored() {
        ignored_because(
            with(
                "/detail-type",
                json!("EC2 Instance State-change Notification"),
            ),
            "not a registration",
        );
        ignored_because(with("/source", json!("my.app")), "my.app");
    }

    #[test]
    fn a_registration_that_lacks_what_is_needed_is_malformed() {
        malformed_because(
            with("/detail/responseElements", Value::Null),
            "neither responseElements",
        );
        malformed_because(with("/detail/responseElements", json!({})), "image id");
        malformed_because(
            with("/detail/responseElements", json!({"imageId": "ami-XYZ"})),
            "not an AMI id",
        );
        malformed_because(
            with("/detail/responseElements", json!({"imageId": 7})),
            "CloudTrail record",
        );
        malformed_because(with("/account", Value::Null), "recipientAccountId");
        let mut event = with("/account", Value::Null);
        event["detail"]["recipientAccountId"] = Value::Null;
        malformed_because(event, "account");
        let mut event = with("/region", Value::Null);
        event["detail"]["awsRegion"] = Value::Null;
        malformed_because(event, "Region");
        malformed_because(with("/id", Value::Null), "event id");
        malformed_because(with("/id", json!("a\nb")), "event id");
        malformed_because(with("/time", Value::Null), "time");
        malformed_because(with("/detail/eventName", Value::Null), "CloudTrail record");
        malformed_because(json!({"foo": 1}), "not an EventBridge event");
        malformed_because(json!([1, 2]), "not an EventBridge event");
        malformed_because(json!("text"), "not an EventBridge event");
    }

    #[test]
    fn a_record_of_another_account_inside_this_accounts_event_is_malformed() {
        malformed_because(
            with("/detail/recipientAccountId", json!("210987654321")),
            "recipientAccountId",
        );
        malformed_because(with("/detail/awsRegion", json!("us-east-1")), "awsRegion");
    }

    fn registered_by(event: Value) -> RegisteredBy {
        match parse(event, &here()) {
            Ok(Incoming::Registration(registration)) => registration.registered_by,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn any_sign_of_a_service_names_the_service() {
        let role =
            "arn:aws:sts::123456789012:assumed-role/AWSServiceRoleForElasticDisasterRecovery/s";
        let events = [
            with("/detail/userIdentity/invokedBy", json!("drs.amazonaws.com")),
            with("/detail/sourceIPAddress", json!("drs.amazonaws.com")),
            with("/detail/sourceIPAddress", json!("AWS Internal")),
            with("/detail/userIdentity/arn", json!(role)),
            with("/detail/userIdentity", json!({ "type": "AWSService" })),
        ];
        for event in events {
            match registered_by(event.clone()) {
                RegisteredBy::Identity { service, .. } => assert!(service.is_some(), "{event}"),
                RegisteredBy::Unknown => panic!("{event}"),
            }
        }
    }

    /// The caller who assumes a role chooses the session's name. The creator of a user chooses the user's name.
    #[test]
    fn regression_who_is_a_service_is_not_decided_by_the_name_of_a_session_or_a_user() {
        let service_of =
            |arn: &str| match registered_by(with("/detail/userIdentity/arn", json!(arn))) {
                RegisteredBy::Identity { service, .. } => service,
                RegisteredBy::Unknown => panic!("{arn}"),
            };
        for person in [
            "arn:aws:sts::123456789012:assumed-role/packer/AWSServiceRoleForX",
            "arn:aws:sts::123456789012:assumed-role/packer/AWSServiceRoleForAmazonEC2",
            "arn:aws:iam::123456789012:user/AWSServiceRoleForX",
            "arn:aws:iam::123456789012:role/x/aws-service-role/y",
            "arn:aws:sts::123456789012:federated-user/AWSServiceRoleForX",
        ] {
            assert_eq!(service_of(person), None, "{person}");
        }
        for service in [
            "arn:aws-us-gov:sts::123456789012:assumed-role/AWSServiceRoleForX/packer",
            "arn:aws:iam::123456789012:role/aws-service-role/drs.amazonaws.com/AWSServiceRoleForX",
        ] {
            assert_eq!(service_of(service).as_deref(), Some(service));
        }
    }

    #[test]
    fn an_identity_that_names_nobody_is_unknown() {
        for identity in [json!({ "type": "AssumedRole" }), json!({}), Value::Null] {
            let event = with("/detail/userIdentity", identity);
            assert_eq!(registered_by(event), RegisteredBy::Unknown);
        }
    }

    #[test]
    fn outside_text_of_any_length_is_cut() {
        let long = "x".repeat(1_000_000);
        let mut event = with("/detail/userIdentity/arn", json!(long));
        event["detail"]["sourceIPAddress"] = json!(format!("{long}.amazonaws.com"));
        match registered_by(event) {
            RegisteredBy::Identity { caller, service } => {
                assert!(caller.len() + service.unwrap().len() <= 4096);
            }
            RegisteredBy::Unknown => panic!(),
        }
        let mut event = with("/account", json!(long));
        event["id"] = json!(long);
        match parse(event, &here()) {
            Ok(Incoming::Ignored(ignored)) => {
                assert!(ignored.event_id.unwrap().len() + ignored.account.unwrap().len() <= 4096);
                assert!(ignored.reason.len() < 1000);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn billing_products_are_read_however_the_list_is_written() {
        let code = "bp-6ba54002";
        for (written, expected) in [
            (json!({ "items": [{ "billingProduct": code }] }), vec![code]),
            (json!([code, "bp-6fa54006"]), vec![code, "bp-6fa54006"]),
            (json!(code), vec![code]),
            (json!({ "items": [] }), vec![]),
            (json!(null), vec![]),
            (
                json!([7, "bp-", "bp-xyz", "ami-6ba54002", "bp-6ba54002 "]),
                vec![],
            ),
        ] {
            let event = with("/detail/requestParameters/billingProducts", written.clone());
            let Ok(Incoming::Registration(registration)) = parse(event, &Scope::default()) else {
                panic!("{written}");
            };
            let codes: Vec<&str> = registration
                .billing_products
                .iter()
                .map(String::as_str)
                .collect();
            assert_eq!(codes, expected, "{written}");
        }
    }
}
