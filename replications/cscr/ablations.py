"""CSCR with one thing changed at a time: Tables 5 and 7 to 13, Figures 6 and 7, and both signs of γ on every pool.

All settings of a table are trained on the same splits with the same seeds, so that differences are paired. A training
that several tables show is done once, and another k takes none at all.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from replications.cscr import experiment, recovery, sign, tables, theory
from replications.cscr.contrastive import CSCR
from replications.cscr.cost_spectrum import cost_bands
from replications.cscr.experiment import PoolSetting, Run, Split, in_processes, processes_for
from replications.cscr.tables import as_record, cell, place, told_apart
from routebook.deferral import mean_curve
from routebook.figures import METHODS, Look, Panel
from routebook.ledger import Cell
from routebook.significance import Estimate, mean_interval

if TYPE_CHECKING:
    from replications.cscr.params import AblationsParams

METRICS = (*experiment.METRICS, "chosen-cost")
UNITS = tables.UNITS | {"chosen-cost": "fraction"}
HEADS = tables.HEADS | {"chosen-cost": "cost of the nearest LLM"}
DIGITS = tables.DIGITS | {"chosen-cost": "{:.3f}"}
SHOWN = ("area", "audc-code", "peak", "cost-at-peak")
SIGN_WORDS = {"printed": "s − γc, as printed", "other": "s + γc, as described"}
# What a figure calls its lines: the two signs, and the paper's own column.
SIGN_LOOKS = {
    "printed": Look(SIGN_WORDS["printed"], METHODS["cscr"].colour, "-", "o"),
    "other": Look(SIGN_WORDS["other"], METHODS["learned-map"].colour, "--", "s"),
    "paper": Look("Table 10, cost at the peak", METHODS["random"].colour, ":", "x"),
}
_LINES = [(METHODS[name].colour, METHODS[name].dash) for name in ("k-nn", "cscr", "parametric", "vanilla", "soft-moe")]
# Simulated pools drawn at least: each costs a second or two.
N_SIMULATED = 4


@dataclass(frozen=True)
class Sweep:
    """Settings of CSCR that a table of the paper compares.

    Attributes
    ----------
    table
        Its id, e.g. "table-8".
    settings : dict of str to dict
        Key of a setting to the parameters of `CSCR` that differ there.
    rows : dict of str to str
        Key to the row of the published table.
    compared : tuple of (str, str)
        Pairs of keys whose difference in area is recorded.
    group
        What stands before a setting in a result's key: the sign of γ, or "".
    """

    table: str
    settings: Mapping[str, Mapping[str, Any]]
    rows: Mapping[str, str]
    compared: tuple[tuple[str, str], ...]
    group: str = ""

    @property
    def prefix(self) -> str:
        """What stands between pool and setting in a result's key."""
        return f"{self.group}/" if self.group else ""

    @property
    def name(self) -> str:
        """The sweep's own name: table and group."""
        return f"{self.table}/{self.group}".rstrip("/")

    def variants(self) -> dict[str, Mapping[str, Any]]:
        """Return the settings by the names that runs know them under."""
        return {f"{self.name}/{key}": changes for key, changes in self.settings.items()}


def _swept(
    table: str,
    words: tuple[str, str],
    field: str,
    values: Iterable[float],
    base: float,
    *,
    base_first: bool = True,
    fixed: Mapping[str, Any] | None = None,
    group: str = "",
) -> Sweep:
    """Return the sweep of one parameter; `words`: what a value follows in keys, and in the published rows."""
    keys = {value: f"{words[0]}{value:g}" for value in sorted(values)}
    pairs = [(keys[base], key) if base_first else (key, keys[base]) for value, key in keys.items() if value != base]
    return Sweep(
        table,
        {key: {field: value, **(fixed or {})} for value, key in keys.items()},
        {key: f"{words[1]}{value:g}" for value, key in keys.items()},
        tuple(pairs),
        group,
    )


