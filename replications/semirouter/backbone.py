"""The backbone: quality classes of every anchor model from the query alone (SemiRouter, Sections 4 and 4.1).

Fitted on all LLMs with full labels it is also Table 1's first row, BERT with augmentation. torch is imported only when
a backbone is trained or asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError
from routebook.routers import BaseRouter, check_count, observed_loss, train_with_adam
from routebook.text_encoder import TextEncoder
from routebook.threads import one_thread

GOOD_FAIR_BAD = (1.0, 0.5, 0.0)  # Section 3.1
WEIGHT_DECAY = 0.01  # torch's default for AdamW, of which the paper gives the name alone


def quality_levels(quality: np.ndarray) -> tuple[float, ...]:
    """Return the levels that qualities [N, M] have: (1, 0.5, 0), or (1, 0) where none is nearest to 0.5.

    Section 3.1: answers to multiple-choice questions are good or bad, never fair.
    """
    return GOOD_FAIR_BAD if (to_classes(quality) == 1).any() else (1.0, 0.0)


def to_classes(quality: np.ndarray, levels: Sequence[float] = GOOD_FAIR_BAD) -> np.ndarray:
    """Return the place in `levels` of the level nearest to each quality, [N, M] of int; -1 where it is NaN.

    Of two equally near levels the better one (0.75 is good), for levels from good to bad.

    Raises
    ------
    UserError
        When a quality lies outside [0, 1], where good, fair and bad have no meaning.
    """
    quality = np.asarray(quality, dtype=float)
    seen = ~np.isnan(quality)
    if seen.any() and (quality[seen].min() < 0 or quality[seen].max() > 1):
        wrong = quality[seen][(quality[seen] < 0) | (quality[seen] > 1)][0]
        raise UserError(
            f"a quality is {wrong:g}, expected numbers in [0, 1], of which 1 is good, 0.5 fair and 0 bad; rescale the "
            "benchmark's quality first"
        )
    distance = np.abs(np.nan_to_num(quality)[..., None] - np.asarray(levels))
    return np.where(seen, distance.argmin(axis=-1), -1)


def to_levels(quality: np.ndarray, levels: Sequence[float] = GOOD_FAIR_BAD) -> np.ndarray:
    """Return the level nearest to each quality, [N, M]; NaN stays NaN. See `to_classes`."""
    return np.where(np.isnan(quality), np.nan, np.asarray(levels)[to_classes(quality, levels)])


@contextmanager
def seeded(seed: int) -> Iterator[Any]:
    """Give weights and dropout their own random numbers, on one thread; yield a torch.Generator for batches."""
    import torch

    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield torch.Generator().manual_seed(seed)


def random_state() -> Any:
    """Return a torch.Generator that goes on where torch's own random numbers are."""
    import torch

    generator = torch.Generator()
    generator.set_state(torch.get_rng_state())
    return generator


