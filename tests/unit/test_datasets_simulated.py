"""The simulator: its truth is exact, its draws follow the truth, the same seed gives the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from routebook import datasets
from routebook.datasets.simulated import mixture
from routebook.errors import UserError


def test_defaults():
    pool = datasets.load("simulated")
    assert (len(pool), len(pool.models), len(set(pool.tasks))) == (3000, 12, 6)
    assert pool.origin == "simulated"
    assert pool.cost_unit == "simulated units"
    assert pool.prompts[17] == "simulated prompt 17"
    assert pool.embeddings.shape == (3000, 16)
    assert set(np.unique(pool.quality)) == {0.0, 1.0}


def test_same_seed_same_bits_and_more_prompts_keep_the_pool():
    one, truth = mixture(200, 5, 3, 4, seed=7)
    two, again = mixture(200, 5, 3, 4, seed=7)
    assert one.digest() == two.digest()
    assert truth.prompt_error.tobytes() == again.prompt_error.tobytes()
    assert mixture(200, 5, 3, 4, seed=8)[0].digest() != one.digest()
    larger = mixture(500, 5, 3, 4, seed=7)[1]
    np.testing.assert_array_equal(larger.error, truth.error)
    np.testing.assert_array_equal(larger.centroids, truth.centroids)


def test_costs_rise_log_uniformly_from_1_to_100():
    pool, _ = mixture(5, 9, 2, 3)
    np.testing.assert_allclose(pool.cost[0, [0, 4, 8]], [1, 10, 100])
    assert (np.diff(np.log(pool.cost[0])) > 0).all()


def test_dearer_models_are_better_on_average_and_there_are_specialists():
    errors = np.stack([mixture(1, 12, 6, 8, seed=seed)[1].error for seed in range(40)])
    mean = errors.mean(axis=(0, 1))
    assert np.corrcoef(np.arange(12), mean)[0, 1] < -0.7
    # The best model of a cluster is often not the dearest.
    assert (errors.argmin(axis=2) < 10).mean() > 0.25


@pytest.mark.parametrize("deviation", [0.0, 0.3])
def test_drawn_labels_follow_the_stated_cluster_errors(deviation):
    pool, truth = mixture(60_000, 4, 3, 5, deviation=deviation, seed=3)
    for k in range(3):
        mine = truth.cluster == k
        observed = 1 - pool.quality[mine].mean(axis=0)
        standard_error = np.sqrt(truth.error[k] * (1 - truth.error[k]) / mine.sum())
        assert (np.abs(observed - truth.error[k]) < 5 * standard_error).all()


def test_prompt_error_is_the_mean_over_clusters_given_the_prompt():
    _, truth = mixture(50, 3, 4, 2, separation=1.5, deviation=0.1, seed=1)
    for n in (0, 13, 49):
        by_hand = sum(truth.posterior[n, k] * (truth.base_error[k] + truth.deviation[n]) for k in range(4))
        np.testing.assert_allclose(truth.prompt_error[n], by_hand)
    assert ((truth.prompt_error > 0) & (truth.prompt_error < 1)).all()


def test_posterior_by_hand():
    pool, truth = mixture(20, 2, 3, 2, separation=1.0, within_cluster_sd=2.0, seed=5)
    x = pool.embeddings[4]
    density = [np.exp(-np.sum((x - centroid) ** 2) / (2 * 2.0**2)) for centroid in truth.centroids]
    np.testing.assert_allclose(truth.posterior[4], np.array(density) / np.sum(density))
    np.testing.assert_allclose(truth.posterior.sum(axis=1), 1)


def test_labels_are_calibrated_to_the_posterior():
    """Among prompts with P(z=0|x) near p, about a share p was drawn from cluster 0: the mixture is the stated one."""
    _, truth = mixture(50_000, 1, 2, 2, separation=1.5, seed=2)
    p = truth.posterior[:, 0]
    for low in (0.1, 0.4, 0.7):
        near = (p > low) & (p < low + 0.2)
        error = 5 * np.sqrt(0.25 / near.sum())
        assert abs((truth.cluster[near] == 0).mean() - p[near].mean()) < error


def test_separation_is_the_distance_between_centroids():
    for sd in (1.0, 0.5):
        _, truth = mixture(1, 2, 4, 6, separation=5.0, within_cluster_sd=sd)
        distance = np.linalg.norm(truth.centroids[:, None] - truth.centroids[None], axis=2)
        np.testing.assert_allclose(distance[np.triu_indices(4, 1)], 5.0 * sd)
    pool, truth = mixture(4000, 2, 4, 6, separation=5.0, within_cluster_sd=0.5)
    spread = (pool.embeddings - truth.centroids[truth.cluster]).std()
    assert abs(spread - 0.5) < 0.01


def test_without_deviation_every_discrepancy_is_zero():
    _, truth = mixture(30, 3, 2, 4)
    assert not truth.discrepancy().any()
    np.testing.assert_array_equal(truth.error, truth.base_error)
    _, truth = mixture(2000, 3, 2, 4, deviation=0.2)
    assert 0.1 < np.abs(truth.deviation).max() <= 0.2
    given = truth.base_error[1] + truth.deviation[5]
    np.testing.assert_allclose(truth.discrepancy()[5, 1], np.abs(given - truth.error[1]))


def test_normalised_embeddings_and_more_clusters_than_dimensions():
    pool, truth = mixture(100, 2, 9, 3, normalise=True)
    np.testing.assert_allclose(np.linalg.norm(pool.embeddings, axis=1), 1)
    assert truth.centroids.shape == (9, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_clusters": 0}, "n_clusters is 0, expected a whole number >= 1"),
        ({"n_prompts": 2.5}, "n_prompts is 2.5, expected a whole number"),
        ({"n_models": True}, "n_models is True"),
        ({"seed": -1}, "seed is -1, expected a whole number >= 0"),
        ({"separation": -1.0}, "separation is -1.0, expected a number >= 0"),
        ({"within_cluster_sd": 0.0}, "within_cluster_sd is 0.0, expected a number > 0"),
        ({"deviation": 0.5}, r"deviation is 0.5, expected a number in \[0, 0.4\]"),
        ({"deviation": "much"}, "deviation is 'much'"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(UserError, match=message):
        datasets.load("simulated", **options)
