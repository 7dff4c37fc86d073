"""One protocol for any set of routers on any benchmark: the same splits, prices and curves for all of them.

Prompts are split at random into training and test prompts, several times, never cutting a question in two. Every
router learns from the training prompts with the answers of all models and routes the test prompts. A model has one
price, its mean cost on the training prompts: that is what a router knows beforehand, and it is what is charged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from routebook import routers
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import DeferralCurve, deferral_curve
from routebook.errors import UserError
from routebook.metrics import area
from routebook.progress import progress
from routebook.significance import Estimate, area_difference_bootstrap, mean_interval
from routebook.threads import one_thread

if TYPE_CHECKING:
    import pandas as pd

    from routebook.routers import Router

Factory = Callable[[int], "Router"]
"""Makes a router that is not fitted yet from the seed of its split."""

# Untuned on purpose: comparing metrics, or a newcomer with plain baselines, needs no best settings. These are the
# values of the book's page on TinyPool.
NEIGHBOURS, CLUSTERS = 20, 40
REFERENCES: dict[str, Factory] = {
    "oracle": lambda seed: routers.Oracle(),
    "dataset-oracle": lambda seed: routers.DatasetOracle(),
    "k-nn": lambda seed: routers.KNN(n_neighbours=NEIGHBOURS),
    "k-means": lambda seed: routers.KMeans(n_clusters=CLUSTERS, seed=seed),
    "mlp": lambda seed: routers.MLP(seed=seed),
    "zero-router": lambda seed: routers.ZeroRouter(),
    "best-single": lambda seed: routers.BestSingle(),
    "random": lambda seed: routers.Random(seed=seed),
}


@dataclass(frozen=True)
class Split:
    """One split of a benchmark.

    Attributes
    ----------
    train, test : RoutingBenchmark
        Costs of both are the models' prices, `price`.
    z_train, z_test : ndarray, [N, D]
        Embeddings of their prompts.
    seed : int
        Of the routers fitted on it.
    """

    train: RoutingBenchmark
    test: RoutingBenchmark
    z_train: np.ndarray
    z_test: np.ndarray
    seed: int

    @property
    def price(self) -> np.ndarray:
        """Price of each model, [M]."""
        return self.train.cost[0]


@dataclass(frozen=True)
class Comparison:
    """What every router did on every split.

    Attributes
    ----------
    splits : list of Split
    estimates : list of dict
        One a split: router to its estimates on the test prompts, [N, M].
    curves : list of dict
        One a split: router to its exact deferral curve on the test prompts.
    """

    splits: list[Split]
    estimates: list[dict[str, np.ndarray]]
    curves: list[dict[str, DeferralCurve]]

    def of(self, router: str) -> list[DeferralCurve]:
        """Return one router's curves, one a split."""
        return [curves[router] for curves in self.curves]

    def read(self, number: Callable[[DeferralCurve], float]) -> pd.DataFrame:
        """Return a number read off every curve: one row a split, one column a router."""
        import pandas as pd

        return pd.DataFrame([{name: number(curve) for name, curve in curves.items()} for curves in self.curves])

    def difference(self, router: str, rival: str, number: Callable[[DeferralCurve], float]) -> Estimate:
        """Return the mean difference of a number between two routers over splits, with its 95 % t-interval.

        Splits of one benchmark share prompts, so the interval is too narrow for prompts yet unseen; see
        `over_prompts`.
        """
        numbers = self.read(number)
        return mean_interval((numbers[router] - numbers[rival]).to_numpy())

    def over_prompts(self, router: str, rival: str, *, n_resamples: int = 1000, seed: int = 0) -> Estimate:
        """Return the difference in area on the first split, with its 95 % interval by bootstrap over test prompts."""
        split, estimates = self.splits[0], self.estimates[0]
        problem = estimates[router], estimates[rival], split.test.quality, split.price
        return area_difference_bootstrap(*problem, n_resamples=n_resamples, seed=seed, left="flat")


