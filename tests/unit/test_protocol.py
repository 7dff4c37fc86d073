"""Any router meets any benchmark under one protocol: what it may see, what it pays, what it is told."""

from __future__ import annotations

import numpy as np
import pytest

from routebook import load, metrics, protocol, routers
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import deferral_curve
from routebook.errors import UserError


class Spy:
    """A router that keeps what it was shown and believes what it was told."""

    def __init__(self, believes):
        self.believes = believes

    def fit(self, benchmark, embeddings):
        self.models_, self.shown = list(benchmark.models), (benchmark, embeddings)
        return self

    def predict_quality(self, embeddings):
        self.asked = embeddings
        return np.tile(self.believes, (len(embeddings), 1))


@pytest.fixture(scope="module")
def benchmark():
    return load("simulated").sample(300, 0)


@pytest.fixture(scope="module")
def splits(benchmark):
    return protocol.draw_splits(benchmark, benchmark.embeddings, 3, test_share=0.4, seed=5)


def test_splits_are_disjoint_differ_and_carry_one_price_a_model(benchmark, splits):
    for split in splits:
        train, test = set(split.train.prompts), set(split.test.prompts)
        assert not train & test
        assert len(train | test) == len(set(benchmark.prompts))
        rows = [benchmark.prompts.index(prompt) for prompt in split.train.prompts]
        np.testing.assert_allclose(split.price, benchmark.cost[rows].mean(axis=0))
        assert (split.train.cost == split.price).all()
        assert (split.test.cost == split.price).all()
        np.testing.assert_array_equal(split.z_train, benchmark.embeddings[rows])
    assert splits[0].test.prompts != splits[1].test.prompts
    again = protocol.draw_splits(benchmark, benchmark.embeddings, 1, test_share=0.4, seed=5)[0]
    assert again.test.digest() == splits[0].test.digest()


def test_a_router_sees_training_answers_only_and_its_curve_is_that_of_its_estimates(splits):
    spies = []

    def make(seed):
        spies.append(Spy(np.linspace(0.2, 0.8, len(splits[0].test.models))))
        return spies[-1]

    found = protocol.compare({"spy": make}, splits)
    for spy, split, estimates, curves in zip(spies, splits, found.estimates, found.curves, strict=True):
        assert spy.shown == (split.train, split.z_train)
        assert spy.asked is split.z_test
        by_hand = deferral_curve(np.tile(spy.believes, (len(split.test), 1)), split.test.quality, split.price)
        np.testing.assert_array_equal(curves["spy"].quality, by_hand.quality)
        assert estimates["spy"].shape == split.test.quality.shape


def test_estimates_are_put_into_the_order_of_the_pool(splits):
    class Backwards(Spy):
        def fit(self, benchmark, embeddings):
            self.models_ = benchmark.models[::-1]
            return self

    m = len(splits[0].test.models)
    found = protocol.compare({"back": lambda seed: Backwards(np.arange(m))}, splits[:1])
    np.testing.assert_array_equal(found.estimates[0]["back"][0], np.arange(m)[::-1])


def test_references_lie_between_random_and_the_oracle(splits):
    found = protocol.compare(protocol.REFERENCES, splits)
    area = found.read(lambda curve: curve.area(left="flat")).mean()
    assert set(area.index) == set(protocol.REFERENCES)
    assert area.idxmax() == "oracle"
    assert area.idxmin() == "random"
    np.testing.assert_array_equal(found.estimates[0]["oracle"], splits[0].test.quality)


def test_differences_are_paired(splits):
    found = protocol.compare({name: protocol.REFERENCES[name] for name in ("k-nn", "zero-router")}, splits)
    areas = {name: np.array([curve.area() for curve in found.of(name)]) for name in ("k-nn", "zero-router")}
    difference = found.difference("k-nn", "zero-router", metrics.area)
    assert difference.estimate == pytest.approx((areas["k-nn"] - areas["zero-router"]).mean())
    assert difference.n == 3
    over_prompts = found.over_prompts("k-nn", "zero-router", n_resamples=20)
    assert over_prompts.estimate == pytest.approx(areas["k-nn"][0] - areas["zero-router"][0])
    assert over_prompts.low <= over_prompts.estimate <= over_prompts.high


