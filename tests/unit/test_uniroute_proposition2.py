"""Proposition 2 by hand, against the chapter's discrete mixtures, and on simulated problems."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from replications.uniroute import arithmetic
from replications.uniroute import proposition2 as P
from routebook.datasets import simulated
from routebook.errors import UserError

SMALL = {"n_pools": 2, "n_prompts": 400}


def truth_of(posterior, base, deviation) -> simulated.Truth:
    """Prompts listed, each as likely as the others, with the Ψ* they imply."""
    posterior, base, deviation = (np.array(a, dtype=float) for a in (posterior, base, deviation))
    error = base + (posterior.T @ deviation) / posterior.sum(axis=0)[:, None]
    return simulated.Truth(
        cluster=posterior.argmax(axis=1),
        weights=posterior.mean(axis=0),
        centroids=np.zeros((len(base), 1)),
        posterior=posterior,
        error=error,
        base_error=base,
        deviation=deviation,
        prompt_error=posterior @ base + deviation,
    )


def test_by_hand():
    # One cluster: LLM 0 errs with .7 and .1 on the two prompts, .4 on average; LLM 1 with .5 on both. The cluster rule
    # sends both to LLM 0 and loses .2 on the first; Δ is .3 for LLM 0 on either prompt.
    truth = truth_of([[1], [1]], [[0.4, 0.5]], [[0.3, 0.0], [-0.3, 0.0]])
    gap, discrepancy = P.gap_and_discrepancy(truth)
    assert gap == pytest.approx(0.1)
    assert discrepancy == pytest.approx(0.3)


def test_a_prompt_between_clusters_is_routed_by_its_mixture_of_them():
    # Ψ* = (0, .6) and (.5, 0): half of each gives .25 against .3, a quarter of the first .375 against .15.
    truth = truth_of([[0.5, 0.5], [0.25, 0.75]], [[0.0, 0.6], [0.5, 0.0]], np.zeros((2, 2)))
    assert P.gap_and_discrepancy(truth) == (0.0, 0.0)
    swapped = replace(truth, prompt_error=np.array([[0.25, 0.05], [0.375, 0.4]]))
    assert P.gap_and_discrepancy(swapped)[0] == pytest.approx((0.2 + (0.4 - 0.375)) / 2)


def test_agrees_with_the_discrete_mixtures_of_the_arithmetic_checks():
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(50):
        n, k, m = rng.integers(2, 7), rng.integers(1, 4), rng.integers(2, 5)
        truth = truth_of(rng.dirichlet(np.ones(k), n), rng.uniform(0.4, 0.6, (k, m)), rng.uniform(-0.4, 0.4, (n, m)))
        error = truth.base_error[None] + truth.deviation[:, None]
        problem = arithmetic.Mixture(np.full(n, 1 / n), truth.posterior, error)
        gap, discrepancy = P.gap_and_discrepancy(truth)
        assert gap == pytest.approx(problem.excess_risk)
        assert discrepancy == pytest.approx(problem.discrepancy)
        gaps.append(gap)
    assert max(gaps) > 0.05


@pytest.mark.parametrize("separation", [0.5, 6.0])
def test_without_deviation_routing_by_cluster_costs_nothing(separation):
    row = P.excess_risk_against_discrepancy([0.0], separation=separation, **SMALL).iloc[0]
    assert row["gap"] == 0
    assert row["discrepancy"] == 0
    assert np.isnan(row["ratio"])


@pytest.mark.parametrize("separation", [0.5, 2.0, 6.0])
def test_the_gap_rises_with_the_discrepancy_and_stays_within_the_proved_bound(separation):
    found = P.excess_risk_against_discrepancy(separation=separation, **SMALL)
    assert found["deviation"].tolist() == list(P.DEVIATIONS)
    assert (np.diff(found["gap"]) > 0).all()
    assert (np.diff(found["discrepancy"]) > 0).all()
    assert (found["gap"] <= 2 * found["discrepancy"]).all()
    later = found.iloc[1:]
    np.testing.assert_allclose(later["ratio"], later["gap"] / later["discrepancy"])


def test_the_bound_holds_for_every_problem_drawn():
    for seed in range(10):
        for separation in (0.0, 1.0, 6.0):
            _, truth = simulated.mixture(200, 5, 4, separation=separation, deviation=0.4, seed=seed)
            gap, discrepancy = P.gap_and_discrepancy(truth)
            assert 0 < gap <= 2 * discrepancy


def test_pools_are_averaged():
    single = [P.excess_risk_against_discrepancy([0.2], n_pools=1, n_prompts=300, seed=seed) for seed in (4, 5)]
    both = P.excess_risk_against_discrepancy([0.2], n_pools=2, n_prompts=300, seed=4)
    assert both["gap"].iloc[0] == pytest.approx(np.mean([frame["gap"].iloc[0] for frame in single]))
    assert single[0]["gap"].iloc[0] != single[1]["gap"].iloc[0]


def test_wrong_options_are_refused():
    with pytest.raises(UserError, match="n_pools is 0"):
        P.excess_risk_against_discrepancy([0.1], n_pools=0)
    with pytest.raises(UserError, match=r"deviation is 0\.5"):
        P.excess_risk_against_discrepancy([0.5], **SMALL)
