"""TinyPool: the committed data say what they claim to say, and the script that made them still makes them."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tinypool_solver

from routebook import datasets, encoders
from routebook.datasets import cards, files, tinypool
from routebook.errors import DataError, UserError

MIB = 2**20


@pytest.fixture(scope="module")
def folder(root):
    return root / "data" / "tinypool"


@pytest.fixture(scope="module")
def benchmark():
    return datasets.load("tinypool", responses=True)


@pytest.fixture(scope="module")
def questions():
    return tinypool.questions()


@pytest.fixture(scope="module")
def maker(folder):
    """The scripts beside the data, as a namespace."""
    sys.path.insert(0, str(folder))
    yield {name: importlib.import_module(name) for name in ("make_data", "model", "tasks", "recipes")}
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def tokenizer(maker, folder):
    return maker["model"].Tokenizer(json.loads((folder / "vocabulary.json").read_text()))


# --- the files ----------------------------------------------------------------------------------------------------


def test_every_file_is_in_the_card_with_its_hash(folder):
    card = datasets.info("tinypool")
    said = {file.path.removeprefix("tinypool/"): file.sha256 for file in card.files}
    data = {".parquet", ".csv", ".npy", ".npz", ".json"}
    here = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file() and p.suffix in data}
    assert set(here) == set(said)
    for name, sha in said.items():
        assert hashlib.sha256(here[name].read_bytes()).hexdigest() == sha, name


def test_the_folder_is_small(folder):
    sizes = {p: p.stat().st_size for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert sum(sizes.values()) <= 20 * MIB
    assert max(sizes.values()) <= 5 * MIB
    assert sum(size for p, size in sizes.items() if p.suffix == ".npz") < 12 * MIB


def test_a_changed_file_is_refused(folder, tmp_path, monkeypatch):
    copy = tmp_path / "tinypool"
    copy.mkdir()
    for name in ("prompts.parquet", "correctness.parquet", "costs.parquet", "models.csv", *tinypool.EMBEDDINGS):
        shutil.copy(folder / name, copy)
    monkeypatch.setattr(files, "cards_dir", lambda: tmp_path)
    assert len(datasets.load("tinypool")) > 0
    vectors = np.load(copy / tinypool.EMBEDDINGS[1])
    vectors[0, 0] += 1
    np.save(copy / tinypool.EMBEDDINGS[1], vectors)
    with pytest.raises(DataError, match=r"embeddings-2.npy differs from its card"):
        datasets.load("tinypool")
    (copy / tinypool.EMBEDDINGS[1]).unlink()
    with pytest.raises(DataError, match=r"embeddings-2.npy is missing .* git checkout"):
        datasets.load("tinypool")
    (copy / "costs.parquet").unlink()
    assert not datasets.status("tinypool").present
    with pytest.raises(DataError, match=r"costs.parquet is missing"):
        datasets.load("tinypool")


# --- the questions ------------------------------------------------------------------------------------------------


def test_questions_are_many_and_graded_and_no_prompt_is_in_two_splits(questions):
    assert questions["prompt"].is_unique
    assert questions["id"].is_unique
    main = questions[questions["split"].isin(["train", "validation", "test"])]
    assert len(main) >= 6000
    assert main["family"].nunique() >= 8
    assert (main.groupby(["family", "difficulty"]).size().unstack() >= 30).all(axis=None)
    assert (questions["split"] == "probe").sum() == 192
    held_out = set(questions.loc[questions["split"] == "ood", "family"])
    assert len(held_out) == 1
    assert not held_out & set(main["family"])
    assert set(questions["difficulty"]) == {1, 2, 3, 4, 5}


def test_every_answer_is_what_an_independent_solver_says(questions):
    solved = 0
    for row in questions.itertuples():
        found = tinypool_solver.solve(row.family, row.prompt)
        if found is not None:
            solved += 1
            assert found == row.answer, row.prompt
    unsolved = questions[questions["family"] != "facts"]
    assert solved >= len(unsolved) + 100, "too few facts are known to the solver"


def test_prompts_are_short_in_the_models_tokens(questions, tokenizer):
    longest = max(tokenizer.prompt(prompt).shape[1] for prompt in questions["prompt"])
    assert longest <= 42


# --- what was measured --------------------------------------------------------------------------------------------


def test_quality_is_exact_match(benchmark, questions):
    right = questions.set_index("id").loc[benchmark.ids, "answer"].to_numpy()
    assert np.array_equal(benchmark.quality, (benchmark.responses == right[:, None]).astype(float))


def test_the_pool_is_worth_routing_over(benchmark):
    accuracy = dict(zip(benchmark.models, benchmark.quality.mean(axis=0), strict=True))
    best, oracle = max(accuracy.values()), benchmark.quality.max(axis=1).mean()
    assert len(accuracy) >= 16
    assert 0.5 <= best <= 0.8
    assert oracle >= best + 0.12
    price = np.where(benchmark.quality == 1, benchmark.cost, np.inf)
    cheapest = np.bincount(price.argmin(axis=1)[np.isfinite(price.min(axis=1))], minlength=len(accuracy))
    assert (cheapest >= 0.03 * len(benchmark)).sum() >= 5


def test_accuracy_rises_with_size_among_generalists(benchmark):
    sizes = tinypool.models()["parameters"]
    accuracy = pd.Series(benchmark.quality.mean(axis=0), index=benchmark.models)
    line = sizes[sizes.index.str.startswith("general-")].sort_values().index
    assert len(line) >= 6
    assert accuracy[line].is_monotonic_increasing
    assert sizes.min() < 10_000
    assert sizes.max() > 500_000


def test_specialists_beat_the_largest_generalist_in_their_family(benchmark, questions):
    sizes = tinypool.models()["parameters"]
    largest = sizes[sizes.index.str.startswith("general-")].idxmax()
    quality = pd.DataFrame(benchmark.quality, columns=benchmark.models).groupby(benchmark.tasks).mean()
    domain_of = questions.groupby("family")["domain"].first()
    ahead = {}
    for family, row in quality.iterrows():
        own = [m for m in benchmark.models if m.startswith((f"{domain_of[family]}-", f"{family}-"))]
        ahead[family] = row[own].max() - row[largest]
        assert sizes[own].max() < sizes[largest]
    # Two standard errors of a difference between shares on 500 questions are about 0.04.
    assert sum(gain > 0.04 for gain in ahead.values()) >= 2, ahead


def test_models_answer_again_as_they_did(benchmark, maker, tokenizer):
    rows = np.random.default_rng(11).choice(len(benchmark), size=50, replace=False)
    prompts = [benchmark.prompts[i] for i in rows]
    tokens = tinypool.generated_tokens().loc[benchmark.ids[rows]]
    for m, name in enumerate(benchmark.models):
        model = maker["model"].read(tinypool.weights()[name])
        answers, lengths, generated = maker["make_data"].answer_all(model, prompts, tokenizer)
        assert answers == benchmark.responses[rows, m].tolist(), name
        assert generated.tolist() == tokens[name].tolist(), name
        assert model.flops(lengths, generated).tolist() == benchmark.cost[rows, m].tolist(), name
        assert model.n_parameters == tinypool.models().loc[name, "parameters"]


def test_an_answer_does_not_depend_on_what_is_asked_beside_it(benchmark, maker, tokenizer):
    model = maker["model"].read(tinypool.weights()["general-30k"])
    prompts = benchmark.prompts[:40]
    together = maker["make_data"].answer_all(model, prompts, tokenizer)[0]
    assert together == [maker["make_data"].answer_all(model, [p], tokenizer)[0][0] for p in prompts]


def test_flops_are_those_torch_counts(benchmark, maker, tokenizer):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model = maker["model"].read(tinypool.weights()["general-30k"]).float()
    prompt = torch.from_numpy(tokenizer.prompt(benchmark.prompts[0]))[:, None]
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        made, _ = maker["model"].generate(model, prompt, 4, None)
    p, generated = prompt.shape[2], made.shape[1]
    # torch counts attention over the whole prompt as if it were not causal.
    shape = model.shape
    not_causal = 2 * shape.layers * shape.width * p * (p - 1)
    assert counter.get_total_flops() == model.flops(np.array([p]), np.array([generated]))[0] + not_causal


def test_footprints_are_equation_2_and_can_be_taken_again(maker, tokenizer):
    import torch

    prints, probes = tinypool.footprints(), tinypool.probes()
    assert prints.shape == (256, len(tinypool.models()))
    assert np.allclose(np.linalg.norm(prints, axis=0), 1, atol=1e-6)
    name = "general-12k"
    model = maker["model"].read(tinypool.weights()[name])
    ids = [tokenizer.ids[token] for token in prints.index]
    total = np.zeros(len(tokenizer.vocabulary))
    for prompt in probes["prompt"]:
        # No cache of keys and values: every step reads the whole text again.
        tokens = tokenizer.prompt(prompt)
        first = maker["model"].MAX_PROMPT - tokens.shape[1]
        for step in range(10):
            with torch.no_grad():
                logits = model.logits(model(torch.from_numpy(tokens)[:, None], first)[0, -1])
            total += logits.softmax(-1).numpy()
            new = [int(logits.argmax()), step + 1, maker["model"].ANSWER_SEGMENT]
            tokens = np.concatenate([tokens, np.array(new)[:, None]], 1)
    expected = total[ids] / (192 * 10)
    assert np.allclose(prints[name], expected / np.linalg.norm(expected), atol=1e-7)


def test_committed_embeddings_are_the_encoders(benchmark, questions):
    everything = datasets.load("tinypool", ood="keep")
    rows = np.random.default_rng(3).choice(len(everything), size=24, replace=False)
    fresh = encoders.embed([everything.prompts[i] for i in rows], "minilm", cache=False)
    assert everything.embeddings.dtype == np.float32
    assert np.abs(everything.embeddings[rows] - fresh).max() <= 2**-11 * np.abs(fresh).max()
    assert encoders.embed_benchmark(benchmark, "auto") is benchmark.embeddings


# --- the loader ---------------------------------------------------------------------------------------------------


def test_loader_options():
    plain = datasets.load("tinypool")
    assert (plain.origin, plain.cost_unit, plain.quality_kind) == ("made", "FLOPs per prompt", "binary")
    assert set(plain.split) == {"train", "validation", "test"}
    assert plain.responses is None
    kept = datasets.load("tinypool", ood="keep", cost="parameters")
    assert set(kept.split) == {"train", "validation", "test", "ood"}
    assert set(kept.tasks[kept.split == "ood"]).isdisjoint(plain.tasks)
    assert np.array_equal(kept.cost[0], tinypool.models()["parameters"].loc[kept.models])
    assert kept.cost_unit == "parameters"
    assert datasets.data_digest("tinypool") != datasets.data_digest("tinypool", cost="parameters")
    with pytest.raises(UserError, match=r"cost is 'flop', expected one of flops, parameters; did you mean 'flops'"):
        datasets.load("tinypool", cost="flop")
    with pytest.raises(UserError, match=r"ood is 'yes', expected one of drop, keep"):
        datasets.load("tinypool", ood="yes")


def test_tinypool_is_there_without_any_data_folder(monkeypatch, tmp_path):
    from replications.uniroute.params import UniRouteParams
    from routebook.runs import resolve_dataset

    monkeypatch.delenv("ROUTEBOOK_DATA", raising=False)
    monkeypatch.setenv("ROUTEBOOK_CACHE", str(tmp_path))
    assert datasets.status("tinypool").where == cards.cards_dir()
    assert resolve_dataset(UniRouteParams.build({})) == "tinypool"


# --- the maker ----------------------------------------------------------------------------------------------------


def test_a_text_survives_the_tokenizer(tokenizer):
    assert tokenizer.text(tokenizer.answer("132")[:-1]) == "132"
    assert tokenizer.text(tokenizer.answer("nomel", spelled=True)[:-1]) == "nomel"
    assert tokenizer.text(tokenizer.answer("buenos aires")[:-1]) == "buenos aires"
    with pytest.raises(KeyError, match="zeppelin"):
        tokenizer.prompt("What is a zeppelin?")


def test_smoke_run_makes_everything_and_resumes(folder, root, tmp_path):
    out = tmp_path / "tinypool"
    settings = {**os.environ, "ROUTEBOOK_CACHE": str(tmp_path / "cache")}
    settings["PYTHONPATH"] = os.pathsep.join([str(root / "shared"), str(root), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(folder / "make_data.py"), "--smoke", "--out", str(out)]

    def run() -> dict[str, str]:
        done = subprocess.run(command, env=settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in out.rglob("*.np[zy]")} | {
            p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in out.glob("*.parquet")
        }

    before = run()
    kept = (out / "weights" / "general-5k.npz").stat().st_mtime_ns
    (out / "weights" / "strings-xs.npz").unlink()
    assert run() == before, "a second training gave another model"
    assert (out / "weights" / "general-5k.npz").stat().st_mtime_ns == kept, "a finished model was trained again"
    card = cards.Card.model_validate(cards.read_yaml(out / "card.yaml"))
    assert card.models == 2
    assert set(card.file("correctness.parquet").models) == {"general-5k", "strings-xs"}
    log = (out / "_work" / "train.log").read_text()
    assert "general-5k: step" in log
