"""The synthesis: settings hide what they say, numbers agree with one another, and verdicts follow from intervals."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from book import deferral_widget, ranks, synthesis
from book import synthesis_page as page
from replications.cscr.experiment import PoolSetting, choose
from routebook import load, sources
from routebook.deferral import deferral_curve
from routebook.errors import UserError
from routebook.pages import SynthesisParams
from routebook.significance import Estimate

PLAIN_ROOMS = synthesis.rooms_of


def small_rooms(params):
    """The chapters' parameters with networks that are hardly trained: what is tested here is not how well they do."""
    rooms = PLAIN_ROOMS(params)
    return synthesis.Rooms(
        uniroute=rooms.uniroute.model_copy(update={"cluster_grid": [3, 5], "kmeans_starts": 1}),
        cscr=rooms.cscr.model_copy(update={"epochs": 1, "min_steps": 0, "hidden": 8}),
        radialrouter=rooms.radialrouter.model_copy(update={"steps": 3}),
        semirouter=rooms.semirouter.model_copy(update={"epochs": 1, "backbone_epochs": 1, "n_clusters": 10}),
    )


@pytest.fixture(scope="module", autouse=True)
def rooms():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthesis, "rooms_of", small_rooms)
        yield


@pytest.fixture(scope="module")
def params():
    return SynthesisParams.build({"pools": ["tinypool"], "n_seeds": 2, "n_new_labels": 40, "shares": [0.2]})


@pytest.fixture(scope="module")
def pool():
    """Some of TinyPool's prompts with embeddings that tell their family, and fingerprints drawn at random."""
    benchmark = load("tinypool", cost="parameters").sample(260, 0)
    rng = np.random.default_rng(0)
    _, family = np.unique(benchmark.tasks, return_inverse=True)
    embeddings = (np.eye(16)[family] + 0.2 * rng.standard_normal((len(benchmark), 16))).astype(np.float32)
    descriptors = {model: rng.standard_normal(12) for model in benchmark.models}
    return PoolSetting("tinypool", benchmark, embeddings, descriptors)


@pytest.fixture(scope="module")
def outcomes(pool, params):
    return synthesis.run_all({"tinypool": pool}, params, n_jobs=1)


@pytest.fixture(scope="module")
def frame(outcomes):
    return synthesis.results(outcomes)


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cases(pool, params):
    (task, _) = synthesis.tasks_of({"tinypool": pool}, params)
    return {case.setting: case for case in synthesis.cases_of(task, small_rooms(params))}, task


def test_training_and_test_prompts_are_apart_and_the_same_in_every_setting(cases):
    found, task = cases
    assert not set(task.train) & set(task.test)
    assert set(task.validation) <= set(task.train)
    for setting in ("static", "new-llms", "labels-0.2"):
        assert list(found[setting].split.train.ids) == list(found["static"].split.train.ids)
        assert list(found[setting].split.test.ids) == list(found["static"].split.test.ids)
    fitting, judged = found["static"].held_back()
    assert sorted([*fitting[0].ids, *judged[0].ids]) == sorted(found["static"].split.train.ids)


def test_new_llms_are_labelled_on_a_few_prompts_only_and_routed_among_alone(cases, params):
    case, whole = cases[0]["new-llms"], cases[0]["static"].split.train
    new, known = case.split.test.models, case.split.train.models
    assert len(new) == 7
    assert len(known) == 14
    assert not set(new) & set(known)
    assert not set(case.anchors) & set(new)
    seen = ~np.isnan(case.labelled.quality)
    columns = case.labelled.model_columns(new)
    assert (seen[:, columns].sum(axis=0) == params.n_new_labels).all()
    assert seen[:, case.labelled.model_columns(known)].all()
    assert set(case.graded[0].ids) == set(whole.ids[seen[:, columns[0]]])
    assert case.graded[0].models == new


def test_sparse_labels_spare_the_anchors(cases):
    case = cases[0]["labels-0.2"]
    kept = (~np.isnan(case.split.train.quality)).mean(axis=0)
    for model, share in zip(case.split.train.models, kept, strict=True):
        assert share == (1 if model in case.anchors else pytest.approx(0.2, abs=0.01))
    assert not np.isnan(case.split.test.quality).any()


