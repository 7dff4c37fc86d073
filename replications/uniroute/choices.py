"""What the paper leaves open: each detail with our choice and, where it can be run, its measured effect."""

from __future__ import annotations

import timeit
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from replications.uniroute import alternatives as other
from replications.uniroute.alternatives import Refit, TrialAgain, Value, refit
from replications.uniroute.learned_map import LearnedMap
from replications.uniroute.params import UniRouteParams
from replications.uniroute.trials import (
    CLAIRVOYANT_METHODS,
    DYNAMIC_METHODS,
    RANKS,
    Trial,
    draw_split,
    tuned_selections,
)
from routebook import load, routers
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import DeferralCurve, interpolate
from routebook.encoders import measure_latency
from routebook.errors import UserError
from routebook.figures import label
from routebook.progress import progress
from routebook.significance import Estimate, area_difference_bootstrap, mean_interval, sign_test
from routebook.threads import one_thread

__all__ = [
    "MOST_TRIALS",
    "OPEN_CHOICES",
    "Alternative",
    "OpenChoice",
    "Refit",
    "at_mean_cost",
    "latency_table",
    "open_choices",
    "pairs_flipped",
    "qnc_of_mean_curve",
    "refit",
    "single_cluster_curve",
]

# Every alternative is measured on at most this many trials: each costs a few seconds of refits.
MOST_TRIALS = 10
# The paper's routers, whose order the readings of Area are compared by.
COMPARED = (*DYNAMIC_METHODS, *CLAIRVOYANT_METHODS)
K_MEANS, K_NN, BOTH, LEARNED_MAP = ("k-means",), ("k-nn",), ("k-means", "k-nn"), ("learned-map",)


def at_mean_cost(benchmark: RoutingBenchmark) -> RoutingBenchmark:
    """Return the benchmark with each LLM's mean price in place of every call's: c(h) does not depend on the prompt."""
    return benchmark.with_cost(benchmark.mean_cost, benchmark.cost_unit)


def single_cluster_curve(
    benchmark: RoutingBenchmark, embeddings: np.ndarray, params: UniRouteParams, trial: int = 0
) -> DeferralCurve:
    """Return the deferral curve of UniRoute (K-means) with K = 1 on a trial's split."""
    split = draw_split(benchmark, params, trial)
    return refit(routers.KMeans(n_clusters=1, seed=params.seed), benchmark, embeddings, split).curve()


def qnc_of_mean_curve(curves: Sequence[DeferralCurve]) -> float:
    """Return the QNC read off the mean curve, one reading of "derived from these curves" (Appendix G.3).

    Each trial's curve is taken over cost as a share of its most accurate unseen LLM's cost; the curves are averaged,
    and the QNC is the smallest share at which their mean matches the mean quality of those LLMs. A budget that only
    some trials can meet is skipped; a match never made counts as 1.
    """
    best = [curve.best_model for curve in curves]
    unit = [curve.model_cost[b] for curve, b in zip(curves, best, strict=True)]
    lowest = max(curve.points[0][0] / u for curve, u in zip(curves, unit, strict=True))
    share = np.linspace(min(lowest, 1.0), 1.0, 2001)
    mean = np.mean([interpolate(curve, share * u) for curve, u in zip(curves, unit, strict=True)], axis=0)
    wanted = np.mean([curve.model_quality[b] for curve, b in zip(curves, best, strict=True)])
    reached = np.flatnonzero(mean >= wanted)
    return float(share[reached[0]]) if len(reached) else 1.0


def pairs_flipped(done: Sequence[Trial], area: Callable[[DeferralCurve], float]) -> int | None:
    """Return how many of the pairs of the paper's routers swap places by mean area when area is read another way.

    None where the other reading is undefined on some curve (NaN).
    """
    ours = {method: np.mean([trial.curves[method].area(left="flat") for trial in done]) for method in COMPARED}
    theirs = {method: np.mean([area(trial.curves[method]) for trial in done]) for method in COMPARED}
    if np.isnan(list(theirs.values())).any():
        return None
    return sum((ours[a] - ours[b]) * (theirs[a] - theirs[b]) < 0 for a, b in combinations(COMPARED, 2))


