"""What the SemiRouter paper leaves open, our choice, and how both metrics move when we choose otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from replications.semirouter import cells, experiment, tables
from replications.semirouter.experiment import METRICS, Fitted, Setting
from replications.semirouter.params import SemiRouterBase
from routebook.routers import BaseRouter
from routebook.significance import Estimate

Effects = dict[str, dict[str, Estimate]]


@dataclass(frozen=True)
class Choice:
    """A detail the paper does not give.

    Attributes
    ----------
    detail, paper, ours
        What it is about, what the paper says, what we do.
    others
        Keys of `Effects` that do otherwise.
    reason
        Why no effect stands beside it, where there are none.
    """

    detail: str
    paper: str
    ours: str
    others: tuple[str, ...] = ()
    reason: str = ""


NO_ENCODER = "needs the encoder trained with the router, which takes an accelerator"
ENERGY = "on the page on energy"
OPEN: tuple[Choice, ...] = (
    Choice("the LLMs", "7, without and with Claude", "the seven of Table 6 without Claude", ("ten",)),
    Choice("prompts", "not given", "`prompt_view`: the question", reason="measured in the RadialRouter chapter"),
    Choice("split", '"official", or 70 to 30', "70 to 30, by seed", reason="the printed digits are of 30 % (SR-25)"),
    Choice("sparse labels", '"around 2 samples per query"', "`per_query`: exactly 2 other LLMs", ("share",)),
    Choice("anchors' labels", '"kept as original"', "all of them", reason="varied on the page on sparsity"),
    Choice("quality classes", "good, fair, bad", "those that labels have", reason="an unused class is never predicted"),
    Choice("q̂ of Eqs. (4) and (7)", "a number", "the expected quality", ("label",)),
    Choice("margin and δ", '"same as margin in L_s"', "`margin`: 0.1", ("margin-low", "margin-high")),
    Choice("labels in L_p", '"on anchors", or all', "all observed pairs", ("supervise",)),
    Choice("mean in Eq. (5)", "|B_c|", "over a query's pairs, then over queries", ("pairing",)),
    Choice("size of D^R", "not given", "`n_random`", ("no-random",)),
    Choice("batch of 16", "16 of what", "queries", ("batch",)),
    Choice("the backbone's input", "query, response, score", "the query", reason="no response when a query is routed"),
    Choice("anchors in the backbone", "not given", "a head each", reason="one could only be given an input more"),
    Choice("BERT's feature", "pooled, or intermediate", "a layer on a frozen encoder", reason=NO_ENCODER),
    Choice("query embedding", "1,536 dimensions", "`encoder`: 384", reason="OpenAI's is behind an API; `encoder`"),
    Choice("the LLM's vector", "64, with EMB's 128", "learned", reason="without EMB's: the row MLP of Table 1"),
    Choice("sizes and dropout", '"three-layer"', "`sizes`; 0.1", ("wider", "no-dropout")),
    Choice("layers of ATT", '"multiple"', "`sizes`; 4 fit Table 2", reason="counted under Table 2"),
    Choice("epochs", "2; the backbone's not given", "`epochs`, `backbone_epochs`", ("epochs", "backbone-epochs")),
    Choice("selection", "cost-effective, highest quality", "highest; of equals the cheaper", ("score-rule",)),
    Choice("score and cost", "Eq. (10), no unit", "dollars; both weights", reason="both under Table 3"),
    Choice("metric of Table 1", "not given", "both readings", reason="both under Table 1"),
    Choice("Table 4", "one by one or cumulative", "identity removed; both", ("retrained",)),
    Choice("energy of each LLM", "two numbers", "published tables", reason=ENERGY),
    Choice("backup rule", "in words", "as worded, and the average", reason=ENERGY),
    Choice("score of Table 6", '"normalized"', "min-max on each dataset, mean", reason="under Table 6"),
    Choice("judge", "GPT-4 and DeepSeek-R1", "RouterBench's own scores", reason="no judgement is published"),
    Choice("baselines", "a phrase each", "as phrased", ("clusters-10", "clusters-20", "zooter-temperature")),
    Choice("seeds", "none", "`n_seeds`, with intervals", reason="the intervals show it"),
    Choice("Figure 5", "metric, other weight", "routed quality; α = 0.3, λ = 0.5", reason="under Figure 5"),
)


@dataclass(frozen=True)
class Variant:
    """A training of SemiRouter that differs in some parameters, and in the words for it."""

    words: str
    changes: dict[str, Any] = field(default_factory=dict)


def variants(params: SemiRouterBase) -> dict[str, Variant]:
    """Return every other choice that is one training of SemiRouter with the labels of the page."""
    wide = {name: tuple(2 * width for width in params.widths[name]) for name in ("hidden", "fusion")}
    low, high = params.margin / 2, min(3 * params.margin, 1.0)
    return {
        "margin-low": Variant(f"margin {low:g}", {"margin": low}),
        "margin-high": Variant(f"margin {high:g}", {"margin": high}),
        "supervise": Variant("labels of anchors only", {"supervise": "anchors"}),
        "pairing": Variant("the sum over |B_c|, as printed", {"pairing": "batch"}),
        "no-random": Variant("no D^R", {"n_random": 0}),
        "batch": Variant(f"batches of {2 * params.batch_size}", {"batch_size": 2 * params.batch_size}),
        "wider": Variant("layers twice as wide", wide),
        "no-dropout": Variant("no dropout", {"dropout": 0.0}),
        "epochs": Variant(f"{2 * params.epochs} epochs", {"epochs": 2 * params.epochs}),
        "backbone-epochs": Variant(
            f"{2 * params.backbone_epochs} of the backbone", {"backbone_epochs": 2 * params.backbone_epochs}
        ),
    }


def words(params: SemiRouterBase) -> dict[str, str]:
    """Return what is done otherwise, in words, for every key of `measure`."""
    return {name: variant.words for name, variant in variants(params).items()} | {
        "ten": "the ten of Table 6",
        "share": "half of each other LLM's labels",
        "label": "routing by the most probable label",
        "score-rule": "routing by Eq. (10)",
        "retrained": "retrained without the first LLM of Table 4",
        "clusters-10": "LoraRetriever with 10 clusters",
        "clusters-20": "LoraRetriever with 20 clusters",
        "zooter-temperature": "ZOOTER with temperature 1",
    }


class ByLabel:
    """A fitted router that is asked for its most probable label in place of the expected quality (7.1, #7)."""

    uses_tasks = False

    def __init__(self, router: BaseRouter):
        self.models_ = router.models_
        self.predict_labels = self.predict_quality = router.predict_labels


def measure(
    params: SemiRouterBase,
    settings: Sequence[Setting],
    fitted: Fitted,
    frame: pd.DataFrame,
    ten: pd.DataFrame,
    eight: Sequence[Setting],
    removed: pd.DataFrame,
) -> Effects:
    """Train and route every other choice; return both metrics minus those of our choice, paired over seeds.

    Parameters
    ----------
    params, settings, fitted, frame
        Of Table 1 with seven LLMs: what was trained, and `experiment.evaluate` of it.
    ten
        `experiment.evaluate` with the ten LLMs of Table 6; `frame` itself on another pool.
    eight, removed
        Settings of Table 4, and `tables.removals` one by one.
    """
    ours = f"semirouter-{params.variant}"
    llm = tables.removal_order(eight[0].full)[0]
    without = [setting.with_models([model for model in setting.full.models if model != llm]) for setting in eight]
    halved = [setting.thinned(share=0.5) for setting in settings]
    jobs = {name: (ours, settings, variant.changes) for name, variant in variants(params).items()}
    jobs |= {name: (method, settings, changes) for name, (method, changes) in _BASELINES.items()}
    jobs |= {"share": (ours, halved, {}), "retrained": (ours, without, {})}
    wanted = {
        (name, setting.seed): (method, setting, changes)
        for name, (method, trials, changes) in jobs.items()
        for setting in trials
    }
    trained = experiment.fit_each(params, wanted)
    found = [experiment.evaluate(trained, lambda name, seed: wanted[name, seed][1])]
    found += [_rerouted(settings, fitted, ours)]
    found += [] if ten is frame else [_only(ten, ours, "ten")]
    bases = {name: method for name, (method, _) in _BASELINES.items()} | {"retrained": f"without-{cells.slug(llm)}"}
    found += [_only(frame, method, method) for method in {ours, *bases.values()}]
    found += [_only(removed, bases["retrained"], bases["retrained"])]
    every = pd.concat(found, ignore_index=True)
    others = [name for name in dict.fromkeys(every["method"]) if name not in {ours, *bases.values()}]
    return {
        name: {metric: experiment.difference(every, name, bases.get(name, ours), metric) for metric in METRICS}
        for name in others
    }


def _rerouted(settings: Sequence[Setting], fitted: Fitted, method: str) -> pd.DataFrame:
    """Return what the same routers earn when an LLM is chosen by its most probable label, or by Eq. (10)."""
    mine = {seed: router for (name, seed), router in fitted.items() if name == method}
    by_seed = {setting.seed: setting for setting in settings}
    frames = [experiment.evaluate({("label", seed): ByLabel(router) for seed, router in mine.items()}, settings)]
    if experiment.in_dollars(settings[0].test):
        scored = {("score-rule", seed): router for seed, router in mine.items()}
        frames.append(experiment.evaluate(scored, lambda _, seed: replace(by_seed[seed], rule="score")))
    return pd.concat(frames, ignore_index=True)


_BASELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "clusters-10": ("lora-retriever", {"n_clusters": 10}),
    "clusters-20": ("lora-retriever", {"n_clusters": 20}),
    "zooter-temperature": ("zooter", {"temperature": 1.0}),
}


