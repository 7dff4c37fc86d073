"""What the SemiRouter chapter shows and records, made from `experiment`'s frames and from the data.

A record is the keyword arguments of `routebook.record.Record.value`, with the key the ledger reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from replications.semirouter import cells, experiment, parameter_counts
from replications.semirouter.experiment import EIGHT, MACRO, METRICS, Fitted, Setting, in_dollars
from replications.semirouter.semi_router import SCORE_WEIGHT
from routebook import figures
from routebook.benchmark import RoutingBenchmark
from routebook.routers import observed_mean
from routebook.significance import Estimate, mean_interval, paired_bootstrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from replications.semirouter.params import SemiRouterParams

Record = dict[str, Any]
PRINTED_WEIGHT = 0.6  # Eq. (10)
WEIGHTS = {"score-printed": PRINTED_WEIGHT, "score-613": SCORE_WEIGHT}
# Rows of Table 1 to our methods, in the paper's order.
TABLE_1 = {
    "bert-full": cells.FULL_DATA,
    "zooter": "ZOOTER (Lu et al., 2023)",
    "lora-retriever": "LoraRetriever (Hu et al., 2022)",
    "router-dc-ss": "RouterDC (Chen et al., 2024)",
    "semirouter-att": "RadialRouter (Jin et al., 2025)",
    "semirouter-mlp": cells.MLP,
    "semirouter-emb": cells.EMB,
}
RIVALS = ("semirouter-mlp", "bert-full", "zooter", "lora-retriever", "router-dc-ss", "semirouter-att")
TABLE_2 = {"bert": "BERT", "att": cells.ATT, "mlp": cells.MLP, "emb": cells.EMB}
PAIRS_3 = (("full", "div"), ("full", "anchor"), ("anchor", "div"), ("div", "none"))
# Table 4 in the paper's order, by the names of Table 6.
REMOVED = {
    "meta/code-llama-instruct-34b-chat": "-w/o Code-Llama-34B",
    "WizardLM/WizardLM-13B-V1.2": "-w/o WizardLM-13B",
    "meta/llama-2-70b-chat": "-w/o Llama-2-70B",
    "mistralai/mixtral-8x7b-chat": "-w/o Mixtral-8x7B",
    "claude-instant-v1": "-w/o Claude-Instant",
    "mistralai/mistral-7b-chat": "-w/o Mistral-7B",
}
# Columns of Table 4 by source dataset, as it spells them.
COLUMNS_4 = {name: column for column, name in cells.SIX.items()} | {"winogrande": "Winograde"}
# LLMs have no colour of their own in the book; in Figure 1 they borrow those of methods that the page does not draw.
RADAR_LOOKS = (
    "k-means",
    "k-nn",
    "dataset-oracle",
    "retrained-mlp",
    "clairvoyant-matfac",
    "learned-map",
    "clairvoyant-mlp",
    "oracle",
    "retrained-matfac",
    "best-single",
)


def record_of(id: str, estimate: Estimate, unit: str = "", factor: float = 1.0) -> Record:
    """Return an estimate as a record, times `factor`."""
    value, low, high = (factor * x for x in (estimate.estimate, estimate.low, estimate.high))
    return {"id": id, "value": value, "low": low, "high": high, "n": estimate.n, "unit": unit}


def _row_record(id: str, row: pd.Series, unit: str, factor: float = 1.0) -> Record:
    bounds = {name: factor * row[name] for name in ("value", "low", "high")}
    return {"id": id, **bounds, "n": int(row["n"]), "unit": unit}


def datasets_of(frame: pd.DataFrame) -> list[str]:
    """Return the source datasets of a frame of `experiment.evaluate`, without the macro average."""
    return [name for name in dict.fromkeys(frame["dataset"]) if name != MACRO]


def cell(row: pd.Series, theirs: Any = None, digits: int = 2, *, bold: bool = False) -> str:
    """Return value ± half its interval, with the paper's number below it where there is one."""
    text = f"{row['value']:.{digits}f}"
    text = f"<b>{text}</b>" if bold else text
    if np.isfinite(row["high"]) and row["high"] > row["low"]:
        text += f" <small>±{row['high'] - row['value']:.{digits}f}</small>"
    return text + (f"<br><small>{theirs.printed}</small>" if theirs is not None else "")


# --- data and Figure 1 -----------------------------------------------------------------------------------------------


