"""Figure 2 (bottom): area on unseen LLMs against the number of validation prompts they are described by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy

import numpy as np
import pandas as pd

from replications.uniroute.learned_map import LearnedMap
from replications.uniroute.params import UniRouteParams
from replications.uniroute.pools import Pool
from replications.uniroute.selection import choose
from replications.uniroute.trials import Split, draw_split, neighbours_within
from routebook import routers
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import deferral_curve
from routebook.errors import UserError
from routebook.figures import Panel, label
from routebook.progress import progress
from routebook.record import Record
from routebook.significance import Estimate, mean_interval
from routebook.threads import one_thread

METHODS = ("zero-router", "k-nn", "retrained-mlp", "k-means", "learned-map")
COMPARED = (("k-means", "k-nn"), ("learned-map", "k-nn"), ("k-means", "retrained-mlp"))
# "96% confidence intervals (i.e. two-sigma standard errors)", Appendix G.2.
CONFIDENCE = 0.96
POOLS = ("routerbench", "mmlu-pro", "gsm8k-zeroeval", "overruling")


def pools_drawn(names: Sequence[str]) -> tuple[str, ...]:
    """Return the pools the figure is drawn for: those of `POOLS` that are there, else the first one there is."""
    return tuple(name for name in names if name in POOLS) or tuple(names[:1])


def sizes_that_fit(sizes: Sequence[int], n_prompts: int, test_share: float) -> list[int]:
    """Return the sample sizes a pool has the prompts for, ascending: at most half of what testing leaves.

    The other half and more stays for training, so that the training prompts outnumber the validation prompts, as in
    all of the paper's splits.

    Raises
    ------
    UserError
        When no size fits.
    """
    room = (n_prompts - round(test_share * n_prompts)) // 2
    fitting = sorted({size for size in sizes if size <= room})
    if not fitting:
        raise UserError(
            f"sample_sizes: found {sorted(sizes)}, but {n_prompts} prompts with test_share={test_share:g} leave at "
            f"most {room} for validation; give a smaller size, or leave this pool out with pools"
        )
    return fitting


def run_sizes(pool: Pool, sizes: Sequence[int], n_trials: int, n_jobs: int = 1) -> pd.DataFrame:
    """Measure the area of every method at every validation sample size, on the same test prompts and LLMs of a trial.

    Samples are nested, and the training prompts are those outside the largest one, so that within a trial nothing but
    the sample differs. K is tuned anew at each size by the paper's procedure.

    Parameters
    ----------
    pool
    sizes
        Already such as `sizes_that_fit` returns.
    n_trials
    n_jobs
        Processes to run trials in; the numbers do not depend on it.

    Returns
    -------
    DataFrame
        Columns trial, size, method, area.
    """
    from joblib import Parallel, delayed

    run = Parallel(n_jobs=n_jobs, return_as="generator")
    done = run(delayed(_run_alone)(pool, sizes, trial) for trial in range(n_trials))
    shown = progress(done, total=n_trials, label=f"sample sizes, {pool.benchmark.name}", unit="trial")
    rows = [row for trial in shown for row in trial]
    return pd.DataFrame(rows, columns=["trial", "size", "method", "area"])


def _run_alone(pool: Pool, sizes: Sequence[int], trial: int) -> list[dict]:
    """Run a trial on one thread: the same numbers in any process, and processes do not slow each other down."""
    with one_thread():
        return _trial(pool, sizes, trial)


def _trial(pool: Pool, sizes: Sequence[int], trial: int) -> list[dict]:
    benchmark, embeddings = pool.at_mean_cost, pool.embeddings
    settings = {n: UniRouteParams.build({**pool.params.model_dump(), "n_validation": n}) for n in sizes}
    split = draw_split(benchmark, settings[max(sizes)], trial)
    seed = pool.params.seed + trial
    sample = np.random.default_rng([seed, len(split.validation)]).permutation(split.validation)
    train = benchmark.subset(split.train, split.seen)
    candidates = _Candidates(train, embeddings[split.train], embeddings[sample], settings.values(), seed)
    tuning = benchmark.subset(sample, split.seen)
    rows = []
    for n, params in settings.items():
        known = benchmark.subset(sample[:n], split.unseen), embeddings[sample[:n]]
        fitted = {
            "zero-router": routers.ZeroRouter().fit(*known),
            "retrained-mlp": routers.MLP(seed=seed).fit(*known),
        }
        for method in ("k-nn", "k-means", "learned-map"):
            grid = neighbours_within(params.neighbours_tried, train) if method == "k-nn" else params.clusters_tried
            fitted[method] = candidates.chosen(method, grid, tuning.subset(np.arange(n)))
        # The number was chosen on LLMs that may have more labels than the new ones.
        (neighbours,) = neighbours_within([fitted["k-nn"].n_neighbours], known[0])
        fitted["k-nn"].set_params(n_neighbours=neighbours)
        for method in ("k-nn", "k-means", "learned-map"):
            fitted[method].add_models(*known)
        rows += [
            {"trial": trial, "size": n, "method": m, "area": _test_area(fitted[m], benchmark, embeddings, split)}
            for m in METHODS
        ]
    return rows


class _Candidates:
    """Every candidate router of a trial, fitted once on the training prompts and seen LLMs and shared by all sizes."""

    def __init__(
        self,
        train: RoutingBenchmark,
        embeddings: np.ndarray,
        sample_embeddings: np.ndarray,
        settings: Iterable[UniRouteParams],
        seed: int,
    ) -> None:
        settings = list(settings)
        starts = settings[0].kmeans_starts
        neighbours = neighbours_within((k for params in settings for k in params.neighbours_tried), train)
        clusterings = {
            k: routers.KMeans(k, seed=seed, n_init=starts).fit(train, embeddings)
            for k in sorted({k for params in settings for k in params.clusters_tried})
        }
        maps = {k: LearnedMap(k, seed=seed, clustering=c).fit(train, embeddings) for k, c in clusterings.items()}
        self.fitted: dict[str, dict[int, routers.Router]] = {
            "k-nn": {k: routers.KNN(k).fit(train, embeddings) for k in neighbours},
            "k-means": clusterings,
            "learned-map": maps,
        }
        # Estimates of the seen LLMs on the whole sample, in its order; a size reads the first rows.
        self.estimates: dict[str, Mapping[int, np.ndarray]] = {
            "k-nn": self.fitted["k-nn"][neighbours[-1]].predict_by_neighbours(sample_embeddings, neighbours),
            "k-means": {k: router.predict_quality(sample_embeddings) for k, router in clusterings.items()},
            "learned-map": {k: router.predict_quality(sample_embeddings) for k, router in maps.items()},
        }

    def chosen(self, method: str, grid: Sequence[int], tuning: RoutingBenchmark) -> routers.Router:
        """Return a copy of the candidate that is best on the first prompts of the sample (Appendix G.1)."""
        best = choose(lambda k: self.estimates[method][k][: len(tuning)], grid, tuning).best
        return deepcopy(self.fitted[method][best])


def _test_area(router: routers.Router, benchmark: RoutingBenchmark, embeddings: np.ndarray, split: Split) -> float:
    test = benchmark.subset(split.test, split.unseen)
    estimate = routers.quality_for(router, embeddings[split.test], split.unseen)
    return deferral_curve(estimate, test.quality, test.cost).area(left="flat")


def by_size(areas: pd.DataFrame, xlabel: str, title: str) -> Panel:
    """Return the figure's panel: mean area against sample size with 96 % intervals over trials."""
    curves, bands = {}, {}
    for method in METHODS:
        wide = areas[areas["method"] == method].pivot(index="trial", columns="size", values="area")
        interval = mean_interval(wide.to_numpy(), CONFIDENCE, axis=0)
        curves[method] = (wide.columns.to_numpy(), interval.estimate)
        bands[method] = (interval.low, interval.high)
    return Panel(title, curves, xlabel, bands)


def difference(areas: pd.DataFrame, a: str, b: str) -> Estimate:
    """Return area of a minus area of b, averaged over sizes in each trial: mean and 96 % interval over trials."""
    wide = areas.pivot(index=["trial", "size"], columns="method", values="area")
    return mean_interval((wide[a] - wide[b]).groupby("trial").mean().to_numpy(), CONFIDENCE)


def record_differences(record: Record, prefix: str, areas: pd.DataFrame) -> pd.DataFrame:
    """Record the paired differences over all sizes and at the smallest, and return them as readers see them."""
    smallest = areas[areas["size"] == areas["size"].min()]
    shown = {}
    for key, title, part in (("sizes", "mean over sizes", areas), ("smallest-size", "smallest size", smallest)):
        for a, b in COMPARED:
            d = difference(part, a, b)
            name = f"{prefix}/{key}/area-difference/{a}/{b}"
            record.value(name, d.estimate, low=d.low, high=d.high, n=d.n, unit="normalised area")
            shown[(title, f"{label(a)} − {label(b)}")] = f"{d.estimate:+.4f} [{d.low:+.4f}, {d.high:+.4f}]"
    return pd.DataFrame(shown, index=[prefix])
