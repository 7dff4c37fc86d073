"""The pages that are made from the ledgers: scoreboard, scorecard with its downloads, errata and open questions."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import urlencode

from routebook import ledger, record
from routebook.ledger import VERDICTS, Entry, Ledger, Verdict

Evaluated = Sequence[tuple[Ledger, list[Verdict]]]

OPEN_CHOICES = "open-choices"
"""Name under which every room records the table of what its paper leaves open."""

TIERS = {
    "real": "real data",
    "made": "data this project made",
    "simulated": "simulated data",
    "own": "the paper's own numbers",
    "none": "no data",
}
STATUS = {
    "rebuilt": "rebuilt",
    "partly": "rebuilt in part",
    "planned": "planned",
    "not-applicable": "nothing to compute",
}
FILES = {
    "claims.csv": "All claims as CSV",
    "ledger.json": "All claims, tables and figures as JSON, published cells included",
}
CSV_FIELDS = tuple(field for name in ledger.FIELDS for field in (("low", "high") if name == "interval" else (name,)))


def short(found: Ledger) -> str:
    """Return a paper's short name: what stands before the colon of its title."""
    return found.title.partition(":")[0]


def tier(verdict: Verdict) -> str:
    """Return what a verdict rests on, a key of `TIERS`: an origin of data, the paper's own numbers, or nothing."""
    own = "own" if verdict.verdict.startswith("arithmetic-") else "none"
    return verdict.origin or own


# ---------------------------------------------------------------------------------------------------- downloads


def as_json(evaluated: Evaluated) -> str:
    """Return what `routebook ledger --json` prints."""
    return json.dumps(ledger.to_json(evaluated), indent=1) + "\n"


def as_csv(evaluated: Evaluated) -> str:
    """Return every claim as a row of `CSV_FIELDS`: the fields of the JSON, the interval's bounds in two columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for _, verdicts in evaluated:
        for verdict in verdicts:
            fields = verdict.record()
            low, high = fields.pop("interval") or (None, None)
            writer.writerow({**fields, "low": low, "high": high})
    return text.getvalue()


# -------------------------------------------------------------------------------------------------------- counts


def scoreboard(evaluated: Evaluated) -> str:
    """Return a small Markdown table for the intro page: verdicts counted by paper."""
    # One column a paper: papers have few letters, verdicts many kinds.
    columns = {short(found): Counter(v.verdict for v in verdicts) for found, verdicts in evaluated}
    artefacts = {short(found): len(found.entries) for found, _ in evaluated}
    if len(columns) > 1:
        columns["all papers"] = sum(columns.values(), Counter())
        artefacts["all papers"] = sum(artefacts.values())
    return _count_table(columns) + _row(["tables, figures and formal results", *artefacts.values()]) + "\n"


def tier_table(evaluated: Evaluated) -> str:
    """Return a small Markdown table: verdicts counted by what they rest on, see `TIERS`."""
    verdicts = [v for _, found in evaluated for v in found]
    columns = {words: Counter(v.verdict for v in verdicts if tier(v) == name) for name, words in TIERS.items()}
    return _count_table({words: count for words, count in columns.items() if count})


def _count_table(columns: Mapping[str, Counter[str]]) -> str:
    used = [verdict for verdict in VERDICTS if any(count[verdict] for count in columns.values())]
    lines = [_row(["verdict", *columns]), _row(["---", *["---:"] * len(columns)])]
    lines += [_row([verdict, *(count[verdict] for count in columns.values())]) for verdict in used]
    lines.append(_row(["claims, in all", *(count.total() for count in columns.values())]))
    return "\n".join([*lines, ""])


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(markdown(str(cell)) for cell in cells) + " |"


def markdown(text: str) -> str:
    """Keep text from opening a table cell, a formula, a tag or emphasis."""
    return re.sub(r"([|$`_*<>~\\])", r"\\\1", " ".join(text.split()))


# ----------------------------------------------------------------------------------------------------- scorecard


def artefact_table(evaluated: Evaluated, chapters: Mapping[str, str]) -> str:
    """Return every table, figure and formal result with its verdicts and why, as HTML that can be sorted.

    Parameters
    ----------
    chapters
        Paper to the address of its chapter, seen from the scorecard's page; a paper without one is not linked.
    """
    head = ["paper", "where", "what", "rebuilt?", "verdicts", "why not all of it"]
    rows = []
    for found, verdicts in evaluated:
        by_entry: dict[str, list[Verdict]] = {}
        for verdict in verdicts:
            by_entry.setdefault(verdict.artefact, []).append(verdict)
        paper = escape(short(found))
        if found.paper in chapters:
            paper = f'<a href="{chapters[found.paper]}">{paper}</a>'
        for entry in found.entries:
            cells = [_cell(text) for text in (paper, escape(entry.where), ledger.as_code(entry.title))]
            cells += [_cell(STATUS[entry.status]), _cell(_badges(found, entry, by_entry.get(entry.id, ())))]
            cells.append(_cell(ledger.as_code(entry.reason or ""), words=True))
            rows.append(f"<tr>{''.join(cells)}</tr>")
    return _table("Tables, figures and formal results", head, rows)


def _badges(found: Ledger, entry: Entry, verdicts: Sequence[Verdict]) -> str:
    """Return an artefact's verdicts counted; with scripts on, each leads to its claims among all."""
    count = Counter(v.verdict for v in verdicts)
    links = []
    for verdict in (name for name in VERDICTS if count[name]):
        wanted = escape(urlencode({"artefact": f"{found.paper}/{entry.id}", "verdict": verdict}))
        words = f'<span class="verdict verdict-{verdict}">{count[verdict]} {verdict}</span>'
        links.append(f'<a href="#claims" data-filter="{wanted}">{words}</a>')
    return " ".join(links) or "no claim"


