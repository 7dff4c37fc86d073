"""Checks on UniRoute's own numbers and formulas: one function for each arithmetic claim of `ledger.yaml`.

Every check reads the published cells beside this file and the constants transcribed in `Stated`, each with its place
in the paper; both are parameters, so that a test can change a number and see the outcome change. None uses any data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from routebook.ledger import Cell, Check, read_cells

Table = Mapping[tuple[str, str], Cell]
Tables = Mapping[str, Table]

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Stated:
    """Numbers and forms the paper states in its text; the comment gives the place."""

    openllm_total: int = 20046  # App. I.1
    openllm_parts: tuple[int, ...] = (800, 6014, 13232)  # App. I.1: validation, test, training
    openllm_test_percent: int = 30  # App. I.1
    headlines_total: int = 10_000  # App. G.3: "10K prompts in total"
    headlines_parts: tuple[int, ...] = (4000, 400, 5600)  # App. G.3: training, validation, test
    headlines_llms: int = 12  # App. G.3
    headlines_train_llms: tuple[str, ...] = (  # App. G.3
        "Textsynth FAIRSEQ",
        "OpenAI GPT-4",
        "OpenAI GPT-Curie",
        "Textsynth GPT-Neox",
        "AI21 J1-Large",
        "Cohere Xlarge",
    )
    headlines_test_llms: tuple[str, ...] = (  # App. G.3
        "OpenAI ChatGPT",
        "OpenAI GPT-3",
        "Textsynth GPT-J",
        "AI21 J1-Grande",
        "AI21 J1-Jumbo",
        "Cohere Medium",
    )
    embedllm_llms: int = 112  # Section 6
    test_llm_share: float = 1 / 3  # Section 6: EmbedLLM and SPROUT o3-mini
    unseen_llms_above: int = 30  # Abstract: "30+ unseen LLMs"; Section 6: "> 30 unseen LLMs"
    bandit_dollars: tuple[float, float] = (1.8, 2.0)  # App. I.1: LLM Bandit's operating point, the best LLM
    bandit_percent: int = 90  # App. I.1: "$1.8/$2.0 = 0.9 = 90%"
    embedllm_percents: tuple[int, ...] = (60, 10, 30)  # Section 6: training, validation, test
    static_percents: tuple[tuple[int, ...], ...] = ((60, 10, 30), (40, 10, 50))  # App. G.5: LiveCodeBench, Headlines
    interval_sigmas: float = 2.0  # App. G.2: "two-sigma standard errors"
    interval_percent: int = 96  # App. G.2 and Figure 2 (bottom): "96% confidence intervals"
    validation_sizes: tuple[int, ...] = (400, 800)  # Section 6; App. I.1
    least_clusters: int = 3  # App. G.2: "from 3 to the number of validation sample size, divided by 50"
    prompts_per_cluster: int = 50  # App. G.2
    least_neighbours: int = 5  # App. G.2: "from 5 to one third of the validation sample size"
    neighbour_divisor: int = 3  # App. G.2
    static_grid: tuple[int, ...] = (5, 10, 25, 50, 75, 100, 150, 200, 250, 300)  # App. G.5
    bound_factor: float = 1.0  # Proposition 2, Section 5.3 and App. C.3: E[max Δ], without a factor
    component_weights: str = "prior"  # Eq. (19): π_k, where P(z = k | x) is meant
    monotone_both_ways: bool = True  # Lemma 5: "λ >= λ' if and only if C(r_λ) <= C(r_λ')"
    lowest_budget: str = "zero"  # Proposition 8: B in (0, C(r_0)]
    matfac_shapes: tuple[tuple[str, ...], ...] = (("D", "d"), ("d", "m"), ("D",))  # App. G.2: A · B · φ(x)
    # Nearest neighbours searched when K is chosen (training prompts) and when it is used (validation prompts).
    neighbour_pools: tuple[tuple[str, float, float], ...] = (
        ("EmbedLLM", 60, 10),  # Section 6, in percent
        ("Headlines", 4000, 400),  # App. G.3
        ("OpenLLMv2", 13232, 800),  # App. I.1
    )


STATED = Stated()


@lru_cache(maxsize=1)
def published() -> Tables:
    """Return every published table of the paper, by file name without its ending."""
    folder = Path(__file__).parent / "published"
    return {path.stem: read_cells(path) for path in sorted(folder.glob("*.csv"))}


def row(table: Table, name: str) -> str:
    """Return the one row label that begins with `name`, ignoring the OCR's space in "K -NN"."""
    labels = {label for label, _ in table if label.replace(" -", "-").startswith(name)}
    if len(labels) != 1:
        raise KeyError(f"{name!r} begins {len(labels)} row labels, expected 1")
    return labels.pop()


