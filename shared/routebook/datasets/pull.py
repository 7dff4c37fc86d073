"""Fetches the original public releases and turns each into the canonical table (`routebook data pull`)."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from routebook.datasets import info, names
from routebook.datasets.canonical import build_frame, to_benchmark, write_canonical
from routebook.datasets.cards import Card
from routebook.datasets.files import cached
from routebook.datasets.sizes import UNIT, parameters
from routebook.errors import DataError, UserError, suggest
from routebook.paths import data_dir
from routebook.progress import progress

if TYPE_CHECKING:
    import pandas as pd

CSV_CHUNK = 200_000
SPROUT_PRICES = "openllm-lb-v2-19llm/sprout_prices.csv"
PRICE_COLUMNS = ("model", "usd_per_million_input_tokens", "usd_per_million_output_tokens")


class Hub(Protocol):
    """What a pull needs of the hub; tests give it a folder instead."""

    def commit(self, repository: str, revision: str | None) -> str:
        """Return the commit a revision stands for (the newest one for None)."""

    def files(self, repository: str, commit: str) -> list[str]:
        """Return the names of the files at a commit."""

    def download(self, repository: str, file: str, commit: str) -> Path:
        """Return the local path of a file at a commit, fetched where it is not there yet."""


class HuggingFaceHub:
    """The Hugging Face Hub; downloads resume, show progress and are kept in its own cache."""

    def commit(self, repository: str, revision: str | None) -> str:
        """Return the commit a revision stands for (the newest one for None)."""
        from huggingface_hub import HfApi

        return self._ask(repository, lambda: HfApi().dataset_info(repository, revision=revision).sha)

    def files(self, repository: str, commit: str) -> list[str]:
        """Return the names of the files at a commit."""
        from huggingface_hub import HfApi

        return self._ask(repository, lambda: HfApi().list_repo_files(repository, repo_type="dataset", revision=commit))

    def download(self, repository: str, file: str, commit: str) -> Path:
        """Return the local path of a file at a commit, fetched where it is not there yet."""
        from huggingface_hub import hf_hub_download

        return Path(
            self._ask(
                f"{repository} ({file})",
                lambda: hf_hub_download(repository, file, repo_type="dataset", revision=commit),
            )
        )

    @staticmethod
    def _ask(what: str, question: Callable[[], Any]) -> Any:
        try:
            return question()
        # The hub's client raises its own errors, those of its HTTP library and plain OSErrors; all mean one thing.
        except Exception as problem:
            reason = " ".join(str(problem).split())[:200] or type(problem).__name__
            raise UserError(
                f"the Hugging Face Hub did not deliver {what} ({type(problem).__name__}: {reason}); check the network, "
                f"the revision and whether the dataset asks for a login, then type the command again"
            ) from None


@dataclass
class _Release:
    """One release at one commit: hands out its files and remembers what was read of each."""

    hub: Hub
    repository: str
    commit: str
    say: Callable[[str], None]
    prices: Path | None = None
    notes: list[str] = field(default_factory=list)
    read: dict[str, dict[str, Any]] = field(default_factory=dict)

    def fetch(self, file: str) -> Path:
        self.say(f"fetching {file}")
        path = self.hub.download(self.repository, file, self.commit)
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        self.read[file] = {"sha256": digest, "bytes": path.stat().st_size}
        return path

    def rows(self, file: str, n: int) -> None:
        self.read[file]["rows"] = int(n)


def pullable() -> list[str]:
    """Return the names of the datasets that can be pulled."""
    return [name for name in names() if info(name).hub is not None]


def pull(
    name: str,
    revision: str | None = None,
    *,
    variant: str | None = None,
    prices: Path | str | None = None,
    hub: Hub | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Fetch a public release into the user cache, where `load` finds it.

    Parameters
    ----------
    name
        "routerbench", "embedllm", "mixinstruct" or "sprout".
    revision
        Branch, tag or commit to fetch; by default the newest commit. The commit it stands for is recorded.
    variant
        Which of a dataset's releases, e.g. "5shot" for RouterBench; its card lists them, the first is the default.
    prices
        SPROUT only: CSV with columns model, usd_per_million_input_tokens, usd_per_million_output_tokens.
        By default the table in `$ROUTEBOOK_DATA`, where there is one; models without a price stay unpriced.
    hub
        Where files come from; by default the Hugging Face Hub.
    say
        Gets one line of text at a time.

    Returns
    -------
    Path
        The folder written.

    Raises
    ------
    UserError
        Unknown dataset, variant or revision, no network, unwritable cache.
    DataError
        A file that is not what the card describes; nothing is kept then.
    """
    card = info(name)
    variant = _variant(card, variant)
    if prices is not None and name != "sprout":
        raise UserError(f"prices were given, but {name} needs none: only sprout takes a price table")
    repository = card.hub.variants[variant] if name == "sprout" else card.hub.id
    hub = HuggingFaceHub() if hub is None else hub
    commit = hub.commit(repository, revision)
    say(f"{card.title}: {repository} at commit {commit}")
    release = _Release(hub, repository, commit, say, None if prices is None else Path(prices))
    frame, models, unit, kind = _CONVERT[name](card, release, variant)
    meta = {
        "name": name,
        "hub_id": repository,
        "variant": variant,
        "revision": revision or "newest",
        "commit": commit,
        "files": release.read,
        "models": models,
        "cost_unit": unit,
        "quality_kind": kind,
        "notes": release.notes,
    }
    # What could not be loaded again is not kept: this raises DataError for impossible values.
    to_benchmark(card, frame, models, meta)
    folder = cached(name)
    write_canonical(folder, frame, meta)
    notes = [f"note: {note}" for note in release.notes]
    for line in (*notes, f"{len(frame):,} prompts x {len(models)} models written to {folder}", *_terms(card)):
        say(line)
    return folder


