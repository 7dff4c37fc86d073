"""The primer's worked example: what its tables say is what routing one prompt at a time gives."""

from __future__ import annotations

import numpy as np
import pytest

from routebook import primer_page as page
from routebook.deferral import deferral_curve


@pytest.fixture(scope="module")
def curve():
    return deferral_curve(page.ESTIMATE, page.QUALITY, page.COST)


def test_the_table_holds_who_answers_each_prompt_on_each_piece(curve):
    table = page.routed_table(curve)
    assert list(table.index) == pytest.approx([0, 1 / 20, 3 / 20, 1 / 5])
    answered = [["large", "large", "small"], ["medium", "large", "small"], ["medium", "small", "small"], ["small"] * 3]
    assert table.filter(like="prompt").to_numpy().tolist() == answered
    for place, models in enumerate(answered):
        columns = [page.MODELS.index(model) for model in models]
        assert table["mean cost"].iloc[place] == pytest.approx(page.COST[columns].mean())
        assert table["mean quality"].iloc[place] == pytest.approx(page.QUALITY[range(3), columns].mean())


def test_the_example_shows_estimates_truth_and_cost():
    table = page.estimate_table()
    assert table.loc["prompt A"].tolist() == ["0.60 (wrong)", "0.80 (right)", "0.90 (right)"]
    assert table.loc["cost"].tolist() == ["1", "2", "4"]


def test_references_by_hand():
    curves = page.reference_curves()
    assert set(curves) == set(page.REFERENCES)
    # The oracle asks the cheapest right model: medium, large, small; DatasetOracle the large one for both sums.
    assert (curves["oracle"].cost[0], curves["oracle"].quality[0]) == (pytest.approx(7 / 3), 1)
    assert (curves["dataset-oracle"].cost[0], curves["dataset-oracle"].quality[0]) == (3, 1)
    assert (curves["best-single"].cost.tolist(), curves["best-single"].peak) == ([2], pytest.approx(2 / 3))
    assert page.random_point() == (pytest.approx(7 / 3), pytest.approx(5 / 9))


def test_shares_go_from_the_best_estimates_to_the_cheapest_model():
    estimate, cost = np.array([[0.2, 0.9], [0.6, 0.7], [0.9, 0.1], [0.5, 0.5]]), np.array([1.0, 10.0])
    shares = page.shares_at(estimate, cost, [0, 0.75, 1])
    np.testing.assert_allclose(shares[0], [0.5, 0.5])  # equal estimates go to the cheaper model
    np.testing.assert_allclose(shares[1], [1, 0])  # .9 - 1 < .2 - .1 and .7 - 1 < .6 - .1
    np.testing.assert_allclose(shares[0.75], [0.75, 0.25])  # .9 - .75 > .2 - .075, .7 - .75 < .6 - .075


def test_the_table_of_lambda_names_the_model_used_most(curve):
    shares = page.shares_at(page.ESTIMATE, page.COST, [0, 100])
    table = page.lambda_table(curve, shares, page.MODELS)
    assert table["most used"].tolist() == ["large (67%)", "small (100%)"]
    assert table["LLMs used"].tolist() == [2, 1]
    assert table["mean cost, % of the dearest"].tolist() == pytest.approx([75, 25])
    assert table["mean quality"].tolist() == pytest.approx([1, 1 / 3])
