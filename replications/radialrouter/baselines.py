"""The routers RadialRouter is compared with (Section 4.2, Table 1), and what a choice of LLMs earns and costs.

Each router is fitted for one fixed alpha of Eq. (7), score = performance - alpha * cost, with cost in dollars per
1,000 queries (RR-12; `with_eq7_cost` brings a benchmark there). The paper fine-tunes a language model for some of
them; here all read the same frozen embeddings as RadialRouter, so that they differ in the method alone. What the paper
leaves open about them (thresholds, task labels, groups: forensics 7.3 #26) is said where it is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import Any, Literal, Self

import numpy as np
import pandas as pd

from replications.radialrouter.radial_router import Rows, query_groups
from routebook.benchmark import RoutingBenchmark
from routebook.datasets.routerbench import SOURCES
from routebook.errors import UserError, suggest
from routebook.routers import (
    MLP,
    TIE,
    BaseRouter,
    best_llm,
    check_count,
    dense,
    group_means,
    observed_mean,
    train_with_adam,
)
from routebook.threads import one_torch_thread

DOLLARS = "USD per prompt"
EQ7_UNIT = "USD per 1,000 queries"
# Table 7: GPT-4, the paper's dearest LLM. Pools priced in other units are rescaled to it, so alpha keeps its range.
DEAREST = 7.185
# RouterDC's code: an LLM with a score of at most 0 is no positive example, one above 0.5 no negative example.
POSITIVE_ABOVE, NEGATIVE_UP_TO = 0.0, 0.5
ROUTERDC_SD = 0.78


# --- scores, choices and what they earn ------------------------------------------------------------------------------


def with_eq7_cost(benchmark: RoutingBenchmark, dearest: float = DEAREST) -> RoutingBenchmark:
    """Return the benchmark with costs on the scale that alpha is meant for: dollars per 1,000 queries.

    Dollars per prompt are multiplied by 1,000. Any other unit (FLOPs, parameters) is rescaled so that the dearest
    LLM's mean cost is `dearest`; do it before splitting, so that all parts share one scale.
    """
    if benchmark.cost_unit == EQ7_UNIT:
        return benchmark
    if benchmark.cost_unit == DOLLARS:
        return benchmark.with_cost(benchmark.cost * 1000, EQ7_UNIT)
    top = float(np.nanmax(benchmark.mean_cost))
    unit = f"{benchmark.cost_unit}, rescaled so that the dearest LLM costs {dearest:g}"
    return benchmark.with_cost(benchmark.cost * (dearest / top if top > 0 else 1.0), unit)


def datasets_of(benchmark: RoutingBenchmark) -> np.ndarray:
    """Return the source dataset of each prompt, [N] of str: RouterBench's 57 MMLU subjects are one, as in the paper."""
    sources = SOURCES if benchmark.name == "routerbench" else {}
    names = {
        task: next((source for source, starts in sources.items() if task.startswith(starts)), task)
        for task in set(benchmark.tasks.tolist())
    }
    return np.array([names[task] for task in benchmark.tasks.tolist()], dtype=str)


def charged(benchmark: RoutingBenchmark, per: Literal["call", "llm"] = "call") -> np.ndarray:
    """Return the cost in Eq. (7), [N, M]: of the call itself, or the LLM's mean (the equation prints cost_i)."""
    if per == "call":
        return benchmark.cost
    return np.broadcast_to(benchmark.mean_cost, benchmark.cost.shape)


def scores(benchmark: RoutingBenchmark, alpha: float, per: Literal["call", "llm"] = "call") -> np.ndarray:
    """Return performance - alpha * cost, [N, M], Eq. (7); NaN where the LLM was not observed."""
    check_alpha(benchmark, alpha)
    return benchmark.quality - alpha * charged(benchmark, per)  # Eq. (7)


def check_alpha(benchmark: RoutingBenchmark, alpha: float, who: str = "scores") -> None:
    """Raise UserError unless alpha is a number >= 0 and the costs are such that Eq. (7) means something."""
    if not (np.isfinite(alpha) and alpha >= 0):
        raise UserError(f"{who}: alpha is {alpha!r}, expected a number >= 0 (the paper uses 0, 0.02 and 0.1)")
    if benchmark.unpriced:
        raise UserError(f"{who}: model {benchmark.unpriced[0]!r} has no price; route on benchmark.priced()")
    if benchmark.cost_unit == DOLLARS:
        raise UserError(
            f"{who}: costs are in {DOLLARS}, alpha is for {EQ7_UNIT}; pass with_eq7_cost(benchmark) instead"
        )


@dataclass(frozen=True, eq=False)
class Routed:
    """What a router did with N prompts; with R independent draws every array is [R, N].

    Attributes
    ----------
    choice : ndarray of int, [N]
        The LLM whose answer is returned.
    quality : ndarray, [N]
        NaN where that LLM was not observed.
    cost : ndarray, [N]
        All that was paid, also for answers that a cascade threw away.
    calls : ndarray of int, [N]
        LLMs called.
    """

    choice: np.ndarray
    quality: np.ndarray
    cost: np.ndarray
    calls: np.ndarray

    @classmethod
    def one_call(cls, choice: np.ndarray, benchmark: RoutingBenchmark) -> Routed:
        """Return the routing that calls the chosen LLMs, [N] or [R, N], and no other."""
        choice = np.asarray(choice)
        if choice.shape[-1:] != (len(benchmark),) or choice.ndim > 2 or choice.dtype.kind not in "iu":
            raise UserError(
                f"choice has shape {choice.shape} and type {choice.dtype}, expected the index of an LLM for each of "
                f"the {len(benchmark)} prompts"
            )
        low, high, last = choice.min(), choice.max(), len(benchmark.models) - 1
        if low < 0 or high > last:
            raise UserError(f"choice holds LLMs from {low} to {high}, expected 0 to {last}")
        rows = np.arange(len(benchmark))
        return cls(choice, benchmark.quality[rows, choice], benchmark.cost[rows, choice], np.ones_like(choice))


