"""The texts that people read are plain English. Also tests the linter, tests/prose.py."""

from __future__ import annotations

import prose
import pytest

# For each rule, in the order of the table: a text that it finds, and one that it does not.
EXAMPLES = [
    ("A billing code can not be put on an AMI afterwards.", "You can not only report AMIs. You cannot delete them."),
    ("The image is read back and judged anew.", "The image is read back and judged again."),
    ("If they are mismatches, mend the pipeline.", "We recommend that you fix the pipeline."),
    ("| likewise |", "| as well |"),
    ("Lambda did not run the function for want of concurrency.", "Lambda did not run it for lack of concurrency."),
    ("Or EC2 was out of order.", "Or EC2 was unavailable. The order of events does not matter."),
    ("The guard discards only an AMI that bears its mark.", "Bear in mind that the guard looks for its mark."),
    ("The next hour's event tells of them all.", "The next hour's event reports them all."),
    ("People are told at once of the first.", "The guard alerts at once. Two AMIs can be told apart by their ids."),
    ("An AMI that somebody restored is kept.", "An AMI that you restored is kept. The check nobody-listening holds."),
    ("Find an AMI that bills Windows.", "Compare with what EC2 bills. AWS Cost Explorer shows the bills."),
    ("Nothing says what the image should bill.", "EC2 may bill it as Windows. We expect it on the bill."),
    ("Not knowing is no mismatch.", "There is no mismatch, and the AMI is no longer held. It is no older than a day."),
    ("EC2 refused, and the image stands.", "The image still exists. The file shows where it stands for debugging."),
    ("What could not be found out comes back.", "The guard found out that the disk is encrypted."),
    ("So many rows are in a page.", "A page has at most so many rows. So the last page is short."),
]


def found(text: str, path: str = "README.md") -> list[tuple[int, str]]:
    """The line number and the text of each finding."""
    return [(finding.line, finding.text) for finding in prose.findings(path, text)]


def words(number: int) -> str:
    return " ".join(["word"] * number)


def test_the_texts_that_people_read_are_plain_english() -> None:
    found = prose.all_findings()
    if faults := [f"{path}:{finding}" for path, findings in found.items() for finding in findings]:
        pytest.fail("\n".join(faults), pytrace=False)


@pytest.mark.parametrize(("rule", "texts"), list(zip(prose.RULES, EXAMPLES, strict=True)))
def test_each_rule_finds_its_phrase_and_nothing_in_plain_english(rule: prose.Rule, texts: tuple[str, str]) -> None:
    unclear, plain = texts
    assert [finding.rule for finding in prose.findings("README.md", unclear)] == [rule]
    assert found(plain) == []


def test_a_sentence_has_at_most_thirty_words() -> None:
    assert found(f"{words(30)}. {words(30)}? {words(30)}") == []
    assert found(f"First.\nThen {words(15)}\n{words(15)}.") == [(2, f"Then {words(31)}"[:50] + "… (31 words)")]


@pytest.mark.parametrize("inside", ["e.g.", "i.e.", "0.1.2", "a.b.c", "`a. b. c`", "[link](a.b)", "…", "\n> "])
def test_these_do_not_end_a_sentence(inside: str) -> None:
    assert len(found(f"{words(15)} {inside} {words(16)}.")) == 1


@pytest.mark.parametrize("between", ["\n\n", "\n- ", "\n2. ", "\n# ", "\n| ", " | ", ".** ", '." ', "\n```\n```\n"])
def test_these_end_a_sentence(between: str) -> None:
    assert found(f"| {words(20)}{between}{words(20)}") == []


def test_a_sentence_begins_after_the_marker_of_a_list_and_goes_on_after_an_escaped_bar() -> None:
    assert found("Text\n- So many rows\n## 2. So many\n") == [(2, "So many rows"), (3, "So many")]
    assert len(found(f"| {words(20)} \\| {words(20)} |")) == 1


def test_code_is_not_prose() -> None:
    assert found("Use `can not`, ``a ` can not`` and [this](can-not.md#told).\n```sh\ncan not\n```\n") == []
    assert found("<!-- can not --> https://example.com/anew") == []
    assert found("```\ncan not\n```\nIt can not.") == [(4, "It can not.")]
    rust = "/// It can\n/// not.\n//// can not\nlet can = not; // can not\n//! `can not`\n"
    assert found(rust, "src/lib.rs") == [(1, "It can not.")]
    mail = "It can not.\naws ec2 can not\n  $ ami-guard can not\n{\n  can not\n}\n{can not}\nlabel  can not\n"
    assert found(mail, "golden/mail.txt") == [(1, "It can not."), (8, "can not")]


def test_the_changelog_counts_where_it_is_not_released() -> None:
    assert found("Can not.\n## [Unreleased]\nCan not.\n## [0.1.0]\nCan not.\n", "CHANGELOG.md") == [(3, "Can not.")]


def test_the_descriptions_of_a_template_count() -> None:
    lines = "A:\n  Description: It can not.\n  B: anew\n  AlarmDescription: !Sub >-\n    It can\n    not: ${A}#anew\nC: anew\n"
    assert found(lines, "template.yaml") == [(2, "It can not."), (5, "It can not: ${A}#anew")]


def test_a_help_text_goes_on_where_it_is_wrapped() -> None:
    full = f"Options:\n  --all  {'x' * 86} can"
    assert found(f"\n{full}\n         not be\n", "golden/help.txt") == [(3, f"{'x' * 86} can not be")]
    assert found(f"\n{full}\n  -h     not be\n", "golden/help.txt") == []
