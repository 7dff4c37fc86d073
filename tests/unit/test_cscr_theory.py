"""Counter-examples are checked against the loss itself, brute force and hand-worked probabilities."""

import numpy as np
import pytest
import torch

from replications.cscr import theory
from replications.cscr.cost_spectrum import cost_bands, cost_spectrum_loss
from routebook.errors import UserError

EXAMPLES = {example.name: example for example in theory.lemma_examples()}
N_BANDS = {"another expert is correct": 1, "a free query": 1}


def loss_at(example, queries):
    """Eq. (8) of each query [N, 2] by itself."""
    bands = cost_bands(example.cost, N_BANDS.get(example.name, 3))
    experts, correct = torch.tensor(example.experts), torch.tensor(example.correct)[None]
    options = {"gamma": example.gamma, "gamma_sign": example.gamma_sign}
    queries = torch.as_tensor(queries, dtype=torch.float64)
    return torch.stack([cost_spectrum_loss(q[None], experts, correct, bands, **options) for q in queries])


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_a_stationary_point_of_the_loss(name):
    example = EXAMPLES[name]
    query = torch.tensor(example.query[None], requires_grad=True)
    bands = cost_bands(example.cost, N_BANDS.get(name, 3))
    experts, correct = torch.tensor(example.experts), torch.tensor(example.correct)[None]
    options = {"gamma": example.gamma, "gamma_sign": example.gamma_sign}
    cost_spectrum_loss(query, experts, correct, bands, **options).backward()
    gradient, q = query.grad[0].numpy(), example.query
    along = gradient if example.free else gradient - (gradient @ q) * q
    assert np.linalg.norm(along) < 1e-9
    assert example.gradient < 1e-9


@pytest.mark.parametrize("name", [name for name, example in EXAMPLES.items() if not example.free])
def test_no_query_of_unit_length_has_a_smaller_loss(name):
    example = EXAMPLES[name]
    assert np.linalg.norm(example.query) == pytest.approx(1)
    angles = np.linspace(0, 2 * np.pi, 1000)
    around = loss_at(example, np.stack([np.cos(angles), np.sin(angles)], axis=1))
    assert float(loss_at(example, example.query[None])[0]) <= float(around.min())


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_contradicts_the_lemma(name):
    example = EXAMPLES[name]
    broken = example.violations()
    assert len(broken) > 0
    for pair in broken.itertuples():
        plus, minus = pair.correct - 1, pair.wrong - 1
        assert example.correct[plus]
        assert not example.correct[minus]
        assert example.cost[plus] <= example.cost[minus]
        assert example.experts[plus] @ example.query <= example.experts[minus] @ example.query


def test_the_steps_of_the_proof_fail_one_by_one():
    first = EXAMPLES["another expert is correct"].violations()
    assert not first["penalised_holds"].any()
    second = EXAMPLES["a wrong expert is dear"].violations()
    assert second["penalised_holds"].all()
    dear = EXAMPLES["a wrong expert is dear"].table()
    assert dear.loc[second["wrong"], "cost"].tolist() == [1.0]


def test_the_free_query_is_where_the_formula_puts_it():
    # gamma (c_up - c_down) / 2 = 0.2 (1 - 0.2) / 2
    np.testing.assert_allclose(EXAMPLES["a free query"].query, [0, 0.08])


def test_a_single_correct_and_a_single_wrong_expert_obey_the_lemma():
    example = theory._on_circle("two", [0, 30], [1, 2], [True, False], 1, 0.2, "printed")
    assert example.violations().empty


@pytest.mark.parametrize("gamma_sign", ["printed", "other"])
def test_the_lemma_fails_on_random_pools_too(gamma_sign):
    found = theory.lemma_frequency(60, 8, 4, n_bands=3, gamma_sign=gamma_sign, steps=200)
    assert found["gradient"] < 0.05
    assert 0 < found["pairs"] < 0.5
    assert found["pairs"] <= found["queries"] <= 1


def test_rates_by_hand():
    assert theory.rate(10_000, 100, 2, "printed") == pytest.approx(0.1 + 0.1)
    assert theory.rate(10_000, 100, 4, "proved", 3) == pytest.approx(np.sqrt(np.log(3) / 100) + 0.01**0.25)
    with pytest.raises(UserError, match="bound is 'true'"):
        theory.rate(10, 1, 1, "true")
    with pytest.raises(UserError, match="bound is 'true'"):
        theory.best_k(10, 1, "true")


@pytest.mark.parametrize("d", [1, 2, 4, 384])
def test_the_printed_bound_is_the_proved_one_with_k_and_n_over_k_exchanged(d):
    for n, k in ((1000, 10), (5000, 4000)):
        assert theory.rate(n, k, d, "printed") == pytest.approx(theory.rate(n, n / k, d, "proved", np.e))
    for bound in ("printed", "proved"):
        k = theory.best_k(5000, d, bound)
        assert theory.rate(5000, k, d, bound, np.e) == pytest.approx(2 * 5000 ** (-1 / (d + 2)))


def test_the_excess_of_one_label_by_hand():
    # Error rates .25 and .75: wrong with 1/16, a tie with 6/16, so the wrong choice has probability 1/4.
    assert theory.noise_excess(1, 0.5) == pytest.approx(0.5 * 0.25)
    assert theory.noise_excess(50, 1.0) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("n", "k", "gap"), [(300, 5, 0.3), (2000, 20, 0.2)])
def test_brute_force_nearest_neighbours_have_the_exact_excess(n, k, gap):
    excess = theory.simulate_noise(n, k, gap, n_queries=100, repeats=60)
    error = excess.std(ddof=1) / np.sqrt(len(excess))
    assert abs(excess.mean() - theory.noise_excess(k, gap)) < 4 * error


def test_noise_outgrows_the_printed_rate_and_not_the_proved_one():
    found = theory.noise_counterexample((10, 100, 1000))
    assert (found["n"] == [10**3, 10**6, 10**9]).all()
    # The printed rate falls as 1/k, the excess as 1/sqrt(k).
    growth = found["excess_over_printed"].to_numpy()
    assert growth[1:] / growth[:-1] == pytest.approx(np.sqrt(10), rel=0.05)
    assert found["excess_over_proved"].max() < 0.1


def test_bias_outgrows_the_printed_rate():
    found = theory.bias_counterexample((300, 3_000, 30_000), n_queries=300)
    assert (found["k"] == [round(n ** (4 / 6)) for n in found["n"]]).all()
    ratio = found["excess_over_printed"].to_numpy()
    assert (np.diff(ratio) > 0).all()
    # With true error rates the excess is at most twice the Lipschitz constant times the neighbours' distance.
    assert (found["excess"] > 0).all()
    assert found["excess_over_proved"].max() < 2


def test_the_wave_is_as_steep_as_allowed_and_swings_around_zero():
    x = np.linspace(0, 2, 20_001)
    wave = theory._wave(x, 0.5, 0.3)
    assert np.abs(np.diff(wave) / np.diff(x)).max() <= 1 + 1e-9
    assert wave.mean() == pytest.approx(0, abs=1e-4)
    assert (wave.min(), wave.max()) == pytest.approx((-0.125, 0.125), abs=1e-4)
    assert theory._ball_radius(np.pi, 2) == pytest.approx(1)
    assert theory._ball_radius(np.pi**2 / 2, 4) == pytest.approx(1)
