"""SemiRouter's baselines on labels with gaps, and the recovery of known qualities."""

from __future__ import annotations

import numpy as np
import pytest

from replications.semirouter import recovery
from replications.semirouter.backbone import Backbone
from replications.semirouter.baselines import FULL_DATA, METHODS, LoraRetriever, Zooter, fit_all, make
from replications.semirouter.semi_router import QUICK, SemiRouter, route
from replications.semirouter.sparse import sparsify
from routebook import figures
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError
from routebook.routers import Router, observed_mean

NAN = np.nan
ANCHORS = ["llm-a", "llm-b"]


def bench(quality):
    quality = np.asarray(quality, dtype=float)
    n, m = quality.shape
    cost = np.broadcast_to(np.arange(1.0, m + 1), (n, m))
    names = [f"llm-{letter}" for letter in "abcdefgh"[:m]]
    return RoutingBenchmark("toy", [f"p{i}" for i in range(n)], np.array(["t"] * n), names, quality, cost, "USD")


def kinds(n=900, seed=0):
    """Three kinds of prompt, known from the embedding; each sparse LLM is right on one, the anchors on none or two."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(3, size=n)
    own = np.eye(3)[kind]
    quality = np.stack([np.zeros(n), own[:, 1] + own[:, 2], *own.T], axis=1)
    return bench(quality), (np.eye(8)[kind] * 3 + rng.normal(scale=0.3, size=(n, 8))).astype(np.float32)


@pytest.fixture(scope="module")
def routers():
    """All rows of Table 1, fitted on two labels a query."""
    full, vectors = kinds()
    return fit_all(METHODS, full, sparsify(full, ANCHORS), vectors, ANCHORS)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_who_is_right(routers, method):
    test, vectors = kinds(300, seed=1)
    router = routers[method]
    assert isinstance(router, Router)
    assert router.models_ == test.models
    choice = route(router.predict_quality(vectors), test.mean_cost)
    assert test.quality[np.arange(300), choice].mean() > 0.97
    labels = router.predict_labels(vectors)
    assert set(np.unique(labels)) <= {0.0, 1.0}
    # ZOOTER knows how LLMs differ on a query and not how good they are, so its labels are worse.
    assert np.mean(labels == test.quality) > (0.85 if method == "zooter" else 0.97)


def test_every_method_has_a_look_of_its_own():
    assert {figures.METHODS[method].label for method in METHODS} >= {"SemiRouter (EMB)", "ZOOTER", "LoraRetriever"}


def test_variants_share_a_backbone_and_are_what_fitting_alone_gives(routers):
    full, vectors = kinds()
    shared = {id(routers[m].backbone_) for m in METHODS if isinstance(routers[m], SemiRouter)}
    assert len(shared) == 1
    alone = make("semirouter-emb", ANCHORS).fit(sparsify(full, ANCHORS), vectors)
    np.testing.assert_array_equal(alone.predict_quality(vectors), routers["semirouter-emb"].predict_quality(vectors))


def test_only_full_data_methods_see_the_labels_that_were_taken_away():
    full, vectors = kinds(60)
    quality = full.quality.copy()
    thin = sparsify(full, ANCHORS, per_query=1)
    hidden = np.isnan(thin.quality)
    quality[hidden] = 1 - quality[hidden]
    other = bench(quality)
    for method in METHODS:
        first, second = (
            fit_all([method], b, thin, vectors, ANCHORS)[method].predict_quality(vectors) for b in (full, other)
        )
        assert np.array_equal(first, second) == (method not in FULL_DATA), method


def test_quick_settings_reach_every_network():
    assert make("bert-full", ANCHORS).width == make("zooter", ANCHORS).width == QUICK["backbone_width"]
    assert make("semirouter-mlp", ANCHORS).hidden == QUICK["hidden"]
    assert make("semirouter-mlp", ANCHORS, quick=False).hidden == (512, 256)
    assert make("zooter", ANCHORS, quick=False).get_params() == Zooter().get_params()
    assert make("router-dc-ss", ANCHORS).loss == "sample-sample"
    assert make("lora-retriever", ANCHORS).n_clusters == 40
    assert set(QUICK) <= set(SemiRouter().get_params())
    with pytest.raises(UserError, match=r"'semi-router-emb', expected one of .*did you mean 'semirouter-emb'"):
        make("semi-router-emb", ANCHORS)


def test_lora_retriever_is_the_mean_of_the_labels_seen_in_the_nearest_cluster():
    vectors = np.repeat(np.eye(2) * 10, 3, axis=0)
    quality = [[1, NAN], [0, 1], [1, NAN], [0, NAN], [NAN, NAN], [0, NAN]]
    router = LoraRetriever(n_clusters=2).fit(bench(quality), vectors)
    # llm-b was never seen in the second cluster: its overall mean, 1.
    np.testing.assert_allclose(router.predict_quality(vectors[[0, 3]]), [[2 / 3, 1], [0, 1]])
    np.testing.assert_array_equal(router.predict_labels(vectors[[0, 3]]), [[1, 1], [0, 1]])


def test_zooter_keeps_the_overall_level_and_the_targets_differences():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(400, 4))
    full = bench(np.tile([1.0, 0.8, 0.5, 0.0], (400, 1)))
    thin = sparsify(full, ["llm-a"])
    router = Zooter(width=16, epochs=60, lr=1e-2, batch_size=64, dropout=0.0, temperature=0.5).fit(thin, vectors)
    estimate = router.predict_quality(vectors)
    np.testing.assert_allclose(estimate.mean(axis=1), observed_mean(thin.quality.reshape(-1, 1))[0])
    np.testing.assert_allclose((estimate - estimate[:, :1]).mean(axis=0), [0, -0.2, -0.5, -1.0], atol=0.1)


def test_queries_with_a_single_label_teach_zooter_nothing():
    vectors = np.random.default_rng(0).normal(size=(50, 4))
    quality = np.full((50, 3), NAN)
    quality[np.arange(50), np.arange(50) % 3] = 1.0
    assert (Zooter(width=4, epochs=3).fit(bench(quality), vectors).loss_ == 0).all()


@pytest.mark.parametrize("router", [Backbone(epochs=0), Zooter(temperature=0), Zooter(lr=-1.0), LoraRetriever(0)])
def test_bad_parameters_are_refused(router):
    full, vectors = kinds(60)
    with pytest.raises(UserError, match=r"is (0|-1\.0), expected"):
        router.fit(full, vectors)


@pytest.mark.parametrize("router", [Backbone(), Zooter(), LoraRetriever(4)])
def test_an_llm_never_observed_is_refused(router):
    full, vectors = kinds(60)
    quality = full.quality.copy()
    quality[:, 2] = NAN
    with pytest.raises(UserError, match="'llm-c' has no observed quality"):
        router.fit(bench(quality), vectors)


def test_backbone_learns_from_the_labels_there_are():
    full, vectors = kinds()
    router = Backbone(width=32, epochs=10, lr=5e-3, batch_size=64).fit(sparsify(full, ANCHORS), vectors)
    assert np.mean(router.predict_labels(vectors) == full.quality) > 0.97, "a missing label is not taken for bad"
    with pytest.raises(UserError, match=r"Backbone\.embed needs a router fitted with finetune_encoder=True"):
        router.embed(["p"])


def test_known_qualities_are_recovered():
    found = recovery.recover_qualities((0,), methods=("lora-retriever", "semirouter-emb"), n_prompts=2400)
    emb = found.set_index("method").loc["semirouter-emb"]
    assert (found["single"] < found["quality"]).all()
    assert (found["quality"] <= found["bayes"]).all()
    assert emb["error"] < 0.12
    assert emb["reached"] > 0.5
    table = recovery.recovery_table(found)
    assert list(table.index) == ["LoraRetriever", "SemiRouter (EMB)"]
