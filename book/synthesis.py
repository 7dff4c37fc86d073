"""The experiment none of the four papers ran: all methods on the same prompts, splits, embeddings and metrics.

Each method is built and trained by the code of its own chapter with that chapter's default parameters. A *setting* is a
way to hide something from the routers: nothing, new LLMs, labels, or a kind of prompt. One task is one split of one
pool with all its settings, so that no number depends on how many tasks run at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from replications.cscr import experiment, shifts
from replications.cscr.experiment import PoolSetting, Run, Split
from replications.cscr.params import CSCRParams
from replications.radialrouter import experiment as radial
from replications.radialrouter.baselines import datasets_of, with_eq7_cost
from replications.radialrouter.params import RadialRouterParams
from replications.radialrouter.radial_router import RadialRouter, fit_many, query_groups
from replications.semirouter import experiment as semi
from replications.semirouter.params import SemiRouterParams
from replications.semirouter.sparse import sparsify
from replications.uniroute.learned_map import LearnedMap
from replications.uniroute.params import UniRouteParams
from replications.uniroute.selection import choose
from routebook import encoders, load, routers, runs
from routebook.benchmark import RoutingBenchmark
from routebook.datasets import tinypool
from routebook.deferral import deferral_curve, interpolate
from routebook.errors import UserError
from routebook.quiet import quiet
from routebook.routers import BaseRouter, Validation, quality_for
from routebook.threads import one_thread, processes

if TYPE_CHECKING:
    from routebook.pages import SynthesisParams

# The four papers' methods, in the order of the chapters, then baselines and bounds.
PAPERS = ("k-means", "learned-map", "cscr", "radial-router", "semirouter-emb")
BASELINES = ("k-nn", "mlp", "lora-retriever", "zero-router", "dataset-oracle", "best-single")
METHODS = (*PAPERS, *BASELINES, "random", "oracle")
STATIC, NEW_LLMS = "static", "new-llms"
WHOLE = "all"
TRAIN, ADD = "train", "add"
# RadialRouter's scenarios Balance and Cost First (Section 4.3), to compare with one router swept by lambda.
OWN_ALPHAS = (0.02, 0.1)
# Of the training prompts, the most that are kept to choose K, the neighbours and the MLP's epoch by.
MOST_VALIDATION = 1 / 3
# Prompts x seeds from which several processes gain more than their start takes.
WORTH_PROCESSES = 4_000
N_TIMED = 20


def sparse_setting(share: float) -> str:
    """Name the setting in which LLMs other than the anchors keep this share of their labels."""
    return f"labels-{share:g}"


def without(source: str) -> str:
    """Name the setting in which a source is left out of training and routed."""
    return f"without-{source}"


def beside(source: str) -> str:
    """Name the static pool's routers on the prompts of a source, which `without` is compared with."""
    return f"with-{source}"


# --- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rooms:
    """The parameters of each method's chapter, at its defaults but for the data."""

    uniroute: UniRouteParams
    cscr: CSCRParams
    radialrouter: RadialRouterParams
    semirouter: SemiRouterParams


def rooms_of(params: SynthesisParams) -> Rooms:
    """Return each chapter's own parameters in the profile `params.training`, on this page's prompts."""
    data = {name: getattr(params, name) for name in ("max_prompts", "seed", "encoder", "prompt_view")}
    models = (UniRouteParams, CSCRParams, RadialRouterParams, SemiRouterParams)
    return Rooms(*(model.build(data, params.training) for model in models))


def load_pools(params: SynthesisParams) -> dict[str, PoolSetting]:
    """Load and embed the pools asked for, by name: prompts complete in all labels, without probes of fingerprints."""
    rooms = rooms_of(params)
    pools = {}
    for name in runs.resolve_datasets(params):
        if has_fingerprints(name):
            pool = experiment.load_pool(name, rooms.cscr)
        else:
            benchmark = load(name).priced().sample(params.max_prompts, params.seed)
            pool = PoolSetting(name, benchmark, encoders.embed_benchmark(benchmark, params.encoder), {})
        rows = pool.benchmark.complete_rows
        pools[name] = replace(pool, benchmark=pool.benchmark.subset(rows), embeddings=pool.embeddings[rows])
    return pools


