"""Open LLM Leaderboard v2 (from CARROT's public data, row order repaired): 19 open LLMs, prices per million tokens."""

from __future__ import annotations

import numpy as np

from routebook.benchmark import RoutingBenchmark
from routebook.datasets.cards import Card
from routebook.datasets.files import Place, choose, matrix, read_tables
from routebook.errors import DataError, suggest

LABELS, PROMPTS, PRICES = "correctness_aligned.csv.gz", "prompts.csv.gz", "prices.csv"
CHOICES = ("with-text", "all")


def load(card: Card, place: Place, *, prompts: str = "with-text") -> RoutingBenchmark:
    """Return the leaderboard's aligned labels, cost in dollars per million tokens of each LLM.

    Parameters
    ----------
    prompts : {"with-text", "all"}
        Whether to keep only the 25 tasks whose prompt texts are here. With ``all`` the other prompts read
        ``"<task> item <n> (text not available)"``, which tells an encoder the task and nothing more.

    Raises
    ------
    DataError
        Files missing, damaged, with impossible values, or an LLM without a price.
    """
    choose(card.name, "prompts", prompts, CHOICES)
    tables = read_tables(card, place)
    labels = tables[LABELS].merge(tables[PROMPTS][["task", "item", "prompt"]], on=["task", "item"], how="left")
    without = labels["prompt"].isna()
    if prompts == "with-text":
        labels = labels[~without].reset_index(drop=True)
        note = f"{int(without.sum()):,} items without prompt text left out; prompts='all' keeps them"
    else:
        stand_in = labels["task"] + " item " + labels["item"].astype(str) + " (text not available)"
        labels["prompt"] = labels["prompt"].where(~without, stand_in)
        note = f"{int(without.sum()):,} items have a stand-in for their prompt text, which is not available"
    models = card.file(LABELS).models
    prices = tables[PRICES].set_index("model")["usd_per_million_tokens"]
    for model in models:
        if model not in prices.index:
            near = suggest(model, [name for name in prices.index if name not in models])
            raise DataError(
                f"{card.name}: {PRICES} has no price for {model!r}{near or ';'} a missing price is never taken for 0: "
                f"add a row for it"
            )
    return RoutingBenchmark(
        name=card.name,
        prompts=labels["prompt"].astype(str).tolist(),
        tasks=labels["task"].to_numpy(dtype=str),
        models=models,
        quality=matrix(labels, models),
        cost=np.tile(prices.loc[models].to_numpy(dtype=float), (len(labels), 1)),
        cost_unit=card.cost_unit,
        origin=card.origin,
        quality_kind=card.quality.kind,
        ids=(labels["task"] + "." + labels["item"].astype(str)).to_numpy(dtype=str),
        notes=(*tables.notes, note),
    )
