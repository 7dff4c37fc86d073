"""Energy as a cost: published tables, Table 5 by hand, measured against modelled, and the router's own energy."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from fixtures_data import full_frame, write, write_mess_plus

from replications.semirouter import energy, energy_tables, router_energy
from replications.semirouter.energy_tables import (
    AI_ENERGY_SCORE,
    JEGHAM,
    JOULES,
    MEASURED,
    ML_ENERGY_2023,
    ML_ENERGY_2024,
    ML_ENERGY_2025,
    PROXIES,
    SIZES,
    STATED,
    TABLES,
    WH,
)
from routebook import load
from routebook.benchmark import RoutingBenchmark
from routebook.datasets import mess_plus
from routebook.datasets.cards import read_card
from routebook.deferral import deferral_curve
from routebook.errors import DataError, UserError
from routebook.routers import KNN


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty data folder that `$ROUTEBOOK_DATA` points at, where files may differ from their cards."""
    monkeypatch.setenv("ROUTEBOOK_DATA", str(tmp_path))
    monkeypatch.setenv("ROUTEBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ROUTEBOOK_ALLOW_MODIFIED", "1")
    return tmp_path


def made_up(name: str) -> pd.DataFrame:
    """A published table in the real format, every energy made up: row i has 36 (i + 1) J or 0.01 (i + 1) Wh."""
    where, file = TABLES[name], read_card("energy").file(name)
    wanted = {m for models in SIZES.values() for f, m in models.items() if f == name}
    wanted |= {p.ai_energy_score for p in PROXIES} if name == AI_ENERGY_SCORE else set()
    wanted |= {p.ml_energy for p in PROXIES} if name == ML_ENERGY_2024 else set()
    models = [m for m in sorted(wanted) for _ in range(3 if name == ML_ENERGY_2024 else 1)]
    one = 36.0 if where.unit == JOULES else 0.01
    given = {where.model: models, where.energy: [one * (i + 1) for i in range(len(models))]}
    given |= {column: [value] * len(models) for column, value in where.only.items()}
    return full_frame(file, len(models), **given)


@pytest.fixture
def tables(data) -> dict[str, pd.DataFrame]:
    """The five published tables, made up, written to the data folder and read back."""
    for name in TABLES:
        write(data, read_card("energy").file(name), made_up(name))
    return energy_tables.read_published()


def pool(quality, cost, unit=WH, tasks=None, models=None, **more) -> RoutingBenchmark:
    quality = np.asarray(quality, dtype=float)
    n, m = quality.shape
    return RoutingBenchmark(
        name="made-up",
        prompts=more.pop("prompts", [f"question {i}" for i in range(n)]),
        tasks=np.array(["a"] * n if tasks is None else tasks),
        models=[f"llm-{j}" for j in range(m)] if models is None else models,
        quality=quality,
        cost=np.broadcast_to(np.asarray(cost, dtype=float), quality.shape).copy(),
        cost_unit=unit,
        origin="made",
        **more,
    )


# --- tables ----------------------------------------------------------------------------------------------------------


def test_units_convert_by_hand_and_refuse_what_is_no_energy():
    assert energy_tables.convert(7200.0, JOULES) == pytest.approx(2.0)
    assert energy_tables.convert(0.5, WH, JOULES) == pytest.approx(1800.0)
    np.testing.assert_allclose(energy_tables.convert(np.array([36.0, 3600.0]), JOULES, WH), [0.01, 1.0])
    with pytest.raises(UserError, match=r"unit is 'USD per prompt', which is no energy.*with_energy"):
        energy_tables.convert(1.0, "USD per prompt")
    with pytest.raises(UserError, match=r"to is 'kWh'"):
        energy_tables.convert(1.0, WH, "kWh")