def _only(frame: pd.DataFrame, method: str, name: str) -> pd.DataFrame:
    return frame[frame["method"] == method].assign(method=name)


def open_table(effects: Effects, params: SemiRouterBase) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the measured effects, and the list of open choices as shown, one row a detail."""
    numbers = {
        f"{name}: {metric}": {"value": found.estimate, "low": found.low, "high": found.high}
        for name, both in effects.items()
        for metric, found in both.items()
    }
    said, shown = words(params), {}
    for number, choice in enumerate(OPEN, start=1):
        measured = [name for name in choice.others if name in effects]
        row = {"detail": choice.detail, "the paper": choice.paper, "ours": choice.ours}
        row["if chosen otherwise"] = "<br>".join(said[name] for name in measured) or choice.reason or "–"
        for metric in ("routed-quality", "label-accuracy"):
            row[f"{metric.replace('-', ' ')}, points"] = "<br>".join(_text(effects[n][metric]) for n in measured)
        shown[number] = row
    return pd.DataFrame.from_dict(numbers, orient="index"), pd.DataFrame.from_dict(shown, orient="index")


def _text(found: Estimate) -> str:
    if not np.isfinite(found.estimate):
        return "–"
    return f"{found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def records(effects: Mapping[str, Mapping[str, Estimate]]) -> list[tables.Record]:
    """Return the measured effects as records, `open/<choice>/<metric>`."""
    return [
        tables.record_of(f"open/{name}/{metric}", found, "%")
        for name, both in effects.items()
        for metric, found in both.items()
    ]
