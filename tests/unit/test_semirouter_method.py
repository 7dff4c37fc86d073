"""SemiRouter: what it counts, what it learns, that LLMs come and go without moving others, and what it refuses."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from replications.semirouter import parameter_counts, side_by_side
from replications.semirouter.adapter import RAdapter
from replications.semirouter.backbone import Backbone, quality_levels, to_classes, to_levels
from replications.semirouter.semi_router import LOSSES, VARIANTS, SemiRouter, add_many, fit_many, route
from replications.semirouter.sparse import sparsify
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError
from routebook.routers import Router

NAN = np.nan
ANCHORS = ["llm-a", "llm-b"]
SMALL = {
    "anchors": ANCHORS,
    "hidden": (24, 16),
    "fusion": (32, 16),
    "layers": 1,
    "heads": 2,
    "feedforward": 16,
    "model_width": 8,
    "epochs": 12,
    "lr": 5e-3,
    "n_random": 16,
    "n_groups": 3,
    "add_steps": 150,
    "backbone_width": 24,
    "backbone_epochs": 12,
    "backbone_lr": 5e-3,
}


def bench(quality, prompts=None, names=None):
    quality = np.asarray(quality, dtype=float)
    n, m = quality.shape
    prompts = prompts or [f"p{i}" for i in range(n)]
    names = names or [f"llm-{letter}" for letter in "abcdefgh"[:m]]
    cost = np.broadcast_to(np.arange(1.0, m + 1), (n, m))
    return RoutingBenchmark("toy", prompts, np.array(["t"] * n), names, quality, cost, "USD per prompt")


def kinds(n=240, seed=0, soft=False):
    """Three kinds of prompt; llm-c, llm-d and llm-e are right on one kind each, both anchors on two."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 3
    own = np.eye(3)[kind]
    quality = np.stack([own[:, 0] + own[:, 1], own[:, 1] + own[:, 2], *own.T], axis=1)
    if soft:
        quality[:, 2] = np.array([1.0, 0.5, 0.0])[kind]
    vectors = np.eye(8)[kind] * 3 + rng.normal(scale=0.3, size=(n, 8))
    return bench(quality), vectors.astype(np.float32)


def fitted(seed=0, soft=False, **changes):
    full, vectors = kinds(soft=soft)
    return SemiRouter(**{**SMALL, "seed": seed, **changes}).fit(sparsify(full, ANCHORS), vectors)


@pytest.fixture(scope="module")
def trained():
    """A router of each variant."""
    return {variant: fitted(variant=variant) for variant in VARIANTS}


# --- Table 2 ---------------------------------------------------------------------------------------------------------


def test_parameters_of_table_2():
    table = parameter_counts.table_2().set_index("variant")
    assert table["trainable"].drop("bert").to_dict() == {
        "mlp": 2_527_427,
        "emb": 2_069_699,
        "att": 65_703_363,
        "att-described": 67_407_043,
    }
    bert = 109_482_240  # bert-base-uncased with its pooler
    assert (table["total"] - table["trainable"]).drop("bert").unique().tolist() == [bert]
    assert table.loc["bert", "trainable"] == bert + 769 * 21


def test_parts_of_the_adapter_by_hand():
    mlp = parameter_counts.adapter_parameters(variant="mlp")
    assert mlp["ids"] == 7 * 64
    assert mlp["path"] == 1600 * 512 + 512 + 512 * 256 + 256
    assert mlp["fusion"] + mlp["classify"] == 1024 * 1024 + 1024 + 1024 * 512 + 512 + 512 * 3 + 3
    emb = parameter_counts.adapter_parameters(variant="emb")
    assert emb["project"] == 1536 * 128 + 128
    assert emb["path"] == 320 * 512 + 512 + 512 * 256 + 256
    assert emb["vectors"] == 7 * 128


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_trained_router_counts_itself_as_the_table_does(trained, variant):
    router = trained[variant]
    names = ("hidden", "fusion", "layers", "heads", "feedforward", "model_width")
    sizes = {name: SMALL[name] for name in names}
    expected = parameter_counts.adapter_parameters(
        variant=variant, n_models=5, feature_width=24, query_width=8, n_classes=2, **sizes
    )
    assert router.n_parameters_ == expected["total"]


