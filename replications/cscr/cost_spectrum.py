"""The cost-spectrum contrastive loss (CSCR Sections 3.3 and 3.4, Eqs. (6) to (8), and Eq. (10) of Appendix C.3).

A query is pulled towards the descriptors of the experts that answer it correctly, in each cost band by itself, and
pushed away from all others. What the paper leaves open (forensics 7.2) is an argument with a name: the sign of the cost
penalty (#2, CS-17), whether a temperature divides it (#3), how bands are averaged (#6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from routebook.errors import UserError

GammaSign = Literal["printed", "other"]
Averaging = Literal["query", "band"]
# Eq. (8) divides by the temperature. Eq. (7) makes it 0 where tau_min = 0 (a row of Table 12) and the cheapest band
# holds the cheapest expert alone, or alpha = 0; the paper does not say what happens then.
TAU_FLOOR = 1e-3
# A percentile that falls on an expert's cost comes out of the interpolation a rounding error beside it.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Bands:
    """Experts grouped by cost (Section 3.4); made by `cost_bands`.

    Attributes
    ----------
    cost : ndarray, [M]
        Normalised cost of each expert: 0 the cheapest, 1 the dearest.
    band : ndarray of int, [M]
        Band of each expert, 0 the cheapest; every band holds an expert.
    edges : ndarray, [asked + 1]
        The percentiles beta_0 = 0 to beta_K = 1, those of bands that came out empty included.
    mean_cost : ndarray, [K]
        Mean normalised cost of each band's experts.
    asked : int
        Number of bands asked for; more than `n_bands` where equal costs left some empty.
    notes : tuple of str
        What a reader must know: bands dropped.
    """

    cost: np.ndarray
    band: np.ndarray
    edges: np.ndarray
    mean_cost: np.ndarray
    asked: int
    notes: tuple[str, ...] = ()

    @property
    def n_bands(self) -> int:
        """Number of bands, empty ones dropped."""
        return len(self.mean_cost)

    @property
    def asked_band(self) -> np.ndarray:
        """Band of each expert among those asked for, [M] of int: as `band`, but counting the empty ones."""
        return _place(self.cost, self.edges)

    def temperatures(self, alpha: float = 0.25, tau_min: float = 0.05) -> np.ndarray:
        """Return tau_k = tau_min + alpha * mean cost of each band, [K], Eq. (7), at least `TAU_FLOOR`."""
        for name, value in (("alpha", alpha), ("tau_min", tau_min)):
            _check_not_negative(name, value)
        return np.maximum(tau_min + alpha * self.mean_cost, TAU_FLOOR)  # Eq. (7)


def cost_bands(costs: Sequence[float], n_bands: int = 5, names: Sequence[str] | None = None) -> Bands:
    """Normalise costs over the pool and cut it into bands at their percentiles (Section 3.4).

    Costs are normalised to [0, 1] between the cheapest and the dearest expert, as the released code does; the paper
    says "normalise". Band k holds the experts with beta_k <= c < beta_{k+1}, the last one also those with c = 1, where
    beta_k is the k/K quantile of the normalised costs with linear interpolation. Equal costs can leave a band empty:
    it is dropped, and `Bands.notes` says so.

    Parameters
    ----------
    costs : array_like, [M]
        In any one unit.
    n_bands
        The paper's K, 5.
    names : sequence of str, optional
        Of the experts, for messages.

    Raises
    ------
    UserError
        When there are more bands than experts, or an expert without a cost (NaN), or with an infinite or negative one.
    """
    costs = np.asarray(costs, dtype=float)
    if costs.ndim != 1 or len(costs) == 0:
        raise UserError(f"costs have shape {costs.shape}, expected one cost an expert, [M]")
    bad = ~(np.isfinite(costs) & (costs >= 0))
    if bad.any():
        place = int(np.argmax(bad))
        name = repr(names[place]) if names is not None else f"number {place}"
        raise UserError(
            f"the cost of expert {name} is {costs[place]:g}, expected a finite number >= 0; a missing price is never "
            "taken for 0: drop the expert (for a benchmark: benchmark.priced()) or give its cost"
        )
    if isinstance(n_bands, bool) or not isinstance(n_bands, int | np.integer) or n_bands < 1:
        raise UserError(f"n_bands is {n_bands!r}, expected a whole number >= 1")
    if n_bands > len(costs):
        raise UserError(
            f"n_bands is {n_bands}, but there are only {len(costs)} experts; lower n_bands to at most {len(costs)}"
        )
    spread = costs.max() - costs.min()
    normalised = (costs - costs.min()) / spread if spread > 0 else np.zeros(len(costs))
    edges = np.quantile(normalised, np.linspace(0, 1, n_bands + 1))
    edges[0], edges[-1] = 0.0, 1.0
    filled, band = np.unique(_place(normalised, edges), return_inverse=True)
    mean_cost = np.bincount(band, weights=normalised) / np.bincount(band)
    notes = ()
    if len(filled) < n_bands:
        notes = (f"{n_bands - len(filled)} of {n_bands} cost bands hold no expert, as costs are equal; dropped",)
    return Bands(normalised, band, edges, mean_cost, int(n_bands), notes)


def _place(costs: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return which of the intervals between edges [K + 1] each cost lies in, a cost on an edge in the upper one."""
    return np.searchsorted(edges[1:-1] - _ROUNDING, costs, side="right")


