"""One style for every figure of the book: vector, legible on light and dark pages, one colour a method throughout."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from routebook.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# A mid-tone that reads on white and on near-black alike (contrast at least 4 to 1 on both).
INK = "#787878"
GRID = "#78787840"
# From here on a logarithmic axis has 50k and 2M: in full, neighbours run into one another.
LONG_NUMBER = 10_000


@dataclass(frozen=True)
class Look:
    """How a method is named and drawn in every figure and table."""

    label: str
    colour: str
    dash: str | tuple[int, tuple[int, ...]] = "-"
    marker: str | tuple[int, int, int] = "o"


# Hues of Okabe and Ito's colour-blind-safe palette, in shades that hold on both themes.
# Dashes tell the methods apart in print.
METHODS: dict[str, Look] = {
    "random": Look("Random", "#8a8a8a", ":", "."),
    "oracle": Look("Oracle", "#a07d00", (0, (1, 1)), "*"),
    "best-single": Look("BestSingle", "#8a8a8a", "", "D"),
    "dataset-oracle": Look("DatasetOracle", "#4d8f3a", (0, (5, 2)), "s"),
    "zero-router": Look("ZeroRouter", "#8a8a8a", "--", "v"),
    "k-nn": Look("K-NN", "#c77800", "-.", "^"),
    "retrained-mlp": Look("Retrained MLP", "#b0568f", (0, (3, 1, 1, 1)), "P"),
    "retrained-matfac": Look("Retrained MatFac", "#8f5fbf", (0, (3, 1, 1, 1, 1, 1)), "X"),
    "clairvoyant-mlp": Look("Clairvoyant MLP", "#2f9a94", (0, (1, 2)), "p"),
    "clairvoyant-matfac": Look("Clairvoyant MatFac", "#5a67d8", (0, (1, 2)), "d"),
    "mlp": Look("MLP", "#4b9653", ":", (3, 0, 60)),
    "matfac": Look("MatFac", "#c457c2", (0, (7, 2, 1, 2)), (5, 2, 0)),
    "k-means": Look("UniRoute (K-means)", "#0a7fc2", "-", "o"),
    "learned-map": Look("UniRoute (LearnedMap)", "#d1432f", "-", "h"),
    "best-candidate": Look("Best candidate", "#8a8a8a", "--", "H"),
    "cosine-classifier": Look("CosineClassifier", "#c27230", "-.", "<"),
    "hybrid-llm": Look("HybridLLM", "#b866cc", (0, (3, 1, 1, 1)), ">"),
    "frugal-gpt": Look("FrugalGPT", "#269678", (0, (1, 2)), "8"),
    "router-dc": Look("RouterDC", "#4986e3", "--", (4, 0, 45)),
    "graph-router": Look("GraphRouter", "#8c8b1c", (0, (3, 1, 1, 1, 1, 1)), (6, 1, 0)),
    "radial-router": Look("RadialRouter", "#f24468", "-", (5, 0, 0)),
    "radialformer": Look("RadialFormer", "#f04852", "-", (7, 0, 0)),
    "star-transformer": Look("Star-Transformer", "#ad7d11", "-.", (5, 1, 0)),
    "transformer": Look("Transformer", "#5f7eed", "--", (8, 1, 0)),
    "cscr": Look("CSCR", "#0c84f2", "-", (3, 0, 0)),
    "vanilla": Look("Vanilla InfoNCE", "#f20c88", "--", (6, 2, 0)),
    "umr": Look("UMR", "#f2510c", "-.", (4, 1, 0)),
    "thompson": Look("Thompson", "#628c07", ":", (5, 0, 36)),
    "soft-moe": Look("Soft-MoE", "#8755f2", (0, (5, 2)), (3, 1, 0)),
    "parametric": Look("Parametric", "#078c4c", (0, (3, 1, 1, 1)), (7, 1, 0)),
    "semirouter-emb": Look("SemiRouter (EMB)", "#aa4ef2", "-", (10, 1, 0)),
    "semirouter-mlp": Look("SemiRouter (MLP)", "#e84acf", "--", (3, 1, 180)),
    "semirouter-att": Look("RadialRouter (ATT)", "#3a98b5", "-.", (5, 1, 36)),
    "bert-full": Look("BERT, full data", "#33a145", (0, (5, 2)), (8, 1, 22)),
    "zooter": Look("ZOOTER", "#829630", (0, (3, 1, 1, 1)), (6, 1, 30)),
    "lora-retriever": Look("LoraRetriever", "#549c32", ":", (9, 1, 0)),
    "router-dc-ss": Look("RouterDC (sample–sample)", "#4e7cf2", (0, (1, 2)), (4, 1, 45)),
}


def label(method: str) -> str:
    """Name of a method as readers see it."""
    return METHODS[method].label


@contextmanager
def style() -> Iterator[None]:
    """Apply the book's figure style inside a `with` block."""
    import matplotlib as mpl
    import seaborn as sns

    settings = {
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": GRID,
        "legend.frameon": False,
        "font.size": 10.5,
        "axes.labelsize": 10.5,
        "svg.fonttype": "path",
        "svg.hashsalt": "routebook",
    }
    with sns.axes_style("ticks"), mpl.rc_context(settings):
        yield