def value(table: Table, name: str, column: str) -> float | None:
    """Return the number in the row that begins with `name`."""
    return table[row(table, name), column].value


def _check(conditions: Mapping[str, bool], found: str, expected: str, detail: str) -> Check:
    failed = [name for name, holds in conditions.items() if not holds]
    return Check(ok=not failed, found=found, expected=expected, detail=f"{detail}{_failed(failed)}")


def _failed(failed: list[str]) -> str:
    return f"; does not hold: {', '.join(failed)}" if failed else ""


def sizes(stated: Stated = STATED) -> Check:
    """UR-1: the stated split sizes and LLM counts add up."""
    unseen = math.floor(stated.embedllm_llms * stated.test_llm_share)
    test = stated.openllm_total * stated.openllm_test_percent / 100
    llms = {*stated.headlines_train_llms, *stated.headlines_test_llms}
    percents = [stated.embedllm_percents, *stated.static_percents]
    bandit, best = stated.bandit_dollars
    conditions = {
        "OpenLLMv2 parts sum to the total": sum(stated.openllm_parts) == stated.openllm_total,
        "OpenLLMv2 test part is the stated share": abs(stated.openllm_parts[1] - test) <= 0.5,
        "Headlines parts sum to the total": sum(stated.headlines_parts) == stated.headlines_total,
        "Headlines LLM lists are disjoint and complete": len(llms)
        == len(stated.headlines_train_llms) + len(stated.headlines_test_llms)
        == stated.headlines_llms,
        "percentages sum to 100": all(sum(parts) == 100 for parts in percents),
        "LLM Bandit's QNC is the stated ratio": math.isclose(100 * bandit / best, stated.bandit_percent),
        "more unseen LLMs than claimed": unseen > stated.unseen_llms_above,
    }
    return _check(
        conditions,
        found=f"{sum(stated.openllm_parts)}; {test:.1f}; {sum(stated.headlines_parts)}; {len(llms)} LLMs; "
        f"{unseen} unseen; {100 * bandit / best:.0f}%",
        expected=f"{stated.openllm_total}; {stated.openllm_parts[1]}; {stated.headlines_total}; "
        f"{stated.headlines_llms} LLMs; more than {stated.unseen_llms_above} unseen; {stated.bandit_percent}%",
        detail="OpenLLMv2 total and test part, Headlines total and LLMs, unseen EmbedLLM LLMs, LLM Bandit's QNC",
    )


BASELINES = ("ZeroRouter", "K-NN", "Retrained MLP", "Retrained MatFac")
UNIROUTE = ("UniRoute (K-Means)", "UniRoute (LearnedMap)")
DYNAMIC = ("EmbedLLM", "SPROUT o3-mini", "Headlines", "RouterBench", "Math+Code")


def significant_gains(tables: Tables | None = None) -> Check:
    """UR-2: "the gains over baselines being statistically significant" (Section 6), read off the stars of Figure 6."""
    table = (tables or published())["figure-6"]
    unstarred, best = [], {}
    for dataset in DYNAMIC:
        for metric, better in (("Area", max), ("QNC", min)):
            column = f"{dataset} / {metric}"
            scores = {name: value(table, name, column) for name in (*BASELINES, *UNIROUTE)}
            scores = {name: score for name, score in scores.items() if score is not None}
            best[column] = " and ".join(name for name in scores if scores[name] == better(scores.values()))
            if value(table, "UniRoute (LearnedMap)", column) is None:
                continue
            unstarred += [f"{name} on {column}" for name in BASELINES if not table[row(table, name), column].starred]
    lost = [f"{column} (best: {names})" for column, names in best.items() if "UniRoute" not in names]
    total = len(BASELINES) * 2 * sum(value(table, UNIROUTE[1], f"{dataset} / QNC") is not None for dataset in DYNAMIC)
    return Check(
        ok=not unstarred and not lost,
        found=f"{total - len(unstarred)} of {total} baseline cells are starred; "
        f"{len(best) - len(lost)} of {len(best)} columns led by a UniRoute variant",
        expected="every baseline cell starred, every column led (ties count) by a UniRoute variant",
        detail=f"not starred: {'; '.join(unstarred) or 'none'}. Led by a baseline: {'; '.join(lost) or 'none'}. "
        "Oracle rows are left out; stars count only where LearnedMap was run",
    )


