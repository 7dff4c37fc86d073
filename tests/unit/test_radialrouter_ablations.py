"""RadialRouter's ablations: what is trained, what is recorded, and the counts and distances behind the page."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from replications.radialrouter import ablations, experiment, lookups, radialformer
from replications.radialrouter.baselines import EQ7_UNIT
from replications.radialrouter.experiment import SCENARIO_ALPHAS, Setting
from replications.radialrouter.params import AblationsParams
from replications.radialrouter.radial_router import RadialRouter, fit_many
from routebook import figures, ledger
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError
from routebook.record import Record
from routebook.significance import Estimate

SMALL = {"steps": 3, "n_seeds": 2, "width": 8, "heads": 2, "head_width": 4, "layers": 1, "batch_size": 16}


def bench(n, seed):
    """Three LLMs and two datasets; the second LLM is the cheapest, the first the dearest and the best."""
    rng = np.random.default_rng(seed)
    quality = (rng.random((n, 3)) < [0.9, 0.3, 0.6]).astype(float)
    return RoutingBenchmark(
        name="toy", prompts=[f"p{i}" for i in range(n)], tasks=[("a", "b")[i % 2] for i in range(n)],
        models=["large", "small", "middle"], quality=quality, cost=np.tile([5.0, 0.1, 1.0], (n, 1)),
        cost_unit=EQ7_UNIT, origin="simulated",
    )  # fmt: skip


@pytest.fixture
def closed_figures():
    """Close what a test draws, as it does not go through `figures.to_svg`."""
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture(scope="module")
def params():
    return AblationsParams.build({"dataset": "simulated", "n_groups": 2, **SMALL})


@pytest.fixture(scope="module")
def setting():
    train, test = bench(80, 0), bench(40, 1)
    rng = np.random.default_rng(2)
    embeddings = [rng.normal(size=(len(b), 6)) + 3 * (b.tasks == "b")[:, None] for b in (train, test)]
    return Setting("toy", train, test, *embeddings)


@pytest.fixture(scope="module")
def done(params, setting):
    return ablations.train(params, setting)


def made(names, alphas, seeds=(0, 1, 2)):
    """What `experiment.evaluate` would return of these methods: the score is told from all that makes a row."""
    rows = []
    for (i, name), (j, alpha), seed in itertools.product(enumerate(names), enumerate(alphas), seeds):
        score = i + 10 * j + 0.1 * seed * (i + 1)
        rows.append((name, alpha, seed, "macro", score + 1, 1.0, score))
    return pd.DataFrame(rows, columns=["method", "alpha", "seed", "dataset", "performance", "cost", "score"])


# What is trained


def test_a_training_of_several_tables_is_done_once(done, params):
    assert done.routers["radialformer"] == done.routers["loss-kl"]
    assert done.get("radialformer") == done.routers["lambda-0.5"]
    assert done.get("without-contrast") == done.routers["lambda-0"]
    # Three alphas for five variants and two more losses, one for "w/o L_KL" and the ten other weights, with every seed.
    assert done.n_trained == (3 * (5 + 2) + 1 + 10) * params.n_seeds
    assert {router.seed for router in done.get("mlp")} == set(params.seeds)
    kept = {(r.backbone, r.loss, r.contrast) for r in done.routers["transformer"]}
    assert kept == {("transformer", "kl", 0.5)}


def test_without_kl_alpha_changes_no_choice(done, setting):
    first, *others = (done.get("without-kl", alpha)[0] for alpha in SCENARIO_ALPHAS.values())
    for other in others:
        np.testing.assert_array_equal(
            first.predict_quality(setting.test_embeddings), other.predict_quality(setting.test_embeddings)
        )


def test_without_kl_beside_others_no_weight_decays(setting):
    """AdamW would decay weights that have a gradient of 0 in a stack, and leaves those without one alone."""
    shape = {"width": 8, "layers": 1, "heads": 2, "head_width": 4, "batch_size": 16, "n_groups": 2, "cost_scale": 1.0}
    routers = [RadialRouter(loss=loss, steps=steps, lr=0.1, **shape) for loss, steps in (("none", 4), ("kl", 4))]
    alone = RadialRouter(loss="none", steps=4, lr=0.1, **shape).fit(setting.train, setting.train_embeddings)
    fit_many(routers, setting.train, setting.train_embeddings)
    for name, weight in alone.network_.state_dict().items():
        np.testing.assert_allclose(routers[0].network_.state_dict()[name], weight, atol=1e-5, err_msg=name)


def test_no_contrastive_loss_to_take_away_is_refused_before_training(setting, monkeypatch):
    monkeypatch.setattr(experiment, "train_all", lambda *a: pytest.fail("training began"))
    with pytest.raises(UserError, match="contrast is 0, so there is no contrastive loss to take away"):
        ablations.train(AblationsParams.build({"contrast": 0.0}), setting)


# Pools


@pytest.fixture(scope="module")
def pools(params, setting, done):
    return ablations.train_pools(params, setting, done)


def test_pools_grow_from_the_cheapest_llm_to_the_dearest(pools, setting, done):
    assert pools.members == {1: ["small"], 2: ["small", "middle"], 3: ["small", "middle", "large"]}
    assert pools.key == "pools", "only the paper's pools are Table 4's"
    macro = pools.frame[pools.frame["dataset"] == "macro"].set_index(["method", "seed"])
    alone = [setting.test.quality[setting.test.tasks == task, 1].mean() for task in ("a", "b")]
    assert macro.loc[("pool-1", 0), "performance"] == pytest.approx(np.mean(alone))
    assert macro.loc[("pool-1", 0), "score"] == pytest.approx(np.mean(alone) - 0.02 * 0.1)
    whole = experiment.by_seed(done.frame, "score", ablations.BALANCE)["radialformer"]
    assert macro.loc["pool-3", "score"].tolist() == whole.tolist(), "the whole pool is not trained again"


def test_pool_leads_are_over_the_references_of_the_same_pool(pools):
    wide = experiment.by_seed(pools.frame, "score", ablations.BALANCE)
    leads = ablations.pool_leads(pools)
    assert set(leads) == {
        f"pools/score-difference/{n}/{m}" for n in (2, 3) for m in ("best-candidate", "dataset-oracle")
    }
    found = leads["pools/score-difference/2/best-candidate"].estimate
    assert found == pytest.approx(wide["pool-2"].mean() - wide["best-candidate-2"].dropna().item())


def test_large_pools_are_thinned_to_eleven(params, setting, monkeypatch):
    cost = np.arange(21.0)
    train = RoutingBenchmark(
        name="toy", prompts=["p", "q"], tasks=["a", "b"], models=[f"m{i}" for i in range(21)],
        quality=np.ones((2, 21)), cost=np.tile(cost, (2, 1)), cost_unit=EQ7_UNIT, origin="simulated",
    )  # fmt: skip
    big = Setting("toy", train, train, np.eye(2), np.eye(2))
    empty = ablations.Ablations({"radialformer": []}, pd.DataFrame(), 0)
    monkeypatch.setattr(experiment, "train_all", lambda routers, settings: dict(routers))
    monkeypatch.setattr(experiment, "evaluate", lambda routers, settings: pd.DataFrame())
    assert list(ablations.train_pools(params, big, empty).members) == list(range(1, 22, 2))


def test_routerbench_pools_are_the_papers():
    order = ablations.pool_order(Setting("routerbench", None, None, None, None))
    assert order[:2] == ["WizardLM/WizardLM-13B-V1.2", "meta/code-llama-instruct-34b-chat"]
    assert sorted(order) == sorted(lookups.LLMS.values())
    assert order[-1] == "gpt-4-1106-preview"


def test_lookup_costs_on_the_papers_data(real_data):
    pool = experiment.load_pool(AblationsParams.build({"dataset": "routerbench", "max_prompts": 3200}))
    train, test = experiment.split_rows(pool, 0)
    found = ablations.lookup_costs(Setting("routerbench", pool.subset(train), pool.subset(test), None, None))
    assert found == pytest.approx({"table-4/lookup-cost/2": 0.1787, "table-4/lookup-cost/3": 0.4681}, abs=5e-5)


def test_other_data_has_no_lookup_costs(setting):
    assert ablations.lookup_costs(setting) == {}


# What is recorded


def test_every_key_of_the_ledger_is_recorded_and_verdicts_follow(root, tmp_path, setting):
    alphas = list(SCENARIO_ALPHAS.values())
    done = ablations.Ablations({}, made(list(ablations.wanted()), alphas), 0)
    members = {n: [f"m{i}" for i in range(n)] for n in range(1, 12)}
    pools = ablations.Pools("table-4", members, made([f"pool-{n}" for n in members], [ablations.BALANCE]))
    times = pd.DataFrame({name: [1.0 + i, 1.5 + i] for i, name in enumerate(radialformer.BACKBONES)})
    queries = {key: [np.random.default_rng(i).normal(size=(40, 4)) for i in range(3)] for key in ("with", "without")}
    found = ablations.table_8(done) | ablations.table_3(done) | ablations.table_6(done) | ablations.differences(done)
    found |= ablations.table_4(pools) | ablations.separations(queries, setting)
    record = Record(tmp_path, page="ablations")
    record._source = {"dataset": "routerbench", "origin": "real", "complete": True, "absent": []}
    routerbench = Setting("routerbench", *([None] * 4))
    ablations.record_estimates(record, found, routerbench)
    ablations.record_estimates(record, ablations.time_estimates(times), routerbench, unit="ms")
    for size in (2, 3):
        record.value(f"table-4/lookup-cost/{size}", 1.0, unit="USD per 1,000 prompts")
    record._source |= {"dataset": "simulated", "origin": "simulated"}
    for name in ("radialformer", "transformer"):
        record.value(f"complexity/slope/{name}", 1.0)
    claims = ledger.load(root / "replications/radialrouter/ledger.yaml")
    read = {k for _, c in claims.claims for k in ([c.reads] if isinstance(c.reads, str) else c.reads)}
    read = {key for key in read if key.startswith("ablations/")}
    assert read <= {r["id"] for r in record.records}
    verdicts = ledger.of_pages(claims, record.records)
    assert len(verdicts) > 200
    assert not {v.verdict for v in verdicts} & {"not-run", "planned", "data-unavailable"}


def test_other_data_records_no_unit_that_is_not_its_own(setting, tmp_path):
    record = Record(tmp_path, page="ablations")
    record.use(setting.test)
    key = "table-8/balance/cost/mlp"
    ablations.record_estimates(record, {key: Estimate(1.0, 0.5, 1.5, 3, "")}, setting)
    assert record.records[0]["unit"] == ""
    ablations.record_estimates(record, {key: Estimate(1.0, 0.5, 1.5, 3, "")}, Setting("routerbench", *([None] * 4)))
    assert record.records[0]["unit"] == "USD per 1,000 prompts"


def test_differences_are_paired_over_seeds():
    frame = made(["loss-kl", "loss-ce", "loss-query-llm"], SCENARIO_ALPHAS.values(), seeds=(0, 1))
    frame = pd.concat([frame, made(ablations.VARIANTS, SCENARIO_ALPHAS.values(), seeds=(0, 1))])
    weights = [f"lambda-{ablations.lambda_key(w)}" for w in ablations.LAMBDAS]
    frame = pd.concat([frame, made(weights, [ablations.BALANCE], seeds=(0, 1))])
    found = ablations.differences(ablations.Ablations({}, frame, 0))
    # Scores of "loss-kl" at seeds 0 and 1: 0 and .1; of "loss-ce": 1 and 1.2; in Performance First.
    difference = found["table-3/performance-first/score-difference/kl/ce"]
    assert difference.estimate == pytest.approx(-1.05)
    half = 12.7062 * np.std([-1.0, -1.1], ddof=1) / np.sqrt(2)
    assert difference.high - difference.estimate == pytest.approx(half, rel=1e-4)
    assert "table-6/score-difference/lambda-0.5/lambda-0.5" not in found
    assert found["table-6/score-difference/lambda-0.5/lambda-0"].estimate > 0
    assert "table-2/balance/score-difference/with-kl/without-kl" in found


def test_time_is_the_median_and_its_difference_is_paired():
    radial = np.array([1.0, 2.0, 3.0, 50.0])
    times = pd.DataFrame({"radialformer": radial, "star-transformer": radial + 1, "transformer": 2 * radial})
    found = ablations.time_estimates(times)
    assert found["table-2/time/radialformer"].estimate == 2.5
    more = found["table-2/time-difference/star-transformer/radialformer"]
    assert (more.estimate, more.low, more.high) == pytest.approx((1, 1, 1))
    assert found["table-2/time-difference/transformer/radialformer"].estimate == 2.5


# Distances and counts


def test_separation_is_the_mean_silhouette_under_cosine_distance():
    rng = np.random.default_rng(0)
    points, groups = rng.normal(size=(7, 3)), np.array(list("aabbbcc"))
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    distance = 1 - unit @ unit.T
    each = []
    for i, group in enumerate(groups):
        own = [j for j in range(7) if groups[j] == group and j != i]
        others = [distance[i, groups == g].mean() for g in "abc" if g != group]
        a, b = distance[i, own].mean(), min(others)
        each.append((b - a) / max(a, b))
    assert ablations.separation(points, groups) == pytest.approx(np.mean(each))
    with pytest.raises(UserError, match="all test prompts are of 'a'; whether datasets are apart needs two"):
        ablations.separation(points, np.array(["a"] * 7))


def test_the_plane_is_the_same_for_the_same_seed():
    points = np.random.default_rng(0).normal(size=(25, 5))
    first = ablations.plane(points)
    assert first.shape == (25, 2)
    np.testing.assert_array_equal(first, ablations.plane(points))


def counted(backbone, n, layers, **shape):
    """Multiply-adds of the matrix products of a forward pass for one prompt, as torch counts them."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    network = radialformer.BACKBONES[backbone](n, layers=layers, **shape).train()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(torch.zeros(1, shape["width"]))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(("n", "shape"), [(5, (16, 4, 4)), (9, (32, 2, 4))])
