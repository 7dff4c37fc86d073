"""UniRoute's other settings: a static pool, and routers learned from pairwise preferences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from replications.uniroute import preferences, static_pool, trials
from replications.uniroute.params import SettingsParams
from routebook import datasets, load, paths
from routebook.datasets import simulated
from routebook.deferral import interpolate
from routebook.errors import UserError
from routebook.figures import label
from routebook.ledger import read_cells
from routebook.routers import KMeans

PARAMS = SettingsParams.build(
    {"n_trials": 2, "cluster_grid": [4, 8, 500], "hidden_grid": [16, 32], "n_comparisons": 2000}
)
FOLDER = paths.project_root() / "replications" / "uniroute"


@pytest.fixture(scope="module")
def pool():
    return simulated.mixture(600, 6, 4, seed=5)[0]


@pytest.fixture(scope="module")
def static(pool):
    return static_pool.run_trials(pool, pool.embeddings, PARAMS)


@pytest.fixture(scope="module")
def setting(pool):
    return preferences.find_setting({"simulated": pool}, {"simulated": pool.embeddings}, seed=0)


@pytest.fixture(scope="module")
def learned(setting):
    return preferences.run_trials(setting, PARAMS)


# --- parameters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pools": ["routerbnch"]}, "pools"),
        ({"pools": []}, "pools"),
        ({"cluster_grid": []}, "cluster_grid"),
        ({"cluster_grid": [0]}, "cluster_grid"),
        ({"hidden_grid": [0]}, "hidden_grid"),
        ({"n_comparisons": 100}, "n_comparisons"),
        ({"ridge": 0.0}, "ridge"),
        ({"n_trial": 3}, "n_trials"),
    ],
)
def test_a_wrong_parameter_is_named(given, said):
    with pytest.raises(UserError, match=said):
        SettingsParams.build(given)


def test_pools_are_read_from_a_command_line():
    assert SettingsParams.parse({"pools": "routerbench, tinypool"}).pools == ["routerbench", "tinypool"]
    assert SettingsParams.parse({"pools": '["tinypool"]'}).pools == ["tinypool"]
    assert SettingsParams.parse({"pools": "null"}).pools is None
    with pytest.raises(UserError, match=r"pools.*did you mean 'tinypool'"):
        SettingsParams.parse({"pools": "tinypol"})


def test_the_paper_profile_has_the_papers_values():
    paper = SettingsParams.build({}, "paper")
    assert (paper.n_trials, paper.max_prompts, paper.n_comparisons) == (400, 1_000_000, 8447)
    assert paper.cluster_grid == [5, 10, 25, 50, 75, 100, 150, 200, 250, 300]


# --- static pool -------------------------------------------------------------------------------------------------


def test_candidates_above_the_validation_sample_are_pruned():
    grid = [300, 5, 10, 25, 50, 25]
    assert static_pool.pruned(grid, 30) == [5, 10, 25]
    assert static_pool.pruned(grid, 25) == [5, 10, 25]
    assert static_pool.pruned(grid, 24) == [5, 10]
    with pytest.raises(UserError, match=r"cluster_grid: the smallest candidate is 5, but there are only 4"):
        static_pool.pruned(grid, 4)


def test_splits_have_the_papers_shares_and_cut_no_question(pool):
    for name, shares in {"overruling": (0.4, 0.1, 0.5), "simulated": (0.6, 0.1, 0.3)}.items():
        rows = static_pool.draw_split(replace(pool, name=name), PARAMS, 0)
        assert tuple(len(rows[part]) / len(pool) for part in ("train", "validation", "test")) == shares
        assert sorted(np.concatenate(list(rows.values()))) == list(range(len(pool)))
    twice = replace(pool, ids=np.repeat(np.arange(300), 2).astype(str))
    parts = [set(twice.ids[rows]) for rows in static_pool.draw_split(twice, PARAMS, 1).values()]
    assert sum(map(len, parts)) == 300


def test_pools_are_cut_to_size_the_same_way_each_time():
    first, again = (static_pool.load_pools(["tinypool"], PARAMS.model_copy(update={"max_prompts": 250})) for _ in "ab")
    whole = load("tinypool")
    assert len(first["tinypool"]) == 250
    assert first["tinypool"].prompts == again["tinypool"].prompts
    assert [whole.prompts[i] for i in np.flatnonzero(np.isin(whole.ids, first["tinypool"].ids))] == list(
        first["tinypool"].prompts
    )


def test_each_method_is_tuned_by_validation_area(static):
    for trial in static:
        assert set(trial.curves) == {*static_pool.METHODS, "dataset-oracle", "oracle"}
        assert trial.selections["k-means"].grid == trial.selections["k-nn"].grid == (4, 8)
        assert trial.selections["mlp"].grid == (16, 32)
        assert trial.selections["matfac"].grid == trials.RANKS
        for selection in trial.selections.values():
            assert selection.areas[selection.grid.index(selection.best)] == selection.areas.max()


def test_static_curves_are_monotone_and_below_the_oracle(static):
    for trial in static:
        oracle = trial.curves["oracle"]
        for method, curve in trial.curves.items():
            assert (np.diff(curve.cost) <= 1e-12 * curve.cost.max()).all(), method
            assert (curve.quality <= interpolate(oracle, curve.cost) + 1e-9).all(), method


def test_knowing_the_clusters_is_worth_more_than_ignoring_the_prompt(static):
    """In this pool the task is the true cluster, so both clustering and the task's name must beat ZeroRouter."""
    for trial in static:
        area = {method: curve.area() for method, curve in trial.curves.items()}
        assert area["k-means"] > area["zero-router"] + 0.02
        assert area["dataset-oracle"] > area["zero-router"] + 0.02


