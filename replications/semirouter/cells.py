"""SemiRouter's published cells, its names for datasets and LLMs, and what RouterBench says of the same LLMs.

The accuracies and costs that are not SemiRouter's own are parameters of the checks that use them: by default those
RadialRouter's Table 7 prints for RouterBench, which `benchmark_accuracies` and `benchmark_gpt_4_costs` compute anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from routebook.datasets.routerbench import SOURCES
from routebook.errors import UserError
from routebook.ledger import Cell, read_cells

if TYPE_CHECKING:
    from routebook.benchmark import RoutingBenchmark

Table = Mapping[tuple[str, str], Cell]
Tables = Mapping[str, Table]
Accuracies = Mapping[tuple[str, str], float]

# Column of Tables 1 and 3 to the name of the source dataset, in the paper's order.
SIX = {
    "ARC": "arc-challenge",
    "GSM8K": "gsm8k",
    "HellaSwag": "hellaswag",
    "MBPP": "mbpp",
    "MMLU": "mmlu",
    "WinoGrande": "winogrande",
}
# Further sets of RouterBench's makers that Tables 1 and 5 use; RouterBench spells them with underscores.
SMALL = {
    "abstract2title": "abstract2title",
    "bias_detection": "bias-detection",
    "Accounting Audit": "accounting-audit",
}
LOSSES = {"div": "SEMIROUTER (Div)", "anchor": "SEMIROUTER (Anchor)", "full": "SEMIROUTER"}
EMB, MLP = "SEMIROUTER (EMB)", "SEMIROUTER (MLP)"
ATT = "RaidialRouter (ATT)"
FULL_DATA = "BERT (Devlin et al., 2019)"
GPT_4 = "gpt-4-1106-preview"

# Test accuracies in RouterBench as RadialRouter's Table 7 prints them, in the order of `SIX`; its Yi-34B is not among
# the ten LLMs of SemiRouter's Table 6, whose names these are.
_TABLE_7 = {
    "gpt-4-1106-preview": (0.9565, 0.6589, 0.9057, 0.6875, 0.8162, 0.8552),
    "claude-v2": (0.6247, 0.6671, 0.3130, 0.6406, 0.5652, 0.4763),
    "gpt-3.5-turbo-1106": (0.8444, 0.6094, 0.7843, 0.6875, 0.6667, 0.6632),
    "claude-v1": (0.9199, 0.6520, 0.8187, 0.6094, 0.5281, 0.5711),
    "claude-instant-v1": (0.8421, 0.6281, 0.7690, 0.6250, 0.4529, 0.5211),
    "mistralai/mixtral-8x7b-chat": (0.8627, 0.5214, 0.6960, 0.5391, 0.6822, 0.6842),
    "meta/llama-2-70b-chat": (0.8169, 0.5252, 0.7046, 0.3750, 0.6034, 0.4974),
    "WizardLM/WizardLM-13B-V1.2": (0.6476, 0.5054, 0.6004, 0.3906, 0.5253, 0.5289),
    "mistralai/mistral-7b-chat": (0.6705, 0.4151, 0.5410, 0.3828, 0.5198, 0.5737),
    "meta/code-llama-instruct-34b-chat": (0.6636, 0.4548, 0.5194, 0.5156, 0.5284, 0.5921),
}
LLMS = tuple(_TABLE_7)
# The seven of Section 5.1 as Section 3.2 and Appendix B leave them: without Claude.
SEVEN = tuple(llm for llm in LLMS if not llm.startswith("claude"))
ROUTERBENCH_ACCURACY: Accuracies = {
    (column, llm): accuracy for llm, row in _TABLE_7.items() for column, accuracy in zip(SIX, row, strict=True)
}
# Mean dollars of 1,000 prompts on RouterBench's test split, GPT-4. The mean over the six is RadialRouter's Table 7's;
# the others `benchmark_gpt_4_costs` computes, and a test compares, where the data is.
GPT_4_COST: Mapping[str, float] = {"ARC": 5.0011, "MBPP": 9.3816, "WinoGrande": 3.5312}
GPT_4_MEAN_COST = 7.185


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


def rows(table: Table) -> list[str]:
    """Return the rows of a table in the paper's order."""
    return list(dict.fromkeys(row for row, _ in table))


def slug(llm: str) -> str:
    """Return an LLM's name as it stands in result keys, such as ``table-6/mixtral-8x7b-chat/score``."""
    return llm.rpartition("/")[2].lower()


def of_the_paper(benchmark: RoutingBenchmark) -> RoutingBenchmark:
    """Return RouterBench with `absent` naming those of this paper's nine source datasets that are not there.

    The ledger speaks of the paper's datasets: a run without MT-Bench, which the paper does not use, is complete, and
    one without abstract2title is not. Other benchmarks are returned as they are.
    """
    if benchmark.name != "routerbench":
        return benchmark
    present = {task.replace("_", "-") for task in benchmark.tasks.tolist()}
    names = [*SIX.values(), *SMALL.values()]
    absent = [n for n in names if not any(task.startswith(SOURCES.get(n, (n,))) for task in present)]
    return replace(benchmark, absent=tuple(absent))


def _test_rows(benchmark: RoutingBenchmark) -> RoutingBenchmark:
    """Return the complete rows of the test split, as the published accuracies are of these."""
    kept = ~np.isnan(benchmark.quality).any(axis=1)
    if benchmark.split is not None:
        kept &= benchmark.split == "test"
    return benchmark.subset(np.flatnonzero(kept))


def _of_set(benchmark: RoutingBenchmark, name: str) -> np.ndarray:
    return np.array([task.startswith(SOURCES[name]) for task in benchmark.tasks], dtype=bool)


def benchmark_accuracies(benchmark: RoutingBenchmark) -> dict[tuple[str, str], float]:
    """Return the mean quality of each of the paper's LLMs on each of its six large datasets that are there.

    Parameters
    ----------
    benchmark
        RouterBench; of a split one the test prompts are taken.
    """
    test = _test_rows(benchmark)
    found = {}
    for column, name in SIX.items():
        here = _of_set(test, name)
        if here.any():
            means = dict(zip(test.models, test.quality[here].mean(axis=0), strict=True))
            found |= {(column, llm): float(means[llm]) for llm in LLMS if llm in means}
    return found


def benchmark_gpt_4_costs(benchmark: RoutingBenchmark) -> dict[str, float]:
    """Return the mean dollars of 1,000 prompts of GPT-4 on each of the six large datasets that are there.

    Raises
    ------
    UserError
        When costs are not in dollars, or GPT-4 is not in the pool.
    """
    if "USD" not in benchmark.cost_unit:
        raise UserError(f"cost_unit is {benchmark.cost_unit!r}, expected dollars; load RouterBench")
    test = _test_rows(benchmark)
    cost = test.cost[:, test.model_columns([GPT_4])[0]]
    here = {column: _of_set(test, name) for column, name in SIX.items()}
    return {column: 1000 * float(cost[mask].mean()) for column, mask in here.items() if mask.any()}
