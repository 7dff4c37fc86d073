"""Record: what a notebook finds is shown, glued for the prose, and written down without loss."""

from __future__ import annotations

import json
import math
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from routebook import datasets, record
from routebook.record import OUTPUT_VARIABLE, Record, read_results


@pytest.fixture
def glued(monkeypatch):
    """What is glued for the prose, by name."""
    import myst_nb

    found = {}
    monkeypatch.setattr(myst_nb, "glue", lambda name, value, display: found.update({name: value}))
    return found


def _read(folder):
    return {r["id"]: r for r in read_results(folder / "results.json")}


@pytest.mark.parametrize(
    "value", [np.float64(0.1), np.float32(0.5), np.int64(3), np.array(2.5), 7, True], ids=lambda v: type(v).__name__
)
def test_numpy_scalars_become_plain_numbers(glued, tmp_path, value):
    returned = Record(tmp_path).value("x", value, low=np.float64(0), high=np.float32(1), n=np.int64(12))
    assert type(returned) is float
    assert returned == float(value)
    assert {type(v) for v in glued.values()} == {float}
    assert set(glued) == {"x", "x/low", "x/high"}
    found = _read(tmp_path)["x"]
    assert (found["value"], found["low"], found["high"], found["n"]) == (float(value), 0.0, 1.0, 12)
    assert type(found["n"]) is int


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.1 + 0.2, 5e-324, -0.0, 1e300])
@pytest.mark.usefixtures("glued")
def test_every_float_survives_the_file_bit_for_bit(tmp_path, value):
    Record(tmp_path).value("x", value, low=value, high=math.inf)

    def refuse(name):
        pytest.fail(f"{name} is no JSON")

    json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    found = _read(tmp_path)["x"]
    np.testing.assert_array_equal(found["value"], value)
    assert math.copysign(1, found["value"]) == math.copysign(1, value)
    assert found["high"] == math.inf
    if not math.isnan(value):
        assert found["low"] == value


@pytest.mark.usefixtures("glued")
def test_a_number_recorded_twice_keeps_its_latest_value_only(tmp_path):
    results = Record(tmp_path)
    for value in (1.0, 2.0):
        results.value("x", value)
        results.value("y", value)
    written = json.loads((tmp_path / "results.json").read_text())
    assert [(r["id"], r["value"]) for r in written] == [("x", 2.0), ("y", 2.0)]


@pytest.mark.usefixtures("glued")
def test_every_number_carries_the_data_it_was_computed_on(tmp_path):
    results = Record(tmp_path)
    results.value("before", 1)
    benchmark = datasets.load("simulated", n_prompts=5)
    assert results.use(benchmark) is benchmark
    results.value("after", 2, unit="share")
    found = _read(tmp_path)
    assert (found["before"]["dataset"], found["before"]["origin"]) == (None, None)
    assert (found["after"]["dataset"], found["after"]["origin"]) == ("simulated", "simulated")
    assert (found["after"]["complete"], found["after"]["absent"], found["after"]["unit"]) == (True, [], "share")


@pytest.fixture
def frame():
    return pd.DataFrame(
        {"area": [0.25, math.inf], "calls": [3, 4], "method": ["k-nn", "oracle"]}, index=["K-NN", "Oracle"]
    )


def test_a_table_is_written_cell_by_cell_and_as_csv(tmp_path, frame):
    shown = Record(tmp_path).table("areas", frame)
    found = _read(tmp_path)
    assert {id: r["value"] for id, r in found.items()} == {
        "table/areas/K-NN/area": 0.25,
        "table/areas/K-NN/calls": 3.0,
        "table/areas/Oracle/area": math.inf,
        "table/areas/Oracle/calls": 4.0,
    }
    assert {r["table"] for r in found.values()} == {"areas"}
    read = pd.read_csv(tmp_path / "tables" / "areas.csv", index_col=0)
    pd.testing.assert_frame_equal(read, frame, check_dtype=False)
    assert "<td>0.25</td>" in shown.data


def test_a_table_may_be_shown_otherwise_than_it_is_written(tmp_path, frame):
    shown = Record(tmp_path).table("areas", frame, show=pd.DataFrame({"Area": ["<b>0.250</b>"]}))
    assert "<b>0.250</b>" in shown.data
    assert _read(tmp_path)["table/areas/K-NN/area"]["value"] == 0.25


def test_a_figure_is_written_as_it_is_shown(tmp_path):
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    shown = Record(tmp_path).figure("line", figure)
    written = (tmp_path / "figures" / "line.svg").read_text()
    # IPython parses the file: it keeps the svg element alone, with its attributes in another layout.
    paths = [[path.split() for path in re.findall(r' d="([^"]*)"', text)] for text in (shown.data, written)]
    assert len(paths[0]) > 5
    assert paths[0] == paths[1]
    assert (tmp_path / "results.json").is_file()


def test_text_is_glued_and_no_result(glued, tmp_path):
    assert Record(tmp_path).text("dataset", "RouterBench") == "RouterBench"
    assert glued == {"dataset": "RouterBench"}
    assert not (tmp_path / "results.json").exists()


@pytest.mark.usefixtures("glued")
def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch, frame):
    monkeypatch.delenv(OUTPUT_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    results = Record()
    assert results.value("x", 1) == 1.0
    results.table("areas", frame)
    results.figure("line", plt.figure())
    assert list(tmp_path.iterdir()) == []
    assert len(results.records) == 5


@pytest.mark.usefixtures("glued")
def test_the_run_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(OUTPUT_VARIABLE, str(tmp_path))
    Record().value("x", 1)
    assert _read(tmp_path)["x"]["value"] == 1.0
    assert json.loads((tmp_path / "kernel.json").read_text())["peak_memory_mib"] > 20


@pytest.mark.usefixtures("glued")
def test_a_file_is_never_half_written(tmp_path, monkeypatch):
    results = Record(tmp_path)
    results.value("x", 1)
    before = (tmp_path / "results.json").read_bytes()
    monkeypatch.setattr(record, "_jsonable", lambda content: {"bad": object()})
    with pytest.raises(TypeError):
        results.value("y", 2)
    assert (tmp_path / "results.json").read_bytes() == before


def test_a_further_pages_results_carry_its_name(glued, tmp_path):
    further = Record(tmp_path, page="more")
    further.value("x", 1.0, low=0.0)
    further.text("name", "a pool")
    further.table("numbers", pd.DataFrame({"draw": [0.5]}, index=["a"]))
    assert set(_read(tmp_path)) == {"more/x", "more/table/numbers/a/draw"}
    assert set(glued) == {"more/x", "more/x/low", "more/name"}