def claim_table(evaluated: Evaluated) -> str:
    """Return every claim with its verdict, as HTML that can be sorted, and filtered with `claim_filters`."""
    head = ["verdict", "claim", "paper's", "ours", "difference", "where", "kind", "rests on"]
    rows = [_claim_row(found, v) for found, verdicts in evaluated for v in verdicts]
    return _table("Claims", head, rows, name="claims-table")


def _claim_row(found: Ledger, v: Verdict) -> str:
    where = next(entry.where for entry in found.entries if entry.id == v.artefact)
    keys = {"paper": v.paper, "artefact": f"{v.paper}/{v.artefact}", "kind": v.kind, "verdict": v.verdict}
    data = "".join(f' data-{name}="{value}"' for name, value in {**keys, "rests": tier(v)}.items())
    printed = ledger.numbers(v)
    cells = [_cell(ledger.badge(v.verdict), VERDICTS.index(v.verdict)), _cell(ledger.statement(v), words=True)]
    values = (v.published, v.ours, _difference(v) if printed[2] else None)
    cells += [_cell(escape(text), value) for text, value in zip(printed, values, strict=True)]
    cells += [_cell(escape(text)) for text in (f"{short(found)}, {where}", v.kind, TIERS[tier(v)])]
    return f'<tr id="claim-{v.claim}"{data}>{"".join(cells)}</tr>'


def _difference(v: Verdict) -> float:
    # Two infinities are equal, and have no difference as floats.
    return 0.0 if v.ours == v.published else float(v.ours) - float(v.published)


def _cell(content: str, value: object = None, words: bool = False) -> str:
    """Return a table cell, wide enough for sentences if it holds `words`, sorted by `value` where that is a number."""
    number = str(value).replace("inf", "Infinity") if isinstance(value, int | float) else ""
    sort = f' data-value="{number}"' if number else ""
    wide = ' class="words"' if words else ""
    return f"<td{wide}{sort}>{content}</td>"


def _table(label: str, head: Sequence[str], rows: Sequence[str], name: str = "") -> str:
    columns = "".join(f'<th scope="col">{title}</th>' for title in head)
    named = f' id="{name}"' if name else ""
    # The theme gives tables of class "dataframe" the colours of the page.
    table = f'<table class="dataframe routebook-table sortable"{named}>'
    lines = [f'<div class="scroll" role="region" aria-label="{label}" tabindex="0">{table}']
    return "\n".join([*lines, f"<thead><tr>{columns}</tr></thead><tbody>", *rows, "</tbody></table></div>"])


def claim_filters(evaluated: Evaluated) -> str:
    """Return the form that filters `claim_table`; it is hidden where no script makes it work."""
    verdicts = [v for _, found in evaluated for v in found]
    papers = {found.paper: short(found) for found, _ in evaluated}
    kinds = dict.fromkeys(sorted({v.kind for v in verdicts}))
    fields = [
        _select("paper", "Paper", papers, Counter(v.paper for v in verdicts)),
        _select("verdict", "Verdict", dict.fromkeys(VERDICTS), Counter(v.verdict for v in verdicts)),
        _select("kind", "Kind of claim", kinds, Counter(v.kind for v in verdicts)),
        _select("rests", "Rests on", TIERS, Counter(tier(v) for v in verdicts)),
        _artefact_select(evaluated),
        '<label>Text <input type="search" name="text" autocomplete="off" spellcheck="false"></label>',
    ]
    buttons = '<button type="reset">Show all claims, in the papers\u2019 order</button>'
    status = '<p role="status" class="filter-status"></p>'
    form = '<form class="table-filters" data-table="claims-table" aria-label="Filter the claims" hidden>'
    return "\n".join([form, *fields, buttons, status, "</form>"])


