"""Checks on SemiRouter's own numbers: one function for each arithmetic claim of `ledger.yaml`.

Every check reads the published cells beside this file and the constants transcribed in `Stated`, each with its place
in the paper; both are parameters, so that a test can change a number and see the outcome change. Those that compare
with RouterBench take its accuracies or costs as an argument (`cells`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from replications.semirouter.cells import (
    ATT,
    EMB,
    FULL_DATA,
    GPT_4_COST,
    GPT_4_MEAN_COST,
    LLMS,
    LOSSES,
    MLP,
    ROUTERBENCH_ACCURACY,
    SEVEN,
    SIX,
    Accuracies,
    Table,
    Tables,
    published,
    rows,
    slug,
    value,
)
from routebook.ledger import Cell, Check

_ROUNDING = 1e-9
# Two-sided 95 % of a normal law.
_Z = 1.96
# Parameters of bert-base-uncased with its pooler; not printed in the paper.
BERT_PARAMETERS = 109_482_240


@dataclass(frozen=True)
class Stated:
    """Numbers and words of the paper's text; the comment gives the place."""

    quality_weight: float = 0.6  # Eq. (10)
    llms: int = 7  # Section 5.1: "7 diverse large language models"
    anchors: tuple[str, ...] = ("GPT-4", "GPT-3.5", "Mistral-7B")  # Appendix B
    datasets: tuple[str, ...] = (*SIX, "abstract2title", "bias_detection")  # Section 5.1; Table 1 spells them so
    official_sizes: tuple[
        tuple[str, int], ...
    ] = (  # public test splits; WinoGrande's answers are public in its dev set
        ("ARC", 1172),
        ("MBPP", 500),
        ("WinoGrande", 1267),
    )
    input_width: int = 1600  # Appendix C.3: "1600-dimensional concatenated input"
    query_width: int = 1536  # Appendix C.3: "1536-dimensional embeddings"
    id_width: int = 64  # Appendix C.3: "64-dimensional LLM identity embedding"
    model_width: int = 128  # Appendix C.3: "learnable 128-dimensional model vector"
    hidden: tuple[int, int] = (512, 256)  # Appendix C.3: "size 512 followed by a second hidden layer of size 256"
    feature_width: int = 768  # Appendix C.2: "pooled 768-dimensional outputs"
    path_share: int = 2  # Section 5.2: "about 2% of the parameter size of the backbone", percent
    emb_reduction: int = 18  # Appendix C.3: "an 18% reduction", percent
    attention_share: int = 50  # Section 5.2: "approximately half of the training parameters of the backbone"
    eq_9_contrast: Callable[[float], float] = lambda lam: lam  # Eq. (9): (1 - λ) L_p + λ L_c
    algorithm_contrast: Callable[[float], float] = lambda lam: 1 - lam  # Algorithm 1, line 12: (1 - λ) L_contrastive
    used_lambda: float = 0.5  # Section 5.1
    recommended: tuple[float, float] = (0.1, 0.3)  # Section 5.2: "λ in [0.1, 0.3] works consistently well"
    swept: tuple[float, float] = (0.2, 0.5)  # Section 5.2
    lambda_below: float = 5.0  # Section 5.2: "λ < 5"
    margin: float = 0.1  # Eq. (4); no number is given, 0.1 is our choice
    labels: tuple[float, ...] = (1.0, 0.5, 0.0)  # Section 3.1: good, fair, bad
    gpt_35_wh: float = 0.2  # Section 3.2
    gpt_4o_in_gpt_35: float = 2.0  # Section 3.2: "half of the value of GPT-4o"
    openai_average_wh: float = 0.3  # Section 3.2


STATED = Stated()


def _check(conditions: Mapping[str, bool], found: str, expected: str, detail: str) -> Check:
    failed = [name for name, holds in conditions.items() if not holds]
    return Check(not failed, found, expected, detail + (f"; does not hold: {', '.join(failed)}" if failed else ""))


def _listed(items: Iterable[str]) -> str:
    return "; ".join(items) or "none"


# ------------------------------------------------------------------------------------------ what the digits tell


def prints_as(cell: Cell, share: float) -> bool:
    """Whether a share, in the unit of a cell, prints as the cell does, rounded or cut to its digits."""
    unit = 10.0**-cell.decimals
    above = share - float(cell.value or 0)
    return abs(above) <= unit / 2 + _ROUNDING or 0 <= above < unit - _ROUNDING


def fits(cells: Sequence[Cell], whole: int) -> bool:
    """Whether every cell prints a whole number of `whole` parts; cells in percent or as fractions."""
    for cell in cells:
        scale = 100.0 if cell.unit.startswith("%") else 1.0
        nearest = math.floor(float(cell.value or 0) * whole / scale)
        if not any(prints_as(cell, scale * k / whole) for k in (nearest, nearest + 1)):
            return False
    return True


def qualities(dataset: str, tables: Tables) -> list[Cell]:
    """Return every quality that Tables 3 and 4 print for a dataset."""
    found = [tables["table-3"][dataset, f"{name} / Quality"] for name in LOSSES.values()]
    return found + [cell for cell in tables["table-4"].values() if cell.dataset == dataset]


