"""The RadialRouter chapter's experiment: splits, pairing, records, lookups, the prefix trap, bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from replications.radialrouter import baselines, choices, experiment, lookups, prefix_trap, recovery, tables
from replications.radialrouter.params import PAPER_ALPHAS, AblationsParams, RadialRouterParams
from replications.radialrouter.radial_router import QUICK
from routebook import ledger, paths
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError

SMALL = {"dataset": "simulated", "max_prompts": 300, "n_seeds": 2, "steps": 5, "width": 8, "heads": 2, "head_width": 4}


@pytest.fixture(scope="module")
def params():
    return RadialRouterParams.build(SMALL)


@pytest.fixture(scope="module")
def setting(params):
    return experiment.load_setting(params)


@pytest.fixture(scope="module")
def routers(params, setting):
    ours = experiment.train_all({"radial-router": experiment.routers_for(params, params.alphas)}, setting)
    return ours | experiment.train_baselines(params, params.alphas, setting)


@pytest.fixture(scope="module")
def frame(routers, setting):
    return experiment.evaluate(routers, setting)


def _benchmark(tasks, quality, cost=None, unit="USD per prompt", name="made", **more):
    quality = np.asarray(quality, dtype=float)
    cost = np.ones_like(quality) if cost is None else np.broadcast_to(np.asarray(cost, dtype=float), quality.shape)
    models = [f"llm-{m}" for m in range(quality.shape[1])]
    prompts = [f"prompt {i}" for i in range(len(quality))]
    return RoutingBenchmark(name, prompts, np.array(tasks), models, quality, cost.copy(), unit, **more)


def _frame(scores):
    """Rows as `evaluate` returns them: {method: [score of seed 0, of seed 1, ...]} at alpha 0.02."""
    rows = [
        {"method": m, "alpha": 0.02, "seed": s, "dataset": "macro", "score": value}
        for m, values in scores.items()
        for s, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


# --- parameters ------------------------------------------------------------------------------------------------------


def test_quick_values_are_the_recommended_ones_and_paper_values_the_papers():
    quick, paper = (RadialRouterParams.profile_values(profile) for profile in ("quick", "paper"))
    assert {name: quick[name] for name in QUICK} == QUICK
    stated = {"layers": 6, "width": 768, "heads": 4, "head_width": 32, "lr": 5e-5, "batch_size": 64, "contrast": 0.5}
    assert {name: paper[name] for name in stated} == stated
    assert quick["temperature"] == paper["temperature"] == 1
    for model in (RadialRouterParams, AblationsParams):
        for profile in ("quick", "paper"):
            assert model.build({}, profile).profile == profile


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"alphas": [-0.1, *PAPER_ALPHAS]}, "alphas: found"),
        ({"alphas": [0.02]}, "alphas lacks 0, 0.01, 0.05, 0.1"),
        ({"temperature": 0.0}, "temperature: found 0.0, expected a number more than 0"),
        ({"n_groups": 300, "max_prompts": 200}, "lower n_groups or raise max_prompts"),
        ({"heads": 3, "head_width": 30}, "does not divide width = 64; use width = 90"),
        ({"loss": "k"}, "loss: found 'k'"),
        ({"contrastt": 1.0}, "did you mean"),
        ({"view_lengths": [1000]}, "view_lengths: found"),
    ],
)
def test_bad_parameters_are_refused_before_anything_runs(given, words):
    with pytest.raises(UserError, match="routebook params radialrouter") as refusal:
        RadialRouterParams.build(given)
    assert words in str(refusal.value)


def test_too_few_prompts_or_llms_are_refused_before_training(params, monkeypatch):
    few = RadialRouterParams.build({**SMALL, "max_prompts": 200, "n_groups": 190})
    with pytest.raises(UserError, match="n_groups=190 groups; raise max_prompts or lower n_groups"):
        experiment.load_setting(few)
    whole = experiment.load_pool(params)
    monkeypatch.setattr(experiment, "load_pool", lambda _: whole.subset(models=whole.models[:1]))
    with pytest.raises(UserError, match="holds 'model 01' alone; routing needs at least two LLMs"):
        experiment.load_setting(params)


# --- data ------------------------------------------------------------------------------------------------------------


def test_a_split_that_is_there_is_kept_and_any_other_drawn():
    found = _benchmark(["a"] * 10, np.ones((10, 2)), split=np.array(["train"] * 5 + ["test"] * 3 + ["ood"] * 2))
    train, test = experiment.split_rows(found, 0)
    assert train.tolist() == [0, 1, 2, 3, 4]
    assert test.tolist() == [5, 6, 7]
    three = replace(found, split=np.array(["train"] * 5 + ["test"] * 3 + ["validation"] * 2))
    train, test = experiment.split_rows(three, 0)
    assert sorted([*train, *test]) == list(range(10)), "no prompt is lost, none in both"
    assert len(test) == 3
    again = experiment.split_rows(three, 0)
    assert all(np.array_equal(a, b) for a, b in zip((train, test), again, strict=True))


def test_routerbench_is_cut_to_the_papers_six_datasets():
    tasks = ["mbpp", "mmlu-law", "consensus_summary", "mtbench-math", "arc-challenge"]
    pool = _benchmark(tasks, np.ones((5, 2)), name="routerbench", absent=("mt-bench",))
    cut = experiment._paper_sources(pool)
    assert cut.tasks.tolist() == ["mbpp", "mmlu-law", "arc-challenge"]
    assert cut.absent == ("gsm8k", "hellaswag", "winogrande")
    with pytest.raises(UserError, match="the paper's source datasets"):
        experiment._paper_sources(pool.subset([2, 3]))


def test_setting_holds_disjoint_prompts_with_their_own_vectors(setting):
    assert not set(setting.train.ids) & set(setting.test.ids)
    np.testing.assert_array_equal(setting.train_embeddings, setting.train.embeddings.astype(np.float32))
    np.testing.assert_array_equal(setting.test_embeddings, setting.test.embeddings.astype(np.float32))
    fewer = setting.with_models(setting.test.models[2:4])
    assert fewer.train.models == fewer.test.models == setting.test.models[2:4]


# --- training and evaluation -----------------------------------------------------------------------------------------


def test_every_router_is_there_for_each_alpha_and_seed(params, routers):
    wanted = {(alpha, seed) for alpha in params.alphas for seed in params.seeds}
    assert set(routers) == {"radial-router", *baselines.BASELINES}
    for method, some in routers.items():
        assert len(some) == len(wanted), method
        assert {(r.alpha, r.seed) for r in some} == wanted, method


def test_scorers_are_shared_over_alphas_but_not_over_seeds(routers):
    for method in ("hybrid-llm", "frugal-gpt"):
        scorers = {(r.seed, id(r.scorer_)) for r in routers[method]}
        assert len(scorers) == len({seed for seed, _ in scorers}) == 2, method


def test_cost_rule_reaches_every_router(params, setting):
    by_model = params.model_copy(update={"cost_rule": "model", "n_seeds": 1})
    assert {r.cost for r in experiment.routers_for(by_model, [0.02])} == {"model"}
    fitted = experiment.train_baselines(by_model, [0.02], setting)
    assert {m: r.per for m, (r,) in fitted.items() if m != "oracle"} == dict.fromkeys(set(fitted) - {"oracle"}, "llm")
    assert fitted["oracle"][0].per == "call", "the Oracle maximises what is evaluated"


def test_evaluation_agrees_with_a_loop_over_prompts(routers, setting, frame):
    router = routers["radial-router"][3]
    scores = router.predict_quality(setting.test_embeddings)
    by_dataset = {}
    for i, task in enumerate(setting.test.tasks):
        m = max(range(len(setting.test.models)), key=lambda m: scores[i, m])
        paid = setting.test.quality[i, m] - router.alpha * setting.test.cost[i, m]
        by_dataset.setdefault(task, []).append(paid)
    expected = np.mean([np.mean(values) for values in by_dataset.values()])
    row = frame[(frame["method"] == "radial-router") & (frame["dataset"] == "macro")].iloc[3]
    assert (row.alpha, row.seed) == (router.alpha, router.seed)
    assert row.score == pytest.approx(expected)


def test_no_router_beats_the_oracle(frame):
    macro = frame[frame["dataset"] == "macro"]
    oracle = macro[macro["method"] == "oracle"].set_index(["alpha", "seed"])["score"]
    for method, part in macro.groupby("method"):
        assert (part.set_index(["alpha", "seed"])["score"] <= oracle + 1e-12).all(), method


def test_same_seed_same_numbers(params, setting):
    first, second = (
        experiment.evaluate(experiment.train_all({"a": experiment.routers_for(params, [0.02])}, setting), setting)
        for _ in range(2)
    )
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_settings_by_name_are_used(params, setting):
    other = setting.with_models(setting.test.models[:3])
    routers = {"all": experiment.routers_for(params, [0.0], [0]), "three": experiment.routers_for(params, [0.0], [0])}
    settings = {"all": setting, "three": other}
    trained = experiment.train_all(routers, settings)
    assert [len(trained[name][0].models_) for name in settings] == [12, 3]
    assert experiment.evaluate(trained, settings)["method"].unique().tolist() == ["all", "three"]


def test_difference_is_paired_over_seeds():
    # Differences .1, .1, .4: mean .2, standard deviation .1732, t(.975, 2) = 4.3027.
    found = experiment.difference(_frame({"a": [0.5, 0.6, 0.9], "b": [0.4, 0.5, 0.5]}), "a", "b", 0.02)
    assert found.estimate == pytest.approx(0.2)
    assert found.high - found.estimate == pytest.approx(4.3027 * 0.17320508 / 3**0.5, rel=1e-4)
    assert found.n == 3


def test_summary_is_the_mean_over_seeds():
    row = experiment.summary(_frame({"a": [0.5, 0.6, 0.9], "b": [0.4, 0.5, 0.6]}), "score", 0.02).loc["b"]
    assert row.value == pytest.approx(0.5)
    assert row.high == pytest.approx(0.5 + 4.3027 * 0.1 / 3**0.5, rel=1e-4)


# --- tables and records ----------------------------------------------------------------------------------------------


def test_every_key_the_ledger_reads_on_this_page_is_recorded(frame, setting):
    book = ledger.load(paths.project_root() / "replications" / "radialrouter" / "ledger.yaml")
    dollars = replace(setting.test, cost_unit=baselines.EQ7_UNIT)
    recorded = {r["id"] for r in tables.table1_records(frame, dollars)}
    recorded |= {r["id"] for r in tables.table9_records(frame, PAPER_ALPHAS, dollars)}
    wanted = set()
    for _, claim in book.claims:
        if claim.kind != "arithmetic" and claim.needs.part is None:
            wanted |= {claim.reads} if isinstance(claim.reads, str) else set(claim.reads)
    wanted = {key for key in wanted if key.startswith(("table-1/", "table-9/"))}
    assert len(wanted) > 100
    assert wanted <= recorded


def test_cost_is_recorded_in_dollars_or_not_at_all(frame, setting):
    units = {r["id"]: r["unit"] for r in tables.table1_records(frame, setting.test)}
    assert not [key for key in units if "/cost/" in key]
    assert not list(tables.table7_records(setting.test))
    assert tables.dollars_per_prompt(setting.test) is None


def test_lead_and_share_of_the_oracle_by_hand():
    scores = {method: [0.5, 0.5] for method in tables.SHOWN}
    scores |= {
        "radial-router": [0.66, 0.6],
        "router-dc": [0.6, 0.6],
        "best-candidate": [0.9, 0.9],
        "oracle": [1.0, 0.8],
    }
    frame = pd.concat([_frame(scores).assign(alpha=alpha) for alpha in (0.0, 0.02, 0.1)])
    frame = frame.assign(performance=frame["score"], cost=1.0)
    records = {r["id"]: r["value"] for r in tables.table1_records(frame, _benchmark(["a"], [[1, 1]]))}
    assert records["table-1/balance/lead-percent"] == pytest.approx((10 + 0) / 2), "over the best trained baseline"
    assert records["table-1/balance/share-of-oracle"] == pytest.approx((66 + 75) / 2)
    assert records["table-1/balance/score-difference/radial-router/best-candidate"] == pytest.approx(-0.27)


def test_llm_means_weigh_datasets_alike():
    pool = _benchmark(["a", "a", "a", "b"], [[1, 0], [1, 0], [0, 0], [0, 1]], [[1, 2], [1, 2], [4, 2], [10, 20]])
    means = tables.llm_means(pool)
    assert means.loc["llm-0"].to_dict() == pytest.approx({"a": 2 / 3, "b": 0, "Perf.": 1 / 3, "Cost": (2 + 10) / 2})
    assert means.loc["llm-1"].to_dict() == pytest.approx({"a": 0, "b": 1, "Perf.": 0.5, "Cost": 11})


def test_table_7_counts_the_cells_that_agree_to_the_last_digit():
    printed = lookups.published()["table-7"]
    accuracy = np.array([[lookups.value(printed, row, "MBPP")] for row in lookups.LLMS]).T
    cost = np.array([[lookups.value(printed, row, "Cost")] for row in lookups.LLMS]).T
    pool = replace(_benchmark(["mbpp"], accuracy, cost, baselines.EQ7_UNIT), models=list(lookups.LLMS.values()))
    records = {r["id"]: r["value"] for r in tables.table7_records(pool)}
    assert records["table-7/cells-equal"] == 11
    assert records["cost-unit/ratio"] == pytest.approx(1)
    moved = pool.quality.copy()
    moved[0, 3] += 0.0001
    records = {r["id"]: r["value"] for r in tables.table7_records(replace(pool, quality=moved))}
    assert records["table-7/cells-equal"] == 10


def test_dropped_rows_are_those_with_a_gap():
    quality = [[1, np.nan], [1, 0], [0, 0], [1, 1]]
    pool = _benchmark(["a", "a", "b", "a"], quality, split=np.array(["test", "test", "test", "train"]))
    assert tables.dropped_table(pool).to_dict("index") == {
        "a": {"as loaded": 2, "complete": 1, "dropped": 1},
        "b": {"as loaded": 1, "complete": 1, "dropped": 0},
    }


def test_most_used_llm_of_a_lookup_takes_everything(routers, setting):
    used = tables.most_used({m: routers[m] for m in ("dataset-oracle", "best-candidate", "random")}, setting)
    share = used.groupby("method")["share"]
    assert share.get_group("dataset-oracle").eq(1).all()
    assert share.get_group("best-candidate").eq(1).all()
    assert share.get_group("random").max() < 0.2, "uniform over twelve LLMs"


def test_prompt_scores_average_to_the_macro_score(routers, setting, frame):
    for method in ("radial-router", "random", "frugal-gpt"):
        chosen = [r for r in routers[method] if r.alpha == 0.02]
        mean = tables.prompt_scores(chosen, setting, 0.02).mean()
        assert mean == pytest.approx(experiment.summary(frame, "score", 0.02).loc[method, "value"]), method


def test_a_router_against_itself_differs_by_nothing(routers, setting):
    same = {"radial-router": routers["dataset-oracle"], "dataset-oracle": routers["dataset-oracle"]}
    found = tables.against_dataset_oracle(same, setting, [0.02])[0.02]
    assert (found.estimate, found.low, found.high) == (0, 0, 0)


def test_the_plane_has_one_point_an_alpha_cheapest_first(frame, params):
    cost, performance = tables.plane(frame, params.alphas, ["oracle"])["oracle"]
    assert len(cost) == len(performance) == len(params.alphas)
    assert (np.diff(cost) >= 0).all()
    assert (np.diff(performance) >= -1e-12).all(), "the Oracle pays more only for more"


# --- known truth, open choices, the prefix trap ----------------------------------------------------------------------


def test_recovery_is_judged_by_the_truth(params):
    trained = params.model_copy(update={"steps": 150, "lr": 5e-3, "width": 32, "heads": 4, "head_width": 8})
    found = recovery.recover_best_llm(trained, n_prompts=12_000, n_clusters=3, n_models=4, separation=12.0)
    assert (found["score"] <= found["bayes"] + 1e-12).all()
    assert (found["bayes"] > found["single"]).all()
    sharp = found[found["temperature"] == 0.1]
    assert sharp["agreement"].mean() > 0.95
    assert sharp["reached"].mean() > 0.95


def test_there_are_thirty_open_choices_and_each_has_an_effect_or_a_reason(params):
    assert len(choices.OPEN) == 30
    assert len({choice.detail for choice in choices.OPEN}) == 30
    measured = {choice.other for choice in choices.OPEN if choice.other}
    assert measured == {*choices.variants(params), "random-llm", "graph-score"}
    assert all(bool(choice.other) != bool(choice.reason) for choice in choices.OPEN)


def test_open_choices_differ_from_ours_in_what_they_say(params, setting):
    ours = experiment.routers_for(params, [0.02], [0])[0].get_params()
    for name, variant in choices.variants(params).items():
        base = choices.variants(params)[variant.base].changes if variant.base != tables.OURS else {}
        other = experiment.routers_for(params, [0.02], [0], **variant.changes)[0].get_params()
        changed = {key for key in ours if other[key] != (ours | base)[key]}
        assert len(changed) == 1, name


def test_a_blind_router_is_a_lookup(params, setting):
    blind = choices.blind_setting(setting)
    assert blind.train_embeddings.sum(axis=1).tolist() == [1.0] * len(setting.train)
    trained = experiment.train_all({"blind": experiment.routers_for(params, [0.02], contrast=0)}, blind)
    assert tables.most_used(trained, blind)["share"].eq(1).all()
    told = choices.told_setting(setting)
    width = setting.train_embeddings.shape[1]
    np.testing.assert_array_equal(told.test_embeddings[:, :width], setting.test_embeddings)
    assert np.unique(told.test_embeddings[:, width:]).size == 2


def test_prefix_trap_counts_what_the_encoder_receives(params):
    long = "the same worked example again and again " * 20
    prompts = [long + f"question {i}" for i in range(6)]
    tasks, split = ["a"] * 6, np.array(["train"] * 2 + ["test"] * 4)
    pool = replace(_benchmark(tasks, np.ones((6, 2)), split=split), prompts=prompts)
    short = replace(pool, prompts=[f"question {i}" for i in range(6)])
    counted = prefix_trap.count_inputs({"question": short, "full": pool}, params)
    shares, labels = prefix_trap.input_panels(counted)
    assert labels["a"].loc["full", 64] == "1 of 4"
    assert labels["a"].loc["question", 64] == "4 of 4"
    assert shares["a"].loc["full"].tolist() == [0.25, 0.25, 1.0, 1.0]
    assert list(shares["a"].index) == ["question", "full"]
    left, _ = prefix_trap.input_panels(counted, side="left")
    assert (left["a"] == 1).all(axis=None)


def test_prefix_trap_routes_the_same_prompts_in_every_cell(params):
    trap = RadialRouterParams.build({**SMALL, "view_lengths": [16]})
    cells = prefix_trap.settings_by_cell(prefix_trap.pools_by_view(trap), trap)
    assert list(cells) == [("question", 16)]
    earned = prefix_trap.routing_by_cell(cells, trap)
    assert set(earned["router"]) == set(prefix_trap.ROUTERS)
    numbers, shown = prefix_trap.routing_table(earned)
    row = numbers.loc["question, 16 tokens"]
    assert row["difference"] == pytest.approx(row["score"] - row["dataset_oracle"])
    assert shown.index.tolist() == ["question, 16 tokens"]


@pytest.mark.usefixtures("real_data")
def test_the_test_split_of_routerbench_is_the_papers():
    params = RadialRouterParams.build({"dataset": "routerbench"})
    whole = experiment.load_pool(params, whole=True)
    test = whole.subset(experiment.split_rows(whole, 0)[1])
    counts = dict(zip(*np.unique(baselines.datasets_of(test), return_counts=True), strict=True))
    assert {name: int(n) for name, n in counts.items()} == {"arc-challenge": 437, "mbpp": 128, "winogrande": 380}
    assert whole.absent == ("gsm8k", "hellaswag", "mmlu")
    records = {r["id"]: r["value"] for r in tables.table7_records(test)}
    assert records["table-7/cells-equal"] == 32, "all but the paper's own slip (RR-7)"
    assert whole.cost_unit == baselines.EQ7_UNIT
