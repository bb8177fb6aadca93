//! Judgement of the stack, its topics, its Recycle Bin rule and its queues. Pure.

use ami_billing_guard::{Error, QueueDepth, RuleStatus};
use chrono::TimeDelta;

use super::finding::{Finding, Subject, does_not_exist};
use super::look::{Stack, last_part};

/// What a call answered. `None` if the stack's outputs do not name what to ask for.
type Answer<'a, T> = Option<&'a Result<T, Error>>;

/// The stack itself. `None` if CloudFormation does not know it.
pub(super) fn stack(name: &str, region: &str, stack: &Result<Option<Stack>, Error>) -> Finding {
    let subject = Subject::new("stack", name);
    let stack = match stack {
        Ok(Some(stack)) => stack,
        Ok(None) => {
            return subject.failed(
                format!("there is not a stack of this name in {region}"),
                format!(
                    "Pass the name and the Region of your deployment. The stacks of this Region: aws cloudformation \
                     describe-stacks --region {region} --query 'Stacks[].StackName'"
                ),
            );
        }
        Err(error) => return subject.not_known(error),
    };
    let status = stack.status.as_str();
    let complete = matches!(
        status,
        "CREATE_COMPLETE"
            | "UPDATE_COMPLETE"
            | "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"
            | "IMPORT_COMPLETE"
    );
    let rolled_back = matches!(
        status,
        "UPDATE_ROLLBACK_COMPLETE"
            | "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS"
            | "IMPORT_ROLLBACK_COMPLETE"
    );
    if (complete || rolled_back) && !stack.is_of_the_guard() {
        return subject.failed(
            "this is not a stack of ami-billing-guard, because it lacks the outputs GuardFunctionName and \
             AlertTopicArn",
            "Pass the name of the guard's stack.",
        );
    }
    let of = |parameter: &str| {
        let value = stack.parameter(parameter).unwrap_or("unknown");
        format!("{parameter}={value}")
    };
    let found = format!("{status}, {}, {}", of("Mode"), of("Trigger"));
    let look = format!(
        "Look for the reason, and deploy again: aws cloudformation describe-stack-events --region {region} \
         --stack-name '{name}' --max-items 20"
    );
    match status {
        _ if complete => subject.ok(found),
        _ if rolled_back => subject.warning(
            format!("{found}. The last deployment failed, and the one before it is in force"),
            look,
        ),
        "REVIEW_IN_PROGRESS" => subject.failed(
            format!("{status}. The stack was never deployed"),
            "Execute its change set, or deploy it with sam deploy.",
        ),
        "CREATE_FAILED"
        | "ROLLBACK_FAILED"
        | "ROLLBACK_COMPLETE"
        | "DELETE_FAILED"
        | "DELETE_COMPLETE"
        | "UPDATE_FAILED"
        | "UPDATE_ROLLBACK_FAILED"
        | "IMPORT_ROLLBACK_FAILED" => subject.failed(found, look),
        _ if status.ends_with("_IN_PROGRESS") => subject.unknown(
            format!("{found}. CloudFormation is changing it"),
            "Wait until that is over, and run doctor again.",
        ),
        _ => subject.unknown(format!("the unrecognised status {status:?}"), look),
    }
}

/// The alert topic's confirmed subscriptions.
pub(super) fn alert_topic(stack: &Stack, region: &str, confirmed: Answer<'_, u64>) -> Finding {
    let output = "AlertTopicArn";
    let arn = stack.output(output).unwrap_or_default();
    let to_do = format!(
        "Subscribe an address, and confirm it with the token in the mail. The subscriptions now: aws sns \
         list-subscriptions-by-topic --region {region} --topic-arn '{arn}'"
    );
    let without = "no subscription is confirmed. The alerts reach no reader, and the guard holds every discard";
    match known("alert-topic", output, stack, confirmed) {
        Ok((subject, number)) => listens(subject, *number, without, &to_do),
        Err(finding) => finding,
    }
}

