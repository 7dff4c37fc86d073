"""Routing problems whose truth is known: prompts from Gaussian clusters, models with known error in each.

This is the model behind UniRoute's cluster-based rule (UniRoute, Eq. 13): a prompt x belongs to a
latent cluster z, and model m errs with probability Psi_k(m) in cluster k. With `deviation` > 0 the error also
varies with the prompt within a cluster, by a known amount, as UniRoute's Proposition 2 is about.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from routebook.benchmark import RoutingBenchmark
from routebook.datasets.cards import Card
from routebook.errors import UserError

VERSION = "1"
COST_UNIT = "simulated units"
COST_RANGE = (1.0, 100.0)
_MARGIN = 0.02


@dataclass(frozen=True)
class Truth:
    """What generated a simulated benchmark.

    Attributes
    ----------
    cluster : ndarray of int, [N]
        The cluster z each prompt was drawn from.
    weights : ndarray, [K]
        P(z = k).
    centroids : ndarray, [K, D]
        Means of the clusters, before any normalisation of embeddings.
    posterior : ndarray, [N, K]
        P(z = k | x) of the true mixture, x before any normalisation.
    error : ndarray, [K, M]
        Psi*: probability that model m errs on a prompt of cluster k.
    base_error : ndarray, [K, M]
        Error before the prompt's own deviation; equals `error` when there is none.
    deviation : ndarray, [N, M]
        P(m errs | x, z = k) = base_error[k, m] + deviation[x, m]: known, bounded by the option `deviation`.
    prompt_error : ndarray, [N, M]
        P(m errs | x), z averaged out: what the Bayes-optimal rule knows.
    """

    cluster: np.ndarray
    weights: np.ndarray
    centroids: np.ndarray
    posterior: np.ndarray
    error: np.ndarray
    base_error: np.ndarray
    deviation: np.ndarray
    prompt_error: np.ndarray

    def discrepancy(self) -> np.ndarray:
        """Delta_k(x, m) of UniRoute's Proposition 2, [N, K, M]."""
        given = self.base_error[None, :, :] + self.deviation[:, None, :]
        return np.abs(given - self.error[None, :, :])


def load(
    card: Card,
    *,
    n_prompts: int = 3000,
    n_models: int = 12,
    n_clusters: int = 6,
    dim: int = 16,
    separation: float = 6.0,
    within_cluster_sd: float = 1.0,
    deviation: float = 0.0,
    normalise: bool = False,
    seed: int = 0,
) -> RoutingBenchmark:
    """Return a simulated benchmark; the options are those of `mixture`, which also returns the truth."""
    return mixture(
        n_prompts,
        n_models,
        n_clusters,
        dim,
        separation=separation,
        within_cluster_sd=within_cluster_sd,
        deviation=deviation,
        normalise=normalise,
        seed=seed,
        name=card.name,
    )[0]


def mixture(
    n_prompts: int = 3000,
    n_models: int = 12,
    n_clusters: int = 6,
    dim: int = 16,
    *,
    separation: float = 6.0,
    within_cluster_sd: float = 1.0,
    deviation: float = 0.0,
    normalise: bool = False,
    seed: int = 0,
    name: str = "simulated",
) -> tuple[RoutingBenchmark, Truth]:
    """Draw a routing problem from a mixture of Gaussian clusters.

    Clusters, models and prompts have their own streams of randomness: the same seed with more prompts gives the
    same clusters and models.

    Parameters
    ----------
    n_prompts, n_models, n_clusters, dim
        N, M, K and D, all at least 1.
    separation
        Distance between any two centroids in units of `within_cluster_sd` (exact when K <= D; on average else).
    within_cluster_sd
        Standard deviation of a prompt around its centroid in every direction.
    deviation
        Largest amount by which a prompt's own error differs from its cluster's base error, in [0, 0.4].
    normalise
        Whether embeddings are scaled to unit length, as sentence encoders do.
    seed
        Same seed, same numbers, bit for bit.
    name
        Name of the benchmark.

    Returns
    -------
    benchmark : RoutingBenchmark
        Binary quality, one price a model (rising log-uniformly from 1 to 100), embeddings attached, task =
        the true cluster.
    truth : Truth

    Raises
    ------
    UserError
        For a size below 1, a separation or deviation out of range.
    """
    _check(n_prompts, n_models, n_clusters, dim, separation, within_cluster_sd, deviation, seed)
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3)]
    pool, geometry, draws = streams
    base = _base_error(n_clusters, n_models, deviation, pool)
    centroids = _centroids(n_clusters, dim, separation * within_cluster_sd, geometry)
    waves = geometry.standard_normal((n_models, dim))
    waves /= np.linalg.norm(waves, axis=1, keepdims=True) * within_cluster_sd
    phases = geometry.uniform(0, 2 * np.pi, n_models)
    weights = np.full(n_clusters, 1 / n_clusters)

    cluster = draws.integers(n_clusters, size=n_prompts)
    x = centroids[cluster] + within_cluster_sd * draws.standard_normal((n_prompts, dim))
    own = deviation * np.sin(x @ waves.T + phases)
    # The mean of sin(u.x + phase) over a Gaussian with |u| sd = 1 is exp(-1/2) sin(u.centroid + phase).
    error = base + deviation * np.exp(-0.5) * np.sin(centroids @ waves.T + phases)
    posterior = _posterior(x, centroids, weights, within_cluster_sd)
    truth = Truth(cluster, weights, centroids, posterior, error, base, own, posterior @ base + own)
    wrong = draws.random((n_prompts, n_models)) < base[cluster] + own
    benchmark = RoutingBenchmark(
        name=name,
        prompts=[f"simulated prompt {i}" for i in range(n_prompts)],
        tasks=np.array([f"cluster {k}" for k in cluster]),
        models=[f"model {j + 1:02d}" for j in range(n_models)],
        quality=(~wrong).astype(float),
        cost=np.tile(np.geomspace(*COST_RANGE, n_models), (n_prompts, 1)),
        cost_unit=COST_UNIT,
        origin="simulated",
        ids=np.array([f"simulated.{i}" for i in range(n_prompts)]),
        embeddings=x / np.linalg.norm(x, axis=1, keepdims=True) if normalise else x,
        notes=("drawn by routebook.datasets.simulated: no real model or prompt is involved",),
    )
    return benchmark, truth


