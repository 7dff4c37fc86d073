"""Which way does the cost penalty of Eq. (8) push? Both signs, on simulated and on real pools (CS-17; Table 10).

With the printed sign, exp((s - gamma c) / tau), dear experts count *less* among those a query is pushed away from. If
similarities could be chosen freely, that to expert m would end at tau log(p_m) + gamma c_m up to a constant, with p_m
its share of the pull: it *rises* with cost. The text around Eq. (8) says the opposite, and in Table 10 the cost at the
peak falls with gamma.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from replications.cscr.contrastive import CSCR
from replications.cscr.cost_spectrum import GammaSign, cost_bands
from replications.cscr.recovery import specialists
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import deferral_curve
from routebook.routers import fit_together
from routebook.significance import Estimate, mean_interval

# Those of Table 10.
GAMMAS = (0.0, 0.1, 0.2, 0.3, 0.5)
SIGNS: tuple[GammaSign, ...] = ("printed", "other")
# The simulated pool: mastery is drawn without a look at the cost, so that a lean towards either is the loss's own.
POOL: dict[str, Any] = {"n_prompts": 2000, "n_experts": 20, "masters": 6}
SHORT: dict[str, Any] = {"min_steps": 150, "batch_size": 256}


def simulate_gamma_sign(
    gammas: Sequence[float] = GAMMAS,
    signs: Sequence[GammaSign] = SIGNS,
    seeds: Sequence[int] = range(4),
    *,
    pool: Mapping[str, Any] = POOL,
    **settings: Any,
) -> pd.DataFrame:
    """Measure the cost of the chosen expert against gamma on simulated pools of 20 experts, under both signs.

    Parameters
    ----------
    seeds
        Each draws a pool (`recovery.specialists`), a split into halves and a training.
    pool
        Of `recovery.specialists`.
    **settings
        Of `CSCR`; by default 150 steps of 256 prompts.

    Returns
    -------
    DataFrame
        As `cost_by_gamma`.
    """
    found = []
    for seed in seeds:
        benchmark, truth = specialists(seed=seed, **pool)
        parts = benchmark.random_split({"train": len(benchmark) // 2, "test": -1}, np.random.default_rng(seed))
        train, test = (benchmark.subset(parts[name]) for name in ("train", "test"))
        options = SHORT | settings | {"seed": seed, "descriptors": truth.descriptors}
        found.append(cost_by_gamma(train, test, train.embeddings, test.embeddings, gammas, signs, **options))
    return pd.concat(found, ignore_index=True)


def cost_by_gamma(
    train: RoutingBenchmark,
    test: RoutingBenchmark,
    train_embeddings: np.ndarray,
    test_embeddings: np.ndarray,
    gammas: Sequence[float] = GAMMAS,
    signs: Sequence[GammaSign] = SIGNS,
    **settings: Any,
) -> pd.DataFrame:
    """Train CSCR at every gamma and sign, and measure what it then chooses on the test prompts.

    gamma = 0 is trained once, as both signs are then one loss.

    Parameters
    ----------
    train, test : RoutingBenchmark
        The same LLMs in the same order.
    train_embeddings, test_embeddings : ndarray, [N, D]
    **settings
        Of `CSCR`, `descriptors` and `seed` among them.

    Returns
    -------
    DataFrame
        One row a sign and gamma: `sign`, `gamma`, `seed`, `chosen_cost` (mean cost of the LLM chosen at lambda = 0,
        normalised between the cheapest and the dearest LLM as in the loss), `chosen_quality`, `cost_at_peak`
        (normalised likewise from what the calls cost), `peak` and `area`.
    """
    normalised = cost_bands(train.mean_cost, 1, train.models).cost
    low, high = test.mean_cost.min(), test.mean_cost.max()
    # The sign of a gamma of 0 says nothing.
    trained = {
        (sign if gamma else "", gamma): CSCR(gamma=gamma, gamma_sign=sign, **settings)
        for sign in signs
        for gamma in gammas
    }
    fit_together(list(trained.values()), [(train, train_embeddings)] * len(trained))
    told = {}
    for key, router in trained.items():
        similarity = router.predict_quality(test_embeddings)
        chosen = np.nanargmax(similarity, axis=1)
        curve = deferral_curve(similarity, test.quality, test.cost)
        told[key] = {
            "seed": router.seed,
            "chosen_cost": float(normalised[chosen].mean()),
            "chosen_quality": float(np.nanmean(test.quality[np.arange(len(test)), chosen])),
            "cost_at_peak": float((curve.cost_at_peak - low) / (high - low)) if high > low else 0.0,
            "peak": curve.peak,
            "area": curve.area(left="flat"),
        }
    rows = [
        {"sign": sign, "gamma": float(gamma)} | told[sign if gamma else "", gamma] for sign in signs for gamma in gammas
    ]
    return pd.DataFrame(rows)


def slopes(found: pd.DataFrame, column: str = "chosen_cost") -> dict[str, Estimate]:
    """Return how fast `column` moves with gamma under each sign: the least-squares slope, mean over seeds.

    Parameters
    ----------
    found
        Rows of `cost_by_gamma` or `simulate_gamma_sign`, each seed with the same gammas, at least two.

    Returns
    -------
    dict of str to Estimate
        Keyed by sign, with 95 % Student's t intervals; NaN bounds for one seed.
    """
    by_sign = {}
    for sign, part in found.groupby("sign", sort=False):
        fits = [np.polyfit(one["gamma"], one[column], 1)[0] for _, one in part.groupby("seed", sort=False)]
        by_sign[str(sign)] = mean_interval(fits)
    return by_sign


def sign_table(found: pd.DataFrame, column: str = "chosen_cost") -> pd.DataFrame:
    """Return mean and 95 % interval of `column` over seeds, one row a gamma and one column a sign."""

    def shown(values: pd.Series) -> str:
        interval = mean_interval(values.to_numpy())
        return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"

    cells = found.groupby(["gamma", "sign"], sort=False)[column].apply(shown)
    return cells.unstack("sign")
