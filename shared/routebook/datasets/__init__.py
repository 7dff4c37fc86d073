"""The registry of datasets: `load("routerbench")` returns a RoutingBenchmark.

Nothing heavy is imported and no data is read before a dataset is asked for.
"""

from __future__ import annotations

import hashlib
import inspect
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from routebook.errors import UserError, suggest

if TYPE_CHECKING:
    from routebook.benchmark import RoutingBenchmark
    from routebook.datasets.cards import Card
    from routebook.datasets.files import Status

__all__ = ["check", "data_digest", "info", "load", "loader_module", "names", "options", "status"]

_LOADERS = {
    "routerbench": "routerbench",
    "mmlu-pro": "mmlu_pro",
    "gsm8k-zeroeval": "gsm8k_zeroeval",
    "openllm-v2": "openllm_v2",
    "routerdc": "routerdc",
    "overruling": "overruling",
    "alpaca-eval": "alpaca_eval",
    "mess-plus": "mess_plus",
    "tinypool": "tinypool",
    "simulated": "simulated",
    "embedllm": "embedllm",
    "mixinstruct": "mixinstruct",
    "sprout": "sprout",
}


def names() -> list[str]:
    """Return the names of all datasets."""
    return list(_LOADERS)


def _known(name: str) -> str:
    if name not in _LOADERS:
        hint = suggest(str(name), _LOADERS)
        raise UserError(f"there is no dataset {name!r}{hint}; the datasets are {', '.join(_LOADERS)}")
    return name


def loader_module(name: str) -> str:
    """Return the dotted name of the module that loads a dataset."""
    return f"routebook.datasets.{_LOADERS[_known(name)]}"


def info(name: str) -> Card:
    """Return the dataset's card."""
    from routebook.datasets.cards import read_card

    return read_card(_known(name))


def status(name: str) -> Status:
    """Return what is present of a dataset, from the existence of its files alone."""
    from routebook.datasets import files

    return files.status(info(name))


def _loader(name: str) -> ModuleType:
    return import_module(loader_module(name))


def options(name: str) -> dict[str, Any]:
    """Return the options `load` takes for this dataset, with their defaults."""
    parameters = inspect.signature(_loader(name).load).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def load(name: str, **chosen: Any) -> RoutingBenchmark:
    """Return a dataset as a RoutingBenchmark.

    Parameters
    ----------
    name
        One of `names()`.
    **chosen
        Options of that dataset; its card and its loader's docstring describe them.

    Raises
    ------
    UserError
        For an unknown dataset, option or option value.
    DataError
        When files are missing, damaged or hold impossible values.
    """
    from routebook.datasets import files

    card = info(name)
    known = options(name)
    for option in chosen:
        if option not in known:
            offered = ", ".join(known) or "none"
            raise UserError(f"{name} has no option {option!r}{suggest(option, known)}; its options are: {offered}")
    if card.origin == "simulated":
        return _loader(name).load(card, **chosen)
    return _loader(name).load(card, files.locate(card), **chosen)


def check(name: str) -> str:
    """Verify a dataset fully (files, hashes, columns, rows, values) and return one line saying what was found.

    Raises
    ------
    DataError
        One line naming the first thing that is wrong.
    """
    chosen = {"responses": True} if _can_load_responses(name) else {}
    benchmark = load(name, **chosen)
    where = status(name).where
    models = f"{len(benchmark.models)} models"
    remarks = f"; {'; '.join(benchmark.notes)}" if benchmark.notes else ""
    return f"{name}: fine: {len(benchmark):,} prompts x {models} from {where}{remarks}"


def _can_load_responses(name: str) -> bool:
    from routebook.datasets.files import find

    card = info(name)
    place = find(card)
    return "responses" in options(name) and place is not None and place.kind == "folder"


def data_digest(name: str, **chosen: Any) -> str:
    """Return a hash of what `load(name, **chosen)` reads, without parsing it (hex, 64 characters).

    It covers the card's statement of the files, the bytes of the files present, the tables the loader looks
    things up in, and the options. For simulated data it covers the options and the loader's source version.

    Raises
    ------
    DataError
        When the dataset is not present.
    """
    from routebook.datasets import files
    from routebook.paths import cards_dir

    card = info(name)
    parts = [name, card.origin, card.cost_unit, card.quality.kind]
    parts += [f"{key}={value!r}" for key, value in sorted({**options(name), **chosen}.items())]
    if card.origin == "simulated":
        parts.append(_loader(name).VERSION)
    else:
        place = files.locate(card)
        parts += [f"{file.path}:{file.sha256}:{file.rows}" for file in card.files]
        for path in _paths(card, place):
            parts.append(_sha256(path) if path.is_file() else f"missing {path.name}")
        parts += [_sha256(cards_dir() / table) for table in card.tables]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _paths(card: Card, place: Any) -> list[Path]:
    from routebook.datasets.files import META, TABLE

    if place.kind == "cache":
        return [place.root / META, place.root / TABLE]
    return [place.root / file.path for file in card.files]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
