"""What the page on sparsity shows: how few labels are enough, what a new LLM takes, and how fast routing is.

The curves are experiments of ours: the paper's title claims data efficiency and no figure of it shows any. A record is
the keyword arguments of `routebook.record.Record.value`, with the key the ledger reads.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from replications.semirouter import cells, experiment
from replications.semirouter.backbone import quality_levels, to_levels
from replications.semirouter.baselines import CLUSTERS, LoraRetriever
from replications.semirouter.experiment import MACRO, Fitted, Setting
from replications.semirouter.params import SHARES_COMPARED
from replications.semirouter.semi_router import SemiRouter, add_many, fit_many
from replications.semirouter.tables import Record, record_of
from routebook import encoders, figures, runs
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError
from routebook.figures import METHODS, Look, Panel
from routebook.quiet import quiet
from routebook.routers import KNN, BaseRouter, BestSingle, Oracle, quality_for
from routebook.significance import Estimate, mean_interval
from routebook.threads import one_thread

if TYPE_CHECKING:
    from replications.semirouter.params import SparsityParams

OURS = "semirouter-emb"
FULL = "bert-full"
VARIANTS = (OURS, "semirouter-mlp", "semirouter-att")
SLOW = ("semirouter-mlp", "semirouter-att", "router-dc-ss")
MAJORITY = "dataset-oracle"
# In the order of the tables; all but the first learn from the same sparse labels as SemiRouter.
RIVALS = (
    FULL,
    "zooter",
    "lora-retriever",
    "router-dc-ss",
    "semirouter-att",
    "semirouter-mlp",
    "k-means",
    "k-nn",
    MAJORITY,
    "best-single",
)
# The full-data row is a level and no curve, and another row has its dashes; BestSingle is a point elsewhere.
LOOKS = {
    **METHODS,
    FULL: replace(METHODS[FULL], dash="-"),
    "best-single": replace(METHODS["best-single"], dash="--"),
}
NEIGHBOURS = 40  # of K-NN: as many as LoraRetriever's clusters
FEW_CLUSTERS = CLUSTERS[0]  # of K-means, beside LoraRetriever, which is K-means with the most
SPARSE = "-sparse"
METRICS = {
    "label-accuracy": "label accuracy, all LLMs",
    "label-accuracy-sparse": "label accuracy, sparse LLMs",
    "routed-quality": "routed quality, all LLMs",
    "routed-quality-sparse": "routed quality, sparse LLMs",
}
DASH = "–"
FEW_STEPS = 5
N_TIMED, MOST_ENCODINGS, FEWEST_TIMED = 6, 42, 1
FEWEST_BOUNDED = 5
# What all labels reach is reached when a method is so many points below it.
NEARLY = 1.0

WITHOUT, ADDED, ADAPTER, RETRAINED, CLUSTERED = "without", "added", "adapter", "retrained", "lora-retriever"
WAYS = {
    WITHOUT: Look("Without the new LLM", METHODS["best-single"].colour, ":"),
    ADDED: Look("Its vector is trained", METHODS[OURS].colour, "-"),
    ADAPTER: Look("R-adapter trained on", METHODS["semirouter-mlp"].colour, "--"),
    RETRAINED: Look("Everything anew", METHODS["k-means"].colour, "-."),
    CLUSTERED: Look("LoraRetriever", METHODS["lora-retriever"].colour, ":"),
}
JOINED = {
    "label-accuracy": "label accuracy on the new LLM",
    "routed-quality-sparse": "routed quality, sparse LLMs",
    "others-change": "change on the other sparse LLMs",
}
SPEEDS = {
    "uncached": Look("Query read for each LLM", METHODS["umr"].colour, "--"),
    "cached": Look("Query read once for all", METHODS["k-means"].colour, "-"),
    "known": Look("Features already there", METHODS["zooter"].colour, ":"),
}


# --- data and routers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Pool:
    """A benchmark, its trials, and the routers trained in them on one share of the labels after another.

    Attributes
    ----------
    name
    benchmark : RoutingBenchmark
        Before it is split.
    settings : list of Setting
        One a seed, with the page's labels a query.
    fitted
        ("<method>/<share>", seed) to a router; random and the oracle have no share.
    """

    name: str
    benchmark: RoutingBenchmark
    settings: list[Setting]
    fitted: Fitted


def load_pools(params: SparsityParams) -> dict[str, Pool]:
    """Load, split, embed and train on every pool the parameters ask for; errors as in `experiment.settings_of`."""
    pools: dict[str, Pool] = {}
    for name in runs.resolve_datasets(params):
        benchmark = experiment.load_pool(params, name)
        settings = experiment.settings_of(benchmark, params)
        fitted = train(params, settings, grid_of(params, first=not pools))
        pools[name] = Pool(name, benchmark, settings, fitted)
    return pools


def grid_of(params: SparsityParams, *, first: bool) -> dict[float, list[str]]:
    """Return the methods to train at each share, in ascending order: all of them at the shares of the slow ones."""
    shares, slow = (params.shares, params.slow_shares) if first else (params.further_shares, params.slow_further_shares)
    methods = [OURS, *(method for method in RIVALS if method != FULL)]
    return {share: [m for m in methods if m not in SLOW or share in slow] for share in sorted(set(shares))}


def named(method: str, share: float) -> str:
    """Return the name of a method at a share, e.g. "zooter/0.01"."""
    return f"{method}/{share:g}"


def train(
    params: SparsityParams, settings: Sequence[Setting], grid: Mapping[float, Sequence[str]]
) -> dict[tuple[str, int], BaseRouter]:
    """Train the methods of a grid (`grid_of`) on every setting, and the references that have no share.

    Clusters come from the prompts alone, so the two methods that look up means in them cluster once for all shares.
    """
    most = max(grid)
    clustered = {"lora-retriever": params.n_clusters, "k-means": min(FEW_CLUSTERS, params.n_clusters)}
    thinned = {(share, s.seed): s.thinned(share=share) for s in settings for share in grid}
    wanted: dict[tuple[str, int], experiment.Job] = {}
    for setting in settings:
        for name, method in ((named(FULL, 1), FULL), ("random", "random"), ("oracle", "oracle")):
            wanted[name, setting.seed] = (method, setting, {})
        for method, n in clustered.items():
            job = ("lora-retriever", thinned[most, setting.seed], {"n_clusters": n})
            wanted[named(method, most), setting.seed] = job
        for share, methods in grid.items():
            for method in methods:
                if method not in clustered and method != "k-nn":
                    wanted[named(method, share), setting.seed] = (method, thinned[share, setting.seed], {})
    fitted = experiment.fit_each(params, wanted)
    for (share, seed), setting in thinned.items():
        fitted[named("k-nn", share), seed] = neighbours_of(setting)
        for method in clustered:
            fitted[named(method, share), seed] = relabelled(fitted[named(method, most), seed], setting)
    return fitted


def neighbours_of(setting: Setting) -> KNN:
    """Return K-NN on a setting's sparse labels, with fewer neighbours where an LLM has fewer labels."""
    n_labelled = (~np.isnan(setting.sparse.quality)).sum(axis=0).min()
    return KNN(min(NEIGHBOURS, int(n_labelled))).fit(setting.sparse, setting.train_embeddings)


