"""Which of RadialRouter's published numbers are those of a lookup: one LLM for each source dataset.

All accuracies are compared as the integers the paper prints, in ten-thousandths, so that nothing hangs on binary
fractions. Table 7 gives the accuracy of each LLM on each dataset but its cost only as a mean; where the cost on one
dataset is needed it is passed in, in dollars per 1,000 prompts (`costs_per_thousand` computes it from RouterBench).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from routebook.errors import UserError
from routebook.ledger import Cell, read_cells

if TYPE_CHECKING:
    import pandas as pd

    from routebook.benchmark import RoutingBenchmark

Table = Mapping[tuple[str, str], Cell]
Tables = Mapping[str, Table]
Costs = Mapping[tuple[str, str], float]
Assignment = Mapping[str, str]

# Column of Tables 7 and 9, in the paper's order, to the name of the source dataset.
DATASETS = {
    "GSM8K": "gsm8k",
    "Hellaswag": "hellaswag",
    "MBPP": "mbpp",
    "MMLU": "mmlu",
    "winograde": "winogrande",
    "ARC": "arc-challenge",
}
# Row of Table 7 to the LLM's name in RouterBench.
LLMS = {
    "WizardLM-13B-V1.2": "WizardLM/WizardLM-13B-V1.2",
    "claude-instant-v1": "claude-instant-v1",
    "claude-v1": "claude-v1",
    "claude-v2": "claude-v2",
    "gpt-3.5-turbo-1106": "gpt-3.5-turbo-1106",
    "gpt-4-1106-preview": "gpt-4-1106-preview",
    "code-llama-34b-chat": "meta/code-llama-instruct-34b-chat",
    "llama-2-70b-chat": "meta/llama-2-70b-chat",
    "mistral-7b-chat": "mistralai/mistral-7b-chat",
    "mixtral-8x7b-chat": "mistralai/mixtral-8x7b-chat",
    "Yi-34B-Chat": "zero-one-ai/Yi-34B-Chat",
}
METHODS = ("CosineClassifier", "HybridLLM", "FrugalGPT", "RouterDC", "GraphRouter", "RadialRouter")
ALPHAS = ("0", "0.01", "0.02", "0.05", "0.1")
SCENARIOS = {"Performance First": "0", "Balance": "0.02", "Cost First": "0.1"}  # Section 4.3

# Half a unit in the last of four digits: how far a printed accuracy may lie from the one it was rounded from.
_HALF = 0.5
_ROUNDING = 1e-9


@lru_cache(maxsize=1)
def published() -> Tables:
    """Return every published table of the paper, by file name without its ending."""
    folder = Path(__file__).parent / "published"
    return {path.stem: read_cells(path) for path in sorted(folder.glob("*.csv"))}


def value(table: Table, row: str, column: str) -> float:
    """Return a published number."""
    number = table[row, column].value
    if number is None:
        raise ValueError(f"{row}, {column}: no number is printed")
    return number


def units(cell: Cell) -> int:
    """Return an accuracy in ten-thousandths."""
    return round(10_000 * cell.value)


def row_of(method: str, alpha: str) -> str:
    """Return the label of a row of Table 9."""
    return f"{method} | alpha={alpha}"


def slug(llm: str) -> str:
    """Return an LLM's name as it stands in result keys, such as ``table-7/mbpp/yi-34b-chat``."""
    return llm.lower()


# ----------------------------------------------------------------------------------------------------- Table 9


@dataclass(frozen=True)
class Match:
    """One accuracy of Table 9 and the LLMs of Table 7 that have it.

    Attributes
    ----------
    exact, near
        LLMs whose accuracy on this dataset is printed with the same digits, or differs by one in the last.
    """

    method: str
    alpha: str
    dataset: str
    printed: str
    exact: tuple[str, ...]
    near: tuple[str, ...]

    @property
    def llms(self) -> tuple[str, ...]:
        """LLMs equal exactly, or else up to the last digit."""
        return self.exact or self.near


def find_matches(tables: Tables | None = None) -> list[Match]:
    """Compare every accuracy of Table 9 with the eleven of the same dataset in Table 7."""
    tables = tables or published()
    found = []
    for method, alpha, column in itertools.product(METHODS, ALPHAS, DATASETS):
        cell = tables["table-9"][row_of(method, alpha), column]
        distance = {llm: abs(units(cell) - units(tables["table-7"][llm, column])) for llm in LLMS}
        exact, near = (tuple(llm for llm in LLMS if distance[llm] == digit) for digit in (0, 1))
        found.append(Match(method, alpha, column, cell.printed, exact, near))
    return found


