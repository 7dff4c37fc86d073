"""Processes and threads: how many there may be, and the threads of a sum, which decide its last bits."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

# Set by a build that runs chapters side by side: the processes that each may use.
PROCESSES_VARIABLE = "ROUTEBOOK_PROCESSES"

_lock = threading.RLock()
_limited = False


def processes() -> int:
    """Return how many processes a chapter may divide its work among: one a processor, or its share in a build.

    Numbers do not depend on it.
    """
    given = os.environ.get(PROCESSES_VARIABLE)
    if given:
        return int(given)
    # Containers often allow fewer than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let torch compute each operation on one thread, then restore what was set.

    The number of threads fixes the order in which sums are added, so results are the same bit for bit only under the
    same number. It is global to torch: concurrent callers take turns.
    """
    import torch

    with _lock:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch, BLAS and OpenMP (scikit-learn, faiss) compute each operation on one thread, then restore.

    For results that are the same bit for bit whatever the machine's number of cores, and for work that is divided
    among processes instead. Concurrent callers take turns, as in `one_torch_thread`.
    """
    global _limited
    with _lock:
        if _limited:
            # Finding the libraries anew takes longer than many a fit.
            yield
            return
        import faiss  # noqa: F401 - a limit reaches only libraries that are loaded
        import sklearn.cluster  # noqa: F401
        from threadpoolctl import threadpool_limits

        with one_torch_thread(), threadpool_limits(1):
            _limited = True
            try:
                yield
            finally:
                _limited = False