def to_svg(figure: Figure) -> str:
    """Return a figure as SVG text, the same bytes for the same figure, and close it."""
    import matplotlib.pyplot as plt

    with style():
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()


def deferral_plot(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    xlabel: str,
    ylabel: str = "Mean quality on test prompts",
    points: Mapping[str, tuple[float, float]] | None = None,
    bands: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    logx: bool = False,
) -> Figure:
    """Draw deferral curves: quality against cost, one line a method; single LLMs as crosses, as the papers do.

    Parameters
    ----------
    curves
        Method key (of `METHODS`) to (cost [P], quality [P]). A single point is drawn as a marker.
    points
        Name of a single LLM to its (mean cost, mean quality).
    bands
        Method key to (low [P], high [P]), an interval around its line.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns

    with style():
        figure, axes = plt.subplots(figsize=(7.2, 4.3))
        for method, (cost, quality) in curves.items():
            _draw(axes, METHODS[method], cost, quality, (bands or {}).get(method))
        for cost, quality in (points or {}).values():
            axes.plot(cost, quality, "x", color=INK, ms=6, mew=1.4)
        _finish(axes, xlabel, ylabel, logx)
        name_points(axes, points or {})
        axes.legend(fontsize=9.5, loc="center left", bbox_to_anchor=(1.01, 0.5), labelcolor=INK)
        sns.despine(figure)
    return figure


def scatter_plot(frame: pd.DataFrame, *, xlabel: str, ylabel: str, logx: bool = True) -> Figure:
    """Draw one labelled point an LLM: mean quality against mean cost. `frame` has columns model, cost and quality."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    crowded = len(frame) > 20
    with style():
        figure, axes = plt.subplots(figsize=(7.2, 4.0))
        sns.scatterplot(frame, x="cost", y="quality", ax=axes, color=METHODS["k-means"].colour, s=34, linewidth=0)
        shown = frame[_frontier(frame)] if crowded else frame
        _finish(axes, xlabel, ylabel, logx)
        axes.margins(x=0.12)
        names = shown[["model", "cost", "quality"]].itertuples(index=False)
        name_points(axes, {model: (cost, quality) for model, cost, quality in names})
        sns.despine(figure)
    return figure


def absent_plot(message: str) -> Figure:
    """Draw nothing but a message: the data a figure needs is not here."""
    import matplotlib.pyplot as plt

    with style():
        figure, axes = plt.subplots(figsize=(7.2, 1.2))
        axes.text(0.5, 0.5, message, ha="center", va="center", color=INK)
        axes.set_axis_off()
    return figure


def interval_plot(frame: pd.DataFrame, *, xlabel: str) -> Figure:
    """Draw one estimate with its interval a row.

    `frame` has columns value, low and high, and is indexed by method key, or by any other name to write beside a row.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns

    with style():
        figure, axes = plt.subplots(figsize=(6.4, 0.42 * len(frame) + 0.9))
        for place, (method, row) in enumerate(frame[::-1].iterrows()):
            colour = METHODS[method].colour if method in METHODS else METHODS["k-means"].colour
            axes.plot([row.low, row.high], [place, place], color=colour, lw=2)
            axes.plot(row.value, place, "o", color=colour, ms=6)
        axes.set_yticks(range(len(frame)), [label(m) if m in METHODS else m for m in frame.index[::-1]])
        axes.set_ylim(-0.6, len(frame) - 0.4)
        _finish(axes, xlabel, "", False)
        sns.despine(figure, left=True)
    return figure


def line_plot(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    xlabel: str,
    ylabel: str,
    diagonal: bool = False,
    scatter: bool = False,
    logx: bool = False,
    logy: bool = False,
) -> Figure:
    """Draw y against x, one line (or cloud of points) a method key; `diagonal` adds the line of equality."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    with style():
        figure, axes = plt.subplots(figsize=(5.6, 3.8))
        for method, (x, y) in lines.items():
            look = METHODS[method]
            dash = "" if scatter else look.dash
            axes.plot(
                x, y, linestyle=dash, marker=look.marker, ms=5, color=look.colour, label=look.label, mew=0, alpha=0.85
            )
        if diagonal:
            ends = [min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])]
            axes.plot(ends, ends, color=INK, lw=1)
        _finish(axes, xlabel, ylabel, logx, logy)
        if len(lines) > 1:
            # A long legend would cover lines wherever it stood.
            beside = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)} if len(lines) > 5 else {}
            axes.legend(fontsize=9, labelcolor=INK, **beside)
        sns.despine(figure)
    return figure