@pytest.mark.parametrize("variant", ["mlp", "emb"])
def test_the_shared_part_of_a_layer_is_the_layer_on_the_concatenation(variant):
    torch.manual_seed(0)
    adapter = RAdapter(3, 5, 6, 2, variant, hidden=(7, 4), fusion=(8, 6)).eval()
    feature, query = torch.randn(2, 5), torch.randn(2, 6)
    entered = adapter.project(query) if variant == "emb" else query
    identity = [adapter.vectors[1], adapter.ids[1]] if variant == "emb" else [adapter.ids[1]]
    path = adapter.path(torch.cat([entered, torch.cat(identity).expand(2, -1)], dim=1))
    expected = adapter.classify(adapter.fusion(torch.cat([feature, path], dim=1)))
    logits, adapted = adapter(adapter.prepare(feature, query), adapter.identity[1:2])
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(adapted, path)


def test_attention_over_one_token_has_nothing_to_weigh():
    """As described, queries and keys of the attention could be anything (SR-6)."""
    torch.manual_seed(0)
    for tokens, moves in ((1, False), (2, True)):
        adapter = RAdapter(3, 5, 8, 2, "att", hidden=(4,), fusion=(8, 6), layers=1, heads=2, tokens=tokens).eval()
        run = lambda adapter=adapter: adapter(adapter.prepare(torch.ones(2, 5), torch.ones(2, 8)), adapter.ids[:1])[0]  # noqa: E731
        with torch.no_grad():
            before = run()
            adapter.path.encoder[0].self_attn.in_proj_weight[:16] += torch.randn(16, 8)
            assert (not torch.allclose(before, run())) == moves


# --- quality classes -------------------------------------------------------------------------------------------------


def test_good_fair_and_bad():
    np.testing.assert_array_equal(to_classes([[1.0, 0.8, 0.75, 0.6, 0.25, 0.2, 0, NAN]]), [[0, 0, 0, 1, 1, 2, 2, -1]])
    np.testing.assert_array_equal(to_levels(np.array([0.9, 0.4, NAN])), [1.0, 0.5, NAN])
    assert quality_levels(np.array([[1, 0.5], [0, NAN]])) == (1.0, 0.5, 0.0)
    assert quality_levels(np.array([[1, 0.9], [0, NAN]])) == (1.0, 0.0)
    with pytest.raises(UserError, match=r"a quality is 1.5, expected numbers in \[0, 1\]"):
        to_classes(np.array([0.5, 1.5]))


def test_quality_is_the_expected_level():
    router, (_, vectors) = fitted(soft=True), kinds(soft=True)
    probabilities = router.predict_probabilities(vectors)
    assert probabilities.shape == (240, 5, 3)
    np.testing.assert_allclose(probabilities.sum(axis=2), 1.0)
    expected = probabilities[..., 0] + 0.5 * probabilities[..., 1]
    np.testing.assert_allclose(router.predict_quality(vectors), expected)
    labels = router.predict_labels(vectors)
    assert np.mean(labels[:, 2] == np.array([1.0, 0.5, 0.0])[np.arange(240) % 3]) > 0.95


# --- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_learns_llms_it_saw_on_some_queries(trained, variant):
    router = trained[variant]
    assert isinstance(router, Router)
    test, vectors = kinds(seed=1)
    assert np.mean(router.predict_labels(vectors) == test.quality) > 0.97
    assert router.loss_[-1] < router.loss_[0]


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains(loss):
    test, vectors = kinds(seed=1)
    router = fitted(loss=loss)
    assert np.mean(router.predict_labels(vectors) == test.quality) > 0.95


