"""Networks side by side against torch's automatic differentiation and its own Adam."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from replications.uniroute.learned_map import LearnedMap  # noqa: E402
from routebook import routers  # noqa: E402
from routebook.networks import Adam, SideBySide  # noqa: E402

T, B, D, M = 3, 7, 5, 4


def networks(layers):
    """T networks with the layers that `layers` makes."""
    torch.manual_seed(0)
    made = [torch.nn.Sequential(*layers()) for _ in range(T)]
    with torch.no_grad():
        for network in made:
            for parameter in network.parameters():
                parameter.normal_()
    return made


def linear(bias=True):
    return [torch.nn.Linear(D, M, bias=bias)]


def matrices():
    return [torch.nn.Linear(D, 2, bias=False), torch.nn.Linear(2, M, bias=False)]


def perceptron():
    return [torch.nn.Linear(D, 6), torch.nn.ReLU(), torch.nn.Linear(6, 6), torch.nn.ReLU(), torch.nn.Linear(6, M)]


def normalised(bias=True):
    first = [torch.nn.BatchNorm1d(D, eps=1e-3, momentum=0.1), torch.nn.Linear(D, 6, bias=bias)]
    second = [torch.nn.BatchNorm1d(6, eps=1e-3, momentum=0.1), torch.nn.ReLU()]
    return [*first, *second, torch.nn.Linear(6, M)]


LAYERS = [
    linear,
    lambda: linear(bias=False),
    matrices,
    perceptron,
    normalised,
    lambda: normalised(bias=False),
    lambda: [torch.nn.BatchNorm1d(D), torch.nn.ReLU(), torch.nn.Linear(D, M)],
]


@pytest.mark.parametrize("layers", LAYERS)
def test_outputs_and_gradients_are_those_of_automatic_differentiation(layers):
    """Two batches of different sizes, so that memory is reused and changed; running moments are compared as well."""
    alone, together = networks(layers), networks(layers)
    side_by_side = SideBySide(together)
    for size in (B, B + 3, B):
        x, slope = torch.randn(T, size, D), torch.randn(T, size, M)
        expected = []
        for network, own, own_slope in zip(alone, x, slope, strict=True):
            network.train()
            network.zero_grad()
            out = network(own)
            out.backward(own_slope)
            expected.append(out.detach())
        with torch.no_grad():
            torch.testing.assert_close(side_by_side.forward(x.clone()), torch.stack(expected), rtol=1e-4, atol=1e-5)
            side_by_side.backward(slope.clone())
        found = iter(side_by_side.gradients.tolist())
        for column in zip(*alone, strict=True):
            for name, _ in column[0].named_parameters():
                for layer in column:
                    gradient = getattr(layer, name).grad
                    own = torch.tensor([next(found) for _ in range(gradient.numel())]).view(gradient.shape)
                    torch.testing.assert_close(own, gradient, rtol=1e-4, atol=2e-5)
        assert next(found, None) is None
    side_by_side.hand_back()
    for one, other in zip(alone, together, strict=True):
        assert not other.training
        for name, value in one.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_is_that_of_torch(decay):
    rng = torch.Generator().manual_seed(0)
    weights, gradients = torch.randn(50, generator=rng), torch.empty(50)
    reference = weights.clone().requires_grad_()
    theirs = torch.optim.AdamW([reference], lr=0.01, eps=1e-7, weight_decay=decay)
    ours = Adam(weights, gradients, lr=0.01, eps=1e-7, weight_decay=decay)
    for _ in range(20):
        gradients.copy_(torch.randn(50, generator=rng))
        reference.grad = gradients.clone()
        theirs.step()
        ours.step()
    torch.testing.assert_close(weights, reference.detach(), rtol=1e-5, atol=1e-7)


def cases():
    """Routers with outputs, targets, shares and constants of a batch, and the loss of a cell as torch has it."""
    from torch.nn import functional

    rng = np.random.default_rng(0)
    soft, labels = (torch.tensor(a) for a in (rng.random((T, B, M)), rng.normal(size=(T, B, M))))
    output = torch.tensor(rng.normal(size=(T, B, M))) * 3
    output[0, 0, 0] = 40.0
    binary, squares = routers.MLP(), routers.MLP()
    binary.output_, squares.output_ = "probability", "score"
    yield binary, output, soft, (), lambda out, t: functional.binary_cross_entropy_with_logits(out, t, reduction="none")
    yield squares, output, labels, (), lambda out, t: functional.mse_loss(out, t, reduction="none")
    psi = torch.tensor(rng.random((T, 2, M)))
    psi[0] = 0.0  # errors of no LLM at all: gamma is clipped

    def log_loss(out, t):
        gamma = (torch.softmax(out, dim=-1) @ psi).clamp(1e-7, 1 - 1e-7)
        return functional.binary_cross_entropy(gamma, t, reduction="none")

    yield LearnedMap(2), output[..., :2], soft, (psi,), log_loss


@pytest.mark.parametrize("case", list(cases()), ids=["cross-entropy", "squared error", "LearnedMap"])
@pytest.mark.parametrize("missing", [False, True])
def test_losses_and_slopes_are_those_of_automatic_differentiation(case, missing):
    router, output, targets, constants, cell_losses = case
    seen = None
    if missing:
        seen = torch.tensor(np.random.default_rng(1).random(targets.shape) < 0.7)
        seen[1] = False  # a batch without any label has loss 0
    share = routers._shares(targets, seen)
    loss, slope = router._loss_and_slope(output, targets, share, *constants)
    leaf = output.clone().requires_grad_()
    expected = routers.observed_loss(cell_losses(leaf, targets), seen)
    expected.sum().backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-6, atol=1e-9, check_dtype=False)
    torch.testing.assert_close(slope, leaf.grad, rtol=1e-6, atol=1e-9, check_dtype=False)