def queries_told(dataset: str, tables: Tables | None = None) -> int | None:
    """Return the smallest number of queries of which every printed quality is a fraction; None if more than 1,000.

    With nine qualities of four digits a number below 1,000 fits them by chance once in thousands.
    """
    cells = qualities(dataset, tables or published())
    return next((n for n in range(50, 1001) if fits(cells, n)), None)


# Larger sets have too few digits for `queries_told`. HellaSwag and MMLU: the sizes next to those Table 3's costs imply
# (`fit_scores`) that fit all nine qualities, 30 % of 10,042 and 14,042; the tests recompute both.
LARGE = {"HellaSwag": 3013, "MMLU": 4212}


def _sizes(tables: Tables) -> dict[str, int]:
    """Return the number of test queries of each dataset that the digits tell."""
    told = {dataset: queries_told(dataset, tables) for dataset in SIX if dataset not in LARGE}
    return {dataset: n for dataset, n in told.items() if n is not None} | LARGE


def sampling_error(percent: float, n: int) -> float:
    """Return the standard error of a share of n queries, both in percent."""
    return 100 * math.sqrt(percent / 100 * (1 - percent / 100) / n)


# --------------------------------------------------------------------------------------------- Table 3 and Eq. (10)


@dataclass(frozen=True)
class ScoreFit:
    """The weight of quality in Score, and what each dataset's cost is divided by, that fit Table 3 best.

    Attributes
    ----------
    weight
        w of Score = w Quality - 100 Cost / |X|, quality and score in percent.
    sizes
        |X| by dataset; infinite where the fit gives cost no weight.
    residual
        Largest distance of a printed score from the fit.
    """

    weight: float
    sizes: dict[str, float]
    residual: float


def fit_scores(tables: Tables | None = None, weight: float | None = None) -> ScoreFit:
    """Search the weight of quality in Eq. (10), and |X| of each dataset, that make the largest residual smallest.

    Score = w Quality - a Cost is linear in w and each dataset's a = 100 / |X| >= 0, so the search is a linear program
    and its minimum is the global one.

    Parameters
    ----------
    weight
        Fixes the weight; by default it is searched between 0 and 1.
    """
    from scipy.optimize import linprog

    table = (tables or published())["table-3"]
    printed = {
        (dataset, loss): [value(table, dataset, f"{name} / {column}") for column in ("Quality", "Cost", "Score")]
        for dataset, (loss, name) in itertools.product(SIX, LOSSES.items())
    }
    above, bound = [], []
    for (dataset, _), (quality, cost, score) in printed.items():
        row = [quality, *(-cost * (d == dataset) for d in SIX)]
        above += [[*row, -1.0], [*(-x for x in row), -1.0]]
        bound += [score, -score]
    limits = [(0, 1) if weight is None else (weight, weight), *[(0, None)] * (len(SIX) + 1)]
    solved = linprog([0.0] * (len(SIX) + 1) + [1.0], A_ub=above, b_ub=bound, bounds=limits, method="highs")
    w, *slopes, _ = solved.x
    slope = dict(zip(SIX, slopes, strict=True))
    residual = max(abs(w * q - slope[dataset] * c - s) for (dataset, _), (q, c, s) in printed.items())
    sizes = {d: 100 / a if a > _ROUNDING else math.inf for d, a in slope.items()}
    return ScoreFit(weight=float(w), sizes=sizes, residual=float(residual))


def _cost_term(table: Table, dataset: str, loss: str, weight: float) -> float:
    """Return what Eq. (10) leaves for the cost of a query, in percentage points."""
    return weight * value(table, dataset, f"{loss} / Quality") - value(table, dataset, f"{loss} / Score")


