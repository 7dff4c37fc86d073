"""Known truth first: the cluster features of Eq. (12) against per-cluster errors that we know."""

from __future__ import annotations

import numpy as np
import pandas as pd

from routebook import routers
from routebook.datasets import simulated


def recover_cluster_errors(
    *, n_prompts: int, n_models: int, n_clusters: int, n_validation: int, separation: float, seed: int
) -> pd.DataFrame:
    """Estimate Psi of unseen LLMs on simulated prompts and set it beside the truth.

    K-means is fitted on training prompts without looking at labels; the errors of every LLM are then estimated from
    the validation prompts alone, as UniRoute does for a new LLM (Section 5.1, steps i-iii).

    Returns
    -------
    DataFrame
        One row a cluster and LLM: cluster, model, n (validation prompts in the cluster), true and estimated error,
        standard_error of the estimate under the truth, and z, their difference in standard errors.
    """
    from scipy.optimize import linear_sum_assignment

    benchmark, truth = simulated.mixture(
        n_prompts=n_prompts, n_models=n_models, n_clusters=n_clusters, separation=separation, seed=seed
    )
    parts = benchmark.random_split({"validation": n_validation, "train": -1}, np.random.default_rng(seed))
    train, validation = (benchmark.subset(parts[name]) for name in ("train", "validation"))
    router = routers.KMeans(n_clusters=n_clusters, seed=seed).fit(train, train.embeddings)
    found = router.assign(train.embeddings)
    together = np.zeros((n_clusters, n_clusters))
    np.add.at(together, (found, truth.cluster[parts["train"]]), 1)
    rows, columns = linear_sum_assignment(-together)
    true_of = dict(zip(rows, columns, strict=True))
    router.add_models(validation, validation.embeddings)
    assigned = router.assign(validation.embeddings)
    records = []
    for k in range(n_clusters):
        n = int((assigned == k).sum())
        for m, model in enumerate(validation.models):
            true, estimate = truth.error[true_of[k], m], router.psi_[k, m]
            error = np.sqrt(true * (1 - true) / n)
            records.append((true_of[k], model, n, true, estimate, error, (estimate - true) / error))
    columns = ["cluster", "model", "n", "true", "estimate", "standard_error", "z"]
    return pd.DataFrame(records, columns=columns)
