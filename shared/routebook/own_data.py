"""Your own answers as a benchmark: one CSV file in, one `RoutingBenchmark` out, and one line for every mistake.

Two layouts are read. Long: one row a prompt and model, with the columns ``prompt, model, quality, cost``. Wide: one row
a prompt, with the columns ``prompt``, ``quality:NAME`` and ``cost:NAME`` for every model NAME. Both may also have
``task`` (source dataset of the prompt), ``split`` and ``id`` (where two prompts share a text).
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from routebook.benchmark import QUALITY_KINDS, Origin, QualityKind, RoutingBenchmark
from routebook.errors import DataError, UserError, suggest

COST_UNITS = (
    "USD per prompt",
    "USD per million tokens",
    "billion parameters",
    "parameters",
    "FLOPs per prompt",
    "Wh per prompt",
    "joules per prompt",
    "milliseconds per prompt",
)
LONG = ("prompt", "model", "quality", "cost")
WIDE = ("quality:", "cost:")
PER_PROMPT = ("task", "split")
NOT_OBSERVED = frozenset({"", "na", "nan", "null", "none"})
NO_TASK = "all"


def from_csv(
    path: str | Path,
    cost_unit: str,
    *,
    prices: Mapping[str, float] | None = None,
    quality_kind: QualityKind = "binary",
    delimiter: str = ",",
    name: str | None = None,
    origin: Origin = "real",
) -> RoutingBenchmark:
    """Return the benchmark that a CSV file holds.

    Parameters
    ----------
    path
        UTF-8 text with a header, long or wide (see the module). An empty quality, or a pair of prompt and model that
        is not in the file, is an answer not observed.
    cost_unit
        What one unit of cost is; one of `COST_UNITS`.
    prices
        Cost of one call to each model, by name, for a file without costs.
    quality_kind : {"binary", "soft"}
        "binary": quality lies between 0 (wrong) and 1 (right). "soft": any finite number.
    delimiter
        What separates columns.
    name
        Of the benchmark; by default the file's name without its ending.
    origin : {"real", "made", "simulated"}

    Returns
    -------
    RoutingBenchmark
        Prompts and models in the order in which they first occur; without a column ``task`` all prompts have one. A
        pair that is not in the file costs what its model costs on average; `notes` says how many there are.

    Raises
    ------
    UserError
        An unknown cost unit or kind of quality, or a delimiter that is not one character.
    DataError
        One line that names the file and, where there is one, the line: file missing, empty or not UTF-8; column
        missing, unknown or twice; a row of another length; a prompt or model without a name; a number that is none or
        out of range; a missing price; a pair of prompt and model given twice; a task or split that changes; a model
        never observed; fewer than two models; no prompt that two models have answered.
    """
    _check_arguments(cost_unit, quality_kind, delimiter)
    table = _Table.read(Path(path), delimiter)
    answers = _Answers(table.path)
    for answer in _wide(table, prices) if table.is_wide else _long(table, prices):
        answers.add(answer, quality_kind)
    answers.check()
    quality, cost, notes = answers.arrays()
    tasks, split = answers.labels("task"), answers.labels("split")
    return RoutingBenchmark(
        name=name or table.path.stem,
        prompts=list(answers.prompts.values()),
        tasks=tasks if tasks is not None else [NO_TASK] * len(answers.prompts),
        models=list(answers.models),
        quality=quality,
        cost=cost,
        cost_unit=cost_unit,
        split=split,
        origin=origin,
        quality_kind=quality_kind,
        ids=list(answers.prompts) if "id" in table.header else None,
        notes=notes,
    )


def to_csv(benchmark: RoutingBenchmark, path: str | Path) -> Path:
    """Write a benchmark as a long CSV file that `from_csv` reads back, and return its path.

    Answers that were not observed keep their row, with an empty quality. Responses and embeddings are not written.

    Raises
    ------
    UserError
        When a model has no price: the file could not be read back.
    """
    if benchmark.unpriced:
        raise UserError(
            f"{benchmark.name}: model {benchmark.unpriced[0]!r} has no price, which a CSV needs; use benchmark.priced()"
        )
    path = Path(path)
    has_split = benchmark.split is not None
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", *LONG, "task", *["split"] * has_split])
        for n, (key, prompt) in enumerate(zip(benchmark.ids, benchmark.prompts, strict=True)):
            for m, model in enumerate(benchmark.models):
                quality = benchmark.quality[n, m]
                answer = ["" if np.isnan(quality) else float(quality), float(benchmark.cost[n, m])]
                labels = [benchmark.tasks[n], *([benchmark.split[n]] if has_split else [])]
                writer.writerow([key, prompt, model, *answer, *labels])
    return path


def _check_arguments(cost_unit: str, quality_kind: str, delimiter: str) -> None:
    if cost_unit not in COST_UNITS:
        near = suggest(re.sub(r"\$|dollars?|usd", "USD", cost_unit, flags=re.IGNORECASE), COST_UNITS)
        raise UserError(
            f"cost_unit is {cost_unit!r}, expected one of: {', '.join(COST_UNITS)}{near}; convert costs in another "
            "unit first"
        )
    if quality_kind not in QUALITY_KINDS:
        raise UserError(f"quality_kind is {quality_kind!r}, expected one of: {', '.join(QUALITY_KINDS)}")
    if len(delimiter) != 1:
        raise UserError(f"delimiter is {delimiter!r}, expected one character, e.g. ';'")


# ---------------------------------------------------------------------------------------------------------------------
# The file
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """A CSV file: its header and its rows, each with the number of the line it begins on."""

    path: Path
    header: list[str]
    rows: list[tuple[int, dict[str, str]]]

    @classmethod
    def read(cls, path: Path, delimiter: str) -> _Table:
        reader = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, strict=True)
        begins = 1
        header: list[str] = []
        rows = []
        try:
            for cells in reader:
                line, begins = begins, reader.line_num + 1
                if not any(cell.strip() for cell in cells):
                    continue
                if not header:
                    header = _header(path, [cell.strip() for cell in cells], delimiter)
                    continue
                if len(cells) != len(header):
                    raise DataError(
                        f"{path}, line {line}: {len(cells)} columns, expected {len(header)} as in the header; put "
                        'double quotes (") around text that holds the delimiter'
                    )
                rows.append((line, dict(zip(header, cells, strict=True))))
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}; check the double quotes on this line") from None
        if not rows:
            raise DataError(f"{path} holds no answers, only {'a header' if header else 'blank lines'}")
        return cls(path, header, rows)

    @property
    def is_wide(self) -> bool:
        return any(column.startswith(WIDE) for column in self.header)

    def require(self, columns: Sequence[str], instead: str = "") -> None:
        """Raise DataError unless every column is there."""
        for column in columns:
            if column not in self.header:
                found = ", ".join(self.header)
                near = suggest(column, [c for c in self.header if c not in columns])
                raise DataError(f"{self.path} has no column {column!r}{near}; its columns are: {found}{instead}")


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; check the path, which is relative to {Path.cwd()}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; give the path of a CSV file") from None
    if not data.strip():
        raise DataError(f"{path} is empty, expected a header and one row an answer")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        encoding = "UTF-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "WINDOWS-1252"
        raise DataError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8, e.g. with "
            f"iconv -f {encoding} -t UTF-8"
        ) from None


def _header(path: Path, header: list[str], delimiter: str) -> list[str]:
    if len(header) == 1:
        other = next((mark for mark in (",", ";", "\t", "|") if mark != delimiter and mark in header[0]), None)
        if other:
            raise DataError(f"{path} seems to be separated by {other!r}, not {delimiter!r}; give delimiter={other!r}")
    twice = next((column for column in header if header.count(column) > 1), None)
    if twice is not None:
        raise DataError(f"{path} has the column {twice!r} twice; remove or rename one")
    return header


# ---------------------------------------------------------------------------------------------------------------------
# One answer at a time
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Answer:
    """One model's answer to one prompt, as the file has it; `cost` is NaN for an answer that was not given."""

    line: int
    key: str
    prompt: str
    model: str
    quality: float
    cost: float
    labels: Mapping[str, str]


