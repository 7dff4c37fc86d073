"""Progress bars that stay silent where nobody looks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def quiet() -> bool:
    """Whether progress is unwanted: `--quiet` was given or the error stream is no terminal."""
    return bool(os.environ.get("ROUTEBOOK_QUIET")) or not sys.stderr.isatty()


def progress(items: Iterable | None = None, *, total: int | None = None, label: str = "", unit: str = "it") -> Any:
    """Return `items` wrapped in a progress bar (or a bar to update by hand), silent when `quiet`."""
    return tqdm(items, total=total, desc=label, unit=unit, disable=quiet(), leave=False)