def test_static_trials_repeat_bit_for_bit_and_differ_from_each_other(pool, static):
    again = static_pool.run_trials(pool, pool.embeddings, PARAMS)
    for one, other in zip(static, again, strict=True):
        for method, curve in one.curves.items():
            assert np.array_equal(curve.quality, other.curves[method].quality), method
    assert static[0].curves["mlp"].area() != static[1].curves["mlp"].area()


def test_learned_map_follows_the_static_recipe_except_on_mixinstruct(pool):
    part = pool.subset(np.arange(200)), pool.embeddings[:200]
    held_out = pool.subset(np.arange(200, 300)), pool.embeddings[200:300]
    clustering = KMeans(n_clusters=4, n_init=1).fit(*part)
    (usual,) = static_pool._learned_maps([{"train": part, "validation": held_out}], [(clustering, 16)], [0])
    assert (usual.hidden, usual.lr, usual.batch_size, usual.epochs, usual.n_clusters) == (16, 0.001, 64, 10, 4)
    mix = replace(part[0], name="mixinstruct"), part[1]
    (as_before,) = static_pool._learned_maps([{"train": mix, "validation": held_out}], [(clustering, 16)], [0])
    assert (as_before.hidden, as_before.lr, as_before.epochs, as_before.best_epoch_) == (128, 0.005, 5, 4)


def test_table_1_puts_the_papers_cells_beside_ours(static):
    published = read_cells(FOLDER / "published" / "table-1.csv")
    metrics = trials.metrics_frame(static)
    shown = static_pool.table_1({"routerbench": metrics, "overruling": metrics}, published)
    assert list(shown.columns) == ["routerbench (paper)", "routerbench", "overruling"]
    assert shown.loc["MLP", "routerbench (paper)"] == ".747"
    assert shown.loc["UniRoute (LearnedMap)", "routerbench (paper)"] == ".744"
    assert shown.loc["DatasetOracle", "routerbench (paper)"] == "–"
    mean = {m: np.mean([trial.curves[m].area() for trial in static]) for m in static_pool.METHODS}
    assert f"{mean['k-nn']:.3f}" in shown.loc["K-NN", "overruling"]
    bold = [method for method in static_pool.METHODS if "<b>" in shown.loc[label(method), "routerbench"]]
    assert bold == [max(mean, key=mean.get)]


