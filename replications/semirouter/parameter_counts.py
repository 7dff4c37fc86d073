"""Table 2 from the modules themselves: built on torch's meta device, where weights have shapes but no numbers."""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd

# Appendix C.2 and C.3, with the fusion network that makes the printed totals come out (SR-5), three quality classes
# and the seven LLMs of Section 5.1.
PAPER_SIZES: dict[str, Any] = {
    "n_models": 7,
    "feature_width": 768,
    "query_width": 1536,
    "n_classes": 3,
    "hidden": (512, 256),
    "fusion": (1024, 512),
}
# "att-described" is Appendix C.3 as worded, with PyTorch's default of 2048 for the feed-forward width and four layers;
# "att" is the one architecture found that prints as 65.7 M, with V_f of 512 (SR-6).
VARIANTS: dict[str, dict[str, Any]] = {
    "mlp": {"variant": "mlp"},
    "emb": {"variant": "emb"},
    "att": {"variant": "att", "tokens": 2, "hidden": (512,)},
    "att-described": {"variant": "att", "tokens": 1, "hidden": (256,)},
}


def n_parameters(module: Any) -> int:
    """Return the number of parameters of a torch module, wherever its weights are."""
    return sum(parameter.numel() for parameter in module.parameters())


def adapter_parameters(**sizes: Any) -> dict[str, int]:
    """Return the parameters of an R-adapter by part, and their sum as `total`.

    Parameters
    ----------
    sizes
        Of `adapter.RAdapter`, over `PAPER_SIZES`.
    """
    import torch

    from replications.semirouter.adapter import RAdapter

    with torch.device("meta"):
        adapter = RAdapter(**{**PAPER_SIZES, **sizes})
    parts = {name: n_parameters(module) for name, module in adapter.named_children()}
    parts |= {name: parameter.numel() for name, parameter in adapter.named_parameters(recurse=False)}
    return {**parts, "total": n_parameters(adapter)}


def encoder_parameters() -> int:
    """Return the parameters of bert-base-uncased with its pooler; the default BERT configuration is that model's."""
    import torch

    with warnings.catch_warnings():
        # In a notebook without widgets tqdm warns as transformers imports it; nothing here draws its bars.
        warnings.filterwarnings("ignore", message="IProgress not found")
        from transformers import BertConfig, BertModel

    with torch.device("meta"):
        return n_parameters(BertModel(BertConfig()))


def table_2() -> pd.DataFrame:
    """Return trainable and total parameters of each variant: `variant`, `trainable`, `total`.

    "bert" is the fully fine-tuned encoder with one linear head of three classes an LLM; of the others the encoder is
    frozen, so their totals are the encoder's parameters and their own.
    """
    encoder = encoder_parameters()
    heads = (PAPER_SIZES["feature_width"] + 1) * PAPER_SIZES["n_classes"] * PAPER_SIZES["n_models"]
    rows = [("bert", encoder + heads, encoder + heads)]
    for variant, sizes in VARIANTS.items():
        trainable = adapter_parameters(**sizes)["total"]
        rows.append((variant, trainable, encoder + trainable))
    return pd.DataFrame(rows, columns=["variant", "trainable", "total"])
