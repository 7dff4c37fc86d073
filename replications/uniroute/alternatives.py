"""The other choice at every detail the paper leaves open: a trial taken up again, with one thing done differently.

Each `Value` below takes a trial and a method and returns the method's metric (area unless it says otherwise) under the
other choice. Whatever is not the subject stays as it was: the split, the seed, and each method's tuned K.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from replications.uniroute.learned_map import LearnedMap
from replications.uniroute.params import UniRouteParams
from replications.uniroute.selection import Selection, choose
from replications.uniroute.trials import RANKS, Split, Trial, draw_split
from routebook import routers
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import DeferralCurve, concave_envelope, deferral_curve
from routebook.threads import one_thread

# Added to estimates so that of equal ones the dearer wins; estimates are ratios of small counts and differ by far more.
_TIE = 1e-9
# Segments shorter than this share of their cost: the closed form of their area on log cost would be all rounding.
_SHORT = 1e-9
# The candidates of Appendix G.5 (static pools), "pruning out values that are too large".
G5_GRID = (5, 10, 25, 50, 75, 100, 150, 200, 250, 300)
# Prompts a cluster must leave to each entry of Psi, on average: our reading of "too large".
_G5_PROMPTS = 10
TFIDF_DIMENSIONS = 384


@dataclass(frozen=True)
class Refit:
    """A dynamic router fitted once more on the split of a trial, to be scored another way."""

    router: routers.Router
    quality_hat: np.ndarray
    test: RoutingBenchmark

    def curve(self) -> DeferralCurve:
        """Return the deferral curve on the test prompts."""
        return deferral_curve(self.quality_hat, self.test.quality, self.test.cost)

    def area(self) -> float:
        """Return its area; a curve that starts above the cheapest mean price is extended flat."""
        return area_on(self.quality_hat, self.test)


def area_on(quality_hat: np.ndarray, test: RoutingBenchmark) -> float:
    """Return the area of estimates [N, M] on prompts with their qualities and costs, extended flat to the left."""
    return deferral_curve(quality_hat, test.quality, test.cost).area(left="flat")


def refit(router: routers.BaseRouter, benchmark: RoutingBenchmark, embeddings: np.ndarray, split: Split) -> Refit:
    """Fit a dynamic router on the seen LLMs of a trial's split, add the unseen ones, predict on the test prompts."""
    router.fit(benchmark.subset(split.train, split.seen), embeddings[split.train])
    router.add_models(benchmark.subset(split.validation, split.unseen), embeddings[split.validation])
    test = benchmark.subset(split.test, split.unseen)
    return Refit(router, routers.quality_for(router, embeddings[split.test], split.unseen), test)


