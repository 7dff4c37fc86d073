"""Encoders: what they compute, and the cache that keeps it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from routebook import encoders
from routebook.benchmark import RoutingBenchmark
from routebook.errors import DataError, UserError

WORDS = ["what", "is", "the", "cost", "of", "a", "prompt", "model", "route", "blue", "seven", "."]
TEXTS = ["what is the cost", "route a prompt", "blue", "what is the cost of a model of seven ."]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROUTEBOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "embeddings" / "vectors.sqlite"


def save_tokenizer(folder, special, **names):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=special[0], **names).save_pretrained(folder)
    return len(vocabulary)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """A random BERT with 32 positions, as transformers saves it."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert")
    size = save_tokenizer(folder, ["[UNK]", "[PAD]"], pad_token="[PAD]")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        pad_token_id=1,
    )
    BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory):
    """A random GPT-2 language model; like the real one its tokenizer has no padding token."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("gpt2")
    size = save_tokenizer(folder, ["<|endoftext|>"], eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=size, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    """A random Llama language model; sentence-transformers by itself would take its last token."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    size = save_tokenizer(folder, ["</s>"], eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def mean_of_hidden_states(folder, text):
    import torch
    from transformers import AutoModel, AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(folder)([text], return_tensors="pt")
    with torch.no_grad():
        return AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state[0].mean(dim=0).numpy()


# --- what is computed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["tiny_bert", "tiny_gpt2", "tiny_llama"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_plain_models_get_the_mean_of_their_hidden_states(model, batch_size, request):
    folder = request.getfixturevalue(model)
    vectors = encoders.embed(TEXTS, folder, batch_size=batch_size)
    assert vectors.shape == (4, 16)
    assert vectors.dtype == np.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(vector, mean_of_hidden_states(folder, text), atol=2e-6)


@pytest.mark.parametrize("model", ["tiny_bert", "tiny_gpt2"])
def test_long_and_blank_prompts(model, request):
    folder = request.getfixturevalue(model)
    long = "what is the cost of a prompt " * 20
    vectors = encoders.embed([long, long + "blue", "", "  "], folder, cache=False)
    assert np.isfinite(vectors).all()
    np.testing.assert_array_equal(vectors[0], vectors[1])  # both cut to the model's 32 positions
    assert np.abs(vectors[2]).max() > 0 or model == "tiny_bert"


def test_max_seq_length_cuts_and_is_cached_apart(tiny_bert):
    short = encoders.encoder(tiny_bert, max_seq_length=2)
    assert short.fingerprint != encoders.encoder(tiny_bert).fingerprint
    whole = encoders.embed(["what is the cost"], tiny_bert)
    np.testing.assert_array_equal(encoders.embed(["what is the cost"], short), encoders.embed(["what is"], tiny_bert))
    assert (encoders.embed(["what is the cost"], short) != whole).any()


def test_truncation_side_keeps_the_other_end_and_is_cached_apart(tiny_bert):
    text = "what is the cost of a model"
    left = encoders.encoder(tiny_bert, max_seq_length=2, truncation_side="left")
    right = encoders.encoder(tiny_bert, max_seq_length=2, truncation_side="right")
    np.testing.assert_array_equal(encoders.embed([text], left), encoders.embed(["a model"], tiny_bert))
    np.testing.assert_array_equal(encoders.embed([text], right), encoders.embed(["what is"], tiny_bert))
    np.testing.assert_array_equal(encoders.embed([text], left), encoders.embed(["a model"], tiny_bert))
    assert len({e.fingerprint for e in (left, right, encoders.encoder(tiny_bert, max_seq_length=2))}) == 3


def test_a_chosen_side_leaves_the_keys_of_all_other_vectors_as_they_were(tiny_bert):
    """Vectors cached before the side could be chosen are still found: the key is built from these four parts."""
    weights = encoders.folder_hash(Path(tiny_bert))
    for length in (None, 2):
        parts = {"model": weights, "max_seq_length": length, "normalised": "by the model", "rules": "1"}
        old = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        assert encoders.encoder(tiny_bert, max_seq_length=length).fingerprint == old


