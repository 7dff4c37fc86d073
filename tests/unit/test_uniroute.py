"""UniRoute's experiment: what a trial may look at, and what must hold of its curves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from replications.uniroute import choices, recovery, tables, trials
from replications.uniroute.params import UniRouteParams
from replications.uniroute.selection import select
from routebook import routers
from routebook.datasets import simulated
from routebook.deferral import deferral_curve, interpolate
from routebook.errors import UserError

PARAMS = UniRouteParams(n_trials=2, n_validation=150, cluster_grid=[3, 5], neighbour_grid=[5, 20])


@pytest.fixture(scope="module")
def benchmark():
    return choices.at_mean_cost(simulated.mixture(800, 8, 5, seed=3)[0])


@pytest.fixture(scope="module")
def done(benchmark):
    return trials.run_trials(benchmark, benchmark.embeddings, PARAMS)


def test_a_split_shares_no_question_and_no_llm(benchmark):
    twice = replace(benchmark, ids=np.repeat(np.arange(400), 2).astype(str))
    for number in range(5):
        split = trials.draw_split(twice, PARAMS, number)
        parts = [set(twice.ids[rows]) for rows in (split.train, split.validation, split.test)]
        assert sum(map(len, parts)) == len(set().union(*parts))
        assert not set(split.seen) & set(split.unseen)
        assert len(split.seen) == 4
        assert len(split.train) + len(split.validation) + len(split.test) == len(twice)


def test_splits_differ_between_trials_and_repeat_with_the_seed(benchmark):
    first, second = (trials.draw_split(benchmark, PARAMS, number) for number in (0, 1))
    again = trials.draw_split(benchmark, PARAMS, 0)
    assert not np.array_equal(first.test, second.test)
    assert np.array_equal(first.test, again.test)
    assert first.unseen == again.unseen


def test_a_test_prompt_without_any_unseen_answer_is_left_out(benchmark):
    split = trials.draw_split(benchmark, PARAMS, 0)
    quality = benchmark.quality.copy()
    quality[split.test[0], benchmark.model_columns(split.unseen)] = np.nan
    assert len(trials.draw_split(replace(benchmark, quality=quality), PARAMS, 0).test) == len(split.test) - 1


def test_curves_are_monotone_inside_the_pool_and_below_the_oracle(done):
    for trial in done:
        oracle = trial.curves["oracle"]
        for method, curve in trial.curves.items():
            low, high = curve.model_cost.min(), curve.model_cost.max()
            assert (np.diff(curve.lam) > 0).all()
            assert (np.diff(curve.cost) <= 1e-12 * high).all(), method
            assert (curve.cost >= low * (1 - 1e-12)).all(), method
            assert (curve.cost <= high * (1 + 1e-12)).all(), method
            assert (curve.quality <= interpolate(oracle, curve.cost) + 1e-9).all(), method
            assert (curve.quality >= oracle.model_quality.min() - 0.1).all(), method


def test_zero_router_and_best_single_agree_where_they_should(done):
    for trial in done:
        zero, best = trial.curves["zero-router"], trial.curves["best-single"]
        assert len(best) == 1
        assert zero.quality[0] == pytest.approx(best.quality[0])
        assert zero.cost[0] == pytest.approx(best.cost[0])


def test_one_cluster_is_zero_router(benchmark, done):
    curve = choices.single_cluster_curve(benchmark, benchmark.embeddings, PARAMS)
    np.testing.assert_allclose(curve.cost, done[0].curves["zero-router"].cost)
    np.testing.assert_allclose(curve.quality, done[0].curves["zero-router"].quality)


def _curves_after(benchmark, change):
    changed = replace(benchmark, quality=change(benchmark.quality.copy()))
    return trials.run_trial(changed, benchmark.embeddings, PARAMS, 0).curves


def test_nothing_learned_looks_at_training_labels_of_unseen_llms(benchmark, done):
    split = done[0].split

    def flip(quality):
        cells = np.ix_(split.train, benchmark.model_columns(split.unseen))
        quality[cells] = 1 - quality[cells]
        return quality

    for method, curve in _curves_after(benchmark, flip).items():
        same = np.array_equal(curve.cost, done[0].curves[method].cost)
        assert same is (method not in trials.CLAIRVOYANT_METHODS), method


def test_nothing_but_the_oracle_looks_at_test_labels(benchmark, done):
    split = done[0].split

    def flip(quality):
        quality[split.test] = 1 - quality[split.test]
        return quality

    curves = _curves_after(benchmark, flip)
    for method, curve in curves.items():
        same = np.array_equal(curve.cost, done[0].curves[method].cost)
        assert same is (method != "oracle"), method


def test_trials_repeat_bit_for_bit(benchmark, done):
    again = trials.run_trial(benchmark, benchmark.embeddings, PARAMS, 1)
    for method, curve in again.curves.items():
        np.testing.assert_array_equal(curve.quality, done[1].curves[method].quality, err_msg=method)


def assert_same_trials(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.split.unseen == b.split.unseen
        assert a.area_by_clusters == b.area_by_clusters
        for method in trials.METHODS:
            for part in ("lam", "cost", "quality"):
                np.testing.assert_array_equal(getattr(a.curves[method], part), getattr(b.curves[method], part), method)
        for method, selection in a.selections.items():
            np.testing.assert_array_equal(selection.areas, b.selections[method].areas, method)


def test_numbers_do_not_depend_on_the_number_of_processes(benchmark, done):
    # As large as arrays must be to be memory-mapped for the workers.
    wide = np.hstack([benchmark.embeddings, np.zeros((len(benchmark), 200))])
    assert wide.nbytes > 2**20
    alone = trials.run_trials(benchmark, wide, PARAMS, n_jobs=1)
    assert_same_trials(trials.run_trials(benchmark, wide, PARAMS, n_jobs=2), alone)


def test_fewer_than_one_process_is_refused(benchmark):
    with pytest.raises(UserError, match="n_jobs is 0"):
        trials.run_trials(benchmark, benchmark.embeddings, PARAMS, n_jobs=0)


def test_splits_can_be_given(benchmark, done):
    splits = [trial.split for trial in done]
    assert_same_trials(trials.run_trials(benchmark, benchmark.embeddings, PARAMS, splits=splits), done)
    other = replace(splits[0], seen=splits[0].unseen, unseen=splits[0].seen)
    (alone,) = trials.run_trials(benchmark, benchmark.embeddings, PARAMS, splits=[other])
    assert alone.split is other
    assert alone.curves["oracle"].model_quality.shape == (4,)


def test_tuning_per_dataset_uses_the_best_mean_area_in_all_trials(benchmark, done):
    per_dataset = UniRouteParams(**{**PARAMS.model_dump(), "n_trials": 3, "tuning": "dataset", "tuning_trials": 2})
    ours = trials.run_trials(benchmark, benchmark.embeddings, per_dataset)
    for method, grid in (("k-nn", (5, 20)), ("k-means", (3, 5)), ("learned-map", (3, 5)), ("matfac", trials.RANKS)):
        areas = np.mean([trial.selections[method].areas for trial in done], axis=0)
        for trial in ours:
            assert trial.selections[method].grid == grid
            assert trial.selections[method].best == grid[int(areas.argmax())]
            np.testing.assert_allclose(trial.selections[method].areas, areas, rtol=1e-15)
    for trial, tuned in zip(ours, done, strict=False):
        assert trial.area_by_clusters == tuned.area_by_clusters
        for method in ("k-nn", "k-means", "learned-map"):
            if tuned.selections[method].best == trial.selections[method].best:
                np.testing.assert_array_equal(trial.curves[method].quality, tuned.curves[method].quality, method)
    assert set(ours[2].area_by_clusters) == {ours[2].selections[m].best for m in ("k-means", "learned-map")}


def test_trials_without_every_candidate_do_not_judge_the_worst_k(done):
    doctored = [replace(done[0], area_by_clusters={3: 0.7, 5: 0.6}), replace(done[1], area_by_clusters={3: 0.1})]
    worst, differences = tables.worst_clusters(doctored)
    assert worst == 5
    np.testing.assert_allclose(differences, [0.6 - done[0].curves["zero-router"].area()])


def test_selections_can_be_given(benchmark, done):
    chosen = trials.tuned_selections(done)
    chosen["k-means"] = replace(chosen["k-means"], best=5)
    (trial,) = trials.run_trials(benchmark, benchmark.embeddings, PARAMS, splits=[done[0].split], selections=chosen)
    assert trial.selections["k-means"].best == 5
    assert trial.curves["k-means"].area() == done[0].area_by_clusters[5]


def test_a_trial_scores_what_its_own_routers_would(benchmark, done):
    """Nothing shared changes a number: K-NN, K-means and LearnedMap fitted alone have the same curves."""
    from replications.uniroute.learned_map import LearnedMap

    trial, z, seed = done[1], benchmark.embeddings, PARAMS.seed + 1
    split = trial.split
    train, test = benchmark.subset(split.train, split.seen), benchmark.subset(split.test, split.unseen)
    alone = {
        "k-nn": routers.KNN(trial.selections["k-nn"].best),
        "k-means": routers.KMeans(trial.selections["k-means"].best, seed=seed),
        "learned-map": LearnedMap(trial.selections["learned-map"].best, seed=seed),
    }
    for method, router in alone.items():
        router.fit(train, z[split.train])
        router.add_models(benchmark.subset(split.validation, split.unseen), z[split.validation])
        curve = deferral_curve(routers.quality_for(router, z[split.test], split.unseen), test.quality, test.cost)
        np.testing.assert_array_equal(curve.quality, trial.curves[method].quality, method)
    validation = benchmark.subset(split.validation, split.seen)
    for method, make in {
        "k-nn": routers.KNN,
        "k-means": lambda k: routers.KMeans(k, seed=seed),
        "learned-map": lambda k: LearnedMap(k, seed=seed),
    }.items():
        selection = trial.selections[method]
        again = select(make, selection.grid, train, z[split.train], validation, z[split.validation])
        np.testing.assert_array_equal(again.areas, selection.areas, method)


def test_area_under_the_mean_curve_is_the_mean_area(done):
    metrics = trials.metrics_frame(done)
    cost, quality = tables.mean_curves(done, ["k-means"])["k-means"]
    assert np.trapezoid(quality, cost) == pytest.approx(
        trials.summarise(metrics, "area").loc["k-means", "value"], abs=1e-3
    )


def test_every_k_is_scored_as_its_own_router_would_be(benchmark, done):
    trial = done[0]
    picked = trial.selections["k-means"].best
    assert trial.area_by_clusters[picked] == pytest.approx(trial.curves["k-means"].area())
    assert list(trial.area_by_clusters) == PARAMS.clusters_tried


def test_the_worst_k_by_hand(done):
    doctored = [replace(trial, area_by_clusters={3: 0.7, 5: 0.6 + 0.05 * i}) for i, trial in enumerate(done)]
    worst, differences = tables.worst_clusters(doctored)
    assert worst == 5
    zero = [trial.curves["zero-router"].area() for trial in done]
    np.testing.assert_allclose(differences, [0.6 - zero[0], 0.65 - zero[1]])


def test_figure_5_averages_the_selections(done):
    grid, areas = tables.validation_area_by_k(done)["k-nn"]
    assert list(grid) == [5, 20]
    assert areas[1] == pytest.approx(np.mean([trial.selections["k-nn"].areas[1] for trial in done]))


def test_gains_are_differences_at_equal_cost(done):
    lines, bands = tables.gains(done, "zero-router", ["k-means"])
    means = tables.mean_curves(done, ["k-means", "zero-router"])
    np.testing.assert_allclose(lines["k-means"][1], means["k-means"][1] - means["zero-router"][1], atol=1e-12)
    low, high = bands["k-means"]
    assert (low <= lines["k-means"][1] + 1e-12).all()
    assert (high >= lines["k-means"][1] - 1e-12).all()


def test_qnc_of_the_mean_curve_by_hand():
    """Two trials: A matches its best LLM at half its cost, B only at its full cost; their mean in between."""
    quality = np.array([[0.0, 1.0], [1.0, 1.0]])
    clever = deferral_curve(np.array([[0.0, 1.0], [1.0, 1.0]]), quality, np.array([0.2, 1.0]))
    blind = deferral_curve(np.array([[0.5, 1.0], [0.5, 1.0]]), quality, np.array([0.2, 1.0]))
    assert clever.qnc() == pytest.approx(0.6)
    assert blind.qnc() == pytest.approx(1.0)
    assert choices.qnc_of_mean_curve([clever]) == pytest.approx(0.6, abs=1e-3)
    assert choices.qnc_of_mean_curve([clever, blind]) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("n_validation", "last"),
    [(50, [3]), (400, [7, 8]), (800, [15, 16]), (900, [15, 16, 18]), (3605, [15, 16, 24, 36, 54, 72])],
)
def test_cluster_grid_is_dense_then_coarse_and_ends_where_the_appendix_says(n_validation, last):
    grid = UniRouteParams(n_validation=n_validation).clusters_tried
    assert grid[-len(last) :] == last
    dense = [k for k in grid if k <= 16]
    assert dense == list(range(3, dense[-1] + 1))


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"n_validation": 700, "cluster_grid": [3]}, "too few for the split"),
        ({"n_validation": 500, "cluster_grid": [90]}, "fewer than 90 clusters"),
        ({"n_validation": 150, "train_llm_share": 0.05, "cluster_grid": [3]}, "leaves no LLM on one side"),
    ],
)
def test_impossible_sizes_are_named(benchmark, params, said):
    with pytest.raises(UserError, match=said):
        trials.draw_split(benchmark, UniRouteParams(**params), 0)


def test_recovery_has_the_standard_errors_it_says():
    found = recovery.recover_cluster_errors(
        n_prompts=2000, n_models=6, n_clusters=4, n_validation=800, separation=8.0, seed=1
    )
    assert len(found) == 24
    assert found.groupby("cluster")["n"].first().sum() == 800
    expected = np.sqrt(found["true"] * (1 - found["true"]) / found["n"])
    np.testing.assert_allclose(found["standard_error"], expected)
    assert found["z"].abs().max() < 4.5
