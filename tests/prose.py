"""The prose linter: finds unclear phrases and long sentences in the texts that people read.

`python3 tests/prose.py` checks all files, and `python3 tests/prose.py <file>` one file. It needs no packages.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
MOST_WORDS = 30
TEXTS = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs/**/*.md", "template.yaml"]
GOLDENS = ["tests/guard/golden/*.txt", "cli/tests/golden/*.txt"]
CODE = ["src/**/*.rs", "cli/src/**/*.rs", "disk/src/**/*.rs", "sim/src/**/*.rs"]


class Rule(NamedTuple):
    pattern: str
    why: str
    instead: str


# A rule searches one sentence at a time and ignores case. `^` is the start of the sentence. Add a rule only if it
# finds almost nothing else: the linter has no way to allow a single finding.
RULES = [
    Rule(r"\bcan not\b(?! only)", "one word", "cannot"),
    Rule(r"\banew\b", "literary", "again; from the beginning"),
    Rule(r"\bmend(?:s|ed|ing)?\b", "literary", "fix, correct"),
    Rule(r"\blikewise\b", "literary", "also; as well"),
    Rule(r"\bfor want of\b", "literary", "for lack of; because … is missing"),
    Rule(r"\bout of order\b", "ambiguous", "unavailable; not in sequence"),
    Rule(r"\bbears?\b(?! in mind)", "literary", "has"),
    Rule(r"\btell(?:s|ing)? of\b", "programs do not talk", "reports, alerts, logs"),
    Rule(r"\btold\b(?! apart)", "programs do not talk", "reported, alerted, logged"),
    Rule(r"(?<!-)\b(?:nobody|somebody|anybody)\b(?!-)", "hides the actor", "name it: the guard, EC2, you"),
    Rule(r"(?<!EC2 )(?<!AWS )(?<!Marketplace )(?<!the )(?<!your )\bbills\b", "an AMI does not bill", "is billed as"),
    Rule(
        r"(?<!EC2 )(?<!AWS )(?<!EC2 does )\b(?:AMIs|images|it|they|should|may|must|would|not|expected to) bill\b",
        "an AMI does not bill",
        "is billed as; expected",
    ),
    Rule(r"(?<!there )\b(?:is|are|was|were) no (?!(?:longer|more|less|fewer)\b|\w+er than\b)", "stilted", "is not a"),
    Rule(r"(?<!where )\b(?:AMI|image|it)(?: that)? stands\b(?! alone\b| for\b)", "literary", "still exists"),
    Rule(r"\bbe found out\b", "hides the actor", "could not determine whether …"),
    Rule(r"^(?:for )?so (?:long|many|much|often)\b", "inverted", "the number of …; how long …"),
]
LONG = Rule("", f"more than {MOST_WORDS} words", "one idea a sentence")

# Code, the targets of links, URLs, variables of a template, and HTML comments are not prose. Each counts as one word.
NOT_PROSE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)|(?<=\])\([^()\s]*\)|https?://[^\s>)]+|\$\{\w+\}\S*|<!--.*?-->")
END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\betc)(?<!\bcf)(?<!\bvs)[.!?][\"'”’)\]*_]*(?= |$)", re.IGNORECASE)
WORD = re.compile(r"\S*\w\S*")
FENCE = re.compile(r"\s*(```|~~~)")
MARKER = re.compile(r"\s*(?:(?:[-*+]|\d{1,2}[.)]|#+)\s+)+")
COMMAND = re.compile(r"\W*(?:or: )?(?:\$ |Usage: |(?:aws|ami-guard) [a-z])")
DESCRIPTION = re.compile(r"(\s*)\w*Description: (?:!Sub )?(?:>-)?(.*)")

Line = tuple[int, str]
Paragraph = list[Line]


class Finding(NamedTuple):
    line: int
    text: str
    rule: Rule

    def __str__(self) -> str:
        return f"{self.line}: {self.text} — {self.rule.why} — {self.rule.instead}"


def markdown(lines: Iterable[Line]) -> Iterator[Paragraph]:
    """Paragraphs, headings, list items and table cells. Skips code blocks."""
    paragraph: Paragraph = []
    fence = ""
    for number, line in lines:
        line = line.strip().removeprefix(">")
        if mark := FENCE.match(line):
            fence = mark[1] if not fence else "" if mark[1] == fence else fence
        if mark or fence:
            line = ""
        marker = MARKER.match(line)
        if not line or marker or line.startswith("|"):
            yield paragraph
            paragraph = []
        if line.startswith("|"):
            yield from ([(number, cell)] for cell in re.split(r"(?<!\\)\|", line))
        elif marker and line.startswith("#"):
            yield [(number, line[marker.end() :])]
        else:
            paragraph.append((number, line[marker.end() :] if marker else line))
    yield paragraph


def unreleased(lines: Iterable[Line]) -> Iterator[Line]:
    """The changelog's section Unreleased. The sections of releases do not change any more."""
    inside = False
    for number, line in lines:
        inside = "[Unreleased]" in line if line.startswith("## ") else inside
        yield number, line if inside else ""


