"""Energy as what routing costs: Table 5 by the paper's rule and with measured energy.

Section 3.2 and Table 5. A benchmark whose cost is an energy (`energy_tables.with_energy`, or MESS+ as it is loaded)
goes through every router and every deferral curve of the book; what is here reads Table 5's columns off a router's
choices and compares per-LLM averages with measured energy. Units are kept: energies are in the benchmark's cost unit
(Wh or joules per prompt) unless a name says Wh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from replications.semirouter.energy_tables import JOULES, EnergyTable, convert, in_wh, with_energy
from routebook.deferral import deferral_curve
from routebook.errors import UserError
from routebook.routers import best_llm
from routebook.significance import Estimate, mean_interval, paired_bootstrap

if TYPE_CHECKING:
    from routebook.benchmark import RoutingBenchmark

MACRO = "macro"
_ENERGIES = ("energy", "always-backup", "backup-as-worded")
_MEANS = (*_ENERGIES, "rerouted", "quality", "backup-quality", "best-of-two")
# How a table's columns are called in result keys: the paper prints an average as its backup cost, so the cost as
# worded needs a name of its own beside it; with measured energy only the cost as worded means anything.
_NAMES: dict[str, dict[str, str]] = {
    "table-5": {"backup": "backup", "backup-as-worded": "backup-as-worded", "always-backup": "all-at-gpt-4"},
    "measured": {"backup-as-worded": "backup", "always-backup": "always-large"},
}


# --- Table 5 ---------------------------------------------------------------------------------------------------------


def choose(quality_hat: np.ndarray, energy: np.ndarray, lam: float = 0.0) -> np.ndarray:
    """Return the LLM with the largest estimated quality less λ times energy; of equals, the one that takes least.

    With λ = 0 it is the paper's "most cost-effective with the highest predicted quality" (Section 4.3): on predicted
    labels (good, fair, bad) many LLMs are equal and the cheapest of the best answers.

    Parameters
    ----------
    quality_hat : ndarray, [N, M]
        NaN = never chosen.
    energy : ndarray, [M] or [N, M]
        What the router believes a call takes. Before the call only an average is known.
    lam : float
        Quality given up for one unit of energy.

    Returns
    -------
    ndarray of int, [N]

    Raises
    ------
    UserError
        Shapes that disagree, a λ below 0, or a prompt on which no LLM has an estimate.
    """
    quality_hat = np.asarray(quality_hat, dtype=float)
    energy = np.asarray(energy, dtype=float)
    if quality_hat.ndim != 2 or energy.shape not in (quality_hat.shape[1:], quality_hat.shape):
        raise UserError(
            f"quality_hat has shape {quality_hat.shape} and energy {energy.shape}; expected [N, M] and [M] or [N, M]"
        )
    if not (np.isfinite(lam) and lam >= 0):
        raise UserError(f"lam is {lam:g}, expected a finite trade-off >= 0")
    chosen = best_llm(quality_hat - lam * energy, np.broadcast_to(energy, quality_hat.shape))
    if (chosen < 0).any():
        raise UserError(f"prompt {int(np.argmax(chosen < 0))} has no estimate for any LLM; expected at least one")
    return chosen


def backup_of(benchmark: RoutingBenchmark, backup: str | None = None) -> int:
    """Return the column of the backup LLM: the one named, or the one that takes most energy on average (GPT-4)."""
    if backup is None:
        return int(np.argmax(benchmark.mean_cost))
    return int(benchmark.model_columns([backup])[0])


def by_dataset(
    choices: np.ndarray,
    benchmark: RoutingBenchmark,
    energy: EnergyTable | None = None,
    *,
    backup: str | None = None,
    datasets: np.ndarray | None = None,
) -> pd.DataFrame:
    """Return Table 5 for a router's choices: energy, saving and backup cost by dataset.

    Parameters
    ----------
    choices : ndarray of int, [N]
        Column of the LLM each prompt goes to.
    benchmark
        The prompts routed. Without `energy` its cost must be an energy, per call as measured or an average.
    energy
        An energy table, to charge each LLM's average instead (the paper's rule).
    backup
        The LLM to fall back on and to compare with; by default the one that takes most energy on average.
    datasets : ndarray of str, [N], optional
        What to group by; the benchmark's tasks if not given.

    Returns
    -------
    DataFrame
        One row a dataset and a last one, "macro", for their unweighted mean. Prompts on which the chosen LLM or the
        backup was not observed are left out; `n` counts the rest. Columns:

        ``energy``, ``always-backup``
            Mean energy of the choices, and of sending everything to the backup.
        ``saving``
            Percent of always-backup that the choices save.
        ``backup``
            (energy + always-backup) / 2: what all seven printed cells are, whatever the data.
        ``backup-as-worded``
            Section 5.2: the backup's energy is added for a query "if the answer quality of GPT-4 is higher than the
            LLM selected". It is below always-backup only while the share `rerouted` is below the saving.
        ``rerouted``
            Share of the prompts it is added on.
        ``quality``, ``backup-quality``, ``best-of-two``
            Mean quality of the choices, of the backup alone, and with every such query rerouted.

    Raises
    ------
    UserError
        A cost that is no energy, an LLM without an entry in the table, choices that are no columns of the pool, no
        prompt on which both LLMs were observed, or a backup that takes no energy.
    """
    charged = benchmark if energy is None else with_energy(benchmark, energy)
    convert(0.0, charged.cost_unit)
    large = backup_of(charged, backup)
    groups = charged.tasks if datasets is None else np.asarray(datasets, dtype=str)
    frame = _per_prompt(checked_choices(choices, charged), charged, large, groups)
    if frame.empty:
        raise UserError(f"{charged.name}: no prompt has both its chosen LLM and {charged.models[large]!r} observed")
    grouped = frame.groupby("dataset", sort=True)
    table = grouped[list(_MEANS)].mean().reset_index()
    table.insert(1, "n", grouped.size().to_numpy())
    table.loc[len(table)] = {"dataset": MACRO, "n": len(frame), **table[list(_MEANS)].mean()}
    free = table["dataset"][table["always-backup"] <= 0]
    if len(free):
        raise UserError(f"{charged.name}: {charged.models[large]!r} takes no energy on {free.iloc[0]}, expected some")
    table["saving"] = 100 * (1 - table["energy"] / table["always-backup"])
    table["backup"] = (table["energy"] + table["always-backup"]) / 2
    table["unit"] = charged.cost_unit
    return table


def _per_prompt(chosen: np.ndarray, benchmark: RoutingBenchmark, large: int, groups: np.ndarray) -> pd.DataFrame:
    """Return what `by_dataset` averages, one row a prompt on which the chosen LLM and the backup were observed."""
    rows = np.arange(len(benchmark))
    own, other = benchmark.quality[rows, chosen], benchmark.quality[:, large]
    taken, extra = benchmark.cost[rows, chosen], benchmark.cost[:, large]
    better = other > own
    frame = pd.DataFrame(
        {
            "dataset": groups,
            "energy": taken,
            "always-backup": extra,
            "backup-as-worded": taken + better * extra,
            "rerouted": better.astype(float),
            "quality": own,
            "backup-quality": other,
            "best-of-two": np.where(better, other, own),
        }
    )
    return frame[~(np.isnan(own) | np.isnan(other))]


def checked_choices(choices: np.ndarray, benchmark: RoutingBenchmark) -> np.ndarray:
    """Return choices as an array; UserError unless they are one column of the pool a prompt, [N] of int."""
    chosen = np.asarray(choices)
    if chosen.shape != (len(benchmark),) or not np.issubdtype(chosen.dtype, np.integer):
        raise UserError(
            f"choices are {chosen.dtype} of shape {chosen.shape}, expected {len(benchmark)} whole numbers, one LLM a "
            f"prompt of {benchmark.name}"
        )
    wrong = (chosen < 0) | (chosen >= len(benchmark.models))
    if wrong.any():
        last = len(benchmark.models) - 1
        raise UserError(f"choices hold {chosen[wrong][0]}, expected columns 0 to {last} of the pool")
    return chosen


def results(
    choices: Sequence[np.ndarray],
    benchmark: RoutingBenchmark,
    part: str,
    energy: EnergyTable | None = None,
    *,
    backup: str | None = None,
    datasets: np.ndarray | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Return every number of `by_dataset` for several seeds of a router, by result key.

    Parameters
    ----------
    choices : sequence of ndarray of int, [N]
        One a seed, for the same prompts.
    part : {"table-5", "measured"}
        First part of the keys.
    energy
        An energy table; without it the benchmark's own energy counts, in Wh.
    n_resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    dict of str to dict
        ``<part>/<dataset>/<quantity>`` to the arguments of `Record.value`: value, low, high, n, unit. Energies are in
        Wh, savings in percent. Quantities are means over seeds with a t-interval (n seeds), but ``saving`` and the
        difference from the backup alone: these compare two ways to answer the same prompts, so their 95 % interval is
        a paired bootstrap over prompts (n prompts) of what the seeds average to. The difference is
        ``backup-as-worded-minus-all-at-gpt-4`` in table-5 and ``backup-minus-always-large`` in measured.

    Raises
    ------
    UserError
        An unknown part, no choices, or as `by_dataset`.
    """
    if part not in _NAMES:
        raise UserError(f"part is {part!r}, expected one of {', '.join(_NAMES)}")
    if not len(choices):
        raise UserError("choices is empty, expected one array a seed")
    charged = in_wh(benchmark) if energy is None else with_energy(benchmark, energy)
    tables = [by_dataset(chosen, charged, backup=backup, datasets=datasets) for chosen in choices]
    groups = charged.tasks if datasets is None else np.asarray(datasets, dtype=str)
    large = backup_of(charged, backup)
    prompts = pd.concat([_per_prompt(np.asarray(chosen), charged, large, groups) for chosen in choices])
    prompts = prompts.groupby(level=0).agg({"dataset": "first", **dict.fromkeys(_ENERGIES, "mean")})
    names, found = _NAMES[part], {}
    for column in (*_MEANS, *(["backup"] if "backup" in names else [])):
        by_seed = pd.DataFrame([table.set_index("dataset")[column] for table in tables])
        unit = charged.cost_unit if column in (*_ENERGIES, "backup") else ""
        for dataset in by_seed:
            found[_key(part, dataset, names.get(column, column))] = _arguments(mean_interval(by_seed[dataset]), unit)
    worded, alone = names["backup-as-worded"], names["always-backup"]
    for dataset, here in _strata(prompts).items():
        less = paired_bootstrap(here["energy"], here["always-backup"], _percent_saved, n_resamples, seed)
        more = paired_bootstrap(here["backup-as-worded"], here["always-backup"], n_resamples=n_resamples, seed=seed)
        found[_key(part, dataset, "saving")] = _arguments(less, "percent")
        found[_key(part, dataset, f"{worded}-minus-{alone}")] = _arguments(more, charged.cost_unit)
    return found