def test_every_method_has_its_row_in_table_1():
    published = read_cells(FOLDER / "published" / "table-1.csv")
    for method in static_pool.METHODS:
        for column in static_pool.PUBLISHED_COLUMNS.values():
            assert (static_pool.PUBLISHED_ROWS[method], column) in published


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gpt4_1106_preview", "gpt-4-1106-preview"),
        ("gpt35_turbo_instruct", "openai/GPT-3.5-turbo-instruct"),
        ("gemma-2b-it", "google/gemma-2b-it"),
        ("gemma-2-27b-it@together", "gemma-2-27b-it"),
        ("Meta-Llama-3-8B", "meta-llama/Llama-3-8B"),
        ("llama-2-70b-chat-hf", "meta/llama-2-70b-chat"),
        ("claude", "claude-v1"),
        ("claude-2", "claude-v2"),
        ("claude-instant-1.2", "claude-instant-v1"),
    ],
)
def test_spellings_of_one_llm_are_joined(one, other):
    assert preferences.canonical_name(one) == preferences.canonical_name(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("claude-2.1", "claude-v2"),
        ("claude-2.1_concise", "claude-2.1"),
        ("wizardlm-13b", "WizardLM/WizardLM-13B-V1.2"),
        ("Mixtral-8x7B-Instruct-v0.1_concise", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
        ("vicuna-7b", "vicuna-7b-v1.5"),
        ("gpt-3.5-turbo-0301", "gpt-3.5-turbo-1106"),
        ("Llama-2-13b-hf", "meta-llama/Llama-2-13b-chat-hf"),
        ("gemma-7b", "gemma-7b-it"),
    ],
)
def test_other_versions_and_prompt_variants_stay_apart(one, other):
    assert preferences.canonical_name(one) != preferences.canonical_name(other)


def test_of_one_llm_under_two_protocols_the_first_column_counts():
    found = preferences.shared_models(["x", "org/a", "A"], ["b", "a@host", "other/a"])
    assert found == {"org/a": "a@host"}


def _named(benchmark, name, models, unpriced=()):
    cost = benchmark.cost[:, : len(models)].copy()
    cost[:, [models.index(model) for model in unpriced]] = np.nan
    return replace(
        benchmark, name=name, models=models, quality=benchmark.quality[:, : len(models)], cost=cost, responses=None
    )


def test_the_test_pool_is_the_one_with_most_shared_priced_llms(pool):
    judged = _named(pool, "alpaca-eval", ["a", "b", "c", "d"])
    one = _named(pool, "one", ["a", "b", "c", "d"], unpriced=["a", "b"])
    two = _named(pool, "two", ["D", "z", "org/c", "b"])
    pools = {"alpaca-eval": judged, "one": one, "two": two}
    found = preferences.find_setting(pools, dict.fromkeys(pools, pool.embeddings), 0)
    assert found.judged.name == "alpaca-eval"
    assert found.test.name == "two"
    assert found.judged.models == ["b", "c", "d"]
    assert found.test.models == ["b", "org/c", "D"]
    assert found.overlap.loc["one", "unpriced"] == ["a", "b"]
    assert (found.test.cost == found.test.cost[0]).all()
    # As many shared: the pool with more prompts.
    pools["short"] = two.subset(np.arange(300))
    pools = {name: pools[name] for name in ("alpaca-eval", "short", "two")}
    z = {name: pool.embeddings[: len(each)] for name, each in pools.items()}
    assert preferences.find_setting(pools, z, 0).test.name == "two"
    shown = preferences.overlap_shown(found.overlap)
    assert shown.loc["one", "left out, no price"] == "a, b"
    assert shown.loc["two", "left out, no price"] == "none"


