"""The router's own energy: from its time or its floating-point operations, beside the LLMs' energy.

The paper charges queries for LLMs only (Section 3.2). What is here is an estimate: a stated power times a time that
is measured on this machine, or that follows from a count of operations and a stated rate.
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from replications.semirouter.energy import checked_choices
from replications.semirouter.energy_tables import JOULES_PER_WH, WH, in_wh
from routebook.encoders import Encoder
from routebook.encoders import encoder as encoder_named
from routebook.errors import UserError
from routebook.quiet import quiet
from routebook.significance import bootstrap_interval

if TYPE_CHECKING:
    from routebook.benchmark import RoutingBenchmark
    from routebook.routers import Router

FLOPS = "FLOPs per prompt"


@dataclass(frozen=True)
class Device:
    """A processor: the power charged while it works, and how fast it computes.

    Attributes
    ----------
    name
    watts : float
        Its whole stated power, charged to whatever runs.
    flops_per_second : float or None
        Peak rate as published; None where energy is to be had from time only.
    utilisation : float
        Share of the peak rate reached, an assumption.
    """

    name: str
    watts: float
    flops_per_second: float | None = None
    utilisation: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.watts) and self.watts > 0):
            raise UserError(f"{self.name}: watts is {self.watts:g}, expected a power > 0, e.g. 65")
        if self.flops_per_second is not None and not self.flops_per_second > 0:
            raise UserError(f"{self.name}: flops_per_second is {self.flops_per_second:g}, expected a rate > 0")
        if not 0 < self.utilisation <= 1:
            raise UserError(f"{self.name}: utilisation is {self.utilisation:g}, expected a share in (0, 1]")

    def seconds_for(self, flops: np.ndarray | float) -> np.ndarray | float:
        """Return how long so many floating-point operations take; UserError where no rate is stated."""
        if self.flops_per_second is None:
            raise UserError(f"{self.name} states no flops_per_second; give seconds, or another device")
        return flops / (self.flops_per_second * self.utilisation)


# A desktop processor's usual stated package power: all of it is charged, though a router keeps few cores busy.
PROCESSOR = Device("desktop processor", 65.0)
# The paper's card (Section 5.1); power and single-precision peak as NVIDIA publishes them.
PAPER_GPU = Device("NVIDIA RTX 6000 Ada", 300.0, 91.1e12, 0.3)


def router_energy(*, seconds: float | None = None, flops: float | None = None, device: Device = PROCESSOR) -> float:
    """Return the energy of so many seconds, or so many floating-point operations, on a device, in Wh.

    Raises
    ------
    UserError
        Unless exactly one of the two is given and is a number >= 0; for `flops`, unless the device states a rate.
    """
    if (seconds is None) == (flops is None):
        raise UserError("give seconds or flops, one of the two")
    name, given = ("seconds", seconds) if flops is None else ("flops", flops)
    if not (np.isfinite(given) and given >= 0):
        raise UserError(f"{name} is {given:g}, expected a number >= 0")
    time = given if flops is None else device.seconds_for(given)
    return float(time) * device.watts / JOULES_PER_WH


def encoder_flops(n_layers: int, width: int, feed_forward: int, n_tokens: int) -> float:
    """Return the floating-point operations of a Transformer encoder on one prompt.

    Two for each weight and token (four projections and two feed-forward matrices a layer), and four for each pair of
    tokens and dimension (scores, and weighted sums); biases, norms and the embedding lookup are left out.
    """
    weights = n_layers * (4 * width**2 + 2 * width * feed_forward)
    return float(2 * weights * n_tokens + 4 * n_layers * n_tokens**2 * width)


def measure_router(
    router: Router, encoder: str | Encoder, prompts: Sequence[str], embeddings: np.ndarray
) -> dict[str, float]:
    """Return the median processor seconds of routing one prompt: ``encoding`` it, and ``scoring`` all LLMs.

    Processor time, not time on the clock: what else the machine does in between is not the router's. Work on several
    threads counts once for each, and each is charged the whole device.

    Parameters
    ----------
    router
        Fitted.
    encoder
        What embeds the prompts; never read from the cache.
    prompts, embeddings : [n], [n, D]
        A few dozen are enough; each is timed by itself.
    """
    if len(prompts) != len(embeddings) or not len(prompts):
        raise UserError(f"there are {len(prompts)} prompts and {len(embeddings)} embeddings, expected one each")
    model = encoder_named(encoder)
    encoding = [lambda prompt=prompt: model.encode([prompt]) for prompt in prompts]
    scoring = [lambda at=at: router.predict_quality(embeddings[at : at + 1]) for at in range(len(embeddings))]
    with quiet():
        return {"encoding": _median_seconds(encoding), "scoring": _median_seconds(scoring)}


def _median_seconds(calls: Sequence[Callable[[], Any]]) -> float:
    """Return the median processor time of a call, each made once; the first is made once more beforehand."""
    calls[0]()
    return float(np.median([timeit.timeit(call, number=1, timer=time.process_time) for call in calls]))


def share_of_llm(
    wh: float, benchmark: RoutingBenchmark, choices: Sequence[np.ndarray], *, n_resamples: int = 2000, seed: int = 0
) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]]:
    """Return the router's energy beside that of the LLMs it routes to, as a share of each.

    Parameters
    ----------
    wh : float
        The router's energy a prompt (`router_energy`).
    benchmark
        Its cost must be an energy.
    choices : sequence of ndarray of int, [N]
        Where prompts go, one a seed.
    n_resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    frame : DataFrame
        One row an LLM, in ascending order of its energy, and a last one "as routed": `llm`, `wh` (its mean), `share`
        (the router's energy in percent of it).
    values : dict
        ``router/wh-per-prompt`` and ``router/share-of-llm`` to the arguments of `Record.value`; the share is that of
        the energy as routed, in percent, with a bootstrap interval over prompts.

    Raises
    ------
    UserError
        An energy below 0, no choices, choices that are no columns of the pool, or a cost that is no energy.
    """
    if not (np.isfinite(wh) and wh >= 0):
        raise UserError(f"wh is {wh:g}, expected an energy >= 0")
    if not len(choices):
        raise UserError("choices is empty, expected one array a seed")
    calls = in_wh(benchmark)
    rows = np.arange(len(calls))
    routed = np.mean([calls.cost[rows, checked_choices(chosen, calls)] for chosen in choices], axis=0)
    energy = [*sorted(zip(calls.mean_cost.tolist(), calls.models, strict=True)), (float(routed.mean()), "as routed")]
    frame = pd.DataFrame({"llm": [name for _, name in energy], "wh": [mean for mean, _ in energy]})
    frame["share"] = 100 * wh / frame["wh"]
    share = bootstrap_interval(routed, lambda values, axis: 100 * wh / values.mean(axis=axis), n_resamples, seed)
    interval = {"value": share.estimate, "low": share.low, "high": share.high, "n": share.n, "unit": "percent"}
    return frame, {"router/wh-per-prompt": {"value": wh, "unit": WH}, "router/share-of-llm": interval}


def from_flops(benchmark: RoutingBenchmark, device: Device = PAPER_GPU) -> RoutingBenchmark:
    """Return a benchmark that counts FLOPs (TinyPool) with the energy they take on a device, in Wh per prompt.

    An estimate, so that pages run where no measured energy is at hand; UserError for a cost that is not FLOPs.
    """
    if benchmark.cost_unit != FLOPS:
        raise UserError(f"{benchmark.name} costs {benchmark.cost_unit}, expected {FLOPS}; for LLMs use with_energy")
    wh = device.seconds_for(benchmark.cost) * device.watts / JOULES_PER_WH
    note = f"energy modelled from FLOPs on a {device.name} at {device.utilisation:.0%} of its peak rate"
    return replace(benchmark.with_cost(wh, WH), notes=(*benchmark.notes, note))
