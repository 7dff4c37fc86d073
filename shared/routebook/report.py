"""What the command line says about runs and ledgers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routebook import ledger, record, runs

if TYPE_CHECKING:
    from routebook.site import Built


def latest_results(root: Path, papers: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the results of the papers' most recent runs in `_build/runs`, by paper; those never run are left out."""
    from routebook.site import latest_run

    found: dict[str, list[dict[str, Any]]] = {}
    for chapter in runs.chapters(root).values():
        folder = latest_run(chapter) if chapter.paper in papers else None
        if folder is not None:
            found.setdefault(chapter.paper, []).extend(record.read_results(folder / "results.json"))
    return found


def summary(root: Path, built: Sequence[Built]) -> Iterator[str]:
    """Yield one line a notebook: dataset, seconds, and how many claims came out how."""
    ledgers = {entry.paper: entry for entry in ledger.discover(root)}
    for b in built:
        how = "ran" if b.executed else "unchanged, ran earlier"
        line = (
            f"{b.chapter.name}: {b.run['dataset']} ({b.run['origin'] or 'various'}), {how} in {b.run['seconds']:.0f} s"
        )
        if b.chapter.paper in ledgers:
            results = record.read_results(b.folder / "results.json")
            verdicts = ledger.of_pages(ledgers[b.chapter.paper], results)
            line += f"; claims: {count_words(verdicts)}"
        yield line


def count_words(verdicts: Sequence[Any]) -> str:
    """Return verdicts counted in words: "3 reproduced, 1 not-reproduced"."""
    counts = Counter(v.verdict for v in verdicts)
    return ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common()) or "none"


def ledger_lines(evaluated: Sequence[tuple[ledger.Ledger, list[ledger.Verdict]]]) -> Iterator[str]:
    """Yield each paper's claims as lines for a terminal."""
    for entry, verdicts in evaluated:
        yield f"{entry.paper}: {count_words(verdicts)}"
        for v in verdicts:
            yield f"  {v.verdict:<17} {v.artefact:<14} {v.claim}"
            yield f"  {'':<17} {v.statement}"
            if v.reason:
                yield f"  {'':<17} {v.reason}"
