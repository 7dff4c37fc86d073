"""CSCR's ablations and open choices: what is trained once, what is recorded, and every other choice by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from replications.cscr import ablations, choices, experiment, fingerprints, sign, theory
from replications.cscr.ablations import Results, Trainer
from replications.cscr.choices import Again, Material
from replications.cscr.experiment import PoolSetting, Run, Split
from replications.cscr.params import AblationsParams
from replications.cscr.recovery import specialists
from routebook import encoders, ledger
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import DeferralCurve, audc_cscr, deferral_curve
from routebook.errors import UserError

SMALL = {"pools": ["simulated"], "n_seeds": 2, "min_steps": 2, "epochs": 1, "batch_size": 64, "umr_clusters": 3}


@pytest.fixture(scope="module")
def params():
    return AblationsParams.build(SMALL)


@pytest.fixture(scope="module")
def setting():
    """Twenty-one experts, as many as TinyPool has, under a name whose splits are drawn."""
    benchmark, truth = specialists(240, 21, seed=1)
    return PoolSetting("simulated", benchmark, benchmark.embeddings, truth.descriptors)


@pytest.fixture(scope="module")
def found(params, setting):
    pools = {"simulated": setting}
    return ablations.results(params, pools, ablations.run_all(params, pools, n_jobs=1))["simulated"]


@pytest.fixture(scope="module")
def published(root):
    return ledger.load(root / "replications" / "cscr" / "ledger.yaml").cells


# --- what is trained -------------------------------------------------------------------------------------------------


def test_the_papers_values_must_be_swept():
    with pytest.raises(UserError, match=r"gammas lacks 0\.3"):
        AblationsParams.build({"gammas": [0.0, 0.1, 0.2, 0.5]})
    assert AblationsParams.build({"gammas": [0.0, 0.05, 0.1, 0.2, 0.3, 0.5]}).gammas[1] == 0.05


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ({}, {"k": 1}, True),
        ({}, {"n_bands": 5, "gamma": 0.2, "width_factor": 1}, True),
        ({"gamma": 0.0, "gamma_sign": "printed"}, {"gamma": 0.0, "gamma_sign": "other"}, True),
        ({"loss": "vanilla"}, {"loss": "vanilla", "n_bands": 2, "gamma": 0.5}, True),
        ({"gamma": 0.1, "gamma_sign": "printed"}, {"gamma": 0.1, "gamma_sign": "other"}, False),
        ({}, {"n_bands": 1}, False),
        ({}, {"alpha": 0.0}, False),
        ({}, {"width_factor": 4}, False),
        ({}, {"seed": 77}, False),
    ],
)
def test_settings_share_a_training_exactly_where_it_leads_to_one_network(params, setting, a, b, same):
    assert (ablations.training_key(params, a) == ablations.training_key(params, b)) is same
    split = setting.split(0)
    # Each on a trainer of its own, so that nothing is shared.
    one, other = (Trainer(params, split).cscr(**changes).project(split.test_embeddings) for changes in (a, b))
    assert (one.shape == other.shape and np.array_equal(one, other)) is same


def test_another_k_takes_no_training(params, setting, monkeypatch):
    fits = []
    plain = experiment.train
    monkeypatch.setattr(experiment, "train", lambda *args: fits.append(1) or plain(*args))
    split = setting.split(0)
    trainer = Trainer(params, split)
    routers = {k: trainer.cscr(k=k) for k in (1, 4, 21)}
    assert len(fits) == 1
    for k, router in routers.items():
        assert ((~np.isnan(router.predict_quality(split.test_embeddings))).sum(axis=1) == k).all()


def test_values_beyond_a_pool_are_left_out(params, setting):
    small = replace(setting, benchmark=setting.benchmark.subset(models=setting.benchmark.models[:11]))
    kept = ablations.sweeps(params, small)
    assert list(kept["table-8"].settings) == ["bands-2", "bands-5", "bands-11"]
    assert list(kept["table-9"].settings) == ["k-1", "k-2", "k-4", "k-8"]
    assert len(ablations.sweeps(params, setting)["table-8"].settings) == 5


def test_trainings_are_counted_once(params, setting):
    # The default; vanilla; one band; 2, 11, 15 and 20 bands; four more gammas with each sign, 0 once; the other sign
    # at 0.2; four alphas; three taus; one width.
    assert ablations.n_trainings(params, {"it": setting}) == 1 + 1 + 1 + 4 + (4 + 3 + 1) + 4 + 3 + 1


def test_a_run_is_the_same_bit_for_bit(params, setting):
    first, again = (ablations.run_split((params, setting, 0)) for _ in range(2))
    for name, estimate in first.estimates.items():
        assert np.array_equal(estimate, again.estimates[name], equal_nan=True), name


def test_work_in_processes_keeps_its_order():
    assert experiment.in_processes(np.sqrt, [9.0, 4.0, 1.0], 2, "roots") == [3.0, 2.0, 1.0]
    with pytest.raises(UserError, match="n_jobs is 0"):
        experiment.in_processes(np.sqrt, [9.0], 0, "roots")


def test_small_work_starts_no_processes(params):
    assert experiment.processes_for(params, 100) == 1
    assert experiment.processes_for(AblationsParams.build({}), 10**6) >= 1


# --- what is recorded ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["routerbench", "alpaca-eval", "tinypool"])
def test_every_result_the_ledger_reads_is_recorded(params, setting, root, pool):
    n_models = {"routerbench": 11}.get(pool, 21)
    benchmark = replace(setting.benchmark.subset(models=setting.benchmark.models[:n_models]), name="simulated")
    here = {"simulated": replace(setting, benchmark=benchmark)}
    its = ablations.results(params, here, ablations.run_all(AblationsParams.build(SMALL | {"n_seeds": 1}), here, 1))
    tables = ["table-5", *(f"table-{n}" for n in range(7, 14))]
    keys = {one["id"] for table in tables for one in ablations.records(its["simulated"], table)}
    keys |= {one["id"] for one in ablations.slope_records("simulated", ablations.sign_frame(its["simulated"]))}
    claims = ledger.load(root / "replications" / "cscr" / "ledger.yaml").claims
    reads = [key for _, c in claims for key in ([c.reads] if isinstance(c.reads, str) else c.reads)]
    wanted = {key.removeprefix("ablations/") for key in reads if key.startswith("ablations/") and f"/{pool}/" in key}
    assert len(wanted) > 40
    assert {key.replace(f"/{pool}/", "/simulated/") for key in wanted} <= keys


def test_differences_are_paired_over_seeds(found):
    keys = ("bands-5", "bands-2")
    areas = {key: [run.curves[f"table-8/{key}"].area(left="flat") for run in found.runs] for key in keys}
    records = {one["id"]: one for one in ablations.records(found, "table-8")}
    told = records["table-8/simulated/bands-5-minus-bands-2/area"]
    assert told["value"] == pytest.approx(np.mean(np.subtract(areas["bands-5"], areas["bands-2"])))
    assert told["n"] == 2
    assert records["table-8/simulated/bands-5/area"]["value"] == pytest.approx(np.mean(areas["bands-5"]))


def test_the_codes_area_is_taken_among_a_tables_own_rows(found):
    run = found.runs[0]
    curves = {key: run.curves[f"table-7/{key}"] for key in ("with", "without")}
    alone = audc_cscr(curves, experiment.code_lambdas(run.split))
    frame = found.frames["table-7"].query("seed == 0").set_index("method")["audc-code"]
    assert frame.to_dict() == pytest.approx(alone)


def test_the_default_has_one_area_in_every_table(found):
    shown = ablations.default_table({"simulated": found}).loc["simulated"]
    exact, code = shown.iloc[0], shown.iloc[1]
    assert len(shown.columns) == 8
    assert exact.nunique() == 1
    assert code.nunique() > 1


def test_price_of_the_nearest_llm_by_hand():
    quality = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    bench = RoutingBenchmark(
        "toy", ["a", "b"], np.array(["t", "t"]), ["x", "y", "z"], quality, np.tile([1.0, 2.0, 5.0], (2, 1)), "USD",
        origin="simulated",
    )  # fmt: skip
    split = Split("toy", 0, bench, bench, np.zeros((2, 1)), np.zeros((2, 1)), {}, {"x": 1.0, "y": 2.0, "z": 5.0})
    # The nearest are y, (2 - 1) / 4 of the way, and z.
    estimates = {"it": np.array([[np.nan, 0.9, 0.1], [0.2, np.nan, 0.3]])}
    assert ablations.chosen_cost(Run(split, {}, estimates, {}), "it") == pytest.approx((0.25 + 1) / 2)


def test_empty_bands_are_counted(params, setting):
    cost = np.repeat([1.0, 2.0, 3.0], 7)
    flat = replace(setting, benchmark=setting.benchmark.with_cost(cost, "units"))
    its = Results(flat, [Run(flat.split(0), {}, {}, {})], ablations.sweeps(params, flat), {})
    shown = ablations.filled_bands({"simulated": its}).loc["simulated"]
    assert shown["2 asked for"] == "2"
    assert shown["20 asked for"] == "3"


# --- the sign of gamma -----------------------------------------------------------------------------------------------


def sign_frame(printed, other):
    """Costs at the peak under each sign; the chosen LLM's cost is half of it."""
    rows = [
        {"sign": name, "gamma": g, "seed": seed, "cost_at_peak": c + seed, "chosen_cost": (c + seed) / 2}
        for name, costs in (("printed", printed), ("other", other))
        for g, c in zip(sign.GAMMAS, costs, strict=True)
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows)


