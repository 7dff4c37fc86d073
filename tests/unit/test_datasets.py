"""Registry, cards, and every loader on made-up files in the real format."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fixtures_data import GSM_QUESTIONS, WRITERS, read, write

import routebook
from routebook import datasets
from routebook.datasets import cards, sizes
from routebook.errors import DataError, UserError

FILE_BASED = list(WRITERS)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder that `$ROUTEBOOK_DATA` points at, where files may differ from their cards."""
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("ROUTEBOOK_DATA", str(root))
    monkeypatch.setenv("ROUTEBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ROUTEBOOK_ALLOW_MODIFIED", "1")
    return root


# --- registry ---------------------------------------------------------------------------------------------------


def test_unknown_dataset_names_the_nearest_and_all_others():
    with pytest.raises(UserError, match=r"no dataset 'routrbench'; did you mean 'routerbench'\?.*mmlu-pro"):
        datasets.load("routrbench")
    for function in (datasets.info, datasets.status, datasets.check, datasets.data_digest, datasets.loader_module):
        with pytest.raises(UserError, match=r"no dataset 'foo'"):
            function("foo")


def test_unknown_option_and_option_value(data):
    WRITERS["routerbench"](data)
    with pytest.raises(UserError, match=r"has no option 'promt_view'; did you mean 'prompt_view'"):
        datasets.load("routerbench", promt_view="full")
    with pytest.raises(UserError, match=r"prompt_view is 'whole', expected one of question, full, first-1400-chars"):
        datasets.load("routerbench", prompt_view="whole")
    with pytest.raises(UserError, match=r"mess-plus has no option 'x'; its options are: none"):
        datasets.load("mess-plus", x=1)


def test_lazy_exports_and_light_imports():
    assert routebook.load is datasets.load
    assert routebook.RoutingBenchmark.__module__ == "routebook.benchmark"
    with pytest.raises(AttributeError, match=r"no attribute 'nonsense'"):
        _ = routebook.nonsense
    heavy = "('pandas', 'pyarrow', 'torch', 'scipy', 'sklearn', 'huggingface_hub')"
    code = (
        "import sys, routebook, routebook.datasets as d\n"
        "[d.status(n) for n in d.names()]\n"
        f"found = [m for m in {heavy} if m in sys.modules]\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", datasets.names())
def test_every_card_is_whole_and_its_loader_exists(name):
    card = datasets.info(name)
    assert card.name == name
    assert len(card.summary) > 80
    assert card.licence
    assert card.cost_unit
    assert card.provenance.source
    assert set(card.options) == set(datasets.options(name))
    assert datasets.loader_module(name).startswith("routebook.datasets.")
    if card.hub:
        assert "not exercised" in card.hub.statement
    assert card.files or card.hub or card.origin == "simulated"


def test_cards_agree_on_shared_files():
    seen: dict[str, tuple] = {}
    for name in datasets.names():
        for file in datasets.info(name).files:
            said = (file.sha256, file.rows, file.models)
            assert seen.setdefault(file.path, said) == said, file.path
    assert len(seen) >= 15


def test_card_with_a_wrong_field_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "routerbench"
    folder.mkdir()
    (folder / "card.yaml").write_text("name: routerbench\norigin: real\nlicense: MIT\n", encoding="utf-8")
    monkeypatch.setattr(cards, "cards_dir", lambda: tmp_path)
    with pytest.raises(DataError, match=r"card.yaml: field \w+"):
        datasets.info("routerbench")


# --- status -----------------------------------------------------------------------------------------------------


def test_status_without_data(monkeypatch, tmp_path):
    monkeypatch.delenv("ROUTEBOOK_DATA", raising=False)
    monkeypatch.setenv("ROUTEBOOK_CACHE", str(tmp_path))
    found = datasets.status("openllm-v2")
    assert not found.present
    assert found.missing[0] == "openllm-lb-v2-19llm/correctness_aligned.csv.gz"
    assert datasets.status("simulated").where == "built in"
    with pytest.raises(DataError, match=r"correctness_aligned.csv.gz is missing.*ROUTEBOOK_DATA is not set; set ROUTE"):
        datasets.load("openllm-v2")
    with pytest.raises(DataError, match=r"not pulled yet; type: routebook data pull sprout"):
        datasets.load("sprout")
    with pytest.raises(DataError, match=r"or type: routebook data pull routerbench"):
        datasets.load("routerbench")


