"""Slides of the chapters, made from their last runs: what a lecture shows, with the prose as speaker's notes.

Every heading, formula, figure, table and exercise of a page gets its place; solutions do not. nbconvert writes
reveal.js slides, which lie in one folder with all they need, so that they open without a network.
"""

from __future__ import annotations

import ast
import base64
import html
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import numpy as np

from routebook import runs, site, teaching
from routebook.errors import UserError

INDEX, MARK = "index.html", ".routebook-slides"
TEMPLATE = Path(__file__).parent / "slides_template"
FORMULAS_A_SLIDE = 2
# Of a section's prose a slide shows the first sentences, and its first list where that is short.
WORDS_SAID, WORDS_LISTED = 50, 110

_ROLE = re.compile(r"(?P<space>[ \t]*)\{(?P<role>[\w:-]+)\}`(?P<text>[^`]*)`")
_TITLED = re.compile(r"(?P<title>.+?)\s*<(?P<target>[^>]+)>", re.S)
_FENCE = re.compile(r"^(:::|```).*?^\1$", re.M | re.S)
# A formula may have a label behind it.
_FORMULA = re.compile(r"\$\$.*?\$\$(?: \([\w-]+\))?", re.S)
_HEADING = re.compile(r"^(#{1,6}) +(.+)$", re.M)
_LIST = re.compile(r"(?:^(?:[-*]|\d+\.) .+\n?(?:^ +.+\n?)*)+", re.M)
_IMAGE = "image/svg+xml"


