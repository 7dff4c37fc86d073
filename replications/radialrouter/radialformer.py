"""RadialFormer and what the paper puts in its place (RadialRouter, Section 3.1, Algorithm 1, Appendix A, Section 5.2).

Every backbone has the same face: `forward(query)` takes query embeddings [B, d] and returns the final states of the
satellites, one an LLM, [B, n, d], and of the relay, [B, d]. `RadialNetwork` adds what stands before and behind it.

Algorithm 1 is computed without building a context [s; m; r] by copying, and without doing twice what is the same for
every prompt of a batch; `tests/unit/test_radialformer.py` compares it with the loop over nodes that the paper prints.

Several networks of one shape can be run in one call: every backbone but the Transformer also takes weights and queries
that have a leading axis G of networks (`linear`, `normalised`), as `torch.func.stack_module_state` makes them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from routebook.errors import UserError
from routebook.routers import dense

SCALES = ("head", "printed")
# RouterDC's code, the likely parent of the paper's, draws its LLM embeddings with this deviation (7.3, row 18).
EMBEDDING_SD = 0.78
SCORE_HIDDEN = 128  # Section 4.4


def check_heads(width: int, heads: int, head_width: int) -> None:
    """Raise UserError unless the hidden width is a whole multiple of heads x head width.

    Appendix A splits d into h heads of d/h; Section 4.4 has 4 heads of 32 at d = 768, which only fits if the attention
    works in an inner width of 128 and W_o of Eq. (11) leads back to 768 (RR-16). Both are multiples.
    """
    inner = heads * head_width
    if width % inner:
        near = max(inner, round(width / inner) * inner)
        raise UserError(
            f"{heads} heads of {head_width} make an inner width of {inner}, which does not divide the hidden width "
            f"{width}; use width={near}, or head_width={max(1, width // heads)} if {heads} divides the width"
        )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b for weights [out, in] and x [..., in]; or for G networks, [G, out, in] and [G, ..., in]."""
    if weight.dim() == 2:
        return functional.linear(x, weight, bias)
    rows, turned = x.flatten(1, -2), weight.transpose(1, 2)
    out = torch.bmm(rows, turned) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, turned)
    return out.unflatten(1, x.shape[1:-1])