def stars_without_reference(tables: Tables | None = None) -> Check:
    """UR-3: a star says "worse than UniRoute (LearnedMap)", so none can stand where LearnedMap has no result."""
    table = (tables or published())["figure-6"]
    reference = row(table, "UniRoute (LearnedMap)")
    without = [column for label, column in table if label == reference and table[label, column].value is None]
    starred = [key for key, cell in table.items() if key[1] in without and cell.starred]
    names = "; ".join(f"{label.split(' (')[0]}, {column}" for label, column in starred)
    return Check(
        ok=not starred,
        found=f"{len(starred)} starred cells{f': {names}' if names else ''}",
        expected="0 starred cells where LearnedMap has no result",
        detail=f"columns without a LearnedMap result: {', '.join(without) or 'none'}; "
        "the stars there may refer to UniRoute (K-Means), which the paper does not say",
    )


def two_sigma(stated: Stated = STATED) -> Check:
    """UR-4: the confidence of a two-sigma interval under a normal law."""
    coverage = 100 * math.erf(stated.interval_sigmas / math.sqrt(2))
    return Check(
        ok=round(coverage) == stated.interval_percent,
        found=f"{coverage:.2f}%",
        expected=f"{stated.interval_percent}%",
        detail=f"coverage of plus or minus {stated.interval_sigmas:g} standard errors under a normal law; "
        "loose wording, nothing depends on it",
    )


def favourable_to_li(tables: Tables | None = None) -> Check:
    """UR-5: UniRoute "performs favourably compared to results from Li (2025)" (Section 6, table of Appendix I.1)."""
    table = (tables or published())["table-i1"]
    bound = value(table, "LLM Bandit", "QNC")
    scores = {label: cell.value for (label, _), cell in table.items() if not label.startswith("LLM Bandit")}
    uniroute = {label: score for label, score in scores.items() if label.startswith("UniRoute")}
    below = [label for label, score in scores.items() if score < bound]
    k_means = value(table, "UniRoute (K-Means)", "QNC")
    better = [label for label in scores if label not in uniroute and scores[label] < k_means]
    return Check(
        ok=all(score < bound for score in uniroute.values()),
        found="; ".join(f"{label} {score:g}%" for label, score in uniroute.items()),
        expected=f"below {bound:g}% (printed as a lower bound, read off a figure of Li)",
        detail=f"{len(below)} of {len(scores)} rows lie below that bound, ZeroRouter "
        f"{'among them' if row(table, 'ZeroRouter') in below else 'not'}, so being below it says little; "
        f"baselines better than K-Means: {', '.join(better) or 'none'}; no interval is given",
    )


def static_against_dynamic(tables: Tables | None = None) -> Check:
    """UR-6: on Math+Code all four LLMs are test LLMs in both settings, so more labels should not give less area."""
    tables = tables or published()
    static, dynamic = tables["table-1"], tables["figure-6"]
    pairs = {
        "ZeroRouter": "ZeroRouter",
        "K-NN": "K-NN",
        "UniRoute (K-Means)": "UniRoute (K-Means)",
        "MLP": "Clairvoyant MLP",
    }
    areas = {
        name: (value(static, name, "Math+Code"), value(dynamic, other, "Math+Code / Area"))
        for name, other in pairs.items()
    }
    return _check(
        {
            f"{name} static {first:.3f} >= dynamic {second:.3f}": first >= second
            for name, (first, second) in areas.items()
        },
        found=f"{sum(first < second for first, second in areas.values())} of {len(areas)} methods lower in Table 1",
        expected="0 methods lower",
        detail="the static setting labels the training prompts too (MLP: the same prompts as the clairvoyant MLP); "
        "other splits, trials or another area normalisation could explain it, none is stated",
    )


