"""Tests and intervals against hand-worked values, naive recomputation, and their own promise of coverage."""

from __future__ import annotations

from math import comb, sqrt

import numpy as np
import pytest

from routebook.deferral import deferral_curve
from routebook.errors import UserError
from routebook.significance import (
    area_difference_bootstrap,
    area_differences_bootstrap,
    binomial_counts,
    bootstrap_interval,
    mcnemar,
    mean_interval,
    paired_bootstrap,
    sign_test,
)

NAN = np.nan


def test_560_of_926_one_sided():
    # CSCR, Table 16 prints 9.76e-11 for the discordant pairs 560/366
    result = binomial_counts(560, 366, "greater")
    tail = sum(comb(926, k) for k in range(560, 927)) / 2**926
    assert result.p_value == pytest.approx(tail, rel=1e-9)
    assert result.p_value == pytest.approx(9.757e-11, rel=1e-3)
    assert result.estimate == pytest.approx(560 / 926)
    assert result.n == 926


def test_mcnemar_uses_only_prompts_one_router_got_right():
    a = np.array([1] * 9 + [0] * 1 + [1] * 50 + [0] * 40 + [NAN, 1])
    b = np.array([0] * 9 + [1] * 1 + [1] * 50 + [0] * 40 + [1, NAN])
    two_sided = mcnemar(a, b)
    assert (two_sided.n, two_sided.estimate) == (10, 0.9)
    assert two_sided.p_value == pytest.approx(2 * 11 / 1024)
    assert mcnemar(a, b, "greater").p_value == pytest.approx(11 / 1024)
    assert mcnemar(b, a, "greater").p_value == pytest.approx(1023 / 1024)
    assert mcnemar(b, a, "less").p_value == pytest.approx(11 / 1024)
    # Clopper-Pearson bounds of 9 out of 10, from printed tables
    assert (two_sided.low, two_sided.high) == (pytest.approx(0.5550, abs=1e-4), pytest.approx(0.9975, abs=1e-4))
    assert mcnemar(a == 1, a == 1).p_value == 1.0
    assert np.isnan(mcnemar(a == 1, a == 1).estimate)


def test_mcnemar_refuses_soft_scores():
    with pytest.raises(UserError, match=r"correct_b holds 0\.5.*sign_test"):
        mcnemar([1, 0], [1, 0.5])


def test_sign_test_drops_ties():
    a, b = [3, 3, 3, 3, 1, 7, NAN], [1, 1, 1, 1, 1, 7, 0]
    result = sign_test(a, b, "greater")
    assert (result.n, result.estimate) == (4, 1.0)
    assert result.p_value == pytest.approx(1 / 16)
    assert sign_test(a, b).p_value == pytest.approx(1 / 8)
    assert sign_test(b, a, "greater").p_value == 1.0


def test_mean_interval_by_hand():
    # mean 3, sd sqrt(2.5), t(.975, 4) = 2.776445
    result = mean_interval([1, 2, 3, 4, 5])
    half = 2.776445 * sqrt(2.5 / 5)
    assert (result.estimate, result.n) == (3.0, 5)
    assert (result.low, result.high) == (pytest.approx(3 - half, abs=1e-5), pytest.approx(3 + half, abs=1e-5))
    assert mean_interval([1, 2, 3, 4, 5, NAN]) == result
    one = mean_interval([0.7])
    assert (one.estimate, one.n) == (0.7, 1)
    assert np.isnan([one.low, one.high]).all()


def test_mean_interval_of_trials_by_columns():
    values = np.array([[1.0, 5.0, NAN], [3.0, NAN, NAN]])
    result = mean_interval(values)
    np.testing.assert_array_equal(result.n, [2, 1, 0])
    np.testing.assert_allclose(result.estimate, [2, 5, NAN])
    np.testing.assert_allclose(result.high, [2 + 12.7062, NAN, NAN], rtol=1e-5)  # t(.975, 1), standard error 1
    np.testing.assert_allclose(mean_interval(values.T, axis=1).high, result.high)