def sweeps(params: AblationsParams, setting: PoolSetting) -> dict[str, Sweep]:
    """Return what is compared on a pool, by `Sweep.name`; values that exceed the pool's LLMs are left out.

    Differences are taken to the paper's default: five bands, k = 4, γ = 0.2, α = 0.25, τ_min = 0.05, the single width.
    """
    bands = experiment.fitting(params.bands, setting, "bands")
    ks = experiment.fitting(params.ks, setting, "ks")
    plain = {"cscr": {"loss": "cost-spectrum"}, "vanilla": {"loss": "vanilla"}}
    # One band holds every LLM, so that there is one temperature and all correct LLMs are summed together.
    banded = {"with": {}, "without": {"n_bands": 1}}
    found = [
        Sweep(
            "table-5",
            plain,
            {"cscr": "Cost-Spectrum InfoNCE", "vanilla": "Vanilla InfoNCE"},
            (("cscr", "vanilla"),),
        ),
        Sweep("table-7", banded, {"with": "With bands", "without": "Without bands"}, (("with", "without"),)),
        _swept("table-8", ("bands-", "bands:"), "n_bands", bands, 5),
        _swept("table-9", ("k-", "K="), "k", ks, 4, base_first=False),
        *(
            _swept("table-10", ("gamma-", "gamma="), "gamma", params.gammas, 0.2, fixed={"gamma_sign": s}, group=s)
            for s in sign.SIGNS
        ),
        _swept("table-11", ("alpha-", "alpha="), "alpha", params.alphas, 0.25),
        _swept("table-12", ("tau-", "tau_min="), "tau_min", params.taus, 0.05),
        _swept("table-13", ("width-x", "MLP-x"), "width_factor", params.widths, 1, base_first=False),
    ]
    return {sweep.name: sweep for sweep in found}


# --- training --------------------------------------------------------------------------------------------------------


def training_key(params: AblationsParams, changes: Mapping[str, Any]) -> tuple:
    """Return what tells one training from another: settings of CSCR that lead to one network have one key.

    k plays no part in training; nor do bands and γ in vanilla InfoNCE, nor the sign of a γ of 0.
    """
    full = {name: getattr(params, name) for name in experiment.CSCR_PARAMETERS} | {"width_factor": 1} | dict(changes)
    unused = {"k"}
    if full["loss"] == "vanilla":
        unused |= {"n_bands", "gamma", "gamma_sign"}
    elif full["gamma"] == 0:
        unused |= {"gamma_sign"}
    return tuple(sorted((name, value) for name, value in full.items() if name not in unused))


class Trainer:
    """Trains CSCR on one split, equal trainings once.

    Parameters
    ----------
    params, split
    """

    def __init__(self, params: AblationsParams, split: Split):
        self.params = params
        self.split = split
        self._trained: dict[tuple, CSCR] = {}

    def cscr(self, **changes: Any) -> CSCR:
        """Return CSCR fitted with these parameters, the page's for all others."""
        key = training_key(self.params, changes)
        if key not in self._trained:
            unfitted = {"cscr": experiment.cscr_for(self.params, self.split, **changes)}
            self._trained[key] = experiment.train(unfitted, self.split)["cscr"]
        fitted = copy.copy(self._trained[key])
        fitted.k = changes.get("k", self.params.k)
        return fitted


def run_split(task: tuple[AblationsParams, PoolSetting, int]) -> Run:
    """Train every setting of every sweep on one split and route its test prompts; the routers are let go."""
    params, setting, seed = task
    split = setting.split(seed)
    trainer = Trainer(params, split)
    variants = {name: c for sweep in sweeps(params, setting).values() for name, c in sweep.variants().items()}
    fitted = {name: trainer.cscr(**changes) for name, changes in variants.items()}
    return replace(experiment.route(fitted, split), routers={})


