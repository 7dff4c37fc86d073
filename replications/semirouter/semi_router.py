"""SemiRouter: a backbone for the anchors, an R-adapter for LLMs with sparse data (SemiRouter, Sections 4.1 to 4.3).

torch is imported only when a router is trained or asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np

from replications.semirouter.backbone import (
    WEIGHT_DECAY,
    Backbone,
    LevelRouter,
    check_rates,
    quality_levels,
    seeded,
    to_classes,
)
from replications.semirouter.losses import PAIRINGS, WEIGHTINGS, anchor_to_sparse, combined, diversity
from replications.semirouter.sparse import check_anchors
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError, suggest
from routebook.routers import KMeans, best_llm, check_count, train_with_adam
from routebook.threads import one_thread

VARIANTS = ("mlp", "emb", "att")
LOSSES = ("full", "anchor", "div", "sample-sample", "none")
SUPERVISED = ("all", "anchors")
ADD_TRAINS = ("vector", "adapter")
CHOICES = {
    "variant": VARIANTS,
    "loss": LOSSES,
    "weighting": WEIGHTINGS,
    "pairing": PAIRINGS,
    "supervise": SUPERVISED,
    "add_trains": ADD_TRAINS,
    "tokens": (1, 2),
}
# The weight of quality with which Eq. (10) gives Table 3; the equation prints 0.6 (SR-1).
SCORE_WEIGHT = 0.613
PROMPTS_AT_ONCE = 2048

# What the quick profile trains. Small networks behind frozen features learn from scratch in a few hundred steps at
# this rate; the paper's 2 epochs at 1e-5 are meant for the end of an encoder's fine-tuning.
QUICK: dict[str, Any] = {
    "hidden": (128, 64),
    "fusion": (128, 64),
    "layers": 2,
    "heads": 4,
    "feedforward": 128,
    "model_width": 64,
    "epochs": 10,
    "lr": 1e-3,
    "batch_size": 64,
    "n_random": 64,
    "backbone_width": 128,
    "backbone_epochs": 10,
    "backbone_lr": 1e-3,
}


@dataclass(eq=False, repr=False, kw_only=True)
class SemiRouter(LevelRouter):
    """A router whose anchors are predicted by a frozen backbone, and every other LLM by the R-adapter.

    Adding an LLM trains its identity vector and nothing else (see `add_trains`), removing it drops the vector: the
    predictions for all other LLMs stay the same bit for bit.

    Parameters
    ----------
    anchors
        Names of the LLMs with full data.
    variant : {"mlp", "emb", "att"}
        Of the adaptive path (Appendix C.3); "att" is what the paper calls RadialRouter.
    loss : {"full", "anchor", "div", "sample-sample", "none"}
        L_c: Eq. (8); its first part alone; its second alone (Table 3); RouterDC's sample-sample loss on V_f in place
        of Eq. (5), which the paper calls RouterDC; or cross-entropy only.
    alpha
        Weight of the anchor-to-sparse loss in Eq. (5), or of the sample-sample loss.
    lam
        lambda of Eq. (9), in [0, 1].
    weighting : {"eq9", "algorithm-1"}
        Whether lambda weighs the contrastive loss or, as line 12 of Algorithm 1 has it, cross-entropy (SR-15).
    margin
        Of Eq. (4), and delta of Eq. (7) ("same as margin"); no value is printed (7.1, #8).
    pairing : {"query", "batch"}
        Normalisation of Eq. (5): see `losses.anchor_to_sparse` (#10).
    supervise : {"all", "anchors"}
        Whose labels enter cross-entropy: of all observed pairs of a contrastive batch (Algorithm 1), or "on anchors"
        as below Eq. (9), with which the labels of the other LLMs enter no loss at all (SR-17; #9).
    n_random
        Size of D^R: (query, LLM) pairs of queries outside the batch, which add to cross-entropy (#11).
    epochs, lr, batch_size
        Of AdamW; a batch is this many queries, each with its D_i^A and D_i^S (#12). The defaults are the paper's.
    hidden, fusion, dropout, layers, heads, feedforward, model_width, tokens
        See `adapter.RAdapter`.
    n_groups, n_negatives
        Of the sample-sample loss: groups by K-means on V_q, and queries of other groups. RouterDC's 8 and 3.
    add_steps, add_lr
        Training of a new LLM's vector in `add_models` (not given in the paper).
    add_trains : {"vector", "adapter"}
        What `add_models` trains: a new LLM's vector; or with it, at the rate `lr`, the layers that all LLMs share, from
        the new labels alone. The latter is there to show what is then forgotten.
    seed
    backbone : Backbone, optional
        One fitted on the same anchors and prompts, to be used again; the parameters `backbone_...` are then not
        looked at. None: trained by `fit`.
    backbone_width, backbone_epochs, backbone_lr, finetune_encoder, encoder, max_length
        Of that `Backbone`. With `finetune_encoder`, V_b is the trained encoder's pooled output and V_q the embedding
        given; then ask `predict_quality(router.embed(prompts, embeddings))`.

    Attributes
    ----------
    anchors_ : list of str
    backbone_ : Backbone
    adapter_ : adapter.RAdapter
    loss_ : ndarray, [epochs]
        Mean total loss, Eq. (9).
    n_parameters_ : int
        Trained parameters of the R-adapter.

    Notes
    -----
    An LLM without any label is refused by `fit` and `add_models`: nothing tells its vector from any other. The anchors
    have identity vectors too, and their labels train the layers that all LLMs share; their q in Eq. (4) is the frozen
    backbone's, as Section 4.2 has it.
    """

    dynamic = True

    anchors: Sequence[str] = ()
    variant: Literal["mlp", "emb", "att"] = "emb"
    loss: Literal["full", "anchor", "div", "sample-sample", "none"] = "full"
    alpha: float = 0.3
    lam: float = 0.5
    weighting: Literal["eq9", "algorithm-1"] = "eq9"
    margin: float = 0.1
    pairing: Literal["query", "batch"] = "query"
    supervise: Literal["all", "anchors"] = "all"
    n_random: int = 16
    epochs: int = 2
    lr: float = 1e-5
    batch_size: int = 16
    hidden: tuple[int, ...] = (512, 256)
    fusion: tuple[int, ...] = (1024, 512)
    dropout: float = 0.1
    layers: int = 4
    heads: int = 8
    feedforward: int = 2048
    model_width: int | None = None
    tokens: Literal[1, 2] = 2
    n_groups: int = 8
    n_negatives: int = 3
    add_steps: int = 200
    add_lr: float = 1e-2
    add_trains: Literal["vector", "adapter"] = "vector"
    seed: int = 0
    backbone: Backbone | None = field(default=None, repr=False)
    backbone_width: int = 768
    backbone_epochs: int = 20
    backbone_lr: float = 5e-5
    finetune_encoder: bool = False
    encoder: str = "minilm"
    max_length: int = 512

    # --- learning ----------------------------------------------------------------------------------------------------

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Train the backbone on the anchors, then the R-adapter on all labels there are: Algorithm 1.

        Parameters
        ----------
        benchmark
            Training prompts; NaN = not observed (see `sparse.sparsify`).
        embeddings : ndarray, [N, D]
            V_q, one a prompt.

        Raises
        ------
        UserError
            Before any training: a parameter out of its range, no anchor or one that is not in the pool, an LLM
            without any label, a quality outside [0, 1], an encoder that cannot be loaded, a backbone of other anchors.
        """
        from replications.semirouter.adapter import RAdapter

        embeddings = self._check_fit(benchmark, embeddings)
        self._check_parameters(len(benchmark))
        check_anchors(self.anchors, benchmark.models, "SemiRouter")
        self.levels_ = quality_levels(benchmark.quality)
        self.backbone_ = self._backbone(benchmark, embeddings)
        self.anchors_ = list(self.backbone_.models_)
        self.models_ = list(benchmark.models)
        self._rows = {model: row for row, model in enumerate(self.models_)}
        self._query_width = embeddings.shape[1]
        visible = self.backbone_.embed(benchmark.prompts) if self.backbone_.finetune_encoder else embeddings
        features = self._joined(visible, embeddings)
        self.n_features_in_ = features.shape[1] if self.backbone_.finetune_encoder else embeddings.shape[1]
        sizes = ("variant", "hidden", "fusion", "dropout", "layers", "heads", "feedforward", "model_width", "tokens")
        options = {name: getattr(self, name) for name in sizes}
        with seeded(self.seed) as generator:
            self.adapter_ = RAdapter(
                len(self.models_), self.backbone_.feature_width_, self._query_width, len(self.levels_), **options
            )
            self._find_groups(benchmark, features)
            batch_loss = self._objective(features, benchmark, lambda: self.adapter_.identity, generator)
            self.loss_ = self._train(self.adapter_, batch_loss, len(features), self.epochs, self.lr, generator)
        self.adapter_.requires_grad_(False)
        self.n_parameters_ = sum(p.numel() for p in self.adapter_.parameters())
        return self

    def _check_choices(self) -> None:
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                near = suggest(value, known) if isinstance(value, str) else ""
                raise UserError(f"SemiRouter: {name} is {value!r}, expected one of {', '.join(map(repr, known))}{near}")

    def _check_parameters(self, n_prompts: int) -> None:
        self._check_choices()
        for name in ("epochs", "batch_size", "layers", "heads", "feedforward", "n_negatives", "add_steps"):
            check_count(self, name, getattr(self, name))
        if self.model_width is not None:
            check_count(self, "model_width", self.model_width)
        if self.loss == "sample-sample":
            check_count(self, "n_groups", self.n_groups, most=n_prompts, of="training prompts")
        if isinstance(self.n_random, bool) or not isinstance(self.n_random, int) or self.n_random < 0:
            raise UserError(f"SemiRouter: n_random is {self.n_random!r}, expected a whole number >= 0")
        check_rates(self, ("lr", "add_lr", "margin"), ("alpha", "lam"))
        if self.lam > 1:
            raise UserError(f"SemiRouter: lam is {self.lam!r}, expected a number in [0, 1]: Eq. (9) has 1 - lambda")
        for name, length in (("hidden", None), ("fusion", 2)):
            widths = getattr(self, name)
            if not widths or (length and len(widths) != length):
                raise UserError(f"SemiRouter: {name} is {widths!r}, expected {length or 'one or more'} widths")
            for width in widths:
                if isinstance(width, bool) or not isinstance(width, int | np.integer) or width < 1:
                    raise UserError(f"SemiRouter: {name} is {widths!r}, expected whole numbers >= 1")

    def _backbone(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Backbone:
        given = self.backbone
        if given is None:
            backbone = Backbone(
                width=self.backbone_width,
                epochs=self.backbone_epochs,
                lr=self.backbone_lr,
                batch_size=self.batch_size,
                dropout=self.dropout,
                seed=self.seed,
                levels=self.levels_,
                finetune_encoder=self.finetune_encoder,
                encoder=self.encoder,
                max_length=self.max_length,
            )
            return backbone.fit(benchmark.subset(models=list(self.anchors)), embeddings)
        if not hasattr(given, "models_"):
            raise UserError("SemiRouter: the backbone given is not fitted; fit it on the anchors, or leave it out")
        found = (given.models_, given.levels_, len(given.shift_))
        expected = (list(self.anchors), self.levels_, embeddings.shape[1])
        if found != expected:
            raise UserError(
                "SemiRouter: the backbone given was fitted on LLMs, quality levels and embedding width "
                f"{found}, expected {expected}; fit one with levels={self.levels_} on these anchors"
            )
        return given

    def _find_groups(self, benchmark: RoutingBenchmark, features: np.ndarray) -> None:
        if self.loss == "sample-sample":
            clusters = KMeans(n_clusters=self.n_groups, seed=self.seed)
            self._groups = clusters.fit(benchmark, features[:, -self._query_width :])

    def _objective(
        self, features: np.ndarray, benchmark: RoutingBenchmark, identity: Callable[[], Any], generator: Any
    ) -> Callable[[Any], Any]:
        """Return Eq. (9) as a function of rows; `identity` gives the vectors of the benchmark's LLMs."""
        task = _Task(self, features, benchmark, generator)
        return lambda rows: task.loss(rows, identity())

    def _train(
        self, network: Any, batch_loss: Callable[[Any], Any], n: int, epochs: int, lr: float, generator: Any
    ) -> np.ndarray:
        return train_with_adam(
            network,
            batch_loss,
            n,
            epochs=epochs,
            lr=lr,
            batch_size=self.batch_size,
            generator=generator,
            weight_decay=WEIGHT_DECAY,
            label="SemiRouter",
        )

    # --- the pool changes --------------------------------------------------------------------------------------------

    def add_models(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Train an identity vector for every LLM of `benchmark`; backbone and all other vectors are frozen.

        The layers that LLMs share are frozen too, unless `add_trains` says otherwise.

        The objective is that of `fit` on the new LLMs' labels: their cross-entropy, Eq. (4) against the backbone's
        predictions for the anchors, which need no label here, and Eq. (7) among the new LLMs. A vector starts from the
        mean of those of the pool. A name that the adapter already knows is learned anew where it stands.

        Raises
        ------
        UserError
            When an LLM is an anchor, which lives in the backbone, or has no label; or as in `fit`.
        """
        import torch
        from torch import nn

        self._check_choices()
        embeddings = self._check_add(benchmark, embeddings)
        for model in benchmark.models:
            if model in self.anchors_:
                raise UserError(
                    f"SemiRouter: {model!r} is an anchor, which the backbone predicts; add_models takes other LLMs, "
                    "and fit trains a backbone anew"
                )
        labelled = ~np.isnan(benchmark.quality).all(axis=1)
        benchmark, features = benchmark.subset(labelled), self.features(embeddings)[labelled]
        to_classes(benchmark.quality, self.levels_)
        with seeded(self.seed) as generator:
            known = [self._rows[model] for model in self.models_]
            start = self.adapter_.identity[known].mean(dim=0)
            new = nn.Parameter(start.repeat(len(benchmark.models), 1))
            batch_loss = self._objective(features, benchmark, lambda: new, generator)
            epochs = -(-self.add_steps // -(-len(features) // self.batch_size))
            trained, lr = nn.ModuleList([nn.ParameterList([new])]), self.add_lr
            if self.add_trains == "adapter":
                trained.append(self.adapter_.requires_grad_(True))
                lr = self.lr
            self._train(trained, batch_loss, len(features), epochs, lr, generator)
        self.adapter_.requires_grad_(False)
        with torch.no_grad():
            for place, model in enumerate(benchmark.models):
                self._put_vector(model, new[place])
        self._places(benchmark.models)
        return self

    def _put_vector(self, model: str, vector: Any) -> None:
        import torch
        from torch import nn

        adapter = self.adapter_
        parts = {"ids": vector[-adapter.ids.shape[1] :]}
        if self.variant == "emb":
            parts["vectors"] = vector[: adapter.vectors.shape[1]]
        row = self._rows.get(model)
        for name, part in parts.items():
            table = getattr(adapter, name).detach()
            if row is None:
                table = torch.cat([table, part[None]])
            else:
                table[row] = part
            setattr(adapter, name, nn.Parameter(table, requires_grad=False))
        self._rows.setdefault(model, len(adapter.ids) - 1)

    def remove_models(self, models: Sequence[str]) -> Self:
        """Take LLMs out of the pool and drop their identity vectors; nothing is trained.

        An anchor can be removed as well: it is routed to no more, but what the backbone learned from it stays, since
        that is not in the R-adapter (SR-13). At least one anchor and one LLM must remain.

        Raises
        ------
        UserError
            When an LLM is not in the pool, or too few remain.
        """
        from torch import nn

        if not hasattr(self, "models_"):
            raise UserError("SemiRouter is not fitted; call fit(benchmark, embeddings) first")
        gone = [models] if isinstance(models, str) else list(models)
        for model in gone:
            if model not in self.models_:
                raise UserError(f"SemiRouter: {model!r} is not in the pool{suggest(model, self.models_)}")
        if not [model for model in self.anchors_ if model not in gone]:
            raise UserError(
                f"SemiRouter: without {', '.join(map(repr, self.anchors_))} no anchor is left to compare new LLMs "
                "with; keep one, or fit with other anchors"
            )
        kept = [row for model, row in self._rows.items() if model not in gone]
        for name in ("ids", "vectors") if self.variant == "emb" else ("ids",):
            setattr(self.adapter_, name, nn.Parameter(getattr(self.adapter_, name)[kept], requires_grad=False))
        self._rows = {model: row for row, model in enumerate(m for m in self._rows if m not in gone)}
        self.models_ = [model for model in self.models_ if model not in gone]
        self.anchors_ = [model for model in self.anchors_ if model not in gone]
        return self

    # --- inference (Section 4.3) -------------------------------------------------------------------------------------

    def embed(self, prompts: Sequence[str], embeddings: np.ndarray) -> np.ndarray:
        """Return [V_b | V_q] of prompts, [N, F + D], for a router with `finetune_encoder`; `embeddings` are V_q."""
        if not hasattr(self, "backbone_") or not self.backbone_.finetune_encoder:
            raise UserError("SemiRouter.embed needs a router fitted with finetune_encoder=True; else use routebook")
        return self._joined(self.backbone_.embed(prompts), embeddings)

    def features(self, embeddings: np.ndarray) -> np.ndarray:
        """Return [V_b | V_q], [N, F + D] float32: cached once a query, it serves every LLM.

        With `finetune_encoder` the embeddings are those of `embed`, the features themselves.
        """
        embeddings = self._check_width(embeddings)
        return embeddings if self.backbone_.finetune_encoder else self._joined(embeddings, embeddings)

    def _joined(self, visible: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
        return np.hstack([self.backbone_.features(visible), self.backbone_.standardise(embeddings)])

    def predict_probabilities(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the probability of every quality level, [N, M, C]: anchors by the backbone, others by the adapter."""
        return self.probabilities_from(self.features(embeddings))

    def probabilities_from(self, features: np.ndarray, models: Sequence[str] | None = None) -> np.ndarray:
        """Return the probabilities of the levels from cached `features`, [N, m, C], for some LLMs or all.

        Each LLM is a matrix product of its own on what is prepared once a query, so its numbers do not depend on
        which others are asked for.
        """
        import torch

        models = self.models_ if models is None else list(models)
        for model in models:
            if model not in self.models_:
                raise UserError(f"SemiRouter: {model!r} is not in the pool{suggest(model, self.models_)}")
        width = self.backbone_.feature_width_
        out = np.empty((len(features), len(models), len(self.levels_)))
        anchored = [place for place, model in enumerate(models) if model in self.anchors_]
        adapted = [place for place, model in enumerate(models) if model not in self.anchors_]
        if anchored:
            heads = [self.backbone_.models_.index(models[place]) for place in anchored]
            out[:, anchored] = self.backbone_.probabilities_from(features[:, :width])[:, heads]
        identity = self.adapter_.identity
        with torch.inference_mode(), one_thread():
            for start in range(0, len(features) if adapted else 0, PROMPTS_AT_ONCE):
                rows = slice(start, start + PROMPTS_AT_ONCE)
                part = torch.from_numpy(np.ascontiguousarray(features[rows]))
                prepared = self.adapter_.prepare(part[:, :width], part[:, width:])
                for place in adapted:
                    row = self._rows[models[place]]
                    logits = self.adapter_(prepared, identity[row : row + 1])[0]
                    out[rows, place] = logits.to(torch.float64).softmax(dim=1).numpy()
        return out

    def quality_from(self, features: np.ndarray, models: Sequence[str] | None = None) -> np.ndarray:
        """Return the expected quality from cached `features`, [N, m], for some LLMs or all."""
        return self.probabilities_from(features, models) @ np.array(self.levels_)


class _Task:
    """The training objective on some prompts and LLMs, with its data as tensors."""

    def __init__(self, router: SemiRouter, features: np.ndarray, benchmark: RoutingBenchmark, generator: Any):
        import torch

        self.router, self.generator = router, generator
        width = router.backbone_.feature_width_
        self.feature, self.query = torch.tensor(features[:, :width]), torch.tensor(features[:, width:])
        classes = to_classes(benchmark.quality, router.levels_)
        self.seen, self.target = torch.tensor(classes >= 0), torch.tensor(classes.clip(0))
        self.levels = torch.tensor(router.levels_, dtype=torch.float32)
        self.is_anchor = torch.tensor([model in router.anchors_ for model in benchmark.models])
        everyone = router.backbone_.models_
        heads = [everyone.index(model) for model in router.anchors_]
        self.anchor_quality = torch.tensor(
            router.backbone_.probabilities_from(features[:, :width])[:, heads] @ np.array(router.levels_),
            dtype=torch.float32,
        )
        # New LLMs are compared with what the backbone says of every anchor; in `fit` an anchor needs a label.
        columns = [benchmark.models.index(m) for m in router.anchors_ if m in benchmark.models]
        self.anchor_seen = self.seen[:, columns] if columns else torch.ones_like(self.anchor_quality, dtype=torch.bool)
        self.pairs = self.seen.nonzero()
        self.groups = None
        if router.loss == "sample-sample":
            self.groups = torch.tensor(router._groups.assign(features[:, width:]))

    def loss(self, rows: Any, identity: Any) -> Any:
        """Return Eq. (9) on the contrastive batches of some queries [B]."""
        import torch
        from torch.nn import functional

        router = self.router
        at, model, everyone = contrastive_batch(rows, self.seen, self.pairs, router.n_random, self.generator)
        feature, query = router.adapter_.prepare(self.feature[everyone], self.query[everyone])
        logits, adapted = router.adapter_((feature[at], query[at]), identity[model])
        cell = functional.cross_entropy(logits, self.target[everyone[at], model], reduction="none")
        if router.supervise == "anchors":
            cell = cell[self.is_anchor[model]]
        prediction = cell.sum() / max(len(cell), 1)
        own = at < len(rows)
        at, model = at[own], model[own]
        if router.loss == "none" or not len(at):
            return combined(prediction, torch.zeros(()), router.lam, router.weighting)
        if router.loss == "sample-sample":
            contrast = router.alpha * self._sample_sample(rows, at, adapted[own])
        else:
            quality = logits[own].softmax(dim=1) @ self.levels
            contrast = self._contrast(rows, at, model, quality, len(own))
        return combined(prediction, contrast, router.lam, router.weighting)

    def _contrast(self, rows: Any, at: Any, model: Any, quality: Any, batch_size: int) -> Any:
        """Eq. (8), or one of its parts."""
        router = self.router
        sparse_seen = self.seen[rows] & ~self.is_anchor
        sparse = quality.new_zeros(sparse_seen.shape).index_put((at, model), quality)
        total = quality.new_zeros(())
        if router.loss in ("full", "anchor"):
            anchor, seen = self.anchor_quality[rows], self.anchor_seen[rows]
            options = {"pairing": router.pairing, "batch_size": batch_size}
            total = router.alpha * anchor_to_sparse(anchor, seen, sparse, sparse_seen, router.margin, **options)
        if router.loss in ("full", "div"):
            total = total + diversity(sparse, sparse_seen, router.margin)
        return total

    def _sample_sample(self, rows: Any, at: Any, adapted: Any) -> Any:
        """RouterDC's loss on the queries' V_f, each averaged over the LLMs observed on it."""
        import torch

        from routebook.contrastive import pairs, query_query

        present, place = at.unique(return_inverse=True)
        count = torch.zeros(len(present)).index_add(0, place, torch.ones(len(place)))
        mean = adapted.new_zeros(len(present), adapted.shape[1]).index_add(0, place, adapted) / count[:, None]
        keys = torch.rand(len(present), len(present), generator=self.generator)
        drawn = pairs(self.groups[rows[present]], keys, self.router.n_negatives)
        return query_query(mean, *drawn).mean()


def contrastive_batch(rows: Any, seen: Any, pairs: Any, n_random: int, generator: Any) -> tuple[Any, Any, Any]:
    """Return the (query, LLM) pairs of B_c = (D_i^A, D_i^S, D^R) for every query i of a batch (Section 4.2).

    Parameters
    ----------
    rows : LongTensor, [B]
        The queries.
    seen : BoolTensor, [N, M]
        Which labels exist.
    pairs : LongTensor, [P, 2]
        All of them, as (query, LLM).
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
    import torch

    at, model = seen[rows].nonzero(as_tuple=True)
    outside = torch.ones(len(seen), dtype=torch.bool).index_fill(0, rows, False)
    others = pairs[outside[pairs[:, 0]]]
    if not (n_random and len(others)):
        return at, model, rows
    drawn = others[torch.randint(len(others), (n_random,), generator=generator)]
    places = torch.arange(len(rows), len(rows) + n_random)
    return torch.cat([at, places]), torch.cat([model, drawn[:, 1]]), torch.cat([rows, drawn[:, 0]])


def route(
    quality_hat: np.ndarray,
    cost: np.ndarray,
    rule: Literal["quality", "score"] = "quality",
    weight: float = SCORE_WEIGHT,
) -> np.ndarray:
    """Return the LLM chosen for each query, [N]: "the most cost-effective model with the highest predicted quality".

    Parameters
    ----------
    quality_hat : ndarray, [N, M]
        NaN = never routed there.
    cost : ndarray, [M] or [N, M]
    rule : {"quality", "score"}
        "quality": the highest estimate, of equals the cheaper LLM, then the first. "score": the highest
        `weight` x quality - cost, Eq. (10) a query, with quality in [0, 1] and the cost in the benchmark's unit.
    weight

    Returns
    -------
    ndarray of int, [N]
        -1 where no LLM has an estimate.
    """
    cost = np.broadcast_to(np.asarray(cost, dtype=float), quality_hat.shape)
    if rule not in ("quality", "score"):
        raise UserError(f"route: rule is {rule!r}, expected 'quality' or 'score'")
    return best_llm(quality_hat if rule == "quality" else weight * quality_hat - cost, cost)