def test_the_summary_has_a_row_a_router_and_number(splits):
    found = protocol.compare({name: protocol.REFERENCES[name] for name in ("best-single", "k-nn")}, splits)
    table = protocol.summary(found)
    assert len(table) == 2 * len(protocol.READINGS)
    assert np.isnan(table.loc[("best-single", "area"), "value"]), "a single point has no area"
    peaks = [curve.peak for curve in found.of("k-nn")]
    assert table.loc[("k-nn", "peak"), "value"] == pytest.approx(np.mean(peaks))
    relative = [100 * curve.cost_at_peak / curve.model_cost[curve.best_model] for curve in found.of("k-nn")]
    assert table.loc[("k-nn", "cost-at-peak"), "value"] == pytest.approx(np.mean(relative))
    assert protocol.cell(0.5, 0.4, 0.6, "{:.2f}") == "0.50<br><small>[0.40, 0.60]</small>"
    assert protocol.cell(0.5, np.nan, np.nan, "{:.2f}") == "0.50"
    assert protocol.cell(np.nan, np.nan, np.nan, "{:.2f}") == "–"


def test_models_without_a_price_and_prompts_nobody_answered_are_left_out():
    n = 40
    quality = np.tile([0.0, 1.0, 1.0], (n, 1))
    quality[:10] = np.nan
    benchmark = RoutingBenchmark(
        name="gaps",
        prompts=[f"prompt {i}" for i in range(n)],
        tasks=["t"] * n,
        models=["a", "b", "free"],
        quality=quality,
        cost=np.tile([1.0, 2.0, np.nan], (n, 1)),
        cost_unit="USD per prompt",
    )
    (split,) = protocol.draw_splits(benchmark, np.eye(n), 1, test_share=0.5)
    assert split.test.models == ["a", "b"]
    assert not np.isnan(split.test.quality).all(axis=1).any()
    assert len(split.test) < 20


class NoModels(Spy):
    def fit(self, benchmark, embeddings):
        return self


class WrongShape(Spy):
    def predict_quality(self, embeddings):
        return np.zeros(len(embeddings))


class HalfThePool(Spy):
    def fit(self, benchmark, embeddings):
        self.models_ = benchmark.models[:1]
        return self


@pytest.mark.parametrize(
    ("router", "said"),
    [
        (object(), r"'mine' \(object\) has no method 'fit'"),
        (NoModels([0]), "has no models_ after fit; set self.models_ = benchmark.models"),
        (WrongShape([0]), r"estimates have shape \(120,\), expected \(120, "),
        (HalfThePool([0]), "has no estimate for model"),
    ],
)
def test_a_router_that_keeps_not_to_the_protocol_is_told_so(splits, router, said):
    with pytest.raises(UserError, match=said):
        protocol.compare({"mine": lambda seed: router}, splits[:1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"n_splits": 0}, "n_splits is 0"),
        ({"test_share": 1.0}, "test_share is 1"),
        ({"test_share": 0.001}, "0 test prompts are left"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused(benchmark, arguments, said):
    with pytest.raises(UserError, match=said):
        protocol.draw_splits(benchmark, benchmark.embeddings, **{"n_splits": 1, **arguments})
    with pytest.raises(UserError, match="embed exactly these prompts"):
        protocol.draw_splits(benchmark, benchmark.embeddings[1:], 1)


def test_every_reference_takes_the_seed_of_its_split():
    assert protocol.REFERENCES["k-means"](7).seed == 7
    assert protocol.REFERENCES["mlp"](7).seed == 7
    assert isinstance(protocol.REFERENCES["best-single"](7), routers.BestSingle)
