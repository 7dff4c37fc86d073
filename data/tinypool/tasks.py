"""The questions TinyPool's models learn and are asked: fourteen task families in plain English, graded 1 to 5.

Every family is a function of a random generator and a difficulty that returns a question with its one right answer.
An opener ("Please tell me:") and one of several phrasings vary the wording, never the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from facts import FACTS_BY_TIER, PHRASES

Rng = np.random.Generator
LEVELS = (1, 2, 3, 4, 5)
# Easy questions are more frequent than hard ones, in training as in the benchmark.
LEVEL_WEIGHT = {1: 0.24, 2: 0.22, 3: 0.2, 4: 0.18, 5: 0.16}
OPENERS = ("Please tell me:", "Quick question:", "Tell me,", "I wonder,", "Can you help?", "Hello!", "One more:")
OPENER_SHARE = 0.2

NAMES = ("Ann", "Bob", "Cid", "Dora", "Emil", "Fay", "Gus", "Hana", "Ivo", "Jill", "Karl", "Lena")
THINGS = ("ball", "key", "cup", "hat", "book", "coin", "pen", "ring")
LIKED = ("tea", "milk", "soup", "rice", "bread", "cheese", "fish", "cake", "apples", "plums", "corn", "eggs")
KINDS = ("bloop", "wug", "fip", "zorb", "dap", "tove", "gazzer", "lum", "mib", "quark", "snarf", "wibble")
COUNTED = ("apples", "coins", "books", "pens", "eggs", "plums", "cups", "hats")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
# Comparative and superlative, and those that say the opposite.
COMPARED = (
    ("taller", "tallest", "shorter", "shortest"),
    ("older", "oldest", "younger", "youngest"),
    ("faster", "fastest", "slower", "slowest"),
    ("richer", "richest", "poorer", "poorest"),
    ("stronger", "strongest", "weaker", "weakest"),
)


@dataclass(frozen=True)
class Question:
    """A prompt with its one right answer, its family and its difficulty (1 to 5)."""

    prompt: str
    answer: str
    family: str
    difficulty: int


def _pick(rng: Rng, items: tuple) -> object:
    return items[int(rng.integers(len(items)))]


def _some(rng: Rng, items: tuple, n: int) -> list:
    return [items[i] for i in rng.permutation(len(items))[:n]]


def _digits(rng: Rng, n: int) -> int:
    """Return a number of exactly n digits (from 1 on, so that no operand is 0)."""
    return int(rng.integers(1 if n == 1 else 10 ** (n - 1), 10**n))


def _word(rng: Rng, length: int) -> str:
    """Return a made-up word: letters that alternate between consonants and vowels, beginning with either."""
    sets = ("bcdfghklmnprstvwz", "aeiou")
    start = int(rng.integers(2))
    return "".join(_pick(rng, tuple(sets[(start + i) % 2])) for i in range(length))


_OPERAND_DIGITS = {1: (1, 1), 2: (2, 1), 3: (2, 2), 4: (3, 3), 5: (4, 4)}


def _operands(rng: Rng, level: int) -> tuple[int, int]:
    first, second = (_digits(rng, n) for n in _OPERAND_DIGITS[level])
    return (first, second) if rng.integers(2) else (second, first)


def addition(rng: Rng, level: int) -> tuple[str, str]:
    """Sum of two numbers of one to four digits; at level 4 of three numbers of two digits."""
    if level == 4:
        a, b, c = (_digits(rng, 2) for _ in range(3))
        phrase = _pick(rng, ("What is {a} plus {b} plus {c}?", "Add {a} and {b} and {c}.", "Sum up {a}, {b} and {c}."))
        return phrase.format(a=a, b=b, c=c), str(a + b + c)
    a, b = _operands(rng, level)
    phrase = _pick(
        rng,
        (
            "What is {a} plus {b}?",
            "Add {a} and {b}.",
            "How much is {a} plus {b}?",
            "What is the sum of {a} and {b}?",
            "Work out {a} plus {b}.",
            "Find the total of {a} and {b}.",
        ),
    )
    return phrase.format(a=a, b=b), str(a + b)


def subtraction(rng: Rng, level: int) -> tuple[str, str]:
    """Difference of two numbers, never below 0."""
    low, high = sorted(_operands(rng, level))
    phrase = _pick(
        rng,
        (
            "What is {a} minus {b}?",
            "How much is {a} minus {b}?",
            "Take {b} away from {a}.",
            "Subtract {b} from {a}.",
            "Work out {a} minus {b}.",
            "What is left of {a} without {b}?",
        ),
    )
    return phrase.format(a=high, b=low), str(high - low)


def multiplication(rng: Rng, level: int) -> tuple[str, str]:
    """Product, from the small tables to two digits by two digits."""
    ranges = {1: ((2, 6), (2, 10)), 2: ((6, 13), (3, 10)), 3: ((11, 40), (2, 6)), 4: ((13, 100), (4, 10))}
    a, b = (int(rng.integers(*r)) for r in ranges.get(level, ((11, 60), (11, 40))))
    if rng.integers(2):
        a, b = b, a
    phrase = _pick(
        rng,
        (
            "What is {a} times {b}?",
            "Multiply {a} by {b}.",
            "How much is {a} times {b}?",
            "What is the product of {a} and {b}?",
            "Work out {a} times {b}.",
        ),
    )
    return phrase.format(a=a, b=b), str(a * b)


def sequence(rng: Rng, level: int) -> tuple[str, str]:
    """Next number of a sequence: equal steps, falling, alternating or growing steps, sums of the two terms before."""
    start, step = int(rng.integers(1, 21)), int(rng.integers(2, 6))
    if level == 2:
        start, step = int(rng.integers(50, 100)), -int(rng.integers(2, 10))
    elif level == 3:
        start, step = int(rng.integers(10, 300)), int(rng.integers(6, 30))
    steps = [step] * 4
    if level == 4:
        steps = [step + int(rng.integers(1, 5)), step] * 2 if rng.integers(2) else [step + i for i in range(4)]
    terms = [start + sum(steps[:i]) for i in range(5)]
    if level == 5:
        terms = [int(t) for t in rng.integers(1, 30, size=2)]
        for _ in range(3):
            terms.append(terms[-1] + terms[-2])
    phrase = _pick(
        rng,
        (
            "What number comes next: {t}?",
            "Continue the sequence {t}.",
            "Which number follows {t}?",
            "Find the next number: {t}.",
        ),
    )
    return phrase.format(t=", ".join(map(str, terms[:4]))), str(terms[4])


_LENGTHS = {1: 3, 2: 4, 3: 6, 4: 8, 5: 10}


def reverse(rng: Rng, level: int) -> tuple[str, str]:
    """Spell a made-up word backwards."""
    word = _word(rng, _LENGTHS[level])
    phrase = _pick(
        rng,
        (
            'Spell "{w}" backwards.',
            'Reverse the word "{w}".',
            'What is "{w}" read backwards?',
            'Write "{w}" from the end to the start.',
            'How is "{w}" spelled backwards?',
        ),
    )
    return phrase.format(w=word), word[::-1]


def sort(rng: Rng, level: int) -> tuple[str, str]:
    """Put letters into the order of the alphabet."""
    letters = "".join(chr(97 + int(i)) for i in rng.permutation(26)[: _LENGTHS[level]])
    phrase = _pick(
        rng,
        (
            'Sort these letters: "{w}".',
            'Put the letters "{w}" in order.',
            'What is "{w}" in alphabetical order?',
            'Arrange "{w}" from a to z.',
            'Order the letters of "{w}".',
        ),
    )
    return phrase.format(w=letters), "".join(sorted(letters))


def letter(rng: Rng, level: int) -> tuple[str, str]:
    """Name a letter of a word by its place, from the end (level 4), or the one that follows it in the alphabet (5)."""
    word = _word(rng, {1: 4, 2: 6, 3: 9, 4: 7, 5: 6}[level])
    index = int(rng.integers(*{1: (0, 2), 2: (1, 4), 3: (2, 6), 4: (0, 5), 5: (0, 4)}[level]))
    phrases: tuple[str, ...] = (
        'What is the {n} letter of "{w}"?',
        'Which letter is {n} in "{w}"?',
        'Give the {n} letter of the word "{w}".',
        'Name the {n} letter in "{w}".',
    )
    answer = word[index]
    if level == 4:
        phrases = (
            'What is the {n} letter of "{w}" from the end?',
            'Which letter is {n} from the end in "{w}"?',
            'Counting from the end, which is the {n} letter of "{w}"?',
        )
        answer = word[-1 - index]
    elif level == 5:
        phrases = (
            'Which letter of the alphabet follows the {n} letter of "{w}"?',
            'What comes after the {n} letter of "{w}" in the alphabet?',
            'In the alphabet, what is next after the {n} letter of "{w}"?',
        )
        answer = chr(97 + (ord(answer) - 96) % 26)
    return _pick(rng, phrases).format(n=ORDINALS[index], w=word), answer


def ordering(rng: Rng, level: int) -> tuple[str, str]:
    """Who is the tallest (oldest, shortest, ...) of three to five people, from pairwise comparisons."""
    people = _some(rng, NAMES, {1: 3, 2: 3, 3: 4, 4: 4, 5: 5}[level])
    more, most, less, least = _pick(rng, COMPARED)
    pairs = list(pairwise(people))
    if level >= 2:
        pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    said = [
        f"{low} is {less} than {high}" if level >= 3 and rng.integers(2) else f"{high} is {more} than {low}"
        for high, low in pairs
    ]
    bottom = level >= 4 and bool(rng.integers(2))
    phrase = _pick(rng, ("Who is the {m}?", "Who is {m}?", "Which of them is the {m}?", "Name the {m}."))
    return ". ".join(said) + ". " + phrase.format(m=least if bottom else most), people[-1 if bottom else 0]


def syllogism(rng: Rng, level: int) -> tuple[str, str]:
    """Follow a chain of "all As are Bs" from one individual; the question may ask about a kind off the chain."""
    n = {1: 1, 2: 2, 3: 2, 4: 3, 5: 4}[level]
    kinds = _some(rng, KINDS, n + 3)
    chain, others = kinds[: n + 1], kinds[n + 1 :]
    name = _pick(rng, NAMES)
    rules = [f"all {a}s are {b}s" for a, b in pairwise(chain)]
    start, right = 0, bool(rng.integers(2))
    asked = chain[-1]
    if not right:
        # A wrong question looks like a right one: the individual sits further up the chain, or the chain is cut.
        if rng.integers(2):
            start, asked = n, chain[int(rng.integers(n))]
        else:
            rules[-1] = f"all {others[0]}s are {chain[-1]}s"
    rules.append(f"{name} is a {chain[start]}")
    if level >= 3:
        rules = [rules[i] for i in rng.permutation(len(rules))]
    phrase = _pick(rng, ("is {p} a {k}?", "must {p} be a {k}?", "does it follow that {p} is a {k}?"))
    said = f"If {' and '.join(rules)}, {phrase.format(p=name, k=asked)}"
    return said, ("yes" if right else "no")


def tracking(rng: Rng, level: int) -> tuple[str, str]:
    """Who has a thing after people swapped what they hold, none to three times."""
    n = 4 if level == 5 else 3
    people, things = _some(rng, NAMES, n), _some(rng, THINGS, n)
    holds = dict(zip(people, things, strict=True))
    said = [f"{person} has the {thing}" for person, thing in holds.items()]
    for _ in range({1: 0, 2: 1, 3: 2, 4: 3, 5: 3}[level]):
        one, two = _some(rng, tuple(people), 2)
        holds[one], holds[two] = holds[two], holds[one]
        said.append(f"{one} and {two} swap")
    asked = _pick(rng, tuple(things))
    phrase = _pick(rng, ("Who has the {t} now?", "Who holds the {t} in the end?", "Where is the {t}?"))
    return ". ".join(said) + ". " + phrase.format(t=asked), next(p for p, t in holds.items() if t == asked)


def facts(rng: Rng, level: int) -> tuple[str, str]:
    """A fact about the world, the rarer in training the harder; at level 5 two facts in a row."""
    relation, subject, answer = _pick(rng, FACTS_BY_TIER[level])
    return _pick(rng, PHRASES[relation]).format(s=subject), answer


def lookup(rng: Rng, level: int) -> tuple[str, str]:
    """Find in the prompt what one of two to seven people likes, or who likes it; at level 5, who likes the same."""
    n = {1: 2, 2: 3, 3: 5, 4: 7, 5: 5}[level]
    people, things = _some(rng, NAMES, n), _some(rng, LIKED, n)
    verb = _pick(rng, (("likes", "like"), ("wants", "want"), ("buys", "buy")))
    i, j = (int(k) for k in rng.permutation(n)[:2])
    if level == 5:
        things[j] = things[i]
    said = ". ".join(f"{p} {verb[0]} {t}" for p, t in zip(people, things, strict=True))
    if level == 5:
        phrase = _pick(rng, ("Who {v} the same as {p}?", "Who else {v} what {p} {v}?"))
        return f"{said}. " + phrase.format(v=verb[0], p=people[i]), people[j]
    if rng.integers(2):
        return f"{said}. What does {people[i]} {verb[1]}?", things[i]
    return f"{said}. Who {verb[0]} {things[i]}?", people[i]


def calendar(rng: Rng, level: int) -> tuple[str, str]:
    """Count days or months onwards or back."""
    days = level != 3 and (level < 4 or bool(rng.integers(2)))
    cycle, unit = (DAYS, "days") if days else (MONTHS, "months")
    span = {1: (1, 2), 2: (2, 4), 3: (1, 4), 4: (4, 9), 5: (9, 25)}[level]
    count, start = int(rng.integers(*span)), int(rng.integers(len(cycle)))
    back = bool(rng.integers(2))
    what, way = unit[:-1], "before" if back else "after"
    amount = f"{count} {unit}" if count > 1 else f"one {what}"
    phrase = _pick(
        rng,
        (
            "What {u} is {n} {w} {s}?",
            "Which {u} comes {n} {w} {s}?",
            "Name the {u} that is {n} {w} {s}.",
            "Find the {u} {n} {w} {s}.",
        ),
    )
    answer = cycle[(start + (-count if back else count)) % len(cycle)]
    return phrase.format(u=what, n=amount, w=way, s=cycle[start]), answer.lower()


def story(rng: Rng, level: int) -> tuple[str, str]:
    """A word problem with one or two steps of addition and subtraction."""
    name, other = _some(rng, NAMES, 2)
    thing = _pick(rng, COUNTED)
    a, b = (_digits(rng, n) for n in {1: (1, 1), 2: (2, 1), 3: (2, 2), 4: (2, 1), 5: (2, 2)}[level])
    more = bool(rng.integers(2))
    if not more:
        a, b = max(a, b), min(a, b)
    gets = _pick(rng, ("gets {b} more", "finds {b} more", "buys {b} more") if more else ("loses {b}", "sells {b}"))
    said, total = f"{name} has {a} {thing} and {gets.format(b=b)}.", a + b if more else a - b
    if level >= 4:
        c = _digits(rng, 1)
        said += f" Then {other} brings {c}."
        total += c
    phrase = _pick(rng, ("How many {t} does {n} have now?", "How many {t} are there now?", "How many {t} is that?"))
    return f"{said} " + phrase.format(t=thing, n=name), str(total)


FAMILIES: dict[str, Callable[[Rng, int], tuple[str, str]]] = {
    "addition": addition,
    "subtraction": subtraction,
    "multiplication": multiplication,
    "sequence": sequence,
    "reverse": reverse,
    "sort": sort,
    "letter": letter,
    "ordering": ordering,
    "syllogism": syllogism,
    "tracking": tracking,
    "facts": facts,
    "lookup": lookup,
    "calendar": calendar,
    "story": story,
}
DOMAINS: dict[str, tuple[str, ...]] = {
    "arithmetic": ("addition", "subtraction", "multiplication", "sequence", "story"),
    "strings": ("reverse", "sort", "letter"),
    "logic": ("ordering", "syllogism", "tracking"),
    "knowledge": ("facts", "lookup", "calendar"),
}
# Held out from routers, not from the models: its prompts carry the split label "ood".
HELD_OUT = "story"
# Families answered with letters, which the tokenizer spells out.
SPELLED = ("reverse", "sort", "letter")


def draw(rng: Rng, family: str, level: int) -> Question:
    """Draw one question of a family at a difficulty."""
    prompt, answer = FAMILIES[family](rng, level)
    if rng.random() < OPENER_SHARE:
        prompt = f"{_pick(rng, OPENERS)} {prompt}"
    return Question(prompt, answer.lower(), family, level)
