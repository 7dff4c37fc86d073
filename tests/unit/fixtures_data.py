"""Writes tiny made-up datasets in exactly the format of the real ones (none of the content is real)."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from routebook.datasets import info
from routebook.datasets.cards import FileCard

BINARY_PATTERN = (1.0, 0.0, 1.0, 1.0, 0.0)


def full_frame(file: FileCard, n: int, **given: Any) -> pd.DataFrame:
    """A frame with every column the card asks for; what is not given is made up."""
    columns: dict[str, Any] = {name: [f"{name} {i}" for i in range(n)] for name in file.columns}
    for name in file.checks:
        columns[name] = [0.5] * n
    for group in file.groups:
        for j, column in enumerate(group.columns):
            if group.check == "binary":
                columns[column] = [int(BINARY_PATTERN[(i + j) % 5]) for i in range(n)]
            elif group.check in ("share", "number"):
                columns[column] = [round(((i + j) % 5) / 4, 2) for i in range(n)]
            elif group.check == "cost":
                columns[column] = [0.001 * (j + 1)] * n
            else:
                columns[column] = [f"answer {i}" for i in range(n)]
    return pd.DataFrame({**columns, **given})[[*columns]]


def write(root: Path, file: FileCard, frame: pd.DataFrame) -> Path:
    path = root / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
        return path
    text = io.StringIO()
    frame.to_csv(text, index=False)
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def read(root: Path, file: FileCard) -> pd.DataFrame:
    path = root / file.path
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


# --- RouterBench ------------------------------------------------------------------------------------------------

CHOICE = 'Print only a single choice  from "A" or "B" without explanation.'


def arc_block(question: str, answer: str = "") -> str:
    return f"{question}\nA) a pebble\nB) a cloud\n{CHOICE}\nAnswer:" + (f"\n{answer}" if answer else "")


ARC_EXAMPLES = "\n\n".join(arc_block(f"Made-up example {i} {'about stones ' * 20}?", "AB"[i % 2]) for i in range(6))
HEADER = "Please answer with the letter of the correct answer.\n\n"


def winogrande_block(question: str, answer: str = "") -> str:
    return f"{question}\nA) Ana\nB) Bo\n{CHOICE} Answer:" + (f"\n{answer}" if answer else "")


WINOGRANDE_EXAMPLES = "\n\n".join(HEADER + winogrande_block(f"Made-up pair {i}: _ was late.", "B") for i in range(5))
GSM_EXAMPLES = (
    "TASK: Solve the made-up problem and provide a numerical answer.\nThe following are examples:\n"
    "Question: Two hats and one hat? \nAnswer: 3\n\nQuestion: Ten hats less four hats? \nAnswer: 6\n\n"
)


def arc_prompt(question: str) -> str:
    return repr([f"{ARC_EXAMPLES}\n\n{arc_block(question)}"])


def winogrande_prompt(question: str) -> str:
    return repr([f"{WINOGRANDE_EXAMPLES}\n\n{winogrande_block(question)}"])


def routerbench_rows() -> pd.DataFrame:
    """Rows with every oddity of the real file: missing scores, a doubled prompt, leakage by id and by text."""
    arc = f"{ARC_EXAMPLES}\n\n{arc_block('Which one floats?')}"
    rows = [
        ("train", "arc-challenge.test.1", "arc-challenge", arc_prompt("Which one is heavy?")),
        ("train", "arc-challenge.val.7", "arc-challenge", repr([arc])),
        ("test", "arc-challenge.val.7", "arc-challenge", repr([arc, arc])),
        ("test", "arc-challenge.test.2", "arc-challenge", arc_prompt("Which one is round?")),
        ("train", "winogrande.dev.1", "winogrande", winogrande_prompt("The cup fell because _ was clumsy.")),
        ("test", "winogrande.dev.2", "winogrande", winogrande_prompt("The cup stood because _ was careful.")),
        ("train", "mbpp.dev.1", "mbpp", repr(["Write a function to count made-up things."])),
        ("test", "mbpp.dev.2", "mbpp", repr(["Write a function to count made-up things."])),
        ("test", "mbpp.dev.3", "mbpp", repr(["Write a function to sort it's items."])),
    ]
    return pd.DataFrame(rows, columns=["split", "sample_id", "eval_name", "prompt"])


def write_routerbench(root: Path, rows: pd.DataFrame | None = None) -> Path:
    card = info("routerbench")
    rows = routerbench_rows() if rows is None else rows
    scores, answers = card.files
    n = len(rows)
    frame = full_frame(scores, n, row=range(n), source_row=range(100, 100 + n), **rows.to_dict("list"))
    models = scores.models
    frame[models] = [[float((i + j) % 2) for j in range(len(models))] for i in range(n)]
    if n > 2:
        frame.loc[1, models[:4]] = np.nan
        frame.loc[2, models[4:]] = np.nan
    write(root, scores, frame)
    write(root, answers, full_frame(answers, n, row=range(n), **rows[["split", "sample_id"]].to_dict("list")))
    return root


# --- the others -------------------------------------------------------------------------------------------------


def leaderboard_rows(n_bbh: int = 2, n_other: int = 2, n_mmlu: int = 4) -> list[tuple[str, int]]:
    tasks = [("leaderboard_bbh_navigate", n_bbh), ("leaderboard_ifeval", n_other), ("leaderboard_mmlu_pro", n_mmlu)]
    return [(task, item) for task, n in tasks for item in range(n)]


def mmlu_text(i: int) -> str:
    return f"Made-up question {i}?\nA. one\nB. two, or three\nC. none"


def write_openllm(root: Path, card_name: str = "openllm-v2") -> Path:
    card = info(card_name)
    rows = leaderboard_rows()
    labels = card.file("correctness_aligned.csv.gz")
    frame = full_frame(labels, len(rows), task=[t for t, _ in rows], item=[i for _, i in rows])
    solar = "upstage/SOLAR-10.7B-Instruct-v1.0"
    frame[solar] = frame[solar].astype(float).where(frame["task"] != "leaderboard_mmlu_pro")
    write(root, labels, frame)
    texts = [(t, i, mmlu_text(i) if "mmlu" in t else f"Turn left {i} times.") for t, i in rows if "ifeval" not in t]
    prompts = full_frame(card.file("prompts.csv.gz"), len(texts))
    prompts[["task", "item", "prompt"]] = texts
    write(root, card.file("prompts.csv.gz"), prompts)
    if card_name == "openllm-v2":
        prices = pd.DataFrame({"model": labels.models, "usd_per_million_tokens": np.linspace(0.1, 1.2, 19).round(2)})
        write(root, card.file("prices.csv"), prices)
    return root


def write_mmlu_pro(root: Path) -> Path:
    card = info("mmlu-pro")
    n = 4
    ids = [70, 71, 73, 80]
    options = ['["one", "two, or three", "none"]'] * n
    questions = full_frame(
        card.file("questions.csv.gz"),
        n,
        question_id=ids,
        category=["law", "law", "biology", "business"],
        question=[f"Made-up question {i}?" for i in range(n)],
        options_json=options,
    )
    write(root, card.file("questions.csv.gz"), questions)
    correct = full_frame(card.file("correct.csv.gz"), n, question_id=ids)
    correct["DeepSeek-Coder-V2"] = [1.0, np.nan, 0.0, np.nan]
    # In another order than the questions: the loader joins by id.
    write(root, card.file("correct.csv.gz"), correct.iloc[::-1])
    return write_openllm(root, "mmlu-pro")


def write_routerdc(root: Path, card_name: str = "routerdc", gsm_questions: list[str] | None = None) -> Path:
    card = info(card_name)
    file = card.file("routerdc_7llm.csv.gz")
    gsm = gsm_questions or ["How many hats?", "How many coats?"]
    rows = [("MATH_prealgebra", "ood", "A question out of distribution"), ("mmlu", "train", "A shared question")]
    rows += [
        ("mmlu", "test", "A shared question"),
        ("mmlu", "test", "Another question"),
        ("gsm8k", "train", "Old hats?"),
    ]
    rows += [("gsm8k", "test", question) for question in gsm]
    frame = full_frame(
        file,
        len(rows),
        row=range(len(rows)),
        dataset=[r[0] for r in rows],
        split=[r[1] for r in rows],
        question=[r[2] for r in rows],
        cluster_id=[np.nan] * len(rows),
    )
    write(root, file, frame)
    return root


GSM_QUESTIONS = ["How many hats?", "How many coats?", "How many gloves?"]


def write_gsm8k(root: Path) -> Path:
    card = info("gsm8k-zeroeval")
    ids = [f"gsm8k-main-test-#{i}" for i in range(3)]
    questions = card.file("gsm_questions.csv.gz")
    write(root, questions, full_frame(questions, 3, id=ids, question=GSM_QUESTIONS))
    correct = card.file("gsm_correct.csv.gz")
    frame = full_frame(correct, 3, id=ids)
    frame["gemini-1.5-flash-exp-0827"] = [1.0, np.nan, np.nan]
    write(root, correct, frame)
    # The other two sources: another order, and RouterDC lacks the last question.
    write_routerdc(root, "gsm8k-zeroeval", ["How many coats?", "How many hats?"])
    routellm = card.file("gsm8k.csv.gz")
    frame = full_frame(routellm, 3, source_row=range(3), prompt=GSM_QUESTIONS[::-1], contaminated=[True, False, False])
    frame[routellm.models] = [[True, False], [False, True], [True, True]]
    write(root, routellm, frame)
    return root


def write_overruling(root: Path) -> Path:
    card = info("overruling")
    file = card.files[0]
    tails = [f"Context: made-up sentence {i}\nQuestion: Is it overruling?\nAnswer:" for i in range(4)]
    write(root, file, full_frame(file, 4, source_row=range(4), query_tail=tails, ref_answer=["Yes", "No"] * 2))
    (root / card.folders[0] / "fewshot_prefix.txt").write_text("Context: made up.\nAnswer: No\n\n", encoding="utf-8")
    return root


def write_alpaca(root: Path) -> Path:
    card = info("alpaca-eval")
    instructions, wins, outputs = card.files
    frame = full_frame(instructions, 3, instruction_id=range(3), dataset=["koala", "vicuna", "oasst"])
    write(root, instructions, frame)
    win = full_frame(wins, 3, instruction_id=[2, 1, 0])
    win["phi-2"] = [np.nan, 0.25, 0.5]
    write(root, wins, win)
    cells = [(m, i) for m in wins.models for i in range(3) if (m, i) != ("phi-2", 2)]
    table = pd.DataFrame(cells, columns=["model", "instruction_id"])
    table["output"] = table["model"] + " says " + table["instruction_id"].astype(str)
    write(root, outputs, table)
    return root


def write_mess_plus(root: Path) -> Path:
    file = info("mess-plus").files[0]
    frame = full_frame(
        file,
        5,
        doc_id=[0, 1, 0, 1, 2],
        benchmark_name=["logiqa", "logiqa", "piqa", "logiqa", "logiqa"],
        input_text=["a", "b", "c", "b", "d"],
    )
    for j, size in enumerate(("small", "medium", "large")):
        frame[f"label_{size}"] = [0.0, 1.0, 0.0, 1.0, float(j > 0)]
        frame[f"energy_consumption_{size}"] = [10.0 * (j + 1), 20.0, 30.0, 99.0, 40.0]
    write(root, file, frame)
    return root


WRITERS = {
    "routerbench": write_routerbench,
    "mmlu-pro": write_mmlu_pro,
    "gsm8k-zeroeval": write_gsm8k,
    "openllm-v2": write_openllm,
    "routerdc": write_routerdc,
    "overruling": write_overruling,
    "alpaca-eval": write_alpaca,
    "mess-plus": write_mess_plus,
}