def _select(name: str, label: str, options: Mapping[str, str | None], count: Mapping[str, int]) -> str:
    lines = [f'<label>{label} <select name="{name}"><option value="">any</option>']
    known = [(value, words or value) for value, words in options.items() if count[value]]
    lines += [f'<option value="{value}">{escape(words)} ({count[value]})</option>' for value, words in known]
    return "".join([*lines, "</select></label>"])


def _artefact_select(evaluated: Evaluated) -> str:
    lines = ['<label>Table or figure <select name="artefact"><option value="">any</option>']
    for found, _ in evaluated:
        lines.append(f'<optgroup label="{escape(short(found))}">')
        for entry in (entry for entry in found.entries if entry.claims):
            words = escape(f"{entry.where.partition(';')[0]} ({len(entry.claims)})")
            lines.append(f'<option value="{found.paper}/{entry.id}">{words}</option>')
        lines.append("</optgroup>")
    return "".join([*lines, "</select></label>"])


def scorecard(evaluated: Evaluated, chapters: Mapping[str, str]) -> str:
    """Return the scorecard page's body in MyST Markdown; for `chapters` see `artefact_table`."""
    files = "".join(f'<li><a href="../_static/{name}" download>{words}</a></li>' for name, words in FILES.items())
    return "\n".join(
        [
            *("## Verdicts by paper", "", scoreboard(evaluated)),
            *("## Verdicts by data", "", tier_table(evaluated)),
            *("## Tables, figures and formal results", "", raw(artefact_table(evaluated, chapters))),
            *("## Claims", "", raw(f"<ul>{files}</ul>", claim_filters(evaluated), claim_table(evaluated))),
        ]
    )


def raw(*html: str) -> str:
    """Return HTML as a block of MyST Markdown."""
    return "\n".join(["```{raw} html", *html, "```", ""])


# -------------------------------------------------------------------------------------------------------- errata


def errata(evaluated: Evaluated) -> str:
    """Return what in the papers' own numbers does not agree, by paper, in MyST Markdown."""
    parts = []
    for found, verdicts in evaluated:
        failing = [
            (entry, claim, v)
            for (entry, claim), v in zip(found.claims, verdicts, strict=True)
            if v.verdict == "arithmetic-fails"
        ]
        checks = sum(claim.kind == "arithmetic" for _, claim in found.claims)
        parts += [f"### {markdown(found.title)}", "", f"{len(failing)} of {checks} checks fail.", ""]
        if failing:
            parts.append(raw(_errata_table(found, failing)))
        if found.remarks:
            parts += ["Found by reading, which no computation can check:", ""]
            parts += [f"- {markdown(f'{r.forensics} ({r.where}): {r.text}')}" for r in found.remarks]
            parts.append("")
    return "\n".join(parts)


def _errata_table(found: Ledger, failing: Sequence[tuple[Entry, ledger.Claim, Verdict]]) -> str:
    head = ["id", "what the paper says", "it prints", "its numbers give", "the check shows"]
    rows = []
    for entry, claim, v in failing:
        where = f'<div class="ledger-small">{escape(entry.where)}</div>'
        check = f'<div class="ledger-small"><code>{escape(str(claim.reads))}</code></div>'
        cells = [_cell(f'<a class="id" href="scorecard.html#claim-{claim.id}">{claim.forensics}</a>')]
        cells += [_cell(ledger.as_code(v.statement) + where, words=True)]
        cells += [_cell(escape(str(v.published))), _cell(escape(str(v.ours)))]
        cells += [_cell(ledger.as_code(v.reason) + check, words=True)]
        rows.append(f'<tr id="erratum-{claim.forensics}">{"".join(cells)}</tr>')
    return _table(f"Errata of {escape(short(found))}", head, rows)


def open_questions(papers: Mapping[str, tuple[str, Path]]) -> str:
    """Return what each paper leaves open, with our choice and its measured effect, in MyST Markdown.

    Parameters
    ----------
    papers
        Title of a paper to the address of the page that tells it, and the folder of that page's run.
    """
    import pandas as pd

    parts = []
    for title, (address, folder) in papers.items():
        frame = pd.read_csv(open_file(folder), index_col=0, dtype=str, keep_default_na=False)
        name = title.partition(":")[0]
        link = (
            f'<p><a href="{address}#what-the-paper-leaves-open">What {escape(name)} leaves open, in its chapter</a></p>'
        )
        parts += [
            f"### {markdown(name)}",
            "",
            raw(link, '<div class="scroll">', record.html_table(frame).data, "</div>"),
        ]
    return "\n".join(parts)


def open_file(folder: Path) -> Path:
    """Return where a run writes the table of what its paper leaves open, as readers see it."""
    return folder / "tables" / f"{OPEN_CHOICES}{record.SHOWN}.csv"