/// The chat topic's confirmed subscriptions.
pub(super) fn chat_topic(stack: &Stack, confirmed: Answer<'_, u64>) -> Finding {
    let to_do = "Choose this topic in the channel's configuration of Amazon Q Developer in chat applications, or \
                 deploy with ChatNotifications=off.";
    let without = "no subscription is confirmed. No chat shows the alerts";
    match known("chat-topic", "ChatTopicArn", stack, confirmed) {
        Ok((subject, number)) => listens(subject, *number, without, to_do),
        Err(finding) => finding,
    }
}

fn listens(subject: Subject, confirmed: u64, without: &str, to_do: &str) -> Finding {
    match confirmed {
        0 => subject.failed(without, to_do),
        number => subject.ok(format!("confirmed subscriptions: {number}")),
    }
}

/// The Recycle Bin rule's status.
pub(super) fn recycle_bin_rule(
    stack: &Stack,
    region: &str,
    status: Answer<'_, RuleStatus>,
) -> Finding {
    let check = "recycle-bin-rule";
    let days = stack.parameter("RecycleBinDays");
    if days == Some("0") {
        return Subject::new(check, "RecycleBinDays=0").warning(
            "the stack has no Recycle Bin rule, and the guard does not check any other",
            format!(
                "Without a rule, a deregistered AMI is gone for good. Make sure that another one is available: aws \
                 rbin list-rules --region {region} --resource-type EC2_IMAGE"
            ),
        );
    }
    let output = "RecycleBinRuleId";
    if let (Some(id), Some(Err(error))) = (stack.output(output), status) {
        let subject = Subject::new(check, id);
        if does_not_exist(error) {
            return subject.failed(
                "it does not exist. The guard holds every discard",
                "Deploy with RecycleBinDays=0, and then with the number of days. CloudFormation then creates the rule \
                 again.",
            );
        }
        if let Error::NotPossible { .. } = error {
            return subject.failed(
                error.to_string(),
                "Find out who changed the rule, and deploy the stack again.",
            );
        }
    }
    match known(check, output, stack, status) {
        Ok((subject, RuleStatus::Available)) => {
            let days = days.map_or_else(String::new, |days| format!(" for {days} days"));
            subject.ok(format!(
                "available. A deregistered AMI can be restored{days}"
            ))
        }
        Ok((subject, RuleStatus::Pending)) => subject.warning(
            "pending. The guard holds every discard until the rule is available",
            "Wait, and run doctor again. The first rule of a Region takes up to 30 minutes.",
        ),
        Err(finding) => finding,
    }
}

/// The event queue. The function takes events that can be received within seconds. `late` is how long the oldest event
/// has waited, if that is too long.
pub(super) fn event_queue(
    stack: &Stack,
    depth: Answer<'_, QueueDepth>,
    late: Option<TimeDelta>,
) -> Finding {
    let (subject, depth) = match known("event-queue", "EventQueueArn", stack, depth) {
        Ok(known) => known,
        Err(finding) => return finding,
    };
    let found = format!(
        "events waiting for the function: {}, settling: {}, in progress or to be tried again: {}",
        depth.waiting, depth.delayed, depth.in_flight
    );
    let see = "See docs/runbook.md, \"An alarm says that events are waiting\".";
    match (messages(depth), late) {
        (1.., Some(late)) => subject.failed(
            format!(
                "the function does not take the events. The oldest has waited for {} minutes; {found}",
                late.num_minutes()
            ),
            see,
        ),
        _ if depth.waiting > 0 => subject.warning(
            found,
            format!(
                "Run doctor again in a few minutes. If the first number does not fall, the function does not take the \
                 events. {see}"
            ),
        ),
        _ => subject.ok(found),
    }
}

