"""The paper's experiment: a benchmark split in two, routers trained for a trade-off alpha, what their choices earn.

Sections 4 and 5. A method may be any router that has an `alpha` and a `seed`: RadialRouter in any variant, or one of
`baselines.BASELINES`. Performance, cost and score are macro averages over source datasets, as in the paper's tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from replications.radialrouter import baselines
from replications.radialrouter.baselines import AlphaRouter, Routed
from replications.radialrouter.lookups import DATASETS, SCENARIOS
from replications.radialrouter.radial_router import RadialRouter, fit_many
from routebook import encoders, load, runs
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError
from routebook.significance import Estimate, mean_interval

if TYPE_CHECKING:
    from replications.radialrouter.params import _RadialParams

MACRO = "macro"
TEST_SHARE = 0.3
SHARED_PARAMETERS = (
    "layers",
    "width",
    "heads",
    "head_width",
    "loss",
    "temperature",
    "contrast",
    "n_groups",
    "n_negatives",
    "steps",
    "batch_size",
    "lr",
)
AnyRouter = RadialRouter | AlphaRouter
Routers = Mapping[str, Sequence[AnyRouter]]


@dataclass(frozen=True, eq=False)
class Setting:
    """Prompts to train on and to route, with what the routers read of them.

    Attributes
    ----------
    name
        Of the dataset.
    train, test : RoutingBenchmark
        Costs are on the scale alpha is meant for, dollars per 1,000 queries (`baselines.with_eq7_cost`).
    train_embeddings, test_embeddings : ndarray, [N, D]
    """

    name: str
    train: RoutingBenchmark
    test: RoutingBenchmark
    train_embeddings: np.ndarray
    test_embeddings: np.ndarray

    def with_embeddings(self, train: np.ndarray, test: np.ndarray) -> Setting:
        """Return the setting in which the routers read other vectors of the same prompts."""
        return replace(self, train_embeddings=train, test_embeddings=test)

    def with_models(self, models: Sequence[str]) -> Setting:
        """Return the setting with some of the LLMs only, in the order given."""
        return replace(self, train=self.train.subset(models=models), test=self.test.subset(models=models))


# --- data ------------------------------------------------------------------------------------------------------------


def load_pool(params: _RadialParams, prompt_view: str | None = None, *, whole: bool = False) -> RoutingBenchmark:
    """Load the benchmark the parameters ask for as the paper uses it, before it is split.

    RouterBench is cut to the paper's six source datasets and to the prompts that every LLM answered (`dropna` of
    RouterDC's files, RR-19); `absent` then names those of the six that are not here. At most `max_prompts` prompts
    are kept, drawn at random, or the `whole` benchmark. Costs are on the scale of Eq. (7).
    """
    name = runs.resolve_dataset(params)
    options = {"prompt_view": prompt_view or params.prompt_view} if name == "routerbench" else {}
    benchmark = load(name, **options).priced()
    if not whole:
        benchmark = benchmark.sample(params.max_prompts, params.seed)
    benchmark = benchmark.complete()
    return baselines.with_eq7_cost(_paper_sources(benchmark) if name == "routerbench" else benchmark)


def _paper_sources(benchmark: RoutingBenchmark) -> RoutingBenchmark:
    """Keep the prompts of the six source datasets of Section 4.1."""
    wanted, datasets = list(DATASETS.values()), baselines.datasets_of(benchmark)
    kept = np.isin(datasets, wanted)
    if not kept.any():
        raise UserError(f"{benchmark.name}: no prompt of {', '.join(wanted)} is here, the paper's source datasets")
    absent = tuple(source for source in wanted if source not in datasets)
    return replace(benchmark.subset(kept), absent=absent)


def split_rows(benchmark: RoutingBenchmark, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train on and to test on.

    A benchmark with a train and a test split and no other but one out of distribution is split as found; any other at
    random, 70 to 30, never cutting a question in two.
    """
    if benchmark.split is not None and {"train", "test"} <= set(benchmark.split) <= {"train", "test", "ood"}:
        return np.flatnonzero(benchmark.split == "train"), np.flatnonzero(benchmark.split == "test")
    sizes = {"test": round(TEST_SHARE * len(benchmark)), "train": -1}
    parts = benchmark.random_split(sizes, np.random.default_rng(seed))
    return parts["train"], parts["test"]


def load_setting(params: _RadialParams) -> Setting:
    """Load, split and embed the benchmark the parameters ask for.

    Raises
    ------
    UserError
        Before anything is embedded: a pool of one LLM, fewer training prompts than groups, no prompt to test on.
    """
    pool = load_pool(params)
    train, test = split_rows(pool, params.seed)
    if len(pool.models) < 2:
        raise UserError(f"{pool.name}: the pool holds {pool.models[0]!r} alone; routing needs at least two LLMs")
    if len(train) < max(params.n_groups, 2) or not len(test):
        raise UserError(
            f"{pool.name}: {len(train)} prompts to train on and {len(test)} to test on are left for "
            f"n_groups={params.n_groups} groups; raise max_prompts or lower n_groups"
        )
    embeddings = encoders.embed_benchmark(pool, params.encoder)
    return Setting(pool.name, pool.subset(train), pool.subset(test), embeddings[train], embeddings[test])


# --- routers ---------------------------------------------------------------------------------------------------------


