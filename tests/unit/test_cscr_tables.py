"""What the CSCR chapter shows and records: families, Table 1 and its readings, Tables 14 to 16, other fingerprints."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from replications.cscr import experiment, fingerprints, tables
from replications.cscr.experiment import OUTCOMES, PoolSetting
from replications.cscr.params import CSCRParams
from routebook import ledger, paths
from routebook.datasets import simulated
from routebook.deferral import deferral_curve

SMALL = CSCRParams.build({"pools": ["simulated"], "n_seeds": 2, "min_steps": 5, "epochs": 1, "n_bootstrap": 100})


def _setting(n_prompts=300, n_llms=7, seed=3):
    benchmark, _ = simulated.mixture(n_prompts, n_llms, 4, seed=seed)
    vectors = np.random.default_rng(seed).standard_normal((n_llms, 12))
    descriptors = dict(zip(benchmark.models, vectors, strict=True))
    return PoolSetting("simulated", benchmark, benchmark.embeddings, descriptors)


@pytest.fixture(scope="module")
def setting():
    return _setting()


@pytest.fixture(scope="module")
def done(setting):
    return experiment.run_all({"simulated": setting}, SMALL.seeds, partial(experiment.routers_for, SMALL))


@pytest.fixture(scope="module")
def frame(done):
    return experiment.evaluate(done)


def test_processes_change_no_number(setting, done):
    again = experiment.run_all({"simulated": setting}, SMALL.seeds, partial(experiment.routers_for, SMALL), n_jobs=2)
    for one, other in zip(done, again, strict=True):
        for method, estimate in one.estimates.items():
            np.testing.assert_array_equal(other.estimates[method], estimate)
    alone, together = (tables.table16_numbers(tables.compared(done, SMALL, n)) for n in (1, 2))
    assert alone.equals(together)


def test_a_longer_training_is_another_router_only_where_it_is_longer(setting, done, frame):
    """One epoch is one step: the same router, and as far from UMR as the page's own."""
    params = SMALL.model_copy(update={"min_steps": 0, "long_steps": 1})
    pools = {"simulated": setting}
    plain = experiment.run_all(pools, params.seeds, partial(experiment.routers_for, params))
    areas = experiment.evaluate(plain)
    steps, found = tables.training_lengths(params, pools, areas)
    assert steps["simulated"] == plain[0].routers["cscr"].n_steps_ == 1
    for method in tables.TRAINED:
        assert found["simulated"][f"longer-{method}-minus-{method}"].estimate == 0
    ours_less_umr = experiment.difference(areas, "simulated", "cscr", "umr")
    assert found["simulated"]["longer-cscr-minus-umr"] == ours_less_umr
    shown = tables.training_lengths_table(steps, found)
    assert list(shown.index[:2]) == ["training steps", "CSCR, longer less CSCR"]
    assert shown.index[-1] == "CSCR less Parametric, longer"
    # Five steps are the routers that the module's settings train.
    longer, apart = tables.training_lengths(params.model_copy(update={"long_steps": 5}), pools, areas)
    assert longer["simulated"] == done[0].routers["cscr"].n_steps_ == 5
    for pair, a, b in (
        ("longer-cscr-minus-cscr", (frame, "cscr"), (areas, "cscr")),
        ("longer-cscr-minus-umr", (frame, "cscr"), (areas, "umr")),
        ("cscr-minus-longer-soft-moe", (areas, "cscr"), (frame, "soft-moe")),
    ):
        left, right = (each.loc[each["method"] == method, "area"].mean() for each, method in (a, b))
        assert apart["simulated"][pair].estimate == pytest.approx(left - right)
    assert apart["simulated"]["longer-cscr-minus-cscr"].estimate != 0


# ------------------------------------------------------------------------------------------------------- fingerprints


def test_family_contrast_is_the_mean_within_less_the_mean_between():
    vectors = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [-1.0, 0.0]])
    found = tables.family_contrast(vectors, ["a", "a", "b", "b"], n_resamples=200)
    half = np.sqrt(0.5)
    within = (half + 0.0) / 2
    between = (0.0 - 1.0 + half - half) / 4
    assert found.estimate == pytest.approx(within - between)
    assert found.low <= found.estimate <= found.high
    assert found.n == 4