def test_supervising_anchors_alone_shows_no_sparse_label():
    """Below Eq. (9) L_p is "on anchors": then labels of the other LLMs enter no loss (SR-17)."""
    full, vectors = kinds()
    thin = sparsify(full, ANCHORS)
    other = thin.quality.copy()
    other[:, 2:] = 1 - other[:, 2:]
    same = [
        SemiRouter(**SMALL, supervise="anchors").fit(bench(quality), vectors).predict_quality(vectors)
        for quality in (thin.quality, other)
    ]
    np.testing.assert_array_equal(*same)
    moved = [
        SemiRouter(**SMALL).fit(bench(quality), vectors).predict_quality(vectors) for quality in (thin.quality, other)
    ]
    np.testing.assert_array_equal(moved[0][:, :2], moved[1][:, :2])
    assert np.abs(moved[0][:, 2:] - moved[1][:, 2:]).max() > 0.5


def test_anchors_are_the_backbones():
    full, vectors = kinds()
    router = fitted()
    backbone = Backbone(width=24, epochs=12, lr=5e-3).fit(full.subset(models=ANCHORS), vectors)
    np.testing.assert_array_equal(router.predict_quality(vectors)[:, :2], backbone.predict_quality(vectors))
    again = fitted(backbone=backbone)
    assert again.backbone_ is backbone
    np.testing.assert_array_equal(again.predict_quality(vectors), router.predict_quality(vectors))


def test_margin_keeps_sparse_predictions_from_the_anchors():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 8)).astype(np.float32)
    full = bench(np.repeat(rng.integers(0, 2, (200, 1)), 4, axis=1))

    def gap(**changes):
        settings = {**SMALL, "anchors": ["llm-a"], "epochs": 20, **changes}
        q = SemiRouter(**settings).fit(full, vectors).predict_quality(vectors)
        return np.abs(q[:, 1:] - q[:, :1]).mean()

    assert gap(loss="anchor", margin=0.5, alpha=5.0) > gap(loss="none") + 0.05


