"""The template, transformed by SAM, as moto's CloudFormation creates it; and what moto does not know, said."""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto import mock_aws
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse
from stack import ROOT

ACCOUNT = "123456789012"
REGION = "eu-west-1"

# What CloudFormation would give for the Recycle Bin rule.
RULE = "JSzDHyLPHm0"

# What moto's CloudFormation can not create. cfn-lint and `sam validate --lint` alone look at these; of the alarms and
# queries, the APIs that moto has.
UNKNOWN_TO_MOTO = {
    "AWS::CloudWatch::Alarm",
    "AWS::IAM::RolePolicy",
    "AWS::Logs::QueryDefinition",
    "AWS::Rbin::Rule",
    "AWS::SNS::Subscription",
    "AWS::Scheduler::Schedule",
    "AWS::SQS::QueuePolicy",
}


def transformed() -> dict[str, Any]:
    template = yaml_parse((ROOT / "template.yaml").read_text())
    template["Resources"]["GuardFunction"]["Properties"]["CodeUri"] = "s3://code/code.zip"
    template["Resources"]["PolicyLayer"]["Properties"]["ContentUri"] = "s3://code/code.zip"

    class NoManagedPolicies:
        def load(self) -> dict[str, str]:
            return {}

    return transform(template, {}, NoManagedPolicies())


def client(service: str) -> Any:
    return boto3.client(
        service,
        region_name=REGION,
        aws_access_key_id="tests",
        aws_secret_access_key="tests",
        config=Config(retries={"total_max_attempts": 1}),
    )


class Created:
    """A stack that moto created, with everything that it can have."""

    def __init__(self, **parameters: str) -> None:
        self.parameters = parameters
        self.template = transformed()
        resources = self.template["Resources"]
        self.left_out = {name: resources.pop(name) for name in list(resources) if is_unknown(resources[name])}
        if "RecycleBinRule" in self.left_out:
            self.template = without_rule(self.template)
            resources = self.template["Resources"]
        dashboard = resources["GuardDashboard"]["Properties"]["DashboardBody"]
        alarm = rf"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:\1"
        dashboard["Fn::Sub"] = re.sub(r"\$\{(\w+Alarm)\.Arn\}", alarm, dashboard["Fn::Sub"])
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("bootstrap", "x")
        s3 = client("s3")
        s3.create_bucket(Bucket="code", CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket="code", Key="code.zip", Body=code.getvalue())
        cloudformation = client("cloudformation")
        cloudformation.create_stack(
            StackName="guard",
            TemplateBody=json.dumps(self.template),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        )
        [stack] = cloudformation.describe_stacks(StackName="guard")["Stacks"]
        self.status = stack["StackStatus"]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        made = cloudformation.describe_stack_resources(StackName="guard")["StackResources"]
        # moto lists what a condition leaves out, without a name.
        self.ids = {it["LogicalResourceId"]: it.get("PhysicalResourceId") for it in made if "LogicalResourceId" in it}

    def resolved(self, value: Any) -> Any:
        """A property with its references filled in, as far as this test needs it."""
        match value:
            case {"Ref": name}:
                return self.ids.get(name) or self.parameters.get(name, name)
            case {"Fn::If": ["HasAlarmTopic", there, otherwise]}:
                return self.resolved(there if self.parameters.get("AlarmTopicArn") else otherwise)
            case {"Fn::GetAtt": [name, "QueueName"]}:
                return self.ids[name].rsplit("/", 1)[-1]
            case {"Fn::Sub": text}:
                return text.replace("${SettleSeconds}", "300").replace("${AWS::StackName}", "guard")
            case dict():
                return {key: self.resolved(member) for key, member in value.items()}
            case list():
                return [self.resolved(member) for member in value]
        return value


