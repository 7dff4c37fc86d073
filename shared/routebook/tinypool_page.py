"""What the TinyPool page computes: who is right where, who helps whom, and what routing could gain."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from routebook import routers
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import DeferralCurve, deferral_curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GENERALIST = "general-"
N_SHOWN = 10


def accuracy(benchmark: RoutingBenchmark) -> pd.Series:
    """Return each model's share of right answers, [M]."""
    return pd.Series(benchmark.quality.mean(axis=0), index=benchmark.models)


def by_family(benchmark: RoutingBenchmark) -> pd.DataFrame:
    """Return each model's accuracy in each family, [M, families], families in the order they first occur."""
    frame = pd.DataFrame(benchmark.quality, columns=benchmark.models).groupby(benchmark.tasks, sort=False).mean()
    return frame.T


def by_difficulty(benchmark: RoutingBenchmark, difficulty: np.ndarray, models: list[str]) -> pd.DataFrame:
    """Return the accuracy of some models at each difficulty; `difficulty` is [N]."""
    frame = pd.DataFrame(benchmark.quality, columns=benchmark.models)[models]
    return frame.groupby(np.asarray(difficulty)).mean().T.rename_axis(columns="difficulty")


def generalists(models: pd.DataFrame) -> list[str]:
    """Return the generalists of a table of models, from small to large."""
    return [name for name in models.sort_values("parameters").index if name.startswith(GENERALIST)]


def in_order(models: pd.DataFrame) -> list[str]:
    """Return all models for display: generalists from small to large, then the others by name, so by domain."""
    line = generalists(models)
    return line + sorted(set(models.index) - set(line))


def complementarity(benchmark: RoutingBenchmark) -> pd.DataFrame:
    """Return how often the row's model is right where the column's is wrong, [M, M].

    Row r, column c: the share of the questions that c answers wrong and r answers right, among those c answers wrong.
    """
    right = benchmark.quality
    wrong = 1 - right
    shares = (right.T @ wrong) / wrong.sum(axis=0)
    return pd.DataFrame(shares, index=benchmark.models, columns=benchmark.models)


@dataclass(frozen=True)
class PoolStatistics:
    """Whether a pool is worth routing over.

    Attributes
    ----------
    best : str
        The most accurate single model.
    best_accuracy, oracle_accuracy : float
        Its accuracy, and the share of questions that at least one model answers right.
    oracle_cost_share : float
        Mean cost of the oracle (the cheapest right answer; the cheapest answer where none is right), as a share of
        the best single model's.
    cheapest_right : Series, [M]
        Share of questions on which the model gives the cheapest right answer.
    none_right : float
        Share of questions no model answers.
    specialists_ahead : int
        Number of (specialist, family) pairs in which a model that is no generalist beats the largest generalist.
    """

    best: str
    best_accuracy: float
    oracle_accuracy: float
    oracle_cost_share: float
    cheapest_right: pd.Series
    none_right: float
    specialists_ahead: int


def statistics(benchmark: RoutingBenchmark, largest: str) -> PoolStatistics:
    """Return the statistics of a pool; `largest` names its largest generalist."""
    right = accuracy(benchmark)
    best = str(right.idxmax())
    price = np.where(benchmark.quality == 1, benchmark.cost, np.inf)
    answered = np.isfinite(price.min(axis=1))
    pick = np.where(answered, price.argmin(axis=1), benchmark.cost.argmin(axis=1))
    share = np.bincount(pick[answered], minlength=len(benchmark.models)) / len(benchmark)
    paid = benchmark.cost[np.arange(len(benchmark)), pick].mean()
    families = by_family(benchmark)
    others = [m for m in benchmark.models if not m.startswith(GENERALIST)]
    return PoolStatistics(
        best=best,
        best_accuracy=float(right[best]),
        oracle_accuracy=float(answered.mean()),
        oracle_cost_share=float(paid / benchmark.mean_cost[benchmark.models.index(best)]),
        cheapest_right=pd.Series(share, index=benchmark.models),
        none_right=float(1 - answered.mean()),
        specialists_ahead=int((families.loc[others] > families.loc[largest]).to_numpy().sum()),
    )


