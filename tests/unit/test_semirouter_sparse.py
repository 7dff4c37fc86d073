"""The sparse setting: what is thinned, by how much, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from replications.semirouter.sparse import sparsify, spread_anchors
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError

NAN = np.nan


def bench(quality, cost=None):
    quality = np.asarray(quality, dtype=float)
    n, m = quality.shape
    cost = np.broadcast_to(np.arange(1.0, m + 1) if cost is None else np.asarray(cost, dtype=float), (n, m))
    names = [f"llm-{letter}" for letter in "abcdefgh"[:m]]
    return RoutingBenchmark("toy", [f"p{i}" for i in range(n)], np.array(["t"] * n), names, quality, cost, "USD")


def pool(n=400, m=7, seed=0):
    return bench(np.random.default_rng(seed).integers(0, 2, (n, m)))


ANCHORS = ["llm-g", "llm-b", "llm-a"]
SPARSE = [2, 3, 4, 5]


def test_anchors_keep_everything_and_the_others_two_a_query():
    full = pool()
    thin = sparsify(full, ANCHORS)
    np.testing.assert_array_equal(thin.quality[:, [0, 1, 6]], full.quality[:, [0, 1, 6]])
    seen = ~np.isnan(thin.quality)
    assert (seen[:, SPARSE].sum(axis=1) == 2).all()
    np.testing.assert_array_equal(thin.quality[seen], full.quality[seen])
    np.testing.assert_array_equal(thin.cost, full.cost)
    assert (np.abs(seen[:, SPARSE].mean(axis=0) - 0.5) < 0.1).all(), "uniform over the LLMs"


def test_same_seed_same_labels():
    full = pool()
    np.testing.assert_array_equal(sparsify(full, ANCHORS, seed=3).quality, sparsify(full, ANCHORS, seed=3).quality)
    assert (
        np.isnan(sparsify(full, ANCHORS, seed=3).quality) != np.isnan(sparsify(full, ANCHORS, seed=4).quality)
    ).any()


@pytest.mark.parametrize(("share", "kept"), [(0.01, 4), (0.1, 40), (0.5, 200), (1.0, 400), (0.0001, 1)])
def test_a_share_of_every_llms_labels(share, kept):
    seen = ~np.isnan(sparsify(pool(), ANCHORS, share=share).quality)
    np.testing.assert_array_equal(seen.sum(axis=0), [400, 400, kept, kept, kept, kept, 400])


def test_smaller_shares_are_parts_of_larger_ones():
    small, large = (~np.isnan(sparsify(pool(), ANCHORS, share=s, seed=1).quality) for s in (0.1, 0.3))
    assert (large | ~small).all()


def test_more_a_query_than_there_are_keeps_what_there_is_and_missing_labels_stay_missing():
    quality = pool(n=50, m=4).quality.copy()
    quality[:20, 2], quality[5, 3] = NAN, NAN
    full = bench(quality)
    np.testing.assert_array_equal(sparsify(full, ["llm-a"], per_query=9).quality, quality)
    thin = sparsify(full, ["llm-a"], per_query=1)
    seen = ~np.isnan(thin.quality)
    assert not (seen & np.isnan(quality)).any()
    assert (seen[:, 1:].sum(axis=1) == 1).all(), "a missing label is never one of those kept"
    shared = sparsify(full, ["llm-a"], share=0.5)
    np.testing.assert_array_equal((~np.isnan(shared.quality)).sum(axis=0), [50, 25, 15, 24])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"anchors": []}, "there is no anchor model.*anchors="),
        ({"anchors": ["llm-z"]}, r"the anchor 'llm-z' is not in the pool.*did you mean 'llm-"),
        ({"anchors": ["llm-a", "llm-a"]}, "'llm-a' is named twice"),
        ({"anchors": "llm-a"}, "expected a list"),
        ({"anchors": [f"llm-{letter}" for letter in "abcdefg"]}, "all 7 LLMs of the pool are anchors"),
        ({"share": 0}, r"share is 0, expected a number in \(0, 1\]"),
        ({"share": 0.0}, r"share is 0.0, expected a number in \(0, 1\]"),
        ({"share": 1.1}, "share is 1.1"),
        ({"share": NAN}, "share is nan"),
        ({"per_query": 0}, "per_query is 0, expected a whole number"),
        ({"per_query": 1.5}, "per_query is 1.5"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        sparsify(pool(), **{"anchors": ANCHORS, **options})


def test_an_llm_left_without_any_label_is_refused_by_name():
    with pytest.raises(UserError, match=r"model 'llm-[bcd]' is left without any observed quality on these 2 prompts"):
        sparsify(pool(n=2, m=4), ["llm-a"], per_query=1)
    quality = pool(n=20, m=4).quality.copy()
    quality[:, 2] = NAN
    with pytest.raises(UserError, match="model 'llm-c' is left without any observed quality"):
        sparsify(bench(quality), ["llm-a"], share=0.5)


def test_anchors_of_a_pool_the_paper_does_not_have():
    # Means 1, .5, .5, 0: of the equals llm-c is dearer, so it counts as better and llm-b is the middle one of four.
    quality = [[1, 1, 0, 0], [1, 0, 1, 0]]
    assert spread_anchors(bench(quality)) == ["llm-a", "llm-b", "llm-d"]
    assert spread_anchors(bench(quality, [4, 3, 2, 1])) == ["llm-a", "llm-c", "llm-d"]
    assert spread_anchors(bench([[0, 1, 0]])) == ["llm-b"]