def data_table(setting: Setting) -> pd.DataFrame:
    """Return how many prompts of each source dataset are trained on and tested on, in one trial."""
    counts = {
        name: pd.Series(part.tasks).value_counts()
        for name, part in (("training prompts", setting.full), ("test prompts", setting.test))
    }
    return pd.DataFrame(counts).fillna(0).astype(int).sort_index().rename_axis(None)


def label_table(setting: Setting) -> pd.DataFrame:
    """Return each LLM's mean quality on the training prompts, and how many of its labels routers may see."""
    full, thin = setting.full, setting.sparse
    return pd.DataFrame(
        {
            "role": ["anchor" if model in setting.anchors else "sparse data" for model in full.models],
            "mean quality": [f"{value:.3f}" for value in full.quality.mean(axis=0)],
            f"mean cost ({full.cost_unit})": [f"{value:.3g}" for value in full.mean_cost],
            "labels seen": (~np.isnan(thin.quality)).sum(axis=0),
            "labels there are": (~np.isnan(full.quality)).sum(axis=0),
        },
        index=list(full.models),
    )


def quality_by_dataset(benchmark: RoutingBenchmark) -> pd.DataFrame:
    """Return the mean quality of each LLM on each source dataset, one row an LLM."""
    names = sorted(set(benchmark.tasks.tolist()))
    means = {name: observed_mean(benchmark.quality[benchmark.tasks == name]) for name in names}
    return pd.DataFrame(means, index=list(benchmark.models))


def radar_plot(quality: pd.DataFrame) -> Figure:
    """Draw Figure 1: quality on each source dataset, one axis a dataset and one line an LLM.

    Of more LLMs than there are colours those with the highest mean are drawn.
    """
    import matplotlib.pyplot as plt

    shown = quality.loc[quality.mean(axis=1).nlargest(len(RADAR_LOOKS)).index]
    angles = np.linspace(0, 2 * np.pi, quality.shape[1], endpoint=False)
    with figures.style():
        figure, axes = plt.subplots(figsize=(5.6, 5.2), subplot_kw={"projection": "polar"})
        axes.set_theta_zero_location("N")
        for (llm, row), method in zip(shown.iterrows(), RADAR_LOOKS, strict=False):
            look, name = figures.METHODS[method], cells.slug(str(llm))
            closed = [*angles, angles[0]], [*row, row.iloc[0]]
            axes.plot(*closed, "-", marker=look.marker, ms=4.5, lw=1.4, color=look.colour, label=name)
        axes.set_xticks(angles, quality.columns)
        for text, angle in zip(axes.get_xticklabels(), angles, strict=True):
            # Angles run against the clock from the top: the first half lies on the left.
            text.set_ha("center" if abs(np.sin(angle)) < 0.1 else "right" if np.sin(angle) > 0 else "left")
        axes.set_ylim(0, 1)
        axes.set_yticks([0.25, 0.5, 0.75, 1])
        axes.set_rlabel_position(180 / quality.shape[1])
        axes.grid(True, color=figures.GRID, lw=0.6)
        axes.spines["polar"].set_color(figures.GRID)
        axes.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.2, 0.5), labelcolor=figures.INK)
    return figure


def figure_1_records(pool: RoutingBenchmark, seed: int) -> Iterator[Record]:
    """Yield what the ledger reads about Figure 1, on the split of one seed.

    The best LLM, that of each dataset, and GPT-4's strongest rival on each dataset are chosen on the training prompts
    with all their labels; intervals are over test prompts.
    """
    train, test = (pool.subset(rows) for rows in experiment.split_rows(pool, seed))
    learned, found = quality_by_dataset(train), quality_by_dataset(test)
    for dataset in found:
        for llm in found.index:
            value = found.loc[llm, dataset]
            yield {"id": f"figure-1/{dataset}/{cells.slug(llm)}", "value": value, "unit": "fraction"}
    single = learned.mean(axis=1).idxmax()
    picked = {"dataset-oracle": learned.idxmax(), "best-single": pd.Series(single, index=learned.columns)}
    earned = {name: _macro_weighted(test, llms) for name, llms in picked.items()}
    gain = paired_bootstrap(earned["dataset-oracle"], earned["best-single"])
    yield record_of("figure-1/dataset-oracle-minus-best-single/quality", gain, "fraction")
    if cells.GPT_4 in pool.models:
        for dataset in found:
            rival = learned[dataset].drop(cells.GPT_4).idxmax()
            here = test.subset(test.tasks == dataset).subset(models=[cells.GPT_4, rival]).quality
            lead = paired_bootstrap(here[:, 0], here[:, 1])
            yield record_of(f"figure-1/{dataset}/{cells.GPT_4}-minus-best-other/quality", lead, "fraction")


