"""Finds a dataset's files and reads them with every check its card asks for.

The checks run in this order, each giving one line: file missing; file unreadable (truncated, damaged);
columns missing or renamed; impossible values and repeated keys; rows or hash other than the card says.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from routebook.datasets.cards import Card, FileCard
from routebook.errors import DataError, UserError, suggest
from routebook.paths import cache_dir, cards_dir, data_dir

if TYPE_CHECKING:
    import pandas as pd

ALLOW_MODIFIED = "ROUTEBOOK_ALLOW_MODIFIED"
TABLE = "table.parquet"
META = "meta.json"


@dataclass(frozen=True)
class Place:
    """Where a dataset was found: its kind and the folder its paths start from."""

    kind: Literal["folder", "cache", "built in"]
    root: Path


@dataclass(frozen=True)
class Status:
    """What is present of a dataset, judged by the existence of files alone.

    Attributes
    ----------
    where
        The folder the files are in, ``"cache"`` after a pull, ``"built in"`` for simulated data, "" where absent.
    missing
        Required files that are not there, as paths below the data folder.
    """

    name: str
    present: bool
    where: Path | str
    missing: tuple[str, ...]
    origin: str


@dataclass
class Tables:
    """The tables that were read, by base name of their file, and what a reader must know about them."""

    frames: dict[str, pd.DataFrame] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> pd.DataFrame:
        return self.frames[name]

    def __contains__(self, name: str) -> bool:
        return name in self.frames


def cached(name: str) -> Path:
    """Return the folder in the user cache that `routebook data pull` fills for this dataset."""
    return cache_dir() / "datasets" / name


def _pulled(folder: Path) -> bool:
    return (folder / META).is_file() and (folder / TABLE).is_file()


def _local_missing(card: Card, root: Path) -> list[str]:
    return [file.path for file in card.files if not file.optional and not (root / file.path).is_file()]


def _root(card: Card) -> Path | None:
    """Return the folder a card's paths start from: data the project made lies beside the cards, published data not."""
    return cards_dir() if card.origin == "made" else data_dir()


def find(card: Card) -> Place | None:
    """Return where the dataset is: the data folder first, then the user cache; None where it is nowhere.

    A data folder that holds only some of the files counts as the place, so that reading names what is missing.
    """
    root = _root(card)
    if root is not None and card.files and len(_local_missing(card, root)) < sum(not f.optional for f in card.files):
        return Place("folder", root)
    if card.hub:
        folders = ([] if root is None else [root / card.name]) + [cached(card.name)]
        for folder in folders:
            if _pulled(folder):
                return Place("cache", folder)
    return None


def locate(card: Card) -> Place:
    """Return where the dataset is, or raise DataError saying what to type to get it."""
    place = find(card)
    if place is None:
        raise DataError(f"{card.name}: {_absence(card)}; {_how_to_get(card)}")
    return place


def status(card: Card) -> Status:
    """Return what is present, without reading any file."""
    if card.origin == "simulated":
        return Status(card.name, True, "built in", (), card.origin)
    place = find(card)
    root = _root(card)
    if place is None:
        missing = [f.path for f in card.files if not f.optional] or [f"{card.name}/{TABLE}"]
        return Status(card.name, False, "", tuple(missing), card.origin)
    if place.kind == "cache":
        where = "cache" if place.root == cached(card.name) else place.root
        return Status(card.name, True, where, (), card.origin)
    missing = _local_missing(card, root)
    return Status(card.name, not missing, root, tuple(missing), card.origin)


def _absence(card: Card) -> str:
    root = _root(card)
    if not card.files:
        return "not pulled yet"
    first = next(file.path for file in card.files if not file.optional)
    if root is None:
        return f"file {first} is missing, as ROUTEBOOK_DATA is not set"
    if not root.is_dir():
        return f"file {first} is missing, as the folder ROUTEBOOK_DATA points at ({root}) does not exist"
    return f"file {first} is missing from {root}"


def _how_to_get(card: Card) -> str:
    ways = []
    if card.origin == "made":
        return "restore it from the repository with git checkout"
    if card.files:
        ways.append(f"set ROUTEBOOK_DATA to a folder that holds {' and '.join(card.folders)}")
    if card.hub:
        ways.append(f"type: routebook data pull {card.name}")
    return ", or ".join(ways)


def read_tables(card: Card, place: Place, wanted: list[str] | None = None) -> Tables:
    """Read a dataset's files from the data folder.

    Parameters
    ----------
    card
        Names the files and everything they must fulfil.
    place
        A place of kind "folder".
    wanted
        Base names of the files to read; by default all that are not optional.

    Returns
    -------
    Tables
        One data frame a file, and a note where a file differs from the card and that was allowed.

    Raises
    ------
    DataError
        One line naming the file, what was found, what was expected and what to do.
    """
    files = [f for f in card.files if (not f.optional if wanted is None else Path(f.path).name in wanted)]
    for file in files:
        if not (place.root / file.path).is_file():
            raise DataError(f"{card.name}: file {file.path} is missing from {place.root}; {_how_to_get(card)}")
    tables, hashes = Tables(), {}
    for file in files:
        data = (place.root / file.path).read_bytes()
        hashes[file.path] = hashlib.sha256(data).hexdigest()
        tables.frames[Path(file.path).name] = _parse(card, file, data)
    for file in files:
        _check_columns(card, file, tables[Path(file.path).name])
    for file in files:
        _check_values(card, file, tables[Path(file.path).name])
    for file in files:
        tables.notes += _check_identity(card, file, len(tables[Path(file.path).name]), hashes[file.path])
    return tables