def relabelled(router: LoraRetriever, setting: Setting) -> LoraRetriever:
    """Return the router with the same clusters and the means of a setting's sparse labels in them."""
    return copy.copy(router).add_models(setting.sparse, setting.train_embeddings)


def sparse_llms(setting: Setting) -> list[str]:
    """Return the LLMs that are no anchors, in pool order."""
    return [model for model in setting.full.models if model not in setting.anchors]


def pool_table(pools: Mapping[str, Pool], params: SparsityParams) -> pd.DataFrame:
    """Return what each pool has to learn from: prompts, LLMs, and labels of a sparse LLM at two shares."""
    rows = {}
    for name, pool in pools.items():
        setting = pool.settings[0]
        n, least = len(setting.full), min(grid_of(params, first=name == next(iter(pools))))
        rows[name] = {
            "training prompts": n,
            "test prompts": len(setting.test),
            "LLMs": len(setting.full.models),
            "anchors": ", ".join(cells.slug(anchor) for anchor in setting.anchors),
            "fewest labels of a sparse LLM": f"{max(1, round(least * n))} ({least:.0%})",
            "share of labels": f"{share_of(params, setting):.0%}",
        }
    return pd.DataFrame(rows).rename(index={"share of labels": f"{params.per_query} labels a query are a share of"})


def share_of(params: SparsityParams, setting: Setting) -> float:
    """Return the share of the sparse LLMs' labels that the paper's number of labels a query comes to."""
    return min(1.0, params.per_query / len(sparse_llms(setting)))


# --- data efficiency -------------------------------------------------------------------------------------------------


def measure(pool: Pool) -> pd.DataFrame:
    """Return what every router earns, as means over the source datasets.

    Returns
    -------
    DataFrame
        As `experiment.evaluate`, its macro rows alone: `method` ("<method>/<share>"), `seed`, `dataset`, and the
        columns of `METRICS` in percent. Those that end in "-sparse" are of the LLMs that are no anchors: accuracy over
        pairs with them, and quality of the answers where these alone may be chosen.
    """
    alone = [setting.routed_among(sparse_llms(setting)) for setting in pool.settings]
    by_seed = {setting.seed: setting for setting in pool.settings}
    # Held once for all: entering it takes longer than many a prediction.
    with one_thread():
        answers = {key: Answers(router, by_seed[key[1]]) for key, router in pool.fitted.items()}
    whole = experiment.evaluate(answers, pool.settings)
    part = experiment.evaluate({**answers, **_best_of_sparse(pool)}, alone)
    keys = ["method", "seed", "dataset"]
    frame = whole.merge(part, on=keys, suffixes=("", SPARSE))
    return frame.loc[frame["dataset"] == MACRO, [*keys, *METRICS]]


