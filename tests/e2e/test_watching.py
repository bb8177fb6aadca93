"""What an operator sees: the log's lines and the metrics in them, chat, and the self-test."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import jsonschema
import pytest
from stack import names_of

from e2e.emulator import Emulator, metrics_of
from e2e.world import (
    ACCOUNT,
    DISCARD,
    LEDGER,
    MUTATING,
    REGION,
    ROOT,
    TOPIC,
    World,
    batch,
    registration,
    scheduled,
    audit,
    template,
    within_the_hour,
)

# No line of this module was written earlier.
BEGAN = time.time()

CHAT = f"arn:aws:sns:{REGION}:{ACCOUNT}:chat"

# CloudWatch's rules for a document with embedded metrics (CloudWatch User Guide, "Specification: Embedded metric
# format"), as far as a schema can say them; `is_valid_document` says the rest.
NAME = {"type": "string", "minLength": 1, "maxLength": 255}
UNITS = (
    "Seconds|Microseconds|Milliseconds|Percent|Count|None|"
    "(Bytes|Kilobytes|Megabytes|Gigabytes|Terabytes|Bits|Kilobits|Megabits|Gigabits|Terabits|Count)(/Second)?"
)
DIRECTIVE = {
    "type": "object",
    "required": ["Namespace", "Dimensions", "Metrics"],
    "additionalProperties": False,
    "properties": {
        "Namespace": NAME,
        "Dimensions": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "array", "maxItems": 9, "items": NAME},
        },
        "Metrics": {
            "type": "array",
            "minItems": 1,
            "maxItems": 100,
            "items": {
                "type": "object",
                "required": ["Name"],
                "additionalProperties": False,
                "properties": {"Name": NAME, "Unit": {"type": "string", "pattern": f"^({UNITS})$"}},
            },
        },
    },
}
DOCUMENT = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "additionalProperties": False,
            "properties": {
                "Timestamp": {"type": "integer"},
                "CloudWatchMetrics": {"type": "array", "items": DIRECTIVE},
            },
        }
    },
}


def is_valid_document(line: dict[str, Any]) -> None:
    """Holds a line with metrics to the format."""
    jsonschema.validate(line, DOCUMENT)
    assert len(json.dumps(line)) < 256 * 1024
    assert int(BEGAN * 1000) <= line["_aws"]["Timestamp"] <= time.time() * 1000 + 1
    for directive in line["_aws"]["CloudWatchMetrics"]:
        assert directive["Namespace"] == "AmiBillingGuard"
        for dimension in {name for names in directive["Dimensions"] for name in names}:
            assert isinstance(line[dimension], str) and line[dimension], dimension
        for metric in directive["Metrics"]:
            assert type(line[metric["Name"]]) in (int, float), metric


@pytest.fixture(scope="module")
def watched(moto, guard_binary, environment, tmp_path_factory) -> Iterator[tuple[World, Emulator]]:
    """A guard that has come across nearly everything that there is to see."""
    world = World(moto)
    world.make_ledger()
    world.sns.create_topic(Name="chat")
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text("version = 1\n[discard]\nmax_per_hour = 1\n")
    settings = {"GUARD_LEDGER_TABLE": LEDGER, "GUARD_POLICY_PATH": str(policy), "GUARD_CHAT_TOPIC_ARN": CHAT}
    with Emulator(guard_binary, environment | settings) as guard:
        within_the_hour(120)
        world.fail("DescribeImages", "RequestLimitExceeded", status=503, times=1)
        guard.invoke(registration(world.image("Windows", expect="Windows")))
        for _ in range(3):
            guard.invoke(registration(world.image(expect="Windows")))
        conflict = world.image("Windows", "RunInstances:0010")
        extra = world.image("Windows with SQL Server Standard", expect="Windows")
        protected = world.image(expect="Windows", deregistration_protection="enabled")
        guard.invoke(
            batch([
                registration(conflict),
                registration(extra),
                registration(protected),
                registration(world.image()),
                registration(world.image("Windows for Workgroups", "RunInstances:0002", expect="Windows")),
                template("register-image-failed"),
                registration("ami-0123456789abcdef0"),
                "no event",
            ])
        )
        guard.invoke(scheduled())
        world.audited_before()
        world.image("Windows", expect="Windows", age=timedelta(hours=2))
        guard.invoke(audit())
        yield world, guard


def test_every_line_is_json_with_what_lambda_filters_by_and_says_which_invocation_it_is_of(watched):
    _, guard = watched
    lines = guard.lines()
    assert len(lines) >= 15
    # What is not JSON is the emulator's.
    of_emulator = re.compile(r"(START|END|REPORT) RequestId: |\d\d \w{3} \d{4} [\d:,]+ \[\w+\] \(rapid\) ")
    assert all(line.startswith("{") or of_emulator.match(line) for line in guard.output)
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"]), line
        assert line["level"] in ("DEBUG", "INFO", "WARN", "ERROR")
        assert re.fullmatch(r"[0-9a-f-]{36}", line["requestId"]), line
        # Of an event, its id; of a message, its id too.
        if line.get("schema") == 1:
            assert line["event_id"]
    failures = {line["error_type"]: line for line in lines if "Errors" in line}
    assert failures.keys() == {"NotVisibleYet", "MalformedEvent"}
    assert failures["NotVisibleYet"]["image_id"] == "ami-0123456789abcdef0"
    assert (failures["NotVisibleYet"]["level"], failures["MalformedEvent"]["level"]) == ("WARN", "ERROR")
    assert failures["NotVisibleYet"]["event_id"] and failures["MalformedEvent"]["message_id"] == "message-8"


def test_the_level_of_a_record_is_what_it_means(watched):
    _, guard = watched
    levels = {(line["verdict"], line["level"]) for line in guard.lines() if line.get("schema") == 1}
    assert levels == {
        ("verified", "INFO"),
        ("ignored", "INFO"),
        ("mismatch", "WARN"),
        ("conflict", "WARN"),
        ("unverifiable", "WARN"),
    }


def test_the_metrics_of_every_line_are_valid_and_add_up_to_what_the_server_saw(watched):
    world, guard = watched
    lines = [line for line in guard.lines() if "_aws" in line]
    for line in lines:
        is_valid_document(line)
    total: dict[str, float] = {}
    for line in lines:
        for name, value in metrics_of(line).items():
            total[name] = total.get(name, 0) + value
    calls = world.calls()
    published = [call for call in calls if call["action"] == "Publish" and call["params"]["TopicArn"] == TOPIC]
    assert total["ApiCalls"] == len(calls)
    assert total["Throttles"] == 1
    assert total["Alerts"] == len(published)
    assert total["Errors"] == 2
    # Three mismatches and two of the batch; of the three, one discarded, one told of at once, one in the digest. And one
    # of which no event told.
    assert (total["Registrations"], total["Mismatches"]) == (10, 5)
    assert (total["Discards"], total["Holds"]) == (1, 3)
    assert (total["HeldByLimit"], total["HeldByProtected"]) == (2, 1)
    # When it was registered, and by the audit of the same images.
    assert total["UnrecognisedBilling"] == 2
    assert total["TimeToVerdict"] >= 8 * 360_000


def registrations(guard: Emulator) -> set[tuple[str, str | None]]:
    counted = set()
    for line in guard.lines():
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", []):
            if directive["Metrics"][0]["Name"] == "Registrations":
                [by] = directive["Dimensions"]
                assert line["account"] == ACCOUNT
                assert by == ["function", "account", "verdict", *(["kind"] if line["kind"] else [])]
                counted.add((line["verdict"], line["kind"]))
    return counted


def test_registrations_are_counted_by_account_verdict_and_kind(watched):
    _, guard = watched
    assert registrations(guard) == {
        ("verified", None),
        ("mismatch", "wrong"),
        ("mismatch", "extra"),
        ("conflict", None),
        ("unverifiable", None),
    }


# --- The template against what the function writes ----------------------------------------------------


def all_metrics() -> set[str]:
    """The metrics that the function writes: those that it was seen to write, and one for each interlock."""
    return {
        "Alerts",
        "ApiCalls",
        "Discards",
        "Errors",
        "Holds",
        "Mismatches",
        "Registrations",
        "AuditMismatches",
        "AuditsUnfinished",
        "AuditedImages",
        "Throttles",
        "TimeToVerdict",
        "MissedImages",
        "UnrecognisedBilling",
    } | {f"HeldBy{name}" for name in names_of("Interlock", "src/plan/interlock.rs")}


def test_the_metrics_that_are_watched_are_those_that_are_written(watched, deployed):
    _, guard = watched
    written = {name for line in guard.lines() for name in metrics_of(line)}
    # This takes hundreds of images: `tests/guard/daily.rs` sees to it.
    written.add("AuditsUnfinished")
    assert {name for name in all_metrics() if not name.startswith("HeldBy")} <= written <= all_metrics()
    named = {metric["name"] for metric in deployed.metrics if metric["namespace"] == "AmiBillingGuard"}
    # What an operator chose is no news, and a dashboard with more than 50 metrics costs something.
    assert named == all_metrics() - {"HeldByObserveMode", "HeldByActionNone"}


def test_the_dimensions_that_are_watched_are_those_that_are_written(watched, deployed):
    _, guard = watched
    written: dict[str, set[frozenset[str]]] = {}
    for line in guard.lines():
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", []):
            for metric in directive["Metrics"]:
                written.setdefault(metric["Name"], set()).update(map(frozenset, directive["Dimensions"]))
    interlock = frozenset(["function"])
    written["AuditsUnfinished"] = written["AuditedImages"]
    assert {by for name, all_by in written.items() if name.startswith("HeldBy") for by in all_by} == {interlock}
    for metric in deployed.metrics:
        if metric["namespace"] == "AmiBillingGuard":
            by = {interlock} if metric["name"].startswith("HeldBy") else written[metric["name"]]
            assert frozenset(metric["dimensions"]) in by, metric
    verdicts = {
        (metric["dimensions"]["verdict"], metric["dimensions"].get("kind"))
        for metric in deployed.metrics
        if metric["name"] == "Registrations"
    }
    kinds = [("mismatch", name.lower()) for name in names_of("Mismatch", "src/verdict.rs")]
    others = [(name.lower(), None) for name in names_of("Verdict", "src/verdict.rs")]
    # An ignored event is no registration.
    expected = {*kinds, *others} - {("mismatch", None), ("ignored", None)}
    assert verdicts == expected
    # Every error, whatever its code.
    errors = [metric["dimensions"] for metric in deployed.metrics if "error_type" in metric["dimensions"]]
    assert errors == [{"function": "GuardFunction", "error_type": "*"}]


def test_the_fields_that_are_queried_are_those_that_are_written(watched, deployed):
    _, guard = watched
    fields = {"@timestamp"}
    for line in guard.lines():
        fields |= set(flattened(line))
    assert len(deployed.queries) == 4
    for query in deployed.queries:
        named = fields_of(query)
        assert named and named <= fields, named - fields


def flattened(value: Any, path: str = "") -> Iterator[str]:
    """The names that CloudWatch Logs Insights gives to the fields of a line."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from flattened(member, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for number, member in enumerate(value):
            yield from flattened(member, f"{path}.{number}")
    else:
        yield path


