"""The prefix trap: what of a prompt an encoder receives, once it is cut to the encoder's length.

RouterBench prompts of one source dataset share a long prefix of worked examples. An encoder that keeps the first 256
tokens of such a prompt receives the same input for every question, so no router on top of it can tell them apart
(RR-20). An input is what is left after truncation, as a sequence of token ids: equal inputs, equal vectors.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from replications.radialrouter.baselines import datasets_of
from routebook.benchmark import RoutingBenchmark
from routebook.encoders import Encoder, embed, encoder
from routebook.errors import UserError

Side = Literal["right", "left"]
LENGTHS = (64, 128, 256, 512)


def tokenizer_of(name: str | Encoder = "minilm") -> Any:
    """Return an encoder's tokenizer, without loading its weights."""
    with warnings.catch_warnings():
        # As in routebook.encoders: a notebook without widgets need not hear of it.
        warnings.filterwarnings("ignore", message="IProgress not found")
        from transformers import AutoTokenizer

    model = encoder(name)
    return AutoTokenizer.from_pretrained(model.source, revision=model.revision)


def token_ids(prompts: Sequence[str], tokenizer: Any) -> list[tuple[int, ...]]:
    """Return the tokens of each whole prompt, without the special tokens that the encoder puts around them."""
    # verbose=False: a prompt longer than the model is what this module is about, not worth a warning.
    unique = list(dict.fromkeys(prompts))
    ids = tokenizer(unique, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    found = dict(zip(unique, map(tuple, ids), strict=True))
    return [found[prompt] for prompt in prompts]


def truncate(ids: Sequence[tuple[int, ...]], length: int, tokenizer: Any, side: Side = "right") -> list[tuple]:
    """Cut token sequences as an encoder of `length` positions does, special tokens taking their share.

    Parameters
    ----------
    ids
        As `token_ids` returns them.
    length
        Tokens the encoder receives at most, special tokens included.
    side : {"right", "left"}
        The end that is cut off: "right" keeps the beginning of a prompt (MiniLM's default), "left" its end.

    Raises
    ------
    UserError
        When no token fits beside the special ones, or the side is none.
    """
    room = length - tokenizer.num_special_tokens_to_add(pair=False)
    if room < 1:
        raise UserError(
            f"length is {length}: beside the encoder's special tokens that leaves {room} tokens of a prompt"
        )
    if side not in ("right", "left"):
        raise UserError(f"side is {side!r}, expected 'right' or 'left'")
    return [sequence[:room] if side == "right" else sequence[-room:] for sequence in ids]


def distinct_inputs(
    benchmarks_by_view: Mapping[str, RoutingBenchmark],
    tokenizer: Any,
    lengths: Sequence[int] = LENGTHS,
    sides: Sequence[Side] = ("right",),
) -> pd.DataFrame:
    """Count the distinct inputs that an encoder receives, for each prompt view, length and source dataset.

    Parameters
    ----------
    benchmarks_by_view
        The same prompts in each view, e.g. ``{view: load("routerbench", prompt_view=view) for view in PROMPT_VIEWS}``.
    tokenizer
        The encoder's (`tokenizer_of`).
    lengths
        Maximum lengths in tokens.
    sides
        Sides of truncation.

    Returns
    -------
    DataFrame
        One row a view, side, length and dataset: `view`, `side`, `length`, `dataset`, `prompts`, `distinct` (inputs),
        `share` (distinct / prompts: 1 = every prompt can be told apart), `largest` (share of the prompts that have
        the most common input), `cut` (share of the prompts that lose a token), `tokens` (of all distinct inputs, the
        work it takes to embed them).
    """
    rows = []
    for view, benchmark in benchmarks_by_view.items():
        ids, datasets = token_ids(benchmark.prompts, tokenizer), datasets_of(benchmark)
        for side in sides:
            for length in lengths:
                inputs = truncate(ids, length, tokenizer, side)
                where = {"view": view, "side": side, "length": length}
                for dataset in np.unique(datasets):
                    at = np.flatnonzero(datasets == dataset)
                    lost = sum(len(inputs[i]) < len(ids[i]) for i in at)
                    counted = _count([inputs[i] for i in at]) | {"cut": lost / len(at)}
                    rows.append(where | {"dataset": str(dataset)} | counted)
    return pd.DataFrame(rows)


def _count(inputs: Sequence[tuple[int, ...]]) -> dict[str, float]:
    times: dict[tuple[int, ...], int] = {}
    for sequence in inputs:
        times[sequence] = times.get(sequence, 0) + 1
    n = len(inputs)
    return {
        "prompts": n,
        "distinct": len(times),
        "share": len(times) / n,
        "largest": max(times.values()) / n,
        "tokens": sum(map(len, times)),
    }


def prompt_lengths(benchmarks_by_view: Mapping[str, RoutingBenchmark], tokenizer: Any) -> pd.DataFrame:
    """Measure prompts in tokens, special ones not counted: one row a view and dataset.

    Columns: `view`, `dataset`, `prefix` (tokens that all prompts of the dataset begin with), `median`, `longest`.
    """
    rows = []
    for view, benchmark in benchmarks_by_view.items():
        ids, datasets = token_ids(benchmark.prompts, tokenizer), datasets_of(benchmark)
        for dataset in np.unique(datasets):
            here = [ids[i] for i in np.flatnonzero(datasets == dataset)]
            # All sequences share what the first and the last in sorted order share.
            pairs = zip(min(here), max(here), strict=False)
            prefix = next((place for place, (a, b) in enumerate(pairs) if a != b), min(map(len, here)))
            lengths = [len(sequence) for sequence in here]
            measured = {"prefix": prefix, "median": float(np.median(lengths)), "longest": max(lengths)}
            rows.append({"view": view, "dataset": str(dataset)} | measured)
    return pd.DataFrame(rows)


def embed_truncated(
    view: Sequence[str] | RoutingBenchmark,
    max_length: int,
    *,
    side: Side = "right",
    encoder: str = "minilm",
    cache: bool = True,
) -> np.ndarray:
    """Embed prompts cut to `max_length` tokens at one side, [N, D] float32, encoding each distinct input once.

    A prompt that is not cut is encoded at the encoder's own length where it fits there, and one that is cut to that
    very length likewise, so that vectors cached by any other page are found: the input, and so the vector, is the same.

    Parameters
    ----------
    view
        Prompts in one view, or a benchmark that holds them.
    max_length
        Tokens, special ones included; at most the encoder's positions (512 for MiniLM).

    Raises
    ------
    UserError
        As in `truncate` and `routebook.encoders.embed`, and when the encoder has fewer positions.
    """
    prompts = view.prompts if isinstance(view, RoutingBenchmark) else list(view)
    tokenizer = tokenizer_of(encoder)
    ids = token_ids(prompts, tokenizer)
    inputs = truncate(ids, max_length, tokenizer, side)
    first: dict[tuple[int, ...], int] = {}
    for place, sequence in enumerate(inputs):
        # A whole prompt stands for its input rather than one that has to be cut to it.
        if sequence not in first or len(ids[place]) < len(ids[first[sequence]]):
            first[sequence] = place
    plain, cut = _encoder_named(encoder), _cut_encoder(encoder, max_length, side, tokenizer)
    own = _own_length(plain, tokenizer)
    fits = (own or 0) - tokenizer.num_special_tokens_to_add(pair=False)
    vectors: dict[tuple[int, ...], np.ndarray] = {}
    for model, chosen in ((plain, True), (cut, False)):
        part = [s for s, place in first.items() if (len(ids[place]) == len(s) <= fits) is chosen]
        if part:
            embedded = embed([prompts[first[s]] for s in part], model, cache=cache)
            vectors |= dict(zip(part, embedded, strict=True))
    return np.stack([vectors[sequence] for sequence in inputs])


# The parameter `encoder` of `embed_truncated` hides the function's name.
_encoder_named = encoder


def _cut_encoder(name: str, max_length: int, side: Side, tokenizer: Any) -> Encoder:
    """Return the encoder that cuts at this length and side; the plain one where that is what it does anyway."""
    length = None if max_length == _own_length(_encoder_named(name), tokenizer) else max_length
    return _encoder_named(
        name, max_seq_length=length, truncation_side=None if side == tokenizer.truncation_side else side
    )


def _own_length(model: Encoder, tokenizer: Any) -> int | None:
    """The length in tokens that a local sentence-transformers model cuts at by itself; None for any other model."""
    settings = Path(model.source) / "sentence_bert_config.json"
    if model.kind == "hub" or not settings.is_file():
        return None
    # Newer versions of sentence-transformers keep it in the tokenizer.
    return json.loads(settings.read_text()).get("max_seq_length") or tokenizer.model_max_length


def sample_rows(benchmark: RoutingBenchmark, per_dataset: int, seed: int = 0) -> np.ndarray:
    """Draw at most `per_dataset` prompts of each source dataset, of each split in its share: sorted rows, [n].

    For the cells whose embedding takes too long; say the sample on the page.
    """
    if per_dataset < 1:
        raise UserError(f"per_dataset is {per_dataset}, expected a number of prompts >= 1")
    rng = np.random.default_rng(seed)
    datasets = datasets_of(benchmark)
    split = np.zeros(len(benchmark), dtype="<U1") if benchmark.split is None else benchmark.split
    kept = []
    for dataset in np.unique(datasets):
        here = datasets == dataset
        share = min(1.0, per_dataset / here.sum())
        for part in np.unique(split[here]):
            rows = np.flatnonzero(here & (split == part))
            kept.append(rng.permutation(rows)[: max(round(share * len(rows)), 1)])
    return np.sort(np.concatenate(kept))
