"""The page on metrics: ranks, flips and grid errors by hand, and on a small simulated pool."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from routebook import metrics_page, protocol
from routebook import metrics_page as page
from routebook.figures import label
from routebook.metrics import METRICS
from routebook.pages import MetricsParams
from routebook.significance import Estimate

SIZES = [3, 30]


@pytest.fixture(scope="module")
def params():
    return MetricsParams(pools=["simulated"], max_prompts=240, n_splits=2, grid_sizes=SIZES)


@pytest.fixture(scope="module")
def comparison(params):
    return page.compare(page.load_pool("simulated", params), params)


@pytest.fixture(scope="module")
def judged(comparison):
    return page.judged(comparison)


@pytest.fixture(scope="module")
def values(judged):
    return page.values(judged)


def _values(**columns):
    """Values of the ranked routers on two splits; each column is [split][router]."""
    frames = [pd.DataFrame({key: found[n] for key, found in columns.items()}, index=page.RANKED) for n in (0, 1)]
    return pd.concat(frames, keys=[0, 1], names=["split", "router"])


def test_the_oracle_is_not_ranked():
    assert set(page.RANKED) == set(protocol.REFERENCES) - {"oracle"}


def test_goodness_turns_costs_round_and_forgives_rounding():
    n = len(page.RANKED)
    costs = np.arange(1.0, n + 1)
    found = page.goodness(_values(area=[costs, costs], qnc=[costs, np.full(n, np.inf)]))
    assert list(found.loc[0, "area"].rank()) == list(costs)
    assert list(found.loc[0, "qnc"].rank(ascending=False)) == list(costs)
    nearly = page.goodness(_values(area=[np.full(n, 0.5) + 1e-13 * costs, costs]))
    assert nearly.loc[0, "area"].nunique() == 1


def test_ranks_taus_and_flips_by_hand():
    n = len(page.RANKED)
    up = np.arange(1.0, n + 1)
    swapped = up.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    good = page.goodness(_values(area=[up, up], peak=[swapped, up], qnc=[up, up]))
    assert list(page.ranks(good)["area"]) == list(up[::-1])
    found = page.taus(good)
    pairs = n * (n - 1) / 2
    assert found["area", "peak"].estimate == pytest.approx(1 - 1 / pairs)  # one pair of all, on one of two splits
    assert found["area", "qnc"].estimate == pytest.approx(-1)
    flips = page.flips(good)
    by_peak = flips[flips["metric"] == "peak"].set_index(["ahead", "behind"])["share"]
    assert by_peak[page.RANKED[1], page.RANKED[0]] == 0.5
    assert by_peak.sum() == 0.5
    assert (flips.loc[flips["metric"] == "qnc", "share"] == 1).all()
    table = page.flip_table(flips, found)
    assert table.loc[METRICS["peak"].label, "pairs turned round"] == f"0 of {int(pairs)}"
    assert table.loc[METRICS["qnc"].label, "pairs turned round"] == f"{int(pairs)} of {int(pairs)}"
    expected = f"{label(page.RANKED[1])} &gt; {label(page.RANKED[0])} (100%)"
    assert expected in table.loc[METRICS["qnc"].label, "which"]


def test_routers_without_a_value_are_left_out_of_what_is_compared():
    n = len(page.RANKED)
    up = np.arange(1.0, n + 1)
    gap = up.copy()
    gap[0] = np.nan
    good = page.goodness(_values(area=[gap, gap], peak=[up, up]))
    assert page.taus(good)["area", "peak"].estimate == pytest.approx(1)
    assert len(page.flips(good)) == (n - 1) * (n - 2) / 2


def test_every_router_is_judged_by_every_metric(values, comparison):
    assert list(values.columns) == list(METRICS)
    assert len(values) == 2 * len(protocol.REFERENCES)
    known = values.drop("best-single", level="router").drop(columns="qnc")
    assert np.isfinite(known.to_numpy()).all()
    assert np.isnan(values.xs("best-single", level="router")["area"]).all()
    for key, metric in METRICS.items():
        if not metric.lower_is_better:
            oracle = values[key].xs("oracle", level="router")
            assert (oracle >= values[key].groupby("split").max() - 1e-12).all(), key
    areas = [curve.area() for curve in comparison.of("k-nn")]
    np.testing.assert_allclose(values["area"].xs("k-nn", level="router"), areas)


def test_the_two_models_are_the_cheapest_and_the_most_accurate(comparison, judged):
    split = comparison.splits[0]
    weak, strong = page.weak_and_strong(split)
    assert split.price[weak] == split.price.min()
    assert split.train.quality[:, strong].mean() == split.train.quality.mean(axis=0).max()
    np.testing.assert_allclose(
        judged[0].two_models["k-nn"].model_quality, split.test.quality[:, [weak, strong]].mean(axis=0)
    )
    assert judged[0].dollars * split.price.max() == pytest.approx(7.185)


def test_values_are_shown_with_the_best_in_bold(values):
    table = page.value_table(values)
    assert list(table.index) == [metric.label for metric in METRICS.values()]
    for key, metric in METRICS.items():
        bold = [name for name, cell in table.loc[metric.label].items() if cell.startswith("<b>")]
        means = values[key].groupby("router").mean()[list(page.RANKED)].replace(np.inf, np.nan)
        best = means.idxmin() if metric.lower_is_better else means.idxmax()
        assert label(best) in bold, key
        assert label("oracle") not in bold
    assert page.value_table(values.assign(qnc=np.inf)).loc["QNC", "K-NN"] == "∞ in 2 of 2"
    assert table.loc["Area", "BestSingle"] == "–"
    assert page.value_table(values.assign(peak=1e-16)).loc["Peak", "K-NN"] == "<b>0.000</b>"
    assert page.mean_values(values)["area", "k-nn"].n == 2


def test_company_changes_only_what_depends_on_it(judged):
    found = page.company_flips(judged)
    assert set(found["metric"]) == {key for key, metric in METRICS.items() if metric.company}
    assert found["share"].between(0, 1).all()
    assert list(page.company_table(found).index) == [METRICS[key].label for key in found["metric"].unique()]


def test_a_grid_of_every_change_misses_nothing_and_a_finer_log_grid_misses_less(judged, monkeypatch):
    errors = page.grid_errors(judged, SIZES)
    assert len(errors) == len(page.SPACINGS) * len(SIZES) * len(page.GRID_METRICS)
    log = errors[(errors["spacing"] == "log") & (errors["metric"] == "area")].set_index("size")["error"]
    assert log[30] < log[3]
    assert errors["error"].between(0, 1).all()
    monkeypatch.setattr(metrics_page.metrics, "lambda_grid", lambda curve, size, spacing: curve.lam)
    everything = page.grid_errors(judged, [3])
    assert (everything[["error", "swapped"]] == 0).all(axis=None)


def test_the_error_of_one_curve_by_hand(judged):
    one = judged[0]
    twice = type(one)({"k-nn": one.curves["k-nn"], "k-means": one.curves["k-nn"]}, {}, one.dollars)
    errors = page.grid_errors([twice], [3]).set_index(["spacing", "metric"])["error"]
    curve = one.curves["k-nn"]
    at = np.linspace(0, curve.lam[-1], 3)
    cost, quality = curve.at_lambda(at)
    order = np.argsort(cost)
    low, high = curve.model_cost.min(), curve.model_cost.max()
    fine = np.linspace(low, high, 400_001)
    by_hand = np.trapezoid(np.interp(fine, cost[order], quality[order]), fine) / (high - low)
    assert errors["linear", "area"] == pytest.approx(abs(by_hand - curve.area()), abs=1e-5)
    assert errors["linear", "peak"] == pytest.approx(curve.peak - quality.max())


def test_expectations_can_fail():
    n = len(page.RANKED)
    up = np.arange(1.0, n + 1)
    good = page.goodness(_values(**{"aiq-paper": [up, up], "aiq-code": [up, up]}))
    agree = {pair: Estimate(0.5, 0.4, 0.6, 2, "") for pair in (("qnc-code", "peak"), ("peak", "cost-at-peak"))}
    errors = pd.DataFrame(
        [{"spacing": s, "size": 5, "metric": "area", "error": 0.1} for s in ("linear", "log", "linear to 1/c")]
    )
    assert page.expectations(good, agree, errors) == {"backwards": False, "hull": False, "log": False}
    against = {pair: Estimate(-0.5, -0.6, -0.4, 2, "") for pair in agree}
    turned = page.goodness(_values(**{"aiq-paper": [up, up], "aiq-code": [up[::-1], up[::-1]]}))
    errors.loc[errors["spacing"] == "log", "error"] = 0.01
    assert page.expectations(turned, against, errors) == {"backwards": True, "hull": True, "log": True}


def test_figures_have_a_line_a_router_and_a_line_a_metric(values, judged):
    good = page.goodness(values)
    figure = page.rank_plot({"one": page.ranks(good), "two": page.ranks(good)})
    assert len(figure.axes) == 2
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {label(router) for router in page.RANKED}
    matrix = page.tau_matrix(page.taus(good))
    assert (np.diag(matrix) == 1).all()
    assert len(page.tau_plot(matrix).axes) == 2
    errors = page.grid_errors(judged[:1], SIZES)
    figure = page.grid_plots(errors)
    assert [axes.get_title() for axes in figure.axes] == list(page.SPACINGS)
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        METRICS[key].label for key in page.GRID_METRICS
    }
    assert page.grid_table(errors, [30]).shape == (len(page.SPACINGS) * len(page.GRID_METRICS), 1)


def test_definitions_name_every_metric():
    table = page.definitions()
    assert list(table.index) == [metric.label for metric in METRICS.values()]
    assert table.loc["QNC", "better"] == "lower"
    assert table.loc["AIQ, as coded", "depends on the others"] == "yes"
