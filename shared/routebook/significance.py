"""Is the difference real? Paired tests over prompts, intervals over prompts, trials and seeds.

Routers answer the same prompts, so differences are paired. Everything random takes a seed: same seed, same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from routebook.deferral import Interpolation, LeftEnd, routing_path
from routebook.errors import UserError
from routebook.progress import progress

Alternative = Literal["two-sided", "greater", "less"]
_BATCH_CELLS = 2_000_000
# Resamples drawn at a time.
_AT_ONCE = 64


@dataclass(frozen=True)
class Estimate:
    """An estimate with its confidence interval.

    Attributes
    ----------
    estimate, low, high : float, or ndarray where `mean_interval` was given several columns
        NaN bounds: the data cannot bound the estimate (one trial, no untied pair).
    n : int, or ndarray of int
        Number of observations the estimate rests on.
    method : str
        What was computed, in words for a table's caption.
    confidence : float
        Of the interval.
    p_value : float or None
        Where the method is a test.
    """

    estimate: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray
    n: int | np.ndarray
    method: str
    confidence: float = 0.95
    p_value: float | None = None


def _check_options(confidence: float, n_resamples: int = 1, alternative: str = "two-sided") -> None:
    if not 0 < confidence < 1:
        raise UserError(f"confidence is {confidence:g}, expected a number between 0 and 1, e.g. 0.95")
    if n_resamples < 1:
        raise UserError(f"n_resamples is {n_resamples}, expected at least 1, e.g. 2000")
    if alternative not in ("two-sided", "greater", "less"):
        raise UserError(f"alternative is {alternative!r}, expected 'two-sided', 'greater' or 'less'")


def _observed_pairs(a, b) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs in which both values were observed (not NaN), as float arrays [n]."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.ndim != 1 or a.shape != b.shape:
        raise UserError(f"paired values have shapes {a.shape} and {b.shape}, expected two of the same length, [n]")
    both = ~(np.isnan(a) | np.isnan(b))
    if not both.any():
        raise UserError("no pair has both values observed, expected at least one")
    return a[both], b[both]


def _tail_p_value(differences: np.ndarray, alternative: Alternative) -> float:
    """Share of resampled differences on the wrong side of zero, counting the sample itself once.

    Adding one to both counts keeps p above 0: with B resamples no p below 1 / (B + 1) can be claimed.
    """
    below = (1 + np.count_nonzero(differences <= 0)) / (len(differences) + 1)
    above = (1 + np.count_nonzero(differences >= 0)) / (len(differences) + 1)
    return float({"greater": below, "less": above, "two-sided": min(1.0, 2 * min(below, above))}[alternative])


def _mean_difference(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.mean(a - b, axis=axis)


def _scipy_bootstrap(samples: tuple[np.ndarray, ...], statistic: Callable, n_resamples: int, seed: int, **options):
    """Run scipy's bootstrap in batches that bound its memory; return (low, high, resampled statistics)."""
    from scipy.stats import bootstrap

    if len(samples[0]) < 2:
        return np.nan, np.nan, np.empty(0)
    result = bootstrap(
        samples,
        statistic,
        n_resamples=n_resamples,
        batch=max(1, _BATCH_CELLS // len(samples[0])),
        vectorized=True,
        rng=np.random.default_rng(seed),
        **options,
    )
    interval = result.confidence_interval
    return float(interval.low), float(interval.high), result.bootstrap_distribution


def paired_bootstrap(
    a,
    b,
    statistic: str | Callable[..., np.ndarray] = "mean difference",
    n_resamples: int = 2000,
    seed: int = 0,
    *,
    confidence: float = 0.95,
    alternative: Alternative = "two-sided",
    method: Literal["percentile", "basic", "BCa"] = "percentile",
) -> Estimate:
    """Bootstrap a difference between two routers over the prompts both answered (Efron; as CSCR, Appendix D.6).

    Parameters
    ----------
    a, b : array_like, [n]
        One value a prompt and router; a pair with a NaN is left out.
    statistic : "mean difference" or callable
        A callable takes ``(a, b, axis)`` and returns the statistic along `axis`, zero meaning "no difference".
    n_resamples, seed : int
    confidence : float
        Of the two-sided interval.
    alternative : {"two-sided", "greater", "less"}
        Of the p-value: "greater" asks whether a beats b. It is the share of resampled differences on the wrong side
        of zero.
    method : {"percentile", "basic", "BCa"}
        Kind of interval (``scipy.stats.bootstrap``).

    Returns
    -------
    Estimate
        NaN bounds and p-value 1 for a single pair.
    """
    _check_options(confidence, n_resamples, alternative)
    if isinstance(statistic, str) and statistic != "mean difference":
        raise UserError(f"statistic is {statistic!r}, expected 'mean difference' or a function of (a, b, axis)")
    a, b = _observed_pairs(a, b)
    compute = _mean_difference if isinstance(statistic, str) else statistic
    low, high, resampled = _scipy_bootstrap(
        (a, b), compute, n_resamples, seed, paired=True, confidence_level=confidence, method=method
    )
    name = statistic if isinstance(statistic, str) else getattr(statistic, "__name__", "statistic")
    return Estimate(
        estimate=float(compute(a, b, axis=-1)),
        low=low,
        high=high,
        n=len(a),
        method=f"paired bootstrap over prompts of the {name} ({method}, {n_resamples} resamples)",
        confidence=confidence,
        p_value=_tail_p_value(resampled, alternative),
    )


def bootstrap_interval(
    values,
    statistic: str | Callable[..., np.ndarray] = "mean",
    n_resamples: int = 2000,
    seed: int = 0,
    *,
    confidence: float = 0.95,
    method: Literal["percentile", "basic", "BCa"] = "percentile",
) -> Estimate:
    """Bootstrap one statistic of one sample, e.g. a router's mean quality over prompts.

    Parameters
    ----------
    values : array_like, [n]
        NaN is left out.
    statistic : "mean", "median" or callable
        A callable takes ``(values, axis)``.

    Returns
    -------
    Estimate
        NaN bounds for a single value.
    """
    _check_options(confidence, n_resamples)
    known = {"mean": np.mean, "median": np.median}
    if isinstance(statistic, str) and statistic not in known:
        raise UserError(f"statistic is {statistic!r}, expected 'mean', 'median' or a function of (values, axis)")
    compute = known[statistic] if isinstance(statistic, str) else statistic
    values = _observed(values)
    low, high, _ = _scipy_bootstrap((values,), compute, n_resamples, seed, confidence_level=confidence, method=method)
    name = statistic if isinstance(statistic, str) else getattr(statistic, "__name__", "statistic")
    return Estimate(
        estimate=float(compute(values, axis=-1)),
        low=low,
        high=high,
        n=len(values),
        method=f"bootstrap of the {name} ({method}, {n_resamples} resamples)",
        confidence=confidence,
    )


def _observed(values) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1:
        raise UserError(f"values have shape {values.shape}, expected one dimension, [n]")
    values = values[~np.isnan(values)]
    if len(values) == 0:
        raise UserError("no value was observed, expected at least one that is not NaN")
    return values


def binomial_counts(
    wins: int, losses: int, alternative: Alternative = "two-sided", *, confidence: float = 0.95
) -> Estimate:
    """Test exactly whether wins and losses are equally likely (binomial test, Clopper-Pearson interval).

    Use it on counts a paper prints, e.g. the discordant pairs 560/366 of CSCR's Table 16.

    Returns
    -------
    Estimate
        `estimate` is the share of wins, two-sided bounds around it; without any win or loss NaN, with p-value 1.
    """
    from scipy.stats import binomtest

    _check_options(confidence, alternative=alternative)
    if wins < 0 or losses < 0:
        raise UserError(f"wins and losses are {wins} and {losses}, expected counts >= 0")
    n, method = int(wins + losses), "exact binomial test"
    if n == 0:
        return Estimate(np.nan, np.nan, np.nan, 0, method, confidence, p_value=1.0)
    p_value = binomtest(int(wins), n, 0.5, alternative=alternative).pvalue
    interval = binomtest(int(wins), n, 0.5).proportion_ci(confidence, method="exact")
    return Estimate(wins / n, float(interval.low), float(interval.high), n, method, confidence, p_value=float(p_value))


def mcnemar(correct_a, correct_b, alternative: Alternative = "two-sided", *, confidence: float = 0.95) -> Estimate:
    """Compare two routers' correctness by McNemar's exact test on the prompts that only one of them got right.

    Parameters
    ----------
    correct_a, correct_b : array_like of bool or 0/1, [n]
        NaN = not observed; the pair is left out.
    alternative : {"two-sided", "greater", "less"}
        "greater" asks whether a beats b (CSCR, Table 16, is one-sided).

    Returns
    -------
    Estimate
        `estimate` is the share of the `n` discordant pairs that a alone got right.

    Raises
    ------
    UserError
        When a value is neither 0 nor 1: soft scores have no "correct"; use `sign_test` or `paired_bootstrap`.
    """
    a, b = _observed_pairs(correct_a, correct_b)
    for name, values in (("correct_a", a), ("correct_b", b)):
        soft = (values != 0) & (values != 1)
        if soft.any():
            raise UserError(
                f"{name} holds {values[soft][0]:g}, expected 0 or 1; for soft scores use sign_test or paired_bootstrap"
            )
    result = binomial_counts(int((a > b).sum()), int((a < b).sum()), alternative, confidence=confidence)
    return _renamed(result, "McNemar's test, exact (binomial on discordant pairs)")


def sign_test(a, b, alternative: Alternative = "two-sided", *, confidence: float = 0.95) -> Estimate:
    """Sign test on paired values, ties dropped, as UniRoute's stars (Appendix G.2: sign test over 400 trials).

    The test takes pairs for independent. Random splits of one dataset overlap, so trials are not: its p-values over
    trials are too small, and shrink at will with the number of trials. Prompts of one test set are independent.

    Parameters
    ----------
    a, b : array_like, [n]
        A pair with a NaN is left out.
    alternative : {"two-sided", "greater", "less"}
        "greater" asks whether a tends to exceed b.

    Returns
    -------
    Estimate
        `estimate` is the share of the `n` untied pairs in which a is larger.
    """
    a, b = _observed_pairs(a, b)
    result = binomial_counts(int((a > b).sum()), int((a < b).sum()), alternative, confidence=confidence)
    return _renamed(result, "sign test (ties dropped)")


def _renamed(result: Estimate, method: str) -> Estimate:
    return replace(result, method=method)


def mean_interval(values, confidence: float = 0.95, axis: int = 0) -> Estimate:
    """Mean over trials or seeds with Student's t interval.

    Parameters
    ----------
    values : array_like
        Trials along `axis`; NaN = this trial has no value, and is left out.
    confidence : float
    axis : int

    Returns
    -------
    Estimate
        Floats for one-dimensional `values`, otherwise arrays with `axis` removed. One trial has no spread: its bounds
        are NaN. Infinite values (a QNC never reached) make the mean infinite and the bounds NaN.
    """
    from scipy.stats import t

    _check_options(confidence)
    values = np.asarray(values, dtype=float)
    if values.ndim == 0:
        raise UserError("values is a single number, expected one value a trial")
    seen = ~np.isnan(values)
    n = seen.sum(axis=axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(seen, values, 0).sum(axis=axis) / n
        squares = np.where(seen, (values - np.expand_dims(mean, axis)) ** 2, 0).sum(axis=axis)
        half = t.ppf((1 + confidence) / 2, n - 1) * np.sqrt(squares / (n - 1) / n)
    half = np.where(n > 1, half, np.nan)
    method = "mean with Student's t interval"
    if values.ndim == 1:
        return Estimate(float(mean), float(mean - half), float(mean + half), int(n), method, confidence)
    return Estimate(mean, mean - half, mean + half, n, method, confidence)


def area_difference_bootstrap(quality_hat_a, quality_hat_b, quality, cost, **options) -> Estimate:
    """Return `area_differences_bootstrap` between two routers.

    Parameters
    ----------
    quality_hat_a, quality_hat_b : array_like, [N, M]
        The two routers' estimates on the same prompts and pool.
    quality : array_like, [N, M]
    cost : array_like, [M] or [N, M]
    options
        The other parameters of `area_differences_bootstrap`, whose errors these are.

    Returns
    -------
    Estimate
        `estimate` is area(a) - area(b) on all prompts, in units of quality.
    """
    return area_differences_bootstrap(quality_hat_a, {"b": quality_hat_b}, quality, cost, **options)["b"]


def area_differences_bootstrap(
    quality_hat,
    rivals: Mapping[str, np.ndarray],
    quality,
    cost,
    *,
    paid=None,
    n_resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    alternative: Alternative = "two-sided",
    interpolation: Interpolation = "linear",
    left: LeftEnd = "nan",
) -> dict[str, Estimate]:
    """Bootstrap over prompts the difference in area between a router and each of several (CSCR's Table 16).

    All on the same resamples. A prompt's route does not depend on which other prompts are drawn, so no resample routes
    anything again: the breakpoints are found once and each resample re-weights them.

    Parameters
    ----------
    quality_hat : array_like, [N, M]
        The router's estimates.
    rivals : mapping of str to array_like, [N, M]
        The others' by name, on the same prompts and pool.
    quality : array_like, [N, M]
    cost : array_like, [M] or [N, M]
    paid : array_like, [M] or [N, M], optional
        Bills that differ from the prices `cost`, as in `routebook.deferral.deferral_curve`.
    n_resamples, seed : int
    confidence : float
        Of the two-sided percentile interval.
    alternative : {"two-sided", "greater", "less"}
        Of the p-value: "greater" asks whether the router has the larger area.
    interpolation, left
        As in `routebook.deferral.DeferralCurve.area`.

    Returns
    -------
    dict of Estimate
        By rival; `estimate` is the router's area less the rival's on all prompts, in units of quality.

    Raises
    ------
    UserError
        As `routebook.deferral.deferral_curve`; and when an area is undefined, on all prompts or on a resample.
    """
    _check_options(confidence, n_resamples, alternative)
    ours = routing_path(quality_hat, quality, cost, paid)
    paths = [routing_path(estimates, quality, cost, paid) for estimates in rivals.values()]
    n, rng = len(ours.quality), np.random.default_rng(seed)
    resampled = np.empty((len(paths), n_resamples + 1))
    for start in progress(range(0, n_resamples + 1, _AT_ONCE), label="bootstrap", unit="batch"):
        stop = min(start + _AT_ONCE, n_resamples + 1)
        # The first is no resample but all prompts.
        drawn = [np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(max(start, 1), stop)]
        counts = np.array(([] if start else [np.ones(n)]) + drawn, dtype=float)
        area = ours.areas(counts, interpolation, left)
        for differences, path in zip(resampled, paths, strict=True):
            differences[start:stop] = area - path.areas(counts, interpolation, left)
    if np.isnan(resampled).any():
        raise UserError(
            "a router's area is undefined: its cheapest operating point costs more than the pool's cheapest model, or "
            "no routed answer was observed; pass left='flat' to extend its curve to the left"
        )
    return {
        rival: _of_resamples(differences[0], differences[1:], n, confidence, alternative)
        for rival, differences in zip(rivals, resampled, strict=True)
    }


def _of_resamples(
    estimate: float, differences: np.ndarray, n: int, confidence: float, alternative: Alternative
) -> Estimate:
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(
        estimate=float(estimate),
        low=float(low),
        high=float(high),
        n=n,
        method=f"paired bootstrap over prompts of the difference in area (percentile, {len(differences)} resamples)",
        confidence=confidence,
        p_value=_tail_p_value(differences, alternative),
    )
