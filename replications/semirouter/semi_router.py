"""SemiRouter: a backbone for the anchors, an R-adapter for LLMs with sparse data (SemiRouter, Sections 4.1 to 4.3).

torch is imported only when a router is trained or asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np

from replications.semirouter.backbone import (
    Backbone,
    LevelRouter,
    check_rates,
    quality_levels,
    random_state,
    seeded,
    to_classes,
)
from replications.semirouter.losses import PAIRINGS, WEIGHTINGS
from replications.semirouter.sparse import check_anchors
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError, suggest
from routebook.routers import KMeans, best_llm, check_count
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
        return fit_many([self], [(benchmark, embeddings)])[0]

    def _lesson(self, benchmark: RoutingBenchmark, embeddings: np.ndarray, known: dict[Any, Any]) -> Any:
        """Check everything, make the adapter and return what it is to learn; `known` has the data of others."""
        from replications.semirouter.adapter import RAdapter
        from replications.semirouter.side_by_side import Lesson

        given = embeddings
        embeddings = self._check_fit(benchmark, embeddings)
        self._check_parameters(len(benchmark))
        check_anchors(self.anchors, benchmark.models, "SemiRouter")
        self.levels_ = quality_levels(benchmark.quality)
        # It depends on the anchors' labels and the seed, which variants have in common.
        sizes = (self.backbone_width, self.backbone_epochs, self.backbone_lr, self.batch_size, self.dropout, self.seed)
        text = (self.finetune_encoder, self.encoder, self.max_length)
        key = (id(benchmark.quality), id(given), id(self.backbone), *self.anchors, sizes, text)
        if key not in known:
            known[key] = self._backbone(benchmark, embeddings)
        self.backbone_ = known[key]
        self.anchors_ = list(self.backbone_.models_)
        self.models_ = list(benchmark.models)
        self._rows = {model: row for row, model in enumerate(self.models_)}
        self._query_width = embeddings.shape[1]
        data = self._training_data(benchmark, embeddings, (id(benchmark.quality), id(given)), known)
        joined = data.feature.shape[1] + data.query.shape[1]
        self.n_features_in_ = joined if self.backbone_.finetune_encoder else embeddings.shape[1]
        sizes = ("variant", "hidden", "fusion", "dropout", "layers", "heads", "feedforward", "model_width", "tokens")
        options = {name: getattr(self, name) for name in sizes}
        widths = (self.backbone_.feature_width_, self._query_width)
        with seeded(self.seed):
            self.adapter_ = RAdapter(len(self.models_), *widths, len(self.levels_), **options)
            lesson = Lesson(self, self.adapter_, data, random_state(), self.epochs, self.lr)
        self.adapter_.requires_grad_(False)
        self.n_parameters_ = sum(p.numel() for p in self.adapter_.parameters())
        return lesson

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

    def _training_data(
        self, benchmark: RoutingBenchmark, embeddings: np.ndarray, problem: tuple[int, int], known: dict[Any, Any]
    ) -> Any:
        grouped = None
        if self.loss == "sample-sample":
            grouped = (self.n_groups, self.seed)
            clusters = KMeans(n_clusters=self.n_groups, seed=self.seed)
            self._groups = clusters.fit(benchmark, self.backbone_.standardise(embeddings))
        key = (*problem, id(self.backbone_), grouped)
        if key not in known:
            visible = self.backbone_.embed(benchmark.prompts) if self.backbone_.finetune_encoder else embeddings
            known[key] = self._data(benchmark, self._joined(visible, embeddings))
        return known[key]

    def _data(self, benchmark: RoutingBenchmark, features: np.ndarray) -> Any:
        """Return some prompts and LLMs as tensors, from their `features`."""
        import torch

        from replications.semirouter.side_by_side import Data

        backbone, width = self.backbone_, self.backbone_.feature_width_
        classes = to_classes(benchmark.quality, self.levels_)
        seen = torch.tensor(classes >= 0)
        heads = [backbone.models_.index(model) for model in self.anchors_]
        anchor_quality = backbone.probabilities_from(features[:, :width])[:, heads] @ np.array(self.levels_)
        # New LLMs are compared with what the backbone says of every anchor; in `fit` an anchor needs a label.
        columns = [benchmark.models.index(m) for m in self.anchors_ if m in benchmark.models]
        groups = None
        if self.loss == "sample-sample":
            groups = torch.tensor(self._groups.assign(features[:, width:]))
        return Data(
            feature=torch.tensor(features[:, :width]),
            query=torch.tensor(features[:, width:]),
            seen=seen,
            target=torch.tensor(classes.clip(0)),
            is_anchor=torch.tensor([model in self.anchors_ for model in benchmark.models]),
            anchor_quality=torch.tensor(anchor_quality, dtype=torch.float32),
            anchor_seen=seen[:, columns] if columns else torch.ones(anchor_quality.shape, dtype=torch.bool),
            groups=groups,
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
        return add_many([self], [(benchmark, embeddings)])[0]

    def _joining(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Any:
        """Check everything and return what the vectors of the benchmark's LLMs are to learn."""
        from torch import nn

        from replications.semirouter.side_by_side import Lesson

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
        start = self.adapter_.identity[[self._rows[model] for model in self.models_]].mean(dim=0)
        new = nn.Parameter(start.repeat(len(benchmark.models), 1))
        epochs = -(-self.add_steps // -(-len(features) // self.batch_size))
        alone = self.add_trains == "vector"
        with seeded(self.seed):
            options = {"epochs": epochs, "lr": self.add_lr if alone else self.lr, "new": new, "frozen": alone}
            return Lesson(self, self.adapter_, self._data(benchmark, features), random_state(), **options)

    def _join(self, models: Sequence[str], vectors: Any) -> None:
        """Take in LLMs with their vectors."""
        for model, vector in zip(models, vectors.detach(), strict=True):
            self._put_vector(model, vector)
        self._places(models)

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


def fit_many(
    routers: Sequence[SemiRouter], problems: Sequence[tuple[RoutingBenchmark, np.ndarray]]
) -> list[SemiRouter]:
    """Fit routers, each on a problem of its own, as their `fit` does; those of equal shape side by side.

    On one thread this takes a half to a third of the time of training them one by one, and less where they differ in
    the weights of their losses alone, as these share their batches. Only rounding differs.

    Parameters
    ----------
    routers
        Unfitted.
    problems
        Benchmark and embeddings [N, D] of each; the same objects where they are the same.

    Returns
    -------
    list of SemiRouter
        The same objects, fitted, in the order given.

    Raises
    ------
    UserError
        As `SemiRouter.fit`, before any R-adapter is trained.
    """
    from replications.semirouter.side_by_side import teach

    known: dict[Any, Any] = {}
    teach([router._lesson(*problem, known) for router, problem in zip(routers, problems, strict=True)])
    return list(routers)


def add_many(
    routers: Sequence[SemiRouter], problems: Sequence[tuple[RoutingBenchmark, np.ndarray]]
) -> list[SemiRouter]:
    """Let LLMs join routers as their `add_models` does, those of equal shape side by side; arguments as in `fit_many`.

    Raises
    ------
    UserError
        As `SemiRouter.add_models`, before any vector is trained.
    """
    from replications.semirouter.side_by_side import teach

    lessons = [router._joining(*problem) for router, problem in zip(routers, problems, strict=True)]
    teach(lessons)
    for router, (benchmark, _), lesson in zip(routers, problems, lessons, strict=True):
        router._join(benchmark.models, lesson.new)
    return list(routers)


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
