"""The cost-spectrum loss against a naive loop, hand-worked values and autograd."""

import math

import numpy as np
import pytest
import torch

from replications.cscr.cost_spectrum import (
    TAU_FLOOR,
    cost_bands,
    cost_spectrum_loss,
    gradient_eq10,
    info_nce,
    loss_terms,
    spectrum_loss,
    spectrum_loss_and_slope,
)
from routebook.errors import UserError


def batch(seed=0, n=9, m=11, dim=5, share=0.4):
    """Queries, experts and correct experts; the first query has none, the second all."""
    rng = np.random.default_rng(seed)
    q, experts = rng.standard_normal((n, dim)), rng.standard_normal((m, dim))
    q, experts = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (q, experts))
    positives = rng.random((n, m)) < share
    positives[0], positives[1] = False, True
    return torch.tensor(q), torch.tensor(experts), torch.tensor(positives), rng.lognormal(size=m)


def naive(q, experts, positives, bands, gamma, sign, alpha, tau_min, averaging="query", divide=True):
    """Eq. (8), one query, band and expert at a time."""
    per_query, per_band = [], {k: [] for k in range(bands.n_bands)}
    for i in range(len(q)):
        losses = []
        for k in range(bands.n_bands):
            members = [m for m in range(len(experts)) if bands.band[m] == k]
            tau = tau_min + alpha * sum(bands.cost[m] for m in members) / len(members)
            correct = [m for m in members if positives[i, m]]
            if not correct:
                continue
            s = [float(q[i] @ experts[m]) for m in range(len(experts))]
            penalty = [sign * gamma * bands.cost[m] * (1 / tau if divide else 1) for m in range(len(experts))]
            top = sum(math.exp(s[m] / tau) for m in correct)
            below = sum(math.exp(s[m] / tau + penalty[m]) for m in range(len(experts)))
            losses.append(-math.log(top / below))
            per_band[k].append(losses[-1])
        if losses:
            per_query.append(sum(losses) / len(losses))
    if averaging == "band":
        per_query = [sum(losses) / len(losses) for losses in per_band.values() if losses]
    return sum(per_query) / len(per_query)


def test_bands_cut_at_percentiles_include_their_lower_edge():
    # The 0, .2, .4, .6, .8, 1 quantiles of 0..10 are 0, 2, 4, 6, 8, 10.
    bands = cost_bands(np.arange(11.0), 5)
    assert bands.band.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4]
    assert bands.edges == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert bands.mean_cost == pytest.approx([0.05, 0.25, 0.45, 0.65, 0.9])
    assert bands.temperatures(0.25, 0.05) == pytest.approx([0.0625, 0.1125, 0.1625, 0.2125, 0.275])
    assert bands.notes == ()


def test_costs_are_normalised_between_the_cheapest_and_the_dearest():
    bands = cost_bands([30.0, 10.0, 20.0, 50.0], 2)
    assert bands.cost == pytest.approx([0.5, 0.0, 0.25, 1.0])
    assert bands.band.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("n", [1, 2, 7, 11, 21])
def test_as_many_bands_as_experts_hold_one_each(n):
    bands = cost_bands(np.random.default_rng(n).lognormal(size=n), n)
    assert sorted(bands.band) == list(range(n))


def test_equal_costs_leave_bands_empty_which_are_dropped_with_a_note():
    bands = cost_bands([1, 1, 1, 2, 3], 4)
    assert bands.n_bands == 2
    assert bands.band.tolist() == [0, 0, 0, 1, 1]
    assert "2 of 4" in bands.notes[0]
    everyone = cost_bands([3, 3, 3], 3)
    assert (everyone.n_bands, everyone.cost.tolist()) == (1, [0, 0, 0])


def test_a_temperature_of_zero_is_lifted_to_the_floor():
    bands = cost_bands([1, 2, 3], 3)
    assert bands.temperatures(0.25, 0.0) == pytest.approx([TAU_FLOOR, 0.125, 0.25])


@pytest.mark.parametrize(
    ("costs", "n_bands", "message"),
    [
        ([1, 2], 3, "n_bands is 3, but there are only 2 experts"),
        ([1, np.nan], 1, "cost of expert 'b' is nan"),
        ([1, -1], 1, "cost of expert 'b' is -1"),
        ([1, np.inf], 1, "cost of expert 'b' is inf"),
        ([1, 2], 0, "n_bands is 0"),
        ([], 1, "shape"),
    ],
)
def test_impossible_bands_are_refused(costs, n_bands, message):
    with pytest.raises(UserError, match=message):
        cost_bands(costs, n_bands, ["a", "b"])


