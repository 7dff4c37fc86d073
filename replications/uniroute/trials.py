"""The paper's experiment: prompts and LLMs split at random, routers fitted, deferral curves over the unseen LLMs.

Section 6 and Appendices F.1, F.2 and G.2; what they leave open is listed in the chapter with our choices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from replications.uniroute.learned_map import LearnedMap
from replications.uniroute.params import UniRouteParams
from replications.uniroute.selection import Selection, select
from routebook import routers
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import DeferralCurve, deferral_curve
from routebook.errors import UserError
from routebook.progress import progress
from routebook.significance import mean_interval

# In the order of the paper's tables; the last four are not in the paper.
PAPER_METHODS = ("zero-router", "k-nn", "k-means", "learned-map")
METHODS = (*PAPER_METHODS, "oracle", "dataset-oracle", "best-single", "random")


@dataclass(frozen=True)
class Split:
    """One draw of the random split: rows of the benchmark and names of LLMs.

    Attributes
    ----------
    train, validation, test : ndarray of int
        Rows of each part.
    seen, unseen : list of str
        Training and testing LLMs (H_tr and H_te).
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    seen: list[str]
    unseen: list[str]


@dataclass(frozen=True)
class Trial:
    """One trial's outcome on the unseen LLMs: each method's exact deferral curve, and the K each selection picked."""

    split: Split
    curves: Mapping[str, DeferralCurve]
    selections: Mapping[str, Selection]


def draw_split(benchmark: RoutingBenchmark, params: UniRouteParams, trial: int) -> Split:
    """Draw the split of one trial: prompts into train, validation and test, LLMs into seen and unseen.

    Raises
    ------
    UserError
        When the benchmark has too few prompts or LLMs for the sizes asked for.
    """
    rng = np.random.default_rng([params.seed, trial])
    n_test = round(params.test_share * len(benchmark))
    parts = benchmark.random_split({"test": n_test, "validation": params.n_validation, "train": -1}, rng)
    smallest = max(params.clusters_tried)
    if len(parts["train"]) < smallest:
        raise UserError(
            f"{len(parts['train'])} training prompts are left after testing and validation, fewer than {smallest} "
            "clusters: lower n_validation, test_share or the cluster grid"
        )
    n_seen = int(params.train_llm_share * len(benchmark.models))
    if not 0 < n_seen < len(benchmark.models):
        raise UserError(
            f"train_llm_share={params.train_llm_share} of {len(benchmark.models)} LLMs leaves no LLM on one side"
        )
    order = rng.permutation(len(benchmark.models))
    seen = [benchmark.models[i] for i in sorted(order[:n_seen])]
    unseen = [benchmark.models[i] for i in sorted(order[n_seen:])]
    # A prompt no unseen LLM was observed on says nothing about routing among them.
    columns = benchmark.model_columns(unseen)
    test = parts["test"][~np.isnan(benchmark.quality[np.ix_(parts["test"], columns)]).all(axis=1)]
    return Split(parts["train"], parts["validation"], test, seen, unseen)


def run_trials(benchmark: RoutingBenchmark, embeddings: np.ndarray, params: UniRouteParams) -> list[Trial]:
    """Run `params.n_trials` independent trials.

    Parameters
    ----------
    benchmark
        Priced benchmark, N prompts x M LLMs.
    embeddings : [N, D]
    """
    trials = progress(range(params.n_trials), label="trials", unit="trial")
    return [run_trial(benchmark, embeddings, params, trial) for trial in trials]


