"""CSCR's page on shifts: new LLMs, other prompts, mixed descriptors, newcomers, and what is shown of speed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from replications.cscr import experiment, fingerprints, shifts
from replications.cscr.params import ShiftsParams
from routebook import ledger, routers
from routebook.deferral import deferral_curve
from routebook.errors import UserError
from routebook.significance import mean_interval

SMALL = {
    "pools": ["simulated"],
    "max_prompts": 600,
    "n_seeds": 2,
    "min_steps": 4,
    "epochs": 1,
    "umr_clusters": 4,
    "n_mixes": 3,
    "label_budgets": [20, 40],
    "index_sizes": [10, 100],
    "n_lookups": 20,
}


@pytest.fixture(scope="module")
def params():
    return ShiftsParams.build(SMALL)


@pytest.fixture(scope="module")
def pools(params):
    return shifts.load_pools(params)


@pytest.fixture(scope="module")
def draw(params, pools):
    return shifts.draw_new_llms(params, pools["simulated"], 0)


@pytest.fixture(scope="module")
def tiny():
    params = ShiftsParams.build(SMALL | {"pools": ["tinypool"]})
    return params, shifts.load_pools(params)["tinypool"]


def frame_of(areas, pool="tinypool"):
    """What `experiment.evaluate` returns, with these areas by method and seed, and the same in the other metrics."""
    rows = [
        {"pool": pool, "seed": seed, "method": method, "reached": True} | dict.fromkeys(experiment.METRICS, area)
        for method, several in areas.items()
        for seed, area in enumerate(several)
    ]
    return pd.DataFrame(rows)


# --- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"pools": ["mmlu-pro"]}, "mmlu-pro has no fingerprints; name another pool beside it"),
        ({"index_sizes": [3, 100]}, "index_sizes: the least is 3, below k = 4"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_does(given, words):
    with pytest.raises(UserError, match="routebook params cscr-shifts") as refusal:
        ShiftsParams.build(given)
    assert words in str(refusal.value)


# --- new LLMs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "share", "known"), [(11, 2 / 3, 7), (21, 2 / 3, 14), (41, 2 / 3, 27), (5, 0.01, 1), (5, 0.99, 4)]
)
def test_two_thirds_are_known_and_the_rest_are_new(n, share, known):
    models = [f"m{i}" for i in range(n)]
    first, rest = shifts.known_and_new(models, share, 3)
    assert len(first) == known
    assert sorted([*first, *rest]) == sorted(models)
    assert first == [m for m in models if m in first], "the known stay in the pool's order"
    assert shifts.known_and_new(models, share, 3) == (first, rest)


def test_draws_differ_from_seed_to_seed():
    models = [f"m{i}" for i in range(12)]
    assert len({tuple(shifts.known_and_new(models, 0.5, seed)[1]) for seed in range(5)}) == 5


def test_nothing_learns_from_a_new_llms_training_labels_but_through_the_prompts_it_is_graded_on(params, pools, draw):
    setting = pools["simulated"]
    quality = setting.benchmark.quality.copy()
    ungraded = np.setdiff1d(np.arange(len(draw.order)), draw.order[: fingerprints.N_PROBES])
    train, _ = setting.rows(0)
    columns = setting.benchmark.model_columns(draw.new)
    quality[np.ix_(train[ungraded], columns)] = 1 - quality[np.ix_(train[ungraded], columns)]
    changed = replace(setting, benchmark=replace(setting.benchmark, quality=quality))
    again = shifts.draw_new_llms(params, changed, 0)
    for method, estimate in draw.run.estimates.items():
        np.testing.assert_array_equal(again.run.estimates[method], estimate, err_msg=method)

    quality[np.ix_(train, columns)] = 1 - quality[np.ix_(train, columns)]
    relabelled = replace(setting, benchmark=replace(setting.benchmark, quality=quality))
    other = shifts.draw_new_llms(params, relabelled, 0)
    for method in ("cscr", "soft-moe", "random", "oracle"):
        np.testing.assert_array_equal(other.run.estimates[method], draw.run.estimates[method], err_msg=method)
    for method in ("umr", "k-nn", "zero-router", "thompson"):
        assert not np.array_equal(other.run.estimates[method], draw.run.estimates[method]), method


def test_umr_describes_new_llms_by_their_errors_on_the_graded_prompts(params, draw):
    known = draw.split.train.subset(models=draw.known)
    reference = routers.KMeans(params.umr_clusters, seed=0).fit(known, draw.split.train_embeddings)
    rows = draw.order[: fingerprints.N_PROBES]
    cluster = reference.assign(draw.split.train_embeddings[rows])
    labels = draw.split.train.quality[np.ix_(rows, draw.split.train.model_columns(draw.new))]
    asked = reference.assign(draw.split.test_embeddings)
    for row in (0, 7, 50):
        expected = labels[cluster == asked[row]].mean(axis=0)
        np.testing.assert_allclose(draw.run.estimates["umr"][row], expected, atol=1e-12)


def test_cscr_looks_up_k_of_the_new_llms_and_soft_moe_all(params, draw):
    split, new = draw.split, draw.new
    assert draw.run.split.test.models == new
    raw = draw.run.routers["cscr"].predict_quality(split.test_embeddings)
    assert raw.shape == (len(split.test), len(new))
    assert (~np.isnan(raw)).sum(axis=1).tolist() == [params.k] * len(raw)
    q = draw.trained["cscr"].project(split.test_embeddings)
    vectors = np.stack([split.descriptors[m] for m in new])
    cosine = q @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
    np.testing.assert_allclose(raw[~np.isnan(raw)], cosine[~np.isnan(raw)], atol=1e-5)
    assert not np.isnan(draw.run.routers["soft-moe"].predict_quality(split.test_embeddings)).any()
    assert draw.trained["cscr"].models_ == draw.known, "the trained router itself is left as it was"


def test_a_pool_smaller_than_k_is_looked_up_whole(params, draw):
    two = shifts.only_among(draw.trained["cscr"], draw.new[:2], params.k)
    assert two.k == 2
    assert shifts.only_among(draw.trained["umr"], draw.new[:2], params.k) is draw.trained["umr"]


# --- other prompts ---------------------------------------------------------------------------------------------------


def test_stem_categories_follow_the_papers_lists():
    # Two of the eight health subjects, and one of the five of mathematics, are in the paper's test list.
    expected = ["biology", "chemistry", "computer science", "engineering", "health", "math", "physics"]
    assert shifts.stem_categories() == expected
    subjects = " ".join(shifts.MMLU_SUBJECTS.values()).split()
    assert len(subjects) == len(set(subjects)) == 57


def test_the_held_out_family_is_in_no_training_prompt(tiny):
    params, setting = tiny
    splits = shifts.held_out_family(params, setting)
    assert len(splits) == params.n_seeds
    for split in splits:
        assert len(set(split.test.tasks)) == 1
        assert len(split.test) == 500
        assert not set(split.test.tasks) & set(split.train.tasks)
        assert split.test.models == split.train.models
        assert split.test.cost_unit == split.train.cost_unit
        assert len(split.test_embeddings) == len(split.test)


def test_every_source_dataset_is_left_out_once(pools):
    setting = pools["simulated"]
    splits = shifts.leave_one_out(setting, 5)
    tested = np.concatenate([split.test.ids for split in splits])
    assert sorted(tested) == sorted(setting.benchmark.ids)
    for split in splits:
        assert len(set(split.test.tasks)) == 1
        assert not set(split.test.tasks) & set(split.train.tasks)
        assert len(split.train) + len(split.test) == len(setting.benchmark)
    assert [split.seed for split in splits] == list(range(5, 5 + len(splits)))


def test_mmlu_pro_goes_from_stem_to_the_others_without_cscr(real_data, monkeypatch):
    params = ShiftsParams.build(SMALL | {"pools": ["tinypool", "mmlu-pro"], "max_prompts": 200})
    vectors = np.random.default_rng(0).standard_normal((200, 8), dtype=np.float32)
    monkeypatch.setattr(shifts.encoders, "embed_benchmark", lambda benchmark, _: vectors[: len(benchmark)])
    (split,) = shifts.stem_to_others(params)[:1]
    stem = set(shifts.stem_categories())
    assert set(split.train.tasks) <= stem
    assert not set(split.test.tasks) & stem
    assert not np.isnan(split.train.quality).any()
    run = shifts.route_other_prompts(params, {"mmlu-pro": [split]})[0]
    assert "cscr" not in run.curves
    assert {"umr", "thompson", "zero-router"} <= set(run.curves)


# --- records and tables ----------------------------------------------------------------------------------------------


def test_records_have_the_keys_of_the_ledger_and_differences_are_paired_over_seeds():
    frame = frame_of({"umr": [0.5, 0.7], "thompson": [0.4, 0.5], "oracle": [0.9, 0.9], "cscr": [0.6, 0.7]})
    records = {r["id"]: r for r in shifts.metric_records("table-2", frame, {"tinypool": "parameters"})}
    assert len(records) == 4 * 5 + 3
    found = records["table-2/tinypool/cscr-minus-umr/area"]
    expected = mean_interval([0.1, 0.0])
    assert (found["value"], found["low"], found["high"]) == pytest.approx(
        (expected.estimate, expected.low, expected.high)
    )
    assert records["table-2/tinypool/thompson-minus-umr/area"]["value"] == pytest.approx(-0.15)
    assert records["table-2/tinypool/umr/cost-at-peak"]["unit"] == "parameters"
    assert "table-2/tinypool/cscr-minus-oracle/area" not in records


def test_a_pool_without_cscr_has_one_difference_and_dashes_in_the_others():
    with_ours = frame_of({"umr": [0.5, 0.7], "thompson": [0.4, 0.5], "cscr": [0.6, 0.7]})
    without = frame_of({"umr": [0.5, 0.6], "thompson": [0.4, 0.5]}, "mmlu-pro")
    both = pd.concat([with_ours, without])
    assert shifts.differences_of(both, "mmlu-pro") == [("thompson", "umr")]
    shown = shifts.differences_table(both)
    assert shown.loc["CSCR − UMR", "MMLU-Pro"] == "–"
    assert shown.loc["Thompson − UMR", "MMLU-Pro"].startswith("<b>-0.1000</b>")
    _, table = shifts.metrics_table(both, "table-3", ("area", "peak"))
    assert table.loc["CSCR", ("MMLU-Pro", "area, exact")] == "–"
    assert table.loc["UMR", ("EmbedLLM, paper", "Peak")] == "0.459"
    assert table.loc["UMR", ("MMLU-Pro", "area, exact")].startswith("<b>0.5500</b>")
    assert table.loc["CSCR", ("TinyPool", "area, exact")].startswith("<b>0.6500</b>")


# --- descriptors -----------------------------------------------------------------------------------------------------


def test_a_mix_has_six_in_eleven_logit_footprints_and_all_vectors_one_length():
    known = shifts.descriptors_of()
    models = list(known["logit"])
    mixes = [shifts.mix(known, seed) for seed in range(4)]
    chosen = []
    for mixed in mixes:
        assert list(mixed) == models
        assert {len(v) for v in mixed.values()} == {192}
        logit = [m for m in models if np.array_equal(mixed[m], known["logit"][m])]
        perplexity = [m for m in models if np.array_equal(mixed[m], known["perplexity"][m])]
        assert (len(logit), len(perplexity)) == (11, 10)
        chosen.append(tuple(logit))
    assert len(set(chosen)) == 4


def test_cosines_are_those_of_different_llms_within_and_between_kinds():
    logit = {"a": np.array([1.0, 0.0]), "b": np.array([0.6, 0.8]), "c": np.array([0.0, 1.0])}
    perplexity = {"a": np.array([1.0, 0.0]), "b": np.array([-1.0, 0.0]), "c": np.array([0.0, 1.0])}
    table = shifts.cosine_table({"logit": logit, "perplexity": perplexity})
    assert table.loc["logit and logit"].tolist() == pytest.approx([(0.6 + 0.0 + 0.8) / 3, 0.0, 0.8])
    assert table.loc["perplexity and perplexity"].tolist() == pytest.approx([-1 / 3, -1.0, 0.0])
    # a with b, a with c, b with a, b with c, c with a, c with b
    crossed = [-1.0, 0.0, 0.6, 0.8, 0.0, 0.0]
    assert table.loc["logit and perplexity"].tolist() == pytest.approx([np.mean(crossed), -1.0, 0.8])


def test_unmixed_descriptors_are_summed_up_over_trainings_and_mixes_over_mixes():
    frame = frame_of({"logit": [0.5, 0.6, 0.5], "perplexity": [0.7, 0.6, 0.7], "mixed": [0.6, 0.8, 0.4]})
    found = shifts.descriptor_estimates(frame, 2)
    assert (found["area"]["logit"].estimate, found["area"]["logit"].n) == (pytest.approx(0.55), 2)
    assert (found["area"]["mixed"].estimate, found["area"]["mixed"].n) == (pytest.approx(0.6), 3)
    lead = found["area"]["mixed-minus-logit"]
    assert (lead.estimate, lead.n) == (pytest.approx((0.1 + 0.2 - 0.1) / 3), 3)
    same = found["area"]["perplexity-minus-logit"]
    assert (same.estimate, same.n) == (pytest.approx(0.1), 2)
    keys = {r["id"] for r in shifts.descriptor_records(found, "parameters")}
    assert len(keys) == 3 * 5 + 3
    assert "table-4/tinypool/mixed-minus-perplexity/area" in keys
    numbers, shown = shifts.descriptor_table(found)
    assert numbers.loc["mixed", "area"] == pytest.approx(0.6)
    assert shown.loc["logit", "AUDC in the paper (MixInstruct)"] == "0.0461"
    _, without = shifts.descriptor_table({})
    assert without.shape == (3, 3)
    assert shifts.descriptor_differences({}).empty


def test_mixes_are_compared_with_the_unmixed_routers_of_their_training_seed(tiny):
    params, setting = tiny
    frame = shifts.route_descriptors(params, setting)
    areas = experiment.by_seed(frame, "tinypool")
    assert areas.shape == (3, 3)
    assert areas.loc[0, "logit"] == areas.loc[2, "logit"] != areas.loc[1, "logit"]
    known = shifts.descriptors_of(setting.benchmark.models)
    split = setting.split(1).with_descriptors(shifts.mix(known, 1))
    alone = experiment.route(experiment.train({"cscr": experiment.cscr_for(params, split)}, split), split)
    assert areas.loc[1, "mixed"] == alone.curves["cscr"].area(left="flat")


# --- newcomers -------------------------------------------------------------------------------------------------------


def test_newcomers_join_one_by_one_and_the_last_area_is_that_of_the_whole_pool(params, draw):
    added = shifts.add_one_by_one(draw, [20, 40], params.k)
    assert len(added) == len(draw.new) * (1 + 3 * 2)
    assert set(added.loc[added["method"] == "cscr", "labels"]) == {0}
    pool = [*draw.known, *draw.new]
    split = draw.split.with_models(draw.known, pool)
    last = added[added["added"] == len(draw.new)].set_index(["method", "labels"])["area"]

    zero = routers.ZeroRouter().fit(split.train, split.train_embeddings)
    rows = draw.order[:20]
    graded = draw.split.train.subset(rows, draw.new)
    zero.add_models(graded, draw.split.train_embeddings[rows])
    estimate = routers.quality_for(zero, split.test_embeddings, pool)
    curve = deferral_curve(estimate, split.test.quality, split.price, paid=split.test.cost)
    assert last["zero-router", 20] == curve.area(left="flat")

    whole = shifts.only_among(draw.trained["cscr"], pool, params.k)
    assert last["cscr", 0] == experiment.route({"cscr": whole}, split).curves["cscr"].area(left="flat")


def test_budgets_beyond_the_training_prompts_are_left_out(draw):
    n = len(draw.order)
    params = ShiftsParams.build(SMALL | {"label_budgets": [n, n + 1]})
    assert set(shifts.add_all(params, {"simulated": [draw]})["labels"]) == {0, n}


def test_labels_enough_are_the_fewest_with_more_area_than_none():
    rows = [
        ("simulated", seed, method, labels, added, area + 0.1 * seed + (0.02 if added == 2 else -0.02))
        for seed in (0, 1)
        for added in (1, 2)
        for method, labels, area in (
            ("cscr", 0, 0.50),
            ("umr", 10, 0.45),
            ("umr", 20, 0.51),
            ("umr", 40, 0.60),
            ("k-nn", 10, 0.3),
            ("k-nn", 20, 0.4),
            ("k-nn", 40, 0.4),
            ("zero-router", 10, 0.6),
            ("zero-router", 20, 0.6),
            ("zero-router", 40, 0.6),
        )
    ]
    added = pd.DataFrame(rows, columns=["pool", "seed", "method", "labels", "added", "area"])
    assert shifts.newcomer_areas(added, "simulated")["umr", 20].tolist() == pytest.approx([0.51, 0.61])
    assert shifts.enough_labels(added, "simulated", "umr") == "20 labels"
    assert shifts.enough_labels(added, "simulated", "k-nn") == "more labels than 40"
    assert shifts.enough_said(added, "zero-router") == "simulated: 10 labels"
    records = {r["id"]: r for r in shifts.newcomer_records(added)}
    assert records["newcomers/simulated/cscr/0/area"]["value"] == pytest.approx(0.55)
    assert records["newcomers/simulated/cscr-minus-umr/40/area"]["value"] == pytest.approx(-0.1)
    (panel,) = shifts.newcomer_panels(added)
    assert panel.curves["cscr"][1].tolist() == pytest.approx([0.55] * 3)
    assert panel.curves["umr"][0].tolist() == [10, 20, 40]


# --- speed -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def measured():
    rows = [
        ("flat", 10, "single", 1, 5.0, 105.0, 1.0, 0.1),
        ("flat", 10, "batch", 9, 0.5, 20.5, 1.0, 0.1),
        ("flat", 100, "single", 1, 8.0, 108.0, 1.0, 0.2),
        ("flat", 100, "batch", 9, 1.5, 21.5, 1.0, 0.2),
        ("numpy", 10, "single", 1, 2000.0, 2100.0, np.nan, 0.0),
        ("numpy", 10, "batch", 9, 1.0, 21.0, np.nan, 0.0),
        ("numpy", 100, "single", 1, 3.0, 103.0, np.nan, 0.0),
        ("numpy", 100, "batch", 9, 2.0, 22.0, np.nan, 0.0),
    ]
    return pd.DataFrame(rows, columns=["index", "n", "mode", "queries", "us", "us_with_embedding", "recall", "build_s"])


def test_times_are_recorded_under_the_ledgers_keys_in_microseconds(measured, root):
    records = {r["id"]: r for r in shifts.speed_records(measured)}
    assert records["speed/flat/100/single"] == {"id": "speed/flat/100/single", "value": 8.0, "unit": "microseconds"}
    assert len(records) == 8
    sizes = ShiftsParams.build({}).index_sizes
    read = [
        claim.reads
        for _, claim in ledger.load(root / "replications/cscr/ledger.yaml").claims
        if isinstance(claim.reads, str) and claim.reads.startswith("shifts/speed/")
    ]
    assert read
    assert all(int(key.split("/")[3]) in sizes for key in read), "what the ledger reads is measured by default"


def test_times_are_shown_by_index_and_size(measured):
    shown = shifts.speed_table(measured)
    assert shown.loc["FAISS, flat, in a batch", "100 experts"] == "1.5"
    assert shown.loc["NumPy, no index, one prompt at a time", "10 experts"] == "2,000"
    assert shifts.speed_table(measured, "us_with_embedding").loc["FAISS, flat, in a batch", "10 experts"] == "20.5"
    assert shifts.speed_numbers(measured).loc["flat/single", 100] == 8.0
    assert shifts.encoder_said(measured) == "100 microseconds, 12 times the flat lookup among 100 experts"
    assert "no time" in shifts.encoder_said(measured.assign(us_with_embedding=np.nan))
    recall = shifts.recall_table(measured)
    assert recall.index.tolist() == ["FAISS, flat"]
    assert recall.loc["FAISS, flat", ("found of the nearest", "100 experts")] == "100.0%"
    single, batch = shifts.speed_panels(measured)
    assert single.curves["numpy"][1].tolist() == [2000.0, 3.0]
    assert batch.curves["flat"][0].tolist() == [10, 100]


def test_embedding_is_timed_only_where_the_data_does_not_bring_it(params, pools, monkeypatch):
    monkeypatch.setattr(shifts.lookup, "embedding_times", lambda *_: pytest.fail("embedded"))
    brought = shifts.measure_speed(params, pools)
    assert brought["us_with_embedding"].isna().all()
    assert set(brought["n"]) == set(params.index_sizes)
    asked = []
    monkeypatch.setattr(
        shifts.lookup,
        "embedding_times",
        lambda name, prompts: asked.append((name, len(prompts))) or {"single": 7.0, "batch": 3.0},
    )
    setting = pools["simulated"]
    bare = replace(setting, benchmark=replace(setting.benchmark, embeddings=None))
    found = shifts.measure_speed(params, {"simulated": bare})
    assert asked == [("minilm", shifts.N_EMBEDDED)]
    assert (found["us_with_embedding"] - found["us"]).round(6).isin([3.0, 7.0]).all()


def test_the_same_seed_gives_the_same_numbers_bit_for_bit_in_any_number_of_processes(params, pools, draw):
    found = [shifts.draw_all(params, pools, n_jobs)["simulated"] for n_jobs in (1, 2)]
    one, two = (experiment.evaluate([d.run for d in draws]) for draws in found)
    pd.testing.assert_frame_equal(one, two)
    pd.testing.assert_frame_equal(one[one["seed"] == 0], experiment.evaluate([draw.run]))
