"""The shared utilities of *LLM Routing, Replicated*."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routebook.benchmark import RoutingBenchmark
    from routebook.datasets import load
    from routebook.own_data import from_csv

__all__ = ["RoutingBenchmark", "__version__", "from_csv", "load"]

__version__ = "0.1.0"

_HOME = {
    "RoutingBenchmark": "routebook.benchmark",
    "from_csv": "routebook.own_data",
    "load": "routebook.datasets",
}


def __getattr__(name: str) -> Any:
    # The command line answers in under two seconds because nothing is imported before it is asked for.
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'routebook' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
