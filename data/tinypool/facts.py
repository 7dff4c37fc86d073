"""The facts of TinyPool's knowledge questions: common knowledge about countries, words and animals.

A fact's tier, 1 to 4, is how rarely it is seen in training: a fact of tier 1 is asked eight times as often as one of
tier 4, as famous facts are on the web. Tier 5 asks for two facts in a row.
"""

from __future__ import annotations

COUNTRIES = """
France Paris French Europe|Germany Berlin German Europe|Italy Rome Italian Europe|Spain Madrid Spanish Europe|
Japan Tokyo Japanese Asia|China Beijing Chinese Asia|Russia Moscow Russian Europe|Egypt Cairo Arabic Africa|
Greece Athens Greek Europe|Portugal Lisbon Portuguese Europe|Poland Warsaw Polish Europe|Turkey Ankara Turkish Asia|
Austria Vienna German Europe|Sweden Stockholm Swedish Europe|Norway Oslo Norwegian Europe|
Denmark Copenhagen Danish Europe|Finland Helsinki Finnish Europe|Hungary Budapest Hungarian Europe|
Cuba Havana Spanish America|Peru Lima Spanish America|Chile Santiago Spanish America|Mexico Mexico-City Spanish America|
Argentina Buenos-Aires Spanish America|Brazil Brasilia Portuguese America|Iran Tehran Persian Asia|
Iraq Baghdad Arabic Asia|Thailand Bangkok Thai Asia|Vietnam Hanoi Vietnamese Asia|Kenya Nairobi Swahili Africa|
Angola Luanda Portuguese Africa|Romania Bucharest Romanian Europe|Bulgaria Sofia Bulgarian Europe|
Croatia Zagreb Croatian Europe|Serbia Belgrade Serbian Europe|Iceland Reykjavik Icelandic Europe|
Colombia Bogota Spanish America|Ecuador Quito Spanish America|Mongolia Ulaanbaatar Mongolian Asia|
Jordan Amman Arabic Asia|Libya Tripoli Arabic Africa
"""
OPPOSITES = """
hot cold|big small|day night|up down|wet dry|old new|good bad|full empty|rich poor|hard soft|early late|open closed|
strong weak|high low|fast slow|light dark|long short|near far|loud quiet|thick thin|sweet sour|true false|
clean dirty|wide narrow|happy sad|deep shallow|brave timid|smooth rough|heavy light|sharp blunt
"""
YOUNG = """
dog puppy|cat kitten|cow calf|sheep lamb|horse foal|hen chick|duck duckling|pig piglet|lion cub|goat kid|
deer fawn|goose gosling|swan cygnet|frog tadpole|kangaroo joey|eagle eaglet|hare leveret|seal pup
"""
PHRASES: dict[str, tuple[str, ...]] = {
    "capital": (
        "What is the capital of {s}?",
        "Name the capital of {s}.",
        "Which city is the capital of {s}?",
        "{s} has which capital?",
    ),
    "country": (
        "{s} is the capital of which country?",
        "Of which country is {s} the capital?",
        "Which country has {s} as its capital?",
        "Name the country whose capital is {s}.",
    ),
    "language": (
        "Which language is spoken in {s}?",
        "What language do people speak in {s}?",
        "Name the main language of {s}.",
        "In {s}, which language is spoken?",
    ),
    "continent": (
        "On which continent is {s}?",
        "Which continent is {s} in?",
        "Name the continent of {s}.",
        "{s} is on which continent?",
    ),
    "language of capital": (
        "Which language is spoken in the country whose capital is {s}?",
        "What do people speak in the country with the capital {s}?",
        "{s} is the capital of a country where people speak which language?",
    ),
    "continent of capital": (
        "On which continent is the country whose capital is {s}?",
        "The country with the capital {s} is on which continent?",
        "{s} is the capital of a country on which continent?",
    ),
    "opposite": (
        "What is the opposite of {s}?",
        "Name the opposite of {s}.",
        "Which word means the opposite of {s}?",
        "Not {s} but the opposite?",
    ),
    "young": (
        "What is a young {s} called?",
        "What do you call the young of a {s}?",
        "Name the young of a {s}.",
        "A young {s} is called what?",
    ),
}


def _table(text: str) -> list[list[str]]:
    rows = "".join(text.split("\n")).split("|")
    return [[cell.replace("-", " ") for cell in row.split(" ")] for row in rows]


def _all() -> list[tuple[str, str, str, int]]:
    """Return (relation, subject, answer, tier); a table lists its best-known rows first."""
    found: list[tuple[str, str, str, int]] = []
    tier = lambda i, n: 1 + 4 * i // n  # noqa: E731
    rows = _table(COUNTRIES)
    for i, (country, capital, language, continent) in enumerate(rows):
        t = tier(i, len(rows))
        found += [
            ("capital", country, capital.lower(), t),
            ("country", capital, country.lower(), min(t + 1, 4)),
            ("language", country, language.lower(), min(t + 1, 4)),
            ("continent", country, continent.lower(), t),
            ("language of capital", capital, language.lower(), 5),
            ("continent of capital", capital, continent.lower(), 5),
        ]
    for relation, text in (("opposite", OPPOSITES), ("young", YOUNG)):
        rows = _table(text)
        found += [(relation, a, b, tier(i, len(rows))) for i, (a, b) in enumerate(rows)]
    return found


FACTS = _all()
FACTS_BY_TIER = {t: tuple((r, s, a) for r, s, a, tier in FACTS if tier == t) for t in (1, 2, 3, 4, 5)}
TIER_WEIGHT = {1: 8.0, 2: 6.0, 3: 3.0, 4: 1.5, 5: 1.5}