def fields_of(query: str) -> set[str]:
    """The fields that a query names: not its own words, nor the names that it gives."""
    query = re.sub(r"SOURCE '[^']*' \|", "", query)
    query = re.sub(r"'[^']*'", "", query)
    given = set(re.findall(r" as (\w+)", query))
    words = set(re.findall(r"@?[A-Za-z_][\w.]*", query))
    language = {
        "and",
        "as",
        "asc",
        "by",
        "count_distinct",
        "desc",
        "fields",
        "filter",
        "latest",
        "limit",
        "sort",
        "stats",
    }
    return words - given - language


def test_what_matters_of_the_longest_record_is_within_the_fields_that_insights_finds(world: World, guard: Emulator):
    tags = {f"{'k' * 100}-{number}": "v" * 200 for number in range(44)}
    guard.invoke(registration(world.image(expect="Windows", tags=tags)))
    [line] = [line for line in guard.lines() if line.get("schema") == 1][-1:]
    assert line["outcome"] == "done"
    # CloudWatch Logs Insights finds the first 200 fields of a line (CloudWatch Logs User Guide).
    names = list(flattened(line))[:200]
    for name in ("verdict", "kind", "reason", "actual.platform_details", "expected.platform.0", "action", "outcome"):
        assert name in names


# --- Nothing secret ------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["trace", "debug"])
def test_no_level_of_the_log_tells_a_secret(world: World, start, level):
    secrets = {"AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIsecretkey", "AWS_SESSION_TOKEN": "IQoJb3JpZ2luX2VjEJrsessiontoken"}
    guard = start(AWS_LAMBDA_LOG_LEVEL=level, **secrets)
    record = guard.invoke(registration(world.image(expect="Windows")))
    assert record["outcome"] == "done"
    output = "\n".join(guard.output)
    assert len(guard.lines()) > 20, "the level took effect"
    for secret in secrets.values():
        assert secret not in output