def test_eq9_and_algorithm_1_agree_at_one_half_only():
    _, vectors = kinds()
    eq9, algorithm = (fitted(weighting=w, epochs=2).predict_quality(vectors) for w in ("eq9", "algorithm-1"))
    np.testing.assert_array_equal(eq9, algorithm)
    eq9, algorithm = (fitted(weighting=w, lam=0.2, epochs=2).predict_quality(vectors) for w in ("eq9", "algorithm-1"))
    assert (eq9[:, 2:] != algorithm[:, 2:]).any()
    swapped = fitted(weighting="algorithm-1", lam=0.8, epochs=2).predict_quality(vectors)
    np.testing.assert_allclose(swapped, eq9, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_seed_same_numbers_bit_for_bit(trained, variant):
    _, vectors = kinds()
    state = torch.random.get_rng_state()
    again, other = fitted(variant=variant), fitted(seed=1, variant=variant)
    assert torch.equal(state, torch.random.get_rng_state())
    estimate = trained[variant].predict_quality(vectors)
    np.testing.assert_array_equal(again.predict_quality(vectors), estimate)
    assert (other.predict_quality(vectors) != estimate).any()


# --- LLMs come and go ------------------------------------------------------------------------------------------------


def newcomer(n=60, name="llm-new"):
    """A few labels of an LLM that is right on the third kind alone."""
    _, vectors = kinds(n, seed=2)
    return bench((np.arange(n) % 3 == 2).astype(float)[:, None], names=[name]), vectors


@pytest.mark.parametrize("variant", VARIANTS)
def test_adding_an_llm_moves_no_other_bit_for_bit(variant):
    router = fitted(variant=variant)
    _, vectors = kinds(seed=1)
    before = router.predict_quality(vectors)
    weights = {k: v.clone() for k, v in router.adapter_.state_dict().items() if k not in ("ids", "vectors")}
    router.add_models(*newcomer())
    assert router.models_[-1] == "llm-new"
    after = router.predict_quality(vectors)
    np.testing.assert_array_equal(after[:, :-1], before)
    for name, value in router.adapter_.state_dict().items():
        assert name in ("ids", "vectors") or torch.equal(value, weights[name])
    right = np.arange(len(vectors)) % 3 == 2
    assert np.mean((after[:, -1] > 0.5) == right) > 0.95, "and the new LLM is learned"
    router.remove_models(["llm-new"])
    np.testing.assert_array_equal(router.predict_quality(vectors), before)


def test_removing_llms_moves_no_other_bit_for_bit(trained):
    router, (_, vectors) = fitted(), kinds(seed=1)
    before = router.predict_quality(vectors)
    router.remove_models(["llm-d"])
    assert router.models_ == ["llm-a", "llm-b", "llm-c", "llm-e"]
    assert len(router.adapter_.ids) == len(router.adapter_.vectors) == 4
    np.testing.assert_array_equal(router.predict_quality(vectors), before[:, [0, 1, 2, 4]])
    router.remove_models(["llm-a"])  # an anchor
    np.testing.assert_array_equal(router.predict_quality(vectors), before[:, [1, 2, 4]])
    router.add_models(*newcomer())
    np.testing.assert_array_equal(router.predict_quality(vectors)[:, :-1], before[:, [1, 2, 4]])


def test_training_the_shared_layers_on_a_new_llm_moves_the_others_but_no_anchor():
    router, (_, vectors) = fitted(), kinds(seed=1)
    before, vector = router.predict_quality(vectors), router.adapter_.identity.clone()
    router.set_params(add_trains="adapter").add_models(*newcomer())
    after = router.predict_quality(vectors)
    anchored = [router.models_.index(anchor) for anchor in ANCHORS]
    others = [column for column in range(before.shape[1]) if column not in anchored]
    np.testing.assert_array_equal(after[:, anchored], before[:, anchored])
    assert (after[:, others] != before[:, others]).any(axis=0).all()
    assert torch.equal(router.adapter_.identity[:-1], vector), "the others' own vectors stay"
    assert not any(weight.requires_grad for weight in router.adapter_.parameters())
    assert np.mean((after[:, -1] > 0.5) == (np.arange(len(vectors)) % 3 == 2)) > 0.95
    with pytest.raises(UserError, match=r"add_trains is 'adaptor'.*did you mean 'adapter'"):
        router.set_params(add_trains="adaptor").add_models(*newcomer())


def test_an_llm_known_already_is_learned_anew_where_it_stands():
    router, (_, vectors) = fitted(), kinds(seed=1)
    before = router.predict_quality(vectors)
    router.add_models(*newcomer(name="llm-c"))
    after = router.predict_quality(vectors)
    assert router.models_ == ["llm-a", "llm-b", "llm-c", "llm-d", "llm-e"]
    np.testing.assert_array_equal(after[:, [0, 1, 3, 4]], before[:, [0, 1, 3, 4]])
    assert np.mean((after[:, 2] > 0.5) == (np.arange(len(vectors)) % 3 == 2)) > 0.95


def test_several_new_llms_with_gaps():
    router = fitted()
    labels, vectors = newcomer()
    quality = np.concatenate([labels.quality, 1 - labels.quality], axis=1)
    quality[::2, 0], quality[1::4, 1], quality[:6] = NAN, NAN, NAN
    router.add_models(bench(quality, names=["new-1", "new-2"]), vectors)
    _, test = kinds(seed=1)
    right = np.arange(len(test)) % 3 == 2
    found = router.predict_quality(test)[:, -2:] > 0.5
    assert np.mean(found == np.stack([right, ~right], axis=1)) > 0.95


def test_pool_changes_that_cannot_be_are_refused():
    router = fitted()
    labels, vectors = newcomer(name="llm-a")
    with pytest.raises(UserError, match="'llm-a' is an anchor"):
        router.add_models(labels, vectors)
    with pytest.raises(UserError, match="'llm-new' has no observed quality on these 60 prompts"):
        router.add_models(bench(np.full((60, 1), NAN), names=["llm-new"]), vectors)
    with pytest.raises(UserError, match="'llm-x' is not in the pool; did you mean"):
        router.remove_models(["llm-x"])
    with pytest.raises(UserError, match="no anchor is left"):
        router.remove_models(ANCHORS)
    assert router.models_ == ["llm-a", "llm-b", "llm-c", "llm-d", "llm-e"]


# --- the cache -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_cached_features_serve_every_llm(trained, variant, monkeypatch):
    router, (_, vectors) = trained[variant], kinds(seed=1)
    estimate, features = router.predict_quality(vectors), router.features(vectors)
    assert features.shape == (240, 24 + 8)
    monkeypatch.setattr(Backbone, "features", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(router.quality_from(features), estimate)
    np.testing.assert_array_equal(router.quality_from(features, ["llm-e", "llm-a"]), estimate[:, [4, 0]])
    with pytest.raises(UserError, match="'llm-q' is not in the pool"):
        router.quality_from(features, ["llm-q"])


# --- the choice ------------------------------------------------------------------------------------------------------


def test_the_cheaper_of_equals_or_the_best_score():
    estimate = np.array([[0.9, 0.9, 0.5], [0.2, 0.8, 0.7], [NAN, 0.1, NAN], [NAN, NAN, NAN]])
    cost = np.array([0.3, 0.2, 0.1])
    np.testing.assert_array_equal(route(estimate, cost), [1, 1, 1, -1])
    # .613 q - c: .2517, .3517, .2065; then -.1774, .2904, .3291.
    np.testing.assert_array_equal(route(estimate, cost, "score"), [1, 2, 1, -1])
    np.testing.assert_array_equal(route(estimate, cost, "score", weight=10), [1, 1, 1, -1])
    np.testing.assert_array_equal(route(estimate[:1], np.array([[0.1, 0.2, 0.3]])), [0])
    with pytest.raises(UserError, match="rule is 'best'"):
        route(estimate, cost, "best")


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"anchors": []}, "there is no anchor model"),
        ({"anchors": ["llm-aa"]}, "'llm-aa' is not in the pool.*did you mean 'llm-a'"),
        ({"anchors": ["llm-a", "llm-b", "llm-c", "llm-d", "llm-e"]}, "none is left for the R-adapter"),
        ({"variant": "embed"}, "variant is 'embed', expected one of 'mlp', 'emb', 'att'; did you mean 'emb'"),
        ({"loss": "contrast"}, "loss is 'contrast'"),
        ({"weighting": "eq8"}, "weighting is 'eq8'.*did you mean 'eq9'"),
        ({"tokens": 3}, "tokens is 3"),
        ({"lam": 1.5}, r"lam is 1.5, expected a number in \[0, 1\]"),
        ({"alpha": -0.1}, "alpha is -0.1, expected a number >= 0"),
        ({"margin": 0}, "margin is 0, expected a number > 0"),
        ({"lr": NAN}, "lr is nan"),
        ({"dropout": 1.0}, r"dropout is 1.0, expected a number in \[0, 1\)"),
        ({"epochs": 0}, "epochs is 0"),
        ({"n_random": -1}, "n_random is -1"),
        ({"hidden": ()}, r"hidden is \(\)"),
        ({"fusion": (8,)}, r"fusion is \(8,\), expected 2 widths"),
        ({"hidden": (8, 0)}, r"hidden is \(8, 0\), expected whole numbers"),
        ({"loss": "sample-sample", "n_groups": 1000}, "n_groups is 1000, but there are only 240 training prompts"),
        ({"variant": "att", "heads": 3}, "8 wide, which heads=3 does not divide; use heads=2"),
        ({"backbone": Backbone()}, "the backbone given is not fitted"),
    ],
)
def test_bad_parameters_are_refused(settings, message):
    full, vectors = kinds()
    with pytest.raises(UserError, match=message):
        SemiRouter(**{**SMALL, **settings}).fit(full, vectors)


