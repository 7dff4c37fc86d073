"""What the page on metrics computes: one set of routers, judged by every metric, and how often the judges disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd

from routebook import load, metrics, protocol
from routebook.encoders import embed_benchmark
from routebook.figures import INK, METHODS, Look, Panel, grid_plot, label, style
from routebook.metrics import METRICS, Judged
from routebook.protocol import Comparison
from routebook.significance import Estimate, mean_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from routebook.benchmark import RoutingBenchmark
    from routebook.pages import MetricsParams

BASE = "area"
# The oracle is a bound, not a router: it is shown but not ranked, and would only make metrics agree more.
RANKED = tuple(router for router in protocol.REFERENCES if router != "oracle")
DOLLARS = "USD per prompt"
SPACINGS: tuple[metrics.Spacing, ...] = get_args(metrics.Spacing)
GRID_METRICS = ("area", "area-step", "audc-exact", "aiq-paper", "aiq-code", "qnc", "peak", "cost-at-peak")
# Values closer than this, relative to the largest, are equal: they differ by the order of their sums.
SAME = 9
_COLOURS = [METHODS[m].colour for m in ("k-means", "k-nn", "learned-map", "dataset-oracle", "matfac", "oracle")]
_DASHES = ["-", "--", "-.", ":"]


# ---------------------------------------------------------------------------------------------------------------------
# Routers and their values
# ---------------------------------------------------------------------------------------------------------------------


def load_pool(name: str, params: MetricsParams) -> RoutingBenchmark:
    """Load a pool by name: at most `max_prompts` of its prompts, and the models that have a price."""
    options = {"prompt_view": params.prompt_view} if name == "routerbench" else {}
    return load(name, **options).priced().sample(params.max_prompts, params.seed)


def compare(benchmark: RoutingBenchmark, params: MetricsParams) -> Comparison:
    """Return the book's plain routers on a pool, on `n_splits` splits."""
    embeddings = embed_benchmark(benchmark, params.encoder)
    splits = protocol.draw_splits(
        benchmark, embeddings, params.n_splits, test_share=params.test_share, seed=params.seed
    )
    return protocol.compare(protocol.REFERENCES, splits)


def weak_and_strong(split: protocol.Split) -> tuple[int, int]:
    """Return the columns of RouteLLM's two models on a split: the cheapest, and the most accurate in training."""
    accuracy = np.nanmean(split.train.quality, axis=0)
    return int(split.price.argmin()), int(accuracy.argmax())


def judged(comparison: Comparison) -> list[Judged]:
    """Return what every metric looks at, one a split."""
    found = []
    for split, estimates, curves in zip(comparison.splits, comparison.estimates, comparison.curves, strict=True):
        weak, strong = weak_and_strong(split)
        both = ~np.isnan(split.test.quality[:, [weak, strong]]).any(axis=1)
        pairs = {
            router: metrics.call_share_curve(estimate[both], split.test.quality[both], weak, strong)
            for router, estimate in estimates.items()
        }
        dollars = 1000.0 if split.test.cost_unit == DOLLARS else metrics.RADIALROUTER_DEAREST / split.price.max()
        found.append(Judged(curves, pairs, dollars))
    return found


def values(judged: Sequence[Judged]) -> pd.DataFrame:
    """Return every metric of every router: rows (split, router), one column a metric."""
    frames = [pd.DataFrame({key: metric.read(one) for key, metric in METRICS.items()}) for one in judged]
    return pd.concat(frames, keys=range(len(frames)), names=["split", "router"])


def mean_values(values: pd.DataFrame) -> dict[tuple[str, str], Estimate]:
    """Return the mean over splits with its 95 % t-interval, by metric and router; infinite where any split is."""
    return {
        (metric, router): mean_interval(part.to_numpy())
        for metric in values
        for router, part in values[metric].groupby("router", sort=False)
    }


