"""Routers on a pool that never changes: every LLM is labelled on training and validation prompts.

UniRoute Appendix G.5 and Table 1. All methods learn from the training labels and are tuned by the area under the
deferral curve of the validation prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from replications.uniroute import tables, trials
from replications.uniroute.choices import at_mean_cost
from replications.uniroute.learned_map import LearnedMap
from replications.uniroute.params import SettingsParams
from replications.uniroute.selection import Selection, choose
from routebook import load, routers
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import DeferralCurve, deferral_curve
from routebook.errors import UserError
from routebook.figures import label
from routebook.ledger import Cell
from routebook.progress import progress
from routebook.routers import Validation
from routebook.threads import one_thread

# In the order of the paper's Table 1.
METHODS = ("zero-router", "mlp", "matfac", "k-nn", "k-means", "learned-map")
COMPARED = (
    ("k-means", "k-nn"),
    ("mlp", "k-means"),
    ("k-means", "zero-router"),
    ("learned-map", "k-means"),
    ("k-means", "dataset-oracle"),
)
PUBLISHED_ROWS = {
    "zero-router": "ZeroRouter (Hu et al., 2024b)",
    "mlp": "MLP Hu et al. (2024b)",
    "matfac": "Matrix Factorization (Ong et al., 2025; Zhuang et al., 2024)",
    "k-nn": "K -NN Hu et al. (2024b); Shnitzer et al. (2023)",
    "k-means": "UniRoute (K -Means)",
    "learned-map": "UniRoute (LearnedMap)",
}
PUBLISHED_COLUMNS = {"embedllm": "EmbedLLM", "mixinstruct": "MixInstruct", "routerbench": "RouterBench"}
# Shares of validation and test prompts. Overruling is split as its sibling Headlines is in G.5, all others 60/10/30.
SHARES = {"overruling": (0.1, 0.5)}
USUAL_SHARES = (0.1, 0.3)
# G.5 gives LearnedMap's learning rate and batch size but no epochs: as many as the MLP has in G.2.
EPOCHS, LEARNING_RATE, BATCH_SIZE = 10, 1e-3, 64
# Ten starts for each of ten candidates up to 300 clusters would take most of the page's time.
STARTS = 1


@dataclass(frozen=True)
class StaticTrial:
    """One trial on a static pool: each method's test curve, and what each tuned method was tuned to."""

    curves: Mapping[str, DeferralCurve]
    selections: Mapping[str, Selection]
    n_train: int


# Labels and embeddings of a trial's "train", "validation" and "test" prompts.
Parts = Mapping[str, Validation]


def load_pools(names: Sequence[str], params: SettingsParams) -> dict[str, RoutingBenchmark]:
    """Load pools by name, at most `max_prompts` prompts of each, with LLMs that have no price.

    Raises
    ------
    UserError, DataError
        When a dataset is not present or its files are damaged.
    """
    pools = {}
    for name in names:
        benchmark = load(name, **({"prompt_view": params.prompt_view} if name == "routerbench" else {}))
        pools[name] = benchmark.sample(params.max_prompts, params.seed)
    return pools


def pruned(grid: Sequence[int], n_validation: int) -> list[int]:
    """Return the candidates of `grid` that are at most the number of validation prompts, ascending.

    Appendix G.5 prunes "values that are too large for the given validation sample size" without a rule; more clusters
    or neighbours than validation prompts is our reading.

    Raises
    ------
    UserError
        When none is left.
    """
    kept = sorted({k for k in grid if k <= n_validation})
    if not kept:
        raise UserError(
            f"cluster_grid: the smallest candidate is {min(grid)}, but there are only {n_validation} validation "
            "prompts; give a smaller candidate or raise max_prompts"
        )
    return kept


def draw_split(benchmark: RoutingBenchmark, params: SettingsParams, trial: int) -> dict[str, np.ndarray]:
    """Return the rows of one trial's "train", "validation" and "test" prompts, never cutting a question in two."""
    validation, test = SHARES.get(benchmark.name, USUAL_SHARES)
    sizes = {"test": round(test * len(benchmark)), "validation": round(validation * len(benchmark)), "train": -1}
    return benchmark.random_split(sizes, np.random.default_rng([params.seed, trial]))


