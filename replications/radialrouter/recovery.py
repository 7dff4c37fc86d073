"""Known truth first: RadialRouter on simulated prompts whose best LLM is known."""

from __future__ import annotations

import numpy as np
import pandas as pd

from replications.radialrouter import baselines, experiment
from replications.radialrouter.params import RadialRouterParams
from routebook.datasets import simulated
from routebook.significance import mean_interval

TEMPERATURES = (1.0, 0.1)


def recover_best_llm(
    params: RadialRouterParams,
    *,
    alpha: float = 0.02,
    n_prompts: int = 18_000,
    n_models: int = 8,
    n_clusters: int = 6,
    separation: float = 6.0,
) -> pd.DataFrame:
    """Train RadialRouter on a mixture of separated clusters and compare its choices with the rule that knows the truth.

    Choices are judged by the expected score, Eq. (7) with the true probability of a correct answer, so that no luck of
    the drawn answers enters. Groups of the contrastive loss are made without t-SNE.

    Returns
    -------
    DataFrame
        One row a temperature of the target softmax and seed: `temperature`, `seed`, `agreement` (share of test
        prompts on which the router takes the LLM with the highest expected score), `score`, `bayes` (that rule's
        score), `single` (the best single LLM's) and `reached` (share of the way from the best single LLM to the rule).
    """
    benchmark, truth = simulated.mixture(
        n_prompts=n_prompts, n_models=n_models, n_clusters=n_clusters, separation=separation, seed=params.seed
    )
    benchmark = baselines.with_eq7_cost(benchmark)
    train, test = experiment.split_rows(benchmark, params.seed)
    expected = 1 - truth.prompt_error - alpha * benchmark.cost  # Eq. (7), in expectation
    best, rows = expected[test].argmax(axis=1), np.arange(len(test))
    bayes, single = expected[test].max(axis=1).mean(), expected[test, expected[train].mean(axis=0).argmax()].mean()
    setting = experiment.Setting(
        benchmark.name,
        benchmark.subset(train),
        benchmark.subset(test),
        benchmark.embeddings[train],
        benchmark.embeddings[test],
    )
    routers = {t: experiment.routers_for(params, [alpha], temperature=t, loss="kl", group_dims=0) for t in TEMPERATURES}
    records = []
    for temperature, trained in experiment.train_all(routers, setting).items():
        for router in trained:
            choice = router.predict_quality(setting.test_embeddings).argmax(axis=1)
            score = expected[test][rows, choice].mean()
            reached = (score - single) / (bayes - single)
            agreement = (choice == best).mean()
            records.append((temperature, router.seed, agreement, score, bayes, single, reached))
    columns = ["temperature", "seed", "agreement", "score", "bayes", "single", "reached"]
    return pd.DataFrame(records, columns=columns)


def recovery_table(found: pd.DataFrame) -> pd.DataFrame:
    """Return `recover_best_llm` as readers see it: one row a temperature, means over seeds with 95 % intervals."""
    rows = {}
    for temperature, part in found.groupby("temperature", sort=False):
        cells = {}
        for name, column in (("best LLM chosen", "agreement"), ("of the way to the best rule", "reached")):
            interval = mean_interval(part[column].to_numpy())
            cells[name] = f"{interval.estimate:.1%} [{interval.low:.1%}, {interval.high:.1%}]"
        cells["expected score"] = f"{part['score'].mean():.4f}"
        cells["best rule"] = f"{part['bayes'].iloc[0]:.4f}"
        cells["best single LLM"] = f"{part['single'].iloc[0]:.4f}"
        rows[f"target temperature {temperature:g}"] = cells
    return pd.DataFrame.from_dict(rows, orient="index")
