"""The losses of RadialRouter that supervise scores, Eqs. (4), (8) and (9), a value a prompt.

Eq. (5), its contrastive loss, is `routebook.contrastive.query_query`.

All take any number of leading axes, so that one call serves several routers trained side by side. LLMs whose answer
to a prompt was not observed are masked: predicted and target distributions are those over the LLMs observed on it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from routebook.contrastive import MASKED


def log_probabilities(scores: Tensor, seen: Tensor) -> Tensor:
    """Return log softmax(scores) over the observed LLMs, [..., n]; very negative where not observed."""
    return functional.log_softmax(scores.masked_fill(~seen, MASKED), dim=-1)


def kl(scores: Tensor, target: Tensor, seen: Tensor) -> Tensor:
    """Eq. (4) as printed: sum_i p_i log(p_i / q_i), p predicted, target = log q. The mode-seeking direction."""
    log_p = log_probabilities(scores, seen)
    return ((log_p.exp() * (log_p - target)) * seen).sum(dim=-1)


def kl_reverse(scores: Tensor, target: Tensor, seen: Tensor) -> Tensor:
    """The other direction, sum_i q_i log(q_i / p_i): cross-entropy with soft labels, less a constant."""
    return (target.exp() * (target - log_probabilities(scores, seen)) * seen).sum(dim=-1)


def cross_entropy(scores: Tensor, target: Tensor, seen: Tensor) -> Tensor:
    """Eq. (8): -sum_i y_i log p_i, target = y, 1 for the LLM with the highest score and else 0."""
    return -(target * log_probabilities(scores, seen)).sum(dim=-1)


def query_llm(scores: Tensor, target: Tensor, seen: Tensor) -> Tensor:
    """Eq. (9): target is 1 on the top-K LLMs, -1 on the bottom-K, else 0. As printed, the exponents are probabilities.

    RouterDC, where the loss comes from, has similarities there; with probabilities a term lies between log(1 + K/e)
    and log(1 + K e), so gradients are small.
    """
    p = log_probabilities(scores, seen).exp()
    top, bottom = target > 0, target < 0
    below = p.masked_fill(~bottom, MASKED).logsumexp(dim=-1, keepdim=True)
    return ((torch.logaddexp(p, below) - p) * top).sum(dim=-1)


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {"kl": kl, "kl-reverse": kl_reverse, "ce": cross_entropy, "query-llm": query_llm}


def targets(scores: np.ndarray, loss: str, *, temperature: float, top_k: int) -> np.ndarray:
    """Turn true scores into what a loss takes as `target`.

    Parameters
    ----------
    scores : ndarray, [N, n]
        Eq. (7); NaN = not observed.
    loss : {"kl", "kl-reverse", "ce", "query-llm"}
    temperature
        Of q = softmax(score / temperature); 1 in the paper.
    top_k
        K of Eq. (9).

    Returns
    -------
    ndarray, [N, n]
        log q, 0 where not observed; or labels. Ties go to the LLM that stands first in the pool (the paper does not
        say; with cost ignored and answers right or wrong, most prompts have ties). A prompt with fewer than 2 K LLMs
        observed has no pair in Eq. (9).
    """
    seen = ~np.isnan(scores)
    if loss in ("kl", "kl-reverse"):
        logits = np.where(seen, scores / temperature, -np.inf)
        peak = np.where(seen.any(axis=1), logits.max(axis=1), 0.0)[:, None]
        total = np.where(seen, np.exp(logits - peak), 0.0).sum(axis=1, keepdims=True)
        return np.where(seen, logits - peak - np.log(np.where(total > 0, total, 1.0)), 0.0)
    # Best first, not observed last.
    order = np.argsort(np.where(seen, -scores, np.inf), axis=1, kind="stable")
    rank = np.argsort(order, axis=1)
    count = seen.sum(axis=1, keepdims=True)
    if loss == "ce":
        return ((rank == 0) & seen).astype(float)
    both = count >= 2 * top_k
    return np.where(both & seen, (rank < top_k) * 1.0 - (rank >= count - top_k), 0.0)