def normalised(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Apply a LayerNorm whose weights are [d], or [G, d] for G networks and x [G, ..., d]."""
    if norm.weight.dim() == 1:
        return norm(x)
    each = (len(x), *[1] * (x.dim() - 2), -1)
    plain = functional.layer_norm(x, norm.normalized_shape, eps=norm.eps)
    return torch.addcmul(norm.bias.view(each), plain, norm.weight.view(each))


class MultiHeadAttention(nn.Module):
    """The weights of MHAttn, Eqs. (10)-(12): no biases, an inner width of heads x head width, W_o back to `width`.

    Who attends to what differs between satellites and relay; see `SatelliteUpdate` and `RelayUpdate`.
    """

    def __init__(self, width: int, heads: int, head_width: int, scale: str, generator: torch.Generator):
        super().__init__()
        inner = heads * head_width
        self.heads, self.head_width, self.inner = heads, head_width, inner
        self.factor = (head_width if scale == "head" else width) ** -0.5
        self.query = dense(width, inner, generator, bias=False)
        self.key = dense(width, inner, generator, bias=False)
        self.value = dense(width, inner, generator, bias=False)
        self.out = dense(inner, width, generator, bias=False)

    def split(self, x: Tensor) -> Tensor:
        """Split the last axis into heads, [..., h w] -> [..., h, w]."""
        return x.unflatten(-1, (self.heads, self.head_width))


class SatelliteUpdate(MultiHeadAttention):
    """Eqs. (1) and (2) for all satellites at once.

    A satellite attends to three nodes only (five with the ring), so the score of each is an elementwise product with
    the query. What belongs to the initial states m is the same for all prompts: [n, ...] instead of [B, n, ...], and
    in the first layer, where s = m, so is everything but the relay.
    """

    def __init__(self, width: int, heads: int, head_width: int, scale: str, generator: torch.Generator, ring: bool):
        super().__init__(width, heads, head_width, scale, generator)
        self.ring = ring
        self.norm = nn.LayerNorm(width)

    def forward(self, states: Tensor | None, models: Tensor, relay: Tensor) -> Tensor:
        """Update satellites [B, n, d] (None: they are still `models`, [n, d]) from the relay [B, d]."""
        of_models, of_relay = self._keys_values(models), self._keys_values(relay)  # [n, h, w] and [B, h, w]
        query = self.split(linear(models if states is None else states, self.query.weight * self.factor))
        if states is None and not self.ring:
            update = self._first(query, *of_models, *of_relay)
        else:
            of_models = [x.unsqueeze(-4) for x in of_models]  # [1, n, h, w]
            query = query.unsqueeze(-4) if states is None else query
            of_states = of_models if states is None else self._keys_values(states)  # [B, n, h, w]
            keys, values = (
                [state, model, node.unsqueeze(-3)]
                for state, model, node in zip(of_states, of_models, of_relay, strict=True)
            )
            if self.ring:  # Guo et al. (2019): also the neighbours on both sides
                keys += [of_states[0].roll(step, dims=-3) for step in (1, -1)]
                values += [of_states[1].roll(step, dims=-3) for step in (1, -1)]
            update = linear(attend(query, keys, values), self.out.weight)
        # Algorithm 1, line 9
        return normalised(self.norm, functional.relu(update))

    def _keys_values(self, nodes: Tensor) -> list[Tensor]:
        """Return keys and values of nodes [..., d], each [..., h, w]."""
        return [self.split(linear(nodes, layer.weight)) for layer in (self.key, self.value)]

    def _first(self, query: Tensor, key_m: Tensor, value_m: Tensor, key_r: Tensor, value_r: Tensor) -> Tensor:
        """Compute MHAttn where the context is [m; m; r], [B, n, d]: nothing of size n x B but the relay's weight.

        With weight a on the relay the values sum to (1 - a) v_m + a v_r in each head, and W_o acts on v_m and v_r.
        """
        score_m = (query * key_m).sum(-1)  # [n, h]
        score_r = torch.einsum("...nhw,...bhw->...bnh", query, key_r)
        weight = torch.sigmoid(score_r - score_m.unsqueeze(-3) - math.log(2))  # e^r / (2 e^m + e^r), [B, n, h]
        out = self.out.weight.unflatten(-1, (self.heads, self.head_width))
        out_m = torch.einsum("...nhw,...dhw->...nhd", value_m, out).flatten(0, -3)
        out_r = torch.einsum("...bhw,...dhw->...bhd", value_r, out).flatten(0, -3)
        # (1 - a) W_o v_m of each LLM, [n, B, d], then a W_o v_r of each prompt on top, [B, n, d].
        stay = torch.bmm((1 - weight).transpose(-3, -2).flatten(0, -3), out_m)
        stay = stay.unflatten(0, score_m.shape[:-1]).transpose(-3, -2)
        return torch.baddbmm(stay.flatten(0, -3), weight.flatten(0, -3), out_r).view(stay.shape)


def attend(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """Attend from each node to nodes of its own, given as one tensor a kind: Eqs. (10) and (12) without a context.

    Parameters
    ----------
    query, each of keys, each of values : Tensor, [1, n, h, w], [B, 1, h, w] or [B, n, h, w]
        The query is divided by the scale already.

    Returns
    -------
    Tensor, [B, n, h w]
    """
    scores = torch.stack(torch.broadcast_tensors(*[(query * key).sum(-1) for key in keys]))
    first, *rest = scores.softmax(dim=0).unsqueeze(-1)
    mixed = first * values[0]
    for weight, value in zip(rest, values[1:], strict=True):
        mixed = torch.addcmul(mixed, weight, value)
    return mixed.flatten(-2)


class RelayUpdate(MultiHeadAttention):
    """Eq. (3): the relay attends to itself and to all satellites.

    There is one query a prompt, so its keys' and values' projections are moved from the n + 1 nodes onto it:
    q . (W_k s) = (W_k^T q) . s, and sum_i a_i (W_v s_i) = W_v (sum_i a_i s_i).
    """

    def __init__(self, width: int, heads: int, head_width: int, scale: str, generator: torch.Generator):
        super().__init__(width, heads, head_width, scale, generator)
        self.norm = nn.LayerNorm(width)

    def forward(self, relay: Tensor, states: Tensor) -> Tensor:
        """Update the relay [B, d] from the satellites [B, n, d]."""
        query = self.split(linear(relay, self.query.weight * self.factor))
        key, value = (x.weight.unflatten(-2, (self.heads, self.head_width)) for x in (self.key, self.value))
        probe = torch.einsum("...bhw,...hwd->...bhd", query, key)
        scores = torch.cat([probe @ relay.unsqueeze(-1), probe @ states.transpose(-2, -1)], dim=-1)  # [B, h, 1 + n]
        weights = scores.softmax(dim=-1)
        pooled = weights[..., 1:] @ states + weights[..., :1] * relay.unsqueeze(-2)
        heads = torch.einsum("...bhd,...hwd->...bhw", pooled, value)
        # Algorithm 1, line 12
        return normalised(self.norm, functional.relu(linear(heads.flatten(-2), self.out.weight)))


class RadialFormer(nn.Module):
    """Algorithm 1: a relay (the query) and n satellites (the LLMs) that meet only through the relay.

    Layers have weights of their own, shared by the satellites of a layer; satellites and relay do not share theirs.
    There is no residual connection: ReLU, then LayerNorm, on both (Algorithm 1; the text names the satellites only).
    The forensic list of guesses, 7.3, has these as rows 14 to 18.

    Parameters
    ----------
    n_models
        Satellites n.
    width
        Hidden width d.
    layers
        The paper's T.
    heads, head_width
        4 and 32 in Section 4.4, whatever the width.
    scale : {"head", "printed"}
        Scores are divided by the root of the head width, or of d as Eq. (10) prints.
    generator : torch.Generator, optional
        Source of the initial weights: Glorot-uniform, and normal with deviation 0.78 for the LLM embeddings.

    Attributes
    ----------
    models : Parameter, [n, d]
        The learned LLM embeddings m.
    """

    ring = False

    def __init__(
        self,
        n_models: int,
        width: int = 768,
        layers: int = 6,
        heads: int = 4,
        head_width: int = 32,
        scale: str = "head",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        check_heads(width, heads, head_width)
        if scale not in SCALES:
            raise UserError(f"scale is {scale!r}, expected {' or '.join(map(repr, SCALES))}")
        generator = generator or torch.Generator().manual_seed(0)
        self.models = llm_embeddings(n_models, width, generator)
        sizes = (width, heads, head_width, scale, generator)
        self.satellites = nn.ModuleList(SatelliteUpdate(*sizes, ring=self.ring) for _ in range(layers))
        self.relays = nn.ModuleList(RelayUpdate(*sizes) for _ in range(layers))

    def forward(self, query: Tensor, final_relay: bool = True) -> tuple[Tensor, Tensor]:
        """Run T layers.

        Parameters
        ----------
        query : Tensor, [B, d]
        final_relay
            Whether to compute r^T, on which nothing in the paper depends: scores come from the satellites. If not,
            r^(T-1) is returned.

        Returns
        -------
        satellites : Tensor, [B, n, d]
        relay : Tensor, [B, d]
        """
        states, relay = None, query
        last = len(self.relays) - 1
        for t, (update_satellites, update_relay) in enumerate(zip(self.satellites, self.relays, strict=True)):
            states = update_satellites(states, self.models, relay)
            if t < last or final_relay:
                relay = update_relay(relay, states)
        return states, relay


class StarTransformerBackbone(RadialFormer):
    """Star-Transformer (Guo et al., 2019): as RadialFormer, but each satellite also attends to its two neighbours.

    The ring joins LLMs in the order of the pool; its last is beside its first.
    """

    ring = True


class TransformerBackbone(nn.Module):
    """The standard Transformer over the n + 1 nodes [query; m_1; ...; m_n], all attending to all.

    `torch.nn.TransformerEncoder` as it comes (residuals, LayerNorm behind them, ReLU), with a feed-forward width of
    4 d and without dropout. Heads have the width d / heads. No positions: the LLM embeddings tell nodes apart.
    """

    def __init__(
        self,
        n_models: int,
        width: int = 768,
        layers: int = 6,
        heads: int = 4,
        head_width: int = 32,
        scale: str = "head",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if width % heads:
            raise UserError(f"the Transformer splits its width into heads: {heads} does not divide {width}")
        generator = generator or torch.Generator().manual_seed(0)
        self.models = llm_embeddings(n_models, width, generator)
        # Its initial weights are drawn from the global state, which is put back and does not matter: drawn again below.
        with torch.random.fork_rng(devices=[]):
            layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        for parameter in self.encoder.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter, generator=generator)
        for layer in self.encoder.layers:
            for bias in (layer.linear1.bias, layer.linear2.bias):
                nn.init.zeros_(bias)

    def forward(self, query: Tensor, final_relay: bool = True) -> tuple[Tensor, Tensor]:
        """Return the final states of the LLMs, [B, n, d], and of the query, [B, d]."""
        models = self.models.expand(len(query), -1, -1)
        states = self.encoder(torch.cat([query.unsqueeze(-2), models], dim=-2))
        return states[..., 1:, :], states[..., 0, :]


class MLPBackbone(nn.Module):
    """[query; m_i] through a perceptron of T layers of the hidden width, ReLU and LayerNorm behind each.

    The first layer's weights are two blocks, one for the query and one for m_i, so each is multiplied once.
    """

    def __init__(
        self,
        n_models: int,
        width: int = 768,
        layers: int = 6,
        heads: int = 4,
        head_width: int = 32,
        scale: str = "head",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        generator = generator or torch.Generator().manual_seed(0)
        self.models = llm_embeddings(n_models, width, generator)
        self.of_query = dense(width, width, generator)
        self.of_model = dense(width, width, generator, bias=False)
        self.layers = nn.ModuleList(dense(width, width, generator) for _ in range(layers - 1))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))

    def forward(self, query: Tensor, final_relay: bool = True) -> tuple[Tensor, Tensor]:
        """Return the last layer, [B, n, d], and the query as it came, [B, d]."""
        of_query = linear(query, self.of_query.weight, self.of_query.bias).unsqueeze(-2)
        states = of_query + linear(self.models, self.of_model.weight).unsqueeze(-3)
        states = normalised(self.norms[0], functional.relu(states))
        for layer, norm in zip(self.layers, self.norms[1:], strict=True):
            states = normalised(norm, functional.relu(linear(states, layer.weight, layer.bias)))
        return states, query


BACKBONES: dict[str, type[nn.Module]] = {
    "radialformer": RadialFormer,
    "star-transformer": StarTransformerBackbone,
    "transformer": TransformerBackbone,
    "mlp": MLPBackbone,
}


class RadialNetwork(nn.Module):
    """What RadialRouter trains apart from the text encoder: projection, backbone, scoring MLP (Section 3.2).

    Parameters
    ----------
    n_inputs
        Width of the text encoder's vectors.
    n_models, backbone, width, layers, heads, head_width, scale
        As in `RadialFormer`; `backbone` is a name in `BACKBONES`.
    project
        Whether a trained linear map leads from the encoder's vectors to E(x). False: they are E(x), as in the paper.
    """

    def __init__(
        self,
        n_inputs: int,
        n_models: int,
        backbone: str = "radialformer",
        width: int = 768,
        layers: int = 6,
        heads: int = 4,
        head_width: int = 32,
        scale: str = "head",
        project: bool = True,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        generator = generator or torch.Generator().manual_seed(0)
        self.projection: Any = dense(n_inputs, width, generator) if project else nn.Identity()
        self.backbone = BACKBONES[backbone](n_models, width, layers, heads, head_width, scale, generator)
        self.hidden = dense(width, SCORE_HIDDEN, generator)
        # No bias: it would add one number to all scores, which moves no probability, and AdamW would blow the rounding
        # errors that are its gradient up to full steps.
        self.output = dense(SCORE_HIDDEN, 1, generator, bias=False)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Score every LLM for every prompt.

        Returns
        -------
        scores : Tensor, [B, n]
            s^pr, of which softmax is the routing probability.
        query : Tensor, [B, d]
            E(x), which the query-query contrastive loss shapes.
        """
        query = inputs
        if not isinstance(self.projection, nn.Identity):
            query = linear(inputs, self.projection.weight, self.projection.bias)
        satellites, _ = self.backbone(query, final_relay=False)
        hidden = functional.relu(linear(satellites, self.hidden.weight, self.hidden.bias))
        return linear(hidden, self.output.weight).squeeze(-1), query


def llm_embeddings(n_models: int, width: int, generator: torch.Generator) -> nn.Parameter:
    """Return initial LLM embeddings m, [n, d]."""
    return nn.Parameter(torch.empty(n_models, width).normal_(0, EMBEDDING_SD, generator=generator))