def group_plot(panels: Mapping[str, np.ndarray], groups: Sequence[str]) -> Figure:
    """Draw points in the plane, [N, 2] a panel, coloured by the group of each, [N]; a panel's name stands below it.

    The axes have no unit and no ticks, as those of t-SNE mean nothing.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns

    groups = np.asarray(groups)
    # Colours in the order of METHODS, each once; the marker tells groups of one colour apart.
    colours = list(dict.fromkeys(look.colour for look in METHODS.values()))
    with style():
        figure, row = plt.subplots(1, len(panels), figsize=(3.9 * len(panels), 3.7), squeeze=False)
        for axes, (name, points) in zip(row[0], panels.items(), strict=True):
            for place, group in enumerate(np.unique(groups)):
                x, y = points[groups == group].T
                marker = "os^Dv"[place // len(colours) % 5]
                colour = colours[place % len(colours)]
                axes.plot(x, y, marker, ms=2.6, mew=0, alpha=0.75, color=colour, label=group)
            axes.set(xticks=[], yticks=[])
            axes.set_xlabel(name)
        handles, names = axes.get_legend_handles_labels()
        options = {"fontsize": 9.5, "loc": "center left", "bbox_to_anchor": (1.01, 0.5), "labelcolor": INK}
        axes.legend(handles, names, markerscale=2.5, **options)
        sns.despine(figure)
    return figure


def compared_plot(
    panels: Mapping[str, tuple[pd.DataFrame, pd.Series | None]], *, xlabel: str, paper: str = "paper"
) -> Figure:
    """Draw our numbers with their intervals, and the paper's dashed beside them, one panel a quantity.

    Parameters
    ----------
    panels
        Label of the vertical axis to ours (columns value, low, high, indexed by x; NaN bounds are not drawn) and the
        paper's (indexed by x), or None where the paper has none.
    paper
        Name of the paper's line in the legend.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns

    look = METHODS["radialformer"]
    with style():
        figure, row = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.4), squeeze=False)
        for axes, (ylabel, (ours, printed)) in zip(row[0], panels.items(), strict=True):
            x = ours.index.to_numpy(dtype=float)
            axes.plot(x, ours["value"], look.dash, marker=look.marker, color=look.colour, lw=1.8, ms=5, label="ours")
            bounds = ours[["low", "high"]].to_numpy(dtype=float).T
            axes.fill_between(x, *bounds, color=look.colour, alpha=0.16, lw=0)
            if printed is not None:
                axes.plot(printed.index, printed, "--", marker="x", color=INK, lw=1.4, ms=5, label=paper)
            _finish(axes, xlabel, ylabel, False)
        axes.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5), labelcolor=INK)
        sns.despine(figure)
        figure.tight_layout()
    return figure


def heat_map(matrix: pd.DataFrame, *, colourbar: str, annotated: bool = False) -> Figure:
    """Draw a labelled matrix (rows, columns in the order given) as a heat map; `annotated` writes shares on it."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    with style():
        size = 0.32 * len(matrix) + 2.2
        figure, axes = plt.subplots(figsize=(size + 1, size))
        options = {"annot": True, "fmt": ".0%", "vmin": 0, "vmax": 1} if annotated else {}
        bar = {"label": colourbar, "shrink": 0.7}
        sns.heatmap(matrix, ax=axes, cmap="viridis", square=True, cbar_kws=bar, **options)
    return figure


def heat_panels(
    panels: Mapping[str, pd.DataFrame], words: Mapping[str, pd.DataFrame], *, xlabel: str, colourbar: str
) -> Figure:
    """Draw one heat map a panel, on one colour scale from 0 to 1, with words on every cell.

    Up to four panels stand one below another, so that the words stay legible on a page; more stand in two columns.

    Parameters
    ----------
    panels, words
        Name of a panel, written above it, to its matrix and to what stands on its cells; rows and columns alike.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns

    per_row = 1 if len(panels) <= 4 else 2
    n_rows = -(-len(panels) // per_row)
    first = next(iter(panels.values()))
    size = (1.15 * first.shape[1] * per_row + 2.4, (0.55 * len(first) + 0.9) * n_rows)
    with style():
        figure, grid = plt.subplots(n_rows, per_row, figsize=size, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes, (name, matrix) in zip(grid.flat, panels.items(), strict=False):
            options = {"annot": words[name], "fmt": "", "annot_kws": {"fontsize": 9.5}, "linewidths": 1.5}
            sns.heatmap(matrix, ax=axes, cmap="viridis", vmin=0, vmax=1, cbar=False, **options)
            axes.set(xlabel=xlabel, ylabel="")
            axes.label_outer()
            axes.annotate(name, (0, 1.04), xycoords="axes fraction", color=INK)
        figure.tight_layout()
        drawn = grid.flat[0].collections[0]
        figure.colorbar(drawn, ax=grid, label=colourbar, shrink=0.8).outline.set_visible(False)
    return figure


@dataclass(frozen=True)
class Panel:
    """One of the small plots of `grid_plot`.

    Attributes
    ----------
    title
        What tells this panel from the others, e.g. a pool's name.
    curves
        Method key (of `METHODS`) to (x [P], y [P]). A single point is drawn as a marker.
    xlabel
    bands
        Method key to (low [P], high [P]), an interval around its line.
    points
        Unnamed single LLMs, (x, y) each, drawn as crosses.
    """

    title: str
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]]
    xlabel: str
    bands: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    points: Sequence[tuple[float, float]] = ()


