"""The paper's experiment: prompts and LLMs split at random, routers fitted, deferral curves over the unseen LLMs.

Section 6 and Appendices F.1, F.2 and G.2; what they leave open is listed in the chapter with our choices.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from replications.uniroute.learned_map import LearnedMap
from replications.uniroute.params import UniRouteParams
from replications.uniroute.selection import Selection, average, choose
from routebook import routers
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import DeferralCurve, deferral_curve
from routebook.errors import UserError
from routebook.progress import progress
from routebook.significance import mean_interval
from routebook.threads import one_thread, processes

# In the order of the paper's Figure 6: dynamic and retrained routers, then those that see every label.
DYNAMIC_METHODS = ("zero-router", "k-nn", "retrained-mlp", "retrained-matfac", "k-means", "learned-map")
CLAIRVOYANT_METHODS = ("clairvoyant-mlp", "clairvoyant-matfac")
# The last four are not in the paper.
METHODS = (*DYNAMIC_METHODS, *CLAIRVOYANT_METHODS, "oracle", "dataset-oracle", "best-single", "random")
# "We choose d using the same procedure used to pick K" (Appendix G.2); the grid is not given.
RANKS = (2, 4, 8, 16)
# Trials x prompts from which several processes gain more than their start takes.
WORTH_PROCESSES = 30_000
# Trials whose networks are trained side by side. More gain little and take their memory at once.
SIDE_BY_SIDE = 8


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
        What each tuned method was tuned to, with the validation area of every candidate: in this trial or, where K
        was tuned once per dataset, its mean over the tuning trials.
    area_by_clusters
        Test area of UniRoute (K-means) for every candidate K; looked at after the fact, never used for tuning. Where
        K was tuned once per dataset, only the tuning trials have every candidate.
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


def run_trials(
    benchmark: RoutingBenchmark,
    embeddings: np.ndarray,
    params: UniRouteParams,
    splits: Sequence[Split] | None = None,
    n_jobs: int | None = None,
    selections: Mapping[str, Selection] | None = None,
) -> list[Trial]:
    """Run `params.n_trials` independent trials.

    With ``params.tuning = "dataset"`` the first `tuning_trials` of them are also run with every candidate; the
    candidate with the largest mean validation area is then used in all trials ("the best K found on each dataset
    separately", Appendix G.2).

    Parameters
    ----------
    benchmark
        Priced benchmark, N prompts x M LLMs.
    embeddings : ndarray, [N, D]
    params
    splits
        One a trial, in place of those drawn at random; their number is then the number of trials.
    n_jobs
        Processes to run trials in; by default as many as there are processors, or 1 where the work is too small to
        pay for their start. The numbers do not depend on it.
    selections
        What each tuned method is to use in all trials (see `tuned_selections`), in place of any tuning.

    Returns
    -------
    list of Trial

    Raises
    ------
    UserError
        When n_jobs is below 1, or as in `draw_split`.
    """
    count = params.n_trials if splits is None else len(splits)
    once = params.tuning == "dataset" and selections is None
    n_tuning = min(params.tuning_trials, count) if once else 0
    if n_jobs is None:
        n_jobs = 1 if (count + n_tuning) * len(benchmark) < WORTH_PROCESSES else processes()
    if n_jobs < 1:
        raise UserError(f"n_jobs is {n_jobs}, expected a whole number of processes >= 1")
    problem = benchmark, embeddings, params
    splits = [draw_split(benchmark, params, i) for i in range(count)] if splits is None else splits
    given = list(enumerate(splits))
    tuning = _run_each(problem, given[:n_tuning], None, n_jobs, "tuning")
    done = _run_each(problem, given, tuned_selections(tuning) if once else selections, n_jobs, "trials")
    for i, every in enumerate(tuning):
        done[i] = replace(done[i], area_by_clusters=every.area_by_clusters)
    return done


def tuned_selections(tuning: Sequence[Trial]) -> dict[str, Selection]:
    """Return each method's choice by its validation areas averaged over trials that were tuned one by one."""
    return {method: average([trial.selections[method] for trial in tuning]) for method in tuning[0].selections}


def _run_each(
    problem: tuple[RoutingBenchmark, np.ndarray, UniRouteParams],
    given: Sequence[tuple[int, Split]],
    selections: Mapping[str, Selection] | None,
    n_jobs: int,
    label: str,
) -> list[Trial]:
    """Run trials, several side by side, in this process or, memory-mapping the arrays, in several processes.

    Which trials go together does not depend on the number of processes, so that no number does.
    """
    # An even number of groups of about one size, so that two processes end at about the same time.
    n_groups = min(2 * -(-len(given) // (2 * SIDE_BY_SIDE)), len(given))
    ends = [round(len(given) * i / n_groups) for i in range(n_groups + 1)] if n_groups else [0]
    groups = [given[start:end] for start, end in itertools.pairwise(ends)]
    if n_jobs == 1 or len(groups) < 2:
        done = (run_group(*problem, group, selections) for group in groups)
    else:
        from joblib import Parallel, delayed

        benchmark, *rest = problem
        # Only arrays are shared between processes; texts would be copied for every trial, and no router reads them.
        bare = replace(benchmark, prompts=[""] * len(benchmark), responses=None, embeddings=None)
        pool = Parallel(n_jobs=min(n_jobs, len(groups)), return_as="generator")
        done = pool(delayed(_run_quietly)(bare, *rest, group, selections) for group in groups)
    done = progress(done, total=len(groups), label=label, unit="group of trials")
    return [trial for group in done for trial in group]


def _run_quietly(*arguments: Any) -> list[Trial]:
    """Run trials in a worker process, whose progress bars would write over those of its parent."""
    os.environ["ROUTEBOOK_QUIET"] = "1"
    return run_group(*arguments)


def run_trial(
    benchmark: RoutingBenchmark,
    embeddings: np.ndarray,
    params: UniRouteParams,
    trial: int,
    split: Split | None = None,
    selections: Mapping[str, Selection] | None = None,
) -> Trial:
    """Run one trial by itself: `run_group` with one number and split (by default the one drawn at random)."""
    split = draw_split(benchmark, params, trial) if split is None else split
    return run_group(benchmark, embeddings, params, [(trial, split)], selections)[0]


def run_group(
    benchmark: RoutingBenchmark,
    embeddings: np.ndarray,
    params: UniRouteParams,
    given: Sequence[tuple[int, Split]],
    selections: Mapping[str, Selection] | None = None,
) -> list[Trial]:
    """Run trials: tune on the seen LLMs, describe the unseen ones by the validation prompts, route the test prompts.

    Routers see training prompts with the labels of seen LLMs and validation prompts with labels of all LLMs; nothing
    of a test prompt but its embedding (the Oracle excepted). The trials share nothing but their training steps, so
    their numbers depend on who is in the group by rounding alone.

    Parameters
    ----------
    benchmark, embeddings, params
        As in `run_trials`.
    given
        Number and split of each trial; the number and `params.seed` fix everything random.
    selections
        What k-nn, k-means, learned-map and matfac (both variants) are to use; without it each trial tunes them.
    """
    with one_thread():
        settings = [_Setting.of(benchmark, embeddings, split, params.seed + trial) for trial, split in given]
        prepared = _fit_dynamic(settings, params, selections)
        static = _static_routers(settings, [tuned["matfac"].best for _, tuned, _ in prepared])
        trials = []
        for (_, split), setting, (fitted, tuned, clusterings), others in zip(
            given, settings, prepared, static, strict=True
        ):
            fitted = fitted | others | _reference_routers(setting)
            curves = {method: setting.curve(fitted[method]) for method in METHODS}
            scored = {k: setting.curve(clustering).area() for k, clustering in clusterings.items()}
            trials.append(Trial(split, curves, tuned, scored))
    return trials


@dataclass(frozen=True)
class _Setting:
    """What the routers of a trial are fitted on and tested with; z holds the embeddings of each part, [n, D]."""

    train: RoutingBenchmark
    tuning: RoutingBenchmark
    validation: RoutingBenchmark
    everything: RoutingBenchmark
    test: RoutingBenchmark
    z: Mapping[str, np.ndarray]
    seed: int

    @classmethod
    def of(cls, benchmark: RoutingBenchmark, embeddings: np.ndarray, split: Split, seed: int) -> _Setting:
        both = np.concatenate([split.train, split.validation])
        n_train, everything = len(split.train), embeddings.take(both, axis=0)
        return cls(
            train=benchmark.subset(split.train, split.seen),
            tuning=benchmark.subset(split.validation, split.seen),
            validation=benchmark.subset(split.validation, split.unseen),
            everything=benchmark.subset(both, split.unseen),
            test=benchmark.subset(split.test, split.unseen),
            z={
                "train": everything[:n_train],
                "validation": everything[n_train:],
                "everything": everything,
                "test": embeddings.take(split.test, axis=0),
            },
            seed=seed,
        )

    def curve(self, router: routers.Router) -> DeferralCurve:
        """Return the deferral curve of a router over the unseen LLMs on the test prompts."""
        estimates = routers.quality_for(router, self.z["test"], self.test.models, tasks=self.test.tasks)
        return deferral_curve(estimates, self.test.quality, self.test.cost)


def _fit_dynamic(
    settings: Sequence[_Setting], params: UniRouteParams, selections: Mapping[str, Selection] | None
) -> list[tuple[dict[str, routers.Router], Mapping[str, Selection], dict[int, routers.KMeans]]]:
    """Tune the routers that take in new LLMs, unless that is done, and add the unseen LLMs to them.

    Every clustering is made once, and so is the search for neighbours, whatever number of candidates they serve.

    Returns
    -------
    list, one tuple a trial
        K-NN and both variants of UniRoute, able to route among the unseen LLMs; what each method was tuned to; and
        every K-means router that was needed, by its number of clusters, with the unseen LLMs added.
    """
    clusters = {
        method: params.clusters_tried if selections is None else [selections[method].best]
        for method in ("k-means", "learned-map")
    }
    clusterings = [
        {
            k: routers.KMeans(k, seed=setting.seed, n_init=params.kmeans_starts).fit(setting.train, setting.z["train"])
            for k in sorted({*clusters["k-means"], *clusters["learned-map"]})
        }
        for setting in settings
    ]
    maps = _fit_grid(
        settings,
        clusters["learned-map"],
        lambda k, number: LearnedMap(k, seed=settings[number].seed, clustering=clusterings[number][k]),
    )
    if selections is None:
        matfacs = _fit_grid(
            settings, RANKS, lambda rank, number: routers.MatrixFactorization(rank, seed=settings[number].seed)
        )
        tuned = [_tune(*each, params) for each in zip(settings, clusterings, maps, matfacs, strict=True)]
    else:
        tuned = [selections] * len(settings)
    return [
        (_with_unseen(setting, chosen, clustered, mapped), chosen, clustered)
        for setting, chosen, clustered, mapped in zip(settings, tuned, clusterings, maps, strict=True)
    ]


def _fit_grid(
    settings: Sequence[_Setting], grid: Sequence[int], make: Callable[[int, int], routers.TrainedRouter]
) -> list[dict[int, routers.TrainedRouter]]:
    """Fit a router for each candidate and trial on the training prompts, a candidate's in all trials side by side.

    `make` takes the candidate and the number of the trial within the group.
    """
    fitted: list[dict[int, routers.TrainedRouter]] = [{} for _ in settings]
    for candidate in grid:
        group = [make(candidate, number) for number in range(len(settings))]
        routers.fit_together(group, [(setting.train, setting.z["train"]) for setting in settings])
        for by_candidate, router in zip(fitted, group, strict=True):
            by_candidate[candidate] = router
    return fitted


def _tune(
    setting: _Setting,
    clusterings: Mapping[int, routers.KMeans],
    maps: Mapping[int, routers.TrainedRouter],
    matfacs: Mapping[int, routers.TrainedRouter],
    params: UniRouteParams,
) -> dict[str, Selection]:
    """Choose K and the rank by the validation area over the seen LLMs (Appendix G.1 and G.2)."""
    tuning, asked = setting.tuning, setting.z["validation"]
    counts = neighbours_within(params.neighbours_tried, setting.train)
    neighbours = routers.KNN(max(counts)).fit(setting.train, setting.z["train"]).predict_by_neighbours(asked, counts)
    return {
        "k-nn": choose(neighbours.__getitem__, counts, tuning),
        "k-means": choose(lambda k: clusterings[k].predict_quality(asked), list(clusterings), tuning),
        "learned-map": choose(lambda k: maps[k].predict_quality(asked), list(maps), tuning),
        "matfac": choose(lambda rank: matfacs[rank].predict_quality(asked), list(matfacs), tuning),
    }


def _with_unseen(
    setting: _Setting,
    selections: Mapping[str, Selection],
    clusterings: Mapping[int, routers.KMeans],
    maps: Mapping[int, routers.TrainedRouter],
) -> dict[str, routers.Router]:
    """Add the unseen LLMs to every clustering and to the routers that were chosen, and return these."""
    learned_map = maps[selections["learned-map"].best]
    for router in (*clusterings.values(), learned_map):
        router.add_models(setting.validation, setting.z["validation"])
    (neighbours,) = neighbours_within([selections["k-nn"].best], setting.validation)
    return {
        # The neighbours of unseen LLMs are validation prompts; those of seen LLMs are not asked for again.
        "k-nn": routers.KNN(neighbours).fit(setting.validation, setting.z["validation"]),
        "k-means": clusterings[selections["k-means"].best],
        "learned-map": learned_map,
    }


def neighbours_within(counts: Iterable[int], sample: RoutingBenchmark) -> list[int]:
    """Return numbers of neighbours, ascending, none above the labels of the LLM that has fewest in a sample.

    In a pool with gaps (Open LLM Leaderboard v2) an LLM may have fewer labels than the candidates ask for, or than were
    chosen on LLMs with more labels.
    """
    fewest = int((~np.isnan(sample.quality)).sum(axis=0).min())
    return sorted({min(count, fewest) for count in counts})


def _static_routers(settings: Sequence[_Setting], ranks: Sequence[int]) -> list[dict[str, routers.Router]]:
    """Fit the routers with one output an LLM, which must be trained anew for the unseen LLMs (Appendix G.2).

    Retrained: on the validation prompts alone, which leaves nothing to choose a checkpoint by. Clairvoyant: on training
    and validation prompts with the labels of the unseen LLMs on both, keeping the checkpoint best on validation.
    """
    validation = [(setting.validation, setting.z["validation"]) for setting in settings]
    everything = [(setting.everything, setting.z["everything"]) for setting in settings]
    fitted: list[dict[str, routers.Router]] = [{} for _ in settings]
    for name, problems, judges in (("retrained", validation, None), ("clairvoyant", everything, validation)):
        mlps = [routers.MLP(seed=setting.seed) for setting in settings]
        matfacs = [
            routers.MatrixFactorization(rank, seed=setting.seed) for rank, setting in zip(ranks, settings, strict=True)
        ]
        for kind, group in (("mlp", mlps), ("matfac", matfacs)):
            routers.fit_together(group, problems, judges)
            for routers_of_trial, router in zip(fitted, group, strict=True):
                routers_of_trial[f"{name}-{kind}"] = router
    return fitted


def _reference_routers(setting: _Setting) -> dict[str, routers.Router]:
    """Fit what other routers are measured by; only the oracle sees test labels."""
    validation = setting.validation, setting.z["validation"]
    return {
        "zero-router": routers.ZeroRouter().fit(*validation),
        "dataset-oracle": routers.DatasetOracle().fit(*validation),
        "best-single": routers.BestSingle().fit(*validation),
        "random": routers.Random(seed=setting.seed).fit(*validation),
        "oracle": routers.Oracle().fit(setting.test, setting.z["test"]),
    }


def metrics_frame(trials: Sequence[Trial]) -> pd.DataFrame:
    """Return one row a trial and method with its metrics.

    Columns: trial, method, area (NaN for BestSingle, a single point that spends the same whatever the budget), qnc
    (share of the most accurate unseen LLM's cost, capped at 1: who cannot match it falls back on it), reached (whether
    it was matched), peak, cost_at_peak (share of the dearest unseen LLM's cost).

    Where all unseen LLMs cost the same, only one budget is left, and the area is the quality at that budget: the limit
    of the mean quality over budgets from there as their range shrinks. It is not the limit of the areas of pools whose
    prices draw together, since those begin with the cheapest LLM alone. The QNC is then 1, matched or not.

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
                    "area": np.nan if method == "best-single" else curve.area(left="flat"),
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