def routers_for(
    params: _RadialParams, alphas: Sequence[float], seeds: Sequence[int] | None = None, **changes: Any
) -> list[RadialRouter]:
    """Return unfitted RadialRouters, one for each alpha and seed, as the parameters describe them.

    Parameters
    ----------
    alphas
    seeds
        `params.seeds` if not given.
    changes
        Parameters of `RadialRouter` that are to differ, e.g. ``backbone="mlp"``.
    """
    fixed = {name: getattr(params, name) for name in SHARED_PARAMETERS}
    # Costs of a setting are already those that alpha multiplies.
    fixed |= {"cost": params.cost_rule, "cost_scale": 1.0} | changes
    seeds = params.seeds if seeds is None else seeds
    return [RadialRouter(alpha=alpha, seed=seed, **fixed) for alpha in alphas for seed in seeds]


def train_all(
    routers: Mapping[str, Sequence[RadialRouter]], setting: Setting | Mapping[str, Setting]
) -> dict[str, list[RadialRouter]]:
    """Train RadialRouters, those of equal shape side by side; return them by the same names.

    Parameters
    ----------
    routers
        Method or variant to its routers.
    setting
        One for all, or one a name.

    Raises
    ------
    UserError
        As `radial_router.fit_many`, before any of them is trained.
    """
    owners = [name for name, some in routers.items() for _ in some]
    every = [router for some in routers.values() for router in some]
    settings = [setting if isinstance(setting, Setting) else setting[name] for name in owners]
    fit_many(every, [s.train for s in settings], [s.train_embeddings for s in settings])
    return {name: list(some) for name, some in routers.items()}


def train_baselines(params: _RadialParams, alphas: Sequence[float], setting: Setting) -> dict[str, list[AlphaRouter]]:
    """Train every baseline of Table 1 for each alpha and seed; `Oracle` and Random as well.

    HybridLLM and FrugalGPT learn a scorer that does not depend on alpha, so it is trained once a seed. The Oracle
    maximises what is evaluated, with the cost of the call, whatever the cost rule of the training scores.
    """
    rule = "llm" if params.cost_rule == "model" else "call"
    fitted: dict[str, list[AlphaRouter]] = {}
    for method, kind in baselines.BASELINES.items():
        scorers: dict[int, Any] = {}
        if issubclass(kind, baselines.SideBySide):
            some = [kind(alpha=alpha, seed=seed, per=rule) for alpha in alphas for seed in params.seeds]
            fitted[method] = baselines.fit_side_by_side(some, setting.train, setting.train_embeddings)
            continue
        fitted[method] = []
        for alpha in alphas:
            for seed in params.seeds:
                options = {"scorer": scorers.get(seed)} if method in ("hybrid-llm", "frugal-gpt") else {}
                if method == "oracle":
                    router = kind(alpha=alpha, seed=seed).fit(setting.test, setting.test_embeddings)
                else:
                    router = kind(alpha=alpha, seed=seed, per=rule, **options)
                    router.fit(setting.train, setting.train_embeddings)
                scorers[seed] = getattr(router, "scorer_", None)
                fitted[method].append(router)
    return fitted


@lru_cache(maxsize=1024)
def route(router: AnyRouter, setting: Setting) -> Routed:
    """Route the test prompts with a fitted router: the LLM chosen for each, and what that earns and costs.

    Asked once, then kept in memory: to train anew, make another router.
    """
    if isinstance(router, AlphaRouter):
        return router.route(setting.test_embeddings, setting.test)
    return Routed.one_call(router.predict_quality(setting.test_embeddings).argmax(axis=1), setting.test)


# --- what they earn --------------------------------------------------------------------------------------------------


def evaluate(routers: Routers, setting: Setting | Mapping[str, Setting]) -> pd.DataFrame:
    """Return what each fitted router earns on the test prompts, at its own alpha.

    Returns
    -------
    DataFrame
        One row a method, alpha, seed and source dataset, and one for their macro average: `method`, `alpha`, `seed`,
        `dataset` (or "macro"), `n`, `performance`, `cost`, `score` (Eq. (7)), `calls`.
    """
    frames = []
    for method, some in routers.items():
        at = setting if isinstance(setting, Setting) else setting[method]
        for router in some:
            frame = baselines.outcome(route(router, at), at.test, router.alpha)
            frame.insert(0, "seed", router.seed)
            frame.insert(0, "alpha", router.alpha)
            frame.insert(0, "method", method)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def by_seed(frame: pd.DataFrame, column: str, alpha: float, dataset: str = MACRO) -> pd.DataFrame:
    """Return a column of `evaluate` at one alpha: one row a seed, one column a method."""
    here = frame[(frame["alpha"] == alpha) & (frame["dataset"] == dataset)]
    return here.pivot(index="seed", columns="method", values=column)[list(dict.fromkeys(here["method"]))]


def summary(frame: pd.DataFrame, column: str, alpha: float, dataset: str = MACRO) -> pd.DataFrame:
    """Return the mean over seeds with its 95 % t-interval, one row a method: value, low, high, n."""
    wide = by_seed(frame, column, alpha, dataset)
    rows = {}
    for method in wide:
        interval = mean_interval(wide[method].to_numpy(dtype=float))
        rows[method] = {"value": interval.estimate, "low": interval.low, "high": interval.high, "n": interval.n}
    return pd.DataFrame.from_dict(rows, orient="index")


def difference(
    frame: pd.DataFrame, a: str, b: str, alpha: float, column: str = "score", dataset: str = MACRO
) -> Estimate:
    """Return a column of method a minus method b, paired over seeds, with its 95 % t-interval."""
    wide = by_seed(frame, column, alpha, dataset)
    return mean_interval((wide[a] - wide[b]).to_numpy(dtype=float))


def key_of(scenario: str) -> str:
    """Return a scenario's name as it stands in result keys."""
    return scenario.lower().replace(" ", "-")


# Key of a scenario to its alpha (Section 4.3).
SCENARIO_ALPHAS = {key_of(name): float(alpha) for name, alpha in SCENARIOS.items()}
