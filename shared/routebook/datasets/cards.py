"""Data cards: what a dataset is, where it comes from, and what its files must look like."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from routebook.benchmark import Origin
from routebook.errors import DataError
from routebook.paths import cards_dir

Check = Literal["binary", "share", "number", "cost", "text"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Provenance(_Strict):
    """Where the files come from: repository, commit, and what was done to them."""

    source: str
    commit: str = ""
    url: str = ""
    detail: str = ""


class Quality(_Strict):
    """What one number of quality means."""

    kind: Literal["binary", "soft"]
    meaning: str


class ColumnGroup(_Strict):
    """Columns that exist once a model, e.g. ``{model}|total_cost``.

    `check` says which values are allowed: ``binary`` 0 or 1, ``share`` in [0, 1], ``number`` finite,
    ``cost`` finite and >= 0, ``text`` anything. `gaps` says whether cells may be empty.
    """

    pattern: str = "{model}"
    models: tuple[str, ...]
    check: Check
    gaps: bool = False
    meaning: str

    @property
    def columns(self) -> list[str]:
        """The column names, in the order of the models."""
        return [self.pattern.replace("{model}", model) for model in self.models]


class FileCard(_Strict):
    """One file: path below the data folder, hash, rows, key and columns."""

    path: str
    meaning: str
    sha256: str
    rows: int
    key: tuple[str, ...]
    columns: dict[str, str]
    checks: dict[str, Check] = {}
    groups: tuple[ColumnGroup, ...] = ()
    optional: bool = False

    @property
    def all_columns(self) -> list[str]:
        """Every column the file must have."""
        return [*self.columns, *(column for group in self.groups for column in group.columns)]

    @property
    def models(self) -> list[str]:
        """The models of the first group of columns."""
        return list(self.groups[0].models) if self.groups else []


class Hub(_Strict):
    """The public release that `routebook data pull` fetches."""

    id: str
    files: tuple[str, ...]
    statement: str
    variants: dict[str, str] = {}


class Card(_Strict):
    """A dataset's card, read from ``<cards>/<name>/card.yaml``."""

    name: str
    title: str
    origin: Origin
    summary: str
    provenance: Provenance
    licence: str
    cost_unit: str
    cost_meaning: str
    quality: Quality
    prompts: int | None = None
    models: int | None = None
    options: dict[str, str] = {}
    files: tuple[FileCard, ...] = ()
    hub: Hub | None = None
    oddities: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()

    @property
    def folders(self) -> list[str]:
        """The folders below the data folder that hold the files."""
        return list(dict.fromkeys(Path(file.path).parent.as_posix() for file in self.files))

    def file(self, name: str) -> FileCard:
        """Return the card of the file with this base name."""
        return next(file for file in self.files if Path(file.path).name == name)


def read_yaml(path: Path) -> object:
    """Read a YAML file with the fast safe loader where there is one."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        with path.open(encoding="utf-8") as stream:
            return yaml.load(stream, Loader=loader)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; restore it from the repository") from None
    except yaml.YAMLError as problem:
        raise DataError(f"{path} is not readable as YAML ({' '.join(str(problem).split())})") from None


def read_card(name: str) -> Card:
    """Return the card of a dataset; a card that does not follow the schema raises DataError."""
    path = cards_dir() / name / "card.yaml"
    return _read_card(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=64)
def _read_card(path: Path, _mtime: int) -> Card:
    try:
        return Card.model_validate(read_yaml(path))
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path}: field {where}: {first['msg']} ({problem.error_count()} such problems)") from None
