"""The paper's experiment: prompts split 70 to 30, labels thinned, routers trained, what their choices earn.

Sections 4.3, 5.1 and 5.2. A trial is one seed: its own split, its own sparse labels and its own trainings. All methods
of a trial read the same embeddings; a backbone trained on some anchors is shared by every router that has them.

Whoever needs another setting changes one: `Setting.with_models`, `Setting.thinned`, `Setting.with_embeddings`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from replications.semirouter import baselines, cells, sparse
from replications.semirouter.backbone import Backbone, LevelRouter, quality_levels, to_levels
from replications.semirouter.semi_router import SemiRouter, fit_many
from replications.semirouter.semi_router import route as best_of
from routebook import encoders, load, runs
from routebook.benchmark import RoutingBenchmark
from routebook.datasets.routerbench import SOURCES
from routebook.errors import UserError
from routebook.progress import progress
from routebook.routers import BaseRouter, BestSingle, DatasetOracle, Oracle, Random, quality_for
from routebook.significance import Estimate, mean_interval
from routebook.threads import one_thread, processes

if TYPE_CHECKING:
    from replications.semirouter.params import SemiRouterBase

MACRO = "macro"
# Queries times epochs of SemiRouter's trainings from which on worker processes, of which each trains fewer routers side
# by side, pay for their start.
WORTH_PROCESSES = 2_000_000
TEST_SHARE = 0.3  # Section 5.1
ANCHORS = ("gpt-4-1106-preview", "gpt-3.5-turbo-1106", "mistralai/mistral-7b-chat")  # Appendix B
# Table 4 removes Claude-Instant from a pool that otherwise holds the seven LLMs (SR-12).
EIGHT = tuple(llm for llm in cells.LLMS if llm in cells.SEVEN or llm == "claude-instant-v1")
TRAINED = baselines.METHODS
SIMPLE = ("best-single", "dataset-oracle", "random", "oracle")
METHODS = (*TRAINED, *SIMPLE)
METRICS = ("label-accuracy", "routed-quality")
_SHARED = ("epochs", "lr", "batch_size", "n_random", "backbone_epochs", "backbone_lr")
_SHARED += ("loss", "alpha", "lam", "weighting", "margin")

Fitted = Mapping[tuple[str, int], BaseRouter]


# --- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Setting:
    """One trial: prompts to train on, with the labels there are, and prompts to route.

    Attributes
    ----------
    seed
    anchors
        LLMs whose labels are all observed.
    full : RoutingBenchmark
        Training prompts before labels are hidden; what the full-data row learns from.
    sparse : RoutingBenchmark
        The same prompts, thinned (`sparse.sparsify`); what all other methods learn from.
    test : RoutingBenchmark
        Its LLMs are those that are routed to (see `routed_among`).
    train_embeddings, test_embeddings : ndarray, [N, D]
    rule : {"quality", "score"}
        By which an LLM is chosen; see `semi_router.route`.
    """

    seed: int
    anchors: tuple[str, ...]
    full: RoutingBenchmark
    sparse: RoutingBenchmark
    test: RoutingBenchmark
    train_embeddings: np.ndarray
    test_embeddings: np.ndarray
    rule: Literal["quality", "score"] = "quality"
    _backbones: dict[Any, Backbone] = field(default_factory=dict, repr=False)

    def thinned(self, *, per_query: int = sparse.PER_QUERY, share: float | None = None) -> Setting:
        """Return the setting with other sparse labels, of a number of LLMs a query or of a share of the prompts."""
        thin = sparse.sparsify(self.full, self.anchors, per_query, share, self.seed)
        return replace(self, sparse=thin)

    def with_labels(self, thin: RoutingBenchmark) -> Setting:
        """Return the setting with these sparse labels of the same training prompts and LLMs."""
        return replace(self, sparse=thin)

    def with_models(self, models: Sequence[str]) -> Setting:
        """Return the setting with some of the LLMs, in the order given, with the labels they have here.

        Anchors among them stay anchors. Labels are not drawn anew: without an LLM there are fewer a query.

        Raises
        ------
        UserError
            When no anchor is among the LLMs, or no LLM besides them.
        """
        anchors = tuple(anchor for anchor in self.anchors if anchor in models)
        sparse.check_anchors(anchors, models, "with_models")
        full, thin, test = (part.subset(models=models) for part in (self.full, self.sparse, self.test))
        return replace(self, anchors=anchors, full=full, sparse=thin, test=test)

    def routed_among(self, models: Sequence[str]) -> Setting:
        """Return the setting in which routers trained here may choose some of the LLMs only; training stays as it is.

        What removing the other LLMs' identity vectors leaves (Section 5.2): nothing else of a router changes.
        """
        return replace(self, test=self.test.subset(models=models))

    def with_embeddings(self, train: np.ndarray, test: np.ndarray) -> Setting:
        """Return the setting in which the routers read other vectors of the same prompts."""
        return replace(self, train_embeddings=train, test_embeddings=test, _backbones={})


Job = tuple[str, Setting, Mapping[str, Any]]


def load_pool(
    params: SemiRouterBase, name: str | None = None, *, llms: Sequence[str] = cells.SEVEN, whole: bool = False
) -> RoutingBenchmark:
    """Load a benchmark as the paper uses it, before it is split; `tasks` are then its source datasets.

    RouterBench is cut to the paper's source datasets, to the prompts that all ten LLMs of Table 6 answered, and to
    some of these LLMs. Other benchmarks keep their LLMs. At most `max_prompts` prompts are kept, drawn at random,
    or the `whole` benchmark.

    Parameters
    ----------
    params
    name
        Of the benchmark; by default the one the parameters ask for.
    llms
        Of RouterBench: `cells.SEVEN`, `EIGHT` or `cells.LLMS`.
    """
    name = name or runs.resolve_dataset(params)
    options = {"prompt_view": params.prompt_view} if name == "routerbench" else {}
    benchmark = load(name, **options).priced()
    if not whole:
        benchmark = benchmark.sample(params.max_prompts, params.seed)
    if name != "routerbench":
        return benchmark.complete()
    benchmark = _paper_sources(cells.of_the_paper(benchmark).subset(models=cells.LLMS))
    return benchmark.complete().subset(models=llms)


def _paper_sources(benchmark: RoutingBenchmark) -> RoutingBenchmark:
    """Keep the prompts of the paper's source datasets and name each prompt's task by its dataset."""
    starts = {name: SOURCES[name] for name in cells.SIX.values()}
    starts |= {name: (name, name.replace("-", "_")) for name in cells.SMALL.values()}
    named = {
        task: next((name for name, start in starts.items() if task.startswith(start)), "")
        for task in np.unique(benchmark.tasks).tolist()
    }
    datasets = np.array([named[task] for task in benchmark.tasks.tolist()], dtype=str)
    if not (datasets != "").any():
        raise UserError(f"{benchmark.name}: no prompt of {', '.join(starts)} is here, the paper's source datasets")
    kept = benchmark.subset(datasets != "")
    return replace(kept, tasks=datasets[datasets != ""])


def in_dollars(benchmark: RoutingBenchmark) -> bool:
    """Whether costs are dollars, so that Eq. (10) can be computed."""
    return benchmark.cost_unit.startswith("USD")


def anchors_of(train: RoutingBenchmark, params: SemiRouterBase) -> tuple[str, ...]:
    """Return the anchors: those asked for; the paper's where they are in the pool; else `sparse.spread_anchors`.

    Raises
    ------
    UserError
        When an anchor is not in the pool, or no other LLM is left.
    """
    if params.anchors is not None:
        chosen: Sequence[str] = params.anchors
    elif set(ANCHORS) <= set(train.models):
        chosen = ANCHORS
    else:
        chosen = sparse.spread_anchors(train)
    sparse.check_anchors(chosen, train.models, "anchors")
    return tuple(chosen)


def split_rows(benchmark: RoutingBenchmark, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train on and to test on: 70 to 30 at random, never cutting a question in two.

    The paper means to use official splits where there are any, but its test sets are 30 % of RouterBench's (SR-25).
    """
    sizes = {"test": round(TEST_SHARE * len(benchmark)), "train": -1}
    parts = benchmark.random_split(sizes, np.random.default_rng(seed))
    return parts["train"], parts["test"]


