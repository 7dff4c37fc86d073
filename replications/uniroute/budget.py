"""Budget control (Appendix E): choose λ on validation prompts so that a mean cost is met, and see what tests cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from replications.uniroute.choices import refit
from replications.uniroute.params import UniRouteParams
from replications.uniroute.trials import Trial
from routebook import routers
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import DeferralCurve, deferral_curve
from routebook.errors import UserError
from routebook.significance import mean_interval

# A cost is over budget only by more than the rounding of a mean.
_ROUNDING = 1e-9


def estimated_curve(quality_hat: np.ndarray, cost: np.ndarray) -> DeferralCurve:
    """Return cost and *estimated* quality at every λ: what is known of prompts without labels.

    Parameters
    ----------
    quality_hat : ndarray, [N, M]
    cost : ndarray, [M] or [N, M]
    """
    return deferral_curve(quality_hat, quality_hat, cost)


def budget_control(validation: DeferralCurve, test: DeferralCurve, budgets: Sequence[float]) -> pd.DataFrame:
    """Return what each budget leads to when λ is tuned on validation prompts (Appendix E).

    The paper searches along a line for the smallest λ whose mean cost on validation prompts is within the budget B of
    Eq. (5). All values of λ at which any prompt changes its LLM are known here, so that λ is read off exactly. One λ
    gives a step: with finitely many prompts the validation cost is at most the budget, seldom equal to it, and K-means
    moves whole clusters at once.

    Parameters
    ----------
    validation
        Curve of the validation prompts; only its costs are used, so `estimated_curve` will do and no label is needed.
    test
        Curve of the test prompts under the same router.
    budgets
        Mean cost a prompt.

    Returns
    -------
    DataFrame
        One row a budget: budget, lam, validation_cost, test_cost, test_quality.

    Raises
    ------
    UserError
        When a budget is below what the router costs at its cheapest.
    """
    lam = np.array([validation.lambda_for_budget(budget) for budget in budgets])
    test_cost, test_quality = test.at_lambda(lam)
    return pd.DataFrame(
        {
            "budget": np.asarray(budgets, dtype=float),
            "lam": lam,
            "validation_cost": validation.at_lambda(lam)[0],
            "test_cost": test_cost,
            "test_quality": test_quality,
        }
    )


def budget_errors(
    benchmark: RoutingBenchmark,
    embeddings: np.ndarray,
    params: UniRouteParams,
    done: Sequence[Trial],
    shares: Sequence[float] = (0.1, 0.25, 0.5, 0.75),
) -> pd.DataFrame:
    """Return how far the test cost of UniRoute (K-means) lands from budgets set on validation prompts (Appendix E).

    Each trial's split and its chosen K are used once more; routing is among the unseen LLMs. Budgets are
    low + share · (high - low), between the mean validation costs of the cheapest and the dearest unseen LLM.

    Parameters
    ----------
    benchmark
        Priced benchmark, N prompts x M LLMs: the one that the trials were run on.
    embeddings : ndarray, [N, D]
    params
        Those of the trials.
    done
        Finished trials, all from number 0 on.
    shares
        Of the range of costs, each above 0 and at most 1.

    Returns
    -------
    DataFrame
        One row a share: share; test_spent, the mean over trials of test cost / budget, with its 95 % t-interval low
        and high; validation_spent, the same mean on validation prompts (at most 1: what the step leaves unspent);
        over_budget, the share of trials whose test cost exceeds the budget; quality, the mean test quality.

    Raises
    ------
    UserError
        When there are no trials, or a share is not above 0 and at most 1.
    """
    if not done:
        raise UserError("done holds no trial, expected those that run_trials returned")
    wrong = [share for share in shares if not 0 < share <= 1]
    if wrong or not len(shares):
        raise UserError(f"shares is {list(shares)}, expected one or more numbers above 0 and at most 1")
    outcomes = []
    for number, trial in enumerate(done):
        validation, test = _curves(benchmark, embeddings, params, number, trial)
        low, high = validation.model_cost.min(), validation.model_cost.max()
        outcome = budget_control(validation, test, [low + share * (high - low) for share in shares])
        outcomes.append(outcome.assign(share=shares))
    return _over_trials(pd.concat(outcomes))


def _curves(
    benchmark: RoutingBenchmark, embeddings: np.ndarray, params: UniRouteParams, number: int, trial: Trial
) -> tuple[DeferralCurve, DeferralCurve]:
    """Refit K-means on a trial's split: its estimated curve on validation prompts and its curve on test prompts."""
    split = trial.split
    clusters = routers.KMeans(
        n_clusters=trial.selections["k-means"].best, seed=params.seed + number, n_init=params.kmeans_starts
    )
    again = refit(clusters, benchmark, embeddings, split)
    validation = benchmark.subset(split.validation, split.unseen)
    on_validation = routers.quality_for(again.router, embeddings[split.validation], split.unseen)
    return estimated_curve(on_validation, validation.cost), again.curve()


def _over_trials(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Summarise `budget_control` outcomes with a column `share`, one row a trial and share."""
    rows = []
    for share, group in outcomes.groupby("share", sort=False):
        spent = (group["test_cost"] / group["budget"]).to_numpy()
        interval = mean_interval(spent)
        rows.append(
            {
                "share": share,
                "test_spent": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "validation_spent": float((group["validation_cost"] / group["budget"]).mean()),
                "over_budget": float((spent > 1 + _ROUNDING).mean()),
                "quality": float(group["test_quality"].mean()),
            }
        )
    return pd.DataFrame(rows)
