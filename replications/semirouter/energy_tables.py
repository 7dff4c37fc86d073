"""Energy of an LLM's answer, looked up: published tables, and which published figure stands for which LLM.

SemiRouter charges a query the average energy of the LLM it goes to (Section 3.2), from AI Energy Score and from Jegham
et al. (2025). It prints two figures, GPT-3.5's and GPT-4's, and names no source row for any other LLM. `PROXIES` holds
our choice for each, one row an LLM, and a second choice from another leaderboard to show what hangs on the first. The
figures themselves are read from the folder `$ROUTEBOOK_DATA`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from routebook.datasets import files, mess_plus
from routebook.datasets.cards import read_card
from routebook.errors import DataError, UserError, suggest

if TYPE_CHECKING:
    from routebook.benchmark import RoutingBenchmark

WH = "Wh per prompt"
JOULES = "joules per prompt"
JOULES_PER_WH = 3600.0
# Wh in one of each unit.
_UNITS = {WH: 1.0, JOULES: 1 / JOULES_PER_WH}

AI_ENERGY_SCORE = "ai_energy_score_2025.csv"
ML_ENERGY_2023 = "mlenergy_2023_legacy.csv"
ML_ENERGY_2024 = "mlenergy_v2_llm_text_generation.csv"
ML_ENERGY_2025 = "mlenergy_v3_llm.csv"
JEGHAM = "jegham2025_via_promptcoach.csv"

Source = Literal["ai-energy-score", "ml-energy"]
EnergyTable = pd.DataFrame | Mapping[str, float]


@dataclass(frozen=True)
class Published:
    """Which rows of a table hold a figure: the column with the energy, its unit, and what the other columns must say.

    `energy` is in Wh a query for AI Energy Score (kWh for 1,000 queries are Wh for one) and Jegham et al.
    """

    title: str
    model: str
    energy: str
    unit: str
    only: Mapping[str, str]


TABLES: dict[str, Published] = {
    AI_ENERGY_SCORE: Published("AI Energy Score (2025)", "model", "total_gpu_energy", WH, {"task": "text_generation"}),
    ML_ENERGY_2023: Published("ML.ENERGY (2023)", "model", "energy", JOULES, {"task": "chat"}),
    ML_ENERGY_2024: Published("ML.ENERGY (2024)", "model", "Energy/req (J)", JOULES, {}),
    ML_ENERGY_2025: Published(
        "ML.ENERGY (2025)", "model_id", "energy_per_request_joules", JOULES, {"task": "lm-arena-chat"}
    ),
    JEGHAM: Published("Jegham et al. (2025), second hand", "model_id", "energy_wh_mean", WH, {"prompt_size": "short"}),
}

# What the paper states itself, in Wh per prompt, and where.
STATED: dict[str, tuple[float, str]] = {
    "gpt-3.5-turbo-1106": (0.2, "Section 3.2: assumed, half of GPT-4o's"),
    "gpt-4-1106-preview": (13.529, "Table 5, row All at GPT-4; no source named"),
}


@dataclass(frozen=True)
class Proxy:
    """Which published model's figure stands for an LLM, and why."""

    model: str
    ai_energy_score: str
    ml_energy: str
    note: str


PROXIES: tuple[Proxy, ...] = (
    Proxy(
        "mistralai/mistral-7b-chat",
        "mistralai/Mistral-7B-v0.1",
        "mistralai/Mistral-7B-Instruct-v0.3",
        "the model family itself, base or a later version",
    ),
    Proxy(
        "WizardLM/WizardLM-13B-V1.2",
        "meta-llama/Llama-2-13b-hf",
        "codellama/CodeLlama-13b-hf",
        "class 13B: of the architecture it was tuned from",
    ),
    Proxy(
        "meta/code-llama-instruct-34b-chat",
        "01-ai/Yi-1.5-34B",
        "codellama/CodeLlama-34b-hf",
        "class 34B: AI Energy Score has no Code Llama",
    ),
    Proxy(
        "meta/llama-2-70b-chat",
        "meta-llama/Llama-2-70b-hf",
        "meta-llama/Meta-Llama-3.1-70B-Instruct",
        "the base model, or its successor of equal size",
    ),
    Proxy(
        "mistralai/mixtral-8x7b-chat",
        "mistralai/Mixtral-8x7B-v0.1",
        "mistralai/Mixtral-8x7B-Instruct-v0.1",
        "the model itself, base or tuned",
    ),
    Proxy(
        "zero-one-ai/Yi-34B-Chat",
        "01-ai/Yi-1.5-34B",
        "codellama/CodeLlama-34b-hf",
        "class 34B; RouterBench has it, Table 6 leaves it out",
    ),
    Proxy(
        "Llama-3.2-1B-Instruct",
        "allenai/OLMo-1B-hf",
        "google/gemma-2-2b-it",
        "the smallest of about its size; MESS+ measured it as well",
    ),
    Proxy(
        "Llama-3.1-8B-Instruct-4bit",
        "meta-llama/Meta-Llama-3.1-8B",
        "meta-llama/Meta-Llama-3.1-8B-Instruct",
        "the model, not in 4 bits; MESS+ measured it as well",
    ),
    Proxy(
        "Llama-3.3-70B-Instruct-4bit",
        "meta-llama/Meta-Llama-3-70B",
        "meta-llama/Meta-Llama-3.1-70B-Instruct",
        "its predecessors of equal size, not in 4 bits; MESS+ measured it as well",
    ),
)

