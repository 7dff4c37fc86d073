"""Whether LLMs of one family look alike to UniRoute: the question of Figure 8, on pools with many LLMs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from replications.uniroute.similarity import llm_similarity
from routebook.benchmark import RoutingBenchmark
from routebook.significance import mean_interval

# A family is a maker's series, or what was fine-tuned from it; the first rule that finds itself in a name counts.
FAMILIES = {
    "llama-3.1": r"llama-?3\.1",
    "llama-3": r"llama-?3",
    "llama-2": r"llama-?2",
    "mixtral": r"mixtral",
    "mistral": r"mistral|mathstral",
    "qwen2.5": r"qwen2\.5|qwq",
    "qwen2": r"qwen2",
    "qwen1.5": r"qwen1\.5",
    "yi": r"\byi-",
    "gemma-2": r"gemma-2-\d+b",
    "gemma": r"gemma",
    "phi": r"\bphi-",
    "deepseek": r"deepseek",
    "command-r": r"command-r",
    # TinyPool's LLMs are named by what they were trained on.
    "general": r"^general-",
    "arithmetic": r"^arithmetic-",
    "strings": r"^strings-",
    "logic": r"^logic-",
    "knowledge": r"^knowledge-",
}


def first_present(preferred: Sequence[str], n_llms: Mapping[str, int]) -> str:
    """Return the first preferred pool that is there, else the one with most LLMs; `n_llms` is their number by pool."""
    return next((name for name in preferred if name in n_llms), max(n_llms, key=lambda name: n_llms[name]))


def family(model: str) -> str | None:
    """Return the family of an LLM by its name, or None where no rule of `FAMILIES` applies."""
    return next((name for name, rule in FAMILIES.items() if re.search(rule, model.lower())), None)


def distinct(models: Sequence[str]) -> list[str]:
    """Return the LLMs without those that are in the pool under the same name from another source."""
    first: dict[str, str] = {}
    for model in models:
        first.setdefault(model.split("/")[-1].lower(), model)
    return list(first.values())


def contrasts(
    benchmark: RoutingBenchmark, embeddings: np.ndarray, n_clusters: int, seeds: Sequence[int]
) -> pd.DataFrame:
    """Return how much more similar the LLMs of each family are to each other than to all others, seed by seed.

    Mean similarity (`similarity.llm_similarity`) over the pairs within a family, less its mean over pairs of a member
    and an LLM outside the family. An LLM that two sources measured counts once.

    Returns
    -------
    DataFrame, [len(seeds), families]
        One column for each family with at least two LLMs, none where there is no such family.
    """
    models = distinct(benchmark.models)
    chosen = benchmark.subset(models=models)
    members = {name: [m for m in models if family(m) == name] for name in FAMILIES}
    members = {name: found for name, found in members.items() if 2 <= len(found) < len(models)}
    rows = []
    for seed in seeds if members else ():
        similarity = llm_similarity(chosen, embeddings, n_clusters, seed)
        rows.append({name: _contrast(similarity, found) for name, found in members.items()})
    return pd.DataFrame(rows, index=list(seeds), columns=list(members), dtype=float)


def _contrast(similarity: pd.DataFrame, members: Sequence[str]) -> float:
    within = similarity.loc[members, members].to_numpy()
    across = similarity.loc[members].drop(columns=members).to_numpy()
    return float(within[np.triu_indices(len(members), k=1)].mean() - across.mean())


def contrast_table(found: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """Return `contrasts` as readers see it: one row a family, with its LLMs and a 95 % interval over cluster seeds."""
    rows = {}
    for name, values in found.items():
        interval = mean_interval(values.to_numpy())
        rows[name] = {
            "LLMs": ", ".join(m.split("/")[-1] for m in distinct(models) if family(m) == name),
            "within minus others": f"{interval.estimate:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]",
        }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["LLMs", "within minus others"])
