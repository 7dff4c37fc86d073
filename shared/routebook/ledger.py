"""The ledger: what each paper published, what we test about it, and how our numbers compare.

`replications/<paper>/ledger.yaml` lists every table and figure of a paper with its published cells and the claims
tested. `load` reads and validates one, `evaluate` turns its claims into verdicts, and the renderers show them.

Verdicts and the rules that give them
-------------------------------------
``value``
    `reproduced` if ``|ours - published| <= tolerance``; `partly` if not, but our interval comes within the tolerance of
    the published number; else `not-reproduced`.
``ordering``
    Read from a result that is a (paired) difference with an interval. Side ``above`` (or ``below``): `reproduced` if
    the interval lies wholly beyond the margin (0 unless stated) on the claimed side; `partly` if only the estimate
    does; else `not-reproduced`. Side ``same``, for "competitive" and "no significant difference": `reproduced` if the
    interval lies within plus or minus the margin, `partly` if only the estimate does; else `not-reproduced`. A result
    without an interval (one trial) can at best be `partly`.
``trend``
    Read from a sequence of results: `reproduced` if no step goes against the claimed direction by more than the slack
    and the last result lies beyond the first; `partly` if only the ends do; else `not-reproduced`.
``arithmetic``
    A check on the paper's own numbers, a function named by the claim: `arithmetic-ok` or `arithmetic-fails`;
    `data-unavailable` where it also reads public side data (an author's price list, say) that is not there.

Before these rules, in this order: a claim (or an artefact) that is planned is `planned`; without a run it is
`not-run`; a result on made or simulated data gives `qualitative`, with the direction in the reason; a run on another
dataset than the claim's gives `data-unavailable`; a claim that needs the complete dataset, read from a run that had
only part of it, gives `data-unavailable` with the absent parts named and our number shown all the same; a claim about
one part (``part``, a source dataset) that is absent and so was not recorded gives `data-unavailable`, too.

A result that a claim reads and a run on the claim's dataset did not record is an error, never a verdict; a run on
other data need not record it, and the claim is `data-unavailable` there.

A paper whose chapter has further pages names them in ``pages``; the keys of their results begin with the page's name,
and a claim that reads one is `not-run` until that page has been run.

Claims that differ in a few words only are written once, under ``templates`` of an artefact: ``each`` lists the words,
and ``claim`` is a claim in which ``{word}`` stands for them. ``{printed}`` stands for the published cell as printed,
without its star.
"""

from __future__ import annotations

import csv
import datetime
import html as html_lib
import importlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from routebook.benchmark import ORIGINS
from routebook.errors import UserError, suggest

if TYPE_CHECKING:
    import pandas as pd

VERDICTS = (
    "reproduced",
    "partly",
    "not-reproduced",
    "arithmetic-ok",
    "arithmetic-fails",
    "qualitative",
    "data-unavailable",
    "planned",
    "not-run",
)
FIELDS = (
    "paper",
    "artefact",
    "claim",
    "kind",
    "statement",
    "published",
    "ours",
    "interval",
    "verdict",
    "reason",
    "origin",
)
CELL_COLUMNS = ("row", "column", "dataset", "value", "printed", "unit", "note")
_ID = r"^[a-z0-9]+(-[a-z0-9]+)*$"
_KEY = re.compile(r"^[a-z0-9][a-z0-9.-]*(/[a-z0-9][a-z0-9.-]*)*$")
_UNITS = {
    "%": ("%", "percent"),
    "fraction": ("fraction", "share", "ratio"),
    "area": ("area", "normalised area"),
}
# Distances computed in binary floats from decimal numbers may overshoot a decimal tolerance by rounding alone.
_ROUNDING = 1e-12


class LedgerError(UserError):
    """A ledger is malformed, or a claim in it cannot be evaluated on the results given."""


# ----------------------------------------------------------------------------------------------- published cells


@dataclass(frozen=True)
class Cell:
    """One published cell, as transcribed.

    Attributes
    ----------
    value
        The number, in `unit`; None where the paper prints text or a dash.
    printed
        The characters the paper prints, footnote star included.
    """

    row: str
    column: str
    dataset: str
    value: float | None
    printed: str
    unit: str
    note: str

    @property
    def starred(self) -> bool:
        """Whether the paper marks the cell with a star."""
        return "*" in self.printed

    @property
    def decimals(self) -> int:
        """Digits the paper prints after the decimal point."""
        digits = re.search(r"\d*\.(\d+)|\d", self.printed)
        return len(digits.group(1) or "") if digits else 0


