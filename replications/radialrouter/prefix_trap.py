"""The prefix trap, measured: what of a prompt reaches the encoder, and what a router trained on that is worth.

`views` counts inputs and embeds; here the routers are trained, on a sample that the page states.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from replications.radialrouter import baselines, experiment, views
from replications.radialrouter.experiment import Setting
from replications.radialrouter.params import RadialRouterParams
from routebook.benchmark import RoutingBenchmark
from routebook.datasets.prompt_views import PROMPT_VIEWS
from routebook.significance import mean_interval

PER_DATASET = 300
ROUTERS = ("radial-router", "dataset-oracle", "best-candidate")


def encoder_name(params: RadialRouterParams) -> str:
    """Return the encoder whose truncation is looked at; "auto" stands for `minilm`, as text has to be read."""
    return "minilm" if params.encoder == "auto" else params.encoder


def pools_by_view(params: RadialRouterParams) -> dict[str, RoutingBenchmark]:
    """Load the same prompts in every view there is: three for RouterBench, one for any other benchmark."""
    first = experiment.load_pool(params)
    if first.name != "routerbench":
        return {"question": first}
    others = {view: experiment.load_pool(params, view) for view in PROMPT_VIEWS if view != params.prompt_view}
    return {view: others.get(view, first) for view in PROMPT_VIEWS}


def count_inputs(pools: Mapping[str, RoutingBenchmark], params: RadialRouterParams) -> pd.DataFrame:
    """Return `views.distinct_inputs` of the test prompts, cut at either side, at all four lengths."""
    tests = {view: pool.subset(experiment.split_rows(pool, params.seed)[1]) for view, pool in pools.items()}
    return views.distinct_inputs(tests, views.tokenizer_of(encoder_name(params)), sides=("right", "left"))


def settings_by_cell(
    pools: Mapping[str, RoutingBenchmark], params: RadialRouterParams
) -> dict[tuple[str, int], Setting]:
    """Embed a sample of prompts in every view and at every length of `view_lengths`: (view, length) to setting.

    At most `PER_DATASET` prompts a source dataset, the same ones in every cell; cut from the right, as MiniLM does.
    """
    cells = {}
    for view, pool in pools.items():
        sample = pool.subset(views.sample_rows(pool, PER_DATASET, params.seed))
        train, test = experiment.split_rows(sample, params.seed)
        for length in params.view_lengths:
            vectors = views.embed_truncated(sample, length, encoder=encoder_name(params))
            parts = sample.subset(train), sample.subset(test), vectors[train], vectors[test]
            cells[view, length] = Setting(sample.name, *parts)
    return cells


def routing_by_cell(
    cells: Mapping[tuple[str, int], Setting], params: RadialRouterParams, alpha: float = 0.02
) -> pd.DataFrame:
    """Train RadialRouter in every cell and return what it earns beside two rules that read no prompt.

    Returns
    -------
    DataFrame
        Rows of `experiment.evaluate` at one alpha, with columns `view`, `length` and `router` in place of `method`.
    """
    names = {f"{view}, {length}": (view, length) for view, length in cells}
    settings = {name: cells[place] for name, place in names.items()}
    routers = {name: experiment.routers_for(params, [alpha]) for name in names}
    frames = []
    for name, trained in experiment.train_all(routers, settings).items():
        setting = settings[name]
        told = {
            method: [
                baselines.BASELINES[method](alpha=alpha, seed=seed).fit(setting.train, setting.train_embeddings)
                for seed in params.seeds
            ]
            for method in ROUTERS[1:]
        }
        frame = experiment.evaluate({ROUTERS[0]: trained} | told, setting)
        view, length = names[name]
        frames.append(frame.rename(columns={"method": "router"}).assign(view=view, length=length))
    return pd.concat(frames, ignore_index=True)


def routing_table(earned: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return each cell's macro-averaged score and its difference to DatasetOracle: the numbers, and as shown.

    Intervals are 95 % over seeds.
    """
    macro = earned[earned["dataset"] == experiment.MACRO]
    numbers, shown = {}, {}
    for (view, length), part in macro.groupby(["view", "length"], sort=False):
        wide = part.pivot(index="seed", columns="router", values="score")
        own, told = wide["radial-router"].to_numpy(), wide["dataset-oracle"].to_numpy()
        score, lead = mean_interval(own), mean_interval(own - told)
        row = f"{view}, {length} tokens"
        numbers[row] = {
            "score": score.estimate,
            "dataset_oracle": float(np.mean(told)),
            "best_candidate": float(wide["best-candidate"].mean()),
            "difference": lead.estimate,
        }
        shown[row] = {
            "RadialRouter": f"{score.estimate:.3f} [{score.low:.3f}, {score.high:.3f}]",
            "DatasetOracle": f"{np.mean(told):.3f}",
            "Best candidate": f"{wide['best-candidate'].mean():.3f}",
            "RadialRouter − DatasetOracle": f"{lead.estimate:+.3f} [{lead.low:+.3f}, {lead.high:+.3f}]",
        }
    return pd.DataFrame.from_dict(numbers, orient="index"), pd.DataFrame.from_dict(shown, orient="index")


def input_panels(counted: pd.DataFrame, side: str = "right") -> tuple[dict, dict]:
    """Return, for each dataset, the share of prompts the encoder can tell apart and the words to write on it.

    Returns
    -------
    shares, labels : dict of str to DataFrame
        Views by lengths; a label reads "distinct of prompts".
    """
    here = counted[counted["side"] == side]
    labelled = here.assign(label=[f"{r.distinct} of {r.prompts}" for r in here.itertuples()])
    order = list(dict.fromkeys(here["view"]))
    shares, labels = {}, {}
    for dataset, part in labelled.groupby("dataset", sort=True):
        shares[dataset] = part.pivot(index="view", columns="length", values="share").loc[order]
        labels[dataset] = part.pivot(index="view", columns="length", values="label").loc[order]
    return shares, labels