def test_table_10s_costs_are_read_from_the_paper(published):
    printed = ablations.printed_costs(published["table-10"])
    assert printed.to_dict() == {0.0: 55.543, 0.1: 44.499, 0.2: 43.083, 0.3: 14.901, 0.5: 8.836}


def test_signs_are_set_beside_table_10(published):
    frames = {"tinypool": sign_frame([1, 2, 3, 4, 5], [9, 7, 5, 3, 1])}
    shown, agreement = ablations.sign_table(frames, published["table-10"])
    assert agreement == {"printed": 0.0, "other": 1.0}
    rows = {name: shown.loc[("TinyPool", words)] for name, words in ablations.SIGN_WORDS.items()}
    assert rows["printed"]["rank correlation with Table 10"] == "-1.00"
    assert rows["other"]["rank correlation with Table 10"] == "+1.00"
    # Means over the two seeds: 1.5 to 5.5, and 9.5 to 1.5.
    assert rows["printed"].iloc[1] == f"{5.5 / 1.5:.2f}"
    assert rows["other"].iloc[1] == f"{1.5 / 9.5:.2f}"
    assert rows["printed"].iloc[0].startswith("<b>+")


def test_the_figure_of_signs_shows_means_and_the_papers_column(published):
    frames = {"simulated": sign_frame([1, 2, 3, 4, 5], [9, 7, 5, 3, 1])}
    (panel,) = ablations.peak_panels(frames, published["table-10"])
    assert panel.curves["other"][1] == pytest.approx(np.array([9.5, 7.5, 5.5, 3.5, 1.5]) / 9.5)
    assert panel.curves["paper"][1][-1] == pytest.approx(8.836 / 55.543)
    (chosen,) = ablations.chosen_panels(frames)
    assert chosen.curves["printed"][1] == pytest.approx(np.array([1.5, 2.5, 3.5, 4.5, 5.5]) / 2)


