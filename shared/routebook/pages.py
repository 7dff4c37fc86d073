"""Parameters of the book's own notebooks, those that belong to no paper."""

from __future__ import annotations

from typing import ClassVar

from routebook.parameters import ChapterParams


class BenchmarksParams(ChapterParams):
    """The benchmarks page looks at every dataset that is present; nothing about it can be set."""

    CHAPTER: ClassVar[str] = "benchmarks"
    DATASETS: ClassVar[tuple[str, ...]] = ("all",)