def grid_plot(
    panels: Sequence[Panel],
    *,
    ylabel: str,
    columns: int = 2,
    logx: bool = False,
    logy: bool = False,
    looks: Mapping[str, Look] = METHODS,
) -> Figure:
    """Draw one small plot a panel, each on axes of its own, with one legend for all.

    Parameters
    ----------
    panels
    ylabel
    columns
        Panels side by side.
    logx
        Logarithmic x axis, on the panels whose x spans more than a factor of 3.
    logy
        Logarithmic y axis; on the panels whose y spans more than a factor of 100, with a tick a power of ten.
    looks
        How each line is named and drawn, where the lines are no methods.

    Raises
    ------
    UserError
        When there is no panel.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.ticker import LogLocator

    if not panels:
        raise UserError("panels is empty, expected at least one; give the pools to draw")
    width = min(columns, len(panels))
    height = -(-len(panels) // width)
    with style():
        figure, grid = plt.subplots(height, width, figsize=(4.1 * width, 3.1 * height), squeeze=False)
        handles = {}
        for axes, panel in zip(grid.flat, panels, strict=False):
            for method, (x, y) in panel.curves.items():
                drawn = _draw(axes, looks[method], x, y, panel.bands.get(method))
                # A method may be a line on one panel and a single point on the next.
                handles.setdefault(looks[method].label, drawn)
            for x, y in panel.points:
                axes.plot(x, y, "x", color=INK, ms=5, mew=1.2)
            span = axes.dataLim.x1 / axes.dataLim.x0 if logx else 1
            _finish(axes, panel.xlabel, "", span > 3, logy)
            if logy and axes.dataLim.y1 / axes.dataLim.y0 > 100:
                axes.yaxis.set_major_locator(LogLocator())
            if span > 30:
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if span < 300 else (1,)))
            axes.set_title(panel.title, fontsize=10.5, color=INK)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes in grid[:, 0]:
            axes.set_ylabel(ylabel)
        figure.tight_layout()
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "ncols": 2 * width}
        figure.legend(handles.values(), handles.keys(), fontsize=9.5, labelcolor=INK, **below)
        sns.despine(figure)
    return figure


def _draw(axes: Axes, look: Look, x: np.ndarray, y: np.ndarray, band: tuple | None) -> Line2D:
    """Draw one line with its band, or its single point."""
    if len(x) == 1:
        (line,) = axes.plot(x, y, linestyle="", marker=look.marker, color=look.colour, ms=7, label=look.label)
        return line
    (line,) = axes.plot(x, y, linestyle=look.dash, color=look.colour, lw=1.8, label=look.label)
    if band is not None:
        axes.fill_between(x, *band, color=look.colour, alpha=0.16, lw=0)
    return line


def name_points(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Write each point's name beside it, moved apart where names would cover one another."""
    from adjustText import adjust_text

    texts = [axes.text(x, y, name, fontsize=8.5, color=INK) for name, (x, y) in points.items()]
    if texts:
        adjust_text(texts, ax=axes, arrowprops={"arrowstyle": "-", "color": INK, "lw": 0.5}, iter_lim=300)


def _frontier(frame: pd.DataFrame) -> np.ndarray:
    """Mask of the models no other model beats on quality at the same or a lower cost."""
    order = np.lexsort((-frame["quality"].to_numpy(), frame["cost"].to_numpy()))
    best, mask = -np.inf, np.zeros(len(frame), dtype=bool)
    for i in order:
        if frame["quality"].iloc[i] > best:
            best, mask[i] = frame["quality"].iloc[i], True
    return mask


def _finish(axes: Axes, xlabel: str, ylabel: str, logx: bool, logy: bool = False) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

    short = EngFormatter(sep="")
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    scales = ((logx, axes.set_xscale, axes.xaxis), (logy, axes.set_yscale, axes.yaxis))
    for set_scale, axis in ((set_scale, axis) for wanted, set_scale, axis in scales if wanted):
        set_scale("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value < LONG_NUMBER else short(value)))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(True, lw=0.6)
