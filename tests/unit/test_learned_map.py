"""UniRoute (LearnedMap) and the choice of K."""

from __future__ import annotations

import numpy as np
import pytest

from replications.uniroute.learned_map import LearnedMap
from replications.uniroute.selection import Selection, average, choose, select
from routebook import routers
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import deferral_curve
from routebook.errors import UserError

NAN = np.nan


def mixture(n=1500, k=3, m=6, d=8, spread=1.0, seed=0, rows=None):
    """Prompts from k Gaussian components; each model errs with a known rate in each. Returns also the components."""
    truth = np.random.default_rng(99)
    centres, rates = truth.normal(size=(k, d)), truth.random((k, m))
    rng = np.random.default_rng(seed)
    z = rng.integers(k, size=n)
    embeddings = (centres[z] + spread * rng.normal(size=(n, d))).astype(np.float32)
    quality = (rng.random((n, m)) >= rates[z]).astype(float)
    return bench(quality), embeddings, z, rates


def bench(quality, cost=None, models=None, kind="binary"):
    quality = np.asarray(quality, dtype=float)
    n, m = quality.shape
    return RoutingBenchmark(
        name="mixture",
        prompts=[f"p{i}" for i in range(n)],
        tasks=np.array(["t"] * n),
        models=models or [f"m{j}" for j in range(m)],
        quality=quality,
        cost=np.broadcast_to(np.arange(1.0, m + 1) if cost is None else cost, (n, m)),
        cost_unit="USD per prompt",
        origin="simulated",
        quality_kind=kind,
    )


@pytest.mark.parametrize("architecture", ["F.3", "linear"])
def test_learns_to_predict_errors_better_than_the_mean(architecture):
    train, embeddings, *_ = mixture()
    router = LearnedMap(3, epochs=15, architecture=architecture).fit(train, embeddings)
    assert router.loss_[-1] < router.loss_[0]
    _, unseen_embeddings, z, rates = mixture(seed=1)
    phi = router.assignment(unseen_embeddings)
    assert phi.shape == (1500, 3)
    np.testing.assert_allclose(phi.sum(axis=1), 1, atol=1e-12)
    gamma = 1 - router.predict_quality(unseen_embeddings)
    assert gamma.min() >= 0
    assert gamma.max() <= 1
    np.testing.assert_allclose(gamma, phi @ router.psi_)
    zero = routers.ZeroRouter().fit(train, embeddings).predict_quality(unseen_embeddings)
    error = np.mean((gamma - rates[z]) ** 2)
    assert error < 0.5 * np.mean((1 - zero - rates[z]) ** 2)


def test_parameter_counts_by_hand():
    train, embeddings, *_ = mixture(n=100, d=8)
    router = LearnedMap(3, epochs=1).fit(train, embeddings)
    norms = 2 * 8 + 2 * 128 + 2 * 128
    layers = (8 * 128 + 128) + (128 * 128 + 128) + (128 * 3 + 3)
    assert router.n_parameters_ == norms + layers
    assert LearnedMap(3, epochs=1, architecture="linear").fit(train, embeddings).n_parameters_ == 3 * 8


def test_layers_are_equation_21_with_keras_defaults():
    from torch import nn

    train, embeddings, *_ = mixture(n=100)
    network = LearnedMap(4, epochs=1).fit(train, embeddings).network_
    kinds = [type(layer) for layer in network]
    hidden = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert kinds == [nn.BatchNorm1d, *hidden, *hidden, nn.Linear]
    for norm in (network[0], network[2], network[5]):
        assert norm.eps == 1e-3
        assert norm.momentum == pytest.approx(0.01)
    start = LearnedMap(4, seed=3)._network(8, __import__("torch").Generator().manual_seed(3))
    assert (start[1].bias == 0).all()
    assert start[4].weight.abs().max() <= (6 / 256) ** 0.5  # Glorot: sqrt(6 / (128 + 128))
    assert start[4].weight.abs().max() > 0.95 * (6 / 256) ** 0.5