def test_energy_table_names_a_figure_and_its_source_for_each_llm(tables):
    table = energy_tables.energy_table().set_index("model")
    assert list(table.columns) == ["wh_per_prompt", "source", "proxy", "note"]
    score = tables[AI_ENERGY_SCORE].set_index("model")["total_gpu_energy"]
    for proxy in PROXIES:
        # kWh for 1,000 queries are Wh for one: the number is the file's own.
        assert table.loc[proxy.model, "wh_per_prompt"] == pytest.approx(score[proxy.ai_energy_score])
        assert table.loc[proxy.model, "proxy"] == proxy.ai_energy_score
    for model, (wh, _) in STATED.items():
        assert table.loc[model, "wh_per_prompt"] == wh
    assert set(mess_plus.MODELS.values()) | {"mistralai/mistral-7b-chat"} <= set(table.index)
    assert not [model for model in table.index if "claude" in model]


def test_the_other_leaderboard_takes_the_median_configuration_in_wh(tables):
    table = energy_tables.energy_table("ml-energy").set_index("model")
    rows = tables[ML_ENERGY_2024]
    for proxy in PROXIES:
        joules = sorted(rows.loc[rows["model"] == proxy.ml_energy, "Energy/req (J)"])
        assert len(joules) == 3
        assert table.loc[proxy.model, "wh_per_prompt"] == pytest.approx(joules[1] / 3600)
    with pytest.raises(UserError, match=r"source is 'ai-score', expected one of.*did you mean 'ai-energy-score'"):
        energy_tables.energy_table("ai-score", tables)


def test_a_published_table_is_checked(data, tables):
    file = read_card("energy").file(AI_ENERGY_SCORE)
    broken = made_up(AI_ENERGY_SCORE)
    broken["total_gpu_energy"] = broken["total_gpu_energy"].astype(object)
    broken.loc[2, "total_gpu_energy"] = "unknown"
    write(data, file, broken)
    with pytest.raises(DataError, match=rf"{AI_ENERGY_SCORE}: column 'total_gpu_energy' is unknown in row 3"):
        energy_tables.energy_table()
    without = made_up(AI_ENERGY_SCORE)
    write(data, file, without[without["model"] != "01-ai/Yi-1.5-34B"])
    with pytest.raises(DataError, match=rf"{AI_ENERGY_SCORE} has no row for model '01-ai/Yi-1.5-34B', task text_gen"):
        energy_tables.energy_table()
    zero = made_up(AI_ENERGY_SCORE)
    zero["total_gpu_energy"] = 0.0
    write(data, file, zero)
    with pytest.raises(DataError, match=r"total_gpu_energy of .* is 0, expected a number > 0"):
        energy_tables.energy_table()
    (data / file.path).unlink()
    with pytest.raises(DataError, match=rf"file energy/{AI_ENERGY_SCORE} is missing.*ROUTEBOOK_DATA"):
        energy_tables.energy_table()


def test_rows_of_another_task_are_not_taken(tables):
    other = tables[AI_ENERGY_SCORE].assign(task="summarization", total_gpu_energy=99.0)
    both = {**tables, AI_ENERGY_SCORE: pd.concat([other, tables[AI_ENERGY_SCORE]])}
    found = energy_tables.figures_of(AI_ENERGY_SCORE, "01-ai/Yi-1.5-34B", both)
    assert len(found) == 1
    assert found[0] != 99.0


def test_published_by_size_gives_medians_ranges_and_ratios(tables):
    cost = [[0.0, 720.0, 3600.0], [0.0, 720.0, 7200.0], [0.0, 1080.0, 9000.0]]
    measured = pool(np.ones((3, 3)), cost, JOULES, models=list(mess_plus.MODELS.values()))
    frame = energy_tables.published_by_size(tables, measured).set_index(["size", "source"])
    ours = frame.loc["70B", "made-up, measured"]
    assert (ours["wh"], ours["low"], ours["high"], ours["n"]) == pytest.approx((2.0, 1.0, 2.5, 3))
    assert ours["ratio"] == pytest.approx(10.0)
    assert ours["model"] == MEASURED["70B"]
    small, large = (
        tables[ML_ENERGY_2024].set_index("model").loc[SIZES[size][ML_ENERGY_2024], "Energy/req (J)"].median()
        for size in ("7B to 8B", "70B")
    )
    assert frame.loc[("70B", "ML.ENERGY (2024)"), "ratio"] == pytest.approx(large / small)
    assert np.isnan(frame.loc[("70B", TABLES[JEGHAM].title), "ratio"])
    assert {"ML.ENERGY (2023)", "ML.ENERGY (2025)"} <= set(frame.index.get_level_values("source"))
    assert ML_ENERGY_2023 in SIZES["13B"]
    assert ML_ENERGY_2025 in SIZES["70B"]