def without_rule(value: Any) -> Any:
    """What refers to the Recycle Bin rule, with what CloudFormation would give."""
    match value:
        case {"Fn::GetAtt": ["RecycleBinRule", "Identifier"]}:
            return RULE
        case {"Fn::GetAtt": ["RecycleBinRule", "Arn"]}:
            return f"arn:aws:rbin:{REGION}:{ACCOUNT}:rule/{RULE}"
        case dict():
            return {key: without_rule(member) for key, member in value.items()}
        case list():
            return [without_rule(member) for member in value]
    return value


def is_unknown(resource: dict[str, Any]) -> bool:
    return resource["Type"] in UNKNOWN_TO_MOTO


@pytest.fixture
def created() -> Iterator[Created]:
    with mock_aws():
        yield Created(ChatNotifications="on", Trigger="both", AlertEmail="you@example.com")


def test_moto_creates_the_stack_but_for_what_it_does_not_know(created: Created):
    assert created.status == "CREATE_COMPLETE"
    assert created.ids.keys() == created.template["Resources"].keys()
    assert {resource["Type"] for resource in created.left_out.values()} == UNKNOWN_TO_MOTO


def test_the_function_is_created_with_its_settings(created: Created):
    [function] = client("lambda").list_functions()["Functions"]
    variables = function["Environment"]["Variables"]
    assert variables["GUARD_ALERT_TOPIC_ARN"] == created.ids["AlertTopic"] == created.outputs["AlertTopicArn"]
    assert variables["GUARD_CHAT_TOPIC_ARN"] == created.ids["ChatTopic"] == created.outputs["ChatTopicArn"]
    assert variables["GUARD_LEDGER_TABLE"] == created.outputs["LedgerTableName"]
    assert variables["GUARD_RECYCLE_BIN_RULE"] == RULE
    assert variables["GUARD_MODE"] == "enforce"
    [mapping] = client("lambda").list_event_source_mappings()["EventSourceMappings"]
    assert mapping["EventSourceArn"] == created.outputs["EventQueueArn"]


def test_the_rules_send_to_the_queue(created: Created):
    events = client("events")
    rules = events.list_rules()["Rules"]
    assert len(rules) == 3
    for rule in rules:
        [target] = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
        assert target["Arn"] == created.outputs["EventQueueArn"]


def test_the_dashboard_is_created_and_every_reference_in_it_is_filled_in(created: Created):
    name = created.outputs["DashboardName"]
    assert name == f"guard-{REGION}"
    body = client("cloudwatch").get_dashboard(DashboardName=name)["DashboardBody"]
    assert "${" not in body
    widgets = json.loads(body)["widgets"]
    assert {widget["type"] for widget in widgets} == {"text", "alarm", "metric", "log"}
    [log] = [widget["properties"]["query"] for widget in widgets if widget["type"] == "log"]
    assert created.outputs["GuardLogGroupName"] in log
    functions = re.findall(r'"function", "([^"]+)"', body)
    assert set(functions) == {created.outputs["GuardFunctionName"]}


def test_the_alarms_are_ones_that_cloudwatch_takes(created: Created):
    cloudwatch = client("cloudwatch")
    alarms = {
        name: created.resolved(resource["Properties"])
        for name, resource in created.left_out.items()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    }
    for name, properties in alarms.items():
        cloudwatch.put_metric_alarm(AlarmName=name, **properties)
    made = {alarm["AlarmName"]: alarm for alarm in cloudwatch.describe_alarms()["MetricAlarms"]}
    assert made.keys() == alarms.keys()
    for name, alarm in made.items():
        # Each mismatch has an alert of its own.
        assert alarm["AlarmActions"] == ([] if name == "MismatchAlarm" else [created.ids["AlertTopic"]])
    created.parameters["AlarmTopicArn"] = topic = f"arn:aws:sns:{REGION}:{ACCOUNT}:platform-alarms"
    waiting = created.resolved(created.left_out["WaitingEventAlarm"]["Properties"])
    cloudwatch.put_metric_alarm(AlarmName="elsewhere", **waiting)
    [alarm] = cloudwatch.describe_alarms(AlarmNames=["elsewhere"])["MetricAlarms"]
    assert alarm["AlarmActions"] == [topic]
    late = {query["Id"]: query for query in made["VerdictTimeAlarm"]["Metrics"]}
    assert late["late"]["Expression"] == "slowest / 1000 - 300"
    assert made["VerdictTimeAlarm"]["Threshold"] == 15 * 60
    oldest = {query["Id"]: query for query in made["WaitingEventAlarm"]["Metrics"]}
    assert oldest["late"]["Expression"] == "oldest - 300"


