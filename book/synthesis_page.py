"""What the synthesis shows and records, made from `synthesis`'s frames.

A record is the keyword arguments of `routebook.record.Record.value`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from book import synthesis
from book.ranks import Ranking, rank_plot, ranking
from book.synthesis import ADD, BASELINES, METHODS, NEW_LLMS, PAPERS, RETRAINED, STATIC, TRAIN, WHOLE, at, settings_of
from replications.cscr.experiment import PoolSetting, by_seed, cost_unit
from replications.cscr.experiment import difference as paired
from replications.cscr.tables import as_record, cell, place
from routebook import figures
from routebook.deferral import mean_curve
from routebook.figures import Panel, label
from routebook.significance import Estimate, mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from book.synthesis import Outcome
    from routebook.pages import SynthesisParams

Record = dict[str, Any]
BETTER, WORSE, ALIKE = "surely better", "surely worse", "not told apart"
# A block with fewer test prompts in some split is left out of the ranks.
MIN_BLOCK = 20
RIVALS = ("dataset-oracle", "k-nn")
NEW_RIVALS = ("zero-router", "k-nn")
# Lines of the deferral figure: what would only hide others is in the tables.
DRAWN = ("oracle", *PAPERS, "k-nn", "mlp", "zero-router", "dataset-oracle")
RANKED = (*PAPERS, *(method for method in BASELINES if method != "best-single"))
PLACES = {"routerdc": "RouterDC's pool"}
# The colours of all pages, with dashes that tell apart methods whose chapters chose neighbouring ones.
LOOKS = figures.METHODS | {
    method: replace(figures.METHODS[method], dash=dash)
    for method, dash in {"cscr": (0, (6, 2)), "radial-router": (0, (3, 1)), "semirouter-emb": (0, (8, 2, 2, 2))}.items()
}
METRICS = {"area": "{:.3f}", "qnc": "{:.3f}", "peak": "{:.3f}"}
HOLDS, CONTRADICTED, OPEN = "holds", "contradicted", "open"
_AS_EXPECTED = {BETTER: HOLDS, WORSE: CONTRADICTED, ALIKE: OPEN}


@dataclass(frozen=True)
class Expectation:
    """What a paper would lead one to expect here: the area of `a` is above that of `b`."""

    id: str
    paper: str
    a: str
    b: str
    setting: str


EXPECTATIONS = (
    Expectation("uniroute", "UniRoute, Section 6", "k-means", "k-nn", NEW_LLMS),
    Expectation("cscr-new", "CSCR, Table 2", "cscr", "k-means", NEW_LLMS),
    Expectation("cscr-other", "CSCR, Table 3", "cscr", "k-means", "without-"),
    Expectation("radialrouter", "RadialRouter, Table 2", "radial-router", "mlp", STATIC),
    Expectation("semirouter", "SemiRouter, Table 1", "semirouter-emb", "lora-retriever", "labels-"),
)


def pool_name(pool: str) -> str:
    """Return a pool's name as readers see it."""
    return PLACES.get(pool) or place(pool)


def setting_name(setting: str) -> str:
    """Return a setting as readers see it."""
    if setting.startswith("labels-"):
        return f"{float(setting.removeprefix('labels-')):.0%} of labels"
    if setting.startswith("without-"):
        return f"without {setting.removeprefix('without-')}"
    return {STATIC: "static pool", NEW_LLMS: "new LLMs"}[setting]


def listed(methods: Sequence[str]) -> str:
    """Return methods as a list in words; "none" for none."""
    names = [label(method) for method in methods]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "none"


def verdict(estimate: Estimate) -> str:
    """Say what the interval of a difference says of its first method."""
    return BETTER if estimate.low > 0 else WORSE if estimate.high < 0 else ALIKE


# --- tables ----------------------------------------------------------------------------------------------------------


