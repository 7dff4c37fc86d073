"""What the benchmarks page shows of a dataset: its card and its models' quality against cost."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from routebook import datasets, figures
from routebook.benchmark import RoutingBenchmark

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def load_present(name: str) -> RoutingBenchmark | None:
    """Return a dataset with its loader's defaults, or None where it is not present."""
    return datasets.load(name) if datasets.status(name).present else None


def card_table(name: str, benchmark: RoutingBenchmark | None) -> pd.DataFrame:
    """Return a dataset's card as a table of two columns: provenance, licence, units, size, oddities."""
    card = datasets.info(name)
    rows = {
        "origin": card.origin,
        "source": f"{card.provenance.source} {card.provenance.commit[:12]}",
        "licence": card.licence,
        "quality": card.quality.meaning,
        "cost": f"{card.cost_unit}: {card.cost_meaning}",
    }
    if benchmark is None:
        rows["here"] = "not present in this copy of the book"
    else:
        missing = np.isnan(benchmark.quality).sum()
        rows["here"] = (
            f"{len(benchmark):,} prompts × {len(benchmark.models)} LLMs, {len(set(benchmark.tasks))} source datasets; "
            f"{missing:,} answers not observed"
        )
        if benchmark.absent:
            rows["not here"] = ", ".join(benchmark.absent)
        if benchmark.unpriced:
            rows["without a price"] = ", ".join(benchmark.unpriced)
    rows["to know"] = " ".join(card.oddities)
    frame = pd.DataFrame({name: {key: escape(value) for key, value in rows.items()}})
    frame.columns = [card.title]
    return frame


def accuracy_cost_plot(name: str, benchmark: RoutingBenchmark | None) -> Figure:
    """Draw the mean quality of each priced LLM against its mean cost; for an absent dataset, a line saying so."""
    if benchmark is None:
        return figures.absent_plot(f"{name} is not present in this copy of the book")
    priced = benchmark.priced()
    frame = pd.DataFrame(
        {
            "model": [model.split("/")[-1] for model in priced.models],
            "cost": priced.mean_cost,
            "quality": np.nanmean(priced.quality, axis=0),
        }
    )
    spread = frame["cost"].max() / frame["cost"].min()
    return figures.scatter_plot(
        frame, xlabel=f"Mean cost ({priced.cost_unit})", ylabel="Mean quality", logx=bool(spread > 20)
    )


def hub_table() -> pd.DataFrame:
    """Return the datasets `routebook data pull` fetches: hub id, licence, whether present, and what was not tried."""
    cards = {name: datasets.info(name) for name in datasets.names()}
    rows = {
        f"routebook data pull {name}": {
            "hub id": card.hub.id,
            "licence": escape(card.licence),
            "present": "yes" if datasets.status(name).present else "no",
            "to know": escape(card.hub.statement),
        }
        for name, card in cards.items()
        if card.hub
    }
    return pd.DataFrame.from_dict(rows, orient="index")