def run_trials(benchmark: RoutingBenchmark, embeddings: np.ndarray, params: SettingsParams) -> list[StaticTrial]:
    """Run `params.n_trials` trials of Appendix G.5 on one pool.

    Parameters
    ----------
    benchmark
        N prompts x M LLMs; those without a price are left out, and each counts with its mean price.
    embeddings : [N, D]
    """
    benchmark = at_mean_cost(benchmark.priced())
    groups = [
        range(params.n_trials)[i : i + trials.SIDE_BY_SIDE] for i in range(0, params.n_trials, trials.SIDE_BY_SIDE)
    ]
    groups = progress(groups, label=benchmark.name, unit="group of trials")
    with one_thread():
        return [trial for numbers in groups for trial in _run_group(benchmark, embeddings, params, numbers)]


def _run_group(
    benchmark: RoutingBenchmark, embeddings: np.ndarray, params: SettingsParams, numbers: Sequence[int]
) -> list[StaticTrial]:
    """Run trials that share nothing but their training steps."""
    parts: list[Parts] = []
    for number in numbers:
        rows = draw_split(benchmark, params, number)
        parts.append({name: (benchmark.subset(where), embeddings[where]) for name, where in rows.items()})
    tuned = _tuned(parts, params, [params.seed + number for number in numbers])
    return [_tested(part, *each) for part, each in zip(parts, tuned, strict=True)]


def _tested(part: Parts, fitted: Mapping[str, routers.Router], selections: Mapping[str, Selection]) -> StaticTrial:
    """Return a trial's curves on its test prompts, with those of routers that need no tuning."""
    # A prompt no LLM was observed on says nothing about routing.
    test, z_test = part["test"]
    answered = ~np.isnan(test.quality).all(axis=1)
    test, z_test = test.subset(answered), z_test[answered]
    known = {"zero-router": routers.ZeroRouter(), "dataset-oracle": routers.DatasetOracle()}
    others = {method: router.fit(*part["train"]) for method, router in known.items()}
    curves = {}
    for method, router in {**fitted, **others, "oracle": routers.Oracle().fit(test, z_test)}.items():
        estimate = routers.quality_for(router, z_test, test.models, tasks=test.tasks)
        curves[method] = deferral_curve(estimate, test.quality, test.cost)
    return StaticTrial(curves, selections, len(part["train"][0]))


def _tuned(
    parts: Sequence[Parts], params: SettingsParams, seeds: Sequence[int]
) -> list[tuple[dict[str, routers.Router], dict[str, Selection]]]:
    """Fit every tuned method with each candidate and keep the one with the largest validation area, trial by trial."""
    mlps = _checkpointed(lambda h, seed: routers.MLP((h, h), seed=seed), sorted(set(params.hidden_grid)), parts, seeds)
    matfacs = _checkpointed(lambda rank, seed: routers.MatrixFactorization(rank, seed=seed), trials.RANKS, parts, seeds)
    tuned = []
    for part, seed, *networks in zip(parts, seeds, mlps, matfacs, strict=True):
        train, (judged, asked) = part["train"], part["validation"]
        grid = pruned(params.cluster_grid, len(judged))
        neighbours = routers.KNN(n_neighbours=max(grid)).fit(*train)
        selections = {"k-nn": choose(neighbours.predict_by_neighbours(asked, grid).__getitem__, grid, judged)}
        fitted: dict[str, routers.Router] = {"k-nn": neighbours.set_params(n_neighbours=selections["k-nn"].best)}
        clusterings = {k: routers.KMeans(n_clusters=k, seed=seed, n_init=STARTS).fit(*train) for k in grid}
        for method, tried in zip(("k-means", "mlp", "matfac"), (clusterings, *networks), strict=True):
            estimates = {candidate: router.predict_quality(asked) for candidate, router in tried.items()}
            selections[method] = choose(estimates.__getitem__, list(tried), judged)
            fitted[method] = tried[selections[method].best]
        tuned.append((fitted, selections))
    settings = [(fitted["k-means"], selections["mlp"].best) for fitted, selections in tuned]
    for (fitted, _), router in zip(tuned, _learned_maps(parts, settings, seeds), strict=True):
        fitted["learned-map"] = router
    return tuned


