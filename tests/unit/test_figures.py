"""Figures: the same bytes every time, transparent, and legible in the light and the dark theme."""

from __future__ import annotations

import colorsys
import itertools
import re
import xml.etree.ElementTree as ET

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from routebook import figures, load, overview
from routebook.errors import UserError

SVG = "{http://www.w3.org/2000/svg}"
X = np.linspace(1, 10, 5)


def _deferral():
    curves = {"k-means": (X, X / 10), "oracle": (X, np.sqrt(X / 10)), "best-single": (X[:1], X[:1] / 10)}
    bands = {"k-means": (X / 10 - 0.05, X / 10 + 0.05)}
    return figures.deferral_plot(curves, xlabel="Cost", points={"an LLM": (3.0, 0.3)}, bands=bands, logx=True)


def _scatter():
    frame = pd.DataFrame({"model": list("abcde"), "cost": X, "quality": X / 10})
    return figures.scatter_plot(frame, xlabel="Cost", ylabel="Quality")


def _interval():
    frame = pd.DataFrame({"value": [0.5, 0.6], "low": [0.4, 0.5], "high": [0.6, 0.7]}, index=["k-nn", "k-means"])
    return figures.interval_plot(frame, xlabel="Area")


def _line():
    lines = {"k-means": (X, X), "k-nn": (X, X**2)}
    return figures.line_plot(lines, xlabel="K", ylabel="Area", diagonal=True)


def _heat():
    names = ["a", "b", "c"]
    return figures.heat_map(pd.DataFrame(np.eye(3), names, names), colourbar="Agreement")


def _grid():
    curves = {"k-means": (X, X / 10), "best-single": (X[:1], X[:1] / 10)}
    bands = {"k-means": (X / 10 - 0.05, X / 10 + 0.05)}
    panels = [
        figures.Panel("one", curves, "Cost", bands, [(3.0, 0.3), (4.0, 0.2)]),
        figures.Panel("two", {"k-nn": (X, X / 20)}, "Cost"),
        figures.Panel("three", curves, "Parameters"),
    ]
    return figures.grid_plot(panels, ylabel="Quality", logx=True)


def _absent():
    return figures.absent_plot("needs RouterBench")