def estimate_frame(found: Mapping[tuple[str, str], Estimate]) -> pd.DataFrame:
    """Return estimates by pair of keys as a table to record: rows "first / second", columns value, low, high, n."""
    columns = {"value": "estimate", "low": "low", "high": "high", "n": "n"}
    return pd.DataFrame(
        {" / ".join(pair): {name: getattr(one, what) for name, what in columns.items()} for pair, one in found.items()}
    ).T


def value_table(values: pd.DataFrame) -> pd.DataFrame:
    """Return the means over splits as shown: one row a metric, one column a router, the best of a row in bold.

    The oracle is not eligible for bold. Where a value is infinite on some splits (QNC never reached), it says on how
    many.
    """
    rows = {}
    for key, metric in METRICS.items():
        column = values[key]
        means = column.groupby("router", sort=False).mean()
        ranked = means[list(RANKED)].replace([np.inf, -np.inf], np.nan)
        best = ranked.min() if metric.lower_is_better else ranked.max()
        # A mean that is best but for the last bits is best too.
        bold = {router for router, value in ranked.items() if np.isclose(value, best, rtol=10.0**-SAME)}
        rows[metric.label] = {
            label(router): _value_cell(part.to_numpy(), router in bold)
            for router, part in column.groupby("router", sort=False)
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _value_cell(found: np.ndarray, bold: bool) -> str:
    if np.isnan(found).all():
        return "–"
    endless = int(np.isinf(found).sum())
    if endless:
        return f"∞ in {endless} of {len(found)}"
    mean = np.nanmean(found)
    mean = 0.0 if abs(mean) < 10.0**-SAME else mean
    text = f"{mean:.3f}" if 1e-3 <= abs(mean) < 1e4 or mean == 0 else f"{mean:.2e}"
    return f"<b>{text}</b>" if bold else text


def definitions() -> pd.DataFrame:
    """Return every metric with its source, the question it answers, and what it depends on."""
    return pd.DataFrame(
        {
            metric.label: {
                "source": metric.source,
                "question it answers": metric.question,
                "better": "lower" if metric.lower_is_better else "higher",
                "depends on the others": "yes" if metric.company else "no",
            }
            for metric in METRICS.values()
        }
    ).T


# ---------------------------------------------------------------------------------------------------------------------
# Do the metrics agree?
# ---------------------------------------------------------------------------------------------------------------------


def goodness(values: pd.DataFrame) -> pd.DataFrame:
    """Return the values of the ranked routers with higher always better, rounded so that equals are equal."""
    kept = values[values.index.get_level_values("router").isin(RANKED)]
    signs = pd.Series({key: -1.0 if METRICS[key].lower_is_better else 1.0 for key in kept})
    largest = kept.replace([np.inf, -np.inf], np.nan).abs().max()
    return (kept * signs / largest).round(SAME)


def ranks(good: pd.DataFrame) -> pd.DataFrame:
    """Return the mean rank of each router (rows) by each metric (columns) over splits; 1 = best, ties share."""
    by_split = good.groupby("split").rank(ascending=False, method="average")
    return by_split.groupby("router", sort=False).mean()


def taus(good: pd.DataFrame) -> dict[tuple[str, str], Estimate]:
    """Return Kendall's tau-b between the rankings by any two metrics, mean over splits with its 95 % t-interval.

    Routers without a value by one of the two are left out.
    """
    each = np.array([_kendall(part.to_numpy()) for _, part in good.groupby("split")])
    pairs = combinations(range(len(good.columns)), 2)
    return {(good.columns[a], good.columns[b]): mean_interval(each[:, a, b]) for a, b in pairs}


def _kendall(values: np.ndarray) -> np.ndarray:
    """Return tau-b between any two columns of values [R, K], [K, K]: over the rows known in both, NaN where all tie.

    One call for all columns; scipy's takes a millisecond a pair of them.
    """
    first, second = (values[rows] for rows in np.triu_indices(len(values), 1))
    known = (~(np.isnan(first) | np.isnan(second))).astype(float)
    # Infinite values have an order but no difference.
    order = ((first > second) * 1.0 - (first < second)) * known
    untied = (order**2).T @ known
    with np.errstate(invalid="ignore"):
        return np.clip(order.T @ order / np.sqrt(untied) / np.sqrt(untied.T), -1, 1)


def tau_matrix(taus: Mapping[tuple[str, str], Estimate]) -> pd.DataFrame:
    """Return mean taus as a symmetric matrix, metrics by metrics, named as readers see them."""
    matrix = pd.DataFrame(1.0, index=list(METRICS), columns=list(METRICS))
    for (a, b), found in taus.items():
        matrix.loc[a, b] = matrix.loc[b, a] = found.estimate
    names = [metric.label for metric in METRICS.values()]
    return matrix.set_axis(names).set_axis(names, axis=1)


def _orders(part: pd.Series) -> dict[tuple[str, str], float]:
    """Return who is ahead in each pair of routers: 1 the first, -1 the second, 0 neither, NaN without a value."""
    by_router = part.droplevel("split")
    return {
        (a, b): float(np.sign((x > y) * 1.0 - (x < y))) if not (np.isnan(x) or np.isnan(y)) else float("nan")
        for a, b in combinations(RANKED, 2)
        for x, y in [(by_router[a], by_router[b])]
    }


def flips(good: pd.DataFrame, base: str = BASE) -> pd.DataFrame:
    """Return how often each pair of routers is ordered one way by `base` and the other way by each other metric.

    Returns
    -------
    DataFrame
        One row a metric and pair (columns metric, ahead, behind, share, n): `ahead` is the router that `base` prefers
        on most splits; `share` of the `n` splits on which both metrics have a value for both.
    """
    rows = []
    by_metric = {key: pd.DataFrame([_orders(part) for _, part in good[key].groupby("split")]) for key in good}
    for key in (key for key in good if key != base):
        for pair in by_metric[base]:
            ours, theirs = by_metric[base][pair], by_metric[key][pair]
            known = ~(ours.isna() | theirs.isna())
            if known.any():
                ahead, behind = pair if ours[known].sum() >= 0 else pair[::-1]
                share = float((ours[known] * theirs[known] < 0).mean())
                rows.append({"metric": key, "ahead": ahead, "behind": behind, "share": share, "n": int(known.sum())})
    return pd.DataFrame(rows)


def flip_table(flips: pd.DataFrame, taus: Mapping[tuple[str, str], Estimate], base: str = BASE) -> pd.DataFrame:
    """Return for each metric its tau with `base` and the pairs it turns round on more than half of the splits."""
    rows = {}
    for key, part in flips.groupby("metric", sort=False):
        found = taus[(base, key) if (base, key) in taus else (key, base)]
        often = part[part["share"] > 0.5].sort_values("share", ascending=False, kind="stable")
        named = [f"{label(row.ahead)} &gt; {label(row.behind)} ({row.share:.0%})" for row in often.itertuples()]
        # A t-interval knows no bounds; tau does.
        low, high = np.clip([found.low, found.high], -1, 1)
        rows[METRICS[key].label] = {
            f"τ with {METRICS[base].label}": protocol.cell(found.estimate, low, high, "{:+.2f}"),
            "pairs turned round": f"{len(often)} of {len(part)}",
            "which": ", ".join(named) or "–",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def company_flips(judged: Sequence[Judged]) -> pd.DataFrame:
    """Return how often two routers change places when all others leave, by metric and pair.

    Returns
    -------
    DataFrame
        One row a metric that depends on company and pair of ranked routers: columns metric, a, b, share.
    """
    rows = []
    for key, metric in METRICS.items():
        if not metric.company:
            continue
        together = [metric.read(one) for one in judged]
        for a, b in combinations(RANKED, 2):
            changed = []
            for one, every in zip(judged, together, strict=True):
                alone = metric.read(replace(one, curves={name: one.curves[name] for name in (a, b)}))
                before, after = (round(found[a] - found[b], SAME) for found in (every, alone))
                changed.append(before * after < 0)
            rows.append({"metric": key, "a": a, "b": b, "share": float(np.mean(changed))})
    return pd.DataFrame(rows)


def company_table(found: pd.DataFrame) -> pd.DataFrame:
    """Return `company_flips` as shown: one row a metric."""
    rows = {}
    for key, part in found.groupby("metric", sort=False):
        worst = part.sort_values("share", ascending=False, kind="stable").iloc[0]
        pair = f"{label(worst.a)}, {label(worst.b)} ({worst.share:.0%})" if worst.share > 0 else "–"
        rows[METRICS[key].label] = {"orders changed": f"{part['share'].mean():.1%}", "most often": pair}
    return pd.DataFrame.from_dict(rows, orient="index")


# ---------------------------------------------------------------------------------------------------------------------
# What a grid of λ misses
# ---------------------------------------------------------------------------------------------------------------------


def grid_errors(judged: Sequence[Judged], sizes: Sequence[int]) -> pd.DataFrame:
    """Return what a grid of λ gets wrong, against the exact curve.

    Every ranked router with more than one operating point is seen on grids of its own; each metric is then read as if
    there were nothing between the grid's points.

    Returns
    -------
    DataFrame
        One row a spacing, size and metric: `error`, the mean absolute error over routers and splits, in units of
        quality, or for costs as a share of the reference's (QNC, at most 1) or of the dearest model's cost (cost at
        peak); and `swapped`, the share of pairs of routers ordered otherwise than by the exact metric.
    """
    exact = [_readings(one) for one in map(_with_curves, judged)]
    rows = []
    for spacing in SPACINGS:
        for size in sizes:
            seen = [
                _readings(
                    replace(
                        one,
                        curves={
                            name: metrics.on_grid(curve, metrics.lambda_grid(curve, size, spacing))
                            for name, curve in one.curves.items()
                        },
                    )
                )
                for one in map(_with_curves, judged)
            ]
            for key in GRID_METRICS:
                error = np.mean([np.abs(a[key] - b[key]).mean() for a, b in zip(seen, exact, strict=True)])
                swapped = np.mean([_swapped(a[key], b[key]) for a, b in zip(seen, exact, strict=True)])
                rows.append({"spacing": spacing, "size": size, "metric": key, "error": error, "swapped": swapped})
    return pd.DataFrame(rows)


def _with_curves(one: Judged) -> Judged:
    """Return the ranked routers that have a curve and not only a point."""
    kept = {name: curve for name, curve in one.curves.items() if name in RANKED and len(curve) > 1}
    return replace(one, curves=kept)


def _readings(one: Judged) -> pd.DataFrame:
    """Return the metrics a grid is judged by, one row a router, costs as shares."""
    found = pd.DataFrame({key: METRICS[key].read(one) for key in GRID_METRICS})
    dearest = pd.Series({name: curve.model_cost.max() for name, curve in one.curves.items()})
    return found.assign(**{"qnc": found["qnc"].clip(upper=1), "cost-at-peak": found["cost-at-peak"] / dearest})


def _swapped(seen: pd.Series, exact: pd.Series) -> float:
    """Share of pairs whose strict order on the exact curves is the opposite on the grid."""
    first, second = np.triu_indices(len(exact), 1)
    by_grid, by_all = (found.to_numpy()[first] - found.to_numpy()[second] for found in (seen, exact))
    return float((by_grid.round(SAME) * by_all.round(SAME) < 0).mean())


def grid_table(errors: pd.DataFrame, sizes: Sequence[int]) -> pd.DataFrame:
    """Return the errors at some sizes as shown: one row a spacing and metric, one column a size."""
    part = errors[errors["size"].isin(sizes)]
    shown = part.pivot_table(index=["spacing", "metric"], columns="size", values="error", sort=False)
    names = [(spacing, METRICS[key].label) for spacing, key in shown.index]
    return shown.set_axis(pd.MultiIndex.from_tuples(names, names=["grid", "metric"]))


# ---------------------------------------------------------------------------------------------------------------------
# What was expected
# ---------------------------------------------------------------------------------------------------------------------


def expectations(good: pd.DataFrame, taus: Mapping[tuple[str, str], Estimate], errors: pd.DataFrame) -> dict[str, bool]:
    """Return whether each expectation, written on the page before its first run, held.

    "backwards": by cost at peak and by CSCR's coded QNC, which are costs of a router's own best, the ranking agrees
    with the ranking by peak less often than not (tau below 0). "hull": AIQ as printed and AIQ as coded put BestSingle
    on different ranks. "log": at every size of grid the log grid's error in area is smaller than that of the linear
    grid to the last change.
    """
    place = ranks(good)
    by_size = errors[errors["metric"] == BASE].pivot_table(index="size", columns="spacing", values="error")
    return {
        "backwards": all(taus[pair].estimate < 0 for pair in (("qnc-code", "peak"), ("peak", "cost-at-peak"))),
        "hull": bool(place.loc["best-single", "aiq-paper"] != place.loc["best-single", "aiq-code"]),
        "log": bool((by_size["log"] < by_size["linear"]).all()),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Figures
# ---------------------------------------------------------------------------------------------------------------------


def rank_plot(panels: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw mean ranks, one line a router from metric to metric; one panel a pool, one below another."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    names = [metric.label for metric in METRICS.values()]
    with style():
        figure, column = plt.subplots(
            len(panels), 1, figsize=(8.6, 3.6 * len(panels) + 1.2), sharex=True, squeeze=False
        )
        for axes, (pool, place) in zip(column[:, 0], panels.items(), strict=True):
            for router in RANKED:
                look = METHODS[router]
                line = place.loc[router, list(METRICS)]
                drawn = {"linestyle": look.dash or "-", "marker": look.marker, "color": look.colour, "lw": 1.4}
                axes.plot(names, line, label=look.label, **drawn)
            axes.set_ylim(len(RANKED) + 0.4, 0.6)
            axes.set_ylabel("Mean rank")
            axes.set_title(pool, fontsize=10.5, color=INK)
            axes.grid(True, lw=0.6)
        column[-1, 0].tick_params(axis="x", rotation=60)
        plt.setp(column[-1, 0].get_xticklabels(), ha="right", rotation_mode="anchor")
        figure.tight_layout()
        handles, labels = column[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.6), fontsize=9.5, labelcolor=INK)
        sns.despine(figure)
    return figure


def tau_plot(matrix: pd.DataFrame) -> Figure:
    """Draw Kendall's tau between metrics as a heat map from -1 to 1, with the numbers on it."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    with style():
        figure, axes = plt.subplots(figsize=(9.4, 8.0))
        options = {"annot": matrix.map("{:.1f}".format), "fmt": "", "annot_kws": {"fontsize": 8}}
        bar = {"label": "Kendall's τ, mean over splits", "shrink": 0.7}
        sns.heatmap(matrix, ax=axes, cmap="viridis", vmin=-1, vmax=1, square=True, cbar_kws=bar, **options)
        axes.tick_params(axis="x", rotation=60)
        plt.setp(axes.get_xticklabels(), ha="right", rotation_mode="anchor")
    return figure


def grid_plots(errors: pd.DataFrame) -> Figure:
    """Draw the error of a grid against its size, one line a metric and one panel a spacing."""
    looks = {
        key: Look(METRICS[key].label, _COLOURS[i % len(_COLOURS)], _DASHES[i % len(_DASHES)])
        for i, key in enumerate(GRID_METRICS)
    }
    panels = []
    for spacing, part in errors.groupby("spacing", sort=False):
        lines = {key: rows[["size", "error"]].to_numpy().T for key, rows in part.groupby("metric", sort=False)}
        # A log axis has no 0: a grid that is exact leaves the picture.
        lines = {key: (size, np.where(error > 0, error, np.nan)) for key, (size, error) in lines.items()}
        panels.append(Panel(spacing, lines, "Size of the grid"))
    figure = grid_plot(panels, ylabel="Mean absolute error", columns=3, logx=True, logy=True, looks=looks)
    # One scale for all panels: they are there to be compared.
    seen = errors["error"][errors["error"] > 0]
    for axes in figure.axes:
        axes.set_ylim(seen.min() / 1.5, seen.max() * 1.5)
    return figure
