"""Parameters of the CSCR chapter and of its pages of ablations and of shifts."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from routebook.parameters import EmbeddedParams, parameter

Pool = Literal["routerbench", "alpaca-eval", "tinypool", "simulated"]
# MMLU-Pro's logs hold letters only: it has no fingerprints, and serves other prompts for routers that need none.
PromptPool = Literal["routerbench", "alpaca-eval", "tinypool", "mmlu-pro", "simulated"]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Weight = Annotated[float, Field(ge=0.0, le=1000.0)]


class _CSCRParams(EmbeddedParams):
    """What all three pages share: the pools, the router and its training; the paper's values are those of D.1."""

    MANY: ClassVar[bool] = True
    DATASETS: ClassVar[tuple[str, ...]] = get_args(Pool)
    ORIGINS: ClassVar[tuple[str, ...]] = ("real", "made")

    pools: list[Pool] | None = parameter(
        None, "pools to route on; null: routerbench, alpaca-eval and tinypool, those that are present", min_length=1
    )
    max_prompts: int = parameter(
        2000,
        "prompts used of each pool, drawn at random where it has more; probes among them are then left out",
        paper=1_000_000,
        ge=200,
        le=1_000_000,
    )
    n_seeds: int = parameter(
        3, "trainings of each router, each with its own seed and, where a pool has no split, its own", paper=10, ge=1
    )
    seed: int = parameter(0, "seed of everything random; trainings have this one and those after it", ge=0, le=2**30)
    n_bands: int = parameter(5, "cost bands K of Eq. (8), at most the LLMs of a pool", ge=1, le=10_000)
    gamma: float = parameter(0.2, "weight γ of the cost in the denominator of Eq. (8)", ge=0.0, le=1000.0)
    gamma_sign: Literal["printed", "other"] = parameter(
        "printed", "sign of γ: as printed in Eq. (8), s - γc, or the other, s + γc, which its text describes"
    )
    alpha: float = parameter(0.25, "slope α of the bands' temperatures, Eq. (7)", ge=0.0, le=1000.0)
    tau_min: float = parameter(0.05, "temperature τ_min of a band that costs nothing, Eq. (7)", ge=0.0, le=1000.0)
    k: int = parameter(4, "experts looked up before the cost decides, Eq. (9); at most the LLMs of a pool", ge=1)
    hidden: int = parameter(384, "hidden width of the two-layer head", ge=1, le=100_000)
    epochs: int = parameter(10, "passes over the training prompts", ge=1, le=100_000)
    min_steps: int = parameter(
        0,
        "least number of training steps: with few prompts the passes are as many as that takes; 0: `epochs` passes",
        ge=0,
        le=1_000_000,
    )
    lr: float = parameter(5e-4, "learning rate", gt=0.0, le=1.0)
    batch_size: int = parameter(512, "prompts in a batch", ge=2, le=100_000)
    loss: Literal["cost-spectrum", "vanilla"] = parameter(
        "cost-spectrum", "loss of the router called CSCR: Eq. (8), or vanilla InfoNCE, Eq. (6)"
    )
    umr_clusters: int = parameter(20, "clusters of UMR, as in the released code; the paper gives none", ge=1, le=10_000)

    @field_validator(
        "bands", "ks", "gammas", "alphas", "taus", "widths", "label_budgets", "index_sizes", check_fields=False
    )
    @classmethod
    def _no_value_twice(cls, values: list[Any]) -> list[Any]:
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise ValueError(f"{twice[0]:g} is named twice; name each value once")
        return values

    @property
    def seeds(self) -> list[int]:
        """Seeds of the trainings."""
        return [self.seed + i for i in range(self.n_seeds)]


class CSCRParams(_CSCRParams):
    """What a rerun of the CSCR chapter may change."""

    CHAPTER: ClassVar[str] = "cscr"

    n_bootstrap: int = parameter(5000, "resamples B of Table 16's paired bootstrap", ge=100, le=1_000_000)
    n_examples: int = parameter(3, "prompts shown of each pool in Figure 5", ge=1, le=100)
    long_steps: int = parameter(
        150, "least number of training steps of the longer training that CSCR is compared with", ge=1, le=1_000_000
    )


class AblationsParams(_CSCRParams):
    """What a rerun of CSCR's page of ablations may change; values that exceed a pool are left out there."""

    CHAPTER: ClassVar[str] = "cscr-ablations"

    bands: list[Count] = parameter([2, 5, 11, 15, 20], "numbers of cost bands, Table 8", min_length=1)
    ks: list[Count] = parameter([1, 2, 4, 8, 16], "numbers of experts looked up, Table 9", min_length=1)
    gammas: list[Weight] = parameter([0.0, 0.1, 0.2, 0.3, 0.5], "weights γ, Table 10", min_length=2)
    alphas: list[Weight] = parameter([0.0, 0.1, 0.25, 0.4, 0.5], "slopes α, Table 11", min_length=1)
    taus: list[Weight] = parameter([0.0, 0.02, 0.05, 0.08], "temperatures τ_min, Table 12", min_length=1)
    widths: list[Count] = parameter([1, 4], "multiples of the hidden width, Table 13", min_length=1)

    @model_validator(mode="after")
    def _hold_the_papers(self) -> Self:
        for name in ("bands", "ks", "gammas", "alphas", "taus", "widths"):
            values, papers = getattr(self, name), type(self).model_fields[name].get_default(call_default_factory=True)
            missing = [f"{value:g}" for value in papers if value not in values]
            if missing:
                raise ValueError(f"{name} lacks {', '.join(missing)} of the paper's table, which claims read; add them")
        return self


class ShiftsParams(_CSCRParams):
    """What a rerun of CSCR's page on shifts may change: new LLMs, other prompts, other descriptors, speed."""

    CHAPTER: ClassVar[str] = "cscr-shifts"
    DATASETS: ClassVar[tuple[str, ...]] = get_args(PromptPool)

    pools: list[PromptPool] | None = parameter(
        None,
        "pools to route on, mmlu-pro for other prompts only; null: all but simulated, those that are present",
        min_length=1,
    )
    train_llm_share: float = parameter(2 / 3, "share of LLMs trained on in Table 2; the rest are new", gt=0.0, lt=1.0)
    n_mixes: int = parameter(
        10, "random mixes of logit and perplexity descriptors, Table 4", paper=100, ge=2, le=10_000
    )
    label_budgets: list[Annotated[int, Field(ge=5, le=100_000)]] = parameter(
        [25, 50, 100, 200, 400], "labels spent on each newcomer; a pool leaves out those it has not", min_length=1
    )
    index_sizes: list[Annotated[int, Field(ge=1, le=10_000_000)]] = parameter(
        [10, 100, 1000, 10_000, 100_000], "experts in the index whose lookups are timed", min_length=1
    )
    n_lookups: int = parameter(10_000, "prompts of a timed batch of lookups", ge=10, le=10_000_000)

    @field_validator("pools")
    @classmethod
    def _some_fingerprints(cls, pools: list[str] | None) -> list[str] | None:
        if pools and set(pools) == {"mmlu-pro"}:
            raise ValueError("mmlu-pro has no fingerprints; name another pool beside it")
        return pools

    @model_validator(mode="after")
    def _enough_experts(self) -> Self:
        if min(self.index_sizes) < self.k:
            raise ValueError(f"index_sizes: the least is {min(self.index_sizes)}, below k = {self.k}; raise it")
        return self
