"""RadialRouter: its losses by hand, what it learns, training side by side, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from replications.radialrouter import losses, radial_router
from replications.radialrouter.radial_router import QUICK, RadialRouter, fit_many, query_groups, true_scores
from routebook import contrastive
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError
from routebook.routers import Router

NAN = np.nan
SMALL = {"width": 16, "layers": 2, "heads": 2, "head_width": 8, "lr": 5e-3, "n_groups": 4, "group_dims": 0}


def bench(quality, cost=None, prompts=None, unit="USD per prompt"):
    quality = np.asarray(quality, dtype=float)
    n, m = quality.shape
    cost = np.full(m, 0.001) if cost is None else np.asarray(cost, dtype=float)
    return RoutingBenchmark(
        name="toy",
        prompts=prompts or [f"p{i}" for i in range(n)],
        tasks=np.array(["t"] * n),
        models=[f"m{j}" for j in range(m)],
        quality=quality,
        cost=np.broadcast_to(cost, (n, m)),
        cost_unit=unit,
        origin="simulated",
    )


def separable(n=400, m=4, d=8, seed=0):
    """Each prompt belongs to one of m groups far apart; LLM k alone answers group k. Dearer LLMs have higher k."""
    centres = 4 * np.eye(m, d)
    rng = np.random.default_rng(seed)
    z = rng.integers(m, size=n)
    embeddings = (centres[z] + 0.5 * rng.normal(size=(n, d))).astype(np.float32)
    return bench(np.eye(m)[z], cost=0.001 * np.arange(1, m + 1)), embeddings, z


def tensors(*rows):
    return [torch.tensor(row, dtype=torch.float64) for row in rows]


# Losses by hand


def test_kl_of_two_llms_by_hand():
    """Predicted p = (3/4, 1/4), q = (1/2, 1/2)."""
    scores, true = np.log([[3.0, 1.0]]), np.array([[0.4, 0.4]])
    target = torch.tensor(losses.targets(true, "kl", temperature=1.0, top_k=1))
    seen = torch.ones(1, 2, dtype=torch.bool)
    forward = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    backward = 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)
    assert losses.kl(torch.tensor(scores), target, seen).item() == pytest.approx(forward)
    assert losses.kl_reverse(torch.tensor(scores), target, seen).item() == pytest.approx(backward)
    assert forward != pytest.approx(backward)


def test_target_distribution_by_hand_with_temperature():
    """Target q = softmax(score / T): scores 1 and 0 at T = 1/2 have odds e^2."""
    q = np.exp(losses.targets(np.array([[1.0, 0.0]]), "kl", temperature=0.5, top_k=1))
    np.testing.assert_allclose(q, [[np.e**2 / (1 + np.e**2), 1 / (1 + np.e**2)]])
    # At temperature 1 the paper's target is nearly flat: right against wrong is e to 1.
    q = np.exp(losses.targets(np.array([[1.0, 0.0]]), "kl", temperature=1.0, top_k=1))
    np.testing.assert_allclose(q, [[0.7310586, 0.2689414]], atol=1e-7)


@pytest.mark.parametrize("loss", ["kl", "kl-reverse", "ce"])
def test_llms_not_observed_are_left_out(loss):
    """With the third LLM not observed, its predicted score does not matter and the loss is that of the other two."""
    true = np.array([[0.9, 0.2, NAN]])
    seen = torch.tensor(~np.isnan(true))
    target = torch.tensor(losses.targets(true, loss, temperature=1.0, top_k=1))
    two = torch.tensor(losses.targets(true[:, :2], loss, temperature=1.0, top_k=1))
    function = losses.LOSSES[loss]
    expected = function(*tensors([[0.3, -0.5]]), two, seen[:, :2])
    for third in (-7.0, 0.0, 50.0):
        scores = torch.tensor([[0.3, -0.5, third]], dtype=torch.float64, requires_grad=True)
        value = function(scores, target, seen)
        assert value.item() == pytest.approx(expected.item(), rel=1e-9)
        value.sum().backward()
        assert scores.grad[0, 2] == 0


@pytest.mark.parametrize("loss", sorted(losses.LOSSES))
def test_a_prompt_without_labels_moves_nothing(loss):
    true = np.full((1, 4), NAN)
    target = torch.tensor(losses.targets(true, loss, temperature=1.0, top_k=2))
    scores = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    value = losses.LOSSES[loss](scores, target, torch.tensor(~np.isnan(true)))
    assert value.item() == 0
    value.sum().backward()
    assert (scores.grad == 0).all()


def test_cross_entropy_by_hand_and_its_ties():
    """-log p of the best LLM; of equals the first one, the paper's LLM number 0 (RR-10)."""
    true = np.array([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0], [0.0, NAN, -1.0]])
    target = losses.targets(true, "ce", temperature=1.0, top_k=1)
    np.testing.assert_array_equal(target, [[0, 1, 0], [1, 0, 0], [1, 0, 0]])
    value = losses.cross_entropy(*tensors(np.log([[2.0, 5.0, 3.0]])), *tensors(target[:1]), torch.ones(1, 3) > 0)
    assert value.item() == pytest.approx(-np.log(0.5))