def test_a_backbone_of_other_anchors_is_refused():
    full, vectors = kinds()
    other = Backbone(width=4, epochs=1).fit(full.subset(models=["llm-c", "llm-d"]), vectors)
    with pytest.raises(UserError, match=r"the backbone given was fitted on .*'llm-c'.* expected .*'llm-a'"):
        SemiRouter(**SMALL, backbone=other).fit(full, vectors)


def test_pools_that_cannot_be_learned_are_refused():
    full, vectors = kinds()
    unseen = full.quality.copy()
    unseen[:, 3] = NAN
    with pytest.raises(UserError, match="SemiRouter: model 'llm-d' has no observed quality"):
        SemiRouter(**SMALL).fit(bench(unseen), vectors)
    with pytest.raises(UserError, match="239 embeddings for 240 prompts"):
        SemiRouter(**SMALL).fit(full, vectors[1:])
    router = SemiRouter(**SMALL)
    for ask in (lambda: router.predict_quality(vectors), lambda: router.remove_models(["llm-a"])):
        with pytest.raises(UserError, match="SemiRouter is not fitted"):
            ask()
    with pytest.raises(UserError, match="finetune_encoder=True"):
        router.embed(["p"], vectors[:1])
    soft = replace(full, quality=-full.quality, quality_kind="soft")
    with pytest.raises(UserError, match=r"a quality is -1"):
        SemiRouter(**SMALL).fit(soft, vectors)


