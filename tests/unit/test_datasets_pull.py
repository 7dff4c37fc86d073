"""Pulls from a made-up hub that serves files in exactly the published formats; nothing goes over the network."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures_data import GSM_EXAMPLES, arc_block, arc_prompt

from routebook import datasets
from routebook.datasets import pull as pulling
from routebook.datasets.canonical import write_canonical
from routebook.datasets.files import cached
from routebook.datasets.pull import HuggingFaceHub, pull
from routebook.errors import DataError, UserError

COMMIT = "c0ffee" * 6 + "abcd"


class FolderHub:
    """A hub whose repositories are folders."""

    def __init__(self, root: Path):
        self.root = root
        self.asked: list[tuple] = []

    def commit(self, repository, revision):
        self.asked.append(("commit", repository, revision))
        return COMMIT

    def files(self, repository, commit):
        return sorted(p.relative_to(self.root / repository).as_posix() for p in (self.root / repository).rglob("*.*"))

    def download(self, repository, file, commit):
        assert commit == COMMIT
        self.asked.append(("download", repository, file))
        path = self.root / repository / file
        if not path.is_file():
            raise UserError(f"{repository} has no file {file}")
        return path


@pytest.fixture
def hub(tmp_path, monkeypatch) -> FolderHub:
    monkeypatch.delenv("ROUTEBOOK_DATA", raising=False)
    monkeypatch.delenv("ROUTEBOOK_ALLOW_MODIFIED", raising=False)
    monkeypatch.setenv("ROUTEBOOK_CACHE", str(tmp_path / "cache"))
    return FolderHub(tmp_path / "hub")


def put(hub: FolderHub, repository: str, file: str, text: str = "") -> Path:
    path = hub.root / repository / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# --- RouterBench ------------------------------------------------------------------------------------------------

RB = "withmartian/routerbench"
RB_MODELS = ["gpt-4-1106-preview", "mistralai/mistral-7b-chat"]


def routerbench_frame() -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "sample_id": ["arc-challenge.test.1", "arc-challenge.val.2", "grade-school-math.dev.3", "mmlu-law.val.4"],
            "prompt": [
                arc_prompt("Which one is heavy?"),
                arc_prompt("Which one is light?"),
                repr([GSM_EXAMPLES, "How many hats?"]),
                repr(["Please answer with the letter of the correct answer.\n\n" + arc_block("Who is liable?")]),
            ],
            "eval_name": ["arc-challenge", "arc-challenge", "grade-school-math", "mmlu-law"],
        }
    )
    for j, model in enumerate(RB_MODELS):
        frame[model] = [1.0, np.nan, 0.25, float(j)]
        frame[f"{model}|model_response"] = "['A']"
        frame[f"{model}|total_cost"] = [0.01 / (j + 1)] * 4
    frame["oracle_model_to_route_to"] = "gpt-4-1106-preview"
    return frame


def put_routerbench(
    hub: FolderHub, frame: pd.DataFrame, file: str = "routerbench_0shot.pkl", protocol: int = 4
) -> Path:
    path = put(hub, RB, file)
    frame.to_pickle(path, protocol=protocol)
    return path


@pytest.mark.parametrize("protocol", [4, 5])
def test_routerbench(hub, protocol):
    put_routerbench(hub, routerbench_frame(), protocol=protocol)
    said: list[str] = []
    assert not datasets.status("routerbench").present
    folder = pull("routerbench", "main", hub=hub, say=said.append)
    assert folder == cached("routerbench")
    assert datasets.status("routerbench").where == "cache"
    assert any("licence" in line for line in said)
    assert any("do not redistribute" in line for line in said)
    assert ("commit", RB, "main") in hub.asked
    meta = json.loads((folder / "meta.json").read_text())
    assert (meta["commit"], meta["revision"], meta["rows"]) == (COMMIT, "main", 4)
    assert meta["files"]["routerbench_0shot.pkl"]["rows"] == 4
    assert len(meta["files"]["routerbench_0shot.pkl"]["sha256"]) == 64

    pool = datasets.load("routerbench")
    assert pool.models == RB_MODELS
    assert pool.prompts[0] == arc_block("Which one is heavy?")
    assert pool.prompts[2] == "How many hats?"
    assert pool.prompts[3] == arc_block("Who is liable?")
    assert pool.split is None
    assert pool.absent == ("hellaswag", "winogrande", "mbpp", "mt-bench")
    np.testing.assert_array_equal(pool.quality[:, 0], [1, np.nan, 0.25, 0])
    np.testing.assert_allclose(pool.cost[0], [0.01, 0.005])
    assert any(COMMIT in note for note in pool.notes)
    raw = datasets.load("routerbench", prompt_view="first-1400-chars")
    assert raw.prompts[0] == arc_prompt("Which one is heavy?")[:1400]
    assert "fine: 4 prompts x 2 models" in datasets.check("routerbench")
    with pytest.raises(UserError, match=r"a pull keeps none"):
        datasets.load("routerbench", responses=True)


def test_routerbench_variant(hub):
    put_routerbench(hub, routerbench_frame(), "routerbench_5shot.pkl")
    pull("routerbench", variant="5shot", hub=hub, say=lambda line: None)
    assert ("download", RB, "routerbench_5shot.pkl") in hub.asked
    with pytest.raises(UserError, match=r"no variant '3shot'; did you mean '[05]shot'\? it has 0shot, 5shot"):
        pull("routerbench", variant="3shot", hub=hub)


def test_malicious_routerbench_executes_nothing_and_keeps_nothing(hub, tmp_path):
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    frame = routerbench_frame()
    frame["prompt"] = pd.Series([Evil(), "b", "c", "d"], dtype=object)
    put_routerbench(hub, frame)
    with pytest.raises(DataError, match=r"routerbench_0shot.pkl was refused: it asks for posix.system"):
        pull("routerbench", hub=hub, say=lambda line: None)
    assert not marker.exists()
    assert not cached("routerbench").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.rename(columns={"sample_id": "sampleid"}), "no column 'sample_id'; was it renamed to 'sampleid'"),
        (lambda f: f.drop(columns=[f"{m}|total_cost" for m in RB_MODELS]), "has no '<model>.total_cost' column"),
        (lambda f: f.assign(**{f"{RB_MODELS[0]}|total_cost": -1.0}), "cost of model 'gpt-4-1106-preview'.*is -1"),
        (lambda f: f.assign(**{RB_MODELS[0]: 7.0}), r"quality of model .* is 7, expected a number in \[0, 1\]"),
        (lambda f: f.assign(**{RB_MODELS[0]: "good"}), "holds 'good', expected numbers"),
    ],
)
def test_a_changed_routerbench_is_refused(hub, change, message):
    put_routerbench(hub, change(routerbench_frame()))
    with pytest.raises(DataError, match=message):
        pull("routerbench", hub=hub, say=lambda line: None)
    assert not cached("routerbench").exists()


# --- EmbedLLM ---------------------------------------------------------------------------------------------------

EMBED = "RZ412/EmbedLLM"
HEAD = "prompt_id,model_id,category,label,prompt\n"


def put_embedllm(hub: FolderHub) -> None:
    rows = [
        (10, 0, "mmlu", 0, "What is, a hat?"),
        (10, 1, "mmlu", 1, "What is, a hat?"),
        (10, 0, "mmlu", 1, "What is, a hat?"),
        (11, 1, "piqa", 0, "How to hat?\nSecond line"),
        (11, 1, "piqa", 0, "How to hat?\nSecond line"),
    ]
    frame = pd.DataFrame(rows, columns=HEAD.strip().split(","))
    put(hub, EMBED, "train.csv", frame.to_csv(index=False))
    put(hub, EMBED, "val.csv", HEAD + "12,0,mmlu,1,Where is the hat?\n12,2,mmlu,0,Where is the hat?\n")
    put(hub, EMBED, "test.csv", HEAD + "13,2,gsm8k,1,NA\n")
    put(hub, EMBED, "model_order.csv", "model_id,model_name\n0,org/Hat-7b\n1,microsoft/phi-2\n2,org/Nameless\n")


@pytest.mark.parametrize("chunk", [1, 2, 200_000])
def test_embedllm(hub, chunk, monkeypatch):
    put_embedllm(hub)
    monkeypatch.setattr(pulling, "CSV_CHUNK", chunk)
    pull("embedllm", hub=hub, say=lambda line: None)
    pool = datasets.load("embedllm")
    assert pool.models == ["microsoft/phi-2", "org/Hat-7b", "org/Nameless"]
    assert pool.ids.tolist() == ["10", "11", "12", "13"]
    assert pool.split.tolist() == ["train", "train", "val", "test"]
    assert pool.tasks.tolist() == ["mmlu", "piqa", "mmlu", "gsm8k"]
    assert pool.prompts[1] == "How to hat?\nSecond line"
    assert pool.prompts[3] == "NA"
    nan = np.nan
    # Of the two labels of Hat-7b on prompt 10 the larger stays.
    np.testing.assert_array_equal(pool.quality, [[1, 1, nan], [0, nan, nan], [nan, 1, 0], [nan, nan, 1]])
    np.testing.assert_array_equal(pool.cost[0], [2.7, 7, nan])
    assert any(note.startswith("2 repeated (model, prompt) rows") for note in pool.notes)
    assert any("no public size known for org/Nameless" in note for note in pool.notes)


def test_embedllm_grows_beyond_its_first_allocation(hub):
    put_embedllm(hub)
    lines = [f"{i},{i % 140},mmlu,{i % 2},prompt {i}\n" for i in range(2500)]
    put(hub, EMBED, "train.csv", HEAD + "".join(lines))
    (hub.root / EMBED / "model_order.csv").unlink()
    pull("embedllm", hub=hub, say=lambda line: None)
    pool = datasets.load("embedllm")
    train = pool.subset(pool.split == "train")
    assert len(train) == 2500
    assert np.isfinite(train.quality).sum() == 2500
    assert train.quality[2499, pool.models.index(str(2499 % 140))] == 1


def test_embedllm_bad_label_or_column(hub):
    put_embedllm(hub)
    put(hub, EMBED, "val.csv", HEAD + "12,0,mmlu,maybe,Where?\n")
    with pytest.raises(DataError, match=r"val.csv: label is 'maybe', expected 0 or 1"):
        pull("embedllm", hub=hub, say=lambda line: None)
    put(hub, EMBED, "val.csv", HEAD.replace("label", "labels") + "12,0,mmlu,1,Where?\n")
    with pytest.raises(DataError, match=r"val.csv has no column 'label'; was it renamed to 'labels'"):
        pull("embedllm", hub=hub, say=lambda line: None)
    assert not cached("embedllm").exists()


# --- MixInstruct ------------------------------------------------------------------------------------------------

MIX = "llm-blender/mix-instruct"


def mix_line(id_: str, text: str, **scores: float) -> str:
    candidates = [
        {"decoding_method": "top_p", "model": model, "text": "…", "scores": {"bleu": 0.1, "bartscore": score}}
        for model, score in scores.items()
    ]
    return json.dumps({"id": id_, "instruction": "Do this.", "input": text, "output": "done", "candidates": candidates})


def put_mix(hub: FolderHub) -> None:
    put(
        hub,
        MIX,
        "train_data_prepared.jsonl",
        mix_line("u/1", "with that", **{"vicuna-13b-1.1": -2.0, "koala-7B-HF": -1.0}),
    )
    put(hub, MIX, "val_data_prepared.jsonl", mix_line("u/2", "", **{"flan-t5-xxl": -3.5}) + "\n\n")
    put(hub, MIX, "test_data_prepared.jsonl", mix_line("u/3", "x", **{"koala-7B-HF": 0.0}) + "\n")


def test_mixinstruct(hub):
    put_mix(hub)
    pull("mixinstruct", hub=hub, say=lambda line: None)
    pool = datasets.load("mixinstruct")
    assert pool.models == ["flan-t5-xxl", "koala-7B-HF", "vicuna-13b-1.1"]
    assert pool.quality_kind == "soft"
    assert pool.prompts == ["Do this.\nwith that", "Do this.", "Do this.\nx"]
    assert pool.split.tolist() == ["train", "val", "test"]
    expected = [[np.nan, 0.36787944, 0.13533528], [0.03019738, np.nan, np.nan], [np.nan, 1.0, np.nan]]
    np.testing.assert_allclose(pool.quality, expected, rtol=1e-6)
    assert pool.cost[0].tolist() == [11, 7, 13]
    assert pool.cost_unit == "billion parameters"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 1 is no JSON"),
        ('{"id": 1, "instruction": "a", "input": ""}', "has no field 'candidates'"),
        (mix_line("1", "x", m=float("nan")), "without a model or a finite bartscore"),
    ],
)
def test_mixinstruct_damage(hub, line, message):
    put_mix(hub)
    put(hub, MIX, "val_data_prepared.jsonl", line)
    with pytest.raises(DataError, match=message):
        pull("mixinstruct", hub=hub, say=lambda line: None)


# --- SPROUT -----------------------------------------------------------------------------------------------------

SPROUT = "CARROT-LLM-Routing/SPROUT"


def put_sprout(hub: FolderHub, repository: str = SPROUT) -> None:
    def answer(tokens_in, tokens_out, score):
        return {"num_input_tokens": tokens_in, "num_output_tokens": tokens_out, "response": "…", "score": score}

    splits = {
        "data/train-00000-of-00002.parquet": [("k1", "gsm8k", answer(100, 50, 1.0), answer(10, 20, 0.0))],
        "data/train-00001-of-00002.parquet": [("k2", "mmlu", answer(None, 5, 0.5), answer(10, 20, 0.0))],
        "data/validation-00000-of-00001.parquet": [("k3", "mmlu", answer(7, 5, None), answer(10, 20, 1.0))],
        "data/test-00000-of-00001.parquet": [("k4", "math", answer(0, 1000, 0.0), answer(10, 20, 1.0))],
    }
    for file, rows in splits.items():
        path = put(hub, repository, file)
        table = pa.table(
            {
                "key": [row[0] for row in rows],
                "dataset": [row[1] for row in rows],
                "dataset_level": [None] * len(rows),
                "dataset_idx": [0] * len(rows),
                "prompt": [f"prompt of {row[0]}" for row in rows],
                "golden_answer": ["42"] * len(rows),
                "dear-model": [row[2] for row in rows],
                "cheap-model": [row[3] for row in rows],
            }
        )
        pq.write_table(table, path)


PRICES = "model,usd_per_million_input_tokens,usd_per_million_output_tokens\ndear-model,2.0,10.0\n"


def test_sprout(hub, tmp_path):
    put_sprout(hub)
    prices = tmp_path / "prices.csv"
    prices.write_text(PRICES)
    pull("sprout", prices=prices, hub=hub, say=lambda line: None)
    pool = datasets.load("sprout")
    assert pool.models == ["dear-model", "cheap-model"]
    assert pool.cost_unit == "USD per prompt"
    # k2 has no count of input tokens for the priced model, so no price: it is left out, not taken for 0.
    assert pool.ids.tolist() == ["k1", "k3", "k4"]
    assert pool.split.tolist() == ["train", "validation", "test"]
    # (100 x 2 + 50 x 10) / 1e6, (7 x 2 + 5 x 10) / 1e6, (0 x 2 + 1000 x 10) / 1e6
    np.testing.assert_allclose(pool.cost[:, 0], [0.0007, 0.000064, 0.01])
    assert pool.unpriced == ["cheap-model"]
    np.testing.assert_array_equal(pool.quality, [[1, 0], [np.nan, 1], [0, 1]])
    assert any("no price given for cheap-model" in note for note in pool.notes)
    assert any(note.startswith("1 prompts left out because a token count") for note in pool.notes)


def test_sprout_prices_from_the_data_folder_or_none(hub, tmp_path, monkeypatch):
    put_sprout(hub)
    pull("sprout", hub=hub, say=lambda line: None)
    pool = datasets.load("sprout")
    assert len(pool) == 4
    assert pool.unpriced == pool.models
    assert any("no price table at hand" in note for note in pool.notes)
    table = tmp_path / "data" / pulling.SPROUT_PRICES
    table.parent.mkdir(parents=True)
    table.write_text(PRICES)
    monkeypatch.setenv("ROUTEBOOK_DATA", str(tmp_path / "data"))
    put_sprout(hub, "CARROT-LLM-Routing/SPROUT-o3mini")
    pull("sprout", variant="o3-mini", hub=hub, say=lambda line: None)
    assert ("commit", "CARROT-LLM-Routing/SPROUT-o3mini", None) in hub.asked
    assert datasets.load("sprout").unpriced == ["cheap-model"]


def test_sprout_bad_prices(hub, tmp_path):
    put_sprout(hub)
    prices = tmp_path / "prices.csv"
    prices.write_text(PRICES.replace("10.0", "-1"))
    with pytest.raises(DataError, match=r"price of 'dear-model' is not a number >= 0"):
        pull("sprout", prices=prices, hub=hub, say=lambda line: None)
    prices.write_text(PRICES.replace("usd_per_million_output_tokens", "output"))
    with pytest.raises(DataError, match=r"no column 'usd_per_million_output_tokens'"):
        pull("sprout", prices=prices, hub=hub, say=lambda line: None)
    with pytest.raises(UserError, match=r"cannot be read"):
        pull("sprout", prices=tmp_path / "none.csv", hub=hub, say=lambda line: None)
    with pytest.raises(UserError, match=r"only sprout takes a price table"):
        pull("embedllm", prices=prices, hub=hub)


# --- what is stored ---------------------------------------------------------------------------------------------


def test_datasets_that_are_not_on_the_hub(hub):
    with pytest.raises(UserError, match=r"mess-plus is not on the hub; .* routerbench, embedllm, mixinstruct, sprout"):
        pull("mess-plus", hub=hub)
    with pytest.raises(UserError, match=r"no dataset 'sprot'; did you mean 'sprout'"):
        pull("sprot", hub=hub)


def test_a_stored_table_is_checked_when_it_is_read(hub, monkeypatch):
    put_mix(hub)
    folder = pull("mixinstruct", hub=hub, say=lambda line: None)
    digest = datasets.data_digest("mixinstruct")
    table, meta = folder / "table.parquet", folder / "meta.json"
    whole, said = table.read_bytes(), meta.read_text()

    frame = pd.read_parquet(table)
    frame["prompt"] = frame["prompt"] + "!"
    frame.to_parquet(table, index=False)
    assert datasets.data_digest("mixinstruct") != digest
    with pytest.raises(DataError, match=r"differs from its meta.json.*ROUTEBOOK_ALLOW_MODIFIED=1"):
        datasets.load("mixinstruct")
    monkeypatch.setenv("ROUTEBOOK_ALLOW_MODIFIED", "1")
    assert any("differs from its meta.json" in note for note in datasets.load("mixinstruct").notes)
    monkeypatch.delenv("ROUTEBOOK_ALLOW_MODIFIED")

    frame.iloc[1:].to_parquet(table, index=False)
    with pytest.raises(DataError, match=r"has 2 rows, its meta.json says 3"):
        datasets.load("mixinstruct")
    frame.rename(columns={"cost|flan-t5-xxl": "price|flan-t5-xxl"}).to_parquet(table, index=False)
    with pytest.raises(DataError, match=r"no column 'cost.flan-t5-xxl'; was it renamed to 'price.flan-t5-xxl'"):
        datasets.load("mixinstruct")
    table.write_bytes(whole[:-10])
    with pytest.raises(DataError, match=r"is unreadable.*routebook data pull mixinstruct"):
        datasets.load("mixinstruct")
    table.write_bytes(whole)
    meta.write_text(said[: len(said) // 2])
    with pytest.raises(DataError, match=r"meta.json is unreadable"):
        datasets.load("mixinstruct")
    meta.write_text("{}")
    with pytest.raises(DataError, match=r"meta.json has no field 'name'"):
        datasets.load("mixinstruct")


def test_pulled_data_in_the_data_folder_comes_first(hub, tmp_path, monkeypatch):
    put_mix(hub)
    folder = pull("mixinstruct", hub=hub, say=lambda line: None)
    data = tmp_path / "data"
    data.mkdir()
    folder.rename(data / "mixinstruct")
    assert not datasets.status("mixinstruct").present
    monkeypatch.setenv("ROUTEBOOK_DATA", str(data))
    assert datasets.status("mixinstruct").where == data / "mixinstruct"
    assert len(datasets.load("mixinstruct")) == 3


def test_a_second_pull_replaces_and_a_failed_one_leaves_the_first(hub, monkeypatch):
    put_mix(hub)
    folder = pull("mixinstruct", hub=hub, say=lambda line: None)
    put(hub, MIX, "test_data_prepared.jsonl", "")
    pull("mixinstruct", hub=hub, say=lambda line: None)
    assert len(datasets.load("mixinstruct")) == 2
    assert [p.name for p in folder.parent.iterdir()] == ["mixinstruct"]

    put_mix(hub)
    monkeypatch.setattr(pd.DataFrame, "to_parquet", _full_disk)
    with pytest.raises(UserError, match=r"cannot write .*No space left"):
        pull("mixinstruct", hub=hub, say=lambda line: None)
    assert [p.name for p in folder.parent.iterdir()] == ["mixinstruct"]
    assert len(datasets.load("mixinstruct")) == 2


def _full_disk(self, path, **options):
    path.write_bytes(b"half a table")
    raise OSError(28, "No space left on device")


def test_unwritable_cache(hub, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"cannot write into .*set ROUTEBOOK_CACHE"):
        write_canonical(cached("sprout"), pd.DataFrame({"a": [1]}), {})


def test_failures_of_the_real_hub_are_readable(monkeypatch):
    import huggingface_hub

    def unreachable(*args, **kwargs):
        raise ConnectionError("no route to host\n(details)")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", unreachable)
    hub = HuggingFaceHub()
    for ask in (
        lambda: hub.commit("a/b", None),
        lambda: hub.files("a/b", COMMIT),
        lambda: hub.download("a/b", "f.csv", COMMIT),
    ):
        with pytest.raises(UserError, match=r"Hub did not deliver a/b.*no route to host.*check the network") as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_the_real_hub_is_asked_for_datasets_at_the_commit(monkeypatch, tmp_path):
    import huggingface_hub

    asked = {}

    def download(repository, file, **options):
        asked.update(options, repository=repository, file=file)
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert HuggingFaceHub().download("a/b", "f.csv", COMMIT) == tmp_path / "f.csv"
    assert asked == {"repository": "a/b", "file": "f.csv", "repo_type": "dataset", "revision": COMMIT}
