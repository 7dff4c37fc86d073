"""TinyPool: tiny language models this project trained, asked plain-English questions; ships with the book.

Besides the benchmark itself, this module gives access to all that was measured: families and difficulties
(`questions`), the models (`models`), their logit footprints (`footprints`) and the probes (`probes`). The scripts
that made it, with tokenizer and models, lie beside the data.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from routebook.benchmark import RoutingBenchmark
from routebook.datasets.cards import Card, read_card
from routebook.datasets.files import Place, choose, differs, locate, matrix, read_tables
from routebook.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

NAME = "tinypool"
PROMPTS, CORRECT, COSTS, ANSWERS = "prompts.parquet", "correctness.parquet", "costs.parquet", "answers.parquet"
MODELS, FOOTPRINTS = "models.csv", "footprints.csv"
EMBEDDINGS = ("embeddings-1.npy", "embeddings-2.npy")
COST_UNITS = {"flops": "FLOPs per prompt", "parameters": "parameters"}
OOD = ("drop", "keep")


def load(
    card: Card, place: Place, *, cost: str = "flops", ood: str = "drop", responses: bool = False
) -> RoutingBenchmark:
    """Return TinyPool. Tasks are families; embeddings by `minilm` come with it; the probes are not in it.

    Parameters
    ----------
    cost : {"flops", "parameters"}
        What a call costs: the floating-point operations of that answer, or the model's number of parameters.
    ood : {"drop", "keep"}
        Whether prompts of the held-out family (word problems, split "ood") are left out or kept. The models were
        trained on that family like on any other; it is held out from routers.
    responses
        Whether to load the answers as well.

    Raises
    ------
    DataError
        Files missing or damaged.
    """
    choose(card.name, "cost", cost, tuple(COST_UNITS))
    choose(card.name, "ood", ood, OOD)
    tables = read_tables(card, place, [PROMPTS, CORRECT, COSTS, MODELS] + [ANSWERS] * responses)
    asked = tables[PROMPTS]
    left_out = ["probe"] + ["ood"] * (ood == "drop")
    kept = ~asked["split"].isin(left_out).to_numpy()
    correct = card.file(CORRECT).groups[0]
    quality = matrix(_aligned(tables[CORRECT], asked), correct.columns)
    if cost == "flops":
        price = matrix(_aligned(tables[COSTS], asked), card.file(COSTS).groups[0].columns)
    else:
        sizes = tables[MODELS].set_index("model")["parameters"].reindex(list(correct.models)).to_numpy(dtype=float)
        price = np.broadcast_to(sizes, quality.shape)
    said = _aligned(tables[ANSWERS], asked)[list(correct.models)].to_numpy(dtype=object) if responses else None
    notes = [*tables.notes, *_notes(asked, ood)]
    vectors = _embeddings(card, place, len(asked), notes)
    return RoutingBenchmark(
        name=card.name,
        prompts=asked["prompt"][kept].tolist(),
        tasks=asked["family"][kept].to_numpy(dtype=str),
        models=correct.models,
        quality=quality[kept],
        cost=price[kept],
        cost_unit=COST_UNITS[cost],
        split=asked["split"][kept].to_numpy(dtype=str),
        responses=None if said is None else said[kept],
        origin=card.origin,
        quality_kind=card.quality.kind,
        ids=asked["id"][kept].to_numpy(dtype=str),
        embeddings=vectors[kept],
        notes=tuple(notes),
    )


def questions() -> pd.DataFrame:
    """Return every question asked, probes and held-out family included.

    Columns are id, prompt, answer (the right one), family, difficulty (1 to 5), split (train, validation, test, ood,
    probe) and domain. `benchmark.ids` are its ids.
    """
    return _table(PROMPTS)


def models() -> pd.DataFrame:
    """Return one row a model, indexed by name: size, latency (ms, median), and what its training took."""
    return _table(MODELS).set_index("model")


def answers() -> pd.DataFrame:
    """Return every model's answer to every question, indexed by question id; one column a model."""
    return _table(ANSWERS).set_index("id").fillna("")


def generated_tokens() -> pd.DataFrame:
    """Return how many tokens every model generated for every question, indexed by question id."""
    group = read_card(NAME).file(COSTS).groups[1]
    frame = _table(COSTS).set_index("id")[group.columns].astype(int)
    return frame.set_axis(list(group.models), axis=1)


def footprints() -> pd.DataFrame:
    """Return the logit footprints of all models, CSCR's Eq. (2), each of length 1.

    Returns
    -------
    DataFrame, [K, M]
        One row a token (the K most frequent of the probes), one column a model.
    """
    return _table(FOOTPRINTS).set_index("token")


def probes() -> pd.DataFrame:
    """Return the 192 probe questions the footprints were taken on, in the form of `questions`.

    They are in none of the benchmark's splits; `answers` has every model's answers to them.
    """
    asked = questions()
    return asked[asked["split"] == "probe"].reset_index(drop=True)


def weights() -> dict[str, Path]:
    """Return the file with each model's weights."""
    card = read_card(NAME)
    root = locate(card).root
    return {Path(f.path).stem: root / f.path for f in card.files if f.path.endswith(".npz")}


def _table(name: str) -> pd.DataFrame:
    card = read_card(NAME)
    return read_tables(card, locate(card), [name])[name]


def _aligned(frame: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """Return a table's rows in the order of the prompts."""
    if not frame["id"].equals(asked["id"]):
        raise DataError(f"{NAME}: its tables do not name the same questions in the same order; restore them with git")
    return frame


def _notes(asked: pd.DataFrame, ood: str) -> list[str]:
    n_probes = int((asked["split"] == "probe").sum())
    notes = [f"{n_probes} probe prompts, kept for fingerprints, are not in the benchmark"]
    if ood == "drop":
        n_ood, family = int((asked["split"] == "ood").sum()), asked.loc[asked["split"] == "ood", "family"].iloc[0]
        notes.append(f"{n_ood} prompts of the held-out family {family!r} are left out (ood='keep' keeps them)")
    return notes


def _embeddings(card: Card, place: Place, n: int, notes: list[str]) -> np.ndarray:
    """Return the committed embeddings of all questions, [n, D] float32, after checking their hashes."""
    parts = []
    for name in EMBEDDINGS:
        file = card.file(name)
        path = place.root / file.path
        if not path.is_file():
            raise DataError(f"{card.name}: file {file.path} is missing from {place.root}; restore it with git checkout")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != file.sha256:
            notes += differs(
                f"{card.name}: {file.path} differs from its card: its sha256 is {found[:12]}..., "
                f"the card says {file.sha256[:12]}..."
            )
        parts.append(np.load(path, allow_pickle=False))
    vectors = np.concatenate(parts).astype(np.float32)
    if len(vectors) != n:
        raise DataError(f"{card.name}: {len(vectors)} embeddings for {n} prompts; restore the files with git checkout")
    return vectors