def outcome(choice: np.ndarray | Routed, benchmark: RoutingBenchmark, alpha: float) -> pd.DataFrame:
    """Return what routing earns and costs in each source dataset, and their macro average as the paper's tables do.

    Parameters
    ----------
    choice : ndarray of int, [N] or [R, N], or Routed
        The LLM chosen for each prompt (R draws are averaged), or what `AlphaRouter.route` returned.
    benchmark
        The prompts that were routed.
    alpha

    Returns
    -------
    DataFrame
        One row a dataset and a last row `macro`, the unweighted mean of the datasets: `dataset`, `n` (prompts),
        `performance`, `cost`, `score` (Eq. (7)), `calls` (a prompt). A prompt whose chosen LLM was not observed is
        left out of the draws in which it was chosen.
    """
    check_alpha(benchmark, alpha, "outcome")
    routed = choice if isinstance(choice, Routed) else Routed.one_call(choice, benchmark)
    names, group = np.unique(datasets_of(benchmark), return_inverse=True)
    seen = ~np.isnan(np.atleast_2d(routed.quality))
    columns = {}
    for name in ("quality", "cost", "calls"):
        values = np.where(seen, np.atleast_2d(getattr(routed, name)), np.nan)
        # One column a draw: each draw is averaged by itself, as the paper's "50 independent selections".
        means, counts = group_means(values.T, group, len(names))
        columns[name] = observed_mean(np.where(counts > 0, means, np.nan).T)
    frame = pd.DataFrame({"dataset": names, "n": np.bincount(group), "performance": columns["quality"]})
    frame["cost"] = columns["cost"]
    frame["score"] = frame["performance"] - alpha * frame["cost"]  # Eq. (7)
    frame["calls"] = columns["calls"]
    macro = frame.drop(columns=["dataset", "n"]).mean()
    frame.loc[len(frame)] = {"dataset": "macro", "n": len(benchmark), **macro}
    return frame


def outcomes(routers: Mapping[str, AlphaRouter], benchmark: RoutingBenchmark, embeddings: np.ndarray) -> pd.DataFrame:
    """Return `outcome` of each fitted router on these prompts, at its own alpha, with a column `method` in front."""
    frames = []
    for method, router in routers.items():
        frame = outcome(router.route(embeddings, benchmark), benchmark, router.alpha)
        frame.insert(0, "method", method)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def macro_weights(datasets: np.ndarray) -> np.ndarray:
    """Weights [N] with which a plain sum over prompts is the macro average over datasets."""
    _, group, counts = np.unique(datasets, return_inverse=True, return_counts=True)
    return 1.0 / (len(counts) * counts[group])


# --- routers without training ----------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False, kw_only=True)
class AlphaRouter(BaseRouter):
    """A router for one alpha, which chooses an LLM instead of estimating qualities.

    Parameters
    ----------
    alpha
        Trade-off of Eq. (7), for costs in dollars per 1,000 queries.
    per : {"call", "llm"}
        Cost in the training scores: of the call, or the LLM's mean.
    seed
    """

    alpha: float
    per: Literal["call", "llm"] = "call"
    seed: int = 0

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Learn from labelled prompts; `embeddings` is [N, D].

        Raises
        ------
        UserError
            Before any training: alpha < 0, costs not for Eq. (7), a pool of one LLM, a parameter out of range.
        """
        self._learn(benchmark, *self._ready(benchmark, embeddings))
        return self

    def _ready(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Check everything; return the embeddings and the training scores."""
        name = type(self).__name__
        check_alpha(benchmark, self.alpha, name)
        if self.per not in ("call", "llm"):
            raise UserError(f"{name}: per is {self.per!r}, expected 'call' or 'llm'")
        if len(benchmark.models) < 2:
            raise UserError(f"{name}: the pool holds {benchmark.models[0]!r} alone; routing needs at least two LLMs")
        embeddings = self._check_fit(benchmark, embeddings)
        self._check_parameters(len(embeddings), len(benchmark.models))
        self.models_ = list(benchmark.models)
        return embeddings, scores(benchmark, self.alpha, self.per)

    def _check_parameters(self, n_prompts: int, n_models: int) -> None:
        """Raise UserError for a parameter out of its range."""

    def _learn(self, benchmark: RoutingBenchmark, embeddings: np.ndarray, score: np.ndarray) -> None:
        raise NotImplementedError

    def choose(self, embeddings: np.ndarray, tasks: np.ndarray | None = None) -> np.ndarray:
        """Return the index into `models_` of the LLM for each prompt, [N] (`RandomChoice`: [draws, N]).

        `tasks` [N] names the source dataset of each prompt, for routers with `uses_tasks`.
        """
        raise NotImplementedError

    def route(self, embeddings: np.ndarray, benchmark: RoutingBenchmark) -> Routed:
        """Route the benchmark's prompts and look up what that earns and costs."""
        if list(benchmark.models) != self.models_:
            raise UserError(f"{type(self).__name__} was fitted on {self.models_}, the prompts have {benchmark.models}")
        return Routed.one_call(self.choose(embeddings, tasks=datasets_of(benchmark)), benchmark)

    def _known_tasks(self, tasks: np.ndarray | None, n: int) -> np.ndarray:
        """Index of each prompt's dataset in `datasets_`, [N]."""
        name = type(self).__name__
        if tasks is None or len(tasks) != n:
            found = "None" if tasks is None else f"{len(tasks)} names"
            raise UserError(f"{name} is told the source dataset of each of the {n} prompts; tasks is {found}")
        unknown = sorted(set(tasks) - set(self.datasets_))
        if unknown:
            hint, known = suggest(str(unknown[0]), self.datasets_), ", ".join(self.datasets_)
            raise UserError(f"{name} saw no training prompt of dataset {str(unknown[0])!r}{hint}; it knows {known}")
        return np.searchsorted(self.datasets_, tasks)


