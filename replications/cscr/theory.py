"""What Lemma 5.3 and Theorem 5.2 say, what their proofs give, and numbers against them (CSCR Section 5, Appendix B).

Lemma 5.3 says that at any stationary point of the loss every correct expert is more similar to the query than every
wrong expert that costs at least as much. Its proof (CS-20) takes three steps, and each can fail:

1. From sum_m (p_m - q_m) e_m = 0 and p = 0 on wrong experts it concludes q_m+ > q_m-. The sum says nothing about two
   experts out of several: example "another expert is correct".
2. From S+ - gamma c+ > S- - gamma c- and c+ <= c- it concludes S+ > S-. What follows is S+ - S- > gamma (c+ - c-), a
   number <= 0: example "a wrong expert is dear".
3. It sets the gradient in a free query to 0, but queries have unit length, where only the part along the sphere is 0.
   Taken at its word it fails too: example "a free query".

Theorem 5.2 bounds the excess risk of k nearest *prompts* by C (sqrt(k/n) + k^(-1/d)), with C depending on the Lipschitz
constant and the diameter alone. Its proof (CS-21) bounds the two parts by (k/n)^(1/d) and sqrt(log M / k), which is the
printed sum with k and n/k exchanged. Both sums are smallest, and equal up to log M, at their own best k: n^(d/(d+2)) as
printed, n^(2/(d+2)) as proved. At the printed one, and d > 2, neighbours are too far away (`bias_counterexample`); with
d = 1 and labels instead of true error rates, too few of them give too much noise (`noise_counterexample`). CSCR's own
router compares prompts with descriptors, not with prompts: the theorem is not about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from replications.cscr.cost_spectrum import GammaSign, cost_bands, cost_spectrum_loss, gradient_eq10
from routebook.errors import UserError
from routebook.threads import one_torch_thread

Bound = Literal["printed", "proved"]
ALPHA, TAU_MIN = 0.25, 0.05

# --- Lemma 5.3 --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LemmaExample:
    """A stationary point of Eq. (8) for one query, in the plane.

    Attributes
    ----------
    name : str
    experts : ndarray, [M, 2]
        Of unit length.
    cost : ndarray, [M]
        Normalised.
    correct : ndarray of bool, [M]
    query : ndarray, [2]
    free : bool
        Whether the query may have any length; otherwise it has unit length.
    gamma : float
    gamma_sign : {"printed", "other"}
    gradient : float
        Length of the loss's gradient at the query, of its part along the circle unless `free`: 0 but for rounding.
    """

    name: str
    experts: np.ndarray
    cost: np.ndarray
    correct: np.ndarray
    query: np.ndarray
    free: bool
    gamma: float
    gamma_sign: GammaSign
    gradient: float

    def table(self) -> pd.DataFrame:
        """Return one row an expert: its angle in degrees, cost, correctness, similarity, and similarity -/+ gamma c."""
        similarity = self.experts @ self.query
        penalty = -self.gamma if self.gamma_sign == "printed" else self.gamma
        return pd.DataFrame(
            {
                "angle": np.degrees(np.arctan2(self.experts[:, 1], self.experts[:, 0])).round(9),
                "cost": self.cost,
                "correct": self.correct,
                "similarity": similarity,
                "penalised": similarity + penalty * self.cost,
            },
            index=pd.RangeIndex(1, len(similarity) + 1, name="expert"),
        )

    def violations(self) -> pd.DataFrame:
        """Return the pairs that contradict the lemma: correct, wrong (both counted from 1), and their similarities.

        `penalised_holds` tells whether the proof's intermediate inequality, S+ - gamma c+ > S- - gamma c-, holds for
        the pair.
        """
        seen = self.table()
        rows = [
            (plus, minus, p.similarity, m.similarity, bool(p.penalised > m.penalised))
            for plus, p in seen[seen.correct].iterrows()
            for minus, m in seen[~seen.correct].iterrows()
            if p.cost <= m.cost and not p.similarity > m.similarity
        ]
        return pd.DataFrame(rows, columns=["correct", "wrong", "similarity", "wrong_similarity", "penalised_holds"])


def lemma_examples(gamma: float = 0.2) -> list[LemmaExample]:
    """Return small counter-examples to Lemma 5.3 at the paper's temperatures, as the module's docstring lists them.

    The first three are global minima over queries of unit length, found on a fine grid of angles and polished; the
    last is a stationary point of the loss in a free query that can be written down.
    """
    several = [True, True, False]
    return [
        _on_circle("another expert is correct", [0, 150, 60], [1, 2, 3], several, 1, gamma, "printed"),
        _on_circle("a wrong expert is dear", [0, 20, -20], [1, 2, 11], [True, False, False], 3, gamma, "printed"),
        _on_circle("the same, other sign", [0, 20, -20], [1, 2, 11], [True, False, False], 3, gamma, "other"),
        _free_query(gamma),
    ]


def _on_circle(
    name: str,
    angles: Sequence[float],
    costs: Sequence[float],
    correct: Sequence[bool],
    n_bands: int,
    gamma: float,
    gamma_sign: GammaSign,
) -> LemmaExample:
    """Return the global minimum of the loss over queries on the unit circle."""
    from scipy.optimize import brentq

    experts, bands, known = _unit(np.asarray(angles, dtype=float)), cost_bands(costs, n_bands), np.asarray(correct)
    options = {"gamma": gamma, "gamma_sign": gamma_sign, "alpha": ALPHA, "tau_min": TAU_MIN}

    def along(angle: float) -> float:
        query = _unit(np.array([np.degrees(angle)]))[0]
        tangent = np.array([-query[1], query[0]])
        return float(gradient_eq10(query, experts, known, bands, **options) @ tangent)

    grid = np.linspace(-np.pi, np.pi, 3601)
    slope = np.array([along(angle) for angle in grid])
    # A minimum lies where the slope turns from negative to positive; the loss is its integral.
    loss = np.concatenate([[0.0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(grid))])
    turns = np.flatnonzero((slope[:-1] < 0) & (slope[1:] >= 0))
    best = turns[np.argmin(loss[turns])]
    angle = brentq(along, grid[best], grid[best + 1], xtol=1e-15)
    query = _unit(np.array([np.degrees(angle)]))[0]
    return LemmaExample(name, experts, bands.cost, known, query, False, gamma, gamma_sign, abs(along(angle)))


def _free_query(gamma: float) -> LemmaExample:
    """Return a stationary point in closed form: two correct experts left and right, two wrong ones up and down.

    The correct ones cost the same, so they balance at equal distance; the wrong ones balance where
    exp((y - gamma c_up) / tau) = exp((-y - gamma c_down) / tau), at y = gamma (c_up - c_down) / 2 for any tau.
    """
    experts, bands = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]), cost_bands([1, 1, 11, 3], 1)
    correct = np.array([True, True, False, False])
    query = np.array([0.0, gamma * (bands.cost[2] - bands.cost[3]) / 2])
    gradient = gradient_eq10(query, experts, correct, bands, gamma=gamma, alpha=ALPHA, tau_min=TAU_MIN)
    length = float(np.linalg.norm(gradient))
    return LemmaExample("a free query", experts, bands.cost, correct, query, True, gamma, "printed", length)


def _unit(degrees: np.ndarray) -> np.ndarray:
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def lemma_frequency(
    n_queries: int = 200,
    n_experts: int = 20,
    dim: int = 16,
    *,
    share_correct: float = 0.3,
    n_bands: int = 5,
    gamma: float = 0.2,
    gamma_sign: GammaSign = "printed",
    steps: int = 300,
    seed: int = 0,
) -> dict[str, float]:
    """Count how often Lemma 5.3 fails at minima of the loss, over random experts and random sets of correct ones.

    Every query is optimised by itself on the unit sphere, the best that any encoder could do: by Adam near to a minimum
    and by L-BFGS into it.

    Returns
    -------
    dict
        `pairs` (share of pairs of a correct and a wrong expert that costs at least as much which contradict the lemma),
        `queries` (share of queries with such a pair), and `gradient` (largest length of a query's remaining gradient
        along the sphere).
    """
    import torch
    from torch.nn import functional

    generator = torch.Generator().manual_seed(seed)
    experts = functional.normalize(torch.randn(n_experts, dim, generator=generator, dtype=torch.float64), dim=1)
    correct = torch.rand(n_queries, n_experts, generator=generator) < share_correct
    correct = correct[correct.any(dim=1)]
    bands = cost_bands(np.geomspace(1, 100, n_experts), n_bands)
    free = torch.randn(len(correct), dim, generator=generator, dtype=torch.float64, requires_grad=True)
    options = {"gamma": gamma, "gamma_sign": gamma_sign, "alpha": ALPHA, "tau_min": TAU_MIN}
    adam = torch.optim.Adam([free], lr=0.02)
    polish = torch.optim.LBFGS(
        [free], max_iter=steps, history_size=30, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        polish.zero_grad()
        q = functional.normalize(free, dim=1)
        total = cost_spectrum_loss(q, experts, correct, bands, **options) * len(correct)
        total.backward()
        return total

    with one_torch_thread():
        for _ in range(steps):
            loss()
            adam.step()
        with torch.no_grad():
            # The loss does not see a query's length, but the gradient shrinks with it.
            free /= free.norm(dim=1, keepdim=True)
        polish.step(loss)
        loss()
    gradient = free.grad * free.detach().norm(dim=1, keepdim=True)
    similarity, known = (functional.normalize(free.detach(), dim=1) @ experts.T).numpy(), correct.numpy()
    pair = known[:, :, None] & ~known[:, None, :] & (bands.cost[:, None] <= bands.cost)
    broken = pair & ~(similarity[:, :, None] > similarity[:, None, :])
    return {
        "pairs": float(broken.sum() / pair.sum()),
        "queries": float(broken.any(axis=(1, 2)).mean()),
        "gradient": float(gradient.norm(dim=1).max()),
    }


# --- Theorem 5.2 ------------------------------------------------------------------------------------------------------


def rate(n: float, k: float, d: float, bound: Bound, n_experts: int = 2) -> float:
    """Return the bound on the excess risk of k-NN without its constant.

    "printed": sqrt(k/n) + k^(-1/d), Theorem 5.2. "proved": sqrt(log M / k) + (k/n)^(1/d), what its proof derives in
    Appendix B.2 for terms (B) and (A).
    """
    if bound == "printed":
        return float(np.sqrt(k / n) + k ** (-1 / d))
    if bound == "proved":
        return float(np.sqrt(np.log(n_experts) / k) + (k / n) ** (1 / d))
    raise UserError(f"bound is {bound!r}, expected 'printed' or 'proved'")


def best_k(n: float, d: float, bound: Bound) -> float:
    """Return the k at which both terms of a bound are equal (log M aside): n^(d/(d+2)) printed, n^(2/(d+2)) proved.

    Either way both terms are then n^(-1/(d+2)): the two bounds promise the same, at different k.
    """
    if bound not in ("printed", "proved"):
        raise UserError(f"bound is {bound!r}, expected 'printed' or 'proved'")
    return float(n ** ((d if bound == "printed" else 2) / (d + 2)))


def noise_excess(k: int, gap: float) -> float:
    """Return the expected excess risk of choosing the better of two experts from k labels of each, exactly.

    Their true error rates are (1 - gap)/2 and (1 + gap)/2 on every prompt; the one with fewer errors among the k is
    chosen, either with equal chance in a tie. The excess is `gap` times the probability of the wrong choice.
    """
    from scipy.stats import binom

    errors = np.arange(k + 1)
    better, worse = binom(k, (1 - gap) / 2), binom(k, (1 + gap) / 2)
    wrong = worse.pmf(errors) @ (better.sf(errors) + better.pmf(errors) / 2)
    return float(gap * wrong)


def noise_counterexample(ks: Sequence[int] = (10, 100, 1_000, 10_000)) -> pd.DataFrame:
    """Show that with labels and d = 1 the excess risk does not fall as fast as Theorem 5.2 prints it.

    n = k^3 prompts anywhere on a line, two experts whose error rates are constant (so any Lipschitz constant fits) and
    1/sqrt(k) apart: as hard to tell apart as k labels allow. The printed rate is 2/k, the excess about 0.08/sqrt(k).

    Returns
    -------
    DataFrame
        One row a k: `n`, `k`, `gap`, `excess` (exact), `printed` and `proved` (the rates), `excess_over_printed` (it
        grows without bound, so no constant C can hold) and `excess_over_proved` (it does not).
    """
    return _compared([(k**3, k, 1 / np.sqrt(k), noise_excess(k, 1 / np.sqrt(k))) for k in ks], 1, ["gap"])


def simulate_noise(n: int, k: int, gap: float, n_queries: int = 200, repeats: int = 20, seed: int = 0) -> np.ndarray:
    """Run the k-NN rule of Section 5 on labels as `noise_excess` describes, brute force; excess risk of each repeat.

    Prompts are uniform on [0, 1]; the Bayes rule always takes the better expert, so its risk is known.
    """
    rng = np.random.default_rng(seed)
    excess = np.empty(repeats)
    for repeat in range(repeats):
        prompts, queries = rng.random(n), rng.random(n_queries)
        better, worse = (rng.random(n) < (1 + sign * gap) / 2 for sign in (-1, 1))
        nearest = np.abs(prompts - queries[:, None]).argpartition(k - 1, axis=1)[:, :k]
        margin = better[nearest].sum(axis=1) - worse[nearest].sum(axis=1)
        excess[repeat] = gap * ((margin > 0) + (margin == 0) / 2).mean()
    return excess


def bias_counterexample(
    ns: Sequence[int] = (1_000, 10_000, 100_000), d: int = 4, n_queries: int = 400, seed: int = 0
) -> pd.DataFrame:
    """Show that at the printed bound's best k and d > 2 the excess risk falls more slowly than it promises.

    The rule of Section 5 as printed: the mean of the *true* error rates over the k nearest prompts, so there is no
    noise. Prompts are uniform in the unit cube. One expert errs with probability 1/2; the other's rate swings around
    1/2 along the first coordinate, as steeply as a Lipschitz constant of 1 allows, with a wavelength near the radius of
    the ball that holds k prompts. A mean over such a ball does not see the wave, or sees it upside down: the mean of
    cos(2 pi x / w) over a ball of radius r in 4 dimensions has the sign of the Bessel function J_2(2 pi r / w).

    Returns
    -------
    DataFrame
        One row an n: `n`, `k`, `wavelength`, `excess` (brute force, against the Bayes rule's known risk), `printed`
        and `proved`, `excess_over_printed` (it grows) and `excess_over_proved`.
    """
    rows = []
    rng = np.random.default_rng(seed)
    for n in ns:
        k = round(best_k(n, d, "printed"))
        wavelength = _ball_radius(k / n, d)
        prompts, queries = rng.random((n, d)), rng.random((n_queries, d))
        phase = rng.random()
        predicted = np.array([_wave(prompts[_nearest(prompts, q, k), 0], wavelength, phase).mean() for q in queries])
        true = _wave(queries[:, 0], wavelength, phase)
        # Rates less 1/2: the steady expert's is 0, the Bayes rule's the smaller of the two.
        excess = (np.where(predicted < 0, true, 0.0) - np.minimum(true, 0.0)).mean()
        rows.append((n, k, wavelength, float(excess)))
    return _compared(rows, d, ["wavelength"])


def _nearest(prompts: np.ndarray, query: np.ndarray, k: int) -> np.ndarray:
    return ((prompts - query) ** 2).sum(axis=1).argpartition(k - 1)[:k]


def _wave(x: np.ndarray, wavelength: float, phase: float) -> np.ndarray:
    """Return a triangular wave of slope 1 or -1 around 0."""
    place = (x / wavelength + phase) % 1
    return wavelength * (np.abs(place - 0.5) - 0.25)


def _ball_radius(volume: float, d: int) -> float:
    from scipy.special import gamma

    return float((volume * gamma(d / 2 + 1)) ** (1 / d) / np.sqrt(np.pi))


def _compared(rows: Sequence[tuple], d: int, extra: list[str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["n", "k", *extra, "excess"])
    for bound in ("printed", "proved"):
        table[bound] = [rate(n, k, d, bound) for n, k in zip(table["n"], table["k"], strict=True)]
        table[f"excess_over_{bound}"] = table["excess"] / table[bound]
    return table