def _macro_weighted(benchmark: RoutingBenchmark, llms: pd.Series) -> np.ndarray:
    """Return each prompt's quality with its dataset's LLM, weighted so that the plain mean is the macro average."""
    names, group, size = np.unique(benchmark.tasks, return_inverse=True, return_counts=True)
    column = benchmark.model_columns(llms[names].tolist())[group]
    return benchmark.quality[np.arange(len(benchmark)), column] * len(benchmark) / (len(names) * size[group])


# --- Table 1 ---------------------------------------------------------------------------------------------------------


def table_1_records(frames: Mapping[str, pd.DataFrame]) -> Iterator[Record]:
    """Yield what the ledger reads about Table 1.

    Parameters
    ----------
    frames
        "label-accuracy" and "routed-quality" to the frame of `experiment.evaluate` in which it is read: the printed
        accuracies are of ten LLMs (SR-10b), routing is among seven.
    """
    for metric in METRICS:
        frame = frames[metric]
        for dataset in (*datasets_of(frame), MACRO):
            for method, row in experiment.summary(frame, metric, dataset).iterrows():
                if np.isfinite(row["value"]):
                    yield _row_record(f"table-1/{dataset}/{method}/{metric}", row, "%")
        simple = ("dataset-oracle",) if metric == "label-accuracy" else ("random", "best-single", "dataset-oracle")
        for rival in (*RIVALS, *simple):
            found = experiment.difference(frame, "semirouter-emb", rival, metric)
            yield record_of(f"table-1/semirouter-emb-minus-{rival}/{metric}", found, "%")


