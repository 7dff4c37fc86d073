"""The 1,319 GSM8K test questions answered by 44 LLMs (ZeroEval), 7 (RouterDC) and 2 (RouteLLM)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from routebook.benchmark import RoutingBenchmark
from routebook.datasets.cards import Card
from routebook.datasets.files import Place, matrix, read_tables
from routebook.datasets.sizes import parameter_cost
from routebook.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

QUESTIONS, CORRECT = "gsm_questions.csv.gz", "gsm_correct.csv.gz"
ROUTERDC, ROUTELLM = "routerdc_7llm.csv.gz", "gsm8k.csv.gz"


def load(card: Card, place: Place) -> RoutingBenchmark:
    """Return GSM8K with the three groups of LLMs, cost in billions of parameters.

    Quality is soft, as RouterDC's seven LLMs are scored by the share of ten samples that are right. Rows of the
    other two sources are joined by the question's text; a question whose text they do not have is not observed.

    Raises
    ------
    DataError
        Files missing, damaged, with impossible values, or questions and answers that do not belong together.
    """
    tables = read_tables(card, place)
    questions = tables[QUESTIONS]
    ids = questions["id"]
    correct = tables[CORRECT].set_index("id")
    if len(correct) != len(ids) or not ids.isin(correct.index).all():
        raise DataError(f"{card.name}: {CORRECT} and {QUESTIONS} hold different ids; copy both files again")
    prompts = questions["question"].astype(str).tolist()
    groups = [(card.file(CORRECT).models, matrix(correct.loc[ids], card.file(CORRECT).models))]
    notes = list(tables.notes)
    routerdc = tables[ROUTERDC]
    routerdc = routerdc[(routerdc["dataset"] == "gsm8k") & (routerdc["split"] == "test")]
    for name, frame, column in ((ROUTERDC, routerdc, "question"), (ROUTELLM, tables[ROUTELLM], "prompt")):
        models = card.file(name).models
        quality, matched = _joined(frame, column, models, prompts)
        groups.append((models, quality))
        if matched < len(prompts):
            notes.append(
                f"{len(prompts) - matched} questions are not in {name}: its {len(models)} LLMs are not observed there"
            )
    contaminated = set(tables[ROUTELLM]["prompt"][tables[ROUTELLM]["contaminated"].astype(bool)])
    listed = sum(prompt in contaminated for prompt in prompts)
    notes.append(f"{listed} questions are on RouteLLM's list of contaminated prompts and are kept")
    models = [model for group, _ in groups for model in group]
    return RoutingBenchmark(
        name=card.name,
        prompts=prompts,
        tasks=np.full(len(prompts), "gsm8k"),
        models=models,
        quality=np.hstack([quality for _, quality in groups]),
        cost=parameter_cost(models, len(prompts)),
        cost_unit=card.cost_unit,
        split=np.full(len(prompts), "test"),
        origin=card.origin,
        quality_kind=card.quality.kind,
        ids=ids.to_numpy(dtype=str),
        notes=tuple(notes),
    )


def _joined(frame: pd.DataFrame, column: str, models: list[str], prompts: list[str]) -> tuple[np.ndarray, int]:
    """Return the models' quality on our prompts, joined by equal text [N, M2], and how many prompts matched."""
    by_text = frame.drop_duplicates(column).set_index(column)[models].reindex(prompts)
    return matrix(by_text, models), int(by_text.index.isin(frame[column]).sum())