# --- Chat ----------------------------------------------------------------------------------------------


def test_a_chat_gets_a_notification_of_its_own_and_without_one_there_is_no_call(world: World, start):
    world.sns.create_topic(Name="chat")
    ami = world.image(expect="Windows")
    start(GUARD_CHAT_TOPIC_ARN=CHAT).invoke(registration(ami))
    published = [call["params"] for call in world.calls() if call["action"] == "Publish"]
    assert sorted(call["TopicArn"] for call in published) == sorted([TOPIC, CHAT])
    [chat] = [json.loads(call["Message"]) for call in published if call["TopicArn"] == CHAT]
    assert (chat["version"], chat["source"], chat["metadata"]["threadId"]) == ("1.0", "custom", ami)

    before = len(world.calls())
    start().invoke(registration(world.image(expect="Windows")))
    assert [call["params"]["TopicArn"] for call in world.calls()[before:] if call["action"] == "Publish"] == [TOPIC]


def test_subscriptions_can_filter_by_verdict_kind_account_and_region(world: World, guard: Emulator):
    attributes = {"verdict": ["conflict"]}
    queue = world.sqs.create_queue(QueueName="conflicts")["QueueUrl"]
    arn = world.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    world.sns.subscribe(
        TopicArn=TOPIC,
        Protocol="sqs",
        Endpoint=arn,
        Attributes={"RawMessageDelivery": "true", "FilterPolicy": json.dumps(attributes)},
    )
    guard.invoke(registration(world.image(expect="Windows")))
    conflict = world.image("Windows", "RunInstances:0010")
    guard.invoke(registration(conflict))
    [message] = world.sqs.receive_message(
        QueueUrl=queue, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
    )["Messages"]
    assert json.loads(message["Body"])["image_id"] == conflict
    told = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert told == {"verdict": "conflict", "account": ACCOUNT, "region": REGION}


