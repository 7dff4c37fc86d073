"""Training R-adapters side by side: Algorithm 1 (SemiRouter, Section 4) for many routers of one shape at once.

Networks as small as these spend most of a training step in the overhead of calls, and routers that differ in a weight
of their losses alone draw the same batches and the same dropout. Every router keeps its own weights, data and random
numbers; only the rounding of sums depends on which others are trained with it. This module imports torch; import it
only when a router is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from replications.semirouter.adapter import RAdapter
from replications.semirouter.backbone import WEIGHT_DECAY
from replications.semirouter.losses import anchor_to_sparse, combined, contrastive_weight, diversity
from routebook.contrastive import pairs, query_query
from routebook.routers import train_with_adam

if TYPE_CHECKING:
    from replications.semirouter.semi_router import SemiRouter

# More than this in one call gains nothing, and their activations leave the cache.
AT_ONCE = 14


@dataclass(eq=False)
class Data:
    """What routers learn from: prompts with features and labels, and what the backbone says of the anchors.

    Attributes
    ----------
    feature, query : Tensor, [N, F] and [N, D]
        V_b and V_q.
    seen, target : Tensor of bool and of int, [N, M]
        Which labels exist, and their classes.
    is_anchor : Tensor of bool, [M]
    anchor_quality, anchor_seen : Tensor, [N, A]
        The backbone's expected quality of each anchor, and for which prompts it enters Eq. (6).
    groups : Tensor of int, [N], or None
        Of the sample-sample loss.
    """

    feature: Tensor
    query: Tensor
    seen: Tensor
    target: Tensor
    is_anchor: Tensor
    anchor_quality: Tensor
    anchor_seen: Tensor
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        self.pairs = self.seen.nonzero()

    @property
    def shape(self) -> tuple[Any, ...]:
        """Data of one shape can be learned from side by side."""
        return self.feature.shape, self.query.shape, self.seen.shape, self.anchor_quality.shape


@dataclass(eq=False)
class Lesson:
    """One training.

    Attributes
    ----------
    router : SemiRouter
        Its losses, sizes and seed are read.
    adapter : RAdapter
    data : Data
        One object for all routers that learn from the same.
    dropout : torch.Generator
    epochs, lr
    new : Parameter, [m, 64 or 192], optional
        Vectors of new LLMs, trained in place of the adapter's own.
    frozen : bool
        Whether `new` alone is trained, and nothing dropped out.
    """

    router: SemiRouter
    adapter: RAdapter
    data: Data
    dropout: torch.Generator
    epochs: int
    lr: float
    new: nn.Parameter | None = None
    frozen: bool = False

    @property
    def shape(self) -> tuple[Any, ...]:
        """Lessons of one shape can be taught side by side."""
        router = self.router
        weights = tuple((name, weight.shape) for name, weight in self.adapter.state_dict().items())
        training = (self.epochs, self.lr, router.batch_size, router.n_random, router.heads, router.levels_)
        losses = (router.pairing, router.loss == "sample-sample" and (router.n_groups, router.n_negatives))
        new = None if self.new is None else self.new.shape
        return self.data.shape, weights, training, losses, new, self.frozen, router.tokens

    @property
    def stream(self) -> tuple[Any, ...]:
        """Lessons of one shape and one stream draw the same batches and the same dropout."""
        return id(self.data), self.router.seed, self.router.dropout


def teach(lessons: Sequence[Lesson]) -> None:
    """Train the adapters, or the new vectors, of lessons; those of one shape side by side.

    Sets `loss_` of the routers whose adapter is trained from its first weights on.
    """
    alike: dict[Any, list[Lesson]] = {}
    for lesson in lessons:
        alike.setdefault(lesson.shape, []).append(lesson)
    for members in alike.values():
        # The batches of those that are trained together are padded to the largest.
        members.sort(key=lambda lesson: len(lesson.data.pairs))
        streams = list(dict.fromkeys(lesson.stream for lesson in members))
        members.sort(key=lambda lesson: streams.index(lesson.stream))
        n_passes = -(-len(members) // AT_ONCE)
        size = -(-len(members) // n_passes)
        for start in range(0, len(members), size):
            _teach(members[start : start + size])


def _teach(lessons: list[Lesson]) -> None:
    task = _Task(lessons)
    first = lessons[0]
    losses = train_with_adam(
        task.network,
        task.loss,
        len(first.data.seen),
        epochs=first.epochs,
        lr=first.lr,
        batch_size=first.router.batch_size,
        generator=task.generators,
        weight_decay=WEIGHT_DECAY,
        label="SemiRouter",
    )
    task.network.hand_back()
    for place, lesson in enumerate(lessons):
        if lesson.new is None:
            lesson.router.loss_ = losses[:, place]


class _Task:
    """The training objective of T lessons of one shape, which draw from S streams."""

    def __init__(self, lessons: list[Lesson]):
        self.lessons = lessons
        streams = list(dict.fromkeys(lesson.stream for lesson in lessons))
        places = [streams.index(lesson.stream) for lesson in lessons]
        firsts = [lessons[places.index(i)] for i in range(len(streams))]
        self.data = [lesson.data for lesson in firsts]
        self.generators = [torch.Generator().manual_seed(lesson.router.seed) for lesson in firsts]
        self.stream = torch.tensor(places)
        dropout = Dropout([0.0 if each.frozen else each.router.dropout for each in firsts], firsts, self.stream)
        self.network = SideBySide(lessons, self.stream, dropout)
        routers = [lesson.router for lesson in lessons]
        first = routers[0]
        self.n_random, self.pairing = first.n_random, first.pairing
        self.feature = torch.stack([data.feature for data in self.data])
        self.query = torch.stack([data.query for data in self.data])
        self.levels = torch.tensor(first.levels_)
        self.anchors_only = torch.tensor([router.supervise == "anchors" for router in routers])
        self.alpha = torch.tensor([router.alpha * (router.loss in ("full", "anchor")) for router in routers])
        self.spread = torch.tensor([float(router.loss in ("full", "div")) for router in routers])
        self.margin = torch.tensor([router.margin for router in routers])[:, None, None, None]
        self.weight = torch.tensor([contrastive_weight(router.lam, router.weighting) for router in routers])
        self.losses = {router.loss for router in routers}

    def _drawn(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the contrastive batch of each stream, padded, and how many pairs it has: at, model, everyone, n."""
        found = [
            contrastive_batch(mine, data.seen, data.pairs, self.n_random, generator)
            for mine, data, generator in zip(rows, self.data, self.generators, strict=True)
        ]
        padded = [nn.utils.rnn.pad_sequence(part, batch_first=True) for part in zip(*found, strict=True)]
        return *padded, torch.tensor([len(at) for at, _, _ in found])

    def loss(self, rows: Tensor) -> Tensor:
        """Return Eq. (9), [T], on the contrastive batches of some queries, [S, B]."""
        at, model, everyone, n = self._drawn(rows)
        there = torch.arange(at.shape[1]) < n[:, None]
        feature, query = (_taken(x, everyone) for x in (self.feature, self.query))
        labels = [data.target[mine[a], m] for data, mine, a, m in zip(self.data, everyone, at, model, strict=True)]
        anchors = torch.stack([data.is_anchor[mine] for data, mine in zip(self.data, model, strict=True)])
        self.network.dropout.counts = n.tolist()
        logits, adapted = self.network(feature, query, at[self.stream], model[self.stream])
        target = torch.stack(labels)[self.stream]
        cell = functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)
        counted = there[self.stream] & (anchors[self.stream] | ~self.anchors_only[:, None])
        prediction = (cell * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
        own = there & (at < rows.shape[1])
        if self.losses == {"none"}:
            contrast = torch.zeros(())
        elif "sample-sample" in self.losses:
            contrast = self._sample_sample(rows, at, own, adapted)
        else:
            contrast = self._contrast(rows, at, model, own, logits.softmax(dim=2) @ self.levels, n)
        return combined(prediction, contrast, self.weight)

    def _contrast(self, rows: Tensor, at: Tensor, model: Tensor, own: Tensor, quality: Tensor, n: Tensor) -> Tensor:
        """Eq. (8), or one of its parts."""
        parts = [
            (data.anchor_quality[mine], data.anchor_seen[mine], data.seen[mine] & ~data.is_anchor)
            for data, mine in zip(self.data, rows, strict=True)
        ]
        anchor, anchor_seen, sparse_seen = (torch.stack(part)[self.stream] for part in zip(*parts, strict=True))
        n_cells = sparse_seen[0].numel()
        # Pairs of D^R and padding have no cell of their own: all of them share one more, which is cut off.
        cell = torch.where(own, at * sparse_seen.shape[2] + model, n_cells)[self.stream]
        dense = quality.new_zeros(len(quality), n_cells + 1).scatter(1, cell, quality)
        sparse = dense[:, :-1].view(sparse_seen.shape)
        options = {"pairing": self.pairing, "batch_size": n[self.stream]}
        pulled = anchor_to_sparse(anchor, anchor_seen, sparse, sparse_seen, self.margin, **options)
        return self.alpha * pulled + self.spread * diversity(sparse, sparse_seen, self.margin)

    def _sample_sample(self, rows: Tensor, at: Tensor, own: Tensor, adapted: Tensor) -> Tensor:
        """RouterDC's loss on the queries' V_f, each averaged over the LLMs observed on it."""
        drawn = []
        for mine, place, ours, data, generator in zip(rows, at, own, self.data, self.generators, strict=True):
            present, inverse = place[ours].unique(return_inverse=True)
            keys = torch.rand(len(present), len(present), generator=generator)
            drawn.append((present, inverse, keys, data.groups[mine[present]]))
        found = []
        for lesson, place, vectors in zip(self.lessons, self.stream.tolist(), adapted, strict=True):
            present, inverse, keys, groups = drawn[place]
            if not len(present):
                found.append(vectors.new_zeros(()))
                continue
            mine = vectors[own[place]]
            count = torch.bincount(inverse, minlength=len(present))[:, None]
            mean = mine.new_zeros(len(present), mine.shape[1]).index_add(0, inverse, mine) / count
            apart = pairs(groups, keys, lesson.router.n_negatives)
            found.append(lesson.router.alpha * query_query(mean, *apart).mean())
        return torch.stack(found)


class Dropout:
    """Dropout of T networks, those of one stream with the same mask.

    Attributes
    ----------
    counts : list of int, [S]
        How many rows of a batch each stream has; what pads it is not dropped, and draws nothing.
    """

    def __init__(self, rates: Sequence[float], lessons: Sequence[Lesson], stream: Tensor):
        self.rates = list(rates)
        self.generators = [lesson.dropout for lesson in lessons]
        self.counts: list[int] = []
        # The networks of a stream stand side by side.
        ends = torch.bincount(stream, minlength=len(self.rates)).cumsum(0).tolist()
        self.members = [slice(*ends) for ends in zip([0, *ends], ends, strict=False)]

    def __call__(self, x: Tensor) -> Tensor:
        """Drop entries of x [T, P, ...]."""
        return _Dropped.apply(x, self._masks(x), self.members, None) if any(self.rates) else x

    def rectified(self, x: Tensor) -> Tensor:
        """Drop entries of max(x, 0)."""
        return _Dropped.apply(x, self._masks(x), self.members, self.rates) if any(self.rates) else x.relu()

    def _masks(self, x: Tensor) -> list[Tensor]:
        """Return what the entries of x are multiplied by in each stream, [its rows, ...]."""
        masks = []
        for count, rate, generator in zip(self.counts, self.rates, self.generators, strict=True):
            # 16 random bits decide on an entry: bernoulli_, which draws 64, takes four times as long.
            mask = x.new_empty(count, *x.shape[2:])
            drawn = torch.empty(-(-mask.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None, generator=generator)
            last = max(round((1 - rate) * (1 << 16)), 1) - 1 - (1 << 15)
            torch.le(drawn.view(torch.int16)[: mask.numel()].view(mask.shape), last, out=mask)
            masks.append(mask.div_(1 - rate))
        return masks


class _Dropped(torch.autograd.Function):
    """x, or max(x, 0), times masks; what is kept for the gradient is no more than the masks, or the output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, masks: list[Tensor], members: list[slice], rates: list[float] | None) -> Tensor:
        out = x.clone() if rates is None else x.relu()
        for mask, mine in zip(masks, members, strict=True):
            out[mine, : len(mask)] *= mask
        ctx.members, ctx.rates = members, rates
        if rates is None:
            ctx.masks = masks
        else:
            ctx.counts = [len(mask) for mask in masks]
            ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None]:
        if ctx.rates is None:
            found = slope.clone()
            for mask, mine in zip(ctx.masks, ctx.members, strict=True):
                found[mine, : len(mask)] *= mask
            return found, None, None, None
        found = torch.ops.aten.threshold_backward(slope, *ctx.saved_tensors, 0)
        for count, rate, mine in zip(ctx.counts, ctx.rates, ctx.members, strict=True):
            found[mine, :count] *= torch.ones(()).div_(1 - rate)
        return found, None, None, None


class SideBySide:
    """T R-adapters of one shape that compute as one: `RAdapter.prepare` and `forward`, in training."""

    def __init__(self, lessons: Sequence[Lesson], stream: Tensor, dropout: Dropout):
        self.lessons, self.stream, self.dropout = lessons, stream, dropout
        self.adapters = [lesson.adapter for lesson in lessons]
        first = lessons[0]
        self.variant, self.tokens, self.heads = first.adapter.variant, first.adapter.tokens, first.router.heads
        states = [adapter.state_dict() for adapter in self.adapters]
        self.state = {name: self._stack(name, [state[name] for state in states]) for name in states[0]}
        self.new = None if first.new is None else torch.stack([lesson.new.detach() for lesson in lessons])
        for tensor in self.parameters():
            tensor.requires_grad_()

    @staticmethod
    def _turned(name: str, tensor: Tensor) -> bool:
        """Whether a tensor of one adapter is a matrix that rows are multiplied by: kept as inputs by outputs."""
        return tensor.ndim == 2 and name not in ("ids", "vectors")

    def _stack(self, name: str, tensors: Sequence[Tensor]) -> Tensor:
        found = torch.stack(list(tensors))
        if self._turned(name, tensors[0]):
            return found.mT.contiguous()
        return found[:, None] if tensors[0].ndim == 1 else found

    def parameters(self) -> list[Tensor]:
        """Return what is trained."""
        trained = [] if self.lessons[0].frozen else list(self.state.values())
        if self.new is None:
            return trained
        # The pool's own vectors enter no loss when those of new LLMs stand in their place.
        return [self.new, *(t for name, t in self.state.items() if trained and name not in ("ids", "vectors"))]

    def train(self) -> None:
        """Do nothing: what is dropped is a matter of the lesson (`Lesson.frozen`)."""

    def eval(self) -> None:
        """Do nothing, as `train`."""

    def hand_back(self) -> None:
        """Copy the state of each network into its adapter, or its new vectors into their place."""
        with torch.no_grad():
            for place, (lesson, adapter) in enumerate(zip(self.lessons, self.adapters, strict=True)):
                if lesson.new is not None:
                    lesson.new.copy_(self.new[place])
                if not lesson.frozen:
                    for name, own in adapter.state_dict().items():
                        mine = self.state[name][place]
                        own.copy_(mine.mT if self._turned(name, own) else mine.view_as(own))
                adapter.eval()

    def __call__(self, feature: Tensor, query: Tensor, at: Tensor, model: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [T, P, C] and V_f [T, P, H] of pairs of a query (a row of [S, R, *]) and an LLM, [T, P]."""
        stream = self.stream
        feature, query = (x if len(x) == len(stream) else x.index_select(0, stream) for x in (feature, query))
        adapted = self._path(query, at, model)
        ahead = self._linear("fusion.0", feature, end=feature.shape[2])
        hidden = _taken(ahead, at) + self._linear("fusion.0", adapted, start=feature.shape[2], bias=False)
        return self._linear("classify", self._rest("fusion", hidden)), adapted

    def _path(self, query: Tensor, at: Tensor, model: Tensor) -> Tensor:
        identity = self.new
        if identity is None:
            own = self.state["ids"]
            identity = torch.cat([self.state["vectors"], own], dim=2) if self.variant == "emb" else own
        if self.variant == "att":
            return self._attention(query, identity, at, model)
        if self.variant == "emb":
            query = self._linear("project", query)
        width = query.shape[2]
        ahead = self._linear("path.0", query, end=width)
        told = self._linear("path.0", identity, start=width, bias=False)
        return self._rest("path", _taken(ahead, at) + _taken(told, model))

    def _linear(self, name: str, x: Tensor, start: int = 0, end: int | None = None, *, bias: bool = True) -> Tensor:
        """Apply a linear layer, or the part of it that reads the inputs from `start` to `end`."""
        weight = self.state[f"{name}.weight"][:, start:end]
        return torch.baddbmm(self.state[f"{name}.bias"], x, weight) if bias else torch.bmm(x, weight)

    def _rest(self, name: str, x: Tensor) -> Tensor:
        """Apply all of a sequence of `adapter._layers` but its first linear layer."""
        x = self.dropout.rectified(x)
        place = 3
        while f"{name}.{place}.weight" in self.state:
            x = self.dropout.rectified(self._linear(f"{name}.{place}", x))
            place += 3
        return x

    def _attention(self, query: Tensor, identity: Tensor, at: Tensor, model: Tensor) -> Tensor:
        if self.tokens == 1:
            width = query.shape[2]
            ahead = self._linear("path.enter", query, end=width)
            told = self._linear("path.enter", identity, start=width, bias=False)
            state = (_taken(ahead, at) + _taken(told, model))[:, :, None]
        else:
            ahead = self._linear("path.project", query) if "path.project.weight" in self.state else query
            told = self._linear("path.enter", identity)
            state = torch.stack([_taken(ahead, at), _taken(told, model)], dim=2)
        layer = 0
        while f"path.encoder.{layer}.linear1.weight" in self.state:
            state = self._encoder_layer(f"path.encoder.{layer}", state)
            layer += 1
        return self._linear("path.leave", state.mean(dim=2))

    def _encoder_layer(self, name: str, state: Tensor) -> Tensor:
        """nn.TransformerEncoderLayer, the norms behind the residual sums, on tokens [T, P, L, E]."""
        shape = state.shape
        x = state.flatten(1, 2)
        weight, bias = (self.state[f"{name}.self_attn.in_proj_{part}"] for part in ("weight", "bias"))
        q, k, v = torch.baddbmm(bias, x, weight).view(*shape[:3], 3, self.heads, -1).unbind(dim=3)
        # Products of single tokens, as there are two: a matrix product for every pair and head takes longer.
        scores = torch.einsum("tplhd,tpmhd->tphlm", q, k) * q.shape[-1] ** -0.5
        weights = self.dropout(scores.softmax(dim=-1))
        read = torch.einsum("tphlm,tpmhd->tplhd", weights, v).reshape(x.shape)
        found = self.dropout(self._linear(f"{name}.self_attn.out_proj", read).view(shape)).view(x.shape)
        x = self._norm(f"{name}.norm1", x + found)
        hidden = self._linear(f"{name}.linear1", x)
        hidden = self.dropout.rectified(hidden.view(*shape[:3], -1)).flatten(1, 2)
        found = self.dropout(self._linear(f"{name}.linear2", hidden).view(shape)).view(x.shape)
        return self._norm(f"{name}.norm2", x + found).view(shape)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:]) * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]