@dataclass(frozen=True)
class TrialAgain:
    """A finished trial with what is needed to do one thing in it differently.

    Attributes
    ----------
    number
        Of the trial, from 0.
    trial, first
        This trial and the run's first one.
    once
        What each method is tuned to if that is done once per dataset, over the run's trials.
    benchmark
        The one the trial was run on: N prompts x M LLMs, one price an LLM.
    priced
        The same with each call's own price.
    embeddings : ndarray, [N, D]
    params
        Those of the trials.
    """

    number: int
    trial: Trial
    first: Trial
    once: Mapping[str, Selection]
    benchmark: RoutingBenchmark
    priced: RoutingBenchmark
    embeddings: np.ndarray
    params: UniRouteParams

    @property
    def seed(self) -> int:
        """The seed the trial's routers had."""
        return self.params.seed + self.number

    @property
    def split(self) -> Split:
        """The trial's split."""
        return self.trial.split

    def tuned(self, method: str) -> int:
        """Return the K (or rank) that a method was tuned to."""
        return self.trial.selections[method].best

    def part(self, part: Literal["train", "validation", "test"], models: Sequence[str]) -> RoutingBenchmark:
        """Return the benchmark on one part's prompts and the LLMs named."""
        return self.benchmark.subset(getattr(self.split, part), models)

    def z(self, part: Literal["train", "validation", "test"]) -> np.ndarray:
        """Return the embeddings of one part's prompts, [n, D]."""
        return self.embeddings[getattr(self.split, part)]

    @cached_property
    def test(self) -> RoutingBenchmark:
        """Test prompts with the unseen LLMs."""
        return self.part("test", self.split.unseen)

    @cached_property
    def validation(self) -> RoutingBenchmark:
        """Validation prompts with the unseen LLMs."""
        return self.part("validation", self.split.unseen)

    @property
    def g5_candidates(self) -> list[int]:
        """Candidates K of Appendix G.5 for the trial's sample sizes."""
        return g5_candidates(len(self.validation), len(self.split.train))

    @cached_property
    def _clusters(self) -> dict[int, routers.KMeans]:
        return {}

    def clusters(self, k: int) -> routers.KMeans:
        """Return K-means with k clusters, fitted on the training prompts and the seen LLMs; fitted once a trial."""
        if k not in self._clusters:
            train = self.part("train", self.split.seen)
            self._clusters[k] = self._k_means(k).fit(train, self.z("train"))
        return self._clusters[k]

    def _k_means(self, k: int) -> routers.KMeans:
        return routers.KMeans(n_clusters=k, seed=self.seed, n_init=self.params.kmeans_starts)

    def by_clusters(self, k: int, psi: np.ndarray | None = None) -> np.ndarray:
        """Return UniRoute (K-means)'s estimates of the unseen LLMs on the test prompts, [N_test, M]: Eq. (11).

        `psi` [k, M] takes the place of the features estimated from the validation prompts.
        """
        clusters = self.clusters(k)
        if psi is None:
            psi, _ = clusters.represent(self.validation, self.z("validation"))
        return 1.0 - psi[clusters.assign(self.z("test"))]

    def by_neighbours(self, k: int) -> np.ndarray:
        """Return K-NN's estimates on the test prompts, [N_test, M], with neighbours among the validation prompts."""
        return routers.KNN(n_neighbours=k).fit(self.validation, self.z("validation")).predict_quality(self.z("test"))

    @cached_property
    def estimates(self) -> dict[str, np.ndarray]:
        """Estimates of UniRoute (K-means) and K-NN as in the trial, [N_test, M] each."""
        return {"k-means": self.by_clusters(self.tuned("k-means")), "k-nn": self.by_neighbours(self.tuned("k-nn"))}

    def router(self, method: str) -> routers.BaseRouter:
        """Return "k-means" or "k-nn" as in the trial, not yet fitted."""
        k = self.tuned(method)
        return self._k_means(k) if method == "k-means" else routers.KNN(n_neighbours=k)

    def area_of(self, quality_hat: np.ndarray) -> float:
        """Return the area of estimates [N_test, M] on the test prompts."""
        return area_on(quality_hat, self.test)

    @cached_property
    def tfidf(self) -> np.ndarray:
        """Embeddings of all prompts by `tfidf_embeddings`, learned from the training prompts, [N, D]."""
        return tfidf_embeddings(self.benchmark.prompts, self.split.train, self.seed)


Value = Callable[[TrialAgain, str], float]


# ---------------------------------------------------------------------------------------------------------------------
# The metric as ours
# ---------------------------------------------------------------------------------------------------------------------


def area(again: TrialAgain, method: str) -> float:
    """Return the area of a method in the trial."""
    return again.trial.curves[method].area(left="flat")


def capped_qnc(again: TrialAgain, method: str) -> float:
    """Return the QNC of a method in the trial, at most 1."""
    return min(again.trial.curves[method].qnc(), 1.0)


def gain(again: TrialAgain, method: str) -> float:
    """Return the area of a method in the trial minus ZeroRouter's."""
    return area(again, method) - area(again, "zero-router")