def has_fingerprints(pool: str) -> bool:
    """Whether CSCR can be asked on a pool, and so whether the pool takes part in every setting."""
    return pool in experiment.DESCRIPTOR


def blocks_of(benchmark: RoutingBenchmark) -> np.ndarray:
    """Return the source dataset of each prompt, [N] of str: the blocks in which methods are ranked."""
    return datasets_of(benchmark)


def parts_of(benchmark: RoutingBenchmark) -> np.ndarray:
    """Return what is left out of training in turn, [N] of str: the source dataset, on TinyPool the domain."""
    if benchmark.name != "tinypool":
        return datasets_of(benchmark)
    questions = tinypool.questions()
    domain = dict(zip(questions["family"], questions["domain"], strict=True))
    return np.array([domain[family] for family in benchmark.tasks.tolist()], dtype=str)


@dataclass(frozen=True, eq=False)
class Task:
    """One split of one pool: all that a worker needs, without the texts of the prompts.

    Attributes
    ----------
    pool : PoolSetting
    params : SynthesisParams
    seed : int
    train, validation, test : ndarray of int
        Rows; `validation` is a part of `train`.
    every_setting : bool
        Whether to hide LLMs and labels too.
    parts : ndarray of str, [N], or None
        What is left out of training in turn (`parts_of`).
    own_alphas : bool
        Whether RadialRouter is trained at `OWN_ALPHAS` too.
    """

    pool: PoolSetting
    params: SynthesisParams
    seed: int
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    every_setting: bool
    parts: np.ndarray | None
    own_alphas: bool


def tasks_of(pools: Mapping[str, PoolSetting], params: SynthesisParams) -> list[Task]:
    """Draw every split; sources are left out on the first pool that has fingerprints, RouterBench where it is present.

    Raises
    ------
    UserError
        When a pool is too small for the validation prompts or for the labels of new LLMs.
    """
    main = next(name for name in pools if has_fingerprints(name))
    tasks = []
    for name, pool in pools.items():
        benchmark = pool.benchmark
        bare = replace(pool, benchmark=replace(benchmark, prompts=[""] * len(benchmark), responses=None))
        parts = parts_of(benchmark) if name == main else None
        for seed in params.seeds:
            rows = _draw(benchmark, params, seed)
            tasks.append(Task(bare, params, seed, *rows, has_fingerprints(name), parts, name == main))
    return tasks


