"""What the paper leaves open: every other choice by hand or by brute force, and the table that reports them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from replications.uniroute import alternatives, choices, trials
from replications.uniroute.alternatives import TrialAgain
from replications.uniroute.learned_map import LearnedMap
from replications.uniroute.params import UniRouteParams
from replications.uniroute.selection import Selection
from replications.uniroute.trials import Split, Trial
from routebook import routers
from routebook.benchmark import RoutingBenchmark
from routebook.datasets import simulated
from routebook.deferral import DeferralCurve, deferral_curve
from routebook.errors import UserError

PARAMS = UniRouteParams(n_trials=2, n_validation=150, cluster_grid=[4, 6], neighbour_grid=[5, 20])


@pytest.fixture(scope="module")
def benchmark():
    """Real enough: prompts with words, and calls of one LLM that differ in price."""
    drawn = simulated.mixture(600, 8, 5, seed=3)[0]
    words = [f"{task} of kind {i % 7} about thing {i % 31}" for i, task in enumerate(drawn.tasks)]
    dearer = 1 + np.random.default_rng(0).random((600, 1))
    return replace(drawn, prompts=words, cost=drawn.cost * dearer, origin="made")


@pytest.fixture(scope="module")
def done(benchmark):
    return trials.run_trials(choices.at_mean_cost(benchmark), benchmark.embeddings, PARAMS)


def _again(done, benchmark, number, params=PARAMS):
    constant = choices.at_mean_cost(benchmark)
    once = trials.tuned_selections(done)
    return TrialAgain(number, done[number], done[0], once, constant, benchmark, benchmark.embeddings, params)


@pytest.fixture(scope="module")
def again(done, benchmark):
    return _again(done, benchmark, 1)


@pytest.fixture(scope="module")
def table(done, benchmark):
    return choices.open_choices(done, benchmark, benchmark.embeddings, PARAMS)


def _curve(cost, quality, model_cost, model_quality=(0.2, 0.8)):
    lam = np.arange(len(cost))
    return DeferralCurve(lam, cost, quality, np.ones(len(cost)), np.array(model_cost), np.array(model_quality), 10)


# Two segments, (1, .2) to (2, .6) to (4, .8): 0.4 + 1.4 under the lines.
BENT = _curve([4, 2, 1], [0.8, 0.6, 0.2], [1.0, 4.0])


def test_areas_of_a_bent_line_by_hand():
    assert BENT.area() == pytest.approx(1.8 / 3)
    assert alternatives.area_from_zero(BENT) == pytest.approx(1.8 / 4)
    # -0.2 + 0.4 c up to 2, then 0.4 + 0.1 c: the integral of each over dc / c.
    assert alternatives.area_on_log_cost(BENT) == pytest.approx((0.2 * np.log(2) + 0.4 + 0.2) / np.log(4))
    assert alternatives.area_in_steps(BENT) == pytest.approx((0.2 + 2 * 0.6) / 3)
    assert alternatives.area_of_hull(BENT) == pytest.approx(1.8 / 3)


def test_area_on_log_cost_of_a_jump_and_of_a_router_that_stops_early():
    jump = _curve([2, 2, 1], [1.0, 0.0, 0.0], [1.0, 4.0])
    assert alternatives.area_on_log_cost(jump) == pytest.approx(0.5)
    hair = _curve([2 * (1 + 1e-14), 2, 1], [1.0, 0.0, 0.0], [1.0, 4.0])
    assert alternatives.area_on_log_cost(hair) == pytest.approx(0.5)
    constant = _curve([2], [0.7], [1.0, 8.0])
    assert alternatives.area_on_log_cost(constant) == pytest.approx(0.7)


def test_area_on_log_cost_against_a_fine_sum(done):
    curve = done[0].curves["k-nn"]
    grid = np.geomspace(curve.model_cost.min(), curve.model_cost.max(), 200_001)
    x, y = curve.points
    assert alternatives.area_on_log_cost(curve) == pytest.approx(np.interp(grid, x, y).mean(), abs=1e-4)


def test_areas_where_llms_are_free():
    free = _curve([1, 0], [0.8, 0.2], [0.0, 1.0])
    assert np.isnan(alternatives.area_on_log_cost(free))
    assert alternatives.area_from_zero(free) == pytest.approx(0.5)
    assert np.isnan(alternatives.area_from_zero(_curve([0], [0.8], [0.0, 0.0])))


def test_a_hull_bridges_dips_and_does_not_fall():
    dips = _curve([4, 3, 2, 1], [0.7, 0.8, 0.1, 0.2], [1.0, 4.0])
    assert alternatives.area_of_hull(dips) == pytest.approx((2 * 0.5 + 0.8) / 3)
    assert alternatives.area_of_hull(_curve([1], [0.4], [1.0, 1.0])) == pytest.approx(0.4)


def test_ties_to_the_dearer_by_hand():
    """Prompt 0 is tied: ours never pays for it, the other rule does at small λ."""
    estimate, quality, cost = np.array([[0.5, 0.5], [0.2, 0.9]]), np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([1.0, 2])
    assert deferral_curve(estimate, quality, cost).area() == pytest.approx(0.25 * 0.5 + 0.5 * 0.5)
    lifted = alternatives.dearer_of_equals(estimate, cost)
    assert deferral_curve(lifted, quality, cost).area() == pytest.approx(0.5)


def test_ties_to_the_dearer_against_every_prompt_one_by_one(again):
    """At λ = 0 the dearest of the best; from there on each change of LLM as before."""
    estimate, cost = again.estimates["k-nn"], again.test.mean_cost
    curve = deferral_curve(alternatives.dearer_of_equals(estimate, cost), again.test.quality, cost)
    best = [max(np.flatnonzero(row == row.max()), key=lambda m: cost[m]) for row in estimate]
    assert curve.cost[0] == pytest.approx(cost[best].mean())
    assert curve.quality[0] == pytest.approx(np.mean(again.test.quality[np.arange(len(best)), best]))
    assert curve.cost[0] > again.trial.curves["k-nn"].cost[0]
    ours = again.trial.curves["k-nn"]
    for lam in np.geomspace(1e-4, 1, 20) * 1.01:
        assert curve.at_lambda(lam)[0] == pytest.approx(ours.at_lambda(lam)[0], rel=0.02)


def test_distinct_estimates_keep_their_area(again):
    estimate = np.random.default_rng(0).random(again.test.quality.shape)
    lifted = alternatives.dearer_of_equals(estimate, again.test.mean_cost)
    assert again.area_of(lifted) == pytest.approx(again.area_of(estimate), abs=1e-6)


def test_rules_for_empty_clusters_by_hand():
    psi = np.array([[0.1, 0.3], [0.5, 0.3], [0.9, 0.4]])
    counts = np.array([[3, 0], [0, 0], [4, 1]])
    centroids = np.array([[0.0], [2.0], [3.0]])
    never = alternatives.error_one_where_empty(psi, counts)
    np.testing.assert_array_equal(never, [[0.1, 1.0], [1.0, 1.0], [0.9, 0.4]])
    # LLM 0 has no label in cluster 1, whose nearest is 2; LLM 1 has its only label in cluster 2.
    nearest = alternatives.nearest_where_empty(psi, counts, centroids)
    np.testing.assert_array_equal(nearest, [[0.1, 0.4], [0.9, 0.4], [0.9, 0.4]])


def test_empty_clusters_in_a_trial(again):
    """Without the validation prompts of one cluster its entries count as empty, and only then the rules differ."""
    clusters = again.clusters(again.tuned("k-means"))
    inside = clusters.assign(again.z("validation")) == 0
    fewer = replace(again.trial, split=replace(again.split, validation=again.split.validation[~inside]))
    hollow = replace(again, trial=fewer)
    assert alternatives.share_empty()(again, "k-means") == 0
    assert alternatives.share_empty()(hollow, "k-means") == pytest.approx(1 / again.tuned("k-means"))
    for rule in (alternatives.never_where_empty, alternatives.neighbour_where_empty):
        assert rule()(again, "k-means") == pytest.approx(alternatives.area(again, "k-means"))
        assert rule()(hollow, "k-means") != hollow.area_of(hollow.estimates["k-means"])


def test_neighbours_among_the_others_by_brute_force():
    rng = np.random.default_rng(1)
    z, quality = rng.standard_normal((30, 4)), rng.integers(0, 2, (30, 3)).astype(float)
    quality[rng.random((30, 3)) < 0.3] = np.nan
    quality[1:, 2] = np.nan
    quality[0, 2] = 1.0
    got = alternatives.neighbour_means(quality, alternatives.nearest_others(z, 4))
    for i in range(30):
        order = [j for j in np.argsort(np.linalg.norm(z - z[i], axis=1)) if j != i][:4]
        for m in range(3):
            labels = [quality[j, m] for j in order if not np.isnan(quality[j, m])]
            assert got[i, m] == pytest.approx(np.mean(labels) if labels else np.nanmean(quality[:, m]))


def test_k_nn_is_tuned_among_validation_prompts_by_brute_force(again):
    judged, z = again.part("validation", again.split.seen), again.z("validation")
    areas = []
    for k in PARAMS.neighbours_tried:
        estimate = np.empty(judged.quality.shape)
        for i in range(len(z)):
            others = np.delete(np.arange(len(z)), i)
            near = others[np.argsort(np.linalg.norm(z[others] - z[i], axis=1))[:k]]
            estimate[i] = judged.quality[near].mean(axis=0)
        areas.append(deferral_curve(estimate, judged.quality, judged.mean_cost).area())
    best = PARAMS.neighbours_tried[int(np.argmax(areas))]
    router = routers.KNN(n_neighbours=best).fit(again.validation, z)
    wanted = again.area_of(router.predict_quality(again.z("test")))
    assert alternatives.tuned_among_validation_prompts(again, "k-nn") == pytest.approx(wanted)


def test_grids_of_k(again):
    areas = Selection(5, (4, 5, 6), np.array([0.5, 0.9, 0.6]))
    selections = {**again.trial.selections, "k-means": areas}
    doctored = replace(again.trial, selections=selections, area_by_clusters={4: 0.5, 5: 0.9, 6: 0.6})
    ends = alternatives.coarse_grid(replace(again, trial=doctored), "k-means")
    assert ends == pytest.approx(again.area_of(again.by_clusters(6)))
    assert alternatives.hindsight(replace(again, trial=doctored), "k-means") == 0.9
    untried = replace(doctored, area_by_clusters={5: 0.9})
    assert np.isnan(alternatives.hindsight(replace(again, trial=untried), "k-means"))
    assert alternatives.g5_candidates(400, 1000) == [5, 10, 25]
    assert alternatives.g5_candidates(400, 12) == [5, 10]
    assert alternatives.g5_candidates(49, 1000) == []


def test_g5s_grid_is_tuned_on_the_seen_llms(again):
    assert again.g5_candidates == [5, 10]
    judged = again.part("validation", again.split.seen)
    train = again.part("train", again.split.seen)
    areas = {}
    for k in (5, 10):
        router = routers.KMeans(n_clusters=k, seed=again.seed).fit(train, again.z("train"))
        estimate = router.predict_quality(again.z("validation"))
        areas[k] = deferral_curve(estimate, judged.quality, judged.mean_cost).area()
    wanted = again.area_of(again.by_clusters(max(areas, key=areas.get)))
    assert alternatives.static_grid(again, "k-means") == pytest.approx(wanted)
    assert alternatives.most_clusters(again) == 10
    few = replace(again.trial, split=replace(again.split, validation=again.split.validation[:49]))
    assert np.isnan(alternatives.static_grid(replace(again, trial=few), "k-means"))


def test_k_tuned_once_is_the_dataset_wide_choice(benchmark, again):
    """The same K as run_trials takes when told to tune once."""
    params = PARAMS.model_copy(update={"tuning": "dataset"})
    once = trials.run_trials(choices.at_mean_cost(benchmark), benchmark.embeddings, params)
    for method in ("k-means", "k-nn"):
        assert again.once[method].best == once[1].selections[method].best
        assert alternatives.tuned_once(again, method) == pytest.approx(once[1].curves[method].area())


def test_rule_of_math_and_code(again):
    """120 validation prompts: 120 / 50 rounded down clusters, the root of 120 neighbours."""
    fewer = replace(again.trial, split=replace(again.split, validation=again.split.validation[:120]))
    again = replace(again, trial=fewer)
    assert alternatives.untuned(again, "k-means") == pytest.approx(again.area_of(again.by_clusters(2)))
    assert alternatives.untuned(again, "k-nn") == pytest.approx(again.area_of(again.by_neighbours(11)))


def _tiny_again(validation_quality, curve):
    """A trial of two unseen LLMs A and B that is nothing but a curve and four validation labels."""
    quality = np.array([[0.0, 0.0, 0.0, 0.0], *[[0.5, 0.5, *pair] for pair in validation_quality]])
    pool = RoutingBenchmark(
        "tiny", ["p"] * 3, np.array(["t"] * 3), ["C", "D", "A", "B"], quality, np.tile([1.0, 1, 1, 4], (3, 1)), "USD"
    )
    rows = np.arange(3)
    split = Split(rows[:1], rows[1:], rows[:1], ["C", "D"], ["A", "B"])
    trial = Trial(split, {"k-means": curve}, {}, {})
    return TrialAgain(0, trial, trial, {}, pool, pool, np.zeros((3, 2)), PARAMS)


def test_references_of_qnc_by_hand():
    # On test prompts B has 0.8 for 4 and A 0.2 for 1; the curve reaches 0.6 at cost 2 and 0.8 at cost 4.
    b_best = _tiny_again([[0.0, 1.0], [0.0, 0.2]], BENT)
    assert alternatives.capped_qnc(b_best, "k-means") == pytest.approx(1.0)
    assert alternatives.qnc_to_llm_chosen_on_validation(b_best, "k-means") == pytest.approx(1.0)
    assert alternatives.qnc_to_validation_accuracy(b_best, "k-means") == pytest.approx(2 / 4)
    # On validation prompts A is best, at 0.6: its test accuracy 0.2 is had for its own cost, 0.6 never within it.
    a_best = _tiny_again([[1.0, 0.0], [0.2, 0.4]], BENT)
    assert alternatives.qnc_to_llm_chosen_on_validation(a_best, "k-means") == pytest.approx(1.0)
    assert alternatives.qnc_to_validation_accuracy(a_best, "k-means") == 1.0


def test_a_qnc_never_reached_counts():
    low = _curve([4, 1], [0.7, 0.2], [1.0, 4.0])
    labels = [[0.0, 1.0], [0.0, 1.0]]
    assert alternatives.without_finite_qnc(_tiny_again(labels, low), "k-means") == 1.0
    assert alternatives.without_finite_qnc(_tiny_again(labels, BENT), "k-means") == 0.0


def test_with_our_choice_everything_comes_out_as_in_the_trial(again):
    """Each measurement differs from the trial by the choice it is about and by nothing else."""
    ours = {method: alternatives.area(again, method) for method in trials.METHODS if method != "best-single"}
    for method in ("k-means", "k-nn"):
        assert again.area_of(again.estimates[method]) == pytest.approx(ours[method])
        constant = replace(again, priced=again.benchmark)
        assert alternatives.cost_per_prompt(constant, method) == pytest.approx(ours[method])
        own = alternatives.refit(again.router(method), again.benchmark, again.embeddings, again.split)
        assert own.area() == pytest.approx(ours[method])
    keras = alternatives.learned_map(architecture="F.3")(again, "learned-map")
    assert keras == pytest.approx(ours["learned-map"])
    doctored = {**again.trial.selections, "k-means": again.trial.selections["learned-map"]}
    same_k = replace(again, trial=replace(again.trial, selections=doctored))
    assert alternatives.learned_map(k_of="k-means")(same_k, "learned-map") == ours["learned-map"]
    tuned = trials.RANKS.index(again.tuned("matfac"))
    assert alternatives.rank(tuned)(again, "retrained-matfac") == pytest.approx(ours["retrained-matfac"])


def test_own_prices_are_paid_call_by_call(again):
    """At every λ, by brute force: who has the best of estimate minus λ times this call's price."""
    priced = again.priced.subset(again.split.test, again.split.unseen)
    estimate = again.estimates["k-means"]
    curve = deferral_curve(estimate, priced.quality, priced.cost)
    rows = np.arange(len(priced))
    for lam in (0.0013, 0.0171, 0.2):
        picked = np.argmax(estimate - lam * priced.cost, axis=1)
        assert curve.at_lambda(lam)[0] == pytest.approx(priced.cost[rows, picked].mean())
    assert alternatives.cost_per_prompt(again, "k-means") == pytest.approx(curve.area(left="flat"))
    assert alternatives.cost_per_prompt(again, "k-means") != pytest.approx(alternatives.area(again, "k-means"))


