"""Parameters of the UniRoute chapter."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from routebook.parameters import EmbeddedParams, parameter


class UniRouteParams(EmbeddedParams):
    """What a rerun of the UniRoute chapter may change; the paper's values are those of Section 6 and Appendices F-G."""

    CHAPTER: ClassVar[str] = "uniroute"
    DATASETS: ClassVar[tuple[str, ...]] = ("routerbench", "tinypool", "simulated")

    dataset: Literal["auto", "routerbench", "tinypool", "simulated"] = parameter(
        "auto", "benchmark to route on; auto takes the best one present"
    )
    max_prompts: int = parameter(
        2000, "prompts used, drawn at random where the benchmark has more", paper=1_000_000, ge=200, le=1_000_000
    )
    n_trials: int = parameter(
        5, "independent trials, each redrawing the prompt split and the unseen LLMs", paper=400, ge=1, le=1000
    )
    seed: int = parameter(0, "seed of everything random", ge=0, le=2**31 - 1)
    train_llm_share: float = parameter(0.5, "share of LLMs seen in training; the rest are unseen", gt=0.0, lt=1.0)
    n_validation: int = parameter(400, "validation prompts, labelled for unseen LLMs", ge=20, le=100_000)
    test_share: float = parameter(0.3, "share of prompts held out for testing", gt=0.0, lt=0.9)
    cluster_grid: list[Annotated[int, Field(ge=1, le=10_000)]] | None = parameter(
        None,
        "candidate numbers of clusters K; null: 3, 4, ... 16, 24, ... n_validation / 50, after Appendix G.2",
        min_length=1,
    )
    neighbour_grid: list[Annotated[int, Field(ge=1, le=10_000)]] | None = parameter(
        None,
        "candidate numbers of neighbours; null: 5, 10, 20, 40, ... n_validation / 3, as in Appendix G.2",
        min_length=1,
    )
    n_clusters: int | None = parameter(
        None, "number of clusters K; null: chosen by the paper's validation procedure", ge=1, le=10_000
    )
    n_neighbours: int | None = parameter(
        None, "number of neighbours; null: chosen by the paper's validation procedure", ge=1, le=10_000
    )
    tuning: Literal["trial", "dataset"] = parameter(
        "trial", "whether K and the rank are tuned in every trial or once per dataset", paper="dataset"
    )
    tuning_trials: int = parameter(
        5, "first trials whose validation areas are averaged where tuning is per dataset", ge=1, le=1000
    )
    kmeans_starts: int = parameter(10, "starts of K-means, of which the best is kept", ge=1, le=100)

    @property
    def clusters_tried(self) -> list[int]:
        """Candidate numbers of clusters (Appendix G.2: from 3 to the validation sample size divided by 50).

        The appendix gives no steps: here every number to 16, then steps by half, which end at N_val / 50.
        """
        if self.n_clusters is not None:
            return [self.n_clusters]
        if self.cluster_grid is not None:
            return sorted(set(self.cluster_grid))
        top = max(self.n_validation // 50, 3)
        grid = list(range(3, min(top, 16) + 1))
        while grid[-1] < top:
            grid.append(min(grid[-1] * 3 // 2, top))
        return grid

    @property
    def neighbours_tried(self) -> list[int]:
        """Candidate numbers of neighbours (Appendix G.2: from 5 to a third of the validation sample size)."""
        if self.n_neighbours is not None:
            return [self.n_neighbours]
        top = self.n_validation // 3
        doubling = [5 * 2**i for i in range(top.bit_length()) if 5 * 2**i < top]
        return sorted(set(self.neighbour_grid or [*doubling, top]))

    @model_validator(mode="after")
    def _neighbours_fit(self) -> UniRouteParams:
        if max(self.neighbours_tried) > self.n_validation:
            raise ValueError(
                f"neighbours are looked up among n_validation = {self.n_validation} prompts, so "
                f"{max(self.neighbours_tried)} are too many; lower neighbour_grid or n_neighbours "
                "or raise n_validation"
            )
        return self


# Pools of the page on other pools: the paper's first, made and simulated ones last.
Pool = Literal[
    "routerbench",
    "embedllm",
    "sprout",
    "mmlu-pro",
    "gsm8k-zeroeval",
    "openllm-v2",
    "routerdc",
    "overruling",
    "tinypool",
    "simulated",
]


class PoolsParams(EmbeddedParams):
    """What a rerun of the page on other pools may change; the paper's values are those of Section 6 and G.2."""

    CHAPTER: ClassVar[str] = "uniroute-pools"
    MANY: ClassVar[bool] = True
    DATASETS: ClassVar[tuple[str, ...]] = get_args(Pool)

    pools: list[Pool] | None = parameter(None, "pools to route on; null: every real one that is present", min_length=1)
    max_prompts: int = parameter(
        1500, "prompts used of each pool, drawn at random where it has more", paper=1_000_000, ge=200, le=1_000_000
    )
    n_trials: int = parameter(
        5, "independent trials a pool, each redrawing the prompt split and the unseen LLMs", paper=400, ge=1, le=1000
    )
    seed: int = parameter(0, "seed of everything random", ge=0, le=2**31 - 1)
    n_validation: int | None = parameter(
        400,
        "validation prompts, labelled for unseen LLMs; null: a tenth of the prompts of EmbedLLM, 400 elsewhere",
        paper=None,
        ge=20,
        le=100_000,
    )
    test_share: float = parameter(0.3, "share of prompts held out for testing", gt=0.0, lt=0.9)
    sample_sizes: list[Annotated[int, Field(ge=20, le=100_000)]] = parameter(
        [50, 100, 200, 400, 800],
        "validation sample sizes of Figure 2 (bottom); a pool leaves out those above half of what testing leaves",
        min_length=1,
    )
    size_trials: int = parameter(3, "trials at each validation sample size", paper=100, ge=1, le=1000)

    @model_validator(mode="after")
    def _smallest_size_fits(self) -> PoolsParams:
        room = int((1 - self.test_share) * self.max_prompts) // 2
        if min(self.sample_sizes) > room:
            raise ValueError(
                f"sample_sizes: the smallest is {min(self.sample_sizes)}, but with max_prompts={self.max_prompts} and "
                f"test_share={self.test_share:g} a validation sample may hold at most {room} prompts, half of what "
                f"testing leaves; give a size up to {room}, raise max_prompts or lower test_share"
            )
        return self


# Pools of the page on other settings; alpaca-eval holds preferences and is only learned from.
SettingsPool = Literal[
    "routerbench",
    "mixinstruct",
    "embedllm",
    "mmlu-pro",
    "gsm8k-zeroeval",
    "openllm-v2",
    "routerdc",
    "overruling",
    "alpaca-eval",
    "tinypool",
]


class SettingsParams(EmbeddedParams):
    """What a rerun of the page on other settings may change; the paper's values are those of Appendices G.4 and G.5."""

    CHAPTER: ClassVar[str] = "uniroute-settings"
    MANY: ClassVar[bool] = True
    DATASETS: ClassVar[tuple[str, ...]] = get_args(SettingsPool)

    pools: list[SettingsPool] | None = parameter(
        None,
        "pools to route on; alpaca-eval is only learned from, in Figure 7; null: every real one that is present",
        min_length=1,
    )
    max_prompts: int = parameter(
        1500, "prompts used of each pool, drawn at random where it has more", paper=1_000_000, ge=200, le=1_000_000
    )
    n_trials: int = parameter(3, "independent trials, each redrawing every split", paper=400, ge=1, le=1000)
    seed: int = parameter(0, "seed of everything random", ge=0, le=2**31 - 1)
    cluster_grid: list[Annotated[int, Field(ge=1, le=10_000)]] = parameter(
        [5, 10, 25, 50, 75, 100, 150, 200, 250, 300],
        "static pool: candidate numbers of clusters and of neighbours, as in Appendix G.5",
        min_length=1,
    )
    hidden_grid: list[Annotated[int, Field(ge=1, le=10_000)]] = parameter(
        [50, 100, 200], "static pool: candidate numbers of hidden nodes of the MLP; the paper gives none", min_length=1
    )
    n_comparisons: int = parameter(
        8447, "preferences: comparisons of two LLMs drawn in each trial, as many as the paper has", ge=400, le=1_000_000
    )
    ridge: float = parameter(
        1.0, "preferences: strength of the ridge penalty on Bradley-Terry strengths; the paper gives none", gt=0.0
    )
