"""What the CSCR chapter shows and records, made from `experiment`'s frames and runs and from the fingerprints.

A record is the keyword arguments of `routebook.record.Record.value`, with the key the ledger reads.
"""

from __future__ import annotations

import html
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from replications.cscr import arithmetic, experiment, fingerprints
from replications.cscr.contrastive import unit_descriptors
from replications.cscr.experiment import METHODS, OUTCOMES, Paired, PoolSetting, Run, Split
from routebook import encoders, figures
from routebook.deferral import audc_cscr, mean_curve
from routebook.figures import Panel, label
from routebook.significance import Estimate, mean_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from replications.cscr.params import CSCRParams

Record = dict[str, Any]
OURS = "cscr"
# Rows of the paper's Table 1 by method; the others are not in it.
ROWS = {
    "oracle": "Oracle (upper bound)",
    "umr": "UMR [40]",
    "thompson": "Thompson [2]",
    "soft-moe": "Soft-MoE [64]",
    "parametric": "Parametric [62]",
    "zero-router": "Pareto-Random [34]",
    "random": "Random",
    "cscr": "CSCR (Ours)",
}
BASELINES = ("umr", "thompson", "soft-moe", "parametric", "zero-router", "random")
RIVALS = (*BASELINES, "vanilla", "best-single", "dataset-oracle")
COMPARED = (*BASELINES, "dataset-oracle")
# "Key baselines" whose cost at their peak the paper compares CSCR's with: those that learn.
KEY_BASELINES = ("umr", "thompson", "soft-moe", "parametric")
# The columns of Table 1 that a pool is shown beside: its own, or those of the benchmark it stands in for.
PRINTED_AS = {"routerbench": "RouterBench", "alpaca-eval": "Mix-Instruct", "tinypool": "EmbedLLM"}
PLACES = {
    "routerbench": "RouterBench",
    "alpaca-eval": "AlpacaEval",
    "tinypool": "TinyPool",
    "mmlu-pro": "MMLU-Pro",
    "simulated": "simulated",
}
UNITS = {"area": "area", "audc-code": "area", "peak": "quality", "qnc": "fraction"}
HEADS = {
    "area": "area, exact",
    "audc-code": "AUDC as the code has it",
    "cost-at-peak": "cost at own peak",
    "qnc": "QNC as defined",
    "peak": "peak",
}
PRINTED = {"audc-code": "AUDC", "cost-at-peak": "QNC", "peak": "Peak"}
DIGITS = {"area": "{:.4f}", "audc-code": "{:.4f}", "peak": "{:.3f}", "cost-at-peak": "{:.3g}", "qnc": "{:.3f}"}
DRAWN = ("oracle", *BASELINES, "cscr", "vanilla", "dataset-oracle")
# Above so many LLMs a heat map of single ones can no longer be read.
READABLE = 25
BANDS = 5
N_RESAMPLES = 5000
# How far CSCR's own fingerprints are changed to see what their content is worth.
CONTENTS = ("rotated", "permuted", "random")
N_TIMED, EXAMPLE_LENGTH = 20, 180
DASH = "–"


def place(pool: str) -> str:
    """Return a pool's name as readers see it."""
    return PLACES.get(pool, pool)


def as_record(id: str, estimate: Estimate, unit: str = "") -> Record:
    """Return an estimate as a record under this key; without bounds where it has none."""
    bounds = {"low": estimate.low, "high": estimate.high} if np.isfinite(estimate.low) else {}
    return {"id": id, "value": estimate.estimate, **bounds, "n": estimate.n, "unit": unit}


def cell(estimate: Estimate, digits: str, bold: bool = False) -> str:
    """Return a number over its interval, a dash where there is none."""
    if np.isnan(estimate.estimate):
        return DASH
    text = digits.format(estimate.estimate)
    text = f"<b>{text}</b>" if bold else text
    if not np.isfinite(estimate.low):
        return text
    return f"{text}<br><small>[{digits.format(estimate.low)}, {digits.format(estimate.high)}]</small>"


def told_apart(estimate: Estimate) -> bool:
    """Whether the interval of a difference excludes 0."""
    return bool(estimate.low > 0 or estimate.high < 0)