PLOTS = [_deferral, _scatter, _interval, _line, _heat, _grid, _absent]


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, WCAG 2.2."""
    low, high = sorted([_luminance(one), _luminance(other)])
    return (high + 0.05) / (low + 0.05)


def _style(element: ET.Element) -> dict[str, str]:
    return dict(re.findall(r"([\w-]+):\s*([^;]+)", element.get("style", "")))


@pytest.mark.parametrize("plot", PLOTS)
def test_svg_has_the_same_bytes_every_time_and_leaves_no_figure_open(plot):
    first, second = figures.to_svg(plot()), figures.to_svg(plot())
    assert first == second
    assert "<dc:date>" not in first
    assert plt.get_fignums() == []


@pytest.mark.parametrize("plot", PLOTS)
def test_text_is_in_the_ink_that_both_themes_can_show(plot):
    drawing = ET.fromstring(figures.to_svg(plot()))
    texts = [group for group in drawing.iter(f"{SVG}g") if (group.get("id") or "").startswith("text_")]
    assert texts
    for text in texts:
        # Matplotlib writes no fill at all for black.
        assert [_style(group).get("fill") for group in text.findall(f"{SVG}g")] == [figures.INK]


@pytest.mark.parametrize("plot", PLOTS)
def test_background_is_transparent_and_no_line_is_black_or_white(plot):
    drawing = ET.fromstring(figures.to_svg(plot()))
    patches = [g for g in drawing.iter(f"{SVG}g") if g.get("id") in ("patch_1", "patch_2")]
    for patch in patches:
        for path in patch.iter(f"{SVG}path"):
            assert _style(path).get("fill", "none") == "none", "the figure's and the axes' own rectangle"
    for element in drawing.iter():
        for name in ("fill", "stroke"):
            assert _style(element).get(name) not in ("#000000", "#ffffff", "#262626", "black", "white")


@pytest.mark.parametrize("page", ["#ffffff", "#14181e"])
def test_ink_and_colours_stand_out_on_both_pages(page):
    assert _contrast(figures.INK, page) >= 4
    for method, look in figures.METHODS.items():
        assert _contrast(look.colour, page) >= 3, method


def test_methods_can_be_told_apart_without_colour_or_by_colour():
    looks = list(figures.METHODS.values())
    assert len({look.label for look in looks}) == len(looks)
    assert len({look.marker for look in looks}) == len(looks)
    hues = [
        colorsys.rgb_to_hsv(*(int(look.colour[i : i + 2], 16) for i in (1, 3, 5)))[0]
        for look in looks
        if look.colour != figures.METHODS["random"].colour
    ]
    assert len({round(hue, 2) for hue in hues}) == len(hues), "grey apart, one hue a method"


def test_deferral_plot_draws_what_it_is_given():
    axes = _deferral().axes[0]
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert set(lines) == {"UniRoute (K-means)", "Oracle", "BestSingle"}
    np.testing.assert_array_equal(lines["UniRoute (K-means)"].get_xdata(), X)
    np.testing.assert_array_equal(lines["UniRoute (K-means)"].get_ydata(), X / 10)
    assert [text.get_text() for text in axes.texts] == ["an LLM"]
    assert axes.get_xscale() == "log"
    assert not axes.get_title()
    plt.close("all")


def test_a_crowded_scatter_names_only_the_frontier():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"model": [f"m{i}" for i in range(30)], "cost": rng.random(30), "quality": rng.random(30)})
    named = {text.get_text() for text in figures.scatter_plot(frame, xlabel="", ylabel="").axes[0].texts}
    beaten = {
        a.model
        for a in frame.itertuples()
        for b in frame.itertuples()
        if b.cost <= a.cost and b.quality >= a.quality and b.model != a.model
    }
    assert named == set(frame["model"]) - beaten
    plt.close("all")


def test_grid_plot_draws_each_panel_and_one_legend_for_all():
    figure = _grid()
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in shown] == ["one", "two", "three"]
    assert [axes.get_xlabel() for axes in shown] == ["Cost", "Cost", "Parameters"]
    named = {line.get_label(): line for line in shown[0].lines if not line.get_label().startswith("_")}
    assert set(named) == {"UniRoute (K-means)", "BestSingle"}
    np.testing.assert_array_equal(named["UniRoute (K-means)"].get_ydata(), X / 10)
    crosses = [(line.get_xdata()[0], line.get_ydata()[0]) for line in shown[0].lines if line.get_marker() == "x"]
    assert crosses == [(3.0, 0.3), (4.0, 0.2)]
    assert len(shown[0].collections) == 1, "one band"
    assert len(shown[1].collections) == 0
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {"UniRoute (K-means)", "BestSingle", "K-NN"}
    plt.close("all")


def test_a_method_with_a_made_marker_is_drawn_as_a_point_and_its_line_names_it():
    method = "semirouter-mlp"
    marker = figures.METHODS[method].marker
    assert isinstance(marker, tuple)
    panels = [figures.Panel("line", {method: (X, X)}, "x"), figures.Panel("point", {method: (X[:1], X[:1])}, "x")]
    figure = figures.grid_plot(panels, ylabel="y")
    (point,) = figure.axes[1].lines
    assert point.get_marker() == marker
    assert point.get_linestyle() == "None"
    (named,) = figure.legends[0].get_lines()
    assert named.get_linestyle() == "--"


def test_grid_plot_refuses_to_draw_nothing():
    with pytest.raises(UserError, match="panels is empty"):
        figures.grid_plot([], ylabel="Quality")


def test_a_line_plot_is_logarithmic_on_the_axes_asked_for():
    lines = {"k-means": ([1, 10, 100], [0.01, 0.1, 1])}
    for logx, logy in ((False, False), (True, False), (False, True), (True, True)):
        axes = figures.line_plot(lines, xlabel="N", ylabel="Seconds", logx=logx, logy=logy).axes[0]
        assert (axes.get_xscale() == "log", axes.get_yscale() == "log") == (logx, logy)
    assert axes.yaxis.get_major_formatter()(0.01, None) == "0.01"
    plt.close("all")


def test_rows_of_an_interval_plot_are_methods_or_any_other_names():
    frame = pd.DataFrame({"value": [0.5, 0.6], "low": [0.4, 0.6], "high": [0.6, 0.6]}, index=["k-nn", "Table 1"])
    (axes,) = figures.interval_plot(frame, xlabel="Area").axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["Table 1", figures.label("k-nn")]


def test_small_plots_may_have_logarithmic_heights_with_a_tick_a_power_of_ten():
    panel = figures.Panel("a pool", {"oracle": (np.array([1.0, 10.0]), np.array([0.5, 2000.0]))}, "x")
    axes = figures.grid_plot([panel], ylabel="y", logy=True).axes[0]
    assert axes.get_yscale() == "log"
    low, high = axes.get_ylim()
    assert [tick for tick in axes.get_yticks() if low <= tick <= high] == [1, 10, 100, 1000]
    assert figures.grid_plot([panel], ylabel="y").axes[0].get_yscale() == "linear"
    plt.close("all")


def test_costs_on_the_benchmarks_page_do_not_run_into_one_another():
    plot = overview.accuracy_cost_plot("tinypool", load("tinypool"))
    plot.canvas.draw()
    boxes = [label.get_window_extent() for label in plot.axes[0].get_xticklabels() if label.get_text()]
    shown = sorted((box.x0, box.x1) for box in boxes)
    assert len(shown) > 3
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(shown))
