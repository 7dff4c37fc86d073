"""Similarity of LLMs: the kernel by hand, families side by side, the bootstrap against drawing prompts one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from replications.uniroute import similarity
from routebook import routers
from routebook.datasets import simulated
from routebook.errors import UserError


def family(name: str) -> bool:
    return name.startswith("claude")


@pytest.fixture(scope="module")
def pool():
    """Six LLMs in six clusters; the three claudes share their errors but for one answer in twenty."""
    benchmark, _ = simulated.mixture(900, 6, 6, seed=2)
    rng = np.random.default_rng(0)
    quality = benchmark.quality.copy()
    for column in (2, 4):
        quality[:, column] = np.where(rng.random(900) < 0.05, 1 - quality[:, 0], quality[:, 0])
    names = ["claude-1", "x", "claude-2", "y", "claude-3", "z"]
    return replace(benchmark, quality=quality, models=names)


@pytest.fixture(scope="module")
def corners():
    """Two far clusters of two prompts; Ψ of the three LLMs is (0, 0), (0, 1) and (1, 0)."""
    benchmark, _ = simulated.mixture(4, 3, 2, seed=0)
    error = np.array([[0, 0, 1], [0, 0, 1], [0, 1, 0], [0, 1, 0]], dtype=float)
    return replace(benchmark, quality=1 - error, models=["a", "b", "c"]), np.array([[0.0], [0.1], [10.0], [10.1]])


def test_similarity_by_hand(corners):
    found = similarity.llm_similarity(*corners, n_clusters=2)
    # Distances 1, 1 and √2, so the median is 1.
    assert found.loc["a", "b"] == pytest.approx(np.exp(-0.5))
    assert found.loc["a", "c"] == pytest.approx(np.exp(-0.5))
    assert found.loc["b", "c"] == pytest.approx(np.exp(-1.0))
    assert (np.diag(found) == 1).all()
    assert np.array_equal(found, found.T)


def test_a_missing_label_is_left_out_of_the_mean(corners):
    benchmark, embeddings = corners
    quality = benchmark.quality.copy()
    quality[0] = np.nan
    missing = similarity.llm_similarity(replace(benchmark, quality=quality), embeddings, n_clusters=2)
    assert missing.equals(similarity.llm_similarity(benchmark, embeddings, n_clusters=2))


def test_llms_that_never_differ_are_fully_similar(corners):
    benchmark, embeddings = corners
    same = replace(benchmark, quality=np.ones((4, 3)))
    assert (similarity.llm_similarity(same, embeddings, n_clusters=2) == 1).all(axis=None)


def test_more_than_half_the_distances_zero_leaves_the_others_dissimilar():
    distances = np.array([[0.0, 0.0, 0.3]])
    assert similarity._kernel(distances).tolist() == [[1.0, 1.0, 0.0]]


def test_a_family_stands_side_by_side(pool):
    names = list(similarity.llm_similarity(pool, pool.embeddings, n_clusters=6).index)
    places = [place for place, name in enumerate(names) if family(name)]
    assert sorted(names) == sorted(pool.models)
    assert max(places) - min(places) == 2


def test_contrast_is_the_difference_of_means_of_the_heat_map(pool):
    frame = similarity.llm_similarity(pool, pool.embeddings, n_clusters=6, seed=1)
    claudes, others = ["claude-1", "claude-2", "claude-3"], ["x", "y", "z"]
    inside = frame.loc[claudes, claudes].to_numpy()
    expected = (inside.sum() - 3) / 6 - frame.loc[claudes, others].to_numpy().mean()
    found = similarity.family_contrast(pool, pool.embeddings, family, n_clusters=6, seed=1)
    assert found.estimate == pytest.approx(expected)
    assert 0 < found.low < found.high
    assert found.n == 900


def test_llms_drawn_alike_form_no_family():
    benchmark, _ = simulated.mixture(900, 6, 6, seed=2)
    chance = replace(benchmark, quality=(np.random.default_rng(3).random((900, 6)) < 0.6).astype(float))
    found = similarity.family_contrast(chance, chance.embeddings, lambda name: name < "model 04", n_clusters=6)
    assert found.low < 0 < found.high


def test_features_of_a_resample_are_those_of_the_prompts_repeated(pool):
    rng = np.random.default_rng(1)
    quality = np.where(rng.random(pool.quality.shape) < 0.3, np.nan, rng.random(pool.quality.shape))
    cluster = rng.integers(0, 6, len(pool))
    cluster[cluster == 4] = 5  # an empty cluster
    weights = rng.multinomial(len(pool), np.full(len(pool), 1 / len(pool)), size=3)
    found = similarity._weighted_psi(quality, cluster, 6, weights)
    for row, psi in zip(weights, found, strict=True):
        means, _ = routers.group_means(np.repeat(quality, row, axis=0), np.repeat(cluster, row), 6)
        np.testing.assert_allclose(psi, 1 - means, atol=1e-12)


def test_the_interval_is_that_of_a_bootstrap_done_prompt_by_prompt(pool):
    router = routers.KMeans(n_clusters=6, seed=0).fit(pool, pool.embeddings)
    cluster, rng, contrasts = router.assign(pool.embeddings), np.random.default_rng(9), []
    for _ in range(400):
        rows = rng.integers(0, len(pool), len(pool))
        psi = 1 - routers.group_means(pool.quality[rows], cluster[rows], 6)[0]
        distance = np.linalg.norm(psi[:, :, None] - psi[:, None, :], axis=0)
        kernel = np.exp(-(distance**2) / (2 * np.median(distance[np.triu_indices(6, 1)]) ** 2))
        inside = [kernel[i, j] for i, j in ((0, 2), (0, 4), (2, 4))]
        contrasts.append(np.mean(inside) - kernel[np.ix_([0, 2, 4], [1, 3, 5])].mean())
    found = similarity.family_contrast(pool, pool.embeddings, family, n_clusters=6, n_resamples=2000)
    low, high = np.quantile(contrasts, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.25 * (high - low))
    assert found.high == pytest.approx(high, abs=0.25 * (high - low))


def test_same_seed_same_interval_however_large_the_batches(pool, monkeypatch):
    whole = similarity.family_contrast(pool, pool.embeddings, family, n_clusters=6, n_resamples=50)
    monkeypatch.setattr(similarity, "_BATCH_CELLS", 7 * len(pool))
    assert similarity.family_contrast(pool, pool.embeddings, family, n_clusters=6, n_resamples=50) == whole


@pytest.mark.parametrize("member", [lambda name: name == "x", lambda name: True])
def test_a_family_of_one_or_of_all_is_refused(pool, member):
    with pytest.raises(UserError, match="member picks"):
        similarity.family_contrast(pool, pool.embeddings, member, n_clusters=6)


def test_options_out_of_range_are_refused(pool):
    for options in ({"n_resamples": 0}, {"confidence": 1.0}):
        with pytest.raises(UserError, match="n_resamples="):
            similarity.family_contrast(pool, pool.embeddings, family, n_clusters=6, **options)


def test_an_llm_without_a_label_is_named(pool):
    quality = pool.quality.copy()
    quality[:, 3] = np.nan
    with pytest.raises(UserError, match="no label of y"):
        similarity.llm_similarity(replace(pool, quality=quality), pool.embeddings, n_clusters=6)


def test_one_llm_is_refused(pool):
    with pytest.raises(UserError, match="at least two"):
        similarity.llm_similarity(pool.subset(models=["x"]), pool.embeddings, n_clusters=6)


def test_the_contrast_over_seeds_is_the_mean_of_the_seeds_and_needs_two_members():
    benchmark, _ = simulated.mixture(400, 6, 4, seed=2)
    seeds = range(3)
    family = benchmark.models[0][:-1]
    chosen = [m for m in benchmark.models if family in m]
    assert similarity.contrast_over_seeds(benchmark, benchmark.embeddings, "no such family", 4, seeds) is None
    if 2 <= len(chosen) < len(benchmark.models):
        each = [
            similarity.family_contrast(benchmark, benchmark.embeddings, lambda m: family in m, 4, seed).estimate
            for seed in seeds
        ]
        found = similarity.contrast_over_seeds(benchmark, benchmark.embeddings, family, 4, seeds)
        assert found.estimate == pytest.approx(np.mean(each))