def test_a_part_left_out_is_not_trained_on_and_alone_is_routed(cases, pool):
    found, task = cases
    parts = dict(zip(pool.benchmark.ids, synthesis.parts_of(pool.benchmark), strict=True))
    assert set(parts.values()) == {"arithmetic", "strings", "logic", "knowledge"}
    for part in set(parts.values()):
        case = found[synthesis.without(part)]
        assert part not in {parts[i] for i in case.split.train.ids}
        assert {parts[i] for i in case.split.test.ids} == {part}
        assert len(case.split.test) == sum(parts[pool.benchmark.ids[row]] == part for row in task.test)


def test_settings_on_the_same_prompts_share_their_clusters_and_nothing_else(cases, params):
    found, _ = cases
    rooms, known = small_rooms(params), {}
    for setting in ("static", "new-llms", "labels-0.2", "without-logic"):
        case = found[setting]
        shared = synthesis._uniroute(case, rooms, synthesis.Clock(), known)
        alone = synthesis._uniroute(case, rooms, synthesis.Clock(), {})
        for method, router in shared.items():
            asked = case.split.test_embeddings
            np.testing.assert_array_equal(router.predict_quality(asked), alone[method].predict_quality(asked))
    # Two numbers of clusters, on all training prompts and without those of one domain.
    assert len(known) == 4


def test_no_router_learns_from_labels_it_must_not_see(pool, params, outcomes):
    task = synthesis.tasks_of({"tinypool": pool}, params)[0]
    task = replace(task, parts=None, own_alphas=False)
    case = next(c for c in synthesis.cases_of(task, small_rooms(params)) if c.setting == "new-llms")
    benchmark = task.pool.benchmark
    quality = benchmark.quality.copy()
    quality[task.test] = 1 - quality[task.test]
    graded = np.isin(benchmark.ids, case.graded[0].ids)
    hidden = np.ix_(np.setdiff1d(task.train, np.flatnonzero(graded)), benchmark.model_columns(case.split.test.models))
    turned = quality.copy()
    turned[hidden] = 1 - turned[hidden]
    for setting, changed in (("static", quality), ("new-llms", turned)):
        other = replace(task, pool=replace(task.pool, benchmark=replace(benchmark, quality=changed)))
        after = next(o.run for o in synthesis.run_task(other) if o.setting == setting)
        before = next(o.run for o in outcomes if o.setting == setting)
        for method in set(synthesis.METHODS) - {"oracle"}:
            np.testing.assert_allclose(after.estimates[method], before.estimates[method], atol=1e-5, err_msg=method)


# --- what they earn --------------------------------------------------------------------------------------------------


def test_every_method_is_asked_in_every_setting_and_none_beats_the_oracle(frame):
    for (setting, seed, source), part in frame.groupby(["setting", "seed", "source"]):
        areas = part.set_index("method")["area"]
        assert set(areas.index) == set(synthesis.METHODS), setting
        assert areas.idxmax() == "oracle" or areas["oracle"] >= areas.max() - 1e-9, (setting, seed, source)


def test_curves_of_a_part_are_those_of_its_prompts(outcomes):
    run = outcomes[0].run
    rows = run.split.test.tasks == run.split.test.tasks[0]
    part, rest = synthesis.restricted(run, rows), synthesis.restricted(run, ~rows)
    for method, curve in run.curves.items():
        for lam in (0.0, 1e-7, 1e-5):
            inside = [one.curves[method].at_lambda(lam + 1e-12) for one in (part, rest)]
            both = np.average(inside, axis=0, weights=[rows.sum(), (~rows).sum()])
            np.testing.assert_allclose(both, curve.at_lambda(lam + 1e-12), rtol=1e-9, err_msg=method)


def test_differences_are_paired_over_seeds(frame):
    here = synthesis.at(frame, "static", "tinypool")
    wide = here.pivot(index="seed", columns="method", values="area")
    found = page.differences(here, "k-nn", ("k-means", "k-nn", "mlp"))
    assert set(found) == {"k-means", "mlp"}
    by_hand = (wide["mlp"] - wide["k-nn"]).to_numpy()
    assert found["mlp"].estimate == pytest.approx(by_hand.mean())
    # t quantile at 97.5 % with one degree of freedom: 12.706.
    half = 12.706204736 * by_hand.std(ddof=1) / np.sqrt(2)
    assert found["mlp"].high - found["mlp"].low == pytest.approx(2 * half)


