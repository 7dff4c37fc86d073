"""The exact curve against naive routing over many λ, and every metric against hand-worked or dense numerical values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routebook.deferral import (
    CSCR_LAMBDAS,
    DeferralCurve,
    aiq_code,
    aiq_paper,
    audc_cscr,
    concave_envelope,
    deferral_curve,
    interpolate,
    mean_curve,
    qnc_cscr,
    routing_path,
)
from routebook.errors import UserError

# ---------------------------------------------------------------------------------------------------------------------
# Naive routing: one prompt at a time, model after model from cheap to dear, nothing shared with the package
# ---------------------------------------------------------------------------------------------------------------------


def naive_choice(g, c, lams):
    """Column chosen by one prompt at each λ, and by how much its score beats the next best."""
    candidates = sorted((m for m in range(len(g)) if not np.isnan(g[m])), key=lambda m: (c[m], m))
    best_score = np.full(len(lams), -np.inf)
    runner_up = np.full(len(lams), -np.inf)
    choice = np.full(len(lams), -1)
    for m in candidates:
        score = g[m] - lams * c[m]
        better = score > best_score
        runner_up = np.where(better, best_score, np.maximum(runner_up, score))
        choice = np.where(better, m, choice)
        best_score = np.where(better, score, best_score)
    return choice, best_score - runner_up


def naive_curve(g, q, cost, lams):
    """Mean cost, mean observed quality, observed share and the narrowest decision at each λ."""
    n = len(g)
    costs = np.broadcast_to(cost, g.shape)
    spent, got, seen = np.zeros(len(lams)), np.zeros(len(lams)), np.zeros(len(lams))
    narrowest = np.full(len(lams), np.inf)
    for i in range(n):
        choice, gap = naive_choice(g[i], costs[i], lams)
        answer = q[i][choice]
        spent += costs[i][choice]
        got += np.where(np.isnan(answer), 0, answer)
        seen += ~np.isnan(answer)
        # A gap of exactly 0 is a tie, decided by the tie rule whatever the rounding: models with equal estimates and
        # equal costs tie at every λ. Only near ties are left to rounding.
        narrowest = np.minimum(narrowest, np.where(gap == 0, np.inf, gap))
    with np.errstate(invalid="ignore"):
        return spent / n, got / seen, seen / n, narrowest


@st.composite
def problems(draw, coarse=None):
    """A random routing problem; coarse ones have many ties and arithmetic without rounding."""
    n, m = draw(st.integers(1, 7)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    coarse = draw(st.booleans()) if coarse is None else coarse
    shape = (n, m) if draw(st.booleans()) else (m,)
    g = rng.integers(0, 9, (n, m)) / 8 if coarse else rng.random((n, m))
    cost = rng.integers(0, 3, shape).astype(float) if coarse else rng.exponential(size=shape)
    quality = rng.random((n, m)) if draw(st.booleans()) else rng.integers(0, 2, (n, m)).astype(float)
    special = draw(st.sampled_from(["", "equal costs", "equal estimates", "equal qualities", "duplicated model"]))
    if special == "equal costs":
        cost[...] = 0.5
    if special == "equal estimates":
        g[...] = 0.25
    if special == "equal qualities":
        quality[...] = 0.75
    if special == "duplicated model":
        g[:, -1], cost[..., -1] = g[:, 0], cost[..., 0]
    if draw(st.booleans()):
        quality[rng.random((n, m)) < 0.4] = np.nan
    if draw(st.booleans()):
        never = rng.random((n, m)) < 0.3
        never[np.arange(n), rng.integers(0, m, n)] = False
        g[never] = np.nan
    return g, quality, cost


@settings(max_examples=60, deadline=None)
@given(problems())
def test_equals_naive_routing_at_a_hundred_thousand_lambdas(problem):
    g, q, cost = problem
    curve = deferral_curve(g, q, cost)
    top = max(2.0, 2 * curve.lam[-1])
    rng = np.random.default_rng(0)
    middles = (curve.lam + np.append(curve.lam[1:], top)) / 2
    lams = np.concatenate(
        ([0.0], middles, rng.uniform(0, top, 60_000), np.logspace(-6, np.log10(top), 40_000), [10 * top, 1e6 * top])
    )
    cost_at, quality_at, observed_at, gap = naive_curve(g, q, cost, lams)
    clear = gap > 1e-12 * (1 + lams * cost.max())
    piece = np.searchsorted(curve.lam, lams, side="right") - 1
    assert clear.mean() > 0.99
    np.testing.assert_allclose(curve.cost[piece][clear], cost_at[clear], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(curve.observed[piece][clear], observed_at[clear], rtol=1e-12)
    np.testing.assert_allclose(curve.quality[piece][clear], quality_at[clear], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        np.transpose(curve.at_lambda(lams[clear])), np.transpose([cost_at[clear], quality_at[clear]]), atol=1e-10
    )


@settings(max_examples=100, deadline=None)
@given(problems(coarse=True))
def test_ties_and_breakpoints_to_the_bit(problem):
    # Estimates in eighths, costs 0, 1 or 2 and λ in 32nds: nothing is rounded, so even exact ties must agree, and
    # every breakpoint lies on the grid.
    g, q, cost = problem
    if not np.all(np.isin(cost, [0, 1, 2])):
        cost = np.floor(cost * 2)
    curve = deferral_curve(g, q, cost)
    lams = np.arange(0, 48) / 32
    cost_at, quality_at, observed_at, _ = naive_curve(g, q, cost, lams)
    np.testing.assert_array_equal(curve.observed[np.searchsorted(curve.lam, lams, side="right") - 1], observed_at)
    got_cost, got_quality = curve.at_lambda(lams)
    np.testing.assert_array_equal(got_cost, cost_at)
    np.testing.assert_allclose(got_quality, quality_at, atol=1e-14)
    changed = np.flatnonzero(np.diff(cost_at) != 0) + 1
    assert set(lams[changed]) <= set(curve.lam)
    assert set(curve.lam * 32) <= set(range(48))


@settings(max_examples=60, deadline=None)
@given(problems())
def test_invariants(problem):
    g, q, cost = problem
    curve = deferral_curve(g, q, cost)
    assert curve.lam[0] == 0
    assert (np.diff(curve.lam) > 0).all()
    assert (np.diff(curve.cost) <= 0).all()
    assert len(curve) <= 1 + len(g) * (g.shape[1] - 1)
    known = curve.quality[~np.isnan(curve.quality)]
    assert ((known >= np.nanmin(q, initial=np.inf)) & (known <= np.nanmax(q, initial=-np.inf) + 1e-12)).all()
    order = np.random.default_rng(1).permutation(len(g))
    shuffled = deferral_curve(g[order], q[order], cost[order] if cost.ndim == 2 else cost)
    np.testing.assert_allclose(shuffled.lam, curve.lam, rtol=1e-11)
    np.testing.assert_allclose(shuffled.quality, curve.quality, atol=1e-12)
    scaled = deferral_curve(g, q, 4 * cost)  # a power of two: no rounding
    np.testing.assert_array_equal(scaled.lam * 4, curve.lam)
    np.testing.assert_array_equal(scaled.cost, curve.cost * 4)
    assert scaled.qnc() == pytest.approx(curve.qnc(), nan_ok=True)
    assert scaled.area(left="flat") == pytest.approx(curve.area(left="flat"), nan_ok=True)
    per_prompt = deferral_curve(g, q, np.broadcast_to(cost, g.shape).copy())
    np.testing.assert_array_equal(per_prompt.quality, curve.quality)


def test_last_piece_equals_sending_all_to_the_cheapest_even_when_prices_span_twelve_orders():
    rng = np.random.default_rng(3)
    n, m = 20_000, 4
    cost = rng.random((n, m)) * np.array([1e-6, 1.0, 1e3, 1e6])
    g, q = rng.random((n, m)), rng.random((n, m))
    curve = deferral_curve(g, q, cost)
    cheapest = cost.argmin(axis=1)
    assert curve.cost[-1] == pytest.approx(cost[np.arange(n), cheapest].mean(), rel=1e-14)
    assert curve.quality[-1] == pytest.approx(q[np.arange(n), cheapest].mean(), rel=1e-14)
    start = g.argmax(axis=1)
    assert curve.cost[0] == pytest.approx(cost[np.arange(n), start].mean(), rel=1e-12)
    assert curve.quality[0] == pytest.approx(q[np.arange(n), start].mean(), rel=1e-11)


def test_many_models_all_on_the_envelope_and_blocks_of_prompts():
    # Concave estimates put every model on the envelope; 2,500 prompts are more than two blocks.
    cost = np.arange(1.0, 31.0)
    g = np.tile(np.sqrt(cost), (2500, 1))
    curve = deferral_curve(g, g, cost)
    np.testing.assert_allclose(curve.lam, [0.0, *np.diff(np.sqrt(cost))[::-1]])
    np.testing.assert_allclose(curve.cost, cost[::-1])
    np.testing.assert_allclose(curve.quality, np.sqrt(cost[::-1]))


def test_duplicated_models_choose_the_earlier_column():
    g, cost = np.array([[0.5, 0.5, 0.5]]), np.array([2.0, 1.0, 1.0])
    curve = deferral_curve(g, [[0.1, 0.2, 0.3]], cost)
    assert (len(curve), curve.cost[0], curve.quality[0]) == (1, 1.0, 0.2)


def test_breakpoints_that_differ_by_rounding_are_one():
    # Both prompts change at λ = .1, which comes out as .3 - .2 = .09999999999999998 and .2 - .1 = .1
    curve = deferral_curve([[0.2, 0.3], [0.1, 0.2]], [[0, 1], [0, 1]], [1.0, 2.0])
    assert len(curve) == 2
    assert curve.at_lambda(0.1) == (1.0, 0.0)


# ---------------------------------------------------------------------------------------------------------------------
# Metrics, worked by hand
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_prompts() -> DeferralCurve:
    """Models of cost 1, 2, 5. Prompt 0 steps 5→1 at λ = .1, prompt 1 steps 5→2 at .05 and 2→1 at .3.

    λ:      [0, .05)    [.05, .1)   [.1, .3)   [.3, ∞)
    models  (5, 5)      (5, 2)      (1, 2)     (1, 1)
    cost    5           3.5         1.5        1
    quality (1+0)/2     (1+1)/2     (.4+1)/2   (.4+0)/2
    """
    g = [[0.5, 0.55, 0.9], [0.2, 0.5, 0.65]]
    quality = [[0.4, 0.0, 1.0], [0.0, 1.0, 0.0]]
    return deferral_curve(g, quality, [1.0, 2.0, 5.0])


def test_pieces_by_hand(two_prompts):
    np.testing.assert_allclose(two_prompts.lam, [0, 0.05, 0.1, 0.3])
    np.testing.assert_allclose(two_prompts.cost, [5, 3.5, 1.5, 1])
    np.testing.assert_allclose(two_prompts.quality, [0.5, 1.0, 0.7, 0.2])
    np.testing.assert_allclose(two_prompts.observed, 1)
    np.testing.assert_allclose(two_prompts.model_quality, [0.2, 0.5, 0.5])
    np.testing.assert_allclose(two_prompts.model_cost, [1, 2, 5])
    with pytest.raises(ValueError, match="read-only"):
        two_prompts.cost[0] = 0


def test_area_by_hand(two_prompts):
    # trapezoids: .5 * .45 + 2 * .85 + 1.5 * .75 = 3.05; range 4
    assert two_prompts.area() == pytest.approx(3.05 / 4)
    # steps: .5 * .2 + 2 * .7 + 1.5 * 1 = 3.0
    assert two_prompts.area("step") == pytest.approx(3.0 / 4)
    # budgets 2 to 6: 1.5 * (.775 + 1) / 2 + 1.125 + 1 * .5 (held flat)
    assert two_prompts.area(budgets=(2, 6)) == pytest.approx((1.5 * 0.8875 + 1.125 + 0.5) / 4)
    assert np.isnan(two_prompts.area(budgets=(0, 5)))
    assert two_prompts.area(budgets=(0, 5), left="flat") == pytest.approx((0.2 + 3.05) / 5)


def test_qnc_by_hand(two_prompts):
    # Both dearer models score .5; the cheaper one (cost 2) is the reference. .5 is reached .6 of the way from 1 to 1.5.
    assert two_prompts.best_model == 1
    assert two_prompts.qnc() == pytest.approx(1.3 / 2)
    assert two_prompts.qnc(interpolation="step") == pytest.approx(1.5 / 2)
    assert two_prompts.qnc(reference=(1.0, 10.0)) == pytest.approx(0.35)
    assert two_prompts.qnc(reference=(1.01, 10.0)) == np.inf
    assert two_prompts.qnc(reference=(1.01, 10.0), unreached=1.0) == 1.0
    assert two_prompts.qnc(reference=(0.1, 2.0)) == pytest.approx(0.5)
    assert two_prompts.qnc(reference=(1.0 + 5e-10, 10.0)) == pytest.approx(0.35)
    assert two_prompts.qnc(reference=(1.0 + 2e-9, 10.0)) == np.inf
    assert two_prompts.qnc(reference=(0.1, 0.0)) == np.inf
    assert deferral_curve([[0.5]], [[1.0]], [0.0]).qnc() == 1.0


def test_the_most_accurate_model_is_the_cheaper_of_two_whatever_their_order():
    curve = deferral_curve([[0.1, 0.2, 0.3]], [[1.0, 1.0, 0.0]], [4.0, 2.0, 1.0])
    assert curve.best_model == 1
    assert curve.qnc(reference=(0.0, 2.0)) == 0.5


def test_rounding_of_the_mean_cost_does_not_put_the_left_end_out_of_reach():
    # (.1 + .1 + .1) / 3 is a little more than .1
    curve = deferral_curve([[0.2, 0.5]] * 3, [[0.0, 1.0]] * 3, [0.1, 0.3])
    assert curve.cost[-1] > curve.model_cost.min()
    assert curve.area() == pytest.approx(0.5)
    assert curve.quality_at_budget(0.1) == 0.0
    assert curve.lambda_for_budget(0.1) == pytest.approx(1.5)
    assert interpolate(curve, [0.1]) == [0.0]
    assert mean_curve([curve], 3).quality[0] == 0.0


def test_readings_by_hand(two_prompts):
    curve = two_prompts
    assert (curve.peak, curve.cost_at_peak) == (1.0, 3.5)
    assert curve.quality_at_budget(2.5) == pytest.approx(0.85)
    assert curve.quality_at_budget(2.5, "step") == pytest.approx(0.7)
    np.testing.assert_allclose(curve.quality_at_budget([1, 3.5, 9]), [0.2, 1.0, 0.5])
    assert curve.budget_for_quality(0.85) == pytest.approx(2.5)
    assert curve.budget_for_quality(1.1) == np.inf
    assert curve.at_lambda(0.07) == (3.5, 1.0)
    assert curve.at_lambda(1e9) == (1.0, pytest.approx(0.2))
    assert curve.lambda_for_budget(3.4) == pytest.approx(0.1)
    assert curve.lambda_for_budget(3.5) == pytest.approx(0.05)
    assert curve.lambda_for_budget(99) == 0
    np.testing.assert_allclose(interpolate(curve, [0.5, 1, 2.5, 7]), [np.nan, 0.2, 0.85, 0.5])


def test_unobserved_answers_are_left_out_not_counted_as_wrong():
    nan = np.nan
    g = [[0.5, 0.9], [0.5, 0.8], [0.5, 0.7]]  # change at λ = .4, .3, .2
    curve = deferral_curve(g, [[nan, 1.0], [nan, nan], [nan, 0.0]], [1.0, 2.0])
    np.testing.assert_allclose(curve.lam, [0, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(curve.cost, [2, 5 / 3, 4 / 3, 1])
    np.testing.assert_allclose(curve.quality, [0.5, 1.0, 1.0, nan])
    np.testing.assert_allclose(curve.observed, [2 / 3, 1 / 3, 1 / 3, 0])
    np.testing.assert_allclose(curve.model_quality, [nan, 0.5])
    assert (curve.peak, curve.cost_at_peak) == (1.0, pytest.approx(4 / 3))
    assert np.isnan(curve.area())  # no known quality at the cheapest model's cost
    assert curve.area(left="flat") == pytest.approx(2 / 3 * 1.0 + 1 / 3 * 0.75)
    nothing = deferral_curve([[0.5, 0.9]], [[nan, nan]], [1.0, 2.0])
    assert np.isnan([nothing.area(), nothing.peak, nothing.cost_at_peak, nothing.qnc()]).all()
    with pytest.raises(UserError, match="budget"):
        nothing.quality_at_budget(2.0)


def test_area_where_the_range_has_no_length_is_the_best_quality():
    assert deferral_curve([[0.1], [0.2]], [[1.0], [0.0]], [3.0]).area() == 0.5
    assert deferral_curve([[0.1, 0.2]], [[1.0, 0.25]], [3.0, 3.0]).area() == 0.25


def test_a_router_that_cannot_reach_the_cheapest_model_has_no_area_unless_extended():
    g = [[0.5, 0.9, np.nan], [np.nan, 0.4, 0.6]]
    curve = deferral_curve(g, [[0, 1, 0], [0, 0, 1]], [1.0, 2.0, 5.0])
    assert curve.cost[-1] == 1.5
    assert np.isnan(curve.area())
    assert 0 < curve.area(left="flat") < 1
    assert np.isnan(mean_curve([curve], 11).quality[0])


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from(["linear", "step"]))
def test_area_equals_dense_numerical_integration(problem, interpolation):
    curve = deferral_curve(*problem)
    low, high = curve.model_cost.min(), curve.model_cost.max()
    known = ~np.isnan(curve.quality)
    if high == low or not known.any():
        return
    x, y = curve.cost[known][::-1], curve.quality[known][::-1]
    cells = 200_000
    at = low + (np.arange(cells) + 0.5) * (high - low) / cells
    if interpolation == "linear":
        dense = np.interp(at, x, y).mean()
    else:
        dense = np.mean([y[0] if not (x <= b).any() else y[np.flatnonzero(x <= b)[-1]] for b in at[::100]])
    # midpoint sums err by at most one cell a piece, times the height of a step
    allowed = (1e-9 if interpolation == "linear" else 100 / cells * 2) * len(curve) + 1e-5
    assert curve.area(interpolation, left="flat") == pytest.approx(dense, abs=allowed)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_budget_readings_are_inverse_to_each_other(problem):
    g, q, cost = problem
    curve = deferral_curve(g, q, cost)
    for budget in np.linspace(curve.cost[-1], curve.cost[0] * 1.1, 7):
        lam = curve.lambda_for_budget(budget)
        assert curve.at_lambda(lam)[0] <= budget * (1 + 1e-9)
        if lam > 0:
            assert curve.at_lambda(np.nextafter(lam, 0))[0] > budget
    if not np.isnan(curve.peak):
        at_peak = curve.budget_for_quality(curve.peak)
        assert at_peak == pytest.approx(curve.cost_at_peak, abs=1e-6)
        assert curve.quality_at_budget(at_peak) == pytest.approx(curve.peak, abs=1e-6)
        for quality in np.linspace(curve.quality_at_budget(curve.points[0][0]), curve.peak, 5):
            needed = curve.budget_for_quality(quality)
            assert curve.quality_at_budget(needed) >= quality - 1e-6
            below = np.linspace(curve.points[0][0], needed, 50)[:-1]
            assert (curve.quality_at_budget(below) < quality + 1e-6).all()


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(0, 2**32 - 1))
def test_area_of_repeated_prompts_needs_no_new_routing(problem, seed):
    g, q, cost = problem
    rows = np.random.default_rng(seed).integers(0, len(g), len(g))
    again = deferral_curve(g[rows], q[rows], cost[rows] if cost.ndim == 2 else cost)
    counts = np.bincount(rows, minlength=len(g)).astype(float)
    weighted = routing_path(g, q, cost).area(counts, left="flat")
    assert weighted == pytest.approx(again.area(left="flat"), abs=1e-9, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from(["nan", "flat"]))
def test_areas_of_many_resamples_are_those_of_each(problem, seed, billed, left):
    g, q, cost = problem
    rng = np.random.default_rng(seed)
    path = routing_path(g, q, cost, rng.exponential(size=g.shape) if billed else None)
    weights = rng.multinomial(len(g), np.full(len(g), 1 / len(g)), size=20)
    for interpolation in ("linear", "step"):
        each = [path.area(row.astype(float), interpolation, left) for row in weights]
        np.testing.assert_allclose(path.areas(weights, interpolation, left), each, rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(problems(), st.integers(0, 2**32 - 1))
def test_bills_are_those_of_the_choices_that_prices_make(problem, seed):
    g, q, price = problem
    paid = np.random.default_rng(seed).exponential(size=g.shape)
    plain, billed = deferral_curve(g, q, price), deferral_curve(g, q, price, paid=paid)
    np.testing.assert_array_equal(billed.lam, plain.lam)
    np.testing.assert_array_equal(billed.quality, plain.quality)
    inside = np.append((plain.lam[:-1] + plain.lam[1:]) / 2, 2 * plain.lam[-1] + 1)
    spent, clear = np.zeros(len(inside)), np.ones(len(inside), dtype=bool)
    for i in range(len(g)):
        choice, gap = naive_choice(g[i], np.broadcast_to(price, g.shape)[i], inside)
        spent += paid[i][choice] / len(g)
        clear &= (gap == 0) | (gap > 1e-12 * (1 + inside * price.max()))
    np.testing.assert_allclose(billed.cost[clear], spent[clear], rtol=1e-12)
    np.testing.assert_allclose(billed.model_cost, paid.mean(axis=0))
    cost, quality = billed.points
    assert (np.diff(cost) >= 0).all(), "points come in order of what they cost"
    known = ~np.isnan(billed.quality)
    assert sorted(zip(cost, quality, strict=True)) == sorted(
        zip(billed.cost[known], billed.quality[known], strict=True)
    )


def test_bills_that_rise_with_lambda_by_hand():
    # By price model 1 is the dearer, by what is paid the cheaper: the point at lambda = 0 costs 1, the other one 3.
    curve = deferral_curve([[0.2, 0.6]], [[0.0, 1.0]], [1.0, 2.0], paid=[3.0, 1.0])
    np.testing.assert_array_equal(curve.cost, [1.0, 3.0])
    np.testing.assert_array_equal(curve.quality, [1.0, 0.0])
    assert curve.area() == 0.5
    assert (curve.peak, curve.cost_at_peak) == (1.0, 1.0)
    for paid, words in (([1.0], r"paid has shape \(1,\)"), ([1.0, np.nan], "is nan, expected a finite number")):
        with pytest.raises(UserError, match=words):
            deferral_curve([[0.2, 0.6]], [[0.0, 1.0]], [1.0, 2.0], paid=paid)


# ---------------------------------------------------------------------------------------------------------------------
# Other papers' readings
# ---------------------------------------------------------------------------------------------------------------------


def staircase(points) -> DeferralCurve:
    """A curve with the given (cost, quality) points, from cheap to dear."""
    cost, quality = np.array(points, dtype=float).T
    return DeferralCurve(
        lam=np.arange(len(cost), dtype=float),
        cost=cost[::-1],
        quality=quality[::-1],
        observed=np.ones(len(cost)),
        model_cost=cost[[0, -1]],
        model_quality=quality[[0, -1]],
        n_prompts=1,
    )


def test_aiq_by_hand():
    a = staircase([(1, 0.4), (2, 0.5), (3, 0.8), (4, 0.7)])  # envelope (1, .4), (3, .8); (4, .7) is removed
    b = staircase([(5, 0.9)])
    # code, right end 5: a = (2 * .6 + 2 * .8) / 5, b = 0 / 5; a alone ends at 3
    assert aiq_code({"a": a, "b": b}) == {"a": pytest.approx(0.56), "b": 0.0}
    assert aiq_code([a]) == [pytest.approx(1.2 / 3)]
    # paper: over [1, 5]: a = 2.8 / 4; b flat to the left
    assert aiq_paper([a, b]) == [pytest.approx(0.7), pytest.approx(0.9)]
    assert aiq_paper([b]) == [0.9]
    assert aiq_code([staircase([(0, 0.3)])]) == [0.3]


def test_aiq_code_and_paper_can_rank_two_routers_differently():
    early, late = staircase([(0.1, 0.6), (10, 0.7)]), staircase([(4, 0.75), (10, 0.8)])
    code, paper = aiq_code([early, late]), aiq_paper([early, late])
    assert code[0] > code[1]
    assert paper[0] < paper[1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 10)), min_size=1, max_size=9))
def test_concave_envelope_is_the_best_mixture_of_two_points(points):
    x, y = np.array(sorted(points, key=lambda point: point[0]), dtype=float).T
    hull_x, hull_y = concave_envelope(x, y)
    assert (np.diff(hull_x) > 0).all()
    for at in np.unique(x):
        best = y[x == at].max()
        for i, j in itertools.combinations(range(len(x)), 2):
            if x[i] < at < x[j]:
                best = max(best, y[i] + (y[j] - y[i]) * (at - x[i]) / (x[j] - x[i]))
        assert np.interp(at, hull_x, hull_y) == pytest.approx(best)


def test_cscr_metrics_by_hand():
    # λ grid [.05, .2, .5]: a reads (3.5, 1.0), (1.5, .7), (1, .2); b always (2, .6)
    g, quality = [[0.5, 0.55, 0.9], [0.2, 0.5, 0.65]], [[0.4, 0.0, 1.0], [0.0, 1.0, 0.0]]
    a = deferral_curve(g, quality, [1.0, 2.0, 5.0])
    b = deferral_curve([[0.5]], [[0.6]], [2.0])
    lambdas = [0.06, 0.2, 0.5]
    # grid of 6 costs 1, 1.5, ..., 3.5 meets every point: trapezoids .225 + 2 * .85 = 1.925; range 2.5
    assert audc_cscr({"a": a, "b": b}, lambdas, grid=6) == {"a": pytest.approx(0.77), "b": pytest.approx(0.6)}
    assert audc_cscr([b], lambdas) == [pytest.approx(0.6)]
    # grid of 2 costs sees the ends only
    assert audc_cscr([a], lambdas, grid=2) == [pytest.approx(0.6)]
    assert qnc_cscr(a, lambdas) == 3.5
    assert qnc_cscr(a, [0.2, 0.5]) == 1.5
    assert qnc_cscr(b) == 2.0
    assert len(CSCR_LAMBDAS) == 20
    np.testing.assert_allclose(CSCR_LAMBDAS[[0, -1]], [1e-4, 100])


def test_audc_depends_on_the_routers_compared():
    a, dear = staircase([(1, 0.2), (3, 0.8)]), staircase([(1, 0.1), (9, 0.9)])
    lambdas = [0, 1]
    assert audc_cscr([a], lambdas)[0] == pytest.approx(0.5)
    assert audc_cscr([a, dear], lambdas, grid=801)[0] == pytest.approx((2 * 0.5 + 6 * 0.8) / 8, abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.lists(problems(coarse=False), min_size=2, max_size=4))
def test_area_under_the_mean_curve_is_the_mean_of_areas(several):
    curves = [deferral_curve(g, np.where(np.isnan(q), 0.5, q), cost) for g, q, cost in several]
    mean = mean_curve(curves, 4001, left="flat")
    assert mean.area() == pytest.approx(np.mean([c.area(left="flat") for c in curves]), abs=2e-3)
    assert mean.n == len(curves)


def test_mean_curve_by_hand():
    a, b = staircase([(1, 0.2), (3, 0.8)]), staircase([(10, 0.4), (20, 0.6)])
    mean = mean_curve({"a": a, "b": b}, [0, 0.5, 1])
    np.testing.assert_allclose(mean.quality, [0.3, 0.5, 0.7])
    np.testing.assert_allclose(mean.error, [0.1, 0.0, 0.1], atol=1e-15)  # sd of two / sqrt 2 = half their distance
    assert np.isnan(mean_curve([a], 3).error).all()


# ---------------------------------------------------------------------------------------------------------------------
# Refusals
# ---------------------------------------------------------------------------------------------------------------------

G, Q, C = np.full((2, 3), 0.5), np.ones((2, 3)), np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("g", "q", "cost", "message"),
    [
        (G, Q, [1.0, np.nan, 3.0], r"cost of the model in column 1 is nan.*missing price"),
        (G, Q, [1.0, 2.0, -3.0], r"column 2 is -3"),
        (G, Q, [[1, 2, 3], [1, np.inf, 3]], r"column 1 on prompt 1 is inf"),
        (G, Q, [1.0, 2.0], r"cost has shape \(2,\)"),
        (G, Q[:1], C, r"quality has shape \(1, 3\)"),
        (G[0], Q[0], C, r"quality_hat has shape \(3,\)"),
        (G[:0], Q[:0], C, r"quality_hat has shape \(0, 3\)"),
        (np.vstack([G[0], [np.nan] * 3]), Q, C, r"prompt 1 is NaN for every model"),
        (np.where(np.eye(2, 3), np.inf, G), Q, C, r"quality_hat of the model in column 0 on prompt 0 is inf"),
        (G, np.where(np.eye(2, 3), -np.inf, Q), C, r"quality of the model in column 0 on prompt 0 is -inf"),
    ],
)
def test_impossible_input_is_refused_by_name(g, q, cost, message):
    with pytest.raises(UserError, match=message):
        deferral_curve(g, q, cost)


def test_impossible_questions_are_refused_by_name(two_prompts):
    curve = two_prompts
    refusals = {
        "budget is 0.5": lambda: curve.quality_at_budget(0.5),
        "budget is 0.9": lambda: curve.lambda_for_budget(0.9),
        "budget is nan": lambda: curve.lambda_for_budget(np.nan),
        "lam is -1": lambda: curve.at_lambda(-1),
        "lam is nan": lambda: curve.at_lambda([0, np.nan]),
        "interpolation is 'cubic'": lambda: curve.area("cubic"),
        "left is 'zero'": lambda: curve.area(left="zero"),
        "budgets is": lambda: curve.area(budgets=(3, 1)),
        "reference is": lambda: curve.qnc(reference=(np.nan, 1)),
        "quality is NaN": lambda: curve.budget_for_quality(np.nan),
        "curves is empty": lambda: aiq_code({}),
        "grid is 1": lambda: audc_cscr([curve], grid=1),
        "grid must hold": lambda: mean_curve([curve], [0.5, 0.5]),
    }
    for message, ask in refusals.items():
        with pytest.raises(UserError, match=message):
            ask()
