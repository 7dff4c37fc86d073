"""The page on sparsity: what each method sees of the labels, what is measured, and what a new LLM moves."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from replications.semirouter import experiment
from replications.semirouter import sparsity as page
from replications.semirouter.params import SparsityParams
from routebook import ledger
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError
from routebook.routers import BestSingle
from routebook.significance import mean_interval

LLMS = ["large", "medium", "small", "first", "second", "third"]
ANCHORS = ["large", "small"]
NEW = ["medium", "first", "second", "third"]
SMALL = {"n_seeds": 2, "n_clusters": 4, "epochs": 1, "backbone_epochs": 1, "anchors": ANCHORS, "new_labels": [5, 20]}


def made_up(n: int = 90, quality: np.ndarray | None = None) -> RoutingBenchmark:
    """Three tasks told apart by the embedding, each led by one of the three LLMs that are named in order."""
    rng = np.random.default_rng(0)
    kind = np.arange(n) % 3
    if quality is None:
        chance = np.column_stack([np.full(n, 0.9), np.full(n, 0.7), np.full(n, 0.3), 0.2 + 0.7 * np.eye(3)[kind]])
        quality = (rng.random((n, len(LLMS))) < chance).astype(float)
    return RoutingBenchmark(
        name="made-up",
        prompts=[f"question {i}" for i in range(n)],
        tasks=np.array(["a", "b", "c"])[kind],
        models=LLMS[: quality.shape[1]],
        quality=quality,
        cost=np.tile(np.arange(quality.shape[1], 0, -1.0), (n, 1)),
        cost_unit="billion parameters",
        origin="made",
        embeddings=np.column_stack([np.eye(3)[kind], rng.normal(size=(n, 5))]),
    )


def small_params(**given) -> SparsityParams:
    return SparsityParams.build({**SMALL, **given})


@pytest.fixture(scope="module")
def pool() -> page.Pool:
    """The made-up pool, trained as a further pool of the page."""
    params, benchmark = small_params(), made_up()
    settings = experiment.settings_of(benchmark, params)
    return page.Pool("made-up", benchmark, settings, page.train(params, settings, page.grid_of(params, first=False)))


# --- what is trained -------------------------------------------------------------------------------------------------


def test_slow_methods_are_trained_at_fewer_shares_and_a_further_pool_has_fewer():
    params = small_params()
    first, further = (page.grid_of(params, first=first) for first in (True, False))
    assert list(first) == [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    assert list(further) == [0.01, 0.1, 1.0]
    at = {method: [share for share, methods in first.items() if method in methods] for method in page.RIVALS}
    assert at["semirouter-att"] == at["router-dc-ss"] == [0.01, 0.1, 0.5]
    assert at["zooter"] == list(first)
    assert [share for share, methods in further.items() if "semirouter-mlp" in methods] == [0.1]
    assert all(page.OURS in methods for methods in (*first.values(), *further.values()))
    assert not at["bert-full"], "the full-data row has no share"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"slow_shares": [0.01, 0.1]}, "slow_shares lacks 0.5"),
        ({"further_shares": [0.5]}, "further_shares lacks 0.1"),
        ({"slow_further_shares": [0.1, 0.2]}, "slow_further_shares has 0.2, which further_shares lacks"),
        ({"pool_sizes": [20]}, "pool_sizes lacks 7"),
    ],
)
def test_a_grid_without_what_is_claimed_is_refused(given, said):
    with pytest.raises(UserError, match=said):
        SparsityParams.build(given)


def test_every_method_of_the_grid_is_trained_once_a_trial(pool):
    names = {name for name, _ in pool.fitted}
    assert {"random", "oracle", "bert-full/1", "semirouter-att/0.1", "k-nn/0.01"} <= names
    assert {"semirouter-att/0.5", "semirouter-emb/0.2"}.isdisjoint(names)
    assert {seed for _, seed in pool.fitted} == {0, 1}
    setting = pool.settings[0]
    n = len(setting.full)
    for share, expected in ((0.01, 1), (0.1, round(0.1 * n)), (1.0, n)):
        router = pool.fitted[page.named("lora-retriever", share), 0]
        assert router.counts_.sum(axis=0).tolist() == [n, expected, n, expected, expected, expected]


def test_clusters_with_other_labels_are_those_of_a_router_fitted_on_them(pool):
    for method in ("lora-retriever", "k-means"):
        for share in (0.01, 0.1):
            setting = pool.settings[1].thinned(share=share)
            router = pool.fitted[page.named(method, share), 1]
            anew = type(router)(router.n_clusters, seed=1).fit(setting.sparse, setting.train_embeddings)
            expected = anew.predict_quality(setting.test_embeddings)
            np.testing.assert_array_equal(router.predict_quality(setting.test_embeddings), expected)
            assert router.levels_ == anew.levels_


def test_k_nn_takes_as_many_neighbours_as_there_are_labels(pool):
    assert pool.fitted["k-nn/0.01", 0].n_neighbours == 1
    assert pool.fitted["k-nn/1", 0].n_neighbours == page.NEIGHBOURS


# --- what is measured ------------------------------------------------------------------------------------------------


class Stub:
    """A router that says what it is told to."""

    uses_tasks = False

    def __init__(self, quality):
        self.models_, self.quality = LLMS, quality

    def predict_quality(self, embeddings):
        return self.quality

    def predict_labels(self, embeddings):
        return np.round(self.quality)


def test_metrics_are_means_over_datasets_of_all_llms_and_of_the_sparse_ones(pool):
    setting = pool.settings[0]
    test = setting.test
    estimate = np.random.default_rng(1).random(test.quality.shape)
    only = replace(pool, settings=[setting], fitted={("semirouter-emb/0.1", 0): Stub(estimate)})
    found = page.measure(only).iloc[0]
    new = [LLMS.index(llm) for llm in NEW]
    right, rows = np.round(estimate) == test.quality, np.arange(len(test))
    expected = {
        "label-accuracy": right.mean(axis=1),
        "label-accuracy-sparse": right[:, new].mean(axis=1),
        "routed-quality": test.quality[rows, estimate.argmax(axis=1)],
        "routed-quality-sparse": test.quality[rows, np.array(new)[estimate[:, new].argmax(axis=1)]],
    }
    for metric, values in expected.items():
        macro = 100 * np.mean([values[test.tasks == task].mean() for task in "abc"])
        assert found[metric] == pytest.approx(macro), metric


def test_the_best_single_llm_of_the_sparse_ones_is_one_of_them(pool):
    for (name, seed), router in page._best_of_sparse(pool).items():
        thin = pool.settings[seed].thinned(share=float(name.partition("/")[2])).sparse
        assert router.models_ == NEW
        alone = BestSingle().fit(thin.subset(models=NEW), pool.settings[seed].train_embeddings)
        shown = np.zeros((1, 8))
        np.testing.assert_array_equal(router.predict_quality(shown), alone.predict_quality(shown))
    frame = page.measure(pool).set_index(["method", "seed"])
    assert frame["label-accuracy"].xs("best-single/0.1").isna().all()
    assert frame["routed-quality-sparse"].xs("best-single/0.1").notna().all()


def test_asking_once_changes_no_metric(pool):
    setting = pool.settings[0]
    for name in ("semirouter-emb/0.1", "zooter/0.1", "dataset-oracle/0.1", "oracle", "random", "bert-full/1"):
        router = pool.fitted[name, 0]
        answers = page.Answers(router, setting)
        for shown in (setting, setting.routed_among(NEW)):
            pd.testing.assert_frame_equal(experiment.outcome(answers, shown), experiment.outcome(router, shown))


def test_k_nn_names_the_nearest_level(pool):
    setting, router = pool.settings[0], pool.fitted["k-nn/0.1", 0]
    named = page.Answers(router, setting).predict_labels(setting.test_embeddings)
    estimate = router.predict_quality(setting.test_embeddings)
    np.testing.assert_array_equal(named, (estimate >= 0.5).astype(float))


def frame_of(values: dict[str, list[float]]) -> pd.DataFrame:
    """One metric's values, one a seed, as `measure` returns them; the same for all metrics."""
    rows = [
        {"method": name, "seed": seed, "dataset": "macro"} | dict.fromkeys(page.METRICS, value)
        for name, several in values.items()
        for seed, value in enumerate(several)
    ]
    return pd.DataFrame(rows)


