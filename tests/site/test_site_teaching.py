"""Teaching, as readers meet it: solutions that unfold, words that lead to the glossary, slides without a network."""

from __future__ import annotations

import nbformat
import pytest

from routebook import runs, teaching


@pytest.fixture(scope="module")
def exercises(root):
    """Every notebook's exercises, by its page."""
    found = {c.notebook.with_suffix("").as_posix(): root / c.notebook for c in runs.chapters(root).values()}
    return {page: teaching.exercises(nbformat.read(path, 4)) for page, path in found.items()}


def test_solutions_are_folded_below_their_exercises_and_unfold(visit, exercises):
    for name, asked in exercises.items():
        page = visit(name)
        for exercise in asked:
            assert exercise.title in page.locator(f"#ex-{exercise.label}").inner_text(), name
            solution = page.locator(f"#solution-{exercise.label}")
            code = solution.locator("div.cell_input")
            assert code.count() >= 2, f"{name}: the solution's cells are not inside its fold"
            assert not code.first.is_visible(), f"{name}: a solution is there to be seen"
            solution.locator("button.toggle-button").click()
            code.first.wait_for(state="visible")
            assert exercise.solution.splitlines()[-1] in code.first.inner_text()


def test_each_page_opens_with_what_it_takes(visit, exercises):
    for name in exercises:
        box = visit(name).locator("article .admonition", has_text="On this page").first.inner_text()
        for word in ("You will learn", "You need", "minutes to read; the run behind it took"):
            assert word in box, name


def test_words_of_the_field_lead_to_the_glossary(visit, pages):
    for name in (name for name in pages if name.startswith("replications/")):
        links = visit(name).locator("article a[href*='glossary.html#term-']")
        assert links.count() > 3, name
    terms = visit("book/glossary").locator("article dl.glossary dt")
    assert terms.count() > 40


def test_the_courses_table_of_times_has_every_notebook(visit, exercises):
    rows = visit("book/teaching").locator("article table").first.locator("tbody tr")
    assert rows.count() == len(exercises)


@pytest.fixture
def deck(browser, built):
    """Open a chapter's slides from their folder, as a lecturer without a network does; wait until all is typeset."""
    opened = []

    def open_deck(name):
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        opened.append(page)
        page.problems, page.asked = [], []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("console", lambda said: page.problems.append(said.text) if said.type == "error" else None)
        page.on("requestfailed", lambda request: page.problems.append(request.url))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(f"{built.as_uri()}/slides/{name}.html", wait_until="load")
        page.wait_for_function("window.Reveal && Reveal.isReady() && MathJax.startup && MathJax.startup.promise")
        page.evaluate("MathJax.startup.promise")
        return page

    yield open_deck
    for page in opened:
        page.close()


def test_slides_open_without_a_network_and_show_the_chapter(deck, root, exercises):
    for chapter in runs.chapters(root).values():
        page = deck(chapter.name)
        assert page.problems == [], chapter.name
        assert all(url.startswith(("file:", "data:")) for url in page.asked), chapter.name
        assert page.locator("h1").inner_text() == chapter.title
        assert page.evaluate("Reveal.getTotalSlides()") > 8, chapter.name
        assert page.locator("mjx-merror").count() == 0, chapter.name
        text = page.locator(".slides").text_content()
        assert "{glue" not in text
        assert "{term}" not in text
        for exercise in exercises[chapter.notebook.with_suffix("").as_posix()]:
            assert f"Exercise: {exercise.title}" in text, chapter.name
            assert exercise.solution not in text
        descriptions = page.eval_on_selector_all(".slides img", "images => images.map(i => i.alt)")
        assert all(len(alt) > 20 for alt in descriptions), chapter.name
        _assert_nothing_is_cut_off(page, chapter.name)


def _assert_nothing_is_cut_off(page, name):
    """Every slide's text and figure end above its lower edge; tables scroll inside theirs."""
    while True:
        below = page.evaluate(
            """() => Math.max(...[...Reveal.getCurrentSlide().querySelectorAll("*")]
                .filter(e => !e.closest("aside, mjx-assistive-mml, .jp-OutputArea-output *"))
                .map(e => e.getBoundingClientRect().bottom))"""
        )
        assert below <= 722, f"{name}: {page.url}"
        if page.evaluate("Reveal.isLastSlide()"):
            return
        page.evaluate("Reveal.next()")
