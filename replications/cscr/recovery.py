"""Known truth first: CSCR on simulated experts whose specialities, costs and descriptors are known."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from replications.cscr.contrastive import CSCR
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import deferral_curve
from routebook.errors import UserError
from routebook.routers import fit_together
from routebook.significance import mean_interval

COST_UNIT = "simulated units"
COST_RANGE = (1.0, 100.0)
# With k = 3, as many as have mastered a cluster, the top k can be right to the last; the paper's default is 4.
VARIANTS: dict[str, dict[str, Any]] = {
    "cscr, k = 3": {"k": 3},
    "cscr, k = 4": {"k": 4},
    "cscr, k = 3, other sign": {"k": 3, "gamma_sign": "other"},
    "vanilla, k = 3": {"k": 3, "loss": "vanilla"},
}
# Long training: the question is where the loss leads, not how soon.
STEPS = 300


@dataclass(frozen=True, eq=False)
class Specialities:
    """What generated a pool of specialists.

    Attributes
    ----------
    cluster : ndarray of int, [N]
        The cluster each prompt was drawn from.
    masters : ndarray of bool, [K, M]
        Whether an expert has mastered a cluster.
    descriptors : dict of str to ndarray, [D']
        Of unit length.
    """

    cluster: np.ndarray
    masters: np.ndarray
    descriptors: dict[str, np.ndarray]

    def cheapest_master(self, cost: np.ndarray) -> np.ndarray:
        """Return the cheapest expert that has mastered each prompt's cluster, [N] of columns, for costs [M]."""
        return np.where(self.masters, cost, np.inf).argmin(axis=1)[self.cluster]


def specialists(
    n_prompts: int = 3000,
    n_experts: int = 12,
    n_clusters: int = 6,
    *,
    masters: int = 3,
    right: float = 0.95,
    wrong: float = 0.05,
    dim: int = 16,
    descriptor_dim: int = 32,
    descriptor_noise: float | None = 0.5,
    separation: float = 6.0,
    seed: int = 0,
) -> tuple[RoutingBenchmark, Specialities]:
    """Draw a pool of experts of which some, cheap and dear ones alike, have mastered each cluster of prompts.

    Mastery is drawn without a look at the cost: each cluster has `masters` masters, and which they are is random.
    Costs rise log-uniformly from 1 to 100. An expert's descriptor is the sum of the directions of the clusters it has
    mastered (random and orthogonal) with Gaussian noise of the given standard deviation a direction's length,
    or noise alone where `descriptor_noise` is None: then it says nothing about what the expert can do.

    Parameters
    ----------
    right, wrong
        Probability of a correct answer on a cluster mastered, and on any other.
    dim, descriptor_dim
        Dimensions of prompts and of descriptors; each at least `n_clusters`.
    separation
        Distance between clusters in standard deviations of a prompt around its centre.

    Returns
    -------
    benchmark : RoutingBenchmark
        Binary quality, one price an expert, embeddings attached, task = the cluster.
    truth : Specialities
    """
    if not 1 <= masters <= n_experts:
        raise UserError(f"masters is {masters}, expected a number from 1 to n_experts = {n_experts}")
    if min(dim, descriptor_dim) < n_clusters:
        raise UserError(
            f"n_clusters is {n_clusters}, more than the dimensions (dim = {dim}, descriptor_dim = {descriptor_dim}), "
            "so the clusters cannot lie equally far from one another; raise the dimensions"
        )
    rng = np.random.default_rng(seed)
    mastered = rng.random((n_clusters, n_experts)).argsort(axis=1) < masters
    centres, directions = (np.linalg.qr(rng.standard_normal((d, d)))[0][:n_clusters] for d in (dim, descriptor_dim))
    cluster = rng.integers(n_clusters, size=n_prompts)
    prompts = separation / np.sqrt(2) * centres[cluster] + rng.standard_normal((n_prompts, dim))
    noise = rng.standard_normal((n_experts, descriptor_dim)) / np.sqrt(descriptor_dim)
    vectors = noise if descriptor_noise is None else mastered.T @ directions + descriptor_noise * noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    models = [f"expert {m + 1:02d}" for m in range(n_experts)]
    correct = rng.random((n_prompts, n_experts)) < np.where(mastered, right, wrong)[cluster]
    benchmark = RoutingBenchmark(
        name="specialists",
        prompts=[f"simulated prompt {i}" for i in range(n_prompts)],
        tasks=np.array([f"cluster {k}" for k in cluster]),
        models=models,
        quality=correct.astype(float),
        cost=np.tile(np.geomspace(*COST_RANGE, n_experts), (n_prompts, 1)),
        cost_unit=COST_UNIT,
        origin="simulated",
        embeddings=prompts / np.linalg.norm(prompts, axis=1, keepdims=True),
        notes=("drawn by replications.cscr.recovery: no real model or prompt is involved",),
    )
    return benchmark, Specialities(cluster, mastered, dict(zip(models, vectors, strict=True)))


def recover_specialists(
    seeds: Sequence[int] = range(3), variants: Mapping[str, Mapping[str, Any]] = VARIANTS, **pool: Any
) -> pd.DataFrame:
    """Train CSCR on pools of specialists and compare its choices with the rule that knows the truth.

    That rule sends each prompt to the cheapest expert that has mastered its cluster. The router's lambda is the one
    that agrees with it most often on the training prompts; half of the prompts are held out.

    Parameters
    ----------
    seeds
        Each draws a pool and a training.
    variants
        Settings of `CSCR` by name; where they say nothing of it, at least `STEPS` training steps.
    **pool
        Of `specialists`.

    Returns
    -------
    DataFrame
        One row a variant and seed: `variant`, `seed`, `agreement` (share of test prompts sent to the cheapest master),
        `mastered` (sent to any master of their cluster), `quality` and `cost` at that lambda, `rule_quality` and
        `rule_cost` (the rule's own), `chance` (agreement of a uniformly random choice), and `area`.
    """
    drawn = {seed: _halves(*specialists(seed=seed, **pool), seed) for seed in seeds}
    trained = _trained(drawn, variants)
    records = []
    for seed, (train, test, truth, parts) in drawn.items():
        cost = train.mean_cost
        best = truth.cheapest_master(cost)
        rows = np.arange(len(test))
        for variant in variants:
            router = trained[variant, seed]
            lam = _lambda_that_agrees(router, train.embeddings, cost, best[parts["train"]])
            choice = router.choose(test.embeddings, cost, lam)
            curve = deferral_curve(router.predict_quality(test.embeddings), test.quality, cost)
            rule = best[parts["test"]]
            records.append(
                {
                    "variant": variant,
                    "seed": seed,
                    "agreement": (choice == rule).mean(),
                    "mastered": truth.masters[truth.cluster[parts["test"]], choice].mean(),
                    "quality": test.quality[rows, choice].mean(),
                    "cost": cost[choice].mean(),
                    "rule_quality": test.quality[rows, rule].mean(),
                    "rule_cost": cost[rule].mean(),
                    "chance": 1 / len(cost),
                    "area": curve.area(left="flat"),
                }
            )
    return pd.DataFrame(records)


Halves = tuple[RoutingBenchmark, RoutingBenchmark, Specialities, dict[str, np.ndarray]]


def _halves(benchmark: RoutingBenchmark, truth: Specialities, seed: int) -> Halves:
    """Return the prompts to train on and to test on, the truth, and the rows of either."""
    parts = benchmark.random_split({"train": len(benchmark) // 2, "test": -1}, np.random.default_rng(seed))
    return benchmark.subset(parts["train"]), benchmark.subset(parts["test"]), truth, parts


def _trained(drawn: Mapping[int, Halves], variants: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, int], CSCR]:
    """Return CSCR by variant and seed, trained side by side; variants that differ in k alone share a training."""
    fitted: dict[Any, CSCR] = {}
    keys = {}
    for variant, settings in variants.items():
        training = {"min_steps": STEPS, **settings, "k": 1}
        for seed, (_, _, truth, _) in drawn.items():
            keys[variant, seed] = key = (seed, *sorted(training.items()))
            if key not in fitted:
                fitted[key] = CSCR(descriptors=truth.descriptors, seed=seed, **training)
    problems = [(drawn[seed][0], drawn[seed][0].embeddings) for seed, *_ in fitted]
    fit_together(list(fitted.values()), problems)
    default = CSCR.k
    return {
        (variant, seed): copy.copy(fitted[key]).set_params(k=variants[variant].get("k", default))
        for (variant, seed), key in keys.items()
    }


def _lambda_that_agrees(router: CSCR, embeddings: np.ndarray, cost: np.ndarray, best: np.ndarray) -> float:
    """Return the trade-off, of 40 from 0 up, that sends most prompts to their `best` expert; of equals the first."""
    similarity = np.nan_to_num(router.predict_quality(embeddings), nan=-np.inf)
    lambdas = [0.0, *np.geomspace(1e-3, 1e2, 39) / (cost.max() - cost.min())]
    agreement = [((similarity - lam * cost).argmax(axis=1) == best).mean() for lam in lambdas]
    return float(lambdas[int(np.argmax(agreement))])


def recovery_table(found: pd.DataFrame) -> pd.DataFrame:
    """Return `recover_specialists` as readers see it: one row a variant, means over seeds with 95 % intervals.

    Bounds of a share are cut at 0 and 1.
    """
    labels = {
        "agreement": "to the cheapest expert that has mastered the cluster",
        "mastered": "to an expert that has mastered the cluster",
        "chance": "of a random choice",
    }
    rows = {}
    for variant, part in found.groupby("variant", sort=False):
        cells = {}
        for column, label in labels.items():
            interval = mean_interval(part[column].to_numpy())
            bounds = "" if column == "chance" else f" [{max(interval.low, 0):.1%}, {min(interval.high, 1):.1%}]"
            cells[label] = f"{interval.estimate:.1%}{bounds}"
        for name in ("quality", "rule_quality", "cost", "rule_cost"):
            cells[name.replace("rule_", "the rule's ")] = f"{part[name].mean():.3g}"
        rows[variant] = cells
    return pd.DataFrame.from_dict(rows, orient="index")
