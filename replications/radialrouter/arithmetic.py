"""Checks on RadialRouter's own numbers: one function for each arithmetic claim of `ledger.yaml`.

Every check reads the published cells beside this file and the constants transcribed in `Stated`, each with its place
in the paper; both are parameters, so that a test can change a number and see the outcome change. None uses any data,
except `six_entry_lookup`, which takes the cost of two LLMs on WinoGrande as an argument.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from replications.radialrouter.lookups import (
    ALPHAS,
    DATASETS,
    LLMS,
    METHODS,
    SCENARIOS,
    Costs,
    Table,
    Tables,
    chance_of_match,
    find_matches,
    pool,
    pool_chain,
    pool_rows,
    published,
    questions,
    row_of,
    score_at,
    units,
    value,
)
from routebook.ledger import Check

_ROUNDING = 1e-9
# Half a unit in the last digit: accuracies have four (three in Tables 1 and 8), scores and costs three.
_FOUR, _THREE = 0.5e-4, 0.5e-3
BASELINES = ("Random", *METHODS[:-1])
SHORT = {"PF": "Performance First", "BA": "Balance", "CF": "Cost First"}

# Mean dollars of 1,000 prompts over the 380 WinoGrande test prompts of RouterBench; not printed in the paper.
# `lookups.costs_per_thousand` computes them, and a test compares, where the data is.
WINOGRANDE_COSTS: Costs = {("winograde", "gpt-4-1106-preview"): 3.5312, ("winograde", "Yi-34B-Chat"): 0.2809}


@dataclass(frozen=True)
class Stated:
    """Numbers the paper states in its text; the comment gives the place."""

    leads: tuple[tuple[str, float], ...] = (("Balance", 9.2), ("Cost First", 5.8))  # Abstract; Section 5.1, percent
    oracle_percent: float = 82.66  # Section 5.1: "at least 82.66% of the Oracle's score"
    random_draws: int = 50  # Section 5.1: "50 independent selections"
    heads: int = 4  # Section 4.4
    head_width: int = 32  # Section 4.4
    width: int = 768  # Section 4.4: "768-dim hidden dimension"; Appendix A: groups of dimension d/h
    first_llm: int = 1  # Section 3: {LLM_i : i = 1, ..., n}
    first_term: int = 0  # Eq. (4): the sum begins at i = 0
    dearest: str = (
        "mistral-7b-chat"  # Section 4.2: small and large LLM have "the highest and lowest cost, respectively"
    )
    cheapest: str = "gpt-4-1106-preview"  # Section 4.2
    robust_alphas: tuple[str, ...] = ALPHAS  # Appendix E: "robust to a wide range (α in [0, 0.1])"


STATED = Stated()


def _check(conditions: Mapping[str, bool], found: str, expected: str, detail: str) -> Check:
    failed = [name for name, holds in conditions.items() if not holds]
    return Check(not failed, found, expected, detail + (f"; does not hold: {', '.join(failed)}" if failed else ""))


def _listed(items: list[str]) -> str:
    return "; ".join(items) or "none"


def _mean(table: Table, row: str) -> float:
    """Return the unweighted mean of a row's six accuracies."""
    return sum(units(table[row, column]) for column in DATASETS) / len(DATASETS) / 10_000


# ------------------------------------------------------------------------------------ sums, scores, tables that agree


def means(tables: Tables | None = None) -> Check:
    """RR-1: Perf. is the unweighted mean of the six datasets (Tables 7 and 9)."""
    tables = tables or published()
    rows = [("table-7", llm) for llm in LLMS]
    rows += [("table-9", row_of(method, alpha)) for method, alpha in itertools.product(METHODS, ALPHAS)]
    off = {row: _mean(tables[name], row) - value(tables[name], row, "Perf.") for name, row in rows}
    wrong = [f"{row} by {error:+.4f}" for row, error in off.items() if abs(error) > 2 * _FOUR + _ROUNDING]
    return Check(
        ok=not wrong,
        found=f"{len(rows) - len(wrong)} of {len(rows)} rows, largest distance {max(map(abs, off.values())):.5f}",
        expected=f"{len(rows)} rows within 0.0001, the rounding of both",
        detail=f"a macro-average: every dataset weighs the same, however many questions it has; off: {_listed(wrong)}",
    )


