"""SemiRouter's experiment: who sees which labels, what is measured, and the tables made of it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from replications.semirouter import baselines, cells, choices, experiment, tables
from replications.semirouter.backbone import Backbone
from replications.semirouter.experiment import MACRO, Setting
from replications.semirouter.params import ALPHAS, LAMS, EnergyParams, SemiRouterParams, SparsityParams
from replications.semirouter.semi_router import QUICK, SemiRouter
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError
from routebook.routers import BaseRouter

ANCHORS = ("a", "b")
MODELS = ("a", "b", "c", "d", "e")


def made_up(n=120, models=MODELS, seed=0, **changes) -> RoutingBenchmark:
    rng = np.random.default_rng(seed)
    given = {
        "name": "toy",
        "prompts": [f"prompt {i}" for i in range(n)],
        "tasks": np.array(["x", "y", "z"])[np.arange(n) % 3],
        "models": models,
        "quality": (rng.random((n, len(models))) < np.linspace(0.9, 0.3, len(models))).astype(float),
        "cost": np.tile(np.linspace(1.0, 0.2, len(models)), (n, 1)),
        "cost_unit": "USD per prompt",
        "origin": "simulated",
    }
    return RoutingBenchmark(**(given | changes))


def parameters(**changes) -> SemiRouterParams:
    given = {
        "dataset": "tinypool",
        "n_seeds": 2,
        "epochs": 2,
        "backbone_epochs": 2,
        "n_clusters": 5,
        "max_prompts": 300,
    }
    return SemiRouterParams.build({**given, "anchors": list(ANCHORS), **changes})


def embeddings(n=120, seed=1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)


@pytest.fixture
def settings() -> list[Setting]:
    return experiment.settings_of(made_up(), parameters(), embeddings())


class Told(BaseRouter):
    """A router that says what it is told."""

    def __init__(self, quality, labels=None, models=MODELS):
        self.quality, self.models_ = quality, list(models)
        if labels is not None:
            self.predict_labels = lambda _: labels

    def predict_quality(self, embeddings):
        return self.quality


# --- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SemiRouterParams, EnergyParams, SparsityParams])
def test_profiles_are_the_quick_settings_and_the_papers(kind):
    quick, paper = kind(), kind.build({}, "paper")
    assert (quick.profile, paper.profile) == ("quick", "paper")
    assert paper.n_seeds == 10
    router = SemiRouter(anchors=["a"])
    for name in ("epochs", "lr", "batch_size", "n_random", "backbone_epochs", "backbone_lr"):
        assert getattr(quick, name) == QUICK[name]
        assert getattr(paper, name) == getattr(router, name)
    for name, value in paper.widths.items():
        assert value == getattr(router, name)
        assert quick.widths[name] == QUICK[name]
    assert {*quick.widths, "epochs", "lr", "batch_size", "n_random", "backbone_epochs", "backbone_lr"} == set(QUICK)


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (SemiRouterParams, {"alphas": [0.1, 0.3]}, "alphas lacks 0.2, 0.4, 0.5"),
        (SemiRouterParams, {"lams": [0.1, 0.2, 0.3, 0.4, 0.5, 0.9]}, "lams lacks 0"),
        (SparsityParams, {"shares": [0.5, 1.0]}, "shares lacks 0.01"),
        (SparsityParams, {"shares": [0.0]}, "shares: found [0.0]"),
        (SemiRouterParams, {"lam": 1.5}, "lam: found 1.5"),
        (SemiRouterParams, {"margin": 0.0}, "margin: found 0.0"),
        (SemiRouterParams, {"anchors": []}, "anchors: found []"),
        (SemiRouterParams, {"per_query": 0}, "per_query: found 0"),
        (SemiRouterParams, {"variant": "embb"}, "did you mean 'emb'"),
    ],
)
def test_wrong_parameters_are_refused(kind, given, said):
    with pytest.raises(UserError) as refused:
        kind.build(given)
    assert said in str(refused.value)


def test_what_a_page_sets_reaches_every_router(settings):
    params = parameters(margin=0.2, lam=0.25, sizes="paper", n_clusters=7)
    emb = experiment.router_for(params, "semirouter-emb", settings[1])
    assert (emb.margin, emb.lam, emb.epochs, emb.hidden, emb.seed) == (0.2, 0.25, 2, (512, 256), 1)
    assert experiment.router_for(params, "router-dc-ss", settings[0]).loss == "sample-sample"
    assert experiment.router_for(params, "lora-retriever", settings[0]).n_clusters == 7
    full = experiment.router_for(params, "bert-full", settings[0])
    assert (full.width, full.epochs) == (768, 2)
    assert experiment.router_for(params, "semirouter-mlp", settings[0], margin=0.5).margin == 0.5


# --- data ------------------------------------------------------------------------------------------------------------


def test_a_trial_splits_70_to_30_and_keeps_a_question_whole():
    pool = made_up(ids=np.arange(120) // 2)
    for seed in range(3):
        train, test = experiment.split_rows(pool, seed)
        assert sorted([*train, *test]) == list(range(120))
        assert len(test) == 36
        assert not set(pool.ids[train]) & set(pool.ids[test])
    assert not np.array_equal(experiment.split_rows(pool, 0)[1], experiment.split_rows(pool, 1)[1])


def test_anchors_keep_their_labels_and_a_query_has_two_others(settings):
    for setting in settings:
        seen = ~np.isnan(setting.sparse.quality)
        assert seen[:, :2].all()
        assert (seen[:, 2:].sum(axis=1) == 2).all()
        assert np.array_equal(setting.sparse.quality[seen], setting.full.quality[seen])
        assert not np.isnan(setting.full.quality).any()
    first, second = settings
    assert not np.array_equal(first.test.prompts, second.test.prompts)


def test_anchors_are_the_papers_where_they_are_in_the_pool():
    names = [*experiment.ANCHORS, "other"]
    assert experiment.anchors_of(made_up(models=names), parameters(anchors=None)) == experiment.ANCHORS
    chosen = experiment.anchors_of(made_up(), parameters(anchors=None))
    assert set(chosen) == {"a", "c", "e"}, "the strongest, the middle and the weakest"
    with pytest.raises(UserError, match="'aa' is not in the pool"):
        experiment.anchors_of(made_up(), parameters(anchors=["aa"]))


def test_small_pools_and_costs_without_dollars_are_refused():
    with pytest.raises(UserError, match="raise max_prompts or lower n_clusters"):
        experiment.settings_of(made_up(), parameters(n_clusters=100), embeddings())
    with pytest.raises(UserError, match="costs are in FLOPs"):
        experiment.settings_of(made_up(cost_unit="FLOPs"), parameters(rule="score"), embeddings())


def test_settings_can_be_changed_and_stay_consistent(settings):
    setting = settings[0]
    few = setting.with_models(["a", "c", "d"])
    assert few.anchors == ("a",)
    assert few.sparse.models == few.full.models == few.test.models == ["a", "c", "d"]
    assert np.array_equal(few.sparse.quality, setting.sparse.quality[:, [0, 2, 3]], equal_nan=True)
    half = setting.thinned(share=0.5)
    assert ((~np.isnan(half.sparse.quality[:, 2:])).sum(axis=0) == len(half.full) // 2).all()
    assert setting.routed_among(["b", "e"]).test.models == ["b", "e"]
    with pytest.raises(UserError, match="with_models"):
        setting.with_models(["c", "d"])
    with pytest.raises(UserError, match="with_models"):
        setting.with_models(["a", "b"])


def test_a_smaller_pool_of_the_same_prompts_is_drawn_as_if_alone(settings):
    models = ["a", "b", "c", "e"]
    derived = experiment.among(settings, models, parameters())
    alone = experiment.settings_of(made_up().subset(models=models), parameters(), embeddings())
    for found, expected in zip(derived, alone, strict=True):
        assert found.anchors == expected.anchors
        assert found.test.prompts == expected.test.prompts
        assert np.array_equal(found.sparse.quality, expected.sparse.quality, equal_nan=True)
    assert experiment.among(settings, list(MODELS), parameters()) == settings


def test_routerbench_is_cut_to_the_papers_datasets_and_llms(real_data):
    params = SemiRouterParams.build({"dataset": "routerbench"})
    ten = experiment.load_pool(params, llms=cells.LLMS)
    seven, eight = experiment.load_pool(params), experiment.load_pool(params, llms=experiment.EIGHT)
    assert (len(ten.models), len(eight.models), len(seven.models)) == (10, 8, 7)
    assert set(eight.models) - set(seven.models) == {"claude-instant-v1"}
    assert ten.prompts == eight.prompts == seven.prompts
    assert not np.isnan(ten.quality).any()
    assert set(ten.tasks) <= {*cells.SIX.values(), *cells.SMALL.values()}
    assert "mt-bench" not in ten.absent
    assert experiment.anchors_of(seven, params) == experiment.ANCHORS


# --- training --------------------------------------------------------------------------------------------------------


def test_only_full_data_methods_and_the_oracle_see_hidden_labels(settings):
    """What a method learns does not change with the labels it must not see."""
    params, setting = parameters(n_seeds=1), settings[0]
    hidden = np.isnan(setting.sparse.quality)
    other = setting.full.quality.copy()
    other[hidden] = 1 - other[hidden]
    changed = replace(setting, full=replace(setting.full, quality=other), _backbones={})
    for method in experiment.METHODS:
        before = experiment.predict(experiment.train(params, [setting], [method])[method, 0], setting)
        after = experiment.predict(experiment.train(params, [changed], [method])[method, 0], changed)
        assert np.array_equal(before, after, equal_nan=True) == (method not in baselines.FULL_DATA), method


def test_variants_share_one_backbone_and_it_is_the_one_fit_would_train(settings, monkeypatch):
    fits = []
    plain = Backbone.fit
    monkeypatch.setattr(Backbone, "fit", lambda self, *data: (fits.append(1), plain(self, *data))[1])
    params, setting = parameters(n_seeds=1), settings[0]
    methods = ("semirouter-emb", "semirouter-mlp", "router-dc-ss")
    fitted = experiment.train(params, [setting, setting.thinned(share=0.5)], methods)
    assert len(fits) == 1, "other labels of the other LLMs leave the anchors' backbone as it is"
    router = fitted["semirouter-emb", 0]
    own = baselines.make("semirouter-emb", ANCHORS, quick=False, **experiment.changes_of(params, "semirouter-emb"))
    own.fit(setting.thinned(share=0.5).sparse, setting.train_embeddings)
    assert np.array_equal(own.predict_quality(setting.test_embeddings), experiment.predict(router, setting))


def test_variants_that_change_nothing_are_not_trained_again(settings):
    params = parameters()
    fitted = experiment.train(params, settings, ["semirouter-emb"])
    trained = experiment.train_variants(params, settings, {"same": {"lam": 0.5}, "other": {"lam": 0.1}}, fitted)
    for seed in (0, 1):
        assert trained["same", seed] is fitted["semirouter-emb", seed]
        assert trained["other", seed].lam == 0.1
    assert len(trained) == 4


def test_worker_processes_train_the_same_routers(settings, monkeypatch):
    params = parameters()
    methods = ("semirouter-emb", "lora-retriever", "bert-full")
    alone = experiment.evaluate(experiment.train(params, settings, methods), settings)
    monkeypatch.setattr(experiment, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(experiment, "processes", lambda: 2)
    shared = experiment.evaluate(experiment.train(params, settings, methods), settings)
    pd.testing.assert_frame_equal(alone, shared, check_exact=True)


# --- what is measured ------------------------------------------------------------------------------------------------


def test_outcome_is_the_definition(settings):
    """Label accuracy over pairs, quality and cost of the LLM chosen, by dataset and macro-averaged, in a plain loop."""
    setting, rng = settings[0], np.random.default_rng(5)
    test = setting.test
    quality_hat = rng.random(test.quality.shape)
    labels = (rng.random(test.quality.shape) < 0.5).astype(float)
    found = experiment.outcome(Told(quality_hat, labels), setting).set_index("dataset")
    expected = {}
    for dataset in ("x", "y", "z"):
        right, pairs, quality, cost, n = 0, 0, 0.0, 0.0, 0
        for row in range(len(test)):
            if test.tasks[row] != dataset:
                continue
            best = max(range(5), key=lambda m: quality_hat[row, m])
            quality, cost, n = quality + test.quality[row, best], cost + test.cost[row, best], n + 1
            for m in range(5):
                right, pairs = right + (labels[row, m] == test.quality[row, m]), pairs + 1
        expected[dataset] = (n, 100 * right / pairs, 100 * quality / n, cost / n, cost)
    for dataset, values in expected.items():
        assert found.loc[dataset].tolist() == pytest.approx(values)
    macro = np.array(list(expected.values()))
    assert found.loc[MACRO].tolist()[1:4] == pytest.approx(macro[:, 1:4].mean(axis=0))
    assert found.loc[MACRO, "total-cost"] == pytest.approx(test.cost[np.arange(len(test)), quality_hat.argmax(1)].sum())
    assert found.loc[MACRO, "n"] == len(test)


def chosen(router, setting):
    return experiment.choose(experiment.predict(router, setting), setting)


def test_of_equals_the_cheaper_llm_is_chosen_and_a_score_pays_for_its_quality(settings):
    setting = settings[0]
    even = Told(np.full(setting.test.quality.shape, 0.5))
    assert (chosen(even, setting) == 4).all()
    assert (chosen(even, setting.routed_among(["b", "a"])) == 0).all(), "b costs less than a"
    # 0.613 (0.9 - 0.5) does not pay for 0.8 dollars more, and does for 0.2.
    sure = Told(np.tile([0.9, 0.5, 0.5, 0.5, 0.5], (len(setting.test), 1)))
    assert (chosen(sure, setting) == 0).all()
    scored = replace(setting, rule="score")
    assert (chosen(sure, scored) == 4).all()
    assert (chosen(sure, scored.routed_among(["a", "b"])) == 0).all()


def test_the_most_frequent_label_is_counted_by_dataset():
    pool = made_up(quality=np.tile([[1, 0, 1], [1, 0, 0], [0, 1, np.nan]], (2, 1)), n=6, models=("a", "b", "c"),
                   tasks=np.array(["x", "x", "x", "x", "x", "y"]), cost=np.ones((6, 3)))  # fmt: skip
    router = experiment.DatasetLabels().fit(pool, embeddings(6))
    # On x: a has 1, 1, 0, 1, 1; b 0, 0, 1, 0, 0; c 1, 0, -, 1, 0, a tie. On y: a 0, b 1, c nothing, over all a tie.
    named = router.predict_labels(embeddings(3), np.array(["x", "y", "never seen"]))
    assert named.tolist() == [[1, 0, 1], [0, 1, 1], [1, 0, 1]]


def test_the_oracle_is_never_beaten_and_simple_rows_have_no_labels(settings):
    params = parameters()
    frame = experiment.evaluate(experiment.train(params, settings), settings)
    for _, part in frame.groupby(["seed", "dataset"]):
        routed = part.set_index("method")["routed-quality"]
        assert (routed <= routed["oracle"] + 1e-9).all()
        named = part.set_index("method")["label-accuracy"]
        assert named["oracle"] == 100
        assert named[["best-single", "random"]].isna().all()
        assert named[[*experiment.TRAINED, "dataset-oracle"]].between(0, 100).all()


def test_differences_are_paired_over_seeds():
    rows = itertools.product(("one", "two"), range(3), ("x", MACRO))
    frame = pd.DataFrame(rows, columns=["method", "seed", "dataset"])
    frame["routed-quality"] = [1, 10, 2, 20, 3, 30, 2, 12, 4, 22, 9, 35]
    found = experiment.difference(frame, "two", "one", "routed-quality")
    assert found.estimate == pytest.approx(3)
    # Differences 2, 2, 5: standard error sqrt(3) / sqrt(3) = 1, t(0.975, 2) = 4.3027.
    assert found.high - found.estimate == pytest.approx(4.3027, abs=1e-4)
    assert experiment.summary(frame, "routed-quality", "x").loc["one", "value"] == pytest.approx(2)


# --- tables ----------------------------------------------------------------------------------------------------------


def scored_frame() -> pd.DataFrame:
    rows = [
        (method, seed, dataset)
        for method in ("div", "anchor", "full", "none")
        for seed in range(2)
        for dataset in ("x", "y", MACRO)
    ]
    frame = pd.DataFrame(rows, columns=["method", "seed", "dataset"])
    quality = {"div": 50, "anchor": 60, "full": 60, "none": 40}
    frame["routed-quality"] = [quality[m] + seed + (m == "full") * (d == "y") for m, seed, d in rows]
    return frame.assign(**{"cost": 0.01, "total-cost": 2.0, "label-accuracy": 70.0, "n": 200})


def test_scores_are_eq_10_in_points():
    frame = tables.with_scores(scored_frame(), made_up())
    assert np.allclose(frame["score-613"], 0.613 * frame["routed-quality"] - 1)
    assert np.allclose(frame["score-printed"], 0.6 * frame["routed-quality"] - 1)
    elsewhere = tables.with_scores(scored_frame(), made_up(cost_unit="FLOPs per prompt"))
    assert np.allclose(elsewhere["score-613"], 0.613 * elsewhere["routed-quality"])


def test_table_3_of_the_paper_is_scored_as_it_prints():
    """WinoGrande, combined loss: 55.12 % and 0.7168 for 381 queries give 33.60 with 0.613, and not with 0.6."""
    frame = pd.DataFrame({"routed-quality": [55.12], "cost": [0.7168 / 381]})
    scores = tables.with_scores(frame, made_up()).iloc[0]
    assert scores["score-613"] == pytest.approx(33.60, abs=0.01)
    assert scores["score-printed"] == pytest.approx(32.88, abs=0.01)


def test_datasets_won_are_counted_and_ties_shared():
    frame = tables.with_scores(scored_frame(), made_up())
    # anchor and full tie on x, full alone wins y, in both trials.
    won = tables.datasets_won(frame)
    assert won["full"].tolist() == [1.5, 1.5]
    assert won["anchor"].tolist() == [0.5, 0.5]
    assert won["div"].tolist() == [0, 0]
    records = {r["id"]: r for r in tables.table_3_records(frame, made_up())}
    assert records["table-3/full-minus-anchor/datasets-won"]["value"] == 1
    assert records["table-3/x/full/cost"]["value"] == 2
    assert records["table-3/full-minus-div/score"]["value"] == pytest.approx(0.613 * 10)


def test_removed_llms_are_routed_to_no_more_and_nothing_else_changes(settings):
    quality = np.tile([0.9, 0.8, 0.7, 0.6, 0.5], (len(settings[0].test), 1))
    fitted = {("semirouter-emb", setting.seed): Told(quality) for setting in settings}
    order = ["a", "c", "b"]
    alone = tables.removals(fitted, settings, order, cumulative=False)
    summed = tables.removals(fitted, settings, order, cumulative=True)

    def expected(setting, model):
        column = MODELS.index(model)
        return np.mean([100 * setting.test.quality[setting.test.tasks == t, column].mean() for t in "xyz"])

    for frame, chosen in ((alone, "abaa"), (summed, "abbd")):
        wide = experiment.wide(frame, "routed-quality")
        for name, model in zip(("all", "without-a", "without-c", "without-b"), chosen, strict=True):
            for setting in settings:
                assert wide.loc[setting.seed, name] == pytest.approx(expected(setting, model)), name
    records = {r["id"]: r for r in tables.table_4_records(alone, order)}
    difference = records["table-4/without-a-minus-all/quality"]
    assert difference["value"] == pytest.approx(np.mean([expected(s, "b") - expected(s, "a") for s in settings]))
    assert records["table-4/x/without-a"]["unit"] == "fraction"
    assert 0 <= records["table-4/x/without-a"]["value"] <= 1


def test_a_sweep_holds_one_weight_and_every_key_of_figure_5_is_recorded():
    params = parameters()
    sweep = tables.sweep(params)
    assert len(sweep) == len(ALPHAS) + len(LAMS) - 1
    assert sweep["alpha-0.3"] == {"alpha": 0.3, "lam": 0.5}
    assert sweep["lambda-0.9"] == {"alpha": 0.3, "lam": 0.9}
    place = {name: i for i, name in enumerate(sweep)}
    rows = [(name, seed, MACRO, 50.0 + place[name]) for name in sweep for seed in range(2)]
    frame = pd.DataFrame(rows, columns=["method", "seed", "dataset", "routed-quality"])
    records = {r["id"]: r["value"] for r in tables.figure_5_records(frame, params)}
    assert records["figure-5/alpha-0.3/lambda-0.5/quality"] == 50 + place["alpha-0.3"]
    assert records["figure-5/lambda-0.5-minus-lambda-0.9/quality"] == place["alpha-0.3"] - place["lambda-0.9"]
    assert records["figure-5/alpha-0.1-minus-alpha-0.3/quality"] == place["alpha-0.1"] - place["alpha-0.3"]
    assert records["figure-5/lambda-0.1-minus-lambda-0/quality"] == place["lambda-0.1"] - place["lambda-0"]


def test_eq_9_and_algorithm_1_swap_their_weights(settings):
    """Algorithm 1 at 0.1 trains what Eq. (9) trains at 0.9, bit for bit, which the table of weightings relies on."""
    params, setting = parameters(n_seeds=1), settings[0]
    variants = {"swapped": {"lam": 0.1, "weighting": "algorithm-1"}, "eq9": {"lam": 0.9}}
    fitted = experiment.train_variants(params, [setting], variants)
    assert np.array_equal(*(experiment.predict(fitted[name, 0], setting) for name in variants))


def test_normalised_scores_on_a_case_worked_by_hand():
    accuracy = pd.DataFrame({"x": [0.9, 0.5, 0.7], "y": [0.2, 0.2, 0.2], "z": [0.1, 0.3, 0.5]}, index=list("abc"))
    scores = tables.normalised_scores(accuracy)
    assert scores.tolist() == pytest.approx([0.5, 0.25, 0.75])
    records = {r["id"]: r["value"] for r in tables.table_6_records(scores)}
    assert [records[f"table-6/{llm}/rank"] for llm in "abc"] == [2, 3, 1]


def test_figure_1_compares_one_llm_a_dataset_with_one_for_all():
    """On x the LLM b is right, on y and z it is a: one for all is a, and a lookup gains a third."""
    quality = np.zeros((120, 5))
    tasks = np.array(["x", "y", "z"])[np.arange(120) % 3]
    quality[tasks == "x", 1] = quality[tasks != "x", 0] = 1
    pool = made_up(quality=quality)
    records = {r["id"]: r for r in tables.figure_1_records(pool, seed=0)}
    gain = records["figure-1/dataset-oracle-minus-best-single/quality"]
    assert gain["value"] == pytest.approx(1 / 3)
    assert 0 < gain["low"] < 1 / 3 < gain["high"]
    assert records["figure-1/x/b"]["value"] == 1
    assert not any("minus-best-other" in id for id in records), "GPT-4 is not in this pool"


def test_gpt_4_is_compared_with_the_best_other_llm_of_the_training_prompts():
    names = ["gpt-4-1106-preview", "second", "third"]
    quality = np.tile([1.0, 1.0, 0.0], (120, 1))
    quality[::4, 1] = 0
    pool = made_up(models=names, quality=quality, cost=np.ones((120, 3)))
    records = {r["id"]: r["value"] for r in tables.figure_1_records(pool, seed=0)}
    test = pool.subset(experiment.split_rows(pool, 0)[1])
    for dataset in "xyz":
        here = test.quality[test.tasks == dataset]
        found = records[f"figure-1/{dataset}/gpt-4-1106-preview-minus-best-other/quality"]
        assert found == pytest.approx((here[:, 0] - here[:, 1]).mean())


def test_every_row_of_tables_1_and_4_is_named_as_printed():
    printed = cells.published()
    assert set(tables.TABLE_1.values()) == set(cells.rows(printed["table-1"]))
    assert list(tables.TABLE_1) == list(baselines.METHODS)
    assert list(tables.REMOVED.values()) == cells.rows(printed["table-4"])
    assert set(tables.REMOVED) <= set(experiment.EIGHT)
    assert set(tables.TABLE_2.values()) == set(cells.rows(printed["table-2"]))
    assert {column for _, column in printed["table-4"]} <= set(tables.COLUMNS_4.values())


# --- what the paper leaves open --------------------------------------------------------------------------------------


def test_all_31_open_choices_have_an_effect_or_a_reason():
    assert len(choices.OPEN) == 31
    params = parameters()
    said = choices.words(params)
    for choice in choices.OPEN:
        assert bool(choice.others) != bool(choice.reason), choice.detail
        assert set(choice.others) <= set(said), choice.detail
    assert sorted(name for choice in choices.OPEN for name in choice.others) == sorted(said)


def test_open_choices_are_measured_against_ours(settings):
    params = parameters()
    fitted = experiment.train(params, settings)
    frame = experiment.evaluate(fitted, settings)
    ours = {key: router for key, router in fitted.items() if key[0] == "semirouter-emb"}
    alone = tables.removals(ours, settings, tables.removal_order(settings[0].full), cumulative=False)
    effects = choices.measure(params, settings, fitted, frame, frame, settings, alone)
    assert set(effects) == set(choices.words(params)) - {"ten"}
    same = experiment.train(params, settings, ["lora-retriever"], n_clusters=10)
    other = experiment.evaluate(same, settings).assign(method="other")
    both = pd.concat([frame, other], ignore_index=True)
    expected = experiment.difference(both, "other", "lora-retriever", "routed-quality")
    assert effects["clusters-10"]["routed-quality"].estimate == pytest.approx(expected.estimate)
    numbers, shown = choices.open_table(effects, params)
    assert len(shown) == 31
    assert len(numbers) == 2 * len(effects)