@pytest.mark.parametrize(("option", "value"), [("alpha", -1), ("tau_min", -0.1), ("gamma", -0.2), ("gamma", np.nan)])
def test_negative_weights_are_refused(option, value):
    q, experts, positives, cost = batch()
    with pytest.raises(UserError, match=option):
        cost_spectrum_loss(q, experts, positives, cost_bands(cost), **{option: value})


@pytest.mark.parametrize(("option", "value"), [("gamma_sign", "plus"), ("averaging", "all")])
def test_unknown_options_are_refused(option, value):
    q, experts, positives, cost = batch()
    with pytest.raises(UserError, match=f"{option} is"):
        cost_spectrum_loss(q, experts, positives, cost_bands(cost), **{option: value})


@pytest.mark.parametrize("averaging", ["query", "band"])
@pytest.mark.parametrize(("sign", "name"), [(-1, "printed"), (1, "other")])
@pytest.mark.parametrize("divide", [True, False])
@pytest.mark.parametrize("n_bands", [1, 3, 5, 11])
def test_the_loss_equals_a_naive_loop(n_bands, divide, sign, name, averaging):
    q, experts, positives, cost = batch(n_bands)
    bands = cost_bands(cost, n_bands)
    options = {"gamma_sign": name, "averaging": averaging, "divide_penalty": divide}
    found = cost_spectrum_loss(q, experts, positives, bands, gamma=0.3, alpha=0.4, tau_min=0.07, **options)
    assert float(found) == pytest.approx(naive(q, experts, positives, bands, 0.3, sign, 0.4, 0.07, averaging, divide))


def test_one_band_without_penalty_is_infonce():
    q, experts, positives, cost = batch(3)
    bands = cost_bands(cost, 1)
    tau = float(0.05 + 0.25 * bands.cost.mean())
    vanilla = info_nce(q, experts, positives, tau)
    assert float(cost_spectrum_loss(q, experts, positives, bands, gamma=0.0)) == pytest.approx(float(vanilla))
    constant = cost_spectrum_loss(q, experts, positives, bands, gamma=0.0, alpha=0.0, tau_min=0.1)
    assert float(constant) == pytest.approx(float(info_nce(q, experts, positives, 0.1)))


def test_infonce_by_hand():
    q, experts = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    right, wrong = torch.tensor([[True, False]]), torch.tensor([[False, True]])
    assert float(info_nce(q, experts, right, 1.0)) == pytest.approx(math.log(1 + math.exp(-1)))
    assert float(info_nce(q, experts, wrong, 0.5)) == pytest.approx(math.log(1 + math.exp(2)))
    with pytest.raises(UserError, match="tau is 0"):
        info_nce(q, experts, right, 0)


def test_queries_without_a_correct_expert_are_left_out():
    q, experts, positives, cost = batch(1)
    bands = cost_bands(cost, 5)
    for averaging in ("query", "band"):
        whole = cost_spectrum_loss(q, experts, positives, bands, averaging=averaging)
        without = cost_spectrum_loss(q[1:], experts, positives[1:], bands, averaging=averaging)
        assert float(whole) == pytest.approx(float(without))
    assert float(info_nce(q, experts, positives, 0.1)) == pytest.approx(
        float(info_nce(q[1:], experts, positives[1:], 0.1))
    )


@pytest.mark.parametrize("loss", ["cost-spectrum", "vanilla"])
def test_a_batch_without_any_correct_expert_has_no_loss_and_no_gradient(loss):
    q, experts, positives, cost = batch()
    q, none = q.requires_grad_(), torch.zeros_like(positives)
    value = (
        info_nce(q, experts, none, 0.1)
        if loss == "vanilla"
        else cost_spectrum_loss(q, experts, none, cost_bands(cost, 5))
    )
    value.backward()
    assert float(value.detach()) == 0
    assert (q.grad == 0).all()


@pytest.mark.parametrize("gamma_sign", ["printed", "other"])
@pytest.mark.parametrize("divide", [True, False])
@pytest.mark.parametrize("n_bands", [1, 4])
def test_eq_10_is_the_gradient_that_autograd_finds(n_bands, divide, gamma_sign):
    q, experts, positives, cost = batch(5)
    bands = cost_bands(cost, n_bands)
    options = {"gamma": 0.25, "gamma_sign": gamma_sign, "divide_penalty": divide}
    for i in range(1, len(q)):
        free = q[i : i + 1].clone().requires_grad_()
        cost_spectrum_loss(free, experts, positives[i : i + 1], bands, **options).backward()
        by_hand = gradient_eq10(q[i].numpy(), experts.numpy(), positives[i].numpy(), bands, **options)
        np.testing.assert_allclose(by_hand, free.grad[0].numpy(), atol=1e-12)