def _long(table: _Table, prices: Mapping[str, float] | None) -> Iterator[_Answer]:
    needed = LONG if prices is None else LONG[:-1]
    table.require(needed, _hint(prices))
    for line, row in table.rows:
        where = f"{table.path}, line {line}"
        model = row["model"].strip()
        if not model:
            raise DataError(f"{where}: the model has no name, expected one in the column 'model'")
        quality = _quality(row["quality"], where)
        cost = _price(prices, model, where) if prices is not None else _cost(row["cost"], "cost", model, where)
        yield _Answer(line, *_prompt(row, where), model, quality, cost, _labels(row))


def _wide(table: _Table, prices: Mapping[str, float] | None) -> Iterator[_Answer]:
    quality, cost = WIDE
    models = [column.removeprefix(quality) for column in table.header if column.startswith(quality)]
    named = {column.removeprefix(cost) for column in table.header if column.startswith(cost)}
    table.require(["prompt", *(quality + model for model in sorted(named))])
    if prices is None:
        table.require([cost + model for model in models], _hint(prices))
    for line, row in table.rows:
        where = f"{table.path}, line {line}"
        key, prompt = _prompt(row, where)
        for model in models:
            got = _quality(row[quality + model], where)
            if prices is not None:
                paid = _price(prices, model, where)
            elif math.isnan(got) and not row[cost + model].strip():
                continue  # this model was not asked
            else:
                paid = _cost(row[cost + model], cost + model, model, where)
            yield _Answer(line, key, prompt, model, got, paid, _labels(row))