def test_losses_compare_the_same_prompts(frame):
    losses = page.other_prompt_losses(frame).set_index(["source", "method"])["value"]
    for source in ("logic", "strings"):
        with_it = synthesis.at(frame, synthesis.beside(source)).set_index(["method", "seed"])
        left_out = synthesis.at(frame, synthesis.without(source)).set_index(["method", "seed"])
        assert (with_it["n"] == left_out["n"]).all()
        gap = (with_it["area"] - left_out["area"]).groupby("method").mean()
        assert losses[source, "k-nn"] == pytest.approx(gap["k-nn"])


def test_a_left_out_source_makes_dataset_oracle_a_zero_router(outcomes):
    left_out = [outcome.run.estimates for outcome in outcomes if outcome.setting.startswith("without-")]
    assert len(left_out) == 2 * 4
    for estimates in left_out:
        np.testing.assert_allclose(estimates["dataset-oracle"], estimates["zero-router"])
    static = outcomes[0].run.estimates
    assert not np.allclose(static["dataset-oracle"], static["zero-router"])


def test_adding_is_counted_by_llm_but_retraining_whole(outcomes):
    seconds = synthesis.seconds_frame(outcomes).set_index(["seed", "method", "what"])["seconds"]
    new = next(o for o in outcomes if o.setting == "new-llms")
    assert new.n_new == 7
    assert seconds[0, "k-means", "add"] == pytest.approx(new.seconds["k-means", "add"] / 7)
    assert seconds[0, "mlp", "add"] == new.seconds["mlp", "add"]
    assert ("radial-router", "train") not in new.seconds
    static = next(o for o in outcomes if o.setting == "static")
    assert seconds[0, "cscr", "train"] == static.seconds["cscr", "train"]
    assert min(static.seconds.values()) > 0


def test_routing_is_timed_for_every_router_but_the_oracle(outcomes):
    run = synthesis.kept_run(outcomes)
    times = synthesis.routing_times(run, n_prompts=2)
    assert set(times) == set(synthesis.METHODS) - {"oracle"}
    assert sum(bool(o.run.routers) for o in outcomes) == 1


def test_own_trade_offs_are_set_beside_the_swept_router(outcomes):
    own = synthesis.own_frame(outcomes)
    assert sorted(own["alpha"].unique()) == list(synthesis.OWN_ALPHAS)
    assert len(own) == 4
    np.testing.assert_allclose(own["gain"], own["quality"] - own["swept"])


@pytest.mark.parametrize(
    ("changes", "said"), [({"pools": ["routerdc"]}, "no fingerprints"), ({"shares": []}, "shares")]
)
def test_parameters_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(UserError, match=said):
        SynthesisParams.build(changes)


def test_a_pool_too_small_for_the_labels_is_refused(pool, params):
    with pytest.raises(UserError, match="raise max_prompts or lower n_new_labels"):
        synthesis.tasks_of({"tinypool": pool}, params.model_copy(update={"n_new_labels": 200}))


def test_the_digest_of_a_run_covers_the_books_modules(root):
    found = sources.notebook_modules(root / "book" / "synthesis.ipynb", root)
    assert {"book.synthesis", "book.ranks", "book.deferral_widget", "replications.cscr.contrastive"} <= found


# --- ranks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_differences_are_demsars(k, q):
    # Demšar (2006), Table 5 (a).
    assert ranks.critical_difference(k, 14) == pytest.approx(q * np.sqrt(k * (k + 1) / (6 * 14)), rel=3e-4)


def test_a_ranking_worked_by_hand():
    table = pd.DataFrame({"a": [3.0, 3, 3, 3], "b": [2.0, 2, 2, 3], "c": [1.0, 1, 1, 1]})
    found = ranks.ranking(table)
    # In the last block a and b share ranks 1 and 2.
    assert found.mean_ranks.to_dict() == {"a": 1.125, "b": 1.875, "c": 3.0}
    # 12 / (N k (k + 1)) sum R^2 - 3 N (k + 1) with R = 4.5, 7.5, 12, over 1 - (2^3 - 2) / (N k (k^2 - 1)) for the tie.
    plain = 12 / 48 * (4.5**2 + 7.5**2 + 12**2) - 48
    assert found.statistic == pytest.approx(plain / (1 - 6 / 96))
    assert found.difference == pytest.approx(2.343 * np.sqrt(12 / 24), rel=3e-4)
    assert found.rejected
    assert found.like_the_best == ["a", "b"]
    assert found.cliques == [["a", "b"], ["b", "c"]]


