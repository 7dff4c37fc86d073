"""The exact deferral curve of a router, and every metric the four papers read off one.

A router that estimates quality ``g`` and pays ``c`` sends prompt n, at trade-off λ, to ``argmax_m g[n, m] - λ c[n, m]``
(UniRoute, Eq. 6 and Proposition 1). As λ grows from 0 the choice moves down the upper envelope of M lines, so the
whole trade-off is a staircase with finitely many steps. Here every step of every prompt is found, so nothing depends
on a grid of λ.

The same name means different numbers in different papers; each reading is a function of its own:

=============================  =====================================================================================
`DeferralCurve.area`           UniRoute, Section 6 and Appendix F.2
`DeferralCurve.qnc`            UniRoute, Section 6: cost to match the most accurate single model, relative to its cost
`aiq_code`, `aiq_paper`        RouterBench's AIQ, as its public code computes it and as its paper defines it
`audc_cscr`, `qnc_cscr`        CSCR's "AUDC" and "QNC" as its public code computes them
=============================  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from routebook.errors import UserError

Interpolation = Literal["linear", "step"]
LeftEnd = Literal["nan", "flat"]

QUALITY_TOLERANCE = 1e-9
"""Two mean qualities closer than this are the same: a mean of N numbers carries rounding errors."""

_ROUNDING = 1e-12
_BLOCK = 1024
# Resamples whose curves are computed in one go: more no longer fit into the processor's cache.
_ROWS = 16
CSCR_LAMBDAS = np.logspace(-4, 2, 20)
"""The λ grid of CSCR's public evaluation code; it has no λ = 0."""
CSCR_LAMBDAS.flags.writeable = False


# ---------------------------------------------------------------------------------------------------------------------
# Input
# ---------------------------------------------------------------------------------------------------------------------


