"""How UniRoute chooses its hyper-parameters: on training LLMs only (Appendix G.1 and G.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError
from routebook.progress import progress
from routebook.routers import Router, quality_for

# Areas closer than this differ by rounding alone.
TIE = 1e-12


@dataclass(frozen=True)
class Selection:
    """What was chosen and from what.

    Attributes
    ----------
    best
        The candidate with the largest area; of equals the smallest.
    grid : tuple
        All candidates, ascending.
    areas : ndarray, [len(grid)]
        Area under the validation deferral curve of each candidate, over the training LLMs.
    """

    best: int
    grid: tuple[int, ...]
    areas: np.ndarray


def choose(
    estimate: Callable[[int], np.ndarray], grid: Sequence[int], judged: RoutingBenchmark, cost: np.ndarray | None = None
) -> Selection:
    """Choose the candidate whose estimates route best.

    Parameters
    ----------
    estimate
        Returns a candidate's estimated quality of the LLMs of `judged` on its prompts, [N_val, M].
    grid
        Candidates.
    judged
        Validation prompts with the labels of the training LLMs, M of them, and no others.
    cost : ndarray, [M], optional
        Cost of each training LLM; by default its mean cost on these prompts (the paper's c(h) has no x).

    Returns
    -------
    Selection

    Raises
    ------
    UserError
        When the grid is empty, or a candidate's deferral curve has no area.
    """
    from routebook.deferral import deferral_curve

    if len(grid) == 0:
        raise UserError("the grid of candidates is empty; give at least one value")
    candidates = tuple(sorted(set(grid)))
    cost = judged.mean_cost if cost is None else np.asarray(cost, dtype=float)
    areas = []
    for candidate in progress(candidates, label="choosing K", unit="candidate"):
        areas.append(deferral_curve(estimate(candidate), judged.quality, cost).area())
    areas = np.array(areas)
    if np.isnan(areas).any():
        raise UserError(
            f"the validation deferral curve of candidate {candidates[int(np.argmax(np.isnan(areas)))]} has no area: "
            "no routed answer was observed; give validation prompts that the training LLMs have answered"
        )
    return Selection(_best(candidates, areas), candidates, areas)


def average(selections: Sequence[Selection]) -> Selection:
    """Return the choice by the mean of the areas of several selections from the same grid."""
    areas = np.mean([selection.areas for selection in selections], axis=0)
    return Selection(_best(selections[0].grid, areas), selections[0].grid, areas)


def _best(candidates: tuple[int, ...], areas: np.ndarray) -> int:
    return candidates[int(np.flatnonzero(areas >= areas.max() - TIE)[0])]


def select(
    make_router: Callable[[int], Router],
    grid: Sequence[int],
    train: RoutingBenchmark,
    train_embeddings: np.ndarray,
    validation: RoutingBenchmark,
    validation_embeddings: np.ndarray,
    *,
    cost: np.ndarray | None = None,
) -> Selection:
    """Choose K as Appendix G.1 does.

    For each candidate the training LLMs are represented by their labels on the training prompts, the validation
    prompts are routed among the training LLMs, and the area under that deferral curve is measured. Test LLMs play no
    part. For K-NN this means that K is tuned with neighbours among the (many) training prompts and used with
    neighbours among the (few) validation prompts: the paper's own mismatch.

    Parameters
    ----------
    make_router
        Makes an unfitted router from a candidate, e.g. `lambda k: KMeans(k, seed=0)`.
    grid
        Candidates: G.2 has 3 to N_val / 50 clusters, and 5 to N_val / 3 neighbours; it gives no steps.
    train
        Training prompts with the labels of the training LLMs, M of them.
    train_embeddings : ndarray, [N_train, D]
    validation
        Validation prompts; its LLMs must include the training LLMs, others are ignored.
    validation_embeddings : ndarray, [N_val, D]
    cost : ndarray, [M], optional
        Cost of each training LLM, in the order of `train.models`; by default its mean cost on the validation prompts
        (the paper's c(h) has no x).

    Returns
    -------
    Selection

    Raises
    ------
    UserError
        When the grid is empty, a training LLM is missing from `validation`, or a candidate is out of range.
    """
    judged = validation.subset(models=train.models)

    def estimate(candidate: int) -> np.ndarray:
        router = make_router(candidate).fit(train, train_embeddings)
        return quality_for(router, validation_embeddings, train.models, tasks=judged.tasks)

    return choose(estimate, grid, judged, cost)
