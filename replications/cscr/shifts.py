"""CSCR away from what it was trained on: new LLMs, other prompts, other descriptors, LLMs added one by one, speed.

Tables 2 to 4, Figures 3 and 4, and "microsecond routing" (Sections 1, 4.2.1, 4.2.2 and 4.3.1); adding LLMs one by one
is an experiment of ours. A record is the keyword arguments of `routebook.record.Record.value`, with the key the ledger
reads.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from replications.cscr import arithmetic, experiment, fingerprints, lookup, tables
from replications.cscr.contrastive import CSCR
from replications.cscr.experiment import METRICS, PoolSetting, Run, Split, in_processes, processes_for
from replications.cscr.fingerprints import N_PROBES
from replications.cscr.tables import DASH, OURS, Record, as_record, cell, place, told_apart
from routebook import encoders, load, routers, runs
from routebook.benchmark import RoutingBenchmark
from routebook.figures import METHODS, Look, Panel, label
from routebook.progress import progress
from routebook.routers import BaseRouter, quality_for
from routebook.significance import Estimate, mean_interval
from routebook.threads import one_thread

if TYPE_CHECKING:
    from replications.cscr.params import ShiftsParams

WITHOUT_FINGERPRINTS = "mmlu-pro"
# Rows of Tables 2 and 3 in the paper's order, then the book's references.
PAPERS = ("oracle", "umr", "thompson", "soft-moe", "zero-router", "random", "cscr")
NEW_LLM_METHODS = (*PAPERS, "k-nn", "best-single")
PROMPT_METHODS = (*PAPERS, "parametric", "k-nn", "best-single")
# UMR is UniRoute with K-means clusters.
BY_LABELS = ("umr", "k-nn", "zero-router")
DESCRIPTOR_KINDS = {"logit": "Logit Desc.", "perplexity": "Perp. Desc.", "mixed": "Mixed"}
# Six LLMs of eleven had logit descriptors in the paper's mixed row (Section 4.3.1).
LOGIT_SHARE = 6 / 11
# Prompts that the time of embedding is measured on.
N_EMBEDDED = 16
SPEED_UNIT = "microseconds"
INDEX_LOOKS = {
    "flat": Look("FAISS, flat", METHODS["cscr"].colour),
    "hnsw": Look("FAISS, HNSW", METHODS["umr"].colour, "--"),
    "ivf": Look("FAISS, IVF", METHODS["soft-moe"].colour, "-."),
    "scikit-learn": Look("scikit-learn", METHODS["parametric"].colour, (0, (5, 2))),
    "numpy": Look("NumPy, no index", METHODS["random"].colour, ":"),
}
MODES = {"single": "one prompt at a time", "batch": "in a batch"}
# MMLU's subjects by the subcategory its authors give them (Hendrycks et al., 2021), which MMLU-Pro's categories keep;
# its "other" also holds their politics, culture and geography.
MMLU_SUBJECTS = {
    "biology": "college_biology high_school_biology",
    "business": "business_ethics management marketing",
    "chemistry": "college_chemistry high_school_chemistry",
    "computer science": "college_computer_science computer_security high_school_computer_science machine_learning",
    "economics": "econometrics high_school_macroeconomics high_school_microeconomics",
    "engineering": "electrical_engineering",
    "health": "anatomy clinical_knowledge college_medicine human_aging medical_genetics nutrition "
    "professional_medicine virology",
    "history": "high_school_european_history high_school_us_history high_school_world_history prehistory",
    "law": "international_law jurisprudence professional_law",
    "math": "abstract_algebra college_mathematics elementary_mathematics high_school_mathematics "
    "high_school_statistics",
    "other": "global_facts miscellaneous professional_accounting high_school_government_and_politics public_relations "
    "security_studies us_foreign_policy human_sexuality sociology high_school_geography",
    "philosophy": "formal_logic logical_fallacies moral_disputes moral_scenarios philosophy world_religions",
    "physics": "astronomy college_physics conceptual_physics high_school_physics",
    "psychology": "high_school_psychology professional_psychology",
}


def load_pools(params: ShiftsParams) -> dict[str, PoolSetting]:
    """Load the pools that have fingerprints, by name; errors as in `experiment.load_pool`."""
    names = [name for name in runs.resolve_datasets(params) if name != WITHOUT_FINGERPRINTS]
    return {name: experiment.load_pool(name, params) for name in names}


# --- new LLMs: Table 2, Figure 3 -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Draw:
    """One draw of new LLMs, and routers that were trained without them.

    Attributes
    ----------
    split : Split
        With all LLMs of the pool.
    known, new : list of str
        LLMs trained on, in the pool's order, and new ones, in the order drawn.
    order : ndarray of int, [N]
        Training prompts in the order in which new LLMs are labelled on them.
    trained : dict of str to BaseRouter
        Routers trained on the known LLMs alone.
    run : Run
        Routing among the new LLMs alone.
    """

    split: Split
    known: list[str]
    new: list[str]
    order: np.ndarray
    trained: Mapping[str, BaseRouter]
    run: Run

    def graded(self, n: int) -> tuple[RoutingBenchmark, np.ndarray]:
        """Return the first n prompts that new LLMs are labelled on, with their labels alone, and the embeddings."""
        return graded_prompts(self.split, self.new, self.order[:n])


def known_and_new(models: Sequence[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """Draw the LLMs to train on, a share of the pool (at least one, and not all), and return them and the new ones.

    Returns
    -------
    known : list of str
        In the pool's order.
    new : list of str
        In the order drawn.
    """
    n_known = min(max(round(share * len(models)), 1), len(models) - 1)
    order = np.random.default_rng(seed).permutation(len(models))
    return [models[i] for i in np.sort(order[:n_known])], [models[i] for i in order[n_known:]]


def graded_prompts(split: Split, models: Sequence[str], rows: np.ndarray) -> tuple[RoutingBenchmark, np.ndarray]:
    """Return training prompts [n] with the labels of these LLMs, and their embeddings [n, D]."""
    return split.train.subset(rows, models), split.train_embeddings[rows]


def train_on_known(params: ShiftsParams, known: Split) -> dict[str, BaseRouter]:
    """Fit on the known LLMs the routers that learn from them; k and n_bands are at most the number of known LLMs."""
    n = len(known.train.models)
    sizes = {"k": min(params.k, n), "n_bands": min(params.n_bands, n)}
    methods = ("umr", "thompson", "zero-router", "random", "cscr", "k-nn")
    unfitted = experiment.routers_for(params, known, methods, **sizes)
    # The released code's reading, the only one that can score an LLM it was not trained on (7.2 #25).
    unfitted["soft-moe"] = experiment.cscr_for(params, known, **(sizes | {"loss": "vanilla", "k": n}))
    return experiment.train(unfitted, known)


def add_newcomers(router: BaseRouter, new: Sequence[str], graded: tuple[RoutingBenchmark, np.ndarray]) -> BaseRouter:
    """Return a router that also knows the new LLMs: CSCR by their descriptors, others by labels; `router` is left."""
    if isinstance(router, CSCR):
        return router.with_models([*router.models_, *new])
    return copy.copy(router).add_models(*graded)


def only_among(router: BaseRouter, models: Sequence[str], k: int) -> BaseRouter:
    """Return CSCR with these LLMs alone in its index, of which it looks up k or all; any other router as it is."""
    return router.with_models(models).set_params(k=min(k, len(models))) if isinstance(router, CSCR) else router


def draw_new_llms(params: ShiftsParams, setting: PoolSetting, seed: int) -> Draw:
    """Draw new LLMs, train on the others, and route the test prompts among the new ones alone (Section 4.2.1).

    Routers that need labels of the new LLMs get those of 192 training prompts, as many as the fingerprints have
    probes; CSCR and Soft-MoE get the fingerprints, and no label.
    """
    split = setting.split(seed)
    known, new = known_and_new(setting.benchmark.models, params.train_llm_share, seed)
    order = np.random.default_rng([seed, 1]).permutation(len(split.train))
    trained = train_on_known(params, split.with_models(known))
    graded = graded_prompts(split, new, order[:N_PROBES])
    among = split.with_models(new)
    ks = {"cscr": params.k, "soft-moe": len(new)}
    described = {
        method: only_among(add_newcomers(router, new, graded), new, ks.get(method, 0))
        for method, router in trained.items()
    }
    described |= experiment.train({"oracle": routers.Oracle()}, among)
    described["best-single"] = routers.BestSingle().fit(*graded)
    run = experiment.route({method: described[method] for method in NEW_LLM_METHODS}, among)
    return Draw(split, known, new, order, trained, run)


def draw_all(
    params: ShiftsParams, pools: Mapping[str, PoolSetting], n_jobs: int | None = None
) -> dict[str, list[Draw]]:
    """Make every seed's draw on every pool.

    `n_jobs` processes; by default one a processor where there is enough to do. The numbers do not depend on it.
    """
    tasks = [(params, setting, seed) for setting in pools.values() for seed in params.seeds]
    n_jobs = processes_for(params, 2 * len(tasks)) if n_jobs is None else n_jobs
    draws: dict[str, list[Draw]] = {name: [] for name in pools}
    for draw in in_processes(_draw, tasks, n_jobs, "new LLMs"):
        draws[draw.split.name].append(draw)
    return draws


def _draw(task: tuple[ShiftsParams, PoolSetting, int]) -> Draw:
    return draw_new_llms(*task)


def given_table(draws: Mapping[str, Sequence[Draw]]) -> pd.DataFrame:
    """Return what each router is told of the new LLMs, in words."""
    labels = f"labels of the new LLMs on {N_PROBES} training prompts"
    said = {
        "cscr": "their fingerprints; no label",
        "soft-moe": "their fingerprints; no label (the released code's reading: vanilla InfoNCE, k = all)",
        "umr": f"{labels}; its clusters come from all training prompts",
        "k-nn": labels,
        "zero-router": f"{labels}: their means",
        "best-single": f"{labels}: the best mean",
        "thompson": f"{N_PROBES} training prompts, each asked of the one new LLM it draws",
        "random": "their names",
        "oracle": "their labels on the test prompts",
    }
    sizes = {place(p): f"{len(d[0].known)} known, {len(d[0].new)} new" for p, d in draws.items()}
    rows = {label(method): text for method, text in said.items()} | sizes
    return pd.DataFrame.from_dict(rows, orient="index", columns=["is told of the new LLMs"])


# --- other prompts: Table 3, Figure 4 --------------------------------------------------------------------------------


def stem_categories() -> list[str]:
    """Return MMLU-Pro's categories that count as STEM: more of their subjects in the paper's training list than not.

    The lists are Table 6; MMLU-Pro's categories hold MMLU's subjects by `MMLU_SUBJECTS`.
    """
    sets = {row: said.printed for (row, _), said in arithmetic.published()["table-6"].items()}
    chosen = []
    for category, subjects in MMLU_SUBJECTS.items():
        listed = [sets[f"mmlu_{subject}"] for subject in subjects.split() if f"mmlu_{subject}" in sets]
        trained = sum(name.startswith("Train") for name in listed)
        if 2 * trained > len(listed):
            chosen.append(category)
    return chosen


def held_out_family(params: ShiftsParams, setting: PoolSetting) -> list[Split]:
    """Return TinyPool's splits with all prompts of the held-out family to test on, the same for every seed."""
    everything = load("tinypool", **experiment.LOAD_OPTIONS["tinypool"], ood="keep")
    family = everything.subset(everything.split == "ood")
    embeddings = encoders.embed_benchmark(family, params.encoder)
    return [replace(setting.split(seed), test=family, test_embeddings=embeddings) for seed in params.seeds]


