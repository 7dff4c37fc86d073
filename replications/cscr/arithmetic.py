"""Checks on CSCR's own numbers and formulas: one function for each arithmetic claim of `ledger.yaml`.

Every check reads the published cells beside this file and the constants transcribed in `Stated`, each with its place
in the paper; both are parameters, so that a test can change a number and see the outcome change. Three checks also read
the LLM registries of the authors' public code, from the folder `$ROUTEBOOK_DATA`; without them they decide nothing.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from routebook.errors import DataError
from routebook.ledger import Cell, Check, read_cells
from routebook.paths import data_dir

Table = Mapping[tuple[str, str], Cell]
Tables = Mapping[str, Table]
Registry = Mapping[str, Mapping[str, object]]

_ROUNDING = 1e-9
BENCHMARKS = {"EmbedLLM": "EmbedLLM", "MixInstruct": "Mix-Instruct", "RouterBench": "RouterBench"}  # heads of Table 1
OURS, ORACLE, RANDOM, PARETO = "CSCR (Ours)", "Oracle (upper bound)", "Random", "Pareto-Random [34]"
LEARNED = ("UMR [40]", "Thompson [2]", "Soft-MoE [64]", "Parametric [62]")
BASELINES = (*LEARNED, PARETO, RANDOM)
# The default setting in every table that has it on (what looks like) EmbedLLM: table, row, column. Table 5's row is
# Table 7's (CS-24).
DEFAULTS = {
    "Table 1": ("table-1", OURS, "EmbedLLM / AUDC"),
    "Table 7": ("table-7", "With bands", "AUCD"),
    "Table 8": ("table-8", "bands:5", "AUDC"),
    "Table 9": ("table-9", "K=4", "AUDC"),
    "Table 10": ("table-10", "gamma=0.2", "AUDC"),
    "Table 11": ("table-11", "alpha=0.25", "AUDC"),
    "Table 12": ("table-12", "tau_min=0.05", "AUDC"),
    "Table 13": ("table-13", "MLP-x1", "AUDC"),
}
# Subjects that MMLU's authors file under physics, chemistry, biology, computer science, mathematics and engineering.
MMLU_STEM = (
    *("abstract_algebra", "astronomy", "college_biology", "college_chemistry", "college_computer_science"),
    *("college_mathematics", "college_physics", "computer_security", "conceptual_physics", "electrical_engineering"),
    *("elementary_mathematics", "high_school_biology", "high_school_chemistry", "high_school_computer_science"),
    *("high_school_mathematics", "high_school_physics", "high_school_statistics", "machine_learning"),
)


@dataclass(frozen=True)
class Stated:
    """Numbers and forms the paper states in its text; the comment gives the place."""

    gain_percent: float = 25.0  # Abstract; Section 1: "up to 25%"
    probes: int = 192  # Section 4.1: N
    steps: int = 10  # Section 4.1: T
    passes_below: int = 10  # Section 1: "<10 forward passes"
    tokens: int = 256  # Section 4.1: K of Eq. (2)
    penalty: float = 0.2  # Sections 4.1 and D.3.3: γ
    penalty_in_appendix: float = 0.1  # Appendix D.1: "the negative cost penalty to λ = 0.1"
    descriptor_areas: tuple[float, float] = (0.461, 0.467)  # Section 4.3.1: logit, perplexity
    peak_change_percent: float = 0.1  # Section 4.3.1: "changes less than 0.1%"
    prompts: int = 3000  # Table 16: N
    resamples: int = 5000  # Table 16: B
    cost_cut_percent: int = 14  # Appendix D.3.5: "≈14% (from 51.7 to 44.6)"
    rule: tuple[str, int, int] = ("argmin", 1, 1)  # Eq. (9): signs of the cosine and of λ c
    # Theorem 5.2 and the two parts of its proof in Appendix B.2: exponents of k and n, and whether d divides them.
    rate: tuple[tuple[float, float, bool], ...] = ((0.5, -0.5, False), (-1.0, 0.0, True))
    proved: tuple[tuple[float, float, bool], ...] = ((-0.5, 0.0, False), (1.0, -1.0, True))
    dimension: int = 384  # Section 4.1: all-MiniLM-L6-v2 embeds in 384 dimensions


@dataclass(frozen=True)
class Elsewhere:
    """Numbers other papers print for the same methods and data; a test compares them with those papers' cells."""

    # UniRoute, Table 1 (static pool) and Figure 6 (dynamic pool): normalised areas.
    zero_router: tuple[tuple[str, float], ...] = (("EmbedLLM", 0.601), ("MixInstruct", 0.0483), ("RouterBench", 0.707))
    k_means: tuple[tuple[str, float], ...] = (("EmbedLLM", 0.682), ("MixInstruct", 0.0504), ("RouterBench", 0.744))
    zero_router_new_llms: tuple[tuple[str, float], ...] = (("EmbedLLM", 0.607), ("RouterBench", 0.689))
    k_means_new_llms: tuple[tuple[str, float], ...] = (("EmbedLLM", 0.649), ("RouterBench", 0.712))
    validation_prompts: int = 400  # UniRoute, Section 6: RouterBench
    gpt4_cost: float = 7.185  # RadialRouter, Table 7: GPT-4, dollars per 1,000 prompts, mean of six source datasets