class Answers:
    """What a router says of the test prompts of a setting: asked once, and good for several metrics.

    K-NN names no labels; those nearest to its estimates stand for them, as with LoraRetriever.
    """

    uses_tasks = False

    def __init__(self, router: BaseRouter, setting: Setting):
        self.models_ = setting.test.models
        self.quality, labels = experiment.answers_of(router, setting)
        if isinstance(router, KNN):
            labels = to_levels(self.quality, quality_levels(setting.sparse.quality))
        if labels is not None:
            self.predict_labels = lambda embeddings: labels

    def predict_quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the estimates, [N, M]."""
        return self.quality


def _best_of_sparse(pool: Pool) -> Fitted:
    """Return BestSingle among the sparse LLMs: that of the whole pool is an anchor as a rule."""
    found = {}
    for setting in pool.settings:
        for name, seed in pool.fitted:
            method, _, share = name.partition("/")
            if method == "best-single" and seed == setting.seed:
                labels = setting.thinned(share=float(share)).sparse.subset(models=sparse_llms(setting))
                found[name, seed] = BestSingle().fit(labels, setting.train_embeddings)
    return found


def shares_in(frame: pd.DataFrame, method: str = OURS) -> list[float]:
    """Return the shares at which a method was trained."""
    names = dict.fromkeys(frame["method"])
    return sorted(float(name.partition("/")[2]) for name in names if name.startswith(f"{method}/"))


def compared_in(frame: pd.DataFrame) -> list[float]:
    """Return the shares at which methods are compared, of those that there are."""
    return [share for share in SHARES_COMPARED if share in shares_in(frame)]


def at(method: str, share: float) -> str:
    """Return the name that stands for a method at a share: the full-data row sees everything at each."""
    return named(method, 1 if method == FULL else share)


def lead(frame: pd.DataFrame, rival: str, share: float, metric: str) -> Estimate | None:
    """Return SemiRouter (EMB) minus a rival at a share, paired over seeds; None where one of them has no value."""
    values = experiment.wide(frame, metric)
    a, b = at(OURS, share), at(rival, share)
    if not {a, b} <= set(values) or values[[a, b]].isna().any(axis=None):
        return None
    return mean_interval((values[a] - values[b]).to_numpy(dtype=float))


def gain(frame: pd.DataFrame, metric: str) -> Estimate:
    """Return what SemiRouter (EMB) wins from the smallest share of labels to the largest."""
    shares = shares_in(frame)
    return experiment.difference(frame, named(OURS, shares[-1]), named(OURS, shares[0]), metric)


def curve_records(pool: str, frame: pd.DataFrame) -> Iterator[Record]:
    """Yield every method's metrics over all LLMs, EMB's over the sparse ones, and what EMB leads each rival by."""
    for metric in METRICS:
        for name, values in experiment.wide(frame, metric).items():
            ours = name.startswith(f"{OURS}/") or not metric.endswith(SPARSE)
            if ours and values.notna().all():
                yield record_of(f"{pool}/{name}/{metric}", mean_interval(values.to_numpy(dtype=float)), "%")
    for metric in experiment.METRICS:
        for share in compared_in(frame):
            for rival in RIVALS:
                found = lead(frame, rival, share, metric)
                if found is not None:
                    yield record_of(f"{pool}/{OURS}-minus-{rival}/{share:g}/{metric}", found, "%")


def curve_panels(frames: Mapping[str, pd.DataFrame], metrics: Sequence[str]) -> list[Panel]:
    """Return one panel a pool and metric: every method against the share of labels, a band around EMB."""
    found = []
    for pool, frame in frames.items():
        ends = 100 * np.array([shares_in(frame)[0], shares_in(frame)[-1]])
        for metric in metrics:
            values = experiment.summary(frame, metric)
            curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
            for method in (OURS, *RIVALS):
                shares = shares_in(frame, method)
                here = values.loc[[named(method, share) for share in shares]]
                if method == FULL:
                    curves[method] = ends, here["value"].to_numpy().repeat(2)
                elif here["value"].notna().all():
                    curves[method] = 100 * np.array(shares), here["value"].to_numpy()
            ours = values.loc[[named(OURS, share) for share in shares_in(frame)]]
            bands = {OURS: (ours["low"].to_numpy(), ours["high"].to_numpy())}
            title = f"{pool}: {METRICS[metric]}"
            found.append(Panel(title, curves, "Labels kept of each sparse LLM (%)", bands))
    return found


def curve_table(frames: Mapping[str, pd.DataFrame], metrics: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the metrics at the shares that are compared, and as shown: below each rival what EMB leads it by.

    Bold: the interval of the lead excludes 0.
    """
    numbers: dict[str, dict[str, float]] = {}
    shown: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for pool, frame in frames.items():
        for metric in metrics:
            values = experiment.summary(frame, metric)["value"]
            for share in compared_in(frame):
                for method in (OURS, *RIVALS):
                    value = values.get(at(method, share), np.nan)
                    numbers.setdefault(f"{pool}/{method}", {})[f"{metric}/{share:g}"] = value
                    row = shown.setdefault((pool, figures.label(method)), {})
                    found = None if method == OURS else lead(frame, method, share, metric)
                    row[METRICS[metric], f"{share:.0%}"] = _compared(value, found)
    return pd.DataFrame.from_dict(numbers, orient="index"), pd.DataFrame.from_dict(shown, orient="index").fillna(DASH)


def _compared(value: float, found: Estimate | None) -> str:
    text = DASH if np.isnan(value) else f"{value:.2f}"
    return text if found is None else f"{text}<br><small>{_span(found)}</small>"


def _span(found: Estimate, digits: int = 2) -> str:
    """Return a difference with its interval, bold where the interval excludes 0."""
    text = f"{found.estimate:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"
    return f"<b>{text}</b>" if told_apart(found) else text


def told_apart(found: Estimate) -> bool:
    """Whether the interval of a difference excludes 0."""
    return bool(found.low > 0 or found.high < 0)


