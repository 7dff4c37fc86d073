"""The pool: which models are trained, on what, and how long, in the order in which they are trained.

Training compute is 6 x parameters in the layers x tokens, plus the products with the vocabulary; the card gives the
bill a model. The order makes every beginning of the list a usable pool.
"""

from __future__ import annotations

from model import Shape
from tasks import DOMAINS, FAMILIES
from train import Recipe

# Skills that take more practice get more of it; long prompts, which cost most, get less.
GENERAL = dict.fromkeys(FAMILIES, 1.0) | {
    "addition": 1.5,
    "subtraction": 1.5,
    "multiplication": 1.3,
    "sequence": 1.3,
    "lookup": 1.4,
    "reverse": 0.7,
    "tracking": 0.7,
    "syllogism": 0.7,
    "story": 0.8,
}
# What a specialist sees of a family that is not its own.
ASIDE = 0.08


def _generalist(name: str, width: int, layers: int, heads: int, examples: int, batch: int = 112, **more) -> Recipe:
    return Recipe(f"general-{name}", Shape(width, layers, heads), GENERAL, examples, batch=batch, **more)


def _specialist(domain: str, size: str, examples: int) -> Recipe:
    shape = {"s": Shape(32, 2, 4), "m": Shape(64, 3, 4)}[size]
    diet = {family: weight if family in DOMAINS[domain] else ASIDE for family, weight in GENERAL.items()}
    return Recipe(f"{domain}-{size}", shape, diet, examples, batch=96)


def _single(family: str, examples: int) -> Recipe:
    return Recipe(f"{family}-only", Shape(40, 3, 5), {family: 1.0}, examples, batch=96)


RECIPES: tuple[Recipe, ...] = (
    _generalist("660k", 112, 4, 7, 280_000),
    _generalist("30k", 24, 2, 3, 180_000),
    _specialist("arithmetic", "m", 120_000),
    _specialist("strings", "s", 100_000),
    _specialist("logic", "m", 110_000),
    _generalist("140k", 56, 3, 7, 190_000),
    _specialist("knowledge", "s", 110_000),
    _generalist("12k", 16, 1, 2, 150_000),
    _specialist("arithmetic", "s", 120_000),
    _generalist("70k", 40, 3, 5, 170_000),
    _specialist("strings", "m", 70_000),
    _generalist("300k", 80, 4, 5, 170_000),
    _generalist("5k", 8, 1, 1, 120_000),
    _specialist("logic", "s", 90_000),
    _specialist("knowledge", "m", 100_000),
    # Three that practised one family and nothing else.
    _single("ordering", 80_000),
    _single("multiplication", 80_000),
    _single("calendar", 80_000),
    # Three cheap oddities: a generalist that only ever saw easy questions, and two specialists of one layer.
    Recipe("easy-30k", Shape(24, 2, 3), GENERAL, 100_000, levels=(1, 2), batch=128),
    Recipe("knowledge-xs", Shape(16, 1, 2), dict.fromkeys(DOMAINS["knowledge"], 1.0), 80_000, batch=128),
    Recipe("strings-xs", Shape(16, 1, 2), dict.fromkeys(DOMAINS["strings"], 1.0), 80_000, batch=128),
)
