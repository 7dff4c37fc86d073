"""How long does one lookup take? Run: ``python tests/benchmarks/bench_lookup.py``.

Prints microseconds a prompt of finding the k most similar experts and choosing among them by cost (CSCR Eq. (9)), one
prompt at a time and in batches of 10,000, for pools of 10 to 100,000 experts: three faiss indexes, scikit-learn's
NearestNeighbors and a NumPy argmax on the same numbers in the same run, one thread. Asked for: under 20 µs for one
lookup over at most 112 experts on a quiet core, and in a batch a twentieth of what a lookup alone takes, or less. For
these pools the batch is timed on all processors as well, and may use them. The exit code is 1 if the flat index misses.

``--embedding`` adds what embedding the prompt costs (MiniLM, never from the cache).
"""

from __future__ import annotations

import argparse

from replications.cscr.lookup import KINDS, N_QUERIES, RIVALS, SIZES, embedding_times, measure_lookup
from routebook.threads import processes

MAX_SINGLE_US, MIN_RATIO, POOL = 20.0, 20.0, 112
PROMPTS = [f"Question {i}: which of these {i + 2} answers is right, and why?" for i in range(128)]


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--kinds", nargs="+", default=[*KINDS, *RIVALS])
    parser.add_argument("--queries", type=int, default=N_QUERIES)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each time, about")
    parser.add_argument("--embedding", action="store_true")
    args = parser.parse_args()
    embedding = embedding_times("minilm", PROMPTS) if args.embedding else None
    options = {"n_queries": args.queries, "width": args.width, "seconds": args.seconds, "embedding": embedding}
    found = measure_lookup(args.sizes, args.kinds, **options)
    columns = ["us", "us_with_embedding"] if embedding else ["us"]
    for column in columns:
        print(f"\nmicroseconds a prompt{' with its embedding' if column != 'us' else ''}, {args.width} dimensions")
        print(found.pivot(index=["index", "n"], columns="mode", values=column).round(2).to_string())
    print("\nrecall of the approximate indexes, and seconds to build them")
    approximate = found[found["index"].isin(["hnsw", "ivf"]) & (found["mode"] == "batch")]
    print(approximate[["index", "n", "recall", "build_s"]].round(3).to_string(index=False))
    missed, processors = False, processes()
    for threads in sorted({1, processors}):
        again = measure_lookup([n for n in args.sizes if n <= POOL], ["flat"], **options, threads=threads)
        for n, row in again.pivot(index="n", columns="mode", values="us").iterrows():
            ratio = row.single / row.batch
            missed |= threads == processors and not (row.single < MAX_SINGLE_US and ratio >= MIN_RATIO)
            said = f"{row.single:.1f} µs alone, {row.batch:.2f} in a batch on {threads} threads, {ratio:.0f}x"
            print(f"flat, {n} experts: {said}")
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