# ---------------------------------------------------------------------------------------------------------------------
# 1, 2: other areas of one curve
# ---------------------------------------------------------------------------------------------------------------------


def area_from_zero(curve: DeferralCurve) -> float:
    """Return the area over cost / the dearest LLM's cost from 0 to 1, nothing being answered below the cheapest LLM.

    NaN where every LLM is free.
    """
    low, high = curve.model_cost.min(), curve.model_cost.max()
    return curve.area(left="flat") * (high - low) / high if high > 0 else np.nan


def area_on_log_cost(curve: DeferralCurve) -> float:
    """Return the mean quality over the *logarithm* of cost, from the cheapest LLM to the dearest.

    The curve is the same, straight between operating points on plain cost (a coin tossed), so each segment a + b c
    has the area a log(c2 / c1) + b (c2 - c1). NaN where the cheapest LLM is free.
    """
    low, high = curve.model_cost.min(), curve.model_cost.max()
    if low <= 0 or high <= low:
        return np.nan
    x, y = curve.points
    inside = (x > low) & (x < high)
    ends = np.interp([low, high], x, y)
    cost = np.concatenate(([low], x[inside], [high]))
    quality = np.concatenate((ends[:1], y[inside], ends[1:]))
    left, width = cost[:-1], np.diff(cost)
    logs = np.log1p(width / left)
    wide = width > _SHORT * left
    slope = np.divide(np.diff(quality), width, out=np.zeros_like(width), where=wide)
    straight = quality[:-1] * logs + slope * (width - left * logs)
    short = (quality[:-1] + quality[1:]) / 2 * logs
    return float(np.where(wide, straight, short).sum() / np.log(high / low))


def area_in_steps(curve: DeferralCurve) -> float:
    """Return the area when a budget buys the dearest single operating point it can pay for."""
    return curve.area(interpolation="step", left="flat")


def area_of_hull(curve: DeferralCurve) -> float:
    """Return the area under the non-decreasing concave hull of the test points, RouterBench's reading of a curve.

    The hull is drawn after the fact: which points lie on it depends on test labels.
    """
    low, high = curve.model_cost.min(), curve.model_cost.max()
    x, y = concave_envelope(*curve.points)
    top = int(np.argmax(y))
    if high <= low:
        return float(y[top])
    x, y = np.clip([low, *x[: top + 1], high], low, high), np.array([y[0], *y[: top + 1], y[top]])
    return float(np.trapezoid(y, x) / (high - low))


def of_curve(measure: Callable[[DeferralCurve], float]) -> Value:
    """Return the value that reads another number off the trial's own curve."""
    return lambda again, method: measure(again.trial.curves[method])


# ---------------------------------------------------------------------------------------------------------------------
# 3, 4: QNC
# ---------------------------------------------------------------------------------------------------------------------


def _best_on_validation(again: TrialAgain) -> int:
    best = routers.BestSingle().fit(again.validation, again.z("validation"))
    return again.validation.models.index(best.best_)


def qnc_to_llm_chosen_on_validation(again: TrialAgain, method: str) -> float:
    """Return the capped QNC that matches, on test prompts, the LLM most accurate on validation prompts."""
    curve, best = again.trial.curves[method], _best_on_validation(again)
    return min(curve.qnc(reference=(curve.model_quality[best], curve.model_cost[best])), 1.0)


def qnc_to_validation_accuracy(again: TrialAgain, method: str) -> float:
    """Return the capped QNC that matches the best validation accuracy of any unseen LLM."""
    curve, best = again.trial.curves[method], _best_on_validation(again)
    accuracy = routers.observed_mean(again.validation.quality)[best]
    return min(curve.qnc(reference=(accuracy, curve.model_cost[best])), 1.0)


def without_finite_qnc(again: TrialAgain, method: str) -> float:
    """Return 1 when the most accurate unseen LLM is never matched, so that an uncapped QNC is infinite; otherwise 0."""
    return float(not np.isfinite(again.trial.curves[method].qnc()))


