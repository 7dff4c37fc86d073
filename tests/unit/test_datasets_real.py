"""The loaders on the real files: known sizes, known means, and prompts cut where they should be."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pytest

from routebook import datasets


@pytest.fixture(autouse=True)
def _strict(monkeypatch):
    monkeypatch.delenv("ROUTEBOOK_ALLOW_MODIFIED", raising=False)


@pytest.fixture(scope="module")
def routerbench(real_data):
    if not datasets.status("routerbench").present:
        pytest.skip("needs routerbench")
    return datasets.load("routerbench", leakage="keep")


@pytest.mark.parametrize(
    ("name", "options", "size", "kind", "unit"),
    [
        ("routerbench", {"leakage": "keep"}, (3178, 11), "binary", "USD per prompt"),
        ("mmlu-pro", {}, (12032, 47), "binary", "billion parameters"),
        ("gsm8k-zeroeval", {}, (1319, 53), "soft", "billion parameters"),
        ("openllm-v2", {}, (17793, 19), "binary", "USD per million tokens"),
        ("openllm-v2", {"prompts": "all"}, (21606, 19), "binary", "USD per million tokens"),
        ("routerdc", {}, (20600, 7), "soft", "billion parameters"),
        ("routerdc", {"split": "test"}, (10121, 7), "soft", "billion parameters"),
        ("overruling", {}, (2160, 12), "binary", "USD per prompt"),
        ("alpaca-eval", {}, (805, 58), "soft", "billion parameters"),
        ("mess-plus", {}, (15054 - 1802, 3), "binary", "joules per prompt"),
    ],
)
def test_published_sizes(real_data, name, options, size, kind, unit):
    if not datasets.status(name).present:
        pytest.skip(f"needs {name}")
    pool = datasets.load(name, **options)
    assert (len(pool), len(pool.models)) == size
    assert (pool.origin, pool.quality_kind, pool.cost_unit) == ("real", kind, unit)
    card = datasets.info(name)
    assert card.models == len(pool.models)
    if not options:
        assert card.prompts == len(pool)


def test_every_present_dataset_passes_its_full_check(real_data):
    present = [name for name in datasets.names() if datasets.status(name).present]
    assert len(present) > 1
    for name in present:
        assert datasets.check(name).startswith(f"{name}: fine")


def test_routerbench_rows_and_means(routerbench):
    sizes = {"arc-challenge": (1039, 445), "mbpp": (299, 128), "winogrande": (887, 380)}
    complete = {"arc-challenge": (1019, 437), "mbpp": (299, 128), "winogrande": (887, 380)}
    # RadialRouter, Table 7 (test accuracy).
    means = {"arc-challenge": (0.6476, 0.9565), "mbpp": (0.3906, 0.6875), "winogrande": (0.5289, 0.8553)}
    for task in sizes:
        mine = routerbench.subset(routerbench.tasks == task)
        whole = mine.complete()
        for pool, expected in ((mine, sizes), (whole, complete)):
            assert tuple(int((pool.split == part).sum()) for part in ("train", "test")) == expected[task]
        test = whole.subset(whole.split == "test")
        for model, mean in zip(("WizardLM/WizardLM-13B-V1.2", "gpt-4-1106-preview"), means[task], strict=True):
            assert test.quality[:, test.models.index(model)].mean() == pytest.approx(mean, abs=5e-5)
    assert routerbench.absent == ("mmlu", "hellaswag", "gsm8k", "mt-bench")


def test_routerbench_leakage(routerbench):
    clean = datasets.load("routerbench")
    train, test = (clean.subset(clean.split == part) for part in ("train", "test"))
    assert len(test) == 445 + 128 + 380
    assert not set(train.ids) & set(test.ids)
    assert not set(train.prompts) & set(test.prompts)
    leaked = len(routerbench) - len(clean)
    assert leaked == 8
    assert f"{leaked} training rows left out" in clean.notes[-1]


def test_routerdc_view_makes_all_arc_test_prompts_one(routerbench):
    pool = datasets.load("routerbench", leakage="keep", prompt_view="first-1400-chars").complete()
    pool = pool.subset(pool.split == "test")
    distinct = {task: set(np.array(pool.prompts, dtype=object)[pool.tasks == task]) for task in set(pool.tasks)}
    counts = {task: (int((pool.tasks == task).sum()), len(texts)) for task, texts in distinct.items()}
    assert counts == {"arc-challenge": (437, 1), "mbpp": (128, 128), "winogrande": (380, 380)}


def _common_start(texts):
    """Characters all texts begin with."""
    first, last = min(texts), max(texts)
    differ = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return next(differ, min(len(first), len(last)))


@pytest.mark.parametrize("task", ["arc-challenge", "mbpp", "winogrande"])
def test_question_view_of_every_source_dataset(routerbench, task):
    full = datasets.load("routerbench", leakage="keep", prompt_view="full")
    rows = np.flatnonzero(routerbench.tasks == task)
    by_full, by_id = defaultdict(set), defaultdict(set)
    for i in rows:
        question, whole = routerbench.prompts[i], full.prompts[i]
        assert whole.endswith(question)
        assert "\n\n" not in question
        assert question.count("Answer:") == (0 if task == "mbpp" else 1)
        if task != "mbpp":
            assert question.endswith("Answer:")
            assert question.count("Print only a single choice") == 1
        by_full[whole].add(question)
        by_id[routerbench.ids[i]].add(question)
    # One question a prompt and a question id, and what is distinct stays so.
    assert all(len(questions) == 1 for questions in [*by_full.values(), *by_id.values()])
    distinct = len({routerbench.prompts[i] for i in rows})
    doubled = sum(whole.count("George wants to warm his hands quickly") > 1 for whole in by_full)
    assert distinct == len(by_full) - doubled
    assert doubled == (14 if task == "arc-challenge" else 0)
    # The worked examples are gone: prompts no longer share their beginning, as they did.
    shared = _common_start([full.prompts[i] for i in rows])
    left = _common_start([routerbench.prompts[i] for i in rows])
    assert left < 5
    assert shared == left if task == "mbpp" else shared > 1200


def test_question_view_equals_the_bare_questions_kept_elsewhere(routerbench, real_data):
    """CSCR's probes are RouterBench prompts without worked examples, for some of the same sample_ids."""
    path = real_data / "cscr-meta" / "probes_routerbench-192.json"
    if not path.is_file():
        pytest.skip("needs cscr-meta")
    import ast

    ours = dict(zip(routerbench.ids, routerbench.prompts, strict=True))
    probes = {p["sample_id"]: ast.literal_eval(p["prompt"]) for p in json.loads(path.read_text(encoding="utf-8"))}
    shared = sorted(set(ours) & set(probes))
    assert len(shared) == 19
    for id_ in shared:
        assert [ours[id_]] == probes[id_]