def _parse(card: Card, file: FileCard, data: bytes) -> pd.DataFrame:
    import pandas as pd
    import pyarrow

    again = f"copy {file.path} again from where it came from"
    try:
        if file.path.endswith(".parquet"):
            return pd.read_parquet(io.BytesIO(data))
        text = gzip.decompress(data) if file.path.endswith(".gz") else data
        # Models are called "NA" nowhere, but answers and prompts may be: only an empty cell is a missing one.
        return pd.read_csv(io.BytesIO(text), keep_default_na=False, na_values=[""], low_memory=False)
    except EOFError:
        raise DataError(f"{card.name}: {file.path} is truncated ({len(data):,} bytes); {again}") from None
    except (OSError, zlib.error, pyarrow.ArrowException, UnicodeDecodeError, pd.errors.ParserError) as problem:
        reason = " ".join(str(problem).split())
        raise DataError(f"{card.name}: {file.path} is unreadable ({reason}); {again}") from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{card.name}: {file.path} is empty; {again}") from None


def _check_columns(card: Card, file: FileCard, frame: pd.DataFrame) -> None:
    found = [str(column) for column in frame.columns]
    missing = [column for column in file.all_columns if column not in set(found)]
    if missing:
        extra = [column for column in found if column not in set(file.all_columns)]
        near = suggest(missing[0], extra).replace("did you mean", "was it renamed to").rstrip("?")
        more = f" ({len(missing)} columns are missing)" if len(missing) > 1 else ""
        raise DataError(
            f"{card.name}: {file.path} has no column {missing[0]!r}{more}{near}; give the column the name the "
            f"card states, or copy the file again"
        )


def _check_values(card: Card, file: FileCard, frame: pd.DataFrame) -> None:
    for group in file.groups:
        if group.check != "text":
            for column in group.columns:
                frame[column] = _numbers(card, file, frame, column, group.check, group.gaps)
    for column, check in file.checks.items():
        frame[column] = _numbers(card, file, frame, column, check, gaps=False)
    for column in file.key:
        if frame[column].isna().any():
            row = int(np.flatnonzero(frame[column].isna())[0]) + 1
            raise DataError(f"{card.name}: {file.path}: column {column!r} is empty in row {row}, expected a key")
    if not file.key:
        return
    twice = frame.duplicated(list(file.key))
    if twice.any():
        shown = ", ".join(str(frame[column][twice].iloc[0]) for column in file.key)
        raise DataError(
            f"{card.name}: {file.path}: key {'+'.join(file.key)} = {shown} occurs twice ({int(twice.sum())} repeats), "
            f"expected every row to have its own; remove the repeats or copy the file again"
        )


_EXPECTED = {
    "binary": "0 or 1",
    "share": "a number in [0, 1]",
    "number": "a finite number",
    "cost": "a price >= 0; a missing price is never taken for 0",
}


def _numbers(card: Card, file: FileCard, frame: pd.DataFrame, column: str, check: str, gaps: bool) -> pd.Series:
    import pandas as pd

    raw = frame[column]
    values = pd.to_numeric(raw, errors="coerce").astype(float)
    v = values.to_numpy()
    bad = (np.isnan(v) & ~raw.isna().to_numpy()) | np.isinf(v)
    if not gaps:
        bad |= np.isnan(v)
    with np.errstate(invalid="ignore"):
        if check == "binary":
            bad |= ~np.isnan(v) & (v != 0) & (v != 1)
        elif check == "share":
            bad |= (v < 0) | (v > 1)
        elif check == "cost":
            bad |= v < 0
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        cell = raw.iloc[row]
        shown = "empty" if raw.isna().iloc[row] else str(cell)
        raise DataError(
            f"{card.name}: {file.path}: column {column!r} is {shown} in row {row + 1}, expected {_EXPECTED[check]} "
            f"({int(bad.sum())} such cells); correct the file or copy it again"
        )
    return values


def allow_modified() -> bool:
    """Whether files may differ from their card: `$ROUTEBOOK_ALLOW_MODIFIED` is set and not 0."""
    return os.environ.get(ALLOW_MODIFIED, "0") not in ("", "0")


def differs(message: str) -> list[str]:
    """Raise DataError that a file is not the one its card describes, or return the note where that is allowed."""
    if allow_modified():
        return [message]
    raise DataError(f"{message}; copy it again, or set {ALLOW_MODIFIED}=1 to use it as it is")


def _check_identity(card: Card, file: FileCard, rows: int, sha256: str) -> list[str]:
    if rows != file.rows:
        return differs(f"{card.name}: {file.path} differs from its card: {rows:,} rows, the card says {file.rows:,}")
    if sha256 != file.sha256:
        return differs(
            f"{card.name}: {file.path} differs from its card: its sha256 is {sha256[:12]}..., "
            f"the card says {file.sha256[:12]}..."
        )
    return []


def choose(dataset: str, option: str, value: str, allowed: tuple[str, ...]) -> str:
    """Return `value` if it is one of the allowed ones, else raise UserError with the nearest."""
    if value not in allowed:
        hint = suggest(str(value), allowed)
        raise UserError(f"{dataset}: {option} is {value!r}, expected one of {', '.join(allowed)}{hint}")
    return value


def matrix(frame: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """Return the columns as floats, [N, len(columns)]; an empty cell is NaN."""
    return frame[columns].to_numpy(dtype=float, na_value=np.nan)
