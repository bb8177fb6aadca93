"""`ami-guard doctor` in an account of moto's, with a stack whose parameters and outputs have the template's names."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cfnlint.decode.cfn_yaml
import pytest

from e2e.world import ACCOUNT, REGION, ROOT, RULE, TOPIC, World, client

STACK = "ami-billing-guard"
TRAIL = "management"


def sqs_arn(name: str) -> str:
    return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"


# What the outputs of a stack say. A test holds the names against the template.
OUTPUTS = {
    "AlertTopicArn": TOPIC,
    "ChatTopicArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:chat",
    "GuardFunctionName": "guard",
    "GuardLogGroupName": "guard-log",
    "RecycleBinRuleId": RULE,
    "EventQueueArn": sqs_arn("registrations"),
    "DeadLetterQueueArn": sqs_arn("dead-letters"),
    "UndeliveredEventQueueArn": sqs_arn("undelivered"),
}

PARAMETERS = {"Mode": "enforce", "Trigger": "cloudtrail", "ChatNotifications": "on", "RecycleBinDays": "30"}


class Deployment:
    """An account in which the guard is deployed, and all is well."""

    def __init__(self, world: World) -> None:
        self.world = world
        endpoint = world.moto.endpoint
        self.cloudformation, self.cloudtrail, s3 = (
            client(service, endpoint) for service in ("cloudformation", "cloudtrail", "s3")
        )
        world.make_event_queue(300)
        world.sqs.create_queue(QueueName="undelivered")
        chat = world.sns.create_topic(Name="chat")["TopicArn"]
        world.sns.subscribe(TopicArn=chat, Protocol="https", Endpoint="https://chat.example.com")
        s3.create_bucket(Bucket="trail", CreateBucketConfiguration={"LocationConstraint": REGION})
        self.cloudtrail.create_trail(Name=TRAIL, S3BucketName="trail", IsMultiRegionTrail=True)
        self.cloudtrail.start_logging(Name=TRAIL)
        self.select(EventSelectors=[{"ReadWriteType": "All", "IncludeManagementEvents": True}])
        self.deploy()

    def select(self, **selectors: Any) -> None:
        """Chooses what the trail logs."""
        self.cloudtrail.put_event_selectors(TrailName=TRAIL, **selectors)

    def deploy(self, outputs: dict[str, str] = OUTPUTS, **parameters: str) -> None:
        """Makes the stack, instead of one that is there."""
        self.cloudformation.delete_stack(StackName=STACK)
        parameters = PARAMETERS | parameters
        self.cloudformation.create_stack(
            StackName=STACK,
            TemplateBody=json.dumps(
                {
                    "Parameters": {name: {"Type": "String"} for name in parameters},
                    "Resources": {"Any": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "any"}}},
                    "Outputs": {name: {"Value": value} for name, value in outputs.items()},
                }
            ),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        )

    def send(self, queue: str) -> None:
        """Puts an event into a queue, where it can be received at once."""
        url = self.world.sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        self.world.sqs.send_message(QueueUrl=url, MessageBody="{}", DelaySeconds=0)

    def silence(self, topic: str) -> None:
        """Ends all subscriptions of a topic."""
        for it in self.world.sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]:
            self.world.sns.unsubscribe(SubscriptionArn=it["SubscriptionArn"])

    def delete_queue(self, name: str) -> None:
        self.world.sqs.delete_queue(QueueUrl=self.world.sqs.get_queue_url(QueueName=name)["QueueUrl"])

    def delete_trail(self) -> None:
        self.cloudtrail.delete_trail(Name=TRAIL)

    def stop_trail(self) -> None:
        self.cloudtrail.stop_logging(Name=TRAIL)


@pytest.fixture
def deployment(world: World) -> Deployment:
    return Deployment(world)


class Diagnosis:
    """What `ami-guard doctor --json` found."""

    def __init__(self, run: subprocess.CompletedProcess[str]) -> None:
        assert run.stderr == ""
        self.report = json.loads(run.stdout)
        self.exit_code = run.returncode
        self.checks = {check["check"]: check for check in self.report["checks"]}
        self.states = {name: check["state"] for name, check in self.checks.items()}

    def amiss(self) -> dict[str, str]:
        """The states that are not ok."""
        return {name: state for name, state in self.states.items() if state != "ok"}


def run(cli_binary: Path, world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "AWS_ENDPOINT_URL": world.moto.endpoint,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "operator",
        "AWS_SECRET_ACCESS_KEY": "operator",
    }
    command = [cli_binary, "doctor", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def doctor(cli_binary: Path, deployment: Deployment) -> Callable[[], Diagnosis]:
    return lambda: Diagnosis(run(cli_binary, deployment.world, "--stack-name", STACK, "--json"))


def test_the_template_has_what_doctor_reads():
    template = cfnlint.decode.cfn_yaml.load(str(ROOT / "template.yaml"))
    assert OUTPUTS.keys() <= template["Outputs"].keys()
    assert PARAMETERS.keys() <= template["Parameters"].keys()


def test_where_all_is_well_doctor_says_so_and_only_reads(deployment: Deployment, cli_binary: Path, doctor):
    diagnosis = doctor()
    assert (diagnosis.exit_code, diagnosis.report["ok"], diagnosis.amiss()) == (0, True, {}), diagnosis.report
    assert list(diagnosis.states) == [
        "stack",
        "cloudtrail",
        "alert-topic",
        "chat-topic",
        "recycle-bin-rule",
        "event-queue",
        "dead-letter-queue",
        "undelivered-queue",
    ]
    assert all(check["to_do"] is None for check in diagnosis.checks.values())

    text = run(cli_binary, deployment.world, "--stack-name", STACK)
    print(text.stdout)
    assert (text.returncode, text.stderr) == (0, "")
    lines = text.stdout.splitlines()
    assert len(lines) == 11 and lines[-2] == "8 ok" and lines[-1].startswith("Not checked: ")
    assert all(line.startswith("ok ") for line in lines[:8])
    assert "CREATE_COMPLETE, Mode=enforce, Trigger=cloudtrail" in lines[0]

    called = {call["action"] for call in deployment.world.moto.order("calls") if call["caller"] == "operator"}
    assert called == {
        "DescribeStacks",
        "DescribeTrails",
        "GetTrailStatus",
        "GetEventSelectors",
        "GetTopicAttributes",
        "GetRule",
        "GetQueueUrl",
        "GetQueueAttributes",
    }


MANAGEMENT = {"Field": "eventCategory", "Equals": ["Management"]}

FINDINGS = {
    "a trail that is stopped": (Deployment.stop_trail, "cloudtrail", "failed", "is not logging"),
    "no trail": (Deployment.delete_trail, "cloudtrail", "failed", "no trail covers this Region"),
    "a trail of reads": (
        lambda it: it.select(EventSelectors=[{"ReadWriteType": "ReadOnly", "IncludeManagementEvents": True}]),
        "cloudtrail",
        "failed",
        "does not log management events that write",
    ),
    "a trail of reads, by advanced selectors": (
        lambda it: it.select(
            AdvancedEventSelectors=[{"FieldSelectors": [MANAGEMENT, {"Field": "readOnly", "Equals": ["true"]}]}]
        ),
        "cloudtrail",
        "failed",
        "does not log management events that write",
    ),
    "a trail of some callers": (
        lambda it: it.select(
            AdvancedEventSelectors=[{"FieldSelectors": [MANAGEMENT, {"Field": "userIdentity.arn", "Equals": ["x"]}]}]
        ),
        "cloudtrail",
        "unknown",
        "userIdentity.arn",
    ),
    "nobody listens": (lambda it: it.silence(TOPIC), "alert-topic", "failed", "no subscription is confirmed"),
    "no chat listens": (
        lambda it: it.silence(OUTPUTS["ChatTopicArn"]),
        "chat-topic",
        "failed",
        "no subscription is confirmed",
    ),
    "no topic": (
        lambda it: it.world.sns.delete_topic(TopicArn=TOPIC),
        "alert-topic",
        "failed",
        "does not exist",
    ),
    "a pending rule": (lambda it: it.world.set_rule("pending"), "recycle-bin-rule", "warning", "pending"),
    "no rule": (lambda it: it.world.moto.order("rules", []), "recycle-bin-rule", "failed", "does not exist"),
    "no days in the Recycle Bin": (
        lambda it: it.deploy(RecycleBinDays="0"),
        "recycle-bin-rule",
        "warning",
        "no Recycle Bin rule",
    ),
    "an older stack": (
        lambda it: it.deploy({name: it for name, it in OUTPUTS.items() if name != "RecycleBinRuleId"}),
        "recycle-bin-rule",
        "unknown",
        "no output RecycleBinRuleId",
    ),
    "an event that waits": (lambda it: it.send("registrations"), "event-queue", "warning", "waiting for the function: 1,"),
    "a dead letter": (lambda it: it.send("dead-letters"), "dead-letter-queue", "failed", "seven attempts: 1"),
    "an undelivered event": (lambda it: it.send("undelivered"), "undelivered-queue", "failed", "could not deliver: 1"),
    "no queue": (lambda it: it.delete_queue("undelivered"), "undelivered-queue", "failed", "does not exist"),
}


@pytest.mark.parametrize("case", FINDINGS)
def test_what_is_amiss_is_found_and_nothing_else(case: str, deployment: Deployment, doctor):
    break_it, check, state, found = FINDINGS[case]
    break_it(deployment)
    diagnosis = doctor()
    assert diagnosis.amiss() == {check: state}, diagnosis.report
    assert found in diagnosis.checks[check]["found"]
    assert diagnosis.checks[check]["to_do"]
    assert diagnosis.exit_code == {"failed": 1, "unknown": 3, "warning": 0}[state]
    assert diagnosis.report["ok"] == (state == "warning")


@pytest.mark.parametrize(
    ("action", "code", "permission", "checks"),
    [
        ("DescribeStacks", "AccessDenied", "cloudformation:DescribeStacks", ["stack"]),
        ("DescribeTrails", "AccessDeniedException", "cloudtrail:DescribeTrails", ["cloudtrail"]),
        ("GetTrailStatus", "AccessDeniedException", "cloudtrail:GetTrailStatus", ["cloudtrail"]),
        ("GetEventSelectors", "AccessDeniedException", "cloudtrail:GetEventSelectors", ["cloudtrail"]),
        ("GetTopicAttributes", "AuthorizationError", "sns:GetTopicAttributes", ["alert-topic", "chat-topic"]),
        ("GetRule", "AccessDeniedException", "rbin:GetRule", ["recycle-bin-rule"]),
        (
            "GetQueueUrl",
            "AccessDenied",
            "sqs:GetQueueUrl",
            ["event-queue", "dead-letter-queue", "undelivered-queue"],
        ),
        (
            "GetQueueAttributes",
            "AccessDenied",
            "sqs:GetQueueAttributes",
            ["event-queue", "dead-letter-queue", "undelivered-queue"],
        ),
    ],
)
def test_what_may_not_be_looked_at_is_unknown_and_names_the_permission(
    action: str, code: str, permission: str, checks: list[str], deployment: Deployment, doctor
):
    deployment.world.fail(action, code, status=403 if "cloudtrail" in permission else 400)
    diagnosis = doctor()
    assert diagnosis.exit_code == 3
    assert diagnosis.amiss() == dict.fromkeys(checks, "unknown"), diagnosis.report
    for check in checks:
        assert permission in diagnosis.checks[check]["to_do"]


def test_a_stack_that_needs_no_trail_and_has_no_chat_is_not_asked_for_them(deployment: Deployment, doctor):
    deployment.delete_trail()
    outputs = {name: value for name, value in OUTPUTS.items() if name != "ChatTopicArn"}
    deployment.deploy(outputs, Trigger="state-change", ChatNotifications="off")
    diagnosis = doctor()
    assert (diagnosis.exit_code, diagnosis.amiss()) == (0, {}), diagnosis.report
    assert "chat-topic" not in diagnosis.states
    assert "not needed" in diagnosis.checks["cloudtrail"]["found"]


def test_a_stack_that_does_not_exist_or_is_not_the_guards_is_all_that_is_said(
    deployment: Deployment, cli_binary: Path, doctor
):
    missing = Diagnosis(run(cli_binary, deployment.world, "--stack-name", "ami-billing-gaurd", "--json"))
    assert (missing.exit_code, missing.states) == (1, {"stack": "failed"})
    assert f"there is not a stack of this name in {REGION}" in missing.checks["stack"]["found"]
    deployment.deploy({"Other": "thing"})
    other = doctor()
    assert (other.exit_code, other.states) == (1, {"stack": "failed"})
    assert "not a stack of ami-billing-guard" in other.checks["stack"]["found"]
