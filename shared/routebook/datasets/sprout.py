"""SPROUT (Somerstep et al., 2025): 13 LLMs, or 14 to 15 with o3-mini, dollars per prompt; after a pull."""

from __future__ import annotations

from routebook.benchmark import RoutingBenchmark
from routebook.datasets.canonical import read_canonical
from routebook.datasets.cards import Card
from routebook.datasets.files import Place


def load(card: Card, place: Place) -> RoutingBenchmark:
    """Return SPROUT as it was pulled; `split` holds the published train, validation and test."""
    return read_canonical(card, place)
