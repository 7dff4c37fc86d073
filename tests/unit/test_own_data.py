"""A CSV of one's own becomes a benchmark, and every mistake in it becomes one line that says where and what to do."""

from __future__ import annotations

import numpy as np
import pytest

import routebook
from routebook.benchmark import RoutingBenchmark
from routebook.errors import DataError, UserError
from routebook.own_data import COST_UNITS, from_csv, to_csv

LONG = """prompt,model,quality,cost,task,split
"2 + 2, please",small,1,0.5,sums,train
"2 + 2, please",large,1,2,sums,train
Capital of Peru?,large,1,3,places,test
Capital of Peru?,small,0,0.7,places,test
"""


@pytest.fixture
def write(tmp_path):
    def to_file(text, name="mine.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return to_file


def test_a_long_file_becomes_a_benchmark(write):
    found = routebook.from_csv(write(LONG), "USD per prompt")
    assert (found.name, found.origin, found.cost_unit, found.quality_kind) == (
        "mine",
        "real",
        "USD per prompt",
        "binary",
    )
    assert found.prompts == ["2 + 2, please", "Capital of Peru?"]
    assert found.models == ["small", "large"]
    np.testing.assert_array_equal(found.quality, [[1, 1], [0, 1]])
    np.testing.assert_array_equal(found.cost, [[0.5, 2], [0.7, 3]])
    assert list(found.tasks) == ["sums", "places"]
    assert list(found.split) == ["train", "test"]
    assert found.notes == ()


def test_a_wide_file_says_the_same(write):
    wide = (
        "prompt,task,split,quality:small,quality:large,cost:large,cost:small\n"
        '"2 + 2, please",sums,train,1,1,2,0.5\nCapital of Peru?,places,test,0,1,3,0.7\n'
    )
    assert from_csv(write(wide), "USD per prompt").digest() == from_csv(write(LONG), "USD per prompt").digest()


def test_what_was_not_observed_is_nan_and_costs_its_models_mean(write):
    text = "prompt,model,quality,cost\na,s,1,1\na,l,,4\nb,s,0,3\nb,l,1,6\nc,l,1,8\n"
    found = from_csv(write(text), "USD per prompt")
    np.testing.assert_array_equal(found.quality, [[1, np.nan], [0, 1], [np.nan, 1]])
    np.testing.assert_array_equal(found.cost, [[1, 4], [3, 6], [2, 8]])
    assert found.split is None
    assert set(found.tasks) == {"all"}
    (note,) = found.notes
    assert note.startswith("1 of 6 pairs")


def test_a_wide_file_leaves_out_models_that_were_not_asked(write):
    text = "prompt,quality:s,cost:s,quality:l,cost:l\na,1,1,0,4\nb,0,3,,\n"
    found = from_csv(write(text), "USD per prompt")
    np.testing.assert_array_equal(found.quality, [[1, 0], [0, np.nan]])
    np.testing.assert_array_equal(found.cost, [[1, 4], [3, 4]])


@pytest.mark.parametrize("layout", ["long", "wide"])
def test_prices_stand_in_for_costs(write, layout):
    texts = {"long": "prompt,model,quality\na,s,1\na,l,0\n", "wide": "prompt,quality:s,quality:l\na,1,0\n"}
    found = from_csv(write(texts[layout]), "billion parameters", prices={"s": 7, "l": 70, "unused": 1})
    np.testing.assert_array_equal(found.cost, [[7, 70]])
    with pytest.raises(DataError, match=r"line [23]: prices has no model 'l'"):
        from_csv(write(texts[layout]), "billion parameters", prices={"s": 7})
    with pytest.raises(UserError, match=r"prices\['l'\] is -1, expected a finite number >= 0"):
        from_csv(write(texts[layout]), "billion parameters", prices={"s": 7, "l": -1})


def test_ids_tell_prompts_of_one_text_apart(write):
    text = "id,prompt,model,quality,cost\n1,a,s,1,1\n1,a,l,1,2\n2,a,s,0,1\n2,a,l,1,2\n"
    found = from_csv(write(text), "USD per prompt")
    assert found.prompts == ["a", "a"]
    assert list(found.ids) == ["1", "2"]
    with pytest.raises(DataError, match=r"line 5: prompt is 'b', but 'a' on line 4"):
        from_csv(write(text.replace("2,a,l", "2,b,l")), "USD per prompt")


def test_byte_order_mark_blank_lines_line_breaks_in_quotes_and_other_delimiters_are_read(write):
    text = 'prompt;model;quality;cost\n\n"two\nlines";s;1;1\n"two\nlines";l;1;2\n'
    found = from_csv(write(b"\xef\xbb\xbf" + text.encode()), "USD per prompt", delimiter=";")
    assert found.prompts == ["two\nlines"]
    with pytest.raises(DataError, match="line 5: quality is 'x', expected a number"):
        from_csv(write(text.replace(";l;1;", ";l;x;")), "USD per prompt", delimiter=";")


def test_soft_quality_may_be_any_number(write):
    text = LONG.replace("large,1,3", "large,-2.5,3")
    assert from_csv(write(text), "USD per prompt", quality_kind="soft").quality[1, 1] == -2.5


MISTAKES = {
    "empty": ("", "is empty, expected a header"),
    "header only": ("prompt,model,quality,cost\n", "holds no answers, only a header"),
    "blank lines": (",,\n,,\n", "holds no answers, only blank lines"),
    "missing column": (LONG.replace("quality", "qualty"), "has no column 'quality'; did you mean 'qualty'?"),
    "missing cost column": (LONG.replace(",cost,", ",price,"), r"no column 'cost'.*needs prices=\{model: cost\}"),
    "other delimiter": (LONG.replace(",", ";"), "separated by ';', not ','; give delimiter=';'"),
    "column twice": (LONG.replace("split", "task"), "the column 'task' twice"),
    "short row": (LONG.replace("0,0.7,places,test", "0,0.7"), "line 5: 4 columns, expected 6 as in the header"),
    "open quote": (LONG.replace("Capital of Peru?,small", '"Capital of Peru?,small'), "check the double quotes"),
    "empty prompt": (LONG.replace("Capital of Peru?,large", ",large"), "line 4: the prompt is empty"),
    "no model name": (LONG.replace("?,large", "?, "), "line 4: the model has no name"),
    "words": (LONG.replace("small,0,", "small,wrong,"), "line 5: quality is 'wrong', expected a number$"),
    "decimal comma": (
        LONG.replace("small,1,", 'small,"0,9",'),
        "line 2: quality is '0,9'.*point, not a comma",
    ),
    "infinite": (LONG.replace("small,1,", "small,inf,"), "line 2: quality is 'inf', expected a finite number"),
    "percentages": (LONG.replace("small,1,", "small,95,"), "line 2: quality is 95, .* divide percentages by 100"),
    "missing price": (LONG.replace(",0.7,", ",,"), "line 5: cost of model 'small' is missing; .* never taken for 0"),
    "negative price": (
        LONG.replace(",0.7,", ",-0.7,"),
        "line 5: cost of model 'small' is -0.7, expected .* >= 0",
    ),
    "pair twice": (LONG.replace("?,large", "?,small"), "line 5: model 'small' .* a second time, after line 4"),
    "task changes": (LONG.replace("0.7,places", "0.7,sums"), "line 5: task is 'sums', but 'places' on line 4"),
    "split changes": (
        LONG.replace("0.7,places,test", "0.7,places,dev"),
        "line 5: split is 'dev', but 'test'",
    ),
    "one model": ("prompt,model,quality,cost\na,s,1,1\nb,s,0,1\n", "answers of s only, expected two models"),
    "never observed": ("prompt,model,quality,cost\na,s,1,1\na,l,,1\n", "model 'l' has no quality on any prompt"),
    "no common prompt": ("prompt,model,quality,cost\na,s,1,1\nA,l,1,2\n", "no prompt was answered by two models"),
    "empty id": ("id,prompt,model,quality,cost\n,a,s,1,1\n", "line 2: the id is empty"),
    "wide without cost": ("prompt,quality:s,quality:l,cost:s\na,1,1,1\n", "has no column 'cost:l'"),
    "wide without quality": ("prompt,quality:s,cost:s,cost:l\na,1,1,1\n", "has no column 'quality:l'"),
    "wide missing price": (
        "prompt,quality:s,cost:s,quality:l,cost:l\na,1,,1,2\n",
        "line 2: cost:s of model 's' is missing",
    ),
    "latin-1": (LONG.replace("Peru", "Perú").encode("latin-1"), "line 4: byte 0xfa is not UTF-8.*WINDOWS-1252"),
    "utf-16": (LONG.encode("utf-16"), "line 1: byte 0xff is not UTF-8.*UTF-16"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_in_one_line(write, mistake):
    text, said = MISTAKES[mistake]
    with pytest.raises(DataError, match=said) as caught:
        from_csv(write(text), "USD per prompt")
    message = str(caught.value)
    assert "mine.csv" in message
    assert "\n" not in message


def test_a_path_that_is_no_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv: there is no such file"):
        from_csv(tmp_path / "nowhere.csv", "USD per prompt")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        from_csv(tmp_path, "USD per prompt")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"cost_unit": "USD per prompts"}, "did you mean 'USD per prompt'"),
        ({"cost_unit": "Dollars per prompt"}, "did you mean 'USD per prompt'"),
        ({"cost_unit": "euros"}, "expected one of: USD per prompt"),
        ({"quality_kind": "hard"}, "quality_kind is 'hard', expected one of: binary, soft"),
        ({"delimiter": ", "}, "delimiter is ', ', expected one character"),
    ],
)
def test_a_wrong_argument_is_named(write, arguments, said):
    with pytest.raises(UserError, match=said):
        from_csv(write(LONG), **{"cost_unit": "USD per prompt", **arguments})


def test_a_benchmark_written_and_read_back_is_the_same(tmp_path):
    given = RoutingBenchmark(
        name="round trip",
        prompts=['say "hi",\nplease', "x"],
        tasks=["t", "u"],
        models=["a", "b"],
        quality=[[0.1, np.nan], [1 / 3, 1]],
        cost=[[1e-7, 2], [3, 4]],
        cost_unit="USD per prompt",
        split=["train", "test"],
        origin="made",
        ids=["p1", "p2"],
    )
    path = to_csv(given, tmp_path / "round trip.csv")
    assert from_csv(path, "USD per prompt", origin="made").digest() == given.digest()
    with pytest.raises(UserError, match="model 'b' has no price"):
        to_csv(given.with_cost(np.array([1, np.nan]), "USD per prompt"), tmp_path / "unpriced.csv")


def test_every_unit_of_the_books_own_pools_is_known():
    from routebook import datasets

    units = {datasets.info(name).cost_unit for name in datasets.names()} - {datasets.info("simulated").cost_unit}
    assert units <= set(COST_UNITS)