def _scored(tables: Tables) -> Iterator[tuple[str, float, float, float, float, float]]:
    """Yield where, Perf., its rounding, Cost, α and Score of every row that prints all three."""
    for name in ("table-1", "table-8"):
        rows = dict.fromkeys(row for row, _ in tables[name])
        for row, (scenario, alpha) in itertools.product(rows, SCENARIOS.items()):
            perf, cost, score = (value(tables[name], row, f"{scenario} / {c}") for c in ("Perf.", "Cost", "Score"))
            yield f"{name}, {row}, {scenario}", perf, _THREE, cost, float(alpha), score
    for name in ("table-4", "table-6"):
        for row in dict.fromkeys(row for row, _ in tables[name]):
            perf, cost, score = (value(tables[name], row, column) for column in ("Performance", "Cost", "Score"))
            yield f"{name}, {row}", perf, _FOUR, cost, float(SCENARIOS["Balance"]), score


def scores(tables: Tables | None = None) -> Check:
    """RR-2: Score = Perf. - α Cost in every row that prints all three (Tables 1, 4, 6 and 8)."""
    rows = list(_scored(tables or published()))
    wrong = [
        f"{where}: {perf - alpha * cost:.4f} against {score:.3f}"
        for where, perf, rounding, cost, alpha, score in rows
        if abs(perf - alpha * cost - score) > rounding + _THREE * (1 + alpha) + _ROUNDING
    ]
    return Check(
        ok=not wrong,
        found=f"{len(rows) - len(wrong)} of {len(rows)} rows",
        expected=f"{len(rows)} rows within the rounding of the three numbers",
        detail=f"so α multiplies the cost as printed, whatever its unit; off: {_listed(wrong)}",
    )


def tables_agree(tables: Tables | None = None) -> Check:
    """RR-3: Table 1 prints what Table 9 has at α = 0, 0.02 and 0.1."""
    tables = tables or published()
    pairs = {}
    for method, (scenario, alpha) in itertools.product(METHODS, SCENARIOS.items()):
        for column, rounding in (("Perf.", _THREE + _FOUR), ("Cost", 0.0)):
            first = value(tables["table-1"], method, f"{scenario} / {column}")
            second = value(tables["table-9"], row_of(method, alpha), column)
            pairs[f"{method}, {scenario}, {column}"] = (first, second, rounding)
    wrong = [f"{where}: {a:g} and {b:g}" for where, (a, b, r) in pairs.items() if abs(a - b) > r + _ROUNDING]
    return Check(
        ok=not wrong,
        found=f"{len(pairs) - len(wrong)} of {len(pairs)} pairs",
        expected=f"{len(pairs)} pairs equal after rounding",
        detail=f"the six methods that both tables have; off: {_listed(wrong)}",
    )


# ------------------------------------------------------------------------------------------------------ lookups


def _own_llms(tables: Tables, alpha: str) -> dict[str, tuple[str, ...]]:
    """Return, for each dataset, the LLMs that have RadialRouter's accuracy at this α."""
    return {m.dataset: m.llms for m in find_matches(tables) if (m.method, m.alpha) == ("RadialRouter", alpha)}


def _tail(probabilities: list[float], at_least: int) -> float:
    """Return P(at least so many successes) of independent trials."""
    law = np.ones(1)
    for p in probabilities:
        law = np.convolve(law, [1 - p, p])
    return float(law[at_least:].sum())