def test_leads_are_paired_over_trials_and_full_data_stands_at_every_share():
    frame = frame_of(
        {
            "semirouter-emb/0.01": [50.0, 61.0],
            "semirouter-emb/0.1": [70.0, 72.0],
            "bert-full/1": [80.0, 81.0],
            "zooter/0.1": [60.0, 61.0],
            "best-single/0.1": [np.nan, np.nan],
        }
    )
    assert page.lead(frame, "zooter", 0.1, "label-accuracy").estimate == pytest.approx(10.5)
    assert page.lead(frame, "zooter", 0.01, "label-accuracy") is None
    assert page.lead(frame, "best-single", 0.1, "label-accuracy") is None
    assert page.lead(frame, "bert-full", 0.01, "label-accuracy").estimate == pytest.approx(-25.0)
    expected = mean_interval(np.array([20.0, 11.0]))
    found = page.gain(frame, "routed-quality")
    assert (found.estimate, found.low, found.high) == (expected.estimate, expected.low, expected.high)
    assert "on pool +10.50 points" in page.said_lead({"pool": frame}, "zooter", "label-accuracy")
    assert "on pool +15.50 points" in page.said_gain({"pool": frame}, "label-accuracy")


def test_the_page_records_every_curve_that_the_ledger_reads(root):
    read = {
        key
        for _, claim in ledger.load(root / "replications/semirouter/ledger.yaml").claims
        for key in ([claim.reads] if isinstance(claim.reads, str) else claim.reads)
        if key.startswith(("sparsity/routerbench/", "sparsity/routerdc/"))
    }
    assert len(read) > 40
    recorded, params, rng = set(), SparsityParams.build({}), np.random.default_rng(0)
    for name, first in (("routerbench", True), ("routerdc", False)):
        grid = page.grid_of(params, first=first)
        names = [page.named(method, share) for share, methods in grid.items() for method in methods]
        frame = frame_of({some: rng.random(3).tolist() for some in [*names, "bert-full/1"]})
        records = list(page.curve_records(name, frame))
        assert all(record["unit"] == "%" for record in records)
        recorded |= {f"sparsity/{record['id']}" for record in records}
    assert read <= recorded


