"""Routers that every paper shares, in scikit-learn manners.

A router estimates the quality of every model on a prompt; routing itself is always `argmax(quality_hat - lam * cost)`
(UniRoute Eq. (8) with error = 1 - quality), which `routebook.deferral` sweeps exactly. NaN in a router's estimate
means "never routed there". NaN in a label means "not observed": it is left out, never taken for 0.

Learned attributes end in `_`; `fit` returns self; parameters are checked in `fit`, not in `__init__`.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np

from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError, suggest
from routebook.networks import Adam, SideBySide
from routebook.progress import progress
from routebook.threads import one_thread, one_torch_thread

Validation = tuple[RoutingBenchmark, np.ndarray]
# From so many neighbours on, putting them in order takes longer than finding them.
MANY_NEIGHBOURS = 100
QUERIES_AT_ONCE = 1024
# Scores closer than this are equal.
TIE = 1e-12


@runtime_checkable
class Router(Protocol):
    """What can be fitted on labelled prompts and asked for the quality of every model on new ones."""

    models_: list[str]

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Learn from labelled prompts."""

    def predict_quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Estimate the quality of every model on every prompt, [N, M] in the order of `models_`."""


class BaseRouter:
    """What all routers here have in common: parameters, names of models, checks.

    Attributes
    ----------
    dynamic : bool
        Whether `add_models` works: new LLMs from a few labelled prompts, without retraining.
    uses_tasks : bool
        Whether `predict_quality` also wants the source dataset of each prompt.
    models_ : list of str
        The models it estimates, in the order of the columns of `predict_quality`.
    """

    dynamic = False
    uses_tasks = False
    models_: list[str]

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Learn from labelled prompts.

        Parameters
        ----------
        benchmark
            Training prompts with the quality of each model, [N, M].
        embeddings : ndarray, [N, D]

        Raises
        ------
        UserError
            When a parameter is out of its range, a model was never observed, or shapes disagree.
        """
        raise NotImplementedError

    def predict_quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Estimate the quality of every model on every prompt.

        Parameters
        ----------
        embeddings : ndarray, [N, D]

        Returns
        -------
        ndarray of float64, [N, M]
            Higher is better; columns in the order of `models_`.

        Raises
        ------
        UserError
            When the router is not fitted or the embeddings have another width.
        """
        raise NotImplementedError

    def add_models(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Add the models of `benchmark` from their labels on its prompts, without retraining.

        New names are appended to `models_`; a name already known is replaced where it stands. The columns of all
        other models stay as they are.

        Raises
        ------
        UserError
            When this router is static, or as in `fit`.
        """
        raise UserError(
            f"{type(self).__name__} is static: it cannot take in {', '.join(benchmark.models[:3])}... without "
            "retraining; fit it anew on labels of these models"
        )

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's parameters by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name; an unknown name raises UserError."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise UserError(f"{type(self).__name__} has no parameter {name!r}{suggest(name, known)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_params().items())})"

    def _check_fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> np.ndarray:
        """Return checked embeddings and remember their width; every model must have a label."""
        embeddings = self._check_labelled(benchmark, embeddings)
        self.n_features_in_ = embeddings.shape[1]
        return embeddings

    def _check_labelled(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> np.ndarray:
        embeddings = check_embeddings(embeddings, rows=len(benchmark))
        never = np.isnan(benchmark.quality).all(axis=0)
        if never.any():
            model = benchmark.models[int(np.argmax(never))]
            raise UserError(
                f"{type(self).__name__}: model {model!r} has no observed quality on these {len(benchmark)} prompts; "
                "leave it out of the pool or give prompts it has answered"
            )
        return embeddings

    def _check_add(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> np.ndarray:
        self._check_width(embeddings)
        return self._check_labelled(benchmark, embeddings)

    def _check_width(self, embeddings: np.ndarray) -> np.ndarray:
        if not hasattr(self, "models_"):
            raise UserError(f"{type(self).__name__} is not fitted; call fit(benchmark, embeddings) first")
        return check_embeddings(embeddings, width=self.n_features_in_)

    def _places(self, models: Sequence[str]) -> np.ndarray:
        """Give each model its column, appending names that are new to `models_`."""
        self.models_ = [*self.models_, *(model for model in models if model not in self.models_)]
        return np.array([self.models_.index(model) for model in models], dtype=int)


def check_embeddings(embeddings: np.ndarray, *, rows: int | None = None, width: int | None = None) -> np.ndarray:
    """Return embeddings [N, D] as floats, float32 kept; UserError unless 2-D, finite, and of the size expected."""
    embeddings = np.asarray(embeddings)
    if embeddings.dtype not in (np.float32, np.float64):
        embeddings = embeddings.astype(float)
    if embeddings.ndim != 2:
        raise UserError(f"embeddings have shape {embeddings.shape}, expected [prompts, dimensions]")
    if rows is not None and len(embeddings) != rows:
        raise UserError(f"there are {len(embeddings)} embeddings for {rows} prompts; embed exactly these prompts")
    if width is not None and embeddings.shape[1] != width:
        raise UserError(
            f"embeddings have {embeddings.shape[1]} dimensions, the router was fitted with {width}; use one encoder"
        )
    if not np.isfinite(embeddings).all():
        raise UserError("embeddings hold NaN or infinity; encode these prompts again")
    return embeddings


def check_count(router: object, name: str, value: int, *, most: int | None = None, of: str = "") -> None:
    """Raise UserError unless the parameter `name` is a whole number from 1 to `most`."""
    where = type(router).__name__
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise UserError(f"{where}: {name} is {value!r}, expected a whole number >= 1")
    if most is not None and value > most:
        raise UserError(f"{where}: {name} is {value}, but there are only {most} {of}; lower {name} to at most {most}")


def quality_for(
    router: Router, embeddings: np.ndarray, models: Sequence[str], tasks: np.ndarray | None = None
) -> np.ndarray:
    """Return the router's estimates for the named models, in that order.

    Parameters
    ----------
    router
        A fitted router.
    embeddings : ndarray, [N, D]
    models : sequence of str, length M
    tasks : ndarray of str, [N], optional
        Source dataset of each prompt, for routers that look at it (DatasetOracle).

    Returns
    -------
    ndarray, [N, M]

    Raises
    ------
    UserError
        When the router does not know a model.
    """
    for model in models:
        if model not in router.models_:
            raise UserError(
                f"{type(router).__name__} knows no model {model!r}{suggest(model, router.models_)}; "
                "add it with add_models, or fit on a benchmark that holds it"
            )
    estimate = (
        router.predict_quality(embeddings, tasks=tasks)
        if getattr(router, "uses_tasks", False)
        else router.predict_quality(embeddings)
    )
    return estimate[:, [router.models_.index(model) for model in models]]


def observed_mean(quality: np.ndarray) -> np.ndarray:
    """Mean over the observed prompts, [N, M] -> [M]; NaN for a model never observed."""
    seen = ~np.isnan(quality)
    count = seen.sum(axis=0)
    total = np.where(seen, quality, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(quality.shape[1], np.nan), where=count > 0)


def group_means(quality: np.ndarray, groups: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean quality of each model in each group of prompts, and on how many prompts it rests.

    Parameters
    ----------
    quality : ndarray, [N, M]
        NaN = not observed.
    groups : ndarray of int, [N]
        In 0..n_groups-1.

    Returns
    -------
    means : ndarray, [n_groups, M]
        Where a model was observed on no prompt of a group: its mean over all prompts. (UniRoute does not say what
        Psi is on an empty cluster; the model's overall validation mean is our reading.)
    counts : ndarray of int, [n_groups, M]
    """
    from scipy.sparse import csr_array

    # One row a group with a one for each of its prompts, in their order: the sums are those of a plain loop.
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.arange(n_groups + 1))
    member = csr_array((np.ones(len(groups)), order, starts), shape=(n_groups, len(groups)))
    seen = ~np.isnan(quality)
    if seen.all():
        totals, counts = member @ quality, np.repeat(np.diff(starts)[:, None], quality.shape[1], axis=1)
    else:
        totals, counts = member @ np.where(seen, quality, 0.0), (member @ seen.astype(float)).astype(int)
    if counts.all():
        return totals / counts, counts
    overall = np.broadcast_to(observed_mean(quality), totals.shape).copy()
    return np.divide(totals, counts, out=overall, where=counts > 0), counts


def best_llm(score: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Return the LLM with the highest score on each prompt, [N]; of equals the cheapest, then the first.

    -1 where no LLM was observed. `score` and `cost` are [N, M].
    """
    score = np.where(np.isnan(score), -np.inf, score)
    top = score.max(axis=1)
    best = np.where(score >= top[:, None] - TIE, cost, np.inf).argmin(axis=1)
    return np.where(np.isneginf(top), -1, best)


class Random(BaseRouter):
    """Scores drawn uniformly from [0, 1): with cost ignored, every model is as likely as any other.

    The scores of a model depend on the seed and its name alone, so adding models changes no other column. The same
    prompts in another order get other scores.
    """

    dynamic = True

    def __init__(self, seed: int = 0):
        self.seed = seed

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Remember the models; labels are not looked at."""
        self.n_features_in_ = check_embeddings(embeddings, rows=len(benchmark)).shape[1]
        self.models_ = list(benchmark.models)
        return self

    def add_models(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Remember the new models."""
        self._check_width(embeddings)
        self._places(benchmark.models)
        return self

    def predict_quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Draw a score for every prompt and model, [N, M]."""
        n = len(self._check_width(embeddings))
        return np.stack([_stream(self.seed, model).random(n) for model in self.models_], axis=1)


def _stream(seed: int, model: str) -> np.random.Generator:
    """Return a model's own source of randomness: it depends on the seed and the model's name alone."""
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(model.encode()).digest()[:8], "little")])


class Thompson(BaseRouter):
    """Thompson sampling: a bandit with one arm a model, blind to the prompt (Agrawal & Goyal, 2012; CSCR Section 4.1).

    Every model starts with a Beta(1, 1) belief about its quality. Prompts come one by one; a quality is drawn from
    each belief, the model with the highest draw is asked, and its answer alone is learned from: quality q adds q to
    the first parameter and 1 - q to the second (for soft scores the usual fractional update). A model that was not
    observed on a prompt is not asked there. Cost plays no part in learning. Routing draws anew for each prompt.

    Parameters
    ----------
    online : {"train", "test"}
        "train": learn on the prompts of `fit`, in random order, then stop. "test": learn while routing, as CSCR's
        released code does. Such a router is fitted, like Oracle, on the very prompts it is asked about, in their
        order; what it says of a prompt was drawn before that prompt's answers were seen. Beliefs there follow the
        choices at lambda = 0.
    seed

    Attributes
    ----------
    beliefs_ : ndarray, [M, 2]
        Parameters of each model's Beta distribution.
    """

    dynamic = True

    def __init__(self, online: Literal["train", "test"] = "train", seed: int = 0):
        self.online = online
        self.seed = seed

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Ask one model a prompt and learn from its answer; UserError for qualities outside [0, 1]."""
        if self.online not in ("train", "test"):
            raise UserError(f"Thompson: online is {self.online!r}, expected 'train' or 'test'")
        embeddings = self._check_fit(benchmark, embeddings)
        self.models_ = list(benchmark.models)
        self.beliefs_, draws = self._learn(benchmark)
        self._routed = (embeddings, draws) if self.online == "test" else None
        return self

    def add_models(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Learn beliefs about these models by asking them, and no others, these prompts."""
        if self.online == "test":
            raise UserError("Thompson: online='test' learns while it routes; fit it on the pool that it routes")
        self._check_add(benchmark, embeddings)
        beliefs = self._learn(benchmark)[0]
        self.beliefs_ = with_columns(self.beliefs_.T, self._places(benchmark.models), beliefs.T).T
        return self

    def _learn(self, benchmark: RoutingBenchmark) -> tuple[np.ndarray, np.ndarray]:
        """Return the beliefs [M, 2] after all prompts, and what was drawn at each prompt, [N, M]."""
        quality = benchmark.quality
        if np.nanmin(quality) < 0 or np.nanmax(quality) > 1:
            raise UserError(
                f"Thompson: qualities of {benchmark.name} run from {np.nanmin(quality):g} to {np.nanmax(quality):g}, "
                "expected numbers in [0, 1]; rescale them"
            )
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(len(quality)) if self.online == "train" else np.arange(len(quality))
        beliefs, draws = np.ones((quality.shape[1], 2)), np.empty_like(quality)
        unseen = np.isnan(quality)
        for row in order:
            draws[row] = rng.beta(*beliefs.T)
            asked = int(np.argmax(np.where(unseen[row], -1.0, draws[row])))
            if not unseen[row, asked]:
                beliefs[asked] += quality[row, asked], 1.0 - quality[row, asked]
        return beliefs, draws

    def predict_quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Draw a quality for every prompt and model, [N, M]; UserError for other prompts than `online="test"` saw."""
        embeddings = self._check_width(embeddings)
        if self._routed is None:
            arms = zip(self.models_, self.beliefs_, strict=True)
            return np.stack([_stream(self.seed, m).beta(*belief, len(embeddings)) for m, belief in arms], axis=1)
        if not np.array_equal(embeddings, self._routed[0]):
            raise UserError("Thompson: online='test' routes the prompts it was fitted on, in that order, and no others")
        return self._routed[1].copy()


class Oracle(BaseRouter):
    """The true quality of every answer: cheating by design, the bound that no router can pass.

    Fit it on the very prompts it is asked about. It refuses any other.
    """

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Remember the labels [N, M] themselves."""
        self._embeddings = self._check_fit(benchmark, embeddings)
        self.models_ = list(benchmark.models)
        self.quality_ = benchmark.quality.copy()
        return self

    def predict_quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the labels, [N, M]; UserError when the prompts are not the ones it was fitted on."""
        embeddings = self._check_width(embeddings)
        if not np.array_equal(embeddings, self._embeddings):
            raise UserError(
                f"Oracle was fitted on {len(self._embeddings)} prompts and is asked about {len(embeddings)} others; "
                "fit it on the prompts it is to route"
            )
        return self.quality_.copy()


class BestSingle(BaseRouter):
    """The one model with the best mean quality on the training labels; of equals, the cheapest.

    All other models are NaN, so its deferral curve is a single point.
    """

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Find the best model; means are over the prompts each model was observed on."""
        self._check_fit(benchmark, embeddings)
        self.models_ = list(benchmark.models)
        self.mean_quality_ = observed_mean(benchmark.quality)
        cost = np.where(np.isnan(benchmark.mean_cost), np.inf, benchmark.mean_cost)
        self.best_ = self.models_[int(np.lexsort((cost, -self.mean_quality_))[0])]
        return self

    def predict_quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the best model's mean quality in its column and NaN elsewhere, [N, M]."""
        estimate = np.full((len(self._check_width(embeddings)), len(self.models_)), np.nan)
        best = self.models_.index(self.best_)
        estimate[:, best] = self.mean_quality_[best]
        return estimate


class DatasetOracle(BaseRouter):
    """Mean training quality of each model on each source dataset: it sees which dataset a prompt came from.

    A router that does not beat it has learned to recognise the dataset, not the prompt. A dataset never seen (or
    never seen with that model) gets the model's overall mean.
    """

    dynamic = True
    uses_tasks = True

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Learn the table of task means, `task_means_`: task -> {model: mean quality}."""
        self._check_fit(benchmark, embeddings)
        self.models_ = []
        self.overall_: dict[str, float] = {}
        self.task_means_: dict[str, dict[str, float]] = {}
        return self._learn(benchmark)

    def add_models(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Add models from their task means on these prompts."""
        self._check_add(benchmark, embeddings)
        return self._learn(benchmark)

    def _learn(self, benchmark: RoutingBenchmark) -> Self:
        self._places(benchmark.models)
        tasks, group = np.unique(benchmark.tasks, return_inverse=True)
        means, counts = group_means(benchmark.quality, group, len(tasks))
        overall = observed_mean(benchmark.quality)
        for column, model in enumerate(benchmark.models):
            self.overall_[model] = float(overall[column])
            for known in self.task_means_.values():
                known.pop(model, None)
            for row, task in enumerate(tasks):
                if counts[row, column]:
                    self.task_means_.setdefault(str(task), {})[model] = float(means[row, column])
        return self

    def predict_quality(self, embeddings: np.ndarray, tasks: np.ndarray | None = None) -> np.ndarray:
        """Look up the task means; `tasks` [N] is the source dataset of each prompt, returns [N, M]."""
        embeddings = self._check_width(embeddings)
        if tasks is None or len(tasks) != len(embeddings):
            found = "None" if tasks is None else f"{len(tasks)} names"
            raise UserError(
                f"DatasetOracle needs the source dataset of each of the {len(embeddings)} prompts; tasks is {found}; "
                "pass tasks=benchmark.tasks"
            )
        names, group = np.unique(np.asarray(tasks, dtype=str), return_inverse=True)
        table = [
            [self.task_means_.get(str(task), {}).get(model, self.overall_[model]) for model in self.models_]
            for task in names
        ]
        return np.array(table, dtype=float)[group]


class ZeroRouter(BaseRouter):
    """Mean validation quality of each model, the same for every prompt (UniRoute Appendix D; Hu et al., 2024b).

    As lambda grows, `argmax(mean - lambda * cost)` visits exactly the vertices of the non-decreasing concave hull
    of the models' (cost, quality) points (Proposition 9). Between two neighbouring vertices the paper's router calls
    one model with probability p and the other with 1 - p; its expected cost and quality then lie on the segment
    between them. So the deferral curve of this router with linear interpolation between its points *is* the
    Pareto-random mixture of Appendix D, without any randomness.
    """

    dynamic = True

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Average the observed labels of each model, `mean_quality_` [M]."""
        self._check_fit(benchmark, embeddings)
        self.models_ = list(benchmark.models)
        self.mean_quality_ = observed_mean(benchmark.quality)
        return self

    def add_models(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Add models with their mean quality on these prompts."""
        self._check_add(benchmark, embeddings)
        places = self._places(benchmark.models)
        self.mean_quality_ = with_columns(self.mean_quality_, places, observed_mean(benchmark.quality))
        return self

    def predict_quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the same row for every prompt, [N, M]."""
        n = len(self._check_width(embeddings))
        return np.tile(self.mean_quality_, (n, 1))


class KNN(BaseRouter):
    """K nearest neighbours: mean quality on the nearest labelled prompts (UniRoute Eq. (4); Hu et al., 2024b).

    Distance is Euclidean and exact (faiss). Each model has its own labelled prompts: those of `fit` for the models
    fitted, those of `add_models` for the models added, and of these only the ones it was observed on. Of equally
    near prompts the one that comes first in the data is taken.

    Parameters
    ----------
    n_neighbours
        The paper's K; at most the number of prompts that each model is labelled on.
    """

    dynamic = True

    def __init__(self, n_neighbours: int = 5):
        self.n_neighbours = n_neighbours

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Index the training prompts."""
        embeddings = self._check_fit(benchmark, embeddings)
        groups = self._index(benchmark, embeddings)
        self.models_ = list(benchmark.models)
        self.groups_ = groups
        return self

    def add_models(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Index these prompts as the neighbours of the new models."""
        new = self._index(benchmark, self._check_add(benchmark, embeddings))
        replaced = set(benchmark.models)
        kept = []
        for index, labels, models in self.groups_:
            stay = [column for column, model in enumerate(models) if model not in replaced]
            if stay:
                kept.append((index, labels[:, stay], [models[column] for column in stay]))
        self.groups_ = kept + new
        self._places(benchmark.models)
        return self

    def _index(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> list[tuple[Any, np.ndarray, list[str]]]:
        """One (index, labels [n, m], models) for each set of models that were observed on the same prompts."""
        import faiss

        seen = ~np.isnan(benchmark.quality)
        fewest = int(np.argmin(seen.sum(axis=0)))
        check_count(
            self,
            "n_neighbours",
            self.n_neighbours,
            most=int(seen[:, fewest].sum()),
            of=f"labelled prompts for model {benchmark.models[fewest]!r}",
        )
        together: dict[bytes, list[int]] = {}
        for column in range(seen.shape[1]):
            together.setdefault(seen[:, column].tobytes(), []).append(column)
        groups = []
        for columns in together.values():
            rows = seen[:, columns[0]]
            index = faiss.IndexFlatL2(embeddings.shape[1])
            index.add(np.ascontiguousarray(embeddings[rows], dtype=np.float32))
            labels = benchmark.quality[np.ix_(rows, columns)]
            groups.append((index, labels, [benchmark.models[column] for column in columns]))
        return groups

    def predict_quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Average the labels of each prompt's nearest neighbours, [N, M]."""
        return self.predict_by_neighbours(embeddings, [self.n_neighbours])[self.n_neighbours]

    def predict_by_neighbours(self, embeddings: np.ndarray, counts: Sequence[int]) -> dict[int, np.ndarray]:
        """Return what `predict_quality` would with each number of neighbours, from a single search.

        Parameters
        ----------
        embeddings : ndarray, [N, D]
        counts : sequence of int
            Numbers of neighbours, each at most `n_neighbours`.

        Returns
        -------
        dict of int to ndarray, [N, M]

        Raises
        ------
        UserError
            When a count lies outside 1 to `n_neighbours`, or as in `predict_quality`.
        """
        queries = np.ascontiguousarray(self._check_width(embeddings), dtype=np.float32)
        for count in counts:
            if not 1 <= count <= self.n_neighbours:
                raise UserError(
                    f"KNN: counts has {count}, expected numbers from 1 to n_neighbours = {self.n_neighbours}; "
                    "fit with a larger n_neighbours"
                )
        estimates = {count: np.empty((len(queries), len(self.models_))) for count in counts}
        for index, labels, models in self.groups_:
            places = [self.models_.index(model) for model in models]
            if len(estimates) == 1 and max(counts) >= MANY_NEIGHBOURS:
                estimates[max(counts)][:, places] = _mean_of_nearest(index, labels, queries, max(counts))
                continue
            nearest = index.search(queries, max(counts))[1]
            # Eq. (4), one neighbour rank at a time so that [N, k, M] is never held.
            total = np.zeros((len(queries), len(models)))
            for rank, column in enumerate(nearest.T, start=1):
                total += labels[column]
                if rank in estimates:
                    estimates[rank][:, places] = total / rank
        return estimates


def _mean_of_nearest(index: Any, labels: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    """Return the mean label of each query's `count` nearest points, [N, m], without sorting them by distance."""
    import faiss

    points = index.reconstruct_n(0, index.ntotal)
    means = np.empty((len(queries), labels.shape[1]))
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        part = slice(start, start + QUERIES_AT_ONCE)
        distance = faiss.pairwise_distances(queries[part], points)
        last = np.partition(distance, count - 1, axis=1)[:, count - 1 : count]
        near = distance <= last
        for row in np.flatnonzero(np.count_nonzero(near, axis=1) > count):
            # Of equally near points those that come first in the data.
            tied = np.flatnonzero(distance[row] == last[row])
            near[row, tied[count - np.count_nonzero(distance[row] < last[row]) :]] = False
        means[part] = near.astype(float) @ labels / count
    return means


class KMeans(BaseRouter):
    """UniRoute (K-means): mean quality within the cluster a prompt falls into (UniRoute Section 5.1).

    Training prompts are clustered without labels; Psi(h), the error of a model in each cluster, is estimated on the
    prompts the model is labelled on: Eqs. (11) and (12) with error = 1 - quality. The training models are
    represented by their training labels (Appendix G.2), models added later by their validation labels.

    Parameters
    ----------
    n_clusters
        The paper's K.
    seed
        Of the K-means starts.
    n_init
        Starts, of which the best is kept (our reading; the paper names only the 300 iterations, Appendix H.2).
    max_iter
        Iterations at most.

    Attributes
    ----------
    centroids_ : ndarray, [K, D]
    psi_ : ndarray, [K, M]
        Errors in [0, 1] for qualities in [0, 1]. On a cluster without a labelled prompt: the model's overall error.
    counts_ : ndarray of int, [K, M]
        Labelled prompts that each entry of `psi_` rests on.
    """

    dynamic = True

    def __init__(self, n_clusters: int = 8, seed: int = 0, n_init: int = 10, max_iter: int = 300):
        self.n_clusters = n_clusters
        self.seed = seed
        self.n_init = n_init
        self.max_iter = max_iter

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Cluster the training prompts and represent the training models."""
        from sklearn.cluster import KMeans as Clustering

        embeddings = self._check_fit(benchmark, embeddings)
        check_count(self, "n_clusters", self.n_clusters, most=len(embeddings), of="training prompts")
        check_count(self, "n_init", self.n_init)
        check_count(self, "max_iter", self.max_iter)
        options = {"n_init": self.n_init, "max_iter": self.max_iter, "random_state": self.seed}
        clustering = Clustering(self.n_clusters, init=_PlusPlus(), **options)
        # With several threads the order in which their partial sums are added is not fixed, so the last bits vary.
        with one_thread():
            clustering.fit(embeddings)
        self._clustering = clustering.set_params(init="k-means++")
        self.centroids_ = clustering.cluster_centers_
        self.models_ = list(benchmark.models)
        self.psi_, self.counts_ = self.represent(benchmark, embeddings)
        return self

    def assign(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the nearest centroid of each prompt, [N] of int: Phi of Eq. (11) as an index."""
        embeddings = self._check_width(embeddings)
        return self._clustering.predict(embeddings.astype(self.centroids_.dtype, copy=False))

    def represent(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return Psi [K, M] of the benchmark's models from their labels on it, and the counts behind it [K, M].

        Eq. (12). Changes nothing in the router; models that it does not know are welcome.
        """
        embeddings = self._check_add(benchmark, embeddings)
        means, counts = group_means(benchmark.quality, self.assign(embeddings), self.n_clusters)
        return 1.0 - means, counts

    def with_labels(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Return a router with these clusters over the models of `benchmark` alone, represented by their labels on it.

        Clusters are made without labels: this is what `fit` gives on the same prompts with other labels or models.
        This router is left as it is; errors as in `represent`.
        """
        other = copy.copy(self)
        other.models_ = list(benchmark.models)
        other.psi_, other.counts_ = self.represent(benchmark, embeddings)
        return other

    def add_models(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Represent the new models by their errors per cluster on these prompts."""
        psi, counts = self.represent(benchmark, embeddings)
        places = self._places(benchmark.models)
        self.psi_ = with_columns(self.psi_, places, psi)
        self.counts_ = with_columns(self.counts_, places, counts)
        return self

    def predict_quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Return 1 - Phi(x)^T Psi(h), [N, M]: Eq. (11)."""
        cluster = self.assign(embeddings)
        return 1.0 - self.psi_[cluster]


class _PlusPlus:
    """The k-means++ start of scikit-learn, greedy with 2 + log K trials a centre (Arthur & Vassilvitskii, 2007).

    The same random numbers and, in the same precision, the same sums. scikit-learn converts float32 prompts to
    float64 anew for each centre, which takes longer than all the distances; here that is done once for all starts.
    """

    def __init__(self) -> None:
        self._prompts: np.ndarray | None = None

    def __call__(self, x: np.ndarray, n_clusters: int, random_state: np.random.RandomState) -> np.ndarray:
        """Return the first centroids, [K, D], some of the prompts x [N, D]."""
        if self._prompts is not x:
            self._prompts, self._exact = x, x.astype(np.float64, copy=False)
            self._norms = np.einsum("ij,ij->i", self._exact, self._exact)
        each = np.ones(len(x), dtype=x.dtype)
        chosen = [random_state.choice(len(x), p=each / each.sum())]
        nearest = self._distances(chosen)
        total = nearest @ each
        nearest = nearest[0]
        for _ in range(1, n_clusters):
            drawn = random_state.uniform(size=2 + int(np.log(n_clusters))) * total
            candidates = np.minimum(np.searchsorted(np.cumsum(nearest), drawn), len(x) - 1)
            with_each = np.minimum(self._distances(candidates), nearest)
            totals = with_each @ each[:, None]
            best = int(np.argmin(totals))
            total, nearest = totals[best], with_each[best]
            chosen.append(candidates[best])
        return x[chosen]

    def _distances(self, rows: Sequence[int]) -> np.ndarray:
        """Return the squared distance of every prompt to some of them, [len(rows), N], in the prompts' precision."""
        squared = -2 * (self._exact[rows] @ self._exact.T)
        squared += self._norms[rows, None]
        squared += self._norms
        return np.maximum(squared, 0, out=squared).astype(self._prompts.dtype, copy=False)


def with_columns(old: np.ndarray, places: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return `old` [..., M] with the columns `places` set to `new`, widened where they lie beyond M."""
    width = max(old.shape[-1], int(places.max()) + 1)
    wide = np.empty((*old.shape[:-1], width), dtype=old.dtype)
    wide[..., : old.shape[-1]] = old
    wide[..., places] = new
    return wide


def train_with_adam(
    network: Any,
    batch_loss: Callable[[Any], Any],
    n: int,
    *,
    epochs: int,
    lr: float,
    batch_size: int,
    generator: Any,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    label: str = "training",
) -> np.ndarray:
    """Train a torch module with Adam on shuffled mini-batches, the same bit for bit for the same generator.

    Parameters
    ----------
    network
        Module to train in place; its weights may be those of T networks side by side.
    batch_loss
        Takes row indices [B] (LongTensor) and returns a scalar loss; of T networks side by side [T, B] and [T].
    n
        Number of training rows.
    generator
        torch.Generator that shuffles, or one a network.
    eps
        Adam's epsilon (torch 1e-8, Keras 1e-7).
    weight_decay
        Above 0 this is AdamW: weights shrink by lr * weight_decay a step, apart from the gradient.

    Returns
    -------
    ndarray, [epochs] or [epochs, T]
        Mean batch loss of each epoch.
    """
    import torch

    # One call updates all parameters: for networks this small most of a step is the overhead of calls.
    optimiser = torch.optim.AdamW(network.parameters(), lr=lr, eps=eps, weight_decay=weight_decay, fused=True)
    losses = []
    with one_thread():
        network.train()
        for _ in progress(range(epochs), label=label, unit="epoch"):
            total = 0.0
            for rows in _shuffled(n, generator).split(batch_size, dim=-1):
                optimiser.zero_grad()
                loss = batch_loss(rows)
                # The sum over networks: none has a share in another's gradient, and Adam works entry by entry.
                loss.sum().backward()
                optimiser.step()
                total = total + loss.detach() * rows.shape[-1]
            losses.append(total.numpy().astype(float) / n)
    network.eval()
    return np.array(losses)


def _shuffled(n: int, generator: Any) -> Any:
    """Return the rows 0..n-1 in random order, [n], or of T generators [T, n]."""
    import torch

    if isinstance(generator, torch.Generator):
        return torch.randperm(n, generator=generator)
    return torch.stack([torch.randperm(n, generator=each) for each in generator])


def seen_cells(quality: np.ndarray) -> Any:
    """Return which cells of quality [N, M] were observed as a tensor, or None where all were."""
    import torch

    seen = ~np.isnan(quality)
    return None if seen.all() else torch.tensor(seen)


def observed_loss(cells: Any, seen: Any) -> Any:
    """Return the mean of a batch's losses [..., B, M] over its observed cells; a batch without any has loss 0.

    Parameters
    ----------
    cells : Tensor, [..., B, M]
    seen : Tensor of bool, [..., B, M], or None
        None where all were observed.
    """
    if seen is None:
        return cells.mean(dim=(-2, -1))
    return (cells * seen).sum(dim=(-2, -1)) / seen.sum(dim=(-2, -1)).clamp(min=1)


def dense(fan_in: int, fan_out: int, generator: Any, *, bias: bool = True, glorot: bool = True) -> Any:
    """Return a torch Linear layer initialised from `generator` alone (the global random state is not touched).

    Glorot-uniform weights and zero bias, the Keras default; `glorot=False`: uniform within 1/sqrt(fan_in) for both,
    the torch default.
    """
    import torch
    from torch import nn

    # The layer draws weights of its own first. (skip_init would not, but imports for a second what nothing else needs.)
    with torch.random.fork_rng(devices=[]):
        layer = nn.Linear(fan_in, fan_out, bias=bias)
    with torch.no_grad():
        if glorot:
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if bias:
                layer.bias.zero_()
        else:
            bound = fan_in**-0.5
            layer.weight.uniform_(-bound, bound, generator=generator)
            if bias:
                layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


def _single(array: np.ndarray) -> Any:
    """Return an array as a float32 tensor that is only read: in the array's own memory where that is possible."""
    import torch

    array = np.asarray(array, dtype=np.float32)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


@dataclass(frozen=True)
class Lesson:
    """What a router's network is trained on; all but the generator are torch tensors.

    Attributes
    ----------
    inputs : [N, D]
    targets : [N, M]
    seen : [N, M] of bool, or None
        Cells whose label was observed; None where all were.
    constants : tuple
        What else the loss reads.
    generator
        The torch.Generator that made the first weights and shuffles from now on.
    output : str
        How the network's output is read, where a router knows several ways.
    """

    inputs: Any
    targets: Any
    seen: Any
    constants: tuple[Any, ...]
    generator: Any
    output: str = ""

    @classmethod
    def of(
        cls,
        embeddings: np.ndarray,
        targets: np.ndarray,
        quality: np.ndarray,
        generator: Any,
        constants: Sequence[np.ndarray] = (),
        output: str = "",
    ) -> Self:
        """Make tensors of arrays; `quality` [N, M] is NaN where no label was observed."""
        return cls(
            inputs=_single(embeddings),
            targets=_single(targets),
            seen=seen_cells(quality),
            constants=tuple(_single(constant) for constant in constants),
            generator=generator,
            output=output,
        )

    @property
    def shape(self) -> tuple[Any, ...]:
        """Lessons of one shape can be taught side by side."""
        constants = tuple(constant.shape for constant in self.constants)
        return self.inputs.shape, self.targets.shape, self.seen is None, constants, self.output


class TrainedRouter(BaseRouter):
    """What routers with a network trained by Adam have in common: the training, and which epoch is kept.

    Attributes
    ----------
    network_ : torch.nn.Module
    loss_ : ndarray, [epochs]
        Mean batch loss of each epoch.
    best_epoch_ : int
        The epoch kept, from 0.
    n_parameters_ : int
        Trained parameters.
    """

    epochs: int
    lr: float
    batch_size: int
    seed: int

    def _lesson(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Lesson:
        """Check everything, make `network_` and return what it is to learn."""
        raise NotImplementedError

    def _loss_and_slope(self, output: Any, targets: Any, share: Any, *constants: Any) -> tuple[Any, Any]:
        """Return the loss of a batch of each of T networks and its gradient by their outputs.

        Parameters
        ----------
        output : Tensor, [T, B, ...]
        targets : Tensor, [T, B, M]
        share : float or Tensor, [T, B, M]
            Weight of each cell's loss in the sum.
        constants
            Those of the lessons, stacked.

        Returns
        -------
        loss : Tensor, [T]
        slope : Tensor, [T, B, ...]
            In memory of its own, which may be written over.
        """
        raise NotImplementedError

    def _adam_options(self) -> dict[str, Any]:
        """Options of the training; routers with equal ones can be taught side by side."""
        return {"epochs": self.epochs, "lr": self.lr, "batch_size": self.batch_size, "label": type(self).__name__}


def fit_together(
    routers: Sequence[TrainedRouter],
    problems: Sequence[tuple[RoutingBenchmark, np.ndarray]],
    validations: Sequence[Validation] | None = None,
) -> None:
    """Fit routers of one kind, each on a problem of its own, as their `fit` does; those of equal shape side by side.

    Networks as small as these spend most of a training step in the overhead of calls; eight of them in one call train
    about twice as fast as one by one. Every router has its own weights, batches and random
    numbers; only rounding differs.

    Parameters
    ----------
    routers
        Unfitted, of one class.
    problems
        Benchmark and embeddings [N, D] of each.
    validations
        Prompts by which the epoch to keep is chosen, one pair a router: the one whose deferral curve on them has the
        largest area, with each model's mean cost on them; of equals the first. The paper picks "the checkpoint that
        yielded the best quality metric on the validation set" (UniRoute G.2); that the metric is this area is our
        reading. Without them the last epoch is kept.

    Raises
    ------
    UserError
        As the routers' own `fit`, before any of them is trained.
    """
    lessons = [router._lesson(*problem) for router, problem in zip(routers, problems, strict=True)]
    keepers: list[_Keeper | None] = [None] * len(routers)
    if validations is not None:
        keepers = [_Keeper(router, validation) for router, validation in zip(routers, validations, strict=True)]
    alike: dict[Any, list[int]] = {}
    for i, (router, lesson) in enumerate(zip(routers, lessons, strict=True)):
        weights = tuple(weight.shape for weight in router.network_.state_dict().values())
        options = router._adam_options()
        alike.setdefault((lesson.shape, weights, tuple(options.items())), []).append(i)
    for members in alike.values():
        _teach(*([of[i] for i in members] for of in (routers, lessons, keepers)))


def _teach(routers: list[TrainedRouter], lessons: list[Lesson], keepers: list[_Keeper | None]) -> None:
    """Train networks of equal shape side by side."""
    first = routers[0]
    network = SideBySide([router.network_ for router in routers])

    def after_epoch(epoch: int) -> None:
        if keepers[0] is not None:
            network.hand_back()
            for keeper in keepers:
                keeper(epoch)

    losses = _train(network, lessons, first._loss_and_slope, after_epoch, **first._adam_options())
    network.hand_back()
    for i, (router, keeper) in enumerate(zip(routers, keepers, strict=True)):
        router.loss_ = losses[:, i]
        router.best_epoch_ = router.epochs - 1 if keeper is None else keeper.restore(router.network_)
        router.n_parameters_ = sum(p.numel() for p in router.network_.parameters())


def _train(
    network: SideBySide,
    lessons: list[Lesson],
    loss_and_slope: Callable[..., tuple[Any, Any]],
    after_epoch: Callable[[int], None],
    *,
    epochs: int,
    lr: float,
    batch_size: int,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    smallest_batch: int = 1,
    label: str = "training",
) -> np.ndarray:
    """Train T networks, each on batches of its own lesson, the same bit for bit for the same generators.

    Parameters
    ----------
    loss_and_slope
        As `TrainedRouter._loss_and_slope`.
    after_epoch
        Called with the epoch, from 0.
    eps
        Adam's epsilon (torch 1e-8, Keras 1e-7).
    weight_decay
        As in `train_with_adam`.
    smallest_batch
        A last batch smaller than this is merged into the one before (batch normalisation needs two rows).

    Returns
    -------
    ndarray, [epochs, T]
        Mean batch loss of each epoch.
    """
    import torch

    constants = [torch.stack(each) for each in zip(*(lesson.constants for lesson in lessons), strict=True)]
    inputs, targets, seen = (_Batches([getattr(of, part) for of in lessons]) for part in ("inputs", "targets", "seen"))
    adam = Adam(network.weights, network.gradients, lr, eps, weight_decay)
    n, losses = len(lessons[0].inputs), []
    with one_thread(), torch.no_grad():
        for epoch in progress(range(epochs), label=label, unit="epoch"):
            batches = list(_shuffled(n, [lesson.generator for lesson in lessons]).split(batch_size, dim=1))
            if len(batches) > 1 and batches[-1].shape[1] < smallest_batch:
                batches[-2:] = [torch.cat(batches[-2:], dim=1)]
            total = torch.zeros(len(lessons))
            for rows in batches:
                wanted = targets.take(rows)
                share = _shares(wanted, seen.take(rows))
                loss, slope = loss_and_slope(network.forward(inputs.take(rows)), wanted, share, *constants)
                network.backward(slope)
                adam.step()
                total += loss * rows.shape[1]
            losses.append(total.numpy().astype(float) / n)
            after_epoch(epoch)
    return np.array(losses)


def _shares(targets: Any, seen: Any) -> Any:
    """Return the weight of each cell in a batch's mean loss over its observed cells, [T, B, M] or one for all."""
    if seen is None:
        return 1.0 / targets[0].numel()
    return seen / seen.sum(dim=(1, 2), keepdim=True).clamp(min=1)


class _Batches:
    """Gathers rows of T tensors [N, *] into [T, B, ...], in memory that is taken once; nothing where they are None."""

    def __init__(self, tensors: list[Any]):
        # NumPy's take is faster than torch's index_select on rows as short as these.
        self._arrays = None if tensors[0] is None else [tensor.numpy() for tensor in tensors]
        self._rooms: dict[int, Any] = {}

    def take(self, rows: Any) -> Any:
        import torch

        if self._arrays is None:
            return None
        count, size = rows.shape
        if size not in self._rooms:
            first = self._arrays[0]
            self._rooms[size] = np.empty((count, size, first.shape[1]), dtype=first.dtype)
        room = self._rooms[size]
        for array, own, place in zip(self._arrays, rows.numpy(), room, strict=True):
            # "clip" writes where it is told to without a copy; no row lies outside.
            np.take(array, own, axis=0, out=place, mode="clip")
        return torch.from_numpy(room)


class _NetworkRouter(TrainedRouter):
    """A static router with one output a model, trained on labels (UniRoute Appendix G.2, "Clairvoyant").

    Loss: cross-entropy of the sigmoid output against the label, which may be soft, over the observed cells. Where a
    label lies outside [0, 1] cross-entropy has no meaning; the output is then linear and the loss the squared error
    of labels standardised by their overall mean and deviation (our choice; the paper does not say what it does on
    MixInstruct).
    """

    def _network(self, width: int, n_models: int, generator: Any) -> Any:
        raise NotImplementedError

    def _check_parameters(self) -> None:
        check_count(self, "epochs", self.epochs)
        check_count(self, "batch_size", self.batch_size)
        if not self.lr > 0:
            raise UserError(f"{type(self).__name__}: lr is {self.lr!r}, expected a number > 0")

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray, validation: Validation | None = None) -> Self:
        """Train on the labels of `benchmark`.

        Parameters
        ----------
        benchmark
        embeddings : ndarray, [N, D]
        validation : (benchmark, embeddings), optional
            Prompts with labels of the same models, by which the epoch to keep is chosen: the one whose deferral curve
            on them has the largest area. Without it the last epoch is kept.

        Raises
        ------
        UserError
            As in `BaseRouter.fit`; and when a validation model has no price or is missing.
        """
        fit_together([self], [(benchmark, embeddings)], None if validation is None else [validation])
        return self

    def _lesson(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Lesson:
        import torch

        embeddings = self._check_fit(benchmark, embeddings)
        self._check_parameters()
        self.models_ = list(benchmark.models)
        self._choose_output(benchmark.quality)
        generator = torch.Generator().manual_seed(self.seed)
        self.network_ = self._network(embeddings.shape[1], len(self.models_), generator)
        targets = (np.nan_to_num(benchmark.quality) - self.shift_) / self.scale_
        return Lesson.of(embeddings, targets, benchmark.quality, generator, output=self.output_)

    def _loss_and_slope(self, output: Any, targets: Any, share: Any) -> tuple[Any, Any]:
        import torch
        from torch.nn import functional

        if self.output_ == "probability":
            cells = functional.softplus(output).addcmul_(output, targets, value=-1)
            slope = torch.sigmoid(output).sub_(targets)
        else:
            difference = output - targets
            cells, slope = difference.square(), 2 * difference
        return cells.mul_(share).sum(dim=(1, 2)), slope.mul_(share)

    def _choose_output(self, quality: np.ndarray) -> None:
        labels = quality[~np.isnan(quality)]
        self.output_, self.shift_, self.scale_ = "probability", 0.0, 1.0
        if labels.min() < 0 or labels.max() > 1:
            self.output_, self.shift_, self.scale_ = "score", float(labels.mean()), float(labels.std()) or 1.0

    def predict_quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Run the network, [N, M]; within [0, 1] when the training labels were."""
        import torch

        inputs = torch.tensor(self._check_width(embeddings), dtype=torch.float32)
        with torch.inference_mode(), one_torch_thread():
            output = self.network_(inputs).to(torch.float64)
            if self.output_ == "probability":
                output = torch.sigmoid(output)
        return output.numpy() * self.scale_ + self.shift_


class _Keeper:
    """Remembers the weights of the epoch with the largest area under the validation deferral curve."""

    def __init__(self, router: TrainedRouter, validation: Validation):
        benchmark, self._embeddings = validation
        self._router = router
        self._benchmark = benchmark.subset(models=router.models_)
        if self._benchmark.unpriced:
            raise UserError(
                f"{type(router).__name__}: validation needs a price for each model; {self._benchmark.unpriced[0]!r} "
                "has none (benchmark.priced() leaves such models out)"
            )
        self._best = -np.inf
        self._kept: tuple[int, dict[str, Any]] | None = None

    def __call__(self, epoch: int) -> None:
        from routebook.deferral import deferral_curve

        estimate = self._router.predict_quality(self._embeddings)
        area = deferral_curve(estimate, self._benchmark.quality, self._benchmark.mean_cost).area()
        if self._kept is None or area > self._best:
            self._best = area
            self._kept = epoch, {name: value.clone() for name, value in self._router.network_.state_dict().items()}

    def restore(self, network: Any) -> int:
        """Put the best weights back and return their epoch."""
        epoch, weights = self._kept
        network.load_state_dict(weights)
        return epoch


class MLP(_NetworkRouter):
    """A multi-layer perceptron on the embedding with one output a model (Hu et al., 2024b; UniRoute G.2).

    Two hidden layers of 100 ReLU units, 10 epochs of Adam at 1e-3, batches of 64. Initialisation is torch's default
    (the paper gives none).

    Attributes
    ----------
    loss_ : ndarray, [epochs]
    best_epoch_ : int
        The epoch kept, from 0.
    output_ : {"probability", "score"}
        Sigmoid outputs, or linear ones where labels lie outside [0, 1].
    n_parameters_ : int
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (100, 100),
        epochs: int = 10,
        lr: float = 1e-3,
        batch_size: int = 64,
        seed: int = 0,
    ):
        self.hidden = hidden
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.seed = seed

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for units in self.hidden:
            check_count(self, "hidden", units)

    def _network(self, width: int, n_models: int, generator: Any) -> Any:
        from torch import nn

        layers: list[Any] = []
        for units in self.hidden:
            layers += [dense(width, units, generator, glorot=False), nn.ReLU()]
            width = units
        return nn.Sequential(*layers, dense(width, n_models, generator, glorot=False))


class MatrixFactorization(_NetworkRouter):
    """Scores A B phi(x) with A of rank d (UniRoute G.2; Ong et al., 2025): a linear router of limited rank.

    The paper prints A [D, d], B [d, M] and the product A B phi(x), whose shapes need a transpose; read as
    phi(x)^T A B, passed through a sigmoid. No bias, as printed. 10 epochs of Adam at 1e-3, batches of 64;
    Glorot-uniform start (the paper gives none). Attributes as in `MLP`.

    Parameters
    ----------
    rank
        The intermediate dimension d.
    """

    def __init__(self, rank: int = 16, epochs: int = 10, lr: float = 1e-3, batch_size: int = 64, seed: int = 0):
        self.rank = rank
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.seed = seed

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_count(self, "rank", self.rank)

    def _network(self, width: int, n_models: int, generator: Any) -> Any:
        from torch import nn

        return nn.Sequential(
            dense(width, self.rank, generator, bias=False), dense(self.rank, n_models, generator, bias=False)
        )