def _base_error(n_clusters: int, n_models: int, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Error of every model in every cluster, [K, M]: dearer models are better on average, some are specialists."""
    ability = np.linspace(-0.4, 1.6, n_models)
    difficulty = rng.normal(0, 0.6, (n_clusters, 1))
    taste = rng.normal(0, 0.5, (n_clusters, n_models))
    logit = ability - difficulty + taste
    # Every third model, the cheaper ones first, is good at one cluster and worse elsewhere.
    for place, model in enumerate(range(0, n_models, 3)):
        logit[:, model] -= 0.3
        logit[place % n_clusters, model] += 2.2
    error = 1 / (1 + np.exp(logit))
    low = deviation + _MARGIN
    return np.clip(error, low, 1 - low)


def _centroids(n_clusters: int, dim: int, distance: float, rng: np.random.Generator) -> np.ndarray:
    """Centroids at one distance from each other where the dimension allows it, [K, D]."""
    directions = rng.standard_normal((max(n_clusters, dim), dim))
    if n_clusters <= dim:
        directions = np.linalg.qr(directions)[0]
    directions = directions[:n_clusters]
    return directions / np.linalg.norm(directions, axis=1, keepdims=True) * distance / np.sqrt(2)


def _posterior(x: np.ndarray, centroids: np.ndarray, weights: np.ndarray, sd: float) -> np.ndarray:
    """P(z = k | x) by Bayes' rule for spherical Gaussians, [N, K]."""
    squared = ((x[:, None, :] - centroids[None, :, :]) ** 2).sum(axis=2)
    log = np.log(weights) - squared / (2 * sd**2)
    joint = np.exp(log - log.max(axis=1, keepdims=True))
    return joint / joint.sum(axis=1, keepdims=True)


def _check(
    n_prompts: int,
    n_models: int,
    n_clusters: int,
    dim: int,
    separation: float,
    within_cluster_sd: float,
    deviation: float,
    seed: int,
) -> None:
    sizes = {"n_prompts": n_prompts, "n_models": n_models, "n_clusters": n_clusters, "dim": dim}
    for option, value in sizes.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise UserError(f"simulated: {option} is {value!r}, expected a whole number >= 1")
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or seed < 0:
        raise UserError(f"simulated: seed is {seed!r}, expected a whole number >= 0")
    for option, value, low, high in (
        ("separation", separation, 0.0, np.inf),
        ("within_cluster_sd", within_cluster_sd, np.nextafter(0, 1), np.inf),
        ("deviation", deviation, 0.0, 0.4),
    ):
        if isinstance(value, str) or not np.isfinite(value) or not low <= value <= high:
            wanted = f"a number in [0, {high:g}]" if np.isfinite(high) else "a number >= 0"
            wanted = "a number > 0" if option == "within_cluster_sd" else wanted
            raise UserError(f"simulated: {option} is {value!r}, expected {wanted}")