def test_a_length_beyond_the_models_positions_is_refused(tiny_bert):
    with pytest.raises(UserError, match="32 positions, so max_seq_length = 33"):
        encoders.embed(["what"], encoders.encoder(tiny_bert, max_seq_length=33), cache=False)


def test_one_by_one_a_vector_does_not_depend_on_its_company(tiny_bert, monkeypatch):
    monkeypatch.setattr(encoders, "processes", lambda: 3)
    together = encoders.embed(TEXTS, tiny_bert, cache=False)
    alone = np.concatenate([encoders.embed([text], tiny_bert, cache=False) for text in TEXTS[::-1]])[::-1]
    np.testing.assert_array_equal(together, alone)


def test_minilm_gives_the_published_similarities():
    """The example of the sentence-transformers documentation for all-MiniLM-L6-v2 prints this matrix."""
    sentences = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    vectors = encoders.embed(sentences)
    published = [[1.0000, 0.6660, 0.1046], [0.6660, 1.0000, 0.1411], [0.1046, 0.1411, 1.0000]]
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(vectors @ vectors.T, published, atol=2e-4)


def test_many_threads_give_each_text_its_own_vector(tiny_bert, monkeypatch):
    texts = [" ".join(WORDS[: 1 + i % 9]) + f" {WORDS[i % 11]}" for i in range(120)]
    monkeypatch.setattr(encoders, "processes", lambda: 1)
    model = encoders.encoder(tiny_bert)
    alone = model.encode(texts)
    monkeypatch.setattr(encoders, "processes", lambda: 4)
    np.testing.assert_array_equal(model.encode(texts), alone)
    np.testing.assert_allclose(model.encode(texts, batch_size=7), alone, atol=1e-6)


def test_the_tokenizer_is_used_by_one_thread_at_a_time(tiny_bert, monkeypatch):
    from transformers import PreTrainedTokenizerBase

    monkeypatch.setattr(encoders, "processes", lambda: 4)
    plain, inside, most = PreTrainedTokenizerBase.__call__, [], []

    def watched(self, *args, **kw):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()
        return plain(self, *args, **kw)

    monkeypatch.setattr(PreTrainedTokenizerBase, "__call__", watched)
    encoders.encoder(tiny_bert).encode(TEXTS * 5)
    assert len(most) >= 20
    assert max(most) == 1


def test_latency_is_per_prompt_and_never_from_the_cache(tiny_bert, encoded):
    encoders.embed(TEXTS, tiny_bert)
    encoded.clear()
    milliseconds = encoders.measure_latency(tiny_bert, TEXTS, warm_up=1)
    assert 0 < milliseconds < 1000
    assert encoded == [TEXTS[0], *TEXTS]


# --- benchmarks ------------------------------------------------------------------------------------------------------


def benchmark(embeddings):
    ones = np.ones((2, 1))
    return RoutingBenchmark(
        "b", TEXTS[:2], np.array(["t", "t"]), ["m"], ones, ones, "USD per prompt", embeddings=embeddings
    )


def test_auto_takes_the_datas_own_embeddings_a_name_encodes_the_text(tiny_bert, encoded):
    own = np.arange(6.0).reshape(2, 3)
    got = encoders.embed_benchmark(benchmark(own))
    np.testing.assert_array_equal(got, own)
    assert got.dtype == np.float32
    assert encoded == []
    assert encoders.embed_benchmark(benchmark(own), tiny_bert).shape == (2, 16)


def test_auto_falls_back_to_minilm():
    assert encoders.embed_benchmark(benchmark(None)).shape == (2, 384)


# --- the cache -------------------------------------------------------------------------------------------------------


