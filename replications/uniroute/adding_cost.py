"""Appendix H.2, measured: what it costs to add an LLM to UniRoute, and to retrain a static router instead.

Embedding prompts and calling LLMs, the terms B and C of the paper, are not part of what is timed here.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from routebook import routers
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError
from routebook.progress import progress
from routebook.quiet import quiet
from routebook.threads import one_thread

TRAINING_SIZE, POOL_SIZE = "training-size", "pool-size"
QUANTITIES = (TRAINING_SIZE, POOL_SIZE)
# What is timed, and how a figure draws it.
ADDING, TRAINING, RETRAINING = "uniroute", "uniroute-training", "static"
LOOKS = {ADDING: "k-means", RETRAINING: "retrained-mlp"}


def measure(
    training_sizes: Sequence[int] = (1000, 2000, 4000, 8000),
    pool_sizes: Sequence[int] = (256, 512, 1024, 2048, 4096),
    *,
    n_training: int = 2000,
    n_models: int = 64,
    n_validation: int = 400,
    n_clusters: int = 16,
    n_iterations: int = 10,
    n_epochs: int = 2,
    batch_size: int = 512,
    dim: int = 384,
    repeats: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Time adding an LLM to UniRoute (K-means), training it, and retraining a static router, on made-up data.

    The static router is the one of the paper's analysis, a dense layer on a frozen embedding. Prompts are noise on
    the unit sphere, so that K-means never converges early and takes the same number of iterations at every size.
    One quantity grows at a time. The pools are larger than any there is: in smaller ones the dense layer costs no more
    than what every training does whatever the pool, such as copying the embeddings, and its order would not show.
    Training UniRoute here includes the representation of the pool by its training labels, O(N M), which the paper
    leaves out of its count.

    Parameters
    ----------
    training_sizes, pool_sizes
        The paper's N and M where they are varied, ascending.
    n_training, n_models
        N and M where they are not.
    n_validation, n_clusters, n_iterations, n_epochs, dim
        The paper's N_val, K, I, T and D.
    batch_size
        Examples a training step of the static router. The paper counts O(D M) an example, whatever the batch; batches
        as large as this keep the fixed cost of a step, which it does not count, small beside it.
    repeats
        Timings of each, interleaved over sizes, of which the median is kept.
    seed
        Of the data and the routers; it does not make times repeat.

    Returns
    -------
    DataFrame
        One row a quantity, size and router: quantity ("training-size" or "pool-size"), size, router ("uniroute": an
        LLM is added; "uniroute-training": the router is trained; "static": it is retrained), seconds of processor
        time on one thread.

    Raises
    ------
    UserError
        When there are fewer than 5 repeats.
    """
    if repeats < 5:
        raise UserError(f"repeats is {repeats}, expected 5 or more: the median of fewer timings is too uncertain")
    rng = np.random.default_rng(seed)
    validation = _noise(n_validation, 1, dim, rng)
    kmeans = routers.KMeans(n_clusters, seed=seed, n_init=2, max_iter=n_iterations)
    static = routers.MLP(hidden=(), epochs=n_epochs, batch_size=batch_size, seed=seed)
    pools = {
        TRAINING_SIZE: _by_training_size(_noise(max(training_sizes), n_models, dim, rng), training_sizes),
        POOL_SIZE: _by_pool_size(_noise(n_training, max(pool_sizes), dim, rng), pool_sizes),
    }
    cases = [(quantity, size, pool) for quantity, sized in pools.items() for size, pool in sized]
    rows = []
    with one_thread():
        list(_time(kmeans, static, cases[0][2], validation))  # what is loaded on first use is not timed
        for _ in progress(range(repeats), label="timing", unit="round"):
            for quantity, size, pool in cases:
                for router, seconds in _time(kmeans, static, pool, validation):
                    rows.append({"quantity": quantity, "size": size, "router": router, "seconds": seconds})
    frame = pd.DataFrame(rows)
    return frame.groupby(["quantity", "size", "router"], sort=False, as_index=False)["seconds"].median()


