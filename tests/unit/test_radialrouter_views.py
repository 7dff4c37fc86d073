"""The prefix trap: inputs counted by hand, truncation as the encoder does it, and vectors that are encoded once."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from replications.radialrouter import views
from routebook import encoders
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError

PREFIX = "one two three four five six"
ENDS = ["red", "blue", "green", "red"]
WORDS = [*PREFIX.split(), "red", "blue", "green", "grey"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROUTEBOOK_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random BERT with 16 positions and two special tokens; cut at 8 tokens by itself."""
    import torch
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    plain = tmp_path_factory.mktemp("plain")
    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    named = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(plain)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=16, pad_token_id=0, **sizes)
    BertModel(config).save_pretrained(plain)
    model = SentenceTransformer(str(plain), device="cpu")
    model.max_seq_length = 8
    folder = tmp_path_factory.mktemp("cut-at-eight")
    model.save(str(folder))
    return str(folder)


def bench(prompts, tasks, **kw):
    ones = np.ones((len(prompts), 2))
    return RoutingBenchmark("toy", prompts, np.array(tasks), ["a", "b"], ones, ones, "USD per prompt", **kw)


@pytest.fixture
def shared():
    """Four prompts behind six shared tokens, one of them twice, and two without a prefix in another dataset."""
    return bench([f"{PREFIX} {end}" for end in ENDS] + ["red", "blue grey"], ["p"] * 4 + ["q"] * 2)


def test_inputs_behind_a_prefix_of_known_length(shared, tiny):
    tokenizer = views.tokenizer_of(tiny)
    found = views.distinct_inputs({"full": shared}, tokenizer, [3, 8, 9, 16], ["right", "left"])
    # Two of the length are special tokens: the six tokens of the prefix fill a length of 8, the ends show from 9 on.
    rows = found[found["dataset"] == "p"].set_index(["side", "length"])
    assert rows.loc["right", "distinct"].tolist() == [1, 1, 3, 3]
    assert rows.loc["left", "distinct"].tolist() == [3, 3, 3, 3]
    assert rows.loc["right", "share"].tolist() == [0.25, 0.25, 0.75, 0.75]
    assert rows.loc["right", "largest"].tolist() == [1, 1, 0.5, 0.5]
    assert rows.loc["right", "cut"].tolist() == [1, 1, 0, 0]
    assert rows.loc["right", "tokens"].tolist() == [1, 6, 21, 21]
    assert found.loc[found["dataset"] == "q", "distinct"].tolist() == [2] * 8
    assert found["prompts"].tolist() == [4, 2] * 8


def test_counts_against_brute_force_through_the_tokenizer_itself():
    tokenizer = views.tokenizer_of()
    rng = np.random.default_rng(0)
    words = np.array(["route", "the", "unbelievably", "prompt", "12", "?", "naïve"])
    prompts = [" ".join(rng.choice(words, rng.integers(1, 12))) for _ in range(80)]
    benchmark = bench(prompts, ["t"] * 80)
    for side in ("right", "left"):
        tokenizer.truncation_side = side
        found = views.distinct_inputs({"v": benchmark}, tokenizer, [3, 5, 8, 20], [side])
        for length, distinct in zip([3, 5, 8, 20], found["distinct"], strict=True):
            cut = tokenizer(prompts, truncation=True, max_length=length)["input_ids"]
            assert distinct == len(set(map(tuple, cut)))
    tokenizer.truncation_side = "right"


def test_minilm_counts_as_it_embeds():
    """The encoder itself gives one vector to prompts whose first tokens agree, and views says which these are."""
    prompts = ["the same beginning, then a cat", "the same beginning, then a dog", "the same beginning,"]
    short = encoders.encoder("minilm", max_seq_length=6)
    assert len(np.unique(encoders.embed(prompts, short), axis=0)) == 1
    found = views.distinct_inputs({"v": bench(prompts, ["t"] * 3)}, views.tokenizer_of(), [6, 16])
    assert found["distinct"].tolist() == [1, 3]


