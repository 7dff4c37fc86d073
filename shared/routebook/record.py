"""A chapter's notebook as a source of results: every number shown is also written down.

`Record` shows tables and figures in the notebook, makes each number available to the prose (`glue`) and, when the
notebook runs under `routebook run`, writes the machine copies beside it: `results.json`, `tables/*.csv` and
`figures/*.svg`.
"""

from __future__ import annotations

import json
import math
import os
import re
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routebook.benchmark import RoutingBenchmark

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas as pd
    from IPython.display import HTML, SVG

OUTPUT_VARIABLE = "ROUTEBOOK_OUT"

SHOWN = "-shown"
"""What the file of a table as readers see it has after the name of the file with its numbers."""


class Record:
    """Collects what a notebook finds.

    Parameters
    ----------
    folder
        Where results are written; by default the folder `routebook run` names. Without either, nothing is written.
    page
        Name of a further page of a paper's chapter; every id recorded or glued then begins with it, so that the pages'
        results do not collide in the paper's ledger.
    """

    def __init__(self, folder: Path | None = None, *, page: str = "") -> None:
        self.prefix = f"{page}/" if page else ""
        named = os.environ.get(OUTPUT_VARIABLE)
        self.folder = folder or (Path(named) if named else None)
        self.records: list[dict[str, Any]] = []
        self._source: dict[str, Any] = {"dataset": None, "origin": None, "complete": True, "absent": []}
        self._started = time.monotonic()

    def use(self, benchmark: RoutingBenchmark) -> RoutingBenchmark:
        """Name the benchmark that the results recorded from now on were computed on, and return it."""
        self._source = {
            "dataset": benchmark.name,
            "origin": benchmark.origin,
            "complete": not benchmark.absent,
            "absent": list(benchmark.absent),
        }
        return benchmark

    def value(
        self,
        id: str,
        value: float,
        *,
        low: float | None = None,
        high: float | None = None,
        n: int | None = None,
        unit: str = "",
    ) -> float:
        """Record one number, with its interval and the number of observations behind it, and glue it for the prose.

        Returns
        -------
        float
            The value as a plain Python float (NumPy scalars render as nothing when glued).
        """
        id = self.prefix + id
        number = _plain(value)
        bounds = {"low": _plain(low), "high": _plain(high)}
        self._add({"id": id, "value": number, **bounds, "n": None if n is None else int(n), "unit": unit})
        _glue(id, number)
        for suffix, bound in (("low", low), ("high", high)):
            if bound is not None:
                _glue(f"{id}/{suffix}", _plain(bound))
        self._write()
        return number

    def text(self, name: str, value: str) -> str:
        """Glue a piece of text (a dataset's name, a list of models) for the prose."""
        _glue(self.prefix + name, value)
        return value

    def table(self, name: str, frame: pd.DataFrame, *, show: pd.DataFrame | None = None) -> HTML:
        """Record every cell of a table and return it for display.

        Parameters
        ----------
        name
            File name of the table, without its ending.
        frame
            The numbers, one row a method, one column a metric.
        show
            The table as readers see it (formatted strings); by default `frame` itself.
        """
        for row, cells in frame.iterrows():
            for column, value in cells.items():
                if isinstance(value, int | float) or hasattr(value, "dtype"):
                    self._add(
                        {"id": f"{self.prefix}table/{name}/{row}/{column}", "value": _plain(value), "table": name}
                    )
        if self.folder is not None:
            (self.folder / "tables").mkdir(parents=True, exist_ok=True)
            frame.to_csv(self.folder / "tables" / f"{name}.csv")
            if show is not None:
                show.to_csv(self.folder / "tables" / f"{name}{SHOWN}.csv")
        self._write()
        return html_table(frame if show is None else show)

    def figure(self, name: str, figure: matplotlib.figure.Figure) -> SVG:
        """Write a figure as SVG and return it for display."""
        from IPython.display import SVG

        from routebook.figures import to_svg

        svg = to_svg(figure)
        if self.folder is not None:
            (self.folder / "figures").mkdir(parents=True, exist_ok=True)
            (self.folder / "figures" / f"{name}.svg").write_text(svg, encoding="utf-8")
        self._write()
        return SVG(svg)

    def _add(self, record: dict[str, Any]) -> None:
        known = {"low": None, "high": None, "n": None, "unit": ""}
        self.records = [r for r in self.records if r["id"] != record["id"]]
        self.records.append({**known, **record, **self._source})

    def _write(self) -> None:
        if self.folder is None:
            return
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _write_json(self.folder / "results.json", self.records)
        _write_json(
            self.folder / "kernel.json",
            {
                "seconds": round(time.monotonic() - self._started, 1),
                # Linux counts kibibytes, macOS bytes.
                "peak_memory_mib": round(peak / 1024 if sys.platform != "darwin" else peak / 1024**2),
            },
        )


def html_table(frame: pd.DataFrame) -> HTML:
    """Return a table as HTML that narrow pages scroll and both themes can read.

    Cells may hold HTML of our own; what stands between backticks is shown as code.
    """
    from IPython.display import HTML

    html = frame.to_html(escape=False, border=0, classes="routebook-table")
    # A header without words is announced as one: an empty corner is a plain cell.
    html = html.replace("<th></th>", "<td></td>")
    return HTML(re.sub(r"`([^`<>]+)`", r"<code>\1</code>", html))


def _plain(value: Any) -> float | None:
    return None if value is None else float(value)


def _glue(name: str, value: Any) -> None:
    from myst_nb import glue

    glue(name, value, display=False)


def _write_json(path: Path, content: Any) -> None:
    """Write JSON in which not-a-number is null and infinity the text "inf", as JSON knows neither."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(_jsonable(content), indent=1), encoding="utf-8")
    partial.replace(path)


def _jsonable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, dict):
        return {k: _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    return value


def read_results(path: Path) -> list[dict[str, Any]]:
    """Read `results.json` back: "inf" becomes infinity, null in `value` not-a-number."""
    records = json.loads(path.read_text(encoding="utf-8"))
    for record in records:
        for key in ("value", "low", "high"):
            if isinstance(record[key], str):
                record[key] = float(record[key])
        if record["value"] is None:
            record["value"] = math.nan
    return records