# --- fine-tuning -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory):
    """A BERT of two small layers with random weights, saved as save_pretrained() does."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "zero", "one", "two", "what", "is", "the", "answer"]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    if len(tokenizer) < len(words):  # transformers < 5 reads the file under another name
        tokenizer = BertTokenizerFast(vocab_file=str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return str(folder)


def test_finetunes_an_encoder(tiny_encoder):
    full, vectors = kinds(150)
    prompts = [f"{('zero', 'one', 'two')[i % 3]} is the answer" for i in range(150)]
    thin = sparsify(bench(full.quality, prompts), ANCHORS)
    blind = np.ones_like(vectors)
    settings = {**SMALL, "finetune_encoder": True, "encoder": tiny_encoder, "max_length": 12}
    router = SemiRouter(**settings).fit(thin, blind)
    features = router.embed(prompts, blind)
    assert features.shape == (150, 16 + 8)
    assert np.mean(router.predict_labels(features) == full.quality) > 0.95, "only the prompt's word tells them apart"
    with pytest.raises(UserError, match="8 dimensions, the router was fitted with 24"):
        router.predict_quality(blind)
    before = router.predict_quality(features)
    labels, _ = newcomer(60)
    router.add_models(labels, features[:60])
    after = router.predict_quality(features)
    np.testing.assert_array_equal(after[:, :-1], before)
    assert np.mean((after[:, -1] > 0.5) == (np.arange(150) % 3 == 2)) > 0.95
    again = SemiRouter(**settings).fit(thin, blind)
    np.testing.assert_array_equal(again.predict_quality(again.embed(prompts, blind)), before)


def test_an_encoder_that_cannot_be_loaded_is_refused(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    full, vectors = kinds(30)
    with pytest.raises(UserError, match=r"Backbone: encoder 'no-such-org/none' could not be loaded for training"):
        SemiRouter(**SMALL, finetune_encoder=True, encoder="no-such-org/none").fit(full, vectors)


# --- side by side ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"variant": v} for v in VARIANTS] + [{"variant": "att", "tokens": 1}])
def test_adapters_side_by_side_have_the_gradients_of_each_alone(changes):
    full, vectors = kinds()
    thin = sparsify(full, ANCHORS)
    routers = [SemiRouter(**SMALL, dropout=0.0, seed=seed, lam=0.0, **changes) for seed in (0, 1)]
    lessons = [router._lesson(thin, vectors, {}) for router in routers]
    task = side_by_side._Task(lessons)
    rows = torch.stack([torch.arange(16), torch.arange(40, 56)])
    task.loss(rows).sum().backward()
    for place, (router, lesson) in enumerate(zip(routers, lessons, strict=True)):
        data, adapter = lesson.data, lesson.adapter.train().requires_grad_(True)
        generator = torch.Generator().manual_seed(router.seed)
        at, model, everyone = side_by_side.contrastive_batch(rows[place], data.seen, data.pairs, 16, generator)
        feature, query = adapter.prepare(data.feature[everyone], data.query[everyone])
        logits = adapter((feature[at], query[at]), adapter.identity[model])[0]
        torch.nn.functional.cross_entropy(logits, data.target[everyone[at], model]).backward()
        for name, weight in adapter.named_parameters():
            mine = task.network.state[name].grad[place]
            mine = mine.mT if task.network._turned(name, weight) else mine
            torch.testing.assert_close(mine.reshape(weight.shape), weight.grad, rtol=1e-4, atol=1e-6)


def test_routers_trained_side_by_side_are_those_trained_alone():
    full, vectors = kinds()
    thin = [sparsify(full, ANCHORS, seed=seed) for seed in (0, 1)]
    changes = [{}, {"loss": "div", "alpha": 0.1}, {"supervise": "anchors"}, {"lam": 0.1, "weighting": "algorithm-1"}]
    changes += [{"loss": "none"}, {"dropout": 0.0, "margin": 0.3}, {"pairing": "batch"}, {"loss": "sample-sample"}]
    problems = [(labels, vectors) for labels in thin for _ in changes]
    options = {**SMALL, "epochs": 3}
    together = [SemiRouter(**options, seed=seed, **change) for seed in (0, 1) for change in changes]
    fit_many(together, problems)
    for router, problem in zip(together, problems, strict=True):
        alone = SemiRouter(**router.get_params()).fit(*problem)
        np.testing.assert_allclose(router.loss_, alone.loss_, rtol=1e-4)
        np.testing.assert_allclose(router.predict_quality(vectors), alone.predict_quality(vectors), atol=1e-3)
    assert len({router.loss_[-1] for router in together}) == len(together), "every router learns something of its own"


def test_llms_that_join_side_by_side_join_as_they_do_alone():
    full, vectors = kinds()
    routers = [fitted(seed=seed, epochs=2, add_steps=20).remove_models(["llm-e"]) for seed in (0, 1, 0)]
    routers[2].set_params(add_trains="adapter")
    alone = copy.deepcopy(routers)
    labels = full.subset(np.arange(60), ["llm-e"])
    add_many(routers, [(labels, vectors[:60])] * 3)
    for one, other in zip(routers, alone, strict=True):
        other.add_models(labels, vectors[:60])
        np.testing.assert_allclose(one.predict_quality(vectors), other.predict_quality(vectors), atol=1e-3)


@pytest.mark.parametrize("rectified", [True, False])
def test_dropout_is_of_its_rate_shared_in_a_stream_and_has_the_gradient_of_its_mask(rectified):
    lessons = [SimpleNamespace(dropout=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    dropout = side_by_side.Dropout([0.1, 0.5], lessons, torch.tensor([0, 0, 1]))
    dropout.counts = [1000, 900]
    x = torch.randn(3, 1000, 77, generator=torch.Generator().manual_seed(2)).requires_grad_()
    told = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    out = dropout.rectified(x) if rectified else dropout(x)
    (out * told).sum().backward()
    there = x.detach() > 0 if rectified else torch.ones(x.shape, dtype=torch.bool)
    scale = torch.where(there, out.detach() / x.detach(), 0.0)
    assert torch.allclose(x.grad, told * scale)
    for network, rate, count in ((0, 0.1, 1000), (1, 0.1, 1000), (2, 0.5, 900)):
        rows = scale[network, :count][there[network, :count]]
        assert torch.allclose(rows[rows > 0], torch.tensor(1 / (1 - rate)))
        assert (rows == 0).float().mean().item() == pytest.approx(rate, abs=0.01)
    both = there[0] & there[1]
    assert torch.allclose(scale[0][both], scale[1][both])
    assert torch.allclose(scale[2, 900:][there[2, 900:]], torch.ones(())), "rows that pad a batch are not dropped"
