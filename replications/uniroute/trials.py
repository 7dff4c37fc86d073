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

# In the order of the paper's Figure 6: dynamic and retrained routers, then those that see every label.
DYNAMIC_METHODS = ("zero-router", "k-nn", "retrained-mlp", "retrained-matfac", "k-means", "learned-map")
CLAIRVOYANT_METHODS = ("clairvoyant-mlp", "clairvoyant-matfac")
# The last four are not in the paper.
METHODS = (*DYNAMIC_METHODS, *CLAIRVOYANT_METHODS, "oracle", "dataset-oracle", "best-single", "random")
# "We choose d using the same procedure used to pick K" (Appendix G.2); the grid is not given.
RANKS = (2, 4, 8, 16)


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
    """One trial's outcome on the unseen LLMs.

    Attributes
    ----------
    curves
        Each method's exact deferral curve on the test prompts.
    selections
        What each tuned method was tuned to, with the validation area of every candidate.
    area_by_clusters
        Test area of UniRoute (K-means) for every candidate K; looked at after the fact, never used for tuning.
    """

    split: Split
    curves: Mapping[str, DeferralCurve]
    selections: Mapping[str, Selection]
    area_by_clusters: Mapping[int, float]


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
    seed = params.seed + trial

    clusterings = {k: routers.KMeans(n_clusters=k, seed=seed).fit(train, z["train"]) for k in params.clusters_tried}
    makers = {
        "k-nn": (lambda k: routers.KNN(n_neighbours=k), params.neighbours_tried),
        "k-means": (lambda k: routers.KMeans(n_clusters=k, seed=seed), params.clusters_tried),
        "learned-map": (
            lambda k: LearnedMap(n_clusters=k, seed=seed, clustering=clusterings[k]),
            params.clusters_tried,
        ),
        "matfac": (lambda rank: routers.MatrixFactorization(rank=rank, seed=seed), RANKS),
    }
    selections, fitted = {}, {}
    for method, (make, grid) in makers.items():
        selections[method] = select(make, grid, train, z["train"], tuning, z["validation"])
        if method != "matfac":
            router = make(selections[method].best).fit(train, z["train"])
            fitted[method] = router.add_models(validation, z["validation"])
    fitted |= _static_routers(benchmark, embeddings, split, selections["matfac"].best, seed)
    fitted["zero-router"] = routers.ZeroRouter().fit(validation, z["validation"])
    fitted["dataset-oracle"] = routers.DatasetOracle().fit(validation, z["validation"])
    fitted["best-single"] = routers.BestSingle().fit(validation, z["validation"])
    fitted["random"] = routers.Random(seed=seed).fit(validation, z["validation"])
    fitted["oracle"] = routers.Oracle().fit(test, z["test"])

    def curve(router: routers.Router) -> DeferralCurve:
        estimates = routers.quality_for(router, z["test"], split.unseen, tasks=test.tasks)
        return deferral_curve(estimates, test.quality, test.cost)

    curves = {method: curve(fitted[method]) for method in METHODS}
    by_clusters = {
        k: curve(clustering.add_models(validation, z["validation"])).area() for k, clustering in clusterings.items()
    }
    return Trial(split, curves, selections, by_clusters)


def _static_routers(
    benchmark: RoutingBenchmark, embeddings: np.ndarray, split: Split, rank: int, seed: int
) -> dict[str, routers.Router]:
    """Fit the routers with one output an LLM, which must be trained anew for the unseen LLMs (Appendix G.2).

    Retrained: on the validation prompts alone, which leaves nothing to choose a checkpoint by. Clairvoyant: on training
    and validation prompts with the labels of the unseen LLMs on both, keeping the checkpoint best on validation.
    """
    both = np.concatenate([split.train, split.validation])
    validation = benchmark.subset(split.validation, split.unseen), embeddings[split.validation]
    everything = benchmark.subset(both, split.unseen), embeddings[both]
    return {
        "retrained-mlp": routers.MLP(seed=seed).fit(*validation),
        "retrained-matfac": routers.MatrixFactorization(rank=rank, seed=seed).fit(*validation),
        "clairvoyant-mlp": routers.MLP(seed=seed).fit(*everything, validation=validation),
        "clairvoyant-matfac": routers.MatrixFactorization(rank=rank, seed=seed).fit(*everything, validation=validation),
    }


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
