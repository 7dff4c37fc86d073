"""What the RadialRouter chapter shows and records, made from `experiment`'s frames and from the data.

A record is the keyword arguments of `routebook.record.Record.value`, with the key the ledger reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from replications.radialrouter import baselines, experiment, lookups
from replications.radialrouter.baselines import EQ7_UNIT, datasets_of
from replications.radialrouter.experiment import MACRO, SCENARIO_ALPHAS, Routers, Setting
from replications.radialrouter.lookups import DATASETS, LLMS, SCENARIOS
from routebook.benchmark import RoutingBenchmark
from routebook.figures import label
from routebook.significance import Estimate, mean_interval, paired_bootstrap

OURS = "radial-router"
# The trained baselines: "baseline routers" of the paper's percentages, which leave the best candidate aside (RR-5).
TRAINED = ("cosine-classifier", "hybrid-llm", "frugal-gpt", "router-dc", "graph-router")
ROWS = {
    "best-candidate": "Best candidate",
    "random": "Random",
    "cosine-classifier": "CosineClassifier",
    "hybrid-llm": "HybridLLM",
    "frugal-gpt": "FrugalGPT",
    "router-dc": "RouterDC",
    "graph-router": "GraphRouter",
    "radial-router": "RadialRouter",
    "oracle": "Oracle",
}
SHOWN = ("best-candidate", "random", *TRAINED, OURS, "dataset-oracle", "oracle")
LEDGER_UNIT = "USD per 1,000 prompts"
# The source datasets in RouterDC's public files, by which Table 7's split is known (RR-19).
IN_ROUTERDC = ("MBPP", "winograde", "ARC")
Record = dict[str, Any]


def _record(id: str, estimate: Estimate, unit: str = "", factor: float = 1.0) -> Record:
    value, low, high = (factor * x for x in (estimate.estimate, estimate.low, estimate.high))
    return {"id": id, "value": value, "low": low, "high": high, "n": estimate.n, "unit": unit}


def _in_dollars(benchmark: RoutingBenchmark) -> bool:
    return benchmark.cost_unit == EQ7_UNIT


# --- data and Table 7 ------------------------------------------------------------------------------------------------


def data_table(setting: Setting) -> pd.DataFrame:
    """Return how many prompts of each source dataset are trained on and tested on."""
    counts = {
        part: pd.Series(datasets_of(benchmark)).value_counts()
        for part, benchmark in (("training prompts", setting.train), ("test prompts", setting.test))
    }
    return pd.DataFrame(counts).fillna(0).astype(int).sort_index().rename_axis(None)


def dropped_table(benchmark: RoutingBenchmark, split: str = "test") -> pd.DataFrame:
    """Return, for each source dataset, the prompts of a split as loaded, those every LLM answered, and what is dropped.

    `benchmark` is as the loader gives it, gaps included; without a split all its prompts count.
    """
    here = benchmark.subset(benchmark.split == split) if benchmark.split is not None else benchmark
    datasets = datasets_of(here)
    rows = {}
    for dataset in np.unique(datasets):
        at = datasets == dataset
        complete = here.complete_rows[at].sum()
        rows[dataset] = {"as loaded": at.sum(), "complete": complete, "dropped": at.sum() - complete}
    return pd.DataFrame.from_dict(rows, orient="index")


def llm_means(benchmark: RoutingBenchmark) -> pd.DataFrame:
    """Return Table 7 for any pool: accuracy of each LLM on each source dataset, the macro averages `Perf.` and `Cost`.

    One row an LLM, in the pool's order.
    """
    datasets = datasets_of(benchmark)
    names = sorted(set(datasets))
    parts = [datasets == name for name in names]
    quality = {name: benchmark.quality[part].mean(axis=0) for name, part in zip(names, parts, strict=True)}
    frame = pd.DataFrame(quality, index=list(benchmark.models))
    frame["Perf."] = frame[names].mean(axis=1)
    frame["Cost"] = np.mean([benchmark.cost[part].mean(axis=0) for part in parts], axis=0)
    return frame


def table7(benchmark: RoutingBenchmark) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `llm_means` of the test prompts, and the table as shown: ours over the paper's, cells that agree marked.

    On another pool than RouterBench there is nothing to compare with and the numbers are shown alone.
    """
    numbers = llm_means(benchmark)
    if not _in_dollars(benchmark):
        return numbers, numbers.map("{:.4f}".format)
    printed = lookups.published()["table-7"]
    columns = {name: column for column, name in DATASETS.items() if name in numbers} | {
        "Perf.": "Perf.",
        "Cost": "Cost",
    }
    shown = {}
    for row, model in LLMS.items():
        cells = {}
        for name, column in columns.items():
            ours, theirs = numbers.loc[model, name], printed[row, column].printed
            digits = 3 if name == "Cost" else 4
            mark = "" if name in ("Perf.", "Cost") else " ✓" if _agrees(ours, row, column) else " ✗"
            cells[f"{name}{' ($ per 1,000)' if name == 'Cost' else ''}"] = (
                f"{ours:.{digits}f}{mark}<br><small>{theirs}</small>"
            )
        shown[row] = cells
    return numbers, pd.DataFrame.from_dict(shown, orient="index")