/// The queue of events that could not be judged.
pub(super) fn dead_letters(stack: &Stack, region: &str, depth: Answer<'_, QueueDepth>) -> Finding {
    let output = "DeadLetterQueueArn";
    let arn = stack.output(output).unwrap_or_default();
    let log = stack.output("GuardLogGroupName").unwrap_or("the function");
    match known("dead-letter-queue", output, stack, depth) {
        Ok((subject, depth)) if messages(depth) > 0 => subject.failed(
            format!(
                "events that could not be judged in seven attempts: {}",
                messages(depth)
            ),
            format!(
                "Look for the reason in the log of {log}. When it is fixed, send the events again: aws sqs \
                 start-message-move-task --region {region} --source-arn '{arn}'"
            ),
        ),
        Ok((subject, _)) => subject.ok("empty"),
        Err(finding) => finding,
    }
}

/// The queue of events that EventBridge could not deliver.
pub(super) fn undelivered(stack: &Stack, depth: Answer<'_, QueueDepth>) -> Finding {
    let check = "undelivered-queue";
    match known(check, "UndeliveredEventQueueArn", stack, depth) {
        Ok((subject, depth)) if messages(depth) > 0 => subject.failed(
            format!(
                "events that EventBridge could not deliver: {}",
                messages(depth)
            ),
            "Each message has the reason. See docs/runbook.md, \"An alarm says that events cannot be delivered\".",
        ),
        Ok((subject, _)) => subject.ok("empty"),
        Err(finding) => finding,
    }
}

fn messages(depth: &QueueDepth) -> u64 {
    depth.waiting + depth.in_flight + depth.delayed
}