def _hint(prices: Mapping[str, float] | None) -> str:
    return "; a file without costs needs prices={model: cost}" if prices is None else ""


def _prompt(row: Mapping[str, str], where: str) -> tuple[str, str]:
    """Return what tells a prompt from others, its id or else its text, and its text."""
    if not row["prompt"].strip():
        raise DataError(f"{where}: the prompt is empty, expected its text")
    key = row["id"].strip() if "id" in row else row["prompt"]
    if not key:
        raise DataError(f"{where}: the id is empty; give every prompt one, or leave the column 'id' out")
    return key, row["prompt"]


def _labels(row: Mapping[str, str]) -> dict[str, str]:
    return {column: row[column].strip() for column in PER_PROMPT if column in row}


def _number(text: str, what: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        hint = "; write a decimal point, not a comma" if re.fullmatch(r"-?\d*,\d+", text.strip()) else ""
        raise DataError(f"{where}: {what} is {text.strip()!r}, expected a number{hint}") from None
    if not math.isfinite(value):
        raise DataError(f"{where}: {what} is {text.strip()!r}, expected a finite number")
    return value


def _quality(text: str, where: str) -> float:
    return math.nan if text.strip().lower() in NOT_OBSERVED else _number(text, "quality", where)


def _cost(text: str, what: str, model: str, where: str) -> float:
    if text.strip().lower() in NOT_OBSERVED:
        raise DataError(
            f"{where}: {what} of model {model!r} is missing; a missing price is never taken for 0: give it, or "
            "leave the row out"
        )
    value = _number(text, what, where)
    if value < 0:
        raise DataError(f"{where}: {what} of model {model!r} is {value:g}, expected a number >= 0")
    return value


def _price(prices: Mapping[str, float], model: str, where: str) -> float:
    if model not in prices:
        known = ", ".join(prices) or "none"
        raise DataError(f"{where}: prices has no model {model!r}{suggest(model, prices)}; it has: {known}")
    value = float(prices[model])
    if not (math.isfinite(value) and value >= 0):
        raise UserError(f"prices[{model!r}] is {value:g}, expected a finite number >= 0")
    return value


# ---------------------------------------------------------------------------------------------------------------------
# All answers
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class _Answers:
    """All answers of a file, in the order in which prompts and models first occur."""

    path: Path
    prompts: dict[str, str] = field(default_factory=dict)
    models: dict[str, int] = field(default_factory=dict)
    cells: dict[tuple[str, str], _Answer] = field(default_factory=dict)
    firsts: dict[str, _Answer] = field(default_factory=dict)

    def add(self, answer: _Answer, quality_kind: QualityKind) -> None:
        where = f"{self.path}, line {answer.line}"
        if quality_kind == "binary" and not (0 <= answer.quality <= 1 or math.isnan(answer.quality)):
            raise DataError(
                f"{where}: quality is {answer.quality:g}, expected a number from 0 (wrong) to 1 (right); divide "
                "percentages by 100, or give quality_kind='soft' for scores on another scale"
            )
        earlier = self.cells.get((answer.key, answer.model))
        if earlier is not None:
            raise DataError(
                f"{where}: model {answer.model!r} answers this prompt a second time, after line {earlier.line}; keep "
                "one of the two rows, or average them, or tell the prompts apart in a column 'id'"
            )
        first = self.firsts.setdefault(answer.key, answer)
        for what, now, before in (
            ("prompt", answer.prompt, first.prompt),
            *((label, answer.labels[label], first.labels[label]) for label in answer.labels),
        ):
            if now != before:
                raise DataError(
                    f"{where}: {what} is {now[:40]!r}, but {before[:40]!r} on line {first.line} of the same prompt"
                )
        self.prompts.setdefault(answer.key, answer.prompt)
        self.models.setdefault(answer.model, len(self.models))
        self.cells[answer.key, answer.model] = answer

    def check(self) -> None:
        """Raise DataError unless there is something to route between."""
        observed = [answer for answer in self.cells.values() if not math.isnan(answer.quality)]
        seen = {answer.model for answer in observed}
        for model in self.models:
            if model not in seen:
                raise DataError(f"{self.path}: model {model!r} has no quality on any prompt; remove it, or score it")
        if len(self.models) < 2:
            raise DataError(
                f"{self.path} holds answers of {', '.join(self.models) or 'no model'} only, expected two models or more"
            )
        counts: dict[str, int] = {}
        for answer in observed:
            counts[answer.key] = counts.get(answer.key, 0) + 1
        if max(counts.values()) < 2:
            raise DataError(
                f"{self.path}: no prompt was answered by two models, so nothing can be compared; give the same prompts "
                "to all models, spelt alike"
            )

    def arrays(self) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Return quality and cost, [N, M] each, and what a reader must know about them."""
        quality = np.full((len(self.prompts), len(self.models)), np.nan)
        cost = quality.copy()
        rows = {key: row for row, key in enumerate(self.prompts)}
        for answer in self.cells.values():
            place = rows[answer.key], self.models[answer.model]
            quality[place], cost[place] = answer.quality, answer.cost
        absent = np.isnan(cost)
        if not absent.any():
            return quality, cost, ()
        cost = np.where(absent, np.nanmean(cost, axis=0), cost)
        note = (
            f"{int(absent.sum())} of {absent.size} pairs of prompt and model are not in {self.path.name}: their "
            "quality counts as not observed, their cost as the model's mean"
        )
        return quality, cost, (note,)

    def labels(self, what: str) -> list[str] | None:
        """Return the task or split of every prompt; None where the file has no such column."""
        values = [first.labels.get(what) for first in self.firsts.values()]
        if None in values:
            return None
        return [value or NO_TASK for value in values if value is not None] if what == "task" else values