def one_llm(tables: Tables | None = None) -> Check:
    """RR-4: a router that chooses by query mixes LLMs within a dataset, so its accuracy is no single LLM's."""
    found = find_matches(tables)
    chance = {column: chance_of_match(column, tables) for column in DATASETS}
    expected = sum(chance.values()) * len(ALPHAS)
    counts = {m: [x for x in found if x.method == m and x.llms] for m in METHODS}
    own = counts["RadialRouter"]
    tail = _tail([chance[column] for column in DATASETS for _ in ALPHAS], len(own))
    missed = dict.fromkeys(x.dataset for x in found if x.method == "RadialRouter" and not x.llms)
    total = len(ALPHAS) * len(DATASETS)
    return Check(
        ok=tail > 0.001,
        found=f"{len(own)} of {total} accuracies of RadialRouter in Table 9 are one LLM's in Table 7 "
        f"({sum(bool(x.exact) for x in own)} to every digit, {sum(not x.exact for x in own)} but for one in the last)",
        expected=f"about {expected:.1f} of {total} by chance",
        detail="others: "
        + ", ".join(f"{method} {len(counts[method])}" for method in METHODS[:-1])
        + f"; RadialRouter's misses are all on {' and '.join(missed) or 'no dataset'}; by chance an accuracy is one "
        f"LLM's in {min(chance.values()):.1%} to {max(chance.values()):.0%} of cases, most often on MBPP "
        f"with its {questions('MBPP', tables)} questions",
    )


def pools_as_lookups(tables: Tables | None = None) -> Check:
    """RR-11: a router that chooses by query has, on a growing pool, no performance that a chain of lookups has."""
    chain = pool_chain(tables)
    steps = [step for step in chain[1:] if len(step.extending) == 1]
    chance = math.prod(step.expected_extending for step in steps)
    stop = chain[-1]
    return Check(
        ok=not steps or chance > 0.001,
        found="; ".join(
            f"pool {s.size}: {s.fitting} of {s.assignments} lookups fit, {len(s.extending)} extends pool {s.size - 1}"
            for s in steps
        )
        or "no pool is a lookup",
        expected="no chain of lookups that has the printed performance of pool after pool",
        detail="64 lookups could extend the pool before; a performance near the printed one would be fitted by "
        + (", ".join(f"{s.expected_extending:.2f}" for s in steps) or "none")
        + f" of them on average, so the chain has a chance of {chance:.1g}; pool 5 alone would say nothing, as "
        + f"{_expected(chain, 5)} of all its lookups fit by chance; "
        + (f"nothing extends to pool {stop.size}" if len(stop.extending) != 1 else "the chain does not end"),
    )


def _expected(chain: list, size: int) -> str:
    return next((f"{step.expected:.1f}" for step in chain if step.size == size), "some")


def unchanged_pool(tables: Tables | None = None) -> Check:
    """RR-11b: each pool of Table 4 is another router with one LLM more, so its numbers differ from the pool before."""
    table = (tables or published())["table-4"]
    rows = pool_rows(tables)
    columns = ("Performance", "Cost")
    same = [
        size
        for size, (before, after) in enumerate(itertools.pairwise(rows), start=2)
        if all(table[before, column].printed == table[after, column].printed for column in columns)
    ]
    return Check(
        ok=not same,
        found="; ".join(f"pools {size - 1} and {size} agree in every digit" for size in same) or "no two pools agree",
        expected="no two pools agree in performance and cost",
        detail="a router retrained with one LLM more changes no decision of thousands only if it never takes it and "
        "every other decision stands, as in a lookup",
    )


def six_entry_lookup(tables: Tables | None = None, costs: Costs = WINOGRANDE_COSTS) -> Check:
    """RR-13: no lookup of one LLM a dataset scores more than the .757 of the Balance scenario."""
    tables = tables or published()
    alpha = float(SCENARIOS["Balance"])
    start, other = _own_llms(tables, "0.05"), _own_llms(tables, "0.02")
    row = row_of("RadialRouter", "0.05")
    perf, cost = _mean(tables["table-9"], row), value(tables["table-9"], row, "Cost")
    moved = []
    for column in DATASETS:
        if start[column] and other[column] and not set(start[column]) & set(other[column]):
            old, new = start[column][0], other[column][0]
            gain = value(tables["table-9"], row_of("RadialRouter", "0.02"), column)
            gain -= value(tables["table-9"], row, column)
            more = costs[column, new] - costs[column, old]
            if gain > alpha * more:
                perf, cost = perf + gain / len(DATASETS), cost + more / len(DATASETS)
                moved.append(f"{column} from {old} to {new}, {gain - alpha * more:+.3f} there")
    lookup = all(start.values())
    score, headline = perf - alpha * cost, score_at(tables, "RadialRouter", "0.02", alpha)
    return Check(
        ok=not lookup or score <= headline,
        found=f"{score:.4f} (performance {perf:.4f}, cost {cost:.3f})",
        expected=f"at most {headline:.4f}, RadialRouter's own in Balance",
        detail=f"the row α = 0.05 {'is' if lookup else 'is not'} a lookup ({sum(map(bool, start.values()))} of 6 "
        f"accuracies are one LLM's); moved as in the row α = 0.02: {_listed(moved)}; costs on WinoGrande from "
        "RouterBench's test split, as the paper prints means only",
    )


