"""Parameters of the SemiRouter chapter and of its pages on energy and on sparsity."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from replications.semirouter.semi_router import QUICK, SemiRouter
from routebook.parameters import EmbeddedParams, parameter

# Figure 5 at λ = 0.5 and at α = 0.3; λ = 0 is no contrastive loss, 0.9 one that dominates.
ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5)
LAMS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.9)
# Of the labels of each LLM that is no anchor, on the page on sparsity: where SemiRouter is claimed to improve, and
# where it is compared with others, on RouterBench and on a further pool.
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
SHARES_COMPARED = (0.01, 0.1, 0.5)
SHARES_FURTHER = (0.1,)
POOL_SIZES = (7, 20, 100)

_TRAINING = ("epochs", "lr", "batch_size", "n_random", "backbone_epochs", "backbone_lr")
_WIDTHS = {name: value for name, value in QUICK.items() if name not in _TRAINING}

Weight = Annotated[float, Field(ge=0.0, le=1.0)]
EnergyPool = Literal["routerbench", "mess-plus", "tinypool"]
SparsityPool = Literal["routerbench", "routerdc", "tinypool", "simulated"]
Share = Annotated[float, Field(gt=0.0, le=1.0)]


def _trained(name: str, description: str, **limits: Any) -> Any:
    """Declare a parameter of `SemiRouter`: quick as `QUICK` has it, the paper's as its default is."""
    return parameter(QUICK[name], description, paper=getattr(SemiRouter, name), **limits)


class SemiRouterBase(EmbeddedParams):
    """What all three pages share: the data, the sparse setting, the router and its training (Sections 4 and 5.1)."""

    max_prompts: int = parameter(
        2000, "prompts used, drawn at random where the benchmark has more", paper=1_000_000, ge=200, le=1_000_000
    )
    n_seeds: int = parameter(
        3, "trainings of each router; each draws the split and the sparse labels anew", paper=10, ge=1, le=1000
    )
    seed: int = parameter(0, "seed of everything random; trainings have this one and those after it", ge=0, le=2**30)
    anchors: list[str] | None = parameter(
        None,
        "anchor LLMs; null: GPT-4, GPT-3.5 and Mistral-7B, or the strongest, middle and weakest LLM of another pool",
        min_length=1,
    )
    per_query: int = parameter(2, "other LLMs whose label is observed on a training query", ge=1, le=1000)
    variant: Literal["emb", "mlp", "att"] = parameter("emb", "adaptive path of SemiRouter where a page shows one")
    loss: Literal["full", "anchor", "div", "none"] = parameter("full", "contrastive loss L_c")
    alpha: float = parameter(0.3, "weight α of the anchor-to-sparse loss, Eq. (5)", ge=0.0, le=1000.0)
    lam: float = parameter(0.5, "weight λ of the contrastive loss, Eq. (9)", ge=0.0, le=1.0)
    weighting: Literal["eq9", "algorithm-1"] = parameter("eq9", "whether λ weighs L_c, or L_p as in Algorithm 1")
    margin: float = parameter(0.1, "margin of Eq. (4), and δ of Eq. (7)", gt=0.0, le=1.0)
    rule: Literal["quality", "score"] = parameter(
        "quality", "what a query's LLM has the most of: predicted quality, or quality less cost by Eq. (10)"
    )
    n_clusters: int = parameter(40, "clusters of LoraRetriever", ge=1, le=10_000)
    sizes: Literal["small", "paper"] = parameter(
        "small", "widths and depths of all networks: small ones, or those of Appendix C", paper="paper"
    )
    epochs: int = _trained("epochs", "epochs of the R-adapter", ge=1, le=10_000)
    lr: float = _trained("lr", "learning rate of AdamW, of the R-adapter", gt=0.0, le=1.0)
    batch_size: int = _trained("batch_size", "queries in a batch", ge=1, le=100_000)
    n_random: int = _trained("n_random", "size of D^R, pairs of other queries in a batch", ge=0, le=100_000)
    backbone_epochs: int = _trained("backbone_epochs", "epochs of the backbone and of ZOOTER", ge=1, le=10_000)
    backbone_lr: float = _trained("backbone_lr", "learning rate of the backbone and of ZOOTER", gt=0.0, le=1.0)

    @property
    def widths(self) -> dict[str, Any]:
        """Parameters of `SemiRouter` that `sizes` stands for."""
        return {name: value if self.sizes == "small" else getattr(SemiRouter, name) for name, value in _WIDTHS.items()}

    @property
    def seeds(self) -> list[int]:
        """Seeds of the trainings."""
        return [self.seed + i for i in range(self.n_seeds)]


