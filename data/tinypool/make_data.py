"""Makes TinyPool: trains the models, asks them all questions, and writes what was measured.

One command, resumable model by model (a model whose weights are there is not trained again):

    python data/tinypool/make_data.py                      # about an hour on two busy cores
    python data/tinypool/make_data.py --smoke --out FOLDER # two models in under a minute

Training examples are drawn from the seed and kept in the work folder; the log goes there, too. Weights are the same
bit for bit on the same machine with the same torch; answers are computed from the committed half-precision weights
in double precision, and so are the same everywhere.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from card import write_card  # noqa: E402
from facts import TIER_WEIGHT  # noqa: E402
from model import ASK, END, MAX_ANSWER, TinyLM, Tokenizer, generate, read, save  # noqa: E402
from recipes import RECIPES  # noqa: E402
from tasks import DOMAINS, FAMILIES, HELD_OUT, LEVEL_WEIGHT, LEVELS, SPELLED, Question, draw  # noqa: E402
from tqdm import tqdm  # noqa: E402
from train import Examples, Recipe, encode, texts, train  # noqa: E402

SEED = 20261122
PER_FAMILY = 500
N_PROBES = 192
HORIZON = 10
WARM_UP = 10
TOP_TOKENS = 256
PARTS = ("prompt", "answer", "level")
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


def questions(per_family: int, seed: int) -> list[tuple[Question, str]]:
    """Draw the benchmark: distinct prompts with their split; the held-out family is "ood", the probes are "probe"."""
    probes = {f: N_PROBES // len(FAMILIES) + (i < N_PROBES % len(FAMILIES)) for i, f in enumerate(FAMILIES)}
    found: list[tuple[Question, str]] = []
    for i, family in enumerate(FAMILIES):
        rng = np.random.default_rng([seed, 0, i])
        weights = np.array([LEVEL_WEIGHT[level] for level in LEVELS])
        seen: dict[str, Question] = {}
        while len(seen) < per_family + probes[family]:
            level = int(rng.choice(LEVELS, p=weights / weights.sum()))
            question = draw(rng, family, level)
            seen.setdefault(question.prompt, question)
        labels = ["probe"] * probes[family]
        if family == HELD_OUT:
            labels += ["ood"] * per_family
        else:
            for split, share in SHARES.items():
                labels += [split] * round(share * per_family)
        found += zip(seen.values(), labels, strict=True)
    return found


def training_examples(
    n: int, seed: int, asked: list[Question], work: Path, families: list[str]
) -> tuple[dict[str, Examples], Tokenizer]:
    """Draw n training examples a family, or read them from the work folder; return them with the tokenizer.

    No prompt of the benchmark (`asked`) is among them, but every token it needs is in the vocabulary.
    """
    vocabulary_file = work / "vocabulary.json"
    if not vocabulary_file.is_file():
        avoid, drawn = {question.prompt for question in asked}, {}
        for family in tqdm(families, desc="drawing training examples", disable=None):
            weights = TIER_WEIGHT if family == "facts" else LEVEL_WEIGHT
            drawn[family] = texts(family, n, seed, avoid, weights)
        pieces: set[str] = set()
        everything = [(q.prompt, q.answer, q.family) for q in asked]
        everything += [(prompt, answer, family) for family in drawn for prompt, answer, _ in drawn[family]]
        for prompt, answer, family in everything:
            pieces.update(token for token, *_ in Tokenizer.split(prompt) + Tokenizer.split(_quoted(answer, family)))
        tokenizer = Tokenizer([END, ASK, *sorted(pieces)])
        for family in families:
            found = encode(family, drawn[family], tokenizer)
            for name in PARTS:
                np.save(work / f"{family}-{name}.npy", getattr(found, name))
        vocabulary_file.write_text(json.dumps(tokenizer.vocabulary), encoding="utf-8")
    tokenizer = Tokenizer(json.loads(vocabulary_file.read_text(encoding="utf-8")))
    data = {
        family: Examples(*(np.load(work / f"{family}-{part}.npy", mmap_mode="r") for part in PARTS))
        for family in families
    }
    return data, tokenizer


def _quoted(answer: str, family: str) -> str:
    return f'"{answer}"' if family in SPELLED else answer


def _train_one(recipe: Recipe, work: Path, out: Path, n_vocabulary: int) -> None:
    """Train one model in a process of its own, on one thread, and write its weights and its training record."""
    torch.set_num_threads(1)
    data, _ = training_examples(0, 0, [], work, list(recipe.diet))
    started = time.monotonic()

    def report(line: str) -> None:
        with (work / "train.log").open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%H:%M:%S')} {line}\n")

    model = train(recipe, data, n_vocabulary, zlib.crc32(recipe.name.encode()), report)
    save(out / "weights" / f"{recipe.name}.npz", model)
    tokens = round(recipe.examples * _mean_length(data, recipe.diet))
    inside = 12 * recipe.shape.layers * recipe.shape.width**2
    record = {
        "examples": recipe.examples,
        "tokens": tokens,
        "flops": 6 * inside * tokens,
        "seconds": round(time.monotonic() - started),
    }
    _write_json(out / "weights" / f"{recipe.name}.json", record)


def _mean_length(data: dict[str, Examples], diet: dict[str, float]) -> float:
    """Return the mean number of tokens that pass through a model for one training example of a diet."""
    mean = {f: ((data[f].prompt[:, 0] >= 0).sum(1) + (data[f].answer >= 0).sum(1) - 1).mean() for f in diet}
    return float(sum(share * mean[f] for f, share in diet.items()) / sum(diet.values()))


def train_all(recipes: tuple[Recipe, ...], work: Path, out: Path, n_vocabulary: int, jobs: int) -> None:
    """Train every model whose weights are not there yet, `jobs` at a time."""
    (out / "weights").mkdir(parents=True, exist_ok=True)
    todo = [r for r in recipes if not (out / "weights" / f"{r.name}.npz").is_file()]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(_train_one, r, work, out, n_vocabulary) for r in todo]
        for future in tqdm(running, desc="training models", unit="model", disable=None):
            future.result()


def answer_all(model: TinyLM, prompts: list[str], tokenizer: Tokenizer) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Answer prompts greedily; return answers, prompt lengths [N] and numbers of generated tokens [N].

    An answer ends at the first END, which counts as generated; without one it is cut after MAX_ANSWER tokens.
    """
    tokens = [tokenizer.prompt(prompt) for prompt in prompts]
    lengths = np.array([t.shape[1] for t in tokens])
    answers, generated = [""] * len(prompts), np.zeros(len(prompts), dtype=int)
    end = tokenizer.ids[END]
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        batch = torch.from_numpy(np.stack([tokens[i] for i in rows], 1))
        ids, _ = generate(model, batch, MAX_ANSWER, end)
        for i, made in zip(rows, ids.tolist(), strict=True):
            stop = made.index(end) if end in made else len(made)
            answers[i], generated[i] = tokenizer.text(made[:stop]), min(stop + 1, len(made))
    return answers, lengths, generated


