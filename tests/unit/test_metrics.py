"""Metrics of RouteLLM, RadialRouter, SemiRouter and CSCR against values worked by hand, and grids against all of λ."""

from __future__ import annotations

import numpy as np
import pytest

from routebook import metrics
from routebook.deferral import audc_cscr, deferral_curve
from routebook.errors import UserError

# Four prompts, two models. Margins (strong - weak) .3, -.2, .1, .0, so prompts turn strong in the order 1, 3, 4, 2.
ESTIMATE = np.array([[0.5, 0.8], [0.6, 0.4], [0.4, 0.5], [0.7, 0.7]])
QUALITY = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])


def test_the_call_share_curve_runs_from_no_strong_call_to_all_of_them():
    curve = metrics.call_share_curve(ESTIMATE, QUALITY, weak=0, strong=1)
    cost, quality = curve.points
    np.testing.assert_allclose(cost, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(quality, [0.25, 0.5, 0.75, 1.0, 0.75])


def test_columns_are_taken_from_a_larger_pool_and_shifting_a_prompt_changes_nothing():
    plain = metrics.call_share_curve(ESTIMATE, QUALITY, 0, 1)
    wide = np.column_stack([ESTIMATE[:, 1], np.full(4, np.nan), ESTIMATE[:, 0]]) + np.array([[3], [-5], [0], [7]])
    found = metrics.call_share_curve(wide, QUALITY[:, [1, 0, 0]], weak=2, strong=0)
    np.testing.assert_allclose(found.points, plain.points)


def test_apgr_by_hand():
    # Weak .25, strong .75. Recovered: 0, .5, 1, 1.5, 1 at shares 0, 1/4, .., 1: (.25 + .75 + 1.25 + 1.25) / 4.
    curve = metrics.call_share_curve(ESTIMATE, QUALITY, 0, 1)
    assert metrics.apgr(curve) == pytest.approx(0.875)


def test_apgr_of_a_constant_margin_is_one_half():
    curve = metrics.call_share_curve(np.tile([0.2, 0.9], (4, 1)), QUALITY, 0, 1)
    np.testing.assert_allclose(curve.points[0], [0, 1])
    assert metrics.apgr(curve) == pytest.approx(0.5)
    assert metrics.call_performance_threshold(curve, 0.8) == pytest.approx(0.8)


def test_cpt_by_hand():
    curve = metrics.call_share_curve(ESTIMATE, QUALITY, 0, 1)
    assert metrics.call_performance_threshold(curve, 0.5) == pytest.approx(0.25)
    assert metrics.call_performance_threshold(curve, 0.8) == pytest.approx(0.25 + 0.6 * 0.25)
    assert metrics.call_performance_threshold(curve, 0) == 0


def test_where_there_is_no_gap_there_is_nothing_to_recover():
    curve = metrics.call_share_curve(ESTIMATE, QUALITY[:, ::-1], 0, 1)
    assert np.isnan(metrics.apgr(curve))
    assert np.isnan(metrics.call_performance_threshold(curve))


def test_a_router_of_one_model_has_no_apgr():
    always = np.column_stack([np.full(4, np.nan), np.full(4, 0.7)])
    curve = metrics.call_share_curve(always, QUALITY, 0, 1)
    assert (len(curve), curve.cost[0]) == (1, 1)
    assert np.isnan(metrics.apgr(curve))


def _example():
    estimate = np.array([[0.60, 0.80, 0.90], [0.40, 0.45, 0.85], [0.90, 0.80, 0.70]])
    quality = np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    return deferral_curve(estimate, quality, np.array([1.0, 2.0, 4.0]))


def test_scores_by_hand():
    # The primer's example: (3, 1) from λ = 0, (7/3, 1) from .05, (4/3, 2/3) from .15, (1, 1/3) from .2.
    curve = _example()
    assert metrics.score_at(curve, 0) == pytest.approx(1)
    assert metrics.score_at(curve, 0.1) == pytest.approx(1 - 0.1 * 7 / 3)
    assert metrics.score_at(curve, 0.18) == pytest.approx(2 / 3 - 0.18 * 4 / 3)
    assert metrics.score_semirouter(curve, weight=10) == pytest.approx(10 * 1 - 7 / 3)
    assert metrics.score_semirouter(curve) == pytest.approx(0.6 * (1 / 3) - 1)


def test_a_curve_that_misses_the_smallest_budgets_is_extended_and_a_single_point_is_not():
    quality, cost = np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([1.0, 3.0])
    estimate = np.array([[np.nan, 0.5], [0.5, 0.9]])  # the first prompt never goes to the cheap model
    curve = deferral_curve(estimate, quality, cost)
    assert np.isnan(curve.area())
    assert metrics.area(curve) == pytest.approx(1)
    assert np.isnan(metrics.area(deferral_curve(np.array([[np.nan, 0.5]] * 2), quality, cost)))


def test_audc_without_grids_by_hand():
    # Pooled range 1 to 4: a single point at (4, 2/3), held flat, and the example's curve, whose area there is 8/9.
    single = deferral_curve(np.full((3, 1), 0.5), np.array([[1.0], [1.0], [0.0]]), np.array([4.0]))
    found = metrics.audc_exact({"example": _example(), "single": single})
    assert found == {"example": pytest.approx(8 / 9), "single": pytest.approx(2 / 3)}
    assert metrics.audc_exact({"single": single}) == {"single": pytest.approx(2 / 3)}


def test_cscrs_audc_tends_to_the_one_without_grids():
    rng = np.random.default_rng(0)
    quality = rng.integers(0, 2, (60, 4)).astype(float)
    cost = np.array([1.0, 2.0, 5.0, 9.0])
    curves = {name: deferral_curve(rng.random((60, 4)), quality, cost) for name in "ab"}
    exact = metrics.audc_exact(curves)
    errors = []
    for size in (20, 200, 5000):
        lambdas = np.concatenate(([0], np.geomspace(1e-4, 10, size - 1)))
        coded = audc_cscr(curves, lambdas, grid=size)
        errors.append(max(abs(coded[name] - exact[name]) for name in curves))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ("linear", [0, 0.1, 0.2]),
        ("linear to 1/c", [0, 0.125, 0.25]),
        ("log", [0, 0.05, 0.2]),
    ],
)
def test_grids_by_hand(spacing, expected):
    np.testing.assert_allclose(metrics.lambda_grid(_example(), 3, spacing), expected)


