"""RadialFormer against the loop over nodes that the paper prints, the other backbones, and forward times."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import nn

from replications.radialrouter import complexity
from replications.radialrouter.radial_router import BACKBONES, SCALES, RadialRouter
from replications.radialrouter.radialformer import BACKBONES as CLASSES
from replications.radialrouter.radialformer import (
    SCALES as KNOWN_SCALES,
)
from replications.radialrouter.radialformer import (
    MultiHeadAttention,
    RadialFormer,
    RadialNetwork,
    StarTransformerBackbone,
    TransformerBackbone,
    check_heads,
)
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError


def mh_attention(attention: MultiHeadAttention, q: torch.Tensor, h: torch.Tensor, scale: float) -> torch.Tensor:
    """Eqs. (10)-(12), one query [d] and its context [k, d]."""
    wide = attention.head_width
    q, k, v = q @ attention.query.weight.T, h @ attention.key.weight.T, h @ attention.value.weight.T
    heads = []
    for i in range(attention.heads):
        part = slice(i * wide, (i + 1) * wide)
        heads.append(torch.softmax(k[:, part] @ q[part] / scale, dim=0) @ v[:, part])
    return torch.cat(heads) @ attention.out.weight.T


def algorithm_1(net: RadialFormer, queries: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Algorithm 1, node by node, prompt by prompt; with the ring, two more nodes in the context."""
    all_satellites, all_relays = [], []
    for q in queries:
        m = list(net.models)
        n, s, r = len(m), m, q
        for satellite, relay in zip(net.satellites, net.relays, strict=True):
            updated = []
            for i in range(n):
                context = [s[i], m[i], r]  # Eq. (1)
                if net.ring:
                    context += [s[i - 1], s[(i + 1) % n]]
                state = mh_attention(satellite, s[i], torch.stack(context), scale)  # Eq. (2)
                updated.append(satellite.norm(torch.relu(state)))
            s = updated
            r = relay.norm(torch.relu(mh_attention(relay, r, torch.stack([r, *s]), scale)))  # Eq. (3)
        all_satellites.append(torch.stack(s))
        all_relays.append(r)
    return torch.stack(all_satellites), torch.stack(all_relays)