def _agrees(ours: float, row: str, column: str) -> bool:
    """Whether an accuracy rounds to the printed one of Table 7."""
    return abs(ours - lookups.value(lookups.published()["table-7"], row, column)) <= 0.5e-4 + 1e-12


def table7_records(benchmark: RoutingBenchmark) -> Iterator[Record]:
    """Yield what the ledger reads about Table 7: every cell that is here, how many agree, and the unit of cost.

    `cost-unit/ratio` is the mean over LLMs of our mean dollars of 1,000 prompts to the printed cost (RR-12). Nothing
    on another pool than RouterBench.
    """
    if not _in_dollars(benchmark):
        return
    numbers, printed = llm_means(benchmark), lookups.published()["table-7"]
    equal, ratios = 0, []
    for row, model in LLMS.items():
        for column, name in DATASETS.items():
            if name in numbers:
                ours = numbers.loc[model, name]
                equal += column in IN_ROUTERDC and _agrees(ours, row, column)
                yield {"id": f"table-7/{name}/{lookups.slug(row)}", "value": ours, "unit": "fraction"}
        yield {
            "id": f"table-7/performance/{lookups.slug(row)}",
            "value": numbers.loc[model, "Perf."],
            "unit": "fraction",
        }
        yield {"id": f"table-7/cost/{lookups.slug(row)}", "value": numbers.loc[model, "Cost"], "unit": LEDGER_UNIT}
        ratios.append(numbers.loc[model, "Cost"] / lookups.value(printed, row, "Cost"))
    yield {"id": "table-7/cells-equal", "value": equal}
    yield {"id": "cost-unit/ratio", "value": float(np.mean(ratios)), "n": len(ratios)}


def dollars_per_prompt(benchmark: RoutingBenchmark) -> lookups.Costs | None:
    """Return mean dollars of 1,000 prompts by source dataset and LLM (`lookups.costs_per_thousand`); None elsewhere."""
    if not _in_dollars(benchmark):
        return None
    return lookups.costs_per_thousand(benchmark.with_cost(benchmark.cost / 1000, baselines.DOLLARS))


# --- Table 1 ---------------------------------------------------------------------------------------------------------


def table1_records(frame: pd.DataFrame, benchmark: RoutingBenchmark) -> Iterator[Record]:
    """Yield what the ledger reads about Table 1: values, differences to RadialRouter, shares of the Oracle, leads."""
    for scenario, alpha in SCENARIO_ALPHAS.items():
        yield from _values(frame, f"table-1/{scenario}", alpha, list(ROWS), benchmark, score=True)
        for method in SHOWN:
            if method not in (OURS, "oracle"):
                found = experiment.difference(frame, OURS, method, alpha)
                yield _record(f"table-1/{scenario}/score-difference/{OURS}/{method}", found)
        wide = experiment.by_seed(frame, "score", alpha)
        share = mean_interval((wide[OURS] / wide["oracle"]).to_numpy())
        yield _record(f"table-1/{scenario}/share-of-oracle", share, "%", 100.0)
        rival = best_baseline(frame, alpha)
        lead = mean_interval((wide[OURS] / wide[rival] - 1).to_numpy())
        yield _record(f"table-1/{scenario}/lead-percent", lead, "%", 100.0)


def best_baseline(frame: pd.DataFrame, alpha: float) -> str:
    """Return the trained baseline with the highest mean score at this alpha."""
    return experiment.by_seed(frame, "score", alpha)[list(TRAINED)].mean().idxmax()


def _values(
    frame: pd.DataFrame, prefix: str, alpha: float, methods: Sequence[str], benchmark: RoutingBenchmark, score: bool
) -> Iterator[Record]:
    """Yield macro-averaged performance, cost (where it is in dollars) and, if asked for, score."""
    columns = {"performance": "fraction"} | ({"cost": LEDGER_UNIT} if _in_dollars(benchmark) else {})
    columns |= {"score": ""} if score else {}
    for column, unit in columns.items():
        found = experiment.summary(frame, column, alpha)
        for method in methods:
            row = found.loc[method]
            record = {"value": row.value, "low": row.low, "high": row.high, "n": int(row.n), "unit": unit}
            yield {"id": f"{prefix}/{column}/{method}", **record}