def test_told_apart_is_counted_for_every_rival_on_the_same_labels():
    below, same, above = [1.0, 1.1, 1.0], [4.0, 6.0, 5.0], [9.0, 9.1, 9.0]
    frame = frame_of(
        {
            "semirouter-emb/0.1": [5.0, 5.1, 5.0],
            "semirouter-mlp/0.1": below,
            "zooter/0.1": same,
            "k-nn/0.1": above,
            "bert-full/1": above,
        }
    )
    row = page.tally({"pool": frame}).loc["pool: routed quality, sparse LLMs"]
    assert row.to_dict() == {"EMB above": 1, "EMB below": 1, "not told apart": 1}


def test_enough_is_where_all_larger_shares_are_nearly_as_good():
    values = {0.01: 58.0, 0.1: 59.5, 0.2: 58.9, 0.5: 59.0, 1.0: 60.0}
    frame = frame_of({f"semirouter-emb/{share:g}": [value, value] for share, value in values.items()})
    assert page.enough(frame, "semirouter-emb", "label-accuracy") == 0.5, "the step back at 20 % counts"
    more = frame_of({"semirouter-emb/0.01": [70.0], "semirouter-emb/1": [60.0], "zooter/0.1": [50.0]})
    assert page.enough(more, "semirouter-emb", "label-accuracy") == 0.01
    assert page.enough(more, "zooter", "label-accuracy") is None, "never trained on all labels"
    none = frame_of({"best-single/0.1": [np.nan], "best-single/1": [np.nan]})
    assert page.enough(none, "best-single", "label-accuracy") is None, "it names no labels"
    numbers, shown = page.enough_table({"pool": frame})
    assert numbers.loc["pool/semirouter-emb", "routed-quality"] == 0.5
    assert list(shown.index) == [("pool", "SemiRouter (EMB)")]
    assert shown.iloc[0, 0] == "50%<br><small>of 60.00</small>"