def test_without_shared_llms_a_pool_stands_in_for_both(pool):
    judged = _named(pool, "alpaca-eval", ["a", "b"])
    other = _named(pool, "other", ["b", "y"])
    pools = {"alpaca-eval": judged, "other": other}
    found = preferences.find_setting(pools, dict.fromkeys(pools, pool.embeddings), 0)
    assert found.judged.name == found.test.name == "other"
    assert len(found.judged) + len(found.test) == len(pool)
    assert not set(found.judged.ids) & set(found.test.ids)
    assert found.overlap.loc["other", "priced"] == found.test.models


# --- Bradley and Terry -------------------------------------------------------------------------------------------


def test_two_llms_have_the_log_odds_of_the_win_rate_between_them():
    wins = np.array([[0.0, 30.0], [10.0, 0.0]])
    a, b = preferences.bradley_terry(wins, ridge=1e-8)
    assert a - b == pytest.approx(np.log(3))
    assert a + b == pytest.approx(0, abs=1e-8)


def test_the_ridge_shrinks_two_llms_as_worked_by_hand():
    """Strengths (t, -t): the penalised log-likelihood 30 log p + 10 log(1 - p) - t^2, p = 1 / (1 + exp(-2t)), has the
    derivative 2 (30 - 40 p) - 2 t, which is zero at the maximum."""
    t = preferences.bradley_terry(np.array([[0.0, 30.0], [10.0, 0.0]]), ridge=1.0)[0]
    assert 0 < t < np.log(3) / 2
    assert 30 - 40 / (1 + np.exp(-2 * t)) == pytest.approx(t, abs=1e-6)


def test_known_strengths_are_recovered_from_simulated_comparisons():
    rng = np.random.default_rng(1)
    true = np.array([1.0, 0.4, 0.0, -0.5, -0.9])
    left, right = np.array([rng.permutation(5)[:2] for _ in range(40_000)]).T
    outcome = (rng.random(40_000) < 1 / (1 + np.exp(true[right] - true[left]))).astype(float)
    drawn = preferences.Comparisons(np.zeros(40_000, dtype=int), left, right, outcome)
    wins = preferences.win_counts(drawn, 5, np.zeros(40_000, dtype=int), 1)[0]
    assert wins.sum() == 40_000
    # About 16,000 comparisons an LLM: a standard error near 0.02.
    np.testing.assert_allclose(preferences.bradley_terry(wins, ridge=1.0), true, atol=0.06)


def test_an_llm_that_never_loses_has_a_finite_strength():
    strengths = preferences.bradley_terry(np.array([[0.0, 5.0], [0.0, 0.0]]), ridge=1.0)
    assert np.isfinite(strengths).all()
    assert strengths[0] > strengths[1]


def test_no_comparison_at_all_leaves_equal_strengths():
    assert np.array_equal(preferences.bradley_terry(np.zeros((3, 3)), ridge=1.0), np.zeros(3))


def test_a_ridge_of_zero_is_refused():
    with pytest.raises(UserError, match="ridge is 0"):
        preferences.bradley_terry(np.ones((2, 2)), ridge=0)


def test_an_llm_without_comparisons_in_a_cluster_has_its_overall_strength_there():
    wins = np.zeros((3, 3, 3))
    wins[0] = [[0, 8, 9], [2, 0, 6], [1, 4, 0]]
    wins[1, 0, 1], wins[1, 1, 0] = 1, 7
    found = preferences.cluster_strengths(wins, ridge=1.0)
    overall = preferences.bradley_terry(wins.sum(axis=0), ridge=1.0)
    np.testing.assert_allclose(found[0], preferences.bradley_terry(wins[0], 1.0))
    assert found[1, 0] < found[1, 1]
    assert found[1, 2] == pytest.approx(overall[2])
    np.testing.assert_allclose(found[2], overall)