def settings_of(pool: RoutingBenchmark, params: SemiRouterBase, embeddings: np.ndarray | None = None) -> list[Setting]:
    """Return one setting a seed: the pool embedded once, split and thinned anew for each.

    Parameters
    ----------
    pool
        As `load_pool` returns it.
    params
    embeddings : ndarray, [N, D], optional
        Of the pool's prompts; by default `params.encoder` makes them.

    Raises
    ------
    UserError
        Before anything is embedded: a pool that is too small, anchors that do not fit it, or `rule="score"` where
        costs are not in dollars, which is what the weight of Eq. (10) is made for.
    """
    if params.rule == "score" and not in_dollars(pool):
        raise UserError(
            f"{pool.name}: rule = 'score' weighs quality against dollars, but its costs are in {pool.cost_unit}; use "
            "rule=quality, or dataset=routerbench"
        )
    drawn = []
    for seed in params.seeds:
        train, test = split_rows(pool, seed)
        if len(train) < params.n_clusters or not len(test):
            raise UserError(
                f"{pool.name}: {len(train)} prompts to train on and {len(test)} to test on are left for n_clusters = "
                f"{params.n_clusters} clusters; raise max_prompts or lower n_clusters"
            )
        full = pool.subset(train)
        anchors = anchors_of(full, params)
        thin = sparse.sparsify(full, anchors, params.per_query, seed=seed)
        drawn.append((seed, anchors, full, thin, train, test))
    if embeddings is None:
        embeddings = encoders.embed_benchmark(pool, params.encoder)
    return [
        Setting(seed, anchors, full, thin, pool.subset(test), embeddings[train], embeddings[test], params.rule)
        for seed, anchors, full, thin, train, test in drawn
    ]


