"""What the RadialRouter paper leaves open, our choice, and how the Balance score moves when we choose otherwise."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from replications.radialrouter import baselines, experiment, tables
from replications.radialrouter.experiment import Routers, Setting
from replications.radialrouter.params import RadialRouterParams
from replications.radialrouter.radial_router import RadialRouter, query_groups
from routebook.quiet import quiet
from routebook.significance import Estimate, paired_bootstrap

ALPHA = experiment.SCENARIO_ALPHAS["balance"]


@dataclass(frozen=True)
class Choice:
    """A detail the paper does not give.

    Attributes
    ----------
    detail, paper, ours
        What it is about, what the paper says, what we do.
    other
        Key in `variants` of the training that does otherwise, or "".
    reason
        Why no effect stands beside it, where `other` is "".
    """

    detail: str
    paper: str
    ours: str
    other: str = ""
    reason: str = ""


NOT_TRAINED = "needs the encoder trained with the router, which takes an accelerator"
OPEN: tuple[Choice, ...] = (
    Choice("split", "not given", "RouterDC's files without incomplete rows", reason="identified by Table 7"),
    Choice("training sample", "not given", "all training rows", reason="no other sample is known"),
    Choice("prompt view", "not given", "`prompt_view`: the question", reason="measured under the prefix trap"),
    Choice("pooling", "not given", "the sentence encoder's own (mean)", reason=NOT_TRAINED),
    Choice("cost in Eq. (7)", "cost_i, one an LLM", "`cost_rule`: the call's", other="cost-rule"),
    Choice("direction of KL", "p‖q, p predicted", "as printed", other="kl-reverse"),
    Choice("temperature of the target", "none", "`temperature`: 1", other="temperature"),
    Choice("groups N", "not given", "`n_groups`: RouterDC's 8", other="groups"),
    Choice("dimensions of t-SNE", '"low"', "2", other="no-t-sne"),
    Choice("when t-SNE is fitted", "not given", "once, before training", reason=NOT_TRAINED),
    Choice("negatives H", "not given", "`n_negatives`: RouterDC's 3, from the batch", other="negatives"),
    Choice("temperature of the contrastive loss", "none", "1", reason="its weight λ is swept among the ablations"),
    Choice(
        "queries without a positive one", "not given", "no contrastive loss", reason="rare: batches hold each group"
    ),
    Choice("inner width of attention", "4 × 32 = 128, d/h = 192", "`heads` × `head_width`", other="inner"),
    Choice("weights shared over layers", "not given", "no", reason="Algorithm 1 does not say; as in Transformers"),
    Choice("scale of attention", "√d", "√ of the head's width", other="scale"),
    Choice("residual connections", "none written", "none", reason="Algorithm 1 is complete without"),
    Choice("first LLM embeddings", "learnable", "normal, sd .78 as RouterDC's", reason="they are trained"),
    Choice("scoring MLP", "hidden layer of 128", "d-128-1, ReLU", reason="the paper is complete here"),
    Choice("duration", '"maximum training epoch" 1000', "`steps`, of one batch", other="steps"),
    Choice("checkpoint", "not given", "the last step's weights", reason="choosing on test prompts would be leakage"),
    Choice("λ", "0.5", "`contrast`: 0.5", reason="swept among the ablations"),
    Choice("averages", '"of each dataset"', "macro over source datasets", reason="Table 7 settles it"),
    Choice("Random", "50 selections", "an LLM for each query, 50 times over", other="random-llm"),
    Choice("ties of the Oracle", "not given", "the cheapest", reason="moves its cost at α = 0 only"),
    Choice("baselines' details", "not given", "GraphRouter learns whether an LLM is best", other="graph-score"),
    Choice("order of LLMs in Table 4", "as listed", "as listed", reason="among the ablations"),
    Choice("replacements of RadialFormer", "not sized", "same width and depth", reason="among the ablations"),
    Choice("timing", "a batch, A100 implied", "a batch of 64 on a CPU", reason="among the ablations"),
    Choice("seeds", "none", "`n_seeds`, with intervals", reason="the intervals show it"),
)


@dataclass(frozen=True)
class Variant:
    """A training that differs from `base` in some parameters of `RadialRouter`."""

    words: str
    changes: dict[str, Any] = field(default_factory=dict)
    base: str = tables.OURS


def variants(params: RadialRouterParams) -> dict[str, Variant]:
    """Return every other choice that is trained, and what two of them are compared with."""
    other_rule = "model" if params.cost_rule == "call" else "call"
    narrow = max(1, params.width // params.heads // 4)
    return {
        "cost-rule": Variant("the LLM's mean" if other_rule == "model" else "the call's", {"cost": other_rule}),
        "kl-reverse": Variant("q‖p", {"loss": "kl-reverse"}),
        "temperature": Variant(f"{params.temperature / 10:g}", {"temperature": params.temperature / 10}),
        "no-t-sne": Variant("K-means without t-SNE", {"group_dims": 0}),
        "groups": Variant(
            f"{2 * params.n_groups}, without t-SNE", {"group_dims": 0, "n_groups": 2 * params.n_groups}, "no-t-sne"
        ),
        "negatives": Variant(f"{3 * params.n_negatives}", {"n_negatives": 3 * params.n_negatives}),
        "inner": Variant(f"{params.heads} × {narrow} at d = {params.width}", {"head_width": narrow}),
        "scale": Variant("√d, as printed", {"scale": "printed"}),
        "steps": Variant(f"{2 * params.steps}", {"steps": 2 * params.steps}),
    }


def train_variants(setting: Setting, params: RadialRouterParams) -> dict[str, list[RadialRouter]]:
    """Train every variant for Balance; return its routers, one a seed."""
    routers = {name: experiment.routers_for(params, [ALPHA], **v.changes) for name, v in variants(params).items()}
    return experiment.train_all(routers, setting)


def measure(setting: Setting, params: RadialRouterParams, frame: pd.DataFrame, trained: Routers) -> dict[str, Estimate]:
    """Return the Balance score of every variant minus that of our choice, paired over seeds.

    Parameters
    ----------
    frame
        `experiment.evaluate` of RadialRouter and the baselines, as everything else on the page.
    trained
        What `train_variants` returned.
    """
    tried = variants(params)
    found = [frame, experiment.evaluate(trained, setting)]
    told = {
        "random-llm": [baselines.RandomChoice(alpha=ALPHA, seed=s, each="llm") for s in params.seeds],
        "graph-score": [baselines.GraphRouter(alpha=ALPHA, seed=s, target="score") for s in params.seeds],
    }
    for router in told["random-llm"]:
        router.fit(setting.train, setting.train_embeddings)
    baselines.fit_side_by_side(told["graph-score"], setting.train, setting.train_embeddings)
    every = pd.concat([*found, experiment.evaluate(told, setting)], ignore_index=True)
    bases = {name: v.base for name, v in tried.items()} | {"random-llm": "random", "graph-score": "graph-router"}
    return {name: experiment.difference(every, name, base, ALPHA) for name, base in bases.items()}


def open_table(effects: Mapping[str, Estimate], params: RadialRouterParams) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the measured effects, and the list of open choices as shown, one row a detail."""
    words = {name: v.words for name, v in variants(params).items()}
    words |= {"random-llm": "one LLM for all queries, 50 times over", "graph-score": "an LLM's score instead"}
    numbers = {n: {"value": e.estimate, "low": e.low, "high": e.high} for n, e in effects.items()}
    shown = {}
    for number, choice in enumerate(OPEN, start=1):
        effect = choice.reason
        if choice.other:
            found = effects[choice.other]
            effect = f"{found.estimate:+.4f} [{found.low:+.4f}, {found.high:+.4f}] with {words[choice.other]}"
        cells = {"detail": choice.detail, "the paper": choice.paper, "ours": choice.ours}
        shown[number] = cells | {"Balance score, if chosen otherwise": effect}
    return pd.DataFrame.from_dict(numbers, orient="index"), pd.DataFrame.from_dict(shown, orient="index")


