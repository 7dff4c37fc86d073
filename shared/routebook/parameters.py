"""Chapter parameters: one pydantic model a chapter says what may be set, and refuses the rest in one line.

Papermill injects whatever it is given. These models are what stands between a wrong parameter and a wrong figure:
`routebook run` validates with them before any kernel starts, and a chapter's second cell validates with them when the
notebook is run by other means.
"""

from __future__ import annotations

import json
import types
import typing
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from routebook.errors import UserError, suggest

Profile = Literal["quick", "paper"]
PROFILES: tuple[Profile, ...] = ("quick", "paper")
_IPYTHON_NAMES = frozenset({"In", "Out", "exit", "quit", "get_ipython", "open"})


def parameter(quick: Any, description: str, *, paper: Any = ..., **limits: Any) -> Any:
    """Declare a parameter: its default (the quick profile's value), the paper's value, its help text and its limits."""
    extra = {} if paper is ... else {"paper": paper}
    return Field(quick, description=description, json_schema_extra=extra, **limits)


class ChapterParams(BaseModel):
    """Base of every chapter's parameters. Defaults are the quick profile's values.

    Attributes
    ----------
    CHAPTER
        Name of the chapter, as `routebook run` takes it.
    DATASETS
        Datasets the chapter can run on, best first; ``dataset="auto"`` takes the first that is present. A page that
        looks at every dataset there is has ``("all",)``.
    MANY
        Whether the chapter runs on several datasets at once: those its parameter `pools` names, by default every one
        that is present and whose origin is among `ORIGINS`.
    ORIGINS
        See `MANY`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    CHAPTER: ClassVar[str]
    DATASETS: ClassVar[tuple[str, ...]]
    MANY: ClassVar[bool] = False
    ORIGINS: ClassVar[tuple[str, ...]] = ("real",)

    @classmethod
    def build(cls, given: dict[str, Any], profile: Profile = "quick") -> Self:
        """Validate parameters given by name; what is not given comes from the profile.

        Raises
        ------
        UserError
            Naming the parameter, what was found, what was expected and what to type next.
        """
        for name in given:
            if name not in cls.model_fields:
                raise UserError(
                    f"{cls.CHAPTER} has no parameter {name!r}{suggest(name, cls.model_fields)} "
                    f"(routebook params {cls.CHAPTER} lists them)"
                )
        try:
            return cls(**{**cls.profile_values(profile), **given})
        except ValidationError as error:
            raise UserError(cls._explain(error, given)) from None

    @classmethod
    def parse(cls, texts: dict[str, str], profile: Profile = "quick") -> Self:
        """Validate parameters given as text on a command line: ``n_trials=5``, ``cluster_grid=3,5,8``."""
        values: dict[str, Any] = {}
        for name, text in texts.items():
            field = cls.model_fields.get(name)
            values[name] = text if field is None else _from_text(text, field.annotation)
        return cls.build(values, profile)

    @classmethod
    def from_notebook(cls, namespace: dict[str, Any]) -> Self:
        """Validate the variables of a notebook's parameters cell, as papermill left them.

        A variable that is no parameter is refused too: papermill injects unknown names without complaint.
        """
        given = {
            name: value
            for name, value in namespace.items()
            if not name.startswith("_")
            and name not in _IPYTHON_NAMES
            and not isinstance(value, types.ModuleType)
            and not callable(value)
        }
        return cls.build(given)

    @classmethod
    def profile_values(cls, profile: Profile) -> dict[str, Any]:
        """Return every parameter's value in a profile."""
        values = {}
        for name, field in cls.model_fields.items():
            extra = field.json_schema_extra or {}
            values[name] = extra.get("paper", field.default) if profile == "paper" else field.default
        return values

    @property
    def profile(self) -> str:
        """Name of the profile these parameters make up: "quick", "paper" or "custom" (data and seed left aside)."""
        free = {"dataset", "pools", "seed"}
        ours = self.model_dump(exclude=free)
        for profile in PROFILES:
            if ours == {k: v for k, v in self.profile_values(profile).items() if k not in free}:
                return profile
        return "custom"

    @classmethod
    def describe(cls) -> list[dict[str, Any]]:
        """Return one row a parameter: name, type, range, quick and paper values, help."""
        paper = cls.profile_values("paper")
        return [
            {
                "name": name,
                "expects": expected(field),
                "quick": field.default,
                "paper": paper[name],
                "help": field.description or "",
            }
            for name, field in cls.model_fields.items()
        ]

    @classmethod
    def _explain(cls, error: ValidationError, given: dict[str, Any]) -> str:
        lines = []
        for problem in error.errors():
            name = str(problem["loc"][0]) if problem["loc"] else ""
            if name in cls.model_fields:
                field = cls.model_fields[name]
                found = given.get(name, field.default)
                near = suggest(str(problem["input"]), _choices(field.annotation))
                near = near if problem["type"] == "literal_error" else ""
                line = f"{name}: found {found!r}, expected {expected(field)}{near}"
                if problem["type"] == "value_error":
                    line += f" ({problem['ctx']['error']})"
            else:
                line = str(problem.get("ctx", {}).get("error", problem["msg"]))
            if line not in lines:
                lines.append(line)
        return "; ".join(lines) + f" (routebook params {cls.CHAPTER} lists all parameters)"