@dataclass(eq=False, repr=False, kw_only=True)
class BestCandidate(AlphaRouter):
    """The one LLM with the highest training score, macro-averaged over datasets; of equals the cheapest."""

    def _learn(self, benchmark: RoutingBenchmark, embeddings: np.ndarray, score: np.ndarray) -> None:
        _, group = np.unique(datasets_of(benchmark), return_inverse=True)
        mean = group_means(score, group, group.max() + 1)[0].mean(axis=0)
        self.best_ = int(best_llm(mean[None], benchmark.mean_cost[None])[0])

    def choose(self, embeddings: np.ndarray, tasks: np.ndarray | None = None) -> np.ndarray:
        """Return the same LLM for every prompt, [N]."""
        return np.full(len(self._check_width(embeddings)), self.best_)


@dataclass(eq=False, repr=False, kw_only=True)
class RandomChoice(AlphaRouter):
    """LLMs drawn uniformly, `draws` times over: 50 "independent selections" in the paper.

    Parameters
    ----------
    each : {"query", "llm"}
        "query": every query draws its own LLM; "llm": a draw is one LLM for all queries, which fits the printed
        row better (RR-6).
    """

    each: Literal["query", "llm"] = "query"
    draws: int = 50

    def _check_parameters(self, n_prompts: int, n_models: int) -> None:
        check_count(self, "draws", self.draws)
        if self.each not in ("query", "llm"):
            raise UserError(f"RandomChoice: each is {self.each!r}, expected 'query' or 'llm'")

    def _learn(self, benchmark: RoutingBenchmark, embeddings: np.ndarray, score: np.ndarray) -> None:
        pass

    def choose(self, embeddings: np.ndarray, tasks: np.ndarray | None = None) -> np.ndarray:
        """Return the LLM of each draw and prompt, [draws, N]."""
        n = len(self._check_width(embeddings))
        rng = np.random.default_rng(self.seed)
        drawn = rng.integers(len(self.models_), size=(self.draws, n if self.each == "query" else 1))
        return np.broadcast_to(drawn, (self.draws, n)).copy()


@dataclass(eq=False, repr=False, kw_only=True)
class OracleChoice(AlphaRouter):
    """The LLM with the highest true score on each prompt; of equals the cheapest. Fit it on the prompts it routes."""

    def _learn(self, benchmark: RoutingBenchmark, embeddings: np.ndarray, score: np.ndarray) -> None:
        self._embeddings = embeddings
        # Where no LLM was observed any choice is as good; `outcome` leaves the prompt out.
        self.choice_ = np.maximum(best_llm(score, charged(benchmark, self.per)), 0)

    def choose(self, embeddings: np.ndarray, tasks: np.ndarray | None = None) -> np.ndarray:
        """Return the best LLM of each prompt, [N]; UserError when the prompts are not the ones it was fitted on."""
        if not np.array_equal(self._check_width(embeddings), self._embeddings):
            raise UserError("OracleChoice is asked about other prompts than it was fitted on; fit it on these")
        return self.choice_.copy()


@dataclass(eq=False, repr=False, kw_only=True)
class DatasetOracle(AlphaRouter):
    """The LLM with the highest mean training score on each source dataset: a lookup that reads no query.

    An LLM that was observed on no prompt of a dataset stands there with its overall mean. Not in the paper.
    Attributes: `datasets_`, sorted, and `lookup_`, the index of the LLM of each.
    """

    uses_tasks = True

    def _learn(self, benchmark: RoutingBenchmark, embeddings: np.ndarray, score: np.ndarray) -> None:
        self.datasets_, group = np.unique(datasets_of(benchmark), return_inverse=True)
        means, cost = (group_means(v, group, len(self.datasets_))[0] for v in (score, charged(benchmark, self.per)))
        self.lookup_ = best_llm(means, cost)

    def choose(self, embeddings: np.ndarray, tasks: np.ndarray | None = None) -> np.ndarray:
        """Look the LLM of each prompt's dataset up, [N]."""
        return self.lookup_[self._known_tasks(tasks, len(self._check_width(embeddings)))]


