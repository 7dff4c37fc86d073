"""RouterDC's own data (Chen et al., 2024): 7 open LLMs with soft scores on ten source datasets."""

from __future__ import annotations

import numpy as np

from routebook.benchmark import RoutingBenchmark
from routebook.datasets.cards import Card
from routebook.datasets.files import Place, choose, matrix, read_tables
from routebook.datasets.sizes import parameter_cost

TABLE = "routerdc_7llm.csv.gz"
SPLITS = ("all", "train", "test", "ood")


def load(card: Card, place: Place, *, split: str = "all") -> RoutingBenchmark:
    """Return RouterDC's questions, cost in billions of parameters.

    Parameters
    ----------
    split : {"all", "train", "test", "ood"}
        Which part to keep. ``ood`` holds the source datasets RouterDC used out of distribution only.

    Raises
    ------
    DataError
        Files missing, damaged or with impossible values.
    """
    choose(card.name, "split", split, SPLITS)
    tables = read_tables(card, place)
    frame = tables[TABLE]
    asked_in_training = set(frame["question"][frame["split"] == "train"])
    both = int(frame["question"][frame["split"] == "test"].isin(asked_in_training).sum())
    if split != "all":
        frame = frame[frame["split"] == split]
    models = card.file(TABLE).models
    notes = [*tables.notes]
    if both:
        notes.append(f"{both} test questions also occur in the training split and are kept")
    return RoutingBenchmark(
        name=card.name,
        prompts=frame["question"].astype(str).tolist(),
        tasks=frame["dataset"].to_numpy(dtype=str),
        models=models,
        quality=matrix(frame, models),
        cost=parameter_cost(models, len(frame)),
        cost_unit=card.cost_unit,
        split=frame["split"].to_numpy(dtype=str),
        origin=card.origin,
        quality_kind=card.quality.kind,
        ids=np.char.add("routerdc.", frame["row"].astype(str).to_numpy(dtype=str)),
        notes=tuple(notes),
    )