def test_multiply_adds_are_those_torch_counts(n, shape):
    shape = dict(zip(("width", "heads", "head_width"), shape, strict=True))
    width, inner = shape["width"], shape["heads"] * shape["head_width"]
    third = {
        name: counted(name, n, 3, **shape) - counted(name, n, 2, **shape) for name in ("radialformer", "transformer")
    }
    assert third["transformer"] == ablations.multiply_adds("transformer", n, **shape)
    # torch counts no elementwise products (scores and sums of satellites, the relay's share in its own sum), but keys
    # and values of m, which are for all prompts of a batch.
    elementwise, of_models = 6 * n * inner + shape["heads"] * width, 2 * n * width * inner
    assert third["radialformer"] == ablations.multiply_adds("radialformer", n, **shape) - elementwise + of_models


def test_multiply_adds_by_hand():
    # n = 1, d = 2, one head of 2: satellites 4*1*2*2 + 6*1*2 + 2*2*2 = 36, relay 4*2*2 + 2*2*1*2 = 24.
    shape = {"width": 2, "heads": 1, "head_width": 2}
    assert ablations.multiply_adds("radialformer", 1, **shape) == 60
    # N = 2: 4*2*4 + 2*4*2 = 48, and 8*2*4 = 64 of the feed-forward part.
    assert ablations.multiply_adds("transformer", 1, feed_forward=False, **shape) == 48
    assert ablations.multiply_adds("transformer", 1, **shape) == 112
    with pytest.raises(UserError, match="backbone is 'mlp', expected 'radialformer' or 'transformer'"):
        ablations.multiply_adds("mlp", 1)