def among(settings: Sequence[Setting], models: Sequence[str], params: SemiRouterBase) -> list[Setting]:
    """Return the settings with some of the LLMs, their labels drawn anew: those `settings_of` gives for such a pool.

    The prompts, the splits and the anchors' backbones are shared with the settings given.
    """
    if list(models) == settings[0].full.models:
        return list(settings)
    return [setting.with_models(models).thinned(per_query=params.per_query) for setting in settings]


# --- routers ---------------------------------------------------------------------------------------------------------


class DatasetLabels(DatasetOracle):
    """DatasetOracle that also names a quality level: the label an LLM has most often on a dataset.

    A router whose label accuracy is no higher has learned nothing about the query but where it comes from (X-1b).
    """

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> DatasetLabels:
        """Learn the means and the most frequent labels of each LLM on each dataset; see `BaseRouter.fit`."""
        super().fit(benchmark, embeddings)
        self.levels_ = quality_levels(benchmark.quality)
        labels = to_levels(benchmark.quality, self.levels_)
        self.overall_labels_ = self._most_frequent(labels, np.full(labels.shape[1], self.levels_[0]))
        self.labels_ = {
            task: self._most_frequent(labels[benchmark.tasks == task], self.overall_labels_)
            for task in np.unique(benchmark.tasks).tolist()
        }
        return self

    def _most_frequent(self, labels: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
        counts = np.stack([(labels == level).sum(axis=0) for level in self.levels_])
        return np.where(counts.sum(axis=0) > 0, np.array(self.levels_)[counts.argmax(axis=0)], otherwise)

    def predict_labels(self, embeddings: np.ndarray, tasks: np.ndarray) -> np.ndarray:
        """Return the most frequent label of each LLM on each prompt's dataset, [N, M]; of equals the better one."""
        self._check_width(embeddings)
        return np.stack([self.labels_.get(task, self.overall_labels_) for task in tasks.tolist()])


def changes_of(params: SemiRouterBase, method: str) -> dict[str, Any]:
    """Return the parameters of a method's router (`baselines.make`) that the page's parameters set."""
    if method == "lora-retriever":
        return {"n_clusters": params.n_clusters}
    widths = params.widths
    if method in ("bert-full", "zooter"):
        training = {"epochs": params.backbone_epochs, "lr": params.backbone_lr, "batch_size": params.batch_size}
        return {"width": widths["backbone_width"], **training}
    found = widths | {name: getattr(params, name) for name in _SHARED}
    return found | ({"loss": "sample-sample"} if method == "router-dc-ss" else {})


def router_for(params: SemiRouterBase, method: str, setting: Setting, **changes: Any) -> BaseRouter:
    """Return the unfitted router of one of `METHODS` for a setting, as the parameters describe it.

    A SemiRouter comes with the setting's shared backbone, already trained on its anchors.

    Parameters
    ----------
    changes
        Parameters of the router that are to differ, e.g. ``loss="div"``.
    """
    simple = {"best-single": BestSingle, "dataset-oracle": DatasetLabels, "oracle": Oracle}
    if method in simple:
        return simple[method]()
    if method == "random":
        return Random(seed=setting.seed)
    settings = {**changes_of(params, method), **changes}
    router = baselines.make(method, setting.anchors, seed=setting.seed, quick=False, **settings)
    if isinstance(router, SemiRouter) and router.backbone is None and not router.finetune_encoder:
        router.backbone = shared_backbone(router, setting)
    return router


def shared_backbone(router: SemiRouter, setting: Setting) -> Backbone:
    """Return the backbone that `router.fit` would train on the setting, trained once for all routers alike in it."""
    levels = quality_levels(setting.sparse.quality)
    sizes = {
        "width": router.backbone_width,
        "epochs": router.backbone_epochs,
        "lr": router.backbone_lr,
        "batch_size": router.batch_size,
        "dropout": router.dropout,
        "seed": router.seed,
        "levels": levels,
    }
    key = (tuple(router.anchors), *sizes.values())
    if key not in setting._backbones:
        anchored = setting.sparse.subset(models=list(router.anchors))
        setting._backbones[key] = Backbone(**sizes).fit(anchored, setting.train_embeddings)
    return setting._backbones[key]


def train(
    params: SemiRouterBase, settings: Sequence[Setting], methods: Sequence[str] = METHODS, **changes: Any
) -> dict[tuple[str, int], BaseRouter]:
    """Train methods on every setting; return (method, seed) to its fitted router.

    Those of `baselines.FULL_DATA` learn from all labels, the Oracle from the test labels, all others from the sparse
    labels, as the paper has it; best-single and dataset-oracle as well, so that they know no more than a router does.
    """
    wanted = {(method, setting.seed): (method, setting, changes) for setting in settings for method in methods}
    return fit_each(params, wanted)


def train_variants(
    params: SemiRouterBase,
    settings: Sequence[Setting],
    variants: Mapping[str, Mapping[str, Any]],
    fitted: Fitted | None = None,
) -> dict[tuple[str, int], BaseRouter]:
    """Train SemiRouter (the page's `variant`) once for each name's changed parameters; (name, seed) to its router.

    A variant whose changes are no changes is taken from `fitted`, where `train` has it already.
    """
    method, known = f"semirouter-{params.variant}", fitted or {}
    wanted, found = {}, {}
    for name, changes in variants.items():
        same = all(getattr(params, parameter, None) == value for parameter, value in changes.items())
        for setting in settings:
            if same and (method, setting.seed) in known:
                found[name, setting.seed] = known[method, setting.seed]
            else:
                wanted[name, setting.seed] = (method, setting, changes)
    return found | fit_each(params, wanted)


def fit_each(params: SemiRouterBase, wanted: Mapping[tuple[str, int], Job]) -> dict[tuple[str, int], BaseRouter]:
    """Train one router for each name and seed, side by side, and in several processes where there is very much to do.

    Parameters
    ----------
    params
    wanted
        Name and seed to the method, its setting and the parameters that are to differ, as in `router_for`.
    """
    problems, n_queries = {}, 0
    with one_thread():
        routers = {key: router_for(params, method, at, **changes) for key, (method, at, changes) in wanted.items()}
    for key, (method, setting, _) in wanted.items():
        labels = setting.full if method in baselines.FULL_DATA else setting.sparse
        problems[key] = (labels, setting.train_embeddings)
        if method == "oracle":
            problems[key] = (setting.test, setting.test_embeddings)
        n_queries += len(labels) if isinstance(routers[key], SemiRouter) else 0
    # Who is trained together depends on the work alone, not on the processors, and so do the last bits.
    apart = params.epochs * n_queries > WORTH_PROCESSES
    groups: dict[Any, list[tuple[str, int]]] = {}
    for key in wanted:
        groups.setdefault(key[1] if apart else None, []).append(key)
    jobs = [([routers[key] for key in keys], [problems[key] for key in keys]) for keys in groups.values()]
    done = in_processes(_fit, jobs, processes() if apart else 1, "trainings")
    fitted = {
        key: router
        for keys, found in zip(groups.values(), done, strict=True)
        for key, router in zip(keys, found, strict=True)
    }
    return {key: fitted[key] for key in wanted}


def _fit(
    routers: Sequence[BaseRouter], problems: Sequence[tuple[RoutingBenchmark, np.ndarray]]
) -> Sequence[BaseRouter]:
    """Fit routers on their problems, those of SemiRouter side by side."""
    ours = [place for place, router in enumerate(routers) if isinstance(router, SemiRouter)]
    # Held once for all: entering it takes longer than many a fit.
    with one_thread():
        fit_many([routers[place] for place in ours], [problems[place] for place in ours])
        for place, router in enumerate(routers):
            if place not in ours:
                router.fit(*problems[place])
    return routers


def in_processes(work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], n_jobs: int, label: str) -> list[Any]:
    """Return what a function returns for each job's arguments, in order, made in `n_jobs` processes."""
    if n_jobs == 1:
        return [work(*job) for job in progress(jobs, label=label)]
    from joblib import Parallel, delayed

    pool = Parallel(n_jobs=n_jobs, return_as="generator")
    return list(progress(pool(delayed(_quietly)(work, *job) for job in jobs), total=len(jobs), label=label))


