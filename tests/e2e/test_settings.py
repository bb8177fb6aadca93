"""Wrong settings: the function does not start, and says which setting, what it is, what it may be."""

from http.client import RemoteDisconnected

import pytest

from e2e.emulator import BootstrapDied, Emulator
from e2e.world import TOPIC, registration

WRONG = [
    pytest.param(
        {"GUARD_ALERT_TOPIC_ARN": ""}, ["GUARD_ALERT_TOPIC_ARN", "not set", "arn:aws:sns:"], id="no topic"
    ),
    pytest.param(
        {"GUARD_ALERT_TOPIC_ARN": "alerts"}, ["GUARD_ALERT_TOPIC_ARN", "alerts", "arn:aws:sns:"], id="topic"
    ),
    pytest.param(
        {"GUARD_CHAT_TOPIC_ARN": "chat"}, ["GUARD_CHAT_TOPIC_ARN", "chat", "arn:aws:sns:"], id="chat topic"
    ),
    pytest.param(
        {"GUARD_CHAT_TOPIC_ARN": TOPIC}, ["GUARD_CHAT_TOPIC_ARN", "a topic other than"], id="one topic for both"
    ),
    pytest.param({"GUARD_MODE": "enforced"}, ["GUARD_MODE", "enforced", "`enforce` or `observe`"], id="mode"),
    pytest.param({"GUARD_ACCOUNT_ID": "12345"}, ["GUARD_ACCOUNT_ID", "12345", "twelve digits"], id="account"),
    pytest.param({"GUARD_WAIT_SECONDS": "soon"}, ["GUARD_WAIT_SECONDS", "soon", "seconds"], id="wait"),
    pytest.param(
        {"GUARD_SETTLE_SECONDS": "7201"}, ["GUARD_SETTLE_SECONDS", "7201", "0 to 7200"], id="settle time"
    ),
    pytest.param({"GUARD_QUEUE_URL": "registrations"}, ["GUARD_QUEUE_URL", "registrations", "https://"], id="queue"),
    pytest.param(
        {"GUARD_RECYCLE_BIN_RULE": "rule-1"}, ["GUARD_RECYCLE_BIN_RULE", "rule-1", "11 letters"], id="Recycle Bin rule"
    ),
    pytest.param(
        {"GUARD_LEDGER_TABLE": "a table"}, ["GUARD_LEDGER_TABLE", "a table", "DynamoDB"], id="ledger table"
    ),
    pytest.param(
        {"GUARD_LEDGER_DAYS": "3651"}, ["GUARD_LEDGER_DAYS", "3651", "1 to 3650"], id="days of the ledger"
    ),
    pytest.param(
        {"GUARD_POLICY_PATH": "/nowhere/policy.toml"},
        ["GUARD_POLICY_PATH", "/nowhere/policy.toml"],
        id="no policy",
    ),
]

POLICIES = [
    pytest.param("version = 2\n", ["version", "2", "1"], id="version"),
    pytest.param("[discard]\naction = 'deregister'\n", ["version"], id="no version"),
    pytest.param(
        "version = 1\n[discard]\naction = 'delete'\n",
        ["3", "delete", "deregister", "disable", "none"],
        id="action",
    ),
    pytest.param("version = 1\n[discard]\nacton = 'none'\n", ["3", "acton", "action"], id="unknown key"),
    pytest.param("version = 1\n[defaults]\nexpect = 'Widnows'\n", ["3", "Widnows", "Windows"], id="code"),
    pytest.param("version = 1\n[discard\n", ["2"], id="not TOML"),
]


def refused(guard: Emulator) -> str:
    """What a guard wrote that did not start."""
    try:
        with pytest.raises(BootstrapDied) as died:
            guard.invoke(registration("ami-0123456789abcdef0"))
        output = str(died.value)
    except RemoteDisconnected:
        # AWS's emulator ends itself where a process is gone before it has noted that there is one.
        guard.wait_for_end()
        output = "\n".join(guard.output)
    assert "panicked" not in output
    return output


@pytest.mark.parametrize(("settings", "words"), WRONG)
def test_a_wrong_setting_keeps_the_function_from_starting(world, start, settings, words):
    output = refused(start(**settings))

    for word in words:
        assert word in output, f"{word} is not in:\n{output}"
    assert world.calls() == []


def test_a_ledger_that_forgets_before_an_image_is_too_old_keeps_it_from_starting(world, start, policy):
    path = policy("version = 1\n[discard]\nmax_age_hours = 49\n")

    output = refused(start(GUARD_POLICY_PATH=path, GUARD_LEDGER_TABLE="ledger", GUARD_LEDGER_DAYS="2"))

    for word in ("GUARD_LEDGER_DAYS", "max_age_hours", "49"):
        assert word in output, f"{word} is not in:\n{output}"
    assert world.calls() == []


def test_a_settle_time_after_which_every_image_is_too_old_keeps_it_from_starting(world, start, policy):
    path = policy("version = 1\n[discard]\nmax_age_hours = 2\n")

    output = refused(start(GUARD_POLICY_PATH=path, GUARD_SETTLE_SECONDS="7200"))

    for word in ("GUARD_SETTLE_SECONDS", "7200", "max_age_hours is 2"):
        assert word in output, f"{word} is not in:\n{output}"
    assert world.calls() == []


MANY_FAULTS = """
version = 1
[evidence]
lineage = "sometimes"
[discard]
form = ["declared"]
[[expect]]
name = "win["
platform = "RHEL"
[[exempt]]
reason = "why not"
"""


def test_every_fault_of_a_policy_is_in_the_log_with_its_place(world, start, policy):
    path = policy(MANY_FAULTS)

    output = refused(start(GUARD_POLICY_PATH=path))

    # Line and column, what stands there or what is missing, and what may have been meant.
    for place, *words in [
        ("4:11", "sometimes", "when-needed"),
        ("6:1", "form", "did you mean `from`?"),
        ("8:8", "win[", "win[[]"),
        ("9:12", "RHEL", "RedHat"),
        ("10:1", "[[exempt]] without a match key"),
    ]:
        [line] = [line for line in output.replace("\\n", "\n").split("\n") if f"{path}:{place}:" in line]
        line = line.replace('\\"', '"')
        for word in words:
            assert word in line, f"{word} is not in: {line}"
    assert world.calls() == []


@pytest.mark.parametrize(("text", "words"), POLICIES)
def test_a_policy_that_does_not_parse_keeps_the_function_from_starting(world, start, policy, text, words):
    path = policy(text)

    output = refused(start(GUARD_POLICY_PATH=path))

    # The place is "file:line" or the like: only its parts are the contract.
    for word in ["GUARD_POLICY_PATH", path, *words]:
        assert word in output, f"{word} is not in:\n{output}"
    assert world.calls() == []