@pytest.mark.parametrize(("settle_seconds", "delay"), [("0", "0"), ("300", "300"), ("900", "900"), ("1200", "900"), ("7200", "900")])
def test_the_queue_is_created_with_a_delay_that_sqs_takes(settle_seconds: str, delay: str):
    with mock_aws():
        created = Created(SettleSeconds=settle_seconds)
        queue = created.ids["EventQueue"]
        attributes = client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
        assert attributes["DelaySeconds"] == delay
        [function] = client("lambda").list_functions()["Functions"]
        variables = function["Environment"]["Variables"]
        # moto leaves the number a number.
        assert (str(variables["GUARD_SETTLE_SECONDS"]), variables["GUARD_QUEUE_URL"]) == (settle_seconds, queue)
        [hides] = [it for it in statements_of_the_guard(created) if it["Action"] == "sqs:ChangeMessageVisibility"]
        assert hides["Resource"] == created.outputs["EventQueueArn"]


def test_the_queries_are_ones_that_logs_takes(created: Created):
    logs = client("logs")
    queries = [it["Properties"] for it in created.left_out.values() if it["Type"] == "AWS::Logs::QueryDefinition"]
    assert len(queries) == 3
    shape = logs.meta.service_model.operation_model("PutQueryDefinition").input_shape.members
    for properties in queries:
        resolved = created.resolved(properties)
        # moto has no PutQueryDefinition: the names and types of its parameters are all that can be held here.
        assert {name[0].lower() + name[1:] for name in resolved} <= shape.keys()
        assert isinstance(resolved["QueryString"], str) and resolved["Name"].startswith("guard/")


def test_the_role_may_ask_for_the_stacks_rule(created: Created):
    assert [it["Resource"] for it in statements_of_the_guard(created) if it["Action"] == "rbin:GetRule"] == [
        f"arn:aws:rbin:{REGION}:{ACCOUNT}:rule/{RULE}"
    ]


def statements_of_the_guard(created: Created) -> list[dict[str, Any]]:
    policy = client("iam").get_role_policy(RoleName=created.ids["GuardRole"], PolicyName="guard")["PolicyDocument"]
    # moto gives Python's words for it, and leaves a hole where CloudFormation leaves nothing.
    return [statement for statement in ast.literal_eval(policy)["Statement"] if statement]


def test_without_chat_dashboard_audit_and_rule_there_is_nothing_of_them():
    with mock_aws():
        created = Created(ChatNotifications="off", Dashboard="none", AuditSchedule="none", RecycleBinDays="0")
        assert created.status == "CREATE_COMPLETE"
        assert not {"ChatTopic", "GuardDashboard", "AuditRole"} & created.ids.keys()
        assert not {"ChatTopicArn", "DashboardName"} & created.outputs.keys()
        [function] = client("lambda").list_functions()["Functions"]
        assert function["Environment"]["Variables"]["GUARD_CHAT_TOPIC_ARN"] == ""
        assert function["Environment"]["Variables"]["GUARD_RECYCLE_BIN_RULE"] == ""
        statements = statements_of_the_guard(created)
        assert "rbin:GetRule" not in [it["Action"] for it in statements]
        [alert] = [it for it in statements if it["Sid"] == "Alert"]
        # moto leaves a hole where CloudFormation leaves nothing.
        assert [arn for arn in alert["Resource"] if arn] == [created.ids["AlertTopic"]]