def _taken(x: Tensor, rows: Tensor) -> Tensor:
    """Return some rows of each of T matrices, [T, R, *] and [T, P] to [T, P, *]."""
    # One index over all matrices' rows: a quarter of the time that a pair of indices takes.
    starts = torch.arange(len(x))[:, None] * x.shape[1]
    return x.flatten(0, 1).index_select(0, (rows + starts).flatten()).view(*rows.shape, -1)


def contrastive_batch(
    rows: Tensor, seen: Tensor, pairs: Tensor, n_random: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the (query, LLM) pairs of B_c = (D_i^A, D_i^S, D^R) for every query i of a batch (Section 4.2).

    Parameters
    ----------
    rows : LongTensor, [B]
        The queries.
    seen : BoolTensor, [N, M]
        Which labels exist.
    pairs : LongTensor, [P, 2]
        All of them, as (query, LLM), in ascending order.
    n_random
        Size of D^R, drawn uniformly with replacement from the pairs of queries outside the batch.
    generator

    Returns
    -------
    at : LongTensor, [p]
        Place of each pair's query in `everyone`; below B for D_i^A and D_i^S.
    model : LongTensor, [p]
    everyone : LongTensor, [B + n_random]
        The queries of the batch, then those of D^R; without the latter when no query is outside the batch.
    """
    at, model = seen[rows].nonzero(as_tuple=True)
    n_outside = len(pairs) - len(at)
    if not (n_random and n_outside):
        return at, model, rows
    drawn = torch.randint(n_outside, (n_random,), generator=generator)
    # The k-th pair outside comes after as many pairs of the batch as lie before it: those are passed over.
    count, inside = seen.sum(dim=1), rows.sort().values
    before = functional.pad(count[inside].cumsum(0), (1, 0))
    outside_before = (count.cumsum(0) - count)[inside] - before[:-1]
    drawn = pairs[drawn + before[torch.searchsorted(outside_before, drawn, right=True)]]
    places = torch.arange(len(rows), len(rows) + n_random)
    return torch.cat([at, places]), torch.cat([model, drawn[:, 1]]), torch.cat([rows, drawn[:, 0]])
