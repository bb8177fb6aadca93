"""The report of `ami-guard audit --html`, in a real browser: Chromium, without a window and without a network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

# It looks nothing up, keeps nothing, and needs no other processor than this.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
AMIS = 700
# Longer than the page takes for anything, on a slow machine too; by default it is five seconds.
expect.set_options(timeout=60_000)
# What ends a script, begins one, and turns the direction of writing, in the value of a tag.
HOSTILE = "</script><script>document.title='taken'</script>\u2028\u202e<img src=x onerror=document.title='taken'>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ["chromium", "google-chrome", "chromium-browser"]
    path = os.environ.get("GUARD_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium: none of " + ", ".join(names) + " is on the PATH, and GUARD_CHROMIUM names none")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def audit(sim_binary: Path, cli_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A page about a simulated account, one of whose AMIs has a hostile tag, and what the audit found as JSON."""
    folder = tmp_path_factory.mktemp("report")
    sim = subprocess.Popen([sim_binary, "--port", "0", "--images", str(AMIS)], stdout=subprocess.PIPE, text=True)
    try:
        assert sim.stdout is not None
        endpoint = sim.stdout.readline().strip()
        ec2 = boto3.client(
            "ec2",
            endpoint_url=endpoint,
            region_name="eu-west-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        image = ec2.describe_images(Owners=["self"], MaxResults=10)["Images"][0]["ImageId"]
        ec2.create_tags(Resources=[image], Tags=[{"Key": "ami-billing-guard:expect", "Value": HOSTILE}])
        arguments = ["audit", "--json", "--state", folder / "state.jsonl", "--html", folder / "report.html"]
        environment = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
        }
        done = subprocess.run([cli_binary, *arguments], env=environment, capture_output=True, text=True)
        assert done.returncode == 1, done.stderr
        (folder / "rows.jsonl").write_text(done.stdout)
        (folder / "hostile").write_text(image)
    finally:
        sim.kill()
        sim.wait()
    yield folder


@pytest.fixture
def rows(audit: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (audit / "rows.jsonl").read_text().splitlines()]


Open = Callable[..., Page]


@pytest.fixture
def report(browser: Browser, audit: Path) -> Iterator[Open]:
    """Opens the page. Whatever it asks of a network, and whatever its script complains of, fails the test."""
    contexts, complaints = [], []

    def open(fragment: str = "", width: int = 1280, **more: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 800}, **more)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        address = (audit / "report.html").as_uri()
        page.on("request", lambda request: request.url.split("#")[0] == address or complaints.append(request.url))
        page.goto(address + fragment)
        page.wait_for_selector("#amis tbody tr" if more.get("java_script_enabled", True) else "main")
        return page

    yield open
    for context in contexts:
        context.close()
    assert complaints == []


def hits(page: Page) -> int:
    """How many AMIs are found: the number that is said aloud too."""
    said = page.locator("#hits[role=status]").inner_text()
    return int(re.match(r"\d+", said)[0])


