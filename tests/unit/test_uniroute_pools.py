"""UniRoute on other pools: sizes, splits, families, and areas where prices leave nothing to trade."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from replications.uniroute import families, generations, pools, similarity, tables, trials, validation_sizes
from replications.uniroute.params import PoolsParams, UniRouteParams
from routebook import ledger, load
from routebook.datasets import simulated
from routebook.deferral import deferral_curve
from routebook.errors import UserError
from routebook.record import Record

SMALL = UniRouteParams(n_trials=2, n_validation=100, cluster_grid=[3, 4], neighbour_grid=[5, 20])


def _pool(n_prompts=500, n_llms=8, seed=3, params=SMALL):
    benchmark = simulated.mixture(n_prompts, n_llms, 4, seed=seed)[0]
    return pools.Pool(benchmark, benchmark.embeddings, params)


@pytest.fixture(scope="module")
def pool():
    return _pool()


@pytest.fixture(scope="module")
def done(pool):
    return trials.run_trials(pool.at_mean_cost, pool.embeddings, pool.params)


# ----------------------------------------------------------------------------------------------------------- parameters


def test_paper_profile_has_the_papers_sizes():
    params = PoolsParams.build({}, "paper")
    assert (params.n_trials, params.size_trials, params.max_prompts) == (400, 100, 1_000_000)
    assert params.profile == "paper"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pools": ["mmlu"]}, "pools: found"),
        ({"pools": []}, "pools: found"),
        ({"sample_sizes": [10, 50]}, "sample_sizes: found"),
        ({"max_prompts": 200, "sample_sizes": [100, 400]}, "may hold at most 70 prompts"),
        ({"n_validation": 5}, "n_validation: found 5"),
    ],
)
def test_impossible_parameters_are_refused(given, said):
    with pytest.raises(UserError, match=said):
        PoolsParams.build(given)


def test_a_largest_size_that_does_not_fit_is_no_error():
    assert PoolsParams.build({"max_prompts": 300, "sample_sizes": [100, 800]}).sample_sizes == [100, 800]


@pytest.mark.parametrize(("n_llms", "seen"), [(7, 3), (11, 5), (12, 6), (14, 7), (15, 10), (19, 12), (45, 30)])
def test_two_thirds_of_a_large_pool_are_seen_and_half_of_a_small_one(n_llms, seen):
    benchmark = simulated.mixture(300, n_llms, 3, seed=0)[0]
    params = pools.trial_params(benchmark, PoolsParams.build({"n_validation": 50}))
    split = trials.draw_split(benchmark, params, 0)
    assert (len(split.seen), len(split.unseen)) == (seen, n_llms - seen)


def test_validation_size_is_a_tenth_on_embedllm_alone_where_it_is_not_given():
    benchmark = simulated.mixture(900, 6, 3, seed=0)[0]
    named = replace(benchmark, name="embedllm")
    left_open, given = PoolsParams.build({"n_validation": None}), PoolsParams.build({"n_validation": 60})
    assert pools.trial_params(named, left_open).n_validation == 90
    assert pools.trial_params(benchmark, left_open).n_validation == 400
    assert pools.trial_params(named, given).n_validation == 60


def test_load_pool_draws_the_prompts_by_the_seed():
    params = PoolsParams.build({"max_prompts": 200, "sample_sizes": [50]})
    first, again = (pools.load_pool("simulated", params) for _ in range(2))
    other = pools.load_pool("simulated", params.model_copy(update={"seed": 1}))
    assert len(first.benchmark) == len(first.embeddings) == 200
    assert first.benchmark.prompts == again.benchmark.prompts
    assert first.benchmark.prompts != other.benchmark.prompts


# ------------------------------------------------------------------------------------------------------- one price only


def _one_price(pool):
    flat = pool.benchmark.with_cost(np.full(len(pool.benchmark.models), 7.0), "billion parameters")
    return replace(pool, benchmark=flat)


def test_area_at_one_price_is_the_quality_there_and_qnc_is_one():
    flat = _one_price(_pool(400, 6))
    (trial, *_) = trials.run_trials(flat.at_mean_cost, flat.embeddings, flat.params)
    metrics = trials.metrics_frame([trial]).set_index("method")
    assert (metrics["qnc"] == 1).all()
    for method, curve in trial.curves.items():
        assert len(curve) == 1, method
        if method != "best-single":
            assert metrics.loc[method, "area"] == curve.quality[0], method
    # ZeroRouter at one price always calls the LLM that is best on the validation prompts.
    assert metrics.loc["zero-router", "area"] == metrics.loc["best-single", "peak"]


def test_area_at_one_price_is_the_limit_over_shrinking_budgets_but_not_over_prices():
    # Each LLM alone is right on half of the prompts, and the router knows which.
    quality = np.repeat([[1.0, 0.0], [0.0, 1.0]], 10, axis=0)
    at_one = deferral_curve(quality, quality, np.ones(2))
    assert at_one.area() == 1
    assert at_one.area(budgets=(1, 1 + 1e-6)) == pytest.approx(1)
    for gap in (1e-1, 1e-3):
        # From the cheaper LLM alone (1, .5) to both (1 + gap / 2, 1): (.75 + 1) / 2, however small the gap.
        apart = deferral_curve(quality, quality, np.array([1, 1 + gap]))
        assert apart.area() == pytest.approx(0.875)


def test_a_router_that_always_picks_the_cheapest_has_a_flat_curve_and_an_area():
    quality = np.tile([0.9, 0.2], (50, 1))
    curve = deferral_curve(quality, quality, np.array([1.0, 2.0]))
    trial = trials.Trial(None, {"zero-router": curve, "best-single": curve}, {}, {})
    metrics = trials.metrics_frame([trial]).set_index("method")
    assert metrics.loc["zero-router", "area"] == pytest.approx(0.9)
    assert np.isnan(metrics.loc["best-single", "area"])


# ------------------------------------------------------------------------------------------------ tables over all pools


def test_recorded_keys_are_those_of_every_method_and_pair(pool, done, tmp_path):
    record = Record(tmp_path, page="pools")
    record.use(pool.benchmark)
    pools.record_metrics(record, "simulated", trials.metrics_frame(done))
    found = {row["id"]: row for row in record.records}
    wanted = {f"pools/simulated/{c}/{m}" for c in ("area", "qnc", "peak") for m in trials.METHODS}
    for a, b in {*tables.COMPARED, ("dataset-oracle", "zero-router")}:
        wanted |= {f"pools/simulated/{c}-difference/{a}/{b}" for c in ("area", "qnc")}
    assert set(found) == wanted
    row = found["pools/simulated/area-difference/k-means/k-nn"]
    by_hand = np.mean([t.curves["k-means"].area() - t.curves["k-nn"].area() for t in done])
    assert row["value"] == pytest.approx(by_hand)
    assert row["low"] < row["value"] < row["high"]
    assert row["n"] == 2
    assert row["dataset"] == "simulated"


def test_figure6_shows_the_papers_cells_only_for_the_pools_it_has(done, root):
    metrics = trials.metrics_frame(done)
    published = ledger.read_cells(root / "replications" / "uniroute" / "published" / "figure-6.csv")
    shown = pools.figure6({"sprout": metrics, "overruling": metrics}, published, ("QNC", "Area"))
    assert list(shown["overruling"].columns) == ["QNC, % (ours)", "Area (ours)"]
    assert shown.loc["ZeroRouter", ("sprout", "Area (paper)")] == ".820 *"
    assert shown.loc["DatasetOracle", ("sprout", "Area (paper)")] == "–"
    assert (shown["overruling", "Area (ours)"].str.contains("<b>")).sum() == 1


def _metrics(*areas):
    """Return a frame of made-up trials: one (k-means, k-nn) pair of areas each."""
    rows = [
        {"trial": i, "method": m, "area": v}
        for i, pair in enumerate(areas)
        for m, v in zip(("k-means", "k-nn"), pair, strict=True)
    ]
    return pd.DataFrame(rows)


def test_tally_counts_the_pools_whose_interval_excludes_zero():
    above = _metrics((0.60, 0.50), (0.71, 0.60), (0.81, 0.70))
    below = _metrics((0.50, 0.60), (0.60, 0.71), (0.70, 0.81))
    unclear = _metrics((0.60, 0.50), (0.60, 0.70), (0.71, 0.70))
    said = pools.tally({"a": above, "b": above, "c": below, "d": unclear}, "k-means", "k-nn")
    assert said == "more on 2, less on 1, not told apart on 1 (pools: 4)"
    # Mean differences: (.10 + .11 + .11) / 3 on a, its negative on c.
    assert pools.spread({"a": above, "c": below}, "k-means", "k-nn") == "-0.1067 (c) to +0.1067 (a)"
    shown = pools.differences({"a": above, "d": unclear}, [("k-means", "k-nn")])
    assert "<b>+0.1067</b>" in shown.loc["UniRoute (K-means) − K-NN", "a"]
    assert "<b>" not in shown.loc["UniRoute (K-means) − K-NN", "d"]


def test_overview_counts_the_unseen(pool):
    frame = pools.overview({"simulated": pool})
    assert frame.loc["simulated", ["LLMs", "unseen in a trial", "prompts"]].tolist() == [8, 4, 500]
    assert frame.loc["simulated", "absent"] == "nothing"


def test_panels_show_the_unseen_llms_and_every_drawn_method(pool, done):
    (one,) = pools.one_trial_panels({"simulated": pool}, {"simulated": done})
    assert set(one.curves) == set(pools.DRAWN)
    assert len(one.points) == len(done[0].split.unseen)
    test = pool.at_mean_cost.subset(done[0].split.test, done[0].split.unseen)
    np.testing.assert_allclose(np.array(one.points)[:, 1], test.quality.mean(axis=0))
    (mean,) = pools.mean_panels({"simulated": done})
    assert set(mean.curves) == set(pools.DRAWN)
    assert mean.curves["k-means"][0][[0, -1]].tolist() == [0, 1]


# --------------------------------------------------------------------------------------------- validation sample sizes


@pytest.mark.parametrize("role", ["seen", "unseen"])
def test_an_llm_with_fewer_labels_than_neighbours_is_asked_for_all_it_has(role):
    whole = _pool(params=SMALL.model_copy(update={"neighbour_grid": [5, 100]}))
    split = trials.draw_split(whole.benchmark, whole.params, 0)
    llms, prompts = getattr(split, role), split.train if role == "seen" else split.validation
    quality = whole.benchmark.quality.copy()
    # Labelled on every tenth prompt: some 25 of 250 training prompts, 10 of the 100 of the validation sample.
    quality[np.arange(len(quality)) % 10 > 0, whole.benchmark.model_columns(llms[:1])] = np.nan
    gaps = replace(whole.benchmark, quality=quality)
    sample = gaps.subset(prompts, llms)
    fewest = (~np.isnan(sample.quality)).sum(axis=0).min()
    assert 5 < fewest < 100
    assert [trials.neighbours_within([k], sample)[0] for k in (5, fewest, 100)] == [5, fewest, fewest]
    holed = pools.Pool(gaps, whole.embeddings, whole.params)
    done = trials.run_trials(holed.at_mean_cost, holed.embeddings, holed.params)
    assert done[0].split.seen == split.seen
    assert np.isfinite(trials.metrics_frame(done).query("method == 'k-nn'")["area"]).all()
    areas = validation_sizes.run_sizes(holed, [100], n_trials=1)
    assert np.isfinite(areas["area"]).all()


def test_sizes_take_at_most_half_of_what_testing_leaves():
    # 1000 prompts, 300 for testing, 700 left: 350 is the most.
    assert validation_sizes.sizes_that_fit([800, 350, 50, 351, 50], 1000, 0.3) == [50, 350]


def test_sizes_none_of_which_fits_are_refused():
    with pytest.raises(UserError, match=r"found \[400, 800\], but 500 prompts .* at most 175"):
        validation_sizes.sizes_that_fit([800, 400], 500, 0.3)


@pytest.mark.parametrize(
    ("present", "drawn"),
    [
        (["routerbench", "routerdc", "overruling"], ("routerbench", "overruling")),
        (["tinypool"], ("tinypool",)),
        (["routerdc", "openllm-v2"], ("routerdc",)),
    ],
)
def test_pools_of_the_size_figure(present, drawn):
    assert validation_sizes.pools_drawn(present) == drawn


@pytest.fixture(scope="module")
def areas(pool):
    return validation_sizes.run_sizes(pool, [50, 100], 2)


def test_every_size_trial_and_method_has_an_area(areas):
    assert len(areas) == 2 * 2 * len(validation_sizes.METHODS)
    assert areas["area"].between(0, 1).all()


def test_the_largest_size_equals_the_experiment_of_the_chapter(pool, areas):
    # At the largest size the sample is the whole validation part, so a trial is one of `run_trial`.
    trial = trials.run_trial(pool.at_mean_cost, pool.embeddings, pool.params, 1)
    found = areas.query("trial == 1 and size == 100").set_index("method")["area"]
    for method in validation_sizes.METHODS:
        tolerance = 1e-2 if method == "retrained-mlp" else 1e-9  # its batches follow the order of the sample
        assert found[method] == pytest.approx(trial.curves[method].area(left="flat"), abs=tolerance), method


def test_sizes_repeat_bit_for_bit_and_do_not_depend_on_the_other_sizes(pool, areas):
    again = validation_sizes.run_sizes(pool, [50, 100], 1)
    pd.testing.assert_frame_equal(again, areas[areas["trial"] == 0].reset_index(drop=True))
    without = validation_sizes.run_sizes(pool, [30, 50, 100], 1).query("size != 30").reset_index(drop=True)
    pd.testing.assert_frame_equal(without, again)


def test_sizes_are_the_same_from_several_processes(pool, areas):
    pd.testing.assert_frame_equal(validation_sizes.run_sizes(pool, [50, 100], 2, n_jobs=2), areas)


def test_differences_average_over_sizes_before_the_interval():
    rows = []
    for trial, (first, second) in enumerate([(0.1, 0.3), (0.2, 0.2), (0.0, 0.6)]):
        for size, gain in ((50, first), (100, second)):
            rows += [(trial, size, "k-means", 0.5 + gain), (trial, size, "k-nn", 0.5)]
    frame = pd.DataFrame(rows, columns=["trial", "size", "method", "area"])
    found = validation_sizes.difference(frame, "k-means", "k-nn")
    # Trial means are .2, .2, .3: mean .7 / 3, standard error .1 / 3; t(2 df, 98 %) = 4.8487.
    assert found.estimate == pytest.approx(0.7 / 3)
    assert found.high - found.estimate == pytest.approx(4.8487 * 0.1 / 3, rel=1e-4)
    assert found.n == 3


def test_size_records_and_panel(areas, pool, tmp_path):
    record = Record(tmp_path, page="pools")
    record.use(pool.benchmark)
    shown = validation_sizes.record_differences(record, "simulated", areas)
    found = {row["id"]: row["value"] for row in record.records}
    pairs = ("k-means/k-nn", "learned-map/k-nn", "k-means/retrained-mlp")
    assert set(found) == {
        f"pools/simulated/{part}/area-difference/{pair}" for part in ("sizes", "smallest-size") for pair in pairs
    }
    smallest = areas[areas["size"] == 50].pivot(index="trial", columns="method", values="area")
    by_hand = (smallest["k-means"] - smallest["k-nn"]).mean()
    assert found["pools/simulated/smallest-size/area-difference/k-means/k-nn"] == pytest.approx(by_hand)
    assert shown.shape == (1, 6)
    panel = validation_sizes.by_size(areas, "Validation prompts", "simulated")
    assert panel.curves["k-nn"][0].tolist() == [50, 100]
    assert panel.curves["k-nn"][1][0] == pytest.approx(smallest["k-nn"].mean())
    low, high = panel.bands["k-nn"]
    assert (low < panel.curves["k-nn"][1]).all()
    assert (high > panel.curves["k-nn"][1]).all()


# ---------------------------------------------------------------------------------------------------------- generations


def _leaderboard(n_prompts=400):
    """Return a simulated pool under the leaderboard's names; the newer LLMs skip the first prompts."""
    names = list(generations.RELEASED)
    benchmark = replace(simulated.mixture(n_prompts, len(names), 4, seed=1)[0], models=names)
    quality = benchmark.quality.copy()
    quality[:40, benchmark.model_columns(generations.split_llms(names)[1])] = np.nan
    return replace(benchmark, quality=quality)