@pytest.mark.parametrize("kind", [RadialFormer, StarTransformerBackbone])
@pytest.mark.parametrize(("layers", "n"), [(1, 4), (2, 5), (3, 2)])
@pytest.mark.parametrize("scale", ["head", "printed"])
def test_is_algorithm_1(kind, layers, n, scale):
    generator = torch.Generator().manual_seed(1)
    net = kind(n, 24, layers, heads=2, head_width=4, scale=scale, generator=generator).double()
    for name, parameter in net.named_parameters():  # LayerNorm's start at 1 and 0 would hide a mix-up
        if ".norm." in name:
            nn.init.normal_(parameter, generator=generator)
    divisor = 4**0.5 if scale == "head" else 24**0.5
    outer = [torch.randn(3, n, 24, generator=generator).double(), torch.randn(3, 24, generator=generator).double()]
    found, grads = [], []
    for compute in (net, lambda q: algorithm_1(net, q, divisor)):
        query = torch.randn(3, 24, generator=torch.Generator().manual_seed(2)).double().requires_grad_()
        out = compute(query)
        loss = sum((o * w).sum() for o, w in zip(out, outer, strict=True))
        found.append(out)
        grads.append(torch.autograd.grad(loss, [query, *net.parameters()]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("backbone", [name for name in CLASSES if name != "transformer"])
def test_several_networks_in_one_call_are_each_alone(backbone):
    """Scores, E(x) and every gradient; LayerNorm's start at 1 and 0 would hide a mix-up."""
    generator = torch.Generator().manual_seed(3)
    sizes = {"width": 12, "layers": 3, "heads": 2, "head_width": 3, "generator": generator}
    networks = [RadialNetwork(7, 5, backbone, **sizes).double() for _ in range(3)]
    for network in networks:
        for name, parameter in network.named_parameters():
            if "norm" in name or "bias" in name:
                nn.init.normal_(parameter, generator=generator)
    inputs = torch.randn(3, 4, 7, generator=generator).double()
    outer = [torch.randn(3, 4, 5, generator=generator).double(), torch.randn(3, 4, 12, generator=generator).double()]
    stacked, _ = torch.func.stack_module_state(networks)
    together = torch.func.functional_call(networks[0], stacked, (inputs,))
    used = {name for name, _ in networks[0].named_parameters() if ".relays.2." not in name}
    total = sum((o * w).sum() for o, w in zip(together, outer, strict=True))
    grads = dict(zip(sorted(used), torch.autograd.grad(total, [stacked[name] for name in sorted(used)]), strict=True))
    for g, network in enumerate(networks):
        alone = network(inputs[g])
        for ours, theirs in zip(together, alone, strict=True):
            torch.testing.assert_close(ours[g], theirs)
        own = dict(network.named_parameters())
        loss = sum((o * w[g]).sum() for o, w in zip(alone, outer, strict=True))
        for name, theirs in zip(sorted(used), torch.autograd.grad(loss, [own[n] for n in sorted(used)]), strict=True):
            torch.testing.assert_close(grads[name][g], theirs)


def test_relay_can_be_left_out_of_the_last_layer_without_changing_a_score():
    net = RadialFormer(5, 16, 3, 2, 4)
    query = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
    with_relay, without = net(query), net(query, final_relay=False)
    assert torch.equal(with_relay[0], without[0])
    assert not torch.equal(with_relay[1], without[1])


@pytest.mark.parametrize("backbone", CLASSES)
def test_backbones_share_their_interface_and_treat_prompts_apart(backbone):
    net = CLASSES[backbone](7, 16, 2, 2, 8).double().eval()
    query = torch.randn(5, 16, generator=torch.Generator().manual_seed(0)).double()
    satellites, relay = net(query)
    assert satellites.shape == (5, 7, 16)
    assert relay.shape == (5, 16)
    for i in range(5):  # a prompt's states do not depend on its batch
        alone = net(query[i : i + 1])
        torch.testing.assert_close(alone[0][0], satellites[i])
        torch.testing.assert_close(alone[1][0], relay[i])
    assert not torch.allclose(satellites[0], satellites[1])
    assert not torch.allclose(satellites[0, 0], satellites[0, 1])


@pytest.mark.parametrize("backbone", ["radialformer", "transformer", "mlp"])
def test_order_of_the_pool_does_not_matter_without_a_ring(backbone):
    net = CLASSES[backbone](6, 16, 2, 2, 8).double().eval()
    query = torch.randn(3, 16, generator=torch.Generator().manual_seed(0)).double()
    before = net(query)[0]
    order = [3, 0, 5, 1, 4, 2]
    with torch.no_grad():
        net.models.copy_(net.models[order].clone())
    torch.testing.assert_close(net(query)[0], before[:, order])


def test_satellites_meet_only_through_the_relay():
    """In one layer another LLM's embedding changes nothing; in two it does, through the relay; a ring is nearer."""

    def moved(kind, layers):
        net = kind(6, 16, layers, 2, 8).double()
        query = torch.randn(1, 16, generator=torch.Generator().manual_seed(0)).double()
        before = net(query)[0]
        with torch.no_grad():
            net.models[2] += 1
        return (~torch.isclose(net(query)[0], before)).any(dim=-1)[0].nonzero().flatten().tolist()

    assert moved(RadialFormer, 1) == [2]
    assert moved(RadialFormer, 2) == list(range(6))
    assert moved(StarTransformerBackbone, 1) == [1, 2, 3]


def test_parameter_counts_by_hand():
    count = lambda net: sum(p.numel() for p in net.parameters())  # noqa: E731
    attention, norm = 3 * 768 * 128 + 128 * 768, 2 * 768  # 4 heads of 32 at d = 768: RR-16
    assert count(RadialFormer(11)) == 11 * 768 + 6 * 2 * (attention + norm)
    network = RadialNetwork(384, 11)
    assert count(network) == count(RadialFormer(11)) + (384 * 768 + 768) + (768 * 128 + 128) + 128
    assert count(RadialNetwork(768, 11, project=False)) == count(RadialFormer(11)) + (768 * 128 + 128) + 128


def test_network_scores_are_the_mlp_on_each_satellite():
    network = RadialNetwork(5, 4, width=16, layers=2, heads=2, head_width=8)
    inputs = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    scores, query = network(inputs)
    assert torch.equal(query, network.projection(inputs))
    satellites, _ = network.backbone(query)
    for b in range(3):
        for i in range(4):
            hidden = torch.relu(network.hidden.weight @ satellites[b, i] + network.hidden.bias)
            assert scores[b, i].item() == pytest.approx((network.output.weight @ hidden).item(), abs=1e-5)


@pytest.mark.parametrize("backbone", CLASSES)
def test_initial_weights_come_from_the_generator_alone(backbone):
    def weights():
        net = RadialNetwork(5, 4, backbone, 16, 2, 2, 8, generator=torch.Generator().manual_seed(3))
        return nn.utils.parameters_to_vector(net.parameters())

    torch.manual_seed(0)
    first, after = weights(), torch.rand(1)
    torch.manual_seed(1)
    second = weights()
    assert torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1)), "the global random state was used"


