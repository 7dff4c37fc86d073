"""UniRoute's experiment: what a trial may look at, and what must hold of its curves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from replications.uniroute import choices, recovery, tables, trials
from replications.uniroute.params import UniRouteParams
from routebook.datasets import simulated
from routebook.deferral import interpolate
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
    from routebook.deferral import deferral_curve

    quality = np.array([[0.0, 1.0], [1.0, 1.0]])
    clever = deferral_curve(np.array([[0.0, 1.0], [1.0, 1.0]]), quality, np.array([0.2, 1.0]))
    blind = deferral_curve(np.array([[0.5, 1.0], [0.5, 1.0]]), quality, np.array([0.2, 1.0]))
    assert clever.qnc() == pytest.approx(0.6)
    assert blind.qnc() == pytest.approx(1.0)
    assert choices.qnc_of_mean_curve([clever]) == pytest.approx(0.6, abs=1e-3)
    assert choices.qnc_of_mean_curve([clever, blind]) == pytest.approx(1.0, abs=1e-3)


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
