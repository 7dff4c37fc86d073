"""Many methods on many blocks: Friedman's test, Nemenyi's critical difference, and the diagram that shows both.

Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006), Sections 3.2.2 and 3.2.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from routebook.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEVEL = 0.05
# Vertical room of a method's name in the diagram, in inches.
LINE = 0.24


@dataclass(frozen=True)
class Ranking:
    """Methods ranked in blocks.

    Attributes
    ----------
    mean_ranks : Series
        Mean rank of each method, 1 = the largest value in every block; from best to worst.
    n_blocks : int
    statistic, p_value : float
        Friedman's chi-squared, corrected for ties.
    difference : float
        Nemenyi's critical difference of mean ranks.
    level : float
        Of both tests.
    """

    mean_ranks: pd.Series
    n_blocks: int
    statistic: float
    p_value: float
    difference: float
    level: float = LEVEL

    @property
    def rejected(self) -> bool:
        """Whether Friedman's test rejects that all methods are alike; only then is the critical difference used."""
        return bool(self.p_value < self.level)

    @property
    def like_the_best(self) -> list[str]:
        """Methods that are not told apart from the one with the best mean rank, itself first."""
        return self._from(0)

    @property
    def cliques(self) -> list[list[str]]:
        """Largest groups of methods that are not told apart from one another, each from best to worst."""
        found: list[list[str]] = []
        for start in range(len(self.mean_ranks)):
            group = self._from(start)
            if not found or group[-1] != found[-1][-1]:
                found.append(group)
        return [group for group in found if len(group) > 1]

    def _from(self, start: int) -> list[str]:
        ranks = self.mean_ranks.iloc[start:]
        if self.rejected:
            ranks = ranks[ranks <= ranks.iloc[0] + self.difference]
        return list(ranks.index)


def critical_difference(n_methods: int, n_blocks: int, level: float = LEVEL) -> float:
    """Return Nemenyi's critical difference of mean ranks: q sqrt(k (k + 1) / 6 N) (Demšar, Section 3.2.2)."""
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - level, n_methods, np.inf)) / np.sqrt(2)
    return float(q * np.sqrt(n_methods * (n_methods + 1) / (6 * n_blocks)))


def ranking(blocks: pd.DataFrame, level: float = LEVEL) -> Ranking:
    """Rank methods in every block and test whether they differ.

    Parameters
    ----------
    blocks : DataFrame
        One row a block, one column a method; larger is better. Of equal values each gets the mean of their ranks.
    level

    Raises
    ------
    UserError
        When a value is missing, or there are fewer than three methods or two blocks.
    """
    from scipy.stats import friedmanchisquare

    n, k = blocks.shape
    if k < 3 or n < 2:
        raise UserError(f"blocks has {n} rows and {k} columns, expected two blocks and three methods at least")
    if blocks.isna().to_numpy().any():
        block, method = np.argwhere(blocks.isna().to_numpy())[0]
        raise UserError(
            f"{blocks.columns[method]} has no value in block {blocks.index[block]}; leave out the method or the block"
        )
    ranks = blocks.rank(axis=1, ascending=False).mean().sort_values(kind="stable")
    test = friedmanchisquare(*blocks.to_numpy().T)
    return Ranking(ranks, n, float(test.statistic), float(test.pvalue), critical_difference(k, n, level), level)


def rank_plot(rankings: Mapping[str, Ranking]) -> Figure:
    """Draw a critical-difference diagram for each ranking, one below another, its name above it.

    Methods stand at their mean ranks, the best on the left; a bar joins those that are not told apart.
    """
    import matplotlib.pyplot as plt

    from routebook.figures import INK, style

    rows = [_rows(ranking) for ranking in rankings.values()]
    with style():
        figure, grid = plt.subplots(
            len(rankings), 1, figsize=(7.2, LINE * sum(rows)), squeeze=False, height_ratios=rows
        )
        for axes, (name, found), height in zip(grid[:, 0], rankings.items(), rows, strict=True):
            _draw(axes, found, height)
            axes.annotate(name, (0.5, 1.0), xycoords="axes fraction", ha="center", va="bottom", color=INK)
        figure.tight_layout()
    return figure


def _rows(found: Ranking) -> int:
    """Lines of text that a diagram takes: names on two sides, bars, the axis, the critical difference."""
    return (len(found.mean_ranks) + 1) // 2 + max(len(found.cliques), 1) // 2 + 6


def _draw(axes: Axes, found: Ranking, height: int) -> None:
    from routebook.figures import INK, METHODS, label

    ranks, k = found.mean_ranks, len(found.mean_ranks)
    axes.set(xlim=(1 - 0.45 * k, k + 0.45 * k), ylim=(-height + 3, 3))
    axes.set_axis_off()
    axes.plot([1, k], [0, 0], color=INK, lw=1)
    for tick in range(1, k + 1):
        axes.plot([tick, tick], [0, 0.25], color=INK, lw=1)
        axes.text(tick, 0.35, str(tick), ha="center", va="bottom", fontsize=9.5, color=INK)
    axes.plot([1, 1 + found.difference], [1.7, 1.7], color=INK, lw=1.4, marker="|", ms=7)
    axes.text(1 + found.difference + 0.1, 1.7, f"critical difference {found.difference:.2f}", va="center", fontsize=9.5)
    for i, group in enumerate(found.cliques):
        y = -0.45 - 0.4 * i
        axes.plot([ranks[group[0]] - 0.06, ranks[group[-1]] + 0.06], [y, y], color=INK, lw=3.2, solid_capstyle="butt")
    below = -0.7 - 0.4 * len(found.cliques)
    half = (k + 1) // 2
    for i, (method, rank) in enumerate(ranks.items()):
        left = i < half
        y = below - 0.6 - (i if left else k - 1 - i)
        end = 1 - 0.06 * k if left else k + 0.06 * k
        colour = METHODS[method].colour
        axes.plot([rank, rank, end], [0, y, y], color=colour, lw=1.2)
        text = f"{label(method)}  {rank:.1f}" if left else f"{rank:.1f}  {label(method)}"
        side = {"ha": "right"} if left else {"ha": "left"}
        axes.text(end + (-0.1 if left else 0.1), y, text, va="center", fontsize=9.5, color=colour, **side)