def test_names_known_without_torch_are_those_there_are():
    assert tuple(CLASSES) == BACKBONES
    assert KNOWN_SCALES == SCALES


def test_heads_that_do_not_fit_the_width_are_refused():
    check_heads(768, 4, 32)  # the paper's
    check_heads(768, 4, 192)  # Appendix A's d/h
    with pytest.raises(UserError, match=r"4 heads of 32 make an inner width of 128, which does not divide.* 100"):
        RadialFormer(3, 100, 1, 4, 32)
    with pytest.raises(UserError, match="3 does not divide 16"):
        TransformerBackbone(3, 16, 1, 3)
    with pytest.raises(UserError, match="scale is 'root'"):
        RadialFormer(3, 16, 1, 2, 8, scale="root")


def test_forward_times_keep_their_budget_and_are_complete():
    start = time.perf_counter()
    times = complexity.forward_times((4, 8, 16), width=16, repeats=2, budget=10)
    assert time.perf_counter() - start < 20
    assert sorted(zip(times["backbone"], times["n"], strict=True)) == sorted(
        (name, n) for name in BACKBONES for n in (4, 8, 16)
    )
    assert (times["ms"] > 0).all()
    none = complexity.forward_times((4, 8, 16), width=16, repeats=2, budget=0.0)
    assert set(none["n"]) == {4}, "with no time left, only the first size is measured"


def test_slopes_and_ratio_by_hand():
    import pandas as pd

    n = np.array([8, 64, 128, 256])
    times = pd.concat(
        [
            pd.DataFrame({"backbone": "radialformer", "n": n, "ms": np.where(n < 64, 7.0, 2.0 * n)}),
            pd.DataFrame({"backbone": "transformer", "n": n, "ms": 0.1 * n**2.0}),
        ]
    )
    assert complexity.slopes(times) == pytest.approx({"radialformer": 1.0, "transformer": 2.0})
    assert complexity.ratio(times, 128) == pytest.approx(6.4)
    assert np.isnan(complexity.ratio(times, 99))


def test_is_much_faster_than_a_transformer_of_equal_size():
    """The benchmark asks for 4x; on a machine at work on other things this holds it to 2x."""
    times = complexity.forward_times((128,), backbones=("radialformer", "transformer"), repeats=5)
    assert complexity.ratio(times, 128) > 2


def test_batch_times():
    rng = np.random.default_rng(0)
    quality = (rng.random((40, 3)) > 0.5).astype(float)
    benchmark = RoutingBenchmark(
        name="toy", prompts=["p"] * 40, tasks=["t"] * 40, models=["a", "b", "c"], quality=quality,
        cost=np.ones((40, 3)), cost_unit="USD per prompt", origin="simulated",
    )  # fmt: skip
    embeddings = rng.normal(size=(40, 6))
    router = RadialRouter(width=8, layers=1, heads=2, head_width=4, steps=2, group_dims=0, n_groups=2)
    router.fit(benchmark, embeddings)
    times = complexity.batch_times({"a": router, "b": router}, embeddings, batch=16, repeats=3)
    assert list(times) == ["a", "b"]
    assert times.shape == (3, 2)
    assert (times > 0).all(axis=None)
    with pytest.raises(UserError, match="40 embeddings for batches of 64"):
        complexity.batch_times({"a": router}, embeddings)
