"""Model fingerprints (Section 3.1): what an LLM is to the router, measured on probe prompts, without any label.

Logit footprints (Eqs. 1 and 2) need an LLM's probabilities, perplexity fingerprints (Eqs. 3 to 5) only its answers,
which a small public language model reads. Scores of three pools lie in `fingerprints/`; each is made again with

    python -m replications.cscr.fingerprints routerbench    # or alpaca-eval, tinypool
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import yaml

from routebook import load
from routebook.benchmark import RoutingBenchmark
from routebook.datasets import prompt_views, tinypool
from routebook.encoders import VectorCache
from routebook.errors import DataError, UserError, suggest
from routebook.language_models import LanguageModel, load_causal_lm
from routebook.paths import cache_dir
from routebook.progress import progress
from routebook.threads import one_torch_thread

if TYPE_CHECKING:
    import pandas as pd

HERE = Path(__file__).resolve().parent / "fingerprints"
SCORER = "smollm2"
N_PROBES = 192
STEPS = 10
TOP_TOKENS = 256
MAX_TOKENS = 256
# Tokens read of a response, by pool. AlpacaEval's answers are long, and there are eight thousand of them; their first
# sentences still are three times as long as the horizon of the logit footprints that the paper used on such a pool.
POOLS = {"routerbench": MAX_TOKENS, "alpaca-eval": 32, "tinypool": MAX_TOKENS}
KINDS = ("paper", "code")
DESCRIPTORS = ("perplexity", "logit")
# Tokens, padding included, that a batch may hold: its logits then take about 100 MB.
BATCH_TOKENS = 512
WORKERS = 2
# Raise it when the same scorer and text would give another score.
RULES = "1"

# What an LLM was trained from, by its name; the first rule that finds itself counts.
BASES = {
    "falcon": r"falcon",
    "pythia": r"pythia",
    "gemma": r"gemma",
    "qwen": r"qwen|qwq",
    "mistral": r"mistral|mixtral|mathstral",
    "llama": r"llama|alpaca|vicuna|wizardlm|ultralm|baize|nous-hermes|minotaur|minichat",
    "claude": r"claude",
    "gpt": r"gpt|davinci",
    "phi": r"\bphi-",
    "yi": r"\byi-",
    "glm": r"glm",
}


class Scores(NamedTuple):
    """What the scorer read: one entry a response, in the shape the responses came in.

    Attributes
    ----------
    cross_entropy : ndarray of float
        Mean negative log-probability of a token, in nats.
    tokens : ndarray of int
        Tokens of the whole response; 0 for an empty one. Those above the cap were not read.
    """

    cross_entropy: np.ndarray
    tokens: np.ndarray


class Fingerprints(NamedTuple):
    """Descriptors of a pool's LLMs.

    Attributes
    ----------
    descriptors : ndarray of float, [M, D']
        Each of length 1, so that inner products are cosine similarities.
    models : list of str, length M
    probe_ids : ndarray of str, [N]
        The prompts they were measured on; no router may be trained or tested on them.
    """

    descriptors: np.ndarray
    models: list[str]
    probe_ids: np.ndarray


@dataclass(frozen=True, eq=False)
class ProbeScores:
    """Raw scores of a pool, before Eq. (4).

    Attributes
    ----------
    cross_entropy : DataFrame, [N, M]
        In nats a token; one row a probe (its id), one column an LLM.
    tokens : DataFrame, [N, M]
        Length of every answer in the scorer's tokens; 0 for an empty one.
    max_tokens
        Tokens read of an answer at most.
    """

    cross_entropy: pd.DataFrame
    tokens: pd.DataFrame
    max_tokens: int


# --- logit footprints ------------------------------------------------------------------------------------------------


def token_texts(tokenizer: Any) -> dict[str, int]:
    """Return what each token of a vocabulary adds to a text, and its id (the lowest where several add the same).

    Spaces belong to the text: byte-level "Ġthe" and SentencePiece's "▁the" are both " the". Special tokens, tokens
    that add nothing, and pieces of a character are left out.
    """
    special = set(tokenizer.all_special_ids)
    before = tokenizer.encode("a", add_special_tokens=False)
    start = tokenizer.decode(before, clean_up_tokenization_spaces=False)
    found: dict[str, int] = {}
    for token in sorted(set(tokenizer.get_vocab().values()) - special):
        # Read after a letter, since SentencePiece drops a space that begins a text.
        text = tokenizer.decode([*before, token], clean_up_tokenization_spaces=False)
        added = text[len(start) :]
        if text.startswith(start) and added and "\ufffd" not in added:
            found.setdefault(added, token)
    return found


def shared_tokens(tokenizers: Sequence[Any], probes: Sequence[str], k: int = TOP_TOKENS) -> list[str]:
    """Return the token basis of Eq. (2): the k texts most frequent among the probes' tokens.

    Tokenizers are matched by text (`token_texts`). A text counts once for every time it is a token of a probe in any
    of the tokenizers, and must be a single token of all of them: a text that one of them cuts in pieces has no
    probability p(v | x, t) there. Ties in the order of the texts.

    Returns
    -------
    list of str, at most k
        Fewer where the tokenizers share fewer.

    Raises
    ------
    UserError
        When there is no probe, k < 1, or no shared text occurs in the probes.
    """
    if not len(probes) or not len(tokenizers) or k < 1:
        raise UserError(
            f"a token basis needs tokenizers, probes and k >= 1; found {len(tokenizers)} tokenizers, "
            f"{len(probes)} probes and k = {k}"
        )
    vocabularies = [token_texts(tokenizer) for tokenizer in tokenizers]
    common = set(vocabularies[0]).intersection(*vocabularies[1:])
    counts: Counter[str] = Counter()
    for tokenizer, vocabulary in zip(tokenizers, vocabularies, strict=True):
        text_of = {token: text for text, token in vocabulary.items()}
        for ids in tokenizer(list(probes), add_special_tokens=False)["input_ids"]:
            counts.update(text_of[token] for token in ids if text_of.get(token) in common)
    if not counts:
        raise UserError("the tokenizers share no token that occurs in the probes; give longer probes")
    return sorted(counts, key=lambda text: (-counts[text], text))[:k]


def logit_footprint(
    model: Any,
    tokenizer: Any,
    probes: Sequence[str],
    tokens: Sequence[str],
    steps: int = STEPS,
    batch_size: int = 16,
) -> np.ndarray:
    """Return the logit footprint of an LLM, Eq. (2), l2-normalised.

    The mean, over probes and over `steps` steps of greedy decoding, of the probability of each token of the basis
    (Eq. 1). Decoding runs on past an end token. A text of the basis that is no single token of this LLM has
    probability 0: it cannot be emitted as one token.

    Parameters
    ----------
    model, tokenizer
        Any causal LM of transformers (see `routebook.language_models.load_causal_lm`).
    probes : sequence of str, length N
        Read as the tokenizer gives them, its own special tokens included.
    tokens : sequence of str, length K
        The basis (`shared_tokens`).
    steps
        The horizon T.
    batch_size
        Probes decoded at a time, padded on the left; it changes the result by rounding alone.

    Returns
    -------
    ndarray of float, [K]

    Raises
    ------
    UserError
        When no text of the basis is a token of this LLM, a probe has no token or does not fit into the LLM's context,
        or `steps` or `batch_size` < 1.
    """
    if steps < 1 or batch_size < 1:
        raise UserError(f"steps is {steps} and batch_size {batch_size}, expected numbers >= 1")
    vocabulary = token_texts(tokenizer)
    columns = np.array([vocabulary.get(text, -1) for text in tokens], dtype=int)
    if not (columns >= 0).any():
        raise UserError(f"none of the {len(tokens)} tokens of the basis is in this LLM's vocabulary; share a basis")
    prompts = _probe_ids(model, tokenizer, probes, steps)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    total = np.zeros(len(tokens))
    with one_torch_thread():
        for start in range(0, len(order), batch_size):
            batch = [prompts[i] for i in order[start : start + batch_size]]
            total += _decode(model, batch, columns.clip(0), steps)
    total[columns < 0] = 0.0
    footprint = total / (len(prompts) * steps)
    return footprint / np.linalg.norm(footprint)


def _probe_ids(model: Any, tokenizer: Any, probes: Sequence[str], steps: int) -> list[list[int]]:
    """Return the probes' token ids after checking that each can be decoded from."""
    if isinstance(probes, str) or not len(probes):
        raise UserError("probes must be a sequence of at least one text")
    prompts = [list(ids) for ids in tokenizer(list(probes))["input_ids"]]
    room = getattr(model.config, "max_position_embeddings", None)
    for probe, ids in zip(probes, prompts, strict=True):
        if not ids:
            raise UserError(f"the probe {probe!r} has no token; leave it out")
        if room is not None and len(ids) + steps - 1 > room:
            raise UserError(
                f"the probe {probe[:40]!r}... has {len(ids)} tokens, which with {steps} steps is more than the "
                f"{room} the LLM can read; use shorter probes"
            )
    return prompts


def _decode(model: Any, prompts: list[list[int]], columns: np.ndarray, steps: int) -> np.ndarray:
    """Return the sum over prompts and steps of the probabilities of the tokens in `columns`, [K]."""
    import torch

    longest = max(map(len, prompts))
    # Left padding, so that the last column is each prompt's end.
    tokens = torch.tensor([[0] * (longest - len(ids)) + ids for ids in prompts])
    mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts])
    # Models with learned or rotary positions must count from the first real token; others take no positions.
    places = "position_ids" in inspect.signature(model.forward).parameters
    kept, total = None, np.zeros(len(columns))
    with torch.inference_mode():
        for _ in range(steps):
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
            options = {"position_ids": positions} if places else {}
            out = model(tokens, attention_mask=mask, past_key_values=kept, use_cache=True, **options)
            logits, kept = out.logits[:, -1].float(), out.past_key_values
            total += logits.softmax(-1)[:, columns].double().sum(0).numpy()  # Eq. (1)
            tokens = logits.argmax(-1, keepdim=True)
            mask = torch.cat([mask, torch.ones_like(tokens)], 1)
    return total