def test_signs_of_a_pool_share_their_zero(found):
    frame = ablations.sign_frame(found).set_index(["sign", "gamma", "seed"]).sort_index()
    for seed in (0, 1):
        assert frame.loc[("printed", 0.0, seed), "area"] == frame.loc[("other", 0.0, seed), "area"]
        assert frame.loc[("printed", 0.5, seed), "chosen_cost"] != frame.loc[("other", 0.5, seed), "chosen_cost"]


def test_tallies_count_pools(found):
    class Two:
        sweeps = found.sweeps

        def __init__(self, low, high):
            self.bounds = low, high

        def difference(self, *_):
            return type("E", (), {"low": self.bounds[0], "high": self.bounds[1]})()

    pools = {"a": Two(0.1, 0.2), "b": Two(-0.1, 0.2), "c": Two(-0.3, -0.2), "d": Two(0.1, 0.3)}
    said = ablations.tally(pools, "table-5", "cscr", "vanilla")
    assert said == "more on 2, less on 1, cannot be told apart on 1"


# --- as shown, and theory --------------------------------------------------------------------------------------------


def test_tables_show_the_papers_cells_and_ours(found, published):
    numbers, shown = ablations.shown({"simulated": found}, "table-8", published["table-8"])
    assert shown.loc[("the paper", "bands:5"), ablations.HEADS["audc-code"]] == "0.5480"
    assert shown.loc[("the paper", "bands:5"), ablations.HEADS["area"]] == "–"
    ours = shown.loc["simulated, simulated units"]
    assert ours.loc["bands:5", "area minus the default's"] == "–"
    best = numbers["area"].idxmax().rpartition("-")[2]
    assert ours.loc[f"bands:{best}", ablations.HEADS["area"]].startswith("<b>")
    assert sum(cell.startswith("<b>") for cell in ours[ablations.HEADS["area"]]) == 1
    worst = found.difference("table-9", "k-1", "k-4")
    _, shown = ablations.shown({"simulated": found}, "table-9", published["table-9"])
    assert f"{worst.estimate:+.4f}" in shown.loc[("simulated, simulated units", "K=1"), "area minus the default's"]


