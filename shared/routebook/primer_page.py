"""What the primer computes: routing among three LLMs on three prompts, small enough to follow by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from routebook import routers
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import DeferralCurve, deferral_curve
from routebook.figures import METHODS, Look, Panel, grid_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROMPTS, MODELS = ["A", "B", "C"], ["small", "medium", "large"]
TASKS = ["sums", "sums", "capitals"]
COST = np.array([1.0, 2.0, 4.0])
ESTIMATE = np.array([[0.60, 0.80, 0.90], [0.40, 0.45, 0.85], [0.90, 0.80, 0.70]])
QUALITY = np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
REFERENCES = ("oracle", "dataset-oracle", "zero-router", "best-single")
LOOKS = {
    "small": Look("small", METHODS["k-nn"].colour, ":"),
    "medium": Look("medium", METHODS["dataset-oracle"].colour, "--"),
    "large": Look("large", METHODS["k-means"].colour, "-"),
}
LAST_LAMBDA = 0.3


def example() -> RoutingBenchmark:
    """Return the worked example: three prompts, three LLMs, known answers."""
    return RoutingBenchmark(
        name="worked example",
        prompts=PROMPTS,
        tasks=np.array(TASKS),
        models=MODELS,
        quality=QUALITY,
        cost=np.broadcast_to(COST, QUALITY.shape),
        cost_unit="units per prompt",
        origin="simulated",
    )


def estimate_table() -> pd.DataFrame:
    """Return what the example's router believes, what is true in brackets, and what each LLM costs."""
    cells = [
        [f"{guess:.2f} ({'right' if truth else 'wrong'})" for guess, truth in zip(*rows, strict=True)]
        for rows in zip(ESTIMATE, QUALITY, strict=True)
    ]
    shown = pd.DataFrame(cells, index=[f"prompt {p}" for p in PROMPTS], columns=MODELS)
    shown.loc["cost"] = [f"{cost:g}" for cost in COST]
    return shown


def routed_table(curve: DeferralCurve) -> pd.DataFrame:
    """Return one row a piece of the example's deferral curve: from which λ, who answers each prompt, cost, quality."""
    chosen = [[MODELS[m] for m in (ESTIMATE - lam * COST).argmax(axis=1)] for lam in _inside(curve)]
    table = pd.DataFrame(chosen, columns=[f"prompt {p}" for p in PROMPTS])
    return table.assign(**{"mean cost": curve.cost, "mean quality": curve.quality}).set_index(
        pd.Index(curve.lam, name="from λ")
    )


def _inside(curve: DeferralCurve) -> np.ndarray:
    """Return a λ inside each piece: at a breakpoint itself two LLMs score the same, but for rounding."""
    ends = np.append(curve.lam[1:], 2 * curve.lam[-1])
    return (curve.lam + ends) / 2


def reference_curves() -> dict[str, DeferralCurve]:
    """Return the curves of the routers every comparison needs, on the example.

    They learn from the very prompts they route, as the example has no others; nowhere else in the book do they.
    """
    benchmark = example()
    nothing = np.zeros((len(benchmark), 1))
    made = (routers.Oracle(), routers.DatasetOracle(), routers.ZeroRouter(), routers.BestSingle())
    curves = {}
    for name, router in zip(REFERENCES, made, strict=True):
        estimate = routers.quality_for(router.fit(benchmark, nothing), nothing, MODELS, tasks=benchmark.tasks)
        curves[name] = deferral_curve(estimate, QUALITY, COST)
    return curves


def random_point() -> tuple[float, float]:
    """Return the mean cost and the mean quality of sending every prompt to an LLM drawn at random."""
    return float(COST.mean()), float(QUALITY.mean())


def score_plot() -> Figure:
    """Draw the score ĝ − λc of every LLM against λ, one panel a prompt: the highest line is chosen."""
    at = np.array([0.0, LAST_LAMBDA])
    panels = [
        Panel(
            f"prompt {prompt}",
            {model: (at, guess - at * cost) for model, guess, cost in zip(MODELS, row, COST, strict=True)},
            "λ",
        )
        for prompt, row in zip(PROMPTS, ESTIMATE, strict=True)
    ]
    return grid_plot(panels, ylabel="Score", columns=3, looks=LOOKS)


def curve_plot(curve: DeferralCurve, references: Mapping[str, DeferralCurve]) -> Figure:
    """Draw the example's deferral curve with its references; crosses are the single LLMs."""
    looks = {**METHODS, "router": Look("the router", METHODS["k-means"].colour, "-")}
    lines = {"router": curve.points, **{name: found.points for name, found in references.items()}}
    lines["random"] = tuple(np.array([value]) for value in random_point())
    singles = list(zip(curve.model_cost, curve.model_quality, strict=True))
    return grid_plot([Panel("", lines, "Mean cost", points=singles)], ylabel="Mean quality", looks=looks)


def lambda_table(curve: DeferralCurve, shares: Mapping[float, np.ndarray], models: list[str]) -> pd.DataFrame:
    """Return what λ does on a pool: cost, quality and the LLM most used at each λ.

    Parameters
    ----------
    curve
    shares
        λ times the cost of the dearest LLM to the share of prompts each LLM gets, [M].
    models : list of str, length M
    """
    dearest = curve.model_cost.max()
    rows = {}
    for scaled, share in shares.items():
        cost, quality = curve.at_lambda(scaled / dearest)
        most = int(share.argmax())
        rows[f"{scaled:g}"] = {
            "mean cost, % of the dearest": 100 * cost / dearest,
            "mean quality": quality,
            "LLMs used": int((share > 0).sum()),
            "most used": f"{models[most]} ({share[most]:.0%})",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("λ × dearest cost")


def shares_at(estimate: np.ndarray, cost: np.ndarray, scaled: list[float]) -> dict[float, np.ndarray]:
    """Return the share of prompts that each LLM gets at each λ, given as a multiple of 1 / the dearest cost.

    Parameters
    ----------
    estimate : ndarray, [N, M]
    cost : ndarray, [M]
    """
    lambdas = {value: value / cost.max() for value in scaled}
    chosen = {
        value: routers.best_llm(estimate - lam * cost, np.broadcast_to(cost, estimate.shape))
        for value, lam in lambdas.items()
    }
    return {value: np.bincount(picks, minlength=len(cost)) / len(picks) for value, picks in chosen.items()}