def of(rows: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def test_the_sums_are_those_of_the_rows(report: Open, rows: list[dict[str, Any]]) -> None:
    page = report()
    assert page.locator("#totals-title").inner_text() == f"{AMIS} AMIs"
    for verdict in ["verified", "mismatch", "unverifiable"]:
        number = page.locator(f".totals .v-{verdict} b").inner_text()
        assert int(number) == len(of(rows, verdict=verdict)) > 0
    in_matrix = sum(int(re.match(r"\d+", cell)[0]) for cell in page.locator(".matrix td").all_inner_texts())
    assert in_matrix == len([row for row in rows if row["actual"]])


def test_a_hundred_amis_are_shown_at_a_time_those_that_need_attention_first(report: Open) -> None:
    page = report()
    assert page.locator("#amis tbody tr").count() == 100
    assert page.locator("#amis .mark").first.inner_text().startswith("mismatch")
    assert page.locator("#page").inner_text() == "page 1 of 7"
    assert page.locator("#back").is_disabled()
    for _ in range(6):
        page.locator("#next").click()
    assert page.locator("#page").inner_text() == "page 7 of 7"
    assert page.locator("#next").is_disabled()


def test_filters_find_what_they_say_and_are_in_the_address(report: Open, rows: list[dict[str, Any]]) -> None:
    page = report()
    page.get_by_label("Verdict", exact=True).select_option("mismatch")
    assert hits(page) == len(of(rows, verdict="mismatch"))
    page.get_by_label("Billed as", exact=True).select_option("Linux/UNIX")
    lost = [row for row in of(rows, verdict="mismatch") if row["actual"]["platform_details"] == "Linux/UNIX"]
    assert hits(page) == len(lost)
    # Who is sent the address sees the same.
    fragment = page.evaluate("location.hash")
    assert hits(report(fragment)) == len(lost)
    page.get_by_label("Search", exact=True).fill(lost[0]["image_id"])
    assert hits(page) == 1
    page.get_by_role("button", name="Show all").click()
    expect(page.locator("#hits")).to_have_text(f"{AMIS} AMIs")
    assert page.evaluate("location.hash") == ""
    month = rows[0]["registered_at"][:7]
    page.get_by_label("From", exact=True).fill(month)
    page.get_by_label("To", exact=True).fill(month)
    assert hits(page) == len([row for row in rows if (row["registered_at"] or "").startswith(month)])


def shown(page: Page) -> dict[str, Any]:
    """What the page shows of the list, and how."""
    return {
        "hits": page.locator("#hits").inner_text(),
        "page": page.locator("#page").inner_text(),
        "rows": page.locator("#amis tbody tr").all_inner_texts(),
        "sorted": page.locator("#amis th[aria-sort]").evaluate_all("all => all.map((it) => it.outerHTML)"),
        "filter": page.locator("#filter").evaluate("form => [...new FormData(form)]"),
    }


@pytest.mark.parametrize(
    "fragment",
    [
        "#sort=__proto__",
        "#sort=-constructor",
        "#sort=toString&verdict=nonsense",
        "#bills=__proto__&should=valueOf&region=mars-north-1",
        "#from=yesterday&to=2026-13-01",
        "#somebody-elses=1",
        "#%E0%A4%A",
        "#:~:text=AMIs",
        "#totals-title",
        "#list",
    ],
)
def test_a_link_with_a_foreign_fragment_shows_the_page_as_without_it(report: Open, fragment: str) -> None:
    page = report(fragment)
    assert shown(page) == shown(report())
    # The page's own places are where the browser goes by itself.
    if fragment not in ["#list", "#totals-title"]:
        assert page.evaluate("scrollY") == 0


def test_the_skip_link_leads_to_the_list_as_it_is(report: Open, rows: list[dict[str, Any]]) -> None:
    page = report()
    page.get_by_label("Verdict", exact=True).select_option("mismatch")
    before = shown(page)
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#list")).to_be_focused()
    assert shown(page) == before
    assert hits(page) == len(of(rows, verdict="mismatch"))


def test_sums_and_cells_of_the_matrix_lead_to_their_amis(report: Open, rows: list[dict[str, Any]]) -> None:
    page = report()
    page.locator(".totals .v-unverifiable a").click()
    expect(page.locator("#hits")).not_to_have_text(f"{AMIS} AMIs")
    assert hits(page) == len(of(rows, verdict="unverifiable"))
    cell = page.locator(".matrix td.off a").first
    number = int(re.match(r"\d+", cell.inner_text())[0])
    cell.click()
    expect(page.locator("#hits")).to_have_text(f"{number} of {AMIS} AMIs")
    assert page.get_by_label("Expected", exact=True).input_value() != ""


def test_columns_sort_both_ways_and_say_so(report: Open) -> None:
    page = report()
    head = page.locator("#amis thead th").nth(5)
    for direction in ["ascending", "descending"]:
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == direction
        days = page.locator("#amis tbody tr.row td:nth-child(6)").all_inner_texts()
        assert days == sorted(days, reverse=direction == "descending")
    assert page.locator("#amis thead th[aria-sort]").count() == 1


def test_an_ami_opens_to_its_evidence_and_its_fix(report: Open, rows: list[dict[str, Any]]) -> None:
    row = next(row for row in of(rows, kind="wrong") if row["fix"][2].startswith("aws ec2 create-image"))
    page = report("#q=" + row["image_id"], permissions=["clipboard-read", "clipboard-write"])
    # By the keyboard alone.
    page.locator(".open-row").focus()
    page.keyboard.press("Enter")
    assert page.locator(".open-row").get_attribute("aria-expanded") == "true"
    more = page.locator(".more").inner_text()
    for statement in row["evidence"]:
        assert statement["source"] in more and statement["detail"] in more
    assert row["reason"] in more and row["fix"][2] in more and ", ".join(row["held_by"]) in more
    assert page.locator(".decides").count() == 1
    # The button says so for a moment: until time goes on.
    page.clock.install()
    page.clock.pause_at(datetime.now() + timedelta(days=1))
    page.get_by_role("button", name="Copy").first.click()
    page.get_by_role("button", name="Copied").wait_for()
    page.clock.run_for(1500)
    assert page.get_by_role("button", name="Copied").count() == 0
    assert page.evaluate("navigator.clipboard.readText()") == row["fix"][2]
    page.keyboard.press("Shift+Tab")
    page.locator(".open-row").click()
    assert page.locator(".more").count() == 0


def test_what_a_stranger_wrote_does_nothing(report: Open, audit: Path) -> None:
    page = report("#q=" + (audit / "hostile").read_text())
    page.locator(".open-row").click()
    more = page.locator(".more").inner_text()
    assert "</script><script>" in more and "\\u{2028}\\u{202e}<img" in more
    assert not set("\u2028\u202e") & set(more)
    assert page.title() == "What our AMIs are billed as"
    assert page.locator("img").count() == 0


def test_nothing_runs_but_the_page_s_own_script_and_style(browser: Browser, audit: Path) -> None:
    text = (audit / "report.html").read_text()
    planted = """<script>document.title = 'taken'</script>
        <img src="nowhere" onerror="document.title = 'taken'"><a id="planted" href="javascript:document.title = 'taken'">a</a>
        <style>body { display: none }</style><p style="position: fixed">p</p></body>"""
    altered = audit / "altered.html"
    altered.write_text(text.replace("</body>", planted))
    page = browser.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(altered.as_uri())
    page.wait_for_selector("#amis tbody tr")
    page.locator("#planted").dispatch_event("click")
    assert page.title() == "What our AMIs are billed as"
    assert page.evaluate("getComputedStyle(document.querySelector('p[style]')).position") == "static"
    deadline = time.monotonic() + 60
    while sum("Content Security Policy" in it or "Content-Security-Policy" in it for it in refused) < 5:
        assert time.monotonic() < deadline, refused
        page.wait_for_timeout(50)
    page.close()


def test_csv_and_json_are_of_what_is_found(report: Open, rows: list[dict[str, Any]]) -> None:
    page = report("#verdict=mismatch")
    number = len(of(rows, verdict="mismatch"))
    with page.expect_download() as saved:
        page.get_by_role("button", name="JSON").click()
    kept = json.loads(Path(saved.value.path()).read_text())
    assert [row["verdict"] for row in kept] == ["mismatch"] * number
    with page.expect_download() as saved:
        page.get_by_role("button", name="CSV").click()
    assert len(Path(saved.value.path()).read_text().splitlines()) == number + 1


@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_is_cut_off_at_the_side(report: Open, width: int) -> None:
    page = report(width=width)
    page.locator(".open-row").first.click()
    page.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#amis thead button:visible").count() == (2 if width == 375 else 6)


# The contrast of a text with what is behind it (WCAG 2.2, "Contrast (Minimum)"): 4.5, or 3 if it is large.
CONTRAST = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const bright = (colour) => {
    const [r, g, b] = parts(colour).map((part) => part / 255)
      .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((parts(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const low = [];
  for (const element of document.querySelectorAll("body *:not(svg *):not(script):not(option)")) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!text || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const [one, other] = [bright(style.color), bright(behind(element))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    if (contrast < (large ? 3 : 4.5)) low.push(`${element.outerHTML.slice(0, 80)}: ${contrast.toFixed(2)}`);
  }
  return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_is_readable_in_light_and_in_dark(report: Open, scheme: str) -> None:
    page = report(color_scheme=scheme)
    page.locator(".open-row").first.click()
    page.locator("summary").click()
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    assert page.evaluate(CONTRAST) == []
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != background
    assert page.evaluate(CONTRAST) == []


def test_everything_has_a_name_and_a_place(report: Open) -> None:
    page = report()
    page.locator(".open-row").first.click()
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, a, input, select, section, nav, [role=img], [role=group]')]
        .filter((it) => !(it.textContent.trim() || it.getAttribute('aria-label') || it.getAttribute('aria-labelledby') || it.labels?.length))
        .map((it) => it.outerHTML.slice(0, 80))""")
    assert nameless == []
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((it) => +it.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:]))
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("main").count() == page.locator("header").count() == page.locator("footer").count() == 1
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((it) => it.id)")
    assert len(ids) == len(set(ids))
    assert page.locator("th:not([scope])").count() == 0


def test_without_its_script_the_page_has_its_sums(report: Open) -> None:
    page = report(java_script_enabled=False)
    assert page.locator("#totals-title").inner_text() == f"{AMIS} AMIs"
    assert page.locator("noscript p, section p:has-text('needs JavaScript')").count() >= 1
    assert page.locator("#filter").is_hidden() and page.locator("#amis").is_hidden()
    assert page.locator(".chart rect").count() > 10