# What readers see


def test_tables_set_the_papers_cells_beside_ours():
    frame = made(list(ablations.wanted()), SCENARIO_ALPHAS.values())
    found = ablations.table_8(ablations.Ablations({}, frame, 0))
    clock = {f"table-2/time/{name}": Estimate(1.0, 0.9, 1.1, 5, "") for name in radialformer.BACKBONES}
    shown = ablations.shown_table_2(found | clock)
    assert shown.loc["w/o L_q-q", "BA, paper"] == "0.740"
    assert shown.loc["w/o L_KL", "ms a batch, paper"] == "–"
    assert shown.loc["w/o L_KL", "ms a batch, ours"] == "–"
    assert shown.loc["+ MLP", "ms a batch, ours"] == "<b>1.0</b><br><small>[0.9, 1.1]</small>"
    bold = shown["PF, ours"].str.contains("<b>")
    assert bold.tolist() == [False] * 5 + [True], "the last variant has the highest made-up score"
    eighth = ablations.shown_table_8(found)
    assert eighth.loc["w/o L_KL", "CF cost, paper"] == "5.308"
    assert not eighth["PF cost, ours"].str.contains("<b>").any(), "a low cost is not the best by itself"
    third = ablations.shown_table_3(ablations.table_3(ablations.Ablations({}, frame, 0)))
    assert third.loc["RadialRouter w/ L_ce", "CF, paper"] == "0.520"
    assert ablations.shown_table_5().loc["Yi-34B-Chat", "size"] == "34B"


