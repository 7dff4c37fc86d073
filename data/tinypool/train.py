"""Training TinyPool's models: mixtures of task families, answers only, AdamW with warm-up and cosine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from model import ANSWER_SEGMENT, MAX_ANSWER, MAX_PROMPT, Shape, TinyLM, Tokenizer
from tasks import FAMILIES, LEVELS, SPELLED, draw
from torch.nn import functional as F

IGNORED = -100


@dataclass(frozen=True)
class Recipe:
    """How a model is made: its shape, its diet and its training.

    Attributes
    ----------
    diet
        Family to its weight in the training mixture.
    levels
        Difficulties in the diet.
    examples
        Number of training examples seen.
    """

    name: str
    shape: Shape
    diet: dict[str, float]
    examples: int
    levels: tuple[int, ...] = LEVELS
    batch: int = 192
    rate: float = 4e-3


@dataclass(frozen=True)
class Examples:
    """Training examples of one family: prompts right-aligned, answers left-aligned, int16.

    Attributes
    ----------
    prompt : ndarray, [N, 3, MAX_PROMPT]
        Ids, places and segments; -1 before the prompt begins.
    answer : ndarray, [N, MAX_ANSWER]
        Ids; -1 after END.
    level : ndarray, [N]
    """

    prompt: np.ndarray
    answer: np.ndarray
    level: np.ndarray


def texts(family: str, n: int, seed: int, avoid: set[str], weights: dict[int, float] | None) -> list[tuple]:
    """Draw n training questions of a family (prompt, answer, level), none of them in `avoid`."""
    rng = np.random.default_rng([seed, 1, list(FAMILIES).index(family)])
    shares = np.array([1.0 if weights is None else weights[level] for level in LEVELS])
    levels = rng.choice(LEVELS, size=n, p=shares / shares.sum())
    found = []
    for level in levels:
        question = draw(rng, family, int(level))
        while question.prompt in avoid:
            question = draw(rng, family, int(level))
        found.append((question.prompt, question.answer, int(level)))
    return found


def encode(family: str, questions: list[tuple], tokenizer: Tokenizer) -> Examples:
    """Turn training questions into arrays of ids."""
    prompt = np.full((len(questions), 3, MAX_PROMPT), -1, dtype=np.int16)
    answer = np.full((len(questions), MAX_ANSWER), -1, dtype=np.int16)
    for i, (asked, right, _) in enumerate(questions):
        tokens, reply = tokenizer.prompt(asked), tokenizer.answer(right, family in SPELLED)
        prompt[i, :, MAX_PROMPT - tokens.shape[1] :] = tokens
        answer[i, : len(reply)] = reply
    return Examples(prompt, answer, np.array([level for *_, level in questions], dtype=np.int8))


def _batch_loss(model: TinyLM, prompt: np.ndarray, answer: np.ndarray) -> torch.Tensor:
    """Return the summed cross-entropy of the answers of a batch, with no column wasted on padding."""
    filled = prompt[:, 0] >= 0
    width, height = int(filled.sum(1).max()), int((answer >= 0).sum(1).max())
    prompt, answer = prompt[:, :, MAX_PROMPT - width :], answer[:, :height]
    given = answer[:, :-1]
    places = np.broadcast_to(np.arange(1, height, dtype=given.dtype), given.shape)
    reply = np.stack([given, places, np.full_like(given, ANSWER_SEGMENT)], 1)
    tokens = torch.from_numpy(np.concatenate([prompt, reply], 2).clip(0).astype(np.int64)).transpose(0, 1)
    n = tokens.shape[2]
    starts = torch.from_numpy(width - filled.sum(1))
    # A query in the padding sees itself alone, so that no row of the softmax is empty.
    visible = torch.ones(n, n, dtype=torch.bool).tril() & (torch.arange(n) >= starts[:, None])[:, None, :]
    visible |= torch.eye(n, dtype=torch.bool)
    hidden = model(tokens, MAX_PROMPT - width, mask=visible[:, None])[:, width - 1 :]
    wanted = torch.from_numpy(np.where(answer >= 0, answer, IGNORED).astype(np.int64))
    kept = wanted != IGNORED
    return F.cross_entropy(model.logits(hidden[kept]), wanted[kept], reduction="sum")


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal by Newton-Schulz steps (Jordan et al., 2024), for the matrices inside the layers.

    torch.optim.Muon does the steps in bfloat16, which processors without such units emulate at a tenth of the speed.
    """

    def __init__(self, weights: list[torch.nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.01):
        shapes = dict.fromkeys(w.shape for w in weights)
        groups = [{"params": [w for w in weights if w.shape == shape]} for shape in shapes]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self) -> None:
        """Update all matrices, those of one shape together."""
        for group in self.param_groups:
            weights, momentum = group["params"], group["momentum"]
            gradient = torch.stack([w.grad for w in weights])
            kept = self.state[weights[0]].setdefault("momentum", torch.zeros_like(gradient))
            kept.lerp_(gradient, 1 - momentum)
            update = _orthogonal(gradient.lerp(kept, momentum))
            rate = 0.2 * group["lr"] * max(update.shape[1:]) ** 0.5
            for w, change in zip(weights, update, strict=True):
                w.mul_(1 - group["lr"] * group["decay"]).sub_(change, alpha=rate)


