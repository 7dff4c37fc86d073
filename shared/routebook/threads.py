"""Torch's thread count, which decides both speed and the last bits of a result."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

_lock = threading.RLock()


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
