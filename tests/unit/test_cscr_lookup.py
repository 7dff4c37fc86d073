"""The index of experts against brute force, and the shape of what is measured with it."""

import numpy as np
import pytest

from replications.cscr.lookup import KINDS, RIVALS, ExpertIndex, measure_lookup, synthetic_pool
from routebook.errors import UserError


def names(n, first=0):
    return [f"expert {i}" for i in range(first, first + n)]


@pytest.fixture
def pool():
    return synthetic_pool(60, width=12, n_queries=25, seed=1)


def top(experts, queries, k):
    return np.argsort(-(queries @ experts.T), axis=1, kind="stable")[:, :k]


def test_descriptors_and_queries_have_unit_length(pool):
    for part in pool:
        assert np.linalg.norm(part, axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_finds_the_most_similar_experts(pool, kind):
    experts, queries = pool
    similarity, place = ExpertIndex(kind).add(names(60), experts).search(queries, 4)
    # 60 experts make 7 cells, of which 8 are searched: here the approximate indexes see every expert too.
    np.testing.assert_array_equal(place, top(experts, queries, 4))
    np.testing.assert_allclose(similarity, np.take_along_axis(queries @ experts.T, place, axis=1), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_experts_come_and_go_by_name(pool, kind):
    experts, queries = pool
    index = ExpertIndex(kind).add(names(40), experts[:40]).add(names(20, 40), experts[40:])
    assert len(index) == 60
    np.testing.assert_array_equal(index.search(queries, 3)[1], top(experts, queries, 3))
    index.remove(names(10))
    assert index.names == names(50, 10)
    np.testing.assert_array_equal(index.search(queries, 3)[1], top(experts[10:], queries, 3))


@pytest.mark.parametrize("lam", [0.0, 0.3, 1e6])
def test_the_choice_is_the_best_trade_off_among_the_most_similar(pool, lam):
    experts, queries = pool
    cost = np.random.default_rng(0).random(60)
    chosen = ExpertIndex().add(names(60), experts).choose(queries, cost, lam, 4)
    for query, place in zip(queries, chosen, strict=True):
        near = np.argsort(-(experts @ query))[:4]
        assert place == max(near, key=lambda m: float(experts[m] @ query) - lam * cost[m])


def test_what_an_index_cannot_do_is_said(pool):
    experts, queries = pool
    index = ExpertIndex().add(names(5), experts[:5])
    cases = [
        (lambda: ExpertIndex("ball"), "kind is 'ball'"),
        (lambda: index.search(queries, 6), "k is 6, but there are 5 experts"),
        (lambda: index.search(queries, 0), "k is 0"),
        (lambda: index.search(queries[:, :3], 2), "expected \\[prompts, 12\\]"),
        (lambda: index.search(queries[0], 2), "expected \\[prompts, 12\\]"),
        (lambda: index.add(["expert 1"], experts[:1]), "'expert 1' would be in the index twice"),
        (lambda: index.add(["a", "a"], experts[:2]), "'a' would be in the index twice"),
        (lambda: index.add(["a"], experts[:1, :3]), "3 dimensions, those in the index 12"),
        (lambda: index.add(["a"], experts[:2]), "expected \\[1, D\\]"),
        (lambda: index.remove(["expert 9"]), "no expert 'expert 9'; did you mean"),
        (lambda: index.remove(names(5)), "leave the index empty"),
    ]
    for call, message in cases:
        with pytest.raises(UserError, match=message):
            call()
    assert index.names == names(5)


def test_a_measurement_has_a_row_for_each_index_size_and_mode():
    found = measure_lookup((10, 30), n_queries=50, width=8, repeats=2, embedding={"single": 1000.0, "batch": 100.0})
    ways = [*KINDS, *RIVALS]
    expected = [(way, n, mode) for n in (10, 30) for way in ways for mode in ("single", "batch")]
    assert list(found[["index", "n", "mode"]].itertuples(index=False, name=None)) == expected
    assert (found["queries"] == found["mode"].map({"single": 1, "batch": 50})).all()
    assert (found["us"] > 0).all()
    extra = found["mode"].map({"single": 1000.0, "batch": 100.0})
    assert found["us_with_embedding"].to_numpy() == pytest.approx((found["us"] + extra).to_numpy())
    assert (found["recall"].dropna() == 1).all()
    assert set(found.loc[found["recall"].isna(), "index"]) == {"numpy"}


def test_all_exact_ways_choose_the_same_expert():
    from replications.cscr.lookup import _lookup

    experts, queries = synthetic_pool(20, width=8, n_queries=40)
    cost = np.random.default_rng(0).random(20)
    # With the whole pool retrieved, the plain argmax is the same rule.
    chosen = {way: _lookup(way, experts, cost, 0.1, 20)[0](queries) for way in ("flat", *RIVALS)}
    for way in RIVALS:
        np.testing.assert_array_equal(chosen[way], chosen["flat"])


def test_an_unknown_index_is_refused():
    with pytest.raises(UserError, match=r"kinds has 'hsnw'.*did you mean 'hnsw'"):
        measure_lookup((10,), ("hsnw",), n_queries=5, repeats=1)