def test_llms_are_split_by_release():
    older, newer = generations.split_llms(list(generations.RELEASED))
    assert "Qwen/Qwen2-72B-Instruct" in older
    assert {"Qwen/Qwen2.5-72B-Instruct", "google/gemma-2-9b-it", "meta-llama/Meta-Llama-3.1-70B-Instruct"} <= set(newer)
    assert max(generations.RELEASED[m] for m in older) < min(generations.RELEASED[m] for m in newer)


def test_an_llm_without_a_release_and_a_pool_of_one_generation_are_refused():
    with pytest.raises(UserError, match="no release month is known of some/new-llm"):
        generations.split_llms(["some/new-llm", *generations.RELEASED])
    with pytest.raises(UserError, match="expected some of each"):
        generations.split_llms(["Qwen/Qwen2-72B-Instruct", "google/gemma-2b-it"])


def test_a_generation_split_draws_the_prompts_of_draw_split_and_keeps_the_llms():
    benchmark = _leaderboard()
    llms = generations.split_llms(benchmark.models)
    for trial in range(3):
        split = generations.draw_generation_split(benchmark, SMALL, trial, llms)
        complete = replace(benchmark, quality=np.ones_like(benchmark.quality))
        drawn = trials.draw_split(complete, SMALL, trial)
        assert (split.seen, split.unseen) == llms
        np.testing.assert_array_equal(split.train, drawn.train)
        np.testing.assert_array_equal(split.validation, drawn.validation)
        np.testing.assert_array_equal(split.test, drawn.test[drawn.test >= 40])


