"""How fast is the exact deferral curve? Run: ``python tests/benchmarks/bench_deferral.py``.

Compares `routebook.deferral.deferral_curve` with a vectorised sweep over 100 values of λ on the same numbers in the
same process, alternating between the two, and prints the ratio of median times (asked for: at most 0.6) and the peak
memory of a process that only makes the problem and its curve (asked for: under 2 GiB). The exit code is 1 if either
is missed on estimates such as routers make. The worst case, "concave", is printed too and held to the memory only:
four million distinct breakpoints take longer to sort than a sweep that looks at a hundred of them.

The sweep is written as well as we can: rows in blocks that fit the processor's cache, buffers allocated once, no
temporaries. The default size is EmbedLLM's, 36,054 prompts and 112 models.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import numpy as np

from routebook.deferral import DeferralCurve, deferral_curve

ESTIMATES = ("noise", "skill", "clusters", "concave")
MAX_RATIO, MAX_GIB = 0.6, 2.0


def problem(n: int, m: int, per_prompt: bool, estimates: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make estimates and outcomes [n, m] and costs [m] or [n, m].

    "noise": estimates unrelated to cost; "skill": dearer models are better, as in real pools; "clusters": estimates
    shared by all prompts of one of 64 clusters; "concave": the worst case, every model on every prompt's envelope.
    """
    rng = np.random.default_rng(0)
    cost = np.sort(rng.lognormal(sigma=1.5, size=m))
    if estimates == "noise":
        g = rng.random((n, m))
    elif estimates == "concave":
        g = np.sqrt(cost) / np.sqrt(cost[-1]) * rng.uniform(0.5, 1.0, (n, 1))
    else:
        rows = n if estimates == "skill" else 64
        g = 1 / (1 + np.exp(-rng.normal(size=(rows, 1)) - 0.4 * np.log(cost) - 0.5 * rng.normal(size=(rows, m))))
        g = g if estimates == "skill" else g[rng.integers(0, rows, n)]
    quality = (rng.random((n, m)) < g).astype(float)
    order = rng.permutation(m)
    paid = cost * rng.lognormal(sigma=0.3, size=(n, m)) if per_prompt else cost
    return g[:, order].copy(), quality[:, order].copy(), paid[..., order].copy()


def sweep(g: np.ndarray, quality: np.ndarray, cost: np.ndarray, lambdas: np.ndarray) -> np.ndarray:
    """Mean cost and quality [L, 2] at each λ, by evaluating every score."""
    n, m = g.shape
    block = min(n, 512)
    score, pick = np.empty((block, m)), np.empty(n, dtype=np.intp)
    base, flat_quality = np.arange(n) * m, quality.ravel()
    found = np.empty((len(lambdas), 2))
    for i, lam in enumerate(lambdas):
        penalty = lam * cost if cost.ndim == 1 else None
        for start in range(0, n, block):
            rows = slice(start, min(n, start + block))
            out = score[: rows.stop - start]
            if penalty is None:
                np.multiply(cost[rows], -lam, out=out)
                np.add(out, g[rows], out=out)
            else:
                np.subtract(g[rows], penalty, out=out)
            np.argmax(out, axis=1, out=pick[rows])
        at = base + pick
        paid = np.take(cost, pick) if cost.ndim == 1 else np.take(cost.ravel(), at)
        found[i] = paid.mean(), np.take(flat_quality, at).mean()
    return found


def lambda_grid(curve: DeferralCurve, size: int = 100) -> np.ndarray:
    """Trade-offs over the range in which anything changes, each amid a piece: at a breakpoint rounding decides."""
    low, high = np.quantile(curve.lam[1:], [0.01, 1.0])
    piece = np.searchsorted(curve.lam, np.geomspace(low, high, size), side="right") - 1
    ends = np.append(curve.lam, 2 * curve.lam[-1])
    return (ends[piece] + ends[piece + 1]) / 2


def compare(g, quality, cost, repeats: int) -> tuple[float, float, float]:
    """Return median seconds of curve and sweep, and the largest disagreement between them."""
    curve = deferral_curve(g, quality, cost)
    lambdas = lambda_grid(curve)
    seconds = np.empty((repeats, 2))
    for i in range(repeats):
        start = time.perf_counter()
        curve = deferral_curve(g, quality, cost)
        middle = time.perf_counter()
        found = sweep(g, quality, cost, lambdas)
        seconds[i] = middle - start, time.perf_counter() - middle
    worst = max(
        np.abs(curve.at_lambda(lambdas)[0] / found[:, 0] - 1).max(),
        np.abs(curve.at_lambda(lambdas)[1] - found[:, 1]).max(),
    )
    return *np.median(seconds, axis=0), worst


def peak_memory(n: int, m: int, per_prompt: bool, estimates: str) -> float:
    """Peak resident GiB of a fresh process that makes the problem and computes its curve."""
    command = [sys.executable, __file__, "--memory-of", estimates, "--prompts", str(n), "--models", str(m)]
    command += ["--per-prompt"] if per_prompt else []
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def own_peak() -> float:
    """Peak resident GiB of this process (ru_maxrss counts bytes on macOS and kilobytes elsewhere)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def main() -> int:
    """Print one line a case; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=36_054)
    parser.add_argument("--models", type=int, default=112)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--estimates", nargs="+", choices=ESTIMATES, default=ESTIMATES)
    parser.add_argument("--memory-of", choices=ESTIMATES, help=argparse.SUPPRESS)
    parser.add_argument("--per-prompt", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        deferral_curve(*problem(args.prompts, args.models, args.per_prompt, args.memory_of))
        print(own_peak())
        return 0
    print(f"{args.prompts} prompts x {args.models} models, median of {args.repeats}")
    print(f"{'estimates':<10} {'cost':<7} {'curve s':>8} {'sweep s':>8} {'ratio':>6} {'GiB':>5} {'disagreement':>13}")
    missed = False
    for estimates in args.estimates:
        for per_prompt in (False, True):
            curve_s, sweep_s, worst = compare(
                *problem(args.prompts, args.models, per_prompt, estimates), repeats=args.repeats
            )
            gib = peak_memory(args.prompts, args.models, per_prompt, estimates)
            ratio, shape = curve_s / sweep_s, "[N, M]" if per_prompt else "[M]"
            print(f"{estimates:<10} {shape:<7} {curve_s:8.3f} {sweep_s:8.3f} {ratio:6.2f} {gib:5.2f} {worst:13.1e}")
            missed |= (ratio > MAX_RATIO and estimates != "concave") or gib > MAX_GIB
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
