"""Parameters of the book's own notebooks, those that belong to no paper."""

from __future__ import annotations

from typing import ClassVar

from routebook.parameters import ChapterParams, parameter


class BenchmarksParams(ChapterParams):
    """The benchmarks page looks at every dataset that is present; nothing about it can be set."""

    CHAPTER: ClassVar[str] = "benchmarks"
    DATASETS: ClassVar[tuple[str, ...]] = ("all",)


class TinyPoolParams(ChapterParams):
    """What a rerun of the TinyPool page may change."""

    CHAPTER: ClassVar[str] = "tinypool"
    DATASETS: ClassVar[tuple[str, ...]] = ("tinypool",)

    seed: int = parameter(0, "seed of the routers that draw at random", ge=0, le=2**31 - 1)


class PrimerParams(ChapterParams):
    """The primer's example is worked by hand; nothing about it can be set."""

    CHAPTER: ClassVar[str] = "primer"
    DATASETS: ClassVar[tuple[str, ...]] = ("tinypool",)
