"""What the CSCR paper leaves open: our choice at every detail, and how the area moves when we choose otherwise."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from replications.cscr import experiment, fingerprints, tables
from replications.cscr.ablations import Trainer
from replications.cscr.experiment import PoolSetting, Split, in_processes, processes_for
from routebook import encoders
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import DeferralCurve, audc_cscr, deferral_curve
from routebook.errors import UserError
from routebook.figures import label
from routebook.paths import cache_dir
from routebook.routers import BaseRouter
from routebook.significance import Estimate, mean_interval

if TYPE_CHECKING:
    from replications.cscr.params import AblationsParams

Pair = tuple[float, float]
NOT_HERE: Pair = (math.nan, math.nan)
CODE_K, CODE_EPOCHS, CODE_TEST_SHARE = 20, 6, 0.1
LONG_STEPS = 150
# Trainings of CSCR and of the baselines a seed takes here, for the number of processes.
TRAININGS = 20


# --- a split taken up again ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Material:
    """What other choices need beyond a pool's setting, prepared once for all seeds.

    Attributes
    ----------
    setting : PoolSetting
    sample : RoutingBenchmark or None
        The setting's prompts and those left out as probes; None where none are left out.
    sample_embeddings : ndarray [n, D] or None
    cls_embeddings : ndarray [N, D] or None
        The setting's prompts by the first token's vector; None where the encoder is not MiniLM.
    """

    setting: PoolSetting
    sample: RoutingBenchmark | None = None
    sample_embeddings: np.ndarray | None = None
    cls_embeddings: np.ndarray | None = None


def prepare(params: AblationsParams, setting: PoolSetting) -> Material:
    """Load and embed what the alternatives on a pool need."""
    sample = vectors = cls = None
    if setting.n_probes_removed:
        sample = experiment.load_benchmark(setting.name, params).sample(params.max_prompts, params.seed)
        vectors = encoders.embed_benchmark(sample, params.encoder)
    if params.encoder in ("auto", "minilm") and setting.benchmark.origin == "real":
        cls = encoders.embed(setting.benchmark.prompts, str(cls_encoder()))
    return Material(setting, sample, vectors, cls)


def cls_encoder() -> Path:
    """Return a folder with MiniLM as the released code pools it: by the first token instead of the mean (7.2 #19)."""
    source, folder = encoders.minilm_folder(), cache_dir() / "encoders" / "minilm-cls"
    if not folder.is_dir():
        partial_copy = folder.with_suffix(".partial")
        shutil.rmtree(partial_copy, ignore_errors=True)
        shutil.copytree(source, partial_copy)
        pooling = partial_copy / "1_Pooling" / "config.json"
        settings = json.loads(pooling.read_text(encoding="utf-8"))
        settings |= {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
        pooling.write_text(json.dumps(settings), encoding="utf-8")
        partial_copy.rename(folder)
    return folder


class Again:
    """One split on which everything is as on the page, and one thing at a time can be done otherwise.

    Parameters
    ----------
    params
    material
    seed
        Of the split and the trainings.
    """

    def __init__(self, params: AblationsParams, material: Material, seed: int):
        self.params = params
        self.material = material
        self.split = material.setting.split(seed)
        self.trainer = Trainer(params, self.split)
        self._baselines: dict[tuple[str, bool], DeferralCurve] = {}

    @property
    def n_models(self) -> int:
        """LLMs in the pool."""
        return len(self.split.train.models)

    def cscr(self, **changes: Any) -> DeferralCurve:
        """Return the curve of CSCR with some parameters changed."""
        return routed(self.trainer.cscr(**changes), self.split)

    def cscr_on(self, known: Split, routed_on: Split | None = None) -> DeferralCurve:
        """Return the curve of CSCR trained on another split, routing that one's test prompts or a third's."""
        fitted = experiment.train({"cscr": experiment.cscr_for(self.params, known)}, known)["cscr"]
        return routed(fitted, routed_on or known)

    @cached_property
    def ours(self) -> DeferralCurve:
        """CSCR's curve under our choices."""
        return self.cscr()

    def baseline(self, method: str, released: bool = False) -> DeferralCurve:
        """Return the curve of a baseline, ours or as the released code has it."""
        key = method, released
        if key not in self._baselines:
            if released:
                router = experiment.released_routers(self.params, self.split)[method]
            else:
                router = experiment.routers_for(self.params, self.split, [method])[method]
            fitted = experiment.train({method: router}, self.split)[method]
            self._baselines[key] = routed(fitted, self.split)
        return self._baselines[key]


def routed(fitted: BaseRouter, split: Split) -> DeferralCurve:
    """Return the deferral curve of a fitted router on a split."""
    return experiment.route({"it": fitted}, split).curves["it"]


def area(curve: DeferralCurve) -> float:
    """Return the area as everywhere on the page."""
    return curve.area(left="flat")


def thinned(curve: DeferralCurve, lambdas: np.ndarray) -> DeferralCurve:
    """Return the curve as a grid of λ sees it: only the operating points at those λ."""
    piece = np.unique(np.searchsorted(curve.lam, np.sort(lambdas), side="right") - 1)
    names = ("lam", "cost", "quality", "observed")
    return replace(curve, **{name: getattr(curve, name)[piece] for name in names})


# --- the other choices -----------------------------------------------------------------------------------------------

Value = Callable[[Again], Pair]


def _changed(**changes: Any) -> Value:
    """Return CSCR's area with these parameters, and ours."""

    def value(again: Again) -> Pair:
        return area(again.cscr(**changes)), area(again.ours)

    return value


def as_printed(again: Again) -> DeferralCurve:
    """Return CSCR's curve by Eq. (9) as printed: the least similar of the k, cost added."""
    fitted, split = again.trainer.cscr(), again.split
    estimate = experiment.with_last_resort(-fitted.predict_quality(split.test_embeddings), split.price)
    return deferral_curve(estimate, split.test.quality, split.price, paid=split.test.cost)


def _as_printed(again: Again) -> Pair:
    return area(as_printed(again)), area(again.ours)


def _other_sign(again: Again) -> Pair:
    return _changed(gamma_sign="other" if again.params.gamma_sign == "printed" else "printed")(again)


def _root_bands(again: Again) -> Pair:
    return _changed(n_bands=math.isqrt(again.n_models))(again)


def _code_k(again: Again) -> Pair:
    return _changed(k=min(CODE_K, again.n_models))(again)


def half_descriptors(split: Split) -> dict[str, np.ndarray]:
    """Return descriptors over half as many probes, or tokens.

    Perplexities are centred anew, which is all that Eq. (4) does to their cosines.
    """
    halves = {model: vector[: len(vector) // 2] for model, vector in split.descriptors.items()}
    if experiment.DESCRIPTOR.get(split.name) == "logit":
        return halves
    return {model: vector - vector.mean() for model, vector in halves.items()}


def _half_descriptors(again: Again) -> Pair:
    return area(again.cscr_on(again.split.with_descriptors(half_descriptors(again.split)))), area(again.ours)


def _code_fingerprints(again: Again) -> Pair:
    pool = again.split.name
    if experiment.DESCRIPTOR.get(pool) != "perplexity":
        return NOT_HERE
    vectors, models, _ = fingerprints.load_fingerprints(pool, "perplexity", kind="code", models=again.split.test.models)
    other = again.split.with_descriptors(dict(zip(models, vectors, strict=True)))
    return area(again.cscr_on(other)), area(again.ours)


def _log_costs(again: Again) -> Pair:
    """Costs normalised on a logarithmic scale in training; routed and billed as ever."""
    cheapest = min(again.split.prices.values())
    if cheapest <= 0:
        return NOT_HERE
    logs = {model: math.log(price / cheapest) for model, price in again.split.prices.items()}
    return area(again.cscr_on(again.split.with_fixed_prices(logs), again.split)), area(again.ours)


def _on_code_grid(again: Again) -> Pair:
    return area(thinned(again.ours, experiment.code_lambdas(again.split))), area(again.ours)


def _code_area(again: Again, company: Sequence[str] = ()) -> Pair:
    """Return CSCR's AUDC by the released code, with some baselines in the run, and its area."""
    curves = {"cscr": again.ours} | {method: again.baseline(method) for method in company}
    return audc_cscr(curves, experiment.code_lambdas(again.split))["cscr"], area(again.ours)


def _code_lead(again: Again) -> Pair:
    """Return CSCR's lead over UMR by the released code's area over the range of the two, and by the exact area."""
    umr = again.baseline("umr")
    code = audc_cscr({"cscr": again.ours, "umr": umr}, experiment.code_lambdas(again.split))
    return code["cscr"] - code["umr"], area(again.ours) - area(umr)


def _code_qnc(again: Again) -> Pair:
    """Return the cost at CSCR's own peak as a share of the most accurate LLM's cost, and its QNC."""
    curve = again.ours
    return curve.cost_at_peak / curve.model_cost[curve.best_model], min(curve.qnc(), 1.0)


def _fixed_prices(again: Again) -> Pair:
    return area(routed(again.trainer.cscr(), again.split.with_fixed_prices())), area(again.ours)


def code_split(again: Again) -> Split:
    """Return nine tenths to train on and one tenth to test on."""
    setting = again.material.setting
    sizes = {"test": round(CODE_TEST_SHARE * len(setting.benchmark)), "train": -1}
    parts = setting.benchmark.random_split(sizes, np.random.default_rng(again.split.seed))
    return setting.split_at(again.split.seed, parts["train"], parts["test"])


def _code_split(again: Again) -> Pair:
    return area(again.cscr_on(code_split(again))), area(again.ours)


def with_probes(again: Again) -> Split | None:
    """Return the split with the probes among the training prompts, as nothing in the released code keeps them out."""
    sample = again.material.sample
    if sample is None:
        return None
    rows = np.flatnonzero(~np.isin(sample.ids, again.split.test.ids))
    embeddings = again.material.sample_embeddings[rows]
    return replace(again.split, train=sample.subset(rows), train_embeddings=embeddings)


def _with_probes(again: Again) -> Pair:
    split = with_probes(again)
    return NOT_HERE if split is None else (area(again.cscr_on(split)), area(again.ours))


def _cls(again: Again) -> Pair:
    vectors = again.material.cls_embeddings
    if vectors is None:
        return NOT_HERE
    train, test = again.material.setting.rows(again.split.seed)
    other = replace(again.split, train_embeddings=vectors[train], test_embeddings=vectors[test])
    return area(again.cscr_on(other)), area(again.ours)


def _partial_credit(again: Again) -> Pair:
    """Half a point counts as correct in training; nothing to run where no score lies between 0 and 1."""
    quality = again.split.train.quality
    if again.split.train.quality_kind != "binary" or not ((quality > 0) & (quality < 1)).any():
        return NOT_HERE
    return _changed(positives="correct", threshold=0.5)(again)


def _best_answers(again: Again) -> Pair:
    return _changed(positives="margin", margin=0.0)(again)


def _released(method: str) -> Value:
    """Return the area of a baseline as the released code has it, and of ours."""

    def value(again: Again) -> Pair:
        return area(again.baseline(method, released=True)), area(again.baseline(method))

    return value


def _another_seed(again: Again) -> Pair:
    """Another training on the same split."""
    return _changed(seed=again.split.seed + 10_000)(again)


@dataclass(frozen=True)
class Alternative:
    """Another choice that can be run.

    Attributes
    ----------
    key
        Of its effect in the numbers.
    said
        In the table, before the effect.
    value
        The metric under this choice and under ours; NaN where it cannot be run on the pool.
    metric
        What moves, where it is not CSCR's area.
    soft
        Whether it is measured on the first pool of soft scores.
    """

    key: str
    said: str
    value: Value
    metric: str = ""
    soft: bool = False


@dataclass(frozen=True)
class Choice:
    """A detail that a replicator must guess.

    Attributes
    ----------
    detail
    paper, code, ours
        What the paper says, what the authors' released code does, what we do.
    alternatives
        What is measured.
    remark
        What else there is to say, or why nothing is measured.
    """

    detail: str
    paper: str
    code: str
    ours: str
    alternatives: tuple[Alternative, ...] = ()
    remark: str = ""


def _of(method: str) -> str:
    return f"area of {label(method)}"


OPEN: tuple[Choice, ...] = (
    Choice(
        "direction of Eq. (9)",
        "argmin of cos + λc",
        "argmax of cos − λc, and a bonus of at most 10⁻⁶ for exploring",
        "argmax of cos − λc",
        (Alternative("eq-9-as-printed", "as printed, which takes the least similar of the k", _as_printed),),
    ),
    Choice(
        "sign of γ in Eq. (8)",
        "minus in the equation, plus in the words around it",
        "minus, correct LLMs in the denominator too",
        "`gamma_sign`: as printed",
        (Alternative("gamma-sign", "the other sign", _other_sign),),
        "both signs at five γ: Table 10 above",
    ),
    Choice(
        "γ over τ",
        "inside in Eq. (8), outside in Section 5.2 and Appendix B.3",
        "inside",
        "inside",
        (Alternative("penalty-undivided", "not divided by τ", _changed(divide_penalty=False)),),
    ),
    Choice(
        "γ",
        "0.2 (Section 4.1), 0.1 (D.1)",
        "0.2",
        "`gamma`: 0.2",
        (Alternative("gamma-0.1", "0.1", _changed(gamma=0.1)),),
    ),
    Choice(
        "number of bands, and equal costs",
        "5; percentiles, edges not given",
        "the whole part of √M unless set",
        "`n_bands`: 5; quantiles of normalised cost, bands left empty by equal costs dropped",
        (Alternative("bands-root", "the whole part of √M", _root_bands),),
    ),
    Choice(
        "averaging over bands",
        "a query's bands, then queries",
        "a band's queries, then bands",
        "as printed",
        (Alternative("averaging-band", "as the code", _changed(averaging="band")),),
    ),
    Choice(
        "K tokens and N probes",
        "256 and 192; one space “by setting N = K”",
        "the width of the descriptor file",
        "192 perplexities or 256 tokens; 192 of both where they are mixed",
        (Alternative("half-descriptors", "half as many", _half_descriptors),),
    ),
    Choice(
        "tokens of Eq. (2)",
        "the most frequent over all probes, shared",
        "each LLM's own tokenizer and tokens",
        "texts that are one token in every tokenizer",
        remark="not run: the LLMs that give their logits here have one tokenizer, for which both are the same",
    ),
    Choice(
        "normalisation in Eq. (4)",
        "mean 0, variance 1",
        "perplexities (exp) over their length, not centred",
        "as printed",
        (Alternative("code-fingerprints", "as the code", _code_fingerprints),),
    ),
    Choice(
        "normalisation of cost",
        "“c in [0, 1]”",
        "min-max over the training pool; at inference raw",
        "min-max in training; none at inference",
        (Alternative("log-costs", "min-max of log cost in training", _log_costs),),
        "at inference nothing moves: a factor on costs is one on λ, and every λ is swept",
    ),
    Choice(
        "k",
        "4",
        "20 by default",
        "`k`: 4",
        (Alternative("k-of-code", f"{CODE_K}, or all LLMs where there are fewer", _code_k),),
        "more in Table 9 above",
    ),
    Choice(
        "sweep of λ",
        "[0, λ_max]",
        "20 values from 10⁻⁴ to 10², not 0",
        "every breakpoint from 0 on",
        (Alternative("lambda-grid", "the code's 20 values, brought to the scale of the prices", _on_code_grid),),
    ),
    Choice(
        "AUDC",
        "“area”",
        "trapezoids over 25 costs from the least to the greatest of all routers in the run",
        "exact, from the cheapest to the dearest LLM's mean cost",
        (
            Alternative("audc-alone", "as the code, CSCR alone in the run", _code_area),
            Alternative("audc-with-umr", "with UMR in the run", partial(_code_area, company=("umr",))),
        ),
    ),
    Choice(
        "area of Table 16",
        "AUDC",
        "another function, over the range of the two routers",
        "the area of everywhere else",
        (Alternative("audc-of-two", "as the code", _code_lead, "lead over UMR"),),
    ),
    Choice(
        "QNC",
        "least relative cost that matches the best LLM",
        "cost at the router's own peak",
        "as the paper defines it, at most 1; the code's under `cost-at-peak`",
        (Alternative("qnc-of-code", "as the code, relative to the best LLM's cost", _code_qnc, "QNC"),),
    ),
    Choice(
        "cost of a call",
        "the API's own",
        "one price an LLM, times 200",
        "the router knows one price, the call is billed",
        (Alternative("fixed-prices", "billed by the price", _fixed_prices),),
    ),
    Choice(
        "split",
        "not given",
        "90 to 10",
        "the pool's own, else 70 to 30 (AlpacaEval: 60 to 40), drawn anew with each seed",
        (Alternative("split-90-10", "90 to 10, on other test prompts", _code_split),),
    ),
    Choice(
        "probes out of training",
        "yes on RouterBench",
        "not visible",
        "yes, and out of testing",
        (Alternative("probes-in-training", "in training", _with_probes),),
    ),
    Choice(
        "pooling and length of the encoder",
        "not given",
        "first token, 256 tokens",
        "mean, which MiniLM was trained for; 256 tokens",
        (Alternative("cls-pooling", "first token", _cls),),
    ),
    Choice(
        "two-layer MLP",
        "no widths",
        "384-384-K, ReLU, no bias, no dropout",
        "`hidden`: as the code",
        (Alternative("bias", "with biases", _changed(bias=True)),),
    ),
    Choice(
        "correct LLMs for soft scores",
        "not given",
        "within 0.1 of the best",
        "within 0.1 of the best",
        (Alternative("best-only", "the best alone", _best_answers, "area on the pool of soft scores", soft=True),),
    ),
    Choice(
        "partial credit",
        "“binary”",
        "half a point is wrong in training, half right in testing",
        "as the code",
        (Alternative("partial-credit", "half a point is right in training", _partial_credit),),
    ),
    Choice(
        "UMR",
        "no number of clusters, no validation set",
        "20 clusters, the 192 probes, error 0.5 where a cluster has none",
        "20 clusters (`umr_clusters`), all training labels",
        (Alternative("umr-of-code", "192 labelled prompts", _released("umr"), _of("umr")),),
    ),
    Choice(
        "Thompson sampling",
        "no priors",
        "Beta(1, 1), learning from the test answers as it routes",
        "Beta(1, 1), learning from training answers",
        (Alternative("thompson-online", "as the code", _released("thompson"), _of("thompson")),),
    ),
    Choice(
        "Parametric and Soft-MoE",
        "a line each",
        "Parametric scores LLMs without the prompt; Soft-MoE is an encoder's cosine − λc",
        "a softmax head; gates trained on expected quality",
        (
            Alternative("parametric-of-code", "Parametric as the code", _released("parametric"), _of("parametric")),
            Alternative("soft-moe-of-code", "Soft-MoE as the code", _released("soft-moe"), _of("soft-moe")),
        ),
    ),
    Choice(
        "Pareto-Random",
        "by the Pareto frontier",
        "the same class as Random",
        "ZeroRouter, a mixture along the frontier",
        (Alternative("pareto-of-code", "as the code", _released("zero-router"), _of("zero-router")),),
    ),
    Choice(
        "length of training, and checkpoint",
        "AdamW, 5 × 10⁻⁴, 512, 10 epochs",
        "the same; its scripts take epoch 6 or 10",
        "10 epochs, and the last",
        (
            Alternative(f"epochs-{CODE_EPOCHS}", f"{CODE_EPOCHS} epochs", _changed(epochs=CODE_EPOCHS)),
            Alternative(f"steps-{LONG_STEPS}", f"at least {LONG_STEPS} steps", _changed(min_steps=LONG_STEPS)),
        ),
    ),
    Choice(
        "which LLMs are new",
        "two thirds “following” UniRoute",
        "lists not published",
        "drawn at random with each seed",
        remark="on the page of shifts, where every seed draws others",
    ),
    Choice(
        "STEM and other prompts",
        "Table 6",
        "the same names",
        "Table 6 read on MMLU-Pro's categories",
        remark="on the page of shifts",
    ),
    Choice(
        "seeds",
        "one run",
        "none set",
        "`n_seeds`, each with a split and a training of its own",
        (Alternative("another-training", "another training on the same split", _another_seed),),
    ),
    Choice(
        "widths of Table 13, data of Figures 6 and 7",
        "not given",
        "not given",
        "`hidden` and four times as many; every pool",
        remark="Table 13 and the figures above",
    ),
)


# --- measured --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """Effects of the other choices.

    Attributes
    ----------
    pool, soft_pool
        Where they were measured; "" where there is no pool of soft scores.
    effects : dict of str to Estimate
        Key of an alternative to the metric under it minus ours, paired over seeds; NaN where it cannot be run.
    spread
        Standard deviation over seeds of our area; NaN for one seed.
    """

    pool: str
    soft_pool: str
    effects: Mapping[str, Estimate]
    spread: float


def alternatives(soft: bool) -> list[Alternative]:
    """Return the alternatives measured on the first pool, or those on the first pool of soft scores."""
    return [a for choice in OPEN for a in choice.alternatives if a.soft == soft]


def measure_split(task: tuple[AblationsParams, Material, int, bool]) -> dict[str, Pair]:
    """Return every alternative's metric and ours on one split."""
    params, material, seed, soft = task
    again = Again(params, material, seed)
    found = {a.key: a.value(again) for a in alternatives(soft)}
    return found if soft else found | {"": (area(again.ours), area(again.ours))}


def measure(params: AblationsParams, pools: Mapping[str, PoolSetting], n_jobs: int | None = None) -> Measured:
    """Measure every alternative on the first pool; those about soft scores on the first pool that has any.

    Raises
    ------
    UserError
        When there is no pool.
    """
    if not pools:
        raise UserError("pools is empty, expected at least one; give the pools to measure on")
    first = next(iter(pools.values()))
    soft = next((s for s in pools.values() if s.benchmark.quality_kind == "soft"), None)
    material = prepare(params, first)
    tasks = [(params, material, seed, False) for seed in params.seeds]
    if soft is not None:
        tasks += [(params, Material(soft), seed, True) for seed in params.seeds]
    n_jobs = processes_for(params, TRAININGS * params.n_seeds) if n_jobs is None else n_jobs
    pairs: dict[str, list[Pair]] = {}
    for found in in_processes(measure_split, tasks, n_jobs, "open choices"):
        for key, pair in found.items():
            pairs.setdefault(key, []).append(pair)
    ours = np.array(pairs.pop(""))[:, 1]
    effects = {a.key: _effect(pairs.get(a.key, [NOT_HERE])) for a in [*alternatives(False), *alternatives(True)]}
    spread = float(ours.std(ddof=1)) if len(ours) > 1 else math.nan
    return Measured(first.name, soft.name if soft else "", effects, spread)


def _effect(pairs: Sequence[Pair]) -> Estimate:
    differences = np.array([other - ours for other, ours in pairs])
    if np.isnan(differences).any():
        return Estimate(math.nan, math.nan, math.nan, len(differences), "cannot be run")
    return mean_interval(differences)


def open_table(measured: Measured) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the measured effects, and the list of open choices as readers see it, one row a detail."""
    numbers = {
        key: {"effect": e.estimate, "low": e.low, "high": e.high, "n": e.n} for key, e in measured.effects.items()
    }
    shown = {}
    for number, choice in enumerate(OPEN, start=1):
        shown[number] = {
            "detail": choice.detail,
            "the paper": choice.paper,
            "released code": choice.code,
            "ours": choice.ours,
            "other choices, and by how much they move the area": "<br>".join(_said(choice, measured)),
        }
    return pd.DataFrame.from_dict(numbers, orient="index"), pd.DataFrame.from_dict(shown, orient="index")


def _said(choice: Choice, measured: Measured) -> list[str]:
    lines = []
    for alternative in choice.alternatives:
        effect = measured.effects[alternative.key]
        what = f" ({alternative.metric})" if alternative.metric else ""
        told = "cannot be run on these pools"
        if not math.isnan(effect.estimate):
            told = tables.cell(effect, "{:+z.4f}", tables.told_apart(effect)).replace("<br>", " ")
        lines.append(f"{alternative.said}{what}: {told}")
    if choice.detail == "seeds" and not math.isnan(measured.spread):
        lines.append(f"standard deviation of our area over seeds: {measured.spread:.4f}")
    return [*lines, choice.remark] if choice.remark else lines