def test_prompt_lengths(shared, tiny):
    found = views.prompt_lengths({"full": shared}, views.tokenizer_of(tiny)).set_index("dataset")
    assert found.loc["p", ["prefix", "median", "longest"]].tolist() == [6, 7, 7]
    assert found.loc["q", ["prefix", "median", "longest"]].tolist() == [0, 1.5, 2]
    one = views.prompt_lengths({"v": bench(["red", "red blue"], ["t", "t"])}, views.tokenizer_of(tiny))
    assert one["prefix"].item() == 1


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("length", [3, 7, 8, 9, 16])
def test_vectors_are_those_of_the_encoder_cut_there(shared, tiny, length, side):
    cut = encoders.encoder(tiny, max_seq_length=length, truncation_side=side)
    found = views.embed_truncated(shared, length, side=side, encoder=tiny)
    np.testing.assert_array_equal(found, encoders.embed(shared.prompts, cut, cache=False))


def test_each_input_is_encoded_once_and_never_what_another_page_has_encoded(shared, tiny, encoded):
    views.embed_truncated(shared, 7, encoder=tiny)
    assert len(encoded) == 3  # the prefix alone, "red", "blue grey"
    encoded.clear()
    # 8 is the encoder's own length: nothing but the prefix is new, and a page that embeds plainly finds it all.
    views.embed_truncated(shared, 8, encoder=tiny)
    assert len(encoded) == 1
    encoded.clear()
    encoders.embed(shared.prompts[4:], tiny)
    assert encoded == []
    views.embed_truncated(shared.prompts, 16, encoder=tiny)
    assert sorted(encoded) == sorted({f"{PREFIX} {end}" for end in ENDS})


def test_lengths_and_sides_that_are_none(shared, tiny):
    with pytest.raises(UserError, match="length is 2"):
        views.embed_truncated(shared, 2, encoder=tiny)
    with pytest.raises(UserError, match="16 positions"):
        views.embed_truncated(shared, 17, encoder=tiny)
    with pytest.raises(UserError, match="side is 'middle'"):
        views.embed_truncated(shared, 8, side="middle", encoder=tiny)


def test_sample_keeps_the_shares_of_datasets_and_splits():
    tasks = ["big"] * 100 + ["small"] * 6
    split = np.array((["train"] * 70 + ["test"] * 30) + ["train"] * 4 + ["test"] * 2)
    benchmark = bench([str(i) for i in range(106)], tasks, split=split)
    rows = views.sample_rows(benchmark, 20)
    assert (np.diff(rows) > 0).all()
    drawn = benchmark.subset(rows)
    counts = Counter(zip(drawn.tasks.tolist(), drawn.split.tolist(), strict=True))
    assert counts == {("big", "train"): 14, ("big", "test"): 6, ("small", "train"): 4, ("small", "test"): 2}
    np.testing.assert_array_equal(rows, views.sample_rows(benchmark, 20))
    with pytest.raises(UserError, match="per_dataset is 0"):
        views.sample_rows(benchmark, 0)


def test_routerbenchs_prefix_hides_every_question_of_two_datasets(real_data):
    """RR-20: at MiniLM's own 256 tokens the whole prompt is one and the same input for all of ARC and of WinoGrande."""
    from routebook.datasets import load

    benchmarks = {view: load("routerbench", prompt_view=view) for view in ("question", "full", "first-1400-chars")}
    test = {view: benchmark.subset(benchmark.split == "test") for view, benchmark in benchmarks.items()}
    found = views.distinct_inputs(test, views.tokenizer_of(), [256, 512]).set_index(["view", "length", "dataset"])
    distinct = found["distinct"]
    for dataset in ("arc-challenge", "winogrande"):
        assert distinct["full", 256, dataset] == distinct["first-1400-chars", 256, dataset] == 1
        assert found.loc[("full", 512, dataset), "share"] > 0.99
        assert found.loc[("question", 256, dataset), "share"] > 0.99
    assert distinct["first-1400-chars", 512, "arc-challenge"] == 1
    assert distinct["first-1400-chars", 512, "winogrande"] == 380
    assert distinct["full", 256, "mbpp"] == distinct["full", 512, "mbpp"] == 128