def test_the_bootstrap_over_llms_weighs_pairs_and_leaves_out_an_llm_with_itself():
    rng = np.random.default_rng(5)
    vectors, families = rng.standard_normal((6, 4)), list("aabbbc")
    found = tables.family_contrast(vectors, families, n_resamples=50, seed=9)
    similarity, values = tables.cosines(vectors), []
    for counts in np.random.default_rng(9).multinomial(6, np.full(6, 1 / 6), size=50):
        drawn = np.repeat(np.arange(6), counts)
        pairs = [(i, j) for i, j in combinations(drawn, 2) if i != j]
        within = [similarity[i, j] for i, j in pairs if families[i] == families[j]]
        between = [similarity[i, j] for i, j in pairs if families[i] != families[j]]
        if within and between:
            values.append(np.mean(within) - np.mean(between))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_cosines_run_over_pairs_of_different_llms():
    vectors = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])
    models = ["gpt-3", "gpt-4", "yi-9b"]
    setting = SimpleNamespace(
        benchmark=SimpleNamespace(models=models), descriptors=dict(zip(models, vectors, strict=True))
    )
    assert tables.cosine_range(setting) == pytest.approx((0.0, 0.8))
    shown = tables.contrast_table({"routerbench": setting})["RouterBench"]
    assert shown["families"] == "2, of 3 LLMs"
    assert shown["cosine of two LLMs"] == "0.000 to 0.800"
    assert shown["within less between families"].startswith("-0.7000")


def test_families_of_one_have_no_contrast():
    found = tables.family_contrast(np.eye(3), ["a", "b", "c"], n_resamples=20)
    assert np.isnan([found.estimate, found.low, found.high]).all()


def test_a_small_pool_is_shown_llm_by_llm_and_a_large_one_family_by_family(monkeypatch):
    models = ["llama-2", "gpt-4", "llama-1", "claude-2"]
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [1.0, 1.0]])
    setting = SimpleNamespace(
        benchmark=SimpleNamespace(models=models), descriptors=dict(zip(models, vectors, strict=True))
    )
    single = tables.similarity_matrix(setting)
    assert list(single.index) == list(single.columns) == ["claude-2", "gpt-4", "llama-1", "llama-2"]
    assert single.loc["llama-1", "llama-2"] == pytest.approx(0.6)
    monkeypatch.setattr(tables, "READABLE", 3)
    by_family = tables.similarity_matrix(setting)
    assert list(by_family.index) == list(by_family.columns) == ["claude", "gpt", "llama"]
    assert by_family.loc["llama", "llama"] == pytest.approx(0.6)
    assert by_family.loc["gpt", "llama"] == pytest.approx((0.0 + 0.8) / 2)
    assert np.isnan(by_family.loc["gpt", "gpt"]), "a family of one has no pair"


def test_without_shortness_each_llms_short_and_long_answers_have_the_same_mean():
    entropy = pd.DataFrame({"x": [1.0, 2.0, 5.0, 9.0], "y": [1.0, 2.0, 4.0, 5.0]})
    tokens = pd.DataFrame({"x": [1, 1, 8, 9], "y": [3, 4, 5, 6]})
    found = tables.without_shortness(fingerprints.ProbeScores(entropy, tokens, 32))
    expected = np.array([[-0.5, 0.5, -2.0, 2.0], [-2.0, -1.0, 1.0, 2.0]])
    assert found == pytest.approx(expected / np.linalg.norm(expected, axis=1, keepdims=True))


def test_a_missing_pool_is_said_in_the_figures_place(setting):
    texts = [t.get_text() for t in tables.similarity_plot({"simulated": setting}, "routerbench").axes[0].texts]
    assert texts == ["RouterBench is not among the pools of this run."]


# ------------------------------------------------------------------------------------------------------------- table 1


def test_the_records_are_the_keys_that_the_ledger_reads(setting, done, frame):
    reads = set()
    for _, claim in ledger.load(paths.project_root() / "replications/cscr/ledger.yaml").claims:
        reads.update([claim.reads] if isinstance(claim.reads, str) else claim.reads)
    profiles = experiment.profiles(done)
    pairs = tables.compared(done, SMALL)["simulated"]
    best = tables.strongest(frame, "simulated")
    found = [
        *tables.figure2_records(setting),
        *tables.table1_records(frame, setting),
        *tables.profile_records(profiles),
        *tables.table16_records("simulated", pairs[best]),
    ]
    ours = {record["id"].replace("simulated", "tinypool") for record in found}
    wanted = {key for key in reads if key.split("/")[:2] in _chapter_tables("tinypool")}
    assert wanted
    assert wanted <= ours


def _chapter_tables(pool):
    return [[table, pool] for table in ("figure-2", "table-1", "table-14", "table-15", "table-16")]


