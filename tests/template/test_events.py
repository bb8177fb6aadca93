"""Which events reach the guard: the rules' patterns against every event of `events/`."""

import hashlib
import json
import pathlib

import cfnlint.decode.cfn_yaml
import pytest
from moto.events.models import EventPattern, EventPatternParser

ROOT = pathlib.Path(__file__).parents[2]
EVENTS = {file.stem: json.loads(file.read_text()) for file in sorted((ROOT / "events").glob("*.json"))}
# A rule with a schedule takes no events: it makes its own.
RULES = {
    name: resource["Properties"]["EventPattern"]
    for name, resource in cfnlint.decode.cfn_yaml.load(str(ROOT / "template.yaml"))["Resources"].items()
    if resource["Type"] == "AWS::Events::Rule" and "ScheduleExpression" not in resource["Properties"]
}

CALL, CHANGE = "RegisterImageRule", "StateChangeRule"

# An event that is no registration in itself but matches all the same is the guard's to refuse.
MATCHES = {
    "copy-image": set(),
    "create-image": set(),
    "deregister-image": set(),
    "register-image-assumed-role": {CALL},
    "register-image-aws-service": {CALL},
    "register-image-billing-products": {CALL},
    "register-image-console": {CALL},
    "register-image-console-session": {CALL},
    "register-image-dry-run": set(),
    "register-image-duplicate": {CALL},
    "register-image-failed": set(),
    "register-image-hostile-name": {CALL},
    "register-image-iam-user": {CALL},
    "register-image-instance-store": {CALL},
    "register-image-internal-address": {CALL},
    "register-image-malformed-image-id": {CALL},
    "register-image-omitted-request": {CALL},
    "register-image-other-account": {CALL},
    "register-image-other-region": {CALL},
    "register-image-own-automation": {CALL},
    "register-image-root-login": {CALL},
    "register-image-tag-specification": {CALL},
    "register-image-uploaded": {CALL},
    "register-image-without-answer": {CALL},
    "register-image-without-image-id": {CALL},
    "sqs-batch": set(),
    "state-change-available": {CHANGE},
    "state-change-deregistered": set(),
    "state-change-failed": set(),
    # Scheduler puts it on the queue itself.
    "audit": set(),
}


def matching(event):
    def matches(pattern):
        raw = json.dumps(pattern)
        return EventPattern(raw, EventPatternParser(raw).parse()).matches_event(event)

    return {name for name, pattern in RULES.items() if matches(pattern)}


def test_the_table_has_every_event_and_every_rule():
    assert sorted(MATCHES) == sorted(EVENTS)
    assert set().union(*MATCHES.values()) == set(RULES)


@pytest.mark.parametrize("name", sorted(MATCHES))
def test_the_rules_take_registrations_and_nothing_else(name):
    assert matching(EVENTS[name]) == MATCHES[name]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"source": "example.pipeline"}, CALL),
        ({"detail-type": "AWS Service Event via CloudTrail"}, CALL),
        ({"source": "example.pipeline"}, CHANGE),
    ],
)
def test_the_rules_take_nothing_that_ec2_did_not_send(change, rule):
    event = EVENTS["register-image-assumed-role" if rule == CALL else "state-change-available"]
    assert matching(event) == {rule}
    assert matching(event | change) == set()


def envelopes():
    return [(name, event) for name, event in EVENTS.items() if name != "sqs-batch"]


@pytest.mark.parametrize(("name", "event"), envelopes(), ids=[name for name, _ in envelopes()])
def test_an_event_has_the_keys_of_a_real_one(name, event):
    assert sorted(event) == sorted(
        ["version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail"]
    )
    detail = event["detail"]
    if event["detail-type"] == "Audit":
        assert (event["resources"], detail) == ([], {})
        return
    if event["detail-type"] == "EC2 AMI State Change":
        assert sorted(detail) == ["ErrorMessage", "ImageId", "RequestId", "State"]
        assert event["resources"] == [f"arn:aws:ec2:{event['region']}::image/{detail['ImageId']}"]
        return
    assert {"eventVersion", "userIdentity", "sourceIPAddress", "userAgent", "requestParameters"} <= set(detail)
    assert event["time"] == detail["eventTime"]
    assert event["region"] == detail["awsRegion"]
    assert event["account"] == detail["recipientAccountId"] == detail["userIdentity"]["accountId"]
    if "errorCode" in detail or name == "register-image-without-answer":
        assert detail["responseElements"] is None
    else:
        assert detail["responseElements"]["requestId"] == detail["requestID"]


def test_the_event_of_an_audit_is_what_the_schedule_sends():
    schedule = cfnlint.decode.cfn_yaml.load(str(ROOT / "template.yaml"))["Resources"]["ScheduledAudit"]["Properties"]
    sent = json.loads(schedule["Target"]["Input"]["Fn::Sub"])
    keywords = {"<aws.scheduler.execution-id>", "<aws.scheduler.scheduled-time>", "${AWS::AccountId}", "${AWS::Region}"}
    assert {value for value in sent.values() if isinstance(value, str) and value[0] in "<$"} == keywords
    filled = {key: EVENTS["audit"][key] if str(value) in keywords else value for key, value in sent.items()}
    assert filled == EVENTS["audit"]


def test_the_duplicate_is_the_very_same_event():
    assert EVENTS["register-image-duplicate"] == EVENTS["register-image-assumed-role"]


def test_no_two_other_events_share_an_id():
    ids = [event["id"] for name, event in envelopes() if name != "register-image-duplicate"]
    assert len(set(ids)) == len(ids)


def test_the_batch_holds_three_of_the_events():
    records = EVENTS["sqs-batch"]["Records"]
    assert [json.loads(record["body"]) for record in records] == [
        EVENTS["register-image-assumed-role"],
        EVENTS["register-image-malformed-image-id"],
        EVENTS["state-change-available"],
    ]
    for record in records:
        assert record["eventSource"] == "aws:sqs"
        assert record["md5OfBody"] == hashlib.md5(record["body"].encode()).hexdigest()
    assert len({record["messageId"] for record in records}) == 3


def test_the_readme_tells_what_each_event_is():
    rows = (ROOT / "events" / "README.md").read_text().splitlines()
    assert sorted(row.split("`")[1] for row in rows if row.startswith("| `")) == sorted(EVENTS)