def paper_hours(setting: Setting, steps: int = 2) -> float:
    """Estimate the hours that the trainings of this page take in the paper's profile, on one thread of this machine.

    A router of the paper's size is trained for a few steps; the rest is counted, embedding and evaluation left aside.
    """
    paper = RadialRouterParams.build({"dataset": setting.name}, "paper")
    seconds = []
    # The first training pays for what torch loads and allocates once.
    for n in (1, 1, 1 + steps):
        (router,) = experiment.routers_for(paper, [ALPHA], [paper.seed], steps=n, contrast=0)
        with quiet():
            start = time.perf_counter()
            router.fit(setting.train, setting.train_embeddings)
            seconds.append(time.perf_counter() - start)
    # Every alpha; every other choice; the challengers that are told; the prefix trap; two temperatures on two samples.
    each = len(paper.alphas) + len(variants(paper)) + len(CHALLENGERS[3:]) + 3 * len(paper.view_lengths) + 4
    return (seconds[2] - seconds[1]) / steps * paper.steps * each * paper.n_seeds / 3600


# --- exercises -------------------------------------------------------------------------------------------------------


CHALLENGERS = ("as it is", "sharper target", "twice the steps", "told the dataset", "all three")


def blind_setting(setting: Setting) -> Setting:
    """Return the setting in which the encoder tells the source dataset of a prompt and nothing else, as a unit vector.

    What an encoder receives that is cut inside the prefix a dataset's prompts share.
    """
    names, parts = np.unique(baselines.datasets_of(setting.train)), (setting.train, setting.test)
    train, test = (np.eye(len(names))[np.searchsorted(names, baselines.datasets_of(part))] for part in parts)
    return setting.with_embeddings(train, test)


