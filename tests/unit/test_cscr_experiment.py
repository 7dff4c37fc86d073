"""CSCR's experiment: pools without probes, splits, last resorts, metrics, significance, selection profiles."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from replications.cscr import experiment, fingerprints
from replications.cscr.experiment import PoolSetting, Run
from replications.cscr.params import AblationsParams, CSCRParams, ShiftsParams
from routebook import routers
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import deferral_curve
from routebook.errors import UserError
from routebook.significance import binomial_counts

NAN = np.nan
SMALL = {"pools": ["simulated"], "max_prompts": 400, "n_seeds": 2, "min_steps": 4, "epochs": 1, "umr_clusters": 4}
MODELS = (CSCRParams, AblationsParams, ShiftsParams)


@pytest.fixture(scope="module")
def params():
    return CSCRParams.build(SMALL)


@pytest.fixture(scope="module")
def pools(params):
    return experiment.load_pools(params)


@pytest.fixture(scope="module")
def done(params, pools):
    return experiment.run_all(pools, params.seeds, partial(experiment.routers_for, params))


def bench(quality, cost, kind="binary", **more):
    quality = np.asarray(quality, dtype=float)
    n, m = quality.shape
    return RoutingBenchmark(
        more.pop("name", "simulated"),
        [f"prompt {i}" for i in range(n)],
        np.array(["t"] * n),
        [f"m{j}" for j in range(m)],
        quality,
        np.broadcast_to(np.asarray(cost, dtype=float), (n, m)).copy(),
        "USD per prompt",
        quality_kind=kind,
        **more,
    )


def made_run(estimates, quality, price, paid=None, kind="binary"):
    """A run on these test prompts with the estimates of each router given; LLMs cost `price` in training."""
    test = bench(quality, price if paid is None else paid, kind)
    setting = PoolSetting("simulated", test, np.zeros((len(test), 1)), {})
    everything = np.arange(len(test))
    split = replace(
        setting.split_at(0, everything, everything), prices=dict(zip(test.models, map(float, price), strict=True))
    )
    estimates = {m: experiment.with_last_resort(np.asarray(e, dtype=float), split.price) for m, e in estimates.items()}
    curves = {m: deferral_curve(e, test.quality, split.price, paid=test.cost) for m, e in estimates.items()}
    return Run(split, {}, estimates, curves)


# --- parameters ------------------------------------------------------------------------------------------------------


def test_values_are_those_of_appendix_d1():
    paper = CSCRParams.profile_values("paper")
    stated = {"n_bands": 5, "gamma": 0.2, "alpha": 0.25, "tau_min": 0.05, "k": 4}
    stated |= {"epochs": 10, "lr": 5e-4, "batch_size": 512, "n_bootstrap": 5000, "gamma_sign": "printed"}
    assert {name: paper[name] for name in stated} == stated
    for model in MODELS:
        for profile in ("quick", "paper"):
            assert model.build({}, profile).profile == profile
    tables = AblationsParams.build({}, "paper")
    assert (tables.bands, tables.ks) == ([2, 5, 11, 15, 20], [1, 2, 4, 8, 16])
    assert tables.gammas == [0, 0.1, 0.2, 0.3, 0.5]
    assert (tables.alphas, tables.taus) == ([0, 0.1, 0.25, 0.4, 0.5], [0, 0.02, 0.05, 0.08])


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        (CSCRParams, {"k": 0}, "k: found 0, expected an integer 1 or more"),
        (CSCRParams, {"gamma": -0.1}, "gamma: found -0.1"),
        (CSCRParams, {"gamma_sign": "print"}, "did you mean 'printed'"),
        (CSCRParams, {"pools": ["embedllm"]}, "pools: found"),
        (CSCRParams, {"n_band": 5}, "did you mean 'n_bands'"),
        (AblationsParams, {"ks": [1, 0]}, "ks: found"),
        (AblationsParams, {"gammas": [0.1]}, "gammas: found"),
        (AblationsParams, {"bands": [2, 5, 2]}, "2 is named twice"),
        (ShiftsParams, {"train_llm_share": 1.0}, "train_llm_share: found 1.0"),
        (ShiftsParams, {"label_budgets": [50, 50]}, "50 is named twice"),
    ],
)
def test_bad_parameters_are_refused_before_anything_runs(model, given, words):
    with pytest.raises(UserError, match=f"routebook params {model.CHAPTER}") as refusal:
        model.build(given)
    assert words in str(refusal.value)


@pytest.mark.parametrize(("name", "value"), [("k", 13), ("n_bands", 13)])
def test_more_neighbours_or_bands_than_llms_are_refused_before_anything_is_embedded(name, value, monkeypatch):
    monkeypatch.setattr(experiment.encoders, "embed_benchmark", lambda *_: pytest.fail("embedded"))
    with pytest.raises(UserError, match=f"{name} is 13, but the pool simulated holds 12 LLMs; lower {name} to at most"):
        experiment.load_pools(CSCRParams.build(SMALL | {name: value}))


def test_a_sweep_leaves_out_what_a_pool_is_too_small_for(pools):
    assert experiment.fitting([2, 5, 12, 15], pools["simulated"], "bands") == [2, 5, 12]
    with pytest.raises(UserError, match="ks: the least is 16, but the pool simulated holds 12 LLMs"):
        experiment.fitting([20, 16], pools["simulated"], "ks")


# --- data ------------------------------------------------------------------------------------------------------------


def test_probes_are_in_neither_part_and_parts_share_no_question(pools, params):
    setting = pools["simulated"]
    assert setting.n_probes_removed > 0
    assert len(setting.benchmark) + setting.n_probes_removed == params.max_prompts
    whole = experiment.load("simulated")
    probes = set(whole.ids[fingerprints.probe_rows(whole)])
    for seed in (0, 1):
        split = setting.split(seed)
        train, test = set(split.train.ids), set(split.test.ids)
        assert not (train | test) & probes
        assert not train & test
        assert len(train | test) == len(setting.benchmark)
        assert len(test) == round(0.3 * len(setting.benchmark))
    assert set(setting.split(0).test.ids) != set(setting.split(1).test.ids)
    assert setting.split(1).test.ids.tolist() == setting.split(1).test.ids.tolist()


def test_tinypool_keeps_its_own_split_and_every_llm_has_a_footprint():
    params = CSCRParams.build({"pools": ["tinypool"], "max_prompts": 200})
    setting = experiment.load_pools(params)["tinypool"]
    split = setting.split(3)
    assert set(split.train.split) == {"train"}
    assert set(split.test.split) == {"test"}
    assert split.test.ids.tolist() == setting.split(4).test.ids.tolist()
    assert split.test.cost_unit == "parameters"
    assert set(split.descriptors) == set(split.test.models)
    np.testing.assert_allclose([np.linalg.norm(v) for v in split.descriptors.values()], 1, rtol=1e-6)


def test_prices_are_mean_costs_in_training_and_stay_when_llms_are_left_out(pools):
    benchmark = bench(np.ones((4, 2)), [[1, 9], [3, 9], [100, 9], [100, 9]])
    split = PoolSetting("simulated", benchmark, np.zeros((4, 1)), {}).split_at(0, np.array([0, 1]), np.array([2, 3]))
    np.testing.assert_array_equal(split.price, [2, 9])
    fewer = split.with_models(["m0"], ["m1"])
    assert (fewer.train.models, fewer.test.models) == (["m0"], ["m1"])
    np.testing.assert_array_equal(fewer.price, [9])
    fixed = split.with_fixed_prices({"m0": 0.5, "m1": 2.0, "other": 3.0})
    for part in (fixed.train, fixed.test):
        np.testing.assert_array_equal(part.cost, [[0.5, 2.0]] * 2)
    np.testing.assert_array_equal(fixed.price, [0.5, 2.0])
    np.testing.assert_array_equal(split.with_fixed_prices().test.cost, [[2.0, 9.0]] * 2)
    with pytest.raises(UserError, match="prices name no 'm1'"):
        split.with_fixed_prices({"m0": 1.0})
    with pytest.raises(UserError, match="0 prompts to train on and 1 to test on; raise max_prompts"):
        PoolSetting("simulated", benchmark, np.zeros((4, 1)), {}).split_at(0, np.array([], dtype=int), np.array([1]))


# --- routers ---------------------------------------------------------------------------------------------------------


def test_training_takes_whole_passes_and_no_fewer_steps_than_asked():
    params = CSCRParams.build({"epochs": 10, "min_steps": 300, "batch_size": 512})
    assert experiment.epochs_for(params, 512) == 300
    assert experiment.epochs_for(params, 2000) == 75  # four batches a pass
    assert experiment.epochs_for(params, 36_054) == 10  # 71 batches a pass are 710 steps


def test_every_method_is_trained_on_the_same_labels_and_none_but_the_oracle_on_the_tests(params, pools, done):
    split = pools["simulated"].split(0)
    assert list(done[0].routers) == list(experiment.METHODS)
    other = replace(split, test=replace(split.test, quality=1 - split.test.quality))
    methods = ("umr", "thompson", "parametric", "cscr", "zero-router")
    again = experiment.route(experiment.train(experiment.routers_for(params, split, methods), other), other)
    for method in methods:
        np.testing.assert_array_equal(again.estimates[method], done[0].estimates[method])
    oracle = experiment.train({"oracle": routers.Oracle()}, other)["oracle"]
    np.testing.assert_array_equal(oracle.quality_, other.test.quality)


def test_changes_reach_cscr_and_vanilla_is_its_loss(params, pools):
    split = pools["simulated"].split(1)
    made = experiment.routers_for(params, split, ("cscr", "vanilla", "k-nn", "k-means"), k=7)
    assert (made["cscr"].k, made["vanilla"].k) == (7, 7)
    assert (made["cscr"].loss, made["vanilla"].loss) == ("cost-spectrum", "vanilla")
    assert made["cscr"].seed == 1
    variants = experiment.variants_for(params, split, {"bands-2": {"n_bands": 2}, "bands-3": {"n_bands": 3}})
    assert [router.n_bands for router in variants.values()] == [2, 3]


def test_released_baselines_run_and_ignore_the_prompt_where_the_code_does(params, pools):
    split = pools["simulated"].split(0)
    run = experiment.route(experiment.train(experiment.released_routers(params, split), split), split)
    assert set(run.curves) == {"umr", "thompson", "soft-moe", "parametric", "zero-router"}
    assert (run.estimates["parametric"] == run.estimates["parametric"][0]).all()
    assert not np.isnan(run.estimates["soft-moe"]).any(), "over all experts, not the top k"


# --- what they say and earn ------------------------------------------------------------------------------------------


def test_the_last_resort_is_the_cheapest_llm_and_changes_nothing_else():
    estimate = np.array([[NAN, 0.4, 0.5], [0.2, 0.3, NAN], [NAN, 0.1, NAN]])
    price = np.array([1.0, 4.0, 5.0])
    filled = experiment.with_last_resort(estimate, price)
    known = ~np.isnan(estimate)
    np.testing.assert_array_equal(filled[known], estimate[known])
    assert np.isnan(filled[1, 2]), "only the cheapest LLM is filled in"
    curve = deferral_curve(filled, np.ones((3, 3)), price)
    own = deferral_curve(estimate, np.ones((3, 3)), price)
    np.testing.assert_array_equal(curve.lam[: len(own)], own.lam)
    np.testing.assert_allclose(curve.cost[: len(own)], own.cost)
    assert curve.cost[-1] == 1.0
    assert (curve.lam[len(own) :] > 1e5).all()
    complete = np.array([[0.1, NAN]])
    assert experiment.with_last_resort(complete, price[:2]) is complete


def test_area_below_a_routers_reach_is_what_mixing_in_the_cheapest_llm_earns():
    # The router always calls m1 (cost 3, quality 1); m0 costs 1 and is always wrong, m2 costs 5.
    n = 50
    run = made_run({"cscr": [[NAN, 0.5, NAN]] * n}, [[0, 1, 1]] * n, [1.0, 3.0, 5.0])
    row = experiment.evaluate([run]).iloc[0]
    # Quality rises from 0 at cost 1 to 1 at cost 3 and stays: (1/2 * 2 + 1 * 2) / 4.
    assert row["area"] == pytest.approx(0.75)
    assert row["peak"] == 1.0
    assert row["cost-at-peak"] == pytest.approx(3000), "USD per 1,000 prompts"
    assert row["qnc"] == pytest.approx(1.0)
    assert row["reached"]


def test_metrics_by_hand():
    # λ from 0: m1 everywhere (cost 4, quality 1/2); then prompt 0 to m0 (its estimates differ less).
    run = made_run({"a": [[0.5, 0.6], [0.2, 0.6]]}, [[1, 0], [0, 1]], [2.0, 4.0])
    row = experiment.evaluate([run]).iloc[0]
    # Points (2, 1/2), (3, 1), (4, 1/2); the best single LLM has quality 1/2 (the cheaper one, cost 2).
    assert row["area"] == pytest.approx(0.75)
    assert row["peak"] == 1.0
    assert row["cost-at-peak"] == pytest.approx(3000)
    assert row["qnc"] == pytest.approx(1.0)
    # 20 values of λ on the scale in which the dearest LLM costs 1.66: breakpoints .1/2 and .4/2 are .1205 and .4819.
    code = experiment.evaluate([made_run({"a": [[0.5, 0.6], [0.2, 0.6]]}, [[1, 0], [0, 1]], [0.83, 1.66])]).iloc[0]
    assert row["audc-code"] == pytest.approx(code["audc-code"], rel=1e-12)
    assert row["audc-code"] == pytest.approx(0.75, abs=0.01)


def test_the_price_decides_and_the_call_is_paid():
    run = made_run({"a": [[0.0, 1.0], [0.9, 1.0]]}, np.ones((2, 2)), [1.0, 2.0], paid=[[1.0, 10.0], [1.5, 4.0]])
    # λ = .1 sends prompt 1 to m0, λ = 1 prompt 0 too; bills are 10 + 4, 10 + 1.5, 1 + 1.5.
    np.testing.assert_allclose(run.curves["a"].lam, [0, 0.1, 1.0])
    np.testing.assert_allclose(run.curves["a"].cost, [7, 5.75, 1.25])


def test_choices_at_a_piece_are_what_the_curve_says(done):
    for run in done:
        test, rows = run.split.test, np.arange(len(run.split.test))
        for method in ("cscr", "umr", "oracle", "thompson", "best-single"):
            curve = run.curves[method]
            for piece in np.unique(np.linspace(0, len(curve) - 1, 9).astype(int)):
                lam = experiment.within_piece(curve, piece)
                choice = experiment.choose(run.estimates[method], run.split.price, lam)
                assert test.cost[rows, choice].mean() == pytest.approx(curve.cost[piece])
                assert np.nanmean(test.quality[rows, choice]) == pytest.approx(curve.quality[piece])
            at_peak = run.at_peak(method)
            assert test.quality[rows, at_peak].mean() == pytest.approx(curve.peak)
            assert test.cost[rows, at_peak].mean() == pytest.approx(curve.cost_at_peak)
            budget = float(np.median(curve.cost))
            assert test.cost[rows, run.at_budget(method, budget)].mean() <= budget * (1 + 1e-9)


def test_invariants_of_the_evaluation(done):
    frame = experiment.evaluate(done)
    assert set(frame["seed"]) == {0, 1}
    assert not frame.drop(columns=["pool", "method"]).isna().any().any()
    oracle = frame[frame["method"] == "oracle"].set_index("seed")
    for _, row in frame.iterrows():
        assert 0 <= row["area"] <= oracle.loc[row["seed"], "area"] + 1e-9
        assert row["peak"] <= oracle.loc[row["seed"], "peak"] + 1e-9
        assert 1 <= row["cost-at-peak"] <= 100, "prices of the simulated pool"
        assert 0 < row["qnc"] <= 1
    again = experiment.evaluate(done)
    pd.testing.assert_frame_equal(frame, again)


def test_the_same_seed_gives_the_same_numbers_bit_for_bit(params, pools, done):
    run = experiment.run_all(
        pools, [params.seed], partial(experiment.routers_for, params, methods=("cscr", "soft-moe"))
    )[0]
    for method in ("cscr", "soft-moe"):
        np.testing.assert_array_equal(run.estimates[method], done[0].estimates[method])


def test_differences_are_paired_over_seeds_by_hand():
    rows = [("p", 0, "a", 0.5), ("p", 0, "b", 0.4), ("p", 1, "a", 0.9), ("p", 1, "b", 0.6), ("q", 0, "a", 0.1)]
    frame = pd.DataFrame(rows, columns=["pool", "seed", "method", "area"])
    d = experiment.difference(frame, "p", "a", "b")
    # Differences .1 and .3: mean .2, standard error .1, t(1) at 97.5 % = 12.7062.
    assert d.estimate == pytest.approx(0.2)
    assert (d.low, d.high) == (pytest.approx(0.2 - 1.27062, abs=1e-5), pytest.approx(0.2 + 1.27062, abs=1e-5))
    shown = experiment.summary(frame, "p")
    assert shown.loc["a", "value"] == pytest.approx(0.7)
    assert shown.loc["b", "n"] == 2
    assert list(experiment.summary(frame, "q").index) == ["a"]


# --- significance ----------------------------------------------------------------------------------------------------


def test_paired_by_hand():
    # a always calls m1, b always m0, whatever λ costs nothing more: one operating point each, then the last resort.
    quality = np.array([[0, 1]] * 6 + [[1, 0]] * 2 + [[1, 1]] * 3)
    run = made_run({"a": [[NAN, 1.0]] * 11, "b": [[1.0, NAN]] * 11}, quality, [2.0, 2.0])
    found = experiment.paired(run, "a", ["b"], n_bootstrap=200)["b"]
    assert (found.wins, found.losses, found.budget) == (6, 2, 2.0)
    expected = binomial_counts(6, 2, "greater")
    assert found.test.p_value == expected.p_value
    assert found.test.estimate == 0.75
    assert found.delta.estimate == pytest.approx(4 / 11)
    assert "McNemar" in found.test.method


def test_the_matched_budget_is_the_median_of_both_curves_costs():
    estimates = {"a": [[0.0, 0.5, 0.6]], "b": [[NAN, 0.5, NAN]]}
    run = made_run(estimates, [[0, 1, 0]], [1.0, 2.0, 5.0])
    np.testing.assert_allclose(run.curves["a"].cost, [5, 2, 1])
    np.testing.assert_allclose(run.curves["b"].cost, [2, 1])
    assert experiment.paired(run, "a", ["b"], n_bootstrap=20)["b"].budget == 2.0


def test_soft_scores_are_compared_by_the_sign_test():
    run = made_run(
        {"a": [[NAN, 1.0]] * 3, "b": [[1.0, NAN]] * 3}, [[0.2, 0.3], [0.5, 0.5], [NAN, 1]], [2.0, 2.0], kind="soft"
    )
    found = experiment.paired(run, "a", ["b"], n_bootstrap=20)["b"]
    assert (found.wins, found.losses, found.test.n) == (1, 0, 1)
    assert "sign test" in found.test.method


# --- which expert is chosen ------------------------------------------------------------------------------------------


def test_outcome_classes_by_hand_add_up_to_all_prompts():
    price = np.array([1.0, 2.0, 3.0])
    correct = np.array([[0, 1, 1], [0, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 1], [1, 1, 1]], dtype=bool)
    choice = np.array([0, 2, 1, 1, 1, 0])
    # 0: wrong and cheaper than m1. 1: right, m1 is cheaper. 2: optimal. 3: nobody. 4: wrong, m0 is right and cheaper.
    expected = {"too-cheap": 1, "too-expensive": 1, "optimal": 2, "no-correct": 1, "wrong-but-not-cheap": 1}
    assert experiment.outcome_counts(choice, correct, price) == expected


def test_outcome_counts_and_band_counts_always_add_up():
    rng = np.random.default_rng(0)
    for _ in range(20):
        n, m = 60, 7
        correct, choice = rng.random((n, m)) < 0.3, rng.integers(0, m, n)
        price = rng.integers(1, 5, m).astype(float)
        assert sum(experiment.outcome_counts(choice, correct, price).values()) == n
        assert experiment.band_counts(choice, price, 3).sum() == n


def test_profiles_are_those_of_the_peak_and_add_up(done):
    frame = experiment.profiles(done)
    bands = [column for column in frame if column.startswith("band-")]
    assert (frame[bands].sum(axis=1) == frame["n"]).all()
    assert (frame[list(experiment.OUTCOMES)].sum(axis=1) == frame["n"]).all()
    right = frame["too-expensive"] + frame["optimal"]
    peaks = [run.curves["cscr"].peak for run in done]
    np.testing.assert_allclose(right / frame["n"], peaks)


def test_an_equally_priced_wrong_choice_is_not_too_cheap():
    counts = experiment.outcome_counts(np.array([0]), np.array([[False, True]]), np.array([2.0, 2.0]))
    assert counts["wrong-but-not-cheap"] == 1


def test_bands_are_numbered_by_percentile_where_equal_prices_leave_one_empty():
    # Nothing lies from 2 up to 2, so bands 1 and 2 are empty.
    price = np.array([1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 8.0, 9.0, 9.0, 9.0])
    choice = np.array([0, 0, 1, 7, 8, 8, 8])
    edges = np.quantile(price, np.linspace(0, 1, 6))
    assert edges == pytest.approx([1, 2, 2, 2, 9, 9])
    np.testing.assert_array_equal(experiment.band_counts(choice, price, 5), [2, 0, 0, 2, 3])


def test_band_counts_by_hand():
    np.testing.assert_array_equal(
        experiment.band_counts(np.array([0, 0, 3, 1]), np.array([1.0, 2.0, 3.0, 4.0]), 2), [3, 1]
    )


def test_examples_follow_the_rule_and_are_sorted_by_what_is_saved():
    # Costs 1, 2, 9; only prompts 0, 2 and 3 fit: vanilla (m0) wrong, CSCR (m1) right, UMR (m2) right.
    quality = np.array([[0, 1, 1], [1, 1, 1], [0, 1, 1], [0, 1, 1], [0, 0, 1]])
    paid = np.array([[1, 2, 9], [1, 2, 9], [1, 2, 20], [1, 2, 9], [1, 2, 9]], dtype=float)
    always = {method: np.where(np.eye(3)[m] > 0, 1.0, NAN) for method, m in (("vanilla", 0), ("cscr", 1), ("umr", 2))}
    run = made_run({method: [row] * 5 for method, row in always.items()}, quality, [1.0, 2.0, 9.0], paid)
    shown = experiment.examples(run, 2)
    assert shown["row"].tolist() == [2, 0]
    assert shown["saved"].tolist() == [18.0, 7.0]
    assert shown["prompt"].tolist() == ["prompt 2", "prompt 0"]
    assert shown.loc[0, ["umr-llm", "vanilla-llm", "cscr-llm"]].tolist() == ["m2", "m0", "m1"]
    assert shown.loc[0, ["umr-quality", "vanilla-quality", "cscr-quality"]].tolist() == [1, 0, 1]
    assert len(experiment.examples(run, 10)) == 3
    none = experiment.examples(made_run({m: [r] * 5 for m, r in always.items()}, np.ones((5, 3)), [1.0, 2.0, 9.0]))
    assert len(none) == 0
    assert set(none.columns) == set(shown.columns)
