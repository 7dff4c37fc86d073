"""A text encoder that is trained together with a router: what `finetune_encoder=True` means.

`routebook.encoders` embeds with frozen models; here the weights are free. torch and transformers are imported only
when an encoder is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from routebook.errors import UserError
from routebook.threads import one_torch_thread


class TextEncoder:
    """A transformers model that is trained with the router: tokens in, one vector a prompt out.

    Parameters
    ----------
    name
        What `routebook.encoders.encoder` knows: "minilm", a folder, a hub id.
    max_length
        Prompts are cut to this many tokens.
    seed
        Of weights that the checkpoint lacks.
    who
        The router that asks, for error messages.
    truncation_side
        The end that is cut off.
    pooler
        Whether the vector is the model's pooler output (BERT's "pooled output") instead of the first token's last
        hidden state. A model without a pooler gives the latter.

    Attributes
    ----------
    model : transformers.PreTrainedModel
    width : int
        Dimensions of a vector.

    Raises
    ------
    UserError
        When the model cannot be loaded.
    """

    def __init__(
        self,
        name: str,
        max_length: int,
        seed: int,
        *,
        who: str,
        truncation_side: Literal["left", "right"] = "left",
        pooler: bool = False,
    ):
        from routebook.encoders import encoder

        try:
            source = encoder(name)
            # Looks a hub id up once, with a short time-out; transformers would try for a minute.
            source.fingerprint  # noqa: B018
            self.tokenizer, self.model = _pretrained(source.source, source.revision, seed)
        except Exception as error:
            # Loaders raise whatever their file formats and transports raise; the user can act on name and reason.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{who}: encoder {name!r} could not be loaded for training; tried it as a name routebook knows, "
                f"a local folder, the local hub cache and the hub ({reason}). Offline, encoder='minilm' works, as does "
                "a folder that save_pretrained() wrote; finetune_encoder=False needs none"
            ) from error
        self.tokenizer.truncation_side = truncation_side
        longest = min(max_length, getattr(self.model.config, "max_position_embeddings", max_length))
        self.max_length = longest
        self.pooler = pooler
        self.width = int(self.model.config.hidden_size)

    def tokens(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each prompt, cut to `max_length`."""
        return self.tokenizer(list(prompts), truncation=True, max_length=self.max_length)["input_ids"]

    def __call__(self, tokens: list[list[int]]) -> Any:
        """Return the vectors of tokenised prompts, [B, D]."""
        batch = self.tokenizer.pad({"input_ids": tokens}, return_tensors="pt")
        output = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        pooled = getattr(output, "pooler_output", None) if self.pooler else None
        return output.last_hidden_state[:, 0] if pooled is None else pooled

    def embed(self, prompts: Sequence[str], batch_size: int) -> np.ndarray:
        """Return the vectors of prompts in evaluation, [N, D] float32."""
        import torch

        with torch.inference_mode(), one_torch_thread():
            tokens = self.tokens(prompts)
            parts = np.array_split(np.arange(len(tokens)), -(-len(tokens) // batch_size))
            return torch.cat([self([tokens[i] for i in part]) for part in parts]).numpy()


def _pretrained(source: str, revision: str | None, seed: int) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            # A checkpoint without some weights (a pooler) gets random ones.
            torch.manual_seed(seed)
            tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
            model = AutoModel.from_pretrained(source, revision=revision).to(torch.float32)
    finally:
        if bars:
            logging.enable_progress_bar()
    return tokenizer, model