def test_differences_and_the_lead_are_paired_over_seeds(setting, frame):
    records = {record["id"]: record for record in tables.table1_records(frame, setting)}
    wide = experiment.by_seed(frame, "simulated")
    lead = records["table-1/simulated/cscr-over-umr-percent"]
    leads = [100 * (row["cscr"] / row["umr"] - 1) for _, row in wide.iterrows()]
    assert lead["value"] == pytest.approx(np.mean(leads))
    assert lead["unit"] == "%"
    assert records["table-1/simulated/cscr-minus-umr/area"]["value"] == pytest.approx(
        (wide["cscr"] - wide["umr"]).mean()
    )
    assert records["table-1/simulated/umr/cost-at-peak"]["unit"] == experiment.cost_unit(setting.benchmark)[0]


def test_table_1_marks_the_largest_area_that_is_not_the_oracles(setting, frame):
    numbers, shown = tables.table1(frame, setting)
    best = numbers["area"].drop("oracle").idxmax()
    bold = [row for row, cells in zip(numbers.index, shown["area, exact"], strict=True) if "<b>" in cells]
    assert bold == [best]
    assert (shown["AUDC in the paper"] == "–").all(), "the paper has no simulated pool"


def test_routerbench_stands_beside_the_papers_numbers(setting, frame):
    named = PoolSetting("routerbench", setting.benchmark, setting.embeddings, setting.descriptors)
    _, shown = tables.table1(frame.assign(pool="routerbench"), named)
    row = shown.xs("CSCR", level=1).iloc[0]
    assert (row["AUDC in the paper"], row["QNC in the paper"], row["Peak in the paper"]) == ("0.7110", "1.660", "0.794")


def test_a_tally_counts_pools_by_their_interval():
    rows = [
        {"pool": pool, "seed": seed, "method": method, "area": area}
        for pool, leads in {"a": (0.10, 0.11), "b": (-0.2, -0.21), "c": (0.3, -0.3)}.items()
        for seed, lead in enumerate(leads)
        for method, area in (("cscr", 0.5 + lead), ("umr", 0.5))
    ]
    assert tables.tally(pd.DataFrame(rows), "umr") == "more on 1, less on 1, not told apart on 1 (pools: 3)"


def test_order_flips_count_pairs_that_two_metrics_order_differently():
    values = {"x": (1.0, 3.0), "y": (2.0, 2.0), "z": (3.0, 2.0)}
    rows = [{"pool": "p", "seed": 0, "method": m, "area": a, "qnc": b} for m, (a, b) in values.items()]
    # x and y change order, x and z too; y and z tie on the second metric.
    assert tables.order_flips(pd.DataFrame(rows), "p", "area", "qnc", ("x", "y", "z")) == (2, 3)


def test_the_codes_audc_of_a_router_depends_on_its_company(done):
    found = tables.audc_by_company(done[0])
    alone = found["CSCR and UMR alone"].dropna()
    assert list(alone.index) == ["umr", "cscr"]
    assert list(found["CSCR and Random alone"].dropna().index) == ["random", "cscr"]
    assert (found.loc[alone.index, "all routers here"] - alone).abs().max() > 1e-6
    shown = tables.audc_table(found)
    lead = alone["cscr"] - alone["umr"]
    assert shown.loc["CSCR − UMR", "CSCR and UMR alone"] == f"<b>{lead:+.4f}</b>"
    assert shown.loc["CSCR − UMR", "CSCR and Random alone"] == "–"


def test_panels_show_every_pools_first_run_and_the_mean_of_its_areas(setting, done, frame):
    (panel,) = tables.curve_panels(done)
    assert len(panel.points) == len(setting.benchmark.models)
    assert panel.curves["cscr"][1].max() == pytest.approx(done[0].curves["cscr"].peak)
    (mean,) = tables.mean_panels(done)
    cost, quality = mean.curves["umr"]
    area = experiment.summary(frame, "simulated").loc["umr", "value"]
    assert np.trapezoid(quality, cost) == pytest.approx(area, abs=5e-3)


# ------------------------------------------------------------------------------------------------- tables 14, 15 and 16


def test_bands_and_outcomes_count_every_test_prompt_once(done):
    profiles = experiment.profiles(done)
    records = {record["id"]: record["value"] for record in tables.profile_records(profiles)}
    n = profiles["n"].mean()
    assert sum(v for key, v in records.items() if key.startswith("table-14/")) == pytest.approx(n)
    assert sum(records[f"table-15/simulated/{outcome}"] for outcome in OUTCOMES) == pytest.approx(n)
    for shown in (tables.table14(profiles), tables.table15(profiles)):
        assert shown.loc["sum", "simulated"] == f"{n:.0f} of {n:.0f}"
    assert tables.table14(profiles).loc["sum", "EmbedLLM, paper"] == "3000 of 3000"
    assert tables.table15(profiles).loc["sum", "EmbedLLM, paper"] == "1657 of 3000"