def _orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Return matrices with the same singular vectors and singular values near 1, [n, A, B]."""
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


def _optimisers(model: TinyLM, rate: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices inside the layers and AdamW for embeddings and norms."""
    inside = [w for name, w in model.named_parameters() if "blocks" in name and w.dim() == 2]
    others = [w for name, w in model.named_parameters() if not ("blocks" in name and w.dim() == 2)]
    both = [
        Muon(inside, lr=rate),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.01, foreach=True),
    ]
    for optimiser in both:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return both


def train(
    recipe: Recipe, data: dict[str, Examples], n_vocabulary: int, seed: int, report: Callable[[str], None], bar=None
) -> TinyLM:
    """Train one model; the same recipe, data and seed give the same weights on the same machine.

    A batch mixes all families of the diet and is computed in three parts of like length, so that short prompts are
    not padded to the longest one.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 2])
    model = TinyLM(n_vocabulary, recipe.shape)
    optimisers = _optimisers(model, recipe.rate)
    steps = max(recipe.examples // recipe.batch, 1)
    families = list(recipe.diet)
    shares = np.array([recipe.diet[f] for f in families])
    rows = {f: np.flatnonzero(np.isin(data[f].level, recipe.levels)) for f in families}
    started, seen = time.monotonic(), 0.0
    for step in range(steps):
        counts = rng.multinomial(recipe.batch, shares / shares.sum())
        picked = [(f, rng.choice(rows[f], n)) for f, n in zip(families, counts, strict=True) if n]
        prompt = np.concatenate([data[f].prompt[r] for f, r in picked])
        answer = np.concatenate([data[f].answer[r] for f, r in picked])
        order = np.argsort((prompt[:, 0] >= 0).sum(1), kind="stable")
        warm = min(1.0, (step + 1) / (0.04 * steps + 20))
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * warm * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * step / steps)))
        n_tokens = int((answer >= 0).sum())
        for part in np.split(order, [len(order) // 2, len(order) * 4 // 5]):
            loss = _batch_loss(model, prompt[part], answer[part]) / n_tokens
            loss.backward()
            seen += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        if bar is not None:
            bar.update(recipe.batch)
        if (step + 1) % max(steps // 10, 1) == 0:
            speed = (step + 1) * recipe.batch / (time.monotonic() - started)
            report(
                f"{recipe.name}: step {step + 1}/{steps} loss {seen / max(steps // 10, 1):.3f} {speed:.0f} examples/s"
            )
            seen = 0.0
    return model.eval()