def _time(
    kmeans: routers.KMeans, static: routers.MLP, pool: RoutingBenchmark, validation: RoutingBenchmark
) -> Iterator[tuple[str, float]]:
    fitted = copy.copy(kmeans)
    yield TRAINING, _seconds(lambda: fitted.fit(pool, pool.embeddings))
    # After the first, each addition replaces the LLM where it stands, which is as much work.
    yield ADDING, _seconds(lambda: fitted.add_models(validation, validation.embeddings), times=30)
    yield RETRAINING, _seconds(lambda: copy.copy(static).fit(pool, pool.embeddings))


def _seconds(call: Callable[[], object], times: int = 1) -> float:
    """Return processor time a call, which other programs on the machine disturb less than the time on the wall."""
    with quiet():
        start = time.process_time()
        for _ in range(times):
            call()
        return (time.process_time() - start) / times


def _noise(n: int, m: int, dim: int, rng: np.random.Generator) -> RoutingBenchmark:
    """Draw prompts without clusters and answers right by the toss of a coin; a pool of one is a new LLM."""
    embeddings = rng.standard_normal((n, dim), dtype=np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return RoutingBenchmark(
        name="noise",
        prompts=[f"prompt {i}" for i in range(n)],
        tasks=np.full(n, "noise"),
        models=["new model"] if m == 1 else [f"model {j}" for j in range(m)],
        quality=rng.integers(0, 2, (n, m)),
        cost=np.ones((n, m)),
        cost_unit="simulated units",
        origin="simulated",
        embeddings=embeddings,
    )


def _by_training_size(pool: RoutingBenchmark, sizes: Sequence[int]) -> list[tuple[int, RoutingBenchmark]]:
    return [(size, pool.subset(np.arange(size))) for size in sizes]


def _by_pool_size(pool: RoutingBenchmark, sizes: Sequence[int]) -> list[tuple[int, RoutingBenchmark]]:
    return [(size, pool.subset(models=pool.models[:size])) for size in sizes]


def slopes(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the slope of time against size on logarithmic axes: 0 is constant, 1 proportional.

    Parameters
    ----------
    frame
        As `measure` returns.

    Returns
    -------
    DataFrame
        One row a router and quantity, named "router/quantity": value (least squares), low and high (95 % t-interval
        over sizes), n (number of sizes).

    Raises
    ------
    UserError
        When a router was timed at fewer than three sizes, which leave nothing to tell an interval by.
    """
    from scipy.stats import linregress, t

    rows = {}
    for (router, quantity), group in frame.groupby(["router", "quantity"], sort=False):
        n = len(group)
        if n < 3:
            raise UserError(f"{router} was timed at {n} sizes of {quantity}, expected 3 or more; give more sizes")
        size, seconds = np.log(group["size"]), np.log(group["seconds"])
        line = linregress(size, seconds)
        residual = seconds - line.intercept - line.slope * size
        # linregress's own standard error is NaN where every point is on the line.
        half = t.ppf(0.975, n - 2) * np.sqrt((residual**2).sum() / (n - 2) / ((size - size.mean()) ** 2).sum())
        rows[f"{router}/{quantity}"] = {
            "value": line.slope,
            "low": line.slope - half,
            "high": line.slope + half,
            "n": n,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def lines(frame: pd.DataFrame, quantity: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return what a figure draws: method of `routebook.figures` to (sizes, seconds to take in one more LLM).

    Raises
    ------
    UserError
        When the quantity is not one of `QUANTITIES`.
    """
    if quantity not in QUANTITIES:
        raise UserError(f"quantity is {quantity!r}, expected {' or '.join(map(repr, QUANTITIES))}")
    drawn = {}
    for router, look in LOOKS.items():
        rows = frame[(frame["router"] == router) & (frame["quantity"] == quantity)]
        drawn[look] = rows["size"].to_numpy(), rows["seconds"].to_numpy()
    return drawn