def _variant(card: Card, variant: str | None) -> str:
    if card.hub is None:
        raise UserError(f"{card.name} is not on the hub; the datasets that can be pulled are {', '.join(pullable())}")
    variants = list(card.hub.variants)
    if variant is not None and variant not in variants:
        near = suggest(variant, variants)
        raise UserError(f"{card.name} has no variant {variant!r}{near or ';'} it has {', '.join(variants)}")
    return variants[0] if variant is None else variant


def _terms(card: Card) -> tuple[str, str]:
    return (
        f"licence: {card.licence}",
        "Please do not redistribute the files: everyone can fetch them from their publisher.",
    )


_Converted = tuple["pd.DataFrame", list[str], str, str]


def _require(columns: Any, wanted: tuple[str, ...], where: str) -> None:
    found = [str(column) for column in columns]
    for column in wanted:
        if column not in found:
            near = suggest(column, found).replace("did you mean", "was it renamed to").rstrip("?")
            raise DataError(
                f"{where} has no column {column!r}{near}; the release has changed: pull an older one with --revision"
            )


# --- RouterBench ------------------------------------------------------------------------------------------------


def _routerbench(card: Card, release: _Release, variant: str) -> _Converted:
    from routebook.datasets.files import matrix
    from routebook.datasets.safe_pickle import read_frame

    file = card.hub.variants[variant]
    frame = read_frame(release.fetch(file))
    _require(frame.columns, ("sample_id", "prompt", "eval_name"), file)
    models = [c for c in frame.columns if f"{c}|total_cost" in set(frame.columns)]
    if not models:
        raise DataError(f"{file} has no '<model>|total_cost' column; the release has changed: pull an older revision")
    release.rows(file, len(frame))
    quality = matrix(_numeric(frame, models, file), models)
    costs = [f"{model}|total_cost" for model in models]
    cost = matrix(_numeric(frame, costs, file), costs)
    # Some versions keep prompts as lists, most as the text of one; the loader reads text.
    cells = [prompt if isinstance(prompt, str) else repr(list(prompt)) for prompt in frame["prompt"]]
    table = build_frame(
        ids=frame["sample_id"],
        prompts=cells,
        tasks=frame["eval_name"],
        splits=np.full(len(frame), ""),
        models=models,
        quality=quality,
        cost=cost,
    )
    return table, models, card.cost_unit, card.quality.kind


def _numeric(frame: pd.DataFrame, columns: list[str], where: str) -> pd.DataFrame:
    import pandas as pd

    numbers = frame[columns].apply(pd.to_numeric, errors="coerce")
    bad = numbers.isna() & ~frame[columns].isna()
    if bad.to_numpy().any():
        column = bad.columns[bad.any()][0]
        cell = frame[column][bad[column]].iloc[0]
        raise DataError(f"{where}: column {column!r} holds {str(cell)[:40]!r}, expected numbers; pull another revision")
    return numbers