def _checkpointed(
    make: Callable[[int, int], routers.TrainedRouter], grid: Sequence[int], parts: Sequence[Parts], seeds: Sequence[int]
) -> list[dict[int, routers.TrainedRouter]]:
    """Fit a network for each candidate and trial, a candidate's in all trials side by side.

    `make` takes the candidate and the seed. Each network keeps the epoch best on its trial's validation prompts.
    """
    fitted: list[dict[int, routers.TrainedRouter]] = [{} for _ in parts]
    for candidate in grid:
        group = [make(candidate, seed) for seed in seeds]
        routers.fit_together(group, [part["train"] for part in parts], [part["validation"] for part in parts])
        for of_trial, router in zip(fitted, group, strict=True):
            of_trial[candidate] = router
    return fitted


def _learned_maps(
    parts: Sequence[Parts], settings: Sequence[tuple[routers.KMeans, int]], seeds: Sequence[int]
) -> list[LearnedMap]:
    """Fit each trial's LearnedMap as in G.5: the MLP's hidden nodes, K-means' clusters.

    On MixInstruct as in F.3, last epoch. `settings` holds the clustering and the number of hidden nodes.
    """
    as_in_f3 = parts[0]["train"][0].name == "mixinstruct"
    group = []
    for (clustering, hidden), seed in zip(settings, seeds, strict=True):
        given = {"hidden": hidden, "epochs": EPOCHS, "lr": LEARNING_RATE, "batch_size": BATCH_SIZE}
        options = {} if as_in_f3 else given
        group.append(LearnedMap(clustering.n_clusters, clustering=clustering, seed=seed, **options))
    judges = None if as_in_f3 else [part["validation"] for part in parts]
    routers.fit_together(group, [part["train"] for part in parts], judges)
    return group


def table_1(metrics: Mapping[str, pd.DataFrame], published: Mapping[tuple[str, str], Cell]) -> pd.DataFrame:
    """Return Table 1 as shown: mean areas with 95 % intervals over trials, beside the paper's where it has any.

    Parameters
    ----------
    metrics
        Pool to the `trials.metrics_frame` of its trials.
    published
        Cells of the paper's Table 1.

    Returns
    -------
    DataFrame
        One row a method, one column a pool. The best of the paper's methods is in bold; the last row, DatasetOracle,
        is not in the paper.
    """
    rows = (*METHODS, "dataset-oracle")
    shown = {}
    for pool, frame in metrics.items():
        area = trials.summarise(frame, "area", rows)
        best = area["value"][list(METHODS)].idxmax()
        if pool in PUBLISHED_COLUMNS:
            cells = [published.get((PUBLISHED_ROWS.get(m, ""), PUBLISHED_COLUMNS[pool])) for m in rows]
            shown[f"{pool} (paper)"] = [cell.printed if cell else "–" for cell in cells]
        digits = "{:.4f}" if pool == "mixinstruct" else "{:.3f}"
        shown[pool] = [tables.interval_cell(area.loc[m], digits, m == best) for m in rows]
    return pd.DataFrame(shown, index=[label(m) for m in rows])


def selection_table(done: Mapping[str, Sequence[StaticTrial]]) -> pd.DataFrame:
    """Return what was picked in each trial: one row a pool, one column a tuned method."""
    names = {"k-nn": "neighbours", "k-means": "clusters", "mlp": "hidden nodes", "matfac": "rank"}
    rows = {
        pool: {
            f"{label(method)}: {what}": ", ".join(str(trial.selections[method].best) for trial in its_trials)
            for method, what in names.items()
        }
        for pool, its_trials in done.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")