def test_linear_map_is_the_softmax_of_section_5_2():
    train, embeddings, *_ = mixture(n=200)
    router = LearnedMap(3, epochs=2, architecture="linear").fit(train, embeddings)
    theta = router.network_[0].weight.detach().numpy().astype(float)
    power = np.exp(embeddings @ theta.T)
    np.testing.assert_allclose(router.assignment(embeddings), power / power.sum(axis=1, keepdims=True), atol=1e-6)


def test_loss_by_hand():
    """One label missing, one soft: -[e log g + (1 - e) log(1 - g)], averaged over the three labels there are."""
    errors = np.array([[0.0, 0.75], [1.0, NAN]])
    psi = np.array([[0.2, 0.4], [0.6, 0.8]])
    logits = np.array([[0.0, 0.0], [np.log(3.0), 0.0]])  # Phi = (1/2, 1/2) and (3/4, 1/4)
    import torch

    observed = torch.tensor(~np.isnan(errors))[None]
    batch = [torch.tensor(part)[None] for part in (logits, np.nan_to_num(errors))]
    loss, _ = LearnedMap(2)._loss_and_slope(*batch, observed / observed.sum(), torch.tensor(psi)[None])
    cells = [-np.log(1 - 0.4), -(0.75 * np.log(0.6) + 0.25 * np.log(0.4)), -np.log(0.75 * 0.2 + 0.25 * 0.6)]
    assert loss.item() == pytest.approx(np.mean(cells), rel=1e-6)


def test_gradient_flows_through_the_map_alone():
    """Psi stays what K-means gives, however long the map is trained, and the map does move."""
    train, embeddings, *_ = mixture(n=300)
    kmeans = routers.KMeans(3, seed=0).fit(train, embeddings)
    short, long = (LearnedMap(3, epochs=e, seed=0).fit(train, embeddings) for e in (1, 4))
    np.testing.assert_array_equal(short.psi_, kmeans.psi_)
    np.testing.assert_array_equal(long.psi_, kmeans.psi_)
    assert (short.assignment(embeddings) != long.assignment(embeddings)).any()


def test_shares_a_fitted_clustering_without_changing_it():
    train, embeddings, *_ = mixture(n=300)
    kmeans = routers.KMeans(3, seed=5).fit(train.subset(models=["m0"]), embeddings)
    router = LearnedMap(3, epochs=1, clustering=kmeans).fit(train, embeddings)
    assert router.clustering_ is kmeans
    router.add_models(bench(1 - train.quality[:, :1], models=["new"]), embeddings)
    assert kmeans.models_ == ["m0"]
    assert kmeans.psi_.shape == (3, 1)
    with pytest.raises(UserError, match="has 3 clusters"):
        LearnedMap(4, clustering=kmeans).fit(train, embeddings)


def test_new_models_are_represented_on_hard_clusters():
    train, embeddings, *_ = mixture(n=400)
    seen, new = ["m0", "m1", "m2", "m3"], ["m4", "m5"]
    validation, validation_embeddings, *_ = mixture(n=200, seed=2)
    validation.quality[::3, 4] = NAN
    router = LearnedMap(3, epochs=2).fit(train.subset(models=seen), embeddings)
    before = router.predict_quality(validation_embeddings)
    router.add_models(validation.subset(models=new), validation_embeddings)
    assert router.models_ == seen + new
    after = router.predict_quality(validation_embeddings)
    np.testing.assert_allclose(after[:, :4], before, atol=1e-15)
    cluster = router.clustering_.assign(validation_embeddings)
    for k in range(3):
        expected = 1 - np.nanmean(validation.quality[cluster == k][:, 4:], axis=0)
        np.testing.assert_allclose(router.psi_[k, 4:], expected)