class LevelRouter(BaseRouter):
    """A router that predicts, for every LLM, a probability for each quality level.

    Attributes
    ----------
    levels_ : tuple of float
        Qualities of the classes, from good to bad.
    """

    levels_: tuple[float, ...]

    def predict_probabilities(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the probability of every quality level, [N, M, C], in the order of `levels_`."""
        raise NotImplementedError

    def predict_quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the expected quality, [N, M]: the levels weighed by their probabilities (7.1, #7)."""
        return self.predict_both(embeddings)[0]

    def predict_labels(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the most probable level, [N, M], as a quality: 1, 0.5 or 0."""
        return self.predict_both(embeddings)[1]

    def predict_both(self, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return `predict_quality` and `predict_labels`, for which the probabilities are computed once."""
        probabilities, levels = self.predict_probabilities(embeddings), np.array(self.levels_)
        return probabilities @ levels, levels[probabilities.argmax(axis=2)]


@dataclass(eq=False, repr=False, kw_only=True)
class HeadRouter(BaseRouter):
    """A query encoder with a linear head for every LLM, trained with AdamW; what it learns is for subclasses to say.

    Parameters
    ----------
    width
        Dimensions of V_b, the feature the R-adapter reads. With a frozen encoder: of the hidden layer between its
        embeddings and the heads, which takes the place of BERT's fine-tuned pooled output.
    epochs, lr, batch_size, dropout
        Of AdamW on queries. The paper gives 20, 5e-5 and 16 for its baselines and nothing for the backbone (#20).
    seed
    finetune_encoder
        True: the encoder `encoder` is trained too and reads the prompts, cut to `max_length` tokens; V_b is its
        pooled output. The embeddings given to `fit` are then not looked at; ask `predict_quality(router.embed(
        prompts))`.
    encoder
        The paper's is bert-base-uncased; any name that `routebook.encoders.encoder` knows.

    Attributes
    ----------
    network_ : torch.nn.Module
    levels_ : tuple of float
        Quality classes that the labels have, from good to bad.
    loss_ : ndarray, [epochs]
    n_parameters_ : int
        Trained parameters, without those of the encoder.
    """

    width: int = 768
    epochs: int = 20
    lr: float = 5e-5
    batch_size: int = 16
    dropout: float = 0.1
    seed: int = 0
    finetune_encoder: bool = False
    encoder: str = "minilm"
    max_length: int = 512

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Train on the labels of `benchmark`; see `BaseRouter.fit`.

        Raises
        ------
        UserError
            Before any training: also when a quality lies outside [0, 1] or the encoder cannot be loaded.
        """
        from torch import nn

        embeddings = self._check_fit(benchmark, embeddings)
        self._check_parameters()
        self.levels_ = self._levels(benchmark.quality)
        self.models_ = list(benchmark.models)
        self.shift_ = embeddings.mean(axis=0, dtype=float)
        self.unit_ = float(np.sqrt(np.mean((embeddings - self.shift_) ** 2))) or 1.0
        with seeded(self.seed) as generator:
            trunk, enter = self._trunk(benchmark, embeddings)
            heads = nn.Linear(self.feature_width_, len(self.models_) * self._outputs)
            self.network_ = nn.ModuleDict({"trunk": trunk, "heads": heads})
            self.loss_ = train_with_adam(
                self.network_,
                self._batch_loss(benchmark, enter),
                len(embeddings),
                epochs=self.epochs,
                lr=self.lr,
                batch_size=self.batch_size,
                generator=generator,
                weight_decay=WEIGHT_DECAY,
                label=type(self).__name__,
            )
        self.network_.requires_grad_(False)
        frozen = sum(p.numel() for p in self.text_encoder_.model.parameters()) if self.finetune_encoder else 0
        self.n_parameters_ = sum(p.numel() for p in self.network_.parameters()) - frozen
        return self

    @property
    def _outputs(self) -> int:
        """Outputs of an LLM's head."""
        raise NotImplementedError

    def _loss(self, benchmark: RoutingBenchmark) -> Callable[[Any, Any], Any]:
        """Return a function from outputs [B, M, outputs] and rows [B] to a scalar loss."""
        raise NotImplementedError

    def _levels(self, quality: np.ndarray) -> tuple[float, ...]:
        return quality_levels(quality)

    def _check_parameters(self) -> None:
        for name in ("width", "epochs", "batch_size", "max_length"):
            check_count(self, name, getattr(self, name))
        check_rates(self, ("lr",))

    def _trunk(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> tuple[Any, Callable[[Any], Any]]:
        """Return what ends in V_b, and a function from rows to V_b."""
        import torch
        from torch import nn

        if self.finetune_encoder:
            encoder = TextEncoder(
                self.encoder, self.max_length, self.seed, who=type(self).__name__, truncation_side="right", pooler=True
            )
            self.text_encoder_, self.feature_width_ = encoder, encoder.width
            self.n_features_in_ = encoder.width
            tokens = encoder.tokens(benchmark.prompts)
            drop = nn.Dropout(self.dropout)
            trunk = nn.ModuleList([encoder.model, drop])
            return trunk, lambda rows: drop(encoder([tokens[i] for i in rows.tolist()]))
        self.feature_width_ = self.width
        trunk = nn.Sequential(nn.Linear(embeddings.shape[1], self.width), nn.ReLU(), nn.Dropout(self.dropout))
        inputs = torch.tensor(self.standardise(embeddings))
        return trunk, lambda rows: trunk(inputs[rows])

    def _batch_loss(self, benchmark: RoutingBenchmark, enter: Callable[[Any], Any]) -> Callable[[Any], Any]:
        loss, heads = self._loss(benchmark), self.network_["heads"]
        return lambda rows: loss(heads(enter(rows)).unflatten(1, (-1, self._outputs)), rows)

    def standardise(self, embeddings: np.ndarray) -> np.ndarray:
        """Return embeddings centred and divided by one number, [N, D] float32, as the networks read them."""
        return ((embeddings - self.shift_) / self.unit_).astype(np.float32)

    def embed(self, prompts: Sequence[str]) -> np.ndarray:
        """Return V_b of prompts, [N, F], for a backbone fitted with `finetune_encoder`."""
        if not hasattr(self, "text_encoder_"):
            raise UserError(
                f"{type(self).__name__}.embed needs a router fitted with finetune_encoder=True; otherwise embed "
                "prompts with routebook.encoders"
            )
        return self.text_encoder_.embed(prompts, self.batch_size)

    def features(self, embeddings: np.ndarray) -> np.ndarray:
        """Return V_b, [N, F] float32: what is computed once a query and shared by all LLMs.

        With `finetune_encoder` the embeddings are those of `embed`, V_b itself.
        """
        import torch

        embeddings = self._check_width(embeddings)
        if self.finetune_encoder:
            return embeddings.astype(np.float32, copy=False)
        with torch.inference_mode(), one_thread():
            return self.network_["trunk"](torch.tensor(self.standardise(embeddings))).numpy()

    def outputs_from(self, features: np.ndarray) -> np.ndarray:
        """Return the heads' outputs from V_b [N, F], [N, M, outputs] float64."""
        import torch

        with torch.inference_mode(), one_thread():
            outputs = self.network_["heads"](torch.from_numpy(np.ascontiguousarray(features)))
            return outputs.unflatten(1, (-1, self._outputs)).to(torch.float64).numpy()


@dataclass(eq=False, repr=False, kw_only=True)
class Backbone(LevelRouter, HeadRouter):
    """Quality classes of every LLM from the query, by cross-entropy over all labels there are; see `HeadRouter`.

    The paper's input is the query, the response and its score (Section 4.1); there is no response when a query is
    routed, so ours is the query (7.1, #13). How its backbone tells the anchors apart is not said; ours has a head for
    each (#14).

    Parameters
    ----------
    levels : tuple of float, optional
        Quality classes; None: those the labels have (`quality_levels`).
    """

    levels: tuple[float, ...] | None = None

    @property
    def _outputs(self) -> int:
        return len(self.levels_)

    def _levels(self, quality: np.ndarray) -> tuple[float, ...]:
        found = quality_levels(quality)
        return self.levels or found

    def _loss(self, benchmark: RoutingBenchmark) -> Callable[[Any, Any], Any]:
        import torch
        from torch.nn import functional

        classes = to_classes(benchmark.quality, self.levels_)
        seen, target = torch.tensor(classes >= 0), torch.tensor(classes.clip(0))

        def batch_loss(logits: Any, rows: Any) -> Any:
            cells = functional.cross_entropy(logits.permute(0, 2, 1), target[rows], reduction="none")
            return observed_loss(cells, seen[rows])

        return batch_loss

    def probabilities_from(self, features: np.ndarray) -> np.ndarray:
        """Return the probabilities of the levels from V_b [N, F], [N, M, C]."""
        logits = self.outputs_from(features)
        power = np.exp(logits - logits.max(axis=2, keepdims=True))
        return power / power.sum(axis=2, keepdims=True)

    def predict_probabilities(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the probability of every quality level, [N, M, C]."""
        return self.probabilities_from(self.features(embeddings))


def check_rates(router: object, positive: Sequence[str], nonnegative: Sequence[str] = ()) -> None:
    """Raise UserError unless these parameters are finite numbers > 0 or >= 0, and `dropout` is in [0, 1)."""
    for name in (*positive, *nonnegative):
        value = getattr(router, name)
        least = ">= 0" if name in nonnegative else "> 0"
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool) and np.isfinite(value)
        if not number or value < 0 or (value == 0 and name in positive):
            raise UserError(f"{type(router).__name__}: {name} is {value!r}, expected a number {least}")
    if not 0 <= router.dropout < 1:
        raise UserError(f"{type(router).__name__}: dropout is {router.dropout!r}, expected a number in [0, 1)")
