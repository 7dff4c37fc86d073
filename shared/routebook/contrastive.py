"""The sample-sample contrastive loss of RouterDC (Chen et al., 2024), which later papers take over.

All take any number of leading axes, so that one call serves several routers trained side by side.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Finite, so that a probability of 0 times its logarithm is 0 and not NaN.
MASKED = -1e9


def pairs(groups: Tensor, keys: Tensor, n_negatives: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw for each prompt of a batch another one of its group and up to H of other groups (RadialRouter, Algorithm 2).

    Parameters
    ----------
    groups : Tensor of int, [..., B]
    keys : Tensor, [..., B, B]
        Uniform random numbers: the largest among the candidates wins.
    n_negatives
        H.

    Returns
    -------
    partners : Tensor of int, [..., B, 1 + H]
        Positions in the batch, the positive one first.
    found : Tensor of bool, [..., B]
        Whether the batch holds another prompt of the group; if not, the prompt has no contrastive loss.
    negative : Tensor of bool, [..., B, H]
        False where the batch has too few prompts of other groups.
    """
    same = groups.unsqueeze(-1) == groups.unsqueeze(-2)
    other = ~torch.eye(same.shape[-1], dtype=torch.bool)
    best, positive = keys.masked_fill(~(same & other), -1.0).max(dim=-1, keepdim=True)
    found = best.squeeze(-1) >= 0
    value, negatives = keys.masked_fill(same, -1.0).topk(min(n_negatives, same.shape[-1]), dim=-1)
    return torch.cat([positive, negatives], dim=-1), found, value >= 0


def query_query(query: Tensor, partners: Tensor, found: Tensor, negative: Tensor) -> Tensor:
    """RadialRouter's Eq. (5) on the cosine similarities of E(x), [..., B, d] -> [..., B]; no temperature, as printed.

    0 for a prompt without a positive one in the batch.
    """
    unit = functional.normalize(query, dim=-1)
    similarity = (unit @ unit.transpose(-2, -1)).gather(-1, partners)
    present = torch.cat([torch.ones_like(negative[..., :1]), negative], dim=-1)
    terms = similarity.masked_fill(~present, MASKED).logsumexp(dim=-1)
    return (terms - similarity[..., 0]) * found