def table1(frame: pd.DataFrame, benchmark: RoutingBenchmark) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return Table 1: the numbers, and as shown with the paper's below ours on RouterBench.

    Bold: the best score of those that are not told the answers (all but the Oracle).
    """
    numbers: dict[str, dict[str, float]] = {m: {} for m in SHOWN}
    shown: dict[str, dict[str, str]] = {label(m): {} for m in SHOWN}
    printed = lookups.published()["table-1"] if _in_dollars(benchmark) else {}
    for scenario, alpha in SCENARIO_ALPHAS.items():
        name = next(s for s in SCENARIOS if experiment.key_of(s) == scenario)
        for column, head in (("performance", "Perf."), ("cost", "Cost"), ("score", "Score")):
            found = experiment.summary(frame, column, alpha).loc[list(SHOWN)]
            best = found["value"].drop("oracle").idxmax() if column == "score" else None
            for method, row in found.iterrows():
                numbers[method][f"{name} / {head}"] = row.value
                theirs = printed.get((ROWS.get(method, ""), f"{name} / {head}"))
                shown[label(method)][f"{name}: {head}"] = _cell(row, theirs, bold=method == best)
    return pd.DataFrame.from_dict(numbers, orient="index"), pd.DataFrame.from_dict(shown, orient="index")


def _cell(row: pd.Series, theirs: Any, bold: bool) -> str:
    text = f"<b>{row.value:.3f}</b>" if bold else f"{row.value:.3f}"
    if np.isfinite(row.low) and row.high > row.low:
        text += f" <small>±{row.high - row.value:.3f}</small>"
    return text + (f"<br><small>{theirs.printed}</small>" if theirs is not None else "")


# --- Table 9 and Figure 4 --------------------------------------------------------------------------------------------


def table9_records(frame: pd.DataFrame, alphas: Sequence[float], benchmark: RoutingBenchmark) -> Iterator[Record]:
    """Yield what the ledger reads about Table 9 and Figure 4, at the given trade-offs."""
    methods = [*TRAINED, OURS]
    datasets = [name for name in dict.fromkeys(frame["dataset"]) if name != MACRO]
    for alpha in alphas:
        prefix = f"table-9/alpha-{alpha:g}"
        yield from _values(frame, prefix, alpha, methods, benchmark, score=False)
        for dataset in datasets:
            found = experiment.summary(frame, "performance", alpha, dataset)
            for method in methods:
                row = found.loc[method]
                record = {"value": row.value, "low": row.low, "high": row.high, "n": int(row.n), "unit": "fraction"}
                yield {"id": f"{prefix}/{dataset}/{method}", **record}
        for method in TRAINED:
            found = experiment.difference(frame, OURS, method, alpha)
            yield _record(f"{prefix}/score-difference/{OURS}/{method}", found)


def table9(frame: pd.DataFrame, alphas: Sequence[float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return Table 9: mean accuracy on each dataset, macro averages of performance and cost, by method and alpha."""
    numbers, shown = {}, {}
    datasets = [name for name in dict.fromkeys(frame["dataset"]) if name != MACRO]
    for method in (*TRAINED, OURS, "dataset-oracle"):
        for alpha in alphas:
            row = {d: experiment.summary(frame, "performance", alpha, d).loc[method, "value"] for d in datasets}
            row["Perf."] = experiment.summary(frame, "performance", alpha).loc[method, "value"]
            row["Cost"] = experiment.summary(frame, "cost", alpha).loc[method, "value"]
            numbers[f"{method} | alpha={alpha:g}"] = row
            shown[f"{label(method)}, α = {alpha:g}"] = {
                name: f"{value:.3f}" if name == "Cost" else f"{value:.4f}" for name, value in row.items()
            }
    return pd.DataFrame.from_dict(numbers, orient="index"), pd.DataFrame.from_dict(shown, orient="index")


Line = tuple[list[float], list[float]]


def score_lines(frame: pd.DataFrame, alphas: Sequence[float], methods: Sequence[str] = SHOWN) -> dict[str, Line]:
    """Return each method's mean score against alpha (Figure 4, left)."""
    scores = {alpha: experiment.summary(frame, "score", alpha)["value"] for alpha in alphas}
    return {m: (list(alphas), [float(scores[alpha][m]) for alpha in alphas]) for m in methods}


