"""Writes TinyPool's card: what every file is, with its hash, from the files themselves."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

PROMPT_COLUMNS = {
    "id": "id of the question",
    "prompt": "the question as the models and the routers see it",
    "answer": "the one right answer, in lower case",
    "family": "task family",
    "difficulty": "1 (easy) to 5 (hard), graded within the family",
    "split": "train, validation or test; ood: the family held out from routers; probe: kept for fingerprints",
    "domain": "arithmetic, strings, logic or knowledge",
}
MODEL_COLUMNS = {
    "model": "name: the mixture it was trained on, and its size",
    "parameters": "number of weights, embeddings included",
    "width": "width of a layer",
    "layers": "number of layers",
    "median_latency_ms": "median milliseconds of an answer, one prompt at a time on one thread of the maker's machine",
    "training_examples": "questions seen in training",
    "training_tokens": "their tokens, prompts and answers, on average over the mixture",
    "training_flops": "6 x weights in the layers x tokens",
    "training_seconds": "wall-clock seconds of its training, on one thread of a busy machine",
}
ODDITIES = (
    "The models are trained on every family, also on the one whose split is ood: it is held out from routers.",
    "A prompt of the benchmark is never a training prompt, but small questions (one-digit sums, facts) occur in other "
    "wordings.",
    "The difficulty of a fact is how rarely it was seen in training (1 to 4), or that two are needed in a row (5).",
    "Numbers are written units first in tokens; the text of a prompt or an answer is in the usual order.",
    "Syllogisms are yes-no questions, so a guess is right half of the time and the oracle is flattered there.",
    "Answers are decoded greedily from the half-precision weights in double precision.",
    "A footprint decodes all 10 steps, past the end of the answer.",
    "In questions about the letter that follows another, the alphabet starts again after z.",
    "Latencies were measured once, on a machine with other work; parameters and FLOPs are exact.",
)


def write_card(folder: Path) -> None:
    """Write `card.yaml` for the files in a folder."""
    models = pd.read_csv(folder / "models.csv")
    prompts = pd.read_parquet(folder / "prompts.parquet")
    names = models["model"].tolist()
    in_benchmark = ~prompts["split"].isin(["ood", "probe"])
    flops, hours = models["training_flops"].sum(), models["training_seconds"].sum() / 3600
    card = {
        "name": "tinypool",
        "title": "TinyPool",
        "origin": "made",
        "summary": (
            f"{len(names)} decoder-only transformers of {models['parameters'].min():,} to "
            f"{models['parameters'].max():,} parameters, trained by this project on plain-English questions of "
            "fourteen families, generalists and specialists; their real answers, costs and logits."
        ),
        "provenance": {
            "source": "data/tinypool/make_data.py",
            "detail": (
                f"Trained in {hours:.1f} core-hours on two shared cores. The bill, 6 x weights in the layers x tokens, "
                f"is {flops:.2e} floating-point operations over all models; models.csv has it a model. The files are "
                "a frozen snapshot of one run of the script."
            ),
        },
        "licence": "MIT, like the book.",
        "cost_unit": "FLOPs per prompt",
        "cost_meaning": (
            "Floating-point operations of the answer as it was generated, keys and values cached; the option "
            "cost=parameters takes the number of weights instead."
        ),
        "quality": {"kind": "binary", "meaning": "1 if the answer is exactly the right one, else 0."},
        "prompts": int(in_benchmark.sum()),
        "models": len(names),
        "options": {
            "cost": "flops (default) or parameters",
            "ood": "drop (default) leaves the held-out family out; keep includes it, with split label ood",
            "responses": "True also loads the answers.",
        },
        "files": _files(folder, len(prompts), names),
        "oddities": list(ODDITIES),
    }
    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=118)
    (folder / "card.yaml").write_text(text, encoding="utf-8")


def _files(folder: Path, n: int, names: list[str]) -> list[dict]:
    every = {"check": "number", "meaning": "tokens generated, the end mark included", "pattern": "{model}|tokens"}
    found = [
        _file(folder, "prompts.parquet", "One row a question.", n, ["id"], PROMPT_COLUMNS),
        _file(
            folder, "correctness.parquet", "Whether each answer is exactly right.", n, ["id"], {"id": "as in prompts"},
            [{"check": "binary", "meaning": "1 right, 0 wrong", "models": names}],
        ),
        _file(
            folder, "costs.parquet", "What each answer cost.", n, ["id"], {"id": "as in prompts"},
            [
                {"check": "cost", "meaning": "floating-point operations", "pattern": "{model}|flops", "models": names},
                {**every, "models": names},
            ],
        ),
        _file(
            folder, "answers.parquet", "What each model said.", n, ["id"], {"id": "as in prompts"},
            [{"check": "text", "meaning": "answer", "models": names}],
        ),
        _file(folder, "models.csv", "One row a model.", len(names), ["model"], MODEL_COLUMNS),
        _file(
            folder, "footprints.csv", "Logit footprints (CSCR, Eq. (2)), one column a model, each of length 1.",
            len(pd.read_csv(folder / "footprints.csv", keep_default_na=False)), ["token"],
            {"token": "token, by frequency in the probes"},
            [{"check": "number", "meaning": "mean probability over probes and steps, normalised", "models": names}],
        ),
    ]  # fmt: skip
    for name in ("embeddings-1.npy", "embeddings-2.npy"):
        rows = len(np.load(folder / name))
        found.append(_file(folder, name, "Embeddings by minilm in half precision, rows as in prompts.", rows, [], {}))
    found.append(_file(folder, "vocabulary.json", "The tokens, by id.", 0, [], {}))
    for name in names:
        found.append(_file(folder, f"weights/{name}.npz", "Weights in half precision; model.py reads it.", 0, [], {}))
        found.append(_file(folder, f"weights/{name}.json", "What its training took.", 0, [], {}))
    return found


def _file(
    folder: Path, name: str, meaning: str, rows: int, key: list[str], columns: dict, groups: list[dict] | None = None
) -> dict:
    """Return a file's entry; what is no table is optional, as the loader does not read it as one."""
    entry = {
        "path": f"tinypool/{name}",
        "meaning": meaning,
        "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        "rows": rows,
        "key": key,
        "columns": columns,
    }
    if groups:
        entry["groups"] = groups
    if not columns:
        entry["optional"] = True
    return entry