STATED, ELSEWHERE = Stated(), Elsewhere()


@lru_cache(maxsize=1)
def published() -> Tables:
    """Return every published table of the paper, by file name without its ending."""
    folder = Path(__file__).parent / "published"
    return {path.stem: read_cells(path) for path in sorted(folder.glob("*.csv"))}


def registry(benchmark: str, folder: Path | None = None) -> Registry | None:
    """Return the registry of a benchmark's LLMs in the authors' public code: by LLM, size and price.

    Parameters
    ----------
    benchmark : {"routerbench", "mix-instruct", "embedllm"}
    folder
        Where the registries lie; by default `cscr-meta` in the folder `$ROUTEBOOK_DATA`.

    Returns
    -------
    dict of name to entry (`n_params` in billions, `cost_usd_per_1k_tokens`), None where the file is absent

    Raises
    ------
    DataError
        When the file is no JSON object of entries.
    """
    root = data_dir()
    folder = folder or (root / "cscr-meta" if root else None)
    path = folder / f"registry-{benchmark}.json" if folder else None
    if path is None or not path.is_file():
        return None
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); copy the file again") from None
    if not isinstance(entries, dict) or not entries or not all(isinstance(e, dict) for e in entries.values()):
        raise DataError(f"{path}: expected an object with one entry an LLM; copy the file again")
    return entries


def _numbers(entries: Registry, name: str) -> dict[str, float]:
    """Return one number of every LLM of a registry; DataError where an entry lacks it."""
    if missing := [llm for llm, entry in entries.items() if not isinstance(entry.get(name), int | float)]:
        raise DataError(f"registry: {missing[0]!r} has no number {name!r}; copy the authors' file again")
    return {llm: float(entry[name]) for llm, entry in entries.items()}


def _without(benchmark: str, expected: str) -> Check:
    needs = f"registry-{benchmark}.json of the authors' code in the folder cscr-meta of $ROUTEBOOK_DATA"
    return Check(ok=False, found="", expected=expected, detail="", needs=needs)


def _value(tables: Tables, table: str, row: str, column: str) -> float:
    number = tables[table][row, column].value
    if number is None:
        raise ValueError(f"{table}: {row}, {column}: no number is printed")
    return number


def _half_unit(cell: Cell) -> float:
    """Half a unit in the last printed digit: how far a printed number may lie from the one it was rounded from."""
    return 0.5 * 10.0**-cell.decimals


def _column(tables: Tables, table: str, column: str) -> dict[str, float]:
    """Return a column's numbers by row, in the table's order."""
    return {row: cell.value for (row, name), cell in tables[table].items() if name == column and cell.value is not None}


def _check(conditions: Mapping[str, bool], found: str, expected: str, detail: str) -> Check:
    failed = [name for name, holds in conditions.items() if not holds]
    return Check(not failed, found, expected, detail + (f"; does not hold: {', '.join(failed)}" if failed else ""))


def _listed(items: list[str]) -> str:
    return "; ".join(items) or "none"


# -------------------------------------------------------------------------------------------- the headline, and QNC