@pytest.mark.parametrize("name", FILE_BASED)
def test_status_with_data_and_with_one_file_missing(name, data):
    WRITERS[name](data)
    assert datasets.status(name) == datasets.files.Status(name, True, data, (), "real")
    required = [file for file in datasets.info(name).files if not file.optional]
    (data / required[-1].path).unlink()
    found = datasets.status(name)
    assert not found.present
    assert found.missing == (required[-1].path,)
    with pytest.raises(DataError, match=f"file {required[-1].path} is missing"):
        datasets.load(name)


def test_data_folder_that_does_not_exist(monkeypatch, tmp_path):
    monkeypatch.setenv("ROUTEBOOK_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"nowhere\) does not exist"):
        datasets.load("overruling")


# --- checks, in their order -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILE_BASED)
def test_modified_files_are_refused_unless_allowed(name, data, monkeypatch):
    WRITERS[name](data)
    benchmark = datasets.load(name)
    assert any("differs from its card" in note for note in benchmark.notes)
    assert "differs from its card" in datasets.check(name)
    monkeypatch.setenv("ROUTEBOOK_ALLOW_MODIFIED", "0")
    for refused in (datasets.load, datasets.check):
        with pytest.raises(DataError, match=r"differs from its card.*ROUTEBOOK_ALLOW_MODIFIED=1") as caught:
            refused(name)
        assert "\n" not in str(caught.value)


def test_a_hash_alone_is_enough_to_refuse(data, monkeypatch):
    file = datasets.info("overruling").files[0]
    path = WRITERS["overruling"](data) / file.path
    rows = file.model_copy(update={"rows": 4})
    card = datasets.info("overruling").model_copy(update={"files": (rows,)})
    monkeypatch.setattr(datasets, "info", lambda name: card)
    monkeypatch.delenv("ROUTEBOOK_ALLOW_MODIFIED")
    with pytest.raises(DataError, match=r"its sha256 is [0-9a-f]{12}\.\.\., the card says"):
        datasets.load("overruling")
    import hashlib

    right = rows.model_copy(update={"sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    card = card.model_copy(update={"files": (right,)})
    assert datasets.load("overruling").notes == ()


@pytest.mark.parametrize("name", FILE_BASED)
def test_each_defect_is_named_and_the_first_kind_wins(name, data):
    WRITERS[name](data)
    file = next(f for f in datasets.info(name).files if f.groups)
    path = data / file.path
    column = file.groups[0].columns[0]

    frame = read(data, file)
    frame[column] = 2.0
    write(data, file, frame)
    expected = {"binary": "expected 0 or 1", "share": r"expected a number in \[0, 1\]"}[file.groups[0].check]
    with pytest.raises(DataError, match=f"{path.name}.*is 2.* in row 1, {expected}"):
        datasets.load(name)

    frame = frame.rename(columns={column: f"{column}_x"})
    write(data, file, frame)
    with pytest.raises(DataError, match=f"{path.name} has no column '.*'; was it renamed to '.*_x'; give the column"):
        datasets.load(name)

    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=f"{path.name} is truncated") as caught:
        datasets.load(name)
    assert "\n" not in str(caught.value)

    path.unlink()
    with pytest.raises(DataError, match=f"file {file.path} is missing"):
        datasets.load(name)


def _edit(data: Path, name: str, change) -> None:
    file = datasets.info(name).files[0]
    frame = read(data, file)
    write(data, file, change(frame))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (-0.001, "is -0.001 in row 1, expected a price >= 0"),
        (np.nan, "is empty in row 1, expected a price >= 0; a missing price is never taken for 0"),
        (np.inf, "is inf in row 1, expected a price"),
        ("free", "is free in row 1, expected a price"),
    ],
)
def test_impossible_costs(data, cell, message):
    WRITERS["routerbench"](data)

    def spoil(frame):
        frame["claude-v1|total_cost"] = frame["claude-v1|total_cost"].astype(object)
        frame.loc[0, "claude-v1|total_cost"] = cell
        return frame

    _edit(data, "routerbench", spoil)
    with pytest.raises(DataError, match=f"column 'claude-v1.total_cost' {message}"):
        datasets.load("routerbench")