def test_n_texts_of_which_k_are_cached_cost_n_minus_k(tiny_bert, encoded):
    first = encoders.embed(TEXTS[:2], tiny_bert)
    assert sorted(encoded) == sorted(TEXTS[:2])
    encoded.clear()
    asked = [TEXTS[3], TEXTS[0], TEXTS[3], TEXTS[2], TEXTS[1]]
    vectors = encoders.embed(asked, tiny_bert)
    assert sorted(encoded) == sorted([TEXTS[2], TEXTS[3]])
    np.testing.assert_array_equal(vectors[[1, 4]], first)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    np.testing.assert_array_equal(vectors, encoders.embed(asked, tiny_bert, cache=False))


def test_two_encoders_do_not_share_vectors(tiny_bert, tiny_gpt2, encoded):
    encoders.embed(TEXTS, tiny_bert)
    encoders.embed(TEXTS, tiny_gpt2)
    assert len(encoded) == 2 * len(TEXTS)


def test_changed_weights_change_the_fingerprint(tiny_bert, tmp_path, encoded):
    folder = tmp_path / "copy"
    shutil.copytree(tiny_bert, folder)
    same = encoders.embed(TEXTS, str(folder))
    np.testing.assert_array_equal(same, encoders.embed(TEXTS, tiny_bert))
    assert len(encoded) == len(TEXTS)  # the copy is the same model, wherever it lies
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-2] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    encoders.embed(TEXTS, str(folder))
    assert len(encoded) == 2 * len(TEXTS)