def plane(
    frame: pd.DataFrame, alphas: Sequence[float], methods: Sequence[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return each method's mean cost and performance, one point an alpha, cheapest first (Figure 4, right)."""
    points = {}
    for method in methods:
        means = [
            [experiment.summary(frame, c, a).loc[method, "value"] for a in alphas] for c in ("cost", "performance")
        ]
        cost, performance = map(np.array, means)
        order = np.argsort(cost, kind="stable")
        points[method] = (cost[order], performance[order])
    return points


def llm_points(benchmark: RoutingBenchmark) -> dict[str, tuple[float, float]]:
    """Return each LLM's macro-averaged cost and accuracy on the test prompts."""
    means = llm_means(benchmark)
    return {model.split("/")[-1]: (row["Cost"], row["Perf."]) for model, row in means.iterrows()}


# --- does the router read the query? ---------------------------------------------------------------------------------


def most_used(routers: Routers, setting: Setting) -> pd.DataFrame:
    """Return, for each router and source dataset, which LLM it sends most test prompts to, and their share.

    Columns: `method`, `alpha`, `seed`, `dataset`, `llm`, `share` (1: the dataset goes to one LLM, as in a lookup). For
    routers with several draws it is the share over all draws.
    """
    datasets, rows = datasets_of(setting.test), []
    for method, some in routers.items():
        for router in some:
            choice = np.atleast_2d(experiment.route(router, setting).choice)
            for dataset in np.unique(datasets):
                counts = np.bincount(choice[:, datasets == dataset].ravel(), minlength=len(setting.test.models))
                llm = setting.test.models[int(counts.argmax())]
                where = {"method": method, "alpha": router.alpha, "seed": router.seed, "dataset": str(dataset)}
                rows.append(where | {"llm": llm.split("/")[-1], "share": counts.max() / counts.sum()})
    return pd.DataFrame(rows)


def share_matrix(used: pd.DataFrame, methods: Sequence[str] = (*TRAINED, OURS)) -> pd.DataFrame:
    """Return the mean share over datasets and seeds, methods by alpha: our counterpart of `lookups.match_share`."""
    matrix = used.pivot_table(index="method", columns="alpha", values="share", aggfunc="mean").loc[list(methods)]
    return matrix.set_axis([label(m) for m in methods]).set_axis([f"{a:g}" for a in matrix.columns], axis=1)


def share_table(used: pd.DataFrame, method: str = OURS) -> pd.DataFrame:
    """Return a method's most used LLM on each dataset at each alpha, with its share of the prompts, mean over seeds.

    The LLM is the one most seeds use most.
    """
    cells: dict[str, dict[str, str]] = {}
    for (alpha, dataset), part in used[used["method"] == method].groupby(["alpha", "dataset"]):
        llm = part["llm"].mode().iloc[0]
        cells.setdefault(f"α = {alpha:g}", {})[dataset] = f"{llm}<br><small>{part['share'].mean():.0%}</small>"
    return pd.DataFrame.from_dict(cells, orient="index")


def prompt_scores(routers: Sequence[experiment.AnyRouter], setting: Setting, alpha: float) -> np.ndarray:
    """Return each test prompt's score, mean over routers, weighted so that its plain mean is the macro average, [N]."""
    weights = baselines.macro_weights(datasets_of(setting.test)) * len(setting.test)
    each = []
    for router in routers:
        routed = experiment.route(router, setting)
        each.append(np.atleast_2d(routed.quality - alpha * routed.cost).mean(axis=0))  # Eq. (7)
    return weights * np.mean(each, axis=0)


def against_dataset_oracle(routers: Routers, setting: Setting, alphas: Sequence[float]) -> dict[float, Estimate]:
    """Return RadialRouter's score minus DatasetOracle's at each alpha, paired over the test prompts (bootstrap).

    RadialRouter's score of a prompt is the mean over its seeds.
    """
    found = {}
    for alpha in alphas:
        ours, told = (
            prompt_scores([r for r in routers[method] if r.alpha == alpha], setting, alpha)
            for method in (OURS, "dataset-oracle")
        )
        found[alpha] = paired_bootstrap(ours, told)
    return found


def against_table(frame: pd.DataFrame, over_prompts: Mapping[float, Estimate]) -> pd.DataFrame:
    """Return the difference to DatasetOracle at each alpha with both intervals: over seeds and over prompts."""
    rows = {}
    for alpha, prompts in over_prompts.items():
        seeds = experiment.difference(frame, OURS, "dataset-oracle", alpha)
        rows[f"α = {alpha:g}"] = {
            "RadialRouter − DatasetOracle": f"{seeds.estimate:+.4f}",
            "95 % over seeds": f"[{seeds.low:+.4f}, {seeds.high:+.4f}]",
            "95 % over prompts": f"[{prompts.low:+.4f}, {prompts.high:+.4f}]",
            "p": f"{prompts.p_value:.3g}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")
