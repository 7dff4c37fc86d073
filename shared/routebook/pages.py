"""Parameters of the book's own notebooks, those that belong to no paper."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from routebook.parameters import ChapterParams, EmbeddedParams, parameter


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


class YourRouterParams(EmbeddedParams):
    """What a rerun of the page on your own router and data may change."""

    CHAPTER: ClassVar[str] = "your-router"
    DATASETS: ClassVar[tuple[str, ...]] = ("routerbench", "tinypool", "simulated")

    dataset: Literal["auto", "routerbench", "tinypool", "simulated"] = parameter(
        "auto", "benchmark to route on; auto takes the best one present"
    )
    max_prompts: int = parameter(
        3000, "prompts used, drawn at random where the benchmark has more", paper=1_000_000, ge=200, le=1_000_000
    )
    n_splits: int = parameter(5, "random splits into training and test prompts", paper=20, ge=2, le=1000)
    test_share: float = parameter(0.3, "share of prompts held out for testing", gt=0.0, lt=0.9)
    n_resamples: int = parameter(1000, "bootstrap resamples of the test prompts", ge=20, le=100_000)
    seed: int = parameter(0, "seed of everything random", ge=0, le=2**31 - 1)


class MetricsParams(EmbeddedParams):
    """What a rerun of the page on metrics may change."""

    CHAPTER: ClassVar[str] = "metrics"
    MANY: ClassVar[bool] = True
    ORIGINS: ClassVar[tuple[str, ...]] = ("real", "made")
    DATASETS: ClassVar[tuple[str, ...]] = ("routerbench", "tinypool", "simulated")

    pools: list[Literal["routerbench", "tinypool", "simulated"]] | None = parameter(
        None, "pools to route on; null: routerbench and tinypool, those that are present", min_length=1
    )
    max_prompts: int = parameter(
        3000, "prompts used of each pool, drawn at random where it has more", paper=1_000_000, ge=200, le=1_000_000
    )
    n_splits: int = parameter(10, "random splits into training and test prompts", paper=50, ge=2, le=1000)
    test_share: float = parameter(0.3, "share of prompts held out for testing", gt=0.0, lt=0.9)
    grid_sizes: list[Annotated[int, Field(ge=2, le=100_000)]] = parameter(
        [5, 10, 20, 50, 100, 200, 500, 1000], "numbers of trade-offs on a grid", min_length=2
    )
    seed: int = parameter(0, "seed of everything random", ge=0, le=2**31 - 1)