def test_nothing_is_told_apart_where_friedmans_test_does_not_reject():
    mixed = pd.DataFrame({"a": [3.0, 1, 2], "b": [2.0, 3, 1], "c": [1.0, 2, 3]})
    found = ranks.ranking(mixed)
    assert not found.rejected
    assert len(found.like_the_best) == 3
    assert found.cliques == [found.like_the_best]


def test_a_missing_value_is_named():
    with pytest.raises(UserError, match="b has no value in block 1"):
        ranks.ranking(pd.DataFrame({"a": [1.0, 2], "b": [1.0, np.nan], "c": [2.0, 1]}))


def test_small_source_datasets_are_no_blocks(frame, monkeypatch):
    sizes = frame[(frame["setting"] == "static") & (frame["source"] != "all")].groupby("source")["n"].min()
    least = int(sizes.median())
    monkeypatch.setattr(page, "MIN_BLOCK", least)
    found = page.blocks(frame, ["tinypool"])
    assert set(found.index.get_level_values("source")) == set(sizes.index[sizes >= least])
    assert list(found.columns) == list(page.RANKED)


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 0.2, "surely better"), (-0.2, -0.1, "surely worse"), (-0.1, 0.1, "not told apart")],
)
def test_verdicts_follow_from_intervals(low, high, said):
    assert page.verdict(Estimate((low + high) / 2, low, high, 5, "")) == said