def lead_at_alpha_0(tables: Tables | None = None) -> Check:
    """RR-14: in Performance First RadialRouter "substantially outperforms" the best single LLM of each dataset."""
    tables = tables or published()
    row = row_of("RadialRouter", "0")
    best = {column: max(units(tables["table-7"][llm, column]) for llm in LLMS) for column in DATASETS}
    ahead = {column: units(tables["table-9"][row, column]) - best[column] for column in DATASETS}
    lead = {}
    for column, more in ahead.items():
        number = questions(column, tables)
        if more > 1:
            lead[column] = round(more * number / 10_000) if number else math.inf
    lookup = sum(best.values()) / len(DATASETS) / 10_000
    router_dc = value(tables["table-9"], row_of("RouterDC", "0"), "Perf.")
    said = ", ".join(f"{column} by {n:g} of {questions(column, tables)}" for column, n in lead.items())
    return Check(
        ok=sum(lead.values()) > 1,
        found=f"ahead on {said or 'no dataset'}" + ("" if not lead else " questions"),
        expected="ahead by more than one question in all",
        detail=f"RadialRouter {value(tables['table-9'], row, 'Perf.'):.4f}; the best LLM of each dataset {lookup:.4f}; "
        f"RouterDC {router_dc:.4f}, which {'is' if abs(router_dc - lookup) <= 1e-4 else 'is not'} that lookup; "
        "differences of one in the last digit are left aside",
    )


def pool_against_one(tables: Tables | None = None) -> Check:
    """RR-17: on every pool of Table 4 the router scores at least what the best single LLM of that pool does."""
    tables = tables or published()
    alpha = float(SCENARIOS["Balance"])
    lost = []
    for size, row in enumerate(pool_rows(tables), start=1):
        alone = {
            llm: value(tables["table-7"], llm, "Perf.") - alpha * value(tables["table-7"], llm, "Cost")
            for llm in pool(size, tables)
        }
        llm = max(alone, key=alone.get)
        score = value(tables["table-4"], row, "Score")
        if score + _THREE + _FOUR + alpha * _THREE < alone[llm]:
            lost.append(f"{size} LLMs: {score:.3f} against {alone[llm]:.4f} of {llm} alone")
    return Check(
        ok=not lost,
        found=_listed(lost),
        expected="no pool on which one LLM for everything scores more",
        detail="Table 7's performance less α times its cost, at α = 0.02",
    )


def pool_of_ten(tables: Tables | None = None) -> Check:
    """RR-18: what RadialRouter reaches with ten LLMs (Table 4) is no less than a row of Table 9 that uses only them."""
    tables = tables or published()
    alpha, ten = float(SCENARIOS["Balance"]), set(pool(10, tables))
    used = {column: [llm for llm in llms if llm in ten] for column, llms in _own_llms(tables, "0.05").items()}
    possible = all(used.values())
    score = score_at(tables, "RadialRouter", "0.05", alpha)
    left_out = [f"{llm} on {c}" for c, llms in _own_llms(tables, "0.05").items() for llm in llms if llm not in ten]
    cost = tables["table-9"][row_of("RadialRouter", "0.05"), "Cost"].printed
    printed = value(tables["table-4"], pool_rows(tables)[9], "Score")
    return Check(
        ok=not possible or printed + _THREE + _FOUR + alpha * _THREE >= score,
        found=f"{printed:.3f}",
        expected=f"at least {score:.4f}, the row α = 0.05 at α = 0.02" if possible else "any",
        detail=f"that row {'is' if possible else 'is not'} a lookup among the ten: "
        + "; ".join(f"{column} {' or '.join(llms) or 'none'}" for column, llms in used.items())
        + f"; as accurate, but outside the ten and too dear for that row's cost of {cost}: {_listed(left_out)}",
    )