def test_generations_run_on_the_fixed_llms_and_the_table_shows_the_paper(root):
    benchmark = _leaderboard()
    done = generations.run_generations(pools.Pool(benchmark, benchmark.embeddings, SMALL))
    assert len(done) == 2
    assert done[0].split.unseen == done[1].split.unseen == generations.split_llms(benchmark.models)[1]
    # 400 prompts, 120 for testing: at most 140 of the 280 left validate.
    assert len(done[0].split.validation) == 140
    published = ledger.read_cells(root / "replications" / "uniroute" / "published" / "table-i1.csv")
    alone, both = (generations.table_i1(m, published) for m in (None, trials.metrics_frame(done)))
    assert list(alone.columns) == ["QNC, % (paper)"]
    assert both["QNC, % (paper)"].to_dict() == alone["QNC, % (paper)"].to_dict()
    assert both.loc["UniRoute (LearnedMap)", "QNC, % (paper)"] == "80.2"
    assert both.loc["LLM Bandit (Li, 2025)", "QNC, % (ours)"] == "–"
    assert (both["Area (ours)"].str.contains("<b>")).sum() == 1


def test_llm_table_is_in_order_of_release():
    benchmark = _leaderboard()
    frame = generations.llm_table(pools.Pool(benchmark, benchmark.embeddings, SMALL))
    assert frame["released"].is_monotonic_increasing
    assert frame["role"].tolist() == ["seen"] * 12 + ["unseen"] * 7


