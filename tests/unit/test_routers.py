"""Routers against hand-worked values and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from routebook import routers
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import deferral_curve
from routebook.errors import UserError

NAN = np.nan
DYNAMIC = [
    routers.Random(seed=1),
    routers.DatasetOracle(),
    routers.ZeroRouter(),
    routers.KNN(n_neighbours=3),
    routers.KMeans(n_clusters=3),
    routers.Thompson(seed=1),
]
STATIC = [routers.BestSingle(), routers.MLP(epochs=2), routers.MatrixFactorization(rank=3, epochs=2)]
LEARNED = [*DYNAMIC[1:], *STATIC]


def name_of(router):
    return type(router).__name__


def bench(quality, cost=None, tasks=None, models=None, kind="binary"):
    quality = np.asarray(quality, dtype=float)
    n, m = quality.shape
    cost = np.arange(1.0, m + 1) if cost is None else np.asarray(cost, dtype=float)
    return RoutingBenchmark(
        name="tiny",
        prompts=[f"p{i}" for i in range(n)],
        tasks=np.array(["t"] * n if tasks is None else tasks),
        models=models or [f"m{j}" for j in range(m)],
        quality=quality,
        cost=np.broadcast_to(cost, (n, m)),
        cost_unit="USD per prompt",
        origin="simulated",
        quality_kind=kind,
    )


def pool(seed=0, n=60, m=4, d=5, missing=0.0, soft=False):
    """A random benchmark and embeddings; a share of the labels is missing."""
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(n, d)).astype(np.float32)
    quality = rng.random((n, m)) if soft else (rng.random((n, m)) < 0.6).astype(float)
    quality[rng.random((n, m)) < missing] = NAN
    tasks = rng.choice(["a", "b", "c"], n)
    return bench(quality, tasks=tasks), embeddings


def ask(router, embeddings, tasks):
    return routers.quality_for(router, embeddings, router.models_, tasks=tasks)


# --- hand-worked values ----------------------------------------------------------------------------------------------

LINE = np.array([[0.0], [1.0], [10.0], [11.0], [12.0]])


def test_kmeans_psi_by_hand():
    benchmark = bench([[1, 1], [0, NAN], [0, 0.5], [0, 1.0], [1, 0.0]])
    router = routers.KMeans(n_clusters=2, seed=0).fit(benchmark, LINE)
    near, far = router.assign(np.array([[0.4], [10.6]]))
    np.testing.assert_allclose(router.centroids_[[near, far]], [[0.5], [11.0]])
    # Near: m0 errs on 1 of 2, m1 is right on its only label. Far: m0 errs on 2 of 3, m1 by .5 + 0 + 1 over 3.
    np.testing.assert_allclose(router.psi_[[near, far]], [[1 / 2, 0], [2 / 3, 1 / 2]])
    np.testing.assert_array_equal(router.counts_[[near, far]], [[2, 1], [3, 3]])
    np.testing.assert_allclose(router.predict_quality(np.array([[11.5], [-3.0]])), [[1 / 3, 1 / 2], [1 / 2, 1]])


def test_clusters_taken_over_are_those_of_a_fit_on_other_labels():
    rng = np.random.default_rng(0)
    embeddings, labels = rng.normal(size=(60, 4)), rng.random((60, 3)).round()
    first = routers.KMeans(n_clusters=4, seed=1).fit(bench(labels), embeddings)
    before = first.predict_quality(embeddings)
    fewer = bench(np.where(rng.random((60, 3)) < 0.5, labels, np.nan)).subset(models=bench(labels).models[1:])
    taken = first.with_labels(fewer, embeddings)
    fitted = routers.KMeans(n_clusters=4, seed=1).fit(fewer, embeddings)
    assert taken.models_ == fitted.models_ == fewer.models
    np.testing.assert_array_equal(taken.predict_quality(embeddings), fitted.predict_quality(embeddings))
    taken.add_models(bench(1 - labels), embeddings)
    assert first.models_ == bench(labels).models
    np.testing.assert_array_equal(first.predict_quality(embeddings), before)


def test_kmeans_empty_cluster_takes_the_overall_mean():
    router = routers.KMeans(n_clusters=2).fit(bench([[1], [0], [0], [0], [1]]), LINE)
    validation = bench([[1, NAN], [0, 1], [1, 0]], models=["new", "rare"])
    router.add_models(validation, np.array([[0.0], [0.2], [1.0]]))
    far = router.assign(np.array([[11.0]]))[0]
    new, rare = router.models_.index("new"), router.models_.index("rare")
    assert router.counts_[far, new] == 0
    assert router.psi_[far, new] == pytest.approx(1 / 3)
    assert router.psi_[far, rare] == pytest.approx(1 / 2)


def test_best_single_takes_the_cheaper_of_equals_and_is_one_point():
    benchmark = bench([[1, 0, NAN], [0, 1, NAN], [1, 1, 0], [0, 0, 1]], cost=[3, 2, 1])
    router = routers.BestSingle().fit(benchmark, np.zeros((4, 2)))
    assert router.best_ == "m2"  # all three have mean 1/2
    estimate = router.predict_quality(np.zeros((3, 2)))
    assert np.isnan(estimate[:, :2]).all()
    np.testing.assert_array_equal(estimate[:, 2], 0.5)
    curve = deferral_curve(estimate, np.ones((3, 3)), benchmark.mean_cost)
    assert len(curve.lam) == 1


def test_best_single_maximises_quality_before_price():
    router = routers.BestSingle().fit(bench([[1, 0], [1, 1]], cost=[9, 1]), np.zeros((2, 1)))
    assert router.best_ == "m0"


def test_dataset_oracle_by_hand():
    benchmark = bench([[1, 0], [0, NAN], [1, 1]], tasks=["a", "a", "b"])
    router = routers.DatasetOracle().fit(benchmark, np.zeros((3, 1)))
    estimate = router.predict_quality(np.zeros((3, 1)), tasks=np.array(["b", "a", "unseen"]))
    np.testing.assert_allclose(estimate, [[1, 1], [1 / 2, 0], [2 / 3, 1 / 2]])


def test_dataset_oracle_task_never_seen_with_a_model_takes_its_overall_mean():
    benchmark = bench([[1, NAN], [0, 1], [1, 0]], tasks=["a", "b", "b"])
    router = routers.DatasetOracle().fit(benchmark, np.zeros((3, 1)))
    assert router.predict_quality(np.zeros((1, 1)), tasks=["a"])[0].tolist() == [1.0, 0.5]


def test_dataset_oracle_needs_tasks():
    benchmark, embeddings = pool()
    router = routers.DatasetOracle().fit(benchmark, embeddings)
    with pytest.raises(UserError, match="tasks"):
        router.predict_quality(embeddings)


def test_oracle_returns_the_truth_and_refuses_other_prompts():
    benchmark, embeddings = pool(missing=0.2)
    router = routers.Oracle().fit(benchmark, embeddings)
    np.testing.assert_array_equal(router.predict_quality(embeddings), benchmark.quality)
    with pytest.raises(UserError, match="Oracle was fitted on 60 prompts"):
        router.predict_quality(embeddings[:5])
    with pytest.raises(UserError, match="Oracle"):
        router.predict_quality(embeddings[::-1])


def test_random_is_uniform_seeded_and_stable_under_new_models():
    benchmark, embeddings = pool(n=4000, m=3)
    router = routers.Random(seed=5).fit(benchmark, embeddings)
    scores = router.predict_quality(embeddings)
    share = np.bincount(scores.argmax(axis=1), minlength=3) / len(scores)
    np.testing.assert_allclose(share, 1 / 3, atol=0.04)
    again = routers.Random(seed=5).fit(benchmark, embeddings).predict_quality(embeddings)
    np.testing.assert_array_equal(scores, again)
    assert (routers.Random(seed=6).fit(benchmark, embeddings).predict_quality(embeddings) != scores).any()


def test_thompson_by_hand(monkeypatch):
    """Three prompts and three models; the draws are given, so that who is asked and what is learned can be told."""
    benchmark = bench([[1.0, 0.25, NAN], [0.0, 1.0, 1.0], [NAN, NAN, NAN]], kind="soft")
    draws = iter([[0.5, 0.6, 0.9], [0.8, 0.1, 0.2], [0.3, 0.2, 0.1]])
    asked_with = []

    class Given:
        def beta(self, a, b):
            asked_with.append(np.stack([a, b], axis=1).copy())
            return np.array(next(draws))

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Given())
    router = routers.Thompson(online="test").fit(benchmark, np.arange(6.0).reshape(3, 2))
    # Prompt 0: m2 has the highest draw but was not observed there, so m1 is asked and earns .25. Prompt 1: m0 fails.
    # Prompt 2: nobody was observed, nothing is learned.
    np.testing.assert_array_equal(router.beliefs_, [[1, 2], [1.25, 1.75], [1, 1]])
    np.testing.assert_array_equal(asked_with, [np.ones((3, 2)), [[1, 1], [1.25, 1.75], [1, 1]], router.beliefs_])
    estimate = router.predict_quality(np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(estimate, [[0.5, 0.6, 0.9], [0.8, 0.1, 0.2], [0.3, 0.2, 0.1]])
    with pytest.raises(UserError, match="routes the prompts it was fitted on"):
        router.predict_quality(np.zeros((3, 2)))
    with pytest.raises(UserError, match="learns while it routes"):
        router.add_models(benchmark, np.zeros((3, 2)))


def test_thompson_learns_whom_to_ask_and_draws_from_what_it_believes():
    rng = np.random.default_rng(0)
    truth = np.array([0.2, 0.5, 0.8])
    benchmark = bench((rng.random((1500, 3)) < truth).astype(float))
    router = routers.Thompson(seed=3).fit(benchmark, np.zeros((1500, 2)))
    asked = (router.beliefs_ - 1).sum(axis=1)
    assert asked.sum() == 1500, "each prompt asks one model"
    assert asked.argmax() == 2
    assert asked[2] > 1200
    scores = router.predict_quality(np.zeros((4000, 2)))
    a, b = router.beliefs_.T
    np.testing.assert_allclose(scores.mean(axis=0), a / (a + b), atol=0.01)
    np.testing.assert_allclose(scores.var(axis=0), a * b / ((a + b) ** 2 * (a + b + 1)), rtol=0.15)


def test_thompson_refuses_qualities_that_are_no_shares_and_an_unknown_mode():
    benchmark = bench([[-2.0, 0.5]], kind="soft")
    with pytest.raises(UserError, match=r"run from -2 to 0.5, expected numbers in \[0, 1\]"):
        routers.Thompson().fit(benchmark, np.zeros((1, 2)))
    with pytest.raises(UserError, match="online is 'yes', expected 'train' or 'test'"):
        routers.Thompson("yes").fit(bench([[1.0]]), np.zeros((1, 2)))


# --- brute force -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("k", [1, 4])
def test_knn_equals_brute_force(missing, k):
    benchmark, embeddings = pool(seed=3, missing=missing, soft=True)
    queries = np.random.default_rng(4).normal(size=(17, 5)).astype(np.float32)
    estimate = routers.KNN(n_neighbours=k).fit(benchmark, embeddings).predict_quality(queries)
    for column in range(4):
        labels = benchmark.quality[:, column]
        seen = ~np.isnan(labels)
        search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(embeddings[seen])
        nearest = search.kneighbors(queries, return_distance=False)
        np.testing.assert_allclose(estimate[:, column], labels[seen][nearest].mean(axis=1))


def test_knn_reads_fewer_neighbours_from_one_search():
    rng = np.random.default_rng(5)
    embeddings = np.repeat(rng.normal(size=(40, 3)), 3, axis=0)  # threefold: ties everywhere
    quality = rng.random((120, 4))
    quality[::7, 2] = NAN
    benchmark, queries = bench(quality), rng.normal(size=(30, 3))
    router = routers.KNN(n_neighbours=101).fit(benchmark, embeddings)
    found = router.predict_by_neighbours(queries, [101, 4, 1])
    assert set(found) == {1, 4, 101}
    for k, estimate in found.items():
        alone = routers.KNN(n_neighbours=k).fit(benchmark, embeddings)
        np.testing.assert_allclose(estimate, alone.predict_quality(queries), rtol=1e-14)
    for counts in ([104], [5, 0]):
        with pytest.raises(UserError, match=rf"counts has {counts[-1]}, expected numbers from 1 to n_neighbours = 101"):
            router.predict_by_neighbours(queries, counts)


@pytest.mark.parametrize("missing", [0.0, 0.5, 0.97])
def test_group_means_by_a_plain_loop(missing):
    rng = np.random.default_rng(1)
    quality, groups = rng.random((60, 5)), rng.integers(0, 6, 60)
    groups[groups == 3] = 2  # an empty group
    quality[rng.random(quality.shape) < missing] = NAN
    quality[0] = 0.5
    means, counts = routers.group_means(quality, groups, 6)
    for group in range(6):
        for model in range(5):
            labels = [q for q in quality[groups == group, model] if not np.isnan(q)]
            assert counts[group, model] == len(labels)
            expected = labels if labels else [q for q in quality[:, model] if not np.isnan(q)]
            assert means[group, model] == pytest.approx(sum(expected) / len(expected), rel=1e-12)


def test_knn_is_euclidean_not_cosine():
    benchmark = bench([[1], [0]])
    router = routers.KNN(n_neighbours=1).fit(benchmark, np.array([[10.0, 10.0], [1.0, 0.0]]))
    assert router.predict_quality(np.array([[1.0, 1.0]]))[0, 0] == 0  # parallel to the first, near the second


def best_mixture(cost, quality, budget):
    """Best quality of any lottery over two models whose expected cost is within the budget (Appendix D)."""
    best = max(q for c, q in zip(cost, quality, strict=True) if c <= budget + 1e-12)
    for (c1, q1), (c2, q2) in itertools.permutations(zip(cost, quality, strict=True), 2):
        if c1 <= budget < c2:
            best = max(best, q1 + (budget - c1) / (c2 - c1) * (q2 - q1))
    return best


@pytest.mark.parametrize("seed", range(5))
def test_zero_router_curve_is_the_pareto_random_mixture(seed):
    rng = np.random.default_rng(seed)
    benchmark = bench(rng.random((30, 7)), cost=rng.random(7) + 0.1, kind="soft")
    embeddings = np.zeros((30, 1))
    router = routers.ZeroRouter().fit(benchmark, embeddings)
    curve = deferral_curve(router.predict_quality(embeddings), benchmark.quality, benchmark.mean_cost)
    cost, quality = benchmark.mean_cost, benchmark.quality.mean(axis=0)
    for budget in np.linspace(cost.min(), cost.max(), 23):
        assert curve.quality_at_budget(budget) == pytest.approx(best_mixture(cost, quality, budget), abs=1e-9)


def test_kmeans_with_one_cluster_is_zero_router():
    benchmark, embeddings = pool(missing=0.2, soft=True)
    one = routers.KMeans(n_clusters=1).fit(benchmark, embeddings).predict_quality(embeddings)
    zero = routers.ZeroRouter().fit(benchmark, embeddings).predict_quality(embeddings)
    np.testing.assert_allclose(one, zero, rtol=0, atol=1e-14)


# --- what every router promises --------------------------------------------------------------------------------------


@pytest.mark.parametrize("router", [*DYNAMIC, *STATIC, routers.Oracle()], ids=name_of)
def test_protocol(router):
    benchmark, embeddings = pool(missing=0.1)
    fresh = type(router)(**router.get_params())
    assert fresh.fit(benchmark, embeddings) is fresh
    assert isinstance(fresh, routers.Router)
    assert fresh.models_ == benchmark.models
    assert ask(fresh, embeddings, benchmark.tasks).shape == (60, 4)


@pytest.mark.parametrize("router", LEARNED, ids=name_of)
def test_missing_labels_are_left_out_not_taken_for_zero(router):
    """Labels hidden by NaN cannot matter: any value behind them gives the same router, and zeros give another."""
    benchmark, embeddings = pool(missing=0.4)
    with_zeros = bench(np.nan_to_num(benchmark.quality), tasks=benchmark.tasks)
    fitted = type(router)(**router.get_params()).fit(benchmark, embeddings)
    estimate = ask(fitted, embeddings, benchmark.tasks)
    zeros = ask(type(router)(**router.get_params()).fit(with_zeros, embeddings), embeddings, benchmark.tasks)
    assert np.nanmean(zeros) < np.nanmean(estimate)


@pytest.mark.parametrize("router", LEARNED, ids=name_of)
def test_soft_labels(router):
    benchmark, embeddings = pool(soft=True)
    estimate = ask(type(router)(**router.get_params()).fit(benchmark, embeddings), embeddings, benchmark.tasks)
    estimate = estimate[~np.isnan(estimate)]
    assert estimate.min() >= 0
    assert estimate.max() <= 1


@pytest.mark.parametrize("router", LEARNED, ids=name_of)
def test_a_model_never_observed_is_refused_by_name(router):
    benchmark, embeddings = pool()
    benchmark.quality[:, 2] = NAN
    with pytest.raises(UserError, match="'m2'"):
        type(router)(**router.get_params()).fit(benchmark, embeddings)


@pytest.mark.parametrize("router", [*DYNAMIC, *STATIC], ids=name_of)
def test_same_seed_same_bits(router):
    benchmark, embeddings = pool(n=200, missing=0.1)
    first, second = (
        ask(type(router)(**router.get_params()).fit(benchmark, embeddings), embeddings, benchmark.tasks)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("router", [r for r in DYNAMIC if name_of(r) not in ("Random", "Thompson")], ids=name_of)
def test_order_of_models_and_of_asked_prompts_does_not_matter(router):
    benchmark, embeddings = pool(missing=0.1)
    plain = type(router)(**router.get_params()).fit(benchmark, embeddings)
    turned = type(router)(**router.get_params()).fit(benchmark.subset(models=benchmark.models[::-1]), embeddings)
    order = np.random.default_rng(0).permutation(60)
    a = routers.quality_for(plain, embeddings, benchmark.models, tasks=benchmark.tasks)
    b = routers.quality_for(turned, embeddings[order], benchmark.models, tasks=benchmark.tasks[order])
    np.testing.assert_allclose(a[order], b, atol=1e-12)


@pytest.mark.parametrize("router", DYNAMIC, ids=name_of)
def test_add_models_reads_only_the_new_labels_and_keeps_old_columns(router):
    benchmark, embeddings = pool(seed=1, m=5)
    train = benchmark.subset(np.arange(40), ["m0", "m1", "m2"])
    validation = benchmark.subset(np.arange(40, 60), ["m3", "m4"])
    fitted = type(router)(**router.get_params()).fit(train, embeddings[:40])
    before = ask(fitted, embeddings, benchmark.tasks)
    fitted.add_models(validation, embeddings[40:])
    assert fitted.models_ == ["m0", "m1", "m2", "m3", "m4"]
    after = ask(fitted, embeddings, benchmark.tasks)
    np.testing.assert_array_equal(after[:, :3], before)

    # The labels that the new models have on training prompts are not in `validation`: other ones change nothing.
    changed = bench(benchmark.quality.copy(), tasks=benchmark.tasks)
    changed.quality[:40, 3:] = 1 - changed.quality[:40, 3:]
    other = type(router)(**router.get_params()).fit(changed.subset(np.arange(40), ["m0", "m1", "m2"]), embeddings[:40])
    other.add_models(changed.subset(np.arange(40, 60), ["m3", "m4"]), embeddings[40:])
    np.testing.assert_array_equal(ask(other, embeddings, benchmark.tasks), after)


@pytest.mark.parametrize("router", DYNAMIC[1:], ids=name_of)
def test_a_known_model_is_replaced_in_place(router):
    benchmark, embeddings = pool(seed=2)
    again = bench(1 - benchmark.quality[:30, [1]], tasks=benchmark.tasks[:30], models=["m1"])
    fitted = type(router)(**router.get_params()).fit(benchmark, embeddings)
    before = ask(fitted, embeddings, benchmark.tasks)
    fitted.add_models(again, embeddings[:30])
    assert fitted.models_ == benchmark.models
    after = ask(fitted, embeddings, benchmark.tasks)
    np.testing.assert_array_equal(after[:, [0, 2, 3]], before[:, [0, 2, 3]])
    assert (after[:, 1] != before[:, 1]).any()
    fresh = type(router)(**router.get_params()).fit(benchmark, embeddings).add_models(again, embeddings[:30])
    np.testing.assert_array_equal(after, ask(fresh, embeddings, benchmark.tasks))


def test_knn_new_models_use_validation_prompts_as_neighbours():
    train = bench([[1], [1]], models=["old"])
    router = routers.KNN(n_neighbours=1).fit(train, np.array([[0.0], [1.0]]))
    router.add_models(bench([[1], [0]], models=["new"]), np.array([[-5.0], [5.0]]))
    np.testing.assert_array_equal(router.predict_quality(np.array([[0.9], [-0.1]])), [[1, 0], [1, 1]])


@pytest.mark.parametrize("router", STATIC, ids=name_of)
def test_static_routers_say_so(router):
    benchmark, embeddings = pool()
    fitted = type(router)(**router.get_params()).fit(benchmark, embeddings)
    with pytest.raises(UserError, match="static"):
        fitted.add_models(benchmark, embeddings)


def test_quality_for_gives_named_columns_in_order_and_knows_its_models():
    benchmark, embeddings = pool()
    router = routers.ZeroRouter().fit(benchmark, embeddings)
    got = routers.quality_for(router, embeddings[:2], ["m3", "m1"])
    np.testing.assert_array_equal(got[0], [benchmark.quality[:, 3].mean(), benchmark.quality[:, 1].mean()])
    with pytest.raises(UserError, match="did you mean 'm1'"):
        routers.quality_for(router, embeddings, ["mm1"])


# --- networks --------------------------------------------------------------------------------------------------------


def test_parameter_counts_by_hand():
    benchmark, embeddings = pool(d=5, m=4)
    mlp = routers.MLP(hidden=(100, 100), epochs=1).fit(benchmark, embeddings)
    assert mlp.n_parameters_ == (5 * 100 + 100) + (100 * 100 + 100) + (100 * 4 + 4)
    matfac = routers.MatrixFactorization(rank=3, epochs=1).fit(benchmark, embeddings)
    assert matfac.n_parameters_ == 5 * 3 + 3 * 4


def test_matrix_factorization_is_a_low_rank_linear_score():
    benchmark, embeddings = pool(d=5, m=4)
    router = routers.MatrixFactorization(rank=2, epochs=3).fit(benchmark, embeddings)
    a, b = (layer.weight.detach().numpy().T.astype(float) for layer in router.network_)
    assert a.shape == (5, 2)
    assert b.shape == (2, 4)
    np.testing.assert_allclose(router.predict_quality(embeddings), 1 / (1 + np.exp(-embeddings @ a @ b)), atol=1e-6)


def separable(n=400, seed=0):
    """Model m0 is right where the first coordinate is positive, m1 elsewhere."""
    embeddings = np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)
    right = (embeddings[:, 0] > 0).astype(float)
    return bench(np.column_stack([right, 1 - right])), embeddings


@pytest.mark.parametrize(
    "router", [routers.MLP(epochs=30), routers.MatrixFactorization(rank=2, epochs=30, lr=0.02)], ids=name_of
)
def test_networks_learn(router):
    benchmark, embeddings = separable()
    estimate = router.fit(benchmark, embeddings).predict_quality(separable(seed=1)[1])
    truth = separable(seed=1)[0].quality
    assert router.loss_[-1] < router.loss_[0]
    assert (estimate.argmax(axis=1) == truth.argmax(axis=1)).mean() > 0.9


def test_networks_on_scores_outside_the_unit_interval():
    benchmark, embeddings = separable()
    scores = bench(6 * benchmark.quality - 5, kind="soft")  # -5 or 1
    router = routers.MLP(epochs=30).fit(scores, embeddings)
    assert router.output_ == "score"
    estimate = router.predict_quality(embeddings)
    assert np.abs(estimate - scores.quality).mean() < 1.0
    assert estimate.min() < -4


def test_cells_without_label_carry_no_gradient():
    """A prompt without any label teaches nothing: moving it elsewhere gives the same network, bit for bit."""
    benchmark, embeddings = separable()
    benchmark.quality[200:] = NAN
    moved = embeddings.copy()
    moved[200:] = np.random.default_rng(9).normal(size=(200, 3))
    a = routers.MLP(epochs=3).fit(benchmark, embeddings).predict_quality(embeddings)
    b = routers.MLP(epochs=3).fit(benchmark, moved).predict_quality(embeddings)
    np.testing.assert_array_equal(a, b)


def test_validation_keeps_the_epoch_with_the_largest_area():
    benchmark, embeddings = separable(n=120)
    judged, judged_embeddings = separable(n=80, seed=7)
    areas = []
    for epochs in range(1, 6):
        estimate = routers.MLP(epochs=epochs, lr=0.05).fit(benchmark, embeddings).predict_quality(judged_embeddings)
        areas.append(deferral_curve(estimate, judged.quality, judged.mean_cost).area())
    router = routers.MLP(epochs=5, lr=0.05).fit(benchmark, embeddings, validation=(judged, judged_embeddings))
    assert router.best_epoch_ == int(np.argmax(areas))
    kept = routers.MLP(epochs=router.best_epoch_ + 1, lr=0.05).fit(benchmark, embeddings)
    np.testing.assert_array_equal(router.predict_quality(judged_embeddings), kept.predict_quality(judged_embeddings))


def test_training_leaves_the_global_random_state_and_threads_alone():
    import torch

    benchmark, embeddings = pool()
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    routers.MLP(epochs=1).fit(benchmark, embeddings)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads


# --- what bad input gets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("router", "message"),
    [
        (routers.KNN(n_neighbours=61), "n_neighbours is 61, but there are only 60 labelled prompts"),
        (routers.KNN(n_neighbours=0), "n_neighbours is 0"),
        (routers.KNN(n_neighbours=2.5), "n_neighbours is 2.5"),
        (routers.KMeans(n_clusters=61), "n_clusters is 61, but there are only 60 training prompts"),
        (routers.KMeans(n_clusters=0), "n_clusters is 0"),
        (routers.KMeans(n_clusters=True), "n_clusters is True"),
        (routers.KMeans(n_init=0), "n_init is 0"),
        (routers.MLP(epochs=0), "epochs is 0"),
        (routers.MLP(hidden=(10, 0)), "hidden is 0"),
        (routers.MLP(lr=0.0), "lr is 0.0"),
        (routers.MatrixFactorization(rank=-1), "rank is -1"),
    ],
)
def test_parameters_out_of_range(router, message):
    benchmark, embeddings = pool()
    with pytest.raises(UserError, match=message):
        router.fit(benchmark, embeddings)


def test_knn_counts_labelled_prompts_per_model():
    benchmark, embeddings = pool()
    benchmark.quality[4:, 1] = NAN
    with pytest.raises(UserError, match="only 4 labelled prompts for model 'm1'"):
        routers.KNN(n_neighbours=5).fit(benchmark, embeddings)


@pytest.mark.parametrize("router", DYNAMIC, ids=name_of)
def test_embeddings_that_do_not_fit(router):
    benchmark, embeddings = pool()
    fresh = type(router)(**router.get_params())
    with pytest.raises(UserError, match="59 embeddings for 60 prompts"):
        fresh.fit(benchmark, embeddings[1:])
    with pytest.raises(UserError, match="not fitted"):
        type(router)(**router.get_params()).predict_quality(embeddings)
    fresh.fit(benchmark, embeddings)
    with pytest.raises(UserError, match="fitted with 5"):
        fresh.predict_quality(embeddings[:, :4])
    with pytest.raises(UserError, match="NaN"):
        fresh.predict_quality(np.full((2, 5), NAN))


def test_parameters_by_name():
    router = routers.KMeans(n_clusters=4, seed=2)
    assert router.get_params() == {"n_clusters": 4, "seed": 2, "n_init": 10, "max_iter": 300}
    assert repr(router.set_params(n_clusters=5)) == "KMeans(n_clusters=5, seed=2, n_init=10, max_iter=300)"
    with pytest.raises(UserError, match="did you mean 'n_clusters'"):
        router.set_params(n_cluster=5)


def together_problems(sizes, *, missing=False, models=3):
    """One problem a size, each with its own labels; with `missing`, a fifth of the labels was not observed."""
    problems = []
    for number, size in enumerate(sizes):
        rng = np.random.default_rng(number)
        quality = rng.integers(0, 2, (size, models)).astype(float)
        if missing:
            quality[rng.random(quality.shape) < 0.2] = np.nan
        problems.append((bench(quality), rng.normal(size=(size, 5)).astype(np.float32)))
    return problems


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(
    "make", [lambda s: routers.MLP((7,), epochs=3, seed=s), lambda s: routers.MatrixFactorization(2, epochs=3, seed=s)]
)
def test_fitted_together_as_one_by_one(make, missing):
    """The reference is each router's own training, one network at a time; problems of two sizes make two groups."""
    problems = together_problems([130, 130, 90, 130], missing=missing)
    alone = [make(seed).fit(*problem) for seed, problem in enumerate(problems)]
    group = [make(seed) for seed in range(len(problems))]
    routers.fit_together(group, problems)
    for one, other, (_, z) in zip(alone, group, problems, strict=True):
        np.testing.assert_allclose(other.predict_quality(z), one.predict_quality(z), atol=2e-5)
        np.testing.assert_allclose(other.loss_, one.loss_, rtol=1e-4)
        assert other.n_parameters_ == one.n_parameters_
        assert not other.network_.training