def test_query_llm_by_hand():
    """Eq. (9) with K = 2 of five LLMs and p = (.4, .3, .1, .15, .05)."""
    p = np.array([[0.4, 0.3, 0.1, 0.15, 0.05]])
    true = np.array([[0.9, 0.1, 0.5, 0.8, 0.3]])  # top 2: LLMs 0 and 3; bottom 2: LLMs 1 and 4
    target = losses.targets(true, "query-llm", temperature=1.0, top_k=2)
    np.testing.assert_array_equal(target, [[1, -1, 0, 1, -1]])
    below = np.exp(0.3) + np.exp(0.05)
    expected = -np.log(np.exp(0.4) / (np.exp(0.4) + below)) - np.log(np.exp(0.15) / (np.exp(0.15) + below))
    value = losses.query_llm(*tensors(np.log(p)), *tensors(target), torch.ones(1, 5) > 0)
    assert value.item() == pytest.approx(expected)


def test_query_llm_needs_two_k_observed():
    true = np.array([[0.9, NAN, 0.5, 0.1], [0.9, 0.2, NAN, NAN]])
    np.testing.assert_array_equal(
        losses.targets(true, "query-llm", temperature=1.0, top_k=1), [[1, 0, 0, -1], [1, -1, 0, 0]]
    )
    np.testing.assert_array_equal(losses.targets(true, "query-llm", temperature=1.0, top_k=2), np.zeros((2, 4)))


def test_query_query_by_hand_on_three_prompts():
    """Two prompts of one group at 60 degrees, a third at right angles to the first: cosines 1/2, 0 and sqrt(3)/2."""
    query = torch.tensor([[2.0, 0.0], [0.5, 0.75**0.5], [0.0, 3.0]], dtype=torch.float64)
    groups = torch.tensor([0, 0, 1])
    partners, found, negative = contrastive.pairs(groups, torch.rand(3, 3), 3)
    assert found.tolist() == [True, True, False]
    assert partners[:2, 0].tolist() == [1, 0]
    assert partners[0, 1:][negative[0]].tolist() == [2]
    assert negative.sum(dim=1).tolist() == [1, 1, 2]
    value = contrastive.query_query(query, partners, found, negative)
    e = np.exp
    expected = [-np.log(e(0.5) / (e(0.5) + e(0.0))), -np.log(e(0.5) / (e(0.5) + e(0.75**0.5))), 0.0]
    np.testing.assert_allclose(value, expected)


