"""The CSCR router: routing by Eq. (9), experts that come and go, known truth, and clear errors."""

import dataclasses

import numpy as np
import pytest
import torch

from replications.cscr.contrastive import CSCR, positive_experts, unit_descriptors
from replications.cscr.cost_spectrum import cost_bands
from replications.cscr.recovery import recover_specialists, recovery_table, specialists
from replications.cscr.sign import cost_by_gamma, sign_table, simulate_gamma_sign, slopes
from routebook.deferral import deferral_curve
from routebook.errors import UserError
from routebook.routers import Router, dense, fit_together, quality_for, train_with_adam

# Narrower layers can be dead for a prompt: all units 0, all cosines 0.
SHORT = {"min_steps": 0, "epochs": 3, "batch_size": 100, "hidden": 24}


@pytest.fixture(scope="module")
def pool():
    return specialists(400, 8, 4, masters=2, dim=6, descriptor_dim=5, seed=3)


@pytest.fixture(scope="module")
def fitted(pool):
    benchmark, truth = pool
    return CSCR(descriptors=truth.descriptors, n_bands=3, k=3, **SHORT).fit(benchmark, benchmark.embeddings)


def fit(pool, **changes):
    benchmark, truth = pool
    settings = {"descriptors": truth.descriptors, "n_bands": 3, "k": 3, **SHORT, **changes}
    return CSCR(**settings).fit(benchmark, benchmark.embeddings)


def by_hand(router, embeddings):
    """Cosines of every prompt and LLM from the weights alone, [N, M]."""
    first, second = (
        layer.weight.numpy(force=True).astype(float) for layer in router.network_ if hasattr(layer, "weight")
    )
    q = np.maximum(embeddings @ first.T, 0) @ second.T
    vectors = np.stack([router.descriptors[name] / np.linalg.norm(router.descriptors[name]) for name in router.models_])
    return q / np.linalg.norm(q, axis=1, keepdims=True) @ vectors.T


def test_it_is_a_router(fitted):
    assert isinstance(fitted, Router)


def test_the_estimate_is_the_cosine_of_the_top_k_and_nan_elsewhere(pool, fitted):
    x = pool[0].embeddings
    estimate, cosine = fitted.predict_quality(x), by_hand(fitted, x)
    np.testing.assert_allclose(fitted.similarity(x), cosine, atol=1e-5)
    known = ~np.isnan(estimate)
    assert (known.sum(axis=1) == 3).all()
    np.testing.assert_allclose(estimate[known], cosine[known], atol=1e-5)
    worst_kept = np.where(known, cosine, np.inf).min(axis=1)
    best_left = np.where(known, -np.inf, cosine).max(axis=1)
    assert (worst_kept >= best_left - 1e-5).all()


def test_eq_9_is_the_house_rule_on_the_estimate(pool, fitted):
    x, cost = pool[0].embeddings, pool[0].mean_cost
    estimate = fitted.predict_quality(x)
    for lam in (0.0, 1e-3, 1e-2, 1.0):
        house = np.nanargmax(estimate - lam * cost, axis=1)
        np.testing.assert_array_equal(fitted.choose(x, cost, lam), house)
        curve = deferral_curve(estimate, pool[0].quality, cost)
        assert curve.at_lambda(lam)[0] == pytest.approx(cost[house].mean())


def test_the_curve_does_not_rise_in_cost_and_stays_below_the_oracle(pool, fitted):
    benchmark = pool[0]
    curve = deferral_curve(fitted.predict_quality(benchmark.embeddings), benchmark.quality, benchmark.mean_cost)
    assert (np.diff(curve.cost) <= 1e-12).all()
    assert curve.peak <= benchmark.quality.max(axis=1).mean()


def test_same_seed_same_numbers_bit_for_bit_and_another_seed_others(pool, fitted):
    x = pool[0].embeddings
    np.testing.assert_array_equal(fit(pool).predict_quality(x), fitted.predict_quality(x))
    assert not np.array_equal(fit(pool, seed=1).similarity(x), fitted.similarity(x))


def test_training_lowers_the_loss(pool):
    losses = fit(pool, min_steps=200).loss_
    assert losses[-1] < 0.8 * losses[0]