def doc_comments(lines: Iterable[Line]) -> Iterator[Line]:
    """The doc comments of Rust code, as Markdown. Code is an empty line."""
    for number, line in lines:
        comment = re.match(r"\s*//(?:!|/(?!/))(.*)", line)
        yield number, comment[1] if comment else ""


def descriptions(lines: Iterable[Line]) -> Iterator[Paragraph]:
    """The descriptions in a template. A description goes on as long as its lines are further to the right."""
    paragraph: Paragraph = []
    indent: int | None = None
    for number, line in lines:
        if indent is not None and (not line.strip() or len(line) - len(line.lstrip()) > indent):
            paragraph.append((number, line))
            continue
        yield paragraph
        found = DESCRIPTION.fullmatch(line)
        indent, paragraph = (len(found[1]), [(number, found[2])]) if found else (None, [])
    yield paragraph


def output(lines: Iterable[Line], wraps: bool) -> Iterator[Paragraph]:
    """The lines of mails and of the command line, without JSON and commands. Two spaces separate columns.

    Help texts wrap at 100 columns: a line goes on if the next word had no room on it.
    """
    paragraph: Paragraph = []
    before, json = "", False
    for number, line in lines:
        json = line == "{" or (json and line != "}")
        text = "" if json or line[:1] in "{}" else line.strip()
        columns = [column for column in re.split(r"\s{2,}|[├│└─]+", text) if column and not COMMAND.match(column)]
        if not (wraps and len(columns) == 1 and len(f"{before} {columns[0].split()[0]}") > 100):
            yield paragraph
            paragraph = []
            yield from ([(number, column)] for column in columns[:-1])
        paragraph += [(number, column) for column in columns[-1:]]
        before = line
    yield paragraph


def paragraphs(path: str, text: str) -> Iterator[Paragraph]:
    """The prose of a file. Its name decides how the file is read."""
    lines: Iterable[Line] = enumerate(text.split("\n"), 1)
    if path.endswith(".txt"):
        return output(lines, wraps="\nOptions:\n" in text)
    if path.endswith(".yaml"):
        return descriptions(lines)
    if path.endswith(".rs"):
        return markdown(doc_comments(lines))
    return markdown(unreleased(lines) if path == "CHANGELOG.md" else lines)


def check(paragraph: Paragraph) -> Iterator[Finding]:
    """The findings of one paragraph."""
    lines = [(number, " ".join(line.split())) for number, line in paragraph]
    text = " ".join(line for _, line in lines)
    numbers = [number for number, line in lines for _ in f"{line} "]
    prose = NOT_PROSE.sub(lambda code: "X" * len(code[0]), text)
    begin = 0
    for end in [*(end.end() for end in END.finditer(prose)), len(prose)]:
        sentence = prose[begin:end].lstrip()
        begin = end - len(sentence)
        for rule in RULES:
            for found in re.finditer(rule.pattern, sentence, re.IGNORECASE):
                first = text.rfind(" ", 0, max(0, begin + found.start() - 25)) + 1
                last = (text + " ").find(" ", min(begin + found.end() + 15, len(text)))
                yield Finding(numbers[begin + found.start()], text[first:last].strip(), rule)
        if (words := len(WORD.findall(sentence))) > MOST_WORDS:
            yield Finding(numbers[begin], f"{text[begin : begin + 50]}… ({words} words)", LONG)
        begin = end


def findings(path: str, text: str) -> list[Finding]:
    return sorted(finding for paragraph in paragraphs(path, text) for finding in check(paragraph))


def all_findings() -> dict[str, list[Finding]]:
    """The findings of every file that people read."""
    paths = sorted(path for pattern in TEXTS + GOLDENS + CODE for path in ROOT.glob(pattern))
    return {(name := path.relative_to(ROOT).as_posix()): findings(name, path.read_text()) for path in paths}


def main(arguments: list[str]) -> int:
    names = [Path(argument).resolve().relative_to(ROOT).as_posix() for argument in arguments]
    found = {name: findings(name, (ROOT / name).read_text()) for name in names} or all_findings()
    lines = [f"{name}:{finding}" for name, findings in found.items() for finding in findings]
    print("\n".join(lines) or "No findings.")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