def test_pairs_are_drawn_evenly_from_the_right_groups():
    groups = torch.tensor([0, 0, 0, 1, 1, 2])
    generator = torch.Generator().manual_seed(0)
    keys = torch.rand(3000, 6, 6, generator=generator)
    partners, found, negative = contrastive.pairs(groups.expand(3000, -1), keys, 2)
    assert negative.all()
    assert found[0].tolist() == [True] * 5 + [False]
    positive, others = partners[:, 0, 0], partners[:, 0, 1:]
    np.testing.assert_allclose(np.bincount(positive, minlength=6) / 3000, [0, 0.5, 0.5, 0, 0, 0], atol=0.04)
    third = [0, 0, 0, 1 / 3, 1 / 3, 1 / 3]
    np.testing.assert_allclose(np.bincount(others.flatten(), minlength=6) / 6000, third, atol=0.04)
    assert (others[:, 0] != others[:, 1]).all(), "a negative is drawn at most once"


# Scores and groups


def test_equation_7_in_dollars_per_1000_queries():
    quality, cost = np.array([[1.0, NAN], [0.0, 1.0]]), np.array([[0.001, 0.01], [0.003, 0.03]])
    benchmark = RoutingBenchmark("toy", ["a", "b"], ["t", "t"], ["m", "n"], quality, cost, "USD per prompt")
    np.testing.assert_allclose(true_scores(benchmark, 0.1), [[1 - 0.2, NAN], [-0.2, 1 - 2.0]])
    np.testing.assert_allclose(true_scores(benchmark, 0.1, cost="call"), [[1 - 0.1, NAN], [-0.3, 1 - 3.0]])
    np.testing.assert_allclose(true_scores(benchmark, 0.1, cost_scale=1.0)[1], [-0.0002, 1 - 0.002])
    np.testing.assert_array_equal(true_scores(benchmark, 0.0), quality)


@pytest.mark.parametrize("dims", [0, 2])
def test_groups_are_the_clusters_there_are(dims):
    _, embeddings, z = separable(n=120)
    groups = query_groups(embeddings, 4, dims=dims)
    assert len({(a, b) for a, b in zip(groups, z, strict=True)}) == 4
    np.testing.assert_array_equal(groups, query_groups(embeddings.copy(), 4, dims=dims))


def test_groups_of_equal_embeddings():
    """What an encoder that sees only a shared prefix gives: few distinct vectors, many prompts each."""
    vectors = np.repeat(np.eye(3, 5), [10, 5, 1], axis=0)
    groups = query_groups(vectors, 3)
    assert [len(set(part)) for part in (groups[:10], groups[10:15])] == [1, 1]
    assert len(set(groups)) == 3
    assert len(set(query_groups(np.ones((9, 4)), 4))) == 1
    two = query_groups(np.repeat(np.eye(6), 4, axis=0), 2)
    assert len(set(two)) == 2
    assert all(len(set(two[i : i + 4])) == 1 for i in range(0, 24, 4))


# Learning


@pytest.fixture(scope="module", params=radial_router.BACKBONES)
def learned(request):
    """A router for each loss, trained on a separable pool."""
    train, embeddings, _ = separable()
    routers = [
        RadialRouter(alpha=0, loss=loss, top_k=1, backbone=request.param, steps=250, **SMALL)
        for loss in sorted(losses.LOSSES)
    ]
    return {router.loss: router for router in fit_many(routers, train, embeddings)}


@pytest.mark.parametrize("loss", sorted(losses.LOSSES))
def test_learns_a_separable_pool(learned, loss):
    test, unseen, _ = separable(seed=1)
    router = learned[loss]
    assert isinstance(router, Router)
    assert router.loss_.shape == (250,)
    assert router.loss_[-10:].mean() < router.loss_[:10].mean()
    estimate = router.predict_quality(unseen)
    assert estimate.shape == (400, 4)
    assert estimate.dtype == np.float64
    found = test.quality[np.arange(400), estimate.argmax(axis=1)].mean()
    assert found > 0.95, "the oracle has 1"