def test_same_seed_same_bits_and_another_seed_differs():
    train, embeddings, *_ = mixture(n=300)
    first, second, other = (
        LearnedMap(3, epochs=2, seed=s).fit(train, embeddings).predict_quality(embeddings) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_missing_and_soft_labels():
    train, embeddings, *_ = mixture(n=300)
    soft = bench(0.25 + train.quality / 2)
    soft.quality[::4, 2] = NAN
    router = LearnedMap(3, epochs=2).fit(soft, embeddings)
    assert np.isfinite(router.loss_).all()
    quality = router.predict_quality(embeddings)
    assert quality.min() >= 0.25
    assert quality.max() <= 0.75


@pytest.mark.parametrize("n", [65, 66, 2])
def test_a_last_batch_of_one_is_merged(n):
    """65 = 64 + 1: batch normalisation cannot train on one row."""
    train, embeddings, *_ = mixture(n=n)
    assert np.isfinite(LearnedMap(2, epochs=1).fit(train, embeddings).loss_).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_clusters": 0}, "n_clusters is 0"),
        ({"n_clusters": 51}, "only 50 training prompts"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 1}, "at least 2 prompts"),
        ({"hidden": -1}, "hidden is -1"),
        ({"lr": -0.1}, "lr is -0.1"),
        ({"bn_momentum": 1.0}, "bn_momentum is 1.0"),
        ({"architecture": "deep"}, "architecture is 'deep', expected 'F.3' or 'linear'"),
    ],
)
def test_parameters_out_of_range(params, message):
    train, embeddings, *_ = mixture(n=50)
    with pytest.raises(UserError, match=message):
        LearnedMap(**params).fit(train, embeddings)


def test_qualities_outside_the_unit_interval_are_refused():
    _, embeddings, *_ = mixture(n=50)
    scores = bench(np.full((50, 2), -3.5), kind="soft")
    with pytest.raises(UserError, match=r"\[0, 1\]; mixture has -3.5"):
        LearnedMap(2).fit(scores, embeddings)


def test_the_checkpoint_best_on_validation_is_kept():
    """Every epoch's area, measured by trainings that stop there, against the epoch kept."""
    train, embeddings, *_ = mixture(n=200)
    validation, validation_embeddings, *_ = mixture(n=150, seed=4)
    areas, routers_ = [], []
    for epochs in range(1, 7):
        router = LearnedMap(3, epochs=epochs, lr=0.05).fit(train, embeddings)
        assert router.best_epoch_ == epochs - 1
        estimate = router.predict_quality(validation_embeddings)
        areas.append(deferral_curve(estimate, validation.quality, validation.mean_cost).area())
        routers_.append(router)
    best = int(np.argmax(areas))
    assert best < 5, "the test needs a training whose last epoch is not its best"
    kept = LearnedMap(3, epochs=6, lr=0.05).fit(train, embeddings, (validation, validation_embeddings))
    assert kept.best_epoch_ == best
    np.testing.assert_array_equal(
        kept.predict_quality(validation_embeddings), routers_[best].predict_quality(validation_embeddings)
    )
    unpriced = validation.with_cost(np.full(6, NAN), "USD per prompt")
    with pytest.raises(UserError, match="LearnedMap: validation needs a price"):
        LearnedMap(3).fit(train, embeddings, (unpriced, validation_embeddings))


# --- choosing K ------------------------------------------------------------------------------------------------------


def test_select_measures_the_validation_area_over_training_models():
    train, embeddings, *_ = mixture(n=400)
    validation, validation_embeddings, *_ = mixture(n=150, seed=4)
    train = train.subset(models=["m3", "m0", "m5"])  # another order than in validation
    chosen = select(lambda k: routers.KMeans(k), [4, 2, 1], train, embeddings, validation, validation_embeddings)
    assert chosen.grid == (1, 2, 4)
    cost = validation.mean_cost[[3, 0, 5]]
    for k, area in zip(chosen.grid, chosen.areas, strict=True):
        router = routers.KMeans(k).fit(train, embeddings)
        truth = validation.quality[:, [3, 0, 5]]
        assert area == deferral_curve(router.predict_quality(validation_embeddings), truth, cost).area()
    assert chosen.best == chosen.grid[int(np.argmax(chosen.areas))]