# --- energy as a cost ------------------------------------------------------------------------------------------------


def test_with_energy_charges_averages_and_never_a_silent_zero():
    dollars = pool([[1, 0], [0, 1]], [[0.1, 0.2], [0.3, 0.4]], "USD per prompt")
    costed = energy.with_energy(dollars, {"llm-1": 2.0, "llm-0": 0.5, "other": 9.0})
    np.testing.assert_array_equal(costed.cost, [[0.5, 2.0], [0.5, 2.0]])
    assert costed.cost_unit == WH
    assert dollars.cost[0, 0] == 0.1
    with pytest.raises(
        UserError, match=r"made-up: the energy table has no entry for 'llm-1'; did you mean 'llm-0'.*sub"
    ):
        energy.with_energy(dollars, {"llm-0": 0.5})
    with pytest.raises(UserError, match=r"no entry for 'llm-0' and 1 more of the pool"):
        energy.with_energy(dollars, {"x": 0.5})
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(UserError, match=r"energy of 'llm-1' is .* expected a number > 0"):
            energy.with_energy(dollars, {"llm-0": 0.5, "llm-1": bad})
    twice = pd.DataFrame({"model": ["llm-0", "llm-0"], "wh_per_prompt": [1.0, 2.0]})
    with pytest.raises(UserError, match=r"'llm-0' is listed twice"):
        energy.with_energy(dollars, twice)
    assert energy_tables.models_with_energy(dollars, {"llm-1": 1.0, "z": 1.0}) == ["llm-1"]


def test_energy_works_in_a_router_and_its_deferral_curve():
    simulated = load("simulated")
    wh = {model: 0.01 * 2**at for at, model in enumerate(simulated.models)}
    costed = energy.with_energy(simulated, wh)
    half = len(costed) // 2
    train, test = costed.subset(np.arange(half)), costed.subset(np.arange(half, len(costed)))
    estimate = KNN(n_neighbours=20).fit(train, train.embeddings).predict_quality(test.embeddings)
    curve = deferral_curve(estimate, test.quality, test.cost)
    assert min(wh.values()) <= curve.cost.min() <= curve.cost.max() <= max(wh.values())
    choices = energy.choose(estimate, test.mean_cost)
    first = test.cost[np.arange(len(test)), choices].mean()
    assert curve.cost[0] == pytest.approx(first)
    table = energy.by_dataset(choices, test).set_index("dataset")
    n = table["n"].drop("macro")
    assert (table["energy"].drop("macro") * n).sum() / n.sum() == pytest.approx(first)


def test_choose_takes_the_cheapest_of_the_best_and_weighs_energy():
    labels = np.array([[1.0, 1.0, 0.5], [0.0, 0.5, 1.0], [np.nan, 0.0, 0.0]])
    np.testing.assert_array_equal(energy.choose(labels, np.array([3.0, 2.0, 1.0])), [1, 2, 2])
    np.testing.assert_array_equal(energy.choose(labels, np.array([3.0, 2.0, 1.0]), lam=1.0), [2, 2, 2])
    per_call = np.array([[1.0, 2.0, 9.0], [1.0, 1.0, 1.0], [0.0, 1.0, 2.0]])
    np.testing.assert_array_equal(energy.choose(labels, per_call), [0, 2, 1])
    with pytest.raises(UserError, match=r"lam is -1"):
        energy.choose(labels, np.ones(3), -1.0)
    with pytest.raises(UserError, match=r"quality_hat has shape \(3, 3\) and energy \(2,\)"):
        energy.choose(labels, np.ones(2))
    with pytest.raises(UserError, match=r"prompt 1 has no estimate"):
        energy.choose(np.array([[1.0, 0.0], [np.nan, np.nan]]), np.ones(2))


# --- Table 5 ---------------------------------------------------------------------------------------------------------