def made_up(areas):
    """A frame of results with given areas: (setting, pool, method) to one area a seed."""
    rows = [
        {
            "setting": s,
            "source": "all",
            "n": 100,
            "pool": p,
            "seed": seed,
            "method": m,
            "area": area,
            "qnc": 1,
            "peak": 1,
        }
        for (s, p, m), values in areas.items()
        for seed, area in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_expectations_are_judged_by_the_sign_of_their_interval():
    wave = np.array([0.50, 0.60, 0.55, 0.65, 0.58])
    areas = {}
    for setting in ("static", "new-llms", "labels-0.05", "labels-0.2", "without-x"):
        for method in ("k-means", "k-nn", "cscr", "mlp", "radial-router", "semirouter-emb", "lora-retriever"):
            areas[setting, "tinypool", method] = wave
    nearly = np.array([0.009, 0.010, 0.011, 0.010, 0.010])
    areas["new-llms", "tinypool", "k-means"] = wave + nearly
    areas["new-llms", "tinypool", "cscr"] = wave - nearly
    areas["static", "tinypool", "radial-router"] = wave + np.array([0.1, -0.1, 0.1, -0.1, 0.0])
    areas["labels-0.05", "tinypool", "semirouter-emb"] = wave + nearly
    found = page.expectation_frame(made_up(areas)).set_index("id")["verdict"].to_dict()
    assert found == {
        "uniroute": "holds",
        "cscr-new": "contradicted",
        "cscr-other": "open",
        "radialrouter": "open",
        "semirouter": "holds",
    }


def test_counts_and_leaders_in_words():
    frame = made_up({("static", p, m): [v] * 2 for p, m, v in [("tinypool", "mlp", 0.7), ("tinypool", "oracle", 0.9)]})
    assert page.leaders(frame, "static") == "MLP on TinyPool"
    said = page.counted(pd.DataFrame({"verdict": ["holds", "open", "open"]}))
    assert said == "holds in 1, is contradicted in 0 and is open in 2 of 3"
    assert page.listed([]) == "none"
    assert page.listed(["mlp"]) == "MLP"
    assert page.listed(["mlp", "k-nn", "cscr"]) == "MLP, K-NN and CSCR"


def test_what_the_prose_quotes_adds_up(frame, outcomes):
    values = page.summary_values(frame)
    for name in ("static/dataset-oracle", "static/k-nn", "new/zero-router", "sparse/k-nn", "other/zero-router"):
        assert sum(values[f"{name}/{word}"] for word in ("better", "worse", "alike")) == values[f"{name}/all"]
    assert values["static/k-nn/all"] == 5
    assert values["other/zero-router/all"] == 4 * 5
    recorded = [found["id"] for found in page.pool_records(frame)]
    assert len(recorded) == len(set(recorded))
    assert values["intervals"] == sum("-minus-" in name for name in recorded)
    texts = page.summary_texts(frame, {}, ["tinypool"])
    assert texts["main"] == "TinyPool"
    assert texts["fewest"] == "20%"


# --- figures ---------------------------------------------------------------------------------------------------------


def test_a_difference_stands_right_of_zero_where_the_method_is_ahead():
    found = {"k-nn": Estimate(0.02, 0.01, 0.03, 5, ""), "mlp": Estimate(-0.02, -0.05, 0.01, 5, "")}
    panels = {(f"pool {i}", "zero-router"): found for i in range(4)}
    figure = page.difference_figure(panels, columns=4)
    assert [axes.get_title() for axes in figure.axes] == [f"pool {i}: less ZeroRouter" for i in range(4)]
    assert figure.axes[0].get_subplotspec().get_gridspec().ncols == 2, "four side by side are too small to read"
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    # The first line is that at zero.
    drawn = [line for line in figure.axes[0].lines[1:] if len(line.get_xdata()) == 2]
    rows = {names[int(line.get_ydata()[0])]: line.get_xdata() for line in drawn}
    assert list(rows["K-NN"]) == [0.01, 0.03]
    assert list(rows["MLP"]) == [-0.05, 0.01]


def test_the_diagram_names_every_method_at_its_rank_and_joins_what_is_not_told_apart():
    table = pd.DataFrame({"k-nn": [3.0, 3, 3, 3], "mlp": [2.0, 2, 2, 3], "cscr": [1.0, 1, 1, 1]})
    found = ranks.ranking(table)
    (axes,) = ranks.rank_plot({"some": found}).axes
    texts = {text.get_text() for text in axes.texts}
    assert {"K-NN  1.1", "MLP  1.9", "3.0  CSCR", "some", "critical difference 1.66"} <= texts
    bars = [sorted(line.get_xdata()) for line in axes.lines if line.get_linewidth() > 3]
    expected = [[1.125, 1.875], [1.875, 3.0]]
    assert np.allclose(bars, expected, atol=0.07)
    curves = {line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 3}
    assert curves == {1.125, 1.875, 3.0}


def test_too_few_prompts_for_ranks_are_said():
    (axes,) = page.rank_figure({}).axes
    assert "20 test prompts" in axes.texts[0].get_text()
    assert len(page.rank_table({})) == 0


# --- the interactive curve -------------------------------------------------------------------------------------------


def test_the_points_of_the_control_are_those_of_the_exact_curve(outcomes):
    run = outcomes[0].run
    lams = deferral_widget.positions(run)
    assert lams[0] == 0
    assert (np.diff(lams) > 0).all()
    test, price = run.split.test, run.split.price
    order = np.argsort(price, kind="stable")
    for method in ("k-means", "cscr", "mlp", "oracle"):
        found = deferral_widget.points(run, method, lams)
        curve = deferral_curve(run.estimates[method], test.quality, price, paid=test.cost)
        np.testing.assert_array_equal([found.cost, found.quality], curve.at_lambda(lams))
        for at in (0, 7, 23, 40):
            sent = choose(run.estimates[method], price, lams[at])
            rows = np.arange(len(test))
            assert found.quality[at] == pytest.approx(test.quality[rows, sent].mean()), method
            assert found.cost[at] == pytest.approx(test.cost[rows, sent].mean()), method
            assert found.mix[at] == pytest.approx([(sent == model).mean() for model in order]), method


def test_the_control_is_small_and_whole_without_scripts(outcomes):
    run = outcomes[0].run
    html = deferral_widget.widget(run, page.DRAWN)
    assert len(html) < 150_000
    moved = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.S)[1])
    start = int(re.search(r'data-start="(\d+)"', html)[1])
    assert set(moved["methods"]) == set(page.DRAWN) == set(deferral_widget.LETTERS)
    for method, points in moved["methods"].items():
        assert len(points["x"]) == len(moved["worth"]) == deferral_widget.N_POSITIONS
        point = f"translate({points['x'][start]:g} {points['y'][start]:g})"
        assert f'<g data-method="{method}" transform="{point}">' in html
        row = re.search(f'<tr data-method="{method}">.*?</tr>', html)[0]
        assert points["cost"][start] in row
        assert points["quality"][start] in row
        assert sum(points["mix"][start]) == pytest.approx(100, abs=0.5 * len(moved["llms"]) / 10 + 0.1)
    assert html.count("<polyline") == len(page.DRAWN)


def test_letters_can_be_read_on_their_colours():
    assert deferral_widget.ink_on("#ffffff") == "#000"
    assert deferral_widget.ink_on("#000080") == "#fff"
    assert deferral_widget.mix_in_words(["a", "b", "c"], [20.0, 79.8, 0.2]) == "80 % b, 20 % a"
    assert len(set(deferral_widget.LETTERS.values())) == len(deferral_widget.LETTERS)