def test_an_interrupted_run_keeps_its_work(tiny_bert, monkeypatch):
    monkeypatch.setattr(encoders, "CHUNK", 1)
    plain = encoders.Encoder.encode
    done = []

    def interrupted(self, prompts, **kw):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.extend(prompts)
        return plain(self, prompts, **kw)

    monkeypatch.setattr(encoders.Encoder, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        encoders.embed(TEXTS, tiny_bert)
    before = list(done)
    done.clear()
    encoders.embed(before, tiny_bert)
    assert len(before) == 2
    assert done == []


def test_what_another_process_has_encoded_meanwhile_is_not_encoded_again(tiny_bert, monkeypatch):
    monkeypatch.setattr(encoders, "CHUNK", 1)
    plain, ours, theirs = encoders.Encoder.encode, [], []

    def encode(self, prompts, **kw):
        (theirs if ours else ours).extend(prompts)
        if len(ours) == 1 and not theirs:
            encoders.embed(TEXTS, tiny_bert)  # as another process would, while we are at our first prompt
        return plain(self, prompts, **kw)

    monkeypatch.setattr(encoders.Encoder, "encode", encode)
    vectors = encoders.embed(TEXTS, tiny_bert)
    assert len(ours) == 1
    assert sorted(theirs) == sorted(TEXTS), "all but what was encoded twice at the same time are theirs alone"
    np.testing.assert_array_equal(vectors, encoders.embed(TEXTS, tiny_bert, cache=False))


def test_a_flipped_bit_in_a_vector_is_found_and_repaired(tiny_bert, cache, encoded, caplog):
    good = encoders.embed(TEXTS, tiny_bert)
    db = sqlite3.connect(cache)
    key, vector = db.execute("SELECT key, vector FROM vectors LIMIT 1").fetchone()
    damaged = bytearray(vector)
    damaged[5] ^= 1
    db.execute("UPDATE vectors SET vector = ? WHERE key = ?", (bytes(damaged), key))
    db.commit()
    db.close()
    encoded.clear()
    with caplog.at_level(logging.WARNING):
        again = encoders.embed(TEXTS, tiny_bert)
    np.testing.assert_array_equal(again, good)
    assert len(encoded) == 1
    assert "damaged" in caplog.text
    encoded.clear()
    encoders.embed(TEXTS, tiny_bert)
    assert encoded == []


@pytest.mark.parametrize("damage", ["garbage", "torn"])
def test_a_damaged_file_is_moved_aside_and_rebuilt(damage, tiny_bert, cache, encoded, caplog):
    good = encoders.embed([f"{text} {i}" for i in range(40) for text in TEXTS], tiny_bert)
    content = bytearray(cache.read_bytes())
    if damage == "garbage":
        content[:] = b"this is no database" * 100
    else:
        content[4096:] = os.urandom(len(content) - 4096)
    cache.write_bytes(content)
    encoded.clear()
    with caplog.at_level(logging.WARNING):
        again = encoders.embed([f"{text} {i}" for i in range(40) for text in TEXTS], tiny_bert)
    np.testing.assert_array_equal(again, good)
    assert len(encoded) == 160
    assert "begun anew" in caplog.text
    aside = list(cache.parent.glob("vectors.sqlite.damaged-*"))
    assert len(aside) == 1
    assert aside[0].read_bytes() == bytes(content)
    encoded.clear()
    encoders.embed([f"{TEXTS[0]} 1"], tiny_bert)
    assert encoded == []


def test_a_file_that_another_process_has_rebuilt_is_left_alone(cache):
    store = encoders.VectorCache(cache)
    store.put({b"key": np.ones(2, dtype=np.float32)})
    store._move_aside(sqlite3.DatabaseError("seen before the other process rebuilt it"))
    assert list(store.get([b"key"])) == [b"key"]
    assert list(cache.parent.glob("*.damaged-*")) == []


STRESS = """
import hashlib, sys
from pathlib import Path
import numpy as np
from routebook.encoders import VectorCache
cache, own = VectorCache(Path(sys.argv[1])), int(sys.argv[2])
for i in range(60):
    # Even numbers are written by both processes, odd ones by one of them.
    numbers = [2 * i, 2 * i + 1 if own else 2 * i]
    keys = [hashlib.sha256(str(n).encode()).digest() for n in numbers]
    cache.put({k: np.full(8, n, dtype=np.float32) for k, n in zip(keys, numbers)})
    got = cache.get(keys)
    assert all((got[k] == n).all() for k, n in zip(keys, numbers)), numbers
"""


@pytest.mark.parametrize("start", ["empty", "garbage"])
def test_two_processes_at_once(start, cache, root):
    if start == "garbage":
        cache.parent.mkdir(parents=True)
        cache.write_bytes(b"garbage" * 1000)
    environment = {**os.environ, "PYTHONPATH": str(root / "shared")}
    runs = [
        subprocess.Popen([sys.executable, "-c", STRESS, cache, str(own)], env=environment, stderr=subprocess.PIPE)
        for own in (0, 1)
    ]
    for run in runs:
        _, errors = run.communicate(timeout=120)
        assert run.returncode == 0, errors.decode()
    with sqlite3.connect(cache) as db:
        assert db.execute("SELECT count(*) FROM vectors").fetchone()[0] in (
            (120,) if start == "empty" else range(110, 121)
        )
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(list(cache.parent.glob("*.damaged-*"))) == (start == "garbage")


def test_a_fully_cached_call_imports_no_deep_learning_library(cache, root):
    vectors = encoders.embed(["one prompt", "another"])
    script = (
        "import sys; from routebook.encoders import embed; v = embed(['another', 'one prompt']); "
        "loaded = {'torch', 'transformers', 'sentence_transformers'} & set(sys.modules); "
        "assert not loaded, loaded; sys.stdout.buffer.write(v.tobytes())"
    )
    environment = {**os.environ, "PYTHONPATH": str(root / "shared")}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=120)
    assert run.returncode == 0, run.stderr.decode()
    np.testing.assert_array_equal(np.frombuffer(run.stdout, dtype=np.float32).reshape(2, 384), vectors[::-1])


def test_a_cache_that_cannot_be_written_is_named(tiny_bert, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ROUTEBOOK_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="ROUTEBOOK_CACHE"):
        encoders.embed(TEXTS, tiny_bert)