def headline(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """CS-1: "up to 25%" is the lead over the best baseline of a benchmark, and no lead is larger."""
    tables = tables or published()
    best, over_umr, largest = {}, {}, ("", 0.0)
    for name, head in BENCHMARKS.items():
        area = _column(tables, "table-1", f"{head} / AUDC")
        leads = {row: 100 * (area[OURS] / area[row] - 1) for row in BASELINES}
        best[name] = min(leads.items(), key=lambda item: item[1])
        over_umr[name] = leads["UMR [40]"]
        largest = max((largest, *((f"{row} on {name}", lead) for row, lead in leads.items())), key=lambda item: item[1])
    top = max(lead for _, lead in best.values())
    return _check(
        {
            "a lead over the best baseline is that large": top > stated.gain_percent - 0.5,
            "no lead is larger": largest[1] < stated.gain_percent + 0.5,
        },
        found="over the best baseline " + ", ".join(f"{lead:+.1f}% on {b} ({row})" for b, (row, lead) in best.items()),
        expected=f"up to {stated.gain_percent:g}%",
        detail="over UMR "
        + ", ".join(f"{lead:+.1f}% on {name}" for name, lead in over_umr.items())
        + ", so the number "
        "is the lead over UMR, of the four learned baselines the one with the least area on RouterBench; "
        f"the largest lead of all is {largest[1]:+.0f}%, over {largest[0]}",
    )


def lower_qnc(tables: Tables | None = None) -> Check:
    """CS-2: CSCR's QNC is lower than every learned baseline's (Tables 1 and 2)."""
    tables = tables or published()
    columns = [("table-1", f"{head} / QNC", f"{name} of Table 1") for name, head in BENCHMARKS.items()]
    higher, said = [], []
    for table, column, place in [*columns, ("table-2", "EmbedLLM / QNC", "Table 2")]:
        qnc = {row: number for row, number in _column(tables, table, column).items() if row != ORACLE}
        learned = {row: q for row, q in qnc.items() if row.split(" [")[0] in {name.split(" [")[0] for name in LEARNED}}
        rank = sorted(qnc.values()).index(qnc[OURS]) + 1
        said.append(f"{qnc[OURS]:g} on {place}, number {rank} of {len(qnc)} from below")
        higher += [f"{row} pays {q:g} on {place}" for row, q in learned.items() if q <= qnc[OURS]]
    return Check(
        ok=not higher,
        found=_listed(said),
        expected="below every learned baseline",
        detail=f"learned baselines that pay no more: {_listed(higher)}",
    )


def qnc_definition(tables: Tables | None = None) -> Check:
    """CS-18: a router that never is as accurate as the best LLM has no QNC."""
    tables = tables or published()
    cannot, singles = [], []
    for name in ("EmbedLLM", "MixInstruct"):
        qnc = _column(tables, "table-1", f"{BENCHMARKS[name]} / QNC")
        peak = _column(tables, "table-1", f"{BENCHMARKS[name]} / Peak")
        # A mean size that is a whole number of billions is one LLM's; the best LLM is at least as accurate.
        alone = {row: peak[row] for row in BASELINES if math.isfinite(qnc[row]) and qnc[row] == round(qnc[row])}
        singles += [f"{row} on {name} ({qnc[row]:g}, {accuracy:g})" for row, accuracy in alone.items()]
        best = max(alone.values(), default=0.0)
        below = [row for row in BASELINES if peak[row] < best and math.isfinite(qnc[row])]
        cannot += [f"{row} on {name} ({peak[row]:g} < {best:g}, yet {qnc[row]:g})" for row in below]
    return Check(
        ok=not cannot,
        found=f"{len(cannot)} finite QNCs of routers whose peak is below one LLM's accuracy: {_listed(cannot)}",
        expected="no QNC where the most accurate LLM is not matched",
        detail=f"at their peak these send all to one LLM, a whole number of billions: {_listed(singles)}; what is "
        "printed is the mean cost at the router's own peak, which is what the authors' public code computes and what "
        "Tables 9 to 12 call cost@max_acc",
    )


def routerbench_prices(tables: Tables | None = None, entries: Registry | None = None) -> Check:
    """CS-14: CSCR's QNC on RouterBench is an actual mean cost of calls, so no LLM's fixed price times 200 tokens."""
    tables = tables or published()
    cell = tables["table-1"][OURS, "RouterBench / QNC"]
    expected = f"{cell.printed} not a fixed price"
    entries = entries or registry("routerbench")
    if entries is None:
        return _without("routerbench", expected)
    tokens = 200  # In the authors' public code every call costs the price of 200 tokens; here of 1,000 calls.
    fixed = {llm: price * tokens for llm, price in _numbers(entries, "cost_usd_per_1k_tokens").items()}
    same = [llm for llm, cost in fixed.items() if abs(cost - cell.value) <= _half_unit(cell) + _ROUNDING]
    qnc = _column(tables, "table-1", "RouterBench / QNC")
    return Check(
        ok=not same,
        found=f"{cell.printed} = {tokens} tokens of {' or '.join(same)}" if same else "no LLM's price",
        expected=expected,
        detail=f"prices of 1,000 calls range from {min(fixed.values()):.3f} to {max(fixed.values()):.3f}, uniform "
        f"random pays {statistics.mean(fixed.values()):.3f} against {qnc[RANDOM]:g} (Random) and {qnc[PARETO]:g} "
        f"(Pareto-Random); Parametric's {qnc['Parametric [62]']:g} is none of them, so the prices behind Table 1 may "
        "differ a little from the public ones",
    )


def mixinstruct_sizes(tables: Tables | None = None, entries: Registry | None = None) -> Check:
    """CS-15: what routers pay on MixInstruct is neither the mean size of the pool nor one LLM's size."""
    tables = tables or published()
    expected = "learned routers' QNCs neither the mean size nor one LLM's size"
    entries = entries or registry("mix-instruct")
    if entries is None:
        return _without("mix-instruct", expected)
    sizes = _numbers(entries, "n_params")
    mean, smallest = statistics.mean(sizes.values()), min(sizes.values())
    uniform, alone = [], []
    for row in LEARNED:
        cell = tables["table-1"][row, "Mix-Instruct / QNC"]
        uniform += [row] if abs(cell.value - mean) <= _half_unit(cell) + _ROUNDING else []
        alone += [f"{row} ({cell.printed})" for size in set(sizes.values()) if abs(size - cell.value) < _ROUNDING]
    random = _value(tables, "table-1", RANDOM, "Mix-Instruct / QNC")
    return _check(
        {"no QNC is the mean size": not uniform, "no QNC is one LLM's size": not alone},
        found=f"mean size {mean:.2f}: {_listed(uniform)}; one LLM's size: {_listed(alone)}",
        expected=expected,
        detail=f"so at their peak these choose uniformly or one LLM; the random rows' {random:g} is not the mean size, "
        f"as uniform choice would have it, but next to the smallest LLM's {smallest:g}",
    )


def embedllm_sizes(tables: Tables | None = None, entries: Registry | None = None, stated: Stated = STATED) -> Check:
    """CS-16: Random's QNC on EmbedLLM is not what uniform choice costs."""
    tables = tables or published()
    random = _value(tables, "table-1", RANDOM, "EmbedLLM / QNC")
    expected = f"{random:g} not the mean size"
    entries = entries or registry("embedllm")
    if entries is None:
        return _without("embedllm", expected)
    sizes = list(_numbers(entries, "n_params").values())
    mean, error = statistics.mean(sizes), statistics.pstdev(sizes) / math.sqrt(stated.prompts)
    return Check(
        ok=abs(random - mean) > 2 * error,
        found=f"mean size {mean:.2f}, {abs(random - mean) / error:.2f} standard errors away",
        expected=expected,
        detail=f"{len(sizes)} LLMs in the registry, a number the paper does not give; the standard error of one draw "
        f"for each of {stated.prompts} prompts is {error:.2f}; uniform choice does not match the best LLM",
    )


def default_setting(tables: Tables | None = None) -> Check:
    """CS-4: one setting has one AUDC, but for Table 9's subset of prompts."""
    tables = tables or published()
    areas = {name: _value(tables, *place) for name, place in DEFAULTS.items()}
    whole = {name: area for name, area in areas.items() if name != "Table 9"}
    lead = areas["Table 1"] - _value(tables, "table-1", "UMR [40]", "EmbedLLM / AUDC")
    spread = max(areas.values()) - min(areas.values())
    # Table 1 prints three digits, the others four.
    same = max(whole.values()) - min(whole.values()) <= 0.0005 + 0.00005 + _ROUNDING
    return Check(
        ok=same,
        found=f"{len(set(areas.values()))} AUDCs: " + ", ".join(f"{area:g} in {name}" for name, area in areas.items()),
        expected="one AUDC, and another on the subset of Table 9",
        detail=f"they spread over {spread:.4f}, {spread / lead:.1f} times CSCR's lead over UMR, {lead:.3f} in Table 1; "
        "the dataset is printed for Tables 1 and 9 only, and the public code's AUDC depends on the routers in the run",
    )


# ----------------------------------------------------------------------------------------------- baselines of Table 1


def random_twins(tables: Tables | None = None) -> Check:
    """CS-22: a router on the cost-accuracy frontier has more area than a uniform one."""
    tables = tables or published()
    pairs = {}
    for name, head in BENCHMARKS.items():
        area = _column(tables, "table-1", f"{head} / AUDC")
        pairs[f"{name}, Table 1"] = (area[PARETO], area[RANDOM])
    for number in (2, 3):
        area = _column(tables, f"table-{number}", "EmbedLLM / AUDC")
        pairs[f"EmbedLLM, Table {number}"] = (area["Pareto-Random"], area[RANDOM])
    below = [place for place, (pareto, random) in pairs.items() if pareto <= random]
    return Check(
        ok=not below,
        found="; ".join(f"{pareto:g} against {random:g} ({place})" for place, (pareto, random) in pairs.items()),
        expected="Pareto-Random above Random everywhere",
        detail=f"not above: {_listed(below)}; the largest difference is "
        f"{max(abs(p - r) for p, r in pairs.values()):.4f}; in the authors' public code both names run one class",
    )


def parametric(tables: Tables | None = None) -> Check:
    """CS-23: a mean size over prompts is a whole number of billions only by chance, one in 100 with two decimals."""
    tables = tables or published()
    cells = {name: tables["table-1"]["Parametric [62]", f"{BENCHMARKS[name]} / QNC"] for name in BENCHMARKS}
    sizes = {name: cells[name] for name in ("EmbedLLM", "MixInstruct")}
    whole = [f"{cell.printed} on {name}" for name, cell in sizes.items() if abs(cell.value - round(cell.value)) < 1e-9]
    chance = math.prod(10.0**-cell.decimals for cell in sizes.values())
    return Check(
        ok=len(whole) < len(sizes),
        found=f"whole numbers of billions: {_listed(whole)}",
        expected=f"not both whole, which has a chance of {chance:.0e}",
        detail="so at its peak it sends every prompt to one LLM; in the authors' public code the score does not depend "
        f"on the prompt; RouterBench's {cells['RouterBench'].printed} is no price in the public registry",
    )


def umr_as_published(tables: Tables | None = None, elsewhere: Elsewhere = ELSEWHERE) -> Check:
    """X-2: UMR is UniRoute's method, which on these benchmarks is above a random mixture on the frontier."""
    tables = tables or published()
    own = {name: _value(tables, "table-1", "UMR [40]", f"{head} / AUDC") for name, head in BENCHMARKS.items()}
    zero, k_means = dict(elsewhere.zero_router), dict(elsewhere.k_means)
    below = [
        f"{own[name]:g} on {name}, below the {zero[name]:g} of a random mixture"
        for name in zero
        if own[name] < zero[name]
    ]
    cscr = {name: _value(tables, "table-1", OURS, f"{head} / AUDC") for name, head in BENCHMARKS.items()}
    new = ", ".join(
        f"{area:g} and {dict(elsewhere.zero_router_new_llms)[name]:g} on {name}"
        for name, area in elsewhere.k_means_new_llms
    )
    return Check(
        ok=not below,
        found=_listed(below),
        expected="UMR above a random mixture: " + ", ".join(f"{k_means[n]:g} and {zero[n]:g} on {n}" for n in zero),
        detail="expected are the areas UniRoute prints for K-means and ZeroRouter on a fixed pool (on new LLMs "
        f"{new}); areas are normalised differently, but a lead over UMR cannot be carried over; CSCR's own "
        f"{', '.join(f'{area:g} on {name}' for name, area in cscr.items())}",
    )


def pareto_random_as_published(tables: Tables | None = None, elsewhere: Elsewhere = ELSEWHERE) -> Check:
    """X-3: Pareto-Random has the area of UniRoute's Pareto-random router, ZeroRouter, or about."""
    tables = tables or published()
    own = _column(tables, "table-1", "EmbedLLM / AUDC")
    theirs = dict(elsewhere.zero_router)["EmbedLLM"]
    return Check(
        ok=abs(own[PARETO] - theirs) < abs(own[PARETO] - own[RANDOM]),
        found=f"{own[PARETO]:g} on EmbedLLM, {abs(own[PARETO] - own[RANDOM]):.3f} from Random ({own[RANDOM]:g})",
        expected=f"nearer to {theirs:g}, ZeroRouter's in UniRoute, than to Random",
        detail="two baselines of one name; the book runs ZeroRouter under it and Random beside it",
    )


def one_routerbench(tables: Tables | None = None, stated: Stated = STATED, elsewhere: Elsewhere = ELSEWHERE) -> Check:
    """X-4: numbers of different papers on RouterBench are of the same costs and splits."""
    cost = _value(tables or published(), "table-1", OURS, "RouterBench / QNC")
    ratio = elsewhere.gpt4_cost / cost
    return _check(
        {
            "GPT-4 costs the same": abs(ratio - 1) < 0.1,
            "LLMs are profiled on as many prompts": stated.probes == elsewhere.validation_prompts,
        },
        found=f"GPT-4 (CS-14) at {cost:g}, profiled on {stated.probes} probes",
        expected=f"{elsewhere.gpt4_cost:g} dollars per 1,000 prompts (RadialRouter, Table 7), "
        f"{elsewhere.validation_prompts} validation prompts (UniRoute, Section 6)",
        detail=f"a factor of {ratio:.1f}; RadialRouter averages six source datasets and what calls cost, CSCR takes a "
        "fixed price; splits differ, too (90/10 of all prompts in CSCR's public code, 70/30 of six datasets in "
        "RadialRouter), so such numbers are not comparable across papers",
    )


# ------------------------------------------------------------------------------------------- shifts and descriptors


def all_key_metrics(tables: Tables | None = None) -> Check:
    """CS-12: out of distribution CSCR is ahead of every baseline in AUDC, QNC and peak (Table 3)."""
    tables = tables or published()
    behind = []
    for metric, sign in (("AUDC", 1), ("QNC", -1), ("Peak", 1)):
        column = {r: x for r, x in _column(tables, "table-3", f"EmbedLLM / {metric}").items() if r != ORACLE}
        ahead = {row: sign * (column[OURS] - number) for row, number in column.items() if row != OURS}
        behind += [f"{metric} {column[OURS]:g} against {row}'s {column[row]:g}" for row in ahead if ahead[row] <= 0]
    return Check(
        ok=not behind,
        found=f"behind: {_listed(behind)}",
        expected="ahead of all in AUDC, QNC and peak",
        detail="the lead in AUDC holds",
    )


def oracle_twins(tables: Tables | None = None) -> Check:
    """CS-13: the Oracle's peak and cost differ between all prompts and the 1,060 non-STEM prompts."""
    from scipy.stats import binom

    tables = tables or published()
    first = {m: tables["table-1"][ORACLE, f"EmbedLLM / {m}"] for m in ("AUDC", "QNC", "Peak")}
    other = {m: tables["table-3"][ORACLE, f"EmbedLLM / {m}"] for m in first}
    same = [m for m in ("QNC", "Peak") if abs(first[m].value - other[m].value) <= _half_unit(first[m]) + _ROUNDING]
    n = int(_value(tables, "appendix-d-2-1", "Non-STEM", "distinct test prompts"))
    peak, width = first["Peak"].value, _half_unit(first["Peak"])
    chance = sum(binom.pmf(k, n, peak) for k in range(n + 1) if abs(k / n - peak) <= width)
    return Check(
        ok=len(same) < 2,
        found=", ".join(f"{m} {first[m].printed} and {other[m].printed}" for m in first),
        expected="a QNC and a peak of its own on another test set",
        detail=f"equal: {', '.join(same) or 'none'}; possible, as a set of {n} like the whole has the same peak with a "
        f"chance of {chance:.0%}, but the mean cost agrees as well, and the AUDC does not; what was run cannot be told",
    )


def stem_split(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """CS-25: the training categories are STEM, and train and test hold STEM in one proportion."""
    tables = tables or published()
    sets = {row: cell.printed for (row, _), cell in tables["table-6"].items()}
    train, test = ([row for row, name in sets.items() if name.startswith(start)] for start in ("Train", "Test"))
    misplaced = [s for s in MMLU_STEM if sets.get(f"mmlu_{s}", "Train").startswith("Test")]
    stem = _value(tables, "appendix-d-2-1", "STEM", "training questions")
    trained = _value(tables, "appendix-d-2-1", "all", "training questions")
    tested = _value(tables, "appendix-d-2-1", "Non-STEM", "distinct test prompts")
    share, found = 1 - stem / trained, tested / stated.prompts
    error = math.sqrt(share * (1 - share) / stated.prompts)
    return _check(
        {
            "MMLU's own STEM subjects are trained on": not misplaced,
            "train and test agree in the share of non-STEM": abs(found - share) <= 3 * error,
        },
        found=f"in the test set: {', '.join(misplaced) or 'none'}; non-STEM {share:.1%} of training questions and "
        f"{found:.1%} of {stated.prompts} test prompts",
        expected="no subject that MMLU's authors call STEM; one share",
        detail=f"{len(train)} + {len(test)} = {len(sets)} categories; no rule is given (logiqa and piqa are STEM "
        "in it, formal_logic is not); the test prompts are called distinct, so repeated ones may have been dropped",
    )


def descriptor_areas(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """CS-8: the text's AUDCs of the two descriptors are those of Table 4."""
    tables = tables or published()
    printed = tuple(_value(tables, "table-4", row, "MixInstruct / AUDC") for row in ("Logit Desc.", "Perp. Desc."))
    ratios = [said / area for said, area in zip(stated.descriptor_areas, printed, strict=True)]
    return Check(
        ok=all(abs(a - b) < _ROUNDING for a, b in zip(stated.descriptor_areas, printed, strict=True)),
        found=f"{printed[0]:g} and {printed[1]:g} in Table 4",
        expected=f"{stated.descriptor_areas[0]:g} and {stated.descriptor_areas[1]:g} in the text",
        detail=f"factors {ratios[0]:g} and {ratios[1]:g}; Table 1's areas on MixInstruct have the table's scale, so "
        "the text's decimal point is off",
    )


def logit_row(tables: Tables | None = None) -> Check:
    """CS-8b: Table 4's logit descriptors and Table 1's CSCR are one router on one benchmark."""
    tables = tables or published()
    pairs = {}
    for metric in ("AUDC", "QNC", "Peak"):
        first = tables["table-1"][OURS, f"Mix-Instruct / {metric}"]
        pairs[metric] = (first, tables["table-4"]["Logit Desc.", f"MixInstruct / {metric}"])
    differ = [m for m, (a, b) in pairs.items() if abs(a.value - b.value) > _half_unit(a) + _half_unit(b) + _ROUNDING]
    return Check(
        ok=not differ,
        found=", ".join(f"{m} {a.printed} and {b.printed}" for m, (a, b) in pairs.items()),
        expected="equal after rounding",
        detail=f"different: {', '.join(differ) or 'none'}; the difference in AUDC, "
        f"{pairs['AUDC'][0].value - pairs['AUDC'][1].value:.4f}, is larger than any in Table 4",
    )


def mixing_words(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """CS-8c: what Table 4's caption calls a slight improvement is more than what it calls no impact."""
    area = _column(tables or published(), "table-4", "MixInstruct / AUDC")
    peak = _column(tables or published(), "table-4", "MixInstruct / Peak")
    slight, none = area["Perp. Desc."] - area["Logit Desc."], area["Mixed"] - area["Perp. Desc."]
    change = 100 * (peak["Perp. Desc."] / peak["Logit Desc."] - 1)
    return _check(
        {
            "the slight improvement exceeds no impact": slight > none + _ROUNDING,
            f"the peak changes by less than {stated.peak_change_percent:g}%": abs(change) < stated.peak_change_percent,
        },
        found=f"perplexity over logit {slight:+.4f}, mixed over perplexity {none:+.4f}; peak {change:+.1f}%",
        expected=f"slight improvement, no impact; peak within {stated.peak_change_percent:g}%",
        detail="the caption says no impact of mixing, Section 4.3.1 a slight improvement; as a difference of "
        f"exp(BARTScore) the peak moves by {peak['Perp. Desc.'] - peak['Logit Desc.']:.3f}, or less after "
        "rounding",
    )


def forward_passes(stated: Stated = STATED) -> Check:
    """CS-11: N x T forward passes are fewer than 10."""
    passes = stated.probes * stated.steps
    return Check(
        ok=passes < stated.passes_below,
        found=f"{passes:,} ({stated.probes} probes, {stated.steps} steps each)",
        expected=f"fewer than {stated.passes_below}",
        detail=f"with all probes in one batch there are still {stated.steps} passes, one a step",
    )


def one_space(stated: Stated = STATED) -> Check:
    """CS-26: the two descriptors have one length, as the shared space needs."""
    return Check(
        ok=stated.probes == stated.tokens,
        found=f"N = {stated.probes}, K = {stated.tokens}",
        expected="N = K",
        detail="the mixed row of Table 4 then has vectors of two lengths; the paper does not say how these were met",
    )


# ------------------------------------------------------------------------------------------------ the loss, ablations


def penalty(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """CS-10: the two places that give the negative cost penalty give one value."""
    tables = tables or published()
    area, peak = (_column(tables, "table-10", name) for name in ("AUDC", "max_acc"))
    chosen, other = (f"gamma={g:g}" for g in (stated.penalty, stated.penalty_in_appendix))
    return Check(
        ok=stated.penalty == stated.penalty_in_appendix,
        found=f"γ = {stated.penalty:g} in Sections 4.1 and D.3.3, λ = {stated.penalty_in_appendix:g} in Appendix D.1",
        expected="one value",
        detail=f"Table 10 has AUDC {area[other]:g} and peak {peak[other]:g} at {stated.penalty_in_appendix:g}, "
        f"{area[chosen]:g} and {peak[chosen]:g} at {stated.penalty:g}; its best area is at {max(area, key=area.get)}; "
        "Section 3.4 writes λ for γ twice; the authors' public code has 0.2",
    )


def table_5(tables: Tables | None = None) -> Check:
    """CS-24: the cost-spectrum row quoted of Table 5 is Table 7's row with bands."""
    tables = tables or published()
    row, bands = "Cost-Spectrum InfoNCE", _column(tables, "table-7", "AUCD")["With bands"]
    peak = 100 * _value(tables, "table-7", "With bands", "Peak Accuracy")
    pairs = {"AUDC": (tables["table-5"][row, "AUDC"], bands), "peak": (tables["table-5"][row, "Peak"], peak)}
    vanilla, without = tables["table-5"]["Vanilla InfoNCE", "AUDC"], tables["table-7"]["Without bands", "AUCD"]
    return Check(
        ok=all(abs(cell.value - other) <= _half_unit(cell) + _ROUNDING for cell, other in pairs.values()),
        found=", ".join(f"{name} {cell.printed} and {other:g}" for name, (cell, other) in pairs.items()),
        expected="equal after rounding",
        detail=f"one run in both tables; the other rows differ (AUDC {vanilla.printed} of vanilla InfoNCE, "
        f"{without.printed} without bands), so no bands is not yet the vanilla loss",
    )


def fourteen_percent(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """CS-9: the cost of the peak falls by about 14% from τ_min = 0.02 to 0.05."""
    cost = _column(tables or published(), "table-12", "cost@max_acc")
    before, after = cost["tau_min=0.02"], cost["tau_min=0.05"]
    cut = 100 * (before - after) / before
    return Check(
        ok=round(cut) == stated.cost_cut_percent,
        found=f"{cut:.1f}% (from {before:g} to {after:g})",
        expected=f"about {stated.cost_cut_percent}%",
        detail="as said",
    )


def routing_rule(stated: Stated = STATED) -> Check:
    """CS-19: of two LLMs of one price, Eq. (9) picks the more similar; of two alike, the cheaper."""
    direction, sign_similarity, sign_cost = stated.rule
    best = {"argmin": min, "argmax": max}[direction]

    def pick(llms: dict[str, tuple[float, float]]) -> str:
        return best(llms, key=lambda name: sign_similarity * llms[name][0] + sign_cost * llms[name][1])

    by_similarity = pick({"the more similar": (0.9, 0.5), "the less similar": (0.1, 0.5)})
    by_cost = pick({"the cheaper": (0.5, 0.1), "the dearer": (0.5, 0.9)})
    return _check(
        {
            "similarity counts for an LLM": by_similarity == "the more similar",
            "cost counts against it": by_cost == "the cheaper",
        },
        found=f"{by_similarity} of two of one price, {by_cost} of two alike",
        expected="the more similar, the cheaper",
        detail="meant is the argmax of cos - λ c, which the authors' public code has (with a small bonus for "
        "exploration) and the book builds",
    )


# ---------------------------------------------------------------------------------------------- counts, significance


def bands_add_up(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """CS-5: Table 14's counts add up to the number of test prompts."""
    counts = list(_column(tables or published(), "table-14", "Count").values())
    return Check(
        ok=sum(counts) == stated.prompts,
        found=f"{' + '.join(f'{count:g}' for count in counts)} = {sum(counts):g}",
        expected=f"{stated.prompts}",
        detail="each prompt is counted once, in the band of the LLM chosen for it",
    )


def outcomes_add_up(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """CS-6: Table 15's outcomes add up to the number of test prompts, and its correct ones to the peak accuracy."""
    tables = tables or published()
    count = _column(tables, "table-15", "Count")
    total, correct = sum(count.values()), count["Too expensive"] + count["Optimal"]
    peak = _value(tables, "table-1", OURS, "EmbedLLM / Peak")
    oracle = 1 - _value(tables, "table-1", ORACLE, "EmbedLLM / Peak")
    return Check(
        ok=total == stated.prompts,
        found=f"{total:g}",
        expected=f"{stated.prompts}",
        detail=f"{stated.prompts - total:g} prompts are in no class: wrong answers of LLMs that were not too cheap, "
        f"presumably; correct are {correct / stated.prompts:.3f} of all, for a peak of {peak:g}; without a correct LLM "
        f"{count['No correct'] / stated.prompts:.3f}, as the Oracle's peak has it ({oracle:.3f})",
    )


def two_leads(tables: Tables | None = None) -> Check:
    """CS-3: Table 16's lead over UMR is Table 1's, or Table 1's lies in its interval."""
    tables = tables or published()
    lead = _value(tables, "table-1", OURS, "EmbedLLM / AUDC") - _value(tables, "table-1", "UMR [40]", "EmbedLLM / AUDC")
    row = {column: cell.value for (_, column), cell in tables["table-16"].items()}
    low, high, delta = row["95% CI low"], row["95% CI high"], row["Delta_AUDC"]
    return Check(
        ok=low - 0.0005 <= lead + 0.001 and lead - 0.001 <= high + 0.0005,
        found=f"{lead:.3f} in Table 1",
        expected=f"{delta:.3f}, or within [{low:g}, {high:g}]",
        detail=f"a factor of {delta / lead:.1f}; the authors' public code integrates each pair of routers over its own "
        "range of costs, so the two need not agree, but they are two different quantities of one name",
    )


def p_values(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """CS-7: the p-values follow from the printed counts and the number of resamples."""
    from routebook.significance import binomial_counts

    row = {column: cell for (_, column), cell in (tables or published())["table-16"].items()}
    test = binomial_counts(int(row["n10"].value), int(row["n01"].value), alternative="greater")
    floor = 1 / (stated.resamples + 1)
    middle = (row["95% CI low"].value + row["95% CI high"].value) / 2
    return _check(
        {
            "McNemar": abs(test.p_value / row["p (McNemar)"].value - 1) < 0.001,
            "bootstrap": abs(floor / row["p (bootstrap)"].value - 1) < 0.03,
            "interval around the lead": abs(middle - row["Delta_AUDC"].value) <= 0.001 + _ROUNDING,
        },
        found=f"{test.p_value:.3e} and {floor:.2e}; middle of the interval {middle:.3f}",
        expected=f"{row['p (McNemar)'].value:.2e} and {row['p (bootstrap)'].value:.1e}; {row['Delta_AUDC'].value:.3f}",
        detail=f"the bootstrap's is the least that {stated.resamples} resamples can give, so it means below, not equal",
    )


# ------------------------------------------------------------------------------------------------------------ theory


def lemma_step(stated: Stated = STATED) -> Check:
    """CS-20: S+ - γc+ > S- - γc- with c+ ≤ c- implies S+ > S-."""
    grid = [i / 10 for i in range(11)]
    found = next(
        (
            (s_right, s_wrong, c_right, c_wrong)
            for s_right, s_wrong, c_right, c_wrong in itertools.product(grid, repeat=4)
            if c_right <= c_wrong
            and s_right - stated.penalty * c_right > s_wrong - stated.penalty * c_wrong + _ROUNDING
            and s_right < s_wrong
        ),
        None,
    )
    said = "none" if found is None else "S+ = {:g}, S- = {:g}, c+ = {:g}, c- = {:g}".format(*found)
    return Check(
        ok=found is None,
        found=f"counter-example with γ = {stated.penalty:g}: {said}",
        expected="no counter-example",
        detail="one gets S+ - S- > γ(c+ - c-), which is at most 0; with γ = 0 the step holds; in Eq. (8) γc is divided "
        "by τ, in Section 5.2 and Appendix B.3 it is not",
    )


def theorem_rate(stated: Stated = STATED) -> Check:
    """CS-21: for every k = n^a with 0 < a < 1 what is proved shrinks at least as fast as the stated rate."""

    def exponent(terms: tuple[tuple[float, float, bool], ...], a: float) -> float:
        """Return the largest power of n among terms k^x n^y at k = n^a."""
        return max((x * a + y) / (stated.dimension if divided else 1) for x, y, divided in terms)

    grid = [i / 100 for i in range(1, 100)]
    slower = [a for a in grid if exponent(stated.proved, a) > exponent(stated.rate, a) + _ROUNDING]
    worst = max(grid, key=lambda a: exponent(stated.proved, a) - exponent(stated.rate, a))
    return Check(
        ok=not slower,
        found=f"slower for k = n^a with a from {min(slower):g} to {max(slower):g}" if slower else "nowhere slower",
        expected="proved bound at least as fast as the stated one for every k ≤ n",
        detail=f"at a = {worst:g} and d = {stated.dimension} what is proved, sqrt(log M / k) + (k/n)^(1/d), falls as n "
        f"to the {exponent(stated.proved, worst):.5f}, the stated sqrt(k/n) + k^(-1/d) as n to the "
        f"{exponent(stated.rate, worst):.5f}; the constant is said not to depend on M, but log M stays; the rule of "
        "the theorem averages errors of the nearest prompts, which CSCR's router does not",
    )