@pytest.mark.parametrize("table", ["table-5", "table-7", "table-10/printed", "table-13"])
def test_every_row_of_a_published_table_is_ours_too(found, published, table):
    rows = {row for row, _ in published[table.partition("/")[0]]}
    assert rows == set(found.sweeps[table].rows.values())


def test_figures_6_and_7_draw_every_number_of_bands(found):
    (panel,), looks = ablations.band_panels({"simulated": found})
    assert set(panel.curves) == set(looks) == set(found.sweeps["table-8"].settings)
    assert len({(look.colour, look.dash) for look in looks.values()}) == 5
    metrics = ablations.band_metric_panels({"simulated": found})
    assert [p.curves["cscr"][0].tolist() for p in metrics] == [[2, 5, 11, 15, 20]] * 3
    areas = [found.estimate("table-8", f"bands-{n}").estimate for n in (2, 5, 11, 15, 20)]
    assert metrics[0].curves["cscr"][1] == pytest.approx(areas)


def test_lemma_table_contradicts_the_lemma_row_by_row():
    shown = ablations.lemma_table()
    assert set(shown.index) == {example.name for example in theory.lemma_examples()}
    assert (shown["correct: cost"].astype(float) <= shown["wrong: cost"].astype(float)).all()
    assert (shown["its similarity"].astype(float) < shown["its similarity, more"].astype(float)).all()
    assert (shown["gradient"].astype(float) < 1e-9).all()


def test_rate_table_by_hand():
    row = ablations.rate_table().loc[1]
    # n = 10^6, d = 1: the printed bound at k = 100 is sqrt(100 / 10^6) + 1/100.
    assert (row["best k, printed"], row["best k, proved"]) == ("100", "10,000")
    assert row["printed bound there"] == "0.020"
    assert row["proved bound at the printed k"] == f"{np.sqrt(np.log(2) / 100) + 1e-4:.3f}"


# --- what the paper leaves open --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def again(params, setting):
    return Again(params, Material(setting), 0)


def test_every_row_has_a_measurement_or_a_reason():
    assert len(choices.OPEN) == 31
    assert all(choice.alternatives or choice.remark for choice in choices.OPEN)
    keys = [a.key for choice in choices.OPEN for a in choice.alternatives]
    assert len(keys) == len(set(keys))


def test_a_curve_on_a_grid_of_lambda_keeps_only_what_the_grid_meets():
    curve = DeferralCurve([0, 1, 2, 3], [4, 3, 2, 1], [0.9, 0.8, 0.5, 0.1], np.ones(4), [1.0, 4.0], [0.1, 0.9], 10)
    thin = choices.thinned(curve, np.array([2.5, 0.2, 9.0, 0.1]))
    assert thin.cost.tolist() == [4, 2, 1]
    # The line from (2, .5) to (4, .9) replaces that through (3, .8).
    assert thin.area() == pytest.approx(((0.1 + 0.5) / 2 + 2 * (0.5 + 0.9) / 2) / 3)