def test_fitted_together_keeps_each_its_own_best_epoch():
    problems = together_problems([120] * 4)
    judges = together_problems([40] * 4)
    alone = [
        routers.MLP((9,), epochs=6, lr=0.05, seed=i).fit(*problem, validation=judge)
        for i, (problem, judge) in enumerate(zip(problems, judges, strict=True))
    ]
    group = [routers.MLP((9,), epochs=6, lr=0.05, seed=i) for i in range(4)]
    routers.fit_together(group, problems, judges)
    assert [router.best_epoch_ for router in group] == [router.best_epoch_ for router in alone]
    assert len({router.best_epoch_ for router in group}) > 1


def test_networks_side_by_side_have_no_share_in_each_other():
    """Changing one problem of a group leaves the routers of the others as they are, bit for bit."""
    problems = together_problems([80] * 3)
    changed = [(bench(1 - problems[0][0].quality), problems[0][1]), *problems[1:]]
    fitted = []
    for given in (problems, changed):
        group = [routers.MLP((6,), epochs=2, seed=i) for i in range(3)]
        routers.fit_together(group, given)
        fitted.append([router.predict_quality(z) for router, (_, z) in zip(group, given, strict=True)])
    assert (fitted[0][0] != fitted[1][0]).any()
    for one, other in zip(fitted[0][1:], fitted[1][1:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_is_trained_when_one_of_a_group_cannot_be(monkeypatch):
    monkeypatch.setattr(routers, "_train", lambda *_, **__: pytest.fail("training began"))
    group = [routers.MLP((6,)), routers.MLP((6,), lr=0.0)]
    with pytest.raises(UserError, match=r"lr is 0\.0"):
        routers.fit_together(group, together_problems([50, 50]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kmeans_starts_where_that_of_scikit_learn_does(dtype):
    from sklearn.cluster import KMeans

    z = np.random.default_rng(0).normal(size=(700, 12)).astype(dtype)
    quality = np.random.default_rng(1).random((700, 2))
    for k, starts in ((2, 1), (9, 4), (40, 2)):
        theirs = KMeans(k, n_init=starts, random_state=3).fit(z)
        ours = routers.KMeans(k, seed=3, n_init=starts).fit(bench(quality), z)
        np.testing.assert_array_equal(ours.assign(z), theirs.labels_)
        np.testing.assert_allclose(ours.centroids_, theirs.cluster_centers_, rtol=1e-6, atol=1e-6)


def test_many_neighbours_are_the_nearest_ones_and_of_equals_the_first():
    """By brute force, on a grid of whole numbers where many points are equally near."""
    rng = np.random.default_rng(0)
    points = rng.integers(0, 4, (400, 3)).astype(np.float32)
    queries = rng.integers(0, 4, (1100, 3)).astype(np.float32)
    quality = rng.random((400, 2))
    count = routers.MANY_NEIGHBOURS
    estimate = routers.KNN(count).fit(bench(quality), points).predict_quality(queries)
    for query, found in zip(queries[::50], estimate[::50], strict=True):
        distance = ((points - query) ** 2).sum(axis=1)
        nearest = np.lexsort((np.arange(400), distance))[:count]
        np.testing.assert_allclose(found, quality[nearest].mean(axis=0), rtol=1e-12)