# One model or more of each size that several tables have, for `published_by_size`.
SIZES: dict[str, dict[str, str]] = {
    "7B to 8B": {
        AI_ENERGY_SCORE: "meta-llama/Meta-Llama-3.1-8B",
        ML_ENERGY_2023: "lmsys/vicuna-7B",
        ML_ENERGY_2024: "meta-llama/Meta-Llama-3.1-8B-Instruct",
        ML_ENERGY_2025: "meta-llama/Llama-3.1-8B-Instruct",
    },
    "13B": {
        AI_ENERGY_SCORE: "meta-llama/Llama-2-13b-hf",
        ML_ENERGY_2023: "lmsys/vicuna-13B",
        ML_ENERGY_2024: "codellama/CodeLlama-13b-hf",
    },
    "34B": {AI_ENERGY_SCORE: "01-ai/Yi-1.5-34B", ML_ENERGY_2024: "codellama/CodeLlama-34b-hf"},
    "70B": {
        AI_ENERGY_SCORE: "meta-llama/Meta-Llama-3-70B",
        ML_ENERGY_2024: "meta-llama/Meta-Llama-3.1-70B-Instruct",
        ML_ENERGY_2025: "meta-llama/Llama-3.3-70B-Instruct",
        JEGHAM: "llama-3.3-70b",
    },
    "8x7B": {
        AI_ENERGY_SCORE: "mistralai/Mixtral-8x7B-v0.1",
        ML_ENERGY_2024: "mistralai/Mixtral-8x7B-Instruct-v0.1",
    },
}

# The LLMs of MESS+ that have one of these sizes.
MEASURED: dict[str, str] = {"7B to 8B": mess_plus.MODELS["medium"], "70B": mess_plus.MODELS["large"]}


def convert(energy: np.ndarray | float, unit: str, to: str = WH) -> np.ndarray | float:
    """Return an energy in another unit: "Wh per prompt" and "joules per prompt" are known, 1 Wh being 3,600 J.

    Raises
    ------
    UserError
        For any other unit: dollars and parameters are no energy.
    """
    for name, value in (("unit", unit), ("to", to)):
        if value not in _UNITS:
            raise UserError(
                f"{name} is {value!r}, which is no energy; expected one of {', '.join(_UNITS)}: give the benchmark "
                "an energy column first, with with_energy(benchmark, energy_table())"
            )
    return energy * (_UNITS[unit] / _UNITS[to])


def read_published() -> dict[str, pd.DataFrame]:
    """Read the published tables from the folder `$ROUTEBOOK_DATA`, by base name of their file.

    Raises
    ------
    DataError
        A file that is missing, damaged, without a column its card names, or with an energy that is no number >= 0.
    """
    card = read_card("energy")
    return files.read_tables(card, files.locate(card)).frames


def figures_of(file: str, model: str, tables: Mapping[str, pd.DataFrame]) -> np.ndarray:
    """Return a model's figures in one published table, Wh per prompt, [configurations].

    Raises
    ------
    DataError
        When the table has no row for the model, or an energy of 0: no answer is free.
    """
    where = TABLES[file]
    frame = tables[file]
    for column, value in where.only.items():
        frame = frame[frame[column] == value]
    found = frame.loc[frame[where.model] == model, where.energy].to_numpy(dtype=float)
    if not len(found):
        chosen = "".join(f", {column} {value}" for column, value in where.only.items())
        raise DataError(
            f"energy: {file} has no row for model {model!r}{chosen}{suggest(model, frame[where.model].astype(str))}; "
            "copy the file again"
        )
    if not (found > 0).all():
        raise DataError(f"energy: {file}: {where.energy} of {model!r} is {found.min():g}, expected a number > 0")
    return convert(found, where.unit)


def energy_table(source: Source = "ai-energy-score", tables: Mapping[str, pd.DataFrame] | None = None) -> pd.DataFrame:
    """Return the energy of one answer by LLM, with the published figure that stands for each (Section 3.2).

    Parameters
    ----------
    source : {"ai-energy-score", "ml-energy"}
        The paper's leaderboard, or ML.ENERGY (2024), the median over serving configurations: another choice of
        proxies, to see what hangs on the first.
    tables
        The published tables, read from the folder `$ROUTEBOOK_DATA` if not given.

    Returns
    -------
    DataFrame
        One row an LLM: `model`, `wh_per_prompt`, `source`, `proxy` (the model the figure was published for), `note`.
        The LLMs are RouterBench's but Claude, whose energy is not published, and those of MESS+.

    Raises
    ------
    UserError
        For an unknown source.
    DataError
        As `read_published` and `figures_of`.
    """
    chosen = {"ai-energy-score": AI_ENERGY_SCORE, "ml-energy": ML_ENERGY_2024}
    files.choose("energy", "source", source, tuple(chosen))
    file = chosen[source]
    tables = read_published() if tables is None else tables
    rows = [
        {"model": model, "wh_per_prompt": wh, "source": "SemiRouter", "proxy": model, "note": where}
        for model, (wh, where) in STATED.items()
    ]
    for proxy in PROXIES:
        published = proxy.ai_energy_score if source == "ai-energy-score" else proxy.ml_energy
        wh = float(np.median(figures_of(file, published, tables)))
        rows.append(
            {
                "model": proxy.model,
                "wh_per_prompt": wh,
                "source": TABLES[file].title,
                "proxy": published,
                "note": proxy.note,
            }
        )
    return pd.DataFrame(rows)


