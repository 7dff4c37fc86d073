"""Parameter counts of open models, from the table `model_sizes.yaml` beside the cards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from routebook.datasets.cards import read_yaml
from routebook.errors import DataError
from routebook.paths import cards_dir

TABLE = "model_sizes.yaml"
UNIT = "billion parameters"

# A number before a B, as in "Llama-2-13b-chat"; not the 7 of "8x7B" or of "7Bx2", which count one expert.
_SIZE_IN_NAME = re.compile(r"(?<![\dx.])(\d+(?:\.\d+)?)b(?![a-z0-9])", re.IGNORECASE)


@dataclass(frozen=True)
class Size:
    """Parameters of a model in billions: all of them, and those at work on one token; and who says so."""

    total: float
    active: float
    source: str


@lru_cache(maxsize=4)
def _read(path: Path, _mtime: int) -> tuple[dict[str, Size], dict[str, str]]:
    content = read_yaml(path)
    sizes: dict[str, Size] = {}
    unpriced: dict[str, str] = {}
    for entry in content["sized"]:
        if not entry["total"] > 0:
            raise DataError(f"{path.name}: total of {entry['names'][0]} is {entry['total']}, expected a number > 0")
        size = Size(float(entry["total"]), float(entry.get("active", entry["total"])), entry["source"])
        for name in entry["names"]:
            if name in sizes:
                raise DataError(f"{path.name}: {name!r} is listed twice")
            sizes[name] = size
    for entry in content["not_sized"]:
        unpriced.update(dict.fromkeys(entry["names"], entry["reason"]))
    return sizes, unpriced


def _tables() -> tuple[dict[str, Size], dict[str, str]]:
    path = cards_dir() / TABLE
    return _read(path, path.stat().st_mtime_ns if path.is_file() else 0)


def size_of(model: str) -> Size | None:
    """Return the size the table states for a model, looked up by its full name, then without its organisation."""
    sizes, unpriced = _tables()
    plain = model.replace("__", "/")
    for name in (model, plain, plain.rsplit("/", 1)[-1]):
        if name in unpriced:
            return None
        if name in sizes:
            return sizes[name]
    return None


def reason_unsized(model: str) -> str | None:
    """Return why the table gives no size for a model, or None where it says nothing of the model."""
    return _tables()[1].get(model)


def size_in_name(model: str) -> Size | None:
    """Return the size a model's name states ("-13b-"), or None."""
    found = _SIZE_IN_NAME.findall(model)
    return Size(float(found[0]), float(found[0]), "stated in the model's name") if len(found) == 1 else None


def parameters(models: Sequence[str], *, read_names: bool = False) -> np.ndarray:
    """Return total parameters in billions, [M]; NaN for a model whose size is not public.

    Parameters
    ----------
    models
        Names as the dataset gives them.
    read_names
        Whether a size stated in the name is taken for a model the table does not list.
    """
    sizes = [size_of(m) or (size_in_name(m) if read_names and reason_unsized(m) is None else None) for m in models]
    return np.array([np.nan if size is None else size.total for size in sizes])


def parameter_cost(models: Sequence[str], n_prompts: int) -> np.ndarray:
    """Return total parameters in billions for every call, [N, M]; a column of NaN where the size is not public."""
    return np.tile(parameters(models), (n_prompts, 1))
