"""UniRoute on other pools: the experiment of Section 6 on every pool that is present, one table and figure for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from replications.uniroute import tables
from replications.uniroute.choices import at_mean_cost
from replications.uniroute.params import PoolsParams, UniRouteParams
from replications.uniroute.trials import Trial, summarise
from routebook import encoders, load
from routebook.benchmark import RoutingBenchmark
from routebook.figures import Panel, label
from routebook.ledger import Cell
from routebook.record import Record

# What the paper's Figure 6 calls the pools it shares with this page.
PUBLISHED_AS = {"routerbench": "RouterBench", "embedllm": "EmbedLLM", "sprout": "SPROUT o3-mini"}
LARGE_POOL = 15
DRAWN = ("zero-router", "k-nn", "retrained-mlp", "k-means", "learned-map", "clairvoyant-mlp", "dataset-oracle")
# Whether UniRoute's gain is more than knowing the source dataset of a prompt.
RECOGNITION = (
    ("k-means", "zero-router"),
    ("dataset-oracle", "zero-router"),
    ("k-means", "dataset-oracle"),
    ("learned-map", "dataset-oracle"),
)


@dataclass(frozen=True)
class Pool:
    """One pool of LLMs with its prompts, and the parameters of the experiment on it.

    Attributes
    ----------
    benchmark
        The LLMs with a price, on the prompts used: N x M.
    embeddings : ndarray, [N, D]
    params
        As `routebook run uniroute` would take them.
    """

    benchmark: RoutingBenchmark
    embeddings: np.ndarray
    params: UniRouteParams

    @cached_property
    def at_mean_cost(self) -> RoutingBenchmark:
        """The benchmark with one price an LLM, which is what is routed on."""
        return at_mean_cost(self.benchmark)


def load_pool(name: str, params: PoolsParams) -> Pool:
    """Load one pool, draw the prompts used, and embed them.

    Raises
    ------
    UserError, DataError
        As `routebook.load` and `routebook.encoders.embed_benchmark` do.
    """
    options = {"prompt_view": params.prompt_view} if name == "routerbench" else {}
    benchmark = load(name, **options).priced().sample(params.max_prompts, params.seed)
    return Pool(benchmark, encoders.embed_benchmark(benchmark, params.encoder), trial_params(benchmark, params))


def trial_params(benchmark: RoutingBenchmark, params: PoolsParams) -> UniRouteParams:
    """Return the parameters of the experiment on one pool.

    Seen in training are two thirds of the LLMs of a pool of 15 or more, as the paper does on EmbedLLM and SPROUT, and
    half of a smaller one, as on RouterBench and Headlines (Appendix F.1).
    """
    n_validation = params.n_validation
    if n_validation is None:
        n_validation = round(0.1 * len(benchmark)) if benchmark.name == "embedllm" else 400
    shared = ("prompt_view", "encoder", "max_prompts", "n_trials", "seed", "test_share")
    given = {name: getattr(params, name) for name in shared}
    given |= {"n_validation": n_validation, "train_llm_share": train_llm_share(len(benchmark.models))}
    return UniRouteParams.build(given, "paper" if params.profile == "paper" else "quick")


def train_llm_share(n_llms: int) -> float:
    """Return the share of LLMs seen in training: 2/3 of a large pool, half of a small one."""
    return 2 / 3 if n_llms >= LARGE_POOL else 1 / 2


def overview(pools: Mapping[str, Pool]) -> pd.DataFrame:
    """Return one row a pool: LLMs and how many are unseen in a trial, prompts, cost and its spread, what is absent."""
    rows = {}
    for name, pool in pools.items():
        n_llms, cost = len(pool.benchmark.models), pool.benchmark.mean_cost
        rows[name] = {
            "LLMs": n_llms,
            "unseen in a trial": n_llms - int(pool.params.train_llm_share * n_llms),
            "prompts": len(pool.benchmark),
            "source datasets": len(set(pool.benchmark.tasks)),
            "quality": pool.benchmark.quality_kind,
            "cost in": pool.benchmark.cost_unit,
            "dearest / cheapest LLM": f"{cost.max() / cost.min():.3g}",
            "data": pool.benchmark.origin,
            "absent": ", ".join(pool.benchmark.absent) or "nothing",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def record_metrics(record: Record, prefix: str, metrics: pd.DataFrame) -> None:
    """Record every method's area, QNC and peak, and the paired differences, each with its interval over trials."""
    for column, unit in tables.UNITS.items():
        for method, row in summarise(metrics, column).iterrows():
            key = f"{prefix}/{column}/{method}"
            record.value(key, row.value, low=row.low, high=row.high, n=int(row.n), unit=unit)
    for column in ("area", "qnc"):
        for a, b in dict.fromkeys((*tables.COMPARED, *RECOGNITION)):
            d = tables.compare(metrics, column, a, b)
            key = f"{prefix}/{column}-difference/{a}/{b}"
            record.value(key, d.estimate, low=d.low, high=d.high, n=d.n, unit=tables.UNITS[column])


