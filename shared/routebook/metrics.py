"""Every metric by which routing papers judge a router, under one roof, each as its source defines or codes it.

What can be read off one deferral curve, and RouterBench's and CSCR's metrics of several, live in `routebook.deferral`.
Here are RouteLLM's two, which know two models and count calls instead of money; the scores at one trade-off of
RadialRouter and SemiRouter; CSCR's area without its grids; and `METRICS`, all of them with what each one answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from routebook.deferral import (
    CSCR_LAMBDAS,
    DeferralCurve,
    aiq_code,
    aiq_paper,
    audc_cscr,
    deferral_curve,
    qnc_cscr,
)
from routebook.errors import UserError

Values = dict[str, float]
RADIALROUTER_DEAREST = 7.185
"""RadialRouter, Table 7: what GPT-4, the dearest LLM, costs there; its unit is dollars per 1,000 prompts."""
CSCR_DEAREST = 0.0083 * 200
"""What GPT-4 costs in CSCR's code on RouterBench; its grid of λ goes with that unit."""
Spacing = Literal["linear", "linear to 1/c", "log"]
SEMIROUTER_WEIGHT = 0.6


# ---------------------------------------------------------------------------------------------------------------------
# Two models, counted in calls (RouteLLM)
# ---------------------------------------------------------------------------------------------------------------------


def call_share_curve(quality_hat, quality, weak: int, strong: int) -> DeferralCurve:
    """Return quality against the share of calls to the strong one of two models (RouteLLM).

    A router of RouteLLM asks the strong model where its win probability reaches a threshold, and every threshold is
    tried. Here the margin of the two estimates takes the place of that probability, so that the curve runs from no
    strong call to strong calls alone.

    Parameters
    ----------
    quality_hat, quality : array_like, [N, M]
        NaN in an estimate = never routed there.
    weak, strong : int
        Columns.

    Returns
    -------
    DeferralCurve
        Of a pool of two, weak then strong; its cost is the share of strong calls.

    Raises
    ------
    UserError
        When the two columns are one, or as `routebook.deferral.deferral_curve`.
    """
    if weak == strong:
        raise UserError(f"weak and strong are both column {weak}, expected two models")
    pair = np.asarray(quality_hat, dtype=float)[:, [weak, strong]]
    margin = pair[:, 1] - pair[:, 0]
    both = ~np.isnan(margin)
    # Shifted so that the strong model leads everywhere at λ = 0: thresholds below 0 are tried as well.
    lifted = np.where(np.isnan(pair), np.nan, 0.0)
    if both.any():
        lifted[both, 1] = margin[both] - margin[both].min() + 1
    return deferral_curve(lifted, np.asarray(quality, dtype=float)[:, [weak, strong]], np.array([0.0, 1.0]))


def _gap(curve: DeferralCurve) -> tuple[float, float]:
    """Quality of the weak model, and what the strong one adds; NaN where it adds nothing to recover."""
    weak, strong = curve.model_quality
    return float(weak), float(strong - weak) if strong > weak else float("nan")


def apgr(curve: DeferralCurve) -> float:
    """Return RouteLLM's average performance gap recovered (APGR) of a `call_share_curve`.

    The performance gap recovered at a share of strong calls is (quality - weak) / (strong - weak); APGR is its mean
    over all shares from 0 to 1. RouteLLM's code (``evals/evaluate.py``) takes trapezoids between the thresholds it
    tried, ten by default, over the shares these span; this is the exact area over all of them. A router that draws at
    random has 0.5.

    Returns
    -------
    float
        NaN where the strong model is no better than the weak one, or the router cannot reach every share.
    """
    weak, gap = _gap(curve)
    return (curve.area() - weak) / gap


def call_performance_threshold(curve: DeferralCurve, recovered: float = 0.5) -> float:
    """Return RouteLLM's CPT of a `call_share_curve`: the least share of strong calls that recovers so much of the gap.

    Parameters
    ----------
    curve
    recovered : float
        Share of the gap in quality between the two models; RouteLLM prints 0.5 and 0.8.

    Returns
    -------
    float
        From 0 to 1; inf where it is never recovered, NaN where there is no gap.
    """
    if not 0 <= recovered <= 1:
        raise UserError(f"recovered is {recovered:g}, expected a share from 0 to 1, e.g. 0.5")
    weak, gap = _gap(curve)
    return float("nan") if np.isnan(gap) else curve.budget_for_quality(weak + recovered * gap)


# ---------------------------------------------------------------------------------------------------------------------
# One trade-off (RadialRouter, SemiRouter)
# ---------------------------------------------------------------------------------------------------------------------


def score_at(curve: DeferralCurve, alpha: float) -> float:
    """Return RadialRouter's score (Eq. 7), quality - α cost, of the router that routes at λ = α.

    α is in units of quality per unit of the curve's cost; the paper's 0, 0.02 and 0.1 go with dollars per 1,000
    prompts. RadialRouter trains a network for each α; a router with a curve is read at that λ.
    """
    cost, quality = curve.at_lambda(alpha)
    return quality - alpha * cost