# --- hub models ------------------------------------------------------------------------------------------------------

HUB = """
import sys, json
import numpy as np
from routebook import encoders
from routebook.errors import UserError
model = encoders.encoder("someone/tiny")
answer = {"fingerprint": model.fingerprint}
if sys.argv[1] == "embed":
    answer["vector"] = encoders.embed(["what is the cost"], model)[0].tolist()
try:
    encoders.embed(["what"], "someone/absent")
except UserError as error:
    answer["error"] = str(error)
print(json.dumps(answer))
"""


def test_hub_models_come_from_the_local_hub_cache_and_their_commit_counts(tiny_gpt2, tmp_path, root):
    """A hub cache as huggingface_hub lays it out, without network; the causal model still gets mean pooling."""

    def ask(commit, what):
        home = tmp_path / commit[:4]
        repository = home / "hub" / "models--someone--tiny"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        shutil.copytree(tiny_gpt2, repository / "snapshots" / commit)
        paths = {"PYTHONPATH": str(root / "shared"), "HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")}
        environment = {**os.environ, **paths, "HF_HUB_OFFLINE": "1"}
        run = subprocess.run(
            [sys.executable, "-c", HUB, what], env=environment, capture_output=True, text=True, timeout=300
        )
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout.splitlines()[-1])

    first, second = ask("a" * 40, "embed"), ask("b" * 40, "fingerprint")
    expected = mean_of_hidden_states(tiny_gpt2, "what is the cost")
    np.testing.assert_allclose(first["vector"], expected, atol=2e-6)
    assert first["fingerprint"] != second["fingerprint"]
    assert "encoder 'someone/absent'" in first["error"]
    assert "minilm" in first["error"]


# --- what bad input gets ---------------------------------------------------------------------------------------------


def test_weights_that_are_not_the_published_ones_are_refused(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(encoders.minilm_folder(), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.setattr(encoders, "minilm_folder", lambda: folder)
    with pytest.raises(DataError, match=r"sha256 [0-9a-f]{64}, expected 53aa5117[0-9a-f]+b128d9db"):
        encoders.embed(["a prompt"], "minilm")
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match="missing"):
        encoders.embed(["a prompt"], "minilm")


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "auto", "", "two words", "a/b/c"])
def test_names_that_can_be_no_encoder(name):
    with pytest.raises(UserError, match="encoder is"):
        encoders.encoder(name)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(UserError, match=r"neither modules.json nor config.json"):
        encoders.encoder(str(tmp_path))


def test_a_folder_that_does_not_load(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no such type"}')
    with pytest.raises(UserError, match="could not be loaded"):
        encoders.embed(["a"], str(tmp_path), cache=False)


def test_weights_with_nan_are_refused(tiny_bert, tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "nan"
    shutil.copytree(tiny_bert, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"][:] = np.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="NaN"):
        encoders.embed(TEXTS, str(folder))


@pytest.mark.parametrize(
    ("prompts", "kw", "message"),
    [
        ([], {}, "no prompt"),
        ("one text", {}, "sequence of texts"),
        (["a", None], {}, "sequence of texts"),
        (["a"], {"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_bad_prompts(prompts, kw, message):
    with pytest.raises(UserError, match=message):
        encoders.embed(prompts, "minilm", **kw)


def test_bad_max_seq_length():
    with pytest.raises(UserError, match="max_seq_length is 0"):
        encoders.encoder("minilm", max_seq_length=0)


def test_bad_truncation_side():
    with pytest.raises(UserError, match="truncation_side is 'middle'"):
        encoders.encoder("minilm", truncation_side="middle")


def test_minilm_is_found_without_importing_its_package():
    assert (encoders.minilm_folder() / "model.safetensors").is_file()
    assert Path(encoders.encoder("minilm").source) == encoders.minilm_folder()
