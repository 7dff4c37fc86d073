"""A paper of one table, made up: its claims, its ledger and the records of a run."""

from __future__ import annotations

from pathlib import Path

import yaml

HEADER = "row,column,dataset,value,printed,unit,note\n"
CELLS = HEADER + "A,Area,pool,.712,.712,normalised area,\nB,Area,pool,.689,.689 *,normalised area,starred\n"
CELLS += "A,QNC,pool,99.4,99.4%,% of the dearest,\nC,Area,pool,,—,normalised area,not reported\n"


def claim(**changes):
    base = {
        "id": "area-a",
        "statement": "A has an area of .712 (Table 1).",
        "kind": "value",
        "reads": "area/a",
        "published": {"row": "A", "column": "Area"},
        "unit": "area",
        "tolerance": 0.0115,
        "reason": "half the spread",
        "needs": {"dataset": "pool"},
        "written": "2026-11-22",
    }
    return {key: value for key, value in {**base, **changes}.items() if value is not None}


def ordering(**changes):
    pair = {"minuend": {"row": "A", "column": "Area"}, "subtrahend": {"row": "B", "column": "Area"}}
    base = {"id": "a-above-b", "kind": "ordering", "reads": "area-difference/a/b", "side": "above", **pair}
    return claim(published=None, tolerance=None, **{**base, **changes})


def write(folder: Path, claims: list[dict], **entry) -> Path:
    room = folder / "replications" / "demo"
    (room / "published").mkdir(parents=True, exist_ok=True)
    (room / "published" / "table-1.csv").write_text(CELLS, encoding="utf-8")
    fields = {"id": "table-1", "kind": "table", "title": "Areas", "where": "Table 1", "published": "table-1.csv"}
    fields |= {"status": "rebuilt", "claims": claims, **entry}
    content = {"paper": "demo", "title": "Demo", "citation": "A. Author", "entries": [fields]}
    path = room / "ledger.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def record(id="area/a", value=0.7, **changes):
    base = {"low": 0.69, "high": 0.71, "n": 5, "unit": "", "dataset": "pool", "origin": "real"}
    return {"id": id, "value": value, **base, "complete": True, "absent": [], **changes}