def _checked(quality_hat, quality, cost) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the three inputs as float arrays [N, M], [N, M] and [M] or [N, M]; refuse what no router can use."""
    quality_hat, quality, cost = (np.asarray(a, dtype=float) for a in (quality_hat, quality, cost))
    if quality_hat.ndim != 2 or 0 in quality_hat.shape:
        raise UserError(
            f"quality_hat has shape {quality_hat.shape}, expected [N, M]: a row for each prompt and a column for each "
            "model, at least one of both"
        )
    if quality.shape != quality_hat.shape:
        raise UserError(
            f"quality has shape {quality.shape} but quality_hat has {quality_hat.shape}; give both for the same "
            "prompts and models"
        )
    if cost.shape not in (quality_hat.shape, quality_hat.shape[1:]):
        raise UserError(
            f"cost has shape {cost.shape}, expected {quality_hat.shape[1:]} (one cost a model) or "
            f"{quality_hat.shape} (one a prompt and model)"
        )
    _check_cost(cost)
    _check_estimates(quality_hat)
    if np.isinf(quality).any():
        row, column = np.argwhere(np.isinf(quality))[0]
        raise UserError(
            f"quality of the model in column {column} on prompt {row} is {quality[row, column]:g}, expected a finite "
            "number, or NaN where the answer was not observed"
        )
    if cost.ndim == 2 and (cost[0] == cost[-1]).all() and (cost == cost[0]).all():
        cost = cost[0]  # one price a model, written out for every prompt: the cheaper path gives the same curve
    return quality_hat, quality, cost


def _checked_bill(paid, shape: tuple[int, int]) -> np.ndarray:
    paid = np.asarray(paid, dtype=float)
    if paid.shape not in (shape, shape[1:]):
        raise UserError(f"paid has shape {paid.shape}, expected {shape[1:]} (one bill a model) or {shape}")
    _check_cost(paid)
    return paid


def _check_cost(cost: np.ndarray) -> None:
    bad = ~(np.isfinite(cost) & (cost >= 0))
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        where = f" on prompt {place[0]}" if cost.ndim == 2 else ""
        raise UserError(
            f"cost of the model in column {place[-1]}{where} is {cost[place]:g}, expected a finite number >= 0 "
            f"({int(bad.sum())} such cells); a missing price is never taken for 0: drop the model (for a benchmark: "
            "benchmark.priced()) or give its cost"
        )


def _check_estimates(quality_hat: np.ndarray) -> None:
    if np.isfinite(quality_hat).all():
        return
    if np.isinf(quality_hat).any():
        row, column = np.argwhere(np.isinf(quality_hat))[0]
        raise UserError(
            f"quality_hat of the model in column {column} on prompt {row} is {quality_hat[row, column]:g}, expected a "
            "finite number, or NaN where the model must never be chosen"
        )
    empty = np.isnan(quality_hat).all(axis=1)
    if empty.any():
        raise UserError(
            f"quality_hat of prompt {int(np.flatnonzero(empty)[0])} is NaN for every model ({int(empty.sum())} such "
            "prompts), expected an estimate for at least one; drop these prompts or estimate them"
        )


# ---------------------------------------------------------------------------------------------------------------------
# All breakpoints of all prompts
# ---------------------------------------------------------------------------------------------------------------------


def _records(g: np.ndarray, cost: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, ...]:
    """Find the models of each prompt whose estimate beats that of every cheaper one.

    No other model can be chosen at any λ >= 0. Ties go to the cheaper model, then to the earlier column, because
    `order` is stable and a record must beat its predecessors strictly.

    Parameters
    ----------
    g : ndarray, [n, M]
    cost : ndarray, [M] or [n, M]
    order : ndarray of int, [M] or [n, M]
        Columns from cheap to dear.

    Returns
    -------
    rows, columns, g, cost : ndarrays, [R]
        Prompt after prompt, each from cheap to dear.
    """
    n, m = g.shape
    by_cost = np.take(g, order, axis=1, mode="clip") if order.ndim == 1 else np.take_along_axis(g, order, axis=1)
    np.copyto(by_cost, -np.inf, where=np.isnan(by_cost))
    best_so_far = np.maximum.accumulate(by_cost, axis=1)
    is_record = np.empty((n, m), dtype=bool)
    is_record[:, 0] = by_cost[:, 0] > -np.inf
    np.greater(by_cost[:, 1:], best_so_far[:, :-1], out=is_record[:, 1:])
    flat = np.flatnonzero(is_record)
    rows = flat // m
    columns = order[flat - rows * m] if order.ndim == 1 else order.ravel()[flat]
    paid = cost[columns] if cost.ndim == 1 else cost[rows, columns]
    return rows, columns, by_cost.ravel()[flat], paid


def _envelope(rows, columns, g, cost) -> tuple[np.ndarray, ...]:
    """Reduce records to the upper envelope: drop whatever lies on or below the chord of its two neighbours.

    Dropping all such records at once is safe (each lies in the convex hull of others), and where none is left the
    slopes fall strictly from cheap to dear, which is what the envelope is.

    Returns
    -------
    rows, columns, cost, slope : ndarrays, [E]
        `slope` is the λ from which the next cheaper entry of the same prompt is chosen; inf on its cheapest entry.
    """
    while True:
        first = np.ones(len(rows), dtype=bool)
        np.not_equal(rows[1:], rows[:-1], out=first[1:])
        slope = np.full(len(rows), np.inf)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            np.divide(np.diff(g), np.diff(cost), out=slope[1:])
        # An infinite slope on a prompt's first entry makes the rule below drop it exactly when the next entry costs
        # the same and is estimated better.
        slope[first] = np.inf
        next_slope = np.full(len(rows), -np.inf)
        next_slope[:-1] = np.where(first[1:], -np.inf, slope[1:])
        keep = slope > next_slope
        if keep.all():
            return rows, columns, cost, slope
        rows, columns, g, cost = rows[keep], columns[keep], g[keep], cost[keep]


@dataclass(frozen=True, eq=False)
class RoutingPath:
    """Every change of model of every prompt as λ grows from 0 to infinity.

    Costs are those billed: the `paid` of `routing_path` where it was given.

    Each change is stored once with what it does to the sums of cost and quality, so curves of resampled prompts need
    no new routing: see `area`.

    Attributes
    ----------
    prompt : ndarray of int, [E]
        Which prompt changes its model; events are in ascending order of λ.
    saved : ndarray, [E]
        Cost saved by the change; >= 0 unless bills differ from the prices the router chooses by.
    lost : ndarray, [E]
        Quality before less quality after, an unobserved answer counting as 0 (see `unseen`).
    unseen : ndarray, [E]
        1 where an observed answer gives way to an unobserved one, -1 for the reverse, otherwise 0.
    last_cost, last_quality, last_seen : ndarrays, [N]
        Cost, quality (0 if unobserved) and observedness of each prompt's last choice, the cheapest model.
    piece_lam : ndarray, [P]
        Left end of each piece, ascending from 0.
    piece_events : ndarray of int, [P]
        Number of events that have happened on each piece.
    model_cost : ndarray, [M] or [N, M]
    quality : ndarray, [N, M]
    """

    prompt: np.ndarray
    saved: np.ndarray
    lost: np.ndarray
    unseen: np.ndarray
    last_cost: np.ndarray
    last_quality: np.ndarray
    last_seen: np.ndarray
    piece_lam: np.ndarray
    piece_events: np.ndarray
    model_cost: np.ndarray
    quality: np.ndarray

    def _piece_means(self, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean cost, mean quality and observed share on each piece, [P] each; prompts weighted by `weights` [N]."""
        total = float(len(self.last_cost)) if weights is None else float(weights.sum())
        happened = len(self.prompt) - self.piece_events

        # Summing from the cheap end adds costs that are >= 0 to a total computed directly: the cost is monotone in λ
        # and free of cancellation even where prices differ by many orders of magnitude.
        def on_pieces(last: np.ndarray, change: np.ndarray) -> np.ndarray:
            start = last.sum() if weights is None else (weights * last).sum()
            steps = change if weights is None else weights[self.prompt] * change
            return np.cumsum(np.concatenate(([start], steps[::-1])))[happened]

        cost = on_pieces(self.last_cost, self.saved) / total
        seen = on_pieces(self.last_seen, self.unseen)
        sums = on_pieces(self.last_quality, self.lost)
        quality = np.divide(sums, seen, out=np.full(len(seen), np.nan), where=seen > 0)
        return cost, quality, seen / total

    def curve(self) -> DeferralCurve:
        """Return the deferral curve of all prompts, each counted once."""
        cost, quality, observed = self._piece_means()
        seen = (~np.isnan(self.quality)).sum(axis=0)
        model_quality = np.divide(np.nansum(self.quality, axis=0), seen, out=np.full(len(seen), np.nan), where=seen > 0)
        model_cost = self.model_cost if self.model_cost.ndim == 1 else self.model_cost.mean(axis=0)
        return DeferralCurve(
            lam=self.piece_lam,
            cost=cost,
            quality=quality,
            observed=observed,
            model_cost=model_cost,
            model_quality=model_quality,
            n_prompts=len(self.quality),
        )

    def area(
        self, weights: np.ndarray | None = None, interpolation: Interpolation = "linear", left: LeftEnd = "nan"
    ) -> float:
        """Return `DeferralCurve.area` of the prompts repeated `weights` [N] times, without routing them again.

        Breakpoints do not depend on which prompts are drawn, so a bootstrap only re-weights the sums.
        """
        cost, quality, _ = self._piece_means(weights)
        if self.model_cost.ndim == 1:
            models = self.model_cost
        else:
            models = self.model_cost.mean(axis=0) if weights is None else weights @ self.model_cost / weights.sum()
        points = _ascending(cost, quality)
        return _normalised_area(*points, models.min(), models.max(), interpolation, left)

    def areas(self, weights: np.ndarray, interpolation: Interpolation = "linear", left: LeftEnd = "nan") -> np.ndarray:
        """Return `area` for every row of weights [R, N], [R]; equal up to rounding, and several times as fast."""
        _check_choice("left", left, ("nan", "flat"))
        weights = np.asarray(weights, dtype=float)
        if interpolation != "linear":
            return np.array([self.area(row, interpolation, left) for row in weights])
        found = [self._areas(weights[start : start + _ROWS], left) for start in range(0, len(weights), _ROWS)]
        return np.concatenate(found) if found else np.empty(0)

    def _points(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return cost and quality of the pieces from cheap to dear, [R, P] each, as `_piece_means`."""
        of_event = weights[:, self.prompt[::-1]]
        happened = (len(self.prompt) - self.piece_events)[::-1]

        def sums(last: np.ndarray, change: np.ndarray) -> np.ndarray:
            steps = np.empty((len(weights), len(change) + 1))
            steps[:, 0] = (weights * last).sum(axis=1)
            np.multiply(of_event, change[::-1], out=steps[:, 1:])
            return np.cumsum(steps, axis=1, out=steps)[:, happened]

        total = weights.sum(axis=1, keepdims=True)
        seen = total if self.last_seen.all() and not self.unseen.any() else sums(self.last_seen, self.unseen)
        quality = sums(self.last_quality, self.lost)
        quality = np.divide(quality, seen, out=np.full(quality.shape, np.nan), where=seen > 0)
        return sums(self.last_cost, self.saved) / total, quality

    def _areas(self, weights: np.ndarray, left: LeftEnd) -> np.ndarray:
        """Return the areas of some rows of weights, points joined by lines."""
        cost, quality = self._points(weights)
        total = weights.sum(axis=1)
        if self.model_cost.ndim == 1:
            low, high = np.full(len(total), self.model_cost.min()), np.full(len(total), self.model_cost.max())
        else:
            models = weights @ self.model_cost / total[:, None]
            low, high = models.min(axis=1), models.max(axis=1)
        uneven = (cost[:, 1:] < cost[:, :-1]).any(axis=1)
        if uneven.any():
            order = np.argsort(cost[uneven], axis=1, kind="stable")
            cost[uneven], quality[uneven] = (np.take_along_axis(of[uneven], order, axis=1) for of in (cost, quality))
        heights = quality[:, 1:] + quality[:, :-1]
        area = np.einsum("rp,rp->r", np.diff(cost, axis=1), heights) / 2
        area += (cost[:, 0] - low) * quality[:, 0] + (high - cost[:, -1]) * quality[:, -1]
        slack = _ROUNDING * high
        with np.errstate(invalid="ignore", divide="ignore"):
            area /= high - low
        # Points beyond the range, or of unknown quality, take a look at the single curve.
        special = (cost[:, 0] < low - slack) | (cost[:, -1] > high + slack) | (high - low <= slack) | np.isnan(area)
        if left == "nan":
            special |= cost[:, 0] - low > slack
        for i in np.flatnonzero(special):
            area[i] = self.area(weights[i], "linear", left)
        return area


def routing_path(quality_hat, quality, cost, paid=None) -> RoutingPath:
    """Find every λ at which any prompt changes its model.

    Parameters and errors are those of `deferral_curve`, which is ``routing_path(...).curve()``.

    Returns
    -------
    RoutingPath
    """
    quality_hat, quality, cost = _checked(quality_hat, quality, cost)
    bill = cost if paid is None else _checked_bill(paid, quality_hat.shape)
    parts = []
    pool_order = np.argsort(cost, kind="stable") if cost.ndim == 1 else None
    for start in range(0, len(quality_hat), _BLOCK):
        block = slice(start, start + _BLOCK)
        price = cost if cost.ndim == 1 else cost[block]
        cheap_first = np.argsort(price, axis=1, kind="stable") if pool_order is None else pool_order
        rows, columns, spent, slope = _envelope(*_records(quality_hat[block], price, cheap_first))
        if paid is not None:
            spent = bill[columns] if bill.ndim == 1 else bill[block][rows, columns]
        parts.append((rows + start, spent, slope, quality[block][rows, columns]))
    prompt, spent, slope, got = (np.concatenate(part) for part in zip(*parts, strict=True))
    seen = (~np.isnan(got)).astype(float)
    got[seen == 0] = 0.0
    first = np.isinf(slope)
    change = ~first[1:]
    order = np.argsort(slope[1:][change], kind="stable")
    lam, events = _pieces(slope[1:][change][order])
    return RoutingPath(
        prompt=prompt[1:][change][order],
        saved=np.diff(spent)[change][order],
        lost=np.diff(got)[change][order],
        unseen=np.diff(seen)[change][order],
        last_cost=spent[first],
        last_quality=got[first],
        last_seen=seen[first],
        piece_lam=lam,
        piece_events=events,
        model_cost=bill,
        quality=quality,
    )


def _pieces(event_lam: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Group ascending breakpoints into pieces: left ends (from 0) and the number of events up to each.

    Breakpoints within one part in 10^12 are one: (.3 - .1) / 2 and .2 - .1 name the same λ and differ by rounding.
    """
    new = np.ones(len(event_lam), dtype=bool)
    new[1:] = event_lam[1:] > event_lam[:-1] * (1 + _ROUNDING)
    new &= event_lam > 0  # an underflowed slope: the cheaper model is already preferred at λ = 0
    starts = np.flatnonzero(new)
    return (
        np.concatenate(([0.0], event_lam[starts])),
        np.concatenate((starts, [len(event_lam)])),
    )


def deferral_curve(quality_hat, quality, cost, paid=None) -> DeferralCurve:
    """Return the whole deferral curve of a router: every operating point of ``argmax_m g - λ c``, λ from 0 to infinity.

    UniRoute, Eq. 6 (the rule), Appendix E (λ against budget) and Appendix F.2 (the curve). Breakpoints are exact up
    to rounding: those within one part in 10^12 are merged into one.

    Parameters
    ----------
    quality_hat : array_like, [N, M]
        Estimated quality; NaN = this model is never chosen for this prompt.
    quality : array_like, [N, M]
        True quality, binary or soft; NaN = not observed.
    cost : array_like, [M] or [N, M]
        What a call costs: the router knows it and pays it.
    paid : array_like, [M] or [N, M], optional
        What is billed for a call where the router knows only a price, `cost`: it chooses by the price and pays this.
        Mean bills may then rise with λ here and there; what is read off the curve takes its points in order of cost.

    Returns
    -------
    DeferralCurve
        Mean cost over all prompts (without `paid` it never rises with λ) and mean quality over the prompts whose
        routed answer was observed (NaN where none was).

    Raises
    ------
    UserError
        Shapes that disagree, a prompt without any estimate, infinite estimates or qualities, and a cost that is
        missing, negative or infinite.

    Notes
    -----
    Ties: of equal scores the cheaper model wins, at equal cost the earlier column; so exactly at a breakpoint the
    cheaper model is used, and pieces are closed on the left.
    """
    return routing_path(quality_hat, quality, cost, paid).curve()


# ---------------------------------------------------------------------------------------------------------------------
# Reading a polyline
# ---------------------------------------------------------------------------------------------------------------------


def _ascending(cost: np.ndarray, quality: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return operating points from cheap to dear, without those whose quality is unknown."""
    known = ~np.isnan(quality[::-1])
    cost, quality = cost[::-1][known], quality[::-1][known]
    if (cost[1:] >= cost[:-1]).all():
        return cost, quality
    order = np.argsort(cost, kind="stable")
    return cost[order], quality[order]


def _check_choice(parameter: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{parameter} is {value!r}, expected one of: {', '.join(map(repr, choices))}")


def _evaluate(x: np.ndarray, y: np.ndarray, at: np.ndarray, interpolation: Interpolation) -> np.ndarray:
    """Quality at costs `at`, held flat beyond both ends of the points (x ascending, y)."""
    _check_choice("interpolation", interpolation, ("linear", "step"))
    if interpolation == "linear":
        return np.interp(at, x, y)
    return y[np.maximum(np.searchsorted(x, at, side="right") - 1, 0)]


def _integral(x: np.ndarray, y: np.ndarray, low: float, high: float, interpolation: Interpolation) -> float:
    """Exact integral over [low, high] of the curve through (x ascending, y), held flat beyond its ends."""
    _check_choice("interpolation", interpolation, ("linear", "step"))
    inside = (x > low) & (x < high)
    ends = _evaluate(x, y, np.array([low, high]), interpolation)
    grid = np.concatenate(([low], x[inside], [high]))
    values = np.concatenate((ends[:1], y[inside], ends[1:]))
    heights = (values[1:] + values[:-1]) / 2 if interpolation == "linear" else values[:-1]
    return float(np.sum(np.diff(grid) * heights))


def _normalised_area(x, y, low: float, high: float, interpolation: Interpolation, left: LeftEnd) -> float:
    """Area under (x, y) over [low, high] divided by its length; see `DeferralCurve.area` for the corner cases."""
    _check_choice("left", left, ("nan", "flat"))
    if len(x) == 0:
        return float("nan")
    if high - low <= _ROUNDING * high:
        return float(y.max())
    if left == "nan" and x[0] - low > _ROUNDING * high:
        return float("nan")
    return float(_integral(x, y, low, high, interpolation) / (high - low))


def _first_cost(x: np.ndarray, y: np.ndarray, quality: float, interpolation: Interpolation) -> float:
    """Smallest cost at which the curve reaches `quality` (within `QUALITY_TOLERANCE`); inf if it never does."""
    _check_choice("interpolation", interpolation, ("linear", "step"))
    reached = np.flatnonzero(y >= quality - QUALITY_TOLERANCE)
    if len(reached) == 0:
        return float("inf")
    i = int(reached[0])
    if i == 0 or interpolation == "step" or y[i] <= quality:
        return float(x[i])
    share = (quality - y[i - 1]) / (y[i] - y[i - 1])
    return float(x[i - 1] + share * (x[i] - x[i - 1]))


@dataclass(frozen=True, eq=False)
class DeferralCurve:
    """A router's mean cost and mean quality at every trade-off λ, as a staircase; made by `deferral_curve`.

    Attributes
    ----------
    lam : ndarray, [P]
        Left end of each piece, strictly ascending, ``lam[0] == 0``; piece i covers ``[lam[i], lam[i + 1])``.
    cost : ndarray, [P]
        Mean cost of the routed answers over all prompts, never rising with λ unless bills differ from prices.
    quality : ndarray, [P]
        Mean quality over the prompts whose routed answer was observed; NaN where none was.
    observed : ndarray, [P]
        Share of prompts whose routed answer was observed.
    model_cost : ndarray, [M]
        Mean cost of sending every prompt to one model.
    model_quality : ndarray, [M]
        Mean observed quality of each model; NaN for a model that was never observed.
    n_prompts : int

    Notes
    -----
    Wherever a metric takes ``interpolation``: ``"linear"`` joins neighbouring operating points, which is what tossing
    a coin between two λ achieves; ``"step"`` allows single values of λ only, so a budget buys the dearest operating
    point it can pay for.
    """

    lam: np.ndarray
    cost: np.ndarray
    quality: np.ndarray
    observed: np.ndarray
    model_cost: np.ndarray
    model_quality: np.ndarray
    n_prompts: int

    def __post_init__(self) -> None:
        for name in ("lam", "cost", "quality", "observed", "model_cost", "model_quality"):
            own = np.array(getattr(self, name), dtype=float)
            own.flags.writeable = False
            object.__setattr__(self, name, own)

    def __len__(self) -> int:
        return len(self.lam)

    def __repr__(self) -> str:
        return (
            f"DeferralCurve({len(self)} pieces, {self.n_prompts} prompts, {len(self.model_cost)} models, cost "
            f"{self.cost[-1]:.4g} to {self.cost[0]:.4g}, peak quality {self.peak:.4g})"
        )

    @property
    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Cost and quality of the operating points from cheap to dear, without pieces of unknown quality."""
        return _ascending(self.cost, self.quality)

    @property
    def best_model(self) -> int:
        """Column of the most accurate single model (ties: the cheaper, then the earlier); -1 if none was observed."""
        known = np.flatnonzero(~np.isnan(self.model_quality))
        if len(known) == 0:
            return -1
        best = known[self.model_quality[known] >= self.model_quality[known].max() - _ROUNDING]
        return int(best[np.argmin(self.model_cost[best])])

    @property
    def peak(self) -> float:
        """Highest mean quality at any λ (CSCR, Table 1, "Peak"); NaN when no routed answer was observed."""
        _, quality = self.points
        return float(quality.max()) if len(quality) else float("nan")

    @property
    def cost_at_peak(self) -> float:
        """Smallest mean cost at which `peak` is reached (within 1e-12); NaN when no routed answer was observed."""
        cost, quality = self.points
        return float(cost[np.argmax(quality >= self.peak - _ROUNDING)]) if len(cost) else float("nan")

    def area(
        self,
        interpolation: Interpolation = "linear",
        left: LeftEnd = "nan",
        budgets: tuple[float, float] | None = None,
    ) -> float:
        """Return UniRoute's normalised area under the deferral curve (Section 6, "Area"; Appendix F.2).

        Mean quality over the budgets from the cheapest single model's mean cost to the dearest's, the range B runs
        over in Appendix F.2. Beyond the router's dearest operating point the curve is held flat: a budget need not be
        spent. The paper says "normalized" without a formula; dividing by the length of the range, so that a router of
        constant quality q has area q, is our reading.

        Parameters
        ----------
        interpolation : {"linear", "step"}
            See the class notes.
        left : {"nan", "flat"}
            What to do when even the router's cheapest operating point costs more than the left end, so that the
            smallest budgets cannot be met: ``"nan"`` returns NaN, ``"flat"`` extends the curve's first quality.
        budgets : (low, high), optional
            Another range of mean costs to average over, e.g. the pool's on other prompts.

        Returns
        -------
        float
            In units of quality. Where the range has no length (one model, or equal costs), the best quality on the
            curve. NaN when no routed answer was observed.
        """
        low, high = (self.model_cost.min(), self.model_cost.max()) if budgets is None else budgets
        if not 0 <= low <= high < np.inf:
            raise UserError(f"budgets is ({low:g}, {high:g}), expected two finite costs with 0 <= low <= high")
        return _normalised_area(*self.points, float(low), float(high), interpolation, left)

    def qnc(
        self,
        reference: tuple[float, float] | None = None,
        interpolation: Interpolation = "linear",
        unreached: float = float("inf"),
    ) -> float:
        """Return UniRoute's quality-neutral cost (Section 6): least cost to match the most accurate single model.

        Parameters
        ----------
        reference : (quality, cost), optional
            What to match. By default the pool's most accurate model on the same prompts (ties: the cheaper one).
        interpolation : {"linear", "step"}
        unreached : float
            Returned when the router never reaches that quality: inf as in the paper's Figure 7, or 1.0 for the
            reading that falls back to the reference model itself (100.0% for ZeroRouter on SPROUT in Figure 6).
            To treat the reference as always available, also where matching it costs more, take ``min(qnc, 1)``.

        Returns
        -------
        float
            Relative to the reference's cost; 0.9 = the same quality for 90% of the cost. "Match" allows for
            `QUALITY_TOLERANCE` (1e-9). A free reference gives 1 if it is matched at no cost and inf if not. NaN when
            no model was observed.
        """
        if reference is None:
            best = self.best_model
            if best < 0:
                return float("nan")
            reference = (self.model_quality[best], self.model_cost[best])
        quality, cost = (float(value) for value in reference)
        if not (np.isfinite(quality) and 0 <= cost < np.inf):
            raise UserError(
                f"reference is ({quality:g}, {cost:g}), expected (quality, cost) with a finite quality and a cost >= 0"
            )
        needed = _first_cost(*self.points, quality, interpolation)
        if needed == np.inf:
            return unreached
        if cost == 0:
            return 1.0 if needed == 0 else float("inf")
        return needed / cost

    def quality_at_budget(self, budget, interpolation: Interpolation = "linear"):
        """Return the mean quality that a mean cost of `budget` a prompt buys (UniRoute, Appendix F.2).

        Parameters
        ----------
        budget : float or array_like
            Mean cost per prompt. More than the router can spend leaves the rest unspent.
        interpolation : {"linear", "step"}

        Returns
        -------
        float or ndarray
            Of the shape of `budget`.

        Raises
        ------
        UserError
            When a budget is below the router's cheapest operating point with a known quality.
        """
        cost, quality = self.points
        wanted = np.asarray(budget, dtype=float)
        self._check_reachable(wanted, cost[0] if len(cost) else np.inf)
        found = _evaluate(cost, quality, wanted, interpolation)
        return float(found) if wanted.ndim == 0 else found

    def budget_for_quality(self, quality: float, interpolation: Interpolation = "linear") -> float:
        """Return the smallest mean cost at which `quality` is reached (within 1e-9); inf if it never is."""
        if np.isnan(quality):
            raise UserError("quality is NaN, expected a number")
        return _first_cost(*self.points, float(quality), interpolation)

    def at_lambda(self, lam):
        """Return (mean cost, mean quality) at trade-off `lam`: two floats, or two arrays for an array of λ."""
        lam = np.asarray(lam, dtype=float)
        if not (lam >= 0).all():
            raise UserError(f"lam is {lam[~(lam >= 0)].flat[0]:g}, expected a trade-off >= 0")
        piece = np.searchsorted(self.lam, lam, side="right") - 1
        cost, quality = self.cost[piece], self.quality[piece]
        return (float(cost), float(quality)) if lam.ndim == 0 else (cost, quality)

    def lambda_for_budget(self, budget: float) -> float:
        """Return the smallest λ whose mean cost is at most `budget` (UniRoute, Appendix E; exact, no line search).

        Raises
        ------
        UserError
            When no λ is cheap enough.
        """
        self._check_reachable(np.asarray(budget, dtype=float), self.cost[-1])
        affordable = self.cost <= budget * (1 + _ROUNDING)
        return float(self.lam[np.argmax(affordable)])

    def _check_reachable(self, budget: np.ndarray, cheapest: float) -> None:
        short = ~(budget * (1 + _ROUNDING) >= cheapest)
        if short.any():
            raise UserError(
                f"budget is {budget[short].flat[0]:g}, below the router's cheapest operating point; expected at least "
                f"{cheapest:g} per prompt"
            )


def interpolate(curve: DeferralCurve, costs, interpolation: Interpolation = "linear") -> np.ndarray:
    """Return the quality at mean costs `costs` [G]: NaN below the router's reach, flat above it."""
    cost, quality = curve.points
    costs = np.asarray(costs, dtype=float)
    if len(cost) == 0:
        return np.full(costs.shape, np.nan)
    values = _evaluate(cost, quality, costs, interpolation)
    return np.where(costs * (1 + _ROUNDING) >= cost[0], values, np.nan)


# ---------------------------------------------------------------------------------------------------------------------
# Several curves
# ---------------------------------------------------------------------------------------------------------------------

Curves = Mapping[str, DeferralCurve] | Sequence[DeferralCurve]


def _as_list(curves: Curves) -> list[DeferralCurve]:
    found = list(curves.values()) if isinstance(curves, Mapping) else list(curves)
    if not found:
        raise UserError("curves is empty, expected at least one deferral curve")
    return found


def _like(curves: Curves, values: Sequence[float]) -> dict[str, float] | list[float]:
    return dict(zip(curves, values, strict=True)) if isinstance(curves, Mapping) else list(values)


def concave_envelope(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices of the least concave function above the points (x ascending, y), [V] each."""
    hull: list[int] = []
    # Lists give up their numbers several times as fast as arrays do.
    u, v = x.tolist(), y.tolist()
    for i in range(len(u)):
        if hull and u[i] == u[hull[-1]]:
            if v[i] <= v[hull[-1]]:
                continue
            hull.pop()
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (v[b] - v[a]) * (u[i] - u[a]) > (v[i] - v[a]) * (u[b] - u[a]):
                break
            hull.pop()
        hull.append(i)
    return x[hull], y[hull]


def _rising_envelopes(curves: Curves) -> list[tuple[np.ndarray, np.ndarray]]:
    """Upper concave envelope of each curve up to its highest point: RouterBench's "non-decreasing convex hull"."""
    envelopes = []
    for curve in _as_list(curves):
        x, y = concave_envelope(*curve.points)
        if len(x) == 0:
            raise UserError("AIQ needs observed answers, but a curve has none; give the quality of the routed answers")
        stop = int(np.argmax(y)) + 1
        envelopes.append((x[:stop], y[:stop]))
    return envelopes


def aiq_code(curves: Curves) -> dict[str, float] | list[float]:
    """Return RouterBench's AIQ of each router as its public code computes it (``evaluation/AIQ.py``, ``calc_AIQ``).

    Upper concave envelope of the (cost, performance) points, points lower than their predecessor removed, extended
    flat to the largest cost over all routers compared; area by trapezoids, divided by that largest cost. The area
    starts at each router's own cheapest point, so whatever lies to its left counts as quality zero, and the value
    depends on which routers are compared. (The published function itself stops with a NameError.)

    Parameters
    ----------
    curves : mapping of str to DeferralCurve, or sequence of DeferralCurve

    Returns
    -------
    dict or list of float
        In the form of `curves`. Where every router is free (largest cost 0), the best quality.
    """
    envelopes = _rising_envelopes(curves)
    highest = max(x[-1] for x, _ in envelopes)
    if highest == 0:
        return _like(curves, [float(y.max()) for _, y in envelopes])
    return _like(curves, [_integral(x, y, x[0], highest, "linear") / highest for x, y in envelopes])


def aiq_paper(curves: Curves) -> dict[str, float] | list[float]:
    """Return RouterBench's AIQ of each router as its paper defines it ("Average Improvement in Quality").

    The same envelopes as `aiq_code`, but averaged over a common interval [c_min, c_max] and divided by its length.
    The interval is the pooled range of the routers compared; a router whose cheapest point lies to the right of c_min
    is extended flat to the left, which the paper leaves open.

    Parameters
    ----------
    curves : mapping of str to DeferralCurve, or sequence of DeferralCurve

    Returns
    -------
    dict or list of float
        In the form of `curves`. Where the interval has no length, the best quality.
    """
    envelopes = _rising_envelopes(curves)
    low, high = min(x[0] for x, _ in envelopes), max(x[-1] for x, _ in envelopes)
    return _like(curves, [_normalised_area(x, y, low, high, "linear", "flat") for x, y in envelopes])


def _swept(curve: DeferralCurve, lambdas) -> tuple[np.ndarray, np.ndarray]:
    """Cost and quality at each λ of a grid, in the grid's order, without unknown qualities."""
    cost, quality = curve.at_lambda(np.atleast_1d(np.asarray(lambdas, dtype=float)))
    known = ~np.isnan(quality)
    if not known.any():
        raise UserError("a curve has no observed answer at any of the lambdas; give the quality of the routed answers")
    return cost[known], quality[known]


def audc_cscr(curves: Curves, lambdas=CSCR_LAMBDAS, grid: int = 25) -> dict[str, float] | list[float]:
    """Return CSCR's "AUDC" of each router as its public evaluation code computes it.

    Each router is run at the `lambdas` (20 points, 1e-4 to 100); its points are interpolated linearly on a common
    grid of `grid` costs from the lowest to the highest cost of *all* routers in the run, held flat beyond its own
    ends; trapezoids, divided by the range. The value depends on the other routers, on the λ range and on the grid.

    Parameters
    ----------
    curves : mapping of str to DeferralCurve, or sequence of DeferralCurve
    lambdas : array_like, [L]
    grid : int
        Number of costs, at least 2.

    Returns
    -------
    dict or list of float
        In the form of `curves`. Where the pooled range has no length, the best quality.
    """
    if grid < 2:
        raise UserError(f"grid is {grid}, expected at least 2 costs")
    swept = [_ascending(*_by_falling_cost(*_swept(curve, lambdas))) for curve in _as_list(curves)]
    low, high = min(x[0] for x, _ in swept), max(x[-1] for x, _ in swept)
    if high - low <= _ROUNDING * high:
        return _like(curves, [float(y.max()) for _, y in swept])
    at = np.linspace(low, high, grid)
    return _like(curves, [float(np.trapezoid(np.interp(at, x, y), at) / (high - low)) for x, y in swept])


def _by_falling_cost(cost: np.ndarray, quality: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(-cost, kind="stable")
    return cost[order], quality[order]


def qnc_cscr(curve: DeferralCurve, lambdas=CSCR_LAMBDAS) -> float:
    """Return CSCR's "QNC" as its public code computes it: the mean cost at the router's *own* peak on the λ grid.

    CSCR's text (Section 4, "Evaluation") defines the least relative cost that matches the most accurate LLM, which is
    `DeferralCurve.qnc`; the code reports ``cost[argmax accuracy]``, in cost units. Of several λ with the same peak the
    first in the grid counts, which is the dearest for an ascending grid.
    """
    cost, quality = _swept(curve, lambdas)
    return float(cost[np.argmax(quality)])


@dataclass(frozen=True, eq=False)
class MeanCurve:
    """Mean of several deferral curves on a common axis of relative cost; made by `mean_curve`.

    Attributes
    ----------
    relative_cost : ndarray, [G]
        0 = the cheapest single model of each curve's pool, 1 = the dearest.
    quality : ndarray, [G]
        Mean over curves; NaN where some curve does not reach that low.
    error : ndarray, [G]
        Standard error of that mean; NaN for a single curve.
    n : int
        Number of curves.
    """

    relative_cost: np.ndarray
    quality: np.ndarray
    error: np.ndarray
    n: int

    def area(self) -> float:
        """Return the area under the mean curve over its grid, divided by the grid's length (trapezoids)."""
        return float(np.trapezoid(self.quality, self.relative_cost) / (self.relative_cost[-1] - self.relative_cost[0]))


def mean_curve(
    curves: Curves, grid: int | np.ndarray = 201, interpolation: Interpolation = "linear", left: LeftEnd = "nan"
) -> MeanCurve:
    """Average deferral curves over trials, as UniRoute's Figures 3 and 6 do ("mean deferral curves").

    Each curve is read on relative cost (0 = its own pool's cheapest single model, 1 = the dearest), so trials with
    different pools can be averaged and the area under the mean curve tends, with the grid, to the mean of
    `DeferralCurve.area`.

    Parameters
    ----------
    curves : mapping of str to DeferralCurve, or sequence of DeferralCurve
    grid : int or array_like, [G]
        Number of equally spaced relative costs from 0 to 1, or ascending relative costs.
    interpolation, left
        As in `DeferralCurve.area`.

    Returns
    -------
    MeanCurve
    """
    at = np.linspace(0, 1, grid) if np.ndim(grid) == 0 else np.asarray(grid, dtype=float)
    if len(at) < 2 or not (np.diff(at) > 0).all():
        raise UserError("grid must hold at least 2 strictly ascending relative costs")
    _check_choice("left", left, ("nan", "flat"))
    values = np.array([_on_relative_cost(curve, at, interpolation, left) for curve in _as_list(curves)])
    n = len(values)
    error = values.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.full(len(at), np.nan)
    return MeanCurve(relative_cost=at, quality=values.mean(axis=0), error=error, n=n)


def _on_relative_cost(curve: DeferralCurve, at: np.ndarray, interpolation: Interpolation, left: LeftEnd) -> np.ndarray:
    low, high = float(curve.model_cost.min()), float(curve.model_cost.max())
    cost, quality = curve.points
    if len(cost) == 0 or high - low <= _ROUNDING * high:
        return np.full(len(at), curve.peak)
    budget = low + at * (high - low)
    values = _evaluate(cost, quality, budget, interpolation)
    if left == "nan":
        values = np.where(cost[0] - budget > _ROUNDING * high, np.nan, values)
    return values
