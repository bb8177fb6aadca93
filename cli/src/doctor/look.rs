//! The calls that doctor makes. All of them only read.

use std::collections::BTreeMap;

use ami_billing_guard::{Aws, Error, QueueDepth, RuleStatus, classify};
use aws_config::Region;
use aws_sdk_cloudtrail::types::{AdvancedEventSelector, EventSelector};

/// A stack that CloudFormation knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stack {
    pub(super) status: String,
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) outputs: BTreeMap<String, String>,
}

impl Stack {
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    pub(super) fn output(&self, name: &str) -> Option<&str> {
        self.outputs.get(name).map(String::as_str)
    }

    /// Whether it was deployed from the guard's template. A stack that was never complete has no outputs.
    pub(super) fn is_of_the_guard(&self) -> bool {
        ["GuardFunctionName", "AlertTopicArn"]
            .iter()
            .all(|output| self.outputs.contains_key(*output))
    }

    /// Whether its events come from CloudTrail.
    pub(super) fn needs_a_trail(&self) -> bool {
        self.parameter("Trigger") != Some("state-change")
    }

    pub(super) fn has_chat_topic(&self) -> bool {
        self.parameter("ChatNotifications") == Some("on")
            || self.outputs.contains_key("ChatTopicArn")
    }
}

/// DescribeStacks: the stack of this name. `None` if there is none.
pub(super) async fn stack(aws: &Aws, name: &str) -> Result<Option<Stack>, Error> {
    let call = "cloudformation:DescribeStacks";
    let client = aws_sdk_cloudformation::Client::new(aws.sdk_config());
    let answer = client.describe_stacks().stack_name(name).send().await;
    let answer = match answer.map_err(|error| classify(call, name, &error)) {
        Ok(answer) => answer,
        // CloudFormation has no code of its own for this.
        Err(Error::Refused { code, message, .. })
            if code == "ValidationError" && message.contains("does not exist") =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let stack = answer.stacks.into_iter().flatten().next();
    let stack = stack.ok_or_else(|| lacking(call, name, "the stack"))?;
    let status = stack.stack_status;
    let parameters = stack.parameters.into_iter().flatten();
    let outputs = stack.outputs.into_iter().flatten();
    Ok(Some(Stack {
        status: status.map_or_else(String::new, |status| status.as_str().to_owned()),
        parameters: parameters
            .filter_map(|it| Some((it.parameter_key?, it.parameter_value?)))
            .collect(),
        outputs: outputs
            .filter_map(|it| Some((it.output_key?, it.output_value?)))
            .collect(),
    }))
}

/// A trail that records calls in this Region.
#[derive(Debug)]
pub(super) struct Trail {
    /// The ARN.
    pub(super) arn: String,
    pub(super) home_region: String,
    /// Whether it is logging now.
    pub(super) logging: Result<bool, Error>,
    /// What it logs.
    pub(super) selectors: Result<Selectors, Error>,
}

/// A trail's event selectors, of both kinds.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    pub(super) basic: Vec<EventSelector>,
    pub(super) advanced: Vec<AdvancedEventSelector>,
}

/// DescribeTrails, and GetTrailStatus and GetEventSelectors of each trail that covers the Region. `None` if the stack
/// needs no trail.
pub(super) async fn trails(
    aws: &Aws,
    region: &str,
    needed: bool,
) -> Option<Result<Vec<Trail>, Error>> {
    if !needed {
        return None;
    }
    let call = "cloudtrail:DescribeTrails";
    let client = aws_sdk_cloudtrail::Client::new(aws.sdk_config());
    // It also lists the trails of other Regions and of the organisation that cover this Region.
    let answer = match client.describe_trails().send().await {
        Ok(answer) => answer,
        Err(error) => return Some(Err(classify(call, "*", &error))),
    };
    let mut trails = Vec::new();
    for trail in answer.trail_list.into_iter().flatten() {
        let home = trail.home_region.unwrap_or_else(|| region.to_owned());
        if home != region && trail.is_multi_region_trail != Some(true) {
            continue;
        }
        let Some(arn) = trail.trail_arn else {
            return Some(Err(lacking(call, "*", "the ARN of a trail")));
        };
        trails.push(of_trail(aws, arn, home).await);
    }
    Some(Ok(trails))
}

/// A trail's status and selectors, which its home Region knows. The ARN also names a trail of the organisation's
/// (CloudTrail API reference, "GetTrailStatus").
async fn of_trail(aws: &Aws, arn: String, home_region: String) -> Trail {
    let config = aws_sdk_cloudtrail::config::Builder::from(aws.sdk_config())
        .region(Region::new(home_region.clone()));
    let client = aws_sdk_cloudtrail::Client::from_conf(config.build());
    let call = "cloudtrail:GetTrailStatus";
    let logging = match client.get_trail_status().name(&arn).send().await {
        Ok(status) => status
            .is_logging
            .ok_or_else(|| lacking(call, &arn, "IsLogging")),
        Err(error) => Err(classify(call, &arn, &error)),
    };
    let call = "cloudtrail:GetEventSelectors";
    let selectors = match client.get_event_selectors().trail_name(&arn).send().await {
        Ok(answer) => Ok(Selectors {
            basic: answer.event_selectors.unwrap_or_default(),
            advanced: answer.advanced_event_selectors.unwrap_or_default(),
        }),
        Err(error) => Err(classify(call, &arn, &error)),
    };
    Trail {
        arn,
        home_region,
        logging,
        selectors,
    }
}

/// A topic's confirmed subscriptions. `None` without a topic.
pub(super) async fn topic(aws: &Aws, arn: Option<String>) -> Option<Result<u64, Error>> {
    Some(Box::pin(aws.confirmed_subscriptions(&arn?)).await)
}

/// A Recycle Bin rule's status. `None` without a rule.
pub(super) async fn rule(aws: &Aws, id: Option<&str>) -> Option<Result<RuleStatus, Error>> {
    Some(Box::pin(aws.recycle_bin_rule(id?)).await)
}

/// The number of messages in the queue of this ARN. `None` without a queue.
pub(super) async fn queue(aws: &Aws, arn: Option<String>) -> Option<Result<QueueDepth, Error>> {
    let arn = arn?;
    Some(Box::pin(aws.queue_depth(last_part(&arn))).await)
}

/// The name at the end of an ARN.
pub(super) fn last_part(arn: &str) -> &str {
    arn.rsplit([':', '/']).next().unwrap_or(arn)
}

fn lacking(call: &'static str, resource: &str, what: &str) -> Error {
    Error::Unavailable {
        call,
        resource: resource.to_owned(),
        message: format!("the answer lacks {what}"),
    }
}
