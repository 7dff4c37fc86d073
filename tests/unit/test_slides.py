"""Slides made of a chapter's run: what is shown, what is said, and what is refused."""

from __future__ import annotations

import base64
import json
import re

import nbformat
import pytest
from toy_project import make_project, notebook

from routebook import runs, slides
from routebook.errors import UserError

V4 = nbformat.v4
VALUES = {"area": 0.12345, "n": 4.0, "name": "tiny", "lost": float("nan")}


def _glue(name, text):
    data = {"application/papermill.record/text/plain": text}
    return V4.new_output("display_data", data=data, metadata={"scrapbook": {"name": name}})


def _chapter(*cells):
    """An executed notebook as the site's pages have it: title, notice, then markdown texts or code cells."""
    head = [
        "# The chapter\n\n:::{admonition} On this page\n:class: tip\n\n**You need** time.\n:::",
        ":::{note}\nToy.\n:::",
    ]
    return V4.new_notebook(cells=[V4.new_markdown_cell(c) if isinstance(c, str) else c for c in (*head, *cells)])


def _code(data, **metadata):
    return V4.new_code_cell("show()", outputs=[V4.new_output("display_data", data=data)], metadata=metadata)


def test_prose_becomes_plain():
    said = "Area {glue:text}`area:.3f` of {glue:text}`n:.0f`, {glue:text}`name` {cite}`who2026`, {glue:text}`lost:.1f`."
    assert slides.plain(said, VALUES) == "Area 0.123 of 4, tiny, nan."
    links = "{doc}`the page <other>`, {doc}`/book/intro`, {term}`routers <router>`, {term}`peak`, {numref}`fig-a`"
    assert slides.plain(links, {}) == "the page, intro, routers, peak, the figure"
    assert slides.plain("{glue:text}`unknown:.2f`", {}) == "…"


def test_glued_values_are_read_from_the_run():
    outputs = [_glue("a", "0.5"), _glue("b", "nan"), _glue("c", "-inf"), _glue("d", "'some text'")]
    found = slides.glued(_chapter(V4.new_code_cell("", outputs=outputs)))
    assert (found["a"], found["c"], found["d"]) == (0.5, -float("inf"), "some text")
    assert found["b"] != found["b"]


def test_the_title_names_the_data():
    (title,) = slides.slides_of(_chapter())
    assert title.heading == "The chapter"
    assert title.shown == ["**You need** time.", "Toy."]


def test_a_section_shows_its_first_sentences_and_says_the_rest():
    long = " ".join(["word"] * 45) + "."
    _, slide = slides.slides_of(_chapter(f"## Part\n\n{long}\nFour more words here.\nToo much to be shown."))
    assert (slide.heading, slide.starts) == ("Part", True)
    assert slide.shown == [f"{long}\n\nFour more words here."]
    assert slide.notes == ["Too much to be shown."]


def test_a_short_list_is_shown_and_a_long_one_is_not():
    _, slide = slides.slides_of(_chapter("## Part\n\nLead.\n\n- one\n- two\n  more\n\nAfter."))
    assert slide.shown == ["Lead.\n\n- one\n- two\n  more"]
    assert slide.notes == ["After."]
    items = "\n".join(f"{i}. {'word ' * 20}" for i in range(1, 8))
    _, slide = slides.slides_of(_chapter(f"## Part\n\nLead.\n\n{items}"))
    assert slide.shown == ["Lead."]


def test_formulas_stand_below_the_sentence_that_leads_to_them_two_a_slide():
    text = "### Sub\n\nLead.\nMore.\nSo\n\n$$a$$\n\nand\n\n$$b$$ (eq-toy-b)\n\nThen\n\n$$c$$\n\nDone."
    first, second = slides.slides_of(_chapter(text))[1:]
    assert first.shown == ["Lead.\n\nSo\n\n$$a$$\n\nand\n\n$$b$$"]
    assert (first.starts, first.notes) == (False, ["More."])
    assert second.shown == ["Then\n\n$$c$$"]
    assert second.notes == ["Done."]


def test_figures_and_tables_have_a_slide_each_under_their_heading():
    described = {"figure": {"caption": "Areas of {glue:text}`name`."}, "image": {"alt": 'A "line".'}}
    glue = V4.new_code_cell("", outputs=[_glue("name", "'tiny'")])
    figure, table = _code({"image/svg+xml": "<svg/>"}, mystnb=described), _code({"text/html": "<table></table>"})
    hidden = _code({"text/html": "<p>no</p>"}, tags=["remove-output"])
    _, one, two = slides.slides_of(_chapter("## Curves", figure, "Said of it.", hidden, table, glue))
    code = base64.b64encode(b"<svg/>").decode()
    image = f'<img alt="A &quot;line&quot;." src="data:image/svg+xml;base64,{code}">'
    assert one.shown == [f"{image}\n\n<small>Areas of tiny.</small>"]
    assert (one.heading, one.starts, one.notes) == ("Curves", True, ["Said of it."])
    assert (two.heading, two.starts, two.shown) == ("Curves", False, [{"text/html": "<table></table>"}])


