"""Routers learned from pairwise preferences and tested on another benchmark's labels (UniRoute Appendix G.4, Figure 7).

Chatbot Arena's records (one prompt, two random LLMs, the one a person prefers) and the LLMs they share with EmbedLLM
are the paper's. Here AlpacaEval stands in for the Arena: a judge gave each LLM's answer to an instruction a preference,
and of two random LLMs the one with the higher preference wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from replications.uniroute import tables, trials
from replications.uniroute.choices import at_mean_cost
from replications.uniroute.params import SettingsParams, UniRouteParams
from routebook import routers
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import DeferralCurve, deferral_curve
from routebook.errors import UserError
from routebook.figures import label
from routebook.ledger import Cell
from routebook.progress import progress
from routebook.significance import Estimate, mean_interval
from routebook.threads import one_thread

JUDGED = "alpaca-eval"
METHODS = ("zero-router", "k-nn", "k-means")
COMPARED = (("k-means", "zero-router"), ("k-means", "k-nn"), ("zero-router", "k-nn"))
PUBLISHED_ROWS = {"zero-router": "Pareto-random router", "k-nn": "K-NN", "k-means": "K-means (Gecko)"}
# "90% training and 10% validation splits" (G.4).
VALIDATION_SHARE = 0.1
# Names of one LLM that no rule of spelling joins. AlpacaEval's "claude" called the interface "claude-v1"; an interface
# named by its first number serves whichever minor revision is current, so the revision behind it is not known.
ALIASES = {"claude": "claude-v1", "claude-2": "claude-v2", "claude-instant-1.2": "claude-instant-v1"}


def canonical_name(model: str) -> str:
    """Return the name under which an LLM is looked for in another benchmark.

    Lower case; without the organisation before a slash, the host after an at sign, a leading "meta-" and a trailing
    "-hf" (a file format); underscores as hyphens; "gpt4" as "gpt-4" and "gpt35" as "gpt-3.5"; then `ALIASES`. A
    prompt variant ("claude-2.1_concise") or another version stays another LLM.
    """
    name = model.lower().rsplit("/", 1)[-1].split("@", 1)[0].replace("_", "-")
    name = re.sub(r"^gpt-?(\d)", r"gpt-\1", name)
    name = re.sub(r"^gpt-35\b", "gpt-3.5", name)
    name = name.removeprefix("meta-").removesuffix("-hf")
    return ALIASES.get(name, name)


def shared_models(first: Sequence[str], second: Sequence[str]) -> dict[str, str]:
    """Return the LLMs two benchmarks share: name in the first to name in the second, in the order of the first.

    Of several columns with one canonical name (one LLM under two protocols) the first is taken.
    """

    def by_name(models: Sequence[str]) -> dict[str, str]:
        return {canonical_name(model): model for model in reversed(models)}

    there, here = by_name(second), by_name(first)
    names = {model: canonical_name(model) for model in first}
    return {model: there[name] for model, name in names.items() if here[name] == model and name in there}


@dataclass(frozen=True)
class Setting:
    """What is learned from and what is tested on; both have the same LLMs in the same order.

    Attributes
    ----------
    judged : RoutingBenchmark
        N instructions x M LLMs; quality is the judge's preference, and only its order within a row is used.
    judged_embeddings : ndarray, [N, D]
    test : RoutingBenchmark
        Prompts with labels, each LLM at its mean cost.
    test_embeddings : ndarray, [N_test, D]
    overlap : DataFrame
        The benchmarks looked through for shared LLMs; a pool that stands in for both shares all with itself.
    """

    judged: RoutingBenchmark
    judged_embeddings: np.ndarray
    test: RoutingBenchmark
    test_embeddings: np.ndarray
    overlap: pd.DataFrame


def overlap_table(judged: RoutingBenchmark, pools: Mapping[str, RoutingBenchmark]) -> pd.DataFrame:
    """Return the LLMs `judged` shares with each pool: columns priced, unpriced (lists of names there) and prompts."""
    rows = {}
    for name, pool in pools.items():
        shared = shared_models(judged.models, pool.models)
        unpriced = [here for here, there in shared.items() if there in pool.unpriced]
        priced = [here for here in shared if here not in unpriced]
        rows[name] = {"priced": priced, "unpriced": unpriced, "prompts": len(pool)}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["priced", "unpriced", "prompts"])


def find_setting(pools: Mapping[str, RoutingBenchmark], embeddings: Mapping[str, np.ndarray], seed: int) -> Setting:
    """Choose the test: the pool that shares most priced LLMs with AlpacaEval, of equals the one with most prompts.

    Shared LLMs without a price are left out. Without AlpacaEval, or where no pool shares two priced LLMs with it, the
    first pool stands in for both: one half of its prompts is judged by its own labels, the other half is the test.

    Parameters
    ----------
    pools
        Name to benchmark, AlpacaEval among them if present.
    embeddings
        Name to [N, D].
    seed
        Of the halves where a pool stands in.
    """
    others = {name: pool for name, pool in pools.items() if name != JUDGED}
    if JUDGED in pools and others:
        judged = pools[JUDGED]
        overlap = overlap_table(judged, others)
        order = np.lexsort((-overlap["prompts"].to_numpy(), -overlap["priced"].map(len).to_numpy()))
        best = overlap.index[order[0]]
        here = overlap.loc[best, "priced"]
        if len(here) >= 2:
            shared = shared_models(judged.models, pools[best].models)
            test = at_mean_cost(pools[best].subset(models=[shared[model] for model in here]))
            return _setting(judged.subset(models=here), embeddings[JUDGED], test, embeddings[best], overlap)
    name, pool = next(iter((others or pools).items()))
    pool = at_mean_cost(pool.priced())
    parts = pool.random_split({"judged": len(pool) // 2, "test": -1}, np.random.default_rng(seed))
    known, test = parts["judged"], parts["test"]
    z = embeddings[name]
    return _setting(pool.subset(known), z[known], pool.subset(test), z[test], overlap_table(pool, {name: pool}))


def _setting(
    judged: RoutingBenchmark, z_judged: np.ndarray, test: RoutingBenchmark, z_test: np.ndarray, overlap: pd.DataFrame
) -> Setting:
    # A prompt none of these LLMs was observed on says nothing about routing among them.
    answered = ~np.isnan(test.quality).all(axis=1)
    return Setting(judged, z_judged, test.subset(answered), z_test[answered], overlap)


@dataclass(frozen=True)
class Comparisons:
    """Pairwise comparisons, C of them.

    Attributes
    ----------
    prompt : ndarray of int, [C]
        Row of the judged benchmark.
    left, right : ndarray of int, [C]
        Columns of the two LLMs.
    outcome : ndarray, [C]
        1 where the left one won, 0 where the right one did, 0.5 for a tie.
    """

    prompt: np.ndarray
    left: np.ndarray
    right: np.ndarray
    outcome: np.ndarray

    def __len__(self) -> int:
        return len(self.prompt)

    def take(self, rows: np.ndarray) -> Comparisons:
        """Return some of them, by mask or index."""
        return Comparisons(self.prompt[rows], self.left[rows], self.right[rows], self.outcome[rows])


def draw_comparisons(quality: np.ndarray, n: int, rng: np.random.Generator) -> Comparisons:
    """Draw comparisons as an arena gets them: a random prompt, two random LLMs, the better answer wins.

    Prompts are drawn with replacement. An equal preference is a tie, which counts as half a win for each LLM (the
    paper does not say what it does with ties).

    Parameters
    ----------
    quality : ndarray, [N, M]
        Preferences; NaN = not judged, never drawn.
    n
        Number of comparisons, C.

    Raises
    ------
    UserError
        When no prompt has two judged LLMs, or an LLM is in no comparison drawn.
    """
    judged = ~np.isnan(quality)
    eligible = np.flatnonzero(judged.sum(axis=1) >= 2)
    if not len(eligible):
        raise UserError("no prompt has a preference for two LLMs, so none can be compared; use a pool with more labels")
    prompt = rng.choice(eligible, n)
    # The two smallest of random keys are two LLMs drawn without replacement.
    keys = np.where(judged[prompt], rng.random((n, quality.shape[1])), np.inf)
    left, right = np.argsort(keys, axis=1)[:, :2].T
    missing = np.setdiff1d(np.arange(quality.shape[1]), np.concatenate([left, right]))
    if len(missing):
        raise UserError(
            f"{len(missing)} of {quality.shape[1]} LLMs are in none of the {n} comparisons drawn; raise n_comparisons"
        )
    outcome = (1 + np.sign(quality[prompt, left] - quality[prompt, right])) / 2
    return Comparisons(prompt, left, right, outcome)


def win_counts(comparisons: Comparisons, n_models: int, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Return who beat whom how often in each group of comparisons, [n_groups, M, M]; [g, a, b] = wins of a over b.

    Parameters
    ----------
    groups : ndarray of int, [C]
        In 0..n_groups-1.
    """
    wins = np.zeros((n_groups, n_models, n_models))
    np.add.at(wins, (groups, comparisons.left, comparisons.right), comparisons.outcome)
    np.add.at(wins, (groups, comparisons.right, comparisons.left), 1 - comparisons.outcome)
    return wins