def leave_one_out(setting: PoolSetting, seed: int) -> list[Split]:
    """Return a split for each source dataset, with all its prompts to test on and all others to train on."""
    tasks = setting.benchmark.tasks
    return [
        setting.split_at(seed + i, np.flatnonzero(tasks != task), np.flatnonzero(tasks == task))
        for i, task in enumerate(np.unique(tasks))
    ]


def stem_to_others(params: ShiftsParams) -> list[Split]:
    """Return MMLU-Pro's splits: STEM categories to train on, the others to test on, the same for every seed.

    Only prompts that every LLM answered. The splits hold no fingerprints.
    """
    sample = load(WITHOUT_FINGERPRINTS).priced().sample(params.max_prompts, params.seed)
    embeddings = encoders.embed_benchmark(sample, params.encoder)
    whole = sample.complete_rows
    setting = PoolSetting(sample.name, sample.subset(whole), embeddings[whole], {})
    stem = np.isin(setting.benchmark.tasks, stem_categories())
    return [setting.split_at(seed, np.flatnonzero(stem), np.flatnonzero(~stem)) for seed in params.seeds]


def other_prompts(params: ShiftsParams, pools: Mapping[str, PoolSetting]) -> dict[str, list[Split]]:
    """Return the splits of Table 3 by pool: TinyPool, RouterBench (or simulated data) and MMLU-Pro, those wanted."""
    found = {}
    for name, setting in pools.items():
        if name == "tinypool":
            found[name] = held_out_family(params, setting)
        elif name in ("routerbench", "simulated"):
            found[name] = leave_one_out(setting, params.seed)
    if WITHOUT_FINGERPRINTS in runs.resolve_datasets(params):
        found[WITHOUT_FINGERPRINTS] = stem_to_others(params)
    return found