def test_eq_9_as_printed_takes_the_least_similar_of_the_k(again, params):
    split = again.split
    similarity = again.trainer.cscr().similarity(split.test_embeddings)
    top = np.argsort(-similarity, axis=1)[:, : params.k]
    rows = np.arange(len(top))
    quality = split.test.quality[rows, top[:, -1]].mean()
    curve = choices.as_printed(again)
    assert curve.quality[0] == pytest.approx(quality)
    assert curve.cost[0] == pytest.approx(split.test.cost[rows, top[:, -1]].mean())
    # At any lambda: the least of cosine plus lambda times price among the k.
    lam = 0.01
    score = np.take_along_axis(similarity, top, axis=1) + lam * split.price[top]
    chosen = top[rows, score.argmin(axis=1)]
    assert curve.at_lambda(lam)[1] == pytest.approx(split.test.quality[rows, chosen].mean())


def test_half_descriptors_are_the_fingerprints_of_half_the_probes(setting):
    raw = np.random.default_rng(0).random((2, 8))
    whole = dict(zip(("a", "b"), fingerprints.fingerprint(raw), strict=True))
    halves = choices.half_descriptors(replace(setting.split(0), descriptors=whole))
    expected = fingerprints.fingerprint(raw[:, :4])
    for vector, wanted in zip(halves.values(), expected, strict=True):
        assert vector / np.linalg.norm(vector) == pytest.approx(wanted)
    footprints = choices.half_descriptors(replace(setting.split(0), name="tinypool", descriptors=whole))
    assert footprints["a"].tolist() == whole["a"][:4].tolist()


def test_the_codes_split_is_nine_to_one(again, setting):
    split = choices.code_split(again)
    assert (len(split.train), len(split.test)) == (216, 24)
    assert not set(split.train.ids) & set(split.test.ids)
    assert split.prices != again.split.prices or len(set(setting.benchmark.cost[:, 0])) == 1


def test_probes_join_the_training_prompts_and_no_others(params, setting):
    kept = np.arange(len(setting.benchmark)) >= 40
    without = replace(
        setting, benchmark=setting.benchmark.subset(kept), embeddings=setting.embeddings[kept], n_probes_removed=40
    )
    material = Material(without, setting.benchmark, setting.embeddings)
    taken = Again(params, material, 0)
    more = choices.with_probes(taken)
    assert set(more.train.ids) == set(taken.split.train.ids) | set(setting.benchmark.ids[:40])
    assert more.test is taken.split.test
    place = {id_: row for row, id_ in enumerate(setting.benchmark.ids)}
    assert np.array_equal(more.train_embeddings, setting.embeddings[[place[id_] for id_ in more.train.ids]])
    assert choices.with_probes(Again(params, Material(setting), 0)) is None


def _pair(again, key):
    (value,) = [a.value for choice in choices.OPEN for a in choice.alternatives if a.key == key]
    return value(again)


def test_the_codes_area_and_qnc_are_what_it_computes(again):
    ours, lambdas = again.ours, experiment.code_lambdas(again.split)
    umr = again.baseline("umr")
    exact = ours.area(left="flat")
    assert _pair(again, "audc-alone") == pytest.approx((audc_cscr([ours], lambdas)[0], exact))
    both = audc_cscr([ours, umr], lambdas)
    assert _pair(again, "audc-with-umr") == pytest.approx((both[0], exact))
    assert _pair(again, "audc-of-two") == pytest.approx((both[0] - both[1], exact - umr.area(left="flat")))
    dear = ours.model_cost[np.argmax(ours.model_quality)]
    assert _pair(again, "qnc-of-code") == pytest.approx((ours.cost_at_peak / dear, min(ours.qnc(), 1)))