def test_eq_10_needs_a_correct_expert():
    q, experts, positives, cost = batch()
    with pytest.raises(UserError, match="no correct expert"):
        gradient_eq10(q[0].numpy(), experts.numpy(), positives[0].numpy(), cost_bands(cost, 5))


def test_similarities_far_apart_neither_overflow_nor_vanish():
    q = torch.tensor([[1.0, 0.0]], requires_grad=True)
    experts = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    loss = cost_spectrum_loss(q, experts, torch.tensor([[True, False]]), cost_bands([1, 2], 1), alpha=0.0, tau_min=0.0)
    loss.backward()
    # At the floor of the temperature, (1 - gamma - (-1)) / 0.001.
    assert float(loss.detach()) == pytest.approx((2 - 0.2) / TAU_FLOOR)
    assert torch.isfinite(q.grad).all()


@pytest.mark.parametrize(("gamma_sign", "grows"), [("printed", False), ("other", True)])
def test_the_printed_sign_pushes_dear_wrong_experts_away_less(gamma_sign, grows):
    experts, correct = np.eye(3), np.array([True, False, False])
    bands = cost_bands([1, 1, 2], 1)
    gradient = gradient_eq10(experts[0], experts, correct, bands, gamma=0.2, gamma_sign=gamma_sign)
    # Expert 2 costs as much as the correct one, expert 3 is dear; both are equally similar to the query.
    assert (gradient[2] > gradient[1]) == grows


@pytest.mark.parametrize("averaging", ["query", "band"])
@pytest.mark.parametrize("divide", [True, False])
def test_losses_side_by_side_are_those_of_each(divide, averaging):
    """Three pools with five bands each, the largest of equal size, other experts, costs and weights."""
    options, settings = {"averaging": averaging, "divide_penalty": divide}, []
    for seed, gamma, sign in ((0, 0.0, "printed"), (1, 0.3, "printed"), (2, 0.1, "other")):
        q, experts, positives, cost = batch(seed)
        weights = {"gamma": gamma, "gamma_sign": sign, "alpha": 0.1 * (seed + 1)}
        settings.append((q, experts, positives, cost_bands(cost, 5), weights))
    alone = [float(cost_spectrum_loss(*given, **weights, **options)) for *given, weights in settings]
    similarity = torch.stack([experts @ q.T for q, experts, *_ in settings])
    positives = torch.stack([given[2] for given in settings])
    terms = [torch.stack(part) for part in zip(*(loss_terms(g[3], **g[4]) for g in settings), strict=True)]
    assert spectrum_loss(similarity, positives, *terms, **options).tolist() == pytest.approx(alone)


@pytest.mark.parametrize("averaging", ["query", "band"])
@pytest.mark.parametrize("divide", [True, False])
def test_the_gradient_written_out_is_that_of_automatic_differentiation(averaging, divide):
    pools = [batch(seed) for seed in (0, 1, 2)]
    # One band for every LLM, bands of several, and equal costs: members and temperatures differ from pool to pool.
    terms = [loss_terms(cost_bands(cost, 4), gamma=0.1 * i, alpha=0.1 + i) for i, (*_, cost) in enumerate(pools)]
    tau, penalty, members, inside = (torch.stack(part) for part in zip(*terms, strict=True))
    similarity = torch.stack([experts @ q.T for q, experts, *_ in pools]).requires_grad_()
    positives = torch.stack([correct for _, _, correct, _ in pools])
    options = {"averaging": averaging, "divide_penalty": divide}
    expected = spectrum_loss(similarity, positives, tau, penalty, members, inside, **options)
    expected.sum().backward()
    given = similarity.detach().clone()
    loss, slope = spectrum_loss_and_slope(given, positives, tau, penalty, members, inside, **options)
    assert torch.allclose(loss, expected.detach(), rtol=1e-12)
    assert torch.allclose(slope, similarity.grad, rtol=1e-9, atol=1e-12)
    assert torch.equal(given, similarity.detach()), "the similarities given are not to be written over"
    # The first query has no correct LLM and so no gradient; all others have one.
    assert not slope[..., 0].any()
    assert slope[..., 1:].abs().sum(dim=1).all()
