"""Parameters of the book's own notebooks, those that belong to no paper."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, field_validator

from routebook.parameters import ChapterParams, EmbeddedParams, parameter

SynthesisPool = Literal["routerbench", "routerdc", "tinypool"]


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
        2000, "prompts used, drawn at random where the benchmark has more", paper=1_000_000, ge=200, le=1_000_000
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
        2000, "prompts used of each pool, drawn at random where it has more", paper=1_000_000, ge=200, le=1_000_000
    )
    n_splits: int = parameter(10, "random splits into training and test prompts", paper=50, ge=2, le=1000)
    test_share: float = parameter(0.3, "share of prompts held out for testing", gt=0.0, lt=0.9)
    grid_sizes: list[Annotated[int, Field(ge=2, le=100_000)]] = parameter(
        [5, 10, 20, 50, 100, 200, 500, 1000], "numbers of trade-offs on a grid", min_length=2
    )
    seed: int = parameter(0, "seed of everything random", ge=0, le=2**31 - 1)


class SynthesisParams(EmbeddedParams):
    """What a rerun of the page that compares all methods may change."""

    CHAPTER: ClassVar[str] = "synthesis"
    MANY: ClassVar[bool] = True
    DATASETS: ClassVar[tuple[str, ...]] = get_args(SynthesisPool)
    ORIGINS: ClassVar[tuple[str, ...]] = ("real", "made")

    pools: list[SynthesisPool] | None = parameter(
        None, "pools to route on; null: routerbench, routerdc and tinypool, those that are present", min_length=1
    )
    max_prompts: int = parameter(
        1500, "prompts used of each pool, drawn at random where it has more", paper=1_000_000, ge=200, le=1_000_000
    )
    n_seeds: int = parameter(4, "splits, each with trainings of its own", paper=10, ge=2, le=1000)
    seed: int = parameter(0, "seed of everything random; splits have this one and those after it", ge=0, le=2**30)
    test_share: float = parameter(0.3, "share of prompts to test on", gt=0.0, lt=0.9)
    new_share: float = parameter(0.33, "share of LLMs that are new when they are routed to", gt=0.0, lt=1.0)
    n_new_labels: int = parameter(192, "training prompts on which new LLMs are labelled", ge=10, le=1_000_000)
    shares: list[Annotated[float, Field(gt=0.0, lt=1.0)]] = parameter(
        [0.05, 0.2], "shares of labels that LLMs other than SemiRouter's anchors keep", min_length=1
    )
    training: Literal["quick", "paper"] = parameter(
        "quick", "profile in which each method is trained by its own chapter", paper="paper"
    )

    @field_validator("pools")
    @classmethod
    def _some_pool_has_fingerprints(cls, pools: list[str] | None) -> list[str] | None:
        if pools is not None and set(pools) <= {"routerdc"}:
            raise ValueError("routerdc has no fingerprints, which CSCR needs; name routerbench or tinypool as well")
        return pools

    @property
    def seeds(self) -> list[int]:
        """Seeds of the splits and of the trainings on them."""
        return [self.seed + i for i in range(self.n_seeds)]