def test_predicted_scores_are_true_scores_up_to_a_constant_a_prompt():
    """KL at temperature 1 is least where softmax(s^pr) = softmax(score)."""
    train, embeddings, _ = separable()
    router = RadialRouter(alpha=0.1, steps=400, contrast=0, **SMALL).fit(train, embeddings)
    estimate, true = router.predict_quality(embeddings), true_scores(train, 0.1)
    centred = [x - x.mean(axis=1, keepdims=True) for x in (estimate, true)]
    assert np.sqrt(np.mean((centred[0] - centred[1]) ** 2)) < 0.15
    p = router.probabilities(embeddings)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_allclose(np.log(p) - estimate, (np.log(p) - estimate)[:, :1] * np.ones(4))
    np.testing.assert_allclose(router.cost_, [1, 2, 3, 4])


def test_without_a_loss_on_scores_only_the_query_embedding_is_trained():
    """Table 2, "w/o L_KL": the contrastive loss does not reach what makes the scores; it alone is refused as well."""
    train, embeddings, _ = separable(n=150)
    routers = [RadialRouter(loss="none", steps=steps, **SMALL) for steps in (1, 30)]
    first, last = fit_many(routers[:1], train, embeddings) + fit_many(routers[1:], train, embeddings)
    before, after = first.network_.state_dict(), last.network_.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"projection"}
    with pytest.raises(UserError, match="there is nothing to train"):
        RadialRouter(loss="none", contrast=0, **SMALL).fit(train, embeddings)


def test_alpha_moves_choices_to_cheaper_llms():
    """LLM 0 is free and right half the time, LLM 1 always right at 1 dollar per 1,000 queries."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(300, 6))
    quality = np.column_stack([embeddings[:, 0] > 0, np.ones(300)])
    benchmark = bench(quality, cost=[0.0, 0.001])
    routers = [RadialRouter(alpha=alpha, temperature=0.2, steps=150, **SMALL) for alpha in (0.0, 0.5, 1.5)]
    fit_many(routers, benchmark, embeddings)
    to_dear = [router.predict_quality(embeddings).argmax(axis=1).mean() for router in routers]
    half = np.mean(embeddings[:, 0] <= 0)
    assert to_dear[0] > 0.5
    assert to_dear[1] == pytest.approx(half, abs=0.05)
    assert to_dear[2] < 0.02


def test_contrast_pulls_groups_together():
    """E(x) of one group grows alike with the loss and not without it: what Figure 3 shows."""
    rng = np.random.default_rng(0)
    groups = rng.integers(3, size=300)
    embeddings = (0.7 * np.eye(3, 12)[groups] + 0.3 * rng.normal(size=(300, 12))).astype(np.float32)
    benchmark = bench(rng.random((300, 3)) > 0.5)

    def gap(contrast):
        router = RadialRouter(contrast=contrast, groups=groups, steps=100, **SMALL).fit(benchmark, embeddings)
        query = router.query_embedding(embeddings)
        assert query.shape == (300, 16)
        unit = query / np.linalg.norm(query, axis=1, keepdims=True)
        cosine, same = unit @ unit.T, groups[:, None] == groups
        return cosine[same].mean() - cosine[~same].mean()

    assert gap(5.0) > gap(0.0) + 0.2
    assert RadialRouter(contrast=0, steps=1, **SMALL).fit(benchmark, embeddings).groups_ is None


def test_missing_labels_are_left_out_and_not_taken_for_wrong():
    """Each LLM is observed on half the prompts at random; were the rest 0, the best LLM's estimate would halve."""
    train, embeddings, _ = separable(n=800)
    test, unseen, _ = separable(seed=1)
    quality = np.where(np.random.default_rng(0).random(train.quality.shape) < 0.5, NAN, train.quality)
    quality[0] = NAN
    router = RadialRouter(alpha=0, loss="kl-reverse", steps=300, **SMALL).fit(bench(quality), embeddings)
    assert np.isfinite(router.loss_).all()
    assert test.quality[np.arange(400), router.predict_quality(unseen).argmax(axis=1)].mean() > 0.95


