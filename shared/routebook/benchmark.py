"""The one data type every router, metric and chapter speaks: prompts x models with quality and cost."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from routebook.errors import DataError, UserError, suggest

Origin = Literal["real", "made", "simulated"]
ORIGINS: tuple[Origin, ...] = ("real", "made", "simulated")
QualityKind = Literal["binary", "soft"]
QUALITY_KINDS: tuple[QualityKind, ...] = ("binary", "soft")


@dataclass(frozen=True, eq=False)
class RoutingBenchmark:
    """Prompts answered by a pool of models, with the quality and the cost of every answer.

    Attributes
    ----------
    name
        Name in the dataset registry, e.g. ``"routerbench"``.
    prompts : list of str, length N
        What a router sees, in the prompt view that was asked for.
    tasks : ndarray of str, [N]
        Source dataset of each prompt, e.g. ``"arc-challenge"``.
    models : list of str, length M
    quality : ndarray, [N, M]
        Quality of each model's answer; NaN = not observed.
    cost : ndarray, [N, M]
        Cost of each call in `cost_unit`. A column that is NaN throughout is a model without a known price:
        it can be looked at but not routed to (see `priced`). A column that is NaN in part is an error.
    cost_unit
        What one unit of cost is, e.g. ``"USD per prompt"``.
    split : ndarray of str, [N], or None
        The split the data was published with (``"train"``, ``"test"``, ...).
    responses : ndarray of object, [N, M], or None
    origin : {"real", "made", "simulated"}
    quality_kind : {"binary", "soft"}
        Whether quality is 0/1 per answer or any number (a share, a win rate, a log-likelihood).
    ids : ndarray of str, [N]
        Question ids; two prompts with one id ask the same question.
    embeddings : ndarray, [N, D], or None
        Embeddings that come with the data (simulated pools); real prompts are embedded by `routebook.encoders`.
    absent
        Named parts of the published dataset that are not here.
    notes
        What the loader did that a reader must know (rows left out, repairs, joins).

    Raises
    ------
    DataError
        On construction, when shapes disagree, a name occurs twice, quality lies outside its range, or a cost is
        negative, infinite or missing in part.
    """

    name: str
    prompts: Sequence[str]
    tasks: np.ndarray
    models: Sequence[str]
    quality: np.ndarray
    cost: np.ndarray
    cost_unit: str
    split: np.ndarray | None = None
    responses: np.ndarray | None = None
    origin: Origin = "real"
    quality_kind: QualityKind = "binary"
    ids: np.ndarray | None = None
    embeddings: np.ndarray | None = None
    absent: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        n, m = len(self.prompts), len(self.models)
        set_ = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731 - frozen dataclass
        set_("prompts", list(self.prompts))
        set_("models", list(self.models))
        set_("tasks", np.asarray(self.tasks, dtype=str))
        set_("quality", np.asarray(self.quality, dtype=float))
        set_("cost", np.asarray(self.cost, dtype=float))
        ids = np.arange(n).astype(str) if self.ids is None else np.asarray(self.ids, dtype=str)
        set_("ids", ids)
        if self.split is not None:
            set_("split", np.asarray(self.split, dtype=str))
        if self.responses is not None:
            set_("responses", np.asarray(self.responses, dtype=object))
        if self.embeddings is not None:
            set_("embeddings", np.asarray(self.embeddings))
        self._check_shapes(n, m)
        self._check_values()

    def _check_shapes(self, n: int, m: int) -> None:
        if n == 0 or m == 0:
            raise DataError(f"{self.name}: a benchmark needs prompts and models; found {n} prompts, {m} models")
        expected = {
            "tasks": (n,),
            "ids": (n,),
            "quality": (n, m),
            "cost": (n, m),
            "split": (n,),
            "responses": (n, m),
        }
        for attribute, shape in expected.items():
            value = getattr(self, attribute)
            if value is not None and value.shape != shape:
                raise DataError(f"{self.name}: {attribute} has shape {value.shape}, expected {shape}")
        if self.embeddings is not None and (self.embeddings.ndim != 2 or len(self.embeddings) != n):
            raise DataError(f"{self.name}: embeddings have shape {self.embeddings.shape}, expected ({n}, D)")
        twice = sorted({model for model in self.models if self.models.count(model) > 1})
        if twice:
            raise DataError(f"{self.name}: model {twice[0]!r} occurs twice in the pool")
        if self.origin not in ORIGINS:
            raise DataError(f"{self.name}: origin is {self.origin!r}, expected one of {', '.join(ORIGINS)}")
        if self.quality_kind not in QUALITY_KINDS:
            kinds = ", ".join(QUALITY_KINDS)
            raise DataError(f"{self.name}: quality_kind is {self.quality_kind!r}, expected one of {kinds}")

    def _check_values(self) -> None:
        if np.isinf(self.quality).any():
            self._reject(np.isinf(self.quality), "quality", self.quality, "a finite number, or NaN where not observed")
        if self.quality_kind == "binary":
            outside = (self.quality < 0) | (self.quality > 1)
            if outside.any():
                self._reject(outside, "quality", self.quality, "a number in [0, 1]")
        unpriced = np.isnan(self.cost).all(axis=0)
        bad = ~np.isfinite(self.cost) & ~unpriced
        if bad.any():
            self._reject(bad, "cost", self.cost, "a price for every prompt; a missing price is never taken for 0")
        if (self.cost < 0).any():
            self._reject(self.cost < 0, "cost", self.cost, "a number >= 0")

    def _reject(self, where: np.ndarray, what: str, values: np.ndarray, expected: str) -> None:
        row, column = np.argwhere(where)[0]
        raise DataError(
            f"{self.name}: {what} of model {self.models[column]!r} on prompt {str(self.ids[row])!r} is "
            f"{values[row, column]:g}, expected {expected} ({int(where.sum())} such cells)"
        )

    def __len__(self) -> int:
        return len(self.prompts)

    def __repr__(self) -> str:
        return (
            f"RoutingBenchmark({self.name!r}, {len(self)} prompts x {len(self.models)} models, "
            f"{len(set(self.tasks))} tasks, cost in {self.cost_unit}, origin {self.origin})"
        )

    @property
    def mean_cost(self) -> np.ndarray:
        """Mean cost of one call to each model, [M]; NaN where no price is known."""
        return self.cost.mean(axis=0)

    @property
    def complete_rows(self) -> np.ndarray:
        """Mask of the prompts on which every model was observed, [N]."""
        return ~np.isnan(self.quality).any(axis=1)

    @property
    def unpriced(self) -> list[str]:
        """Models without a known price."""
        return [m for m, missing in zip(self.models, np.isnan(self.cost).all(axis=0), strict=True) if missing]

    def model_columns(self, models: Sequence[str]) -> np.ndarray:
        """Column of each named model, [len(models)]; a name that is not in the pool raises UserError."""
        place = {model: column for column, model in enumerate(self.models)}
        for model in models:
            if model not in place:
                raise UserError(f"{self.name} has no model {model!r}{suggest(model, self.models)}")
        return np.array([place[model] for model in models], dtype=int)

    def subset(
        self, prompts: np.ndarray | Sequence[int] | None = None, models: Sequence[str] | None = None
    ) -> RoutingBenchmark:
        """Return the benchmark on some prompts (indices or mask) and some models (names), in the order given."""
        rows = np.arange(len(self)) if prompts is None else np.asarray(prompts)
        if rows.dtype == bool:
            if rows.shape != (len(self),):
                raise UserError(f"{self.name}: the mask has shape {rows.shape}, expected ({len(self)},)")
            rows = np.flatnonzero(rows)
        elif not rows.size:
            rows = rows.astype(int)
        columns = np.arange(len(self.models)) if models is None else self.model_columns(models)
        cells = np.ix_(rows, columns)
        return replace(
            self,
            prompts=[self.prompts[i] for i in rows],
            tasks=self.tasks[rows],
            models=[self.models[j] for j in columns],
            quality=self.quality[cells],
            cost=self.cost[cells],
            split=None if self.split is None else self.split[rows],
            responses=None if self.responses is None else self.responses[cells],
            ids=self.ids[rows],
            embeddings=None if self.embeddings is None else self.embeddings[rows],
        )

    def sample(self, most: int, seed: int) -> RoutingBenchmark:
        """Return at most so many prompts, drawn at random without replacement and left in their order."""
        rows = np.random.default_rng(seed).permutation(len(self))
        return self.subset(np.sort(rows[:most]))

    def complete(self) -> RoutingBenchmark:
        """Return only the prompts on which every model was observed."""
        return self.subset(self.complete_rows)

    def priced(self) -> RoutingBenchmark:
        """Return the benchmark without the models that have no known price."""
        unpriced = set(self.unpriced)
        return self.subset(models=[m for m in self.models if m not in unpriced]) if unpriced else self

    def with_cost(self, cost: np.ndarray, unit: str) -> RoutingBenchmark:
        """Return the benchmark with other costs: [M] (the same for every prompt) or [N, M], in `unit`."""
        cost = np.broadcast_to(np.asarray(cost, dtype=float), self.quality.shape).copy()
        return replace(self, cost=cost, cost_unit=unit)

    def question_groups(self) -> np.ndarray:
        """Label prompts that ask the same question (one id, or one text) with the same number, [N].

        A split that keeps groups whole cannot leak a question from train to test.
        """
        return self._question_groups.copy()

    @cached_property
    def _question_groups(self) -> np.ndarray:
        # Found once: hundreds of trials split the same benchmark.
        parent = list(range(len(self)))

        def find(i: int) -> int:
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = parent[i]
            return i

        first: dict[tuple[str, str], int] = {}
        for i, (id_, prompt) in enumerate(zip(self.ids, self.prompts, strict=True)):
            for key in (("id", id_), ("text", prompt)):
                parent[find(i)] = find(first.setdefault(key, i))
        return np.unique([find(i) for i in range(len(self))], return_inverse=True)[1]

    def random_split(self, sizes: dict[str, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Split prompts at random into parts of (about) the given sizes, never cutting a question group.

        Parameters
        ----------
        sizes
            Part name to number of prompts, filled in this order; the part with size -1 takes what is left.
        rng
            Source of randomness.

        Returns
        -------
        dict of str to ndarray of int
            Row indices of each part. A part exceeds its size by at most one group less one prompt.
        """
        if sum(size < 0 for size in sizes.values()) > 1:
            raise UserError(f"{self.name}: only one part of a split can take what is left (size -1); found {sizes}")
        groups = self.question_groups()
        if sum(size for size in sizes.values() if size > 0) > len(self):
            wanted = ", ".join(f"{part} {size}" for part, size in sizes.items() if size > 0)
            raise UserError(f"{self.name} has {len(self)} prompts, too few for the split asked for ({wanted})")
        rank = rng.permutation(groups.max() + 1)[groups]
        order = np.argsort(rank, kind="stable")
        ends = np.flatnonzero(np.diff(rank[order], append=rank.max() + 1)) + 1
        parts: dict[str, np.ndarray] = {}
        start = 0
        for part, size in sizes.items():
            if size >= 0:
                stop = 0 if size == 0 else int(ends[np.searchsorted(ends, min(start + size, len(self)))])
                stop = max(stop, start)
                parts[part] = np.sort(order[start:stop])
                start = stop
        for part, size in sizes.items():
            if size < 0:
                parts[part] = np.sort(order[start:])
        return parts

    def digest(self) -> str:
        """Return a hash of everything a router or a metric can see (hex, 64 characters)."""
        h = hashlib.sha256()
        parts = [self.name, self.origin, self.cost_unit, self.quality_kind, *self.models, *self.prompts, *self.ids]
        parts += [*self.tasks, *(self.split if self.split is not None else ())]
        for part in parts:
            data = str(part).encode()
            h.update(len(data).to_bytes(8, "little") + data)
        for array in (self.quality, self.cost, self.embeddings):
            h.update(b"none" if array is None else np.ascontiguousarray(array, dtype="<f8").tobytes())
        return h.hexdigest()