def published_by_size(
    tables: Mapping[str, pd.DataFrame] | None = None, measured: RoutingBenchmark | None = None
) -> pd.DataFrame:
    """Return what the published tables say of LLMs of one size, and how much more the larger ones take.

    The paper rests on "the relative energy cost across the models rather than precise absolute numbers" (Section 3.2);
    `ratio` is that relative cost, by source.

    Parameters
    ----------
    tables
        The published tables, read from the folder `$ROUTEBOOK_DATA` if not given.
    measured
        MESS+, whose measured calls then make one more source.

    Returns
    -------
    DataFrame
        One row a size and source: `size`, `source`, `model`, `wh` (median over serving configurations, or over the
        measured calls), `low`, `high` (least and most), `n` (configurations or calls), `ratio` (of `wh` to that of the
        smallest size in the same source; NaN where the source has none).
    """
    tables = read_published() if tables is None else tables
    found = [
        (size, TABLES[file].title, model, figures_of(file, model, tables))
        for size, models in SIZES.items()
        for file, model in models.items()
    ]
    if measured is not None:
        calls = in_wh(measured).cost[:, measured.model_columns(list(MEASURED.values()))]
        title = f"{measured.name}, measured"
        found += [(size, title, model, calls[:, at]) for at, (size, model) in enumerate(MEASURED.items())]
    frame = pd.DataFrame(
        [
            {
                "size": size,
                "source": source,
                "model": model,
                "wh": float(np.median(wh)),
                "low": float(wh.min()),
                "high": float(wh.max()),
                "n": len(wh),
            }
            for size, source, model, wh in found
        ]
    )
    base = frame[frame["size"] == next(iter(SIZES))].set_index("source")["wh"]
    return frame.assign(ratio=frame["wh"] / frame["source"].map(base))


def _per_model(table: EnergyTable) -> dict[str, float]:
    """Return Wh per prompt by model; a model listed twice, or an energy that is no number > 0, raises UserError."""
    if isinstance(table, pd.DataFrame):
        twice = table["model"][table["model"].duplicated()]
        if len(twice):
            raise UserError(f"energy table: model {twice.iloc[0]!r} is listed twice; leave one row a model")
        energy = dict(zip(table["model"], table["wh_per_prompt"].astype(float), strict=True))
    else:
        energy = {model: float(wh) for model, wh in table.items()}
    for model, wh in energy.items():
        if not (np.isfinite(wh) and wh > 0):
            raise UserError(f"energy table: energy of {model!r} is {wh:g} Wh, expected a number > 0; no answer is free")
    return energy


def models_with_energy(benchmark: RoutingBenchmark, table: EnergyTable) -> list[str]:
    """Return the LLMs of the pool that the table has, in the pool's order."""
    known = _per_model(table)
    return [model for model in benchmark.models if model in known]


def with_energy(benchmark: RoutingBenchmark, table: EnergyTable) -> RoutingBenchmark:
    """Return the benchmark with energy as its cost, in Wh per prompt: every router and deferral curve can use it.

    Parameters
    ----------
    benchmark
        With any cost; it is replaced.
    table
        As `energy_table` returns it, or model to Wh per prompt. An LLM's average is charged to each of its answers
        (Section 3.2: "model-level energy consumption data").

    Raises
    ------
    UserError
        When the table has no entry for an LLM of the pool, lists one twice, or has an energy that is no number > 0.
    """
    known = _per_model(table)
    missing = [model for model in benchmark.models if model not in known]
    if missing:
        more = f" and {len(missing) - 1} more of the pool" if len(missing) > 1 else ""
        raise UserError(
            f"{benchmark.name}: the energy table has no entry for {missing[0]!r}{more}{suggest(missing[0], known)}; "
            "add a row for it, or leave it out: benchmark.subset(models=models_with_energy(benchmark, table))"
        )
    return benchmark.with_cost(np.array([known[model] for model in benchmark.models]), WH)


def in_wh(benchmark: RoutingBenchmark) -> RoutingBenchmark:
    """Return a benchmark whose cost is an energy with that energy in Wh per prompt; UserError for any other cost."""
    return benchmark.with_cost(convert(benchmark.cost, benchmark.cost_unit), WH)
