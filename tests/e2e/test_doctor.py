"""`ami-guard doctor` in an account of moto's, with a stack whose parameters and outputs have the template's names.

moto runs functions in containers alone, so a server of the tests' own answers for Lambda.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cfnlint.decode.cfn_yaml
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from e2e.world import ACCOUNT, REGION, ROOT, RULE, TOPIC, World, client, now

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

PARAMETERS = {
    "Mode": "enforce",
    "Trigger": "cloudtrail",
    "ChatNotifications": "on",
    "RecycleBinDays": "30",
    "SettleSeconds": "300",
    "AuditSchedule": "rate(1 day)",
}

# What the function answers to the request for a self-test.
REPORT = {
    "self-test": True,
    "ok": True,
    "version": "0.1.0",
    "mode": "enforce",
    "policy": {"path": "/opt/policy.toml", "sha256": "0123abcd"},
    "checks": [
        {"check": "ledger", "state": "ok", "found": "it can be read", "took_ms": 12},
        {"check": "ec2:DeregisterImage", "state": "unknown", "found": "no AMI is marked", "took_ms": None},
    ],
}


class Lambda(ThreadingHTTPServer):
    """Answers Lambda's Invoke, and keeps the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Invoke)
        self.status, self.headers, self.report = 200, {}, REPORT
        self.requests: list[AWSRequest] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answers(self, report: Any, status: int = 200, **headers: str) -> None:
        self.status, self.report = status, report
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Invoke(BaseHTTPRequestHandler):
    """One request."""

    server: Lambda

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        url = self.server.endpoint + self.path
        self.server.requests.append(AWSRequest("POST", url, dict(self.headers.items()), body))
        answer = json.dumps(self.server.report).encode()
        self.send_response(self.server.status)
        for name, value in {**self.server.headers, "content-length": str(len(answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


def is_signed(request: AWSRequest, service: str) -> bool:
    """Whether botocore signs the request in the same way."""
    given = request.headers["authorization"]
    names = given.split("SignedHeaders=")[1].split(",")[0].split(";")
    signed = {name: request.headers[name] for name in names}
    again = AWSRequest(request.method, request.url, signed, request.data)
    again.context["timestamp"] = request.headers["x-amz-date"]
    signer = SigV4Auth(Credentials("operator", "operator"), service, REGION)
    text = signer.string_to_sign(again, signer.canonical_request(again))
    return f"/{REGION}/{service}/aws4_request" in given and given.endswith(f"Signature={signer.signature(text, again)}")


class Deployment:
    """An account in which the guard is deployed, and all is well."""

    def __init__(self, world: World, function: Lambda) -> None:
        self.world, self.function = world, function
        endpoint = world.moto.endpoint
        self.cloudformation, self.cloudtrail, self.cloudwatch, s3 = (
            client(service, endpoint) for service in ("cloudformation", "cloudtrail", "cloudwatch", "s3")
        )
        self.measure("AuditedImages", 321, hours_ago=5)
        self.measure("Registrations", 12, account=ACCOUNT, verdict="verified")
        self.measure("Registrations", 3, account=ACCOUNT, verdict="mismatch", kind="wrong")
        world.make_event_queue(300)
        world.sqs.create_queue(QueueName="undelivered")
        chat = world.sns.create_topic(Name="chat")["TopicArn"]
        world.sns.subscribe(TopicArn=chat, Protocol="https", Endpoint="https://chat.example.com")
        s3.create_bucket(Bucket="trail", CreateBucketConfiguration={"LocationConstraint": REGION})
        self.cloudtrail.create_trail(Name=TRAIL, S3BucketName="trail", IsMultiRegionTrail=True)
        self.cloudtrail.start_logging(Name=TRAIL)
        self.select(EventSelectors=[{"ReadWriteType": "All", "IncludeManagementEvents": True}])
        self.deploy()

    def measure(self, name: str, value: float, hours_ago: int = 5, **dimensions: str) -> None:
        """Writes a number of the function's."""
        dimensions = {"function": OUTPUTS["GuardFunctionName"]} | dimensions
        self.put("AmiBillingGuard", name, value, timedelta(hours=hours_ago), dimensions)

    def put(self, namespace: str, name: str, value: float, age: timedelta, dimensions: dict[str, str]) -> None:
        number = {
            "MetricName": name,
            "Value": value,
            "Timestamp": now() - age,
            "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
        }
        self.cloudwatch.put_metric_data(Namespace=namespace, MetricData=[number])

    def wait_long(self) -> None:
        """An event has waited in the queue for two hours."""
        self.send("registrations")
        dimensions = {"QueueName": "registrations"}
        self.put("AWS/SQS", "ApproximateAgeOfOldestMessage", 7200, timedelta(minutes=1), dimensions)

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
def deployment(world: World) -> Iterator[Deployment]:
    with Lambda() as function:
        yield Deployment(world, function)
        function.shutdown()


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


def run(cli_binary: Path, deployment: Deployment, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "AWS_ENDPOINT_URL": deployment.world.moto.endpoint,
        "AWS_ENDPOINT_URL_LAMBDA": deployment.function.endpoint,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "operator",
        "AWS_SECRET_ACCESS_KEY": "operator",
    }
    command = [cli_binary, "doctor", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def doctor(cli_binary: Path, deployment: Deployment) -> Callable[[], Diagnosis]:
    return lambda: Diagnosis(run(cli_binary, deployment, "--stack-name", STACK, "--json"))


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
        "self-test",
        "event-queue",
        "dead-letter-queue",
        "undelivered-queue",
        "events",
        "last-audit",
    ]
    assert all(check["to_do"] is None for check in diagnosis.checks.values())

    text = run(cli_binary, deployment, "--stack-name", STACK)
    print(text.stdout)
    assert (text.returncode, text.stderr) == (0, "")
    lines = text.stdout.splitlines()
    assert len(lines) == 13 and lines[-1] == "11 ok"
    assert all(line.startswith("ok ") for line in lines[:11])
    assert "CREATE_COMPLETE, Mode=enforce, Trigger=cloudtrail" in lines[0]
    assert "policy sha256 0123abcd. Not tried: ec2:DeregisterImage" in text.stdout
    assert "registrations judged in the last 14 days: 15" in text.stdout
    assert "it looked at 321 AMIs" in text.stdout

    for request in deployment.function.requests:
        assert request.url.endswith("/2015-03-31/functions/guard/invocations")
        assert json.loads(request.data) == {"self-test": True}
        assert is_signed(request, "lambda")

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
        "ListMetrics",
        "GetMetricData",
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
    "an event that waits for long": (Deployment.wait_long, "event-queue", "failed", "has waited for 120 minutes"),
    "a self-test that fails": (
        lambda it: it.function.answers(
            REPORT | {"ok": False, "checks": [{"check": "ledger", "state": "failed", "found": "there is no table"}]}
        ),
        "self-test",
        "failed",
        "ledger: there is no table",
    ),
    "a slow look-up": (
        lambda it: it.function.answers(
            REPORT | {"checks": [{"check": "look-up:image", "state": "slow", "found": "it took 3 seconds"}]}
        ),
        "self-test",
        "warning",
        "Slow: look-up:image: it took 3 seconds",
    ),
    "a function that does not start": (
        lambda it: it.function.answers(
            {"errorType": "Runtime.ExitError", "errorMessage": "exit status 1"}, x_amz_function_error="Unhandled"
        ),
        "self-test",
        "failed",
        "Runtime.ExitError: exit status 1",
    ),
    "no function": (
        lambda it: it.function.answers(
            {"Type": "User", "Message": "Function not found"}, 404, x_amzn_errortype="ResourceNotFoundException"
        ),
        "self-test",
        "failed",
        "does not exist",
    ),
    "an answer of something else": (
        lambda it: it.function.answers({"hello": "world"}),
        "self-test",
        "unknown",
        "not the report of a self-test",
    ),
    "a Lambda that may not be called": (
        lambda it: it.function.answers(
            {"Message": "User is not authorized"}, 403, x_amzn_errortype="AccessDeniedException:http://internal"
        ),
        "self-test",
        "unknown",
        "access denied: lambda:InvokeFunction on guard is missing: User is not authorized",
    ),
    "an audit that is late": (
        lambda it: it.deploy(AuditSchedule="rate(1 hour)"),
        "last-audit",
        "warning",
        "left out since",
    ),
    "an audit that was cut off": (
        lambda it: it.measure("AuditsUnfinished", 1),
        "last-audit",
        "warning",
        "did not reach the end",
    ),
    "a missed event": (
        lambda it: it.measure("MissedImages", 2),
        "events",
        "warning",
        "of which no event arrived: 2",
    ),
    "no event at all": (
        lambda it: it.measure("MissedImages", 15),
        "events",
        "failed",
        "audits found 15 AMIs",
    ),
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


@pytest.mark.parametrize("action", ["ListMetrics", "GetMetricData"])
def test_numbers_that_may_not_be_read_are_unknown_and_name_the_permission(
    action: str, deployment: Deployment, doctor
):
    deployment.world.fail(action, "AccessDenied", status=403)
    diagnosis = doctor()
    assert diagnosis.exit_code == 3
    assert diagnosis.amiss() == {"events": "unknown", "last-audit": "unknown"}, diagnosis.report
    assert f"Allow cloudwatch:{action}" in diagnosis.checks["events"]["to_do"]


def test_a_new_stack_has_no_numbers_yet_and_that_is_not_a_failure(deployment: Deployment, doctor):
    deployment.deploy(OUTPUTS | {"GuardFunctionName": "new"})
    diagnosis = doctor()
    assert (diagnosis.exit_code, diagnosis.amiss()) == (3, {"events": "unknown", "last-audit": "unknown"})
    assert "A new stack has no numbers yet" in diagnosis.checks["events"]["found"]
    assert "A new stack has none yet" in diagnosis.checks["last-audit"]["found"]


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
    missing = Diagnosis(run(cli_binary, deployment, "--stack-name", "ami-billing-gaurd", "--json"))
    assert (missing.exit_code, missing.states) == (1, {"stack": "failed"})
    assert f"there is not a stack of this name in {REGION}" in missing.checks["stack"]["found"]
    deployment.deploy({"Other": "thing"})
    other = doctor()
    assert (other.exit_code, other.states) == (1, {"stack": "failed"})
    assert "not a stack of ami-billing-guard" in other.checks["stack"]["found"]
