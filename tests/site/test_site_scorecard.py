"""The scorecard: every claim, sorted and filtered in the browser, and its files; the errata and open questions."""

from __future__ import annotations

import csv
import json
import math
import re

import pytest

from routebook import ledger, scorecard

SHOWN = "#claims-table tbody tr:not([hidden])"


@pytest.fixture(scope="module")
def listed(built):
    """What the site offers for download."""
    return json.loads((built / "_static/ledger.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def claims(listed):
    return [one for one in listed if "claim" in one]


@pytest.fixture(scope="module")
def still(visit):
    """The scorecard as it opens, for tests that only read it."""
    return visit("book/scorecard")


@pytest.fixture(scope="module")
def tried(opener):
    """The scorecard in a page of its own, for tests that sort and filter it."""
    page = opener("book/scorecard")
    yield page
    assert page.problems == []
    page.context.close()


@pytest.fixture
def card(tried):
    """Show the scorecard as it opens, or the view of an address."""

    def show(fragment=""):
        tried.locator(".table-filters [type=reset]").click()
        if fragment:
            # The page follows a change of its address before this listener, which is the later one, is told.
            tried.evaluate(
                """view => new Promise((done) => {
                  addEventListener("hashchange", () => done(), { once: true });
                  location.hash = view;
                })""",
                fragment,
            )
        return tried

    return show


def _shown(page, name):
    return page.eval_on_selector_all(SHOWN, "(rows, name) => rows.map(r => r.dataset[name])", name)


def _status(page):
    return page.locator(".table-filters [role=status]").inner_text()


def _column(page, title):
    """The values of a column's visible cells: a number, or words."""
    return page.evaluate(
        """([shown, title]) => {
          const heads = [...document.querySelectorAll("#claims-table thead th")].map((h) => h.textContent.trim());
          return [...document.querySelectorAll(shown)].map((r) => r.cells[heads.indexOf(title)])
            .map((c) => (c.dataset.value === undefined ? c.textContent.trim() : Number(c.dataset.value)));
        }""",
        [SHOWN, title],
    )


def _select(page, name, value):
    page.locator(f".table-filters [name={name}]").select_option(value)


def test_it_lists_every_claim_with_the_verdict_of_the_download(still, claims, root):
    rows = still.eval_on_selector_all(
        "tr[id^='claim-']", "all => all.map(r => [r.id, r.querySelector('.verdict').textContent, r.dataset.kind])"
    )
    assert rows == [[f"claim-{one['claim']}", one["verdict"], one["kind"]] for one in claims]
    assert len(rows) == sum(len(found.claims) for found in ledger.discover(root))
    assert {verdict for _, verdict, _ in rows} <= set(ledger.VERDICTS)


def test_it_lists_every_table_and_figure(still, root):
    heading = "section:has(> h2:text-is('Tables, figures and formal results'))"
    titles = still.eval_on_selector_all(f"{heading} tbody tr", "all => all.map(r => r.cells[2].textContent)")
    entries = [entry for found in ledger.discover(root) for entry in found.entries]
    assert titles == [entry.title.replace("`", "") for entry in entries]


def _counts(table):
    head, *rows = table.evaluate("t => [...t.rows].map(r => [...r.cells].map(c => c.innerText.trim()))")
    return head, {row[0]: [int(cell) for cell in row[1:]] for row in rows}


def test_verdicts_are_counted_by_paper_on_the_intro_too(still, visit, claims):
    for table in (visit("book/intro").locator("article table").first, still.locator("article table").first):
        _, rows = _counts(table)
        for verdict in ledger.VERDICTS:
            listed = sum(one["verdict"] == verdict for one in claims)
            assert rows.get(verdict, [0])[-1] == listed, verdict
            assert sum(rows.get(verdict, [0])[:-1]) == listed, verdict


def test_verdicts_are_counted_by_data(still, claims):
    head, rows = _counts(still.locator("article table").nth(1))
    real = [one for one in claims if one["origin"] == "real"]
    assert rows["claims, in all"][head.index("real data") - 1] == len(real)
    assert sum(rows["claims, in all"]) == len(claims)
    for verdict in ("reproduced", "partly", "not-reproduced"):
        # These verdicts need real data: every other column is 0.
        if verdict in rows:
            assert sum(rows[verdict]) == rows[verdict][head.index("real data") - 1]


def test_a_heading_sorts_by_keyboard_in_both_directions(card):
    page = card("#verdict=reproduced")
    heading = page.locator("#claims-table th", has_text="paper's")
    assert heading.get_attribute("aria-sort") is None
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    up = _column(page, "paper's")
    numbers = [value for value in up if isinstance(value, int | float)]
    assert numbers == sorted(numbers)
    assert up[: len(numbers)] == numbers
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    down = [value for value in _column(page, "paper's") if isinstance(value, int | float)]
    assert down == sorted(down, reverse=True)
    assert page.locator("#claims-table th[aria-sort]").count() == 1


def test_blank_cells_come_last_in_either_direction(card, claims):
    without = next(c["artefact"] for c in claims if c["published"] is None and c["kind"] != "arithmetic")
    paper = next(c["paper"] for c in claims if c["published"] is None and c["artefact"] == without)
    for order in ("ascending", "descending"):
        values = _column(card(f"#artefact={paper}/{without}&sort=3&order={order}"), "paper's")
        blank = [value == "" for value in values]
        assert any(blank)
        assert blank == sorted(blank)


def test_filters_choose_rows_and_say_how_many(card, claims):
    page = card()
    assert re.fullmatch(rf"{len(claims):,} of {len(claims):,} claims(; the first \d+ are shown)?\.", _status(page))
    kind, verdict = claims[0]["kind"], claims[0]["verdict"]
    _select(page, "kind", kind)
    _select(page, "verdict", verdict)
    wanted = [one for one in claims if (one["kind"], one["verdict"]) == (kind, verdict)]
    assert _status(page).startswith(f"{len(wanted):,} of {len(claims):,} claims")
    assert set(_shown(page, "kind")) == {kind}
    assert set(_shown(page, "verdict")) == {verdict}
    assert len(_shown(page, "kind")) == min(len(wanted), 100)
    page.locator(".table-filters [type=reset]").click()
    assert _status(page).startswith(f"{len(claims):,} of")
    assert "#" not in page.url


def test_more_rows_come_when_asked_for(card, claims):
    page = card()
    before = len(_shown(page, "kind"))
    assert before == min(100, len(claims))
    page.locator(".table-more").press("Enter")
    assert len(_shown(page, "kind")) == min(200, len(claims))


def test_the_text_filter_finds_words_in_any_order(card, claims):
    word = max(re.findall(r"[A-Za-z]{5,}", claims[0]["statement"]), key=len)
    page = card()
    page.locator(".table-filters [name=text]").fill(f"{claims[0]['verdict']} {word.upper()}")
    texts = [text.lower() for text in page.locator(SHOWN).all_inner_texts()]
    assert texts
    assert all(word.lower() in text and claims[0]["verdict"] in text for text in texts)


def test_a_view_has_an_address(card, open_page, claims):
    page = card()
    _select(page, "paper", claims[-1]["paper"])
    page.locator("#claims-table th", has_text="where").locator("button").click()
    fragment = page.url.partition("#")[2]
    assert fragment == f"paper={claims[-1]['paper']}&sort=6&order=ascending"
    again = open_page("book/scorecard", fragment=f"#{fragment}")
    assert _status(again) == _status(page)
    assert _column(again, "where") == _column(page, "where")
    assert again.locator("#claims-table th[aria-sort=ascending]").inner_text().strip() == "where"


def test_a_claim_has_an_address_even_when_its_row_is_not_among_the_first(open_page, claims):
    row = f"#claim-{claims[-1]['claim']}"
    assert open_page("book/scorecard", fragment=row).locator(row).is_visible()


def test_an_artefacts_verdict_leads_to_its_claims(card, claims):
    page = card()
    badge = page.locator("a[data-filter]").first
    number, verdict = badge.inner_text().split()
    badge.press("Enter")
    assert _shown(page, "verdict") == [verdict] * int(number)
    assert len(set(_shown(page, "artefact"))) == 1


def test_without_scripts_it_is_a_plain_table(open_page, claims):
    page = open_page("book/scorecard", java_script_enabled=False)
    assert page.locator(SHOWN).count() == len(claims)
    assert page.locator(SHOWN).last.is_visible()
    assert not page.locator(".table-filters").is_visible()
    assert page.locator("#claims-table button").count() == 0


def test_the_downloads_hold_the_same_claims(still, claims, built):
    for name in scorecard.FILES:
        link = still.locator(f"article a[download][href$='{name}']")
        got = still.request.get(still.evaluate("a => a.href", link.element_handle()))
        assert got.ok
        assert got.body() == (built / "_static" / name).read_bytes()
    with (built / "_static/claims.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(claims)
    for row, one in zip(rows, claims, strict=True):
        low, high = one["interval"] or ("", "")
        assert (row["low"], row["high"]) == (str(low), str(high))
        for name, value in one.items():
            if name != "interval":
                assert row[name] == ("" if value is None else str(value)), (one["claim"], name)
        assert not (isinstance(one["ours"], float) and math.isnan(one["ours"]))


# -------------------------------------------------------------------------------------------------------- errata


def test_the_errata_hold_every_check_that_fails(visit, claims, root):
    failing = {one["claim"] for one in claims if one["verdict"] == "arithmetic-fails"}
    wanted = {
        f"erratum-{claim.forensics}"
        for found in ledger.discover(root)
        for _, claim in found.claims
        if claim.id in failing
    }
    page = visit("book/errata")
    assert set(page.eval_on_selector_all("tr[id^='erratum-']", "all => all.map(r => r.id)")) == wanted
    cells = page.eval_on_selector_all(
        "tr[id^='erratum-']", "all => all.flatMap(r => [...r.cells].map(c => c.textContent))"
    )
    assert "" not in cells
    assert "None" not in cells


def test_every_chapter_tells_what_its_paper_leaves_open(visit, pages, root):
    chapters = [name for name in pages if re.fullmatch(r"replications/(\w+)/\1", name)]
    titles = {found.paper: scorecard.short(found) for found in ledger.discover(root)}
    page = visit("book/errata")
    for name in chapters:
        paper = name.split("/")[1]
        section = page.locator(f"#open-questions section:has(> h3:has-text('{titles[paper]}'))")
        assert section.count() == 1, paper
        assert section.locator("tbody tr").count() > 5, paper
        assert f"/{paper}/" in section.locator("a[href$='#what-the-paper-leaves-open']").get_attribute("href")