def info_nce(q: Any, experts: Any, positives: Any, tau: float) -> Any:
    """Return the InfoNCE loss of Eq. (6), several positives summed inside the logarithm.

    Parameters
    ----------
    q : Tensor, [B, D]
        Queries of unit length.
    experts : Tensor, [M, D]
        Descriptors of unit length.
    positives : Tensor of bool, [B, M]
        The experts that answer each query correctly. A query without any is left out of the mean.
    tau
        Temperature > 0.

    Returns
    -------
    Tensor, scalar
        0 where no query has a positive.
    """
    if not tau > 0:
        raise UserError(f"tau is {tau!r}, expected a number > 0")
    has = positives.any(dim=1)
    logits, wanted = (q @ experts.T / tau)[has], positives[has]
    numerator = logits.masked_fill(~wanted, -float("inf")).logsumexp(dim=1)
    return (logits.logsumexp(dim=1) - numerator).sum() / has.sum().clamp(min=1)  # Eq. (6)


def cost_spectrum_loss(
    q: Any,
    experts: Any,
    positives: Any,
    bands: Bands,
    *,
    gamma: float = 0.2,
    gamma_sign: GammaSign = "printed",
    alpha: float = 0.25,
    tau_min: float = 0.05,
    averaging: Averaging = "query",
    divide_penalty: bool = True,
) -> Any:
    """Return the cost-spectrum InfoNCE loss of Eq. (8).

    With one band and gamma = 0 it is `info_nce` at the temperature of Eq. (7).

    Parameters
    ----------
    q : Tensor, [B, D]
        Queries of unit length.
    experts : Tensor, [M, D]
        Descriptors of unit length, in the order of `bands`.
    positives : Tensor of bool, [B, M]
        The experts that answer each query correctly. A query without any has no band to average over: it is left out.
    bands
        From `cost_bands`.
    gamma
        Weight >= 0 of the cost in the denominator, whose sum runs over all experts, the correct ones too.
    gamma_sign : {"printed", "other"}
        "printed": exp((s - gamma c) / tau), by which dear experts count *less* in the denominator; "other":
        exp((s + gamma c) / tau), by which they count more, as the text around Eq. (8) says they do (CS-17).
    alpha, tau_min
        Of the temperatures, Eq. (7).
    averaging : {"query", "band"}
        "query": over a query's bands, then over queries, as printed; "band": over the queries of a band, then over
        bands, as the released code does.
    divide_penalty
        Whether the temperature divides the penalty too, as in Eq. (8); in Section 5.2 and Appendix B.3 it does not.

    Returns
    -------
    Tensor, scalar
        0 where no query has a positive.
    """
    terms = loss_terms(bands, gamma=gamma, gamma_sign=gamma_sign, alpha=alpha, tau_min=tau_min)
    terms = [term.to(q.dtype) if term.is_floating_point() else term for term in terms]
    options = {"averaging": averaging, "divide_penalty": divide_penalty}
    return spectrum_loss(experts @ q.mT, positives, *terms, **options)