def test_curves_run_over_the_shares_of_each_method(pool):
    frame = page.measure(pool)
    (panel,) = page.curve_panels({"made-up": frame}, ["label-accuracy"])
    assert panel.curves["semirouter-emb"][0].tolist() == [1, 10, 100]
    assert panel.curves["semirouter-att"][0].tolist() == [10]
    x, y = panel.curves["bert-full"]
    assert x.tolist() == [1, 100]
    assert y[0] == y[1] == pytest.approx(frame.loc[frame["method"] == "bert-full/1", "label-accuracy"].mean())
    assert "best-single" not in panel.curves, "it names no labels"
    numbers, shown = page.curve_table({"made-up": frame}, ["label-accuracy", "routed-quality"])
    assert numbers.loc["made-up/semirouter-emb", "label-accuracy/0.1"] == pytest.approx(
        frame.loc[frame["method"] == "semirouter-emb/0.1", "label-accuracy"].mean()
    )
    assert shown.loc[("made-up", "RadialRouter (ATT)"), ("label accuracy, all LLMs", "1%")] == page.DASH
    assert "small" in shown.loc[("made-up", "ZOOTER"), ("routed quality, all LLMs", "1%")]


def test_two_labels_a_query_are_a_share_of_the_sparse_llms_labels(pool):
    assert page.share_of(small_params(), pool.settings[0]) == 0.5
    assert page.share_of(small_params(per_query=9), pool.settings[0]) == 1
    assert page.said_share({"made-up": pool}, small_params(per_query=1)) == "25% on made-up"
    table = page.pool_table({"made-up": pool}, small_params())
    assert table.loc["2 labels a query are a share of", "made-up"] == "50%"
    assert table.loc["fewest labels of a sparse LLM", "made-up"] == "1 (1%)"


# --- soft scores -----------------------------------------------------------------------------------------------------


def soft_benchmark() -> RoutingBenchmark:
    """Two LLMs whose scores are nearly equal where their levels are equal: the cheaper one is the worse."""
    pattern = np.array([[0.9, 0.8], [0.2, 0.6], [1.0, 0.0]])
    return replace(made_up(quality=np.tile(pattern, (20, 1)), n=60), quality_kind="soft")


def test_what_rounding_does_to_scores_is_counted():
    numbers, shown = page.soft_table(soft_benchmark())
    # Task a: 0.9 and 0.8 are both good, and the cheaper LLM, the second, is chosen.
    assert numbers.loc["a"].tolist() == pytest.approx([1.0, 0.15, 0.15, 0.9, 0.8])
    # Task b: 0.2 is bad, 0.6 is fair.
    assert numbers.loc["b"].tolist() == pytest.approx([1.0, 0.15, -0.15, 0.6, 0.6])
    assert numbers.loc["c"].tolist() == pytest.approx([0.0, 0.0, 0.0, 1.0, 1.0])
    assert numbers.loc["all", "soft"] == pytest.approx(2 / 3)
    assert shown.loc["b", "mean level − mean score"] == "-0.150"
    assert page.rounded(soft_benchmark()).quality[:3].tolist() == [[1, 1], [0, 0.5], [1, 0]]


def test_the_first_pool_with_soft_scores_is_looked_at(pool):
    soft = replace(pool, name="soft", benchmark=soft_benchmark())
    assert page.soft_pool({"made-up": pool}) is None
    assert page.soft_pool({"made-up": pool, "soft": soft}) is soft


def test_means_in_the_middle_are_named_fair():
    """Half of the answers are right and half wrong, whatever the prompt: no answer is fair, and every mean is."""
    quality = np.tile([[0.0, 1.0, 0.0, 0.5], [1.0, 0.0, 1.0, 0.0]], (60, 1))
    benchmark = replace(made_up(120, quality), quality_kind="soft")
    params = small_params(anchors=["large", "small"], n_clusters=2)
    settings = experiment.settings_of(benchmark, params)
    fitted = page.train(params, settings, page.grid_of(params, first=False))
    numbers, shown = page.fair_table(page.Pool("soft", benchmark, settings, fitted))
    fair = [(setting.test.quality == 0.5).mean() for setting in settings]
    assert numbers.loc["labels", "fair"] == pytest.approx(np.mean(fair))
    names = [page.Answers(fitted["zooter/0.1", s.seed], s).predict_labels(s.test_embeddings).ravel() for s in settings]
    assert numbers.loc["zooter", "fair"] == pytest.approx(np.mean([(some == 0.5).mean() for some in names]))
    assert "best-single" not in numbers.index
    assert "the answers themselves" in shown.columns


