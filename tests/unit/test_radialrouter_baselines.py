"""RadialRouter's baselines: what they choose on problems with a known answer, what they pay, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from replications.radialrouter import baselines
from replications.radialrouter.baselines import (
    BASELINES,
    BestCandidate,
    CosineClassifier,
    DatasetOracle,
    FrugalGPT,
    GraphRouter,
    HybridLLM,
    OracleChoice,
    RandomChoice,
    Routed,
    RouterDC,
    outcome,
)
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError

TRAINED = ("cosine-classifier", "hybrid-llm", "frugal-gpt", "router-dc", "graph-router")
N = 360


def bench(quality, cost, tasks=None, unit=baselines.EQ7_UNIT, **kw):
    quality = np.asarray(quality, dtype=float)
    n, m = quality.shape
    cost = np.broadcast_to(np.asarray(cost, dtype=float), (n, m))
    tasks = ["t"] * n if tasks is None else tasks
    names = [f"llm-{letter}" for letter in "abcdefgh"[:m]]
    return RoutingBenchmark("toy", [f"p{i}" for i in range(n)], np.array(tasks), names, quality, cost, unit, **kw)


def toy(seed=0, aligned=True):
    """Three kinds of prompt; the LLM for each is right on nothing else, and a dear one is right on everything.

    `aligned`: the kinds are the source datasets; otherwise each dataset holds all kinds, so that only a router that
    reads the prompt can tell them apart.
    """
    rng = np.random.default_rng(seed)
    kind = np.arange(N) % 3
    quality = np.concatenate([np.eye(3)[kind], np.ones((N, 1))], axis=1)
    embeddings = np.eye(8)[kind] * 3 + rng.normal(scale=0.3, size=(N, 8))
    tasks = np.array(["x", "y", "z"])[kind if aligned else rng.permutation(kind)]
    return bench(quality, [0.1, 0.2, 0.3, 20.0], tasks), embeddings.astype(np.float32)


def routed(name, alpha=0.1, aligned=True, **kw):
    (train, z_train), (test, z_test) = toy(0, aligned), toy(1, aligned)
    if name == "oracle":
        train, z_train = test, z_test
    router = BASELINES[name](alpha=alpha, **kw).fit(train, z_train)
    return outcome(router.route(z_test, test), test, alpha).set_index("dataset").loc["macro"]


# --- choices on a problem whose answer is known ---------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in BASELINES if name not in ("random", "oracle")])
def test_every_baseline_beats_random_and_stays_under_the_oracle(name):
    found = routed(name)["score"]
    assert routed("random")["score"] < found <= routed("oracle")["score"] + 1e-12


@pytest.mark.parametrize("name", ["cosine-classifier", "router-dc", "graph-router"])
def test_routers_reach_the_lookup_where_the_dataset_decides(name):
    assert routed(name)["score"] >= routed("dataset-oracle")["score"] - 0.01


@pytest.mark.parametrize("name", ["cosine-classifier", "router-dc", "graph-router", "frugal-gpt"])
def test_routers_beat_the_lookup_where_the_prompt_decides(name):
    assert routed(name, aligned=False)["score"] > routed("dataset-oracle", aligned=False)["score"] + 0.3


def test_graph_router_trained_on_scores_reaches_the_oracle_too():
    assert routed("graph-router", target="score")["score"] >= routed("oracle")["score"] - 0.01


@pytest.mark.parametrize("name", TRAINED)
def test_same_seed_same_choices_bit_for_bit(name):
    train, z = toy()
    first, again, other = (BASELINES[name](alpha=0.1, seed=s, epochs=2).fit(train, z) for s in (0, 0, 1))
    losses = [getattr(router, "scorer_", router).loss_ for router in (first, again, other)]
    np.testing.assert_array_equal(losses[0], losses[1])
    assert (losses[0] != losses[2]).any()
    np.testing.assert_array_equal(first.route(z, train).choice, again.route(z, train).choice)


def test_best_candidate_averages_over_datasets_and_moves_with_alpha():
    # llm-a is right on the nine prompts of x, llm-b on the only one of y and on four of x.
    quality = [[1, i < 4] for i in range(9)] + [[0, 1]]
    train = bench(quality, [1.0, 2.0], ["x"] * 9 + ["y"])
    z = np.zeros((10, 2))
    assert BestCandidate(alpha=0.0).fit(train, z).best_ == 1  # .5 against (4/9 + 1) / 2
    assert BestCandidate(alpha=0.3).fit(train, z).best_ == 0  # .5 - .3 against .722 - .6


def test_dataset_oracle_is_the_lookup_of_the_training_means():
    quality = [[1, 0], [1, 1], [0, 1], [0, 1]]
    train = bench(quality, [1.0, 3.0], ["x", "x", "y", "y"])
    z = np.zeros((4, 2))
    router = DatasetOracle(alpha=0.1).fit(train, z)
    np.testing.assert_array_equal(router.choose(z[:3], tasks=np.array(["y", "x", "y"])), [1, 0, 1])
    dear = DatasetOracle(alpha=1.0).fit(train, z)
    np.testing.assert_array_equal(dear.lookup_, [0, 0])


def test_dataset_oracle_prices_the_calls_of_its_dataset():
    quality = [[1, 1], [1, 1]]
    train = bench(quality, [[1.0, 2.0], [2.0, 1.0]], ["x", "y"])
    z = np.zeros((2, 2))
    np.testing.assert_array_equal(DatasetOracle(alpha=0.1).fit(train, z).lookup_, [0, 1])
    np.testing.assert_array_equal(DatasetOracle(alpha=0.0).fit(train, z).lookup_, [0, 1])  # ties: cheapest there
    np.testing.assert_array_equal(DatasetOracle(alpha=0.1, per="llm").fit(train, z).lookup_, [0, 0])


def test_oracle_takes_the_cheapest_of_equals():
    test = bench([[1, 1, 0], [0, 0, 0], [0, 1, 1]], [3.0, 2.0, 5.0])
    z = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(OracleChoice(alpha=0.0).fit(test, z).choose(z), [1, 1, 1])
    with pytest.raises(UserError, match="other prompts"):
        OracleChoice(alpha=0.0).fit(test, z).choose(z + 1)


def test_best_llm_of_nothing_observed_is_none():
    score = np.array([[np.nan, np.nan], [np.nan, 0.2]])
    np.testing.assert_array_equal(baselines.best_llm(score, np.ones((2, 2))), [-1, 1])


def test_random_draws_per_query_and_per_llm():
    test, z = toy()
    query = RandomChoice(alpha=0.0).fit(test, z).choose(z)
    assert query.shape == (50, N)
    assert abs((query == 3).mean() - 0.25) < 0.02
    assert (query[:, 0] != query[:, 1]).any()
    constant = RandomChoice(alpha=0.0, each="llm", draws=400).fit(test, z).choose(z)
    assert (constant == constant[:, :1]).all()
    assert set(constant[:, 0]) == {0, 1, 2, 3}
    # Both have the mean of the LLMs as their expectation (RR-6).
    mean = test.quality.mean()
    assert outcome(query, test, 0.0)["performance"].iloc[-1] == pytest.approx(mean, abs=0.02)
    assert outcome(constant, test, 0.0)["performance"].iloc[-1] == pytest.approx(mean, abs=0.06)


# --- what routing earns and costs -----------------------------------------------------------------------------------


def test_outcome_by_hand():
    test = bench([[1, 0], [0, 1], [1, 1]], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], ["x", "x", "y"])
    found = outcome(np.array([0, 0, 1]), test, 0.1).set_index("dataset")
    assert list(found.index) == ["x", "y", "macro"]
    assert found["n"].tolist() == [2, 1, 3]
    np.testing.assert_allclose(found["performance"], [0.5, 1.0, 0.75])
    np.testing.assert_allclose(found["cost"], [2.0, 6.0, 4.0])
    np.testing.assert_allclose(found["score"], [0.3, 0.4, 0.35])


def test_outcome_leaves_out_what_was_not_observed_and_averages_draws():
    test = bench([[1, np.nan], [0, 1], [1, 1]], [1.0, 2.0])
    found = outcome(np.array([[1, 1, 1], [0, 0, 0]]), test, 0.0).iloc[-1]
    assert found["performance"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["cost"] == pytest.approx(1.5)


def test_outcomes_puts_the_methods_side_by_side():
    test, z = toy()
    fitted = {name: BASELINES[name](alpha=0.1).fit(test, z) for name in ("best-candidate", "oracle")}
    found = baselines.outcomes(fitted, test, z)
    assert found.groupby("method").size().tolist() == [4, 4]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ([0, 1], "expected the index"),
        ([0.0, 1.0, 1.0], "expected the index"),
        ([0, 1, 2], "from 0 to 2, expected 0 to 1"),
    ],
)
def test_choices_that_are_none(choice, message):
    with pytest.raises(UserError, match=message):
        outcome(np.array(choice), bench(np.ones((3, 2)), [1.0, 2.0]), 0.1)


def test_costs_come_to_dollars_per_thousand_queries():
    dollars = bench(np.ones((2, 2)), [0.001, 0.007], unit="USD per prompt")
    np.testing.assert_allclose(baselines.with_eq7_cost(dollars).mean_cost, [1.0, 7.0])
    assert baselines.with_eq7_cost(baselines.with_eq7_cost(dollars)).mean_cost[1] == pytest.approx(7.0)
    flops = bench(np.ones((2, 2)), [1e6, 4e6], unit="FLOPs per prompt")
    np.testing.assert_allclose(baselines.with_eq7_cost(flops).mean_cost, [7.185 / 4, 7.185])
    with pytest.raises(UserError, match="with_eq7_cost"):
        outcome(np.array([0, 0]), dollars, 0.1)


def test_mmlu_subjects_are_one_dataset_of_routerbench_and_of_no_other():
    subjects = bench(np.ones((3, 2)), [1.0, 2.0], ["mmlu-law", "mmlu-art", "grade-school-math"])
    assert baselines.datasets_of(subjects).tolist() == ["mmlu-law", "mmlu-art", "grade-school-math"]
    assert baselines.datasets_of(replace(subjects, name="routerbench")).tolist() == ["mmlu", "mmlu", "gsm8k"]


def test_scores_charge_the_call_or_the_llm():
    one = bench([[1, 1], [1, 1]], [[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(baselines.scores(one, 0.1), [[0.9, 0.8], [0.7, 0.6]])
    np.testing.assert_allclose(baselines.scores(one, 0.1, "llm"), [[0.8, 0.7], [0.8, 0.7]])


# --- thresholds, cascades and their bill ----------------------------------------------------------------------------


def test_best_threshold_against_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(200):
        probability, gain = rng.integers(0, 5, 8) / 4, rng.normal(size=8)
        best = max(gain[probability >= t].sum() for t in [*probability, np.inf])
        assert gain[probability >= baselines.best_threshold(probability, gain)].sum() == pytest.approx(best)
    assert baselines.best_threshold(np.array([0.2, 0.7]), np.zeros(2)) == 0.2
    assert baselines.best_threshold(np.array([0.2, 0.7]), -np.ones(2)) == np.inf


def test_hybrid_uses_the_cheapest_and_the_dearest_and_alpha_moves_the_threshold():
    train, z = toy()
    shares, scorer = [], None
    for alpha in (0.0, 0.02, 10.0):
        router = HybridLLM(alpha=alpha, scorer=scorer).fit(train, z)
        scorer = router.scorer_
        assert (router.small_, router.large_) == (0, 3)
        shares.append((router.choose(z) == 0).mean())
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(1 / 3)  # the small one where it is right, which is a third
    assert shares[-1] == 1.0
    named = HybridLLM(alpha=0.0, small="llm-b", large="llm-c").fit(train, z)
    assert set(named.choose(z)) <= {1, 2}


def test_hybrid_leaves_out_prompts_that_one_of_the_two_has_not_answered():
    train, z = toy()
    quality = train.quality.copy()
    quality[::2, 0] = np.nan
    router = HybridLLM(alpha=0.0).fit(replace(train, quality=quality), z)
    assert (router.choose(z) == 0).mean() == pytest.approx(1 / 3)


def test_cascade_value_against_brute_force():
    rng = np.random.default_rng(0)
    reward, weight = rng.normal(size=(7, 3)), rng.random(7)
    accept = [rng.random((7, 4)) < 0.5 for _ in range(2)]
    found = baselines.cascade_value(reward, accept, weight)
    for i, j in product(range(4), range(4)):
        stop = [0 if accept[0][n, i] else 1 if accept[1][n, j] else 2 for n in range(7)]
        assert found[i, j] == pytest.approx(sum(weight[n] * reward[n, stop[n]] for n in range(7)))
    assert baselines.cascade_value(reward[:, :1], [], weight) == pytest.approx(weight @ reward[:, 0])


def test_frugal_gpt_pays_for_every_model_it_calls():
    train, z = toy()
    # Its own price for every call, so that a bill shows which calls are on it.
    train = replace(train, cost=train.cost + np.random.default_rng(0).random(train.cost.shape) / 10)
    router = FrugalGPT(alpha=0.01, epochs=30).fit(train, z)
    router.cascade_, router.thresholds_ = [0, 1, 3], [0.6, 0.6]
    estimate = router.scorer_.predict_quality(z)
    found = router.route(z, train)
    for n in range(N):
        bill, calls = 0.0, 0
        for llm, threshold in zip([0, 1, 3], [0.6, 0.6, -np.inf], strict=True):
            bill, calls = bill + train.cost[n, llm], calls + 1
            if estimate[n, llm] >= threshold:
                break
        assert (found.choice[n], found.calls[n]) == (llm, calls)
        assert found.cost[n] == pytest.approx(bill)
        assert found.quality[n] == train.quality[n, llm]
    assert set(found.calls) == {1, 2, 3}
    answer_alone = Routed.one_call(found.choice, train).cost
    assert (found.cost[found.calls > 1] > answer_alone[found.calls > 1]).all()
    table = outcome(found, train, 0.01)
    assert table["calls"].iloc[-1] == pytest.approx(found.calls.mean())
    assert table["cost"].iloc[-1] == pytest.approx(found.cost.mean())


def test_frugal_gpts_cascade_is_the_best_on_its_training_prompts():
    train, z = toy()
    router = FrugalGPT(alpha=0.01).fit(train, z)
    assert router.cascade_ == sorted(router.cascade_, key=lambda llm: train.mean_cost[llm])
    found = outcome(router.route(z, train), train, 0.01)["score"].iloc[-1]
    assert found == pytest.approx(router.training_score_)
    assert found >= outcome(BestCandidate(alpha=0.01).fit(train, z).route(z, train), train, 0.01)["score"].iloc[-1]


def test_frugal_gpt_calls_one_llm_where_a_second_call_cannot_pay():
    train, z = toy()
    free = FrugalGPT(alpha=0.0).fit(train, z)
    again = FrugalGPT(alpha=5.0, scorer=free.scorer_).fit(train, z)
    assert again.scorer_ is free.scorer_
    assert again.cascade_ == [0]
    assert again.route(z, train).cost == pytest.approx(0.1)
    assert outcome(free.route(z, train), train, 0.0)["performance"].iloc[-1] == 1.0


# --- losses by hand -------------------------------------------------------------------------------------------------


def test_contrast_sets_by_hand():
    score = np.array([[1.0, 0.9, 0.0, -0.1], [1.0, 1.0, 1.0, 0.3], [np.nan, 0.0, 1.0, np.nan]])
    ranked, usable = baselines.contrast_sets(score, np.array([[4.0, 3, 2, 1]] * 3), 2)
    np.testing.assert_array_equal(ranked[:2], [[0, 1, 3, 2], [2, 1, 3, 0]])
    # 1.0 is no negative; llm-b of the third prompt scores 0 and is no positive.
    np.testing.assert_array_equal(usable[:2], [[True] * 4, [True, True, True, False]])
    assert ranked[2, 0] == 2
    assert ranked[2, 2] == 1
    np.testing.assert_array_equal(usable[2], [True, False, True, False])


def test_sample_llm_loss_by_hand():
    import torch

    # One prompt, cosines of four LLMs; llm 0 and 1 positive, 3 negative, 2 not usable.
    similarity = torch.tensor([[0.5, 0.2, 0.9, -0.5]])
    ranked, usable = torch.tensor([[0, 1, 3, 2]]), torch.tensor([[True, True, True, False]])
    found = baselines.sample_llm_loss(similarity, ranked, usable, 2)
    by_hand = -np.log(np.exp(0.5) / (np.exp(0.5) + np.exp(-0.5))) - np.log(np.exp(0.2) / (np.exp(0.2) + np.exp(-0.5)))
    assert float(found) == pytest.approx(by_hand)
    nothing = baselines.sample_llm_loss(similarity, ranked, torch.zeros_like(usable), 2)
    assert float(nothing) == 0.0


def test_router_dcs_second_loss_pulls_groups_together():
    import torch

    train, z = toy(aligned=False)
    groups = np.arange(N) % 3

    def spread(contrast):
        router = RouterDC(alpha=0.1, groups=groups, contrast=contrast).fit(train, z)
        np.testing.assert_array_equal(router.groups_, groups)
        hidden = baselines._cosines(*router.network_.parameters(), torch.tensor(z))[1]
        within = hidden @ hidden.T
        same = torch.tensor(groups[:, None] == groups[None, :])
        return float((within[same].mean() - within[~same].mean()).detach())

    assert spread(3.0) > spread(0.0) + 0.1


@pytest.mark.parametrize("kind", [CosineClassifier, RouterDC])
def test_side_by_side_is_the_same_as_one_by_one(kind):
    train, z = toy(aligned=False)
    settings = [(alpha, seed) for alpha in (0.0, 5.0) for seed in (0, 3)]
    together = baselines.fit_side_by_side([kind(alpha=a, seed=s, epochs=2) for a, s in settings], train, z)
    for router, (alpha, seed) in zip(together, settings, strict=True):
        alone = kind(alpha=alpha, seed=seed, epochs=2).fit(train, z)
        assert router.loss_.shape == (2,)
        np.testing.assert_allclose(router.loss_, alone.loss_, rtol=1e-4)
        for ours, theirs in zip(router.network_.parameters(), alone.network_.parameters(), strict=True):
            np.testing.assert_allclose(ours.detach(), theirs.detach(), atol=1e-4)
    assert not np.allclose(together[0].loss_, together[1].loss_), "seeds differ"
    assert not np.allclose(together[0].loss_, together[2].loss_), "alphas differ"


def test_side_by_side_takes_routers_that_differ_in_alpha_and_seed_alone():
    train, z = toy()
    with pytest.raises(UserError, match="differ in width, expected in alpha and seed alone"):
        baselines.fit_side_by_side([RouterDC(alpha=0.1), RouterDC(alpha=0.1, width=8)], train, z)
    with pytest.raises(UserError, match="differ in class,"):
        baselines.fit_side_by_side([CosineClassifier(alpha=0.1, temperature=1.0), RouterDC(alpha=0.1)], train, z)


# --- what each router may see ---------------------------------------------------------------------------------------


def test_graph_router_hides_the_edges_it_predicts(monkeypatch):
    asked = []
    plain = baselines.Rows.__getitem__

    def spy(self, rows):
        asked.append(rows[0].tolist())
        return plain(self, rows)

    monkeypatch.setattr(baselines.Rows, "__getitem__", spy)
    train, z = toy()
    GraphRouter(alpha=0.1, epochs=2, batch_size=N, context=50).fit(train, z)
    contexts, batches = ([rows for rows in asked if (len(rows) == 50) is of] for of in (True, False))
    assert contexts
    # In each step every table is asked for the context first, then for the batch.
    for context, batch in zip(contexts, batches, strict=True):
        assert len(set(context)) == 50
        assert set(context).isdisjoint(batch)


@pytest.mark.parametrize("gaps", [False, True])
def test_graph_routers_learn_side_by_side_what_they_learn_alone(gaps):
    train, z = toy()
    if gaps:
        quality = train.quality.copy()
        quality[::3, 1] = np.nan
        train = replace(train, quality=quality)
    alone = [GraphRouter(alpha=a, seed=s, epochs=3, context=50).fit(train, z) for a, s in ((0.0, 0), (0.1, 1))]
    together = baselines.fit_side_by_side(
        [GraphRouter(alpha=a, seed=s, epochs=3, context=50) for a, s in ((0.0, 0), (0.1, 1))], train, z
    )
    for one, other in zip(alone, together, strict=True):
        assert one.loss_[-1] < one.loss_[0]
        np.testing.assert_allclose(one.loss_, other.loss_, rtol=1e-4)


def test_graph_router_is_told_the_dataset():
    # The embedding says nothing; the dataset says everything.
    tasks = np.array(["x", "y"])[np.arange(200) % 2]
    train = bench(np.eye(2)[np.arange(200) % 2], [1.0, 1.1], tasks)
    z = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    router = GraphRouter(alpha=0.0).fit(train, z)
    np.testing.assert_array_equal(router.choose(z, tasks=tasks), np.arange(200) % 2)
    with pytest.raises(UserError, match="tasks is None"):
        router.choose(z)
    with pytest.raises(UserError, match="no training prompt of dataset 'q'"):
        router.choose(z[:1], tasks=np.array(["q"]))


@pytest.mark.parametrize("name", TRAINED)
def test_gaps_in_the_labels_are_left_out(name):
    train, z = toy()
    quality = train.quality.copy()
    quality[np.random.default_rng(0).random(quality.shape) < 0.1] = np.nan
    router = BASELINES[name](alpha=0.1).fit(replace(train, quality=quality), z)
    found = outcome(router.route(z, train), train, 0.1)["score"].iloc[-1]
    assert found > outcome(RandomChoice(alpha=0.1).fit(train, z).choose(z), train, 0.1)["score"].iloc[-1]
    gone = quality.copy()
    gone[:, 1] = np.nan
    with pytest.raises(UserError, match="'llm-b' has no observed quality"):
        BASELINES[name](alpha=0.1).fit(replace(train, quality=gone), z)


def test_cosine_classifiers_label_is_the_cheapest_of_equals():
    # Both LLMs are always right: the class to learn is the cheaper one, and nothing else is ever chosen.
    train = bench(np.ones((60, 2)), [2.0, 1.0])
    z = 2 + np.random.default_rng(0).normal(size=(60, 4))
    assert set(CosineClassifier(alpha=0.0, epochs=60).fit(train, z).choose(z)) == {1}


# --- refusals, before any training ----------------------------------------------------------------------------------


@pytest.fixture
def no_training(monkeypatch):
    def fail(*args, **kw):
        raise AssertionError("training started")

    monkeypatch.setattr(baselines, "train_with_adam", fail)
    monkeypatch.setattr(baselines.MLP, "fit", fail)
    monkeypatch.setattr(baselines, "query_groups", fail)


@pytest.mark.parametrize("name", BASELINES)
def test_impossible_problems_are_refused(name, no_training):
    train, z = toy()
    for alpha in (-0.1, np.nan, np.inf):
        with pytest.raises(UserError, match="alpha is"):
            BASELINES[name](alpha=alpha).fit(train, z)
    with pytest.raises(UserError, match="the pool holds 'llm-a' alone"):
        BASELINES[name](alpha=0.1).fit(train.subset(models=["llm-a"]), z)
    with pytest.raises(UserError, match="'llm-b' has no price"):
        BASELINES[name](alpha=0.1).fit(train.with_cost([1.0, np.nan, 1.0, 1.0], baselines.EQ7_UNIT), z)
    with pytest.raises(UserError, match="per is 'prompt'"):
        BASELINES[name](alpha=0.1, per="prompt").fit(train, z)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("router-dc", {"n_groups": N + 1}, "n_groups is 361, but there are only 360 training prompts"),
        ("router-dc", {"groups": np.zeros(3, dtype=int)}, "groups are for 3 prompts"),
        ("router-dc", {"top_k": 0}, "top_k is 0"),
        ("router-dc", {"contrast": -1.0}, "contrast is -1.0"),
        ("cosine-classifier", {"temperature": 0.0}, "temperature is 0.0"),
        ("cosine-classifier", {"lr": 0.0}, "lr is 0.0"),
        ("hybrid-llm", {"epochs": 0}, "epochs is 0"),
        ("hybrid-llm", {"small": "llm-d"}, "small and large are both 'llm-d'"),
        ("hybrid-llm", {"small": "llm-x"}, "no model 'llm-x'"),
        ("frugal-gpt", {"max_calls": 4}, "max_calls is 4"),
        ("frugal-gpt", {"levels": 0}, "levels is 0"),
        ("graph-router", {"layers": 0}, "layers is 0"),
        ("graph-router", {"target": "cost"}, "target is 'cost'"),
        ("random", {"draws": 0}, "draws is 0"),
        ("random", {"each": "prompt"}, "each is 'prompt'"),
    ],
)
def test_parameters_out_of_range(name, parameters, message, no_training):
    with pytest.raises(UserError, match=message):
        BASELINES[name](alpha=0.1, **parameters).fit(*toy())


def test_another_pool_or_width_is_refused():
    train, z = toy()
    router = BestCandidate(alpha=0.1).fit(train, z)
    with pytest.raises(UserError, match="was fitted on"):
        router.route(z, train.subset(models=train.models[::-1]))
    with pytest.raises(UserError, match="dimensions"):
        router.choose(z[:, :3])
    assert repr(router) == "BestCandidate(alpha=0.1, per='call', seed=0)"
