"""AlpacaEval 2: 58 models, the judge's probability that each beats GPT-4-turbo on 805 instructions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from routebook.benchmark import RoutingBenchmark
from routebook.datasets.cards import Card
from routebook.datasets.files import Place, choose, matrix, read_tables
from routebook.datasets.sizes import parameter_cost
from routebook.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

INSTRUCTIONS, WINS, OUTPUTS = "instructions.csv.gz", "v2_weighted_win.csv.gz", "v2_outputs.parquet"
ADVERSARIAL = ("NullModel", "gpt4_gamed")
BASELINE = "gpt4_1106_preview"


def load(card: Card, place: Place, *, adversarial: str = "keep", responses: bool = False) -> RoutingBenchmark:
    """Return AlpacaEval 2, cost in billions of parameters.

    Parameters
    ----------
    adversarial : {"keep", "drop"}
        Whether the two entries made to fool the judge (NullModel, gpt4_gamed) stay in the pool.
    responses
        Whether to load the models' outputs as well.

    Raises
    ------
    DataError
        Files missing, damaged, with impossible values, or instructions and outputs that do not belong together.
    """
    choose(card.name, "adversarial", adversarial, ("keep", "drop"))
    tables = read_tables(card, place, [INSTRUCTIONS, WINS, OUTPUTS] if responses else [INSTRUCTIONS, WINS])
    frame = tables[INSTRUCTIONS]
    ids = frame["instruction_id"]
    wins = tables[WINS].set_index("instruction_id")
    if len(wins) != len(ids) or not ids.isin(wins.index).all():
        raise DataError(f"{card.name}: {WINS} and {INSTRUCTIONS} hold different instruction_ids; copy both files again")
    models = card.file(WINS).models
    quality = matrix(wins.loc[ids], models)
    benchmark = RoutingBenchmark(
        name=card.name,
        prompts=frame["instruction"].astype(str).tolist(),
        tasks=frame["dataset"].to_numpy(dtype=str),
        models=models,
        quality=quality,
        cost=parameter_cost(models, len(ids)),
        cost_unit=card.cost_unit,
        responses=_outputs(card, tables[OUTPUTS], ids, models, ~np.isnan(quality)) if responses else None,
        origin=card.origin,
        quality_kind=card.quality.kind,
        ids=ids.astype(str).to_numpy(dtype=str),
        notes=(*tables.notes, *_remarks(adversarial)),
    )
    return benchmark if adversarial == "keep" else benchmark.subset(models=[m for m in models if m not in ADVERSARIAL])


def _remarks(adversarial: str) -> list[str]:
    who = " and ".join(ADVERSARIAL)
    if adversarial == "drop":
        first = f"{who}, made to fool the judge, are left out"
    else:
        first = f"{who} were made to fool the judge and are in the pool; adversarial='drop' leaves them out"
    return [first, f"{BASELINE} is the baseline the others are compared with: 0.5 throughout"]


def _outputs(card: Card, outputs: pd.DataFrame, ids: pd.Series, models: list[str], judged: np.ndarray) -> np.ndarray:
    """Return the models' outputs, [N, M]; None where there is none, which only an unjudged cell may be."""
    table = outputs.pivot(index="instruction_id", columns="model", values="output").reindex(index=ids, columns=models)
    empty = table.isna().to_numpy()
    if (empty & judged).any():
        row, column = np.argwhere(empty & judged)[0]
        raise DataError(
            f"{card.name}: {OUTPUTS} has no output of {models[column]!r} for instruction {ids.iloc[row]} "
            f"({int((empty & judged).sum())} such cells); copy the file again"
        )
    texts = table.to_numpy(dtype=object)
    texts[empty] = None
    return texts