# --- EmbedLLM ---------------------------------------------------------------------------------------------------


class _Labels:
    """Labels collected from a stream of (prompt, model, label) rows; of repeated ones the larger stays."""

    def __init__(self) -> None:
        self.prompts: dict[tuple[str, str], int] = {}
        self.texts: list[tuple[str, str]] = []
        self.models: dict[str, int] = {}
        self.repeats = 0
        self._quality = np.full((1024, 128), np.nan, dtype=np.float32)

    def add(self, split: str, chunk: pd.DataFrame, model: pd.Series, label: np.ndarray) -> None:
        """Add rows of one split: `chunk` has prompt_id, prompt and category; `model` and `label` are aligned to it."""
        for name in model.unique():
            self.models.setdefault(name, len(self.models))
        first = chunk.drop_duplicates("prompt_id")
        for id_, text, task in zip(first["prompt_id"], first["prompt"], first["category"], strict=True):
            if self.prompts.setdefault((split, id_), len(self.prompts)) == len(self.texts):
                self.texts.append((text, task))
        self._grow()
        row = chunk["prompt_id"].map({id_: self.prompts[split, id_] for id_ in first["prompt_id"]}).to_numpy()
        column = model.map(self.models).to_numpy()
        cells = row.astype(np.int64) * self._quality.shape[1] + column
        new = np.unique(cells)
        self.repeats += len(cells) - int(np.isnan(self._quality.ravel()[new]).sum())
        np.fmax.at(self._quality, (row, column), label)

    def _grow(self) -> None:
        need, have = (len(self.prompts), len(self.models)), self._quality.shape
        if need[0] > have[0] or need[1] > have[1]:
            larger = [max(h, 2 * n) if n > h else h for n, h in zip(need, have, strict=True)]
            fresh = np.full(larger, np.nan, dtype=np.float32)
            fresh[: have[0], : have[1]] = self._quality
            self._quality = fresh

    def quality(self, order: list[str]) -> np.ndarray:
        """Return the labels, [N, M], models in the order given; NaN where none was seen."""
        columns = [self.models[name] for name in order]
        return self._quality[: len(self.prompts), columns].astype(float)


def _embedllm(card: Card, release: _Release, variant: str) -> _Converted:
    names_of = _embedllm_names(release)
    labels = _Labels()
    for split in ("train", "val", "test"):
        file = f"{split}.csv"
        seen = 0
        for chunk in _csv_chunks(release.fetch(file), file):
            named = chunk["model_name"] if "model_name" in chunk.columns else _named(chunk["model_id"], names_of)
            labels.add(split, chunk, named, _labels_of(chunk, file))
            seen += len(chunk)
        release.rows(file, seen)
    if labels.repeats:
        release.notes.append(
            f"{labels.repeats:,} repeated (model, prompt) rows: the larger label is kept, as public code does"
        )
    order = sorted(labels.models)
    table = build_frame(
        ids=[id_ for _, id_ in labels.prompts],
        prompts=[text for text, _ in labels.texts],
        tasks=[task for _, task in labels.texts],
        splits=[split for split, _ in labels.prompts],
        models=order,
        quality=labels.quality(order),
        cost=_size_costs(release, order, len(labels.prompts)),
    )
    return table, order, card.cost_unit, card.quality.kind


def _named(model_ids: pd.Series, names_of: dict[str, str]) -> pd.Series:
    return model_ids.map(lambda id_: names_of.get(id_, id_))


