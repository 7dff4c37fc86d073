"""Budget control: λ by hand, against a line search, and what trials report."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from replications.uniroute import budget, choices
from replications.uniroute.params import UniRouteParams
from replications.uniroute.selection import Selection
from replications.uniroute.trials import Trial, draw_split
from routebook import routers
from routebook.datasets import simulated
from routebook.deferral import deferral_curve
from routebook.errors import UserError

PARAMS = UniRouteParams(n_trials=3, n_validation=150, cluster_grid=[4], neighbour_grid=[5])
SHARES = (0.05, 0.3, 0.6, 1.0)


@pytest.fixture(scope="module")
def benchmark():
    return choices.at_mean_cost(simulated.mixture(800, 8, 5, seed=3)[0])


@pytest.fixture(scope="module")
def done(benchmark):
    chosen = {"k-means": Selection(4, (4,), np.array([0.5]))}
    return [Trial(draw_split(benchmark, PARAMS, number), {}, chosen, {}) for number in range(3)]


def test_budget_control_by_hand():
    # Prices 1 and 3. Validation: the dear LLM is left at λ = .1 and λ = .2. Test: twice at .1, once at .2, once never.
    cost = np.array([1.0, 3.0])
    validation = budget.estimated_curve(np.array([[0.5, 0.7], [0.5, 0.9]]), cost)
    hat = np.array([[0.5, 0.7], [0.5, 0.7], [0.5, 0.9], [0.5, 0.4]])
    test = deferral_curve(hat, np.array([[0, 1], [1, 1], [0, 1], [1, 0]]), cost)
    found = budget.budget_control(validation, test, [3.0, 2.5, 2.0, 1.2])
    assert found["lam"].tolist() == pytest.approx([0.0, 0.1, 0.1, 0.2])
    assert found["validation_cost"].tolist() == pytest.approx([3.0, 2.0, 2.0, 1.0])
    assert found["test_cost"].tolist() == pytest.approx([2.5, 1.5, 1.5, 1.0])
    assert found["test_quality"].tolist() == pytest.approx([1.0, 0.75, 0.75, 0.5])


def test_a_budget_below_the_cheapest_is_refused():
    curve = budget.estimated_curve(np.array([[0.5, 0.7]]), np.array([1.0, 3.0]))
    with pytest.raises(UserError, match=r"budget is 0\.9"):
        budget.budget_control(curve, curve, [0.9])


def test_exact_lambda_is_where_a_fine_line_search_ends():
    rng = np.random.default_rng(0)
    hat, cost = rng.random((200, 4)), np.array([0.5, 1.0, 1.7, 3.0])
    curve = budget.estimated_curve(hat, cost)
    lams = np.arange(0, 2, 1e-3)
    searched = np.array([cost[(hat - lam * cost).argmax(axis=1)].mean() for lam in lams])
    budgets = np.linspace(0.6, 1.4, 9)
    found = budget.budget_control(curve, curve, budgets)
    for row, wanted in zip(found.itertuples(), budgets, strict=True):
        line = lams[np.argmax(searched <= wanted)]
        assert line - 1e-3 <= row.lam <= line + 1e-12
        assert row.validation_cost <= wanted
        assert curve.at_lambda(row.lam * (1 - 1e-9))[0] > wanted


def test_errors_over_trials_are_those_of_the_same_router_searched_along_a_line(benchmark, done):
    found = budget.budget_errors(benchmark, benchmark.embeddings, PARAMS, done, SHARES)
    spent, quality = np.empty((3, len(SHARES))), np.empty((3, len(SHARES)))
    for number, trial in enumerate(done):
        router = routers.KMeans(n_clusters=4, seed=PARAMS.seed + number)
        again = choices.refit(router, benchmark, benchmark.embeddings, trial.split)
        hat = routers.quality_for(router, benchmark.embeddings[trial.split.validation], trial.split.unseen)
        price = again.test.mean_cost
        lams = np.linspace(0, 1, 20001)
        costs = np.array([price[(hat - lam * price).argmax(axis=1)].mean() for lam in lams])
        for i, share in enumerate(SHARES):
            wanted = price.min() + share * (price.max() - price.min())
            route = (again.quality_hat - lams[np.argmax(costs <= wanted)] * price).argmax(axis=1)
            spent[number, i] = price[route].mean() / wanted
            quality[number, i] = again.test.quality[np.arange(len(route)), route].mean()
    assert found["share"].tolist() == list(SHARES)
    np.testing.assert_allclose(found["test_spent"], spent.mean(axis=0))
    np.testing.assert_allclose(found["quality"], quality.mean(axis=0))
    np.testing.assert_allclose(found["over_budget"], (spent > 1 + 1e-9).mean(axis=0))
    half = 4.302653 * spent.std(axis=0, ddof=1) / np.sqrt(3)  # Student's t, 2 degrees of freedom
    np.testing.assert_allclose(found["high"] - found["test_spent"], half, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(found["test_spent"] - found["low"], half, rtol=1e-5, atol=1e-12)


def test_validation_never_exceeds_the_budget_and_nothing_is_over_the_whole_range(benchmark, done):
    found = budget.budget_errors(benchmark, benchmark.embeddings, PARAMS, done, SHARES).set_index("share")
    assert (found["validation_spent"] <= 1 + 1e-9).all()
    assert found.loc[1.0, "over_budget"] == 0
    again = budget.budget_errors(benchmark, benchmark.embeddings, PARAMS, done, SHARES).set_index("share")
    assert found.equals(again)


def test_labels_of_test_prompts_do_not_move_the_cost(benchmark, done):
    rows = done[0].split.test
    flipped = benchmark.quality.copy()
    flipped[rows] = 1 - flipped[rows]
    other = replace(benchmark, quality=flipped)
    ours, theirs = (
        budget.budget_errors(each, benchmark.embeddings, PARAMS, done[:1], SHARES) for each in (benchmark, other)
    )
    pd.testing.assert_series_equal(ours["test_spent"], theirs["test_spent"])
    np.testing.assert_allclose(ours["quality"] + theirs["quality"], 1.0)


@pytest.mark.parametrize("shares", [(), (0.0, 0.5), (1.2,), (float("nan"),)])
def test_shares_outside_the_range_are_refused(benchmark, done, shares):
    with pytest.raises(UserError, match="shares is"):
        budget.budget_errors(benchmark, benchmark.embeddings, PARAMS, done, shares)


def test_no_trials_are_refused(benchmark):
    with pytest.raises(UserError, match="no trial"):
        budget.budget_errors(benchmark, benchmark.embeddings, PARAMS, [])