def test_win_probability_is_against_an_llm_of_mean_strength():
    found = preferences.win_probability(np.array([[2.0, 0.0, 1.0]]))
    np.testing.assert_allclose(found, [[np.e / (1 + np.e), 1 / (1 + np.e), 0.5]])


# --- comparisons -------------------------------------------------------------------------------------------------


def test_comparisons_follow_the_preferences():
    quality = np.array([[0.9, 0.1, 0.5], [0.2, np.nan, 0.2], [np.nan, 0.3, np.nan]])
    drawn = preferences.draw_comparisons(quality, 500, np.random.default_rng(0))
    assert set(drawn.prompt) == {0, 1}
    assert (drawn.left != drawn.right).all()
    seen = {(p, a, b): o for p, a, b, o in zip(drawn.prompt, drawn.left, drawn.right, drawn.outcome, strict=True)}
    assert seen[0, 0, 1] == 1
    assert seen[0, 1, 0] == 0
    assert seen[1, 0, 2] == seen[1, 2, 0] == 0.5
    assert not any(1 in pair for prompt, *pair in seen if prompt == 1)


def test_comparisons_that_cannot_be_drawn_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="no prompt has a preference for two LLMs"):
        preferences.draw_comparisons(np.array([[1.0, np.nan]]), 10, rng)
    with pytest.raises(UserError, match=r"1 of 3 LLMs are in none of the 5 comparisons.*n_comparisons"):
        preferences.draw_comparisons(np.array([[1.0, 0.0, np.nan]]), 5, rng)


def test_wins_are_counted_by_cluster_with_ties_halved():
    drawn = preferences.Comparisons(
        prompt=np.array([0, 1, 2, 2]),
        left=np.array([0, 0, 1, 1]),
        right=np.array([1, 1, 0, 2]),
        outcome=np.array([1.0, 0.5, 1.0, 0.0]),
    )
    wins = preferences.win_counts(drawn, 3, np.array([0, 0, 1, 1]), 2)
    np.testing.assert_array_equal(wins[0], [[0, 1.5, 0], [0.5, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(wins[1], [[0, 0, 0], [1, 0, 0], [0, 1, 0]])


def test_of_comparisons_about_one_prompt_the_first_drawn_is_nearest():
    drawn = preferences.Comparisons(np.array([7, 3, 7, 5, 3, 7]), *(np.zeros(6) for _ in range(3)))
    known, order = np.array([3, 5, 7]), np.array([[2, 0, 1], [1, 2, 0]])
    found = preferences.nearest_comparisons(drawn, known, order, 4)
    np.testing.assert_array_equal(found, [[0, 2, 5, 1], [3, 0, 2, 5]])


def test_win_rates_of_the_nearest_comparisons_by_hand():
    known = preferences.Comparisons(
        prompt=np.arange(4),
        left=np.array([0, 0, 1, 2]),
        right=np.array([1, 1, 2, 0]),
        outcome=np.array([1.0, 0.0, 0.5, 1.0]),
    )
    found = preferences.neighbour_win_rates(np.array([[0, 1], [0, 2], [3, 3]]), known, np.array([0.7, 0.8, 0.9]))
    np.testing.assert_allclose(found, [[0.5, 0.5, 0.9], [1.0, 0.25, 0.5], [0.0, 0.8, 1.0]])


def test_agreement_counts_ties_half():
    known = preferences.Comparisons(
        prompt=np.arange(4), left=np.zeros(4, dtype=int), right=np.ones(4, dtype=int), outcome=np.array([1, 0, 0.5, 1])
    )
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.5, 0.5]])
    # Right, wrong, a tie called for the left, a win with equal scores.
    assert preferences.agreement(scores, known) == pytest.approx((1 + 0 + 0.5 + 0.5) / 4)


# --- preferences end to end --------------------------------------------------------------------------------------