# --- perplexity fingerprints -----------------------------------------------------------------------------------------


def scores(
    scorer: str | LanguageModel, responses: Sequence[str] | np.ndarray, *, max_tokens: int = MAX_TOKENS
) -> Scores:
    """Return the mean token cross-entropy of each response under the scorer, Eq. (5).

    Eq. (5) conditions on earlier tokens of the response alone. The first token is scored after the scorer's
    start-of-document token (`LanguageModel.start`), so a response of one token has a score as well; an empty response
    is scored as that token once more, the end of an empty document. Nothing is divided by zero, and no score is
    infinite.

    Parameters
    ----------
    scorer
        A name (see `routebook.language_models.load_causal_lm`), e.g. ``"smollm2"`` or ``"gpt2"``, or a loaded model.
    responses : sequence or array of str, any shape
        Equal texts are scored once, and never again while they are in the cache.
    max_tokens
        A response is cut to its first so many tokens.

    Raises
    ------
    UserError
        When there is no response, one is not text, `max_tokens` < 1 or beyond the scorer's context, or the scorer
        cannot be had.
    DataError
        When a score is not finite: the scorer's weights are damaged.
    """
    texts = np.asarray(responses, dtype=object)
    for text in texts.ravel():
        if not isinstance(text, str):
            raise UserError(f"responses must be texts; found {text!r} ({type(text).__name__})")
    if texts.ndim == 0 or not texts.size:
        raise UserError("responses must be a sequence or array of at least one text")
    if max_tokens < 1:
        raise UserError(f"max_tokens is {max_tokens}, expected a number of tokens >= 1")
    lm = load_causal_lm(scorer) if isinstance(scorer, str) else scorer
    if lm.context is not None and max_tokens > lm.context:
        raise UserError(f"max_tokens is {max_tokens}, but {lm.name!r} reads {lm.context} tokens at most")
    unique = list(dict.fromkeys(texts.ravel()))
    salt = f"{RULES}\0{lm.identity}\0{max_tokens}\0".encode()
    keys = {text: hashlib.sha256(salt + text.encode("utf-8", "surrogatepass")).digest() for text in unique}
    store = VectorCache(cache_dir() / "fingerprints" / "scores.sqlite")
    found = store.get(list(keys.values()))
    missing = [text for text in unique if keys[text] not in found]
    found |= _score_missing(lm, missing, max_tokens, keys, store)
    values = np.array([found[keys[text]] for text in texts.ravel()], dtype=float).reshape(*texts.shape, 2)
    return Scores(values[..., 0], values[..., 1].astype(int))


