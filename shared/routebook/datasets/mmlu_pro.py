"""MMLU-Pro answered by 29 LLMs (TIGER-AI-Lab) and 18 more (Open LLM Leaderboard v2) on the same 12,032 questions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from routebook.benchmark import RoutingBenchmark
from routebook.datasets.cards import Card
from routebook.datasets.files import Place, matrix, read_tables
from routebook.datasets.sizes import parameter_cost
from routebook.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

QUESTIONS, CORRECT = "questions.csv.gz", "correct.csv.gz"
LEADERBOARD, LEADERBOARD_PROMPTS = "correctness_aligned.csv.gz", "prompts.csv.gz"
TASK = "leaderboard_mmlu_pro"


def load(card: Card, place: Place) -> RoutingBenchmark:
    """Return MMLU-Pro with both groups of LLMs, cost in billions of parameters.

    Leaderboard rows are joined by their place in the official order, and only where the question text is equal.
    LLMs of the leaderboard keep their organisation in the name (``mistralai/...``), so that the same model under
    two protocols stays two columns. A leaderboard LLM without any MMLU-Pro result is left out.

    Raises
    ------
    DataError
        Files missing, damaged, with impossible values, or questions and answers that do not belong together.
    """
    tables = read_tables(card, place)
    questions = tables[QUESTIONS]
    prompts = _prompts(card, questions)
    ids = questions["question_id"]
    correct = tables[CORRECT].set_index("question_id")
    if len(correct) != len(ids) or not ids.isin(correct.index).all():
        raise DataError(f"{card.name}: {CORRECT} and {QUESTIONS} hold different question_ids; copy both files again")
    first = card.file(CORRECT).models
    second, quality_2, notes = _leaderboard(card, tables[LEADERBOARD], tables[LEADERBOARD_PROMPTS], prompts)
    models = [*first, *second]
    return RoutingBenchmark(
        name=card.name,
        prompts=prompts,
        tasks=questions["category"].to_numpy(dtype=str),
        models=models,
        quality=np.hstack([matrix(correct.loc[ids], first), quality_2]),
        cost=parameter_cost(models, len(prompts)),
        cost_unit=card.cost_unit,
        origin=card.origin,
        quality_kind=card.quality.kind,
        ids=ids.astype(str).to_numpy(dtype=str),
        notes=(*tables.notes, *notes),
    )


def _prompts(card: Card, questions: pd.DataFrame) -> list[str]:
    prompts = []
    for id_, question, options in zip(
        questions["question_id"], questions["question"], questions["options_json"], strict=True
    ):
        try:
            choices = json.loads(options)
        except (TypeError, ValueError):
            choices = None
        if not isinstance(choices, list):
            raise DataError(
                f"{card.name}: {QUESTIONS}: options_json of question {id_} is {str(options)[:40]!r}, expected a JSON "
                f"list; copy the file again"
            )
        prompts.append("\n".join([str(question), *(f"{chr(65 + i)}. {text}" for i, text in enumerate(choices))]))
    return prompts


def _leaderboard(
    card: Card, aligned: pd.DataFrame, texts: pd.DataFrame, prompts: list[str]
) -> tuple[list[str], np.ndarray, list[str]]:
    """Return the leaderboard's models, their quality on our prompts [N, M2], and notes."""
    models = card.file(LEADERBOARD).models
    items = np.arange(len(prompts))
    labels = aligned[aligned["task"] == TASK].set_index("item")[models].reindex(items)
    text = texts[texts["task"] == TASK].set_index("item")["prompt"].reindex(items)
    same = (text.to_numpy(dtype=object) == np.array(prompts, dtype=object)).astype(bool)
    quality = np.where(same[:, None], matrix(labels, models), np.nan)
    observed = ~np.isnan(quality).all(axis=0)
    notes = []
    if not same.all():
        notes.append(
            f"{int((~same).sum())} questions have another text, or none, in the leaderboard's file: its LLMs count "
            f"as not observed there"
        )
    for model in np.array(models)[~observed]:
        notes.append(f"{model} has no MMLU-Pro result and is left out")
    return [m for m, seen in zip(models, observed, strict=True) if seen], quality[:, observed], notes
