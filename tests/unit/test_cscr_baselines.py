"""CSCR's own baselines: UMR in both readings, softmax gates and what they are trained on."""

from __future__ import annotations

import numpy as np
import pytest

from replications.cscr import baselines
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError
from routebook.routers import KMeans

NAN = np.nan
FAST = {"epochs": 60, "lr": 0.02, "batch_size": 64}


def bench(quality, cost=None, kind="binary"):
    quality = np.asarray(quality, dtype=float)
    n, m = quality.shape
    cost = np.broadcast_to(np.arange(1.0, m + 1) if cost is None else np.asarray(cost, dtype=float), (n, m))
    return RoutingBenchmark(
        "tiny",
        [f"p{i}" for i in range(n)],
        np.array(["t"] * n),
        [f"m{j}" for j in range(m)],
        quality,
        cost,
        "USD per prompt",
        origin="simulated",
        quality_kind=kind,
    )


@pytest.fixture(scope="module")
def speciality():
    """Three kinds of prompts, each answered by one LLM alone; embeddings tell the kinds apart."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, 240)
    return bench(np.eye(3)[kind]), (np.eye(3)[kind] + 0.05 * rng.normal(size=(240, 3))), kind


# --- UMR -------------------------------------------------------------------------------------------------------------


def test_umr_is_uniroute_with_k_means(speciality):
    benchmark, embeddings, _ = speciality
    umr = baselines.UMR(n_clusters=3, seed=2).fit(benchmark, embeddings)
    uniroute = KMeans(n_clusters=3, seed=2).fit(benchmark, embeddings)
    np.testing.assert_array_equal(umr.predict_quality(embeddings), uniroute.predict_quality(embeddings))


def test_released_umr_gives_an_empty_cluster_error_one_half_and_assigns_by_cosine():
    # Two clusters in one direction apart only in length, and one across; labels are known on two prompts alone.
    embeddings = np.array([[1.0, 0.0], [1.1, 0.0], [9.0, 0.0], [9.1, 0.0], [0.0, 5.0], [0.0, 5.1]])
    benchmark = bench([[1, 0], [1, 0], [0, 1], [0, 1], [1, 1], [1, 1]])
    for seed in range(30):
        router = baselines.UMR(3, "released", n_validation=2, seed=seed).fit(benchmark, embeddings)
        assert router.counts_.sum(axis=0).tolist() == [2, 2]
        empty = router.counts_[:, 0] == 0
        assert empty.any()
        np.testing.assert_array_equal(router.psi_[empty], 0.5)
        assert set(np.unique(router.psi_[~empty])) <= {0.0, 1.0}
    across = router.assign(np.array([[0.0, 5.0]]))[0]
    # Nearest to this prompt is the centroid at (1.05, 0), most similar by cosine the one at (0, 5.05).
    asked = np.array([[0.1, 0.5]])
    assert router.assign(asked)[0] != across
    np.testing.assert_array_equal(router.predict_quality(asked), 1 - router.psi_[[across]])


def test_umr_refuses_what_it_cannot_be():
    benchmark = bench([[1, 0], [0, 1]])
    with pytest.raises(UserError, match="reading is 'mine', expected 'uniroute' or 'released'"):
        baselines.UMR(1, "mine").fit(benchmark, np.eye(2))
    with pytest.raises(UserError, match="n_validation is 0"):
        baselines.UMR(1, "released", 0).fit(benchmark, np.eye(2))
    with pytest.raises(UserError, match="n_clusters is 20, but there are only 2 training prompts"):
        baselines.UMR().fit(benchmark, np.eye(2))


# --- softmax gates ---------------------------------------------------------------------------------------------------


def test_best_answers_by_hand():
    quality = [[1, 1, 0], [0, 0, 0], [0.2, NAN, 0.7], [NAN, NAN, 0]]
    expected = [[1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]]
    np.testing.assert_array_equal(baselines.best_answers(np.array(quality)), np.array(expected, dtype=bool))


@pytest.mark.parametrize("router", [baselines.Parametric((16,), **FAST), baselines.SoftMoE(slots=2, **FAST)])
def test_gates_learn_who_answers_what_and_sum_to_one(router, speciality):
    benchmark, embeddings, kind = speciality
    gates = router.fit(benchmark, embeddings).predict_quality(embeddings)
    np.testing.assert_allclose(gates.sum(axis=1), 1, rtol=1e-12)
    assert (gates.argmax(axis=1) == kind).all()
    assert router.loss_[-1] < router.loss_[0]
    again = type(router)(**router.get_params()).fit(benchmark, embeddings)
    np.testing.assert_array_equal(again.predict_quality(embeddings), gates)


def _loss(router, benchmark, log_gates):
    """The mean loss of the prompts a router learns from, at the gates given."""
    import torch

    rows = router._prepare(benchmark)
    return rows.tolist(), router._prompt_loss(torch.tensor(log_gates)[rows], torch.tensor(rows)).numpy()


def test_losses_by_hand():
    gates = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.6, 0.2, 0.2]])
    benchmark = bench([[1, 1, 0], [NAN, 0.25, 0.5], [0, 0, 0]], cost=[3, 1, 2], kind="soft")
    rows, loss = _loss(baselines.Parametric(), benchmark, np.log(gates))
    assert rows == [0, 1], "nobody answered the third prompt"
    np.testing.assert_allclose(loss, [-(np.log(0.5) + np.log(0.3)) / 2, -np.log(0.7)], rtol=1e-6)
    _, loss = _loss(baselines.Parametric(target="cheapest"), benchmark, np.log(gates))
    np.testing.assert_allclose(loss, [-np.log(0.3), -np.log(0.7)], rtol=1e-6)
    rows, loss = _loss(baselines.SoftMoE(), benchmark, np.log(gates))
    assert rows == [0, 1]
    # The second LLM's gates are taken over the two that were observed.
    np.testing.assert_allclose(loss, [-0.8, -(0.2 * 0.25 + 0.7 * 0.5) / 0.9], rtol=1e-6)


def test_several_slots_add_up_to_the_gate_of_their_llm(speciality):
    import torch

    benchmark, embeddings, _ = speciality
    router = baselines.SoftMoE(slots=4, epochs=1).fit(benchmark, embeddings)
    with torch.inference_mode():
        every = router.network_(torch.tensor(embeddings, dtype=torch.float32)).double().softmax(dim=1).numpy()
    expected = every.reshape(len(embeddings), 3, 4).sum(axis=2)
    np.testing.assert_allclose(router.predict_quality(embeddings), expected, rtol=1e-5)


def test_the_released_parametric_router_does_not_look_at_the_prompt(speciality):
    benchmark, embeddings, _ = speciality
    quality = benchmark.quality.copy()
    quality[:, 1] = 1.0  # one LLM answers everything
    vectors = {"m0": np.array([1.0, 0.0]), "m1": np.array([0.0, 1.0]), "m2": np.array([-1.0, 0.0])}
    router = baselines.DescriptorSoftmax(vectors, **FAST).fit(bench(quality), embeddings)
    scores = router.predict_quality(embeddings)
    np.testing.assert_array_equal(scores, np.tile(scores[0], (len(scores), 1)))
    assert (scores.argmax(axis=1) == 1).all()
    weights, bias = (p.detach().numpy() for p in router.network_.parameters())
    np.testing.assert_allclose(scores[0], np.stack(list(vectors.values())) @ weights[0] + bias, rtol=1e-6)
    with pytest.raises(UserError, match="no descriptor of 'm2'"):
        baselines.DescriptorSoftmax({"m0": np.ones(2), "m1": np.ones(2)}).fit(benchmark, embeddings)


@pytest.mark.parametrize(
    ("router", "benchmark", "words"),
    [
        (baselines.Parametric(target="dearest"), bench([[1, 0]]), "target is 'dearest', expected 'best' or 'cheapest'"),
        (baselines.Parametric(), bench([[0, 0]]), "no answer has a quality above 0"),
        (baselines.SoftMoE(slots=0), bench([[1, 0]]), "slots is 0"),
        (baselines.SoftMoE(), bench([[0, 0]]), "no answer has a quality above 0"),
        (baselines.SoftMoE(lr=0.0), bench([[1, 0]]), "lr is 0.0"),
        (baselines.Parametric(target="cheapest"), bench([[1, 0]], cost=[NAN, 1]), "'m0' has no price"),
    ],
)
def test_bad_input_is_refused(router, benchmark, words):
    with pytest.raises(UserError, match=words):
        router.fit(benchmark, np.ones((1, 2)))