# ------------------------------------------------------------------------------------------------------------- families


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Meta-Llama-3.1-8B-Instruct", "llama-3.1"),
        ("nvidia/Llama-3.1-Nemotron-70B-Instruct-HF", "llama-3.1"),
        ("Meta-Llama-3-8B", "llama-3"),
        ("cognitivecomputations/dolphin-2.9-llama3-8b", "llama-3"),
        ("meta-llama/Llama-2-13b-chat-hf", "llama-2"),
        ("NousResearch/Nous-Hermes-2-Mixtral-8x7B-DPO", "mixtral"),
        ("mathstral-7B", "mistral"),
        ("Qwen/QwQ-32B-Preview", "qwen2.5"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5"),
        ("Qwen/Qwen2-72B-Instruct", "qwen2"),
        ("Qwen1.5-72B-Chat", "qwen1.5"),
        ("01-ai/Yi-34B-Chat", "yi"),
        ("google/gemma-2-27b-it", "gemma-2"),
        ("google/gemma-2b-it", "gemma"),
        ("gemma-7b", "gemma"),
        ("Phi-3-mini-4k-instruct", "phi"),
        ("alpindale/WizardLM-2-8x22B", None),
        ("jamba-1.5-large", None),
        ("general-660k", "general"),
    ],
)
def test_family_by_name(model, name):
    assert families.family(model) == name