def footprint(model: TinyLM, probes: list[str], tokenizer: Tokenizer, top: np.ndarray) -> np.ndarray:
    """Return a model's logit footprint, CSCR's Eq. (2), l2-normalised, [K].

    Greedy decoding runs on for all HORIZON steps, past the end of the answer. `top` are the ids of the K tokens most
    frequent in the probes.
    """
    tokens = [tokenizer.prompt(prompt) for prompt in probes]
    lengths = np.array([t.shape[1] for t in tokens])
    total = np.zeros(len(tokenizer.vocabulary))
    for length in np.unique(lengths):
        batch = torch.from_numpy(np.stack([tokens[i] for i in np.flatnonzero(lengths == length)], 1))
        total += generate(model, batch, HORIZON, None)[1].sum(0).numpy()
    kept = total[top] / (len(probes) * HORIZON)
    return kept / np.linalg.norm(kept)


def top_tokens(probes: pd.DataFrame, tokenizer: Tokenizer) -> np.ndarray:
    """Return the ids of the K tokens most frequent in the probes and their right answers; ties by id."""
    counts = np.zeros(len(tokenizer.vocabulary), dtype=int)
    for row in probes.itertuples():
        np.add.at(counts, tokenizer.prompt(row.prompt)[0], 1)
        np.add.at(counts, tokenizer.answer(row.answer, row.family in SPELLED), 1)
    return np.argsort(-counts, kind="stable")[:TOP_TOKENS]


def latency(model: TinyLM, prompts: list[str], tokenizer: Tokenizer) -> float:
    """Return the median milliseconds of an answer: single precision, one thread, one prompt at a time."""
    single, seconds = model.float(), []
    for prompt in [*prompts[:WARM_UP], *prompts]:
        batch = torch.from_numpy(tokenizer.prompt(prompt))[:, None]
        started = time.perf_counter()
        generate(single, batch, MAX_ANSWER, tokenizer.ids[END])
        seconds.append(time.perf_counter() - started)
    model.double()
    return 1000 * statistics.median(seconds[WARM_UP:])