def run_all(params: AblationsParams, pools: Mapping[str, PoolSetting], n_jobs: int | None = None) -> list[Run]:
    """Train and route on every pool with every seed.

    Parameters
    ----------
    params, pools
    n_jobs
        Processes; by default one a processor where there is enough to do. The numbers do not depend on it.

    Returns
    -------
    list of Run
        Methods are named by sweep and setting, "table-8/bands-5".
    """
    tasks = [(params, setting, seed) for setting in pools.values() for seed in params.seeds]
    n_jobs = processes_for(params, len(tasks) * n_trainings(params, pools)) if n_jobs is None else n_jobs
    return in_processes(run_split, tasks, n_jobs, "ablations")


def n_trainings(params: AblationsParams, pools: Mapping[str, PoolSetting]) -> int:
    """Return how many networks a seed takes on the pool that takes most."""
    return max(
        len({training_key(params, c) for sweep in sweeps(params, setting).values() for c in sweep.settings.values()})
        for setting in pools.values()
    )


# --- what they earn --------------------------------------------------------------------------------------------------


def chosen_cost(run: Run, method: str) -> float:
    """Return the mean price of the LLM nearest to each test prompt (λ = 0); 0 = the cheapest LLM, 1 = the dearest."""
    nearest = experiment.choose(run.estimates[method], run.split.price, 0.0)
    return float(cost_bands(run.split.price, 1).cost[nearest].mean())


def evaluate(done: Sequence[Run], sweep: Sweep) -> pd.DataFrame:
    """Return `experiment.evaluate` of a sweep's settings alone, with `chosen-cost`; methods by their keys.

    Alone, since the released code's area depends on which routers are in the run.
    """
    frames = []
    for run in done:
        names = {f"{sweep.name}/{key}": key for key in sweep.settings}
        alone = replace(run, curves={key: run.curves[name] for name, key in names.items()})
        frame = experiment.evaluate([alone])
        costs = {key: chosen_cost(run, name) for name, key in names.items()}
        frames.append(frame.assign(**{"chosen-cost": frame["method"].map(costs)}))
    return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True, eq=False)
class Results:
    """What was found on one pool.

    Attributes
    ----------
    setting : PoolSetting
    runs : sequence of Run
        One a seed.
    sweeps : dict of str to Sweep
    frames : dict of str to DataFrame
        `evaluate` of each sweep.
    """

    setting: PoolSetting
    runs: Sequence[Run]
    sweeps: Mapping[str, Sweep]
    frames: Mapping[str, pd.DataFrame]
    _by_seed: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict, init=False, repr=False)

    def by_seed(self, sweep: str, metric: str = "area") -> pd.DataFrame:
        """Return a metric of a sweep: one row a seed, one column a setting; turned that way once."""
        if (sweep, metric) not in self._by_seed:
            self._by_seed[sweep, metric] = experiment.by_seed(self.frames[sweep], self.setting.name, metric)
        return self._by_seed[sweep, metric]

    def estimate(self, sweep: str, key: str, metric: str = "area") -> Estimate:
        """Return a metric of a setting: mean over seeds with its 95 % t-interval."""
        return mean_interval(self.by_seed(sweep, metric)[key].to_numpy(dtype=float))

    def difference(self, sweep: str, a: str, b: str, metric: str = "area") -> Estimate:
        """Return a metric of setting a minus that of setting b, paired over seeds."""
        wide = self.by_seed(sweep, metric)
        return mean_interval((wide[a] - wide[b]).to_numpy(dtype=float))


def results(params: AblationsParams, pools: Mapping[str, PoolSetting], done: Sequence[Run]) -> dict[str, Results]:
    """Return what was found on each pool, by its name."""
    found = {}
    for name, setting in pools.items():
        runs, compared = [run for run in done if run.split.name == name], sweeps(params, setting)
        found[name] = Results(setting, runs, compared, {key: evaluate(runs, s) for key, s in compared.items()})
    return found


