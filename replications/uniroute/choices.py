"""What the paper leaves open: each detail with our choice and, where it can be run, its measured effect."""

from __future__ import annotations

import timeit
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from replications.uniroute.learned_map import LearnedMap
from replications.uniroute.params import UniRouteParams
from replications.uniroute.trials import Split, Trial, draw_split
from routebook import load, routers
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import DeferralCurve, deferral_curve, interpolate
from routebook.encoders import measure_latency
from routebook.significance import Estimate, mean_interval


def at_mean_cost(benchmark: RoutingBenchmark) -> RoutingBenchmark:
    """Return the benchmark with each LLM's mean price in place of every call's: c(h) does not depend on the prompt."""
    return benchmark.with_cost(benchmark.mean_cost, benchmark.cost_unit)


@dataclass(frozen=True)
class Refit:
    """UniRoute fitted once more on the split of a trial, to be scored another way."""

    router: routers.KMeans | LearnedMap
    quality_hat: np.ndarray
    test: RoutingBenchmark

    def curve(self) -> DeferralCurve:
        """Return the deferral curve on the test prompts."""
        return deferral_curve(self.quality_hat, self.test.quality, self.test.cost)

    def area(self) -> float:
        """Return its area; where prices differ from prompt to prompt it may start above the cheapest mean price."""
        return self.curve().area(left="flat")


def refit(
    router: routers.KMeans | LearnedMap, benchmark: RoutingBenchmark, embeddings: np.ndarray, split: Split
) -> Refit:
    """Fit a dynamic router on the seen LLMs of a trial's split, add the unseen ones, predict on the test prompts."""
    router.fit(benchmark.subset(split.train, split.seen), embeddings[split.train])
    router.add_models(benchmark.subset(split.validation, split.unseen), embeddings[split.validation])
    test = benchmark.subset(split.test, split.unseen)
    return Refit(router, routers.quality_for(router, embeddings[split.test], split.unseen), test)


def single_cluster_curve(
    benchmark: RoutingBenchmark, embeddings: np.ndarray, params: UniRouteParams, trial: int = 0
) -> DeferralCurve:
    """Return the deferral curve of UniRoute (K-means) with K = 1 on a trial's split."""
    split = draw_split(benchmark, params, trial)
    return refit(routers.KMeans(n_clusters=1, seed=params.seed), benchmark, embeddings, split).curve()