def prompts_table(splits: Mapping[str, Sequence[Split]]) -> pd.DataFrame:
    """Return what Table 3 trains and tests on, one row a pool (a source dataset left out: one row each)."""
    rows = {}
    for name, several in splits.items():
        shown = several if len({s.test.ids.tobytes() for s in several}) > 1 else several[:1]
        for split in shown:
            rows[place(name), ", ".join(sorted(set(split.test.tasks)))] = {
                "trained on": ", ".join(sorted(set(split.train.tasks))),
                "training prompts": len(split.train),
                "test prompts": len(split.test),
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["pool", "tested on"])


def route_other_prompts(
    params: ShiftsParams, splits: Mapping[str, Sequence[Split]], n_jobs: int | None = None
) -> list[Run]:
    """Train and route on every split of Table 3; without fingerprints there is no CSCR. `n_jobs` as in `draw_all`."""
    tasks = [(params, split) for several in splits.values() for split in several]
    n_jobs = processes_for(params, 3 * len(tasks)) if n_jobs is None else n_jobs
    return in_processes(_route_prompts, tasks, n_jobs, "other prompts")


def _route_prompts(task: tuple[ShiftsParams, Split]) -> Run:
    params, split = task
    methods = [m for m in PROMPT_METHODS if split.descriptors or m != OURS]
    return experiment.route(experiment.train(experiment.routers_for(params, split, methods), split), split)