def deferral_curves(train: RoutingBenchmark, test: RoutingBenchmark, seed: int = 0) -> dict[str, DeferralCurve]:
    """Fit the book's plain routers on one part and return their deferral curves on the other, by method key.

    Both parts carry embeddings; the cost of a model is one number, its mean on the training part.
    """
    cost = train.mean_cost
    train, test = train.with_cost(cost, train.cost_unit), test.with_cost(cost, test.cost_unit)
    made = {
        "zero-router": routers.ZeroRouter(),
        "dataset-oracle": routers.DatasetOracle(),
        "k-nn": routers.KNN(n_neighbours=20),
        "k-means": routers.KMeans(n_clusters=40, seed=seed),
    }
    curves = {"oracle": deferral_curve(test.quality, test.quality, cost)}
    for method, router in made.items():
        router.fit(train, train.embeddings)
        estimate = routers.quality_for(router, test.embeddings, test.models, tasks=test.tasks)
        curves[method] = deferral_curve(estimate, test.quality, cost)
    return curves


def example_rows(benchmark: RoutingBenchmark) -> np.ndarray:
    """Return ten questions, one of each of the first ten families: those on which the pool is most divided.

    The rule: the share of right answers nearest to one half; the first one where several are.
    """
    divided = np.abs(benchmark.quality.mean(axis=1) - 0.5)
    families = list(dict.fromkeys(benchmark.tasks))[:N_SHOWN]
    return np.array(
        [np.flatnonzero(benchmark.tasks == f)[divided[benchmark.tasks == f].argmin()] for f in families], dtype=int
    )


def question_table(benchmark: RoutingBenchmark, right: pd.Series, rows: np.ndarray) -> pd.DataFrame:
    """Return questions with their right answers, numbered Q1, Q2, ...; `right` is indexed by question id."""
    return pd.DataFrame(
        {
            "question": [escape(benchmark.prompts[i]) for i in rows],
            "family": benchmark.tasks[rows],
            "right answer": [escape(right[benchmark.ids[i]]) for i in rows],
        },
        index=[f"Q{k + 1}" for k in range(len(rows))],
    )


def answer_table(benchmark: RoutingBenchmark, rows: np.ndarray) -> pd.DataFrame:
    """Return what every model answered to some questions, one row a model; right answers are bold."""
    cells = {}
    for k, i in enumerate(rows):
        said = (escape(str(text)) or "(nothing)" for text in benchmark.responses[i])
        pairs = zip(said, benchmark.quality[i], strict=True)
        cells[f"Q{k + 1}"] = [f"<b>{text}</b>" if right else text for text, right in pairs]
    return pd.DataFrame(cells, index=benchmark.models)


def size_plot(benchmark: RoutingBenchmark, models: pd.DataFrame) -> Figure:
    """Draw accuracy against the number of parameters: generalists joined by a line, the others as points."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    from routebook.figures import GRID, INK, METHODS, name_points, style

    right, sizes = accuracy(benchmark), models["parameters"]
    line = generalists(models)
    others = [m for m in benchmark.models if m not in line]
    with style():
        figure, axes = plt.subplots(figsize=(7.2, 4.0))
        axes.plot(sizes[line], right[line], "o-", color=METHODS["k-means"].colour, label="generalists")
        axes.plot(sizes[others], right[others], "^", color=METHODS["k-nn"].colour, label="specialists and others")
        axes.set(xscale="log", xlabel="Parameters", ylabel="Share of right answers")
        axes.grid(True, lw=0.6, color=GRID)
        axes.margins(x=0.12)
        name_points(axes, {model: (sizes[model], right[model]) for model in others})
        axes.legend(fontsize=9, labelcolor=INK)
        sns.despine(figure)
    return figure
