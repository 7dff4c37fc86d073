"""Small networks trained side by side, with gradients written out.

The networks of the routers here have a few thousand weights: in torch's automatic differentiation most of a training
step goes into bookkeeping, new memory and gradients that nobody reads. Here several networks of equal shape compute
as one, in memory taken once, and the formulas of their few kinds of layer are written by hand. A network's numbers
are those of automatic differentiation up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class SideBySide:
    """T sequences of the same layers that compute as one: inputs [T, B, D] to outputs [T, B, ...].

    Knows the layers of the networks here: Linear, BatchNorm1d, ReLU. The networks themselves change in `hand_back`
    alone.

    Attributes
    ----------
    weights, gradients : Tensor, [number of weights of all networks]
        All trained parameters in a row, and where `backward` writes their gradients.

    Parameters
    ----------
    networks
        torch.nn.Sequential, equal but for their weights.
    """

    def __init__(self, networks: Sequence[Any]):
        import torch

        self._networks = networks
        columns = list(zip(*networks, strict=True))
        size = sum(parameter.numel() for network in networks for parameter in network.parameters())
        self.weights, self.gradients = torch.empty(size), torch.zeros(size)
        kinds = {torch.nn.Linear: _Linear, torch.nn.BatchNorm1d: _BatchNorm, torch.nn.ReLU: _ReLU}
        self._layers, start = [kinds[type(column[0])](column) for column in columns], 0
        for layer in self._layers:
            start = layer.settle(self.weights, self.gradients, start)

    def forward(self, inputs: Any) -> Any:
        """Return the outputs of a training batch, in memory that the next call writes over."""
        x = inputs
        for layer in self._layers:
            x = layer.forward(x)
        return x

    def backward(self, slope: Any) -> None:
        """Write the gradients of all weights, given the loss's gradient by the outputs of the last `forward`.

        `slope` [T, B, ...] is written over.
        """
        layers = list(self._layers)
        while layers:
            layer = layers.pop()
            if len(layers) == 1 and isinstance(layers[0], _BatchNorm) and isinstance(layer, _Linear):
                layer.backward_with_norm(slope, layers.pop())
            else:
                # Nobody asks for the gradient by the inputs.
                slope = layer.backward(slope, further=bool(layers))

    def hand_back(self) -> None:
        """Copy the state of each network into it and put it into evaluation mode."""
        for layer in self._layers:
            layer.hand_back()
        for network in self._networks:
            network.eval()


class _Layer:
    """One layer of every network; `state` holds its tensors stacked, [T, ...], `slopes` their gradients."""

    def __init__(self, column: Sequence[Any]):
        self._column = column
        self.state: dict[str, Any] = {}
        self.slopes: dict[str, Any] = {}
        self._rooms: dict[tuple, Any] = {}

    def settle(self, weights: Any, gradients: Any, start: int) -> int:
        """Move the layer's parameters to their place in `weights` and return where the next layer's begin."""
        import torch

        trained = {name for name, _ in self._column[0].named_parameters()}
        for name in self._column[0].state_dict():
            stacked = torch.stack([layer.state_dict()[name] for layer in self._column])
            if name in trained:
                place = slice(start, start + stacked.numel())
                self.state[name] = weights[place].view(stacked.shape).copy_(stacked)
                self.slopes[name] = gradients[place].view(stacked.shape)
                start = place.stop
            else:
                self.state[name] = stacked
        return start

    def room(self, use: str, shape: Sequence[int]) -> Any:
        """Return a tensor to write to, the same one whenever use and shape are: new memory costs as much as sums."""
        import torch

        key = use, *shape
        if key not in self._rooms:
            self._rooms[key] = torch.empty(tuple(shape))
        return self._rooms[key]

    def hand_back(self) -> None:
        for number, layer in enumerate(self._column):
            layer.load_state_dict({name: tensor[number] for name, tensor in self.state.items()})


class _Linear(_Layer):
    """x W^T + b."""

    def forward(self, x: Any) -> Any:
        import torch

        self._x, weight = x, self.state["weight"]
        out = self.room("output", (*x.shape[:2], weight.shape[1]))
        if "bias" in self.state:
            return torch.baddbmm(self.state["bias"][:, None], x, weight.mT, out=out)
        return torch.bmm(x, weight.mT, out=out)

    def backward(self, slope: Any, further: bool) -> Any:
        import torch

        torch.bmm(slope.mT, self._x, out=self.slopes["weight"])
        if "bias" in self.state:
            torch.sum(slope, dim=1, out=self.slopes["bias"])
        return torch.bmm(slope, self.state["weight"], out=self.room("slope", self._x.shape)) if further else None

    def backward_with_norm(self, slope: Any, norm: _BatchNorm) -> None:
        """Write the gradients of this layer and of the batch normalisation of the inputs before it.

        With y = g x_hat + c, z = W y + b and s the gradient by z, let G = sum of s x_hat^T over the batch. Then W has
        the gradient G g + (sum of s) c^T, g the column sums of W G entry by entry, and c has W^T (sum of s), without
        the gradient by y, which is the largest product of the backward pass.
        """
        import torch

        weight, by_weight, by_bias = self.state["weight"], self.slopes["weight"], slope.sum(dim=1, keepdim=True)
        by_scale = torch.bmm(slope.mT, norm.normalised, out=self.room("by scale", weight.shape))
        torch.sum(torch.mul(weight, by_scale, out=by_weight), dim=1, out=norm.slopes["weight"])
        torch.bmm(by_bias, weight, out=norm.slopes["bias"][:, None])
        torch.mul(by_scale, norm.state["weight"][:, None], out=by_weight)
        by_weight.addcmul_(by_bias.mT, norm.state["bias"][:, None])
        if "bias" in self.state:
            self.slopes["bias"].copy_(by_bias[:, 0])


class _ReLU(_Layer):
    """max(x, 0), in place: no layer before it needs its own output again."""

    def forward(self, x: Any) -> Any:
        self._output = x.relu_()
        return self._output

    def backward(self, slope: Any, further: bool) -> Any:
        import torch

        return torch.ops.aten.threshold_backward.grad_input(slope, self._output, 0, grad_input=slope)


class _BatchNorm(_Layer):
    """Batch normalisation of each network's batch, with the running moments that its evaluation mode reads."""

    def forward(self, x: Any) -> Any:
        import torch

        first, rows = self._column[0], x.shape[1]
        x_hat, out = self.room("normalised", x.shape), self.room("output", x.shape)
        mean = x.mean(dim=1, keepdim=True)
        torch.sub(x, mean, out=x_hat)
        variance = torch.mul(x_hat, x_hat, out=out).mean(dim=1, keepdim=True)
        self._scale = (variance + first.eps).rsqrt_()
        self.normalised = x_hat.mul_(self._scale)
        self.state["running_mean"].lerp_(mean[:, 0], first.momentum)
        self.state["running_var"].lerp_(variance[:, 0] * (rows / (rows - 1)), first.momentum)
        return torch.addcmul(self.state["bias"][:, None], x_hat, self.state["weight"][:, None], out=out)

    def backward(self, slope: Any, further: bool) -> Any:
        import torch

        x_hat, rows = self.normalised, slope.shape[1]
        torch.sum(slope, dim=1, out=self.slopes["bias"])
        product = torch.mul(slope, x_hat, out=self.room("product", slope.shape))
        torch.sum(product, dim=1, out=self.slopes["weight"])
        # The mean and variance of the batch depend on every one of its rows.
        slope.addcmul_(x_hat, self.slopes["weight"][:, None], value=-1 / rows)
        slope.sub_(self.slopes["bias"][:, None], alpha=1 / rows)
        return slope.mul_(self.state["weight"][:, None] * self._scale)


class Adam:
    """AdamW on all weights at once, as torch.optim.AdamW(fused=True) but for what that does besides the sums.

    torch's own step spends about ten times as long on checks and hooks as a network this small needs.

    Parameters
    ----------
    weights, gradients : Tensor, [n]
        Read and changed where they are.
    lr, eps
        Step size and epsilon; the decay rates of the moments are the usual .9 and .999.
    weight_decay
        Weights shrink by lr * weight_decay a step, apart from the gradient; 0 is plain Adam.
    """

    def __init__(self, weights: Any, gradients: Any, lr: float, eps: float, weight_decay: float = 0.0):
        import torch

        self._lists = [[weights], [gradients], [torch.zeros_like(weights)], [torch.zeros_like(weights)], []]
        self._steps = torch.zeros(())
        self._options = {"lr": lr, "beta1": 0.9, "beta2": 0.999, "eps": eps, "weight_decay": weight_decay}

    def step(self) -> None:
        """Change the weights by one step along the gradients."""
        import torch

        self._steps += 1
        torch._fused_adamw_(*self._lists, [self._steps], amsgrad=False, maximize=False, **self._options)