def tally(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return how often EMB lies above, below or not apart from a method that sees the same sparse labels.

    One row a pool and metric; counted are the rivals at the shares where all methods were trained.
    """
    rows = {}
    for pool, frame in frames.items():
        shares = shares_in(frame, SLOW[0])
        for metric in METRICS:
            leads = [lead(frame, rival, share, metric) for share in shares for rival in RIVALS if rival != FULL]
            leads = [found for found in leads if found is not None]
            rows[f"{pool}: {METRICS[metric]}"] = {
                "EMB above": sum(found.low > 0 for found in leads),
                "EMB below": sum(found.high < 0 for found in leads),
                "not told apart": sum(not told_apart(found) for found in leads),
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def enough(frame: pd.DataFrame, method: str, metric: str) -> float | None:
    """Return the smallest share from which on a method has `NEARLY` what it has with all labels.

    At that share and at every larger one its mean is at most `NEARLY` points below. None for a method that was not
    trained on all labels, or that has no such metric.
    """
    shares = shares_in(frame, method)
    values = experiment.summary(frame, metric)["value"][[named(method, share) for share in shares]].to_numpy()
    if 1.0 not in shares or np.isnan(values).any():
        return None
    below = np.flatnonzero(values < values[-1] - NEARLY)
    return shares[int(below[-1]) + 1 if len(below) else 0]


def enough_table(frames: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `enough` of every method that was trained on all labels, and as shown, with what all labels reach."""
    numbers: dict[str, dict[str, float]] = {}
    shown: dict[tuple[str, str], dict[str, str]] = {}
    for pool, frame in frames.items():
        for method in (OURS, *RIVALS):
            for metric in METRICS:
                share = None if method == FULL else enough(frame, method, metric)
                if share is not None:
                    reached = experiment.wide(frame, metric)[named(method, 1)].mean()
                    numbers.setdefault(f"{pool}/{method}", {})[metric] = share
                    row = shown.setdefault((pool, figures.label(method)), {})
                    row[METRICS[metric]] = f"{share:.0%}<br><small>of {reached:.2f}</small>"
    return pd.DataFrame.from_dict(numbers, orient="index"), pd.DataFrame.from_dict(shown, orient="index").fillna(DASH)


# --- soft scores -----------------------------------------------------------------------------------------------------


def soft_pool(pools: Mapping[str, Pool]) -> Pool | None:
    """Return the first pool whose scores are more than good, fair and bad."""
    for pool in pools.values():
        quality = pool.benchmark.quality
        if (to_levels(quality, quality_levels(quality)) != quality).any():
            return pool
    return None


def rounded(benchmark: RoutingBenchmark) -> RoutingBenchmark:
    """Return the benchmark with every score at the nearest of good, fair and bad."""
    return replace(benchmark, quality=to_levels(benchmark.quality, quality_levels(benchmark.quality)))


def soft_table(benchmark: RoutingBenchmark) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what rounding does to the scores of each source dataset, and the table as shown.

    Returns
    -------
    numbers : DataFrame
        `soft` (share of scores that are no level), `moved` (mean distance to the level), `shift` (mean level minus
        mean score), `best` and `best-rounded` (mean score of the best answer by score and by level, of equals the
        cheaper LLM's).
    """
    levels = rounded(benchmark).quality
    cost = np.broadcast_to(benchmark.mean_cost, levels.shape)
    rows = np.arange(len(levels))
    best = experiment.best_of(levels, cost)
    numbers = {}
    for task in [*np.unique(benchmark.tasks).tolist(), "all"]:
        here = rows if task == "all" else np.flatnonzero(benchmark.tasks == task)
        score, level = benchmark.quality[here], levels[here]
        numbers[task] = {
            "soft": (score != level).mean(),
            "moved": np.abs(score - level).mean(),
            "shift": (level - score).mean(),
            "best": score.max(axis=1).mean(),
            "best-rounded": benchmark.quality[here, best[here]].mean(),
        }
    frame = pd.DataFrame.from_dict(numbers, orient="index")
    heads = ["between the levels", "mean distance to the level", "mean level − mean score"]
    heads += ["oracle, by score", "oracle, by level"]
    shown = frame.copy().astype(object)
    shown["soft"] = [f"{value:.0%}" for value in frame["soft"]]
    for column in ("moved", "best", "best-rounded"):
        shown[column] = [f"{value:.3f}" for value in frame[column]]
    shown["shift"] = [f"{value:+.3f}" for value in frame["shift"]]
    return frame, shown.set_axis(heads, axis=1)


def fair_table(pool: Pool, share: float = 0.1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return how often each method names the class fair, beside how often an answer is fair, and the table as shown.

    Of all pairs of a test prompt and an LLM, as means over trials, at a share of the labels.

    Returns
    -------
    numbers : DataFrame
        Index: "labels" and the methods that name classes. Column: `fair`.
    """
    named_fair: dict[str, list[float]] = {}
    for setting in pool.settings:
        quality = setting.test.quality
        found = {"labels": to_levels(quality, quality_levels(quality))}
        for method in (OURS, *RIVALS):
            answers = Answers(pool.fitted[at(method, share), setting.seed], setting)
            if hasattr(answers, "predict_labels"):
                found[method] = answers.predict_labels(setting.test_embeddings)
        for method, labels in found.items():
            named_fair.setdefault(method, []).append((labels == 0.5).mean())
    numbers = pd.DataFrame({"fair": {method: np.mean(shares) for method, shares in named_fair.items()}})
    shown = pd.DataFrame({"fair": [f"{value:.0%}" for value in numbers["fair"]]})
    return numbers, shown.set_index(pd.Index([_who(method) for method in numbers.index])).T


def _who(method: str) -> str:
    return "the answers themselves" if method == "labels" else figures.label(method)


def rounding_cost(pool: Pool) -> dict[str, dict[str, np.ndarray]]:
    """Return the routed quality [seeds], in percent, of methods that learn scores and of the same with levels.

    Both learn from all labels and are judged by scores; of the pool's trials.
    """
    makers: dict[str, Callable[[Setting], BaseRouter]] = {
        "lora-retriever": lambda setting: relabelled(_clusters(pool, setting.seed), setting),
        "k-nn": neighbours_of,
        "oracle": lambda setting: Oracle().fit(setting.test, setting.test_embeddings),
    }
    found: dict[str, dict[str, np.ndarray]] = {method: {} for method in makers}
    for kind, change in (("scores", lambda labels: labels), ("levels", rounded)):
        for method, make in makers.items():
            earned = []
            for setting in pool.settings:
                told = replace(setting, sparse=change(setting.full), test=change(setting.test))
                frame = experiment.outcome(make(told), setting).set_index("dataset")
                earned.append(frame.loc[MACRO, "routed-quality"])
            found[method][kind] = np.array(earned)
    return found


def _clusters(pool: Pool, seed: int) -> LoraRetriever:
    return next(router for (name, s), router in pool.fitted.items() if s == seed and name.startswith("lora-"))


def rounding_table(found: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """Return `rounding_cost` as shown: routed quality with scores, with levels, and the difference."""
    rows = {}
    for method, earned in found.items():
        scores, levels = (mean_interval(earned[kind]).estimate for kind in ("scores", "levels"))
        cost = mean_interval(earned["levels"] - earned["scores"])
        rows[figures.label(method)] = {
            "told scores": f"{scores:.2f}",
            "told levels": f"{levels:.2f}",
            "levels − scores": _span(cost),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def rounding_records(pool: str, found: Mapping[str, Mapping[str, np.ndarray]]) -> Iterator[Record]:
    """Yield what classes in place of scores cost each method of `rounding_cost`."""
    for method, earned in found.items():
        cost = mean_interval(earned["levels"] - earned["scores"])
        yield record_of(f"soft/{pool}/{method}/levels-minus-scores/routed-quality", cost, "%")


# --- LLMs come and go ------------------------------------------------------------------------------------------------


def isolation(pool: Pool, share: float = 0.1) -> pd.DataFrame:
    """Remove an LLM from trained routers and add it again, and compare all other predictions before and after.

    Every variant of SemiRouter of every trial, with the first sparse LLM and, where another remains, the first anchor.

    Returns
    -------
    DataFrame
        One row a variant, trial and step: `variant`, `seed`, `step`, `compared` (numbers), `moved` (of them), `change`
        (largest absolute difference of a probability).
    """
    rows = []
    for variant in VARIANTS:
        for setting in pool.settings:
            router = copy.deepcopy(pool.fitted[named(variant, share), setting.seed]).set_params(add_steps=FEW_STEPS)
            llm = sparse_llms(setting)[0]
            labels = setting.thinned(share=share).sparse.subset(models=[llm])
            steps = {
                "removed": (llm, partial(router.remove_models, [llm])),
                "added": (llm, partial(router.add_models, labels, setting.train_embeddings)),
            }
            if len(setting.anchors) > 1:
                anchor = setting.anchors[0]
                steps["anchor removed"] = (anchor, partial(router.remove_models, [anchor]))
            for step, (moved, act) in steps.items():
                found = _change(router, moved, act, setting)
                rows.append({"variant": variant, "seed": setting.seed, "step": step, **found})
    return pd.DataFrame(rows)


def _change(router: SemiRouter, llm: str, act: Callable[[], Any], setting: Setting) -> dict[str, float]:
    """Return how far the probabilities for all LLMs but one move when something is done to the router."""
    features = router.features(setting.test_embeddings)
    others = [model for model in router.models_ if model != llm]
    before = router.probabilities_from(features, others)
    act()
    difference = np.abs(router.probabilities_from(features, others) - before)
    return {"compared": before.size, "moved": int((difference > 0).sum()), "change": float(difference.max())}


def isolation_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return `isolation` as shown: one row a variant and step, over all trials."""
    steps = {
        "removed": "an LLM with sparse data is removed",
        "added": "it is added again, in a few steps",
        "anchor removed": "an anchor is removed",
    }
    rows = {}
    for (variant, step), part in frame.groupby(["variant", "step"], sort=False):
        rows[figures.label(variant), steps[step]] = {
            "probabilities compared": f"{part['compared'].sum():,}",
            "of them moved": f"{part['moved'].sum():,}",
            "largest change": f"{part['change'].max():g}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def newcomer_of(setting: Setting) -> str:
    """Return the LLM that joins: of those that are no anchors the best on the training prompts."""
    means = dict(zip(setting.full.models, setting.full.quality.mean(axis=0), strict=True))
    return max(sparse_llms(setting), key=means.get)


def joins(params: SparsityParams, pools: Mapping[str, Pool]) -> pd.DataFrame:
    """Train every trial of every pool without an LLM, then take it in from so many labels in each of the `WAYS`.

    The pool without it has the page's labels a query. The new LLM is labelled on training prompts in random order, the
    same for every way. What a way takes is measured by itself, in the first trial of each pool with the most labels.

    Returns
    -------
    DataFrame
        One row a way and number of labels: `pool`, `seed`, `llm`, `way`, `n`, `seconds` (processor time; NaN where it
        is not measured), `moved` (largest change of an estimate for any other LLM), and in percent `label-accuracy`
        (of the new LLM), `others-change` (of label accuracy on the other sparse LLMs), `routed-quality` and
        `routed-quality-sparse`.
    """
    trials = [(pool.name, setting) for pool in pools.values() for setting in pool.settings]
    with one_thread():
        starts = _without_it(params, trials)
        ways = [way for start in starts for way in _ways(params, start)]
        routers = {ADDED: add_many, ADAPTER: add_many, RETRAINED: fit_many}
        for kind, together in routers.items():
            mine = [way for way in ways if way.way == kind]
            together([way.router for way in mine], [way.problem for way in mine])
        rows = [start.row(WITHOUT, 0, start.router, start.before) for start in starts]
        for way in ways:
            if way.way == CLUSTERED:
                way.router.add_models(*way.problem)
            rows.append(way.start.row(way.way, way.n, way.router, way.start.setting))
        firsts = {start.name: start for start in reversed(starts)}
        seconds = {}
        for name, start in firsts.items():
            again = list(_ways(params, start))
            most = max(way.n for way in again)
            seconds |= {(name, way.way, way.n): _seconds(way) for way in again if way.n == most}
    frame = pd.DataFrame(rows)
    timed = [
        seconds.get((pool, way, n), np.nan) if seed == firsts[pool].setting.seed else np.nan
        for pool, way, n, seed in zip(frame["pool"], frame["way"], frame["n"], frame["seed"], strict=True)
    ]
    return frame.assign(seconds=timed)


@dataclass(eq=False)
class _Start:
    """A trial before an LLM joins: routers trained without it, and what they say."""

    name: str
    setting: Setting
    before: Setting
    llm: str
    router: SemiRouter
    clusters: LoraRetriever

    def __post_init__(self) -> None:
        self.answers: dict[bool, Answers] = {}

    def row(self, way: str, n: int, router: BaseRouter, setting: Setting) -> dict[str, Any]:
        """Return the columns of `joins` for a router, but for the time."""
        clustered = way == CLUSTERED
        if clustered not in self.answers:
            self.answers[clustered] = Answers(self.clusters if clustered else self.router, self.before)
        llm = None if way == WITHOUT else self.llm
        earned = _earned(Answers(router, setting), self.answers[clustered], setting, llm)
        return {"pool": self.name, "seed": setting.seed, "llm": self.llm, "way": way, "n": n, **earned}


@dataclass(eq=False)
class _Way:
    """A way for an LLM to join: a router, and the labels and embeddings with which it is to be taken in."""

    start: _Start
    way: str
    n: int
    router: Any
    problem: tuple[RoutingBenchmark, np.ndarray]


def _without_it(params: SparsityParams, trials: Sequence[tuple[str, Setting]]) -> list[_Start]:
    """Return every trial with routers that were trained without the LLM that is to join."""
    starts = []
    for name, setting in trials:
        llm = newcomer_of(setting)
        before = setting.with_models([m for m in setting.full.models if m != llm]).thinned(per_query=params.per_query)
        router, clusters = (
            experiment.router_for(params, method, before) for method in (f"semirouter-{params.variant}", CLUSTERED)
        )
        clusters.fit(before.sparse, before.train_embeddings)
        starts.append(_Start(name, setting, before, llm, router, clusters))
    problems = [(start.before.sparse, start.before.train_embeddings) for start in starts]
    fit_many([start.router for start in starts], problems)
    return starts


def _ways(params: SparsityParams, start: _Start) -> Iterator[_Way]:
    """Yield every way for a trial's LLM to join from so many labels, with a router that has yet to take it in."""
    setting, before = start.setting, start.before
    vectors = setting.train_embeddings
    order = np.random.default_rng([setting.seed, 1]).permutation(len(setting.full))
    for n in sorted({min(n, len(order)) for n in params.new_labels}):
        given = setting.full.subset(order[:n], [start.llm]), vectors[order[:n]]
        joined = setting.with_labels(_with_column(before.sparse, setting.full, start.llm, order[:n]))
        # The anchors have the labels they had, and so the backbone is the one at hand.
        anew = experiment.router_for(params, f"semirouter-{params.variant}", joined)
        yield _Way(start, ADDED, n, copy.deepcopy(start.router), given)
        yield _Way(start, ADAPTER, n, copy.deepcopy(start.router).set_params(add_trains="adapter"), given)
        yield _Way(start, RETRAINED, n, anew, (joined.sparse, vectors))
        yield _Way(start, CLUSTERED, n, copy.copy(start.clusters), given)


def _seconds(way: _Way) -> float:
    """Return the processor time of one way by itself, and of everything anew with the backbone."""
    act = way.router.set_params(backbone=None).fit if way.way == RETRAINED else way.router.add_models
    with quiet():
        start = time.process_time()
        act(*way.problem)
        return time.process_time() - start


def _with_column(thin: RoutingBenchmark, full: RoutingBenchmark, llm: str, labelled: np.ndarray) -> RoutingBenchmark:
    """Return the labels of `thin`, and beside them those of one more LLM on some prompts."""
    quality = np.full(full.quality.shape, np.nan)
    quality[:, full.model_columns(thin.models)] = thin.quality
    column = full.models.index(llm)
    quality[labelled, column] = full.quality[labelled, column]
    return replace(full, quality=quality)


def _earned(now: Answers, then: Answers, setting: Setting, llm: str | None = None) -> dict[str, float]:
    """Return the columns of `joins` for a router's answers, beside those from before an LLM joined."""

    def macro(answers: Answers, models: Sequence[str], metric: str) -> float:
        frame = experiment.outcome(answers, setting.routed_among(models)).set_index("dataset")
        return float(frame.loc[MACRO, metric])

    others = [model for model in sparse_llms(setting) if model != llm]
    everyone = [model for model in setting.full.models if model != llm]
    after, before = (quality_for(answers, setting.test_embeddings, everyone) for answers in (now, then))
    return {
        "moved": float(np.abs(after - before).max()),
        "label-accuracy": np.nan if llm is None else macro(now, [llm], "label-accuracy"),
        "others-change": macro(now, others, "label-accuracy") - macro(then, others, "label-accuracy"),
        "routed-quality": macro(now, setting.full.models, "routed-quality"),
        "routed-quality-sparse": macro(now, sparse_llms(setting), "routed-quality"),
    }


def _by_way(frame: pd.DataFrame, pool: str, quantity: str) -> pd.DataFrame:
    """Return a column of `joins`: one row a seed, one column a way and number of labels."""
    return frame[frame["pool"] == pool].pivot(index="seed", columns=["way", "n"], values=quantity)


def join_records(frame: pd.DataFrame) -> Iterator[Record]:
    """Yield what each way earns with so many labels, and what training the vector alone leads the others by."""
    for pool in dict.fromkeys(frame["pool"]):
        for quantity in JOINED:
            values = _by_way(frame, pool, quantity)
            for (way, n), column in values.items():
                if column.notna().all():
                    found = mean_interval(column.to_numpy(dtype=float))
                    yield record_of(f"new-llm/{pool}/{way}/{n}/{quantity}", found, "%")
                if way in (ADAPTER, RETRAINED, CLUSTERED):
                    found = mean_interval((values[ADDED, n] - column).to_numpy(dtype=float))
                    yield record_of(f"new-llm/{pool}/{ADDED}-minus-{way}/{n}/{quantity}", found, "%")


def join_panels(frame: pd.DataFrame) -> list[Panel]:
    """Return one panel a quantity of `JOINED` and pool, against the labels of the new LLM."""
    pools = list(dict.fromkeys(frame["pool"]))
    found = []
    for quantity, title in JOINED.items():
        for pool in pools:
            values = _by_way(frame, pool, quantity)
            counts = np.array(sorted(set(values.columns.get_level_values("n")) - {0}))
            curves, bands = {}, {}
            for way in WAYS:
                if way == WITHOUT:
                    if quantity == "routed-quality-sparse":
                        curves[way] = counts[[0, -1]], np.repeat(values[WITHOUT, 0].mean(), 2)
                    continue
                span = mean_interval(values[way][list(counts)].to_numpy(dtype=float))
                curves[way] = counts, span.estimate
                if way == ADDED:
                    bands[way] = span.low, span.high
            found.append(Panel(f"{pool}: {title}", curves, "Labels of the new LLM", bands))
    return found


def ways_table(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what each way takes and leaves with the most labels, and the table as shown."""
    most = frame["n"].max()
    numbers: dict[str, dict[str, float]] = {}
    shown: dict[tuple[str, str], dict[str, str]] = {}
    for pool in dict.fromkeys(frame["pool"]):
        for way in (ADDED, ADAPTER, RETRAINED, CLUSTERED):
            part = frame[(frame["pool"] == pool) & (frame["way"] == way) & (frame["n"] == most)]
            change, right = (mean_interval(part[c].to_numpy()) for c in ("others-change", "label-accuracy"))
            numbers[f"{pool}/{way}"] = {
                "seconds": part["seconds"].median(),
                "moved": part["moved"].max(),
                "others-change": change.estimate,
                "label-accuracy": right.estimate,
            }
            shown[f"{pool}, {most} labels", WAYS[way].label] = {
                "processor time (s)": f"{part['seconds'].median():.2g}",
                "largest change of another's estimate": f"{part['moved'].max():.2g}",
                "label accuracy on the other sparse LLMs, change": _span(change),
                "label accuracy on the new LLM": f"{right.estimate:.2f}",
            }
    return pd.DataFrame.from_dict(numbers, orient="index"), pd.DataFrame.from_dict(shown, orient="index")


# --- speed -----------------------------------------------------------------------------------------------------------


def measure_speed(pool: Pool, params: SparsityParams) -> pd.DataFrame:
    """Time the routing of single queries in pools of several sizes, in milliseconds of processor time.

    Returns
    -------
    DataFrame
        One row a pool size and query: `n_llms`, `query`, `uncached` (the encoder and the backbone read the query for
        each LLM), `cached` (once for all LLMs) and `known` (features are already there). Larger pools are timed on
        fewer queries.
    """
    setting = pool.settings[0]
    trained = next(router for (name, _), router in pool.fitted.items() if name.startswith(f"{OURS}/"))
    encoder = encoders.encoder("minilm" if params.encoder == "auto" else params.encoder)
    frames = []
    for n_llms in sorted(set(params.pool_sizes)):
        router = resized(trained, n_llms, setting)
        count = min(N_TIMED, max(FEWEST_TIMED, MOST_ENCODINGS // n_llms), len(setting.test))
        rows = np.linspace(0, len(setting.test) - 1, count).astype(int)
        queries = [(setting.test.prompts[i], setting.test_embeddings[[i]]) for i in rows]
        with quiet(), one_thread():
            if not frames:
                # The first query pays for what later ones find in memory, so it is timed once before it counts.
                _time_query(router, encoder, *queries[0])
            times = [_time_query(router, encoder, *query) for query in queries]
        frames.append(pd.DataFrame(times).assign(n_llms=n_llms, query=rows))
    return pd.concat(frames, ignore_index=True)


def resized(router: SemiRouter, n_llms: int, setting: Setting) -> SemiRouter:
    """Return a copy of a router whose pool has so many LLMs: without the last sparse ones, or with copies of the first.

    How well it routes does not matter; how long it takes does not depend on what its vectors hold.
    """
    router = copy.deepcopy(router).set_params(add_steps=1)
    llms = sparse_llms(setting)
    if n_llms <= len(setting.anchors):
        raise UserError(
            f"pool_sizes has {n_llms}, but there are {len(setting.anchors)} anchors and at least one other LLM is "
            f"routed to; use sizes from {len(setting.anchors) + 1} on"
        )
    more = n_llms - len(router.models_)
    if more < 0:
        return router.remove_models(llms[more:])
    if more:
        rows = np.arange(min(8, len(setting.full)))
        one = setting.full.subset(rows, llms[:1])
        names = [f"copy-{i}" for i in range(more)]
        many = replace(one, models=names, quality=one.quality.repeat(more, 1), cost=one.cost.repeat(more, 1))
        router.add_models(many, setting.train_embeddings[rows])
    return router


def _time_query(router: SemiRouter, encoder: encoders.Encoder, prompt: str, embedding: np.ndarray) -> dict[str, float]:
    """Return milliseconds of processor time to score all LLMs on one query, in each of the ways of `SPEEDS`."""

    def read() -> np.ndarray:
        encoder.encode([prompt])
        return router.features(embedding)

    def uncached() -> None:
        for model in router.models_:
            router.quality_from(read(), [model])

    features = read()
    ways: dict[str, Callable[[], Any]] = {
        "uncached": uncached,
        "cached": lambda: router.quality_from(read()),
        "known": lambda: router.quality_from(features),
    }
    found = {}
    for way, act in ways.items():
        start = time.process_time()
        act()
        found[way] = 1000 * (time.process_time() - start)
    return found


def speed_records(frame: pd.DataFrame) -> Iterator[Record]:
    """Yield the milliseconds a query in every pool size and way, and what reading the query for each LLM adds.

    Bounds only where enough queries were timed for an interval to mean something.
    """
    for n_llms, part in frame.groupby("n_llms"):
        columns = {way: part[way] for way in SPEEDS} | {"uncached-minus-cached": part["uncached"] - part["cached"]}
        for way, values in columns.items():
            record = record_of(f"speed/{n_llms}/{way}", mean_interval(values.to_numpy()), "ms")
            yield record if len(part) >= FEWEST_BOUNDED else record | {"low": None, "high": None}


def speed_panel(frame: pd.DataFrame) -> Panel:
    """Return routing time against the number of LLMs."""
    means = frame.groupby("n_llms")[list(SPEEDS)].mean()
    sizes = means.index.to_numpy(dtype=float)
    return Panel("", {way: (sizes, means[way].to_numpy()) for way in SPEEDS}, "LLMs in the pool")


def speed_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the mean milliseconds a query as shown, one row a pool size."""
    means = frame.groupby("n_llms")[list(SPEEDS)].mean()
    shown = means.map(lambda ms: f"{ms:,.3g}" if ms < 1000 else f"{ms:,.0f}")
    shown["times as long without a cache"] = [f"{ratio:.1f}" for ratio in means["uncached"] / means["cached"]]
    shown["queries timed"] = frame.groupby("n_llms").size()
    names = {way: f"{look.label} (ms)" for way, look in SPEEDS.items()}
    return shown.rename(columns=names).rename_axis(None)


# --- in words --------------------------------------------------------------------------------------------------------


def _joined(parts: Sequence[str]) -> str:
    return "; ".join(parts)


def _in_words(found: Estimate, digits: int = 2) -> str:
    return f"{found.estimate:+.{digits}f} points ({found.low:+.{digits}f} to {found.high:+.{digits}f})"


def said_gain(frames: Mapping[str, pd.DataFrame], metric: str) -> str:
    """Return what EMB wins from the fewest labels to the most, over all LLMs and over the sparse ones."""
    parts = []
    for pool, frame in frames.items():
        whole, alone = (_in_words(gain(frame, name)) for name in (metric, metric + SPARSE))
        parts.append(f"on {pool} {whole}, and {alone} with the sparse LLMs")
    return _joined(parts)


def said_lead(frames: Mapping[str, pd.DataFrame], rival: str, metric: str) -> str:
    """Return what EMB leads a rival by at the shares that are compared."""
    parts = []
    for pool, frame in frames.items():
        leads = {share: lead(frame, rival, share, metric) for share in compared_in(frame)}
        said = ", ".join(f"{_in_words(found)} at {share:.0%}" for share, found in leads.items() if found is not None)
        parts.append(f"on {pool} {said}")
    return _joined(parts)


def said_share(pools: Mapping[str, Pool], params: SparsityParams) -> str:
    """Return the share of the sparse LLMs' labels that the labels a query come to on each pool."""
    parts = [f"{share_of(params, p.settings[0]):.0%} on {name}" for name, p in pools.items()]
    return " and ".join(parts)


def said_joined(frame: pd.DataFrame) -> str:
    """Return which LLM joins on which pool."""
    parts = []
    for pool, part in frame.groupby("pool", sort=False):
        names = dict.fromkeys(cells.slug(llm) for llm in part["llm"])
        parts.append(f"{' or '.join(names)} on {pool}")
    return " and ".join(parts)


def said_learned(frame: pd.DataFrame, way: str) -> str:
    """Return the label accuracy on the new LLM in a way, by number of labels."""
    parts = []
    for pool in dict.fromkeys(frame["pool"]):
        means = _by_way(frame, pool, "label-accuracy")[way].mean()
        parts.append(f"on {pool} {', '.join(f'{value:.1f} % from {n} labels' for n, value in means.items())}")
    return _joined(parts)


def said_forgotten(frame: pd.DataFrame, way: str) -> str:
    """Return how label accuracy on the other sparse LLMs changes in a way, by number of labels."""
    parts = []
    for pool in dict.fromkeys(frame["pool"]):
        values = _by_way(frame, pool, "others-change")[way]
        said = [f"{_in_words(mean_interval(values[n].to_numpy()))} from {n} labels" for n in values]
        parts.append(f"on {pool} {', '.join(said)}")
    return _joined(parts)


def said_times(frame: pd.DataFrame) -> str:
    """Return the processor seconds of adding and of retraining with the most labels."""
    part = frame[frame["n"] == frame["n"].max()]
    seconds = part.groupby("way")["seconds"].median()
    return (
        f"{seconds[ADDED]:.2g} s of processor time for a vector, {seconds[RETRAINED]:.2g} s for training everything "
        f"anew, {seconds[CLUSTERED]:.1g} s for means in clusters"
    )


def said_cache(frame: pd.DataFrame) -> str:
    """Return the routing time with and without the cache in the smallest and the largest pool timed."""
    means = frame.groupby("n_llms")[list(SPEEDS)].mean()
    return " and ".join(
        f"{means.loc[n, 'cached']:,.1f} ms in place of {means.loc[n, 'uncached']:,.0f} ms among {n} LLMs"
        for n in (means.index[0], means.index[-1])
    )


# --- exercise --------------------------------------------------------------------------------------------------------


def runners_up(setting: Setting) -> tuple[float, float]:
    """Return the mean quality of the best sparse LLM on the training prompts, and its lead over the next."""
    columns = setting.full.model_columns(sparse_llms(setting))
    first, second = np.sort(setting.full.quality.mean(axis=0)[columns])[::-1][:2]
    return float(first), float(first - second)


def needs(dataset: str) -> str:
    """Return what stands in place of a table whose data is not among the pools."""
    return f"needs {dataset}, which is not among the pools of this run"
