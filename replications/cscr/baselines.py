"""The routers CSCR is compared with (Section 4.1, Table 1) that are its own; the others are `routebook.routers`.

The paper gives each baseline one line. Here every one learns from the same training labels and reads the same frozen
embeddings as CSCR, so that they differ in the method alone. What the authors' released code does instead
(forensics 7.2 #23 to #26) is `reading="released"` of a router here, or named in `experiment.released_routers`.
Pareto-random is `routebook.routers.ZeroRouter`; the released code runs Random under both names (CS-22).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import numpy as np

from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError
from routebook.routers import MLP, KMeans, check_count, dense, seen_cells, train_with_adam
from routebook.threads import one_torch_thread

# Qualities this close are equal.
TIE = 1e-12
EMPTY_ERROR = 0.5


class UMR(KMeans):
    """UMR (Jitkrittum et al., 2025; CSCR Section 4.1): UniRoute with K-means clusters, as the paper's main baseline.

    Parameters
    ----------
    n_clusters
        20 in the released code; the paper gives none.
    reading : {"uniroute", "released"}
        "uniroute": errors of each cluster from all training labels, `routebook.routers.KMeans`. "released": errors
        from the labels of `n_validation` prompts only, a cluster without any has error .5, and a new prompt belongs to
        the centroid with the highest cosine instead of the nearest.
    n_validation
        192 in the released code, whose fingerprints' probes it uses; here drawn from the prompts that LLMs are
        labelled on.
    seed, n_init, max_iter
        As in `KMeans`.
    """

    def __init__(
        self,
        n_clusters: int = 20,
        reading: Literal["uniroute", "released"] = "uniroute",
        n_validation: int = 192,
        seed: int = 0,
        n_init: int = 10,
        max_iter: int = 300,
    ):
        super().__init__(n_clusters, seed, n_init, max_iter)
        self.reading = reading
        self.n_validation = n_validation

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Cluster the training prompts and represent the LLMs; errors as in `KMeans.fit`."""
        if self.reading not in ("uniroute", "released"):
            raise UserError(f"UMR: reading is {self.reading!r}, expected 'uniroute' or 'released'")
        check_count(self, "n_validation", self.n_validation)
        return super().fit(benchmark, embeddings)

    def represent(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return Psi [K, M] of the benchmark's LLMs and the counts behind it, as `KMeans.represent`."""
        if self.reading == "uniroute":
            return super().represent(benchmark, embeddings)
        rng = np.random.default_rng(self.seed)
        rows = np.sort(rng.permutation(len(benchmark))[: self.n_validation])
        psi, counts = super().represent(benchmark.subset(rows), np.asarray(embeddings)[rows])
        return np.where(counts > 0, psi, EMPTY_ERROR), counts

    def predict_quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Return 1 less the LLMs' errors in each prompt's cluster, [N, M]."""
        if self.reading == "uniroute":
            return super().predict_quality(embeddings)
        embeddings = self._check_width(embeddings)
        length = np.linalg.norm(self.centroids_, axis=1, keepdims=True)
        directions = self.centroids_ / np.where(length > 0, length, 1.0)
        return 1.0 - self.psi_[(embeddings @ directions.T).argmax(axis=1)]


def best_answers(quality: np.ndarray) -> np.ndarray:
    """Return which LLMs gave the best answer to each prompt, [N, M] of bool; none where every answer has quality 0.

    NaN = not observed, never the best.
    """
    known = np.where(np.isnan(quality), -np.inf, quality)
    top = known.max(axis=1, keepdims=True)
    return (known >= top - TIE) & (top > 0)


class _Softmax(MLP):
    """A network with one logit an LLM, trained on a loss of its softmax over LLMs; settings as in `MLP`."""

    def _prompt_loss(self, log_gates: Any, rows: Any) -> Any:
        """Return the loss of each prompt of a batch, [B], from the log softmax [B, M]."""
        raise NotImplementedError

    def _prepare(self, benchmark: RoutingBenchmark) -> np.ndarray:
        """Keep what the loss needs of the labels, and return the rows to learn from."""
        raise NotImplementedError

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Train on the labels of `benchmark`, [N, M], with embeddings [N, D].

        Raises
        ------
        UserError
            As in `MLP.fit`; and when there is no prompt to learn from.
        """
        import torch

        embeddings = self._check_fit(benchmark, embeddings)
        self._check_parameters()
        self.models_ = list(benchmark.models)
        rows = self._prepare(benchmark)
        if not len(rows):
            raise UserError(f"{type(self).__name__}: no answer has a quality above 0; there is nothing to learn")
        inputs = torch.tensor(embeddings[rows], dtype=torch.float32)
        rows = torch.tensor(rows)
        generator = torch.Generator().manual_seed(self.seed)
        self.network_ = self._network(embeddings.shape[1], len(self.models_), generator)

        def batch_loss(batch: Any) -> Any:
            return self._prompt_loss(self._logits(inputs[batch]).log_softmax(dim=1), rows[batch]).mean()

        options = self._adam_options()
        self.loss_ = train_with_adam(self.network_, batch_loss, len(inputs), generator=generator, **options)
        self.best_epoch_ = self.epochs - 1
        self.n_parameters_ = sum(p.numel() for p in self.network_.parameters())
        return self

    def _logits(self, inputs: Any) -> Any:
        return self.network_(inputs)

    def _predicted(self, embeddings: np.ndarray, read: Callable[[Any], Any]) -> np.ndarray:
        import torch

        inputs = torch.tensor(self._check_width(embeddings), dtype=torch.float32)
        with torch.inference_mode(), one_torch_thread():
            return read(self._logits(inputs).to(torch.float64)).numpy()

    def predict_quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the softmax over LLMs, [N, M]; rows sum to 1."""
        return self._predicted(embeddings, lambda logits: logits.softmax(dim=1))


class Parametric(_Softmax):
    """Parametric softmax gating (Ong et al., 2025; CSCR Section 4.1): one head a model, cross-entropy, blind to cost.

    "Softmax-based one-head-per-model classifiers [that] optimise exclusively for top-1 accuracy": the target is the
    uniform distribution over the LLMs that gave the best answer, which the paper leaves open. A prompt that none
    answered is left out. The score is the softmax probability.

    Parameters
    ----------
    hidden, epochs, lr, batch_size, seed
        As in `MLP`; one hidden layer as wide as CSCR's by default.
    target : {"best", "cheapest"}
        "cheapest": only the cheapest of the LLMs with the best answer.
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (384,),
        target: Literal["best", "cheapest"] = "best",
        epochs: int = 10,
        lr: float = 5e-4,
        batch_size: int = 512,
        seed: int = 0,
    ):
        super().__init__(hidden, epochs, lr, batch_size, seed)
        self.target = target

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.target not in ("best", "cheapest"):
            raise UserError(f"Parametric: target is {self.target!r}, expected 'best' or 'cheapest'")

    def _prepare(self, benchmark: RoutingBenchmark) -> np.ndarray:
        import torch

        best = best_answers(benchmark.quality)
        rows = np.flatnonzero(best.any(axis=1))
        if self.target == "cheapest":
            if benchmark.unpriced:
                raise UserError(
                    f"{type(self).__name__}: {benchmark.unpriced[0]!r} has no price; use benchmark.priced()"
                )
            cheapest = np.where(best, benchmark.mean_cost, np.inf).argmin(axis=1)
            best &= np.arange(best.shape[1]) == cheapest[:, None]
        weight = best / np.maximum(best.sum(axis=1, keepdims=True), 1)
        self._target = torch.tensor(weight, dtype=torch.float32)
        return rows

    def _prompt_loss(self, log_gates: Any, rows: Any) -> Any:
        return -(self._target[rows] * log_gates).sum(dim=1)


