"""TinyPool's tokenizer and models: decoder-only transformers of 5 thousand to a million parameters.

A word is one token; a number is its digits, units first (so that a sum can be written down digit by digit); a text
in quotes is its letters. Positions count from where the answer begins, so that a question means the same to a model
however many words come before it.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

END, ASK = "<end>", "<ask>"
MAX_PROMPT = 48
MAX_ANSWER = 12
PLACES = MAX_ANSWER + 1
FIRST_RUN, ANSWER_SEGMENT, SEGMENTS = 8, 14, 15
_PIECES = re.compile(r'"[a-z]+"|\d+|[a-z]+|,|\.')


class Tokenizer:
    """Turns text into tokens with their places and back; a vocabulary's first two tokens are END and ASK.

    A token is three numbers: its id; its place, which counts the digits of a number from the units and the letters of
    a quoted text from the first (0 for words); and its segment, which numbers the sentences for words and the
    numbers and quoted texts for digits and letters. An answer's tokens have places 1, 2, ... and a segment of their
    own. Such places let a small model line up digits at once (Abacus embeddings: McLeish et al., 2024).
    """

    def __init__(self, vocabulary: list[str]) -> None:
        self.vocabulary = vocabulary
        self.ids = {token: i for i, token in enumerate(vocabulary)}

    @staticmethod
    def split(text: str) -> list[tuple[str, int, int]]:
        """Return a text's tokens, places and segments."""
        tokens: list[tuple[str, int, int]] = []
        lowered, sentence, run = text.lower(), 0, 0
        for piece in _PIECES.finditer(lowered):
            found = piece[0]
            if found == ".":
                sentence += 1
            elif found == ",":
                if lowered[piece.start() - 1].isdigit():
                    tokens.append((",", 0, sentence))
            elif found[0] == '"' or found.isdigit():
                inside = found[1:-1] if found[0] == '"' else found[::-1]
                tokens += [(token, i + 1, FIRST_RUN + run) for i, token in enumerate(inside)]
                run += 1
            else:
                tokens.append((found, 0, sentence))
        return tokens

    def prompt(self, text: str) -> np.ndarray:
        """Return a prompt's ids, places and segments, [3, P], ending in ASK; an unknown word raises KeyError."""
        known = [(self.ids[token], place, segment) for token, place, segment in self.split(text)]
        return np.array([*known, (self.ids[ASK], 0, ANSWER_SEGMENT)], dtype=np.int64).T

    def answer(self, text: str, spelled: bool = False) -> list[int]:
        """Return an answer's ids, ending in END; `spelled` answers are letters."""
        return [self.ids[token] for token, *_ in self.split(f'"{text}"' if spelled else text)] + [self.ids[END]]

    def text(self, ids: list[int]) -> str:
        """Return the text of generated ids: numbers most significant digit first, letters joined, words spaced."""
        runs: list[tuple[str, str]] = []
        for token in (self.vocabulary[i] for i in ids):
            kind = "digit" if token.isdigit() else "letter" if len(token) == 1 else "word"
            if runs and kind != "word" and runs[-1][0] == kind:
                runs[-1] = (kind, runs[-1][1] + token)
            else:
                runs.append((kind, token))
        return " ".join(text[::-1] if kind == "digit" else text for kind, text in runs)


@dataclass(frozen=True)
class Shape:
    """Size of a model: width, layers and attention heads."""

    width: int
    layers: int
    heads: int


class Block(nn.Module):
    """One transformer layer: attention and a ReLU network, each after a layer norm and added to its input."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d = shape.width
        self.heads = shape.heads
        self.norm1, self.norm2 = nn.LayerNorm(d, bias=False), nn.LayerNorm(d, bias=False)
        self.qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.up, self.down = nn.Linear(d, 4 * d, bias=False), nn.Linear(4 * d, d, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None, past: list[Tensor]) -> Tensor:
        """Return the layer's output, [B, L, D]; `past` holds earlier keys and values and is extended in place."""
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if past:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        past[:] = [k, v]
        causal = mask is None and n > 1
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, n, d))
        return x + self.down(F.relu(self.up(self.norm2(x))))


