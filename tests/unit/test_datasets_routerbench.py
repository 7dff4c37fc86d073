"""RouterBench's prompts and splits, on made-up rows with every oddity of the real file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fixtures_data import (
    ARC_EXAMPLES,
    GSM_EXAMPLES,
    HEADER,
    WINOGRANDE_EXAMPLES,
    arc_block,
    read,
    routerbench_rows,
    winogrande_block,
    write,
    write_routerbench,
)

from routebook import datasets
from routebook.datasets.prompt_views import parse_prompt, question_views, strip_worked_examples
from routebook.errors import DataError


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROUTEBOOK_DATA", str(tmp_path))
    monkeypatch.setenv("ROUTEBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ROUTEBOOK_ALLOW_MODIFIED", "1")
    return write_routerbench(tmp_path)


def test_question_view_strips_worked_examples(data):
    pool = datasets.load("routerbench", leakage="keep")
    assert pool.prompts[0] == arc_block("Which one is heavy?")
    # The doubled prompt asks the same question as its single twin.
    assert pool.prompts[1] == pool.prompts[2] == arc_block("Which one floats?")
    assert pool.prompts[4] == winogrande_block("The cup fell because _ was clumsy.")
    assert pool.prompts[8] == "Write a function to sort it's items."


def test_full_view_keeps_everything(data):
    pool = datasets.load("routerbench", leakage="keep", prompt_view="full")
    single = f"{ARC_EXAMPLES}\n\n{arc_block('Which one floats?')}"
    assert pool.prompts[1] == single
    assert pool.prompts[2] == f"{single}\n{single}"
    assert pool.prompts[4].startswith(WINOGRANDE_EXAMPLES)
    questions = datasets.load("routerbench", leakage="keep").prompts
    assert all(full.endswith(question) for full, question in zip(pool.prompts, questions, strict=True))


def test_first_1400_characters_of_the_raw_cell(data):
    pool = datasets.load("routerbench", leakage="keep", prompt_view="first-1400-chars")
    cells = routerbench_rows()["prompt"]
    assert pool.prompts == [cell[:1400] for cell in cells]
    arc = [p for p, task in zip(pool.prompts, pool.tasks, strict=True) if task == "arc-challenge"]
    assert len(ARC_EXAMPLES) > 1400
    assert len(arc) == 4
    assert len(set(arc)) == 1


def test_leaked_training_rows_are_left_out_whatever_the_view(data):
    for view in ("question", "full", "first-1400-chars"):
        pool = datasets.load("routerbench", prompt_view=view)
        assert len(pool) == 7
        assert set(pool.ids[pool.split == "train"]) == {"arc-challenge.test.1", "winogrande.dev.1"}
        assert "2 training rows left out" in pool.notes[-1]
        assert "(1 by sample_id, 2 by text)" in pool.notes[-1]
    kept = datasets.load("routerbench", leakage="keep")
    assert len(kept) == 9
    assert not any("left out" in note for note in kept.notes)


def test_missing_scores_are_not_observed(data):
    pool = datasets.load("routerbench", leakage="keep")
    assert np.isnan(pool.quality[1]).sum() == 4
    assert np.isnan(pool.quality[2]).sum() == 7
    assert len(pool.complete()) == 7
    assert pool.absent == ("mmlu", "hellaswag", "gsm8k", "mt-bench")
    assert pool.cost_unit == "USD per prompt"


def test_responses_are_aligned_by_row(data):
    file = datasets.info("routerbench").files[1]
    answers = read(data, file)
    write(data, file, answers.iloc[::-1])
    pool = datasets.load("routerbench", leakage="keep", responses=True)
    assert pool.responses[3, 0] == "answer 3"
    write(data, file, answers.iloc[1:])
    with pytest.raises(DataError, match=r"has no row 0"):
        datasets.load("routerbench", responses=True)


@pytest.mark.parametrize(
    "cell", ["Write a function", "['unfinished", "[]", "[1, 2]", "{'a': 1}", "__import__('os').getcwd()", "['a'] + [1]"]
)
def test_malformed_prompt_cells(data, cell):
    file = datasets.info("routerbench").files[0]
    frame = read(data, file)
    frame.loc[3, "prompt"] = cell
    write(data, file, frame)
    with pytest.raises(
        DataError, match=r"sample_id arc-challenge.test.2: prompt is .*expected the text of a Python list"
    ):
        datasets.load("routerbench")


# --- prompts of source datasets that are not at hand, in their published form -----------------------------------


def test_two_part_prompts_of_gsm8k():
    prompts = [[GSM_EXAMPLES, f"Question {i}: how many?"] for i in range(3)]
    assert question_views(prompts, ["gsm"] * 3) == [f"Question {i}: how many?" for i in range(3)]
    # One prompt alone suffices, as the examples are seen to be such.
    assert question_views(prompts[:1], ["gsm"]) == ["Question 0: how many?"]


def test_shared_instruction_is_dropped_and_a_first_turn_is_not():
    instruction = "Classify the sentence as fact or opinion."
    prompts = [[instruction, "It rains."], [instruction, "Rain is nice."], ["Write a story.", "Now a shorter one."]]
    views = question_views([*prompts, ["Write a poem.", "Now a shorter one."]], ["bias", "bias", "mt", "mt"])
    assert views == [
        "It rains.",
        "Rain is nice.",
        "Write a story.\nNow a shorter one.",
        "Write a poem.\nNow a shorter one.",
    ]


def test_prompts_without_examples_stay_whole():
    mmlu = [[HEADER + winogrande_block("Who wrote it?")], [HEADER + winogrande_block("Who read it?")]]
    assert question_views(mmlu, ["mmlu-x"] * 2) == [winogrande_block("Who wrote it?"), winogrande_block("Who read it?")]
    hellaswag = [[arc_block("A man stands there. man")]]
    assert question_views(hellaswag, ["hellaswag"]) == [arc_block("A man stands there. man")]


def test_mmlu_with_worked_examples():
    shots = "\n\n".join([HEADER + winogrande_block(f"Example {i}?", "A") for i in range(3)])
    text = f"{shots}\n\n{HEADER}{winogrande_block('Who wrote it?')}"
    assert question_views([[text]], ["mmlu-x"]) == [winogrande_block("Who wrote it?")]


def test_blank_lines_inside_a_question_survive():
    passage = "Read this.\n\nA passage with\n\nblank lines.\n\n" + arc_block("What was it?")
    assert strip_worked_examples(f"{ARC_EXAMPLES}\n\n{passage}") == passage
    assert strip_worked_examples(passage) == passage


def test_a_question_that_quotes_an_answer_line_is_left_whole():
    text = "Somebody wrote:\nAnswer: 4\n\nIs that right?"
    assert strip_worked_examples(text) == text
    assert question_views([["Answer: B"]], ["x"]) == ["Answer: B"]


def test_no_prompt_becomes_empty():
    views = question_views([["Answer: 3\n\nAnswer:"], [""], ["a", ""]], ["x", "y", "z"])
    assert views[0] == "Answer:"
    assert views[2] == "a\n"


def test_parse_prompt():
    assert parse_prompt("['it\\'s', \"b\"]", "x") == ["it's", "b"]
    with pytest.raises(DataError, match=r"here: prompt is"):
        parse_prompt("no", "here")


def test_distinct_questions_stay_distinct(data):
    rows = routerbench_rows()
    questions = pd.unique(rows["prompt"]).tolist()
    prompts = [parse_prompt(cell, "x") for cell in questions]
    views = question_views(prompts, ["one task"] * len(prompts))
    # The doubled prompt is the one pair that asks the same.
    assert len(set(views)) == len(views) - 1
