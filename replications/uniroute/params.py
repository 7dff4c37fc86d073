"""Parameters of the UniRoute chapter."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from routebook.parameters import ChapterParams, parameter


class UniRouteParams(ChapterParams):
    """What a rerun of the UniRoute chapter may change; the paper's values are those of Section 6 and Appendices F-G."""

    CHAPTER: ClassVar[str] = "uniroute"
    DATASETS: ClassVar[tuple[str, ...]] = ("routerbench", "tinypool", "simulated")

    dataset: Literal["auto", "routerbench", "tinypool", "simulated"] = parameter(
        "auto", "benchmark to route on; auto takes the best one present"
    )
    prompt_view: Literal["question", "full", "first-1400-chars"] = parameter(
        "question", "what the encoder reads of a RouterBench prompt"
    )
    encoder: str = parameter(
        "auto", "prompt encoder: auto, minilm, or any sentence-transformers or transformers id or folder", min_length=1
    )
    max_prompts: int = parameter(
        3000, "prompts used, drawn at random where the benchmark has more", paper=1_000_000, ge=200, le=1_000_000
    )
    n_trials: int = parameter(
        5, "independent trials, each redrawing the prompt split and the unseen LLMs", paper=400, ge=1, le=1000
    )
    seed: int = parameter(0, "seed of everything random", ge=0, le=2**31 - 1)
    train_llm_share: float = parameter(0.5, "share of LLMs seen in training; the rest are unseen", gt=0.0, lt=1.0)
    n_validation: int = parameter(400, "validation prompts, labelled for unseen LLMs", ge=20, le=100_000)
    test_share: float = parameter(0.3, "share of prompts held out for testing", gt=0.0, lt=0.9)
    cluster_grid: list[Annotated[int, Field(ge=1, le=10_000)]] | None = parameter(
        None, "candidate numbers of clusters K; null: 3, 4, ... n_validation / 50, as in Appendix G.2", min_length=1
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

    @property
    def clusters_tried(self) -> list[int]:
        """Candidate numbers of clusters (Appendix G.2: from 3 to the validation sample size divided by 50)."""
        if self.n_clusters is not None:
            return [self.n_clusters]
        return sorted(set(self.cluster_grid or range(3, max(self.n_validation // 50, 3) + 1)))

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