def _key(part: str, dataset: str, quantity: str) -> str:
    return f"{part}/{dataset.replace('_', '-')}/{quantity}"


def _arguments(estimate: Estimate, unit: str) -> dict[str, Any]:
    return {"value": estimate.estimate, "low": estimate.low, "high": estimate.high, "n": estimate.n, "unit": unit}


def _percent_saved(routed: np.ndarray, alone: np.ndarray, axis: int = -1) -> np.ndarray:
    return 100 * (1 - routed.mean(axis=axis) / alone.mean(axis=axis))


def _strata(prompts: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the prompts of each dataset, and all of them weighted so that plain means are macro averages."""
    parts = dict(list(prompts.groupby("dataset")))
    size = prompts.groupby("dataset")["energy"].transform("size")
    weight = len(prompts) / (len(parts) * size)
    return {**parts, MACRO: prompts[list(_ENERGIES)].mul(weight, axis=0)}


def as_table(found: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return what `results` found as a table of values: one row a dataset, one column a quantity."""
    cells = {tuple(key.split("/")[1:]): arguments["value"] for key, arguments in found.items()}
    rows = dict.fromkeys(dataset for dataset, _ in cells)
    columns = dict.fromkeys(quantity for _, quantity in cells)
    return pd.DataFrame({q: [cells[dataset, q] for dataset in rows] for q in columns}, index=pd.Index(rows))


def all_at(benchmark: RoutingBenchmark, backup: str | None = None) -> np.ndarray:
    """Return the choices that send every prompt to the backup LLM, [N] of int (Table 5's last row)."""
    return np.full(len(benchmark), backup_of(benchmark, backup))


# --- measured against modelled ---------------------------------------------------------------------------------------


def averaged(benchmark: RoutingBenchmark) -> RoutingBenchmark:
    """Return the benchmark in which every call costs its LLM's mean: the paper's model of a measured energy."""
    return benchmark.with_cost(benchmark.mean_cost, benchmark.cost_unit)


def compare_rules(
    choices: np.ndarray,
    measured: RoutingBenchmark,
    table: EnergyTable | None = None,
    *,
    backup: str | None = None,
) -> pd.DataFrame:
    """Return energy and saving of the same choices under three rules, by dataset.

    Parameters
    ----------
    choices : ndarray of int, [N]
    measured
        A benchmark with the energy of every call (MESS+).
    table
        Published energies of its LLMs, the paper's rule; left out if not given.

    Returns
    -------
    DataFrame
        One row a dataset and rule ("measured", "own average": each LLM's mean over these calls, "published"):
        `dataset`, `rule`, `energy` and `always-backup` in Wh per prompt, `saving` in percent, `error` (percentage
        points of the saving above the measured one).

    Raises
    ------
    UserError
        As `by_dataset`.
    """
    calls = in_wh(measured)
    large = calls.models[backup_of(calls, backup)]
    rules = {"measured": calls, "own average": averaged(calls)}
    if table is not None:
        rules["published"] = with_energy(calls, table)
    frames = []
    for rule, charged in rules.items():
        frame = by_dataset(choices, charged, backup=large)[["dataset", "energy", "always-backup", "saving"]]
        frame.insert(1, "rule", rule)
        frames.append(frame)
    both = pd.concat(frames, ignore_index=True)
    truth = frames[0].set_index("dataset")["saving"]
    return both.assign(error=both["saving"] - both["dataset"].map(truth))


def spread(measured: RoutingBenchmark, seconds: np.ndarray | None = None) -> pd.DataFrame:
    """Return how far one average an LLM is from the energy of its calls, by dataset.

    Parameters
    ----------
    measured
        A benchmark with the energy of every call (MESS+).
    seconds : ndarray, [N, M], optional
        How long each call took.

    Returns
    -------
    DataFrame
        One row an LLM and dataset, and one an LLM for "all": `dataset`, `model`, `n`, `mean` (in the cost unit), `cv`
        (standard deviation over mean), `ratio` (mean over the LLM's mean on all prompts), `length` (Spearman
        correlation of energy with the prompt's length in characters; NaN where one of them is constant) and, given
        `seconds`, `watts`: median energy over time. That the unit is joules is plausible while these are watts a GPU
        can draw.
    """
    convert(0.0, measured.cost_unit)
    length = np.array([len(prompt) for prompt in measured.prompts])
    joules = convert(measured.cost, measured.cost_unit, JOULES)
    groups = {dataset: measured.tasks == dataset for dataset in np.unique(measured.tasks).tolist()}
    rows = []
    for dataset, here in {**groups, "all": np.ones(len(measured), dtype=bool)}.items():
        for at, model in enumerate(measured.models):
            energy = measured.cost[here, at]
            row = {
                "dataset": dataset,
                "model": model,
                "n": len(energy),
                "mean": energy.mean(),
                "cv": energy.std(ddof=1) / energy.mean() if len(energy) > 1 else np.nan,
                "ratio": energy.mean() / measured.mean_cost[at],
                "length": _rank_correlation(energy, length[here]),
            }
            if seconds is not None:
                row["watts"] = np.median(joules[here, at] / seconds[here, at])
            rows.append(row)
    return pd.DataFrame(rows)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import spearmanr

    if len(np.unique(a)) < 2 or len(np.unique(b)) < 2:
        return float("nan")
    return float(spearmanr(a, b).statistic)


def explained(measured: RoutingBenchmark) -> pd.DataFrame:
    """Return what share of the variance of per-prompt energy averages explain.

    Returns
    -------
    DataFrame
        Index: each LLM, and "all" calls of all LLMs. ``by-model``: explained by one mean an LLM, the paper's rule (0
        within one LLM, by definition); ``by-model-and-dataset``: by one mean an LLM and dataset. NaN where energy is
        constant.
    """
    convert(0.0, measured.cost_unit)
    energy = measured.cost
    _, group = np.unique(measured.tasks, return_inverse=True)
    sums = np.stack([np.bincount(group, weights=energy[:, at]) for at in range(energy.shape[1])], axis=1)
    rough = np.broadcast_to(energy.mean(axis=0), energy.shape)
    fine = (sums / np.bincount(group)[:, None])[group]

    def shares(columns: int | slice) -> dict[str, float]:
        cells = energy[:, columns]
        total = ((cells - cells.mean()) ** 2).sum()
        means = {"by-model": rough[:, columns], "by-model-and-dataset": fine[:, columns]}
        left = {name: ((cells - mean) ** 2).sum() for name, mean in means.items()}
        return {name: float(1 - rest / total) if total > 0 else float("nan") for name, rest in left.items()}

    rows = {name: shares(at) for at, name in enumerate(measured.models)} | {"all": shares(slice(None))}
    return pd.DataFrame.from_dict(rows, orient="index")


# --- energy as a cost column -----------------------------------------------------------------------------------------


def energy_to_match(
    quality_hats: Mapping[str, np.ndarray], benchmark: RoutingBenchmark, backup: str | None = None
) -> pd.DataFrame:
    """Return the least energy at which each router matches the quality of always using the backup LLM.

    Read off the exact deferral curve with energy as its cost (`routebook.deferral`), so no λ is chosen. As in all of
    the book's curves the decision sees the cost it is charged: with measured energy that flatters every router alike,
    as only an average is known before the call.

    Parameters
    ----------
    quality_hats : mapping of str to ndarray, [N, M]
        Method to its estimates on the prompts.
    benchmark
        Its cost must be an energy.

    Returns
    -------
    DataFrame
        Index: the methods. `energy` (in the benchmark's unit; inf where no λ gives that quality), `saving` (percent
        of always-backup; NaN where it is not matched), `matched`, `area` under the curve (mean quality over all
        budgets; a router that cannot spend as little as the cheapest LLM is held flat to the left), `unit`.
    """
    convert(0.0, benchmark.cost_unit)
    large = backup_of(benchmark, backup)
    rows = {}
    for method, quality_hat in quality_hats.items():
        curve = deferral_curve(quality_hat, benchmark.quality, benchmark.cost)
        price = float(curve.model_cost[large])
        relative = curve.qnc(reference=(float(curve.model_quality[large]), price))
        rows[method] = {
            "energy": relative * price,
            "saving": 100 * (1 - relative) if np.isfinite(relative) else np.nan,
            "matched": bool(np.isfinite(relative)),
            "area": curve.area(left="flat"),
            "unit": benchmark.cost_unit,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def price_against_energy(benchmark: RoutingBenchmark, table: EnergyTable) -> tuple[pd.DataFrame, float]:
    """Return each LLM's mean price beside its energy, and the Spearman correlation of the two over the pool.

    Returns
    -------
    frame : DataFrame
        Index: the LLMs. `price` (mean, in the benchmark's own unit), `wh`, and the rank of each (1 = least).
    agreement : float
        1 = routing for dollars ranks the LLMs as routing for energy does.
    """
    frame = pd.DataFrame(
        {"price": benchmark.mean_cost, "wh": with_energy(benchmark, table).mean_cost}, index=benchmark.models
    )
    frame["price-rank"], frame["wh-rank"] = frame["price"].rank(), frame["wh"].rank()
    return frame, _rank_correlation(frame["price"].to_numpy(), frame["wh"].to_numpy())