def _labels_of(chunk: pd.DataFrame, file: str) -> np.ndarray:
    values = chunk["label"].map({"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "False": 0.0, "True": 1.0})
    if values.isna().any():
        cell = chunk["label"][values.isna()].iloc[0]
        raise DataError(f"{file}: label is {cell!r}, expected 0 or 1; pull another revision")
    return values.to_numpy(dtype=np.float32)


def _embedllm_names(release: _Release) -> dict[str, str]:
    """Return the name of each model_id where the release has a table of them."""
    file = "model_order.csv"
    if file not in release.hub.files(release.repository, release.commit):
        return {}
    with release.fetch(file).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    release.rows(file, len(rows))
    if not rows or not {"model_id", "model_name"} <= set(rows[0]):
        return {}
    return {row["model_id"]: row["model_name"] for row in rows}


def _csv_chunks(path: Path, file: str) -> Iterator[pd.DataFrame]:
    import pandas as pd

    wanted = ("prompt_id", "model_id", "category", "label", "prompt")
    try:
        with pd.read_csv(path, chunksize=CSV_CHUNK, keep_default_na=False, dtype=str) as chunks:
            for chunk in progress(chunks, label=file, unit=" chunks"):
                _require(chunk.columns, wanted, file)
                yield chunk
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as problem:
        raise DataError(f"{file} is unreadable ({' '.join(str(problem).split())}); pull the dataset again") from None


def _size_costs(release: _Release, models: list[str], n: int) -> np.ndarray:
    sizes = parameters(models, read_names=True)
    unknown = [model for model, size in zip(models, sizes, strict=True) if np.isnan(size)]
    if unknown:
        release.notes.append(f"no public size known for {', '.join(unknown)}: unpriced")
    return np.tile(sizes, (n, 1))


# --- MixInstruct ------------------------------------------------------------------------------------------------


def _mixinstruct(card: Card, release: _Release, variant: str) -> _Converted:
    ids, prompts, splits, scores = [], [], [], []
    models: dict[str, int] = {}
    for split in ("train", "val", "test"):
        file = f"{split}_data_prepared.jsonl"
        count = 0
        with release.fetch(file).open(encoding="utf-8") as stream:
            for number, line in enumerate(progress(stream, label=file, unit=" lines"), 1):
                if not line.strip():
                    continue
                record = _mix_record(line, f"{file} line {number}")
                ids.append(str(record["id"]))
                text = (record["instruction"], record["input"])
                prompts.append("\n".join(part for part in text if part))
                splits.append(split)
                row: dict[int, float] = {}
                for candidate in record["candidates"]:
                    column = models.setdefault(candidate["model"], len(models))
                    row[column] = max(row.get(column, -np.inf), float(candidate["scores"]["bartscore"]))
                scores.append(row)
                count += 1
        release.rows(file, count)
    order = sorted(models)
    place = {models[model]: j for j, model in enumerate(order)}
    quality = np.full((len(ids), len(order)), np.nan)
    for i, row in enumerate(scores):
        for column, score in row.items():
            # BARTScore is a mean log-likelihood; CSCR takes its exponential as quality.
            quality[i, place[column]] = np.exp(score)
    table = build_frame(
        ids=ids,
        prompts=prompts,
        tasks=np.full(len(ids), "mix-instruct"),
        splits=splits,
        models=order,
        quality=quality,
        cost=_size_costs(release, order, len(ids)),
    )
    return table, order, UNIT, card.quality.kind


def _mix_record(line: str, where: str) -> dict[str, Any]:
    again = "the release has changed or is damaged: pull again, or another --revision"
    try:
        record = json.loads(line)
    except ValueError as problem:
        raise DataError(f"{where} is no JSON ({problem}); {again}") from None
    missing = [
        f for f in ("id", "instruction", "input", "candidates") if not isinstance(record, dict) or f not in record
    ]
    if missing:
        raise DataError(f"{where} has no field {missing[0]!r}; {again}")
    for candidate in record["candidates"]:
        try:
            score = float(candidate["scores"]["bartscore"])
            named = isinstance(candidate["model"], str)
        except (KeyError, TypeError, ValueError):
            named, score = False, np.nan
        if not named or not np.isfinite(score):
            raise DataError(f"{where} has a candidate without a model or a finite bartscore; {again}")
    return record


# --- SPROUT -----------------------------------------------------------------------------------------------------


def _sprout(card: Card, release: _Release, variant: str) -> _Converted:
    prices = _prices(release)
    files = [f for f in release.hub.files(release.repository, release.commit) if f.endswith(".parquet")]
    parts, models = [], []
    for split in ("train", "validation", "test"):
        mine = sorted(f for f in files if Path(f).name.startswith(f"{split}-") or Path(f).stem == split)
        if not mine:
            raise DataError(f"{release.repository} has no parquet file of split {split!r}; pull an older revision")
        for file in mine:
            part, models = _sprout_part(release, file, split, prices, models)
            parts.append(part)
    priced = [model in prices for model in models]
    keep = [~np.isnan(p["cost"][:, priced]).any(axis=1) for p in parts]
    dropped = sum(int((~k).sum()) for k in keep)
    if dropped:
        release.notes.append(f"{dropped} prompts left out because a token count, and so a price, is missing")
    unpriced = [model for model in models if model not in prices]
    if unpriced:
        release.notes.append(f"no price given for {', '.join(unpriced)}: unpriced; give a table with --prices FILE")
    joined = {
        field_: np.concatenate([np.asarray(p[field_])[k] for p, k in zip(parts, keep, strict=True)])
        for field_ in ("ids", "prompts", "tasks", "splits", "quality", "cost")
    }
    return build_frame(models=models, **joined), models, card.cost_unit, card.quality.kind


def _sprout_part(
    release: _Release, file: str, split: str, prices: dict[str, tuple[float, float]], models: list[str]
) -> tuple[dict[str, Any], list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(release.fetch(file))
    except (pa.ArrowException, OSError) as problem:
        raise DataError(f"{file} is unreadable ({' '.join(str(problem).split())}); pull the dataset again") from None
    _require(table.column_names, ("key", "dataset", "prompt"), file)
    release.rows(file, table.num_rows)
    found = [f.name for f in table.schema if pa.types.is_struct(f.type) and f.type.get_field_index("score") >= 0]
    if models and found != models:
        raise DataError(f"{file} has other model columns than the files before it; pull another revision")
    if not found:
        raise DataError(f"{file} has no struct column with a score; the release has changed: pull an older revision")
    quality = np.column_stack([_struct(table, model, "score", file) for model in found])
    nothing = (np.nan, np.nan)
    cost = np.column_stack(
        [
            # tokens x dollars per million tokens
            (
                _struct(table, model, "num_input_tokens", file) * prices.get(model, nothing)[0]
                + _struct(table, model, "num_output_tokens", file) * prices.get(model, nothing)[1]
            )
            / 1e6
            for model in found
        ]
    )
    part = {
        "ids": np.array([str(k) for k in table["key"].to_pylist()], dtype=object),
        "prompts": np.array(table["prompt"].to_pylist(), dtype=object),
        "tasks": np.array(table["dataset"].to_pylist(), dtype=object),
        "splits": np.full(table.num_rows, split, dtype=object),
        "quality": quality,
        "cost": cost,
    }
    return part, found


def _struct(table: Any, model: str, field_: str, file: str) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if table.schema.field(model).type.get_field_index(field_) < 0:
        raise DataError(f"{file}: column {model!r} has no field {field_!r}; the release has changed")
    try:
        numbers = pc.cast(pc.struct_field(table[model].combine_chunks(), field_), pa.float64())
    except pa.ArrowException as problem:
        raise DataError(f"{file}: {model}.{field_} holds something other than numbers ({problem})") from None
    return np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=float)


def _prices(release: _Release) -> dict[str, tuple[float, float]]:
    """Return dollars per million input and output tokens of each model; empty where no table is at hand."""
    path = release.prices
    if path is None:
        root = data_dir()
        path = None if root is None else root / SPROUT_PRICES
        if path is None or not path.is_file():
            release.notes.append("no price table at hand (--prices FILE, or ROUTEBOOK_DATA with sprout_prices.csv)")
            return {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as problem:
        raise UserError(f"--prices: {path} cannot be read ({problem.strerror}); give the path of a CSV file") from None
    _require(rows[0] if rows else (), PRICE_COLUMNS, str(path))
    table = {}
    for row in rows:
        try:
            pair = (float(row[PRICE_COLUMNS[1]]), float(row[PRICE_COLUMNS[2]]))
        except (TypeError, ValueError):
            pair = (np.nan, np.nan)
        if not all(np.isfinite(p) and p >= 0 for p in pair):
            raise DataError(f"{path}: price of {row['model']!r} is not a number >= 0; correct the table")
        table[row["model"]] = pair
    return table


_CONVERT: dict[str, Callable[[Card, _Release, str], _Converted]] = {
    "routerbench": _routerbench,
    "embedllm": _embedllm,
    "mixinstruct": _mixinstruct,
    "sprout": _sprout,
}