def loss_terms(
    bands: Bands, *, gamma: float = 0.2, gamma_sign: GammaSign = "printed", alpha: float = 0.25, tau_min: float = 0.05
) -> tuple[Any, Any, Any, Any]:
    """Return what Eq. (8) reads of a pool and of its own constants, for `spectrum_loss`.

    Those of pools with equally many bands, whose largest are equally large, can be stacked on a first axis.

    Returns
    -------
    tau : Tensor, [K]
        Temperature of each band, Eq. (7).
    penalty : Tensor, [M]
        Signed gamma * c of each expert.
    members : Tensor of int, [K, S]
        The experts of each band; bands smaller than the largest, S, are filled up with expert 0.
    inside : Tensor of bool, [K, S]
        False where they are.
    """
    import torch

    _check_options(gamma, gamma_sign)
    tau = torch.tensor(bands.temperatures(alpha, tau_min), dtype=torch.float64)
    penalty = torch.tensor(_signed(gamma, gamma_sign) * bands.cost, dtype=torch.float64)
    size = np.bincount(bands.band)
    inside = np.arange(size.max()) < size[:, None]
    members = np.zeros(inside.shape, dtype=np.int64)
    members[inside] = np.argsort(bands.band, kind="stable")
    return tau, penalty, torch.tensor(members), torch.tensor(inside)


def spectrum_loss(
    similarity: Any,
    positives: Any,
    tau: Any,
    penalty: Any,
    members: Any,
    inside: Any,
    *,
    averaging: Averaging = "query",
    divide_penalty: bool = True,
) -> Any:
    """Return `cost_spectrum_loss` of one router, or of each of several that are trained side by side.

    Parameters
    ----------
    similarity : Tensor, [..., M, B]
        Cosine of each expert and query.
    positives : Tensor of bool, [..., B, M]
    tau, penalty, members, inside
        Of `loss_terms`, stacked on the same first axis.
    averaging, divide_penalty
        As in `cost_spectrum_loss`.

    Returns
    -------
    Tensor, [...]
    """
    push, pull, weight = _logits(similarity, positives, tau, penalty, members, inside, averaging, divide_penalty)
    return ((push.logsumexp(dim=-2) - pull.logsumexp(dim=-2)) * weight).sum(dim=(-2, -1))  # Eq. (8)


def spectrum_loss_and_slope(similarity: Any, positives: Any, *terms: Any, **options: Any) -> tuple[Any, Any]:
    """Return `spectrum_loss` [...] and its gradient by the similarities [..., M, B], the inner part of Eq. (10).

    Each band pulls with the softmax over its correct experts and pushes with the softmax over all; both are computed
    on the way to the loss, so that automatic differentiation would only do them again. Arguments as there.
    """
    tau, _, members, _ = terms
    push, pull, weight = _logits(similarity, positives, *terms, **options)
    loss = ((_softmax_in_place(push) - _softmax_in_place(pull)) * weight).sum(dim=(-2, -1))
    # What a band's softmax counts for: its weight on the query, over its temperature.
    scale = (weight * tau.reciprocal()[..., None])[..., None, :]
    slope = push.mul_(scale).sum(dim=-3)
    _rows(slope).index_add_(0, _places(slope, members), pull.mul_(scale).flatten(0, -2), alpha=-1)
    return loss, slope


def _logits(
    similarity: Any,
    positives: Any,
    tau: Any,
    penalty: Any,
    members: Any,
    inside: Any,
    averaging: Averaging = "query",
    divide_penalty: bool = True,
) -> tuple[Any, Any, Any]:
    """Return what Eq. (8) takes exponentials of, below and above the fraction, and the weight of each band and query.

    Returns
    -------
    push : Tensor, [..., K, M, B]
    pull : Tensor, [..., K, S, B]
        The correct experts of a band; -inf for others, unless a band has none on a query: its weight there is 0.
    weight : Tensor, [..., K, B]
    """
    _check_options(0.0, "printed", averaging)
    # Axes are [..., bands, experts, queries]: sums over experts run fastest where neighbours in memory are queries.
    inverse = tau.reciprocal()[..., None, None]
    own = _of_bands(positives.mT, members) & inside[..., None]
    has = own.any(dim=-2)
    # A band without positives would be the log of 0, whose gradient is NaN even where it is multiplied by 0.
    pull = (_of_bands(similarity, members) * inverse).masked_fill(~own & has[..., None, :], -float("inf"))
    penalty = penalty[..., None]
    if divide_penalty:
        push = (similarity + penalty)[..., None, :, :] * inverse
    else:
        push = similarity[..., None, :, :] * inverse + penalty[..., None, :, :]
    inner = -2 if averaging == "query" else -1
    filled = has.sum(dim=inner, keepdim=True)
    n = (filled > 0).sum(dim=(-2, -1), keepdim=True)
    return push, pull, has / (filled * n).clamp(min=1)