QUALITY = [[1, 1, 1], [0, 0, 1], [0, 1, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0]]
TASKS = ["arc", "arc", "arc", "arc", "mbpp", "mbpp"]
WH_EACH = {"llm-0": 1.0, "llm-1": 2.0, "llm-2": 10.0}


def test_table_5_by_the_papers_rule_by_hand():
    dollars = pool(QUALITY, 0.1, "USD per prompt", TASKS)
    table = energy.by_dataset(np.array([0, 0, 1, 2, 0, 2]), dollars, WH_EACH).set_index("dataset")
    assert list(table.index) == ["arc", "mbpp", "macro"]
    arc, mbpp, macro = (table.loc[name] for name in ("arc", "mbpp", "macro"))
    # arc: 1, 1, 2, 10 Wh; the second query alone is answered better by llm-2, which adds its 10 Wh.
    assert (arc["n"], arc["energy"], arc["always-backup"]) == (4, pytest.approx(3.5), pytest.approx(10.0))
    assert arc["saving"] == pytest.approx(65.0)
    assert arc["backup"] == pytest.approx(6.75)
    assert arc["backup-as-worded"] == pytest.approx(24 / 4)
    assert (arc["rerouted"], arc["quality"], arc["backup-quality"]) == pytest.approx((0.25, 0.5, 0.75))
    assert arc["best-of-two"] == pytest.approx(0.75)
    # mbpp: 1 and 10 Wh; the first is rerouted: saving 45 %, rerouted 50 %, so the backup costs more than llm-2 alone.
    assert (mbpp["energy"], mbpp["saving"]) == pytest.approx((5.5, 45.0))
    assert mbpp["backup-as-worded"] == pytest.approx(10.5)
    assert mbpp["backup"] == pytest.approx(7.75)
    assert (macro["n"], macro["energy"], macro["saving"]) == pytest.approx((6, 4.5, 55.0))
    assert set(table["unit"]) == {WH}


def test_the_printed_backup_column_ignores_quality_and_the_worded_one_does_not():
    choices = np.array([0, 0, 1, 2, 0, 2])
    good, bad = pool(np.ones((6, 3)), 0.0, tasks=TASKS), pool(QUALITY, 0.0, tasks=TASKS)
    perfect, other = (energy.by_dataset(choices, costed, WH_EACH) for costed in (good, bad))
    np.testing.assert_array_equal(perfect["backup"], other["backup"])
    np.testing.assert_allclose(perfect["backup-as-worded"], perfect["energy"])
    assert (other["backup-as-worded"] > other["energy"]).all()


def test_sending_everything_to_the_backup_saves_nothing():
    costed = energy.with_energy(pool(QUALITY, 0.0, tasks=TASKS), WH_EACH)
    choices = energy.all_at(costed)
    np.testing.assert_array_equal(choices, np.full(6, 2))
    np.testing.assert_array_equal(energy.all_at(costed, "llm-1"), np.ones(6))
    alone = energy.by_dataset(choices, costed)
    np.testing.assert_allclose(alone["saving"], 0.0, atol=1e-12)
    np.testing.assert_allclose(alone["backup-as-worded"], 10.0)
    np.testing.assert_allclose(alone["rerouted"], 0.0)


def test_measured_energy_is_charged_call_by_call_in_its_own_unit():
    joules = np.array([[100, 200, 1000], [300, 400, 3000]], dtype=float)
    measured = pool([[1, 1, 1], [0, 0, 1]], joules, JOULES)
    row = energy.by_dataset(np.array([0, 1]), measured).iloc[0]
    assert (row["energy"], row["always-backup"], row["unit"]) == (250.0, 2000.0, JOULES)
    assert row["saving"] == pytest.approx(87.5)
    assert row["backup-as-worded"] == pytest.approx((100 + 400 + 3000) / 2)
    in_wh = energy.by_dataset(np.array([0, 1]), energy.in_wh(measured)).iloc[0]
    assert in_wh["energy"] == pytest.approx(250 / 3600)
    assert in_wh["saving"] == pytest.approx(87.5)