@pytest.fixture(scope="module")
def single(benchmark):
    """Trials with nothing to tune, so that a trial with other sizes keeps its K."""
    params = UniRouteParams(n_trials=2, n_validation=150, cluster_grid=[4], neighbour_grid=[5])
    constant = choices.at_mean_cost(benchmark)
    return params, trials.run_trials(constant, benchmark.embeddings, params), constant


@pytest.mark.parametrize("method", ["k-means", "k-nn"])
def test_other_splits_are_trials_with_other_parameters(single, benchmark, method):
    params, done, constant = single
    again = _again(done, benchmark, 1, params)
    seen = trials.run_trial(constant, benchmark.embeddings, params.model_copy(update={"train_llm_share": 5 / 8}), 1)
    gained = seen.curves[method].area() - seen.curves["zero-router"].area()
    assert len(seen.split.unseen) == 3
    assert alternatives.one_more_seen(again, method) == pytest.approx(gained)
    tenth = trials.run_trial(constant, benchmark.embeddings, params.model_copy(update={"n_validation": 60}), 1)
    assert alternatives.tenth_for_validation(again, method) == pytest.approx(tenth.curves[method].area())
    assert np.array_equal(tenth.split.test, again.split.test)


def test_a_fixed_partition_is_that_of_the_first_trial(done, benchmark):
    first, second = (_again(done, benchmark, number) for number in (0, 1))
    for method in ("k-means", "k-nn"):
        assert alternatives.fixed_partition(first, method) == pytest.approx(alternatives.gain(first, method))
    split = replace(second.split, seen=first.split.seen, unseen=first.split.unseen)
    router = alternatives.refit(second.router("k-means"), second.benchmark, second.embeddings, split)
    zero = alternatives.refit(routers.ZeroRouter(), second.benchmark, second.embeddings, split)
    assert alternatives.fixed_partition(second, "k-means") == pytest.approx(router.area() - zero.area())