# ---------------------------------------------------------------------------------------------------------------------
# The rows
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metric:
    """What an alternative moves: how it is read off a trial as ours, how a difference is printed, and in what unit."""

    ours: Value
    name: str
    digits: str = "{:+z.4f}"
    scale: float = 1.0


def _none(again: TrialAgain, method: str) -> float:
    """Return 0: the share of what does not occur under our choice."""
    return 0.0


AREA = Metric(other.area, "area")
QNC = Metric(other.capped_qnc, "QNC, points", "{:+z.1f}", 100.0)
GAIN = Metric(other.gain, "area above ZeroRouter's")
SHARE = Metric(_none, "share", "{:.0f} %", 100.0)
MANY = Metric(other.area_with_many_clusters, "with the largest K of row 9")
MANY_SHARE = Metric(_none, "share, with the largest K of row 9", "{:.0f} %", 100.0)


@dataclass(frozen=True)
class Alternative:
    """Another choice that can be run.

    Attributes
    ----------
    key
        Of its effects in the numbers: "key/method".
    said
        In the table, before the effects.
    value
        The metric of a trial and method under this choice; NaN where it cannot be run.
    methods
        Whose metric moves.
    metric
    """

    key: str
    said: str
    value: Value
    methods: tuple[str, ...] = K_MEANS
    metric: Metric = AREA


@dataclass(frozen=True)
class Measured:
    """What was measured on a run.

    Attributes
    ----------
    done
        The trials measured on.
    benchmark
    values
        "key/method" to the metric of each trial, other choice and ours, [n_trials, 2].
    effects
        "key/method" to the mean of other minus ours; and what is measured once over the whole run.
    significance
        Paired bootstrap over the first trial's prompts: area of UniRoute (K-means) minus K-NN's.
    """

    done: Sequence[Trial]
    benchmark: RoutingBenchmark
    values: Mapping[str, np.ndarray]
    effects: Mapping[str, Estimate]
    significance: Estimate


Remark = Callable[[Measured], str]


@dataclass(frozen=True)
class OpenChoice:
    """One detail that a replicator must guess.

    Attributes
    ----------
    number
    detail, where
        What it is, and its place in the paper.
    paper_says, ours
    alternatives
        What was measured.
    remark
        What else there is to say, or why nothing was measured.
    """

    number: int
    detail: str
    where: str
    paper_says: str
    ours: str
    alternatives: tuple[Alternative, ...] = ()
    remark: str | Remark = ""


def _flips(**areas: Callable[[DeferralCurve], float]) -> Remark:
    pairs = len(COMPARED) * (len(COMPARED) - 1) // 2

    def said(measured: Measured) -> str:
        flipped = {name.replace("_", " "): pairs_flipped(measured.done, area) for name, area in areas.items()}
        counts = ", ".join(f"{count} {name}" for name, count in flipped.items() if count is not None)
        return f"of {pairs} pairs of routers, these change order: {counts}"

    return said


def _spread(measured: Measured) -> str:
    if len(measured.done) < 2:
        return ""
    redrawn, fixed = (measured.values["partition-fixed/k-means"][:, side].std(ddof=1) for side in (1, 0))
    return f"standard deviation of {label('k-means')}'s over trials: {redrawn:.4f} redrawn, {fixed:.4f} fixed"


def _mean_curve_qnc(measured: Measured) -> str:
    moved = _effect(measured.effects["mean-curve/k-means"], QNC)
    return (
        f"QNC, points, read off the mean curve: {label('k-means')} {moved} (one number a run, so no interval); "
        "the area of the mean curve is the mean area"
    )


