"""Which LLMs look alike to UniRoute: Gaussian-kernel similarity of their cluster features (Figures 8 and 9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from routebook import routers
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError
from routebook.significance import Estimate, mean_interval

_BATCH_CELLS = 2_000_000


def llm_similarity(benchmark: RoutingBenchmark, embeddings: np.ndarray, n_clusters: int, seed: int = 0) -> pd.DataFrame:
    """Return the similarity exp(-||Ψ(h) - Ψ(h')||² / (2 σ²)) of every two LLMs (Appendix G.6, Figures 8 and 9).

    Clusters are fitted on the prompts and Ψ, Eq. (12), is estimated on the same ones. The paper gives no width: σ is
    the median distance between two LLMs, our reading.

    Parameters
    ----------
    benchmark
        N prompts x M LLMs, labels in [0, 1] or NaN.
    embeddings : ndarray, [N, D]
    n_clusters, seed
        Of `routebook.routers.KMeans`.

    Returns
    -------
    DataFrame, [M, M]
        Similarities in [0, 1], rows and columns by name and in the leaf order of an average-linkage tree over Ψ, which
        puts LLMs that are alike side by side.

    Raises
    ------
    UserError
        For fewer than two LLMs, or one without a single label.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import pdist, squareform

    psi = _fit(benchmark, embeddings, n_clusters, seed).psi_
    similarity = squareform(_kernel(pdist(psi.T)[None])[0], checks=False)
    np.fill_diagonal(similarity, 1.0)
    order = leaves_list(linkage(psi.T, method="average", optimal_ordering=True))
    names = [benchmark.models[column] for column in order]
    return pd.DataFrame(similarity[np.ix_(order, order)], index=names, columns=names)


def family_contrast(
    benchmark: RoutingBenchmark,
    embeddings: np.ndarray,
    member: Callable[[str], bool],
    n_clusters: int,
    seed: int = 0,
    *,
    n_resamples: int = 500,
    confidence: float = 0.95,
) -> Estimate:
    """Return how much more similar a family's LLMs are to each other than to the LLMs outside it.

    Mean of `llm_similarity` over pairs within the family, less its mean over pairs of one member and one other LLM.
    The interval is the percentile bootstrap over prompts; clusters stay as fitted, while Ψ and σ are computed anew on
    each resample. It holds for these LLMs and clusters: other clusters are another `seed`.

    Parameters
    ----------
    benchmark, embeddings, n_clusters, seed
        As for `llm_similarity`; the seed is also that of the bootstrap.
    member
        Whether the LLM of this name belongs to the family.
    n_resamples : int
    confidence : float

    Returns
    -------
    Estimate
        `n` is the number of prompts. Bounds are NaN when an LLM has so few labels that a resample can miss them all.

    Raises
    ------
    UserError
        When the family has fewer than two LLMs or holds all of them, n_resamples is below 1, the confidence is not
        between 0 and 1, or an LLM has no label.
    """
    family = np.array([bool(member(model)) for model in benchmark.models])
    if not 2 <= family.sum() < len(family):
        raise UserError(
            f"member picks {family.sum()} of the {len(family)} LLMs, expected at least two and not all: "
            f"{', '.join(benchmark.models)}"
        )
    if n_resamples < 1 or not 0 < confidence < 1:
        raise UserError(
            f"n_resamples={n_resamples} and confidence={confidence:g}, expected at least 1 and a number between 0 and 1"
        )
    router = _fit(benchmark, embeddings, n_clusters, seed)
    cluster = router.assign(embeddings)
    first, second = np.triu_indices(len(family), k=1)
    within, across = family[first] & family[second], family[first] ^ family[second]

    def contrast(weights: np.ndarray) -> np.ndarray:
        psi = _weighted_psi(benchmark.quality, cluster, n_clusters, weights)
        similarity = _kernel(np.linalg.norm(psi[:, :, first] - psi[:, :, second], axis=1))
        return similarity[:, within].mean(axis=1) - similarity[:, across].mean(axis=1)

    n = len(benchmark)
    rng = np.random.default_rng(seed)
    batch = max(1, _BATCH_CELLS // max(n, n_clusters * len(first)))
    sizes = [min(batch, n_resamples - done) for done in range(0, n_resamples, batch)]
    resampled = np.concatenate([contrast(rng.multinomial(n, np.full(n, 1 / n), size=size)) for size in sizes])
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(
        estimate=float(contrast(np.ones((1, n)))[0]),
        low=float(low),
        high=float(high),
        n=n,
        method=f"bootstrap over prompts, clusters fixed (percentile, {n_resamples} resamples)",
        confidence=confidence,
    )


def contrast_over_seeds(
    benchmark: RoutingBenchmark, embeddings: np.ndarray, family: str, n_clusters: int, seeds: Sequence[int]
) -> Estimate | None:
    """Return `family_contrast` of the LLMs whose name holds `family`, with a 95 % t-interval over cluster seeds.

    None where the pool has fewer than two such LLMs: then there is nothing to compare.
    """
    if sum(family in model for model in benchmark.models) < 2:
        return None
    found = [
        family_contrast(benchmark, embeddings, lambda model: family in model, n_clusters, seed, n_resamples=1).estimate
        for seed in seeds
    ]
    return mean_interval(found)


def _fit(benchmark: RoutingBenchmark, embeddings: np.ndarray, n_clusters: int, seed: int) -> routers.KMeans:
    if len(benchmark.models) < 2:
        raise UserError(f"{benchmark.name} has {len(benchmark.models)} LLM, expected at least two to compare")
    silent = [m for m, seen in zip(benchmark.models, ~np.isnan(benchmark.quality).all(axis=0), strict=True) if not seen]
    if silent:
        raise UserError(f"{benchmark.name} has no label of {', '.join(silent)}; leave them out with benchmark.subset")
    return routers.KMeans(n_clusters=n_clusters, seed=seed).fit(benchmark, embeddings)


def _kernel(distance: np.ndarray) -> np.ndarray:
    """Gaussian kernel of the distances [B, P] between all pairs, σ the median of each row; σ = 0 is taken as limit."""
    width = np.median(distance, axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        scaled = np.divide(distance, width, out=distance.copy(), where=distance != 0)
    return np.exp(-(scaled**2) / 2)


def _weighted_psi(quality: np.ndarray, cluster: np.ndarray, n_clusters: int, weights: np.ndarray) -> np.ndarray:
    """Ψ, Eq. (12), for each of B weightings [B, N] of the prompts, [B, K, M]; as `routers.group_means` on repeats."""
    seen = (~np.isnan(quality)).astype(float)
    known = np.where(seen > 0, quality, 0.0)
    weights = weights.astype(float)
    shape = (len(weights), n_clusters, quality.shape[1])
    totals, counts = np.zeros(shape), np.zeros(shape)
    for k in range(n_clusters):
        rows = cluster == k
        totals[:, k], counts[:, k] = weights[:, rows] @ known[rows], weights[:, rows] @ seen[rows]
    with np.errstate(invalid="ignore"):
        overall = totals.sum(axis=1, keepdims=True) / counts.sum(axis=1, keepdims=True)
    means = np.broadcast_to(overall, shape).copy()
    return 1.0 - np.divide(totals, counts, out=means, where=counts > 0)