def test_no_llm_more_can_be_seen_where_two_are_unseen(again):
    two = replace(again.trial, split=replace(again.split, unseen=again.split.unseen[:2]))
    assert np.isnan(alternatives.one_more_seen(replace(again, trial=two), "k-means"))


def test_one_start_is_one_start(again, monkeypatch):
    starts = []
    fit = routers.KMeans.fit
    monkeypatch.setattr(routers.KMeans, "fit", lambda self, *args: starts.append(self.n_init) or fit(self, *args))
    alternatives.one_start(again, "k-means")
    assert starts == [1]


def test_standardised_by_hand():
    z = np.array([[1.0, 5.0], [3.0, 5.0], [7.0, 6.0]])
    got = alternatives.standardised(z, np.array([0, 1]))
    np.testing.assert_allclose(got, [[-1, 0], [1, 0], [5, 1]])


def test_features_of_seen_llms_from_validation_labels(again):
    k, seen = again.tuned("learned-map"), again.split.seen
    labels, z = again.part("validation", seen), again.z("validation")
    clusters = alternatives.FeaturesFrom(again.clusters(k), labels, z)
    router = LearnedMap(n_clusters=k, clustering=clusters, epochs=1).fit(again.part("train", seen), again.z("train"))
    np.testing.assert_array_equal(router.psi_, again.clusters(k).represent(labels, z)[0])
    assert not np.array_equal(router.psi_, again.clusters(k).psi_)
    router.add_models(again.validation, z)
    np.testing.assert_array_equal(router.psi_[:, 4:], again.clusters(k).represent(again.validation, z)[0])
    assert "FeaturesFrom" in repr(clusters)


