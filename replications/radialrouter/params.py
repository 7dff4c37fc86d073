"""Parameters of the RadialRouter chapter and of its page of ablations."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from routebook.parameters import EmbeddedParams, parameter

# The trade-offs of Table 9 and Figure 4; those of Table 1's three scenarios are among them.
PAPER_ALPHAS = (0.0, 0.01, 0.02, 0.05, 0.1)


class _RadialParams(EmbeddedParams):
    """What both pages share: the data, the router and its training. The paper's values are those of Section 4.4."""

    DATASETS: ClassVar[tuple[str, ...]] = ("routerbench", "routerdc", "tinypool", "simulated")

    dataset: Literal["auto", "routerbench", "routerdc", "tinypool", "simulated"] = parameter(
        "auto", "benchmark to route on; auto takes the best one present"
    )
    max_prompts: int = parameter(
        2000, "prompts used, drawn at random where the benchmark has more", paper=1_000_000, ge=200, le=1_000_000
    )
    n_seeds: int = parameter(3, "trainings of each router, which differ in their seed alone", paper=10, ge=1, le=1000)
    seed: int = parameter(0, "seed of everything random; trainings have this one and those after it", ge=0, le=2**30)
    layers: int = parameter(2, "layers T of RadialFormer", paper=6, ge=1, le=100)
    width: int = parameter(64, "width d of the hidden states", paper=768, ge=1, le=10_000)
    heads: int = parameter(4, "attention heads", ge=1, le=1000)
    head_width: int = parameter(16, "width of an attention head", paper=32, ge=1, le=10_000)
    steps: int = parameter(200, "training steps, one batch each", paper=1000, ge=1, le=1_000_000)
    lr: float = parameter(2e-3, "learning rate of AdamW", paper=5e-5, gt=0.0, le=1.0)
    batch_size: int = parameter(64, "prompts in a batch", ge=2, le=100_000)
    contrast: float = parameter(0.5, "weight λ of the query-query contrastive loss", ge=0.0, le=1000.0)
    n_groups: int = parameter(8, "semantic groups N of the contrastive loss", ge=1, le=10_000)
    n_negatives: int = parameter(3, "prompts H of other groups in the contrastive loss", ge=1, le=10_000)
    temperature: float = parameter(1.0, "temperature of the target softmax", gt=0.0, le=1000.0)
    loss: Literal["kl", "kl-reverse", "ce", "query-llm"] = parameter("kl", "loss that supervises the choice of an LLM")
    cost_rule: Literal["call", "model"] = parameter(
        "call", "cost in the training scores: of the call, or the LLM's mean; what is paid is always that of the call"
    )

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        inner = self.heads * self.head_width
        if self.width % inner:
            raise ValueError(
                f"{self.heads} heads of head_width = {self.head_width} make an inner width of {inner}, which does not "
                f"divide width = {self.width}; use width = {max(inner, round(self.width / inner) * inner)}"
            )
        return self

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        if self.n_groups > self.max_prompts:
            raise ValueError(
                f"n_groups = {self.n_groups} groups need as many prompts, max_prompts = {self.max_prompts}; "
                "lower n_groups or raise max_prompts"
            )
        return self

    @property
    def seeds(self) -> list[int]:
        """Seeds of the trainings."""
        return [self.seed + i for i in range(self.n_seeds)]


class RadialRouterParams(_RadialParams):
    """What a rerun of the RadialRouter chapter may change."""

    CHAPTER: ClassVar[str] = "radialrouter"

    alphas: list[Annotated[float, Field(ge=0.0, le=1000.0)]] = parameter(
        list(PAPER_ALPHAS), "trade-offs α; the paper's five must be among them, as its tables are read there"
    )
    view_lengths: list[Annotated[int, Field(ge=8, le=512)]] = parameter(
        [64, 256],
        "maximum lengths in tokens, of the prefix trap",
        paper=[64, 128, 256, 512],
        min_length=1,
    )

    @model_validator(mode="after")
    def _alphas_hold_the_papers(self) -> Self:
        missing = [f"{alpha:g}" for alpha in PAPER_ALPHAS if alpha not in self.alphas]
        if missing:
            raise ValueError(f"alphas lacks {', '.join(missing)} of Table 9; add them")
        return self


class AblationsParams(_RadialParams):
    """What a rerun of RadialRouter's page of ablations may change."""

    CHAPTER: ClassVar[str] = "radialrouter-ablations"