def test_table_16_compares_the_papers_design_on_the_first_run(setting, done, frame):
    found = tables.compared(done, SMALL)
    numbers = tables.table16_numbers(found)
    assert set(found) == {"simulated"}
    assert set(found["simulated"]) == set(tables.COMPARED)
    first = frame[frame["seed"] == SMALL.seed].set_index("method")["area"]
    assert numbers.loc["simulated/umr", "delta"] == pytest.approx(first["cscr"] - first["umr"])
    best = tables.strongest(frame, "simulated")
    means = experiment.by_seed(frame, "simulated").mean()
    assert means[best] == max(means[method] for method in tables.BASELINES)
    shown = tables.table16(found, {"simulated": best}, {"simulated": setting})
    assert shown.loc["EmbedLLM, paper"].loc["UMR", "wins / losses"] == "560 / 366"
    bold = [name for place, name in shown.index if name.startswith("<b>")]
    assert len(bold) == 1


def test_routers_that_never_differ_have_no_share_of_wins():
    nothing = experiment.Estimate(np.nan, np.nan, np.nan, 0, "", p_value=1.0)
    delta = experiment.Estimate(0.0, 0.0, 0.0, 5, "", p_value=1.0)
    found = list(tables.table16_records("p", experiment.Paired(delta, 1.0, 0, 0, nothing)))
    assert [record["id"] for record in found] == ["table-16/p/delta"]


# ------------------------------------------------------------------------------------------------------------- figure 5


def test_examples_escape_prompts_and_say_when_there_is_none(done, monkeypatch):
    run = done[0]
    row = {"row": 0, "task": "a<b", "prompt": "<script>x</script> " + "y" * 500}
    for place, method in enumerate(("umr", "vanilla", "cscr")):
        row |= {f"{method}-llm": f"maker/llm-{place}", f"{method}-quality": 1.0, f"{method}-cost": 2.0}
    monkeypatch.setattr(experiment, "examples", lambda run, n: pd.DataFrame([row]))
    shown = tables.example_table(run, 3).iloc[0]
    assert "<script>" not in shown["prompt"]
    assert shown["prompt"].startswith("&lt;script&gt;")
    assert "a&lt;b" in shown["prompt"]
    assert "…" in shown["prompt"]
    assert shown["CSCR"].startswith("llm-2")
    monkeypatch.setattr(experiment, "examples", lambda run, n: pd.DataFrame([row]).iloc[:0])
    assert "no test prompt" in tables.example_table(run, 3).iloc[0]["prompt"]


# ------------------------------------------------------------------------------------------------- other fingerprints


def test_changed_fingerprints(setting):
    models = setting.benchmark.models
    own = np.stack([setting.descriptors[m] / np.linalg.norm(setting.descriptors[m]) for m in models])
    changed = {
        how: np.stack(list(tables.changed_descriptors(setting.descriptors, models, how, seed=1).values()))
        for how in tables.CONTENTS
    }
    assert tables.cosines(changed["rotated"]) == pytest.approx(tables.cosines(own), abs=1e-5)
    assert not np.allclose(changed["rotated"], own, atol=1e-2)
    holder = np.abs(changed["permuted"][:, None] - own[None]).max(axis=2).argmin(axis=1)
    assert sorted(holder) == list(range(len(models)))
    assert (holder != np.arange(len(models))).all(), "no LLM keeps its own"
    assert np.linalg.norm(changed["random"], axis=1) == pytest.approx(1.0)


def test_content_effects_are_differences_to_the_runs_own_area(setting, done):
    effects = tables.content_effects(done[:1], SMALL)
    assert list(effects["how"]) == list(tables.CONTENTS)
    split = done[0].split
    other = split.with_descriptors(
        tables.changed_descriptors(split.descriptors, split.train.models, "random", split.seed)
    )
    router = experiment.cscr_for(SMALL, other).fit(split.train, split.train_embeddings)
    estimate = experiment.with_last_resort(router.predict_quality(split.test_embeddings), split.price)
    area = deferral_curve(estimate, split.test.quality, split.price, paid=split.test.cost).area(left="flat")
    expected = area - done[0].curves["cscr"].area(left="flat")
    assert effects.set_index("how").loc["random", "difference"] == pytest.approx(expected, abs=1e-9)
    assert tables.content_table(effects).shape == (3, 1)
    assert tables.content_effects(done[:1], SMALL, n_jobs=2).equals(effects), "processes change no number"


def test_the_default_setting_has_eight_printed_areas():
    found = tables.default_areas()
    assert len(found) == 9
    assert found.loc["CSCR, Table 8", "value"] == 0.5480
    assert (found["low"] == found["high"]).all()
