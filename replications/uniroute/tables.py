"""The tables and curves the UniRoute chapter shows, made from finished trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from replications.uniroute.trials import DYNAMIC_METHODS, METHODS, Trial, paired_difference, summarise
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import mean_curve
from routebook.figures import label
from routebook.ledger import Cell
from routebook.significance import Estimate, mean_interval, sign_test

COMPARED = (
    ("k-means", "zero-router"),
    ("learned-map", "zero-router"),
    ("k-nn", "zero-router"),
    ("k-means", "k-nn"),
    ("learned-map", "k-nn"),
    ("learned-map", "k-means"),
    ("learned-map", "retrained-mlp"),
    ("learned-map", "retrained-matfac"),
    ("k-means", "retrained-mlp"),
    ("clairvoyant-mlp", "k-means"),
    ("oracle", "learned-map"),
    ("k-means", "dataset-oracle"),
    ("learned-map", "dataset-oracle"),
)
UNITS = {"area": "normalised area", "qnc": "fraction", "peak": "quality"}
# Our method to its row in the paper's tables.
PUBLISHED_ROWS = {
    "zero-router": "ZeroRouter",
    "k-nn": "K-NN",
    "retrained-mlp": "Retrained MLP",
    "retrained-matfac": "Retrained MatFac",
    "k-means": "UniRoute (K-Means)",
    "learned-map": "UniRoute (LearnedMap)",
    "clairvoyant-mlp": "Clairvoyant MLP",
    "clairvoyant-matfac": "Clairvoyant MatFac",
}


def data_table(benchmark: RoutingBenchmark) -> pd.DataFrame:
    """Return one row an LLM: mean quality per source dataset and overall, and mean cost."""
    columns = {
        task: np.nanmean(benchmark.quality[benchmark.tasks == task], axis=0) for task in sorted(set(benchmark.tasks))
    }
    frame = pd.DataFrame(columns, index=list(benchmark.models))
    frame["all prompts"] = np.nanmean(benchmark.quality, axis=0)
    frame = frame.map("{:.3f}".format)
    frame[f"mean cost ({benchmark.cost_unit})"] = [f"{cost:.3g}" for cost in benchmark.mean_cost]
    return frame.iloc[np.argsort(benchmark.mean_cost)]


Curve = tuple[np.ndarray, np.ndarray]


def mean_curves(done: Sequence[Trial], methods: Sequence[str]) -> dict[str, Curve]:
    """Return each method's mean curve over trials: relative cost [G], mean quality [G]."""
    means = {method: mean_curve([trial.curves[method] for trial in done]) for method in methods}
    return {method: (mean.relative_cost, mean.quality) for method, mean in means.items()}


def gains(done: Sequence[Trial], base: str, methods: Sequence[str]) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """Return each method's quality minus the base method's at the same relative cost, trial by trial.

    Returns
    -------
    lines, bands
        Method to (relative cost, mean gain) and to its 95 % t-interval over trials (low, high), each [G].
    """
    grid = np.linspace(0, 1, 201)
    each = {m: np.array([mean_curve([trial.curves[m]], grid).quality for trial in done]) for m in (base, *methods)}
    intervals = {method: mean_interval(each[method] - each[base], axis=0) for method in methods}
    lines = {method: (grid, interval.estimate) for method, interval in intervals.items()}
    return lines, {method: (interval.low, interval.high) for method, interval in intervals.items()}


def published_figure6(published: Mapping[tuple[str, str], Cell], method: str, metric: str, dataset: str) -> str:
    """Return a cell of the paper's Figure 6 as printed, or a dash where the paper has none."""
    row = PUBLISHED_ROWS.get(method)
    cells = [c for c in published.values() if row and c.row.startswith(row) and c.column == f"{dataset} / {metric}"]
    return cells[0].printed if cells else "–"