def read_cells(path: Path) -> dict[tuple[str, str], Cell]:
    """Read a tidy transcription of a published table.

    Parameters
    ----------
    path
        CSV file with the columns row, column, dataset, value, printed, unit, note.

    Returns
    -------
    dict of (row, column) to Cell, in the file's order

    Raises
    ------
    LedgerError
        When the file is absent, has other columns, a value that is no number, or one cell twice.
    """
    if not path.is_file():
        raise LedgerError(f"{path}: no such file; the ledger names it as published cells")
    cells: dict[tuple[str, str], Cell] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != CELL_COLUMNS:
            raise LedgerError(f"{path}: columns are {reader.fieldnames}, expected {', '.join(CELL_COLUMNS)}")
        for row in reader:
            key = (row["row"], row["column"])
            if key in cells:
                raise LedgerError(f"{path}: line {reader.line_num}: cell {key} occurs twice")
            number = row.pop("value")
            try:
                cells[key] = Cell(value=float(number) if number else None, **row)
            except (TypeError, ValueError) as error:
                raise LedgerError(f"{path}: line {reader.line_num}: not a row of seven columns ({error})") from None
    return cells


# ------------------------------------------------------------------------------------------------------- schema


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CellReference(_Strict):
    """Where in an artefact's published cells a number stands."""

    row: str
    column: str


class ClaimNeeds(_Strict):
    """The dataset a claim speaks of, whether only the whole of it will do, and the one part of it that is meant."""

    dataset: str
    complete: bool = False
    part: str | None = None


class Claim(_Strict):
    """One tested statement; which fields it must have depends on its kind (see the module's docstring)."""

    id: str = Field(pattern=_ID)
    statement: str = Field(min_length=10)
    kind: Literal["value", "ordering", "trend", "arithmetic"]
    reads: str | tuple[str, ...]
    written: datetime.date
    status: Literal["planned"] | None = None
    needs: ClaimNeeds | None = None
    unit: str = ""
    digits: int | None = Field(default=None, ge=0, le=10)
    reason: str | None = None
    note: str | None = None
    forensics: str | None = Field(default=None, pattern=r"^[A-Z]+-\d+[a-z]?$")
    # value
    published: float | CellReference | None = None
    tolerance: float | None = Field(default=None, gt=0)
    # ordering: the published difference is minuend - subtrahend
    side: Literal["above", "below", "same"] | None = None
    margin: float = Field(default=0.0, ge=0)
    minuend: CellReference | None = None
    subtrahend: CellReference | None = None
    # trend
    direction: Literal["increasing", "decreasing"] | None = None
    slack: float = Field(default=0.0, ge=0)

    @field_validator("reads")
    @classmethod
    def _known_format(cls, reads: str | tuple[str, ...], info: Any) -> str | tuple[str, ...]:
        if info.data.get("kind") == "arithmetic":
            if not isinstance(reads, str) or not re.fullmatch(r"replications\.\w+\.arithmetic:[a-z]\w*", reads):
                raise ValueError(f"{reads!r} is no check; expected replications.<paper>.arithmetic:<function>")
            return reads
        for key in [reads] if isinstance(reads, str) else reads:
            if not _KEY.match(key):
                raise ValueError(
                    f"{key!r} is no result key; expected lower-case words joined by '/', e.g. area/k-means"
                )
        return reads

    @property
    def test(self) -> str:
        """The tolerance or test, with its reason."""
        unit = " percentage points" if self.unit == "%" else ""
        tests = {
            "value": f"within {self.tolerance}{unit}",
            "ordering": f"interval within ±{self.margin:g}{unit}"
            if self.side == "same"
            else f"interval {self.side} {-self.margin if self.side == 'below' else self.margin:zg}{unit}",
            "trend": f"{self.direction}, no step back by more than {self.slack:g}{unit}",
            "arithmetic": f"check {self.forensics}",
        }
        return tests[self.kind] + (f": {self.reason}" if self.reason else "")

    @model_validator(mode="after")
    def _whole(self) -> Claim:
        required = {
            "value": ("published", "tolerance", "reason", "needs"),
            "ordering": ("side", "reason", "needs"),
            "trend": ("direction", "reason", "needs"),
            "arithmetic": ("forensics",),
        }
        belongs = {
            "value": {"published", "tolerance"},
            "ordering": {"side", "margin", "minuend", "subtrahend"},
            "trend": {"direction", "slack"},
            "arithmetic": set(),
        }
        for name in required[self.kind]:
            if getattr(self, name) is None:
                raise ValueError(f"a claim of kind {self.kind} needs {name!r}")
        foreign = set().union(*belongs.values()) - belongs[self.kind]
        if extra := sorted(foreign & self.model_fields_set):
            raise ValueError(f"a claim of kind {self.kind} takes no {extra[0]!r}")
        if (self.kind == "trend") != isinstance(self.reads, tuple):
            raise ValueError("reads: a trend reads a list of results, every other kind reads one")
        if self.kind == "trend" and len(self.reads) < 3:
            raise ValueError("reads: a trend needs at least three results")
        if self.side == "same" and self.margin == 0:
            raise ValueError("margin: a claim of no difference needs a margin above 0")
        if (self.minuend is None) != (self.subtrahend is None):
            raise ValueError("minuend and subtrahend come together")
        return self


class EntryNeeds(_Strict):
    """What rebuilding an artefact takes: datasets by name, and anything else in words."""

    datasets: tuple[str, ...] = ()
    also: str | None = None


