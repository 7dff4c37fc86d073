"""The losses of SemiRouter, Eqs. (4) to (9), on a batch of queries; torch tensors in, a scalar a batch out.

A query has predictions for all anchors, from the frozen backbone, and for the LLMs with sparse data, from the adapter.
No label enters Eqs. (4) and (7): they push predictions apart until these differ by the margin, also where two LLMs are
equally good (SR-17).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

PAIRINGS = ("query", "batch")
WEIGHTINGS = ("eq9", "algorithm-1")
DIVERSITY_SCALE = 0.1  # Eq. (7)

Pairing = Literal["query", "batch"]
Weighting = Literal["eq9", "algorithm-1"]


def anchor_to_sparse(
    anchor: Tensor,
    anchor_seen: Tensor,
    sparse: Tensor,
    sparse_seen: Tensor,
    margin: float | Tensor,
    *,
    pairing: Pairing = "query",
    batch_size: int | Tensor = 0,
) -> Tensor:
    """Eqs. (4) to (6) without alpha: ReLU(margin - |q(anchor) - q(sparse)|) over the pairs of each query.

    Parameters
    ----------
    anchor, sparse : Tensor, [..., B, A] and [..., B, S]
        Predicted qualities of B queries.
    anchor_seen, sparse_seen : Tensor of bool
        Which of them are in D_i^A and D_i^S, that is, have a label.
    margin : float or Tensor, [..., 1, 1, 1]
    pairing : {"query", "batch"}
        Eq. (5) divides a sum over all pairs by |B_c|, which is a count of neither pairs nor queries. "query": the
        mean over a query's pairs, then over the queries that have any, which keeps the loss in [0, margin]. "batch":
        as printed.
    batch_size : int or Tensor, [...]
        |B_c| of "batch": all (query, LLM) samples of the batch.

    Returns
    -------
    Tensor, [...]
        A scalar for one batch.
    """
    gap = (margin - (anchor[..., :, None] - sparse[..., None, :]).abs()).relu()  # Eq. (4)
    pair = anchor_seen[..., :, None] & sparse_seen[..., None, :]  # Eq. (6)
    return _average((gap * pair).sum(dim=(-2, -1)), pair.sum(dim=(-2, -1)), pairing, batch_size)


def diversity(sparse: Tensor, sparse_seen: Tensor, threshold: float | Tensor) -> Tensor:
    """Eq. (7): 0.1 times the mean of ReLU(delta - |q_1 - q_2|) over the pairs of sparse LLMs of a query.

    The mean is over a query's pairs, then over the queries that have any; arguments as in `anchor_to_sparse`.
    """
    gap = (threshold - (sparse[..., :, None] - sparse[..., None, :]).abs()).relu()
    pair = (sparse_seen[..., :, None] & sparse_seen[..., None, :]).triu(diagonal=1)
    return DIVERSITY_SCALE * _average((gap * pair).sum(dim=(-2, -1)), pair.sum(dim=(-2, -1)), "query", 0)


def _average(total: Tensor, count: Tensor, pairing: Pairing, batch_size: int | Tensor) -> Tensor:
    if pairing == "batch":
        return total.sum(dim=-1) / (batch_size or 1 if isinstance(batch_size, int) else batch_size.clamp(min=1))
    return (total / count.clamp(min=1)).sum(dim=-1) / (count > 0).sum(dim=-1).clamp(min=1)


def contrastive_weight(lam: float, weighting: Weighting = "eq9") -> float:
    """Return the weight of the contrastive loss L_c: lam in Eq. (9), 1 - lam in line 12 of Algorithm 1 (SR-15).

    They agree at the paper's lam = 0.5 only.
    """
    return lam if weighting == "eq9" else 1 - lam


def combined(prediction: Tensor, contrastive: Tensor, weight: float | Tensor) -> Tensor:
    """Weigh the prediction loss L_p against the contrastive loss L_c, whose weight `contrastive_weight` gives."""
    return (1 - weight) * prediction + weight * contrastive  # Eq. (9), or Algorithm 1