def matches(tables: Tables | None = None) -> pd.DataFrame:
    """Return one row an accuracy of Table 9: which LLMs of Table 7 have it.

    Returns
    -------
    DataFrame, [180]
        Columns method, alpha (float), dataset, printed, exact, near (LLMs, joined by " or "), one_llm (whether any).
    """
    import pandas as pd

    rows = [
        {
            "method": match.method,
            "alpha": float(match.alpha),
            "dataset": match.dataset,
            "printed": match.printed,
            "exact": " or ".join(match.exact),
            "near": " or ".join(match.near),
            "one_llm": bool(match.llms),
        }
        for match in find_matches(tables)
    ]
    return pd.DataFrame(rows)


def match_share(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the share of the six accuracies that are one LLM's, methods by α: the heat map's numbers."""
    share = frame.pivot_table(index="method", columns="alpha", values="one_llm", aggfunc="mean", observed=True)
    return share.loc[list(METHODS)]


def match_counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return, for each method, how many of its thirty accuracies are one LLM's.

    Returns
    -------
    DataFrame, indexed by method
        Columns exact, last digit, in all, of, and one a dataset (of 5).
    """
    exact = frame["exact"].ne("")
    by_method = frame.assign(exact=exact, near=frame["one_llm"] & ~exact).groupby("method")
    counted = by_method.agg(
        **{
            "exact": ("exact", "sum"),
            "last digit": ("near", "sum"),
            "in all": ("one_llm", "sum"),
            "of": ("one_llm", "size"),
        }
    )
    by_dataset = frame.pivot_table(index="method", columns="dataset", values="one_llm", aggfunc="sum")
    return counted.join(by_dataset[list(DATASETS)].astype(int)).loc[list(METHODS)]


def questions(column: str, tables: Tables | None = None, at_most: int = 1000) -> int | None:
    """Return the number of test questions of a dataset, read off the digits of Table 7.

    An accuracy is a whole number of questions over their number. The answer is the least number for which this holds
    for ten of the eleven LLMs to all printed digits (one may be a misprint); None where it is above `at_most`, where
    four digits tell nothing.
    """
    table = (tables or published())["table-7"]
    return _least_number(tuple(units(table[llm, column]) for llm in LLMS), at_most)


@lru_cache(maxsize=64)
def _least_number(printed: tuple[int, ...], at_most: int) -> int | None:
    numbers = np.arange(2, at_most + 1)[:, None]
    nearest = np.round(np.array(printed) * numbers / 10_000) / numbers * 10_000
    fits = (np.abs(nearest - printed) <= _HALF + _ROUNDING).sum(axis=1) >= len(printed) - 1
    return int(numbers[fits.argmax(), 0]) if fits.any() else None


def chance_of_match(column: str, tables: Tables | None = None) -> float:
    """Return how often an accuracy drawn at random is one LLM's, up to the last digit.

    Drawn evenly from the accuracies that the number of questions allows between the worst and the best LLM; where the
    number is not known, from all that four digits can print.
    """
    table = (tables or published())["table-7"]
    printed = np.array([units(table[llm, column]) for llm in LLMS])
    number = questions(column, tables)
    steps = np.arange(10_001) if number is None else np.round(10_000 * np.arange(number + 1) / number)
    steps = steps[(steps >= printed.min() - 1) & (steps <= printed.max() + 1)]
    return float((np.abs(steps[:, None] - printed) <= 1).any(axis=1).mean())


# ----------------------------------------------------------------------------------------------- best lookups


def costs_per_thousand(benchmark: RoutingBenchmark) -> dict[tuple[str, str], float]:
    """Return the mean dollars of 1,000 prompts for each source dataset that is here and each LLM.

    Returns
    -------
    dict of (column of Table 7, row of Table 7) to float
    """
    from routebook.datasets.routerbench import SOURCES

    if not benchmark.cost_unit.startswith("USD"):
        raise UserError(f"{benchmark.name}: cost_unit is {benchmark.cost_unit!r}, expected dollars per prompt")
    costs = {}
    for column, source in DATASETS.items():
        rows = np.array([task.startswith(SOURCES[source]) for task in benchmark.tasks.tolist()])
        if rows.any():
            mean = 1000 * np.nanmean(benchmark.cost[rows], axis=0)
            costs |= {(column, llm): float(mean[benchmark.models.index(name)]) for llm, name in LLMS.items()}
    return costs


def lookup_cost(assignment: Assignment, costs: Costs | None = None, tables: Tables | None = None) -> float:
    """Return the mean cost of a lookup over the six datasets, in dollars per 1,000 prompts.

    From Table 7's mean of one LLM and, for every dataset that goes to another, the difference between the two on it.

    Parameters
    ----------
    assignment : mapping of dataset (column of Table 7) to LLM
    costs : mapping of (dataset, LLM) to dollars per 1,000 prompts, optional

    Returns
    -------
    float
        NaN where a cost that is needed was not given.
    """
    table = (tables or published())["table-7"]
    costs = costs or {}
    for base in dict.fromkeys(assignment.values()):
        moved = [(column, llm) for column, llm in assignment.items() if llm != base]
        if all((column, llm) in costs and (column, base) in costs for column, llm in moved):
            more = sum(costs[column, llm] - costs[column, base] for column, llm in moved)
            return value(table, base, "Cost") + more / len(DATASETS)
    return math.nan


def best_lookup(
    alpha: float, costs: Costs | None = None, pool: Sequence[str] | None = None, tables: Tables | None = None
) -> pd.DataFrame:
    """Return the LLM with the highest Eq. (7) score on each dataset, by Table 7.

    Parameters
    ----------
    alpha
        Weight of cost in Eq. (7), at least 0.
    costs
        Dollars per 1,000 prompts by (dataset, LLM); where absent, the LLM's mean of Table 7 stands in.
    pool
        LLMs to choose from; all eleven if not given.

    Returns
    -------
    DataFrame, indexed by dataset
        Columns llm, performance, cost, score; their means are those of the lookup.
    """
    import pandas as pd

    if alpha < 0:
        raise UserError(f"alpha is {alpha:g}, expected at least 0")
    table = (tables or published())["table-7"]
    costs = costs or {}
    rows = {}
    for column in DATASETS:
        scored = []
        for llm in pool or LLMS:
            accuracy, cost = value(table, llm, column), costs.get((column, llm), value(table, llm, "Cost"))
            scored.append((accuracy - alpha * cost, -cost, llm, accuracy))
        score, negative_cost, llm, accuracy = max(scored)
        rows[column] = {"llm": llm, "performance": accuracy, "cost": -negative_cost, "score": score}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("dataset")


def best_lookups(costs: Costs | None = None, tables: Tables | None = None) -> pd.DataFrame:
    """Return, for each α of Table 9, the best lookup beside RadialRouter.

    Returns
    -------
    DataFrame, indexed by alpha
        Columns performance, cost, score (the lookup's), radial_router (its score from Table 9), and one a dataset.
    """
    import pandas as pd

    tables = tables or published()
    rows = {}
    for alpha in ALPHAS:
        lookup = best_lookup(float(alpha), costs, tables=tables)
        means = lookup[["performance", "cost", "score"]].mean()
        own = score_at(tables, "RadialRouter", alpha, float(alpha))
        rows[float(alpha)] = {**means, "radial_router": own, **lookup["llm"]}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("alpha")


def score_at(tables: Tables, method: str, trained: str, alpha: float) -> float:
    """Return the Eq. (7) score, at one α, of the row of Table 9 that was trained for another."""
    row = row_of(method, trained)
    return value(tables["table-9"], row, "Perf.") - alpha * value(tables["table-9"], row, "Cost")


# ----------------------------------------------------------------------------------------------------- Table 4


def pool_rows(tables: Tables | None = None) -> list[str]:
    """Return the rows of Table 4, which adds one LLM each."""
    return list(dict.fromkeys(row for row, _ in (tables or published())["table-4"]))


def pool(size: int, tables: Tables | None = None) -> list[str]:
    """Return the LLMs of Table 4's pool of this size, in the order they were added."""
    rows = pool_rows(tables)
    if not 1 <= size <= len(rows):
        raise UserError(f"pool size is {size}, expected 1 to {len(rows)} (Table 4)")
    return [row.removeprefix("+ ") for row in rows[:size]]


def pool_sums(size: int, tables: Tables | None = None) -> np.ndarray:
    """Return the summed accuracy of every lookup in a pool, in ten-thousandths, [size] * 6."""
    tables = tables or published()
    sums = np.zeros(())
    for column in DATASETS:
        sums = np.add.outer(sums, [units(tables["table-7"][llm, column]) for llm in pool(size, tables)])
    return sums


def _fits(sums: np.ndarray, printed: int) -> np.ndarray:
    # Six rounded accuracies and their rounded mean: the two may differ by twice half a unit.
    return np.abs(sums - len(DATASETS) * printed) <= 2 * _HALF * len(DATASETS)


def _by_chance(sums: np.ndarray, printed: int) -> float:
    """Return how many lookups a performance near the printed one would fit: those within .01, per width of a fit."""
    width, reach = 2 * _HALF * len(DATASETS), 100 * len(DATASETS)
    near = np.abs(sums - len(DATASETS) * printed) <= reach
    return float(near.sum() * (2 * width + 1) / (2 * reach + 1))


def pool_assignments(size: int, costs: Costs | None = None, tables: Tables | None = None) -> pd.DataFrame:
    """Return every lookup in a pool of Table 4 that has the printed performance, to rounding.

    Returns
    -------
    DataFrame
        One row a lookup; a column for each dataset with its LLM, then performance, cost (NaN where a cost it needs was
        not given) and cost_fits (None there), to rounding of the two published costs it rests on.
    """
    import pandas as pd

    tables = tables or published()
    members, row = pool(size, tables), pool_rows(tables)[size - 1]
    sums = pool_sums(size, tables)
    rows = []
    for place in np.argwhere(_fits(sums, units(tables["table-4"][row, "Performance"]))):
        assignment = {column: members[index] for column, index in zip(DATASETS, place, strict=True)}
        cost = lookup_cost(assignment, costs, tables)
        fits = None if math.isnan(cost) else abs(cost - value(tables["table-4"], row, "Cost")) <= 0.001 + _ROUNDING
        performance = float(sums[tuple(place)]) / 10_000 / len(DATASETS)
        rows.append({**assignment, "performance": performance, "cost": cost, "cost_fits": fits})
    return pd.DataFrame(rows, columns=[*DATASETS, "performance", "cost", "cost_fits"])


@dataclass(frozen=True)
class Step:
    """A pool of Table 4 read as a lookup that extends the one of the pool before.

    Attributes
    ----------
    assignments, fitting
        Lookups in the pool, and those with the printed performance to rounding.
    expected
        How many of them would fit a performance near the printed one, by chance.
    extending
        Those of the fitting ones that only move datasets of the pool before to the newest LLM; 64 could.
    expected_extending
        How many of the 64 would fit a performance near the printed one.
    """

    size: int
    newest: str
    printed: str
    assignments: int
    fitting: int
    expected: float
    extending: tuple[dict[str, str], ...]
    expected_extending: float


def _extensions(before: Assignment, newest: str) -> Iterator[dict[str, str]]:
    for moved in itertools.product((False, True), repeat=len(DATASETS)):
        yield {column: newest if move else before[column] for column, move in zip(DATASETS, moved, strict=True)}


def pool_chain(tables: Tables | None = None) -> list[Step]:
    """Read Table 4 as lookups, each extending the one before, for as long as exactly one does."""
    tables = tables or published()
    before: dict[str, str] | None = None
    steps = []
    for size, row in enumerate(pool_rows(tables), start=1):
        newest, cell = pool(size, tables)[-1], tables["table-4"][row, "Performance"]
        sums = pool_sums(size, tables)
        start = before if before is not None else dict.fromkeys(DATASETS, newest)
        options = list(_extensions(start, newest)) if size > 1 else [start]
        option_sums = np.array([sum(units(tables["table-7"][a[c], c]) for c in DATASETS) for a in options])
        extending = [a for a, fits in zip(options, _fits(option_sums, units(cell)), strict=True) if fits]
        counted = (sums.size, int(_fits(sums, units(cell)).sum()), _by_chance(sums, units(cell)))
        steps.append(Step(size, newest, cell.printed, *counted, tuple(extending), _by_chance(option_sums, units(cell))))
        if len(extending) != 1:
            break
        before = extending[0]
    return steps


def pool_table(costs: Costs | None = None, tables: Tables | None = None) -> pd.DataFrame:
    """Return Table 4 beside the lookups that give its performance, for as long as one extends the other.

    Returns
    -------
    DataFrame, indexed by pool size
        Columns newest, performance (as printed), lookups, fit, fit by chance, extend, extend by chance, lookup (in
        words), cost (as printed), lookup cost (NaN where a cost it needs was not given).
    """
    import pandas as pd

    tables = tables or published()
    rows = {}
    for step in pool_chain(tables):
        only = step.extending[0] if len(step.extending) == 1 else None
        rows[step.size] = {
            "newest": step.newest,
            "performance": step.printed,
            "lookups": step.assignments,
            "fit": step.fitting,
            "fit by chance": step.expected,
            "extend": len(step.extending),
            "extend by chance": step.expected_extending,
            "lookup": in_words(only) if only else "",
            "cost": tables["table-4"][pool_rows(tables)[step.size - 1], "Cost"].printed,
            "lookup cost": lookup_cost(only, costs, tables) if only else math.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("pool")


def in_words(assignment: Assignment) -> str:
    """Say a lookup in few words: the LLM of most datasets, then the exceptions."""
    common = max(dict.fromkeys(assignment.values()), key=list(assignment.values()).count)
    others: dict[str, list[str]] = {}
    for column, llm in assignment.items():
        if llm != common:
            others.setdefault(llm, []).append(column)
    return "; ".join([*(f"{' and '.join(columns)} to {llm}" for llm, columns in others.items()), f"rest to {common}"])