def over_pools(found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Stack one table a pool, the pool's name in front of each row."""
    return pd.concat({place(pool): table for pool, table in found.items()})


# --- data and known truth --------------------------------------------------------------------------------------------


def overview(pools: Mapping[str, PoolSetting]) -> pd.DataFrame:
    """Return one row a pool: LLMs, prompts, what their quality and cost are, and their fingerprints."""
    rows = {}
    for name, setting in pools.items():
        benchmark, descriptors = setting.benchmark, list(setting.descriptors.values())
        known, routed = setting.rows(0)
        cost = benchmark.mean_cost
        kind = "known truth" if name == "simulated" else experiment.DESCRIPTOR[name]
        rows[place(name)] = {
            "LLMs": len(benchmark.models),
            "prompts to train on": len(known),
            "to test on": len(routed),
            "left out as probes": setting.n_probes_removed,
            "source datasets": len(set(benchmark.tasks)),
            "quality": benchmark.quality_kind,
            "cost in": experiment.cost_unit(benchmark)[0],
            "dearest / cheapest LLM": f"{cost.max() / cost.min():.3g}",
            "fingerprints": f"{kind}, {len(descriptors[0])} numbers",
            "data": benchmark.origin,
            "absent": ", ".join(benchmark.absent) or "nothing",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def defaults_table(params: CSCRParams) -> pd.DataFrame:
    """Return the setting of CSCR in this run beside the paper's."""
    paper = {
        "n_bands": "5",
        "gamma": "0.2 (Sections 4.1, D.3.3), 0.1 (D.1)",
        "alpha": "0.25",
        "tau_min": "0.05",
        "k": "4",
        "hidden": "not given; 384 in the released code",
        "epochs": "10",
        "lr": "0.0005",
        "batch_size": "512",
        "min_steps": "0: the epochs alone",
    }
    rows = {name: {"here": f"{getattr(params, name):g}", "the paper": said} for name, said in paper.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


# --- fingerprints and Figure 2 ---------------------------------------------------------------------------------------


def cosines(vectors: np.ndarray) -> np.ndarray:
    """Return the cosine similarity of every two rows, [M, M]."""
    unit = np.asarray(vectors, dtype=float)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    return unit @ unit.T


def family_contrast(
    vectors: np.ndarray, families: Sequence[str], n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Estimate:
    """Return the mean cosine of two LLMs of one family less that of two of different families.

    The interval is a percentile bootstrap over LLMs. An LLM is never compared with itself, however often it is drawn;
    draws without a pair of either kind are left out.

    Parameters
    ----------
    vectors : ndarray, [M, D']
    families : sequence of str, length M
    n_resamples, seed

    Returns
    -------
    Estimate
        NaN where no two LLMs share a family, or all do.
    """
    names, similarity = np.asarray(families), cosines(vectors)
    same = names[:, None] == names
    np.fill_diagonal(same, False)
    other = names[:, None] != names
    m = len(names)
    drawn = np.random.default_rng(seed).multinomial(m, np.full(m, 1 / m), size=n_resamples).astype(float)

    def contrast(weights: np.ndarray) -> np.ndarray:
        means = []
        for pairs in (same, other):
            total = ((weights @ (similarity * pairs)) * weights).sum(axis=1)
            count = ((weights @ pairs) * weights).sum(axis=1)
            means.append(np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0))
        return means[0] - means[1]

    resampled = contrast(drawn)
    resampled = resampled[~np.isnan(resampled)]
    low, high = np.quantile(resampled, [0.025, 0.975]) if len(resampled) else (np.nan, np.nan)
    estimate = float(contrast(np.ones((1, m)))[0])
    return Estimate(estimate, float(low), float(high), m, f"bootstrap over LLMs (percentile, {n_resamples} resamples)")


def _vectors(setting: PoolSetting) -> np.ndarray:
    return np.stack([setting.descriptors[model] for model in setting.benchmark.models])


def figure2_records(setting: PoolSetting) -> Iterator[Record]:
    """Yield what the ledger reads about Figure 2."""
    models = setting.benchmark.models
    found = family_contrast(_vectors(setting), fingerprints.families(models))
    yield as_record(f"figure-2/{setting.name}/within-minus-between", found, "cosine similarity")


def cosine_range(setting: PoolSetting) -> tuple[float, float]:
    """Return the smallest and the largest cosine between two LLMs of a pool."""
    pairs = cosines(_vectors(setting))[np.triu_indices(len(setting.benchmark.models), 1)]
    return float(pairs.min()), float(pairs.max())


def contrast_table(pools: Mapping[str, PoolSetting]) -> pd.DataFrame:
    """Return, for each pool, how alike any two LLMs are, and how much more alike two of one family are."""
    rows = {}
    for name, setting in pools.items():
        families = fingerprints.families(setting.benchmark.models)
        low, high = cosine_range(setting)
        rows[place(name)] = {
            "families": f"{len(set(families))}, of {len(families)} LLMs",
            "cosine of two LLMs": f"{low:.3f} to {high:.3f}",
            "within less between families": cell(family_contrast(_vectors(setting), families), "{:+.4f}"),
        }
    return pd.DataFrame(rows)


def similarity_matrix(setting: PoolSetting) -> pd.DataFrame:
    """Return Figure 2 for a pool: the cosine similarity of every two LLMs, families side by side.

    Of a pool of more than 25 LLMs the mean over pairs of LLMs, family by family (NaN: a family of one with itself).
    """
    models = setting.benchmark.models
    families = np.array(fingerprints.families(models))
    order = np.lexsort((np.array(models), families))
    similarity = cosines(_vectors(setting))[np.ix_(order, order)]
    if len(models) <= READABLE:
        names = [models[i].split("/")[-1] for i in order]
        return pd.DataFrame(similarity, index=names, columns=names)
    groups = sorted(set(families))
    member = np.array([families[order] == family for family in groups], dtype=float)
    pairs = 1.0 - np.eye(len(models))
    total, count = (member @ part @ member.T for part in (similarity * pairs, pairs))
    means = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return pd.DataFrame(means, index=groups, columns=groups)


def similarity_plot(pools: Mapping[str, PoolSetting], name: str) -> Figure:
    """Draw `similarity_matrix` of a pool; a message instead where the run has not that pool."""
    if name not in pools:
        return figures.absent_plot(f"{place(name)} is not among the pools of this run.")
    return figures.heat_map(similarity_matrix(pools[name]), colourbar="Cosine similarity")


def without_shortness(scores: fingerprints.ProbeScores) -> np.ndarray:
    """Return perplexity fingerprints that do not say which answers are short, [M, N].

    Each LLM's scores less the mean of its short answers (at most one token) or of its longer ones.
    """
    values, short = scores.cross_entropy.to_numpy(dtype=float), scores.tokens.to_numpy() <= 1
    left = np.zeros_like(values)
    for m in range(values.shape[1]):
        for where in (short[:, m], ~short[:, m]):
            if where.any():
                left[where, m] = values[where, m] - values[where, m].mean()
    return fingerprints.fingerprint(left.T)


def degenerate_table(pools: Mapping[str, PoolSetting]) -> pd.DataFrame:
    """Return how many answers of a pool to the probes are empty or one token, and what that does to fingerprints.

    Perplexity fingerprints everywhere, also where the router uses another kind. Simulated pools gave no answers.
    """
    rows = {}
    for name, setting in pools.items():
        if name not in fingerprints.POOLS:
            continue
        models = list(setting.benchmark.models)
        full = fingerprints.probe_scores(name)
        scores = fingerprints.ProbeScores(full.cross_entropy[models], full.tokens[models], full.max_tokens)
        values, tokens = scores.cross_entropy.to_numpy(), scores.tokens.to_numpy()
        short, share = fingerprints.short_answers(tokens), fingerprints.variance_by_shortness(values, tokens)
        most, families = int(short.argmax()), fingerprints.families(models)
        readings = {
            "Eq. (4)": fingerprints.fingerprint(values.T),
            "as the released code": fingerprints.fingerprint(values.T, "code"),
            "Eq. (4), shortness taken out": without_shortness(scores),
        }
        rows[place(name)] = {
            "answers": f"{tokens.size:,}",
            "empty": f"{(tokens == 0).mean():.1%}",
            "of at most one token": f"{short.mean():.1%}",
            "most, of one LLM": f"{short[most]:.0%} ({models[most].split('/')[-1]})",
            "variance that says which are short": f"{share.mean():.0%} (at most {share.max():.0%})",
            **{
                f"within less between families: {reading}": cell(family_contrast(vectors, families), "{:+.3f}")
                for reading, vectors in readings.items()
            },
        }
    return pd.DataFrame(rows)


# --- Table 1 and Figure 1 --------------------------------------------------------------------------------------------


def summary(frame: pd.DataFrame, pool: str, metric: str) -> dict[str, Estimate]:
    """Return the mean of a metric over seeds by method, with its interval."""
    wide = experiment.by_seed(frame, pool, metric)
    return {method: mean_interval(wide[method].to_numpy(dtype=float)) for method in wide}


def table1_records(frame: pd.DataFrame, setting: PoolSetting) -> Iterator[Record]:
    """Yield what the ledger reads about Table 1 on one pool: every metric, the differences and the lead over UMR."""
    pool, unit = setting.name, experiment.cost_unit(setting.benchmark)[0]
    for metric in experiment.METRICS:
        for method, found in summary(frame, pool, metric).items():
            yield as_record(f"table-1/{pool}/{method}/{metric}", found, UNITS.get(metric, unit))
    for rival in (*RIVALS, "oracle"):
        key = f"table-1/{pool}/{OURS}-minus-{rival}"
        yield as_record(f"{key}/area", experiment.difference(frame, pool, OURS, rival), "area")
        if rival in KEY_BASELINES:
            found = experiment.difference(frame, pool, OURS, rival, "cost-at-peak")
            yield as_record(f"{key}/cost-at-peak", found, unit)
    wide = experiment.by_seed(frame, pool)
    lead = mean_interval(100 * (wide[OURS] / wide["umr"] - 1).to_numpy(dtype=float))
    yield as_record(f"table-1/{pool}/cscr-over-umr-percent", lead, "%")


def table1(frame: pd.DataFrame, setting: PoolSetting) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return Table 1 on one pool: the mean numbers, and as shown with intervals and the paper's beside ours.

    Bold: the largest mean area of the routers that are not told the answers.
    """
    pool, unit = setting.name, experiment.cost_unit(setting.benchmark)[0]
    printed, column = arithmetic.published()["table-1"], PRINTED_AS.get(pool)
    found = {metric: summary(frame, pool, metric) for metric in HEADS}
    best = max((m for m in found["area"] if m != "oracle"), key=lambda m: found["area"][m].estimate)
    numbers, shown = {}, {}
    for method in METHODS:
        cells = {}
        for metric, head in HEADS.items():
            if metric in PRINTED:
                theirs = printed.get((ROWS.get(method, ""), f"{column} / {PRINTED[metric]}"))
                cells[f"{PRINTED[metric]} in the paper"] = theirs.printed if theirs else DASH
            cells[head] = cell(found[metric][method], DIGITS[metric], metric == "area" and method == best)
        numbers[method] = {metric: found[metric][method].estimate for metric in HEADS}
        shown[label(method)] = cells
    head = f"{place(pool)}<br><small>cost in {unit}"
    head += f"; paper: {column}</small>" if column else "</small>"
    return pd.DataFrame.from_dict(numbers, orient="index"), pd.concat(
        {head: pd.DataFrame.from_dict(shown, orient="index")}
    )


def differences(frame: pd.DataFrame, metric: str = "area", rivals: Sequence[str] = RIVALS) -> pd.DataFrame:
    """Return CSCR less each other router, paired over seeds, as shown: one row a router, one column a pool.

    Bold: the 95 % interval over seeds excludes 0.
    """
    digits = DIGITS[metric].replace("{:", "{:+")
    shown: dict[str, dict[str, str]] = {}
    for pool in dict.fromkeys(frame["pool"]):
        for rival in rivals:
            found = experiment.difference(frame, pool, OURS, rival, metric)
            shown.setdefault(f"CSCR − {label(rival)}", {})[place(pool)] = cell(found, digits, told_apart(found))
    return pd.DataFrame.from_dict(shown, orient="index")


def tally(frame: pd.DataFrame, rival: str) -> str:
    """Say on how many pools CSCR has more, or less, area than a router, with an interval that excludes 0."""
    found = [experiment.difference(frame, pool, OURS, rival) for pool in dict.fromkeys(frame["pool"])]
    more, less = sum(d.low > 0 for d in found), sum(d.high < 0 for d in found)
    return f"more on {more}, less on {less}, not told apart on {len(found) - more - less} (pools: {len(found)})"


# The trained routers of Table 1; of the others, those that CSCR is first compared with.
TRAINED, UNTRAINED = ("cscr", "vanilla", "soft-moe", "parametric"), ("umr", "zero-router", "dataset-oracle")


def training_lengths(
    params: CSCRParams, pools: Mapping[str, PoolSetting], frame: pd.DataFrame, n_jobs: int = 1
) -> tuple[dict[str, int], dict[str, dict[str, Estimate]]]:
    """Train every router that is trained for at least `long_steps` steps, and compare areas.

    Parameters
    ----------
    frame
        `experiment.evaluate` of the page's routers on the same splits, as the page trains them.

    Returns
    -------
    steps : dict
        Pool to CSCR's training steps.
    differences : dict
        Pool to difference in area, paired over seeds, by what is compared: "longer-cscr-minus-cscr" and so on for all
        of `TRAINED`, "longer-cscr-minus-umr" and so on for `UNTRAINED`, and "cscr-minus-longer-soft-moe" and so on:
        CSCR as the page trains it less another of `TRAINED` that was trained longer.
    """
    long = params.model_copy(update={"min_steps": params.long_steps})
    longer = experiment.run_all(pools, params.seeds, partial(experiment.routers_for, long, methods=TRAINED), n_jobs)
    areas = experiment.evaluate(longer)
    steps = {run.split.name: run.routers[OURS].n_steps_ for run in longer}
    differences: dict[str, dict[str, Estimate]] = {}
    for pool in pools:
        after, before = (experiment.by_seed(each, pool) for each in (areas, frame))
        pairs = {f"longer-{m}-minus-{m}": after[m] - before[m] for m in TRAINED}
        pairs |= {f"longer-{OURS}-minus-{m}": after[OURS] - before[m] for m in UNTRAINED}
        pairs |= {f"{OURS}-minus-longer-{m}": before[OURS] - after[m] for m in TRAINED if m != OURS}
        differences[pool] = {name: mean_interval(pair.to_numpy(dtype=float)) for name, pair in pairs.items()}
    return steps, differences


def training_lengths_table(steps: Mapping[str, int], differences: Mapping[str, Mapping[str, Estimate]]) -> pd.DataFrame:
    """Return what `training_lengths` found as shown: one column a pool, bold where the 95 % interval excludes 0."""
    digits = DIGITS["area"].replace("{:", "{:+")
    shown = {
        place(pool): {"training steps": str(steps[pool])}
        | {_compared_lengths(name): cell(found, digits, told_apart(found)) for name, found in pairs.items()}
        for pool, pairs in differences.items()
    }
    return pd.DataFrame(shown)


def _compared_lengths(pair: str) -> str:
    """Return "longer-cscr-minus-umr" in words."""
    words = [
        f"{label(name.removeprefix('longer-'))}{', longer' * name.startswith('longer-')}"
        for name in pair.split("-minus-")
    ]
    return " less ".join(words)


def first_runs(done: Sequence[Run]) -> dict[str, Run]:
    """Return the first run of each pool, by pool."""
    firsts: dict[str, Run] = {}
    for run in done:
        firsts.setdefault(run.split.name, run)
    return firsts


def curve_panels(done: Sequence[Run]) -> list[Panel]:
    """Return Figure 1: each pool's first run, quality against the mean cost of a prompt, a cross an LLM."""
    panels = []
    for pool, run in first_runs(done).items():
        unit, factor = experiment.cost_unit(run.split.test)
        any_curve = next(iter(run.curves.values()))
        shown = {m: run.curves[m].points for m in DRAWN if m in run.curves}
        curves = {m: (factor * cost, quality) for m, (cost, quality) in shown.items()}
        llms = list(zip(factor * any_curve.model_cost, any_curve.model_quality, strict=True))
        panels.append(Panel(place(pool), curves, f"Cost ({unit})", points=llms))
    return panels


def mean_panels(done: Sequence[Run]) -> list[Panel]:
    """Return the mean deferral curves over seeds; cost from the pool's cheapest LLM (0) to its dearest (1)."""
    panels = []
    for pool in first_runs(done):
        runs = [run for run in done if run.split.name == pool]
        curves = {}
        for method in DRAWN:
            mean = mean_curve([run.curves[method] for run in runs], left="flat")
            curves[method] = (mean.relative_cost, mean.quality)
        panels.append(Panel(place(pool), curves, "Relative cost"))
    return panels


# --- what the columns are --------------------------------------------------------------------------------------------

COMPANIES = {
    "all routers here": METHODS,
    "the paper's eight": tuple(ROWS),
    "CSCR and UMR alone": (OURS, "umr"),
    "CSCR and Random alone": (OURS, "random"),
}


def audc_by_company(run: Run) -> pd.DataFrame:
    """Return the released code's AUDC of the same routers by who else is in the run; NaN where not in it.

    The code integrates over the costs of all routers in the run (7.2 #13), so the same curve has several AUDCs.
    """
    lambdas = experiment.code_lambdas(run.split)
    columns = {
        name: audc_cscr({method: run.curves[method] for method in company}, lambdas)
        for name, company in COMPANIES.items()
    }
    return pd.DataFrame(columns, index=list(ROWS))


def audc_table(found: pd.DataFrame) -> pd.DataFrame:
    """Return `audc_by_company` as shown, with CSCR's lead over UMR as the last row."""
    shown = found.rename(index=label).map(lambda value: DASH if np.isnan(value) else f"{value:.4f}")
    lead = found.loc[OURS] - found.loc["umr"]
    shown.loc["CSCR − UMR"] = [DASH if np.isnan(value) else f"<b>{value:+.4f}</b>" for value in lead]
    return shown


def order_flips(
    frame: pd.DataFrame, pool: str, a: str, b: str, methods: Sequence[str] = tuple(ROWS)
) -> tuple[int, int]:
    """Return how many pairs of methods change order between two metrics' means, and how many pairs there are.

    A pair that one of the metrics ties is no change.
    """
    means = [experiment.by_seed(frame, pool, metric)[list(methods)].mean() for metric in (a, b)]
    pairs = list(combinations(methods, 2))
    flipped = sum((means[0][x] - means[0][y]) * (means[1][x] - means[1][y]) < 0 for x, y in pairs)
    return int(flipped), len(pairs)


def flips_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return, for each pool, the pairs of the paper's eight routers that change order from one metric to another."""
    compared = {
        "QNC: as defined, against cost at own peak": ("qnc", "cost-at-peak"),
        "AUDC: exact area, against the code's": ("area", "audc-code"),
    }
    rows = {}
    for name, (a, b) in compared.items():
        counts = {pool: order_flips(frame, pool, a, b) for pool in dict.fromkeys(frame["pool"])}
        rows[name] = {place(pool): f"{flipped} of {pairs} pairs" for pool, (flipped, pairs) in counts.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


# --- the router's own cost -------------------------------------------------------------------------------------------


def routing_times(run: Run, encoder: str) -> dict[str, float]:
    """Return milliseconds a prompt of embedding it, and of projecting it and looking its LLM up, alone and in a batch.

    Medians on this machine's CPU; embedding without the cache, NaN where the data brings its embeddings.
    """
    router, vectors, price = run.routers[OURS], run.split.test_embeddings, run.split.price
    brought = encoder == "auto" and run.split.test.embeddings is not None
    name = "minilm" if encoder == "auto" else encoder
    prompts = run.split.test.prompts[:N_TIMED]

    def milliseconds(part: np.ndarray) -> float:
        spent = []
        for _ in range(N_TIMED):
            start = time.perf_counter()
            router.choose(part, price)
            spent.append(time.perf_counter() - start)
        return 1000 * float(np.median(spent)) / len(part)

    return {
        "embedding": float("nan") if brought else encoders.measure_latency(name, prompts),
        "head and lookup": milliseconds(vectors[:1]),
        "head and lookup in a batch": milliseconds(vectors),
    }


def times_table(times: Mapping[str, Mapping[str, float]], done: Sequence[Run]) -> pd.DataFrame:
    """Return `routing_times` by pool, beside what the pool's LLMs cost."""
    rows = {}
    for pool, found in times.items():
        split = first_runs(done)[pool].split
        unit, factor = experiment.cost_unit(split.test)
        rows[place(pool)] = {
            f"{name}, ms a prompt": DASH if np.isnan(value) else f"{value:.3g}" for name, value in found.items()
        }
        low, high = factor * split.price.min(), factor * split.price.max()
        rows[place(pool)]["an LLM's price"] = f"{low:.3g} to {high:.3g} {unit}"
    return pd.DataFrame.from_dict(rows, orient="index")


# --- which LLM is chosen: Figure 5, Tables 14 and 15 -----------------------------------------------------------------


def example_table(run: Run, n: int) -> pd.DataFrame:
    """Return Figure 5: real prompts on which UMR, vanilla InfoNCE and CSCR chose as in the paper's figure.

    Without such a prompt one row that says so.
    """
    unit, factor = experiment.cost_unit(run.split.test)
    found = experiment.examples(run, n)
    shown = []
    for _, row in found.iterrows():
        text = " ".join(row["prompt"].split())
        text = text if len(text) <= EXAMPLE_LENGTH else text[:EXAMPLE_LENGTH] + "…"
        cells = {"prompt": f"{html.escape(text)}<br><small>{html.escape(str(row['task']))}</small>"}
        for method in ("umr", "vanilla", OURS):
            model, quality = row[f"{method}-llm"].split("/")[-1], row[f"{method}-quality"]
            cost = factor * row[f"{method}-cost"]
            cells[label(method)] = f"{html.escape(model)}<br><small>quality {quality:.2g}, cost {cost:.3g}</small>"
        shown.append(cells)
    if not shown:
        none = "no test prompt of the first run fits the rule"
        shown = [{"prompt": none, **{label(method): DASH for method in ("umr", "vanilla", OURS)}}]
    head = f"{place(run.split.name)}<br><small>cost in {unit}</small>"
    return pd.concat({head: pd.DataFrame(shown, index=range(1, len(shown) + 1))})


def _bands(profiles: pd.DataFrame) -> list[str]:
    return [column for column in profiles if column.startswith("band-")]


def profile_records(profiles: pd.DataFrame) -> Iterator[Record]:
    """Yield what the ledger reads about Tables 14 and 15: prompts by band and by outcome, means over seeds."""
    for pool, part in profiles.groupby("pool", sort=False):
        for table, columns, ending in (("table-14", _bands(part), "/chosen"), ("table-15", OUTCOMES, "")):
            for column in columns:
                counts = mean_interval(part[column].to_numpy(dtype=float))
                yield as_record(f"{table}/{pool}/{column}{ending}", counts, "prompts")


def counts_table(profiles: pd.DataFrame, columns: Sequence[str], printed: Mapping[str, str]) -> pd.DataFrame:
    """Return Table 14 or 15: mean counts over seeds by pool, the paper's beside them, and what they add up to.

    Parameters
    ----------
    profiles
        From `experiment.profiles`.
    columns
        Bands or outcomes.
    printed
        The paper's count by column; missing: the paper has none.
    """
    shown: dict[str, dict[str, str]] = {name: {"EmbedLLM, paper": printed.get(name, DASH)} for name in columns}
    total = sum(int(count) for count in printed.values())
    sums = {"EmbedLLM, paper": f"{total} of 3000"}
    for pool, part in profiles.groupby("pool", sort=False):
        n = part["n"].mean()
        for name in columns:
            found = part[name].mean()
            shown[name][place(pool)] = f"{found:.0f} <small>({found / n:.0%})</small>"
        sums[place(pool)] = f"{part[list(columns)].sum(axis=1).mean():.0f} of {n:.0f}"
    return pd.DataFrame.from_dict(shown | {"sum": sums}, orient="index")


def table14(profiles: pd.DataFrame) -> pd.DataFrame:
    """Return Table 14 as shown: prompts sent to an LLM of each cost band, band 0 the cheapest."""
    cells = arithmetic.published()["table-14"]
    columns = _bands(profiles)
    printed = {name: cells[f"band {name.removeprefix('band-')}", "Count"].printed for name in columns}
    return counts_table(profiles, columns, printed).rename(lambda name: name.replace("-", " "))


def table15(profiles: pd.DataFrame) -> pd.DataFrame:
    """Return Table 15 as shown: the outcomes of routing, with the class the paper leaves out (CS-6)."""
    cells = arithmetic.published()["table-15"]
    rows = {name: name.replace("-", " ").capitalize() for name in OUTCOMES}
    printed = {name: cells[row, "Count"].printed for name, row in rows.items() if (row, "Count") in cells}
    return counts_table(profiles, OUTCOMES, printed).rename(lambda name: name.replace("-", " "))


# --- Table 16 --------------------------------------------------------------------------------------------------------


def strongest(frame: pd.DataFrame, pool: str) -> str:
    """Return the baseline of the paper's Table 1 with the largest mean area on a pool."""
    return str(experiment.by_seed(frame, pool)[list(BASELINES)].mean().idxmax())


def compared(done: Sequence[Run], params: CSCRParams, n_jobs: int = 1) -> dict[str, dict[str, Paired]]:
    """Return Table 16 on each pool's first run: CSCR against every baseline and DatasetOracle, prompt by prompt."""
    runs = first_runs(done)
    tasks = [(replace(run, routers={}), params.n_bootstrap, params.seed) for run in runs.values()]
    return dict(zip(runs, experiment.in_processes(_pairs, tasks, n_jobs, "Table 16"), strict=True))


def _pairs(task: tuple[Run, int, int]) -> dict[str, Paired]:
    run, n_bootstrap, seed = task
    return experiment.paired(run, OURS, COMPARED, n_bootstrap, seed)


def table16_records(pool: str, found: Paired) -> Iterator[Record]:
    """Yield what the ledger reads about Table 16, of the pair with the strongest baseline: the lead, the share of wins.

    There is no share where the two never differ at the matched budget.
    """
    yield as_record(f"table-16/{pool}/delta", found.delta, "area")
    if not np.isnan(found.test.estimate):
        yield as_record(f"table-16/{pool}/mcnemar-win-share", found.test, "fraction")


def table16(
    found: Mapping[str, Mapping[str, Paired]], best: Mapping[str, str], pools: Mapping[str, PoolSetting]
) -> pd.DataFrame:
    """Return Table 16 as shown, one row a pool and rival; the strongest baseline is named in bold."""
    cells = {column: cell.printed for (_, column), cell in arithmetic.published()["table-16"].items()}
    columns = ("Δ area", "p (bootstrap)", "matched budget", "wins / losses", "p (one-sided, exact)")
    theirs = (
        f"{cells['Delta_AUDC']}<br><small>[{cells['95% CI low']}, {cells['95% CI high']}]</small>",
        cells["p (bootstrap)"],
        cells["c*"],
        f"{cells['n10']} / {cells['n01']}",
        cells["p (McNemar)"],
    )
    rows = {("EmbedLLM, paper", "UMR"): dict(zip(columns, theirs, strict=True))}
    for pool, rivals in found.items():
        unit, factor = experiment.cost_unit(pools[pool].benchmark)
        head = f"{place(pool)}<br><small>budget in {unit}</small>"
        for rival, pair in rivals.items():
            name = f"<b>{label(rival)}</b>" if rival == best[pool] else label(rival)
            values = (
                cell(pair.delta, "{:+.4f}", told_apart(pair.delta)),
                f"{pair.delta.p_value:.2g}",
                f"{factor * pair.budget:.3g}",
                f"{pair.wins} / {pair.losses}",
                f"{pair.test.p_value:.2g}",
            )
            rows[head, name] = dict(zip(columns, values, strict=True))
    return pd.DataFrame.from_dict(rows, orient="index")


def table16_numbers(found: Mapping[str, Mapping[str, Paired]]) -> pd.DataFrame:
    """Return the numbers of Table 16, one row a pool and rival."""
    rows = {}
    for pool, rivals in found.items():
        for rival, pair in rivals.items():
            rows[f"{pool}/{rival}"] = {
                "delta": pair.delta.estimate,
                "low": pair.delta.low,
                "high": pair.delta.high,
                "p-bootstrap": pair.delta.p_value,
                "budget": pair.budget,
                "wins": pair.wins,
                "losses": pair.losses,
                "p-exact": pair.test.p_value,
            }
    return pd.DataFrame.from_dict(rows, orient="index")


# --- what the tables already say -------------------------------------------------------------------------------------


def default_areas() -> pd.DataFrame:
    """Return the AUDCs the paper prints for its default setting, and UMR's of Table 1, for `figures.interval_plot`."""
    printed = arithmetic.published()
    places = {f"CSCR, {name}": where for name, where in arithmetic.DEFAULTS.items()}
    places["UMR, Table 1"] = ("table-1", "UMR [40]", "EmbedLLM / AUDC")
    values = {name: printed[table][row, column].value for name, (table, row, column) in places.items()}
    return pd.DataFrame(dict.fromkeys(("value", "low", "high"), values))


# --- is the fingerprint's content worth anything? --------------------------------------------------------------------


def changed_descriptors(
    descriptors: Mapping[str, np.ndarray], models: Sequence[str], how: str, seed: int
) -> dict[str, np.ndarray]:
    """Return fingerprints of the LLMs whose content is changed.

    Parameters
    ----------
    how : {"rotated", "permuted", "random"}
        "rotated": all turned by one random rotation, which leaves every cosine as it is. "permuted": passed on among
        the LLMs, so that none keeps its own. "random": a random direction for each LLM.
    seed
    """
    rng = np.random.default_rng(seed)
    vectors = unit_descriptors(descriptors, models).astype(float)
    width = vectors.shape[1]
    if how == "rotated":
        vectors = vectors @ np.linalg.qr(rng.standard_normal((width, width)))[0]
    elif how == "permuted":
        order = rng.permutation(len(models))
        vectors[order] = vectors[np.roll(order, 1)]
    else:
        vectors = rng.standard_normal(vectors.shape)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return dict(zip(models, vectors, strict=True))


def content_effects(done: Sequence[Run], params: CSCRParams, n_jobs: int = 1) -> pd.DataFrame:
    """Train CSCR on changed fingerprints, all else equal; return the area each loses against its own fingerprints.

    Parameters
    ----------
    done
        Runs with CSCR in them.
    params
    n_jobs
        Processes, as in `experiment.run_all`.

    Returns
    -------
    DataFrame
        One row a run and change: `pool`, `seed`, `how`, `difference` (area with the changed fingerprints less area
        with the right ones).
    """
    tasks = [(params, run.split, how) for run in done for how in CONTENTS]
    areas = experiment.in_processes(_area_with, tasks, n_jobs, "fingerprints")
    own = [run.curves[OURS].area(left="flat") for run in done for _ in CONTENTS]
    rows = [
        {"pool": split.name, "seed": split.seed, "how": how, "difference": area - before}
        for (_, split, how), area, before in zip(tasks, areas, own, strict=True)
    ]
    return pd.DataFrame(rows)


def _area_with(task: tuple[CSCRParams, Split, str]) -> float:
    """Return the area of CSCR trained on changed fingerprints of the same split."""
    params, split, how = task
    other = split.with_descriptors(changed_descriptors(split.descriptors, split.train.models, how, split.seed))
    found = experiment.route(experiment.train({OURS: experiment.cscr_for(params, other)}, other), other)
    return found.curves[OURS].area(left="flat")


def content_records(effects: pd.DataFrame) -> Iterator[Record]:
    """Yield the mean effect of each change on each pool."""
    for (pool, how), part in effects.groupby(["pool", "how"], sort=False):
        yield as_record(f"content/{pool}/{how}", mean_interval(part["difference"].to_numpy()), "area")


def content_table(effects: pd.DataFrame) -> pd.DataFrame:
    """Return the effects as shown, one row a change and one column a pool; bold: the interval excludes 0."""
    words = {
        "rotated": "all turned by one rotation (cosines stay)",
        "permuted": "passed on among the LLMs",
        "random": "a random direction for each LLM",
    }
    shown: dict[str, dict[str, str]] = {}
    for (pool, how), part in effects.groupby(["pool", "how"], sort=False):
        found = mean_interval(part["difference"].to_numpy())
        shown.setdefault(words[how], {})[place(pool)] = cell(found, "{:+.4f}", told_apart(found))
    return pd.DataFrame.from_dict(shown, orient="index")
