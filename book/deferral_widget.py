"""The interactive deferral curve: every router's operating point and model mix as lambda moves.

Everything is drawn here, at one lambda, as inline SVG and HTML that are whole without scripts. The data for the other
positions of the control lie beside it as JSON, in the units of the drawing; `_static/deferral.js` only moves what is
there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from book.synthesis_page import LOOKS
from replications.cscr.experiment import Run, choose, cost_unit
from routebook.figures import label

N_POSITIONS = 41
# The drawing, in its own units; the page scales it.
WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 42
# Neighbouring points of a drawn line lie at least so far apart.
STEP = 2.0
# Said in the drawing itself, so that it is whole wherever the notebook is read.
LINE = 'fill="none" stroke-width="1.6"'
GRID = 'fill="none" stroke="currentColor" stroke-opacity="0.15"'
SWATCH = "display:inline-block;width:0.8em;height:0.8em;margin-right:0.4em;border-radius:0.2em"
MIX = "display:flex;height:1.1em;min-width:9em"
SVG_DASHES = {"-": "", "--": "5 3", "-.": "6 2 1 2", ":": "1 2"}
# A letter for each router, so that colours need not be told apart.
LETTERS = {
    "oracle": "O",
    "k-means": "U",
    "learned-map": "L",
    "cscr": "C",
    "radial-router": "R",
    "semirouter-emb": "S",
    "k-nn": "K",
    "mlp": "M",
    "zero-router": "Z",
    "dataset-oracle": "D",
}


@dataclass(frozen=True, eq=False)
class Points:
    """Where one router stands at every position of the control.

    Attributes
    ----------
    cost, quality : ndarray, [P]
        Means over the test prompts; costs in the shown unit.
    mix : ndarray, [P, M]
        Share of the prompts that each LLM is sent, LLMs from cheap to dear.
    """

    cost: np.ndarray
    quality: np.ndarray
    mix: np.ndarray


def positions(run: Run, n: int = N_POSITIONS) -> np.ndarray:
    """Return the lambdas of the control, [n], in quality per unit of the pool's own cost.

    0, then equal steps of a factor: from where the dearest LLM's cost takes a hundredth off its score, to where the
    step from the cheapest LLM to the next costs a whole unit of quality, which no quality in [0, 1] can outweigh.
    """
    price = np.unique(run.split.price)
    low, high = 0.01 / price[-1], 1.0 / (price[1] - price[0])
    return np.concatenate([[0.0], np.geomspace(low, high, n - 1)])


def points(run: Run, method: str, lams: np.ndarray) -> Points:
    """Return a router's operating points and model mixes at some lambdas."""
    price, test = run.split.price, run.split.test
    order = np.argsort(price, kind="stable")
    cost, quality = run.curves[method].at_lambda(lams)
    chosen = [choose(run.estimates[method], price, lam) for lam in lams]
    mix = np.array([np.bincount(choice, minlength=len(price))[order] for choice in chosen]) / len(test)
    return Points(cost * cost_unit(test)[1], quality, mix)


def data(run: Run, methods: Sequence[str]) -> dict:
    """Return what the script moves: for each position the label of lambda, and each router's place, numbers and mix."""
    lams, axes = positions(run), _Axes.of(run, methods)
    unit, factor = cost_unit(run.split.test)
    found = {}
    for method in methods:
        here = points(run, method, lams)
        found[method] = {
            "x": np.round(axes.x(here.cost), 1).tolist(),
            "y": np.round(axes.y(here.quality), 1).tolist(),
            "cost": [_number(value) for value in here.cost],
            "quality": [f"{value:.3f}" for value in here.quality],
            "mix": np.round(100 * here.mix, 1).tolist(),
        }
    worth = ["any cost", *(f"{_number(factor / lam)} {unit}" for lam in lams[1:])]
    return {"worth": worth, "llms": _llms(run), "methods": found}