def test_repeated_and_empty_keys(data):
    WRITERS["overruling"](data)
    _edit(data, "overruling", lambda frame: pd.concat([frame, frame.iloc[[1]]]))
    with pytest.raises(DataError, match=r"key source_row = 1 occurs twice \(1 repeats\)"):
        datasets.load("overruling")
    WRITERS["overruling"](data)
    _edit(data, "overruling", lambda frame: frame.assign(source_row=[0, np.nan, 2, 3]))
    with pytest.raises(DataError, match=r"column 'source_row' is empty in row 2, expected a key"):
        datasets.load("overruling")


def test_files_that_are_no_tables(data):
    WRITERS["overruling"](data)
    path = data / datasets.info("overruling").files[0].path
    path.write_bytes(b"this is not gzip at all, but somebody renamed it")
    with pytest.raises(DataError, match=r"is unreadable.*copy frugal"):
        datasets.load("overruling")
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(DataError, match=r"is empty"):
        datasets.load("overruling")
    damaged = bytearray(gzip.compress(b"source_row\n" + bytes(range(65, 90)) * 40))
    damaged[30] ^= 0xFF
    path.write_bytes(bytes(damaged))
    with pytest.raises(DataError, match=r"is (unreadable|truncated)"):
        datasets.load("overruling")


def test_damaged_parquet(data):
    WRITERS["routerbench"](data)
    path = data / datasets.info("routerbench").files[1].path
    path.write_bytes(path.read_bytes()[:-20])
    assert datasets.load("routerbench").responses is None
    with pytest.raises(DataError, match=r"responses.parquet is unreadable"):
        datasets.load("routerbench", responses=True)


# --- the loaders ------------------------------------------------------------------------------------------------


def test_mmlu_pro_joins_by_id_and_by_text(data):
    WRITERS["mmlu-pro"](data)
    pool = datasets.load("mmlu-pro")
    assert (len(pool), len(pool.models)) == (4, 47)
    assert pool.prompts[1] == "Made-up question 1?\nA. one\nB. two, or three\nC. none"
    assert pool.ids.tolist() == ["70", "71", "73", "80"]
    assert pool.tasks.tolist() == ["law", "law", "biology", "business"]
    column = pool.models.index("DeepSeek-Coder-V2")
    np.testing.assert_array_equal(pool.quality[:, column], [1, np.nan, 0, np.nan])
    assert "upstage/SOLAR-10.7B-Instruct-v1.0" not in pool.models
    assert any("SOLAR" in note for note in pool.notes)
    assert pool.unpriced == ["gemini-1.5-flash-002", "gemini-1.5-pro-002"]
    assert pool.cost_unit == "billion parameters"
    assert pool.cost[0, pool.models.index("Mixtral-8x7B-v0.1")] == 46.7
    assert pool.cost[0, pool.models.index("mistralai/Mixtral-8x7B-Instruct-v0.1")] == 46.7


def test_mmlu_pro_does_not_join_other_questions(data):
    WRITERS["mmlu-pro"](data)
    file = datasets.info("mmlu-pro").file("prompts.csv.gz")
    frame = read(data, file)
    frame.loc[frame["prompt"].str.startswith("Made-up question 2"), "prompt"] = "Something else?\nA. one"
    write(data, file, frame)
    pool = datasets.load("mmlu-pro")
    theirs = [i for i, model in enumerate(pool.models) if "/" in model]
    assert np.isnan(pool.quality[2, theirs]).all()
    assert not np.isnan(pool.quality[[0, 1, 3]][:, theirs]).any()
    assert any(note.startswith("1 questions have another text") for note in pool.notes)