def static_setting(tables: Tables | None = None) -> Check:
    """UR-7: in the static setting UniRoute is "comparable to most baselines" and the MLP "often" has an edge (G.5)."""
    table = (tables or published())["table-1"]
    datasets = list(dict.fromkeys(column for _, column in table))
    baselines = ("ZeroRouter", "MLP", "Matrix Factorization", "K-NN")
    mlp_leads, kept = [], {}
    for dataset in datasets:
        scores = {name: value(table, name, dataset) for name in (*baselines, *UNIROUTE)}
        if scores["MLP"] == max(scores.values()):
            mlp_leads.append(dataset)
        best = max(scores[name] for name in baselines)
        kept[dataset] = (max(scores[name] for name in UNIROUTE) - scores["ZeroRouter"]) / (best - scores["ZeroRouter"])
    lowest = min(kept, key=kept.get)
    weakest = min((*baselines[1:], *UNIROUTE), key=lambda name: value(table, name, "Math+Code"))
    return _check(
        {
            "MLP leads on at least half of the datasets": 2 * len(mlp_leads) >= len(datasets),
            "UniRoute keeps three quarters of the best baseline's lead over ZeroRouter": kept[lowest] >= 0.75,
        },
        found=f"MLP leads on {len(mlp_leads)} of {len(datasets)} ({', '.join(mlp_leads)}); "
        f"the better UniRoute variant keeps at least {kept[lowest]:.0%} of the best lead over ZeroRouter ({lowest})",
        expected="MLP leads on at least half; UniRoute keeps at least 75% everywhere (our reading of 'comparable')",
        detail=f"lowest of the learned routers on Math+Code: {weakest} ({value(table, weakest, 'Math+Code'):.3f}); "
        "bold and shading of the table are lost in its text version",
    )