def test_unobserved_answers_are_left_out_and_counted():
    quality = [[1, np.nan], [np.nan, 1], [0, 1], [1, 1]]
    table = energy.by_dataset(np.array([0, 0, 0, 1]), pool(quality, [1.0, 4.0]))
    row = table.iloc[0]
    assert (row["n"], row["energy"]) == (2, pytest.approx(2.5))
    assert row["backup-as-worded"] == pytest.approx((1 + 4 + 4) / 2)
    with pytest.raises(UserError, match=r"no prompt has both its chosen LLM and 'llm-1' observed"):
        energy.by_dataset(np.array([0]), pool([[1, np.nan]], [1.0, 4.0]))


def test_table_5_refuses_what_it_cannot_charge():
    costed = pool(QUALITY, [1.0, 2.0, 3.0])
    with pytest.raises(UserError, match=r"'USD per prompt', which is no energy"):
        energy.by_dataset(np.zeros(6, dtype=int), pool(QUALITY, 0.1, "USD per prompt"))
    with pytest.raises(UserError, match=r"no entry for 'llm-2'"):
        energy.by_dataset(np.zeros(6, dtype=int), costed, {"llm-0": 1.0, "llm-1": 1.0})
    with pytest.raises(UserError, match=r"choices are float64 of shape \(6,\)"):
        energy.by_dataset(np.zeros(6), costed)
    with pytest.raises(UserError, match=r"choices hold 3, expected columns 0 to 2"):
        energy.by_dataset(np.array([0, 1, 2, 3, 0, 0]), costed)
    with pytest.raises(UserError, match=r"no model 'gpt-4'"):
        energy.by_dataset(np.zeros(6, dtype=int), costed, backup="gpt-4")
    with pytest.raises(UserError, match=r"takes no energy on a"):
        energy.by_dataset(np.zeros(6, dtype=int), pool(QUALITY, 0.0))


def test_results_are_means_over_seeds_and_differences_over_prompts():
    costed = pool(QUALITY, [1.0, 2.0, 10.0], tasks=["arc_c"] * 4 + ["mbpp"] * 2)
    found = energy.results([np.full(6, 0), np.full(6, 1)], costed, "table-5", n_resamples=200)
    got = found["table-5/arc-c/energy"]
    # Mean of 1 and 2; Student's t with one degree of freedom at 97.5 % is 12.7062, the standard error 0.5.
    assert (got["value"], got["n"], got["unit"]) == (pytest.approx(1.5), 2, WH)
    assert (got["low"], got["high"]) == pytest.approx((1.5 - 12.7062 / 2, 1.5 + 12.7062 / 2), abs=1e-4)
    # Every prompt takes 1.5 of 10 Wh, so no resample saves anything but 85 %.
    saving = found["table-5/mbpp/saving"]
    assert (saving["value"], saving["low"], saving["high"]) == pytest.approx((85.0, 85.0, 85.0))
    assert (saving["n"], saving["unit"]) == (2, "percent")
    assert found["table-5/arc-c/backup"]["value"] == pytest.approx(5.75)
    # arc: llm-2 is better than llm-0 on two of four prompts, than llm-1 on one: 1.5 + 10 (2 + 1) / 8 Wh.
    assert found["table-5/arc-c/backup-as-worded"]["value"] == pytest.approx(5.25)
    difference = found["table-5/arc-c/backup-as-worded-minus-all-at-gpt-4"]
    assert (difference["value"], difference["n"], difference["unit"]) == (pytest.approx(-4.75), 4, WH)
    # mbpp: on one of two prompts, for both: 1.5 + 5 Wh.
    macro = found["table-5/macro/backup-as-worded-minus-all-at-gpt-4"]
    assert macro["value"] == pytest.approx((-4.75 - 3.5) / 2)
    assert found["table-5/macro/all-at-gpt-4"]["value"] == pytest.approx(10.0)
    table = energy.as_table(found)
    assert list(table.index) == ["arc-c", "mbpp", "macro"]
    assert table.loc["mbpp", "backup-as-worded"] == pytest.approx(6.5)


