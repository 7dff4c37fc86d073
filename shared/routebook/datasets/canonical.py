"""The one format every pull ends in: a parquet table and a meta.json beside it.

Columns of the table: ``id, prompt, task, split``, then ``quality|<model>`` and ``cost|<model>``. An empty quality
is an answer that was not observed; a cost column that is empty throughout is a model without a known price.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from routebook.benchmark import RoutingBenchmark
from routebook.datasets.cards import Card
from routebook.datasets.files import META, TABLE, Place, differs, matrix
from routebook.errors import DataError, UserError, suggest

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("id", "prompt", "task", "split")
_META_FIELDS = ("name", "models", "rows", "table_sha256", "cost_unit", "quality_kind", "notes", "commit")


def build_frame(
    *,
    ids: Any,
    prompts: Any,
    tasks: Any,
    splits: Any,
    models: list[str],
    quality: np.ndarray,
    cost: np.ndarray,
) -> pd.DataFrame:
    """Return the canonical table of N prompts and M models; `quality` and `cost` are [N, M]."""
    import pandas as pd

    columns: dict[str, Any] = {"id": ids, "prompt": prompts, "task": tasks, "split": splits}
    columns |= {f"quality|{model}": quality[:, j] for j, model in enumerate(models)}
    columns |= {f"cost|{model}": cost[:, j] for j, model in enumerate(models)}
    frame = pd.DataFrame(columns)
    for key in KEYS:
        frame[key] = frame[key].astype(str)
    return frame


def write_canonical(folder: Path, frame: pd.DataFrame, meta: Mapping[str, Any]) -> None:
    """Write table and meta.json into `folder`, whole or not at all; what was there before is replaced.

    Raises
    ------
    UserError
        When the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as problem:
        raise UserError(
            f"cannot write into {folder.parent} ({problem.strerror}); set ROUTEBOOK_CACHE to a folder you can write to"
        ) from None
    try:
        frame.to_parquet(fresh / TABLE, index=False, compression="zstd")
        digest = hashlib.sha256((fresh / TABLE).read_bytes()).hexdigest()
        text = json.dumps({**meta, "rows": len(frame), "table_sha256": digest}, indent=1, ensure_ascii=False)
        (fresh / META).write_text(text + "\n", encoding="utf-8")
        _swap(fresh, folder)
    except OSError as problem:
        raise UserError(f"cannot write {folder} ({problem.strerror}); free some space or set ROUTEBOOK_CACHE") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _swap(fresh: Path, folder: Path) -> None:
    """Put `fresh` in the place of `folder`; a folder cannot be renamed onto one that holds files."""
    if not folder.exists():
        fresh.replace(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    folder.replace(old / folder.name)
    try:
        fresh.replace(folder)
    except OSError:
        (old / folder.name).replace(folder)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def read_meta(card: Card, folder: Path) -> dict[str, Any]:
    """Return meta.json, checked for the fields reading needs."""
    again = f"type: routebook data pull {card.name}"
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{card.name}: file {META} is missing from {folder}; {again}") from None
    except (ValueError, OSError) as problem:
        raise DataError(f"{card.name}: {folder / META} is unreadable ({problem}); {again}") from None
    missing = [field for field in _META_FIELDS if not isinstance(meta, dict) or field not in meta]
    if missing:
        raise DataError(f"{card.name}: {folder / META} has no field {missing[0]!r}; {again}")
    return meta


def read_canonical(card: Card, place: Place) -> RoutingBenchmark:
    """Return what a pull stored, with the same checks, in the same order, as for files of the data folder."""
    import pandas as pd
    import pyarrow

    again = f"type: routebook data pull {card.name}"
    meta = read_meta(card, place.root)
    path = place.root / TABLE
    try:
        data = path.read_bytes()
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        raise DataError(f"{card.name}: file {TABLE} is missing from {place.root}; {again}") from None
    except (OSError, pyarrow.ArrowException) as problem:
        raise DataError(f"{card.name}: {path} is unreadable ({' '.join(str(problem).split())}); {again}") from None
    models = list(meta["models"])
    _check_columns(card, frame, models, again)
    benchmark = to_benchmark(card, frame, models, meta)
    notes = _check_identity(card, path, len(frame), hashlib.sha256(data).hexdigest(), meta)
    if not notes:
        return benchmark
    from dataclasses import replace

    return replace(benchmark, notes=(*benchmark.notes, *notes))


def _check_columns(card: Card, frame: pd.DataFrame, models: list[str], again: str) -> None:
    wanted = [*KEYS, *(f"{kind}|{model}" for kind in ("quality", "cost") for model in models)]
    for column in wanted:
        if column not in frame.columns:
            extra = [c for c in frame.columns if c not in wanted]
            near = suggest(column, extra).replace("did you mean", "was it renamed to").rstrip("?")
            raise DataError(f"{card.name}: {TABLE} has no column {column!r}{near}; {again}")


def to_benchmark(card: Card, frame: pd.DataFrame, models: list[str], meta: Mapping[str, Any]) -> RoutingBenchmark:
    """Return a canonical table as a RoutingBenchmark; impossible values raise DataError."""
    split = frame["split"].to_numpy(dtype=str)
    return RoutingBenchmark(
        name=card.name,
        prompts=frame["prompt"].astype(str).tolist(),
        tasks=frame["task"].to_numpy(dtype=str),
        models=models,
        quality=matrix(frame, [f"quality|{model}" for model in models]),
        cost=matrix(frame, [f"cost|{model}" for model in models]),
        cost_unit=meta["cost_unit"],
        split=None if (split == "").all() else split,
        origin=card.origin,
        quality_kind=meta["quality_kind"],
        ids=frame["id"].to_numpy(dtype=str),
        notes=(*meta["notes"], f"pulled from the hub at commit {meta['commit']}"),
    )


def _check_identity(card: Card, path: Path, rows: int, sha256: str, meta: dict[str, Any]) -> list[str]:
    if rows != meta["rows"]:
        return differs(f"{card.name}: {path} has {rows:,} rows, its {META} says {meta['rows']:,}")
    if sha256 != meta["table_sha256"]:
        said = str(meta["table_sha256"])[:12]
        return differs(f"{card.name}: {path} differs from its {META}: sha256 {sha256[:12]}..., expected {said}...")
    return []
