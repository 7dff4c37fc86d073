"""The methods SemiRouter is compared with (Section 5.2, Table 1), all of them at home with labels that are missing.

BERT on full data is `Backbone` fitted on all LLMs; RouterDC and RadialRouter are variants of SemiRouter, as the paper
says itself (SR-20). All read the same frozen embeddings, so that they differ in the method alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from replications.semirouter.backbone import Backbone, HeadRouter, check_rates, quality_levels, to_levels
from replications.semirouter.semi_router import QUICK, SemiRouter, fit_many
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError, suggest
from routebook.routers import KMeans

CLUSTERS = (10, 20, 40)  # Appendix C.3

# The rows of Table 1 in the paper's order. The first is fitted on full data, all others on sparse data.
METHODS = (
    "bert-full",
    "zooter",
    "lora-retriever",
    "router-dc-ss",
    "semirouter-att",
    "semirouter-mlp",
    "semirouter-emb",
)
FULL_DATA = ("bert-full",)


class LoraRetriever(KMeans):
    """Mean observed quality in the nearest of K clusters of query embeddings.

    The paper has one phrase for it ("cluster-based", 10, 20 or 40 clusters, 40 the best); with labels that are missing
    it is UniRoute's K-means rule, and is here computed by it. A cluster in which an LLM was never observed has its
    overall mean.
    """

    def __init__(self, n_clusters: int = 40, seed: int = 0):
        super().__init__(n_clusters=n_clusters, seed=seed)

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Cluster the prompts and average the labels in each cluster; see `BaseRouter.fit`."""
        self.levels_ = quality_levels(benchmark.quality)
        return super().fit(benchmark, embeddings)

    def predict_labels(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the quality level nearest to each mean, [N, M]."""
        return to_levels(self.predict_quality(embeddings), self.levels_)


@dataclass(eq=False, repr=False, kw_only=True)
class Zooter(HeadRouter):
    """A distribution over LLMs distilled from their qualities (Lu et al., 2023), without its label enhancement by tags.

    The target is softmax(quality / temperature) over the LLMs observed on a query, the loss the KL divergence from it
    to the router's softmax over the same LLMs; see `HeadRouter` for the network. A query with one label teaches
    nothing.

    Parameters
    ----------
    temperature
        Of the target; not given in the paper.

    Attributes
    ----------
    level_ : float
        Mean observed quality.
    """

    temperature: float = 0.2

    @property
    def _outputs(self) -> int:
        return 1

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_rates(self, ("temperature",))

    def _loss(self, benchmark: RoutingBenchmark) -> Callable[[Any, Any], Any]:
        import torch

        self.level_ = float(np.nanmean(benchmark.quality))
        quality = torch.tensor(np.nan_to_num(benchmark.quality), dtype=torch.float32)
        seen = torch.tensor(~np.isnan(benchmark.quality))
        return lambda outputs, rows: distillation(outputs[..., 0], quality[rows], seen[rows], self.temperature)

    def predict_quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Return temperature x log probability, moved so that a query's mean over the LLMs is `level_`, [N, M].

        The distribution says how the LLMs differ on a query and not how good they are together, so that level is the
        same for every query; estimates may lie outside [0, 1].
        """
        logits = self.outputs_from(self.features(embeddings))[..., 0]
        return self.level_ + self.temperature * (logits - logits.mean(axis=1, keepdims=True))

    def predict_labels(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the quality level nearest to each estimate, [N, M]."""
        return to_levels(self.predict_quality(embeddings).clip(0, 1), self.levels_)


def distillation(logits: Any, quality: Any, seen: Any, temperature: float) -> Any:
    """Return KL(softmax(quality / temperature) || softmax(logits)) over the observed LLMs, the mean over queries.

    Parameters
    ----------
    logits, quality : Tensor, [B, M]
    seen : BoolTensor, [B, M]
        A query without a label counts as 0.
    temperature
    """
    from routebook.contrastive import MASKED

    wanted = (quality / temperature).masked_fill(~seen, MASKED).log_softmax(dim=1)
    predicted = logits.masked_fill(~seen, MASKED).log_softmax(dim=1)
    return (wanted.exp() * (wanted - predicted) * seen).sum(dim=1).mean()


AnyRouter = SemiRouter | Backbone | Zooter | LoraRetriever


def make(method: str, anchors: Sequence[str], *, seed: int = 0, quick: bool = True, **changes: Any) -> AnyRouter:
    """Return the unfitted router of a row of Table 1.

    Parameters
    ----------
    method
        One of `METHODS`; those of `FULL_DATA` are meant for the benchmark before it is thinned.
    anchors
        Of the SemiRouter variants.
    seed
    quick
        Whether the small networks of `semi_router.QUICK` are trained, or those with the paper's sizes and rates.
    changes
        Parameters of the router that are to differ.
    """
    settings = QUICK if quick else {}
    networks = {name.removeprefix("backbone_"): value for name, value in settings.items() if name[:9] == "backbone_"}
    networks |= {name: settings[name] for name in ("batch_size",) if name in settings}
    if method == "bert-full":
        return Backbone(seed=seed, **{**networks, **changes})
    if method == "zooter":
        return Zooter(seed=seed, **{**networks, **changes})
    if method == "lora-retriever":
        return LoraRetriever(seed=seed, **changes)
    variants = {
        "router-dc-ss": {"variant": "emb", "loss": "sample-sample"},
        "semirouter-att": {"variant": "att"},
        "semirouter-mlp": {"variant": "mlp"},
        "semirouter-emb": {"variant": "emb"},
    }
    if method not in variants:
        raise UserError(
            f"make: method is {method!r}, expected one of {', '.join(METHODS)}{suggest(str(method), METHODS)}"
        )
    return SemiRouter(anchors=list(anchors), seed=seed, **{**settings, **variants[method], **changes})


def fit_all(
    methods: Sequence[str],
    full: RoutingBenchmark,
    sparse: RoutingBenchmark,
    embeddings: np.ndarray,
    anchors: Sequence[str],
    *,
    seed: int = 0,
    quick: bool = True,
) -> dict[str, AnyRouter]:
    """Fit the routers of some rows of Table 1 with one seed; the variants of SemiRouter share one backbone.

    Parameters
    ----------
    methods
        See `make`.
    full, sparse : RoutingBenchmark
        The training prompts before and after thinning; only the methods of `FULL_DATA` see the first.
    embeddings : ndarray, [N, D]
    anchors, seed, quick
        See `make`.
    """
    fitted: dict[str, AnyRouter] = {method: make(method, anchors, seed=seed, quick=quick) for method in methods}
    ours = [router for router in fitted.values() if isinstance(router, SemiRouter)]
    for method, router in fitted.items():
        if not isinstance(router, SemiRouter):
            router.fit(full if method in FULL_DATA else sparse, embeddings)
    fit_many(ours, [(sparse, embeddings)] * len(ours))
    return fitted