def test_a_grid_sees_what_lies_on_it_and_no_more():
    curve = _example()
    seen = metrics.on_grid(curve, [0, 0.18])
    np.testing.assert_allclose(seen.cost, [3, 4 / 3])
    np.testing.assert_allclose(seen.quality, [1, 2 / 3])
    np.testing.assert_array_equal(seen.model_cost, curve.model_cost)
    everything = metrics.on_grid(curve, curve.lam)
    np.testing.assert_array_equal(everything.cost, curve.cost)
    assert everything.area() == curve.area()


def test_grids_that_make_no_sense_are_refused():
    curve = _example()
    for call, said in (
        (lambda: metrics.lambda_grid(curve, 1, "log"), "size is 1"),
        (lambda: metrics.lambda_grid(curve, 5, "cubic"), "spacing is 'cubic'"),
        (lambda: metrics.on_grid(curve, [0.1, 0.2]), "must begin with 0"),
        (lambda: metrics.call_share_curve(ESTIMATE, QUALITY, 1, 1), "both column 1"),
        (lambda: metrics.call_performance_threshold(curve, 2), "recovered is 2"),
        (lambda: metrics.score_semirouter(curve, 0), "weight is 0"),
    ):
        with pytest.raises(UserError, match=said):
            call()
    single = deferral_curve(np.full((3, 1), 0.5), np.ones((3, 1)), np.array([4.0]))
    np.testing.assert_array_equal(metrics.lambda_grid(single, 4, "log"), np.zeros(4))


def test_every_metric_gives_every_router_a_value_or_says_it_has_none():
    rng = np.random.default_rng(1)
    quality = rng.integers(0, 2, (80, 3)).astype(float)
    cost = np.array([1.0, 2.0, 6.0])
    estimates = {"a": rng.random((80, 3)), "b": quality, "one": np.tile([np.nan, 0.5, np.nan], (80, 1))}
    curves = {name: deferral_curve(g, quality, cost) for name, g in estimates.items()}
    pairs = {name: metrics.call_share_curve(estimates[name], quality, 0, 2) for name in "ab"}
    judged = metrics.Judged(curves, pairs, dollars=1.0)
    undefined = set()
    for key, metric in metrics.METRICS.items():
        values = metric.read(judged)
        assert set(values) == set(curves), key
        assert not np.isnan([values["a"], values["b"]]).any(), key
        undefined |= {key} if np.isnan(values["one"]) else set()
        if metric.company:
            alone = metric.read(metrics.Judged({"a": curves["a"]}, {}, 1.0))
            assert set(alone) == {"a"}
    assert undefined == {"area", "area-step", "apgr", "cpt-50"}


def test_scores_are_read_in_their_papers_units():
    # Cost in dollars a prompt: 1 unit counts 1,000 dollars per 1,000 prompts.
    curve = _example()
    judged = metrics.Judged({"x": curve}, {}, dollars=1000.0)
    assert metrics.METRICS["score-0.02"].read(judged)["x"] == pytest.approx(metrics.score_at(curve, 20))
    assert metrics.METRICS["score-semirouter"].read(judged)["x"] == pytest.approx(metrics.score_semirouter(curve))
    in_cents = metrics.Judged({"x": curve}, {}, dollars=10.0)
    # A hundredth of the cost: .6 q - c / 100 at λ = 1 / 60 per cent, below the first change at .05.
    assert metrics.METRICS["score-semirouter"].read(in_cents)["x"] == pytest.approx(0.6 - 0.03)