def _quietly(work: Callable[..., Any], *job: Any) -> Any:
    """Work in a worker process, whose progress bars would write over those of its parent."""
    # A worker that grows far beyond what its first job left is stopped as one that leaks, with a warning: torch must be
    # there from the first job on, also where that is a router without it.
    import torch  # noqa: F401

    os.environ["ROUTEBOOK_QUIET"] = "1"
    return work(*job)


# --- what they earn --------------------------------------------------------------------------------------------------


def predict(router: BaseRouter, setting: Setting) -> np.ndarray:
    """Return the estimated quality of every LLM of the setting on its test prompts, [N, M]."""
    return quality_for(router, setting.test_embeddings, setting.test.models, setting.test.tasks)


def labels_of(router: BaseRouter, setting: Setting) -> np.ndarray | None:
    """Return the predicted quality level of every LLM on the test prompts, [N, M]; None where a router has none."""
    if isinstance(router, Oracle):
        return to_levels(setting.test.quality, quality_levels(setting.sparse.quality))
    if not hasattr(router, "predict_labels"):
        return None
    tasks = (setting.test.tasks,) if router.uses_tasks else ()
    found = router.predict_labels(setting.test_embeddings, *tasks)
    return found[:, [router.models_.index(model) for model in setting.test.models]]