def test_exercises_are_shown_without_what_to_define_and_without_solutions():
    context = V4.new_code_cell("a = 1", metadata={"tags": ["exercise-context"]})
    stated = ":::{exercise} Sum\n:label: ex-sum\n\nAdd one.\n\nDefine:\n\n- `b`: the sum\n:::"
    start = ":::{solution-start} ex-sum\n:label: solution-sum\n:class: dropdown\n:::\n\nThe secret."
    solution = V4.new_code_cell("b = 2", metadata={"tags": ["solution"]})
    solution.outputs = [V4.new_output("display_data", data={"text/html": "<p>secret</p>"})]
    check = V4.new_code_cell("assert b == 2", metadata={"tags": ["check"]})
    end = ":::{solution-end}\n:::"
    shown = slides.slides_of(_chapter("## Exercises\n\nNeeds.", context, stated, start, solution, check, end))[1:]
    (slide,) = shown
    assert (slide.heading, slide.starts, slide.shown) == ("Exercise: Sum", True, ["Add one."])
    assert "secret" not in slides.render(shown, "Toy")


def test_a_page_of_slides_asks_no_other_host_for_anything():
    page = slides.render([slides.Slide("One", True, ["Text $x$.", {"text/html": "<table></table>"}], ["Say."])], "Toy")
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//[^\"]+", page)
    assert "<title>Toy slides</title>" in page
    assert page.count('<aside class="notes">') == 1
    assert "Text $x$." in page


@pytest.fixture
def run_toy(tmp_path):
    """The toy project with a run of its chapter that shows one table."""
    root = make_project(tmp_path / "toy")
    folder = root / "_build" / "runs" / "toy" / "abc"
    folder.mkdir(parents=True)
    done = notebook()
    done.cells[-1].outputs = [V4.new_output("display_data", data={"text/html": "<table><tr><td>7</td></tr></table>"})]
    nbformat.write(done, folder / "notebook.ipynb")
    run = {"chapter": "toy", "digest": "abc", "dataset": "simulated", "origin": "simulated", "absent": []}
    run |= {"profile": "quick", "parameters": {}, "date": "2026-01-02T03:04:05", "seconds": 3.0}
    (folder / runs.RUN_FILE).write_text(json.dumps(run))
    return root


def test_slides_are_written_with_all_they_refer_to_and_replace_earlier_ones(run_toy, tmp_path):
    out = tmp_path / "out"
    for _ in range(2):
        assert slides.write_slides(run_toy, out) == [out / "toy.html"]
    page = (out / "toy.html").read_text()
    assert "<td>7</td>" in page
    for target in re.findall(r"(?:src|href)=\"([^\"#]+)\"", page + (out / "index.html").read_text()):
        assert target.startswith("data:") or (out / target).is_file(), target
    (out / "toy.html").unlink()
    assert slides.write_slides(run_toy, out, ["toy"]) == [out / "toy.html"]
    assert [path.name for path in tmp_path.iterdir() if path.name != "toy"] == ["out"]


def test_what_cannot_be_made_into_slides_is_refused(run_toy, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "index.html").write_text("mine")
    with pytest.raises(
        UserError, match="full holds other files, expected a folder that is new, empty or an earlier one of its kind"
    ):
        slides.write_slides(run_toy, full)
    assert (full / "index.html").read_text() == "mine"
    with pytest.raises(UserError, match="no chapter 'tox'"):
        slides.write_slides(run_toy, tmp_path / "out", ["tox"])
    with pytest.raises(UserError, match="--chapters names no chapter"):
        slides.write_slides(run_toy, tmp_path / "out", [])
    (run_toy / "_build/runs/toy/abc" / runs.RUN_FILE).unlink()
    with pytest.raises(UserError, match="toy has no run to make slides of; type: routebook run toy"):
        slides.write_slides(run_toy, tmp_path / "out", ["toy"])
    with pytest.raises(UserError, match="no chapter has been run yet"):
        slides.write_slides(run_toy, tmp_path / "out")
    assert not (tmp_path / "out").exists()