def _softmax_in_place(logits: Any) -> Any:
    """Make logits [..., K, M, B] their softmax over M and return its logarithm's denominator, [..., K, B]."""
    top = logits.amax(dim=-2, keepdim=True)
    total = logits.sub_(top).exp_().sum(dim=-2, keepdim=True)
    logits.div_(total)
    return total.log_().add_(top).squeeze(-2)


def _of_bands(values: Any, members: Any) -> Any:
    """Return the rows of each band's experts, [..., K, S, B], of values [..., M, B]."""
    return _rows(values).index_select(0, _places(values, members)).view(*members.shape, -1)


def _rows(values: Any) -> Any:
    """Return values [..., M, B] as one row an expert of any router; a view where they lie in a row in memory."""
    return values.reshape(-1, values.shape[-1])


def _places(values: Any, members: Any) -> Any:
    """Return which of the `_rows` of values [..., M, B] the members [..., K, S] are, one after the other."""
    import torch

    places = members.flatten(-2)
    if values.ndim > 2:
        places = places + values.shape[-2] * torch.arange(len(values))[:, None]
    return places.flatten()


def gradient_eq10(
    q: np.ndarray,
    experts: np.ndarray,
    positives: np.ndarray,
    bands: Bands,
    *,
    gamma: float = 0.2,
    gamma_sign: GammaSign = "printed",
    alpha: float = 0.25,
    tau_min: float = 0.05,
    divide_penalty: bool = True,
) -> np.ndarray:
    """Return the gradient of one query's loss with respect to the query, Eq. (10), averaged over its bands as Eq. (8).

    Each band pulls towards the mean of its correct experts under their softmax p(+) and pushes from the mean of all
    experts under theirs, p(-), both divided by the band's temperature. The query is taken for a free vector: the
    length that Eq. (8) gives it is not differentiated through.

    Parameters
    ----------
    q : ndarray, [D]
    experts : ndarray, [M, D]
    positives : ndarray of bool, [M]
        At least one.
    bands, gamma, gamma_sign, alpha, tau_min, divide_penalty
        As in `cost_spectrum_loss`.

    Returns
    -------
    ndarray, [D]
    """
    _check_options(gamma, gamma_sign)
    positives = np.asarray(positives, dtype=bool)
    if not positives.any():
        raise UserError("positives names no correct expert; a query without any has no loss and no gradient")
    similarity = experts @ q
    penalty = _signed(gamma, gamma_sign) * bands.cost
    temperatures = bands.temperatures(alpha, tau_min)
    filled = np.unique(bands.band[positives])
    gradient = np.zeros_like(q, dtype=float)
    for k in filled:
        tau = temperatures[k]
        scaled = similarity / tau
        pull = _softmax(np.where(positives & (bands.band == k), scaled, -np.inf))
        push = _softmax(scaled + (penalty / tau if divide_penalty else penalty))
        gradient += (push - pull) @ experts / tau  # Eq. (10)
    return gradient / len(filled)


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def _signed(gamma: float, gamma_sign: GammaSign) -> float:
    return -gamma if gamma_sign == "printed" else gamma


def _check_options(gamma: float, gamma_sign: str, averaging: str = "query") -> None:
    _check_not_negative("gamma", gamma)
    if gamma_sign not in ("printed", "other"):
        raise UserError(f"gamma_sign is {gamma_sign!r}, expected 'printed' or 'other'")
    if averaging not in ("query", "band"):
        raise UserError(f"averaging is {averaging!r}, expected 'query' or 'band'")


def _check_not_negative(name: str, value: float) -> None:
    if not 0 <= value < np.inf:
        raise UserError(f"{name} is {value!r}, expected a finite number >= 0")