class DescriptorSoftmax(Parametric):
    """Parametric softmax as the released code has it: the score is w · d_h + b, and the prompt is not used (CS-23).

    One LLM for all prompts at any trade-off. The score is the logit, which is what its evaluation takes.

    Parameters
    ----------
    descriptors : mapping of str to ndarray [D']
        Descriptor of each LLM by name.
    target, epochs, lr, batch_size, seed
        As in `Parametric`.
    """

    def __init__(
        self,
        descriptors: Mapping[str, np.ndarray],
        target: Literal["best", "cheapest"] = "best",
        epochs: int = 10,
        lr: float = 5e-4,
        batch_size: int = 512,
        seed: int = 0,
    ):
        super().__init__((), target, epochs, lr, batch_size, seed)
        self.descriptors = descriptors

    def _network(self, width: int, n_models: int, generator: Any) -> Any:
        import torch

        missing = [model for model in self.models_ if model not in self.descriptors]
        if missing:
            raise UserError(f"DescriptorSoftmax: there is no descriptor of {missing[0]!r}; compute it, or leave it out")
        vectors = np.stack([self.descriptors[model] for model in self.models_])
        self._vectors = torch.tensor(vectors, dtype=torch.float32)
        return dense(vectors.shape[1], 1, generator)

    def _logits(self, inputs: Any) -> Any:
        return self.network_(self._vectors).T.expand(len(inputs), -1)

    def predict_quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the logits, the same row for every prompt, [N, M]."""
        return self._predicted(embeddings, lambda logits: logits)


class SoftMoE(_Softmax):
    """Soft-MoE gating (Puigcerver et al., 2024; CSCR Section 4.1): "differentiable soft gating functions".

    A prompt's gates are the softmax of its products with learned slots, `slots` of each LLM, added up by LLM. They are
    trained to maximise the expected quality, the sum of gate times quality (over the observed LLMs). The reference
    mixes the outputs of all experts by such gates; here one LLM is called, and the score is its gate. The paper does
    not say what the gates are trained on.

    Parameters
    ----------
    slots
        Of each LLM.
    epochs, lr, batch_size, seed
        As in `MLP`.
    """

    def __init__(self, slots: int = 1, epochs: int = 10, lr: float = 5e-4, batch_size: int = 512, seed: int = 0):
        super().__init__((), epochs, lr, batch_size, seed)
        self.slots = slots

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_count(self, "slots", self.slots)

    def _network(self, width: int, n_models: int, generator: Any) -> Any:
        return dense(width, n_models * self.slots, generator, bias=False)

    def _logits(self, inputs: Any) -> Any:
        # The gate of an LLM is the sum of its slots' softmax, so its logit is the log of that sum.
        return self.network_(inputs).unflatten(1, (-1, self.slots)).logsumexp(dim=2)

    def _prepare(self, benchmark: RoutingBenchmark) -> np.ndarray:
        import torch

        quality = np.nan_to_num(benchmark.quality)
        self._seen = seen_cells(benchmark.quality)
        self._quality = torch.tensor(quality, dtype=torch.float32)
        return np.flatnonzero(quality.any(axis=1))

    def _prompt_loss(self, log_gates: Any, rows: Any) -> Any:
        gates = log_gates.exp()
        earned = (gates * self._quality[rows]).sum(dim=1)
        return -earned if self._seen is None else -earned / (gates * self._seen[rows]).sum(dim=1)
