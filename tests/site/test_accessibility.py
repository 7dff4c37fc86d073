"""Every page read by axe, in both themes, and the site used by keyboard."""

from __future__ import annotations

from pathlib import Path

import axe_playwright_python
import pytest

# Rows of a table, words of a listing, paragraphs and formulas are alike by the thousand, and axe takes its time for
# each element: of those that look the same two are looked at, and the others put back in their places afterwards.
THIN_OUT = """() => {
  const seen = new Map();
  const away = [];
  const few = (selector, key, stand_in) => document.querySelectorAll(selector).forEach((element) => {
    const kind = `${selector} ${key(element)}`;
    seen.set(kind, (seen.get(kind) ?? 0) + 1);
    if (seen.get(kind) <= 2) return;
    const place = stand_in(element);
    element.replaceWith(place);
    away.push([place, element]);
  });
  const classes = (e) => [...new Set([...e.querySelectorAll("[class]")].map((x) => x.className))].sort().join("|");
  const nothing = () => document.createComment("");
  few("article tbody tr", classes, nothing);
  few("article dl.py", (entry) => entry.className, nothing);
  few("article mjx-container", () => "", nothing);
  few(":is(article, .page-toc) :is(p, li)", (e) => `${e.tagName} ${e.parentElement?.className} ${classes(e)}`, nothing);
  few("article .highlight span", (word) => word.className, (word) => document.createTextNode(word.textContent));
  window.putBack = () => away.reverse().forEach(([place, element]) => place.replaceWith(element));
}"""
GRAVE = ("serious", "critical")


@pytest.fixture(scope="module")
def axe():
    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def violations(page, options):
    """What axe finds, a line for each element: rule, how grave, element, and what is wrong with it."""
    return page.evaluate(
        """async (options) => {
          // After a switch of the theme colours change over a few frames; a page out of sight has none.
          document.getAnimations().filter((one) => one instanceof CSSTransition).forEach((one) => one.finish());
          // Stylesheets are left unread: axe would fetch those they import from a wrong address.
          const { violations } = await axe.run(document, { resultTypes: ["violations"], preload: false, ...options });
          return violations.flatMap((v) => v.nodes.map((n) => [
            v.impact, v.id, n.html.slice(0, 160), [...n.any, ...n.all, ...n.none].map((c) => c.message).join("; "),
          ]));
        }""",
        options,
    )


def test_axe_finds_nothing_serious_in_either_theme(page, axe):
    before = page.evaluate("document.querySelectorAll('*').length")
    page.evaluate(axe)
    page.evaluate(THIN_OUT)
    try:
        found = violations(page, {})
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        found += violations(page, {"runOnly": ["color-contrast", "link-in-text-block"]})
    finally:
        page.evaluate("document.documentElement.dataset.theme = 'light'; putBack()")
    assert [one for one in found if one[0] in GRAVE] == []
    assert page.evaluate("document.querySelectorAll('*').length") == before


def test_axe_finds_nothing_serious_on_the_page_of_the_search(open_page, axe):
    opened = open_page("search", fragment="?q=router")
    opened.wait_for_selector("ul.search li")
    opened.evaluate(axe)
    assert [one for one in violations(opened, {}) if one[0] in GRAVE] == []


def test_axe_would_find_a_fault(open_page, axe):
    opened = open_page("book/bibliography")
    opened.evaluate("document.querySelector('article h1').style.color = '#eee'")
    opened.evaluate(axe)
    assert "color-contrast" in [one[1] for one in violations(opened, {})]


def test_the_first_key_skips_to_the_text(open_page):
    opened = open_page("book/intro")
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.textContent") == "Skip to main content"
    opened.keyboard.press("Enter")
    assert opened.evaluate("location.hash") == "#main-content"


def test_what_scrolls_sideways_is_reached_by_keyboard(page):
    page.set_viewport_size({"width": 360, "height": 800})
    page.wait_for_timeout(200)
    unreachable = page.eval_on_selector_all(
        "article :is(.scroll, .cell_output, .pst-scrollable-table-container, pre, figure)",
        """all => all.filter(e => e.scrollWidth > e.clientWidth + 1 && e.tabIndex < 0
             && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX)).map(e => e.outerHTML.slice(0, 120))""",
    )
    page.set_viewport_size({"width": 1300, "height": 900})
    assert unreachable == []