def measure(names: list[str], frame: pd.DataFrame, out: Path, tokenizer: Tokenizer) -> None:
    """Ask every model every prompt and write answers, correctness, costs and footprints."""
    torch.set_num_threads(1)
    prompts, right = frame["prompt"].tolist(), frame["answer"].to_numpy()
    probes = frame[frame["split"] == "probe"]
    top = top_tokens(probes, tokenizer)
    answers, rows, prints = {}, [], {}
    flops, generated = {}, {}
    for name in tqdm(names, desc="asking models", unit="model", disable=None):
        model = read(out / "weights" / f"{name}.npz")
        answers[name], lengths, generated[name] = answer_all(model, prompts, tokenizer)
        flops[name] = model.flops(lengths, generated[name])
        prints[name] = footprint(model, probes["prompt"].tolist(), tokenizer, top)
        record = json.loads((out / "weights" / f"{name}.json").read_text(encoding="utf-8"))
        shape = model.shape
        rows.append(
            {
                "model": name,
                "parameters": model.n_parameters,
                "width": shape.width,
                "layers": shape.layers,
                "median_latency_ms": round(latency(model, prompts[:: max(len(prompts) // 150, 1)], tokenizer), 3),
                "training_examples": record["examples"],
                "training_tokens": record["tokens"],
                "training_flops": record["flops"],
                "training_seconds": record["seconds"],
            }
        )
    ids = frame[["id"]]
    responses = pd.concat([ids, pd.DataFrame(answers)], axis=1)
    responses.to_parquet(out / "answers.parquet", index=False)
    correct = {name: (np.array(said) == right).astype(np.int8) for name, said in answers.items()}
    pd.concat([ids, pd.DataFrame(correct)], axis=1).to_parquet(out / "correctness.parquet", index=False)
    costs = {f"{name}|flops": flops[name] for name in names}
    costs |= {f"{name}|tokens": generated[name].astype(np.int16) for name in names}
    pd.concat([ids, pd.DataFrame(costs)], axis=1).to_parquet(out / "costs.parquet", index=False)
    pd.DataFrame(rows).to_csv(out / "models.csv", index=False, lineterminator="\n")
    tokens = [tokenizer.vocabulary[i] for i in top]
    table = pd.DataFrame(prints, index=pd.Index(tokens, name="token"))
    table.to_csv(out / "footprints.csv", float_format="%.8g", lineterminator="\n")


def embed(prompts: list[str], out: Path) -> None:
    """Write the prompts' embeddings by `minilm` in half precision, in two files of at most 5 MiB."""
    from routebook.encoders import embed as encode_texts

    vectors = encode_texts(prompts, "minilm").astype(np.float16)
    half = (len(vectors) + 1) // 2
    np.save(out / "embeddings-1.npy", vectors[:half])
    np.save(out / "embeddings-2.npy", vectors[half:])


def _write_json(path: Path, content: object) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, ensure_ascii=False, indent=0), encoding="utf-8")
    partial.replace(path)


def smoke(recipes: tuple[Recipe, ...]) -> tuple[Recipe, ...]:
    """Return two tiny recipes: enough to see the whole pipeline run."""
    return tuple(replace(r, examples=4_000) for r in recipes if r.name in ("general-5k", "strings-xs"))


def main() -> None:
    """Run the whole pipeline; what is already there is not made again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: beside this script)")
    parser.add_argument("--work", type=Path, help="folder for training examples and the log (default: _build/tinypool)")
    parser.add_argument("--jobs", type=int, default=2, help="models trained at a time, one thread each")
    parser.add_argument("--smoke", action="store_true", help="two tiny models on few examples")
    given = parser.parse_args()
    work = given.work or (HERE.parents[1] / "_build" / "tinypool" if given.out == HERE else given.out / "_work")
    work.mkdir(parents=True, exist_ok=True)
    recipes = smoke(RECIPES) if given.smoke else RECIPES
    n_examples, per_family = (600, 10) if given.smoke else (45_000, PER_FAMILY)

    asked = questions(per_family, SEED)
    frame = pd.DataFrame([{**vars(q), "split": split} for q, split in asked])
    frame["domain"] = frame["family"].map({f: d for d, families in DOMAINS.items() for f in families})
    frame.insert(0, "id", [f"tinypool.{i:05d}" for i in range(len(frame))])
    _, tokenizer = training_examples(n_examples, SEED, [q for q, _ in asked], work, list(FAMILIES))
    train_all(recipes, work, given.out, len(tokenizer.vocabulary), given.jobs)
    (given.out / "vocabulary.json").write_text(json.dumps(tokenizer.vocabulary), encoding="utf-8")
    frame.to_parquet(given.out / "prompts.parquet", index=False)
    measure([r.name for r in recipes], frame, given.out, tokenizer)
    embed(frame["prompt"].tolist(), given.out)
    write_card(given.out)


if __name__ == "__main__":
    main()