def records(found: Results, table: str) -> Iterator[tables.Record]:
    """Yield everything the ledger and the prose read of one table on one pool."""
    pool, unit = found.setting.name, experiment.cost_unit(found.setting.benchmark)[0]
    for name, sweep in found.sweeps.items():
        if sweep.table != table:
            continue
        start = f"{table}/{pool}/{sweep.prefix}"
        for key in sweep.settings:
            for metric in METRICS:
                yield as_record(f"{start}{key}/{metric}", found.estimate(name, key, metric), UNITS.get(metric, unit))
        for a, b in sweep.compared:
            yield as_record(f"{start}{a}-minus-{b}/area", found.difference(name, a, b), UNITS["area"])


# --- the sign of γ ---------------------------------------------------------------------------------------------------


def sign_frame(found: Results) -> pd.DataFrame:
    """Return both signs' costs against γ on a pool, one row a sign, γ and seed, as `sign.cost_by_gamma` does."""
    frames = []
    for name in sign.SIGNS:
        sweep, frame = found.sweeps[f"table-10/{name}"], found.frames[f"table-10/{name}"]
        gammas = {key: changes["gamma"] for key, changes in sweep.settings.items()}
        columns = {"chosen-cost": "chosen_cost", "cost-at-peak": "cost_at_peak"}
        frames.append(frame.rename(columns=columns).assign(sign=name, gamma=frame["method"].map(gammas)))
    return pd.concat(frames, ignore_index=True)


def simulated_frame(params: AblationsParams) -> pd.DataFrame:
    """Return `sign.simulate_gamma_sign` at the page's γ, its cost at the peak in the pool's own unit."""
    seeds = range(params.seed, params.seed + max(params.n_seeds, N_SIMULATED))
    found = sign.simulate_gamma_sign(params.gammas, seeds=seeds)
    low, high = recovery.COST_RANGE
    return found.assign(cost_at_peak=low + (high - low) * found["cost_at_peak"])


def slope_records(pool: str, frame: pd.DataFrame) -> Iterator[tables.Record]:
    """Yield the slope of the chosen LLM's cost against γ under each sign."""
    for name, slope in sign.slopes(frame).items():
        yield as_record(f"gamma-sign/{pool}/{name}/slope", slope, "share of the cost range per unit of γ")


def _per_gamma(frame: pd.DataFrame, column: str) -> dict[str, tuple[np.ndarray, pd.DataFrame]]:
    """Return γ and the mean of a column over seeds with its interval, by sign."""
    lines = {}
    for name, part in frame.groupby("sign", sort=False):
        by_gamma = part.pivot(index="gamma", columns="seed", values=column)
        each = [mean_interval(row) for row in by_gamma.to_numpy(dtype=float)]
        cells = [{"value": e.estimate, "low": e.low, "high": e.high} for e in each]
        lines[str(name)] = by_gamma.index.to_numpy(dtype=float), pd.DataFrame(cells)
    return lines


def chosen_panels(frames: Mapping[str, pd.DataFrame]) -> list[Panel]:
    """Return the cost of the nearest LLM against γ, one panel a pool and one line a sign."""
    panels = []
    for pool, frame in frames.items():
        lines = _per_gamma(frame, "chosen_cost")
        curves = {name: (x, y["value"].to_numpy()) for name, (x, y) in lines.items()}
        bands = {name: (y["low"].clip(0, 1), y["high"].clip(0, 1)) for name, (_, y) in lines.items()}
        panels.append(Panel(place(pool), curves, "γ", bands))
    return panels


def peak_panels(frames: Mapping[str, pd.DataFrame], published: Mapping[tuple[str, str], Cell]) -> list[Panel]:
    """Return the cost at the peak relative to that at γ = 0, and Table 10's, one panel a pool.

    Means over seeds, divided by the mean at the least γ.
    """
    printed = printed_costs(published)
    panels = []
    for pool, frame in frames.items():
        lines = _per_gamma(frame, "cost_at_peak")
        curves = {name: (x, (y["value"] / y["value"].iloc[0]).to_numpy()) for name, (x, y) in lines.items()}
        curves["paper"] = (printed.index.to_numpy(), (printed / printed.iloc[0]).to_numpy())
        panels.append(Panel(place(pool), curves, "γ"))
    return panels