def open_choices(
    done: Sequence[Trial], benchmark: RoutingBenchmark, embeddings: np.ndarray, params: UniRouteParams
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the measured effects as numbers, and the whole table as readers see it.

    Effects are differences of mean area (or QNC) over the trials: the other choice minus ours, with 95 % t-intervals.
    """
    constant = at_mean_cost(benchmark)
    moved: dict[str, list[float]] = {"steps": [], "cost per prompt": [], "linear map": [], "momentum 0.9": []}
    empty = 0
    for number, trial in enumerate(done):
        ours = {method: trial.curves[method].area() for method in ("k-means", "learned-map")}
        moved["steps"].append(trial.curves["k-means"].area(interpolation="step") - ours["k-means"])
        seed, best = params.seed + number, trial.selections["learned-map"].best
        clusters = routers.KMeans(n_clusters=trial.selections["k-means"].best, seed=seed)
        priced = refit(clusters, benchmark, embeddings, trial.split).area()
        moved["cost per prompt"].append(priced - ours["k-means"])
        linear = LearnedMap(n_clusters=best, seed=seed, architecture="linear")
        moved["linear map"].append(refit(linear, constant, embeddings, trial.split).area() - ours["learned-map"])
        faster = LearnedMap(n_clusters=best, seed=seed, bn_momentum=0.9)
        moved["momentum 0.9"].append(refit(faster, constant, embeddings, trial.split).area() - ours["learned-map"])
        empty += clusters.n_clusters - len(np.unique(clusters.assign(embeddings[trial.split.validation])))
    curves = [trial.curves["k-means"] for trial in done]
    unreached = float(np.mean([not np.isfinite(curve.qnc()) for curve in curves]))
    read_off = qnc_of_mean_curve(curves) - float(np.mean([min(curve.qnc(), 1.0) for curve in curves]))
    bounds = {name: mean_interval(values) for name, values in moved.items()}
    numbers = pd.DataFrame.from_dict(
        {name: {"effect": b.estimate, "low": b.low, "high": b.high} for name, b in bounds.items()}, orient="index"
    )
    return numbers, _table(bounds, read_off, unreached, empty, benchmark)


def qnc_of_mean_curve(curves: Sequence[DeferralCurve]) -> float:
    """Return the QNC read off the mean curve, one reading of "derived from these curves" (Appendix G.3).

    Each trial's curve is taken over cost as a share of its most accurate unseen LLM's cost; the curves are averaged,
    and the QNC is the smallest share at which their mean matches the mean quality of those LLMs. A budget that only
    some trials can meet is skipped; a match never made counts as 1.
    """
    best = [curve.best_model for curve in curves]
    unit = [curve.model_cost[b] for curve, b in zip(curves, best, strict=True)]
    lowest = max(curve.points[0][0] / u for curve, u in zip(curves, unit, strict=True))
    share = np.linspace(min(lowest, 1.0), 1.0, 2001)
    mean = np.mean([interpolate(curve, share * u) for curve, u in zip(curves, unit, strict=True)], axis=0)
    wanted = np.mean([curve.model_quality[b] for curve, b in zip(curves, best, strict=True)])
    reached = np.flatnonzero(mean >= wanted)
    return float(share[reached[0]]) if len(reached) else 1.0


def _views_seen(benchmark: RoutingBenchmark) -> str:
    """Say how many different texts an encoder gets to see in each prompt view of RouterBench."""
    if benchmark.name != "routerbench":
        return "not run"
    seen = {view: set(load("routerbench", prompt_view=view).prompts) for view in ("question", "first-1400-chars")}
    return (
        f"{len(seen['question'])} different texts with the question alone, {len(seen['first-1400-chars'])} with the "
        "first 1,400 characters; rerun with prompt_view=first-1400-chars"
    )


def _table(
    bounds: dict[str, Estimate], read_off: float, unreached: float, empty: int, benchmark: RoutingBenchmark
) -> pd.DataFrame:
    area = {name: f"area {b.estimate:+.4f} [{b.low:+.4f}, {b.high:+.4f}]" for name, b in bounds.items()}
    rows = [
        (
            "normalised area (Section 6)",
            "“normalized area under such curve”",
            "quality integrated over cost from the cheapest to the dearest unseen LLM, divided by that range",
            "absolute areas are not comparable with the paper's; orders are",
        ),
        (
            "between two values of λ (F.2)",
            "not said",
            "a straight line: toss a coin between the two",
            f"{area['steps']} with steps",
        ),
        (
            "cost of an LLM (Section 6)",
            "“API calling costs (in USD)”",
            "one mean price an LLM, as c(h) has no prompt in it",
            f"{area['cost per prompt']} when each call's own price is known beforehand",
        ),
        (
            "QNC over trials (G.3)",
            "“derived from these [mean] curves”",
            "mean of the trials' QNC, capped at 100 %",
            f"QNC {100 * read_off:+.1f} points when read off the mean curve; the best LLM was never matched in "
            f"{100 * unreached:.0f} % of trials",
        ),
        (
            "empty clusters (Eq. 12)",
            "not said",
            "the LLM's error over all validation prompts",
            f"{empty} clusters were empty in these trials",
        ),
        (
            "LearnedMap (5.2, F.3, G.2)",
            "three descriptions: softmax of a linear map; “softmax-dense layer”; two hidden layers with batch norm",
            "F.3, the most detailed",
            f"LearnedMap's {area['linear map']} with the linear map",
        ),
        (
            "batch norm in LearnedMap (F.3)",
            "“We use Keras”; no momentum given",
            "Keras's default, 0.99: after a hundred or so steps the running moments are still near their start",
            f"LearnedMap's {area['momentum 0.9']} with 0.9",
        ),
        (
            "features of seen LLMs when LearnedMap is trained",
            "“validation set” (5.2), “training set” (G.2)",
            "training set",
            "not run",
        ),
        (
            "K-NN's K (G.2)",
            "tuned with neighbours in the training set, used with neighbours in the validation set",
            "as written; the two sets differ in density, so the tuned K suits neither",
            "see the selection above",
        ),
        (
            "embedding",
            "Gecko 1B, 768 dimensions, not public",
            "all-MiniLM-L6-v2, 384 dimensions, unit length",
            "not run",
        ),
        (
            "prompt text of RouterBench",
            "not said; prompts carry worked examples shared by a whole dataset",
            "the question alone",
            _views_seen(benchmark),
        ),
        ("split of 11 LLMs", "“a random 50%”", "5 seen, 6 unseen", "not run"),
        ("ties", "not said", "the cheaper LLM", "not run"),
    ]
    columns = ["detail", "the paper says", "our choice", "measured effect of the other choice"]
    return pd.DataFrame(rows, columns=columns).rename(index=lambda i: i + 1)


def latency_table(benchmark: RoutingBenchmark, embeddings: np.ndarray, params: UniRouteParams) -> pd.DataFrame:
    """Return the router's own cost in milliseconds a prompt: embedding it, and scoring all LLMs once it is embedded.

    Scoring: routers fitted on `n_validation` prompts; median of 20 passes over up to 1,000 prompts. Embedding: median
    over single prompts, not cached; left out where the data brings its embeddings. This machine, CPU only.
    """
    clusters, neighbours = max(params.clusters_tried), max(params.neighbours_tried)
    candidates = {
        f"K-NN, {neighbours} of {params.n_validation} neighbours": routers.KNN(n_neighbours=neighbours),
        f"UniRoute (K-means), K = {clusters}": routers.KMeans(n_clusters=clusters, seed=params.seed),
        f"UniRoute (LearnedMap), K = {clusters}": LearnedMap(n_clusters=clusters, seed=params.seed),
    }
    rows = {}
    if params.encoder != "auto" or benchmark.embeddings is None:
        name = "minilm" if params.encoder == "auto" else params.encoder
        rows[f"embedding ({name})"] = measure_latency(name, benchmark.prompts[:20])
    known = benchmark.subset(np.arange(params.n_validation))
    for name, router in candidates.items():
        router.fit(known, embeddings[: params.n_validation])
        passes = timeit.repeat(lambda router=router: router.predict_quality(embeddings[:1000]), number=1, repeat=20)
        rows[f"scoring, {name}"] = 1000 * float(np.median(passes)) / len(embeddings[:1000])
    return pd.DataFrame({"milliseconds a prompt": {name: f"{value:.4f}" for name, value in rows.items()}})