# ------------------------------------------------------------------------------------------- headline, Random, α


def headline(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """RR-5: +9.2 % and +5.8 % over the baselines, and at least 82.66 % of the Oracle's score."""
    table = (tables or published())["table-1"]
    leads, single, shares, ahead = {}, {}, {}, []
    for scenario in SCENARIOS:
        column = f"{scenario} / Score"
        own = value(table, "RadialRouter", column)
        leads[scenario] = 100 * (own / max(value(table, name, column) for name in BASELINES) - 1)
        if value(table, "Best candidate", column) > max(value(table, name, column) for name in BASELINES):
            ahead.append(scenario)
        single[scenario] = 100 * (own / value(table, "Best candidate", column) - 1)
        shares[scenario] = 100 * own / value(table, "Oracle", column)
    conditions = {f"{percent}% in {name}": round(leads[name], 1) == percent for name, percent in stated.leads}
    conditions[f"{stated.oracle_percent}% of the Oracle"] = round(min(shares.values()), 2) == stated.oracle_percent
    return _check(
        conditions,
        found="; ".join(f"{name} +{leads[name]:.1f}%, {shares[name]:.2f}% of the Oracle" for name in SCENARIOS),
        expected="; ".join(f"{name} +{percent}%" for name, percent in stated.leads)
        + f"; at least {stated.oracle_percent}%",
        detail="the lead is over routers; over the best single LLM for everything it is "
        + ", ".join(f"+{lead:.1f}%" for lead in single.values())
        + f", as that beats every one of them in {' and '.join(ahead) or 'no scenario'}",
    )


def _spread(tables: Tables, draws: int) -> tuple[float, float]:
    """Return the standard errors of the mean performance and cost of uniform draws, one for each question."""
    table = tables["table-7"]
    sizes = {column: questions(column, tables) or 1001 for column in DATASETS}
    accuracy = {column: np.mean([value(table, llm, column) for llm in LLMS]) for column in DATASETS}
    performance = sum(p * (1 - p) / sizes[column] for column, p in accuracy.items())
    cost = np.var([value(table, llm, "Cost") for llm in LLMS]) * sum(1 / n for n in sizes.values())
    return tuple(float(np.sqrt(variance / draws)) / len(DATASETS) for variance in (performance, cost))


def random_row(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """RR-6: Random is the mean of 50 draws of an LLM for each query, so it lies near the mean of the LLMs."""
    tables = tables or published()
    mean = {column: np.mean([value(tables["table-7"], llm, column) for llm in LLMS]) for column in ("Perf.", "Cost")}
    whole = {column: np.std([value(tables["table-7"], llm, column) for llm in LLMS]) for column in mean}
    printed = {column: value(tables["table-1"], "Random", f"Balance / {column}") for column in mean}
    per_query = dict(zip(mean, _spread(tables, stated.random_draws), strict=True))
    off = {c: max(abs(printed[c] - mean[c]) - _THREE, 0.0) for c in mean}
    far = {c: off[c] / per_query[c] for c in mean}
    whole_far = {c: off[c] / (whole[c] / math.sqrt(stated.random_draws)) for c in mean}
    return Check(
        ok=bool(max(far.values()) <= 2),
        found=f"performance {printed['Perf.']:.3f} and cost {printed['Cost']:.3f}, {far['Perf.']:.1f} and "
        f"{far['Cost']:.1f} standard errors away",
        expected=f"{mean['Perf.']:.4f} and {mean['Cost']:.3f}, the means of Table 7, within 2 standard errors",
        detail="standard errors of one draw a query, taken wide: datasets whose number of questions the digits of "
        "Table 7 do not tell have 1,001, each query is as uncertain as its dataset; costs spread as the LLMs' means "
        "do, which is our assumption; if each of the "
        f"{stated.random_draws} draws takes one LLM for everything it is {whole_far['Perf.']:.1f} and "
        f"{whole_far['Cost']:.1f} standard errors",
    )


def own_alpha(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """RR-15: at each α, of RadialRouter's five rows of Table 9 the one trained for that α scores most."""
    tables = tables or published()

    def beaten(method: str) -> dict[str, str]:
        lost = {}
        for alpha in stated.robust_alphas:
            reached = {trained: score_at(tables, method, trained, float(alpha)) for trained in ALPHAS}
            best = max(reached, key=reached.get)
            if reached[best] - reached[alpha] > 2 * (_FOUR + float(alpha) * _THREE):
                lost[alpha] = f"α = {alpha}: its own row {reached[alpha]:.4f}, the row α = {best} {reached[best]:.4f}"
        return lost

    own = beaten("RadialRouter")
    others = [f"{method} at {', '.join(lost)}" for method in METHODS[:-1] if (lost := beaten(method))]
    return Check(
        ok=not own,
        found=_listed(list(own.values())),
        expected="no row beaten at its own α by another row",
        detail="a row that scores more at an α it was not trained for was to be had by choosing among the five; "
        f"other methods: {_listed(others)}",
    )


def same_threshold(tables: Tables | None = None) -> Check:
    """RR-24: two rows of HybridLLM are one policy; then none of its other rows may score more at either α."""
    tables = tables or published()
    columns = (*DATASETS, "Perf.", "Cost")
    rows = {a: tuple(tables["table-9"][row_of("HybridLLM", a), c].printed for c in columns) for a in ALPHAS}
    twins = [(a, b) for a, b in itertools.combinations(ALPHAS, 2) if rows[a] == rows[b]]
    better = [
        f"the row α = {other} at α = {alpha}"
        for alpha, other in itertools.product(dict.fromkeys(itertools.chain(*twins)), ALPHAS)
        if score_at(tables, "HybridLLM", other, float(alpha))
        > score_at(tables, "HybridLLM", alpha, float(alpha)) + 2 * (_FOUR + float(alpha) * _THREE)
    ]
    return Check(
        ok=not better,
        found="; ".join(f"rows α = {a} and α = {b} agree in every digit" for a, b in twins) or "no two rows agree",
        expected="no other row that scores more there",
        detail=f"α only shifts a threshold, so two α can share one; rows that score more: {_listed(better)}",
    )


# -------------------------------------------------------------------------------- misprints and contradictions


def misprint(tables: Tables | None = None) -> Check:
    """RR-7: what Table 7 prints for GPT-4 averages to its Perf., and is what routers have that send it a dataset."""
    tables = tables or published()
    row = "gpt-4-1106-preview"
    mean = _mean(tables["table-7"], row)
    printed = value(tables["table-7"], row, "Perf.")
    near = [m for m in find_matches(tables) if row in m.near and not m.exact]
    cells = dict.fromkeys((m.dataset, m.printed) for m in near)
    impossible = []
    for column in DATASETS:
        if number := questions(column, tables):
            accuracy = units(tables["table-7"][row, column])
            if abs(round(accuracy * number / 10_000) / number * 10_000 - accuracy) > 0.5 + _ROUNDING:
                impossible.append(f"{accuracy / 10_000:.4f} on {column} is no whole number of {number} questions")
    copies = [
        method
        for method in METHODS
        if all(tables["table-9"][row_of(method, "0"), c].printed == tables["table-7"][row, c].printed for c in DATASETS)
    ]
    return _check(
        {
            "the accuracies average to Perf.": abs(mean - printed) <= _FOUR,
            "routers agree with Table 7": not near,
            "every accuracy is possible": not impossible,
        },
        found=f"mean {mean:.5f}; routers print {', '.join(f'{p} on {c}' for c, p in cells) or 'the same'}",
        expected=f"{printed:.4f}; " + ", ".join(f"{tables['table-7'][row, c].printed} on {c}" for c, _ in cells),
        detail=f"{_listed(impossible)}; rows of Table 9 that copy the printed row, misprints included, so were not "
        f"measured apart: {', '.join(copies) or 'none'}",
    )


def without_contrast(tables: Tables | None = None) -> Check:
    """RR-8: Tables 2, 6 (λ = 0) and 8 print one score for RadialRouter without the contrastive loss in Balance."""
    tables = tables or published()
    found = {
        "Table 2": tables["table-2"]["w/o L_q-q", "BA"].printed,
        "Table 8": tables["table-8"]["w/o L_q-q", "Balance / Score"].printed,
        "Table 6": tables["table-6"]["lambda=0", "Score"].printed,
    }
    pairs = [
        f"({tables['table-8']['w/o L_q-q', 'Balance / Perf.'].printed}, "
        f"{tables['table-8']['w/o L_q-q', 'Balance / Cost'].printed}) in Table 8",
        f"({tables['table-6']['lambda=0', 'Performance'].printed}, "
        f"{tables['table-6']['lambda=0', 'Cost'].printed}) in Table 6",
    ]
    return Check(
        ok=len(set(found.values())) == 1,
        found=", ".join(f"{score} in {table}" for table, score in found.items()),
        expected="one score",
        detail=f"performance and cost are {' and '.join(pairs)}: two trainings",
    )


def _policies(tables: Tables) -> dict[str, tuple[float, float, float]]:
    """Return every trained variant of RadialRouter: where, to performance, its rounding and cost."""
    found = {}
    for row in dict.fromkeys(row for row, _ in tables["table-6"]):
        found[row] = (value(tables["table-6"], row, "Performance"), _FOUR, value(tables["table-6"], row, "Cost"))
    for alpha in ALPHAS:
        row = row_of("RadialRouter", alpha)
        found[f"α={alpha}"] = (value(tables["table-9"], row, "Perf."), _FOUR, value(tables["table-9"], row, "Cost"))
    for row in dict.fromkeys(row for row, _ in tables["table-8"] if row != "RadialRouter"):
        for scenario in SCENARIOS:
            perf, cost = (value(tables["table-8"], row, f"{scenario} / {column}") for column in ("Perf.", "Cost"))
            found[f"{row} in {scenario}"] = (perf, _THREE, cost)
    return found


def repeated_policies(tables: Tables | None = None) -> Check:
    """RR-9: every λ of Table 6 is a training of its own, so no two rows agree in performance and cost."""
    policies = _policies(tables or published())

    def equal(a: str, b: str) -> bool:
        (first, r1, cost_1), (second, r2, cost_2) = policies[a], policies[b]
        rounding = 0.0 if r1 == r2 else _THREE + _FOUR
        return abs(first - second) <= rounding + _ROUNDING and abs(cost_1 - cost_2) < _ROUNDING

    # One and the same training by the paper's own account: λ = 0.5 in Balance.
    pairs = [p for p in itertools.combinations(policies, 2) if set(p) != {"lambda=0.5", "α=0.02"} and equal(*p)]
    # The same variant at every α is one constant policy (RR-10), not a coincidence of two.
    pairs = [(a, b) for a, b in pairs if a.split(" in ")[0] != b.split(" in ")[0]]
    within = [f"{a} and {b}" for a, b in pairs if a.startswith("lambda") and b.startswith("lambda")]
    beyond = [f"{a} and {b}" for a, b in pairs if f"{a} and {b}" not in within]
    return Check(
        ok=not within,
        found=_listed(within),
        expected="no two rows of Table 6 alike",
        detail=f"different trainings, one policy, as in a choice among a few lookups; across Tables 6, 8 and 9 "
        f"also: {_listed(beyond)}",
    )


def collapsed(tables: Tables | None = None) -> Check:
    """RR-10: other losses (Tables 2 and 3) train routers, not constants, and not another method's."""
    tables = tables or published()
    alphas = {column: float(SCENARIOS[scenario]) for column, scenario in SHORT.items()}
    llm = {name: (value(tables["table-7"], name, "Perf."), value(tables["table-7"], name, "Cost")) for name in LLMS}
    constants, copies, missed = [], [], []
    for row, column in itertools.product(("RadialRouter w/ L_ce", "RadialRouter w/ L_q-L"), alphas):
        score, alpha = value(tables["table-3"], row, column), alphas[column]
        same = [n for n, (p, c) in llm.items() if abs(p - alpha * c - score) <= _THREE + _FOUR + alpha * _THREE]
        like = [m for m in METHODS[:-1] if value(tables["table-1"], m, f"{SHORT[column]} / Score") == score]
        name = f"{row.split('w/ ')[1]} {column} {score:.3f}"
        constants += [f"{name} = {' or '.join(same)} alone"] if same else []
        copies += [f"{name} = {' or '.join(like)}"] if like else []
        missed += [] if same or like else [name]
    without = {SHORT[c]: value(tables["table-8"], "w/o L_KL", f"{SHORT[c]} / Perf.") for c in SHORT}
    same = [n for n, (p, _) in llm.items() if all(abs(p - perf) <= _THREE + _FOUR for perf in without.values())]
    if same:
        costs = ", ".join(f"{llm[name][1]:.3f}" for name in same)
        cost = value(tables["table-8"], "w/o L_KL", "Balance / Cost")
        constants.append(
            f"without L_KL Perf. {without['Balance']:.3f} = {same[0]} alone, but cost {cost:.3f} for {costs}"
        )
    return Check(
        ok=not constants and not copies,
        found=_listed(constants + copies),
        expected="scores of no single LLM and of no other method",
        detail=f"collapsed or untrained routers make a weak comparison; neither: {_listed(missed)}",
    )


def heads(stated: Stated = STATED) -> Check:
    """RR-16: heads times head width is the hidden width, as Appendix A's d/h needs."""
    inner = stated.heads * stated.head_width
    return Check(
        ok=inner == stated.width,
        found=f"{stated.heads} heads of {stated.head_width} are {inner}",
        expected=f"{stated.width}, so heads of {stated.width // stated.heads}",
        detail="unless attention has an inner width of its own and W_o leads back from it, which we build",
    )


def divergence_terms(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """RR-21: the sum of Eq. (4) has one term an LLM."""
    n = len({row for row, _ in (tables or published())["table-7"]})
    terms = stated.first_llm + n - stated.first_term
    top = math.e / (math.e + n - 1)
    return Check(
        ok=terms == n,
        found=f"{terms} terms",
        expected=f"{n}, one an LLM",
        detail="the predicted distribution comes first, the mode-seeking direction; the target, a softmax of scores "
        f"at temperature 1, is nearly flat: an LLM that alone is right gets {top:.0%}, for {1 / n:.0%} if uniform",
    )


def price_order(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """RR-22: Mistral-7B and GPT-4 have "the highest and lowest cost, respectively" (Section 4.2)."""
    table = (tables or published())["table-7"]
    cost = {llm: value(table, llm, "Cost") for llm in LLMS}
    dearest, cheapest = max(cost, key=cost.get), min(cost, key=cost.get)
    return Check(
        ok=(dearest, cheapest) == (stated.dearest, stated.cheapest),
        found=f"highest {dearest} ({cost[dearest]:.3f}), lowest {cheapest} ({cost[cheapest]:.3f})",
        expected=f"highest {stated.dearest}, lowest {stated.cheapest}",
        detail="the words are swapped if the two names change places; nothing depends on it",
    )


def names(tables: Tables | None = None) -> Check:
    """RR-23: Tables 4, 5 and 7 speak of the same LLMs."""
    tables = tables or published()
    listed = {
        "Table 4": set(pool(len(pool_rows(tables)), tables)),
        "Table 5": {row for row, _ in tables["table-5"]},
        "Table 7": {row for row, _ in tables["table-7"]},
    }
    odd = [
        f"{name} only in {where}"
        for where, llms in listed.items()
        for name in sorted(llms - set.union(*(other for key, other in listed.items() if key != where)))
    ]
    return Check(
        ok=len(set(map(frozenset, listed.values()))) == 1,
        found=_listed(odd),
        expected="no name in one table only",
        detail="Table 5 writes mistral for mixtral; its 47B are Mixtral-8x7B's",
    )


def times(tables: Tables | None = None) -> Check:
    """RR-25: RadialFormer routes faster than Star-Transformer and the standard Transformer (Section 5.2)."""
    table = (tables or published())["table-2"]
    time = {row: cell.value for (row, column), cell in table.items() if column == "Time/ms" and cell.value is not None}
    own = time["RadialRouter"]
    return Check(
        ok=own < time["+ Star-Transformer"] and own < time["+ Transformer"],
        found=", ".join(f"{row} {milliseconds:.1f} ms" for row, milliseconds in time.items()),
        expected="RadialRouter below + Star-Transformer and + Transformer",
        detail=f"fastest: {min(time, key=time.get)}; the batch size (64) and the GPU are implied by Section 4.4 only",
    )