def score_weight(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """SR-1: Score = 0.6 Quality - Cost / |X| in every row of Table 3 (Eq. 10)."""
    tables = tables or published()
    at, best = fit_scores(tables, stated.quality_weight), fit_scores(tables)
    # Half a unit in the last digit of the score, and of the quality times its weight.
    rounding = 0.005 * (1 + stated.quality_weight)
    negative = {
        f"{dataset} by {-left:.3f}"
        for dataset, name in itertools.product(SIX, LOSSES.values())
        for left in [_cost_term(tables["table-3"], dataset, name, stated.quality_weight)]
        if left < -rounding
    }
    known = _sizes(tables)
    sizes = "; ".join(
        f"{d} {best.sizes[d]:.4g}" + (f" (its qualities say {known[d]})" if d in known else "") for d in SIX
    )
    return Check(
        ok=at.residual <= rounding,
        found=f"at {stated.quality_weight:g} a score is off by {at.residual:.3f} whatever |X| is; "
        f"at {best.weight:.3f} by {best.residual:.4f} at most",
        expected=f"off by no more than the digits' {rounding:.3f}",
        detail=f"{stated.quality_weight:g} Quality - Score, which is the cost of a query, is negative: "
        f"{_listed(sorted(negative))}; |X| that fit with {best.weight:.3f}: {sizes}; an |X| of 100 divides a cost by "
        "nothing once both are in percent (GSM8K), one of a tenth means a cost column ten times too small (ARC)",
    )


def best_scores(tables: Tables | None = None) -> Check:
    """SR-21: the combined loss has the best score on more datasets than any other; bold marks the best scores."""
    table = (tables or published())["table-3"]
    alone, tied, unmarked = dict.fromkeys(LOSSES, 0), dict.fromkeys(LOSSES, 0), []
    for dataset in SIX:
        score = {loss: table[dataset, f"{name} / Score"] for loss, name in LOSSES.items()}
        best = [loss for loss in LOSSES if score[loss].value == max(cell.value for cell in score.values())]
        for loss in best:
            (alone if len(best) == 1 else tied)[loss] += 1
        if [loss for loss in LOSSES if "bold" in score[loss].note] != best:
            unmarked.append(dataset)
    others = max(alone[loss] for loss in LOSSES if loss != "full")
    return _check(
        {"the combined loss is best on most": alone["full"] > others, "bold is where the best is": not unmarked},
        found=", ".join(f"{loss} {alone[loss]} and {tied[loss]} tied" for loss in LOSSES),
        expected="full best on more datasets than anchor and div",
        detail=f"full leads anchor by {alone['full'] - alone['anchor']} of {len(SIX)} datasets, one seed, no interval",
    )


def official_splits(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """SR-25: the test sets are the official ones, so printed qualities are fractions of their sizes."""
    tables = tables or published()
    official = dict(stated.official_sizes)
    cells = {dataset: qualities(dataset, tables) for dataset in official}
    wrong = [dataset for dataset, n in official.items() if not fits(cells[dataset], n)]
    read = {dataset: queries_told(dataset, tables) for dataset in official}
    large = [f"{d} {n:,}" for d, n in LARGE.items() if fits(qualities(d, tables), n)]
    return Check(
        ok=not wrong,
        found="; ".join(
            f"all {len(cells[d])} of {d} are fractions of {n or 'no number to 1,000'}" for d, n in read.items()
        ),
        expected="; ".join(f"{n:,} on {dataset}" for dataset, n in official.items()),
        detail=f"no fractions of the official size: {_listed(wrong)}; the sizes are 30 % of RouterBench's sets, a "
        f"random draw, as are those that fit the larger ones: {', '.join(large) or 'none'}",
    )


def cost_below_all_gpt_4(
    tables: Tables | None = None, costs: Mapping[str, float] = GPT_4_COST, mean_cost: float = GPT_4_MEAN_COST
) -> Check:
    """SR-26: no routing costs more than sending every query to GPT-4, the dearest LLM of the pool.

    Parameters
    ----------
    costs
        Mean dollars of 1,000 prompts of GPT-4, for the datasets where it is known.
    mean_cost
        The mean of the same over the six datasets; what the known ones leave of it bounds each of the others.
    """
    tables = tables or published()
    left = mean_cost * len(SIX) - sum(costs.values())
    sizes, over, said = _sizes(tables), [], []
    for dataset, n in sizes.items():
        top = costs.get(dataset, left) * n / 1000
        printed = max(value(tables["table-3"], dataset, f"{name} / Cost") for name in LOSSES.values())
        said.append(f"{dataset} {printed:g} against {'' if dataset in costs else 'at most '}{top:.2f}")
        if printed > top:
            over.append(dataset)
    return Check(
        ok=not over,
        found=_listed(said),
        expected="every dearest row of Table 3 below all on GPT-4, in dollars",
        detail=f"dearer than all on GPT-4: {_listed(over)}; so the unit, which is not given, is not dollars, or the "
        "column is inflated; GPT-4's costs from RouterBench, where a dataset is missing bounded by the mean over six",
    )


# --------------------------------------------------------------------------------------------------------- Table 1


def _accuracy(tables: Tables, row: str, dataset: str) -> float:
    return value(tables["table-1"], row, dataset)


def leads(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """SR-9: without augmentation EMB alone is most accurate on most datasets of Table 1."""
    tables = tables or published()
    others = [row for row in rows(tables["table-1"]) if row not in (FULL_DATA, EMB)]
    outcome: dict[str, list[str]] = {"alone best": [], "tied": [], "beaten": []}
    for dataset in stated.datasets:
        own = _accuracy(tables, EMB, dataset)
        best = max(_accuracy(tables, row, dataset) for row in others)
        outcome["alone best" if own > best else "tied" if own == best else "beaten"].append(dataset)
    mean = {
        row: np.mean([_accuracy(tables, row, dataset) for dataset in stated.datasets])
        for row in rows(tables["table-1"])
    }
    return Check(
        ok=len(outcome["alone best"]) > len(stated.datasets) / 2,
        found="; ".join(f"{how} on {len(where)} ({', '.join(where) or '-'})" for how, where in outcome.items()),
        expected=f"alone best on more than {len(stated.datasets) / 2:g} of {len(stated.datasets)}",
        detail="means over all: "
        + ", ".join(
            f"{row.split(' (')[0] if row not in (EMB, MLP) else row} {m:.2f}"
            for row, m in sorted(mean.items(), key=lambda item: -item[1])
        ),
    )


def leads_beyond_sampling_error(tables: Tables | None = None) -> Check:
    """SR-9b: where EMB is ahead of a method without augmentation, by more than 1.96 standard errors of its accuracy."""
    tables = tables or published()
    ahead, beyond, within_rows = 0, [], []
    for dataset, n in _sizes(tables).items():
        own = _accuracy(tables, EMB, dataset)
        band = _Z * sampling_error(own, n)
        close = 0
        for row in rows(tables["table-1"]):
            lead = own - _accuracy(tables, row, dataset)
            close += row != EMB and abs(lead) <= band
            if row not in (EMB, FULL_DATA) and lead > 0:
                ahead += 1
                beyond += [f"{row.split(' (')[0]} on {dataset}"] * (lead > band)
        within_rows.append(f"{dataset} {close} of {len(rows(tables['table-1'])) - 1} (± {band:.1f} points, n = {n:,})")
    return Check(
        ok=len(beyond) == ahead,
        found=f"{len(beyond)} of {ahead} leads: {_listed(beyond)}",
        expected=f"all {ahead}",
        detail=f"rows within the band of EMB: {'; '.join(within_rows)}; methods answer the same queries, so where they "
        "agree on most a paired test could tell more, but the paper prints nothing to make one",
    )


def one_metric(tables: Tables | None = None) -> Check:
    """SR-10: SemiRouter's Table 1 and Table 3 qualities on one test set differ by sampling error at most."""
    tables = tables or published()
    apart, said = [], []
    for dataset, n in _sizes(tables).items():
        routed = value(tables["table-3"], dataset, f"{LOSSES['full']} / Quality")
        near = min((_accuracy(tables, row, dataset) for row in (EMB, MLP)), key=lambda x: abs(x - routed))
        band = _Z * math.hypot(sampling_error(routed, n), sampling_error(near, n))
        said.append(f"{dataset} {near:.2f} and {routed:.2f}")
        if abs(near - routed) > band:
            apart.append(f"{dataset} (± {band:.1f})")
    return Check(
        ok=not apart,
        found=_listed(said),
        expected="equal but for sampling error on every dataset",
        detail=f"further apart: {_listed(apart)}; so these are two metrics, and neither is named: Table 1 fits the "
        "accuracy of predicted labels over pairs of query and LLM, Table 3 the quality of the routed answer",
    )


def llms_behind_table_1(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """SR-10b: Table 1's accuracies are fractions of the test queries times the number of LLMs, seven."""
    tables = tables or published()
    sizes = {dataset: n for dataset, n in _sizes(tables).items() if dataset not in LARGE}
    cells = {d: [tables["table-1"][row, d] for row in rows(tables["table-1"])] for d in (*sizes, "bias_detection")}
    counts = range(1, 12)
    fitting = {dataset: [m for m in counts if fits(cells[dataset], m * n)] for dataset, n in sizes.items()}
    common = [m for m in counts if all(m in found for found in fitting.values())]
    pairs = next((n for n in range(50, 1001) if fits(cells["bias_detection"], n)), None)
    multiple = [m for m in common if pairs and pairs % m == 0]
    return Check(
        ok=bool(sizes) and stated.llms in common,
        found="; ".join(
            f"{dataset}: {', '.join(map(str, found)) or 'no number'} of LLMs" for dataset, found in fitting.items()
        ),
        expected=f"{stated.llms} among them",
        detail=f"1 to {counts[-1]} LLMs tried, digits rounded or cut; on all these datasets: "
        f"{', '.join(map(str, common)) or 'none'}; bias_detection fits {pairs or 'no number of'} pairs"
        + (f", {pairs // multiple[0]} queries of {multiple[0]} LLMs" if multiple else "")
        + "; ten are the LLMs of Table 6, Claude's three among them, which Section 3.2 excludes from routing",
    )


def above_majority_label(tables: Tables | None = None, accuracy: Accuracies = ROUTERBENCH_ACCURACY) -> Check:
    """X-1b: EMB's label accuracy is above that of naming each LLM's more common label on the dataset.

    Parameters
    ----------
    accuracy
        Accuracy of each LLM on each dataset, (column, LLM) to a share; right and wrong are the two labels.
    """
    tables = tables or published()
    below, close, said = [], [], []
    for dataset, n in _sizes(tables).items():
        shares = [share for (column, llm), share in accuracy.items() if column == dataset and llm in LLMS]
        if not shares:
            continue
        majority = 100 * float(np.mean([max(share, 1 - share) for share in shares]))
        own = _accuracy(tables, EMB, dataset)
        band = _Z * sampling_error(own, n)
        said.append(f"{dataset} {own:.2f} for {majority:.2f}")
        if majority - own > band:
            below.append(dataset)
        elif abs(majority - own) <= band:
            close.append(dataset)
    return Check(
        ok=not below,
        found=_listed(said),
        expected="no dataset lower than the majority label by more than its sampling error",
        detail=f"lower: {', '.join(below) or 'none'}; within the sampling error: {', '.join(close) or 'none'}; the ten "
        "LLMs' accuracies are those RadialRouter's Table 7 prints for its own draw of RouterBench's test sets",
    )


def above_uniform_random(tables: Tables | None = None, accuracy: Accuracies = ROUTERBENCH_ACCURACY) -> Check:
    """X-1: SemiRouter's routed quality (Table 3) is no lower than that of a uniformly random choice of its LLMs.

    Parameters
    ----------
    accuracy
        Accuracy of each LLM on each dataset, (column, LLM) to a share.
    """
    tables = tables or published()
    sizes, below, said, under_all, mean = _sizes(tables), [], [], [], {"routed": [], "random": []}
    for dataset in SIX:
        shares = [100 * accuracy[dataset, llm] for llm in SEVEN if (dataset, llm) in accuracy]
        if not shares:
            continue
        own, chance = value(tables["table-3"], dataset, f"{LOSSES['full']} / Quality"), float(np.mean(shares))
        mean["routed"].append(own)
        mean["random"].append(chance)
        said.append(f"{dataset} {own:.2f} against {chance:.2f}")
        # Where the digits do not tell the number of queries no sampling error is allowed for, and none is claimed.
        if dataset in sizes and chance - own > _Z * sampling_error(own, sizes[dataset]):
            below.append(dataset)
        if own < min(shares):
            under_all.append(dataset)
    return Check(
        ok=not below,
        found=_listed(said),
        expected="no dataset lower by more than its sampling error",
        detail=f"lower: {', '.join(below) or 'none'}; lower than each of the seven LLMs alone: "
        f"{', '.join(under_all) or 'none'}; means {np.mean(mean['routed']):.1f} and {np.mean(mean['random']):.1f}; the "
        "LLMs' accuracies are those RadialRouter's Table 7 prints for its own draw of RouterBench's test sets",
    )


# ------------------------------------------------------------------------------------------------------ parameters


def _linear(fan_in: int, fan_out: int) -> int:
    return fan_in * fan_out + fan_out


def _mlp(*widths: int) -> int:
    return sum(_linear(a, b) for a, b in itertools.pairwise(widths))


def _encoder_layer(width: int, feed_forward: int) -> int:
    """Parameters of a Transformer encoder layer: attention, two dense layers and two normalisations."""
    return 4 * _linear(width, width) + _mlp(width, feed_forward, width) + 4 * width


def small_variant_parameters(
    fusion: tuple[int, int], classes: int, llms: int, stated: Stated = STATED
) -> tuple[int, int]:
    """Return the trainable parameters of MLP and of EMB (Appendix C.3) with a fusion network of two hidden widths."""
    head = _mlp(stated.feature_width + stated.hidden[1], *fusion, classes)
    plain = _mlp(stated.input_width, *stated.hidden) + stated.id_width * llms
    compact = stated.model_width * 2 + stated.id_width
    embedding = _linear(stated.query_width, stated.model_width) + _mlp(compact, *stated.hidden)
    return plain + head, embedding + (stated.id_width + stated.model_width) * llms + head


def small_variants(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """SR-5: one three-layer fusion network gives both 2.53 M (MLP) and 2.07 M (EMB) with Appendix C.3's layers."""
    table = (tables or published())["table-2"]
    printed = [table[row, "Trainable Params"] for row in (MLP, EMB)]
    widths = (128, 256, 512, 768, 1024, 1536, 2048)
    found: dict[tuple[int, int], list[tuple[int, int, tuple[int, int]]]] = {}
    for fusion in itertools.product(widths, widths):
        for classes, llms in itertools.product((1, 2, 3), range(4, 12)):
            counts = small_variant_parameters(fusion, classes, llms, stated)
            if all(round(n / 1e6, 2) == cell.value for n, cell in zip(counts, printed, strict=True)):
                found.setdefault(fusion, []).append((classes, llms, counts))
    first = stated.feature_width + stated.hidden[1]
    said = [
        f"{first}-{fusion[0]}-{fusion[1]}: MLP {counts[0]:,}, EMB {counts[1]:,}"
        for fusion, some in found.items()
        for classes, llms, counts in some
        if (classes, llms) == (3, stated.llms)
    ]
    tried = len(widths) ** 2
    return Check(
        ok=bool(found),
        found=f"{len(found)} of {tried} pairs of fusion widths",
        expected=f"{printed[0].printed} and {printed[1].printed} with the same fusion network",
        detail=f"with {stated.llms} LLMs and 3 classes: {_listed(said)}; not unique; with 4 to 11 "
        f"LLMs and 1 to 3 classes {sum(map(len, found.values()))} of {tried * 24} architectures print these digits",
    )


def _attention_variants(stated: Stated) -> Iterator[tuple[str, int]]:
    """Yield Transformer variants with the input layer of Appendix C.3, and their parameters."""
    width = stated.query_width
    for layers, feed_forward, out, fusion, norm in itertools.product(
        range(1, 13),
        (256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144),
        (None, 256, 512, 768),
        ((1024, 512), (768, 1024), (512, 2048)),
        (False, True),
    ):
        total = _linear(stated.input_width, width) + layers * _encoder_layer(width, feed_forward)
        total += (_linear(width, out) if out else 0) + norm * 2 * width + stated.id_width * stated.llms
        total += _mlp(stated.feature_width + (out or width), *fusion, 3)
        yield f"{layers} layers, feed-forward {feed_forward}, V_f of {out or width}", total


def token_variant(stated: Stated = STATED) -> int:
    """Return the parameters of the one architecture found with 65.7 M: the id alone is projected, a second token."""
    width, out = stated.query_width, 512
    total = _linear(stated.id_width, width) + 4 * _encoder_layer(width, 2048) + _linear(width, out)
    return total + stated.id_width * stated.llms + _mlp(stated.feature_width + out, 1024, 512, 3)


def attention_variant(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """SR-6: the Transformer variant as described has 65.7 M trainable parameters, for some depth and width."""
    table = (tables or published())["table-2"]
    target = value(table, ATT, "Trainable Params")
    variants = list(_attention_variants(stated))
    default = next(n for name, n in variants if name == "4 layers, feed-forward 2048, V_f of 256")
    nearest, size = min(variants, key=lambda variant: abs(variant[1] / 1e6 - target))
    hits = [name for name, n in variants if round(n / 1e6, 1) == target]
    other = token_variant(stated)
    return Check(
        ok=bool(hits),
        found=f"{len(hits)} of {len(variants)} variants; nearest {size / 1e6:.2f} M ({nearest})",
        expected=f"{target:g} M for at least one",
        detail=f"with four default encoder layers it has {default / 1e6:.2f} M; layers, feed-forward width and pooling "
        f"are not given; not as described but {'exact' if round(other / 1e6, 1) == target else 'near'}: only the id "
        f"projected to {stated.query_width}, a second token beside the query, 4 layers, feed-forward 2048, V_f of 512: "
        f"{other:,}",
    )


def totals(tables: Tables | None = None) -> Check:
    """SR-4: total less trainable parameters is BERT-base-uncased in every row of Table 2 that freezes it."""
    table = (tables or published())["table-2"]
    frozen = [row for row in rows(table) if row != "BERT"]
    bert = BERT_PARAMETERS / 1e6
    rest, wrong = {}, []
    for row in frozen:
        total, trainable = table[row, "Total Params"], table[row, "Trainable Params"]
        rest[row] = value(table, row, "Total Params") - value(table, row, "Trainable Params")
        rounding = 0.5 * (10.0**-total.decimals + 10.0**-trainable.decimals)
        wrong += [row] * (abs(rest[row] - bert) > rounding + _ROUNDING)
    whole = value(table, "BERT", "Trainable Params")
    return Check(
        ok=not wrong,
        found=", ".join(f"{row} {m:.2f} M" for row, m in rest.items()),
        expected=f"{bert:.2f} M, within the rounding of the two numbers",
        detail=f"off: {_listed(wrong)}; the row BERT, {whole:.1f} M, leaves {whole - bert:.2f} M for a head, "
        "which is not described",
    )


def hidden_size(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """SR-7: the hidden size of Table 2 is that of the BERT features."""
    table = (tables or published())["table-2"]
    printed = {int(value(table, row, "Hidden Size")) for row in rows(table)}
    return Check(
        ok=printed == {stated.feature_width},
        found=", ".join(map(str, sorted(printed))),
        expected=f"{stated.feature_width}, BERT's pooled outputs (Appendix C.2)",
        detail=f"{stated.query_width} is the width of the query embedding (Appendix C.3); a loose label",
    )


def shares_of_parameters(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """SR-8: 2 % of the backbone, 18 % fewer than MLP, approximately half of the backbone."""
    table = (tables or published())["table-2"]
    trainable = {row: value(table, row, "Trainable Params") for row in rows(table)}
    path = 100 * trainable[EMB] / trainable["BERT"]
    fewer = 100 * (1 - trainable[EMB] / trainable[MLP])
    attention = 100 * trainable[ATT] / trainable["BERT"]
    return _check(
        {
            f"about {stated.path_share}%": round(path) == stated.path_share,
            f"{stated.emb_reduction}% fewer": round(fewer) == stated.emb_reduction,
            "approximately half": round(attention / 10) * 10 == stated.attention_share,
        },
        found=f"{path:.1f}% of the backbone, {fewer:.1f}% fewer than MLP, {attention:.0f}% of the backbone",
        expected=f"{stated.path_share}%, {stated.emb_reduction}%, {stated.attention_share}% to the nearest ten",
        detail="trainable parameters of Table 2",
    )


# ------------------------------------------------------------------------------------------- pools, Tables 4 and 6


def removal(tables: Tables | None = None) -> Check:
    """SR-11: whichever LLM is removed, quality stays the same but for sampling error (Table 4)."""
    tables = tables or published()
    table = tables["table-4"]
    order, moved, said, steps = rows(table), [], [], []
    for dataset, n in _sizes(tables).items():
        by_row = {row: 100 * cell.value for (row, _), cell in table.items() if cell.dataset == dataset}
        if not by_row:
            continue
        column = [by_row[row] for row in order]
        spread = max(column) - min(column)
        band = 2 * _Z * sampling_error(float(np.mean(column)), n)
        full = value(tables["table-3"], dataset, f"{LOSSES['full']} / Quality")
        said.append(f"{dataset} {min(column):.1f} to {max(column):.1f}, the whole pool {full:.1f}")
        moved += [f"{dataset} by {spread:.1f} (± {band / 2:.1f})"] * (spread > band)
        steps += [later >= earlier for earlier, later in itertools.pairwise(column)]
    return Check(
        ok=not moved,
        found=_listed(said),
        expected="no dataset whose rows lie further apart than the 95 % band of one share",
        detail=f"further apart: {_listed(moved)}; read as leave-one-out, removing one LLM raises quality far above the "
        f"whole pool's; read down the rows as a cumulative removal, {sum(steps)} of {len(steps)} steps raise it or "
        "leave it, as when the weakest LLMs leave first, which is Table 6's order from below with the anchor last",
    )


def removed_anchors(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """SR-13: Table 4 removes LLMs of the R-adapter, none of them an anchor."""
    removed = [row.removeprefix("-w/o ") for row in rows((tables or published())["table-4"])]
    anchors = [llm for llm in removed if llm in stated.anchors]
    return Check(
        ok=not anchors,
        found=f"removed: {', '.join(removed)}",
        expected=f"none of {', '.join(stated.anchors)}",
        detail=f"anchors among them: {', '.join(anchors) or 'none'}; the backbone was trained on them, so removing one "
        "from it is a retraining, or it is only left out of the choice",
    )


def seven_llms(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """SR-12: Tables 4 and 6 and the text speak of the same seven LLMs, none of them Claude."""
    tables = tables or published()
    ranked = rows(tables["table-6"])
    removed = [row.removeprefix("-w/o ") for row in rows(tables["table-4"])]
    kept = [anchor for anchor in stated.anchors if anchor not in removed]
    claude = [name for name in (*ranked, *removed) if name.lower().startswith("claude")]
    return _check(
        {
            f"Table 6 ranks {stated.llms}": len(ranked) == stated.llms,
            f"Table 4's and the anchors are {stated.llms}": len(removed) + len(kept) == stated.llms,
            "no Claude": not claude,
        },
        found=f"Table 6 ranks {len(ranked)}; Table 4 removes {len(removed)}, with {' and '.join(kept)} "
        f"{len(removed) + len(kept)}; Claude: {', '.join(claude) or 'none'}",
        expected=f"{stated.llms} in each, without Claude",
        detail=f"Table 6 without Claude has {sum(not name.startswith('claude') for name in ranked)}, the seven this "
        "chapter takes; Section 5.1 names Claude among the seven, Section 3.2 and Appendix B leave it out",
    )


def ranking(tables: Tables | None = None, accuracy: Accuracies = ROUTERBENCH_ACCURACY) -> Check:
    """SR-12b: the mean of min-max accuracies over the six large datasets ranks the LLMs as Table 6 does.

    Parameters
    ----------
    accuracy
        Accuracy of each LLM on each dataset, (column, LLM) to a share.
    """
    table = (tables or published())["table-6"]
    ranked = rows(table)
    columns = [d for d in SIX if all((d, llm) in accuracy for llm in ranked)]
    grid = np.array([[accuracy[d, llm] for d in columns] for llm in ranked])
    scores = ((grid - grid.min(axis=0)) / (grid.max(axis=0) - grid.min(axis=0))).mean(axis=1)
    ours = [ranked[i] for i in np.argsort(-scores, kind="stable")]
    moved = {llm: (place, ours.index(llm) + 1) for place, llm in enumerate(ranked, start=1)}
    off = max(abs(score - value(table, llm, "Score")) for score, llm in zip(scores, ranked, strict=True))
    return Check(
        ok=ours == ranked,
        found="; ".join(f"{slug(llm)} {a} there, {b} here" for llm, (a, b) in moved.items() if a != b) or "every rank",
        expected="the ten LLMs of Table 6 in its order",
        detail=f'scores differ by up to {off:.2f}; the rule behind "normalized" is not given, and neither are the '
        "datasets; the LLMs' accuracies are those RadialRouter's Table 7 prints for RouterBench",
    )


# --------------------------------------------------------------------------------------------------------- Table 5


def _energy_rows(table: Table) -> dict[str, tuple[float, Cell, Cell]]:
    """Return energy, saving and backup of each dataset of Table 5."""
    return {
        row: (value(table, row, "Energy Cost"), table[row, "Saving"], table[row, "Backup Cost"])
        for row in rows(table)
        if row != "All at GPT-4"
    }


def _all_at_gpt_4(table: Table) -> float:
    return value(table, "All at GPT-4", "Energy Cost")


def savings(tables: Tables | None = None) -> Check:
    """SR-2: Saving = 1 - energy / 13.529 in every row of Table 5."""
    table = (tables or published())["table-5"]
    gpt_4 = _all_at_gpt_4(table)
    off = {
        row: float(saving.value or 0) - 100 * (1 - energy / gpt_4)
        for row, (energy, saving, _) in _energy_rows(table).items()
    }
    # Half a unit in the last digit: of the saving in percent, of both energies in thousandths of a Wh.
    rounding = 0.005 + 100 * 0.0005 * 2 / gpt_4
    wrong = [f"{row} by {error:+.3f}" for row, error in off.items() if abs(error) > rounding + _ROUNDING]
    return Check(
        ok=not wrong,
        found=f"{len(off) - len(wrong)} of {len(off)} rows, largest distance {max(map(abs, off.values())):.3f} points",
        expected=f"{len(off)} rows within {rounding:.3f}, the rounding of the three numbers",
        detail=f"off: {_listed(wrong)}",
    )


def backup(tables: Tables | None = None) -> Check:
    """SR-3: the backup cost is no fixed function of the energy cost, as GPT-4 is added where its answer is better."""
    table = (tables or published())["table-5"]
    gpt_4 = _all_at_gpt_4(table)
    found = {row: (energy, cell) for row, (energy, _, cell) in _energy_rows(table).items()}
    same = [row for row, (energy, cell) in found.items() if prints_as(cell, (energy + gpt_4) / 2)]
    share = {row: (float(cell.value or 0) - energy) / gpt_4 for row, (energy, cell) in found.items()}
    return Check(
        ok=len(same) < len(found),
        found=f"(energy + {gpt_4:g}) / 2, rounded or cut, in {len(same)} of {len(found)} rows",
        expected="no identity that holds in every row",
        detail="by the rule as worded GPT-4 would be better on "
        + ", ".join(f"{100 * s:.1f}% of {row}" for row, s in share.items())
        + ", each time half the saving; below all on GPT-4 then holds by construction; the rule also needs to know "
        "both answers' quality, so it is no rule a router can follow",
    )


def table_5_datasets(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """SR-14: Table 5 has the datasets of Section 5.1."""
    table = (tables or published())["table-5"]
    here, there = set(_energy_rows(table)), set(stated.datasets)
    return Check(
        ok=here == there,
        found=f"not in Section 5.1: {', '.join(sorted(here - there)) or 'none'}; "
        f"missing: {', '.join(sorted(there - here)) or 'none'}",
        expected="the same eight",
        detail=f"{len(here)} datasets in Table 5, {len(there)} in Section 5.1",
    )


def gpt_35_energy(tables: Tables | None = None, stated: Stated = STATED) -> Check:
    """SR-22: half of GPT-4o's energy for GPT-3.5 agrees with OpenAI's average."""
    gpt_4 = _all_at_gpt_4((tables or published())["table-5"])
    gpt_4o = stated.gpt_35_wh * stated.gpt_4o_in_gpt_35
    return Check(
        ok=abs(gpt_4o - stated.openai_average_wh) <= _ROUNDING,
        found=f"{stated.gpt_35_wh:g} Wh is half of {gpt_4o:g} Wh",
        expected=f"half of {stated.openai_average_wh:g} Wh, the average quoted",
        detail=f"Table 5 takes {gpt_4:g} Wh for GPT-4, {gpt_4 / stated.gpt_35_wh:.0f} times "
        f"GPT-3.5 and {gpt_4 / gpt_4o:.0f} times that GPT-4o, with no line of either source given",
    )


# ----------------------------------------------------------------------------------------------------- the objective


def objective_weights(stated: Stated = STATED) -> Check:
    """SR-15: Eq. (9) and Algorithm 1 give the contrastive loss the same weight over the swept λ."""
    grid = [round(float(lam), 2) for lam in np.linspace(*stated.swept, 4)]
    weight = {lam: (stated.eq_9_contrast(lam), stated.algorithm_contrast(lam)) for lam in grid}
    differ = [lam for lam, (a, b) in weight.items() if abs(a - b) > _ROUNDING]
    used = abs(stated.eq_9_contrast(stated.used_lambda) - stated.algorithm_contrast(stated.used_lambda))
    return Check(
        ok=not differ,
        found="; ".join(f"λ = {lam:g}: {a:g} and {b:g}" for lam, (a, b) in weight.items()),
        expected="one weight at each λ",
        detail=f"λ and 1 - λ change places; at the λ = {stated.used_lambda:g} that is used they "
        f"{'agree' if used <= _ROUNDING else 'differ, too'}, and Figure 5 has two readings",
    )


def lambda_ranges(stated: Stated = STATED) -> Check:
    """SR-16: the λ used, recommended, swept and required are compatible."""
    low, high = stated.recommended
    return _check(
        {
            "used λ is recommended": low <= stated.used_lambda <= high,
            "recommended range was swept": stated.swept[0] <= low and high <= stated.swept[1],
            "used λ is below the bound": stated.used_lambda < stated.lambda_below,
            "bound is a weight": stated.lambda_below <= 1,
        },
        found=f"used {stated.used_lambda:g}, recommended {low:g} to {high:g}, swept {stated.swept[0]:g} to "
        f"{stated.swept[1]:g}, required below {stated.lambda_below:g}",
        expected="each range inside the next, a bound of at most 1",
        detail="λ < 5 can be a misprint for 0.5, which the λ that is used does not satisfy either",
    )


def contrast_of_true_predictions(stated: Stated = STATED) -> Check:
    """SR-17: true predictions of two LLMs have no contrastive loss (Eq. 4), whatever their quality."""
    loss = {
        pair: max(0.0, stated.margin - abs(pair[0] - pair[1])) for pair in itertools.product(stated.labels, repeat=2)
    }
    punished = [pair for pair, cost in loss.items() if cost > _ROUNDING]
    return Check(
        ok=not punished,
        found=f"a loss for {len(punished)} of {len(loss)} pairs of true qualities: "
        + (", ".join(f"({a:g}, {s:g})" for a, s in punished) or "none"),
        expected="no loss for any pair",
        detail=f"margin {stated.margin:g}, for which the paper gives no number; no label enters Eq. (4), so two LLMs "
        'that are equally good are pushed apart, rightly or not; with L_p "on anchors" (Eq. (9)) the sparse LLMs\' '
        "labels would enter no loss at all",
    )