/// What the output of this name names, and the answer about it. Without an answer, the finding that says why.
fn known<'a, T>(
    check: &'static str,
    output: &str,
    stack: &Stack,
    answer: Answer<'a, T>,
) -> Result<(Subject, &'a T), Finding> {
    let (Some(id), Some(answer)) = (stack.output(output), answer) else {
        let what = format!("the {}", check.replace('-', " "));
        return Err(Subject::new(check, what).not_in_the_outputs(output));
    };
    let subject = Subject::new(check, last_part(id));
    match answer {
        Ok(answer) => Ok((subject, answer)),
        Err(error) if does_not_exist(error) => Err(subject.failed(
            "it does not exist, although it belongs to the stack",
            "Find out who deleted it. Then delete the stack, and deploy it again. The log and the ledger remain.",
        )),
        Err(error) => Err(subject.not_known(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    const REGION: &str = "eu-west-1";
    const ARNS: [(&str, &str); 6] = [
        ("AlertTopicArn", "arn:aws:sns:eu-west-1:123456789012:alerts"),
        ("ChatTopicArn", "arn:aws:sns:eu-west-1:123456789012:chat"),
        ("EventQueueArn", "arn:aws:sqs:eu-west-1:123456789012:events"),
        (
            "DeadLetterQueueArn",
            "arn:aws:sqs:eu-west-1:123456789012:dead",
        ),
        (
            "UndeliveredEventQueueArn",
            "arn:aws:sqs:eu-west-1:123456789012:lost",
        ),
        ("GuardFunctionName", "guard"),
    ];

    fn deployed() -> Stack {
        let texts = |all: &[(&str, &str)]| {
            let texts = all
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()));
            texts.collect()
        };
        let mut stack = Stack {
            status: "CREATE_COMPLETE".into(),
            parameters: texts(&[
                ("Mode", "observe"),
                ("Trigger", "cloudtrail"),
                ("RecycleBinDays", "30"),
            ]),
            outputs: texts(&ARNS),
        };
        stack
            .outputs
            .insert("RecycleBinRuleId".into(), "JSzDHyLPHm0".into());
        stack
    }

    fn denied(permission: &'static str) -> Error {
        Error::AccessDenied {
            permission,
            resource: "r".into(),
            message: "m".into(),
        }
    }

    fn refused(code: &str) -> Error {
        Error::Refused {
            call: "c",
            resource: "r".into(),
            code: code.into(),
            message: "m".into(),
        }
    }

    /// Holds the state, and parts of what was found and of what to do.
    #[track_caller]
    fn holds(finding: &Finding, state: State, found: &str, to_do: &str) {
        assert_eq!(finding.state, state, "{finding:?}");
        assert!(finding.found.contains(found), "{finding:?}");
        let advice = finding.to_do.as_deref().unwrap_or_default();
        assert!(advice.contains(to_do), "{finding:?}");
        assert_eq!(advice.is_empty(), state == State::Ok, "{finding:?}");
    }

    #[test]
    fn a_stack_is_judged_by_its_status() {
        use State::{Failed, Ok as Good, Unknown, Warning};
        for (status, state, found) in [
            ("CREATE_COMPLETE", Good, "Mode=observe, Trigger=cloudtrail"),
            ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", Good, ""),
            (
                "UPDATE_ROLLBACK_COMPLETE",
                Warning,
                "The last deployment failed",
            ),
            ("ROLLBACK_COMPLETE", Failed, "ROLLBACK_COMPLETE"),
            ("UPDATE_ROLLBACK_FAILED", Failed, ""),
            ("REVIEW_IN_PROGRESS", Failed, "never deployed"),
            (
                "UPDATE_IN_PROGRESS",
                Unknown,
                "CloudFormation is changing it",
            ),
            ("SOMETHING_NEW", Unknown, "unrecognised status"),
            ("", Unknown, "unrecognised status"),
        ] {
            let status = Stack {
                status: status.into(),
                ..deployed()
            };
            holds(&stack("guard", REGION, &Ok(Some(status))), state, found, "");
        }
    }

    #[test]
    fn a_stack_that_does_not_exist_or_is_not_the_guards_is_a_failure_and_one_that_was_denied_is_not()
     {
        let none = stack("gaurd", REGION, &Ok(None));
        holds(
            &none,
            State::Failed,
            "there is not a stack of this name in eu-west-1",
            "describe-stacks",
        );
        let mut other = deployed();
        other.outputs.clear();
        let other = stack("other", REGION, &Ok(Some(other)));
        holds(
            &other,
            State::Failed,
            "not a stack of ami-billing-guard",
            "name",
        );
        let error = denied("cloudformation:DescribeStacks");
        let unknown = stack("guard", REGION, &Err(error));
        holds(
            &unknown,
            State::Unknown,
            "access denied",
            "Allow cloudformation:DescribeStacks",
        );
    }

    #[test]
    fn a_topic_without_a_confirmed_subscription_is_a_failure() {
        let stack = deployed();
        holds(
            &alert_topic(&stack, REGION, Some(&Ok(2))),
            State::Ok,
            "confirmed subscriptions: 2",
            "",
        );
        let none = alert_topic(&stack, REGION, Some(&Ok(0)));
        holds(
            &none,
            State::Failed,
            "the guard holds every discard",
            "--topic-arn 'arn:aws:sns:",
        );
        assert_eq!(none.looked_at, "alerts");
        holds(
            &chat_topic(&stack, Some(&Ok(1))),
            State::Ok,
            "confirmed subscriptions: 1",
            "",
        );
        holds(
            &chat_topic(&stack, Some(&Ok(0))),
            State::Failed,
            "No chat",
            "Amazon Q Developer",
        );
    }

    #[test]
    fn what_a_call_did_not_answer_is_unknown_and_what_was_deleted_is_a_failure() {
        let stack = deployed();
        let error = Err(denied("sns:GetTopicAttributes"));
        let topic = alert_topic(&stack, REGION, Some(&error));
        holds(
            &topic,
            State::Unknown,
            "access denied",
            "Allow sns:GetTopicAttributes",
        );
        let gone = Err(refused("NotFound"));
        holds(
            &alert_topic(&stack, REGION, Some(&gone)),
            State::Failed,
            "does not exist",
            "deploy",
        );
        let error = Err(Error::Unavailable {
            call: "sqs:GetQueueUrl",
            resource: "r".into(),
            message: "timed out".into(),
        });
        holds(
            &dead_letters(&stack, REGION, Some(&error)),
            State::Unknown,
            "timed out",
            "Run doctor again",
        );
        let error = Err(refused("InvalidAddress"));
        holds(
            &undelivered(&stack, Some(&error)),
            State::Unknown,
            "InvalidAddress",
            "Fix",
        );
        let gone = Err(refused("AWS.SimpleQueueService.NonExistentQueue"));
        holds(
            &event_queue(&stack, Some(&gone), None),
            State::Failed,
            "does not exist",
            "deploy",
        );
    }

    #[test]
    fn what_the_outputs_do_not_name_is_unknown() {
        let stack = Stack {
            outputs: Default::default(),
            ..deployed()
        };
        for finding in [
            alert_topic(&stack, REGION, None),
            chat_topic(&stack, None),
            recycle_bin_rule(&stack, REGION, None),
            event_queue(&stack, None, None),
            dead_letters(&stack, REGION, None),
            undelivered(&stack, None),
        ] {
            holds(
                &finding,
                State::Unknown,
                "the stack has no output",
                "Deploy the stack again",
            );
        }
    }

    #[test]
    fn a_recycle_bin_rule_is_available_pending_deleted_changed_or_left_out() {
        use State::{Failed, Ok as Good, Unknown, Warning};
        let not_for_images = Error::NotPossible {
            resource: "r".into(),
            code: "NotForImages",
            message: "this Recycle Bin rule keeps EBS_SNAPSHOT".into(),
        };
        for (status, state, found, to_do) in [
            (Ok(RuleStatus::Available), Good, "restored for 30 days", ""),
            (
                Ok(RuleStatus::Pending),
                Warning,
                "holds every discard",
                "30 minutes",
            ),
            (
                Err(refused("ResourceNotFoundException")),
                Failed,
                "does not exist",
                "RecycleBinDays=0",
            ),
            (Err(not_for_images), Failed, "EBS_SNAPSHOT", "who changed"),
            (
                Err(denied("rbin:GetRule")),
                Unknown,
                "access denied",
                "Allow rbin:GetRule",
            ),
        ] {
            let finding = recycle_bin_rule(&deployed(), REGION, Some(&status));
            holds(&finding, state, found, to_do);
        }
        let mut stack = deployed();
        stack.parameters.insert("RecycleBinDays".into(), "0".into());
        let left_out = recycle_bin_rule(&stack, REGION, None);
        holds(
            &left_out,
            Warning,
            "no Recycle Bin rule",
            "aws rbin list-rules --region eu-west-1",
        );
    }

    #[test]
    fn dead_letters_and_undelivered_events_are_failures_and_waiting_events_a_warning() {
        let stack = deployed();
        let settling = QueueDepth {
            delayed: 3,
            in_flight: 1,
            waiting: 0,
        };
        let finding = event_queue(&stack, Some(&Ok(settling)), None);
        holds(&finding, State::Ok, "settling: 3", "");
        let waiting = QueueDepth {
            waiting: 4,
            ..settling
        };
        let finding = event_queue(&stack, Some(&Ok(waiting)), None);
        holds(
            &finding,
            State::Warning,
            "waiting for the function: 4",
            "docs/runbook.md",
        );
        let late = Some(TimeDelta::minutes(70));
        let finding = event_queue(&stack, Some(&Ok(settling)), late);
        holds(
            &finding,
            State::Failed,
            "has waited for 70 minutes",
            "docs/runbook.md",
        );
        let empty = Ok(QueueDepth::default());
        holds(
            &event_queue(&stack, Some(&empty), late),
            State::Ok,
            "settling: 0",
            "",
        );
        holds(
            &dead_letters(&stack, REGION, Some(&empty)),
            State::Ok,
            "empty",
            "",
        );
        holds(&undelivered(&stack, Some(&empty)), State::Ok, "empty", "");
        let finding = dead_letters(&stack, REGION, Some(&Ok(waiting)));
        let again = "--source-arn 'arn:aws:sqs:eu-west-1:123456789012:dead'";
        holds(&finding, State::Failed, "seven attempts: 8", again);
        let finding = undelivered(&stack, Some(&Ok(waiting)));
        holds(
            &finding,
            State::Failed,
            "could not deliver: 8",
            "docs/runbook.md",
        );
    }
}
