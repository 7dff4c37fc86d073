"""What readers do with the site: switch its theme, search it, find their way."""

from __future__ import annotations

import pytest


def _theme(page):
    return page.evaluate("document.documentElement.dataset.theme")


def test_the_theme_can_be_switched_and_is_kept(open_page, address):
    page = open_page("book/intro")
    assert _theme(page) == "light"
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for _ in range(3):
        if _theme(page) == "dark":
            break
        page.locator(".theme-switch-button:visible").first.click()
    assert _theme(page) == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.goto(f"{address}book/scorecard.html")
    assert _theme(page) == "dark"


def test_the_theme_follows_the_readers_system(open_page):
    assert _theme(open_page("book/intro", theme="dark")) == "dark"


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("LearnedMap", "replications/uniroute/uniroute"),
        ("AUDC", "replications/cscr/cscr"),
        ("relay node", "replications/radialrouter/radialrouter"),
        ("Table 5", "replications/cscr/ablations"),
        ("deferral_curve", "book/api/routing"),
    ],
)
def test_the_search_finds(open_page, words, page):
    opened = open_page("search", fragment=f"?q={words}")
    opened.wait_for_selector(f"ul.search a[href*='{page}.html']")
    assert opened.problems == []
    assert opened.outside == []


def test_the_contents_unfold_on_a_phone_by_keyboard(open_page):
    page = open_page("book/intro", width=360)
    # The theme moves the contents into a dialogue and back.
    sidebar = ":is(#pst-primary-sidebar, #pst-primary-sidebar-modal)"
    link = page.locator(f"{sidebar} nav a[href$='scorecard.html']").first
    assert not link.is_visible()
    page.locator(".primary-toggle:visible").first.press("Enter")
    link.wait_for(state="visible")
    page.keyboard.press("Escape")
    link.wait_for(state="hidden")


def test_the_arrows_of_the_contents_have_names(page):
    names = page.eval_on_selector_all(
        "#pst-primary-sidebar summary", "all => all.map(s => s.getAttribute('aria-label') ?? '')"
    )
    assert names
    assert all(name.startswith("Pages of ") for name in names)