def test_paired_bootstrap_of_the_mean_difference():
    rng = np.random.default_rng(5)
    difficulty = rng.normal(scale=10, size=400)  # shared by both routers: pairing removes it
    a, b = difficulty + rng.normal(0.5, 1, 400), difficulty + rng.normal(0, 1, 400)
    a[3], b[7] = NAN, NAN
    result = paired_bootstrap(a, b, seed=1)
    difference = (a - b)[~np.isnan(a - b)]
    assert result.n == 398
    assert result.estimate == pytest.approx(difference.mean())
    half = 1.96 * difference.std(ddof=1) / sqrt(398)
    assert result.low == pytest.approx(difference.mean() - half, abs=0.02)
    assert result.high == pytest.approx(difference.mean() + half, abs=0.02)
    assert result.p_value == pytest.approx(2 / 2001)
    assert paired_bootstrap(a, b, seed=1) == result
    assert paired_bootstrap(a, b, seed=2) != result
    assert paired_bootstrap(b, a, alternative="greater").p_value == 1.0
    assert paired_bootstrap(a, b, method="BCa").low == pytest.approx(result.low, abs=0.02)


def test_paired_bootstrap_takes_other_statistics():
    def median_difference(a, b, axis):
        return np.median(a - b, axis=axis)

    result = paired_bootstrap([1.0, 2, 3, 100], [1.0, 1, 1, 1], median_difference, n_resamples=200)
    assert result.estimate == 1.5
    assert "median_difference" in result.method
    assert 0 <= result.low <= 1.5 <= result.high <= 99


def test_no_difference_is_not_significant():
    same = paired_bootstrap([1, 0, 1], [1, 0, 1], n_resamples=100)
    assert (same.estimate, same.low, same.high, same.p_value) == (0, 0, 0, 1.0)
    single = paired_bootstrap([1.0], [0.0])
    assert (single.estimate, single.p_value, single.n) == (1.0, 1.0, 1)
    assert np.isnan(single.low)


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(8)
    trials, hits_t, hits_boot, hits_pair = 300, 0, 0, 0
    for i in range(trials):
        x = rng.normal(2.0, 1.0, 40)
        y = x - rng.normal(0.3, 1.0, 40)
        t = mean_interval(x, confidence=0.9)
        boot = bootstrap_interval(x, n_resamples=300, seed=i, confidence=0.9)
        pair = paired_bootstrap(x, y, n_resamples=300, seed=i, confidence=0.9)
        hits_t += t.low <= 2.0 <= t.high
        hits_boot += boot.low <= 2.0 <= boot.high
        hits_pair += pair.low <= 0.3 <= pair.high
    # 90% of 300 with binomial noise of 3.5 standard errors; the percentile bootstrap is known to be a little short
    for hits in (hits_t, hits_boot, hits_pair):
        assert 0.83 <= hits / trials <= 0.96


def test_bootstrap_interval_of_a_median():
    result = bootstrap_interval([5.0, 1, 2, 3, 4, NAN], "median", n_resamples=500)
    assert (result.estimate, result.n) == (3.0, 5)
    assert 1 <= result.low <= 3 <= result.high <= 5


@pytest.fixture(scope="module")
def two_routers():
    rng = np.random.default_rng(11)
    n, m = 250, 5
    skill = rng.random((n, m))
    quality = (rng.random((n, m)) < skill).astype(float)
    quality[rng.random((n, m)) < 0.1] = NAN
    cost = rng.exponential(size=(n, m)) * np.arange(1, m + 1)
    good, bad = skill + rng.normal(scale=0.1, size=(n, m)), rng.random((n, m))
    return good, bad, quality, cost


