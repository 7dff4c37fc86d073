"""Appendix I.1 as far as the pool allows: LLMs of an older generation seen in training, newer ones unseen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from replications.uniroute import tables
from replications.uniroute.params import UniRouteParams
from replications.uniroute.pools import Pool
from replications.uniroute.trials import DYNAMIC_METHODS, Split, Trial, draw_split, run_trials, summarise
from replications.uniroute.validation_sizes import sizes_that_fit
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError
from routebook.ledger import Cell

POOL = "openllm-v2"
# "we use only 800 randomly selected examples as the validation set" (Appendix I.1).
N_VALIDATION = 800
# Month in which each LLM's weights were put on the Hugging Face hub.
RELEASED = {
    "meta-llama/Llama-2-13b-chat-hf": "2023-07",
    "mistralai/Mistral-7B-Instruct-v0.1": "2023-09",
    "01-ai/Yi-34B-Chat": "2023-11",
    "deepseek-ai/deepseek-llm-67b-chat": "2023-11",
    "mistralai/Mistral-7B-Instruct-v0.2": "2023-12",
    "mistralai/Mixtral-8x7B-Instruct-v0.1": "2023-12",
    "upstage/SOLAR-10.7B-Instruct-v1.0": "2023-12",
    "NousResearch/Nous-Hermes-2-Mixtral-8x7B-DPO": "2024-01",
    "google/gemma-2b-it": "2024-02",
    "alpindale/WizardLM-2-8x22B": "2024-04",
    "mistralai/Mistral-7B-Instruct-v0.3": "2024-05",
    "Qwen/Qwen2-72B-Instruct": "2024-05",
    "google/gemma-2-27b-it": "2024-06",
    "google/gemma-2-9b-it": "2024-06",
    "meta-llama/Meta-Llama-3.1-70B-Instruct": "2024-07",
    "Qwen/Qwen2.5-7B-Instruct": "2024-09",
    "Qwen/Qwen2.5-72B-Instruct": "2024-09",
    "nvidia/Llama-3.1-Nemotron-70B-Instruct-HF": "2024-10",
    "Qwen/QwQ-32B-Preview": "2024-11",
}
# Qwen 2, the generation the paper trains on, is the last one seen.
LAST_SEEN = "2024-05"


def split_llms(models: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split LLMs by release: those up to `LAST_SEEN`, and those after it.

    Raises
    ------
    UserError
        For an LLM whose release is not known, or when one side would be empty.
    """
    unknown = [model for model in models if model not in RELEASED]
    if unknown:
        raise UserError(
            f"no release month is known of {', '.join(unknown)}; add it to RELEASED in replications/uniroute/"
            "generations.py"
        )
    older = [model for model in models if RELEASED[model] <= LAST_SEEN]
    newer = [model for model in models if RELEASED[model] > LAST_SEEN]
    if not older or not newer:
        raise UserError(f"{len(older)} LLMs up to {LAST_SEEN} and {len(newer)} after it, expected some of each")
    return older, newer


def draw_generation_split(
    benchmark: RoutingBenchmark, params: UniRouteParams, trial: int, llms: tuple[list[str], list[str]]
) -> Split:
    """Draw a trial's prompts as `trials.draw_split` does, with these LLMs (seen, unseen) in place of random ones."""
    # `draw_split` leaves out test prompts without an answer of *its* unseen LLMs; here others are unseen.
    answered = replace(benchmark, quality=np.nan_to_num(benchmark.quality))
    drawn = draw_split(answered, params, trial)
    seen, unseen = llms
    labels = benchmark.quality[np.ix_(drawn.test, benchmark.model_columns(unseen))]
    return replace(drawn, test=drawn.test[~np.isnan(labels).all(axis=1)], seen=seen, unseen=unseen)


def run_generations(pool: Pool, n_jobs: int | None = None) -> list[Trial]:
    """Run the trials: LLMs split by release, prompts redrawn, 800 of them for validation (fewer in a small pool).

    `n_jobs` is that of `trials.run_trials`.
    """
    room = sizes_that_fit(range(1, N_VALIDATION + 1), len(pool.benchmark), pool.params.test_share)
    params = UniRouteParams.build({**pool.params.model_dump(), "n_validation": room[-1]})
    llms = split_llms(pool.benchmark.models)
    splits = [draw_generation_split(pool.at_mean_cost, params, trial, llms) for trial in range(params.n_trials)]
    return run_trials(pool.at_mean_cost, pool.embeddings, params, splits, n_jobs)


def llm_table(pool: Pool) -> pd.DataFrame:
    """Return the pool's LLMs by release, with their role, price and mean quality."""
    seen, _ = split_llms(pool.benchmark.models)
    quality = np.nanmean(pool.benchmark.quality, axis=0)
    rows = {
        model: {
            "released": RELEASED[model],
            "role": "seen" if model in seen else "unseen",
            f"cost ({pool.benchmark.cost_unit})": f"{cost:.3g}",
            "mean quality": f"{mean:.3f}",
        }
        for model, cost, mean in zip(pool.benchmark.models, pool.benchmark.mean_cost, quality, strict=True)
    }
    return pd.DataFrame.from_dict(rows, orient="index").sort_values("released", kind="stable")


def table_i1(metrics: pd.DataFrame | None, published: Mapping[tuple[str, str], Cell]) -> pd.DataFrame:
    """Return the table of Appendix I.1 with our numbers beside the paper's; bold: our best.

    Without `metrics` (the pool is not here) the paper's alone are shown.
    """
    printed = {row.replace(" -", "-"): cell.printed.replace("%", "") for (row, _), cell in published.items()}
    shown = pd.DataFrame({"QNC, % (paper)": printed})
    if metrics is None:
        return shown
    qnc, area = (summarise(metrics, column, DYNAMIC_METHODS) for column in ("qnc", "area"))
    qnc[["value", "low", "high"]] *= 100
    for column, frame, digits, best in (
        ("QNC, % (ours)", qnc, "{:.1f}", qnc["value"].idxmin()),
        ("Area (ours)", area, "{:.3f}", area["value"].idxmax()),
    ):
        cells = {m: tables.interval_cell(frame.loc[m], digits, m == best) for m in DYNAMIC_METHODS}
        shown[column] = pd.Series({tables.PUBLISHED_ROWS[m]: cell for m, cell in cells.items()})
    return shown.fillna("–")