def test_measured_results_are_in_wh_and_name_the_large_llm():
    joules = np.array([[3600, 7200], [7200, 14400], [0, 7200]], dtype=float)
    measured = pool([[1, 1], [0, 1], [1, 0]], joules, JOULES, tasks=["x", "x", "x"])
    found = energy.results([np.zeros(3, dtype=int)], measured, "measured", n_resamples=200)
    assert found["measured/x/energy"]["value"] == pytest.approx(1.0)
    assert np.isnan(found["measured/x/energy"]["low"])
    assert found["measured/x/always-large"]["value"] == pytest.approx(8 / 3)
    assert found["measured/x/backup"]["value"] == pytest.approx((1 + 2 + 4 + 0) / 3)
    saving = found["measured/x/saving"]
    assert saving["value"] == pytest.approx(100 * (1 - 3 / 8))
    # The prompts themselves save 50, 50 and 100 %: any resample lies between.
    assert 50 <= saving["low"] < saving["value"] < saving["high"] <= 100
    difference = found["measured/x/backup-minus-always-large"]
    assert difference["value"] == pytest.approx((7 - 8) / 3)
    assert -2 <= difference["low"] < difference["high"] <= 2
    assert difference["unit"] == WH
    again = energy.results([np.zeros(3, dtype=int)], measured, "measured", n_resamples=200)
    assert again["measured/x/saving"] == saving
    with pytest.raises(UserError, match="choices is empty"):
        energy.results([], measured, "measured")
    with pytest.raises(UserError, match="part is 'table-6', expected one of table-5, measured"):
        energy.results([np.zeros(3, dtype=int)], measured, "table-6")


# --- measured against modelled ---------------------------------------------------------------------------------------


def test_three_rules_charge_the_same_choices():
    models = list(mess_plus.MODELS.values())
    joules = np.array([[360, 720, 3600], [1080, 720, 7200]], dtype=float)
    measured = pool(np.ones((2, 3)), joules, JOULES, ["x", "y"], models)
    published = dict(zip(models, (1.0, 2.0, 4.0), strict=True))
    frame = energy.compare_rules(np.array([0, 1]), measured, published).set_index(["dataset", "rule"])
    assert frame.loc[("x", "measured"), "energy"] == pytest.approx(0.1)
    assert frame.loc[("x", "measured"), "saving"] == pytest.approx(90.0)
    assert frame.loc[("x", "own average"), "energy"] == pytest.approx(0.2)
    assert frame.loc[("x", "own average"), "saving"] == pytest.approx(100 * (1 - 0.2 / 1.5))
    assert frame.loc[("x", "published"), "saving"] == pytest.approx(75.0)
    assert frame.loc[("x", "published"), "error"] == pytest.approx(-15.0)
    assert frame.loc[("macro", "measured"), "error"] == 0.0
    without = energy.compare_rules(np.array([0, 1]), measured)
    assert set(without["rule"]) == {"measured", "own average"}


def test_spread_by_hand():
    joules = np.array([[100, 5], [300, 5], [200, 5], [600, 5]], dtype=float)
    measured = pool(np.ones((4, 2)), joules, JOULES, ["x", "x", "y", "y"], prompts=["a", "bbb", "cc", "dddd"])
    frame = energy.spread(measured, np.full((4, 2), 2.0)).set_index(["dataset", "model"])
    x = frame.loc[("x", "llm-0")]
    assert (x["n"], x["mean"], x["watts"]) == (2, 200.0, 100.0)
    assert x["cv"] == pytest.approx(np.sqrt(20000) / 200)
    assert x["ratio"] == pytest.approx(200 / 300)
    assert frame.loc[("all", "llm-0"), "length"] == pytest.approx(1.0)
    assert frame.loc[("all", "llm-1"), "cv"] == 0.0
    assert np.isnan(frame.loc[("all", "llm-1"), "length"])
    assert "watts" not in energy.spread(measured)


def test_explained_share_against_plain_sums():
    rng = np.random.default_rng(0)
    joules = rng.gamma(2.0, [50.0, 500.0], size=(30, 2))
    tasks = np.array(["x", "y", "z"])[np.arange(30) % 3]
    joules[tasks == "y"] *= 3
    frame = energy.explained(pool(np.ones((30, 2)), joules, JOULES, tasks))
    total = rest = 0.0
    for j in range(2):
        for i in range(30):
            total += (joules[i, j] - joules.mean()) ** 2
            rest += (joules[i, j] - joules[tasks == tasks[i], j].mean()) ** 2
    assert frame.loc["all", "by-model-and-dataset"] == pytest.approx(1 - rest / total)
    assert frame.loc["llm-0", "by-model"] == pytest.approx(0.0)
    assert 0 < frame.loc["llm-0", "by-model-and-dataset"] < 1
    assert frame.loc["all", "by-model"] < frame.loc["all", "by-model-and-dataset"]
    assert np.isnan(energy.explained(pool(np.ones((3, 1)), 5.0)).loc["llm-0", "by-model"])