# ---------------------------------------------------------------------------------------------------------------------
# 6 to 8: costs, ties, empty clusters
# ---------------------------------------------------------------------------------------------------------------------


def cost_per_prompt(again: TrialAgain, method: str) -> float:
    """Return the area when the router knows and pays each call's own price."""
    return area_on(again.estimates[method], again.priced.subset(again.split.test, again.split.unseen))


def dearer_of_equals(quality_hat: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Return estimates [N, M] of which equal ones are lifted a hair by the rank of their LLM's cost [M].

    A lift far below any difference between two estimates routes ties to the dearer LLM at small lambda and moves
    every other breakpoint by as little.
    """
    rank = np.argsort(np.argsort(cost, kind="stable"), kind="stable")
    return quality_hat + _TIE * rank / len(cost)


def ties_to_the_dearer(again: TrialAgain, method: str) -> float:
    """Return the area when of equal estimates the dearer LLM is called."""
    return again.area_of(dearer_of_equals(again.estimates[method], again.test.mean_cost))


def error_one_where_empty(psi: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return Psi [K, M] with error 1 wherever it rests on no prompt: never call an LLM unseen in a cluster."""
    return np.where(counts > 0, psi, 1.0)


def nearest_where_empty(psi: np.ndarray, counts: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return Psi [K, M] in which an entry that rests on no prompt is that of the nearest cluster with one.

    Parameters
    ----------
    psi : ndarray, [K, M]
    counts : ndarray of int, [K, M]
    centroids : ndarray, [K, D]
    """
    distance = np.linalg.norm(centroids[:, None] - centroids[None], axis=2)
    filled = psi.copy()
    for cluster, model in np.argwhere(counts == 0):
        filled[cluster, model] = psi[np.where(counts[:, model] > 0, distance[cluster], np.inf).argmin(), model]
    return filled


def most_clusters(again: TrialAgain) -> int:
    """Return the largest candidate of Appendix G.5, where clusters are most often empty; the tuned K if there is none.

    See `g5_candidates`.
    """
    return max(again.g5_candidates, default=again.tuned("k-means"))


def _k(again: TrialAgain, many: bool) -> int:
    return most_clusters(again) if many else again.tuned("k-means")


def _features(again: TrialAgain, k: int) -> tuple[np.ndarray, np.ndarray]:
    return again.clusters(k).represent(again.validation, again.z("validation"))


def area_with_many_clusters(again: TrialAgain, method: str) -> float:
    """Return the area of UniRoute (K-means) with `most_clusters`, empty ones treated as ours."""
    return again.area_of(again.by_clusters(most_clusters(again)))


def never_where_empty(*, many: bool = False) -> Value:
    """Return the value of error 1 for an LLM without a label in a cluster, at the tuned K or with `most_clusters`."""

    def value(again: TrialAgain, method: str) -> float:
        k = _k(again, many)
        return again.area_of(again.by_clusters(k, error_one_where_empty(*_features(again, k))))

    return value


def neighbour_where_empty(*, many: bool = False) -> Value:
    """Return the value of the nearest labelled cluster's error, at the tuned K or with `most_clusters`."""

    def value(again: TrialAgain, method: str) -> float:
        k = _k(again, many)
        filled = nearest_where_empty(*_features(again, k), again.clusters(k).centroids_)
        return again.area_of(again.by_clusters(k, filled))

    return value


def share_empty(*, many: bool = False) -> Value:
    """Return the value: share of Psi's entries (cluster, unseen LLM) that rest on no validation prompt."""
    return lambda again, method: float(np.mean(_features(again, _k(again, many))[1] == 0))


# ---------------------------------------------------------------------------------------------------------------------
# 9, 10, 26: K
# ---------------------------------------------------------------------------------------------------------------------


def coarse_grid(again: TrialAgain, method: str) -> float:
    """Return the area when only the smallest and the largest K are candidates."""
    selection = again.trial.selections[method]
    best = selection.grid[0] if selection.areas[0] >= selection.areas[-1] else selection.grid[-1]
    return again.area_of(again.by_clusters(best))


def g5_candidates(n_validation: int, n_train: int) -> list[int]:
    """Return the K of Appendix G.5 that leave at least ten validation prompts to a cluster."""
    return [k for k in G5_GRID if k <= min(n_validation // _G5_PROMPTS, n_train)]


def static_grid(again: TrialAgain, method: str) -> float:
    """Return the area of UniRoute (K-means) with K chosen from Appendix G.5's candidates; NaN where none is left."""
    if not again.g5_candidates:
        return np.nan
    judged, z = again.part("validation", again.split.seen), again.z("validation")
    picked = choose(lambda k: routers.quality_for(again.clusters(k), z, judged.models), again.g5_candidates, judged)
    return again.area_of(again.by_clusters(picked.best))


def tuned_once(again: TrialAgain, method: str) -> float:
    """Return the area with the K of the largest mean validation area over the run's trials."""
    estimate = again.by_clusters if method == "k-means" else again.by_neighbours
    return again.area_of(estimate(again.once[method].best))


def hindsight(again: TrialAgain, method: str) -> float:
    """Return the largest area on the test prompts over all candidates K: no choice of K could do better.

    NaN in a trial that was not run with every candidate, as most are where K was tuned once per dataset.
    """
    if len(again.trial.area_by_clusters) < len(again.trial.selections[method].grid):
        return np.nan
    return max(again.trial.area_by_clusters.values())


def nearest_others(embeddings: np.ndarray, n_neighbours: int) -> np.ndarray:
    """Return each prompt's nearest *other* prompts by Euclidean distance, nearest first, [N, n_neighbours] of int."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=n_neighbours).fit(embeddings).kneighbors(return_distance=False)


def neighbour_means(quality: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Return each prompt's mean label over its neighbours [N, k], [N, M], unobserved labels left out.

    A model observed on none of a prompt's neighbours is given its mean over all prompts.
    """
    seen = ~np.isnan(quality)
    counts = seen[neighbours].sum(axis=1)
    totals = np.where(seen, quality, 0.0)[neighbours].sum(axis=1)
    overall = np.broadcast_to(routers.observed_mean(quality), quality.shape).copy()
    return np.divide(totals, counts, out=overall, where=counts > 0)


def tuned_among_validation_prompts(again: TrialAgain, method: str) -> float:
    """Return K-NN's area when its K is tuned at the density it is used at.

    Candidates are judged on the seen LLMs as in Appendix G.2, but each validation prompt's neighbours are the *other*
    validation prompts (leave one out), as dense as they are for a test prompt.
    """
    judged = again.part("validation", again.split.seen)
    grid = [k for k in again.trial.selections[method].grid if k < len(judged)]
    if not grid:
        return np.nan
    nearest = nearest_others(again.z("validation"), grid[-1])
    picked = choose(lambda k: neighbour_means(judged.quality, nearest[:, :k]), grid, judged)
    return again.area_of(again.by_neighbours(picked.best))


def untuned(again: TrialAgain, method: str) -> float:
    """Return the area with the K of Math+Code (Appendix G.3): N_val / 50 clusters, the root of N_val neighbours."""
    n = len(again.validation)
    if method == "k-means":
        return again.area_of(again.by_clusters(max(n // 50, 1)))
    return again.area_of(again.by_neighbours(round(n**0.5)))


# ---------------------------------------------------------------------------------------------------------------------
# 11 to 14: clustering and splits
# ---------------------------------------------------------------------------------------------------------------------


def one_start(again: TrialAgain, method: str) -> float:
    """Return the area when K-means starts once."""
    router = again.router(method).set_params(n_init=1)
    return refit(router, again.benchmark, again.embeddings, again.split).area()


def standardised(embeddings: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Return embeddings [N, D] less the mean of the rows `train`, by their deviation; a constant dimension is 0."""
    from sklearn.preprocessing import StandardScaler

    return StandardScaler().fit(embeddings[train]).transform(embeddings)


def on_standardised_embeddings(again: TrialAgain, method: str) -> float:
    """Return the area when each dimension of the embedding is standardised first."""
    z = standardised(again.embeddings, again.split.train)
    return refit(again.router(method), again.benchmark, z, again.split).area()


def _gain_with(again: TrialAgain, method: str, split: Split) -> float:
    """Return the gain over ZeroRouter with other LLMs unseen on the trial's own prompts, whose clusters stay as is."""
    validation, test = (again.benchmark.subset(rows, split.unseen) for rows in (split.validation, split.test))
    z = again.embeddings[split.validation], again.embeddings[split.test]
    if method == "k-means":
        clusters = again.clusters(again.tuned(method))
        estimate = 1.0 - clusters.represent(validation, z[0])[0][clusters.assign(z[1])]
    else:
        estimate = again.router(method).fit(validation, z[0]).predict_quality(z[1])
    zero = routers.ZeroRouter().fit(validation, z[0]).predict_quality(z[1])
    return area_on(estimate, test) - area_on(zero, test)


def fixed_partition(again: TrialAgain, method: str) -> float:
    """Return the gain over ZeroRouter with the first trial's seen and unseen LLMs."""
    split = replace(again.split, seen=again.first.split.seen, unseen=again.first.split.unseen)
    return _gain_with(again, method, split)


def one_more_seen(again: TrialAgain, method: str) -> float:
    """Return the gain over ZeroRouter with one LLM more in training; NaN where no two would stay unseen."""
    split = again.split
    if len(split.unseen) < 3:
        return np.nan
    share = (len(split.seen) + 1.5) / len(again.benchmark.models)
    other = again.params.model_copy(update={"train_llm_share": share})
    return _gain_with(again, method, draw_split(again.benchmark, other, again.number))


def tenth_for_validation(again: TrialAgain, method: str) -> float:
    """Return the area with 10 % of the prompts for validation: other training prompts, the same test prompts."""
    n_validation = round(0.1 * len(again.benchmark))
    other = again.params.model_copy(update={"n_validation": n_validation})
    router = again.router(method)
    if method == "k-nn":
        router.set_params(n_neighbours=min(router.n_neighbours, n_validation))
    return refit(router, again.benchmark, again.embeddings, draw_split(again.benchmark, other, again.number)).area()


# ---------------------------------------------------------------------------------------------------------------------
# 15 to 18: LearnedMap
# ---------------------------------------------------------------------------------------------------------------------


class FeaturesFrom(routers.KMeans):
    """K-means whose known LLMs keep the features Psi they were given, whatever labels they are represented by later.

    Parameters
    ----------
    clusters
        A fitted K-means, which is not changed.
    benchmark
        Labels to describe its LLMs by, in place of their training labels.
    embeddings : ndarray, [N, D]
    """

    def __init__(self, clusters: routers.KMeans, benchmark: RoutingBenchmark, embeddings: np.ndarray):
        vars(self).update(vars(clusters))
        self.clusters, self.benchmark, self.embeddings = clusters, benchmark, embeddings
        self.models_ = list(benchmark.models)
        self.psi_, self.counts_ = clusters.represent(benchmark, embeddings)

    def represent(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the features given for the LLMs known, Psi [K, M] and counts [K, M]; Eq. (12) for others."""
        if list(benchmark.models) == self.models_:
            return self.psi_, self.counts_
        return super().represent(benchmark, embeddings)


def learned_map(*, k_of: str = "learned-map", **changed: str | float) -> Value:
    """Return the value of LearnedMap with other arguments, with the K of `k_of`."""

    def value(again: TrialAgain, method: str) -> float:
        k = again.tuned(k_of)
        if not changed and k == again.tuned(method):
            return area(again, method)
        router = LearnedMap(n_clusters=k, seed=again.seed, clustering=again.clusters(k), **changed)
        return refit(router, again.benchmark, again.embeddings, again.split).area()

    return value


def trained_on_validation_features(again: TrialAgain, method: str) -> float:
    """Return LearnedMap's area when the seen LLMs' Psi comes from validation labels (Section 5.2)."""
    k = again.tuned(method)
    clusters = FeaturesFrom(again.clusters(k), again.part("validation", again.split.seen), again.z("validation"))
    router = LearnedMap(n_clusters=k, seed=again.seed, clustering=clusters)
    return refit(router, again.benchmark, again.embeddings, again.split).area()


# ---------------------------------------------------------------------------------------------------------------------
# 19 to 21: the other routers
# ---------------------------------------------------------------------------------------------------------------------


def _retrained(again: TrialAgain, method: str, rank: int | None = None) -> routers.MLP | routers.MatrixFactorization:
    if method == "retrained-mlp":
        return routers.MLP(seed=again.seed)
    return routers.MatrixFactorization(rank=rank or again.tuned("matfac"), seed=again.seed)


def checkpoint_on_a_fifth(again: TrialAgain, method: str) -> float:
    """Return a retrained router's area when trained on 4/5 of the validation prompts, its epoch kept on the rest."""
    order = np.random.default_rng([again.params.seed, again.number]).permutation(len(again.validation))
    fifth = len(order) // 5
    kept, learned = ((again.validation.subset(rows), again.z("validation")[rows]) for rows in np.split(order, [fifth]))
    router = _retrained(again, method).fit(*learned, validation=kept)
    return again.area_of(router.predict_quality(again.z("test")))


def rank(place: Literal[0, -1]) -> Value:
    """Return the value of retrained matrix factorisation with the smallest (0) or the largest (-1) rank tried."""

    def value(again: TrialAgain, method: str) -> float:
        router = _retrained(again, method, RANKS[place]).fit(again.validation, again.z("validation"))
        return again.area_of(router.predict_quality(again.z("test")))

    return value


def hull_on_test(again: TrialAgain, method: str) -> float:
    """Return ZeroRouter's area when its mixture is chosen by the LLMs' *test* accuracy."""
    z = again.z("test")
    return again.area_of(routers.ZeroRouter().fit(again.test, z).predict_quality(z))


# ---------------------------------------------------------------------------------------------------------------------
# 23: another encoder
# ---------------------------------------------------------------------------------------------------------------------


def tfidf_embeddings(prompts: Sequence[str], train: np.ndarray, seed: int) -> np.ndarray:
    """Embed prompts by latent semantic analysis: TF-IDF, a truncated SVD, unit length.

    Parameters
    ----------
    prompts : sequence of str, length N
    train : ndarray of int
        Rows that vocabulary, weights and directions are learned from.
    seed
        Of the randomised SVD.

    Returns
    -------
    ndarray of float32, [N, D]
        D is 384, as MiniLM's, or less where the training prompts or their words are fewer. A prompt of words never
        seen in training is the zero vector.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    words = TfidfVectorizer(dtype=np.float32).fit([prompts[row] for row in train])
    weights = words.transform(prompts)
    width = max(min(TFIDF_DIMENSIONS, len(train) - 1, weights.shape[1] - 1), 1)
    # With several threads the last bits vary from run to run.
    with one_thread():
        directions = TruncatedSVD(width, random_state=seed).fit(weights[train])
        return normalize(directions.transform(weights))


def with_tfidf(again: TrialAgain, method: str) -> float:
    """Return the area on `tfidf_embeddings`; NaN on simulated data, whose prompts say nothing."""
    if again.benchmark.origin == "simulated":
        return np.nan
    return refit(again.router(method), again.benchmark, again.tfidf, again.split).area()