def test_an_oracle_that_is_told_levels_loses_what_ties_hide():
    benchmark = soft_benchmark()
    settings = [
        experiment.Setting(seed, ("large",), benchmark, benchmark, benchmark, *[benchmark.embeddings] * 2)
        for seed in (0, 1)
    ]
    clusters = {("lora-retriever/1", s): experiment.baselines.LoraRetriever(3, seed=s) for s in (0, 1)}
    for router in clusters.values():
        router.fit(benchmark, benchmark.embeddings)
    found = page.rounding_cost(page.Pool("soft", benchmark, settings, clusters))
    np.testing.assert_allclose(found["oracle"]["scores"], 100 * np.mean([0.9, 0.6, 1.0]))
    np.testing.assert_allclose(found["oracle"]["levels"], 100 * np.mean([0.8, 0.6, 1.0]))
    records = {record["id"]: record["value"] for record in page.rounding_records("soft", found)}
    assert records["soft/soft/oracle/levels-minus-scores/routed-quality"] == pytest.approx(-10 / 3)
    assert "-3.33" in page.rounding_table(found).loc["Oracle", "levels − scores"]


# --- LLMs come and go ------------------------------------------------------------------------------------------------


def test_no_prediction_for_another_llm_moves(pool):
    frame = page.isolation(pool)
    assert len(frame) == 3 * 2 * 3, "variants, trials and steps"
    assert (frame["change"] == 0).all()
    assert (frame["moved"] == 0).all()
    n = len(pool.settings[0].test)
    assert frame.loc[frame["step"] == "removed", "compared"].tolist() == [n * 5 * 2] * 6
    assert pool.fitted["semirouter-emb/0.1", 0].models_ == LLMS, "the routers of the page are left as they are"
    assert page.isolation_table(frame)["largest change"].tolist() == ["0"] * 9


def test_a_move_would_be_seen(pool):
    router = copy.deepcopy(pool.fitted["semirouter-emb/0.1", 0])

    def jolt():
        router.adapter_.classify.bias.add_(torch.tensor([0.0, 0.1]))

    found = page._change(router, "third", jolt, pool.settings[0])
    assert found["change"] > 1e-3
    # The three sparse LLMs that are compared, in two classes; the anchors are the backbone's.
    assert found["moved"] == len(pool.settings[0].test) * 3 * 2


@pytest.fixture(scope="module")
def joined(pool) -> pd.DataFrame:
    return page.joins(small_params(new_labels=[5, 20, 10_000]), {"made-up": pool})


def test_the_best_of_the_sparse_llms_joins(pool, joined):
    assert page.newcomer_of(pool.settings[0]) == "medium"
    assert set(joined["llm"]) == {"medium"}
    assert page.said_joined(joined) == "medium on made-up"
    n = len(pool.settings[0].full)
    assert sorted(set(joined["n"])) == [0, 5, 20, n], "no more labels than training prompts"
    assert len(joined) == 2 * (1 + 3 * 4)


def test_only_training_shared_layers_moves_the_others(joined):
    moved = joined.groupby("way")["moved"].agg(["min", "max"])
    for way in (page.WITHOUT, page.ADDED, page.CLUSTERED):
        assert moved.loc[way].tolist() == [0, 0], way
    for way in (page.ADAPTER, page.RETRAINED):
        assert moved.loc[way, "min"] > 0, way
    still = joined[joined["way"].isin([page.ADDED, page.CLUSTERED])]
    assert (still["others-change"] == 0).all()