def told_setting(setting: Setting) -> Setting:
    """Return the setting in which the router reads the prompt's vector and is told its source dataset as well."""
    blind = blind_setting(setting)
    scale = np.sqrt((setting.train_embeddings**2).sum(axis=1).mean())
    return setting.with_embeddings(
        np.hstack([setting.train_embeddings, scale * blind.train_embeddings]),
        np.hstack([setting.test_embeddings, scale * blind.test_embeddings]),
    )


def challengers(setting: Setting, params: RadialRouterParams, trained: Routers) -> dict[str, Estimate]:
    """Try to beat DatasetOracle in Balance: its difference in score for five routers, over the test prompts.

    RadialRouter as it is, with a sharper target, trained twice as long, told the source dataset, and all of these.
    Each score is the mean over seeds; intervals are bootstrapped over prompts.

    Parameters
    ----------
    trained
        The chapter's RadialRouters under `tables.OURS` and what `train_variants` returned: the first three of the five.
    """
    # The same semantic groups for all: what the router is told is no part of a query.
    groups = query_groups(setting.train_embeddings, params.n_groups)
    sources, told = (tables.OURS, "temperature", "steps"), told_setting(setting)
    everything = {name: value for key in sources[1:] for name, value in variants(params)[key].changes.items()}
    routers = {
        name: experiment.routers_for(params, [ALPHA], groups=groups, **changes)
        for name, changes in zip(CHALLENGERS[3:], ({}, everything), strict=True)
    }
    known = {
        name: [router for router in trained[key] if router.alpha == ALPHA]
        for name, key in zip(CHALLENGERS[:3], sources, strict=True)
    }
    oracle = baselines.DatasetOracle(alpha=ALPHA, per="llm" if params.cost_rule == "model" else "call")
    oracle.fit(setting.train, setting.train_embeddings)
    base = tables.prompt_scores([oracle], setting, ALPHA)
    settings = dict.fromkeys(known, setting) | dict.fromkeys(routers, told)
    return {
        name: paired_bootstrap(tables.prompt_scores(some, settings[name], ALPHA), base)
        for name, some in (known | experiment.train_all(routers, told)).items()
    }


def challenger_table(found: Mapping[str, Estimate]) -> pd.DataFrame:
    """Return `challengers` as shown."""
    rows = {
        name: {
            "score − DatasetOracle's": f"{e.estimate:+.4f}",
            "95 % over prompts": f"[{e.low:+.4f}, {e.high:+.4f}]",
            "verdict": "beats it" if e.low > 0 else "loses to it" if e.high < 0 else "cannot be told from it",
        }
        for name, e in found.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")