def test_table_4_names_every_llm_that_joins():
    members = {1: ["a"], 3: ["a", "b/B", "c"]}
    frame = made(["pool-1", "pool-3", "best-candidate-3", "dataset-oracle-3"], [ablations.BALANCE])
    frame = frame[~frame["method"].str.contains("best|oracle") | (frame["seed"] == 0)]
    pools = ablations.Pools("pools", members, frame)
    shown = ablations.shown_table_4(pools, ablations.table_4(pools) | ablations.pool_leads(pools))
    assert shown.index.tolist() == ["1: a", "3: + B, c"]
    assert not any(column.endswith("paper") for column in shown)
    # Scores: pool-3 has 1, 1.2, 1.4; best-candidate-3 has 2 at seed 0.
    assert shown.loc["3: + B, c", "score − best single LLM's"].startswith("-0.8000<br>")
    assert shown.loc["1: a", "score − best single LLM's"] == "–"


@pytest.mark.usefixtures("closed_figures")
def test_lines_of_figures_hold_ours_and_the_papers():
    found = ablations.table_6(ablations.Ablations({}, made(list(ablations.wanted()), [ablations.BALANCE]), 0))
    panels = ablations.lambda_lines(found)
    ours, paper = panels["Score"]
    assert ours.index.tolist() == list(ablations.LAMBDAS)
    assert paper[0.5] == 0.757
    assert panels["Performance"][1][4.0] == 0.7589
    drawn = figures.compared_plot(panels, xlabel="λ")
    assert [axes.get_ylabel() for axes in drawn.axes] == ["Performance", "Score"]
    np.testing.assert_allclose(drawn.axes[1].lines[1].get_ydata(), paper)
    np.testing.assert_allclose(drawn.axes[1].lines[0].get_ydata(), ours["value"])


@pytest.mark.usefixtures("closed_figures")
def test_groups_keep_their_colour_in_every_panel():
    points = np.random.default_rng(0).normal(size=(6, 2))
    drawn = figures.group_plot({"one": points, "two": -points}, list("aabbcc"))
    one, two = ([line.get_color() for line in axes.lines] for axes in drawn.axes)
    assert one == two
    assert len(set(one)) == 3
    np.testing.assert_allclose(drawn.axes[1].lines[2].get_xdata(), -points[4:, 0])


@pytest.mark.usefixtures("closed_figures")
def test_log_axes_on_both_sides():
    n = np.array([8, 64])
    drawn = figures.line_plot({"mlp": (n, n), "transformer": (n, n**2)}, xlabel="n", ylabel="ms", logx=True, logy=True)
    assert (drawn.axes[0].get_xscale(), drawn.axes[0].get_yscale()) == ("log", "log")