class EmbeddedParams(ChapterParams):
    """Base of the parameters of chapters that embed prompts: what the encoder reads, and which encoder."""

    prompt_view: Literal["question", "full", "first-1400-chars"] = parameter(
        "question", "what the encoder reads of a RouterBench prompt"
    )
    encoder: str = parameter(
        "auto", "prompt encoder: auto, minilm, or any sentence-transformers or transformers id or folder", min_length=1
    )


def expected(field: FieldInfo) -> str:
    """Say in words which values a parameter takes."""
    return _type_words(field.annotation, field.metadata)


def _choices(annotation: Any) -> list[str]:
    """Return the texts a parameter may be, also as items of a list."""
    if typing.get_origin(annotation) is Literal:
        return [choice for choice in typing.get_args(annotation) if isinstance(choice, str)]
    return [choice for part in typing.get_args(annotation) for choice in _choices(part)]


def _type_words(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_words(arguments[0], [*metadata, *arguments[1:]])
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (typing.Union, types.UnionType):
        choices = [a for a in arguments if a is not type(None)]
        return " or ".join([_type_words(a, metadata) for a in choices] + ["null (chosen for you)"])
    if origin is list:
        items = _type_words(arguments[0], ()).replace("an integer", "integers").replace("a number", "numbers")
        return f"a list of {items}"
    words = {int: "an integer", float: "a number", str: "text", bool: "true or false"}[annotation]
    return words + _range_words(metadata)


def _limits(metadata: list[Any] | tuple[Any, ...], *names: str) -> list[Any]:
    found = []
    for name in names:
        values = [getattr(m, name) for m in metadata if getattr(m, name, None) is not None]
        found.append(values[0] if values else None)
    return found


def _range_words(metadata: list[Any] | tuple[Any, ...]) -> str:
    ge, gt, le, lt = _limits(metadata, "ge", "gt", "le", "lt")
    low = f"{ge} or more" if ge is not None else f"more than {gt}" if gt is not None else ""
    high = f"{le} or less" if le is not None else f"less than {lt}" if lt is not None else ""
    if ge is not None and le is not None:
        return f" from {ge} to {le}"
    return " " + " and ".join(filter(None, [low, high])) if low or high else ""


def _from_text(text: str, annotation: Any) -> Any:
    """Read a command-line value as JSON where the parameter is not text; what is no JSON stays text and is refused."""
    candidates = {annotation, *typing.get_args(annotation)}
    wants_list = any(typing.get_origin(c) is list or c is list for c in candidates)
    if wants_list and _choices(annotation) and text != "null" and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",")]
    if wants_list and not text.lstrip().startswith("[") and text != "null":
        text = f"[{text}]"
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    if value is None or wants_list or not (str in candidates or typing.get_origin(annotation) is Literal):
        return value
    return text