def score_semirouter(curve: DeferralCurve, weight: float = SEMIROUTER_WEIGHT) -> float:
    """Return SemiRouter's score (Eq. 10), weight x quality - cost, of the router that maximises it.

    With quality as a share, where the paper has percent, and the mean cost of a prompt. It is `weight` times the score
    at α = 1 / weight, so it ranks routers as that score does.
    """
    if not 0 < weight < np.inf:
        raise UserError(f"weight is {weight:g}, expected a number above 0")
    return weight * score_at(curve, 1 / weight)


# ---------------------------------------------------------------------------------------------------------------------
# CSCR's area without its grids
# ---------------------------------------------------------------------------------------------------------------------


def audc_exact(curves: Mapping[str, DeferralCurve]) -> Values:
    """Return what CSCR's AUDC tends to as its grids of λ and of cost grow finer.

    The area under each exact curve over the pooled range of costs of all routers compared, held flat beyond a
    router's own ends, divided by that range. Where the range has no length, the best quality.
    """
    low = min(curve.points[0][0] for curve in curves.values())
    high = max(curve.points[0][-1] for curve in curves.values())
    return {name: curve.area(left="flat", budgets=(low, high)) for name, curve in curves.items()}


# ---------------------------------------------------------------------------------------------------------------------
# A grid of λ in place of all of them
# ---------------------------------------------------------------------------------------------------------------------


def lambda_grid(curve: DeferralCurve, size: int, spacing: Spacing) -> np.ndarray:
    """Return a grid of λ for a curve, ascending, [size].

    Parameters
    ----------
    curve
    size : int
        At least 2.
    spacing : {"linear", "linear to 1/c", "log"}
        "linear": from 0 to the last λ at which anything changes, equally spaced. "linear to 1/c": from 0 to
        1 / (cost of the dearest model), from where that model would have to be a whole unit of quality better. "log":
        0, then equal ratios from the first λ at which anything changes to the last. Knowing the first or last change
        is an advantage that nobody has who does not find them all.

    Raises
    ------
    UserError
        For an unknown spacing or a size below 2.
    """
    if size < 2:
        raise UserError(f"size is {size}, expected at least 2 trade-offs")
    changes = curve.lam[1:]
    if spacing == "linear to 1/c":
        return np.linspace(0, 1 / curve.model_cost.max(), size)
    if spacing not in ("linear", "log"):
        raise UserError(f"spacing is {spacing!r}, expected 'linear', 'linear to 1/c' or 'log'")
    if len(changes) == 0:
        return np.zeros(size)
    if spacing == "linear":
        return np.linspace(0, changes[-1], size)
    return np.concatenate(([0], np.geomspace(changes[0], changes[-1], size - 1)))


def on_grid(curve: DeferralCurve, lambdas) -> DeferralCurve:
    """Return the curve as someone sees it who tries only these λ, ascending from 0."""
    lambdas = np.unique(np.asarray(lambdas, dtype=float))
    if len(lambdas) == 0 or lambdas[0] != 0:
        raise UserError("lambdas must begin with 0, where cost does not count")
    piece = np.searchsorted(curve.lam, lambdas, side="right") - 1
    kept = {name: getattr(curve, name)[piece] for name in ("cost", "quality", "observed")}
    return replace(curve, lam=lambdas, **kept)


# ---------------------------------------------------------------------------------------------------------------------
# All of them
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """All that a metric may look at: the routers compared, on the same prompts.

    Attributes
    ----------
    curves : mapping of str to DeferralCurve
        On the whole pool; costs in the pool's own unit.
    two_models : mapping of str to DeferralCurve
        `call_share_curve` of the same routers; a router that is not in it has no such curve.
    dollars : float
        What one unit of cost counts in RadialRouter's unit, dollars per 1,000 prompts.
    """

    curves: Mapping[str, DeferralCurve]
    two_models: Mapping[str, DeferralCurve]
    dollars: float

    @property
    def cscr_lambdas(self) -> np.ndarray:
        """CSCR's 20 values of λ, brought to the scale of the pool's costs, [20]."""
        dearest = max(curve.model_cost.max() for curve in self.curves.values())
        return CSCR_LAMBDAS * (CSCR_DEAREST / dearest)

    def each(self, read: Callable[[DeferralCurve], float]) -> Values:
        """Read a number off every curve."""
        return {name: float(read(curve)) for name, curve in self.curves.items()}

    def each_pair(self, read: Callable[[DeferralCurve], float]) -> Values:
        """Read a number off every two-model curve; NaN for routers without one."""
        found = {name: float(read(curve)) for name, curve in self.two_models.items()}
        return {name: found.get(name, float("nan")) for name in self.curves}


