"""RadialRouter taken apart: other backbones, losses, pools and weights of the contrastive loss (Sections 5.2, 5.3).

Every variant differs from the chapter's router in the parameters its table names and in nothing else. A training that
several tables show (RadialFormer at λ = 0.5: a row of Tables 2, 3, 6 and 8, the last pool of Table 4) is done once.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from replications.radialrouter import complexity, experiment, lookups, tables
from replications.radialrouter.baselines import BestCandidate, DatasetOracle, datasets_of, outcome
from replications.radialrouter.experiment import SCENARIO_ALPHAS, Setting
from replications.radialrouter.radial_router import BACKBONES, TSNE_ITERATIONS, RadialRouter
from routebook.errors import UserError
from routebook.significance import Estimate, bootstrap_interval, mean_interval

if TYPE_CHECKING:
    from replications.radialrouter.params import AblationsParams
    from routebook.record import Record

BALANCE = SCENARIO_ALPHAS["balance"]
LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
MOST_POOLS = 11
PAPER_SHAPE = {"width": 768, "layers": 6, "heads": 4, "head_width": 32}  # Section 4.4

# Row of Tables 2 and 8 (our name, the paper's) to what differs from the chapter's router.
VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"backbone": name} for name in BACKBONES},
    "without-kl": {"loss": "none"},
    "without-contrast": {"contrast": 0.0},
}
VARIANT_ROWS = {
    "radialformer": "RadialRouter",
    "star-transformer": "+ Star-Transformer",
    "transformer": "+ Transformer",
    "mlp": "+ MLP",
    "without-kl": "w/o L_KL",
    "without-contrast": "w/o L_q-q",
}
LOSS_ROWS = {"kl": "RadialRouter w/ L_KL", "ce": "RadialRouter w/ L_ce", "query-llm": "RadialRouter w/ L_q-L"}
# The two removals are said as what is there and what is not; the other three as what stands in whose place.
PAIR_NAMES = {"without-kl": "with-kl/without-kl", "without-contrast": "with-contrast/without-contrast"}
SHORT = {"performance-first": "PF", "balance": "BA", "cost-first": "CF"}
LONG = {experiment.key_of(name): name for name in lookups.SCENARIOS}
COLUMNS = {"performance": "Performance", "cost": "Cost", "score": "Score"}


def lambda_key(weight: float) -> str:
    """Return the name of a weight λ as it stands in result keys and in Table 6's rows."""
    return f"{weight:g}"


# ---------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True, eq=False)
class Ablations:
    """Every variant trained, and what it earns on the test prompts.

    Attributes
    ----------
    routers
        Variant to its fitted routers, one for each alpha and seed: the names of `VARIANTS`, ``loss-<name>`` and
        ``lambda-<weight>``.
    frame : DataFrame
        What `experiment.evaluate` returns of them.
    n_trained : int
        Trainings; fewer than the routers listed, as tables share some.
    """

    routers: Mapping[str, Sequence[RadialRouter]]
    frame: pd.DataFrame
    n_trained: int

    def get(self, variant: str, alpha: float = BALANCE) -> list[RadialRouter]:
        """Return a variant's routers at one alpha, one a seed."""
        return [router for router in self.routers[variant] if router.alpha == alpha]


def wanted() -> dict[str, tuple[dict[str, Any], tuple[float, ...]]]:
    """Return every variant of Tables 2, 3, 6 and 8: what differs, and the alphas it is trained for."""
    three = tuple(SCENARIO_ALPHAS.values())
    found = {name: (changes, three) for name, changes in VARIANTS.items()}
    found |= {f"loss-{name}": ({"loss": name}, three) for name in LOSS_ROWS}
    return found | {f"lambda-{lambda_key(w)}": ({"contrast": w}, (BALANCE,)) for w in LAMBDAS}


