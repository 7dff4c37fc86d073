"""Appendix H.2, measured: slopes of made-up power laws, and what is timed. No test looks at a time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from replications.uniroute import adding_cost
from routebook.errors import UserError
from routebook.figures import METHODS

SIZES = (100, 200, 400, 800)


def power_laws(orders: dict[tuple[str, str], float]) -> pd.DataFrame:
    rows = [
        {"quantity": quantity, "size": size, "router": router, "seconds": 3e-5 * size**order}
        for (router, quantity), order in orders.items()
        for size in SIZES
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def measured():
    return adding_cost.measure(
        (40, 60, 80), (2, 3, 4), n_training=50, n_models=3, n_validation=20, n_clusters=2, dim=4, n_epochs=1
    )


def test_slopes_of_power_laws_are_their_orders():
    orders = {
        ("uniroute", "training-size"): 0.0,
        ("uniroute", "pool-size"): 0.5,
        ("static", "training-size"): 1.0,
        ("uniroute-training", "pool-size"): -2.0,
    }
    found = adding_cost.slopes(power_laws(orders))
    for (router, quantity), order in orders.items():
        row = found.loc[f"{router}/{quantity}"]
        assert row["value"] == pytest.approx(order, abs=1e-12)
        assert row["low"] == pytest.approx(order, abs=1e-6)
        assert row["high"] == pytest.approx(order, abs=1e-6)
        assert row["n"] == 4


def test_the_interval_of_a_slope_by_hand():
    """Logs (0, 0), (1, 2), (2, 1): slope .5, residuals -.5, 1, -.5, so s = sqrt(1.5), standard error sqrt(.75)."""
    e = np.e
    frame = pd.DataFrame({"quantity": "pool-size", "router": "static", "size": [1, e, e**2], "seconds": [1.0, e**2, e]})
    row = adding_cost.slopes(frame).loc["static/pool-size"]
    half = 12.706204736 * np.sqrt(0.75)
    assert row["value"] == pytest.approx(0.5)
    assert row["low"] == pytest.approx(0.5 - half)
    assert row["high"] == pytest.approx(0.5 + half)


def test_two_sizes_leave_no_interval():
    frame = power_laws({("static", "pool-size"): 1.0})
    with pytest.raises(UserError, match="static was timed at 2 sizes of pool-size"):
        adding_cost.slopes(frame[frame["size"] < 300])


def test_every_router_is_timed_at_every_size(measured):
    assert list(measured.columns) == ["quantity", "size", "router", "seconds"]
    assert len(measured) == 2 * 3 * 3
    for quantity, sizes in (("training-size", [40, 60, 80]), ("pool-size", [2, 3, 4])):
        for router in ("uniroute", "uniroute-training", "static"):
            rows = measured[(measured["quantity"] == quantity) & (measured["router"] == router)]
            assert list(rows["size"]) == sizes
            assert (rows["seconds"] >= 0).all()
    assert set(adding_cost.slopes(measured.assign(seconds=1.0)).index) == {
        f"{router}/{quantity}"
        for router in ("uniroute", "uniroute-training", "static")
        for quantity in adding_cost.QUANTITIES
    }


def test_what_is_timed_has_the_sizes_it_says(monkeypatch):
    fitted, added = [], []
    kmeans, mlp = adding_cost.routers.KMeans, adding_cost.routers.MLP
    fit, add, train = kmeans.fit, kmeans.add_models, mlp.fit

    def spy(calls, method):
        def call(self, benchmark, embeddings):
            calls.append((type(self).__name__, len(benchmark), len(benchmark.models)))
            return method(self, benchmark, embeddings)

        return call

    monkeypatch.setattr(kmeans, "fit", spy(fitted, fit))
    monkeypatch.setattr(kmeans, "add_models", spy(added, add))
    monkeypatch.setattr(mlp, "fit", spy(fitted, train))
    adding_cost.measure((40, 60), (2, 5), n_training=50, n_models=3, n_validation=20, n_clusters=2, dim=4)
    sizes = {(40, 3), (60, 3), (50, 2), (50, 5)}
    assert {(n, m) for name, n, m in fitted if name == "KMeans"} == sizes
    assert {(n, m) for name, n, m in fitted if name == "MLP"} == sizes
    assert {(n, m) for _, n, m in added} == {(20, 1)}


def test_lines_are_ready_for_a_figure(measured):
    for quantity, sizes in (("training-size", [40, 60, 80]), ("pool-size", [2, 3, 4])):
        drawn = adding_cost.lines(measured, quantity)
        assert list(drawn) == ["k-means", "retrained-mlp"]
        assert set(drawn) <= set(METHODS)
        for router, method in (("uniroute", "k-means"), ("static", "retrained-mlp")):
            rows = measured[(measured["quantity"] == quantity) & (measured["router"] == router)]
            assert list(drawn[method][0]) == sizes
            assert list(drawn[method][1]) == list(rows["seconds"])
    with pytest.raises(UserError, match="quantity is 'cost'"):
        adding_cost.lines(measured, "cost")


def test_too_few_repeats_are_refused():
    with pytest.raises(UserError, match="repeats is 4"):
        adding_cost.measure(repeats=4)