def _score_missing(
    lm: LanguageModel, texts: list[str], max_tokens: int, keys: Mapping[str, bytes], store: VectorCache
) -> dict[bytes, np.ndarray]:
    """Score texts, those of like length together, and keep what is done: an interrupted run goes on from there."""
    ids = {text: lm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts}
    order = sorted(texts, key=lambda text: min(len(ids[text]), max_tokens))
    read = [ids[text][:max_tokens] or [lm.start] for text in order]
    found: dict[bytes, np.ndarray] = {}
    with progress(total=len(order), label=f"scoring with {lm.name}", unit="response") as bar:
        for part in _parts(read):
            chunk = order[part]
            entropy = _cross_entropy(lm, read[part])
            if not np.isfinite(entropy).all():
                bad = chunk[int(np.flatnonzero(~np.isfinite(entropy))[0])]
                raise DataError(f"scorer {lm.name!r} gave no finite score to {bad[:60]!r}; its weights are damaged")
            new = {
                keys[text]: np.array([value, len(ids[text])], dtype=np.float32)
                for text, value in zip(chunk, entropy, strict=True)
            }
            store.put(new)
            found |= new
            bar.update(len(chunk))
    return found


def _parts(responses: list[list[int]]) -> list[slice]:
    """Cut responses in ascending length into parts that fill a batch for every worker."""
    parts, start = [], 0
    while start < len(responses):
        stop = start + 1
        while stop < len(responses) and (stop + 1 - start) * len(responses[stop]) <= WORKERS * BATCH_TOKENS:
            stop += 1
        parts.append(slice(start, stop))
        start = stop
    return parts