def draw_splits(
    benchmark: RoutingBenchmark, embeddings: np.ndarray, n_splits: int, *, test_share: float = 0.3, seed: int = 0
) -> list[Split]:
    """Split a benchmark at random into training and test prompts, `n_splits` times.

    Models without a price are left out, and so are test prompts on which no model was observed.

    Parameters
    ----------
    benchmark
    embeddings : ndarray, [N, D]
        Of its prompts.
    n_splits : int
    test_share : float
    seed : int
        Of the splits, and of the routers on them.

    Returns
    -------
    list of Split

    Raises
    ------
    UserError
        When there is nothing to split, or embeddings and prompts disagree in number.
    """
    if n_splits < 1:
        raise UserError(f"n_splits is {n_splits}, expected at least 1")
    if not 0 < test_share < 1:
        raise UserError(f"test_share is {test_share:g}, expected a number between 0 and 1, e.g. 0.3")
    embeddings = routers.check_embeddings(embeddings, rows=len(benchmark))
    benchmark = benchmark.priced()
    splits = []
    for number in range(n_splits):
        rng = np.random.default_rng([seed, number])
        rows = benchmark.random_split({"test": round(test_share * len(benchmark)), "train": -1}, rng)
        test = rows["test"][~np.isnan(benchmark.quality[rows["test"]]).all(axis=1)]
        if not (len(test) and len(rows["train"])):
            raise UserError(
                f"{benchmark.name}: {len(rows['train'])} training and {len(test)} test prompts are left of "
                f"{len(benchmark)}; give more prompts or another test_share"
            )
        price = benchmark.cost[rows["train"]].mean(axis=0)
        parts = [benchmark.subset(where).with_cost(price, benchmark.cost_unit) for where in (rows["train"], test)]
        splits.append(Split(*parts, embeddings[rows["train"]], embeddings[test], seed + number))
    return splits


def compare(factories: Mapping[str, Factory], splits: Sequence[Split]) -> Comparison:
    """Fit every router on every split and find its deferral curve on the test prompts.

    Parameters
    ----------
    factories
        Name of each router to what makes it, e.g. ``{"mine": lambda seed: MyRouter(), **REFERENCES}``.
    splits

    Returns
    -------
    Comparison

    Raises
    ------
    UserError
        When a router lacks a part of the `routebook.routers.Router` protocol, or its estimates have another shape
        than [test prompts, models].
    """
    estimates, curves = [], []
    with one_thread():
        for split in progress(splits, label="splits", unit="split"):
            found = {name: _estimates(name, make(split.seed), split) for name, make in factories.items()}
            estimates.append(found)
            curves.append({name: deferral_curve(g, split.test.quality, split.price) for name, g in found.items()})
    return Comparison(list(splits), estimates, curves)


READINGS: dict[str, Callable[[DeferralCurve], float]] = {
    "area": area,
    "qnc": lambda curve: 100 * curve.qnc(unreached=1.0),
    "peak": lambda curve: curve.peak,
    "cost-at-peak": lambda curve: 100 * curve.cost_at_peak / curve.model_cost[curve.best_model],
}
"""What a first table shows of a router; QNC and cost at peak in percent of the most accurate single model's cost."""


def summary(comparison: Comparison) -> pd.DataFrame:
    """Return every number of `READINGS` for every router, with its 95 % t-interval over splits.

    Returns
    -------
    DataFrame
        One row a router and number (levels router, number); columns value, low, high. A number that is not defined
        (the area of a single point) is NaN.
    """
    import pandas as pd

    rows = {}
    for number, read in READINGS.items():
        for router, values in comparison.read(read).items():
            found = mean_interval(values.to_numpy())
            rows[router, number] = {"value": found.estimate, "low": found.low, "high": found.high}
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["router", "number"])
    return frame.loc[list(comparison.curves[0])]


def cell(value: float, low: float, high: float, digits: str) -> str:
    """Return a number over its interval as the cell of a table; a dash for NaN."""
    if np.isnan(value):
        return "–"
    bounds = f"<br><small>[{digits.format(low)}, {digits.format(high)}]</small>" if np.isfinite(low) else ""
    return digits.format(value) + bounds


def _estimates(name: str, router: Router, split: Split) -> np.ndarray:
    """Fit a router and return its estimates on the test prompts, [N, M]."""
    for part in ("fit", "predict_quality"):
        if not callable(getattr(router, part, None)):
            raise UserError(f"router {name!r} ({type(router).__name__}) has no method {part!r}; a router needs one")
    # The oracle is fitted on the prompts it routes: cheating is its definition.
    learned = (split.test, split.z_test) if isinstance(router, routers.Oracle) else (split.train, split.z_train)
    router.fit(*learned)
    if not hasattr(router, "models_"):
        raise UserError(
            f"router {name!r} ({type(router).__name__}) has no models_ after fit; set self.models_ = benchmark.models, "
            "the order of the columns of its estimates"
        )
    for model in split.test.models:
        if model not in router.models_:
            raise UserError(f"router {name!r} ({type(router).__name__}) has no estimate for model {model!r}")
    asked = {"tasks": split.test.tasks} if getattr(router, "uses_tasks", False) else {}
    estimate = np.asarray(router.predict_quality(split.z_test, **asked), dtype=float)
    expected = (len(split.test), len(router.models_))
    if estimate.shape != expected:
        raise UserError(
            f"router {name!r} ({type(router).__name__}) estimates have shape {estimate.shape}, expected {expected}: a "
            "row for each prompt and a column for each of its models_"
        )
    return estimate[:, [router.models_.index(model) for model in split.test.models]]