def test_features_from_training_labels_are_ours(again):
    k = again.tuned("learned-map")
    train = again.part("train", again.split.seen), again.z("train")
    router = LearnedMap(n_clusters=k, seed=again.seed, clustering=alternatives.FeaturesFrom(again.clusters(k), *train))
    area = alternatives.refit(router, again.benchmark, again.embeddings, again.split).area()
    assert area == pytest.approx(alternatives.area(again, "learned-map"))
    assert alternatives.trained_on_validation_features(again, "learned-map") != pytest.approx(area)


@pytest.mark.parametrize(("method", "made"), [("retrained-mlp", "MLP"), ("retrained-matfac", "MatrixFactorization")])
def test_a_checkpoint_is_kept_on_a_fifth_not_learned_from(again, monkeypatch, method, made):
    calls = []
    fit = getattr(routers, made).fit

    def spy(self, benchmark, embeddings, validation=None):
        calls.append((embeddings, validation[1]))
        return fit(self, benchmark, embeddings, validation=validation)

    monkeypatch.setattr(getattr(routers, made), "fit", spy)
    alternatives.checkpoint_on_a_fifth(again, method)
    ((learned, kept),) = calls
    assert len(kept) == len(again.validation) // 5
    together = np.concatenate([learned, kept])
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(again.z("validation"), axis=0))