def _draw(benchmark: RoutingBenchmark, params: SynthesisParams, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows to train on, of these the validation rows, and the rows to test on."""
    n_test = round(params.test_share * len(benchmark))
    most = int(MOST_VALIDATION * (len(benchmark) - n_test))
    n_validation = min(rooms_of(params).uniroute.n_validation, most)
    n_train = len(benchmark) - n_test
    if n_validation < 20 or n_train < params.n_new_labels:
        raise UserError(
            f"{benchmark.name}: {n_train} prompts to train on are left for {params.n_new_labels} labels of new LLMs, "
            f"{n_validation} of them (at least 20) to choose K by; raise max_prompts or lower n_new_labels"
        )
    sizes = {"test": n_test, "validation": n_validation, "train": -1}
    parts = benchmark.random_split(sizes, np.random.default_rng(seed))
    train = np.sort(np.concatenate([parts["train"], parts["validation"]]))
    return train, parts["validation"], parts["test"]


# --- settings --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Case:
    """One setting of one split: what routers learn from and what they are asked.

    Attributes
    ----------
    setting : str
    split : Split
        Its `train` holds the labels there are of the LLMs trained on; its `test` the LLMs that are routed to.
    labelled : RoutingBenchmark
        The training prompts with all labels there are, those of new LLMs included.
    validation : ndarray of int
        Rows of the training prompts that hyper-parameters are chosen by.
    anchors : tuple of str
        SemiRouter's.
    graded : (benchmark, embeddings), or None
        Labels of the LLMs to be added after training.
    """

    setting: str
    split: Split
    labelled: RoutingBenchmark
    validation: np.ndarray
    anchors: tuple[str, ...]
    graded: Validation | None = None

    @property
    def known(self) -> Validation:
        """All labels that routers are trained on, and the embeddings."""
        return self.split.train, self.split.train_embeddings

    def held_back(self) -> tuple[Validation, Validation]:
        """Return the training prompts without the validation prompts, and these, each with its embeddings."""
        train, z = self.known
        rest = np.setdiff1d(np.arange(len(train)), self.validation)
        return (train.subset(rest), z[rest]), (train.subset(self.validation), z[self.validation])


def cases_of(task: Task, rooms: Rooms) -> list[Case]:
    """Return the settings of a split, the static pool first."""
    split = task.pool.split_at(task.seed, task.train, task.test)
    validation = np.flatnonzero(np.isin(task.train, task.validation))
    anchors = semi.anchors_of(split.train, rooms.semirouter)
    cases = [Case(STATIC, split, split.train, validation, anchors)]
    if task.every_setting:
        cases.append(_with_new_llms(cases[0], task.params, rooms))
        for share in task.params.shares:
            thin = sparsify(split.train, anchors, share=share, seed=task.seed)
            cases.append(Case(sparse_setting(share), replace(split, train=thin), thin, validation, anchors))
    for part in () if task.parts is None else np.unique(task.parts).tolist():
        train = task.train[task.parts[task.train] != part]
        rest = task.pool.split_at(task.seed, train, task.test[task.parts[task.test] == part])
        rows = np.flatnonzero(np.isin(train, task.validation))
        anchors = semi.anchors_of(rest.train, rooms.semirouter)
        cases.append(Case(without(part), rest, rest.train, rows, anchors))
    return cases


def _with_new_llms(static: Case, params: SynthesisParams, rooms: Rooms) -> Case:
    """Hide the labels of some LLMs but for those of a few training prompts."""
    split = static.split
    known, new = shifts.known_and_new(split.train.models, 1 - params.new_share, split.seed)
    rows = np.random.default_rng([split.seed, 1]).permutation(len(split.train))[: params.n_new_labels]
    graded = shifts.graded_prompts(split, new, rows)
    hidden = split.train.quality.copy()
    unseen = np.setdiff1d(np.arange(len(hidden)), rows)
    hidden[np.ix_(unseen, split.train.model_columns(new))] = np.nan
    among = split.with_models(known, new)
    anchors = semi.anchors_of(among.train, rooms.semirouter)
    labelled = replace(split.train, quality=hidden)
    return Case(NEW_LLMS, among, labelled, static.validation, anchors, graded)


# --- training --------------------------------------------------------------------------------------------------------


@dataclass
class Clock:
    """Processor seconds spent on each method: `TRAIN`ing it, or `ADD`ing the new LLMs."""

    seconds: dict[tuple[str, str], float] = field(default_factory=dict)

    @contextmanager
    def charge(self, what: str, *methods: str) -> Iterator[None]:
        """Charge what happens inside the `with` block, in full, to each of these methods."""
        start = time.process_time()
        yield
        self.add(what, time.process_time() - start, *methods)

    def add(self, what: str, seconds: float, *methods: str) -> None:
        """Charge so many seconds to each of these methods."""
        for method in methods:
            self.seconds[method, what] = self.seconds.get((method, what), 0.0) + seconds


# Clusterings by the prompts they were made of, as an array in memory, and K.
Clusterings = dict[tuple[int, int], routers.KMeans]


def fit_case(case: Case, rooms: Rooms, clock: Clock, known: Clusterings | None = None) -> dict[str, BaseRouter]:
    """Fit every router but RadialRouter, whose networks are trained side by side (`fit_radial`).

    `known` holds UniRoute's clusterings of earlier settings: those with the same prompts share them, as they are made
    without labels. The first is charged with making them.
    """
    fitted = (
        _uniroute(case, rooms, clock, {} if known is None else known)
        | _neighbours(case, rooms, clock)
        | _with_networks(case, rooms, clock)
    )
    if case.split.descriptors:
        fitted |= _cscr(case, rooms, clock)
    # What needs no training learns from the labels of the LLMs that are routed to.
    labels = case.graded or case.known
    fitted["dataset-oracle"] = routers.DatasetOracle().fit(*labels)
    fitted["best-single"] = routers.BestSingle().fit(*labels)
    with clock.charge(TRAIN if case.graded is None else ADD, "zero-router"):
        fitted["zero-router"] = routers.ZeroRouter().fit(*labels)
    fitted["random"] = routers.Random(seed=case.split.seed).fit(*labels)
    fitted["oracle"] = routers.Oracle().fit(case.split.test, case.split.test_embeddings)
    return fitted


def _uniroute(case: Case, rooms: Rooms, clock: Clock, known: Clusterings) -> dict[str, BaseRouter]:
    """Choose K by the validation prompts (Appendix G), then represent every LLM by all its labels, Eq. (12)."""
    room, seed = rooms.uniroute.model_copy(update={"n_validation": len(case.validation)}), case.split.seed
    fitting, (judged, asked) = case.held_back()
    grid, clusterings = room.clusters_tried, {}
    with clock.charge(TRAIN, "k-means", "learned-map"):
        for k in grid:
            made_of = id(case.split.train_embeddings), k
            if made_of not in known:
                known[made_of] = routers.KMeans(k, seed=seed, n_init=room.kmeans_starts).fit(*fitting)
            clusterings[k] = known[made_of].with_labels(*fitting)
    with clock.charge(TRAIN, "learned-map"):
        maps = {k: LearnedMap(k, seed=seed, clustering=clusterings[k]).fit(*fitting) for k in grid}
    fitted: dict[str, BaseRouter] = {}
    for method, tried in (("k-means", clusterings), ("learned-map", maps)):
        with clock.charge(TRAIN, method):
            best = choose(lambda k, tried=tried: tried[k].predict_quality(asked), grid, judged).best
            fitted[method] = tried[best].add_models(*case.known)
        if case.graded is not None:
            with clock.charge(ADD, method):
                fitted[method].add_models(*case.graded)
    return fitted


def _neighbours(case: Case, rooms: Rooms, clock: Clock) -> dict[str, BaseRouter]:
    """Choose the number of neighbours by the validation prompts, at most as many as the LLM with fewest labels has."""
    room = rooms.uniroute.model_copy(update={"n_validation": len(case.validation)})
    fitting, (judged, asked) = case.held_back()
    with clock.charge(TRAIN, "k-nn"):
        fewest = int((~np.isnan(fitting[0].quality)).sum(axis=0).min())
        fewest = fewest if case.graded is None else min(fewest, len(case.graded[0]))
        counts = sorted({min(count, fewest) for count in room.neighbours_tried})
        found = routers.KNN(max(counts)).fit(*fitting).predict_by_neighbours(asked, counts)
        router = routers.KNN(choose(found.__getitem__, counts, judged).best).fit(*case.known)
    if case.graded is not None:
        with clock.charge(ADD, "k-nn"):
            router.add_models(*case.graded)
    return {"k-nn": router}


def _with_networks(case: Case, rooms: Rooms, clock: Clock) -> dict[str, BaseRouter]:
    """Fit MLP, and SemiRouter with the one baseline of its chapter that is not among the others."""
    split, room = case.split, rooms.semirouter
    with clock.charge(TRAIN if case.graded is None else ADD, "mlp"):
        # UniRoute's chapter keeps the best epoch of an MLP that sees every label, and the last of one retrained.
        judge = None if case.graded is not None else case.held_back()[1]
        mlp = routers.MLP(seed=split.seed).fit(case.labelled, split.train_embeddings, validation=judge)
    fitted: dict[str, BaseRouter] = {"mlp": mlp}
    z = split.train_embeddings, split.test_embeddings
    setting = semi.Setting(split.seed, case.anchors, split.train, split.train, split.test, *z)
    for method in ("semirouter-emb", "lora-retriever"):
        with clock.charge(TRAIN, method):
            fitted[method] = semi.router_for(room, method, setting).fit(*case.known)
        if case.graded is not None:
            with clock.charge(ADD, method):
                fitted[method].add_models(*case.graded)
    return fitted


def _cscr(case: Case, rooms: Rooms, clock: Clock) -> dict[str, BaseRouter]:
    """Fit CSCR with k and the number of bands at most the number of LLMs trained on."""
    n = len(case.split.train.models)
    sizes = {"k": min(rooms.cscr.k, n), "n_bands": min(rooms.cscr.n_bands, n)}
    with clock.charge(TRAIN, "cscr"):
        router: BaseRouter = experiment.cscr_for(rooms.cscr, case.split, **sizes).fit(*case.known)
    if case.graded is not None:
        new = case.split.test.models
        with clock.charge(ADD, "cscr"):
            router = shifts.only_among(shifts.add_newcomers(router, new, case.graded), new, rooms.cscr.k)
    return {"cscr": router}


def fit_radial(cases: Sequence[Case], rooms: Rooms, clocks: Sequence[Clock], own_alphas: bool) -> list[RadialRouter]:
    """Train RadialRouter at alpha = 0 for every case and, after these, at `OWN_ALPHAS` for the first.

    All side by side; each case is charged an equal share of the training, and the making of its semantic groups. A
    router that new LLMs are not added to is retrained: that is charged as adding.
    """
    room, seed = rooms.radialrouter, cases[0].split.seed
    group_seconds: dict[int, float] = {}
    for case in cases:
        z = case.split.train_embeddings
        start = time.process_time()
        query_groups(z, room.n_groups)
        # Made once for the cases that share their prompts.
        group_seconds.setdefault(id(z), time.process_time() - start)
    alphas = OWN_ALPHAS if own_alphas else ()
    made = radial.routers_for(room, [0.0] * len(cases) + list(alphas), [seed])
    learned = [case.labelled for case in cases] + [with_eq7_cost(cases[0].labelled)] * len(alphas)
    read = [case.split.train_embeddings for case in cases] + [cases[0].split.train_embeddings] * len(alphas)
    start = time.process_time()
    fit_many(made, learned, read)
    share = (time.process_time() - start) / len(made)
    for case, clock in zip(cases, clocks, strict=True):
        what = TRAIN if case.graded is None else ADD
        clock.add(what, group_seconds[id(case.split.train_embeddings)] + share, "radial-router")
    return made


# --- running ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Outcome:
    """One setting of one split, routed.

    Attributes
    ----------
    setting : str
    run : Run
        Without embeddings; with its routers for the first split of the main pool's static setting alone.
    seconds : mapping of (method, `TRAIN` or `ADD`) to float
        Processor seconds.
    n_new : int
        LLMs that were added.
    own : list of dict
        RadialRouter at `OWN_ALPHAS`: `alpha`, `quality` and `cost` of its choice, and `swept`, the quality of the
        router trained at alpha = 0 at that cost.
    """

    setting: str
    run: Run
    seconds: Mapping[tuple[str, str], float]
    n_new: int = 0
    own: list[dict[str, float]] = field(default_factory=list)


def run_task(task: Task) -> list[Outcome]:
    """Train and route in every setting of one split."""
    rooms = rooms_of(task.params)
    with one_thread():
        cases = cases_of(task, rooms)
        clocks = [Clock() for _ in cases]
        stars = fit_radial(cases, rooms, clocks, task.own_alphas)
        outcomes: list[Outcome] = []
        clusterings: Clusterings = {}
        for case, clock, star in zip(cases, clocks, stars, strict=False):
            fitted = fit_case(case, rooms, clock, clusterings) | {"radial-router": star}
            run = experiment.route({m: fitted[m] for m in METHODS if m in fitted}, case.split)
            n_new = 0 if case.graded is None else len(case.split.test.models)
            own = _own_choices(stars[len(cases) :], run) if case.setting == STATIC else []
            kept = case.setting == STATIC and task.own_alphas and task.seed == task.params.seed
            outcomes.append(Outcome(case.setting, _slim(run, kept), clock.seconds, n_new, own))
    return outcomes


def _slim(run: Run, with_routers: bool) -> Run:
    """Leave out what would only be copied between processes."""
    split, none = run.split, run.split.train_embeddings[:0]
    z = split.test_embeddings if with_routers else none
    split = replace(split, train_embeddings=none, test_embeddings=z, descriptors={})
    return replace(run, split=split, routers=run.routers if with_routers else {})


def _own_choices(stars: Sequence[RadialRouter], run: Run) -> list[dict[str, float]]:
    """Route by the largest score of RadialRouters trained at their own alpha; read the swept router's curve there."""
    test, rows = run.split.test, np.arange(len(run.split.test))
    found = []
    for star in stars:
        choice = star.predict_quality(run.split.test_embeddings).argmax(axis=1)
        cost = float(test.cost[rows, choice].mean())
        swept = float(interpolate(run.curves["radial-router"], [cost])[0])
        found.append({"alpha": star.alpha, "quality": test.quality[rows, choice].mean(), "cost": cost, "swept": swept})
    return found


def run_all(pools: Mapping[str, PoolSetting], params: SynthesisParams, n_jobs: int | None = None) -> list[Outcome]:
    """Run every split of every pool.

    `n_jobs` processes; by default one a processor where there is enough to do. The numbers, times apart, do not
    depend on it.
    """
    tasks = tasks_of(pools, params)
    if n_jobs is None:
        work = sum(len(task.pool.benchmark) for task in tasks)
        n_jobs = 1 if work < WORTH_PROCESSES else processes()
    # Those with most settings first, so that no process is left with a long one at the end.
    order = sorted(range(len(tasks)), key=lambda i: (tasks[i].parts is None, not tasks[i].every_setting))
    done = experiment.in_processes(run_task, [tasks[i] for i in order], n_jobs, "splits")
    by_task = dict(zip(order, done, strict=True))
    return [outcome for i in range(len(tasks)) for outcome in by_task[i]]


# --- what they earn --------------------------------------------------------------------------------------------------


def restricted(run: Run, rows: np.ndarray) -> Run:
    """Return a run on some of its test prompts; nothing is trained anew, prices stay as they are."""
    test = run.split.test.subset(rows)
    z = run.split.test_embeddings
    split = replace(run.split, test=test, test_embeddings=z[rows] if len(z) else z)
    estimates = {method: estimate[rows] for method, estimate in run.estimates.items()}
    curves = {m: deferral_curve(e, test.quality, split.price, paid=test.cost) for m, e in estimates.items()}
    return replace(run, split=split, estimates=estimates, curves=curves)


def results(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Return what every router earns in every setting.

    Returns
    -------
    DataFrame
        The columns of `replications.cscr.experiment.evaluate` (pool, seed, method, area, qnc, peak, ...), preceded by
        `setting`; `source`: "all", or in the static setting also each source dataset by itself; and `n`, the number
        of test prompts. For every `without` setting there are rows of the `beside` setting.
    """
    left_out = {outcome.setting for outcome in outcomes}
    frames = []

    def add(setting: str, source: str, run: Run) -> None:
        frame = experiment.evaluate([run])
        frame.insert(0, "n", len(run.split.test))
        frame.insert(0, "source", source)
        frame.insert(0, "setting", setting)
        frames.append(frame)

    for outcome in outcomes:
        add(outcome.setting, WHOLE, outcome.run)
        if outcome.setting == STATIC:
            test = outcome.run.split.test
            for source in np.unique(blocks_of(test)).tolist():
                add(STATIC, source, restricted(outcome.run, blocks_of(test) == source))
            parts = parts_of(test) if outcome.own else np.array([], dtype=str)
            for part in np.unique(parts).tolist():
                if without(part) in left_out:
                    add(beside(part), WHOLE, restricted(outcome.run, parts == part))
    return pd.concat(frames, ignore_index=True)


def kept_run(outcomes: Sequence[Outcome]) -> Run:
    """Return the one run that still has its routers: the first split of the main pool's static setting."""
    return next(outcome.run for outcome in outcomes if outcome.run.routers)


def at(frame: pd.DataFrame, setting: str, pool: str | None = None, source: str = WHOLE) -> pd.DataFrame:
    """Return the rows of `results` of one setting, on one pool or all."""
    kept = (frame["setting"] == setting) & (frame["source"] == source)
    return frame[kept if pool is None else kept & (frame["pool"] == pool)]


def settings_of(frame: pd.DataFrame, start: str) -> list[str]:
    """Return the settings whose name begins so, in the order they were run."""
    return [setting for setting in dict.fromkeys(frame["setting"]) if setting.startswith(start)]


def own_frame(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Return RadialRouter at its own trade-offs: one row an alpha and seed, with `gain` = quality less swept."""
    rows = [{"seed": outcome.run.split.seed, **own} for outcome in outcomes for own in outcome.own]
    frame = pd.DataFrame(rows)
    frame["gain"] = frame["quality"] - frame["swept"]
    return frame


def seconds_frame(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Return processor seconds: one row a pool, seed, method and thing done, in the static and the new-LLM setting.

    `ADD` is divided by the LLMs added, but for routers that are retrained, which it takes whole for one.
    """
    rows = []
    for outcome in outcomes:
        for (method, what), seconds in outcome.seconds.items():
            if (outcome.setting, what) not in ((STATIC, TRAIN), (NEW_LLMS, ADD)):
                continue
            whole = what == TRAIN or method in RETRAINED
            split = outcome.run.split
            per = 1 if whole else outcome.n_new
            rows.append((split.name, split.seed, method, what, seconds / per))
    return pd.DataFrame(rows, columns=["pool", "seed", "method", "what", "seconds"])


# An output an LLM: a new one takes a new training.
RETRAINED = ("radial-router", "mlp")


def routing_times(run: Run, n_prompts: int = N_TIMED) -> dict[str, float]:
    """Return the milliseconds each router takes to route one prompt whose embedding is at hand, by method.

    One prompt at a time, on one thread; the median over prompts. Estimates and the choice at one trade-off are timed.
    """
    split, price = run.split, run.split.price
    lam = 1.0 / price.max()
    took: dict[str, list[float]] = {}
    with one_thread(), quiet():
        for method, router in run.routers.items():
            if method == "oracle":
                continue
            for i in [0, 0, 0, *range(min(n_prompts, len(split.test)))]:
                start = time.perf_counter()
                said = quality_for(
                    router, split.test_embeddings[i : i + 1], split.test.models, split.test.tasks[i : i + 1]
                )
                experiment.choose(experiment.with_last_resort(said, price), price, lam)
                took.setdefault(method, []).append(1000 * (time.perf_counter() - start))
    # The first three warm up.
    return {method: float(np.median(times[3:])) for method, times in took.items()}


def encoding_time(params: SynthesisParams, prompts: Sequence[str]) -> float:
    """Return the milliseconds it takes to embed one prompt, by itself and without the cache."""
    name = "minilm" if params.encoder == "auto" else params.encoder
    return encoders.measure_latency(name, prompts[:N_TIMED])
