"""The paper's experiment: pools split in two, routers trained on labels, deferral curves and all that is read off them.

Section 4 and Appendix D. On every pool an LLM has one price, c(h): its mean cost on the training prompts, which is
what a router knows beforehand (Eq. (9)). What is paid is the cost of the call itself.

A router that gives an LLM no score never calls it. CSCR looks at k experts a prompt and so cannot meet budgets below
the cheapest of those: there the pool's cheapest LLM is its last resort (`with_last_resort`), which is what anyone with
that budget would do, and what keeps areas comparable. (Holding the curve flat to the left, as the released code does,
would credit a router with quality at budgets it cannot meet.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from replications.cscr import baselines, fingerprints
from replications.cscr.contrastive import CSCR, positive_experts
from replications.cscr.cost_spectrum import cost_bands
from routebook import encoders, load, routers, runs
from routebook.benchmark import RoutingBenchmark
from routebook.datasets import simulated
from routebook.deferral import CSCR_LAMBDAS, DeferralCurve, audc_cscr, deferral_curve
from routebook.errors import UserError
from routebook.progress import progress
from routebook.routers import BaseRouter, quality_for
from routebook.significance import Estimate, area_differences_bootstrap, mcnemar, mean_interval, sign_test
from routebook.threads import one_thread, processes

if TYPE_CHECKING:
    from replications.cscr.params import _CSCRParams

# Rows of Table 1 in its order, vanilla InfoNCE (Table 5) and the references the book always shows.
METHODS = (
    "oracle",
    "umr",
    "thompson",
    "soft-moe",
    "parametric",
    "zero-router",
    "random",
    "cscr",
    "vanilla",
    "best-single",
    "dataset-oracle",
)
METRICS = ("area", "audc-code", "peak", "cost-at-peak", "qnc")
# Of the prompts left when probes are gone; a pool with a train and a test split keeps it.
TEST_SHARE = {"routerbench": 0.3, "alpaca-eval": 0.4, "simulated": 0.3}
GIVEN_SPLIT = ("tinypool",)
LOAD_OPTIONS: dict[str, dict[str, Any]] = {
    "alpaca-eval": {"adversarial": "drop"},
    "tinypool": {"cost": "parameters"},
}
# Logit footprints where the LLMs are open, perplexity fingerprints elsewhere (Section 4.1).
DESCRIPTOR = {"routerbench": "perplexity", "alpaca-eval": "perplexity", "tinypool": "logit"}
# What the released code charges for GPT-4 (CS-14): its grid of λ is meant for costs up to about that.
CODE_DEAREST = 1.66
LAST_RESORT = 1e6
DOLLARS, DOLLARS_SHOWN = "USD per prompt", "USD per 1,000 prompts"
CSCR_PARAMETERS = (
    "n_bands",
    "gamma",
    "gamma_sign",
    "alpha",
    "tau_min",
    "k",
    "hidden",
    "epochs",
    "min_steps",
    "lr",
    "batch_size",
    "loss",
)
OUTCOMES = ("too-cheap", "too-expensive", "optimal", "no-correct", "wrong-but-not-cheap")
Make = Callable[["Split"], Mapping[str, BaseRouter]]
Given, Found = TypeVar("Given"), TypeVar("Found")
# Prompts passed through a network, below which starting processes costs more than it saves.
WORTH_PROCESSES = 10_000_000


# --- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Split:
    """Prompts to train on and to route, with all that routers know of them and of the LLMs.

    Attributes
    ----------
    name
        Of the pool.
    seed
        Of the trainings, and of the split where it was drawn.
    train, test : RoutingBenchmark
    train_embeddings, test_embeddings : ndarray, [N, D]
    descriptors : mapping of str to ndarray [D']
        Fingerprint of each LLM by name.
    prices : mapping of str to float
        c(h), the price list: each LLM's mean cost on the training prompts, which is all a router knows of the cost.
    """

    name: str
    seed: int
    train: RoutingBenchmark
    test: RoutingBenchmark
    train_embeddings: np.ndarray
    test_embeddings: np.ndarray
    descriptors: Mapping[str, np.ndarray]
    prices: Mapping[str, float]

    @property
    def price(self) -> np.ndarray:
        """c(h) of the LLMs routed to, [M]."""
        return np.array([self.prices[model] for model in self.test.models])

    def with_models(self, train: Sequence[str], test: Sequence[str] | None = None) -> Split:
        """Return the split with some of the LLMs; `test` names those routed to where they are others."""
        test = train if test is None else test
        return replace(self, train=self.train.subset(models=train), test=self.test.subset(models=test))

    def with_fixed_prices(self, prices: Mapping[str, float] | None = None) -> Split:
        """Return the split in which every call to an LLM costs the same: its price here, or c(h) if none are given.

        The released code charges so (7.2 #16); UserError naming an LLM without a price.
        """
        prices = self.prices if prices is None else prices
        missing = [model for model in {*self.train.models, *self.test.models} if model not in prices]
        if missing:
            raise UserError(f"{self.name}: prices name no {min(missing)!r}; give it, or leave the LLM out")

        def charge(part: RoutingBenchmark) -> RoutingBenchmark:
            return part.with_cost([prices[model] for model in part.models], part.cost_unit)

        return replace(self, train=charge(self.train), test=charge(self.test), prices=dict(prices))

    def with_descriptors(self, descriptors: Mapping[str, np.ndarray]) -> Split:
        """Return the split with other fingerprints of the LLMs."""
        return replace(self, descriptors=descriptors)


@dataclass(frozen=True, eq=False)
class PoolSetting:
    """A pool of LLMs with its prompts, without the probes of its fingerprints.

    Attributes
    ----------
    name
    benchmark : RoutingBenchmark
        Priced LLMs only.
    embeddings : ndarray, [N, D]
    descriptors : mapping of str to ndarray [D']
    n_probes_removed
        Prompts left out because fingerprints were taken on them, or on the same question.
    """

    name: str
    benchmark: RoutingBenchmark
    embeddings: np.ndarray
    descriptors: Mapping[str, np.ndarray]
    n_probes_removed: int = 0

    def rows(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows to train on and those to test on.

        TinyPool's own train and test split, the same for every seed; any other pool at random, a new split a seed,
        never cutting a question in two. (The released code's 90 to 10 would leave 300 prompts of RouterBench to test
        on; RouterDC's split of it, which comes with our file, is one of three source datasets made for another paper.)
        """
        if self.name in GIVEN_SPLIT:
            return tuple(np.flatnonzero(self.benchmark.split == part) for part in ("train", "test"))
        sizes = {"test": round(TEST_SHARE[self.name] * len(self.benchmark)), "train": -1}
        parts = self.benchmark.random_split(sizes, np.random.default_rng(seed))
        return parts["train"], parts["test"]

    def split(self, seed: int) -> Split:
        """Return the prompts to train on and to route with this seed."""
        return self.split_at(seed, *self.rows(seed))

    def split_at(self, seed: int, train: np.ndarray, test: np.ndarray) -> Split:
        """Return the split with these rows to train on and to route; UserError if either part is empty."""
        if not len(train) or not len(test):
            raise UserError(
                f"{self.name}: {len(train)} prompts to train on and {len(test)} to test on; raise max_prompts"
            )
        known, routed = self.benchmark.subset(train), self.benchmark.subset(test)
        prices = dict(zip(known.models, known.mean_cost.tolist(), strict=True))
        embeddings = self.embeddings[train], self.embeddings[test]
        return Split(self.name, seed, known, routed, *embeddings, self.descriptors, prices)


def load_pool(name: str, params: _CSCRParams, **options: Any) -> PoolSetting:
    """Load a pool, draw the prompts used, leave out the probes of its fingerprints, and embed the rest.

    Parameters
    ----------
    name
        One of `Pool`.
    params
    options
        Of the dataset's loader, where they are to differ.

    Raises
    ------
    UserError
        Before anything is embedded or trained: `k` or `n_bands` beyond the pool, an LLM without a fingerprint.
    """
    benchmark = load_benchmark(name, params, **options)
    check_pool(name, len(benchmark.models), params)
    descriptors, probe_ids = _fingerprints(benchmark)
    sample = benchmark.sample(params.max_prompts, params.seed)
    # Looked up in the whole benchmark: the sample may hold another prompt of a question that a probe asks.
    free = fingerprints.without_probes(benchmark, probe_ids)
    kept = sample.subset(np.isin(sample.ids, free.ids))
    embeddings = encoders.embed_benchmark(kept, params.encoder)
    return PoolSetting(name, kept, embeddings, descriptors, len(sample) - len(kept))


def load_benchmark(name: str, params: _CSCRParams, **options: Any) -> RoutingBenchmark:
    """Load a pool's priced LLMs on all its prompts, probes included; `options` as in `load_pool`."""
    view = {"prompt_view": params.prompt_view} if name == "routerbench" else {}
    return load(name, **(view | LOAD_OPTIONS.get(name, {}) | options)).priced()


def load_pools(params: _CSCRParams, **options: Any) -> dict[str, PoolSetting]:
    """Load every pool the parameters ask for, by name; errors as in `load_pool`."""
    return {name: load_pool(name, params, **options) for name in runs.resolve_datasets(params)}


def check_pool(name: str, n_models: int, params: _CSCRParams) -> None:
    """Raise UserError when a pool has too few LLMs for the parameters."""
    for parameter in ("k", "n_bands"):
        value = getattr(params, parameter)
        if value > n_models:
            raise UserError(
                f"{parameter} is {value}, but the pool {name} holds {n_models} LLMs; lower {parameter} to at most "
                f"{n_models}, or leave {name} out of pools"
            )


def fitting(values: Sequence[int], setting: PoolSetting, parameter: str) -> list[int]:
    """Return those values of a sweep that a pool has LLMs for; UserError when that is none."""
    n_models = len(setting.benchmark.models)
    kept = [value for value in values if value <= n_models]
    if not kept:
        raise UserError(f"{parameter}: the least is {min(values)}, but the pool {setting.name} holds {n_models} LLMs")
    return kept


def _fingerprints(benchmark: RoutingBenchmark) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the fingerprint [D'] of each LLM by name, and the ids of the probes they were taken on."""
    if benchmark.name == "simulated":
        vectors, models, probe_ids = _simulated_fingerprints(benchmark)
    else:
        descriptor = DESCRIPTOR[benchmark.name]
        vectors, models, probe_ids = fingerprints.load_fingerprints(benchmark.name, descriptor, models=benchmark.models)
    return dict(zip(models, vectors, strict=True)), probe_ids


def _simulated_fingerprints(benchmark: RoutingBenchmark) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Return the fingerprints of Eqs. (3) and (4) that the truth behind the simulated pool implies.

    The cross-entropy of the right answer is -log of the probability that the LLM is right, which is known.
    """
    _, truth = simulated.mixture(len(benchmark), len(benchmark.models), name=benchmark.name)
    rows = fingerprints.probe_rows(benchmark)
    losses = -np.log(1.0 - truth.prompt_error[rows]).T
    return fingerprints.fingerprint(losses), list(benchmark.models), benchmark.ids[rows]


# --- routers ---------------------------------------------------------------------------------------------------------


def epochs_for(params: _CSCRParams, n_prompts: int) -> int:
    """Return how often training goes through so many prompts: `epochs`, or more where `min_steps` asks for them."""
    batches = -(-n_prompts // params.batch_size)
    return max(params.epochs, -(-params.min_steps // batches))


def cscr_for(params: _CSCRParams, split: Split, **changes: Any) -> CSCR:
    """Return an unfitted CSCR router as the parameters describe it.

    Parameters
    ----------
    params, split
    changes
        Parameters of `CSCR` that are to differ, e.g. ``k=8`` or ``loss="vanilla"``.
    """
    fixed = {name: getattr(params, name) for name in CSCR_PARAMETERS}
    fixed |= {"seed": split.seed, "descriptors": split.descriptors}
    return CSCR(**(fixed | changes))


def routers_for(
    params: _CSCRParams, split: Split, methods: Sequence[str] = METHODS, **changes: Any
) -> dict[str, BaseRouter]:
    """Return unfitted routers of Table 1 by method.

    Parameters
    ----------
    params, split
    methods
        Some of `METHODS`, "k-nn" or "k-means".
    changes
        Parameters of `CSCR` that are to differ, for vanilla InfoNCE as well.
    """
    seed = split.seed
    gates = {
        "epochs": epochs_for(params, len(split.train)),
        "lr": params.lr,
        "batch_size": params.batch_size,
        "seed": seed,
    }
    makers: dict[str, Callable[[], BaseRouter]] = {
        "oracle": routers.Oracle,
        "umr": partial(baselines.UMR, params.umr_clusters, seed=seed),
        "thompson": partial(routers.Thompson, seed=seed),
        "soft-moe": partial(baselines.SoftMoE, **gates),
        "parametric": partial(baselines.Parametric, (params.hidden,), **gates),
        "zero-router": routers.ZeroRouter,
        "random": partial(routers.Random, seed=seed),
        "cscr": partial(cscr_for, params, split, **changes),
        "vanilla": partial(cscr_for, params, split, **(changes | {"loss": "vanilla"})),
        "best-single": routers.BestSingle,
        "dataset-oracle": routers.DatasetOracle,
        "k-nn": routers.KNN,
        "k-means": partial(routers.KMeans, params.umr_clusters, seed=seed),
    }
    return {method: makers[method]() for method in methods}


def released_routers(params: _CSCRParams, split: Split) -> dict[str, BaseRouter]:
    """Return unfitted baselines as the released code has them, by the method they go by there (7.2 #23 to #26)."""
    gates = {"epochs": epochs_for(params, len(split.train)), "lr": params.lr, "batch_size": params.batch_size}
    return {
        "umr": baselines.UMR(20, "released", fingerprints.N_PROBES, seed=split.seed),
        "thompson": routers.Thompson("test", seed=split.seed),
        # The argmax of cosine - λc over all experts, from a checkpoint of the contrastive encoder.
        "soft-moe": cscr_for(params, split, loss="vanilla", k=len(split.train.models)),
        "parametric": baselines.DescriptorSoftmax(split.descriptors, **gates, seed=split.seed),
        "zero-router": routers.Random(seed=split.seed),
    }


def variants_for(params: _CSCRParams, split: Split, variants: Mapping[str, Mapping[str, Any]]) -> dict[str, CSCR]:
    """Return unfitted CSCR routers by variant: name to the parameters of `CSCR` that differ there."""
    return {name: cscr_for(params, split, **changes) for name, changes in variants.items()}


def train(unfitted: Mapping[str, BaseRouter], split: Split) -> dict[str, BaseRouter]:
    """Fit routers on the training prompts; Oracle, and Thompson with ``online="test"``, on the test prompts."""
    fitted = {}
    with one_thread():
        for method, router in unfitted.items():
            on_test = isinstance(router, routers.Oracle) or getattr(router, "online", "train") == "test"
            part = (split.test, split.test_embeddings) if on_test else (split.train, split.train_embeddings)
            fitted[method] = router.fit(*part)
    return fitted


# --- what they say and earn ------------------------------------------------------------------------------------------


def with_last_resort(estimate: np.ndarray, price: np.ndarray) -> np.ndarray:
    """Return estimates [N, M] in which the cheapest LLM, where it has none (NaN), is what is left when λ is huge.

    Its estimate is put so far below all others that it is chosen only at trade-offs beyond all others. One by one the
    prompts then go to it, those with the dearest choice first.
    """
    cheapest = int(np.argmin(price))
    missing = np.isnan(estimate[:, cheapest])
    if not missing.any():
        return estimate
    low, high = np.nanmin(estimate), np.nanmax(estimate)
    estimate = estimate.copy()
    estimate[missing, cheapest] = low - LAST_RESORT * max(high - low, 1.0)
    return estimate


def choose(estimate: np.ndarray, price: np.ndarray, lam: float) -> np.ndarray:
    """Return argmax of estimate - λ price, [N] of int: Eq. (9) with its sign mended; of equals the cheapest.

    Parameters
    ----------
    estimate : ndarray, [N, M]
        NaN = never chosen.
    price : ndarray, [M]
    lam
    """
    order = np.argsort(price, kind="stable")
    score = estimate[:, order] - lam * price[order]
    return order[np.where(np.isnan(score), -np.inf, score).argmax(axis=1)]


def within_piece(curve: DeferralCurve, piece: int) -> float:
    """Return a λ inside a piece of the curve, where rounding decides no tie."""
    left = float(curve.lam[piece])
    if piece + 1 == len(curve):
        return 2 * left + 1.0
    return (left + float(curve.lam[piece + 1])) / 2


@dataclass(frozen=True, eq=False)
class Run:
    """Routers fitted on one split, and what they say of its test prompts.

    Attributes
    ----------
    split
    routers : dict of str to BaseRouter
    estimates : dict of str to ndarray [N, M]
        With the cheapest LLM as last resort.
    curves : dict of str to DeferralCurve
        Routed by price, billed by call.
    """

    split: Split
    routers: Mapping[str, BaseRouter]
    estimates: Mapping[str, np.ndarray]
    curves: Mapping[str, DeferralCurve]

    def at_peak(self, method: str) -> np.ndarray:
        """Return the LLM each test prompt is sent to at the method's peak, [N]; of equal peaks the cheapest one."""
        curve = self.curves[method]
        quality = np.where(np.isnan(curve.quality), -np.inf, curve.quality)
        top = np.flatnonzero(quality >= curve.peak - 1e-12)
        piece = int(top[np.argmin(curve.cost[top])])
        return choose(self.estimates[method], self.split.price, within_piece(curve, piece))

    def at_budget(self, method: str, budget: float) -> np.ndarray:
        """Return the LLM each test prompt is sent to at the smallest λ whose mean cost is at most `budget`, [N]."""
        curve = self.curves[method]
        piece = int(np.searchsorted(curve.lam, curve.lambda_for_budget(budget)))
        return choose(self.estimates[method], self.split.price, within_piece(curve, piece))


def route(fitted: Mapping[str, BaseRouter], split: Split) -> Run:
    """Ask fitted routers about the test prompts and trace their deferral curves."""
    test = split.test
    with one_thread():
        told = {m: quality_for(r, split.test_embeddings, test.models, test.tasks) for m, r in fitted.items()}
    return replace(route_by(told, split), routers=fitted)


def route_by(told: Mapping[str, np.ndarray], split: Split) -> Run:
    """Trace the deferral curves of estimates [N, M] on the test prompts, by method; the run holds no routers."""
    test, price = split.test, split.price
    estimates = {method: with_last_resort(estimate, price) for method, estimate in told.items()}
    curves = {m: deferral_curve(estimate, test.quality, price, paid=test.cost) for m, estimate in estimates.items()}
    return Run(split, {}, estimates, curves)


def in_processes(work: Callable[[Given], Found], given: Sequence[Given], n_jobs: int, label: str) -> list[Found]:
    """Do the same work on everything given, in so many processes; results in the order given."""
    if n_jobs < 1:
        raise UserError(f"n_jobs is {n_jobs}, expected a whole number of processes >= 1")
    if n_jobs == 1 or len(given) < 2:
        return [_on_one_thread(work, one) for one in progress(given, label=label, unit="split")]
    from joblib import Parallel, delayed

    found = Parallel(n_jobs=min(n_jobs, len(given)), return_as="generator")(
        delayed(_on_one_thread)(work, one) for one in given
    )
    return list(progress(found, label=label, unit="split", total=len(given)))


def _on_one_thread(work: Callable[[Given], Found], one: Given) -> Found:
    """Do one piece of work; its many short calls then need not set the number of threads one by one."""
    with one_thread():
        return work(one)


def processes_for(params: _CSCRParams, n_trainings: int) -> int:
    """Return how many processes so many trainings are worth: one, or one a processor."""
    seen = max(params.epochs * params.max_prompts, params.min_steps * params.batch_size)
    return 1 if n_trainings * seen < WORTH_PROCESSES else processes()


def run_all(pools: Mapping[str, PoolSetting], seeds: Sequence[int], make: Make, n_jobs: int = 1) -> list[Run]:
    """Train and route on every pool with every seed.

    Parameters
    ----------
    pools
    seeds
    make
        Takes a split and returns its unfitted routers, e.g. ``partial(routers_for, params)``.
    n_jobs
        Processes (`processes_for`). The numbers do not depend on it.
    """
    tasks = [(make, setting, seed) for setting in pools.values() for seed in seeds]
    return in_processes(_run_split, tasks, n_jobs, "routers")


def _run_split(task: tuple[Make, PoolSetting, int]) -> Run:
    make, setting, seed = task
    split = setting.split(seed)
    return route(train(make(split), split), split)


def cost_unit(benchmark: RoutingBenchmark) -> tuple[str, float]:
    """Return the unit in which a pool's costs are shown, and the factor that brings a mean cost there."""
    return (DOLLARS_SHOWN, 1000.0) if benchmark.cost_unit == DOLLARS else (benchmark.cost_unit, 1.0)


def code_lambdas(split: Split) -> np.ndarray:
    """Return the released code's grid of λ, [20], brought to the scale of the pool's prices."""
    return CSCR_LAMBDAS * (CODE_DEAREST / split.price.max())


def evaluate(done: Sequence[Run]) -> pd.DataFrame:
    """Return what every router of every run earns on the test prompts.

    Returns
    -------
    DataFrame
        One row a pool, seed and method: `pool`, `seed`, `method`; `area` (exact, budgets from the cheapest to the
        dearest LLM's mean cost, 1 = all right at any budget), `audc-code` (as the released code: depends on the
        methods of the run), `peak`, `cost-at-peak` (the least mean cost of a prompt there, in the unit of
        `cost_unit`), `qnc` (least cost to match the most accurate LLM as a share of that LLM's cost; 1 where that is
        not reached or costs more, since that LLM can then be called itself) and `reached` (whether it was).
    """
    rows = []
    for run in done:
        code = audc_cscr(run.curves, code_lambdas(run.split))
        factor = cost_unit(run.split.test)[1]
        for method, curve in run.curves.items():
            qnc = curve.qnc()
            rows.append(
                {
                    "pool": run.split.name,
                    "seed": run.split.seed,
                    "method": method,
                    "area": curve.area(left="flat"),
                    "audc-code": code[method],
                    "peak": curve.peak,
                    "cost-at-peak": curve.cost_at_peak * factor,
                    "qnc": min(qnc, 1.0),
                    "reached": bool(np.isfinite(qnc)),
                }
            )
    return pd.DataFrame(rows)


def by_seed(frame: pd.DataFrame, pool: str, metric: str = "area") -> pd.DataFrame:
    """Return a metric of `evaluate` on one pool: one row a seed, one column a method."""
    here = frame[frame["pool"] == pool]
    return here.pivot(index="seed", columns="method", values=metric)[list(dict.fromkeys(here["method"]))]


def summary(frame: pd.DataFrame, pool: str, metric: str = "area") -> pd.DataFrame:
    """Return the mean over seeds with its 95 % t-interval, one row a method: value, low, high, n."""
    wide = by_seed(frame, pool, metric)
    rows = {}
    for method in wide:
        interval = mean_interval(wide[method].to_numpy(dtype=float))
        rows[method] = {"value": interval.estimate, "low": interval.low, "high": interval.high, "n": interval.n}
    return pd.DataFrame.from_dict(rows, orient="index")


def difference(frame: pd.DataFrame, pool: str, a: str, b: str, metric: str = "area") -> Estimate:
    """Return a metric of method a minus method b on a pool, paired over seeds, with its 95 % t-interval."""
    wide = by_seed(frame, pool, metric)
    return mean_interval((wide[a] - wide[b]).to_numpy(dtype=float))


# --- significance (Appendix D.6, Table 16) ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Paired:
    """Two routers compared prompt by prompt, as in Table 16.

    Attributes
    ----------
    delta : Estimate
        Area of a less area of b, with the bootstrap's interval and one-sided p-value.
    budget
        The matched budget c*, in the pool's unit of cost.
    wins, losses
        n10 and n01: prompts that a alone, or b alone, gets right at c* (soft scores: answers better).
    test : Estimate
        McNemar's exact test, one-sided; on soft scores the sign test. Its estimate is the share of wins.
    """

    delta: Estimate
    budget: float
    wins: int
    losses: int
    test: Estimate


def paired(run: Run, a: str, rivals: Sequence[str], n_bootstrap: int = 5000, seed: int = 0) -> dict[str, Paired]:
    """Compare a router of a run with each of some others on its test prompts (Appendix D.6).

    The hypothesis is that a is better. The matched budget is "the median of the combined cost grids": of the mean
    costs of both curves' operating points. Each router then runs at the smallest λ that keeps to it.
    """
    test = run.split.test
    deltas = area_differences_bootstrap(
        run.estimates[a],
        {b: run.estimates[b] for b in rivals},
        test.quality,
        run.split.price,
        paid=test.cost,
        n_resamples=n_bootstrap,
        seed=seed,
        alternative="greater",
        left="flat",
    )
    return {b: _at_matched_budget(run, a, b, delta) for b, delta in deltas.items()}


def _at_matched_budget(run: Run, a: str, b: str, delta: Estimate) -> Paired:
    test = run.split.test
    budget = float(np.median(np.concatenate([run.curves[a].cost, run.curves[b].cost])))
    # A router that is dearer throughout cannot keep to it.
    budget = max(budget, run.curves[a].cost.min(), run.curves[b].cost.min())
    rows = np.arange(len(test))
    earned_a, earned_b = (test.quality[rows, run.at_budget(method, budget)] for method in (a, b))
    both = ~np.isnan(earned_a + earned_b)
    binary = bool(np.isin(test.quality[~np.isnan(test.quality)], (0.0, 1.0)).all())
    outcome = (mcnemar if binary else sign_test)(earned_a, earned_b, "greater")
    wins, losses = int((earned_a > earned_b)[both].sum()), int((earned_a < earned_b)[both].sum())
    return Paired(delta, budget, wins, losses, outcome)


# --- which expert is chosen (Appendix D.5, Tables 14 and 15, Figure 5) -----------------------------------------------


def band_counts(choice: np.ndarray, price: np.ndarray, n_bands: int) -> np.ndarray:
    """Return how many prompts are sent to an expert of each cost band, [K] of int (Table 14); their sum is N.

    Parameters
    ----------
    choice : ndarray of int, [N]
    price : ndarray, [M]
    n_bands
        The percentiles are numbered as asked for: a band that equal prices leave without an expert is sent 0.
    """
    bands = cost_bands(price, n_bands)
    return np.bincount(bands.asked_band[choice], minlength=bands.asked)


def outcome_counts(choice: np.ndarray, correct: np.ndarray, price: np.ndarray) -> dict[str, int]:
    """Return how many prompts fall into each class of Table 15; the counts sum to N.

    Parameters
    ----------
    choice : ndarray of int, [N]
    correct : ndarray of bool, [N, M]
        `contrastive.positive_experts`: what training takes for correct. On soft scores that is any answer within a
        margin of the best, so some LLM always is.
    price : ndarray, [M]

    Returns
    -------
    dict of str to int
        "optimal": correct, and no correct LLM is cheaper; "too-expensive": correct, but one is; "no-correct": no LLM
        is correct; "too-cheap": wrong, and cheaper than every correct one; "wrong-but-not-cheap": wrong, although a
        correct LLM costs no more, which is the class the paper lacks (CS-6).
    """
    right = correct[np.arange(len(choice)), choice]
    cheapest = np.where(correct, price, np.inf).min(axis=1)
    paid = price[choice]
    none = ~correct.any(axis=1)
    classes = {
        "too-cheap": ~right & ~none & (paid < cheapest),
        "too-expensive": right & (paid > cheapest),
        "optimal": right & (paid == cheapest),
        "no-correct": none,
        "wrong-but-not-cheap": ~right & ~none & (paid >= cheapest),
    }
    return {name: int(classes[name].sum()) for name in OUTCOMES}


def profiles(done: Sequence[Run], method: str = "cscr", n_bands: int = 5) -> pd.DataFrame:
    """Return what a router chooses at its peak in each run: one row a run.

    Columns: `pool`, `seed`, `n` (test prompts), `band-0`, `band-1`, ... (Table 14) and the classes of Table 15,
    `OUTCOMES`.
    """
    rows = []
    for run in done:
        choice, price = run.at_peak(method), run.split.price
        row = {"pool": run.split.name, "seed": run.split.seed, "n": len(choice)}
        row |= {f"band-{k}": int(count) for k, count in enumerate(band_counts(choice, price, n_bands))}
        rows.append(row | outcome_counts(choice, positive_experts(run.split.test), price))
    return pd.DataFrame(rows)


def examples(run: Run, n: int = 3, routers_shown: tuple[str, str, str] = ("umr", "vanilla", "cscr")) -> pd.DataFrame:
    """Return prompts on which the routers chose as in the paper's Figure 5, by a rule instead of by hand.

    Each router runs at its own peak. Taken are the prompts on which vanilla's choice is wrong and CSCR's is right and
    dearer than it, while UMR's is right too but dearer still; first those on which CSCR saves most against UMR, at
    the cost of the calls, of equals the first in the data. There may be fewer than `n`, or none.

    Returns
    -------
    DataFrame
        `row` (of the test prompts), `task`, `prompt`; for each router `<key>-llm`, `<key>-quality` and `<key>-cost`;
        and `saved`.
    """
    test, correct = run.split.test, positive_experts(run.split.test)
    rows = np.arange(len(test))
    choices = {method: run.at_peak(method) for method in routers_shown}
    umr, vanilla, cscr = (choices[method] for method in routers_shown)
    cost = {method: test.cost[rows, choice] for method, choice in choices.items()}
    umr_cost, vanilla_cost, cscr_cost = (cost[method] for method in routers_shown)
    fits = ~correct[rows, vanilla] & correct[rows, cscr] & correct[rows, umr]
    fits &= (vanilla_cost < cscr_cost) & (cscr_cost < umr_cost)
    saved = umr_cost - cscr_cost
    chosen = np.flatnonzero(fits)
    chosen = chosen[np.argsort(-saved[chosen], kind="stable")][:n]
    frame = pd.DataFrame({"row": chosen, "task": test.tasks[chosen], "prompt": [test.prompts[i] for i in chosen]})
    for method in routers_shown:
        choice = choices[method][chosen]
        frame[f"{method}-llm"] = [test.models[j] for j in choice]
        frame[f"{method}-quality"] = test.quality[chosen, choice]
        frame[f"{method}-cost"] = cost[method][chosen]
    frame["saved"] = saved[chosen]
    return frame