@dataclass(frozen=True)
class Metric:
    """A way of judging routers.

    Attributes
    ----------
    label : str
        Name in tables and figures.
    source : str
        Where it is defined.
    question : str
        What it answers.
    read : callable
        `Judged` to one value a router.
    lower_is_better : bool
    company : bool
        Whether a router's value depends on which other routers are compared.
    """

    label: str
    source: str
    question: str
    read: Callable[[Judged], Values]
    lower_is_better: bool = False
    company: bool = False


def area(curve: DeferralCurve) -> float:
    """Return UniRoute's area of a curve; NaN for a single operating point, which no budget can move.

    A router that cannot ask a model everywhere (the oracle where an answer was not observed) may not reach the
    smallest budgets; its curve is extended flat to them.
    """
    return curve.area(left="flat") if len(curve) > 1 else float("nan")


def _step_area(curve: DeferralCurve) -> float:
    return curve.area(interpolation="step", left="flat") if len(curve) > 1 else float("nan")


def _score(alpha: float) -> Callable[[Judged], Values]:
    return lambda judged: judged.each(lambda curve: score_at(curve, alpha * judged.dollars))


METRICS: dict[str, Metric] = {
    "area": Metric(
        "Area",
        "UniRoute, Section 6 and F.2",
        "How good is it on average over all budgets the pool allows?",
        lambda judged: judged.each(area),
    ),
    "area-step": Metric(
        "Area, one λ",
        "UniRoute's Area without mixing two λ",
        "The same, for someone who must set a single λ",
        lambda judged: judged.each(_step_area),
    ),
    "audc-code": Metric(
        "AUDC, as coded",
        "CSCR's public code",
        "How good is it on average over the costs that the routers compared happen to have, on 20 values of λ?",
        lambda judged: audc_cscr(judged.curves, judged.cscr_lambdas),
        company=True,
    ),
    "audc-exact": Metric(
        "AUDC, exact",
        "CSCR's definition, all λ",
        "The same, for every λ there is",
        lambda judged: audc_exact(judged.curves),
        company=True,
    ),
    "aiq-paper": Metric(
        "AIQ, as printed",
        "RouterBench's paper",
        "How good is its concave hull on average over the costs of the routers compared?",
        lambda judged: aiq_paper(judged.curves),
        company=True,
    ),
    "aiq-code": Metric(
        "AIQ, as coded",
        "RouterBench's public code",
        "The same from cost 0, where what a router cannot do counts as quality 0",
        lambda judged: aiq_code(judged.curves),
        company=True,
    ),
    "apgr": Metric(
        "APGR",
        "RouteLLM",
        "Between one weak and one strong model: how much of the gap does it recover, averaged over shares of calls?",
        lambda judged: judged.each_pair(apgr),
    ),
    "cpt-50": Metric(
        "CPT(50%)",
        "RouteLLM",
        "Between two models: what share of strong calls recovers half the gap?",
        lambda judged: judged.each_pair(call_performance_threshold),
        lower_is_better=True,
    ),
    "qnc": Metric(
        "QNC",
        "UniRoute, Section 6",
        "What does the best single model's quality cost, relative to that model?",
        lambda judged: judged.each(lambda curve: curve.qnc()),
        lower_is_better=True,
    ),
    "qnc-code": Metric(
        "QNC, CSCR's code",
        "CSCR's public code",
        "What does the router spend at its own best, on 20 values of λ?",
        lambda judged: judged.each(lambda curve: qnc_cscr(curve, judged.cscr_lambdas)),
        lower_is_better=True,
    ),
    "peak": Metric(
        "Peak",
        "CSCR, Table 1",
        "How good is it if money does not matter?",
        lambda judged: judged.each(lambda curve: curve.peak),
    ),
    "cost-at-peak": Metric(
        "Cost at peak",
        "CSCR, Tables 9 to 12",
        "What does it spend at its own best?",
        lambda judged: judged.each(lambda curve: curve.cost_at_peak),
        lower_is_better=True,
    ),
    "score-0": Metric(
        "Score, α = 0",
        "RadialRouter, Eq. 7, Performance First",
        "How good is it if its own estimates decide and money does not matter?",
        _score(0.0),
    ),
    "score-0.02": Metric(
        "Score, α = 0.02",
        "RadialRouter, Eq. 7, Balance",
        "What is it worth at one exchange rate between quality and money?",
        _score(0.02),
    ),
    "score-0.1": Metric(
        "Score, α = 0.1",
        "RadialRouter, Eq. 7, Cost First",
        "The same, where money counts five times as much",
        _score(0.1),
    ),
    "score-semirouter": Metric(
        "Score, Eq. 10",
        "SemiRouter, Eq. 10, costs in dollars a prompt",
        "What is it worth where a dollar a prompt equals 60 points of quality?",
        lambda judged: judged.each(
            lambda curve: score_semirouter(
                replace(curve, lam=curve.lam * 1000 / judged.dollars, cost=curve.cost * judged.dollars / 1000)
            )
        ),
    ),
}
"""Every metric, by key."""