# --- The self-test --------------------------------------------------------------------------------------


def test_the_deployed_function_tests_itself_and_changes_nothing(world: World, start, policy):
    world.make_ledger()
    world.sns.create_topic(Name="chat")
    rules = "version = 1\n[[exempt]]\nname = 'x-*'\nreason = 'x'\n"
    path = policy(rules)
    ami = world.image(tags={DISCARD: "true"})
    guard = start(GUARD_LEDGER_TABLE=LEDGER, GUARD_POLICY_PATH=path)

    report = guard.invoke({"self-test": True})

    assert report["self-test"] is True and report["mode"] == "enforce"
    assert report["policy"] == {
        "path": path,
        "sha256": hashlib.sha256(rules.encode()).hexdigest(),
        "expect_rules": 0,
        "exempt_rules": 1,
        "action": "deregister",
        "max_per_hour": 10,
    }
    states = {check["check"]: check["state"] for check in report["checks"]}
    assert {"alert-topic", "ledger", "ec2:DescribeImages", "ec2:DeregisterImage"} <= states.keys()
    assert "failed" not in states.values() and report["ok"] is True, report["checks"]
    assert world.exists(ami) and world.ledger() == {} and world.alerts() == []
    for call in world.calls():
        assert call["action"] not in MUTATING or call["params"]["DryRun"] == "true", call
    assert any("the self-test is over" in line["message"] for line in guard.lines() if "message" in line)

    # And with an alert, if it is asked for.
    assert guard.invoke({"self-test": True, "alert": True})["ok"] is True
    [alert] = world.alerts()
    assert alert["verdict"] == "self-test"
    assert guard.invoke({"self-test": True, "alert": 1})["errorType"] == "MalformedEvent"


def test_an_invocation_that_does_nothing_says_nothing(world: World, guard: Emulator):
    before = len(guard.lines())
    guard.invoke(template("register-image-failed"))
    assert [line.get("verdict") for line in guard.lines()[before:]] == ["ignored"]
    assert "_aws" not in guard.lines()[-1]


def test_an_event_that_is_too_young_is_counted_as_one_that_comes_again(world: World, guard: Emulator):
    before = len(guard.lines())
    guard.invoke(batch([registration(world.image(age=timedelta(0)), age=timedelta(0))]))
    failures = [line for line in guard.lines()[before:] if "Errors" in line]
    assert [line["error_type"] for line in failures] == ["NotSettled"]
    assert failures[0]["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["function"], ["function", "error_type"]]