def test_an_llm_of_two_sources_counts_once():
    models = ["Mistral-7B-Instruct-v0.1", "Yi-34B", "mistralai/Mistral-7B-Instruct-v0.1", "01-ai/Yi-34B-Chat"]
    assert families.distinct(models) == ["Mistral-7B-Instruct-v0.1", "Yi-34B", "01-ai/Yi-34B-Chat"]


def _named(names, seed=0):
    return replace(simulated.mixture(300, len(names), 4, seed=seed)[0], models=names)


def test_contrast_is_the_one_of_the_chapter_for_each_family():
    benchmark = _named(["yi-a", "yi-b", "gemma-a", "gemma-b", "gemma-c", "alone"])
    found = families.contrasts(benchmark, benchmark.embeddings, 4, [0, 5])
    assert list(found.columns) == ["yi", "gemma"]
    for seed in (0, 5):
        for name in ("yi", "gemma"):
            single = similarity.family_contrast(
                benchmark, benchmark.embeddings, lambda m, name=name: m.startswith(name), 4, seed, n_resamples=1
            )
            assert found.loc[seed, name] == pytest.approx(single.estimate)
    table = families.contrast_table(found, benchmark.models)
    assert table.loc["yi", "LLMs"] == "yi-a, yi-b"


def test_a_pool_without_families_has_no_contrast():
    benchmark = _named(["a", "b", "gemma-c"])
    found = families.contrasts(benchmark, benchmark.embeddings, 3, range(2))
    assert found.shape == (2, 0)
    assert families.contrast_table(found, benchmark.models).empty


def test_first_present_pool_or_the_one_with_most_llms():
    assert families.first_present(("embedllm", "mmlu-pro"), {"routerbench": 11, "mmlu-pro": 45}) == "mmlu-pro"
    assert families.first_present(("embedllm",), {"routerbench": 11, "gsm8k-zeroeval": 31}) == "gsm8k-zeroeval"


# ------------------------------------------------------------------------------------------------------------ real data


def test_release_months_cover_the_real_leaderboard(real_data):
    benchmark = load(generations.POOL).priced()
    older, newer = generations.split_llms(benchmark.models)
    assert len(older) + len(newer) == len(benchmark.models)


def test_dataset_oracle_is_zero_router_on_pools_with_one_source(pool):
    single = replace(pool.at_mean_cost, tasks=np.full(len(pool.benchmark), "one"))
    (trial, *_) = trials.run_trials(single, pool.embeddings, SMALL)
    np.testing.assert_allclose(trial.curves["dataset-oracle"].quality, trial.curves["zero-router"].quality)