def _two_tests(measured: Measured) -> str:
    pairs = [(trial.curves["k-means"].area(), trial.curves["k-nn"].area()) for trial in measured.done]
    over_trials, once = sign_test(*np.transpose(pairs)), measured.significance
    return (
        f"{label('k-means')} against {label('k-nn')}: sign test over {len(pairs)} trials, p = "
        f"{over_trials.p_value:.2g}; bootstrap over the first trial's prompts: {once.estimate:+.4f} "
        f"[{once.low:+.4f}, {once.high:+.4f}], p = {once.p_value:.2g}"
    )


def _views_seen(measured: Measured) -> str:
    """Say how many different texts an encoder gets to see in each prompt view of RouterBench."""
    if measured.benchmark.name != "routerbench":
        return ""
    seen = {view: set(load("routerbench", prompt_view=view).prompts) for view in ("question", "first-1400-chars")}
    return (
        "RouterBench's prompts carry worked examples shared by a whole dataset: an encoder sees "
        f"{len(seen['question'])} different texts with the question alone, {len(seen['first-1400-chars'])} with the "
        "first 1,400 characters; rerun with prompt_view=first-1400-chars"
    )


OPEN_CHOICES = (
    OpenChoice(
        1,
        "normalised area",
        "Section 6, G.1",
        "“normalized area under such curve”, no formula",
        "mean quality over budgets from the cheapest to the dearest unseen LLM",
        (
            Alternative(
                "area-from-zero", "cost divided by the dearest LLM's, from 0", other.of_curve(other.area_from_zero)
            ),
            Alternative("area-log-cost", "over log cost", other.of_curve(other.area_on_log_cost)),
        ),
        _flips(from_zero=other.area_from_zero, over_log_cost=other.area_on_log_cost),
    ),
    OpenChoice(
        2,
        "between two values of λ",
        "F.2",
        "λ “varied”; nothing on interpolation or hulls",
        "every breakpoint; a straight line between two, as tossing a coin gives",
        (
            Alternative("steps", "steps", other.of_curve(other.area_in_steps), BOTH),
            Alternative("hull", "non-decreasing hull of the test points", other.of_curve(other.area_of_hull), BOTH),
        ),
        _flips(in_steps=other.area_in_steps, under_hulls=other.area_of_hull),
    ),
    OpenChoice(
        3,
        "what QNC matches",
        "Section 6",
        "“the most accurate test LLM”; on which prompts is not said",
        "the unseen LLM most accurate on the test prompts, at its accuracy there",
        (
            Alternative(
                "qnc-llm-of-validation",
                "the LLM most accurate on validation prompts, at its test accuracy",
                other.qnc_to_llm_chosen_on_validation,
                metric=QNC,
            ),
            Alternative(
                "qnc-validation-accuracy",
                "the same at its validation accuracy",
                other.qnc_to_validation_accuracy,
                metric=QNC,
            ),
        ),
    ),
    OpenChoice(
        4,
        "QNC that is never reached",
        "Figures 6 and 7",
        "∞ in Figure 7, at most 100.0 % in Figure 6",
        "at most 100 %: who cannot match the best LLM falls back on it",
        (
            Alternative(
                "qnc-infinite",
                "trials whose QNC, and so the mean, would be ∞",
                other.without_finite_qnc,
                (*K_MEANS, *K_NN, *LEARNED_MAP, "zero-router"),
                SHARE,
            ),
        ),
    ),
    OpenChoice(
        5,
        "mean curve or mean of metrics",
        "G.3",
        "“derived from these [mean] curves”",
        "mean over trials of each trial's metric",
        remark=_mean_curve_qnc,
    ),
    OpenChoice(
        6,
        "cost of an LLM",
        "Section 6",
        "“API calling costs (in USD)”",
        "one mean price an LLM, as c(h) has no prompt in it",
        (Alternative("cost-per-prompt", "each call's own price, known beforehand", other.cost_per_prompt, BOTH),),
    ),
    OpenChoice(
        7,
        "ties",
        "Eq. (8)",
        "not said",
        "the cheaper LLM",
        (Alternative("ties-dearer", "the dearer LLM", other.ties_to_the_dearer, BOTH),),
    ),
    OpenChoice(
        8,
        "clusters without a validation prompt",
        "Eq. (12)",
        "not said",
        "the LLM's error over all validation prompts",
        (
            Alternative("empty-share", "entries of Ψ this concerns", other.share_empty(), metric=SHARE),
            Alternative("empty-never", "error 1", other.never_where_empty()),
            Alternative("empty-nearest", "the nearest cluster's error", other.neighbour_where_empty()),
            Alternative("empty-share-many", "entries concerned", other.share_empty(many=True), metric=MANY_SHARE),
            Alternative("empty-never-many", "error 1", other.never_where_empty(many=True), metric=MANY),
            Alternative(
                "empty-nearest-many", "the nearest cluster's error", other.neighbour_where_empty(many=True), metric=MANY
            ),
        ),
    ),
    OpenChoice(
        9,
        "candidates for K",
        "G.2",
        "“from 3 to the number of validation sample size, divided by 50”; no steps. G.5 has another list",
        "every whole number to 16, from there in steps by half",
        (
            Alternative("grid-ends", "its two ends alone", other.coarse_grid),
            Alternative("grid-g5", "G.5's list, at least ten validation prompts a cluster", other.static_grid),
        ),
    ),
    OpenChoice(
        10,
        "tuning of K",
        "G.1, G.2",
        "on training LLMs; K-NN's K with neighbours in the training set, though used with neighbours in the far "
        "smaller validation set; “the best K found on each dataset”",
        "as written, by default in every trial anew",
        (
            Alternative("k-once", "once for all trials", other.tuned_once, BOTH),
            Alternative("k-hindsight", "best K on the test prompts, a bound", other.hindsight),
            Alternative(
                "k-right-density", "K-NN tuned among validation prompts", other.tuned_among_validation_prompts, K_NN
            ),
        ),
    ),
    OpenChoice(
        11,
        "K-means and its metric",
        "5.1, H.2",
        "300 iterations; no number of starts, nothing on scaling",
        "best of kmeans_starts, 10 by default; Euclidean, on embeddings as the encoder gives them",
        (
            Alternative("one-start", "one start", other.one_start),
            Alternative("standardised", "each dimension standardised", other.on_standardised_embeddings, BOTH),
        ),
    ),
    OpenChoice(
        12,
        "what a trial redraws",
        "Section 6, G.3",
        "400 trials that “randomly split examples”; whether LLMs are drawn again is not said",
        "prompts and LLMs both",
        (Alternative("partition-fixed", "the first trial's LLMs throughout", other.fixed_partition, BOTH, GAIN),),
        _spread,
    ),
    OpenChoice(
        13,
        "sizes of the parts",
        "Section 6",
        "60/10/30 % for EmbedLLM; 400 validation prompts for RouterBench, whose test share is not given",
        "n_validation and test_share, 400 and 30 % by default",
        (Alternative("validation-tenth", "10 % for validation", other.tenth_for_validation, BOTH),),
    ),
    OpenChoice(
        14,
        "half of 11 LLMs",
        "Section 6",
        "“a random 50% for training”",
        "half, rounded down, is seen: 5 of 11",
        (Alternative("one-more-seen", "one more seen", other.one_more_seen, BOTH, GAIN),),
    ),
    OpenChoice(
        15,
        "architecture of LearnedMap",
        "5.2, F.3, G.2",
        "softmax of a linear map; “softmax-dense layer”; two hidden layers with batch norm, in Keras, no momentum",
        "F.3, the most detailed, with Keras's momentum 0.99: its running moments are still near their start after so "
        "few steps",
        (
            Alternative("linear-map", "the linear map", other.learned_map(architecture="linear"), LEARNED_MAP),
            Alternative("momentum-0.9", "momentum 0.9", other.learned_map(bn_momentum=0.9), LEARNED_MAP),
        ),
    ),
    OpenChoice(
        16,
        "loss of LearnedMap",
        "5.2, G.2",
        "log loss of γ; “binary sigmoid cross entropy”",
        "log loss of the probability γ, clipped to [1e-7, 1 − 1e-7]",
        remark="none: cross-entropy of a sigmoid is the log loss of its output, and the logit whose sigmoid is γ gives "
        "the same function; a sigmoid of γ itself would keep every error within 0.50 and 0.73",
    ),
    OpenChoice(
        17,
        "Ψ of training LLMs while Φ is learned",
        "5.2, G.2",
        "per-cluster errors on the “validation set”; on the “training set”",
        "training set",
        (Alternative("psi-validation", "validation set", other.trained_on_validation_features, LEARNED_MAP),),
    ),
    OpenChoice(
        18,
        "K of LearnedMap",
        "G.2, G.5",
        "tuned by itself; in static pools that of K-means",
        "tuned by itself",
        (Alternative("k-of-k-means", "that of K-means", other.learned_map(k_of="k-means"), LEARNED_MAP),),
    ),
    OpenChoice(
        19,
        "training of the retrained routers",
        "Section 6, G.2",
        "10 epochs and the checkpoint best on validation prompts, for the clairvoyant ones; retrained ones learn from "
        "these very prompts",
        "all validation prompts, the last of 10 epochs",
        (
            Alternative(
                "checkpoint",
                "four fifths, checkpoint kept on the last fifth",
                other.checkpoint_on_a_fifth,
                ("retrained-mlp", "retrained-matfac"),
            ),
        ),
    ),
    OpenChoice(
        20,
        "rank of matrix factorisation",
        "G.2",
        "“the same procedure” as for K; no candidates",
        f"tuned among {', '.join(map(str, RANKS))}",
        (
            Alternative("rank-smallest", f"always {RANKS[0]}", other.rank(0), ("retrained-matfac",)),
            Alternative("rank-largest", f"always {RANKS[-1]}", other.rank(-1), ("retrained-matfac",)),
        ),
    ),
    OpenChoice(
        21,
        "ZeroRouter's mixture",
        "Appendix D, G.4",
        "chosen on the validation prompts",
        "the same mixture on the test prompts",
        (
            Alternative(
                "hull-on-test", "chosen on the test prompts, in hindsight", other.hull_on_test, ("zero-router",)
            ),
        ),
    ),
    OpenChoice(
        22,
        "significance",
        "G.2",
        "sign test over 400 trials",
        "t-intervals and sign tests over trials; trials overlap, so both are too sure",
        remark=_two_tests,
    ),
    OpenChoice(
        23,
        "embedding of prompts",
        "Section 6",
        "Gecko 1B, 768 dimensions, not public; what is embedded is not said",
        "all-MiniLM-L6-v2, 384 dimensions, frozen; of RouterBench the question alone",
        (
            Alternative(
                "tfidf",
                "TF-IDF of the words, reduced to 384 dimensions by an SVD of training prompts",
                other.with_tfidf,
                BOTH,
            ),
        ),
        _views_seen,
    ),
    OpenChoice(
        24,
        "features of Headlines",
        "G.3",
        "seven quantiles of Gemma 2B's “output token” probabilities",
        "–",
        remark="not run: needs the model, and which tokens is open",
    ),
    OpenChoice(
        25,
        "which prompts of SPROUT and Open LLM Leaderboard v2",
        "Section 6, I.1",
        "“SPROUT o3-mini”; 20,046 prompts",
        "as published, where present",
        remark="not run: no filter is described to choose otherwise; see the page on other pools",
    ),
    OpenChoice(
        26,
        "K without training LLMs",
        "G.3",
        "Math+Code: N_val / 50 clusters, √N_val neighbours; N_val is not given",
        "not needed: K is tuned on the seen LLMs",
        (Alternative("untuned", "that rule here", other.untuned, BOTH),),
        "Math+Code itself not run: the prompts are not in reach",
    ),
    OpenChoice(
        27,
        "routers learned from preferences",
        "G.4",
        "Bradley–Terry per cluster; nothing on ties, regularisation or the filter that left 8,447 rows",
        "a ridge penalty",
        remark="not on this page: see the page on other settings",
    ),
    OpenChoice(
        28,
        "prompt attributes",
        "G.2, G.4",
        "seven, labelled by Gemini 1.5 Pro 002",
        "–",
        remark="not run: the labels are not public and the model answers only on line",
    ),
    OpenChoice(
        29,
        "width of the kernel in the heat maps",
        "G.6",
        "not given",
        "the median distance between two LLMs",
        remark="none on Area; any width leaves the order of the similarities as it is",
    ),
)


