"""What the page on energy shows: pools charged in Wh, routers trained once, and their choices in several readings.

All seeds of a pool share one split into training and test prompts and differ in sparse labels and training, so that
what their choices take can be averaged prompt by prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from replications.semirouter import cells, energy, energy_tables, experiment, router_energy
from replications.semirouter.backbone import quality_levels, to_levels
from replications.semirouter.energy_tables import JOULES, WH, EnergyTable
from replications.semirouter.experiment import MACRO, Fitted, Setting
from routebook import figures, load, runs
from routebook.benchmark import RoutingBenchmark
from routebook.datasets import files
from routebook.datasets.cards import read_card
from routebook.deferral import deferral_curve
from routebook.errors import UserError
from routebook.figures import Panel
from routebook.record import Record
from routebook.routers import KNN, BaseRouter, KMeans

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from replications.semirouter.params import EnergyParams

Rule = Literal["label", "quality"]
Found = Mapping[str, Mapping[str, Any]]
NEIGHBOURS = 40  # of K-NN: as many as LoraRetriever's clusters, of which the paper has 40
SIMPLE = ("k-nn", "k-means", "best-single", "dataset-oracle", "oracle")
PUBLISHED, MEASURED, MODELLED = "published averages", "measured", "modelled from FLOPs"
# The units as the ledger has them.
UNITS = {WH: "Wh", "percent": "%"}
BERT_BASE = {"n_layers": 12, "width": 768, "feed_forward": 3072}
N_TOKENS = 128
N_TIMED = 24


@dataclass(frozen=True, eq=False)
class Pool:
    """A benchmark whose cost is an energy, its trials, and the routers trained in them.

    Attributes
    ----------
    name
    priced : RoutingBenchmark
        As loaded, with its own cost.
    source : str
        Where the energies are from: `PUBLISHED`, `MEASURED` or `MODELLED`.
    settings : list of Setting
        One a seed, all with the same prompts. Costs are in Wh per prompt.
    backup : str
        The large LLM: GPT-4 where it is in the pool, else the one that takes most.
    fitted
        (method, seed) to its router.
    """

    name: str
    priced: RoutingBenchmark
    source: str
    settings: list[Setting]
    backup: str
    fitted: Fitted

    @property
    def test(self) -> RoutingBenchmark:
        """The prompts that are routed."""
        return self.settings[0].test

    @property
    def ours(self) -> str:
        """Key of the SemiRouter variant that was trained."""
        return next(method for method, _ in self.fitted if method.startswith("semirouter-"))

    @property
    def methods(self) -> list[str]:
        """Keys of the methods, SemiRouter first."""
        return list(dict.fromkeys(method for method, _ in self.fitted))


# --- data and routers ------------------------------------------------------------------------------------------------


def published() -> dict[str, pd.DataFrame] | None:
    """Return the published energy tables (`energy_tables.read_published`), None where they are not at hand."""
    return None if files.find(read_card("energy")) is None else energy_tables.read_published()


def load_pools(params: EnergyParams, tables: Mapping[str, pd.DataFrame] | None) -> dict[str, Pool]:
    """Load, charge, split, embed and train on every pool the parameters ask for.

    RouterBench needs the published tables; where they are not at hand it is left out unless it is asked for.

    Raises
    ------
    DataError
        As `energy_tables.read_published`, when RouterBench is asked for without them.
    UserError
        As `experiment.settings_of`, or when the test prompts lack a source dataset.
    """
    names = runs.resolve_datasets(params)
    if tables is None and params.pools is None:
        names = tuple(name for name in names if name != "routerbench") or params.DATASETS[-1:]
    return {name: load_pool(params, name, tables) for name in names}


def load_pool(params: EnergyParams, name: str, tables: Mapping[str, pd.DataFrame] | None) -> Pool:
    """Load, charge, split, embed and train on one pool; see `load_pools`."""
    priced = experiment.load_pool(params, name)
    pool, source = charge(priced, tables)
    settings = settings_of(pool, params)
    _check_all_tested(settings[0].test, load(name) if name == "mess-plus" else pool)
    backup = cells.GPT_4 if cells.GPT_4 in pool.models else pool.models[energy.backup_of(pool)]
    return Pool(name, priced, source, settings, backup, train(params, settings))


def charge(
    benchmark: RoutingBenchmark, tables: Mapping[str, pd.DataFrame] | None = None
) -> tuple[RoutingBenchmark, str]:
    """Return a benchmark with its energy as cost, in Wh per prompt, and where that energy is from.

    Measured energy is kept call by call, FLOPs are turned into energy, and any other cost is replaced by the published
    average of each LLM (Section 3.2).
    """
    if benchmark.cost_unit in (WH, JOULES):
        return energy_tables.in_wh(benchmark), MEASURED
    if benchmark.cost_unit == router_energy.FLOPS:
        return router_energy.from_flops(benchmark), MODELLED
    return energy_tables.with_energy(benchmark, energy_tables.energy_table(tables=tables)), PUBLISHED


def settings_of(pool: RoutingBenchmark, params: EnergyParams) -> list[Setting]:
    """Return one setting a seed on one split: `experiment.settings_of` of the first seed, its labels thinned anew."""
    (first,) = experiment.settings_of(pool, params.model_copy(update={"n_seeds": 1}))
    others = (replace(first, seed=seed).thinned(per_query=params.per_query) for seed in params.seeds[1:])
    return [first, *others]


def _check_all_tested(test: RoutingBenchmark, whole: RoutingBenchmark) -> None:
    missing = sorted(set(whole.tasks.tolist()) - set(test.tasks.tolist()))
    if missing:
        raise UserError(
            f"{test.name}: no test prompt of {', '.join(missing)} is left, and Table 5 has a row for each; raise "
            "max_prompts"
        )


def train(params: EnergyParams, settings: Sequence[Setting]) -> dict[tuple[str, int], BaseRouter]:
    """Train SemiRouter and the simple routers on every setting; all but the Oracle see its sparse labels."""
    own = [method for method in SIMPLE if method in experiment.SIMPLE]
    fitted = experiment.train(params, settings, [f"semirouter-{params.variant}", *own])
    for setting in settings:
        n_labelled = (~np.isnan(setting.sparse.quality)).sum(axis=0).min()
        others = {
            "k-nn": KNN(min(NEIGHBOURS, int(n_labelled))),
            "k-means": KMeans(params.n_clusters, seed=setting.seed),
        }
        for method, router in others.items():
            fitted[method, setting.seed] = router.fit(setting.sparse, setting.train_embeddings)
    return {(m, s.seed): fitted[m, s.seed] for m in (f"semirouter-{params.variant}", *SIMPLE) for s in settings}


# --- choices ---------------------------------------------------------------------------------------------------------


def recharged(setting: Setting, table: EnergyTable) -> Setting:
    """Return a setting with the energies of another table; labels and prompts stay as they are."""
    parts = {name: energy_tables.with_energy(getattr(setting, name), table) for name in ("full", "sparse", "test")}
    return replace(setting, **parts)


def choose(router: BaseRouter, setting: Setting, rule: Rule = "label") -> np.ndarray:
    """Return the LLM for each test prompt, [N]: of the best predicted the one that takes least (Section 4.3).

    Parameters
    ----------
    rule : {"label", "quality"}
        Whether "the highest predicted quality" is the label good, fair or bad, which LLMs share so that energy
        decides, or the expected quality, in which hardly any two are equal. Methods without labels have the level
        nearest to their estimate.

    Notes
    -----
    The energy of an LLM is its mean over the training prompts: that of a call is not known before it is made.
    """
    if rule not in ("label", "quality"):
        raise UserError(f"choose: rule is {rule!r}, expected 'label' or 'quality'")
    estimates = experiment.labels_of(router, setting) if rule == "label" else None
    if estimates is None:
        estimates = experiment.predict(router, setting)
        if rule == "label":
            estimates = to_levels(estimates.clip(0, 1), quality_levels(setting.sparse.quality))
    return energy.choose(estimates, setting.full.mean_cost)


def choices_of(
    pool: Pool, method: str | None = None, rule: Rule = "label", table: EnergyTable | None = None
) -> tuple[list[np.ndarray], RoutingBenchmark]:
    """Return a method's choices, one array a seed, and the test prompts they are for.

    Parameters
    ----------
    method
        SemiRouter by default.
    table
        Energies to choose by and to charge in place of the pool's own.
    """
    method = method or pool.ours
    settings = pool.settings if table is None else [recharged(setting, table) for setting in pool.settings]
    return [choose(pool.fitted[method, s.seed], s, rule) for s in settings], settings[0].test


def record_results(record: Record, found: Found, part: str = "") -> Found:
    """Record what `energy.results` or `router_energy.share_of_llm` found, in the ledger's units, and return it.

    Parameters
    ----------
    part
        First part of the keys, where it is to be another.
    """
    for key, arguments in found.items():
        named = f"{part}/{key.partition('/')[2]}" if part else key
        record.value(named, **{**arguments, "unit": UNITS.get(arguments["unit"], arguments["unit"])})
    return found


# --- tables ----------------------------------------------------------------------------------------------------------


def proxy_table(tables: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return Wh per prompt of each LLM by source, and the table as shown, with the model each figure is of."""
    first, second = (energy_tables.energy_table(source, tables) for source in ("ai-energy-score", "ml-energy"))
    numbers = pd.DataFrame(
        {
            "AI Energy Score": first.set_index("model")["wh_per_prompt"],
            "ML.ENERGY": second.set_index("model")["wh_per_prompt"],
        }
    )
    shown = pd.DataFrame(
        {
            "Wh, AI Energy Score": _significant(first["wh_per_prompt"]),
            "figure of": _figure_of(first),
            "Wh, ML.ENERGY": _significant(second["wh_per_prompt"]),
            "figure of ": _figure_of(second),
            "why": first["note"],
        }
    )
    return numbers, shown.set_index(first["model"].rename(None))