def printed_costs(published: Mapping[tuple[str, str], Cell]) -> pd.Series:
    """Return Table 10's cost at the peak by γ."""
    costs = {row: cell for (row, column), cell in published.items() if column == "cost@max_acc"}
    cells = {float(row.partition("=")[2]): cell.value for row, cell in costs.items()}
    return pd.Series(cells).sort_index()


def sign_table(
    frames: Mapping[str, pd.DataFrame], published: Mapping[tuple[str, str], Cell]
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Return how each sign's cost moves with γ beside Table 10, and how often each moves as the table does.

    Returns
    -------
    shown : DataFrame
        One row a pool and sign: slope of the nearest LLM's cost, cost at the peak at the largest γ relative to γ = 0,
        and the rank correlation of the mean cost at the peak with Table 10's over γ.
    agreement : dict of str to float
        Sign to the share of pools on which that correlation is positive.
    """
    printed = printed_costs(published)
    rows, agrees = {}, {name: [] for name in sign.SIGNS}
    for pool, frame in frames.items():
        slope = sign.slopes(frame)
        for name, (gammas, costs) in _per_gamma(frame, "cost_at_peak").items():
            mean = pd.Series(costs["value"].to_numpy(), index=gammas)
            alike = mean.reindex(printed.index).corr(printed, method="spearman")
            agrees[name].append(alike > 0)
            rows[place(pool), SIGN_WORDS[name]] = {
                "slope of the nearest LLM's cost": cell(slope[name], "{:+.2f}", told_apart(slope[name])),
                "cost at the peak, largest γ / γ = 0": f"{mean.iloc[-1] / mean.iloc[0]:.2f}",
                "rank correlation with Table 10": f"{alike:+.2f}",
            }
    rows["the paper", "Table 10"] = {
        "slope of the nearest LLM's cost": tables.DASH,
        "cost at the peak, largest γ / γ = 0": f"{printed.iloc[-1] / printed.iloc[0]:.2f}",
        "rank correlation with Table 10": "+1.00",
    }
    return pd.DataFrame.from_dict(rows, orient="index"), {name: float(np.mean(a)) for name, a in agrees.items()}


# --- as shown --------------------------------------------------------------------------------------------------------


PUBLISHED = {
    "audc-code": ("AUDC", "AUCD"),
    "peak": ("Peak", "Peak Accuracy", "max_acc"),
    "cost-at-peak": ("QNC", "cost@max_acc"),
}


def shown(
    found: Mapping[str, Results], sweep: str, published: Mapping[tuple[str, str], Cell]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one sweep on every pool, and the same as readers see it, the paper's numbers first.

    Returns
    -------
    numbers : DataFrame
        One row "pool/setting", one column a metric: means over seeds.
    shown : DataFrame
        One row a setting within a pool, with intervals and the difference in area; the best area of a pool in bold,
        and differences whose interval excludes 0.
    """
    numbers, cells = {}, {}
    first = next(iter(found.values())).sweeps[sweep]
    for row in dict.fromkeys(row for row, _ in published):
        cells["the paper", row] = {HEADS[m]: _printed(published, row, m) for m in SHOWN}
    for pool, its in found.items():
        compared = its.sweeps[sweep]
        best = max(compared.settings, key=lambda key: its.estimate(sweep, key).estimate)
        unit = experiment.cost_unit(its.setting.benchmark)[0]
        for key in compared.settings:
            estimates = {metric: its.estimate(sweep, key, metric) for metric in METRICS}
            numbers[f"{pool}/{compared.prefix}{key}"] = {m: e.estimate for m, e in estimates.items()}
            cells[f"{place(pool)}, {unit}", first.rows.get(key, compared.rows[key])] = {
                HEADS[m]: cell(estimates[m], _digits(m, unit), m == "area" and key == best) for m in SHOWN
            } | {"area minus the default's": _to_default(its, sweep, key)}
    frame = pd.DataFrame.from_dict(cells, orient="index")[[HEADS["area"], "area minus the default's", *_heads()]]
    return pd.DataFrame.from_dict(numbers, orient="index"), frame.fillna(tables.DASH)


def _heads() -> list[str]:
    return [HEADS[metric] for metric in SHOWN[1:]]


def _digits(metric: str, unit: str) -> str:
    return "{:,.0f}" if metric == "cost-at-peak" and unit.startswith("param") else DIGITS[metric]


def _printed(published: Mapping[tuple[str, str], Cell], row: str, metric: str) -> str:
    cells = [published[row, column] for column in PUBLISHED.get(metric, ()) if (row, column) in published]
    return cells[0].printed if cells else tables.DASH


def _to_default(found: Results, sweep: str, key: str) -> str:
    """Return a setting's area minus that of the paper's default, which every pair of a sweep has on one side."""
    for a, b in found.sweeps[sweep].compared:
        default = a if sweep not in ("table-9", "table-13") else b
        if key in (a, b) and key != default:
            difference = found.difference(sweep, key, default)
            return cell(difference, "{:+z.4f}", told_apart(difference))
    return tables.DASH


def band_panels(found: Mapping[str, Results]) -> tuple[list[Panel], dict[str, Look]]:
    """Return Figure 6, mean deferral curves for each number of bands, one panel a pool; and the lines' looks."""
    panels, looks = [], {}
    for pool, its in found.items():
        curves = {}
        for key, changes in its.sweeps["table-8"].settings.items():
            mean = mean_curve([run.curves[f"table-8/{key}"] for run in its.runs], left="flat")
            curves[key] = mean.relative_cost, mean.quality
            colour, dash = _LINES[len(looks) % len(_LINES)]
            looks.setdefault(key, Look(f"{changes['n_bands']} bands", colour, dash))
        panels.append(Panel(place(pool), curves, "Relative cost"))
    return panels, looks


def band_metric_panels(found: Mapping[str, Results]) -> list[Panel]:
    """Return Figure 7: AUDC, QNC (what the paper calls so: cost at the peak) and peak against the number of bands."""
    panels = []
    for pool, its in found.items():
        unit = experiment.cost_unit(its.setting.benchmark)[0]
        words = {"area": "area", "cost-at-peak": f"cost at the peak,\n{unit}", "peak": "peak"}
        for metric, said in words.items():
            settings = its.sweeps["table-8"].settings
            each = [its.estimate("table-8", key, metric) for key in settings]
            x = np.array([changes["n_bands"] for changes in settings.values()], dtype=float)
            y, low, high = (np.array([getattr(e, side) for e in each]) for side in ("estimate", "low", "high"))
            bands = {"cscr": (low, high)} if np.isfinite(low).all() else {}
            panels.append(Panel(f"{place(pool)}: {said}", {"cscr": (x, y)}, "Cost bands", bands))
    return panels


def filled_bands(found: Mapping[str, Results]) -> pd.DataFrame:
    """Return how many of the bands asked for hold an LLM, one row a pool: LLMs of equal cost share a band."""
    rows = {}
    for pool, its in found.items():
        asked = [changes["n_bands"] for changes in its.sweeps["table-8"].settings.values()]
        filled = [[cost_bands(run.split.price, n).n_bands for run in its.runs] for n in asked]
        told = [f"{min(n)}" if min(n) == max(n) else f"{min(n)} to {max(n)}" for n in filled]
        rows[place(pool)] = {f"{n} asked for": said for n, said in zip(asked, told, strict=True)}
    return pd.DataFrame.from_dict(rows, orient="index").fillna(tables.DASH)


def default_table(found: Mapping[str, Results]) -> pd.DataFrame:
    """Return the paper's default setting as each table sees it: one area, but one "AUDC" a table (CS-4).

    The training is the same in every column; what differs is which other settings are in the run.
    """
    defaults = {
        "table-5": "cscr",
        "table-7": "with",
        "table-8": "bands-5",
        "table-9": "k-4",
        "table-10/printed": "gamma-0.2",
        "table-11": "alpha-0.25",
        "table-12": "tau-0.05",
        "table-13": "width-x1",
    }
    rows = {}
    for pool, its in found.items():
        for metric in ("area", "audc-code"):
            told = {sweep: its.estimate(sweep, key, metric).estimate for sweep, key in defaults.items()}
            rows[place(pool), HEADS[metric]] = {
                sweep.partition("/")[0].replace("table-", "Table "): f"{value:.4f}" for sweep, value in told.items()
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def tally(found: Mapping[str, Results], sweep: str, a: str, b: str) -> str:
    """Say on how many pools setting a has more area than b, less, or cannot be told from it."""
    counts = {"more": 0, "less": 0, "neither": 0}
    for its in found.values():
        if not {a, b} <= set(its.sweeps[sweep].settings):
            continue
        difference = its.difference(sweep, a, b)
        counts["more" if difference.low > 0 else "less" if difference.high < 0 else "neither"] += 1
    return f"more on {counts['more']}, less on {counts['less']}, cannot be told apart on {counts['neither']}"


# --- theory ----------------------------------------------------------------------------------------------------------


def lemma_table(gamma: float = 0.2) -> pd.DataFrame:
    """Return the counter-examples to Lemma 5.3, one row a pair of experts that contradicts it."""
    rows = []
    for example in theory.lemma_examples(gamma):
        for violation in example.violations().itertuples():
            seen = example.table()
            rows.append(
                {
                    "example": example.name,
                    "sign": SIGN_WORDS[example.gamma_sign],
                    "correct: cost": f"{seen.cost[violation.correct]:.1f}",
                    "its similarity": f"{violation.similarity:.3f}",
                    "wrong: cost": f"{seen.cost[violation.wrong]:.1f}",
                    "its similarity, more": f"{violation.wrong_similarity:.3f}",
                    "the proof's inequality": "holds" if violation.penalised_holds else "fails",
                    "gradient": f"{example.gradient:.0e}",
                }
            )
    return pd.DataFrame(rows).set_index("example")


def rate_table(ds: Sequence[int] = (1, 2, 4, 8), n: int = 1_000_000) -> pd.DataFrame:
    """Return the best k of both bounds of Theorem 5.2, and what each promises at its own and at the other's."""
    rows = {}
    for d in ds:
        best = {bound: theory.best_k(n, d, bound) for bound in ("printed", "proved")}
        rows[d] = {f"best k, {bound}": f"{k:,.0f}" for bound, k in best.items()} | {
            "printed bound there": f"{theory.rate(n, best['printed'], d, 'printed'):.3f}",
            "proved bound at the printed k": f"{theory.rate(n, best['printed'], d, 'proved'):.3f}",
            "proved bound at its own k": f"{theory.rate(n, best['proved'], d, 'proved'):.3f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("d")


def counterexample_table(found: pd.DataFrame) -> pd.DataFrame:
    """Return `theory.noise_counterexample` or `bias_counterexample` with digits that mean something."""
    names = {"n": "n", "k": "k", "excess": "excess risk"}
    names |= {"excess_over_printed": "÷ printed bound", "excess_over_proved": "÷ proved bound"}
    digits = {"n": "{:,.0f}", "k": "{:,.0f}"}
    return pd.DataFrame({said: found[name].map(digits.get(name, "{:.3g}").format) for name, said in names.items()})
