"""The interactive deferral curve: its control moves points, numbers and bars, and nothing is lost without scripts."""

from __future__ import annotations

import json

import pytest

PLACES = "all => all.map(g => [g.dataset.method, g.getAttribute('transform')])"
ROWS = """all => all.map(row => [
  row.dataset.method,
  row.querySelector('.deferral-cost').textContent,
  row.querySelector('.deferral-quality').textContent,
  row.querySelector('.deferral-mix').getAttribute('aria-label'),
  [...row.querySelector('.deferral-mix').children].map(part => parseFloat(part.style.width)),
])"""


@pytest.fixture
def page(open_page):
    opened = open_page("book/synthesis")
    yield opened
    opened.context.close()


def _places(page):
    return dict(page.eval_on_selector_all("div.deferral g[data-method]", PLACES))


def _rows(page):
    return {row[0]: row[1:] for row in page.eval_on_selector_all("div.deferral tr[data-method]", ROWS)}


def _data(page):
    return json.loads(page.locator("div.deferral .deferral-data").text_content())


def test_the_control_moves_points_numbers_and_bars_by_keyboard(page):
    slider, data = page.get_by_role("slider"), _data(page)
    slider.focus()
    page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuetext") == "a unit of quality is worth any cost"
    first = _places(page)
    page.keyboard.press("ArrowRight")
    assert slider.input_value() == "1"
    assert slider.get_attribute("aria-valuetext") == f"a unit of quality is worth {data['worth'][1]}"
    page.keyboard.press("End")
    last, rows = _places(page), _rows(page)
    assert set(first) == set(last) == set(rows) == set(data["methods"])
    moved = [method for method in first if first[method] != last[method]]
    assert {"k-nn", "zero-router", "oracle"} <= set(moved)
    for method, points in data["methods"].items():
        cost, quality, words, widths = rows[method]
        assert last[method] == f"translate({points['x'][-1]:g} {points['y'][-1]:g})"
        assert (cost, quality) == (points["cost"][-1], points["quality"][-1])
        assert widths == points["mix"][-1]
        assert data["llms"][widths.index(max(widths))] in words
    assert page.locator("div.deferral output").inner_text() == data["worth"][-1]
    assert page.problems == []


def test_the_control_starts_where_the_drawing_stands(page, open_page):
    still = open_page("book/synthesis", java_script_enabled=False)
    try:
        assert still.get_by_role("slider").count() == 0
        assert still.locator("div.deferral polyline").count() == len(_places(page))
        assert "Scripts are off" in still.locator("div.deferral").inner_text()
        # Without scripts nothing can be asked of the page by script either.
        drawn = {g.get_attribute("data-method"): g for g in still.locator("div.deferral g[data-method]").all()}
        places = _places(page)
        assert set(drawn) == set(places)
        for method, point in drawn.items():
            assert point.get_attribute("transform") == places[method]
    finally:
        still.context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_curve_fits_a_phone_in_either_theme(open_page, theme):
    page = open_page("book/synthesis", width=360, theme=theme)
    try:
        box = page.locator("div.deferral svg").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
        slider = page.get_by_role("slider").bounding_box()
        assert slider["x"] + slider["width"] <= 360
        colour = page.locator("div.deferral svg > text").first.evaluate("t => getComputedStyle(t).fill")
        assert colour == page.locator("div.deferral").evaluate("d => getComputedStyle(d).color")
    finally:
        page.context.close()