def test_a_column_joins_with_the_labels_it_brings_and_no_other():
    full = made_up(12)
    thin = full.subset(models=["large", "small", "first"])
    hidden = thin.quality.copy()
    hidden[3:, 2] = np.nan
    found = page._with_column(replace(thin, quality=hidden), full.subset(models=LLMS[:4]), "medium", np.array([7, 2]))
    assert found.models == LLMS[:4]
    np.testing.assert_array_equal(found.quality[:, [0, 2, 3]], hidden)
    assert np.flatnonzero(~np.isnan(found.quality[:, 1])).tolist() == [2, 7]
    np.testing.assert_array_equal(found.quality[[2, 7], 1], full.quality[[2, 7], 1])


def test_what_joining_is_compared_with(joined):
    records = {record["id"]: record["value"] for record in page.join_records(joined)}
    parts = [records[f"new-llm/made-up/{way}/20/label-accuracy"] for way in (page.ADDED, page.RETRAINED)]
    difference = records["new-llm/made-up/added-minus-retrained/20/label-accuracy"]
    assert difference == pytest.approx(parts[0] - parts[1])
    assert not any(key.endswith("without/0/label-accuracy") for key in records)
    panels = page.join_panels(joined)
    assert [panel.title for panel in panels] == [f"made-up: {title}" for title in page.JOINED.values()]
    assert [page.WITHOUT in panel.curves for panel in panels] == [False, True, False]
    numbers, shown = page.ways_table(joined)
    assert numbers.loc["made-up/added", "moved"] == 0
    assert len(shown) == 4
    assert page.said_forgotten(joined, page.ADDED).count("+0.00 points") == 3
    assert page.said_times(joined).count(" s ") == 3
    assert page.said_learned(joined, page.ADDED).startswith("on made-up ")
    assert f"{parts[0]:.1f} % from 20 labels" in page.said_learned(joined, page.ADDED)


# --- speed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_llms", [3, 6, 9])
def test_a_pool_of_another_size_keeps_its_anchors(pool, n_llms):
    router = page.resized(pool.fitted["semirouter-emb/0.1", 0], n_llms, pool.settings[0])
    assert len(router.models_) == n_llms
    assert set(ANCHORS) < set(router.models_)
    assert router.predict_quality(pool.settings[0].test_embeddings[:2]).shape == (2, n_llms)
    assert len(pool.fitted["semirouter-emb/0.1", 0].models_) == 6


def test_a_pool_of_anchors_alone_is_refused(pool):
    with pytest.raises(UserError, match=r"pool_sizes has 2, but there are 2 anchors.*sizes from 3 on"):
        page.resized(pool.fitted["semirouter-emb/0.1", 0], 2, pool.settings[0])


def test_every_size_is_timed_in_every_way(pool):
    frame = page.measure_speed(pool, small_params(pool_sizes=[7, 3]))
    assert frame.groupby("n_llms").size().to_dict() == {3: page.N_TIMED, 7: page.N_TIMED}
    assert (frame[list(page.SPEEDS)] >= 0).all(axis=None)


def test_times_are_compared_query_by_query():
    slow = np.array([7.0, 9.0, 6.0, 8.0, 10.0])
    times = pd.DataFrame({"n_llms": 7, "query": range(5), "uncached": slow, "cached": 2.0, "known": 1.0})
    records = {record["id"]: record for record in page.speed_records(times)}
    expected = mean_interval(slow - 2)
    found = records["speed/7/uncached-minus-cached"]
    assert (found["value"], found["low"], found["unit"]) == (6.0, pytest.approx(expected.low), "ms")
    assert records["speed/7/cached"]["value"] == 2
    few = {record["id"]: record for record in page.speed_records(times.head(4))}
    assert few["speed/7/uncached"]["value"] == 7.5
    assert few["speed/7/uncached"]["low"] is None, "four queries bound nothing"
    assert page.speed_table(times).loc[7, "times as long without a cache"] == "4.0"
    assert page.said_cache(times).startswith("2.0 ms in place of 8 ms among 7 LLMs")


# --- exercise --------------------------------------------------------------------------------------------------------


def test_the_two_best_sparse_llms(pool):
    setting = pool.settings[0]
    means = sorted(setting.full.quality.mean(axis=0)[[LLMS.index(llm) for llm in NEW]])
    assert page.runners_up(setting) == pytest.approx((means[-1], means[-1] - means[-2]))
