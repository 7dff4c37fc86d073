"""How does RadialFormer's time grow with the pool? Run: ``python tests/benchmarks/bench_radialformer.py``.

Prints the time of a forward pass for a batch of 64 queries, one torch thread, for pools of 8 to 1,024 LLMs and all
four architectures at equal width, depth and heads, the fitted log-log slopes from 64 LLMs on, and how many times as
long `torch.nn.TransformerEncoder` takes as RadialFormer at n = 128 (asked for: at least 4). The exit code is 1 if that
is missed. The Transformer's feed-forward width is 4 d; with torch's default, 2048, it would be slower at d < 512.

``--training`` also times 12 routers trained one by one and side by side (`fit_many`).
"""

from __future__ import annotations

import argparse
import time

from replications.radialrouter.complexity import SIZES, forward_times, ratio, slopes
from replications.radialrouter.radial_router import QUICK, RadialRouter, fit_many, query_groups
from routebook.datasets.simulated import mixture

MIN_RATIO, AT = 4.0, 128


def training(n_routers: int, steps: int, **shape: int) -> tuple[float, float]:
    """Return milliseconds of processor time a router and step: trained one by one, and side by side."""
    benchmark, _ = mixture(1500, 11, 6, 384)
    groups = query_groups(benchmark.embeddings, 8, dims=0)

    def routers() -> list[RadialRouter]:
        settings = {**QUICK, **shape, "steps": steps, "groups": groups, "cost_scale": 1.0}
        return [RadialRouter(alpha=0.001, seed=seed, **settings) for seed in range(n_routers)]

    spent = []
    for at_once in (1, n_routers):
        fit_many(routers()[:2], benchmark, benchmark.embeddings, at_once=at_once)
        start = time.process_time()
        fit_many(routers(), benchmark, benchmark.embeddings, at_once=at_once)
        spent.append(1000 * (time.process_time() - start) / n_routers / steps)
    return spent[0], spent[1]


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-width", type=int)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds for the table, about")
    parser.add_argument("--training", action="store_true")
    args = parser.parse_args()
    settings = {name: getattr(args, name) for name in ("width", "layers", "heads", "head_width", "repeats", "budget")}
    times = forward_times(args.sizes, **settings)
    print(f"milliseconds a batch of 64 queries, d = {args.width}, T = {args.layers}, {args.heads} heads")
    print(times.pivot(index="n", columns="backbone", values="ms").round(2).to_string(na_rep="-"))
    print("slope from n = 64:", {name: round(slope, 2) for name, slope in slopes(times).items()})
    found = ratio(times, AT)
    print(f"transformer / radialformer at n = {AT}: {found:.1f} (asked for: at least {MIN_RATIO:g})")
    if args.training:
        for shape in ({"width": 128, "head_width": 32}, {}):
            alone, together = training(12, 20, **shape)
            label = {**QUICK, **shape}
            print(
                f"training 12 routers, d = {label['width']}: {alone:.1f} ms a router and step one by one, "
                f"{together:.1f} side by side ({alone / together:.1f}x), processor time"
            )
    return int(not found >= MIN_RATIO)


if __name__ == "__main__":
    raise SystemExit(main())