def figure6_table(
    metrics: pd.DataFrame, published: Mapping[tuple[str, str], Cell], dataset: str = "RouterBench"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return our column of Figure 6 for one dataset: the numbers, and the table as shown beside the paper's.

    Bold: the best of the routers that can be had for unseen LLMs, the clairvoyant ones left aside. QNC is in percent
    of the most accurate unseen LLM's cost, each trial capped at 100; area has no unit.
    """
    area, qnc, peak = (summarise(metrics, column) for column in ("area", "qnc", "peak"))
    numbers = pd.DataFrame({"QNC": 100 * qnc["value"], "Area": area["value"], "Peak": peak["value"]})
    best = {
        "QNC": numbers["QNC"][list(DYNAMIC_METHODS)].idxmin(),
        "Area": numbers["Area"][list(DYNAMIC_METHODS)].idxmax(),
    }
    rows = {}
    for method in METHODS:
        cells = {
            "QNC, % (paper)": published_figure6(published, method, "QNC", dataset).replace("%", ""),
            "QNC, % (ours)": interval_cell(qnc.loc[method] * [100, 100, 100, 1], "{:.1f}", best["QNC"] == method),
            "Area (paper)": published_figure6(published, method, "Area", dataset),
            "Area (ours)": interval_cell(area.loc[method], "{:.3f}", best["Area"] == method),
            "Peak quality (ours)": interval_cell(peak.loc[method], "{:.3f}", False),
        }
        rows[label(method)] = cells
    return numbers, pd.DataFrame.from_dict(rows, orient="index")


def interval_cell(row: pd.Series, digits: str, bold: bool) -> str:
    """Return a table cell: a number with its interval below it; `row` holds value, low and high."""
    """Return a row of `summarise` as the cell of a table: the value over its interval, a dash for NaN."""
    if np.isnan(row["value"]):
        return "–"
    value = digits.format(row["value"])
    low, high = digits.format(row["low"]), digits.format(row["high"])
    interval = f"<br><small>[{low}, {high}]</small>" if np.isfinite(row["low"]) else ""
    return (f"<b>{value}</b>" if bold else value) + interval


@dataclass(frozen=True)
class Comparison:
    """Paired difference of a metric between two methods over trials, with the p-value of the sign test."""

    estimate: float
    low: float
    high: float
    n: int
    p_value: float


def compare(metrics: pd.DataFrame, column: str, a: str, b: str) -> Comparison:
    """Return metric of a minus metric of b over trials: mean, 95 % t-interval, trials, two-sided sign test."""
    ours, theirs = paired_difference(metrics, column, a, b)
    interval = mean_interval(ours - theirs)
    sign = sign_test(ours, theirs)
    return Comparison(interval.estimate, interval.low, interval.high, interval.n, sign.p_value)


def comparison_table(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return every compared pair: difference in area with its interval, trials won, sign test's p."""
    rows = {}
    for a, b in COMPARED:
        outcome = compare(metrics, "area", a, b)
        ours, theirs = paired_difference(metrics, "area", a, b)
        rows[f"{label(a)} − {label(b)}"] = {
            "difference in area": f"{outcome.estimate:+.4f} [{outcome.low:+.4f}, {outcome.high:+.4f}]",
            "trials won": f"{int((ours > theirs).sum())} of {outcome.n}",
            "sign test p": f"{outcome.p_value:.3g}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def differences_to(base: str, metrics: pd.DataFrame) -> pd.DataFrame:
    """Return how much area each method that reads the prompt has beyond a base method: value, low, high."""
    rows = {}
    for method in (*DYNAMIC_METHODS[1:], "dataset-oracle", "clairvoyant-mlp"):
        outcome = compare(metrics, "area", method, base)
        rows[method] = {"value": outcome.estimate, "low": outcome.low, "high": outcome.high}
    return pd.DataFrame.from_dict(rows, orient="index")


def selection_table(done: Sequence[Trial]) -> pd.DataFrame:
    """Return which K each selection picked in each trial, and how much area hung on it among the seen LLMs."""
    rows = {}
    for method in ("k-nn", "k-means", "learned-map"):
        selections = [trial.selections[method] for trial in done]
        picked = [str(s.best) for s in selections]
        spread = np.mean([max(s.areas) - min(s.areas) for s in selections])
        rows[label(method)] = {
            "candidates": ", ".join(map(str, selections[0].grid)),
            "picked, trial by trial": ", ".join(picked[:20]) + (" ..." if len(picked) > 20 else ""),
            "area between best and worst K": f"{spread:.4f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def validation_area_by_k(done: Sequence[Trial]) -> dict[str, Curve]:
    """Return Figure 5: each method's candidates K and their mean validation area on the seen LLMs."""
    lines = {}
    for method in ("k-nn", "k-means", "learned-map"):
        selections = [trial.selections[method] for trial in done]
        lines[method] = (np.array(selections[0].grid), np.mean([s.areas for s in selections], axis=0))
    return lines


def worst_clusters(done: Sequence[Trial]) -> tuple[int, np.ndarray]:
    """Return the K with the smallest mean test area, and its area minus ZeroRouter's trial by trial.

    Only trials in which every candidate was fitted count: all of them, unless K was tuned once per dataset.
    """
    candidates = list(done[0].area_by_clusters)
    done = [trial for trial in done if list(trial.area_by_clusters) == candidates]
    areas = np.array([[trial.area_by_clusters[k] for k in candidates] for trial in done])
    worst = int(areas.mean(axis=0).argmin())
    return candidates[worst], areas[:, worst] - np.array([trial.curves["zero-router"].area() for trial in done])


def budget_table(errors: pd.DataFrame) -> pd.DataFrame:
    """Return `budget.budget_errors` as readers see it: one row a budget."""
    rows = {
        f"{row.share:.0%} of the range": {
            "test cost / budget": f"{row.test_spent:.3f} [{row.low:.3f}, {row.high:.3f}]",
            "validation cost / budget": f"{row.validation_spent:.3f}",
            "trials over budget": f"{row.over_budget:.0%}",
            "mean quality": f"{row.quality:.3f}",
        }
        for row in errors.itertuples()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def family_table(family: str, contrast: Estimate | None) -> pd.DataFrame:
    """Return how much more alike a family's LLMs are to each other than to the rest, or that there is none."""
    said = "no such family in this pool"
    if contrast is not None:
        said = f"{contrast.estimate:+.3f} [{contrast.low:+.3f}, {contrast.high:+.3f}] over {contrast.n} cluster seeds"
    return pd.DataFrame({"similarity within the family minus to the others": {family: said}})
