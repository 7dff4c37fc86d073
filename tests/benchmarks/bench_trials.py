"""How long do 400 trials of UniRoute's experiment take? Run: ``python tests/benchmarks/bench_trials.py``.

Runs trials at EmbedLLM's size, 36,054 prompts and 112 models, on a simulated mixture with embeddings of 384
dimensions, split as in the paper: 60 % training, 10 % validation and 30 % test prompts, two thirds of the models seen.
K and the rank are tuned once, on the first five trials. Printed are seconds a trial, where the time goes, alone and
trained side by side with others, the peak memory, and what that makes for 400 trials. For comparison one trial is
tuned without sharing anything: every candidate fitted anew for every method, and the best fitted once more;
``--no-unshared`` leaves it out. ``--starts 10`` shows what more starts of K-means cost and bring: the area of UniRoute
(K-means) is printed.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "shared")]

from replications.uniroute import trials  # noqa: E402
from replications.uniroute.learned_map import LearnedMap  # noqa: E402
from replications.uniroute.params import UniRouteParams  # noqa: E402
from replications.uniroute.selection import select  # noqa: E402
from routebook import routers  # noqa: E402
from routebook.benchmark import RoutingBenchmark  # noqa: E402
from routebook.datasets.simulated import mixture  # noqa: E402
from routebook.threads import one_thread  # noqa: E402

WIDTH, CLUSTERS = 384, 20
FULL = 400
PARTS = {
    "clustering": [(routers.KMeans, "fit")],
    "neighbours": [(routers.KNN, "fit"), (routers.KNN, "predict_by_neighbours")],
    "curves": [(trials, "deferral_curve")],
}


def make(path: str, n: int, m: int) -> None:
    """Write a simulated problem: clusters close to each other, errors that also vary within them."""
    benchmark, _ = mixture(n, m, CLUSTERS, WIDTH, separation=4.0, deviation=0.2, normalise=True, seed=0)
    z = benchmark.embeddings.astype(np.float32)
    np.savez(path, quality=benchmark.quality, price=benchmark.mean_cost, tasks=benchmark.tasks, z=z)


def problem(n: int, m: int) -> tuple[RoutingBenchmark, np.ndarray]:
    """Make the problem in a process of its own, whose memory does not count, and read it."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "problem.npz")
        subprocess.run([sys.executable, __file__, "--make", path, "--prompts", str(n), "--models", str(m)], check=True)
        with np.load(path) as saved:
            benchmark = RoutingBenchmark(
                name="simulated",
                prompts=[f"prompt {i}" for i in range(n)],
                tasks=saved["tasks"],
                models=[f"model {j}" for j in range(m)],
                quality=saved["quality"],
                cost=np.tile(saved["price"], (n, 1)),
                cost_unit="simulated units",
                origin="simulated",
            )
            return benchmark, saved["z"]


@contextmanager
def timed_parts(seconds: dict[str, float]):
    """Add the seconds that each part takes to `seconds`."""

    def timed(function, part):
        def call(*args, **kwargs):
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[part] += time.process_time() - start

        return call

    def by_kind(group, problems, validations=None):
        part = (
            "LearnedMap" if isinstance(group[0], LearnedMap) else "retrained" if validations is None else "clairvoyant"
        )
        return timed(fit_together, part)(group, problems, validations)

    fit_together = routers.fit_together
    with ExitStack() as stack:
        for part, places in PARTS.items():
            for owner, name in places:
                stack.enter_context(patch.object(owner, name, timed(getattr(owner, name), part)))
        stack.enter_context(patch.object(routers, "fit_together", by_kind))
        yield


def unshared_trial(benchmark: RoutingBenchmark, z: np.ndarray, params: UniRouteParams, trial: int) -> None:
    """Fit a trial's routers with nothing shared between candidates or methods, as `selection.select` alone would."""
    split = trials.draw_split(benchmark, params, trial)
    train, tuning = (benchmark.subset(rows, split.seen) for rows in (split.train, split.validation))
    new = benchmark.subset(split.validation, split.unseen)
    test = benchmark.subset(split.test, split.unseen)
    makers = {
        lambda k: routers.KNN(k): params.neighbours_tried,
        lambda k: routers.KMeans(k, n_init=params.kmeans_starts): params.clusters_tried,
        lambda k: LearnedMap(
            k, clustering=routers.KMeans(k, n_init=params.kmeans_starts).fit(train, z[split.train])
        ): params.clusters_tried,
        lambda rank: routers.MatrixFactorization(rank): trials.RANKS,
    }
    for make_router, grid in makers.items():
        best = select(make_router, grid, train, z[split.train], tuning, z[split.validation]).best
        router = make_router(best)
        if router.dynamic:
            router.fit(train, z[split.train]).add_models(new, z[split.validation])
            trials.deferral_curve(routers.quality_for(router, z[split.test], test.models), test.quality, test.cost)
    setting = trials._Setting.of(benchmark, z, split, trial)
    for router in trials._static_routers([setting], [best])[0].values():
        setting.curve(router)