def table_1(frame: pd.DataFrame, metric: str, *, compared: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return Table 1 by one reading of its metric: the numbers, and the table as shown.

    Parameters
    ----------
    frame
        Of `experiment.evaluate`.
    metric
        "label-accuracy" or "routed-quality".
    compared
        Whether the paper's number stands below ours. Bold: the best of the rows that are not told the answers.
    """
    columns = (*datasets_of(frame), MACRO)
    found = {dataset: experiment.summary(frame, metric, dataset).dropna(subset="value") for dataset in columns}
    names = {name: column for column, name in {**cells.SIX, **cells.SMALL}.items()}
    printed = cells.published()["table-1"] if compared else {}
    rows: dict[str, dict[str, str]] = {}
    for method in found[MACRO].index:
        name = figures.label(method)
        if method == "dataset-oracle" and metric == "label-accuracy":
            name += ": each LLM's most frequent label"
        rows[name] = {}
        for dataset, values in found.items():
            theirs = printed.get((TABLE_1.get(method, ""), names.get(dataset, "")))
            best = values["value"].drop("oracle", errors="ignore").idxmax()
            head = "mean over datasets" if dataset == MACRO else dataset
            rows[name][head] = cell(values.loc[method], theirs, bold=method == best)
    numbers = pd.DataFrame({dataset: values["value"] for dataset, values in found.items()})
    return numbers, pd.DataFrame.from_dict(rows, orient="index")


def difference_table(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return EMB minus every other row of Table 1 in both readings, paired over seeds, with 95 % intervals."""
    rows = {}
    for rival in (*RIVALS, "best-single", "dataset-oracle", "random"):
        cells_ = {}
        for metric in METRICS:
            found = experiment.difference(frames[metric], "semirouter-emb", rival, metric)
            interval = f"{found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
            cells_[metric.replace("-", " ") + ", points"] = interval if np.isfinite(found.estimate) else "–"
        rows[f"EMB − {figures.label(rival)}"] = cells_
    return pd.DataFrame.from_dict(rows, orient="index")


# --- Table 2 ---------------------------------------------------------------------------------------------------------


def table_2() -> tuple[list[Record], pd.DataFrame]:
    """Return what the ledger reads about Table 2, counted from the modules, and the table beside the paper's."""
    counted = parameter_counts.table_2().set_index("variant")
    printed, records, shown = cells.published()["table-2"], [], {}
    for variant, row in counted.iterrows():
        name = TABLE_2.get(variant, f"{cells.ATT}, as Appendix C.3 describes it")
        shown[name] = {}
        for column, head in (("trainable", "Trainable Params"), ("total", "Total Params")):
            record = {"id": f"table-2/{variant}/{column}", "value": row[column] / 1e6, "unit": "million parameters"}
            records.append(record)
            theirs = printed.get((TABLE_2.get(variant, cells.ATT), head))
            shown[name][f"{column}, ours"] = f"{row[column]:,}"
            shown[name][f"{column}, the paper"] = theirs.printed
    return records, pd.DataFrame.from_dict(shown, orient="index")


# --- Table 3 ---------------------------------------------------------------------------------------------------------


def with_scores(frame: pd.DataFrame, benchmark: RoutingBenchmark) -> pd.DataFrame:
    """Return the frame with Eq. (10) by the weight printed and by the one that fits Table 3 (SR-1), in points.

    Score = 100 (w quality - cost of a query in dollars). Costs in another unit are left out: nothing says what they
    are worth.
    """
    paid = 100.0 * frame["cost"] if in_dollars(benchmark) else 0.0
    return frame.assign(**{name: weight * frame["routed-quality"] - paid for name, weight in WEIGHTS.items()})


def table_3_records(frame: pd.DataFrame, benchmark: RoutingBenchmark) -> Iterator[Record]:
    """Yield what the ledger reads about Table 3.

    Parameters
    ----------
    frame
        `with_scores`, with the methods "div", "anchor", "full" and "none". Differences are of the score whose weight
        fits the table.
    benchmark
        Costs in dollars are recorded, of the whole test set as in the paper.
    """
    units = {
        "quality": ("routed-quality", "%"),
        "score-printed": ("score-printed", "%"),
        "score-613": ("score-613", "%"),
    }
    units |= {"cost": ("total-cost", "USD")} if in_dollars(benchmark) else {}
    for dataset in datasets_of(frame):
        for key, (column, unit) in units.items():
            for method, row in experiment.summary(frame, column, dataset).iterrows():
                yield _row_record(f"table-3/{dataset}/{method}/{key}", row, unit)
    for a, b in PAIRS_3:
        found = experiment.difference(frame, a, b, "score-613")
        yield record_of(f"table-3/{a}-minus-{b}/score", found, "%")
    won = datasets_won(frame)
    yield record_of("table-3/full-minus-anchor/datasets-won", mean_interval((won["full"] - won["anchor"]).to_numpy()))


def datasets_won(frame: pd.DataFrame, methods: Sequence[str] = ("div", "anchor", "full")) -> pd.DataFrame:
    """Return on how many datasets each loss has the highest score, one row a seed; of k that tie each wins 1 / k."""
    scores = {d: experiment.wide(frame, "score-613", d)[list(methods)].round(9) for d in datasets_of(frame)}
    best = [(score.eq(score.max(axis=1), axis=0)) for score in scores.values()]
    return sum(tied.div(tied.sum(axis=1), axis=0) for tied in best)


def table_3(frame: pd.DataFrame, *, compared: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return Table 3: the numbers, and the table as shown with the paper's numbers below ours where `compared`."""
    printed = cells.published()["table-3"] if compared else {}
    names = {name: column for column, name in cells.SIX.items()}
    columns = {"Quality": ("routed-quality", 2), "Cost": ("total-cost", 4)}
    columns |= {"Score": ("score-613", 2), "Score, as printed": ("score-printed", 2)}
    columns = columns if compared else {head: found for head, found in columns.items() if head != "Cost"}
    numbers: dict[str, dict[str, float]] = {}
    shown: dict[str, dict[str, str]] = {}
    for dataset in datasets_of(frame):
        name = names.get(dataset, dataset)
        numbers[name], shown[name] = {}, {}
        for head, (column, digits) in columns.items():
            found = experiment.summary(frame, column, dataset)
            best = found.loc[list(cells.LOSSES), "value"].idxmax() if head.startswith("Score") else None
            for loss in (*cells.LOSSES, "none"):
                theirs = printed.get((name, f"{cells.LOSSES.get(loss)} / {head.partition(',')[0]}"))
                label = f"{loss}: {head}" + (" ($)" if head == "Cost" else "")
                numbers[name][label] = found.loc[loss, "value"]
                shown[name][label] = cell(found.loc[loss], theirs, digits, bold=loss == best)
    order = sorted(next(iter(shown.values())), key=lambda label: [*cells.LOSSES, "none"].index(label.split(":")[0]))
    return pd.DataFrame.from_dict(numbers, orient="index")[order], pd.DataFrame.from_dict(shown, orient="index")[order]


# --- Table 4 ---------------------------------------------------------------------------------------------------------


def removal_order(pool: RoutingBenchmark) -> list[str]:
    """Return the LLMs that Table 4 removes, in its order; of another pool the weakest first, all but two."""
    if set(REMOVED) <= set(pool.models):
        return list(REMOVED)
    quality = observed_mean(pool.quality)
    return [pool.models[place] for place in np.argsort(quality, kind="stable")[: min(len(REMOVED), len(quality) - 2)]]


def removals(fitted: Fitted, settings: Sequence[Setting], order: Sequence[str], *, cumulative: bool) -> pd.DataFrame:
    """Return `experiment.evaluate` with the LLMs of `order` removed, one by one or each on top of those before.

    Nothing is trained: an LLM is removed with its identity vector, an anchor is only routed to no more. Methods are
    "all" and "without-<LLM>".

    Parameters
    ----------
    fitted
        One method, fitted on the whole pool, for each seed.
    settings
    order
    cumulative
    """
    by_seed = {setting.seed: setting for setting in settings}
    left: dict[str, list[str]] = {"all": list(settings[0].full.models)}
    for place, llm in enumerate(order):
        gone = order[: place + 1] if cumulative else [llm]
        left[f"without-{cells.slug(llm)}"] = [model for model in left["all"] if model not in gone]
    routers = {(name, seed): router for name in left for (_, seed), router in fitted.items()}
    return experiment.evaluate(routers, lambda name, seed: by_seed[seed].routed_among(left[name]))


def table_4_records(frame: pd.DataFrame, order: Sequence[str]) -> Iterator[Record]:
    """Yield what the ledger reads about Table 4, from `removals` one by one."""
    for llm in order:
        name = f"without-{cells.slug(llm)}"
        for dataset in datasets_of(frame):
            row = experiment.summary(frame, "routed-quality", dataset).loc[name]
            yield _row_record(f"table-4/{dataset}/{name}", row, "fraction", 0.01)
        found = experiment.difference(frame, name, "all", "routed-quality")
        yield record_of(f"table-4/{name}-minus-all/quality", found, "%")


def table_4(alone: pd.DataFrame, summed: pd.DataFrame, order: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return Table 4 by both readings, leave-one-out and cumulative: the numbers, and as shown, the paper's below."""
    printed = cells.published()["table-4"]
    numbers: dict[str, dict[str, float]] = {}
    shown: dict[str, dict[str, str]] = {}
    for name in ("all", *(f"without-{cells.slug(llm)}" for llm in order)):
        numbers[name], shown[name] = {}, {}
        llm = next((llm for llm in order if name == f"without-{cells.slug(llm)}"), "")
        for dataset in (*datasets_of(alone), MACRO):
            for frame, reading in ((alone, "one by one"), (summed, "cumulative")):
                row = experiment.summary(frame, "routed-quality", dataset).loc[name] * [0.01, 0.01, 0.01, 1]
                theirs = printed.get((REMOVED.get(llm, ""), COLUMNS_4.get(dataset, "")))
                head = f"{'mean' if dataset == MACRO else dataset}, {reading}"
                numbers[name][head] = row["value"]
                shown[name][head] = cell(row, theirs, 4)
    return pd.DataFrame.from_dict(numbers, orient="index"), pd.DataFrame.from_dict(shown, orient="index")


# --- Figure 5 and the two weightings ---------------------------------------------------------------------------------

ALPHA, LAM = 0.3, 0.5  # Section 5.1; each is held where the other one is swept (7.1, #31)


def sweep(params: SemiRouterParams) -> dict[str, dict[str, float]]:
    """Return α and λ of every training of Figure 5: α at λ = 0.5, named "alpha-...", and λ at α = 0.3, "lambda-...".

    Where both have these values it is one training, "alpha-0.3".
    """
    points = {f"alpha-{alpha:g}": {"alpha": alpha, "lam": LAM} for alpha in params.alphas}
    return points | {f"lambda-{lam:g}": {"alpha": ALPHA, "lam": lam} for lam in params.lams if lam != LAM}


def variants(params: SemiRouterParams) -> dict[str, dict[str, Any]]:
    """Return the trainings of SemiRouter that Table 3, Figure 5 and the two weightings need, for `train_variants`.

    All have the α and λ of Section 5.1 unless they sweep them; Table 3's combined loss is "alpha-0.3", and no
    contrastive loss "lambda-0".
    """
    usual = {"loss": "full", "weighting": "eq9", "alpha": ALPHA, "lam": LAM}
    found = {name: usual | point for name, point in sweep(params).items()}
    found |= {loss: usual | {"loss": loss} for loss in ("div", "anchor")}
    return found | {"algorithm-1": usual | {"weighting": "algorithm-1", "lam": 0.3}}


def table_3_frame(frame: pd.DataFrame, benchmark: RoutingBenchmark) -> pd.DataFrame:
    """Return `with_scores` of the four losses of Table 3, from the frame of `variants`."""
    names = {"div": "div", "anchor": "anchor", f"alpha-{ALPHA:g}": "full", "lambda-0": "none"}
    here = frame[frame["method"].isin(names)]
    return with_scores(here.assign(method=here["method"].map(names)), benchmark)


def figure_5_records(frame: pd.DataFrame, params: SemiRouterParams) -> Iterator[Record]:
    """Yield what the ledger reads about Figure 5; `frame` has the methods that `sweep` names."""
    found = experiment.summary(frame, "routed-quality")
    for name, changes in sweep(params).items():
        key = f"figure-5/alpha-{changes['alpha']:g}/lambda-{changes['lam']:g}/quality"
        yield _row_record(key, found.loc[name], "%")
    base = f"alpha-{ALPHA:g}"
    pairs = [(f"alpha-{a:g}", base) for a in params.alphas if a != ALPHA]
    pairs += [(f"lambda-{lam:g}", f"lambda-{LAM:g}") for lam in params.lams if lam not in (0.0, LAM)]
    pairs += [(f"lambda-{lam:g}", "lambda-0") for lam in params.lams if lam > 0]
    pairs += [(f"lambda-{LAM:g}", f"lambda-{lam:g}") for lam in params.lams if lam > LAM]
    alias = {f"lambda-{LAM:g}": base}
    for a, b in pairs:
        difference = experiment.difference(frame, alias.get(a, a), alias.get(b, b), "routed-quality")
        yield record_of(f"figure-5/{a}-minus-{b}/quality", difference, "%")


def figure_5(frame: pd.DataFrame, params: SemiRouterParams) -> Figure:
    """Draw Figure 5: routed quality against α and against λ, means over seeds with 95 % intervals."""
    found, key = experiment.summary(frame, "routed-quality"), f"semirouter-{params.variant}"
    panels = []
    for fixed, swept, symbol in ((f"λ = {LAM:g}", "alpha", "α"), (f"α = {ALPHA:g}", "lam", "λ")):
        held, at = ("lam", LAM) if swept == "alpha" else ("alpha", ALPHA)
        points = sorted((c[swept], name) for name, c in sweep(params).items() if c[held] == at)
        x, rows = np.array([x for x, _ in points]), found.loc[[name for _, name in points]]
        curve = {key: (x, rows["value"].to_numpy())}
        bands = {key: (rows["low"].to_numpy(), rows["high"].to_numpy())}
        panels.append(figures.Panel(fixed, curve, symbol, bands))
    return figures.grid_plot(panels, ylabel="Routed quality (%)")


def weighting_table(frame: pd.DataFrame) -> tuple[list[Record], pd.DataFrame]:
    """Compare Eq. (9) with Algorithm 1, which swaps the two weights (SR-15), at λ = 0.1, 0.3 and 0.5.

    Parameters
    ----------
    frame
        The methods of `sweep`, and "algorithm-1" trained at λ = 0.3. At λ = 0.1 Algorithm 1 is Eq. (9) at 0.9.
    """
    base = f"alpha-{ALPHA:g}"
    records, shown = [], {}
    for lam, name, swapped in (
        (0.1, "lambda-0.1", "lambda-0.9"),
        (0.3, "lambda-0.3", "algorithm-1"),
        (LAM, base, base),
    ):
        row = {"weight of L_c by Eq. (9)": f"{lam:g}", "by Algorithm 1": f"{1 - lam:g}"}
        for metric in METRICS:
            found = experiment.difference(frame, swapped, name, metric)
            records.append(record_of(f"weighting/lambda-{lam:g}/{metric}", found, "%"))
            row[f"{metric.replace('-', ' ')}, Algorithm 1 − Eq. (9)"] = (
                f"{found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
            )
        shown[f"λ = {lam:g}"] = row
    return records, pd.DataFrame.from_dict(shown, orient="index")


# --- Table 6 ---------------------------------------------------------------------------------------------------------


def accuracies(pool: RoutingBenchmark) -> pd.DataFrame:
    """Return the accuracy of each LLM on each source dataset: of the published test split, as Table 7 of RadialRouter.

    Without a published split, of all prompts.
    """
    if pool.name != "routerbench":
        return quality_by_dataset(pool)
    found = cells.benchmark_accuracies(pool)
    return pd.Series(found).unstack(0).loc[[llm for llm in cells.LLMS if llm in pool.models]]


def normalised_scores(accuracy: pd.DataFrame) -> pd.Series:
    """Return the mean over datasets of the min-max accuracy among the LLMs (Table 6; 7.1, #27)."""
    spread = (accuracy.max() - accuracy.min()).replace(0, np.nan)
    return ((accuracy - accuracy.min()) / spread).mean(axis=1)


def ranking_rules(accuracy: pd.DataFrame) -> dict[str, pd.Series]:
    """Return candidates for the rule behind Table 6, name to a score for each LLM."""
    mean = accuracy.mean(axis=1)
    return {
        "min-max on each dataset, then the mean": normalised_scores(accuracy),
        "the mean, then min-max": (mean - mean.min()) / (mean.max() - mean.min()),
        "share of the best on each dataset, then the mean": (accuracy / accuracy.max()).mean(axis=1),
        "mean accuracy": mean,
    }


def table_6_records(scores: pd.Series) -> Iterator[Record]:
    """Yield what the ledger reads about Table 6."""
    ranks = scores.rank(ascending=False, method="min")
    for llm, score in scores.items():
        yield {"id": f"table-6/{cells.slug(str(llm))}/score", "value": score}
        yield {"id": f"table-6/{cells.slug(str(llm))}/rank", "value": ranks[llm]}


def table_6(scores: pd.Series) -> pd.DataFrame:
    """Return each LLM's score and rank beside the paper's, where it has one, the best first."""
    printed, ranks = cells.published()["table-6"], scores.rank(ascending=False, method="min").astype(int)
    rows = {}
    for llm in scores.sort_values(ascending=False, kind="stable").index:
        theirs = {head: printed[llm, head].printed if (llm, head) in printed else "–" for head in ("Rank", "Score")}
        rows[llm] = {"rank": ranks[llm], "the paper's rank": theirs["Rank"]}
        rows[llm] |= {"score": f"{scores[llm]:.3f}", "the paper's score": theirs["Score"]}
    return pd.DataFrame.from_dict(rows, orient="index")


def rules_table(accuracy: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return how well each candidate rule gives Table 6: ranks that agree, rank correlation, largest distance in score.

    Parameters
    ----------
    accuracy
        Name of a source of accuracies to them, with LLMs named as in Table 6.
    """
    printed = cells.published()["table-6"]
    llms = cells.rows(printed)
    score = pd.Series({llm: cells.value(printed, llm, "Score") for llm in llms})
    rows = {}
    for source, found in accuracy.items():
        for rule, ours in ranking_rules(found.loc[llms]).items():
            ranks = ours.rank(ascending=False)
            rows[f"{rule}; {source}"] = {
                "ranks that agree": f"{int((ranks == score.rank(ascending=False)).sum())} of {len(llms)}",
                "rank correlation": f"{ours.corr(score, method='spearman'):.2f}",
                "largest distance in score": f"{(ours - score).abs().max():.2f}",
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def eight_of(pool: RoutingBenchmark) -> Sequence[str]:
    """Return the LLMs of Table 4's pool: the seven and Claude-Instant, or those of another pool."""
    return EIGHT if set(EIGHT) <= set(pool.models) else pool.models


def shown_llms(models: Sequence[str]) -> str:
    """Return names of LLMs for a sentence."""
    return ", ".join(cells.slug(model) for model in models)
