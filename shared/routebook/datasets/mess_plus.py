"""MESS+ inference logs: 3 Llama models on 9 benchmarks with the energy each call took, in joules per prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from routebook.benchmark import RoutingBenchmark
from routebook.datasets.cards import Card, read_card
from routebook.datasets.files import Place, locate, matrix, read_tables

if TYPE_CHECKING:
    import pandas as pd

TABLE = "mess_plus.csv.gz"

# The logs say small, medium and large; which models these were is in the logging repository's configuration.
MODELS = {
    "small": "Llama-3.2-1B-Instruct",
    "medium": "Llama-3.1-8B-Instruct-4bit",
    "large": "Llama-3.3-70B-Instruct-4bit",
}


def load(card: Card, place: Place) -> RoutingBenchmark:
    """Return the MESS+ logs, one row a question: of rows that repeat a (benchmark, doc_id) the first is kept.

    Raises
    ------
    DataError
        Files missing, damaged or with impossible values.
    """
    frame, notes = _questions(card, place)
    sizes = list(MODELS)
    return RoutingBenchmark(
        name=card.name,
        prompts=frame["input_text"].astype(str).tolist(),
        tasks=frame["benchmark_name"].to_numpy(dtype=str),
        models=list(MODELS.values()),
        quality=matrix(frame, [f"label_{size}" for size in sizes]),
        cost=matrix(frame, [f"energy_consumption_{size}" for size in sizes]),
        cost_unit=card.cost_unit,
        origin=card.origin,
        quality_kind=card.quality.kind,
        ids=(frame["benchmark_name"] + "." + frame["doc_id"].astype(str)).to_numpy(dtype=str),
        notes=notes,
    )


def inference_seconds() -> np.ndarray:
    """Return how long each call took, in seconds, [N, M]: rows and columns as in `load`.

    Raises
    ------
    DataError
        Files missing, damaged or with impossible values.
    """
    card = read_card("mess-plus")
    frame, _ = _questions(card, locate(card))
    return matrix(frame, [f"inference_time_{size}" for size in MODELS])


def _questions(card: Card, place: Place) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the logs without the rows that repeat a question, and what was left out."""
    tables = read_tables(card, place)
    frame = tables[TABLE]
    repeats = frame.duplicated(["benchmark_name", "doc_id"])
    notes = [*tables.notes]
    if repeats.any():
        notes.append(f"{int(repeats.sum()):,} rows that repeat a (benchmark, doc_id) left out; the first is kept")
    return frame[~repeats], tuple(notes)