def test_question_view_of_absent_source_datasets(real_data):
    """The same probes hold two-part prompts of sets that are not in the data folder."""
    path = real_data / "cscr-meta" / "probes_routerbench-192.json"
    if not path.is_file():
        pytest.skip("needs cscr-meta")
    import ast

    from routebook.datasets.prompt_views import full_view, question_views

    probes = [
        (p["sample_id"].split(".")[0], ast.literal_eval(p["prompt"])) for p in json.loads(path.read_text("utf-8"))
    ]
    views = question_views([parts for _, parts in probes], [task for task, _ in probes])
    assert len(set(views)) == len(views)
    for (task, parts), view in zip(probes, views, strict=True):
        assert full_view(parts).endswith(view)
        if task == "grade-school-math":
            assert view == parts[1]
        elif task.startswith("mmlu"):
            assert "Please answer with the letter" not in view
            assert view.endswith("Answer:")
        elif task == "hellaswag":
            assert view == parts[0]


def test_joins_are_complete(real_data):
    for name in ("mmlu-pro", "gsm8k-zeroeval"):
        if not datasets.status(name).present:
            pytest.skip(f"needs {name}")
    mmlu, gsm = datasets.load("mmlu-pro"), datasets.load("gsm8k-zeroeval")
    assert int(np.isnan(mmlu.quality).sum()) == 1713
    assert sum("/" in model for model in mmlu.models) == 18
    assert not any("another text" in note for note in mmlu.notes)
    assert int(np.isnan(gsm.quality).sum()) == 1319 - 681
    assert not any("not observed there" in note for note in gsm.notes)
    # RouteLLM's published accuracies on GSM8K.
    for model, accuracy in (("mistralai/Mixtral-8x7B-Instruct-v0.1", 0.6384), ("gpt-4-1106-preview", 0.8567)):
        assert gsm.quality[:, gsm.models.index(model)].mean() == pytest.approx(accuracy, abs=5e-5)


def test_alpaca_win_rates(real_data):
    if not datasets.status("alpaca-eval").present:
        pytest.skip("needs alpaca-eval")
    pool = datasets.load("alpaca-eval", responses=True)
    assert np.nanmean(pool.quality[:, pool.models.index("claude-2.1")]) == pytest.approx(0.1573, abs=5e-5)
    unjudged = np.isnan(pool.quality)
    assert int(unjudged.sum()) == 10
    assert all((pool.responses[i, j] is None) == unjudged[i, j] for i, j in np.argwhere(unjudged))
