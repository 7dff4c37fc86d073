"""Proposition 2 on problems whose truth is known: the price of routing by cluster, not by prompt (Section 5.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from routebook.datasets import simulated
from routebook.errors import UserError

DEVIATIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)


def gap_and_discrepancy(truth: simulated.Truth) -> tuple[float, float]:
    """Return both sides of Proposition 2 at λ = 0, averaged over the prompts drawn.

    Parameters
    ----------
    truth
        Known P(z | x), Ψ* and P(h errs | x); no label is drawn.

    Returns
    -------
    gap : float
        0-1 risk of the cluster rule, Eq. (13), less that of the Bayes rule, Eq. (7). At λ = 0 cost plays no part, so
        the two need not be brought to one budget.
    discrepancy : float
        E_x[max over LLMs and clusters of Δ_k(x, h)], over all clusters as stated, however unlikely for x. The statement
        bounds the gap by it once, the last line of its proof (Appendix C.3) by it twice.
    """
    by_cluster = truth.posterior @ truth.error
    chosen = by_cluster.argmin(axis=1)
    excess = truth.prompt_error[np.arange(len(chosen)), chosen] - truth.prompt_error.min(axis=1)
    return float(excess.mean()), float(truth.discrepancy().max(axis=(1, 2)).mean())


def excess_risk_against_discrepancy(
    deviations: Sequence[float] = DEVIATIONS,
    *,
    n_pools: int = 5,
    n_prompts: int = 3000,
    n_models: int = 11,
    n_clusters: int = 6,
    separation: float = 6.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the quality gap of cluster-based routing as errors within a cluster come to differ (Proposition 2).

    Parameters
    ----------
    deviations
        Largest amounts by which an LLM's error on a prompt differs from its cluster's base, each in [0, 0.4].
    n_pools
        Simulated problems, with seeds from `seed` on: the expectation over H_te.
    n_prompts, n_models, n_clusters, separation
        Of each, as in `routebook.datasets.simulated.mixture`.
    seed : int

    Returns
    -------
    DataFrame
        One row a deviation: deviation, discrepancy (right-hand side), gap (left-hand side) and ratio, gap /
        discrepancy (NaN where both are 0). Proposition 2 as stated says ratio <= 1, its proof ratio <= 2.

    Raises
    ------
    UserError
        When n_pools is below 1, or `simulated.mixture` refuses an option.
    """
    if n_pools < 1:
        raise UserError(f"n_pools is {n_pools}, expected at least 1")
    rows = []
    for deviation in deviations:
        both = []
        for pool in range(n_pools):
            _, truth = simulated.mixture(
                n_prompts, n_models, n_clusters, separation=separation, deviation=deviation, seed=seed + pool
            )
            both.append(gap_and_discrepancy(truth))
        gap, discrepancy = np.mean(both, axis=0)
        ratio = gap / discrepancy if discrepancy > 0 else np.nan
        rows.append({"deviation": deviation, "discrepancy": discrepancy, "gap": gap, "ratio": ratio})
    return pd.DataFrame(rows)
