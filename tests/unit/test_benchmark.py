"""RoutingBenchmark: what it refuses, and that splitting, taking parts of it and hashing it keep what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routebook.benchmark import RoutingBenchmark
from routebook.errors import DataError, UserError

NAN = float("nan")


def make(n=4, m=3, **given):
    """A benchmark of n prompts and m models; every cell of every array differs from the others."""
    cells = np.arange(n * m, dtype=float).reshape(n, m)
    values = {
        "name": "toy",
        "prompts": [f"prompt {i}" for i in range(n)],
        "tasks": [f"task {i % 2}" for i in range(n)],
        "models": [f"model-{j}" for j in range(m)],
        "quality": cells / max(cells.max(), 1),
        "cost": cells + 1,
        "cost_unit": "USD per prompt",
        "split": ["train", "test"] * (n // 2) + ["train"] * (n % 2),
        "responses": np.array([[f"{i} by {j}" for j in range(m)] for i in range(n)], dtype=object),
        "ids": [f"q{i}" for i in range(n)],
        "embeddings": np.arange(n * 2, dtype=float).reshape(n, 2),
        "origin": "made",
    }
    return RoutingBenchmark(**{**values, **given})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": ["a"]}, r"toy: tasks has shape \(1,\), expected \(4,\)"),
        ({"ids": ["a"] * 5}, r"ids has shape \(5,\), expected \(4,\)"),
        ({"split": ["train"]}, r"split has shape \(1,\), expected \(4,\)"),
        ({"quality": np.zeros((3, 4))}, r"quality has shape \(3, 4\), expected \(4, 3\)"),
        ({"cost": np.zeros(3)}, r"cost has shape \(3,\), expected \(4, 3\)"),
        ({"responses": [["a"]]}, r"responses has shape \(1, 1\), expected \(4, 3\)"),
        ({"embeddings": [[1.0], [2.0]]}, r"embeddings have shape \(2, 1\), expected \(4, D\)"),
        ({"embeddings": [1.0] * 4}, r"embeddings have shape \(4,\), expected \(4, D\)"),
        ({"models": ["a", "b", "a"]}, "model 'a' occurs twice"),
        ({"origin": "guessed"}, "origin is 'guessed', expected one of real, made, simulated"),
        ({"quality_kind": "Binary"}, "quality_kind is 'Binary', expected one of binary, soft"),
    ],
)
def test_shapes_and_names_are_checked(wrong, message):
    with pytest.raises(DataError, match=message):
        make(**wrong)


def test_a_benchmark_without_prompts_or_models_is_refused():
    empty = {"split": None, "responses": None, "embeddings": None}
    with pytest.raises(DataError, match="found 0 prompts, 3 models"):
        make(prompts=[], tasks=[], ids=[], quality=np.zeros((0, 3)), cost=np.zeros((0, 3)), **empty)
    with pytest.raises(DataError, match="found 4 prompts, 0 models"):
        make(models=[], quality=np.zeros((4, 0)), cost=np.zeros((4, 0)), **empty)


def _with(array, value):
    changed = np.array(array, dtype=float)
    changed[2, 1] = value
    return changed


@pytest.mark.parametrize(
    ("what", "value", "expected"),
    [
        ("quality", 1.01, r"1.01, expected a number in \[0, 1\]"),
        ("quality", -0.1, r"-0.1, expected a number in \[0, 1\]"),
        ("quality", np.inf, "inf, expected a finite number"),
        ("cost", -1.0, "-1, expected a number >= 0"),
        ("cost", NAN, "nan, expected a price for every prompt"),
        ("cost", np.inf, "inf, expected a price for every prompt"),
    ],
)
def test_impossible_values_are_refused_with_their_place(what, value, expected):
    sound = make()
    with pytest.raises(DataError, match=rf"toy: {what} of model 'model-1' on prompt 'q2' is {expected}.*\(1 such"):
        make(**{what: _with(getattr(sound, what), value)})


def test_soft_quality_may_lie_outside_the_unit_interval_but_not_be_infinite():
    assert make(quality=_with(make().quality, -3.5), quality_kind="soft").quality[2, 1] == -3.5
    with pytest.raises(DataError, match="inf, expected a finite number"):
        make(quality=_with(make().quality, -np.inf), quality_kind="soft")


def test_missing_quality_is_kept_and_complete_rows_leave_it_out():
    benchmark = make(quality=_with(make().quality, NAN))
    assert benchmark.complete_rows.tolist() == [True, True, False, True]
    assert benchmark.complete().ids.tolist() == ["q0", "q1", "q3"]


def test_a_model_without_any_price_can_be_looked_at_and_left_out():
    cost = make().cost.copy()
    cost[:, 1] = NAN
    benchmark = make(cost=cost)
    assert benchmark.unpriced == ["model-1"]
    assert np.isnan(benchmark.mean_cost).tolist() == [False, True, False]
    assert benchmark.priced().models == ["model-0", "model-2"]
    np.testing.assert_array_equal(benchmark.priced().cost, cost[:, [0, 2]])
    assert make().priced().models == make().models
    with pytest.raises(DataError, match="0 models"):
        make(cost=np.full((4, 3), NAN)).priced()


def test_with_cost_takes_one_price_a_model_or_one_a_call():
    per_model = make().with_cost(np.array([1.0, 2.0, 3.0]), "B parameters")
    np.testing.assert_array_equal(per_model.cost, [[1, 2, 3]] * 4)
    assert per_model.cost_unit == "B parameters"
    np.testing.assert_array_equal(make().with_cost(np.ones((4, 3)), "J").cost, np.ones((4, 3)))
    with pytest.raises(DataError, match="expected a number >= 0"):
        make().with_cost(np.array([1.0, -2.0, 3.0]), "J")


@pytest.mark.parametrize("prompts", [[3, 0], np.array([3, 0]), (3, 0)])
def test_subset_takes_prompts_and_models_in_the_order_given(prompts):
    whole = make()
    part = whole.subset(prompts, ["model-2", "model-0"])
    assert part.models == ["model-2", "model-0"]
    assert part.prompts == ["prompt 3", "prompt 0"]
    assert part.ids.tolist() == ["q3", "q0"]
    assert part.tasks.tolist() == ["task 1", "task 0"]
    assert part.split.tolist() == ["test", "train"]
    np.testing.assert_array_equal(part.quality, whole.quality[[3, 0]][:, [2, 0]])
    np.testing.assert_array_equal(part.cost, whole.cost[[3, 0]][:, [2, 0]])
    np.testing.assert_array_equal(part.embeddings, whole.embeddings[[3, 0]])
    assert part.responses.tolist() == [["3 by 2", "3 by 0"], ["0 by 2", "0 by 0"]]
    assert (part.name, part.origin, part.cost_unit) == ("toy", "made", "USD per prompt")


def test_subset_by_mask_and_what_it_refuses():
    whole = make()
    assert whole.subset(np.array([True, False, False, True])).ids.tolist() == ["q0", "q3"]
    with pytest.raises(UserError, match=r"mask has shape \(3,\), expected \(4,\)"):
        whole.subset(np.array([True, False, False]))
    with pytest.raises(UserError, match="no model 'model-9'; did you mean 'model-"):
        whole.subset(models=["model-9"])
    with pytest.raises(DataError, match="found 0 prompts"):
        whole.subset([])
    with pytest.raises(DataError, match="found 0 prompts"):
        whole.subset(whole.tasks == "no such task")
    with pytest.raises(DataError, match="0 models"):
        whole.subset(models=[])


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"origin": "real"},
        {"cost_unit": "EUR per prompt"},
        {"quality_kind": "soft"},
        {"models": ["a", "model-1", "model-2"]},
        {"prompts": ["other", "prompt 1", "prompt 2", "prompt 3"]},
        {"ids": ["other", "q1", "q2", "q3"]},
        {"tasks": ["other", "task 1", "task 0", "task 1"]},
        {"split": ["test"] * 4},
        {"split": None},
        {"quality": _with(make().quality, 0.25)},
        {"quality": _with(make().quality, NAN)},
        {"cost": _with(make().cost, 0.25)},
        {"embeddings": make().embeddings + 1e-12},
        {"embeddings": None},
    ],
    ids=str,
)
def test_digest_changes_with_everything_a_router_can_see(change):
    assert make().digest() == make().digest()
    assert make(**change).digest() != make().digest()


def test_digest_ignores_answers_and_memory_layout():
    assert make(responses=None).digest() == make().digest()
    assert make(quality=np.asfortranarray(make().quality)).digest() == make().digest()


# --- questions that belong together -----------------------------------------------------------------------------


def test_prompts_are_grouped_by_id_or_by_text_and_through_each_other():
    benchmark = make(6, ids=["a", "a", "b", "c", "d", "e"], prompts=["p", "q", "q", "r", "s", "r"])
    # 0-1 share an id, 1-2 a text, so 0-1-2 belong together; 3-5 share a text; 4 stands alone.
    groups = benchmark.question_groups()
    assert len(set(groups[[0, 1, 2]])) == 1
    assert groups[3] == groups[5]
    assert len({groups[0], groups[3], groups[4]}) == 3
    assert sorted(set(groups.tolist())) == [0, 1, 2]


@st.composite
def problems(draw):
    n = draw(st.integers(1, 30))
    labels = st.lists(st.integers(0, draw(st.integers(0, 30))).map(str), min_size=n, max_size=n)
    left, sizes = n, {}
    for part in draw(st.permutations(["train", "validation", "test"]))[: draw(st.integers(1, 3))]:
        sizes[part] = draw(st.integers(0, left))
        left -= sizes[part]
    rest = draw(st.booleans())
    if rest:
        sizes[draw(st.sampled_from(sorted(sizes)))] = -1
    return make(n, ids=draw(labels), prompts=draw(labels)), sizes, draw(st.integers(0, 1000))


@settings(max_examples=200, deadline=None)
@given(problems())
def test_a_split_never_cuts_a_question_group(problem):
    benchmark, sizes, seed = problem
    parts = benchmark.random_split(sizes, np.random.default_rng(seed))
    groups = benchmark.question_groups()
    rows = np.concatenate(list(parts.values()))
    assert set(parts) == set(sizes)
    assert len(set(rows.tolist())) == len(rows), "parts are disjoint"
    owners = [set(groups[part].tolist()) for part in parts.values()]
    assert sum(map(len, owners)) == len(set().union(*owners)), "no group in two parts"
    for part in parts.values():
        assert np.isin(groups, groups[part]).sum() == len(part), "no group is left out in part"
        assert (np.diff(part) > 0).all()
    if -1 in sizes.values():
        assert sorted(rows.tolist()) == list(range(len(benchmark)))
    largest = int(np.bincount(groups).max())
    left = len(benchmark)
    for part, size in sizes.items():
        if size >= 0:
            assert min(size, left) <= len(parts[part]) <= min(size + largest - 1, left) or size == 0 == len(parts[part])
            left -= len(parts[part])
    again = benchmark.random_split(sizes, np.random.default_rng(seed))
    assert all((parts[part] == again[part]).all() for part in sizes)


def test_a_split_of_single_questions_has_exactly_the_sizes_asked_for_and_depends_on_the_seed():
    benchmark = make(100)
    sizes = {"test": 30, "train": -1, "validation": 20}
    first, second = (benchmark.random_split(sizes, np.random.default_rng(seed)) for seed in (0, 1))
    assert {part: len(rows) for part, rows in first.items()} == {"test": 30, "train": 50, "validation": 20}
    assert first["test"].tolist() != second["test"].tolist()


def test_every_prompt_is_as_likely_as_any_other_to_be_drawn():
    benchmark, rng = make(5), np.random.default_rng(0)
    drawn = np.zeros(5)
    for _ in range(2000):
        drawn[benchmark.random_split({"test": 2}, rng)["test"]] += 1
    # Binomial(2000, 0.4) has standard deviation 21.9.
    assert np.abs(drawn - 800).max() < 4.5 * 21.9


def test_a_split_that_cannot_be_made_is_refused():
    with pytest.raises(UserError, match=r"4 prompts, too few .*\(train 3, test 2\)"):
        make().random_split({"train": 3, "test": 2}, np.random.default_rng(0))
    with pytest.raises(UserError, match="only one part"):
        make().random_split({"train": -1, "test": -1}, np.random.default_rng(0))


def test_a_sample_keeps_prompts_once_and_in_their_order():
    whole = make(n=50)
    part = whole.sample(20, seed=3)
    places = [whole.prompts.index(prompt) for prompt in part.prompts]
    assert len(part) == len(set(places)) == 20
    assert places == sorted(places)
    np.testing.assert_array_equal(part.quality, whole.quality[places])
    assert part.prompts == whole.sample(20, seed=3).prompts
    assert part.prompts != whole.sample(20, seed=4).prompts
    assert whole.sample(99, seed=3).prompts == whole.prompts
