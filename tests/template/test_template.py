"""What the SAM template promises: who may send events, what the guard may do, and what it is told."""

import fnmatch
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import cfnlint.decode.cfn_yaml
import pytest
from cfnlint.data import AdditionalSpecs
from cfnlint.helpers import load_resource

ROOT = pathlib.Path(__file__).parents[2]
TEMPLATE = cfnlint.decode.cfn_yaml.load(str(ROOT / "template.yaml"))
RESOURCES = TEMPLATE["Resources"]
PARAMETERS = TEMPLATE["Parameters"]

# The mark of the guard: the Recycle Bin rule, the role and the code must all mean the same pair.
MARK = ("ami-billing-guard:discard", "true")
IMAGES = {"Fn::Sub": "arn:${AWS::Partition}:ec2:${AWS::Region}::image/*"}


def of_type(kind):
    return {name: r["Properties"] for name, r in RESOURCES.items() if r["Type"] == kind}


def listed(value):
    return value if isinstance(value, list) else [value]


def chosen(statement):
    """A statement; of one that depends on a condition, what is there if it holds."""
    if "Fn::If" not in statement:
        return statement
    _, there, otherwise = statement["Fn::If"]
    assert otherwise == {"Ref": "AWS::NoValue"}
    return there


def role_statements(effect="Allow"):
    statements = [
        statement
        for policy in RESOURCES["GuardRole"]["Properties"]["Policies"]
        for statement in map(chosen, policy["PolicyDocument"]["Statement"])
        if statement["Effect"] == effect
    ]
    assert statements, f"the role has no {effect} at all"
    return statements


def statement_for(action):
    found = [s for s in role_statements() if action in listed(s["Action"])]
    assert len(found) == 1, f"{action} is granted {len(found)} times"
    return found[0]


def queue_statements(queue):
    (policy,) = (p for p in of_type("AWS::SQS::QueuePolicy").values() if p["Queues"] == [{"Ref": queue}])
    return policy["PolicyDocument"]["Statement"]


# --- The role ----------------------------------------------------------------------------------------


def test_the_role_grants_the_calls_of_the_guard_and_no_others():
    granted = {action for s in role_statements() for action in listed(s["Action"])}
    assert granted == {
        "dynamodb:BatchGetItem",
        "dynamodb:GetItem",
        "dynamodb:UpdateItem",
        "ebs:GetSnapshotBlock",
        "ebs:ListSnapshotBlocks",
        "ec2:CreateTags",
        "ec2:DeregisterImage",
        "ec2:DescribeImageAttribute",
        "ec2:DescribeImageReferences",
        "ec2:DescribeImages",
        "ec2:DescribeInstances",
        "ec2:DescribeLaunchTemplateVersions",
        "ec2:DescribeLaunchTemplates",
        "ec2:DescribeSnapshotAttribute",
        "ec2:DescribeSnapshots",
        "ec2:DescribeVolumes",
        "ec2:DisableImage",
        "ec2:ListImagesInRecycleBin",
        "imagebuilder:GetContainerRecipe",
        "imagebuilder:ListContainerRecipes",
        "imagebuilder:ListImageRecipes",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "rbin:GetRule",
        "sns:GetTopicAttributes",
        "sns:Publish",
        "sqs:ChangeMessageVisibility",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        "sqs:ReceiveMessage",
        "ssm:DescribeParameters",
        "ssm:GetParameters",
    }


def test_encrypted_snapshots_are_read_only_with_keys_that_the_stack_names():
    policy = RESOURCES["ReadEncryptedDisks"]
    assert policy["Condition"] == "HasDiskKeys"
    assert policy["Properties"]["RoleName"] == {"Ref": "GuardRole"}
    [statement] = policy["Properties"]["PolicyDocument"]["Statement"]
    assert statement == {
        "Effect": "Allow",
        "Action": "kms:Decrypt",
        "Resource": {"Fn::Split": [",", {"Ref": "DiskKeyArns"}]},
    }
    granted = {action for s in role_statements() for action in listed(s["Action"])}
    assert not any(action.startswith("kms:") for action in granted)


KEYS = "arn:aws:kms:eu-west-1:123456789012:key/"
KEY = f"{KEYS}0b3e1c4a-5d6f-4a7b-8c9d-0e1f2a3b4c5d"