# --- Tables 2 and 3: records and what is shown -----------------------------------------------------------------------


def metric_records(table: str, frame: pd.DataFrame, units: Mapping[str, str]) -> Iterator[Record]:
    """Yield every metric of every router and pool, and the differences in area that the table is about.

    Parameters
    ----------
    table
        Of the key, e.g. "table-2".
    frame
        From `experiment.evaluate`.
    units : mapping of str to str
        Unit of the cost by pool.
    """
    for pool in dict.fromkeys(frame["pool"]):
        for metric in METRICS:
            for method, found in tables.summary(frame, pool, metric).items():
                yield as_record(f"{table}/{pool}/{method}/{metric}", found, tables.UNITS.get(metric, units[pool]))
        for a, b in differences_of(frame, pool):
            found = experiment.difference(frame, pool, a, b)
            yield as_record(f"{table}/{pool}/{a}-minus-{b}/area", found, "area")


def differences_of(frame: pd.DataFrame, pool: str) -> list[tuple[str, str]]:
    """Return the pairs compared on a pool: CSCR with every other router, and Thompson sampling with UMR."""
    methods = list(dict.fromkeys(frame.loc[frame["pool"] == pool, "method"]))
    ours = [(OURS, method) for method in methods if method not in (OURS, "oracle")] if OURS in methods else []
    return [*ours, ("thompson", "umr")]