# ---------------------------------------------------------------------------------------------------------------------
# The table
# ---------------------------------------------------------------------------------------------------------------------


def open_choices(
    done: Sequence[Trial], benchmark: RoutingBenchmark, embeddings: np.ndarray, params: UniRouteParams
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure the other choice at every detail the paper leaves open, on the first `MOST_TRIALS` trials at most.

    Parameters
    ----------
    done
        Finished trials on `at_mean_cost(benchmark)`, all from number 0 on, whose splits `draw_split` drew.
    benchmark
        N prompts x M LLMs with each call's own price.
    embeddings : ndarray, [N, D]
    params
        Those of the trials.

    Returns
    -------
    numbers : DataFrame
        Index "key/method"; effect (mean over trials of the metric under the other choice minus ours; area unless
        OPEN_CHOICES says otherwise, QNC as a fraction), low, high (95 % t-interval over trials) and n. NaN where an
        alternative cannot be run on these data. "significance-prompts/k-means": area of UniRoute (K-means) minus
        K-NN's, its interval from resampling the first trial's prompts.
    shown : DataFrame
        The whole table as readers see it, one row for each of OPEN_CHOICES.

    Raises
    ------
    UserError
        When there are no trials.
    """
    if not done:
        raise UserError("done holds no trial, expected those that run_trials returned")
    measured = _measure(list(done)[:MOST_TRIALS], benchmark, embeddings, params)
    effects = {**measured.effects, "significance-prompts/k-means": measured.significance}
    numbers = {k: {"effect": e.estimate, "low": e.low, "high": e.high, "n": e.n} for k, e in effects.items()}
    rows = {
        choice.number: {
            "detail": f"{choice.detail} ({choice.where})",
            "the paper says": choice.paper_says,
            "our choice": choice.ours,
            "other choices, and by how much they move the area": "<br>".join(_said(choice, measured)),
        }
        for choice in OPEN_CHOICES
    }
    return pd.DataFrame.from_dict(numbers, orient="index"), pd.DataFrame.from_dict(rows, orient="index")


def _measure(
    done: Sequence[Trial], benchmark: RoutingBenchmark, embeddings: np.ndarray, params: UniRouteParams
) -> Measured:
    constant, once = at_mean_cost(benchmark), tuned_selections(done)
    rows: dict[str, list[tuple[float, float]]] = {}
    significance = None
    # Trial by trial, so that only one trial's refits and embeddings are held at a time.
    for number, trial in enumerate(progress(done, label="open choices", unit="trial")):
        again = TrialAgain(number, trial, done[0], once, constant, benchmark, embeddings, params)
        with one_thread():
            for key, pair in _pairs(again):
                rows.setdefault(key, []).append(pair)
            if significance is None:
                significance = _over_prompts(again)
    values = {key: np.array(pairs) for key, pairs in rows.items()}
    effects = {key: mean_interval(pairs[:, 0] - pairs[:, 1]) for key, pairs in values.items()}
    curves = [trial.curves["k-means"] for trial in done]
    read_off = qnc_of_mean_curve(curves) - float(np.mean([min(curve.qnc(), 1.0) for curve in curves]))
    effects["mean-curve/k-means"] = Estimate(read_off, np.nan, np.nan, len(curves), "QNC of the mean curve")
    return Measured(done, benchmark, values, effects, significance)


def _pairs(again: TrialAgain) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield "key/method" with the metric under the other choice and ours, for everything that can be run."""
    for choice in OPEN_CHOICES:
        for alternative in choice.alternatives:
            for method in alternative.methods:
                pair = alternative.value(again, method), alternative.metric.ours(again, method)
                yield f"{alternative.key}/{method}", pair


def _over_prompts(again: TrialAgain) -> Estimate:
    k_means, k_nn = again.estimates["k-means"], again.estimates["k-nn"]
    return area_difference_bootstrap(k_means, k_nn, again.test.quality, again.test.cost, seed=again.seed, left="flat")


def _said(choice: OpenChoice, measured: Measured) -> list[str]:
    """Return the lines of a row's last cell."""
    lines = []
    for alternative in choice.alternatives:
        found = {m: measured.effects[f"{alternative.key}/{m}"] for m in alternative.methods}
        told = [f"{label(m)} {_effect(e, alternative.metric)}" for m, e in found.items() if not np.isnan(e.estimate)]
        unit = "" if alternative.metric is AREA else f" ({alternative.metric.name})"
        lines.append(f"{alternative.said}{unit}: {', '.join(told) or 'cannot be run on these data'}")
    remark = choice.remark(measured) if callable(choice.remark) else choice.remark
    return [*lines, remark] if remark else lines


def _effect(effect: Estimate, metric: Metric) -> str:
    estimate, low, high = (metric.digits.format(metric.scale * x) for x in (effect.estimate, effect.low, effect.high))
    return estimate if metric.ours is _none or np.isnan(effect.low) else f"{estimate} [{low}, {high}]"


def latency_table(benchmark: RoutingBenchmark, embeddings: np.ndarray, params: UniRouteParams) -> pd.DataFrame:
    """Return the router's own cost in milliseconds a prompt: embedding it, and scoring all LLMs once it is embedded.

    Scoring: routers fitted on `n_validation` prompts; median of 20 passes over up to 1,000 prompts. Embedding: median
    over single prompts, not cached; left out where the data brings its embeddings. This machine, CPU only.
    """
    clusters, neighbours = max(params.clusters_tried), max(params.neighbours_tried)
    candidates = {
        f"K-NN, {neighbours} of {params.n_validation} neighbours": routers.KNN(n_neighbours=neighbours),
        f"UniRoute (K-means), K = {clusters}": routers.KMeans(n_clusters=clusters, seed=params.seed),
        f"UniRoute (LearnedMap), K = {clusters}": LearnedMap(n_clusters=clusters, seed=params.seed),
    }
    rows = {}
    if params.encoder != "auto" or benchmark.embeddings is None:
        name = "minilm" if params.encoder == "auto" else params.encoder
        rows[f"embedding ({name})"] = measure_latency(name, benchmark.prompts[:20])
    known = benchmark.subset(np.arange(params.n_validation))
    for name, router in candidates.items():
        router.fit(known, embeddings[: params.n_validation])
        passes = timeit.repeat(lambda router=router: router.predict_quality(embeddings[:1000]), number=1, repeat=20)
        rows[f"scoring, {name}"] = 1000 * float(np.median(passes)) / len(embeddings[:1000])
    return pd.DataFrame({"milliseconds a prompt": {name: f"{value:.4f}" for name, value in rows.items()}})
