"""OVERRULING, FrugalGPT's legal yes/no task, answered by FrugalGPT's 12 LLM interfaces, in dollars per prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from routebook.benchmark import RoutingBenchmark
from routebook.datasets.cards import Card
from routebook.datasets.files import Place, choose, matrix, read_tables
from routebook.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

TABLE = "overruling.csv.gz"
PREFIX = "fewshot_prefix.txt"
PROMPT_VIEWS = ("question", "full")


def load(card: Card, place: Place, *, prompt_view: str = "question", responses: bool = False) -> RoutingBenchmark:
    """Return OVERRULING.

    Parameters
    ----------
    prompt_view : {"question", "full"}
        ``question`` is the sentence to judge as it was sent (column ``query_tail``); ``full`` puts the five worked
        examples every query began with before it.
    responses
        Whether to load the answers ("Yes" or "No") as well.

    Raises
    ------
    DataError
        Files missing, damaged or with impossible values.
    """
    choose(card.name, "prompt_view", prompt_view, PROMPT_VIEWS)
    tables = read_tables(card, place)
    frame = tables[TABLE]
    prompts = frame["query_tail"].astype(str).tolist()
    if prompt_view == "full":
        prefix = _prefix(card, place)
        prompts = [prefix + tail for tail in prompts]
    file = card.file(TABLE)
    correct, cost, answers = file.groups
    return RoutingBenchmark(
        name=card.name,
        prompts=prompts,
        tasks=np.full(len(frame), "overruling"),
        models=file.models,
        quality=matrix(frame, correct.columns),
        cost=matrix(frame, cost.columns),
        cost_unit=card.cost_unit,
        responses=_answers(frame, answers.columns) if responses else None,
        origin=card.origin,
        quality_kind=card.quality.kind,
        ids=np.char.add("overruling.", frame["source_row"].astype(str).to_numpy(dtype=str)),
        notes=tuple(tables.notes),
    )


def _answers(frame: pd.DataFrame, columns: list[str]) -> np.ndarray:
    return frame[columns].fillna("").to_numpy(dtype=object)


def _prefix(card: Card, place: Place) -> str:
    folder = place.root / card.folders[0]
    try:
        return (folder / PREFIX).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(
            f"{card.name}: file {card.folders[0]}/{PREFIX} is missing from {place.root}, and prompt_view='full' needs "
            f"it; copy it there or use prompt_view='question'"
        ) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{card.name}: {folder / PREFIX} is unreadable ({problem}); copy it again") from None