def test_seconds_belong_to_the_rows_of_the_benchmark(data):
    write_mess_plus(data)
    file = read_card("mess-plus").files[0]
    frame = pd.read_csv(data / file.path)
    for j, size in enumerate(mess_plus.MODELS):
        frame[f"inference_time_{size}"] = [1.0 + j, 2.0, 3.0, 99.0, 4.0]
    write(data, file, frame)
    seconds = mess_plus.inference_seconds()
    assert seconds.shape == load("mess-plus").cost.shape
    np.testing.assert_array_equal(seconds[:, 0], [1, 2, 3, 4])
    np.testing.assert_array_equal(seconds[0], [1, 2, 3])


# --- curves ----------------------------------------------------------------------------------------------------------


def test_energy_to_match_by_hand():
    costed = pool([[1, 1], [0, 1], [1, 1], [0, 0]], [1.0, 10.0])
    perfect = costed.quality
    blind = np.tile([1.0, 0.0], (4, 1))
    frame = energy.energy_to_match({"oracle": perfect, "always-small": blind}, costed)
    # llm-1 is right on 3 of 4; the oracle needs it once, so 13 Wh for 4 prompts instead of 40.
    assert frame.loc["oracle", "energy"] == pytest.approx(13 / 4)
    assert frame.loc["oracle", "saving"] == pytest.approx(100 * (1 - 13 / 40))
    assert frame.loc["oracle", "matched"]
    assert not frame.loc["always-small", "matched"]
    assert np.isinf(frame.loc["always-small", "energy"])
    assert np.isnan(frame.loc["always-small", "saving"])


def test_price_and_energy_may_rank_llms_differently():
    dollars = pool(np.ones((2, 3)), [0.1, 0.3, 0.2], "USD per prompt")
    frame, agreement = energy.price_against_energy(dollars, {"llm-0": 1.0, "llm-1": 2.0, "llm-2": 3.0})
    np.testing.assert_array_equal(frame["price-rank"], [1, 3, 2])
    np.testing.assert_array_equal(frame["wh-rank"], [1, 2, 3])
    # Spearman: 1 - 6 (0 + 1 + 1) / (3 * 8).
    assert agreement == pytest.approx(0.5)


# --- the router's own energy -----------------------------------------------------------------------------------------


def test_router_energy_from_time_and_from_operations():
    lamp = router_energy.Device("lamp", 36.0, 1e9, 0.5)
    assert router_energy.router_energy(seconds=10.0, device=lamp) == pytest.approx(0.1)
    # 1e10 operations at half of 1e9 a second take 20 s.
    assert router_energy.router_energy(flops=1e10, device=lamp) == pytest.approx(0.2)
    with pytest.raises(UserError, match="one of the two"):
        router_energy.router_energy()
    with pytest.raises(UserError, match="one of the two"):
        router_energy.router_energy(seconds=1.0, flops=1.0)
    with pytest.raises(UserError, match="seconds is -1"):
        router_energy.router_energy(seconds=-1.0)
    with pytest.raises(UserError, match="desktop processor states no flops_per_second"):
        router_energy.router_energy(flops=1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0.0,), "watts is 0"),
        ((np.inf,), "watts is inf"),
        ((1.0, 0.0), "flops_per_second is 0"),
        ((1.0, 1.0, 1.5), "utilisation is 1.5"),
    ],
)
def test_a_device_that_cannot_be(settings, message):
    with pytest.raises(UserError, match=message):
        router_energy.Device("toaster", *settings)


