"""The page on a reader's own router: every mistake it shows is noticed, and its tables hold what was compared."""

from __future__ import annotations

import numpy as np
import pytest

from routebook import load, protocol, routers
from routebook import your_router_page as page


@pytest.fixture(scope="module")
def benchmark():
    return load("simulated").sample(250, 0)


@pytest.fixture(scope="module")
def found(benchmark):
    splits = protocol.draw_splits(benchmark, benchmark.embeddings, 2)
    return page.compared(lambda seed: routers.KNN(5), splits)


def test_every_mistake_is_answered_in_one_line_that_names_the_file_or_the_argument(tmp_path):
    table = page.mistake_table(tmp_path)
    assert list(table.index) == list(page.MISTAKES)
    for what, said in table["what it says"].items():
        assert "\n" not in said, what
        assert "mine.csv" in said or "cost_unit" in said, what
        assert str(tmp_path) not in said, what
    with pytest.raises(ValueError, match="does not notice that nothing is wrong"):
        page.mistake_table(tmp_path, {"nothing is wrong": (page.GOOD, {})})


def test_tables_have_a_row_a_router(found):
    shown = page.summary_table(protocol.summary(found))
    assert shown.index[0] == "Your router"
    assert set(shown.index) == {page.name(router) for router in [page.YOURS, *protocol.REFERENCES]}
    assert shown.loc["BestSingle", "Area"] == "–"


def test_differences_to_a_copy_of_oneself_are_zero(found):
    differences = page.differences(found, n_resamples=20)
    assert list(differences.index) == list(page.RIVALS)
    ours, theirs = ([curve.peak for curve in found.of(name)] for name in (page.YOURS, "mlp"))
    assert differences.loc["mlp", ("peak", "value")] == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert np.isnan(differences.loc["best-single", ("area", "value")])
    assert page.difference_table(differences).loc["less BestSingle", "Area, over splits"] == "–"
    twice = protocol.compare({page.YOURS: lambda seed: routers.KNN(20), **protocol.REFERENCES}, found.splits)
    same = page.differences(twice, n_resamples=20).loc["k-nn"]
    assert (same == 0).all()


def test_the_figure_has_a_line_or_point_a_router(found, benchmark):
    figure = page.curve_plot(found, benchmark)
    (axes,) = figure.axes
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert labels == {page.name(router) for router in found.curves[0]}
    assert axes.get_xscale() == "log"