class SemiRouterParams(SemiRouterBase):
    """What a rerun of the SemiRouter chapter may change."""

    CHAPTER: ClassVar[str] = "semirouter"
    DATASETS: ClassVar[tuple[str, ...]] = ("routerbench", "routerdc", "tinypool", "simulated")

    dataset: Literal["auto", "routerbench", "routerdc", "tinypool", "simulated"] = parameter(
        "auto", "benchmark to route on; auto takes the best one present"
    )
    alphas: list[Annotated[float, Field(ge=0.0, le=1000.0)]] = parameter(
        list(ALPHAS), "weights α of Figure 5, at the λ above; the paper's five must be among them"
    )
    lams: list[Weight] = parameter(
        list(LAMS), "weights λ of Figure 5, at the α above; 0 to 0.5 in tenths and 0.9 must be among them"
    )

    @model_validator(mode="after")
    def _sweeps_hold_what_is_claimed(self) -> Self:
        for name, needed in (("alphas", ALPHAS), ("lams", LAMS)):
            missing = [f"{value:g}" for value in needed if value not in getattr(self, name)]
            if missing:
                raise ValueError(f"{name} lacks {', '.join(missing)}, which the claims about Figure 5 read; add them")
        return self


class EnergyParams(SemiRouterBase):
    """What a rerun of SemiRouter's page on energy may change."""

    CHAPTER: ClassVar[str] = "semirouter-energy"
    MANY: ClassVar[bool] = True
    DATASETS: ClassVar[tuple[str, ...]] = get_args(EnergyPool)

    pools: list[EnergyPool] | None = parameter(
        None, "pools to route on; null: every real one that is present", min_length=1
    )
    rule: Literal["label", "quality"] = parameter(
        "label",
        "what a query's LLM has the best of: the predicted label, of equals the one that takes least energy, or the "
        "expected quality",
    )


class SparsityParams(SemiRouterBase):
    """What a rerun of SemiRouter's page on sparsity may change."""

    CHAPTER: ClassVar[str] = "semirouter-sparsity"
    MANY: ClassVar[bool] = True
    DATASETS: ClassVar[tuple[str, ...]] = get_args(SparsityPool)

    pools: list[SparsityPool] | None = parameter(
        None, "pools to route on; null: every real one that is present", min_length=1
    )
    # Fewer than on the other pages, as this one trains more routers.
    max_prompts: int = parameter(
        1500, "prompts used, drawn at random where the benchmark has more", paper=1_000_000, ge=200, le=1_000_000
    )
    shares: list[Share] = parameter(
        list(SHARES), "shares of the other LLMs' labels that are kept; those of the claims must be among them"
    )
    slow_shares: list[Share] = parameter(
        list(SHARES_COMPARED),
        "those at which the methods that train slowly are compared: SemiRouter's other variants, RouterDC's loss",
        paper=list(SHARES),
    )
    further_shares: list[Share] = parameter([0.01, 0.1, 1.0], "shares on the pools after the first", paper=list(SHARES))
    slow_further_shares: list[Share] = parameter(
        list(SHARES_FURTHER), "those of the slow methods on the pools after the first", paper=list(SHARES)
    )
    new_labels: list[Annotated[int, Field(ge=1, le=1_000_000)]] = parameter(
        [10, 250], "labels of an LLM that joins the pool; at most one a training prompt", min_length=1
    )
    pool_sizes: list[Annotated[int, Field(ge=2, le=10_000)]] = parameter(
        list(POOL_SIZES), "LLMs in the pools that routing is timed on; the paper's 7 must be among them"
    )

    @model_validator(mode="after")
    def _shares_hold_what_is_claimed(self) -> Self:
        needed = {
            "shares": SHARES,
            "slow_shares": SHARES_COMPARED,
            "further_shares": SHARES_FURTHER,
            "slow_further_shares": SHARES_FURTHER,
            "pool_sizes": POOL_SIZES[:1],
        }
        for name, values in needed.items():
            missing = [f"{value:g}" for value in values if value not in getattr(self, name)]
            if missing:
                raise ValueError(f"{name} lacks {', '.join(missing)}, which the claims read; add them")
        for some, every in (("slow_shares", "shares"), ("slow_further_shares", "further_shares")):
            alone = [f"{value:g}" for value in getattr(self, some) if value not in getattr(self, every)]
            if alone:
                raise ValueError(f"{some} has {', '.join(alone)}, which {every} lacks; add them there")
        return self