def test_fixed_prices_bill_the_price_and_change_no_choice(params, setting):
    dearer = setting.benchmark.cost * (1 + np.random.default_rng(0).random((240, 1)))
    priced = replace(setting, benchmark=setting.benchmark.with_cost(dearer, "units"))
    taken = Again(params, Material(priced), 0)
    split = taken.split
    estimate = experiment.with_last_resort(taken.trainer.cscr().predict_quality(split.test_embeddings), split.price)
    billed, ours = _pair(taken, "fixed-prices")
    assert billed == pytest.approx(deferral_curve(estimate, split.test.quality, split.price).area(left="flat"))
    assert ours == pytest.approx(
        deferral_curve(estimate, split.test.quality, split.price, paid=split.test.cost).area(left="flat")
    )
    assert billed != ours


def test_partial_credit_is_measured_only_where_there_is_any(params, setting, again):
    assert np.isnan(_pair(again, "partial-credit")).all()
    quality = setting.benchmark.quality.copy()
    quality[::2][quality[::2] == 0] = 0.5
    credited = replace(setting, benchmark=replace(setting.benchmark, quality=quality))
    other, ours = _pair(Again(params, Material(credited), 0), "partial-credit")
    assert np.isfinite(other)
    assert other != ours


def test_log_costs_change_the_bands_but_not_the_bill(again):
    other, ours = _pair(again, "log-costs")
    assert other != ours
    assert ours == pytest.approx(again.ours.area(left="flat"))


@pytest.fixture(scope="module")
def measured(params, setting):
    soft = replace(setting.benchmark, quality=np.clip(0.8 * setting.benchmark.quality + 0.1, 0, 1), quality_kind="soft")
    return choices.measure(params, {"simulated": setting, "soft": replace(setting, benchmark=soft)}, n_jobs=1)


def test_every_alternative_is_measured_or_said_not_to_run(measured):
    numbers, shown = choices.open_table(measured)
    assert (measured.pool, measured.soft_pool) == ("simulated", "simulated")
    assert len(shown) == 31
    keys = [a.key for choice in choices.OPEN for a in choice.alternatives]
    assert list(numbers.index.sort_values()) == sorted(keys)
    not_here = {"code-fingerprints", "probes-in-training", "cls-pooling", "partial-credit"}
    assert set(numbers.index[numbers["effect"].isna()]) == not_here
    assert (numbers["n"].drop(list(not_here)) == 2).all()
    last = shown.iloc[:, -1]
    assert "cannot be run on these pools" in last[9]
    assert last[8].startswith("not run")
    assert f"{measured.spread:.4f}" in last[30]


def test_effects_are_other_minus_ours(params, setting, measured):
    pairs = []
    for seed in params.seeds:
        split = setting.split(seed)
        areas = []
        for changes in ({"divide_penalty": False}, {}):
            router = experiment.train({"it": experiment.cscr_for(params, split, **changes)}, split)
            areas.append(experiment.route(router, split).curves["it"].area(left="flat"))
        pairs.append(areas)
    expected = np.mean([other - ours for other, ours in pairs])
    assert measured.effects["penalty-undivided"].estimate == pytest.approx(expected)


def test_measuring_on_no_pool_is_an_error(params):
    with pytest.raises(UserError, match="pools is empty"):
        choices.measure(params, {})


def test_cls_encoder_gives_the_first_tokens_vector(tmp_path, monkeypatch):
    import torch
    from transformers import AutoModel, AutoTokenizer

    monkeypatch.setenv("ROUTEBOOK_CACHE", str(tmp_path))
    folder = choices.cls_encoder()
    assert folder.is_relative_to(tmp_path)
    assert json.loads((folder / "1_Pooling" / "config.json").read_text())["pooling_mode_mean_tokens"] is False
    text = "Which of these is a mammal?"
    model, tokenizer = (c.from_pretrained(str(encoders.minilm_folder())) for c in (AutoModel, AutoTokenizer))
    with torch.inference_mode():
        first = model(**tokenizer([text], return_tensors="pt")).last_hidden_state[0, 0].numpy()
    (vector,) = encoders.embed([text], str(folder), cache=False)
    assert vector == pytest.approx(first / np.linalg.norm(first), abs=1e-5)
    (mean,) = encoders.embed([text], "minilm", cache=False)
    assert not np.allclose(vector, mean, atol=1e-2)
