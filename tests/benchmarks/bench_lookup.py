"""How long does one lookup take? Run: ``python tests/benchmarks/bench_lookup.py``.

Prints microseconds a prompt of finding the k most similar experts and choosing among them by cost (CSCR Eq. (9)), one
prompt at a time and in batches of 10,000, for pools of 10 to 100,000 experts: three faiss indexes, scikit-learn's
NearestNeighbors and a NumPy argmax on the same numbers in the same run, one thread. Asked for: under 20 µs for one
lookup over at most 112 experts on a quiet core, and in a batch at most a twentieth of that, 1 µs. The ratio of the two
is printed too. The exit code is 1 if a limit is missed by the flat index.

``--embedding`` adds what embedding the prompt costs (MiniLM, never from the cache).
"""

from __future__ import annotations

import argparse

from replications.cscr.lookup import KINDS, N_QUERIES, RIVALS, SIZES, embedding_times, measure_lookup

MAX_SINGLE_US, MAX_BATCH_US, POOL = 20.0, 1.0, 112
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
    small = found[(found["index"] == "flat") & (found["n"] <= POOL)].pivot(index="n", columns="mode", values="us")
    missed = False
    for n, row in small.iterrows():
        missed |= not (row.single < MAX_SINGLE_US and row.batch <= MAX_BATCH_US)
        print(
            f"flat, {n} experts: {row.single:.1f} µs alone, {row.batch:.2f} in a batch, {row.single / row.batch:.0f}x"
        )
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
