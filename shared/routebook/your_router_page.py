"""What the page on a reader's own router and own data computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from routebook import metrics, protocol
from routebook.deferral import DeferralCurve, mean_curve
from routebook.errors import UserError
from routebook.figures import METHODS, Look, Panel, grid_plot
from routebook.own_data import from_csv
from routebook.protocol import Comparison, Factory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from routebook.benchmark import RoutingBenchmark

YOURS = "yours"
LOOKS = {**METHODS, YOURS: Look("Your router", METHODS["learned-map"].colour, "-", "h")}
RIVALS = ("zero-router", "best-single", "k-nn", "k-means", "mlp", "dataset-oracle")
NAMES = {
    "area": "Area",
    "qnc": "QNC, % of the best LLM's cost",
    "peak": "Peak quality",
    "cost-at-peak": "Cost at peak, % of the best LLM's",
}
FORMATS = {"area": "{:.3f}", "qnc": "{:.1f}", "peak": "{:.3f}", "cost-at-peak": "{:.1f}"}
WIDE = (7.2, 4.4)
UNIT = "USD per prompt"
GOOD = "prompt,model,quality,cost\nWhat is 2 + 2?,small,1,0.001\nWhat is 2 + 2?,large,1,0.020\n"
# What went wrong to (the file, what from_csv is called with besides).
MISTAKES: dict[str, tuple[str | bytes, dict[str, Any]]] = {
    "the file is empty": ("", {}),
    "a column is missing": (GOOD.replace("quality", "score"), {}),
    "there are no prices": ("prompt,model,quality\nWhat is 2 + 2?,small,1\n", {}),
    "a price is missing": (GOOD.replace("0.020", ""), {}),
    "prices= lacks a model": (GOOD, {"prices": {"small": 0.001}}),
    "a number is a word": (GOOD.replace("large,1", "large,right"), {}),
    "a decimal comma": (GOOD.replace("0.020", '"0,020"'), {}),
    "quality in percent": (GOOD.replace("large,1", "large,87.5"), {}),
    "a pair occurs twice": (GOOD.replace("large", "small"), {}),
    "no prompt in common": (GOOD.replace("2?,large", "2 ?,large"), {}),
    "one model only": (GOOD.partition("What is 2 + 2?,large")[0], {}),
    "a row is too short": (GOOD.replace("large,1,0.020", "large,1"), {}),
    "separated by semicolons": (GOOD.replace(",", ";"), {}),
    "not UTF-8": (GOOD.replace("What is", "Qué es").encode("latin-1"), {}),
    "an unknown unit": (GOOD, {"cost_unit": "dollars per prompt"}),
}


def compared(factory: Factory, splits: Sequence[protocol.Split]) -> Comparison:
    """Return the reader's router and all references, compared on the same splits."""
    return protocol.compare({YOURS: factory, **protocol.REFERENCES}, splits)


def name(router: str) -> str:
    """Name of a router as readers see it."""
    return LOOKS[router].label


def summary_table(numbers: pd.DataFrame) -> pd.DataFrame:
    """Return `protocol.summary` as shown: one row a router, each number over its interval."""
    shown = {
        NAMES[number]: {
            name(router): protocol.cell(*row, FORMATS[number]) for router, row in part.droplevel("number").iterrows()
        }
        for number, part in numbers.groupby("number", sort=False)
    }
    return pd.DataFrame(shown)


def differences(comparison: Comparison, n_resamples: int) -> pd.DataFrame:
    """Return the reader's router less each rival: area and peak, paired over splits and over the first split's prompts.

    Returns
    -------
    DataFrame
        One row a rival; columns value, low, high under "area", "peak" (over splits) and "area-prompts" (bootstrap).
        BestSingle has one operating point and hence no area.
    """
    rows = {}
    for rival in RIVALS:
        found = {"peak": comparison.difference(YOURS, rival, lambda curve: curve.peak)}
        if rival != "best-single":
            found["area"] = comparison.difference(YOURS, rival, metrics.area)
            found["area-prompts"] = comparison.over_prompts(YOURS, rival, n_resamples=n_resamples)
        rows[rival] = {
            (what, bound): getattr(estimate, attribute)
            for what, estimate in found.items()
            for bound, attribute in (("value", "estimate"), ("low", "low"), ("high", "high"))
        }
    return pd.DataFrame.from_dict(rows, orient="index")[["area", "area-prompts", "peak"]]


def difference_table(differences: pd.DataFrame) -> pd.DataFrame:
    """Return `differences` as shown."""
    names = {"area": "Area, over splits", "area-prompts": "Area, over prompts", "peak": "Peak, over splits"}
    return pd.DataFrame(
        {
            names[what]: {
                f"less {name(rival)}": protocol.cell(*row[what][["value", "low", "high"]], "{:+.3f}")
                for rival, row in differences.iterrows()
            }
            for what in names
        }
    )


def curve_plot(comparison: Comparison, benchmark: RoutingBenchmark) -> Figure:
    """Draw every router's mean deferral curve over splits on a logarithmic axis of cost; crosses are single models."""
    price = np.mean([split.price for split in comparison.splits], axis=0)
    quality = np.mean([np.nanmean(split.test.quality, axis=0) for split in comparison.splits], axis=0)
    low, high = price.min(), price.max()
    grid = (np.geomspace(low, high, 200) - low) / (high - low)
    lines = {router: _line(comparison.of(router), grid, low, high) for router in comparison.curves[0]}
    panel = Panel("", lines, f"Mean cost ({benchmark.cost_unit})", points=list(zip(price, quality, strict=True)))
    figure = grid_plot([panel], ylabel="Mean quality on test prompts", logx=True, looks=LOOKS)
    figure.set_size_inches(WIDE)
    return figure


def _line(curves: Sequence[DeferralCurve], grid: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Return one router's mean curve on absolute cost, or its mean point where every curve is one point."""
    if all(len(curve) == 1 for curve in curves):
        return np.array([np.mean([c.cost[0] for c in curves])]), np.array([np.mean([c.quality[0] for c in curves])])
    mean = mean_curve(curves, np.clip(grid, 0, 1))
    return low + mean.relative_cost * (high - low), mean.quality


def mistake_table(folder: Path, mistakes: Mapping[str, tuple[str | bytes, dict[str, Any]]] = MISTAKES) -> pd.DataFrame:
    """Make every mistake in a file of its own, and return what `from_csv` says to each.

    Raises
    ------
    ValueError
        When a mistake is not noticed.
    """
    said = {}
    for what, (text, arguments) in mistakes.items():
        path = folder / "mine.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        try:
            from_csv(path, **{"cost_unit": UNIT, **arguments})
        except UserError as error:
            said[what] = escape(str(error).replace(str(path), path.name))
        else:
            raise ValueError(f"from_csv does not notice that {what}")
    return pd.DataFrame({"what it says": said})