def answers_of(router: BaseRouter, setting: Setting) -> tuple[np.ndarray, np.ndarray | None]:
    """Return `predict` and `labels_of`, with the probabilities that both may come from computed once."""
    if not isinstance(router, LevelRouter):
        return predict(router, setting), labels_of(router, setting)
    columns = [router.models_.index(model) for model in setting.test.models]
    quality, labels = router.predict_both(setting.test_embeddings)
    return quality[:, columns], labels[:, columns]


def choose(estimates: np.ndarray, setting: Setting) -> np.ndarray:
    """Return the LLM chosen for each test prompt, [N]: the best by the setting's rule, of equals the cheaper.

    Costs are the LLMs' means over the training prompts: what a call costs is not known before it is made.

    Parameters
    ----------
    estimates : ndarray, [N, M]
        As `predict` returns them.
    setting
    """
    cost = setting.full.mean_cost[setting.full.model_columns(setting.test.models)]
    return best_of(estimates, cost, setting.rule)


def outcome(router: BaseRouter, setting: Setting) -> pd.DataFrame:
    """Return what one router earns on the test prompts, one row a source dataset and one for their macro average.

    Columns: `dataset` (or "macro"), `n` (test prompts), `label-accuracy` (%, over pairs of query and LLM, the first
    reading of Table 1; NaN for a router without labels), `routed-quality` (%, the second reading), `cost` (mean of a
    call in the benchmark's unit), `total-cost` (of all test prompts of the dataset). The macro average of
    `total-cost` is the sum.
    """
    test = setting.test
    rows = np.arange(len(test))
    estimates, labels = answers_of(router, setting)
    chosen = choose(estimates, setting)
    per_prompt = pd.DataFrame(
        {
            "dataset": test.tasks,
            "label-accuracy": 100.0 * _right(labels, setting),
            "routed-quality": 100.0 * test.quality[rows, chosen],
            "cost": test.cost[rows, chosen],
        }
    )
    grouped = per_prompt.groupby("dataset")
    frame = grouped.mean()
    frame.insert(0, "n", grouped.size())
    frame["total-cost"] = grouped["cost"].sum()
    macro = frame.mean()
    macro[["n", "total-cost"]] = frame[["n", "total-cost"]].sum()
    frame.loc[MACRO] = macro
    return frame.reset_index().astype({"n": int})