@pytest.mark.parametrize("per_prompt", [True, False])
@pytest.mark.parametrize("interpolation", ["linear", "step"])
def test_area_difference_equals_routing_every_resample_anew(two_routers, per_prompt, interpolation):
    good, bad, quality, cost = two_routers
    cost = cost if per_prompt else cost.mean(axis=0)
    options = {"interpolation": interpolation, "left": "flat"}
    result = area_difference_bootstrap(good, bad, quality, cost, n_resamples=40, seed=4, **options)

    def area(estimates, rows):
        paid = cost[rows] if per_prompt else cost
        return deferral_curve(estimates[rows], quality[rows], paid).area(**options)

    rng = np.random.default_rng(4)
    n = len(quality)
    draws = [rng.integers(0, n, n) for _ in range(40)]
    naive = np.array([area(good, rows) - area(bad, rows) for rows in draws])
    assert result.estimate == pytest.approx(area(good, np.arange(n)) - area(bad, np.arange(n)), abs=1e-12)
    np.testing.assert_allclose([result.low, result.high], np.quantile(naive, [0.025, 0.975]), atol=1e-10)
    assert result.n == n


def test_area_difference_with_bills_equals_routing_every_resample_anew(two_routers):
    good, bad, quality, cost = two_routers
    price = cost.mean(axis=0)
    result = area_difference_bootstrap(good, bad, quality, price, paid=cost, n_resamples=30, seed=4, left="flat")

    def area(estimates, rows):
        return deferral_curve(estimates[rows], quality[rows], price, paid=cost[rows]).area(left="flat")

    rng = np.random.default_rng(4)
    n = len(quality)
    draws = [rng.integers(0, n, n) for _ in range(30)]
    naive = np.array([area(good, rows) - area(bad, rows) for rows in draws])
    assert result.estimate == pytest.approx(area(good, np.arange(n)) - area(bad, np.arange(n)), abs=1e-12)
    np.testing.assert_allclose([result.low, result.high], np.quantile(naive, [0.025, 0.975]), atol=1e-10)


def test_area_difference_finds_the_better_router(two_routers):
    good, bad, quality, cost = two_routers
    better = area_difference_bootstrap(good, bad, quality, cost, n_resamples=200, alternative="greater")
    assert better.low > 0
    assert better.p_value == pytest.approx(1 / 201)
    swapped = area_difference_bootstrap(bad, good, quality, cost, n_resamples=200, alternative="greater")
    assert swapped.estimate == -better.estimate
    assert (swapped.low, swapped.high) == (pytest.approx(-better.high), pytest.approx(-better.low))
    same = area_difference_bootstrap(good, good, quality, cost, n_resamples=50)
    assert (same.estimate, same.low, same.high, same.p_value) == (0, 0, 0, 1.0)


def test_rivals_are_compared_on_the_resamples_that_each_alone_would_get(two_routers):
    good, bad, quality, cost = two_routers
    rivals = {"bad": bad, "mean": (good + bad) / 2}
    options = {"n_resamples": 70, "seed": 5, "left": "flat", "alternative": "greater"}
    found = area_differences_bootstrap(good, rivals, quality, cost, **options)
    alone = {name: area_difference_bootstrap(good, rival, quality, cost, **options) for name, rival in rivals.items()}
    assert found == alone


def test_undefined_area_is_refused():
    g = np.array([[NAN, 0.5], [NAN, 0.5]])
    with pytest.raises(UserError, match="left='flat'"):
        area_difference_bootstrap(g, g, np.ones((2, 2)), [1.0, 2.0])


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: paired_bootstrap([1, 2], [1]), r"shapes \(2,\) and \(1,\)"),
        (lambda: paired_bootstrap([1, NAN], [NAN, 1]), "no pair"),
        (lambda: paired_bootstrap([1, 2], [1, 3], "mode"), "statistic is 'mode'"),
        (lambda: paired_bootstrap([1, 2], [1, 3], n_resamples=0), "n_resamples is 0"),
        (lambda: paired_bootstrap([1, 2], [1, 3], alternative="bigger"), "alternative is 'bigger'"),
        (lambda: mean_interval([1, 2], confidence=95), "confidence is 95"),
        (lambda: mean_interval(3.0), "single number"),
        (lambda: bootstrap_interval([NAN]), "no value"),
        (lambda: bootstrap_interval([[1.0]]), "one dimension"),
        (lambda: bootstrap_interval([1.0], "mode"), "statistic is 'mode'"),
        (lambda: binomial_counts(-1, 2), "-1 and 2"),
    ],
)
def test_refusals_name_the_parameter(ask, message):
    with pytest.raises(UserError, match=message):
        ask()
