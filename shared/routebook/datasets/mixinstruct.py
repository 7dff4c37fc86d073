"""MixInstruct (Jiang et al., 2023): open LLMs, quality exp(BARTScore), cost in billions of parameters; after a pull."""

from __future__ import annotations

from routebook.benchmark import RoutingBenchmark
from routebook.datasets.canonical import read_canonical
from routebook.datasets.cards import Card
from routebook.datasets.files import Place


def load(card: Card, place: Place) -> RoutingBenchmark:
    """Return MixInstruct as it was pulled; `split` holds the published train, val and test."""
    return read_canonical(card, place)
