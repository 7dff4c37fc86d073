"""What a router sees of a RouterBench prompt: the question, the whole text, or its first 1,400 characters.

A RouterBench prompt cell is the text of a Python list literal with one string, or two where the instruction
or the worked examples come first. Worked examples are shared by all prompts of a source dataset; an encoder
that reads 256 tokens never gets past them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from routebook.errors import DataError

PROMPT_VIEWS = ("question", "full", "first-1400-chars")

# RouterDC's public loader cuts the cell there, brackets and quotes included.
CUT = 1400

_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")
_CUE = "Answer:"
_WORKED = re.compile(r"(?:^|\s)Answer:[ \t]*\n?[ \t]*(?:\(?[A-J]\)?|-?\$?\d[\d.,]*)[ \t]*$")
_HEADER = re.compile(r"Please answer with the letter of the correct answer\.\n[ \t]*\n\s*")


def parse_prompt(cell: str, where: str) -> list[str]:
    """Return the strings in a prompt cell.

    Parameters
    ----------
    cell
        Text of a Python list literal of strings.
    where
        Names the file and row in the error.

    Raises
    ------
    DataError
        When the cell is no such literal.
    """
    try:
        parts = ast.literal_eval(cell)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        parts = None
    if not isinstance(parts, list) or not parts or not all(isinstance(part, str) for part in parts):
        shown = cell if len(str(cell)) <= 60 else f"{str(cell)[:57]}..."
        raise DataError(
            f"{where}: prompt is {shown!r}, expected the text of a Python list of strings; copy the file again"
        )
    return parts


def strip_worked_examples(text: str) -> str:
    """Return the text without the leading blocks that are worked examples.

    Blocks are separated by blank lines. A worked example is a block that ends with the cue "Answer:" and a letter
    or a number. Everything up to the last one goes, but only where what is left asks for an answer with the
    same cue: a question that merely quotes such a line is left whole.
    """
    if not text.rstrip().endswith(_CUE):
        return text
    return text[_end_of_examples(text) :]


def _end_of_examples(text: str) -> int:
    start = end = 0
    for blank in _BLANK_LINES.finditer(text):
        if _WORKED.search(text[start : blank.start()]):
            end = blank.end()
        start = blank.end()
    return end


def _only_examples(part: str) -> bool:
    """Whether a part ends with a worked example, so that nothing of it belongs to the question."""
    blocks = _BLANK_LINES.split(part.strip())
    return bool(_WORKED.search(blocks[-1]))


def full_view(parts: Sequence[str]) -> str:
    """Return all strings of a prompt, one below the other."""
    return "\n".join(parts)


def question_views(prompts: Sequence[Sequence[str]], tasks: Sequence[str]) -> list[str]:
    """Return the question of every prompt.

    In this order: a string that is repeated within a prompt is kept once; leading strings that end with a worked
    example are dropped; a leading string that all prompts of a task share is dropped, as it tells a router
    nothing; worked examples and the line "Please answer with the letter of the correct answer." are stripped
    from the last string. A prompt that would be left empty is kept whole.

    Parameters
    ----------
    prompts : sequence of sequences of str, length N
    tasks : sequence of str, length N

    Returns
    -------
    list of str, length N
    """
    once = [list(dict.fromkeys(parts)) for parts in prompts]
    shared = _shared_leads(once, tasks)
    return [_question(parts, task in shared) for parts, task in zip(once, tasks, strict=True)]


def _shared_leads(prompts: Sequence[Sequence[str]], tasks: Sequence[str]) -> set[str]:
    """Tasks whose prompts all begin with one and the same string before what differs between them."""
    leads: dict[str, set[str]] = {}
    ends: dict[str, set[str]] = {}
    for parts, task in zip(prompts, tasks, strict=True):
        leads.setdefault(task, set()).add(parts[0] if len(parts) > 1 else "")
        ends.setdefault(task, set()).add("\n".join(parts[1:]))
    return {task for task, lead in leads.items() if len(lead) == 1 and "" not in lead and len(ends[task]) > 1}


def _question(parts: list[str], lead_is_shared: bool) -> str:
    kept = parts[1:] if lead_is_shared else parts
    kept = [part for part in kept[:-1] if not _only_examples(part)] + kept[-1:]
    question = _HEADER.sub("", strip_worked_examples(kept[-1]), count=1) if len(kept) == 1 else "\n".join(kept)
    return question if question.strip() else full_view(parts)