def run_trial(benchmark: RoutingBenchmark, embeddings: np.ndarray, params: UniRouteParams, trial: int) -> Trial:
    """Run one trial: tune on the seen LLMs, describe the unseen ones by the validation prompts, route the test prompts.

    Routers see training prompts with the labels of seen LLMs and validation prompts with labels of all LLMs; nothing
    of a test prompt but its embedding (the Oracle excepted).
    """
    split = draw_split(benchmark, params, trial)
    train = benchmark.subset(split.train, split.seen)
    tuning = benchmark.subset(split.validation, split.seen)
    validation = benchmark.subset(split.validation, split.unseen)
    test = benchmark.subset(split.test, split.unseen)
    z = {"train": embeddings[split.train], "validation": embeddings[split.validation], "test": embeddings[split.test]}

    clusterings = {
        k: routers.KMeans(n_clusters=k, seed=params.seed + trial).fit(train, z["train"]) for k in params.clusters_tried
    }
    makers = {
        "k-nn": (lambda k: routers.KNN(n_neighbours=k), params.neighbours_tried),
        "k-means": (lambda k: routers.KMeans(n_clusters=k, seed=params.seed + trial), params.clusters_tried),
        "learned-map": (
            lambda k: LearnedMap(n_clusters=k, seed=params.seed + trial, clustering=clusterings[k]),
            params.clusters_tried,
        ),
    }
    selections, fitted = {}, {}
    for method, (make, grid) in makers.items():
        selections[method] = select(make, grid, train, z["train"], tuning, z["validation"])
        fitted[method] = make(selections[method].best).fit(train, z["train"]).add_models(validation, z["validation"])
    fitted["zero-router"] = routers.ZeroRouter().fit(validation, z["validation"])
    fitted["dataset-oracle"] = routers.DatasetOracle().fit(validation, z["validation"])
    fitted["best-single"] = routers.BestSingle().fit(validation, z["validation"])
    fitted["random"] = routers.Random(seed=params.seed + trial).fit(validation, z["validation"])
    fitted["oracle"] = routers.Oracle().fit(test, z["test"])
    curves = {
        method: deferral_curve(
            routers.quality_for(fitted[method], z["test"], split.unseen, tasks=test.tasks), test.quality, test.cost
        )
        for method in METHODS
    }
    return Trial(split, curves, selections)


def metrics_frame(trials: Sequence[Trial]) -> pd.DataFrame:
    """Return one row a trial and method with its metrics.

    Columns: trial, method, area (NaN for a method that is a single point and so has no curve), qnc (share of the most
    accurate unseen LLM's cost, capped at 1: who cannot match it falls back on it), reached (whether it was matched),
    peak, cost_at_peak (share of the dearest unseen LLM's cost).

    The oracle never picks an LLM that was not observed on a prompt, so where the cheapest was not, its curve starts a
    little above the cheapest LLM's cost; its quality there is held.
    """
    rows = []
    for number, trial in enumerate(trials):
        for method, curve in trial.curves.items():
            qnc = curve.qnc()
            rows.append(
                {
                    "trial": number,
                    "method": method,
                    "area": curve.area(left="flat") if len(curve) > 1 else np.nan,
                    "qnc": min(qnc, 1.0),
                    "reached": bool(np.isfinite(qnc)),
                    "peak": curve.peak,
                    "cost_at_peak": curve.cost_at_peak / curve.model_cost.max(),
                }
            )
    return pd.DataFrame(rows)


def summarise(metrics: pd.DataFrame, column: str, methods: Sequence[str] = METHODS) -> pd.DataFrame:
    """Return the mean over trials of a metric with its 95 % t-interval, one row a method: value, low, high, n."""
    rows = {}
    for method in methods:
        values = metrics.loc[metrics["method"] == method, column].to_numpy(dtype=float)
        interval = mean_interval(values)
        rows[method] = {"value": interval.estimate, "low": interval.low, "high": interval.high, "n": interval.n}
    return pd.DataFrame.from_dict(rows, orient="index")


def paired_difference(metrics: pd.DataFrame, column: str, a: str, b: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a metric of two methods, trial by trial: two arrays [n_trials] in the same order."""
    wide = metrics.pivot(index="trial", columns="method", values=column)
    return wide[a].to_numpy(dtype=float), wide[b].to_numpy(dtype=float)