def _right(named: np.ndarray | None, setting: Setting) -> np.ndarray:
    """Return the share of the LLMs whose quality level is named, for each test prompt, [N]; NaN without names."""
    if named is None:
        return np.full(len(setting.test), np.nan)
    return (named == to_levels(setting.test.quality, quality_levels(setting.sparse.quality))).mean(axis=1)


def evaluate(fitted: Fitted, settings: Sequence[Setting] | Callable[[str, int], Setting]) -> pd.DataFrame:
    """Return what every fitted router earns: `outcome`, with the columns `method` and `seed` before it.

    Parameters
    ----------
    fitted
        As `train` returns it.
    settings
        Those of `train`, or a function from method and seed to the setting to route.
    """
    by_seed = None if callable(settings) else {setting.seed: setting for setting in settings}
    frames = []
    # Held once for all: entering it takes longer than many a prediction.
    with one_thread():
        for (method, seed), router in fitted.items():
            setting = settings(method, seed) if callable(settings) else by_seed[seed]
            frame = outcome(router, setting)
            frame.insert(0, "seed", seed)
            frame.insert(0, "method", method)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def wide(frame: pd.DataFrame, column: str, dataset: str = MACRO) -> pd.DataFrame:
    """Return a column of `evaluate`: one row a seed, one column a method."""
    here = frame[frame["dataset"] == dataset]
    return here.pivot(index="seed", columns="method", values=column)[list(dict.fromkeys(here["method"]))]


def summary(frame: pd.DataFrame, column: str, dataset: str = MACRO) -> pd.DataFrame:
    """Return the mean over seeds with its 95 % t-interval, one row a method: value, low, high, n."""
    values = wide(frame, column, dataset)
    found = mean_interval(values.to_numpy(dtype=float), axis=0)
    columns = {"value": found.estimate, "low": found.low, "high": found.high, "n": found.n}
    return pd.DataFrame(columns, index=list(values))


def difference(frame: pd.DataFrame, a: str, b: str, column: str, dataset: str = MACRO) -> Estimate:
    """Return a column of method a minus method b, paired over seeds, with its 95 % t-interval."""
    values = wide(frame, column, dataset)
    return mean_interval((values[a] - values[b]).to_numpy(dtype=float))