# --- trained routers -------------------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False, kw_only=True)
class TrainedRouter(AlphaRouter):
    """What the trained baselines share: Adam on shuffled batches over frozen embeddings.

    Parameters
    ----------
    width
        Hidden units, and dimensions of learned LLM vectors.
    epochs, lr, batch_size
        The paper gives none for its baselines; batches of 64 are RadialRouter's own.

    Attributes
    ----------
    loss_ : ndarray, [epochs]
    """

    width: int = 128
    epochs: int = 10
    lr: float = 1e-3
    batch_size: int = 64

    def _check_parameters(self, n_prompts: int, n_models: int) -> None:
        for name in ("width", "epochs", "batch_size"):
            check_count(self, name, getattr(self, name))
        if not self.lr > 0:
            raise UserError(f"{type(self).__name__}: lr is {self.lr!r}, expected a number > 0")

    def _train(
        self, network: Any, batch_loss: Callable[[Any], Any], n: int, generator: Any, batch_size: int | None = None
    ) -> None:
        self.network_ = network
        self.loss_ = train_with_adam(
            network,
            batch_loss,
            n,
            epochs=self.epochs,
            lr=self.lr,
            batch_size=batch_size or self.batch_size,
            generator=generator,
            label=type(self).__name__,
        )

    def _scorer(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> MLP:
        """Train one sigmoid output an LLM on the labels of `benchmark`."""
        return MLP((self.width,), self.epochs, self.lr, self.batch_size, self.seed).fit(benchmark, embeddings)


@dataclass(eq=False, repr=False, kw_only=True)
class CosineClassifier(TrainedRouter):
    """Cosine of the projected query to one learned vector an LLM, trained as a classifier of the best LLM.

    Of equally good LLMs the cheapest is the label. At alpha = 0 it is therefore taught the cheapest LLM that answers
    correctly, and all-wrong queries teach the cheapest LLM of all; that may be why the paper's Performance First row of
    this method (.662) lies so far below its best single LLM (.813).

    Parameters
    ----------
    temperature
        The cosines are divided by it before the softmax (not given; our reading).
    """

    temperature: float = 0.05

    def _check_parameters(self, n_prompts: int, n_models: int) -> None:
        super()._check_parameters(n_prompts, n_models)
        if not self.temperature > 0:
            raise UserError(f"{type(self).__name__}: temperature is {self.temperature!r}, expected a number > 0")

    def _learn(self, benchmark: RoutingBenchmark, embeddings: np.ndarray, score: np.ndarray) -> None:
        self._teach([self], [self._lesson(benchmark, embeddings, score)])

    @staticmethod
    def _teach(routers: Sequence[CosineClassifier], lessons: Sequence[_Lesson]) -> None:
        _teach(routers, lessons)

    def _lesson(self, benchmark: RoutingBenchmark, embeddings: np.ndarray, score: np.ndarray) -> _Lesson:
        """Return the untrained network and what `_losses` reads, a row a prompt."""
        import torch

        label = best_llm(score, charged(benchmark, self.per))
        generator = torch.Generator().manual_seed(self.seed)
        network = self._cosine_network(embeddings.shape[1], generator)
        inputs = torch.tensor(embeddings[label >= 0], dtype=torch.float32)
        return _Lesson(network, generator, inputs, {"label": torch.tensor(label[label >= 0])})

    def _losses(self, cosines: Any, hidden: Any, taught: Mapping[str, Any], generators: Sequence[Any]) -> Any:
        """Return the mean loss of each of T batches, [T], from cosines [T, B, M] and what is `taught` of the batch."""
        from torch.nn import functional

        return (
            functional.cross_entropy(
                cosines.flatten(0, 1) / self.temperature, taught["label"].flatten(), reduction="none"
            )
            .view(cosines.shape[:2])
            .mean(dim=1)
        )

    def _cosine_network(self, width: int, generator: Any) -> Any:
        import torch
        from torch import nn

        network = nn.ModuleDict(
            {
                "query": dense(width, self.width, generator, bias=False),
                # Its weight [M, width] holds the vectors of the LLMs.
                "llms": dense(self.width, len(self.models_), generator, bias=False),
            }
        )
        with torch.no_grad():
            network["llms"].weight.normal_(0.0, ROUTERDC_SD, generator=generator)
        return network

    def choose(self, embeddings: np.ndarray, tasks: np.ndarray | None = None) -> np.ndarray:
        """Return the LLM whose vector is most similar to the projected query, [N]."""
        import torch

        inputs = torch.tensor(self._check_width(embeddings), dtype=torch.float32)
        with torch.inference_mode(), one_torch_thread():
            return _cosines(*self.network_.parameters(), inputs)[0].argmax(dim=1).numpy()


def _cosines(query: Any, llms: Any, inputs: Any) -> tuple[Any, Any]:
    """Cosines of projected queries to the vectors of the LLMs, [..., B, M], and the projections, [..., B, width]."""
    from torch.nn import functional

    from replications.radialrouter.radialformer import linear

    hidden = functional.normalize(linear(inputs, query), dim=-1)
    return hidden @ functional.normalize(llms, dim=-1).mT, hidden


@dataclass(frozen=True, eq=False)
class _Lesson:
    """What a router of `SideBySide` is trained on: tensors with a row a prompt, and its untrained network."""

    network: Any
    generator: Any
    inputs: Any
    taught: Mapping[str, Any]


def fit_side_by_side(
    routers: Sequence[SideBySide], benchmark: RoutingBenchmark, embeddings: np.ndarray
) -> list[SideBySide]:
    """Fit routers of one class that differ in alpha and seed alone, as their `fit` does, in one call a step.

    Networks this small spend most of a training step in the overhead of calls. Only rounding differs from `fit`.

    Raises
    ------
    UserError
        As `fit`, before any of them is trained; and where they differ in anything else.
    """
    first = routers[0]
    equal = {field.name for field in fields(first)} - {"alpha", "seed"}
    for router in routers[1:]:
        unlike = ["class"] if type(router) is not type(first) else []
        unlike += [n for n in sorted(equal) if not unlike and not np.array_equal(getattr(router, n), getattr(first, n))]
        if unlike:
            raise UserError(
                f"fit_side_by_side: the routers differ in {', '.join(unlike)}, expected in alpha and seed alone; "
                "fit them apart"
            )
    first._teach(routers, [router._lesson(benchmark, *router._ready(benchmark, embeddings)) for router in routers])
    return list(routers)


def _teach(routers: Sequence[CosineClassifier], lessons: Sequence[_Lesson]) -> None:
    """Train the networks of T lessons side by side and hand them back."""
    import torch
    from torch import nn

    first, generators = routers[0], [lesson.generator for lesson in lessons]
    networks = [list(lesson.network.parameters()) for lesson in lessons]
    weights = nn.ParameterList(torch.stack(same).detach() for same in zip(*networks, strict=True))
    inputs = Rows([lesson.inputs for lesson in lessons])
    taught = {name: Rows([lesson.taught[name] for lesson in lessons]) for name in lessons[0].taught}

    def batch_loss(rows: Any) -> Any:
        cosines, hidden = _cosines(*weights, inputs[rows])
        return first._losses(cosines, hidden, {name: table[rows] for name, table in taught.items()}, generators)

    losses = train_with_adam(
        weights,
        batch_loss,
        len(lessons[0].inputs),
        epochs=first.epochs,
        lr=first.lr,
        batch_size=first.batch_size,
        generator=generators,
        label=type(first).__name__,
    )
    for place, (router, network) in enumerate(zip(routers, networks, strict=True)):
        for own, stacked in zip(network, weights, strict=True):
            own.data = stacked.detach()[place].clone()
        router.network_, router.loss_ = lessons[place].network, losses[:, place]


@dataclass(eq=False, repr=False, kw_only=True)
class RouterDC(CosineClassifier):
    """Dual contrastive learning (Chen et al., 2024), on a linear projection of frozen embeddings.

    Sample-LLM loss: each of the top-K LLMs against the bottom-K by cosine similarity, Eq. (9) in its original form;
    as in RouterDC's code an LLM with score <= 0 is no positive and one with score > 0.5 no negative. Sample-sample
    loss, Eq. (5): a query of the same group against `n_negatives` of other groups, all from the batch, with the groups
    and the rules of RadialRouter's own (`radial_router.query_groups`, `contrastive.pairs`).

    Parameters
    ----------
    temperature
        1, as in RouterDC's code.
    top_k
        K of both sets, at most one less than the LLMs.
    contrast
        Weight of the sample-sample loss.
    n_groups, n_negatives
        8 groups and 3 negatives, as in RouterDC's data and code.
    groups : ndarray of int, [N], optional
        Groups of the training prompts, where they are to be others.
    """

    temperature: float = 1.0
    top_k: int = 3
    contrast: float = 1.0
    n_groups: int = 8
    n_negatives: int = 3
    groups: np.ndarray | None = None

    def _check_parameters(self, n_prompts: int, n_models: int) -> None:
        super()._check_parameters(n_prompts, n_models)
        check_count(self, "top_k", self.top_k)
        check_count(self, "n_negatives", self.n_negatives)
        check_count(self, "n_groups", self.n_groups, most=n_prompts, of="training prompts")
        if not self.contrast >= 0:
            raise UserError(f"RouterDC: contrast is {self.contrast!r}, expected a weight >= 0")
        if self.groups is not None and len(self.groups) != n_prompts:
            raise UserError(f"RouterDC: groups are for {len(self.groups)} prompts, there are {n_prompts}")

    def _lesson(self, benchmark: RoutingBenchmark, embeddings: np.ndarray, score: np.ndarray) -> _Lesson:
        import torch

        groups = self.groups
        if groups is None:
            groups = query_groups(embeddings, self.n_groups)
        self.groups_ = np.asarray(groups)
        ranked, usable = contrast_sets(score, charged(benchmark, self.per), self._k())
        generator = torch.Generator().manual_seed(self.seed)
        network = self._cosine_network(embeddings.shape[1], generator)
        taught = {"ranked": ranked, "usable": usable, "group": self.groups_}
        inputs = torch.tensor(embeddings, dtype=torch.float32)
        return _Lesson(network, generator, inputs, {name: torch.tensor(table) for name, table in taught.items()})

    def _k(self) -> int:
        return min(self.top_k, len(self.models_) - 1)

    def _losses(self, cosines: Any, hidden: Any, taught: Mapping[str, Any], generators: Sequence[Any]) -> Any:
        import torch

        from routebook.contrastive import pairs, query_query

        loss = sample_llm_loss(cosines / self.temperature, taught["ranked"], taught["usable"], self._k())
        if self.contrast:
            size = cosines.shape[1]
            keys = torch.stack([torch.rand(size, size, generator=generator) for generator in generators])
            partners = pairs(taught["group"], keys, self.n_negatives)
            loss = loss + self.contrast * query_query(hidden, *partners).mean(dim=-1)  # Eq. (5)
        return loss


def contrast_sets(score: np.ndarray, cost: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the LLMs of Eq. (9)'s two sets and whether each may be used there: two arrays [N, 2 * top_k].

    The first `top_k` columns hold the best LLMs, best first (of equals the cheapest), the others the worst. An LLM
    that was not observed on a prompt is in neither set.
    """
    known = np.where(np.isnan(score), -np.inf, score)
    order = np.lexsort((cost, -known), axis=-1)
    n_known = (~np.isnan(score)).sum(axis=1, keepdims=True)
    # The worst observed ones stand just before the unobserved ones; there may be fewer than top_k.
    last = np.maximum(n_known - 1 - np.arange(top_k), 0)
    ranked = np.concatenate([order[:, :top_k], np.take_along_axis(order, last, axis=1)], axis=1)
    value = np.take_along_axis(known, ranked, axis=1)
    usable = np.concatenate([value[:, :top_k] > POSITIVE_ABOVE, value[:, top_k:] <= NEGATIVE_UP_TO], axis=1)
    return ranked, usable & np.isfinite(value)


def sample_llm_loss(similarity: Any, ranked: Any, usable: Any, top_k: int) -> Any:
    """Mean over the batch of RouterDC's sample-LLM loss; Eq. (9) with similarities [..., B, M] where it has p."""
    import torch

    picked = similarity.gather(-1, ranked)
    positive, negative = picked[..., :top_k], picked[..., top_k:].masked_fill(~usable[..., top_k:], -torch.inf)
    # Eq. (9): each positive competes with all negatives, not with the other positives.
    among = negative.unsqueeze(-2).expand(*positive.shape, -1)
    rivals = torch.logsumexp(torch.cat([positive.unsqueeze(-1), among], dim=-1), dim=-1)
    return ((rivals - positive) * usable[..., :top_k]).sum(dim=-1).mean(dim=-1)


@dataclass(eq=False, repr=False, kw_only=True)
class HybridLLM(TrainedRouter):
    """A small and a large LLM, and a classifier that says for which queries the small one will do (Ding et al., 2024).

    The label is 1 where quality(small) >= quality(large) - margin (their deterministic router; with one answer a query
    there is no probability to learn). A query goes to the small LLM where the predicted probability reaches a
    threshold; the threshold is the one with the best macro-averaged training score at this alpha, so alpha moves
    nothing else (RR-24).

    Parameters
    ----------
    small, large : str, optional
        Names of the LLMs; None: the cheapest and the dearest of the pool (in the paper Mistral-7B and GPT-4, which it
        calls the highest and the lowest in cost: RR-22).
    margin
        How much worse the small one's answer may be.
    scorer : MLP, optional
        `scorer_` of a router fitted at another alpha, to be used again.
    """

    small: str | None = None
    large: str | None = None
    margin: float = 0.0
    scorer: MLP | None = None

    def _learn(self, benchmark: RoutingBenchmark, embeddings: np.ndarray, score: np.ndarray) -> None:
        by_cost = np.argsort(benchmark.mean_cost, kind="stable")
        small = by_cost[0] if self.small is None else benchmark.model_columns([self.small])[0]
        large = by_cost[-1] if self.large is None else benchmark.model_columns([self.large])[0]
        if small == large:
            raise UserError(f"HybridLLM: small and large are both {self.models_[small]!r}; name two LLMs")
        self.small_, self.large_ = int(small), int(large)
        quality = benchmark.quality
        seen = ~np.isnan(quality[:, small]) & ~np.isnan(quality[:, large])
        if not seen.any():
            raise UserError(f"HybridLLM: {self.models_[small]} and {self.models_[large]} share no labelled prompt")
        enough = np.where(seen, quality[:, small] >= quality[:, large] - self.margin, np.nan)
        labels = replace(
            benchmark,
            models=["the small one will do"],
            quality=enough[:, None],
            cost=benchmark.cost[:, [small]],
            responses=None,
        )
        self.scorer_ = self.scorer or self._scorer(labels, embeddings)
        probability = self.scorer_.predict_quality(embeddings)[seen, 0]
        weight = macro_weights(datasets_of(benchmark)[seen])
        self.threshold_ = best_threshold(probability, weight * (score[seen, small] - score[seen, large]))

    def choose(self, embeddings: np.ndarray, tasks: np.ndarray | None = None) -> np.ndarray:
        """Return the small LLM where it will probably do, else the large one, [N]."""
        probability = self.scorer_.predict_quality(self._check_width(embeddings))[:, 0]
        return np.where(probability >= self.threshold_, self.small_, self.large_)


def best_threshold(probability: np.ndarray, gain: np.ndarray) -> float:
    """Return the threshold t that maximises the sum of `gain` over `probability >= t`; of equals the lowest.

    Exact: every cut between two different probabilities [N] is tried, and none at all (infinity).
    """
    order = np.argsort(-probability, kind="stable")
    ranked = probability[order]
    total = np.concatenate([[0.0], np.cumsum(gain[order])])
    cuts = np.concatenate([[0], np.flatnonzero(np.diff(ranked)) + 1, [len(ranked)]])
    best = cuts[np.flatnonzero(total[cuts] >= total[cuts].max() - TIE)[-1]]
    return float(ranked[best - 1]) if best else np.inf


@dataclass(eq=False, repr=False, kw_only=True)
class FrugalGPT(TrainedRouter):
    """A cascade: LLMs are called in order of cost until a scorer accepts, and every call is paid (Chen et al., 2023).

    The scorer estimates from the query embedding whether each LLM's answer is acceptable; the original also reads the
    answer itself, which few benchmarks publish. As in the original, which LLMs are in the cascade (at most
    `max_calls`, theirs is 3) and the thresholds are searched together for the best macro-averaged training score; the
    last LLM is always accepted.

    Parameters
    ----------
    max_calls
        Longest cascade, 1 to 3.
    levels
        Thresholds tried for each LLM: this many quantiles of its training estimates.
    scorer : MLP, optional
        `scorer_` of a router fitted at another alpha, to be used again.

    Attributes
    ----------
    cascade_ : list of int
        The LLMs in the order they are called.
    thresholds_ : list of float
        One for each but the last.
    """

    max_calls: int = 3
    levels: int = 9
    scorer: MLP | None = None

    def _check_parameters(self, n_prompts: int, n_models: int) -> None:
        super()._check_parameters(n_prompts, n_models)
        check_count(self, "max_calls", self.max_calls, most=3, of="levels of search")
        check_count(self, "levels", self.levels)

    def _learn(self, benchmark: RoutingBenchmark, embeddings: np.ndarray, score: np.ndarray) -> None:
        rows = benchmark.complete_rows
        if not rows.any():
            raise UserError("FrugalGPT: no training prompt was answered by all LLMs; leave out those with gaps")
        self.scorer_ = self.scorer or self._scorer(benchmark, embeddings)
        estimate = self.scorer_.predict_quality(embeddings)[rows]
        levels = np.quantile(estimate, (np.arange(self.levels) + 0.5) / self.levels, axis=0)
        accept = estimate.T[:, :, None] >= levels.T[:, None, :]
        price = self.alpha * charged(benchmark, self.per)[rows]
        weight = macro_weights(datasets_of(benchmark)[rows])
        by_cost = np.argsort(benchmark.mean_cost, kind="stable")
        best, self.cascade_ = -np.inf, []
        for calls in range(1, min(self.max_calls, len(by_cost)) + 1):
            for llms in combinations(by_cost, calls):
                paid = np.cumsum(price[:, llms], axis=1)
                value = cascade_value(benchmark.quality[rows][:, llms] - paid, accept[list(llms[:-1])], weight)
                if value.max() > best + TIE:
                    best, self.cascade_ = float(value.max()), [int(llm) for llm in llms]
                    level = np.unravel_index(int(value.argmax()), value.shape)
        self.thresholds_ = [float(levels[at, llm]) for at, llm in zip(level, self.cascade_, strict=False)]
        self.training_score_ = best

    def choose(self, embeddings: np.ndarray, tasks: np.ndarray | None = None) -> np.ndarray:
        """Return the LLM whose answer is accepted, [N]; what was called before it shows in `route` alone."""
        return np.array(self.cascade_)[self._stages(embeddings)]

    def _stages(self, embeddings: np.ndarray) -> np.ndarray:
        """Place in the cascade of the first LLM that is accepted, [N]."""
        estimate = self.scorer_.predict_quality(self._check_width(embeddings))
        # The last one is accepted whatever the scorer says.
        return (estimate[:, self.cascade_] >= np.array([*self.thresholds_, -np.inf])).argmax(axis=1)

    def route(self, embeddings: np.ndarray, benchmark: RoutingBenchmark) -> Routed:
        """Route through the cascade; cost is the bill of all LLMs called."""
        last = super().route(embeddings, benchmark)
        stage = self._stages(embeddings)
        bills = np.cumsum(benchmark.cost[:, self.cascade_], axis=1)
        return replace(last, cost=bills[np.arange(len(stage)), stage], calls=stage + 1)


def cascade_value(reward: np.ndarray, accept: Sequence[np.ndarray], weight: np.ndarray) -> np.ndarray:
    """Return the weighted total reward of a cascade under every combination of thresholds.

    Parameters
    ----------
    reward : ndarray, [N, L]
        What stopping at each stage earns, all bills up to it paid.
    accept : L - 1 arrays of bool, [N, G]
        Whether a stage is accepted at each of its thresholds.
    weight : ndarray, [N]

    Returns
    -------
    ndarray, [G] * (L - 1)
    """
    value = reward[:, -1]
    for stage in reversed(range(reward.shape[1] - 1)):
        deeper = (1,) * (value.ndim - 1)
        stop = reward[:, stage].reshape(-1, 1, *deeper)
        value = np.where(accept[stage].reshape(*accept[stage].shape, *deeper), stop, value[:, None])
    return np.tensordot(weight, value, axes=1)


@dataclass(eq=False, repr=False, kw_only=True)
class GraphRouter(TrainedRouter):
    """Message passing between tasks, queries and LLMs; the edge query-LLM is predicted (Feng et al., 2024).

    A query is joined to its task and to every LLM; the edges of training queries carry performance, cost and score.
    In training the edges of a batch are hidden and predicted from those of `context` other queries; at test time all
    training queries are the context. Like the original it is *told* the source dataset of
    each test query. Where the original describes tasks and LLMs by text embeddings, ours are learned vectors.

    Parameters
    ----------
    layers
        Rounds of messages, 2 in the original.
    context
        Queries whose edges are seen in a training step.
    target : {"best", "score"}
        What an edge is trained to predict. "best", by cross-entropy: whether the LLM attains the query's best score
        (all of several equals; the original's one-hot label takes the first). "score", by squared error: the score
        itself, which is not the original's but a stronger rival.
    """

    uses_tasks = True
    width: int = 32
    epochs: int = 15
    lr: float = 1e-2
    batch_size: int = 256
    layers: int = 2
    context: int = 256
    target: Literal["best", "score"] = "best"

    def _check_parameters(self, n_prompts: int, n_models: int) -> None:
        super()._check_parameters(n_prompts, n_models)
        check_count(self, "layers", self.layers)
        check_count(self, "context", self.context)
        if self.target not in ("best", "score"):
            raise UserError(f"GraphRouter: target is {self.target!r}, expected 'best' or 'score'")
        if n_prompts < 2:
            raise UserError("GraphRouter: an edge is predicted from those of other prompts; there is one prompt")

    def _learn(self, benchmark: RoutingBenchmark, embeddings: np.ndarray, score: np.ndarray) -> None:
        self._teach([self], [self._lesson(benchmark, embeddings, score)])

    def _lesson(self, benchmark: RoutingBenchmark, embeddings: np.ndarray, score: np.ndarray) -> _Lesson:
        """Return the untrained network, the graph of the training queries and what their edges are to be."""
        import torch

        self.datasets_, task = np.unique(datasets_of(benchmark), return_inverse=True)
        cost = benchmark.cost / max(benchmark.cost.max(), TIE)
        query = torch.tensor(embeddings, dtype=torch.float32)
        self._graph = {
            "query": query,
            "member": torch.eye(len(self.datasets_))[torch.tensor(task)],
            "edge": torch.tensor(np.nan_to_num(np.stack([score, benchmark.quality, cost], 2)), dtype=torch.float32),
            "seen": torch.tensor(~np.isnan(score), dtype=torch.float32),
        }
        self._complete = not np.isnan(score).any()
        known = np.where(np.isnan(score), -np.inf, score)
        is_best = known >= known.max(axis=1, keepdims=True) - TIE
        wanted = torch.tensor(is_best if self.target == "best" else np.nan_to_num(score), dtype=torch.float32)
        generator = torch.Generator().manual_seed(self.seed)
        network = self._network(embeddings.shape[1], generator)
        return _Lesson(network, generator, query, {**self._graph, "wanted": wanted})

    @staticmethod
    def _teach(routers: Sequence[GraphRouter], lessons: Sequence[_Lesson]) -> None:
        """Train the networks of T lessons side by side and hand them back."""
        import torch
        from torch import nn
        from torch.func import stack_module_state
        from torch.nn import functional

        first, generators = routers[0], [lesson.generator for lesson in lessons]
        stacked, _ = stack_module_state([lesson.network for lesson in lessons])
        weights = {name: nn.Parameter(value.detach()) for name, value in stacked.items()}
        tables = {name: Rows([lesson.taught[name] for lesson in lessons]) for name in lessons[0].taught}
        cell_loss = functional.binary_cross_entropy_with_logits if first.target == "best" else functional.mse_loss
        n = len(lessons[0].inputs)

        def loss_of_one(weights: Any, context: Any, batch: Any) -> Any:
            predicted = first._edges(_layers(weights), context, batch["query"], batch["member"])
            cells = cell_loss(predicted, batch["wanted"], reduction="none") * batch["seen"]
            return cells.sum() / batch["seen"].sum().clamp(min=1)

        def batch_loss(rows: Any) -> Any:
            every = [torch.randperm(n, generator=generator) for generator in generators]
            others = [some[~torch.isin(some, own)][: first.context] for some, own in zip(every, rows, strict=True)]
            context = torch.stack(others)
            parts = [{name: table[at] for name, table in tables.items()} for at in (context, rows)]
            return torch.vmap(loss_of_one)(weights, *parts)

        losses = train_with_adam(
            nn.ParameterList(weights.values()),
            batch_loss,
            n,
            epochs=first.epochs,
            lr=first.lr,
            # A batch of all prompts would leave no context.
            batch_size=min(first.batch_size, max(n // 2, 1)),
            generator=generators,
            label=type(first).__name__,
        )
        for place, (router, lesson) in enumerate(zip(routers, lessons, strict=True)):
            lesson.network.load_state_dict({name: value[place].detach() for name, value in weights.items()})
            router.network_, router.loss_ = lesson.network.eval(), losses[:, place]

    def _network(self, width: int, generator: Any) -> Any:
        from torch import nn

        def layer(fan_in: int, fan_out: int = self.width, bias: bool = True) -> Any:
            return dense(fan_in, fan_out, generator, bias=bias)

        h, parts = self.width, {}
        for t in range(self.layers):
            parts |= {f"message-{t}": layer(h), f"reply-{t}": layer(h), f"edge-{t}": layer(3, bias=False)}
            parts |= {f"task-{t}": layer(2 * h), f"llm-{t}": layer(2 * h), f"query-{t}": layer(3 * h)}
        # The weights of "tasks" [T, h] and "llms" [M, h] are the first states of these nodes.
        tasks, llms = layer(h, len(self.datasets_), bias=False), layer(h, len(self.models_))
        return nn.ModuleDict({**parts, "in": layer(width), "tasks": tasks, "llms": llms, "out": layer(2 * h)})

    def _edges(self, network: Mapping[str, Any], graph: Mapping[str, Any], query: Any, member: Any) -> Any:
        """Predict the edges of queries [B, D] from the known edges of a graph, [B, M].

        `member` [B, tasks] is 1 where a query is of a task; `graph` holds the context's "query", "member", "edge"
        [C, M, 3] and "seen" [C, M].
        """
        import torch

        def update(part: str, *states: Any) -> Any:
            return torch.relu(network[part](torch.cat(states, dim=-1)))

        seen, around = None if self._complete else graph["seen"], graph["member"]
        t, m = network["tasks"].weight, network["llms"].weight
        known, new = (torch.relu(network["in"](q)) for q in (graph["query"], query))
        for at in range(self.layers):
            edge, message = network[f"edge-{at}"](graph["edge"]), network[f"message-{at}"](known)
            to_llm = _masked_mean(torch.relu(message[:, None] + edge), seen, 0)
            to_query = _masked_mean(torch.relu(network[f"reply-{at}"](m)[None] + edge), seen, 1)
            to_task = around.T @ torch.relu(message) / around.sum(dim=0).clamp(min=1)[:, None]
            known = update(f"query-{at}", known, around @ t, to_query)
            # The queries to be routed have no known edge to an LLM: they hear from their task alone.
            new = update(f"query-{at}", new, member @ t, torch.zeros_like(new))
            t, m = update(f"task-{at}", t, to_task), m + update(f"llm-{at}", m, to_llm)
        return network["out"](torch.cat([new, member @ t], dim=-1)) @ m.T / self.width**0.5 + network["llms"].bias

    def choose(self, embeddings: np.ndarray, tasks: np.ndarray | None = None) -> np.ndarray:
        """Return the LLM with the most likely edge, [N]; `tasks` names each query's dataset."""
        import torch

        query = torch.tensor(self._check_width(embeddings), dtype=torch.float32)
        member = torch.eye(len(self.datasets_))[torch.tensor(self._known_tasks(tasks, len(query)))]
        with torch.inference_mode(), one_torch_thread():
            return self._edges(self.network_, self._graph, query, member).argmax(dim=1).numpy()


@dataclass(frozen=True)
class _Layer:
    """A linear layer of given weights."""

    weight: Any
    bias: Any = None

    def __call__(self, x: Any) -> Any:
        from torch.nn import functional

        return functional.linear(x, self.weight, self.bias)


def _layers(weights: Mapping[str, Any]) -> dict[str, _Layer]:
    """Turn named parameters, as "message-0.weight", into layers by name."""
    parts: dict[str, dict[str, Any]] = {}
    for name, value in weights.items():
        layer, kind = name.rsplit(".", 1)
        parts.setdefault(layer, {})[kind] = value
    return {name: _Layer(**part) for name, part in parts.items()}


def _masked_mean(values: Any, mask: Any, axis: int) -> Any:
    """Mean of [C, M, h] over one of the first two axes, where `mask` [C, M] is 1; None: everywhere."""
    if mask is None:
        return values.mean(dim=axis)
    return (values * mask[:, :, None]).sum(dim=axis) / mask.sum(dim=axis).clamp(min=1)[:, None]


SideBySide = CosineClassifier | GraphRouter
# The rows of Table 1 in the paper's order, with the lookup the paper leaves out.
BASELINES: dict[str, type[AlphaRouter]] = {
    "best-candidate": BestCandidate,
    "random": RandomChoice,
    "cosine-classifier": CosineClassifier,
    "hybrid-llm": HybridLLM,
    "frugal-gpt": FrugalGPT,
    "router-dc": RouterDC,
    "graph-router": GraphRouter,
    "dataset-oracle": DatasetOracle,
    "oracle": OracleChoice,
}