def test_encoder_operations_against_a_loop_over_matrices():
    layers, width, feed_forward, tokens = 3, 8, 20, 5
    count = 0
    for _ in range(layers):
        for rows, columns in [(width, width)] * 4 + [(width, feed_forward), (feed_forward, width)]:
            count += 2 * tokens * rows * columns
        count += 2 * tokens * width * tokens
        count += 2 * tokens * tokens * width
    assert router_energy.encoder_flops(layers, width, feed_forward, tokens) == count


def test_share_of_the_llms_energy():
    costed = pool([[1, 1], [0, 1]], [7200.0, 3600.0], JOULES)
    frame, values = router_energy.share_of_llm(0.01, costed, [np.array([0, 1]), np.array([1, 1])], n_resamples=200)
    assert list(frame["llm"]) == ["llm-1", "llm-0", "as routed"]
    # The prompts take 1.5 and 1 Wh on average over the two seeds.
    np.testing.assert_allclose(frame["share"], [1.0, 0.5, 0.8])
    assert values["router/wh-per-prompt"] == {"value": 0.01, "unit": WH}
    share = values["router/share-of-llm"]
    assert (share["value"], share["low"], share["high"]) == pytest.approx((0.8, 2 / 3, 1.0))
    assert (share["n"], share["unit"]) == (2, "percent")
    with pytest.raises(UserError, match="wh is -1"):
        router_energy.share_of_llm(-1.0, costed, [np.array([0, 1])])
    with pytest.raises(UserError, match="choices is empty"):
        router_energy.share_of_llm(1.0, costed, [])


def test_measuring_a_router_takes_the_processor_time_of_both_its_parts(monkeypatch, encoded):
    few = load("tinypool").subset(np.arange(40))
    router = KNN(n_neighbours=5).fit(few, few.embeddings)
    # Every look at the clock is one second after the one before: one call takes one second.
    clock = itertools.count()
    monkeypatch.setattr(router_energy.time, "process_time", lambda: float(next(clock)))
    seconds = router_energy.measure_router(router, "minilm", few.prompts[:3], few.embeddings[:3])
    assert encoded == [few.prompts[0], *few.prompts[:3]]
    assert seconds == {"encoding": 1.0, "scoring": 1.0}
    assert next(clock) == 2 * (3 + 3)
    with pytest.raises(UserError, match=r"3 prompts and 2 embeddings"):
        router_energy.measure_router(router, "minilm", few.prompts[:3], few.embeddings[:2])


def test_tinypool_energy_is_modelled_from_its_operations():
    tinypool = load("tinypool")
    lamp = router_energy.Device("lamp", 36.0, 1e9, 0.5)
    costed = router_energy.from_flops(tinypool, lamp)
    np.testing.assert_allclose(costed.cost, tinypool.cost / 5e8 * 36 / 3600)
    assert costed.cost_unit == WH
    assert costed.notes[-1] == "energy modelled from FLOPs on a lamp at 50% of its peak rate"
    with pytest.raises(UserError, match=r"costs Wh per prompt, expected FLOPs per prompt"):
        router_energy.from_flops(costed)


# --- the real files --------------------------------------------------------------------------------------------------


def test_every_proxy_is_in_the_real_tables(real_data, monkeypatch):
    monkeypatch.delenv("ROUTEBOOK_ALLOW_MODIFIED", raising=False)
    tables = energy_tables.read_published()
    for source in ("ai-energy-score", "ml-energy"):
        table = energy_tables.energy_table(source, tables)
        assert (table["wh_per_prompt"] > 0).all()
        assert table["model"].is_unique
        assert table["wh_per_prompt"].idxmax() == table.index[table["model"] == "gpt-4-1106-preview"][0]
    assert (energy_tables.published_by_size(tables)["wh"] > 0).all()


def test_routerbench_without_claude_has_energy(real_data):
    benchmark, table = load("routerbench"), energy_tables.energy_table()
    known = energy_tables.models_with_energy(benchmark, table)
    assert [model for model in benchmark.models if model not in known] == [
        model for model in benchmark.models if model.startswith("claude")
    ]
    costed = energy.with_energy(benchmark.subset(models=known), table)
    assert costed.mean_cost.max() == pytest.approx(13.529)
    with pytest.raises(UserError, match=r"has no entry for 'claude"):
        energy.with_energy(benchmark, table)
