"""How forward time grows with the pool: O(n d) against O(n^2 d) (Section 3.1; "Time" of Tables 2 and 8)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from replications.radialrouter.radial_router import BACKBONES, RadialRouter
from routebook.errors import UserError
from routebook.quiet import quiet
from routebook.threads import one_torch_thread

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)
# A batch with more nodes is computed in parts, for every backbone alike: beyond some 30 MB an array is fresh memory
# from the system each time it is made, which then costs more than the arithmetic.
NODES_AT_ONCE = 8192


def forward_times(
    sizes: Sequence[int] = SIZES,
    *,
    backbones: Sequence[str] = BACKBONES,
    batch: int = 64,
    width: int = 128,
    layers: int = 2,
    heads: int = 4,
    head_width: int | None = None,
    repeats: int = 3,
    budget: float = 16.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Time a forward pass of every backbone, of equal width, depth and heads, on pools of growing size.

    One torch thread, no gradients, random weights and queries. At each size the backbones take turns, so that what
    else the machine does falls on all of them, and the smallest time counts, the one least disturbed. Sizes are
    measured from small to large until `budget` is used up: a backbone is left out where its next pass, at four times
    the last when n doubles, would not fit in.

    Parameters
    ----------
    sizes
        Numbers of LLMs n.
    head_width
        `width / heads` if None.
    repeats
        Passes at most at each size, after one that is not counted.
    budget
        Seconds in all, about.

    Returns
    -------
    DataFrame
        Columns `backbone`, `n`, `ms` (smallest time a batch, in milliseconds) and `passes` (how many it is of).
    """
    import torch

    from replications.radialrouter.radialformer import BACKBONES as CLASSES

    generator = torch.Generator().manual_seed(seed)
    head_width = head_width or width // heads
    rows, last = [], dict.fromkeys(backbones, (0, 0.0))
    start = time.perf_counter()
    with torch.inference_mode(), one_torch_thread():
        query = torch.randn(batch, width, generator=generator)
        for n in sorted(sizes):
            left = max(0.0, budget - (time.perf_counter() - start))
            ahead = {name: seconds * (n / before) ** 2 if before else 0.0 for name, (before, seconds) in last.items()}
            networks, share = {}, left / max(1, len(last))
            for name in sorted(ahead, key=ahead.get):
                if 2 * ahead[name] <= share:
                    networks[name] = CLASSES[name](n, width, layers, heads, head_width, generator=generator).eval()
            parts = query.split(max(1, NODES_AT_ONCE // n))
            with quiet():
                seconds = {name: [_once(network, parts)] for name, network in networks.items()}
                for _ in range(repeats):
                    for name, network in networks.items():
                        if len(seconds[name]) == 1 or seconds[name][-1] < share / (2 * repeats):
                            seconds[name].append(_once(network, parts))
            for name in networks:
                times = seconds[name][1:]
                last[name] = n, min(times)
                rows.append({"backbone": name, "n": n, "ms": 1000 * min(times), "passes": len(times)})
            last = {name: value for name, value in last.items() if name in networks}
            if not last:
                break
    return pd.DataFrame(rows)


def _once(network: Callable[[Any], Any], parts: Sequence[Any]) -> float:
    start = time.perf_counter()
    for part in parts:
        network(part)
    return time.perf_counter() - start


def slopes(times: pd.DataFrame, *, at_least: int = 64) -> dict[str, float]:
    """Fit log time against log n for pools of `at_least` LLMs, and return each backbone's slope.

    1 is linear in n, 2 quadratic; below 64 LLMs the time of a pass is mostly that of calling operations at all.
    """
    fitted = {}
    for name, part in times[times["n"] >= at_least].groupby("backbone", sort=False):
        if len(part) > 1:
            fitted[name] = float(np.polyfit(np.log(part["n"]), np.log(part["ms"]), 1)[0])
    return fitted


def ratio(times: pd.DataFrame, n: int = 128, *, slow: str = "transformer", fast: str = "radialformer") -> float:
    """Return how many times as long `slow` takes as `fast` for n LLMs; NaN where one was not measured."""
    at = times[times["n"] == n].set_index("backbone")["ms"]
    return float(at.get(slow, np.nan) / at.get(fast, np.nan))


def batch_times(
    routers: Mapping[str, RadialRouter], embeddings: np.ndarray, *, batch: int = 64, repeats: int = 20
) -> pd.DataFrame:
    """Time how long fitted routers take to score batches of embedded prompts, on one thread, in milliseconds.

    "Time" of Tables 2 and 8, without the text encoder (whether the paper's includes it is not said). The routers take
    turns on each batch, so that what else the machine does falls on all of them.

    Returns
    -------
    DataFrame
        One row a batch, `repeats` in all, spread evenly over the prompts; one column a router.
    """
    if len(embeddings) < batch:
        raise UserError(f"there are {len(embeddings)} embeddings for batches of {batch}; give more, or lower batch")
    for router in routers.values():
        router.predict_quality(embeddings[:batch])
    rows = []
    with quiet():
        for start in np.linspace(0, len(embeddings) - batch, repeats).astype(int):
            row = {}
            for name, router in routers.items():
                before = time.perf_counter()
                router.predict_quality(embeddings[start : start + batch])
                row[name] = 1000 * (time.perf_counter() - before)
            rows.append(row)
    return pd.DataFrame(rows)