# Repeatability and training side by side


def test_same_seed_same_numbers_bit_for_bit():
    train, embeddings, _ = separable(n=150)
    first, second, other = (RadialRouter(steps=15, seed=seed, **SMALL).fit(train, embeddings) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.predict_quality(embeddings), second.predict_quality(embeddings))
    np.testing.assert_array_equal(first.loss_, second.loss_)
    assert (first.predict_quality(embeddings) != other.predict_quality(embeddings)).any()


def test_threads_and_the_global_random_state_do_not_matter():
    train, embeddings, _ = separable(n=150)
    found = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.manual_seed(threads)
        state = torch.random.get_rng_state()
        try:
            found.append(RadialRouter(steps=5, **SMALL).fit(train, embeddings).predict_quality(embeddings))
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(*found)


def several(backbone):
    """Routers that differ in all that may differ within one pass."""
    # Few and short steps: ReLU and AdamW blow rounding errors up as training goes on.
    shared = {**SMALL, "backbone": backbone, "steps": 8, "lr": 1e-3, "top_k": 2}
    return [
        RadialRouter(alpha=0.0, seed=0, **shared),
        RadialRouter(alpha=0.1, seed=1, temperature=0.1, **shared),
        RadialRouter(alpha=0.1, seed=1, loss="kl-reverse", contrast=0.0, **shared),
        RadialRouter(alpha=0.0, seed=2, loss="ce", contrast=3.0, cost="call", **shared),
        RadialRouter(alpha=0.2, seed=3, loss="query-llm", **shared),
    ]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("backbone", radial_router.BACKBONES)
def test_side_by_side_is_one_by_one(backbone):
    train, embeddings, _ = separable(n=150)
    alone = [router.fit(train, embeddings) for router in several(backbone)]
    together = fit_many(several(backbone), train, embeddings)
    again = fit_many(several(backbone), train, embeddings)
    for one, many, same in zip(alone, together, again, strict=True):
        np.testing.assert_allclose(one.loss_, many.loss_, atol=1e-5)
        np.testing.assert_allclose(one.predict_quality(embeddings), many.predict_quality(embeddings), atol=1e-3)
        np.testing.assert_array_equal(many.predict_quality(embeddings), same.predict_quality(embeddings))


def test_side_by_side_on_data_of_their_own_and_in_several_passes():
    data = [separable(n=n, seed=n) for n in (130, 150, 140)]
    benchmarks, embeddings = [d[0] for d in data], [d[1] for d in data]

    def routers():
        return [RadialRouter(steps=12, seed=i, **{**SMALL, "width": 16 + 16 * (i % 2)}) for i in range(3)]

    alone = [r.fit(b, e) for r, b, e in zip(routers(), benchmarks, embeddings, strict=True)]
    for at_once in (1, 2, 12):
        together = fit_many(routers(), benchmarks, embeddings, at_once=at_once)
        for one, many, vectors in zip(alone, together, embeddings, strict=True):
            assert many.width == one.width
            np.testing.assert_allclose(one.predict_quality(vectors), many.predict_quality(vectors), atol=5e-3)


def test_every_prompt_is_seen_once_an_epoch():
    train, embeddings, _ = separable(n=130)
    router = RadialRouter(steps=5, **SMALL)
    job = router._prepare(train, embeddings)
    job.start()
    assert job.plan.shape == (5, 64)
    for epoch in (job.plan[:2], job.plan[2:4]):
        assert len(set(epoch.flatten().tolist())) == 128
    assert job.plan[:2].tolist() != job.plan[2:4].tolist()