@pytest.mark.parametrize(
    "arns",
    ["", KEY, f"{KEYS}*", f"{KEY},{KEYS}*", "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/mrk-0b3e1c4a"],
)
def test_the_keys_of_encrypted_snapshots_are_arns_of_keys(arns):
    assert re.fullmatch(PARAMETERS["DiskKeyArns"]["AllowedPattern"], arns)


@pytest.mark.parametrize(
    "arns",
    [
        " ",
        "*",
        KEYS,
        f"{KEY}, {KEY}",
        f"{KEY} {KEY}",
        f"{KEY},",
        f",{KEY}",
        f"{KEYS}*,*",
        KEY.split("/")[1],
        KEY.replace("key/", "alias/"),
        KEY.replace("eu-west-1:123456789012", "*:*"),
        "arn:aws:s3:::disks",
    ],
)
def test_what_is_no_key_is_refused_as_one(arns):
    assert not re.fullmatch(PARAMETERS["DiskKeyArns"]["AllowedPattern"], arns)


def test_sam_adds_nothing_to_the_role():
    function = RESOURCES["GuardFunction"]["Properties"]
    assert function["Role"] == {"Fn::GetAtt": ["GuardRole", "Arn"]}
    assert "Policies" not in function
    assert "ManagedPolicyArns" not in RESOURCES["GuardRole"]["Properties"]
    assert sorted(of_type("AWS::IAM::Role")) == ["AuditRole", "GuardRole"]


def test_no_snapshot_can_be_deleted():
    for statement in role_statements():
        for action in listed(statement["Action"]):
            assert not fnmatch.fnmatch("ec2:deletesnapshot", action.lower())
        assert "NotAction" not in statement
    denied = [s for s in role_statements("Deny") if "ec2:DeleteSnapshot" in listed(s["Action"])]
    assert [s["Resource"] for s in denied] == ["*"]
    assert "Condition" not in denied[0]


def test_every_action_names_its_resource_where_iam_knows_one():
    services = load_resource(AdditionalSpecs, "Policies.json")
    for statement in role_statements():
        for action in listed(statement["Action"]):
            service, name = action.split(":")
            known = {a.lower(): spec for a, spec in services[service]["Actions"].items()}[name.lower()]
            anything = statement["Resource"] == "*"
            assert anything != bool(known.get("Resources")), f"{action} on {statement['Resource']}"


@pytest.mark.parametrize(
    "action",
    ["ec2:DescribeLaunchTemplateVersions", "imagebuilder:ListImageRecipes", "ssm:DescribeParameters", "ssm:GetParameters"],
)
def test_what_ec2_needs_to_find_references_the_guard_can_not_do_by_itself(action):
    condition = statement_for(action)["Condition"]
    assert condition == {"ForAnyValue:StringEquals": {"aws:CalledVia": "ec2-images.amazonaws.com"}}


@pytest.mark.parametrize("action", ["ec2:DeregisterImage", "ec2:DisableImage"])
def test_only_a_marked_image_can_be_discarded(action):
    statement = statement_for(action)
    assert statement["Resource"] == IMAGES
    assert statement["Condition"] == {"StringEquals": {f"aws:ResourceTag/{MARK[0]}": MARK[1]}}


def test_only_the_guards_own_tags_can_be_set_and_only_on_images():
    statement = statement_for("ec2:CreateTags")
    assert statement["Resource"] == IMAGES
    keys = statement["Condition"]["ForAllValues:StringEquals"]["aws:TagKeys"]
    assert sorted(keys) == [
        "ami-billing-guard:discard",
        "ami-billing-guard:record",
        "ami-billing-guard:should-be",
        "ami-billing-guard:verdict",
    ]
    # ForAllValues alone would also hold for a request that names no key.
    assert statement["Condition"]["Null"] == {"aws:TagKeys": "false"}


def test_alerts_go_to_the_one_topic_and_to_that_of_chat_if_there_is_one():
    chat = {"Fn::If": ["HasChatTopic", {"Ref": "ChatTopic"}, {"Ref": "AWS::NoValue"}]}
    assert statement_for("sns:Publish")["Resource"] == [{"Ref": "AlertTopic"}, chat]
    assert list(of_type("AWS::SNS::Topic")) == ["AlertTopic", "ChatTopic"]
    assert RESOURCES["ChatTopic"]["Condition"] == "HasChatTopic"
    assert PARAMETERS["ChatNotifications"]["Default"] == "off"


