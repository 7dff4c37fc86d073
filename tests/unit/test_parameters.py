"""Wrong parameters are refused by name, with what was found and what was expected."""

from __future__ import annotations

import json
from typing import Literal

import pytest

from replications.uniroute.params import UniRouteParams
from routebook.errors import UserError
from routebook.parameters import ChapterParams, parameter
from routebook.runs import chapters


class Toy(ChapterParams):
    """Parameters of no chapter."""

    CHAPTER = "toy"
    DATASETS = ("simulated",)

    n: int = parameter(3, "a count", paper=300, ge=1, le=1000)
    share: float = parameter(0.5, "a share", gt=0, lt=1)
    sizes: list[int] | None = parameter(None, "sizes", min_length=1)
    mode: Literal["fast", "slow"] = parameter("fast", "a mode")
    text: str = parameter("x", "text", min_length=1)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"n": "many"}, "n: found 'many', expected an integer from 1 to 1000"),
        ({"n": "0"}, "n: found 0, expected an integer from 1 to 1000"),
        ({"n": "1e9"}, "n: found 1000000000.0, expected an integer from 1 to 1000"),
        ({"n": "2.5"}, "n: found 2.5, expected an integer from 1 to 1000"),
        ({"n": "true"}, "n: found True, expected an integer from 1 to 1000"),
        ({"share": "1"}, "share: found 1, expected a number more than 0 and less than 1"),
        ({"share": "NaN"}, "share: found nan"),
        ({"sizes": "3,x"}, "sizes: found '[3,x]', expected a list of integers"),
        ({"sizes": ""}, "sizes: found []"),
        ({"mode": "fsat"}, "mode: found 'fsat', expected one of 'fast', 'slow'; did you mean 'fast'?"),
        ({"text": ""}, "text: found ''"),
        ({"nn": "3"}, "toy has no parameter 'nn'; did you mean 'n'?"),
    ],
)
def test_refusals(texts, said):
    with pytest.raises(UserError) as refused:
        Toy.parse(texts)
    assert said in str(refused.value)
    assert "routebook params toy" in str(refused.value)


@pytest.mark.parametrize(
    ("texts", "name", "value"),
    [
        ({"n": "7"}, "n", 7),
        ({"share": "0.25"}, "share", 0.25),
        ({"sizes": "3,5,8"}, "sizes", [3, 5, 8]),
        ({"sizes": "[3, 5]"}, "sizes", [3, 5]),
        ({"sizes": "4"}, "sizes", [4]),
        ({"sizes": "null"}, "sizes", None),
        ({"text": "123"}, "text", "123"),
        ({"mode": "slow"}, "mode", "slow"),
    ],
)
def test_readings(texts, name, value):
    assert getattr(Toy.parse(texts), name) == value


def test_profiles():
    assert Toy.build({}, "paper").n == 300
    assert Toy.build({"n": 4}, "paper").n == 4
    assert Toy().profile == "quick"
    assert Toy.build({}, "paper").profile == "paper"
    assert Toy.build({"n": 4}).profile == "custom"


def test_a_notebook_with_a_name_papermill_let_through_is_refused():
    namespace = {"n": 3, "In": [], "Out": {}, "_i1": "", "json": json, "print": print, "n_tirals": 5}
    with pytest.raises(UserError, match="no parameter 'n_tirals'"):
        Toy.from_notebook(namespace)
    del namespace["n_tirals"]
    assert Toy.from_notebook(namespace).n == 3
    with pytest.raises(UserError, match="found '3'"):
        Toy.from_notebook({"n": "3"})


def test_notebooks_defaults_are_their_models(root):
    for chapter in chapters(root).values():
        cells = json.loads((root / chapter.notebook).read_text())["cells"]
        tagged = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
        namespace: dict = {}
        for source in tagged:
            exec(source, namespace)
        given = {name: value for name, value in namespace.items() if not name.startswith("_")}
        assert given == chapter.params.profile_values("quick"), chapter.name
        assert chapter.params.build({}, "paper"), "the paper profile must pass its own validation"


def test_uniroute_grids_follow_the_appendix():
    params = UniRouteParams(n_validation=800)
    assert params.clusters_tried == list(range(3, 17))
    assert params.neighbours_tried == [5, 10, 20, 40, 80, 160, 266]
    assert UniRouteParams(n_clusters=1).clusters_tried == [1]
    with pytest.raises(UserError, match="are too many"):
        UniRouteParams.build({"n_neighbours": 500})