def test_fewer_prompts_than_a_batch():
    train, embeddings, _ = separable(n=20)
    router = RadialRouter(steps=3, **SMALL).fit(train, embeddings)
    assert np.isfinite(router.predict_quality(embeddings)).all()


def test_quick_settings_are_parameters():
    assert set(QUICK) <= set(RadialRouter().get_params())
    assert RadialRouter(**QUICK).set_params(alpha=0.1).alpha == 0.1


# Fine-tuning


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


@pytest.mark.parametrize("width", [16, 32])
def test_finetunes_an_encoder(tiny_encoder, width):
    rng = np.random.default_rng(0)
    z = rng.integers(3, size=150)
    prompts = [("what is the answer " * 5) + ("zero", "one", "two")[k] for k in z]
    benchmark = bench(np.eye(3)[z], prompts=prompts)
    pretrained = np.eye(3, 5)[z]
    settings = {**SMALL, "width": width, "alpha": 0, "steps": 100, "encoder": tiny_encoder, "finetune_encoder": True}
    router = RadialRouter(**settings).fit(benchmark, pretrained)
    words = [router.text_encoder_.tokenizer.decode(t) for t in router.text_encoder_.tokens(prompts[:3])]
    assert all(len(text.split()) == 16 and text.split()[-2] == prompts[i].split()[-1] for i, text in enumerate(words))
    vectors = router.embed(prompts)
    assert vectors.shape == (150, 16)
    assert router.query_embedding(vectors).shape == (150, width)
    choice = router.predict_quality(vectors).argmax(axis=1)
    assert np.mean(choice == z) > 0.95, "all that tells the prompts apart is their last word"
    state = torch.random.get_rng_state()
    again = RadialRouter(**settings).fit(benchmark, pretrained)
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(again.predict_quality(again.embed(prompts)), router.predict_quality(vectors))
    from transformers import AutoModel

    before = AutoModel.from_pretrained(tiny_encoder).state_dict()
    after = router.text_encoder_.model.state_dict()
    key = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(before[key], after[key]), "the encoder was trained"


def test_fit_many_takes_routers_that_finetune(tiny_encoder):
    rng = np.random.default_rng(0)
    benchmark = bench(rng.random((70, 3)) > 0.5, prompts=["what is the answer one"] * 70)
    vectors = rng.normal(size=(70, 5))
    routers = [
        RadialRouter(**SMALL, steps=2, encoder=tiny_encoder, finetune_encoder=True),
        RadialRouter(**SMALL, steps=2),
        RadialRouter(**SMALL, steps=2, seed=1),
    ]
    fit_many(routers, benchmark, vectors)
    assert routers[0].n_features_in_ == 16
    assert routers[1].n_features_in_ == 5


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": -0.1}, "alpha is -0.1, expected a number >= 0"),
        ({"alpha": NAN}, "alpha is nan"),
        ({"temperature": 0}, "temperature is 0, expected a number > 0"),
        ({"layers": 0}, "layers is 0, expected a whole number >= 1"),
        ({"contrast": -1.0}, "contrast is -1.0"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"steps": 0}, "steps is 0"),
        ({"cost_scale": 0}, "cost_scale is 0"),
        ({"n_groups": 31}, "n_groups is 31, but there are only 30 training prompts"),
        ({"n_negatives": 0}, "n_negatives is 0"),
        ({"loss": "KL"}, "loss is 'KL', expected one of 'kl', "),
        ({"loss": "query-lm"}, "did you mean 'query-llm'"),
        ({"backbone": "radial-former"}, "did you mean 'radialformer'"),
        ({"scale": "d"}, "scale is 'd'"),
        ({"cost": "prompt"}, "cost is 'prompt'"),
        ({"group_dims": 4}, "group_dims is 4, expected one of 0, 1, 2, 3"),
        ({"heads": 3}, "3 heads of 8 make an inner width of 24, which does not divide the hidden width 16"),
        ({"heads": 3, "backbone": "transformer"}, "heads is 3, which does not divide the width 16"),
        ({"loss": "query-llm", "top_k": 2}, "top_k is 2, but .* the pool has 3; use top_k=1"),
        ({"groups": np.zeros(5)}, r"groups has shape \(5,\), expected one a prompt, \(30,\)"),
    ],
)
def test_bad_parameters_are_refused_before_training(settings, message, monkeypatch):
    monkeypatch.setattr(radial_router, "_train", lambda jobs: pytest.fail("training began"))
    monkeypatch.setattr(radial_router, "query_groups", lambda *a, **k: pytest.fail("clustering began"))
    rng = np.random.default_rng(0)
    benchmark, embeddings = bench(rng.random((30, 3)) > 0.5), rng.normal(size=(30, 4))
    with pytest.raises(UserError, match=message):
        RadialRouter(**{**SMALL, **settings}).fit(benchmark, embeddings)
    with pytest.raises(UserError, match=message):
        fit_many([RadialRouter(**{**SMALL, **settings})], benchmark, embeddings)