class TinyLM(nn.Module):
    """A decoder-only transformer with tied embeddings and learned positions that count from the answer's start."""

    def __init__(self, n_vocabulary: int, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(n_vocabulary, shape.width)
        self.position = nn.Embedding(MAX_PROMPT + MAX_ANSWER, shape.width)
        self.place = nn.Embedding(PLACES, shape.width)
        self.segment = nn.Embedding(SEGMENTS, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width, bias=False)
        for name, weights in self.named_parameters():
            if weights.dim() == 2:
                scale = 1.0 if "blocks" in name else 0.5
                shrink = (2 * shape.layers) ** -0.5 if name.endswith(("out.weight", "down.weight")) else 1.0
                nn.init.normal_(weights, std=scale * shrink * shape.width**-0.5)

    def forward(self, tokens: Tensor, first: int, mask: Tensor | None = None, past: list | None = None) -> Tensor:
        """Return hidden states, [B, L, D].

        Parameters
        ----------
        tokens : Tensor of int, [3, B, L]
            Ids, places and segments.
        first
            Position of the first column; ASK, the last token of a prompt, is at MAX_PROMPT - 1.
        mask : Tensor of bool, [B, 1, L, L], or None for a causal mask
        past
            Keys and values of earlier columns, one list a layer; extended in place.
        """
        past = [[] for _ in self.blocks] if past is None else past
        ids, place, segment = tokens
        x = self.embedding(ids) + self.place(place) + self.segment(segment)
        x = x + self.position.weight[first : first + ids.shape[1]]
        for block, kept in zip(self.blocks, past, strict=True):
            x = block(x, mask, kept)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of the next token, [..., V]."""
        return hidden @ self.embedding.weight.T

    @property
    def n_parameters(self) -> int:
        """Number of weights, embeddings included."""
        return sum(weights.numel() for weights in self.parameters())

    def flops(self, n_prompt: np.ndarray, n_generated: np.ndarray) -> np.ndarray:
        """Return the floating-point operations of an answer (two a multiply-add), keys and values cached.

        Every token but the last generated one passes through the layers; a generated token costs one product with the
        embeddings; a token attends to itself and all tokens before it. Norms and look-ups are not counted.
        """
        d, layers, v = self.shape.width, self.shape.layers, self.embedding.num_embeddings
        passed = n_prompt + n_generated - 1
        return 2 * (12 * layers * d * d * passed + layers * d * passed * (passed + 1) + v * d * n_generated)


@torch.no_grad()
def generate(model: TinyLM, prompts: Tensor, steps: int, end: int | None) -> tuple[np.ndarray, Tensor]:
    """Decode greedily, with keys and values cached.

    Parameters
    ----------
    prompts : Tensor of int, [3, B, P]
        Prompts of one length, each ending in ASK: nothing is padded.
    steps
        Tokens to generate at most.
    end
        Stop when every row has produced this token; None: never stop early.

    Returns
    -------
    ids : ndarray of int, [B, S]
    total : Tensor, [B, V]
        Sum over the S steps of the probability of every token, as CSCR's Eq. (2) needs it.
    """
    past: list[list[Tensor]] = [[] for _ in model.blocks]
    tokens, first, made = prompts, MAX_PROMPT - prompts.shape[2], []
    total = torch.zeros(prompts.shape[1], model.embedding.num_embeddings, dtype=model.embedding.weight.dtype)
    done = torch.zeros(prompts.shape[1], dtype=torch.bool)
    for step in range(steps):
        logits = model.logits(model(tokens, first, past=past)[:, -1])
        total += logits.softmax(-1)
        first += tokens.shape[2]
        ids = logits.argmax(-1, keepdim=True)
        tokens = torch.stack([ids, torch.full_like(ids, step + 1), torch.full_like(ids, ANSWER_SEGMENT)])
        made.append(ids)
        if end is not None:
            done |= ids[:, 0] == end
            if done.all():
                break
    return torch.cat(made, 1).numpy(), total


def save(path: Path, model: TinyLM) -> None:
    """Write a model's weights in half precision, with its shape; the same weights give the same bytes."""
    arrays = {name: weights.detach().numpy().astype(np.float16) for name, weights in model.named_parameters()}
    partial = path.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.savez(stream, shape=np.array(json.dumps(asdict(model.shape))), **arrays)
    partial.replace(path)


def read(path: Path) -> TinyLM:
    """Read a model; answers are computed in double precision, so that they do not depend on the machine."""
    with np.load(path, allow_pickle=False) as arrays:
        shape = Shape(**json.loads(str(arrays["shape"])))
        model = TinyLM(len(arrays["embedding.weight"]), shape).double()
        model.load_state_dict(
            {name: torch.from_numpy(arrays[name]).double() for name in arrays.files if name != "shape"}
        )
    return model.eval()