def metrics_table(frame: pd.DataFrame, table: str, metrics: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return Table 2 or 3: the numbers, and as shown, one column a metric and pool, after the paper's on EmbedLLM.

    Bold: the largest mean area of a pool, the Oracle left aside.
    """
    printed = arithmetic.published()[table]
    methods = list(dict.fromkeys(frame["method"]))
    shown: dict[tuple[str, str], dict[str, str]] = {}
    numbers: dict[str, dict[str, float]] = {}
    for metric in metrics:
        if metric in tables.PRINTED:
            theirs = {m: printed.get((paper_row(m), f"EmbedLLM / {tables.PRINTED[metric]}")) for m in methods}
            head = "EmbedLLM, paper", tables.PRINTED[metric]
            shown[head] = {label(m): found.printed if found else DASH for m, found in theirs.items()}
    for pool in dict.fromkeys(frame["pool"]):
        for metric in metrics:
            found = tables.summary(frame, pool, metric)
            best = max((m for m in found if m != "oracle"), key=lambda m: found[m].estimate)
            numbers[f"{pool}/{metric}"] = {m: found[m].estimate for m in found}
            cells = {m: cell(e, tables.DIGITS[metric], metric == "area" and m == best) for m, e in found.items()}
            shown[place(pool), tables.HEADS[metric]] = {label(m): cells.get(m, DASH) for m in methods}
    return pd.DataFrame(numbers), pd.DataFrame(shown)


def paper_row(method: str) -> str:
    """Return a method's row in the paper's Tables 2 and 3, which are Table 1's without its citations."""
    return tables.ROWS.get(method, "").split(" [")[0]


def differences_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the differences in area as shown, one row a pair and one column a pool; bold: the interval excludes 0."""
    shown: dict[str, dict[str, str]] = {}
    for pool in dict.fromkeys(frame["pool"]):
        for a, b in differences_of(frame, pool):
            found = experiment.difference(frame, pool, a, b)
            row = shown.setdefault(f"{label(a)} − {label(b)}", {})
            row[place(pool)] = cell(found, "{:+.4f}", told_apart(found))
    return pd.DataFrame.from_dict(shown, orient="index").fillna(DASH)


def cost_units(done: Sequence[Run]) -> dict[str, str]:
    """Return the unit that costs are shown in, by pool."""
    return {run.split.name: experiment.cost_unit(run.split.test)[0] for run in done}


# --- descriptors: Table 4 --------------------------------------------------------------------------------------------


def descriptors_of(models: Sequence[str] | None = None) -> dict[str, dict[str, np.ndarray]]:
    """Return TinyPool's logit footprints over its 192 most frequent tokens, and its perplexities on the 192 probes.

    As many tokens as probes: N = K, which one space for both asks for (Section 3.1.2, CS-26). All LLMs unless some are
    named.
    """
    found = {}
    for kind in ("logit", "perplexity"):
        vectors, names, _ = fingerprints.load_fingerprints("tinypool", kind, models=models, n_tokens=N_PROBES)
        found[kind] = dict(zip(names, vectors, strict=True))
    return found


def mix(descriptors: Mapping[str, Mapping[str, np.ndarray]], seed: int) -> dict[str, np.ndarray]:
    """Return logit footprints of LLMs drawn at random, 6 in 11 as in the paper, and perplexities of the others."""
    models = list(descriptors["logit"])
    drawn = np.random.default_rng(seed).permutation(len(models))[: round(LOGIT_SHARE * len(models))]
    return {m: descriptors["logit" if i in drawn else "perplexity"][m] for i, m in enumerate(models)}


def cosine_table(descriptors: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """Return the mean, least and largest cosine of two LLMs by the kinds of their descriptors."""
    vectors = {kind: np.stack(list(found.values())) for kind, found in descriptors.items()}
    rows = {}
    for a, b in (("logit", "logit"), ("perplexity", "perplexity"), ("logit", "perplexity")):
        both = (vectors[a] @ vectors[b].T)[~np.eye(len(vectors[a]), dtype=bool)]
        rows[f"{a} and {b}"] = {"mean": both.mean(), "least": both.min(), "largest": both.max()}
    return pd.DataFrame.from_dict(rows, orient="index")


def route_descriptors(params: ShiftsParams, setting: PoolSetting, n_jobs: int | None = None) -> pd.DataFrame:
    """Train CSCR on logit, perplexity and mixed descriptors of TinyPool, and return what each earns.

    Mix i is compared with the unmixed routers of training seed i modulo `n_seeds`. `n_jobs` as in `draw_all`.

    Returns
    -------
    DataFrame
        As `experiment.evaluate`'s, with the number of the mix in `seed` and the kind of descriptor in `method`. The
        first `n_seeds` rows of an unmixed kind are its trainings; later ones repeat them beside other mixes.
    """
    known = descriptors_of(setting.benchmark.models)
    seeds = [params.seeds[i % params.n_seeds] for i in range(params.n_mixes)]
    wanted = {(kind, seed): (seed, known[kind]) for kind in known for seed in dict.fromkeys(seeds)}
    wanted |= {("mixed", i): (seed, mix(known, params.seed + i)) for i, seed in enumerate(seeds)}
    tasks = [(params, setting, seed, descriptors) for seed, descriptors in wanted.values()]
    n_jobs = processes_for(params, len(tasks)) if n_jobs is None else n_jobs
    done = dict(zip(wanted, in_processes(_route_described, tasks, n_jobs, "descriptors"), strict=True))
    together = []
    for i, seed in enumerate(seeds):
        runs_here = {kind: done[kind, i if kind == "mixed" else seed] for kind in DESCRIPTOR_KINDS}
        curves = {kind: run.curves[OURS] for kind, run in runs_here.items()}
        together.append(Run(replace(runs_here["mixed"].split, seed=i), {}, {}, curves))
    return experiment.evaluate(together)


def _route_described(task: tuple[ShiftsParams, PoolSetting, int, dict[str, np.ndarray]]) -> Run:
    params, setting, seed, descriptors = task
    split = setting.split(seed).with_descriptors(descriptors)
    return experiment.route(experiment.train({OURS: experiment.cscr_for(params, split)}, split), split)


def descriptor_estimates(frame: pd.DataFrame, n_seeds: int) -> dict[str, dict[str, Estimate]]:
    """Return Table 4: metric to kind, or difference of kinds, to its estimate.

    Unmixed kinds and their difference are over trainings, the mixed kind and its differences over mixes.
    """
    (pool,) = set(frame["pool"])
    trainings = frame[frame["seed"] < n_seeds]
    found = {}
    for metric in METRICS:
        unmixed = tables.summary(trainings[trainings["method"] != "mixed"], pool, metric)
        found[metric] = unmixed | {"mixed": tables.summary(frame, pool, metric)["mixed"]}
    found["area"]["perplexity-minus-logit"] = experiment.difference(trainings, pool, "perplexity", "logit")
    for other in ("logit", "perplexity"):
        found["area"][f"mixed-minus-{other}"] = experiment.difference(frame, pool, "mixed", other)
    return found


def descriptor_records(found: Mapping[str, Mapping[str, Estimate]], unit: str) -> Iterator[Record]:
    """Yield what the ledger reads about Table 4; `unit` is that of the cost."""
    for metric, kinds in found.items():
        for kind, estimate in kinds.items():
            yield as_record(f"table-4/tinypool/{kind}/{metric}", estimate, tables.UNITS.get(metric, unit))


def descriptor_table(found: Mapping[str, Mapping[str, Estimate]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return Table 4: the numbers, and as shown beside the paper's on MixInstruct; ours only if it was found."""
    printed = arithmetic.published()["table-4"]
    shown: dict[str, dict[str, str]] = {}
    for head in tables.PRINTED.values():
        cells = {kind: printed[row, f"MixInstruct / {head}"].printed for kind, row in DESCRIPTOR_KINDS.items()}
        shown[f"{head} in the paper (MixInstruct)"] = cells
    for metric in found:
        cells = {kind: cell(found[metric][kind], tables.DIGITS[metric]) for kind in DESCRIPTOR_KINDS}
        shown[tables.HEADS[metric]] = cells
    numbers = pd.DataFrame({m: {k: found[m][k].estimate for k in DESCRIPTOR_KINDS} for m in found})
    return numbers, pd.DataFrame(shown)


def descriptor_differences(found: Mapping[str, Mapping[str, Estimate]]) -> pd.DataFrame:
    """Return the differences in area between kinds of descriptors as shown."""
    pairs = {key: estimate for key, estimate in found.get("area", {}).items() if "-minus-" in key}
    rows = {key.replace("-minus-", " − "): cell(e, "{:+.4f}", told_apart(e)) for key, e in pairs.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["difference in area"])


# --- LLMs added one by one -------------------------------------------------------------------------------------------


def add_one_by_one(draw: Draw, budgets: Sequence[int], k: int) -> pd.DataFrame:
    """Add a draw's new LLMs to the known ones, one after another, and return the area after each.

    UMR, K-NN and ZeroRouter are told the labels of each newcomer on its first so many prompts; CSCR its
    fingerprint, which takes answers to 192 probes and no label; it looks up k experts. Nothing is retrained.

    Returns
    -------
    DataFrame
        One row a method, budget and newcomer: `pool`, `seed`, `method`, `labels` (on each newcomer; 0 for CSCR),
        `added` (newcomers in the pool) and `area`.
    """
    everyone, vectors, test = [*draw.known, *draw.new], draw.split.test_embeddings, draw.split.test
    # What these say of an LLM does not depend on the others in the pool; whom CSCR looks up does.
    told: dict[tuple[str, int], np.ndarray] = {}
    for n in budgets:
        for method in BY_LABELS:
            router = add_newcomers(draw.trained[method], draw.new, draw.graded(n))
            told[method, n] = quality_for(router, vectors, everyone, test.tasks)
    rows = []
    for added in range(1, len(draw.new) + 1):
        pool = everyone[: len(draw.known) + added]
        grown = draw.split.with_models(draw.known, pool)
        looked_up = quality_for(only_among(draw.trained[OURS], pool, k), vectors, pool, test.tasks)
        here = {(OURS, 0): looked_up} | {way: estimate[:, : len(pool)] for way, estimate in told.items()}
        for (method, n), curve in experiment.route_by(here, grown).curves.items():
            rows.append((draw.split.name, draw.split.seed, method, n, added, curve.area(left="flat")))
    return pd.DataFrame(rows, columns=["pool", "seed", "method", "labels", "added", "area"])


def add_all(params: ShiftsParams, draws: Mapping[str, Sequence[Draw]]) -> pd.DataFrame:
    """Add every draw's new LLMs one by one, with every budget that the pool has prompts for."""
    frames = []
    with one_thread():
        for draw in progress([d for several in draws.values() for d in several], label="newcomers", unit="draw"):
            budgets = [n for n in params.label_budgets if n <= len(draw.order)]
            frames.append(add_one_by_one(draw, budgets, params.k))
    return pd.concat(frames, ignore_index=True)


def newcomer_areas(added: pd.DataFrame, pool: str) -> pd.DataFrame:
    """Return the area on one pool, the mean over the newcomers added: one row a seed, columns (method, labels)."""
    here = added[added["pool"] == pool]
    return here.pivot_table("area", "seed", ["method", "labels"], aggfunc="mean", sort=False)


def newcomer_records(added: pd.DataFrame) -> Iterator[Record]:
    """Yield the area by pool, method and labels, and CSCR's less that of the others at each number of labels."""
    for pool in dict.fromkeys(added["pool"]):
        areas = newcomer_areas(added, pool)
        for method, n in areas:
            found = mean_interval(areas[method, n].to_numpy())
            yield as_record(f"newcomers/{pool}/{method}/{n}/area", found, "area")
            if method != OURS:
                lead = mean_interval((areas[OURS, 0] - areas[method, n]).to_numpy())
                yield as_record(f"newcomers/{pool}/{OURS}-minus-{method}/{n}/area", lead, "area")


def newcomer_panels(added: pd.DataFrame) -> list[Panel]:
    """Return the mean area against the labels of each newcomer, one panel a pool; CSCR, without any, is level."""
    panels = []
    for pool in dict.fromkeys(added["pool"]):
        means = newcomer_areas(added, pool).mean()
        budgets = [n for method, n in means.index if method == BY_LABELS[0]]
        curves = {m: (np.array(budgets), means[m][budgets].to_numpy()) for m in BY_LABELS}
        curves[OURS] = np.array(budgets), np.full(len(budgets), means[OURS, 0])
        panels.append(Panel(place(pool), curves, "Labels of each newcomer"))
    return panels


def newcomer_table(added: pd.DataFrame) -> pd.DataFrame:
    """Return CSCR's area less that of the others by labels spent, as shown; bold: the interval excludes 0."""
    shown: dict[tuple[str, str], dict[str, str]] = {}
    for pool in dict.fromkeys(added["pool"]):
        areas = newcomer_areas(added, pool)
        for method, n in areas:
            if method != OURS:
                lead = mean_interval((areas[OURS, 0] - areas[method, n]).to_numpy())
                column = shown.setdefault((place(pool), f"{label(OURS)} − {label(method)}"), {})
                column[f"{n} labels"] = cell(lead, "{:+.4f}", told_apart(lead))
    return pd.DataFrame(shown).fillna(DASH)


def enough_labels(added: pd.DataFrame, pool: str, method: str = "umr") -> str:
    """Say from how many labels of each newcomer on a router has more mean area than CSCR."""
    means = newcomer_areas(added, pool).mean()
    ahead = [n for n, area in means[method].items() if area > means[OURS, 0]]
    return f"{min(ahead)} labels" if ahead else f"more labels than {max(means[method].index)}"


def enough_said(added: pd.DataFrame, method: str = "umr") -> str:
    """Say so for every pool."""
    return "; ".join(f"{place(pool)}: {enough_labels(added, pool, method)}" for pool in dict.fromkeys(added["pool"]))


# --- speed -----------------------------------------------------------------------------------------------------------


def measure_speed(params: ShiftsParams, pools: Mapping[str, PoolSetting]) -> pd.DataFrame:
    """Time lookups (`lookup.measure_lookup`), and embedding on a pool whose embeddings do not come with the data."""
    embedded = [s.benchmark for s in pools.values() if s.benchmark.embeddings is None]
    name = "minilm" if params.encoder == "auto" else params.encoder
    times = lookup.embedding_times(name, embedded[0].prompts[:N_EMBEDDED]) if embedded else None
    return lookup.measure_lookup(
        params.index_sizes, n_queries=params.n_lookups, k=params.k, seconds=0.05, embedding=times, seed=params.seed
    )


def speed_records(measured: pd.DataFrame) -> Iterator[Record]:
    """Yield the microseconds a prompt of every index, size and mode; embedding left aside."""
    for row in measured.to_dict("records"):
        yield {"id": f"speed/{row['index']}/{row['n']}/{row['mode']}", "value": row["us"], "unit": SPEED_UNIT}


def speed_numbers(measured: pd.DataFrame) -> pd.DataFrame:
    """Return the microseconds a prompt, one row an index and mode and one column a size."""
    wide = measured.pivot_table("us", ["index", "mode"], "n", sort=False)
    return wide.set_axis([f"{index}/{mode}" for index, mode in wide.index])


def encoder_said(measured: pd.DataFrame) -> str:
    """Say what embedding one prompt takes beside the flat lookup in the largest index timed."""
    flat = measured[(measured["index"] == "flat") & (measured["mode"] == "single")]
    row = flat.loc[flat["n"].idxmax()]
    embedding = row["us_with_embedding"] - row["us"]
    if np.isnan(embedding):
        return "no time that was measured here, as all embeddings of this run came with the data"
    return (
        f"{embedding:,.0f} microseconds, {embedding / row['us']:.2g} times the flat lookup among {row['n']:,} experts"
    )


def speed_table(measured: pd.DataFrame, column: str = "us") -> pd.DataFrame:
    """Return times as shown, in microseconds a prompt: one row an index and mode, one column a size.

    `column` is "us", or "us_with_embedding" with the time of embedding a prompt added.
    """
    wide = measured.pivot_table(column, ["index", "mode"], "n", sort=False, dropna=False)
    wide.index = [f"{INDEX_LOOKS[index].label}, {MODES[mode]}" for index, mode in wide.index]
    return wide.map(lambda us: DASH if np.isnan(us) else f"{us:,.3g}" if us < 1000 else f"{us:,.0f}").rename(
        columns=lambda n: f"{n:,} experts"
    )


def recall_table(measured: pd.DataFrame) -> pd.DataFrame:
    """Return the share of the exact k nearest that each index finds, and the seconds it takes to build, by size."""
    batches = measured[(measured["mode"] == "batch") & measured["recall"].notna()]
    shown: dict[tuple[str, str], dict[str, str]] = {}
    for row in batches.to_dict("records"):
        name, size = INDEX_LOOKS[row["index"]].label, f"{row['n']:,} experts"
        shown.setdefault(("found of the nearest", size), {})[name] = f"{row['recall']:.1%}"
        shown.setdefault(("seconds to build", size), {})[name] = f"{row['build_s']:.2g}"
    return pd.DataFrame(shown).sort_index(axis=1, level=0, sort_remaining=False)


def speed_panels(measured: pd.DataFrame) -> list[Panel]:
    """Return the time a prompt against the number of experts, one panel a mode and a line an index."""
    panels = []
    for mode, said in MODES.items():
        here = measured[measured["mode"] == mode]
        curves = {
            index: (part["n"].to_numpy(), part["us"].to_numpy()) for index, part in here.groupby("index", sort=False)
        }
        panels.append(Panel(said, curves, "Experts in the index"))
    return panels