def _significant(values: Iterable[float], digits: int = 3) -> list[str]:
    return [f"{value:#.{digits}g}".rstrip(".") if np.isfinite(value) else "–" for value in values]


def _figure_of(table: pd.DataFrame) -> list[str]:
    stated = (table["source"] == "SemiRouter").tolist()
    return ["stated in the paper" if own else proxy for own, proxy in zip(stated, table["proxy"], strict=True)]


def source_table(by_size: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return how much more than the smallest size each size takes, by source, and the table as shown.

    Parameters
    ----------
    by_size
        Of `energy_tables.published_by_size`.
    """
    order = {"columns": list(dict.fromkeys(by_size["source"])), "index": list(dict.fromkeys(by_size["size"]))}
    spans = [
        f"{wh}<br><small>{low} to {high}</small>" if n > 1 else wh
        for wh, low, high, n in zip(
            *(_significant(by_size[name]) for name in ("wh", "low", "high")), by_size["n"], strict=True
        )
    ]
    ratios = ["" if np.isnan(ratio) else f"<br>× {ratio:.1f}" for ratio in by_size["ratio"]]
    texts = by_size.assign(text=[span + ratio for span, ratio in zip(spans, ratios, strict=True)])
    shown = texts.pivot(index="size", columns="source", values="text").reindex(**order).fillna("–")
    numbers = by_size.pivot(index="size", columns="source", values="ratio").reindex(**order)
    return numbers.rename_axis(None), shown.rename_axis(None).rename_axis(None, axis=1)


def pool_table(pools: Mapping[str, Pool]) -> pd.DataFrame:
    """Return what is routed: prompts, LLMs, where their energies are from, and how far these lie apart."""
    rows = {}
    for name, pool in pools.items():
        mean = pool.settings[0].full.mean_cost
        rows[name] = {
            "training prompts": len(pool.settings[0].full),
            "test prompts": len(pool.test),
            "LLMs": len(pool.test.models),
            "energies": pool.source,
            "Wh per prompt, least to most": " to ".join(_significant([mean.min(), mean.max()])),
            "the large LLM": pool.backup,
            "anchors": ", ".join(cells.slug(anchor) for anchor in pool.settings[0].anchors),
            "labels seen": f"{(~np.isnan(pool.settings[0].sparse.quality)).mean():.0%}",
        }
    return pd.DataFrame(rows)


def price_table(
    benchmark: RoutingBenchmark, tables: Mapping[str, pd.DataFrame]
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Return each LLM's mean price beside its energy in both sources, with ranks, and the Spearman correlations."""
    frames, agreement = {}, {}
    for source in ("ai-energy-score", "ml-energy"):
        table = energy_tables.energy_table(source, tables)
        frames[source], agreement[source] = energy.price_against_energy(benchmark, table)
    price = next(iter(frames.values()))
    shown = pd.DataFrame({"$ per 1,000 prompts": [f"{1000 * value:.3f}" for value in price["price"]]})
    shown["rank"] = price["price-rank"].astype(int).tolist()
    for source, title in (("ai-energy-score", "AI Energy Score"), ("ml-energy", "ML.ENERGY")):
        ranks = frames[source]["wh-rank"]
        shown[f"Wh, {title}"] = [
            f"{wh} (rank {rank:g})" for wh, rank in zip(_significant(frames[source]["wh"]), ranks, strict=True)
        ]
    return shown.set_index(price.index).loc[price["price"].sort_values().index], agreement


def _span(arguments: Mapping[str, Any], digits: int | None) -> str:
    """Return value and interval with so many decimals, or with three significant digits."""
    numbers = [arguments[name] for name in ("value", "low", "high")]
    value, low, high = _significant(numbers) if digits is None else [f"{number:.{digits}f}" for number in numbers]
    return value if not np.isfinite(arguments["low"]) else f"{value}<br><small>{low} to {high}</small>"


_COLUMNS_5 = {
    "energy": ("Energy (Wh)", "Energy Cost", 3),
    "saving": ("Saving (%)", "Saving", 2),
    "backup": ("Backup: the average (Wh)", "Backup Cost", 3),
    "backup-as-worded": ("Backup: as worded (Wh)", "Backup Cost", 3),
    "backup-as-worded-minus-all-at-gpt-4": ("as worded, minus all at GPT-4 (Wh)", "", 3),
}
_COLUMNS_MEASURED = {
    "energy": "Energy (Wh)",
    "always-large": "always large (Wh)",
    "saving": "Saving (%)",
    "backup": "Backup (Wh)",
    "backup-minus-always-large": "Backup minus always large (Wh)",
}


def table_5(found: Found) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return Table 5 of `energy.results`: the numbers, and the table as shown with the paper's numbers below ours."""
    numbers = energy.as_table(found)
    theirs = cells.published()["table-5"]
    names = {name: column for column, name in {**cells.SIX, **cells.SMALL}.items()}
    shown: dict[str, dict[str, str]] = {}
    for dataset in numbers.index:
        row = shown[_dataset(dataset)] = {}
        for quantity, (head, column, digits) in _COLUMNS_5.items():
            printed = theirs.get((names.get(dataset, ""), column))
            row[head] = _span(found[f"table-5/{dataset}/{quantity}"], digits)
            row[head] += "" if printed is None else f"<br>paper: {printed.printed}"
        row |= _shares(numbers.loc[dataset])
    everything = {"Energy (Wh)": theirs["All at GPT-4", "Energy Cost"].printed}
    frame = pd.DataFrame.from_dict(shown, orient="index")
    frame.loc["all at GPT-4, the paper"] = pd.Series(everything)
    return numbers, frame.fillna("")


def measured_table(found: Found) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return Table 5 with measured energy, of `energy.results`: the numbers, and the table as shown."""
    numbers = energy.as_table(found)
    shown = {}
    for dataset in numbers.index:
        texts = {
            head: _span(found[f"measured/{dataset}/{quantity}"], 1 if quantity == "saving" else None)
            for quantity, head in _COLUMNS_MEASURED.items()
        }
        shown[_dataset(dataset)] = texts | _shares(numbers.loc[dataset])
    return numbers, pd.DataFrame.from_dict(shown, orient="index")


def _dataset(name: str) -> str:
    return "mean over datasets" if name == MACRO else name


def _shares(row: pd.Series) -> dict[str, str]:
    return {
        "rerouted": f"{row['rerouted']:.1%}",
        "quality": f"{row['quality']:.3f}",
        "quality of the large LLM": f"{row['backup-quality']:.3f}",
        "quality with the backup": f"{row['best-of-two']:.3f}",
    }


def method_table(pool: Pool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what every method's choices take and earn by both rules: means over datasets, then over seeds.

    Returns
    -------
    numbers : DataFrame
        Index: "<method>/<rule>". Columns: `energy` (Wh), `saving` (%), `quality`, `backup-as-worded` (Wh).
    shown : DataFrame
    """
    rows = {}
    for method in pool.methods:
        for rule in ("label", "quality"):
            chosen, test = choices_of(pool, method, rule)
            frames = [energy.by_dataset(some, test, backup=pool.backup).set_index("dataset") for some in chosen]
            macro = pd.DataFrame([frame.loc[MACRO] for frame in frames])
            rows[f"{method}/{rule}"] = macro[["energy", "saving", "quality", "backup-as-worded"]].mean()
    numbers = pd.DataFrame(rows).T
    shown = {
        figures.label(method): {
            f"{head}, by {rule}": text
            for rule in ("label", "quality")
            for head, text in _method_cells(numbers.loc[f"{method}/{rule}"]).items()
        }
        for method in pool.methods
    }
    return numbers, pd.DataFrame.from_dict(shown, orient="index")


def _method_cells(row: pd.Series) -> dict[str, str]:
    return {
        "Wh": _significant([row["energy"]])[0],
        "saving (%)": f"{row['saving']:.1f}",
        "quality": f"{row['quality']:.3f}",
    }


def source_sensitivity(pool: Pool, tables: Mapping[str, pd.DataFrame], rule: Rule) -> tuple[Found, pd.DataFrame]:
    """Return energy and saving of SemiRouter's choices by both published sources, and the table as shown.

    Each source is used for the choice and for the charge. Keys are ``sensitivity/<source>/<dataset>/<quantity>``.
    """
    found: dict[str, Mapping[str, Any]] = {}
    shown: dict[str, dict[str, str]] = {}
    for source, title in (("ai-energy-score", "AI Energy Score"), ("ml-energy", "ML.ENERGY")):
        chosen, test = choices_of(pool, rule=rule, table=energy_tables.energy_table(source, tables))
        for key, arguments in energy.results(chosen, test, "table-5", backup=pool.backup).items():
            _, dataset, quantity = key.split("/")
            if quantity in ("energy", "saving"):
                found[f"sensitivity/{source}/{dataset}/{quantity}"] = arguments
                head = f"Energy (Wh), {title}" if quantity == "energy" else f"Saving (%), {title}"
                shown.setdefault(_dataset(dataset), {})[head] = _span(arguments, 3 if quantity == "energy" else 2)
    return found, pd.DataFrame.from_dict(shown, orient="index")


# --- deferral curves -------------------------------------------------------------------------------------------------


def stacked(pool: Pool) -> tuple[dict[str, np.ndarray], RoutingBenchmark]:
    """Return each method's estimates and the test prompts, both repeated for every seed, [N seeds x prompts, M].

    A deferral curve of these is the mean over seeds at every λ.
    """
    estimates = {
        method: np.concatenate([experiment.predict(pool.fitted[method, s.seed], s) for s in pool.settings])
        for method in pool.methods
    }
    return estimates, pool.test.subset(np.tile(np.arange(len(pool.test)), len(pool.settings)))


def curve_on_averages(
    estimates: np.ndarray, quality: np.ndarray, paid: np.ndarray, expected: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the deferral curve of decisions that see an LLM's average while each call is paid as it comes.

    Parameters
    ----------
    estimates, quality, paid : ndarray, [N, M]
    expected : ndarray, [M]
        What the decision charges, ``argmax_m g - λ expected``.

    Returns
    -------
    paid, earned : ndarray, [P]
        Means at every operating point, from the largest λ to 0. What is paid need not fall with λ.
    """
    earned, spent = (deferral_curve(estimates, values, expected) for values in (quality, paid))
    return spent.quality[::-1], earned.quality[::-1]


def panels(pools: Mapping[str, Pool]) -> list[Panel]:
    """Return the deferral curves of every pool in Wh: decisions that see each call, and those that see averages."""
    found = []
    for name, pool in pools.items():
        estimates, test = stacked(pool)
        points = list(zip(test.mean_cost.tolist(), test.quality.mean(axis=0).tolist(), strict=True))
        seen = {m: deferral_curve(e, test.quality, test.cost).points for m, e in estimates.items()}
        if pool.source == PUBLISHED:
            found.append(Panel(f"{name}: {PUBLISHED}", seen, "Wh per prompt", points=points))
            continue
        expected = pool.settings[0].full.mean_cost
        blind = {m: curve_on_averages(e, test.quality, test.cost, expected) for m, e in estimates.items()}
        found.append(Panel(f"{name}: averages are known", blind, "Wh per prompt", points=points))
        found.append(Panel(f"{name}: each call is known", seen, "Wh per prompt", points=points))
    return found


def match_table(pools: Mapping[str, Pool]) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Return `energy.energy_to_match` of every pool on LLMs' averages, and the table as shown.

    Every call is charged its LLM's average, so that no router knows more than there is to know before the call.
    """
    found, shown = {}, {}
    for name, pool in pools.items():
        estimates, test = stacked(pool)
        found[name] = energy.energy_to_match(estimates, energy.averaged(test), pool.backup)
        shown[f"{name}: saving (%)"] = [
            "–" if np.isnan(x) else f"{round(x, 1) + 0.0:.1f}" for x in found[name]["saving"]
        ]
        shown[f"{name}: area"] = [f"{x:.3f}" for x in found[name]["area"]]
    index = [figures.label(method) for method in next(iter(found.values())).index]
    return found, pd.DataFrame(shown, index=index)


# --- measured against modelled ---------------------------------------------------------------------------------------


def rules_table(pool: Pool, table: EnergyTable | None, rule: Rule) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the saving of SemiRouter's choices by `energy.compare_rules`, means over seeds, and the table as shown.

    Returns
    -------
    numbers : DataFrame
        Index: the datasets. One column a rule, saving in percent.
    """
    chosen, test = choices_of(pool, rule=rule)
    every = pd.concat([energy.compare_rules(some, test, table, backup=pool.backup) for some in chosen])
    numbers = every.pivot_table(index="dataset", columns="rule", values="saving", sort=False).rename_axis(None, axis=1)
    numbers = numbers[list(dict.fromkeys(every["rule"]))].rename_axis(None)
    shown = numbers.map("{:.1f}".format).rename(index=_dataset).add_prefix("Saving (%), ")
    for name in numbers.columns[1:]:
        off = numbers[name] - numbers["measured"]
        shown[f"{name}: points off"] = [f"{value:+.1f}" for value in off]
    return numbers, shown


def spread_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return `energy.spread` over all prompts as shown, and the least and most that a benchmark's mean is of an LLM's.

    Parameters
    ----------
    frame
        Of `energy.spread`.
    """
    rows = {}
    for model, some in frame.groupby("model", sort=False):
        everything, parts = some[some["dataset"] == "all"].iloc[0], some[some["dataset"] != "all"]
        rows[model] = {
            "calls": f"{everything['n']:,}",
            "mean": _significant([everything["mean"]])[0],
            "standard deviation / mean": f"{everything['cv']:.2f}",
            "a benchmark's mean / this": f"{parts['ratio'].min():.2f} to {parts['ratio'].max():.2f}",
            "rank correlation with the prompt's length": f"{everything['length']:.2f}",
        }
        if "watts" in some:
            rows[model]["median W while answering"] = f"{everything['watts']:.0f}"
    return pd.DataFrame.from_dict(rows, orient="index")


def spread_plot(frame: pd.DataFrame, unit: str) -> Figure:
    """Draw each LLM's mean energy on every benchmark as a dot, and its mean over all prompts as a line.

    Parameters
    ----------
    frame
        Of `energy.spread`.
    unit
        Of its energies.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.ticker import LogLocator, NullFormatter

    parts = frame[frame["dataset"] != "all"]
    names = sorted(set(parts["dataset"]))
    # LLMs have no colours of their own in this book: those of methods, each once, but the grey of the simple ones.
    grey = figures.METHODS["random"].colour
    looks = {look.colour: look for look in figures.METHODS.values() if look.colour != grey}
    models = parts.groupby("model")["mean"].mean().sort_values().index[-8:]
    with figures.style():
        figure, axes = plt.subplots(figsize=(6.6, 0.3 * len(names) + 1.2))
        for model, look in zip(models, looks.values(), strict=False):
            here = parts[parts["model"] == model].set_index("dataset")["mean"]
            whole = frame[(frame["model"] == model) & (frame["dataset"] == "all")]["mean"].iloc[0]
            axes.plot(here[names], range(len(names)), look.marker, color=look.colour, ms=6, mew=0, label=model)
            axes.axvline(whole, color=look.colour, lw=1, ls="--")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(f"Mean energy of a call ({unit})")
        axes.grid(True, axis="x", color=figures.GRID, lw=0.6)
        below = {"loc": "upper center", "bbox_to_anchor": (0.4, -0.22), "ncols": min(3, len(models))}
        axes.legend(fontsize=9, labelcolor=figures.INK, **below)
        sns.despine(figure)
    return figure


# --- the router's own energy -----------------------------------------------------------------------------------------


def measure(pool: Pool, encoder: str) -> dict[str, float]:
    """Return processor seconds of encoding a test prompt and of scoring all LLMs (`router_energy.measure_router`)."""
    setting = pool.settings[0]
    rows = np.linspace(0, len(setting.test) - 1, min(N_TIMED, len(setting.test))).astype(int)
    prompts = [setting.test.prompts[row] for row in rows]
    name = "minilm" if encoder == "auto" else encoder
    return router_energy.measure_router(
        pool.fitted[pool.ours, setting.seed], name, prompts, setting.test_embeddings[rows]
    )


def router_rows(times: Mapping[str, float], n_llms: int) -> dict[str, tuple[float, float]]:
    """Return seconds and Wh of routing one prompt, with the feature cache and without, and of BERT on the paper's card.

    Parameters
    ----------
    times
        Of `measure`.
    n_llms
        Without a cache the prompt is encoded for each of them.
    """
    encoding, scoring = times["encoding"], times["scoring"]
    seconds = {
        "encoded once for all LLMs": encoding + scoring,
        "encoded for each LLM": n_llms * encoding + scoring,
        "features already cached": scoring,
    }
    rows = {name: (some, router_energy.router_energy(seconds=some)) for name, some in seconds.items()}
    flops = router_energy.encoder_flops(**BERT_BASE, n_tokens=N_TOKENS)
    gpu = router_energy.PAPER_GPU
    rows[f"BERT-base, {N_TOKENS} tokens, from FLOPs on the paper's card"] = (
        float(gpu.seconds_for(flops)),
        router_energy.router_energy(flops=flops, device=gpu),
    )
    return rows


def router_table(rows: Mapping[str, tuple[float, float]], llms: pd.DataFrame) -> pd.DataFrame:
    """Return the router's energy beside that of the LLMs as routed and of the one that takes least.

    Parameters
    ----------
    rows
        Of `router_rows`.
    llms
        Frame of `router_energy.share_of_llm`.
    """
    routed, least = llms["wh"].iloc[-1], llms["wh"].iloc[0]
    shown = {
        name: {
            "ms": _significant([1000 * seconds])[0],
            "Wh": f"{wh:.2g}",
            "% of the LLMs' energy as routed": f"{100 * wh / routed:.2g}",
            f"% of {cells.slug(llms['llm'].iloc[0])}, which takes least": f"{100 * wh / least:.2g}",
        }
        for name, (seconds, wh) in rows.items()
    }
    return pd.DataFrame.from_dict(shown, orient="index")


# --- in words --------------------------------------------------------------------------------------------------------


def needs(dataset: str) -> str:
    """Return what stands in place of a table whose data is not among the pools."""
    return f"needs {dataset}, which is not among the pools of this run"


def said_ratios(by_size: pd.DataFrame) -> str:
    """Return how much more an LLM of 70B takes than one of 8B, by source; `by_size` as in `source_table`."""
    large = by_size[(by_size["size"] == "70B") & by_size["ratio"].notna()]
    return ", ".join(f"{row.ratio:.1f} in {row.source}" for row in large.itertuples())


def said_table(found: Found, part: str) -> str:
    """Return energy, saving and backup of `energy.results`, as means over the datasets."""
    mean = {quantity: found[f"{part}/{MACRO}/{quantity}"] for quantity in ("energy", "saving", "rerouted")}
    worded, alone = ("backup-as-worded", "all-at-gpt-4") if part == "table-5" else ("backup", "always-large")
    backup, large = (found[f"{part}/{MACRO}/{quantity}"]["value"] for quantity in (worded, alone))
    saving = mean["saving"]
    return (
        f"{_significant([mean['energy']['value']])[0]} Wh a prompt, a saving of {saving['value']:.1f} % "
        f"({saving['low']:.1f} to {saving['high']:.1f}); {mean['rerouted']['value']:.1%} of the prompts are better "
        f"answered by the large LLM, and with these rerouted the choices take {_significant([backup])[0]} Wh, "
        f"against {_significant([large])[0]} Wh always on the large LLM"
    )


def said_agreement(agreement: Mapping[str, float]) -> str:
    """Return the Spearman correlations of `price_table`."""
    titles = {"ai-energy-score": "AI Energy Score", "ml-energy": "ML.ENERGY"}
    return " and ".join(f"{value:.2f} with {titles[source]}" for source, value in agreement.items())


def said_gap(pool: Pool) -> str:
    """Return how many times the energy of the next LLM the large one takes, on average."""
    mean = dict(zip(pool.test.models, pool.test.mean_cost, strict=True))
    most = mean.pop(pool.backup)
    following = max(mean, key=mean.get)
    return f"{most / mean[following]:.1f} times that of {cells.slug(following)}, the next"


def said_explained(shares: pd.DataFrame) -> str:
    """Return what averages explain of the variance between calls; `shares` of `energy.explained`."""
    within = shares.drop(index="all")["by-model-and-dataset"]
    return (
        f"one average an LLM explains {shares.loc['all', 'by-model']:.1%} of the variance over all calls, one an LLM "
        f"and dataset {shares.loc['all', 'by-model-and-dataset']:.1%}; within one LLM the dataset explains from "
        f"{within.min():.1%} to {within.max():.1%}"
    )


def said_rules(numbers: pd.DataFrame) -> str:
    """Return how far off the savings of `rules_table` are on single datasets, and on the mean over them."""
    off = numbers.sub(numbers["measured"], axis=0).abs().drop(columns="measured")
    most, mean = off.drop(index=MACRO).max(), off.loc[MACRO]
    return " and ".join(f"by up to {most[rule]:.1f} points with {rule} ({mean[rule]:.1f} on the mean)" for rule in off)