def overview(pools: Mapping[str, PoolSetting], outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Return one row a pool: LLMs, prompts, sources, cost, fingerprints and data tier."""
    rows = {}
    for name, pool in pools.items():
        run = next(o.run for o in outcomes if o.setting == STATIC and o.run.split.name == name)
        cost = pool.benchmark.mean_cost
        rows[pool_name(name)] = {
            "LLMs": len(pool.benchmark.models),
            "prompts to train on": len(run.split.train),
            "to test on": len(run.split.test),
            "source datasets": len(np.unique(synthesis.blocks_of(pool.benchmark))),
            "quality": pool.benchmark.quality_kind,
            "cost in": cost_unit(pool.benchmark)[0],
            "dearest / cheapest LLM": f"{cost.max() / cost.min():.3g}",
            "fingerprints": "yes" if pool.descriptors else "no",
            "data": pool.benchmark.origin,
            "absent": ", ".join(pool.benchmark.absent) or "nothing",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("pool")


def estimates(frame: pd.DataFrame, metric: str = "area") -> dict[str, Estimate]:
    """Return the mean of a metric over the seeds of one setting and pool with its interval, by method."""
    by_method = frame.groupby("method", sort=False)[metric]
    return {method: mean_interval(values.to_numpy(dtype=float)) for method, values in by_method}


def metric_table(columns: Mapping[str, tuple[pd.DataFrame, str]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return metrics as numbers and as shown: one row a method, the best but for the Oracle in bold.

    Parameters
    ----------
    columns
        Heading to the rows of one setting and pool, and a metric.
    """
    numbers, shown = {}, {}
    for head, (frame, metric) in columns.items():
        found = estimates(frame, metric)
        ours = {method: e.estimate for method, e in found.items() if method != "oracle"}
        best = (min if metric == "qnc" else max)(ours, key=ours.get)
        numbers[head] = {method: e.estimate for method, e in found.items()}
        shown[head] = {method: cell(e, METRICS[metric], method == best) for method, e in found.items()}
    rows = [method for method in METHODS if any(method in column for column in numbers.values())]
    numbers, shown = pd.DataFrame(numbers).reindex(rows), pd.DataFrame(shown).reindex(rows)
    names = [label(method) for method in rows]
    return numbers.set_axis(names), shown.set_axis(names).fillna("–")


def pool_records(frame: pd.DataFrame) -> Iterator[Record]:
    """Yield what is recorded of one pool: areas everywhere, QNC and peak of the static pool, differences and losses."""
    (pool,) = set(frame["pool"])
    for setting in dict.fromkeys(frame["setting"]):
        here = at(frame, setting)
        for metric in METRICS if setting == STATIC else ("area",):
            for method, estimate in estimates(here, metric).items():
                unit = "fraction" if metric == "qnc" else metric
                yield as_record(f"{setting}/{pool}/{metric}/{method}", estimate, unit)
        for rival in rivals_in(setting):
            for method, estimate in differences(here, rival, (*PAPERS, *BASELINES)).items():
                yield as_record(f"{setting}/{pool}/{method}-minus-{rival}/area", estimate, "area")
    if settings_of(frame, "labels-"):
        yield from loss_records(sparse_losses(frame), "sparse")
    if settings_of(frame, "without-"):
        yield from loss_records(other_prompt_losses(frame), "other-prompts")


def rivals_in(setting: str) -> tuple[str, ...]:
    """Return whom every method is compared with in a setting."""
    if setting.startswith("with-"):
        return ()
    if setting.startswith("without-"):
        return ("zero-router",)
    return {STATIC: RIVALS, NEW_LLMS: NEW_RIVALS}.get(setting, ("k-nn",))


def differences(frame: pd.DataFrame, rival: str, methods: Sequence[str]) -> dict[str, Estimate]:
    """Return each method's area less the rival's, paired over the seeds of one setting and pool."""
    (pool,) = set(frame["pool"])
    wide = by_seed(frame, pool)
    return {
        m: mean_interval((wide[m] - wide[rival]).to_numpy(dtype=float)) for m in methods if m in wide and m != rival
    }


def verdict_table(frame: pd.DataFrame, setting: str, rivals: Sequence[str]) -> pd.DataFrame:
    """Return the four papers' methods against each rival in words: one row a method, one column a rival and pool."""
    columns = {}
    for rival in rivals:
        for pool in dict.fromkeys(at(frame, setting)["pool"]):
            found = differences(at(frame, setting, pool), rival, PAPERS)
            columns[f"than {label(rival)}, {pool_name(pool)}"] = {m: verdict(e) for m, e in found.items()}
    shown = pd.DataFrame(columns).reindex(list(PAPERS)).fillna("–")
    return shown.set_axis([label(method) for method in shown.index])


def verdict_counts(frame: pd.DataFrame, setting: str, rival: str) -> dict[str, int]:
    """Return how many differences between the papers' methods and a rival have each verdict, over all pools."""
    pools = dict.fromkeys(at(frame, setting)["pool"])
    said = [verdict(e) for p in pools for e in differences(at(frame, setting, p), rival, PAPERS).values()]
    return {word: said.count(word) for word in (BETTER, WORSE, ALIKE)}


def on_pools(frame: pd.DataFrame, setting: str, rival: str) -> str:
    """Say on how many pools each of the papers' methods is surely better than a rival, such as "CSCR on 1 of 2"."""
    better: dict[str, list[bool]] = {}
    for pool in dict.fromkeys(at(frame, setting)["pool"]):
        for method, estimate in differences(at(frame, setting, pool), rival, PAPERS).items():
            better.setdefault(method, []).append(verdict(estimate) == BETTER)
    return ", ".join(f"{label(method)} on {sum(found)} of {len(found)}" for method, found in better.items())


def leaders(frame: pd.DataFrame, setting: str) -> str:
    """Name the router with the largest mean area on each pool, such as "MLP on RouterBench"."""
    said = []
    for pool in dict.fromkeys(at(frame, setting)["pool"]):
        found = estimates(at(frame, setting, pool))
        best = max((m for m in found if m != "oracle"), key=lambda m: found[m].estimate)
        said.append(f"{label(best)} on {pool_name(pool)}")
    return ", ".join(said)


def least_loss(losses: pd.DataFrame) -> str:
    """Name the paper's method that loses least on each pool, such as "SemiRouter (EMB) on RouterBench"."""
    ours = losses[losses["method"].isin(PAPERS)]
    best = ours.loc[ours.groupby("pool", sort=False)["value"].idxmin()]
    return ", ".join(f"{label(row.method)} on {pool_name(row.pool)}" for row in best.itertuples())


# --- expectations ----------------------------------------------------------------------------------------------------


def expectation_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return every expectation on every pool of its setting: id, paper, pool, setting, estimate, low, high, verdict.

    Of sparse labels the smallest share counts.
    """
    rows = []
    for expected in EXPECTATIONS:
        settings = settings_of(frame, expected.setting)
        if expected.setting == "labels-":
            settings = sorted(settings, key=lambda setting: float(setting.removeprefix("labels-")))[:1]
        for setting in settings:
            for pool in dict.fromkeys(at(frame, setting)["pool"]):
                estimate = paired(at(frame, setting, pool), pool, expected.a, expected.b)
                bounds = {"value": estimate.estimate, "low": estimate.low, "high": estimate.high, "n": estimate.n}
                said = {"id": expected.id, "paper": expected.paper, "pool": pool, "setting": setting}
                difference = f"{label(expected.a)} − {label(expected.b)}"
                said |= {"difference": difference, "verdict": _AS_EXPECTED[verdict(estimate)]}
                rows.append(said | bounds)
    return pd.DataFrame(rows)


def expectation_table(found: pd.DataFrame) -> pd.DataFrame:
    """Return the expectations as shown, one row each and pool."""
    shown = {
        "paper": found["paper"],
        "difference in area": found["difference"],
        "setting": found["setting"].map(setting_name),
        "pool": found["pool"].map(pool_name),
        "ours": [f"{r.value:+.3f} <small>[{r.low:+.3f}, {r.high:+.3f}]</small>" for r in found.itertuples()],
        "verdict": found["verdict"],
    }
    return pd.DataFrame(shown).set_axis(range(1, len(found) + 1))


def counted(found: pd.DataFrame) -> str:
    """Return verdicts of expectations in words, such as "holds in 1, is contradicted in 0 and is open in 2 of 3"."""
    count = {word: int((found["verdict"] == word).sum()) for word in (HOLDS, CONTRADICTED, OPEN)}
    parts = f"holds in {count[HOLDS]}, is contradicted in {count[CONTRADICTED]} and is open in {count[OPEN]}"
    return f"{parts} of {len(found)}"


# --- all methods at once ---------------------------------------------------------------------------------------------


def blocks(
    frame: pd.DataFrame, pools: Sequence[str], methods: Sequence[str] = RANKED, metric: str = "area"
) -> pd.DataFrame:
    """Return a metric on every source dataset of the static pools, averaged over seeds: [blocks, methods].

    Source datasets with fewer than `MIN_BLOCK` test prompts in some split, or absent from one, are left out.
    """
    here = frame[(frame["setting"] == STATIC) & (frame["source"] != WHOLE) & frame["pool"].isin(pools)]
    seeds = here.groupby("pool")["seed"].nunique()
    sizes = here.drop_duplicates(["pool", "source", "seed"]).groupby(["pool", "source"])["n"].agg(["min", "count"])
    every = sizes["count"].to_numpy() == seeds.loc[sizes.index.get_level_values("pool")].to_numpy()
    kept = sizes.index[(sizes["min"] >= MIN_BLOCK) & every]
    wide = here.pivot_table(index=["pool", "source"], columns="method", values=metric, sort=False)
    return wide.loc[wide.index.isin(kept), list(methods)]


def rankings(frame: pd.DataFrame, origins: Mapping[str, str], metric: str = "area") -> dict[str, Ranking]:
    """Rank all methods on the pools that have fingerprints and, without CSCR, on real pools only, where there are any.

    Parameters
    ----------
    origins
        Each pool's data tier, by name.
    metric

    Returns
    -------
    dict
        Without those that fewer than two blocks are left for.
    """
    described = [pool for pool in origins if synthesis.has_fingerprints(pool)]
    real = [pool for pool, origin in origins.items() if origin == "real"]
    without_cscr = [method for method in RANKED if method != "cscr"]
    chosen = {f"All methods: {_joined(described)}": (described, RANKED)}
    if real:
        chosen[f"Without CSCR, real data only: {_joined(real)}"] = (real, without_cscr)
    tables = {name: blocks(frame, pools, methods, metric) for name, (pools, methods) in chosen.items()}
    return {name: ranking(table) for name, table in tables.items() if len(table) > 1}


def _joined(pools: Sequence[str]) -> str:
    return ", ".join(pool_name(pool) for pool in pools)


def rank_table(found: Mapping[str, Ranking]) -> pd.DataFrame:
    """Return the rankings in words: one row each."""
    rows = {
        name: {
            "source datasets": one.n_blocks,
            "Friedman's p": f"{one.p_value:.2g}",
            "best mean rank": f"{label(one.mean_ranks.index[0])} ({one.mean_ranks.iloc[0]:.1f})",
            "not told apart from it": listed(one.like_the_best[1:]),
            "critical difference": f"{one.difference:.2f}" if one.rejected else "not used",
        }
        for name, one in found.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def rank_figure(found: Mapping[str, Ranking]) -> Figure:
    """Draw the critical-difference diagrams, or say that there are too few prompts for any."""
    if not found:
        return figures.absent_plot(f"No two source datasets have {MIN_BLOCK} test prompts in every split.")
    return rank_plot(found)


def rank_records(found: Mapping[str, Ranking]) -> Iterator[Record]:
    """Yield mean ranks, Friedman's test and the critical difference of each ranking: "all" and "real"."""
    for key, one in zip(("all", "real"), found.values(), strict=False):
        for method, rank in one.mean_ranks.items():
            yield {"id": f"ranks/{key}/{method}", "value": rank, "n": one.n_blocks, "unit": "mean rank"}
        yield {"id": f"ranks/{key}/p-value", "value": one.p_value, "n": one.n_blocks}
        yield {"id": f"ranks/{key}/critical-difference", "value": one.difference, "n": one.n_blocks}


# --- sparse labels and other prompts ---------------------------------------------------------------------------------


def shares_of(frame: pd.DataFrame) -> dict[str, float]:
    """Return the settings with sparse labels and the share each keeps, ascending; the static pool has all."""
    shares = {setting: float(setting.removeprefix("labels-")) for setting in settings_of(frame, "labels-")}
    return dict(sorted(shares.items(), key=lambda item: item[1])) | {STATIC: 1.0}


def sparse_losses(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the area each method loses from all labels to the fewest, paired: pool, method, value, low, high, n."""
    fewest = next(iter(shares_of(frame)))
    return _losses(frame, fewest, STATIC)


def other_prompt_losses(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what each method loses in area where a source was left out of training, paired; `source` names it."""
    parts = [setting.removeprefix("without-") for setting in settings_of(frame, "without-")]
    found = [_losses(frame, synthesis.without(part), synthesis.beside(part)).assign(source=part) for part in parts]
    return pd.concat(found, ignore_index=True)


def _losses(frame: pd.DataFrame, less: str, more: str) -> pd.DataFrame:
    rows = []
    for pool in dict.fromkeys(at(frame, less)["pool"]):
        wide = [
            at(frame, setting, pool).pivot(index="seed", columns="method", values="area") for setting in (more, less)
        ]
        for method in (m for m in METHODS if m in wide[1]):
            found = mean_interval((wide[0][method] - wide[1][method]).to_numpy(dtype=float))
            bounds = {"value": found.estimate, "low": found.low, "high": found.high, "n": found.n}
            rows.append({"pool": pool, "method": method} | bounds)
    return pd.DataFrame(rows)


def loss_records(losses: pd.DataFrame, what: str) -> Iterator[Record]:
    """Yield the losses of `sparse_losses` or `other_prompt_losses`."""
    for row in losses.itertuples():
        where = f"{row.source}/" if hasattr(row, "source") else ""
        bounds = {"low": row.low, "high": row.high} if np.isfinite(row.low) else {}
        record = {"id": f"{what}/{row.pool}/{where}loss/{row.method}", "value": row.value, "n": row.n, "unit": "area"}
        yield record | bounds


def loss_table(losses: pd.DataFrame) -> pd.DataFrame:
    """Return losses as shown: one row a method, one column a pool or source; the smallest of the papers' in bold."""
    column = "source" if "source" in losses else "pool"
    shown = {}
    for name, part in losses.groupby(column, sort=False):
        found = part.set_index("method")
        ours = found["value"][[method for method in PAPERS if method in found.index]]
        head = name if column == "source" else pool_name(name)
        shown[head] = {m: _loss_cell(row, m == ours.idxmin()) for m, row in found.drop("oracle").iterrows()}
    table = pd.DataFrame(shown)
    return table.set_axis([label(method) for method in table.index]).fillna("–")


def _loss_cell(row: pd.Series, bold: bool) -> str:
    return cell(Estimate(row["value"], row["low"], row["high"], int(row["n"]), ""), "{:+.3f}", bold)


# --- cost ------------------------------------------------------------------------------------------------------------


def cost_records(seconds: pd.DataFrame, routing: Mapping[str, float], encoding: float) -> Iterator[Record]:
    """Yield seconds of training and adding on every pool, and milliseconds of routing."""
    for (pool, method, what), part in seconds.groupby(["pool", "method", "what"], sort=False):
        estimate = mean_interval(part["seconds"].to_numpy())
        yield as_record(f"cost/{pool}/{what}/{method}", estimate, "processor seconds")
    for method, milliseconds in routing.items():
        yield {"id": f"cost/route/{method}", "value": milliseconds, "unit": "ms a prompt"}
    yield {"id": "cost/encode", "value": encoding, "unit": "ms a prompt"}


def cost_table(seconds: pd.DataFrame, routing: Mapping[str, float], pool: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return costs on a pool as numbers and as shown, one row a method that learns."""
    here = seconds[seconds["pool"] == pool].pivot_table(index="method", columns="what", values="seconds")
    rows = [method for method in METHODS if method in here.index]
    numbers = here.reindex(rows).assign(route=[routing[method] for method in rows])[[TRAIN, ADD, "route"]]
    heads = ["training (processor s)", "adding an LLM (processor s)", "routing a prompt (ms)"]
    shown = numbers.set_axis(heads, axis=1).map("{:.2g}".format)
    retrained = [method for method in RETRAINED if method in rows]
    shown.loc[retrained, heads[1]] = [f"{text} (retrained)" for text in shown.loc[retrained, heads[1]]]
    names = [label(method) for method in rows]
    return numbers.set_axis(heads, axis=1).set_axis(names), shown.set_axis(names)


# --- summary ---------------------------------------------------------------------------------------------------------


def summary_values(frame: pd.DataFrame) -> dict[str, int]:
    """Return counts the prose quotes, of differences between the papers' methods and a rival over all pools.

    `<setting>/<rival>/<better, worse, alike, all>`, for the other prompts over all sources; and `intervals`, the number
    of differences to rivals that the page looks at.
    """
    asked = {
        "static": (STATIC, RIVALS),
        "new": (NEW_LLMS, NEW_RIVALS),
        "sparse": (next(iter(shares_of(frame))), ("k-nn",)),
    }
    values = {}
    for name, (setting, rivals) in asked.items():
        for rival in rivals:
            values |= _counts(f"{name}/{rival}", verdict_counts(frame, setting, rival))
    others = [verdict_counts(frame, setting, "zero-router") for setting in settings_of(frame, "without-")]
    values |= _counts("other/zero-router", {word: sum(o[word] for o in others) for word in (BETTER, WORSE, ALIKE)})
    values["intervals"] = sum(
        "-minus-" in found["id"] for _, part in frame.groupby("pool") for found in pool_records(part)
    )
    return values


def _counts(name: str, count: Mapping[str, int]) -> dict[str, int]:
    keys = {BETTER: "better", WORSE: "worse", ALIKE: "alike"}
    return {f"{name}/{keys[word]}": n for word, n in count.items()} | {f"{name}/all": sum(count.values())}


def summary_texts(frame: pd.DataFrame, found: Mapping[str, Ranking], pools: Sequence[str]) -> dict[str, str]:
    """Return the words the prose quotes: names of pools and leaders, and verdicts; `found` as from `rankings`."""
    expected = expectation_frame(frame)
    main = next(pool for pool in pools if synthesis.has_fingerprints(pool))
    best = next(iter(found.values())).like_the_best if found else []
    texts = {
        "main": pool_name(main),
        "leaders/static": leaders(frame, STATIC),
        "leaders/new": leaders(frame, NEW_LLMS),
        "least-loss/sparse": least_loss(sparse_losses(frame)),
        "fewest": f"{next(iter(shares_of(frame).values())):.0%}",
        "rank/best": listed(best[:1]),
        "rank/like-it": listed(best[1:]),
    }
    texts |= {f"on-pools/static/{rival}": on_pools(frame, STATIC, rival) for rival in RIVALS}
    texts |= {f"on-pools/new/{rival}": on_pools(frame, NEW_LLMS, rival) for rival in NEW_RIVALS}
    texts |= {f"expected/{e.id}": counted(expected[expected["id"] == e.id]) for e in EXPECTATIONS}
    return texts


# --- figures ---------------------------------------------------------------------------------------------------------


def deferral_figure(outcomes: Sequence[Outcome]) -> Figure:
    """Draw the mean deferral curves over seeds of the static pools, one panel a pool."""
    static = [outcome.run for outcome in outcomes if outcome.setting == STATIC]
    panels = []
    for pool in dict.fromkeys(run.split.name for run in static):
        runs = [run for run in static if run.split.name == pool]
        curves = {}
        for method in (method for method in DRAWN if method in runs[0].curves):
            mean = mean_curve([run.curves[method] for run in runs], left="flat")
            curves[method] = mean.relative_cost, mean.quality
        panels.append(Panel(pool_name(pool), curves, "Mean cost (0: cheapest LLM, 1: dearest)"))
    return figures.grid_plot(panels, ylabel="Mean quality on test prompts", looks=LOOKS)


def sparse_figure(frame: pd.DataFrame) -> Figure:
    """Draw area against the share of labels, one panel a pool that was thinned."""
    shares = shares_of(frame)
    panels = []
    for pool in dict.fromkeys(at(frame, next(iter(shares)))["pool"]):
        by_share = {setting: estimates(at(frame, setting, pool)) for setting in shares}
        lines = {}
        for method in (m for m in DRAWN[1:] if m in by_share[STATIC]):
            lines[method] = list(shares.values()), [by_share[setting][method].estimate for setting in shares]
        panels.append(Panel(pool_name(pool), lines, "Share of labels kept"))
    return figures.grid_plot(panels, ylabel="Area under the deferral curve", logx=True, looks=LOOKS)


def difference_figure(
    panels: Mapping[tuple[str, str], Mapping[str, Estimate]], *, columns: int, xlabel: str = "Difference in area"
) -> Figure:
    """Draw differences with their intervals: right of zero a method is ahead of its panel's rival.

    Parameters
    ----------
    panels
        (title, rival) to method to difference; row after row of so many `columns`, or of two where more than three
        would be too small to read.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns

    methods = [m for m in METHODS if any(m in found for found in panels.values())]
    columns = columns if columns <= 3 else 2
    rows = -(-len(panels) // columns)
    with figures.style():
        size = (2.6 * columns + 1.6, (0.27 * len(methods) + 0.85) * rows)
        figure, grid = plt.subplots(rows, columns, figsize=size, sharey=True, sharex="col", squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes, ((title, rival), found) in zip(grid.flat, panels.items(), strict=False):
            _draw_differences(axes, found, methods)
            axes.set_title(f"{title}: less {label(rival)}", fontsize=9.5, color=figures.INK)
        for axes in grid[-1]:
            axes.set_xlabel(xlabel)
        sns.despine(figure, left=True)
        figure.tight_layout()
    return figure


def _draw_differences(axes: Axes, found: Mapping[str, Estimate], methods: Sequence[str]) -> None:
    axes.axvline(0, color=figures.INK, lw=1)
    for y, method in enumerate(reversed(methods)):
        if method in found:
            estimate, colour = found[method], figures.METHODS[method].colour
            axes.plot([estimate.low, estimate.high], [y, y], color=colour, lw=2)
            axes.plot(estimate.estimate, y, marker=figures.METHODS[method].marker, color=colour, ms=5)
    axes.set_yticks(range(len(methods)), [label(method) for method in reversed(methods)])
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x", lw=0.6)


def difference_panels(
    frame: pd.DataFrame, settings: Sequence[str], rivals: Sequence[str], methods: Sequence[str] = RANKED
) -> dict[tuple[str, str], dict[str, Estimate]]:
    """Return what `difference_figure` draws: one panel a rival, setting and pool."""
    found = {}
    for rival in rivals:
        for setting in settings:
            for pool in dict.fromkeys(at(frame, setting)["pool"]):
                title = setting_name(setting) if setting.startswith("without-") else pool_name(pool)
                found[title, rival] = differences(at(frame, setting, pool), rival, methods)
    return found


def cost_values(seconds: pd.DataFrame, routing: Mapping[str, float], encoding: float, pool: str) -> dict[str, float]:
    """Return what the prose quotes of costs: extremes of training on a pool, and of routing against encoding."""
    here = seconds[(seconds["pool"] == pool) & (seconds["what"] == TRAIN)].groupby("method")["seconds"].mean()
    ours = here[[method for method in PAPERS if method in here.index]]
    times = {method: routing[method] for method in PAPERS if method in routing}
    return {
        "cost/train/most": float(ours.max()),
        "cost/train/least": float(ours.min()),
        "cost/route/most": max(times.values()),
        "cost/route/slower-than-encoding": sum(time > encoding for time in times.values()),
        "cost/route/all": len(times),
    }


def own_records(own: pd.DataFrame) -> Iterator[Record]:
    """Yield what RadialRouter gains by training at its own trade-off, quality against the swept router's."""
    for alpha, part in own.groupby("alpha"):
        yield as_record(f"own/alpha-{alpha:g}/gain", mean_interval(part["gain"].to_numpy(dtype=float)), "quality")


def own_table(own: pd.DataFrame) -> pd.DataFrame:
    """Return the gains of `own_records` as shown, with their verdicts."""
    gains = {
        f"α = {alpha:g}": mean_interval(part["gain"].to_numpy(dtype=float)) for alpha, part in own.groupby("alpha")
    }
    rows = {name: [cell(gain, "{:+.3f}"), verdict(gain)] for name, gain in gains.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["gain in quality", "its own training is"])


def setup_table(params: SynthesisParams) -> pd.DataFrame:
    """Return what each method is trained with, from its own chapter's parameters."""
    rooms = synthesis.rooms_of(params)
    names = {
        "UniRoute (both), K-NN, MLP": (rooms.uniroute, ("n_validation", "kmeans_starts")),
        "CSCR": (rooms.cscr, ("n_bands", "gamma", "alpha", "tau_min", "k", "hidden", "epochs", "min_steps", "lr")),
        "RadialRouter": (rooms.radialrouter, ("layers", "width", "heads", "steps", "lr", "contrast", "n_groups")),
        "SemiRouter (EMB), LoraRetriever": (
            rooms.semirouter,
            ("loss", "alpha", "lam", "margin", "epochs", "lr", "backbone_epochs", "n_random", "n_clusters"),
        ),
    }
    said = {
        name: ", ".join(f"{parameter} = {getattr(room, parameter)}" for parameter in parameters)
        for name, (room, parameters) in names.items()
    }
    return pd.DataFrame.from_dict(said, orient="index", columns=["parameters of its chapter"])