def figure6(
    measured: Mapping[str, pd.DataFrame], published: Mapping[tuple[str, str], Cell], metrics: Sequence[str]
) -> pd.DataFrame:
    """Return the paper's Figure 6 with our pools as columns, as shown; bold: the best router for unseen LLMs.

    Parameters
    ----------
    measured
        Pool to its `trials.metrics_frame`.
    published
        The paper's cells, shown beside ours where it has the pool.
    metrics
        Which to show: "QNC", "Area", "Peak".
    """
    shown = {}
    for name, frame in measured.items():
        _, table = tables.figure6_table(frame, published, PUBLISHED_AS.get(name, ""))
        chosen = [column for column in table if column.startswith(tuple(metrics))]
        shown |= {(name, column): table[column] for column in chosen if (table[column] != "–").any()}
    return pd.DataFrame(shown)


def differences(
    measured: Mapping[str, pd.DataFrame], pairs: Sequence[tuple[str, str]] = tables.COMPARED
) -> pd.DataFrame:
    """Return the paired differences in area as shown, one row a pair and one column a pool.

    Bold: the 95 % interval over trials excludes 0.
    """
    shown = {
        pool: {f"{label(a)} − {label(b)}": _signed_cell(tables.compare(metrics, "area", a, b)) for a, b in pairs}
        for pool, metrics in measured.items()
    }
    return pd.DataFrame(shown)


def _signed_cell(outcome: tables.Comparison) -> str:
    row = pd.Series({"value": outcome.estimate, "low": outcome.low, "high": outcome.high})
    return tables.interval_cell(row, "{:+.4f}", outcome.low > 0 or outcome.high < 0)


def tally(measured: Mapping[str, pd.DataFrame], a: str, b: str) -> str:
    """Say on how many pools method a has more, or less, area than b, with an interval over trials that excludes 0."""
    found = [tables.compare(metrics, "area", a, b) for metrics in measured.values()]
    more, less = sum(d.low > 0 for d in found), sum(d.high < 0 for d in found)
    return f"more on {more}, less on {less}, not told apart on {len(found) - more - less} (pools: {len(found)})"


def spread(measured: Mapping[str, pd.DataFrame], a: str, b: str) -> str:
    """Say on which pool method a's area exceeds b's the least and on which the most, and by how much in the mean."""
    found = {name: tables.compare(metrics, "area", a, b).estimate for name, metrics in measured.items()}
    least, most = min(found, key=found.get), max(found, key=found.get)
    return f"{found[least]:+.4f} ({least}) to {found[most]:+.4f} ({most})"


def one_trial_panels(pools: Mapping[str, Pool], done: Mapping[str, Sequence[Trial]]) -> list[Panel]:
    """Return each pool's first trial as the paper draws its Figure 3: quality against cost, a cross an unseen LLM."""
    panels = []
    for name, trials in done.items():
        curves = trials[0].curves
        unseen = curves["zero-router"]
        panels.append(
            Panel(
                name,
                {method: curves[method].points for method in DRAWN},
                f"Cost ({pools[name].benchmark.cost_unit})",
                points=list(zip(unseen.model_cost, unseen.model_quality, strict=True)),
            )
        )
    return panels


def mean_panels(done: Mapping[str, Sequence[Trial]]) -> list[Panel]:
    """Return each pool's mean deferral curves over trials, on relative cost."""
    return [Panel(name, tables.mean_curves(trials, DRAWN), "Relative cost") for name, trials in done.items()]