def widget(run: Run, methods: Sequence[str]) -> str:
    """Return the interactive deferral curve of those methods that were run as HTML, whole without scripts."""
    methods = [method for method in methods if method in run.curves]
    moved = data(run, methods)
    start = len(moved["worth"]) // 2
    unit = cost_unit(run.split.test)[0]
    rows = "".join(_row(method, moved, start) for method in methods)
    mixed = f"Share of prompts sent to each LLM, from {moved['llms'][0]} (cheapest) to {moved['llms'][-1]} (dearest)"
    found = json.dumps(moved, separators=(",", ":")).replace("</", "<\\/")
    return (
        f'<div class="deferral" data-start="{start}">'
        f"{_svg(run, methods, moved, start)}"
        '<p class="deferral-control"><noscript>Scripts are off, so the points stand still. </noscript>'
        f"Here a unit of quality is worth <output>{escape(moved['worth'][start])}</output>.</p>"
        '<div class="scroll"><table class="deferral-table"><thead><tr><th scope="col">Router</th>'
        f'<th scope="col">Mean cost ({escape(unit)})</th><th scope="col">Mean quality</th>'
        f'<th scope="col">{escape(mixed)}</th></tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="deferral-llms">{_llm_key(moved["llms"])}</p>'
        f'<script type="application/json" class="deferral-data">{found}</script></div>'
    )


def _llms(run: Run) -> list[str]:
    """Return the LLMs' short names, from cheap to dear."""
    order = np.argsort(run.split.price, kind="stable")
    return [run.split.test.models[i].rpartition("/")[2] for i in order]


