"""Known truth first: what SemiRouter learns from thinned labels of simulated prompts, whose quality is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from replications.semirouter.baselines import fit_all
from replications.semirouter.semi_router import route
from replications.semirouter.sparse import PER_QUERY, sparsify, spread_anchors
from routebook import figures
from routebook.datasets import simulated
from routebook.significance import mean_interval

METHODS = ("bert-full", "zooter", "lora-retriever", "semirouter-att", "semirouter-mlp", "semirouter-emb")
TEST_SHARE = 0.3


def recover_qualities(
    seeds: Sequence[int] = (0, 1, 2),
    *,
    methods: Sequence[str] = METHODS,
    per_query: int = PER_QUERY,
    share: float | None = None,
    n_prompts: int = 4000,
    n_models: int = 7,
    n_clusters: int = 6,
    separation: float = 6.0,
    quick: bool = True,
) -> pd.DataFrame:
    """Train routers on a mixture of separated clusters and compare them with the rule that knows the truth.

    Everything is judged by true probabilities of a correct answer, so that no luck of the drawn answers enters. Each
    seed draws its own problem, thins it and trains on it.

    Parameters
    ----------
    seeds
    methods
        Of `baselines.METHODS`.
    per_query, share
        See `sparse.sparsify`.
    n_prompts, n_models, n_clusters, separation
        See `simulated.mixture`.
    quick
        See `baselines.make`.

    Returns
    -------
    DataFrame
        One row a method and seed: `method`, `seed`, `error` (mean absolute difference between predicted and true
        quality of the LLMs with sparse data, on test prompts), `quality` (expected quality of the routed answers),
        `bayes` (of the rule that knows the truth), `single` (of the best single LLM) and `reached` (share of the way
        from the best single LLM to that rule).
    """
    records = []
    for seed in seeds:
        benchmark, truth = simulated.mixture(n_prompts, n_models, n_clusters, separation=separation, seed=seed)
        test = np.arange(n_prompts) >= n_prompts - round(TEST_SHARE * n_prompts)
        train, z_test = benchmark.subset(~test), benchmark.embeddings[test]
        anchors = spread_anchors(train)
        sparse = sparsify(train, anchors, per_query, share, seed)
        expected = 1 - truth.prompt_error
        best, rows = expected[~test].mean(axis=0).argmax(), np.arange(test.sum())
        thinned = [place for place, model in enumerate(benchmark.models) if model not in anchors]
        expected = expected[test]
        bayes, single = expected.max(axis=1).mean(), expected[:, best].mean()
        for method, router in fit_all(
            methods, train, sparse, train.embeddings, anchors, seed=seed, quick=quick
        ).items():
            estimate = router.predict_quality(z_test)
            quality = expected[rows, route(estimate, benchmark.mean_cost)].mean()
            error = np.abs(estimate - expected)[:, thinned].mean()
            reached = (quality - single) / (bayes - single)
            records.append((method, seed, error, quality, bayes, single, reached))
    return pd.DataFrame(records, columns=["method", "seed", "error", "quality", "bayes", "single", "reached"])


def recovery_table(found: pd.DataFrame) -> pd.DataFrame:
    """Return `recover_qualities` as readers see it: one row a method, means over seeds with 95 % intervals."""
    rows = {}
    for method, part in found.groupby("method", sort=False):
        error, reached = mean_interval(part["error"].to_numpy()), mean_interval(part["reached"].to_numpy())
        rows[figures.label(method)] = {
            "error of predicted quality": f"{error.estimate:.3f} [{error.low:.3f}, {error.high:.3f}]",
            "of the way to the best rule": f"{reached.estimate:.1%} [{reached.low:.1%}, {reached.high:.1%}]",
            "expected quality": f"{part['quality'].mean():.4f}",
            "best rule": f"{part['bayes'].mean():.4f}",
            "best single LLM": f"{part['single'].mean():.4f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")