def own_peak() -> float:
    """Peak resident GiB of this process and of its largest worker together (bytes on macOS, kilobytes elsewhere)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return (
        sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        * unit
        / 2**30
    )


def report_parts(benchmark: RoutingBenchmark, z: np.ndarray, params: UniRouteParams, chosen) -> float:
    """Print where the processor time of a trial goes, alone and in a group; return its seconds alone."""
    alone, together = (
        [(i, trials.draw_split(benchmark, params, i)) for i in range(n)] for n in (1, trials.SIDE_BY_SIDE)
    )
    trials.run_group(benchmark, z, params, alone, chosen)  # what is loaded on first use
    totals, parts = [], []
    for given in (alone, together):
        seconds: dict[str, float] = defaultdict(float)
        start = time.process_time()
        with timed_parts(seconds):
            trials.run_group(benchmark, z, params, given, chosen)
        total = time.process_time() - start
        seconds["the rest"] = total - sum(seconds.values())
        totals.append(total / len(given))
        parts.append({part: spent / len(given) for part, spent in seconds.items()})
    print(
        f"\na trial alone: {totals[0]:.1f} s of processor time; one of {len(together)} side by side: {totals[1]:.1f} s"
    )
    for part in ("clustering", "neighbours", "LearnedMap", "retrained", "clairvoyant", "curves", "the rest"):
        print(f"  {part:<12} {parts[0][part]:6.2f} s  {parts[1][part]:6.2f} s  {parts[1][part] / totals[1]:5.0%}")
    print(f"without the clairvoyant routers {1 - parts[1]['clairvoyant'] / totals[1]:.0%} of that time")
    return totals[0]


def report_unshared(benchmark: RoutingBenchmark, z: np.ndarray, params: UniRouteParams, tuned_once: float) -> None:
    """Print the processor time of the same trial tuned for itself without and with sharing, and the ratios."""
    seconds = []
    for run in (unshared_trial, trials.run_trial):
        start = time.process_time()
        with one_thread():
            run(benchmark, z, params, 1)
        seconds.append(time.process_time() - start)
    plain, shared = seconds
    print(f"tuned in the trial, nothing shared: {plain:.0f} s; shared: {shared:.0f} s, {plain / shared:.1f} times less")
    print(f"tuned once per dataset: {plain / tuned_once:.0f} times less")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=36_054)
    parser.add_argument("--models", type=int, default=112)
    parser.add_argument("--starts", type=int, default=1, help="starts of K-means")
    parser.add_argument("--jobs", type=int, help="processes; default: one a processor")
    parser.add_argument("--no-unshared", action="store_true", help="leave the comparison out")
    parser.add_argument("--make", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.make:
        make(args.make, args.prompts, args.models)
        return
    benchmark, z = problem(args.prompts, args.models)
    common = {"n_validation": args.prompts // 10, "train_llm_share": 2 / 3, "kmeans_starts": args.starts}
    params = UniRouteParams(n_trials=args.trials, **common)
    tuning_params = UniRouteParams(n_trials=min(params.tuning_trials, args.trials), **common)

    start = time.perf_counter()
    tuning = trials.run_trials(benchmark, z, tuning_params, n_jobs=args.jobs)
    tuned = time.perf_counter() - start
    chosen = trials.tuned_selections(tuning)
    start = time.perf_counter()
    done = trials.run_trials(benchmark, z, params, n_jobs=args.jobs, selections=chosen)
    each = (time.perf_counter() - start) / len(done)
    minutes = (tuned + FULL * each) / 60
    area = np.mean([trial.curves["k-means"].area() for trial in done])
    kept = (
        sum(a.nbytes for t in done for c in t.curves.values() for a in (c.lam, c.cost, c.quality, c.observed)) / 2**30
    )
    print(f"{args.prompts} prompts x {args.models} models, {args.starts} starts of K-means, {len(done)} trials")
    print("tuned to " + ", ".join(f"{method}: {choice.best}" for method, choice in chosen.items()))
    print(f"tuning on {len(tuning)} trials: {tuned:.0f} s; then {each:.2f} s a trial")
    print(f"{FULL} trials: {minutes:.1f} minutes")
    print(f"peak memory, this process and its largest worker: {own_peak():.2f} GiB")
    print(f"curves kept: {kept:.2f} GiB, for {FULL} trials {kept * FULL / len(done):.1f} GiB")
    print(f"mean area of UniRoute (K-means): {area:.5f}")
    shared = report_parts(benchmark, z, params, chosen)
    if not args.no_unshared:
        report_unshared(benchmark, z, params, shared)


if __name__ == "__main__":
    main()
