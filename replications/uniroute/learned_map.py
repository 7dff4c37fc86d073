"""UniRoute (LearnedMap): a learned map from prompts to clusters (UniRoute Section 5.2 and Appendix F.3)."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError
from routebook.routers import (
    KMeans,
    Lesson,
    TrainedRouter,
    Validation,
    check_count,
    dense,
    fit_together,
    with_columns,
)
from routebook.threads import one_torch_thread

ARCHITECTURES = ("F.3", "linear")
# Keras defaults, since the paper says "we use Keras" and names no other value: our reading.
KERAS_BN_EPSILON = 1e-3
KERAS_ADAM_EPSILON = 1e-7
KERAS_CLIP = 1e-7


class LearnedMap(TrainedRouter):
    """Quality = 1 - Phi(x; theta)^T Psi(h), with Phi a softmax over clusters learned from the training labels.

    The prompts are clustered by K-means and each LLM is its vector of errors per cluster, Psi(h), exactly as in
    UniRoute (K-means); only the assignment of a prompt to clusters is learned, by minimising over the training
    prompts and training LLMs the log loss of Section 5.2, in which Psi is a constant. Psi of the training LLMs comes
    from their training labels (G.2; Section 5.2 says "validation set"). LLMs added later are represented by their
    errors on the *hard* K-means clusters of the validation prompts, Eq. (12).

    Parameters
    ----------
    n_clusters
        The paper's K.
    epochs, lr, batch_size
        Adam; 5 epochs, 0.005 and 64 in F.3.
    hidden
        Units of each hidden layer, 128 in Eq. (22).
    seed
        Of the K-means starts, the initial weights and the shuffling.
    architecture : {"F.3", "linear"}
        "F.3": Eqs. (21) and (22), Softmax . FC(K) . H' . H . BN . phi with H = ReLU . BN . FC(hidden).
        "linear": Section 5.2, Phi_k proportional to exp(theta_k^T phi(x)), no bias and no hidden layer.
    bn_momentum
        Share of the running mean and variance that a batch leaves in place. Keras's default is 0.99, which is slow:
        after 100 steps the running variance still holds 37 % of its initial value 1, while unit-length embeddings of
        D dimensions have a variance near 1/D. Number-affecting when trainings are as short as the paper's.
    clustering : KMeans, optional
        A K-means router already fitted on the training prompts, so that both share their clusters; it is not changed.

    Attributes
    ----------
    psi_ : ndarray, [K, M]
        Errors per cluster.
    counts_ : ndarray of int, [K, M]
        Labelled prompts that each entry rests on.
    clustering_ : KMeans
    loss_ : ndarray, [epochs]
        Mean log loss over each epoch.
    best_epoch_ : int
        The epoch kept, from 0.
    n_parameters_ : int
        Trained parameters (running means and variances are not among them).

    Notes
    -----
    Keras's defaults fill what the paper leaves open: Glorot-uniform weights, zero biases (also before a BN layer),
    BN with momentum 0.99 and epsilon 1e-3, Adam with epsilon 1e-7, gamma clipped to [1e-7, 1 - 1e-7] in the log loss,
    and the mean over labels where the paper writes a sum.
    """

    dynamic = True

    def __init__(
        self,
        n_clusters: int = 8,
        epochs: int = 5,
        lr: float = 0.005,
        batch_size: int = 64,
        hidden: int = 128,
        seed: int = 0,
        architecture: str = "F.3",
        bn_momentum: float = 0.99,
        clustering: KMeans | None = None,
    ):
        self.n_clusters = n_clusters
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.hidden = hidden
        self.seed = seed
        self.architecture = architecture
        self.bn_momentum = bn_momentum
        self.clustering = clustering

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray, validation: Validation | None = None) -> Self:
        """Cluster the training prompts, represent the training LLMs, and learn Phi.

        Parameters
        ----------
        benchmark
            Training prompts with the labels of the training LLMs, [N, M].
        embeddings : ndarray, [N, D]
        validation : (benchmark, embeddings), optional
            Prompts with labels of the training LLMs, by which the epoch to keep is chosen: the one whose deferral
            curve on them has the largest area. Without it the last epoch is kept: the paper chooses a checkpoint for
            its MLP (G.2) and says nothing of LearnedMap's.

        Raises
        ------
        UserError
            As in `BaseRouter.fit`; when a label lies outside [0, 1], where the log loss has no meaning; and when a
            training LLM is missing from `validation` or has no price there.
        """
        fit_together([self], [(benchmark, embeddings)], None if validation is None else [validation])
        return self

    def _lesson(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Lesson:
        import torch

        embeddings = self._check_fit(benchmark, embeddings)
        self._check_parameters(benchmark, len(embeddings))
        self.clustering_ = self.clustering or KMeans(self.n_clusters, seed=self.seed).fit(benchmark, embeddings)
        self.psi_, self.counts_ = self.clustering_.represent(benchmark, embeddings)
        self.models_ = list(benchmark.models)
        generator = torch.Generator().manual_seed(self.seed)
        self.network_ = self._network(embeddings.shape[1], generator)
        errors = 1.0 - np.nan_to_num(benchmark.quality)
        return Lesson.of(embeddings, errors, benchmark.quality, generator, constants=[self.psi_])

    def _adam_options(self) -> dict[str, Any]:
        return super()._adam_options() | {
            "eps": KERAS_ADAM_EPSILON,
            "smallest_batch": 1 if self.architecture == "linear" else 2,
            "label": f"LearnedMap K={self.n_clusters}",
        }

    def _loss_and_slope(self, output: Any, targets: Any, share: Any, psi: Any) -> tuple[Any, Any]:
        """The log loss of Section 5.2; soft labels weigh both terms."""
        import torch

        phi = torch.softmax(output, dim=-1)
        gamma = torch.bmm(phi, psi)
        clipped = gamma.clamp(KERAS_CLIP, 1 - KERAS_CLIP)
        rest = 1 - clipped
        loss = (torch.lerp(rest.log(), clipped.log(), targets).mul_(share)).sum(dim=(1, 2)).neg_()
        by_gamma = (clipped - targets).div_(rest.mul_(clipped)).mul_(share)
        # Where gamma is clipped, the loss does not depend on it.
        by_gamma.mul_(gamma == clipped)
        by_phi = torch.bmm(by_gamma, psi.mT)
        return loss, by_phi.sub_((by_phi * phi).sum(dim=-1, keepdim=True)).mul_(phi)

    def _check_parameters(self, benchmark: RoutingBenchmark, n_prompts: int) -> None:
        check_count(self, "n_clusters", self.n_clusters, most=n_prompts, of="training prompts")
        for name in ("epochs", "batch_size", "hidden"):
            check_count(self, name, getattr(self, name))
        if self.architecture not in ARCHITECTURES:
            known = " or ".join(map(repr, ARCHITECTURES))
            raise UserError(f"LearnedMap: architecture is {self.architecture!r}, expected {known}")
        if not self.lr > 0:
            raise UserError(f"LearnedMap: lr is {self.lr!r}, expected a number > 0")
        if not 0 <= self.bn_momentum < 1:
            raise UserError(f"LearnedMap: bn_momentum is {self.bn_momentum!r}, expected a number in [0, 1)")
        if self.architecture == "F.3" and min(self.batch_size, n_prompts) < 2:
            raise UserError(
                "LearnedMap: batch normalisation needs batches of at least 2 prompts; "
                f"batch_size is {self.batch_size} and there are {n_prompts} training prompts"
            )
        outside = (benchmark.quality < 0) | (benchmark.quality > 1)
        if outside.any():
            raise UserError(
                f"LearnedMap learns by log loss and needs qualities in [0, 1]; {benchmark.name} has "
                f"{benchmark.quality[outside][0]:g}. Rescale them, or use KMeans or KNN"
            )
        if self.clustering is not None and self.clustering.n_clusters != self.n_clusters:
            raise UserError(
                f"LearnedMap: n_clusters is {self.n_clusters}, but the clustering given has "
                f"{self.clustering.n_clusters} clusters"
            )

    def _network(self, width: int, generator: Any) -> Any:
        """Build the map from embeddings [B, D] to cluster logits [B, K]."""
        from torch import nn

        if self.architecture == "linear":
            return nn.Sequential(dense(width, self.n_clusters, generator, bias=False))

        def norm(features: int) -> Any:
            # torch's momentum is the share a batch takes, Keras's the share it leaves.
            return nn.BatchNorm1d(features, eps=KERAS_BN_EPSILON, momentum=1 - self.bn_momentum)

        def hidden_layer(fan_in: int) -> list[Any]:  # Eq. (22)
            return [dense(fan_in, self.hidden, generator), norm(self.hidden), nn.ReLU()]

        # Eq. (21), inside out; the softmax is applied by the caller.
        return nn.Sequential(
            norm(width),
            *hidden_layer(width),
            *hidden_layer(self.hidden),
            dense(self.hidden, self.n_clusters, generator),
        )

    def assignment(self, embeddings: np.ndarray) -> np.ndarray:
        """Return Phi(x; theta), the distribution of each prompt over clusters, [N, K] with rows that sum to 1."""
        import torch

        inputs = torch.tensor(self._check_width(embeddings), dtype=torch.float32)
        with torch.inference_mode(), one_torch_thread():
            return torch.softmax(self.network_(inputs).to(torch.float64), dim=1).numpy()

    def add_models(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Represent new LLMs by their errors on the hard K-means clusters of these prompts, Eq. (12)."""
        psi, counts = self.clustering_.represent(benchmark, self._check_add(benchmark, embeddings))
        places = self._places(benchmark.models)
        self.psi_ = with_columns(self.psi_, places, psi)
        self.counts_ = with_columns(self.counts_, places, counts)
        return self

    def predict_quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Return 1 - Phi(x; theta)^T Psi(h), [N, M]."""
        return 1.0 - self.assignment(embeddings) @ self.psi_