def test_clusters_are_worth_more_than_one_score_an_llm(learned):
    """Errors differ by true cluster in this pool, so Bradley-Terry per cluster must beat one score an LLM."""
    for trial in learned:
        assert set(trial.curves) == set(preferences.METHODS)
        assert trial.curves["k-means"].area() > trial.curves["zero-router"].area() + 0.02
        assert 0 < trial.ties < 1


def test_the_order_of_the_global_strengths_is_the_order_of_the_llms(learned, setting):
    """With cost ignored ZeroRouter calls the LLM preferred most often, here the one right most often."""
    best = setting.judged.quality.mean(axis=0).argmax()
    for trial in learned:
        curve = trial.curves["zero-router"]
        assert curve.quality[0] == pytest.approx(curve.model_quality[best])


def test_preference_trials_repeat_bit_for_bit(setting, learned):
    again = preferences.run_trials(setting, PARAMS)
    for one, other in zip(learned, again, strict=True):
        assert one.picked == other.picked
        for method in preferences.METHODS:
            assert np.array_equal(one.curves[method].quality, other.curves[method].quality)
    assert learned[0].curves["k-nn"].area() != learned[1].curves["k-nn"].area()


def test_the_number_of_threads_changes_no_choice_among_equally_near_comparisons(setting):
    """Every instruction is drawn many times here, so that the last neighbour is always one of several equally near."""
    import faiss

    few = replace(
        setting, judged=setting.judged.subset(np.arange(30)), judged_embeddings=setting.judged_embeddings[:30]
    )
    drawn = preferences.draw_comparisons(few.judged.quality, 600, np.random.default_rng(0))
    overall, found = np.full(len(few.judged.models), 0.5), []
    before = faiss.omp_get_max_threads()
    for threads in (1, 2):
        faiss.omp_set_num_threads(threads)
        found.append(preferences._k_nn(few, PARAMS, drawn, drawn, overall))
    faiss.omp_set_num_threads(before)
    assert found[0][0] == found[1][0]
    assert np.array_equal(found[0][1], found[1][1])


def test_labels_of_test_prompts_are_not_looked_at(setting, learned):
    blind = replace(setting, test=replace(setting.test, quality=1 - setting.test.quality))
    again = preferences.run_trials(blind, PARAMS)
    for one, other in zip(learned, again, strict=True):
        assert one.picked == other.picked
        for method in preferences.METHODS:
            np.testing.assert_allclose(one.curves[method].cost, other.curves[method].cost)


def test_a_qnc_never_reached_is_infinite_in_the_mean(learned):
    published = read_cells(FOLDER / "published" / "figure-7.csv")
    trial = learned[0]
    curve = trial.curves["k-nn"]
    dull = replace(curve, quality=curve.quality * 0.5)
    numbers, shown = preferences.figure_7_table(
        [trial, replace(trial, curves={**trial.curves, "k-nn": dull})], published
    )
    assert numbers.loc["k-nn", "qnc"] == np.inf
    assert shown.loc["K-NN", "QNC (ours)"] == "∞"
    assert shown.loc["ZeroRouter", "QNC (paper)"] == "∞"
    assert shown.loc["UniRoute (K-means)", "Area (paper)"] == ".529"
    assert numbers.loc["k-means", "area"] == pytest.approx(trial.curves["k-means"].area())


def test_alpaca_eval_finds_its_shared_llms(real_data):
    names = [name for name in ("alpaca-eval", "routerbench", "mmlu-pro") if datasets.status(name).present]
    if "alpaca-eval" not in names or "routerbench" not in names:
        pytest.skip("needs alpaca-eval and routerbench")
    pools = {name: load(name) for name in names}
    overlap = preferences.overlap_table(pools["alpaca-eval"], {n: p for n, p in pools.items() if n != "alpaca-eval"})
    assert set(overlap.loc["routerbench", "priced"]) == {
        "claude",
        "claude-2",
        "claude-instant-1.2",
        "gpt-3.5-turbo-1106",
        "gpt4_1106_preview",
    }