def test_mmlu_pro_refuses_questions_that_do_not_match(data):
    WRITERS["mmlu-pro"](data)
    file = datasets.info("mmlu-pro").file("correct.csv.gz")
    write(data, file, read(data, file).assign(question_id=[1, 2, 3, 4]))
    with pytest.raises(DataError, match=r"hold different question_ids"):
        datasets.load("mmlu-pro")
    WRITERS["mmlu-pro"](data)
    file = datasets.info("mmlu-pro").file("questions.csv.gz")
    write(data, file, read(data, file).assign(options_json="[one, two"))
    with pytest.raises(DataError, match=r"options_json of question 70 is '.one, two', expected a JSON list"):
        datasets.load("mmlu-pro")


def test_gsm8k_joins_three_sources_by_text(data):
    WRITERS["gsm8k-zeroeval"](data)
    pool = datasets.load("gsm8k-zeroeval")
    assert (len(pool), len(pool.models)) == (3, 53)
    assert pool.quality_kind == "soft"
    assert pool.prompts == GSM_QUESTIONS
    # RouterDC's fixture lists coats before hats and has no gloves; rows 5 and 6 of its table, so scores (5+0)%5/4.
    mistral = pool.models.index("mistralai/Mistral-7B-v0.1")
    np.testing.assert_array_equal(pool.quality[:, mistral], [0.25, 0.0, np.nan])
    mixtral = pool.models.index("mistralai/Mixtral-8x7B-Instruct-v0.1")
    np.testing.assert_array_equal(pool.quality[:, mixtral], [1, 0, 1])
    assert any(note.startswith("1 questions are not in routerdc") for note in pool.notes)
    assert any(note.startswith("1 questions are on RouteLLM's list") for note in pool.notes)
    assert "gpt-4-1106-preview" in pool.unpriced
    assert len(pool.priced().models) == 53 - len(pool.unpriced)


def test_openllm_keeps_prompts_with_text(data):
    WRITERS["openllm-v2"](data)
    pool = datasets.load("openllm-v2")
    assert (len(pool), len(pool.models)) == (6, 19)
    assert pool.cost_unit == "USD per million tokens"
    np.testing.assert_allclose(pool.cost[0, [0, -1]], [0.1, 1.2])
    assert pool.ids[0] == "leaderboard_bbh_navigate.0"
    assert any(note.startswith("2 items without prompt text left out") for note in pool.notes)
    everything = datasets.load("openllm-v2", prompts="all")
    assert len(everything) == 8
    assert everything.prompts[2] == "leaderboard_ifeval item 0 (text not available)"
    assert len(set(everything.prompts)) == 8


def test_openllm_missing_price_is_an_error(data):
    WRITERS["openllm-v2"](data)
    file = datasets.info("openllm-v2").file("prices.csv")
    write(data, file, read(data, file).replace("google/gemma-2b-it", "google/gemma-2b"))
    with pytest.raises(DataError, match=r"no price for 'google/gemma-2b-it'; did you mean 'google/gemma-2b'"):
        datasets.load("openllm-v2")


def test_routerdc_splits(data):
    WRITERS["routerdc"](data)
    assert len(datasets.load("routerdc")) == 7
    assert datasets.load("routerdc", split="ood").tasks.tolist() == ["MATH_prealgebra"]
    test = datasets.load("routerdc", split="test")
    assert test.split.tolist() == ["test"] * 4
    assert any(note.startswith("1 test questions also occur in the training split") for note in test.notes)
    assert test.cost[0].tolist() == [7, 7, 7, 7, 7, 8, 8]
    with pytest.raises(UserError, match=r"split is 'valid'"):
        datasets.load("routerdc", split="valid")


def test_overruling_views_and_answers(data):
    WRITERS["overruling"](data)
    question, full = datasets.load("overruling"), datasets.load("overruling", prompt_view="full", responses=True)
    assert question.prompts[0] == "Context: made-up sentence 0\nQuestion: Is it overruling?\nAnswer:"
    assert full.prompts[0] == "Context: made up.\nAnswer: No\n\n" + question.prompts[0]
    assert full.responses.shape == (4, 12)
    assert question.cost_unit == "USD per prompt"
    (data / "frugal-overruling-12llm" / "fewshot_prefix.txt").unlink()
    assert len(datasets.load("overruling")) == 4
    with pytest.raises(DataError, match=r"fewshot_prefix.txt is missing.*prompt_view='question'"):
        datasets.load("overruling", prompt_view="full")