@dataclass
class Slide:
    """One slide: a heading, what stands below it, and what the speaker says.

    Attributes
    ----------
    starts
        Whether it starts a new column of slides, as the sections of a page do.
    shown
        Markdown texts and tables as HTML outputs, in order.
    """

    heading: str
    starts: bool = False
    shown: list[str | dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write_slides(root: Path, out: Path, names: Sequence[str] | None = None) -> list[Path]:
    """Write slides of the chapters' latest runs into a folder, whole or not at all.

    Parameters
    ----------
    out
        A folder that is new, empty, or holds earlier slides.
    names
        Chapters, by name; by default every one that has been run.

    Raises
    ------
    UserError
        For a chapter that does not exist or has not been run, and a folder that cannot be used.
    """
    if names is not None and not names:
        raise UserError("--chapters names no chapter, expected names such as uniroute,cscr; leave it out for all")
    chosen = [runs.chapter(name, root) for name in names] if names is not None else runs.chapters(root).values()
    found = {chapter: site.latest_run(chapter) for chapter in chosen}
    for chapter in (chapter for chapter, folder in found.items() if folder is None and names is not None):
        raise UserError(f"{chapter.name} has no run to make slides of; type: routebook run {chapter.name}")
    pages = [site.Built(c, folder, runs.read_run(folder), executed=False) for c, folder in found.items() if folder]
    if not pages:
        raise UserError("no chapter has been run yet, so there is nothing to make slides of; type: routebook build")
    with runs.new_folder(out, made_before=MARK) as folder:
        written = write_decks(pages, folder)
    return [out / path.name for path in written]


def write_decks(pages: Sequence[site.Built], folder: Path) -> list[Path]:
    """Write the slides of some runs, an index, and the scripts they need into a folder that exists."""
    written = []
    for page in pages:
        source = page.chapter.root / page.chapter.notebook
        merged = site.merge(source, page.folder / "notebook.ipynb", page.run)
        path = folder / f"{page.chapter.name}.html"
        path.write_text(render(slides_of(merged), page.chapter.title), encoding="utf-8")
        written.append(path)
    titles = {path.name: page.chapter.title for path, page in zip(written, pages, strict=True)}
    (folder / INDEX).write_text(_index(titles), encoding="utf-8")
    (folder / MARK).touch()
    _copy_scripts(folder)
    return written


def slides_of(notebook: nbformat.NotebookNode) -> list[Slide]:
    """Return the slides of an executed notebook, as `routebook.site.merge` gives it.

    A section opens with its first sentences and its formulas or first list, a subsection likewise; each figure and
    each table has a slide with the heading it stands under. A heading with nothing to show is left out. The notice of
    the data stands under the title. All other prose becomes notes.
    """
    edition = teaching.student_edition(notebook)
    values = glued(notebook)
    title, notice, *rest = edition.cells
    slides = [slide for slide in _of_prose(title.source, values) if slide.heading]
    slides[0].shown += _boxed(notice.source, values)
    for cell in rest:
        if cell.cell_type == "markdown":
            for slide in _of_prose(cell.source, values):
                if slide.heading:
                    slides.append(slide)
                else:
                    slides[-1].notes += slide.notes
        elif not teaching.is_tagged(cell, "remove-output"):
            slides += [Slide(slides[-1].heading, shown=[shown]) for shown in _outputs(cell, values)]
    return _without_empty(slides)


def _without_empty(slides: Sequence[Slide]) -> list[Slide]:
    """Leave out slides that show nothing but a heading; what follows them then starts the column, and has the notes."""
    kept: list[Slide] = []
    starts, notes = False, []
    for slide in slides:
        starts, notes = starts or slide.starts, notes + slide.notes
        if slide.shown:
            kept.append(Slide(slide.heading, starts, slide.shown, notes))
            starts, notes = False, []
    return kept


def _of_prose(text: str, values: Mapping[str, Any]) -> Iterator[Slide]:
    """Yield a slide a heading of a markdown cell, and before them one without, for the text above the first."""
    pieces = _HEADING.split(text)
    yield Slide("", notes=_sentences(plain(pieces[0], values)))
    for marks, heading, body in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        heading = plain(heading, values)
        if len(marks) == 1:
            yield Slide(heading, True, ["\n\n".join(_boxed(body, values))])
            continue
        if heading.startswith("Exercise: "):
            yield Slide(heading, False, [plain(body.partition("\nDefine:")[0], values).strip()])
            continue
        first, *more = _stated(body, values) if _FORMULA.search(body) else [_said(body, values)]
        # What the exercises need is no matter for a lecture.
        shown = [] if heading in ("Exercise", "Exercises") else ["\n\n".join(first.shown)] if first.shown else []
        yield Slide(heading, len(marks) == 2, shown, first.notes)
        yield from (Slide(heading, False, ["\n\n".join(slide.shown)], slide.notes) for slide in more)


def _stated(body: str, values: Mapping[str, Any]) -> list[Slide]:
    """Return a section's formulas, a few a slide, each below the sentence that leads up to it."""
    *texts, tail = _FORMULA.split(body)
    slides: list[Slide] = []
    for place, (text, formula) in enumerate(zip(texts, _FORMULA.findall(body), strict=True)):
        formula = formula[: formula.rindex("$$") + 2]
        if place % FORMULAS_A_SLIDE == 0:
            slides.append(Slide(""))
        sentences = _sentences(plain(text, values))
        opening = sentences[:1] if place == 0 and len(sentences) > 1 else []
        slides[-1].shown += [*opening, *sentences[-1:], formula]
        slides[-1].notes += sentences[len(opening) : -1]
    slides[-1].notes += _sentences(plain(tail, values))
    return slides


def _said(body: str, values: Mapping[str, Any]) -> Slide:
    """Return a section's first sentences, and its first list if that is short."""
    before, listed, after = _around_list(plain(body, values))
    said, rest = _opening(_sentences(before))
    return Slide("", shown=[*said, *([listed] if listed else [])], notes=rest + _sentences(after))


def _opening(sentences: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the first sentences, at least one and as many as a slide takes, and the others."""
    words = np.cumsum([len(sentence.split()) for sentence in sentences])
    shown = max(1, int(np.searchsorted(words, WORDS_SAID, side="right")))
    return list(sentences[:shown]), list(sentences[shown:])


def _around_list(text: str) -> tuple[str, str, str]:
    """Return what stands before a text's first list, the list, and what stands behind; all before if it is long."""
    bare = _FENCE.sub("", text)
    found = _LIST.search(bare)
    if found is None or len(found[0].split()) > WORDS_LISTED:
        return bare, "", ""
    return bare[: found.start()], found[0].strip(), bare[found.end() :]


def _boxed(body: str, values: Mapping[str, Any]) -> list[str]:
    """Return the paragraphs of a page's opening, those of its boxes included."""
    text = re.sub(r"^:::.*$|^:\w+:.*$", "", body, flags=re.M)
    return [part.strip() for part in re.split(r"\n\s*\n", plain(text, values)) if part.strip()]


def _sentences(text: str) -> list[str]:
    """Return the lines of running prose: no lists, tables or fences."""
    lines = [line.strip() for line in _FENCE.sub("", text).splitlines()]
    return [line for line in lines if line and not re.match(r"[-*|>] |\||\d+\. |---|<", line)]


def _outputs(cell: nbformat.NotebookNode, values: Mapping[str, Any]) -> Iterator[str | dict[str, str]]:
    """Yield a cell's figures, as markdown with their caption, and its tables, as HTML."""
    described = cell.metadata.get("mystnb", {})
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if _IMAGE in data:
            code = base64.b64encode(data[_IMAGE].encode()).decode()
            alt = html.escape(described.get("image", {}).get("alt", ""), quote=True)
            caption = plain(described.get("figure", {}).get("caption", ""), values)
            yield f'<img alt="{alt}" src="data:{_IMAGE};base64,{code}">\n\n<small>{caption}</small>'
        elif "text/html" in data:
            yield {"text/html": data["text/html"]}


def glued(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """Return the values that an executed notebook gives its prose, by key: numbers, or text."""
    found = {}
    for output in (out for cell in notebook.cells for out in cell.get("outputs", [])):
        name = output.get("metadata", {}).get("scrapbook", {}).get("name")
        if name is not None:
            text = next(text for kind, text in output["data"].items() if kind.endswith("text/plain"))
            # What a computation left without a value prints as a bare nan or inf.
            found[name] = float(text) if text.strip("+-") in ("nan", "inf") else ast.literal_eval(text)
    return found


def plain(text: str, values: Mapping[str, Any]) -> str:
    """Return MyST prose as plain markdown: glued values filled in, links by their words, citations left out."""

    def written(match: re.Match) -> str:
        role, content = match["role"], match["text"]
        if role == "cite":
            return ""
        if role == "glue:text":
            key, _, form = content.partition(":")
            return match["space"] + format(values.get(key, "…"), form if key in values else "")
        titled = _TITLED.fullmatch(content)
        if titled:
            return match["space"] + titled["title"]
        words = {"numref": "the figure", "eq": "the equation", "ref": "the exercise", "doc": content.rpartition("/")[2]}
        return match["space"] + words.get(role, content)

    return _ROLE.sub(written, text)


def render(slides: Sequence[Slide], title: str) -> str:
    """Return the page that shows slides; it refers to scripts beside it (`write_decks` puts them there)."""
    from nbconvert import SlidesExporter

    v4 = nbformat.v4
    cells = []
    for place, slide in enumerate(slides):
        marks, kind = ("#" if place == 0 else "##"), ("slide" if slide.starts or place == 0 else "subslide")
        cells.append(v4.new_markdown_cell(f"{marks} {slide.heading}", metadata=_type(kind)))
        for shown in slide.shown:
            if isinstance(shown, str):
                cells.append(v4.new_markdown_cell(shown, metadata=_type("-")))
            else:
                output = v4.new_output("display_data", data=shown)
                cells.append(v4.new_code_cell(outputs=[output], metadata=_type("-")))
        if slide.notes:
            cells.append(v4.new_markdown_cell("\n\n".join(slide.notes), metadata=_type("notes")))
    # nbformat draws ids at random, and what differs is built anew.
    for place, cell in enumerate(cells):
        cell.id = f"cell-{place}"
    exporter = SlidesExporter(
        extra_template_basedirs=[str(TEMPLATE.parent)],
        template_name=TEMPLATE.name,
        reveal_url_prefix="reveal.js",
        reveal_theme="white",
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    notebook = v4.new_notebook(cells=cells, metadata={"title": title})
    return exporter.from_notebook_node(notebook)[0]


def _type(kind: str) -> dict[str, Any]:
    return {"slideshow": {"slide_type": kind}}


def _copy_scripts(folder: Path) -> None:
    """Put reveal.js and MathJax beside the slides, as the packages ship them that bring them along."""
    reveal = _package("sphinx_revealjs") / "_static" / "revealjs"
    for part in ("dist/reveal.js", "dist/reveal.css", "dist/theme/white.css", "plugin/notes/notes.js", "LICENSE"):
        (folder / "reveal.js" / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(reveal / part, folder / "reveal.js" / part)
    fonts = Path("dist/theme/fonts/source-sans-pro")
    shutil.copytree(reveal / fonts, folder / "reveal.js" / fonts, ignore=shutil.ignore_patterns("*.eot", "*.ttf"))
    (folder / "mathjax").mkdir()
    shutil.copy(_package("sphinx-mathjax-offline") / "static" / "mathjax" / "tex-svg.js", folder / "mathjax")
    shutil.copy(TEMPLATE / "slides.css", folder)


def _package(name: str) -> Path:
    """Return the folder of an installed package, without importing it."""
    return Path(find_spec(name).submodule_search_locations[0])


def _index(titles: Mapping[str, str]) -> str:
    listed = "\n".join(f'<li><a href="{file}">{html.escape(title)}</a></li>' for file, title in titles.items())
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<title>LLM Routing, Replicated: slides</title>\n<link rel="icon" href="data:,">\n'
        "<style>body { font-family: sans-serif; line-height: 1.6; margin: 2em auto; max-width: 40em; padding: 0 1em }"
        "</style>\n</head>\n<body>\n<h1>LLM Routing, Replicated: slides</h1>\n"
        "<p>Arrow keys turn the slides, <kbd>s</kbd> opens the speaker's view, <kbd>?</kbd> lists the keys.</p>\n"
        f"<ul>\n{listed}\n</ul>\n</body>\n</html>\n"
    )