def _cross_entropy(lm: LanguageModel, responses: list[list[int]]) -> np.ndarray:
    """Return the mean cross-entropy of the tokens of each response, [N]."""
    # One thread a batch, as in `encoders`: on a busy machine torch's own threads wait for one another.
    size = -(-len(responses) // WORKERS)
    batches = [responses[start : start + size] for start in range(0, len(responses), size)]
    with one_torch_thread(), ThreadPoolExecutor(WORKERS) as pool:
        return np.concatenate(list(pool.map(lambda batch: _batch_cross_entropy(lm, batch), batches)))


def _batch_cross_entropy(lm: LanguageModel, batch: list[list[int]]) -> np.ndarray:
    import torch
    from torch.nn.functional import cross_entropy

    ignored = -100
    longest = max(map(len, batch))
    # Padding on the right comes after every token that counts, so a causal model needs no mask.
    target = torch.tensor([ids + [ignored] * (longest - len(ids)) for ids in batch])
    with torch.inference_mode():
        read = torch.cat([torch.full((len(batch), 1), lm.start), target[:, :-1].clamp(min=0)], 1)
        logits = lm.model(read, use_cache=False).logits.float()
        losses = cross_entropy(logits.transpose(1, 2), target, reduction="none", ignore_index=ignored)
    return (losses.double().sum(1) / (target != ignored).sum(1)).numpy()  # Eq. (5)


def fingerprint(cross_entropy: np.ndarray, kind: Literal["paper", "code"] = "paper") -> np.ndarray:
    """Return perplexity fingerprints of length 1.

    Parameters
    ----------
    cross_entropy : array of float, [N] or [M, N]
        Scores on the N probes, one row an LLM.
    kind : {"paper", "code"}
        ``paper``: mean-centred and of unit variance (Eq. 4), then of length 1, as Section 3.2 normalises descriptors.
        ``code``: the authors' public code takes the perplexity, exp of the score, and divides by the length,
        without centring; the few worst-scored probes then make up nearly the whole vector.

    Returns
    -------
    ndarray of float, as `cross_entropy`

    Raises
    ------
    UserError
        Unknown kind; scores that are not finite; with ``paper``, an LLM whose scores are all equal, which have no unit
        variance.
    """
    values = np.asarray(cross_entropy, dtype=float)
    if kind not in KINDS:
        raise UserError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}{suggest(str(kind), KINDS)}")
    if values.ndim not in (1, 2) or not values.size:
        raise UserError(f"scores have shape {values.shape}, expected [probes] or [LLMs, probes]")
    if not np.isfinite(values).all():
        raise UserError("scores hold NaN or infinity; score every response of every probe (see `scores`)")
    if kind == "code":
        # Divided by the largest first, which leaves the direction as it is and keeps exp in range.
        vectors = np.exp(values - values.max(axis=-1, keepdims=True))
    else:
        constant = np.flatnonzero(np.ptp(np.atleast_2d(values), axis=-1) == 0)
        if len(constant):
            raise UserError(
                f"the scores of LLM number {constant[0]} are the same on all {values.shape[-1]} probes, so they have "
                "no unit variance (Eq. 4); use probes whose answers differ"
            )
        # Unit variance is a factor that the length divides out again: centring is all that Eq. (4) does to a cosine.
        vectors = values - values.mean(axis=-1, keepdims=True)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def stack_fingerprints(by_model: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return fingerprints as rows, [M, D'], in the order given.

    Raises
    ------
    UserError
        When there is none, or two differ in length: cosines then have no meaning. N = K probes and tokens (Section
        3.1.2) make logit footprints and perplexity fingerprints equally long.
    """
    vectors = {model: np.asarray(vector, dtype=float) for model, vector in by_model.items()}
    if not vectors:
        raise UserError("there is no fingerprint to stack")
    first, length = next((model, vector.shape) for model, vector in vectors.items())
    for model, vector in vectors.items():
        if vector.ndim != 1 or vector.shape != length:
            raise UserError(
                f"fingerprints of different lengths: {first!r} has shape {length}, {model!r} {vector.shape}; measure "
                "all on the same probes, or take as many tokens as there are probes (N = K)"
            )
    return np.stack(list(vectors.values()))


def short_answers(tokens: np.ndarray, most: int = 1) -> np.ndarray:
    """Return the share of each LLM's answers that have at most so many of the scorer's tokens, [M], of [N, M]."""
    return (np.asarray(tokens) <= most).mean(axis=0)


def variance_by_shortness(cross_entropy: np.ndarray, tokens: np.ndarray, most: int = 1) -> np.ndarray:
    """Return how much of each LLM's fingerprint only says which of its answers are short.

    The share of the variance of its scores over probes that lies between the mean of its short answers (at most so
    many tokens) and the mean of its longer ones; 0 where all are short or none is.

    Parameters
    ----------
    cross_entropy, tokens : array, [N, M]
        As in `ProbeScores`.
    most

    Returns
    -------
    ndarray of float, [M]
        Between 0 and 1.
    """
    values, short = np.asarray(cross_entropy, dtype=float), np.asarray(tokens) <= most
    shares = np.zeros(values.shape[1])
    for m, (column, where) in enumerate(zip(values.T, short.T, strict=True)):
        if where.any() and not where.all():
            share = where.mean()
            gap = column[where].mean() - column[~where].mean()
            shares[m] = share * (1 - share) * gap**2 / column.var()
    return shares


# --- probes ----------------------------------------------------------------------------------------------------------


def probe_rows(benchmark: RoutingBenchmark, n: int = N_PROBES, seed: int = 0) -> np.ndarray:
    """Draw the probes: n rows that ask n different questions, [n], ascending.

    From the rows of the split "train" where there is one, else from all; only rows that every LLM answered. What a
    benchmark's committed probes are is in `load_fingerprints`; a part of it would draw others.

    Raises
    ------
    UserError
        When there are fewer such questions.
    """
    allowed = benchmark.complete_rows
    if benchmark.split is not None and (benchmark.split == "train").any():
        allowed = allowed & (benchmark.split == "train")
    rows = np.flatnonzero(allowed)
    first = rows[np.unique(benchmark.question_groups()[rows], return_index=True)[1]]
    if len(first) < n:
        raise UserError(f"{benchmark.name} has {len(first)} questions to draw probes from, fewer than n = {n}")
    return np.sort(np.random.default_rng(seed).permutation(np.sort(first))[:n])


def without_probes(benchmark: RoutingBenchmark, probe_ids: Sequence[str] | np.ndarray) -> RoutingBenchmark:
    """Return the benchmark without every prompt that asks what a probe asks (its id, or its text)."""
    groups = benchmark.question_groups()
    asked = groups[np.isin(benchmark.ids, np.asarray(probe_ids, dtype=str))]
    return benchmark.subset(~np.isin(groups, asked))


def check_probes(probe_ids: Sequence[str] | np.ndarray, training_ids: Sequence[str] | np.ndarray) -> None:
    """Raise UserError if a probe is among the training prompts: labels would reach the descriptors' prompts."""
    both = sorted(set(map(str, probe_ids)) & set(map(str, training_ids)))
    if both:
        raise UserError(
            f"{len(both)} of {len(probe_ids)} probes are also training prompts, e.g. {both[0]!r}; leave them out with "
            "fingerprints.without_probes"
        )


def families(models: Sequence[str]) -> list[str]:
    """Return the base family of each LLM, by its name: what it was trained from, whoever fine-tuned it.

    WizardLM and Vicuna are Llamas, OpenHermes-Mistral is a Mistral. A name that no rule of `BASES` knows stands for
    its own first word (TinyPool's "general-70k": "general").
    """
    found = []
    for model in models:
        name = model.split("/")[-1].lower()
        base = next((base for base, rule in BASES.items() if re.search(rule, name)), None)
        found.append(base or re.split(r"[^a-z]", name)[0] or name)
    return found


# --- pools -----------------------------------------------------------------------------------------------------------


def load_fingerprints(
    pool: str,
    descriptor: Literal["perplexity", "logit"] = "perplexity",
    *,
    kind: Literal["paper", "code"] = "paper",
    scorer: str = SCORER,
    models: Sequence[str] | None = None,
    n_tokens: int = TOP_TOKENS,
) -> Fingerprints:
    """Return the descriptors of a pool's LLMs.

    Parameters
    ----------
    pool : {"routerbench", "alpaca-eval", "tinypool"}
    descriptor : {"perplexity", "logit"}
        Logit footprints are there for TinyPool alone: the other pools publish answers, no probabilities.
    kind, scorer
        Of perplexity fingerprints: see `fingerprint` and `probe_scores`.
    models
        LLMs wanted, in this order; all if not given.
    n_tokens
        Tokens of logit footprints, the most frequent ones; 192 makes them as long as perplexity fingerprints.

    Raises
    ------
    UserError
        Unknown pool, descriptor, kind or LLM; logit footprints of a pool that has none; `n_tokens` out of range.
    DataError
        A file is missing or damaged.
    """
    _check_pool(pool)
    if descriptor not in DESCRIPTORS:
        raise UserError(f"descriptor is {descriptor!r}, expected one of {', '.join(DESCRIPTORS)}")
    if descriptor == "logit":
        table, ids = _footprints(pool, n_tokens), tinypool.probes()["id"].to_numpy(dtype=str)
    else:
        table = probe_scores(pool, scorer).cross_entropy
        ids = table.index.to_numpy(dtype=str)
    for model in models or ():
        if model not in table.columns:
            raise UserError(f"{pool} has no fingerprint of {model!r}{suggest(model, table.columns)}")
    chosen = list(table.columns) if models is None else list(models)
    values = table[chosen].to_numpy(dtype=float).T
    if descriptor == "logit":
        return Fingerprints(values / np.linalg.norm(values, axis=1, keepdims=True), chosen, ids)
    return Fingerprints(fingerprint(values, kind), chosen, ids)


def _check_pool(pool: str) -> None:
    if pool not in POOLS:
        raise UserError(f"no fingerprints for pool {pool!r}, expected one of {', '.join(POOLS)}{suggest(pool, POOLS)}")


def _footprints(pool: str, n_tokens: int) -> pd.DataFrame:
    if pool != "tinypool":
        raise UserError(f"{pool} has no logit footprints: its LLMs' probabilities are not published; use 'perplexity'")
    table = tinypool.footprints()
    if not 1 <= n_tokens <= len(table):
        raise UserError(f"n_tokens is {n_tokens}, expected a number from 1 to {len(table)}")
    return table.iloc[:n_tokens]


def probe_scores(pool: str, scorer: str = SCORER) -> ProbeScores:
    """Return a pool's raw scores: the committed ones of `smollm2`, those of another scorer computed (then cached).

    Raises
    ------
    UserError
        Unknown pool or scorer.
    DataError
        A committed file is missing or damaged; the pool's answers are not there.
    """
    _check_pool(pool)
    if scorer != SCORER:
        return compute_scores(pool, scorer)
    import pandas as pd

    tables = []
    for path in (HERE / f"{pool}-perplexity.csv", HERE / f"{pool}-tokens.csv"):
        again = f"make it again with: python -m replications.cscr.fingerprints {pool}"
        if not path.is_file():
            raise DataError(f"{path.name} is missing from {HERE}; restore it with git checkout, or {again}")
        table = pd.read_csv(path, index_col="id", dtype={"id": str})
        if not len(table) or table.isna().any(axis=None) or not table.index.is_unique:
            raise DataError(f"{path.name} has gaps or an id twice, expected a number for every probe and LLM; {again}")
        tables.append(table)
    if not tables[0].index.equals(tables[1].index) or not tables[0].columns.equals(tables[1].columns):
        raise DataError(f"{pool}: the two tables in {HERE} name different probes or LLMs; {again}")
    return ProbeScores(*tables, max_tokens=POOLS[pool])


def compute_scores(pool: str, scorer: str = SCORER, max_tokens: int | None = None) -> ProbeScores:
    """Score every LLM's answer to every probe of a pool; what is in the cache is not scored again.

    Raises
    ------
    UserError, DataError
        As `scores`; the pool's answers are not there.
    """
    import pandas as pd

    answers = probe_answers(pool)
    cap = POOLS[pool] if max_tokens is None else max_tokens
    found = scores(scorer, answers.to_numpy(dtype=object), max_tokens=cap)
    labels = {"index": answers.index, "columns": answers.columns}
    return ProbeScores(pd.DataFrame(found.cross_entropy, **labels), pd.DataFrame(found.tokens, **labels), cap)


def probe_answers(pool: str) -> pd.DataFrame:
    """Return every LLM's answer to every probe, [N, M] of str, indexed by the probe's id.

    AlpacaEval without the entries made to fool its judge, and without LLMs of unknown price, which nothing can be
    routed to. TinyPool's probes are those its footprints were taken on.

    Raises
    ------
    UserError
        Unknown pool.
    DataError
        The pool's answers are not there.
    """
    import pandas as pd

    _check_pool(pool)
    if pool == "tinypool":
        return tinypool.answers().loc[tinypool.probes()["id"]]
    options = {"adversarial": "drop"} if pool == "alpaca-eval" else {}
    benchmark = load(pool, responses=True, **options).priced()
    probes = benchmark.subset(probe_rows(benchmark))
    texts = probes.responses
    if pool == "routerbench":
        # Answers are published as texts of Python lists, like the prompts.
        texts = [
            ["".join(prompt_views.parse_prompt(cell, f"{pool}: answer to {id_}")) for cell in row]
            for id_, row in zip(probes.ids, texts, strict=True)
        ]
    return pd.DataFrame(texts, index=pd.Index(probes.ids, name="id"), columns=probes.models, dtype=object)


# --- command ---------------------------------------------------------------------------------------------------------


def card(pool: str, scorer: str, found: ProbeScores) -> dict[str, Any]:
    """Return what a reader of the committed scores must know, as plain values."""
    counts = found.tokens.to_numpy()
    return {
        "pool": pool,
        "probes": len(found.tokens),
        "models": len(found.tokens.columns),
        "probe_seed": "the dataset's own probes" if pool == "tinypool" else 0,
        "scorer": scorer,
        "scorer_identity": load_causal_lm(scorer).identity,
        "max_tokens": found.max_tokens,
        "answers": int(counts.size),
        "empty": int((counts == 0).sum()),
        "one_token": int((counts == 1).sum()),
        "two_tokens": int((counts == 2).sum()),
        "cut": int((counts > found.max_tokens).sum()),
        "tokens_read": int(counts.clip(1, found.max_tokens).sum()),
        "command": f"python -m replications.cscr.fingerprints {pool} --scorer {scorer} --max-tokens {found.max_tokens}",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Score a pool's answers and write its tables and card."""
    parser = argparse.ArgumentParser(prog="python -m replications.cscr.fingerprints", description=main.__doc__)
    parser.add_argument("pool", choices=list(POOLS))
    parser.add_argument("--scorer", default=SCORER, help="smollm2, a .gguf file, a model's folder, or a hub id")
    parser.add_argument("--max-tokens", type=int, help="tokens read of an answer (default: the pool's own)")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: beside this module)")
    given = parser.parse_args(arguments)
    other = given.scorer != SCORER or given.max_tokens not in (None, POOLS[given.pool])
    if other and given.out.resolve() == HERE:
        parser.error(f"{HERE} is for scores by {SCORER} with the pool's own cap; give another folder with --out")
    started = time.monotonic()
    try:
        found = compute_scores(given.pool, given.scorer, given.max_tokens)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    given.out.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(card(given.pool, given.scorer, found), sort_keys=False, width=110)
    found.cross_entropy.to_csv(given.out / f"{given.pool}-perplexity.csv", float_format="%.6g", lineterminator="\n")
    found.tokens.to_csv(given.out / f"{given.pool}-tokens.csv", lineterminator="\n")
    (given.out / f"{given.pool}-perplexity.yaml").write_text(text, encoding="utf-8")
    print(f"{text}in {time.monotonic() - started:.0f} s, what the cache held not scored again", file=sys.stderr)


if __name__ == "__main__":
    main()