def test_steps_are_counted_in_whole_epochs(pool, fitted):
    correct = int(pool[0].quality.any(axis=1).sum())
    per_epoch = -(-correct // 100)
    assert fitted.n_trained_prompts_ == correct
    assert fitted.n_steps_ == 3 * per_epoch
    longer = fit(pool, min_steps=4 * per_epoch - 1)
    assert (longer.n_steps_, len(longer.loss_)) == (4 * per_epoch, 4)


def test_the_hidden_layer_is_as_wide_as_asked(pool, fitted):
    # 6 inputs, 5 outputs, no biases.
    assert fitted.n_parameters_ == 6 * 24 + 24 * 5
    assert fit(pool, hidden=None).n_parameters_ == 6 * 6 + 6 * 5
    assert fit(pool, hidden=None, width_factor=4).n_parameters_ == 6 * 24 + 24 * 5
    assert fit(pool, hidden=7, bias=True).n_parameters_ == 6 * 7 + 7 + 7 * 5 + 5


def test_vanilla_is_one_band_without_penalty(pool):
    x = pool[0].embeddings
    vanilla, special = fit(pool, loss="vanilla"), fit(pool, n_bands=1, gamma=0.0)
    np.testing.assert_array_equal(vanilla.similarity(x), special.similarity(x))
    assert not np.array_equal(vanilla.similarity(x), fit(pool).similarity(x))


def test_weights_decay_apart_from_the_gradient():
    generator = torch.Generator().manual_seed(0)
    layer = dense(3, 2, generator)
    before = layer.weight.detach().clone()
    options = {"epochs": 2, "lr": 0.1, "batch_size": 5, "generator": generator, "weight_decay": 0.5}
    train_with_adam(layer, lambda rows: 0.0 * layer.weight.sum(), 10, **options)
    # Four steps without a gradient: AdamW multiplies by 1 - lr * weight_decay in each.
    torch.testing.assert_close(layer.weight.detach(), before * (1 - 0.1 * 0.5) ** 4)


@pytest.mark.parametrize("change", [{"gamma_sign": "other"}, {"averaging": "band"}, {"alpha": 0.0}, {"tau_min": 0.2}])
def test_every_choice_of_the_loss_reaches_the_training(pool, fitted, change):
    x = pool[0].embeddings
    assert not np.array_equal(fit(pool, **change).similarity(x), fitted.similarity(x))


def test_models_that_come_and_go_move_no_other_column(pool):
    benchmark, truth = pool
    x, names = benchmark.embeddings, benchmark.models
    part = benchmark.subset(models=names[:6])
    router = CSCR(descriptors=truth.descriptors, n_bands=3, k=3, **SHORT).fit(part, x)
    before, weights = router.similarity(x), router.loss_.copy()
    router.add_models(benchmark.subset(models=names[6:]))
    assert router.models_ == names
    after = router.similarity(x)
    np.testing.assert_allclose(after[:, :6], before, atol=1e-12)
    np.testing.assert_allclose(after, by_hand(router, x), atol=1e-5)
    router.remove_models(names[:2])
    assert router.models_ == names[2:]
    np.testing.assert_allclose(router.similarity(x), after[:, 2:], atol=1e-12)
    np.testing.assert_array_equal(router.loss_, weights)
    assert router.trained_on_ == names[:6]


def test_a_name_already_in_the_pool_gets_the_new_descriptor(pool):
    x, router = pool[0].embeddings, fit(pool)
    other = router.descriptors["expert 02"]
    router.add_experts({"expert 01": 3 * other, "newcomer": other})
    assert router.models_ == [*pool[0].models, "newcomer"]
    similarity = router.similarity(x)
    for place in (0, 8):
        np.testing.assert_allclose(similarity[:, place], similarity[:, 1], atol=1e-6)


def test_a_router_over_other_models_leaves_the_first_as_it_is(pool, fitted):
    x = pool[0].embeddings
    names = ["expert 05", "expert 01", "expert 07"]
    before = fitted.similarity(x)
    other = fitted.with_models(names)
    assert other.models_ == names
    np.testing.assert_allclose(other.similarity(x), before[:, [4, 0, 6]], atol=1e-12)
    assert not np.isnan(quality_for(other, x, names)).any()
    assert fitted.models_ == pool[0].models
    with pytest.raises(UserError, match="k is 3, but there are 2 experts"):
        fitted.with_models(names[:2]).predict_quality(x)


def test_which_experts_count_as_correct(pool):
    quality = np.array([[1.0, 0.5, 0.0], [np.nan, 0.9, 0.85], [0.2, 0.11, 0.0]])
    binary = dataclasses.replace(pool[0].subset([0, 1, 2], pool[0].models[:3]), quality=quality)
    soft = dataclasses.replace(binary, quality_kind="soft")
    full, half = [[1, 0, 0], [0, 0, 0], [0, 0, 0]], [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
    near = [[1, 0, 0], [0, 1, 1], [1, 1, 0]]
    assert positive_experts(binary).tolist() == np.array(full, bool).tolist()
    assert positive_experts(binary, threshold=0.5).tolist() == np.array(half, bool).tolist()
    assert positive_experts(soft).tolist() == np.array(near, bool).tolist()
    assert positive_experts(binary, "margin").tolist() == np.array(near, bool).tolist()
    assert positive_experts(soft, margin=0.0).sum() == 3


def test_what_cannot_be_fitted_is_refused(pool):
    benchmark, truth = pool
    x, first = benchmark.embeddings, benchmark.models[0]
    unpriced = benchmark.cost.copy()
    unpriced[:, 0] = np.nan
    short = truth.descriptors | {first: np.ones(4)}
    cases = [
        ({"k": 9}, benchmark, "k is 9, but there are only 8 LLMs in the pool"),
        ({"n_bands": 9}, benchmark, "n_bands is 9, but there are only 8 experts"),
        ({"loss": "hinge"}, benchmark, "loss is 'hinge'"),
        ({"positives": "best"}, benchmark, "positives is 'best'"),
        ({"lr": 0}, benchmark, "lr is 0"),
        ({"min_steps": -1}, benchmark, "min_steps is -1"),
        ({"hidden": 0}, benchmark, "hidden is 0"),
        ({"threshold": 2.0}, benchmark, "counts as correct on any of the 400"),
        ({"descriptors": short}, benchmark, "'expert 01' has 4 entries, 'expert 02' has 5"),
        ({"descriptors": {}}, benchmark, "no descriptor of 'expert 01'"),
        ({"descriptors": truth.descriptors | {first: np.zeros(5)}}, benchmark, "'expert 01' has length 0"),
        ({}, benchmark.with_cost(unpriced, "dollars"), "cost of expert 'expert 01' is nan"),
    ]
    for changes, data, message in cases:
        settings = {"descriptors": truth.descriptors, "n_bands": 3, "k": 3, **SHORT, **changes}
        with pytest.raises(UserError, match=message):
            CSCR(**settings).fit(data, x)


def test_what_cannot_be_added_or_removed_is_refused(pool, fitted):
    stranger = dataclasses.replace(pool[0], models=["expert 1x", *pool[0].models[1:]])
    cases = [
        (lambda: fitted.add_models(stranger), "no descriptor of 'expert 1x'; did you mean 'expert"),
        (lambda: fitted.add_experts({"new": np.ones(4)}), "'new' has 4 entries, those of the pool 5"),
        (lambda: fitted.remove_models(["expert 9"]), "holds no 'expert 9'"),
        (lambda: fitted.remove_models(pool[0].models), "would leave no pool"),
        (lambda: CSCR(descriptors={}).remove_models(["a"]), "not fitted"),
        (lambda: CSCR(descriptors={}).predict_quality(np.ones((1, 2))), "not fitted"),
        (lambda: unit_descriptors({"a": np.ones((2, 2))}, ["a"]), "shape \\(2, 2\\)"),
    ]
    for call, message in cases:
        with pytest.raises(UserError, match=message):
            call()
    assert fitted.models_ == pool[0].models


def test_its_description_leaves_the_descriptors_out(fitted):
    assert repr(fitted).startswith("CSCR(descriptors=<8 LLMs>, loss='cost-spectrum', n_bands=3")


# --- known truth ------------------------------------------------------------------------------------------------------


def test_specialists_are_right_as_often_as_they_should_be():
    benchmark, truth = specialists(4000, 10, 5, masters=4, right=0.9, wrong=0.2, dim=5, descriptor_dim=5, seed=1)
    assert (truth.masters.sum(axis=1) == 4).all()
    mastered = truth.masters[truth.cluster]
    for expected, where in ((0.9, mastered), (0.2, ~mastered)):
        share, n = benchmark.quality[where].mean(), where.sum()
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / n)
    best, cost = truth.cheapest_master(benchmark.mean_cost), benchmark.mean_cost
    for cluster in range(5):
        own = {best[i] for i in np.flatnonzero(truth.cluster == cluster)}
        assert own == {min(np.flatnonzero(truth.masters[cluster]), key=lambda m: cost[m])}


@pytest.mark.parametrize(("changes", "message"), [({"masters": 13}, "masters is 13"), ({"dim": 3}, "n_clusters is 6")])
def test_impossible_pools_of_specialists_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        specialists(**changes)


def test_cscr_finds_the_cheapest_master_of_most_prompts():
    found = recover_specialists([0], {"cscr": {"k": 2, "min_steps": 150}}, n_prompts=1200, n_experts=8, masters=2)
    row = found.iloc[0]
    assert row.agreement > 5 * row.chance
    assert row.mastered > 0.75
    assert row.quality <= row.rule_quality + 0.05
    assert "cscr" in recovery_table(found).index


def test_the_two_signs_of_the_penalty_move_the_chosen_cost_apart():
    small = {"n_prompts": 600, "n_experts": 12, "masters": 4}
    found = simulate_gamma_sign((0.0, 0.5), seeds=(0, 1), pool=small, min_steps=60)
    assert found.groupby("sign").size().to_dict() == {"printed": 4, "other": 4}
    neutral = found[found.gamma == 0].pivot(index="seed", columns="sign", values="chosen_cost")
    np.testing.assert_array_equal(neutral["printed"], neutral["other"])
    slope = slopes(found)
    # Two gammas: the least-squares slope is the difference quotient.
    printed = found[found.sign == "printed"].pivot(index="seed", columns="gamma", values="chosen_cost")
    assert slope["printed"].estimate == pytest.approx(((printed[0.5] - printed[0.0]) / 0.5).mean())
    assert slope["printed"].estimate > 0.1
    assert slope["other"].estimate < slope["printed"].estimate - 0.1
    assert sign_table(found).shape == (2, 2)


def test_routers_trained_side_by_side_are_those_trained_alone(pool):
    benchmark, truth = pool
    settings = [{"seed": 0}, {"seed": 1, "gamma": 0.5}, {"gamma_sign": "other"}, {"loss": "vanilla"}, {"hidden": 12}]
    options = {"descriptors": truth.descriptors, "n_bands": 3, "k": 3, **SHORT}
    together = [CSCR(**(options | changes)) for changes in settings]
    fit_together(together, [(benchmark, benchmark.embeddings)] * len(together))
    for router, changes in zip(together, settings, strict=True):
        alone = CSCR(**(options | changes)).fit(benchmark, benchmark.embeddings)
        assert router.n_steps_ == alone.n_steps_
        np.testing.assert_allclose(router.loss_, alone.loss_, rtol=1e-4)
        np.testing.assert_allclose(
            router.similarity(benchmark.embeddings), alone.similarity(benchmark.embeddings), atol=1e-3
        )


def test_the_chosen_cost_is_normalised_over_the_pool(pool):
    benchmark, truth = pool
    settings = {"descriptors": truth.descriptors, "n_bands": 3, "k": 3, **SHORT}
    x = benchmark.embeddings
    row = cost_by_gamma(benchmark, benchmark, x, x, [0.2], ["printed"], **settings).iloc[0]
    chosen = fit(pool).similarity(x).argmax(axis=1)
    assert row.chosen_cost == pytest.approx(cost_bands(benchmark.mean_cost, 1).cost[chosen].mean())
    assert row.chosen_quality == pytest.approx(benchmark.quality[np.arange(len(x)), chosen].mean())
    assert 0 <= row.cost_at_peak <= 1