def _colours(n: int) -> list[str]:
    """Return a colour for each LLM, from cheap to dear."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](value)) for value in np.linspace(0.95, 0.1, n)]


def ink_on(colour: str) -> str:
    """Return black or white, whichever reads better on a colour: the contrast is at least 4.5 to 1."""
    from matplotlib.colors import to_rgb

    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    luminance = float(np.dot([0.2126, 0.7152, 0.0722], channels))
    return "#000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#fff"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _llm_key(llms: Sequence[str]) -> str:
    swatches = zip(llms, _colours(len(llms)), strict=True)
    return " ".join(
        f'<span><span style="{SWATCH};background:{colour}"></span>{escape(name)}</span>' for name, colour in swatches
    )


def mix_in_words(llms: Sequence[str], mix: Sequence[float]) -> str:
    """Return a model mix (percentages) for those who do not see the bar: the LLMs with most prompts first."""
    order = sorted(range(len(llms)), key=lambda i: -mix[i])
    return ", ".join(f"{mix[i]:.0f} % {llms[i]}" for i in order if mix[i] >= 0.5)


def _row(method: str, moved: dict, start: int) -> str:
    here = moved["methods"][method]
    parts = "".join(
        f'<span style="width:{share}%;background:{colour}"></span>'
        for share, colour in zip(here["mix"][start], _colours(len(moved["llms"])), strict=True)
    )
    words = escape(mix_in_words(moved["llms"], here["mix"][start]))
    colour = LOOKS[method].colour
    badge = f'<span class="deferral-badge" style="background:{colour};color:{ink_on(colour)}">{LETTERS[method]}</span>'
    return (
        f'<tr data-method="{method}"><th scope="row">{badge} {escape(label(method))}</th>'
        f'<td class="deferral-cost">{here["cost"][start]}</td>'
        f'<td class="deferral-quality">{here["quality"][start]}</td>'
        f'<td><div class="deferral-mix" style="{MIX}" role="img" aria-label="{words}">{parts}</div></td></tr>'
    )


@dataclass(frozen=True)
class _Axes:
    """Maps mean cost (logarithmic) and mean quality to the drawing."""

    costs: tuple[float, float]
    qualities: tuple[float, float]

    @classmethod
    def of(cls, run: Run, methods: Sequence[str]) -> _Axes:
        factor = cost_unit(run.split.test)[1]
        cost = np.concatenate([run.curves[m].points[0] for m in methods]) * factor
        quality = np.concatenate([run.curves[m].points[1] for m in methods])
        room = 0.04 * (quality.max() - quality.min())
        return cls((cost.min() / 1.05, cost.max() * 1.05), (quality.min() - room, quality.max() + room))

    def x(self, cost: np.ndarray) -> np.ndarray:
        low, high = np.log(self.costs)
        return LEFT + (WIDTH - LEFT - RIGHT) * (np.log(cost) - low) / (high - low)

    def y(self, quality: np.ndarray) -> np.ndarray:
        low, high = self.qualities
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (np.asarray(quality) - low) / (high - low)

    def cost_ticks(self) -> list[float]:
        decades = range(int(np.floor(np.log10(self.costs[0]))), int(np.ceil(np.log10(self.costs[1]))) + 1)
        ticks = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
        return [tick for tick in ticks if self.costs[0] <= tick <= self.costs[1]]

    def quality_ticks(self) -> list[float]:
        low, high = self.qualities
        step = next(step for step in (0.02, 0.05, 0.1, 0.2) if (high - low) / step <= 8)
        return [round(i * step, 2) for i in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]


def _svg(run: Run, methods: Sequence[str], moved: dict, start: int) -> str:
    axes, unit = _Axes.of(run, methods), cost_unit(run.split.test)[0]
    factor = cost_unit(run.split.test)[1]
    lines = [_grid(axes, unit)]
    for method in methods:
        cost, quality = run.curves[method].points
        path = _thinned(axes.x(cost * factor), axes.y(quality))
        look = LOOKS[method]
        dash = SVG_DASHES.get(look.dash, "4 2") if isinstance(look.dash, str) else " ".join(map(str, look.dash[1]))
        lines.append(f'<polyline points="{path}" {LINE} stroke="{look.colour}" stroke-dasharray="{dash or "none"}"/>')
    for method in methods:
        here = moved["methods"][method]
        colour = LOOKS[method].colour
        lines.append(
            f'<g data-method="{method}" transform="translate({here["x"][start]:g} {here["y"][start]:g})">'
            f'<circle r="6.5" fill="{colour}"/>'
            f'<text y="3.2" text-anchor="middle" font-size="9" font-weight="700" fill="{ink_on(colour)}">'
            f"{LETTERS[method]}</text></g>"
        )
    said = escape(f"Deferral curves of {len(methods)} routers: mean quality against mean cost, with a point on each.")
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" style="display:block;width:100%;max-width:42rem;margin:0 auto"'
    text = 'font-size="11" font-family="sans-serif" fill="currentColor"'
    return f'<svg {size} {text} role="img" aria-label="{said}">{"".join(lines)}</svg>'


def _grid(axes: _Axes, unit: str) -> str:
    bottom, middle = HEIGHT - BOTTOM, (LEFT + WIDTH - RIGHT) / 2
    drawn = [f'<path fill="none" stroke="currentColor" d="M{LEFT},{TOP}V{bottom}H{WIDTH - RIGHT}"/>']
    for tick in axes.cost_ticks():
        x = float(axes.x(np.array(tick)))
        drawn.append(f'<path {GRID} d="M{x:.1f},{TOP}V{bottom}"/>')
        drawn.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{_tick(tick)}</text>')
    for tick in axes.quality_ticks():
        y = float(axes.y(np.array(tick)))
        drawn.append(f'<path {GRID} d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}"/>')
        drawn.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    drawn.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">Mean cost ({escape(unit)})</text>')
    high = (TOP + bottom) / 2
    drawn.append(f'<text transform="translate(11 {high}) rotate(-90)" text-anchor="middle">Mean quality</text>')
    return "".join(drawn)


def _tick(value: float) -> str:
    """Write a cost as short as it can be read: 0.5, 20, 100k."""
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def _thinned(x: np.ndarray, y: np.ndarray) -> str:
    """Return a line's points as SVG has them, without those that lie on their predecessor."""
    kept = [0]
    for i in range(1, len(x)):
        last = i == len(x) - 1
        if last or np.hypot(x[i] - x[kept[-1]], y[i] - y[kept[-1]]) >= STEP:
            kept.append(i)
    return " ".join(f"{x[i]:.1f},{y[i]:.1f}" for i in kept)