def test_the_hull_in_hindsight_goes_through_the_best_llms_of_the_test(again):
    test = again.test
    means, cost = test.quality.mean(axis=0), test.mean_cost
    x, y = [], []
    # Every mixture of two LLMs is a chord; the upper hull at a budget is the best chord or LLM there.
    for budget in np.linspace(cost.min(), cost.max(), 301):
        best = max(means[cost <= budget * (1 + 1e-12)])
        for a in range(len(cost)):
            for b in range(len(cost)):
                if cost[a] <= budget < cost[b]:
                    share = (budget - cost[a]) / (cost[b] - cost[a])
                    best = max(best, (1 - share) * means[a] + share * means[b])
        x.append(budget)
        y.append(best)
    wanted = np.trapezoid(y, x) / (cost.max() - cost.min())
    assert alternatives.hull_on_test(again, "zero-router") == pytest.approx(wanted, abs=1e-4)


def test_tfidf_learns_from_training_prompts_alone():
    prompts = ["red apple pie", "green apple tart", "red wine sauce", "green wine", "apple wine", "zebra"]
    train = np.arange(5)
    z = alternatives.tfidf_embeddings(prompts, train, seed=0)
    np.testing.assert_allclose(np.linalg.norm(z[:5], axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(z[5], 0)
    assert z.shape == (6, 4)
    other = alternatives.tfidf_embeddings([*prompts[:5], "apple zebra"], train, seed=0)
    np.testing.assert_array_equal(other[:5], z[:5])
    assert z[0] @ z[1] > z[0] @ z[3]


def test_tfidf_is_not_run_on_simulated_prompts(again):
    nothing = replace(again, benchmark=replace(again.benchmark, origin="simulated"))
    assert np.isnan(alternatives.with_tfidf(nothing, "k-nn"))


def test_pairs_that_flip(done):
    assert choices.pairs_flipped(done, lambda curve: curve.area(left="flat")) == 0
    assert choices.pairs_flipped(done, lambda curve: -curve.area(left="flat")) == 28
    assert choices.pairs_flipped(done, lambda curve: np.nan) is None

    def last_first(curve):
        """Lift the worst of the eight above all others."""
        worst = min(choices.COMPARED, key=lambda m: np.mean([trial.curves[m].area(left="flat") for trial in done]))
        return curve.area(left="flat") + 9 * any(curve is trial.curves[worst] for trial in done)

    assert choices.pairs_flipped(done, last_first) == 7


def test_the_table_has_every_detail_once(table):
    numbers, shown = table
    assert [choice.number for choice in choices.OPEN_CHOICES] == list(range(1, 30))
    assert list(shown.index) == list(range(1, 30))
    keys = [
        f"{alternative.key}/{method}"
        for choice in choices.OPEN_CHOICES
        for alternative in choice.alternatives
        for method in alternative.methods
    ]
    assert len(set(keys)) == len(keys)
    assert set(numbers.index) == {*keys, "mean-curve/k-means", "significance-prompts/k-means"}
    assert (shown != "").all(axis=None)
    assert not shown.map(lambda text: "nan" in text).any(axis=None)


def test_effects_are_other_minus_ours_over_the_trials(table, done):
    numbers, _ = table
    assert np.isfinite(numbers["effect"]).all()
    moved = [alternatives.area_in_steps(trial.curves["k-nn"]) - trial.curves["k-nn"].area() for trial in done]
    row = numbers.loc["steps/k-nn"]
    assert row["effect"] == pytest.approx(np.mean(moved))
    # Two trials: Student's t with one degree of freedom is 12.706 at 97.5 %.
    assert row["high"] - row["low"] == pytest.approx(2 * 12.7062 * abs(moved[0] - moved[1]) / 2, rel=1e-4)
    assert row["n"] == 2
    assert (numbers["low"].isna() | (numbers["low"] <= numbers["effect"] + 1e-12)).all()
    assert (numbers.loc[["k-hindsight/k-means"], "effect"] >= -1e-12).all()
    assert (numbers.loc[["hull/k-means", "hull/k-nn"], "effect"] >= -1e-12).all()
    assert (numbers.loc[["steps/k-means", "steps/k-nn"], "low"] < 0).all()


def test_the_bootstrap_is_over_the_first_trials_prompts(table, done):
    first = done[0]
    row = table[0].loc["significance-prompts/k-means"]
    assert row["effect"] == pytest.approx(first.curves["k-means"].area() - first.curves["k-nn"].area())
    assert row["n"] == len(first.split.test)


def test_what_cannot_be_run_says_so(benchmark, done):
    simulated_only = replace(benchmark, origin="simulated")
    numbers, shown = choices.open_choices(done[:1], simulated_only, benchmark.embeddings, PARAMS)
    assert np.isnan(numbers.loc["tfidf/k-means", "effect"])
    assert "cannot be run on these data" in shown.loc[23].iloc[-1]
    # One trial has no interval.
    assert numbers.loc["steps/k-means", "low"] != numbers.loc["steps/k-means", "low"]
    assert "[" not in shown.loc[7].iloc[-1]
    assert not shown.map(lambda text: "nan" in text).any(axis=None)


def test_no_trial_is_refused(benchmark):
    with pytest.raises(UserError, match="done holds no trial, expected those that run_trials returned"):
        choices.open_choices([], benchmark, benchmark.embeddings, PARAMS)


def test_only_the_first_trials_are_measured_and_they_repeat(benchmark, done, monkeypatch):
    monkeypatch.setattr(choices, "MOST_TRIALS", 1)
    few, _ = choices.open_choices(done, benchmark, benchmark.embeddings, PARAMS)
    again, _ = choices.open_choices(done, benchmark, benchmark.embeddings, PARAMS)
    assert (few["n"].drop("significance-prompts/k-means") == 1).all()
    np.testing.assert_array_equal(few.to_numpy(), again.to_numpy())
