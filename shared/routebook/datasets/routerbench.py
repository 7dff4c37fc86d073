"""RouterBench (Hu et al., 2024): 11 LLMs with the dollars of every call.

Read from `$ROUTEBOOK_DATA` (three source datasets in RouterDC's split) or from the cache after a pull.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from routebook.benchmark import RoutingBenchmark
from routebook.datasets import prompt_views
from routebook.datasets.canonical import read_canonical
from routebook.datasets.cards import Card
from routebook.datasets.files import Place, choose, matrix, read_tables
from routebook.errors import DataError, UserError

if TYPE_CHECKING:
    import pandas as pd

SCORES = "routerbench_0shot_scores.csv.gz"
RESPONSES = "routerbench_0shot_responses.parquet"
LEAKAGE = ("remove", "keep")

# The public sets RouterBench is built on, by the eval_name prefixes its frame uses for them (MT-Bench's is a guess:
# no prompt of it was seen). The full frame also holds small sets of its makers' own, which are not listed.
SOURCES = {
    "mmlu": ("mmlu",),
    "hellaswag": ("hellaswag",),
    "gsm8k": ("grade-school-math", "gsm8k"),
    "winogrande": ("winogrande",),
    "arc-challenge": ("arc-challenge",),
    "mbpp": ("mbpp",),
    "mt-bench": ("mtbench", "mt-bench", "mt_bench"),
}


def load(
    card: Card,
    place: Place,
    *,
    prompt_view: str = "question",
    leakage: str = "remove",
    responses: bool = False,
) -> RoutingBenchmark:
    """Return RouterBench, cost in dollars per prompt.

    Parameters
    ----------
    prompt_view : {"question", "full", "first-1400-chars"}
        What `prompts` holds. ``question`` strips worked examples (see `routebook.datasets.prompt_views`),
        ``full`` keeps them, ``first-1400-chars`` is what RouterDC's public loader keeps of the raw cell.
    leakage : {"remove", "keep"}
        Whether training rows whose question id or question text also occurs in the test split are left out.
    responses
        Whether to load the answers as well.

    Raises
    ------
    DataError
        Files missing, damaged or with impossible values; a prompt that is no list literal.
    """
    choose(card.name, "prompt_view", prompt_view, prompt_views.PROMPT_VIEWS)
    choose(card.name, "leakage", leakage, LEAKAGE)
    if place.kind == "cache":
        if responses:
            raise UserError(f"{card.name}: responses=True needs {RESPONSES} in the data folder: a pull keeps none")
        raw = read_canonical(card, place)
    else:
        raw = _read_folder(card, place, responses)
    questions, views = _views(card, raw, prompt_view)
    benchmark = RoutingBenchmark(
        name=card.name,
        prompts=views,
        tasks=raw.tasks,
        models=raw.models,
        quality=raw.quality,
        cost=raw.cost,
        cost_unit=card.cost_unit,
        split=raw.split,
        responses=raw.responses,
        origin=card.origin,
        quality_kind=card.quality.kind,
        ids=raw.ids,
        absent=absent_sources(raw.tasks),
        notes=raw.notes,
    )
    return _without_leakage(benchmark, questions) if leakage == "remove" else benchmark


def absent_sources(tasks: np.ndarray) -> tuple[str, ...]:
    """Return the public sets RouterBench is built on of which no prompt is here."""
    present = set(tasks.tolist())
    return tuple(
        source for source, prefixes in SOURCES.items() if not any(task.startswith(prefixes) for task in present)
    )


def _read_folder(card: Card, place: Place, responses: bool) -> RoutingBenchmark:
    tables = read_tables(card, place, [SCORES, RESPONSES] if responses else [SCORES])
    frame = tables[SCORES]
    file = card.file(SCORES)
    models = file.models
    return RoutingBenchmark(
        name=card.name,
        prompts=frame["prompt"].astype(str).tolist(),
        tasks=frame["eval_name"].to_numpy(dtype=str),
        models=models,
        quality=matrix(frame, models),
        cost=matrix(frame, file.groups[1].columns),
        cost_unit=card.cost_unit,
        split=frame["split"].to_numpy(dtype=str),
        responses=_responses(card, frame, tables[RESPONSES], models) if responses else None,
        origin=card.origin,
        quality_kind=card.quality.kind,
        ids=frame["sample_id"].to_numpy(dtype=str),
        notes=tuple(tables.notes),
    )


def _responses(card: Card, frame: pd.DataFrame, answers: pd.DataFrame, models: list[str]) -> np.ndarray:
    answers = answers.set_index("row")
    unanswered = frame["row"][~frame["row"].isin(answers.index)]
    if len(unanswered):
        raise DataError(
            f"{card.name}: {RESPONSES} has no row {unanswered.iloc[0]}, which {SCORES} has; copy both files again"
        )
    columns = [f"{model}|model_response" for model in models]
    return answers.loc[frame["row"], columns].to_numpy(dtype=object)


def _views(card: Card, raw: RoutingBenchmark, prompt_view: str) -> tuple[list[str], list[str]]:
    cells = zip(raw.prompts, raw.ids, strict=True)
    parts = [prompt_views.parse_prompt(cell, f"{card.name}: sample_id {id_}") for cell, id_ in cells]
    questions = prompt_views.question_views(parts, raw.tasks.tolist())
    if prompt_view == "question":
        return questions, questions
    if prompt_view == "full":
        return questions, [prompt_views.full_view(p) for p in parts]
    return questions, [cell[: prompt_views.CUT] for cell in raw.prompts]


def _without_leakage(benchmark: RoutingBenchmark, questions: list[str]) -> RoutingBenchmark:
    """Leave out training rows that ask what a test row asks; the question text decides, whatever the view."""
    if benchmark.split is None or not {"train", "test"} <= set(benchmark.split.tolist()):
        return benchmark
    text = np.array(questions, dtype=object)
    test, train = benchmark.split == "test", benchmark.split == "train"
    same_id = train & np.isin(benchmark.ids, benchmark.ids[test])
    same_text = train & np.isin(text, text[test])
    leaked = same_id | same_text
    if not leaked.any():
        return benchmark
    from dataclasses import replace

    note = (
        f"{int(leaked.sum())} training rows left out because the test split asks the same question "
        f"({int(same_id.sum())} by sample_id, {int(same_text.sum())} by text); leakage='keep' keeps them"
    )
    kept = benchmark.subset(~leaked)
    return replace(kept, notes=(*kept.notes, note))
