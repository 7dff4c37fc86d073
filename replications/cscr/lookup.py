"""Routing as a nearest-neighbour lookup: an index of expert descriptors, and what a lookup costs (CSCR Section 3.5)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self

import numpy as np
import pandas as pd

from routebook.errors import UserError, suggest
from routebook.quiet import quiet
from routebook.threads import one_thread

Kind = Literal["flat", "hnsw", "ivf"]
KINDS: tuple[Kind, ...] = ("flat", "hnsw", "ivf")
# Exact searches that use no index, as yardsticks.
RIVALS = ("scikit-learn", "numpy")
SIZES = (10, 112, 1_000, 10_000, 100_000)
N_QUERIES = 10_000
HNSW_LINKS, HNSW_BREADTH, IVF_PROBES = 32, 64, 8
# What is looked up for the recall computes at most this many similarities: 100,000 experts with 100 queries. A timed
# batch computes fewer, as everything else of a build stands still meanwhile.
_CELLS, _TIMED_CELLS = 10_000_000, 2_000_000


class ExpertIndex:
    """The descriptors of a pool in a faiss index; experts come and go by name (Section 3.5).

    Parameters
    ----------
    kind : {"flat", "hnsw", "ivf"}
        "flat": exact, faiss `IndexFlatIP`, the paper's. "hnsw" (32 links, search breadth 64) and "ivf" (sqrt(M) cells,
        8 of them searched) are approximate. All rank by inner product: the cosine, for vectors of unit length.

    Attributes
    ----------
    names : list of str, length M
    vectors : ndarray of float32, [M, D]
    """

    def __init__(self, kind: Kind = "flat"):
        if kind not in KINDS:
            raise UserError(f"kind is {kind!r}, expected one of {', '.join(map(repr, KINDS))}")
        self.kind = kind
        self.names: list[str] = []
        self.vectors = np.empty((0, 0), dtype=np.float32)
        self._index: Any = None

    def __len__(self) -> int:
        return len(self.names)

    def add(self, names: Sequence[str], vectors: np.ndarray) -> Self:
        """Add experts by name, [m, D]; UserError for a name given before, or vectors of another length."""
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(names):
            raise UserError(f"vectors have shape {vectors.shape}, expected [{len(names)}, D]: one an expert")
        together = [*self.names, *names]
        if len(set(together)) < len(together):
            name = next(name for name in names if together.count(name) > 1)
            raise UserError(f"expert {name!r} would be in the index twice; remove the first one")
        if len(self) and vectors.shape[1] != self.vectors.shape[1]:
            raise UserError(
                f"the vectors to add have {vectors.shape[1]} dimensions, those in the index {self.vectors.shape[1]}; "
                "make all descriptors over the same probes or tokens"
            )
        self.names = together
        self.vectors = np.concatenate([self.vectors, vectors]) if self._index is not None else vectors
        if self._index is None or self.kind == "ivf":
            # The cells of an inverted file suit the vectors that it was trained on.
            self._build()
        else:
            with one_thread():
                self._index.add(vectors)
        return self

    def remove(self, names: Sequence[str]) -> Self:
        """Take experts out by name; UserError for a name that is not there, or when none would be left."""
        for name in names:
            if name not in self.names:
                raise UserError(f"the index holds no expert {name!r}{suggest(name, self.names)}")
        gone = set(names)
        keep = [place for place, name in enumerate(self.names) if name not in gone]
        if not keep:
            raise UserError(f"removing {len(gone)} experts would leave the index empty; keep at least one")
        self.names, self.vectors = [self.names[place] for place in keep], self.vectors[keep]
        self._build()
        return self

    def _build(self) -> None:
        import faiss

        n, width = self.vectors.shape
        if self.kind == "flat":
            self._index = faiss.IndexFlatIP(width)
        elif self.kind == "hnsw":
            self._index = faiss.IndexHNSWFlat(width, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efSearch = HNSW_BREADTH
        else:
            cells = max(1, int(n**0.5))
            self._index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
            self._index.nprobe = min(IVF_PROBES, cells)
            # Small pools are allowed; faiss would print a warning.
            self._index.cp.min_points_per_centroid = 1
        with one_thread():
            if not self._index.is_trained:
                self._index.train(self.vectors)
            self._index.add(self.vectors)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the k most similar experts of each query, Top_k of Eq. (9).

        Parameters
        ----------
        queries : ndarray, [N, D]
        k
            At most the number of experts.

        Returns
        -------
        similarity : ndarray of float32, [N, k]
            From the most similar on.
        place : ndarray of int, [N, k]
            Places in `names`; -1 (with similarity -3.4e38) where an approximate index found fewer than k.

        Raises
        ------
        UserError
            When k exceeds the pool, or the queries have another length than the descriptors.
        """
        if not 1 <= k <= len(self.names):
            raise UserError(
                f"k is {k}, but there are {len(self.names)} experts in the index; use k from 1 to {len(self.names)}"
            )
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.vectors.shape[1]:
            raise UserError(f"queries have shape {queries.shape}, expected [prompts, {self.vectors.shape[1]}]")
        return self._index.search(queries, k)

    def choose(self, queries: np.ndarray, cost: np.ndarray, lam: float, k: int) -> np.ndarray:
        """Route each query to the expert of its k most similar with the largest cosine - lam * cost, [N] of places.

        Eq. (9) with the sign that can be meant (CS-19): as printed, argmin of cosine + lam * cost, it would take the
        *least* similar of the k. Of equals the more similar is chosen.

        Parameters
        ----------
        queries : ndarray, [N, D]
        cost : ndarray, [M]
            In the order of `names`.
        """
        similarity, place = self.search(queries, k)
        best = (similarity - lam * cost[place]).argmax(axis=1)  # Eq. (9)
        return place[np.arange(len(place)), best]