def test_select_takes_the_smaller_of_equals():
    train, embeddings, *_ = mixture(n=100)
    same = select(lambda k: routers.ZeroRouter(), [9, 3, 7], train, embeddings, train, embeddings)
    assert same.best == 3
    assert len(set(same.areas)) == 1


def test_select_ignores_test_models():
    train, embeddings, *_ = mixture(n=200)
    validation, validation_embeddings, *_ = mixture(n=100, seed=4)
    train = train.subset(models=["m0", "m1"])
    first = select(lambda k: routers.KNN(k), [3, 9], train, embeddings, validation, validation_embeddings)
    validation.quality[:, 2:] = 1 - validation.quality[:, 2:]
    again = select(lambda k: routers.KNN(k), [3, 9], train, embeddings, validation, validation_embeddings)
    np.testing.assert_array_equal(first.areas, again.areas)


def test_select_refuses_what_it_cannot_judge():
    train, embeddings, *_ = mixture(n=100)
    with pytest.raises(UserError, match="grid"):
        select(lambda k: routers.KNN(k), [], train, embeddings, train, embeddings)
    with pytest.raises(UserError, match="no model 'm0'"):
        select(lambda k: routers.KNN(k), [1], train, embeddings, train.subset(models=["m1"]), embeddings)
    unseen = bench(np.full((100, 6), NAN))
    with pytest.raises(UserError, match="candidate 2 has no area"):
        select(lambda k: routers.KNN(k), [2], train, embeddings, unseen, embeddings)


def test_choose_reads_estimates_of_any_origin():
    """LLM 1 costs twice as much; estimates that send to it just the prompt it alone answers are the best there are."""
    judged = bench([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    blind, clever = np.tile([0.5, 0.6], (4, 1)), judged.quality
    chosen = choose({2: blind, 7: clever, 9: clever}.__getitem__, [9, 7, 2], judged)
    assert chosen.grid == (2, 7, 9)
    assert chosen.best == 7
    # Cost 1 to 2: from .75 at the cheap end, 1.0 is reached at 1.25 and held.
    assert chosen.areas[2] == pytest.approx(0.25 * (0.75 + 1.0) / 2 + 0.75, abs=1e-12)


def test_average_selection_by_hand():
    first = Selection(3, (3, 5), np.array([0.75, 0.5]))
    second = Selection(5, (3, 5), np.array([0.25, 0.875]))
    both = average([first, second])
    assert both.best == 5
    np.testing.assert_array_equal(both.areas, [0.5, 0.6875])
    assert average([first, Selection(5, (3, 5), np.array([0.5, 0.75]))]).best == 3, "of equals the smaller"


@pytest.mark.parametrize("architecture", ["F.3", "linear"])
def test_fitted_together_as_one_by_one(architecture):
    """Batch normalisation included: each map keeps its own running moments.

    A bias before batch normalisation has rounding alone for gradient, which Adam makes steps of the learning rate of;
    the output then moves as far as the running means are behind.
    """
    problems = [mixture(n=200, seed=seed)[:2] for seed in range(3)]
    alone = [
        LearnedMap(3, epochs=2, seed=i, architecture=architecture).fit(*problem) for i, problem in enumerate(problems)
    ]
    group = [LearnedMap(3, epochs=2, seed=i, architecture=architecture) for i in range(3)]
    routers.fit_together(group, problems)
    for one, other, (_, z) in zip(alone, group, problems, strict=True):
        apart = np.abs(other.assignment(z) - one.assignment(z)).max()
        assert apart < (5e-3 if architecture == "F.3" else 1e-5)
        np.testing.assert_allclose(other.loss_, one.loss_, rtol=1e-4)
    if architecture == "F.3":
        means = [router.network_[0].running_mean.numpy() for router in group]
        assert (means[0] != means[1]).any()
        np.testing.assert_allclose(means[1], alone[1].network_[0].running_mean.numpy(), rtol=1e-5, atol=1e-7)
