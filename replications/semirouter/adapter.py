"""The R-adapter and its fusion network (SemiRouter, Section 4, Appendix C.2 and C.3).

For a query with embedding V_q and backbone feature V_b, and an LLM with a learned identity vector,

- the adaptive path makes V_f of V_q and the LLM's vectors (MLP, EMB or ATT),
- the fusion network makes the logits of the quality classes of [V_b | V_f].

The first layer of each is linear in parts that depend on the query alone and on the LLM alone, so the query's part is
computed once for all LLMs. This module imports torch; import it only when a router is trained or counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from routebook.errors import UserError

ID_WIDTH = 64  # 1600 - 1536, Appendix C.3
VECTOR_WIDTH = 128  # V_m of EMB
PROJECTED_WIDTH = 128


class RAdapter(nn.Module):
    """Logits of the quality classes of (query, LLM) pairs.

    Parameters
    ----------
    n_models
        LLMs with an identity vector; the anchors have one too.
    feature_width, query_width
        Dimensions of V_b (BERT: 768) and V_q (text-embedding-3-small: 1536).
    n_classes
    variant : {"mlp", "emb", "att"}
    hidden
        Widths of the adaptive path's layers; the last one is that of V_f. ATT has the last alone, behind its pooling.
    fusion
        Hidden widths of the three-layer fusion network.
    dropout
    layers, heads, feedforward
        ATT: Transformer encoder layers, attention heads and feed-forward width.
    model_width
        ATT: its hidden width; None is the query's, 1536 in the paper. Another one projects V_q to it.
    tokens
        ATT: 2 gives the attention the query and the LLM as two tokens; 1 is Appendix C.3 as worded, where [V_q | id]
        is projected to one vector, on which attention has nothing to weigh (SR-6).

    Attributes
    ----------
    ids : Parameter, [M, 64]
    vectors : Parameter, [M, 128]
        V_m, of EMB alone.
    """

    def __init__(
        self,
        n_models: int,
        feature_width: int,
        query_width: int,
        n_classes: int,
        variant: str = "emb",
        *,
        hidden: Sequence[int] = (512, 256),
        fusion: Sequence[int] = (1024, 512),
        dropout: float = 0.1,
        layers: int = 4,
        heads: int = 8,
        feedforward: int = 2048,
        model_width: int | None = None,
        tokens: int = 2,
    ):
        super().__init__()
        self.variant, self.tokens = variant, tokens
        self.ids = nn.Parameter(torch.randn(n_models, ID_WIDTH))
        if variant == "att":
            width = model_width or query_width
            self.path = _Attention(query_width, width, hidden[-1], dropout, layers, heads, feedforward, tokens)
        else:
            width = query_width
            if variant == "emb":
                self.project = nn.Linear(query_width, PROJECTED_WIDTH)
                self.vectors = nn.Parameter(torch.randn(n_models, VECTOR_WIDTH))
                width = PROJECTED_WIDTH + VECTOR_WIDTH
            self.path = _layers([width + ID_WIDTH, *hidden], dropout)
        self.fusion = _layers([feature_width + hidden[-1], *fusion], dropout)
        self.classify = nn.Linear(fusion[-1], n_classes)

    @property
    def identity(self) -> Tensor:
        """What stands for the LLMs, [M, 64] or, for EMB, V_m and the identity together, [M, 192]."""
        return torch.cat([self.vectors, self.ids], dim=1) if self.variant == "emb" else self.ids

    def prepare(self, feature: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return what depends on queries alone, from V_b [R, F] and V_q [R, D]; it serves every LLM."""
        if self.variant == "att":
            entered = self.path.enter_query(query)
        else:
            entered = _split(self.path[0], self.project(query) if self.variant == "emb" else query, bias=True)
        return _split(self.fusion[0], feature, bias=True), entered

    def forward(self, prepared: tuple[Tensor, Tensor], identity: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [P, C] and V_f [P, H] of P pairs.

        Parameters
        ----------
        prepared
            As `prepare` returns it, indexed to the queries of the pairs.
        identity : Tensor, [P or 1, 64 or 192]
            Rows of `identity`.
        """
        feature, query = prepared
        if self.variant == "att":
            adapted = self.path(query, identity)
        else:
            adapted = self.path[1:](query + _split(self.path[0], identity, bias=False))
        fused = self.fusion[1:](feature + _split(self.fusion[0], adapted, bias=False))
        return self.classify(fused), adapted


def _layers(widths: Sequence[int], dropout: float) -> nn.Sequential:
    parts: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        parts += [nn.Linear(fan_in, fan_out), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*parts)


def _split(layer: nn.Linear, part: Tensor, *, bias: bool) -> Tensor:
    """Apply a linear layer to one part of its concatenated input: the first with the bias, the last without."""
    width = part.shape[-1]
    if bias:
        return functional.linear(part, layer.weight[:, :width], layer.bias)
    return functional.linear(part, layer.weight[:, layer.in_features - width :])


class _Attention(nn.Module):
    """The Transformer path: Transformer encoder layers, mean pooling, a linear map to V_f."""

    def __init__(
        self,
        query_width: int,
        width: int,
        out: int,
        dropout: float,
        layers: int,
        heads: int,
        feedforward: int,
        tokens: int,
    ):
        super().__init__()
        if width % heads:
            raise UserError(
                f"the attention is {width} wide, which heads={heads} does not divide; use "
                f"heads={max(h for h in range(1, heads + 1) if width % h == 0)}"
            )
        self.tokens = tokens
        self.enter = nn.Linear((query_width if tokens == 1 else 0) + ID_WIDTH, width)
        if tokens == 2 and width != query_width:
            self.project = nn.Linear(query_width, width)
        layer: dict[str, Any] = {"dim_feedforward": feedforward, "dropout": dropout, "batch_first": True}
        self.encoder = nn.ModuleList([nn.TransformerEncoderLayer(width, heads, **layer) for _ in range(layers)])
        self.leave = nn.Linear(width, out)

    def enter_query(self, query: Tensor) -> Tensor:
        if self.tokens == 1:
            return _split(self.enter, query, bias=True)
        return self.project(query) if hasattr(self, "project") else query

    def forward(self, query: Tensor, identity: Tensor) -> Tensor:
        if self.tokens == 1:
            state = (query + _split(self.enter, identity, bias=False))[:, None]
        else:
            state = torch.stack([query, self.enter(identity).expand_as(query)], dim=1)
        for layer in self.encoder:
            state = layer(state)
        return self.leave(state.mean(dim=1))