def bradley_terry(wins: np.ndarray, ridge: float) -> np.ndarray:
    """Fit P[a beats b] = 1 / (1 + exp(s_b - s_a)) (Bradley and Terry, 1952) by maximum likelihood with a ridge penalty.

    A logistic regression on differences of indicator vectors without intercept. The penalty, ridge / 2 * sum(s^2),
    makes the strengths unique, with sum 0, and finite where an LLM won or lost every comparison; the paper gives none.

    Parameters
    ----------
    wins : ndarray, [M, M]
        [a, b] = wins of a over b; ties count half for each.
    ridge
        > 0; with it an LLM without any comparison has strength 0, the mean.

    Returns
    -------
    ndarray, [M]
        Strengths s.

    Raises
    ------
    UserError
        When ridge is not positive.
    """
    from sklearn.linear_model import LogisticRegression

    if not ridge > 0:
        raise UserError(f"ridge is {ridge!r}, expected a number > 0, or the strengths are not unique")
    winner, loser = np.nonzero(wins)
    if not len(winner):
        return np.zeros(len(wins))
    identity = np.eye(len(wins))
    difference = identity[winner] - identity[loser]
    weight = wins[winner, loser]
    # Each win is told from both sides at half its weight: the same likelihood, and both classes always occur.
    model = LogisticRegression(C=1 / ridge, fit_intercept=False, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    with one_thread():
        model.fit(
            np.vstack([difference, -difference]),
            np.repeat([1, 0], len(weight)),
            sample_weight=np.concatenate([weight, weight]) / 2,
        )
    return model.coef_[0]


def win_probability(strengths: np.ndarray) -> np.ndarray:
    """Return the probability that each LLM beats one of mean strength, [..., M] -> [..., M], within (0, 1).

    The paper calls the strengths "pointwise quality scores" and does not say how they are scaled against cost. Every
    trade-off is swept, so a common scale does not matter; the curvature does, where clusters differ.
    """
    return 1 / (1 + np.exp(np.mean(strengths, axis=-1, keepdims=True) - strengths))


def cluster_strengths(wins: np.ndarray, ridge: float) -> np.ndarray:
    """Fit Bradley-Terry in each cluster, [K, M, M] -> [K, M].

    An LLM without any comparison in a cluster has its strength over all clusters there, as an LLM without a label in
    a cluster has its overall error in Eq. (12).
    """
    overall = bradley_terry(wins.sum(axis=0), ridge)
    compared = (wins + wins.swapaxes(1, 2)).sum(axis=2) > 0
    return np.where(compared, np.stack([bradley_terry(each, ridge) for each in wins]), overall)


def nearest_comparisons(comparisons: Comparisons, known: np.ndarray, order: np.ndarray, k: int) -> np.ndarray:
    """Return the k comparisons whose prompts are nearest, [N, k]; of those about one prompt the one drawn first.

    Parameters
    ----------
    known : ndarray of int, [P]
        Each prompt of `comparisons` once.
    order : ndarray of int, [N, at least min(k, P)]
        Places in `known`, the nearest first.
    """
    about = [np.flatnonzero(comparisons.prompt == prompt) for prompt in known]
    return np.array([np.concatenate([about[place] for place in row[:k]])[:k] for row in order])


def neighbour_win_rates(neighbours: np.ndarray, comparisons: Comparisons, fallback: np.ndarray) -> np.ndarray:
    """Return each LLM's share of wins among the nearest comparisons, [N, M].

    Eq. (4) with the only labels there are. Bradley-Terry has too few comparisons in a neighbourhood; an LLM in none
    of them has its `fallback` [M].

    Parameters
    ----------
    neighbours : ndarray of int, [N, k]
        Rows of `comparisons`.
    """
    shape = (len(neighbours), len(fallback))
    won, met = np.zeros(shape), np.zeros(shape)
    rows = np.arange(len(neighbours))[:, None]
    outcome = comparisons.outcome[neighbours]
    for models, points in ((comparisons.left, outcome), (comparisons.right, 1 - outcome)):
        np.add.at(won, (rows, models[neighbours]), points)
        np.add.at(met, (rows, models[neighbours]), 1)
    return np.divide(won, met, out=np.tile(fallback, (len(neighbours), 1)), where=met > 0)


def agreement(scores: np.ndarray, comparisons: Comparisons) -> float:
    """Return the share of comparisons won by the LLM with the higher score [C, M]; equal scores and ties count half."""
    rows = np.arange(len(comparisons))
    margin = scores[rows, comparisons.left] - scores[rows, comparisons.right]
    return float(1 - np.abs((1 + np.sign(margin)) / 2 - comparisons.outcome).mean())


@dataclass(frozen=True)
class PreferenceTrial:
    """One draw of comparisons: each method's curve on the test prompts, the K picked, the share of ties."""

    curves: Mapping[str, DeferralCurve]
    picked: Mapping[str, int]
    ties: float


def run_trials(setting: Setting, params: SettingsParams) -> list[PreferenceTrial]:
    """Run `params.n_trials` trials, each with comparisons, split and cluster starts of its own; test prompts stay."""
    numbers = progress(range(params.n_trials), label="preferences", unit="trial")
    with one_thread():
        return [_run_trial(setting, params, number) for number in numbers]


def _run_trial(setting: Setting, params: SettingsParams, trial: int) -> PreferenceTrial:
    rng = np.random.default_rng([params.seed, trial])
    drawn = draw_comparisons(setting.judged.quality, params.n_comparisons, rng)
    # By prompt, or a prompt drawn twice would be judged by itself.
    prompts = rng.permutation(np.unique(drawn.prompt))
    held_out = np.isin(drawn.prompt, prompts[: max(round(VALIDATION_SHARE * len(prompts)), 1)])
    train, validation = drawn.take(~held_out), drawn.take(held_out)
    n_models = len(setting.judged.models)
    wins = win_counts(train, n_models, np.zeros(len(train), dtype=int), 1)[0]
    overall = win_probability(bradley_terry(wins, params.ridge))

    clusters, from_clusters = _k_means(setting, params, train, validation, params.seed + trial)
    neighbours, from_neighbours = _k_nn(setting, params, train, validation, overall)
    estimates = {
        "zero-router": np.tile(overall, (len(setting.test), 1)),
        "k-nn": from_neighbours,
        "k-means": from_clusters,
    }
    curves = {m: deferral_curve(scores, setting.test.quality, setting.test.cost) for m, scores in estimates.items()}
    ties = float(np.mean(drawn.outcome == 0.5))
    return PreferenceTrial(curves, {"k-nn": neighbours, "k-means": clusters}, ties)


def _grids(params: SettingsParams) -> UniRouteParams:
    """Return Appendix G.2's grids at this number of validation comparisons."""
    return UniRouteParams.build({"n_validation": round(VALIDATION_SHARE * params.n_comparisons)})


def _k_means(
    setting: Setting, params: SettingsParams, train: Comparisons, validation: Comparisons, seed: int
) -> tuple[int, np.ndarray]:
    """Return K and the scores on the test prompts [N_test, M] of UniRoute (K-means) with Bradley-Terry per cluster."""
    z, known = setting.judged_embeddings, np.unique(train.prompt)
    agreed, scores = {}, {}
    for k in _grids(params).clusters_tried:
        if k > len(known):
            continue
        clusters = routers.KMeans(n_clusters=k, seed=seed).fit(setting.judged.subset(known), z[known])
        wins = win_counts(train, len(setting.judged.models), clusters.assign(z[train.prompt]), k)
        table = win_probability(cluster_strengths(wins, params.ridge))
        agreed[k] = agreement(table[clusters.assign(z[validation.prompt])], validation)
        scores[k] = table[clusters.assign(setting.test_embeddings)]
    best = _best(agreed)
    return best, scores[best]


def _k_nn(
    setting: Setting, params: SettingsParams, train: Comparisons, validation: Comparisons, overall: np.ndarray
) -> tuple[int, np.ndarray]:
    """Return K and the scores on the test prompts [N_test, M] of K-NN over comparisons."""
    import faiss

    grid = [k for k in _grids(params).neighbours_tried if k <= len(train)]
    z, known = np.ascontiguousarray(setting.judged_embeddings, dtype=np.float32), np.unique(train.prompt)
    index = faiss.IndexFlatL2(z.shape[1])
    index.add(z[known])

    def scores(queries: np.ndarray, counts: Sequence[int]) -> dict[int, np.ndarray]:
        order = index.search(queries, min(max(counts), len(known)))[1]
        near = nearest_comparisons(train, known, order, max(counts))
        return {k: neighbour_win_rates(near[:, :k], train, overall) for k in counts}

    best = _best({k: agreement(each, validation) for k, each in scores(z[validation.prompt], grid).items()})
    queries = np.ascontiguousarray(setting.test_embeddings, dtype=np.float32)
    return best, scores(queries, [best])[best]


def _best(agreed: Mapping[int, float]) -> int:
    """Return the candidate with the largest agreement on the validation comparisons, of equals the smallest.

    The area of G.1 needs labels of prompts, which preferences are not; the paper does not say how K was tuned here.
    """
    return min(agreed, key=lambda k: (-agreed[k], k))


def quality_neutral_cost(done: Sequence[PreferenceTrial], method: str) -> Estimate:
    """Return the mean over trials of QNC, infinite where a trial never matches the best LLM, as in Figure 7."""
    return mean_interval([trial.curves[method].qnc() for trial in done])


def overlap_shown(overlap: pd.DataFrame) -> pd.DataFrame:
    """Return `overlap_table` as readers see it."""
    shown = {
        "LLMs shared": overlap["priced"].map(lambda names: ", ".join(names) or "none"),
        "left out, no price": overlap["unpriced"].map(lambda names: ", ".join(names) or "none"),
        "prompts": overlap["prompts"],
    }
    return pd.DataFrame(shown, index=overlap.index)


def figure_7_table(
    done: Sequence[PreferenceTrial], published: Mapping[tuple[str, str], Cell]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table in Figure 7: the numbers (area, QNC as a fraction, peak quality), and the table as shown."""
    metrics = trials.metrics_frame(done)
    numbers, shown = {}, {}
    for method in METHODS:
        area, peak = (trials.summarise(metrics, column, [method]).loc[method] for column in ("area", "peak"))
        qnc = quality_neutral_cost(done, method)
        paper = {c: published[PUBLISHED_ROWS[method], c].printed for c in ("Area", "QNC", "Peak Acc.")}
        numbers[method] = {"area": area["value"], "qnc": qnc.estimate, "peak": peak["value"]}
        row = pd.Series({"value": qnc.estimate, "low": qnc.low, "high": qnc.high})
        shown[label(method)] = {
            "Area (paper)": paper["Area"],
            "Area (ours)": tables.interval_cell(area, "{:.3f}", False),
            "QNC (paper)": paper["QNC"],
            "QNC (ours)": tables.interval_cell(row, "{:.2f}", False).replace("inf", "∞"),
            "Peak quality, % (paper)": paper["Peak Acc."].rstrip("%"),
            "Peak quality, % (ours)": tables.interval_cell(peak * [100, 100, 100, 1], "{:.1f}", False),
        }
    return pd.DataFrame.from_dict(numbers, orient="index"), pd.DataFrame.from_dict(shown, orient="index")
