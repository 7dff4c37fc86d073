"""SemiRouter's losses against hand-worked values and against the loops the paper prints."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
import torch

from replications.semirouter import losses
from replications.semirouter.baselines import distillation
from replications.semirouter.side_by_side import contrastive_batch


def bools(*rows):
    return torch.tensor(rows, dtype=torch.bool)


def test_anchor_to_sparse_by_hand():
    anchor, sparse = torch.tensor([[0.9, 0.2]]), torch.tensor([[0.85, 0.5]])
    both = bools([1, 1])
    # Gaps |.9 - .85| = .05, |.9 - .5| = .4, |.2 - .85| = .65, |.2 - .5| = .3; margin .35 leaves .30, 0, 0, .05.
    assert float(losses.anchor_to_sparse(anchor, both, sparse, both, 0.35)) == pytest.approx(0.35 / 4)
    # As printed: a sum of .35 over |B_c| = 7 samples.
    printed = losses.anchor_to_sparse(anchor, both, sparse, both, 0.35, pairing="batch", batch_size=7)
    assert float(printed) == pytest.approx(0.05)
    # The second sparse LLM was not observed: .30 and 0 are left.
    assert float(losses.anchor_to_sparse(anchor, both, sparse, bools([1, 0]), 0.35)) == pytest.approx(0.15)
    # The first anchor was not: 0 and .05.
    assert float(losses.anchor_to_sparse(anchor, bools([0, 1]), sparse, both, 0.35)) == pytest.approx(0.025)


def test_diversity_by_hand():
    sparse = torch.tensor([[0.5, 0.6, 0.9]])
    # Gaps .1, .4, .3; delta .35 leaves .25, 0, .05 for three pairs; scaled by 0.1.
    assert float(losses.diversity(sparse, bools([1, 1, 1]), 0.35)) == pytest.approx(0.1 * 0.30 / 3)
    assert float(losses.diversity(sparse, bools([0, 1, 1]), 0.35)) == pytest.approx(0.1 * 0.05)
    assert float(losses.diversity(sparse, bools([0, 1, 0]), 0.35)) == 0.0


def test_equation_9_and_algorithm_1_weigh_the_other_way_round():
    prediction, contrast = torch.tensor(2.0), torch.tensor(10.0)

    def total(lam, weighting):
        return float(losses.combined(prediction, contrast, losses.contrastive_weight(lam, weighting)))

    assert total(0.2, "eq9") == pytest.approx(0.8 * 2 + 0.2 * 10)
    assert total(0.2, "algorithm-1") == pytest.approx(0.2 * 2 + 0.8 * 10)
    same = [total(0.5, weighting) for weighting in losses.WEIGHTINGS]
    assert same[0] == same[1]


def random_batch(seed, b=6, a=3, s=4):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    return draw(b, a), draw(b, a) > 0.3, draw(b, s), draw(b, s) > 0.5


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pairing", losses.PAIRINGS)
def test_losses_are_the_loops_over_pairs(seed, pairing):
    anchor, anchor_seen, sparse, sparse_seen = random_batch(seed)
    margin, size = 0.2, 17
    anchored, diverse = [], []
    for a, a_seen, s, s_seen in zip(
        anchor.tolist(), anchor_seen.tolist(), sparse.tolist(), sparse_seen.tolist(), strict=True
    ):
        known_a = [q for q, seen in zip(a, a_seen, strict=True) if seen]
        known_s = [q for q, seen in zip(s, s_seen, strict=True) if seen]
        anchored.append([max(margin - abs(p - q), 0) for p, q in product(known_a, known_s)])
        diverse.append([max(margin - abs(p - q), 0) for p, q in combinations(known_s, 2)])
    if pairing == "query":
        expected = np.mean([np.mean(terms) for terms in anchored if terms])
    else:
        expected = sum(map(sum, anchored)) / size
    found = losses.anchor_to_sparse(anchor, anchor_seen, sparse, sparse_seen, margin, pairing=pairing, batch_size=size)
    assert float(found) == pytest.approx(expected)
    expected = 0.1 * np.mean([np.mean(terms) for terms in diverse if terms])
    assert float(losses.diversity(sparse, sparse_seen, margin)) == pytest.approx(expected)


def test_a_batch_without_pairs_has_no_contrast_and_no_nan():
    anchor, anchor_seen, sparse, _ = random_batch(0)
    sparse.requires_grad_()
    nothing = torch.zeros(sparse.shape, dtype=torch.bool)
    loss = losses.anchor_to_sparse(anchor, anchor_seen, sparse, nothing, 0.2) + losses.diversity(sparse, nothing, 0.2)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert (sparse.grad == 0).all()


def test_the_loss_pushes_equal_predictions_of_equally_good_llms_apart():
    """SR-17: no label enters Eq. (4)."""
    anchor, sparse = torch.tensor([[0.6]]), torch.tensor([[0.65]], requires_grad=True)
    losses.anchor_to_sparse(anchor, bools([1]), sparse, bools([1]), 0.1).backward()
    assert float(sparse.grad) == -1.0


def test_contrastive_batches_hold_the_queries_own_pairs_and_others():
    seen = bools([1, 0, 1], [1, 1, 0], [0, 0, 1], [0, 1, 0])
    rows = torch.tensor([2, 0])
    generator = torch.Generator().manual_seed(0)
    counts = {}
    for _ in range(300):
        at, model, everyone = contrastive_batch(rows, seen, seen.nonzero(), 4, generator)
        assert everyone[:2].tolist() == [2, 0]
        own = [(int(everyone[a]), int(m)) for a, m in zip(at[:3], model[:3], strict=True)]
        assert own == [(2, 2), (0, 0), (0, 2)]
        assert len(at) == 7
        for a, m in zip(at[3:], model[3:], strict=True):
            pair = (int(everyone[a]), int(m))
            counts[pair] = counts.get(pair, 0) + 1
    assert set(counts) == {(1, 0), (1, 1), (3, 1)}, "observed pairs of queries outside the batch"
    assert min(counts.values()) > 1200 / 3 * 0.8, "each as likely as any other"


def test_a_batch_of_all_queries_has_no_others():
    seen = bools([1, 0], [1, 1])
    at, model, everyone = contrastive_batch(torch.tensor([0, 1]), seen, seen.nonzero(), 4, torch.Generator())
    assert (at.tolist(), model.tolist(), everyone.tolist()) == ([0, 1, 1], [0, 0, 1], [0, 1])


def test_distillation_by_hand():
    # Target softmax((1, 0) / .5) = (.8808, .1192), router (.5, .5): KL = .8808 ln 1.7616 + .1192 ln .2384.
    value = distillation(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), bools([1, 1]), 0.5)
    assert float(value) == pytest.approx(0.8808 * np.log(1.7616) + 0.1192 * np.log(0.2384), abs=1e-3)
    # A third LLM that was not observed changes nothing, whatever the router says of it.
    logits = torch.tensor([[0.0, 0.0, 5.0]], requires_grad=True)
    masked = distillation(logits, torch.tensor([[1.0, 0.0, 1.0]]), bools([1, 1, 0]), 0.5)
    assert float(masked.detach()) == pytest.approx(float(value), abs=1e-6)
    masked.backward()
    assert float(logits.grad[0, 2]) == 0.0
    assert float(distillation(torch.tensor([[3.0, 1.0]]), torch.zeros(1, 2), bools([0, 1]), 0.5)) == 0.0


def test_other_pairs_are_the_drawn_ones_among_all_outside_the_batch():
    rng = np.random.default_rng(0)
    seen = torch.tensor(rng.random((30, 4)) < 0.4)
    pairs = seen.nonzero()
    for seed in range(20):
        rows = torch.tensor(rng.permutation(30)[:7])
        at, model, everyone = contrastive_batch(rows, seen, pairs, 25, torch.Generator().manual_seed(seed))
        outside = [pair for pair in pairs.tolist() if pair[0] not in rows.tolist()]
        drawn = torch.randint(len(outside), (25,), generator=torch.Generator().manual_seed(seed))
        assert [[int(everyone[a]), int(m)] for a, m in zip(at[-25:], model[-25:], strict=True)] == [
            outside[place] for place in drawn
        ]