def _untrained(params: AblationsParams, alphas: Sequence[float], n_models: int, **changes: Any) -> list[RadialRouter]:
    # K of Eq. (9) is not printed: three LLMs against three others, or as many as the pool has.
    return experiment.routers_for(params, alphas, top_k=max(1, min(3, n_models // 2)), **changes)


def train(params: AblationsParams, setting: Setting) -> Ablations:
    """Train the variants of Tables 2, 3, 6 and 8, each distinct one once, and evaluate them.

    Raises
    ------
    UserError
        Before anything is trained, as `RadialRouter.fit`; and when `contrast` is 0, as then nothing is left to remove.
    """
    if params.contrast == 0:
        raise UserError(
            "contrast is 0, so there is no contrastive loss to take away, and none to train on without L_KL; "
            "set contrast > 0 (the paper's λ is 0.5)"
        )
    distinct: dict[tuple, RadialRouter] = {}
    every: dict[str, list[tuple[float, RadialRouter]]] = {}
    for name, (changes, alphas) in wanted().items():
        some = _untrained(params, alphas, len(setting.train.models), **changes)
        every[name] = [(router.alpha, distinct.setdefault(_identity(router), router)) for router in some]
    experiment.train_all({"distinct": list(distinct.values())}, setting)
    routers = {name: [_at(alpha, router) for alpha, router in some] for name, some in every.items()}
    return Ablations(routers, experiment.evaluate(routers, setting), len(distinct))


def _identity(router: RadialRouter) -> tuple:
    """Return all that tells one variant's training from another's; without a loss of scores, alpha does not."""
    alpha = None if router.loss == "none" else router.alpha
    return (alpha, *(getattr(router, name) for name in ("seed", "backbone", "loss", "contrast")))


def _at(alpha: float, router: RadialRouter) -> RadialRouter:
    """Return a trained router for this alpha: itself, or a copy where the training was that of another."""
    if router.alpha == alpha:
        return router
    copied = copy.copy(router)
    copied.alpha = alpha
    return copied


# ------------------------------------------------------------------------------------------- Tables 2, 3, 6 and 8


def table_8(done: Ablations) -> dict[str, Estimate]:
    """Return Tables 2 and 8: performance, cost and score of each variant and scenario, by result key."""
    return _cells(done.frame, VARIANTS, "table-8/{scenario}/{column}/{name}", "{name}", COLUMNS)


def table_3(done: Ablations) -> dict[str, Estimate]:
    """Return Table 3: the score of each loss and scenario, by result key."""
    return _cells(done.frame, LOSS_ROWS, "table-3/{scenario}/{column}/{name}", "loss-{name}", ("score",))


def table_6(done: Ablations) -> dict[str, Estimate]:
    """Return Table 6: performance, cost and score for each λ in Balance, by result key."""
    names, scenarios = map(lambda_key, LAMBDAS), {"balance": BALANCE}
    return _cells(done.frame, names, "table-6/{column}/lambda-{name}", "lambda-{name}", COLUMNS, scenarios)


def _cells(frame, names, key: str, method: str, columns, scenarios=SCENARIO_ALPHAS) -> dict[str, Estimate]:
    found = {}
    names = list(names)
    for scenario, alpha in scenarios.items():
        for column in columns:
            wide = experiment.by_seed(frame, column, alpha)
            for name in names:
                values = wide[method.format(name=name)].to_numpy(dtype=float)
                found[key.format(scenario=scenario, column=column, name=name)] = mean_interval(values)
    return found


def differences(done: Ablations) -> dict[str, Estimate]:
    """Return every difference in score that the ledger reads of Tables 2, 3 and 6, paired over seeds, by result key."""
    found = {}
    for scenario, alpha in SCENARIO_ALPHAS.items():
        for name in list(VARIANTS)[1:]:
            pair = PAIR_NAMES.get(name, f"radialformer/{name}")
            found[f"table-2/{scenario}/score-difference/{pair}"] = experiment.difference(
                done.frame, "radialformer", name, alpha
            )
        for name in list(LOSS_ROWS)[1:]:
            found[f"table-3/{scenario}/score-difference/kl/{name}"] = experiment.difference(
                done.frame, "loss-kl", f"loss-{name}", alpha
            )
    for name in map(lambda_key, LAMBDAS):
        if name != "0.5":
            found[f"table-6/score-difference/lambda-0.5/lambda-{name}"] = experiment.difference(
                done.frame, "lambda-0.5", f"lambda-{name}", BALANCE
            )
    return found


def record_estimates(record: Record, found: Mapping[str, Estimate], setting: Setting, unit: str = "") -> None:
    """Record estimates by result key. A cost has its unit where that is the paper's, dollars."""
    for key, estimate in found.items():
        parts = key.split("/")
        own = "fraction" if "performance" in parts else unit
        if "cost" in parts:
            own = tables.LEDGER_UNIT if setting.name == "routerbench" else ""
        record.value(key, estimate.estimate, low=estimate.low, high=estimate.high, n=estimate.n, unit=own)


# ------------------------------------------------------------------------------------------------------------ time


def routing_times(done: Ablations, setting: Setting, batch: int = 64, repeats: int = 40) -> pd.DataFrame:
    """Time the routers of the first seed on batches of test prompts, in ms: a row a batch, a column a backbone."""
    routers = {name: done.get(name)[0] for name in BACKBONES}
    size = min(batch, len(setting.test))
    return complexity.batch_times(routers, setting.test_embeddings, batch=size, repeats=repeats)


def time_estimates(times: pd.DataFrame) -> dict[str, Estimate]:
    """Return the median time a batch of each backbone, and how much longer two of them take than RadialFormer.

    The median, with a bootstrap interval over batches, as what else the machine does makes some batches very slow.
    """
    found = {f"table-2/time/{name}": bootstrap_interval(times[name], "median") for name in times}
    for name in ("star-transformer", "transformer"):
        more = bootstrap_interval(times[name] - times["radialformer"], "median")
        found[f"table-2/time-difference/{name}/radialformer"] = more
    return found


def multiply_adds(
    backbone: str, n: int, *, width: int = 768, heads: int = 4, head_width: int = 32, feed_forward: bool = True
) -> int:
    """Count the multiply-adds of one layer behind the first, for one prompt and n LLMs.

    A scalar product of two vectors of length k counts k; softmax, ReLU and LayerNorm are left out, as are the keys and
    values of the initial states m, which are the same for all prompts.

    Parameters
    ----------
    backbone : {"radialformer", "transformer"}
        RadialFormer as in Eqs. (1) to (3), or a Transformer layer whose heads are `width / heads` wide.
    n
        LLMs; the nodes are n + 1.
    feed_forward
        Whether a Transformer layer has its two dense layers, four times as wide; RadialFormer has none.
    """
    if backbone == "transformer":
        nodes = n + 1
        attention = 4 * nodes * width**2 + 2 * nodes**2 * width
        return attention + (8 * nodes * width**2 if feed_forward else 0)
    if backbone != "radialformer":
        raise UserError(f"backbone is {backbone!r}, expected 'radialformer' or 'transformer'")
    inner = heads * head_width
    # Queries, keys, values and outputs of the satellites, their three scores and sums; keys and values of the relay.
    satellites = 4 * n * width * inner + 6 * n * inner + 2 * width * inner
    # One query: its projection moved to the keys' side, n + 1 scores and sums a head, values, output.
    relay = 4 * width * inner + 2 * (n + 1) * heads * width
    return satellites + relay


# -------------------------------------------------------------------------------------------------------- Figure 3


def query_embeddings(done: Ablations, setting: Setting) -> dict[str, list[np.ndarray]]:
    """Return E(x) of the test prompts in Balance, with and without the contrastive loss: one [N, d] a seed."""
    pairs = {"with": "radialformer", "without": "without-contrast"}
    return {
        key: [router.query_embedding(setting.test_embeddings) for router in done.get(name)]
        for key, name in pairs.items()
    }


def separation(embeddings: np.ndarray, groups: np.ndarray) -> float:
    """Return the mean silhouette by group under cosine distance, from -1 to 1.

    Eq. (5) is about cosine similarities, hence the distance; and about E(x) itself, hence not the t-SNE of it, in
    which distances between groups mean nothing.

    Raises
    ------
    UserError
        When all prompts are of one group.
    """
    if len(np.unique(groups)) < 2:
        raise UserError(f"all test prompts are of {str(groups[0])!r}; whether datasets are apart needs two of them")
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(embeddings, groups, metric="cosine"))


def separations(queries: Mapping[str, Sequence[np.ndarray]], setting: Setting) -> dict[str, Estimate]:
    """Return how separated the source datasets are in E(x): with, without, with minus without paired over seeds.

    `figure-3/separation/encoder` is that of the frozen embeddings, before any training.
    """
    groups = datasets_of(setting.test)
    each = {key: np.array([separation(e, groups) for e in some]) for key, some in queries.items()}
    found = {f"figure-3/separation/{key}": mean_interval(values) for key, values in each.items()}
    frozen = setting.test_embeddings - setting.train_embeddings.mean(axis=0)
    found["figure-3/separation/encoder"] = mean_interval([separation(frozen, groups)])
    found["figure-3/separation-difference/with/without"] = mean_interval(each["with"] - each["without"])
    return found


def plane(embeddings: np.ndarray, seed: int = 0, perplexity: float = 30.0) -> np.ndarray:
    """Return the t-SNE of embeddings in two dimensions, [N, 2], as Figure 3 shows it."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    # With several threads the order in which partial sums are added is not fixed, so the last bits vary.
    with threadpool_limits(1):
        options = {"perplexity": min(perplexity, (len(embeddings) - 1) / 3), "max_iter": TSNE_ITERATIONS}
        return TSNE(2, init="pca", metric="cosine", random_state=seed, **options).fit_transform(embeddings)


# --------------------------------------------------------------------------------------------- Table 4 and Figure 5


@dataclass(frozen=True, eq=False)
class Pools:
    """Routers trained anew on growing pools of LLMs, in Balance (Table 4).

    Attributes
    ----------
    key
        What result keys begin with: "table-4" for the paper's pools, "pools" for any others.
    members
        Number of LLMs to the LLMs.
    frame : DataFrame
        What `experiment.evaluate` returns, with the method ``pool-<size>``; and for each pool of two or more
        ``best-candidate-<size>``, the LLM that is best on the training prompts, and ``dataset-oracle-<size>``.
    """

    key: str
    members: Mapping[int, list[str]]
    frame: pd.DataFrame


def pool_order(setting: Setting) -> list[str]:
    """Return the LLMs in the order they join the pool: Table 4's on RouterBench, by mean cost on any other data."""
    if setting.name == "routerbench":
        return [lookups.LLMS[llm] for llm in lookups.pool(len(lookups.pool_rows()))]
    order = np.argsort(setting.train.mean_cost, kind="stable")
    return [setting.train.models[i] for i in order]


def train_pools(params: AblationsParams, setting: Setting, done: Ablations) -> Pools:
    """Train a router for each pool, at most eleven of them; the whole pool's is the one of Table 2.

    A pool of one LLM leaves nothing to train: that LLM answers everything.
    """
    order = pool_order(setting)
    sizes = np.unique(np.linspace(1, len(order), min(len(order), MOST_POOLS)).round().astype(int)).tolist()
    members = {size: order[:size] for size in sizes}
    settings = {f"pool-{size}": setting.with_models(members[size]) for size in sizes[:-1]}
    settings[f"pool-{sizes[-1]}"] = setting
    routers = {f"pool-{size}": _untrained(params, [BALANCE], size) for size in sizes[1:-1]}
    routers = experiment.train_all(routers, settings)
    routers[f"pool-{sizes[-1]}"] = done.get("radialformer")
    rule = "llm" if params.cost_rule == "model" else "call"
    for size in sizes[1:]:
        at = settings[f"pool-{size}"]
        for name, kind in (("best-candidate", BestCandidate), ("dataset-oracle", DatasetOracle)):
            settings[f"{name}-{size}"] = at
            fitted = kind(alpha=BALANCE, per=rule, seed=params.seed).fit(at.train, at.train_embeddings)
            routers[f"{name}-{size}"] = [fitted]
    alone = settings["pool-1"].test
    first = outcome(np.zeros(len(alone), dtype=int), alone, BALANCE)
    first = first.assign(method="pool-1", alpha=BALANCE, seed=params.seed)
    frame = pd.concat([first, experiment.evaluate(routers, settings)], ignore_index=True)
    return Pools("table-4" if setting.name == "routerbench" else "pools", members, frame)


def table_4(pools: Pools) -> dict[str, Estimate]:
    """Return Table 4: performance, cost and score of the router on each pool, by result key."""
    scenarios = {"balance": BALANCE}
    return _cells(pools.frame, pools.members, pools.key + "/{column}/{name}", "pool-{name}", COLUMNS, scenarios)


def pool_leads(pools: Pools) -> dict[str, Estimate]:
    """Return by how much the router's score is above one LLM for everything, and above one a dataset, by result key."""
    wide = experiment.by_seed(pools.frame, "score", BALANCE)
    found = {}
    for size in list(pools.members)[1:]:
        for name in ("best-candidate", "dataset-oracle"):
            # One of each, without a seed: what varies is the router.
            base = wide[f"{name}-{size}"].dropna().item()
            more = (wide[f"pool-{size}"] - base).to_numpy(dtype=float)
            found[f"{pools.key}/score-difference/{size}/{name}"] = mean_interval(more)
    return found


def lookup_costs(setting: Setting) -> dict[str, float]:
    """Return the cost of the lookups that check RR-11 reads in Table 4, by result key; none where MBPP is not here.

    In dollars per 1,000 prompts: Table 7's mean of one LLM and, for the dataset that goes to another, the difference
    between the two on our test prompts.
    """
    if setting.name != "routerbench" or "mbpp" in setting.test.absent:
        return {}
    table = lookups.pool_table(tables.dollars_per_prompt(setting.test))["lookup cost"]
    return {f"table-4/lookup-cost/{size}": float(table[size]) for size in (2, 3) if np.isfinite(table.get(size))}


# -------------------------------------------------------------------------------------- tables as readers see them


def in_brackets(estimate: Estimate, digits: int = 3, signed: bool = False, bold: bool = False) -> str:
    """Return an estimate with its interval below it, as a table's cell."""
    form = f"{{:{'+' if signed else ''}.{digits}f}}"
    text = form.format(estimate.estimate)
    text = f"<b>{text}</b>" if bold else text
    if not np.isfinite(estimate.low):
        return text
    return f"{text}<br><small>[{form.format(estimate.low)}, {form.format(estimate.high)}]</small>"


def printed(table: str, row: str, column: str) -> str:
    """Return a published cell as printed; a dash where there is none."""
    cell = lookups.published()[table].get((row, column))
    return "–" if cell is None or cell.value is None else cell.printed


def _side_by_side(
    found: Mapping[str, Estimate],
    rows: Mapping[str, str],
    columns: Mapping[str, tuple[str, str, int]],
    table: str,
    names: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Set the paper's cells beside ours: `columns` maps a title to result key (with {name}), column, digits."""
    cells: dict[str, dict[str, str]] = {(names or rows)[name]: {} for name in rows}
    for title, (key, column, digits) in columns.items():
        ours = {name: found.get(key.format(name=name)) for name in rows}
        known = {name: estimate.estimate for name, estimate in ours.items() if estimate}
        lowest = column.lower().endswith(("cost", "time/ms"))
        best = (min if lowest else max)(known.values())
        for name, row in rows.items():
            shown = cells[(names or rows)[name]]
            shown[f"{title}, paper"] = printed(table, row, column)
            bold = known.get(name) == best and not column.lower().endswith("cost")
            shown[f"{title}, ours"] = in_brackets(ours[name], digits, bold=bold) if ours[name] else "–"
    return pd.DataFrame.from_dict(cells, orient="index")


def shown_table_2(found: Mapping[str, Estimate]) -> pd.DataFrame:
    """Return Table 2 as readers see it: scores and time a batch, the paper's beside ours, best in bold."""
    columns = {short: (f"table-8/{key}/score/{{name}}", short, 3) for key, short in SHORT.items()}
    columns["ms a batch"] = ("table-2/time/{name}", "Time/ms", 1)
    return _side_by_side(found, VARIANT_ROWS, columns, "table-2")


def shown_table_8(found: Mapping[str, Estimate]) -> pd.DataFrame:
    """Return what Table 8 has beyond Table 2 as readers see it: performance and cost, the paper's beside ours."""
    columns = {}
    for key, short in SHORT.items():
        columns[f"{short} performance"] = (f"table-8/{key}/performance/{{name}}", f"{LONG[key]} / Perf.", 3)
        columns[f"{short} cost"] = (f"table-8/{key}/cost/{{name}}", f"{LONG[key]} / Cost", 3)
    return _side_by_side(found, VARIANT_ROWS, columns, "table-8")


def shown_table_3(found: Mapping[str, Estimate]) -> pd.DataFrame:
    """Return Table 3 as readers see it: the score of each loss, the paper's beside ours, best in bold."""
    columns = {short: (f"table-3/{key}/score/{{name}}", short, 3) for key, short in SHORT.items()}
    return _side_by_side(found, LOSS_ROWS, columns, "table-3")


def shown_table_6(found: Mapping[str, Estimate]) -> pd.DataFrame:
    """Return Table 6 as readers see it: performance, cost and score of each λ, the paper's beside ours."""
    columns = {title: (f"table-6/{key}/lambda-{{name}}", title, 4) for key, title in COLUMNS.items()}
    names = [lambda_key(weight) for weight in LAMBDAS]
    rows = {name: f"lambda={name}" for name in names}
    return _side_by_side(found, rows, columns, "table-6", {name: f"λ = {name}" for name in names})


def shown_table_4(pools: Pools, found: Mapping[str, Estimate]) -> pd.DataFrame:
    """Return Table 4 as readers see it, with the router's lead over one LLM for everything and over one a dataset."""
    paper = pools.key == "table-4"
    rows = {str(n): lookups.pool_rows()[n - 1] if paper else str(n) for n in pools.members}
    names = _pool_names(pools)
    columns = {title: (f"{pools.key}/{key}/{{name}}", title, 4) for key, title in COLUMNS.items()}
    frame = _side_by_side(found, rows, columns, pools.key if paper else "table-1", names)
    for title, name in (("best single LLM", "best-candidate"), ("DatasetOracle", "dataset-oracle")):
        keys = {n: f"{pools.key}/score-difference/{n}/{name}" for n in pools.members}
        frame[f"score − {title}'s"] = [
            in_brackets(found[k], 4, signed=True) if k in found else "–" for k in keys.values()
        ]
    return frame if paper else frame[[column for column in frame if not column.endswith(", paper")]]


def _pool_names(pools: Pools) -> dict[str, str]:
    names, before = {}, 0
    for size, members in pools.members.items():
        joined = ", ".join(llm.split("/")[-1] for llm in members[before:])
        names[str(size)] = f"{size}: {'+ ' if before else ''}{joined}"
        before = size
    return names


def shown_times(times: pd.DataFrame, of_paper_size: pd.DataFrame, n_models: int) -> pd.DataFrame:
    """Return the time of a batch for each backbone: printed, ours, ours at the paper's size, and relative to it.

    Parameters
    ----------
    times
        What `routing_times` returns.
    of_paper_size
        What `complexity.forward_times` returns for a pool of `n_models` in `PAPER_SHAPE`.
    """
    at = of_paper_size[of_paper_size["n"] == n_models].set_index("backbone")["ms"]
    rows = {}
    for name in times:
        alone = at.get(name, np.nan)
        rows[VARIANT_ROWS[name]] = {
            "paper, ms (A100)": printed("table-2", VARIANT_ROWS[name], "Time/ms"),
            "ours, ms": in_brackets(bootstrap_interval(times[name], "median"), 1),
            "ours at the paper's size, ms": f"{alone:.1f}",
            "times RadialFormer's": f"{alone / at.get('radialformer', np.nan):.2f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def shown_table_5() -> pd.DataFrame:
    """Return Table 5, the LLMs and their sizes, as printed."""
    table = lookups.published()["table-5"]
    rows = {row: {"size": printed("table-5", row, "Size"), "licence": cell.note} for (row, _), cell in table.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def shown_differences(found: Mapping[str, Estimate], prefix: str) -> pd.DataFrame:
    """Return differences in score of one table as readers see them: one row a pair, one column a scenario."""
    rows: dict[str, dict[str, str]] = {}
    for key, estimate in found.items():
        if key.startswith(prefix) and "score-difference" in key:
            before, pair = key.split("/score-difference/")
            scenario = SHORT.get(before.split("/")[-1], "BA")
            rows.setdefault(pair.replace("/", " − "), {})[scenario] = in_brackets(estimate, 4, signed=True)
    return pd.DataFrame.from_dict(rows, orient="index")


def numbers(found: Mapping[str, Estimate], prefix: str) -> pd.DataFrame:
    """Return the estimates whose key begins so as a table of numbers: value, low, high, n."""
    rows = {key.removeprefix(f"{prefix}/"): e for key, e in found.items() if key.startswith(prefix)}
    columns = {"value": "estimate", "low": "low", "high": "high", "n": "n"}
    return pd.DataFrame(
        {c: [float(getattr(e, a)) for e in rows.values()] for c, a in columns.items()}, index=list(rows)
    )


# ------------------------------------------------------------------------------------------------ lines of figures


def lambda_lines(found: Mapping[str, Estimate]) -> dict[str, tuple[pd.DataFrame, pd.Series]]:
    """Return Figure 6 for `figures.compared_plot`: performance and score against λ, ours and the paper's."""
    panels = {}
    for key in ("performance", "score"):
        ours = {w: found[f"table-6/{key}/lambda-{lambda_key(w)}"] for w in LAMBDAS}
        rows = {w: f"lambda={lambda_key(w)}" for w in LAMBDAS}
        panels[COLUMNS[key]] = _line(ours), _printed_line("table-6", rows, COLUMNS[key])
    return panels


def pool_lines(pools: Pools, found: Mapping[str, Estimate]) -> dict[str, tuple[pd.DataFrame, pd.Series | None]]:
    """Return Figure 5 for `figures.compared_plot`: performance and score against the number of LLMs."""
    panels = {}
    for key in ("performance", "score"):
        ours = {n: found[f"{pools.key}/{key}/{n}"] for n in pools.members}
        rows = {n: lookups.pool_rows()[n - 1] for n in pools.members} if pools.key == "table-4" else {}
        panels[COLUMNS[key]] = _line(ours), _printed_line("table-4", rows, COLUMNS[key]) if rows else None
    return panels


def _line(estimates: Mapping[float, Estimate]) -> pd.DataFrame:
    rows = {x: {"value": e.estimate, "low": e.low, "high": e.high} for x, e in estimates.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def _printed_line(table: str, rows: Mapping[float, str], column: str) -> pd.Series:
    return pd.Series({x: lookups.value(lookups.published()[table], row, column) for x, row in rows.items()})