class Entry(_Strict):
    """One published table, figure, diagram or formal result, and the claims tested about it."""

    id: str = Field(pattern=_ID)
    kind: Literal["table", "figure", "diagram", "proposition", "equation"]
    title: str = Field(min_length=3)
    where: str = Field(min_length=3)
    published: str | None
    published_note: str | None = None
    needs: EntryNeeds = EntryNeeds()
    status: Literal["rebuilt", "partly", "planned", "not-applicable"]
    reason: str | None = None
    claims: tuple[Claim, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Entry:
        if self.published is None and not self.published_note:
            raise ValueError("published: where there is no file of cells, published_note must say why")
        if self.published is not None and Path(self.published).name != self.published:
            raise ValueError(f"published: {self.published!r} must be a file name inside the folder published/")
        if self.status != "rebuilt" and not self.reason:
            raise ValueError(f"reason: status {self.status} needs one")
        tested = [claim for claim in self.claims if claim.kind != "arithmetic"]
        if self.status == "not-applicable" and tested:
            raise ValueError(f"claims: {tested[0].id!r} reads a result, but the status is not-applicable")
        if self.status == "rebuilt" and (planned := [c.id for c in tested if c.status == "planned"]):
            raise ValueError(f"claims: {planned[0]!r} is planned, but the status is rebuilt")
        return self

    def planned(self, claim: Claim) -> bool:
        """Whether a claim of this artefact waits for a later chapter."""
        return claim.kind != "arithmetic" and (self.status == "planned" or claim.status == "planned")


class Remark(_Strict):
    """A finding about the paper's text that no computation can check."""

    forensics: str = Field(pattern=r"^[A-Z]+-\d+[a-z]?$")
    where: str
    text: str


class Ledger(_Strict):
    """A paper's ledger, as in its `ledger.yaml`, with the folder it was read from."""

    paper: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    citation: str
    pages: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = Field(min_length=1)
    remarks: tuple[Remark, ...] = ()
    folder: Path

    @property
    def claims(self) -> list[tuple[Entry, Claim]]:
        """Every claim with its artefact, in the ledger's order."""
        return [(entry, claim) for entry in self.entries for claim in entry.claims]

    def page(self, key: str) -> str | None:
        """Return the further page that records a result, by its key; None for the chapter's first page."""
        first = key.partition("/")[0]
        return first if first in self.pages else None

    @cached_property
    def cells(self) -> dict[str, dict[tuple[str, str], Cell]]:
        """Published cells by artefact id; artefacts without a file have none."""
        return {
            entry.id: read_cells(self.folder / "published" / entry.published) if entry.published else {}
            for entry in self.entries
        }

    def cell(self, entry: Entry, reference: CellReference) -> Cell:
        """Return one published number; LedgerError where the cell is absent or holds no number."""
        known = self.cells[entry.id]
        found = known.get((reference.row, reference.column))
        if found is None or found.value is None:
            name = f"{reference.row} | {reference.column}"
            hint = suggest(name, [f"{row} | {column}" for row, column in known])
            raise LedgerError(f"{self.paper}: {entry.id}: no published number in cell {name!r}{hint}")
        return found

    @model_validator(mode="after")
    def _unique(self) -> Ledger:
        for what, names in (
            ("entry id", [entry.id for entry in self.entries]),
            ("claim id", [claim.id for _, claim in self.claims]),
            (
                "forensics id",
                [c.forensics for _, c in self.claims if c.forensics] + [r.forensics for r in self.remarks],
            ),
        ):
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                raise ValueError(f"{what} {twice[0]!r} occurs twice")
        return self


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key given twice is an error: the first of two tolerances must not vanish silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [key.value for key, _ in node.value]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice[0]!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load(path: Path) -> Ledger:
    """Read and validate a ledger, its published cells included.

    Raises
    ------
    LedgerError
        Naming the file and the field: malformed YAML, unknown or missing fields, ids given twice, a result key or
        check of an unknown form, a published file that is absent or that no artefact lists, a cell that is not there.
    """
    path = Path(path)
    if not path.is_file():
        raise LedgerError(f"{path}: no such ledger; every folder in replications/ holds a ledger.yaml")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise LedgerError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise LedgerError(f"{path}: expected a mapping with paper, title, citation and entries")
    content = _without_templates(path, content)
    try:
        ledger = Ledger(**{**content, "folder": path.parent})
    except ValidationError as error:
        raise LedgerError(f"{path}: {_where(content, error)}") from None
    _check_files(path, ledger)
    return ledger


def _without_templates(path: Path, content: dict) -> dict:
    """Return a ledger's content with the templates of every artefact written out as claims, after its own claims."""
    entries = content.get("entries")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return content
    return {**content, "entries": [_written_out(path, entry) for entry in entries]}


def _written_out(path: Path, entry: dict) -> dict:
    templates = entry.get("templates")
    if templates is None:
        return entry
    place = f"{path}: {entry.get('id')}.templates"
    cells: dict[tuple[str, str], Cell] = {}
    if entry.get("published"):
        cells = read_cells(path.parent / "published" / str(entry["published"]))
    claims = list(entry.get("claims") or ())
    for template in templates:
        if not isinstance(template, dict) or set(template) != {"each", "claim"} or not template["each"]:
            raise LedgerError(f"{place}: each template takes 'each', a list of words, and 'claim'")
        claims += [_filled(place, template["claim"], words, cells) for words in template["each"]]
    return {**{name: value for name, value in entry.items() if name != "templates"}, "claims": claims}


def _filled(place: str, claim: dict, words: dict[str, str], cells: Mapping[tuple[str, str], Cell]) -> dict:
    def fill(value: Any, known: Mapping[str, str]) -> Any:
        if isinstance(value, str):
            return value.format_map(known)
        if isinstance(value, dict):
            return {name: fill(part, known) for name, part in value.items()}
        return [fill(part, known) for part in value] if isinstance(value, list) else value

    try:
        reference = fill(claim.get("published"), words)
        cell = cells.get((reference["row"], reference["column"])) if isinstance(reference, dict) else None
        return fill(claim, {**words, "printed": cell.printed.rstrip(" *")} if cell else words)
    except (KeyError, IndexError, ValueError) as error:
        raise LedgerError(f"{place}: {claim.get('id')!r}: cannot fill in {error} from {sorted(words)}") from None


def _where(content: dict, error: ValidationError) -> str:
    """Say the first thing wrong with a ledger, naming entries and claims by id instead of by position."""
    first = error.errors()[0]
    names: list[str] = []
    node: Any = content
    for step in first["loc"]:
        try:
            node = node[step]
        except (KeyError, IndexError, TypeError):
            node = None
        names.append(
            str(node["id"]) if isinstance(step, int) and isinstance(node, dict) and "id" in node else str(step)
        )
    place = ".".join(names) or "ledger"
    return f"{place}: {first['msg'].removeprefix('Value error, ')}"


def _check_files(path: Path, ledger: Ledger) -> None:
    listed = {entry.published for entry in ledger.entries if entry.published}
    unlisted = sorted({file.name for file in (path.parent / "published").glob("*.csv")} - listed)
    if unlisted:
        raise LedgerError(f"{path}: entries: published/{unlisted[0]} belongs to no entry")
    for entry, claim in ledger.claims:
        for reference in (claim.published, claim.minuend, claim.subtrahend):
            if not isinstance(reference, CellReference):
                continue
            cell = ledger.cell(entry, reference)
            if cell.unit.startswith("%") != (claim.unit == "%"):
                raise LedgerError(f"{path}: {claim.id}.unit: is {claim.unit!r}, its cell is in {cell.unit!r}")
        expected = f"replications.{ledger.paper}.arithmetic:"
        if claim.kind == "arithmetic" and not str(claim.reads).startswith(expected):
            raise LedgerError(f"{path}: {claim.id}.reads: is {claim.reads!r}, expected {expected}<function>")


def discover(root: Path) -> list[Ledger]:
    """Load every `replications/*/ledger.yaml` under the project's root, by paper name."""
    return [load(path) for path in sorted(Path(root).glob("replications/*/ledger.yaml"))]


# --------------------------------------------------------------------------------------------------- evaluation


@dataclass(frozen=True)
class Check:
    """What a check on a paper's own numbers found.

    Attributes
    ----------
    ok
        Whether the paper's numbers agree with what it says.
    found, expected
        What the arithmetic gives, and what the paper prints.
    detail
        What a reader should know to judge it.
    needs
        What the check reads besides the paper and did not find; it then decides nothing.
    """

    ok: bool
    found: str
    expected: str
    detail: str
    needs: str = ""


@dataclass(frozen=True)
class Verdict:
    """A claim with its outcome.

    `record` gives the fields that `routebook ledger --json` prints; of the others, `test` is the tolerance or test with
    its reason, and `unit` and `digits` say how to print the numbers.
    """

    paper: str
    artefact: str
    claim: str
    kind: str
    statement: str
    published: float | str | None
    ours: float | str | None
    interval: tuple[float, float] | None
    verdict: str
    reason: str
    origin: str | None
    test: str = ""
    unit: str = ""
    digits: int = 3

    def record(self) -> dict[str, Any]:
        """Return the fields of `routebook ledger --json`; infinity becomes the text "inf", as JSON knows none."""
        values = {name: _plain(getattr(self, name)) for name in FIELDS}
        if self.interval is not None:
            values["interval"] = [_plain(bound) for bound in self.interval]
        return values


@dataclass(frozen=True)
class _Reading:
    """The result(s) a claim reads, in the claim's unit."""

    values: tuple[float, ...]
    interval: tuple[float, float] | None
    dataset: str
    origin: str
    complete: bool
    absent: tuple[str, ...]


Results = Mapping[str, Mapping[str, Any]] | Sequence[Mapping[str, Any]]


def evaluate(ledger: Ledger, results: Results | None) -> list[Verdict]:
    """Give a verdict on every claim of a ledger, in its order.

    Parameters
    ----------
    results
        The records of a run's `results.json` (a list, or a mapping from id to record): id, value, low, high, unit,
        dataset, origin, complete, absent. None where the chapter has not been run.

    Returns
    -------
    list of Verdict
        One for each claim; the rules stand in the module's docstring.

    Raises
    ------
    LedgerError
        When a claim that is not planned reads a result the run did not record, a planned one reads one it did, a
        record has no value, no provenance or a unit that does not convert, or a check cannot be found or run.
    """
    pages = _by_page(ledger, results or ())
    return [_verdict(ledger, entry, claim, pages.get(_page(ledger, claim))) for entry, claim in ledger.claims]


def of_pages(ledger: Ledger, results: Results) -> list[Verdict]:
    """Give a verdict on the claims that the pages in these results decide.

    Checks on the paper's own numbers belong to the chapter's first page. For the rest see `evaluate`.
    """
    pages = _by_page(ledger, results)
    claims = [(entry, claim, _page(ledger, claim)) for entry, claim in ledger.claims]
    return [_verdict(ledger, entry, claim, pages[page]) for entry, claim, page in claims if page in pages]


def _by_page(ledger: Ledger, results: Results) -> dict[str | None, dict[str, Mapping[str, Any]]]:
    """Return the records of each page that has been run, by id."""
    pages: dict[str | None, dict[str, Mapping[str, Any]]] = {}
    for key, record in _by_id(ledger, results).items():
        pages.setdefault(ledger.page(key), {})[key] = record
    return pages


def _page(ledger: Ledger, claim: Claim) -> str | None:
    return ledger.page(_keys(claim)[0])


def _by_id(ledger: Ledger, results: Results) -> dict[str, Mapping[str, Any]]:
    listed = list(results)
    if isinstance(results, Mapping):
        listed = [{"id": key, **record} for key, record in results.items()]
    records = {}
    for record in listed:
        if not isinstance(record, Mapping) or "id" not in record:
            raise LedgerError(f"{ledger.paper}: results: found {record!r:.80}, expected records with an id and a value")
        if record["id"] in records:
            raise LedgerError(f"{ledger.paper}: results: id {record['id']!r} is recorded twice")
        records[record["id"]] = record
    return records


def _verdict(ledger: Ledger, entry: Entry, claim: Claim, records: dict | None) -> Verdict:
    """Judge a claim by the records of the page that it reads, None where that page has not been run."""
    published, digits = _published(ledger, entry, claim)
    fixed = {
        "paper": ledger.paper,
        "artefact": entry.id,
        "claim": claim.id,
        "kind": claim.kind,
        "statement": claim.statement,
        "published": published,
        "ours": None,
        "interval": None,
        "origin": None,
        "test": claim.test,
        "unit": claim.unit,
        "digits": digits,
    }
    if claim.kind == "arithmetic":
        check = run_check(str(claim.reads))
        outcome = {"verdict": "arithmetic-ok" if check.ok else "arithmetic-fails", "reason": check.detail}
        outcome |= {"published": check.expected, "ours": check.found}
        if check.needs:
            outcome = {"verdict": "data-unavailable", "reason": f"needs {check.needs}", "published": check.expected}
    elif entry.planned(claim):
        _refuse_recorded(ledger, claim, records)
        outcome = {"verdict": "planned", "reason": entry.reason if entry.status == "planned" else _needs(claim)}
    elif records is None:
        chapter = "-".join(filter(None, (ledger.paper, _page(ledger, claim))))
        outcome = {"verdict": "not-run", "reason": f"the chapter has not been run; type `routebook run {chapter}`"}
    elif _on_other_data(claim, records):
        found = ", ".join(sorted({str(record.get("dataset")) for record in records.values()}))
        outcome = {"verdict": "data-unavailable", "reason": f"needs {claim.needs.dataset}; the run was on {found}"}
    elif _part_absent(claim, records):
        reason = f"needs {claim.needs.part} of {claim.needs.dataset}, which is absent"
        outcome = {"verdict": "data-unavailable", "reason": reason}
    else:
        reading = _read(ledger, claim, records)
        verdict, reason = _judge(claim, published, reading)
        outcome = {"verdict": verdict, "reason": "; ".join(filter(None, (reason, claim.note)))}
        outcome["origin"] = reading.origin
        # A number on some other real dataset must not stand beside the published one.
        if reading.origin != "real" or reading.dataset == claim.needs.dataset:
            outcome |= {"ours": reading.values[-1], "interval": reading.interval}
    return Verdict(**(fixed | outcome))


def _keys(claim: Claim) -> tuple[str, ...]:
    return (claim.reads,) if isinstance(claim.reads, str) else claim.reads


def _on_other_data(claim: Claim, records: dict) -> bool:
    """Whether a run recorded nothing a claim reads because nothing in it was computed on the claim's dataset."""
    here = any(record.get("dataset") == claim.needs.dataset for record in records.values())
    return not here and not any(key in records for key in _keys(claim))


def _part_absent(claim: Claim, records: dict) -> bool:
    """Whether a run recorded nothing a claim reads because it lacked the part of the dataset the claim is about."""
    if claim.needs.part is None or any(key in records for key in _keys(claim)):
        return False
    absent = {
        part
        for record in records.values()
        if record.get("dataset") == claim.needs.dataset
        for part in record.get("absent") or ()
    }
    return claim.needs.part in absent


def _needs(claim: Claim) -> str:
    return claim.note or f"needs {claim.needs.dataset}"


def _refuse_recorded(ledger: Ledger, claim: Claim, records: dict | None) -> None:
    for key in _keys(claim):
        if records and key in records:
            raise LedgerError(
                f"{ledger.paper}: claim {claim.id!r} is planned, but the run recorded {key!r}; "
                "set its status in ledger.yaml to partly or rebuilt"
            )


def _published(ledger: Ledger, entry: Entry, claim: Claim) -> tuple[float | None, int]:
    """Return the published number (for an ordering the difference) and the digits to print it with."""
    if isinstance(claim.published, CellReference):
        cell = ledger.cell(entry, claim.published)
        return cell.value, cell.decimals if claim.digits is None else claim.digits
    digits = 3 if claim.digits is None else claim.digits
    if claim.minuend is not None and claim.subtrahend is not None:
        first, second = ledger.cell(entry, claim.minuend), ledger.cell(entry, claim.subtrahend)
        decimals = max(first.decimals, second.decimals)
        return round(first.value - second.value, decimals), decimals if claim.digits is None else claim.digits
    return claim.published, digits


def _read(ledger: Ledger, claim: Claim, records: dict) -> _Reading:
    found = []
    for key in _keys(claim):
        if key not in records:
            raise LedgerError(
                f"{ledger.paper}: claim {claim.id!r} reads {key!r}, which the run did not record"
                f"{suggest(key, records)}; record it in the chapter, or set the claim's status to planned"
            )
        found.append(_checked(ledger, claim, records[key]))
    sources = {(record["dataset"], record["origin"]) for record in found}
    if len(sources) > 1:
        raise LedgerError(f"{ledger.paper}: claim {claim.id!r} reads results of several datasets: {sorted(sources)}")
    low, high = (found[-1][bound] for bound in ("low", "high"))
    return _Reading(
        values=tuple(record["value"] for record in found),
        interval=(low, high) if len(found) == 1 and low is not None and high is not None else None,
        dataset=found[0]["dataset"],
        origin=found[0]["origin"],
        complete=all(record["complete"] for record in found),
        absent=tuple(dict.fromkeys(part for record in found for part in record["absent"])),
    )


def _checked(ledger: Ledger, claim: Claim, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with its numbers as floats in the claim's unit and its provenance made sure of."""
    name = f"{ledger.paper}: result {record['id']!r}, which claim {claim.id!r} reads,"
    scale = _scale(claim.unit, record.get("unit") or "", name)
    numbers: dict[str, float | None] = {}
    for field in ("value", "low", "high"):
        raw = record.get(field)
        try:
            number = math.nan if raw is None else float(raw) * scale
        except (TypeError, ValueError):
            raise LedgerError(f"{name} has {field} {raw!r}, expected a number") from None
        numbers[field] = None if math.isnan(number) else number
    if numbers["value"] is None:
        raise LedgerError(f"{name} has no value; a result that is undefined cannot be compared")
    if None not in numbers.values() and not numbers["low"] <= numbers["high"]:
        raise LedgerError(f"{name} has the interval [{numbers['low']}, {numbers['high']}], expected low <= high")
    if record.get("origin") not in ORIGINS or not record.get("dataset"):
        raise LedgerError(
            f"{name} has dataset {record.get('dataset')!r} and origin {record.get('origin')!r}, "
            f"expected a dataset and one of {', '.join(ORIGINS)}"
        )
    if not isinstance(record.get("complete"), bool):
        raise LedgerError(f"{name} has complete {record.get('complete')!r}, expected true or false")
    provenance = {field: record[field] for field in ("dataset", "origin", "complete")}
    return {**numbers, **provenance, "absent": tuple(record.get("absent") or ())}


def _scale(claimed: str, recorded: str, name: str) -> float:
    """Return what a recorded number is multiplied with to stand in the claim's unit."""
    canonical = {alias: unit for unit, aliases in _UNITS.items() for alias in aliases}
    wanted, found = canonical.get(claimed, claimed), canonical.get(recorded, recorded)
    if not wanted or wanted == found or (not found and wanted != "%"):
        return 1.0
    if {wanted, found} == {"%", "fraction"}:
        return 100.0 if wanted == "%" else 0.01
    raise LedgerError(f"{name} has the unit {recorded!r}, expected {claimed!r} (% and fraction convert)")


def run_check(name: str) -> Check:
    """Run the arithmetic check `replications.<paper>.arithmetic:<function>`.

    Raises
    ------
    LedgerError
        When it is not there, stops with an exception, or returns anything but a `Check`.
    """
    module, _, function = name.partition(":")
    try:
        check: Callable[[], Check] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise LedgerError(f"no arithmetic check {name!r}: {error}") from error
    try:
        outcome = check()
    except Exception as error:
        raise LedgerError(f"arithmetic check {name!r} stopped: {type(error).__name__}: {error}") from error
    if not isinstance(outcome, Check):
        raise LedgerError(f"arithmetic check {name!r} returned {type(outcome).__name__}, expected a Check")
    return outcome


# -------------------------------------------------------------------------------------------------------- rules


def _judge(claim: Claim, published: float | None, reading: _Reading) -> tuple[str, str]:
    if claim.kind == "value":
        verdict, reason = judge_value(reading.values[0], reading.interval, published, claim.tolerance)
    elif claim.kind == "ordering":
        verdict, reason = judge_ordering(reading.values[0], reading.interval, claim.side, claim.margin)
    else:
        verdict, reason = judge_trend(reading.values, claim.direction, claim.slack)
    elsewhere = reading.dataset != claim.needs.dataset
    if reading.origin != "real" and claim.kind == "value" and elsewhere:
        return "qualitative", (
            f"on {reading.origin} data ({reading.dataset}); the published number is for {claim.needs.dataset}, "
            "so there is no direction to compare"
        )
    if reading.origin != "real":
        direction = {"reproduced": "as claimed", "partly": "as claimed, but not beyond its uncertainty"}
        found = direction.get(verdict, "not as claimed")
        return "qualitative", f"on {reading.origin} data ({reading.dataset}): {found}; {reason}"
    if elsewhere:
        return "data-unavailable", f"needs {claim.needs.dataset}; the run used {reading.dataset}"
    if reading.complete or (claim.needs.part and not claim.needs.complete):
        return verdict, reason
    missing = f"absent: {', '.join(reading.absent) or 'parts the loader did not name'}"
    if claim.needs.complete:
        return "data-unavailable", f"needs all of {reading.dataset}; {missing}; our number is on what is present"
    return verdict, f"{reason}; on part of {reading.dataset} ({missing})"


def judge_value(
    ours: float, interval: tuple[float, float] | None, published: float, tolerance: float
) -> tuple[str, str]:
    """Compare a number with the published one.

    Returns
    -------
    (verdict, reason)
    """
    distance = 0.0 if ours == published else abs(ours - published)
    text = f"{distance:.3g} from {published:g}, tolerance {tolerance:g}"
    if distance <= tolerance + _ROUNDING:
        return "reproduced", text
    if interval is not None:
        nearest = min(max(published, interval[0]), interval[1])
        if abs(nearest - published) <= tolerance + _ROUNDING:
            return "partly", f"{text}, but our interval comes within it"
    return "not-reproduced", text


def judge_ordering(
    difference: float, interval: tuple[float, float] | None, side: str, margin: float = 0.0
) -> tuple[str, str]:
    """Judge a claimed order, or claimed absence of one, by a difference and its interval.

    Parameters
    ----------
    side : {"above", "below", "same"}
        Where the difference is claimed to lie: above +margin, below -margin, or within plus or minus margin.

    Returns
    -------
    (verdict, reason)
    """
    low, high = interval or (-math.inf, math.inf)
    if side == "below":
        difference, low, high = -difference, -high, -low
    if side == "same":
        within = f"plus or minus {margin:g}"
        if -margin <= low and high <= margin:
            return "reproduced", f"the interval lies within {within}"
        if abs(difference) <= margin:
            return "partly", f"the estimate lies within {within}, its interval {_not(interval)}"
        return "not-reproduced", f"the estimate lies outside {within}"
    beyond = "beyond 0" if margin == 0 else f"beyond {margin:g}"
    if low > margin:
        return "reproduced", f"the interval lies wholly {beyond} on the claimed side"
    if difference > margin:
        return "partly", f"the estimate lies {beyond} on the claimed side, its interval {_not(interval)}"
    if high < -margin:
        return "not-reproduced", "the interval lies wholly on the other side"
    return "not-reproduced", f"the estimate does not lie {beyond} on the claimed side"


def _not(interval: tuple[float, float] | None) -> str:
    return "does not" if interval is not None else "is unknown (one trial)"


def judge_trend(values: Sequence[float], direction: str, slack: float = 0.0) -> tuple[str, str]:
    """Judge whether a sequence rises (or falls) throughout.

    Parameters
    ----------
    direction : {"increasing", "decreasing"}
    slack
        How far a single step may go the wrong way, in the unit of the values.

    Returns
    -------
    (verdict, reason)
    """
    sign = 1.0 if direction == "increasing" else -1.0
    steps = [sign * (after - before) for before, after in itertools.pairwise(values)]
    against = sum(step < -slack - _ROUNDING for step in steps)
    ends = sign * (values[-1] - values[0]) > 0
    text = f"{against} of {len(steps)} steps go against '{direction}' by more than {slack:g}"
    if ends and against == 0:
        return "reproduced", text
    if ends:
        return "partly", f"{text}; the ends agree"
    return "not-reproduced", f"{text}; the ends do not agree"


# ---------------------------------------------------------------------------------------------------- renderers


def table(verdicts: Iterable[Verdict]) -> pd.DataFrame:
    """Return the verdict table of a chapter: paper, ours, difference, verdict, with the digits the paper prints.

    Returns
    -------
    DataFrame of str, indexed by claim id
        Columns artefact, statement, test, paper, ours, difference, verdict, why.
    """
    import pandas as pd

    columns = ["artefact", "statement", "test", "paper", "ours", "difference", "verdict", "why"]
    rows = {v.claim: [v.artefact, v.statement, v.test, *numbers(v), v.verdict, v.reason] for v in verdicts}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=object)
    return frame.rename_axis("claim")


def html(verdicts: Iterable[Verdict]) -> str:
    """Return the verdict table as HTML: one row a claim, text escaped, a class `verdict-<verdict>` on each verdict.

    The first cell says what is claimed, how it was tested and why the verdict is what it is; the others show the
    paper's number, ours and their difference.
    """
    head = ("verdict", "claim", "paper", "ours", "difference")
    # The theme gives tables of class "dataframe" the colours of the page; others get a light box on dark pages.
    lines = ['<div class="scroll"><table class="dataframe routebook-table ledger-table"><thead><tr>']
    lines += [f'<th scope="col">{name}</th>' for name in head]
    lines.append("</tr></thead><tbody>")
    for v in verdicts:
        cells = [badge(v.verdict), statement(v), *(html_lib.escape(number) for number in numbers(v))]
        lines.append(f'<tr id="claim-{v.claim}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def badge(verdict: str) -> str:
    """Return a verdict as HTML, in its colour."""
    return f'<span class="verdict verdict-{verdict}">{verdict}</span>'


def statement(v: Verdict) -> str:
    """Return as HTML what is claimed, how it was tested and why the verdict is what it is."""
    claim = f'{as_code(v.statement)}<div class="ledger-small">'
    claim += f"<div><b>Test:</b> {as_code(v.test)}</div>" if v.test else ""
    claim += f"<div><b>Found:</b> {as_code(v.reason)}</div>" if v.reason else ""
    return claim + "</div>"


def as_code(text: str) -> str:
    """Escape text for HTML and show what stands between backticks as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html_lib.escape(text))


def numbers(v: Verdict) -> tuple[str, str, str]:
    """Return paper, ours (with its interval) and, where the two were compared, their difference as text."""
    signed = v.kind == "ordering"
    paper, ours = _text(v.published, v, signed), _text(v.ours, v, signed)
    if v.interval is not None:
        ours += f" [{_text(v.interval[0], v, signed)}, {_text(v.interval[1], v, signed)}]"
    difference = ""
    compared = v.verdict in ("reproduced", "partly", "not-reproduced")
    if compared and isinstance(v.published, int | float) and isinstance(v.ours, int | float):
        difference = _text(0.0 if v.ours == v.published else v.ours - v.published, v, True)
    return paper, ours, difference


def _text(value: float | str | None, v: Verdict, signed: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    unit = "%" if v.unit == "%" else ""
    return f"{value:{'+' if signed else ''}.{v.digits}f}{unit}"


def counts(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """Count verdicts; every kind of verdict is a key, in the order of `VERDICTS`."""
    found = Counter(v.verdict for v in verdicts)
    return {verdict: found[verdict] for verdict in VERDICTS}


def evaluate_all(
    ledgers: Sequence[Ledger], results: Mapping[str, Results | None]
) -> list[tuple[Ledger, list[Verdict]]]:
    """Give a verdict on every claim of every paper, papers in alphabetical order.

    Parameters
    ----------
    results
        Paper to the records of its run; a paper that is absent (or None) has not been run.

    Raises
    ------
    LedgerError
        When there are results of a paper without a ledger, or a claim cannot be evaluated.
    """
    unknown = sorted(set(results) - {ledger.paper for ledger in ledgers})
    if unknown:
        raise LedgerError(f"results of {unknown[0]!r}: no such paper{suggest(unknown[0], [x.paper for x in ledgers])}")
    in_order = sorted(ledgers, key=lambda ledger: ledger.paper)
    return [(ledger, evaluate(ledger, results.get(ledger.paper))) for ledger in in_order]


def to_json(evaluated: Sequence[tuple[Ledger, list[Verdict]]]) -> list[dict[str, Any]]:
    """Return one object for each claim (see `FIELDS`), then one for each artefact with its transcribed cells."""
    objects = [verdict.record() for _, verdicts in evaluated for verdict in verdicts]
    for ledger, _ in evaluated:
        for entry in ledger.entries:
            described = {name: getattr(entry, name) for name in ("kind", "title", "where", "status", "reason")}
            cells = [
                {name: _plain(getattr(cell, name)) for name in CELL_COLUMNS} for cell in ledger.cells[entry.id].values()
            ]
            file = f"replications/{ledger.paper}/published/{entry.published}" if entry.published else None
            objects.append(
                {"paper": ledger.paper, "artefact": entry.id, **described, "published": file, "cells": cells}
            )
    return objects


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value
