"""What the template puts up for people to watch: alarms, a dashboard, saved queries, and where each leads."""

import itertools
import re

import pytest
from stack import ROOT, Stack, names_of, read

STACK: Stack = read()
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
GOLDEN = sorted((ROOT / "tests/guard/golden").glob("*.txt"))
SOURCES = sorted((ROOT / "src").rglob("*.rs"))


def anchors(markdown: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", sorted(STACK.alarms))
def test_the_description_of_an_alarm_leads_to_its_section_of_the_runbook(name):
    description = STACK.alarms[name]["AlarmDescription"]["Fn::Sub"]
    [anchor] = re.findall(r"\$\{RunbookUrl\}#([\w-]+)", description)
    assert anchor in anchors(RUNBOOK)
    assert len(description) <= 1024


def test_the_dashboard_names_few_enough_metrics_to_be_one_of_the_three_that_cost_nothing():
    # "up to 50 metrics" (Amazon CloudWatch pricing, "Free tier").
    named = {(m["namespace"], m["name"], str(m["dimensions"])) for m in STACK.shown}
    assert len(named) <= 50


@pytest.mark.parametrize("name", sorted(STACK.alarms))
def test_an_alarm_takes_no_number_for_all_is_well(name):
    assert STACK.alarms[name]["TreatMissingData"] == "notBreaching"


def test_a_mismatch_is_told_of_once_and_every_alarm_at_the_topic_that_is_chosen():
    silent = [name for name, alarm in STACK.alarms.items() if "AlarmActions" not in alarm]
    assert silent == ["MismatchAlarm"]
    chosen = {"Fn::If": ["HasAlarmTopic", {"Ref": "AlarmTopicArn"}, {"Ref": "AlertTopic"}]}
    for name, alarm in STACK.alarms.items():
        assert name in silent or alarm["AlarmActions"] == [chosen]


def test_an_alarm_says_that_nobody_listens():
    alarm = STACK.alarms["NobodyListeningAlarm"]
    assert (alarm["Namespace"], alarm["MetricName"]) == ("AmiBillingGuard", "HeldByNobodyListening")
    assert (alarm["Statistic"], alarm["Threshold"]) == ("Sum", 0)
    assert alarm["ComparisonOperator"] == "GreaterThanThreshold"


def test_the_steps_after_a_deployment_confirm_a_subscription_that_no_scanner_can_end():
    page = (ROOT / "docs/deploy.md").read_text()
    assert re.search(r"aws sns confirm-subscription (.|\\\n)*--authenticate-on-unsubscribe true", page)


def test_the_widgets_of_the_dashboard_fit_and_do_not_overlap():
    boxes = [(w["x"], w["y"], w["x"] + w["width"], w["y"] + w["height"]) for w in STACK.dashboard["widgets"]]
    assert all(0 <= left < right <= 24 for left, _, right, _ in boxes)
    for (l1, t1, r1, b1), (l2, t2, r2, b2) in itertools.combinations(boxes, 2):
        assert r1 <= l2 or r2 <= l1 or b1 <= t2 or b2 <= t1


def test_the_dashboard_shows_every_alarm_and_every_queue():
    [alarms] = [w["properties"]["alarms"] for w in STACK.dashboard["widgets"] if w["type"] == "alarm"]
    assert {alarm.removesuffix(".Arn") for alarm in alarms} == STACK.alarms.keys()
    queues = {name for name, it in STACK.resources.items() if it["Type"] == "AWS::SQS::Queue"}
    shown = {m["dimensions"]["QueueName"] for m in STACK.metrics if "QueueName" in m["dimensions"] and isinstance(m["dimensions"]["QueueName"], str)}
    assert {queue.removesuffix(".QueueName") for queue in shown} == queues


def test_every_widget_names_its_region_and_says_what_it_shows():
    for widget in STACK.dashboard["widgets"]:
        properties = widget["properties"]
        assert widget["type"] == "text" or properties["title"]
        if widget["type"] in ("metric", "log"):
            assert properties["region"] == "AWS::Region"


def test_the_runbook_has_a_section_for_everything_that_people_are_told():
    # The interlocks that have a way out of their own, and the refusals.
    for name in names_of("Refusal", "src/record.rs"):
        assert f"| `{kebab(name)}` |" in RUNBOOK, name
    for name in names_of("Interlock", "src/plan/interlock.rs"):
        assert f"`{kebab(name)}`" in RUNBOOK, name
    # The sections that alerts link to.
    alerts = {"mismatch", "no-way-back", "unconfirmed", "refused", "held", "limit", "extra", "conflict", "unverifiable"}
    others = {"daily-audit", "self-test", "register-again", "restore"}
    assert alerts | others <= anchors(RUNBOOK)
    # Every subject that a mail can have: what it says was done stands in the runbook.
    subjects = [(ROOT / f"tests/guard/golden/{path.name}").read_text().splitlines()[1] for path in GOLDEN]
    of_one_ami = [re.fullmatch(r"Subject: (\[.+\] .+): ami-\w+ \(.+\)", subject) for subject in subjects]
    said = {subject[1] for subject in of_one_ami if subject}
    assert len(said) >= 8
    for words in said:
        assert f"`{words}`" in RUNBOOK, words
    # Every code that a line of the log can have.
    codes = set(re.findall(r'error_type\W+"(\w+)"', "".join(path.read_text() for path in SOURCES)))
    assert {"Chat", "Panic", "SelfTest", "Settings", "Runtime"} <= codes
    for code in codes - {"Busy"}:
        assert f"`{code}`" in RUNBOOK, code


def kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def test_every_permission_of_the_role_is_explained():
    page = (ROOT / "docs/reference/permissions.md").read_text()
    table = "\n".join(line.split("|")[1] for line in page.splitlines() if line.startswith("|"))
    named = set(re.findall(r"`(\w+:\w+)`", table))
    [policy] = STACK.resources["GuardRole"]["Properties"]["Policies"]
    of_keys = STACK.resources["ReadEncryptedDisks"]["Properties"]
    for statement in policy["PolicyDocument"]["Statement"] + of_keys["PolicyDocument"]["Statement"]:
        # Of one that depends on a condition, what is there if it holds.
        statement = statement["Fn::If"][1] if "Fn::If" in statement else statement
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            assert f"`{action}`" in page, action
            named.discard(action)
    assert named == set(), "the page has what the role has not"


def test_every_file_that_the_pages_link_to_is_there():
    for page in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]:
        text = page.read_text()
        for target in re.findall(r"\]\((?!https?:)([^)#]+)?(?:#([\w-]+))?\)", text):
            path, anchor = target
            file = (page.parent / path) if path else page
            assert file.exists(), f"{page.name}: {path}"
            if anchor and file.suffix == ".md":
                assert anchor in anchors(file.read_text()), f"{page.name}: {path}#{anchor}"