def test_alpaca_adversarial_and_outputs(data):
    WRITERS["alpaca-eval"](data)
    pool = datasets.load("alpaca-eval", responses=True)
    assert len(pool.models) == 58
    phi = pool.models.index("phi-2")
    np.testing.assert_array_equal(pool.quality[:, phi], [0.5, 0.25, np.nan])
    assert pool.responses[2, phi] is None
    assert pool.responses[1, 0] == f"{pool.models[0]} says 1"
    assert any("made to fool the judge and are in the pool" in note for note in pool.notes)
    smaller = datasets.load("alpaca-eval", adversarial="drop")
    assert len(smaller.models) == 56
    assert not {"NullModel", "gpt4_gamed"} & set(smaller.models)
    file = datasets.info("alpaca-eval").file("v2_outputs.parquet")
    write(data, file, read(data, file).iloc[1:])
    with pytest.raises(DataError, match=r"no output of .* for instruction 0 \(1 such cells\)"):
        datasets.load("alpaca-eval", responses=True)


def test_mess_plus_keeps_the_first_of_repeats(data):
    WRITERS["mess-plus"](data)
    pool = datasets.load("mess-plus")
    assert pool.ids.tolist() == ["logiqa.0", "logiqa.1", "piqa.0", "logiqa.2"]
    assert pool.cost_unit == "joules per prompt"
    np.testing.assert_array_equal(pool.cost[:, 0], [10, 20, 30, 40])
    np.testing.assert_array_equal(pool.quality[3], [0, 1, 1])
    assert any(note.startswith("1 rows that repeat") for note in pool.notes)


# --- sizes and digests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mmlu-pro", "gsm8k-zeroeval", "routerdc", "alpaca-eval"])
def test_every_model_has_a_size_or_a_reason_for_none(name):
    models = {m for file in datasets.info(name).files for m in file.models}
    assert len(models) > 5
    for model in models:
        assert (sizes.size_of(model) is None) != (sizes.reason_unsized(model) is None), model


def test_sizes_of_mixtures_and_sizes_read_off_names():
    mixtral = sizes.size_of("mistralai/Mixtral-8x7B-Instruct-v0.1")
    assert (mixtral.total, mixtral.active) == (46.7, 12.9)
    assert sizes.size_of("mistralai__Mixtral-8x7B-Instruct-v0.1") == mixtral
    assert sizes.size_in_name("lmsys/vicuna-33b-v1.3").total == 33
    assert sizes.size_in_name("EleutherAI/llemma_7b").total == 7
    assert sizes.size_in_name("deepseek-ai/deepseek-coder-1.3b-base").total == 1.3
    for unclear in ("some/Moe-4x7b", "x/MixTAO-7Bx2", "bigscience/bloom-7b1", "microsoft/phi-2", "a/7b-of-13b"):
        assert sizes.size_in_name(unclear) is None
    known = sizes.parameters(["x/New-3B-chat", "x/nameless", "claude-2"], read_names=True)
    np.testing.assert_array_equal(known, [3, np.nan, np.nan])
    np.testing.assert_array_equal(sizes.parameters(["x/New-3B-chat"]), [np.nan])


def test_data_digest_follows_files_and_options(data):
    WRITERS["routerbench"](data)
    first = datasets.data_digest("routerbench")
    assert first == datasets.data_digest("routerbench")
    assert first == datasets.data_digest("routerbench", prompt_view="question")
    assert first != datasets.data_digest("routerbench", prompt_view="full")
    assert first != datasets.data_digest("routerbench", leakage="keep")
    _edit(data, "routerbench", lambda frame: frame.assign(cluster_id=1))
    assert first != datasets.data_digest("routerbench")
    assert datasets.data_digest("simulated") != datasets.data_digest("simulated", seed=1)
    with pytest.raises(DataError, match=r"missing"):
        datasets.data_digest("openllm-v2")