def synthetic_pool(n: int, width: int = 192, n_queries: int = N_QUERIES, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Draw descriptors of n experts in families of about ten, [n, width], and queries near them, [n_queries, width].

    All of unit length, float32. Unrelated random vectors would have no near neighbours for an index to find.
    """
    rng = np.random.default_rng(seed)
    family = rng.standard_normal((max(1, n // 10), width), dtype=np.float32)
    experts = family[rng.integers(len(family), size=n)] + 0.7 * rng.standard_normal((n, width), dtype=np.float32)
    queries = experts[rng.integers(n, size=n_queries)] + 0.7 * rng.standard_normal((n_queries, width), dtype=np.float32)
    return tuple(part / np.linalg.norm(part, axis=1, keepdims=True) for part in (experts, queries))


def measure_lookup(
    sizes: Sequence[int] = SIZES,
    kinds: Sequence[str] = (*KINDS, *RIVALS),
    *,
    n_queries: int = N_QUERIES,
    k: int = 4,
    width: int = 192,
    repeats: int = 200,
    seconds: float = 0.5,
    lam: float = 0.1,
    threads: int = 1,
    embedding: Mapping[str, float] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Time the routing of a query that is already in the descriptors' space: Top_k, then cost (Eq. (9)).

    Every way is timed on the same pool, one prompt at a time and in a batch; "numpy" is the plain argmax
    of similarity - lam * cost over the whole pool, which needs no top-k. The smallest time counts, the one least
    disturbed by what else the machine does.

    Parameters
    ----------
    sizes
        Numbers of experts; at least k.
    kinds
        Of `KINDS` and `RIVALS`.
    n_queries
        Prompts looked up in one call, fewer on pools so large that it would compute over 2 x 10^6 similarities, or
        10^7 for the recall, which is not timed.
    width
        Dimensions of a descriptor.
    repeats, seconds
        At most so many repeats, and about so long at most, for each time; at least three.
    threads
        Of a batch, at most; a single lookup has one.
    embedding : mapping, optional
        Microseconds a prompt of embedding it, under "single" and "batch" (`embedding_times`).

    Returns
    -------
    DataFrame
        One row an index, size and mode: `index`, `n`, `mode` ("single" or "batch"), `queries` (in one call), `us`
        (microseconds a prompt), `us_with_embedding` (NaN without `embedding`), `recall` (share of the exact top k
        that it finds; NaN for "numpy", which looks for one) and `build_s` (seconds of processor time to build the
        index on one thread).
    """
    rows = []
    for n in sizes:
        experts, queries = synthetic_pool(n, width, max(1, min(n_queries, _CELLS // n)), seed)
        cost = np.random.default_rng(seed).random(n)
        exact = ExpertIndex().add([str(i) for i in range(n)], experts).search(queries, k)[1]
        batch, built = queries[: max(1, _TIMED_CELLS // n)], []
        for kind in kinds:
            start = time.process_time()
            choose, top = _lookup(kind, experts, cost, lam, k)
            build = time.process_time() - start
            found = None if top is None else top(queries)
            recall = np.nan if found is None else float((found[:, :, None] == exact[:, None, :]).any(axis=2).mean())
            built.append((kind, choose, recall, build))
        # Nothing is built while others have to stand still.
        with quiet():
            for kind, choose, recall, build in built:
                for mode, part in (("single", queries[:1]), ("batch", batch)):
                    with _at_most(threads if mode == "batch" else 1):
                        us = 1e6 * _smallest_time(choose, part, repeats, seconds) / len(part)
                    extra = np.nan if embedding is None else embedding[mode]
                    rows.append((kind, n, mode, len(part), us, us + extra, recall, build))
    columns = ["index", "n", "mode", "queries", "us", "us_with_embedding", "recall", "build_s"]
    return pd.DataFrame(rows, columns=columns)


@contextmanager
def _at_most(threads: int) -> Iterator[None]:
    """Let faiss and BLAS use so many threads, then restore what was set."""
    from threadpoolctl import threadpool_limits

    with one_thread(), threadpool_limits(threads):
        yield


Choose = Callable[[np.ndarray], np.ndarray]


def _lookup(kind: str, experts: np.ndarray, cost: np.ndarray, lam: float, k: int) -> tuple[Choose, Choose | None]:
    """Return the way `kind` routes queries [N, D] to places [N], and finds their top k, [N, k]."""
    if kind in KINDS:
        index = ExpertIndex(kind).add([str(i) for i in range(len(experts))], experts)
        return lambda q: index.choose(q, cost, lam, k), lambda q: index.search(q, k)[1]
    if kind == "scikit-learn":
        from sklearn.neighbors import NearestNeighbors

        neighbours = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(experts)

        def choose(q: np.ndarray) -> np.ndarray:
            distance, place = neighbours.kneighbors(q)
            return place[np.arange(len(place)), (1 - distance - lam * cost[place]).argmax(axis=1)]

        return choose, lambda q: neighbours.kneighbors(q, return_distance=False)
    if kind == "numpy":
        penalty, transposed = (lam * cost).astype(np.float32), experts.T
        return lambda q: (q @ transposed - penalty).argmax(axis=1), None
    known = (*KINDS, *RIVALS)
    raise UserError(f"kinds has {kind!r}, expected some of {', '.join(map(repr, known))}{suggest(kind, known)}")


def _smallest_time(run: Callable[[np.ndarray], Any], part: np.ndarray, repeats: int, seconds: float) -> float:
    run(part)
    spent: list[float] = []
    while len(spent) < repeats and (len(spent) < 3 or sum(spent) < seconds):
        start = time.perf_counter()
        run(part)
        spent.append(time.perf_counter() - start)
    return min(spent)


def embedding_times(encoder: str, prompts: Sequence[str], batch_size: int = 64) -> dict[str, float]:
    """Return the microseconds a prompt of embedding, {"single": one by one, "batch": in batches}, without any cache.

    Parameters
    ----------
    encoder
        As `routebook.encoders.encoder` takes it, e.g. "minilm".
    """
    from routebook import encoders

    source = encoders.encoder(encoder)
    single = 1000 * encoders.measure_latency(source, prompts)
    with quiet():
        start = time.perf_counter()
        source.encode(prompts, batch_size=batch_size)
        spent = time.perf_counter() - start
    return {"single": single, "batch": 1e6 * spent / len(prompts)}