def grids(stated: Stated = STATED) -> Check:
    """UR-8: the candidate lists of Appendix G.2 hold at least two values each, or there is nothing to choose."""
    tops = {
        size: (size // stated.prompts_per_cluster, size // stated.neighbour_divisor) for size in stated.validation_sizes
    }
    clusters = {size: top - stated.least_clusters + 1 for size, (top, _) in tops.items()}
    neighbours = {size: top - stated.least_neighbours + 1 for size, (_, top) in tops.items()}
    shared = {
        size: [k for k in stated.static_grid if stated.least_clusters <= k <= top] for size, (top, _) in tops.items()
    }
    return _check(
        {f"two or more candidates at {size}": min(clusters[size], neighbours[size]) >= 2 for size in tops},
        found="; ".join(
            f"{size} prompts: K up to {top}, neighbours up to {near}" for size, (top, near) in tops.items()
        ),
        expected="at least two candidates for both",
        detail="RouterBench, SPROUT and Headlines (400 validation prompts) can have at most "
        f"{tops[min(tops)][0]} clusters; of the static setting's grid (Appendix G.5) only "
        f"{', '.join(map(str, shared[min(tops)])) or 'none'} would be allowed there",
    )


# ------------------------------------------------------------------------------------------ Section 5.3, Appendix C


@dataclass(frozen=True)
class Mixture:
    """A discrete routing problem with latent components, as in Section 5.3.

    Attributes
    ----------
    prompt : ndarray, [X]
        P(x).
    component : ndarray, [X, K]
        P(z = k | x).
    error : ndarray, [X, K, N]
        P(LLM n errs | x, z = k).
    """

    prompt: np.ndarray
    component: np.ndarray
    error: np.ndarray

    @property
    def prior(self) -> np.ndarray:
        """π_k = P(z = k), [K]."""
        return self.prompt @ self.component

    @property
    def cluster_error(self) -> np.ndarray:
        """Ψ*_k(h_n), the error of LLM n given component k, [K, N]."""
        joint = self.prompt[:, None] * self.component
        return np.einsum("xk,xkn->kn", joint, self.error) / self.prior[:, None]

    @property
    def prompt_error(self) -> np.ndarray:
        """P(LLM n errs | x), [X, N]."""
        return np.einsum("xk,xkn->xn", self.component, self.error)

    @property
    def excess_risk(self) -> float:
        """Risk of rule (13) less that of rule (7), all LLMs at one price so that λ does not matter."""
        proxy = (self.component @ self.cluster_error).argmin(axis=1)
        rows = np.arange(len(self.prompt))
        return float(self.prompt @ (self.prompt_error[rows, proxy] - self.prompt_error.min(axis=1)))

    @property
    def discrepancy(self) -> float:
        """E_x[max over n, k of Δ_k(x, h_n)], the maximum taken over components that x can belong to."""
        delta = np.abs(self.error - self.cluster_error).max(axis=2)
        return float(self.prompt @ np.where(self.component > 0, delta, 0.0).max(axis=1))


def mixtures(hard: bool, n_problems: int = 300, seed: int = 0) -> Iterator[Mixture]:
    """Draw small problems: up to 6 prompts, 3 components, 4 LLMs; `hard` puts each prompt in one component."""
    rng = np.random.default_rng(seed)
    for _ in range(n_problems):
        x, k, n = rng.integers(2, 7), rng.integers(1, 4), rng.integers(2, 5)
        component = rng.dirichlet(np.full(k, 0.7), size=x)
        if hard:
            # Each component gets a prompt, as Ψ* of an empty one is undefined.
            k = min(k, x)
            component = np.eye(k)[np.r_[np.arange(k), rng.integers(0, k, x - k)]]
        yield Mixture(rng.dirichlet(np.ones(x)), component, rng.random((x, k, n)))


def soft_counterexample() -> Mixture:
    """Return two prompts, two overlapping components and two LLMs for which rule (13) errs on both prompts.

    Found by linear programming over the error probabilities and then rounded: LLM 0 almost always errs on the first
    prompt and LLM 1 on the second, yet their errors per component are nearly equal and point the other way.
    """
    first = np.array([[1.0, 0.89], [0.092, 0.0]])
    return Mixture(
        prompt=np.array([0.5, 0.5]),
        component=np.array([[0.5, 0.5], [0.6, 0.4]]),
        error=np.stack([first, 1.0 - first], axis=2),
    )


def excess_risk_bound(stated: Stated = STATED) -> Check:
    """UR-9: Proposition 2 bounds the excess risk by E[max Δ], its proof by twice that."""
    example = soft_counterexample()

    def largest(problems: Iterator[Mixture]) -> float:
        return max(p.excess_risk / p.discrepancy for p in problems if p.discrepancy > 0)

    hard, soft = largest(mixtures(hard=True)), largest(mixtures(hard=False))
    worst = example.excess_risk / example.discrepancy
    return _check(
        {
            f"bound with factor {stated.bound_factor:g} for hard clusters": hard <= stated.bound_factor + _ROUNDING,
            f"bound with factor {stated.bound_factor:g} for overlapping components": max(soft, worst)
            <= stated.bound_factor + _ROUNDING,
            "bound with factor 2, as proved": max(hard, soft, worst) <= 2 + _ROUNDING,
        },
        found=f"excess risk up to {max(hard, soft, worst):.2f} times E[max Δ]: {example.excess_risk:.3f} against "
        f"{example.discrepancy:.3f} on two prompts",
        expected=f"at most {stated.bound_factor:g} times E[max Δ]",
        detail=f"random problems reach {hard:.2f} (hard clusters) and {soft:.2f} (overlapping components); the proof's "
        "last line has the factor 2",
    )


def mixture_weights(stated: Stated = STATED) -> Check:
    """UR-10: Eq. (19) weighs components by π_k; P(y ≠ h | x) is their mean under P(z = k | x)."""
    errors = []
    for problem in mixtures(hard=False):
        weights = problem.component
        if stated.component_weights == "prior":
            weights = np.broadcast_to(problem.prior, weights.shape)
        mean = np.einsum("xk,xkn->xn", weights, problem.error)
        errors.append(float(np.abs(mean - problem.prompt_error).max()))
    return Check(
        ok=max(errors) < _ROUNDING,
        found=f"off by up to {max(errors):.2f}",
        expected="off by 0",
        detail=f"{len(errors)} random mixtures; with P(z = k | x) in place of π_k the step, and Lemma C.3, hold",
    )


def _optimal_cost(loss: np.ndarray, cost: np.ndarray, lam: float) -> float:
    """Return C(r_λ), the mean cost of the optimal rule (Lemma 3) with every prompt equally likely."""
    return float(cost[(loss + lam * cost).argmin(axis=1)].mean())


def _pools(n_pools: int = 100, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draw expected losses [20, 4] and costs [4] of small pools."""
    rng = np.random.default_rng(seed)
    for _ in range(n_pools):
        yield rng.random((20, 4)), rng.uniform(0.5, 2.0, 4)


def cost_monotone(stated: Stated = STATED) -> Check:
    """UR-11: Lemma 5 says λ >= λ' if and only if C(r_λ) <= C(r_λ')."""
    lams = np.linspace(0.0, 2.0, 21)
    forward = backward = 0
    for loss, cost in _pools():
        costs = np.array([_optimal_cost(loss, cost, lam) for lam in lams])
        cheaper = costs[:, None] <= costs[None, :] + 1e-12
        larger = lams[:, None] >= lams[None, :]
        forward += int((larger & ~cheaper).sum())
        backward += int((cheaper & ~larger).sum())
    conditions = {"λ >= λ' implies C(r_λ) <= C(r_λ')": forward == 0}
    if stated.monotone_both_ways:
        conditions["C(r_λ) <= C(r_λ') implies λ >= λ'"] = backward == 0
    return _check(
        conditions,
        found=f"{forward} pairs against 'if λ >= λ' then', {backward} against the converse",
        expected="0 and 0" if stated.monotone_both_ways else "0 against 'if λ >= λ' then'",
        detail="100 random pools, 21 values of λ; where C is flat the converse fails. Monotonicity, the part that is "
        "used, holds",
    )


def budget_range(stated: Stated = STATED) -> Check:
    """UR-12: Proposition 8 claims a multiplier for every budget in (0, C(r_0)]."""
    unmet, total = 0, 0
    for loss, cost in _pools():
        lowest = 0.0 if stated.lowest_budget == "zero" else float(cost.min())
        budgets = np.linspace(lowest, _optimal_cost(loss, cost, 0.0), 12)[1:]
        # The cheapest that any rule can be is what the rule with λ towards infinity costs.
        unmet += int((budgets < _optimal_cost(loss, cost, 1e9) - 1e-12).sum())
        total += len(budgets)
    return Check(
        ok=unmet == 0,
        found=f"{unmet} of {total} budgets lie below the cheapest rule",
        expected="0",
        detail="a budget below the cheapest LLM's cost can be met by no router; the interval should begin there",
    )


# -------------------------------------------------------------------------------------------------- Appendices D, G


def _on_hull(points: np.ndarray) -> np.ndarray:
    """Mask of the points [N, 2] of (cost, risk) on the lower-left hull: no mixture is as cheap and has less risk."""
    on = np.ones(len(points), dtype=bool)
    for i, (cost, risk) in enumerate(points):
        for a_cost, a_risk in points:
            for b_cost, b_risk in points:
                if a_cost <= cost <= b_cost and a_cost < b_cost:
                    share = (cost - a_cost) / (b_cost - a_cost)
                    on[i] &= risk <= a_risk + share * (b_risk - a_risk) + 1e-12
            if a_cost <= cost:
                on[i] &= risk <= a_risk + 1e-12
    return on


def _dominated(points: np.ndarray) -> np.ndarray:
    """Mask of the points for which one other point is no worse in both coordinates and better in one."""
    no_worse = (points[None, :, :] <= points[:, None, :]).all(axis=2)
    better = (points[None, :, :] < points[:, None, :]).any(axis=2)
    return (no_worse & better).any(axis=1)


# (cost, risk) of three LLMs: the second costs less than the third and errs less than the first, yet a mixture of those
# two beats it.
HULL_EXAMPLE = ((1.0, 0.5), (2.0, 0.45), (3.0, 0.1))


def hull_membership(points: tuple[tuple[float, float], ...] = HULL_EXAMPLE) -> Check:
    """UR-13: the proof of Proposition 9 takes "not on the hull" to mean "dominated by one LLM"."""
    example = np.array(points)
    between = ~_on_hull(example) & ~_dominated(example)
    rng = np.random.default_rng(0)
    off_hull = 0
    for _ in range(100):
        pool = rng.random((6, 2))
        chosen = [(pool[:, 1] + lam * pool[:, 0]).argmin() for lam in rng.exponential(2.0, 20)]
        off_hull += int((~_on_hull(pool)[chosen]).sum())
    return _check(
        {
            "every point off the hull is dominated by one LLM (the proof's step)": not between.any(),
            "rule (20) returns LLMs on the hull (the claim)": off_hull == 0,
        },
        found=f"{int(between.sum())} of {len(example)} points lie off the hull undominated; "
        f"rule (20) left the hull {off_hull} times in 2000",
        expected="0 and 0",
        detail="(cost, risk) " + ", ".join(f"({c:g}, {r:g})" for c, r in points) + "; the claim is true, as "
        "a minimiser of a linear function lies on the hull, but not by this step",
    )


def _product(shapes: tuple[tuple[str, ...], ...]) -> tuple[str, ...] | None:
    """Return the shape of a matrix product, None where inner dimensions differ."""
    result = shapes[0]
    for shape in shapes[1:]:
        if result[-1] != shape[0]:
            return None
        result = (*result[:-1], *shape[1:])
    return result


def matfac_shapes(stated: Stated = STATED) -> Check:
    """UR-19: the scores A · B · φ(x) of the clairvoyant matrix factorisation (Appendix G.2)."""
    product = _product(stated.matfac_shapes)
    shown = " · ".join("(" + " x ".join(shape) + ")" for shape in stated.matfac_shapes)
    a, b, phi = stated.matfac_shapes
    transposed = _product((b[::-1], a[::-1], phi))
    return Check(
        ok=product == ("m",),
        found="undefined" if product is None else "(" + " x ".join(product) + ")",
        expected="(m): one score for each of the m test LLMs",
        detail=f"{shown} as printed; B' · A' · φ gives "
        f"{'(' + ' x '.join(transposed) + ')' if transposed else 'nothing either'}; "
        "the text calls the number of LLMs m and N in turn",
    )


def neighbour_density(stated: Stated = STATED) -> Check:
    """UR-16: K of K-NN is chosen with neighbours in the training set and used with neighbours in the validation set."""
    ratios = {name: train / validation for name, train, validation in stated.neighbour_pools}
    return _check(
        {f"{name}: one density": ratio == 1 for name, ratio in ratios.items()},
        found="; ".join(f"{name} {ratio:.1f}" for name, ratio in ratios.items()),
        expected="1 (the K chosen is used on as many prompts as it was chosen on)",
        detail="training prompts for each validation prompt, where the paper gives both; "
        "the K best among many neighbours is not the K best among few",
    )


def arena_quality_neutral_cost(tables: Tables | None = None) -> Check:
    """UR-22: only K-means (Attributes) "can reach the performance of the most accurate model" (G.4, Figure 7)."""
    table = (tables or published())["figure-7"]
    methods = list(dict.fromkeys(label for label, _ in table))
    finite = [name for name in methods if math.isfinite(table[name, "QNC"].value)]
    peaks = {name: table[name, "Peak Acc."].value for name in methods}
    reached = min((peaks[name] for name in finite), default=math.inf)
    areas = {name: table[name, "Area"].value for name in methods}
    return _check(
        {
            "only K-means (Attributes) has a finite QNC": finite == ["K-means (Attributes)"],
            "it peaks above every method with an infinite one": all(
                peaks[name] < reached for name in methods if name not in finite
            ),
            "a finite QNC is a fraction in (0, 1]": all(0 < table[name, "QNC"].value <= 1 for name in finite),
        },
        found="; ".join(f"{name} QNC {table[name, 'QNC'].printed}, peak {peaks[name]:g}%" for name in methods),
        expected="one finite QNC, at the highest peak",
        detail=f"QNC is a fraction here and a percentage in Figure 6; K-NN has less area than the Pareto-random router "
        f"({areas['K-NN']:.3f}, {areas['Pareto-random router']:.3f}) "
        f"although its peak is {'higher' if peaks['K-NN'] > peaks['Pareto-random router'] else 'no higher'}",
    )
