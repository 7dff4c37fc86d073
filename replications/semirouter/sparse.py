"""The sparse setting (SemiRouter, Sections 3 and 5.1): anchors fully observed, all other LLMs thinned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError, suggest
from routebook.routers import observed_mean

PER_QUERY = 2  # Section 5.1: "around 2 samples per query"


def check_anchors(anchors: Sequence[str], models: Sequence[str], who: str) -> np.ndarray:
    """Return the column of each anchor, [A] of int.

    Raises
    ------
    UserError
        When there is no anchor, one is not in the pool or is named twice, or no other LLM is left.
    """
    if isinstance(anchors, str):
        raise UserError(f"{who}: anchors is the text {anchors!r}, expected a list of LLMs: [{anchors!r}]")
    if len(anchors) == 0:
        raise UserError(
            f"{who}: there is no anchor model, and the backbone learns from anchors alone; name at least one LLM of "
            f"the pool, e.g. anchors=[{models[0]!r}]"
        )
    for place, anchor in enumerate(anchors):
        if anchor not in models:
            raise UserError(
                f"{who}: the anchor {anchor!r} is not in the pool, which has {', '.join(models)}"
                f"{suggest(str(anchor), models)}"
            )
        if anchor in list(anchors)[:place]:
            raise UserError(f"{who}: the anchor {anchor!r} is named twice; name each once")
    if len(anchors) == len(models):
        raise UserError(
            f"{who}: all {len(models)} LLMs of the pool are anchors, so none is left for the R-adapter; name fewer "
            "anchors, or use Backbone, which learns every LLM from full data"
        )
    return np.array([list(models).index(anchor) for anchor in anchors], dtype=int)


def spread_anchors(benchmark: RoutingBenchmark) -> list[str]:
    """Return three anchors "of different capability tiers" for a pool the paper does not have, in pool order.

    Appendix B takes the strongest LLM, a mid-tier one and a lightweight one. Here: of the LLMs ordered by mean
    observed quality (of equals the dearer one is better) the first, the middle one and the last. Look at training
    prompts only. A pool of fewer than four LLMs gives the first alone.
    """
    quality = observed_mean(benchmark.quality)
    order = np.lexsort((-np.nan_to_num(benchmark.mean_cost), -quality))
    places = (0, len(order) // 2, len(order) - 1) if len(order) > 3 else (0,)
    return [benchmark.models[column] for column in sorted(order[list(places)])]


def sparsify(
    benchmark: RoutingBenchmark,
    anchors: Sequence[str],
    per_query: int = PER_QUERY,
    share: float | None = None,
    seed: int = 0,
) -> RoutingBenchmark:
    """Return the benchmark with most labels of the LLMs that are no anchors hidden (NaN).

    Parameters
    ----------
    benchmark
        Labels that are already missing stay so.
    anchors
        Names of the LLMs whose labels are all kept.
    per_query
        How many of the other LLMs keep their label on a query, drawn uniformly; fewer where fewer have one. Section
        5.1 says "around 2 samples per query" and no more; that the number is exact, counts the LLMs besides the
        anchors and is uniform over them is our reading.
    share
        Instead: the share of labels that each of the other LLMs keeps, in (0, 1], drawn uniformly over its prompts
        and rounded, at least one. With one seed, a smaller share is a part of a larger one.
    seed

    Raises
    ------
    UserError
        As `check_anchors`; when `per_query` is no whole number >= 1 or `share` lies outside (0, 1]; and when an LLM
        is left without any label, because nothing could be learned about it.
    """
    columns = check_anchors(anchors, benchmark.models, "sparsify")
    if share is None:
        if isinstance(per_query, bool) or not isinstance(per_query, int | np.integer) or per_query < 1:
            raise UserError(f"sparsify: per_query is {per_query!r}, expected a whole number of LLMs >= 1")
    elif isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise UserError(
            f"sparsify: share is {share!r}, expected a number in (0, 1]; with no label at all there is nothing to "
            "learn about an LLM (0.01 keeps one label in a hundred)"
        )
    quality = benchmark.quality
    thinned = np.setdiff1d(np.arange(quality.shape[1]), columns)
    # Labels with the smallest keys are kept; a missing one never is.
    keys = np.random.default_rng(seed).random((len(quality), len(thinned)))
    keys[np.isnan(quality[:, thinned])] = np.inf
    axis = 1 if share is None else 0
    rank = np.argsort(np.argsort(keys, axis=axis, kind="stable"), axis=axis, kind="stable")
    most = per_query
    if share is not None:
        most = np.maximum(1, np.round(share * np.isfinite(keys).sum(axis=0)))
    kept = np.full(quality.shape, True)
    kept[:, thinned] = (rank < most) & np.isfinite(keys)
    sparse = np.where(kept, quality, np.nan)
    _check_none_is_lost(benchmark.models, sparse, per_query if share is None else share)
    return replace(benchmark, quality=sparse)


def _check_none_is_lost(models: Sequence[str], quality: np.ndarray, kept: float) -> None:
    never = np.isnan(quality).all(axis=0)
    if never.any():
        model = models[int(np.argmax(never))]
        raise UserError(
            f"sparsify: model {model!r} is left without any observed quality on these {len(quality)} prompts (kept: "
            f"{kept:g}); keep more labels, give more prompts, or leave the model out of the pool"
        )