def test_pools_that_cannot_be_routed_are_refused():
    embeddings = np.random.default_rng(0).normal(size=(30, 4))
    with pytest.raises(UserError, match="holds one LLM, 'm0', so there is nothing to route"):
        RadialRouter(**SMALL).fit(bench(np.ones((30, 1))), embeddings)
    unpriced = bench(np.ones((30, 2)), cost=[0.1, NAN])
    with pytest.raises(UserError, match=r"'m1' has no price; use benchmark.priced\(\)"):
        RadialRouter(**SMALL).fit(unpriced, embeddings)
    RadialRouter(**{**SMALL, "alpha": 0, "steps": 1}).fit(unpriced, embeddings)
    with pytest.raises(UserError, match="29 embeddings for 30 prompts"):
        RadialRouter(**SMALL).fit(bench(np.ones((30, 2))), embeddings[:29])


@pytest.mark.parametrize("name", ["no-such-org/no-such-encoder", "./no/such/folder"])
def test_an_encoder_that_cannot_be_loaded_is_refused(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(radial_router, "_train", lambda jobs: pytest.fail("training began"))
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match=r"tried it as .* Offline, encoder='minilm' works") as error:
        RadialRouter(**SMALL, finetune_encoder=True, encoder=name).fit(
            bench(rng.random((30, 3)) > 0.5), rng.normal(size=(30, 4))
        )
    assert name in str(error.value)


def test_an_encoder_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="could not be loaded for training"):
        RadialRouter(**SMALL, finetune_encoder=True, encoder=str(tmp_path)).fit(
            bench(rng.random((30, 3)) > 0.5), rng.normal(size=(30, 4))
        )


def test_a_router_says_what_it_lacks():
    train, embeddings, _ = separable(n=60)
    router = RadialRouter(steps=1, **SMALL)
    with pytest.raises(UserError, match="is not fitted"):
        router.predict_quality(embeddings)
    router.fit(train, embeddings)
    with pytest.raises(UserError, match="fitted with 8; use one encoder"):
        router.predict_quality(embeddings[:, :5])
    with pytest.raises(UserError, match="needs a router fitted with finetune_encoder=True"):
        router.embed(["what is the answer"])
    with pytest.raises(UserError, match="static"):
        router.add_models(train, embeddings)


def test_fit_many_refuses_lists_that_do_not_match():
    train, embeddings, _ = separable(n=60)
    router = RadialRouter(steps=1, **SMALL)
    with pytest.raises(UserError, match="occurs twice"):
        fit_many([router, router], train, embeddings)
    with pytest.raises(UserError, match="2 embeddings for 1 routers"):
        fit_many([router], train, [embeddings, embeddings])
    with pytest.raises(UserError, match="at_once is 0"):
        fit_many([router], train, embeddings, at_once=0)
    assert fit_many([], train, embeddings) == []