@pytest.mark.parametrize("action", ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:UpdateItem"])
def test_the_guard_remembers_in_its_one_table_and_nowhere_else(action):
    assert statement_for(action)["Resource"] == {"Fn::GetAtt": ["LedgerTable", "Arn"]}
    assert list(of_type("AWS::DynamoDB::Table")) == ["LedgerTable"]


def test_launch_permissions_can_be_looked_at_and_not_changed():
    assert statement_for("ec2:DescribeImageAttribute")["Resource"] == IMAGES
    for statement in role_statements():
        for action in listed(statement["Action"]):
            assert not fnmatch.fnmatch("ec2:modifyimageattribute", action.lower())


# --- The rules ---------------------------------------------------------------------------------------

RULES = of_type("AWS::Events::Rule")


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_sends_to_the_event_queue_and_keeps_what_it_can_not_deliver(rule):
    assert RULES[rule]["Targets"] == [
        {
            "Id": "event-queue",
            "Arn": {"Fn::GetAtt": ["EventQueue", "Arn"]},
            "DeadLetterConfig": {"Arn": {"Fn::GetAtt": ["UndeliveredEventQueue", "Arn"]}},
            "RetryPolicy": {"MaximumEventAgeInSeconds": 86400, "MaximumRetryAttempts": 185},
        }
    ]


def test_the_digest_is_asked_for_once_an_hour_when_the_invocations_of_the_last_are_over():
    (rule,) = (rule for rule in RULES.values() if "ScheduleExpression" in rule)
    assert rule is RULES["DigestRule"] and "EventPattern" not in rule
    minute, *rest = re.fullmatch(r"cron\((.*)\)", rule["ScheduleExpression"])[1].split()
    assert rest == ["*", "*", "*", "?", "*"]
    assert PARAMETERS["Timeout"]["MaxValue"] < int(minute) * 60 < 3600
    # Whatever the triggers are.
    assert "Condition" not in RESOURCES["DigestRule"]


# --- The audit ---------------------------------------------------------------------------------------


def test_the_schedule_sends_to_the_event_queue_by_a_role_that_may_do_nothing_else():
    schedule, role = RESOURCES["ScheduledAudit"], RESOURCES["AuditRole"]
    assert schedule["Condition"] == role["Condition"] == "HasAudit"
    target = schedule["Properties"]["Target"]
    queues = [{"Fn::GetAtt": [queue, "Arn"]} for queue in ("EventQueue", "UndeliveredEventQueue")]
    assert [target["Arn"], target["DeadLetterConfig"]["Arn"]] == queues
    assert target["RoleArn"] == {"Fn::GetAtt": ["AuditRole", "Arn"]}
    assert schedule["Properties"]["ScheduleExpression"] == {"Ref": "AuditSchedule"}
    (policy,) = role["Properties"]["Policies"]
    assert policy["PolicyDocument"]["Statement"] == [
        {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": queues}
    ]
    (trust,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "scheduler.amazonaws.com"}
    assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


@pytest.mark.parametrize(
    ("schedule", "accepted"),
    [
        (PARAMETERS["AuditSchedule"]["Default"], True),
        ("rate(12 hours)", True),
        ("cron(0 4 * * ? *)", True),
        ("none", True),
        ("", True),
        ("rate(0 days)", False),
        # An audit takes up to a minute, and the others wait.
        ("rate(1 minute)", False),
        ("at(2026-11-26T04:00:00)", False),
        ("daily", False),
        ("cron()", False),
    ],
)
def test_an_audit_is_scheduled_by_a_rate_of_hours_or_days_or_by_a_cron_or_never(schedule, accepted):
    assert bool(re.fullmatch(PARAMETERS["AuditSchedule"]["AllowedPattern"], schedule)) == accepted


# --- The queues --------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue", ["EventQueue", "UndeliveredEventQueue"])
def test_only_the_rules_may_send(queue):
    (allow,) = (s for s in queue_statements(queue) if s["Effect"] == "Allow")
    assert allow["Principal"] == {"Service": "events.amazonaws.com"}
    assert allow["Action"] == "sqs:SendMessage"
    assert allow["Resource"] == {"Fn::GetAtt": [queue, "Arn"]}
    senders = allow["Condition"]["ArnEquals"]["aws:SourceArn"]
    assert list(allow["Condition"]) == ["ArnEquals"]
    # Each rule while it exists, and nothing in its place while it does not.
    def sender(name):
        arn, condition = {"Fn::GetAtt": [name, "Arn"]}, RESOURCES[name].get("Condition")
        return {"Fn::If": [condition, arn, {"Ref": "AWS::NoValue"}]} if condition else arn

    assert senders == [sender(name) for name in RULES]


def test_nobody_may_send_to_the_dead_letter_queue():
    assert [s["Effect"] for s in queue_statements("DeadLetterQueue")] == ["Deny"]


@pytest.mark.parametrize("queue", sorted(of_type("AWS::SQS::Queue")))
def test_every_queue_refuses_what_comes_without_tls(queue):
    (deny,) = (s for s in queue_statements(queue) if s["Effect"] == "Deny")
    assert (deny["Principal"], deny["Action"]) == ("*", "sqs:*")
    assert deny["Resource"] == {"Fn::GetAtt": [queue, "Arn"]}
    assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_a_message_stays_hidden_for_six_times_the_longest_timeout():
    assert of_type("AWS::SQS::Queue")["EventQueue"]["VisibilityTimeout"] >= 6 * PARAMETERS["Timeout"]["MaxValue"]


# The longest delay of a queue (SQS API reference, "CreateQueue").
LONGEST_DELAY = 900
SETTLE_SECONDS = PARAMETERS["SettleSeconds"]["AllowedValues"]


def holds(condition, settle_seconds):
    """Whether a condition on SettleSeconds holds."""
    match condition:
        case {"Fn::Or": conditions}:
            # CloudFormation takes from two to ten.
            assert 2 <= len(conditions) <= 10
            return any([holds(it, settle_seconds) for it in conditions])
        case {"Fn::Equals": [{"Ref": "SettleSeconds"}, value]}:
            # CloudFormation compares texts.
            return str(settle_seconds) == str(value)
    raise ValueError(condition)


def delay(settle_seconds):
    """The queue's delay, as CloudFormation works it out."""
    condition, longer, otherwise = RESOURCES["EventQueue"]["Properties"]["DelaySeconds"]["Fn::If"]
    assert otherwise == {"Ref": "SettleSeconds"}
    return longer if holds(TEMPLATE["Conditions"][condition], settle_seconds) else settle_seconds


@pytest.mark.parametrize("seconds", SETTLE_SECONDS)
def test_the_queue_delays_by_the_settle_time_as_far_as_a_queue_can(seconds):
    assert delay(seconds) == min(seconds, LONGEST_DELAY)


def test_the_settle_time_is_one_that_the_function_accepts():
    assert settings()["GUARD_SETTLE_SECONDS"] == {"Ref": "SettleSeconds"}
    assert PARAMETERS["SettleSeconds"]["Default"] == 300
    assert SETTLE_SECONDS == [*range(0, 901, 60), 1200, 1800, 2700, 3600, 5400, 7200]
    [most] = re.findall(r'"whole seconds from 0 to (\d+)",\s+\1,', (ROOT / "src/config.rs").read_text())[-1:]
    assert max(SETTLE_SECONDS) == int(most)
    # The policy that is deployed with it must not stop the function.
    policy = tomllib.loads((ROOT / "policy" / "policy.toml").read_text())
    assert max(SETTLE_SECONDS) < policy["discard"]["max_age_hours"] * 3600


def test_the_condition_on_the_settle_time_has_the_values_that_are_longer_than_a_delay_and_no_others():
    listed = [it["Fn::Equals"][1] for it in TEMPLATE["Conditions"]["SettlesAfterTheDelay"]["Fn::Or"]]
    assert listed == [seconds for seconds in SETTLE_SECONDS if seconds > LONGEST_DELAY]


def test_the_guard_may_hide_messages_of_its_own_queue_and_of_no_other():
    assert settings()["GUARD_QUEUE_URL"] == {"Ref": "EventQueue"}
    assert statement_for("sqs:ChangeMessageVisibility")["Resource"] == {"Fn::GetAtt": ["EventQueue", "Arn"]}


@pytest.mark.parametrize("seconds", SETTLE_SECONDS)
def test_the_receives_outlast_the_recycle_bin_rule_of_a_new_stack(seconds):
    queue = RESOURCES["EventQueue"]["Properties"]
    receives, pause = queue["RedrivePolicy"]["maxReceiveCount"], queue["VisibilityTimeout"]
    # The wait beyond the delay takes one receive, and ends when the image has settled.
    waits = seconds > LONGEST_DELAY
    last = seconds + (receives - waits - 1) * pause
    # It can be pending for half an hour (EBS User Guide, "Recycle Bin").
    assert last > 30 * 60


def test_an_event_is_lost_only_when_no_receive_is_left():
    queue = RESOURCES["EventQueue"]["Properties"]
    pauses = (queue["RedrivePolicy"]["maxReceiveCount"] - 1) * queue["VisibilityTimeout"]
    [minutes] = re.findall(r"const LOST: TimeDelta = TimeDelta::minutes\((\d+)\)", (ROOT / "src/guard/audit/daily.rs").read_text())
    assert int(minutes) * 60 > pauses


def test_what_can_not_be_judged_is_kept_for_fourteen_days():
    redrive = RESOURCES["EventQueue"]["Properties"]["RedrivePolicy"]
    assert redrive == {"deadLetterTargetArn": {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}, "maxReceiveCount": 7}
    for queue in ("EventQueue", "DeadLetterQueue", "UndeliveredEventQueue"):
        assert RESOURCES[queue]["Properties"]["MessageRetentionPeriod"] == 14 * 24 * 3600


ALARMS = of_type("AWS::CloudWatch::Alarm").values()


def measured(alarm):
    """What an alarm looks at: one metric, or several that it reckons with."""
    return [it["MetricStat"]["Metric"] for it in alarm["Metrics"] if "MetricStat" in it] if "Metrics" in alarm else [alarm]


@pytest.mark.parametrize("queue", sorted(of_type("AWS::SQS::Queue")))
def test_every_queue_has_an_alarm_that_is_told_where_alerts_are(queue):
    name = [{"Name": "QueueName", "Value": {"Fn::GetAtt": [queue, "QueueName"]}}]
    ((alarm, metric),) = ((alarm, metric) for alarm in ALARMS for metric in measured(alarm) if metric["Dimensions"] == name)
    assert metric["Namespace"] == "AWS/SQS"
    assert alarm["AlarmActions"] == [{"Fn::If": ["HasAlarmTopic", {"Ref": "AlarmTopicArn"}, {"Ref": "AlertTopic"}]}]
    # An idle queue sends no numbers, and is in order.
    assert alarm["TreatMissingData"] == "notBreaching"
    # Alarms can not publish to a topic that is encrypted with AWS's own key.
    assert "KmsMasterKeyId" not in RESOURCES["AlertTopic"]["Properties"]


@pytest.mark.parametrize(
    ("topic", "accepted"),
    [
        ("", True),
        ("arn:aws:sns:eu-west-1:123456789012:platform-alarms", True),
        ("arn:aws-us-gov:sns:us-gov-west-1:123456789012:platform_alarms", True),
        # CloudWatch's actions are standard topics.
        ("arn:aws:sns:eu-west-1:123456789012:platform.fifo", False),
        ("arn:aws:sqs:eu-west-1:123456789012:platform-alarms", False),
        ("platform-alarms", False),
        ("arn:aws:sns:eu-west-1:123456789012:a,arn:aws:sns:eu-west-1:123456789012:b", False),
        (" ", False),
    ],
)
def test_the_topic_for_alarms_is_one_topic_or_none(topic, accepted):
    parameter = PARAMETERS["AlarmTopicArn"]
    assert bool(re.fullmatch(parameter["AllowedPattern"], topic)) == accepted
    assert parameter["Default"] == ""
    assert "alias/aws/sns" in parameter["Description"]


def test_events_that_wait_are_told_of_only_when_no_attempt_can_be_left():
    waiting = RESOURCES["WaitingEventAlarm"]["Properties"]
    [oldest] = measured(waiting)
    assert oldest["MetricName"] == "ApproximateAgeOfOldestMessage"
    # The age counts from when the event was sent: a message that is hidden until its image has settled is not late.
    [late] = [it["Expression"] for it in waiting["Metrics"] if it["ReturnData"]]
    assert late == {"Fn::Sub": "oldest - ${SettleSeconds}"}
    queue = RESOURCES["EventQueue"]["Properties"]
    attempts = queue["RedrivePolicy"]["maxReceiveCount"] * queue["VisibilityTimeout"]
    assert waiting["Threshold"] >= attempts


def test_the_runbook_knows_every_error_and_every_queue_of_the_outputs():
    runbook = (ROOT / "docs/runbook.md").read_text()
    source = (ROOT / "src/error.rs").read_text()
    errors = re.findall(r'Error::\w+(?:\(_\)| \{ \.\. \}) => "(\w+)"', source)
    assert len(errors) >= 7
    for word in [*errors, "DeadLetterQueueArn", "UndeliveredEventQueueArn", "start-message-move-task"]:
        assert word in runbook, word


def test_lambda_takes_batches_and_returns_only_what_failed():
    events = RESOURCES["GuardFunction"]["Properties"]["Events"]
    (source,) = events.values()
    assert source["Type"] == "SQS"
    assert source["Properties"] == {
        "Queue": {"Fn::GetAtt": ["EventQueue", "Arn"]},
        "BatchSize": 10,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "ScalingConfig": {"MaximumConcurrency": {"Ref": "MaximumConcurrency"}},
    }
    assert PARAMETERS["MaximumConcurrency"]["MinValue"] == 2


# --- The function ------------------------------------------------------------------------------------


def settings():
    return RESOURCES["GuardFunction"]["Properties"]["Environment"]["Variables"]


def test_the_function_gets_settings_that_the_guard_knows():
    assert set(settings()) <= {
        "GUARD_MODE",
        "GUARD_ALERT_TOPIC_ARN",
        "GUARD_CHAT_TOPIC_ARN",
        "GUARD_POLICY_PATH",
        "GUARD_ACCOUNT_ID",
        "GUARD_WAIT_SECONDS",
        "GUARD_SETTLE_SECONDS",
        "GUARD_LEDGER_TABLE",
        "GUARD_LEDGER_DAYS",
        "GUARD_QUEUE_URL",
        "GUARD_RUNBOOK_URL",
        "GUARD_RECYCLE_BIN_RULE",
    }
    assert settings()["GUARD_MODE"] == {"Ref": "Mode"}
    assert settings()["GUARD_ALERT_TOPIC_ARN"] == {"Ref": "AlertTopic"}
    assert settings()["GUARD_ACCOUNT_ID"] == {"Ref": "AWS::AccountId"}
    assert PARAMETERS["Mode"]["AllowedValues"] == ["enforce", "observe"]
    assert PARAMETERS["Mode"]["Default"] == "enforce"


def test_the_policy_is_where_the_function_looks_for_it():
    assert RESOURCES["GuardFunction"]["Properties"]["Layers"] == [{"Ref": "PolicyLayer"}]
    content = ROOT / RESOURCES["PolicyLayer"]["Properties"]["ContentUri"]
    # Lambda unpacks a layer's content below /opt.
    path = pathlib.PurePosixPath(settings()["GUARD_POLICY_PATH"])
    assert (content / path.relative_to("/opt")).is_file()
    # The schema is for editors, which look for it beside the policy.
    assert sorted(f.name for f in content.iterdir()) == ["policy.schema.json", "policy.toml"]


def test_the_deployed_policy_is_the_defaults_written_out():
    policy = tomllib.loads((ROOT / "policy" / "policy.toml").read_text())
    assert policy == {
        "version": 1,
        "defaults": {},
        "evidence": {"tags": True, "lineage": "always", "disk": "always", "disk_max_blocks": 256},
        "discard": {
            "action": "deregister",
            "from": ["declared"],
            "confirm": "none",
            "max_per_hour": 10,
            "max_age_hours": 24,
            "in_use": "hold",
            "shared": "hold",
            "service_registered": "hold",
        },
        "alert": {"on": ["mismatch", "conflict"], "max_per_hour": 20},
    }


def test_no_log_level_drops_the_records():
    # The record of an image that is verified has the level INFO.
    assert set(PARAMETERS["LogLevel"]["AllowedValues"]) <= {"TRACE", "DEBUG", "INFO"}
    logging = RESOURCES["GuardFunction"]["Properties"]["LoggingConfig"]
    assert logging["LogFormat"] == "JSON"
    assert logging["ApplicationLogLevel"] == {"Ref": "LogLevel"}
    assert logging["LogGroup"] == {"Ref": "GuardLogGroup"}


def test_sam_builds_the_one_binary_of_the_guard():
    function = RESOURCES["GuardFunction"]
    assert function["Metadata"] == {"BuildMethod": "rust-cargolambda", "BuildProperties": {"Binary": "guard"}}
    assert function["Properties"]["Runtime"] == "provided.al2023"
    assert function["Properties"]["Architectures"] == [{"Ref": "Architecture"}]


# --- The ledger --------------------------------------------------------------------------------------


def test_the_ledger_is_a_table_of_items_by_id_that_is_paid_for_by_request():
    table = RESOURCES["LedgerTable"]["Properties"]
    assert table["KeySchema"] == [{"AttributeName": "id", "KeyType": "HASH"}]
    assert table["AttributeDefinitions"] == [{"AttributeName": "id", "AttributeType": "S"}]
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert settings()["GUARD_LEDGER_TABLE"] == {"Ref": "LedgerTable"}
    assert TEMPLATE["Outputs"]["LedgerTableName"]["Value"] == {"Ref": "LedgerTable"}


def test_the_ledger_forgets_what_expired_and_can_be_brought_back_as_it_was():
    table = RESOURCES["LedgerTable"]["Properties"]
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires", "Enabled": True}
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


def test_the_ledger_remembers_for_a_year_unless_told_otherwise():
    days = PARAMETERS["LedgerDays"]
    assert settings()["GUARD_LEDGER_DAYS"] == {"Ref": "LedgerDays"}
    assert (days["Default"], days["MinValue"], days["MaxValue"]) == (365, 1, 3650)
    # The policy that is deployed with it must not stop the function.
    policy = tomllib.loads((ROOT / "policy" / "policy.toml").read_text())
    assert days["MinValue"] * 24 >= policy["discard"]["max_age_hours"]


@pytest.mark.parametrize("name", ["GuardLogGroup", "LedgerTable"])
def test_the_account_of_what_was_done_outlives_the_stack(name):
    assert RESOURCES[name]["DeletionPolicy"] == "RetainExceptOnCreate"
    assert RESOURCES[name]["UpdateReplacePolicy"] == "Retain"
    # What outlives a stack under a fixed name stops the next one from being deployed.
    assert not {"LogGroupName", "TableName"} & set(RESOURCES[name]["Properties"])


# --- The rest ----------------------------------------------------------------------------------------


def test_the_recycle_bin_keeps_what_bears_the_guards_mark():
    rule = RESOURCES["RecycleBinRule"]["Properties"]
    assert rule["ResourceType"] == "EC2_IMAGE"
    assert rule["ResourceTags"] == [{"ResourceTagKey": MARK[0], "ResourceTagValue": MARK[1]}]
    assert rule["RetentionPeriod"]["RetentionPeriodValue"] == {"Ref": "RecycleBinDays"}
    assert PARAMETERS["RecycleBinDays"]["Default"] == 30


def test_the_guard_asks_for_the_stacks_own_rule_and_no_other():
    assert settings()["GUARD_RECYCLE_BIN_RULE"] == {
        "Fn::If": ["HasRecycleBinRule", {"Fn::GetAtt": ["RecycleBinRule", "Identifier"]}, ""]
    }
    assert statement_for("rbin:GetRule")["Resource"] == {"Fn::GetAtt": ["RecycleBinRule", "Arn"]}
    [condition] = [
        statement["Fn::If"][0]
        for policy in RESOURCES["GuardRole"]["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        if "Fn::If" in statement
    ]
    # What is there only if the rule is, may refer to it.
    assert condition == RESOURCES["RecycleBinRule"]["Condition"] == "HasRecycleBinRule"


def test_every_parameter_says_what_it_takes_and_stands_in_a_group():
    interface = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]
    grouped = [name for group in interface["ParameterGroups"] for name in group["Parameters"]]
    assert sorted(grouped) == sorted(PARAMETERS)
    assert sorted(interface["ParameterLabels"]) == sorted(PARAMETERS)
    for name, parameter in PARAMETERS.items():
        assert parameter["Description"] and parameter["ConstraintDescription"], name
        assert {"AllowedValues", "AllowedPattern", "MinValue"} & set(parameter), name


def test_every_output_is_described():
    assert TEMPLATE["Outputs"]
    for name, output in TEMPLATE["Outputs"].items():
        assert output["Description"], name


def test_sam_finds_the_template_valid():
    sam = pathlib.Path(sys.executable).parent / "sam"
    environment = os.environ | {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "SAM_CLI_TELEMETRY": "0",
    }
    run = subprocess.run(
        [sam, "validate", "--lint"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "is a valid SAM Template" in run.stdout
